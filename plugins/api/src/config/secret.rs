//! Values that must never be shown.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::Digest256;

/// A text that is never printed: `Debug` shows `***`. Empty secrets are refused.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Err(D::Error::custom("is an empty secret")) } else { Ok(Self(text)) }
    }
}

impl schemars::JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "minLength": 1,
            "description": "A secret; write a reference: ${env:NAME} or ${file:/path}.",
            "examples": ["${env:ADMIN_TOKEN}"],
        })
    }
}

/// The SHA-256 of a secret, as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256Hex(pub Digest256);

impl Sha256Hex {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-sha256";

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WRONG: &str = "is not a SHA-256: 64 hexadecimal digits";
        let mut digest = [0u8; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(WRONG.into());
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| WRONG.to_owned())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| WRONG.to_owned())?;
        }
        Ok(Self(Digest256(digest)))
    }
}

super::text_scalar!(
    Sha256Hex,
    "A SHA-256 digest as 64 hexadecimal digits.",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
);
