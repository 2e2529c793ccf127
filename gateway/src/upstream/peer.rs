//! What Pingora must know to connect to an endpoint. The only place where a peer is made.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use pingora_core::{
    protocols::tls::CaType,
    upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy},
    utils::tls::{CertKey, WrappedX509, parse_x509},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::StepTimeouts;
use crate::certificate::{KeyPair, parsed};

/// TLS to the endpoints of one upstream, checked.
#[derive(Clone)]
pub struct PeerTls {
    /// Name the certificate must carry. Never empty: Pingora takes an empty name as "verify nothing".
    server_name: String,
    /// Authorities to trust in place of the system's.
    authorities: Option<Arc<CaType>>,
    /// The certificate and key that the gateway presents.
    client: Option<Arc<CertKey>>,
    /// Distinguishes pools whose settings differ: Pingora's pool key holds neither the authorities nor more than the
    /// serial numbers of the client's certificates.
    identity: u64,
}

impl PeerTls {
    /// Checks the name and the authorities (PEM), so that nothing can fail or panic at connect time; `client` is checked
    /// already.
    pub fn new(server_name: &str, authorities_pem: Option<&[u8]>, client: Option<&KeyPair>) -> Result<Self, String> {
        ServerName::try_from(server_name.to_owned()).map_err(|_| "is not a host name or an address".to_owned())?;
        let authorities = authorities_pem.map(authorities).transpose()?;
        let mut hasher = DefaultHasher::new();
        // The key fits its certificate, so that the certificates stand for it.
        let chain = client.map(|pair| pair.chain().iter().map(|certificate| certificate.to_vec()).collect::<Vec<_>>());
        (server_name, authorities_pem, &chain).hash(&mut hasher);
        let client = client.zip(chain).map(|(pair, chain)| Arc::new(CertKey::new(chain, pair.secret().to_vec())));
        Ok(Self { server_name: server_name.to_owned(), authorities, client, identity: hasher.finish() })
    }

    /// Stands for the settings in keys of pools and endpoints.
    pub fn identity(&self) -> u64 {
        self.identity
    }
}

fn authorities(pem: &[u8]) -> Result<Arc<CaType>, String> {
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("is not a PEM file of certificates: {error}"))?;
    if certificates.is_empty() {
        return Err("holds no certificate".into());
    }
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store.add(certificate.clone()).map_err(|error| format!("holds a certificate that cannot be used: {error}"))?;
        // Pingora reads it once more in its own way, and panics if that fails.
        parsed(certificate)?;
    }
    let wrap = |certificate: CertificateDer<'_>| WrappedX509::new(certificate.to_vec(), parse_x509);
    Ok(certificates.into_iter().map(wrap).collect::<Vec<_>>().into())
}

/// A peer for one address: a template that is cloned for each attempt.
#[expect(clippy::disallowed_methods, reason = "an address needs no resolving, so this can neither block nor panic")]
pub fn template(address: SocketAddr, pool: u64, tls: Option<&PeerTls>) -> HttpPeer {
    let server_name = tls.map_or_else(String::new, |t| t.server_name.clone());
    let mut peer = HttpPeer::new(address, tls.is_some(), server_name);
    let mut hasher = DefaultHasher::new();
    (pool, tls.map(|t| t.identity)).hash(&mut hasher);
    peer.group_key = hasher.finish();
    peer.options.ca = tls.and_then(|t| t.authorities.clone());
    peer.client_cert_key = tls.and_then(|t| t.client.clone());
    peer.options.tcp_keepalive = Some(pingora_core::protocols::TcpKeepalive {
        idle: Duration::from_mins(1),
        interval: Duration::from_secs(5),
        count: 5,
        #[cfg(target_os = "linux")]
        user_timeout: Duration::ZERO,
    });
    peer
}

/// Lets a WebSocket handshake through. Once it is one, the connection to the client says how long nothing may move, and
/// the upstream may be silent for as long as the client speaks.
pub fn allow_websocket(peer: &mut HttpPeer, timeouts: &StepTimeouts) {
    let options = &mut peer.options;
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::default();
    options.read_timeout = None;
    options.write_timeout = Some(timeouts.idle);
}

/// The template with the time-outs of one attempt; `left` is what remains of the total. Before the response header the wait is bounded elsewhere (by the
/// connection's answer deadline or the exchange), so that a body may pause for longer than the header may take.
pub fn for_attempt(template: &HttpPeer, timeouts: &StepTimeouts, left: Duration) -> HttpPeer {
    let mut peer = template.clone();
    let options = &mut peer.options;
    let connect = timeouts.connect.min(left);
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    options.read_timeout = Some(timeouts.idle.max(timeouts.first_byte));
    options.write_timeout = Some(timeouts.idle.min(left));
    options.idle_timeout = Some(timeouts.idle);
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    peer
}
