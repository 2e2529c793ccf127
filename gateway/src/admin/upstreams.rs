//! What the page of the status shows of upstreams.

use std::time::{Instant, SystemTime};

use serde_json::{Value, json};

use crate::{
    snapshot::Snapshot,
    upstream::{Endpoint, Pool, Upstream, auth::Identity, breaker, budget::WINDOW, health, outlier},
};

/// Each upstream with its endpoints.
pub(super) fn shown(snapshot: &Snapshot) -> Vec<Value> {
    let now = Instant::now();
    snapshot.upstreams.values().map(|one| upstream(one, now)).collect()
}

fn upstream(upstream: &Upstream, now: Instant) -> Value {
    let endpoints: Vec<_> = upstream.pool.endpoints().iter().map(|one| endpoint(&upstream.pool, one, now)).collect();
    let auth = upstream.auth.as_ref().map(|identity| {
        let left = match identity {
            Identity::Tokens(tokens) => tokens.left().map(|left| left.as_secs()),
            Identity::Fixed(..) => None,
        };
        json!({"kind": identity.kind(), "token_seconds": left})
    });
    let budget = upstream.budget.standing(upstream.retry.allowance, now);
    let (in_flight, waiting) = upstream.load();
    let most = upstream.bulkhead.as_ref().map(|bulkhead| bulkhead.room.most);
    json!({
        "name": *upstream.name,
        "load": {"in_flight": in_flight, "waiting": waiting, "max_in_flight": most},
        "endpoints": endpoints,
        "auth": auth,
        "retry_budget": {
            "window_seconds": WINDOW,
            "requests": budget.requests,
            "retries": budget.retries,
            "allowed": budget.allowed,
        },
        "circuit": upstream.watch.whole.as_ref().map(|breaker| circuit(&breaker.shown())),
    })
}

fn endpoint(pool: &Pool, endpoint: &Endpoint, now: Instant) -> Value {
    let shown = endpoint.state.shown(now);
    let share = pool.slow_start().map(|window| endpoint.state.warmth.share(now, window)).filter(|share| *share < 1.0);
    let slow_start = share.map(|share| {
        let since = endpoint.state.warmth.age(now).unwrap_or_default();
        json!({"seconds": since.as_secs(), "share": share})
    });
    json!({
        "address": endpoint.address.to_string(),
        "in_flight": endpoint.state.in_flight(),
        "weight": endpoint.weight,
        "priority": endpoint.priority.0,
        "slow_start": slow_start,
        "available": shown.is_available,
        "health": shown.health.as_ref().map(health),
        "ejected": shown.ejected.as_ref().map(ejection),
        "circuit": shown.circuit.as_ref().map(circuit),
    })
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

fn why(why: &str) -> Option<&str> {
    Some(why).filter(|why| !why.is_empty())
}

fn health(shown: &health::Shown) -> Value {
    json!({"state": shown.state, "since": time(shown.since), "why": why(&shown.why)})
}

fn ejection(shown: &outlier::Shown) -> Value {
    json!({"since": time(shown.since), "why": why(&shown.why), "seconds": shown.left.as_secs() + 1})
}

fn circuit(shown: &breaker::Shown) -> Value {
    json!({"state": shown.phase.name(), "since": time(shown.since), "why": why(&shown.why)})
}
