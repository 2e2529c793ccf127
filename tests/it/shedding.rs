//! Too little memory: new requests are turned away, those inside go on, operators get in, and it passes.

use std::{io::Write as _, net::TcpStream};

use crate::harness::{Answer, Connection, Gateway, Upstream, eventually, frames, frames::Http2};

const PIECE: usize = 8 << 20;

fn config(upstream: &str, memory: &str) -> String {
    format!(
        "limits: {{ request: {{ body: 64MiB, buffered_body: 64MiB }}, memory: {memory} }}
listeners: [{{ name: public, address: \"127.0.0.1:0\", http2: true }}]
telemetry: {{ access_log: {{ to: stdout }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{upstream}\" }}] }} }}
routes:
  - {{ name: hold, match: {{ path: /hold }}, auth: none, plugins: [{{ body_limit: {{ max: 64MiB, buffer: true }} }}], upstream: back }}
  - {{ name: own, match: {{ path: /own }}, auth: none, plugins: [{{ respond: {{ status: 200, body: here }} }}] }}
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}\n"
    )
}

/// Requests whose bodies the gateway holds: all of each but its last byte.
fn hold(gateway: &Gateway, count: u32) -> Vec<TcpStream> {
    let mut all: Vec<TcpStream> = (0..count).map(|_| TcpStream::connect(gateway.address()).unwrap()).collect();
    for stream in &mut all {
        write!(stream, "POST /hold HTTP/1.1\r\nHost: t\r\nContent-Length: {PIECE}\r\n\r\n").unwrap();
    }
    // None of them is turned away for what the others hold.
    eventually("all are let in", || (gateway.metric("crossway_requests_in_flight") == f64::from(count)).then_some(()));
    for stream in &mut all {
        stream.write_all(&vec![b'x'; PIECE - 1]).unwrap();
    }
    all
}

fn pressure(gateway: &Gateway) -> bool {
    gateway.metric("crossway_memory_pressure") == 1.0
}

#[test]
fn when_memory_runs_out_new_requests_are_turned_away_until_there_is_some_again() {
    let upstream = Upstream::start(|request| Answer::ok(request.body.len().to_string()));
    let gateway = Gateway::start(&config(upstream.address(), "{ max: 128MiB, shed_at: 50% }"));
    let mut idle = Connection::open(&gateway.address());
    idle.send(b"GET /own HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(idle.read("GET").unwrap().status, 200);
    let mut talk = Http2::open(&gateway.address());
    talk.ask(1, &frames::request("GET", "/own"));
    assert_eq!(talk.end_of(1), frames::End::Answer(b"here".to_vec()));
    assert!(!pressure(&gateway), "{}", gateway.status()["memory"]);

    let mut held = hold(&gateway, 12);
    eventually("the pressure is seen", || pressure(&gateway).then_some(()));
    for target in ["/own", "/x", "/nowhere"] {
        let mut connection = Connection::open(&gateway.address());
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
        let answer = connection.read("GET").unwrap();
        answer.assert_problem(503, "memory_pressure");
        assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
        assert!(connection.is_closed());
    }
    idle.send(b"GET /own HTTP/1.1\r\nHost: t\r\n\r\n");
    idle.read("GET").unwrap().assert_problem(503, "memory_pressure");
    assert!(idle.is_closed());
    talk.ask(3, &frames::request("GET", "/own"));
    let (mut leaves, mut refused) = (false, Vec::new());
    while !leaves || refused.is_empty() {
        let frame = talk.read().expect("an answer, and word to go elsewhere");
        match frame.kind {
            frames::GOAWAY => leaves = frame.reason() == 0,
            frames::DATA if frame.stream == 3 => refused = frame.payload,
            _ => {}
        }
    }
    assert_eq!(frames::End::Answer(refused).code().as_deref(), Some("memory_pressure"));
    assert_eq!(gateway.metric("crossway_refused_total{code=\"memory_pressure\"}"), 5.0);
    assert_eq!((gateway.admin("GET /healthz").status, gateway.admin("GET /readyz").status), (200, 200));
    let seen = gateway.status()["memory"].clone();
    assert_eq!((seen["pressure"].as_bool(), seen["max"].as_u64()), (Some(true), Some(128 << 20)), "{seen}");

    // Those inside are served.
    let mut first = Connection::over(held.remove(0));
    first.send(b"x");
    let answer = first.read("POST").unwrap();
    assert_eq!((answer.status, answer.text()), (200, PIECE.to_string()));
    drop((first, held));
    eventually("there is memory again", || (!pressure(&gateway)).then_some(()));
    assert_eq!((gateway.get("/own").status, gateway.get("/x").status), (200, 200));
    assert_eq!(gateway.metric("crossway_panics_total"), 0.0);
    let flags = |line: &str| line.contains("\"code\":\"memory_pressure\"") && line.contains("\"flags\":[\"shed\"]");
    eventually("the log says so", || (gateway.stdout().lines().filter(|line| flags(line)).count() == 5).then_some(()));
}

#[test]
fn the_bound_follows_the_configuration() {
    let upstream = Upstream::start(|_| Answer::ok("fine"));
    let of = |memory: &str| config(upstream.address(), memory);
    let mut gateway = Gateway::start(&of("{ max: 64MiB, shed_at: 50% }"));
    let _held = hold(&gateway, 6);
    eventually("the pressure is seen", || pressure(&gateway).then_some(()));
    assert_eq!(gateway.reload(&of("{ max: off }")).status, 200);
    eventually("nobody is turned away", || (!pressure(&gateway)).then_some(()));
    assert_eq!(gateway.get("/x").status, 200);
    assert_eq!(gateway.metric("crossway_memory_max_bytes"), 0.0);
    assert_eq!(gateway.reload(&of("{ max: auto }")).status, 200);
    eventually("the machine's memory counts", || {
        (gateway.metric("crossway_memory_max_bytes") > f64::from(64 << 20)).then_some(())
    });
    assert_eq!(gateway.get("/x").status, 200);
}
