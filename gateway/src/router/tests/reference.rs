//! The router against a matcher that looks at every rule and sorts.

use std::{cmp::Reverse, collections::BTreeSet};

use http::Method;
use proptest::{prelude::*, sample};

use super::{Ask, Outcome, ask, build, find, rule};
use crate::router::{ConflictKind, HostPattern, Rule};

/// A rule as it is written, so that the reference reads the text and not the pattern.
#[derive(Debug, Clone)]
struct Written {
    hosts: Vec<&'static str>,
    path: String,
    methods: Vec<&'static str>,
    header: Option<&'static str>,
    query: Option<&'static str>,
    entries: Option<Vec<u32>>,
}

impl Written {
    fn rule(&self) -> Rule {
        let mut built = rule(&self.path).hosts(&self.hosts).methods(&self.methods);
        if let Some(value) = self.header {
            built = built.header("x", value);
        }
        if let Some(value) = self.query {
            built = built.query("q", value);
        }
        match &self.entries {
            Some(entries) => built.entries(entries),
            None => built,
        }
    }

    /// The host patterns that take this host, and how near each is: smaller is nearer.
    fn hosts_for(&self, host: &str) -> Vec<(&'static str, (u8, Reverse<usize>))> {
        let all = if self.hosts.is_empty() { vec!["*"] } else { self.hosts.clone() };
        let rank = |pattern: &'static str| match pattern.strip_prefix('*') {
            Some("") => Some((2, Reverse(0))),
            Some(suffix) => host.ends_with(suffix).then_some((1, Reverse(suffix.len()))),
            None => (pattern == host).then_some((0, Reverse(0))),
        };
        all.into_iter().filter_map(|pattern| rank(pattern).map(|rank| (pattern, rank))).collect()
    }

    /// The kinds of the segments (0 exact, 1 one, 2 rest) and the parameters, if the path matches.
    fn path_for(&self, path: &str) -> Option<(Vec<u8>, Vec<String>)> {
        let mut left: Vec<&str> = path.split('/').skip(1).collect();
        let (mut kinds, mut params) = (Vec::new(), Vec::new());
        for part in self.path.split('/').skip(1) {
            if part.ends_with("...}") {
                kinds.push(2);
                params.push(left.join("/"));
                return Some((kinds, params));
            }
            let segment = if left.is_empty() { return None } else { left.remove(0) };
            if part.starts_with('{') {
                if segment.is_empty() {
                    return None;
                }
                kinds.push(1);
                params.push(segment.to_owned());
            } else if part == segment {
                kinds.push(0);
            } else {
                return None;
            }
        }
        left.is_empty().then_some((kinds, params))
    }

    fn shape(&self) -> Vec<String> {
        let anonymous = |part: &str| match part {
            part if part.ends_with("...}") => "{...}".to_owned(),
            part if part.starts_with('{') => "{}".to_owned(),
            part => part.to_owned(),
        };
        self.path.split('/').map(anonymous).collect()
    }

    fn is_at(&self, host: &str) -> bool {
        self.hosts.contains(&host) || (host == "*" && self.hosts.is_empty())
    }

    fn holds(&self, ask: &Ask) -> bool {
        let header = ask.headers.get("x").map(|value| value.to_str().unwrap());
        let query = ask.query.as_deref().and_then(|query| query.strip_prefix("q="));
        let fits = |wanted: Option<&str>, there: Option<&str>| {
            wanted.is_none_or(|wanted| there.is_some_and(|there| wanted == "*" || wanted == there))
        };
        self.entries.as_ref().is_none_or(|entries| entries.contains(&ask.entry))
            && fits(self.header, header)
            && fits(self.query, query)
    }

    /// The methods taken for one of the hosts.
    fn methods_at(&self, host: &str, all: &[Written]) -> BTreeSet<String> {
        if self.methods.is_empty() {
            return ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map(str::to_owned).into();
        }
        let mut taken: BTreeSet<String> = self.methods.iter().map(|&method| method.to_owned()).collect();
        let neighbours = all.iter().filter(|other| other.is_at(host) && other.shape() == self.shape());
        if taken.contains("GET") && !neighbours.flat_map(|other| &other.methods).any(|&method| method == "HEAD") {
            taken.insert("HEAD".into());
        }
        taken
    }
}

fn reference(all: &[Written], ask: &Ask) -> Outcome {
    let mut found = Vec::new();
    let mut allowed = BTreeSet::new();
    for (index, written) in all.iter().enumerate().filter(|(_, written)| written.holds(ask)) {
        let Some((kinds, params)) = written.path_for(&ask.path) else { continue };
        for (host, rank) in written.hosts_for(&ask.host) {
            let methods = written.methods_at(host, all);
            if methods.contains(ask.method.as_str()) {
                let predicates = written.header.iter().count() + written.query.iter().count();
                let last = (Reverse(predicates), written.entries.is_none(), written.methods.is_empty(), index);
                found.push(((rank, kinds.clone(), last), params.clone()));
            } else {
                allowed.extend(methods);
            }
        }
    }
    found.sort();
    match found.into_iter().next() {
        Some(((.., (.., index)), params)) => Outcome::Rule(index, params),
        None if allowed.is_empty() => Outcome::Nothing,
        None => Outcome::Allow(allowed.into_iter().collect()),
    }
}

fn written() -> impl Strategy<Value = Written> {
    let hosts = sample::subsequence(vec!["a.x", "b.a.x", "*.x", "*.a.x", "*"], 0..3);
    let segments = proptest::collection::vec(sample::select(vec!["a", "b", "{}"]), 0..4);
    let end = sample::select(vec!["", "/", "/{rest...}", "/a"]);
    let path = (segments, end).prop_map(|(segments, end)| {
        let name = |(at, part): (usize, &str)| if part == "{}" { format!("/{{p{at}}}") } else { format!("/{part}") };
        let path: String = segments.into_iter().enumerate().map(name).chain([end.to_owned()]).collect();
        if path.is_empty() { "/".to_owned() } else { path }
    });
    let methods = sample::subsequence(vec!["GET", "HEAD", "POST", "PURGE"], 0..3);
    let value = || proptest::option::weighted(0.3, sample::select(vec!["1", "*"]));
    let entries = proptest::option::weighted(0.3, proptest::collection::vec(0..3_u32, 1..3));
    (hosts, path, methods, value(), value(), entries).prop_map(|(hosts, path, methods, header, query, entries)| {
        Written { hosts, path, methods, header, query, entries }
    })
}

fn asked() -> impl Strategy<Value = Ask> {
    let host = sample::select(vec!["a.x", "b.a.x", "c.b.a.x", "x", "c.x", ""]);
    let path = "(/[abc]){0,4}/[ab]?";
    let method = sample::select(vec!["GET", "HEAD", "POST", "PURGE", "OPTIONS", "TRACE"]);
    let value = || proptest::option::of(sample::select(vec!["1", "2"]));
    (host, path, method, value(), value(), 0..3_u32).prop_map(|(host, path, method, header, query, entry)| {
        let mut ask = ask(&format!("{method} {host}{path}")).entry(entry);
        ask.query = query.map(|value| format!("q={value}"));
        match header {
            Some(value) => ask.header("x", value),
            None => ask,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_router_agrees(rules in proptest::collection::vec(written(), 0..12), asks in proptest::collection::vec(asked(), 24)) {
        let (router, conflicts) = build(rules.iter().map(Written::rule).collect());
        for ask in &asks {
            let found = find(&router, ask);
            prop_assert_eq!(&found, &reference(&rules, ask), "{:?}", ask);
            if let Outcome::Rule(index, _) = found {
                prop_assert!(conflicts.iter().all(|conflict| conflict.second != index), "{:?} {:?}", conflicts, ask);
            }
        }
    }

    /// Of two rules that are told to be the same, each does without the other what the other does.
    #[test]
    fn the_same_rules_do_the_same(rules in proptest::collection::vec(written(), 2..6), again in any::<sample::Index>(), asks in proptest::collection::vec(asked(), 12)) {
        let mut rules = rules;
        rules.push(again.get(&rules).clone());
        let (_, conflicts) = build(rules.iter().map(Written::rule).collect());
        prop_assert!(conflicts.iter().any(|conflict| conflict.second == rules.len() - 1), "{:?}", conflicts);
        for conflict in conflicts.iter().filter(|conflict| conflict.kind == ConflictKind::Same) {
            let alone = |index: usize| build(vec![rules[index].rule()]).0;
            let (first, second) = (alone(conflict.first), alone(conflict.second));
            for ask in asks.iter().filter(|ask| ask.method != Method::HEAD) {
                let takes = |router| matches!(find(router, ask), Outcome::Rule(..));
                prop_assert_eq!(takes(&first), takes(&second), "{:?}", ask);
            }
        }
    }

    #[test]
    fn no_path_is_too_odd(path in "\\PC{0,20}", host in "\\PC{0,10}") {
        let (router, _) = build(vec![rule("/{a}/{rest...}"), rule("/a").hosts(&["*.x"])]);
        let ask = Ask { host, path, ..ask("GET t/") };
        let _ = find(&router, &ask);
        let _ = HostPattern::parse(&ask.host);
        let _ = crate::router::PathPattern::parse(&ask.path);
    }
}
