//! Path patterns as a tree of segments.

use std::{collections::HashMap, ops::Range};

use super::{
    methods::MethodSet,
    pattern::{PathPattern, Segment},
};

/// A rule at one place of one tree.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Index of the rule.
    pub(super) rule: usize,
    /// What the rule takes here: whether `GET` implies `HEAD` depends on its neighbours.
    pub(super) methods: MethodSet,
}

/// A place in the tree: what has been read of a path so far. Candidates are in order of precedence.
#[derive(Debug, Default)]
pub(super) struct Node {
    exact: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    /// Patterns that end here.
    here: Vec<Candidate>,
    /// Patterns that end here in `{rest...}`.
    rest: Vec<Candidate>,
}

/// What a walk has found. Its parameters are in reverse order.
pub(super) struct Hit {
    pub(super) rule: usize,
    pub(super) params: Vec<Range<usize>>,
}

impl Node {
    /// The list that rules with this pattern stand in.
    pub(super) fn place(&mut self, pattern: &PathPattern) -> &mut Vec<Candidate> {
        let mut node = self;
        for segment in &pattern.segments {
            node = match segment {
                Segment::Exact(text) => node.exact.entry(text.clone()).or_default(),
                Segment::Any => node.any.get_or_insert_default(),
            };
        }
        if pattern.rest { &mut node.rest } else { &mut node.here }
    }

    /// Visits every list of candidates in the tree.
    pub(super) fn visit(&mut self, visitor: &mut impl FnMut(&mut Vec<Candidate>)) {
        visitor(&mut self.here);
        visitor(&mut self.rest);
        self.exact.values_mut().chain(self.any.as_deref_mut()).for_each(|node| node.visit(visitor));
    }

    /// Looks for the most specific pattern that takes `path[at..]`, which is empty or begins with a slash, and has a
    /// candidate that `choose` accepts. No node is visited twice, and none deeper than the longest pattern.
    pub(super) fn walk(
        &self,
        path: &str,
        at: usize,
        choose: &mut impl FnMut(&[Candidate]) -> Option<usize>,
    ) -> Option<Hit> {
        let hit = |rule| Hit { rule, params: Vec::new() };
        let Some(remainder) = path.get(at..).and_then(|r| r.strip_prefix('/')) else {
            return choose(&self.here).map(hit).or_else(|| self.walk_rest(at..at, choose));
        };
        let end = at + 1 + memchr::memchr(b'/', remainder.as_bytes()).unwrap_or(remainder.len());
        let segment = &path[at + 1..end];
        if let Some(found) = self.exact.get(segment).and_then(|node| node.walk(path, end, choose)) {
            return Some(found);
        }
        if let Some(node) = &self.any
            && !segment.is_empty()
            && let Some(mut found) = node.walk(path, end, choose)
        {
            found.params.push(at + 1..end);
            return Some(found);
        }
        self.walk_rest(at + 1..path.len(), choose)
    }

    fn walk_rest(&self, value: Range<usize>, choose: &mut impl FnMut(&[Candidate]) -> Option<usize>) -> Option<Hit> {
        if self.rest.is_empty() {
            return None;
        }
        choose(&self.rest).map(|rule| Hit { rule, params: vec![value] })
    }
}
