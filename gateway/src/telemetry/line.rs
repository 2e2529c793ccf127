//! One access log line as JSON.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashSet},
    io::Write as _,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName};

use crate::config::telemetry::Redact;

/// Longest text of a field, in bytes; the rest is cut.
const MAX_TEXT: usize = 2048;
const SECRET_QUERY: [&str; 8] =
    ["access_token", "token", "key", "api_key", "apikey", "password", "secret", "signature"];
const SECRET_HEADERS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "x-api-key"];

/// What carries secrets by the settings of plugins.
#[derive(Debug, Default)]
pub struct Secrets {
    /// Query parameters.
    pub query: BTreeSet<String>,
    /// Request header fields.
    pub headers: HashSet<HeaderName>,
}

/// What is never written, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Redaction {
    query: Vec<String>,
    headers: Vec<HeaderName>,
}

impl Redaction {
    pub(super) fn compile(redact: &Redact, secrets: &Secrets) -> Self {
        let query = SECRET_QUERY.iter().map(|q| (*q).to_owned());
        let query = query.chain(redact.query.iter().map(|q| q.to_lowercase())).chain(secrets.query.iter().cloned());
        let headers = SECRET_HEADERS.iter().map(|h| HeaderName::from_static(h));
        let headers = headers.chain(redact.headers.iter().map(|h| h.0.clone())).chain(secrets.headers.iter().cloned());
        Self { query: query.collect(), headers: headers.collect() }
    }

    fn hides_query(&self, name: &str) -> bool {
        let plain = percent_decoded(name);
        self.query.iter().any(|hidden| hidden.eq_ignore_ascii_case(&plain))
    }
}

/// The few escapes that could hide a parameter's name from a comparison.
fn percent_decoded(name: &str) -> std::borrow::Cow<'_, str> {
    if !name.contains('%') {
        return name.into();
    }
    let (mut out, bytes) = (Vec::with_capacity(name.len()), name.as_bytes());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = name.get(at + 1..at + 3).filter(|_| byte == b'%').and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned().into()
}

/// Writes fields of one JSON object into a buffer.
pub(super) struct Line<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> Line<'b> {
    pub(super) fn begin(out: &'b mut Vec<u8>, now: SystemTime) -> Self {
        out.clear();
        out.extend_from_slice(b"{\"time\":\"");
        push_time(out, now);
        out.push(b'"');
        Self { out }
    }

    fn key(&mut self, name: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        self.out.push(b'"');
        escape(self.out, cut(value));
        self.out.push(b'"');
    }

    /// A list of words that need no escapes.
    pub(super) fn words(&mut self, name: &str, words: impl Iterator<Item = &'static str>) {
        self.key(name);
        for (at, word) in words.enumerate() {
            self.out.extend_from_slice(if at == 0 { b"[\"" } else { b",\"" });
            self.out.extend_from_slice(word.as_bytes());
            self.out.push(b'"');
        }
        self.out.push(b']');
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.key(name);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    pub(super) fn millis(&mut self, name: &str, value: Duration) {
        self.key(name);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.out.extend_from_slice(itoa::Buffer::new().format(micros / 1000).as_bytes());
        self.out.push(b'.');
        push_three(self.out, micros % 1000);
    }

    pub(super) fn address(&mut self, name: &str, value: IpAddr) {
        self.key(name);
        self.out.push(b'"');
        match value {
            IpAddr::V4(address) => push_octets(self.out, address.octets()),
            IpAddr::V6(address) => drop(write!(self.out, "{address}")),
        }
        self.out.push(b'"');
    }

    /// The query, with the values of hidden parameters replaced.
    pub(super) fn query(&mut self, query: &str, redaction: &Redaction) {
        self.key("query");
        self.out.push(b'"');
        for (at, pair) in cut(query).split('&').enumerate() {
            if at > 0 {
                self.out.push(b'&');
            }
            match pair.split_once('=') {
                Some((name, _)) if redaction.hides_query(name) => {
                    escape(self.out, name);
                    self.out.extend_from_slice(b"=***");
                }
                _ => escape(self.out, pair),
            }
        }
        self.out.push(b'"');
    }

    /// The header fields to log, as an object; nothing if the request has none of them.
    pub(super) fn headers(&mut self, wanted: &[HeaderName], headers: &HeaderMap, redaction: &Redaction) {
        let mut first = true;
        for name in wanted {
            let Some(value) = headers.get(name) else { continue };
            if first {
                self.key("headers");
            }
            self.out.extend_from_slice(if first { b"{\"" } else { b",\"" });
            first = false;
            self.out.extend_from_slice(name.as_str().as_bytes());
            self.out.extend_from_slice(b"\":\"");
            if redaction.headers.contains(name) {
                self.out.extend_from_slice(b"***");
            } else {
                escape(self.out, cut(&String::from_utf8_lossy(value.as_bytes())));
            }
            self.out.push(b'"');
        }
        if !first {
            self.out.push(b'}');
        }
    }

    pub(super) fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }
}

/// RFC 3339 with milliseconds. The part that changes once a second is kept for the thread.
fn push_time(out: &mut Vec<u8>, now: SystemTime) {
    thread_local! { static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) }; }
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            *second = since.as_secs();
            *text = humantime::format_rfc3339_seconds(now).to_string();
        }
        out.extend_from_slice(text.trim_end_matches('Z').as_bytes());
    });
    out.push(b'.');
    push_three(out, since.subsec_millis().into());
    out.push(b'Z');
}

/// A number below 1000 in three digits.
fn push_three(out: &mut Vec<u8>, number: u64) {
    let digit = |n: u64| b'0' + u8::try_from(n % 10).unwrap_or_default();
    out.extend_from_slice(&[digit(number / 100), digit(number / 10), digit(number)]);
}

fn push_octets(out: &mut Vec<u8>, octets: [u8; 4]) {
    for (at, octet) in octets.into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Escapes as JSON (RFC 8259), and every control and bidirectional character with it, so that a line on a terminal is
/// what it seems to be. Runs of plain characters are copied whole.
fn escape(out: &mut Vec<u8>, text: &str) {
    let plain = |b: u8| (b' '..0x7f).contains(&b) && b != b'"' && b != b'\\';
    if text.bytes().all(plain) {
        return out.extend_from_slice(text.as_bytes());
    }
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            c if c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(write: impl FnOnce(&mut Line<'_>)) -> serde_json::Value {
        let mut out = Vec::new();
        let mut line = Line::begin(&mut out, SystemTime::UNIX_EPOCH);
        write(&mut line);
        line.end();
        assert_eq!(memchr::memchr_iter(b'\n', &out).count(), 1);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_hostile_text_stays_one_json_line() {
        let hostile = "\x1b[2J\n{\"level\":\"x\"}\"\\\u{202e}\u{7f}é";
        let value = line(|l| l.text("path", hostile));
        assert_eq!(value["path"], hostile);
        assert_eq!(value["time"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn hidden_parameters_are_replaced_however_they_are_spelt() {
        let redaction = {
            let secrets = Secrets { query: ["k".to_owned()].into(), ..Secrets::default() };
            Redaction::compile(&Redact { query: vec!["pin".into()], headers: vec![] }, &secrets)
        };
        let value = line(|l| l.query("a=1&TOKEN=x&%74oken=y&pin=2&b&=3&k=4", &redaction));
        assert_eq!(value["query"], "a=1&TOKEN=***&%74oken=***&pin=***&b&=3&k=***");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let value = line(|l| l.text("x", &"é".repeat(2000)));
        assert_eq!(value["x"].as_str().unwrap().len(), MAX_TEXT);
    }

    #[test]
    fn hidden_headers_are_replaced() {
        let redaction = Redaction::compile(&Redact::default(), &Secrets::default());
        let headers: HeaderMap = [("authorization", "Bearer x"), ("x-a", "1")]
            .map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap()))
            .into_iter()
            .collect();
        let wanted = ["authorization", "x-a", "x-b"].map(|n| n.parse().unwrap());
        let value = line(|l| l.headers(&wanted, &headers, &redaction));
        assert_eq!(value["headers"], serde_json::json!({"authorization": "***", "x-a": "1"}));
    }
}
