//! Ejections.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::harness::{Connection, Finish, closed_address};

const QUICK: &str = "timeouts: { first_byte: 300ms }, retry: { attempts: 0 }";
const OUTLIER: &str = "outlier: { consecutive_failures: 3, eject_for: 1h }";

/// Asks until the server is ejected; the statuses on the way.
fn until_ejected(gateway: &Gateway, server: &Server) -> Vec<u16> {
    let mut statuses = Vec::new();
    eventually("it is ejected", || {
        statuses.push(gateway.get("/").status);
        is_ejected(gateway, server).then_some(())
    });
    statuses
}

#[test]
fn every_kind_of_failure_ejects() {
    for (mood, status) in [(Mood::Sorry, 503), (Mood::Dead, 502), (Mood::Hung, 504)] {
        let (good, bad) = (Server::start(), Server::start());
        let gateway = start(&[&good, &bad], &format!("{QUICK}, {OUTLIER}"));
        bad.be(mood);
        let statuses = until_ejected(&gateway, &bad);
        assert_eq!(statuses.iter().filter(|s| **s == status).count(), 3, "{statuses:?}");
        let shown = endpoint(&gateway, &bad.address);
        assert!(shown["ejected"]["why"].as_str().unwrap().starts_with("3 failures in a row"), "{shown}");
        assert!(shown["ejected"]["seconds"].as_u64().is_some_and(|left| (3500..=3600).contains(&left)), "{shown}");
        let gauge = format!("crossway_endpoint_ejected{{endpoint=\"{}\",upstream=\"back\"}}", bad.address);
        assert_eq!((gateway.metric(&gauge), event(&gateway, "ejected")), (1.0, 1.0));
        let before = bad.served();
        for _ in 0..10 {
            assert_eq!(gateway.get("/").status, 200);
        }
        assert_eq!(bad.served(), before);
        assert!(gateway.stderr().contains("an endpoint is ejected"), "{}", gateway.stderr());
    }
}

#[test]
fn one_that_is_not_there_is_ejected_without_a_failed_request() {
    let (good, gone) = (Server::start(), closed_address());
    let gateway = Gateway::start(&config(&[&good.address, &gone], OUTLIER));
    for _ in 0..20 {
        assert_eq!(gateway.get("/").status, 200);
    }
    let retried = gateway.metric("crossway_upstream_attempts_total{result=\"retried\",upstream=\"back\"}");
    assert_eq!((retried, endpoint(&gateway, &gone)["available"].as_bool()), (3.0, Some(false)));
}

#[test]
fn what_is_no_failure_of_a_gateway_ejects_nobody() {
    let (good, bad) = (Server::start(), Server::start());
    bad.be(Mood::Defective);
    let gateway = start(&[&good, &bad], OUTLIER);
    for _ in 0..12 {
        gateway.get("/");
    }
    assert!(!is_ejected(&gateway, &bad) && bad.served() == 6);
    // Unless the settings say so.
    let gateway = start(&[&good, &bad], "outlier: { consecutive_failures: 3, statuses: [500, 502-504] }");
    until_ejected(&gateway, &bad);
}

#[test]
fn a_share_of_failures_ejects() {
    let (good, count) = (Server::start(), Arc::new(AtomicUsize::new(0)));
    let flaky = Upstream::start(move |_| {
        let fails = count.fetch_add(1, Ordering::SeqCst) % 2 == 0;
        Answer::new(if fails { 502 } else { 200 }, &[], b"")
    });
    let settings = "outlier: { consecutive_failures: 1000, error_ratio: 0.5, min_requests: 9, window: 1m }";
    let gateway = Gateway::start(&config(&[&good.address, flaky.address()], settings));
    eventually("it is ejected", || {
        gateway.get("/");
        endpoint(&gateway, flaky.address())["ejected"].is_object().then_some(())
    });
    assert_eq!(flaky.received().len(), 9);
}

#[test]
fn a_slow_endpoint_is_ejected_if_asked_for() {
    let (good, slow) = (Server::start(), Server::start());
    slow.be(Mood::Slow);
    let gateway = start(&[&good, &slow], "outlier: { consecutive_failures: 2, latency: 150ms }");
    let statuses = until_ejected(&gateway, &slow);
    assert!(statuses.iter().all(|status| *status == 200));
    assert_eq!(slow.served(), 2);
}

#[test]
fn a_slow_upload_is_not_the_endpoints_fault() {
    let server = Server::start();
    let settings = "outlier: { consecutive_failures: 1, latency: 200ms, max_ejected: 100% }";
    let gateway = start(&[&server], settings);
    for path in ["/", "/held/"] {
        let mut connection = Connection::open(&gateway.address());
        connection.send(format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nab").as_bytes());
        crate::harness::pass(std::time::Duration::from_millis(400));
        connection.send(b"cd");
        assert_eq!(connection.read("POST").unwrap().status, 200);
    }
    assert!(!is_ejected(&gateway, &server));
}

#[test]
fn only_a_share_is_ejected_and_never_the_last_one() {
    for (share, count, expected) in [("50%", 4, 2_u32), ("10%", 2, 1), ("75%", 2, 1), ("50%", 1, 0), ("100%", 2, 2)] {
        let servers: Vec<Server> = (0..count).map(|_| Server::start()).collect();
        for server in &servers {
            server.be(Mood::Sorry);
        }
        let all: Vec<&Server> = servers.iter().collect();
        let settings = format!("{QUICK}, outlier: {{ consecutive_failures: 1, eject_for: 1h, max_ejected: {share} }}");
        let gateway = start(&all, &settings);
        for _ in 0..20 {
            assert_eq!(gateway.get("/").status, 503);
        }
        let ejected = all.iter().filter(|server| is_ejected(&gateway, server)).count();
        assert_eq!(ejected, expected as usize, "{share} of {count}");
        assert_eq!(event(&gateway, "ejected"), f64::from(expected), "{share} of {count}");
        let served: usize = all.iter().map(|server| server.served()).sum();
        assert_eq!(served, if share == "100%" { 2 } else { 20 }, "{share} of {count}");
    }
}

#[test]
fn an_ejection_ends_and_the_next_is_longer() {
    let (good, bad) = (Server::start(), Server::start());
    bad.be(Mood::Sorry);
    let settings = "retry: { attempts: 0 }, outlier: { consecutive_failures: 1, eject_for: 300ms }";
    let gateway = start(&[&good, &bad], settings);
    let mut lengths = Vec::new();
    for round in 1..=3_u32 {
        until_ejected(&gateway, &bad);
        let began = std::time::Instant::now();
        eventually("it is back", || (!is_ejected(&gateway, &bad)).then_some(()));
        lengths.push(began.elapsed());
        assert_eq!(event(&gateway, "ejected"), f64::from(round));
    }
    let log = gateway.stderr();
    for length in ["for 300 ms", "for 600 ms"] {
        assert!(log.contains(length), "{lengths:?} {log}");
    }
    bad.be(Mood::Well);
    eventually("it is used again", || {
        gateway.get("/");
        bad.upstream.as_ref().is_some_and(|one| one.received().len() > 3).then_some(())
    });
    assert!(event(&gateway, "returned") >= 3.0);
}

#[test]
fn probes_that_have_seen_it_fail_and_recover_end_an_ejection() {
    let (good, mut bad) = (Server::start(), Server::start());
    let probes = "health_check: { http: { path: /healthz }, interval: 100ms, unhealthy_after: 2 }";
    let gateway = start(&[&good, &bad], &format!("{probes}, {OUTLIER}"));
    wait_health(&gateway, &bad, "healthy");
    bad.die();
    until_ejected(&gateway, &bad);
    wait_health(&gateway, &bad, "unhealthy");
    bad.come_back();
    eventually("it is back", || {
        let shown = endpoint(&gateway, &bad.address);
        (shown["available"] == true && shown["ejected"].is_null()).then_some(())
    });
    assert_eq!(event(&gateway, "returned"), 1.0);
}

#[test]
fn a_page_that_is_always_well_does_not_end_an_ejection() {
    let good = Server::start();
    let bad = Upstream::start(|request| Answer::new(if request.target == "/healthz" { 200 } else { 503 }, &[], b""));
    let probes = "health_check: { http: { path: /healthz }, interval: 100ms, healthy_after: 1 }";
    let gateway = Gateway::start(&config(&[&good.address, bad.address()], &format!("{probes}, {OUTLIER}")));
    let ejected = || endpoint(&gateway, bad.address())["ejected"].is_object();
    eventually("it is ejected", || {
        gateway.get("/");
        ejected().then_some(())
    });
    let before = bad.received().len();
    eventually("probes succeed", || (bad.received().len() > before + 5).then_some(()));
    assert!(ejected());
}

#[test]
fn a_reload_keeps_an_ejection() {
    let (good, bad) = (Server::start(), Server::start());
    bad.be(Mood::Sorry);
    let servers = [&good, &bad];
    let mut gateway = start(&servers, &format!("{QUICK}, {OUTLIER}"));
    until_ejected(&gateway, &bad);
    let shown = endpoint(&gateway, &bad.address)["ejected"]["since"].clone();
    let changed = OUTLIER.replace('3', "4");
    for settings in [OUTLIER, changed.as_str()] {
        assert_eq!(gateway.reload(&config(&addresses(&servers), settings)).status, 200);
        assert_eq!(endpoint(&gateway, &bad.address)["ejected"]["since"], shown);
    }
    assert_eq!(gateway.reload(&config(&addresses(&servers), "")).status, 200);
    assert!(!is_ejected(&gateway, &bad));
}

/// Endpoints that come and go under load cost no request, as long as one of them is there.
#[test]
fn flapping_endpoints_cost_nothing() {
    let (steady, flapping) = (Server::start(), Server::start());
    let settings = "retry: { attempts: 1, on: [connect_error, reset, 503] }, outlier: { consecutive_failures: 2, eject_for: 100ms }";
    let gateway = start(&[&steady, &flapping], settings);
    let (done, asked, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _finish = Finish(&done);
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let status = gateway.get("/").status;
                    asked.fetch_add(1, Ordering::SeqCst);
                    failed.fetch_add(usize::from(status != 200), Ordering::SeqCst);
                }
            });
        }
        for mood in [Mood::Dead, Mood::Sorry, Mood::Dead, Mood::Sorry] {
            let before = event(&gateway, "ejected");
            flapping.be(mood);
            eventually("it is ejected", || (event(&gateway, "ejected") > before).then_some(()));
            flapping.be(Mood::Well);
            let before = flapping.served();
            eventually("it is used again", || (flapping.served() > before + 5).then_some(()));
        }
    });
    let (asked, failed) = (asked.into_inner(), failed.into_inner());
    assert_eq!(failed, 0, "of {asked}");
}
