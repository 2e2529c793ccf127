//! Bounds on what clients may send.

use crossway_plugin_api::config::{ByteSize, HumanDuration};
use schemars::JsonSchema;
use serde::Deserialize;

/// Bounds on requests and client connections.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bounds on one request.
    pub request: RequestLimits,
    /// Bounds on one client connection.
    pub client: ClientLimits,
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
    /// From the first byte of a request to the end of its header; then 408 and the connection is closed.
    pub header_deadline: HumanDuration,
    /// Longest pause: between two requests on a connection, and while a body is read from or written to the client.
    pub idle: HumanDuration,
    /// Requests served on one connection before it is closed.
    #[schemars(range(min = 1))]
    pub requests_per_connection: u32,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            header_deadline: HumanDuration::from_secs(10),
            idle: HumanDuration::from_secs(60),
            requests_per_connection: 10_000,
        }
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
    /// Requests served on one connection.
    #[schemars(range(min = 1))]
    pub requests_per_connection: Option<u32>,
}

/// Limits that a route sets for itself: those that apply once the route is known.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteLimits {
    /// Bounds on one request.
    pub request: RouteRequestLimits,
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
        let (request, client) = (&own.request, &own.client);
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
                requests_per_connection: client.requests_per_connection.unwrap_or(self.client.requests_per_connection),
            },
        }
    }
}
