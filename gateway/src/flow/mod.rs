//! The life of a request between the front and the log, apart from the framework's hooks.

mod admit;
mod body;
mod called;
mod coded;
mod exchanged;
mod fallback;
mod finish;
mod flags;
pub mod grpc;
mod outbound;
mod refused;
mod steps;
mod streamed;
mod tunnelled;
mod upgrade;

use std::{net::IpAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use crossway_plugin_api::{Ctx, Fault};
use pingora_http::ResponseHeader;

use crate::{
    chain::{Chain, Entered},
    coding::Encoder,
    front::Conn,
    request::Framing,
    snapshot::{ListenerState, Route, Snapshot},
    upstream::{Answering, Attempts, Upstream, bound::Bound, exchange::Kept, state::InFlight},
};

pub use grpc::trailers::clean as clean_trailers;
pub use steps::Steps;

/// One request on its way. Pingora's `CTX`; empty until the request is admitted.
#[derive(Default)]
pub struct Flight {
    /// Set by the first phase; without it nothing of ours has seen the request.
    admitted: Option<Box<Admitted>>,
}

/// A request that has been admitted.
pub struct Admitted {
    /// What plugins share.
    pub ctx: Ctx,
    /// The configuration that this request keeps to its end.
    pub snapshot: Arc<Snapshot>,
    /// The listener that took it.
    pub listener: Arc<ListenerState>,
    /// The connection it came on.
    pub conn: Arc<Conn>,
    /// How its body is framed.
    pub framing: Framing,
    /// The version of HTTP it came with.
    pub version: http::Version,
    /// What it wants of its connection.
    wanted: upgrade::Wanted,
    /// When its first byte arrived.
    pub started: Instant,
    /// The route that takes it.
    pub route: Option<Arc<Route>>,
    /// The plugins that run: the route's, or the global ones where there is no route.
    pub chain: Arc<Chain>,
    /// Which of them saw the request.
    pub entered: Entered,
    /// The port that the client named beside the host.
    pub port: Option<u16>,
    /// The whole body, once it was read, as the plugins left it.
    pub body: Option<Bytes>,
    /// What was read of a body that streams, for another attempt on the exchange way.
    kept: Kept,
    /// The request side of a call, for another attempt at another upstream.
    upload: Option<Box<grpc::Upload>>,
    /// What was read of the body cannot be sent again.
    is_spent: bool,
    /// The gRPC call that it is, if it is one.
    pub grpc: Option<grpc::Call>,
    /// Compresses the response, on the stream way.
    pub encoder: Option<Encoder>,
    /// The upstream that it goes to, once that is known.
    pub upstream: Option<Arc<Upstream>>,
    /// The attempts to reach it.
    pub attempts: Attempts,
    /// The attempt being made on the stream way.
    pub attempt: Attempt,
    /// What is logged and counted at the end.
    pub outcome: Log,
    _in_flight: InFlightGauge,
}

/// An attempt on the stream way.
#[derive(Default)]
pub struct Attempt {
    /// Its place among the requests at its endpoint, which lasts to the end of the answer.
    pub place: Option<InFlight>,
    /// Whether its connection had served a request before.
    pub reused: bool,
    /// When the whole request had been sent.
    pub sent: Option<Instant>,
    /// Whether it ended in a status that is to be tried again.
    pub refused_status: bool,
    /// All of the request was at hand when it began.
    pub whole: bool,
    /// The status for which its answer does not go to the client: the route has something in its place.
    pub declined: Option<http::StatusCode>,
    /// What bounds the wait of the moment.
    pub bound: Option<Bound>,
    /// What the end of its answer says of the endpoint.
    pub answering: Option<Answering>,
}

/// What is logged and counted when a request ends.
#[derive(Default)]
pub struct Log {
    /// Stable code of the refusal or fault that ended it.
    pub code: Option<&'static str>,
    /// The fault, for operators.
    pub fault: Option<Fault>,
    /// Why the route's fallback has taken the place of a failure, if it has.
    pub fallback: Option<&'static str>,
    /// The status meant by an answer that says it in another way.
    pub meant: Option<http::StatusCode>,
    /// Whether the fault has cut an answer short that had begun.
    pub cut: bool,
    /// When the response header was ready.
    pub answered: Option<Instant>,
    /// Body bytes that came from the client.
    pub request_bytes: u64,
}

/// Keeps the gauge of requests in flight right, even over a panic.
struct InFlightGauge(prometheus::IntGauge);

impl InFlightGauge {
    fn enter(gauge: &prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlightGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Flight {
    /// The request, once admitted.
    pub fn admitted(&mut self) -> Option<&mut Admitted> {
        self.admitted.as_deref_mut()
    }
}

impl Admitted {
    /// Notes the fault that ends this request.
    pub fn failed(&mut self, fault: &Fault) {
        self.outcome.code = Some(fault.code());
        self.outcome.fault = Some(fault.clone());
    }

    /// Our side of the conversation is HTTP/1.1, whatever the upstream speaks; a client of HTTP/1.0 knows no chunks
    /// (RFC 9112, section 6.1) and reads to the end of the connection.
    fn speak_version(&self, res: &mut ResponseHeader) {
        res.set_version(http::Version::HTTP_11);
        if self.version == http::Version::HTTP_10 {
            res.remove_header(&http::header::TRANSFER_ENCODING);
        }
    }

    /// Before the response phases: brings the client back to the endpoint that has answered, where the upstream wants
    /// that and the client does not know it yet.
    fn stick(&self, head: &mut ResponseHeader) -> Result<(), Fault> {
        let Some(sticky) = self.upstream.as_ref().and_then(|upstream| upstream.sticky.as_ref()) else { return Ok(()) };
        let Some(tag) = self.attempts.tag.filter(|tag| self.attempts.wish.sticky != Some(*tag)) else { return Ok(()) };
        let Some(field) = sticky.field(tag, self.conn.link.scheme() == "https") else { return Ok(()) };
        let added = head.append_header(http::header::SET_COOKIE, field);
        added.map(drop).map_err(|_| Fault::Internal("a cookie that cannot be written".into()))
    }

    fn peer(&self) -> IpAddr {
        self.conn.link.peer_ip()
    }
}
