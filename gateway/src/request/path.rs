//! The one form of a path that is matched, logged, used in keys and sent on.
//!
//! Unreserved characters stand for themselves, every other escape is kept in upper case, there are no dot segments and
//! no empty segments but a last one (RFC 3986, section 6.2.2). A trailing slash is kept. What servers behind the gateway
//! are known to read in different ways has no canonical form and is refused.

use std::borrow::Cow;

use super::{
    Refusal,
    octets::{PLAIN, SEGMENT, UNRESERVED, hex_pair, is, is_target},
};

const NOT_A_PATH: Refusal = Refusal::bad("bad_path", "The request target is not a path.");
const BAD_ESCAPE: Refusal = Refusal::bad("bad_path", "The path holds an invalid percent-escape.");
const CONTROL: Refusal = Refusal::bad("bad_path", "The path holds a control character.");
const BACKSLASH: Refusal = Refusal::bad("bad_path", "The path holds a backslash.");
const RAW: Refusal = Refusal::bad("bad_path", "The path holds a character that must be percent-encoded.");
const NOT_UTF8: Refusal = Refusal::bad("bad_path", "The path is not valid UTF-8.");
const TWICE: Refusal = Refusal::bad("bad_path", "The path is percent-encoded twice.");
const ABOVE_ROOT: Refusal = Refusal::bad("bad_path", "The path leads above the root.");
const HIDDEN_DOTS: Refusal = Refusal::bad("bad_path", "The path hides a dot segment.");
const BAD_QUERY: Refusal = Refusal::bad("bad_query", "The query holds a character that must be percent-encoded.");

/// A request target in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path; borrowed if it came in canonical form.
    pub path: Cow<'a, str>,
    /// The query as it came, without `?`.
    pub query: Option<&'a str>,
    /// The path holds an encoded slash (`%2F`). Whether that is allowed is for the route to say.
    pub encoded_slash: bool,
}

/// Brings a target in origin form (RFC 9112, section 3.2.1) into canonical form. Canonical targets stay as they are.
///
/// Errors: 400 `bad_path` or `bad_query`.
pub fn canonical_target(raw: &str) -> Result<Target<'_>, Refusal> {
    let end = end_of_plain(raw.as_bytes())?;
    let (path_end, query) = match raw.as_bytes().get(end) {
        None => (raw.len(), None),
        Some(b'?') => (end, Some(&raw[end + 1..])),
        Some(_) => raw.split_once('?').map_or((raw.len(), None), |(path, query)| (path.len(), Some(query))),
    };
    check_query(query)?;
    let path = &raw[..path_end];
    if end == path_end {
        return Ok(Target { path: Cow::Borrowed(path), query, encoded_slash: false });
    }
    let clean = without_dots(&unescape(path.as_bytes())?)?;
    let encoded_slash = clean.contains("%2F");
    let path = if clean == path { Cow::Borrowed(path) } else { Cow::Owned(clean) };
    Ok(Target { path, query, encoded_slash })
}

/// Checks a query, which is kept as it came.
pub(super) fn check_query(query: Option<&str>) -> Result<(), Refusal> {
    if query.is_some_and(|query| !is_target(query.as_bytes())) { Err(BAD_QUERY) } else { Ok(()) }
}

/// How far a path is canonical beyond doubt: to its end, or to the first byte that needs a closer look.
fn end_of_plain(raw: &[u8]) -> Result<usize, Refusal> {
    if raw.first() != Some(&b'/') {
        return Err(NOT_A_PATH);
    }
    let mut after_slash = true;
    for (at, &byte) in raw.iter().enumerate().skip(1) {
        let plain = match byte {
            b'/' => !after_slash,
            // Inside a name a dot is a letter like others; at its start it may be a dot segment.
            b'.' => !after_slash || raw.get(at + 1).is_some_and(|&next| is(next, PLAIN)),
            _ => is(byte, PLAIN),
        };
        if !plain {
            return Ok(at);
        }
        after_slash = byte == b'/';
    }
    Ok(raw.len())
}

/// Every byte in its one form: unreserved characters as themselves, the others that need it as escapes.
fn unescape(path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(path.len() + 16);
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        match byte {
            b'%' => at += escape(&path[at..], &mut out)?,
            b'/' => out.push(b'/'),
            b'\\' => return Err(BACKSLASH),
            0..0x20 | 0x7f => return Err(CONTROL),
            b' ' | b'#' | 0x80.. => return Err(RAW),
            _ if is(byte, SEGMENT) => out.push(byte),
            _ => push_escape(byte, &mut out),
        }
        at += 1;
    }
    if is_encoded_twice(&out) { Err(TWICE) } else { Ok(out) }
}

/// Reads one escaped character at the start of `text`; returns how many bytes it takes beyond the first.
fn escape(text: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
    let byte = hex_pair(&text[1..]).ok_or(BAD_ESCAPE)?;
    let length = match byte {
        b'\\' => return Err(BACKSLASH),
        0..0x20 | 0x7f => return Err(CONTROL),
        0..0x80 if is(byte, UNRESERVED) => {
            out.push(byte);
            return Ok(2);
        }
        0..0x80 => 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Err(NOT_UTF8),
    };
    let mut character = [0; 4];
    for (index, slot) in character[..length].iter_mut().enumerate() {
        let escape = text.get(index * 3..).and_then(|t| t.strip_prefix(b"%")).ok_or(NOT_UTF8)?;
        *slot = hex_pair(escape).ok_or(BAD_ESCAPE)?;
    }
    // Refuses overlong forms and surrogates too (RFC 3629, section 3).
    std::str::from_utf8(&character[..length]).map_err(|_| NOT_UTF8)?;
    for &byte in &character[..length] {
        push_escape(byte, out);
    }
    Ok(length * 3 - 1)
}

fn push_escape(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Whether another round of decoding would make a dot, a slash, a backslash, an escape or a control character.
fn is_encoded_twice(path: &[u8]) -> bool {
    let mut rest = path;
    while let Some(found) = memchr::memmem::find(rest, b"%25") {
        rest = &rest[found + 3..];
        if matches!(hex_pair(rest), Some(b'.' | b'/' | b'\\' | b'%' | 0..0x20 | 0x7f)) {
            return true;
        }
    }
    false
}

/// Takes out empty segments, then dot segments (RFC 3986, section 5.2.4).
fn without_dots(path: &[u8]) -> Result<String, Refusal> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path[1..].split(|&b| b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"" | b"." => {}
            b".." => {
                let parent = out.iter().rposition(|&b| b == b'/').ok_or(ABOVE_ROOT)?;
                out.truncate(parent);
            }
            _ if hides_dots(segment) => return Err(HIDDEN_DOTS),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        if is_last {
            out.push(b'/');
        }
    }
    String::from_utf8(out).map_err(|_| NOT_UTF8)
}

/// Whether a server that decodes slashes, or cuts parameters at `;`, would see a dot segment.
fn hides_dots(segment: &[u8]) -> bool {
    segment.contains(&b'.') && std::str::from_utf8(segment).is_ok_and(|text| text.split("%2F").any(is_dots))
}

fn is_dots(part: &str) -> bool {
    let name = part.split(';').next().unwrap_or_default();
    let name = name.split("%3B").next().unwrap_or_default();
    matches!(name, "." | "..")
}
