//! Conditions on header fields and query parameters.

use std::borrow::Cow;

use crossway_plugin_api::config::Glob;
use http::{HeaderMap, HeaderName};

/// Whether every one of these fields is there with a value that fits. Of a field that is there several times one
/// value must fit.
pub fn headers_hold(wanted: &[(HeaderName, Glob)], headers: &HeaderMap) -> bool {
    wanted.iter().all(|(name, glob)| {
        headers.get_all(name).iter().any(|value| glob.matches(&String::from_utf8_lossy(value.as_bytes())))
    })
}

/// Whether every one of these parameters is in the query with a value that fits. Names and values are compared decoded
/// (`%` escapes, `+` for a space). A parameter that is there several times fits nothing, because the next reader may
/// take another one of its values; neither does one that is not UTF-8.
pub fn query_holds(wanted: &[(String, Glob)], query: Option<&str>) -> bool {
    wanted.iter().all(|(name, glob)| single(query.unwrap_or_default(), name).is_some_and(|value| glob.matches(&value)))
}

/// Like [`query_holds`], but of a parameter that is there several times one value must fit: for conditions on plugins,
/// which a caller must not be able to dodge by repeating a parameter.
pub fn some_query_holds(wanted: &[(String, Glob)], query: Option<&str>) -> bool {
    let pairs = || query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let fits = |glob: &Glob, value: &str| glob.matches(&decode(value).unwrap_or(Cow::Borrowed(value)));
    wanted.iter().all(|(name, glob)| {
        pairs().any(|(key, value)| decode(key).is_some_and(|key| key == *name.as_str()) && fits(glob, value))
    })
}

/// The value of a parameter that stands in the query exactly once.
fn single<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let mut found = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(key).is_some_and(|key| key == name) && found.replace(value).is_some() {
            return None;
        }
    }
    found.and_then(decode)
}

/// Decodes a name or a value; an incomplete escape stands for itself.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, bytes.get(at + 1..at + 3).and_then(escaped)) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn escaped(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
    match digits {
        [high, low] => Some(value(*high)? << 4 | value(*low)?),
        _ => None,
    }
}
