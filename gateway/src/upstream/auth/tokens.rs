//! The token in hand, and the work that keeps it fresh: one question at a time, whoever asks for it.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use crossway_plugin_api::{Deps, Fault, Fetch, Task};
use tokio::{
    sync::{Notify, watch},
    time::{sleep_until, timeout_at},
};

use super::{Plan, Proof};
use crate::telemetry::metrics::AuthMetrics;

/// Longest wait between two questions while the provider fails and nobody needs a token.
const LAST_RETRY: Duration = Duration::from_mins(1);

/// The token of an upstream. Lives as long as some configuration wants it, and its work with it.
pub struct Tokens {
    state: Arc<State>,
    _task: Task,
}

impl Tokens {
    /// The token by this plan: the one that the configuration before a reload has, if it wants the same.
    pub fn find(plan: Plan, deps: &Deps, metrics: AuthMetrics) -> Arc<Self> {
        let key = plan.identity.clone();
        deps.state.get_or_make(&key, || {
            let state = Arc::new(State {
                plan,
                token: ArcSwapOption::empty(),
                attempts: watch::Sender::default(),
                wanted: Notify::new(),
                metrics,
            });
            let task = deps.tasks.spawn(keep_fresh(Arc::clone(&state), Arc::clone(&deps.fetch)));
            Self { state, _task: task }
        })
    }

    /// The token in hand, or the one that comes until `deadline`.
    ///
    /// Errors: there is none, and none can be had now.
    pub(super) async fn proof(&self, deadline: Instant) -> Result<Arc<Proof>, Fault> {
        let state = &self.state;
        if let Some(proof) = state.proof() {
            return Ok(proof);
        }
        state.attempted(deadline).await;
        if let Some(proof) = state.proof() {
            return Ok(proof);
        }
        if Instant::now() >= deadline {
            return Err(Fault::Deadline);
        }
        state.metrics.missing.inc();
        let rest = state.attempts.borrow().rest;
        let wait = rest.map_or(Duration::ZERO, |rest| rest.saturating_duration_since(Instant::now()));
        Err(Fault::UpstreamAuth { retry_after: wait.as_secs() + 1 })
    }

    /// Has a token replaced that the upstream has not taken, and waits for that at most until `deadline`; whether another one
    /// is in hand. Until then it stays in use: an answer of one upstream's page must not take away what serves all others
    /// while the provider is down.
    pub(super) async fn is_replaced(&self, used: &Arc<Proof>, deadline: Instant) -> bool {
        let state = &self.state;
        state.metrics.rejected.inc();
        let another = || state.proof().is_some_and(|proof| !Arc::ptr_eq(&proof, used));
        if !another() {
            state.attempted(deadline).await;
        }
        another()
    }

    /// How long the token in hand may still be used; `None` if there is none.
    pub fn left(&self) -> Option<Duration> {
        let until = self.state.token.load().as_ref()?.until;
        until.checked_duration_since(Instant::now())
    }
}

struct Token {
    proof: Arc<Proof>,
    until: Instant,
}

/// How often it was tried to get a token.
#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    begun: u64,
    ended: u64,
    /// Before this no attempt is made because the last one failed, or because the upstream does not take a token.
    rest: Option<Instant>,
    /// Whether the last one failed.
    has_failed: bool,
}

impl Attempts {
    fn are_over(&self) -> bool {
        self.begun == self.ended
    }
}

struct State {
    plan: Plan,
    token: ArcSwapOption<Token>,
    attempts: watch::Sender<Attempts>,
    wanted: Notify,
    metrics: AuthMetrics,
}

impl State {
    /// The token in hand, if it may still be used.
    fn proof(&self) -> Option<Arc<Proof>> {
        let token = self.token.load();
        token.as_ref().filter(|token| Instant::now() < token.until).map(|token| Arc::clone(&token.proof))
    }

    /// Whether a request may have an attempt made: once the time of rest is over, or at once for want of a token that has
    /// just come to its end.
    fn may_begin(&self, attempts: Attempts) -> bool {
        let is_rested = attempts.rest.is_none_or(|rest| rest <= Instant::now());
        is_rested || (!attempts.has_failed && self.proof().is_none())
    }

    /// Waits for the end of an attempt: the one that is being made, or a new one, if the last was long enough ago.
    async fn attempted(&self, deadline: Instant) {
        let mut attempts = self.attempts.subscribe();
        let seen = *attempts.borrow_and_update();
        if seen.are_over() {
            if !self.may_begin(seen) {
                return;
            }
            self.wanted.notify_one();
        }
        let _ = timeout_at(deadline.into(), attempts.wait_for(|now| now.ended > seen.ended)).await;
    }

    /// One attempt. Gives when the next is due.
    async fn attempt(&self, fetch: &dyn Fetch) -> Result<Instant, String> {
        let asked = Instant::now();
        self.attempts.send_modify(|attempts| attempts.begun += 1);
        let told = fetch.fetch(self.plan.ask()).await;
        let outcome = told.map_err(|error| error.to_string()).and_then(|told| self.plan.judge(&told));
        let outcome = outcome.map(|(proof, life)| {
            self.take(proof, asked + life);
            asked + refresh_after(life, self.plan.refresh_before, by_chance())
        });
        let (rest, has_failed) = (Some(Instant::now() + self.plan.cool_down), outcome.is_err());
        self.attempts
            .send_modify(|attempts| *attempts = Attempts { ended: attempts.begun, rest, has_failed, ..*attempts });
        outcome
    }

    /// Puts a token in use. One that is the same as before remains the same, however often the provider says it: who has
    /// seen it refused need not try it again.
    fn take(&self, proof: Proof, until: Instant) {
        let known = self.token.load().as_ref().map(|token| Arc::clone(&token.proof)).filter(|known| **known == proof);
        let proof = known.unwrap_or_else(|| Arc::new(proof));
        self.token.store(Some(Arc::new(Token { proof, until })));
    }
}

/// A number from 0 to 1, another one each time.
fn by_chance() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

/// When a token of this life is replaced, counted from its beginning.
fn refresh_after(life: Duration, before: Duration, chance: f64) -> Duration {
    let before = before.min(life / 2);
    life.saturating_sub(before) + before.mul_f64(chance / 4.0)
}

/// When it is tried again after so many failures.
fn retry_after(failures: u32, cool_down: Duration, chance: f64) -> Duration {
    let doubled = cool_down.saturating_mul(1 << failures.saturating_sub(1).min(6));
    doubled.min(LAST_RETRY.max(cool_down)).mul_f64(1.0 + chance / 4.0)
}

/// Gets tokens for as long as some configuration wants them.
async fn keep_fresh(state: Arc<State>, fetch: Arc<dyn Fetch>) {
    let mut failures = 0_u32;
    loop {
        let next = match state.attempt(&*fetch).await {
            Ok(next) => {
                state.metrics.fetched.inc();
                if failures > 0 {
                    tracing::info!(upstream = state.plan.upstream, "the provider gives tokens again");
                }
                failures = 0;
                next
            }
            Err(why) => {
                state.metrics.failed.inc();
                // Once for each outage, and again after every 64 attempts.
                if failures.is_multiple_of(64) {
                    tracing::warn!(
                        upstream = state.plan.upstream,
                        reason = why,
                        "there is no new token for the upstream"
                    );
                }
                failures = failures.saturating_add(1);
                Instant::now() + retry_after(failures, state.plan.cool_down, by_chance())
            }
        };
        loop {
            tokio::select! {
                () = sleep_until(next.into()) => break,
                () = state.wanted.notified() => {
                    // Several may have asked for the attempt that has just ended.
                    let attempts = *state.attempts.borrow();
                    if state.may_begin(attempts) {
                        break;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
