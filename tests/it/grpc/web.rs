//! gRPC-web over HTTP/1.1 to gRPC upstreams.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::harness::{Connection, Gateway, H2Upstream, Response, eventually, frame, frames};

fn start(upstream: &H2Upstream, settings: &str, route: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ calls: {{ endpoints: [{{ address: \"{}\" }}], http2: true, {settings} }} }}
plugins: [request_id: {{}}]
routes:
  - {{ name: calls, match: {{ path: \"/{{rest...}}\" }}, auth: none, grpc_web: true, upstream: calls, {route} }}
",
        upstream.address()
    ))
}

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

fn call(gateway: &Gateway, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let all = [&[("Content-Type", BINARY)], headers].concat();
    gateway.send(&format!("POST /echo.Echo/{method}"), &all, body)
}

/// Base64 whose segments have padding of their own.
fn from_text(mut text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !text.is_empty() {
        let end = text.find('=').map_or(text.len(), |at| (at / 4 + 1) * 4);
        bytes.extend(STANDARD.decode(&text[..end]).unwrap());
        text = &text[end..];
    }
    bytes
}

/// The messages, and the lines of the last frame.
#[track_caller]
fn read(response: &Response) -> (Vec<Vec<u8>>, Vec<String>) {
    assert_eq!((response.status, response.complete), (200, true), "{response:?}");
    let text = response.header("content-type").unwrap().starts_with("application/grpc-web-text");
    let body = if text { from_text(&response.text()) } else { response.body.clone() };
    let mut all = frames(&body);
    let (flag, last) = all.pop().unwrap_or_else(|| panic!("no frames: {response:?}"));
    assert_eq!(flag, 0x80, "{response:?}");
    assert!(all.iter().all(|(flag, _)| *flag == 0), "{response:?}");
    let lines = String::from_utf8(last).unwrap();
    assert!(lines.ends_with("\r\n"), "{lines:?}");
    (all.into_iter().map(|(_, m)| m).collect(), lines.trim_end().split("\r\n").map(str::to_owned).collect())
}

#[test]
fn a_unary_call_in_both_forms() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "", "");
    let headers = [("X-Echo-A", "one"), ("X-Trail-B-Bin", "AAEC"), ("X-Grpc-Web", "1")];
    let answer = call(&gateway, "Unary", &headers, &frame(b"hello"));
    assert_eq!(read(&answer), (vec![b"hello".to_vec()], vec!["grpc-status: 0".into(), "x-trail-b-bin: AAEC".into()]));
    assert_eq!(answer.header("content-type"), Some(BINARY));
    assert_eq!((answer.header("x-echo-a"), answer.header("content-length")), (Some("one"), None));
    let seen = upstream.only();
    assert_eq!(seen.header("content-type"), Some("application/grpc+proto"));
    assert_eq!((seen.header("te"), seen.header("content-length")), (Some("trailers"), None));
    assert_eq!(seen.body, frame(b"hello"));

    let text = STANDARD.encode(frame(b"hello"));
    let answer = gateway.send("POST /echo.Echo/Unary", &[("Content-Type", TEXT)], text.as_bytes());
    assert_eq!(answer.header("content-type"), Some(TEXT));
    assert_eq!(read(&answer), (vec![b"hello".to_vec()], vec!["grpc-status: 0".into()]));
}

#[test]
fn base64_may_be_split_anywhere_and_padded_in_between() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "", "");
    let message = frame(b"some bytes");
    let text: String = message.chunks(4).map(|part| STANDARD.encode(part)).collect();
    assert!(text.trim_end_matches('=').contains('='));
    for size in [1, 2, 3, 5, 7] {
        let mut body = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            body.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            body.extend_from_slice(piece);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        let headers = [("Content-Type", TEXT), ("Transfer-Encoding", "chunked")];
        let answer = gateway.send("POST /echo.Echo/Unary", &headers, &body);
        assert_eq!(read(&answer).0, [b"some bytes"], "{size}");
    }
    for broken in ["AAAA*AAA", "AAAAA"] {
        let answer = gateway.send("POST /echo.Echo/Unary", &[("Content-Type", TEXT)], broken.as_bytes());
        assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("13")), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/grpc-web-text"));
    }
}

#[test]
fn a_server_stream_arrives_as_it_is_sent() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "timeouts: { total: 500ms }", "");
    for form in [BINARY, TEXT] {
        let body = if form == TEXT { STANDARD.encode(frame(b"200")).into_bytes() } else { frame(b"200").to_vec() };
        let answer = gateway.send("POST /echo.Echo/ServerStream", &[("Content-Type", form)], &body);
        let (messages, trailers) = read(&answer);
        assert_eq!(messages, (0..200).map(|n: u32| n.to_string().into_bytes()).collect::<Vec<_>>(), "{form}");
        assert_eq!(trailers, ["grpc-status: 0"], "{form}");
    }
    // The first message is here while the second is being held back, for longer than `total`.
    let mut connection = Connection::open(&gateway.address());
    let head =
        format!("POST /echo.Echo/Held HTTP/1.1\r\nHost: t\r\nContent-Type: {BINARY}\r\nContent-Length: 5\r\n\r\n");
    connection.send(&[head.as_bytes(), &frame(b"")].concat());
    let begun = Instant::now();
    let (head, first) = connection.read_some(10).unwrap();
    assert_eq!((head.status, &first[..]), (200, &frame(b"first")[..]));
    eventually("longer than total", || (begun.elapsed() > Duration::from_millis(700)).then_some(()));
    upstream.release();
    let rest = connection.read_rest();
    assert_eq!(frames(&rest), [(0, b"second".to_vec()), (0x80, b"grpc-status: 0\r\n".to_vec())]);
}

#[test]
fn each_message_of_a_stream_is_answered_as_it_comes() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "", "");
    let mut connection = Connection::open(&gateway.address());
    let head = format!(
        "POST /echo.Echo/Bidi HTTP/1.1\r\nHost: t\r\nContent-Type: {BINARY}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    connection.send(head.as_bytes());
    let mut begun = false;
    for at in 0..50 {
        let message = frame(format!("message {at}").as_bytes());
        connection.send(&[format!("{:x}\r\n", message.len()).as_bytes(), &message, b"\r\n"].concat());
        let answer = if begun {
            connection.read_more(message.len())
        } else {
            begun = true;
            connection.read_some(message.len()).unwrap().1
        };
        assert_eq!(answer, message);
    }
    connection.send(b"0\r\n\r\n");
    assert_eq!(frames(&connection.read_rest()), [(0x80, b"grpc-status: 0\r\n".to_vec())]);
}

#[test]
fn neither_direction_waits_for_the_other() {
    const MESSAGES: usize = 3000;
    let upstream = H2Upstream::plain();
    let gateway = Gateway::start(&format!(
        "limits: {{ request: {{ body: 100MiB }} }}
upstreams: {{ calls: {{ endpoints: [{{ address: \"{}\" }}], http2: true }} }}
routes: [{{ name: calls, match: {{ path: \"/{{rest...}}\" }}, auth: none, grpc_web: true, upstream: calls }}]
",
        upstream.address()
    ));
    let mut reading = Connection::open(&gateway.address());
    let mut writing = reading.writer();
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&sent);
    let writer = std::thread::spawn(move || {
        let message = frame(&[b'x'; 10_000]);
        let chunk = [format!("{:x}\r\n", message.len()).as_bytes(), &message, b"\r\n"].concat();
        let head = format!(
            "POST /echo.Echo/Bidi HTTP/1.1\r\nHost: t\r\nContent-Type: {BINARY}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        writing.write_all(head.as_bytes()).unwrap();
        for _ in 0..MESSAGES {
            writing.write_all(&chunk).unwrap();
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        writing.write_all(b"0\r\n\r\n").unwrap();
    });
    // Nothing is read before much is on its way.
    eventually("messages are sent", || (sent.load(std::sync::atomic::Ordering::SeqCst) > 200).then_some(()));
    let answer = reading.read("POST").unwrap();
    assert!(answer.complete);
    assert_eq!(frames(&answer.body).len(), MESSAGES + 1);
    writer.join().unwrap();
}

#[test]
fn large_messages_pass_both_ways() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "", "");
    let message: Vec<u8> = (0..3_u32 << 20).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
    let (messages, _) = read(&call(&gateway, "Unary", &[], &frame(&message)));
    assert!(messages == std::slice::from_ref(&message));
    let text = STANDARD.encode(frame(&message));
    let answer = gateway.send("POST /echo.Echo/Unary", &[("Content-Type", TEXT)], text.as_bytes());
    assert!(read(&answer).0 == [message]);
}

#[test]
fn errors_come_in_trailers_and_in_headers() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "", "");
    let headers = [("X-Status", "5"), ("X-Message", "no%20such%20thing")];
    let answer = call(&gateway, "Status", &headers, &frame(b""));
    let (messages, trailers) = read(&answer);
    assert!(messages.is_empty());
    assert_eq!(trailers, ["grpc-status: 5", "grpc-message: no%20such%20thing"]);

    let answer = call(&gateway, "Only", &headers, &frame(b""));
    assert_eq!((answer.status, answer.complete, answer.body.len()), (200, true, 0), "{answer:?}");
    assert_eq!(
        (answer.header("grpc-status"), answer.header("content-type")),
        (Some("5"), Some("application/grpc-web"))
    );

    let (_, trailers) = read(&call(&gateway, "NoStatus", &[], &frame(b"x")));
    assert_eq!(trailers, ["grpc-status: 13"]);

    let page = gateway.send("POST /page", &[("Content-Type", BINARY)], &frame(b""));
    assert_eq!((page.status, page.text().as_str()), (503, "<p>later</p>"));
}

#[test]
fn trailers_that_mean_something_to_the_gateway_do_not_pass() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "", "");
    let headers = [("X-Bad-Trailers", "content-length host set-cookie authorization"), ("X-Trail-Mine", "1")];
    let (_, trailers) = read(&call(&gateway, "Unary", &headers, &frame(b"x")));
    assert_eq!(trailers, ["grpc-status: 0", "x-trail-mine: 1"]);
}

#[test]
fn the_callers_deadline_holds_for_the_whole_call() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "retry: { attempts: 0 }", "");
    let answer = call(&gateway, "Silent", &[("Grpc-Timeout", "300m")], &frame(b""));
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("4")), "{answer:?}");
    assert!(answer.header("grpc-message").is_some());
    let seen = eventually("the stream is taken back", || upstream.seen().first().filter(|s| s.cancelled).cloned());
    let told = seen.header("grpc-timeout").unwrap();
    let nanos: u64 = told.strip_suffix('u').unwrap_or_else(|| panic!("{told}")).parse().unwrap();
    assert!((1_000..=300_000).contains(&nanos), "{told}");

    // After the header: what was begun is cut.
    let begun = Instant::now();
    let answer = call(&gateway, "Held", &[("Grpc-Timeout", "500m")], &frame(b""));
    assert!(!answer.complete && begun.elapsed() < Duration::from_secs(10), "{answer:?}");

    let answer = call(&gateway, "Unary", &[("Grpc-Timeout", "0S")], &frame(b""));
    assert_eq!(answer.header("grpc-status"), Some("4"), "{answer:?}");
    for malformed in ["5", "5s", "123456789S", "-1S", ""] {
        let answer = call(&gateway, "Unary", &[("Grpc-Timeout", malformed)], &frame(b""));
        assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("13")), "{malformed}");
    }
}

#[test]
fn the_upstreams_time_outs_hold_for_calls() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "timeouts: { first_byte: 300ms, idle: 300ms }, retry: { attempts: 0 }", "");
    let answer = call(&gateway, "Silent", &[], &frame(b""));
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("14")), "{answer:?}");
    let answer = call(&gateway, "Held", &[], &frame(b""));
    assert!(!answer.complete, "{answer:?}");
    eventually("both streams are taken back", || {
        (upstream.seen().iter().filter(|s| s.cancelled).count() == 2).then_some(())
    });
    assert_eq!(read(&call(&gateway, "Unary", &[], &frame(b"x"))).0, [b"x"]);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_caller_that_leaves_takes_its_call_back() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "", "");
    let mut connection = Connection::open(&gateway.address());
    let head =
        format!("POST /echo.Echo/Held HTTP/1.1\r\nHost: t\r\nContent-Type: {BINARY}\r\nContent-Length: 5\r\n\r\n");
    connection.send(&[head.as_bytes(), &frame(b"")].concat());
    connection.read_some(10).unwrap();
    drop(connection);
    eventually("the stream is taken back", || upstream.seen().first().filter(|s| s.cancelled).cloned());
}

#[test]
fn all_messages_together_are_bounded() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "", "plugins: [body_limit: { max: 10B }]");
    let body = [&b"8\r\n"[..], &[0; 8], b"\r\n8\r\n", &[0; 8], b"\r\n0\r\n\r\n"].concat();
    let answer = call(&gateway, "Silent", &[("Transfer-Encoding", "chunked")], &body);
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("8")), "{answer:?}");
    eventually("the stream is taken back", || upstream.seen().first().filter(|s| s.cancelled).cloned());
}

#[test]
fn refusals_and_faults_are_told_in_grpc() {
    let upstream = H2Upstream::plain();
    let gateway = Gateway::start(&format!(
        "telemetry: {{ access_log: {{ to: stdout }} }}
upstreams:
  calls: {{ endpoints: [{{ address: \"{}\" }}], http2: true }}
  gone: {{ endpoints: [{{ address: \"{}\" }}], http2: true, retry: {{ attempts: 0 }} }}
plugins: [request_id: {{}}, {{ cors: {{ origins: [\"https://app.example.com\"], expose: [grpc-status, grpc-message] }} }}]
consumers: [{{ name: a, credentials: [{{ api_key: {{ sha256: \"{:064}\" }} }}] }}]
routes:
  - {{ name: keyed, match: {{ path: \"/keyed/{{m}}\" }}, plugins: [api_key: {{}}], grpc_web: true, upstream: calls }}
  - {{ name: held, match: {{ path: \"/held/{{m}}\" }}, auth: none, plugins: [body_limit: {{ max: 1KiB, buffer: true }}], grpc_web: true, upstream: calls }}
  - {{ name: small, match: {{ path: \"/small/{{m}}\" }}, auth: none, plugins: [body_limit: {{ max: 10B }}], grpc_web: true, upstream: calls }}
  - {{ name: gone, match: {{ path: \"/gone/{{m}}\" }}, auth: none, grpc_web: true, upstream: gone }}
",
        upstream.address(),
        crate::harness::closed_address(),
        0
    ));
    let send = |path: &str| {
        let headers = [("Content-Type", BINARY), ("Origin", "https://app.example.com")];
        gateway.send(&format!("POST {path}"), &headers, &frame(b"a longer message"))
    };
    for (path, status, http, code) in [
        ("/keyed/m", "16", "401", "api_key_missing"),
        ("/held/m", "2", "415", "grpc_not_buffered"),
        ("/small/m", "8", "413", "body_too_large"),
        ("/gone/m", "14", "502", "upstream_connect"),
    ] {
        let answer = send(path);
        assert_eq!((answer.status, answer.header("grpc-status")), (200, Some(status)), "{path}: {answer:?}");
        assert_eq!((answer.header("content-type"), answer.body.len()), (Some("application/grpc-web"), 0), "{path}");
        assert!(!answer.header("grpc-message").unwrap().is_empty(), "{path}");
        assert!(answer.header("x-request-id").is_some(), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"), "{path}");
        assert_eq!(answer.header("access-control-expose-headers"), Some("grpc-status, grpc-message"), "{path}");
        let line = eventually("the line is written", || {
            let log = std::fs::read_to_string(gateway.config().with_file_name("stdout0")).unwrap_or_default();
            log.lines().find(|line| line.contains(&format!("\"path\":\"{path}\""))).map(str::to_owned)
        });
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (line["status"].to_string(), line["grpc_status"].to_string()),
            (http.into(), status.into()),
            "{line}"
        );
        assert_eq!(line["code"], code);
    }
    assert!(send("/keyed/m").header("www-authenticate").is_some());
    // Without a route nobody has said that this is a call.
    send("/nowhere/m").assert_problem(404, "no_route");
}

#[test]
fn the_log_has_the_status_of_calls() {
    let upstream = H2Upstream::plain();
    let gateway = Gateway::start(&format!(
        "telemetry: {{ access_log: {{ to: stdout }} }}
upstreams: {{ calls: {{ endpoints: [{{ address: \"{}\" }}], http2: true }} }}
routes: [{{ name: calls, match: {{ path: \"/{{rest...}}\" }}, auth: none, grpc_web: true, upstream: calls }}]
",
        upstream.address()
    ));
    call(&gateway, "Unary", &[], &frame(b"x"));
    call(&gateway, "Status", &[("X-Status", "9")], &frame(b"x"));
    call(&gateway, "Only", &[("X-Status", "7")], &frame(b"x"));
    gateway.get("/plain");
    let log = eventually("four lines are written", || {
        let log = std::fs::read_to_string(gateway.config().with_file_name("stdout0")).unwrap_or_default();
        (log.lines().count() == 4).then_some(log)
    });
    // Lines stand in the order of the requests' ends as the workers saw them.
    for (path, status) in
        [("echo.Echo/Unary", "0"), ("echo.Echo/Status", "9"), ("echo.Echo/Only", "7"), ("plain", "null")]
    {
        let line = log.lines().find(|line| line.contains(path)).unwrap();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["grpc_status"].to_string(), status, "{line}");
    }
}

#[test]
fn a_call_on_a_route_that_holds_responses_is_not_held() {
    let upstream = H2Upstream::plain();
    let replaces = "plugins: [respond: { instead_of: [5xx], status: 502, body: later }]";
    let gateway = start(&upstream, "", replaces);
    assert_eq!(gateway.status()["routes"][0]["way"], "exchange");
    let (messages, _) = read(&call(&gateway, "Unary", &[], &frame(b"x")));
    assert_eq!(messages, [b"x"]);
    // What the plugin must not miss is not passed by either.
    let page = gateway.send("POST /page", &[("Content-Type", BINARY)], &frame(b""));
    assert_eq!((page.status, page.header("grpc-status")), (200, Some("14")), "{page:?}");
    assert_eq!(gateway.send("POST /page", &[], b"x").text(), "later");
}

#[test]
fn a_refused_stream_is_called_again_with_the_whole_body() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "retry: { attempts: 1, on: [connect_error] }", "");
    let text = STANDARD.encode(frame(b"order"));
    let answer = gateway.send("POST /refuse/1", &[("Content-Type", TEXT)], text.as_bytes());
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.seen().last().unwrap().body, frame(b"order"));
    let answer = gateway.send("POST /refuse/9", &[("Content-Type", TEXT)], text.as_bytes());
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("14")), "{answer:?}");
}

#[test]
fn without_the_key_grpc_web_is_a_request_like_any_other() {
    let upstream = H2Upstream::plain();
    let gateway = start(&upstream, "", "");
    let plain = Gateway::start(&format!(
        "upstreams: {{ calls: {{ endpoints: [{{ address: \"{}\" }}], http2: true }} }}
routes: [{{ name: calls, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: calls }}]
",
        upstream.address()
    ));
    assert_eq!(gateway.send("POST /json", &[("Content-Type", "application/json")], b"{}").json()["body"], "{}");
    let answer = call(&plain, "Unary", &[], &frame(b"x"));
    assert_eq!(answer.body, frame(b"x"));
    assert_eq!(upstream.seen().last().unwrap().header("content-type"), Some(BINARY));
    assert_eq!(upstream.seen().last().unwrap().header("te"), None);
}
