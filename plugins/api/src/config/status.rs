//! Sets of status codes.

use std::borrow::Cow;

use http::StatusCode;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// Status codes, written as one code (`404`), a class (`5xx`) or a range (`500-504`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusSet {
    first: u16,
    last: u16,
}

impl StatusSet {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-status";

    /// Reads a code, a class or a range, all within 100 to 599.
    pub fn parse(text: &str) -> Result<Self, String> {
        let code = |t: &str| t.parse::<u16>().ok().filter(|c| t.len() == 3 && (100..600).contains(c));
        let set = if let Some(class) = text.strip_suffix("xx") {
            code(&format!("{class}00")).map(|first| Self { first, last: first + 99 })
        } else if let Some((first, last)) = text.split_once('-') {
            code(first).zip(code(last)).filter(|(a, b)| a <= b).map(|(first, last)| Self { first, last })
        } else {
            code(text).map(|c| Self { first: c, last: c })
        };
        set.ok_or_else(|| "is not a status code, class or range, such as 404, 5xx or 500-504".into())
    }

    /// Whether the set holds this code.
    pub fn contains(&self, status: StatusCode) -> bool {
        (self.first..=self.last).contains(&status.as_u16())
    }
}

impl std::fmt::Display for StatusSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl<'de> Deserialize<'de> for StatusSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CodeOrText;
        impl Visitor<'_> for CodeOrText {
            type Value = StatusSet;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a status code, class or range")
            }
            fn visit_u64<E: Error>(self, code: u64) -> Result<StatusSet, E> {
                self.visit_str(&code.to_string())
            }
            fn visit_i64<E: Error>(self, code: i64) -> Result<StatusSet, E> {
                self.visit_str(&code.to_string())
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<StatusSet, E> {
                StatusSet::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(CodeOrText)
    }
}

impl schemars::JsonSchema for StatusSet {
    fn schema_name() -> Cow<'static, str> {
        "StatusSet".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["integer", "string"], "format": Self::FORMAT, "minimum": 100, "maximum": 599,
            "description": "A status code, a class such as 5xx, or a range such as 500-504.", "examples": ["5xx"],
        })
    }
}
