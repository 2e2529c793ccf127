//! Stores and the keys in them, checked. Nothing is opened.

use crossway_plugin_api::config::Secret;

use super::Compiler;
use crate::{
    certificate::Authorities,
    config::store::{Shared, StoreKind},
    keys,
    store::{
        self,
        local::Place,
        shared::{NotAServer, Server},
    },
};

/// Smallest bound of a file: an empty one has a size too, and doubles as it grows.
const SMALLEST: u64 = 8 << 20;

impl Compiler<'_> {
    pub(super) fn stores(&mut self) -> store::Plan {
        let stores = &self.loaded.config.stores;
        let local = stores.local.as_ref().map(|local| {
            if local.max_size.0 < SMALLEST {
                self.error("/stores/local/max_size", "is smaller than 8MiB");
            }
            let path = self.loaded.sources.resolve_path("/stores/local/path", &local.path);
            Place { path, max_size: local.max_size.0 }
        });
        let shared = stores.shared.as_ref().and_then(|shared| self.shared_store(shared));
        store::Plan { local, shared }
    }

    fn shared_store(&mut self, shared: &Shared) -> Option<Server> {
        let pointer = "/stores/shared";
        if shared.timeout.0.is_zero() {
            self.error("/stores/shared/timeout", "must be more than zero");
        }
        let urls: Vec<&str> = match (&shared.redis, shared.cluster.as_slice()) {
            (Some(url), []) => vec![url.expose()],
            (None, [_, ..]) => shared.cluster.iter().map(Secret::expose).collect(),
            _ => {
                self.error(pointer, "needs exactly one of `redis` and `cluster`");
                return None;
            }
        };
        let ca = match &shared.ca {
            Some(path) => Some(self.shared_ca(path)?),
            None => None,
        };
        let is_cluster = shared.redis.is_none();
        let place = |at: usize| if is_cluster { format!("{pointer}/cluster/{at}") } else { format!("{pointer}/redis") };
        match Server::new(&urls, is_cluster, ca, shared.timeout.0) {
            Ok(server) => Some(server),
            Err(NotAServer::Url(at)) => {
                // The URL may hold a password: it is not repeated, nor what is wrong with it.
                self.error(&place(at), "is not a URL such as redis://user:password@host:6379/0 or rediss://host:6380");
                None
            }
            Err(NotAServer::Plain(at)) => {
                self.error(&place(at), "is no `rediss://` URL, for which alone `ca` is of use");
                None
            }
        }
    }

    /// The PEM text of the authorities, if it can be used.
    fn shared_ca(&mut self, path: &str) -> Option<Vec<u8>> {
        let place = "/stores/shared/ca";
        let pem = self.loaded.sources.read_file(place, path).map_err(|diagnostic| self.add(place, diagnostic)).ok()?;
        Authorities::read(&pem).map_err(|wrong| self.error(place, wrong)).ok()?;
        Some(pem)
    }

    pub(super) fn keys(&mut self) -> Option<keys::Plan> {
        let config = &self.loaded.config;
        let (local, shared) = (config.stores.local.is_some(), config.stores.shared.is_some());
        let written = match config.keys {
            Some(written) => written,
            None if local => crate::config::store::Keys::default(),
            None => return None,
        };
        let store = written.store.unwrap_or(if local { StoreKind::Local } else { StoreKind::Shared });
        let (is_there, needs) = match store {
            StoreKind::Local => (local, "needs `stores.local`"),
            StoreKind::Shared if written.store.is_none() => (shared, "needs `stores.local` or `stores.shared`"),
            StoreKind::Shared => (shared, "needs `stores.shared`"),
        };
        if !is_there {
            self.error(if written.store.is_some() { "/keys/store" } else { "/keys" }, needs);
            return None;
        }
        Some(keys::Plan { store, most: written.max.into() })
    }
}
