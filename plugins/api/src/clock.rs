//! The time of day.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The time of day: the machine's, or one that a test sets.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// A clock that stands at this time after the epoch until it is moved.
    pub fn fixed(since_epoch: Duration) -> Self {
        Self(Some(Arc::new(AtomicU64::new(millis(since_epoch)))))
    }

    /// Moves a fixed clock on; the machine's cannot be moved.
    pub fn advance(&self, by: Duration) {
        if let Self(Some(fixed)) = self {
            fixed.fetch_add(millis(by), Ordering::Relaxed);
        }
    }

    /// Time since 1970-01-01T00:00:00Z; zero before it.
    pub fn since_epoch(&self) -> Duration {
        match &self.0 {
            Some(fixed) => Duration::from_millis(fixed.load(Ordering::Relaxed)),
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Time since some moment in the life of the process, on a clock that nobody sets: for what must pass, whatever is done to
    /// the time of day. A fixed clock gives its time.
    pub fn steady(&self) -> Duration {
        static BEGINNING: OnceLock<Instant> = OnceLock::new();
        match &self.0 {
            Some(_) => self.since_epoch(),
            None => BEGINNING.get_or_init(Instant::now).elapsed(),
        }
    }

    /// Whole seconds since 1970-01-01T00:00:00Z, as tokens count them (RFC 7519, section 2, `NumericDate`).
    pub fn unix(&self) -> u64 {
        self.since_epoch().as_secs()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
