//! What is watched at the endpoints of an upstream, by whom it is learnt, and how it is told.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crossway_plugin_api::{Fault, config::StatusSet};
use http::StatusCode;
use pingora_http::ResponseHeader;

use super::{Asked, breaker, health, outlier};
use crate::{flow::grpc, telemetry::metrics::WatchMetrics};

/// The rules by which the endpoints of one upstream are watched, as the configuration in force has them.
pub struct Watch {
    /// Number of that configuration: what an older one says does not count any more.
    pub generation: u64,
    /// Whether the endpoints are spoken to in HTTP/2.
    pub http2: bool,
    /// Probes.
    pub health: Option<Arc<health::Plan>>,
    /// Ejections.
    pub outlier: Option<outlier::Plan>,
    /// Circuits.
    pub breaker: Option<breaker::Plan>,
    /// The circuit of the upstream as a whole, if it has one.
    pub whole: Option<Arc<breaker::Breaker>>,
    /// Whether endpoints are used all the same while probes and ejections leave none.
    pub use_all: bool,
    /// Where it is told.
    pub notes: Notes,
}

/// Something that has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Probes have found an endpoint unhealthy.
    Unhealthy,
    /// Probes have found it healthy again.
    Healthy,
    /// Its answers have failed.
    Ejected,
    /// The ejection is over.
    Returned,
    /// A circuit has opened.
    CircuitOpen,
    /// It lets a few requests try.
    CircuitHalfOpen,
    /// It has closed.
    CircuitClosed,
}

impl Event {
    /// Each, in the order of their numbers, as it is labelled.
    pub const NAMES: [&str; 7] =
        ["unhealthy", "healthy", "ejected", "returned", "circuit_open", "circuit_half_open", "circuit_closed"];

    /// As it is labelled.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Where changes are logged and counted.
#[derive(Clone)]
pub struct Notes {
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// Which endpoint it is about; none for the upstream as a whole.
    pub endpoint: Option<Arc<str>>,
    /// Counters.
    pub metrics: WatchMetrics,
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notes({}, {:?})", self.upstream, self.endpoint)
    }
}

impl Notes {
    /// The same about an endpoint.
    pub(super) fn about(&self, endpoint: &str) -> Self {
        Self { endpoint: Some(endpoint.into()), ..self.clone() }
    }

    /// Logs and counts a change.
    pub(super) fn tell(&self, event: Event, reason: &str) {
        self.metrics.events[event as usize].inc();
        let (upstream, endpoint) = (&*self.upstream, self.endpoint.as_deref().unwrap_or("all"));
        match event {
            Event::Unhealthy => tracing::warn!(upstream, endpoint, reason, "an endpoint is unhealthy"),
            Event::Healthy => tracing::info!(upstream, endpoint, reason, "an endpoint is healthy again"),
            Event::Ejected => tracing::warn!(upstream, endpoint, reason, "an endpoint is ejected for a while"),
            Event::Returned => tracing::info!(upstream, endpoint, reason, "an endpoint gets requests again"),
            Event::CircuitOpen => tracing::warn!(upstream, endpoint, reason, "a circuit is open"),
            Event::CircuitHalfOpen => tracing::info!(upstream, endpoint, reason, "a circuit is half-open"),
            Event::CircuitClosed => tracing::info!(upstream, endpoint, reason, "a circuit is closed again"),
        }
    }
}

/// What came of a request, as far as it says something of the endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Came<'a> {
    what: What<'a>,
    /// From the whole request sent to the response header, if it came after that.
    waited: Option<Duration>,
    /// It came after the response header.
    late: bool,
}

#[derive(Debug, Clone, Copy)]
enum What<'a> {
    Answer(StatusCode),
    Fault(&'a Fault),
    /// Nothing that the endpoint could be blamed or praised for.
    Nothing,
}

impl<'a> Came<'a> {
    /// What this says of an endpoint. `first` if no other attempt of the request was made before, and nobody but the
    /// configuration has set its deadline; `http2` if the endpoint is spoken to in it.
    pub(super) fn of(
        came: Result<&ResponseHeader, &'a Fault>,
        asked: &Asked<'_>,
        (first, http2): (bool, bool),
        now: Instant,
    ) -> Self {
        let waited = asked.sent.map(|sent| now.saturating_duration_since(sent));
        let what = match came {
            Ok(head) => match answered(head) {
                // A deadline that its caller has set is what the service says here.
                StatusCode::GATEWAY_TIMEOUT if head.status == StatusCode::OK && !first => What::Nothing,
                status => What::Answer(status),
            },
            Err(fault) => match fault {
                // A connection that was kept and that the server has closed is no failure of the server's.
                Fault::Reset(_) if asked.reused && !http2 => What::Nothing,
                Fault::Unprocessed(_) if asked.reused => What::Nothing,
                Fault::Connect(_)
                | Fault::ConnectTimeout
                | Fault::Tls(_)
                | Fault::Reset(_)
                | Fault::Unprocessed(_)
                | Fault::UpstreamTimeout
                | Fault::UpstreamProtocol(_) => What::Fault(fault),
                // Where the client took the time, or another endpoint did, this one is not to blame.
                Fault::Deadline if first && waited.is_some() => What::Fault(fault),
                _ => What::Nothing,
            },
        };
        Self { what, waited, late: false }
    }

    /// An answer that has ended as it should, or with this status.
    pub(super) fn ended(status: StatusCode) -> Self {
        Self { what: What::Answer(status), waited: None, late: true }
    }

    /// An answer that has broken off, by a fault of the endpoint's.
    pub(super) fn broken(fault: &'a Fault) -> Self {
        Self { what: What::Fault(fault), waited: None, late: true }
    }

    /// Whether it is a failure; `None` if it says nothing.
    pub(super) fn is_failure(&self, statuses: &[StatusSet]) -> Option<bool> {
        match self.what {
            What::Answer(status) => Some(statuses.iter().any(|set| set.contains(status))),
            What::Fault(_) => Some(true),
            What::Nothing => None,
        }
    }

    /// Whether the endpoint has taken longer than this.
    pub(super) fn took_longer_than(&self, limit: Duration) -> bool {
        self.waited.is_some_and(|waited| waited > limit)
    }
}

/// For the log. The text of a fault stays out of it: it may hold what the endpoint says.
impl fmt::Display for Came<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.what, self.waited) {
            (What::Answer(status), _) if self.late => write!(f, "status {} in trailers", status.as_u16()),
            (What::Fault(fault), _) if self.late => write!(f, "{} within the answer", fault.code()),
            (What::Answer(status), Some(waited)) => {
                write!(f, "status {} after {} ms", status.as_u16(), waited.as_millis())
            }
            (What::Answer(status), None) => write!(f, "status {}", status.as_u16()),
            (What::Fault(fault), _) => f.write_str(fault.code()),
            (What::Nothing, _) => f.write_str("nothing"),
        }
    }
}

/// The status of an answer; of one to a gRPC call that has ended in its header, what that means in HTTP.
fn answered(head: &ResponseHeader) -> StatusCode {
    match head.headers.get(grpc::STATUS) {
        Some(status) if head.status == StatusCode::OK => grpc::in_http(status),
        _ => head.status,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http::Method;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    pub(in crate::upstream) fn statuses() -> Vec<StatusSet> {
        StatusSet::parse("502-504").into_iter().collect()
    }

    pub(in crate::upstream) fn answer(status: u16) -> Came<'static> {
        Came { what: What::Answer(StatusCode::from_u16(status).unwrap()), waited: None, late: false }
    }

    pub(in crate::upstream) fn slow(millis: u64) -> Came<'static> {
        Came { waited: Some(Duration::from_millis(millis)), ..answer(200) }
    }

    pub(in crate::upstream) fn broken() -> Came<'static> {
        Came { what: What::Fault(&Fault::ConnectTimeout), waited: None, late: false }
    }

    pub(in crate::upstream) fn neutral() -> Came<'static> {
        Came { what: What::Nothing, waited: None, late: false }
    }

    pub(in crate::upstream) fn notes() -> Notes {
        Notes { upstream: "erp".into(), endpoint: None, metrics: Metrics::new().watch("erp") }
    }

    #[test]
    fn who_is_to_blame() {
        let text = String::new;
        let now = Instant::now();
        let is_failure = |fault: &Fault, reused, sent: bool, first, http2| {
            let asked = Asked { method: &Method::GET, replayable: true, reused, sent: sent.then_some(now) };
            Came::of(Err(fault), &asked, (first, http2), now).is_failure(&[])
        };
        for fault in [
            Fault::Connect(text()),
            Fault::ConnectTimeout,
            Fault::Tls(text()),
            Fault::UpstreamTimeout,
            Fault::UpstreamProtocol(text()),
            Fault::Reset(text()),
            Fault::Unprocessed(text()),
        ] {
            assert_eq!(is_failure(&fault, false, true, false, false), Some(true), "{fault:?}");
        }
        for fault in
            [Fault::ClientGone, Fault::ClientTimeout, Fault::Internal(text()), Fault::RequestTooLarge { max: 1 }]
        {
            assert_eq!(is_failure(&fault, false, true, true, false), None, "{fault:?}");
        }
        assert_eq!(is_failure(&Fault::Reset(text()), true, true, true, false), None, "a connection that was kept");
        assert_eq!(is_failure(&Fault::Reset(text()), true, true, true, true), Some(true), "a stream of one");
        assert_eq!(is_failure(&Fault::Unprocessed(text()), true, true, true, true), None, "GOAWAY");
        assert_eq!(is_failure(&Fault::Deadline, false, true, true, false), Some(true));
        assert_eq!(is_failure(&Fault::Deadline, false, true, false, false), None, "another's time, or the caller's");
        assert_eq!(is_failure(&Fault::Deadline, false, false, true, false), None, "an upload");
    }

    #[test]
    fn a_call_that_is_told_unavailable_has_failed() {
        let mut head = ResponseHeader::build(200, None).unwrap();
        let asked = Asked { method: &Method::POST, replayable: true, reused: true, sent: None };
        let failed =
            |head: &ResponseHeader| Came::of(Ok(head), &asked, (true, true), Instant::now()).is_failure(&statuses());
        assert_eq!(failed(&head), Some(false));
        for (status, expected) in [("0", false), ("14", true), ("4", true), ("13", false)] {
            head.insert_header("grpc-status", status).unwrap();
            assert_eq!(failed(&head), Some(expected), "{status}");
        }
        head.insert_header("grpc-status", "4").unwrap();
        let hurried = Came::of(Ok(&head), &asked, (false, true), Instant::now());
        assert_eq!(hurried.is_failure(&statuses()), None, "the caller's deadline");
    }
}
