//! From rules to a router, and the rules that no request can reach.

use std::cmp::Reverse;

use http::Method;

use super::{Compiled, Conflict, ConflictKind, HostPattern, Router, Rule, methods::MethodSet, trie::Candidate};

impl<T> Router<T> {
    /// Builds a router of rules, in file order, and what each stands for. Says too which rules can never match; the
    /// router is complete all the same.
    pub fn build(rules: Vec<(Rule, T)>) -> (Self, Vec<Conflict>) {
        let mut router = Self::default();
        for (mut rule, value) in rules {
            tidy(&mut rule);
            let index = router.rules.len();
            for host in &rule.hosts {
                let methods = MethodSet::of_rule(&rule.methods);
                router.tree(host).place(&rule.path).push(Candidate { rule: index, methods });
            }
            router.rules.push(Compiled { rule, value });
        }
        let mut coverage = Coverage { blocks: Vec::new() };
        let Self { exact, below, any, rules } = &mut router;
        for tree in exact.values_mut().chain(below.values_mut()).chain(Some(any)) {
            tree.visit(&mut |candidates| {
                arrange(candidates, rules);
                coverage.look(candidates, rules);
            });
        }
        let conflicts = coverage.conflicts(rules);
        (router, conflicts)
    }

    fn tree(&mut self, host: &HostPattern) -> &mut super::trie::Node {
        match host {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Below(suffix) => self.below.entry(suffix.clone()).or_default(),
            HostPattern::Any => &mut self.any,
        }
    }
}

/// Brings the lists of a rule into one form, so that equal ones are equal.
fn tidy(rule: &mut Rule) {
    if rule.hosts.is_empty() {
        rule.hosts.push(HostPattern::Any);
    }
    rule.hosts.sort_unstable();
    rule.hosts.dedup();
    rule.headers.sort_by_cached_key(|(name, glob)| (name.to_string(), glob.to_string()));
    rule.headers.dedup();
    rule.query.sort_by_cached_key(|(name, glob)| (name.clone(), glob.to_string()));
    rule.query.dedup();
    if let Some(entries) = &mut rule.entries {
        entries.sort_unstable();
        entries.dedup();
    }
}

/// Puts the rules of one host and one path in order of precedence, and settles `HEAD`.
fn arrange<T>(candidates: &mut [Candidate], rules: &[Compiled<T>]) {
    candidates.sort_by_key(|candidate| {
        let rule = &rules[candidate.rule].rule;
        let predicates = rule.headers.len() + rule.query.len();
        (Reverse(predicates), rule.entries.is_none(), rule.methods.is_empty(), candidate.rule)
    });
    if !candidates.iter().any(|candidate| rules[candidate.rule].rule.methods.contains(&Method::HEAD)) {
        for candidate in candidates {
            candidate.methods.imply_head();
        }
    }
}

/// Which rules are taken away everything, at which of their places, and by which rule.
struct Coverage {
    blocks: Vec<Block>,
}

struct Block {
    covered: usize,
    by: usize,
    /// Each takes what the other does, here.
    same: bool,
}

impl Coverage {
    /// Looks at the rules of one host and one path, in order of precedence.
    fn look<T>(&mut self, candidates: &[Candidate], rules: &[Compiled<T>]) {
        for (at, candidate) in candidates.iter().enumerate() {
            let rule = &rules[candidate.rule].rule;
            let mut taken = MethodSet::default();
            // Rules with fewer predicates stand behind this one: only equal predicates can take all its requests.
            for earlier in candidates[..at].iter().filter(|earlier| takes_over(&rules[earlier.rule].rule, rule)) {
                taken.add(&earlier.methods);
                if taken.covers(&candidate.methods) {
                    let same = earlier.methods == candidate.methods && rules[earlier.rule].rule.entries == rule.entries;
                    self.blocks.push(Block { covered: candidate.rule, by: earlier.rule, same });
                    break;
                }
            }
        }
    }

    /// A rule is out of reach if it is covered at every one of its places.
    fn conflicts<T>(mut self, rules: &[Compiled<T>]) -> Vec<Conflict> {
        self.blocks.sort_unstable_by_key(|block| (block.covered, block.by));
        let mut conflicts = Vec::new();
        for blocks in self.blocks.chunk_by(|a, b| a.covered == b.covered) {
            let Block { covered: second, by: first, .. } = blocks[0];
            if blocks.len() < rules[second].rule.hosts.len() {
                continue;
            }
            let one = blocks.iter().all(|block| block.by == first && block.same);
            let same = one && rules[first].rule.hosts == rules[second].rule.hosts;
            let kind = if same { ConflictKind::Same } else { ConflictKind::Shadowed };
            conflicts.push(Conflict { first, second, kind });
        }
        conflicts
    }
}

/// Whether `earlier` holds wherever `later` does, methods aside.
fn takes_over(earlier: &Rule, later: &Rule) -> bool {
    let entries = match (&earlier.entries, &later.entries) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => later.iter().all(|entry| earlier.contains(entry)),
    };
    entries && earlier.headers == later.headers && earlier.query == later.query
}
