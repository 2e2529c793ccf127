//! Attempts after the first.

use std::borrow::Cow;

use crossway_plugin_api::config::{HumanDuration, Percent, StatusSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a failed attempt is tried again, on another endpoint where there is one. A request that the upstream may have acted
/// on is sent again only if its method is among `methods` and its body is still at hand.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Attempts after the first.
    #[schemars(range(max = 8))]
    pub attempts: u32,
    /// What counts as a failure to try again.
    pub on: Vec<RetryOn>,
    /// Methods that may be repeated although the upstream may have acted on the request. Default: the idempotent ones
    /// (RFC 9110, section 9.2.2).
    #[schemars(length(min = 1))]
    pub methods: Option<Vec<String>>,
    /// Longest time of one attempt, from its start to the response header. While a client is still sending its body it does
    /// not run: it begins anew when the body has ended. Default: `first_byte` and `total` alone bound it.
    pub per_try: Option<HumanDuration>,
    /// The pause before the next attempt.
    pub backoff: Backoff,
    /// Most retries as a share of the requests of the last 10 seconds. An attempt without a connection costs nothing while
    /// there is another endpoint to try.
    pub budget: Percent,
    /// Retries a second that are allowed however few requests there are.
    #[schemars(range(max = 1000))]
    pub min_per_second: u32,
    /// Longest `Retry-After` of a 503 or 429 that is waited for, at most 60 s; an answer that asks for more is not tried
    /// again.
    pub max_retry_after: HumanDuration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 1,
            on: vec![RetryOn::ConnectError, RetryOn::Reset],
            methods: None,
            per_try: None,
            backoff: Backoff::default(),
            budget: Percent(20),
            min_per_second: 3,
            max_retry_after: HumanDuration::from_secs(1),
        }
    }
}

/// The pause before the next attempt: by chance between nothing and a bound that doubles with each attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Backoff {
    /// Longest pause before the second attempt.
    pub base: HumanDuration,
    /// Longest pause before any attempt, at most 60 s.
    pub max: HumanDuration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: HumanDuration::from_millis(25), max: HumanDuration::from_millis(250) }
    }
}

/// What counts as a failure to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection: nothing was sent.
    ConnectError,
    /// The connection broke before the response header.
    Reset,
    /// The response header did not come in time, by `per_try` or by `first_byte`.
    Timeout,
    /// These statuses.
    Status(StatusSet),
}

impl RetryOn {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-retry-on";

    const WORDS: [(&'static str, Self); 3] =
        [("connect_error", Self::ConnectError), ("reset", Self::Reset), ("timeout", Self::Timeout)];

    fn word(text: &str) -> Option<Self> {
        Self::WORDS.into_iter().find(|(word, _)| *word == text).map(|(_, on)| on)
    }

    /// Checks the text form.
    pub fn check(text: &str) -> Result<(), String> {
        let known = Self::word(text).is_some() || StatusSet::parse(text).is_ok();
        let wrong = "is neither connect_error, reset, timeout, nor a status code, class or range";
        known.then_some(()).ok_or_else(|| wrong.into())
    }
}

impl<'de> Deserialize<'de> for RetryOn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        match value.as_str().and_then(Self::word) {
            Some(on) => Ok(on),
            None => serde_json::from_value(value).map(Self::Status).map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for RetryOn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Self::WORDS.iter().find(|(_, on)| on == self) {
            Some((word, _)) => serializer.serialize_str(word),
            None => match self {
                Self::Status(set) => serializer.collect_str(set),
                _ => serializer.serialize_none(),
            },
        }
    }
}

impl JsonSchema for RetryOn {
    fn schema_name() -> Cow<'static, str> {
        "RetryOn".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["integer", "string"], "format": Self::FORMAT, "minimum": 100, "maximum": 599,
            "description": "connect_error, reset, timeout, or a status code, class or range.",
            "examples": ["connect_error", "reset", 503],
        })
    }
}
