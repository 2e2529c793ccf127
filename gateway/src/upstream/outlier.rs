//! Endpoints whose answers fail are taken out for a while.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use crossway_plugin_api::config::{Percent, StatusSet};
use parking_lot::Mutex;

use super::{
    tally::{Success, Tally},
    watch::Came,
    window::{length, millis},
};

/// When an endpoint is ejected, and for how long, compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Failures in a row.
    pub consecutive: u32,
    /// Share of failures among at least so many answers.
    pub ratio: Option<(f64, u32)>,
    /// What the share looks at.
    pub window: Duration,
    /// What is slower than this is a failure.
    pub latency: Option<Duration>,
    /// Statuses that are failures.
    pub statuses: Vec<StatusSet>,
    /// First ejection.
    pub eject_for: Duration,
    /// Longest ejection.
    pub max_eject_for: Duration,
    /// Share of the endpoints that may be ejected at a time.
    pub max_ejected: Percent,
}

impl Plan {
    /// The length of the window, if shares count.
    fn counted(&self) -> Option<Duration> {
        self.ratio.map(|_| self.window)
    }

    /// How many of so many endpoints may be ejected at a time.
    pub(super) fn room(&self, endpoints: usize) -> usize {
        let least = usize::from(endpoints >= 2 && self.max_ejected.0 > 0);
        self.max_ejected.of_count(endpoints).max(least)
    }

    /// Whether even the last endpoint that can be used may go.
    pub(super) fn may_take_all(&self) -> bool {
        self.max_ejected.0 == 100
    }
}

/// What is known of the answers of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Outlier {
    tally: Tally,
    /// When the ejection ends; 0 if there is none.
    until: AtomicU64,
    /// When the last one ended, or ends, in milliseconds; 0 if there was none.
    ended: AtomicU64,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    /// Ejections that count for the length of the next.
    times: u32,
    why: String,
    since: Option<SystemTime>,
}

/// What a request has taught of its endpoint.
#[derive(Debug)]
pub(super) enum Learnt {
    /// Nothing.
    Nothing,
    /// It was answered, so far.
    Success(Success),
    /// It has failed; why the endpoint should be ejected, if it should.
    Failure(Option<String>),
}

/// What is shown of an ejection.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Since when.
    pub since: SystemTime,
    /// Why.
    pub why: String,
    /// How long it still lasts.
    pub left: Duration,
}

impl Outlier {
    /// Learns what came of a request. A failure: why the endpoint should be ejected, if it should.
    pub(super) fn note(&self, plan: &Plan, came: &Came<'_>, now: Instant) -> Learnt {
        if self.until.load(Ordering::Relaxed) != 0 {
            // What was on its way when it was ejected says nothing new.
            return Learnt::Nothing;
        }
        let Some(failed) = came.is_failure(&plan.statuses) else { return Learnt::Nothing };
        if failed || plan.latency.is_some_and(|limit| came.took_longer_than(limit)) {
            Learnt::Failure(self.count_failure(plan, came, now))
        } else {
            Learnt::Success(self.tally.succeeded(plan.counted(), now, false))
        }
    }

    /// Learns that the answer to a request that was a success has come to this. Why the endpoint should be ejected, if it
    /// should.
    pub(super) fn note_end(&self, plan: &Plan, success: Success, came: &Came<'_>, now: Instant) -> Option<String> {
        if came.is_failure(&plan.statuses) != Some(true) || self.until.load(Ordering::Relaxed) != 0 {
            return None;
        }
        self.tally.take_back(success, plan.counted(), now, plan.window);
        self.count_failure(plan, came, now)
    }

    fn count_failure(&self, plan: &Plan, came: &Came<'_>, now: Instant) -> Option<String> {
        let row = self.tally.failed(plan.counted(), now, false);
        let why = if row >= plan.consecutive {
            format!("{row} failures in a row")
        } else {
            let counts = self.tally.counts(plan.window, now);
            let (ratio, min) = plan.ratio?;
            counts.failed_by(ratio, min).then(|| format!("{} of {} requests failed", counts.failed, counts.all))?
        };
        Some(format!("{why}; the last: {came}"))
    }

    /// Whether it is ejected now.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && millis(now) < until
    }

    /// Ejects it; for how long. Whoever calls has seen that there is room.
    pub(super) fn eject(&self, plan: &Plan, why: &str, now: Instant) -> Duration {
        let mut last = self.last.lock();
        let first = length(plan.eject_for);
        // A time as long as the first ejection without one makes up for one.
        let forgiven = millis(now).saturating_sub(self.ended()) / first;
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        last.times = last.times.saturating_sub(forgiven).saturating_add(1);
        let time = first.saturating_mul(last.times.into()).min(length(plan.max_eject_for));
        why.clone_into(&mut last.why);
        last.since = Some(SystemTime::now());
        let until = millis(now).saturating_add(time);
        self.ended.store(until, Ordering::Relaxed);
        self.begin_anew();
        self.until.store(until, Ordering::Release);
        Duration::from_millis(time)
    }

    /// Ends an ejection whose time is over. Whether this call has.
    pub(super) fn end_if_over(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && millis(now) >= until && self.end_one(until)
    }

    /// Ends an ejection before its time. Whether there was one.
    pub(super) fn end(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        let is_ended = until != 0 && self.end_one(until);
        if is_ended {
            self.ended.store(millis(now), Ordering::Relaxed);
        }
        is_ended
    }

    fn end_one(&self, until: u64) -> bool {
        self.until.compare_exchange(until, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Forgets the answers so far, which were judged by other rules; an ejection goes on.
    pub(super) fn begin_anew(&self) {
        self.tally.clear();
    }

    /// Forgets everything.
    pub(super) fn forget(&self) {
        self.begin_anew();
        self.until.store(0, Ordering::Release);
        *self.last.lock() = Last::default();
    }

    /// When the last ejection ended, or ends, in milliseconds; 0 if there was none.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// The ejection that lasts now.
    pub(super) fn shown(&self, now: Instant) -> Option<Shown> {
        let until = self.until.load(Ordering::Relaxed);
        let left = until.checked_sub(millis(now)).filter(|left| *left > 0)?;
        let last = self.last.lock();
        Some(Shown { since: last.since?, why: last.why.clone(), left: Duration::from_millis(left) })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::watch::tests::*, *};

    fn plan() -> Plan {
        Plan {
            consecutive: 3,
            ratio: None,
            window: Duration::from_secs(10),
            latency: None,
            statuses: statuses(),
            eject_for: Duration::from_secs(30),
            max_eject_for: Duration::from_mins(2),
            max_ejected: Percent(50),
        }
    }

    /// Why it should be ejected after this.
    fn note(outlier: &Outlier, plan: &Plan, came: &Came<'_>, now: Instant) -> Option<String> {
        match outlier.note(plan, came, now) {
            Learnt::Failure(why) => why,
            _ => None,
        }
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_starts_anew() {
        let (outlier, plan, now) = (Outlier::default(), plan(), Instant::now());
        for came in [broken(), answer(503), answer(404), broken(), neutral(), answer(504)] {
            assert_eq!(note(&outlier, &plan, &came, now), None);
        }
        let why = note(&outlier, &plan, &answer(502), now).unwrap();
        assert_eq!(why, "3 failures in a row; the last: status 502");
        assert_eq!(outlier.eject(&plan, &why, now), plan.eject_for);
        assert!(outlier.is_ejected(now) && outlier.is_ejected(now + Duration::from_millis(29_999)));
        assert!(!outlier.is_ejected(now + Duration::from_secs(30)));
        assert!(!outlier.end_if_over(now) && outlier.shown(now).is_some());
        assert!(outlier.end_if_over(now + Duration::from_secs(30)) && outlier.shown(now).is_none());
        assert!(!outlier.end_if_over(now + Duration::from_secs(30)), "once");
    }

    #[test]
    fn answers_that_break_off_are_failures_in_a_row() {
        let (outlier, plan, now) = (Outlier::default(), Plan { ratio: Some((1.0, 3)), ..plan() }, Instant::now());
        let learn = |end: Came<'_>| match outlier.note(&plan, &answer(200), now) {
            Learnt::Success(success) => outlier.note_end(&plan, success, &end, now),
            other => panic!("{other:?}"),
        };
        for end in [broken(), answer(200), broken(), answer(503)] {
            assert_eq!(learn(end), None);
        }
        assert_eq!(learn(neutral()), None);
        assert_eq!(learn(broken()), None, "an answer whose end says nothing has ended the row");
        assert_eq!(learn(broken()), None);
        let why = learn(broken()).unwrap();
        assert!(why.starts_with("3 failures in a row"), "{why}");
        outlier.eject(&plan, &why, now);
        assert_eq!(outlier.tally.counts(plan.window, now).all, 0);
        assert!(matches!(outlier.note(&plan, &broken(), now), Learnt::Nothing));
    }

    #[test]
    fn a_share_of_failures_ejects() {
        let plan = Plan { consecutive: 1000, ratio: Some((0.5, 4)), ..plan() };
        let (outlier, now) = (Outlier::default(), Instant::now());
        for came in [answer(200), broken(), broken()] {
            assert_eq!(note(&outlier, &plan, &came, now), None);
        }
        assert!(note(&outlier, &plan, &broken(), now).unwrap().starts_with("3 of 4 requests failed"));
    }

    #[test]
    fn slow_answers_are_failures_if_asked_for() {
        let plan = Plan { consecutive: 1, latency: Some(Duration::from_millis(100)), ..plan() };
        let (outlier, now) = (Outlier::default(), Instant::now());
        assert_eq!(note(&outlier, &plan, &slow(100), now), None);
        assert!(note(&outlier, &plan, &slow(101), now).is_some());
    }

    #[test]
    fn each_ejection_is_longer_up_to_a_bound_and_good_times_make_up() {
        let (outlier, plan, mut now) = (Outlier::default(), plan(), Instant::now());
        for expected in [30, 60, 90, 120, 120] {
            let time = outlier.eject(&plan, "", now);
            assert_eq!(time.as_secs(), expected);
            now += time;
            assert!(outlier.end_if_over(now));
        }
        // Three times 30 s without one: of five, two count.
        now += Duration::from_secs(90);
        assert_eq!(outlier.eject(&plan, "", now).as_secs(), 90);
    }

    #[test]
    fn there_is_room_for_a_share_and_for_one_of_two() {
        let room = |share, endpoints| Plan { max_ejected: Percent(share), ..plan() }.room(endpoints);
        assert_eq!((room(50, 1), room(50, 2), room(50, 3), room(50, 4)), (0, 1, 1, 2));
        assert_eq!((room(10, 2), room(10, 9), room(0, 9), room(100, 1)), (1, 1, 0, 1));
    }
}
