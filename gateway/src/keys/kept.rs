//! What a store does for keys, whichever it is.

use std::{collections::HashSet, fmt, sync::Arc};

use async_trait::async_trait;

use super::{record::Record, table::Table};
use crate::store::StoreError;

/// A key as it shall be, and the version that it was changed from; 0 for a key that is new.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) record: Record,
    pub(super) from: u64,
}

/// The state of a store that the table has.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Which life of the store it is of: one that lost its keys, or that somebody else had meanwhile, begins another.
    pub(super) epoch: String,
    pub(super) version: u64,
    /// The keys of a new life, until all of them are read.
    pub(super) fresh: Option<HashSet<Box<str>>>,
}

/// Why changes were not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotMade {
    /// One of the keys has changed meanwhile.
    Changed,
    /// There are as many keys as there may be.
    TooMany,
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for NotMade {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A last use: the key's id, and when.
pub(super) type Use = (Box<str>, u64);

/// Where keys are kept.
#[async_trait]
pub(super) trait KeyStore: fmt::Debug + Send + Sync {
    /// Brings the table to the state of the store.
    async fn read(&self, table: &Arc<Table>, seen: &mut Seen) -> Result<(), StoreError>;

    /// Makes all changes or none; gives each one's new version. `most` keys may there be.
    async fn write(&self, changes: &[Change], most: u64) -> Result<Vec<u64>, NotMade>;

    /// Keeps last uses, unless a later one is kept already.
    async fn keep_uses(&self, uses: &[Use]) -> Result<(), StoreError>;

    /// The last uses that the store knows of; 0 for none.
    async fn uses(&self, ids: &[Box<str>]) -> Result<Vec<u64>, StoreError>;

    /// Drops keys.
    async fn forget(&self, ids: &[Box<str>]) -> Result<(), StoreError>;
}

/// Reads a record; one that cannot be read is none, and its key refused.
pub(super) fn parse(id: &str, text: &[u8]) -> Option<Record> {
    match serde_json::from_slice::<Record>(text) {
        Ok(record) if *record.id == *id => Some(record),
        Ok(_) => {
            tracing::error!(id, "a key in the store has another's id; it is refused");
            None
        }
        Err(error) => {
            tracing::error!(id, %error, "a key in the store cannot be read; it is refused");
            None
        }
    }
}
