//! Circuit breakers.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::harness::{Connection, H2Upstream, frame};

const ALONE: &str = "timeouts: { first_byte: 300ms }, retry: { attempts: 0 }";
pub(super) const BREAKER: &str = "circuit_breaker: { min_requests: 1000, consecutive: 2, open_for: 1h }";

/// A breaker that tries again soon.
pub(super) fn soon(probes: u32) -> String {
    BREAKER.replace("1h", &format!("500ms, half_open_probes: {probes}"))
}

pub(super) fn opened(gateway: &Gateway) -> Value {
    eventually("the circuit is open", || {
        gateway.get("/");
        Some(circuit(gateway)).filter(|shown| shown["state"] == "open")
    })
}

#[test]
fn an_open_circuit_sends_nothing() {
    let server = Server::start();
    let gateway = start(&[&server], &format!("{ALONE}, {BREAKER}"));
    assert_eq!(circuit(&gateway)["state"], "closed");
    server.be(Mood::Sorry);
    assert_eq!((gateway.get("/").status, gateway.get("/").status), (503, 503));
    let shown = circuit(&gateway);
    assert_eq!(shown["state"], "open");
    assert!(shown["why"].as_str().unwrap().starts_with("2 failures in a row"), "{shown}");
    for path in ["GET /", "POST /", "POST /held/", "GET /held/"] {
        let body: &[u8] = if path.starts_with("POST") { b"body" } else { b"" };
        let refused = gateway.send(path, &[], body);
        refused.assert_problem(503, "circuit_open");
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((3500..=3600).contains(&wait), "{wait}");
        assert_eq!(refused.header("proxy-status"), Some("crossway; error=destination_unavailable"));
        assert!(!refused.text().contains("127.0.0.1"), "{}", refused.text());
    }
    assert_eq!(server.served(), 2);
    assert_eq!(gateway.metric("crossway_circuit_state{endpoint=\"-\",upstream=\"back\"}"), 2.0);
    assert_eq!(gateway.metric("crossway_faults_total{code=\"circuit_open\"}"), 4.0);
    assert_eq!(event(&gateway, "circuit_open"), 1.0);
    assert!(gateway.stderr().contains("a circuit is open"), "{}", gateway.stderr());
    assert_eq!(gateway.admin("GET /readyz").status, 200);
}

#[test]
fn a_share_of_failures_opens_it() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let server = Upstream::start(move |_| {
        let fails = counted.fetch_add(1, Ordering::SeqCst) % 2 == 1;
        Answer::new(if fails { 502 } else { 200 }, &[], b"")
    });
    let settings = "circuit_breaker: { min_requests: 10, error_ratio: 0.5, open_for: 1h, window: 1m }";
    let gateway = Gateway::start(&config(&[server.address()], settings));
    for at in 0..10 {
        assert_eq!(gateway.get("/").status, if at % 2 == 1 { 502 } else { 200 });
    }
    gateway.get("/").assert_problem(503, "circuit_open");
    assert_eq!(count.load(Ordering::SeqCst), 10);
}

#[test]
fn slow_answers_open_it() {
    let server = Server::start();
    server.be(Mood::Slow);
    let settings = "circuit_breaker: { min_requests: 3, slow: { longer_than: 150ms, ratio: 1 }, open_for: 1h }";
    let gateway = start(&[&server], settings);
    for _ in 0..3 {
        assert_eq!(gateway.get("/").status, 200);
    }
    gateway.get("/").assert_problem(503, "circuit_open");
}

/// Time-outs, resets and statuses count on the stream way, by exchange, and with a held body.
#[test]
fn every_way_feeds_it() {
    for (mood, status) in [(Mood::Sorry, 503), (Mood::Dead, 502), (Mood::Hung, 504)] {
        for (request, body) in [("GET /", ""), ("POST /", "body"), ("POST /held/", "body"), ("GET /held/", "")] {
            let server = Server::start();
            server.be(mood);
            let gateway = start(&[&server], &format!("{ALONE}, {BREAKER}"));
            for _ in 0..2 {
                assert_eq!(gateway.send(request, &[], body.as_bytes()).status, status, "{request}");
            }
            gateway.send(request, &[], body.as_bytes()).assert_problem(503, "circuit_open");
            assert_eq!(server.served(), 2, "{request}");
        }
    }
}

pub(super) fn call(gateway: &Gateway, method: &str, fields: &[(&str, &str)]) -> crate::harness::Response {
    let fields = [&[("Content-Type", "application/grpc-web+proto")], fields].concat();
    gateway.send(&format!("POST /echo.Echo/{method}"), &fields, &frame(b"hello"))
}

#[test]
pub(super) fn calls_feed_it() {
    let server = H2Upstream::plain();
    let settings = format!("http2: true, {ALONE}, {BREAKER}");
    let config = config(&[server.address()], &settings).replace("auth: none,", "auth: none, grpc_web: true,");
    let gateway = Gateway::start(&config);
    // UNAVAILABLE says what 503 says; other statuses are the service's own.
    for _ in 0..3 {
        call(&gateway, "Only", &[("X-Status", "5")]);
    }
    assert_eq!(circuit(&gateway)["state"], "closed");
    for _ in 0..2 {
        call(&gateway, "Only", &[("X-Status", "14")]);
    }
    let begun = server.begun();
    assert_eq!(circuit(&gateway)["state"], "open");
    let refused = call(&gateway, "Unary", &[]);
    assert_eq!((refused.status, refused.header("grpc-status")), (200, Some("14")), "{refused:?}");
    assert_eq!(server.begun(), begun);
    // A service that does not answer in time.
    let gateway = Gateway::start(&config);
    for _ in 0..2 {
        call(&gateway, "Silent", &[]);
    }
    assert_eq!(circuit(&gateway)["state"], "open");
}

#[test]
fn a_deadline_that_the_caller_sets_is_no_failure() {
    let server = H2Upstream::plain();
    let settings = format!("http2: true, {ALONE}, {BREAKER}").replace("300ms", "30s");
    let config = config(&[server.address()], &settings).replace("auth: none,", "auth: none, grpc_web: true,");
    let gateway = Gateway::start(&config);
    for _ in 0..4 {
        let late = call(&gateway, "Silent", &[("grpc-timeout", "100m")]);
        assert_eq!(late.header("grpc-status"), Some("4"), "{late:?}");
    }
    assert_eq!(circuit(&gateway)["state"], "closed");
}

#[test]
fn the_total_time_that_an_endpoint_takes_is() {
    let server = Server::start();
    server.be(Mood::Hung);
    let settings = format!("timeouts: {{ first_byte: 30s, total: 300ms }}, {BREAKER}");
    for (request, body) in [("GET /", ""), ("POST /", "body"), ("POST /held/", "body")] {
        let gateway = start(&[&server], &settings);
        for _ in 0..2 {
            gateway.send(request, &[], body.as_bytes()).assert_problem(504, "deadline_exceeded");
        }
        assert_eq!(circuit(&gateway)["state"], "open", "{request}");
    }
}

#[test]
fn clients_that_leave_open_nothing() {
    let server = Server::start();
    server.be(Mood::Hung);
    let gateway = start(&[&server], &BREAKER.replace("consecutive: 2", "consecutive: 1"));
    for at in 1..=6 {
        let mut connection = Connection::open(&gateway.address());
        let request =
            ["GET / HTTP/1.1\r\nHost: t\r\n\r\n", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab"];
        connection.send(request[at % 2].as_bytes());
        eventually("the request is there", || (server.served() >= at).then_some(()));
        drop(connection);
    }
    eventually("all have gone", || (endpoint(&gateway, &server.address)["in_flight"] == 0).then_some(()));
    assert_eq!(circuit(&gateway)["state"], "closed");
}

#[test]
fn half_open_lets_exactly_so_many_through() {
    let server = Server::start();
    let gateway = start(&[&server], &format!("retry: {{ attempts: 0 }}, {}", soon(3)));
    server.be(Mood::Sorry);
    opened(&gateway);
    server.be(Mood::Held);
    let before = server.served();
    // The upstream counts requests when it answers them, and what is in flight the gateway knows.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        pass_open(&gateway);
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| gateway.get("/").status)).collect();
        eventually("the probes are there", || (endpoint(&gateway, &server.address)["in_flight"] == 3).then_some(()));
        for _ in 0..10 {
            let refused = gateway.get("/");
            refused.assert_problem(503, "circuit_open");
            assert_eq!(refused.header("retry-after"), Some("1"));
        }
        assert_eq!(circuit(&gateway)["state"], "half_open");
        assert_eq!(gateway.metric("crossway_circuit_state{endpoint=\"-\",upstream=\"back\"}"), 1.0);
        server.released.store(true, Ordering::SeqCst);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!((statuses, server.served()), (vec![200; 3], before + 3));
    let shown = circuit(&gateway);
    assert_eq!((&shown["state"], event(&gateway, "circuit_closed")), (&"closed".into(), 1.0), "{shown}");
    assert_eq!(gateway.get("/").status, 200);
}

/// Waits until an open circuit would let a request through, without sending one.
pub(super) fn pass_open(gateway: &Gateway) {
    eventually("the time is over", || {
        let status = gateway.status();
        (status["upstreams"][0]["endpoints"][0]["available"] == true).then_some(())
    });
}

#[test]
fn a_failed_probe_opens_it_again() {
    let server = Server::start();
    let gateway = start(&[&server], &format!("{ALONE}, {}", soon(1)));
    server.be(Mood::Dead);
    opened(&gateway);
    for round in 1..=3 {
        let before = server.served();
        pass_open(&gateway);
        gateway.get("/").assert_problem(502, "upstream_reset");
        gateway.get("/").assert_problem(503, "circuit_open");
        assert_eq!((server.served(), event(&gateway, "circuit_open")), (before + 1, 1.0 + f64::from(round)));
    }
    server.be(Mood::Well);
    pass_open(&gateway);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(circuit(&gateway)["state"], "closed");
}

/// Whoever leaves while it tries gives its place to another.
#[test]
fn a_client_that_leaves_during_a_probe_wedges_nothing() {
    for request in ["GET / HTTP/1.1\r\nHost: t\r\n\r\n", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab"] {
        let server = Server::start();
        let gateway = start(&[&server], &format!("retry: {{ attempts: 0 }}, {}", soon(1)));
        server.be(Mood::Sorry);
        opened(&gateway);
        server.be(Mood::Hung);
        for _ in 0..3 {
            pass_open(&gateway);
            let before = server.served();
            let mut connection = Connection::open(&gateway.address());
            connection.send(request.as_bytes());
            eventually("the probe is there", || (server.served() > before).then_some(()));
            gateway.get("/").assert_problem(503, "circuit_open");
            drop(connection);
            eventually("the place is free", || (endpoint(&gateway, &server.address)["in_flight"] == 0).then_some(()));
            assert_eq!(circuit(&gateway)["state"], "half_open", "it has neither failed nor succeeded");
        }
        server.be(Mood::Well);
        assert_eq!(gateway.get("/").status, 200);
        assert_eq!(circuit(&gateway)["state"], "closed");
    }
}

#[test]
fn of_each_endpoint_only_that_endpoint_is_left_out() {
    let (good, bad) = (Server::start(), Server::start());
    let breaker = soon(1).replace("{ min", "{ per: endpoint, min");
    let gateway = start(&[&good, &bad], &format!("{ALONE}, {breaker}"));
    bad.be(Mood::Sorry);
    let state = |server: &Server| endpoint(&gateway, &server.address)["circuit"]["state"].clone();
    eventually("its circuit is open", || {
        gateway.get("/");
        (state(&bad) == "open").then_some(())
    });
    assert_eq!((state(&good), circuit(&gateway)), ("closed".into(), Value::Null));
    bad.be(Mood::Well);
    eventually("it is closed again", || {
        assert_eq!(gateway.get("/").status, 200);
        (state(&bad) == "closed").then_some(())
    });
    // And where all are open, that is what clients are told.
    good.be(Mood::Sorry);
    bad.be(Mood::Sorry);
    eventually("all are open", || {
        let answer = gateway.get("/");
        (answer.header("retry-after").is_some()).then(|| answer.assert_problem(503, "circuit_open"))
    });
}

#[test]
fn a_reload_keeps_a_circuit_whose_settings_stay() {
    for per in ["upstream", "endpoint"] {
        let server = Server::start();
        let breaker = BREAKER.replace("{ min", &format!("{{ per: {per}, min"));
        let mut gateway = start(&[&server], &format!("{ALONE}, {breaker}"));
        server.be(Mood::Sorry);
        gateway.get("/");
        gateway.get("/");
        gateway.get("/").assert_problem(503, "circuit_open");
        server.be(Mood::Well);
        let again = |gateway: &mut Gateway, settings: &str| {
            assert_eq!(gateway.reload(&config(&[&server.address], settings)).status, 200);
            gateway.get("/").status
        };
        assert_eq!(again(&mut gateway, &format!("{ALONE}, {breaker}")), 503);
        assert_eq!(again(&mut gateway, &format!("timeouts: {{ total: 9s }}, {breaker}")), 503, "other settings");
        let changed = breaker.replace("consecutive: 2", "consecutive: 3");
        assert_eq!(again(&mut gateway, &changed), 200, "its own settings");
        assert_eq!(again(&mut gateway, ""), 200, "none");
    }
}

#[test]
fn all_endpoints_answer_503_under_load() {
    let (one, other) = (Server::start(), Server::start());
    one.be(Mood::Sorry);
    other.be(Mood::Sorry);
    let settings = "retry: { attempts: 0 }, circuit_breaker: { min_requests: 10, open_for: 1h }";
    let gateway = start(&[&one, &other], settings);
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| assert_eq!(gateway.get("/").status, 503)));
        }
    });
    let served = one.served() + other.served();
    // Those that were on their way when it opened have passed.
    assert!((10..=14).contains(&served), "{served} of 400 passed in {:?}", began.elapsed());
}

#[test]
fn what_comes_late_belongs_to_another_time() {
    let server = Server::start();
    let gateway = start(&[&server], &format!("retry: {{ attempts: 0 }}, {}", soon(1)));
    server.be(Mood::Held);
    std::thread::scope(|scope| {
        let early = scope.spawn(|| gateway.get("/").status);
        eventually("it is there", || server.held.load(Ordering::SeqCst).then_some(()));
        server.be(Mood::Dead);
        opened(&gateway);
        pass_open(&gateway);
        server.released.store(true, Ordering::SeqCst);
        assert_eq!(early.join().unwrap(), 200);
        assert_eq!(circuit(&gateway)["state"], "open", "an answer to what was asked before closes nothing");
    });
}
