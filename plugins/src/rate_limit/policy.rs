//! One limit as it is used: which limit holds for whom, and what a request costs.

use std::{
    hash::{Hash as _, Hasher as _},
    sync::atomic::{AtomicU64, Ordering},
};

use crossway_plugin_api::Ctx;
use http::{HeaderMap, HeaderName};
use pingora_http::RequestHeader;

use super::{
    limit::{Kept, Limit, Moment, Standing},
    local::Ask,
    name::{Stem, Tag},
    period::Period,
    store::Store,
    table::Key,
};
use crate::key::{OnMissingKey, Part, Parts};

/// Time between two lines in the log about one policy in shadow mode, in nanoseconds.
const PAUSE: u64 = 10_000_000_000;

pub(super) struct Policy {
    pub(super) name: String,
    /// What tells its keys from those of other policies.
    pub(super) identity: Identity,
    /// The beginning of its counters' names, where they are in the store that gateways share.
    pub(super) stem: Option<Stem>,
    pub(super) parts: Parts,
    pub(super) limit: Limit,
    /// Groups with limits of their own, the highest first.
    pub(super) tiers: Vec<(String, Limit)>,
    pub(super) cost: Cost,
    pub(super) shadow: bool,
    pub(super) on_missing_key: OnMissingKey,
    pub(super) notice: Notice,
}

/// What tells the keys of a policy from those of others: its name, the kind of its key, and for windows their length. A
/// policy that keeps them finds its counters again after a reload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) key: Vec<Part>,
    pub(super) window: Option<Period>,
}

/// What a request costs.
pub(super) struct Cost {
    pub(super) fixed: u32,
    pub(super) from: Option<(Side, HeaderName)>,
    pub(super) max: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// A field that should hold a cost, and does not.
pub(super) struct BadCost;

impl Cost {
    /// What stands in the field: none, a number, or something else.
    fn read(&self, side: Side, headers: &HeaderMap, least: u32) -> Option<Result<u32, BadCost>> {
        let (at, name) = self.from.as_ref()?;
        let mut values = headers.get_all(name).iter().filter(|_| *at == side);
        let value = values.next()?;
        if values.next().is_some() {
            return Some(Err(BadCost));
        }
        let digits = value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse::<u32>().ok());
        Some(number.filter(|cost| (least..=self.max).contains(cost)).ok_or(BadCost))
    }

    /// What a request costs before it is answered.
    fn before(&self, req: &RequestHeader) -> Result<u32, BadCost> {
        self.read(Side::Request, &req.headers, 1).unwrap_or(Ok(self.fixed))
    }

    /// What it has cost beyond that, by its answer.
    pub(super) fn after(&self, headers: &HeaderMap) -> Option<Result<u32, BadCost>> {
        let whole = self.read(Side::Response, headers, 0)?;
        Some(whole.map(|whole| whole.saturating_sub(self.fixed)))
    }
}

impl Policy {
    /// What a request asks of it; `None` if it lacks a part of the key. Also whether the cost that it names is none. `tag`
    /// is that of the request, where it has one.
    pub(super) fn ask(
        &self,
        at: usize,
        (req, ctx): (&RequestHeader, &Ctx),
        (store, tag): (&Store, Option<Tag>),
    ) -> Option<(Ask, bool)> {
        let limit = self.limit_of(ctx);
        let (mut key, mut name) = (Key::default(), None);
        if let (Some(stem), Some(tag)) = (&self.stem, tag) {
            let mut hasher = stem.hasher();
            self.parts.hash(req, ctx, &mut hasher)?;
            name = Some(hasher.name(tag));
        } else {
            let mut hasher = store.hasher();
            self.identity.hash(&mut hasher);
            self.parts.hash(req, ctx, &mut hasher)?;
            key = Key::new(hasher.finish(), limit.is_window());
        }
        let cost = self.cost.before(req);
        let is_bad = cost.is_err();
        let ask = Ask {
            policy: at,
            key,
            name,
            limit,
            cost: cost.unwrap_or(self.cost.max),
            shadow: self.shadow,
            wait: None,
            kept: Kept::default(),
            used: 0,
            standing: Standing::default(),
        };
        Some((ask, is_bad))
    }

    fn limit_of(&self, ctx: &Ctx) -> Limit {
        let Some(consumer) = ctx.consumer.as_ref().filter(|_| !self.tiers.is_empty()) else { return self.limit };
        let tier = self.tiers.iter().find(|(group, _)| consumer.groups().contains(group));
        tier.map_or(self.limit, |(_, limit)| *limit)
    }
}

/// Says in the log now and then what a policy in shadow mode would have refused.
#[derive(Default)]
pub(super) struct Notice {
    next: AtomicU64,
    silent: AtomicU64,
}

impl Notice {
    /// One more; how many there have been, if it is time to say so.
    pub(super) fn one_more(&self, now: Moment) -> Option<u64> {
        self.silent.fetch_add(1, Ordering::Relaxed);
        let next = self.next.load(Ordering::Relaxed);
        let is_time = now.steady >= next
            && self.next.compare_exchange(next, now.steady + PAUSE, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        is_time.then(|| self.silent.swap(0, Ordering::Relaxed))
    }
}
