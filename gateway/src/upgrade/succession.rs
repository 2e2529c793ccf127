//! The start of a process that may replace another one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;

use super::{Exclusive, Inherited, Refused, Taker};
use crate::{server::Ended, store::Local};

/// What is left to do once this process serves.
pub struct Succession {
    socket: PathBuf,
    exclusive: Arc<Exclusive>,
    taker: Option<Taker>,
}

impl Succession {
    /// Takes the sockets of the process that runs, if one is to be replaced and there is one.
    pub async fn begin(socket: &Path, store: Option<Arc<Local>>, take_over: bool) -> Result<(Self, Inherited), Ended> {
        let mut lock = socket.as_os_str().to_owned();
        lock.push(".lock");
        let exclusive = Arc::new(Exclusive::new(lock.into(), store));
        let socket = socket.to_owned();
        let (taker, inherited) = if take_over {
            let path = socket.clone();
            let begun = blocking(move || Taker::begin(&path)).await;
            match begun.context("no upgrade").map_err(Ended::Failed)? {
                Some((taker, inherited)) => (Some(taker), inherited),
                None => {
                    tracing::info!("there is no process to take over from");
                    (None, Inherited::default())
                }
            }
        } else {
            (None, Inherited::default())
        };
        Ok((Self { socket, exclusive, taker }, inherited))
    }

    /// Takes what only one may hold, from the old process if there is one. That serves on.
    pub async fn take(&mut self) -> anyhow::Result<()> {
        if let Some(old) = self.taker.take() {
            self.taker = kept(blocking(move || old.release().map(|()| old)).await)?;
        }
        self.exclusive.take().await.context("another process holds what only one may hold")
    }

    /// Whether there is a process to send away.
    pub fn replaces(&self) -> bool {
        self.taker.is_some()
    }

    /// This process has everything: sends the old one away. Gives back the path of the upgrade socket, which is free.
    pub async fn finish(self) -> anyhow::Result<(PathBuf, Arc<Exclusive>)> {
        let Self { socket, exclusive, taker } = self;
        if let Some(old) = taker {
            kept(blocking(move || old.go()).await)?;
            // The old process's, which is of no use any more.
            std::fs::remove_file(&socket).context("the old upgrade socket cannot be removed")?;
        }
        Ok((socket, exclusive))
    }
}

/// An old process that dies in the middle leaves everything to this one; one that says no does not.
fn kept<T>(talked: Result<T, Refused>) -> anyhow::Result<Option<T>> {
    match talked {
        Ok(value) => Ok(Some(value)),
        Err(Refused::Broken(error)) => {
            tracing::warn!(%error, "the old process is gone");
            Ok(None)
        }
        Err(refused) => Err(refused).context("no upgrade"),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refused> + Send + 'static) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(Refused::Broken(std::io::Error::other(panic))))
}
