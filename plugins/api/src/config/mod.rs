//! The scalar types that configuration is written in. Each parses from text, says in the JSON Schema which `format` it
//! has, and is listed in [`formats`], so that the loader can report every bad value of a file at once.

mod bytes;
mod duration;
mod field;
mod file;
mod glob;
mod method;
mod net;
mod percent;
mod rate;
mod secret;
mod status;

pub use bytes::ByteSize;
pub use duration::HumanDuration;
pub use field::{FieldName, FieldValue};
pub use file::FileText;
pub use glob::Glob;
pub use method::parse_method;
pub use net::Network;
pub use percent::Percent;
pub use rate::ByteRate;
pub use secret::{Secret, Sha256Hex};
pub use status::StatusSet;

/// Checks a text against a format: `Err` says what is wrong, as the rest of a sentence, without repeating the text.
pub type FormatCheck = fn(&str) -> Result<(), String>;

/// Every `format` that the schemas of this module use, with its check.
pub fn formats() -> [(&'static str, FormatCheck); 11] {
    [
        (HumanDuration::FORMAT, |t| HumanDuration::parse(t).map(drop)),
        (ByteSize::FORMAT, |t| ByteSize::parse(t).map(drop)),
        (ByteRate::FORMAT, |t| ByteRate::parse(t).map(drop)),
        (FieldName::FORMAT, |t| FieldName::parse(t).map(drop)),
        (FieldValue::FORMAT, |t| FieldValue::parse(t).map(drop)),
        (Glob::FORMAT, |t| Glob::parse(t).map(drop)),
        (Network::FORMAT, |t| Network::parse(t).map(drop)),
        (Percent::FORMAT, |t| Percent::parse(t).map(drop)),
        (Sha256Hex::FORMAT, |t| Sha256Hex::parse(t).map(drop)),
        (StatusSet::FORMAT, |t| StatusSet::parse(t).map(drop)),
        (FileText::FORMAT, |t| FileText::parse(t).map(drop)),
    ]
}

/// A scalar that is written as text: gives it `Deserialize` and `JsonSchema` from its `parse` and `FORMAT`.
macro_rules! text_scalar {
    ($type:ty, $doc:literal, $example:literal) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string", "format": Self::FORMAT, "description": $doc, "examples": [$example],
                })
            }
        }
    };
}
use text_scalar;

/// Writes a scalar as its `Display` does: for the defaults that the schema shows. Not for types that may hold a secret.
macro_rules! text_default {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}
use text_default;

#[cfg(test)]
mod tests;
