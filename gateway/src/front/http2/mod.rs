//! HTTP/2 (RFC 9113): one connection, many streams, each of them a request.

mod flood;
mod stream;
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, server::Connection};
use pingora_core::{
    Result,
    apps::HttpServerApp,
    protocols::{
        Digest, Stream,
        http::{
            ServerSession,
            v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake},
        },
    },
    server::ShutdownWatch,
};
use tokio::sync::Notify;

use self::{flood::Flood, stream::H2Stream, wire::Wire};
use super::{Conn, Front, Link, Said, Seen, Ticket};
use crate::{
    config::limits::{Http2Limits, Limits},
    request::{self, MISDIRECTED, Refusal},
    respond,
    snapshot::ListenerState,
};

/// What a client begins an HTTP/2 connection with (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Requests that break the protocol, on one connection, before it is closed.
const MAX_MALFORMED: u32 = 32;
/// Bytes that a client may send on one connection before the gateway has taken any of them.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// The same on one stream.
const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes of responses kept for one stream while the client's window is closed.
const SEND_BUFFER: usize = 64 << 10;
/// How long a client may take to hang up once it has been told to, and to stop sending requests.
const HANG_UP_TIME: Duration = Duration::from_secs(2);
/// How long the rest of a request may take to arrive after its answer.
const MAX_DRAIN: Duration = Duration::from_secs(2);

/// What happens on a connection.
#[expect(clippy::large_enum_variant, reason = "made and taken apart at once, once for each stream")]
enum Event {
    Accepted(Result<Option<H2Accept>>),
    Stop,
    Idle,
    Flood,
    TimeUp,
}

/// One connection, as its loop sees it.
struct Talk {
    link: Arc<Link>,
    digest: Arc<Digest>,
    active: Arc<Active>,
    flood: Arc<Flood>,
    /// When the client was told to open no more streams.
    leaving: Option<Instant>,
    /// When the connection is cut, whoever has not hung up by then.
    cut_at: Option<Instant>,
    served: u32,
    malformed: u32,
}

impl Front {
    /// Serves a connection until it ends. `ahead` was read already.
    pub(super) async fn serve_http2(
        self: &Arc<Self>,
        io: Stream,
        ahead: BytesMut,
        link: Arc<Link>,
        shutdown: &ShutdownWatch,
    ) {
        let mut seen = None;
        let Some((_, listener)) = self.current(&mut seen) else { return };
        let header_deadline = listener.limits.client.header_deadline.0;
        let digest = Arc::new(Digest {
            ssl_digest: io.get_ssl_digest(),
            timing_digest: io.get_timing_digest(),
            proxy_digest: None,
            socket_digest: io.get_socket_digest(),
        });
        let flood = Arc::new(Flood::new(PREFACE.len()));
        let wire = Wire::new(io, ahead, Arc::clone(&flood), listener.limits.http2.stall.0);
        let begin = handshake(Box::new(wire), Some(options(&listener.limits)));
        let Ok(Ok(conn)) = tokio::time::timeout(header_deadline, begin).await else { return };
        let active = Arc::new(Active::default());
        let talk = Talk { link, digest, active, flood, leaving: None, cut_at: None, served: 0, malformed: 0 };
        self.talk(conn, talk, (seen, listener), shutdown).await;
    }

    async fn talk(
        self: &Arc<Self>,
        mut conn: Connection<Stream, Bytes>,
        mut talk: Talk,
        (mut seen, mut listener): (Seen, Arc<ListenerState>),
        shutdown: &ShutdownWatch,
    ) {
        let mut stop = shutdown.clone();
        loop {
            match self.current(&mut seen) {
                Some((_, current)) => listener = current,
                None => talk.leave(&mut conn),
            }
            let event = talk.next(&mut conn, &mut stop, &listener.limits.http2).await;
            match event {
                Event::Accepted(Ok(Some(H2Accept::Session(session)))) if talk.is_late() => {
                    drop(session);
                    talk.note_malformed(&mut conn);
                }
                Event::Accepted(Ok(Some(H2Accept::Session(session)))) => {
                    talk.served = talk.served.saturating_add(1);
                    if talk.served >= listener.limits.client.requests_per_connection || self.gateway.pressure.is_high()
                    {
                        talk.leave(&mut conn);
                    }
                    self.accept(session, &talk, &mut seen, shutdown);
                }
                Event::Accepted(Ok(Some(H2Accept::Rejected))) => {
                    self.gateway.metrics.refused(request::MALFORMED_HTTP2.code);
                    talk.note_malformed(&mut conn);
                }
                Event::Accepted(Ok(None) | Err(_)) | Event::TimeUp => return,
                Event::Stop => talk.leave(&mut conn),
                Event::Idle => {
                    talk.leave(&mut conn);
                    talk.cut_at = Some(Instant::now() + HANG_UP_TIME);
                }
                Event::Flood => {
                    self.note_refusal(&talk.link, &request::HTTP2_FLOOD, &listener, &Said::unread("HTTP/2"));
                    talk.expel(&mut conn, Reason::ENHANCE_YOUR_CALM);
                }
            }
        }
    }

    /// Checks a request and starts to serve it.
    fn accept(self: &Arc<Self>, mut session: HttpSession, talk: &Talk, seen: &mut Seen, shutdown: &ShutdownWatch) {
        let started = Instant::now();
        let Some((snapshot, listener)) = self.current(seen) else { return };
        session.set_total_drain_timeout(Some(MAX_DRAIN));
        let has_body = !session.is_body_empty();
        let limits = listener.header_limits();
        let inspected = if self.gateway.pressure.is_high() {
            Err(request::MEMORY_PRESSURE)
        } else {
            request::inspect_http2(session.req_header_mut(), has_body, &limits, talk.link.scheme())
        };
        let busy = talk.active.enter();
        let (framing, view) = match inspected {
            Ok((framing, view)) if talk.link.admits(&view.host) => (framing, view),
            refused => {
                let (refusal, view) = refused.map_or_else(|why| (why, None), |(_, view)| (MISDIRECTED, Some(view)));
                let method = session.req_header().method.as_str();
                let said = view.as_ref().map_or(Said::unread("HTTP/2"), |view| Said {
                    protocol: "HTTP/2",
                    method,
                    host: &view.host,
                    path: &view.path,
                });
                let id = self.note_refusal(&talk.link, &refusal, &listener, &said);
                let limit = listener.limits.http2.stall.0;
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(limit, refuse(session, refusal, &id)).await;
                    drop(busy);
                });
                return;
            }
        };
        let conn = Conn::new(Arc::clone(&talk.link));
        let Some(stream) = H2Stream::new(session, Arc::clone(&conn), &talk.digest, &listener) else { return };
        conn.hand(Ticket { snapshot, listener, framing, view, started, last: talk.leaving.is_some() });
        let (proxy, shutdown) = (Arc::clone(&self.proxy), shutdown.clone());
        tokio::spawn(async move {
            proxy.process_new_http(ServerSession::new_custom(Box::new(stream)), &shutdown).await;
            drop(busy);
        });
    }
}

impl Talk {
    /// Drives the connection until something happens on it.
    async fn next(
        &mut self,
        conn: &mut Connection<Stream, Bytes>,
        stop: &mut ShutdownWatch,
        limits: &Http2Limits,
    ) -> Event {
        let leaving = self.leaving.is_some();
        // A client that was told to leave, and has its answers, may take as long for the rest of them as for any.
        let (idle, then) = if leaving { (limits.stall.0, Event::TimeUp) } else { (limits.idle.0, Event::Idle) };
        let cut_at = tokio::time::Instant::from_std(self.cut_at.unwrap_or_else(Instant::now));
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop), if !leaving => Event::Stop,
            () = self.flood.exceeded() => Event::Flood,
            accepted = HttpSession::from_h2_conn(conn, Arc::clone(&self.digest)) => Event::Accepted(accepted),
            () = tokio::time::sleep_until(cut_at), if self.cut_at.is_some() => Event::TimeUp,
            () = self.active.idle_for(idle), if self.cut_at.is_none() => then,
        }
    }

    /// Tells the client to open no more streams; those that are open finish.
    fn leave(&mut self, conn: &mut Connection<Stream, Bytes>) {
        if self.leaving.is_none() {
            self.leaving = Some(Instant::now());
            conn.graceful_shutdown();
        }
    }

    /// Whether a request that comes now should not come any more: the protocol's library takes them until the client has
    /// said that it knows (RFC 9113, section 6.8), which it may never do.
    fn is_late(&self) -> bool {
        self.leaving.is_some_and(|since| since.elapsed() > HANG_UP_TIME)
    }

    /// The client has broken the protocol; once too often ends the connection.
    fn note_malformed(&mut self, conn: &mut Connection<Stream, Bytes>) {
        self.malformed += 1;
        if self.malformed > MAX_MALFORMED {
            self.expel(conn, Reason::PROTOCOL_ERROR);
        }
    }

    /// Ends the connection with all its streams.
    fn expel(&mut self, conn: &mut Connection<Stream, Bytes>, reason: Reason) {
        conn.abrupt_shutdown(reason);
        self.leaving.get_or_insert_with(Instant::now);
        self.cut_at = Some(Instant::now() + HANG_UP_TIME);
    }
}

/// The protocol's own limits.
fn options(limits: &Limits) -> H2Options {
    /// Each field counts with 32 bytes more than it has (RFC 9113, section 6.5.2).
    const FIELD: u64 = 32;
    let list = limits.request.header_bytes.0 + u64::from(limits.request.header_fields) * FIELD;
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(limits.http2.streams)
        .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER);
    options
}

/// Answers a request that nothing but the front has seen.
async fn refuse(mut session: HttpSession, refusal: Refusal, id: &crossway_plugin_api::RequestId) -> Result<()> {
    let (head, body) = respond::refusal_parts(&refusal, id, session.req_header())?;
    session.write_response_header(Box::new(head), body.is_empty())?;
    if body.is_empty() { Ok(()) } else { session.write_body(body, true).await }
}

/// The requests that are being served on a connection.
#[derive(Default)]
struct Active {
    count: AtomicUsize,
    none_left: Notify,
}

/// One of them; ends when dropped, even by a panic.
struct Busy(Arc<Active>);

impl Active {
    fn enter(self: &Arc<Self>) -> Busy {
        self.count.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    /// Resolves when there has been no request for so long.
    async fn idle_for(&self, time: Duration) {
        loop {
            let notified = self.none_left.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return tokio::time::sleep(time).await;
            }
            notified.await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}
