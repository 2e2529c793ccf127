//! What Pingora must know to connect to an endpoint. The only place where a peer is made.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pingora_core::{
    listeners::ALPN,
    protocols::{l4::socket::SocketAddr as PeerAddress, tls::CaType},
    upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy},
    utils::tls::{CertKey, WrappedX509, parse_x509},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::StepTimeouts;
use crate::certificate::{KeyPair, parsed};

/// Requests under way on one HTTP/2 connection, at most; fewer where the endpoint says so.
const MAX_STREAMS: usize = 100;
/// What an endpoint may send ahead on one stream, in bytes: held in memory for a client that does not read.
const STREAM_WINDOW: u32 = 128 << 10;
/// The same for a whole connection: enough for every stream, so that no client that does not read stops the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 100;
/// How often an HTTP/2 connection is asked whether it still lives.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How the endpoints of one upstream are spoken to.
#[derive(Clone)]
pub struct Transport {
    /// TLS, if any.
    pub tls: Option<PeerTls>,
    /// HTTP/2, and nothing else.
    pub http2: bool,
}

impl Transport {
    /// Stands for the settings in keys of pools and endpoints.
    pub fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.tls.as_ref().map(PeerTls::identity), self.http2).hash(&mut hasher);
        hasher.finish()
    }
}

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
pub fn template(address: SocketAddr, pool: u64, transport: &Transport) -> HttpPeer {
    let tls = transport.tls.as_ref();
    let server_name = tls.map_or_else(String::new, |t| t.server_name.clone());
    let mut peer = HttpPeer::new(address, tls.is_some(), server_name);
    let mut hasher = DefaultHasher::new();
    (pool, transport.identity()).hash(&mut hasher);
    peer.group_key = hasher.finish();
    peer.options.ca = tls.and_then(|t| t.authorities.clone());
    peer.client_cert_key = tls.and_then(|t| t.client.clone());
    peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    peer.options.tcp_keepalive = Some(pingora_core::protocols::TcpKeepalive {
        idle: Duration::from_mins(1),
        interval: Duration::from_secs(5),
        count: 5,
        #[cfg(target_os = "linux")]
        user_timeout: Duration::ZERO,
    });
    if transport.http2 {
        speak_http2(&mut peer);
    }
    peer
}

/// HTTP/2 and nothing else: Pingora goes on in HTTP/1.1 where the endpoint has not agreed to it, which both ways check.
fn speak_http2(peer: &mut HttpPeer) {
    let options = &mut peer.options;
    options.alpn = ALPN::H2;
    options.max_h2_streams = MAX_STREAMS;
    options.h2_ping_interval = Some(PING_INTERVAL);
    options.h2_stream_window_size = Some(STREAM_WINDOW);
    options.h2_connection_window_size = Some(CONNECTION_WINDOW);
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
    peer
}

/// The template for one probe, on a connection that is shared with nothing, perhaps to another port.
pub(super) fn for_probe(template: &HttpPeer, port: Option<u16>, timeout: Duration) -> HttpPeer {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut peer = template.clone();
    if let (Some(port), Some(address)) = (port, peer._address.as_inet()) {
        peer._address = PeerAddress::Inet(SocketAddr::new(address.ip(), port));
    }
    let mut hasher = DefaultHasher::new();
    ("a probe", template.group_key, NUMBER.fetch_add(1, Ordering::Relaxed)).hash(&mut hasher);
    peer.group_key = hasher.finish();
    let options = &mut peer.options;
    options.connection_timeout = Some(timeout);
    options.total_connection_timeout = Some(timeout);
    options.read_timeout = Some(timeout);
    options.write_timeout = Some(timeout);
    peer
}

#[cfg(test)]
mod tests {
    use pingora_core::upstreams::peer::Peer as _;

    use super::*;

    fn peer(http2: bool) -> HttpPeer {
        template(SocketAddr::from(([127, 0, 0, 1], 1)), 7, &Transport { tls: None, http2 })
    }

    #[test]
    fn http2_is_all_or_nothing_and_pools_do_not_mix() {
        let (old, new) = (peer(false), peer(true));
        assert_eq!((old.options.alpn.get_max_http_version(), old.h2_ping_interval()), (1, None));
        assert_eq!((new.options.alpn.get_min_http_version(), new.options.alpn.get_max_http_version()), (2, 2));
        assert_eq!((new.h2_ping_interval(), new.options.max_h2_streams), (Some(PING_INTERVAL), MAX_STREAMS));
        assert_ne!(old.group_key, new.group_key);
    }

    #[test]
    fn streams_that_nobody_reads_leave_room_for_the_others() {
        assert!(u64::from(CONNECTION_WINDOW) >= u64::from(STREAM_WINDOW) * MAX_STREAMS as u64);
    }
}
