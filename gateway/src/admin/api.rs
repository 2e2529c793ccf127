//! The pages of the admin listener.

use axum::{
    Extension, Json, Router,
    extract::State as From,
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{State, audit, guard};
use crate::{
    certificate::{self, Facts},
    reload::Outcome,
    snapshot::{Snapshot, Target, Way},
    upstream::{auth::Identity, budget::WINDOW},
};

/// All pages; `/healthz` and `/readyz` without a token.
pub(super) fn admin(state: State) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route("/api/reload", post(reload))
        .merge(super::keys::pages())
        .route_layer(middleware::from_fn_with_state(state.clone(), guard::check));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .merge(guarded)
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(state.clone(), audit::note))
        .with_state(state)
}

/// The pages of the probe listener.
pub(super) fn probes(state: State, with_metrics: bool) -> Router {
    let pages = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz));
    let pages = if with_metrics { pages.route("/metrics", get(metrics)) } else { pages };
    pages.fallback(nowhere).method_not_allowed_fallback(wrong_method).with_state(state)
}

/// A problem document (RFC 9457).
pub(super) fn problem(status: StatusCode, code: &'static str, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body =
        json!({"type": "about:blank", "title": title, "status": status.as_u16(), "code": code, "detail": detail});
    let problem = HeaderValue::from_static("application/problem+json");
    let fields = [(header::CONTENT_TYPE, problem)];
    (status, Extension(audit::Code(code)), fields, body.to_string()).into_response()
}

async fn nowhere() -> Response {
    problem(StatusCode::NOT_FOUND, "not_found", "There is no such page.")
}

async fn wrong_method() -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This page does not take this method.")
}

/// The process is alive: it answers.
async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(From(state): From<State>) -> Response {
    match state.gateway.readiness.refusal() {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(From(state): From<State>) -> Response {
    // Gathering thousands of series takes milliseconds: not on a worker that serves requests.
    let metrics = std::sync::Arc::clone(&state.gateway.metrics);
    metrics.issued_keys.set(i64::try_from(state.gateway.keys.count()).unwrap_or(i64::MAX));
    match tokio::task::spawn_blocking(move || metrics.render()).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "The metrics cannot be gathered."),
    }
}

async fn status(From(state): From<State>) -> Json<Value> {
    let snapshot = state.gateway.snapshot.load_full();
    let last = match state.reloader.last().await {
        None => Value::Null,
        Some(Outcome::Applied { generation, .. }) => json!({"result": "ok", "generation": generation}),
        Some(Outcome::Refused(error)) => json!({"result": "error", "errors": error.diagnostics}),
    };
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "handing_over": state.gateway.handing_over.load(std::sync::atomic::Ordering::Acquire),
        "generation": snapshot.generation,
        "config_hash": snapshot.hash,
        "ready": state.gateway.readiness.refusal().is_none(),
        "state": state.gateway.readiness.refusal().unwrap_or("ready"),
        "connections": state.gateway.connections.count(),
        "last_reload": last,
        "listeners": listeners(&state, &snapshot),
        "routes": routes(&snapshot),
        "upstreams": upstreams(&snapshot),
    }))
}

fn listeners(state: &State, snapshot: &Snapshot) -> Vec<Value> {
    let shown = |(address, local): (String, std::net::SocketAddr)| {
        let listener = snapshot.listeners.get(&address);
        let certificates: Vec<_> = listener
            .and_then(|listener| listener.tls.as_ref())
            .map_or_else(Vec::new, |table| table.certificates().map(certificate).collect());
        json!({
            "name": listener.map(|listener| &listener.name),
            "address": address,
            "local": local.to_string(),
            "certificates": certificates,
        })
    };
    state.listeners.addresses().into_iter().map(shown).collect()
}

fn certificate(facts: &Facts) -> Value {
    let names = facts.dns.iter().cloned().chain(facts.addresses.iter().map(ToString::to_string));
    let last = facts.validity.to;
    json!({
        "names": names.collect::<Vec<_>>(),
        "not_after": certificate::shown(last),
        "expires_in_days": last.saturating_sub(certificate::now()).div_euclid(24 * 60 * 60),
    })
}

fn routes(snapshot: &Snapshot) -> Vec<Value> {
    let shown = |route: &std::sync::Arc<crate::snapshot::Route>| {
        let (way, why) = match route.way {
            Way::Stream => ("stream", None),
            Way::Exchange(why) => ("exchange", Some(why)),
        };
        let upstream = match &route.target {
            Target::Upstream { upstream, .. } => Some(upstream.name.to_string()),
            _ => None,
        };
        let plugins: Vec<_> =
            route.chain.links().iter().map(|link| json!({"plugin": link.name, "id": link.id.as_deref()})).collect();
        json!({"name": *route.name, "way": way, "why": why, "upstream": upstream, "plugins": plugins})
    };
    snapshot.router.values().map(shown).collect()
}

fn upstreams(snapshot: &Snapshot) -> Vec<Value> {
    let endpoint = |(address, in_flight): (std::net::SocketAddr, usize)| json!({"address": address.to_string(), "in_flight": in_flight});
    let shown = |(name, upstream): (&String, &std::sync::Arc<crate::upstream::Upstream>)| {
        let endpoints: Vec<_> = upstream.pool.endpoints().into_iter().map(endpoint).collect();
        let auth = upstream.auth.as_ref().map(|identity| {
            let left = match identity {
                Identity::Tokens(tokens) => tokens.left().map(|left| left.as_secs()),
                Identity::Fixed(..) => None,
            };
            json!({"kind": identity.kind(), "token_seconds": left})
        });
        let budget = upstream.budget.standing(upstream.retry.allowance, std::time::Instant::now());
        let budget = json!({
            "window_seconds": WINDOW,
            "requests": budget.requests,
            "retries": budget.retries,
            "allowed": budget.allowed,
        });
        json!({"name": name, "endpoints": endpoints, "auth": auth, "retry_budget": budget})
    };
    snapshot.upstreams.iter().map(shown).collect()
}

/// Reloads and says how it ended: 200, or 422 with the located errors.
async fn reload(From(state): From<State>, Extension(caller): Extension<audit::Caller>) -> Response {
    match state.reloader.reload(caller.who()).await {
        Outcome::Applied { generation, warnings } => {
            Json(json!({"generation": generation, "warnings": warnings})).into_response()
        }
        Outcome::Refused(error) => {
            let body = json!({
                "type": "about:blank",
                "title": "Unprocessable Content",
                "status": 422,
                "code": "config_invalid",
                "detail": "The configuration was refused; the old one serves on.",
                "errors": error.diagnostics,
                "rendered": error.render(false),
            });
            let problem = HeaderValue::from_static("application/problem+json");
            let (status, fields) = (StatusCode::UNPROCESSABLE_ENTITY, [(header::CONTENT_TYPE, problem)]);
            (status, Extension(audit::Code("config_invalid")), fields, body.to_string()).into_response()
        }
    }
}
