//! Addresses the gateway accepts connections on.

use crossway_plugin_api::config::Network;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{limits::LimitsOverride, tls::Tls};

/// An address that clients connect to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Unique name, used in logs, metrics and `match.listeners`.
    pub name: String,
    /// Address and port to bind, such as `0.0.0.0:8080` or `[::]:8080`.
    pub address: String,
    /// TLS; without it connections are plain.
    pub tls: Option<Tls>,
    /// Whether clients may speak HTTP/2 beside HTTP/1.1. Default: with `tls` yes (ALPN), without no (prior knowledge,
    /// "h2c").
    pub http2: Option<bool>,
    /// Proxies whose `X-Forwarded-For` is believed. Default none: the peer's address is the client's.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// Every connection begins with a PROXY header (version 1 or 2) that says who the client is. Only `trusted_proxies` may
    /// connect then.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Limits of this listener; what is not given here comes from the top-level `limits`.
    #[serde(default)]
    pub limits: LimitsOverride,
}

impl Listener {
    /// Whether HTTP/2 is spoken.
    pub fn speaks_http2(&self) -> bool {
        self.http2.unwrap_or(self.tls.is_some())
    }
    /// Whether some client is asked for a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        let asks = |tls: &Tls| tls.client_auth.is_some() || tls.hosts.iter().any(|host| host.client_auth.is_some());
        self.tls.as_ref().is_some_and(asks)
    }
}
