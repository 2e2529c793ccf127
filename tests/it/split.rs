//! Routes whose requests go to several upstreams.

use crate::harness::{Answer, Gateway, Response, Upstream};

fn servers<const N: usize>() -> [Upstream; N] {
    std::array::from_fn(|number| Upstream::start(move |_| Answer::ok(number.to_string())))
}

fn config(servers: &[Upstream], split: &str, route: &str) -> String {
    let upstream = |(number, server): (usize, &Upstream)| {
        format!("  u{number}: {{ endpoints: [{{ address: \"{}\" }}] }}\n", server.address())
    };
    let upstreams: String = servers.iter().enumerate().map(upstream).collect();
    format!(
        "consumers:
  - {{ name: alice, groups: [beta], credentials: [{{ api_key: {{ sha256: 7bafaa96aa2351e6b7fbc258246b08ee66ade6196c76850108303b1dd6d6eb62 }} }}] }}
  - {{ name: bob, credentials: [{{ api_key: {{ sha256: f8596239fe2c5a7d74a70da44c981f5459c078c0060e69b541814edc07d50699 }} }}] }}
upstreams:\n{upstreams}routes:
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, {route}, split: {{ {split} }} }}
"
    )
}

fn number(response: &Response) -> usize {
    assert_eq!(response.status, 200, "{response:?} {}", response.text());
    response.text().parse().unwrap()
}

const OPEN: &str = "auth: none";
/// A request without a body goes by exchange, one with a body is streamed.
const WAYS: [(&str, &[u8]); 2] = [("GET /", b""), ("POST /", b"body")];

#[test]
fn shares_are_those_of_the_weights() {
    let servers = servers::<3>();
    let split = "to: [{ upstream: u0, weight: 80 }, { upstream: u1, weight: 20 }, { upstream: u2, weight: 0 }]";
    let gateway = Gateway::start(&config(&servers, split, OPEN));
    let mut counts = [0; 3];
    for (request, body) in WAYS {
        (0..250).for_each(|_| counts[number(&gateway.send(request, &[], body))] += 1);
    }
    // 100 of 500 are expected, with a standard deviation of 9.
    assert!((46..=154).contains(&counts[1]) && counts[2] == 0, "{counts:?}");
    let shown = gateway.status()["routes"][0]["split"].clone();
    assert_eq!(shown[1], serde_json::json!({"upstream": "u1", "weight": 20}), "{shown}");
    let answered = |name: &str| {
        gateway.metric(&format!("crossway_upstream_attempts_total{{result=\"answered\",upstream=\"{name}\"}}"))
    };
    assert_eq!((answered("u0") + answered("u1"), answered("u2")), (500.0, 0.0));
}

#[test]
fn callers_stay_and_move_in_one_direction_only_as_the_share_grows() {
    const USERS: usize = 100;
    let servers = servers::<2>();
    let split = |weight: u32| {
        format!(
            "on: header:X-User, to: [{{ upstream: u0, weight: {} }}, {{ upstream: u1, weight: {weight} }}]",
            100 - weight
        )
    };
    let mut gateway = Gateway::start(&config(&servers, &split(10), OPEN));
    let whose = |gateway: &Gateway| -> Vec<usize> {
        let of = |user: usize| {
            let user = format!("user-{user}");
            let [get, post] = WAYS.map(|(request, body)| number(&gateway.send(request, &[("X-User", &user)], body)));
            assert_eq!(get, post);
            get
        };
        (0..USERS).map(of).collect()
    };
    let tenth = whose(&gateway);
    assert_eq!(whose(&gateway), tenth);
    assert_eq!(gateway.reload(&config(&servers, &split(50), OPEN)).status, 200);
    let half = whose(&gateway);
    assert!(tenth.iter().zip(&half).all(|(before, after)| before <= after), "nobody goes back");
    let canaries = |all: &[usize]| all.iter().sum::<usize>();
    assert!((1..=25).contains(&canaries(&tenth)) && (30..=70).contains(&canaries(&half)), "{tenth:?} {half:?}");
    assert_eq!(gateway.reload(&config(&servers, &split(0), OPEN)).status, 200);
    assert_eq!(canaries(&whose(&gateway)), 0);
}

#[test]
fn conditions_come_first() {
    let servers = servers::<3>();
    let split = "to: [{ upstream: u0 }, { upstream: u1, when: { headers: { X-Canary: \"1\" } } }, { upstream: u2, when: { groups: [beta] } }]";
    let gateway = Gateway::start(&config(&servers, split, "plugins: [{ api_key: {} }]"));
    let (alice, bob) = ("alice-key-0123456789", "bob-key-0123456789");
    for (request, body) in WAYS {
        for (who, canary, expected) in [(alice, "1", 1), (alice, "0", 2), (bob, "0", 0), (bob, "1", 1)] {
            let fields = [("X-API-Key", who), ("X-Canary", canary)];
            assert_eq!(number(&gateway.send(request, &fields, body)), expected, "{request} {who} {canary}");
        }
    }
}

#[test]
fn a_share_may_be_one_of_some_requests() {
    let servers = servers::<2>();
    let split =
        "to: [{ upstream: u0, weight: 50 }, { upstream: u1, weight: 50, when: { headers: { X-Beta: \"yes\" } } }]";
    let gateway = Gateway::start(&config(&servers, split, OPEN));
    let canaries =
        |beta: &str| -> usize { (0..100).map(|_| number(&gateway.send("GET /", &[("X-Beta", beta)], b""))).sum() };
    assert_eq!(canaries("no"), 0);
    let some = canaries("yes");
    assert!((20..=80).contains(&some), "{some}");
}
