//! A TLS client that shows what really happened.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use super::{Folder, PATIENCE, Response, gateway};

/// Whom a client trusts, who it is, and what it remembers of earlier sessions.
#[derive(Clone)]
pub struct Trust(pub Arc<ClientConfig>);

impl Trust {
    /// Trusts the authority of this folder, and shows a certificate of `own` if one is named.
    pub fn of(folder: &Folder, own: Option<(&Folder, &str)>, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(folder.authority.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Self(Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some((folder, name)) => {
                let chain = CertificateDer::pem_file_iter(folder.file(name, "pem")).unwrap().map(Result::unwrap);
                let key = PrivateKeyDer::from_pem_file(folder.file(name, "key")).unwrap();
                builder.with_client_auth_cert(chain.collect(), key).unwrap()
            }
        }))
    }

    /// The same, offering these protocols.
    pub fn offering(&self, protocols: &[&str]) -> Self {
        let mut config = (*self.0).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }
}

/// A connection.
pub struct Secure(pub StreamOwned<ClientConnection, TcpStream>);

impl Secure {
    /// Shakes hands, asking for this name.
    pub fn connect(address: &str, name: &str, trust: &Trust) -> std::io::Result<Self> {
        Self::connect_after(address, b"", name, trust)
    }

    /// The same, sending these bytes before the handshake.
    pub fn connect_after(address: &str, before: &[u8], name: &str, trust: &Trust) -> std::io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(before)?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let conn = ClientConnection::new(Arc::clone(&trust.0), name).map_err(std::io::Error::other)?;
        let mut tls = StreamOwned::new(conn, stream);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(Self(tls))
    }

    /// Whether the session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Sends a GET and reads the answer; an error where the server has refused the client after all (TLS 1.3).
    pub fn get(&mut self, host: &str, target: &str) -> std::io::Result<Response> {
        write!(self.0, "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        self.0.flush()?;
        let mut bytes = Vec::new();
        let read = self.0.read_to_end(&mut bytes);
        if bytes.is_empty() {
            read?;
        }
        if bytes.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(gateway::parse(&bytes)) }
    }
}
