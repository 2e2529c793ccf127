//! What comes in place of an upstream's failure.

use crate::harness::{Answer, Connection, Gateway, H2Upstream, Response, Upstream, closed_address, eventually, frame};

/// The plugins of a route, and a body that makes its requests go by one way or the other.
const WAYS: [(&str, &str, &[u8]); 4] = [
    ("exchange", "", b""),
    ("stream", "", b"a body"),
    ("exchange with a body", "{ respond: { instead_of: [418], status: 200, body: replaced } }", b"a body"),
    ("stream, held", "{ body_limit: { max: 60KiB, buffer: true } }", b"a body"),
];

fn start(plugins: &str, endpoint: &str, settings: &str, fallback: &str) -> Gateway {
    Gateway::start(&config(plugins, endpoint, settings, fallback, &closed_address()))
}

fn config(plugins: &str, endpoint: &str, settings: &str, fallback: &str, second: &str) -> String {
    format!(
        "telemetry: {{ access_log: {{ to: stdout }} }}
upstreams:
  back: {{ endpoints: [{{ address: \"{endpoint}\" }}], {settings} }}
  second: {{ endpoints: [{{ address: \"{second}\" }}] }}
plugins: [headers: {{ response: {{ set: {{ X-Way: seen }} }} }}]
routes:
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, plugins: [{plugins}], upstream: back, fallback: {{ {fallback} }} }}
"
    )
}

fn count(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("crossway_fallbacks_total{{reason=\"{reason}\",route=\"all\"}}"))
}

/// The lines of the access log, once there are so many.
fn log(gateway: &Gateway, lines: usize) -> Vec<serde_json::Value> {
    eventually("the log is written", || {
        let text = gateway.stdout();
        let all: Vec<_> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (all.len() >= lines).then_some(all)
    })
}

/// What fails, and what that is called.
fn failures() -> Vec<(&'static str, Option<Upstream>, &'static str)> {
    vec![
        ("connect_error", None, ""),
        ("reset", Some(Upstream::start(|_| Answer::raw(""))), "retry: { attempts: 0 }"),
        ("reset", Some(Upstream::start(|_| Answer::raw("garbage\r\n\r\n"))), "retry: { attempts: 0 }"),
        ("timeout", Some(Upstream::start(|_| Answer::silence())), "timeouts: { first_byte: 200ms }"),
        ("timeout", Some(Upstream::start(|_| Answer::silence())), "timeouts: { total: 200ms }"),
        ("timeout", Some(Upstream::start(|_| Answer::silence())), "retry: { per_try: 200ms }"),
        ("status", Some(Upstream::start(|_| Answer::new(503, &[], b"busy"))), ""),
    ]
}

#[test]
fn a_fixed_answer_takes_the_place_of_every_failure() {
    let respond = "respond: { status: 200, json: { items: [] }, headers: { X-From: fallback } }";
    for (way, plugins, body) in WAYS {
        for (on, upstream, settings) in failures() {
            let dead = closed_address();
            let address = upstream.as_ref().map_or(dead.as_str(), Upstream::address);
            let words = if on == "status" { "5xx" } else { on };
            let gateway = start(plugins, address, settings, &format!("on: [{words}], {respond}"));
            let answer = gateway.send("POST /x", &[], body);
            assert_eq!((answer.status, answer.text().as_str()), (200, "{\"items\":[]}"), "{way} {on}: {answer:?}");
            let fields = ["content-type", "x-from", "x-way"].map(|name| answer.header(name));
            assert_eq!(fields, [Some("application/json"), Some("fallback"), Some("seen")], "{way} {on}");
            assert_eq!(count(&gateway, on), 1.0, "{way} {on}");
            let line = log(&gateway, 1).remove(0);
            assert_eq!(
                (&line["fallback"], &line["status"], &line["code"]),
                (&on.into(), &200.into(), &serde_json::Value::Null),
                "{line}"
            );
            assert_eq!(line["upstream"], "back", "{line}");
            if way != "exchange" {
                continue;
            }
            // What is not named is the client's.
            let other = if on == "connect_error" { "reset" } else { "connect_error" };
            let gateway = start(plugins, address, settings, &format!("on: [{other}], {respond}"));
            assert!(gateway.send("POST /x", &[], body).status >= 500, "{way} {on}");
            assert_eq!(log(&gateway, 1)[0].get("fallback"), None, "{way} {on}");
        }
    }
}

#[test]
fn an_upstream_without_addresses_has_its_fallback_too() {
    for (way, plugins, body) in WAYS {
        let gateway = start(plugins, "nowhere.invalid:80", "", "respond: { status: 203, body: later }");
        let answer = gateway.send("POST /x", &[], body);
        assert_eq!((answer.status, answer.text().as_str()), (203, "later"), "{way}");
        assert_eq!(count(&gateway, "no_endpoint"), 1.0, "{way}");
    }
}

#[test]
fn a_connection_goes_on_after_a_fixed_answer() {
    let gateway = start("", &closed_address(), "", "respond: { status: 200, body: later }");
    let mut connection = Connection::open(&gateway.address());
    for _ in 0..3 {
        connection.send(b"GET /x HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(connection.read("GET").unwrap().text(), "later");
    }
    let head = gateway.send("HEAD /x", &[], b"");
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, Some("5")));
}

#[test]
fn another_upstream_gets_the_whole_request() {
    for (way, plugins, body) in WAYS {
        for (on, upstream, settings) in failures() {
            let second = Upstream::start(|r| Answer::ok([r.method.as_bytes(), b" ", &r.body].concat()));
            let dead = closed_address();
            let address = upstream.as_ref().map_or(dead.as_str(), Upstream::address);
            let words = if on == "status" { "5xx" } else { on };
            let fallback = format!("on: [{words}], upstream: second");
            let gateway = Gateway::start(&config(plugins, address, settings, &fallback, second.address()));
            let answer = gateway.send("PUT /x", &[("X-Kept", "1")], body);
            if settings.contains("total") {
                // Nothing is left of the request's time.
                answer.assert_problem(504, "deadline_exceeded");
                assert_eq!((second.received().len(), count(&gateway, on)), (0, 0.0), "{way} {on}");
                continue;
            }
            let expected = [b"PUT ", body].concat();
            assert_eq!((answer.status, &answer.body), (200, &expected), "{way} {on} {settings}: {answer:?}");
            assert_eq!(answer.header("x-way"), Some("seen"), "{way} {on}");
            let seen = second.only();
            assert_eq!((seen.header("host"), seen.header("x-kept")), (Some(second.address()), Some("1")), "{way} {on}");
            assert_eq!(count(&gateway, on), 1.0, "{way} {on}");
            let line = log(&gateway, 1).remove(0);
            assert_eq!((&line["fallback"], &line["upstream"]), (&on.into(), &"second".into()), "{line}");
            // No connection, and the one retry of the defaults.
            let attempts = if on == "connect_error" { 3 } else { 2 };
            assert_eq!(line["attempts"], attempts, "{line}");
        }
    }
}

#[test]
fn a_post_goes_elsewhere_only_if_it_was_not_sent_or_may_be_repeated() {
    for (way, plugins, body) in WAYS {
        for (on, upstream, settings) in failures() {
            for methods in [false, true] {
                if settings.contains("total") || (methods && settings.contains("retry")) {
                    continue;
                }
                let second = Upstream::start(|_| Answer::ok("second"));
                let dead = closed_address();
                let address = upstream.as_ref().map_or(dead.as_str(), Upstream::address);
                let named = if methods { "retry: { attempts: 0, methods: [POST] }" } else { "" };
                let settings = [settings, named].join(if settings.is_empty() || named.is_empty() { "" } else { ", " });
                let words = if on == "status" { "5xx" } else { on };
                let fallback = format!("on: [{words}], upstream: second");
                let gateway = Gateway::start(&config(plugins, address, &settings, &fallback, second.address()));
                let before = upstream.as_ref().map_or(0, |upstream| upstream.received().len());
                let answer = gateway.send("POST /x", &[], body);
                let goes = methods || on == "connect_error";
                let sent = second.received().len();
                assert_eq!(
                    (sent, answer.text() == "second"),
                    (usize::from(goes), goes),
                    "{way} {on} {settings}: {answer:?}"
                );
                if !goes {
                    let first = upstream.as_ref().map_or(0, |upstream| upstream.received().len());
                    assert_eq!(first, before + 1, "{way} {on}: sent once, to the first");
                }
                if on == "status" && !goes {
                    assert_eq!((answer.status, answer.text().as_str()), (503, "busy"), "{way}: the answer stands");
                }
            }
        }
    }
}

#[test]
fn a_body_that_is_not_at_hand_any_more_goes_nowhere_else() {
    for (way, plugins) in [("stream", ""), ("exchange", WAYS[2].1)] {
        for (length, goes) in [(60_000, true), (200_000, false)] {
            let (first, second) =
                (Upstream::start(|_| Answer::new(503, &[], b"busy")), Upstream::start(|r| Answer::ok(&r.body)));
            let gateway =
                Gateway::start(&config(plugins, first.address(), "", "on: [503], upstream: second", second.address()));
            let body = vec![b'x'; length];
            let answer = gateway.send("PUT /x", &[], &body);
            assert_eq!((answer.status == 200, answer.body == body), (goes, goes), "{way} {length}");
            assert_eq!(second.received().len(), usize::from(goes), "{way} {length}");
            if !goes {
                assert_eq!((answer.status, answer.text().as_str()), (503, "busy"), "{way}");
            }
        }
    }
}

#[test]
fn a_body_that_is_still_coming_goes_on_to_the_second_upstream() {
    // The first one answers before it has the whole body, which the client sends only after that.
    for (way, plugins) in [("stream", ""), ("exchange", WAYS[2].1)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (answered, wait) = std::sync::mpsc::sync_channel(1);
        let first = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut stream, _) = listener.accept().unwrap();
            let mut read = Vec::new();
            let mut buffer = [0; 1024];
            while !read.ends_with(b"first,") {
                let count = stream.read(&mut buffer).unwrap();
                read.extend_from_slice(&buffer[..count]);
            }
            stream.write_all(b"HTTP/1.1 503 X\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy").unwrap();
            answered.send(()).unwrap();
            while matches!(stream.read(&mut buffer), Ok(1..)) {}
        });
        let second = Upstream::start(|r| Answer::ok(&r.body));
        let gateway = Gateway::start(&config(plugins, &address, "", "on: [503], upstream: second", second.address()));
        let mut connection = Connection::open(&gateway.address());
        connection.send(b"PUT /x HTTP/1.1\r\nHost: t\r\nContent-Length: 12\r\n\r\nfirst,");
        wait.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        connection.send(b"second");
        let answer = connection.read("PUT").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "first,second"), "{way}: {answer:?}");
        drop(connection);
        drop(gateway);
        first.join().unwrap();
    }
}

#[test]
fn what_the_second_upstream_says_is_final() {
    for (way, plugins, body) in WAYS {
        let gateway = start(plugins, &closed_address(), "", "upstream: second");
        let answer = gateway.send("PUT /x", &[], body);
        answer.assert_problem(502, "upstream_connect");
        assert_eq!((answer.header("x-way"), count(&gateway, "connect_error")), (Some("seen"), 1.0), "{way}");
        let busy = Upstream::start(|_| Answer::new(503, &[], b"busy too"));
        let fallback = "on: [connect_error, 503], upstream: second";
        let gateway = Gateway::start(&config(plugins, &closed_address(), "", fallback, busy.address()));
        assert_eq!(gateway.send("PUT /x", &[], body).text(), "busy too", "{way}");
        assert_eq!(busy.received().len(), 1, "{way}");
    }
}

#[test]
fn an_answer_that_has_begun_is_not_replaced() {
    for (way, plugins, body) in &WAYS[..2] {
        let cut = Upstream::start(|_| Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"));
        let gateway = start(plugins, cut.address(), "retry: { attempts: 0 }", "respond: { status: 200, body: later }");
        let answer = gateway.send("PUT /x", &[], body);
        assert!(!answer.complete && !answer.text().contains("later"), "{way}: {answer:?}");
        assert_eq!(count(&gateway, "reset"), 0.0, "{way}");
    }
}

#[test]
fn a_reload_drops_the_series_of_routes_that_are_gone() {
    let mut gateway = start("", &closed_address(), "", "respond: { status: 200, body: later }");
    assert_eq!(gateway.get("/x").text(), "later");
    let without =
        "routes: [{ name: other, match: { path: / }, auth: none, plugins: [{ respond: { status: 204 } }] }]\n";
    assert_eq!(gateway.reload(without).status, 200);
    assert!(!gateway.admin("GET /metrics").text().contains("crossway_fallbacks_total{"));
}

fn calls(first: &str, second: &str, fallback: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams:
  back: {{ endpoints: [{{ address: \"{first}\" }}], http2: true, retry: {{ attempts: 0, methods: [POST], per_try: 500ms }} }}
  second: {{ endpoints: [{{ address: \"{second}\" }}], http2: true }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, grpc_web: true, upstream: back, fallback: {{ {fallback} }} }}]\n"
    ))
}

fn call(gateway: &Gateway, path: &str) -> Response {
    gateway.send(&format!("POST {path}"), &[("Content-Type", "application/grpc-web+proto")], &frame(b"order"))
}

#[test]
fn calls_have_fallbacks_too() {
    let second = H2Upstream::plain();
    let dead = closed_address();
    let answer = call(&calls(&dead, second.address(), "respond: { status: 503 }"), "/echo.Echo/Unary");
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("14")), "{answer:?}");
    let first = H2Upstream::plain();
    for (first, path, on) in [
        (dead.as_str(), "/echo.Echo/Unary", "connect_error"),
        (first.address(), "/reset/1", "reset"),
        (first.address(), "/page", "503"),
    ] {
        let gateway = calls(first, second.address(), &format!("on: [{on}], upstream: second"));
        call(&gateway, path);
        let seen = second.seen();
        let seen = seen.last().unwrap();
        assert_eq!((&*seen.path, &seen.body), (path, &frame(b"order").to_vec()), "{on}");
        assert_eq!(count(&gateway, if on == "503" { "status" } else { on }), 1.0, "{on}");
    }
}
