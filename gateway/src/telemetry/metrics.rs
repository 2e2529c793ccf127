//! Every metric, by name. Handles are resolved once, when a configuration is compiled; labels come from closed sets.

mod upstreams;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crossway_plugin_api::MetricsScope;
use parking_lot::Mutex;
use prometheus::{
    Encoder, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use self::upstreams::{AuthMetrics, UpstreamMetrics};
use super::{
    bulkheads::Bulkheads, endpoints::EndpointGauges, pressure::PressureMetrics, routes::CLASSES, shown::Shown,
};
pub use super::{
    bulkheads::{BulkheadMetrics, LoadMetrics},
    endpoints::{EndpointNow, WatchMetrics},
    listeners::{Expiry, HandshakeMetrics, ListenerMetrics, Unwelcome},
    routes::RouteMetrics,
};

/// Route label of requests that no route has taken.
pub const NO_ROUTE: &str = "-";
const REQUEST_SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const GATEWAY_SECONDS: [f64; 11] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 1.0];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    gateway_seconds: HistogramVec,
    upstream_seconds: HistogramVec,
    attempts: IntCounterVec,
    retries: IntCounterVec,
    withheld: IntCounterVec,
    fallbacks: IntCounterVec,
    upstream_auth: IntCounterVec,
    endpoint_events: IntCounterVec,
    probes: IntCounterVec,
    /// What endpoints are like while the metrics are gathered.
    endpoints: EndpointGauges,
    bulkheads: Bulkheads,
    connections: IntGaugeVec,
    accepted: IntCounterVec,
    unwelcome: IntCounterVec,
    handshakes: IntCounterVec,
    certificates: Shown,
    refused: IntCounterVec,
    faults: IntCounterVec,
    plugin_faults: IntCounterVec,
    /// What plugins count.
    pub plugin_events: MetricsScope,
    reloads: IntCounterVec,
    compressed: IntCounterVec,
    config_info: IntGaugeVec,
    last_reload: Gauge,
    generation: IntGauge,
    /// Failures of stores: of the file, and of the server.
    pub store_errors: IntCounterVec,
    /// Whether the server answers.
    pub store_up: IntGaugeVec,
    /// API keys that were issued, those that have ended included.
    pub issued_keys: IntGauge,
    /// What is known of memory.
    pub pressure: PressureMetrics,
    /// Requests being served now.
    pub in_flight: IntGauge,
    /// Access log lines that were lost.
    pub access_log_dropped: IntCounter,
    /// Audit records that were lost.
    pub audit_log_dropped: IntCounter,
    /// Panics caught in the request path.
    pub panics: IntCounter,
}

/// Registers what was made; two metrics of one name are a defect that the first test of this module shows.
pub(super) fn registered<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let collector = made.expect("the names and labels below are valid");
    registry.register(Box::new(collector.clone())).expect("every name below is given once");
    collector
}

impl Metrics {
    /// A fresh set, all zero.
    #[expect(clippy::too_many_lines, reason = "the one list of every metric's name")]
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let r = &registry;
        let counter = |name: &str, help: &str| registered(r, IntCounter::new(name, help));
        let counters =
            |name: &str, help: &str, labels: &[&str]| registered(r, IntCounterVec::new(Opts::new(name, help), labels));
        let gauge = |name: &str, help: &str| registered(r, IntGauge::new(name, help));
        let time = |name: &str, help: &str| registered(r, Gauge::new(name, help));
        let gauges =
            |name: &str, help: &str, labels: &[&str]| registered(r, IntGaugeVec::new(Opts::new(name, help), labels));
        let shown = |name: &str, help: &str, labels: [&'static str; 2]| Shown::new(gauges(name, help, &labels), labels);
        let seconds = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            registered(r, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
        };
        let metrics = Self {
            requests: counters("crossway_requests_total", "Requests answered.", &["route", "class"]),
            request_seconds: seconds(
                "crossway_request_duration_seconds",
                "From the request header to the end of the response.",
                &["route", "class"],
                &REQUEST_SECONDS,
            ),
            gateway_seconds: seconds(
                "crossway_gateway_duration_seconds",
                "The part of a request's time until its response header that was not spent waiting for an upstream.",
                &["route"],
                &GATEWAY_SECONDS,
            ),
            upstream_seconds: seconds(
                "crossway_upstream_duration_seconds",
                "From an attempt's start to the upstream's response header.",
                &["upstream"],
                &REQUEST_SECONDS,
            ),
            attempts: counters(
                "crossway_upstream_attempts_total",
                "Attempts to send a request to an endpoint.",
                &["upstream", "result"],
            ),
            retries: counters(
                "crossway_upstream_retries_total",
                "Attempts made again, by what the one before came to.",
                &["upstream", "reason"],
            ),
            withheld: counters(
                "crossway_upstream_retries_withheld_total",
                "Attempts not made again although the rules ask for it.",
                &["upstream", "reason"],
            ),
            fallbacks: counters(
                "crossway_fallbacks_total",
                "Failures of an upstream that a route's fallback has taken the place of.",
                &["route", "reason"],
            ),
            upstream_auth: counters(
                "crossway_upstream_auth_total",
                "Tokens that the gateway has got for itself, and what became of them.",
                &["upstream", "event"],
            ),
            endpoint_events: counters(
                "crossway_endpoint_events_total",
                "Endpoints and circuits that have changed their state.",
                &["upstream", "event"],
            ),
            probes: counters("crossway_health_probes_total", "Probes of endpoints.", &["upstream", "result"]),
            endpoints: EndpointGauges {
                in_flight: gauges(
                    "crossway_endpoint_requests_in_flight",
                    "Requests at an endpoint now.",
                    &["upstream", "endpoint"],
                ),
                healthy: gauges(
                    "crossway_endpoint_healthy",
                    "1 while probes leave the endpoint in use, else 0.",
                    &["upstream", "endpoint"],
                ),
                ejected: gauges(
                    "crossway_endpoint_ejected",
                    "1 while the endpoint is ejected because its answers failed, else 0.",
                    &["upstream", "endpoint"],
                ),
                circuit: gauges(
                    "crossway_circuit_state",
                    "0 while the circuit is closed, 1 while it is half-open, 2 while it is open.",
                    &["upstream", "endpoint"],
                ),
                gathering: Mutex::new(()),
            },
            bulkheads: Bulkheads::new(r),
            connections: gauges("crossway_connections", "Open client connections.", &["listener"]),
            accepted: counters("crossway_connections_total", "Client connections accepted.", &["listener"]),
            unwelcome: counters(
                "crossway_connections_refused_total",
                "Client connections closed before their first request.",
                &["listener", "reason"],
            ),
            handshakes: counters(
                "crossway_tls_handshakes_total",
                "TLS handshakes of clients that ended.",
                &["listener", "result"],
            ),
            certificates: shown(
                "crossway_tls_certificate_expiry_timestamp_seconds",
                "When a certificate of a listener ends to be valid.",
                ["listener", "certificate"],
            ),
            refused: counters(
                "crossway_refused_total",
                "Requests refused before a route was chosen, malformed ones among them.",
                &["code"],
            ),
            faults: counters("crossway_faults_total", "Requests that ended in a fault.", &["code"]),
            plugin_faults: counters(
                "crossway_plugin_faults_total",
                "Faults of plugins, those that on_error let pass among them.",
                &["plugin", "on_error"],
            ),
            plugin_events: MetricsScope::new(counters(
                "crossway_plugin_events_total",
                "Events in plugins: what they fetched, found and refused.",
                &["plugin", "event"],
            ))
            .with_levels(gauges("crossway_plugin_level", "What plugins hold now.", &["plugin", "level"])),
            reloads: counters("crossway_config_reloads_total", "Reloads of the configuration.", &["result"]),
            compressed: counters(
                "crossway_compressed_responses_total",
                "Responses that the gateway compressed.",
                &["algorithm"],
            ),
            config_info: gauges("crossway_config_info", "1 for the configuration in force.", &["hash"]),
            last_reload: time(
                "crossway_config_last_reload_timestamp_seconds",
                "When the configuration in force was put in force.",
            ),
            generation: gauge("crossway_config_generation", "Number of the configuration in force, counted from 1."),
            store_errors: counters("crossway_store_errors_total", "Exchanges with a store that failed.", &["store"]),
            store_up: gauges(
                "crossway_store_up",
                "1 while a store answers, 0 while it is known to be down.",
                &["store"],
            ),
            issued_keys: gauge("crossway_issued_keys", "API keys that were issued, those that have ended included."),
            pressure: PressureMetrics::new(r),
            in_flight: gauge("crossway_requests_in_flight", "Requests being served now."),
            access_log_dropped: counter("crossway_access_log_dropped_total", "Access log lines that were lost."),
            audit_log_dropped: counter("crossway_audit_log_dropped_total", "Audit records that were lost."),
            panics: counter("crossway_panics_total", "Panics caught in the request path."),
            registry: registry.clone(),
        };
        for result in ["ok", "error"] {
            metrics.reloads.with_label_values(&[result]);
        }
        let build = gauges("crossway_build_info", "1 for this build.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        time("crossway_start_timestamp_seconds", "When the process started.").set(now());
        Arc::new(metrics)
    }

    /// The handles of one route.
    pub fn route(&self, name: &str) -> RouteMetrics {
        RouteMetrics {
            requests: CLASSES.map(|class| self.requests.with_label_values(&[name, class])),
            seconds: CLASSES.map(|class| self.request_seconds.with_label_values(&[name, class])),
            gateway: self.gateway_seconds.with_label_values(&[name]),
        }
    }

    /// The handles of one listener.
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        let handshakes = |result| self.handshakes.with_label_values(&[name, result]);
        ListenerMetrics {
            open: self.connections.with_label_values(&[name]),
            accepted: self.accepted.with_label_values(&[name]),
            unwelcome: Unwelcome::ALL.map(|(_, reason)| self.unwelcome.with_label_values(&[name, reason])),
            handshakes: HandshakeMetrics {
                full: handshakes("full"),
                resumed: handshakes("resumed"),
                failed: handshakes("failed"),
                timeout: handshakes("timeout"),
            },
        }
    }

    /// Shows the certificates of the configuration in force, and no others.
    pub fn certificates(&self, in_force: &[Expiry<'_>]) {
        let all: Vec<_> = in_force.iter().map(|e| ([e.listener, e.certificate.as_str()], e.not_after)).collect();
        self.certificates.show(&all);
    }

    /// Counts a request refused before a route was chosen. `code` comes from a closed set in the source.
    pub fn refused(&self, code: &'static str) {
        self.refused.with_label_values(&[code]).inc();
    }

    /// Counts a request that ended in a fault.
    pub fn fault(&self, code: &'static str) {
        self.faults.with_label_values(&[code]).inc();
    }

    /// Counts a fault of a plugin; `allowed` when its `on_error` let the request pass.
    pub fn plugin_fault(&self, plugin: &'static str, allowed: bool) {
        let policy = if allowed { "allow" } else { "reject" };
        self.plugin_faults.with_label_values(&[plugin, policy]).inc();
    }

    /// The count of responses compressed with an algorithm, whose names are a closed set.
    pub fn compressed(&self, algorithm: &'static str) -> IntCounter {
        self.compressed.with_label_values(&[algorithm])
    }

    /// A configuration is in force.
    pub fn config_applied(&self, generation: u64, hash: &str) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.config_info.reset();
        self.config_info.with_label_values(&[hash]).set(1);
        self.last_reload.set(now());
    }

    /// A reload ended.
    pub fn reloaded(&self, ok: bool) {
        self.reloads.with_label_values(&[if ok { "ok" } else { "error" }]).inc();
    }

    /// Drops the series of names that the configuration in force does not have, whoever made them: a name that only a
    /// refused configuration had, or one that was given up, does not stay for ever.
    pub fn keep_only(&self, names: &Names) {
        for family in self.registry.gather() {
            for metric in family.get_metric() {
                for pair in metric.get_label() {
                    self.forget_unless(names, pair.name(), pair.value());
                }
            }
        }
    }

    fn forget_unless(&self, names: &Names, label: &str, value: &str) {
        match label {
            "route" if !names.routes.contains(value) && value != NO_ROUTE => {
                let _ = self.gateway_seconds.remove_label_values(&[value]);
                self.forget_fallbacks(value);
                for class in CLASSES {
                    let _ = self.requests.remove_label_values(&[value, class]);
                    let _ = self.request_seconds.remove_label_values(&[value, class]);
                }
            }
            "upstream" if !names.upstreams.contains(value) => self.forget_upstream(value),
            "listener" if !names.listeners.contains(value) => {
                let _ = self.connections.remove_label_values(&[value]);
                let _ = self.accepted.remove_label_values(&[value]);
                for (_, reason) in Unwelcome::ALL {
                    let _ = self.unwelcome.remove_label_values(&[value, reason]);
                }
                for result in ["full", "resumed", "failed", "timeout"] {
                    let _ = self.handshakes.remove_label_values(&[value, result]);
                }
            }
            _ => {}
        }
    }

    /// The same, with what these endpoints are like now, and no others.
    pub fn render_with(&self, endpoints: &[EndpointNow]) -> Vec<u8> {
        let _one_at_a_time = self.endpoints.gathering.lock();
        self.endpoints.show(endpoints);
        self.render()
    }

    /// The exposition text (Prometheus text format 0.0.4).
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }
}

/// The names that labels may have.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Route names.
    pub routes: HashSet<String>,
    /// Upstream names.
    pub upstreams: HashSet<String>,
    /// Listener names.
    pub listeners: HashSet<String>,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::config::fallback::FallbackOn;

    #[test]
    fn a_route_that_is_gone_leaves_no_series() {
        let metrics = Metrics::new();
        metrics.route("old").record(Some(StatusCode::OK), Duration::from_millis(2), Some(Duration::from_millis(1)));
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(text.contains(r#"crossway_requests_total{class="2xx",route="old"} 1"#), "{text}");
        metrics.listener("old").open.inc();
        metrics.upstream("old").answered.inc();
        metrics.fallback("old", FallbackOn::STATUS).inc();
        metrics.fallback("old", FallbackOn::Timeout.name()).inc();
        metrics.upstream_auth("old").fetched.inc();
        metrics.watch("old").probed(true);
        metrics.keep_only(&Names { routes: ["new".to_owned()].into(), ..Names::default() });
        assert!(!String::from_utf8(metrics.render()).unwrap().contains("old"));
    }
}
