//! Limits as clients meet them.

mod cluster;
mod script;
mod shared;

use std::{
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::harness::{Answer, Connection, Gateway, Response, Upstream, eventually, exchange};

/// Keys of the consumers below, each with its SHA-256.
const ALICE: (&str, &str) = ("key-of-alice", "d16a80956c32f3f5fb979bea408abac8c3eef6c54ecb234279e337146cf87b47");
const BOB: (&str, &str) = ("key-of-bob", "808a1d81b5de08d72083995df738947d519d230a20c236003268f0f4b65ee475");

/// Two consumers, an upstream, and these lines.
fn config(upstream: &Upstream, more: &str) -> String {
    format!(
        "consumers:
  - {{ name: alice, groups: [gold], credentials: [{{ api_key: {{ sha256: {} }} }}] }}
  - {{ name: bob, groups: [free], credentials: [{{ api_key: {{ sha256: {} }} }}] }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
{more}\n",
        ALICE.1,
        BOB.1,
        upstream.address()
    )
}

/// A route for everything below its name, with these plugins.
fn route(name: &str, auth: &str, plugins: &str) -> String {
    format!(
        "{{ name: {name}, match: {{ path: \"/{name}/{{rest...}}\" }}, {auth} upstream: back, plugins: [{plugins}] }}"
    )
}

/// One open route `a` with these settings of the plugin.
fn open(upstream: &Upstream, settings: &str) -> String {
    config(
        upstream,
        &format!("routes: [{}]", route("a", "auth: none,", &format!("{{ rate_limit: {{ {settings} }} }}"))),
    )
}

fn statuses(gateway: &Gateway, target: &str, key: &str, count: usize) -> Vec<u16> {
    let send = |_| gateway.send(&format!("GET {target}"), &[("X-API-Key", key)], b"").status;
    (0..count).map(send).collect()
}

/// The number of a parameter in a field with one item.
fn parameter(answer: &Response, field: &str, name: &str) -> u64 {
    let value = answer.header(field).unwrap_or_else(|| panic!("no {field}: {answer:?}"));
    let found = value.split(';').find_map(|part| part.strip_prefix(&format!("{name}=")));
    found.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[test]
fn the_wire_says_how_a_client_stands() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&open(
        &upstream,
        "headers: [ietf, legacy], policies: [{ name: each, key: [client], limit: 3, per: 1h }]",
    ));
    for left in [2, 1, 0] {
        let answer = gateway.get("/a/x");
        assert_eq!((answer.status, answer.header("ratelimit-policy")), (200, Some("\"each\";q=3;w=3600")));
        assert_eq!(parameter(&answer, "ratelimit", "r"), left);
        assert!((1..=3_600).contains(&parameter(&answer, "ratelimit", "t")));
        assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(left.to_string().as_str()));
    }
    let refused = gateway.get("/a/x");
    refused.assert_problem(429, "rate_limited");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((600..=1_200).contains(&wait), "{wait}");
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["each"]));
    assert!(refused.json()["detail"].as_str().unwrap().contains("each"));
    assert_eq!((parameter(&refused, "ratelimit", "r"), parameter(&refused, "ratelimit", "t")), (0, wait));
    assert_eq!(refused.header("x-ratelimit-reset"), Some(wait.to_string().as_str()));
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    assert_eq!(upstream.received().len(), 3, "what is refused never gets there");
    let count = |event: &str| {
        gateway.metric(&format!("crossway_plugin_events_total{{event=\"{event}\",plugin=\"rate_limit\"}}"))
    };
    assert_eq!((count("allowed"), count("refused")), (3.0, 1.0));
}

#[test]
fn claims_of_clients_open_no_new_bucket() {
    let upstream = Upstream::echo();
    let gateway =
        Gateway::start(&open(&upstream, "policies: [{ name: each, key: [client, route], limit: 4, per: 1h }]"));
    let sends = [
        ("GET /a/x", ("X-Forwarded-For", "198.51.100.1")),
        ("GET /a/./y?z=1", ("Forwarded", "for=198.51.100.2")),
        ("POST /a/%78", ("X-Real-IP", "198.51.100.3")),
        ("HEAD /a/x", ("X-Consumer-Name", "alice")),
        ("GET /a/X", ("Host", "OTHER.test:80")),
        ("DELETE /a/x", ("X-Consumer-Groups", "gold")),
    ];
    let seen: Vec<u16> = sends.map(|(line, field)| gateway.send(line, &[field], b"").status).to_vec();
    assert_eq!(seen, [200, 200, 200, 200, 429, 429]);
}

/// The statuses of so many requests on one connection.
fn ask_again_and_again(address: &str, count: usize) -> Vec<u16> {
    let mut connection = Connection::open(address);
    let mut ask = || {
        connection.send(b"GET /a/x HTTP/1.1\r\nHost: a\r\n\r\n");
        connection.read("GET").unwrap().status
    };
    (0..count).map(|_| ask()).collect()
}

/// As many as the limit says pass, however they come.
#[test]
fn connections_at_once_never_get_one_too_many() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&open(&upstream, "policies: [{ name: each, key: [client], limit: 10, per: 1d }]"));
    let address = gateway.address();
    let statuses: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| ask_again_and_again(&address, 25))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(200), count(429)), (10, 190));
    assert_eq!(upstream.received().len(), 10);
}

#[test]
fn consumers_have_tiers_and_their_own_buckets() {
    let upstream = Upstream::echo();
    let limit = "{ rate_limit: { policies: [{ name: each, key: [consumer], limit: 1, per: 1h, tiers: { gold: { limit: 3 } } }] } }";
    let plugins = format!("{{ api_key: {{}} }}, {limit}");
    let gateway = Gateway::start(&config(&upstream, &format!("routes: [{}]", route("a", "", &plugins))));
    assert_eq!(statuses(&gateway, "/a/x", BOB.0, 2), [200, 429]);
    assert_eq!(statuses(&gateway, "/a/x", "nobody", 3), [401; 3], "nobody's guesses cost anybody anything");
    assert_eq!(statuses(&gateway, "/a/x", ALICE.0, 4), [200, 200, 200, 429]);
    let refused = gateway.send("GET /a/x", &[("X-API-Key", ALICE.0)], b"");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"each\";q=3;w=3600"));
}

#[test]
fn guesses_are_limited_before_the_key_is_looked_at() {
    let upstream = Upstream::echo();
    let limit = "{ rate_limit: { policies: [{ name: guesses, key: [client], limit: 2, per: 1h }] } }";
    let plugins = format!("{limit}, {{ api_key: {{}} }}");
    let gateway = Gateway::start(&config(&upstream, &format!("routes: [{}]", route("a", "", &plugins))));
    assert_eq!(statuses(&gateway, "/a/x", "wrong", 2), [401; 2]);
    let answer = gateway.send("GET /a/x", &[("X-API-Key", ALICE.0)], b"");
    answer.assert_problem(429, "rate_limited");
    assert!(answer.header("ratelimit").is_some());
}

#[test]
fn a_shadow_only_reports() {
    let upstream = Upstream::echo();
    let gateway =
        Gateway::start(&open(&upstream, "policies: [{ name: later, key: [client], limit: 1, per: 1h, mode: shadow }]"));
    for _ in 0..3 {
        let answer = gateway.get("/a/x");
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
    }
    assert_eq!(gateway.metric("crossway_plugin_events_total{event=\"shadowed\",plugin=\"rate_limit\"}"), 2.0);
    let log = gateway.stderr();
    assert!(log.contains("later") && log.contains("shadow"), "{log}");
}

#[test]
fn who_lacks_the_key_is_told() {
    let upstream = Upstream::echo();
    let of = |more: &str| {
        let policy = format!("{{ name: each, key: [\"header:X-Tenant\"], limit: 1, per: 1h{more} }}");
        Gateway::start(&open(&upstream, &format!("policies: [{policy}]")))
    };
    let gateway = of("");
    gateway.get("/a/x").assert_problem(403, "rate_limit_key_missing");
    assert_eq!(gateway.send("GET /a/x", &[("X-Tenant", "t")], b"").status, 200);
    let gateway = of(", on_missing_key: anonymous");
    assert_eq!(statuses(&gateway, "/a/x", "", 2), [200, 429]);
    let gateway = of(", on_missing_key: allow");
    assert_eq!(statuses(&gateway, "/a/x", "", 3), [200; 3]);
}

#[test]
fn a_reload_keeps_what_was_used_and_new_limits_hold_at_once() {
    let upstream = Upstream::echo();
    let of = |limit: u32| {
        open(
            &upstream,
            &format!("policies: [{{ name: day, key: [client], limit: {limit}, per: month, algorithm: fixed_window }}]"),
        )
    };
    let mut gateway = Gateway::start(&of(2));
    assert_eq!(statuses(&gateway, "/a/x", "", 3), [200, 200, 429]);
    for (limit, expected) in [(2, vec![429]), (3, vec![200, 429]), (2, vec![429]), (5, vec![200, 200, 429])] {
        assert_eq!(gateway.reload(&of(limit)).status, 200);
        assert_eq!(statuses(&gateway, "/a/x", "", expected.len()), expected, "{limit}");
    }
    let broken = of(9).replace("per: month", "per: week");
    assert_eq!(gateway.reload(&broken).status, 422);
    assert_eq!(statuses(&gateway, "/a/x", "", 1), [429]);
    for _ in 0..5 {
        gateway.signal("HUP");
    }
    assert_eq!(statuses(&gateway, "/a/x", "", 3), [429; 3], "reload after reload");
}

/// One rate after the other, and how many of 40 requests pass: the first uses up its burst. Between two units are hours, so
/// that none comes back meanwhile, however slow the test is.
const RATES: [(&str, usize); 5] = [
    ("limit: 10, per: 31d", 10),
    // Twelve are allowed, and ten are used.
    ("limit: 12, per: 31d", 2),
    ("limit: 12, per: 31d, burst: 15", 3),
    // Fewer than were used.
    ("limit: 5, per: 31d", 0),
    ("limit: 7, per: 1d", 2),
];
/// As few at once as were used, and one comes back in a moment.
const SOON: &str = "limit: 600000, per: 1d, burst: 7";

/// Who has used up a slow rate can go on at the pace of this one.
fn assert_soon(gateway: &mut Gateway, config: &str) {
    assert_eq!(gateway.reload(config).status, 200);
    let mut passed = 0;
    eventually("a unit has come back, again and again", || {
        passed += usize::from(gateway.get("/a/x").status == 200);
        (passed == 10).then_some(())
    });
}

#[test]
fn a_changed_rate_holds_at_once() {
    let upstream = Upstream::echo();
    let of = |policy: &str| open(&upstream, &format!("policies: [{{ name: rate, key: [client], {policy} }}]"));
    let mut gateway = Gateway::start(&of(RATES[0].0));
    for (number, (policy, expected)) in RATES.iter().enumerate() {
        if number > 0 {
            assert_eq!(gateway.reload(&of(policy)).status, 200);
        }
        let seen = statuses(&gateway, "/a/x", "", 40);
        assert_eq!(seen.iter().filter(|status| **status == 200).count(), *expected, "{policy}: {seen:?}");
    }
    assert_soon(&mut gateway, &of(SOON));
}

#[test]
fn routes_share_by_chain_or_id_and_not_otherwise() {
    let upstream = Upstream::echo();
    let limit = "{ rate_limit: { policies: [{ name: each, key: [client], limit: 2, per: 1h }] }";
    let chained = |name: &str| {
        format!(
            "{{ name: {name}, match: {{ path: \"/{name}/{{rest...}}\" }}, auth: none, upstream: back, chain: both }}"
        )
    };
    let own = |name: &str, id: &str| route(name, "auth: none,", &format!("{limit}{id} }}"));
    let routes = [
        chained("a"),
        chained("b"),
        own("c", ""),
        own("d", ""),
        own("e", ", id: together"),
        own("f", ", id: together"),
    ];
    let gateway = Gateway::start(&config(
        &upstream,
        &format!("chains: {{ both: [{limit} }}] }}\nroutes: [{}]", routes.join(", ")),
    ));
    let of = |target: &str| statuses(&gateway, target, "", 1)[0];
    assert_eq!(["/a/x", "/b/x", "/a/x", "/b/x"].map(of), [200, 200, 429, 429], "a chain");
    assert_eq!(["/c/x", "/d/x", "/c/x", "/d/x", "/c/x"].map(of), [200, 200, 200, 200, 429], "routes of their own");
    assert_eq!(["/e/x", "/f/x", "/e/x", "/f/x"].map(of), [200, 200, 429, 429], "an id");
}

#[test]
fn a_response_says_what_it_has_cost() {
    let upstream = Upstream::start(|received| {
        let cost = received.header("x-work").unwrap_or("1").to_owned();
        Answer::new(200, &[("X-Cost", &cost)], b"done")
    });
    let from = "cost_from: { response_header: X-Cost, max: 50, max_debt: 5 }";
    let gateway = Gateway::start(&open(
        &upstream,
        &format!("policies: [{{ name: work, key: [client], limit: 10, per: month, algorithm: fixed_window, {from} }}]"),
    ));
    let send = |work: &str| gateway.send("GET /a/x", &[("X-Work", work)], b"");
    assert_eq!(parameter(&send("4"), "ratelimit", "r"), 6);
    assert_eq!(parameter(&send("40"), "ratelimit", "r"), 0);
    send("1").assert_problem(429, "rate_limited");
    assert_eq!(upstream.received().len(), 2);
}

/// A quota ends with its window, for everybody at once, and the answer says when.
#[test]
fn a_window_ends_when_the_answer_says() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&open(
        &upstream,
        "policies: [{ name: day, key: [client], limit: 1, per: 1d, algorithm: fixed_window }]",
    ));
    let answer = gateway.get("/a/x");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let midnight = now + parameter(&answer, "ratelimit", "t");
    assert!(
        midnight.is_multiple_of(86_400) || (midnight - 60..midnight).any(|at| at.is_multiple_of(86_400)),
        "{midnight}"
    );
}

#[test]
fn http2_is_counted_the_same() {
    let upstream = Upstream::echo();
    let listener = "listeners: [{ name: public, address: \"127.0.0.1:0\", http2: true }]\n";
    let settings = "policies: [{ name: each, key: [client], limit: 3, per: 1h }]";
    let gateway = Gateway::start(&(listener.to_owned() + &open(&upstream, settings)));
    assert_eq!(exchange(&gateway.address(), "GET /a/x", &[], b"").status, 200);
    let (passed, refused) = over_http2(&gateway.address(), 20);
    assert_eq!((passed, refused), (2, 18), "one over HTTP/1 counts too");
}

/// Asks so often on one connection at once, of which all answers must carry the fields: how many passed, and how many not.
fn over_http2(address: &str, count: usize) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut answers = Vec::new();
        for _ in 0..count {
            let request = http::Request::get("http://gateway.test/a/x").body(()).unwrap();
            sender = sender.ready().await.unwrap();
            answers.push(sender.send_request(request, true).unwrap().0);
        }
        let mut statuses = Vec::new();
        for answer in answers {
            let answer = answer.await.unwrap();
            assert!(answer.headers().contains_key("ratelimit") && answer.headers().contains_key("ratelimit-policy"));
            statuses.push(answer.status().as_u16());
        }
        drop((sender, driver));
        let passed = statuses.iter().filter(|status| **status == 200).count();
        (passed, statuses.iter().filter(|status| **status == 429).count())
    })
}
