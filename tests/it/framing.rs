//! What a front must refuse before anybody can read it in two ways. Each case is sent as it stands, byte by byte.

use std::time::Duration;

use crate::harness::{Answer, Connection, Gateway, Upstream, eventually, raw};

const SILENCE: Duration = Duration::from_secs(3);

fn start() -> (Gateway, Upstream) {
    let upstream = Upstream::start(|_| Answer::ok("ok"));
    let gateway = Gateway::start(&format!(
        "limits: {{ client: {{ header_deadline: 1s, idle: 2s }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}]\n",
        upstream.address()
    ));
    (gateway, upstream)
}

/// Requests that are refused with a 4xx or 5xx and a closed connection, and of which nothing reaches the upstream.
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let plain = |name, text: &str| (name, text.as_bytes().to_vec());
    let mut cases = vec![
        plain(
            "length and chunked",
            "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        ),
        plain(
            "chunked and length",
            "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2c\r\nGET /smuggled HTTP/1.1\r\nHost: t\r\nX: 01234567\r\n0\r\n\r\n",
        ),
        plain("two lengths", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        plain("no host", "GET / HTTP/1.1\r\n\r\n"),
        plain("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        plain("host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        plain("host with user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
        plain("host with path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        plain("host port", "GET / HTTP/1.1\r\nHost: t:99999\r\n\r\n"),
        plain("empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        plain("absolute form of another host", "GET http://internal/admin HTTP/1.1\r\nHost: t\r\n\r\n"),
        plain("absolute form of another scheme", "GET ftp://t/ HTTP/1.1\r\nHost: t\r\n\r\n"),
        plain("bare line feeds", "GET / HTTP/1.1\nHost: t\n\n"),
        plain("bare carriage return", "GET / HTTP/1.1\r\nHost: t\r\nX: a\rb\r\n\r\n"),
        plain("folded line", "GET / HTTP/1.1\r\nHost: t\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n"),
        plain("space before colon", "GET / HTTP/1.1\r\nHost: t\r\nX : y\r\n\r\n"),
        plain("no colon", "GET / HTTP/1.1\r\nHost: t\r\nContent-Length 10\r\n\r\n"),
        plain("empty name", "GET / HTTP/1.1\r\nHost: t\r\n: y\r\n\r\n"),
        plain("underscore", "GET / HTTP/1.1\r\nHost: t\r\nTransfer_Encoding: chunked\r\n\r\n"),
        plain("two spaces", "GET  / HTTP/1.1\r\nHost: t\r\n\r\n"),
        plain("space in target", "GET /a b HTTP/1.1\r\nHost: t\r\n\r\n"),
        plain("version in target", "GET /public HTTP/1.1/../admin HTTP/1.1\r\nHost: t\r\n\r\n"),
        plain("version 2", "GET / HTTP/2.0\r\nHost: t\r\n\r\n"),
        plain("version in lower case", "GET / http/1.1\r\nHost: t\r\n\r\n"),
        plain("no version", "GET /\r\n\r\n"),
        plain("method in lower case", "get / HTTP/1.1\r\nHost: t\r\n\r\n"),
        plain("odd method", "G=\":<>(e) / HTTP/1.1\r\nHost: t\r\n\r\n"),
        plain("trace", "TRACE / HTTP/1.1\r\nHost: t\r\n\r\n"),
        plain("connect", "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n"),
        plain("asterisk", "OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n"),
        plain("chunked in 1.0", "POST / HTTP/1.0\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        plain("http/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        plain("nominated identity", "GET / HTTP/1.1\r\nHost: t\r\nConnection: close, X-Consumer-Name\r\n\r\n"),
    ];
    for te in [
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        ",chunked",
        "\"chunked\"",
        "chunked;q=1",
        "\x0bchunked",
        "chunked\0",
    ] {
        cases.push((
            "transfer coding",
            format!("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: {te}\r\n\r\n0\r\n\r\n").into_bytes(),
        ));
    }
    for length in ["+5", "-5", "0x5", "5 5", "5;", "1e1", "5\x0b", "", "18446744073709551616", "5, 5"] {
        cases.push((
            "content length",
            format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\nhello").into_bytes(),
        ));
    }
    for size in ["0x5", "+5", "-0", " 5", "5_0", "", "10000000000000005", "5;a=b\r\rX"] {
        cases.push((
            "chunk size",
            format!("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\nhello\r\n0\r\n\r\n")
                .into_bytes(),
        ));
    }
    cases.push(plain(
        "chunk end",
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    ));
    cases.push(("name with a control", b"GET / HTTP/1.1\r\nHost: t\r\nX\x85: y\r\n\r\n".to_vec()));
    cases.push(("value with a control", b"GET / HTTP/1.1\r\nHost: t\r\nX: \x7f\r\n\r\n".to_vec()));
    cases.push(("target that is not ASCII", b"GET /\xff\xfe HTTP/1.1\r\nHost: t\r\n\r\n".to_vec()));
    cases.push(("host with a control", b"GET / HTTP/1.1\r\nHost: t\0x\r\n\r\n".to_vec()));
    cases.push(("long target", format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "a".repeat(9000)).into_bytes()));
    cases
        .push(("large header", format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "a".repeat(40_000)).into_bytes()));
    cases.push(("many fields", format!("GET / HTTP/1.1\r\nHost: t\r\n{}\r\n", "X: y\r\n".repeat(101)).into_bytes()));
    cases
}

#[test]
fn ambiguous_requests_are_refused_and_reach_nobody() {
    let (gateway, upstream) = start();
    let address = gateway.address();
    for (name, bytes) in refused() {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let before = upstream.received().len();
        let (answer, closed) = raw(&address, &bytes, SILENCE);
        let status: u16 = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_default();
        assert!((400..600).contains(&status), "{name}: {shown:?} -> {answer}");
        assert!(closed, "{name}: {shown:?} was left open: {answer}");
        assert!(answer.contains("application/problem+json"), "{name}: {answer}");
        assert_eq!(answer.lines().filter(|l| l.starts_with("HTTP/1.1 ")).count(), 1, "{name}: {answer}");
        // A body that turns out to be broken on its way may have shown the upstream a header, never a whole request.
        assert_eq!(upstream.received().len(), before, "{name}: {shown:?}");
        let canary = gateway.get("/canary");
        assert_eq!((canary.status, canary.text().as_str()), (200, "ok"), "{name}");
        let last = upstream.received().pop().unwrap();
        assert_eq!(last.target, "/canary", "{name}");
    }
    assert!(!upstream.received().iter().any(|r| r.target.contains("smuggled")));
}

#[test]
fn statuses_say_what_is_wrong() {
    let (gateway, _upstream) = start();
    let status = |text: &str| raw(&gateway.address(), text.as_bytes(), SILENCE).0.split(' ').nth(1).map(str::to_owned);
    for (text, expected) in [
        (format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "a".repeat(9000)), "414"),
        (format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "a".repeat(40_000)), "431"),
        (format!("GET / HTTP/1.1\r\nHost: t\r\n{}\r\n", "X: y\r\n".repeat(101)), "431"),
        ("GET / HTTP/3.0\r\nHost: t\r\n\r\n".to_owned(), "505"),
        ("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), "501"),
        ("TRACE / HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), "501"),
        ("GET / HTTP/1.1\r\nHost: t\r\nExpect: wonders\r\n\r\n".to_owned(), "417"),
    ] {
        assert_eq!(status(&text).as_deref(), Some(expected), "{:?}", &text[..text.len().min(60)]);
    }
    assert!(gateway.metric("crossway_refused_total{code=\"header_too_large\"}") >= 1.0);
}

#[test]
fn slow_headers_are_cut_at_their_deadline() {
    let (gateway, upstream) = start();
    for warm in [false, true] {
        let mut connection = Connection::open(&gateway.address());
        if warm {
            connection.send(b"GET /warm HTTP/1.1\r\nHost: t\r\n\r\n");
            assert_eq!(connection.read("GET").unwrap().status, 200);
        }
        let began = std::time::Instant::now();
        connection.send(b"GET / HTTP/1.1\r\nHost: t\r\n");
        let dripped = eventually("the slow header is cut", || {
            std::thread::park_timeout(Duration::from_millis(50));
            connection
                .try_send(b"X: y\r\n")
                .is_err()
                .then_some(true)
                .or_else(|| (began.elapsed() > Duration::from_millis(1300)).then_some(false))
        });
        let answer = connection.read("GET");
        assert!(dripped || answer.is_some_and(|a| a.status == 408), "warm: {warm}");
        assert!(connection.is_closed());
    }
    assert!(upstream.received().iter().all(|r| r.target == "/warm"));
}

#[test]
fn idle_connections_are_closed() {
    let (gateway, _upstream) = start();
    let mut silent = Connection::open(&gateway.address());
    assert!(silent.is_closed(), "a client that never speaks");
    let mut idle = Connection::open(&gateway.address());
    idle.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(idle.read("GET").unwrap().status, 200);
    let began = std::time::Instant::now();
    assert!(idle.is_closed());
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
    eventually("no connection is left", || (gateway.status()["connections"] == 0).then_some(()));
}

#[test]
fn a_connection_serves_so_many_requests_and_no_more() {
    let gateway = Gateway::start(
        "limits: { client: { requests_per_connection: 3 } }
routes: [{ name: all, match: { path: / }, auth: none, plugins: [{ respond: { status: 200 } }] }]\n",
    );
    let mut connection = Connection::open(&gateway.address());
    for at in 1..=3 {
        connection.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        let answer = connection.read("GET").unwrap();
        assert_eq!(answer.header("connection") == Some("close"), at == 3, "{at}: {answer:?}");
    }
    assert!(connection.is_closed());
}

#[test]
fn older_clients_are_served() {
    let (gateway, upstream) = start();
    let (answer, closed) = raw(&gateway.address(), b"GET /old HTTP/1.0\r\n\r\n", SILENCE);
    assert!(answer.starts_with("HTTP/1.1 200 ") && closed, "{answer}");
    assert_eq!(upstream.only().header("via"), Some("1.0 crossway"));
    let (answer, _) = raw(
        &gateway.address(),
        b"\r\n\r\nGET /after-blank-lines HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
        SILENCE,
    );
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (answer, _) =
        raw(&gateway.address(), b"GET http://t/absolute?x HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", SILENCE);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(upstream.received().pop().unwrap().target, "/absolute?x");
}
