//! The listener for operators.

use crossway_plugin_api::config::Secret;
use schemars::JsonSchema;
use serde::Deserialize;

/// The listener for operators: health, metrics, status, reload.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// A loopback address such as `127.0.0.1:9900`, or `unix:/run/crossway/admin.sock`.
    pub address: String,
    /// Token that callers present as `Authorization: Bearer`. At least 16 characters.
    pub token: Secret,
    /// A second address for probes: `/healthz`, `/readyz`, with `metrics` also `/metrics`, and nothing else.
    pub probes: Option<Probes>,
}

/// A second address for probes, without a token.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probes {
    /// Address and port to bind, such as `0.0.0.0:9901`.
    pub address: String,
    /// Serve `/metrics` here too.
    #[serde(default)]
    pub metrics: bool,
}
