//! A client connection as Pingora reads and writes it, one request at a time.
//!
//! Pingora gets the header that the front has read and checked, then through the lane the bytes of that request's body
//! and not one more: what a client sends ahead waits here for its turn, and is checked like any other request. The lane
//! also cuts a wait for an upstream that has lasted too long.

use std::{
    fmt,
    io::{self, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::{
    listeners::ALPN,
    protocols::{
        GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
        UniqueID, UniqueIDType,
        raw_connect::ProxyDigest,
        tls::{SslDigest, TlsRef},
    },
};
use pingora_http::ResponseHeader;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, Sleep},
};

use super::conn::Conn;
use crate::request::{BodyFraming, ChunkScanner};

/// Most bytes kept of what a client sends ahead of its turn.
const MAX_AHEAD: usize = 64 << 10;
/// How much of an unread request is thrown away before a connection is closed, so that the response is not lost to a
/// reset (RFC 9112, section 9.6).
const LINGER_BYTES: usize = 1 << 20;
/// How long that may take.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// How long a client that owes nothing may take to hang up.
const HANG_UP_TIME: Duration = Duration::from_millis(200);

/// Why the connection is always there.
const PRESENT: &str = "only `drop` takes the connection out";

/// What is still to come of the current request's body.
enum Rest {
    Bytes(u64),
    Chunks(Box<ChunkScanner>),
}

/// See the module's documentation.
pub(super) struct Lane {
    /// Present until the lane is dropped.
    inner: Option<Stream>,
    conn: Arc<Conn>,
    digest: Arc<ProxyDigest>,
    /// Bytes read and not given out yet.
    pub(super) ahead: BytesMut,
    rest: Rest,
    alarm: Option<Pin<Box<Sleep>>>,
    /// The client's last byte has been read.
    ended: bool,
    /// How long a write may wait for the client.
    patience: Duration,
    write_alarm: Option<Pin<Box<Sleep>>>,
    /// The write alarm is running.
    stalled: bool,
}

impl Lane {
    /// A lane over an accepted connection.
    pub(super) fn new(inner: Stream, conn: Arc<Conn>) -> Option<Box<Self>> {
        let response = Box::new(ResponseHeader::build(200, Some(0)).ok()?);
        let digest = Arc::new(ProxyDigest::new(response, Some(Box::new(Arc::clone(&conn)))));
        Some(Box::new(Self {
            inner: Some(inner),
            conn,
            digest,
            ahead: BytesMut::new(),
            rest: Rest::Bytes(0),
            alarm: None,
            ended: false,
            patience: LINGER_TIME,
            write_alarm: None,
            stalled: false,
        }))
    }

    /// Sets the body that the next reads belong to, and how long a write may wait for the client.
    pub(super) fn expect(&mut self, body: BodyFraming, patience: Duration) {
        self.patience = patience;
        self.rest = match body {
            BodyFraming::None => Rest::Bytes(0),
            BodyFraming::Length(length) => Rest::Bytes(length),
            BodyFraming::Chunked => Rest::Chunks(Box::default()),
        };
    }

    /// Waits for the first byte of a request until the deadline; `false` if none comes. An idle connection holds no buffer,
    /// only this byte on the stack, and shares the timer that bounds the waits for upstreams.
    pub(super) async fn first_byte(&mut self, deadline: std::time::Instant) -> bool {
        let deadline = Instant::from_std(deadline);
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
                Poll::Pending if self.poll_alarm(cx, deadline) => Poll::Ready(false),
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

    fn io(&mut self) -> &mut Stream {
        self.inner.as_mut().expect(PRESENT)
    }

    fn io_ref(&self) -> &Stream {
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
                    self.conn.mark_broken_framing();
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

    /// Gives out what was read ahead, else reads; then keeps back what belongs to the next request.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        if self.ahead.is_empty() {
            ready!(Pin::new(self.io()).poll_read(cx, buf))?;
            self.ended = buf.filled().len() == start;
        } else {
            let give = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(give));
        }
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

    /// Whether the wait for a response header is over. One timer serves the whole connection: it is moved only when it
    /// fires or would fire too late, so that a request usually costs no timer at all.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.conn.deadline().map(Instant::from_std) else { return false };
        let late = self.poll_alarm(cx, deadline);
        if late {
            self.conn.mark_overdue();
        }
        late
    }

    /// Whether this deadline has passed; if not, the task is woken when it has.
    fn poll_alarm(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return true;
            }
            alarm.as_mut().reset(deadline);
        }
        false
    }
}

impl Lane {
    /// Passes a write's outcome on, unless the client has kept it waiting for too long. Pingora bounds the writes of bodies
    /// only; this bounds headers, flushes and the end of a response too.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = false;
            return polled;
        }
        let patience = self.patience;
        let alarm = self.write_alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if !self.stalled {
            alarm.as_mut().reset(Instant::now() + patience);
            self.stalled = true;
        }
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Lane {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = if this.is_body_read() { this.poll_hang_up(cx) } else { this.poll_body(cx, buf) };
        if polled.is_pending() && this.poll_overdue(cx) {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl AsyncWrite for Lane {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(self.io()).poll_write(cx, buf);
        self.bounded(cx, polled)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(self.io()).poll_write_vectored(cx, bufs);
        self.bounded(cx, polled)
    }
    fn is_write_vectored(&self) -> bool {
        self.io_ref().is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(self.io()).poll_flush(cx);
        self.bounded(cx, polled)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(self.io()).poll_shutdown(cx);
        self.bounded(cx, polled)
    }
}

/// Ends a connection so that what was written arrives: closing with something unread would be a reset, which destroys
/// what the client has not read yet. `owing`: the client has not sent all of its request.
async fn hang_up(io: &mut Stream, patience: Duration, owing: bool) {
    let _ = tokio::time::timeout(patience, Shutdown::shutdown(io.as_mut())).await;
    let discard = async {
        let mut buffer = [0_u8; 4096];
        let mut left = LINGER_BYTES;
        while let Ok(read @ 1..) = io.read(&mut buffer).await {
            left = left.saturating_sub(read);
            if left == 0 {
                break;
            }
        }
    };
    // A client that owes nothing has only to hang up.
    let _ = tokio::time::timeout(if owing { LINGER_TIME } else { HANG_UP_TIME }, discard).await;
}

#[async_trait]
impl Shutdown for Lane {
    async fn shutdown(&mut self) {
        let (patience, owing) = (self.patience, !self.is_body_read());
        if !std::mem::replace(&mut self.ended, true) {
            hang_up(self.io(), patience, owing).await;
        }
    }
}

/// Pingora drops a connection that it will not use again without ending it.
impl Drop for Lane {
    fn drop(&mut self) {
        let (patience, owing) = (self.patience, !self.is_body_read());
        let Some(mut io) = self.inner.take().filter(|_| !self.ended) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { hang_up(&mut io, patience, owing).await });
        }
    }
}

impl UniqueID for Lane {
    fn id(&self) -> UniqueIDType {
        self.io_ref().id()
    }
}
impl Ssl for Lane {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.io_ref().get_ssl()
    }
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.io_ref().get_ssl_digest()
    }
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.io_ref().selected_alpn_proto()
    }
}
impl GetTimingDigest for Lane {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.io_ref().get_timing_digest()
    }
    fn get_read_pending_time(&self) -> Duration {
        self.io_ref().get_read_pending_time()
    }
    fn get_write_pending_time(&self) -> Duration {
        self.io_ref().get_write_pending_time()
    }
}
impl GetProxyDigest for Lane {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}
impl GetSocketDigest for Lane {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.io_ref().get_socket_digest()
    }
}
impl Peek for Lane {}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("peer", &self.conn.peer).finish_non_exhaustive()
    }
}
