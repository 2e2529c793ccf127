//! The listener for operators: health, readiness, metrics, status, reload, keys.

mod api;
mod audit;
mod guard;
mod keys;
mod listen;
mod upstreams;

use std::sync::Arc;

use crate::{front::listeners::Listeners, gateway::Gateway, reload::Reloader};

pub use listen::{Serving, serve};

/// What the pages show and do.
#[derive(Clone)]
pub struct State {
    gateway: Arc<Gateway>,
    listeners: Arc<Listeners>,
    reloader: Arc<Reloader>,
    token: Arc<[u8]>,
}

impl State {
    /// Pages of this gateway.
    pub fn new(gateway: Arc<Gateway>, listeners: Arc<Listeners>, reloader: Arc<Reloader>) -> Self {
        Self { gateway, listeners, reloader, token: Arc::from([]) }
    }
}
