//! The response to an exchange: what comes before its header, and what follows it.

use std::{
    collections::VecDeque,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use crossway_plugin_api::Fault;
use http::{Method, StatusCode, header};
use parking_lot::Mutex;
use pingora_core::protocols::http::client::HttpSession;
use pingora_http::ResponseHeader;

use super::{Answering, bound::Bound, fault, lease::Lease, state::InFlight};

/// Responses on the way to the final one, such as 103 (RFC 9110, section 15.2), for whoever waits for that.
#[derive(Default)]
pub struct Interim(Mutex<VecDeque<ResponseHeader>>);

impl Interim {
    /// Resolves when there is one. To be polled right after the exchange that brings it: nothing else wakes.
    pub async fn come(&self) {
        std::future::poll_fn(|_| if self.0.lock().is_empty() { Poll::Pending } else { Poll::Ready(()) }).await;
    }

    pub(super) fn put(&self, head: ResponseHeader) {
        self.0.lock().push_back(head);
    }

    /// Takes the first one.
    pub fn take(&self) -> Option<ResponseHeader> {
        self.0.lock().pop_front()
    }
}

/// Whether a response to `method` has a body at all (RFC 9110, section 6.4.1).
pub fn has_body(method: &Method, status: StatusCode) -> bool {
    *method != Method::HEAD && !matches!(status.as_u16(), 204 | 304)
}

/// A piece of a body.
pub enum Piece<'a> {
    /// Lent by the connection that it was read from.
    Lent(&'a [u8]),
    /// On its own.
    Own(Bytes),
}

impl Piece<'_> {
    /// The piece on its own.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Lent(bytes) => Bytes::copy_from_slice(bytes),
            Self::Own(bytes) => bytes,
        }
    }
}

impl std::ops::Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

/// A response whose header, as the upstream sent it, has been taken: what follows.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// What the header says of the body's length.
    pub declared_length: Option<u64>,
    lease: Lease,
    complete: bool,
    /// What its end says of the endpoint.
    answering: Option<Answering>,
    /// When the last piece was given to whoever reads, and how long all before it have been held up there.
    given: Option<Instant>,
    held: Duration,
    _in_flight: InFlight,
}

impl Answer {
    /// What follows `head` on a session.
    pub(super) fn new(head: &ResponseHeader, lease: Lease, in_flight: InFlight) -> Self {
        let length = head.headers.get(header::CONTENT_LENGTH);
        let declared_length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        Self {
            status: head.status,
            declared_length,
            lease,
            complete: false,
            answering: None,
            given: None,
            held: Duration::ZERO,
            _in_flight: in_flight,
        }
    }

    /// Tells at its end what it has come to. One that has no body, as an answer to `method`, ends here.
    pub(super) fn watched(&mut self, answering: Option<Answering>, method: &Method) {
        self.answering = answering;
        if !self.has_body(method) || self.declared_length == Some(0) {
            self.ended();
        }
    }

    /// It says no more of the endpoint.
    fn ended(&mut self) {
        if let Some(mut answering) = self.answering.take() {
            answering.ended(None);
        }
    }

    /// A fault has ended it.
    fn broke(&mut self, fault: &Fault) {
        if let Some(mut answering) = self.answering.take() {
            answering.broke(fault, self.held);
        }
    }

    /// The next piece of the body; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        Ok(self.lend().await?.map(Piece::into_bytes))
    }

    /// The same, and what can be lent is not copied: it goes to the client from where it was read to.
    pub async fn lend(&mut self) -> Result<Option<Piece<'_>>, Fault> {
        self.held += self.given.take().map(|given| given.elapsed()).unwrap_or_default();
        let over = self.complete || self.lease.is_body_read().inspect_err(|fault| self.broke(fault))?;
        if over {
            self.complete = true;
            self.ended();
            return Ok(None);
        }
        let read = match self.lease.session() {
            HttpSession::H1(session) => session.read_body_ref().await.map(|piece| piece.map(Piece::Lent)),
            other => other.read_response_body().await.map(|piece| piece.map(Piece::Own)),
        };
        // What is lent stays borrowed from the lease: the rest goes by field.
        match read.map_err(|e| fault::upstream(&e)) {
            Ok(Some(piece)) => {
                if let Some(answering) = &mut self.answering {
                    answering.moves();
                    self.given = Some(Instant::now());
                }
                Ok(Some(piece))
            }
            Ok(None) => {
                self.complete = true;
                if let Some(mut answering) = self.answering.take() {
                    answering.ended(None);
                }
                Ok(None)
            }
            Err(fault) => {
                if let Some(mut answering) = self.answering.take() {
                    answering.broke(&fault, self.held);
                }
                Err(fault)
            }
        }
    }

    /// After a 101: from here on the body is what the upstream says, without an end, and [`say`](Self::say) answers it.
    pub fn become_tunnel(&mut self) {
        self.ended();
        let session = self.lease.session();
        session.set_read_timeout(None);
        if let HttpSession::H1(session) = session {
            session.maybe_upgrade_body_writer();
        }
    }

    /// Says something to the upstream in a tunnel.
    pub async fn say(&mut self, bytes: Bytes) -> Result<(), Fault> {
        self.lease.session().write_request_body(bytes, false).await.map_err(|e| fault::upstream(&e))
    }

    /// Tells the upstream in a tunnel that nothing more will be said; what it says itself can still be read.
    pub async fn hush(&mut self) {
        self.lease.session().shutdown().await;
    }

    /// Closes the connection: nobody wants more of it than its header.
    pub async fn close(mut self) {
        self.ended();
        self.lease.end(false).await;
    }

    /// Whether a response to `method` has a body at all.
    pub fn has_body(&self, method: &Method) -> bool {
        has_body(method, self.status)
    }

    /// The whole body, at most `max` bytes, by `deadline`.
    pub async fn whole(&mut self, max: u64, deadline: Instant) -> Result<Bytes, Fault> {
        if self.declared_length.is_some_and(|length| length > max) {
            self.ended();
            return Err(Fault::ResponseTooLarge { max });
        }
        let mut body = BytesMut::new();
        loop {
            let read = Bound::request(deadline).within(self.next()).await;
            let Some(piece) = read.inspect_err(|fault| self.broke(fault))?? else { break };
            if (body.len() + piece.len()) as u64 > max {
                self.ended();
                return Err(Fault::ResponseTooLarge { max });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    /// Gives the connection back to the pool, if the response is complete; closes it otherwise.
    pub async fn finish(mut self) {
        let complete = self.complete || self.lease.is_body_read().unwrap_or(false);
        self.lease.end(complete).await;
    }
}
