//! Each plugin from outside.

use crate::harness::{Connection, Gate, Gateway, Response, Upstream, eventually};

fn start(upstream: &Upstream, plugins: &str, auth: &str) -> Gateway {
    Gateway::start(&format!(
        "consumers:
  - {{ name: alice, groups: [gold, emea], credentials: [{{ api_key: {{ sha256: {} }} }}] }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, {auth} upstream: back, plugins: [{plugins}] }}]\n",
        // SHA-256 of "alices-key"
        "4a69ac2c49c84a16f2d13a9a5b8cb1c31b0a9ec2cf6fb9f9a4b1b23a0f7b6b5e",
        upstream.address()
    ))
}

fn open(upstream: &Upstream, plugins: &str) -> Gateway {
    start(upstream, plugins, "auth: none,")
}

#[test]
fn request_id() {
    let upstream = Upstream::echo();
    let fresh = open(&upstream, "{ request_id: {} }");
    let mine = [("X-Request-Id", "my-own.id_1")];
    let answer = fresh.send("GET /", &mine, b"");
    let id = answer.header("x-request-id").unwrap().to_owned();
    assert!(id.len() == 36 && id != mine[0].1, "{id}");
    assert_eq!(upstream.only().header("x-request-id"), Some(id.as_str()));
    let trusting = open(&upstream, "{ request_id: { trust_incoming: true, header: X-Request-Id } }");
    assert_eq!(trusting.send("GET /", &mine, b"").header("x-request-id"), Some("my-own.id_1"));
    for bad in ["../../x", "a b", &"x".repeat(65)] {
        assert_eq!(
            trusting.send("GET /", &[("X-Request-Id", bad)], b"").header("x-request-id").unwrap().len(),
            36,
            "{bad}"
        );
    }
}

#[test]
fn headers() {
    let upstream = Upstream::echo();
    let gateway = open(
        &upstream,
        "{ headers: { request: { remove: [X-Gone], rename: { X-Old: X-New }, set: { X-Set: \"{client} {route} {path.rest}\" }, add: { X-Add: more } }, response: { set: { X-Served-By: crossway }, remove: [Content-Type] } } }",
    );
    let answer = gateway.send("GET /a/b", &[("X-Gone", "1"), ("X-Old", "2"), ("X-Set", "mine"), ("X-Plain", "3")], b"");
    assert_eq!((answer.header("x-served-by"), answer.header("content-type")), (Some("crossway"), None));
    let seen = upstream.only();
    assert_eq!(seen.header("x-gone"), None);
    assert_eq!((seen.header("x-old"), seen.header("x-new")), (None, Some("2")));
    assert_eq!(seen.header("x-set"), Some("127.0.0.1 all a/b"));
    assert_eq!((seen.header("x-add"), seen.header("x-plain")), (Some("more"), Some("3")));
}

#[test]
fn cors() {
    let upstream = Upstream::echo();
    let gateway = start(
        &upstream,
        "{ cors: { origins: [\"https://app.test\"], credentials: true, methods: [GET, PUT] } }, { api_key: {} }",
        "",
    );
    let preflight = |origin: &str| {
        gateway.send(
            "OPTIONS /x",
            &[("Origin", origin), ("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "x-a")],
            b"",
        )
    };
    let allowed = preflight("https://app.test");
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (204, Some("https://app.test")));
    assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
    for origin in ["https://evil.test", "null", "https://app.test.evil", "http://app.test", "https://app.test:8443"] {
        let refused = preflight(origin);
        assert_eq!(refused.header("access-control-allow-origin"), None, "{origin}");
        assert!(refused.header("vary").unwrap().to_lowercase().contains("origin"), "{origin}: {refused:?}");
    }
    let refused = gateway.send("GET /x", &[("Origin", "https://app.test")], b"");
    refused.assert_problem(401, "api_key_missing");
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some("https://app.test"),
        "a page can read why it was refused"
    );
    assert!(upstream.received().is_empty(), "a preflight ends at the gateway");
}

#[test]
fn ip_allow() {
    let upstream = Upstream::echo();
    let outside = open(&upstream, "{ ip_allow: { allow: [10.0.0.0/8] } }");
    outside.send("GET /", &[("X-Forwarded-For", "10.1.1.1")], b"").assert_problem(403, "ip_denied");
    let inside = open(&upstream, "{ ip_allow: { allow: [127.0.0.0/8], deny: [127.0.0.9] } }");
    assert_eq!(inside.get("/").status, 200);
    // Behind a trusted proxy the client is who the proxy says.
    let proxied = Gateway::start(
        "listeners: [{ name: public, address: \"127.0.0.1:0\", trusted_proxies: [127.0.0.0/8] }]
routes: [{ name: all, match: { path: / }, auth: none, plugins: [{ ip_allow: { allow: [10.0.0.0/8] } }, { respond: { status: 200 } }] }]\n",
    );
    let from = |list: &str| proxied.send("GET /", &[("X-Forwarded-For", list)], b"").status;
    assert_eq!(from("10.1.1.1"), 200);
    assert_eq!(from("6.6.6.6, 10.1.1.1"), 200);
    assert_eq!(from("10.1.1.1, 6.6.6.6"), 403);
    assert_eq!(from("::ffff:10.1.1.1"), 200);
    assert_eq!(from("10.1.1.1, garbage"), 403);
}

#[test]
fn body_limit() {
    let upstream = Upstream::echo();
    let gateway = open(&upstream, "{ body_limit: { max: 4B } }");
    assert_eq!(gateway.send("POST /", &[], b"four").json()["body"], "four");
    gateway.send("POST /", &[], b"fives").assert_problem(413, "body_too_large");
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn respond() {
    let gateway = Gateway::start(
        "routes:
  - { name: text, match: { path: /text }, auth: none, plugins: [{ respond: { status: 503, body: sorry, headers: { Retry-After: \"60\" } } }] }
  - { name: json, match: { path: /json }, auth: none, plugins: [{ respond: { status: 200, json: { a: [1, 2] } } }] }\n",
    );
    let text = gateway.get("/text");
    assert_eq!((text.status, text.text().as_str(), text.header("retry-after")), (503, "sorry", Some("60")));
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    let json = gateway.get("/json");
    assert_eq!(
        (json.header("content-type"), json.json()),
        (Some("application/json"), serde_json::json!({"a": [1, 2]}))
    );
}

/// An API key with its SHA-256, made here so that the two cannot drift apart.
fn key() -> (String, String) {
    let text = "alices-key".to_owned();
    let output =
        std::process::Command::new("sh").args(["-c", &format!("printf %s {text} | sha256sum")]).output().unwrap();
    (text, String::from_utf8(output.stdout).unwrap()[..64].to_owned())
}

#[test]
fn api_key() {
    let upstream = Upstream::echo();
    let (key, sha256) = key();
    let gateway = Gateway::start(&format!(
        "consumers: [{{ name: alice, groups: [gold, emea], credentials: [{{ api_key: {{ sha256: {sha256} }} }}] }}]
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, upstream: back, plugins: [{{ api_key: {{}} }}] }}]\n",
        upstream.address()
    ));
    gateway.get("/").assert_problem(401, "api_key_missing");
    let long = "x".repeat(600);
    for wrong in ["", "wrong", &key.to_uppercase(), &long, &format!("{key} ")[..key.len() - 1]] {
        let refused = gateway.send("GET /", &[("X-API-Key", wrong)], b"");
        refused.assert_problem(401, "api_key_invalid");
        assert!(refused.header("www-authenticate").is_some());
    }
    gateway.send("GET /", &[("X-API-Key", &key), ("X-API-Key", "other")], b"").assert_problem(401, "api_key_invalid");
    assert!(upstream.received().is_empty());
    let answer: Response = gateway.send("GET /", &[("X-API-Key", &key), ("X-Consumer-Name", "root")], b"");
    assert_eq!(answer.status, 200);
    let seen = upstream.only();
    assert_eq!((seen.header("x-consumer-name"), seen.header("x-consumer-groups")), (Some("alice"), Some("gold,emea")));
    assert_eq!(seen.header("x-api-key"), None);
}

/// More in `authorize.rs`.
#[test]
fn authorize() {
    let upstream = Upstream::echo();
    let open = open(&upstream, "{ authorize: { networks: [127.0.0.0/8], expression: \"request.method == 'GET'\" } }");
    assert_eq!(open.get("/").status, 200);
    open.send("POST /", &[], b"").assert_problem(403, "forbidden");
    let elsewhere = start(&upstream, "{ authorize: { networks: [10.0.0.0/8] } }", "auth: none,");
    elsewhere.get("/").assert_problem(403, "forbidden");
}

/// A gateway that asks for the key of a consumer in two fields.
fn two_keys(plugin: &str) -> Gateway {
    let (_, sha256) = key();
    Gateway::start(&format!(
        "consumers: [{{ name: alice, credentials: [{{ api_key: {{ sha256: {sha256} }} }}] }}]
routes: [{{ name: all, match: {{ path: / }}, plugins: [{{ {plugin}: [{{ api_key: {{}} }}, {{ api_key: {{ header: X-Too }} }}] }}, {{ respond: {{ status: 200 }} }}] }}]\n"
    ))
}

#[test]
fn any_of() {
    let (key, _) = key();
    let gateway = two_keys("any_of");
    assert_eq!(gateway.send("GET /", &[("X-Too", &key)], b"").status, 200);
    gateway.send("GET /", &[("X-Too", &key), ("X-API-Key", "wrong")], b"").assert_problem(401, "api_key_invalid");
    gateway.get("/").assert_problem(401, "credential_missing");
}

#[test]
fn all_of() {
    let (key, _) = key();
    let gateway = two_keys("all_of");
    assert_eq!(gateway.send("GET /", &[("X-Too", &key), ("X-API-Key", &key)], b"").status, 200);
    gateway.send("GET /", &[("X-Too", &key)], b"").assert_problem(401, "api_key_missing");
    gateway.get("/").assert_problem(401, "credential_missing");
}

#[test]
fn jwt() {
    let upstream = Upstream::echo();
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/plugins/jwt.yaml")).unwrap();
    let token = example.lines().find_map(|line| line.strip_prefix("#   ey")).unwrap();
    let pem = example.lines().find(|line| line.trim().starts_with("MC")).unwrap().trim();
    let gateway = start(
        &upstream,
        &format!(
            "{{ jwt: {{ issuers: [{{ issuer: \"https://demo.example.com\", algorithms: [EdDSA], audiences: [orders-api],
                public_key: \"-----BEGIN PUBLIC KEY-----\\n{pem}\\n-----END PUBLIC KEY-----\" }}],
                forward: {{ claims: {{ sub: X-User-Id }} }} }} }}"
        ),
        "",
    );
    let missing = gateway.get("/");
    missing.assert_problem(401, "jwt_missing");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"crossway\""));
    gateway.send("GET /", &[("Authorization", "Bearer x")], b"").assert_problem(401, "jwt_invalid");
    let bearer = format!("Bearer ey{token}");
    let answer = gateway.send("GET /", &[("Authorization", &bearer), ("X-User-Id", "root")], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = upstream.only();
    assert_eq!((seen.header("x-user-id"), seen.header("authorization")), (Some("acme-app"), None));
}

#[test]
fn a_key_that_a_reload_removes_is_refused_on_an_open_connection() {
    let upstream = Upstream::echo();
    let (key, sha256) = key();
    let config = |sha256: &str| {
        format!(
            "consumers: [{{ name: alice, credentials: [{{ api_key: {{ sha256: {sha256} }} }}] }}]
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: / }}, upstream: back, plugins: [{{ api_key: {{}} }}] }}]\n",
            upstream.address()
        )
    };
    let mut gateway = Gateway::start(&config(&sha256));
    let mut connection = crate::harness::Connection::open(&gateway.address());
    let request = format!("GET / HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\n\r\n");
    connection.send(request.as_bytes());
    assert_eq!(connection.read("GET").unwrap().status, 200);
    assert_eq!(gateway.reload(&config(&"0".repeat(64))).status, 200);
    connection.send(request.as_bytes());
    connection.read("GET").unwrap().assert_problem(401, "api_key_invalid");
}

#[test]
fn rate_limit() {
    let upstream = Upstream::echo();
    let policy = "{ name: each, key: [client], limit: 2, per: 1h }";
    let gateway =
        open(&upstream, &format!("{{ rate_limit: {{ policies: [{policy}] }}, when: {{ methods: [POST] }} }}"));
    let statuses = ["POST /", "POST /", "POST /", "GET /"].map(|line| gateway.send(line, &[], b"").status);
    assert_eq!(statuses, [200, 200, 429, 200]);
    gateway.send("POST /", &[], b"").assert_problem(429, "rate_limited");
}

#[test]
fn concurrency() {
    let gate = Gate::start();
    let limit = "{ concurrency: { key: [route], max_in_flight: 1 } }";
    let gateway = Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back, plugins: [{limit}] }}]\n",
        gate.address()
    ));
    let mut first = Connection::open(&gateway.address());
    first.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is there", || (gate.inside() == 1).then_some(()));
    let refused = gateway.get("/second");
    refused.assert_problem(503, "concurrency_full");
    assert!(refused.header("retry-after").is_some());
    gate.let_go(1);
    assert_eq!(first.read("GET").unwrap().status, 200);
    assert_eq!(gateway.get("/third").status, 200);
}

#[test]
fn conditions_decide_where_a_plugin_runs() {
    let gateway = Gateway::start(
        "plugins:
  - headers: { response: { set: { X-Global: \"1\" } } }
    id: global
routes:
  - name: some
    match: { path: \"/{rest...}\" }
    auth: none
    plugins:
      - headers: { response: { set: { X-Debug: \"1\" } } }
        id: debug
        when: { methods: [GET], headers: { X-Env: \"dev*\" }, query: { debug: \"1\" }, paths: [\"/a/*\"], client: [127.0.0.0/8] }
      - respond: { status: 200 }
  - { name: bare, match: { path: /bare }, auth: none, without: [global], plugins: [{ respond: { status: 200 } }] }
",
    );
    let debug = |request: &str, env: &str| gateway.send(request, &[("X-Env", env)], b"").header("x-debug").is_some();
    assert!(debug("GET /a/b?debug=1", "dev-3"));
    assert!(!debug("POST /a/b?debug=1", "dev-3"));
    assert!(!debug("GET /b/b?debug=1", "dev-3"));
    assert!(!debug("GET /a/b?debug=2", "dev-3"));
    assert!(!debug("GET /a/b?debug=1", "prod"));
    assert_eq!(gateway.get("/a/b").header("x-global"), Some("1"));
    assert_eq!(gateway.get("/bare").header("x-global"), None);
    assert_eq!(gateway.send("GET //nowhere/%2f", &[], b"").header("x-global"), Some("1"), "on refusals too");
}
