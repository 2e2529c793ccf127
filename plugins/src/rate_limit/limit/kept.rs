//! What is kept for each key.

use super::{Moment, SECOND};

/// What somebody has used; the default stands for a key that was never met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Kept {
    /// Of a rate, the time at which nothing would count any more, in nanoseconds of the steady clock. Of a window, its end in
    /// seconds after the epoch, and what was used in it, 32 bits each.
    count: u64,
    /// Of a rate, the time in which a unit comes back, in nanoseconds.
    each: u64,
}

impl Kept {
    /// Of a rate: when nothing counts any more, and the time that a unit takes.
    pub(crate) const fn rate(until: u64, each: u64) -> Self {
        Self { count: until, each }
    }

    /// Of a window: its end, and what was used in it.
    pub(crate) fn window(end: u32, used: u32) -> Self {
        Self { count: u64::from(end) << 32 | u64::from(used), each: 0 }
    }

    /// The time until everything is back, and the time that a unit takes; `interval`, where that does not matter.
    pub(super) fn of_rate(self, now: Moment, interval: u64) -> (u64, u64) {
        match self.count.saturating_sub(now.steady) {
            0 => (0, interval),
            used => (used, if self.each == 0 { interval } else { self.each }),
        }
    }

    /// The end of the window, and what was used in it.
    pub(super) fn of_window(self) -> (u32, u32) {
        let low = u32::try_from(self.count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        (u32::try_from(self.count >> 32).unwrap_or(u32::MAX), low)
    }

    /// The same without `cost` units that were used when `taken` was kept.
    pub(super) fn without(self, cost: u32, taken: Self, is_window: bool) -> Self {
        if !is_window {
            let time = u64::from(cost).saturating_mul(self.each);
            return Self { count: self.count.saturating_sub(time), ..self };
        }
        let ((end, used), (taken_in, _)) = (self.of_window(), taken.of_window());
        if end == taken_in { Self::window(end, used.saturating_sub(cost)) } else { self }
    }

    /// Nanoseconds until it counts no more and can be forgotten without loss.
    pub(crate) fn counts_for(self, is_window: bool, now: Moment) -> u64 {
        if is_window {
            u64::from(self.of_window().0).saturating_sub(now.wall).saturating_mul(SECOND)
        } else {
            self.count.saturating_sub(now.steady)
        }
    }
}
