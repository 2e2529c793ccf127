//! TLS on listeners: which certificate and which client authentication belong to the name that a client asks for.
//!
//! A [`TlsTable`] is built when a configuration is loaded. A connection's `ClientHello` is read first, with
//! [`rustls::server::Acceptor`]; [`TlsTable::choose`] then says how to go on.

mod build;
mod names;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, UnixTime},
    server::{ClientHello, ResolvesServerCert, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use crate::{
    certificate::{Authorities, Facts, KeyPair},
    config::tls::{CipherSuite, ClientAuthMode, MinVersion, UnknownNames},
};

pub use build::{lacks_suite_for, version_of};
pub use names::{ByName, canonical, is_name};
pub use tables::Tables;

/// The record that refuses a name: the fatal alert `unrecognized_name` (RFC 8446, section 6; RFC 6066, section 3).
pub const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// What a table is built from, checked. Tables of equal settings are the same.
#[derive(Debug, PartialEq)]
pub struct Settings {
    /// Oldest version that is spoken.
    pub min_version: MinVersion,
    /// Suites in order of preference; `None` for all.
    pub ciphers: Option<Vec<CipherSuite>>,
    /// Certificates; the first one is the default. At least one.
    pub certificates: Vec<KeyPair>,
    /// What becomes of names that no certificate has.
    pub unknown_names: UnknownNames,
    /// Whether sessions may be resumed.
    pub session_tickets: bool,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// The listener's own policy, and after it those of its hosts. At least one.
    pub policies: Vec<Policy>,
}

/// Who has to prove what in the handshake.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Names and wildcards it is for; none for the listener's own.
    pub names: Vec<String>,
    /// The certificates that clients present, if they are asked for one.
    pub client_auth: Option<Demand>,
}

/// Which certificates are accepted of clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// Who must have signed them.
    pub authorities: Authorities,
    /// Whether a client may come without one.
    pub mode: ClientAuthMode,
}

/// TLS of one listener.
#[derive(Debug)]
pub struct TlsTable {
    settings: Settings,
    certificates: Arc<Certificates>,
    /// Numbers of policies by name.
    policies: ByName<usize>,
    /// By number of policy.
    hosts: Vec<HostTls>,
}

/// How to go on with a handshake.
#[derive(Debug, Clone)]
pub struct HostTls {
    /// What rustls goes on with. Each policy has its own, with its own session keys: nothing that was issued under one
    /// policy resumes under another.
    pub config: Arc<ServerConfig>,
    /// Number of the client-authentication policy: 0 is the listener's own, n is the n-th of its `hosts`, counted from 1.
    pub policy: usize,
    /// Whether it asks for client certificates, and how.
    pub client_auth: Option<ClientAuthMode>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl HostTls {
    /// Whether a client may be served, by the certificates that its connection has. To be asked after each handshake that
    /// resumed a session: rustls takes the certificates from the session without looking at them again, and gives out
    /// a new ticket each time, so that without this a certificate would never expire.
    pub fn still_admits(&self, chain: Option<&[CertificateDer<'_>]>) -> bool {
        self.admits_at(chain, UnixTime::now())
    }

    fn admits_at(&self, chain: Option<&[CertificateDer<'_>]>, now: UnixTime) -> bool {
        let Some(verifier) = &self.verifier else { return true };
        match chain {
            Some([leaf, rest @ ..]) => verifier.verify_client_cert(leaf, rest, now).is_ok(),
            _ => !verifier.client_auth_mandatory(),
        }
    }
}

impl TlsTable {
    /// Builds what serves. Errors: there is no randomness for session keys, or rustls does not take the settings; both
    /// have been ruled out as far as it can be done before.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let certificates = Arc::new(Certificates::new(&settings));
        let mut policies = ByName::default();
        for (number, policy) in settings.policies.iter().enumerate() {
            for name in &policy.names {
                policies.add(name, number);
            }
        }
        let hosts = build::hosts(&settings, &certificates)?;
        Ok(Self { settings, certificates, policies, hosts })
    }

    /// How to go on with a client that asks for this name; `None` to refuse it with [`UNRECOGNIZED_NAME`]. A client that
    /// asks for no name is never refused.
    pub fn choose(&self, sni: Option<&str>) -> Option<&HostTls> {
        let name = sni.map(canonical);
        if self.certificates.refuses(name.as_deref()) {
            return None;
        }
        self.hosts.get(self.policy_of(name.as_deref()))
    }

    /// Whether a request for `host` (in lower case, without port) may come on a connection whose client asked for `sni`;
    /// if not, it is misdirected (RFC 9110, section 15.5.20). Where client certificates are in play, the two must be one:
    /// otherwise a client could prove itself for one host and speak to another, or not at all.
    pub fn same_authority(&self, sni: Option<&str>, host: &str) -> bool {
        let sni = sni.map(canonical);
        let asked = self.policy_of(sni.as_deref());
        let wanted = self.policy_of(Some(host));
        if !self.asks(asked) && !self.asks(wanted) {
            return true;
        }
        match sni {
            Some(name) => *name == *host,
            None => wanted == 0 && names::is_address(host),
        }
    }

    /// What its certificates say of themselves, in order.
    pub fn certificates(&self) -> impl Iterator<Item = &Facts> {
        self.settings.certificates.iter().map(|pair| &pair.facts)
    }

    fn policy_of(&self, name: Option<&str>) -> usize {
        name.and_then(|name| self.policies.get(name)).unwrap_or(0)
    }

    fn asks(&self, policy: usize) -> bool {
        // A number that no policy has cannot come; it would be treated as the strictest.
        self.hosts.get(policy).is_none_or(|host| host.client_auth.is_some())
    }
}

/// The certificates of a listener: what rustls asks for one.
struct Certificates {
    all: Vec<Arc<CertifiedKey>>,
    /// Places in `all`.
    by_name: ByName<usize>,
    refuse_unknown: bool,
}

impl Certificates {
    fn new(settings: &Settings) -> Self {
        let mut by_name = ByName::default();
        for (at, pair) in settings.certificates.iter().enumerate() {
            for name in pair.facts.dns.iter().filter(|name| is_name(name)) {
                by_name.add(name, at);
            }
        }
        Self {
            all: settings.certificates.iter().map(|pair| Arc::clone(pair.certified())).collect(),
            by_name,
            refuse_unknown: settings.unknown_names == UnknownNames::Refuse,
        }
    }

    fn refuses(&self, name: Option<&str>) -> bool {
        self.refuse_unknown && name.is_some_and(|name| self.by_name.get(name).is_none())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(canonical);
        if self.refuses(name.as_deref()) {
            return None;
        }
        let at = name.and_then(|name| self.by_name.get(&name)).unwrap_or(0);
        self.all.get(at).cloned()
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("by_name", &self.by_name).finish_non_exhaustive()
    }
}
