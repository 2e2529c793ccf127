//! Metrics of endpoints: what changes is counted, what is so is looked up when the metrics are gathered.

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGaugeVec};

use crate::upstream::{Upstream, breaker::Phase, watch::Event};

/// The metrics of what is watched at the endpoints of one upstream.
#[derive(Clone)]
pub struct WatchMetrics {
    /// Changes, by the number of the event.
    pub events: [IntCounter; Event::NAMES.len()],
    pub(super) succeeded: IntCounter,
    pub(super) failed: IntCounter,
}

impl WatchMetrics {
    /// Counts a probe.
    pub fn probed(&self, succeeded: bool) {
        if succeeded { self.succeeded.inc() } else { self.failed.inc() }
    }
}

/// Gauges with a series for each endpoint of the configuration in force.
pub(super) struct EndpointGauges {
    pub(super) in_flight: IntGaugeVec,
    pub(super) healthy: IntGaugeVec,
    pub(super) ejected: IntGaugeVec,
    pub(super) circuit: IntGaugeVec,
    /// Held while they are set and gathered.
    pub(super) gathering: Mutex<()>,
}

/// What an endpoint is like, its state as far as that is watched; or the circuit of an upstream as a whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EndpointNow {
    upstream: String,
    /// Its address; `-` for the upstream as a whole.
    endpoint: String,
    in_flight: Option<usize>,
    healthy: Option<bool>,
    ejected: Option<bool>,
    circuit: Option<Phase>,
}

impl EndpointNow {
    /// What the endpoints of an upstream are like.
    pub fn of(upstream: &Upstream) -> Vec<Self> {
        let (name, watch) = (upstream.name.to_string(), &upstream.watch);
        let now = std::time::Instant::now();
        let mut all: Vec<Self> = Vec::new();
        if let Some(circuit) = &watch.whole {
            let circuit = Some(circuit.shown().phase);
            all.push(Self { upstream: name.clone(), endpoint: "-".into(), circuit, ..Self::default() });
        }
        for endpoint in upstream.pool.endpoints() {
            let shown = endpoint.state.shown(now);
            all.push(Self {
                upstream: name.clone(),
                endpoint: endpoint.address.to_string(),
                in_flight: Some(endpoint.state.in_flight()),
                healthy: shown.health.map(|health| health.state != "unhealthy"),
                ejected: watch.outlier.as_ref().map(|_| shown.ejected.is_some()),
                circuit: shown.circuit.map(|circuit| circuit.phase),
            });
        }
        all
    }
}

impl EndpointGauges {
    /// Shows these and no others.
    pub(super) fn show(&self, endpoints: &[EndpointNow]) {
        for gauge in [&self.in_flight, &self.healthy, &self.ejected, &self.circuit] {
            gauge.reset();
        }
        for now in endpoints {
            let labels = [now.upstream.as_str(), now.endpoint.as_str()];
            let set = |gauge: &IntGaugeVec, value: Option<i64>| {
                if let Some(value) = value {
                    gauge.with_label_values(&labels).set(value);
                }
            };
            set(&self.in_flight, now.in_flight.map(|count| i64::try_from(count).unwrap_or(i64::MAX)));
            set(&self.healthy, now.healthy.map(i64::from));
            set(&self.ejected, now.ejected.map(i64::from));
            set(&self.circuit, now.circuit.map(|phase| phase as i64));
        }
    }
}
