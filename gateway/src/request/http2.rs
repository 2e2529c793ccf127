//! The header of an HTTP/2 request, judged as strictly as that of an HTTP/1 request, and brought into the same form.

use http::{HeaderValue, Uri, header, uri::PathAndQuery};
use pingora_http::RequestHeader;

use super::{
    HEADER_TOO_LARGE, Refusal, View,
    fields::length,
    framing::{BodyFraming, Framing, HeaderLimits, TOO_LONG, TOO_MANY, UNDERSCORED, check_method},
    octets::is_value,
};

/// A stream that broke the protocol; the protocol's library has answered it.
pub const MALFORMED_HTTP2: Refusal = Refusal::bad("bad_http2", "The request breaks the rules of HTTP/2.");
/// More frames than requests need; the connection ends.
pub const HTTP2_FLOOD: Refusal = Refusal::new(
    http::StatusCode::TOO_MANY_REQUESTS,
    "http2_flood",
    "The connection carries more frames than requests need.",
);
const BAD_VALUE: Refusal =
    Refusal::bad("bad_header", "A header field's value holds control characters, or white space at its ends.");
const BAD_LENGTH: Refusal = Refusal::bad("bad_framing", "Content-Length does not fit the request.");
const NO_AUTHORITY: Refusal = Refusal::bad("bad_host", "The request names no host.");
const BAD_TARGET: Refusal = Refusal::bad("bad_request_line", "The request has no path.");
const EXPECTATION: Refusal = Refusal::new(
    http::StatusCode::EXPECTATION_FAILED,
    "expectation_failed",
    "The only expectation supported is 100-continue.",
);

/// Judges a request, and gives it the form that an HTTP/1 request has here: the path alone as target, `Host` in place of
/// `:authority` (RFC 9113, section 8.3.1), one `Cookie` field (section 8.2.3). What the protocol's library lets pass
/// already: names in lower case, no fields of a connection, pseudo fields in order, at most one `:authority` that does not
/// contradict `Host`.
///
/// Errors: as [`inspect`](super::inspect).
pub fn inspect_http2(
    req: &mut RequestHeader,
    has_body: bool,
    limits: &HeaderLimits,
    scheme: &str,
) -> Result<(Framing, View), Refusal> {
    check_method(req.method.as_str().as_bytes())?;
    let target = req.uri.path_and_query().cloned().ok_or(BAD_TARGET)?;
    if target.as_str().len() > limits.uri {
        return Err(TOO_LONG);
    }
    check_fields(req, target.as_str().len(), limits)?;
    let body = framing(req, has_body)?;
    let authority = match req.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).map_err(|_| NO_AUTHORITY)?,
        None => req.headers.get(header::HOST).cloned().ok_or(NO_AUTHORITY)?,
    };
    let host = authority.to_str().map_err(|_| NO_AUTHORITY)?;
    let view = View::make(&req.method, target.as_str(), Some(host), scheme)?;
    let target = match &view.rewritten {
        Some(canonical) => PathAndQuery::try_from(canonical.as_str()).map_err(|_| BAD_TARGET)?,
        None => target,
    };
    req.set_uri(Uri::from(target));
    // A map that cannot take one more field has more than the limit that was checked above.
    let _ = req.insert_header(header::HOST, authority);
    join_cookies(req);
    req.remove_header(&header::EXPECT);
    Ok((Framing { body, expects_continue: false, close: false }, view))
}

fn check_fields(req: &RequestHeader, target: usize, limits: &HeaderLimits) -> Result<(), Refusal> {
    let mut count = 0;
    let mut bytes = target;
    for (name, value) in &req.headers {
        count += 1;
        // With what HTTP/1 puts between and behind them.
        bytes += name.as_str().len() + value.len() + 4;
        if name.as_str().contains('_') {
            return Err(UNDERSCORED);
        }
        let value = value.as_bytes();
        let padded = matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
        if padded || !is_value(value) {
            return Err(BAD_VALUE);
        }
    }
    if count > limits.fields {
        return Err(TOO_MANY);
    }
    if bytes > limits.bytes { Err(HEADER_TOO_LARGE) } else { Ok(()) }
}

fn framing(req: &RequestHeader, has_body: bool) -> Result<BodyFraming, Refusal> {
    if let Some(expectation) = req.headers.get(header::EXPECT)
        && !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(EXPECTATION);
    }
    let mut lengths = req.headers.get_all(header::CONTENT_LENGTH).iter();
    let declared = lengths.next().map(|value| length(value.as_bytes())).transpose()?;
    match (declared, has_body, lengths.next()) {
        (_, _, Some(_)) | (Some(1..), false, None) => Err(BAD_LENGTH),
        (Some(length), true, None) => Ok(BodyFraming::Length(length)),
        (None, true, None) => Ok(BodyFraming::Chunked),
        (_, false, None) => Ok(BodyFraming::None),
    }
}

fn join_cookies(req: &mut RequestHeader) {
    let mut crumbs = req.headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = [first.as_bytes(), second.as_bytes()].join(&b"; "[..]);
    for crumb in crumbs {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        let _ = req.insert_header(header::COOKIE, value);
    }
}
