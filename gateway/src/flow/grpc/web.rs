//! Between gRPC-web (doc/PROTOCOL-WEB.md) and gRPC: trailers become the last frame of the body, and bodies may be text.

use bytes::{BufMut, Bytes, BytesMut};
use crossway_plugin_api::Fault;
use http::{HeaderMap, HeaderValue, header};
use pingora_http::ResponseHeader;

use super::{STATUS, Wire, base64, broken, of_type, retyped, status};

/// First byte of a frame that holds trailers.
const TRAILERS: u8 = 0x80;
/// That byte and the length.
const FRAME_HEADER: usize = 5;

/// The two bodies of one call.
#[derive(Default)]
pub(super) struct Bridge {
    request: base64::Decoder,
    /// The answer is gRPC, and its last frame has not been sent.
    open: bool,
}

impl Bridge {
    pub(super) fn decode(&mut self, piece: &mut Option<Bytes>, end: bool) -> Result<(), Fault> {
        let malformed = || Fault::RequestFraming("base64".into());
        if let Some(text) = piece.take() {
            *piece = Some(self.request.decode(&text).map_err(|()| malformed())?.into());
        }
        if end && !self.request.is_complete() { Err(malformed()) } else { Ok(()) }
    }

    /// Makes the header of a gRPC answer that of a gRPC-web answer. Any other answer passes as it is: its HTTP status tells
    /// the client enough.
    pub(super) fn answer(&mut self, wire: Wire, res: &mut ResponseHeader) -> Result<(), Fault> {
        let Some((Wire::Native, rest)) = of_type(&res.headers) else { return Ok(()) };
        let value = retyped(wire, rest)?;
        self.open = true;
        res.remove_header(&header::CONTENT_LENGTH);
        res.insert_header(header::CONTENT_TYPE, value).map_err(|_| broken("content type"))
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Puts a piece into the client's form. `lost`: the body ends with it, and the upstream has said no status.
    pub(super) fn encode(&mut self, wire: Wire, piece: &mut Option<Bytes>, lost: bool) {
        let mut bytes = piece.take().unwrap_or_default();
        if lost {
            self.open = false;
            let mut told = HeaderMap::new();
            told.insert(STATUS, HeaderValue::from(status::INTERNAL));
            bytes = [bytes, frame(&told)].concat().into();
        }
        *piece = Some(in_form(wire, bytes));
    }

    /// The last frame.
    pub(super) fn trailers(&mut self, wire: Wire, trailers: &HeaderMap) -> Option<Bytes> {
        std::mem::take(&mut self.open).then(|| in_form(wire, frame(trailers)))
    }
}

/// Every piece of text is a segment of its own, so that nothing is held back.
fn in_form(wire: Wire, bytes: Bytes) -> Bytes {
    if wire == Wire::WebText { base64::encode(&bytes).into() } else { bytes }
}

/// Trailers as a frame: lines as in HTTP/1.1, with names in lower case. They were bounded before.
fn frame(trailers: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::with_capacity(256);
    for (name, value) in trailers {
        lines.put_slice(name.as_str().as_bytes());
        lines.put_slice(b": ");
        lines.put_slice(value.as_bytes());
        lines.put_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(FRAME_HEADER + lines.len());
    frame.put_u8(TRAILERS);
    frame.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    frame.put_slice(&lines);
    frame.freeze()
}
