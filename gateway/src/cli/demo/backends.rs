//! The sample backends: a CRM and an ERP, each with a page that shows what it received.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Requests a backend remembers.
const MEMORY: usize = 100;

/// What a backend received.
type Received = Arc<Mutex<VecDeque<Value>>>;

/// Starts a backend; returns its address.
pub(super) fn start(name: &str, pages: fn() -> Router) -> anyhow::Result<String> {
    let received = Received::default();
    let pages = pages()
        .layer(middleware::from_fn_with_state(Arc::clone(&received), remember))
        .route("/received", get(show).with_state(received));
    super::serve::serve(name, |_| Ok(pages))
}

async fn remember(State(received): State<Received>, request: Request, next: Next) -> Response {
    note(&received, &request);
    next.run(request).await
}

fn note(received: &Received, request: &Request) {
    let headers: serde_json::Map<String, Value> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let seen = json!({"method": request.method().as_str(), "target": request.uri().to_string(), "headers": headers});
    let mut memory = received.lock();
    memory.truncate(MEMORY - 1);
    memory.push_front(seen);
}

async fn show(State(received): State<Received>) -> Json<Vec<Value>> {
    Json(received.lock().iter().cloned().collect())
}

/// Customers.
pub(super) fn crm() -> Router {
    Router::new().route("/api/v2/clients/{id}", get(customer))
}

async fn customer(Path(id): Path<String>) -> Response {
    if id == "broken" {
        return (StatusCode::INTERNAL_SERVER_ERROR, "NullPointerException at com.crm.Client:42\n").into_response();
    }
    Json(json!({"customer_id": id, "first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com"}))
        .into_response()
}

/// Invoices, clients and orders.
pub(super) fn erp() -> Router {
    Router::new()
        .route("/invoices", get(invoices))
        .route("/invoices/clients", axum::routing::post(new_client))
        .route("/orders", get(orders).post(new_order))
}

async fn invoices(Query(query): Query<Vec<(String, String)>>) -> Json<Value> {
    let client = query.iter().find(|(name, _)| name == "client").map_or("", |(_, value)| value);
    Json(json!({"client": client, "invoices": [{"number": "2026-001", "amount": "1200.00", "currency": "EUR"}]}))
}

async fn new_client(Json(client): Json<Value>) -> (StatusCode, Json<Value>) {
    (StatusCode::CREATED, Json(json!({"clientIdentifier": "E-1001", "received": client})))
}

/// Says who asks, as the gateway has established it.
async fn orders(headers: HeaderMap) -> Json<Value> {
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let caller = json!({"consumer": field("x-consumer-name"), "client": field("x-client-id")});
    Json(json!({"caller": caller, "orders": [{"number": "7", "article": "A-7", "state": "shipped"}]}))
}

async fn new_order(Json(order): Json<Value>) -> (StatusCode, Json<Value>) {
    (StatusCode::CREATED, Json(json!({"number": "8", "received": order})))
}
