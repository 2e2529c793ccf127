//! The store in a file on this machine.

use std::{
    fs::File,
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use prometheus::IntCounter;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase as _, WriteTransaction};
use tokio::sync::Semaphore;

use super::{StoreError, bounded::Bounded};

/// Memory for pages of the file: what is read often is kept in memory by who needs it.
const CACHE: usize = 4 << 20;
/// How long a process that has let go, or was ended, may take until the file is really free.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most reads at a time, each on a thread of its own.
const READERS: usize = 4;

/// Where the file is, and how large it may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Its largest size in bytes.
    pub max_size: u64,
}

/// A database in a file, of which one process can have only one. It is opened when it is first used. Who keeps something in
/// it has a table of its own.
#[derive(Debug)]
pub struct Local {
    place: Place,
    errors: IntCounter,
    state: RwLock<State>,
    /// How often another process may have had the file, plus one.
    epoch: AtomicU64,
    /// Writers wait here rather than on a thread each.
    write_turn: Arc<Semaphore>,
    read_turns: Arc<Semaphore>,
}

#[derive(Debug)]
enum State {
    Closed,
    Open(Box<Database>),
    Released,
}

impl Local {
    /// Opens nothing yet.
    pub fn new(place: Place, errors: IntCounter) -> Self {
        let [write_turn, read_turns] = [1, READERS].map(|most| Arc::new(Semaphore::new(most)));
        Self { place, errors, state: RwLock::new(State::Closed), epoch: AtomicU64::new(1), write_turn, read_turns }
    }

    /// Does `work` in one transaction, which is on disk when this returns, or has never been. Runs off the workers.
    pub async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.off_the_workers(&self.write_turn, |database| {
            let mut transaction = database.begin_write()?;
            // A store that was cut off is ready again at once, however large it is.
            transaction.set_quick_repair(true);
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
        .await
    }

    /// Does `work` on one consistent state. Runs off the workers.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.off_the_workers(&self.read_turns, |database| work(&database.begin_read()?)).await
    }

    /// Closes the file for another process, once what is under way has ended; from now on everything is refused. Blocks.
    pub fn release(&self) {
        *self.state.write() = State::Released;
    }

    /// The other process has not come, or is gone: the file may be used again.
    pub fn take_back(&self) {
        let mut state = self.state.write();
        if matches!(*state, State::Released) {
            *state = State::Closed;
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Another number whenever another process may have changed what is in the file.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    async fn off_the_workers<T: Send + 'static>(
        self: &Arc<Self>,
        turns: &Arc<Semaphore>,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        // The turn ends with the work, whether or not somebody still waits for it.
        let turn = Arc::clone(turns).acquire_owned().await.map_err(|_| StoreError::Released)?;
        let store = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let done = store.with(work);
            drop(turn);
            done
        })
        .await;
        done.unwrap_or_else(|panic| Err(StoreError::Failed(format!("the work on the store panicked: {panic}"))))
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let state = self.opened()?;
        let State::Open(database) = &*state else { return Err(StoreError::Released) };
        let done = work(database);
        drop(state);
        done.map_err(|error| {
            let wrong = self.explain(&error);
            // After a failure of the file nothing works any more until it is opened anew.
            let mut state = self.state.write();
            if matches!(*state, State::Open(_)) {
                *state = State::Closed;
            }
            wrong
        })
    }

    /// The state, opened if it can be.
    fn opened(&self) -> Result<RwLockReadGuard<'_, State>, StoreError> {
        let state = self.state.read();
        if !matches!(*state, State::Closed) {
            return Ok(state);
        }
        drop(state);
        let mut state = self.state.write();
        if matches!(*state, State::Closed) {
            *state = State::Open(Box::new(self.open().map_err(|error| self.explain(&error.into()))?));
        }
        Ok(RwLockWriteGuard::downgrade(state))
    }

    fn open(&self) -> Result<Database, DatabaseError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut options = File::options();
            let file =
                options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.place.path)?;
            let backend = Bounded::new(file, self.place.max_size)?;
            match Database::builder().set_cache_size(CACHE).create_with_backend(backend) {
                Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < deadline => {
                    std::thread::park_timeout(Duration::from_millis(10));
                }
                opened => return opened,
            }
        }
    }

    fn explain(&self, error: &redb::Error) -> StoreError {
        self.errors.inc();
        match error {
            redb::Error::Io(error)
                if matches!(
                    error.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
                ) =>
            {
                StoreError::Full
            }
            redb::Error::DatabaseAlreadyOpen => StoreError::Released,
            error => StoreError::Failed(format!("{}: {error}", self.place.path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use redb::TableDefinition;

    use super::*;

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("test");

    fn store(folder: &tempfile::TempDir, max_size: u64) -> Arc<Local> {
        Arc::new(Local::new(
            Place { path: folder.path().join("store"), max_size },
            IntCounter::new("errors", "errors").unwrap(),
        ))
    }

    async fn put(store: &Arc<Local>, at: u64, bytes: usize) -> Result<(), StoreError> {
        store
            .write(move |transaction| {
                transaction.open_table(TABLE)?.insert(at, vec![7; bytes].as_slice())?;
                Ok(())
            })
            .await
    }

    async fn length(store: &Arc<Local>, at: u64) -> Result<Option<usize>, StoreError> {
        store
            .read(move |transaction| Ok(transaction.open_table(TABLE)?.get(at)?.map(|found| found.value().len())))
            .await
    }

    #[tokio::test]
    async fn what_is_written_is_there_and_only_one_process_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = [(); 2].map(|()| store(&folder, 64 << 20));
        assert!(!folder.path().join("store").exists(), "nothing is opened before it is used");
        put(&one, 1, 3).await.unwrap();
        assert_eq!(length(&one, 1).await, Ok(Some(3)));
        assert_eq!(put(&two, 2, 3).await, Err(StoreError::Released));
        one.release();
        assert_eq!(put(&one, 2, 3).await, Err(StoreError::Released));
        assert_eq!(length(&two, 1).await, Ok(Some(3)));
        one.take_back();
        assert_eq!(put(&one, 2, 3).await, Err(StoreError::Released), "the other one has it");
        two.release();
        put(&one, 2, 3).await.unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(folder.path().join("store")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_full_store_says_so_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let max = 8 << 20;
        let store = store(&folder, max);
        let mut kept = 0;
        while put(&store, kept, 100_000).await.is_ok() {
            kept += 1;
            assert!(kept < 100, "the bound is not kept");
        }
        assert!(kept > 20, "{kept}");
        assert_eq!(put(&store, kept, 100_000).await, Err(StoreError::Full));
        assert!(std::fs::metadata(folder.path().join("store")).unwrap().len() <= max);
        assert_eq!(length(&store, kept - 1).await, Ok(Some(100_000)));
        assert_eq!(length(&store, kept).await, Ok(None));
        let removed = store.write(|transaction| Ok(transaction.open_table(TABLE)?.remove(0)?.is_some())).await;
        assert_eq!(removed, Ok(true), "room can be made");
        put(&store, 0, 1000).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_none_of_ours_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("store"), "something else").unwrap();
        let store = store(&folder, 64 << 20);
        assert!(matches!(put(&store, 1, 1).await, Err(StoreError::Failed(_))));
        assert_eq!(std::fs::read_to_string(folder.path().join("store")).unwrap(), "something else");
    }
}
