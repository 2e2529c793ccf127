//! Metrics of upstreams: how the gateway signs in, and what their endpoints are like. What changes is counted, what is so is
//! looked up when the metrics are gathered.

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::metrics::{AUTH_EVENTS, Metrics, registered};
use crate::upstream::{Upstream, breaker::Phase, watch::Event};

/// The metrics of how the gateway signs in at one upstream.
#[derive(Clone)]
pub struct AuthMetrics {
    /// Tokens that a provider gave.
    pub fetched: IntCounter,
    /// Questions to a provider that brought none.
    pub failed: IntCounter,
    /// Answers of the upstream that say that it does not take a token.
    pub rejected: IntCounter,
    /// Requests that were answered because there was no token.
    pub missing: IntCounter,
}

/// The metrics of what is watched at the endpoints of one upstream.
#[derive(Clone)]
pub struct WatchMetrics {
    /// Changes, by the number of the event.
    pub events: [IntCounter; Event::NAMES.len()],
    succeeded: IntCounter,
    failed: IntCounter,
}

impl WatchMetrics {
    /// Counts a probe.
    pub fn probed(&self, succeeded: bool) {
        if succeeded { self.succeeded.inc() } else { self.failed.inc() }
    }
}

const PROBES: [&str; 2] = ["ok", "failed"];

/// Counters of what changes, and gauges with a series for each endpoint of the configuration in force.
pub(super) struct EndpointMetrics {
    events: IntCounterVec,
    probes: IntCounterVec,
    healthy: IntGaugeVec,
    ejected: IntGaugeVec,
    circuit: IntGaugeVec,
    /// Held while the gauges are set and gathered.
    gathering: Mutex<()>,
}

/// What an endpoint is like, as far as it is watched; or the circuit of an upstream as a whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EndpointNow {
    upstream: String,
    /// Its address; `-` for the upstream as a whole.
    endpoint: String,
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
        if watch.health.is_none() && watch.outlier.is_none() && watch.breaker.is_none() {
            return all;
        }
        for endpoint in upstream.pool.endpoints() {
            let shown = endpoint.state.shown(now);
            all.push(Self {
                upstream: name.clone(),
                endpoint: endpoint.address.to_string(),
                healthy: shown.health.map(|health| health.state != "unhealthy"),
                ejected: watch.outlier.as_ref().map(|_| shown.ejected.is_some()),
                circuit: shown.circuit.map(|circuit| circuit.phase),
            });
        }
        all
    }
}

impl EndpointMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str, label| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), &["upstream", label]))
        };
        let gauges = |name: &str, help: &str| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), &["upstream", "endpoint"]))
        };
        Self {
            events: counters(
                "crossway_endpoint_events_total",
                "Endpoints and circuits that have changed their state.",
                "event",
            ),
            probes: counters("crossway_health_probes_total", "Probes of endpoints.", "result"),
            healthy: gauges("crossway_endpoint_healthy", "1 while probes leave the endpoint in use, else 0."),
            ejected: gauges(
                "crossway_endpoint_ejected",
                "1 while the endpoint is ejected because its answers failed, else 0.",
            ),
            circuit: gauges(
                "crossway_circuit_state",
                "0 while the circuit is closed, 1 while it is half-open, 2 while it is open.",
            ),
            gathering: Mutex::new(()),
        }
    }

    /// Drops the series of an upstream.
    pub(super) fn forget(&self, upstream: &str) {
        for event in Event::NAMES {
            let _ = self.events.remove_label_values(&[upstream, event]);
        }
        for result in PROBES {
            let _ = self.probes.remove_label_values(&[upstream, result]);
        }
    }

    /// Shows these and no others.
    fn show(&self, endpoints: &[EndpointNow]) {
        for gauge in [&self.healthy, &self.ejected, &self.circuit] {
            gauge.reset();
        }
        for now in endpoints {
            let labels = [now.upstream.as_str(), now.endpoint.as_str()];
            let set = |gauge: &IntGaugeVec, value: Option<i64>| {
                if let Some(value) = value {
                    gauge.with_label_values(&labels).set(value);
                }
            };
            set(&self.healthy, now.healthy.map(i64::from));
            set(&self.ejected, now.ejected.map(i64::from));
            set(&self.circuit, now.circuit.map(|phase| phase as i64));
        }
    }
}

impl Metrics {
    /// The handles of what is watched at the endpoints of one upstream.
    pub fn watch(&self, upstream: &str) -> WatchMetrics {
        let [succeeded, failed] = PROBES.map(|result| self.endpoints.probes.with_label_values(&[upstream, result]));
        let events = Event::NAMES.map(|event| self.endpoints.events.with_label_values(&[upstream, event]));
        WatchMetrics { events, succeeded, failed }
    }

    /// The handles of how the gateway signs in at one upstream.
    pub fn upstream_auth(&self, name: &str) -> AuthMetrics {
        let [fetched, failed, rejected, missing] =
            AUTH_EVENTS.map(|event| self.upstream_auth.with_label_values(&[name, event]));
        AuthMetrics { fetched, failed, rejected, missing }
    }

    /// The exposition text with what these endpoints are like now, and no others.
    pub fn render_with(&self, endpoints: &[EndpointNow]) -> Vec<u8> {
        let _one_at_a_time = self.endpoints.gathering.lock();
        self.endpoints.show(endpoints);
        self.render()
    }
}
