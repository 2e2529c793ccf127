//! A server that records what it receives and answers as it is told.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// One request as it came over the wire.
#[derive(Debug, Clone, Default)]
pub struct Received {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
}

impl Received {
    /// The value of a header field; panics if it stands there more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        let first = values.next();
        assert_eq!(values.next(), None, "{name} stands twice: {:?}", self.headers);
        first
    }
}

/// What to answer.
pub struct Answer {
    bytes: Vec<u8>,
    close: bool,
    silent: bool,
}

impl Answer {
    /// A response with a length.
    pub fn new(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut bytes = format!("HTTP/1.1 {status} X\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if status != 204 && status != 304 {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        Self { bytes, close: false, silent: false }
    }

    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new(200, &[("Content-Type", "text/plain")], body.as_ref())
    }

    pub fn json(body: &str) -> Self {
        Self::new(200, &[("Content-Type", "application/json")], body.as_bytes())
    }

    /// These bytes, and then the connection is closed.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self { bytes: bytes.as_ref().to_vec(), close: true, silent: false }
    }

    /// No answer at all; the connection stays open.
    pub fn silence() -> Self {
        Self { bytes: Vec::new(), close: false, silent: true }
    }

    /// These bytes, and then nothing more; the connection stays open.
    pub fn stuck(bytes: impl AsRef<[u8]>) -> Self {
        Self { bytes: bytes.as_ref().to_vec(), close: false, silent: true }
    }

    /// Closes after this answer.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}

type Script = dyn Fn(&Received) -> Answer + Send + Sync;

/// A server on a free port; stops when dropped.
pub struct Upstream {
    address: String,
    received: Arc<Mutex<Vec<Received>>>,
    errors: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Upstream {
    /// Answers every request with what `script` says.
    pub fn start(script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0", script)
    }

    /// The same, on this address.
    pub fn start_on(address: &str, script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap().to_string(),
            received: Arc::default(),
            errors: Arc::default(),
            stopped: Arc::default(),
            streams: Arc::default(),
        };
        let (received, errors, stopped) =
            (Arc::clone(&upstream.received), Arc::clone(&upstream.errors), Arc::clone(&upstream.stopped));
        let streams = Arc::clone(&upstream.streams);
        let script: Arc<Script> = Arc::new(script);
        std::thread::spawn(move || {
            for (at, stream) in listener.incoming().flatten().enumerate() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                streams.lock().unwrap().extend(stream.try_clone());
                let (received, errors, script, stopped) =
                    (Arc::clone(&received), Arc::clone(&errors), Arc::clone(&script), Arc::clone(&stopped));
                std::thread::spawn(move || {
                    let failed = serve(&stream, at, &received, &*script, &stopped).is_none();
                    errors.fetch_add(usize::from(failed), Ordering::SeqCst);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        upstream
    }

    /// Echoes what it receives as JSON: method, target, headers, and the body's length.
    pub fn echo() -> Self {
        Self::start(|request| {
            let headers: Vec<_> = request.headers.iter().map(|(n, v)| format!("{n}: {v}")).collect();
            let body = String::from_utf8_lossy(&request.body);
            let echo = serde_json::json!({"method": request.method, "target": request.target, "headers": headers, "body": body});
            Answer::json(&echo.to_string())
        })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends as a process does that is killed: nobody listens any more, and connections break off wherever they are.
    pub fn kill(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        super::eventually("nobody listens", || TcpStream::connect(&self.address).is_err().then_some(()));
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The only request so far.
    #[track_caller]
    pub fn only(&self) -> Received {
        let all = self.received();
        assert_eq!(all.len(), 1, "{all:?}");
        all.into_iter().next().unwrap()
    }

    /// Connections that carried something that is not HTTP as this strict server understands it.
    pub fn errors(&self) -> usize {
        self.errors.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, which then ends and lets the port go.
        let _ = TcpStream::connect(&self.address);
    }
}

/// Serves one connection; `None` if what came was not HTTP.
fn serve(
    stream: &TcpStream,
    connection: usize,
    all: &Mutex<Vec<Received>>,
    script: &Script,
    stopped: &AtomicBool,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut first = String::new();
        match reader.read_line(&mut first) {
            Ok(0) | Err(_) => return Some(()),
            Ok(_) => {}
        }
        let received = read(&mut reader, &first, connection)?;
        let answer = script(&received);
        all.lock().unwrap().push(received);
        if answer.silent {
            let _ = writer.write_all(&answer.bytes);
            while !stopped.load(Ordering::SeqCst) && !is_gone(stream) {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            return Some(());
        }
        if writer.write_all(&answer.bytes).is_err() || answer.close {
            return Some(());
        }
    }
}

fn is_gone(stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(10))).is_err() || matches!(stream.peek(&mut [0]), Ok(0))
}

fn read(reader: &mut BufReader<&TcpStream>, first: &str, connection: usize) -> Option<Received> {
    let mut parts = first.strip_suffix("\r\n")?.split(' ');
    let (method, target, version) = (parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next()?);
    if version != "HTTP/1.1" || parts.next().is_some() {
        return None;
    }
    let mut received = Received { method, target, connection, ..Received::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.strip_suffix("\r\n")?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        received.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if received.header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let length = u64::from_str_radix(size.strip_suffix("\r\n")?, 16).ok()?;
            reader.take(length).read_to_end(&mut received.body).ok()?;
            let mut end = String::new();
            reader.read_line(&mut end).ok()?;
            if length == 0 {
                break;
            }
        }
    } else if let Some(length) = received.header("content-length") {
        let length: u64 = length.parse().ok()?;
        if reader.take(length).read_to_end(&mut received.body).ok()? as u64 != length {
            return None;
        }
    }
    Some(received)
}
