//! gRPC (github.com/grpc/grpc: doc/PROTOCOL-HTTP2.md, doc/PROTOCOL-WEB.md): what the gateway must know of a call, beyond
//! the HTTP that carries it.
//!
//! A call is a stream: no part of it waits for the whole, so its bodies are never held for a plugin, and it always goes
//! by the stream way.

mod base64;
mod status;
mod timeout;
pub mod trailers;
mod upload;
mod web;

use std::time::Instant;

use bytes::Bytes;
use crossway_plugin_api::{Fault, Reply};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use pingora_http::{RequestHeader, ResponseHeader};

pub use status::{STATUS, in_http, is_unknown, meant, parts};
pub(super) use upload::Upload;

/// The form in which a call comes to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// gRPC over HTTP/2.
    Native,
    /// gRPC-web with binary bodies.
    Web,
    /// gRPC-web with bodies in base64.
    WebText,
}

impl Wire {
    fn media_type(self) -> &'static str {
        match self {
            Self::Native => "application/grpc",
            Self::Web => "application/grpc-web",
            Self::WebText => "application/grpc-web-text",
        }
    }
}

/// What a message's content type says of gRPC, and what follows the name in it: message format and parameters.
fn of_type(headers: &HeaderMap) -> Option<(Wire, &[u8])> {
    let mut fields = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let text = field.as_bytes();
    [Wire::WebText, Wire::Web, Wire::Native].into_iter().find_map(|wire| {
        let (name, rest) = text.split_at_checked(wire.media_type().len())?;
        let ends = matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'));
        (ends && name.eq_ignore_ascii_case(wire.media_type().as_bytes())).then_some((wire, rest))
    })
}

/// The content type of the same messages in another form.
fn retyped(wire: Wire, rest: &[u8]) -> Result<HeaderValue, Fault> {
    HeaderValue::from_bytes(&[wire.media_type().as_bytes(), rest].concat()).map_err(|_| broken("content type"))
}

fn broken(what: &str) -> Fault {
    Fault::Internal(format!("a {what} that cannot be written"))
}

/// A call on its way.
pub struct Call {
    /// How it came.
    pub wire: Wire,
    /// When its caller gives up.
    until: Option<Instant>,
    /// The status that it ended with, once known.
    pub status: Option<u32>,
    /// The answer is gRPC.
    is_grpc: bool,
    /// The answer is gRPC, and comes as such.
    is_told: bool,
    bridge: web::Bridge,
}

impl Call {
    fn new(wire: Wire) -> Self {
        Self { wire, until: None, status: None, is_grpc: false, is_told: false, bridge: web::Bridge::default() }
    }

    /// The call that a request is by itself.
    pub fn native(req: &RequestHeader, version: Version) -> Option<Self> {
        // The cheap test first: most requests are not calls.
        let is_native = version == Version::HTTP_2 && matches!(of_type(&req.headers)?, (Wire::Native, _));
        (is_native && req.method == Method::POST).then(|| Self::new(Wire::Native))
    }

    /// The call that a request is on a route that takes gRPC-web. A client of HTTP/1.0 cannot make one: the answer has no
    /// length.
    pub fn web(req: &RequestHeader, version: Version) -> Option<Self> {
        let (wire, _) = of_type(&req.headers)?;
        let is_web = wire != Wire::Native && req.method == Method::POST && version != Version::HTTP_10;
        is_web.then(|| Self::new(wire))
    }

    /// Takes the deadline that the caller has set; a time-out that cannot be read is refused.
    pub(super) fn take_timeout(&mut self, headers: &HeaderMap, now: Instant) -> Result<Option<Instant>, Reply> {
        let timeout = timeout::of(headers).map_err(|()| {
            Reply::problem(StatusCode::BAD_REQUEST, "grpc_timeout_invalid", "The field grpc-timeout is not valid.")
        })?;
        self.until = timeout.and_then(|length| now.checked_add(length));
        Ok(self.until)
    }

    /// When the caller gives up: the bound of the whole call.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Makes the request one that a gRPC server takes.
    pub(super) fn outbound(&self, req: &mut RequestHeader) -> Result<(), Fault> {
        if self.wire != Wire::Native
            && let Some((_, rest)) = of_type(&req.headers)
        {
            let value = retyped(Wire::Native, rest)?;
            req.insert_header(header::CONTENT_TYPE, value).map_err(|_| broken("content type"))?;
            req.remove_header(&header::CONTENT_LENGTH);
        }
        // It belongs to one connection and was taken out with the others; a server without it may refuse the call.
        req.insert_header(header::TE, HeaderValue::from_static("trailers")).map_err(|_| broken("field"))?;
        if let Some(until) = self.until {
            let left = until.saturating_duration_since(Instant::now());
            req.insert_header(timeout::FIELD, timeout::text(left)).map_err(|_| broken("time-out"))?;
        }
        Ok(())
    }

    /// A piece of the request body on its way to the upstream.
    pub(super) fn request_body(&mut self, piece: &mut Option<Bytes>, end: bool) -> Result<(), Fault> {
        if self.wire == Wire::WebText { self.bridge.decode(piece, end) } else { Ok(()) }
    }

    /// The upstream's response header on its way to the client.
    pub(super) fn response(&mut self, res: &mut ResponseHeader) -> Result<(), Fault> {
        self.note_status(&res.headers);
        self.is_grpc = matches!(of_type(&res.headers), Some((Wire::Native, _)));
        if self.wire == Wire::Native {
            self.is_told = self.is_grpc;
            Ok(())
        } else {
            self.bridge.answer(self.wire, res)
        }
    }

    /// A piece of the response body on its way to the client.
    pub(super) fn response_body(&mut self, piece: &mut Option<Bytes>, end: bool) {
        if self.wire == Wire::Native || !self.bridge.is_open() {
            return;
        }
        let lost = end && self.status.is_none();
        if lost {
            self.status = Some(status::INTERNAL);
        }
        self.bridge.encode(self.wire, piece, lost);
    }

    /// The response trailers on their way to the client; bytes go in their place.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) -> Option<Bytes> {
        self.note_status(trailers);
        if self.wire == Wire::Native { None } else { self.bridge.trailers(self.wire, trailers) }
    }

    /// Trailers that end an answer which a fault has broken off; `None` where a client could not read them. In gRPC-web they
    /// would have to begin between two messages.
    pub(super) fn last_words(&mut self, fault: &Fault) -> Option<HeaderMap> {
        if !self.is_told || *fault == Fault::ClientGone {
            return None;
        }
        let fields = status::trailers(&crate::respond::fault_reply(fault));
        self.note_status(&fields);
        Some(fields)
    }

    /// What the end of an answer with these trailers, if any, means in HTTP; nothing if the end says no more than the header.
    /// A caller that has set a deadline is told by the service when that has passed: this is no time-out of the service's.
    pub(super) fn ended(&self, trailers: Option<&HeaderMap>) -> Option<StatusCode> {
        match trailers.and_then(|fields| fields.get(STATUS)) {
            Some(status) => match in_http(status) {
                StatusCode::GATEWAY_TIMEOUT if self.until.is_some() => None,
                meant => Some(meant),
            },
            // Its callers take that for an error too.
            None => (self.is_grpc && self.status.is_none()).then_some(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// Takes note of the status that an answer carries.
    pub(super) fn note_status(&mut self, headers: &HeaderMap) {
        let status = headers.get(STATUS).and_then(|value| value.to_str().ok()?.parse().ok());
        self.status = status.or(self.status);
    }
}

/// The answer to a call whose body a plugin must hold: one that protects is not passed by.
pub(super) fn not_held() -> Reply {
    Reply::problem(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "grpc_not_buffered",
        "This route must hold whole bodies, which a gRPC call does not have.",
    )
}

#[cfg(test)]
mod tests;
