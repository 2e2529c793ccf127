//! The store that gateways share: one script decides about everything that a request asks of it, in one exchange.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crossway_plugin_api::{Ctx, NoStore, SharedScript, SharedStore};
use pingora_http::RequestHeader;
use prometheus::IntCounter;

use super::{
    config::OnStoreError,
    limit::{ASKED, How, Standing, TOLD},
    local::{Ask, MAX_ASKS},
    name::{Stem, Tag},
};
use crate::key::Parts;

const SCRIPT: &str = include_str!("shared.lua");
/// Most costs that are told to the server at one time; beyond that, more are not.
const MOST_SETTLING: usize = 10_000;

/// The counters of one plugin in the store that gateways share.
pub(super) struct Shared {
    script: Arc<dyn SharedScript>,
    /// What tags begin with, and the parts of the key that they are made of.
    entry: Stem,
    tagged: Parts,
    pub(super) on_error: OnStoreError,
    settling: Arc<AtomicUsize>,
}

impl Shared {
    pub(super) fn new(server: &dyn SharedStore, (entry, tagged): (Stem, Parts), on_error: OnStoreError) -> Self {
        Self { script: server.script(SCRIPT), entry, tagged, on_error, settling: Arc::default() }
    }

    /// What the names of a request's counters have in common.
    pub(super) fn tag(&self, req: &RequestHeader, ctx: &Ctx) -> Tag {
        let mut hasher = self.entry.hasher();
        // Missing parts are no matter here: whoever lacks one is counted with others like that, or not at all.
        let _ = self.tagged.hash(req, ctx, &mut hasher);
        hasher.tag()
    }

    /// Decides about all asks at once, and writes into each what it came to; whether the request may pass. Where it may
    /// not, nothing was used.
    pub(super) async fn decide(&self, asks: &mut [Ask]) -> Result<bool, NoStore> {
        let how = |ask: &Ask| if ask.shadow { How::Shadow } else { How::Enforce };
        let answer = self.run(asks, |ask| ask.limit.asked(ask.cost, how(ask))).await?;
        let (granted, told) = answer.split_first().ok_or(NoStore::Failed)?;
        if told.len() != asks.len() * TOLD {
            return Err(NoStore::Failed);
        }
        for (ask, told) in asks.iter_mut().zip(told.chunks(TOLD)) {
            (ask.wait, ask.used, ask.standing) = ask.limit.told(told).ok_or(NoStore::Failed)?;
        }
        Ok(*granted == 1)
    }

    async fn run(&self, asks: &[Ask], asked: impl Fn(&Ask) -> [u64; ASKED]) -> Result<Vec<i64>, NoStore> {
        let mut keys: [&[u8]; MAX_ASKS] = [&[]; MAX_ASKS];
        let mut args = [0; MAX_ASKS * ASKED];
        let names = asks.iter().filter_map(|ask| Some((ask, ask.name.as_ref()?)));
        for (at, (ask, name)) in names.enumerate() {
            keys[at] = name.as_bytes();
            args[at * ASKED..][..ASKED].copy_from_slice(&asked(ask));
        }
        self.script.run(&keys[..asks.len()], &args[..asks.len() * ASKED]).await
    }

    /// Uses units after the fact, in the background. What is left then, if nobody else uses anything meanwhile. What cannot
    /// be told to the server is counted as lost.
    pub(super) fn settle(&self, ask: &Ask, cost: u32, lost: &IntCounter) -> Standing {
        let (_, standing) = ask.limit.owed(ask.used, cost, ask.standing);
        let Some(name) = ask.name else { return standing };
        if self.settling.fetch_add(1, Ordering::Relaxed) >= MOST_SETTLING {
            self.settling.fetch_sub(1, Ordering::Relaxed);
            lost.inc();
            return standing;
        }
        let (script, settling, lost) = (Arc::clone(&self.script), Arc::clone(&self.settling), lost.clone());
        let args = ask.limit.asked(cost, How::Owe);
        tokio::spawn(async move {
            if script.run(&[name.as_bytes()], &args).await.is_err() {
                lost.inc();
            }
            settling.fetch_sub(1, Ordering::Relaxed);
        });
        standing
    }
}
