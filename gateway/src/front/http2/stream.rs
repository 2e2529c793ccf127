//! One HTTP/2 stream as Pingora reads and writes it.
//!
//! Pingora's own session does the work; this one around it keeps the bounds that Pingora's does not have: how slowly a
//! client may send and take a body, and how long an upstream's answer may be waited for.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

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
    alarm: Alarm,
    /// How long the client may keep its window closed.
    stall: Duration,
    /// Slowest rate at which it may take a response, in bytes a second; 0 for none.
    rate: u64,
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
        inner.set_write_timeout(Some(stall));
        let (rate, reads) = (client.min_rate.0, Pace::new(client.min_rate.0, client.idle.0));
        Some(Self { inner, conn, digest, reads, alarm: Alarm::default(), stall, rate })
    }

    /// What the route says in place of the listener.
    fn take_pace(&mut self) {
        if let Some((rate, pause)) = self.conn.take_pace() {
            self.rate = rate;
            self.reads = Pace::new(rate, pause);
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

    /// Bounds a write of so many bytes by the time that the slowest client may take.
    async fn write<T>(&mut self, bytes: usize, write: impl AsyncFnOnce(&mut HttpSession) -> Result<T>) -> Result<T> {
        self.take_pace();
        let allowed =
            (bytes as u64 * 1000).checked_div(self.rate).map(|earned| self.stall + Duration::from_millis(earned));
        let Self { inner, alarm, conn, .. } = self;
        let mut since = None;
        let mut write = pin!(write(inner));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = write.as_mut().poll(cx) {
                if let Some(since) = since {
                    conn.keeps_waiting(Instant::elapsed(&since));
                }
                return Poll::Ready(done);
            }
            let since = *since.get_or_insert_with(Instant::now);
            if allowed.is_some_and(|allowed| alarm.has_passed(cx, since + allowed)) {
                let slow = Error::explain(ErrorType::WriteTimedout, "the client takes the response too slowly");
                return Poll::Ready(Err(slow.into_down()));
            }
            Poll::Pending
        })
        .await
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

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.write(data.len(), async move |inner| inner.write_body(data, end).await).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner.write_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let bytes = tasks.iter().map(body_length).sum();
        self.write(bytes, async move |inner| inner.response_duplex_vec(tasks).await).await
    }

    /// Nothing: reads are bounded by the listener's and the route's limits.
    fn set_read_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.inner.get_write_timeout()
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

fn body_length(task: &HttpTask) -> usize {
    match task {
        HttpTask::Body(Some(piece), _) => piece.len(),
        _ => 0,
    }
}
