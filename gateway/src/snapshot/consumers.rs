//! Consumers, found by what they present.

use std::sync::Arc;

use crossway_plugin_api::{CertificateName, Consumer, ConsumerDirectory, Credential, DuplicateCredential};
use crossway_plugins::basic::check_hash;

use super::Compiler;
use crate::config::consumer::{self, ClientCertificate};

impl Compiler<'_> {
    pub(super) fn consumers(&mut self) -> ConsumerDirectory {
        let mut directory = ConsumerDirectory::default();
        for (at, written) in self.loaded.config.consumers.iter().enumerate() {
            let pointer = format!("/consumers/{at}");
            let consumer = match Consumer::new(&written.name, &written.groups, written.metadata.clone()) {
                Ok(consumer) => Arc::new(consumer),
                Err(wrong) => {
                    self.error(&pointer, wrong.to_string());
                    continue;
                }
            };
            if !directory.add(&consumer) {
                self.error(&format!("{pointer}/name"), format!("another consumer is named `{}`", written.name));
            }
            for (nth, credential) in written.credentials.iter().enumerate() {
                self.credential(&format!("{pointer}/credentials/{nth}"), credential, &consumer, &mut directory);
            }
        }
        directory
    }

    fn credential(
        &mut self,
        pointer: &str,
        written: &consumer::Credential,
        consumer: &Arc<Consumer>,
        directory: &mut ConsumerDirectory,
    ) {
        let consumer::Credential { api_key, basic, client_certificate, token } = written;
        let kinds = [api_key.is_some(), basic.is_some(), client_certificate.is_some(), token.is_some()];
        if kinds.iter().filter(|is_there| **is_there).count() != 1 {
            self.error(pointer, "needs exactly one of `api_key`, `basic`, `client_certificate` and `token`");
            return;
        }
        if let Some(Err(wrong)) = basic.as_ref().map(|basic| check_hash(basic.password_hash.expose())) {
            self.error(&format!("{pointer}/basic/password_hash"), wrong);
        }
        let mut added = |place: &str, result: Result<(), DuplicateCredential>| {
            if let Err(duplicate) = result {
                self.error(&format!("{pointer}/{place}"), duplicate.to_string());
            }
        };
        if let Some(key) = api_key {
            let credential = Credential::ApiKey(key.sha256.0);
            added("api_key/sha256", directory.add_credential(credential, consumer));
        }
        if let Some(basic) = basic {
            let hash = basic.password_hash.expose();
            added("basic/username", directory.add_password(&basic.username, hash, consumer));
        }
        if let Some(token) = token {
            let credential = Credential::Token { issuer: token.issuer.clone(), subject: token.subject.clone() };
            added("token", directory.add_credential(credential, consumer));
        }
        if let Some(certificate) = client_certificate {
            match certificate_name(certificate) {
                Some(name) => {
                    let credential = Credential::Certificate(name);
                    added("client_certificate", directory.add_credential(credential, consumer));
                }
                None => self.error(
                    &format!("{pointer}/client_certificate"),
                    "needs exactly one of `subject`, `dns`, `uri`, `email` and `sha256`",
                ),
            }
        }
    }
}

fn certificate_name(written: &ClientCertificate) -> Option<CertificateName> {
    let ClientCertificate { subject, dns, uri, email, sha256 } = written;
    let mut names = [
        subject.clone().map(CertificateName::Subject),
        dns.as_ref().map(|dns| CertificateName::Dns(dns.to_ascii_lowercase())),
        uri.clone().map(CertificateName::Uri),
        email.clone().map(CertificateName::Email),
        sha256.map(|digest| CertificateName::Sha256(digest.0)),
    ]
    .into_iter()
    .flatten();
    names.next().filter(|_| names.next().is_none())
}
