//! WebSockets: the handshake, what passes, and how a connection ends.

use std::{
    io::Write as _,
    net::Shutdown,
    time::{Duration, Instant},
};

use crate::harness::{
    Connection, Gateway, Silent, Upstream, eventually, pass,
    websocket::{BINARY, CLOSE, Echo, GOING_AWAY, HALF, PING, PONG, Seen, TEXT, WebSocket, ask, frame, handshake},
};

fn start(upstream: &str, idle: &str, plugins: &str, rest: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{upstream}\" }}], retry: {{ attempts: 0 }} }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back, websocket: {{ idle: {idle} }}, plugins: [{plugins}] }}]\n{rest}"
    ))
}

fn is_over(gateway: &Gateway) {
    eventually("nothing is left", || {
        let left = gateway.metric("crossway_requests_in_flight") == 0.0 && gateway.status()["connections"] == 0;
        left.then_some(())
    });
}

#[test]
fn messages_pass_both_ways() {
    let upstream = Echo::start();
    let gateway = start(upstream.address(), "20s", "", "");
    let mut socket = WebSocket::open(&gateway.address(), "/chat");
    let header = upstream.header().to_lowercase();
    for line in ["upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n"]
    {
        assert!(header.contains(line), "{header}");
    }
    socket.send(TEXT, b"hello");
    assert_eq!(socket.read(), Some((TEXT, b"hello".to_vec())));
    socket.send(PING, b"there?");
    assert_eq!(socket.read(), Some((PONG, b"there?".to_vec())));
    socket.send(BINARY, b"");
    assert_eq!(socket.read(), Some((BINARY, Vec::new())));
    let large: Vec<u8> = (0..1_u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    socket.send(BINARY, &large);
    assert!(socket.read() == Some((BINARY, large)));
    let many: Vec<u8> = (0..2000_u32).flat_map(|at| frame(TEXT, Some([9; 4]), &at.to_be_bytes())).collect();
    socket.connection.send(&many);
    for at in 0..2000_u32 {
        assert_eq!(socket.read(), Some((TEXT, at.to_be_bytes().to_vec())));
    }
    // The client's own farewell is the upstream's to answer.
    socket.send(CLOSE, &1000_u16.to_be_bytes());
    assert_eq!(socket.read(), Some((CLOSE, 1000_u16.to_be_bytes().to_vec())));
    assert!(matches!(upstream.next(), Seen::Close(close) if close.payload == 1000_u16.to_be_bytes()));
    drop(socket);
    assert_eq!(upstream.next(), Seen::End);
    is_over(&gateway);
}

#[test]
fn what_bounds_bodies_does_not_bound_messages() {
    let upstream = Echo::start();
    let gateway = start(upstream.address(), "20s", "", "limits: { request: { body: 10KiB } }\n");
    let mut socket = WebSocket::open(&gateway.address(), "/chat");
    for _ in 0..10 {
        socket.send(BINARY, &[b'x'; 5000]);
        assert_eq!(socket.read(), Some((BINARY, vec![b'x'; 5000])));
    }
}

#[test]
fn bytes_around_the_switch_are_neither_lost_nor_early() {
    let upstream = Echo::start();
    let gateway = start(upstream.address(), "20s", "", "");
    for (path, first) in [("/slow", None), ("/early", Some(b"first"))] {
        let mut socket = WebSocket { connection: Connection::open(&gateway.address()) };
        let ahead = [handshake(path, "").into_bytes(), frame(TEXT, Some([5; 4]), b"ahead")].concat();
        socket.connection.send(&ahead);
        let answer = socket.connection.read("GET").unwrap();
        assert_eq!(answer.status, 101, "{path}");
        if let Some(first) = first {
            assert_eq!(socket.read(), Some((TEXT, first.to_vec())));
        }
        assert_eq!(socket.read(), Some((TEXT, b"ahead".to_vec())), "{path}");
    }
}

#[test]
fn a_handshake_that_is_refused_goes_nowhere() {
    let upstream = Echo::start();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
consumers: [{{ name: a, credentials: [{{ api_key: {{ sha256: 30144bf7c09e3ce43ae4f176c782153db28923539551fdf459b80fb4021c43c4 }} }}] }}]
routes:
  - {{ name: closed, match: {{ path: /closed }}, auth: none, upstream: back }}
  - {{ name: open, match: {{ path: /open }}, auth: none, upstream: back, websocket: {{}} }}
  - {{ name: keyed, match: {{ path: /keyed }}, upstream: back, websocket: {{}}, plugins: [{{ api_key: {{}} }}] }}
  - {{ name: own, match: {{ path: /own }}, auth: none, upstream: back, websocket: {{}}, plugins: [{{ respond: {{ status: 200, body: own }} }}] }}\n",
        upstream.address()
    ));
    let address = gateway.address();
    ask(&address, "/closed", "").assert_problem(403, "upgrade_not_allowed");
    ask(&address, "/open", "Content-Length: 5\r\n").assert_problem(400, "bad_upgrade");
    ask(&address, "/open", "Transfer-Encoding: chunked\r\n").assert_problem(400, "bad_upgrade");
    ask(&address, "/open", "Connection: X-Consumer-Id\r\n").assert_problem(400, "bad_header");
    ask(&address, "/keyed", "").assert_problem(401, "api_key_missing");
    ask(&address, "/keyed", "X-API-Key: wrong\r\n").assert_problem(401, "api_key_invalid");
    ask(&address, "/nowhere", "").assert_problem(404, "no_route");
    let mut posted = Connection::open(&address);
    posted.send(handshake("/open", "").replace("GET", "POST").as_bytes());
    posted.read("POST").unwrap().assert_problem(400, "bad_upgrade");
    let own = ask(&address, "/own", "");
    assert_eq!((own.status, own.text().as_str()), (200, "own"));
    // What a client takes for frames after a refusal is read as HTTP, and refused.
    let mut hopeful = Connection::open(&address);
    hopeful.send(&[handshake("/closed", "").into_bytes(), frame(TEXT, Some([0; 4]), b"\r\n\r\n")].concat());
    hopeful.read("GET").unwrap().assert_problem(403, "upgrade_not_allowed");
    assert_eq!(hopeful.read("GET").map_or(400, |answer| answer.status), 400);
    assert!(hopeful.is_closed());
    assert!(upstream.is_untouched());
    assert_eq!(ask(&address, "/keyed", "X-API-Key: example-key-acme-mobile\r\n").status, 101);
    let header = upstream.header().to_lowercase();
    assert!(header.contains("x-consumer-name: a\r\n") && !header.contains("x-api-key"), "{header}");
}

#[test]
fn plugins_and_the_log_see_the_switch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = Echo::start();
    let log = format!("telemetry: {{ access_log: {{ to: \"file:{}\" }} }}\n", path.display());
    let plugins = "{ request_id: {} }, { headers: { response: { set: { X-Seen: yes } } } }";
    let gateway = start(upstream.address(), "20s", plugins, &log);
    let mut connection = Connection::open(&gateway.address());
    connection.send(handshake("/chat", "").as_bytes());
    let answer = connection.read("GET").unwrap();
    assert_eq!(answer.status, 101);
    assert_eq!((answer.header("x-seen"), answer.header("upgrade")), (Some("yes"), Some("websocket")));
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(answer.header("connection").unwrap().eq_ignore_ascii_case("upgrade"), "{answer:?}");
    let id = answer.header("x-request-id").unwrap().to_owned();
    assert!(upstream.header().contains(&id));
    assert_eq!(gateway.metric("crossway_requests_in_flight"), 1.0);
    let mut socket = WebSocket { connection };
    socket.send(CLOSE, &GOING_AWAY);
    assert_eq!((socket.read(), socket.read()), (Some((CLOSE, GOING_AWAY.to_vec())), None));
    drop(socket);
    is_over(&gateway);
    let line = eventually("the line is written", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().next().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
    });
    assert_eq!((&line["status"], &line["request_id"], &line["path"]), (&101.into(), &id.into(), &"/chat".into()));
    assert_eq!(line.get("code"), None, "{line}");
    assert_eq!(gateway.metric("crossway_requests_total{class=\"1xx\",route=\"all\"}"), 1.0);
}

#[test]
fn an_upstream_that_does_not_switch_is_answered_as_any() {
    let upstream = Echo::start();
    let gateway = start(upstream.address(), "20s", "", "");
    for (path, status, body) in [("/ok", 200, "fine"), ("/refuse", 403, "no")] {
        let mut connection = Connection::open(&gateway.address());
        connection.send(handshake(path, "").as_bytes());
        let answer = connection.read("GET").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (status, body));
        assert_eq!(answer.header("upgrade"), None);
        // If the connection lives on, it is HTTP as before.
        if connection.try_send(b"GET /ok HTTP/1.1\r\nHost: t\r\n\r\n").is_ok()
            && let Some(again) = connection.read("GET")
        {
            assert_eq!((again.status, again.text().as_str()), (200, "fine"));
        }
    }
}

#[test]
fn a_switch_that_nobody_asked_for_is_a_fault() {
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for route in ["", ", websocket: {}"] {
        for plugin in ["", "{ respond: { instead_of: [418], status: 200 } }"] {
            let upstream =
                Silent::start(&[&switch[..], b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"].concat());
            let gateway = Gateway::start(&format!(
                "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}], retry: {{ attempts: 0 }} }} }}
routes: [{{ name: all, match: {{ path: / }}, auth: none, upstream: back, plugins: [{plugin}]{route} }}]\n",
                upstream.address()
            ));
            let mut connection = Connection::open(&gateway.address());
            connection.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
            let answer = connection.read("GET").unwrap();
            answer.assert_problem(502, "upstream_protocol");
            upstream.has_request();
            upstream.is_freed();
        }
    }
}

#[test]
fn other_upgrades_are_not_offered() {
    let upstream = Upstream::echo();
    let gateway = start(upstream.address(), "20s", "", "");
    for (connection, upgrade) in [
        ("Upgrade, HTTP2-Settings", "h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"),
        ("Upgrade", "TLS/1.0"),
        ("Upgrade", "h2c, foo/2"),
        ("keep-alive", "websocket"),
    ] {
        let mut client = Connection::open(&gateway.address());
        client.send(
            format!("GET / HTTP/1.1\r\nHost: t\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\n\r\n").as_bytes(),
        );
        assert_eq!(client.read("GET").unwrap().status, 200, "{upgrade}");
        let received = upstream.received().pop().unwrap();
        let names: Vec<_> = received.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert!(!names.iter().any(|name| ["upgrade", "http2-settings"].contains(name)), "{received:?}");
        assert!(
            received.header("connection").is_none_or(|value| !value.to_lowercase().contains("upgrade")),
            "{received:?}"
        );
    }
    // HTTP/1.0 knows no upgrade.
    let mut old = Connection::open(&gateway.address());
    old.send(handshake("/", "").replace("HTTP/1.1", "HTTP/1.0").as_bytes());
    assert_eq!(old.read("GET").unwrap().status, 200);
    assert_eq!(upstream.received().pop().unwrap().header("upgrade"), None);
}

#[test]
fn a_silent_connection_ends_with_a_word_and_pings_keep_it() {
    let upstream = Echo::start();
    let gateway = start(upstream.address(), "700ms", "", "");
    let mut socket = WebSocket::open(&gateway.address(), "/chat");
    upstream.header();
    for _ in 0..7 {
        pass(Duration::from_millis(200));
        socket.send(PING, b"");
        assert_eq!(socket.read(), Some((PONG, Vec::new())));
    }
    let silent = Instant::now();
    assert_eq!(socket.read(), Some((CLOSE, GOING_AWAY.to_vec())));
    let took = silent.elapsed();
    assert!((Duration::from_millis(600)..Duration::from_secs(4)).contains(&took), "{took:?}");
    assert!(matches!(upstream.next(), Seen::Close(close) if close.masked && close.payload == GOING_AWAY));
    // A polite client answers, and then nothing is left.
    socket.send(CLOSE, &GOING_AWAY);
    assert_eq!(socket.read(), None);
    assert_eq!(upstream.next(), Seen::End);
    is_over(&gateway);
}

#[test]
fn the_clocks_of_http_do_not_tick_in_a_websocket() {
    let upstream = Echo::start();
    let gateway = Gateway::start(&format!(
        "limits: {{ client: {{ idle: 200ms, header_deadline: 200ms, min_rate: 1MiB/s }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}], timeouts: {{ total: 300ms, first_byte: 300ms, idle: 300ms }} }} }}
routes: [{{ name: all, match: {{ path: /chat }}, auth: none, upstream: back, timeout: 300ms, websocket: {{ idle: 20s }} }}]\n",
        upstream.address()
    ));
    let mut socket = WebSocket::open(&gateway.address(), "/chat");
    for _ in 0..2 {
        pass(Duration::from_secs(1));
        socket.send(TEXT, b"still here");
        assert_eq!(socket.read(), Some((TEXT, b"still here".to_vec())));
    }
}

#[test]
fn a_handshake_that_is_never_answered_times_out() {
    let upstream = Silent::start(b"");
    let gateway = Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}], retry: {{ attempts: 0 }}, timeouts: {{ first_byte: 300ms }} }} }}
routes: [{{ name: all, match: {{ path: / }}, auth: none, upstream: back, websocket: {{}} }}]\n",
        upstream.address()
    ));
    ask(&gateway.address(), "/", "").assert_problem(504, "upstream_timeout");
    upstream.has_request();
    upstream.is_freed();
    is_over(&gateway);
}

const DRAIN: &str = "runtime: { threads: 2, drain: { readiness_delay: 0s, deadline: 60s } }\n";

#[test]
fn a_drain_says_farewell_on_both_sides() {
    let upstream = Echo::start();
    let mut gateway = start(upstream.address(), "60s", "", DRAIN);
    let mut socket = WebSocket::open(&gateway.address(), "/chat");
    upstream.header();
    socket.send(TEXT, b"hello");
    assert_eq!(socket.read(), Some((TEXT, b"hello".to_vec())));
    let told = Instant::now();
    gateway.signal("TERM");
    assert_eq!(socket.read(), Some((CLOSE, GOING_AWAY.to_vec())));
    assert!(matches!(upstream.next(), Seen::Close(close) if close.masked && close.payload == GOING_AWAY));
    // Even if the client never answers.
    assert_eq!(socket.read(), None, "nothing follows the farewell");
    assert!(gateway.wait().success());
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
}

#[test]
fn a_drain_waits_for_the_end_of_a_frame() {
    let upstream = Echo::start();
    let mut gateway = start(upstream.address(), "60s", "", DRAIN);
    let mut socket = WebSocket::open(&gateway.address(), "/half");
    upstream.header();
    // Half a frame from the client is under way, too.
    let half = frame(TEXT, Some([7; 4]), &[b'c'; 1000]);
    socket.connection.send(&half[..500]);
    pass(Duration::from_millis(200));
    gateway.signal("TERM");
    eventually("it is draining", || (gateway.admin("GET /readyz").status == 503).then_some(()));
    pass(Duration::from_millis(300));
    upstream.go.send(()).unwrap();
    assert!(socket.read() == Some((BINARY, vec![b'h'; HALF])), "the frame is whole");
    assert_eq!(socket.read(), Some((CLOSE, GOING_AWAY.to_vec())));
    assert_eq!(socket.read(), None);
    // The client's frame never ended, so nothing could be put behind it.
    assert_eq!(upstream.next(), Seen::End);
    assert!(gateway.wait().success());
}

#[test]
fn the_end_of_one_side_is_the_end_of_the_other() {
    let upstream = Echo::start();
    let gateway = start(upstream.address(), "60s", "", "");
    let mut ended = WebSocket::open(&gateway.address(), "/bye");
    upstream.header();
    ended.send(TEXT, b"last");
    assert_eq!(ended.read(), Some((TEXT, b"last".to_vec())), "what the upstream said last arrives");
    assert_eq!(ended.read(), None);
    assert_eq!(upstream.next(), Seen::End);
    drop(ended);
    let half = WebSocket::open(&gateway.address(), "/mute");
    upstream.header();
    half.connection.writer().shutdown(Shutdown::Write).unwrap();
    assert_eq!(upstream.next(), Seen::End);
    drop(half);
    is_over(&gateway);
}

#[test]
fn a_client_that_has_no_more_to_say_hears_the_answer_to_its_last_words() {
    let upstream = Echo::start();
    let gateway = start(upstream.address(), "20s", "", "");
    let mut socket = WebSocket::open(&gateway.address(), "/chat");
    socket.send(TEXT, b"last words");
    socket.connection.writer().shutdown(Shutdown::Write).unwrap();
    assert_eq!(socket.read(), Some((TEXT, b"last words".to_vec())));
    assert_eq!(socket.read(), None);
    is_over(&gateway);
}

#[test]
fn a_client_that_vanishes_frees_the_upstream() {
    let upstream = Echo::start();
    let gateway = start(upstream.address(), "60s", "", "");
    let socket = WebSocket::open(&gateway.address(), "/mute");
    upstream.header();
    let _ = socket.connection.writer().write_all(&frame(BINARY, Some([1; 4]), &[0; 5000])[..3000]);
    drop(socket);
    assert_eq!(upstream.next(), Seen::End);
    is_over(&gateway);
}

#[test]
fn a_client_that_does_not_read_is_let_go() {
    let upstream = Silent::start(
        &[
            &b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"[..],
            &frame(BINARY, None, &vec![0; 20_000_000]),
        ]
        .concat(),
    );
    let gateway = start(upstream.address(), "20s", "", "limits: { client: { idle: 700ms } }\n");
    let mut stuck = Connection::open(&gateway.address());
    stuck.send(handshake("/", "").as_bytes());
    upstream.has_request();
    upstream.is_freed();
    is_over(&gateway);
}

#[test]
fn a_reload_leaves_websockets_alone() {
    let upstream = Echo::start();
    let mut gateway = start(upstream.address(), "20s", "", "");
    let mut socket = WebSocket::open(&gateway.address(), "/chat");
    let answer = gateway
        .reload("routes: [{ name: b, match: { path: /b }, auth: none, plugins: [{ respond: { status: 204 } }] }]\n");
    assert_eq!((answer.status, gateway.get("/b").status), (200, 204));
    socket.send(TEXT, b"still here");
    assert_eq!(socket.read(), Some((TEXT, b"still here".to_vec())));
}
