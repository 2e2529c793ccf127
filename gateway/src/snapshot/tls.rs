//! TLS of listeners, and certificates with their keys, checked.

use std::sync::Arc;

use super::Compiler;
use crate::{
    certificate::{self, Authorities, KeyPair, Wrong},
    config::{
        listener::Listener,
        tls::{self as config, CipherSuite, MinVersion, UnknownNames},
    },
    front::tls::{self, ByName, Demand, Policy, Settings, TlsTable},
};

impl Compiler<'_> {
    /// The table of a listener; `None` only where an error was reported.
    pub(super) fn listener_tls(&mut self, entry: u32, listener: &Listener, tls: &config::Tls) -> Option<Arc<TlsTable>> {
        let pointer = format!("/listeners/{entry}/tls");
        let certificates = self.certificates(&pointer, &tls.certificates);
        let own = self.policy(&pointer, Vec::new(), tls.client_auth.as_ref());
        let hosts = self.hosts(&pointer, &tls.hosts);
        let certificates = certificates?;
        let ciphers = self.ciphers(&pointer, tls, &certificates);
        self.uncovered(&pointer, tls, &certificates);
        let mut policies = vec![own?];
        policies.extend(hosts?);
        ciphers?;
        let settings = Settings {
            min_version: tls.min_version,
            ciphers: tls.ciphers.clone(),
            certificates,
            unknown_names: tls.unknown_names,
            session_tickets: tls.session_tickets,
            http2: listener.speaks_http2(),
            policies,
        };
        let table = self.around.tables.table(&listener.name, settings);
        table.map_err(|wrong| self.error(&pointer, format!("cannot be used: {wrong}"))).ok()
    }

    /// A certificate with its key; warns of one that cannot be used now.
    pub(super) fn key_pair(&mut self, pointer: &str, pair: &config::KeyPair) -> Option<KeyPair> {
        let cert = format!("{pointer}/cert");
        let pem = match self.loaded.sources.read_file(&cert, &pair.cert) {
            Ok(pem) => pem,
            Err(diagnostic) => {
                self.add(&cert, diagnostic);
                return None;
            }
        };
        match KeyPair::read(&pem, pair.key.expose()) {
            Ok(read) => {
                if let Some(why) = read.facts.validity.objection(certificate::now()) {
                    self.warning(&cert, format!("names a certificate that {why}"));
                }
                Some(read)
            }
            Err(Wrong::Certificate(wrong)) => {
                self.error(&cert, wrong);
                None
            }
            Err(Wrong::Key(wrong)) if pair.key.expose().contains("-----BEGIN") => {
                self.error(&format!("{pointer}/key"), wrong);
                None
            }
            Err(Wrong::Key(wrong)) => {
                let help = "write the text of a file as a reference: \"${file:tls/api.key}\"";
                self.error_with_help(&format!("{pointer}/key"), wrong, help);
                None
            }
        }
    }

    fn certificates(&mut self, pointer: &str, pairs: &[config::KeyPair]) -> Option<Vec<KeyPair>> {
        let mut names: ByName<usize> = ByName::default();
        let mut found = Vec::with_capacity(pairs.len());
        let mut good = !pairs.is_empty();
        for (at, pair) in pairs.iter().enumerate() {
            let place = |at: usize| format!("{pointer}/certificates/{at}");
            let Some(read) = self.key_pair(&place(at), pair) else {
                good = false;
                continue;
            };
            let cert = format!("{}/cert", place(at));
            if read.facts.dns.is_empty() && read.facts.addresses.is_empty() {
                self.error(&cert, "names a certificate without a DNS name or an IP address (subject alternative name)");
                good = false;
            }
            for name in &read.facts.dns {
                if let Some(other) = names.add(name, at).filter(|other| *other != at) {
                    let sources = &self.loaded.sources;
                    let message = format!("the name `{name}` is in two certificates of this listener");
                    let other = format!("{}/cert", place(other));
                    let diagnostic = sources.error(&cert, message).also(sources, &other, "the other certificate");
                    self.add(&cert, diagnostic);
                    good = false;
                }
            }
            found.push(read);
        }
        good.then_some(found)
    }

    fn policy(&mut self, pointer: &str, names: Vec<String>, auth: Option<&config::ClientAuth>) -> Option<Policy> {
        let Some(auth) = auth else { return Some(Policy { names, client_auth: None }) };
        let place = format!("{pointer}/client_auth/ca");
        let pem =
            self.loaded.sources.read_file(&place, &auth.ca).map_err(|diagnostic| self.add(&place, diagnostic)).ok()?;
        let authorities = Authorities::read(&pem).map_err(|wrong| self.error(&place, wrong)).ok()?;
        for objection in authorities.objections(certificate::now()) {
            self.warning(&place, format!("holds the authority {objection}"));
        }
        Some(Policy { names, client_auth: Some(Demand { authorities, mode: auth.mode }) })
    }

    fn hosts(&mut self, pointer: &str, hosts: &[config::TlsHost]) -> Option<Vec<Policy>> {
        let mut seen: ByName<(usize, usize)> = ByName::default();
        let mut policies = Vec::with_capacity(hosts.len());
        let mut good = true;
        for (at, host) in hosts.iter().enumerate() {
            let place = |(at, nth): (usize, usize)| format!("{pointer}/hosts/{at}/names/{nth}");
            for (nth, name) in host.names.iter().enumerate() {
                let own = place((at, nth));
                if !tls::is_name(name) {
                    self.error_with_help(&own, "is not a host name", "write `api.example.com` or `*.example.com`");
                    good = false;
                } else if let Some(first) = seen.add(name, (at, nth)) {
                    let sources = &self.loaded.sources;
                    let diagnostic = sources.error(&own, "stands twice: a name has one client authentication");
                    let diagnostic = diagnostic.also(sources, &place(first), "it stands here too");
                    self.add(&own, diagnostic);
                    good = false;
                }
            }
            match self.policy(&format!("{pointer}/hosts/{at}"), host.names.clone(), host.client_auth.as_ref()) {
                Some(policy) => policies.push(policy),
                None => good = false,
            }
        }
        good.then_some(policies)
    }

    /// Names of `hosts` that no certificate has: nobody reaches them where such names are refused.
    fn uncovered(&mut self, pointer: &str, tls: &config::Tls, pairs: &[KeyPair]) {
        let mut known: ByName<()> = ByName::default();
        for name in pairs.iter().flat_map(|pair| &pair.facts.dns) {
            known.add(name, ());
        }
        for (at, host) in tls.hosts.iter().enumerate() {
            for (nth, name) in host.names.iter().enumerate().filter(|(_, name)| tls::is_name(name)) {
                let place = format!("{pointer}/hosts/{at}/names/{nth}");
                if known.covers(name) {
                    continue;
                }
                let message = "is in no certificate of this listener";
                match tls.unknown_names {
                    UnknownNames::ServeDefault => self.warning(&place, message),
                    UnknownNames::Refuse => self.error(&place, format!("{message}, so that its clients are refused")),
                }
            }
        }
    }

    fn ciphers(&mut self, pointer: &str, tls: &config::Tls, pairs: &[KeyPair]) -> Option<()> {
        let Some(ciphers) = &tls.ciphers else { return Some(()) };
        let place = format!("{pointer}/ciphers");
        let before = self.found.len();
        for (at, suite) in ciphers.iter().enumerate() {
            let own = format!("{place}/{at}");
            if ciphers[..at].contains(suite) {
                self.error(&own, "stands twice");
            }
            if tls.min_version == MinVersion::Tls13 && tls::version_of(*suite) == MinVersion::Tls12 {
                self.error(&own, "is a suite of TLS 1.2, which `min_version` rules out");
            }
        }
        let has = |version| ciphers.iter().any(|suite: &CipherSuite| tls::version_of(*suite) == version);
        if !has(MinVersion::Tls13) {
            self.error(&place, "has no suite for TLS 1.3");
        }
        if tls.min_version == MinVersion::Tls12 {
            if !has(MinVersion::Tls12) {
                self.error_with_help(&place, "has no suite for TLS 1.2", "add one, or set `min_version: \"1.3\"`");
            } else if let Some(at) = pairs.iter().position(|pair| tls::lacks_suite_for(ciphers, pair)) {
                let sources = &self.loaded.sources;
                let message = "has no suite for TLS 1.2 that works with the kind of key of each certificate";
                let other = format!("{pointer}/certificates/{at}/cert");
                let diagnostic = sources.error(&place, message).also(sources, &other, "not with this one's");
                self.add(&place, diagnostic);
            }
        }
        (self.found.len() == before).then_some(())
    }
}
