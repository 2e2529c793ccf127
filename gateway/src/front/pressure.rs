//! Memory: how much there is, how much is used, and when new requests are turned away.
//!
//! Nothing here keeps a request that is being served from using memory: that is bounded by the limits on bodies and
//! connections, of which there may be more than memory for. This keeps more of them from coming.

mod memory;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use memory::{Group, own, to_spare};

use crate::{
    config::memory::{MemoryLimits, MemoryMax},
    gateway::Gateway,
};

/// How often memory is looked at: a process may fill some hundred megabytes in between.
const PERIOD: Duration = Duration::from_millis(100);
/// Requests come in again at so many points of `max` less, so that the gateway does not change its mind with each one.
const BACK: u64 = 5;

/// What is known of memory, for whoever has to decide.
#[derive(Debug, Default)]
pub struct Pressure {
    high: AtomicBool,
    used: AtomicU64,
    most: AtomicU64,
}

impl Pressure {
    /// Whether new requests are turned away.
    pub fn is_high(&self) -> bool {
        self.high.load(Ordering::Relaxed)
    }

    /// Bytes used, and bytes that there are; 0 where there is no bound, or it is not known yet.
    pub fn memory(&self) -> (u64, u64) {
        (self.used.load(Ordering::Relaxed), self.most.load(Ordering::Relaxed))
    }

    fn note(&self, limits: MemoryLimits, seen: Option<Seen>) {
        let Seen { used, most } = seen.unwrap_or_default();
        self.used.store(used, Ordering::Relaxed);
        self.most.store(most, Ordering::Relaxed);
        let was = self.is_high();
        let is = is_high(was, u64::from(limits.shed_at.0), Seen { used, most });
        if was == is {
            return;
        }
        self.high.store(is, Ordering::Relaxed);
        if is {
            tracing::warn!(used, most, "too little memory is left; new requests are turned away");
        } else {
            tracing::info!(used, most, "there is enough memory again; requests are let in");
        }
    }
}

/// What was seen at one look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    used: u64,
    most: u64,
}

fn is_high(was: bool, percent: u64, Seen { used, most }: Seen) -> bool {
    let bound = if was { percent.saturating_sub(BACK) } else { percent };
    most > 0 && u128::from(used) * 100 >= u128::from(most) * u128::from(bound)
}

/// Looks at memory from time to time, for as long as there is a gateway.
pub async fn watch(gateway: Weak<Gateway>) {
    let group = Group::find();
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        look(&gateway, group.as_ref());
    }
}

fn look(gateway: &Arc<Gateway>, group: Option<&Group>) {
    let limits = gateway.snapshot.load().loaded.config.limits.memory;
    gateway.pressure.note(limits, seen(limits.max, group));
}

/// `None` where there is no bound, and where the kernel does not say.
fn seen(max: MemoryMax, group: Option<&Group>) -> Option<Seen> {
    let own = own()?;
    match (max, group) {
        (MemoryMax::Off, _) => Some(Seen { used: own, most: 0 }),
        (MemoryMax::Bytes(most), _) => Some(Seen { used: own, most }),
        (MemoryMax::Auto, Some(group)) => Some(Seen { used: own.max(group.used()?), most: group.most }),
        (MemoryMax::Auto, None) => Some(Seen { used: own, most: own.saturating_add(to_spare()?) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::memory::ShedAt;

    fn at(used: u64) -> Seen {
        Seen { used, most: 1000 }
    }

    #[test]
    fn what_was_turned_away_once_is_let_in_later() {
        let (pressure, limits) = (Pressure::default(), MemoryLimits::default());
        let mut told = Vec::new();
        for used in [899, 900, 850, 849, 899, 900] {
            pressure.note(limits, Some(at(used)));
            told.push(pressure.is_high());
        }
        assert_eq!(told, [false, true, true, false, false, true]);
        assert_eq!(pressure.memory(), (900, 1000));
        pressure.note(limits, None);
        assert!(!pressure.is_high(), "what is not known turns nobody away");
    }

    #[test]
    fn a_new_bound_holds_at_once() {
        let pressure = Pressure::default();
        pressure.note(MemoryLimits { shed_at: ShedAt(50), ..MemoryLimits::default() }, Some(at(600)));
        assert!(pressure.is_high());
        pressure.note(MemoryLimits::default(), Some(at(600)));
        assert!(!pressure.is_high());
        pressure.note(MemoryLimits::default(), Some(Seen { used: u64::MAX, most: 0 }));
        assert!(!pressure.is_high(), "no bound");
    }

    #[test]
    fn this_machine_says_what_it_has() {
        let group = Group::find();
        let one = seen(MemoryMax::Auto, group.as_ref()).expect("Linux tells");
        assert!(one.used > 0 && one.used < one.most, "{one:?}");
        let own = seen(MemoryMax::Bytes(1), group.as_ref()).unwrap();
        assert!(own.used > 100_000 && own.most == 1);
        assert_eq!(seen(MemoryMax::Off, None).unwrap().most, 0);
    }
}
