//! HTTP/1: the loop over one connection's requests.

mod frames;
pub(super) mod hang_up;
mod lane;
mod serve;
mod tunnel;
mod websocket;

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use crossway_plugin_api::RequestId;
use pingora_core::{protocols::Stream, server::ShutdownWatch};

use self::lane::Lane;
use super::{Conn, Front, Link, Said, Seen, Ticket, http2};
use crate::{
    request::{self, BodyFraming, Head, HeaderLimits, MISDIRECTED, Refusal, View},
    respond,
    snapshot::ListenerState,
};

/// Empty lines tolerated before a request line (RFC 9112, section 2.2).
const MAX_EMPTY_LINES: usize = 2;

/// How long a connection without a request is kept once the listener is going away.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// What came on a connection.
enum Arrival {
    /// A request whose header stands at the beginning of what was read.
    Request(Box<Request>),
    /// The preface of HTTP/2 (RFC 9113, section 3.4).
    Http2,
    /// Nothing more.
    End,
    /// Something to refuse.
    Refused(Refusal, RequestId),
}

struct Request {
    header: BytesMut,
    ticket: Ticket,
}

impl Front {
    /// Serves a connection that speaks HTTP/1, or, where the listener takes it, turns out to speak HTTP/2 (prior knowledge:
    /// RFC 9113, section 3.3).
    pub(super) async fn serve_http1(self: &Arc<Self>, io: Stream, link: Arc<Link>, shutdown: &ShutdownWatch) {
        let conn = Conn::new(link);
        let Some(mut lane) = Lane::new(io, Arc::clone(&conn), shutdown.clone(), BytesMut::new()) else { return };
        let mut served = 0;
        let mut seen = None;
        let mut stop = shutdown.clone();
        loop {
            let request = match self.arrival(&mut lane, served, &mut seen, &mut stop).await {
                Arrival::Request(request) => request,
                Arrival::Http2 => {
                    let (io, ahead) = lane.into_inner();
                    return self.serve_http2(io, ahead, Arc::clone(&conn.link), shutdown).await;
                }
                Arrival::End => return,
                Arrival::Refused(refusal, id) => {
                    let bytes = respond::refusal_bytes(&refusal, &id);
                    return lane.say_and_close(&bytes).await;
                }
            };
            served += 1;
            lane.expect(request.ticket.framing.body, &request.ticket.listener.limits.client);
            let bodiless = request.ticket.framing.body == BodyFraming::None;
            let served = if bodiless {
                Box::pin(serve::alone(self, lane, *request)).await
            } else {
                serve::with_pingora(self, lane, *request, shutdown).await
            };
            let Some(back) = served else { return };
            lane = back;
        }
    }

    /// Waits for the next request of a connection and checks its header.
    async fn arrival(&self, lane: &mut Lane, served: u32, seen: &mut Seen, shutdown: &mut ShutdownWatch) -> Arrival {
        if !self.first_byte(lane, served, seen, shutdown).await {
            return Arrival::End;
        }
        let started = Instant::now();
        let Some((snapshot, listener)) = self.current(seen) else { return Arrival::End };
        let limits = listener.header_limits();
        let may_be_http2 = served == 0 && listener.http2 && lane.conn.link.secured.is_none();
        let read = read_header(lane, &limits, may_be_http2);
        let length = match tokio::time::timeout(listener.limits.client.header_deadline.0, read).await {
            Ok(Ok(Read::Header(length))) => length,
            Ok(Ok(Read::Preface)) => return Arrival::Http2,
            Ok(Ok(Read::End)) => return Arrival::End,
            Ok(Err(refusal)) => return self.refuse(lane, refusal, &listener),
            Err(_) => return self.refuse(lane, request::HEADER_TIMEOUT, &listener),
        };
        if self.gateway.pressure.is_high() {
            return self.refuse(lane, request::MEMORY_PRESSURE, &listener);
        }
        let inspected = request::inspect(&lane.ahead[..length], &limits);
        let scheme = lane.conn.link.scheme();
        let viewed = inspected.and_then(|head| Ok((head.framing, target_range(&head), View::of(&head, scheme)?)));
        match viewed {
            Ok((_, target, view)) if !lane.conn.link.admits(&view.host) => {
                let said = said(&lane.ahead, target, &view);
                let id = self.note_refusal(&lane.conn.link, &MISDIRECTED, &listener, &said);
                Arrival::Refused(MISDIRECTED, id)
            }
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
            // Neither HTTP/1 nor HTTP/2: there is no language to answer in (RFC 9113, section 3.4).
            Err(refusal) if may_be_http2 && !names_http(&lane.ahead[..length]) => {
                self.refuse(lane, refusal, &listener);
                Arrival::End
            }
            Err(refusal) => self.refuse(lane, refusal, &listener),
        }
    }

    /// A request of which nothing can be said.
    fn refuse(&self, lane: &Lane, refusal: Refusal, listener: &ListenerState) -> Arrival {
        let id = self.note_refusal(&lane.conn.link, &refusal, listener, &Said::unread("-"));
        Arrival::Refused(refusal, id)
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
            begun = lane.first_byte(Instant::now() + patience) => return begun,
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
        // A request may be on its way: closing now would lose it.
        lane.first_byte(Instant::now() + patience.min(LAST_REQUEST)).await
    }
}

/// What a raw header that was judged, whose target stands there, says of itself.
fn said<'a>(header: &'a [u8], target: Range<usize>, view: &'a View) -> Said<'a> {
    let protocol = if header[target.end..].starts_with(b" HTTP/1.0") { "HTTP/1.0" } else { "HTTP/1.1" };
    let method = std::str::from_utf8(&header[..target.start - 1]).unwrap_or_default();
    Said { protocol, method, host: &view.host, path: &view.path }
}

/// Whether the first line claims to be HTTP/1.
fn names_http(header: &[u8]) -> bool {
    let line = header.split(|&byte| byte == b'\n').next().unwrap_or_default();
    memchr::memmem::find(line, b" HTTP/1.").is_some()
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

/// What a client begins with.
enum Read {
    /// A whole header of this length.
    Header(usize),
    /// The preface of HTTP/2.
    Preface,
    /// The client left before.
    End,
}

/// Reads until a whole header is there.
async fn read_header(lane: &mut Lane, limits: &HeaderLimits, may_be_http2: bool) -> Result<Read, Refusal> {
    let mut searched = 0;
    let mut empty_lines = 0;
    loop {
        if may_be_http2 && lane.ahead.starts_with(http2::PREFACE) {
            return Ok(Read::Preface);
        }
        let begins_http2 = may_be_http2 && http2::PREFACE.starts_with(&lane.ahead);
        while lane.ahead.starts_with(b"\r\n") && empty_lines < MAX_EMPTY_LINES {
            let _ = lane.ahead.split_to(2);
            empty_lines += 1;
            searched = 0;
        }
        if !begins_http2 {
            if let Some(length) = request::header_end(&lane.ahead, searched) {
                return Ok(Read::Header(length));
            }
            if lane.ahead.len() > limits.bytes {
                return Err(request::HEADER_TOO_LARGE);
            }
            searched = lane.ahead.len();
        }
        if !matches!(lane.read_ahead().await, Ok(true)) {
            return Ok(Read::End);
        }
    }
}
