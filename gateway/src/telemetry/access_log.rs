//! One JSON line for each request.

use std::{
    cell::RefCell,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderName, header};

use super::{
    line::{Line, Redaction, Secrets},
    metrics::{Metrics, NO_ROUTE},
    sink::{Sink, Target},
};
use crate::config::{Sources, telemetry::AccessLog as Config};

/// The access log of the process; what it writes and where follows the configuration in force.
pub struct AccessLog {
    current: ArcSwapOption<Open>,
    metrics: Arc<Metrics>,
}

struct Open {
    sink: Arc<Sink>,
    target: Target,
    headers: Vec<HeaderName>,
    redaction: Redaction,
}

/// A log that is ready to be put in force.
pub struct Prepared(Option<Arc<Open>>);

/// One request, as the log shows it.
pub struct Entry<'a> {
    /// The request's name.
    pub request_id: &'a str,
    /// The client's address.
    pub client: IpAddr,
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
    /// What went wrong, for operators.
    pub detail: Option<&'a str>,
    /// Consumer, if one was established.
    pub consumer: Option<&'a str>,
    /// Upstream and the endpoint that answered.
    pub upstream: Option<(&'a str, Option<std::net::SocketAddr>)>,
    /// Attempts made.
    pub attempts: u32,
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
            detail: None,
            consumer: None,
            upstream: None,
            attempts: 0,
            duration: Duration::ZERO,
            upstream_duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
        }
    }
}

impl AccessLog {
    /// A log that writes nothing until a configuration is applied.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { current: ArcSwapOption::empty(), metrics }
    }

    /// Opens what the configuration asks for, or keeps what is open already. Changes nothing.
    pub fn prepare(&self, config: Option<&Config>, sources: &Sources, secrets: &Secrets) -> Result<Prepared, String> {
        let Some(config) = config else { return Ok(Prepared(None)) };
        let target = match target(&config.to)? {
            Target::File(path) => {
                let path = path.to_string_lossy();
                Target::File(sources.resolve_path("/telemetry/access_log/to", &path))
            }
            stream => stream,
        };
        let kept = self.current.load().as_ref().filter(|open| open.target == target).map(|open| Arc::clone(&open.sink));
        let sink = match kept {
            Some(sink) => sink,
            None => Arc::new(Sink::open(target.clone()).map_err(|e| format!("cannot be opened: {e}"))?),
        };
        let mut headers = vec![header::USER_AGENT, header::REFERER];
        headers.extend(config.headers.iter().map(|h| h.0.clone()));
        let redaction = Redaction::compile(&config.redact, secrets);
        Ok(Prepared(Some(Arc::new(Open { sink, target, headers, redaction }))))
    }

    /// Puts a prepared log in force; a file that stays is opened anew, for log rotation.
    pub fn apply(&self, prepared: Prepared) {
        if let Some(open) = &prepared.0 {
            open.sink.reopen();
        }
        self.current.store(prepared.0);
    }

    /// Writes what is left and stops.
    pub fn close(&self) {
        self.current.store(None);
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
            if !open.sink.push(buffer) {
                self.metrics.access_log_dropped.inc();
            }
        });
    }
}

/// Checks where the log is to go, without opening it.
pub fn check_target(to: &str) -> Result<(), String> {
    target(to).map(drop)
}

fn target(to: &str) -> Result<Target, String> {
    match to {
        "stdout" => Ok(Target::Stdout),
        "stderr" => Ok(Target::Stderr),
        _ => match to.strip_prefix("file:") {
            Some(path) if !path.is_empty() => Ok(Target::File(PathBuf::from(path))),
            _ => Err("is neither `stdout`, `stderr`, nor `file:` and a path".into()),
        },
    }
}

fn compose(buffer: &mut Vec<u8>, e: &Entry<'_>, open: &Open) {
    let mut line = Line::begin(buffer, SystemTime::now());
    line.text("request_id", e.request_id);
    line.address("client", e.client);
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
    if let Some(headers) = e.headers {
        line.headers(&open.headers, headers, &open.redaction);
    }
    line.end();
}
