//! Who may call, found by what they present.

use std::{collections::HashMap, fmt, sync::Arc};

/// A named caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Consumer {
    /// Unique name.
    pub name: String,
    /// Groups the consumer belongs to.
    pub groups: Vec<String>,
}

/// A SHA-256 digest. `Debug` shows its first bytes only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest256(pub [u8; 32]);

impl fmt::Debug for Digest256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{:02x}{:02x}{:02x}{:02x}..", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// All consumers of one configuration, by credential.
///
/// The lookup key is a digest of what the caller presented, so that the time of a lookup says nothing about a stored key.
#[derive(Debug, Default)]
pub struct ConsumerDirectory {
    by_api_key: HashMap<Digest256, Arc<Consumer>>,
}

/// Two consumers hold the same credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this credential already belongs to the consumer `{holder}`")]
pub struct DuplicateCredential {
    /// The consumer that has it already.
    pub holder: String,
}

impl ConsumerDirectory {
    /// Adds an API key by the SHA-256 of its text.
    pub fn add_api_key(&mut self, digest: Digest256, consumer: Arc<Consumer>) -> Result<(), DuplicateCredential> {
        match self.by_api_key.get(&digest) {
            Some(holder) => Err(DuplicateCredential { holder: holder.name.clone() }),
            None => {
                self.by_api_key.insert(digest, consumer);
                Ok(())
            }
        }
    }

    /// The consumer that holds the API key with this SHA-256.
    pub fn by_api_key(&self, digest: &Digest256) -> Option<&Arc<Consumer>> {
        self.by_api_key.get(digest)
    }
}
