//! The raw header of an HTTP/1 request, judged before anything else parses it.
//!
//! Stricter than RFC 9112 asks for wherever two readers of the same bytes could differ: a request that might be read as
//! two, or as another one, is refused and its connection closed.

use http::StatusCode;
use memchr::memchr;

use super::{
    HEADER_TOO_LARGE, Refusal,
    fields::Fields,
    octets::{METHOD, TOKEN, UNDERSCORE, class, is, is_target, is_value, trim},
};

/// Longest method name.
const MAX_METHOD: usize = 32;

const BAD_LINE: Refusal = Refusal::bad("bad_request_line", "The request line is not valid.");
const BAD_TARGET: Refusal =
    Refusal::bad("bad_request_line", "The request target holds characters that must be percent-encoded.");
const BAD_ENDING: Refusal = Refusal::bad("bad_header", "A line of the request header does not end in CRLF.");
const BAD_NAME: Refusal = Refusal::bad("bad_header", "A line of the request header is not a valid field.");
const BAD_VALUE: Refusal = Refusal::bad("bad_header", "A header field's value holds control characters.");
pub(super) const UNDERSCORED: Refusal =
    Refusal::bad("underscore_header", "Header field names with an underscore are not accepted.");
pub(super) const TOO_LONG: Refusal =
    Refusal::new(StatusCode::URI_TOO_LONG, "uri_too_long", "The request target is longer than allowed.");
pub(super) const TOO_MANY: Refusal = Refusal::new(
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "header_too_large",
    "The request has more header fields than allowed.",
);
const UNKNOWN_METHOD: Refusal =
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "method_not_supported", "The request method is not supported.");
const UNKNOWN_VERSION: Refusal = Refusal::new(
    StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    "version_not_supported",
    "Only HTTP/1.0 and HTTP/1.1 are supported.",
);

/// Bounds on one request header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderLimits {
    /// Whole header, request line and empty line included, in bytes.
    pub bytes: usize,
    /// Number of header fields.
    pub fields: usize,
    /// Request target, in bytes.
    pub uri: usize,
}

/// What a header that passed inspection says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// How the message is framed.
    pub framing: Framing,
    /// The method: capitals and dashes.
    pub method: &'a [u8],
    /// The request target: visible ASCII.
    pub target: &'a str,
    /// The value of `Host`; only HTTP/1.0 may go without.
    pub host: Option<&'a str>,
}

/// The parts of a request line.
struct Line<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: Version,
}

/// What a header says about its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framing {
    /// How the body ends.
    pub body: BodyFraming,
    /// The client waits for `100 Continue` before it sends the body (RFC 9110, section 10.1.1).
    pub expects_continue: bool,
    /// No request can follow on this connection: `Connection: close`, or HTTP/1.0 without `keep-alive`.
    pub close: bool,
}

/// How a request body ends (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is none.
    None,
    /// After this many bytes.
    Length(u64),
    /// With the last chunk and its trailer section.
    Chunked,
}

/// The protocol versions a request line may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http10,
    Http11,
}

/// The index just after the first empty line of `buf`, if there is one yet. The first `searched` bytes are known to
/// hold none. A bare LF counts as a line's end here, so that such a header is complete and can be refused.
pub fn header_end(buf: &[u8], searched: usize) -> Option<usize> {
    match buf {
        [b'\n', ..] => return Some(1),
        [b'\r', b'\n', ..] => return Some(2),
        _ => {}
    }
    // The end of a line may be known, and what follows it not yet.
    let mut at = searched.saturating_sub(2).min(buf.len());
    while let Some(found) = memchr(b'\n', &buf[at..]) {
        at += found + 1;
        match &buf[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Judges a whole raw header, from the request line to the empty line, in one pass without allocating.
///
/// Errors: 400 for whatever RFC 9112 does not allow or two readers could read in two ways, 414, 417, 431, 501 for
/// methods and transfer codings that are not known, 505.
pub fn inspect<'a>(raw: &'a [u8], limits: &HeaderLimits) -> Result<Head<'a>, Refusal> {
    let mut rest = raw;
    let line = request_line(next_line(&mut rest)?, limits)?;
    if raw.len() > limits.bytes {
        return Err(HEADER_TOO_LARGE);
    }
    let mut fields = Fields::default();
    let mut count = 0;
    loop {
        let line = next_line(&mut rest)?;
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > limits.fields {
            return Err(TOO_MANY);
        }
        let (name, value) = field(line)?;
        fields.note(name, value)?;
    }
    if !rest.is_empty() {
        return Err(BAD_ENDING);
    }
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| BAD_LINE);
    let framing = fields.framing(line.version)?;
    let host = fields.host.map(text).transpose()?;
    Ok(Head { framing, method: line.method, target: text(line.target)?, host })
}

/// The next line without its CRLF. A CR anywhere else is found with the other control characters.
fn next_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Refusal> {
    let end = memchr(b'\n', rest).ok_or(BAD_ENDING)?;
    let line = rest[..end].strip_suffix(b"\r").ok_or(BAD_ENDING)?;
    *rest = &rest[end + 1..];
    Ok(line)
}

/// `method SP request-target SP HTTP-version`, exactly (RFC 9112, section 3).
fn request_line<'a>(line: &'a [u8], limits: &HeaderLimits) -> Result<Line<'a>, Refusal> {
    let method = &line[..memchr(b' ', line).ok_or(BAD_LINE)?];
    let rest = &line[method.len() + 1..];
    let target = &rest[..memchr(b' ', rest).ok_or(BAD_LINE)?];
    let version = version(&rest[target.len() + 1..]);
    check_method(method)?;
    if target.len() > limits.uri {
        return Err(TOO_LONG);
    }
    if target.is_empty() {
        return Err(BAD_LINE);
    }
    if !is_target(target) {
        return Err(BAD_TARGET);
    }
    Ok(Line { method, target, version: version? })
}

pub(super) fn check_method(method: &[u8]) -> Result<(), Refusal> {
    let mut all = TOKEN | METHOD;
    for &byte in method.iter().take(MAX_METHOD) {
        all &= class(byte);
    }
    if method.is_empty() || all & TOKEN == 0 {
        return Err(BAD_LINE);
    }
    if all & METHOD == 0 || method.len() > MAX_METHOD || matches!(method, b"TRACE" | b"CONNECT") {
        return Err(UNKNOWN_METHOD);
    }
    Ok(())
}

fn version(text: &[u8]) -> Result<Version, Refusal> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(UNKNOWN_VERSION)
        }
        _ => Err(BAD_LINE),
    }
}

/// `field-name ":" OWS field-value OWS`. A folded line begins with white space, which is no token (RFC 9112, section
/// 5.2).
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let mut seen = 0;
    let mut end = 0;
    while let Some(&byte) = line.get(end)
        && is(byte, TOKEN)
    {
        seen |= class(byte);
        end += 1;
    }
    if end == 0 || line.get(end) != Some(&b':') {
        return Err(BAD_NAME);
    }
    if seen & UNDERSCORE != 0 {
        return Err(UNDERSCORED);
    }
    let value = &line[end + 1..];
    if !is_value(value) {
        return Err(BAD_VALUE);
    }
    Ok((&line[..end], trim(value)))
}
