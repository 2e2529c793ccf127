//! One host and one path from a request target and `Host` (RFC 9112, section 3.2).

use std::borrow::Cow;

use http::{Method, StatusCode};

use super::{
    Refusal,
    host::{Host, canonical_host},
    path::{Target, canonical_target, check_query},
};

const BAD_FORM: Refusal = Refusal::bad("bad_request_line", "The request target is neither a path nor a URL.");
const OTHER_SCHEME: Refusal =
    Refusal::bad("bad_request_line", "The request target's scheme is not the one of this connection.");
const OTHER_HOST: Refusal = Refusal::bad("bad_host", "The request target and Host name different hosts.");
const ASTERISK: Refusal =
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "method_not_supported", "OPTIONS for the whole server is not supported.");

/// The host and the path a request is for.
///
/// `raw_target` is in origin form or absolute form; a URL must have this connection's `scheme` and, where there is a
/// `Host`, the same authority. Without either the host's name is empty (HTTP/1.0).
///
/// Errors: 400, and 501 for `OPTIONS *`.
pub fn split_target<'a>(
    method: &Method,
    raw_target: &'a str,
    host_field: Option<&'a str>,
    scheme: &str,
) -> Result<(Host<'a>, Target<'a>), Refusal> {
    let named = host_field.map(canonical_host).transpose()?;
    if raw_target.starts_with('/') {
        let host = named.unwrap_or(Host { name: Cow::Borrowed(""), port: None });
        return Ok((host, canonical_target(raw_target)?));
    }
    if raw_target == "*" && *method == Method::OPTIONS {
        return Err(ASTERISK);
    }
    let (given_scheme, rest) = raw_target.split_once("://").ok_or(BAD_FORM)?;
    if !given_scheme.eq_ignore_ascii_case(scheme) {
        return Err(OTHER_SCHEME);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = canonical_host(authority)?;
    let default = default_port(scheme);
    let full_port = |host: &Host<'_>| host.port.or(default);
    if named.is_some_and(|named| named.name != host.name || full_port(&named) != full_port(&host)) {
        return Err(OTHER_HOST);
    }
    Ok((host, absolute_path(path)?))
}

/// The path of a URL: an empty one is the root (RFC 9110, section 4.2.3).
fn absolute_path(path: &str) -> Result<Target<'_>, Refusal> {
    if path.starts_with('/') {
        return canonical_target(path);
    }
    let query = path.strip_prefix('?');
    check_query(query)?;
    Ok(Target { path: Cow::Borrowed("/"), query, encoded_slash: false })
}

/// The port that a URL of this scheme means when it names none.
pub(super) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}
