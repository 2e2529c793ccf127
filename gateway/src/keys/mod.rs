//! API keys that are issued at run time.
//!
//! A request looks into a `Table` in memory and nowhere else. A `KeyStore` keeps the keys: changes go through it and are
//! made in the table once they are kept; a task in the background learns what others have changed, and keeps last uses.

mod change;
mod format;
mod kept;
mod local;
mod record;
mod shared;
mod table;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossway_plugin_api::{Clock, Consumer, ConsumerDirectory, Digest256, IssuedKeys, NoHolder, Task, Tasks};
use tokio::sync::Mutex;

pub use change::{Filter, KeyError, Page, Shown, State, Wanted};
pub use format::NoRandom;

use self::{
    kept::{KeyStore, Seen},
    record::Ended,
    table::Table,
};
use crate::{
    config::store::StoreKind,
    store::{StoreError, Stores},
};

/// How often the store is asked for what others have changed.
const LOOK: Duration = Duration::from_millis(250);
/// How often last uses are kept.
const KEEP_USES: Duration = Duration::from_secs(5);
/// How often keys that ended long ago are dropped.
const FORGET: Duration = Duration::from_hours(1);
/// Most last uses, and most forgotten keys, of one write.
const BATCH: usize = 10_000;

/// Where keys are kept, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// In which store.
    pub store: StoreKind,
    /// Most keys.
    pub most: u64,
}

/// The keys of the process. Empty until it is opened.
#[derive(Default)]
pub struct Keys {
    table: Arc<Table>,
    clock: Clock,
    open: OnceLock<Open>,
    /// The keys have been read once.
    is_read: AtomicBool,
    /// What the table has of the store; also the turn of who changes something.
    seen: Mutex<Seen>,
    task: OnceLock<Task>,
}

struct Open {
    store: Box<dyn KeyStore>,
    most: u64,
    /// The store is a file, which this process alone writes.
    is_local: bool,
}

impl Keys {
    /// No keys yet, and this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Reads the keys, and goes on following the store in the background. Waits for a server for `patience` at most, and
    /// goes on without it; a file that cannot be read is an error.
    pub async fn open(
        self: &Arc<Self>,
        plan: Plan,
        stores: &Stores,
        tasks: &Tasks,
        patience: Duration,
    ) -> Result<(), StoreError> {
        let missing = || StoreError::Failed("there is no such store".into());
        let store: Box<dyn KeyStore> = match plan.store {
            StoreKind::Local => Box::new(local::Filed::new(stores.local.clone().ok_or_else(missing)?)),
            StoreKind::Shared => Box::new(shared::OnServer::new(stores.shared.clone().ok_or_else(missing)?)),
        };
        let is_local = plan.store == StoreKind::Local;
        let open = self.open.get_or_init(|| Open { store, most: plan.most, is_local });
        if is_local {
            self.read(open).await?;
        } else {
            // Whoever waits for a server that is down waits in vain: the task asks again and again.
            let _ = tokio::time::timeout(patience, self.read(open)).await;
        }
        let keys = Arc::clone(self);
        self.task.get_or_init(|| tasks.spawn(async move { keys.follow().await }));
        Ok(())
    }

    /// How many keys there are, those that have ended included.
    pub fn count(&self) -> usize {
        self.table.len()
    }

    async fn read(&self, open: &Open) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().await;
        self.read_as(open, &mut seen).await
    }

    async fn read_as(&self, open: &Open, seen: &mut Seen) -> Result<(), StoreError> {
        open.store.read(&self.table, seen).await?;
        if !self.is_read.swap(true, Ordering::AcqRel) {
            tracing::info!(keys = self.table.len(), "API keys are read");
        }
        Ok(())
    }

    /// Follows the store until the process ends.
    async fn follow(&self) {
        let Some(open) = self.open.get() else { return };
        let mut was_failing = false;
        let (mut uses_due, mut forget_due) = (Instant::now() + KEEP_USES, Instant::now());
        loop {
            // A server logs its failures itself, and this asks again.
            let read = self.read(open).await;
            let failed = open.is_local && read.as_ref().is_err_and(|error| *error != StoreError::Released);
            if failed && !std::mem::replace(&mut was_failing, failed) {
                tracing::error!(?read, "API keys cannot be read anew");
            }
            was_failing = failed;
            if read.is_ok() && Instant::now() >= uses_due {
                self.keep_uses().await;
                uses_due = Instant::now() + KEEP_USES;
            }
            if read.is_ok() && Instant::now() >= forget_due {
                self.forget(open).await;
                forget_due = Instant::now() + FORGET;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Keeps the last uses that the store does not have. One that fails is made again later.
    pub async fn keep_uses(&self) {
        let Some(open) = self.open.get() else { return };
        let table = Arc::clone(&self.table);
        // Of very many keys this takes a while: not on a worker that serves requests.
        let unsaved = tokio::task::spawn_blocking(move || {
            table.choose(|issued| Some((Arc::clone(issued), issued.unsaved_use()?)))
        });
        for piece in unsaved.await.unwrap_or_default().chunks(BATCH) {
            let uses: Vec<_> = piece.iter().map(|(issued, used)| (issued.record.id.clone(), *used)).collect();
            match open.store.keep_uses(&uses).await {
                Ok(()) => piece.iter().for_each(|(issued, used)| issued.saved(*used)),
                Err(StoreError::Released) => return,
                Err(error) => return tracing::warn!(%error, "last uses of API keys are not kept yet"),
            }
        }
    }

    /// Drops the keys that ended long ago.
    async fn forget(&self, open: &Open) {
        let (table, now) = (Arc::clone(&self.table), self.clock.unix());
        let old = tokio::task::spawn_blocking(move || {
            table.choose(|issued| issued.record.is_forgotten(now).then(|| issued.record.id.clone()))
        });
        for piece in old.await.unwrap_or_default().chunks(BATCH) {
            match open.store.forget(piece).await {
                Ok(()) => {}
                Err(StoreError::Released) => return,
                Err(error) => return tracing::warn!(%error, "API keys that ended long ago are not dropped yet"),
            }
        }
        self.table.retain(|record| !record.is_forgotten(now));
    }
}

impl IssuedKeys for Keys {
    fn holder<'c>(
        &self,
        text: &[u8],
        digest: &Digest256,
        consumers: &'c ConsumerDirectory,
    ) -> Result<&'c Arc<Consumer>, NoHolder> {
        if !format::is_whole(text) {
            return Err(NoHolder::Refused("no such key: it is not one that was issued here, or it is mistyped"));
        }
        let Some(issued) = self.table.find(digest) else {
            let unread = self.open.get().is_some() && !self.is_read.load(Ordering::Acquire);
            return Err(if unread { NoHolder::Unknown } else { NoHolder::Refused("no such key") });
        };
        let now = self.clock.unix();
        match issued.record.ended(now) {
            Some(Ended::Expired) => return Err(NoHolder::Refused("the key has expired")),
            Some(Ended::Revoked) => return Err(NoHolder::Refused("the key is revoked")),
            None => {}
        }
        let holder = consumers.named(&issued.record.consumer).ok_or(NoHolder::Refused("the key's consumer is gone"))?;
        issued.note_use(now);
        Ok(holder)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("count", &self.count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
