//! One part of the local store: an open hash table from keys to what is kept for them.
//!
//! An entry is 24 bytes. A table is never fuller than four fifths; when it would be, it is made anew for half as many entries
//! again as there are that count, and the others are left behind. What has to go to keep a bound is found by a hand that goes round, as in a clock.

use super::limit::{Kept, Moment};

/// Fewest places of a table that has any.
const FEWEST: usize = 8;
/// Places that are looked at to find the entry that is missed least.
const LOOKS: usize = 32;

/// The name of what is kept: a hash of who calls and of the policy. The lowest bit says that it is kept for a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Key(u64);

impl Key {
    /// The key of a hash, of which two bits are lost.
    pub(super) fn new(hash: u64, is_window: bool) -> Self {
        Self(hash & !3 | 2 | u64::from(is_window))
    }

    fn is_window(self) -> bool {
        self.0 & 1 == 1
    }

    /// A number that has nothing to do with the place in a table.
    pub(super) fn low(self) -> u64 {
        self.0 >> 2
    }
}

/// A key, zero where the place is free, and what is kept for it.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: Key,
    kept: Kept,
}

impl Slot {
    fn is_free(self) -> bool {
        self.key.0 == 0
    }

    fn counts_for(self, now: Moment) -> u64 {
        self.kept.counts_for(self.key.is_window(), now)
    }
}

/// A part of the store.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Box<[Slot]>,
    length: usize,
    hand: usize,
}

impl Table {
    /// How many keys are known.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Places, each of 24 bytes.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }

    /// What is kept for a key; nothing for one that is not known.
    pub(super) fn get(&self, key: Key) -> Kept {
        if self.slots.is_empty() { Kept::default() } else { self.slots[self.find(key)].kept }
    }

    /// Keeps this for a key.
    pub(super) fn set(&mut self, key: Key, kept: Kept, now: Moment) {
        if !self.slots.is_empty() {
            let at = self.find(key);
            if !self.slots[at].is_free() {
                self.slots[at].kept = kept;
                return;
            }
        }
        if (self.length + 1) * 5 > self.slots.len() * 4 {
            self.rebuild(now);
        }
        self.add(Slot { key, kept });
    }

    /// Forgets one key other than this: one that counts no more, else the one among those looked at that counts least
    /// long. Says whether it still counted; `None` where there is no other.
    pub(super) fn evict(&mut self, but: Key, now: Moment) -> Option<bool> {
        let mut best: Option<(usize, u64)> = None;
        let mut looked = 0;
        while looked < self.slots.len() && (looked < LOOKS || best.is_none()) {
            let from = self.hand;
            let end = (from + LOOKS).min(self.slots.len());
            self.hand = if end == self.slots.len() { 0 } else { end };
            looked += end - from;
            for (at, slot) in (from..).zip(&self.slots[from..end]) {
                let left = slot.counts_for(now);
                let is_less = best.is_none_or(|(_, least)| left < least);
                if !is_less || slot.is_free() || slot.key == but {
                    continue;
                }
                best = Some((at, left));
                if left == 0 {
                    (self.hand, looked) = (at, self.slots.len());
                    break;
                }
            }
        }
        let (at, left) = best?;
        self.remove(at);
        Some(left > 0)
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 >= self.slots.len() { 0 } else { at + 1 }
    }

    /// Where a key belongs: its share of the whole range is its share of the places.
    fn home(&self, key: Key) -> usize {
        let place = (u128::from(key.0) * self.slots.len() as u128) >> 64;
        usize::try_from(place).unwrap_or_default()
    }

    /// The place of a key, or the free one where it would stand.
    fn find(&self, key: Key) -> usize {
        let mut at = self.home(key);
        while !self.slots[at].is_free() && self.slots[at].key != key {
            at = self.after(at);
        }
        at
    }

    fn add(&mut self, slot: Slot) {
        let at = self.find(slot.key);
        self.slots[at] = slot;
        self.length += 1;
    }

    /// Makes room for half as many again as there are that count, and leaves the others behind.
    fn rebuild(&mut self, now: Moment) {
        let old = std::mem::take(&mut self.slots);
        let live = || old.iter().filter(|slot| !slot.is_free() && slot.counts_for(now) > 0);
        let places = (live().count() * 3 / 2).max(FEWEST);
        self.slots = vec![Slot::default(); places].into();
        (self.length, self.hand) = (0, 0);
        live().for_each(|slot| self.add(*slot));
    }

    /// Frees a place, and moves those up that stand behind it because it was taken.
    fn remove(&mut self, mut hole: usize) {
        let places = self.slots.len();
        let distance = |from: usize, to: usize| (to + places - from) % places;
        let mut at = self.after(hole);
        while !self.slots[at].is_free() {
            let home = self.home(self.slots[at].key);
            if distance(home, at) >= distance(hole, at) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.slots[hole] = Slot::default();
        self.length -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const NOW: Moment = Moment { steady: 1_000, wall: 1_000 };

    const NOTHING: Kept = Kept::rate(0, 0);

    /// What counts for so many nanoseconds more.
    fn more(time: u64) -> Kept {
        Kept::rate(NOW.steady + time, 7)
    }

    fn key(n: u64) -> Key {
        Key::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), false)
    }

    proptest! {
        /// It holds what a map would hold, whatever comes and goes, also where everything collides.
        #[test]
        fn a_table_is_a_map(steps in prop::collection::vec((0_u64..60, 1_u64..4, any::<bool>()), 0..400), near: bool) {
            let name = |n: u64| if near { Key::new(u64::MAX - 4 * n, false) } else { key(n) };
            let mut table = Table::default();
            let mut model: HashMap<u64, Kept> = HashMap::new();
            for (n, kept, evict) in steps {
                if evict {
                    let before = table.len();
                    let gone = table.evict(name(n), NOW);
                    model.retain(|other, _| table.get(name(*other)) != NOTHING);
                    prop_assert_eq!(model.len(), before - usize::from(gone.is_some()));
                    prop_assert!(gone != Some(false), "all of them count");
                } else {
                    table.set(name(n), more(kept), NOW);
                    model.insert(n, more(kept));
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert!(table.len() * 5 <= table.places() * 4);
                for n in 0..60 {
                    prop_assert_eq!(table.get(name(n)), model.get(&n).copied().unwrap_or_default());
                }
            }
        }
    }

    #[test]
    fn what_counts_no_more_goes_first_and_then_what_counts_least() {
        let mut table = Table::default();
        for n in 1..=20 {
            table.set(key(n), more(100 + n), NOW);
        }
        table.set(key(50), more(0), NOW);
        assert_eq!(table.evict(Key::default(), NOW), Some(false));
        assert_eq!((table.get(key(50)), table.len()), (NOTHING, 20));
        assert_eq!(table.evict(key(1), NOW), Some(true));
        assert_eq!((table.get(key(1)), table.get(key(2))), (more(101), NOTHING), "all but one that is in use");
        let mut one = Table::default();
        assert_eq!(one.evict(key(1), NOW), None);
        one.set(key(1), Kept::rate(1, 7), NOW);
        assert_eq!(one.evict(key(1), NOW), None);
    }

    #[test]
    fn windows_count_to_their_end() {
        let mut table = Table::default();
        table.set(Key::new(1 << 40, true), Kept::window(1_001, 7), NOW);
        table.set(Key::new(2 << 40, true), Kept::window(1_000, 7), NOW);
        assert_eq!(table.evict(Key::default(), NOW), Some(false));
        assert_eq!(table.evict(Key::default(), NOW), Some(true));
    }

    #[test]
    fn memory_follows_what_counts() {
        let mut table = Table::default();
        for n in 0..10_000 {
            table.set(key(n), more(10), NOW);
        }
        assert!(table.places() <= 20_000, "{}", table.places());
        let later = Moment { steady: NOW.steady + 10, ..NOW };
        for n in 20_000..40_000 {
            table.set(key(n), more(10 + n % 2), later);
        }
        assert!(table.len() <= 20_000 && table.places() <= 24_000, "{} {}", table.len(), table.places());
    }
}
