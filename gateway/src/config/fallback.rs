//! What is done when an upstream has failed for good.

use std::borrow::Cow;

use crossway_plugin_api::config::StatusSet;
use crossway_plugins::respond::Fixed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What takes the place of an upstream's failure, while nothing of it has gone to the client: exactly one of `respond` and
/// `upstream`. The chain's response phases run on it as on any other answer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// Which failures, after all attempts.
    #[serde(default = "failures")]
    #[schemars(length(min = 1))]
    pub on: Vec<FallbackOn>,
    /// A fixed answer.
    pub respond: Option<Fixed>,
    /// Another upstream, which is tried by its own settings in what is left of the request's time. A request that the first
    /// upstream may have acted on goes there only if its `retry.methods` allow that it is repeated, and none goes whose
    /// body is not at hand any more.
    pub upstream: Option<String>,
}

fn failures() -> Vec<FallbackOn> {
    FallbackOn::WORDS.into_iter().map(|(_, on)| on).collect()
}

/// A failure that something can take the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackOn {
    /// There is no endpoint to send to.
    NoEndpoint,
    /// The circuit to the upstream is open.
    CircuitOpen,
    /// No connection, or none that can be trusted.
    ConnectError,
    /// The connection broke before the response header, or what came is not HTTP.
    Reset,
    /// The response header did not come in time, by whatever bound.
    Timeout,
    /// These statuses, 400 to 599.
    Status(StatusSet),
}

impl FallbackOn {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-fallback-on";

    /// The failures that are no statuses, by their names.
    pub const WORDS: [(&'static str, Self); 5] = [
        ("no_endpoint", Self::NoEndpoint),
        ("circuit_open", Self::CircuitOpen),
        ("connect_error", Self::ConnectError),
        ("reset", Self::Reset),
        ("timeout", Self::Timeout),
    ];

    /// Name of all statuses, in logs and metrics.
    pub const STATUS: &'static str = "status";

    fn parse(text: &str) -> Result<Self, String> {
        if let Some((_, on)) = Self::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*on);
        }
        let words = Self::WORDS.map(|(word, _)| word).join(", ");
        let set =
            StatusSet::parse(text).map_err(|_| format!("is neither {words}, nor a status code, class or range"))?;
        let is_failure = (100..400).filter_map(|code| http::StatusCode::from_u16(code).ok()).all(|s| !set.contains(s));
        is_failure.then_some(Self::Status(set)).ok_or_else(|| "is no failure: 400 to 599 are".into())
    }

    /// Checks the text form.
    pub fn check(text: &str) -> Result<(), String> {
        Self::parse(text).map(drop)
    }

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, on)| *on == self).map_or(Self::STATUS, |(word, _)| word)
    }
}

impl<'de> Deserialize<'de> for FallbackOn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for FallbackOn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Status(set) => serializer.collect_str(set),
            word => serializer.serialize_str(word.name()),
        }
    }
}

impl JsonSchema for FallbackOn {
    fn schema_name() -> Cow<'static, str> {
        "FallbackOn".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["integer", "string"], "format": Self::FORMAT, "minimum": 400, "maximum": 599,
            "description": "no_endpoint, circuit_open, connect_error, reset, timeout, or a status code, class or range.",
            "examples": ["no_endpoint", "timeout", "5xx"],
        })
    }
}
