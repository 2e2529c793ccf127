//! How much memory the gateway may use before it turns requests away.

use std::{borrow::Cow, fmt};

use crossway_plugin_api::config::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Memory of the process. When there is too little left, new requests are answered 503 `memory_pressure` and their connections
/// closed, until enough is free again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryLimits {
    /// All there is: `auto` for what the control group of the process allows, or else what the machine can still give; a
    /// size, at least 32MiB, for what the process itself may use; `off` to turn nobody away.
    pub max: MemoryMax,
    /// From how much of it on requests are turned away, 50% to 99%; again let in at 5 points less.
    pub shed_at: ShedAt,
}

/// All the memory there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryMax {
    /// What the control group or the machine has.
    #[default]
    Auto,
    /// No bound.
    Off,
    /// Bytes for the process.
    Bytes(u64),
}

/// A share of `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShedAt(pub u8);

impl Default for ShedAt {
    fn default() -> Self {
        Self(90)
    }
}

impl MemoryMax {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-memory-max";
    const LEAST: ByteSize = ByteSize::mib(32);

    /// Reads `auto`, `off` or a size.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => match ByteSize::parse(text) {
                Ok(size) if size < Self::LEAST => Err(format!("is less than {}", Self::LEAST)),
                Ok(size) => Ok(Self::Bytes(size.0)),
                Err(_) => Err("is neither auto, off, nor a size such as 512MiB".into()),
            },
        }
    }

    /// Checks the text form.
    pub fn check(text: &str) -> Result<(), String> {
        Self::parse(text).map(drop)
    }
}

impl ShedAt {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-memory-share";

    /// Reads a share.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
        match number {
            Some(share @ 50..=99) => Ok(Self(share)),
            _ => Err("is not a share from 50% to 99%".into()),
        }
    }

    /// Checks the text form.
    pub fn check(text: &str) -> Result<(), String> {
        Self::parse(text).map(drop)
    }
}

impl fmt::Display for MemoryMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Bytes(bytes) => ByteSize(*bytes).fmt(f),
        }
    }
}

impl fmt::Display for ShedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A value that is written as text.
macro_rules! text {
    ($type:ty, $doc:literal, $example:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text).map_err(D::Error::custom)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": Self::FORMAT, "description": $doc, "examples": [$example] })
            }
        }
    };
}

text!(MemoryMax, "All the memory there is: auto, off or a size.", "auto");
text!(ShedAt, "A share from 50% to 99%.", "90%");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_strictly() {
        for (text, max) in [("auto", MemoryMax::Auto), ("off", MemoryMax::Off), ("64MiB", MemoryMax::Bytes(64 << 20))] {
            assert_eq!(MemoryMax::parse(text), Ok(max));
            assert_eq!(MemoryMax::parse(&max.to_string()), Ok(max));
        }
        for text in ["", "1MiB", "0", "all", "90%"] {
            assert!(MemoryMax::parse(text).is_err(), "{text}");
        }
        assert_eq!(ShedAt::parse("75%"), Ok(ShedAt(75)));
        for text in ["", "%", "49%", "100%", "90", "9.5%", "-60%"] {
            assert!(ShedAt::parse(text).is_err(), "{text}");
        }
    }
}
