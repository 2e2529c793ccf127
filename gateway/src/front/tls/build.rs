//! From settings to what rustls serves with.

use std::sync::Arc;

use rustls::{
    ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{Certificates, Demand, HostTls, Settings};
use crate::{
    certificate::KeyPair,
    config::tls::{CipherSuite, ClientAuthMode, MinVersion},
};

/// Sessions of TLS 1.2 that are kept for clients without tickets, for each policy.
const SESSIONS: usize = 1024;

/// One server configuration for each policy, in order.
pub(super) fn hosts(settings: &Settings, certificates: &Arc<Certificates>) -> Result<Vec<HostTls>, String> {
    let provider = Arc::new(provider(settings.ciphers.as_deref()));
    let mut hosts = Vec::with_capacity(settings.policies.len());
    for (policy, demand) in settings.policies.iter().map(|policy| policy.client_auth.as_ref()).enumerate() {
        let verifier = demand.map(|demand| verifier(demand, &provider)).transpose();
        let verifier = verifier.map_err(|error| error.to_string())?;
        let config = config(settings, &provider, certificates, verifier.clone()).map_err(|error| error.to_string())?;
        let client_auth = demand.map(|demand| demand.mode);
        hosts.push(HostTls { config: Arc::new(config), policy, client_auth, verifier });
    }
    Ok(hosts)
}

fn config(
    settings: &Settings,
    provider: &Arc<CryptoProvider>,
    certificates: &Arc<Certificates>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider));
    let builder = builder.with_protocol_versions(versions(settings.min_version))?;
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_cert_resolver(Arc::<Certificates>::clone(certificates));
    config.alpn_protocols = alpn(settings.http2);
    // A list that somebody wrote is in the order that they want; without one the client knows best what it does fast.
    config.ignore_client_order = settings.ciphers.is_some();
    // What comes before the handshake is over could be replayed, and might be answered before the client is known.
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    if settings.session_tickets {
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        config.ticketer = ring::Ticketer::new()?;
    } else {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

fn verifier(demand: &Demand, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let roots = Arc::new(demand.authorities.roots()?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let builder = match demand.mode {
        ClientAuthMode::Required => builder,
        ClientAuthMode::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| rustls::Error::General(error.to_string()))
}

fn alpn(http2: bool) -> Vec<Vec<u8>> {
    let names: &[&str] = if http2 { &["h2", "http/1.1"] } else { &["http/1.1"] };
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn versions(oldest: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    static NEWEST_FIRST: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match oldest {
        MinVersion::Tls12 => &NEWEST_FIRST,
        MinVersion::Tls13 => &NEWEST_FIRST[..1],
    }
}

fn provider(ciphers: Option<&[CipherSuite]>) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if let Some(ciphers) = ciphers {
        provider.cipher_suites = ciphers.iter().filter_map(|suite| known(*suite)).collect();
    }
    provider
}

fn known(suite: CipherSuite) -> Option<SupportedCipherSuite> {
    ring::ALL_CIPHER_SUITES.iter().find(|known| u16::from(known.suite()) == suite.0).copied()
}

/// The version that a suite belongs to.
pub fn version_of(suite: CipherSuite) -> MinVersion {
    if known(suite).is_some_and(|known| known.tls13().is_some()) { MinVersion::Tls13 } else { MinVersion::Tls12 }
}

/// Whether none of the suites of TLS 1.2 works with the kind of key that a certificate has.
pub fn lacks_suite_for(ciphers: &[CipherSuite], pair: &KeyPair) -> bool {
    let kind = pair.signing().algorithm();
    let mut suites = ciphers.iter().filter(|suite| version_of(**suite) == MinVersion::Tls12).filter_map(|s| known(*s));
    !suites.any(|suite| suite.usable_for_signature_algorithm(kind))
}
