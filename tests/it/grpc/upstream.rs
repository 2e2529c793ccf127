//! HTTP/2 to upstreams, on both ways.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use crate::harness::{Connection, Gateway, H2Upstream, TLS_NAME, Upstream, eventually};

/// The two ways: the same route, with and without a plugin that wants the whole response body.
const WAYS: [(&str, &str); 2] =
    [("stream", ""), ("exchange", "{ respond: { instead_of: [418], status: 200, body: replaced } }")];

fn start(way: &str, endpoints: &[&str], settings: &str) -> Gateway {
    let list: Vec<_> = endpoints.iter().map(|e| format!("{{ address: \"{e}\" }}")).collect();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{}], http2: true, {settings} }} }}
routes:
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, plugins: [{way}], upstream: back }}
",
        list.join(", ")
    ));
    let route = &gateway.status()["routes"][0];
    let by_exchange = way.contains("instead_of") || way.contains("buffer");
    assert_eq!(route["way"] == "exchange", by_exchange, "{route}");
    gateway
}

fn each_way(settings: &str, check: impl Fn(&str, &Gateway, &H2Upstream)) {
    for (name, plugin) in WAYS {
        let upstream = H2Upstream::plain();
        let gateway = start(plugin, &[upstream.address()], settings);
        check(name, &gateway, &upstream);
    }
}

fn tls(upstream: &H2Upstream) -> String {
    format!("tls: {{ ca: \"{}\", server_name: {TLS_NAME} }}, retry: {{ attempts: 0 }}", upstream.ca().display())
}

#[test]
fn requests_and_responses_pass_unchanged() {
    each_way("", |way, gateway, upstream| {
        let headers = [("Content-Type", "text/plain"), ("X-Custom", "yes"), ("Connection", "X-Mine"), ("X-Mine", "1")];
        let response = gateway.send("POST /things?x=1", &headers, b"hello");
        assert_eq!((response.status, response.complete), (200, true), "{way}");
        let seen = upstream.only();
        assert_eq!((&*seen.method, &*seen.path, &seen.body[..]), ("POST", "/things?x=1", &b"hello"[..]), "{way}");
        assert_eq!((&*seen.scheme, &*seen.authority), ("http", upstream.address()), "{way}");
        assert_eq!(seen.header("x-custom"), Some("yes"), "{way}");
        assert_eq!(seen.header("content-length"), Some("5"), "{way}");
        for gone in ["host", "connection", "x-mine", "transfer-encoding", "te"] {
            assert_eq!(seen.header(gone), None, "{way}: {gone}");
        }
        assert_eq!(seen.header("x-forwarded-host"), Some("gateway.test"), "{way}");
        assert!(upstream.errors().is_empty(), "{way}: {:?}", upstream.errors());
    });
}

#[test]
fn bodies_of_every_framing_pass() {
    each_way("", |way, gateway, upstream| {
        let chunked =
            gateway.send("PUT /c", &[("Transfer-Encoding", "chunked")], b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
        assert_eq!(chunked.json()["body"], "abcdefg", "{way}");
        assert_eq!(gateway.get("/none").json()["body"], "", "{way}");
        assert_eq!(gateway.send("POST /zero", &[("Content-Length", "0")], b"").json()["body"], "", "{way}");
        let large = vec![b'x'; 3 << 20];
        let answer = gateway.send("POST /large", &[], &large);
        assert_eq!(answer.json()["body"].as_str().map(str::len), Some(large.len()), "{way}");
        assert_eq!(gateway.send("HEAD /head", &[], b"").status, 200, "{way}");
        assert_eq!(upstream.begun(), 5, "{way}");
    });
}

#[test]
fn a_body_that_is_too_large_is_refused_on_its_way() {
    for (_, plugin) in WAYS {
        let upstream = H2Upstream::plain();
        let plugins = format!("{{ body_limit: {{ max: 10B }} }}, {plugin}");
        let gateway = start(plugins.trim_end_matches(", "), &[upstream.address()], "");
        let body = b"8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n";
        let answer = gateway.send("PUT /echo.Echo/Silent", &[("Transfer-Encoding", "chunked")], body);
        answer.assert_problem(413, "body_too_large");
        eventually("the stream is taken back", || upstream.seen().first().filter(|seen| seen.cancelled).cloned());
    }
}

#[test]
fn a_client_of_http_1_0_reads_to_the_end_of_the_connection() {
    let upstream = H2Upstream::plain();
    let gateway = start("", &[upstream.address()], "");
    let mut connection = Connection::open(&gateway.address());
    connection.send(b"GET /old HTTP/1.0\r\n\r\n");
    let response = connection.read("GET").unwrap();
    assert_eq!((response.status, response.header("transfer-encoding")), (200, None), "{response:?}");
    assert_eq!(response.json()["target"], "/old");
}

#[test]
fn many_requests_share_one_connection() {
    each_way("", |way, gateway, upstream| {
        for at in 0..20 {
            assert_eq!(gateway.get(&format!("/{at}")).status, 200, "{way}");
        }
        assert_eq!(upstream.connections(), 1, "{way}");
    });
}

#[test]
fn over_tls_the_endpoint_must_agree_to_http_2() {
    for (_, plugin) in WAYS {
        let agrees = H2Upstream::tls(&["h2", "http/1.1"]);
        let gateway = start(plugin, &[agrees.address()], &tls(&agrees));
        assert_eq!(gateway.get("/hello").json()["target"], "/hello");
        assert_eq!(agrees.only().scheme, "https");
        for alpn in [&["http/1.1"][..], &[]] {
            let refuses = H2Upstream::tls(alpn);
            let gateway = start(plugin, &[refuses.address()], &tls(&refuses));
            gateway.get("/").assert_problem(502, "upstream_connect");
            assert_eq!(refuses.begun(), 0, "nothing was sent");
        }
    }
}

#[test]
fn an_endpoint_that_does_not_agree_is_passed_by() {
    for (way, plugin) in WAYS {
        let (refuses, agrees) = (H2Upstream::tls(&[]), H2Upstream::tls(&["h2"]));
        let both = std::fs::read_to_string(refuses.ca()).unwrap() + &std::fs::read_to_string(agrees.ca()).unwrap();
        std::fs::write(agrees.ca(), both).unwrap();
        let settings = format!("tls: {{ ca: \"{}\", server_name: {TLS_NAME} }}", agrees.ca().display());
        let gateway = start(plugin, &[refuses.address(), agrees.address()], &settings);
        for _ in 0..4 {
            assert_eq!(gateway.send("POST /", &[], b"x").status, 200, "{way}");
        }
        assert_eq!(agrees.begun(), 4, "{way}");
    }
}

#[test]
fn an_endpoint_of_http_1_is_no_endpoint_of_http_2() {
    for (way, plugin) in WAYS {
        let upstream = Upstream::echo();
        let gateway = start(plugin, &[upstream.address()], "retry: { attempts: 0 }");
        let answer = gateway.get("/");
        assert_eq!(answer.status, 502, "{way}: {answer:?}");
        assert!(upstream.received().is_empty(), "{way}");
    }
}

#[test]
fn a_refused_stream_is_tried_again_whatever_its_method() {
    each_way("retry: { attempts: 1, on: [connect_error] }", |way, gateway, upstream| {
        for (at, method) in (0..).zip(["GET", "POST"]) {
            // The query makes another path, and so another count.
            let answer = gateway.send(&format!("{method} /refuse/1"), &[], if at == 0 { b"" } else { b"order" });
            assert_eq!(answer.status, 200, "{way} {method}");
        }
        let empty = [("Content-Length", "0")];
        gateway.send("POST /refuse/9", &empty, b"").assert_problem(503, "upstream_unprocessed");
        assert_eq!(upstream.begun(), 2 + 1 + 2, "{way}");
    });
}

#[test]
fn a_reset_stream_is_tried_again_for_gets_only() {
    each_way("retry: { attempts: 1, on: [reset] }", |way, gateway, upstream| {
        assert_eq!(gateway.get("/reset/1").status, 200, "{way}");
        assert_eq!(upstream.begun(), 2, "{way}");
        gateway.send("POST /reset/9", &[], b"order").assert_problem(502, "upstream_reset");
        assert_eq!(upstream.begun(), 3, "{way}");
    });
}

#[test]
fn an_answer_that_breaks_off_is_seen_to() {
    each_way("", |way, gateway, _| {
        for path in ["/cut", "/short"] {
            let answer = gateway.get(path);
            assert!(answer.status == 502 || !answer.complete, "{way} {path}: {answer:?}");
        }
        assert_eq!(gateway.get("/after").status, 200, "{way}");
    });
}

#[test]
fn a_connection_that_says_goodbye_is_replaced() {
    each_way("retry: { attempts: 1, on: [connect_error] }", |way, gateway, upstream| {
        for _ in 0..5 {
            assert_eq!(gateway.send("POST /leave", &[], b"x").status, 200, "{way}");
        }
        assert_eq!(upstream.begun(), 5, "{way}");
        assert!(upstream.connections() >= 4, "{way}: {}", upstream.connections());
    });
}

/// A server that takes every request and says in GOAWAY that it has processed none.
fn takes_nothing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut read = Vec::new();
            let mut buffer = [0; 4096];
            // Settings, then the header of stream 1: a frame of type 1.
            let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
            let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let _ = stream.write_all(&settings);
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                read.extend_from_slice(&buffer[..count]);
                if has_header(&read) {
                    let _ = stream.write_all(&goaway);
                    break;
                }
            }
            // Until the other side hangs up.
            while matches!(stream.read(&mut buffer), Ok(1..)) {}
        }
    });
    address
}

fn has_header(read: &[u8]) -> bool {
    const PREFACE: usize = 24;
    let mut rest = read.get(PREFACE..).unwrap_or_default();
    while rest.len() >= 9 {
        if rest[3] == 1 {
            return true;
        }
        let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}

#[test]
fn what_a_goaway_says_was_not_processed_is_tried_again_elsewhere() {
    for (way, plugin) in WAYS {
        let good = H2Upstream::plain();
        let gateway = start(plugin, &[&takes_nothing(), good.address()], "retry: { attempts: 1, on: [connect_error] }");
        for _ in 0..4 {
            assert_eq!(gateway.send("POST /order", &[], b"x").status, 200, "{way}");
        }
        assert_eq!(good.begun(), 4, "{way}");
    }
}

#[test]
fn time_outs_hold() {
    let settings = "timeouts: { first_byte: 300ms }, retry: { attempts: 0 }";
    each_way(settings, |way, gateway, upstream| {
        gateway.send("POST /echo.Echo/Silent", &[], b"x").assert_problem(504, "upstream_timeout");
        eventually("the stream is taken back", || upstream.seen().first().filter(|seen| seen.cancelled).cloned());
        assert_eq!(gateway.get("/after").status, 200, "{way}");
    });
    let settings = "timeouts: { first_byte: 10s, total: 300ms }, retry: { attempts: 0 }";
    each_way(settings, |_, gateway, _| {
        gateway.get("/echo.Echo/Silent").assert_problem(504, "deadline_exceeded");
    });
    // A pause within the body.
    let settings = "timeouts: { idle: 300ms, first_byte: 300ms }, retry: { attempts: 0 }";
    each_way(settings, |way, gateway, upstream| {
        let answer = gateway.send("POST /echo.Echo/Held", &[], b"");
        assert!(answer.status == 504 || !answer.complete, "{way}: {answer:?}");
        eventually("the stream is taken back", || upstream.seen().first().filter(|seen| seen.cancelled).cloned());
    });
}

#[test]
fn a_client_that_leaves_takes_its_stream_back() {
    each_way("", |way, gateway, upstream| {
        let mut connection = Connection::open(&gateway.address());
        connection.send(b"GET /echo.Echo/Silent HTTP/1.1\r\nHost: t\r\n\r\n");
        eventually("the request has arrived", || (upstream.begun() == 1).then_some(()));
        drop(connection);
        if way == "stream" {
            eventually("the stream is taken back", || upstream.seen().first().filter(|seen| seen.cancelled).cloned());
        }
        assert_eq!(gateway.get("/after").status, 200, "{way}");
        assert_eq!(upstream.connections(), 1, "{way}");
    });
}

#[test]
fn an_unused_connection_is_closed_however_its_last_stream_ended() {
    for (way, plugin) in WAYS {
        for path in ["/echo.Echo/Silent", "/cut", "/short", "/"] {
            let upstream = H2Upstream::plain();
            let settings = "timeouts: { idle: 400ms, first_byte: 400ms }, retry: { attempts: 0 }";
            let gateway = start(plugin, &[upstream.address()], settings);
            gateway.get(path);
            assert_eq!(upstream.connections(), 1, "{way} {path}");
            eventually(&format!("{way} {path}: the connection is closed"), || (upstream.open() == 0).then_some(()));
            assert_eq!(gateway.get("/after").status, 200, "{way} {path}");
        }
    }
}

#[test]
fn trailers_of_an_answer_do_not_disturb_a_client_of_http_1() {
    each_way("", |way, gateway, upstream| {
        let answer = gateway.send("POST /echo.Echo/Unary", &[("X-Trail-A", "1")], &crate::harness::frame(b"hi"));
        assert_eq!((answer.status, answer.complete), (200, true), "{way}: {answer:?}");
        assert_eq!(answer.body, crate::harness::frame(b"hi"), "{way}");
        assert_eq!(answer.header("grpc-status"), None, "{way}");
        assert_eq!(upstream.connections(), 1, "{way}");
    });
}

#[test]
fn a_body_that_a_plugin_holds_goes_by_exchange() {
    let upstream = H2Upstream::plain();
    let gateway = start("{ body_limit: { max: 1KiB, buffer: true } }", &[upstream.address()], "");
    assert_eq!(gateway.send("POST /held", &[], b"whole").json()["body"], "whole");
    assert_eq!(gateway.get("/none").json()["body"], "");
    assert_eq!(upstream.seen()[1].header("content-length"), None);
}
