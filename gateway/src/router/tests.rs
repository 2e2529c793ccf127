mod precedence;
mod predicate;
mod reference;
mod text;

use crossway_plugin_api::config::Glob;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Conflict, Found, HostPattern, Lookup, PathPattern, Router, Rule};

/// A rule for a path alone.
fn rule(path: &str) -> Rule {
    Rule {
        hosts: Vec::new(),
        path: PathPattern::parse(path).unwrap(),
        methods: Vec::new(),
        headers: Vec::new(),
        query: Vec::new(),
        entries: None,
    }
}

impl Rule {
    fn hosts(mut self, hosts: &[&str]) -> Self {
        self.hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
        self
    }

    fn methods(mut self, methods: &[&str]) -> Self {
        self.methods = methods.iter().map(|method| method.parse().unwrap()).collect();
        self
    }

    fn header(mut self, name: &'static str, glob: &str) -> Self {
        self.headers.push((HeaderName::from_static(name), Glob::parse(glob).unwrap()));
        self
    }

    fn query(mut self, name: &str, glob: &str) -> Self {
        self.query.push((name.into(), Glob::parse(glob).unwrap()));
        self
    }

    fn entries(mut self, entries: &[u32]) -> Self {
        self.entries = Some(entries.to_vec());
        self
    }
}

/// A router whose values are the indices of its rules.
fn build(rules: Vec<Rule>) -> (Router<usize>, Vec<Conflict>) {
    Router::build(rules.into_iter().zip(0..).collect())
}

#[derive(Debug, Clone)]
struct Ask {
    entry: u32,
    host: String,
    path: String,
    method: Method,
    headers: HeaderMap,
    query: Option<String>,
}

/// `METHOD host/path?query`, by listener 0.
fn ask(text: &str) -> Ask {
    let (method, url) = text.split_once(' ').unwrap();
    let (host, rest) = url.split_at(url.find('/').unwrap());
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query.to_owned())));
    let method = method.parse().unwrap();
    Ask { entry: 0, host: host.into(), path: path.into(), method, headers: HeaderMap::new(), query }
}

impl Ask {
    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(name, HeaderValue::from_static(value));
        self
    }

    fn entry(mut self, entry: u32) -> Self {
        self.entry = entry;
        self
    }

    fn lookup(&self) -> Lookup<'_> {
        Lookup {
            entry: self.entry,
            host: &self.host,
            path: &self.path,
            method: &self.method,
            headers: &self.headers,
            query: self.query.as_deref(),
        }
    }
}

/// What was found, in a form that is easy to compare.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Rule(usize, Vec<String>),
    Allow(Vec<String>),
    Nothing,
}

fn find(router: &Router<usize>, ask: &Ask) -> Outcome {
    match router.find(&ask.lookup()) {
        Found::Route { value, params } => {
            Outcome::Rule(*value, params.into_iter().map(|range| ask.path[range].to_owned()).collect())
        }
        Found::MethodNotAllowed { allow } => Outcome::Allow(allow.iter().map(ToString::to_string).collect()),
        Found::NotFound => Outcome::Nothing,
    }
}

fn hit(rule: usize, params: &[&str]) -> Outcome {
    Outcome::Rule(rule, params.iter().map(ToString::to_string).collect())
}

fn allow(methods: &[&str]) -> Outcome {
    Outcome::Allow(methods.iter().map(ToString::to_string).collect())
}
