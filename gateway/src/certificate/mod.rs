//! Certificates and private keys, read from PEM and checked when they are loaded, so that nothing about them can fail
//! when they are used.

mod client;
mod name;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt::Write as _,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    RootCertStore,
    crypto::ring::sign,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SigningKey},
};
use x509_parser::{
    certificate::{BasicExtension, X509Certificate},
    extensions::{GeneralName, KeyUsage, ParsedExtension},
    oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME,
    prelude::FromDer,
};

pub use client::client;

/// The last second that can be shown with four digits for its year.
const LAST_SECOND: i64 = 253_402_300_799;

/// A certificate with its chain, and the private key that fits it. Two are equal if their chains are: the keys are then
/// the same, too.
pub struct KeyPair {
    /// Whom it is for and until when.
    pub facts: Facts,
    certified: Arc<CertifiedKey>,
    key: PrivateKeyDer<'static>,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its DNS names in lower case, as they stand in the subject alternative name (RFC 5280, section 4.2.1.6).
    pub dns: Vec<String>,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
    /// When it begins and ends to be valid.
    pub validity: Validity,
}

/// A span of time, in seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub from: i64,
    /// Last second.
    pub to: i64,
}

/// What is wrong with a certificate and its key, as the rest of a sentence that begins with one of them.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The certificate, or a certificate of its chain.
    Certificate(String),
    /// The key. Never shows any of it.
    Key(&'static str),
}

impl KeyPair {
    /// Reads a chain and its private key, and makes sure that they belong together.
    pub fn read(chain: &[u8], key: &str) -> Result<Self, Wrong> {
        let chain = certificates(chain).map_err(Wrong::Certificate)?;
        for certificate in &chain {
            parsed(certificate).map_err(Wrong::Certificate)?;
        }
        let facts = parsed(&chain[0]).and_then(|leaf| Facts::of(&leaf)).map_err(Wrong::Certificate)?;
        let key = private_key(key).map_err(Wrong::Key)?;
        let signing = sign::any_supported_type(&key).map_err(|_| {
            Wrong::Key("is of a kind that is not supported: RSA from 2048 bits, ECDSA P-256 or P-384, or Ed25519")
        })?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(|_| Wrong::Key("is not the key of this certificate"))?;
        Ok(Self { facts, certified: Arc::new(certified), key })
    }

    /// The form in which rustls uses it.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// The key in the form that signs.
    pub fn signing(&self) -> &dyn SigningKey {
        &*self.certified.key
    }

    /// The certificate, and after it those between it and the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The key itself (DER), for the one place that has to pass it on.
    pub fn secret(&self) -> &[u8] {
        self.key.secret_der()
    }
}

impl PartialEq for KeyPair {
    fn eq(&self, other: &Self) -> bool {
        self.chain() == other.chain()
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Facts {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let mut names = AlternativeNames::of(certificate)?;
        names.dns.iter_mut().for_each(|name| name.make_ascii_lowercase());
        Ok(Self { dns: names.dns, addresses: names.addresses, validity: Validity::of(certificate) })
    }

    /// What a certificate is called where one word has to do: its first DNS name, else its first address.
    pub fn label(&self) -> String {
        let address = || self.addresses.first().map(ToString::to_string);
        self.dns.first().cloned().or_else(address).unwrap_or_default()
    }
}

impl Validity {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let second = |time: x509_parser::time::ASN1Time| time.timestamp().clamp(0, LAST_SECOND);
        Self { from: second(certificate.validity.not_before), to: second(certificate.validity.not_after) }
    }

    /// Why a certificate cannot be used now, if it cannot; as the rest of a sentence about it.
    pub fn objection(self, now: i64) -> Option<String> {
        if now > self.to {
            Some(format!("expired on {}", shown(self.to)))
        } else if now < self.from {
            Some(format!("is not valid before {}", shown(self.from)))
        } else {
            None
        }
    }
}

/// The present, in seconds since 1970-01-01T00:00:00Z.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A second as RFC 3339 writes it.
pub fn shown(second: i64) -> String {
    humantime::format_rfc3339_seconds(moment(second)).to_string()
}

fn moment(second: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(second.clamp(0, LAST_SECOND)).unwrap_or_default())
}

/// Bytes as hexadecimal digits in lower case.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The certificates of authorities that are trusted, in the order of their file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// Reads a PEM file in which every certificate must be one of an authority (RFC 5280, section 4.2.1.9). The error is
    /// the rest of a sentence that begins with the file.
    pub fn read(pem: &[u8]) -> Result<Self, String> {
        let found = certificates(pem)?;
        let mut roots = RootCertStore::empty();
        for certificate in &found {
            let read = parsed(certificate)?;
            if !signs_certificates(&read) {
                let subject = name::rfc4514(&read.subject);
                return Err(format!("holds a certificate that is not one of an authority: {subject}"));
            }
            roots
                .add(certificate.clone())
                .map_err(|error| format!("holds a certificate that cannot be used: {error}"))?;
        }
        Ok(Self(found))
    }

    /// The form in which rustls uses them. Errors: none, once they are read.
    pub fn roots(&self) -> Result<RootCertStore, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.0 {
            roots.add(certificate.clone())?;
        }
        Ok(roots)
    }

    /// Subjects of those that cannot be used now, each with the reason.
    pub fn objections(&self, now: i64) -> Vec<String> {
        let objection = |der: &CertificateDer<'_>| {
            let certificate = parsed(der).ok()?;
            let why = Validity::of(&certificate).objection(now)?;
            Some(format!("{}, which {why}", name::rfc4514(&certificate.subject)))
        };
        self.0.iter().filter_map(objection).collect()
    }
}

/// Whether a certificate may sign others: version 3 certificates say so, older ones cannot.
fn signs_certificates(certificate: &X509Certificate<'_>) -> bool {
    let may = |usage: Option<BasicExtension<&KeyUsage>>| usage.is_none_or(|usage| usage.value.key_cert_sign());
    certificate.is_ca() && certificate.key_usage().is_ok_and(may)
}

/// All certificates of a PEM text; at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|_| "is not a PEM file of certificates".to_owned())?;
    if found.is_empty() { Err("holds no certificate".into()) } else { Ok(found) }
}

/// A certificate, read to its last byte.
pub(crate) fn parsed<'d>(der: &'d CertificateDer<'_>) -> Result<X509Certificate<'d>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err("holds a certificate that cannot be read".into()),
    }
}

/// The only private key of a PEM text.
fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, &'static str> {
    if pem.contains("ENCRYPTED") {
        return Err("is encrypted, and nobody could be asked for its password: store it without one");
    }
    let mut keys = PrivateKeyDer::pem_slice_iter(pem.as_bytes());
    match (keys.next(), keys.next()) {
        (Some(Ok(key)), None) => Ok(key),
        (Some(Ok(_)), Some(Ok(_))) => Err("holds more than one private key"),
        (None, _) => Err("holds no private key in PEM"),
        _ => Err("is not a private key in PEM"),
    }
}

/// Names of a certificate's subject (RFC 5280, section 4.2.1.6).
#[derive(Debug, Default)]
struct AlternativeNames {
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
    uris: Vec<String>,
    emails: Vec<String>,
}

impl AlternativeNames {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let mut names = Self::default();
        for extension in certificate.extensions().iter().filter(|e| e.oid == OID_X509_EXT_SUBJECT_ALT_NAME) {
            let ParsedExtension::SubjectAlternativeName(found) = extension.parsed_extension() else {
                return Err("has names that cannot be read".into());
            };
            found.general_names.iter().try_for_each(|name| names.add(name))?;
        }
        Ok(names)
    }

    fn add(&mut self, name: &GeneralName<'_>) -> Result<(), String> {
        let (list, text) = match name {
            GeneralName::DNSName(text) => (&mut self.dns, text),
            GeneralName::URI(text) => (&mut self.uris, text),
            GeneralName::RFC822Name(text) => (&mut self.emails, text),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                self.addresses.push(address.map_err(|_| "has an IP address that cannot be read".to_owned())?);
                return Ok(());
            }
            _ => return Ok(()),
        };
        // What reads like one name to us must not read like another one to whom it is told.
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has a name with characters that no name has".into());
        }
        list.push((*text).to_owned());
        Ok(())
    }
}
