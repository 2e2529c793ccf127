//! The choice of an endpoint: in groups of the same priority, by the pool's rule, of those that may be used.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use super::{balance::RoundRobin, pool::Endpoint, rendezvous};

/// What a request brings to the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// The hash of the value that decides where it goes, where the pool goes by one.
    pub hash: Option<u64>,
    /// The endpoint that its cookie names, by its tag.
    pub sticky: Option<u64>,
}

impl Wish {
    /// Whether it matters which endpoint is chosen.
    pub fn is_some(&self) -> bool {
        self.hash.is_some() || self.sticky.is_some()
    }
}

/// The endpoints that have been tried for one request. Nothing is kept for requests that are not tried again.
#[derive(Debug, Default)]
pub struct Tried(Vec<SocketAddr>);

impl Tried {
    /// Notes that this one has been tried.
    pub fn add(&mut self, address: SocketAddr) {
        self.0.push(address);
    }

    /// Whether this one has been tried.
    pub fn has(&self, address: SocketAddr) -> bool {
        self.0.contains(&address)
    }

    /// The one that was tried last.
    pub fn last(&self) -> Option<SocketAddr> {
        self.0.last().copied()
    }

    /// Whether none has been tried.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The rule of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// In turn.
    InTurn,
    /// The less busy one of two.
    LessBusy,
    /// By a hash of the request; in turn where there is none.
    ByHash,
}

/// Turns that are taken before every endpoint is looked at: as many as most pools need even while some may not be used.
const TURNS: usize = 16;

/// The endpoints in use.
#[derive(Default)]
pub(super) struct Current {
    /// All of them, drained ones too.
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    /// Those with a weight, by priority.
    groups: Box<[Group]>,
}

/// Endpoints of the same priority.
struct Group {
    endpoints: Box<[Arc<Endpoint>]>,
    turns: RoundRobin,
}

impl Current {
    pub(super) fn new(endpoints: Vec<Arc<Endpoint>>) -> Self {
        let mut weighty: Vec<&Arc<Endpoint>> = endpoints.iter().filter(|e| e.weight > 0).collect();
        weighty.sort_by_key(|e| e.priority);
        let groups = weighty.chunk_by(|a, b| a.priority == b.priority).map(Group::new).collect();
        Self { endpoints, groups }
    }

    /// The endpoint of the request's cookie, if it may be used, whatever its priority and weight; else one of the first
    /// group that has one which may be used. `share` is the part of an endpoint's weight that counts now.
    pub(super) fn choose(
        &self,
        rule: Rule,
        wish: &Wish,
        share: &impl Fn(&Endpoint) -> f64,
        may: &impl Fn(&Endpoint) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        if let Some(tag) = wish.sticky
            && let Some(stuck) = self.endpoints.iter().find(|e| e.tag == Some(tag))
            && may(stuck)
        {
            return Some(stuck);
        }
        self.groups.iter().find_map(|group| match (rule, wish.hash) {
            (Rule::LessBusy, _) => group.less_busy(share, may),
            (Rule::ByHash, Some(key)) => group.by_hash(key, share, may),
            (Rule::InTurn | Rule::ByHash, _) => group.in_turn(share, may),
        })
    }
}

impl Group {
    fn new(endpoints: &[&Arc<Endpoint>]) -> Self {
        let weights: Vec<u32> = endpoints.iter().map(|e| e.weight).collect();
        Self { endpoints: endpoints.iter().map(|e| Arc::clone(e)).collect(), turns: RoundRobin::new(&weights) }
    }

    /// The endpoint whose turn it is. The turns of those that may not be used are dropped, and not given to who comes next,
    /// so that the others keep their shares.
    fn in_turn(&self, share: &impl Fn(&Endpoint) -> f64, may: &impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let turn = |_| self.endpoints.get(self.turns.next()?);
        let found = (0..TURNS).filter_map(turn).find(|e| takes_turn(share(e)) && may(e));
        found.or_else(|| self.by_chance(share, may))
    }

    /// The less busy one of two that are drawn by weight. On equal terms the first: shares are those of the weights where
    /// nobody is busy.
    fn less_busy(&self, share: &impl Fn(&Endpoint) -> f64, may: &impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let drawn = |_| self.endpoints.get(self.turns.draw()?);
        let mut found = (0..TURNS).filter_map(drawn).filter(|e| takes_turn(share(e)) && may(e));
        let Some(first) = found.next() else { return self.by_chance(share, may) };
        let load = |e: &Endpoint| {
            let requests = u32::try_from(e.state.in_flight()).unwrap_or(u32::MAX);
            f64::from(requests) / (f64::from(e.weight) * share(e))
        };
        match found.find(|other| !Arc::ptr_eq(other, first)) {
            Some(second) if load(second) < load(first) => Some(second),
            _ => Some(first),
        }
    }

    fn by_hash(
        &self,
        key: u64,
        share: &impl Fn(&Endpoint) -> f64,
        may: &impl Fn(&Endpoint) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        let usable = self.endpoints.iter().filter(|e| may(e));
        rendezvous::cheapest(key, usable.map(|e| (e, e.place, f64::from(e.weight) * share(e))))
    }

    /// One of those that may be used, by weight.
    fn by_chance(&self, share: &impl Fn(&Endpoint) -> f64, may: &impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        self.by_hash(fastrand::u64(..), share, may)
    }
}

/// Whether an endpoint that has only a part of its weight takes its turn.
fn takes_turn(share: f64) -> bool {
    share >= 1.0 || fastrand::f64() < share
}

/// What is known of time in a choice.
pub(super) fn share_of(window: Option<std::time::Duration>, now: Instant) -> impl Fn(&Endpoint) -> f64 {
    move |endpoint| window.map_or(1.0, |window| endpoint.state.warmth.share(now, window))
}

#[cfg(test)]
mod tests;
