//! What is watched at the endpoints of an upstream, checked.

use std::{sync::Arc, time::Duration};

use crossway_plugin_api::config::{HumanDuration, parse_method};
use crossway_plugins::is_framing;
use http::{HeaderName, HeaderValue, Method, Uri};

use super::Compiler;
use crate::{
    config::{
        health::{CircuitBreaker, Guarded, HealthCheck, HttpCheck, Outlier, Panic},
        upstream::Upstream as Config,
    },
    upstream::{
        breaker::{self, Breaker},
        health::{self, Ask},
        outlier,
        watch::{Notes, Watch},
    },
};

/// Shortest and longest of the lengths of time.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_hours(1);
const LONGEST_EJECTION: Duration = Duration::from_hours(24);
/// Time for a probe, and the longest ejection, where nothing is said.
const PROBE: Duration = Duration::from_secs(2);
const EJECTION: Duration = Duration::from_mins(5);

impl Compiler<'_> {
    /// What is watched at an upstream; `None` if something is wrong, which is reported.
    pub(super) fn watch(&mut self, pointer: &str, name: &str, config: &Config) -> Option<Arc<Watch>> {
        let before = self.found.len();
        let health = config.health_check.as_ref().and_then(|c| self.probes(&format!("{pointer}/health_check"), c));
        let outlier = config.outlier.as_ref().map(|c| self.ejections(&format!("{pointer}/outlier"), c));
        let breaker = config.circuit_breaker.as_ref().map(|c| self.circuit(&format!("{pointer}/circuit_breaker"), c));
        if config.panic.is_some() && config.health_check.is_none() && config.outlier.is_none() {
            self.error(&format!("{pointer}/panic"), "has no meaning without `health_check` and `outlier`");
        }
        if self.found[before..].iter().any(|d| d.severity == crate::config::error::Severity::Error) {
            return None;
        }
        let notes = Notes { upstream: name.into(), endpoint: None, metrics: self.around.metrics.watch(name) };
        let whole = breaker.as_ref().filter(|plan| plan.whole).map(|plan| {
            // The circuit that the configuration before a reload has, if it has the same.
            let key = format!("circuit of {name}: {plan:?}");
            self.deps.state.get_or_make(&key, || Breaker::new(plan.clone(), notes.clone()))
        });
        Some(Arc::new(Watch {
            generation: self.around.generation,
            http2: config.http2,
            health: health.map(Arc::new),
            outlier,
            breaker,
            whole,
            use_all: config.panic == Some(Panic::UseAll),
            notes,
        }))
    }

    /// Reports a length of time outside of its bounds.
    fn within(&mut self, place: &str, length: Duration, longest: Duration) {
        if length < SHORTEST || length > longest {
            let longest = HumanDuration(longest);
            self.error(place, format!("must be at least {} and at most {longest}", HumanDuration(SHORTEST)));
        }
    }

    fn probes(&mut self, pointer: &str, config: &HealthCheck) -> Option<health::Plan> {
        let interval = config.interval.0;
        let unhealthy_interval = config.unhealthy_interval.map_or(interval, |own| own.0);
        self.within(&format!("{pointer}/interval"), interval, LONGEST);
        if config.unhealthy_interval.is_some() {
            self.within(&format!("{pointer}/unhealthy_interval"), unhealthy_interval, LONGEST);
        }
        let shorter = interval.min(unhealthy_interval);
        let timeout = config.timeout.map_or(PROBE.min(shorter), |own| own.0);
        if config.timeout.is_some() && (timeout.is_zero() || timeout > shorter) {
            let message = "must be more than zero, and at most the time from one probe to the next";
            self.error(&format!("{pointer}/timeout"), message);
        }
        if config.jitter.0 > 50 {
            self.error(&format!("{pointer}/jitter"), "must be at most 50%");
        }
        let ask = match (&config.http, &config.tcp) {
            (Some(http), None) => self.request(&format!("{pointer}/http"), http)?,
            (None, Some(_)) => Ask::Tcp,
            _ => {
                self.error(pointer, "needs exactly one of `http` and `tcp`");
                return None;
            }
        };
        Some(health::Plan {
            ask,
            interval,
            unhealthy_interval,
            timeout,
            jitter: f64::from(config.jitter.0) / 100.0,
            unhealthy_after: config.unhealthy_after,
            healthy_after: config.healthy_after,
            port: config.port,
        })
    }

    fn request(&mut self, pointer: &str, config: &HttpCheck) -> Option<Ask> {
        let is_path = config.path.starts_with('/') && !config.path.contains('#') && config.path.parse::<Uri>().is_ok();
        if !is_path {
            self.error(&format!("{pointer}/path"), "is not a path, with a query or not, such as /healthz");
        }
        let method = match parse_method(&config.method) {
            Ok(method) => method,
            Err(wrong) => {
                self.error(&format!("{pointer}/method"), wrong);
                Method::GET
            }
        };
        let is_host =
            |host: &String| Uri::builder().authority(host.as_str()).scheme("http").path_and_query("/").build();
        let host = config.host.as_ref().map(|host| (is_host(host), HeaderValue::from_str(host)));
        let host = match host {
            None => None,
            Some((Ok(_), Ok(value))) => Some(value),
            Some(_) => {
                self.error(&format!("{pointer}/host"), "is not a host, with a port or not");
                None
            }
        };
        let mut headers = Vec::new();
        for (name, value) in &config.headers {
            let place = super::below(&format!("{pointer}/headers"), name);
            match HeaderName::from_bytes(name.as_bytes()) {
                Err(_) => self.error(&place, "is not a header field name"),
                Ok(name) if name == http::header::HOST => self.error(&place, "has a key of its own: `host`"),
                Ok(name) if is_framing(&name) => self.error(&place, "is a field that only the gateway writes"),
                Ok(name) => headers.push((name, value.0.clone())),
            }
        }
        is_path.then(|| Ask::Http { method, path: config.path.clone(), host, headers, expect: config.expect.0.clone() })
    }

    fn ejections(&mut self, pointer: &str, config: &Outlier) -> outlier::Plan {
        let window = config.window.map_or(Duration::from_secs(10), |own| own.0);
        self.within(&format!("{pointer}/window"), window, LONGEST);
        self.within(&format!("{pointer}/eject_for"), config.eject_for.0, LONGEST);
        if config.error_ratio.is_none() {
            for (key, is_set) in [("min_requests", config.min_requests.is_some()), ("window", config.window.is_some())]
            {
                if is_set {
                    self.error(&format!("{pointer}/{key}"), "has no meaning without `error_ratio`");
                }
            }
        }
        if config.latency.is_some_and(|latency| latency.0.is_zero()) {
            self.error(&format!("{pointer}/latency"), "must be more than zero");
        }
        let max_eject_for = config.max_eject_for.map_or(EJECTION.max(config.eject_for.0), |own| own.0);
        if max_eject_for < config.eject_for.0 || max_eject_for > LONGEST_EJECTION {
            self.error(&format!("{pointer}/max_eject_for"), "must be at least `eject_for` and at most 1day");
        }
        if config.max_ejected.0 == 0 {
            self.error(&format!("{pointer}/max_ejected"), "must be more than 0%: leave `outlier` out to eject none");
        }
        outlier::Plan {
            consecutive: config.consecutive_failures,
            ratio: config.error_ratio.map(|ratio| (ratio, config.min_requests.unwrap_or(20))),
            window,
            latency: config.latency.map(|latency| latency.0),
            statuses: config.statuses.0.clone(),
            eject_for: config.eject_for.0,
            max_eject_for,
            max_ejected: config.max_ejected,
        }
    }

    fn circuit(&mut self, pointer: &str, config: &CircuitBreaker) -> breaker::Plan {
        self.within(&format!("{pointer}/window"), config.window.0, LONGEST);
        self.within(&format!("{pointer}/open_for"), config.open_for.0, LONGEST);
        if config.slow.as_ref().is_some_and(|slow| slow.longer_than.0.is_zero()) {
            self.error(&format!("{pointer}/slow/longer_than"), "must be more than zero");
        }
        breaker::Plan {
            whole: config.per == Guarded::Upstream,
            window: config.window.0,
            min_requests: config.min_requests,
            error_ratio: config.error_ratio,
            consecutive: config.consecutive,
            slow: config.slow.as_ref().map(|slow| (slow.longer_than.0, slow.ratio)),
            statuses: config.statuses.0.clone(),
            open_for: config.open_for.0,
            probes: config.half_open_probes,
        }
    }
}
