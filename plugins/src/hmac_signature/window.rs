//! Signatures that have been seen.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Most signatures that are remembered at a time; so many take about 10 MiB.
const MAX: usize = 200_000;

/// The signatures of one secret that have been seen in a span of time. It outlives a reload.
#[derive(Default)]
pub(super) struct Window(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    known: HashSet<[u8; 16]>,
    /// The same in their order, with the time after the epoch when each is forgotten.
    order: VecDeque<(Duration, [u8; 16])>,
}

/// What a signature is to a window.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Novelty {
    /// It was not seen before, and is known from now on.
    New,
    /// It was seen before.
    Seen,
    /// There is no room to remember it.
    Full,
}

impl Window {
    /// Notes a signature that was right, for so long.
    pub(super) fn note(&self, signature: &[u8], now: Duration, keep: Duration) -> Novelty {
        self.note_within(signature, now, keep, MAX)
    }

    fn note_within(&self, signature: &[u8], now: Duration, keep: Duration, max: usize) -> Novelty {
        // The first half of a signature tells it from all others.
        let mut short = [0; 16];
        let Some(half) = signature.get(..16) else { return Novelty::Full };
        short.copy_from_slice(half);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { known, order } = &mut *seen;
        while let Some((_, old)) = order.pop_front_if(|(until, _)| *until <= now) {
            known.remove(&old);
        }
        if known.contains(&short) {
            return Novelty::Seen;
        }
        if known.len() >= max {
            return Novelty::Full;
        }
        known.insert(short);
        order.push_back((now + keep, short));
        Novelty::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_new_once_in_its_time_and_memory_is_bounded() {
        let window = Window::default();
        let at = Duration::from_secs;
        let note = |n: u8, now| window.note_within(&[n; 32], at(now), at(10), 2);
        assert_eq!(note(1, 100), Novelty::New);
        assert_eq!(note(1, 109), Novelty::Seen);
        assert_eq!(note(2, 109), Novelty::New);
        assert_eq!(note(3, 109), Novelty::Full);
        assert_eq!(note(1, 110), Novelty::New, "its time is over");
        assert_eq!(note(2, 118), Novelty::Seen);
        assert_eq!(note(3, 130), Novelty::New);
        assert_eq!(window.0.lock().unwrap().order.len(), 1);
        assert_eq!(window.note(b"short", at(0), at(1)), Novelty::Full);
    }
}
