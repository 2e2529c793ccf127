//! Origins: the list of those that are allowed, and the question whether it holds one.

use std::{collections::HashSet, net::Ipv6Addr};

use crossway_plugin_api::{InvalidConfig, config::Glob};

/// Origins that are allowed. Exact ones cost one hash lookup; a pattern is compared part by part, so that a star cannot
/// reach over the end of a host.
pub(super) struct Origins {
    all: bool,
    exact: HashSet<Box<str>>,
    patterns: Box<[Pattern]>,
}

/// Whether, and how, an origin is allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It is listed, or a pattern covers it.
    ByName,
    /// Every origin is.
    WithAll,
    /// It is not.
    No,
}

struct Pattern {
    scheme: Box<str>,
    host: Glob,
    port: Port,
}

enum Port {
    Any,
    Only(Option<Box<str>>),
}

/// The parts of an origin (RFC 6454, section 6.2).
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
}

impl Origins {
    /// Checks and sorts the list. With credentials neither every origin nor the opaque one may be allowed.
    pub(super) fn compile(list: &[Glob], credentials: bool) -> Result<Self, InvalidConfig> {
        let mut origins = Self { all: false, exact: HashSet::new(), patterns: Box::new([]) };
        let mut patterns = Vec::new();
        for (at, glob) in list.iter().enumerate() {
            let text = glob.to_string();
            let wrong = |reason: &str| InvalidConfig::new(format!("origins/{at}"), reason);
            match text.as_str() {
                "*" | "null" if credentials => {
                    return Err(wrong("lets pages of unknown origin in, which must not be where `credentials` is on"));
                }
                "*" => origins.all = true,
                "null" => drop(origins.exact.insert(text.into())),
                _ => {
                    let parts = check(&text).map_err(wrong)?;
                    if text.contains('*') {
                        patterns.push(Pattern::of(&parts).map_err(|reason| wrong(&reason))?);
                    } else {
                        origins.exact.insert(text.into());
                    }
                }
            }
        }
        if list.is_empty() {
            return Err(InvalidConfig::new("origins", "names no origin"));
        }
        origins.patterns = patterns.into();
        Ok(origins)
    }

    /// Looks the value of an `Origin` field up.
    pub(super) fn admit(&self, origin: &str) -> Admitted {
        if self.exact.contains(origin) {
            return Admitted::ByName;
        }
        if self.all && origin != "null" {
            return Admitted::WithAll;
        }
        if self.patterns.is_empty() {
            return Admitted::No;
        }
        match Parts::of(origin) {
            Some(parts) if parts.are_sound(false) && self.patterns.iter().any(|p| p.covers(&parts)) => Admitted::ByName,
            _ => Admitted::No,
        }
    }
}

impl Pattern {
    fn of(parts: &Parts<'_>) -> Result<Self, String> {
        let port = match parts.port {
            Some("*") => Port::Any,
            other => Port::Only(other.map(Into::into)),
        };
        Ok(Self { scheme: parts.scheme.into(), host: Glob::parse(parts.host)?, port })
    }

    fn covers(&self, origin: &Parts<'_>) -> bool {
        let port = match &self.port {
            Port::Any => true,
            Port::Only(port) => port.as_deref() == origin.port,
        };
        port && *self.scheme == *origin.scheme && self.host.matches(origin.host)
    }
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        // An IPv6 host has colons of its own, inside brackets.
        let end = if rest.starts_with('[') { rest.find(']')? + 1 } else { rest.find(':').unwrap_or(rest.len()) };
        let (host, rest) = rest.split_at(end);
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':')?),
        };
        Some(Self { scheme, host, port })
    }

    /// Whether each part has the form that browsers give it. With `stars`, patterns are sound too.
    fn are_sound(&self, stars: bool) -> bool {
        let scheme = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.');
        self.scheme.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
            && self.scheme.bytes().all(scheme)
            && is_host(self.host, stars)
            && self.port.is_none_or(|port| (stars && port == "*") || is_port(port))
    }
}

fn is_host(host: &str, stars: bool) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok_and(|address| address.to_string() == inner);
    }
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_') || (stars && b == b'*');
    host.len() <= 253 && host.split('.').all(|label| !label.is_empty() && label.bytes().all(allowed))
}

fn is_port(port: &str) -> bool {
    port.len() <= 5 && !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Checks a configured origin; each thing that browsers never send has its own message.
fn check(text: &str) -> Result<Parts<'_>, &'static str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("has capitals: browsers send origins in lower case");
    }
    let parts = Parts::of(text).filter(|parts| parts.are_sound(true)).ok_or(
        "is not an origin: write scheme://host or scheme://host:port, without a path and without a slash at the end",
    )?;
    if matches!((parts.scheme, parts.port), ("http", Some("80")) | ("https", Some("443"))) {
        return Err("names the default port, which browsers leave out");
    }
    let host = parts.host.as_bytes();
    if host.iter().enumerate().any(|(at, b)| *b == b'*' && host.get(at + 1) != Some(&b'.')) {
        return Err("has a star that is not followed by a dot: anybody could register a name that ends like this one");
    }
    Ok(parts)
}
