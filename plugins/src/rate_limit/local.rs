//! The store in this process.
//!
//! A decision is about several limits at once: all of them have room, or none is used. So the parts of the store that it
//! touches are locked together, always in the same order, and only while a few numbers are compared and written. One number
//! for each key with compare-and-swap would do without locks for a single limit; for several, what was taken from the first
//! would have to be given back when the second refuses, and in between it would be missing to others.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    limit::{Kept, Limit, Moment, Standing},
    name::Name,
    table::{Key, Table},
};

/// Most limits in one decision.
pub(super) const MAX_ASKS: usize = 8;
/// Entries to a part, about, and how many parts there are.
const EACH: usize = 1024;
const FEWEST: usize = 16;
const MOST: usize = 1024;
/// Most entries that one new key drives out, where the bound has become smaller.
const EVICTIONS: usize = 4;

/// One limit, and what is asked of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    /// Number of the policy that asks.
    pub(super) policy: usize,
    /// Whose units are used, in this process.
    pub(super) key: Key,
    /// Whose units are used, in the store that gateways share; `None` where they are counted in this process.
    pub(super) name: Option<Name>,
    /// The limit.
    pub(super) limit: Limit,
    /// Units to use.
    pub(super) cost: u32,
    /// Whether it only counts, and refuses nobody.
    pub(super) shadow: bool,
    /// How long to wait until there is room, in nanoseconds, if there is none. Written by the decision.
    pub(super) wait: Option<u64>,
    /// What is kept after the decision, in this process, where it has used something. Written by the decision.
    pub(super) kept: Kept,
    /// What is used after the decision, in the store that gateways share. Written by the decision.
    pub(super) used: u64,
    /// What is left, after the decision. Written by the decision.
    pub(super) standing: Standing,
}

impl Ask {
    /// Whether it uses something, once the decision is to grant.
    fn uses(&self) -> bool {
        self.wait.is_none() && self.cost > 0
    }
}

/// What a decision came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decided {
    /// Whether every limit that may refuse had room. If not, nothing was used.
    pub(super) granted: bool,
    /// Keys that still counted and were forgotten to keep the bound.
    pub(super) evicted: u64,
}

/// The keys of one plugin and what is kept for them, in memory.
pub(super) struct Local {
    parts: Box<[Mutex<Table>]>,
    length: AtomicUsize,
    hashes: RandomState,
}

impl Local {
    /// A store for about so many keys. Its bound comes with each decision, because a reload may change it.
    pub(super) fn new(entries: usize) -> Self {
        let parts = (entries / EACH).next_power_of_two().clamp(FEWEST, MOST);
        Self {
            parts: (0..parts).map(|_| Mutex::default()).collect(),
            length: AtomicUsize::new(0),
            hashes: RandomState::new(),
        }
    }

    /// Begins the hash of a key. It is keyed at random, so that nobody can choose whose key collides with whose.
    pub(super) fn hasher(&self) -> impl std::hash::Hasher + use<> {
        self.hashes.build_hasher()
    }

    /// How many keys are known.
    pub(super) fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Decides about all of these at once; at most [`MAX_ASKS`]. Keeps about `most` keys: up to one for each part more.
    pub(super) fn decide(&self, asks: &mut [Ask], most: usize, now: Moment) -> Decided {
        let mut held = self.lock(asks);
        let mut next = [Kept::default(); MAX_ASKS];
        let mut granted = true;
        for (ask, next) in asks.iter_mut().zip(&mut next) {
            let kept = current(table(&mut held, self.part(ask.key)), ask, now);
            let taken = ask.limit.take(kept, ask.cost, now);
            ask.wait = taken.err();
            granted &= ask.wait.is_none() || ask.shadow;
            *next = taken.unwrap_or(kept);
            ask.standing = ask.limit.standing(kept, now);
        }
        let mut evicted = 0;
        if granted {
            for (ask, next) in asks.iter_mut().zip(next).filter(|(ask, _)| ask.uses()) {
                let table = table(&mut held, self.part(ask.key));
                evicted += self.keep(table, ask.key, next, (most, now));
                ask.kept = next;
                ask.standing = ask.limit.standing(next, now);
            }
        }
        Decided { granted, evicted }
    }

    /// Gives back what a decision has used of these.
    pub(super) fn give_back(&self, asks: &mut [Ask], now: Moment) {
        for ask in asks.iter_mut().filter(|ask| ask.uses()) {
            let mut table = lock(&self.parts[self.part(ask.key)]);
            let kept = table.get(ask.key);
            let next = ask.limit.give_back(kept, ask.cost, ask.kept);
            // What was forgotten meanwhile is as good as given back.
            if kept != Kept::default() {
                table.set(ask.key, next, now);
            }
            ask.standing = ask.limit.standing(next, now);
        }
    }

    /// Uses units that were not asked for beforehand; into debt where none are left. What is left then, and how many keys were
    /// forgotten to keep the bound.
    pub(super) fn settle(&self, ask: &Ask, cost: u32, most: usize, now: Moment) -> (Standing, u64) {
        let mut table = lock(&self.parts[self.part(ask.key)]);
        let next = ask.limit.owe(table.get(ask.key), cost, now);
        let evicted = self.keep(&mut table, ask.key, next, (most, now));
        (ask.limit.standing(next, now), evicted)
    }

    fn keep(&self, table: &mut Table, key: Key, kept: Kept, (most, now): (usize, Moment)) -> u64 {
        let before = table.len();
        table.set(key, kept, now);
        self.count(before, table.len());
        let mut evicted = 0;
        if table.len() > before {
            for _ in 0..EVICTIONS {
                if self.len() <= most {
                    break;
                }
                let Some(counted) = table.evict(key, now) else { break };
                self.length.fetch_sub(1, Ordering::Relaxed);
                evicted += u64::from(counted);
            }
        }
        evicted
    }

    fn count(&self, before: usize, after: usize) {
        if after > before {
            self.length.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.length.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    fn part(&self, key: Key) -> usize {
        usize::try_from(key.low() % self.parts.len() as u64).unwrap_or_default()
    }

    /// Locks the parts of all keys, each once, in ascending order, so that two decisions never wait for each other.
    fn lock(&self, asks: &[Ask]) -> Held<'_> {
        let mut parts = [usize::MAX; MAX_ASKS];
        for (part, ask) in parts.iter_mut().zip(asks) {
            *part = self.part(ask.key);
        }
        parts.sort_unstable();
        let mut held = [const { None }; MAX_ASKS];
        let mut last = usize::MAX;
        for (place, part) in held.iter_mut().zip(parts).take(asks.len()) {
            if part != last {
                *place = Some((part, lock(&self.parts[part])));
                last = part;
            }
        }
        held
    }
}

/// The parts that a decision has locked.
type Held<'l> = [Option<(usize, MutexGuard<'l, Table>)>; MAX_ASKS];

fn table<'h>(held: &'h mut Held<'_>, part: usize) -> &'h mut Table {
    let found = held.iter_mut().flatten().find(|(at, _)| *at == part);
    &mut found.expect("the parts of all keys are locked").1
}

/// What is kept for a key. Where it was kept by limits that hold no more, it is from now on as this one says, whether or not
/// anything is used: else it would go on to come back as slowly as it did before.
fn current(table: &mut Table, ask: &Ask, now: Moment) -> Kept {
    let kept = table.get(ask.key);
    let fresh = ask.limit.fresh(kept, now);
    if fresh != kept {
        table.set(ask.key, fresh, now);
    }
    fresh
}

fn lock(part: &Mutex<Table>) -> MutexGuard<'_, Table> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
