//! Attempts after the first: how many, where, when, and what is never sent twice. Counted at the upstreams.

use std::{
    io::Write as _,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::harness::{
    Answer, Connection, Gateway, H2Upstream, Received, Response, Upstream, closed_address, eventually, frame,
};

/// A way to the upstream: the route's plugins, a request without a body on it or with one.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    plugins: &'static str,
    body: &'static [u8],
}

const HOLDS: &str = "{ respond: { instead_of: [418], status: 200, body: replaced } }";
const WAYS: [Way; 4] = [
    Way { name: "exchange", plugins: "", body: b"" },
    Way { name: "stream", plugins: "", body: b"a body" },
    Way { name: "exchange with a body", plugins: HOLDS, body: b"a body" },
    Way { name: "stream, held", plugins: "{ body_limit: { max: 60KiB, buffer: true } }", body: b"a body" },
];

impl Way {
    fn start(&self, endpoints: &[&str], settings: &str) -> Gateway {
        Gateway::start(&self.config(endpoints, settings))
    }

    fn config(&self, endpoints: &[&str], settings: &str) -> String {
        let list: Vec<_> = endpoints.iter().map(|e| format!("{{ address: \"{e}\" }}")).collect();
        format!(
            "upstreams: {{ back: {{ endpoints: [{}], {settings} }} }}
routes:
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, plugins: [{}], upstream: back }}
",
            list.join(", "),
            self.plugins
        )
    }

    /// A request that may be repeated.
    fn ask(&self, gateway: &Gateway) -> Response {
        gateway.send("PUT /x", &[], self.body)
    }
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

fn withheld(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("crossway_upstream_retries_withheld_total{{reason=\"{reason}\",upstream=\"back\"}}"))
}

fn retried(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("crossway_upstream_retries_total{{reason=\"{reason}\",upstream=\"back\"}}"))
}

fn all_received(upstreams: &[Upstream]) -> Vec<usize> {
    upstreams.iter().map(|upstream| upstream.received().len()).collect()
}

const QUICK: &str = "backoff: { base: 1ms, max: 1ms }";

#[test]
fn every_endpoint_is_tried_before_one_is_tried_again() {
    for way in WAYS {
        let busy: Vec<_> = (0..3).map(|_| Upstream::start(|_| Answer::new(503, &[], b"busy"))).collect();
        let addresses: Vec<_> = busy.iter().map(Upstream::address).collect();
        let gateway = way.start(&addresses, &format!("retry: {{ attempts: 2, on: [503], {QUICK} }}"));
        for at in 1..=4 {
            assert_eq!(way.ask(&gateway).text(), "busy", "{}", way.name);
            assert_eq!(all_received(&busy), [at; 3], "{}", way.name);
        }
        let gateway = way.start(&addresses, &format!("retry: {{ attempts: 4, on: [503], {QUICK} }}"));
        assert_eq!(way.ask(&gateway).text(), "busy", "{}", way.name);
        let again: Vec<_> = all_received(&busy).iter().map(|count| count - 4).collect();
        assert_eq!((again.iter().sum::<usize>(), again.iter().max()), (5, Some(&2)), "{}: {again:?}", way.name);
        assert_eq!(retried(&gateway, "status"), 4.0, "{}", way.name);
    }
}

#[test]
fn retries_are_a_share_of_the_requests() {
    const REQUESTS: usize = 600;
    for way in [WAYS[0], WAYS[1]] {
        let busy: Vec<_> = (0..3).map(|_| Upstream::start(|_| Answer::new(503, &[], b"busy"))).collect();
        let addresses: Vec<_> = busy.iter().map(Upstream::address).collect();
        let settings = format!("retry: {{ attempts: 8, on: [503], {QUICK} }}");
        let mut gateway = way.start(&addresses, &settings);
        let started = Instant::now();
        for _ in 0..REQUESTS {
            let answer = way.ask(&gateway);
            assert_eq!((answer.status, answer.text().as_str()), (503, "busy"), "{}", way.name);
        }
        let took = started.elapsed();
        let sent: usize = all_received(&busy).iter().sum();
        assert!(sent > REQUESTS, "{}: {sent}", way.name);
        // Within one window the share is exact. A machine that is slower than that has the floor for each second.
        let floor = 30.0 + 3.0 * took.as_secs_f64();
        let share = number(REQUESTS) * 0.2;
        let most = if took < Duration::from_secs(9) { share } else { floor.max(share) * 1.5 };
        assert!(number(sent - REQUESTS) <= most, "{}: {sent} attempts for {REQUESTS} in {took:?}", way.name);
        assert!(withheld(&gateway, "budget") > 0.0, "{}", way.name);
        let shown = |gateway: &Gateway| gateway.status()["upstreams"][0]["retry_budget"].clone();
        let before = shown(&gateway);
        assert!(before["retries"].as_u64() <= before["allowed"].as_u64() && before["window_seconds"] == 10, "{before}");
        // A reload that changes the rules keeps what was counted.
        let reloaded =
            gateway.reload(&way.config(&addresses, &format!("retry: {{ attempts: 7, on: [503], {QUICK} }}")));
        assert_eq!(reloaded.status, 200, "{reloaded:?}");
        let after = shown(&gateway);
        assert!(after["requests"].as_u64() > Some(0), "{}: {after}", way.name);
    }
}

#[test]
fn without_a_budget_only_the_floor_is_left() {
    let busy = Upstream::start(|_| Answer::new(503, &[], b"busy"));
    let settings = format!("retry: {{ attempts: 8, on: [503], budget: 0%, min_per_second: 1, {QUICK} }}");
    let gateway = WAYS[0].start(&[busy.address()], &settings);
    for _ in 0..20 {
        WAYS[0].ask(&gateway);
    }
    let retries = busy.received().len() - 20;
    // Ten in ten seconds, and some more where this took longer.
    assert!((10..=30).contains(&retries), "{retries}");
}

#[test]
fn connect_errors_cost_no_budget_while_there_is_another_endpoint() {
    for way in WAYS {
        let alive = Upstream::start(|_| Answer::ok("fine"));
        let (dead, settings) =
            (closed_address(), format!("retry: {{ attempts: 2, budget: 1%, min_per_second: 0, {QUICK} }}"));
        let gateway = way.start(&[&dead, alive.address()], &settings);
        for _ in 0..30 {
            assert_eq!(gateway.send("POST /x", &[], way.body).text(), "fine", "{}", way.name);
        }
        assert_eq!(alive.received().len(), 30, "{}: each once", way.name);
        assert!(retried(&gateway, "connect_error") >= 15.0, "{}", way.name);
        let alone = way.start(&[&dead], &settings);
        way.ask(&alone).assert_problem(502, "upstream_connect");
        assert_eq!((retried(&alone, "connect_error"), withheld(&alone, "budget")), (0.0, 1.0), "{}", way.name);
    }
}

/// Asks for so many things one after the other, and waits for the others after a quarter of them; what did not come back, or
/// came back as something else.
fn ask_for_all(gateway: &Gateway, client: usize, count: usize, warm: &Barrier) -> Vec<String> {
    let mut connection = Connection::open(&gateway.address());
    let mut wrong = Vec::new();
    for at in 0..count {
        if at == count / 4 {
            warm.wait();
        }
        let id = format!("/{client}-{at}");
        connection.send(format!("GET {id} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
        let answer = connection.read("GET");
        if !answer.as_ref().is_some_and(|answer| answer.status == 200 && answer.text() == id) {
            wrong.push(format!("{id}: {answer:?}"));
        }
    }
    wrong
}

#[test]
fn an_endpoint_that_is_killed_under_load_costs_no_get() {
    const CLIENTS: usize = 4;
    const EACH: usize = 400;
    let upstreams: Vec<_> = (0..3).map(|_| Upstream::start(|r| Answer::ok(r.target.clone()))).collect();
    let addresses: Vec<_> = upstreams.iter().map(Upstream::address).collect();
    let gateway = WAYS[0].start(&addresses, "retry: { attempts: 2 }");
    let warm = Barrier::new(CLIENTS + 1);
    let started = Instant::now();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let ask = |client| {
            let (gateway, warm) = (&gateway, &warm);
            scope.spawn(move || ask_for_all(gateway, client, EACH, warm))
        };
        let clients: Vec<_> = (0..CLIENTS).map(ask).collect();
        warm.wait();
        upstreams[1].kill();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let rate = number(CLIENTS * EACH) / started.elapsed().as_secs_f64();
    eprintln!("X01 X05: sent {}, lost or mixed {}, {rate:.0} a second", CLIENTS * EACH, wrong.len());
    assert!(wrong.is_empty(), "{} of {}: {:?}", wrong.len(), CLIENTS * EACH, wrong.first());
    assert!(retried(&gateway, "connect_error") > 0.0);
}

#[test]
fn a_post_is_never_sent_twice_unless_asked() {
    let breaks = || Upstream::start(|_| Answer::raw(""));
    let busy = || Upstream::start(|_| Answer::new(503, &[], b"busy"));
    for way in WAYS {
        let names = "attempts: 3, on: [connect_error, reset, timeout, 503], per_try: 200ms";
        for (methods, count) in [("", 1), ("methods: [POST],", 3)] {
            let settings = format!("retry: {{ {names}, {methods} {QUICK} }}");
            for (upstream, status) in
                [(breaks as fn() -> _, 502), (busy, 503), (|| Upstream::start(|_| Answer::silence()), 504)]
            {
                let upstreams = [upstream(), upstream(), upstream()];
                let addresses: Vec<_> = upstreams.iter().map(Upstream::address).collect();
                let gateway = way.start(&addresses[..], &settings.replace("attempts: 3", "attempts: 2"));
                let answer = gateway.send("POST /x", &[], way.body);
                let sent: usize = all_received(&upstreams).iter().sum();
                assert_eq!((answer.status, sent), (status, count), "{} {methods} {answer:?}", way.name);
            }
        }
        // Where only POST is named, nothing else is repeated.
        let upstream = busy();
        let gateway = way.start(&[upstream.address()], "retry: { on: [503], methods: [POST] }");
        assert_eq!((way.ask(&gateway).status, upstream.received().len()), (503, 1), "{}", way.name);
    }
}

/// Silent for `/x`, from one of two.
fn silent_once() -> (Upstream, Upstream) {
    (Upstream::start(|_| Answer::silence()), Upstream::start(|r| Answer::ok(&r.body)))
}

#[test]
fn an_attempt_that_takes_too_long_is_made_elsewhere() {
    for way in WAYS {
        for (settings, code) in [
            ("retry: { attempts: 1, on: [timeout], per_try: 300ms }", "upstream_attempt_timeout"),
            ("retry: { attempts: 1, on: [timeout] }, timeouts: { first_byte: 300ms }", "upstream_timeout"),
        ] {
            let (silent, good) = silent_once();
            let gateway = way.start(&[silent.address(), good.address()], settings);
            for _ in 0..4 {
                let answer = way.ask(&gateway);
                assert_eq!((answer.status, &answer.body[..]), (200, way.body), "{} {settings}", way.name);
            }
            let tried = silent.received().len();
            assert!(tried >= 2 && good.received().len() == 4, "{} {settings}: {tried}", way.name);
            assert!(good.received().iter().all(|r| r.body == way.body), "{} {settings}", way.name);
            assert_eq!(retried(&gateway, "timeout"), number(tried), "{} {settings}", way.name);
            let alone = way.start(&[silent.address()], settings);
            let started = Instant::now();
            way.ask(&alone).assert_problem(504, code);
            assert!(started.elapsed() >= Duration::from_millis(600), "{} {settings}", way.name);
            let unnamed = way.start(&[silent.address()], &settings.replace("on: [timeout]", "on: [reset]"));
            way.ask(&unnamed).assert_problem(504, code);
            assert_eq!(silent.received().len(), tried + 3, "{} {settings}", way.name);
        }
    }
}

#[test]
fn a_client_that_sends_slowly_uses_up_no_attempt() {
    for way in [WAYS[1], WAYS[2]] {
        let upstream = Upstream::start(|r| Answer::ok(&r.body));
        let gateway = way.start(&[upstream.address()], "retry: { attempts: 2, on: [timeout], per_try: 400ms }");
        let mut connection = Connection::open(&gateway.address());
        connection.send(b"PUT /x HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n");
        for byte in [b"a", b"b", b"c", b"d"] {
            crate::harness::pass(Duration::from_millis(200));
            connection.send(byte);
        }
        let answer = connection.read("PUT").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "abcd"), "{}: {answer:?}", way.name);
        assert_eq!(upstream.received().len(), 1, "{}", way.name);
    }
}

#[test]
fn a_body_is_sent_again_whole_or_not_at_all() {
    for (length, sent) in [(65_536, 2), (65_537, 1)] {
        let count = AtomicUsize::new(0);
        let flaky = Upstream::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::new(503, &[], b"busy"),
            _ => Answer::ok("fine"),
        });
        let gateway = WAYS[1].start(&[flaky.address()], "retry: { on: [503] }");
        let body: Vec<u8> = (0..length).map(|at: u32| at.to_le_bytes()[usize::from(at.is_multiple_of(2))]).collect();
        let answer = gateway.send("PUT /x", &[], &body);
        assert_eq!(answer.text(), if sent == 2 { "fine" } else { "busy" }, "{length}");
        let received = flaky.received();
        assert_eq!(received.len(), sent, "{length}");
        assert!(received.iter().all(|r| r.body == body), "{length}");
    }
}

fn asks_for(text: &'static str) -> impl Fn(&Received) -> Answer {
    let count = AtomicUsize::new(0);
    move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::new(503, &[("Retry-After", text)], b"busy"),
        _ => Answer::ok("fine"),
    }
}

#[test]
fn an_endpoint_is_left_alone_for_as_long_as_it_asks() {
    for way in WAYS {
        let settings = "retry: { on: [503], max_retry_after: 3s }";
        let patient = Upstream::start(asks_for("1"));
        let started = Instant::now();
        let gateway = way.start(&[patient.address()], settings);
        assert_eq!((way.ask(&gateway).text().as_str(), patient.received().len()), ("fine", 2), "{}", way.name);
        assert!(started.elapsed() >= Duration::from_secs(1), "{}", way.name);
        for (asked, settings, why) in [
            ("4", settings, "retry_after"),
            ("Tue, 31 Dec 2199 23:59:59 GMT", settings, "retry_after"),
            ("2", "retry: { on: [503], max_retry_after: 3s }, timeouts: { total: 1500ms }", "deadline"),
        ] {
            let upstream = Upstream::start(asks_for(asked));
            let gateway = way.start(&[upstream.address()], settings);
            let answer = way.ask(&gateway);
            let shown = (answer.status, answer.text(), answer.header("retry-after").map(str::to_owned));
            assert_eq!(shown, (503, "busy".into(), Some(asked.into())), "{} {asked}", way.name);
            assert_eq!((upstream.received().len(), withheld(&gateway, why)), (1, 1.0), "{} {asked}", way.name);
        }
    }
}

#[test]
fn pauses_lie_between_attempts() {
    for way in WAYS {
        let times = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = std::sync::Arc::clone(&times);
        let busy = Upstream::start(move |_| {
            seen.lock().unwrap().push(Instant::now());
            Answer::new(503, &[], b"busy")
        });
        let gateway =
            way.start(&[busy.address()], "retry: { attempts: 8, on: [503], backoff: { base: 40ms, max: 40ms } }");
        assert_eq!(way.ask(&gateway).status, 503, "{}", way.name);
        let times = times.lock().unwrap();
        // Eight pauses of 20 ms in the middle: together less than 20 ms once in 40 000 000 runs.
        let whole = times[8].duration_since(times[0]);
        assert!(times.len() == 9 && whole > Duration::from_millis(20), "{}: {whole:?}", way.name);
    }
}

#[test]
fn calls_are_tried_again_by_the_same_rules() {
    let start = |settings: &str, upstreams: &[&H2Upstream]| {
        let list: Vec<_> = upstreams.iter().map(|u| format!("{{ address: \"{}\" }}", u.address())).collect();
        Gateway::start(&format!(
            "upstreams: {{ back: {{ endpoints: [{}], http2: true, {settings} }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, grpc_web: true, upstream: back }}]\n",
            list.join(", ")
        ))
    };
    let call = |gateway: &Gateway, path: &str| {
        gateway.send(&format!("POST {path}"), &[("Content-Type", "application/grpc-web+proto")], &frame(b"order"))
    };
    for (methods, begun) in [("", 1), ("methods: [POST],", 2)] {
        let upstream = H2Upstream::plain();
        let gateway = start(&format!("retry: {{ on: [reset, timeout], {methods} per_try: 400ms }}"), &[&upstream]);
        let answer = call(&gateway, "/reset/1");
        assert_eq!((answer.header("grpc-status").is_none(), upstream.begun()), (begun == 2, begun), "{answer:?}");
        if begun == 2 {
            assert_eq!(upstream.seen().last().unwrap().body, frame(b"order"));
        }
        let silent = H2Upstream::plain();
        let gateway = start(&format!("retry: {{ on: [reset, timeout], {methods} per_try: 300ms }}"), &[&silent]);
        let answer = call(&gateway, "/echo.Echo/Silent");
        assert_eq!((answer.header("grpc-status"), silent.begun()), (Some("14"), begun), "{answer:?}");
        assert_eq!(gateway.metric("crossway_faults_total{code=\"upstream_attempt_timeout\"}"), 1.0);
        eventually("the streams are taken back", || (silent.seen().len() == begun).then_some(()));
    }
}

#[test]
fn a_client_that_leaves_during_a_pause_ends_its_request() {
    let busy = Upstream::start(|_| Answer::new(503, &[("Retry-After", "2")], b"busy"));
    let gateway = WAYS[0].start(&[busy.address()], "retry: { attempts: 3, on: [503], max_retry_after: 10s }");
    let mut connection = Connection::open(&gateway.address());
    connection.send(b"GET /x HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the first attempt", || (busy.received().len() == 1).then_some(()));
    connection.writer().flush().unwrap();
    drop(connection);
    eventually("the request ends", || (gateway.metric("crossway_requests_in_flight") == 0.0).then_some(()));
    assert_eq!(busy.received().len(), 1);
}
