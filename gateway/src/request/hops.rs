//! Takes out of a request what belongs to the client's connection.

use http::{HeaderMap, HeaderName, header};

/// Takes out what `Connection` names and what belongs to the connection itself (RFC 9110, section 7.6.1). On the stream
/// way Pingora does the same. Which fields `Connection` may name was checked with the raw header. Allocates nothing if
/// there is nothing.
pub fn strip_request_hop_by_hop(fields: &mut HeaderMap) {
    let mut gone: Vec<HeaderName> = Vec::new();
    for field in fields.get_all(header::CONNECTION) {
        let options = field.as_bytes().split(|&b| b == b',');
        gone.extend(options.filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok()));
    }
    gone.extend(fields.keys().filter(|name| is_of_connection(name.as_str())).cloned());
    for name in &gone {
        fields.remove(name);
    }
}

fn is_of_connection(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}
