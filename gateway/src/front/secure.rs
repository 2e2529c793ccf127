//! TLS on an accepted connection.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use crossway_plugin_api::ClientCertificate;
use pingora_core::protocols::{GetProxyDigest, Shutdown, l4::stream::Stream as L4Stream, raw_connect::ProxyDigest};
use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{
    passage::passes_on,
    tls::{HostTls, TlsTable, UNRECOGNIZED_NAME},
};
use crate::{certificate, telemetry::metrics::HandshakeMetrics};

/// A connection on which the handshake is done.
pub(super) struct Secure {
    stream: TlsStream<Box<L4Stream>>,
}

/// What the handshake of a connection came to.
#[derive(Debug)]
pub struct Secured {
    table: Arc<TlsTable>,
    /// The name that the client asked for.
    sni: Option<Box<str>>,
    /// What the client's certificate says, which the handshake has verified.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Secured {
    /// Whether a request for `host` (in lower case, without port) may come on this connection.
    pub(super) fn admits(&self, host: &str) -> bool {
        self.table.same_authority(self.sni.as_deref(), host)
    }
}

/// Reads the ClientHello, and shakes hands as the host wants it that the client asks for. `None` if it comes to nothing;
/// the client has been told why. The caller bounds the time.
pub(super) async fn shake_hands(
    io: Box<L4Stream>,
    table: &Arc<TlsTable>,
    metrics: &HandshakeMetrics,
) -> Option<(Secure, Secured)> {
    let done = try_shake_hands(io, table).await;
    match &done {
        Some((secure, _)) => match secure.stream.get_ref().1.handshake_kind() {
            Some(HandshakeKind::Resumed) => metrics.resumed.inc(),
            _ => metrics.full.inc(),
        },
        None => metrics.failed.inc(),
    }
    done
}

async fn try_shake_hands(io: Box<L4Stream>, table: &Arc<TlsTable>) -> Option<(Secure, Secured)> {
    let mut start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io);
    // On an error the library has written the alert that belongs to it.
    let hello = (&mut start).await.ok()?;
    let sni: Option<Box<str>> = hello.client_hello().server_name().map(Into::into);
    let Some(host) = table.choose(sni.as_deref()) else {
        let mut io = start.take_io().or_else(|| Some(hello.io))?;
        let _ = io.write_all(&UNRECOGNIZED_NAME).await;
        let _ = io.flush().await;
        let _ = io.shutdown().await;
        return None;
    };
    let mut stream = hello.into_stream(Arc::clone(&host.config)).await.ok()?;
    match client(&stream, host) {
        Ok(certificate) => Some((Secure { stream }, Secured { table: Arc::clone(table), sni, certificate })),
        Err(why) => {
            tracing::debug!(%why, "a client's certificate is refused after the handshake");
            let _ = stream.shutdown().await;
            None
        }
    }
}

/// Who the client is by its certificate, read once for all requests of the connection. Errors: it is no longer valid, or
/// says something that could be read in two ways; such a client is not served as somebody without a certificate.
fn client(stream: &TlsStream<Box<L4Stream>>, host: &HostTls) -> Result<Option<Arc<ClientCertificate>>, String> {
    let session = stream.get_ref().1;
    let chain = session.peer_certificates();
    // A full handshake has just verified it; a session that is resumed brings it as it was.
    if session.handshake_kind() == Some(HandshakeKind::Resumed) && !host.still_admits(chain) {
        return Err("is not valid any more".into());
    }
    match chain.and_then(|chain| chain.first()) {
        Some(leaf) => certificate::client(leaf).map(|read| Some(Arc::new(read))),
        None => Ok(None),
    }
}

impl Secure {
    /// Whether the two sides have agreed on HTTP/2 (RFC 7301).
    pub(super) fn speaks_http2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    fn inner(&self) -> &L4Stream {
        self.stream.get_ref().0
    }
}

impl AsyncRead for Secure {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secure {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Secure {
    /// Says that this is the end (RFC 8446, section 6.1), and closes our side.
    async fn shutdown(&mut self) {
        let _ = self.stream.shutdown().await;
    }
}

passes_on!(Secure);

impl GetProxyDigest for Secure {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure").finish_non_exhaustive()
    }
}
