//! What only one process may hold at a time.

use std::{fs::File, io, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

use crate::store::Local;

/// How long the other process may take to let go.
const PATIENCE: Duration = Duration::from_secs(5);

/// The local store, and a lock file beside the upgrade socket that says whose it is, whether there is a store or not.
#[derive(Debug)]
pub struct Exclusive {
    path: PathBuf,
    store: Option<Arc<Local>>,
    held: Mutex<Option<File>>,
}

impl Exclusive {
    /// Not held yet.
    pub fn new(path: PathBuf, store: Option<Arc<Local>>) -> Self {
        Self { path, store, held: Mutex::new(None) }
    }

    /// Takes it, waiting a moment for another process to let go. Nothing if it is held already.
    pub async fn take(&self) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.try_take() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                done => return done,
            }
        }
    }

    /// Takes it if it is free.
    pub fn try_take(&self) -> io::Result<()> {
        let mut held = self.held.lock();
        if held.is_none() {
            let file = File::options().create(true).append(true).open(&self.path)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            *held = Some(file);
            if let Some(store) = &self.store {
                store.take_back();
            }
        }
        Ok(())
    }

    /// Lets go, once what is under way in the store has ended. Blocks.
    pub fn release(&self) {
        if let Some(store) = &self.store {
            store.release();
        }
        self.held.lock().take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, two] = [(); 2].map(|()| Exclusive::new(folder.path().join("lock"), None));
        one.try_take().expect("free");
        one.try_take().expect("held already");
        assert_eq!(two.try_take().map_err(|e| e.kind()), Err(io::ErrorKind::WouldBlock));
        one.release();
        two.try_take().expect("free again");
    }
}
