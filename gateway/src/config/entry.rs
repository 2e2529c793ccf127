//! One entry of a list of plugins: the plugin's own key, and beside it the keys of the core.

use std::{borrow::Cow, fmt};

use crossway_plugins::AnyPlugin;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{Value, json};

use super::route::When;

/// A plugin with its settings, and what the core does with it.
#[derive(Debug, Clone)]
pub struct PluginEntry {
    /// The plugin and its settings.
    pub plugin: AnyPlugin,
    /// Names the entry: for `without`, and where a plugin stands twice on a route.
    pub id: Option<String>,
    /// Runs only where this holds.
    pub when: Option<When>,
    /// What happens when the plugin cannot do its work.
    pub on_error: OnError,
    /// A request without a credential is refused; false lets it go on as anonymous.
    pub required: bool,
}

/// What happens when a plugin cannot do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The request is refused.
    #[default]
    Reject,
    /// The request goes on as if the plugin were not there.
    Allow,
}

/// The keys of the core: what stands beside the plugin's own key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct CoreKeys {
    /// Names the entry: for `without`, and where a plugin stands twice on a route.
    id: Option<String>,
    /// Runs only where this holds.
    when: Option<When>,
    /// What happens when the plugin cannot do its work.
    on_error: OnError,
    /// For a plugin that authenticates: refuse requests without a credential of its kind. With `false` such a request goes
    /// on as anonymous, and one with a credential that is not valid is still refused. Default true.
    required: bool,
}

impl Default for CoreKeys {
    fn default() -> Self {
        Self { id: None, when: None, on_error: OnError::default(), required: true }
    }
}

/// Names of the keys of the core.
pub(super) const CORE_KEYS: [&str; 4] = ["id", "when", "on_error", "required"];

impl<'de> Deserialize<'de> for PluginEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entry)
    }
}

/// Reads every key in place, so that an error keeps its path.
struct Entry;

impl<'de> Visitor<'de> for Entry {
    type Value = PluginEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plugin with its settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PluginEntry, A::Error> {
        let mut core = CoreKeys::default();
        let mut plugin = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "id" => core.id = Some(map.next_value()?),
                "when" => core.when = Some(map.next_value()?),
                "on_error" => core.on_error = map.next_value()?,
                "required" => core.required = map.next_value()?,
                _ if plugin.is_some() => return Err(A::Error::custom("has two plugins where one is needed")),
                name => plugin = Some(AnyPlugin::under_key(name, &mut map)?),
            }
        }
        let plugin = plugin.ok_or_else(|| A::Error::custom("has no plugin"))?;
        let CoreKeys { id, when, on_error, required } = core;
        Ok(PluginEntry { plugin, id, when, on_error, required })
    }
}

impl JsonSchema for PluginEntry {
    fn schema_name() -> Cow<'static, str> {
        "PluginEntry".into()
    }

    /// One object with a property for each plugin and each key of the core, so that an error points at the very key.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let core = CoreKeys::json_schema(generator);
        let mut properties = core.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        properties.extend(AnyPlugin::properties(generator));
        let schema = json!({
            "type": "object", "additionalProperties": false, "properties": properties,
            "description": "A plugin with its settings, and beside it the keys of the core.",
        });
        Schema::try_from(schema).unwrap_or_default()
    }
}
