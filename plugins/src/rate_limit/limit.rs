//! What a limit makes of the number that is kept for each key.
//!
//! That number is 64 bits. For a rate (GCRA, the generic cell rate algorithm of ATM's traffic control, ITU-T I.371) it is
//! the time at which nothing would count any more, in nanoseconds of the steady clock. For a window it is the window's end,
//! in seconds after the epoch, and what has been used in it, 32 bits each. Zero stands for a key that was never met.

use super::period::Period;

mod remote;

pub(super) use remote::{ASKED, How, TOLD};

const SECOND: u64 = 1_000_000_000;
/// Longest time in which a rate is full again, in nanoseconds.
const LONGEST: u64 = 366 * 24 * 60 * 60 * SECOND;
/// Most units a second. An interval of at least a microsecond is exact to a thousandth.
const MOST_PER_SECOND: u32 = 1_000_000;
/// Most units in a window, and largest debt: both together fit into 32 bits.
pub(super) const MOST: u32 = 1_000_000_000;

/// When something is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Nanoseconds of a clock that is never set.
    pub(super) steady: u64,
    /// Seconds after the epoch.
    pub(super) wall: u64,
}

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Evenly: a unit comes back in each interval. All in nanoseconds.
    Rate { interval: u64, room: u64, debt: u64 },
    /// In windows of the calendar; the debt is in units.
    Window { debt: u32 },
}

/// So many units in such a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    quota: u32,
    period: Period,
    shape: Shape,
}

/// What is left to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// Units that could be used at once.
    pub(super) remaining: u32,
    /// Seconds until everything can be used again, rounded up.
    pub(super) reset: u64,
}

/// What a limit cannot be, as the rest of a sentence.
type Wrong = String;

impl Limit {
    /// Units that come back evenly, `quota` in each period, of which `burst` can be used at once. At most `debt` units may be
    /// owed beyond that.
    pub(super) fn rate(quota: u32, period: Period, burst: u32, debt: u32) -> Result<Self, Wrong> {
        let seconds = period.seconds();
        if quota == 0 || burst == 0 {
            return Err("must be at least 1".into());
        }
        if u64::from(quota) > u64::from(MOST_PER_SECOND) * u64::from(seconds) {
            return Err(format!("is more than {MOST_PER_SECOND} a second"));
        }
        // Rounded up, so that never more is let through than the limit says.
        let interval = (u64::from(seconds) * SECOND).div_ceil(u64::from(quota));
        let bounded = |units: u32| u64::from(units).checked_mul(interval).filter(|time| *time <= LONGEST);
        let (Some(room), Some(debt)) = (bounded(burst), bounded(debt)) else {
            return Err("is more than can come back in a year".into());
        };
        Ok(Self { quota, period, shape: Shape::Rate { interval, room, debt } })
    }

    /// `quota` units in each window of the calendar, in UTC. At most `debt` units may be owed beyond that.
    pub(super) fn window(quota: u32, period: Period, debt: u32) -> Result<Self, Wrong> {
        if quota == 0 {
            return Err("must be at least 1".into());
        }
        if quota > MOST || debt > MOST {
            return Err(format!("is more than {MOST}"));
        }
        Ok(Self { quota, period, shape: Shape::Window { debt } })
    }

    /// Units in each period.
    pub(super) fn quota(&self) -> u32 {
        self.quota
    }

    /// Whether it counts in windows.
    pub(super) fn is_window(&self) -> bool {
        matches!(self.shape, Shape::Window { .. })
    }

    /// Length of the period around this moment, in seconds.
    pub(super) fn period(&self, now: Moment) -> u64 {
        match self.period {
            Period::Seconds(seconds) => seconds.into(),
            Period::Month => {
                let (start, end) = self.period.window(now.wall);
                end - start
            }
        }
    }

    /// What is kept after `cost` units are used, or how long to wait until they can be, in nanoseconds. A cost of zero needs
    /// something to be left.
    pub(super) fn take(&self, kept: u64, cost: u32, now: Moment) -> Result<u64, u64> {
        let needed = cost.max(1);
        match self.shape {
            Shape::Rate { interval, room, debt } => {
                let from = steady(kept, room + debt, now);
                let full = now.steady + room;
                let until = from.saturating_add(u64::from(needed).saturating_mul(interval));
                match until.checked_sub(full) {
                    None | Some(0) => Ok(from + u64::from(cost) * interval),
                    Some(wait) => Err(wait),
                }
            }
            Shape::Window { .. } => {
                let (end, used) = self.current(kept, now);
                match used.checked_add(needed) {
                    Some(sum) if sum <= self.quota => Ok(packed(end, used + cost)),
                    _ => Err(u64::from(end).saturating_sub(now.wall).saturating_mul(SECOND)),
                }
            }
        }
    }

    /// What is kept after `cost` units are used, whether or not they were left; no deeper than the debt may be.
    pub(super) fn owe(&self, kept: u64, cost: u32, now: Moment) -> u64 {
        match self.shape {
            Shape::Rate { interval, room, debt } => {
                let more = u64::from(cost).saturating_mul(interval);
                steady(kept, room + debt, now).saturating_add(more).min(now.steady + room + debt)
            }
            Shape::Window { debt } => {
                let (end, used) = self.current(kept, now);
                packed(end, used.saturating_add(cost).min(self.quota + debt))
            }
        }
    }

    /// What is kept after `cost` units are given back that were taken when `taken` was kept.
    pub(super) fn give_back(&self, kept: u64, cost: u32, taken: u64) -> u64 {
        match self.shape {
            Shape::Rate { interval, .. } => kept.saturating_sub(u64::from(cost).saturating_mul(interval)),
            Shape::Window { .. } => {
                let ((end, used), (taken_in, _)) = (unpacked(kept), unpacked(taken));
                if end == taken_in { packed(end, used.saturating_sub(cost)) } else { kept }
            }
        }
    }

    /// What is left.
    pub(super) fn standing(&self, kept: u64, now: Moment) -> Standing {
        match self.shape {
            Shape::Rate { interval, room, debt } => {
                let from = steady(kept, room + debt, now);
                let left = (now.steady + room).saturating_sub(from) / interval;
                let remaining = u32::try_from(left).unwrap_or(u32::MAX);
                Standing { remaining, reset: (from - now.steady).div_ceil(SECOND) }
            }
            Shape::Window { .. } => {
                let (end, used) = self.current(kept, now);
                let reset = u64::from(end).saturating_sub(now.wall);
                Standing { remaining: self.quota.saturating_sub(used), reset }
            }
        }
    }

    /// The window that counts, by its end, and what was used in it.
    fn current(&self, kept: u64, now: Moment) -> (u32, u32) {
        let (_, end) = self.period.window(now.wall);
        let end = u32::try_from(end).unwrap_or(u32::MAX);
        let (kept_end, used) = unpacked(kept);
        // A clock that was set back a little does not open a window again; one that was set back far does not keep it shut.
        let is_current = kept_end == end || (kept_end > end && kept_end - end <= self.period.seconds());
        if is_current { (kept_end, used) } else { (end, 0) }
    }
}

/// What is kept for a rate, within what this rate can keep: after a change of the limit it may be too much.
fn steady(kept: u64, most: u64, now: Moment) -> u64 {
    kept.clamp(now.steady, now.steady + most)
}

fn packed(end: u32, used: u32) -> u64 {
    u64::from(end) << 32 | u64::from(used)
}

fn unpacked(kept: u64) -> (u32, u32) {
    (u32::try_from(kept >> 32).unwrap_or(u32::MAX), u32::try_from(kept & u64::from(u32::MAX)).unwrap_or(u32::MAX))
}

/// Nanoseconds until what is kept counts no more and can be forgotten without loss.
pub(super) fn counts_for(kept: u64, is_window: bool, now: Moment) -> u64 {
    if is_window {
        u64::from(unpacked(kept).0).saturating_sub(now.wall).saturating_mul(SECOND)
    } else {
        kept.saturating_sub(now.steady)
    }
}

#[cfg(test)]
mod tests;
