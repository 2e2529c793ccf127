//! Slow start: how long an endpoint has been there, and what share that gives it.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Share of an endpoint that has just come: less would keep it from ever getting warm.
const LEAST: f64 = 0.1;

/// What times are counted from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Since when an endpoint has been there. By default since ever.
#[derive(Debug, Default)]
pub struct Warmth(AtomicU64);

impl Warmth {
    /// The endpoint has come now: it is new, or available again.
    pub fn begin(&self, now: Instant) {
        let millis = now.saturating_duration_since(*EPOCH).as_millis();
        self.0.store(u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(1), Ordering::Relaxed);
    }

    /// How long it has been there; `None` for ever.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let begun = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(*EPOCH).saturating_sub(Duration::from_millis(begun)))
    }

    /// The part of its weight that counts: a tenth at first, then in proportion to the time, all of it after `window`.
    pub fn share(&self, now: Instant, window: Duration) -> f64 {
        match self.age(now) {
            Some(age) if age < window => (age.as_secs_f64() / window.as_secs_f64()).max(LEAST),
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_with_time() {
        let (warmth, window) = (Warmth::default(), Duration::from_secs(10));
        LazyLock::force(&EPOCH);
        let start = Instant::now();
        assert_eq!((warmth.share(start, window), warmth.age(start)), (1.0, None));
        warmth.begin(start);
        let after = |secs| warmth.share(start + Duration::from_secs(secs), window);
        assert!((after(0), after(1)) == (0.1, 0.1) || after(1) < 0.11, "{}", after(1));
        assert!((after(5) - 0.5).abs() < 0.01 && (after(9) - 0.9).abs() < 0.01);
        assert_eq!((after(10) > 0.99, after(11), after(1000)), (true, 1.0, 1.0));
    }
}
