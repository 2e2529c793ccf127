//! What a route's path and hosts look like.

use crate::request::{canonical_host, canonical_target};

/// Most segments of a path pattern.
const MAX_SEGMENTS: usize = 64;

/// A path: exact, with `{name}` for one whole segment, or ending in `{rest...}` for everything below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    pub(super) segments: Vec<Segment>,
    /// The pattern ends in `{rest...}`, which is not among the segments.
    pub(super) rest: bool,
    names: Vec<Box<str>>,
}

/// One segment of a path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// This text; empty only as the last segment, where it stands for a trailing slash.
    Exact(Box<str>),
    /// Any text but an empty one.
    Any,
}

impl PathPattern {
    /// Reads a pattern. Exact segments must be in canonical form; names are `[a-z_][a-z0-9_]*` and unique.
    ///
    /// Errors: the rest of a sentence that begins with the pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('/').ok_or("is not a path: it must begin with `/`")?;
        let parts: Vec<&str> = inner.split('/').collect();
        if parts.len() > MAX_SEGMENTS {
            return Err(format!("has more than {MAX_SEGMENTS} segments"));
        }
        let mut pattern = Self { segments: Vec::with_capacity(parts.len()), rest: false, names: Vec::new() };
        let mut canonical = String::with_capacity(text.len());
        for (at, part) in parts.iter().enumerate() {
            let form = pattern.push(part, at + 1 == parts.len())?;
            canonical.push('/');
            canonical.push_str(&form);
        }
        if canonical == text { Ok(pattern) } else { Err(format!("is not in canonical form: write `{canonical}`")) }
    }

    /// Adds a segment and returns its canonical form.
    fn push(&mut self, part: &str, is_last: bool) -> Result<String, String> {
        if !part.contains(['{', '}']) {
            let form = canonical_segment(part, is_last)?;
            self.segments.push(Segment::Exact(form.as_str().into()));
            return Ok(form);
        }
        let inner = part
            .strip_prefix('{')
            .and_then(|p| p.strip_suffix('}'))
            .ok_or_else(|| format!("has a parameter that is not a whole segment: `{part}`"))?;
        let name = inner.strip_suffix("...").unwrap_or(inner);
        if !is_name(name) {
            return Err(format!(
                "has the parameter `{{{inner}}}`, whose name is not one: lower case letters, digits and `_`, no digit first"
            ));
        }
        if self.names.iter().any(|known| **known == *name) {
            return Err(format!("has two parameters of the name `{name}`"));
        }
        self.names.push(name.into());
        if inner == name {
            self.segments.push(Segment::Any);
        } else if is_last {
            self.rest = true;
        } else {
            return Err(format!("has `{part}` before its end: only the last segment can be one"));
        }
        Ok(part.to_owned())
    }

    /// The names of the parameters, in their order.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn canonical_segment(part: &str, is_last: bool) -> Result<String, String> {
    if part.is_empty() {
        return if is_last { Ok(String::new()) } else { Err("has an empty segment".into()) };
    }
    if matches!(part, "." | "..") {
        return Err("has a dot segment".into());
    }
    if part.contains('?') {
        return Err("holds a query: use `query` for its parameters".into());
    }
    let target = format!("/{part}");
    let form = canonical_target(&target).map_err(|refusal| format!("cannot match: {}", in_sentence(refusal.detail)))?;
    match form.path.strip_prefix('/') {
        Some(segment) if !segment.is_empty() => Ok(segment.to_owned()),
        _ => Err("has a dot segment".into()),
    }
}

/// A sentence as a part of another one.
fn in_sentence(sentence: &str) -> String {
    let mut letters = sentence.trim_end_matches('.').chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + letters.as_str())
}

/// A host: exact, `*.` and a suffix for any name below it, or `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This name or address.
    Exact(Box<str>),
    /// Every name below this one, at any depth, and not the name itself.
    Below(Box<str>),
    /// Every host, and none.
    Any,
}

impl HostPattern {
    /// Reads a pattern; letter case and a trailing dot do not count.
    ///
    /// Errors: the rest of a sentence that begins with the pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (name, is_wild) = text.strip_prefix("*.").map_or((text, false), |suffix| (suffix, true));
        if name.contains('*') {
            return Err("may have a `*` only as its whole first label".into());
        }
        let host = canonical_host(name).map_err(|_| "is not a host name".to_owned())?;
        if host.port.is_some() {
            return Err("has a port: hosts are matched by their name alone".into());
        }
        match is_wild {
            true if host.name.starts_with('[') => Err("is not a host name".into()),
            true => Ok(Self::Below(host.name.into())),
            false => Ok(Self::Exact(host.name.into())),
        }
    }
}
