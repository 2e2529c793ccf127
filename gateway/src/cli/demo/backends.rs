//! The sample backends: a CRM and an ERP, each with a page that shows what it received.

use std::{collections::VecDeque, sync::Arc};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{Path, Query, Request, State},
    http::StatusCode,
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

/// Starts a backend on a thread of its own; returns its address.
pub(super) fn start(name: &'static str, pages: fn() -> Router) -> anyhow::Result<String> {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = async move {
        let received = Received::default();
        let pages = pages()
            .layer(middleware::from_fn_with_state(Arc::clone(&received), remember))
            .route("/received", get(show).with_state(received));
        axum::serve(tokio::net::TcpListener::from_std(socket)?, pages).await
    };
    std::thread::Builder::new().name(name.into()).spawn(move || runtime.block_on(serve))?;
    Ok(address)
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

/// Invoices and clients.
pub(super) fn erp() -> Router {
    Router::new().route("/invoices", get(invoices)).route("/invoices/clients", axum::routing::post(new_client))
}

async fn invoices(Query(query): Query<Vec<(String, String)>>) -> Json<Value> {
    let client = query.iter().find(|(name, _)| name == "client").map_or("", |(_, value)| value);
    Json(json!({"client": client, "invoices": [{"number": "2026-001", "amount": "1200.00", "currency": "EUR"}]}))
}

async fn new_client(Json(client): Json<Value>) -> (StatusCode, Json<Value>) {
    (StatusCode::CREATED, Json(json!({"clientIdentifier": "E-1001", "received": client})))
}
