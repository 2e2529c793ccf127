//! Scripts of plugins on the server that gateways share.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use crossway_plugin_api::{NoStore, SharedScript, SharedStore};
use redis::{Cmd, ErrorKind, Script, ServerErrorKind};

use super::Shared;

/// What plugins are lent of the server. Configurations are compiled before there is a connection; once the process starts,
/// it is given one.
#[derive(Debug, Clone, Default)]
pub struct Scripts(Arc<OnceLock<Arc<Shared>>>);

impl Scripts {
    /// From now on scripts run on this server.
    pub fn run_on(&self, server: Arc<Shared>) {
        // The stores are made once in a process.
        let _ = self.0.set(server);
    }
}

impl SharedStore for Scripts {
    fn script(&self, text: &'static str) -> Arc<dyn SharedScript> {
        Arc::new(Ready { store: self.clone(), script: Script::new(text) })
    }
}

struct Ready {
    store: Scripts,
    script: Script,
}

impl Ready {
    fn command(&self, keys: &[&[u8]], args: &[u64]) -> Cmd {
        let hash = self.script.get_hash();
        let bytes = keys.iter().map(|key| key.len()).sum::<usize>() + 8 * args.len() + hash.len() + 16;
        let mut command = Cmd::with_capacity(3 + keys.len() + args.len(), bytes);
        command.arg("EVALSHA").arg(hash).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        for arg in args {
            command.arg(*arg);
        }
        command
    }
}

#[async_trait]
impl SharedScript for Ready {
    async fn run(&self, keys: &[&[u8]], args: &[u64]) -> Result<Vec<i64>, NoStore> {
        let server = self.store.0.get().filter(|server| !server.is_down()).ok_or(NoStore::Down)?;
        let (command, mut connection) = (self.command(keys, args), server.connection());
        let exchange = async {
            match command.query_async(&mut connection).await {
                // A server that was started anew knows no scripts.
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    self.script.load_async(&mut connection).await?;
                    command.query_async(&mut connection).await
                }
                answered => answered,
            }
        };
        server.within_at(keys.first().copied(), exchange).await.map_err(|_| NoStore::Failed)
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("script", &self.script.get_hash()).finish_non_exhaustive()
    }
}
