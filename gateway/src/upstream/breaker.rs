//! The circuit breaker: closed, it counts; open, nothing is sent; half-open, a few requests try whether all is well.
//!
//! A closed one takes no lock. Each phase has a number of its own, which a request takes with it: what came of a request
//! counts only in the phase that let it in.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use crossway_plugin_api::config::StatusSet;
use parking_lot::Mutex;

use super::{
    tally::{Success, Tally},
    watch::{Came, Event, Notes},
    window::{length, millis},
};

/// When a circuit opens and closes, compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Whether it guards the upstream as a whole, and not each endpoint.
    pub whole: bool,
    /// What the ratios look at.
    pub window: Duration,
    /// Answers below which no ratio counts.
    pub min_requests: u32,
    /// Share of failures that opens it.
    pub error_ratio: f64,
    /// Failures in a row that open it.
    pub consecutive: Option<u32>,
    /// What is slow, and which share of it opens the circuit.
    pub slow: Option<(Duration, f64)>,
    /// Statuses that are failures.
    pub statuses: Vec<StatusSet>,
    /// How long it stays open.
    pub open_for: Duration,
    /// Requests at a time in a half-open one, and successes that close it.
    pub probes: u32,
}

/// What a circuit does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// They pass.
    Closed,
    /// A few pass.
    HalfOpen,
    /// None pass.
    Open,
}

impl Phase {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }

    fn of(code: u64) -> Self {
        match code & 3 {
            0 => Self::Closed,
            1 => Self::HalfOpen,
            _ => Self::Open,
        }
    }
}

/// Leave to pass, in the phase with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    number: u64,
    /// Whether it is one of the few of a half-open circuit, and must be given back.
    pub is_probe: bool,
}

/// What the end of an answer may still change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Noted {
    /// It was counted as a success.
    Success(Success),
    /// It tries a half-open circuit, and is judged when it has ended.
    Probe,
}

/// A circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    plan: Plan,
    notes: Notes,
    /// The phase, and above it its number.
    phase: AtomicU64,
    /// When an open one lets the first through.
    until: AtomicU64,
    /// Requests that a half-open one has let through and that have not ended.
    probes: AtomicU32,
    tally: Tally,
    /// Held for every change of the phase.
    last: Mutex<Last>,
}

/// How the phase came about.
#[derive(Debug)]
struct Last {
    successes: u32,
    since: SystemTime,
    why: String,
}

/// What is shown of a breaker.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its phase.
    pub phase: Phase,
    /// Since when.
    pub since: SystemTime,
    /// Why; empty for one that was never open.
    pub why: String,
}

impl Breaker {
    /// A closed one.
    pub fn new(plan: Plan, notes: Notes) -> Self {
        let last = Last { successes: 0, since: SystemTime::now(), why: String::new() };
        Self {
            plan,
            notes,
            phase: AtomicU64::new(number_for(Phase::Closed)),
            until: AtomicU64::new(0),
            probes: AtomicU32::new(0),
            tally: Tally::default(),
            last: Mutex::new(last),
        }
    }

    /// What it goes by.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    fn now_in(&self) -> (Phase, u64) {
        let code = self.phase.load(Ordering::Acquire);
        (Phase::of(code), code)
    }

    /// Whether a request could pass.
    pub(super) fn would_pass(&self, now: Instant) -> bool {
        match self.now_in().0 {
            Phase::Closed => true,
            Phase::HalfOpen => self.probes.load(Ordering::Relaxed) < self.plan.probes,
            Phase::Open => self.left(now).is_zero(),
        }
    }

    /// How long an open one still lets nothing through.
    pub(super) fn left(&self, now: Instant) -> Duration {
        match self.now_in().0 {
            Phase::Open => Duration::from_millis(self.until.load(Ordering::Relaxed).saturating_sub(millis(now))),
            _ => Duration::ZERO,
        }
    }

    /// Lets a request through, or not. A probe must be given back with [`end`](Self::end).
    pub(super) fn enter(&self, now: Instant) -> Option<Pass> {
        match self.now_in() {
            (Phase::Closed, number) => Some(Pass { number, is_probe: false }),
            _ => self.enter_as_probe(now),
        }
    }

    fn enter_as_probe(&self, now: Instant) -> Option<Pass> {
        let mut last = self.last.lock();
        let number = match self.now_in() {
            (Phase::Closed, number) => return Some(Pass { number, is_probe: false }),
            (Phase::HalfOpen, number) => number,
            (Phase::Open, _) if !self.left(now).is_zero() => return None,
            (Phase::Open, _) => {
                last.successes = 0;
                self.probes.store(0, Ordering::Relaxed);
                self.turn(&mut last, Phase::HalfOpen, "the time is over")
            }
        };
        let inside = self.probes.load(Ordering::Relaxed);
        if inside >= self.plan.probes {
            return None;
        }
        self.probes.store(inside + 1, Ordering::Relaxed);
        Some(Pass { number, is_probe: true })
    }

    /// Gives the place of a probe back.
    pub(super) fn end(&self, pass: Pass) {
        let _last = self.last.lock();
        if pass.is_probe && self.now_in().1 == pass.number {
            let inside = self.probes.load(Ordering::Relaxed);
            self.probes.store(inside.saturating_sub(1), Ordering::Relaxed);
        }
    }

    /// Learns what came of a request that it has let through. Of an answer that goes on: what its end may still change.
    pub(super) fn note(&self, pass: Pass, came: &Came<'_>, now: Instant) -> Option<Noted> {
        let failed = came.is_failure(&self.plan.statuses)?;
        let (phase, number) = self.now_in();
        if number != pass.number {
            return None;
        }
        let slow = self.plan.slow.is_some_and(|(limit, _)| came.took_longer_than(limit));
        match (phase, failed) {
            (Phase::HalfOpen, failed) if failed || slow => {
                self.judge_probe(pass, true, came, now);
                None
            }
            (Phase::HalfOpen, _) => Some(Noted::Probe),
            (_, true) => {
                self.count_failure(pass, came, slow, now);
                None
            }
            (_, false) => {
                let success = self.tally.succeeded(Some(self.plan.window), now, slow);
                if slow && let Some(why) = self.reason(0, now) {
                    self.open(pass, &format!("{why}; the last: {came}"), now);
                }
                Some(Noted::Success(success))
            }
        }
    }

    /// Learns what the answer to a request has come to in the end.
    pub(super) fn note_end(&self, pass: Pass, noted: Noted, came: &Came<'_>, now: Instant) {
        let Some(failed) = came.is_failure(&self.plan.statuses) else { return };
        if self.now_in().1 != pass.number {
            return;
        }
        match noted {
            Noted::Probe => self.judge_probe(pass, failed, came, now),
            Noted::Success(success) if failed => {
                self.tally.take_back(success, Some(self.plan.window), now, self.plan.window);
                self.count_failure(pass, came, success.is_slow(), now);
            }
            Noted::Success(_) => {}
        }
    }

    fn count_failure(&self, pass: Pass, came: &Came<'_>, slow: bool, now: Instant) {
        let row = self.tally.failed(Some(self.plan.window), now, slow);
        if let Some(why) = self.reason(row, now) {
            self.open(pass, &format!("{why}; the last: {came}"), now);
        }
    }

    /// Why a closed one should open, if it should.
    fn reason(&self, row: u32, now: Instant) -> Option<String> {
        if self.plan.consecutive.is_some_and(|most| row >= most) {
            return Some(format!("{row} failures in a row"));
        }
        let (counts, min) = (self.tally.counts(self.plan.window, now), self.plan.min_requests);
        if counts.failed_by(self.plan.error_ratio, min) {
            return Some(format!("{} of {} requests failed", counts.failed, counts.all));
        }
        let (limit, ratio) = self.plan.slow?;
        let many = counts.slow_by(ratio, min);
        many.then(|| format!("{} of {} answers took longer than {limit:?}", counts.slow, counts.all))
    }

    fn judge_probe(&self, pass: Pass, failed: bool, came: &Came<'_>, now: Instant) {
        if failed {
            self.open(pass, &format!("a request that tried it failed: {came}"), now);
            return;
        }
        let mut last = self.last.lock();
        if self.now_in().1 != pass.number {
            return;
        }
        last.successes += 1;
        if last.successes >= self.plan.probes {
            self.tally.clear();
            self.turn(&mut last, Phase::Closed, "the requests that tried it succeeded");
        }
    }

    /// Opens it, if it is still in the phase of `pass`.
    fn open(&self, pass: Pass, why: &str, now: Instant) {
        let mut last = self.last.lock();
        if self.now_in().1 == pass.number {
            self.until.store(millis(now).saturating_add(length(self.plan.open_for)), Ordering::Relaxed);
            self.turn(&mut last, Phase::Open, why);
        }
    }

    /// Begins a phase; its number.
    fn turn(&self, last: &mut Last, to: Phase, why: &str) -> u64 {
        last.since = SystemTime::now();
        why.clone_into(&mut last.why);
        let number = number_for(to);
        self.phase.store(number, Ordering::Release);
        self.notes.tell(
            match to {
                Phase::Closed => Event::CircuitClosed,
                Phase::HalfOpen => Event::CircuitHalfOpen,
                Phase::Open => Event::CircuitOpen,
            },
            why,
        );
        number
    }

    /// What is shown of it.
    pub fn shown(&self) -> Shown {
        let last = self.last.lock();
        Shown { phase: self.now_in().0, since: last.since, why: last.why.clone() }
    }
}

/// A number that no phase of any breaker had before.
fn number_for(phase: Phase) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let code = match phase {
        Phase::Closed => 0,
        Phase::HalfOpen => 1,
        Phase::Open => 2,
    };
    NEXT.fetch_add(1, Ordering::Relaxed) << 2 | code
}

#[cfg(test)]
mod tests;
