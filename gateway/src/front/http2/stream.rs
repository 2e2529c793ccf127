//! One HTTP/2 stream as Pingora reads and writes it.
//!
//! Pingora's own session does the work; this one around it keeps the bounds that Pingora's does not have: how slowly a
//! client may send and take a body, and how long an upstream's answer may be waited for.

use std::{future::Future, pin::pin, sync::Arc, task::Poll, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream as Messages;
use http::HeaderMap;
use pingora_core::{
    Error, ErrorType, Result,
    protocols::{
        Digest,
        http::{
            HttpTask,
            custom::{CustomMessageWrite, server::Session},
            v2::server::HttpSession,
        },
        l4::socket::SocketAddr,
        raw_connect::ProxyDigest,
    },
};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::{
    front::{Conn, Cut, alarm::Alarm, pace::Pace},
    snapshot::ListenerState,
};

/// See the module's documentation.
pub(super) struct H2Stream {
    inner: HttpSession,
    conn: Arc<Conn>,
    digest: Digest,
    reads: Pace,
    writes: Pace,
    alarm: Alarm,
    /// How long the client may keep its window closed.
    stall: Duration,
    /// Most bytes that are written before the pace is told.
    piece: usize,
}

impl H2Stream {
    /// A stream on a connection of this digest. `None` is a defect of ours.
    pub(super) fn new(
        mut inner: HttpSession,
        conn: Arc<Conn>,
        base: &Digest,
        listener: &ListenerState,
    ) -> Option<Self> {
        let response = Box::new(ResponseHeader::build(200, Some(0)).ok()?);
        let proxy = ProxyDigest::new(response, Some(Box::new(Arc::clone(&conn))));
        let digest = Digest {
            ssl_digest: base.ssl_digest.clone(),
            timing_digest: base.timing_digest.clone(),
            proxy_digest: Some(Arc::new(proxy)),
            socket_digest: base.socket_digest.clone(),
        };
        let (client, stall) = (&listener.limits.client, listener.limits.http2.stall.0);
        // The pace bounds every write.
        inner.set_write_timeout(None);
        let (rate, alarm) = (client.min_rate.0, Alarm::default());
        let (reads, writes, piece) = (Pace::new(rate, client.idle.0), Pace::new(rate, stall), piece(rate, stall));
        Some(Self { inner, conn, digest, reads, writes, alarm, stall, piece })
    }

    /// What the route says in place of the listener.
    fn take_pace(&mut self) {
        if let Some((rate, pause)) = self.conn.take_pace() {
            self.reads = Pace::new(rate, pause);
            self.writes = Pace::new(rate, self.stall);
            self.piece = piece(rate, self.stall);
        }
    }

    /// Reads, with the bounds on a client that sends, and on the wait for an upstream.
    async fn read(&mut self, idle_after: bool, no_body_expected: bool) -> Result<Option<Bytes>> {
        self.take_pace();
        let waits_for_body = !(idle_after && (no_body_expected || self.inner.is_body_done()));
        let Self { inner, conn, reads, alarm, .. } = self;
        let mut read = pin!(async {
            if idle_after { inner.read_body_or_idle(no_body_expected).await } else { inner.read_body_bytes().await }
        });
        let done = std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = read.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            let answer = conn.deadline().map(|deadline| (deadline, Cut::Overdue));
            let body = waits_for_body.then(|| (reads.waits_until(), Cut::Slow));
            let first = answer.into_iter().chain(body).min_by_key(|(deadline, _)| *deadline);
            match first {
                Some((deadline, why)) if alarm.has_passed(cx, deadline) => Poll::Ready(Err(why)),
                _ => Poll::Pending,
            }
        });
        match done.await {
            Ok(piece) => {
                if let Ok(piece) = &piece {
                    let _ = self.reads.moved(piece.as_ref().map_or(0, Bytes::len));
                }
                piece
            }
            Err(why) => {
                self.conn.mark(why);
                Err(Error::explain(ErrorType::ReadTimedout, "cut by the gateway").into_down())
            }
        }
    }

    /// Writes a piece of the body, with the bounds on a client that takes it.
    async fn write(&mut self, piece: Bytes, end: bool) -> Result<()> {
        let Self { inner, writes, alarm, .. } = self;
        let bytes = piece.len();
        let mut write = pin!(inner.write_body(piece, end));
        let written = std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = write.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            if alarm.has_passed(cx, writes.waits_until()) {
                let slow = Error::explain(ErrorType::WriteTimedout, "the client takes the response too slowly");
                return Poll::Ready(Err(slow.into_down()));
            }
            Poll::Pending
        })
        .await;
        if let Some(waited) = self.writes.moved(bytes) {
            self.conn.keeps_waiting(waited);
        }
        written
    }
}

#[async_trait]
impl Session for H2Stream {
    fn req_header(&self) -> &RequestHeader {
        self.inner.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read(false, false).await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.inner.drain_request_body().await
    }

    async fn write_response_header(&mut self, resp: Box<ResponseHeader>, end: bool) -> Result<()> {
        let end = end || is_trailers_only(&resp);
        self.inner.write_response_header(resp, end)
    }

    async fn write_response_header_ref(&mut self, resp: &ResponseHeader, end: bool) -> Result<()> {
        self.inner.write_response_header_ref(resp, end || is_trailers_only(resp))
    }

    async fn write_body(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        self.take_pace();
        while data.len() > self.piece {
            let piece = data.split_to(self.piece);
            self.write(piece, false).await?;
        }
        self.write(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner.write_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ended = false;
        for task in tasks {
            ended |= match task {
                HttpTask::Body(Some(data), end) if !data.is_empty() => {
                    self.write_body(data, end).await.map_err(Error::into_down)?;
                    end
                }
                // Nothing else waits for the client.
                other => self.inner.response_duplex_vec(vec![other]).await?,
            };
        }
        Ok(ended)
    }

    /// Nothing: reads are bounded by the listener's and the route's limits.
    fn set_read_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    /// Nothing, as for reads.
    fn set_write_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_write_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.inner.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner.response_written()
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        self.inner.shutdown();
    }

    fn is_body_done(&mut self) -> bool {
        self.inner.is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.inner.finish()
    }

    fn is_body_empty(&mut self) -> bool {
        self.inner.is_body_empty()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        self.read(true, no_body_expected).await
    }

    fn body_bytes_sent(&self) -> usize {
        self.inner.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.inner.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Some(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner.pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.inner.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.inner.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.inner.get_retry_buffer()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Reader> {
        None
    }

    fn restore_custom_message_reader(&mut self, _reader: Reader) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}

type Reader = Box<dyn Messages<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

/// Whether a header is all there is of a gRPC response: then it must end the stream itself, and Pingora does not say so for
/// answers that are not proxied.
fn is_trailers_only(head: &ResponseHeader) -> bool {
    head.headers.contains_key("grpc-status")
}

/// Most bytes of a body to write before looking how the client keeps up: what a pace counts as moved was taken whole, and
/// a client at the slowest rate must be able to do that within half of its patience.
fn piece(rate: u64, stall: Duration) -> usize {
    const LEAST: u64 = 1 << 10;
    const MOST: u64 = 16 << 10;
    let bytes = if rate == 0 { MOST } else { rate.saturating_mul(stall.as_secs()) / 2 };
    usize::try_from(bytes.clamp(LEAST, MOST)).unwrap_or(usize::MAX)
}
