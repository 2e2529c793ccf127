//! One keep-alive connection that sends requests and verifies every answer.

use std::{
    io::{ErrorKind, Read as _},
    net::SocketAddr,
};

use anyhow::{Context as _, bail, ensure};

use super::wire::{Dialer, Wire};
use crate::{
    answer::{self, DIGITS},
    origin::header_end,
};

/// Largest response taken.
const MAX_RESPONSE: usize = 64 << 10;

/// What stands before a bearer token.
pub(crate) const AUTHORIZATION: &str = "Authorization: Bearer ";

/// The status of an answer whose body is the origin's.
const OK: &str = "200";

/// The bytes of a request, with the place of its number.
#[derive(Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    number_at: usize,
    /// What stands before what changes with each request.
    before: Vec<u8>,
    /// Of the answer.
    status: String,
}

impl Request {
    /// A GET with these further header fields, each written `Name: value`.
    pub(crate) fn new(host: SocketAddr, headers: &[String]) -> anyhow::Result<Self> {
        let start = format!("GET {}", answer::PATH);
        let number_at = start.len();
        let mut text = format!(
            "{start}{:0DIGITS$} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: crossway-peers\r\nAccept: application/json\r\n",
            0
        );
        for header in headers {
            ensure!(header.contains(": ") && !header.contains(['\r', '\n']), "a header is written `Name: value`");
            text.push_str(header);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        Ok(Self { bytes: text.into_bytes(), number_at, before: AUTHORIZATION.into(), status: OK.into() })
    }

    /// With bearer tokens behind this text, in place of those of RFC 6750.
    pub(crate) fn carrying(self, before: &str) -> Self {
        Self { before: before.into(), ..self }
    }

    /// With this status of the answer in place of 200.
    pub(crate) fn expecting(self, status: u16) -> Self {
        Self { status: status.to_string(), ..self }
    }

    /// Puts another bearer token in the place of the one it has, which must be as long.
    fn bearer(&mut self, token: &str) -> anyhow::Result<()> {
        let (before, token) = (self.before.as_slice(), token.as_bytes());
        let at = self.bytes.windows(before.len()).position(|part| part == before).context("no bearer token")?;
        let rest = &mut self.bytes[at + before.len()..];
        ensure!(rest.get(token.len()..).is_some_and(|after| after.starts_with(b"\r\n")), "a token of another length");
        rest[..token.len()].copy_from_slice(token);
        Ok(())
    }

    fn number(&mut self, number: &[u8; DIGITS]) -> &[u8] {
        self.bytes[self.number_at..self.number_at + DIGITS].copy_from_slice(number);
        &self.bytes
    }
}

/// A connection.
pub(crate) struct Client {
    stream: Wire,
    request: Request,
    input: Vec<u8>,
}

impl Client {
    /// Opens a connection.
    pub(crate) async fn connect(dialer: &Dialer, request: Request) -> anyhow::Result<Self> {
        Ok(Self { stream: dialer.connect().await?, request, input: Vec::with_capacity(2048) })
    }

    /// Shows this bearer token from now on.
    pub(crate) fn show(&mut self, token: &str) -> anyhow::Result<()> {
        self.request.bearer(token)
    }

    /// Makes a request and verifies the answer: 200, and the body for this very number, or the other status that is
    /// expected. `false` if the server said that
    /// the connection ends with it.
    pub(crate) async fn exchange(&mut self, number: u64) -> anyhow::Result<bool> {
        let number = answer::digits(number);
        self.stream.write_all(self.request.number(&number)).await?;
        self.input.clear();
        let end = loop {
            if let Some(end) = header_end(&self.input) {
                break end;
            }
            self.read_more().await?;
        };
        let header = Header::parse(&self.input[..end])?;
        while self.input.len() < end + header.length {
            self.read_more().await?;
        }
        let wanted = self.request.status.as_str();
        ensure!(header.status == *wanted.as_bytes(), "the status is {}", header.status.escape_ascii());
        let is_right = wanted != OK || answer::matches(&self.input[end..], &number);
        ensure!(is_right, "the body is not the one for this request");
        Ok(header.lasts)
    }

    /// Whether the connection is open and silent. Asks the socket itself: the runtime may not have seen its end yet.
    pub(crate) fn was_idle(self) -> bool {
        let Ok(mut socket) = self.stream.into_socket().into_std() else { return false };
        socket.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    async fn read_more(&mut self) -> anyhow::Result<()> {
        ensure!(self.input.len() <= MAX_RESPONSE, "the response is too long");
        if self.stream.read_buf(&mut self.input).await? == 0 {
            bail!("the connection was closed within a response");
        }
        Ok(())
    }
}

/// What the load generator must know of a response header.
struct Header {
    status: [u8; 3],
    length: usize,
    lasts: bool,
}

impl Header {
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let status =
            bytes.strip_prefix(b"HTTP/1.1 ").and_then(|b| b.first_chunk()).context("not an HTTP/1.1 response")?;
        let (mut length, mut lasts) = (None, true);
        for line in bytes.split(|b| *b == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                length = Some(std::str::from_utf8(value)?.parse()?);
            } else if name.eq_ignore_ascii_case(b"connection") {
                lasts = !value.eq_ignore_ascii_case(b"close");
            }
        }
        Ok(Self { status: *status, length: length.context("the response has no length")?, lasts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read() {
        let header = Header::parse(b"HTTP/1.1 200 OK\r\ncontent-length:  12\r\nConnection: Close\r\n\r\n").unwrap();
        assert_eq!((header.status, header.length, header.lasts), (*b"200", 12, false));
        assert!(Header::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap().lasts);
    }

    #[test]
    fn a_response_without_a_length_is_refused() {
        assert!(Header::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(Header::parse(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").is_err());
    }

    #[test]
    fn a_request_holds_its_number_and_headers() {
        let host = SocketAddr::from(([127, 0, 0, 1], 80));
        let mut request = Request::new(host, &["X-Key: abc".into()]).unwrap();
        let text = String::from_utf8(request.number(&answer::digits(5)).to_vec()).unwrap();
        assert!(text.starts_with("GET /customers/C-0000000005 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n"), "{text}");
        assert!(text.ends_with("\r\nX-Key: abc\r\n\r\n"), "{text}");
        assert!(Request::new(host, &["X-Key: a\r\nb: c".into()]).is_err());
        assert!(request.bearer("xyz").is_err());
    }

    #[test]
    fn a_token_takes_the_place_of_another() {
        let host = SocketAddr::from(([127, 0, 0, 1], 80));
        let mut request = Request::new(host, &[format!("{AUTHORIZATION}abc")]).unwrap();
        request.bearer("xyz").unwrap();
        let text = String::from_utf8(request.number(&answer::digits(5)).to_vec()).unwrap();
        assert!(text.ends_with("\r\nAuthorization: Bearer xyz\r\n\r\n"), "{text}");
        assert!(request.bearer("longer").is_err() && request.bearer("xy").is_err());
    }
}
