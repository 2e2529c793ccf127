//! The server that gateways share, as plugins see it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

/// A Redis or Valkey server that several gateways use, `stores.shared`.
pub trait SharedStore: fmt::Debug + Send + Sync {
    /// A script in Lua, made ready. It answers with a list of whole numbers.
    fn script(&self, text: &'static str) -> Arc<dyn SharedScript>;
}

/// A script on the server. What it does is done as a whole, with nothing else in between.
#[async_trait]
pub trait SharedScript: fmt::Debug + Send + Sync {
    /// Runs it in one exchange, within `stores.shared.timeout`. All keys must have one hash tag (a part in braces), so that
    /// they are on one node of a cluster.
    async fn run(&self, keys: &[&[u8]], args: &[u64]) -> Result<Vec<i64>, NoStore>;
}

/// A server that is always down: enough to check a configuration.
#[derive(Debug, Clone, Copy)]
pub struct NoServer;

impl SharedStore for NoServer {
    fn script(&self, _: &'static str) -> Arc<dyn SharedScript> {
        Arc::new(Self)
    }
}

#[async_trait]
impl SharedScript for NoServer {
    async fn run(&self, _: &[&[u8]], _: &[u64]) -> Result<Vec<i64>, NoStore> {
        Err(NoStore::Down)
    }
}

/// Why the server did not do what it was asked. It is logged where it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoStore {
    /// It is known to be down, and was not asked.
    #[error("the shared store is down")]
    Down,
    /// It was asked. Whether it has done anything is not known.
    #[error("the shared store fails")]
    Failed,
}
