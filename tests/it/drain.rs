//! How the process ends.

use std::{process::Command, sync::mpsc, time::Instant};

use crate::harness::{Answer, BINARY, Connection, Gateway, Upstream, eventually};

fn config(upstream: &Upstream, drain: &str) -> String {
    format!(
        "runtime: {{ threads: 2, drain: {{ {drain} }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}]\n",
        upstream.address()
    )
}

/// A server that answers when it is told to.
fn patient() -> (Upstream, mpsc::SyncSender<()>) {
    let (go, wait) = mpsc::sync_channel::<()>(1);
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |_| {
        let _ = wait.lock().unwrap().recv();
        Answer::ok("late")
    });
    (upstream, go)
}

#[test]
fn what_is_in_flight_finishes_and_then_the_process_ends_at_once() {
    let (upstream, go) = patient();
    let mut gateway = Gateway::start(&config(&upstream, "readiness_delay: 0s, deadline: 60s"));
    let mut busy = Connection::open(&gateway.address());
    busy.send(b"GET /x HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the request is at the upstream", || (upstream_in_flight(&gateway) == 1).then_some(()));
    let mut idle = Connection::open(&gateway.address());
    eventually("both are connected", || (gateway.status()["connections"] == 2).then_some(()));
    gateway.signal("TERM");
    assert!(idle.is_closed(), "an idle connection is closed");
    let address = gateway.address();
    eventually("no new connections", || std::net::TcpStream::connect(&address).is_err().then_some(()));
    assert_eq!(gateway.admin("GET /readyz").status, 503);
    assert_eq!(gateway.ended(), None);
    let refused = gateway.admin("POST /api/reload");
    refused.assert_problem(422, "config_invalid");
    assert!(std::net::TcpStream::connect(&address).is_err(), "a reload opens nothing any more");
    go.send(()).unwrap();
    let answer = busy.read("GET").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    let told = Instant::now();
    assert!(gateway.wait().success());
    assert!(told.elapsed().as_secs() < 5, "{:?}", told.elapsed());
}

fn upstream_in_flight(gateway: &Gateway) -> u64 {
    gateway.status()["upstreams"][0]["endpoints"][0]["in_flight"].as_u64().unwrap()
}

#[test]
fn readiness_says_no_before_connections_are_refused() {
    let (upstream, go) = patient();
    let gateway = Gateway::start(&config(&upstream, "readiness_delay: 5s, deadline: 5s"));
    gateway.signal("TERM");
    eventually("readiness says no", || (gateway.admin("GET /readyz").status == 503).then_some(()));
    assert_eq!(gateway.admin("GET /readyz").text(), "draining\n");
    go.send(()).unwrap();
    assert_eq!(gateway.get("/x").text(), "late", "who still comes is served");
}

#[test]
fn the_deadline_ends_what_will_not_end() {
    let (upstream, _go) = patient();
    let mut gateway = Gateway::start(&config(&upstream, "readiness_delay: 0s, deadline: 300ms"));
    let mut busy = Connection::open(&gateway.address());
    busy.send(b"GET /x HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the request is at the upstream", || (upstream_in_flight(&gateway) == 1).then_some(()));
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    assert!(gateway.stderr().contains("deadline has passed"), "{}", gateway.stderr());
    assert!(busy.read("GET").is_none());
}

#[test]
fn an_interrupt_ends_at_once() {
    let (upstream, _go) = patient();
    let mut gateway = Gateway::start(&config(&upstream, "readiness_delay: 60s, deadline: 60s"));
    gateway.signal("INT");
    assert!(gateway.wait().success());
}

#[test]
fn a_second_signal_hurries_a_drain() {
    let (upstream, _go) = patient();
    let mut gateway = Gateway::start(&config(&upstream, "readiness_delay: 60s, deadline: 60s"));
    gateway.signal("TERM");
    eventually("it is draining", || (gateway.admin("GET /readyz").status == 503).then_some(()));
    gateway.signal("TERM");
    assert!(gateway.wait().success());
}

#[test]
fn a_hangup_right_at_the_start_does_not_end_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("config.yaml");
    std::fs::write(&fifo, "listeners: [{ name: a, address: \"127.0.0.1:0\" }]\nroutes: [{ name: a, match: { path: / }, auth: none, plugins: [{ respond: { status: 200 } }] }]\n").unwrap();
    for _ in 0..20 {
        let mut child =
            Command::new(BINARY).args(["run", "-c"]).arg(&fifo).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let log = child.stderr.take().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(log));
        let sent = Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
        // Whether the signal came before or after `main` began cannot be told; a process that got to its first line and
        // lives has survived it either way.
        let first = lines.next();
        let alive = child.try_wait().unwrap().is_none();
        let _ = child.kill();
        let _ = child.wait();
        if first.is_some() {
            assert!(sent.success() && alive);
        }
    }
}
