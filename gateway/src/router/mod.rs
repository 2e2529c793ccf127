//! From a request to its route.
//!
//! Of all the rules that take a request, the first one in this order wins:
//!
//! 1. host: an exact name, then `*.` with a longer suffix, then with a shorter one, then any host;
//! 2. path, segment by segment from the left: exact text, then `{name}`, then `{rest...}`;
//! 3. more conditions on header fields and query parameters;
//! 4. named listeners or sources before all of them;
//! 5. named methods before all of them;
//! 6. the order of the file.
//!
//! A rule holds only with its listeners, header fields, query parameters and methods; where the most specific path has
//! none that holds, less specific paths are tried, then less specific hosts. Only if no rule holds at all, and one failed
//! for its methods alone, the answer is "method not allowed", with the methods of all such rules.
//!
//! A rule without methods takes `GET HEAD POST PUT PATCH DELETE OPTIONS`. `GET` takes `HEAD` too, unless a rule with the
//! same host and path names `HEAD`. A query parameter that is given several times fulfils no condition.
//!
//! The cost of a match depends on the length of the path, not on the number of rules: a hash lookup per segment, and
//! another way to go only where a pattern has a parameter beside an exact segment.

mod build;
mod methods;
mod pattern;
mod predicate;
mod template;
mod trie;

pub use methods::DEFAULT_METHODS;
pub use pattern::{HostPattern, PathPattern};
pub use predicate::{headers_hold, query_holds, some_query_holds};
pub use template::Template;

use std::{collections::HashMap, ops::Range};

use crossway_plugin_api::config::Glob;
use http::{HeaderMap, HeaderName, Method};

use methods::MethodSet;
use trie::{Candidate, Hit, Node};

/// Which requests a route takes: all that is given must hold; a list holds when one of its items does, and when it is
/// empty.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Hosts; empty for any.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// Methods; empty for the ordinary ones.
    pub methods: Vec<Method>,
    /// Header fields and what their values must be. All must hold.
    pub headers: Vec<(HeaderName, Glob)>,
    /// Query parameters and what their values must be. All must hold.
    pub query: Vec<(String, Glob)>,
    /// Numbers of listeners or sources; `None` for any.
    pub entries: Option<Vec<u32>>,
}

/// What a route is chosen by. Host and path are in canonical form.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// Number of the listener or source the request came in by.
    pub entry: u32,
    /// Host name without port; empty if the request named none.
    pub host: &'a str,
    /// Path without query.
    pub path: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Header fields.
    pub headers: &'a HeaderMap,
    /// Query without `?`.
    pub query: Option<&'a str>,
}

/// What a lookup has found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a, T> {
    /// The route.
    Route {
        /// What its rule stands for.
        value: &'a T,
        /// Where in the path the parameters' values are, in the order of the pattern. For a `{rest...}` it is what
        /// follows the slash; where the path has no such slash, it is empty and at the path's end.
        params: Vec<Range<usize>>,
    },
    /// There are routes, but none for this method (RFC 9110, section 15.5.6).
    MethodNotAllowed {
        /// The methods there are routes for, in alphabetical order.
        allow: Vec<Method>,
    },
    /// There is no route.
    NotFound,
}

/// A rule that no request can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// Index of a rule that takes its requests.
    pub first: usize,
    /// Index of the rule.
    pub second: usize,
    /// How they overlap.
    pub kind: ConflictKind,
}

/// How two rules overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    /// Both take exactly the same requests.
    Same,
    /// The first takes all requests of the second, alone or together with others, and has precedence.
    Shadowed,
}

/// Finds routes.
#[derive(Debug)]
pub struct Router<T> {
    exact: HashMap<Box<str>, Node>,
    /// By suffix, without `*.`.
    below: HashMap<Box<str>, Node>,
    any: Node,
    rules: Vec<Compiled<T>>,
}

#[derive(Debug)]
struct Compiled<T> {
    rule: Rule,
    value: T,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new(), any: Node::default(), rules: Vec::new() }
    }
}

impl<T> Router<T> {
    /// All routes, in the order they were given.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.rules.iter().map(|compiled| &compiled.value)
    }

    /// Finds the route of a request.
    pub fn find(&self, lookup: &Lookup<'_>) -> Found<'_, T> {
        let mut allowed = MethodSet::default();
        let mut choose = |candidates: &[Candidate]| self.choose(candidates, lookup, &mut allowed);
        let hit = self.trees(lookup.host).find_map(|tree| tree.walk(lookup.path, 0, &mut choose));
        match hit {
            Some(Hit { rule, mut params }) => {
                params.reverse();
                Found::Route { value: &self.rules[rule].value, params }
            }
            None if allowed.is_empty() => Found::NotFound,
            None => Found::MethodNotAllowed { allow: allowed.sorted() },
        }
    }

    /// The trees that a host may be in, the most specific first.
    fn trees<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Node> {
        let exact = self.exact.get(host);
        let suffixes = if self.below.is_empty() { "" } else { host };
        let below = suffixes.bytes().zip(1..).filter(|(byte, _)| *byte == b'.');
        let below = below.filter_map(move |(_, start)| self.below.get(&host[start..]));
        exact.into_iter().chain(below).chain(Some(&self.any))
    }

    /// The first of these rules that holds. Of those that fail for their methods alone, notes the methods.
    fn choose(&self, candidates: &[Candidate], lookup: &Lookup<'_>, allowed: &mut MethodSet) -> Option<usize> {
        for candidate in candidates {
            let rule = &self.rules[candidate.rule].rule;
            if !rule.holds(lookup) {
                continue;
            }
            if candidate.methods.contains(lookup.method) {
                return Some(candidate.rule);
            }
            allowed.add(&candidate.methods);
        }
        None
    }
}

impl Rule {
    /// Whether everything but host, path and methods holds.
    fn holds(&self, lookup: &Lookup<'_>) -> bool {
        self.entries.as_ref().is_none_or(|entries| entries.contains(&lookup.entry))
            && headers_hold(&self.headers, lookup.headers)
            && query_holds(&self.query, lookup.query)
    }
}

#[cfg(test)]
mod tests;
