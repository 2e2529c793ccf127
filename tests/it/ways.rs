//! One table of tests against both ways to an upstream: what holds for the one holds for the other.

use crate::harness::{Answer, Connection, Gateway, Response, Upstream, closed_address};

/// The two ways: the same route, with and without a plugin that wants the whole response body.
const WAYS: [(&str, &str); 2] =
    [("stream", ""), ("exchange", "{ respond: { instead_of: [418], status: 200, body: replaced } }")];

fn start(way: &str, endpoints: &[&str], settings: &str) -> Gateway {
    let list: Vec<_> = endpoints.iter().map(|e| format!("{{ address: \"{e}\" }}")).collect();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{}], {settings} }} }}
plugins:
  - request_id: {{}}
  - headers: {{ response: {{ set: {{ X-Way: \"seen\" }} }} }}
routes:
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, plugins: [{way}], upstream: back }}
",
        list.join(", ")
    ));
    let route = &gateway.status()["routes"][0];
    assert_eq!(route["way"] == "exchange", !way.is_empty(), "{route}");
    gateway
}

fn each_way(upstream: impl Fn() -> Upstream, settings: &str, check: impl Fn(&str, &Gateway, &Upstream)) {
    for (name, plugin) in WAYS {
        let upstream = upstream();
        let gateway = start(plugin, &[upstream.address()], settings);
        check(name, &gateway, &upstream);
    }
}

fn marked(response: &Response) -> bool {
    response.header("x-way") == Some("seen") && response.header("x-request-id").is_some()
}

#[test]
fn requests_and_responses_pass_unchanged() {
    let answer = |_: &_| {
        Answer::new(
            201,
            &[
                ("Content-Type", "text/plain"),
                ("X-A", "1"),
                ("X-A", "2"),
                ("Connection", "X-Hop"),
                ("X-Hop", "secret"),
                ("Keep-Alive", "timeout=5"),
            ],
            b"made",
        )
    };
    each_way(
        || Upstream::start(answer),
        "",
        |way, gateway, upstream| {
            let response =
                gateway.send("POST /things?x=1", &[("Content-Type", "text/plain"), ("X-Custom", "yes")], b"hello");
            assert_eq!((response.status, response.text().as_str()), (201, "made"), "{way}");
            assert!(marked(&response), "{way}: {response:?}");
            let twice: Vec<_> = response.headers.iter().filter(|(n, _)| n == "x-a").collect();
            assert_eq!(twice.len(), 2, "{way}: {response:?}");
            assert_eq!((response.header("x-hop"), response.header("keep-alive")), (None, None), "{way}");
            let seen = upstream.only();
            assert_eq!(
                (seen.method.as_str(), seen.target.as_str(), &seen.body[..]),
                ("POST", "/things?x=1", &b"hello"[..]),
                "{way}"
            );
            assert_eq!(seen.header("x-custom"), Some("yes"), "{way}");
            assert_eq!(seen.header("host"), Some(upstream.address()), "{way}");
            assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"), "{way}");
            assert_eq!(seen.header("x-forwarded-proto"), Some("http"), "{way}");
            assert_eq!(seen.header("x-forwarded-host"), Some("gateway.test"), "{way}");
            assert_eq!(seen.header("via"), Some("1.1 crossway"), "{way}");
            assert_eq!(seen.header("x-request-id"), response.header("x-request-id"), "{way}");
        },
    );
}

#[test]
fn what_only_the_gateway_may_say_is_taken_from_clients() {
    each_way(Upstream::echo, "", |way, gateway, upstream| {
        let forged = [
            "X-Consumer-Name",
            "X-Consumer-Groups",
            "X-Forwarded-For",
            "Forwarded",
            "X-Real-IP",
            "X-Client-Cert",
            "X-HTTP-Method-Override",
            "X-Original-URL",
        ];
        let headers: Vec<_> = forged.iter().map(|n| (*n, "for=6.6.6.6")).collect();
        assert_eq!(gateway.send("GET /", &headers, b"").status, 200, "{way}");
        let seen = upstream.only();
        assert!(!format!("{:?}", seen.headers).contains("6.6.6.6"), "{way}: {:?}", seen.headers);
    });
}

#[test]
fn hop_by_hop_fields_end_here() {
    each_way(Upstream::echo, "", |way, gateway, upstream| {
        let headers = [
            ("Connection", "X-Mine, keep-alive"),
            ("X-Mine", "1"),
            ("TE", "trailers"),
            ("Proxy-Connection", "x"),
            ("Upgrade", "h2c"),
        ];
        assert_eq!(gateway.send("GET /", &headers, b"").status, 200, "{way}");
        let seen = upstream.only();
        for name in ["x-mine", "te", "proxy-connection", "upgrade", "keep-alive"] {
            assert_eq!(seen.header(name), None, "{way}: {:?}", seen.headers);
        }
    });
}

#[test]
fn chunked_bodies_and_answers_keep_their_bytes() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    each_way(
        || Upstream::start(move |_| Answer::raw(chunked)),
        "",
        |way, gateway, upstream| {
            let body = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
            let response = gateway.send("PUT /x", &[("Transfer-Encoding", "chunked")], body);
            assert_eq!(
                (response.status, response.text().as_str(), response.complete),
                (200, "hello world", true),
                "{way}"
            );
            assert_eq!(upstream.only().body, b"abcdefg", "{way}");
        },
    );
}

#[test]
fn a_client_that_asks_to_continue_is_answered() {
    each_way(Upstream::echo, "", |way, gateway, _| {
        let mut connection = Connection::open(&gateway.address());
        connection.send(b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(connection.read_one("POST").unwrap().status, 100, "{way}");
        connection.send(b"ok");
        let response = connection.read("POST").unwrap();
        assert_eq!((response.status, response.json()["body"].as_str()), (200, Some("ok")), "{way}");
    });
}

#[test]
fn connections_are_kept_on_both_sides() {
    each_way(Upstream::echo, "", |way, gateway, upstream| {
        let mut connection = Connection::open(&gateway.address());
        for _ in 0..5 {
            connection.send(b"GET /x HTTP/1.1\r\nHost: t\r\n\r\n");
            assert_eq!(connection.read("GET").unwrap().status, 200, "{way}");
        }
        let connections: Vec<usize> = upstream.received().iter().map(|r| r.connection).collect();
        assert_eq!(connections, [connections[0]; 5], "{way}");
    });
}

#[test]
fn requests_sent_ahead_are_served_in_order() {
    each_way(Upstream::echo, "", |way, gateway, upstream| {
        let mut connection = Connection::open(&gateway.address());
        let ahead = "GET /1 HTTP/1.1\r\nHost: t\r\n\r\nPOST /2 HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabcPOST /3 HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\nGET /4 HTTP/1.1\r\nHost: t\r\n\r\n";
        connection.send(ahead.as_bytes());
        for (target, body) in [("/1", ""), ("/2", "abc"), ("/3", "de"), ("/4", "")] {
            let echo = connection.read("GET").unwrap_or_else(|| panic!("{way}: closed before {target}")).json();
            assert_eq!((echo["target"].as_str(), echo["body"].as_str()), (Some(target), Some(body)), "{way}");
        }
        assert_eq!((upstream.received().len(), upstream.errors()), (4, 0), "{way}");
    });
}

#[test]
fn head_and_empty_answers_have_no_body() {
    let answer = |r: &crate::harness::Received| match r.target.as_str() {
        "/204" => Answer::new(204, &[], b""),
        "/304" => Answer::new(304, &[("ETag", "\"x\"")], b""),
        _ => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
    };
    each_way(
        || Upstream::start(answer),
        "",
        |way, gateway, _| {
            let head = gateway.send("HEAD /x", &[], b"");
            assert_eq!((head.status, head.header("content-length")), (200, Some("1000")), "{way}");
            for status in [204, 304] {
                let empty = gateway.get(&format!("/{status}"));
                assert_eq!((empty.status, empty.header("content-length")), (status, None), "{way}");
            }
        },
    );
}

#[test]
fn faults_are_explained_and_logged() {
    for (name, plugin) in WAYS {
        let nobody = start(plugin, &[&closed_address()], "");
        let refused = nobody.get("/");
        refused.assert_problem(502, "upstream_connect");
        assert!(marked(&refused), "{name}: {refused:?}");
        assert_eq!(refused.header("proxy-status"), Some("crossway; error=connection_refused"), "{name}");
        assert!(!refused.text().contains("127.0.0.1"), "{name}: {}", refused.text());
        assert!(nobody.metric("crossway_faults_total{code=\"upstream_connect\"}") >= 1.0, "{name}");
    }
}

#[test]
fn an_upstream_that_does_not_answer_costs_its_time_and_no_more() {
    let settings = "timeouts: { first_byte: 300ms, idle: 30s }, retry: { attempts: 0 }";
    each_way(
        || Upstream::start(|_| Answer::silence()),
        settings,
        |way, gateway, _| {
            let started = std::time::Instant::now();
            gateway.get("/").assert_problem(504, "upstream_timeout");
            let waited = started.elapsed().as_millis();
            assert!((300..3000).contains(&waited), "{way}: {waited} ms");
        },
    );
    let settings = "timeouts: { first_byte: 30s, total: 300ms }, retry: { attempts: 0 }";
    each_way(
        || Upstream::start(|_| Answer::silence()),
        settings,
        |way, gateway, _| {
            let answer = gateway.get("/");
            answer.assert_problem(504, "deadline_exceeded");
            assert!(marked(&answer), "{way}");
        },
    );
}

#[test]
fn a_body_may_pause_longer_than_the_header_may_take() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static GO_ON: AtomicBool = AtomicBool::new(false);
    // The body's second half comes only when the test says so, well after `first_byte`.
    for (way, plugin) in [WAYS[0], ("exchange, streamed", "{ respond: { instead_of: [418], status: 200 } }")] {
        GO_ON.store(false, Ordering::SeqCst);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").unwrap();
            while !GO_ON.load(Ordering::SeqCst) {
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
            stream.write_all(b"-last").unwrap();
            let _ = stream.read(&mut [0; 16]);
        });
        let gateway = start(plugin, &[&address], "timeouts: { first_byte: 200ms, total: 20s, idle: 10s }");
        let mut connection = Connection::open(&gateway.address());
        connection.send(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        let timer = std::time::Instant::now();
        while timer.elapsed() < std::time::Duration::from_millis(500) {
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
        GO_ON.store(true, Ordering::SeqCst);
        let response = connection.read("GET").unwrap();
        assert_eq!((response.status, response.text().as_str(), response.complete), (200, "first-last", true), "{way}");
        server.join().unwrap();
    }
}

#[test]
fn answers_that_are_not_http_are_502() {
    for (bytes, code) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "upstream_protocol"),
        ("garbage\r\n\r\n", "upstream_protocol"),
        ("", "upstream_reset"),
    ] {
        each_way(
            || Upstream::start(move |_| Answer::raw(bytes)),
            "retry: { attempts: 0 }",
            |way, gateway, _| {
                let answer = gateway.get("/");
                assert_eq!((answer.status, answer.json()["code"].as_str()), (502, Some(code)), "{way}: {bytes:?}");
            },
        );
    }
}

#[test]
fn a_truncated_answer_is_seen_to_be_one() {
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    each_way(
        || Upstream::start(move |_| Answer::raw(short)),
        "",
        |way, gateway, _| {
            let answer = gateway.get("/");
            assert!(!answer.complete || answer.status == 502, "{way}: {answer:?}");
        },
    );
}

#[test]
fn failed_attempts_go_to_another_endpoint() {
    for (way, plugin) in WAYS {
        let upstream = Upstream::start(|_| Answer::ok("here"));
        let dead = closed_address();
        let gateway = start(plugin, &[&dead, upstream.address()], "retry: { attempts: 1, on: [connect_error] }");
        for request in ["GET /", "POST /", "GET /", "POST /"] {
            assert_eq!(
                gateway.send(request, &[], if request.starts_with('P') { b"body" } else { b"" }).text(),
                "here",
                "{way}"
            );
        }
        assert_eq!(upstream.received().len(), 4, "{way}");
    }
}

#[test]
fn statuses_are_tried_again_only_where_that_is_harmless() {
    let settings = "retry: { attempts: 2, on: [503] }";
    let flaky = || {
        let count = std::sync::atomic::AtomicUsize::new(0);
        Upstream::start(move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 2 {
            0 => Answer::new(503, &[], b"busy"),
            _ => Answer::ok("fine"),
        })
    };
    each_way(flaky, settings, |way, gateway, upstream| {
        assert_eq!(gateway.get("/").text(), "fine", "{way}");
        let put = gateway.send("PUT /", &[], b"again and again");
        assert_eq!(put.text(), "fine", "{way}");
        assert!(upstream.received()[2..].iter().all(|r| r.body == b"again and again"), "{way}");
        assert_eq!(gateway.send("POST /", &[], b"once").status, 503, "{way}");
        assert_eq!(upstream.received().len(), 5, "{way}");
    });
}

#[test]
fn the_original_answer_stands_when_the_attempts_are_used_up() {
    each_way(
        || Upstream::start(|_| Answer::new(503, &[("Retry-After", "0")], b"busy")),
        "retry: { attempts: 2, on: [503] }",
        |way, gateway, upstream| {
            let answer = gateway.get("/");
            assert_eq!(
                (answer.status, answer.text().as_str(), answer.header("retry-after")),
                (503, "busy", Some("0")),
                "{way}"
            );
            assert_eq!(upstream.received().len(), 3, "{way}");
        },
    );
}

#[test]
fn a_response_body_is_replaced_status_included() {
    let upstream = Upstream::start(|r| {
        if r.target == "/broken" {
            Answer::new(500, &[("Content-Type", "text/html"), ("ETag", "\"a\"")], b"<b>stack trace</b>")
        } else {
            Answer::ok("fine")
        }
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
plugins: [{{ headers: {{ response: {{ set: {{ X-Way: seen }} }} }} }}]
routes:
  - {{ name: mended, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back, plugins: [{{ respond: {{ instead_of: [5xx], status: 503, json: {{ message: sorry }} }} }}] }}
",
        upstream.address()
    ));
    let mended = gateway.get("/broken");
    assert_eq!(
        (mended.status, mended.header("content-type"), mended.header("etag")),
        (503, Some("application/json"), None)
    );
    assert_eq!((mended.json()["message"].as_str(), mended.header("x-way")), (Some("sorry"), Some("seen")));
    assert_eq!(gateway.get("/other").text(), "fine");
    assert_eq!(gateway.send("HEAD /broken", &[], b"").status, 503);
}

#[test]
fn a_large_request_body_is_held_until_it_is_whole() {
    // 64 KiB and below goes by Pingora's own buffer, above by exchange: the upstream sees the same.
    for (max, way) in [("60KiB", "stream"), ("1MiB", "exchange")] {
        let upstream = Upstream::echo();
        let gateway = Gateway::start(&format!(
            "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes:
  - {{ name: all, match: {{ path: / }}, auth: none, upstream: back, plugins: [{{ body_limit: {{ max: {max}, buffer: true }} }}] }}
",
            upstream.address()
        ));
        assert_eq!(gateway.status()["routes"][0]["way"], way);
        let body = vec![b'x'; 50_000];
        let mut connection = Connection::open(&gateway.address());
        connection.send(format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
        connection.send(&body[..40_000]);
        // A second request is answered while the first body is incomplete: nothing of the first has gone out.
        assert_eq!(gateway.get("/").status, 200);
        assert_eq!(upstream.only().method, "GET", "{way}");
        connection.send(&body[40_000..]);
        assert_eq!(connection.read("POST").unwrap().status, 200);
        assert_eq!(upstream.received()[1].body, body, "{way}");
        let too_large = vec![b'x'; 1_100_000];
        gateway.send("POST /", &[], &too_large).assert_problem(413, "body_too_large");
        let mut chunked = format!("{:x}\r\n", too_large.len()).into_bytes();
        chunked.extend_from_slice(&too_large);
        chunked.extend_from_slice(b"\r\n0\r\n\r\n");
        gateway.send("POST /", &[("Transfer-Encoding", "chunked")], &chunked).assert_problem(413, "body_too_large");
        assert_eq!(upstream.received().len(), 2, "{way}");
    }
}
