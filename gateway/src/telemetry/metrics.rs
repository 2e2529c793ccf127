//! Every metric, by name. Handles are resolved once, when a configuration is compiled; labels come from closed sets.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crossway_plugin_api::MetricsScope;
use http::StatusCode;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector as _,
};

use super::upstreams::EndpointMetrics;
pub use super::{
    listeners::{Expiry, HandshakeMetrics, ListenerMetrics, Unwelcome},
    upstreams::{AuthMetrics, EndpointNow, WatchMetrics},
};

/// Route label of requests that no route has taken.
pub const NO_ROUTE: &str = "-";
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];
pub(super) const AUTH_EVENTS: [&str; 4] = ["fetched", "failed", "rejected", "missing"];
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
    pub(super) upstream_auth: IntCounterVec,
    /// What is watched at endpoints.
    pub(super) endpoints: EndpointMetrics,
    connections: IntGaugeVec,
    accepted: IntCounterVec,
    unwelcome: IntCounterVec,
    handshakes: IntCounterVec,
    certificates: IntGaugeVec,
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
    /// API keys that were issued, those that have ended included.
    pub issued_keys: IntGauge,
    /// Requests being served now.
    pub in_flight: IntGauge,
    /// Access log lines that were lost.
    pub access_log_dropped: IntCounter,
    /// Audit records that were lost.
    pub audit_log_dropped: IntCounter,
    /// Panics caught in the request path.
    pub panics: IntCounter,
}

/// The metrics of one route.
#[derive(Clone)]
pub struct RouteMetrics {
    requests: [IntCounter; CLASSES.len()],
    seconds: [Histogram; CLASSES.len()],
    gateway: Histogram,
}

/// The metrics of one upstream.
#[derive(Clone)]
pub struct UpstreamMetrics {
    /// Seconds from the request sent to the response header.
    pub seconds: Histogram,
    /// Attempts that brought a response.
    pub answered: IntCounter,
    /// Attempts that did not.
    pub failed: IntCounter,
    /// Attempts made again after a failure.
    pub retried: IntCounter,
}

fn class_of(status: Option<StatusCode>) -> usize {
    match status.map(|s| s.as_u16() / 100) {
        Some(class @ 1..=5) => usize::from(class) - 1,
        _ => CLASSES.len() - 1,
    }
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
        let gauges =
            |name: &str, help: &str, labels: &[&str]| registered(r, IntGaugeVec::new(Opts::new(name, help), labels));
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
            upstream_auth: counters(
                "crossway_upstream_auth_total",
                "Tokens that the gateway has got for itself, and what became of them.",
                &["upstream", "event"],
            ),
            endpoints: EndpointMetrics::new(r),
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
            certificates: gauges(
                "crossway_tls_certificate_expiry_timestamp_seconds",
                "When a certificate of a listener ends to be valid.",
                &["listener", "certificate"],
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
            )),
            reloads: counters("crossway_config_reloads_total", "Reloads of the configuration.", &["result"]),
            compressed: counters(
                "crossway_compressed_responses_total",
                "Responses that the gateway compressed.",
                &["algorithm"],
            ),
            config_info: gauges("crossway_config_info", "1 for the configuration in force.", &["hash"]),
            last_reload: registered(
                r,
                Gauge::new(
                    "crossway_config_last_reload_timestamp_seconds",
                    "When the configuration in force was put in force.",
                ),
            ),
            generation: registered(
                r,
                IntGauge::new("crossway_config_generation", "Number of the configuration in force, counted from 1."),
            ),
            store_errors: counters("crossway_store_errors_total", "Exchanges with a store that failed.", &["store"]),
            issued_keys: registered(
                r,
                IntGauge::new("crossway_issued_keys", "API keys that were issued, those that have ended included."),
            ),
            in_flight: registered(r, IntGauge::new("crossway_requests_in_flight", "Requests being served now.")),
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
        let started = registered(r, Gauge::new("crossway_start_timestamp_seconds", "When the process started."));
        started.set(now());
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

    /// The handles of one upstream.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        let attempts = |result| self.attempts.with_label_values(&[name, result]);
        UpstreamMetrics {
            seconds: self.upstream_seconds.with_label_values(&[name]),
            answered: attempts("answered"),
            failed: attempts("failed"),
            retried: attempts("retried"),
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
        for expiry in in_force {
            self.certificates.with_label_values(&[expiry.listener, &expiry.certificate]).set(expiry.not_after);
        }
        for family in self.certificates.collect() {
            for metric in family.get_metric() {
                let label = |name| metric.get_label().iter().find(|pair| pair.name() == name).map_or("", |p| p.value());
                let (listener, certificate) = (label("listener"), label("certificate"));
                if !in_force.iter().any(|e| (e.listener, e.certificate.as_str()) == (listener, certificate)) {
                    let _ = self.certificates.remove_label_values(&[listener, certificate]);
                }
            }
        }
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
                for class in CLASSES {
                    let _ = self.requests.remove_label_values(&[value, class]);
                    let _ = self.request_seconds.remove_label_values(&[value, class]);
                }
            }
            "upstream" if !names.upstreams.contains(value) => {
                let _ = self.upstream_seconds.remove_label_values(&[value]);
                for result in ["answered", "failed", "retried"] {
                    let _ = self.attempts.remove_label_values(&[value, result]);
                }
                for event in AUTH_EVENTS {
                    let _ = self.upstream_auth.remove_label_values(&[value, event]);
                }
                self.endpoints.forget(value);
            }
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

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_is_gone_leaves_no_series() {
        let metrics = Metrics::new();
        metrics.route("old").record(Some(StatusCode::OK), Duration::from_millis(2), Some(Duration::from_millis(1)));
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(text.contains(r#"crossway_requests_total{class="2xx",route="old"} 1"#), "{text}");
        metrics.listener("old").open.inc();
        metrics.upstream("old").answered.inc();
        metrics.upstream_auth("old").fetched.inc();
        metrics.watch("old").probed(true);
        metrics.keep_only(&Names { routes: ["new".to_owned()].into(), ..Names::default() });
        assert!(!String::from_utf8(metrics.render()).unwrap().contains("old"));
    }
}
