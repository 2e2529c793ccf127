//! The reference of all keys as a page for people, made from the same schema that configurations are checked against.

use std::fmt::Write as _;

use crossway_plugin_api::config::{
    ByteRate, ByteSize, FieldName, FieldValue, FileText, Glob, HumanDuration, Network, Percent, Sha256Hex, StatusSet,
};
use serde_json::Value;

use super::{
    entry::CORE_KEYS,
    fallback::FallbackOn,
    memory::{MemoryMax, ShedAt},
    retry::RetryOn,
    schema,
};

const HEAD: &str = "# Reference

Every key of the configuration, made from the schema that `crossway check` uses: `crossway schema --markdown` prints this
page. `[]` stands for an item of a list, `NAME` for a name of your choice. Durations are a number with a unit (`500ms`,
`10s`, `1h`), sizes a whole number with a unit (`64KiB`, `10MiB`), networks an address or CIDR notation; in patterns, `*`
stands for any characters.

## The top level

";

const PLUGINS: &str = "
## Plugins

An entry of `plugins`, `chains.NAME` or `routes[].plugins`: the key of one plugin with its settings, and beside it these
keys. What the plugins do is told in [plugins/README.md](../plugins/README.md).

";

const FORMATS: [(&str, &str); 15] = [
    (HumanDuration::FORMAT, "duration"),
    (ByteSize::FORMAT, "size"),
    (ByteRate::FORMAT, "rate"),
    (FieldName::FORMAT, "header field name"),
    (FieldValue::FORMAT, "header field value"),
    (FileText::FORMAT, "path of a file"),
    (Glob::FORMAT, "pattern"),
    (Network::FORMAT, "network"),
    (Percent::FORMAT, "share, such as `20%`"),
    (Sha256Hex::FORMAT, "SHA-256"),
    (StatusSet::FORMAT, "status code, class or range"),
    (RetryOn::FORMAT, "`connect_error`, `reset`, `timeout`, or status code, class or range"),
    (FallbackOn::FORMAT, "word, or status code, class or range"),
    (MemoryMax::FORMAT, "`auto`, `off` or size"),
    (ShedAt::FORMAT, "share, 50% to 99%"),
];

/// The page, as Markdown.
pub fn reference() -> String {
    let root = schema::root();
    let entry = schema::property(root, "plugins").and_then(schema::item).unwrap_or(&Value::Null);
    let mut page = Page { text: HEAD.to_owned(), entry };
    page.table("", root, |_| true);
    page.below("", root);
    page.plugins();
    page.text
}

/// The page while it is written.
struct Page<'s> {
    text: String,
    /// The schema of an entry of a list of plugins, which is explained once.
    entry: &'s Value,
}

impl<'s> Page<'s> {
    /// One object, then those below it.
    fn section(&mut self, path: &str, object: &'s Value) {
        let about = description(object).unwrap_or_default();
        let _ = write!(self.text, "\n## `{path}`\n\n{about}\n\n");
        self.table(path, object, |_| true);
        self.below(path, object);
    }

    fn below(&mut self, path: &str, object: &'s Value) {
        for (name, value) in properties(object) {
            if value.get("items").and_then(|items| items.get("$ref")).is_some() {
                self.plugin_list(&join(path, name), value);
            }
            if let Some((path, object)) = inner(&join(path, name), value, self.entry) {
                self.section(&path, object);
            }
        }
    }

    /// A plugin whose settings are a list of plugins.
    fn plugin_list(&mut self, path: &str, list: &Value) {
        let about = description(list).unwrap_or_default();
        let bound = |key: &str| list.get(key).map(Value::to_string).unwrap_or_default();
        let (fewest, most) = (bound("minItems"), bound("maxItems"));
        let _ = write!(self.text, "\n## `{path}`\n\n{about}\n\n");
        let _ = writeln!(self.text, "A list of {fewest} to {most} [plugins](#plugins), without the keys beside them.");
    }

    /// The entry of a list of plugins: the core's keys, then what stands below them and each plugin.
    fn plugins(&mut self) {
        let entry = self.entry;
        self.text.push_str(PLUGINS);
        self.table("", entry, |name| CORE_KEYS.contains(&name));
        self.below("", entry);
    }

    fn table(&mut self, path: &str, object: &Value, wanted: impl Fn(&str) -> bool) {
        self.text.push_str("| key | type | default | description |\n|---|---|---|---|\n");
        let required = |name: &str| {
            let names = object.get("required").and_then(Value::as_array);
            names.into_iter().flatten().any(|required| required == name)
        };
        for (name, value) in properties(object).filter(|(name, _)| wanted(name)) {
            let default = match value.get("default") {
                _ if required(name) => "required".to_owned(),
                Some(default) => format!("`{}`", flow(default)),
                None => String::new(),
            };
            let kind = self.kind(&join(path, name), value);
            let _ = writeln!(self.text, "| `{name}` | {kind} | {default} | {} |", about(value));
        }
    }

    /// What a value may be, in words; objects are links to their sections.
    fn kind(&self, path: &str, value: &Value) -> String {
        if value == self.entry || value.get("$ref").is_some() {
            return "[plugin](#plugins)".into();
        }
        if value.get("type").and_then(Value::as_array).is_some_and(|kinds| kinds.iter().any(|kind| kind == "array")) {
            return several(value);
        }
        if let Some((_, words)) = FORMATS.iter().find(|(name, _)| value.get("format").is_some_and(|f| f == name)) {
            return (*words).into();
        }
        if let Some(choices) = choices(value) {
            return choices.join(", ");
        }
        match value.get("type").and_then(Value::as_str) {
            Some("string") => "text".into(),
            Some("boolean") => "`true` or `false`".into(),
            Some("integer" | "number") => number(value),
            Some("array") => match value.get("items") {
                Some(items) => format!("list: {}", self.kind(&format!("{path}[]"), items)),
                None => "list".into(),
            },
            Some("object") => match value.get("additionalProperties").filter(|values| values.is_object()) {
                Some(values) => format!("`NAME:` {}", self.kind(&join(path, "NAME"), values)),
                None if properties(value).next().is_none() => "`{}`".into(),
                None => format!("[mapping](#{})", anchor(path)),
            },
            _ => "anything".into(),
        }
    }
}

/// What a value of several types may be.
fn several(value: &Value) -> String {
    let words = value.get("type").and_then(Value::as_array).into_iter().flatten().map(|kind| match kind.as_str() {
        Some("string") => "text",
        Some("boolean") => "`true` or `false`",
        Some("number" | "integer") => "number",
        Some("array") => "list of these",
        _ => "anything",
    });
    words.collect::<Vec<_>>().join(", ")
}

fn properties(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = object.get("properties").and_then(Value::as_object);
    all.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The object that a value is, or is made of, with its path; none for scalars and plugins.
fn inner<'s>(path: &str, value: &'s Value, entry: &Value) -> Option<(String, &'s Value)> {
    if value == entry {
        None
    } else if let Some(items) = value.get("items") {
        inner(&format!("{path}[]"), items, entry)
    } else if let Some(values) = value.get("additionalProperties").filter(|values| values.is_object()) {
        inner(&join(path, "NAME"), values, entry)
    } else {
        value.get("properties").map(|_| (path.to_owned(), value))
    }
}

/// The place of a heading in a page: its letters, digits, hyphens and underscores.
fn anchor(path: &str) -> String {
    let kept = path.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
    kept.map(|c| c.to_ascii_lowercase()).collect()
}

/// The values that there are, if they are listed.
fn choices(value: &Value) -> Option<Vec<String>> {
    if let Some(listed) = value.get("enum").and_then(Value::as_array) {
        return Some(listed.iter().map(|choice| format!("`{}`", flow(choice))).collect());
    }
    let branches = value.get("oneOf").and_then(Value::as_array)?;
    branches.iter().map(|branch| branch.get("const").map(|choice| format!("`{}`", flow(choice)))).collect()
}

fn number(value: &Value) -> String {
    let bound = |key: &str, word: &str| value.get(key).map(|bound| format!(", {word} {bound}")).unwrap_or_default();
    format!("number{}{}", bound("minimum", "at least"), bound("maximum", "at most"))
}

fn description(value: &Value) -> Option<String> {
    let text = value.get("description")?.as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The description for a cell of a table, with those of the choices.
fn about(value: &Value) -> String {
    let mut text = description(value).unwrap_or_default();
    let branches = value.get("oneOf").and_then(Value::as_array).filter(|branches| branches.len() > 1);
    for branch in branches.into_iter().flatten() {
        if let (Some(choice), Some(meaning)) = (branch.get("const"), description(branch)) {
            let _ = write!(text, " `{}`: {meaning}", flow(choice));
        }
    }
    text.replace('|', "\\|")
}

/// A value as YAML writes it on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
