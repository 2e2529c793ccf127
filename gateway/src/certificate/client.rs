//! What a client's certificate says of the client.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::{AlternativeNames, Validity, hex, moment, name, parsed};

/// What is known of a client by its certificate, once the handshake has verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Subject as RFC 4514 writes it: `CN=device-7,O=Acme`. Empty if it has none.
    pub subject: String,
    /// DNS names of the subject alternative name, as they stand there.
    pub dns: Vec<String>,
    /// Its URIs, such as SPIFFE ids.
    pub uris: Vec<String>,
    /// Its mail addresses.
    pub emails: Vec<String>,
    /// SHA-256 of the certificate (DER), as 64 hexadecimal digits in lower case.
    pub fingerprint: String,
    /// When it ends to be valid.
    pub not_after: SystemTime,
}

impl ClientCertificate {
    /// Reads a certificate as it came in the handshake. Errors: the rest of a sentence about what cannot be read; such a
    /// client is not known.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let read = parsed(certificate)?;
        let names = AlternativeNames::of(&read)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        Ok(Self {
            subject: name::rfc4514(&read.subject),
            dns: names.dns,
            uris: names.uris,
            emails: names.emails,
            fingerprint: hex(digest.as_ref()),
            not_after: moment(Validity::of(&read).to),
        })
    }
}
