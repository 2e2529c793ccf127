//! From a parsed header to a route: one canonical view, made once.

use std::sync::Arc;

use crossway_plugin_api::{Ctx, PathParams, Reply};
use crossway_plugins::request_id;
use http::{HeaderValue, Method, StatusCode, header};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{Admitted, Attempt, InFlightGauge, Log};
use crate::{
    chain::{Chain, Entered},
    config::route::EncodedSlashes,
    front::{Conn, Ticket},
    gateway::Gateway,
    request::{self, Refusal},
    respond,
    router::{Found, Lookup},
    snapshot::{Route, Snapshot},
};

/// What the router made of a request.
pub(super) enum Routed {
    /// A route takes it.
    To(Arc<Route>, PathParams),
    /// None does: the answer, once the global plugins have run.
    Nowhere(Reply),
}

/// The canonical view of a request.
struct View {
    host: String,
    port: Option<u16>,
    path: String,
    query: Option<String>,
    encoded_slash: bool,
    changed: bool,
}

/// Admits a request: canonical host, path and client address, then the route. `Err` is a defect of ours: the front
/// hands every request over with a ticket.
pub(super) fn admit(gateway: &Gateway, session: &mut Session) -> Result<(Admitted, Routed), &'static str> {
    let conn = Arc::clone(Conn::of(session.digest()).ok_or("a session without a connection")?);
    let Ticket { snapshot, listener, framing, started, last } =
        conn.take_ticket().ok_or("a request without a ticket")?;
    if last {
        session.set_keepalive(None);
    }
    let req = session.req_header_mut();
    let forwarded = req.headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
    let client = request::client_address(conn.peer_ip(), forwarded, &listener.trusted_proxies);
    let viewed = view(req);
    let (view, refusal) = match viewed {
        Ok(view) => (view, None),
        Err(refusal) => (View::unknown(), Some(refusal)),
    };
    let mut ctx = Ctx::new(client, view.host.clone(), view.path.as_str().into());
    ctx.request_id = request_id::fresh();
    ctx.max_request_body = listener.limits.request.body.0;
    let routed = match refusal {
        Some(refusal) => {
            gateway.metrics.refused(refusal.code);
            Routed::Nowhere(respond::refusal_reply(&refusal))
        }
        None => route(gateway, &snapshot, listener.entry, &view, req),
    };
    if view.changed {
        apply(req, &view);
    }
    let admitted = Admitted {
        ctx,
        chain: Arc::clone(&snapshot.global),
        snapshot,
        listener,
        conn,
        framing,
        started,
        route: None,
        entered: Entered::default(),
        port: view.port,
        body: None,
        attempt: Attempt::default(),
        outcome: Log::default(),
        _in_flight: InFlightGauge::enter(&gateway.metrics.in_flight),
    };
    Ok((admitted, routed))
}

impl View {
    fn unknown() -> Self {
        Self { host: String::new(), port: None, path: "-".into(), query: None, encoded_slash: false, changed: false }
    }
}

fn view(req: &RequestHeader) -> Result<View, Refusal> {
    let raw = std::str::from_utf8(req.raw_path()).map_err(|_| request::BAD_TARGET)?;
    let host = match req.headers.get(header::HOST) {
        Some(value) => Some(value.to_str().map_err(|_| request::BAD_HOST)?),
        None => None,
    };
    let (host, target) = request::split_target(&req.method, raw, host, "http")?;
    let canonical = match target.query {
        Some(query) => target.path.len() + 1 + query.len() == raw.len(),
        None => target.path.len() == raw.len(),
    };
    let changed = !canonical || !raw.starts_with(target.path.as_ref());
    Ok(View {
        port: host.port,
        host: host.name.into_owned(),
        query: target.query.map(str::to_owned),
        encoded_slash: target.encoded_slash,
        path: target.path.into_owned(),
        changed,
    })
}

/// Replaces what the client wrote by the canonical form, so that nobody after this sees the other.
fn apply(req: &mut RequestHeader, view: &View) {
    let target = match &view.query {
        Some(query) => format!("{}?{query}", view.path),
        None => view.path.clone(),
    };
    if let Ok(uri) = target.parse() {
        req.set_uri(uri);
    }
}

fn route(gateway: &Gateway, snapshot: &Arc<Snapshot>, entry: u32, view: &View, req: &RequestHeader) -> Routed {
    let preflight = preflight_method(req);
    let lookup = Lookup {
        entry,
        host: &view.host,
        path: &view.path,
        method: preflight.as_ref().unwrap_or(&req.method),
        headers: &req.headers,
        query: view.query.as_deref(),
    };
    match snapshot.router.find(&lookup) {
        Found::Route { value, params } => {
            if view.encoded_slash && value.encoded_slashes == EncodedSlashes::Reject {
                gateway.metrics.refused(request::ENCODED_SLASH.code);
                return Routed::Nowhere(respond::refusal_reply(&request::ENCODED_SLASH));
            }
            let params = PathParams { names: Arc::clone(&value.params), values: params };
            Routed::To(Arc::clone(value), params)
        }
        Found::MethodNotAllowed { allow } => Routed::Nowhere(method_not_allowed(&allow)),
        Found::NotFound => {
            Routed::Nowhere(Reply::problem(StatusCode::NOT_FOUND, "no_route", "No route takes this request."))
        }
    }
}

/// The method that a CORS preflight asks about (Fetch standard, "CORS-preflight request"): the route is chosen by it.
fn preflight_method(req: &RequestHeader) -> Option<Method> {
    if req.method != Method::OPTIONS || !req.headers.contains_key(header::ORIGIN) {
        return None;
    }
    Method::from_bytes(req.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

/// 405 with `Allow` (RFC 9110, section 15.5.6).
pub(super) fn method_not_allowed(allow: &[Method]) -> Reply {
    let list = allow.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let reply = Reply::problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "No route takes this method for this path.",
    );
    match HeaderValue::from_str(&list) {
        Ok(value) => reply.header(header::ALLOW, value),
        Err(_) => reply,
    }
}

impl Admitted {
    /// Takes the route: its chain, its limits, its deadline.
    pub(super) fn take_route(&mut self, route: Arc<Route>, params: PathParams) {
        self.ctx.route = Some(Arc::clone(&route.name));
        self.ctx.params = params;
        if let Some(max) = route.max_request_body {
            self.ctx.max_request_body = max;
        }
        self.chain = Arc::<Chain>::clone(&route.chain);
        self.route = Some(route);
    }
}
