//! A limit in the store that gateways share: what its script is told, and what its answers mean. They are described in
//! `shared.lua`.

use super::{Limit, Period, SECOND, Shape, Standing};

/// Numbers that the script is told of each limit, and that it answers with.
pub(crate) const ASKED: usize = 7;
pub(crate) const TOLD: usize = 3;

/// Longest time in nanoseconds that a rate may hold: twice this is a whole number in Lua.
const FINE: u64 = 1 << 52;
/// Nanoseconds in a microsecond.
const MICRO: u64 = 1_000;

/// What the script shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Refuse the request where nothing is left.
    Enforce = 0,
    /// Use what is left, and refuse nobody.
    Shadow = 1,
    /// Use units, whatever is left.
    Owe = 2,
}

/// A limit in the script's units.
struct Units {
    /// Units in a microsecond, for a rate.
    scale: u64,
    /// Time that one costs, for a rate; else 1.
    each: u64,
    room: u64,
    most: u64,
}

impl Limit {
    fn units(&self) -> Units {
        match self.shape {
            Shape::Rate { interval, room, debt } if room + debt <= FINE => {
                Units { scale: MICRO, each: interval, room, most: room + debt }
            }
            // Hundreds of days of room: then a unit takes milliseconds at least, and a microsecond is fine enough.
            Shape::Rate { interval, room, debt } => {
                let each = interval.div_ceil(MICRO);
                let of = |time: u64| time / interval * each;
                Units { scale: 1, each, room: of(room), most: of(room + debt) }
            }
            Shape::Window { debt } => {
                let quota = self.quota.into();
                Units { scale: 0, each: 1, room: quota, most: quota + u64::from(debt) }
            }
        }
    }

    /// What the script is told, to use `cost` units.
    pub(crate) fn asked(&self, cost: u32, how: How) -> [u64; ASKED] {
        let Units { scale, each, room, most } = self.units();
        let length = match (self.shape, self.period) {
            (Shape::Window { .. }, Period::Seconds(seconds)) => seconds.into(),
            _ => 0,
        };
        // What is more than can ever be used is no exact number in Lua, and need not be.
        let of = |units: u32| u64::from(units).saturating_mul(each).min(most + 1);
        [how as u64, scale, length, room, most, of(cost.max(1)), of(cost)]
    }

    /// What an answer means: how long to wait in nanoseconds, what is used, and what is left. `None` if it makes no sense.
    pub(crate) fn told(&self, answer: &[i64]) -> Option<(Option<u64>, u64, Standing)> {
        let [wait, used, ends] = answer else { return None };
        let wait = if *wait < 0 { None } else { Some(u64::try_from(*wait).ok()?.saturating_mul(self.nanos())) };
        let (used, ends) = (u64::try_from(*used).ok()?, u64::try_from(*ends).ok()?);
        Some((wait, used, self.left(used, ends)))
    }

    /// What is used and left once `cost` more is used, whether or not it was left.
    pub(crate) fn owed(&self, used: u64, cost: u32, before: Standing) -> (u64, Standing) {
        let Units { each, most, .. } = self.units();
        let used = used.saturating_add(u64::from(cost).saturating_mul(each)).min(most);
        (used, self.left(used, before.reset))
    }

    /// Nanoseconds in the unit that the script measures waiting in.
    fn nanos(&self) -> u64 {
        match self.units().scale {
            0 => MICRO,
            scale => MICRO / scale,
        }
    }

    fn left(&self, used: u64, ends: u64) -> Standing {
        let Units { scale, each, room, .. } = self.units();
        let remaining = u32::try_from(room.saturating_sub(used) / each).unwrap_or(u32::MAX);
        let reset = if scale == 0 { ends } else { used.saturating_mul(self.nanos()).div_ceil(SECOND) };
        Standing { remaining, reset }
    }
}
