//! Failures at request time that are ours or the upstream's.

use crate::NoPlace;

/// Why a request could not be answered as it should. The gateway alone decides which status, log level and metric label
/// each one becomes; the text in a variant goes to the log, never to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The upstream has no endpoint to send to (unresolved names, none healthy).
    #[error("no endpoint of the upstream can be used")]
    NoEndpoint,
    /// The circuit to the endpoints is open: nothing is sent for a while.
    #[error("the circuit is open")]
    CircuitOpen {
        /// After how many seconds it may be worth trying again.
        retry_after: u64,
    },
    /// The upstream has as many requests in flight as it may have.
    #[error("the upstream has as many requests as it may have: {0}")]
    Busy(NoPlace),
    /// No connection to the endpoint.
    #[error("no connection to the endpoint: {0}")]
    Connect(String),
    /// No connection within the time allowed.
    #[error("no connection to the endpoint in time")]
    ConnectTimeout,
    /// The endpoint's certificate or handshake was refused.
    #[error("TLS to the endpoint: {0}")]
    Tls(String),
    /// The endpoint closed or reset the connection.
    #[error("the endpoint broke the connection: {0}")]
    Reset(String),
    /// The endpoint turned the request away and says that it has not acted on it (RFC 9113, section 8.7).
    #[error("the endpoint has not taken the request: {0}")]
    Unprocessed(String),
    /// The endpoint did not answer in time.
    #[error("the endpoint did not answer in time")]
    UpstreamTimeout,
    /// The endpoint did not answer in the time of one attempt.
    #[error("the endpoint did not answer within the time of one attempt")]
    AttemptTimeout,
    /// The endpoint's answer breaks HTTP.
    #[error("the endpoint's answer is not valid HTTP: {0}")]
    UpstreamProtocol(String),
    /// The endpoint's answer is larger than may be buffered.
    #[error("the endpoint's answer is larger than {max} bytes, which is all that may be buffered")]
    ResponseTooLarge {
        /// The bound, in bytes.
        max: u64,
    },
    /// The request's total time is over.
    #[error("the request's deadline has passed")]
    Deadline,
    /// The client sent its body too slowly.
    #[error("the client did not send its request in time")]
    ClientTimeout,
    /// The client sent a larger body than allowed.
    #[error("the request body is larger than {max} bytes")]
    RequestTooLarge {
        /// The bound, in bytes.
        max: u64,
    },
    /// The client's message broke HTTP after its header, in the framing of its body.
    #[error("the request body's framing is not valid: {0}")]
    RequestFraming(String),
    /// The request has come through this gateway too often.
    #[error("the request goes in circles")]
    Loop,
    /// The client went away.
    #[error("the client closed the connection")]
    ClientGone,
    /// Something a plugin depends on did not answer, or not as it should.
    #[error("a dependency of the plugin failed: {0}")]
    Dependency(String),
    /// The gateway cannot sign in at the upstream: there is no token to show.
    #[error("no token for the upstream")]
    UpstreamAuth {
        /// After how many seconds it may be worth trying again.
        retry_after: u64,
    },
    /// A defect of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Fault {
    /// Stable name: the `code` of the problem document, the label in metrics and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoEndpoint => "no_endpoint",
            Self::CircuitOpen { .. } => "circuit_open",
            Self::Busy(_) => "upstream_busy",
            Self::Connect(_) => "upstream_connect",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::Tls(_) => "upstream_tls",
            Self::Reset(_) => "upstream_reset",
            Self::Unprocessed(_) => "upstream_unprocessed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::AttemptTimeout => "upstream_attempt_timeout",
            Self::UpstreamProtocol(_) => "upstream_protocol",
            Self::ResponseTooLarge { .. } => "upstream_response_too_large",
            Self::Deadline => "deadline_exceeded",
            Self::ClientTimeout => "request_timeout",
            Self::RequestTooLarge { .. } => "body_too_large",
            Self::RequestFraming(_) => "bad_framing",
            Self::Loop => "loop_detected",
            Self::ClientGone => "client_gone",
            Self::Dependency(_) => "dependency_failed",
            Self::UpstreamAuth { .. } => "upstream_auth",
            Self::Internal(_) => "internal_error",
        }
    }
}
