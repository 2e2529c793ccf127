use std::sync::Arc;

use proptest::prelude::*;

use super::{
    super::{watch::tests::*, window::Counts},
    *,
};

fn plan() -> Plan {
    Plan {
        whole: false,
        window: Duration::from_secs(10),
        min_requests: 4,
        error_ratio: 0.5,
        consecutive: None,
        slow: None,
        statuses: statuses(),
        open_for: Duration::from_secs(15),
        probes: 3,
    }
}

fn breaker(plan: Plan) -> Breaker {
    Breaker::new(plan, notes())
}

/// An answer that ends as it began.
fn learn(breaker: &Breaker, pass: Pass, came: &Came<'_>, now: Instant) {
    if let Some(noted) = breaker.note(pass, came, now) {
        breaker.note_end(pass, noted, came, now);
    }
}

/// A request that comes and goes at once.
fn pass(breaker: &Breaker, came: &Came<'_>, now: Instant) -> bool {
    let Some(pass) = breaker.enter(now) else { return false };
    learn(breaker, pass, came, now);
    if pass.is_probe {
        breaker.end(pass);
    }
    true
}

fn phase(breaker: &Breaker) -> Phase {
    breaker.shown().phase
}

/// An open one, and when it lets the first through.
fn open() -> (Breaker, Instant) {
    let (breaker, now) = (breaker(Plan { consecutive: Some(1), ..plan() }), Instant::now());
    assert!(pass(&breaker, &broken(), now));
    assert_eq!(phase(&breaker), Phase::Open);
    (breaker, now + plan().open_for)
}

#[test]
fn a_share_of_failures_opens_it() {
    let (breaker, now) = (breaker(plan()), Instant::now());
    for came in [answer(200), answer(404), answer(503)] {
        assert!(pass(&breaker, &came, now));
    }
    assert_eq!(phase(&breaker), Phase::Closed);
    assert!(pass(&breaker, &answer(502), now));
    let shown = breaker.shown();
    assert_eq!((shown.phase, &*shown.why), (Phase::Open, "2 of 4 requests failed; the last: status 502"));
    assert!(!pass(&breaker, &answer(200), now) && !breaker.would_pass(now));
    assert_eq!(breaker.left(now + Duration::from_secs(5)), Duration::from_secs(10));
}

#[test]
fn what_says_nothing_opens_nothing() {
    let (breaker, now) = (breaker(Plan { consecutive: Some(2), ..plan() }), Instant::now());
    for _ in 0..100 {
        assert!(pass(&breaker, &neutral(), now) && pass(&breaker, &answer(404), now));
    }
    assert_eq!(phase(&breaker), Phase::Closed);
    assert!(pass(&breaker, &broken(), now) && pass(&breaker, &neutral(), now));
    assert!(pass(&breaker, &answer(500), now), "a 500 is no failure of a gateway");
    assert!(pass(&breaker, &broken(), now));
    assert_eq!(phase(&breaker), Phase::Closed, "not in a row");
    assert!(pass(&breaker, &broken(), now));
    assert_eq!(phase(&breaker), Phase::Open);
}

#[test]
fn slow_answers_open_it_if_asked_for() {
    let slow_is = Some((Duration::from_millis(100), 0.75));
    let (breaker, now) = (breaker(Plan { slow: slow_is, ..plan() }), Instant::now());
    for millis in [50, 101, 200] {
        assert!(pass(&breaker, &slow(millis), now));
    }
    assert_eq!(phase(&breaker), Phase::Closed);
    assert!(pass(&breaker, &slow(300), now));
    assert_eq!(breaker.shown().why, "3 of 4 answers took longer than 100ms; the last: status 200 after 300 ms");
    let later = now + plan().open_for;
    assert!(pass(&breaker, &slow(300), later));
    assert_eq!(phase(&breaker), Phase::Open, "a slow probe is a failed one");
}

#[test]
fn half_open_lets_exactly_so_many_through_and_closes_after_so_many_successes() {
    let (breaker, now) = open();
    assert!(breaker.would_pass(now));
    let passes: Vec<Pass> = (0..10).filter_map(|_| breaker.enter(now)).collect();
    assert_eq!((passes.len(), phase(&breaker)), (3, Phase::HalfOpen));
    assert!(!breaker.would_pass(now) && passes.iter().all(|pass| pass.is_probe));
    for pass in &passes[..2] {
        learn(&breaker, *pass, &answer(200), now);
        breaker.end(*pass);
    }
    assert_eq!(phase(&breaker), Phase::HalfOpen);
    learn(&breaker, passes[2], &answer(200), now);
    assert_eq!(phase(&breaker), Phase::Closed);
    breaker.end(passes[2]);
    assert!(breaker.enter(now).is_some_and(|pass| !pass.is_probe));
}

#[test]
fn a_failed_probe_opens_it_again() {
    let (breaker, now) = open();
    let (first, second) = (breaker.enter(now).unwrap(), breaker.enter(now).unwrap());
    learn(&breaker, first, &answer(200), now);
    learn(&breaker, second, &answer(503), now);
    assert_eq!(phase(&breaker), Phase::Open);
    assert_eq!(breaker.left(now), plan().open_for);
    // What comes late belongs to another phase.
    let again = now + plan().open_for;
    let third = breaker.enter(again).unwrap();
    learn(&breaker, first, &broken(), again);
    breaker.end(first);
    breaker.end(second);
    assert_eq!((phase(&breaker), breaker.probes.load(Ordering::Relaxed)), (Phase::HalfOpen, 1));
    breaker.end(third);
}

#[test]
fn a_probe_that_says_nothing_gives_its_place_back() {
    let (breaker, now) = open();
    for _ in 0..10 {
        let passes: Vec<Pass> = (0..4).filter_map(|_| breaker.enter(now)).collect();
        assert_eq!(passes.len(), 3);
        for pass in passes {
            breaker.end(pass);
        }
    }
    for _ in 0..3 {
        assert!(pass(&breaker, &answer(200), now));
    }
    assert_eq!(phase(&breaker), Phase::Closed);
}

#[test]
fn what_was_sent_before_it_opened_does_not_judge_what_comes_after() {
    let (breaker, now) = (breaker(Plan { consecutive: Some(2), ..plan() }), Instant::now());
    let early: Vec<Pass> = (0..5).map(|_| breaker.enter(now).unwrap()).collect();
    learn(&breaker, early[0], &broken(), now);
    learn(&breaker, early[1], &broken(), now);
    assert_eq!(phase(&breaker), Phase::Open);
    let later = now + plan().open_for;
    for _ in 0..3 {
        assert!(pass(&breaker, &answer(200), later));
    }
    for pass in &early[2..] {
        learn(&breaker, *pass, &broken(), later);
    }
    assert_eq!(phase(&breaker), Phase::Closed);
}

#[test]
fn many_at_once_never_pass_by_the_bound() {
    let (breaker, now) = open();
    let breaker = Arc::new(breaker);
    let passed: usize = std::thread::scope(|scope| {
        let enter = || (0..1000).filter(|_| breaker.enter(now).is_some()).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(enter)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(passed, 3);
}

proptest! {
    /// Whatever happens, it lets no more through than it may, and comes back once all is well.
    #[test]
    fn it_never_wedges(steps in prop::collection::vec((0_u8..5, 0_u64..20_000), 0..200)) {
        let (breaker, mut now) = (breaker(Plan { consecutive: Some(3), ..plan() }), Instant::now());
        let mut inside: Vec<Pass> = Vec::new();
        for (step, pause) in steps {
            now += Duration::from_millis(pause);
            match step {
                0 | 1 => inside.extend(breaker.enter(now)),
                2 | 3 => if let Some(pass) = inside.pop() {
                    learn(&breaker, pass, &if step == 2 { broken() } else { answer(200) }, now);
                    breaker.end(pass);
                },
                _ => if !inside.is_empty() { breaker.end(inside.remove(0)) },
            }
            let number = breaker.now_in().1;
            let probes = inside.iter().filter(|pass| pass.is_probe && pass.number == number).count();
            prop_assert!(probes <= 3);
        }
        for pass in inside {
            breaker.end(pass);
        }
        now += plan().open_for;
        for _ in 0..3 {
            prop_assert!(pass(&breaker, &answer(200), now));
        }
        prop_assert_eq!(phase(&breaker), Phase::Closed);
    }
}

#[test]
fn the_end_of_an_answer_may_turn_a_success_into_a_failure() {
    let (breaker, now) = (breaker(Plan { consecutive: Some(2), ..plan() }), Instant::now());
    let cut = |at: Instant| {
        let pass = breaker.enter(at).unwrap();
        let noted = breaker.note(pass, &answer(200), at).unwrap();
        breaker.note_end(pass, noted, &broken(), at);
        breaker.end(pass);
    };
    cut(now);
    assert_eq!(breaker.tally.counts(plan().window, now), Counts { all: 1, failed: 1, slow: 0 });
    cut(now);
    assert_eq!(phase(&breaker), Phase::Open);
    let later = now + plan().open_for;
    let probe = breaker.enter(later).unwrap();
    let noted = breaker.note(probe, &answer(200), later).unwrap();
    assert!(matches!(noted, Noted::Probe));
    breaker.note_end(probe, noted, &neutral(), later);
    assert_eq!(phase(&breaker), Phase::HalfOpen, "an end that says nothing");
    cut(later);
    assert_eq!(phase(&breaker), Phase::Open);
    breaker.note_end(probe, noted, &answer(200), later);
    assert_eq!(phase(&breaker), Phase::Open, "it belongs to another phase");
}
