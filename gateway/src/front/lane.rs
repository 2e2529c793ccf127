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

/// What is still to come of the current request's body.
enum Rest {
    Bytes(u64),
    Chunks(Box<ChunkScanner>),
}

/// See the module's documentation.
pub(super) struct Lane {
    inner: Stream,
    conn: Arc<Conn>,
    digest: Arc<ProxyDigest>,
    /// Bytes read and not given out yet.
    pub(super) ahead: BytesMut,
    rest: Rest,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Lane {
    /// A lane over an accepted connection.
    pub(super) fn new(inner: Stream, conn: Arc<Conn>) -> Option<Box<Self>> {
        let response = Box::new(ResponseHeader::build(200, Some(0)).ok()?);
        let digest = Arc::new(ProxyDigest::new(response, Some(Box::new(Arc::clone(&conn)))));
        Some(Box::new(Self { inner, conn, digest, ahead: BytesMut::new(), rest: Rest::Bytes(0), alarm: None }))
    }

    /// Sets the body that the next reads belong to.
    pub(super) fn expect(&mut self, body: BodyFraming) {
        self.rest = match body {
            BodyFraming::None => Rest::Bytes(0),
            BodyFraming::Length(length) => Rest::Bytes(length),
            BodyFraming::Chunked => Rest::Chunks(Box::default()),
        };
    }

    /// Reads more of a header into `ahead`; `false` at the end of the stream.
    pub(super) async fn read_ahead(&mut self) -> io::Result<bool> {
        if self.ahead.is_empty() {
            // An idle connection holds no buffer: one byte is waited for on the stack.
            let mut first = [0_u8; 1];
            if self.inner.read(&mut first).await? == 0 {
                return Ok(false);
            }
            self.ahead.reserve(1024);
            self.ahead.extend_from_slice(&first);
            return Ok(true);
        }
        self.ahead.reserve(1024);
        Ok(self.inner.read_buf(&mut self.ahead).await? > 0)
    }

    /// Writes bytes of our own, bounded in time, and closes.
    pub(super) async fn say_and_close(mut self: Box<Self>, bytes: &[u8]) {
        let write = async {
            self.inner.write_all(bytes).await?;
            self.inner.flush().await
        };
        if matches!(tokio::time::timeout(LINGER_TIME, write).await, Ok(Ok(()))) {
            self.rest = Rest::Bytes(u64::MAX);
            Shutdown::shutdown(&mut *self).await;
        }
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
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
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
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
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
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                self.conn.mark_overdue();
                return true;
            }
            alarm.as_mut().reset(deadline);
        }
        false
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
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Lane {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(self.inner.as_mut()).await;
        if self.is_body_read() {
            return;
        }
        let discard = async {
            let mut buffer = [0_u8; 4096];
            let mut left = LINGER_BYTES;
            while let Ok(read @ 1..) = self.inner.read(&mut buffer).await {
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(LINGER_TIME, discard).await;
    }
}

impl UniqueID for Lane {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}
impl Ssl for Lane {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}
impl GetTimingDigest for Lane {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }
    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}
impl GetProxyDigest for Lane {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}
impl GetSocketDigest for Lane {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}
impl Peek for Lane {}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("peer", &self.conn.peer).finish_non_exhaustive()
    }
}
