//! The configuration changes under load, and nobody notices but those it concerns.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use crate::harness::{Answer, BINARY, Connection, Gateway, Upstream, eventually, exchange};

/// A route that answers with this text.
fn fixed(text: &str) -> String {
    format!(
        "routes: [{{ name: all, match: {{ path: / }}, auth: none, plugins: [{{ respond: {{ status: 200, body: {text} }} }}] }}]\n"
    )
}

const BROKEN: &str = "routes: [{ name: all, match: { path: / }, auth: none, upstrem: nowhere }]\n";

#[test]
fn a_valid_change_takes_effect() {
    let mut gateway = Gateway::start(&fixed("one"));
    assert_eq!(gateway.get("/").text(), "one");
    assert_eq!(gateway.reload(&fixed("two")).status, 200);
    assert_eq!((gateway.get("/").text().as_str(), gateway.generation()), ("two", 2));
    assert!(gateway.metric("crossway_config_reloads_total{result=\"ok\"}") == 1.0);
    assert!(gateway.metric("crossway_config_generation") == 2.0);
}

#[test]
fn a_broken_change_is_refused_and_the_old_one_serves_on() {
    let mut gateway = Gateway::start(&fixed("one"));
    let refused = gateway.reload(BROKEN);
    refused.assert_problem(422, "config_invalid");
    let error = &refused.json()["errors"][0];
    assert!(error["message"].as_str().unwrap().contains("upstrem"), "{error}");
    assert!(error["line"].as_u64().is_some() && error["column"].as_u64().is_some(), "{error}");
    assert_eq!((gateway.get("/").text().as_str(), gateway.generation()), ("one", 1));
    assert!(gateway.metric("crossway_config_reloads_total{result=\"error\"}") == 1.0);
    assert_eq!(gateway.status()["last_reload"]["result"], "error");
    assert!(gateway.stderr().contains("upstrem"), "{}", gateway.stderr());
    assert_eq!(gateway.reload(&fixed("three")).status, 200);
    assert_eq!((gateway.get("/").text().as_str(), gateway.generation()), ("three", 2));
}

#[test]
fn sighup_reloads() {
    let gateway = Gateway::start(&fixed("one"));
    gateway.write(&fixed("two"));
    gateway.signal("HUP");
    eventually("the change is in force", || (gateway.get("/").text() == "two").then_some(()));
    std::fs::remove_file(gateway.config()).unwrap();
    gateway.signal("HUP");
    eventually("the reload is refused", || {
        (gateway.metric("crossway_config_reloads_total{result=\"error\"}") == 1.0).then_some(())
    });
    assert_eq!(gateway.get("/").text(), "two");
}

#[test]
fn a_hundred_hangups_at_once_leave_a_living_process() {
    let mut gateway = Gateway::start(&fixed("one"));
    gateway.write(&fixed("two"));
    for _ in 0..100 {
        gateway.signal("HUP");
    }
    eventually("the change is in force", || (gateway.get("/").text() == "two").then_some(()));
    assert_eq!(gateway.ended(), None);
}

#[test]
fn the_command_waits_and_tells_the_outcome() {
    let gateway = Gateway::start(&fixed("one"));
    let reload = || Command::new(BINARY).args(["reload", "-c"]).arg(gateway.config()).output().unwrap();
    gateway.write(&fixed("two"));
    let done = reload();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stderr).contains("generation 2 is in force"));
    gateway.write(BROKEN);
    let refused = reload();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("upstrem") && said.contains("gateway.yaml:4:"), "{said}");
    assert_eq!(gateway.get("/").text(), "two");
}

#[test]
fn a_request_in_flight_keeps_its_configuration() {
    let (go, wait) = mpsc::sync_channel::<()>(4);
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |_| {
        wait.lock().unwrap().recv().unwrap();
        Answer::ok("late")
    });
    let config = |mark: &str| {
        format!(
            "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
plugins: [{{ headers: {{ response: {{ set: {{ X-Mark: {mark} }} }} }} }}]
routes: [{{ name: all, match: {{ path: / }}, auth: none, upstream: back }}]\n",
            upstream.address()
        )
    };
    let mut gateway = Gateway::start(&config("old"));
    let mut connection = Connection::open(&gateway.address());
    connection.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the request is at the upstream", || {
        (gateway.status()["upstreams"][0]["endpoints"][0]["in_flight"] == 1).then_some(())
    });
    assert_eq!(gateway.reload(&config("new")).status, 200);
    // The pool did not change, so its state survived the reload.
    assert_eq!(gateway.status()["upstreams"][0]["endpoints"][0]["in_flight"], 1);
    go.send(()).unwrap();
    assert_eq!(connection.read("GET").unwrap().header("x-mark"), Some("old"));
    go.send(()).unwrap();
    connection.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(connection.read("GET").unwrap().header("x-mark"), Some("new"));
    assert!(upstream.received().iter().all(|r| r.connection == 0), "the pooled connection was kept");
}

#[test]
fn listeners_come_and_go() {
    let two = format!(
        "listeners: [{{ name: public, address: \"127.0.0.1:0\" }}, {{ name: second, address: \"127.0.0.2:0\" }}]\n{}",
        fixed("x")
    );
    let mut gateway = Gateway::start(&fixed("x"));
    let first = gateway.address();
    assert_eq!(gateway.reload(&two).status, 200);
    let second = gateway.listener("second").unwrap();
    assert_eq!((gateway.address(), exchange(&second, "GET /", &[], b"").text().as_str()), (first.clone(), "x"));
    let mut idle = Connection::open(&second);
    idle.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(idle.read("GET").unwrap().status, 200);
    assert_eq!(gateway.reload(&fixed("x")).status, 200);
    assert!(idle.is_closed(), "an idle connection of a closed listener is closed");
    eventually("the listener is closed", || std::net::TcpStream::connect(&second).is_err().then_some(()));
    assert_eq!((gateway.address(), gateway.get("/").text().as_str()), (first, "x"));
}

#[test]
fn an_address_that_is_taken_is_refused_with_its_place() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut gateway = Gateway::start(&fixed("x"));
    let config = format!(
        "listeners:\n  - {{ name: public, address: \"127.0.0.1:0\" }}\n  - {{ name: second, address: \"{}\" }}\n{}",
        taken.local_addr().unwrap(),
        fixed("y")
    );
    let refused = gateway.reload(&config);
    refused.assert_problem(422, "config_invalid");
    let error = &refused.json()["errors"][0];
    assert!(error["message"].as_str().unwrap().contains("cannot be bound"), "{error}");
    assert_eq!(error["line"], 5, "{error}");
    assert_eq!(gateway.get("/").text(), "x");
}

#[test]
fn what_is_fixed_at_start_is_refused_by_name() {
    let mut gateway = Gateway::start(&fixed("x"));
    let refused = gateway.reload(&format!("runtime: {{ threads: 1 }}\n{}", fixed("y")));
    refused.assert_problem(422, "config_invalid");
    assert!(refused.json()["errors"][0]["message"].as_str().unwrap().contains("fixed at start"));
    assert_eq!(gateway.get("/").text(), "x");
}

/// Sends requests on new connections until told to stop; counts those that were not answered rightly.
fn load(address: &str, stop: &AtomicBool, sent: &AtomicUsize, wrong: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        sent.fetch_add(1, Ordering::Relaxed);
        let good = std::panic::catch_unwind(|| {
            let answer = exchange(address, "GET /", &[], b"");
            answer.status == 200 && answer.text().starts_with('v') && answer.complete
        });
        if !good.unwrap_or(false) {
            wrong.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn two_hundred_reloads_under_load_lose_nothing() {
    let gateway = Gateway::start(&fixed("v0"));
    let address = gateway.address();
    let (stop, sent, wrong) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (address, stop, sent, wrong) =
                (address.clone(), Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&wrong));
            std::thread::spawn(move || load(&address, &stop, &sent, &wrong))
        })
        .collect();
    let mut valid = 0;
    for round in 1..=200 {
        let began = Instant::now();
        let broken = round % 5 == 0;
        gateway.write(&if broken { BROKEN.to_owned() } else { fixed(&format!("v{round}")) });
        let answer = gateway.admin("POST /api/reload");
        assert_eq!(answer.status, if broken { 422 } else { 200 }, "{}", answer.text());
        if !broken {
            valid += 1;
            assert_eq!(gateway.get("/").text(), format!("v{round}"));
        }
        while began.elapsed() < Duration::from_millis(50) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    let (sent, wrong) = (sent.load(Ordering::Relaxed), wrong.load(Ordering::Relaxed));
    assert_eq!((wrong, gateway.generation()), (0, 1 + valid), "of {sent} requests");
    assert!(sent > 200, "only {sent} requests: this was no load");
}
