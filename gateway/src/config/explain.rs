//! One error of the schema in our own words. A value that holds a reference or a secret is never repeated.

use crossway_plugin_api::suggest;
use jsonschema::{ValidationError, error::ValidationErrorKind as Kind};
use serde_json::Value;

use super::{
    check::format_check,
    error::Diagnostic,
    node::{kind, tokens},
    quoted, references, schema,
    sources::Sources,
};

/// The schema in which a keyword stands, by the keyword's place.
pub(super) fn parent(place: &str) -> &'static Value {
    let parent = place.rsplit_once('/').map_or("", |(parent, _)| parent);
    schema::root().pointer(parent).unwrap_or(&Value::Null)
}

/// Whether another error already says that this value has the wrong type.
pub(super) fn is_second_error(error: &ValidationError<'_>, schema: &Value) -> bool {
    !matches!(error.kind(), Kind::Type { .. }) && !accepts(schema, error.instance())
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn accepts(schema: &Value, value: &Value) -> bool {
    let types = types(schema);
    types.is_empty()
        || types.iter().any(|name| match *name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            _ => true,
        })
}

fn words(schema: &Value) -> String {
    let words: Vec<&str> = types(schema)
        .into_iter()
        .map(|name| match name {
            "object" => "a mapping",
            "array" => "a list",
            "string" => "a string",
            "boolean" => "a boolean",
            "integer" => "a whole number",
            _ => "a number",
        })
        .collect();
    words.join(" or ")
}

/// What a failed format check says, as the rest of a sentence.
pub(super) fn format_error(error: &ValidationError<'_>) -> Option<String> {
    let Kind::Format { format } = error.kind() else { return None };
    format_check(format)?(error.instance().as_str()?).err()
}

/// Which alternative the user meant, if that is plain: the only one whose keys were used.
pub(super) fn meant(value: &Value, schema: &Value) -> Option<usize> {
    let object = value.as_object()?;
    let mut fitting = schema::branches(schema)
        .enumerate()
        .filter(|(_, branch)| schema::keys(branch).iter().any(|key| object.contains_key(*key)));
    match (fitting.next(), fitting.next()) {
        (Some((at, _)), None) => Some(at),
        _ => None,
    }
}

/// A value that is none of the alternatives.
pub(super) fn choice(sources: &Sources, error: &ValidationError<'_>, schema: &Value) -> Diagnostic {
    let mut words = Vec::new();
    let mut others = Vec::new();
    for branch in schema::branches(schema) {
        let values =
            branch.get("const").into_iter().chain(branch.get("enum").and_then(Value::as_array).into_iter().flatten());
        let before = words.len();
        words.extend(values.map(plain));
        if words.len() == before {
            let keys = schema::keys(branch);
            others.push(if keys.is_empty() {
                self::words(branch)
            } else {
                format!("a mapping with {}", keys.join(", "))
            });
        }
    }
    one_of(sources, error, &words, &others)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn one_of(sources: &Sources, error: &ValidationError<'_>, words: &[String], others: &[String]) -> Diagnostic {
    let pointer = error.instance_path().as_str();
    let all: Vec<&str> = words.iter().chain(others).map(String::as_str).collect();
    let value: &Value = error.instance();
    let shown = sources.find(pointer).is_some_and(|node| !sources.is_veiled(node));
    let listed = match all.as_slice() {
        [only] => format!("the one accepted value, {only}"),
        all => format!("one of {}", all.join(", ")),
    };
    let message = match value {
        Value::Object(_) | Value::Array(_) | Value::Null => format!("expected {listed}, found {}", kind(value)),
        _ if shown => format!("{} is not {listed}", quoted(&plain(value))),
        _ => format!("{} is not {listed}", sources.subject(pointer)),
    };
    let diagnostic = sources.error(pointer, message);
    if shown && !value.is_string() && words.contains(&plain(value)) {
        return diagnostic.help(format!("put it in quotes: \"{}\"", plain(value)));
    }
    match value.as_str().and_then(|text| suggest(text, words.iter().map(String::as_str))) {
        Some(near) if shown => diagnostic.help(format!("did you mean `{near}`?")),
        _ => diagnostic,
    }
}

/// Every other error.
pub(super) fn explain(sources: &Sources, error: &ValidationError<'_>, schema: &Value) -> Diagnostic {
    let pointer = error.instance_path().as_str();
    match error.kind() {
        Kind::Type { .. } => wrong_type(sources, error, schema),
        Kind::Format { .. } => {
            let text = format_error(error).unwrap_or_else(|| "is not accepted here".into());
            let reference = sources.find(pointer).and_then(|node| node.text()).and_then(references::first);
            // What follows the colon may be made from the value.
            let text = if reference.is_some() { text.split(':').next().unwrap_or_default() } else { &text };
            sources.error(pointer, text)
        }
        Kind::Enum { options } => {
            let words: Vec<String> = options.as_array().into_iter().flatten().map(plain).collect();
            one_of(sources, error, &words, &[])
        }
        Kind::Constant { expected_value } => one_of(sources, error, &[plain(expected_value)], &[]),
        kind => sources.error(pointer, bound(kind, pointer)),
    }
}

/// A bound that was missed, as the rest of a sentence.
fn bound(kind: &Kind, pointer: &str) -> String {
    match kind {
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MinLength { limit: 1 } | Kind::MinItems { limit: 1 } | Kind::MinProperties { limit: 1 } => {
            "is empty".into()
        }
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinItems { limit } => format!("must have at least {limit} items"),
        Kind::MaxItems { limit } => format!("must have at most {limit} items"),
        Kind::MinProperties { limit } => format!("must have at least {limit} keys"),
        Kind::MaxProperties { limit } => format!("must have at most {limit} keys"),
        Kind::Pattern { pattern } => format!("must match {pattern}"),
        Kind::UniqueItems => "has the same item twice".into(),
        other => {
            let key = tokens(pointer).pop().unwrap_or_default();
            format!("does not fit {} here: {}", quoted(&key), other.keyword())
        }
    }
}

fn wrong_type(sources: &Sources, error: &ValidationError<'_>, schema: &Value) -> Diagnostic {
    let pointer = error.instance_path().as_str();
    let value: &Value = error.instance();
    let wanted = words(schema);
    let reference = sources.find(pointer).and_then(|node| node.text()).and_then(references::first);
    if reference.is_some() {
        return sources.error(pointer, format!("is not {wanted}"));
    }
    let diagnostic = sources.error(pointer, format!("expected {wanted}, found {}", kind(value)));
    let example = schema.get("examples").and_then(|examples| examples.get(0)).map(plain);
    let defaults = schema.get("required").is_none();
    match (value, types(schema).as_slice()) {
        (Value::Null, ["object"]) if defaults => diagnostic.help("write {} for the defaults, or leave the key out"),
        (Value::Null, ["array"]) => diagnostic.help("write [] for an empty list, or leave the key out"),
        (Value::Number(_) | Value::Bool(_), ["string"]) => match example {
            Some(example) => diagnostic.help(format!("write it like this: {example}")),
            None => diagnostic.help("put it in quotes"),
        },
        (Value::String(_) | Value::Number(_), ["array"]) => {
            diagnostic.help("put it in brackets to make it a list: [ ]")
        }
        _ => diagnostic,
    }
}
