//! Bounds how much callers may ask for, in a time.
//!
//! A plugin has several policies; a request passes when all of them have room, and uses none of them when one refuses.
//! Whom a policy can tell apart depends on where the plugin stands: behind one that authenticates it knows the consumer
//! and the token, before it only the client's address and what anybody can claim. Both can stand on a route.
//!
//! What callers have used is kept in a store, which several routes share when they have the plugin from the same chain or
//! with the same `id`, and which outlives a reload. It keeps 62 bits of a hash of each key, keyed at random in each process. With a
//! million keys the chance that a new caller meets the counter of another is one in four million millions.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use crossway_plugin_api::{
    Clock, Ctx, Decision, Deps, Fault, InvalidConfig, MetricsScope, NeededParam, Needs, Plugin, PluginConfig,
};
use pingora_http::{RequestHeader, ResponseHeader};
use prometheus::IntCounter;

mod answer;
mod build;
mod config;
mod limit;
mod local;
mod name;
mod period;
mod policy;
mod shared;
mod store;
mod table;

pub use crate::key::{OnMissingKey, Part};
pub use config::{Algorithm, Config, CostFrom, Mode, OnStoreError, Policy as PolicyConfig, StoreKind, Style, Tier};
pub use period::Period;

use answer::Fields;
use limit::Moment;
use local::Ask;
use name::Tag;
use policy::{Policy, Side};
use store::{Events, Store, Verdict};

impl PluginConfig for Config {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        Ok(Arc::new(build::limiter(self, deps)?))
    }
}

struct Limiter {
    policies: Box<[Policy]>,
    fields: Fields,
    store: Store,
    clock: Clock,
    counters: Counters,
}

/// What is counted, as events of the plugin.
struct Counters {
    allowed: IntCounter,
    refused: IntCounter,
    shadowed: IntCounter,
    keyless: IntCounter,
    mispriced: IntCounter,
    stores: Events,
}

impl Counters {
    fn new(metrics: &MetricsScope) -> Self {
        let counter = |event| metrics.counter("rate_limit", event);
        Self {
            allowed: counter("allowed"),
            refused: counter("refused"),
            shadowed: counter("shadowed"),
            keyless: counter("keyless"),
            mispriced: counter("mispriced"),
            stores: Events::new(metrics),
        }
    }
}

/// What a request has asked of one plugin.
#[derive(Clone)]
struct Visit {
    /// Which plugin, by the place of its policies.
    plugin: usize,
    asks: Vec<Ask>,
}

/// What a request has asked of all plugins of this kind on its route.
#[derive(Clone, Default)]
struct Visits(Vec<Visit>);

impl Visits {
    /// The ask with the least left; of those, the one that takes longest.
    fn tightest(&self) -> Option<&Ask> {
        let asks = self.0.iter().flat_map(|visit| &visit.asks).filter(|ask| !ask.shadow);
        asks.min_by_key(|ask| (ask.standing.remaining, std::cmp::Reverse(ask.standing.reset)))
    }
}

impl Limiter {
    fn now(&self) -> Moment {
        let steady = u64::try_from(self.clock.steady().as_nanos()).unwrap_or(u64::MAX / 2);
        Moment { steady, wall: self.clock.unix() }
    }

    fn identity(&self) -> usize {
        self.policies.as_ptr() as usize
    }

    /// What the request asks of each policy, and how many of these asks are about this process: they come first. `None` if
    /// it lacks what a policy that denies counts by.
    fn asks(&self, req: &RequestHeader, ctx: &Ctx, now: Moment) -> Option<(Vec<Ask>, usize)> {
        let mut asks = Vec::with_capacity(self.policies.len());
        self.asks_of(false, (req, ctx, None), now, &mut asks)?;
        let own = asks.len();
        if let Some(tag) = self.store.tag(req, ctx) {
            self.asks_of(true, (req, ctx, Some(tag)), now, &mut asks)?;
        }
        Some((asks, own))
    }

    fn asks_of(
        &self,
        shared: bool,
        (req, ctx, tag): (&RequestHeader, &Ctx, Option<Tag>),
        now: Moment,
        asks: &mut Vec<Ask>,
    ) -> Option<()> {
        let policies = self.policies.iter().enumerate().filter(|(_, policy)| policy.stem.is_some() == shared);
        for (at, policy) in policies {
            if let Some((ask, is_bad)) = policy.ask(at, (req, ctx), (&self.store, tag)) {
                self.counters.mispriced.inc_by(is_bad.into());
                asks.push(ask);
                continue;
            }
            self.counters.keyless.inc();
            match (policy.on_missing_key, policy.shadow) {
                (OnMissingKey::Deny, false) => return None,
                (OnMissingKey::Deny, true) => self.note_shadow(policy, ctx, now),
                (OnMissingKey::Allow | OnMissingKey::Anonymous, _) => {}
            }
        }
        Some(())
    }

    fn note_shadow(&self, policy: &Policy, ctx: &Ctx, now: Moment) {
        self.counters.shadowed.inc();
        if let Some(requests) = policy.notice.one_more(now) {
            let (policy, route) = (policy.name.as_str(), ctx.route.as_deref());
            tracing::info!(policy, route, requests, "a policy in shadow mode would have refused requests");
        }
    }

    /// Uses what the response says that the request has cost.
    fn settle(&self, asks: &mut [Ask], res: &ResponseHeader, now: Moment) {
        for ask in asks.iter_mut().filter(|ask| ask.wait.is_none()) {
            let Some(policy) = self.policies.get(ask.policy) else { continue };
            let Some(cost) = policy.cost.after(&res.headers) else { continue };
            self.counters.mispriced.inc_by(cost.is_err().into());
            let cost = cost.unwrap_or(policy.cost.max.saturating_sub(ask.cost));
            if cost > 0 {
                ask.standing = self.store.settle(ask, cost, now);
            }
        }
    }

    fn costs_afterwards(&self) -> bool {
        self.policies.iter().any(|policy| matches!(policy.cost.from, Some((Side::Response, _))))
    }
}

#[async_trait]
impl Plugin for Limiter {
    fn needs(&self) -> Needs {
        let mut params = Vec::new();
        for (at, policy) in self.policies.iter().enumerate() {
            for (part, name) in policy.parts.params() {
                params.push(NeededParam { name: name.to_owned(), field: format!("policies/{at}/key/{part}") });
            }
        }
        Needs {
            request: true,
            response: self.fields.is_any() || self.costs_afterwards(),
            caller: self.policies.iter().any(|policy| !policy.tiers.is_empty() || policy.parts.need_caller()),
            params,
            ..Needs::default()
        }
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let now = self.now();
        let Some((mut asks, own)) = self.asks(req, ctx, now) else {
            ctx.refusal = Some(Cow::Borrowed("a part of the limit's key is missing"));
            return Ok(Decision::Respond(answer::missing_key()));
        };
        let decision = match self.store.decide(&mut asks, own, now).await {
            Verdict::Granted => {
                self.counters.allowed.inc();
                for ask in asks.iter().filter(|ask| ask.wait.is_some()) {
                    self.policies.get(ask.policy).into_iter().for_each(|policy| self.note_shadow(policy, ctx, now));
                }
                Decision::Continue
            }
            Verdict::Refused => {
                self.counters.refused.inc();
                let (reply, reason) = answer::refusal(&self.policies, &asks);
                ctx.refusal = Some(Cow::Owned(reason));
                Decision::Respond(reply)
            }
            Verdict::Unknown => {
                ctx.refusal = Some(Cow::Borrowed("the shared store of limits does not answer"));
                return Ok(Decision::Respond(answer::unknown()));
            }
        };
        if !asks.is_empty() {
            let visit = Visit { plugin: self.identity(), asks };
            ctx.extensions.get_or_insert_default::<Visits>().0.push(visit);
        }
        Ok(decision)
    }

    fn on_response(&self, res: &mut ResponseHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        let Some(visits) = ctx.extensions.get_mut::<Visits>() else { return Ok(()) };
        let identity = self.identity();
        let Some(at) = visits.0.iter().position(|visit| visit.plugin == identity) else { return Ok(()) };
        let now = self.now();
        // A request that was refused has used nothing, and has no answer that could cost anything.
        let asks = &mut visits.0[at].asks;
        if asks.iter().all(|ask| ask.wait.is_none() || ask.shadow) {
            self.settle(asks, res, now);
        }
        self.fields.write(res, (&self.policies, &visits.0[at].asks), visits.tightest(), now)
    }
}

#[cfg(test)]
mod tests;
