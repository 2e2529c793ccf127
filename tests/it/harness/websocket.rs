//! WebSockets by hand (RFC 6455): a client, and an upstream that echoes.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use super::{Connection, PATIENCE, Response, pass};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The payload of a close frame with code 1001, "going away".
pub const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub opcode: u8,
    pub masked: bool,
    pub payload: Vec<u8>,
}

/// The bytes of a whole frame.
pub fn frame(opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..126), _) => bytes.push(masked | short),
        (_, Ok(length)) => {
            bytes.push(masked | 0x7e);
            bytes.extend(length.to_be_bytes());
        }
        _ => {
            bytes.push(masked | 0x7f);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    match mask {
        None => bytes.extend_from_slice(payload),
        Some(mask) => {
            bytes.extend(mask);
            bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
    }
    bytes
}

/// Reads a frame; `None` at the end of the stream.
fn read_frame(stream: &mut impl Read) -> Option<Message> {
    let mut exactly = |count: usize| {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    let head = exactly(2)?;
    let masked = head[1] & 0x80 != 0;
    let length = match head[1] & 0x7f {
        126 => u16::from_be_bytes(exactly(2)?.try_into().unwrap()).into(),
        127 => usize::try_from(u64::from_be_bytes(exactly(8)?.try_into().unwrap())).unwrap(),
        short => short.into(),
    };
    let mask = if masked { exactly(4)? } else { vec![0; 4] };
    let payload = exactly(length)?.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some(Message { opcode: head[0] & 0xf, masked, payload })
}

/// The header of a handshake.
pub fn handshake(path: &str, extra: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
}

/// A client's end.
pub struct WebSocket {
    pub connection: Connection,
}

impl WebSocket {
    /// Opens one; panics if it is refused.
    #[track_caller]
    pub fn open(address: &str, path: &str) -> Self {
        let mut connection = Connection::open(address);
        connection.send(handshake(path, "").as_bytes());
        let answer = connection.read("GET").unwrap();
        assert_eq!(answer.status, 101, "{answer:?} {}", answer.text());
        Self { connection }
    }

    pub fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.connection.send(&frame(opcode, Some([1, 2, 3, 4]), payload));
    }

    /// The next frame, which bears no mask; `None` at the end.
    #[track_caller]
    pub fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let message = read_frame(&mut self.connection)?;
        assert!(!message.masked, "{message:?}");
        Some((message.opcode, message.payload))
    }
}

/// What an echo upstream has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A connection with this header.
    Header(String),
    /// A close frame.
    Close(Message),
    /// The end of a connection; what came last, if that was no whole frame.
    End,
}

/// Echoes messages and answers pings. By the path of the handshake: `/early` sends a message along with its 101; `/slow`
/// takes its time with it, and says `early` if bytes came before; `/half` sends half of a large frame, and the rest when
/// told so; `/mute` answers nothing; `/bye` ends after the first message; `/refuse` and `/ok` answer 403 and 200.
pub struct Echo {
    address: String,
    seen: Receiver<Seen>,
    pub go: SyncSender<()>,
}

pub const HALF: usize = 300_000;

impl Echo {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (tell, seen) = sync_channel(1024);
        let (go, wait) = sync_channel(1);
        let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tell, wait) = (tell.clone(), std::sync::Arc::clone(&wait));
                std::thread::spawn(move || serve(stream, &tell, &wait).map(|()| tell.send(Seen::End)));
            }
        });
        Self { address, seen, go }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next thing seen.
    #[track_caller]
    pub fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("the upstream sees something")
    }

    /// The header of the next connection.
    #[track_caller]
    pub fn header(&self) -> String {
        match self.next() {
            Seen::Header(header) => header,
            other => panic!("{other:?}"),
        }
    }

    /// Whether nothing has been seen.
    pub fn is_untouched(&self) -> bool {
        self.seen.try_recv().is_err()
    }
}

/// Serves one connection; `None` where no header came.
fn serve(mut stream: TcpStream, tell: &SyncSender<Seen>, go: &std::sync::Mutex<Receiver<()>>) -> Option<()> {
    let mut header = Vec::new();
    while !header.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        header.push(byte[0]);
    }
    let header = String::from_utf8_lossy(&header).into_owned();
    let path = header.split(' ').nth(1)?.to_owned();
    tell.send(Seen::Header(header)).ok()?;
    let mut greeting = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n".to_vec();
    match path.as_str() {
        "/refuse" => greeting = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno".to_vec(),
        "/ok" => greeting = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine".to_vec(),
        "/early" => greeting.extend(frame(TEXT, None, b"first")),
        "/slow" => {
            pass(std::time::Duration::from_millis(400));
            stream.set_nonblocking(true).ok()?;
            if stream.peek(&mut [0]).is_ok() {
                greeting.extend(frame(TEXT, None, b"early"));
            }
            stream.set_nonblocking(false).ok()?;
        }
        "/half" => greeting.extend(&frame(BINARY, None, &vec![b'h'; HALF])[..HALF / 2]),
        _ => {}
    }
    stream.write_all(&greeting).ok()?;
    if path == "/ok" || path == "/refuse" {
        return Some(());
    }
    if path == "/half" {
        let _ = go.lock().unwrap().recv();
        stream.write_all(&frame(BINARY, None, &vec![b'h'; HALF])[HALF / 2..]).ok()?;
    }
    while let Some(message) = read_frame(&mut stream) {
        assert!(message.masked, "{message:?}");
        match message.opcode {
            _ if path == "/mute" => {}
            CLOSE => {
                tell.send(Seen::Close(message.clone())).ok()?;
                let _ = stream.write_all(&frame(CLOSE, None, &message.payload));
                let _ = stream.shutdown(Shutdown::Write);
            }
            PING => drop(stream.write_all(&frame(PONG, None, &message.payload))),
            opcode => drop(stream.write_all(&frame(opcode, None, &message.payload))),
        }
        if path == "/bye" {
            return Some(());
        }
    }
    Some(())
}

/// Answers of a handshake.
#[track_caller]
pub fn ask(address: &str, path: &str, extra: &str) -> Response {
    let mut connection = Connection::open(address);
    connection.send(handshake(path, extra).as_bytes());
    connection.read("GET").unwrap()
}
