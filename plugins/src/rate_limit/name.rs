//! What a counter is called in the store that gateways share.
//!
//! `crossway:limits:{TAG}:NAME`. The name is a hash of all that tells the counter from others: the entry of the
//! configuration, the policy, and who calls. Every gateway makes the same one, whatever its build and machine, and nobody
//! can make up a caller whose name is another's. All counters of one request have one tag, so that they are on one node of
//! a cluster; it is made of those parts of the key that all policies of the plugin have in common.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{Context, SHA256};

use super::{period::Period, policy::Identity};
use crate::key::{self, Feed, Part};

/// The form of names, and of what is kept under them. Another one for each change of it.
const FORM: &str = "2";
const PREFIX: &[u8; 17] = b"crossway:limits:{";
/// Bytes of the hashes that count, and their length in base64.
const TAG: (usize, usize) = (3, 4);
const NAME: (usize, usize) = (16, 22);
const LENGTH: usize = PREFIX.len() + TAG.1 + 2 + NAME.1;

/// The name of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Name([u8; LENGTH]);

/// What the names of counters on one node have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag([u8; TAG.1]);

/// The beginning of a hash.
#[derive(Clone)]
pub(super) struct Stem(Context);

impl Stem {
    /// That of one entry of the configuration, for tags.
    pub(super) fn of_entry(entry: &str) -> Self {
        let mut context = Stable(Context::new(&SHA256));
        key::text(FORM.as_bytes(), &mut context);
        key::text(entry.as_bytes(), &mut context);
        Self(context.0)
    }

    /// That of one of its policies, for names.
    pub(super) fn policy(&self, identity: &Identity) -> Self {
        let mut context = Stable(self.0.clone());
        key::text(identity.name.as_bytes(), &mut context);
        key::count(identity.key.len(), &mut context);
        for part in &identity.key {
            key::text(part.written().as_bytes(), &mut context);
        }
        let window = match identity.window {
            None => "rate".into(),
            Some(Period::Month) => "month".into(),
            Some(Period::Seconds(seconds)) => seconds.to_string(),
        };
        key::text(window.as_bytes(), &mut context);
        Self(context.0)
    }

    /// A hash that goes on from here.
    pub(super) fn hasher(&self) -> Stable {
        Stable(self.0.clone())
    }
}

/// A hash that is the same on all machines.
pub(super) struct Stable(Context);

impl Stable {
    fn write_base64(self, bytes: usize, into: &mut [u8]) {
        let digest = self.0.finish();
        // The lengths are those that base64 needs.
        let _ = URL_SAFE_NO_PAD.encode_slice(&digest.as_ref()[..bytes], into);
    }

    pub(super) fn tag(self) -> Tag {
        let mut tag = [0; TAG.1];
        self.write_base64(TAG.0, &mut tag);
        Tag(tag)
    }

    pub(super) fn name(self, tag: Tag) -> Name {
        let mut name = [0; LENGTH];
        let (head, rest) = name.split_at_mut(PREFIX.len());
        let (tagged, rest) = rest.split_at_mut(TAG.1);
        let (end, hash) = rest.split_at_mut(2);
        head.copy_from_slice(PREFIX);
        tagged.copy_from_slice(&tag.0);
        end.copy_from_slice(b"}:");
        self.write_base64(NAME.0, hash);
        Name(name)
    }
}

impl Feed for Stable {
    fn feed(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl Name {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The parts of keys that all of these have.
pub(super) fn common(mut keys: impl Iterator<Item = Vec<Part>>) -> Vec<Part> {
    let first = keys.next().unwrap_or_default();
    let mut common = keys.fold(first, |mut common, key| {
        common.retain(|part| key.contains(part));
        common
    });
    // The order in which a policy names them is of no account.
    common.sort_by_key(Part::written);
    common
}
