//! Where it is kept what callers have used: in this process, or in a store that gateways share.
//!
//! A request may ask both. This process is asked first, because that is free; then the shared store, if nothing here
//! refuses. What was used here is given back when the shared store refuses. In between, for the time of one exchange, it is
//! missing to others: they may be refused something that they would have had, but nobody gets anything twice.

use std::{
    hash::{Hash as _, Hasher},
    sync::Arc,
};

use crossway_plugin_api::{Ctx, MetricsScope};
use pingora_http::RequestHeader;
use prometheus::IntCounter;

use super::{
    config::OnStoreError,
    limit::{Moment, Standing},
    local::{Ask, Local},
    name::Tag,
    shared::Shared,
    table::Key,
};

/// The stores of a plugin. Everything a request asks for is asked in one call, and granted or refused as a whole.
pub(super) struct Store {
    /// The keys in this process; other plugins of the same identity have the same.
    pub(super) local: Arc<Local>,
    /// How many of them.
    pub(super) most: usize,
    /// Those in the store that gateways share, if any are.
    pub(super) shared: Option<Shared>,
    pub(super) events: Events,
}

/// What is counted of stores, as events of the plugin.
#[derive(Clone)]
pub(super) struct Events {
    asked_local: IntCounter,
    asked_shared: IntCounter,
    store_failed: IntCounter,
    fallback_local: IntCounter,
    fallback_allow: IntCounter,
    fallback_deny: IntCounter,
    unsettled: IntCounter,
    evicted: IntCounter,
}

impl Events {
    pub(super) fn new(metrics: &MetricsScope) -> Self {
        let counter = |event| metrics.counter("rate_limit", event);
        Self {
            asked_local: counter("local"),
            asked_shared: counter("shared"),
            store_failed: counter("unanswered"),
            fallback_local: counter("allow_local"),
            fallback_allow: counter("allow"),
            fallback_deny: counter("deny"),
            unsettled: counter("unsettled"),
            evicted: counter("evicted"),
        }
    }
}

/// What a decision came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The request may pass.
    Granted,
    /// Some limit has no room, and none was used.
    Refused,
    /// The shared store does not answer, and without it nothing passes. No limit was used.
    Unknown,
}

impl From<bool> for Verdict {
    fn from(granted: bool) -> Self {
        if granted { Self::Granted } else { Self::Refused }
    }
}

impl Store {
    /// Begins the hash that becomes a key in this process.
    pub(super) fn hasher(&self) -> impl Hasher + use<> {
        self.local.hasher()
    }

    /// What the names of a request's counters in the shared store have in common, if there are any.
    pub(super) fn tag(&self, req: &RequestHeader, ctx: &Ctx) -> Option<Tag> {
        self.shared.as_ref().map(|shared| shared.tag(req, ctx))
    }

    /// Decides about all asks at once, of which the first ones, up to `own`, are about this process. Writes into each what
    /// it came to, and takes away those about which nothing can be said.
    pub(super) async fn decide(&self, asks: &mut Vec<Ask>, own: usize, now: Moment) -> Verdict {
        if own > 0 && !self.decide_here(&mut asks[..own], now) {
            asks.truncate(own);
            return Verdict::Refused;
        }
        let Some(shared) = self.shared.as_ref().filter(|_| own < asks.len()) else { return Verdict::Granted };
        let verdict = match shared.decide(&mut asks[own..]).await {
            Ok(granted) => {
                self.events.asked_shared.inc();
                granted.into()
            }
            Err(_) => {
                self.events.store_failed.inc();
                self.without_shared(asks, own, (shared.on_error, now))
            }
        };
        if verdict != Verdict::Granted {
            self.local.give_back(&mut asks[..own], now);
        }
        verdict
    }

    /// Decides while the shared store does not answer.
    fn without_shared(&self, asks: &mut Vec<Ask>, own: usize, (on_error, now): (OnStoreError, Moment)) -> Verdict {
        match on_error {
            OnStoreError::AllowLocal => {
                self.events.fallback_local.inc();
                for ask in &mut asks[own..] {
                    let mut hasher = self.hasher();
                    ask.name.take().hash(&mut hasher);
                    ask.key = Key::new(hasher.finish(), ask.limit.is_window());
                }
                self.decide_here(&mut asks[own..], now).into()
            }
            OnStoreError::Deny if asks[own..].iter().any(|ask| !ask.shadow) => {
                self.events.fallback_deny.inc();
                asks.truncate(own);
                Verdict::Unknown
            }
            OnStoreError::Allow | OnStoreError::Deny => {
                self.events.fallback_allow.inc();
                asks.truncate(own);
                Verdict::Granted
            }
        }
    }

    fn decide_here(&self, asks: &mut [Ask], now: Moment) -> bool {
        self.events.asked_local.inc();
        let decided = self.local.decide(asks, self.most, now);
        self.events.evicted.inc_by(decided.evicted);
        decided.granted
    }

    /// Uses units after the fact; what is left then.
    pub(super) fn settle(&self, ask: &Ask, cost: u32, now: Moment) -> Standing {
        if let Some(shared) = self.shared.as_ref().filter(|_| ask.name.is_some()) {
            return shared.settle(ask, cost, &self.events.unsettled);
        }
        let (standing, forgotten) = self.local.settle(ask, cost, self.most, now);
        self.events.evicted.inc_by(forgotten);
        standing
    }
}
