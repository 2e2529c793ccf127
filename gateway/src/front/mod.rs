//! Everything between the socket and the first phase of a request: listeners, the loop over a connection's requests,
//! deadlines on every header, the strict check of the raw bytes.

mod conn;
mod lane;
pub mod listeners;
mod serve;
pub mod tls;

pub use conn::{Conn, Ticket};
pub use serve::Front;

/// Bytes of the buffers that Pingora keeps for each connection: small, because a header is read into a buffer of its own
/// and large bodies bypass it.
pub const READ_BUFFER: usize = 2048;
/// One segment, so that a response header and a small body leave in one write.
pub const WRITE_BUFFER: usize = 1460;
