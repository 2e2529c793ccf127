//! The response to an exchange: what comes before its header, and what follows it.

use std::{collections::VecDeque, task::Poll, time::Instant};

use bytes::{Bytes, BytesMut};
use crossway_plugin_api::Fault;
use http::{Method, StatusCode, header};
use parking_lot::Mutex;
use pingora_core::protocols::http::client::HttpSession;
use pingora_http::ResponseHeader;

use super::{bound::Bound, fault, lease::Lease, state::InFlight};

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
    _in_flight: InFlight,
}

impl Answer {
    /// What follows `head` on a session.
    pub(super) fn new(head: &ResponseHeader, lease: Lease, in_flight: InFlight) -> Self {
        let length = head.headers.get(header::CONTENT_LENGTH);
        let declared_length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        Self { status: head.status, declared_length, lease, complete: false, _in_flight: in_flight }
    }

    /// The next piece of the body; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        if self.complete {
            return Ok(None);
        }
        let read = self.lease.session().read_response_body().await;
        let piece = read.map_err(|e| fault::upstream(&e))?;
        self.complete = piece.is_none() || self.lease.is_body_read()?;
        Ok(piece)
    }

    /// The same, and what can be lent is not copied: it goes to the client from where it was read to.
    pub async fn lend(&mut self) -> Result<Option<Piece<'_>>, Fault> {
        if self.complete || self.lease.is_body_read()? {
            self.complete = true;
            return Ok(None);
        }
        let read = match self.lease.session() {
            HttpSession::H1(session) => session.read_body_ref().await.map(|piece| piece.map(Piece::Lent)),
            other => other.read_response_body().await.map(|piece| piece.map(Piece::Own)),
        };
        let piece = read.map_err(|e| fault::upstream(&e))?;
        self.complete = piece.is_none();
        Ok(piece)
    }

    /// After a 101: from here on the body is what the upstream says, without an end, and [`say`](Self::say) answers it.
    pub fn become_tunnel(&mut self) {
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

    /// Closes the connection.
    pub async fn close(self) {
        self.lease.end(false).await;
    }

    /// Whether a response to `method` has a body at all (RFC 9110, section 6.4.1).
    pub fn has_body(&self, method: &Method) -> bool {
        *method != Method::HEAD && !matches!(self.status.as_u16(), 204 | 304)
    }

    /// The whole body, at most `max` bytes, by `deadline`.
    pub async fn whole(&mut self, max: u64, deadline: Instant) -> Result<Bytes, Fault> {
        if self.declared_length.is_some_and(|length| length > max) {
            return Err(Fault::ResponseTooLarge { max });
        }
        let mut body = BytesMut::new();
        while let Some(piece) = Bound::request(deadline).within(self.next()).await?? {
            if (body.len() + piece.len()) as u64 > max {
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
