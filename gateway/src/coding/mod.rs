//! Content codings (RFC 9110, section 8.4): responses are compressed for clients that take it, and bodies that a plugin
//! wants whole are decompressed within bounds.

mod compress;
mod decode;
mod encode;
mod negotiate;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_http::ResponseHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use compress::{Coded, Compression, Framing};
pub use decode::{Codings, DecodeError, decode};
pub use encode::Encoder;

/// What the gateway compresses with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Brotli (RFC 7932).
    Br,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878), with a window of at most 8 MiB (RFC 9659).
    Zstd,
}

impl Algorithm {
    /// Name of the coding in `Content-Encoding` and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Fields that say something of the bytes as they were coded: RFC 9530, RFC 3230 and RFC 1864.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Fields of a coded message that are not true of what it is without its coding.
pub fn about_coded() -> impl Iterator<Item = HeaderName> {
    std::iter::once(header::CONTENT_ENCODING).chain(DIGESTS)
}

/// Makes the header of a coded response that of the same response without its coding.
pub fn restate_plain(res: &mut ResponseHeader) {
    for name in about_coded().chain([header::ACCEPT_RANGES]) {
        res.remove_header(&name);
    }
    compress::weaken(res);
}

/// A strong validator stands for certain bytes (RFC 9110, section 8.8.1): with another coding it can only be weak.
fn weak(etag: &HeaderValue) -> Option<HeaderValue> {
    let strong = etag.as_bytes();
    if !strong.starts_with(b"\"") {
        return None;
    }
    HeaderValue::from_bytes(&[b"W/", strong].concat()).ok()
}

/// The items of a list in a field that may stand more than once (RFC 9110, section 5.6.1).
fn items<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let fields = headers.get_all(name).iter();
    fields.flat_map(|field| field.as_bytes().split(|&b| b == b',')).map(<[u8]>::trim_ascii).filter(|i| !i.is_empty())
}

/// The media type of a message without its parameters; `None` if it has none, or two.
fn media_type(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    field.as_bytes().split(|&b| b == b';').next().map(<[u8]>::trim_ascii)
}

/// Whether a message is a stream whose pieces count one by one: server-sent events and gRPC. It is never held, and never
/// compressed.
pub fn is_stream(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    media_type(headers).is_some_and(|essence| {
        essence.eq_ignore_ascii_case(b"text/event-stream")
            || essence.get(..GRPC.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(GRPC))
    })
}
