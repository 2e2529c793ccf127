//! Takes out of a request what belongs to the client's connection.

use http::{HeaderName, header};
use pingora_http::RequestHeader;

/// Fields of one connection (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Takes out what `Connection` names and what belongs to the connection itself. On the stream way Pingora does the same.
/// Which fields `Connection` may name was checked with the raw header.
pub fn strip_request_hop_by_hop(req: &mut RequestHeader) {
    let named: Vec<HeaderName> = req
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|field| field.as_bytes().split(|&b| b == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        req.remove_header(name);
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        req.remove_header(name);
    }
}
