//! The canonical request: one framing, one host, one path and one client address, established once on entry.
//!
//! `framing` judges the raw header before anything else parses it, `chunks` follows a chunked body, `authority`
//! turns the request target and `Host` into one host and one path, `client` finds the client behind trusted proxies,
//! and `forward` decides which fields cross the gateway. What any of them cannot read in exactly one way is a
//! [`Refusal`].

mod authority;
mod chunks;
mod client;
mod fields;
mod forward;
mod framing;
mod hops;
mod host;
mod http2;
mod octets;
mod path;
mod view;

pub use authority::split_target;
pub use chunks::{ChunkScanner, Progress};
pub use client::client_address;
pub use forward::{Hop, Told, is_claim, say_forwarded, strip_client_claims, strip_hop_by_hop};
pub use framing::{BodyFraming, Framing, Head, HeaderLimits, header_end, inspect};
pub use hops::strip_request_hop_by_hop;
pub use host::{Host, canonical_host};
pub use http2::{HTTP2_FLOOD, MALFORMED_HTTP2, inspect_http2};
pub use path::{Target, canonical_target};
pub use view::View;

use http::StatusCode;

/// What is wrong with a request that is refused before a route is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the answer.
    pub status: StatusCode,
    /// Stable, documented name of this kind of refusal.
    pub code: &'static str,
    /// One sentence for the caller.
    pub detail: &'static str,
}

impl Refusal {
    const fn new(status: StatusCode, code: &'static str, detail: &'static str) -> Self {
        Self { status, code, detail }
    }

    /// A request whose form is wrong: 400.
    const fn bad(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }
}

/// The header did not arrive in time (RFC 9110, section 15.5.9).
pub const HEADER_TIMEOUT: Refusal =
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The request did not arrive in time.");
/// The header has more bytes than allowed (RFC 6585, section 5).
pub const HEADER_TOO_LARGE: Refusal = Refusal::new(
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "header_too_large",
    "The request header is larger than allowed.",
);

/// The connection was made for another host (RFC 9110, section 15.5.20).
pub const MISDIRECTED: Refusal =
    Refusal::new(StatusCode::MISDIRECTED_REQUEST, "misdirected_request", "This connection was made for another host.");

/// No route takes the request.
pub const NO_ROUTE: Refusal = Refusal::new(StatusCode::NOT_FOUND, "no_route", "No route takes this request.");

/// More requests at a time than there can be connections to upstreams.
pub const OVERLOADED: Refusal =
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "The gateway serves as many requests as it can.");

/// There is too little memory for another request.
pub const MEMORY_PRESSURE: Refusal =
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "memory_pressure", "The gateway serves as many requests as it can.");

/// The method is no token.
const BAD_METHOD: Refusal = Refusal::bad("bad_request_line", "The method is not valid.");
/// An encoded slash where the route does not allow one.
pub const ENCODED_SLASH: Refusal = Refusal::bad("bad_path", "The path holds an encoded slash.");

#[cfg(test)]
mod tests;
