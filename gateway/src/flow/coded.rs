//! Content codings on a request's way: responses are compressed, and bodies that a plugin wants are decoded.

use bytes::Bytes;
use crossway_plugin_api::{Fault, Reply};
use http::{HeaderValue, StatusCode, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::{Admitted, Flight, Steps};
use crate::{
    coding::{self, Coded, Codings, Compression, DecodeError, Encoder, Framing},
    respond,
};

impl Admitted {
    /// How responses to this request are compressed, if they are.
    fn compression(&self) -> Option<&Compression> {
        match &self.route {
            Some(route) => route.compression.as_deref(),
            None => self.snapshot.compression.as_deref(),
        }
    }

    /// Decides whether a response is compressed, and changes its header accordingly.
    pub(super) fn compress(&self, req: &RequestHeader, res: &mut ResponseHeader, framing: Framing) -> Coded {
        self.compression().map_or(Coded::Not, |compression| compression.apply(req, res, framing))
    }

    /// The same for a response whose body streams. `Some`: each piece goes through this.
    pub(super) fn compress_stream(&self, req: &RequestHeader, res: &mut ResponseHeader) -> Option<Encoder> {
        match self.compress(req, res, Framing::AsDeclared) {
            Coded::Through(encoder) => Some(encoder),
            Coded::Not | Coded::HeaderOnly => None,
        }
    }
}

impl Steps {
    /// A piece of a response on the stream way, as it goes to the client.
    pub fn response_body(piece: &mut Option<Bytes>, end: bool, flight: &mut Flight) -> Result<()> {
        let Some(encoder) = flight.admitted().and_then(|in_air| in_air.encoder.as_mut()) else { return Ok(()) };
        let coded = encoder.push(piece.as_deref().unwrap_or_default(), end).map_err(broken)?;
        *piece = Some(coded);
        Ok(())
    }

    /// Trailers in place of a last piece: what the encoder still holds, which then is the end of the response.
    pub fn response_trailers(flight: &mut Flight) -> Result<Option<Bytes>> {
        let encoder = flight.admitted().and_then(|in_air| in_air.encoder.take());
        encoder.map(|mut encoder| encoder.push(b"", true)).transpose().map_err(broken)
    }
}

/// Sends a response whose whole body is known, compressed where the client and the route want it.
pub(super) async fn deliver(
    session: &mut Session,
    admitted: &Admitted,
    mut head: ResponseHeader,
    body: Bytes,
) -> Result<()> {
    match admitted.compress(session.req_header(), &mut head, Framing::Whole(body.len() as u64)) {
        Coded::Not => respond::send(session, head, body).await.map(drop),
        Coded::HeaderOnly => {
            respond::date(&mut head)?;
            session.write_response_header(Box::new(head), true).await
        }
        Coded::Through(encoder) => {
            respond::date(&mut head)?;
            send(session, head, &body, encoder).await
        }
    }
}

async fn send(session: &mut Session, head: ResponseHeader, body: &Bytes, mut encoder: Encoder) -> Result<()> {
    /// What is compressed between two chances for other tasks to run.
    const SLICE: usize = 32 << 10;
    session.write_response_header(Box::new(head), false).await?;
    for slice in body.chunks(SLICE) {
        let coded = encoder.push(slice, false).map_err(broken)?;
        if coded.is_empty() {
            tokio::task::yield_now().await;
        } else {
            session.write_response_body(Some(coded), false).await?;
        }
    }
    let coded = encoder.push(b"", true).map_err(broken)?;
    session.write_response_body(Some(coded), true).await
}

fn broken(error: std::io::Error) -> Box<Error> {
    Error::because(ErrorType::InternalError, "a response that cannot be compressed", error)
}

/// The codings that a request says its body has. Errors: the reply that refuses it.
pub(super) fn request_codings(req: &RequestHeader) -> std::result::Result<Codings, Reply> {
    Codings::in_header(&req.headers).map_err(refusal)
}

/// Undoes the codings of a request's body, and says so in its header. Errors: the reply that refuses it.
pub(super) async fn decode_request(
    codings: Codings,
    body: &[u8],
    req: &mut RequestHeader,
    max: u64,
) -> std::result::Result<Bytes, Reply> {
    let plain = coding::decode(codings, body, max).await.map_err(refusal)?;
    for name in coding::about_coded() {
        req.remove_header(&name);
    }
    Ok(plain.into())
}

/// Undoes the codings of a response's body. Errors: the fault it is.
pub(super) async fn response(body: Bytes, res: &mut ResponseHeader, max: u64) -> std::result::Result<Bytes, Fault> {
    let fault = |error| match error {
        DecodeError::TooLarge => Fault::ResponseTooLarge { max },
        DecodeError::Unsupported | DecodeError::Corrupt => Fault::UpstreamProtocol(error.to_string()),
    };
    let codings = Codings::in_header(&res.headers).map_err(fault)?;
    if codings.is_identity() || body.is_empty() {
        return Ok(body);
    }
    let plain = coding::decode(codings, &body, max).await.map_err(fault)?;
    coding::restate_plain(res);
    Ok(plain.into())
}

fn refusal(error: DecodeError) -> Reply {
    match error {
        DecodeError::Unsupported => Reply::problem(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_content_coding",
            "The request body's content coding is not supported.",
        )
        .header(header::ACCEPT_ENCODING, HeaderValue::from_static(Codings::SUPPORTED)),
        DecodeError::TooLarge => Reply::problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "decompressed_body_too_large",
            "The request body is larger than allowed when it is decompressed.",
        ),
        DecodeError::Corrupt => Reply::problem(
            StatusCode::BAD_REQUEST,
            "bad_content_coding",
            "The request body is not what its Content-Encoding says.",
        ),
    }
}
