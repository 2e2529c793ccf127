//! A value of the configuration and where it was written.

use std::ops::Range;

use serde_json::Value;

/// A range of bytes in one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) file: u32,
    start: u32,
    end: u32,
}

impl Span {
    /// A range of a file; files are far below 4 GiB.
    pub(super) fn new(file: u32, at: &Range<usize>) -> Self {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { file, start: narrow(at.start), end: narrow(at.end.max(at.start)) }
    }

    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(super) fn end(self) -> usize {
        self.end as usize
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where the key of this value stands, if it has one.
    pub(super) key: Option<Span>,
    /// Where the value stands; of an alias, the alias.
    pub(super) span: Span,
    /// Where the text of the value stands; of an alias, what it names.
    pub(super) origin: Span,
    pub(super) data: Data,
}

/// A value as written: references are not resolved, so nothing secret comes in here from outside the file.
#[derive(Debug, Clone)]
pub(super) enum Data {
    Scalar(Value),
    Sequence(Vec<Node>),
    Mapping(Vec<(String, Node)>),
}

impl Node {
    pub(super) fn new(span: Span, data: Data) -> Self {
        Self { key: None, span, origin: span, data }
    }

    /// The best place to point at: the value, or its key where nothing is written for the value.
    pub(super) fn place(&self) -> Span {
        match self.key {
            Some(key) if self.span.is_empty() || self.span.file != key.file => key,
            _ => self.span,
        }
    }

    /// The text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(value) => value.as_str(),
            _ => None,
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.data {
            Data::Mapping(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The node that one token of a JSON Pointer leads to.
    pub(super) fn step(&self, token: &str) -> Option<&Self> {
        match &self.data {
            Data::Sequence(items) => token.parse::<usize>().ok().and_then(|at| items.get(at)),
            _ => self.get(token),
        }
    }

    /// What kind of value this is, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match &self.data {
            Data::Mapping(_) => "a mapping",
            Data::Sequence(_) => "a list",
            Data::Scalar(value) => kind(value),
        }
    }

    /// Number of nodes, bytes of text, and levels below this one.
    pub(super) fn weigh(&self) -> (usize, usize, usize) {
        let add = |(nodes, text, height): (usize, usize, usize), node: &Self| {
            let (n, t, h) = node.weigh();
            (nodes + n, text + t, height.max(h + 1))
        };
        match &self.data {
            Data::Scalar(_) => (1, self.text().map_or(0, str::len), 0),
            Data::Sequence(items) => items.iter().fold((1, 0, 0), add),
            Data::Mapping(entries) => entries.iter().fold((1, 0, 0), |sum, (key, node)| {
                let (nodes, text, height) = add(sum, node);
                (nodes, text + key.len(), height)
            }),
        }
    }
}

/// What kind of value this is, with its article.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// The tokens of a JSON Pointer (RFC 6901, section 4).
pub(super) fn tokens(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
}

/// Adds a token to a JSON Pointer.
pub(super) fn push(pointer: &mut String, token: &str) {
    pointer.push('/');
    pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
}
