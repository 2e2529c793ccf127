//! What came of the requests of the last while, counted without a lock and in little memory.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Pieces of a window: the oldest is forgotten as a whole.
const PIECES: usize = 10;
/// Bits of a count, and the largest one. When a piece is full its counts are halved, which keeps their ratios.
const BITS: u32 = 14;
const FULL: u64 = (1 << BITS) - 1;
/// The number of a piece, as far as it is kept: it comes round after 4 million pieces.
const STAMP: u64 = (1 << (64 - 3 * BITS)) - 1;

/// Milliseconds on a clock that nobody sets, never 0.
pub(super) fn millis(at: Instant) -> u64 {
    /// A little before the first question: what is asked about may have been read before.
    static BEGINNING: LazyLock<Instant> =
        LazyLock::new(|| Instant::now().checked_sub(Duration::from_mins(1)).unwrap_or_else(Instant::now));
    let beginning = *BEGINNING;
    u64::try_from(at.saturating_duration_since(beginning).as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// Whole milliseconds, at least one.
pub(super) fn length(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Counts of the last while. Each piece is one word: which piece it is, and how many came, failed, and were slow.
#[derive(Debug, Default)]
pub(super) struct Window([AtomicU64; PIECES]);

/// How many came, and what became of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) all: u64,
    pub(super) failed: u64,
    pub(super) slow: u64,
}

impl Counts {
    /// Whether at least this share of at least so many has failed.
    pub(super) fn failed_by(&self, ratio: f64, min: u32) -> bool {
        self.is_by(self.failed, ratio, min)
    }

    /// Whether at least this share of at least so many was slow.
    pub(super) fn slow_by(&self, ratio: f64, min: u32) -> bool {
        self.is_by(self.slow, ratio, min)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a window are far below 2^52")]
    fn is_by(&self, part: u64, ratio: f64, min: u32) -> bool {
        part > 0 && self.all >= u64::from(min) && part as f64 >= ratio * self.all as f64
    }
}

impl Window {
    /// Counts one that came now; `window` is the length of the whole.
    pub(super) fn add(&self, window: Duration, now: Instant, failed: bool, slow: bool) {
        let (stamp, at) = place(window, now);
        let Some(piece) = self.0.get(at) else { return };
        let counted = |word: u64| {
            let (kept, counts) = parts(word);
            let mut counts = if kept == stamp { counts } else { Counts::default() };
            if counts.all == FULL {
                counts = Counts { all: counts.all / 2, failed: counts.failed / 2, slow: counts.slow / 2 };
            }
            counts.all += 1;
            counts.failed += u64::from(failed);
            counts.slow += u64::from(slow);
            Some(word_of(stamp, counts))
        };
        let _ = piece.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }

    /// Takes one back that came then and did not fail, if its piece is still there.
    pub(super) fn remove(&self, window: Duration, then: Instant, slow: bool) {
        let (stamp, at) = place(window, then);
        let Some(piece) = self.0.get(at) else { return };
        let uncounted = |word: u64| {
            let (kept, mut counts) = parts(word);
            // Where the counts were halved meanwhile, failures are not to become more than there are.
            let is_there = kept == stamp && counts.all > counts.failed.max(counts.slow.saturating_sub(u64::from(slow)));
            counts.all = counts.all.saturating_sub(1);
            counts.slow = counts.slow.saturating_sub(u64::from(slow));
            is_there.then(|| word_of(stamp, counts))
        };
        let _ = piece.fetch_update(Ordering::Relaxed, Ordering::Relaxed, uncounted);
    }

    /// What came within the window.
    pub(super) fn counts(&self, window: Duration, now: Instant) -> Counts {
        let (stamp, _) = place(window, now);
        let mut sum = Counts::default();
        for piece in &self.0 {
            let (kept, counts) = parts(piece.load(Ordering::Relaxed));
            // Those of the future are of a clock that was read earlier than another one.
            if stamp.wrapping_sub(kept) & STAMP < PIECES as u64 || kept == (stamp + 1) & STAMP {
                sum.all += counts.all;
                sum.failed += counts.failed;
                sum.slow += counts.slow;
            }
        }
        sum
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for piece in &self.0 {
            piece.store(0, Ordering::Relaxed);
        }
    }
}

/// The number of the piece that it is now, as far as it is kept, and where it stands.
fn place(window: Duration, now: Instant) -> (u64, usize) {
    let number = millis(now) / (length(window) / PIECES as u64).max(1);
    (number & STAMP, usize::try_from(number % PIECES as u64).unwrap_or_default())
}

fn word_of(stamp: u64, counts: Counts) -> u64 {
    stamp << (3 * BITS) | counts.all << (2 * BITS) | counts.failed << BITS | counts.slow
}

fn parts(word: u64) -> (u64, Counts) {
    let counts = Counts { all: word >> (2 * BITS) & FULL, failed: word >> BITS & FULL, slow: word & FULL };
    (word >> (3 * BITS), counts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_old_is_forgotten() {
        let (window, began) = (Window::default(), Instant::now());
        for at in 0..10 {
            window.add(WINDOW, began + Duration::from_secs(at), at % 2 == 0, at == 9);
        }
        let at = |secs| window.counts(WINDOW, began + Duration::from_secs(secs));
        assert_eq!(at(9), Counts { all: 10, failed: 5, slow: 1 });
        assert_eq!(at(14).all, 5);
        assert_eq!(at(19), Counts::default());
        window.clear();
        assert_eq!(at(9), Counts::default());
    }

    #[test]
    fn a_full_piece_keeps_its_share() {
        let (window, now) = (Window::default(), Instant::now());
        for at in 0..100_000 {
            window.add(WINDOW, now, at % 4 == 0, false);
        }
        let counts = window.counts(WINDOW, now);
        assert!((5000..=FULL).contains(&counts.all), "{counts:?}");
        assert!(counts.failed_by(0.24, 5000) && !counts.failed_by(0.26, 5000), "{counts:?}");
    }

    #[test]
    fn a_share_needs_enough_of_them() {
        let counts = Counts { all: 10, failed: 5, slow: 0 };
        assert!(counts.failed_by(0.5, 10) && !counts.failed_by(0.5, 11) && !counts.failed_by(0.51, 10));
        assert!(!counts.slow_by(0.001, 1));
    }

    proptest! {
        #[test]
        fn never_more_than_came(steps in prop::collection::vec((0_u64..30_000, any::<bool>()), 1..200)) {
            let (window, mut now) = (Window::default(), Instant::now());
            let mut came: Vec<(Instant, bool)> = Vec::new();
            for (pause, failed) in steps {
                now += Duration::from_millis(pause);
                window.add(WINDOW, now, failed, false);
                came.push((now, failed));
                let within = |back: u64| {
                    let from = |at: &Instant| now.saturating_duration_since(*at) < Duration::from_millis(back);
                    came.iter().filter(|(at, _)| from(at)).count() as u64
                };
                let counts = window.counts(WINDOW, now);
                // A piece more or less: they are forgotten as a whole.
                prop_assert!(counts.all <= within(10_001) && counts.all >= within(9_000), "{counts:?}");
                prop_assert!(counts.failed <= counts.all);
            }
        }
    }
}
