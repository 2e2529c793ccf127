//! Named pools of endpoints: who is next, how a connection is made, what is tried again.

mod answer;
pub mod attempts;
pub mod auth;
pub mod balance;
pub mod bound;
pub mod budget;
pub mod deadline;
pub mod dns;
pub mod exchange;
pub mod fault;
pub mod lease;
pub mod peer;
pub mod pool;
pub mod retry;

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use crate::{config::upstream::Timeouts, telemetry::metrics::UpstreamMetrics};

pub use answer::{Answer, Interim};
pub use attempts::{Asked, Attempts};
pub use pool::{Endpoint, Pool, Registry};

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
    /// How many retries it is worth.
    pub budget: Arc<budget::Budget>,
    /// The field in which requests say how long their answers may take, if there is one.
    pub deadline_header: Option<HeaderName>,
    /// Counters and histograms.
    pub metrics: UpstreamMetrics,
    /// How the gateway signs in, if it does.
    pub auth: Option<auth::Identity>,
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
