//! The pages on API keys that are issued at run time. A key's text is in the answer to who makes it, and nowhere else.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, Query, State as From,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use crossway_plugin_api::config::HumanDuration;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    State,
    api::problem,
    audit::{Caller, Change},
};
use crate::{
    keys::{Filter, KeyError, Keys, Shown, State as Worth, Wanted},
    store::StoreError,
    telemetry::audit::Event,
};

/// Largest body of a request.
const MAX_BODY: usize = 16 << 10;
/// Longest label, in characters.
const MAX_LABEL: usize = 128;
/// Keys on a page, where it is not asked for another number, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// How long an old key is good beside its successor.
const OVERLAP: Duration = Duration::from_hours(24);

/// The pages, to which the guard is still to be added.
pub(super) fn pages() -> Router<State> {
    Router::new()
        .route("/api/keys", get(list).post(create))
        .route("/api/keys/{id}", delete(revoke))
        .route("/api/keys/{id}/rotate", post(rotate))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

/// An answer, or a refusal.
type Answer = Result<Response, Refusal>;

/// What a request is refused with.
struct Refusal(Box<Response>);

impl std::convert::From<Response> for Refusal {
    fn from(response: Response) -> Self {
        Self(Box::new(response))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        *self.0
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    consumer: String,
    label: Option<String>,
    expires_in: Option<HumanDuration>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rotate {
    overlap: Option<HumanDuration>,
    expires_in: Option<HumanDuration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    consumer: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

async fn list(From(state): From<State>, query: Result<Query<List>, QueryRejection>) -> Answer {
    let Query(query) = query.map_err(|wrong| bad(&wrong.body_text()))?;
    let most = query.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&most) {
        return Err(bad(&format!("`limit` is not a number from 1 to {MAX_PAGE}.")));
    }
    let filter = Filter { consumer: query.consumer, after: query.after.unwrap_or_default(), most };
    let consumers = Arc::clone(&state.gateway.snapshot.load().consumers);
    let page = keys(&state).list(&filter, &consumers).await.map_err(refused)?;
    let shown: Vec<Value> = page.keys.iter().map(shown).collect();
    Ok(Json(json!({"keys": shown, "next": page.next})).into_response())
}

async fn create(
    From(state): From<State>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let mut change = Change::new(&state, Event::KeyIssued, caller, None);
    let response = make(&state, body, &mut change).await.into_response();
    change.ended(&response);
    response
}

async fn make(state: &State, body: Result<Bytes, BytesRejection>, change: &mut Change<'_>) -> Answer {
    let Create { consumer, label, expires_in } = read(&body.map_err(|rejection| too_large(&rejection))?)?;
    let label = label.map(checked_label).transpose()?;
    let lifetime = expires_in.map(checked_lifetime).transpose()?;
    change.of_consumer(&consumer);
    if state.gateway.snapshot.load().consumers.named(&consumer).is_none() {
        let detail = "The configuration has no consumer of this name.";
        return Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "consumer_unknown", detail).into());
    }
    may_change(state)?;
    let (made, text) = keys(state).create(Wanted { consumer, label, lifetime }).await.map_err(refused)?;
    change.made(&made.id);
    Ok(with_text(&made, &text))
}

async fn rotate(
    From(state): From<State>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let mut change = Change::new(&state, Event::KeyRotated, caller, Some(&id));
    let response = replace(&state, &id, body, &mut change).await.into_response();
    change.ended(&response);
    response
}

async fn replace(state: &State, id: &str, body: Result<Bytes, BytesRejection>, change: &mut Change<'_>) -> Answer {
    let body = body.map_err(|rejection| too_large(&rejection))?;
    let Rotate { overlap, expires_in } = if body.is_empty() { Rotate::default() } else { read(&body)? };
    let overlap = overlap.map_or(OVERLAP, |overlap| overlap.0);
    let lifetime = expires_in.map(checked_lifetime).transpose()?;
    may_change(state)?;
    let (made, text) = keys(state).rotate(id, overlap, lifetime).await.map_err(refused)?;
    change.of_consumer(&made.consumer);
    change.made(&made.id);
    Ok(with_text(&made, &text))
}

async fn revoke(From(state): From<State>, Extension(caller): Extension<Caller>, Path(id): Path<String>) -> Response {
    let mut change = Change::new(&state, Event::KeyRevoked, caller, Some(&id));
    let response = take_back(&state, &id, &mut change).await.into_response();
    change.ended(&response);
    response
}

async fn take_back(state: &State, id: &str, change: &mut Change<'_>) -> Answer {
    may_change(state)?;
    let revoked = keys(state).revoke(id).await.map_err(refused)?;
    change.of_consumer(&revoked.consumer);
    Ok(Json(shown(&revoked)).into_response())
}

fn keys(state: &State) -> &Keys {
    &state.gateway.keys
}

/// A process that does not serve yet may still give way to the one before it, which would not hear of the change.
fn may_change(state: &State) -> Result<(), Refusal> {
    if state.gateway.readiness.is_starting() { Err(refused(KeyError::Store(StoreError::Released))) } else { Ok(()) }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|wrong| {
        let place = wrong.path().to_string();
        let place = if place == "." { String::new() } else { format!("`{place}` ") };
        format!("{place}{}", wrong.into_inner())
    });
    let read = read.and_then(|value| json.end().map(|()| value).map_err(|wrong| wrong.to_string()));
    read.map_err(|wrong| bad(&format!("The body is not what this page takes: {wrong}.")))
}

fn checked_label(label: String) -> Result<String, Refusal> {
    let good = (1..=MAX_LABEL).contains(&label.chars().count()) && !label.chars().any(char::is_control);
    if good { Ok(label) } else { Err(bad(&format!("`label` is not a text of 1 to {MAX_LABEL} visible characters."))) }
}

fn checked_lifetime(lifetime: HumanDuration) -> Result<Duration, Refusal> {
    if lifetime.0.as_secs() > 0 { Ok(lifetime.0) } else { Err(bad("`expires_in` is shorter than a second.")) }
}

fn shown(key: &Shown) -> Value {
    let time = |seconds: u64| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    json!({
        "id": key.id,
        "consumer": key.consumer,
        "label": key.label,
        "state": match key.state {
            Worth::Active => "active",
            Worth::Expired => "expired",
            Worth::Revoked => "revoked",
            Worth::NoConsumer => "no_consumer",
        },
        "created": time(key.created),
        "expires": key.expires.map(time),
        "revoked": key.revoked.map(time),
        "last_used": key.last_used.map(time),
        "replaced_by": key.replaced_by,
    })
}

/// The one answer that has a key in it: no cache may keep it.
fn with_text(made: &Shown, text: &str) -> Response {
    let mut body = shown(made);
    body["key"] = text.into();
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::CREATED, no_store, Json(body)).into_response()
}

fn bad(detail: &str) -> Refusal {
    problem(StatusCode::BAD_REQUEST, "bad_request", detail).into()
}

fn too_large(rejection: &BytesRejection) -> Refusal {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            problem(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is larger than 16 KiB.").into()
        }
        _ => bad("The body cannot be read."),
    }
}

fn refused(error: KeyError) -> Refusal {
    let response = match error {
        KeyError::Off => {
            problem(StatusCode::NOT_FOUND, "keys_off", "The configuration has no store for keys: see `stores`.")
        }
        KeyError::Unknown => problem(StatusCode::NOT_FOUND, "key_unknown", "There is no key of this id."),
        KeyError::Ended => {
            problem(StatusCode::CONFLICT, "key_ended", "The key has expired or is revoked: make a new one.")
        }
        KeyError::Replaced => {
            problem(StatusCode::CONFLICT, "key_replaced", "Another key has come in its place already.")
        }
        KeyError::Changed => problem(
            StatusCode::CONFLICT,
            "key_changed",
            "Somebody else has changed the key meanwhile: look at it again.",
        ),
        KeyError::TooMany => {
            problem(StatusCode::INSUFFICIENT_STORAGE, "keys_full", "There are as many keys as `keys.max` allows.")
        }
        KeyError::Store(StoreError::Full) => {
            let detail = "The store is full: raise `stores.local.max_size`, or make room on its disk.";
            problem(StatusCode::INSUFFICIENT_STORAGE, "store_full", detail)
        }
        KeyError::NoRandom(error) => {
            tracing::error!(%error, "no API key can be made");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "No key can be made.")
        }
        KeyError::Store(error) => {
            tracing::warn!(%error, "a change of API keys was refused");
            let detail = "The store cannot be written now. Try again.";
            let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
    };
    response.into()
}
