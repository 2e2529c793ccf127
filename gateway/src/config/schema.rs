//! The JSON Schema of the configuration, made from its types, and the ways through it.

use std::sync::LazyLock;

use crossway_plugin_api::config::{Secret, Sha256Hex};
use schemars::{
    JsonSchema as _, Schema, SchemaGenerator,
    generate::SchemaSettings,
    transform::{Transform, transform_subschemas},
};
use serde_json::{Map, Value, json};

use super::{
    Config,
    node::{Data, Node, Span},
    references,
};

/// The JSON Schema (draft 2020-12) of the configuration, for checks, editors and the reference pages. The same types
/// give the same text: keys are in alphabetical order.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let settings = settings.with_transform(WithoutNull);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), json!("Crossway configuration"));
        root.insert("description".into(), json!("The configuration of the Crossway gateway."));
    }
    sorted(schema)
}

/// The schema, made once.
pub(super) fn root() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(schema);
    &SCHEMA
}

/// Optional keys are left out, never null: takes `null` out of what a key accepts.
#[derive(Debug, Clone)]
struct WithoutNull;

impl Transform for WithoutNull {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else { return };
        if object.get("default").is_some_and(Value::is_null) {
            object.remove("default");
        }
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".into(), only);
            }
        }
        if let Some(Value::Array(values)) = object.get_mut("enum") {
            values.retain(|value| !value.is_null());
        }
        let Some(Value::Array(branches)) = object.get_mut("anyOf") else { return };
        let before = branches.len();
        branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
        if branches.len() == before || branches.len() != 1 {
            return;
        }
        let only = branches.pop();
        object.remove("anyOf");
        for (key, value) in only.as_ref().and_then(Value::as_object).into_iter().flatten() {
            object.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// The same value with the keys of every object in alphabetical order, whatever order the map keeps.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// What a schema refers to, or itself. References lead into the root's own definitions, and none leads to another.
fn referred(schema: &Value) -> &Value {
    let place = schema.get("$ref").and_then(Value::as_str).and_then(|place| place.strip_prefix('#'));
    place.and_then(|place| root().pointer(place)).unwrap_or(schema)
}

/// The schema of the value of a key.
pub(super) fn property<'s>(schema: &'s Value, key: &str) -> Option<&'s Value> {
    let named = schema.get("properties").and_then(|properties| properties.get(key));
    named
        .or_else(|| schema.get("additionalProperties").filter(|other| other.is_object()))
        .or_else(|| branches(schema).find_map(|branch| property(branch, key)))
        .map(referred)
}

/// The schema of the items of a list.
pub(super) fn item(schema: &Value) -> Option<&Value> {
    schema.get("items").or_else(|| branches(schema).find_map(item)).map(referred)
}

/// The alternatives of a schema.
pub(super) fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    let all = |key| schema.get(key).and_then(Value::as_array).into_iter().flatten();
    all("oneOf").chain(all("anyOf"))
}

/// The names that a schema accepts for keys, alternatives included.
pub(super) fn keys(schema: &Value) -> Vec<&str> {
    let own = schema.get("properties").and_then(Value::as_object);
    own.into_iter().flat_map(Map::keys).map(String::as_str).chain(branches(schema).flat_map(keys)).collect()
}

/// Whether values of this schema must never be shown: secrets, what says `writeOnly`, and digests, in whose place a key
/// may stand by mistake.
fn is_secret(schema: &Value) -> bool {
    static SECRET: LazyLock<Schema> = LazyLock::new(|| Secret::json_schema(&mut SchemaGenerator::default()));
    let own = SECRET.as_object().into_iter().flatten().filter(|(key, _)| *key != "description");
    schema.get("format").is_some_and(|format| format == Sha256Hex::FORMAT)
        || schema.get("writeOnly").is_some_and(|write_only| write_only == true)
        || own.fold(true, |same, (key, value)| same && schema.get(key) == Some(value))
}

/// Tells `found` of every scalar that must not be shown: a secret written in plain, and all that stands where the schema
/// has no place for a scalar, because it may be a secret in the wrong place. References may be shown.
pub(super) fn secrets(root: &Node, found: &mut impl FnMut(Span)) {
    walk(root, Some(self::root()), found);
}

fn walk(node: &Node, schema: Option<&Value>, found: &mut impl FnMut(Span)) {
    match &node.data {
        Data::Scalar(value) => {
            let plain = !value.is_null() && !node.text().is_some_and(references::is_reference);
            if plain && !schema.is_some_and(|schema| shows(schema, value)) {
                found(node.origin);
            }
        }
        Data::Sequence(items) => {
            let schema = schema.and_then(item);
            for item in items {
                walk(item, schema, found);
            }
        }
        Data::Mapping(entries) => {
            for (key, node) in entries {
                walk(node, schema.and_then(|schema| property(schema, key)), found);
            }
        }
    }
}

/// Whether a scalar may be shown. One that is not a text is shown wherever it is no secret: `tls: true`.
fn shows(schema: &Value, value: &Value) -> bool {
    let scalar = match schema.get("type") {
        Some(Value::String(name)) => name != "object" && name != "array",
        _ => true,
    };
    !is_secret(schema) && !branches(schema).any(is_secret) && (scalar || !value.is_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_may_be_null_and_only_plugins_within_plugins_are_referred_to() {
        let schema = schema();
        let text = schema.to_string();
        for absent in ["\"null\"", ":null"] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
        assert_eq!(text.matches("\"$ref\":").count(), text.matches("{\"$ref\":\"#/$defs/plugin\"}").count());
        assert!(schema["$defs"].as_object().is_some_and(|all| all.keys().eq(["plugin"])));
        assert!(schema["$defs"]["plugin"]["properties"]["any_of"]["items"].get("$ref").is_some());
        assert!(text.contains("\"$schema\":\"https://json-schema.org/draft/2020-12/schema\""));
    }

    #[test]
    fn an_option_keeps_its_own_description() {
        let schema = schema();
        let probes = &schema["properties"]["admin"]["properties"]["probes"];
        assert_eq!(probes["type"], "object");
        assert!(probes["description"].as_str().unwrap().starts_with("A second address for probes"));
        assert_eq!(schema["properties"]["admin"]["properties"]["token"]["type"], "string");
    }

    #[test]
    fn secrets_are_known_by_their_schema() {
        let at = |path: &[&str]| path.iter().fold(root(), |schema, key| property(schema, key).unwrap());
        assert!(is_secret(at(&["admin", "token"])));
        assert!(!is_secret(at(&["admin", "address"])));
        let list = property(item(at(&["plugins"])).unwrap(), "any_of").unwrap();
        let within = property(item(list).unwrap(), "all_of").unwrap();
        assert!(property(item(within).unwrap(), "api_key").unwrap().get("properties").is_some());
        let credentials = at(&["consumers"]);
        let credential = item(property(item(credentials).unwrap(), "credentials").unwrap()).unwrap();
        assert!(is_secret(property(property(credential, "api_key").unwrap(), "sha256").unwrap()));
    }
}
