//! What is counted of answers: failures in a row, and the last while.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::window::{Counts, Window};

/// What is counted of answers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    row: AtomicU32,
    window: Window,
}

/// A success that has been counted, as long as its answer goes on: should that break off, the success is taken back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Success {
    at: Instant,
    slow: bool,
    /// The failures in a row that it has ended.
    row: u32,
}

impl Success {
    /// Whether it was slow.
    pub(super) fn is_slow(&self) -> bool {
        self.slow
    }
}

impl Tally {
    /// Counts a success, in a window of this length if there is one.
    pub(super) fn succeeded(&self, window: Option<Duration>, now: Instant, slow: bool) -> Success {
        self.add(window, now, (false, slow));
        let ends_one = self.row.load(Ordering::Relaxed) != 0;
        Success { at: now, slow, row: if ends_one { self.row.swap(0, Ordering::Relaxed) } else { 0 } }
    }

    /// Counts a failure; how many came in a row.
    pub(super) fn failed(&self, window: Option<Duration>, now: Instant, slow: bool) -> u32 {
        self.add(window, now, (true, slow));
        self.row.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Takes a success back. The row that it ended goes on, unless that was too long ago: more than `recent`.
    pub(super) fn take_back(&self, success: Success, window: Option<Duration>, now: Instant, recent: Duration) {
        if let Some(length) = window {
            self.window.remove(length, success.at, success.slow);
        }
        if now.saturating_duration_since(success.at) <= recent {
            self.row.fetch_add(success.row, Ordering::Relaxed);
        }
    }

    /// What came within the window.
    pub(super) fn counts(&self, window: Duration, now: Instant) -> Counts {
        self.window.counts(window, now)
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.row.store(0, Ordering::Relaxed);
        self.window.clear();
    }

    fn add(&self, window: Option<Duration>, now: Instant, (failed, slow): (bool, bool)) {
        if let Some(length) = window {
            self.window.add(length, now, failed, slow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn a_success_that_is_taken_back_was_none() {
        let (tally, now) = (Tally::default(), Instant::now());
        assert_eq!(tally.failed(Some(WINDOW), now, false), 1);
        // One after another, and all at once.
        for expected in 2..5 {
            let success = tally.succeeded(Some(WINDOW), now, true);
            tally.take_back(success, Some(WINDOW), now, WINDOW);
            assert_eq!(tally.failed(Some(WINDOW), now, true), expected);
        }
        let four = [(); 4].map(|()| tally.succeeded(Some(WINDOW), now, false));
        for (success, expected) in four.into_iter().zip(5..9) {
            tally.take_back(success, Some(WINDOW), now, WINDOW);
            assert_eq!(tally.failed(Some(WINDOW), now, false), expected);
        }
        assert_eq!(tally.counts(WINDOW, now), Counts { all: 8, failed: 8, slow: 3 });
    }

    #[test]
    fn one_that_stands_ends_the_row() {
        let (tally, now) = (Tally::default(), Instant::now());
        tally.failed(None, now, false);
        tally.failed(None, now, false);
        let broken = tally.succeeded(None, now, false);
        tally.succeeded(None, now, false);
        tally.take_back(broken, None, now, WINDOW);
        // Two, and then this one; the success in between belongs to nobody's row.
        assert_eq!(tally.failed(None, now, false), 3);
        tally.succeeded(None, now, false);
        let old = tally.succeeded(None, now, false);
        tally.failed(None, now, false);
        let later = now + WINDOW + Duration::from_millis(1);
        tally.take_back(old, None, later, WINDOW);
        assert_eq!(tally.failed(None, later, false), 2);
        let kept = tally.succeeded(None, now, false);
        tally.take_back(kept, None, later, WINDOW);
        assert_eq!(tally.failed(None, later, false), 1, "a row of long ago does not go on");
    }
}
