//! Which endpoint gets a request, on every way to an upstream, counted at the endpoints.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::harness::{Answer, Gateway, H2Upstream, Response, Upstream, closed_address, eventually, frame, websocket};

/// A request without a body goes by exchange, one with a body is streamed.
const WAYS: [(&str, &[u8]); 2] = [("GET", b""), ("POST", b"body")];

fn config(endpoints: &[String], settings: &str, route: &str) -> String {
    format!(
        "upstreams: {{ back: {{ endpoints: [{}], {settings} }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back, {route} }}]
",
        endpoints.join(", ")
    )
}

fn at(upstream: &Upstream, more: &str) -> String {
    format!("{{ address: \"{}\", {more} }}", upstream.address())
}

/// Says which server it is, and closes, so that nobody is served by one that has ended.
fn told(number: usize) -> Answer {
    Answer::raw(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n{number}"))
}

fn servers<const N: usize>() -> [Upstream; N] {
    std::array::from_fn(|number| Upstream::start(move |_| told(number)))
}

fn number(response: &Response) -> usize {
    assert_eq!(response.status, 200, "{response:?} {}", response.text());
    response.text().parse().unwrap()
}

/// How many requests each server gets of these.
fn counts<const N: usize>(
    gateway: &Gateway,
    requests: impl Iterator<Item = (String, Vec<(String, String)>)>,
) -> [usize; N] {
    let mut counts = [0; N];
    for (target, fields) in requests {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        counts[number(&gateway.send(&target, &fields, b""))] += 1;
    }
    counts
}

fn plain(count: usize) -> impl Iterator<Item = (String, Vec<(String, String)>)> {
    (0..count).map(|_| ("GET /".to_owned(), Vec::new()))
}

#[test]
fn turns_are_taken_by_weight_and_drained_endpoints_take_none() {
    let servers = servers::<3>();
    let endpoints = [at(&servers[0], "weight: 3"), at(&servers[1], ""), at(&servers[2], "weight: 0")];
    let gateway = Gateway::start(&config(&endpoints, "", ""));
    for (method, body) in WAYS {
        let mut counts = [0; 3];
        (0..40).for_each(|_| counts[number(&gateway.send(&format!("{method} /"), &[], body))] += 1);
        assert_eq!(counts, [30, 10, 0], "{method}");
    }
}

#[test]
fn a_busy_endpoint_is_left_alone() {
    let busy = Upstream::start(|_| Answer::silence());
    let idle = Upstream::start(|_| Answer::ok("1"));
    // The last request may still be counted where the next is chosen: the idle one has room for it.
    let endpoints = [at(&busy, "weight: 1"), at(&idle, "weight: 9")];
    let gateway = Gateway::start(&config(&endpoints, "balance: least_in_flight, timeouts: { first_byte: 1m }", ""));
    let in_flight = |server: &Upstream| {
        let labels = format!("endpoint=\"{}\",upstream=\"back\"", server.address());
        gateway.metric(&format!("crossway_endpoint_requests_in_flight{{{labels}}}"))
    };
    let _stuck = stuck(&gateway.address(), &busy);
    eventually("it is shown", || (in_flight(&busy) == 1.0).then_some(()));
    for (method, body) in WAYS {
        for _ in 0..30 {
            assert_eq!(number(&gateway.send(&format!("{method} /"), &[], body)), 1);
        }
    }
    assert_eq!((busy.received().len(), in_flight(&busy)), (1, 1.0));
    eventually("nothing is left there", || (in_flight(&idle) == 0.0).then_some(()));
    let shown = &gateway.status()["upstreams"][0]["endpoints"][0];
    assert_eq!((shown["in_flight"].as_u64(), shown["weight"].as_u64()), (Some(1), Some(1)));
}

/// Sends requests one by one until one is drawn for the server that says nothing.
fn stuck(address: &str, silent: &Upstream) -> TcpStream {
    loop {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        let is_answered = eventually("it is answered, or stuck", || match stream.read(&mut [0; 64]) {
            Ok(_) => Some(true),
            Err(_) => (!silent.received().is_empty()).then_some(false),
        });
        if !is_answered {
            return stream;
        }
    }
}

fn of_tenant(method: &str, tenant: usize) -> (String, Vec<(String, String)>) {
    (format!("{method} /"), vec![("X-Tenant".to_owned(), format!("tenant-{tenant}"))])
}

/// Which server each tenant has.
fn owners(gateway: &Gateway, tenants: usize) -> Vec<usize> {
    (0..tenants)
        .map(|tenant| {
            let (_, fields) = of_tenant("GET", tenant);
            let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let [get, post] = WAYS.map(|(method, body)| number(&gateway.send(&format!("{method} /"), &fields, body)));
            assert_eq!(get, post, "both ways lead to the same endpoint");
            get
        })
        .collect()
}

#[test]
fn tenants_keep_their_endpoint_and_only_those_of_one_that_leaves_move() {
    const TENANTS: usize = 120;
    let servers = servers::<3>();
    let endpoints = servers.each_ref().map(|server| at(server, ""));
    let settings = "balance: { hash: { on: header:X-Tenant } }";
    let mut gateway = Gateway::start(&config(&endpoints, settings, ""));
    let before = owners(&gateway, TENANTS);
    for server in 0..3 {
        let count = before.iter().filter(|owner| **owner == server).count();
        assert!((20..=60).contains(&count), "{server} has {count} of {TENANTS}");
    }
    let other = Gateway::start(&config(&endpoints, settings, ""));
    assert_eq!(owners(&other, 20), before[..20], "another gateway chooses the same");
    let fewer = [endpoints[0].clone(), endpoints[2].clone()];
    assert_eq!(gateway.reload(&config(&fewer, settings, "")).status, 200);
    for (tenant, (before, after)) in before.iter().zip(owners(&gateway, TENANTS)).enumerate() {
        assert!(*before == after || *before == 1, "tenant {tenant} went from {before} to {after}");
    }
    // One that is gone without a word: its tenants are served by the others, the rest stay.
    assert_eq!(gateway.reload(&config(&endpoints, settings, "")).status, 200);
    assert_eq!(owners(&gateway, 30), before[..30], "they come back");
    let taken = counts::<3>(&gateway, plain(30));
    assert_eq!(taken, [10; 3], "without a value they take turns");
}

#[test]
fn a_tenant_whose_endpoint_is_down_is_served_elsewhere() {
    let servers = servers::<1>();
    let down = closed_address();
    let endpoints = [at(&servers[0], ""), format!("{{ address: \"{down}\" }}")];
    let gateway = Gateway::start(&config(&endpoints, "balance: { hash: { on: \"query:t\" } }", ""));
    for tenant in 0..16 {
        for (method, body) in WAYS {
            assert_eq!(number(&gateway.send(&format!("{method} /?t={tenant}"), &[], body)), 0);
        }
    }
    assert!(gateway.metric("crossway_upstream_attempts_total{result=\"retried\",upstream=\"back\"}") > 0.0);
}

/// The cookie that an answer sets: its value, and its attributes.
fn set(response: &Response) -> Option<(String, String)> {
    let field = response.header("set-cookie")?;
    let (pair, attributes) = field.split_once("; ").unwrap();
    let (name, value) = pair.split_once('=').unwrap();
    assert_eq!(name, "at");
    Some((value.to_owned(), attributes.to_owned()))
}

const STICKY: &str = "sticky: { cookie: { name: at, ttl: 1h }, key: sixteen-letters-or-more }";

#[test]
fn clients_come_back_to_their_endpoint_and_move_when_it_is_gone() {
    for (method, body) in WAYS {
        let [first, second] = servers::<2>();
        let (one, two) = (at(&first, ""), at(&second, ""));
        let mut gateway = Gateway::start(&config(&[one.clone(), two.clone()], STICKY, ""));
        let ask = |gateway: &Gateway, cookie: &str| {
            gateway.send(&format!("{method} /"), &[("Cookie", &format!("a=b; at={cookie}; c=d"))], body)
        };
        let mut cookies = HashMap::new();
        while cookies.len() < 2 {
            let response = gateway.send(&format!("{method} /"), &[], body);
            let (value, attributes) = set(&response).unwrap();
            assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
            assert!(value.len() == 16 && !value.contains("127"), "{value}");
            cookies.insert(number(&response), value);
        }
        for (server, cookie) in &cookies {
            for _ in 0..4 {
                let response = ask(&gateway, cookie);
                assert_eq!((number(&response), set(&response)), (*server, None), "{method}");
            }
        }
        for stranger in ["0000000000000000", "junk", ""] {
            assert!(set(&ask(&gateway, stranger)).is_some(), "{method}: {stranger}");
        }
        // Another gateway with the same key knows them, one with another does not.
        let other = Gateway::start(&config(&[two.clone(), one.clone()], STICKY, ""));
        assert_eq!(number(&ask(&other, &cookies[&1])), 1);
        let stranger = Gateway::start(&config(&[one.clone(), two.clone()], "sticky: { cookie: { name: at } }", ""));
        assert!(set(&ask(&stranger, &cookies[&1])).is_some());
        // Drained: who is there stays, and nobody comes.
        let drained = [one.clone(), at(&second, "weight: 0")];
        assert_eq!(gateway.reload(&config(&drained, STICKY, "")).status, 200);
        assert_eq!((number(&ask(&gateway, &cookies[&1])), number(&gateway.get("/"))), (1, 0), "{method}");
        // Down: a client is served elsewhere, and told where.
        assert_eq!(gateway.reload(&config(&[one, two], STICKY, "")).status, 200);
        drop(second);
        let moved = eventually("the server is gone", || {
            let response = ask(&gateway, &cookies[&1]);
            (number(&response) == 0).then_some(response)
        });
        assert_eq!(set(&moved).map(|(value, _)| value), Some(cookies[&0].clone()), "{method}");
    }
}

#[test]
fn calls_and_websockets_are_sticky_too() {
    let (one, two) = (H2Upstream::plain(), H2Upstream::plain());
    let endpoints = [one.address(), two.address()].map(|address| format!("{{ address: \"{address}\" }}"));
    let settings = format!("http2: true, {STICKY}");
    let gateway = Gateway::start(&config(&endpoints, &settings, "grpc_web: true"));
    let call = |cookie: &str| {
        let fields = [("Content-Type", "application/grpc-web+proto"), ("Cookie", cookie)];
        let answer = gateway.send("POST /echo.Echo/Unary", &fields, &frame(b"hello"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    };
    let (cookie, _) = set(&call("none=1")).unwrap();
    let seen = || [one.seen().len(), two.seen().len()];
    let first = seen();
    (0..6).for_each(|_| assert_eq!(set(&call(&format!("at={cookie}"))), None));
    assert_eq!(seen(), first.map(|count| count * 7), "all of them went where the first went");

    let echo = websocket::Echo::start();
    let endpoints = [format!("{{ address: \"{}\" }}", echo.address())];
    let gateway = Gateway::start(&config(&endpoints, STICKY, "websocket: {}"));
    let opened = websocket::ask(&gateway.address(), "/", "");
    assert_eq!(opened.status, 101);
    let (cookie, _) = set(&opened).unwrap();
    assert_eq!(set(&websocket::ask(&gateway.address(), "/", &format!("Cookie: at={cookie}\r\n"))), None);
}

#[test]
fn endpoints_of_the_next_priority_stand_in_and_step_back() {
    let [first, second] = servers::<2>();
    let address = first.address().to_owned();
    let endpoints = [at(&second, "priority: 1"), format!("{{ address: \"{address}\" }}")];
    let gateway = Gateway::start(&config(&endpoints, "", ""));
    assert_eq!(counts::<2>(&gateway, plain(10)), [10, 0]);
    drop(first);
    eventually("the first has ended", || TcpStream::connect(&address).is_err().then_some(()));
    for (method, body) in WAYS {
        (0..5).for_each(|_| assert_eq!(number(&gateway.send(&format!("{method} /"), &[], body)), 1, "{method}"));
    }
    let _back = Upstream::start_on(&address, |_| told(0));
    assert_eq!(counts::<2>(&gateway, plain(10)), [10, 0]);
}

#[test]
fn an_endpoint_that_comes_starts_slowly_and_a_reload_does_not_start_it_again() {
    let [first, second] = servers::<2>();
    let settings = "slow_start: 1h";
    let mut gateway = Gateway::start(&config(&[at(&first, "")], settings, ""));
    let both = [at(&first, ""), at(&second, "")];
    assert_eq!(gateway.reload(&config(&both, settings, "")).status, 200);
    let [_, few] = counts::<2>(&gateway, plain(400));
    assert!((8..=80).contains(&few), "{few} of 400 at a tenth of the weight");
    let shown = |gateway: &Gateway| gateway.status()["upstreams"][0]["endpoints"].clone();
    let endpoints = shown(&gateway);
    assert!(endpoints[0]["slow_start"].is_null() && endpoints[1]["slow_start"]["share"] == 0.1, "{endpoints}");
    let before = eventually("a second has passed", || {
        shown(&gateway)[1]["slow_start"]["seconds"].as_u64().filter(|seconds| *seconds > 0)
    });
    let heavier = [at(&first, "weight: 2"), at(&second, "weight: 2")];
    assert_eq!(gateway.reload(&config(&heavier, settings, "")).status, 200);
    let after = shown(&gateway)[1]["slow_start"]["seconds"].as_u64().unwrap();
    assert!(after >= before, "{before} {after}");
    assert_eq!(gateway.reload(&config(&both, "", "")).status, 200);
    assert_eq!(counts::<2>(&gateway, plain(40)), [20, 20], "without slow_start there is none");
}

#[test]
fn requests_in_flight_are_known_over_a_reload() {
    let held = Arc::new(AtomicBool::new(true));
    let wait = Arc::clone(&held);
    let slow = Upstream::start(move |_| {
        while wait.load(Ordering::SeqCst) {
            thread::park_timeout(Duration::from_millis(5));
        }
        Answer::ok("0")
    });
    let mut gateway = Gateway::start(&config(&[at(&slow, "")], "balance: least_in_flight", ""));
    thread::scope(|scope| {
        let _finish = Released(&held);
        let address = gateway.address();
        let request = scope.spawn(move || crate::harness::exchange(&address, "GET /", &[], b"").status);
        let in_flight = |gateway: &Gateway| gateway.status()["upstreams"][0]["endpoints"][0]["in_flight"].as_u64();
        eventually("it is there", || (in_flight(&gateway) == Some(1)).then_some(()));
        assert_eq!(gateway.reload(&config(&[at(&slow, "weight: 7")], "", "")).status, 200);
        assert_eq!(in_flight(&gateway), Some(1));
        held.store(false, Ordering::SeqCst);
        assert_eq!(request.join().unwrap(), 200);
        eventually("it is gone", || (in_flight(&gateway) == Some(0)).then_some(()));
    });
}

/// Lets the server answer when the test ends, also when it fails.
struct Released<'a>(&'a AtomicBool);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
