//! What is watched at the endpoints of an upstream, and what follows from it.

use std::collections::BTreeMap;

use crossway_plugin_api::config::{FieldValue, HumanDuration, Percent, StatusSet};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Probes of each endpoint: exactly one of `http` and `tcp`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// A request, and what must come of it.
    pub http: Option<HttpCheck>,
    /// A connection, with the TLS handshake where the upstream has `tls`; nothing is sent.
    pub tcp: Option<TcpCheck>,
    /// From the beginning of one probe to that of the next; 100ms to 1h.
    pub interval: HumanDuration,
    /// The same while the endpoint is unhealthy. Default: `interval`.
    pub unhealthy_interval: Option<HumanDuration>,
    /// Time for one probe, connection included; at most the shorter interval. Default: 2s, or the interval if that is
    /// shorter.
    pub timeout: Option<HumanDuration>,
    /// Up to this share of the interval is added by chance, so that gateways and endpoints do not keep step; at most 50%.
    pub jitter: Percent,
    /// Failures in a row that make an endpoint unhealthy. A new endpoint counts as healthy until then.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_after: u32,
    /// Successes in a row that make an endpoint healthy again.
    #[schemars(range(min = 1, max = 100))]
    pub healthy_after: u32,
    /// Another port to probe. Default: the endpoint's own.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            http: None,
            tcp: None,
            interval: HumanDuration::from_secs(5),
            unhealthy_interval: None,
            timeout: None,
            jitter: Percent(10),
            unhealthy_after: 3,
            healthy_after: 2,
            port: None,
        }
    }
}

/// A request, and what must come of it. It goes out with the TLS and the version of HTTP that the upstream has, past the
/// plugins, and without what the gateway signs in with.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// Path, and query if any.
    #[schemars(length(min = 1, max = 2048))]
    pub path: String,
    /// What `Host` says. Default: the endpoint's host and port as configured.
    #[schemars(length(min = 1, max = 255))]
    pub host: Option<String>,
    /// Method. Default `GET`.
    #[serde(default = "get")]
    pub method: String,
    /// More fields of the header.
    #[serde(default)]
    pub headers: BTreeMap<String, FieldValue>,
    /// Statuses of a healthy endpoint: one code, class or range, or a list of them. Default `2xx`.
    #[serde(default)]
    pub expect: Statuses,
}

fn get() -> String {
    "GET".to_owned()
}

/// A connection; it has no settings of its own.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {}

/// One set of statuses, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(pub Vec<StatusSet>);

impl Default for Statuses {
    fn default() -> Self {
        Self(StatusSet::parse("2xx").into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = match serde_json::Value::deserialize(deserializer)? {
            list @ serde_json::Value::Array(_) => list,
            one => serde_json::Value::Array(vec![one]),
        };
        serde_json::from_value(value).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Statuses {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Statuses".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["integer", "string", "array"], "format": StatusSet::FORMAT, "minimum": 100, "maximum": 599,
            "minItems": 1, "maxItems": 32,
            "items": { "type": ["integer", "string"], "format": StatusSet::FORMAT, "minimum": 100, "maximum": 599 },
            "description": "A status code, class or range, or a list of them.", "examples": ["2xx"],
        })
    }
}

/// The statuses of a gateway that did not get an answer.
fn of_gateways() -> Statuses {
    Statuses(StatusSet::parse("502-504").into_iter().collect())
}

/// Takes an endpoint out for a while whose answers fail. Failures are: no connection, a connection that breaks, no answer
/// in time, an answer that is not HTTP, and the statuses below. What the client or its deadline ends is none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outlier {
    /// Failures in a row that eject an endpoint.
    #[schemars(range(min = 1, max = 1000))]
    pub consecutive_failures: u32,
    /// Share of failures within `window` that ejects an endpoint, more than 0, at most 1. Default: none does.
    #[schemars(range(min = 0.001, max = 1.0))]
    pub error_ratio: Option<f64>,
    /// Answers within `window` below which no share counts. Default 20; only beside `error_ratio`.
    #[schemars(range(min = 1, max = 5000))]
    pub min_requests: Option<u32>,
    /// What `error_ratio` looks at, 100ms to 1h. Default 10s; only beside `error_ratio`.
    pub window: Option<HumanDuration>,
    /// An answer whose header takes longer than this once the whole request was sent is a failure. Default: none is.
    pub latency: Option<HumanDuration>,
    /// Statuses that are failures: one code, class or range, or a list of them.
    pub statuses: Statuses,
    /// How long the first ejection lasts, 100ms to 1h. Each further one lasts as much longer.
    pub eject_for: HumanDuration,
    /// Longest ejection, at most 24h. Default 5m, or `eject_for` if that is longer.
    pub max_eject_for: Option<HumanDuration>,
    /// Share of the endpoints that may be ejected at a time, rounded down; one of two or more always may. The last one that
    /// can be used is ejected only with `100%`.
    pub max_ejected: Percent,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            error_ratio: None,
            min_requests: None,
            window: None,
            latency: None,
            statuses: of_gateways(),
            eject_for: HumanDuration::from_secs(30),
            max_eject_for: None,
            max_ejected: Percent(50),
        }
    }
}

/// What a circuit breaker guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Guarded {
    /// The upstream as a whole.
    #[default]
    Upstream,
    /// Each endpoint by itself; the others serve on.
    Endpoint,
}

/// Stops sending to what fails, for a while, and then tries again with a few requests. Failures are those of `outlier`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreaker {
    /// What it guards.
    pub per: Guarded,
    /// What the ratios look at; 100ms to 1h.
    pub window: HumanDuration,
    /// Answers within `window` below which no ratio counts.
    #[schemars(range(min = 1, max = 5000))]
    pub min_requests: u32,
    /// Share of failures that opens the circuit, more than 0, at most 1.
    #[schemars(range(min = 0.001, max = 1.0))]
    pub error_ratio: f64,
    /// Failures in a row that open it. Default: none do.
    #[schemars(range(min = 1, max = 1000))]
    pub consecutive: Option<u32>,
    /// Slow answers open it too. Default: they do not.
    pub slow: Option<Slow>,
    /// Statuses that are failures: one code, class or range, or a list of them.
    pub statuses: Statuses,
    /// How long it stays open, 100ms to 1h.
    pub open_for: HumanDuration,
    /// Requests that are let through at a time once that is over. As many successes close the circuit; one failure opens it
    /// again.
    #[schemars(range(min = 1, max = 1000))]
    pub half_open_probes: u32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            per: Guarded::default(),
            window: HumanDuration::from_secs(10),
            min_requests: 20,
            error_ratio: 0.5,
            consecutive: None,
            slow: None,
            statuses: of_gateways(),
            open_for: HumanDuration::from_secs(15),
            half_open_probes: 3,
        }
    }
}

/// Which answers are slow, and how many are too many.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// An answer whose header takes longer than this once the whole request was sent is slow.
    pub longer_than: HumanDuration,
    /// Share of slow answers within `window` that opens the circuit, more than 0, at most 1.
    #[schemars(range(min = 0.001, max = 1.0))]
    pub ratio: f64,
}

/// What happens to requests while probes and ejections leave no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Panic {
    /// They are answered 503 `no_endpoint`.
    #[default]
    Refuse,
    /// They go to the endpoints as if all were well: for probes that are less reliable than what they probe.
    UseAll,
}
