//! The connection under HTTP/2: what was read of it already, the account of the frames that pass, and the end of the
//! patience with a client that reads nothing.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::protocols::{GetProxyDigest, Shutdown, Stream, raw_connect::ProxyDigest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::flood::Flood;
use crate::front::{
    pace::{Bounded, Pace},
    passage::passes_on,
};

/// See the module's documentation.
pub(super) struct Wire {
    inner: Stream,
    ahead: BytesMut,
    flood: Arc<Flood>,
    /// A client that reads nothing stops the streams that have ended too, and the words that end them: no stream's bound
    /// would end the connection.
    writes: Bounded,
}

impl Wire {
    /// A connection on which `ahead` was read already, and which may take nothing for `stall` at a time.
    pub(super) fn new(inner: Stream, ahead: BytesMut, flood: Arc<Flood>, stall: Duration) -> Self {
        Self { inner, ahead, flood, writes: Bounded::new(Pace::new(0, stall)) }
    }

    fn inner(&self) -> &Stream {
        &self.inner
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        if self.ahead.is_empty() {
            std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        } else {
            let give = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(give));
        }
        if self.flood.received(&buf.filled()[start..]) {
            Poll::Ready(Ok(()))
        } else {
            // Nothing more is read: the connection's loop has been woken, and ends it.
            buf.set_filled(start);
            Poll::Pending
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.flood.sent(&buf[..written]);
        }
        self.writes.bound(cx, polled, |written| *written)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut written)) = polled {
            for buf in bufs {
                let part = written.min(buf.len());
                self.flood.sent(&buf[..part]);
                written -= part;
            }
        }
        self.writes.bound(cx, polled, |written| *written)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.writes.bound(cx, polled, |()| 0)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.writes.bound(cx, polled, |()| 0)
    }
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

passes_on!(Wire);

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}
