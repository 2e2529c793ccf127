//! Starts the real gateway in front of servers that do as they are told.

mod certificates;
mod client;
mod dns;
pub mod frames;
mod gate;
mod gateway;
mod h2;
mod idp;
mod redis;
mod secure;
mod silent;
mod upstream;
pub mod websocket;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

pub use certificates::Folder;
pub use client::{Connection, Response, connect_from, exchange, raw};
pub use dns::Dns;
pub use gate::Gate;
pub use gateway::{BINARY, Gateway};
pub use h2::{H2Upstream, TLS_NAME, frame, frames};
pub use idp::{CLIENT_SECRET, Idp};
pub use redis::Redis;
pub use secure::{Secure, Trust};
pub use silent::Silent;
pub use upstream::{Answer, Received, Upstream};

/// A process that does not outlive its test.
pub struct Killed(pub std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Longest a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The same where there is much to read first.
const LONG_PATIENCE: Duration = Duration::from_mins(2);

/// Waits until `ready` gives something, looking again and again; panics with `what` when it takes too long.
pub fn eventually<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, ready)
}

/// The same with another patience: for what takes much work.
fn eventually_within<T>(patience: Duration, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < deadline, "did not happen in time: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Waits for this long, doing nothing: for tests of time itself.
pub fn pass(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::thread::park_timeout(time.saturating_sub(began.elapsed()));
    }
}

/// Tells threads that go on until it is done, also when the test fails: a scope waits for its threads for ever.
pub struct Finish<'a>(pub &'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// An address that nobody listens on.
pub fn closed_address() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}
