//! Named callers.

use crossway_plugin_api::config::Sha256Hex;
use schemars::JsonSchema;
use serde::Deserialize;

/// A named caller.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// Unique name, sent to the upstream as `X-Consumer-Name`: letters, digits and `. _ @ -`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._@-]{1,128}$"))]
    pub name: String,
    /// Groups the consumer belongs to, sent to the upstream as `X-Consumer-Groups`.
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^[A-Za-z0-9._@-]{1,128}$")))]
    pub groups: Vec<String>,
    /// What the consumer presents to prove who it is.
    #[serde(default)]
    pub credentials: Vec<Credential>,
}

/// What a consumer presents. Exactly one kind an entry.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// An API key.
    pub api_key: ApiKey,
}

/// An API key, by its digest: the key itself is never written down.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// SHA-256 of the key's text: `printf %s "$KEY" | sha256sum`.
    pub sha256: Sha256Hex,
}
