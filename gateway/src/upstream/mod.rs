//! Named pools of endpoints: who is next, how a connection is made, what is tried again.

mod answer;
mod answering;
pub mod attempts;
pub mod auth;
pub mod balance;
pub mod bound;
pub mod breaker;
pub mod budget;
pub mod bulkhead;
pub mod choice;
pub mod deadline;
pub mod dns;
pub mod exchange;
pub mod fault;
pub mod health;
pub mod lease;
pub mod names;
pub mod outlier;
pub mod peer;
pub mod pool;
pub mod rendezvous;
pub mod retry;
pub mod state;
pub mod sticky;
mod tally;
pub mod value;
pub mod warmth;
pub mod watch;
mod watching;
mod window;

use std::{sync::Arc, time::Duration};

use crossway_plugin_api::Ctx;
use http::HeaderName;
use pingora_http::RequestHeader;

use crate::{
    config::{balance::On, upstream::Timeouts},
    telemetry::metrics::UpstreamMetrics,
};

pub use answer::{Answer, Interim, Piece, has_body};
pub use answering::Answering;
pub use attempts::{Asked, Attempts};
pub use choice::Wish;
pub use pool::{Endpoint, Pool, Registry};
pub use state::EndpointState;

/// A named pool with the rules of one configuration. The pool itself outlives configurations that do not change it.
pub struct Upstream {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Endpoints and their state.
    pub pool: Arc<Pool>,
    /// Whether its endpoints are spoken to in HTTP/2.
    pub http2: bool,
    /// How long each step may take.
    pub timeouts: StepTimeouts,
    /// The value of a request that decides where it goes, if one does.
    pub hash_on: Option<On>,
    /// The cookie that brings clients back, if there is one.
    pub sticky: Option<sticky::Sticky>,
    /// When a failed attempt is tried again.
    pub retry: retry::Rules,
    /// How many retries it is worth.
    pub budget: Arc<budget::Budget>,
    /// The field in which requests say how long their answers may take, if there is one.
    pub deadline_header: Option<HeaderName>,
    /// How many requests it may have at a time, if that is bounded.
    pub bulkhead: Option<bulkhead::Bulkhead>,
    /// Counters and histograms.
    pub metrics: UpstreamMetrics,
    /// How the gateway signs in, if it does.
    pub auth: Option<auth::Identity>,
    /// What is watched at its endpoints.
    pub watch: Arc<watch::Watch>,
}

impl Upstream {
    /// Puts what it needs in the background to work: names are resolved, endpoints are watched. Needs a runtime.
    pub fn start(&self, exchange: &Arc<exchange::Exchange>) {
        self.pool.watch(&self.watch, exchange);
        self.pool.start();
    }
}

impl Upstream {
    /// What a request brings to the choice of an endpoint.
    pub fn wish(&self, req: &RequestHeader, ctx: &Ctx) -> Wish {
        Wish {
            hash: self.hash_on.as_ref().and_then(|on| value::hash_of(on, req, ctx)),
            sticky: self.sticky.as_ref().and_then(|sticky| sticky.brought(&req.headers)),
        }
    }
}

impl Upstream {
    /// Requests that it has now, and that wait for a place there.
    pub fn load(&self) -> (usize, usize) {
        match &self.bulkhead {
            Some(bulkhead) => (bulkhead.places.taken(), bulkhead.places.waiting()),
            None => (self.pool.endpoints().iter().map(|one| one.state.in_flight()).sum(), 0),
        }
    }

    /// Shows the same in the metrics.
    pub fn show_load(&self) {
        let (in_flight, waiting) = self.load();
        let shown = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.load.in_flight.set(shown(in_flight));
        self.metrics.load.waiting.set(shown(waiting));
    }
}

/// How long each step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTimeouts {
    /// TCP connection and TLS handshake.
    pub connect: Duration,
    /// Request sent to response header.
    pub first_byte: Duration,
    /// Pause within a body.
    pub idle: Duration,
    /// First attempt to response header.
    pub total: Duration,
}

impl From<&Timeouts> for StepTimeouts {
    fn from(t: &Timeouts) -> Self {
        Self { connect: t.connect.0, first_byte: t.first_byte.0, idle: t.idle.0, total: t.total.0 }
    }
}
