//! What a pool does with what is learnt of its endpoints.

use std::{sync::Arc, time::Instant};

use crossway_plugin_api::Fault;

use super::{
    Endpoint, Pool,
    breaker::Pass,
    exchange::Exchange,
    health::Target,
    state::{Ejection, Noted},
    watch::{Came, Watch},
};

impl Pool {
    /// Watches the endpoints by these rules from now on, those that a name resolves to later included. Needs a runtime.
    pub fn watch(&self, watch: &Arc<Watch>, exchange: &Arc<Exchange>) {
        self.watched.store(Some(Arc::new((Arc::clone(watch), Arc::clone(exchange)))));
        self.watch_all();
    }

    /// Tells each endpoint the rules, if there are any yet.
    pub(super) fn watch_all(&self) {
        let watched = self.watched.load();
        let Some((watch, exchange)) = watched.as_deref() else { return };
        for endpoint in &self.current.load().endpoints {
            let target =
                || Target { endpoint: Arc::clone(endpoint), http2: watch.http2, exchange: Arc::clone(exchange) };
            endpoint.state.follow(watch, &endpoint.address.to_string(), target);
        }
    }

    /// Learns what came of a request to one of the endpoints that had this pass. What the end of its answer may still change.
    pub(super) fn note(&self, endpoint: &Endpoint, pass: Option<Pass>, came: &Came<'_>, now: Instant) -> Noted {
        let (noted, ejection) = endpoint.state.note(pass, came, now);
        if let Some(ejection) = ejection {
            self.eject(endpoint, &ejection, now);
        }
        noted
    }

    /// Learns what the answer to such a request has come to in the end.
    pub(super) fn note_end(&self, endpoint: &Endpoint, noted: &Noted, came: &Came<'_>, now: Instant) {
        if let Some(ejection) = endpoint.state.note_end(noted, came, now) {
            self.eject(endpoint, &ejection, now);
        }
    }

    /// Ejects an endpoint, if there is room.
    fn eject(&self, endpoint: &Endpoint, ejection: &Ejection, now: Instant) {
        let Some(plan) = &ejection.watch.outlier else { return };
        let registry = self.registry.upgrade();
        let _one_at_a_time = registry.as_ref().map(|registry| registry.ejecting.lock());
        let current = self.current.load();
        let ejected = current.endpoints.iter().filter(|other| other.state.is_ejected(now)).count();
        let is_other = |other: &&Arc<Endpoint>| !Arc::ptr_eq(&other.state, &endpoint.state);
        let is_last = !current.endpoints.iter().filter(is_other).any(|other| other.state.is_available(now));
        let has_room = ejected < plan.room(current.endpoints.len()) && (!is_last || plan.may_take_all());
        if has_room && !endpoint.state.is_ejected(now) {
            endpoint.state.eject(plan, &ejection.why, now);
        }
    }

    /// Why no endpoint can be used.
    pub(super) fn refusal(&self, now: Instant) -> Fault {
        let current = self.current.load();
        let use_all = self.watched.load().as_ref().is_some_and(|watched| watched.0.use_all);
        let well = current.endpoints.iter().filter(|endpoint| use_all || endpoint.state.is_well(now));
        match well.map(|endpoint| endpoint.state.closed_for(now)).min() {
            // Whole seconds, rounded up; a half-open circuit may have room at any time.
            Some(left) => Fault::CircuitOpen {
                retry_after: left.as_secs() + u64::from(left.subsec_nanos() > 0 || left.is_zero()),
            },
            None => Fault::NoEndpoint,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Weak, time::Duration};

    use crossway_plugin_api::config::Percent;

    use super::*;
    use crate::upstream::{
        Registry, Wish, breaker,
        choice::{Rule, Tried},
        dns::Member,
        names::Names,
        outlier,
        peer::Transport,
        pool::Settings,
        watch::tests::{answer, broken, notes, statuses},
    };

    fn settings() -> Settings {
        let transport = Transport { tls: None, http2: false };
        Settings { transport, rule: Rule::InTurn, slow_start: None, names: Names::default(), tags: None }
    }

    fn outlier() -> outlier::Plan {
        outlier::Plan {
            consecutive: 2,
            ratio: Some((0.5, 100)),
            window: Duration::from_secs(10),
            latency: None,
            statuses: statuses(),
            eject_for: Duration::from_secs(30),
            max_eject_for: Duration::from_mins(5),
            max_ejected: Percent(50),
        }
    }

    fn circuit() -> breaker::Plan {
        breaker::Plan {
            whole: false,
            window: Duration::from_secs(10),
            min_requests: 20,
            error_ratio: 0.5,
            consecutive: Some(4),
            slow: None,
            statuses: statuses(),
            open_for: Duration::from_secs(15),
            probes: 1,
        }
    }

    fn watch(generation: u64, outlier: Option<outlier::Plan>, breaker: Option<breaker::Plan>) -> Arc<Watch> {
        Arc::new(Watch {
            generation,
            http2: false,
            health: None,
            outlier,
            breaker,
            whole: None,
            use_all: false,
            notes: notes(),
        })
    }

    fn pool(registry: &Arc<Registry>, endpoints: u16, watch: &Arc<Watch>) -> Arc<Pool> {
        let members = (1..=endpoints).map(|port| Member::parse(&format!("127.0.0.1:{port}"), 80).unwrap()).collect();
        let pool = registry.pool("erp", members, settings());
        follow(&pool, watch);
        pool
    }

    /// As `Pool::watch` does, without what makes connections: nobody probes.
    fn follow(pool: &Pool, watch: &Arc<Watch>) {
        for endpoint in pool.endpoints() {
            endpoint.state.follow(watch, "it", || unreachable!("nobody probes"));
        }
    }

    fn fail(pool: &Pool, endpoint: &Endpoint, times: usize, now: Instant) {
        for _ in 0..times {
            let Some(place) = endpoint.enter(now) else { return };
            pool.note(endpoint, place.pass(), &broken(), now);
        }
    }

    #[test]
    fn what_is_ejected_is_not_chosen_and_half_stays() {
        let (registry, now) = (Arc::default(), Instant::now());
        let pool = pool(&registry, 4, &watch(1, Some(outlier()), None));
        let all = pool.endpoints();
        for endpoint in &all {
            fail(&pool, endpoint, 5, now);
        }
        let is_out = |endpoint: &Arc<Endpoint>| endpoint.state.is_ejected(now);
        assert_eq!(all.iter().filter(|one| is_out(one)).count(), 2);
        for _ in 0..10 {
            assert!(!is_out(&pool.choose(&Wish::default(), &Tried::default(), now).unwrap()));
        }
        let later = now + Duration::from_secs(30);
        let chosen: Vec<_> = (0..4)
            .filter_map(|_| pool.choose(&Wish::default(), &Tried::default(), later))
            .map(|one| one.address)
            .collect();
        assert_eq!(chosen.len(), 4);
        assert!(all.iter().all(|one| chosen.contains(&one.address)), "each is back: {chosen:?}");
        let age = all[0].state.warmth.age(later + Duration::from_secs(1));
        assert_eq!(age.map(|age| age.as_millis()), Some(1000), "it begins slowly");
    }

    #[test]
    fn where_only_circuits_are_in_the_way_that_is_said() {
        let (registry, now) = (Arc::default(), Instant::now());
        let pool = pool(&registry, 2, &watch(1, None, Some(circuit())));
        for endpoint in &pool.endpoints() {
            fail(&pool, endpoint, 4, now);
        }
        let refusal = |now| pool.enter(&Wish::default(), &Tried::default(), now).map(|_| ()).unwrap_err();
        assert_eq!(refusal(now), Fault::CircuitOpen { retry_after: 15 });
        assert_eq!(refusal(now + Duration::from_millis(14_001)), Fault::CircuitOpen { retry_after: 1 });
        let later = now + Duration::from_secs(15);
        let (first, second) = (
            pool.enter(&Wish::default(), &Tried::default(), later).unwrap(),
            pool.enter(&Wish::default(), &Tried::default(), later).unwrap(),
        );
        assert_ne!(first.0.address, second.0.address, "one probe for each");
        assert_eq!(refusal(later), Fault::CircuitOpen { retry_after: 1 });
        drop(first);
        assert!(pool.enter(&Wish::default(), &Tried::default(), later).is_ok(), "the place is given back");
    }

    #[test]
    fn rules_of_an_earlier_configuration_do_not_come_back() {
        let (registry, now) = (Arc::default(), Instant::now());
        let pool = pool(&registry, 2, &watch(2, Some(outlier()), None));
        let endpoint = Arc::clone(&pool.endpoints()[0]);
        follow(&pool, &watch(1, None, None));
        fail(&pool, &endpoint, 2, now);
        assert!(endpoint.state.is_ejected(now));
        follow(&pool, &watch(3, Some(outlier::Plan { consecutive: 9, ..outlier() }), None));
        assert!(endpoint.state.is_ejected(now), "changed rules");
        follow(&pool, &watch(4, None, None));
        assert!(endpoint.state.is_available(now), "no rules");
    }

    #[test]
    fn what_nobody_wants_is_gone() {
        let registry = Arc::default();
        let pool = pool(&registry, 1, &watch(1, Some(outlier()), Some(circuit())));
        let state = Arc::downgrade(&pool.endpoints()[0].state);
        drop(pool);
        assert!(Weak::upgrade(&state).is_none());
    }

    /// What all is well costs each request: no lock, and next to no time.
    #[test]
    fn a_note_is_cheap() {
        const NOTES: u32 = 100_000;
        let registry = Arc::default();
        let pool = pool(&registry, 3, &watch(1, Some(outlier()), Some(circuit())));
        let came = answer(200);
        let began = Instant::now();
        for _ in 0..NOTES {
            let now = Instant::now();
            let (endpoint, place) = pool.enter(&Wish::default(), &Tried::default(), now).unwrap();
            pool.note(&endpoint, place.pass(), &came, now);
        }
        let each = began.elapsed() / NOTES;
        println!("to choose an endpoint, enter it and note what came: {each:?}");
        assert!(each < Duration::from_micros(50), "{each:?}");
    }
}
