//! Bounds how many requests callers may have in flight at a time, as `rate_limit` bounds how many they may begin.
//!
//! A request holds its place from here to the end of its response, however it ends. Who finds no place waits in a queue,
//! where there is one. Several of these can stand on a route: behind what authenticates one knows the consumer, before it
//! only the client's address. A request that waits in one queue holds its places in those before.
//!
//! Places are those of this process; gateways that share the load each have their own.

mod config;
mod keys;

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use crossway_plugin_api::{
    Ctx, Decision, Deps, Fault, InvalidConfig, MetricsScope, NeededParam, Needs, NoPlace, Place, Plugin, PluginConfig,
    Reply, Room,
};
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use pingora_http::RequestHeader;
use prometheus::{IntCounter, IntGauge};

pub use crate::key::{OnMissingKey, Part};
pub use config::Config;

use crate::key::Parts;
use keys::{Key, Keys};

/// Nobody knows when a place comes free: soon, or the queue would be no use. Seconds.
const SOON: HeaderValue = HeaderValue::from_static("1");

impl PluginConfig for Config {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        let room = self.room()?;
        let parts = Parts::new(&self.key, self.ipv6_prefix, self.on_missing_key)?;
        let keys = deps.state.get_or_make(&format!("concurrency {}", deps.entry), Keys::default);
        Ok(Arc::new(Concurrency {
            blames_caller: parts.name_callers(),
            parts,
            room,
            on_missing_key: self.on_missing_key.unwrap_or_default(),
            keys,
            max_keys: usize::try_from(self.max_keys).unwrap_or(usize::MAX),
            metrics: Metrics::new(&deps.metrics),
        }))
    }
}

struct Concurrency {
    parts: Parts,
    room: Room,
    on_missing_key: OnMissingKey,
    /// Whether the key says who calls: then who has too many is told so, and not that there are too many.
    blames_caller: bool,
    keys: Arc<Keys>,
    max_keys: usize,
    metrics: Metrics,
}

struct Metrics {
    held: IntGauge,
    waiting: IntGauge,
    queued: IntCounter,
    full: IntCounter,
    late: IntCounter,
    crowded: IntCounter,
    keyless: IntCounter,
}

impl Metrics {
    fn new(scope: &MetricsScope) -> Self {
        let (counter, level) = (|event| scope.counter("concurrency", event), |name| scope.level("concurrency", name));
        Self {
            held: level("held"),
            waiting: level("waiting"),
            queued: counter("queued"),
            full: counter("full"),
            late: counter("late"),
            crowded: counter("crowded"),
            keyless: counter("keyless"),
        }
    }
}

/// One more in a gauge, for as long as this lives.
struct OneMore(IntGauge);

impl OneMore {
    fn of(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a request holds. Given back in this order.
struct Held {
    _shown: OneMore,
    _place: Place,
    _key: Arc<Key>,
}

/// What a request holds of all plugins of this kind on its route; given back when the request's context goes.
#[derive(Clone, Default)]
struct AllHeld(Vec<Arc<Held>>);

impl Concurrency {
    async fn enter(&self, key: &Arc<Key>) -> Result<Place, NoPlace> {
        if let Some(place) = key.places.try_enter(self.room.most) {
            return Ok(place);
        }
        let waits = (self.room.queue > 0).then(|| OneMore::of(&self.metrics.waiting));
        let entered = key.places.enter(&self.room, None).await;
        drop(waits);
        match &entered {
            Ok(_) => self.metrics.queued.inc(),
            Err(NoPlace::Full) => self.metrics.full.inc(),
            Err(NoPlace::Late) => self.metrics.late.inc(),
        }
        entered
    }

    fn without_key(&self, ctx: &mut Ctx) -> Decision {
        self.metrics.keyless.inc();
        if self.on_missing_key != OnMissingKey::Deny {
            return Decision::Continue;
        }
        ctx.refusal = Some(Cow::Borrowed("a part of the bound's key is missing"));
        let detail = "The request lacks something that its bound is counted by.";
        Decision::Respond(Reply::problem(StatusCode::FORBIDDEN, "concurrency_key_missing", detail))
    }
}

fn refusal(blames_caller: bool) -> Decision {
    let reply = if blames_caller {
        let detail = "Too many requests of this caller are in flight. Try again when one has ended.";
        Reply::problem(StatusCode::TOO_MANY_REQUESTS, "concurrency_limited", detail)
    } else {
        let detail = "Too many requests are in flight. Try again soon.";
        Reply::problem(StatusCode::SERVICE_UNAVAILABLE, "concurrency_full", detail)
    };
    Decision::Respond(reply.header(RETRY_AFTER, SOON))
}

#[async_trait]
impl Plugin for Concurrency {
    fn needs(&self) -> Needs {
        let param = |(part, name): (usize, &str)| NeededParam { name: name.to_owned(), field: format!("key/{part}") };
        Needs {
            request: true,
            caller: self.parts.need_caller(),
            params: self.parts.params().map(param).collect(),
            ..Needs::default()
        }
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let Some(hash) = self.keys.hash(&self.parts, req, ctx) else { return Ok(self.without_key(ctx)) };
        let Some(key) = self.keys.key(hash, self.max_keys) else {
            self.metrics.crowded.inc();
            ctx.refusal = Some(Cow::Borrowed("more callers than `max_keys` have requests in flight"));
            return Ok(refusal(false));
        };
        let place = match self.enter(&key).await {
            Ok(place) => place,
            Err(why) => {
                ctx.refusal = Some(Cow::Owned(why.to_string()));
                return Ok(refusal(self.blames_caller));
            }
        };
        let held = Held { _shown: OneMore::of(&self.metrics.held), _place: place, _key: key };
        ctx.extensions.get_or_insert_default::<AllHeld>().0.push(Arc::new(held));
        Ok(Decision::Continue)
    }
}

#[cfg(test)]
mod tests;
