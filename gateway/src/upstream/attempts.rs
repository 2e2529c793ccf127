//! The attempts of one request: who is asked next, what came of it, whether to ask again. The same on every way to an
//! upstream; what an endpoint learns from its answers, it learns here.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crossway_plugin_api::Fault;
use http::{Method, StatusCode};
use pingora_http::{RequestHeader, ResponseHeader};

use super::{
    Answering, Endpoint, Upstream, Wish,
    answering::Of,
    auth::Shown,
    bound::Bound,
    breaker::Pass,
    bulkhead::Hold,
    choice::Tried,
    deadline,
    retry::{Failed, Reason, Withheld},
    state::InFlight,
    watch::Came,
};

/// The attempts of one request.
#[derive(Default)]
pub struct Attempts {
    /// When the response header must be there; bounds all attempts together. No bound before it is set.
    pub deadline: Option<Instant>,
    /// Whether the caller has set the deadline: that it passes says nothing of an endpoint.
    pub is_hurried: bool,
    /// Attempts made, the current one included.
    pub made: u32,
    /// What the request brings to the choice of an endpoint.
    pub wish: Wish,
    /// The last endpoint tried.
    pub endpoint: Option<SocketAddr>,
    /// Its name towards clients that come back to it.
    pub tag: Option<u64>,
    /// Time from the attempts' starts to their response headers or ends, and in the upstream's queue.
    pub waited: Duration,
    /// How much of that in the queue.
    pub queued: Duration,
    tried: Tried,
    spared: Option<SocketAddr>,
    current: Option<Current>,
    /// The answer of the last one, until somebody takes it.
    answering: Option<Answering>,
    shown: Shown,
    hold: Hold,
    /// Those that were made at another upstream.
    elsewhere: u32,
    /// Before the next attempt.
    pause: Duration,
}

/// The attempt being made.
struct Current {
    endpoint: Arc<Endpoint>,
    started: Instant,
    /// Leave of the endpoint's circuit.
    pass: Option<Pass>,
}

/// What must be known of a request to make it again.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Whether the whole body, if any, can be sent again.
    pub replayable: bool,
    /// Whether this attempt's connection had served a request before.
    pub reused: bool,
    /// When the whole request had been sent, if it has: what follows is the endpoint's time.
    pub sent: Option<Instant>,
}

impl Attempts {
    /// The bound of all attempts, at most the upstream's own.
    fn bound(&self, upstream: &Upstream) -> Instant {
        self.deadline.unwrap_or_else(|| Instant::now() + upstream.timeouts.total)
    }

    /// Begins the next attempt: its endpoint, and its place among the requests there. Waits for the pause that it needs,
    /// and until there is something to show to the upstream.
    pub async fn begin(&mut self, upstream: &Upstream) -> Result<(Arc<Endpoint>, InFlight), Fault> {
        self.decline();
        let bound = self.bound(upstream);
        let pause = std::mem::take(&mut self.pause);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.shown.choose(upstream, bound).await?;
        self.enter(upstream, bound).await?;
        let started = Instant::now();
        if started >= bound {
            return Err(Fault::Deadline);
        }
        let is_first = self.made == self.elsewhere;
        if is_first {
            upstream.budget.earn(started);
        }
        let (endpoint, place) = upstream.pool.enter(&self.wish, &self.tried, started)?;
        if !is_first {
            upstream.metrics.retried.inc();
        }
        self.made += 1;
        (self.endpoint, self.tag) = (Some(endpoint.address), endpoint.tag);
        self.current = Some(Current { endpoint: Arc::clone(&endpoint), started, pass: place.pass() });
        Ok((endpoint, place))
    }

    /// Takes the request's place at the upstream.
    async fn enter(&mut self, upstream: &Upstream, bound: Instant) -> Result<(), Fault> {
        let queued = self.hold.take(upstream, bound).await?;
        self.queued += queued;
        self.waited += queued;
        Ok(())
    }

    /// Until when the current attempt may send its request. `whole`: all of it is at hand, so that only the endpoint can
    /// keep it waiting.
    pub fn sending(&self, upstream: &Upstream, whole: bool) -> Bound {
        let started = self.current.as_ref().filter(|_| whole).map(|current| current.started);
        let bound = Bound::request(self.bound(upstream));
        match (upstream.retry.per_try, started) {
            (Some(per_try), Some(started)) => bound.or(Bound::attempt(started + per_try)),
            _ => bound,
        }
    }

    /// Until when the current attempt may wait for its response header, now that the request has been sent. `whole`: all
    /// of it was at hand when the attempt began.
    pub fn waiting(&self, upstream: &Upstream, whole: bool) -> Bound {
        let now = Instant::now();
        let bound = self.sending(upstream, whole).or(Bound::header(now + upstream.timeouts.first_byte));
        match upstream.retry.per_try {
            // The time that the client took is not the endpoint's.
            Some(per_try) if !whole => bound.or(Bound::attempt(now + per_try)),
            _ => bound,
        }
    }

    /// The endpoint of the current attempt.
    pub fn current(&self) -> Option<&Arc<Endpoint>> {
        self.current.as_ref().map(|current| &current.endpoint)
    }

    /// Writes what this attempt shows, and how long its answer may take, into a request that nobody else will change or
    /// see.
    pub fn sign(&self, upstream: &Upstream, req: &mut RequestHeader) -> Result<(), Fault> {
        if let Some(name) = &upstream.deadline_header {
            let left = self.sending(upstream, true).left().min(upstream.timeouts.first_byte);
            deadline::tell(name, left, req)?;
        }
        self.shown.write(req)
    }

    /// Ends the current attempt with the endpoint's answer or with a fault; whether to make another.
    pub fn settle(&mut self, upstream: &Upstream, came: Result<&ResponseHeader, &Fault>, asked: &Asked<'_>) -> bool {
        self.answering = self.learn(upstream, came, asked);
        let took = self.leave();
        let failed = Failed {
            attempts: self.made - self.elsewhere - self.shown.repeats(),
            method: asked.method,
            replayable: asked.replayable,
            reused: asked.reused,
        };
        let reason = match came {
            Ok(head) => {
                upstream.metrics.answered.inc();
                upstream.metrics.seconds.observe(took.as_secs_f64());
                upstream.retry.after_status(head.status, &failed)
            }
            Err(fault) => {
                upstream.metrics.failed.inc();
                upstream.retry.after_fault(fault, &failed)
            }
        };
        let Some(reason) = reason else { return false };
        self.note_tried(asked.reused && matches!(came, Err(Fault::Reset(_) | Fault::Unprocessed(_))));
        match self.pause_before(upstream, reason, failed.attempts, came.ok()) {
            Ok(pause) => {
                self.pause = pause;
                upstream.metrics.retry(reason);
                true
            }
            Err(withheld) => {
                upstream.metrics.withhold(withheld);
                false
            }
        }
    }

    /// The pause before an attempt that the rules ask for, if it can be made.
    fn pause_before(
        &self,
        upstream: &Upstream,
        reason: Reason,
        attempts: u32,
        answer: Option<&ResponseHeader>,
    ) -> Result<Duration, Withheld> {
        let now = Instant::now();
        let pause = upstream.retry.pause(reason, attempts, answer).ok_or(Withheld::RetryAfter)?;
        if self.deadline.is_some_and(|deadline| now + pause >= deadline) {
            return Err(Withheld::Deadline);
        }
        // Nobody has been sent anything: it is as if the other endpoint had been chosen at once.
        let is_free = reason == Reason::ConnectError && upstream.pool.has_another(&self.tried, now);
        if is_free || upstream.budget.spend(upstream.retry.allowance, now) { Ok(pause) } else { Err(Withheld::Budget) }
    }

    /// Goes on at another upstream, whose own rules hold from here on.
    pub fn turn(&mut self) {
        self.decline();
        *self = Self {
            deadline: self.deadline,
            is_hurried: self.is_hurried,
            made: self.made,
            elsewhere: self.made,
            waited: self.waited,
            queued: self.queued,
            ..Self::default()
        };
    }

    /// Notes that the last endpoint has been tried. A stale connection says nothing about its endpoint: a request that
    /// belongs there is sent there once more.
    fn note_tried(&mut self, is_stale: bool) {
        let Some(address) = self.endpoint else { return };
        if is_stale && self.wish.is_some() && self.spared != Some(address) {
            self.spared = Some(address);
        } else {
            self.tried.add(address);
        }
    }

    /// Tells the endpoint of the current attempt, if there is one, what fault has ended it.
    pub fn note(&mut self, upstream: &Upstream, fault: &Fault, asked: &Asked<'_>) {
        self.learn(upstream, Err(fault), asked);
    }

    fn learn(
        &mut self,
        upstream: &Upstream,
        came: Result<&ResponseHeader, &Fault>,
        asked: &Asked<'_>,
    ) -> Option<Answering> {
        let current = self.current.as_ref()?;
        let (is_first, now) = (self.made == 1 && !self.is_hurried, Instant::now());
        let of = Of { is_sent: asked.sent.is_some(), is_first, http2: upstream.http2 };
        let came = Came::of(came, asked, (is_first, upstream.http2), now);
        let noted = upstream.pool.note(&current.endpoint, current.pass, &came, now);
        Answering::new(&upstream.pool, &current.endpoint, noted, of)
    }

    /// The answer of the last attempt, if its end is of interest: for whoever reads it.
    pub fn answering(&mut self) -> Option<Answering> {
        self.answering.take()
    }

    /// The answer of the last attempt is not read: what its header says is all.
    pub fn decline(&mut self) {
        if let Some(mut answering) = self.answering.take() {
            answering.ended(None);
        }
    }

    /// Whether an answer with this status wants the request once more, with something else to show.
    pub async fn is_refused(&mut self, upstream: &Upstream, status: StatusCode, replayable: bool) -> bool {
        let bound = self.bound(upstream);
        self.shown.is_refused(upstream, status, replayable, bound).await
    }

    /// Whether an answer could still turn out to want that.
    pub fn may_be_refused(&self, upstream: &Upstream) -> bool {
        self.shown.may_repeat(upstream)
    }

    /// Ends the current attempt, if there is one, without a word on its endpoint: the client has ended it. How long it took.
    pub fn leave(&mut self) -> Duration {
        let took = self.current.take().map(|current| current.started.elapsed()).unwrap_or_default();
        self.waited += took;
        took
    }
}
