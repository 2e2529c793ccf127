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
    Endpoint, Upstream, Wish, auth::Shown, breaker::Pass, bulkhead::Hold, choice::Tried, retry::Failed,
    state::InFlight, watch::Came,
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
    shown: Shown,
    hold: Hold,
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
    /// None made yet; `deadline` bounds them all.
    pub fn until(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..Self::default() }
    }

    /// The bound of all attempts, at most the upstream's own.
    fn bound(&self, upstream: &Upstream) -> Instant {
        self.deadline.unwrap_or_else(|| Instant::now() + upstream.timeouts.total)
    }

    /// Begins the next attempt: its endpoint, and its place among the requests there. Waits where there must be something
    /// to show to the upstream first.
    pub async fn begin(&mut self, upstream: &Upstream) -> Result<(Arc<Endpoint>, InFlight), Fault> {
        let bound = self.bound(upstream);
        self.shown.choose(upstream, bound).await?;
        self.enter(upstream, bound).await?;
        let started = Instant::now();
        if started >= bound {
            return Err(Fault::Deadline);
        }
        let (endpoint, place) = upstream.pool.enter(&self.wish, &self.tried, started)?;
        if self.made > 0 {
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

    /// The endpoint of the current attempt.
    pub fn current(&self) -> Option<&Arc<Endpoint>> {
        self.current.as_ref().map(|current| &current.endpoint)
    }

    /// Writes what this attempt shows into a request that nobody else will change or see.
    pub fn sign(&self, req: &mut RequestHeader) -> Result<(), Fault> {
        self.shown.write(req)
    }

    /// Ends the current attempt with the endpoint's answer or with a fault; whether to make another.
    pub fn settle(&mut self, upstream: &Upstream, came: Result<&ResponseHeader, &Fault>, asked: &Asked<'_>) -> bool {
        self.note(upstream, came, asked);
        let took = self.leave();
        let failed = Failed {
            attempts: self.made - self.shown.repeats(),
            method: asked.method,
            replayable: asked.replayable,
            reused: asked.reused,
        };
        let again = match came {
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
        let again = again && self.deadline.is_none_or(|deadline| Instant::now() < deadline);
        if again {
            self.note_tried(asked.reused && matches!(came, Err(Fault::Reset(_) | Fault::Unprocessed(_))));
        }
        again
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

    /// Tells the endpoint of the current attempt, if there is one, what came of it.
    pub fn note(&self, upstream: &Upstream, came: Result<&ResponseHeader, &Fault>, asked: &Asked<'_>) {
        let Some(current) = &self.current else { return };
        let (first, now) = (self.made == 1 && !self.is_hurried, Instant::now());
        let came = Came::of(came, asked, (first, upstream.http2), now);
        upstream.pool.note(&current.endpoint, current.pass, &came, now);
    }

    /// Whether an answer with this status wants the request once more, with something else to show.
    pub async fn is_refused(&mut self, upstream: &Upstream, status: StatusCode, replayable: bool) -> bool {
        let bound = self.bound(upstream);
        self.shown.is_refused(upstream, status, replayable, bound).await
    }

    /// Ends the current attempt, if there is one, without a word on its endpoint: the client has ended it. How long it took.
    pub fn leave(&mut self) -> Duration {
        let took = self.current.take().map(|current| current.started.elapsed()).unwrap_or_default();
        self.waited += took;
        took
    }
}
