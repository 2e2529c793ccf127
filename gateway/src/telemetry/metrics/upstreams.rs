//! The handles of upstreams, and of what comes in place of their failures.

use prometheus::{Histogram, IntCounter};

use super::{BulkheadMetrics, LoadMetrics, Metrics, WatchMetrics};
use crate::{
    config::fallback::FallbackOn,
    upstream::{
        retry::{Reason, Withheld},
        watch::Event,
    },
};

const AUTH_EVENTS: [&str; 4] = ["fetched", "failed", "rejected", "missing"];

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
    /// Requests there now.
    pub load: LoadMetrics,
    retries: [IntCounter; Reason::ALL.len()],
    withheld: [IntCounter; Withheld::ALL.len()],
}

impl UpstreamMetrics {
    /// Counts a retry that is about to be made.
    pub fn retry(&self, reason: Reason) {
        self.retries[reason as usize].inc();
    }

    /// Counts one that is not made.
    pub fn withhold(&self, why: Withheld) {
        self.withheld[why as usize].inc();
    }
}

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

impl Metrics {
    /// The handles of one upstream.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        let attempts = |result| self.attempts.with_label_values(&[name, result]);
        UpstreamMetrics {
            seconds: self.upstream_seconds.with_label_values(&[name]),
            answered: attempts("answered"),
            failed: attempts("failed"),
            retried: attempts("retried"),
            load: self.bulkheads.load(name),
            retries: Reason::ALL.map(|reason| self.retries.with_label_values(&[name, reason.name()])),
            withheld: Withheld::ALL.map(|why| self.withheld.with_label_values(&[name, why.name()])),
        }
    }

    /// The handles of one upstream's bulkhead.
    pub fn bulkhead(&self, name: &str) -> BulkheadMetrics {
        self.bulkheads.of(name)
    }

    /// The handles of what is watched at the endpoints of one upstream.
    pub fn watch(&self, name: &str) -> WatchMetrics {
        let probes = |result| self.probes.with_label_values(&[name, result]);
        WatchMetrics {
            events: Event::NAMES.map(|event| self.endpoint_events.with_label_values(&[name, event])),
            succeeded: probes("ok"),
            failed: probes("failed"),
        }
    }

    /// The count of a route's fallbacks for one reason, which comes from a closed set.
    pub fn fallback(&self, route: &str, reason: &'static str) -> IntCounter {
        self.fallbacks.with_label_values(&[route, reason])
    }

    /// The handles of how the gateway signs in at one upstream.
    pub fn upstream_auth(&self, name: &str) -> AuthMetrics {
        let [fetched, failed, rejected, missing] =
            AUTH_EVENTS.map(|event| self.upstream_auth.with_label_values(&[name, event]));
        AuthMetrics { fetched, failed, rejected, missing }
    }

    pub(super) fn forget_upstream(&self, name: &str) {
        let _ = self.upstream_seconds.remove_label_values(&[name]);
        for result in ["answered", "failed", "retried"] {
            let _ = self.attempts.remove_label_values(&[name, result]);
        }
        for reason in Reason::ALL {
            let _ = self.retries.remove_label_values(&[name, reason.name()]);
        }
        for why in Withheld::ALL {
            let _ = self.withheld.remove_label_values(&[name, why.name()]);
        }
        for event in AUTH_EVENTS {
            let _ = self.upstream_auth.remove_label_values(&[name, event]);
        }
        for event in Event::NAMES {
            let _ = self.endpoint_events.remove_label_values(&[name, event]);
        }
        for result in ["ok", "failed"] {
            let _ = self.probes.remove_label_values(&[name, result]);
        }
        self.bulkheads.forget(name);
    }

    pub(super) fn forget_fallbacks(&self, route: &str) {
        let words = FallbackOn::WORDS.map(|(word, _)| word);
        for reason in words.into_iter().chain([FallbackOn::STATUS]) {
            let _ = self.fallbacks.remove_label_values(&[route, reason]);
        }
    }
}
