//! From a parsed header to a route: one canonical view, made once.

use std::sync::Arc;

use crossway_plugin_api::{Ctx, PathParams, Reply};
use crossway_plugins::request_id;
use http::{HeaderValue, Method, StatusCode, header};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{Admitted, Attempt, InFlightGauge, Log, grpc::Call, upgrade::Wanted};
use crate::{
    chain::{Chain, Entered},
    config::route::EncodedSlashes,
    front::{Conn, Ticket},
    gateway::Gateway,
    request::{self, View},
    respond,
    router::{Found, Lookup},
    snapshot::{Route, Snapshot, Target},
    upstream::{Attempts, exchange::Kept},
};

/// What the router made of a request.
pub(super) enum Routed {
    /// A route takes it.
    To(Arc<Route>, PathParams),
    /// None does: the answer, once the global plugins have run.
    Nowhere(Reply),
}

/// Admits a request: canonical host, path and client address, then the route. `Err` is a defect of ours: the front
/// hands every request over with a ticket.
pub(super) fn admit(gateway: &Gateway, session: &mut Session) -> Result<(Admitted, Routed), &'static str> {
    let conn = Arc::clone(Conn::of(session.digest()).ok_or("a session without a connection")?);
    let Ticket { snapshot, listener, framing, view, started, last } =
        conn.take_ticket().ok_or("a request without a ticket")?;
    if last {
        session.set_keepalive(None);
    }
    let req = session.req_header();
    let forwarded = req.headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
    let client = request::client_address(conn.link.peer_ip(), forwarded, &listener.trusted_proxies);
    let mut ctx = Ctx::new(client, view.host.clone(), Arc::clone(&view.path));
    ctx.request_id = request_id::fresh();
    ctx.scheme = conn.link.scheme();
    ctx.client_certificate = conn.link.secured.as_ref().and_then(|secured| secured.certificate.clone());
    ctx.max_request_body = listener.limits.request.body.0;
    let routed = route(gateway, &snapshot, listener.entry, &view, req);
    let admitted = Admitted {
        ctx,
        chain: Arc::clone(&snapshot.global),
        snapshot,
        listener,
        conn,
        framing,
        version: req.version,
        wanted: Wanted::default(),
        started,
        route: None,
        entered: Entered::default(),
        port: view.port,
        body: None,
        kept: Kept::default(),
        upload: None,
        is_spent: false,
        grpc: Call::native(req, req.version),
        encoder: None,
        attempt: Attempt::default(),
        upstream: None,
        attempts: Attempts::default(),
        outcome: Log::default(),
        _in_flight: InFlightGauge::enter(&gateway.metrics.in_flight),
    };
    Ok((admitted, routed))
}

fn route(gateway: &Gateway, snapshot: &Arc<Snapshot>, entry: u32, view: &View, req: &RequestHeader) -> Routed {
    let preflight = preflight_method(req);
    let lookup = Lookup {
        entry,
        host: &view.host,
        path: &view.path,
        method: preflight.as_ref().unwrap_or(&req.method),
        headers: &req.headers,
        query: req.uri.query(),
    };
    match snapshot.router.find(&lookup) {
        Found::Route { value, params } => {
            if view.encoded_slash && value.encoded_slashes == EncodedSlashes::Reject {
                gateway.metrics.refused(request::ENCODED_SLASH.code);
                return Routed::Nowhere(respond::refusal_reply(&request::ENCODED_SLASH));
            }
            if wants_connection(value) && gateway.admission.is_full(gateway.metrics.in_flight.get()) {
                gateway.metrics.refused(request::OVERLOADED.code);
                return Routed::Nowhere(respond::refusal_reply(&request::OVERLOADED));
            }
            let params = PathParams { names: Arc::clone(&value.params), values: params };
            Routed::To(Arc::clone(value), params)
        }
        Found::MethodNotAllowed { allow } => Routed::Nowhere(method_not_allowed(&allow)),
        Found::NotFound => Routed::Nowhere(respond::refusal_reply(&request::NO_ROUTE)),
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
    /// Takes the route: its chain, its limits, the form of calls.
    pub(super) fn take_route(&mut self, route: Arc<Route>, params: PathParams, req: &RequestHeader) {
        if route.grpc_web && self.grpc.is_none() {
            self.grpc = Call::web(req, self.version);
        }
        self.ctx.route = Some(Arc::clone(&route.name));
        self.ctx.params = params;
        if let Some(max) = route.max_request_body {
            self.ctx.max_request_body = max;
        }
        let client = &self.listener.limits.client;
        match (route.client_pace(client), &self.grpc) {
            // A caller streams when it has something to say.
            (None, Some(_)) => self.conn.set_pace(0, client.idle.0),
            (Some((rate, idle)), _) => self.conn.set_pace(rate, idle),
            (None, None) => {}
        }
        self.chain = Arc::<Chain>::clone(&route.chain);
        self.route = Some(route);
    }
}

/// Whether each request needs a connection to the upstream of its own.
fn wants_connection(route: &Route) -> bool {
    matches!(&route.target, Target::Upstream { to, .. } if to.all().any(|upstream| !upstream.http2))
}
