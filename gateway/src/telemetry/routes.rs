//! The metrics of routes.

use std::time::Duration;

use http::StatusCode;
use prometheus::{Histogram, IntCounter};

pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// The metrics of one route.
#[derive(Clone)]
pub struct RouteMetrics {
    pub(super) requests: [IntCounter; CLASSES.len()],
    pub(super) seconds: [Histogram; CLASSES.len()],
    pub(super) gateway: Histogram,
}

fn class_of(status: Option<StatusCode>) -> usize {
    match status.map(|s| s.as_u16() / 100) {
        Some(class @ 1..=5) => usize::from(class) - 1,
        _ => CLASSES.len() - 1,
    }
}

impl RouteMetrics {
    /// Counts one request: `upstream` is the part of `total` spent waiting for upstreams; `None` if the header never left.
    pub fn record(&self, status: Option<StatusCode>, total: Duration, gateway: Option<Duration>) {
        let class = class_of(status);
        self.requests[class].inc();
        self.seconds[class].observe(total.as_secs_f64());
        if let Some(gateway) = gateway {
            self.gateway.observe(gateway.as_secs_f64());
        }
    }
}
