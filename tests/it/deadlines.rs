//! Deadlines that requests bring along.

use std::time::{Duration, Instant};

use crate::harness::{Answer, Gateway, H2Upstream, Upstream, frame};

const FIELD: &str = "X-Request-Timeout";

/// The plugins of a route, and a body that makes its requests go by one way or the other.
const WAYS: [(&str, &str, &[u8]); 3] = [
    ("exchange", "", b""),
    ("stream", "", b"a body"),
    ("exchange with a body", "{ respond: { instead_of: [418], status: 200, body: replaced } }", b"a body"),
];

fn start(plugins: &str, endpoint: &str, settings: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{endpoint}\" }}], {settings} }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, plugins: [{plugins}], upstream: back }}]\n"
    ))
}

fn told(upstream: &Upstream) -> u64 {
    upstream.received().last().unwrap().header(FIELD).unwrap().parse().unwrap()
}

#[test]
fn a_request_may_shorten_its_time_and_never_widen_it() {
    let settings = "timeouts: { total: 20s, deadline_header: X-Request-Timeout }";
    for (way, plugins, body) in WAYS {
        let upstream = Upstream::start(|_| Answer::ok("fine"));
        let gateway = start(plugins, upstream.address(), settings);
        for (asked, most) in [(None, 20_000), (Some("99999999999"), 20_000), (Some("9000"), 9_000)] {
            let fields: Vec<_> = asked.map(|asked| (FIELD, asked)).into_iter().collect();
            assert_eq!(gateway.send("PUT /x", &fields, body).status, 200, "{way} {asked:?}");
            let told = told(&upstream);
            assert!(told <= most && told > most / 2, "{way} {asked:?}: {told}");
        }
        for wrong in ["", "soon", "1.5", "-1", "10s"] {
            gateway.send("PUT /x", &[(FIELD, wrong)], body).assert_problem(400, "deadline_invalid");
        }
        gateway.send("PUT /x", &[(FIELD, "1000"), (FIELD, "2000")], body).assert_problem(400, "deadline_invalid");
        gateway.send("PUT /x", &[(FIELD, "0")], body).assert_problem(504, "deadline_exceeded");
        assert_eq!(upstream.received().len(), 3, "{way}");
        // Without the key the field means nothing, and passes as it is.
        let plain = start(plugins, upstream.address(), "");
        assert_eq!(plain.send("PUT /x", &[(FIELD, "soon")], body).status, 200, "{way}");
        assert_eq!(upstream.received().last().unwrap().header(FIELD), Some("soon"), "{way}");
    }
}

#[test]
fn the_callers_time_is_over_when_it_says_so() {
    for (way, plugins, body) in WAYS {
        let upstream = Upstream::start(|_| Answer::silence());
        let gateway = start(plugins, upstream.address(), "timeouts: { deadline_header: X-Request-Timeout }");
        let started = Instant::now();
        gateway.send("PUT /x", &[(FIELD, "400")], body).assert_problem(504, "deadline_exceeded");
        let waited = started.elapsed();
        assert!(waited >= Duration::from_millis(400) && waited < Duration::from_secs(10), "{way}: {waited:?}");
    }
}

#[test]
fn each_attempt_is_told_what_is_left() {
    for (way, plugins, body) in WAYS {
        let upstream = Upstream::start(|_| Answer::silence());
        let settings = "timeouts: { total: 10s, deadline_header: X-Request-Timeout }, retry: { attempts: 1, on: [timeout], per_try: 500ms }";
        let gateway = start(plugins, upstream.address(), settings);
        gateway.send("PUT /x", &[(FIELD, "800")], body).assert_problem(504, "deadline_exceeded");
        let left: Vec<u64> = upstream.received().iter().map(|r| r.header(FIELD).unwrap().parse().unwrap()).collect();
        assert!(left.len() == 2 && left[0] <= 500 && left[1] <= 300, "{way}: {left:?}");
    }
}

#[test]
fn a_call_has_the_sooner_of_both_deadlines() {
    let upstream = H2Upstream::plain();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}], http2: true, timeouts: {{ deadline_header: X-Request-Timeout }} }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, grpc_web: true, upstream: back }}]\n",
        upstream.address()
    ));
    for (call, field) in [("30S", "400"), ("400m", "30000")] {
        let fields = [("Content-Type", "application/grpc-web+proto"), ("grpc-timeout", call), (FIELD, field)];
        let answer = gateway.send("POST /echo.Echo/Silent", &fields, &frame(b"x"));
        assert_eq!(answer.header("grpc-status"), Some("4"), "{call} {field}: {answer:?}");
    }
}
