//! Named pools of endpoints.

use crossway_plugin_api::config::{FieldName, HumanDuration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{retry::Retry, tls::KeyPair, upstream_auth::UpstreamAuth};

/// A named pool of endpoints that serve the same thing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Where the servers are; at least one.
    #[schemars(length(min = 1, max = 4096))]
    pub endpoints: Vec<Endpoint>,
    /// TLS to the endpoints; without it the connection is plain.
    pub tls: Option<UpstreamTls>,
    /// HTTP/2 to the endpoints: with `tls` they must agree to it (ALPN), without they are spoken to in HTTP/2 at once
    /// (RFC 9113, section 3.3). An endpoint that does not speak it is a connect error. gRPC needs it.
    #[serde(default)]
    pub http2: bool,
    /// How the next endpoint is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// How long each step may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// When a failed attempt is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// How the gateway signs in at the endpoints. What it writes replaces what the client has sent there. Default: it does
    /// not, and the client's own credentials go on where no plugin has taken them out.
    pub auth: Option<UpstreamAuth>,
}

/// One server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Host and port, such as `erp-1.internal:8443`. A name is resolved in the background; all its addresses are used.
    pub address: String,
    /// Share of the requests, relative to the other endpoints.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 65_535))]
    pub weight: u16,
}

fn one() -> u16 {
    1
}

/// TLS to the endpoints; certificates are always verified.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTls {
    /// PEM file with the certificate authorities to trust, in place of the system's.
    pub ca: Option<String>,
    /// Name that the certificate must carry; also sent as SNI.
    #[schemars(length(min = 1, max = 253))]
    pub server_name: String,
    /// The certificate that the gateway presents to the endpoints (mTLS). Default: none.
    pub client: Option<KeyPair>,
}

/// How the next endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
}

/// How long each step may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// TCP connection, and TLS handshake if any.
    pub connect: HumanDuration,
    /// From the request sent to the first byte of the response header.
    pub first_byte: HumanDuration,
    /// Longest pause while a body is read or written; also how long an unused connection is kept.
    pub idle: HumanDuration,
    /// From the first attempt to the response header, retries included (to the end of the body, where it is buffered).
    pub total: HumanDuration,
    /// A request field that says how long the response header may take, in whole milliseconds. The client's narrows `total`
    /// and can never widen it; one that cannot be read is answered 400. The upstream gets what is left in the same field,
    /// whether the client has sent it or not. Default: none is read or written.
    pub deadline_header: Option<FieldName>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: HumanDuration::from_secs(2),
            first_byte: HumanDuration::from_secs(30),
            idle: HumanDuration::from_secs(60),
            total: HumanDuration::from_secs(60),
            deadline_header: None,
        }
    }
}
