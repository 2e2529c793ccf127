//! Probes: what is asked of each endpoint, how often, and what the answers mean.

mod probe;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use crossway_plugin_api::config::StatusSet;
use http::{HeaderName, HeaderValue, Method};
use parking_lot::Mutex;

pub(super) use probe::{Probing, Target};

/// What is asked, and how often, compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What is asked.
    pub ask: Ask,
    /// From one probe to the next.
    pub interval: Duration,
    /// The same while the endpoint is unhealthy.
    pub unhealthy_interval: Duration,
    /// Time for one probe.
    pub timeout: Duration,
    /// What is added to an interval by chance, as a share of it, at most.
    pub jitter: f64,
    /// Failures in a row.
    pub unhealthy_after: u32,
    /// Successes in a row.
    pub healthy_after: u32,
    /// Another port.
    pub port: Option<u16>,
}

/// What is asked of an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// A connection.
    Tcp,
    /// A request.
    Http {
        /// Its method.
        method: Method,
        /// Path and query.
        path: String,
        /// What `Host` says, if not the endpoint's name.
        host: Option<HeaderValue>,
        /// More fields.
        headers: Vec<(HeaderName, HeaderValue)>,
        /// Statuses of a healthy endpoint.
        expect: Vec<StatusSet>,
    },
}

/// What probes have found of one endpoint.
#[derive(Debug)]
pub(super) struct Health {
    is_unhealthy: AtomicBool,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    is_known: bool,
    successes: u32,
    failures: u32,
    since: SystemTime,
    why: String,
}

/// What is shown of an endpoint's health.
#[derive(Debug, Clone)]
pub struct Shown {
    /// `healthy`, `unhealthy`, or `unknown` before the first probe has ended.
    pub state: &'static str,
    /// Since when.
    pub since: SystemTime,
    /// Why it is unhealthy, or what the last probe came to.
    pub why: String,
}

impl Default for Health {
    fn default() -> Self {
        let last = Last { is_known: false, successes: 0, failures: 0, since: SystemTime::now(), why: String::new() };
        Self { is_unhealthy: AtomicBool::new(false), last: Mutex::new(last) }
    }
}

impl Health {
    /// Whether probes leave it in use.
    pub(super) fn is_healthy(&self) -> bool {
        !self.is_unhealthy.load(Ordering::Relaxed)
    }

    /// Learns the outcome of a probe; whether the endpoint is healthy from now on, if that has changed.
    pub(super) fn learn(&self, plan: &Plan, outcome: Result<(), String>) -> Option<bool> {
        let mut last = self.last.lock();
        last.is_known = true;
        let was_unhealthy = self.is_unhealthy.load(Ordering::Relaxed);
        match outcome {
            Ok(()) => {
                last.failures = 0;
                last.successes = last.successes.saturating_add(1);
                if !was_unhealthy {
                    last.why.clear();
                }
            }
            Err(why) => {
                last.successes = 0;
                last.failures = last.failures.saturating_add(1);
                last.why = why;
            }
        }
        let changed =
            if was_unhealthy { last.successes >= plan.healthy_after } else { last.failures >= plan.unhealthy_after };
        if !changed {
            return None;
        }
        last.since = SystemTime::now();
        if was_unhealthy {
            last.why.clear();
        }
        self.is_unhealthy.store(!was_unhealthy, Ordering::Release);
        Some(was_unhealthy)
    }

    /// Nothing is known any more: nobody probes.
    pub(super) fn forget(&self) {
        *self.last.lock() =
            Last { is_known: false, successes: 0, failures: 0, since: SystemTime::now(), why: String::new() };
        self.is_unhealthy.store(false, Ordering::Release);
    }

    /// What is shown of it.
    pub(super) fn shown(&self) -> Shown {
        let last = self.last.lock();
        let state = match (self.is_healthy(), last.is_known) {
            (false, _) => "unhealthy",
            (true, true) => "healthy",
            (true, false) => "unknown",
        };
        Shown { state, since: last.since, why: last.why.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_changes_after_so_many_in_a_row() {
        let plan = Plan {
            ask: Ask::Tcp,
            interval: Duration::from_secs(5),
            unhealthy_interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            jitter: 0.0,
            unhealthy_after: 3,
            healthy_after: 2,
            port: None,
        };
        let health = Health::default();
        assert_eq!((health.is_healthy(), health.shown().state), (true, "unknown"));
        let learn = |good: bool| health.learn(&plan, if good { Ok(()) } else { Err("status 500".into()) });
        for good in [false, false, true, false, false] {
            assert_eq!(learn(good), None);
        }
        assert_eq!((health.is_healthy(), health.shown().state), (true, "healthy"));
        assert_eq!((learn(false), health.is_healthy()), (Some(false), false));
        assert_eq!((health.shown().state, &*health.shown().why), ("unhealthy", "status 500"));
        for good in [true, false, true] {
            assert_eq!((learn(good), health.is_healthy()), (None, false));
        }
        assert_eq!((learn(true), health.is_healthy()), (Some(true), true));
        learn(false);
        learn(false);
        learn(false);
        health.forget();
        assert_eq!((health.is_healthy(), health.shown().state), (true, "unknown"));
    }
}
