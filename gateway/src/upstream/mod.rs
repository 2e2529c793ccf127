//! Named pools of endpoints: who is next, how a connection is made, what is tried again.

mod answer;
pub mod attempts;
pub mod auth;
pub mod balance;
pub mod breaker;
pub mod dns;
pub mod exchange;
pub mod fault;
pub mod health;
pub mod lease;
pub mod outlier;
pub mod peer;
pub mod pool;
pub mod retry;
pub mod state;
pub mod watch;
mod watching;
mod window;

use std::{sync::Arc, time::Duration};

use crate::{config::upstream::Timeouts, telemetry::metrics::UpstreamMetrics};

pub use answer::{Answer, Interim};
pub use attempts::{Asked, Attempts};
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
    /// When a failed attempt is tried again.
    pub retry: retry::Rules,
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

impl From<Timeouts> for StepTimeouts {
    fn from(t: Timeouts) -> Self {
        Self { connect: t.connect.0, first_byte: t.first_byte.0, idle: t.idle.0, total: t.total.0 }
    }
}
