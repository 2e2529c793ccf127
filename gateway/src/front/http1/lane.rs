//! A client connection as Pingora reads and writes it, one request at a time.
//!
//! Pingora gets the header that the front has read and checked, then through the lane the bytes of that request's body
//! and not one more: what a client sends ahead waits here for its turn, and is checked like any other request. The lane
//! also cuts a wait for an upstream that has lasted too long, and a client that sends or reads too slowly.

use std::{
    fmt,
    io::{self, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::{
    protocols::{GetProxyDigest, Shutdown, Stream, raw_connect::ProxyDigest},
    server::ShutdownWatch,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    hang_up::{LINGER_TIME, hang_up},
    tunnel::Tunnel,
};
use crate::{
    config::limits::ClientLimits,
    front::{
        Conn,
        alarm::Alarm,
        conn::Cut,
        pace::{Bounded, Pace},
        passage::passes_on,
    },
    request::{BodyFraming, ChunkScanner},
};

/// Most bytes kept of what a client sends ahead of its turn.
const MAX_AHEAD: usize = 64 << 10;

/// Why the connection is always there.
pub(super) const PRESENT: &str = "only `drop` and `into_inner` take the connection out";

/// What is still to come of the current request's body.
enum Rest {
    Bytes(u64),
    Chunks(Box<ChunkScanner>),
}

/// See the module's documentation.
pub(in crate::front) struct Lane {
    /// Present until the lane is dropped.
    pub(super) inner: Option<Stream>,
    pub(super) conn: Arc<Conn>,
    digest: Arc<ProxyDigest>,
    pub(super) stop: ShutdownWatch,
    /// Bytes read and not given out yet.
    pub(super) ahead: BytesMut,
    rest: Rest,
    /// The client's last byte has been read.
    pub(super) ended: bool,
    reads: Pace,
    writes: Bounded,
    read_alarm: Alarm,
    pub(super) tunnel: Option<Box<Tunnel>>,
}

impl Lane {
    /// A lane over an accepted connection, with bytes that were read already.
    pub(in crate::front) fn new(
        inner: Stream,
        conn: Arc<Conn>,
        stop: ShutdownWatch,
        ahead: BytesMut,
    ) -> Option<Box<Self>> {
        let response = Box::new(ResponseHeader::build(200, Some(0)).ok()?);
        let digest = Arc::new(ProxyDigest::new(response, Some(Box::new(Arc::clone(&conn)))));
        Some(Box::new(Self {
            inner: Some(inner),
            conn,
            digest,
            stop,
            ahead,
            rest: Rest::Bytes(0),
            ended: false,
            reads: Pace::new(0, LINGER_TIME),
            writes: Bounded::new(Pace::new(0, LINGER_TIME)),
            read_alarm: Alarm::default(),
            tunnel: None,
        }))
    }

    /// Sets the body that the next reads belong to, and how long the client may keep us waiting.
    pub(super) fn expect(&mut self, body: BodyFraming, client: &ClientLimits) {
        self.set_pace(client.min_rate.0, client.idle.0);
        self.rest = match body {
            BodyFraming::None => Rest::Bytes(0),
            BodyFraming::Length(length) => Rest::Bytes(length),
            BodyFraming::Chunked => Rest::Chunks(Box::default()),
        };
    }

    fn set_pace(&mut self, rate: u64, pause: Duration) {
        self.reads = Pace::new(rate, pause);
        self.writes.set(Pace::new(rate, pause));
    }

    /// Waits for the first byte of a request until the deadline; `false` if none comes. An idle connection holds no buffer,
    /// only this byte on the stack, and shares the timer that bounds the waits for upstreams.
    pub(super) async fn first_byte(&mut self, deadline: Instant) -> bool {
        std::future::poll_fn(|cx| {
            let mut first = [0_u8; 1];
            let mut read = ReadBuf::new(&mut first);
            match Pin::new(self.io()).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    self.ahead.reserve(1024);
                    self.ahead.extend_from_slice(read.filled());
                    Poll::Ready(true)
                }
                Poll::Ready(_) => {
                    self.ended = true;
                    Poll::Ready(false)
                }
                Poll::Pending if self.read_alarm.has_passed(cx, deadline) => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Reads more of a header into `ahead`; `false` at the end of the stream.
    pub(super) async fn read_ahead(&mut self) -> io::Result<bool> {
        self.ahead.reserve(1024);
        let Self { inner, ahead, .. } = self;
        let read = inner.as_mut().expect(PRESENT).read_buf(ahead).await?;
        self.ended = read == 0;
        Ok(read > 0)
    }

    /// Writes bytes of our own, bounded in time, and closes.
    pub(super) async fn say_and_close(mut self: Box<Self>, bytes: &[u8]) {
        let write = async {
            self.io().write_all(bytes).await?;
            self.io().flush().await
        };
        if matches!(tokio::time::timeout(LINGER_TIME, write).await, Ok(Ok(()))) {
            self.rest = Rest::Bytes(u64::MAX);
            Shutdown::shutdown(&mut *self).await;
        }
    }

    /// The connection, with what was read ahead on it.
    pub(super) fn into_inner(mut self: Box<Self>) -> (Stream, BytesMut) {
        let ahead = std::mem::take(&mut self.ahead);
        (self.inner.take().expect(PRESENT), ahead)
    }

    pub(super) fn io(&mut self) -> &mut Stream {
        self.inner.as_mut().expect(PRESENT)
    }

    fn inner(&self) -> &Stream {
        self.inner.as_ref().expect(PRESENT)
    }

    fn is_body_read(&self) -> bool {
        matches!(self.rest, Rest::Bytes(0))
    }

    /// How many of these bytes belong to the current body; moves the account on.
    fn account(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.rest {
            Rest::Bytes(left) => {
                let ours = usize::try_from(*left).map_or(bytes.len(), |l| l.min(bytes.len()));
                *left -= ours as u64;
                Ok(ours)
            }
            Rest::Chunks(scanner) => match scanner.scan(bytes) {
                Ok(progress) => {
                    if progress.complete {
                        self.rest = Rest::Bytes(0);
                    }
                    Ok(progress.used)
                }
                Err(refusal) => {
                    self.conn.mark(Cut::BrokenFraming);
                    Err(io::Error::new(ErrorKind::InvalidData, refusal.detail))
                }
            },
        }
    }

    /// While the body is complete: waits for the client to hang up, keeping what it sends ahead.
    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = [0_u8; 512];
        while self.ahead.len() < MAX_AHEAD {
            let mut read = ReadBuf::new(&mut buffer);
            ready!(Pin::new(self.io()).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            self.ahead.extend_from_slice(read.filled());
        }
        Poll::Pending
    }

    /// What was read ahead, else what can be read now.
    pub(super) fn poll_raw(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let start = buf.filled().len();
            ready!(Pin::new(self.io()).poll_read(cx, buf))?;
            self.ended = buf.filled().len() == start;
        } else {
            let give = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(give));
        }
        Poll::Ready(Ok(()))
    }

    /// Gives out bytes of the body, and keeps back what belongs to the next request.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        ready!(self.poll_raw(cx, buf))?;
        let _ = self.reads.moved(buf.filled().len() - start);
        let ours = self.account(&buf.filled()[start..])?;
        let end = start + ours;
        if end < buf.filled().len() {
            let mut kept = BytesMut::from(&buf.filled()[end..]);
            kept.unsplit(std::mem::take(&mut self.ahead));
            self.ahead = kept;
            buf.set_filled(end);
        }
        Poll::Ready(Ok(()))
    }

    /// A read waits: whether it has for too long, for the client's body or for an upstream's answer.
    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some((rate, pause)) = self.conn.take_pace() {
            self.set_pace(rate, pause);
        }
        let answer = self.conn.deadline().map(|deadline| (deadline, Cut::Overdue));
        let body = (!self.is_body_read()).then(|| (self.reads.waits_until(), Cut::Slow));
        let Some((deadline, why)) = answer.into_iter().chain(body).min_by_key(|(deadline, _)| *deadline) else {
            return false;
        };
        let cut = self.read_alarm.has_passed(cx, deadline);
        if cut {
            self.conn.mark(why);
        }
        cut
    }

    /// Passes a write's outcome on, unless the client has kept it waiting for too long. Pingora bounds the writes of bodies
    /// only; this bounds headers and flushes too, and [`hang_up`] the end.
    pub(super) fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        let outcome = self.writes.bound(cx, polled, bytes);
        if let Some(waited) = self.writes.take_waited() {
            self.conn.keeps_waiting(waited);
        }
        outcome
    }
}

impl AsyncRead for Lane {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_tunnel() {
            return this.poll_tunnel_read(cx, buf);
        }
        let polled = if this.is_body_read() { this.poll_hang_up(cx) } else { this.poll_body(cx, buf) };
        if polled.is_pending() && this.is_cut(cx) {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl AsyncWrite for Lane {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_tunnel() {
            return self.poll_tunnel_write(cx, buf);
        }
        let polled = Pin::new(self.io()).poll_write(cx, buf);
        self.bounded(cx, polled, |written| *written)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_tunnel() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &buf[..]);
            return self.poll_tunnel_write(cx, first);
        }
        let polled = Pin::new(self.io()).poll_write_vectored(cx, bufs);
        self.bounded(cx, polled, |written| *written)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner().is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(self.io()).poll_flush(cx);
        self.bounded(cx, polled, |()| 0)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(self.io()).poll_shutdown(cx);
        self.bounded(cx, polled, |()| 0)
    }
}

#[async_trait]
impl Shutdown for Lane {
    async fn shutdown(&mut self) {
        let (until, owing) = (self.writes.until(), !self.is_body_read());
        if !std::mem::replace(&mut self.ended, true) {
            hang_up(self.io(), until, owing).await;
        }
    }
}

/// Pingora drops a connection that it will not use again without ending it.
impl Drop for Lane {
    fn drop(&mut self) {
        let (until, owing) = (self.writes.until(), !self.is_body_read());
        let Some(mut io) = self.inner.take().filter(|_| !self.ended) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { hang_up(&mut io, until, owing).await });
        }
    }
}

passes_on!(Lane);

impl GetProxyDigest for Lane {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("peer", &self.conn.link.peer).finish_non_exhaustive()
    }
}
