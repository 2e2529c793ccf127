//! The metrics of how many requests upstreams have and may have.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::metrics::registered;

const EVENTS: [&str; 3] = ["queued", "full", "late"];

/// How many requests upstreams have, and how many found no place.
pub(super) struct Bulkheads {
    in_flight: IntGaugeVec,
    waiting: IntGaugeVec,
    events: IntCounterVec,
}

/// The counters of one upstream's bulkhead.
#[derive(Clone)]
pub struct BulkheadMetrics {
    /// Requests that waited for a place and got one.
    pub queued: IntCounter,
    /// Requests that found no place, nor one in the queue.
    pub full: IntCounter,
    /// Requests that waited in vain.
    pub late: IntCounter,
}

/// What one upstream has now; written when somebody looks.
#[derive(Clone)]
pub struct LoadMetrics {
    /// Requests there.
    pub in_flight: IntGauge,
    /// Requests that wait for a place.
    pub waiting: IntGauge,
}

impl Bulkheads {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauges =
            |name: &str, help: &str| registered(registry, IntGaugeVec::new(Opts::new(name, help), &["upstream"]));
        Self {
            in_flight: gauges("crossway_upstream_in_flight", "Requests that an upstream has now."),
            waiting: gauges("crossway_upstream_waiting", "Requests that wait for a place at an upstream now."),
            events: registered(
                registry,
                IntCounterVec::new(
                    Opts::new("crossway_upstream_queue_total", "Requests that found all places of an upstream taken."),
                    &["upstream", "event"],
                ),
            ),
        }
    }

    pub(super) fn of(&self, upstream: &str) -> BulkheadMetrics {
        let [queued, full, late] = EVENTS.map(|event| self.events.with_label_values(&[upstream, event]));
        BulkheadMetrics { queued, full, late }
    }

    pub(super) fn load(&self, upstream: &str) -> LoadMetrics {
        LoadMetrics {
            in_flight: self.in_flight.with_label_values(&[upstream]),
            waiting: self.waiting.with_label_values(&[upstream]),
        }
    }

    pub(super) fn forget(&self, upstream: &str) {
        let _ = self.in_flight.remove_label_values(&[upstream]);
        let _ = self.waiting.remove_label_values(&[upstream]);
        for event in EVENTS {
            let _ = self.events.remove_label_values(&[upstream, event]);
        }
    }
}
