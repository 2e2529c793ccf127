//! What lives as long as the process: the configuration in force and all that survives a change of it.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;
use crossway_plugin_api::Deps;
use prometheus::IntGauge;
use tokio::sync::Notify;

use crate::{
    front::{admission::Admission, pressure::Pressure, tls::Tables},
    keys::Keys,
    snapshot::Snapshot,
    store::{Scripts, Stores},
    telemetry::{access_log::AccessLog, audit::AuditLog, metrics::Metrics},
    upstream::{Registry, exchange::Exchange},
};

/// What lives as long as the process.
pub struct Gateway {
    /// The configuration in force. A request loads it once.
    pub snapshot: ArcSwap<Snapshot>,
    /// Endpoints and their state.
    pub registry: Arc<Registry>,
    /// TLS of listeners, with its session keys.
    pub tables: Arc<Tables>,
    /// Buffered requests to upstreams.
    pub exchange: Arc<Exchange>,
    /// What plugins are lent.
    pub lent: Deps,
    /// Where state is kept; there once the process starts to serve.
    pub stores: OnceLock<Stores>,
    /// Scripts of plugins on the server that gateways share.
    pub scripts: Scripts,
    /// API keys that were issued at run time.
    pub keys: Arc<Keys>,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// One line for each request.
    pub access_log: AccessLog,
    /// One line for each refusal of a caller and each act of an operator.
    pub audit: AuditLog,
    /// Client connections.
    pub connections: Connections,
    /// How many of them there may be.
    pub admission: Admission,
    /// Whether there is memory for more requests.
    pub pressure: Pressure,
    /// Whether load balancers should send requests here.
    pub readiness: Readiness,
    /// A new process is taking over.
    pub handing_over: AtomicBool,
}

impl Gateway {
    /// Whether the process is on its way out: connections end with their current request.
    pub fn is_draining(&self) -> bool {
        self.readiness.draining.load(Ordering::Relaxed)
    }
}

/// Counts client connections, and tells when there is none.
#[derive(Default)]
pub struct Connections {
    open: AtomicUsize,
    none_left: Notify,
}

/// A connection; ends when dropped, even by a panic.
#[must_use = "the connection ends when this is dropped"]
pub struct OpenConnection<'c> {
    connections: &'c Connections,
    gauge: Option<IntGauge>,
}

impl OpenConnection<'_> {
    /// Counts the connection in its listener's gauge too.
    pub fn shown_in(mut self, gauge: IntGauge) -> Self {
        gauge.inc();
        self.gauge = Some(gauge);
        self
    }
}

impl Connections {
    /// Counts a connection in, unless there are `most` already. Whoever serves it has to [`adopt`](Self::adopt) it.
    pub fn enter(&self, most: usize) -> bool {
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < most).then_some(open + 1)).is_ok()
    }

    /// A connection that was counted in already.
    pub fn adopt(&self) -> OpenConnection<'_> {
        OpenConnection { connections: self, gauge: None }
    }

    /// Open connections.
    pub fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Resolves when no connection is open.
    pub async fn none_left(&self) {
        loop {
            let notified = self.none_left.notified();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        if let Some(gauge) = &self.gauge {
            gauge.dec();
        }
        if self.connections.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.connections.none_left.notify_waiters();
        }
    }
}

/// Whether load balancers should send requests here.
#[derive(Default)]
pub struct Readiness {
    ready: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// Listeners are open and a configuration is in force.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// The process is on its way out; there is no way back.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Listeners are not open yet.
    pub fn is_starting(&self) -> bool {
        !self.ready.load(Ordering::Acquire)
    }

    /// Why not, if not.
    pub fn refusal(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Acquire) {
            Some("draining")
        } else if self.ready.load(Ordering::Acquire) {
            None
        } else {
            Some("starting")
        }
    }
}
