//! How long a client may keep the gateway waiting for a body.

use std::{
    io::{self, ErrorKind},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::alarm::Alarm;

/// The patience with a client that sends a body, or takes one: never longer at once than the longest pause, and all in all
/// no longer than that and what a slowest rate allows for the bytes that have moved. Only time spent waiting for the
/// client counts.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second; 0 for no slowest rate.
    rate: u64,
    /// The longest pause.
    most: Duration,
    left: Duration,
    /// When the current wait began.
    since: Option<Instant>,
}

impl Pace {
    /// A new body.
    pub(super) fn new(rate: u64, most: Duration) -> Self {
        Self { rate, most, left: most, since: None }
    }

    /// The client keeps us waiting: until when it may.
    pub(super) fn waits_until(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now) + self.left
    }

    /// The wait is over; so many bytes have moved. How long it was, if there was one.
    pub(super) fn moved(&mut self, bytes: usize) -> Option<Duration> {
        let waited = self.since.take().map(|since| since.elapsed());
        if self.rate == 0 || (waited.is_none() && self.left == self.most) {
            return waited;
        }
        let earned = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / self.rate);
        self.left = self.left.saturating_sub(waited.unwrap_or_default()).saturating_add(earned).min(self.most);
        waited
    }
}

/// A pace with the timer that keeps it, for the writes of a connection.
#[derive(Debug)]
pub(super) struct Bounded {
    pace: Pace,
    alarm: Alarm,
    /// How long the last write waited, until somebody asks.
    waited: Option<Duration>,
}

impl Bounded {
    /// Writes at this pace.
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, alarm: Alarm::default(), waited: None }
    }

    /// Another pace from now on.
    pub(super) fn set(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// How long the client has kept the write waiting that has just ended, if it has.
    pub(super) fn take_waited(&mut self) -> Option<Duration> {
        self.waited.take()
    }

    /// A write that waits, or would now: until when it may.
    pub(super) fn until(&mut self) -> Instant {
        self.pace.waits_until()
    }

    /// Passes a write's outcome on, unless the client has kept it waiting for too long.
    pub(super) fn bound<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = polled {
            self.waited = self.pace.moved(done.as_ref().map_or(0, bytes));
            return Poll::Ready(done);
        }
        if self.alarm.has_passed(cx, self.pace.waits_until()) {
            Poll::Ready(Err(ErrorKind::TimedOut.into()))
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn waited(pace: &mut Pace, time: Duration, bytes: usize) {
        let now = Instant::now();
        pace.since = now.checked_sub(time);
        let _ = pace.moved(bytes);
    }

    #[test]
    fn a_client_that_drips_uses_its_patience_up() {
        let mut pace = Pace::new(1024, 60 * SECOND);
        for _ in 0..6 {
            waited(&mut pace, 10 * SECOND, 1);
        }
        assert!(pace.left < SECOND, "{pace:?}");
        let now = Instant::now();
        assert!(pace.waits_until() < now + SECOND);
    }

    #[test]
    fn a_client_at_the_slowest_rate_goes_on_for_ever_and_a_fast_one_earns_no_more_than_one_pause() {
        let mut pace = Pace::new(1024, 60 * SECOND);
        for _ in 0..1000 {
            waited(&mut pace, 10 * SECOND, 10 * 1024 + 100);
        }
        assert!(pace.left > 49 * SECOND, "{pace:?}");
        waited(&mut pace, Duration::ZERO, 1 << 30);
        assert_eq!(pace.left, 60 * SECOND);
    }

    #[test]
    fn without_a_rate_only_the_pause_counts() {
        let mut pace = Pace::new(0, 2 * SECOND);
        for _ in 0..100 {
            waited(&mut pace, SECOND, 1);
        }
        assert_eq!(pace.left, 2 * SECOND);
    }
}
