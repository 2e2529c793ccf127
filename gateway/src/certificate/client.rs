//! What a client's certificate says of the client.

use crossway_plugin_api::{ClientCertificate, Digest256};
use rustls::pki_types::CertificateDer;

use super::{AlternativeNames, hex, name, parsed};

/// Reads a certificate as it came in the handshake. Errors: the rest of a sentence about what cannot be read; such a
/// client is not known.
pub fn client(certificate: &CertificateDer<'_>) -> Result<ClientCertificate, String> {
    let read = parsed(certificate)?;
    let mut names = AlternativeNames::of(&read)?;
    names.dns.iter_mut().for_each(|name| name.make_ascii_lowercase());
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, certificate).as_ref());
    Ok(ClientCertificate {
        subject: name::rfc4514(&read.subject),
        issuer: name::rfc4514(&read.issuer),
        serial: hex(read.raw_serial()),
        dns: names.dns,
        uris: names.uris,
        emails: names.emails,
        sha256: Digest256(sha256),
    })
}
