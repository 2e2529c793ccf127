//! One bounded request, one bounded response, over a connector of our own.
//!
//! The one inside Pingora's `HttpProxy` is private; this one has the same settings and shares the endpoints, their
//! state, the retry rules and the peers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use crossway_plugin_api::Fault;
use http::{HeaderValue, StatusCode, Uri, header, uri};
use pingora_core::{
    connectors::{
        ConnectorOptions,
        http::{Connector, v1},
    },
    protocols::http::client::HttpSession,
    upstreams::peer::HttpPeer,
};
use pingora_http::{RequestHeader, ResponseHeader};

use super::{
    Answer, Asked, Attempts, Endpoint, Interim, Upstream, bound::Bound, fault, lease::Lease, peer, state::InFlight,
};

/// Makes exchanges; one for the process, with its pool of connections.
pub struct Exchange {
    http1: v1::Connector,
    http2: Connector,
}

/// Where a request body comes from, piece by piece.
#[async_trait]
pub trait BodySource: Send {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Fault>;
    /// Once the end has come: resolves when nobody waits for the response any more.
    async fn gone(&mut self);
}

/// The body of a request.
pub enum Payload<'a> {
    /// All of it, at hand for another attempt.
    Whole(Bytes),
    /// As it comes. A short one is kept for another attempt.
    Stream(Replay<'a>),
}

/// A body that streams, and what of it has been read already.
pub struct Replay<'a> {
    source: &'a mut dyn BodySource,
    kept: &'a mut Kept,
}

impl<'a> Replay<'a> {
    /// What follows what is kept comes from `source`.
    pub fn new(source: &'a mut dyn BodySource, kept: &'a mut Kept) -> Self {
        Self { source, kept }
    }
}

/// What has been read of a body, for another attempt.
#[derive(Debug, Default)]
pub struct Kept {
    pieces: Vec<Bytes>,
    size: usize,
    /// There is no more to read.
    is_whole: bool,
}

impl Kept {
    /// Most bytes kept: what Pingora keeps on the stream way.
    const MAX: usize = 64 << 10;

    /// The beginning of a body that was read elsewhere; all of it, if it `is_whole`.
    pub fn from_beginning(read: Option<Bytes>, is_whole: bool) -> Self {
        let size = read.as_ref().map_or(0, Bytes::len);
        Self { pieces: read.into_iter().collect(), size, is_whole }
    }

    /// Whether all that was read can be sent again.
    pub fn is_replayable(&self) -> bool {
        self.size <= Self::MAX
    }

    fn keep(&mut self, piece: &Bytes) {
        self.size = self.size.saturating_add(piece.len());
        if self.is_replayable() {
            self.pieces.push(piece.clone());
        } else {
            self.pieces = Vec::new();
        }
    }
}

impl Payload<'_> {
    /// Resolves when the source says that nobody waits any more. Of a whole body, whoever sends it takes care of that.
    async fn gone(&mut self) {
        match self {
            Self::Whole(_) => std::future::pending().await,
            Self::Stream(replay) => replay.source.gone().await,
        }
    }

    fn is_replayable(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(replay) => replay.kept.is_replayable(),
        }
    }

    /// Whether nothing of it is still to come from the client.
    fn is_at_hand(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(replay) => replay.kept.is_whole,
        }
    }
}

/// Makes the request header for an endpoint: called once for each attempt.
pub trait Prepare: Send {
    /// The header as it goes out, `Host` and framing included.
    fn header(&mut self, endpoint: &Endpoint) -> Result<RequestHeader, Fault>;
}

impl Exchange {
    /// Shares nothing but the settings with Pingora's own connector.
    pub fn new(options: &ConnectorOptions) -> Arc<Self> {
        Arc::new(Self {
            http1: v1::Connector::new(Some(options.clone())),
            http2: Connector::new(Some(options.clone())),
        })
    }

    /// Puts a session back into the pool.
    pub(super) async fn give_back(&self, session: HttpSession, endpoint: &Endpoint, idle: Duration) {
        match session {
            HttpSession::H1(session) => self.http1.release_http_session(session, &endpoint.peer, Some(idle)).await,
            other => self.http2.release_http_session(other, &endpoint.peer, Some(idle)).await,
        }
    }

    /// A session with this endpoint, and whether its connection had served a request before. `bound` bounds the wait.
    pub async fn connect(
        self: &Arc<Self>,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
        bound: Bound,
    ) -> Result<(Lease, bool), Fault> {
        let ready = if upstream.http2 { None } else { self.http1.reused_http_session(&endpoint.peer).await };
        let (session, reused) = match ready {
            Some(session) => (HttpSession::H1(session), true),
            // Boxed: connecting is a large future, and most requests have a connection ready.
            None => Box::pin(self.open(upstream, endpoint, bound)).await?,
        };
        Ok((Lease::new(session, Arc::clone(endpoint), Arc::clone(self), upstream.timeouts.idle), reused))
    }

    async fn open(&self, upstream: &Upstream, endpoint: &Endpoint, bound: Bound) -> Result<(HttpSession, bool), Fault> {
        let peer = peer::for_attempt(&endpoint.peer, &upstream.timeouts, bound.left());
        self.session(&peer, upstream.http2, bound).await
    }

    /// A session that is used once, on a connection of its own, and closed at the end of the loan. `endpoint.peer` has its
    /// time-outs.
    pub(super) async fn connect_once(
        self: &Arc<Self>,
        endpoint: Arc<Endpoint>,
        http2: bool,
        deadline: Instant,
    ) -> Result<Lease, Fault> {
        /// Just long enough for a pool to see that the connection is not wanted.
        const KEPT: Duration = Duration::from_millis(1);
        let (session, _) = self.session(&endpoint.peer, http2, Bound::request(deadline)).await?;
        Ok(Lease::new(session, endpoint, Arc::clone(self), KEPT))
    }

    async fn session(&self, peer: &HttpPeer, http2: bool, bound: Bound) -> Result<(HttpSession, bool), Fault> {
        let unsent = |fault| match fault {
            Fault::AttemptTimeout => Fault::ConnectTimeout,
            other => other,
        };
        if !http2 {
            let connected = bound.within(self.http1.get_http_session(peer)).await.map_err(unsent)?;
            let (session, reused) = connected.map_err(|e| fault::connecting(&e))?;
            return Ok((HttpSession::H1(session), reused));
        }
        let connected = bound.within(self.http2.get_http_session(peer)).await.map_err(unsent)?;
        let (session, reused) = connected.map_err(|e| fault::connecting(&e))?;
        if matches!(session, HttpSession::H2(_)) {
            Ok((session, reused))
        } else {
            Err(Fault::Connect(fault::NOT_HTTP2.to_owned()))
        }
    }

    /// Sends a request to the upstream, trying again as its rules say, and returns when a response header is there.
    /// The deadline of `attempts` bounds everything up to that point.
    pub async fn send(
        self: &Arc<Self>,
        upstream: &Upstream,
        prepare: &mut dyn Prepare,
        payload: &mut Payload<'_>,
        (attempts, interim): (&mut Attempts, &Interim),
    ) -> Result<(ResponseHeader, Answer), Fault> {
        attempts.deadline.get_or_insert_with(|| Instant::now() + upstream.timeouts.total);
        loop {
            let (endpoint, place) = attempts.begin(upstream).await?;
            let mut header = prepare.header(&endpoint)?;
            attempts.sign(upstream, &mut header)?;
            let method = header.method.clone();
            let whole = payload.is_at_hand();
            let (exchange, endpoint) = (self, &endpoint);
            let mut attempt =
                Attempt { exchange, upstream, endpoint, interim, attempts, whole, reused: false, sent: None };
            let mut outcome = attempt.run(header, payload, place).await;
            let Attempt { reused, sent, .. } = attempt;
            let asked = Asked { method: &method, replayable: payload.is_replayable(), reused, sent };
            let again = attempts.settle(upstream, outcome.as_ref().map(|(head, _)| head), &asked);
            let refused = match &outcome {
                Ok((head, _)) => attempts.is_refused(upstream, head.status, asked.replayable).await,
                Err(_) => false,
            };
            if !again && !refused {
                if let Ok((_, answer)) = &mut outcome {
                    answer.watched(attempts.answering(), &method);
                }
                return outcome;
            }
        }
    }
}

struct Attempt<'a> {
    exchange: &'a Arc<Exchange>,
    upstream: &'a Upstream,
    endpoint: &'a Arc<Endpoint>,
    interim: &'a Interim,
    attempts: &'a Attempts,
    /// All of the request was at hand when the attempt began.
    whole: bool,
    reused: bool,
    sent: Option<Instant>,
}

impl Attempt<'_> {
    async fn run(
        &mut self,
        mut header: RequestHeader,
        payload: &mut Payload<'_>,
        place: InFlight,
    ) -> Result<(ResponseHeader, Answer), Fault> {
        let timeouts = self.upstream.timeouts;
        let sending = self.attempts.sending(self.upstream, self.whole);
        let (mut lease, reused) = self.exchange.connect(self.upstream, self.endpoint, sending).await?;
        self.reused = reused;
        if self.upstream.http2 {
            to_http2(&mut header, self.endpoint.peer.is_tls())?;
        }
        let session = lease.session();
        session.set_write_timeout(Some(timeouts.idle));
        session.set_read_timeout(None);
        match self.talk(session, header, payload, sending).await {
            Ok(head) => {
                session.set_read_timeout(Some(timeouts.idle));
                let answer = Answer::new(&head, lease, place);
                Ok((head, answer))
            }
            Err(fault) => {
                lease.end(false).await;
                Err(fault)
            }
        }
    }

    /// Sends the request and reads the response header. An upstream may answer and close before it has read the whole
    /// body: then the answer counts, not the broken write.
    async fn talk(
        &mut self,
        session: &mut HttpSession,
        header: RequestHeader,
        payload: &mut Payload<'_>,
        sending: Bound,
    ) -> Result<ResponseHeader, Fault> {
        let switches = header.headers.contains_key(header::UPGRADE);
        let sent = sending.within(session.write_request_header(Box::new(header))).await?;
        sent.map_err(|e| fault::upstream(&e))?;
        let written = send_body(session, payload, sending).await;
        if let Err(fault) = &written
            && !matches!(fault, Fault::Reset(_))
        {
            return Err(fault.clone());
        }
        self.sent = written.is_ok().then(Instant::now);
        let waiting = self.attempts.waiting(self.upstream, self.whole);
        let head = tokio::select! {
            biased;
            head = self.read_head(session, waiting, switches) => head,
            () = payload.gone(), if written.is_ok() => return Err(Fault::ClientGone),
        };
        match (written, head) {
            (Err(_), Err(why @ Fault::Unprocessed(_))) => Err(why),
            (Err(broken), Err(_)) => Err(broken),
            (_, head) => head,
        }
    }

    async fn read_head(
        &self,
        session: &mut HttpSession,
        waiting: Bound,
        switches: bool,
    ) -> Result<ResponseHeader, Fault> {
        /// More interim responses than this are an attack or a defect.
        const MAX_INTERIM: usize = 16;
        for _ in 0..MAX_INTERIM {
            waiting.within(session.read_response_header()).await?.map_err(|e| fault::upstream(&e))?;
            let head = session.response_header().ok_or_else(|| Fault::Internal("no response header".into()))?;
            let is_switch = head.status == http::StatusCode::SWITCHING_PROTOCOLS;
            if is_switch && !switches {
                return Err(Fault::UpstreamProtocol("a protocol switch that nobody asked for".into()));
            }
            if is_switch || !head.status.is_informational() {
                return Ok(plain(head));
            }
            // The gateway itself asks for bodies.
            if head.status != StatusCode::CONTINUE {
                self.interim.put(plain(head));
            }
        }
        Err(Fault::UpstreamProtocol("too many interim responses".into()))
    }
}

async fn send_body(session: &mut HttpSession, payload: &mut Payload<'_>, sending: Bound) -> Result<(), Fault> {
    // A stream that takes no more has been ended by the other side; why, its response says.
    let upstream = |e: Box<pingora_core::Error>| match fault::upstream(&e) {
        Fault::UpstreamProtocol(detail) | Fault::Unprocessed(detail) => Fault::Reset(detail),
        other => other,
    };
    match payload {
        Payload::Whole(body) if body.is_empty() => {}
        Payload::Whole(body) => {
            sending.within(session.write_request_body(body.clone(), true)).await?.map_err(upstream)?;
        }
        Payload::Stream(replay) => {
            for piece in replay.kept.pieces.clone() {
                sending.within(session.write_request_body(piece, false)).await?.map_err(upstream)?;
            }
            while !replay.kept.is_whole {
                let read = tokio::time::timeout_at(sending.at.into(), replay.source.next()).await;
                let Some(piece) = read.map_err(|_| Fault::ClientTimeout)?? else {
                    replay.kept.is_whole = true;
                    break;
                };
                replay.kept.keep(&piece);
                sending.within(session.write_request_body(piece, false)).await?.map_err(upstream)?;
            }
        }
    }
    sending.within(session.finish_request_body()).await?.map_err(upstream)
}

/// A copy with room for what is added to it. Pingora keeps a second map with the case of the names, which means
/// nothing (RFC 9110, section 5.1); it is left out.
pub fn plain(head: &ResponseHeader) -> ResponseHeader {
    const ADDED: usize = 8;
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = head.status;
    parts.version = head.version;
    parts.headers.reserve(head.headers.len() + ADDED);
    for (name, value) in &head.headers {
        parts.headers.append(name.clone(), value.clone());
    }
    let mut plain = ResponseHeader::from(parts);
    // It was read from a header: it is a phrase.
    let _ = plain.set_reason_phrase(head.get_reason_phrase());
    plain
}

/// Turns a header in the form of HTTP/1.1 into that of HTTP/2 (RFC 9113, section 8.3.1): the host becomes the authority,
/// and there is no framing in fields.
pub fn to_http2(req: &mut RequestHeader, tls: bool) -> Result<(), Fault> {
    let broken = |what: &str| Fault::Internal(format!("{what} that HTTP/2 cannot carry"));
    req.remove_header(&header::TRANSFER_ENCODING);
    let host = req.remove_header(&header::HOST);
    let authority = host.as_ref().map(HeaderValue::as_bytes).ok_or_else(|| broken("a missing host"))?;
    let path = req.uri.path_and_query().cloned().unwrap_or_else(|| uri::PathAndQuery::from_static("/"));
    let scheme = if tls { uri::Scheme::HTTPS } else { uri::Scheme::HTTP };
    let target = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    req.set_uri(target.map_err(|_| broken("a host"))?);
    Ok(())
}
