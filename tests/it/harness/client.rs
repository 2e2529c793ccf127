//! A plain HTTP/1.1 client that shows what really came over the wire.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use super::PATIENCE;

/// One response.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body ended as its framing says.
    pub complete: bool,
}

impl Response {
    /// The value of a header field; panics if it stands there more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        let first = values.next();
        assert_eq!(values.next(), None, "{name} stands twice: {:?}", self.headers);
        first
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Checks that this is a problem document with this status and code.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?} {}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(
            (problem["status"].as_u64(), problem["code"].as_str()),
            (Some(status.into()), Some(code)),
            "{problem}"
        );
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    }
}

/// A connection that stays open between requests.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: &str) -> Self {
        Self::over(TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}")))
    }

    /// Over a stream that is connected already.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    /// Reads a response; `None` if the connection was closed before its first byte.
    pub fn read(&mut self, method: &str) -> Option<Response> {
        loop {
            let response = self.read_one(method)?;
            if !(100..200).contains(&response.status) || response.status == 101 {
                return Some(response);
            }
        }
    }

    /// Reads a response or an interim response.
    pub fn read_one(&mut self, method: &str) -> Option<Response> {
        let mut response = self.head()?;
        let bodiless = method == "HEAD" || response.status < 200 || matches!(response.status, 204 | 304);
        response.complete = bodiless || self.body(&mut response).is_some();
        Some(response)
    }

    fn head(&mut self) -> Option<Response> {
        let line = self.line()?;
        let status =
            line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("status line: {line:?}"));
        let mut response = Response { status, ..Response::default() };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("header line: {line:?}"));
            response.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Some(response)
    }

    /// Reads a response's header and the first bytes of its chunked body, as soon as they are there.
    pub fn read_some(&mut self, length: usize) -> Option<(Response, Vec<u8>)> {
        let response = self.head()?;
        let mut body = Vec::new();
        while body.len() < length {
            self.chunk(&mut body)?;
        }
        Some((response, body))
    }

    /// Reads the next bytes of that body.
    pub fn read_more(&mut self, length: usize) -> Vec<u8> {
        let mut body = Vec::new();
        while body.len() < length {
            self.chunk(&mut body).expect("more of the body");
        }
        body
    }

    /// Another handle to the connection, to write while this one reads.
    pub fn writer(&self) -> TcpStream {
        self.reader.get_ref().try_clone().unwrap()
    }

    /// Reads the rest of that body.
    pub fn read_rest(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        self.chunks(&mut body).expect("the end of the body");
        body
    }

    /// Whether the other side closes without another byte.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        matches!(self.reader.read(&mut byte), Ok(0) | Err(_))
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(String::from_utf8_lossy(line.strip_suffix(b"\r\n")?).into_owned()),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                panic!("no answer within {PATIENCE:?}")
            }
            Err(_) => None,
        }
    }

    fn body(&mut self, response: &mut Response) -> Option<()> {
        if response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            return self.chunks(&mut response.body);
        }
        match response.header("content-length").map(|v| v.parse::<u64>().unwrap()) {
            Some(length) => {
                let read = (&mut self.reader).take(length).read_to_end(&mut response.body).ok()?;
                (read as u64 == length).then_some(())
            }
            None => self.reader.read_to_end(&mut response.body).ok().map(drop),
        }
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        while self.chunk(body)? > 0 {}
        Some(())
    }

    /// One chunk; its length.
    fn chunk(&mut self, body: &mut Vec<u8>) -> Option<u64> {
        let length = u64::from_str_radix(self.line()?.split(';').next()?, 16).ok()?;
        let read = (&mut self.reader).take(length).read_to_end(body).ok()?;
        (read as u64 == length && self.line()?.is_empty()).then_some(length)
    }
}

/// Connects from this address of the machine, with a receive buffer of so many bytes.
pub fn connect_from(source: &str, buffer: u32, address: &str) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        socket.set_recv_buffer_size(buffer).unwrap();
        socket.connect(address.parse().unwrap()).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
}

/// What follows the responses that were read.
impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// Sends one request on a connection of its own and reads the response.
pub fn exchange(address: &str, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let (method, target) = request.split_once(' ').expect("METHOD /target");
    let mut bytes = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
        bytes.push_str("Host: gateway.test\r\n");
    }
    for (name, value) in headers {
        bytes.extend([*name, ": ", *value, "\r\n"]);
    }
    let framed = headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("transfer-encoding"));
    if !body.is_empty() && !framed {
        bytes.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
    }
    bytes.push_str("\r\n");
    let mut bytes = bytes.into_bytes();
    bytes.extend_from_slice(body);
    let mut connection = Connection::open(address);
    // The other side may answer and close before it has read everything: the answer still counts.
    let _ = connection.try_send(&bytes);
    connection.read(method).unwrap_or_else(|| panic!("no response to {request}"))
}

/// Sends bytes as they are, and reads until the other side closes or falls silent. Returns all that came, and whether it
/// closed.
pub fn raw(address: &str, bytes: &[u8], silence: std::time::Duration) -> (String, bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(silence)).unwrap();
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let mut buffer = [0; 8192];
    let closed = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break true,
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => break false,
            Err(_) => break true,
        }
    };
    (String::from_utf8_lossy(&all).into_owned(), closed)
}
