//! How many retries an upstream is worth: a share of the requests that it has got lately. When all of its endpoints fail,
//! retries would only multiply the load that brings them down.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use crossway_plugin_api::config::Percent;
use parking_lot::Mutex;

/// How far back requests and retries count, in seconds.
pub const WINDOW: u64 = SLOTS as u64;

/// One for each of them.
const SLOTS: usize = 10;

/// What was asked of one upstream and what of it was asked again. Outlives configurations.
pub struct Budget {
    origin: Instant,
    requests: Count,
    retries: Count,
    /// One retry at a time is allowed, so that the bound holds exactly.
    spending: Mutex<()>,
}

/// How much may be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Retries as a share of requests.
    pub share: Percent,
    /// Retries a second that are allowed without regard to the share.
    pub min_per_second: u32,
}

impl Allowance {
    fn of(self, requests: u64) -> u64 {
        self.share.of(requests).max(u64::from(self.min_per_second) * WINDOW)
    }
}

/// How a budget stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Requests in the window.
    pub requests: u64,
    /// Retries in the window that were paid for.
    pub retries: u64,
    /// Retries that are allowed in the window.
    pub allowed: u64,
}

/// Events of the last seconds: a number for each second, with the second that it is of in the upper half.
#[derive(Default)]
struct Count([AtomicU64; SLOTS]);

impl Count {
    fn add(&self, second: u64) {
        let at = usize::try_from(second % WINDOW).unwrap_or_default();
        let Some(slot) = self.0.get(at) else { return };
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
            Some(if old >> 32 == second { old + 1 } else { (second << 32) | 1 })
        });
    }

    fn sum(&self, second: u64) -> u64 {
        let recent = |value: &u64| value >> 32 > second.saturating_sub(WINDOW) && value >> 32 <= second;
        let values = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        values.filter(recent).map(|value| value & u64::from(u32::MAX)).sum()
    }
}

impl Budget {
    /// Nothing asked yet.
    pub fn new(now: Instant) -> Self {
        Self { origin: now, requests: Count::default(), retries: Count::default(), spending: Mutex::new(()) }
    }

    /// Seconds since the beginning, counted so that a slot that was never used is always too old.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs() + WINDOW + 1
    }

    /// Counts a request.
    pub fn earn(&self, now: Instant) {
        self.requests.add(self.second(now));
    }

    /// Counts a retry, if it is allowed.
    pub fn spend(&self, allowance: Allowance, now: Instant) -> bool {
        let second = self.second(now);
        let _one_at_a_time = self.spending.lock();
        let is_allowed = self.retries.sum(second) < allowance.of(self.requests.sum(second));
        if is_allowed {
            self.retries.add(second);
        }
        is_allowed
    }

    /// How it stands.
    pub fn standing(&self, allowance: Allowance, now: Instant) -> Standing {
        let second = self.second(now);
        let requests = self.requests.sum(second);
        Standing { requests, retries: self.retries.sum(second), allowed: allowance.of(requests) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FIFTH: Allowance = Allowance { share: Percent(20), min_per_second: 0 };

    #[test]
    fn retries_are_a_share_of_what_was_asked_lately() {
        let start = Instant::now();
        let budget = Budget::new(start);
        assert!(!budget.spend(FIFTH, start), "nothing was asked");
        for _ in 0..100 {
            budget.earn(start);
        }
        let spent = (0..100).filter(|_| budget.spend(FIFTH, start)).count();
        assert_eq!(spent, 20);
        assert_eq!(budget.standing(FIFTH, start), Standing { requests: 100, retries: 20, allowed: 20 });
        let later = start + Duration::from_secs(WINDOW - 1);
        assert!(!budget.spend(FIFTH, later), "the window has not passed");
        let past = start + Duration::from_secs(WINDOW);
        assert_eq!(budget.standing(FIFTH, past), Standing { requests: 0, retries: 0, allowed: 0 });
        for _ in 0..10 {
            budget.earn(past);
        }
        assert_eq!((0..10).filter(|_| budget.spend(FIFTH, past)).count(), 2);
    }

    #[test]
    fn a_few_are_allowed_whatever_was_asked() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let floor = Allowance { min_per_second: 3, ..FIFTH };
        assert_eq!((0..1000).filter(|_| budget.spend(floor, start)).count(), 30);
        for _ in 0..1000 {
            budget.earn(start);
        }
        assert_eq!((0..1000).filter(|_| budget.spend(floor, start)).count(), 170, "the larger of the two, not both");
    }

    #[test]
    fn many_at_once_do_not_overdraw() {
        let (start, spent) = (Instant::now(), AtomicU64::new(0));
        let budget = Budget::new(start);
        for _ in 0..500 {
            budget.earn(start);
        }
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let won = (0..500).filter(|_| budget.spend(FIFTH, start)).count();
                    spent.fetch_add(won as u64, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(spent.into_inner(), 100);
    }

    #[test]
    fn a_clock_that_stands_or_jumps_far_is_no_trouble() {
        let start = Instant::now() + Duration::from_secs(5);
        let budget = Budget::new(start);
        budget.earn(start.checked_sub(Duration::from_secs(5)).unwrap());
        assert_eq!(budget.standing(FIFTH, start).requests, 1);
        let far = start + Duration::from_hours(24 * 365 * 10);
        budget.earn(far);
        assert_eq!(budget.standing(FIFTH, far).requests, 1);
    }
}
