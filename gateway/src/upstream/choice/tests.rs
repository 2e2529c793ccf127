use std::sync::Arc;

use super::*;
use crate::upstream::{
    dns::Member,
    names::Names,
    peer::Transport,
    pool::{Registry, Settings},
};

/// Endpoints with the ports 1, 2 and so on, of these weights and priorities.
fn current(list: &[(u16, u8)]) -> Current {
    let registry = Arc::new(Registry::default());
    let member = |(port, (weight, priority)): (usize, &(u16, u8))| {
        Member::parse(&format!("127.0.0.1:{}", port + 1), 80).unwrap().with(*weight, *priority)
    };
    let transport = Transport { tls: None, http2: false };
    let settings = Settings { transport, rule: Rule::InTurn, slow_start: None, names: Names::default(), tags: None };
    Current::new(registry.pool("x", list.iter().enumerate().map(member).collect(), settings).endpoints())
}

const RULES: [Rule; 3] = [Rule::InTurn, Rule::LessBusy, Rule::ByHash];

/// How often each port is chosen in `count` requests with different keys.
fn counts(current: &Current, rule: Rule, count: u64, may: impl Fn(u16) -> bool) -> Vec<usize> {
    let mut counts = vec![0; current.endpoints.len()];
    for at in 0..count {
        let wish = Wish { hash: Some(rendezvous::hash(&[&at.to_le_bytes()])), sticky: None };
        if let Some(chosen) = current.choose(rule, &wish, &|_| 1.0, &|e| may(e.address.port())) {
            counts[usize::from(chosen.address.port()) - 1] += 1;
        }
    }
    counts
}

#[test]
fn shares_are_those_of_the_weights_and_drained_ones_get_nothing() {
    let current = current(&[(5, 0), (3, 0), (2, 0), (0, 0)]);
    for rule in RULES {
        let counts = counts(&current, rule, 10_000, |_| true);
        for (count, wanted) in counts.iter().zip([5000_usize, 3000, 2000, 0]) {
            assert!(count.abs_diff(wanted) <= 250 && (wanted > 0 || *count == 0), "{rule:?}: {counts:?}");
        }
    }
}

#[test]
fn those_that_stay_share_what_one_leaves() {
    let current = current(&[(1, 0), (1, 0), (1, 0)]);
    for rule in RULES {
        let counts = counts(&current, rule, 6000, |port| port != 2);
        assert!(counts[1] == 0 && counts[0].abs_diff(counts[2]) <= 300, "{rule:?}: {counts:?}");
    }
    let only = counts(&current, Rule::ByHash, 500, |_| true);
    let moved = counts(&current, Rule::ByHash, 500, |port| port != 2);
    assert!(moved[0] >= only[0] && moved[2] >= only[2], "{only:?} {moved:?}");
}

#[test]
fn one_of_many_that_may_be_used_is_found() {
    let current = current(&[(4000, 0), (1, 0), (1, 0)]);
    for rule in RULES {
        assert_eq!(counts(&current, rule, 100, |port| port == 3), [0, 0, 100], "{rule:?}");
        assert_eq!(counts(&current, rule, 10, |_| false), [0, 0, 0], "{rule:?}");
    }
}

#[test]
fn the_next_priority_serves_while_none_of_the_first_may() {
    let current = current(&[(1, 2), (1, 0), (1, 0), (1, 7)]);
    for rule in RULES {
        let all = counts(&current, rule, 1000, |_| true);
        assert!(all[0] == 0 && all[3] == 0 && all[1] > 400 && all[2] > 400, "{rule:?}: {all:?}");
        assert_eq!(counts(&current, rule, 100, |port| port == 3 || port == 1), [0, 0, 100, 0], "{rule:?}");
        assert_eq!(counts(&current, rule, 100, |port| port == 1 || port == 4), [100, 0, 0, 0], "{rule:?}");
        assert_eq!(counts(&current, rule, 100, |port| port == 4), [0, 0, 0, 100], "{rule:?}");
    }
}

#[test]
fn the_less_busy_of_two_is_chosen_by_weight() {
    let current = current(&[(4, 0), (1, 0)]);
    let busy: Vec<_> = (0..4).map(|_| current.endpoints[0].enter(Instant::now())).collect();
    let one = current.endpoints[1].enter(Instant::now());
    let two = current.endpoints[1].enter(Instant::now());
    // 4 requests for a weight of 4 are less than 2 for a weight of 1.
    assert_eq!(counts(&current, Rule::LessBusy, 100, |_| true), [100, 0]);
    drop((one, two));
    let idle = counts(&current, Rule::LessBusy, 100, |_| true);
    assert!(idle[1] >= 90, "{idle:?}");
    drop(busy);
}

#[test]
fn requests_without_a_value_take_turns() {
    let current = current(&[(1, 0), (1, 0)]);
    let mut ports = Vec::new();
    for _ in 0..4 {
        let chosen = current.choose(Rule::ByHash, &Wish::default(), &|_| 1.0, &|_| true).unwrap();
        ports.push(chosen.address.port());
    }
    assert_eq!(ports, [1, 2, 1, 2]);
}
