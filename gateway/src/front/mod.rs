//! Everything between the socket and the first phase of a request: listeners, admission, PROXY protocol, TLS, the loop
//! over a connection's requests, deadlines, the strict check of what comes.

mod accept;
pub mod admission;
mod alarm;
mod conn;
mod http1;
mod http2;
pub mod listeners;
mod pace;
mod passage;
pub mod pressure;
mod proxy_protocol;
mod secure;
pub mod tls;

pub use accept::Front;
pub use conn::{Conn, Cut, Link, Ticket};

use accept::{Said, Seen};

/// Bytes of the buffers that Pingora keeps for each connection: small, because a header is read into a buffer of its own
/// and large bodies bypass it.
pub const READ_BUFFER: usize = 2048;
/// One segment, so that a response header and a small body leave in one write.
pub const WRITE_BUFFER: usize = 1460;
