//! Path parameters that must be what is known of the caller.

use std::borrow::Cow;

use crossway_plugin_api::{Ctx, InvalidConfig};
use percent_encoding::percent_decode_str;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::claims::check_path;
use crate::fields::below;

/// Something that is known of the caller: `claim:NAME`, `consumer:name` or `consumer:metadata.NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// A claim of its token, by name or path.
    Claim(String),
    /// The consumer's name.
    Name,
    /// What the configuration notes of the consumer.
    Metadata(String),
}

impl Known {
    const PATTERN: &'static str = r"^(claim:.+|consumer:name|consumer:metadata\..+)$";

    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("claim", path) if !path.is_empty() => Some(Self::Claim(path.to_owned())),
            ("consumer", "name") => Some(Self::Name),
            ("consumer", rest) => {
                let key = rest.strip_prefix("metadata.").filter(|key| !key.is_empty())?;
                Some(Self::Metadata(key.to_owned()))
            }
            _ => None,
        }
    }

    /// Whether what is known is this text, or a list that has it. A whole number is compared by its digits.
    fn is(&self, text: &str, ctx: &Ctx) -> bool {
        match self {
            Self::Claim(path) => {
                ctx.claims.as_ref().and_then(|claims| claims.get(path)).is_some_and(|claim| match claim {
                    Value::Array(items) => items.iter().any(|item| says(item, text)),
                    one => says(one, text),
                })
            }
            Self::Name => ctx.consumer.as_ref().is_some_and(|consumer| consumer.name() == text),
            Self::Metadata(key) => ctx
                .consumer
                .as_ref()
                .and_then(|consumer| consumer.metadata().get(key))
                .is_some_and(|noted| noted == text),
        }
    }
}

fn says(value: &Value, text: &str) -> bool {
    match value {
        Value::String(claim) => claim == text,
        Value::Number(number) if !number.is_f64() => number.to_string() == text,
        _ => false,
    }
}

/// A path parameter and what it must be.
pub(super) struct Binding {
    pub(super) param: String,
    known: Known,
}

impl Binding {
    pub(super) fn new(param: String, known: Known) -> Result<Self, InvalidConfig> {
        if let Known::Claim(path) = &known {
            check_path(path, &below("params", &param))?;
        }
        Ok(Self { param, known })
    }

    /// A parameter that is empty, or whose escapes are no UTF-8, is nobody's.
    pub(super) fn holds(&self, ctx: &Ctx) -> bool {
        let value = ctx.param(&self.param).and_then(decoded);
        value.is_some_and(|value| !value.is_empty() && self.known.is(&value, ctx))
    }
}

/// A path parameter without its escapes; `None` if they are no UTF-8.
pub(super) fn decoded(param: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(param).decode_utf8().ok()
}

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("is not claim:NAME, consumer:name or consumer:metadata.NAME"))
    }
}

impl JsonSchema for Known {
    fn schema_name() -> Cow<'static, str> {
        "Known".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": Self::PATTERN,
            "description": "What is known of the caller: claim:NAME, consumer:name or consumer:metadata.NAME.",
            "examples": ["claim:tenant"],
        })
    }
}
