//! HTTP/2 by hand: a client that sends any frames it likes, and shows those that come back.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::PATIENCE;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

pub const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of `RST_STREAM` and GOAWAY.
    pub fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literal fields that the table does not keep (RFC 7541, section 6.2.2).
pub fn block<T: AsRef<[u8]>>(fields: &[(&str, T)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name.as_bytes());
        text(&mut bytes, value.as_ref());
    }
    bytes
}

/// A text without Huffman coding (RFC 7541, sections 5.1 and 5.2).
pub fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    let mut left = text.len();
    if left < 127 {
        bytes.push(u8::try_from(left).unwrap());
    } else {
        bytes.push(127);
        left -= 127;
        while left >= 128 {
            bytes.push(u8::try_from(left % 128).unwrap() | 0x80);
            left /= 128;
        }
        bytes.push(u8::try_from(left).unwrap());
    }
    bytes.extend_from_slice(text);
}

/// The pseudo fields of a plain request.
pub fn request<'t>(method: &'t str, path: &'t str) -> Vec<(&'t str, &'t str)> {
    vec![(":method", method), (":scheme", "http"), (":authority", "gateway.test"), (":path", path)]
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With an answer whose body is this.
    Answer(Vec<u8>),
    Reset(u32),
    GoAway(u32),
    Closed,
}

impl End {
    /// The code of the problem document, if that is what came.
    pub fn code(&self) -> Option<String> {
        let Self::Answer(body) = self else { return None };
        let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
        Some(problem["code"].as_str()?.to_owned())
    }
}

/// A connection on which frames are written by hand.
pub struct Http2 {
    stream: TcpStream,
}

impl Http2 {
    /// Connects, and sends nothing yet.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Connects and sends the preface with settings of this payload.
    pub fn open_with(address: &str, settings: &[u8]) -> Self {
        let mut http2 = Self::connect(address);
        http2.send(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat());
        http2
    }

    pub fn open(address: &str) -> Self {
        Self::open_with(address, &[])
    }

    /// Sends bytes; `false` if the other side has closed.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a request without a body.
    pub fn ask<T: AsRef<[u8]>>(&mut self, stream: u32, fields: &[(&str, T)]) -> bool {
        self.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(fields)))
    }

    /// The next frame; `None` when the other side has closed. Settings are acknowledged.
    pub fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.fill(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.fill(&mut payload)?;
        if kind == SETTINGS && flags & ACK == 0 {
            self.send(&frame(SETTINGS, ACK, 0, &[]));
        }
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, payload })
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                panic!("no frame within {PATIENCE:?}")
            }
            Err(_) => None,
        }
    }

    /// Reads until this request has ended.
    pub fn end_of(&mut self, stream: u32) -> End {
        let mut body = Vec::new();
        loop {
            let Some(next) = self.read() else { return End::Closed };
            match next.kind {
                GOAWAY if next.reason() != 0 => return End::GoAway(next.reason()),
                RST_STREAM if next.stream == stream => return End::Reset(next.reason()),
                DATA | HEADERS if next.stream == stream => {
                    if next.kind == DATA {
                        body.extend_from_slice(&next.payload);
                    }
                    if next.flags & END_STREAM != 0 {
                        return End::Answer(body);
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads until the other side closes; what the last GOAWAY said, and how long it took.
    pub fn drained(&mut self) -> (Option<u32>, Duration) {
        let began = Instant::now();
        let mut reason = None;
        while let Some(next) = self.read() {
            if next.kind == GOAWAY {
                reason = Some(next.reason());
            }
        }
        (reason, began.elapsed())
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}
