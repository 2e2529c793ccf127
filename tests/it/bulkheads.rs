//! How many requests an upstream, a route or a caller may have at a time, whatever way they go and however they end.

use std::time::{Duration, Instant};

use crate::harness::{
    Connection, Gate, Gateway, H2Upstream, Upstream, eventually, frame,
    frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Http2, block, frame as h2_frame},
    websocket::{Echo, WebSocket},
};

/// What must hold on every way: plugins of the route, and a request of which each attempt goes that way.
const WAYS: [(&str, &str, &str); 4] = [
    ("exchange, no body", "", "GET /hold HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("stream", "", "POST /hold HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi"),
    (
        "exchange, whole answer",
        "{ respond: { instead_of: [418], status: 200, body: replaced } }",
        "POST /hold HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi",
    ),
    (
        "exchange, whole request",
        "{ body_limit: { max: 1KiB, buffer: true } }",
        "POST /hold HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ),
];

fn config(upstream: &str, settings: &str, plugins: &str) -> String {
    format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{upstream}\" }}], {settings} }} }}
routes:
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, plugins: [{plugins}], upstream: back, websocket: {{}} }}
"
    )
}

fn ask(gateway: &Gateway, request: &str) -> Connection {
    let mut connection = Connection::open(&gateway.address());
    connection.send(request.as_bytes());
    connection
}

fn held(gate: &Gate, count: usize) {
    eventually("the upstream has them", || (gate.inside() == count).then_some(()));
}

fn load(gateway: &Gateway) -> (f64, f64) {
    let metric = |name: &str| gateway.metric(&format!("crossway_upstream_{name}{{upstream=\"back\"}}"));
    (metric("in_flight"), metric("waiting"))
}

#[track_caller]
fn is_busy(mut connection: Connection, way: &str) {
    let answer = connection.read("GET").unwrap_or_else(|| panic!("{way}: no answer"));
    answer.assert_problem(503, "upstream_busy");
    assert_eq!(answer.header("retry-after"), Some("1"), "{way}");
    assert_eq!(answer.header("proxy-status"), Some("crossway; error=connection_limit_reached"), "{way}");
}

#[test]
fn no_more_than_the_bound_on_any_way() {
    for (way, plugins, request) in WAYS {
        let gate = Gate::start();
        let gateway = Gateway::start(&config(gate.address(), "max_in_flight: 3", plugins));
        let mut inside: Vec<_> = (0..3).map(|_| ask(&gateway, request)).collect();
        held(&gate, 3);
        for _ in 0..5 {
            is_busy(ask(&gateway, request), way);
        }
        assert_eq!(load(&gateway), (3.0, 0.0), "{way}");
        assert_eq!(gateway.metric("crossway_faults_total{code=\"upstream_busy\"}"), 5.0, "{way}");
        assert_eq!(gateway.metric("crossway_upstream_queue_total{event=\"full\",upstream=\"back\"}"), 5.0, "{way}");
        gate.let_go(3);
        for connection in &mut inside {
            assert_eq!(connection.read("GET").unwrap().status, 200, "{way}");
        }
        eventually("the places are free", || (load(&gateway) == (0.0, 0.0)).then_some(()));
        assert_eq!(gate.most(), 3, "{way}");
    }
}

#[test]
fn the_queue_is_served_in_order_and_bounded_in_length_and_time() {
    for (way, plugins, request) in WAYS {
        let gate = Gate::start();
        let settings = "max_in_flight: 1, queue: 3, queue_timeout: 20s";
        let gateway = Gateway::start(&config(gate.address(), settings, plugins));
        let mut first = ask(&gateway, request);
        held(&gate, 1);
        let mut queue: Vec<_> = (0..3)
            .map(|at| {
                let connection = ask(&gateway, &request.replace("/hold", &format!("/hold/{at}")));
                eventually("it waits", || (load(&gateway).1 == f64::from(at + 1)).then_some(()));
                connection
            })
            .collect();
        is_busy(ask(&gateway, request), way);
        gate.let_go(4);
        assert_eq!(first.read("GET").unwrap().status, 200, "{way}");
        for connection in &mut queue {
            assert_eq!(connection.read("GET").unwrap().status, 200, "{way}");
        }
        assert_eq!(gate.order(), ["/hold", "/hold/0", "/hold/1", "/hold/2"], "{way}");
        assert_eq!(gate.most(), 1, "{way}");
        assert_eq!(gateway.metric("crossway_upstream_queue_total{event=\"queued\",upstream=\"back\"}"), 3.0, "{way}");
    }
}

#[test]
fn who_waits_too_long_is_told_so_and_never_beyond_its_own_time() {
    for (way, plugins, request) in WAYS {
        let gate = Gate::start();
        let settings = "max_in_flight: 1, queue: 3, queue_timeout: 300ms";
        let gateway = Gateway::start(&config(gate.address(), settings, plugins));
        let _first = ask(&gateway, request);
        held(&gate, 1);
        let began = Instant::now();
        is_busy(ask(&gateway, request), way);
        let took = began.elapsed();
        assert!((Duration::from_millis(290)..Duration::from_secs(10)).contains(&took), "{way}: {took:?}");
        assert_eq!(gateway.metric("crossway_upstream_queue_total{event=\"late\",upstream=\"back\"}"), 1.0, "{way}");

        let settings = "max_in_flight: 1, queue: 3, queue_timeout: 60s, timeouts: { total: 500ms }";
        let other = Gate::start();
        let gateway = Gateway::start(&config(other.address(), settings, plugins));
        let first = ask(&gateway, request);
        held(&other, 1);
        let mut late = ask(&gateway, request);
        late.read("GET").unwrap().assert_problem(504, "deadline_exceeded");
        drop(first);
    }
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    for (way, plugins, request) in WAYS {
        let gate = Gate::start();
        let settings = "max_in_flight: 2, queue: 2, queue_timeout: 20s";
        let gateway = Gateway::start(&config(gate.address(), settings, plugins));
        let inside: Vec<_> = (0..2).map(|_| ask(&gateway, request)).collect();
        held(&gate, 2);
        drop(inside);
        eventually("the places are free", || (load(&gateway) == (0.0, 0.0)).then_some(()));
        assert_eq!(ask(&gateway, &request.replace("/hold", "/x")).read("GET").unwrap().status, 200, "{way}");
    }
}

#[test]
fn a_client_that_leaves_the_queue_leaves_it_to_others() {
    let gate = Gate::start();
    let gateway = Gateway::start(&config(gate.address(), "max_in_flight: 1, queue: 1, queue_timeout: 20s", ""));
    let mut first = ask(&gateway, WAYS[0].2);
    held(&gate, 1);
    let waits = ask(&gateway, WAYS[0].2);
    eventually("it waits", || (load(&gateway).1 == 1.0).then_some(()));
    drop(waits);
    eventually("it waits no more", || (load(&gateway).1 == 0.0).then_some(()));
    let mut next = ask(&gateway, "GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("another waits", || (load(&gateway).1 == 1.0).then_some(()));
    gate.let_go(1);
    assert_eq!((first.read("GET").unwrap().status, next.read("GET").unwrap().status), (200, 200));
    assert_eq!(gate.order(), ["/hold", "/next"]);
}

#[test]
fn faults_and_time_outs_give_places_back() {
    for (way, plugins, request) in WAYS {
        let silent = Upstream::start(|request| match request.target.as_str() {
            "/hold" => crate::harness::Answer::silence(),
            "/broken" => crate::harness::Answer::raw("HTTP/9 nonsense\r\n\r\n"),
            "/cut" => crate::harness::Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
            _ => crate::harness::Answer::ok("fine"),
        });
        let settings = "max_in_flight: 1, timeouts: { first_byte: 300ms }, retry: { attempts: 1 }";
        let gateway = Gateway::start(&config(silent.address(), settings, plugins));
        for target in ["/hold", "/broken", "/cut", "/hold", "/fine"] {
            let answer = ask(&gateway, &request.replace("/hold", target)).read("GET");
            assert!(answer.is_none_or(|answer| answer.status != 503), "{way}: {target}");
            eventually("the place is free", || (load(&gateway).0 == 0.0).then_some(()));
        }
    }
}

#[test]
fn a_websocket_holds_its_place_to_its_end() {
    let echo = Echo::start();
    let limits = "{ concurrency: { key: [client], max_in_flight: 2 } }";
    let gateway = Gateway::start(&config(echo.address(), "max_in_flight: 1", limits));
    let mut socket = WebSocket::open(&gateway.address(), "/chat");
    socket.send(1, b"hello");
    assert_eq!(socket.read(), Some((1, b"hello".to_vec())));
    assert_eq!(load(&gateway), (1.0, 0.0));
    gateway.get("/ok").assert_problem(503, "upstream_busy");
    drop(socket);
    eventually("the place is free", || (load(&gateway).0 == 0.0).then_some(()));
    let held = || gateway.metric("crossway_plugin_level{level=\"held\",plugin=\"concurrency\"}");
    eventually("the plugin's place too", || (held() == 0.0).then_some(()));
    drop(WebSocket::open(&gateway.address(), "/chat"));
}

#[test]
fn calls_of_grpc_hold_their_places_to_their_end() {
    let upstream = H2Upstream::plain();
    let gateway = Gateway::start(&format!(
        "listeners: [{{ name: public, address: \"127.0.0.1:0\", http2: true }}]\n{}",
        config(upstream.address(), "http2: true, max_in_flight: 1", "").replace(", websocket: {}", "")
    ));
    let call = |client: &mut Http2, stream: u32| {
        let mut fields = crate::harness::frames::request("POST", "/echo.Echo/Held");
        fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
        client.send(&h2_frame(HEADERS, END_HEADERS, stream, &block(&fields)));
        client.send(&h2_frame(DATA, END_STREAM, stream, &frame(b"hi")));
    };
    let mut client = Http2::open(&gateway.address());
    call(&mut client, 1);
    eventually("the call is there", || (upstream.begun() == 1).then_some(()));
    assert_eq!(load(&gateway), (1.0, 0.0));
    let mut other = Http2::open(&gateway.address());
    call(&mut other, 1);
    other.end_of(1);
    assert_eq!(gateway.metric("crossway_faults_total{code=\"upstream_busy\"}"), 1.0);
    drop(client);
    eventually("the place is free", || (load(&gateway).0 == 0.0).then_some(()));
    upstream.release();
    call(&mut other, 3);
    other.end_of(3);
    assert_eq!(gateway.metric("crossway_faults_total{code=\"upstream_busy\"}"), 1.0);
}

#[test]
fn a_reload_keeps_what_is_taken_and_its_bounds_hold_at_once() {
    let gate = Gate::start();
    let of = |settings: &str| config(gate.address(), settings, "");
    let mut gateway = Gateway::start(&of("max_in_flight: 2"));
    let request = WAYS[0].2;
    let mut inside: Vec<_> = (0..2).map(|_| ask(&gateway, request)).collect();
    held(&gate, 2);
    assert_eq!(gateway.reload(&of("max_in_flight: 3, timeouts: { idle: 7s }")).status, 200);
    inside.push(ask(&gateway, request));
    held(&gate, 3);
    is_busy(ask(&gateway, request), "more");
    assert_eq!(gateway.reload(&of("max_in_flight: 2")).status, 200);
    gate.let_go(1);
    eventually("one has ended", || (gate.inside() == 2).then_some(()));
    is_busy(ask(&gateway, request), "fewer");
    assert_eq!(gateway.reload(&of("max_in_flight: 0")).status, 422);
    is_busy(ask(&gateway, request), "refused configurations change nothing");
    gate.let_go(2);
    eventually("the places are free", || (load(&gateway).0 == 0.0).then_some(()));
    assert_eq!(gateway.get("/x").status, 200);
    let status = gateway.status();
    assert_eq!(status["upstreams"][0]["load"]["max_in_flight"], 2, "{status}");
}

#[test]
fn a_retry_keeps_its_place() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let upstream = Upstream::start(move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => crate::harness::Answer::raw(""),
        _ => crate::harness::Answer::ok("fine"),
    });
    let settings = "max_in_flight: 1, retry: { attempts: 1, on: [reset] }";
    let gateway = Gateway::start(&config(upstream.address(), settings, ""));
    assert_eq!(gateway.get("/").text(), "fine");
    assert_eq!(gateway.metric("crossway_upstream_queue_total{event=\"full\",upstream=\"back\"}"), 0.0);
    assert_eq!(gateway.get("/").text(), "fine");
}

#[test]
fn callers_have_bounds_of_their_own_on_any_way() {
    for (way, plugins, request) in WAYS {
        let gate = Gate::start();
        let own = "{ concurrency: { key: [\"header:X-Tenant\"], max_in_flight: 1 } }";
        let all = if plugins.is_empty() { own.to_owned() } else { format!("{own}, {plugins}") };
        let gateway = Gateway::start(&config(gate.address(), "", &all));
        let of = |tenant: &str| request.replace("Host: t\r\n", &format!("Host: t\r\nX-Tenant: {tenant}\r\n"));
        let mut first = ask(&gateway, &of("a"));
        held(&gate, 1);
        let answer = ask(&gateway, &of("a")).read("GET").unwrap();
        answer.assert_problem(429, "concurrency_limited");
        assert_eq!(answer.header("retry-after"), Some("1"), "{way}");
        let gone = ask(&gateway, &of("b"));
        held(&gate, 2);
        drop(gone);
        let level =
            |name: &str| gateway.metric(&format!("crossway_plugin_level{{level=\"{name}\",plugin=\"concurrency\"}}"));
        eventually("the client's place is free", || (level("held") == 1.0).then_some(()));
        gate.let_go(2);
        assert_eq!(first.read("GET").unwrap().status, 200, "{way}");
        eventually("all places are free", || (level("held") == 0.0).then_some(()));
        let again = ask(&gateway, &of("a").replace("/hold", "/x")).read("GET").unwrap();
        assert_eq!(again.status, 200, "{way}");
        assert_eq!(gateway.metric("crossway_plugin_events_total{event=\"full\",plugin=\"concurrency\"}"), 1.0, "{way}");
    }
}

#[test]
fn a_callers_queue_lets_it_wait() {
    let gate = Gate::start();
    let plugin = "{ concurrency: { key: [route], max_in_flight: 1, queue: 1, queue_timeout: 20s } }";
    let gateway = Gateway::start(&config(gate.address(), "", plugin));
    let mut first = ask(&gateway, WAYS[0].2);
    held(&gate, 1);
    let mut second = ask(&gateway, WAYS[1].2);
    let waiting = || gateway.metric("crossway_plugin_level{level=\"waiting\",plugin=\"concurrency\"}");
    eventually("it waits", || (waiting() == 1.0).then_some(()));
    gateway.get("/third").assert_problem(503, "concurrency_full");
    gate.let_go(2);
    assert_eq!((first.read("GET").unwrap().status, second.read("GET").unwrap().status), (200, 200));
    assert_eq!((gate.most(), waiting()), (1, 0.0));
}
