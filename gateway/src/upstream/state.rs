//! What is known about an endpoint, across reloads: requests there now, what probes have found, how its answers were.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::{
    breaker::{self, Breaker, Pass},
    health::{self, Health, Probing, Target},
    outlier::{self, Learnt, Outlier},
    tally::Success,
    warmth::Warmth,
    watch::{Came, Event, Notes, Watch},
};

/// What is known about an endpoint, across reloads.
#[derive(Default)]
pub struct EndpointState {
    in_flight: AtomicUsize,
    /// Since when it has been in use without a break.
    pub warmth: Warmth,
    watched: ArcSwapOption<Watched>,
    health: Health,
    outlier: Outlier,
    /// The circuit that requests to this endpoint pass: its own, or the upstream's.
    breaker: ArcSwapOption<Breaker>,
    /// Held while the rules change.
    probing: Mutex<Option<Probing>>,
}

/// The rules in force, and where changes of this endpoint are told.
struct Watched {
    watch: Arc<Watch>,
    notes: Notes,
}

/// What is shown of an endpoint.
pub struct Shown {
    /// Whether it gets requests.
    pub is_available: bool,
    /// What probes have found; none if nobody probes.
    pub health: Option<health::Shown>,
    /// Its ejection, if it is ejected.
    pub ejected: Option<outlier::Shown>,
    /// Its own circuit, if it has one.
    pub circuit: Option<breaker::Shown>,
}

impl EndpointState {
    /// Requests at this endpoint now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it may get a request: probes leave it in use, it is not ejected, and its circuit would let one through.
    pub fn is_available(&self, now: Instant) -> bool {
        self.is_well(now) && self.is_permitted(now)
    }

    /// Whether probes and answers speak for it.
    pub(super) fn is_well(&self, now: Instant) -> bool {
        if self.outlier.end_if_over(now) {
            self.warmth.begin(now);
            self.tell(Event::Returned, "the time is over");
        }
        self.health.is_healthy() && !self.outlier.is_ejected(now)
    }

    /// Whether its circuit would let a request through.
    pub(super) fn is_permitted(&self, now: Instant) -> bool {
        self.breaker.load().as_ref().is_none_or(|breaker| breaker.would_pass(now))
    }

    /// How long its circuit still lets nothing through.
    pub(super) fn closed_for(&self, now: Instant) -> Duration {
        self.breaker.load().as_ref().map_or(Duration::ZERO, |breaker| breaker.left(now))
    }

    /// Goes by these rules from now on, unless those of a later configuration are known already. What is known stays,
    /// where the rules still ask for it.
    pub(super) fn follow(self: &Arc<Self>, watch: &Arc<Watch>, name: &str, target: impl FnOnce() -> Target) {
        let mut probing = self.probing.lock();
        let before = self.watched.load_full();
        if before.as_ref().is_some_and(|before| before.watch.generation > watch.generation) {
            return;
        }
        let notes = watch.notes.about(name);
        let mine = |plan: &breaker::Plan| {
            let own = || Arc::new(Breaker::new(plan.clone(), notes.clone()));
            let kept = self.breaker.load_full().filter(|kept| kept.plan() == plan);
            kept.unwrap_or_else(own)
        };
        let breaker = watch.whole.clone().or_else(|| watch.breaker.as_ref().map(mine));
        self.breaker.store(breaker);
        match &watch.outlier {
            None => self.outlier.forget(),
            Some(plan) if before.is_some_and(|before| before.watch.outlier.as_ref() != Some(plan)) => {
                self.outlier.begin_anew();
            }
            Some(_) => {}
        }
        self.watched.store(Some(Arc::new(Watched { watch: Arc::clone(watch), notes })));
        match &watch.health {
            None => {
                *probing = None;
                self.health.forget();
            }
            Some(plan) if probing.as_ref().is_some_and(|probing| probing.goes_by(plan)) => {}
            Some(plan) => *probing = Some(Probing::start(self, Arc::clone(plan), target())),
        }
    }

    /// Learns the outcome of a probe; whether the endpoint is healthy.
    pub(super) fn probed(&self, plan: &health::Plan, outcome: Result<(), String>, now: Instant) -> bool {
        if let Some(watched) = &*self.watched.load() {
            watched.notes.metrics.probed(outcome.is_ok());
        }
        let why = outcome.as_ref().err().cloned();
        match self.health.learn(plan, outcome) {
            Some(true) => {
                self.warmth.begin(now);
                self.tell(Event::Healthy, "probes succeed");
                // Probes have seen it fail, and have seen it recover: there is no reason to wait for longer.
                if self.outlier.end(now) {
                    self.tell(Event::Returned, "probes succeed");
                }
            }
            Some(false) => self.tell(Event::Unhealthy, &why.unwrap_or_default()),
            None => {}
        }
        self.health.is_healthy()
    }

    /// Learns what came of a request that had this pass: what the end of its answer may still change, and why the endpoint
    /// should be ejected, if it should.
    pub(super) fn note(&self, pass: Option<Pass>, came: &Came<'_>, now: Instant) -> (Noted, Option<Ejection>) {
        let mut noted = Noted::default();
        if let (Some(pass), Some(breaker)) = (pass, &*self.breaker.load()) {
            noted.circuit = breaker.note(pass, came, now).map(|noted| (pass, noted));
        }
        let watched = self.watched.load();
        let rules = watched.as_ref().and_then(|watched| Some((&watched.watch, watched.watch.outlier.as_ref()?)));
        let Some((watch, plan)) = rules else { return (noted, None) };
        match self.outlier.note(plan, came, now) {
            Learnt::Nothing => (noted, None),
            Learnt::Success(success) => {
                noted.success = Some(success);
                (noted, None)
            }
            Learnt::Failure(why) => (noted, why.map(|why| Ejection { watch: Arc::clone(watch), why })),
        }
    }

    /// Learns what the answer to a request has come to in the end. Why the endpoint should be ejected, if it should.
    pub(super) fn note_end(&self, noted: &Noted, came: &Came<'_>, now: Instant) -> Option<Ejection> {
        if let (Some((pass, noted)), Some(breaker)) = (noted.circuit, &*self.breaker.load()) {
            breaker.note_end(pass, noted, came, now);
        }
        let watched = self.watched.load();
        let watch = &watched.as_ref()?.watch;
        let why = self.outlier.note_end(watch.outlier.as_ref()?, noted.success?, came, now)?;
        Some(Ejection { watch: Arc::clone(watch), why })
    }

    /// Ejects it.
    pub(super) fn eject(&self, plan: &outlier::Plan, why: &str, now: Instant) {
        let time = self.outlier.eject(plan, why, now);
        self.tell(Event::Ejected, &format!("{why}; for {} ms", time.as_millis()));
    }

    /// Whether it is ejected now.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.outlier.is_ejected(now)
    }

    fn tell(&self, event: Event, reason: &str) {
        if let Some(watched) = &*self.watched.load() {
            watched.notes.tell(event, reason);
        }
    }

    /// What is shown of it.
    pub fn shown(&self, now: Instant) -> Shown {
        let watched = self.watched.load();
        let watch = watched.as_ref().map(|watched| &watched.watch);
        let own = watch.is_some_and(|watch| watch.whole.is_none());
        Shown {
            is_available: self.is_available(now),
            health: watch.is_some_and(|watch| watch.health.is_some()).then(|| self.health.shown()),
            ejected: self.outlier.shown(now),
            circuit: self.breaker.load().as_ref().filter(|_| own).map(|breaker| breaker.shown()),
        }
    }
}

/// What has been learnt from the header of an answer, and its end may still change.
#[derive(Debug, Default)]
pub(super) struct Noted {
    success: Option<Success>,
    circuit: Option<(Pass, breaker::Noted)>,
}

impl Noted {
    /// Whether the end of the answer changes nothing.
    pub(super) fn is_final(&self) -> bool {
        self.success.is_none() && self.circuit.is_none()
    }

    /// Whether the answer is waited for, before a half-open circuit learns anything.
    pub(super) fn is_probe(&self) -> bool {
        matches!(self.circuit, Some((_, breaker::Noted::Probe)))
    }
}

/// An endpoint that should be ejected, if there is room.
pub(super) struct Ejection {
    pub(super) watch: Arc<Watch>,
    pub(super) why: String,
}

/// A request at an endpoint; ends when dropped, however the request ends.
pub struct InFlight {
    state: Arc<EndpointState>,
    /// Leave of the circuit.
    pass: Option<Pass>,
    /// The circuit that wants it back.
    probe: Option<Arc<Breaker>>,
}

impl InFlight {
    /// Counts a request in, if the endpoint's circuit lets it through.
    pub(super) fn enter(state: &Arc<EndpointState>, now: Instant) -> Option<Self> {
        let (mut pass, mut probe) = (None, None);
        if let Some(breaker) = &*state.breaker.load() {
            let given = breaker.enter(now)?;
            pass = Some(given);
            probe = given.is_probe.then(|| Arc::clone(breaker));
        }
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Self { state: Arc::clone(state), pass, probe })
    }

    /// The leave of the circuit, for whoever learns what came of the request.
    pub(super) fn pass(&self) -> Option<Pass> {
        self.pass
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let (Some(breaker), Some(pass)) = (&self.probe, self.pass) {
            breaker.end(pass);
        }
    }
}
