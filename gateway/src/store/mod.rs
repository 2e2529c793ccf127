//! Where state is kept that outlives the process ([`Local`], a file) or that several gateways share ([`Shared`], Redis).
//!
//! Both are small and general: whoever keeps something has a table of its own in the file, or keys with a prefix of its own
//! and scripts in Redis. Nothing here is touched by a request that can do without it.

mod bounded;
mod circuit;
pub mod local;
mod scripts;
pub mod shared;

use std::sync::Arc;

use prometheus::{IntCounterVec, IntGaugeVec};

pub use local::Local;
pub use scripts::Scripts;
pub use shared::Shared;

/// What the configuration says of the stores, checked; nothing is open yet.
#[derive(Debug, Default)]
pub struct Plan {
    /// The file.
    pub local: Option<local::Place>,
    /// The server.
    pub shared: Option<shared::Server>,
}

/// The stores of the process. Each is opened when it is first used.
#[derive(Debug, Default, Clone)]
pub struct Stores {
    /// The file on this machine.
    pub local: Option<Arc<Local>>,
    /// The server that gateways share.
    pub shared: Option<Arc<Shared>>,
}

impl Stores {
    /// The stores that are planned, with a counter of failures by store, and whether each is up. Needs a runtime; waits for
    /// nothing.
    pub fn new(plan: &Plan, errors: &IntCounterVec, up: &IntGaugeVec) -> Result<Self, String> {
        let failed = |store: &str| errors.with_label_values(&[store]);
        let local = plan.local.clone().map(|place| Arc::new(Local::new(place, failed("local"))));
        let is_up = || up.with_label_values(&["shared"]);
        let shared = plan.shared.as_ref().map(|server| Shared::new(server, failed("shared"), is_up())).transpose()?;
        Ok(Self { local, shared })
    }
}

/// Why a store did not do what it was asked. The texts are for logs and operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process is taking the store over, or has it.
    #[error("another process has the store")]
    Released,
    /// What was asked for does not fit.
    #[error("the store is full: raise stores.local.max_size, or make room on its disk")]
    Full,
    /// It cannot be reached, did not answer in time, or is broken.
    #[error("{0}")]
    Failed(String),
}
