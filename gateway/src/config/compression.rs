//! Compression of responses.

use crossway_plugin_api::config::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::coding::Algorithm;

/// Compression of responses for clients that accept it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Compression {
    /// Algorithms, the preferred first: the order decides where the client has no preference.
    #[schemars(length(min = 1, max = 3))]
    pub algorithms: Vec<Algorithm>,
    /// A body that is known to be smaller is left as it is.
    pub min_size: ByteSize,
    /// Media types to compress, in lower case: `type/subtype`, `type/*`, or a suffix such as `+json`. Server-sent events and
    /// gRPC never are.
    #[schemars(length(min = 1, max = 256), inner(regex(pattern = TYPE)))]
    pub types: Vec<String>,
}

/// What stands for media types; the characters are those of RFC 6838, section 4.2.
const TYPE: &str = r"^(\+[a-z0-9][a-z0-9.+-]*|[a-z0-9][a-z0-9!#$&^_.+-]*/(\*|[a-z0-9][a-z0-9!#$&^_.+-]*))$";

impl Default for Compression {
    fn default() -> Self {
        const TYPES: [&str; 8] = [
            "text/*",
            "application/json",
            "+json",
            "application/xml",
            "+xml",
            "application/javascript",
            "application/wasm",
            "font/ttf",
        ];
        Self {
            algorithms: vec![Algorithm::Br, Algorithm::Gzip, Algorithm::Zstd],
            min_size: ByteSize::kib(1),
            types: TYPES.map(str::to_owned).into(),
        }
    }
}
