//! References in values: `${env:NAME}` and `${file:path}`. They are resolved in values that were already parsed, so that
//! what they bring in is always one text, never YAML; and what they bring in goes into no diagnostic.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use crossway_plugin_api::config::FileText;
use serde_json::{Map, Value};

use super::{
    error::Diagnostic,
    node::{Data, Node, push},
    quoted, read, scalar, schema,
    sources::Sources,
};

/// Where variables of the environment come from.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Largest file that a reference brings in, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// All that references may bring in together, in bytes.
const MAX_TOTAL: usize = 16 << 20;
const MAX_WRONG: usize = 1000;

/// One part of a value.
#[derive(Debug, PartialEq, Eq)]
enum Part<'t> {
    Text(&'t str),
    Env(&'t str),
    File(&'t str),
}

/// What is wrong with a value; says nothing of its text, which may be a secret with an odd character.
#[derive(Debug, PartialEq, Eq)]
enum Malformed {
    Open,
    Kind,
    Name,
}

/// The parts of a value; `$${` is a plain `${`.
fn parts(mut text: &str) -> Result<Vec<Part<'_>>, Malformed> {
    let mut parts = Vec::new();
    while let Some(at) = text.find("${") {
        if text[..at].ends_with('$') {
            parts.extend([Part::Text(&text[..at - 1]), Part::Text("${")]);
            text = &text[at + 2..];
            continue;
        }
        let (inside, rest) = text[at + 2..].split_once('}').ok_or(Malformed::Open)?;
        parts.push(Part::Text(&text[..at]));
        parts.push(match inside.split_once(':').ok_or(Malformed::Kind)? {
            ("env", name) if is_variable(name) => Part::Env(name),
            ("file", path) if !path.is_empty() => Part::File(path),
            ("env" | "file", _) => return Err(Malformed::Name),
            _ => return Err(Malformed::Kind),
        });
        text = rest;
    }
    parts.push(Part::Text(text));
    parts.retain(|part| *part != Part::Text(""));
    Ok(parts)
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The first reference of a value, as written.
pub(super) fn first(text: &str) -> Option<String> {
    parts(text).ok()?.iter().find_map(|part| match part {
        Part::Text(_) => None,
        Part::Env(name) => Some(format!("${{env:{}}}", super::shown(name))),
        Part::File(path) => Some(format!("${{file:{}}}", super::shown(path))),
    })
}

/// Whether a value is one reference and nothing else.
pub(super) fn is_reference(text: &str) -> bool {
    matches!(parts(text).as_deref(), Ok([Part::Env(_) | Part::File(_)]))
}

/// The configuration with its references resolved.
pub(super) struct Resolved {
    pub(super) value: Value,
    /// What could not be resolved.
    pub(super) wrong: Vec<Diagnostic>,
    /// JSON Pointers of the values that could not be resolved.
    pub(super) failed: HashSet<String>,
    /// What the values became, by JSON Pointer.
    pub(super) known: HashMap<String, String>,
}

/// Resolves every reference.
pub(super) fn resolve(sources: &Sources, root: &Node, schema: Option<&Value>, env: Environment<'_>) -> Resolved {
    let mut resolver = Resolver {
        sources,
        env,
        read: HashMap::new(),
        left: MAX_TOTAL,
        wrong: Vec::new(),
        failed: HashSet::new(),
        known: HashMap::new(),
    };
    let value = resolver.value(root, &mut String::new(), schema);
    Resolved { value, wrong: resolver.wrong, failed: resolver.failed, known: resolver.known }
}

struct Resolver<'a> {
    sources: &'a Sources,
    env: Environment<'a>,
    read: HashMap<PathBuf, Result<String, String>>,
    left: usize,
    wrong: Vec<Diagnostic>,
    failed: HashSet<String>,
    known: HashMap<String, String>,
}

impl Resolver<'_> {
    fn value(&mut self, node: &Node, pointer: &mut String, schema: Option<&Value>) -> Value {
        let here = pointer.len();
        match &node.data {
            Data::Scalar(Value::String(text)) if text.contains("${") || is_file(schema) => {
                self.text(node, text, pointer, schema)
            }
            Data::Scalar(value) => value.clone(),
            Data::Sequence(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    push(pointer, &at.to_string());
                    list.push(self.value(item, pointer, schema.and_then(schema::item)));
                    pointer.truncate(here);
                }
                Value::Array(list)
            }
            Data::Mapping(entries) => {
                let mut map = Map::new();
                for (key, item) in entries {
                    push(pointer, key);
                    let value = self.value(item, pointer, schema.and_then(|schema| schema::property(schema, key)));
                    map.insert(key.clone(), value);
                    pointer.truncate(here);
                }
                Value::Object(map)
            }
        }
    }

    fn text(&mut self, node: &Node, text: &str, pointer: &str, schema: Option<&Value>) -> Value {
        let mut joined = self.joined(node, text);
        if is_file(schema) {
            joined = joined.and_then(|path| self.file(node, &path).map_err(|message| (message, None)));
        }
        match joined {
            Ok(text) => {
                self.known.insert(pointer.to_owned(), text.clone());
                typed(text, schema)
            }
            Err((message, help)) => {
                if self.wrong.len() < MAX_WRONG {
                    let mut diagnostic = self.sources.locate(node.place(), message);
                    diagnostic.help = help.map(Into::into);
                    self.wrong.push(diagnostic);
                }
                self.failed.insert(pointer.to_owned());
                Value::Null
            }
        }
    }

    fn joined(&mut self, node: &Node, text: &str) -> Result<String, (String, Option<&'static str>)> {
        const LITERAL: Option<&str> = Some("write $${ for a plain ${");
        let parts = parts(text).map_err(|malformed| match malformed {
            Malformed::Open => ("a reference has no closing `}`".to_owned(), LITERAL),
            Malformed::Kind => ("a reference is neither ${env:NAME} nor ${file:path}".to_owned(), LITERAL),
            Malformed::Name => ("a reference names no variable or file".to_owned(), LITERAL),
        })?;
        let mut joined = String::new();
        for part in parts {
            match part {
                Part::Text(text) => joined.push_str(text),
                Part::Env(name) => joined.push_str(&self.variable(name).map_err(|message| (message, None))?),
                Part::File(path) => joined.push_str(&self.file(node, path).map_err(|message| (message, None))?),
            }
        }
        self.spend(joined.len()).map_err(|message| (message, None))?;
        Ok(joined)
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        (self.env)(name).ok_or_else(|| format!("the environment variable {} is not set", quoted(name)))
    }

    fn file(&mut self, node: &Node, path: &str) -> Result<String, String> {
        let full = self.sources.folder(node).join(path);
        if !self.read.contains_key(&full) {
            let text = secret(&full);
            self.spend(text.as_ref().map_or(0, String::len))?;
            self.read.insert(full.clone(), text);
        }
        let known = self.read.get(&full).cloned().unwrap_or_else(|| Err("cannot be read".into()));
        known.map_err(|reason| format!("the file {} {reason}", quoted(path)))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or_else(|| format!("references bring in more than {} MiB together", MAX_TOTAL >> 20))?;
        Ok(())
    }
}

/// Whether the value is the path of a file whose text is meant.
fn is_file(schema: Option<&Value>) -> bool {
    schema.and_then(|schema| schema.get("format")).is_some_and(|format| format == FileText::FORMAT)
}

/// Reads a file that a reference names; its last line break is not part of the value.
fn secret(path: &Path) -> Result<String, String> {
    let mut text = read::text(path, MAX_FILE)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// A resolved text becomes a number or a boolean where only that is accepted.
fn typed(text: String, schema: Option<&Value>) -> Value {
    let value = match schema.and_then(|schema| schema.get("type")).and_then(Value::as_str) {
        Some("integer" | "number") => scalar::number(text.trim()).map(Value::Number),
        Some("boolean") => text.trim().parse().ok().map(Value::Bool),
        _ => None,
    };
    value.unwrap_or(Value::String(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cut_into_texts_and_references() {
        use Part::{Env, File, Text};
        for (text, expected) in [
            ("", vec![]),
            ("a$b{c}", vec![Text("a$b{c}")]),
            ("${env:A}", vec![Env("A")]),
            ("x${env:A_1}y${file:/a b}", vec![Text("x"), Env("A_1"), Text("y"), File("/a b")]),
            ("$${env:A}", vec![Text("${"), Text("env:A}")]),
            ("$$${env:A}", vec![Text("$"), Text("${"), Text("env:A}")]),
        ] {
            assert_eq!(parts(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("${env:A", Malformed::Open),
            ("${A}", Malformed::Kind),
            ("${vault:a}", Malformed::Kind),
            ("${env:}", Malformed::Name),
            ("${env:1A}", Malformed::Name),
            ("${env:A:-b}", Malformed::Name),
            ("${file:}", Malformed::Name),
        ] {
            assert_eq!(parts(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_pure_reference_is_told_from_a_text_around_one() {
        assert!(is_reference("${env:A}") && is_reference("${file:/a}"));
        assert!(!is_reference("x${env:A}") && !is_reference("$${env:A}") && !is_reference("x"));
        assert_eq!(first("a ${file:b} ${env:C}").as_deref(), Some("${file:b}"));
        assert_eq!(first("$${env:A}"), None);
    }
}
