//! Several files as one configuration: lists are joined, mappings of names united, anything else stands in one file.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    error::Diagnostic,
    node::{Data, Node, Span},
    quoted, schema,
    sources::Sources,
};

/// What two files disagree about.
pub(super) struct Clash {
    message: String,
    at: Span,
    also: Option<(Span, &'static str)>,
}

impl Clash {
    /// The clash as a diagnostic.
    pub(super) fn report(self, sources: &Sources) -> Diagnostic {
        let mut diagnostic = sources.locate(self.at, self.message);
        diagnostic.also = self.also.map(|(span, label)| Box::new(sources.second_span(span, label.into())));
        diagnostic
    }
}

/// Makes one mapping of the roots of all files. Of what clashes, the first is kept.
pub(super) fn merge(roots: Vec<Node>) -> (Node, Vec<Clash>) {
    let single = roots.len() == 1;
    let mut clashes = Vec::new();
    let mut all: Vec<(String, Node)> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    let mut first: Option<Node> = None;
    for mut root in roots {
        match std::mem::replace(&mut root.data, Data::Mapping(Vec::new())) {
            Data::Mapping(entries) => {
                for (key, node) in entries {
                    match index.get(&key).and_then(|at| all.get_mut(*at)) {
                        Some((_, known)) => join(&key, known, node, &mut clashes),
                        None => {
                            index.insert(key.clone(), all.len());
                            all.push((key, node));
                        }
                    }
                }
            }
            Data::Scalar(Value::Null) => {}
            // The check of a single file says so in the words of every other wrong type.
            data if single => root.data = data,
            data => {
                let found = Node::new(root.span, data).kind();
                clashes.push(Clash {
                    message: format!("expected a mapping, found {found}"),
                    at: root.span,
                    also: None,
                });
            }
        }
        first.get_or_insert(root);
    }
    let mut root = first.unwrap_or_else(|| Node::new(Span::new(0, &(0..0)), Data::Mapping(Vec::new())));
    if let Data::Mapping(entries) = &mut root.data {
        *entries = all;
    }
    (root, clashes)
}

fn join(key: &str, known: &mut Node, node: Node, clashes: &mut Vec<Clash>) {
    let place = |node: &Node| node.key.unwrap_or(node.span);
    let kind = node.kind();
    match (section(key), &mut known.data, node.data) {
        (Section::List, Data::Sequence(all), Data::Sequence(items)) => all.extend(items),
        (Section::Names, Data::Mapping(all), Data::Mapping(entries)) => unite(key, all, entries, clashes),
        (Section::List, Data::Sequence(_), _) => {
            clashes.push(Clash {
                message: format!("expected a list, found {kind}"),
                at: node.key.unwrap_or(node.span),
                also: None,
            });
        }
        (Section::Names, Data::Mapping(_), _) => {
            clashes.push(Clash {
                message: format!("expected a mapping, found {kind}"),
                at: node.key.unwrap_or(node.span),
                also: None,
            });
        }
        (Section::Single, ..) => clashes.push(Clash {
            message: format!("{} may stand in one file only", quoted(key)),
            at: node.key.unwrap_or(node.span),
            also: Some((place(known), "it stands here too")),
        }),
        // The first file has the wrong type, or the key is unknown: the check says so.
        _ => {}
    }
}

fn unite(section: &str, all: &mut Vec<(String, Node)>, entries: Vec<(String, Node)>, clashes: &mut Vec<Clash>) {
    let known: HashMap<String, Span> =
        all.iter().map(|(name, node)| (name.clone(), node.key.unwrap_or(node.span))).collect();
    for (name, node) in entries {
        match known.get(&name) {
            Some(first) => clashes.push(Clash {
                message: format!("two of {} are named {}", quoted(section), quoted(&name)),
                at: node.key.unwrap_or(node.span),
                also: Some((*first, "it stands here too")),
            }),
            None => all.push((name, node)),
        }
    }
}

/// How a top-level key is merged.
enum Section {
    List,
    Names,
    Single,
    Unknown,
}

fn section(key: &str) -> Section {
    let Some(schema) = schema::property(schema::root(), key) else { return Section::Unknown };
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => Section::List,
        Some("object") if schema.get("additionalProperties").is_some_and(Value::is_object) => Section::Names,
        _ => Section::Single,
    }
}

/// Names that stand twice in a list of named things.
pub(super) fn duplicates(sources: &Sources, value: &Value) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (section, list) in value.as_object().into_iter().flatten() {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (at, item) in list.as_array().into_iter().flatten().enumerate() {
            let Some(name) = item.get("name").and_then(Value::as_str) else { continue };
            let Some(first) = seen.insert(name, at) else { continue };
            let pointer = |at: usize| format!("/{}/{at}/name", section.replace('~', "~0").replace('/', "~1"));
            let veiled = sources.find(&pointer(at)).is_none_or(|node| sources.is_veiled(node));
            let message = if veiled {
                format!("two of {} have the same name", quoted(section))
            } else {
                format!("two of {} are named {}", quoted(section), quoted(name))
            };
            found.push(sources.error(&pointer(at), message).also(sources, &pointer(first), "it stands here too"));
        }
    }
    found
}
