//! One JSON line for each request.

use std::{
    cell::RefCell,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderName, Version, header};

use super::{
    AT_THE_END, ON_THE_WAY,
    flags::Flags,
    line::{Line, Redaction, Secrets},
    metrics::{Metrics, NO_ROUTE},
    sink::{Kind, Loss, Ready, Sink},
    target::Target,
};
use crate::config::{Sources, telemetry::AccessLog as Config};

/// Where the configuration says what is written to.
pub(super) const PLACE: &str = "/telemetry/access_log/to";

static KIND: Kind = Kind { name: "access log", thread: "access-log", capacity: 4 << 20, mode: 0o666 };

/// The access log of the process; what it writes and where follows the configuration in force.
pub struct AccessLog {
    current: ArcSwapOption<Open>,
    loss: Arc<Loss>,
}

struct Open {
    sink: Arc<Sink>,
    headers: Vec<HeaderName>,
    redaction: Redaction,
}

/// A log that is ready to be put in force.
pub(super) struct Prepared {
    pub(super) ready: Ready,
    headers: Vec<HeaderName>,
    redaction: Redaction,
}

/// One request, as the log shows it.
pub struct Entry<'a> {
    /// The request's name.
    pub request_id: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The version of HTTP it came with; `-` if the request could not be read.
    pub protocol: &'static str,
    /// Listener that took the request.
    pub listener: &'a str,
    /// Route that took the request; `-` if none.
    pub route: &'a str,
    /// Host, canonical.
    pub host: &'a str,
    /// Method; empty if the request could not be read.
    pub method: &'a str,
    /// Path, canonical.
    pub path: &'a str,
    /// Query as it came.
    pub query: Option<&'a str>,
    /// The request's header fields.
    pub headers: Option<&'a HeaderMap>,
    /// Status sent, 0 if none.
    pub status: u16,
    /// Code of the refusal or fault that ended the request.
    pub code: Option<&'a str>,
    /// Status of the gRPC call, if it was one and has come to a status.
    pub grpc_status: Option<u32>,
    /// What happened.
    pub flags: Flags,
    /// What went wrong, for operators.
    pub detail: Option<&'a str>,
    /// Consumer, if one was established.
    pub consumer: Option<&'a str>,
    /// Upstream and the endpoint that answered.
    pub upstream: Option<(&'a str, Option<std::net::SocketAddr>)>,
    /// Attempts made.
    pub attempts: u32,
    /// Why the route's fallback has answered, if it has.
    pub fallback: Option<&'a str>,
    /// Whole time.
    pub duration: Duration,
    /// Time spent waiting for upstreams.
    pub upstream_duration: Duration,
    /// Body bytes received from the client.
    pub request_bytes: u64,
    /// Body bytes sent to the client.
    pub response_bytes: u64,
}

impl Entry<'_> {
    /// What is known of a request that could not be read.
    pub fn unread() -> Self {
        Self {
            request_id: "-",
            client: IpAddr::from([0, 0, 0, 0]),
            protocol: "-",
            listener: "-",
            route: NO_ROUTE,
            host: "",
            method: "",
            path: "",
            query: None,
            headers: None,
            status: 0,
            code: None,
            grpc_status: None,
            flags: Flags::default(),
            detail: None,
            consumer: None,
            upstream: None,
            attempts: 0,
            fallback: None,
            duration: Duration::ZERO,
            upstream_duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
        }
    }
}

impl AccessLog {
    /// A log that writes nothing until a configuration is applied.
    pub fn new(metrics: &Metrics) -> Self {
        Self { current: ArcSwapOption::empty(), loss: Loss::new(metrics.access_log_dropped.clone()) }
    }

    /// Opens what the configuration asks for. Changes nothing for what is open already.
    pub(super) fn prepare(&self, config: &Config, sources: &Sources, secrets: &Secrets) -> Result<Prepared, String> {
        let target = Target::of(&config.to, sources, PLACE)?;
        let current = self.current.load();
        let current = current.as_ref().map(|open| &open.sink);
        let ready =
            Ready::open(target, current, &KIND, &self.loss).map_err(|error| format!("cannot be opened: {error}"))?;
        let mut headers = vec![header::USER_AGENT, header::REFERER];
        headers.extend(config.headers.iter().map(|h| h.0.clone()));
        Ok(Prepared { ready, headers, redaction: Redaction::compile(&config.redact, secrets) })
    }

    /// Puts a prepared log in force; a file that stays is the one that was opened anew, for log rotation.
    pub(super) fn apply(&self, prepared: Option<Prepared>) {
        let open = prepared
            .map(|Prepared { ready, headers, redaction }| Arc::new(Open { sink: ready.apply(), headers, redaction }));
        self.replace(open, ON_THE_WAY);
    }

    /// Writes what is left and stops.
    pub fn close(&self) {
        self.replace(None, AT_THE_END);
    }

    fn replace(&self, open: Option<Arc<Open>>, patience: Duration) {
        let stays = |sink: &Arc<Sink>| open.as_ref().is_some_and(|open| Arc::ptr_eq(&open.sink, sink));
        let old = self.current.load_full().map(|old| Arc::clone(&old.sink)).filter(|sink| !stays(sink));
        self.current.store(open);
        if let Some(sink) = old {
            Sink::finish(sink, patience);
        }
    }

    /// Whether requests are logged at all.
    pub fn is_on(&self) -> bool {
        self.current.load().is_some()
    }

    /// Writes one line, or counts it as dropped.
    pub fn write(&self, entry: &Entry<'_>) {
        thread_local! { static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) }; }
        let current = self.current.load();
        let Some(open) = current.as_ref() else { return };
        BUFFER.with_borrow_mut(|buffer| {
            compose(buffer, entry, open);
            open.sink.push(buffer);
        });
    }
}

/// The name of a version of HTTP.
pub fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn compose(buffer: &mut Vec<u8>, e: &Entry<'_>, open: &Open) {
    let mut line = Line::begin(buffer, SystemTime::now());
    line.text("request_id", e.request_id);
    line.address("client", e.client);
    line.text("protocol", e.protocol);
    line.text("listener", e.listener);
    line.text("route", e.route);
    line.text("host", e.host);
    line.text("method", e.method);
    line.text("path", e.path);
    if let Some(query) = e.query {
        line.query(query, &open.redaction);
    }
    line.number("status", e.status.into());
    if let Some(status) = e.grpc_status {
        line.number("grpc_status", status.into());
    }
    if let Some(why) = e.fallback {
        line.text("fallback", why);
    }
    line.millis("duration_ms", e.duration);
    line.number("request_bytes", e.request_bytes);
    line.number("response_bytes", e.response_bytes);
    if let Some((upstream, endpoint)) = e.upstream {
        line.text("upstream", upstream);
        line.millis("upstream_ms", e.upstream_duration);
        line.number("attempts", e.attempts.into());
        if let Some(endpoint) = endpoint {
            line.address("endpoint", endpoint.ip());
            line.number("endpoint_port", endpoint.port().into());
        }
    }
    for (name, value) in [("consumer", e.consumer), ("code", e.code), ("detail", e.detail)] {
        if let Some(value) = value {
            line.text(name, value);
        }
    }
    if !e.flags.is_empty() {
        line.words("flags", e.flags.words());
    }
    if let Some(headers) = e.headers {
        line.headers(&open.headers, headers, &open.redaction);
    }
    line.end();
}
