//! An answer whose header has come: what its end says of the endpoint.
//!
//! A success is counted with the header, so that answers which last for long count in time, and is taken back if the answer
//! breaks off. What tries a half-open circuit is judged at its end only.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossway_plugin_api::Fault;
use http::StatusCode;

use super::{Endpoint, Pool, state::Noted, watch::Came};

/// An answer that goes on after so long is as good as one that has ended, for a half-open circuit: streams may never end.
const LONG: Duration = Duration::from_secs(1);

/// A client that keeps an answer waiting for longer than this may be the reason why the endpoint gives it up.
const PATIENCE: Duration = Duration::from_secs(1);

/// An answer whose header has come, and was no failure.
pub struct Answering {
    pool: Arc<Pool>,
    endpoint: Arc<Endpoint>,
    /// Until the end is known.
    noted: Option<Noted>,
    began: Instant,
    /// What is known of the request.
    of: Of,
}

/// What is known of a request whose answer has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Of {
    /// It was sent to its end.
    pub(super) is_sent: bool,
    /// It was the first attempt, and nobody but the configuration has set its deadline.
    pub(super) is_first: bool,
    /// Whether it went over HTTP/2.
    pub(super) http2: bool,
}

impl Answering {
    /// `None` if nothing that may come is of interest.
    pub(super) fn new(pool: &Arc<Pool>, endpoint: &Arc<Endpoint>, noted: Noted, of: Of) -> Option<Self> {
        if noted.is_final() {
            return None;
        }
        let (pool, endpoint) = (Arc::clone(pool), Arc::clone(endpoint));
        Some(Self { pool, endpoint, noted: Some(noted), began: Instant::now(), of })
    }

    /// The request has been sent to its end by now.
    pub fn note_sent(&mut self) {
        self.of.is_sent = true;
    }

    /// Something of the answer has come.
    pub fn moves(&mut self) {
        if self.noted.as_ref().is_some_and(Noted::is_probe) && self.began.elapsed() >= LONG {
            self.ended(None);
        }
    }

    /// It has ended as it should, or with what `meant` stands for.
    pub fn ended(&mut self, meant: Option<StatusCode>) {
        self.learn(&Came::ended(meant.unwrap_or(StatusCode::OK)));
    }

    /// A fault has ended it; the client, or what else takes the answer, has `held` it up for so long.
    pub fn broke(&mut self, fault: &Fault, held: Duration) {
        if held <= PATIENCE && self.is_to_blame(fault) {
            self.learn(&Came::broken(fault));
        }
        self.noted = None;
    }

    /// Whether the fault is the endpoint's. Over HTTP/1.1 a server that does not want the rest of a request can only break
    /// the connection, and may break its answer with it.
    fn is_to_blame(&self, fault: &Fault) -> bool {
        let Of { is_sent, is_first, http2 } = self.of;
        match fault {
            Fault::Reset(_) | Fault::Unprocessed(_) | Fault::UpstreamProtocol(_) => is_sent || http2,
            Fault::UpstreamTimeout => is_sent,
            Fault::Deadline => is_sent && is_first,
            _ => false,
        }
    }

    fn learn(&mut self, came: &Came<'_>) {
        if let Some(noted) = self.noted.take() {
            self.pool.note_end(&self.endpoint, &noted, came, Instant::now());
        }
    }
}
