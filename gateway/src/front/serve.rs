//! The loop over one connection's requests.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::BytesMut;
use crossway_plugins::request_id;
use pingora_core::{
    apps::{HttpServerApp, ServerApp},
    protocols::{Stream, http::ServerSession},
    server::ShutdownWatch,
};
use pingora_proxy::HttpProxy;

use super::{Conn, Ticket, lane::Lane};
use crate::{
    gateway::Gateway,
    proxy::Proxy,
    request::{self, Head, HeaderLimits, Refusal, View},
    respond,
    snapshot::{ListenerState, Snapshot},
    telemetry::access_log::Entry,
};

/// Empty lines tolerated before a request line (RFC 9112, section 2.2).
const MAX_EMPTY_LINES: usize = 2;

/// How long the rest of a request may take to arrive after its answer, before the connection is closed instead.
const MAX_DRAIN: Duration = Duration::from_secs(2);

/// Serves the connections of one listener.
pub struct Front {
    /// Address as configured: finds the listener in each configuration.
    pub address: String,
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Pingora's proxy, shared by all listeners.
    pub proxy: Arc<HttpProxy<Proxy>>,
}

/// The listener of a connection as a generation of the configuration has it: looked up once for each generation. Holds
/// no snapshot, so that an idle connection keeps no old configuration alive.
type Seen = Option<(u64, Arc<ListenerState>)>;

/// What came on a connection.
enum Arrival {
    /// A request whose header stands at the beginning of what was read.
    Request(Box<Request>),
    /// Nothing more.
    End,
    /// Something to refuse.
    Refused(Refusal, Arc<ListenerState>),
}

struct Request {
    header: BytesMut,
    ticket: Ticket,
}

#[async_trait]
impl ServerApp for Front {
    async fn process_new(self: &Arc<Self>, io: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let socket = io.get_socket_digest();
        let address = |a: Option<&pingora_core::protocols::l4::socket::SocketAddr>| {
            a.and_then(|a| a.as_inet().copied()).unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
        };
        let peer = address(socket.as_ref().and_then(|s| s.peer_addr()));
        let local = address(socket.as_ref().and_then(|s| s.local_addr()));
        let listener = Arc::clone(self.gateway.snapshot.load().listeners.get(&self.address)?);
        listener.metrics.accepted.inc();
        let _open = self.gateway.connections.enter(listener.metrics.open.clone());
        let conn = Conn::new(peer, local);
        if let Some(lane) = Lane::new(io, Arc::clone(&conn)) {
            self.serve(lane, &conn, shutdown).await;
        }
        None
    }
}

impl Front {
    async fn serve(&self, mut lane: Box<Lane>, conn: &Arc<Conn>, shutdown: &ShutdownWatch) {
        let mut served = 0;
        let mut seen = None;
        let mut stop = shutdown.clone();
        loop {
            let request = match self.arrival(&mut lane, served, &mut seen, &mut stop).await {
                Arrival::Request(request) => *request,
                Arrival::End => return,
                Arrival::Refused(refusal, listener) => return self.refuse(lane, conn, refusal, &listener).await,
            };
            served += 1;
            lane.expect(request.ticket.framing.body, request.ticket.listener.limits.client.idle.0);
            let session = prepare(lane, request.header, &request.ticket);
            conn.hand(request.ticket);
            let Some(back) = self.run(session, shutdown).await else { return };
            lane = back;
        }
    }

    /// Lets Pingora serve one request; gives the lane back if the connection lives on.
    async fn run(&self, session: ServerSession, shutdown: &ShutdownWatch) -> Option<Box<Lane>> {
        let (stream, _) = self.proxy.process_new_http(session, shutdown).await?.consume();
        stream.into_any().downcast::<Lane>().ok()
    }

    /// Waits for the next request of a connection and checks its header.
    async fn arrival(&self, lane: &mut Lane, served: u32, seen: &mut Seen, shutdown: &mut ShutdownWatch) -> Arrival {
        if !self.first_byte(lane, served, seen, shutdown).await {
            return Arrival::End;
        }
        let started = Instant::now();
        let Some((snapshot, listener)) = self.current(seen) else { return Arrival::End };
        let limits = listener.header_limits();
        let read = read_header(lane, &limits);
        let length = match tokio::time::timeout(listener.limits.client.header_deadline.0, read).await {
            Ok(Ok(Some(length))) => length,
            Ok(Ok(None)) => return Arrival::End,
            Ok(Err(refusal)) => return Arrival::Refused(refusal, listener),
            Err(_) => return Arrival::Refused(request::HEADER_TIMEOUT, listener),
        };
        let inspected = request::inspect(&lane.ahead[..length], &limits);
        let viewed = inspected.and_then(|head| Ok((head.framing, target_range(&head), View::of(&head, "http")?)));
        match viewed {
            Ok((framing, target, view)) => {
                let ending = *shutdown.borrow() || self.gateway.is_draining();
                let last = ending || framing.close || served + 1 >= listener.limits.client.requests_per_connection;
                let mut header = take_header(lane, length);
                if let Some(canonical) = &view.rewritten {
                    // Nobody after this sees what the client wrote, Pingora's parser included.
                    header = [&header[..target.start], canonical.as_bytes(), &header[target.end..]]
                        .concat()
                        .as_slice()
                        .into();
                }
                let ticket = Ticket { snapshot, listener, framing, view, started, last };
                Arrival::Request(Box::new(Request { header, ticket }))
            }
            Err(refusal) => Arrival::Refused(refusal, listener),
        }
    }

    /// Waits until the client begins a request; `false` if it will not, or the listener is going away.
    async fn first_byte(&self, lane: &mut Lane, served: u32, seen: &mut Seen, shutdown: &mut ShutdownWatch) -> bool {
        if !lane.ahead.is_empty() {
            return true;
        }
        let Some((_, listener)) = self.current(seen) else { return false };
        let client = &listener.limits.client;
        // A client that has just connected is about to speak.
        let patience = if served == 0 { client.header_deadline.0 } else { client.idle.0 };
        tokio::select! {
            biased;
            begun = lane.first_byte(Instant::now() + patience) => begun,
            _ = shutdown.wait_for(|stop| *stop) => false,
        }
    }

    /// The configuration in force, and the listener as it has it; `None` if it has it no more.
    fn current(&self, seen: &mut Seen) -> Option<(Arc<Snapshot>, Arc<ListenerState>)> {
        let snapshot = self.gateway.snapshot.load_full();
        if seen.as_ref().is_none_or(|(generation, _)| *generation != snapshot.generation) {
            *seen = Some((snapshot.generation, snapshot.listeners.get(&self.address).cloned()?));
        }
        let listener = Arc::clone(&seen.as_ref()?.1);
        Some((snapshot, listener))
    }

    async fn refuse(&self, lane: Box<Lane>, conn: &Conn, refusal: Refusal, listener: &ListenerState) {
        let id = request_id::fresh();
        self.gateway.metrics.refused(refusal.code);
        self.gateway.access_log.write(&Entry {
            request_id: id.as_str(),
            client: conn.peer_ip(),
            listener: &listener.name,
            status: refusal.status.as_u16(),
            code: Some(refusal.code),
            ..Entry::unread()
        });
        lane.say_and_close(&respond::refusal_bytes(&refusal, &id)).await;
    }
}

/// A session over the lane that finds the header already read.
fn prepare(lane: Box<Lane>, header: BytesMut, ticket: &Ticket) -> ServerSession {
    let idle = ticket.listener.limits.client.idle.0;
    let mut session = ServerSession::new_http1(lane);
    session.set_pipelined_prefix(header);
    session.set_read_timeout(Some(idle));
    session.set_keepalive_reuses_remaining(Some(u32::from(!ticket.last)));
    session.set_total_drain_timeout(Some(MAX_DRAIN));
    session
}

/// Where the request target stands in the raw header.
fn target_range(head: &Head<'_>) -> Range<usize> {
    let start = head.method.len() + 1;
    start..start + head.target.len()
}

/// Cuts the header off what was read; a buffer that is used up is let go.
fn take_header(lane: &mut Lane, length: usize) -> BytesMut {
    let header = lane.ahead.split_to(length);
    if lane.ahead.is_empty() {
        lane.ahead = BytesMut::new();
    }
    header
}

/// Reads until a whole header is there and returns its length; `None` if the client leaves before.
async fn read_header(lane: &mut Lane, limits: &HeaderLimits) -> Result<Option<usize>, Refusal> {
    let mut searched = 0;
    let mut empty_lines = 0;
    loop {
        while lane.ahead.starts_with(b"\r\n") && empty_lines < MAX_EMPTY_LINES {
            let _ = lane.ahead.split_to(2);
            empty_lines += 1;
            searched = 0;
        }
        if let Some(length) = request::header_end(&lane.ahead, searched) {
            return Ok(Some(length));
        }
        if lane.ahead.len() > limits.bytes {
            return Err(request::HEADER_TOO_LARGE);
        }
        searched = lane.ahead.len();
        if !matches!(lane.read_ahead().await, Ok(true)) {
            return Ok(None);
        }
    }
}
