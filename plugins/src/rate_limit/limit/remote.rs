//! A limit in the store that gateways share: what its script is told, and what its answers mean. They are described in
//! `shared.lua`.

use super::{Limit, Period, Rate, SECOND, Shape, Standing};

/// Numbers that the script is told of each limit, and that it answers with.
pub(crate) const ASKED: usize = 8;
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

/// A limit in the script's units of time.
struct Units {
    /// Units of time in a microsecond, for a rate.
    scale: u64,
    /// Time that a unit costs, for a rate; else 1.
    each: u64,
    /// What can be used at once, and most that can be used and owed.
    burst: u64,
    most: u64,
    /// The shortest time that a unit costs of all limits that share keys, and the largest `most`.
    fastest: u64,
    bound: u64,
}

impl Units {
    fn of_rate(rate: Rate) -> Self {
        let Rate { interval, burst, most, fastest, bound } = rate;
        if most * interval <= FINE {
            return Self { scale: MICRO, each: interval, burst, most, fastest, bound };
        }
        // Hundreds of days of room: then a unit takes milliseconds at least, and a microsecond is fine enough.
        let each = interval.div_ceil(MICRO);
        let fastest = if fastest == interval { each } else { fastest / MICRO };
        Self { scale: 1, each, burst, most, fastest, bound }
    }
}

impl Limit {
    fn units(&self) -> Units {
        match self.shape {
            Shape::Rate(rate) => Units::of_rate(rate),
            Shape::Window { debt } => {
                let burst = self.quota.into();
                Units { scale: 0, each: 1, burst, most: burst + u64::from(debt), fastest: 0, bound: 0 }
            }
        }
    }

    /// What the script is told, to use `cost` units.
    pub(crate) fn asked(&self, cost: u32, how: How) -> [u64; ASKED] {
        let Units { scale, each, burst, most, fastest, bound } = self.units();
        let time = match (self.shape, self.period) {
            (Shape::Rate(_), _) => each,
            (Shape::Window { .. }, Period::Seconds(seconds)) => seconds.into(),
            (Shape::Window { .. }, Period::Month) => 0,
        };
        // What is more than can ever be used is no exact number in Lua, and need not be.
        [how as u64, scale, time, burst, most, u64::from(cost).min(most + 1), fastest, bound]
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
        let more = used.saturating_add(u64::from(cost).saturating_mul(each));
        let used = more.min(most * each).max(used);
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
        let Units { scale, each, burst, .. } = self.units();
        let remaining = u32::try_from((burst * each).saturating_sub(used) / each).unwrap_or(u32::MAX);
        let reset = if scale == 0 { ends } else { used.saturating_mul(self.nanos()).div_ceil(SECOND) };
        Standing { remaining, reset }
    }
}
