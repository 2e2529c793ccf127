use std::{sync::atomic::AtomicU32, thread};

use super::*;
use crate::rate_limit::period::Period;

const NOW: Moment = Moment { steady: 1_000, wall: 1_000 };
const MANY: usize = 1_000_000;

fn rate(quota: u32) -> Limit {
    Limit::rate(quota, Period::Seconds(60), quota, 0).unwrap()
}

fn ask(n: u64, limit: Limit, cost: u32) -> Ask {
    let key = Key::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), limit.is_window());
    Ask {
        policy: 0,
        key,
        name: None,
        limit,
        cost,
        shadow: false,
        wait: None,
        kept: Kept::default(),
        used: 0,
        standing: Standing::default(),
    }
}

fn decide(local: &Local, asks: &mut [Ask]) -> bool {
    local.decide(asks, MANY, NOW).granted
}

fn left(local: &Local, of: &Ask) -> u32 {
    let mut probe = [Ask { cost: 0, ..*of }];
    decide(local, &mut probe);
    probe[0].standing.remaining
}

#[test]
fn all_are_used_or_none() {
    let local = Local::new(MANY);
    let window = Limit::window(5, Period::Seconds(3_600), 0).unwrap();
    let mut asks = [ask(1, rate(10), 1), ask(2, window, 1), ask(3, rate(3), 1)];
    for _ in 0..3 {
        assert!(decide(&local, &mut asks));
    }
    assert_eq!(asks.map(|ask| ask.standing.remaining), [7, 2, 0]);
    for _ in 0..5 {
        assert!(!decide(&local, &mut asks));
    }
    assert_eq!(asks.map(|ask| ask.wait.is_some()), [false, false, true]);
    assert_eq!(asks.map(|ask| ask.standing.remaining), [7, 2, 0], "those that had room are as they were");
    assert_eq!(asks.map(|ask| left(&local, &ask)), [7, 2, 0]);
}

#[test]
fn a_shadow_counts_and_refuses_nobody() {
    let local = Local::new(MANY);
    let mut asks = [ask(1, rate(3), 1), Ask { shadow: true, ..ask(2, rate(1), 1) }];
    let seen: Vec<_> = (0..4).map(|_| (decide(&local, &mut asks), asks[1].wait.is_some())).collect();
    assert_eq!(seen, [(true, false), (true, true), (true, true), (false, true)]);
    assert_eq!((left(&local, &asks[0]), left(&local, &asks[1])), (0, 0));
}

#[test]
fn many_keys_in_one_part_are_locked_once() {
    let local = Local::new(1);
    let mut asks: [Ask; MAX_ASKS] = std::array::from_fn(|n| ask(n as u64 + 1, rate(2), 1));
    assert!(decide(&local, &mut asks) && decide(&local, &mut asks) && !decide(&local, &mut asks));
    assert!(decide(&local, &mut []));
}

/// Asks for two of three limits again and again, in an order of its own; how often each was granted.
fn ask_for_pairs(local: &Local, thread: u64, passed: &[AtomicU32; 3]) {
    for round in 0..3_000_u64 {
        let one = (round + thread) % 3;
        let pair = [one, (one + 1 + (round + thread) / 3 % 2) % 3];
        if decide(local, &mut pair.map(|n| ask(n + 1, rate(1_000), 1))) {
            let _counts = pair.map(|n| passed[usize::try_from(n).unwrap()].fetch_add(1, Ordering::Relaxed));
        }
    }
}

#[test]
fn threads_never_get_one_too_many() {
    let local = Local::new(MANY);
    let passed: [AtomicU32; 3] = Default::default();
    thread::scope(|scope| {
        for thread in 0..8 {
            let (local, passed) = (&local, &passed);
            scope.spawn(move || ask_for_pairs(local, thread, passed));
        }
    });
    let passed = passed.map(|count| count.load(Ordering::Relaxed));
    assert!(passed.iter().all(|count| *count <= 1_000), "{passed:?}");
    assert!(passed.iter().filter(|count| **count == 1_000).count() >= 2, "nobody can pass any more: {passed:?}");
    for (n, count) in (1..).zip(passed) {
        assert_eq!(left(&local, &ask(n, rate(1_000), 1)), 1_000 - count, "none is lost");
    }
}

#[test]
fn what_costs_afterwards_leads_into_debt() {
    let local = Local::new(MANY);
    let limit = Limit::rate(10, Period::Seconds(10), 10, 5).unwrap();
    let mut asks = [ask(1, limit, 1)];
    assert!(decide(&local, &mut asks));
    assert_eq!(local.settle(&asks[0], 4, MANY, NOW).0.remaining, 5);
    assert_eq!(local.settle(&asks[0], 1_000, MANY, NOW).0.remaining, 0);
    assert!(!decide(&local, &mut asks));
    assert_eq!(asks[0].wait, Some(6_000_000_000));
}

#[test]
fn the_store_is_bounded() {
    const BOUND: usize = 5_000;
    let local = Local::new(BOUND);
    let mut evicted = 0;
    for n in 0..20_000 {
        evicted += local.decide(&mut [ask(n, rate(10), 1)], BOUND, NOW).evicted;
        assert!(local.len() <= BOUND + local.parts.len(), "{}", local.len());
    }
    assert!(evicted >= 14_000, "{evicted}");
    // A caller that has used much is remembered better than those that come once.
    let heavy = ask(1 << 40, rate(10), 10);
    assert!(local.decide(&mut [heavy], BOUND, NOW).granted);
    for n in 30_000..40_000 {
        local.decide(&mut [ask(n, rate(10), 1)], BOUND, NOW);
    }
    assert!(!local.decide(&mut [heavy], BOUND, NOW).granted);
    // A reload makes the bound smaller.
    for n in 50_000..60_000 {
        local.decide(&mut [ask(n, rate(10), 1)], 1_000, NOW);
    }
    assert!(local.len() <= 1_000 + local.parts.len(), "{}", local.len());
}

#[test]
fn what_is_full_again_makes_room_without_a_loss() {
    let local = Local::new(5_000);
    for n in 0..5_000 {
        local.decide(&mut [ask(n, rate(10), 1)], 5_000, NOW);
    }
    let later = Moment { steady: NOW.steady + 6_000_000_000, ..NOW };
    let evicted: u64 = (10_000..14_000).map(|n| local.decide(&mut [ask(n, rate(10), 1)], 5_000, later).evicted).sum();
    assert_eq!(evicted, 0);
    assert!(local.len() <= 5_000, "{}", local.len());
}

/// Asks, and is refused, every tenth of a second; how many pass in this many seconds.
fn passed(local: &Local, limit: Limit, seconds: u64) -> usize {
    let moment = |tenth| Moment { steady: NOW.steady + tenth * 100_000_000, ..NOW };
    (0..=seconds * 10).filter(|tenth| local.decide(&mut [ask(1, limit, 1)], MANY, moment(*tenth)).granted).count()
}

#[test]
fn a_changed_rate_holds_at_once() {
    let of = |quota, seconds, burst| Limit::rate(quota, Period::Seconds(seconds), burst, 0).unwrap();
    for (old, new, at_once, later) in [
        (of(10, 60, 10), of(1_000, 60, 1_000), 21, 101),
        (of(2, 86_400, 2), of(60, 60, 2), 2, 10),
        (of(10, 60, 10), of(10, 60, 12), 2, 3),
        (of(600, 60, 600), of(60, 60, 3), 2, 10),
    ] {
        let local = Local::new(MANY);
        assert!(decide(&local, &mut [ask(1, old, old.quota())]));
        assert!(!decide(&local, &mut [ask(1, old, 1)]));
        // Two limits decide at once: who is refused by the other one is also kept anew.
        let full = ask(2, rate(1), 1);
        assert_eq!((decide(&local, &mut [full]), decide(&local, &mut [ask(1, new, 1), full])), (true, false));
        assert_eq!((passed(&local, new, 2), new), (at_once, new));
        let local = Local::new(MANY);
        assert!(decide(&local, &mut [ask(1, old, old.quota())]));
        assert_eq!((passed(&local, new, 10), new), (later, new));
    }
}
