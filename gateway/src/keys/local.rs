//! Keys in the file on this machine.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use redb::{ReadableTable, ReadableTableMetadata as _, TableDefinition, TableError};

use super::{
    kept::{Change, KeyStore, NotMade, Seen, Use, parse},
    table::Table,
};
use crate::store::{Local, StoreError};

/// Records by id, as JSON.
pub(super) const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("api_keys");
/// Last uses by id, in seconds since 1970-01-01T00:00:00Z. A table of its own: it changes far more often.
const USES: TableDefinition<'_, &str, u64> = TableDefinition::new("api_keys_used");

/// Keys in the file. Versions are counted by this process, which is the only one that writes.
#[derive(Debug)]
pub(super) struct Filed {
    store: Arc<Local>,
    version: AtomicU64,
}

impl Filed {
    pub(super) fn new(store: Arc<Local>) -> Self {
        Self { store, version: AtomicU64::new(0) }
    }

    fn next(&self) -> u64 {
        self.version.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn read_all(transaction: &redb::ReadTransaction, table: &Table, version: u64) -> Result<(), redb::Error> {
    let records = match transaction.open_table(KEYS) {
        Ok(records) => records,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let uses = match transaction.open_table(USES) {
        Ok(uses) => Some(uses),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    // Nothing can have gone that was not there: at a start there is nothing to compare with.
    let mut there: Option<HashSet<Box<str>>> = (table.len() > 0).then(HashSet::new);
    // Both are in the order of ids, so each is read once.
    let mut uses = uses.as_ref().map(ReadableTable::iter).transpose()?.into_iter().flatten();
    let mut next = uses.next().transpose()?;
    for entry in records.iter()? {
        let (id, text) = entry?;
        while next.as_ref().is_some_and(|(of, _)| of.value() < id.value()) {
            next = uses.next().transpose()?;
        }
        let Some(record) = parse(id.value(), text.value()) else { continue };
        let used = next.as_ref().filter(|(of, _)| of.value() == id.value()).map_or(0, |(_, used)| used.value());
        if let Some(there) = &mut there {
            there.insert(record.id.clone());
        }
        table.put(record, version, used);
    }
    if let Some(there) = there {
        table.retain(|record| there.contains(&record.id));
    }
    Ok(())
}

#[async_trait]
impl KeyStore for Filed {
    async fn read(&self, table: &Arc<Table>, seen: &mut Seen) -> Result<(), StoreError> {
        let epoch = format!("{}", self.store.epoch());
        if seen.epoch == epoch {
            return Ok(());
        }
        let (table, version) = (Arc::clone(table), self.next());
        self.store.read(move |transaction| read_all(transaction, &table, version)).await?;
        seen.epoch = epoch;
        Ok(())
    }

    async fn write(&self, changes: &[Change], most: u64) -> Result<Vec<u64>, NotMade> {
        let mut texts = Vec::with_capacity(changes.len());
        for Change { record, from } in changes {
            let text = serde_json::to_vec(record).map_err(|error| StoreError::Failed(error.to_string()))?;
            texts.push((record.id.clone(), text, *from == 0));
        }
        let fits = self
            .store
            .write(move |transaction| {
                let mut records = transaction.open_table(KEYS)?;
                let new = texts.iter().filter(|(.., is_new)| *is_new).count() as u64;
                if new > 0 && records.len()? + new > most {
                    return Ok(false);
                }
                for (id, text, _) in &texts {
                    records.insert(&**id, text.as_slice())?;
                }
                Ok(true)
            })
            .await?;
        if fits { Ok(changes.iter().map(|_| self.next()).collect()) } else { Err(NotMade::TooMany) }
    }

    async fn keep_uses(&self, uses: &[Use]) -> Result<(), StoreError> {
        let uses = uses.to_vec();
        self.store
            .write(move |transaction| {
                let mut table = transaction.open_table(USES)?;
                for (id, used) in &uses {
                    let known = table.get(&**id)?.map_or(0, |known| known.value());
                    if known < *used {
                        table.insert(&**id, used)?;
                    }
                }
                Ok(())
            })
            .await
    }

    async fn uses(&self, ids: &[Box<str>]) -> Result<Vec<u64>, StoreError> {
        // All of them are this process's own, which the table has.
        Ok(vec![0; ids.len()])
    }

    async fn forget(&self, ids: &[Box<str>]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        self.store
            .write(move |transaction| {
                let (mut records, mut uses) = (transaction.open_table(KEYS)?, transaction.open_table(USES)?);
                for id in &ids {
                    records.remove(&**id)?;
                    uses.remove(&**id)?;
                }
                Ok(())
            })
            .await
    }
}
