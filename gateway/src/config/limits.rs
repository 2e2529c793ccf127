//! Bounds on what clients may send.

use crossway_plugin_api::config::{ByteRate, ByteSize, HumanDuration};
use schemars::JsonSchema;
use serde::Deserialize;

use super::memory::MemoryLimits;

/// Bounds on requests and client connections.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bounds on one request.
    pub request: RequestLimits,
    /// Bounds on one client connection.
    pub client: ClientLimits,
    /// How many client connections there may be.
    pub connections: ConnectionLimits,
    /// Bounds on HTTP/2 connections.
    pub http2: Http2Limits,
    /// Memory of the process.
    pub memory: MemoryLimits,
}

/// Bounds on one request.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestLimits {
    /// Whole header, request line included; a larger one is answered 431.
    pub header_bytes: ByteSize,
    /// Number of header fields; more are answered 431.
    #[schemars(range(min = 1, max = 256))]
    pub header_fields: u32,
    /// Length of the request target; a longer one is answered 414.
    pub uri: ByteSize,
    /// Request body; a larger one is answered 413.
    pub body: ByteSize,
    /// Request or response body that a plugin may hold in memory.
    pub buffered_body: ByteSize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            header_bytes: ByteSize::kib(32),
            header_fields: 100,
            uri: ByteSize::kib(8),
            body: ByteSize::mib(10),
            buffered_body: ByteSize::mib(1),
        }
    }
}

/// Bounds on one client connection.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientLimits {
    /// From the first byte of a request to the end of its header; then 408 and the connection is closed. Also for a PROXY
    /// header, and for a TLS handshake.
    pub header_deadline: HumanDuration,
    /// Longest pause: between two requests on a connection, and while a body is read from or written to the client.
    pub idle: HumanDuration,
    /// Slowest rate at which a client may send a request body or take a response, beyond `idle`: with 1KiB/s and 60s, a
    /// body of 600 KiB may keep the gateway waiting for 60 s and another 600 s. `off` leaves only `idle`.
    pub min_rate: ByteRate,
    /// Requests served on one connection before it is closed.
    #[schemars(range(min = 1))]
    pub requests_per_connection: u32,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            header_deadline: HumanDuration::from_secs(10),
            idle: HumanDuration::from_secs(60),
            min_rate: ByteRate::kib(1),
            requests_per_connection: 10_000,
        }
    }
}

/// How many client connections there may be; one more is closed at once.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionLimits {
    /// All together (of one listener, in a listener's own limits). 0 for as many as the process may open files for, with
    /// one connection to an upstream for each and a reserve; never more than that, and at most 50000.
    pub total: u32,
    /// From one client: an IPv4 address, or an IPv6 network of 64 bits. 0 for no bound. Peers in `trusted_proxies` are not
    /// counted.
    pub per_client: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { total: 0, per_client: 1024 }
    }
}

/// Bounds on HTTP/2 connections.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2Limits {
    /// Requests at a time on one connection (`SETTINGS_MAX_CONCURRENT_STREAMS`).
    #[schemars(range(min = 1, max = 65_535))]
    pub streams: u32,
    /// How long a connection may stay open without a request.
    pub idle: HumanDuration,
    /// How long a client may keep its flow-control window closed before the stream is reset, and for how long it may read
    /// nothing at all before the connection is closed; also how long a client that was told to leave may stay after its
    /// last answer.
    pub stall: HumanDuration,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self { streams: 100, idle: HumanDuration::from_secs(60), stall: HumanDuration::from_secs(30) }
    }
}

/// Limits that one listener or route sets for itself.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsOverride {
    /// Bounds on one request.
    pub request: RequestLimitsOverride,
    /// Bounds on one client connection.
    pub client: ClientLimitsOverride,
    /// How many client connections this listener may have.
    pub connections: ConnectionLimitsOverride,
    /// Bounds on HTTP/2 connections.
    pub http2: Http2LimitsOverride,
}

/// Bounds on one request that a listener sets for itself.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestLimitsOverride {
    /// Whole header, request line included.
    pub header_bytes: Option<ByteSize>,
    /// Number of header fields.
    #[schemars(range(min = 1, max = 256))]
    pub header_fields: Option<u32>,
    /// Length of the request target.
    pub uri: Option<ByteSize>,
    /// Request body.
    pub body: Option<ByteSize>,
    /// Body that a plugin may hold in memory.
    pub buffered_body: Option<ByteSize>,
}

/// Bounds on one client connection that a listener sets for itself.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientLimitsOverride {
    /// From the first byte of a request to the end of its header.
    pub header_deadline: Option<HumanDuration>,
    /// Longest pause between two requests, and while a body is read or written.
    pub idle: Option<HumanDuration>,
    /// Slowest rate at which a client may send a body or take a response; `off` for none.
    pub min_rate: Option<ByteRate>,
    /// Requests served on one connection.
    #[schemars(range(min = 1))]
    pub requests_per_connection: Option<u32>,
}

/// How many client connections a listener may have.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionLimitsOverride {
    /// On this listener; the bound on all listeners together stays.
    #[schemars(range(min = 1))]
    pub total: Option<u32>,
    /// From one client; 0 for no bound.
    pub per_client: Option<u32>,
}

/// Bounds on HTTP/2 connections that a listener sets for itself.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2LimitsOverride {
    /// Requests at a time on one connection.
    #[schemars(range(min = 1, max = 65_535))]
    pub streams: Option<u32>,
    /// How long a connection may stay open without a request.
    pub idle: Option<HumanDuration>,
    /// How long a client may keep its flow-control window closed.
    pub stall: Option<HumanDuration>,
}

/// Limits that a route sets for itself: those that apply once the route is known.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteLimits {
    /// Bounds on one request.
    pub request: RouteRequestLimits,
    /// Bounds on the client while it sends or takes a body.
    pub client: RouteClientLimits,
}

/// Bounds on the client that a route sets for itself: for uploads and streams that may pause.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteClientLimits {
    /// Longest pause while a body is read or written.
    pub idle: Option<HumanDuration>,
    /// Slowest rate at which a client may send a body or take a response; `off` for none.
    pub min_rate: Option<ByteRate>,
}

/// Bounds on one request that a route sets for itself.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteRequestLimits {
    /// Request body.
    pub body: Option<ByteSize>,
    /// Body that a plugin may hold in memory.
    pub buffered_body: Option<ByteSize>,
}

impl Limits {
    /// These limits with what a listener sets for itself.
    #[must_use]
    pub fn with(&self, own: &LimitsOverride) -> Self {
        let (request, client, http2) = (&own.request, &own.client, &own.http2);
        Self {
            request: RequestLimits {
                header_bytes: request.header_bytes.unwrap_or(self.request.header_bytes),
                header_fields: request.header_fields.unwrap_or(self.request.header_fields),
                uri: request.uri.unwrap_or(self.request.uri),
                body: request.body.unwrap_or(self.request.body),
                buffered_body: request.buffered_body.unwrap_or(self.request.buffered_body),
            },
            client: ClientLimits {
                header_deadline: client.header_deadline.unwrap_or(self.client.header_deadline),
                idle: client.idle.unwrap_or(self.client.idle),
                min_rate: client.min_rate.unwrap_or(self.client.min_rate),
                requests_per_connection: client.requests_per_connection.unwrap_or(self.client.requests_per_connection),
            },
            connections: ConnectionLimits {
                total: own.connections.total.unwrap_or(0),
                per_client: own.connections.per_client.unwrap_or(self.connections.per_client),
            },
            http2: Http2Limits {
                streams: http2.streams.unwrap_or(self.http2.streams),
                idle: http2.idle.unwrap_or(self.http2.idle),
                stall: http2.stall.unwrap_or(self.http2.stall),
            },
            memory: self.memory,
        }
    }
}
