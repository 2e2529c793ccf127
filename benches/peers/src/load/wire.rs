//! The connection under a client: plain, or TLS.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context as _;
use bytes::BufMut;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The name in the certificate that `certificate` makes.
pub(crate) const SERVER_NAME: &str = "localhost";

/// How connections are made.
#[derive(Clone)]
pub(crate) struct Dialer {
    target: SocketAddr,
    tls: Option<TlsConnector>,
}

impl Dialer {
    /// To this address, with TLS if there is a certificate (PEM) to trust. Sessions are never resumed.
    pub(crate) fn new(target: SocketAddr, authority: Option<&Path>) -> anyhow::Result<Self> {
        let tls = match authority {
            None => None,
            Some(path) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(path).context("no certificate in the file")?)?;
                let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
                config.resumption = Resumption::disabled();
                Some(TlsConnector::from(Arc::new(config)))
            }
        };
        Ok(Self { target, tls })
    }

    /// Makes a connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<Wire> {
        let stream = TcpStream::connect(self.target).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Wire::Plain(stream)),
            Some(tls) => {
                let name = ServerName::try_from(SERVER_NAME)?;
                Ok(Wire::Tls(Box::new(tls.connect(name, stream).await.context("no handshake")?)))
            }
        }
    }
}

/// A connection.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    pub(crate) async fn read_buf(&mut self, buf: &mut impl BufMut) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buf).await,
            Self::Tls(stream) => stream.read_buf(buf).await,
        }
    }

    /// The socket.
    pub(crate) fn into_socket(self) -> TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.into_inner().0,
        }
    }
}
