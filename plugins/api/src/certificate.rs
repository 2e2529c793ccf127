//! What a client certificate says.

use crate::{CertificateName, Digest256};

/// A client certificate that the listener has verified: chain, validity and purpose. Who it stands for is the chain's to
/// say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The distinguished name of its subject (RFC 4514).
    pub subject: String,
    /// The distinguished name of its issuer.
    pub issuer: String,
    /// Serial number, in lower-case hexadecimal.
    pub serial: String,
    /// DNS names among the alternative names, in lower case.
    pub dns: Vec<String>,
    /// URIs among the alternative names.
    pub uris: Vec<String>,
    /// Mail addresses among the alternative names.
    pub emails: Vec<String>,
    /// SHA-256 of its DER encoding.
    pub sha256: Digest256,
}

impl ClientCertificate {
    /// All that it is known by, the most exact first.
    pub fn names(&self) -> impl Iterator<Item = CertificateName> {
        let exact = [CertificateName::Sha256(self.sha256)].into_iter();
        let uris = self.uris.iter().cloned().map(CertificateName::Uri);
        let dns = self.dns.iter().cloned().map(CertificateName::Dns);
        let emails = self.emails.iter().cloned().map(CertificateName::Email);
        exact.chain(uris).chain(dns).chain(emails).chain([CertificateName::Subject(self.subject.clone())])
    }
}
