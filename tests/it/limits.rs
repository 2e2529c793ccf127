//! Clients and upstreams that take their time, dodge conditions, or break off: each is bounded, and seen for what it is.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use crate::harness::{Answer, Connection, Gateway, Upstream, eventually, pass, raw};

fn start(upstream: &str, settings: &str, plugins: &str, rest: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{upstream}\" }}], {settings} }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back, plugins: [{plugins}] }}]\n{rest}"
    ))
}

#[test]
fn an_answer_that_breaks_off_never_looks_whole() {
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let plugins =
        ["", "{ respond: { instead_of: [418], status: 200 } }", "{ body_limit: { max: 1MiB, buffer: true } }"];
    for plugin in plugins {
        let upstream = Upstream::start(move |_| Answer::raw(broken));
        let gateway = start(upstream.address(), "", plugin, "");
        let (all, closed) = raw(&gateway.address(), b"GET / HTTP/1.1\r\nHost: t\r\n\r\n", Duration::from_secs(3));
        assert!(closed && all.contains("hello") && !all.contains("\r\n0\r\n"), "{plugin}: {all:?}");
    }
}

#[test]
fn a_client_that_never_reads_is_let_go() {
    let upstream = Upstream::start(|_| Answer::ok(vec![b'x'; 2 << 20]));
    let gateway = start(upstream.address(), "", "", "limits: { client: { idle: 500ms } }\n");
    let mut bodies = Connection::open(&gateway.address());
    for _ in 0..8 {
        let _ = bodies.try_send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    // Headers alone: nothing but the wait for the client bounds these writes.
    let fixed = Gateway::start(
        "limits: { client: { idle: 500ms, requests_per_connection: 1000000 } }
routes: [{ name: all, match: { path: / }, auth: none, plugins: [{ respond: { status: 200, body: x } }] }]\n",
    );
    let mut heads = TcpStream::connect(fixed.address()).unwrap();
    heads.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let requests = b"HEAD / HTTP/1.1\r\nHost: t\r\n\r\n".repeat(1000);
    while heads.write_all(&requests).is_ok() {}
    for gateway in [&gateway, &fixed] {
        eventually("the connection is let go", || (gateway.status()["connections"] == 0).then_some(()));
        assert!(gateway.metric("crossway_requests_in_flight") == 0.0);
    }
}

#[test]
fn a_body_that_drips_is_cut_with_its_request() {
    let upstream = Upstream::echo();
    for max in ["60KiB", "1MiB"] {
        let gateway = start(
            upstream.address(),
            "timeouts: { total: 700ms }",
            &format!("{{ body_limit: {{ max: {max}, buffer: true }} }}"),
            "",
        );
        let mut slow = Connection::open(&gateway.address());
        slow.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\n");
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) && slow.try_send(b"x").is_ok() {
            pass(Duration::from_millis(100));
        }
        slow.read("POST").unwrap().assert_problem(408, "request_timeout");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn the_rest_of_a_refused_request_is_not_waited_for_for_ever() {
    let gateway = Gateway::start(
        "routes: [{ name: a, match: { path: /a }, auth: none, plugins: [{ respond: { status: 200 } }] }]\n",
    );
    let mut slow = Connection::open(&gateway.address());
    slow.send(b"POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n\r\n");
    assert_eq!(slow.read("POST").unwrap().status, 404);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) && slow.try_send(b"x").is_ok() {
        pass(Duration::from_millis(100));
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn an_upstream_that_stops_reading_costs_its_time_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let held: Vec<_> = listener.incoming().flatten().take(4).collect();
        drop(held);
    });
    let gateway = start(
        &address,
        "timeouts: { total: 1s, first_byte: 2s, idle: 2s }, retry: { attempts: 0 }",
        "",
        "limits: { request: { body: 1GiB } }\n",
    );
    let mut client = TcpStream::connect(gateway.address()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let began = Instant::now();
    client.write_all(b"PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: 500000000\r\n\r\n").unwrap();
    let block = vec![b'x'; 1 << 20];
    while client.write_all(&block).is_ok() {}
    let _ = client.read(&mut [0; 16]);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn conditions_cannot_be_dodged() {
    let gateway = Gateway::start(
        "routes:
  - name: all
    match: { path: / }
    auth: none
    plugins:
      - ip_allow: { deny: [127.0.0.0/8] }
        id: reads
        when: { methods: [GET], headers: { X-Kind: \"read*\" } }
      - ip_allow: { deny: [127.0.0.0/8] }
        id: admins
        when: { query: { admin: \"1\" } }
      - respond: { status: 200 }
",
    );
    let status = |request: &str, headers: &[(&str, &str)]| gateway.send(request, headers, b"").status;
    assert_eq!(status("GET /", &[]), 200);
    for request in ["GET /", "HEAD /"] {
        assert_eq!(status(request, &[("X-Kind", "read")]), 403, "{request}");
        assert_eq!(status(request, &[("X-Kind", "other"), ("X-Kind", "read\u{e9}")]), 403, "{request}");
    }
    for query in ["admin=1", "admin=1&admin=1", "admin=0&admin=1", "admin=1&admin=0", "%61dmin=1", "x&admin=%31"] {
        assert_eq!(status(&format!("POST /?{query}"), &[]), 403, "{query}");
    }
}

#[test]
fn a_body_sent_again_is_counted_once() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let upstream = Upstream::start(move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Answer::raw(""),
        _ => Answer::ok("fine"),
    });
    let gateway =
        start(upstream.address(), "retry: { attempts: 1, on: [reset] }", "", "limits: { request: { body: 50KiB } }\n");
    assert_eq!(gateway.send("PUT /", &[], &vec![b'x'; 40_000]).text(), "fine");
}

#[test]
fn old_clients_get_no_chunks_and_new_ones_no_old_version() {
    for plugin in ["", "{ respond: { instead_of: [418], status: 200 } }"] {
        let chunked = Upstream::start(|_| {
            Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        });
        let gateway = start(chunked.address(), "", plugin, "");
        let (all, closed) = raw(&gateway.address(), b"GET / HTTP/1.0\r\nHost: t\r\n\r\n", Duration::from_secs(3));
        assert!(
            closed && all.ends_with("\r\n\r\nhello") && !all.to_lowercase().contains("chunked"),
            "{plugin}: {all:?}"
        );
        let old = Upstream::start(|_| Answer::raw("HTTP/1.0 200 OK\r\n\r\nhello"));
        let gateway = start(old.address(), "", plugin, "");
        let (all, _) =
            raw(&gateway.address(), b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", Duration::from_secs(3));
        assert!(all.starts_with("HTTP/1.1 200 "), "{plugin}: {all:?}");
    }
}

#[test]
fn the_last_response_arrives_whatever_was_sent_ahead() {
    let upstream = Upstream::start(|_| Answer::ok(vec![b'x'; 300_000]));
    let gateway = start(upstream.address(), "", "", "");
    for _ in 0..5 {
        let mut connection = Connection::open(&gateway.address());
        connection.send(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        connection.send(&b"GET /ahead HTTP/1.1\r\nHost: t\r\n\r\n".repeat(50));
        pass(Duration::from_millis(50));
        let answer = connection.read("GET").unwrap();
        assert!(answer.complete && answer.body.len() == 300_000, "{} bytes", answer.body.len());
    }
}

#[test]
fn every_refused_target_is_explained() {
    let gateway = Gateway::start(
        "routes: [{ name: a, match: { path: \"/{rest...}\" }, auth: none, plugins: [{ respond: { status: 200 } }] }]\n",
    );
    for byte in 0x21..0x7f_u8 {
        for target in [format!("/a{}b", char::from(byte)), format!("/a?b={}c", char::from(byte))] {
            let (answer, _) = raw(
                &gateway.address(),
                format!("GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").as_bytes(),
                Duration::from_secs(3),
            );
            let good = answer.starts_with("HTTP/1.1 200 ")
                || (answer.starts_with("HTTP/1.1 400 ") && answer.contains("application/problem+json"));
            assert!(good, "{target}: {answer}");
        }
    }
}

#[test]
fn a_preflight_that_nobody_answers_is_405_with_allow() {
    let gateway = Gateway::start(
        "routes: [{ name: a, match: { path: /a, methods: [GET, PUT] }, auth: none, plugins: [{ respond: { status: 200 }, when: { methods: [GET, PUT] } }, { request_id: {} }], redirect: { to: /b } }]\n",
    );
    let refused =
        gateway.send("OPTIONS /a", &[("Origin", "https://x.test"), ("Access-Control-Request-Method", "PUT")], b"");
    refused.assert_problem(405, "method_not_allowed");
    assert_eq!(refused.header("allow"), Some("GET, HEAD, PUT"));
}

#[test]
fn replacing_failures_leaves_large_answers_alone() {
    let upstream = Upstream::start(|r| {
        if r.target == "/bad" { Answer::new(500, &[], b"trace") } else { Answer::ok(vec![b'x'; 3 << 20]) }
    });
    let gateway = start(upstream.address(), "", "{ respond: { instead_of: [5xx], status: 503, body: sorry } }", "");
    assert_eq!(gateway.get("/large").body.len(), 3 << 20);
    assert_eq!(gateway.get("/bad").text(), "sorry");
}
