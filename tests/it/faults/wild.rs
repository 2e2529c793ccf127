//! An upstream that does what no server should.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// One request, and the connection it came on.
pub struct Asked<'a> {
    pub target: String,
    /// Number of the connection, and of the request on it, counted from 0.
    pub at: (usize, usize),
    pub stream: &'a TcpStream,
}

impl Asked<'_> {
    pub fn say(&self, bytes: impl AsRef<[u8]>) {
        let mut stream = self.stream;
        let _ = stream.write_all(bytes.as_ref());
    }

    /// A whole answer whose body is the target.
    pub fn answer(&self) {
        self.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", self.target.len(), self.target));
    }

    /// Closes with a reset.
    pub fn reset(&self) {
        rustix::net::sockopt::set_socket_linger(self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Says nothing until the other side has gone, or the test is over.
    pub fn hang(&self, wild: &State) {
        self.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        while !wild.stopped.load(Ordering::SeqCst) && !matches!(self.stream.peek(&mut [0]), Ok(0)) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// What all connections share.
#[derive(Default)]
pub struct State {
    pub stopped: AtomicBool,
    pub connections: AtomicUsize,
    pub open: AtomicUsize,
    pub most_open: AtomicUsize,
    seen: Mutex<Vec<(String, String)>>,
}

/// What follows a request on its connection.
pub enum Then {
    /// The next one.
    On,
    /// The connection is closed.
    Close,
}

type Script = dyn Fn(&Asked<'_>, &State) -> Then + Send + Sync;

/// The server; ends when dropped.
pub struct Wild {
    address: String,
    pub state: Arc<State>,
}

impl Wild {
    pub fn start(script: impl Fn(&Asked<'_>, &State) -> Then + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wild = Self { address: listener.local_addr().unwrap().to_string(), state: Arc::default() };
        let (state, script): (_, Arc<Script>) = (Arc::clone(&wild.state), Arc::new(script));
        std::thread::spawn(move || {
            for (at, stream) in listener.incoming().flatten().enumerate() {
                if state.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (state, script) = (Arc::clone(&state), Arc::clone(&script));
                std::thread::spawn(move || {
                    state.connections.fetch_add(1, Ordering::SeqCst);
                    state.most_open.fetch_max(state.open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let _ = serve(&stream, at, &state, &*script);
                    state.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        wild
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Methods and targets of all requests so far.
    pub fn seen(&self) -> Vec<(String, String)> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }
}

impl Drop for Wild {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(stream: &TcpStream, connection: usize, state: &State, script: &Script) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    for number in 0.. {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let mut words = first.split(' ').map(str::to_owned);
        let (method, target) = (words.next()?, words.next()?);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = Vec::new();
        (&mut reader).take(length).read_to_end(&mut body).ok()?;
        state.seen.lock().unwrap().push((method, target.clone()));
        let asked = Asked { target, at: (connection, number), stream };
        match script(&asked, state) {
            Then::On => {}
            Then::Close => return None,
        }
    }
    None
}

/// An address that takes no connection, and does not say so.
pub struct BlackHole {
    pub address: String,
    _listener: std::net::TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    pub fn dig() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            socket.listen(0).unwrap().into_std().unwrap()
        });
        let address = listener.local_addr().unwrap();
        // Once the queue is full, the kernel drops whatever asks for more.
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            waiting.push(stream);
            assert!(waiting.len() < 100, "the queue has no end");
        }
        Self { address: address.to_string(), _listener: listener, _waiting: waiting }
    }
}

/// A wire to a server on which each piece is late, and some are lost and sent again.
pub struct Wire {
    pub address: String,
}

impl Wire {
    /// Each piece takes `delay`, one in a hundred `again` more.
    pub fn to(server: &str, delay: Duration, again: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = server.to_owned();
        let pieces = Arc::new(AtomicUsize::new(0));
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(&server) else { return };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let pieces = Arc::clone(&pieces);
                    let late = move || delay + again * u32::from(is_lost(&pieces));
                    carry(from, to, late);
                }
            }
        });
        Self { address }
    }
}

/// One piece in a hundred.
fn is_lost(pieces: &AtomicUsize) -> bool {
    pieces.fetch_add(1, Ordering::SeqCst) % 100 == 99
}

/// Carries pieces from one end to the other, each when its time has come, in order.
fn carry(mut from: TcpStream, mut to: TcpStream, late: impl Fn() -> Duration + Send + 'static) {
    let (send, receive) = std::sync::mpsc::sync_channel::<(Instant, Vec<u8>)>(1024);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if send.send((Instant::now() + late(), buffer[..read].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let _ = to.set_nodelay(true);
        for (when, piece) in receive {
            crate::harness::pass(when.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
