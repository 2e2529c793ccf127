//! Who may call, found by what they present.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use http::HeaderValue;
use subtle::ConstantTimeEq as _;

/// A named caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    name: String,
    groups: Vec<String>,
    metadata: BTreeMap<String, String>,
    name_value: HeaderValue,
    groups_value: Option<HeaderValue>,
}

/// A name that no header field can carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name of a consumer or a group has letters, digits and `. _ @ -` only")]
pub struct BadName;

impl Consumer {
    /// A consumer of these groups, with what the configuration notes of it.
    pub fn new(name: &str, groups: &[String], metadata: BTreeMap<String, String>) -> Result<Self, BadName> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| BadName);
        let groups_value = if groups.is_empty() { None } else { Some(value(&groups.join(","))?) };
        let name_value = value(name)?;
        Ok(Self { name: name.to_owned(), groups: groups.to_vec(), metadata, name_value, groups_value })
    }

    /// Unique name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Groups the consumer belongs to.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// What the configuration notes of it.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The name as a header field's value; cloning it allocates nothing.
    pub fn name_value(&self) -> &HeaderValue {
        &self.name_value
    }

    /// The groups as a header field's value, with commas between them; `None` where there is none.
    pub fn groups_value(&self) -> Option<&HeaderValue> {
        self.groups_value.as_ref()
    }
}

/// A SHA-256 digest. `Debug` shows its first bytes only. Two are compared in constant time wherever they are, in a table
/// too: it may be that of a secret.
#[derive(Clone, Copy, Eq)]
pub struct Digest256(pub [u8; 32]);

impl PartialEq for Digest256 {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for Digest256 {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Debug for Digest256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{:02x}{:02x}{:02x}{:02x}..", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// What a caller presents, in the form that consumers are found by. Secrets are digests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// An API key, by the SHA-256 of its text.
    ApiKey(Digest256),
    /// A user name (RFC 7617); its password is checked by who finds it.
    Username(String),
    /// A token of this issuer about this subject.
    Token {
        /// Who issued it.
        issuer: String,
        /// Whom it is about.
        subject: String,
    },
    /// A name in a client certificate.
    Certificate(CertificateName),
}

/// What a client certificate is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// The distinguished name of its subject (RFC 4514).
    Subject(String),
    /// A DNS name among its alternative names, in lower case.
    Dns(String),
    /// A URI among its alternative names, such as a SPIFFE id.
    Uri(String),
    /// A mail address among its alternative names.
    Email(String),
    /// The SHA-256 of its DER encoding.
    Sha256(Digest256),
}

/// All consumers of one configuration, by name and by credential.
///
/// The lookup key is a digest of what the caller presented, or no secret, so that the time of a lookup says nothing about
/// a stored secret.
#[derive(Debug, Default)]
pub struct ConsumerDirectory {
    by_name: HashMap<String, Arc<Consumer>>,
    by_credential: HashMap<Credential, Arc<Consumer>>,
    passwords: HashMap<String, Arc<str>>,
}

/// Two consumers hold the same credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this credential already belongs to the consumer `{holder}`")]
pub struct DuplicateCredential {
    /// The consumer that has it already.
    pub holder: String,
}

impl ConsumerDirectory {
    /// Adds a consumer; `false` if there is one of this name.
    pub fn add(&mut self, consumer: &Arc<Consumer>) -> bool {
        if self.by_name.contains_key(&consumer.name) {
            return false;
        }
        self.by_name.insert(consumer.name.clone(), Arc::clone(consumer)).is_none()
    }

    /// Adds a credential of a consumer.
    pub fn add_credential(
        &mut self,
        credential: Credential,
        consumer: &Arc<Consumer>,
    ) -> Result<(), DuplicateCredential> {
        if let Some(holder) = self.by_credential.get(&credential) {
            return Err(DuplicateCredential { holder: holder.name.clone() });
        }
        self.by_credential.insert(credential, Arc::clone(consumer));
        Ok(())
    }

    /// Adds a user name with the hash of its password, in the PHC string format.
    pub fn add_password(
        &mut self,
        username: &str,
        hash: &str,
        consumer: &Arc<Consumer>,
    ) -> Result<(), DuplicateCredential> {
        self.add_credential(Credential::Username(username.to_owned()), consumer)?;
        self.passwords.insert(username.to_owned(), hash.into());
        Ok(())
    }

    /// The consumer of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.by_name.get(name)
    }

    /// The consumer that this credential belongs to.
    pub fn holder(&self, credential: &Credential) -> Option<&Arc<Consumer>> {
        self.by_credential.get(credential)
    }

    /// The consumer that holds the API key with this SHA-256.
    pub fn by_api_key(&self, digest: &Digest256) -> Option<&Arc<Consumer>> {
        self.by_credential.get(&Credential::ApiKey(*digest))
    }

    /// The consumer with this user name, and the hash of its password in the PHC string format.
    pub fn by_username(&self, username: &str) -> Option<(&Arc<Consumer>, &Arc<str>)> {
        let consumer = self.by_credential.get(&Credential::Username(username.to_owned()))?;
        Some((consumer, self.passwords.get(username)?))
    }

    /// The hashes of all passwords, in no order.
    pub fn password_hashes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.passwords.values()
    }

    /// All consumers, in no order.
    pub fn consumers(&self) -> impl Iterator<Item = &Arc<Consumer>> {
        self.by_name.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_same_in_every_bit_or_not_at_all() {
        let one = Digest256(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        let table = std::collections::HashSet::from([one]);
        assert!(table.contains(&Digest256(one.0)));
        for bit in 0..256 {
            let mut other = one;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(other != one && !table.contains(&other), "{bit}");
        }
    }
}
