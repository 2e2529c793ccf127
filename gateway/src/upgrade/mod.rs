//! Replacing the running program without losing a connection.
//!
//! A process with `runtime.upgrade` listens on a Unix socket. A new process connects to it, gets all listening sockets
//! (`SCM_RIGHTS`). It asks for what only one process may hold, takes it, and serves on the sockets; from here both accept.
//! It reports ready, and tells the old one to go: that stops accepting, finishes what it has, and ends. Whatever goes
//! wrong before that word, the old process takes back what it had let go of and goes on as if nothing had been.
//!
//! Each side says one line and waits for the other's, each wait is bounded.

mod exclusive;
mod give;
mod socket;
mod succession;
mod take;
mod wire;

pub use exclusive::Exclusive;
pub use give::{Giver, Spare};
pub use succession::Succession;
pub use take::{Inherited, Taker};

/// First line of a conversation. The number changes with the conversation.
const GREETING: &str = "crossway-upgrade 1";
const RELEASE: &str = "release";
const RELEASED: &str = "released";
const GO: &str = "go";
const GONE: &str = "gone";
const NEXT: &str = "next";
const END: &str = "end";

/// Why an upgrade cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The running process said no.
    #[error("the running process refuses: {0}")]
    Told(String),
    /// The conversation broke off, or made no sense.
    #[error("the conversation with the running process broke off: {0}")]
    Broken(#[from] std::io::Error),
}
