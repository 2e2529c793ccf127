//! What a limit makes of what is kept for each key.
//!
//! A rate is GCRA (the generic cell rate algorithm of ATM's traffic control, ITU-T I.371). How many units have been used is
//! kept as the time until they are back, and so that time alone would mean something else whenever the limit changes. Beside
//! it stands how long one unit takes: with that, another limit finds the same units used, and from then on they come back as
//! it says. The limits of groups, too, meet what others have kept.

use super::period::Period;

mod kept;
mod remote;

pub(super) use kept::Kept;
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
    /// Evenly: a unit comes back in each interval.
    Rate(Rate),
    /// In windows of the calendar; the debt is in units.
    Window { debt: u32 },
}

/// An even rate. Times are in nanoseconds; any of these units takes at most [`LONGEST`] in its limit's interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    interval: u64,
    /// Units that can be used at once, and most that can be used and owed.
    burst: u64,
    most: u64,
    /// The shortest interval and the largest `most` of all limits that this one shares keys with.
    fastest: u64,
    bound: u64,
}

impl Rate {
    /// What was used, as the time until it is back, and the time that a unit of it takes. What was kept by a limit that holds
    /// no more, or by one of a slower group, comes back as fast as this limit says. Neither is ever more than the limits can
    /// lead to.
    fn used(&self, kept: Kept, now: Moment) -> (u64, u64) {
        let (used, was) = kept.of_rate(now, self.interval);
        let each = was.min(self.interval).max(self.fastest);
        (scaled(used, was, each).min(self.bound.saturating_mul(each)), each)
    }

    /// The same time, in units of this limit's interval.
    fn own(&self, (used, each): (u64, u64)) -> u64 {
        scaled(used, each, self.interval)
    }

    fn kept(&self, used: u64, now: Moment) -> Kept {
        Kept::rate(now.steady + used, self.interval)
    }

    fn take(&self, kept: Kept, cost: u32, now: Moment) -> Result<Kept, u64> {
        let (used, each) = self.used(kept, now);
        let until = used.saturating_add(u64::from(cost.max(1)).saturating_mul(each));
        match until.checked_sub(self.burst * each) {
            None | Some(0) => Ok(self.kept(self.own((used, each)) + u64::from(cost) * self.interval, now)),
            Some(wait) => Err(wait),
        }
    }

    fn owe(&self, kept: Kept, cost: u32, now: Moment) -> Kept {
        let (used, most) = (self.own(self.used(kept, now)), self.most * self.interval);
        if used >= most {
            return kept;
        }
        self.kept(used.saturating_add(u64::from(cost).saturating_mul(self.interval)).min(most), now)
    }

    fn standing(&self, kept: Kept, now: Moment) -> Standing {
        let (used, each) = self.used(kept, now);
        let left = (self.burst * each).saturating_sub(used) / each;
        Standing { remaining: u32::try_from(left).unwrap_or(u32::MAX), reset: used.div_ceil(SECOND) }
    }
}

/// As many units in another interval; rounded up.
fn scaled(time: u64, from: u64, to: u64) -> u64 {
    if from == to {
        return time;
    }
    let time = (u128::from(time) * u128::from(to)).div_ceil(u128::from(from));
    u64::try_from(time).unwrap_or(u64::MAX)
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
        let fits = |units: u32| u64::from(units).checked_mul(interval).is_some_and(|time| time <= LONGEST);
        if !fits(burst) || !fits(debt) {
            return Err("is more than can come back in a year".into());
        }
        let (burst, most) = (u64::from(burst), u64::from(burst) + u64::from(debt));
        let rate = Rate { interval, burst, most, fastest: interval, bound: most };
        Ok(Self { quota, period, shape: Shape::Rate(rate) })
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

    /// The same, where keys of this limit may also be met by these others.
    pub(super) fn among(mut self, others: &[Self]) -> Self {
        if let Shape::Rate(own) = &mut self.shape {
            for other in others {
                let Shape::Rate(other) = other.shape else { continue };
                (own.fastest, own.bound) = (own.fastest.min(other.interval), own.bound.max(other.most));
            }
        }
        self
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

    /// What is kept, as this limit sees it: other than it stands in the store only where it was kept by limits that hold no
    /// more, or where it is too much.
    pub(super) fn fresh(&self, kept: Kept, now: Moment) -> Kept {
        let Shape::Rate(rate) = self.shape else { return kept };
        match rate.used(kept, now) {
            (0, _) => kept,
            (used, each) => Kept::rate(now.steady + used, each),
        }
    }

    /// What is kept after `cost` units are used, or how long to wait until they can be, in nanoseconds. A cost of zero needs
    /// something to be left.
    pub(super) fn take(&self, kept: Kept, cost: u32, now: Moment) -> Result<Kept, u64> {
        if let Shape::Rate(rate) = self.shape {
            return rate.take(kept, cost, now);
        }
        let (end, used) = self.current(kept, now);
        match used.checked_add(cost.max(1)) {
            Some(sum) if sum <= self.quota => Ok(Kept::window(end, used + cost)),
            _ => Err(u64::from(end).saturating_sub(now.wall).saturating_mul(SECOND)),
        }
    }

    /// What is kept after `cost` units are used, whether or not they were left; no deeper than the debt may be.
    pub(super) fn owe(&self, kept: Kept, cost: u32, now: Moment) -> Kept {
        match self.shape {
            Shape::Rate(rate) => rate.owe(kept, cost, now),
            Shape::Window { debt } => {
                let (end, used) = self.current(kept, now);
                Kept::window(end, used.saturating_add(cost).min(self.quota + debt).max(used))
            }
        }
    }

    /// What is kept after `cost` units are given back that were taken when `taken` was kept.
    pub(super) fn give_back(&self, kept: Kept, cost: u32, taken: Kept) -> Kept {
        kept.without(cost, taken, self.is_window())
    }

    /// What is left.
    pub(super) fn standing(&self, kept: Kept, now: Moment) -> Standing {
        if let Shape::Rate(rate) = self.shape {
            return rate.standing(kept, now);
        }
        let (end, used) = self.current(kept, now);
        Standing { remaining: self.quota.saturating_sub(used), reset: u64::from(end).saturating_sub(now.wall) }
    }

    /// The window that counts, by its end, and what was used in it.
    fn current(&self, kept: Kept, now: Moment) -> (u32, u32) {
        let (_, end) = self.period.window(now.wall);
        let end = u32::try_from(end).unwrap_or(u32::MAX);
        let (kept_end, used) = kept.of_window();
        // A clock that was set back a little does not open a window again; one that was set back far does not keep it shut.
        let is_current = kept_end == end || (kept_end > end && kept_end - end <= self.period.seconds());
        if is_current { (kept_end, used) } else { (end, 0) }
    }
}

#[cfg(test)]
mod tests;
