//! The request side of a call: from the client to an HTTP/2 stream, a step at a time, so that the answer can be passed on
//! between any two steps.

use std::collections::VecDeque;

use bytes::Bytes;
use crossway_plugin_api::Fault;
use h2::SendStream;
use pingora_proxy::Session;

use crate::flow::{Admitted, body};

/// Most bytes kept for another attempt: what Pingora keeps on the stream way.
const MAX_KEPT: usize = 64 << 10;

/// What has been read of the request's messages, and what of it has been sent.
pub(in crate::flow) struct Upload {
    /// For another attempt; empty once there is too much of it.
    kept: Vec<Bytes>,
    size: usize,
    /// Read and not sent yet.
    queue: VecDeque<Bytes>,
    /// The client has sent all.
    is_read: bool,
    /// The end was sent too, or goes with the header.
    is_over: bool,
    /// Gone when the upstream takes no more.
    out: Option<SendStream<Bytes>>,
}

impl Upload {
    /// Of a request with messages, or none.
    pub(in crate::flow) fn new(has_body: bool) -> Self {
        Self { kept: Vec::new(), size: 0, queue: VecDeque::new(), is_read: !has_body, is_over: !has_body, out: None }
    }

    /// Whether all that has been read can be sent once more.
    pub(in crate::flow) fn is_replayable(&self) -> bool {
        self.size <= MAX_KEPT
    }

    /// Whether the client has sent all of it.
    pub(in crate::flow) fn is_read(&self) -> bool {
        self.is_read
    }

    /// Whether the request has been sent to its end.
    pub(in crate::flow) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Sends from now on into this stream.
    pub(in crate::flow) fn begin(&mut self, out: Option<SendStream<Bytes>>) {
        self.out = out;
    }

    /// Goes back to the beginning, for another attempt.
    pub(in crate::flow) fn rewind(&mut self) {
        self.out = None;
        self.queue = self.kept.iter().cloned().collect();
        self.is_over = self.is_read && self.queue.is_empty();
    }

    /// Ends it, wherever it stands.
    pub(in crate::flow) fn stop(&mut self) {
        self.out = None;
        self.queue.clear();
    }

    /// One step: sends something, or reads something, or waits for the client to leave when there is nothing to do. May be
    /// dropped at any time.
    pub(in crate::flow) async fn step(&mut self, session: &mut Session, admitted: &mut Admitted) -> Result<(), Fault> {
        if self.out.is_some() && !self.queue.is_empty() {
            self.send().await;
            return Ok(());
        }
        if self.out.is_none() && !self.is_read {
            // The upstream takes no more, and says why in its answer.
            return std::future::pending().await;
        }
        let read = session.as_downstream_mut().read_body_or_idle(self.is_read).await;
        let piece = read.map_err(|error| body::downstream_fault(&error.into_down(), admitted))?;
        if !self.is_read {
            self.is_read = piece.is_none() || session.as_downstream_mut().is_body_done();
            self.take(piece, admitted)?;
        }
        Ok(())
    }

    /// Takes what the client has sent into the queue.
    fn take(&mut self, mut piece: Option<Bytes>, admitted: &mut Admitted) -> Result<(), Fault> {
        body::count(admitted, piece.as_ref().map_or(0, Bytes::len))?;
        if let Some(call) = &mut admitted.grpc {
            call.request_body(&mut piece, self.is_read)?;
        }
        if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
            self.size = self.size.saturating_add(piece.len());
            if self.is_replayable() {
                self.kept.push(piece.clone());
            } else {
                self.kept = Vec::new();
            }
            self.queue.push_back(piece);
        }
        if self.is_read && self.queue.is_empty() {
            self.send_part(0);
        }
        Ok(())
    }

    /// Sends as much of the next piece as the upstream has room for, once it has any.
    async fn send(&mut self) {
        let (Some(out), Some(piece)) = (&mut self.out, self.queue.front()) else { return };
        out.reserve_capacity(piece.len());
        let room = match out.capacity() {
            0 => std::future::poll_fn(|cx| out.poll_capacity(cx)).await,
            room => Some(Ok(room)),
        };
        match room {
            Some(Ok(room)) => self.send_part(room),
            _ => self.out = None,
        }
    }

    fn send_part(&mut self, room: usize) {
        let Some(out) = &mut self.out else { return };
        let part = match self.queue.front_mut() {
            Some(piece) => piece.split_to(room.min(piece.len())),
            None => Bytes::new(),
        };
        if self.queue.front().is_some_and(Bytes::is_empty) {
            self.queue.pop_front();
        }
        let end = self.is_read && self.queue.is_empty();
        if (part.is_empty() && !end) || out.send_data(part, end).is_ok() {
            self.is_over = end;
        } else {
            self.out = None;
        }
    }
}
