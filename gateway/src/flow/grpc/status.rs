//! Answers of the gateway's own in the form that a caller understands: a status in the header and no messages
//! ("Trailers-Only").

use std::borrow::Cow;

use crossway_plugin_api::{Content, Fault, Reply};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pingora_core::Result;
use pingora_http::ResponseHeader;

use super::Wire;

/// The field with the status of a call.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
pub(super) const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// What a message may not hold as it is (PROTOCOL-HTTP2.md, "Percent-Byte-Unencoded"), beside what is not ASCII.
const ESCAPED: AsciiSet = CONTROLS.add(b'%');

/// The status that a reply means to a caller: as clients read an HTTP status (doc/http-grpc-status-mapping.md), and more
/// exactly where the gateway knows more.
fn of(reply: &Reply) -> u32 {
    if reply.code() == Some(Fault::Deadline.code()) {
        return DEADLINE_EXCEEDED;
    }
    match reply.status.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        413 => RESOURCE_EXHAUSTED,
        408 | 429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// The status that the header of an answer to a call means to the gateway: one that ends the call with UNAUTHENTICATED is
/// 401.
pub fn meant(head: &ResponseHeader) -> StatusCode {
    if is_unknown(&head.headers) { StatusCode::UNAUTHORIZED } else { head.status }
}

/// Whether a header or trailers end a call with UNAUTHENTICATED.
pub fn is_unknown(fields: &HeaderMap) -> bool {
    fields.get(STATUS).is_some_and(|status| *status == *UNAUTHENTICATED.to_string())
}

/// What the status that has ended a call means in HTTP, as Envoy and google.rpc.Code read it.
pub fn in_http(status: &HeaderValue) -> StatusCode {
    let number: Option<u32> = status.to_str().ok().and_then(|text| text.parse().ok());
    let status = match number {
        Some(0) => 200,
        Some(1) => 499,
        Some(3 | 9 | 11) => 400,
        Some(DEADLINE_EXCEEDED) => 504,
        Some(5) => 404,
        Some(6 | 10) => 409,
        Some(PERMISSION_DENIED) => 403,
        Some(RESOURCE_EXHAUSTED) => 429,
        Some(UNIMPLEMENTED) => 501,
        Some(UNAVAILABLE) => 503,
        Some(UNAUTHENTICATED) => 401,
        // UNKNOWN, INTERNAL, DATA_LOSS, and what is no status.
        _ => 500,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn message(reply: &Reply) -> Cow<'_, str> {
    let text = match &reply.content {
        Content::Problem(problem) => problem.detail.as_str(),
        _ => reply.status.canonical_reason().unwrap_or_default(),
    };
    utf8_percent_encode(text, &ESCAPED).into()
}

/// Whether the reply is an answer to a call already: one that a plugin has made for calls.
fn is_answer(reply: &Reply) -> bool {
    let Content::Other { media_type: Some(media_type), .. } = &reply.content else { return false };
    reply.status == StatusCode::OK && media_type.as_bytes().starts_with(Wire::Native.media_type().as_bytes())
}

/// The header of a reply to a call. `None` for a reply that is an answer to a call as it stands.
pub fn parts(reply: &Reply, wire: Wire) -> Result<Option<ResponseHeader>> {
    if is_answer(reply) {
        return Ok(None);
    }
    let mut head = ResponseHeader::build(StatusCode::OK, Some(8 + reply.headers.len()))?;
    head.insert_header(header::CONTENT_TYPE, HeaderValue::from_static(wire.media_type()))?;
    head.insert_header(STATUS, of(reply).to_string())?;
    head.insert_header(MESSAGE, message(reply).as_ref())?;
    for (name, value) in &reply.headers {
        head.append_header(name.clone(), value.clone())?;
    }
    Ok(Some(head))
}

/// The same in trailers, after messages.
pub(super) fn trailers(reply: &Reply) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(2);
    fields.insert(STATUS, HeaderValue::from(of(reply)));
    if let Ok(message) = HeaderValue::from_str(&message(reply)) {
        fields.insert(MESSAGE, message);
    }
    fields
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn statuses_are_those_that_clients_would_read() {
        let table = [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (405, 2),
            (408, 14),
            (413, 8),
            (415, 2),
            (429, 14),
            (500, 2),
            (502, 14),
            (503, 14),
            (504, 14),
            (508, 2),
        ];
        for (http, grpc) in table {
            let reply = Reply::problem(StatusCode::from_u16(http).unwrap(), "x", "x");
            assert_eq!(of(&reply), grpc, "{http}");
        }
        assert_eq!(of(&crate::respond::fault_reply(&Fault::Deadline)), DEADLINE_EXCEEDED);
        assert_eq!(of(&crate::respond::fault_reply(&Fault::UpstreamTimeout)), UNAVAILABLE);
    }

    #[test]
    fn statuses_of_calls_mean_something_in_http() {
        let expected = [
            200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401, // and none:
            500,
        ];
        for (status, http) in (0_u32..).zip(expected) {
            assert_eq!(in_http(&HeaderValue::from(status)).as_u16(), http, "{status}");
        }
        for text in ["", "OK", "-1", "99999999999"] {
            assert_eq!(in_http(&HeaderValue::from_static(text)), 500, "{text:?}");
        }
    }

    #[test]
    fn a_reply_keeps_its_fields_and_its_sentence() {
        let reply = Reply::problem(StatusCode::UNAUTHORIZED, "key", "100 % nötig\n")
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey"));
        let head = parts(&reply, Wire::WebText).unwrap().unwrap();
        assert_eq!(head.status, 200);
        for (name, value) in [
            ("content-type", "application/grpc-web-text"),
            ("grpc-status", "16"),
            ("grpc-message", "100 %25 n%C3%B6tig%0A"),
            ("www-authenticate", "ApiKey"),
        ] {
            assert_eq!(head.headers[name], value);
        }
        let empty = parts(&Reply::empty(StatusCode::FORBIDDEN), Wire::Native).unwrap().unwrap();
        assert_eq!(empty.headers["grpc-message"], "Forbidden");
    }

    #[test]
    fn an_answer_made_for_calls_is_left_alone() {
        let other = |media_type: &'static str| Reply {
            status: StatusCode::OK,
            headers: Vec::new(),
            content: Content::Other {
                media_type: Some(HeaderValue::from_static(media_type)),
                body: Bytes::from_static(b"\0\0\0\0\0"),
            },
        };
        assert!(parts(&other("application/grpc"), Wire::Native).unwrap().is_none());
        assert_eq!(parts(&other("text/plain"), Wire::Native).unwrap().unwrap().headers["grpc-status"], "2");
    }
}
