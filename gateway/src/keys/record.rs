//! What is kept of a key.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crossway_plugin_api::{Digest256, config::Sha256Hex};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// How long a key that has ended is still listed.
pub(super) const RETENTION: Duration = Duration::from_hours(30 * 24);

/// A key, as it is kept. All times are seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its public part.
    pub(super) id: Box<str>,
    /// Whose key it is.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub(super) consumer: Arc<str>,
    /// SHA-256 of its text.
    #[serde(serialize_with = "as_hex", deserialize_with = "from_hex")]
    pub(super) sha256: Digest256,
    pub(super) created: u64,
    /// From then on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<u64>,
    /// Since then it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoked: Option<u64>,
    /// What its owner calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<Box<str>>,
    /// The key that has come in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaced_by: Option<Box<str>>,
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(deserializer).map(Arc::from)
}

fn as_hex<S: Serializer>(digest: &Digest256, serializer: S) -> Result<S::Ok, S::Error> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|half| char::from(DIGITS[usize::from(half)]));
    serializer.serialize_str(&digest.0.iter().flat_map(digits).collect::<String>())
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest256, D::Error> {
    let text = String::deserialize(deserializer)?;
    Sha256Hex::parse(&text).map(|hex| hex.0).map_err(D::Error::custom)
}

impl Record {
    /// Why the key is refused at this time, if it is.
    pub(super) fn ended(&self, now: u64) -> Option<Ended> {
        if self.revoked.is_some() {
            Some(Ended::Revoked)
        } else if self.expires.is_some_and(|expires| expires <= now) {
            Some(Ended::Expired)
        } else {
            None
        }
    }

    /// Whether the key ended so long ago that it is forgotten.
    pub(super) fn is_forgotten(&self, now: u64) -> bool {
        let end = [self.revoked, self.expires].into_iter().flatten().min();
        end.is_some_and(|end| end.saturating_add(RETENTION.as_secs()) <= now)
    }
}

/// Why a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Expired,
    Revoked,
}

/// A key in memory.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) record: Record,
    /// The state of the store in which the record came to be what it is.
    pub(super) version: u64,
    /// When it was last used here; 0 for never.
    used: AtomicU64,
    /// What of that is in the store.
    saved: AtomicU64,
}

impl Issued {
    /// A key that was last used then.
    pub(super) fn new(record: Record, version: u64, used: u64) -> Self {
        Self { record, version, used: AtomicU64::new(used), saved: AtomicU64::new(used) }
    }

    /// The same key in another state, with what is known of its use.
    pub(super) fn changed(&self, record: Record, version: u64) -> Self {
        let [used, saved] = [&self.used, &self.saved].map(|at| AtomicU64::new(at.load(Ordering::Relaxed)));
        Self { record, version, used, saved }
    }

    /// Notes a use. One store at most for each second, so that many workers do not fight for the line.
    pub(super) fn note_use(&self, now: u64) {
        if self.used.load(Ordering::Relaxed) < now {
            self.used.store(now, Ordering::Relaxed);
        }
    }

    /// When it was last used here.
    pub(super) fn last_used(&self) -> Option<u64> {
        Some(self.used.load(Ordering::Relaxed)).filter(|used| *used > 0)
    }

    /// The last use, if the store does not have it.
    pub(super) fn unsaved_use(&self) -> Option<u64> {
        let used = self.used.load(Ordering::Relaxed);
        (used > self.saved.load(Ordering::Relaxed)).then_some(used)
    }

    /// The store has this use.
    pub(super) fn saved(&self, used: u64) {
        self.saved.fetch_max(used, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(super) fn record(id: &str, consumer: &str) -> Record {
    Record {
        id: id.into(),
        consumer: consumer.into(),
        sha256: super::format::sha256(id.as_bytes()),
        created: 1000,
        expires: None,
        revoked: None,
        label: None,
        replaced_by: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_its_form() {
        let text = r#"{"id":"abcdefghijkl","consumer":"acme","sha256":"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d","created":7,"revoked":9}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!(record.sha256, super::super::format::sha256(&[0]));
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            text,
            "what is on disk must be read by every later version"
        );
        assert!(serde_json::from_str::<Record>(&text.replace("6e34", "xx34")).is_err());
    }

    #[test]
    fn a_key_ends_and_is_forgotten() {
        let mut record = record("abcdefghijkl", "acme");
        assert_eq!((record.ended(u64::MAX), record.is_forgotten(u64::MAX)), (None, false));
        record.expires = Some(2000);
        assert_eq!((record.ended(1999), record.ended(2000)), (None, Some(Ended::Expired)));
        record.revoked = Some(1500);
        assert_eq!(record.ended(1501), Some(Ended::Revoked));
        let forgotten = 1500 + RETENTION.as_secs();
        assert!(!record.is_forgotten(forgotten - 1) && record.is_forgotten(forgotten));
    }

    #[test]
    fn only_a_later_use_is_saved() {
        let issued = Issued::new(record("abcdefghijkl", "acme"), 1, 0);
        assert_eq!((issued.last_used(), issued.unsaved_use()), (None, None));
        issued.note_use(50);
        issued.note_use(40);
        assert_eq!((issued.last_used(), issued.unsaved_use()), (Some(50), Some(50)));
        issued.saved(50);
        assert_eq!(issued.unsaved_use(), None);
        let changed = issued.changed(record("abcdefghijkl", "acme"), 2);
        assert_eq!((changed.last_used(), changed.unsaved_use(), changed.version), (Some(50), None, 2));
    }
}
