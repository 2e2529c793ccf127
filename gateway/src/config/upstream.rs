//! Named pools of endpoints.

use crossway_plugin_api::config::{FieldName, HumanDuration};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    balance::{Balance, Sticky},
    bulkhead::MOST,
    health::{CircuitBreaker, HealthCheck, Outlier, Panic},
    retry::Retry,
    tls::KeyPair,
    upstream_auth::UpstreamAuth,
};

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
    /// Clients come back to the endpoint that has served them. Default: they do not.
    pub sticky: Option<Sticky>,
    /// How long an endpoint that is new, or available again, gets less than its share: a tenth at first, and more in
    /// proportion to the time. From 1 s to 1 h. Default: it has its whole share at once.
    pub slow_start: Option<HumanDuration>,
    /// How long each step may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// When a failed attempt is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// Most requests that the upstream has at a time, from their first attempt to the end of their response; one more waits
    /// in the queue, or is answered 503 `upstream_busy`. Default: no bound.
    #[schemars(range(min = 1, max = MOST))]
    pub max_in_flight: Option<u32>,
    /// How many requests may wait for a place, first come, first served. Default 0: none.
    #[schemars(range(max = MOST))]
    pub queue: Option<u32>,
    /// How long each of them may wait, at most 10 minutes; then it is answered 503 `upstream_busy`. The request's own time
    /// may be over before. Default 1s.
    pub queue_timeout: Option<HumanDuration>,
    /// How the gateway signs in at the endpoints. What it writes replaces what the client has sent there. Default: it does
    /// not, and the client's own credentials go on where no plugin has taken them out.
    pub auth: Option<UpstreamAuth>,
    /// Probes of each endpoint. Default: there are none.
    pub health_check: Option<HealthCheck>,
    /// When an endpoint is taken out for a while because its answers fail. Default: never.
    pub outlier: Option<Outlier>,
    /// When nothing is sent for a while because answers fail. Default: never.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// What happens to requests while probes and ejections leave no endpoint. Default `refuse`; only beside `health_check` or
    /// `outlier`.
    pub panic: Option<Panic>,
}

/// One server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Host and port, such as `erp-1.internal:8443`. A name is resolved in the background; all its addresses are used.
    pub address: Option<String>,
    /// The name of a service in place of an address, such as `_http._tcp.erp.internal` (SRV, RFC 2782): hosts, ports,
    /// weights and priorities are those of its records.
    pub srv: Option<String>,
    /// Share of the requests, relative to the other endpoints of its priority. 0 drains it: it gets only the requests of
    /// clients that its `sticky` cookie brings.
    #[serde(default = "one")]
    #[schemars(range(max = 65_535))]
    pub weight: u16,
    /// Endpoints with a higher number get requests only while none with a lower one is available.
    #[serde(default)]
    #[schemars(range(max = 127))]
    pub priority: u8,
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
