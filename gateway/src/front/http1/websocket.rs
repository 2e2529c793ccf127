//! The part of a lane that serves WebSockets.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{
    lane::{Lane, PRESENT},
    tunnel::{CLIENT_FAREWELL, FAREWELL, Leaving, Tunnel, progress},
};

impl Lane {
    /// Whether this is a tunnel by now.
    pub(super) fn is_tunnel(&mut self) -> bool {
        if self.tunnel.is_none()
            && let Some(idle) = self.conn.tunnel_idle()
        {
            self.tunnel = Some(Box::new(Tunnel::new(idle, self.stop.clone())));
        }
        self.tunnel.is_some()
    }

    pub(super) fn poll_tunnel_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_farewell(cx)?;
        let Some(tunnel) = self.tunnel.as_mut() else { return Poll::Pending };
        if matches!(tunnel.leaving, Leaving::Told(_)) {
            return self.poll_last_words(cx, buf);
        }
        let start = buf.filled().len();
        let polled = self.poll_raw(cx, buf);
        if let (Poll::Ready(Ok(())), Some(tunnel)) = (&polled, self.tunnel.as_mut()) {
            tunnel.moved();
            tunnel.from_client.pass(&buf.filled()[start..]);
        }
        polled
    }

    /// Tells the client that this is the end, where it is and a frame has just ended.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(tunnel) = self.tunnel.as_mut() else { return Ok(()) };
        tunnel.poll_leave(cx);
        while let Leaving::Wanted(written) = tunnel.leaving
            && tunnel.to_client.is_at_boundary()
        {
            let io = self.inner.as_mut().expect(PRESENT);
            if written < FAREWELL.len() {
                let Some(more) = progress(Pin::new(io).poll_write(cx, &FAREWELL[written..]))? else { break };
                tunnel.leaving = Leaving::Wanted(written + more);
            } else if let Poll::Ready(flushed) = Pin::new(io).poll_flush(cx) {
                flushed?;
                tunnel.told();
            } else {
                break;
            }
        }
        Ok(())
    }

    /// The client has been told. The upstream is told on its behalf, then its stream ends once the client has hung up.
    fn poll_last_words(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(tunnel) = self.tunnel.as_mut() else { return Poll::Ready(Ok(())) };
        if !std::mem::replace(&mut tunnel.upstream_told, true)
            && tunnel.from_client.is_at_boundary()
            && buf.remaining() >= CLIENT_FAREWELL.len()
        {
            buf.put_slice(&CLIENT_FAREWELL);
            return Poll::Ready(Ok(()));
        }
        let mut thrown = [0_u8; 512];
        loop {
            let mut read = ReadBuf::new(&mut thrown);
            match Pin::new(self.io()).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
                Poll::Ready(_) => {
                    self.ended = true;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    let over = self.tunnel.as_mut().is_some_and(|tunnel| tunnel.is_over(cx));
                    return if over { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
            }
        }
    }

    pub(super) fn poll_tunnel_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_farewell(cx)?;
        let Self { tunnel: Some(tunnel), inner, .. } = self else { return Poll::Pending };
        let part = match tunnel.leaving {
            Leaving::No => buf,
            Leaving::Wanted(_) if tunnel.to_client.is_at_boundary() => return Poll::Pending,
            Leaving::Wanted(_) => &buf[..tunnel.to_client.until_boundary(buf)],
            // After the farewell nothing may follow (RFC 6455, section 5.5.1).
            Leaving::Told(_) => return Poll::Ready(Ok(buf.len())),
        };
        let polled = Pin::new(inner.as_mut().expect(PRESENT)).poll_write(cx, part);
        if let Poll::Ready(Ok(written)) = &polled {
            tunnel.to_client.pass(&part[..*written]);
            tunnel.moved();
        }
        let ended = tunnel.leaving == Leaving::Wanted(0) && tunnel.to_client.is_at_boundary();
        if ended {
            self.poll_farewell(cx)?;
        }
        self.bounded(cx, polled, |written| *written)
    }
}
