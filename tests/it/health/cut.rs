//! Answers that begin well and end badly.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::atomic::AtomicUsize,
    time::Duration,
};

use super::{
    circuit::{BREAKER, call, pass_open, soon},
    *,
};
use crate::harness::{Connection, H2Upstream, frame, pass};

/// On the stream way the longer of the two holds.
const QUIET: &str = "timeouts: { idle: 3s, first_byte: 3s }, retry: { attempts: 0 }";
/// On the stream way, by exchange, and by exchange with a request that was held.
const WAYS: [(&str, &str); 4] = [("GET /", ""), ("POST /", "body"), ("POST /held/", "body"), ("GET /held/", "")];

/// All ways at once: what falls silent takes its time.
fn each_way(test: impl Fn((&str, &str)) + Sync) {
    let test = &test;
    std::thread::scope(|scope| WAYS.map(|way| scope.spawn(move || test(way))).map(drop));
}

/// Asks for an answer that does not come whole.
fn ask_in_vain(gateway: &Gateway, (request, body): (&str, &str)) {
    let answer = gateway.send(request, &[], body.as_bytes());
    assert!(!answer.complete && answer.status == 200, "{request}: {answer:?}");
}

#[test]
fn an_answer_that_breaks_off_feeds_a_circuit() {
    let moods = [
        (Mood::Cut, "upstream_reset"),
        (Mood::CutChunks, "upstream_reset"),
        (Mood::Garbled, "upstream_protocol"),
        (Mood::Stuck, "upstream_timeout"),
    ];
    for (mood, code) in moods {
        let server = Server::start();
        server.be(mood);
        each_way(|way| {
            let gateway = start(&[&server], &format!("{QUIET}, {BREAKER}"));
            ask_in_vain(&gateway, way);
            ask_in_vain(&gateway, way);
            let shown =
                eventually("the circuit is open", || Some(circuit(&gateway)).filter(|shown| shown["state"] == "open"));
            assert_eq!(shown["why"], format!("2 failures in a row; the last: {code} within the answer"), "{way:?}");
            gateway.send(way.0, &[], way.1.as_bytes()).assert_problem(503, "circuit_open");
        });
    }
}

/// A body that a plugin holds is answered by a fault; the endpoint is to blame all the same, and once.
#[test]
fn an_answer_that_is_held_does_too() {
    let server = Server::start();
    for (mood, status) in [(Mood::Cut, 502), (Mood::Stuck, 504)] {
        server.be(mood);
        let text = config(&[&server.address], &format!("{QUIET}, {BREAKER}"));
        let gateway = Gateway::start(&text.replace("418", "200"));
        for expected in [status, status, 503] {
            assert_eq!(gateway.get("/held/").status, expected);
        }
    }
}

#[test]
fn an_endpoint_that_cuts_its_answers_is_ejected() {
    for way in WAYS {
        let (good, bad) = (Server::start(), Server::start());
        bad.be(Mood::Cut);
        let settings = "outlier: { consecutive_failures: 3, eject_for: 1h }, retry: { attempts: 0 }";
        let gateway = start(&[&good, &bad], settings);
        let mut cut = 0;
        eventually("it is ejected", || {
            cut += usize::from(!gateway.send(way.0, &[], way.1.as_bytes()).complete);
            is_ejected(&gateway, &bad).then_some(())
        });
        assert_eq!(cut, 3, "{way:?}");
        let why = endpoint(&gateway, &bad.address)["ejected"]["why"].clone();
        assert_eq!(why, "3 failures in a row; the last: upstream_reset within the answer");
        for _ in 0..6 {
            assert!(gateway.send(way.0, &[], way.1.as_bytes()).complete);
        }
    }
}

/// One answer is one answer: neither a success nor two failures.
#[test]
fn each_answer_counts_once() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let server = Upstream::start(move |_| match counted.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => Answer::ok("whole"),
        _ => Answer::raw(HALF),
    });
    let settings = "circuit_breaker: { min_requests: 10, error_ratio: 0.5, open_for: 1h, window: 1m }";
    for way in WAYS {
        count.store(0, Ordering::SeqCst);
        let gateway = Gateway::start(&config(&[server.address()], &format!("{settings}, retry: {{ attempts: 0 }}")));
        for at in 0..10 {
            assert_eq!(gateway.send(way.0, &[], way.1.as_bytes()).complete, at % 2 == 0);
        }
        gateway.send(way.0, &[], way.1.as_bytes()).assert_problem(503, "circuit_open");
        let why = circuit(&gateway)["why"].as_str().unwrap().to_owned();
        assert!(why.starts_with("5 of 10 requests failed"), "{why}");
    }
}

#[test]
fn a_half_open_circuit_waits_for_the_end() {
    each_way(|way| {
        let server = Server::start();
        let gateway = start(&[&server], &format!("{QUIET}, {}", soon(1)));
        server.be(Mood::Cut);
        ask_in_vain(&gateway, way);
        ask_in_vain(&gateway, way);
        for (mood, round) in [(Mood::Cut, 2.0), (Mood::Stuck, 3.0)] {
            server.be(mood);
            pass_open(&gateway);
            ask_in_vain(&gateway, way);
            eventually("it is open again", || (event(&gateway, "circuit_open") == round).then_some(()));
        }
        server.be(Mood::Well);
        pass_open(&gateway);
        assert!(gateway.send(way.0, &[], way.1.as_bytes()).complete);
        assert_eq!(
            (&circuit(&gateway)["state"], event(&gateway, "circuit_closed")),
            (&"closed".into(), 1.0),
            "{way:?}"
        );
    });
}

/// Serves each connection in a thread of its own, until the test ends.
fn serve(answer: impl Fn(&mut std::net::TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                answer(&mut stream);
            });
        }
    });
    address
}

/// Streams that never end must not keep a circuit half-open.
#[test]
fn a_half_open_circuit_does_not_wait_for_ever() {
    let bad = Arc::new(AtomicBool::new(true));
    let is_bad = Arc::clone(&bad);
    let address = serve(move |stream| {
        if is_bad.load(Ordering::SeqCst) {
            return;
        }
        let _ = stream.write_all(HALF_OF_CHUNKS.as_bytes());
        while stream.write_all(b"4\r\nmore\r\n").is_ok() {
            pass(Duration::from_millis(50));
        }
    });
    for request in ["GET / HTTP/1.1\r\nHost: t\r\n\r\n", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab"] {
        bad.store(true, Ordering::SeqCst);
        let gateway = Gateway::start(&config(&[&address], &format!("retry: {{ attempts: 0 }}, {}", soon(1))));
        gateway.get("/").assert_problem(502, "upstream_reset");
        gateway.get("/").assert_problem(502, "upstream_reset");
        bad.store(false, Ordering::SeqCst);
        pass_open(&gateway);
        let mut connection = Connection::open(&gateway.address());
        connection.send(request.as_bytes());
        let (answer, _) = connection.read_some(8).unwrap();
        assert_eq!(answer.status, 200);
        eventually("it is closed", || {
            connection.read_more(4);
            (circuit(&gateway)["state"] == "closed").then_some(())
        });
    }
}

/// A client that leaves within an answer says nothing, and gives its place to another.
#[test]
fn a_client_that_leaves_within_an_answer_is_no_failure() {
    let server = Server::start();
    let gateway = start(&[&server], &format!("retry: {{ attempts: 0 }}, {}", soon(1).replace("tive: 2", "tive: 1")));
    for (request, _) in WAYS {
        for half_open in [false, true] {
            if half_open {
                server.be(Mood::Sorry);
                gateway.get("/");
                pass_open(&gateway);
            }
            server.be(Mood::Stuck);
            let expected = if half_open { "half_open" } else { "closed" };
            let mut connection = Connection::open(&gateway.address());
            let body = if request.starts_with("POST") { "Content-Length: 2\r\n\r\nab" } else { "\r\n" };
            connection.send(format!("{request} HTTP/1.1\r\nHost: t\r\n{body}").as_bytes());
            connection.read_exact(&mut [0; 12]).unwrap();
            drop(connection);
            eventually("it has gone", || (endpoint(&gateway, &server.address)["in_flight"] == 0).then_some(()));
            assert_eq!(circuit(&gateway)["state"], expected, "{request}");
        }
        server.be(Mood::Well);
        assert!(gateway.get("/").complete);
        assert_eq!(circuit(&gateway)["state"], "closed");
    }
}

/// An endpoint gives up who does not take the answer. That must not be a way to have it ejected.
#[test]
fn a_client_that_reads_late_blames_nobody() {
    const SENT: usize = 48 << 20;
    let address = serve(|stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * SENT);
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&vec![b'x'; SENT]);
    });
    let breaker = BREAKER.replace("consecutive: 2", "consecutive: 1");
    for request in ["GET / HTTP/1.1\r\nHost: t\r\n\r\n", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab"] {
        let gateway = Gateway::start(&config(&[&address], &format!("retry: {{ attempts: 0 }}, {breaker}")));
        let mut late = Connection::open(&gateway.address());
        late.send(request.as_bytes());
        late.read_exact(&mut [0; 12]).unwrap();
        pass(Duration::from_millis(1500));
        let mut rest = Vec::new();
        let _ = late.read_to_end(&mut rest);
        assert!(rest.len() > 1 << 20 && rest.len() < 2 * SENT, "{}", rest.len());
        eventually("it has gone", || (endpoint(&gateway, &address)["in_flight"] == 0).then_some(()));
        assert_eq!(circuit(&gateway)["state"], "closed", "{request}");
    }
}

/// A server that does not want the rest of a request can only break the connection, and its answer with it; and while the
/// request goes on, it may have nothing to say.
#[test]
fn an_answer_to_half_a_request_blames_nobody() {
    for is_closed in [true, false] {
        let address = serve(move |stream| {
            let _ = stream.write_all(HALF_OF_CHUNKS.as_bytes());
            while !is_closed && stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
        });
        let breaker = BREAKER.replace("consecutive: 2", "consecutive: 1");
        let gateway = Gateway::start(&config(&[&address], &format!("{QUIET}, {breaker}")));
        let mut client = Connection::open(&gateway.address());
        client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nsome of it");
        let answer = client.read("POST").unwrap();
        assert!(answer.status == 200 && !answer.complete, "{answer:?}");
        eventually("it has gone", || (endpoint(&gateway, &address)["in_flight"] == 0).then_some(()));
        assert_eq!(circuit(&gateway)["state"], "closed", "{is_closed}");
    }
}

fn called(server: &H2Upstream, settings: &str) -> Gateway {
    let settings = format!("http2: true, {QUIET}, {settings}");
    let config = config(&[server.address()], &settings).replace("auth: none,", "auth: none, grpc_web: true,");
    Gateway::start(&config)
}

#[test]
fn calls_are_judged_by_their_trailers() {
    let server = H2Upstream::plain();
    let status = |gateway: &Gateway, status: &str| {
        let answer = call(gateway, "Status", &[("X-Status", status)]);
        assert_eq!((answer.status, answer.complete), (200, true), "{answer:?}");
    };
    let gateway = called(&server, BREAKER);
    // The service's own, as a 500 is.
    for other in ["0", "2", "5", "8", "13", "15", "16"] {
        status(&gateway, other);
        status(&gateway, other);
        assert_eq!(circuit(&gateway)["state"], "closed", "{other}");
    }
    for (failing, settings, meant) in [
        ("14", "", 503),
        ("4", "", 504),
        ("13", "statuses: [5xx], ", 500),
        ("2", "statuses: [5xx], ", 500),
        ("15", "statuses: [5xx], ", 500),
        ("8", "statuses: [429], ", 429),
    ] {
        let gateway = called(&server, &BREAKER.replace("min_requests", &format!("{settings}min_requests")));
        status(&gateway, failing);
        status(&gateway, failing);
        let shown = circuit(&gateway);
        assert_eq!(shown["why"], format!("2 failures in a row; the last: status {meant} in trailers"), "{failing}");
        let refused = call(&gateway, "Unary", &[]);
        assert_eq!(refused.header("grpc-status"), Some("14"), "{refused:?}");
    }
}

#[test]
fn a_service_that_says_unavailable_in_trailers_is_ejected() {
    let (good, bad) = (H2Upstream::plain(), H2Upstream::plain());
    let settings =
        format!("http2: true, {QUIET}, outlier: {{ consecutive_failures: 3, eject_for: 1h }}, balance: round_robin");
    let text =
        config(&[good.address(), bad.address()], &settings).replace("auth: none,", "auth: none, grpc_web: true,");
    let gateway = Gateway::start(&text);
    for _ in 0..6 {
        call(&gateway, "Status", &[("X-Status", "14")]);
    }
    // Of two, one at a time.
    assert_eq!(event(&gateway, "ejected"), 1.0);
}

#[test]
fn a_call_that_breaks_off_is_a_failure() {
    let server = H2Upstream::plain();
    let fields = [("Content-Type", "application/grpc-web+proto")];
    for (path, code) in [("/cut", "upstream_reset"), ("/echo.Echo/Held", "upstream_timeout")] {
        let gateway = called(&server, BREAKER);
        for _ in 0..2 {
            gateway.send(&format!("POST {path}"), &fields, &frame(b"hello"));
        }
        let shown = eventually("it is open", || Some(circuit(&gateway)).filter(|shown| shown["state"] == "open"));
        assert_eq!(shown["why"], format!("2 failures in a row; the last: {code} within the answer"));
    }
    // And what has no status at the end is no success.
    let gateway = called(&server, &BREAKER.replace("min_requests", "statuses: [500], min_requests"));
    call(&gateway, "NoStatus", &[]);
    call(&gateway, "NoStatus", &[]);
    assert_eq!(circuit(&gateway)["state"], "open");
}

#[test]
fn a_deadline_of_the_callers_is_none_in_trailers_either() {
    let server = H2Upstream::plain();
    let gateway = called(&server, BREAKER);
    for method in ["Status", "Only", "Status", "Only"] {
        call(&gateway, method, &[("X-Status", "4"), ("grpc-timeout", "1H")]);
        call(&gateway, method, &[("X-Status", "4"), ("grpc-timeout", "20S")]);
    }
    for _ in 0..3 {
        call(&gateway, "Held", &[("grpc-timeout", "300m")]);
    }
    assert_eq!(circuit(&gateway)["state"], "closed");
    // Also one that is longer than what is configured for the header.
    let settings =
        format!("http2: true, timeouts: {{ idle: 30s, total: 5s }}, {}", BREAKER.replace("tive: 2", "tive: 1"));
    let text = config(&[server.address()], &settings).replace("auth: none,", "auth: none, grpc_web: true,");
    let gateway = Gateway::start(&text);
    call(&gateway, "Held", &[("grpc-timeout", "6S")]);
    assert_eq!(circuit(&gateway)["state"], "closed");
}

#[test]
fn a_half_open_circuit_waits_for_the_end_of_a_call() {
    let server = H2Upstream::plain();
    let gateway = called(&server, &soon(1));
    let status = |status: &str| call(&gateway, "Status", &[("X-Status", status)]);
    status("14");
    status("14");
    pass_open(&gateway);
    status("14");
    assert_eq!((&circuit(&gateway)["state"], event(&gateway, "circuit_open")), (&"open".into(), 2.0));
    pass_open(&gateway);
    status("0");
    assert_eq!(circuit(&gateway)["state"], "closed");
}
