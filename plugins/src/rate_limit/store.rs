//! Where it is kept what callers have used.

use std::{hash::Hasher, sync::Arc};

use prometheus::IntCounter;

use super::{
    limit::{Moment, Standing},
    local::{Ask, Local},
};

/// The store of a plugin: all that one needs to know to keep it elsewhere. Everything a request asks for is asked in one
/// call, and granted or refused as a whole.
pub(super) enum Store {
    /// In this process.
    Local {
        /// The keys; other plugins of the same identity have the same.
        local: Arc<Local>,
        /// How many of them.
        most: usize,
        /// Counts those that were forgotten too early.
        evicted: IntCounter,
    },
}

impl Store {
    /// Begins the hash that becomes a key.
    pub(super) fn hasher(&self) -> impl Hasher + use<> {
        match self {
            Self::Local { local, .. } => local.hasher(),
        }
    }

    /// Decides about all asks at once, and writes into each what it came to; whether the request may pass. Where it may not,
    /// nothing was used.
    #[expect(clippy::unused_async, reason = "a store that gateways share is asked over the network")]
    pub(super) async fn decide(&self, asks: &mut [Ask], now: Moment) -> bool {
        match self {
            Self::Local { local, most, evicted } => {
                let decided = local.decide(asks, *most, now);
                evicted.inc_by(decided.evicted);
                decided.granted
            }
        }
    }

    /// Uses units after the fact; what is left then.
    pub(super) fn settle(&self, ask: &Ask, cost: u32, now: Moment) -> Standing {
        match self {
            Self::Local { local, most, evicted } => {
                let (standing, forgotten) = local.settle(ask, cost, *most, now);
                evicted.inc_by(forgotten);
                standing
            }
        }
    }
}
