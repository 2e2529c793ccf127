//! Who may do what: `authorize` behind plugins that establish who is calling, alone and in lists.

use crate::harness::{Gateway, Response, Upstream};

/// Keys of the consumers below, each with its SHA-256.
const ALICE: (&str, &str) = ("key-of-alice", "d16a80956c32f3f5fb979bea408abac8c3eef6c54ecb234279e337146cf87b47");
const ALICE_TOO: (&str, &str) =
    ("other-key-of-alice", "ed2581d17b12f8764f2a492ae1b96960ba4bf83a10d4b8187fe522bb212e45c5");
const BOB: (&str, &str) = ("key-of-bob", "808a1d81b5de08d72083995df738947d519d230a20c236003268f0f4b65ee475");

/// A gateway with two consumers and one route, `/{tenant}/{rest...}`, with these plugins.
fn start(upstream: &Upstream, plugins: &str) -> Gateway {
    start_with(upstream, plugins, "")
}

/// Like [`start`], for a route that serves anonymous callers too.
fn start_open(upstream: &Upstream, plugins: &str) -> Gateway {
    start_with(upstream, plugins, "auth: none")
}

fn start_with(upstream: &Upstream, plugins: &str, auth: &str) -> Gateway {
    Gateway::start(&format!(
        "consumers:
  - {{ name: alice, groups: [gold], metadata: {{ tier: \"2\" }}, credentials: [{{ api_key: {{ sha256: {} }} }}, {{ api_key: {{ sha256: {} }} }}] }}
  - {{ name: bob, groups: [readers], credentials: [{{ api_key: {{ sha256: {} }} }}] }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes:
  - name: all
    match: {{ path: \"/{{tenant}}/{{rest...}}\" }}
    upstream: back
    {auth}
    plugins: [{plugins}]\n",
        ALICE.1,
        ALICE_TOO.1,
        BOB.1,
        upstream.address()
    ))
}

fn as_caller(gateway: &Gateway, line: &str, key: (&str, &str)) -> Response {
    gateway.send(line, &[("X-API-Key", key.0)], b"")
}

/// Statuses of the requests, each by a caller.
fn statuses(gateway: &Gateway, requests: &[(&str, (&str, &str))]) -> Vec<u16> {
    requests.iter().map(|(line, key)| as_caller(gateway, line, *key).status).collect()
}

#[test]
fn groups_may_use_their_methods_and_paths() {
    let upstream = Upstream::echo();
    let groups =
        "{ api_key: {} }, { authorize: { groups: { gold: {}, readers: { methods: [GET], paths: [\"/a/*\"] } } } }";
    let gateway = start(&upstream, groups);
    let requests = [
        ("DELETE /b/x", ALICE),
        ("GET /a/x", BOB),
        ("HEAD /a/x", BOB),
        ("POST /a/x", BOB),
        ("GET /b/x", BOB),
        ("GET /b/../a/x", BOB),
        ("GET /a/../b/x", BOB),
        ("GET /%61/x", BOB),
    ];
    assert_eq!(statuses(&gateway, &requests), [200, 200, 200, 403, 403, 200, 403, 200]);
    assert_eq!(upstream.received().len(), 5, "what is refused never gets there");
    let refused = as_caller(&gateway, "POST /a/x", BOB);
    refused.assert_problem(403, "forbidden");
    assert_eq!(refused.header("www-authenticate"), None);
    assert_eq!(refused.json()["detail"], "The caller may not do this.");
    let forged = [("X-API-Key", BOB.0), ("X-Consumer-Groups", "gold"), ("X-Consumer-Name", "alice")];
    gateway.send("POST /a/x", &forged, b"").assert_problem(403, "forbidden");
    gateway.get("/a/x").assert_problem(401, "api_key_missing");
}

#[test]
fn consumers_networks_and_parameters() {
    let upstream = Upstream::echo();
    let of = |settings: &str| start(&upstream, &format!("{{ api_key: {{}} }}, {{ authorize: {{ {settings} }} }}"));
    let both = [("GET /alice/x", ALICE), ("GET /alice/x", BOB)];
    assert_eq!(statuses(&of("consumers: [alice]"), &both), [200, 403]);
    assert_eq!(statuses(&of("params: { tenant: consumer:name }"), &both), [200, 403]);
    assert_eq!(statuses(&of("params: { tenant: consumer:name }"), &[("GET /%61lice/x", ALICE)]), [200]);
    assert_eq!(statuses(&of("networks: [127.0.0.0/8]"), &both), [200, 200]);
    let outside = of("networks: [10.0.0.0/8]");
    assert_eq!(statuses(&outside, &both), [403, 403]);
    let forwarded = [("X-API-Key", ALICE.0), ("X-Forwarded-For", "10.1.1.1")];
    assert_eq!(outside.send("GET /alice/x", &forwarded, b"").status, 403, "a client does not choose its address");
    assert_eq!(statuses(&of("networks: [127.0.0.0/8], consumers: [bob]"), &both), [403, 200]);
}

#[test]
fn an_expression_decides() {
    let upstream = Upstream::echo();
    let text = "params.tenant == consumer.name && (request.method == 'GET' || int(consumer.metadata.tier) > 1) \
                && request.headers['x-mode'].matches('^(a|b)$') && client.address.startsWith('127.')";
    let gateway = start(&upstream, &format!("{{ api_key: {{}} }}, {{ authorize: {{ expression: \"{text}\" }} }}"));
    let send = |line: &str, key: (&str, &str), modes: &[&str]| {
        let mut fields = vec![("X-API-Key", key.0)];
        fields.extend(modes.iter().map(|mode| ("X-Mode", *mode)));
        gateway.send(line, &fields, b"").status
    };
    assert_eq!(send("POST /alice/x", ALICE, &["a"]), 200);
    assert_eq!(send("GET /bob/x", BOB, &["b"]), 200);
    assert_eq!(send("POST /bob/x", BOB, &["b"]), 403, "bob has no tier: what fails denies");
    assert_eq!(send("GET /alice/x", BOB, &["a"]), 403);
    assert_eq!(send("GET /bob/x", BOB, &["c"]), 403);
    assert_eq!(send("GET /bob/x", BOB, &[]), 403);
    assert_eq!(send("GET /bob/x", BOB, &["a", "b"]), 403, "a second field hides nothing");
}

#[test]
fn an_anonymous_caller_is_told_how_to_come_in() {
    let upstream = Upstream::echo();
    let optional = "{ api_key: {}, required: false }, { authorize: { expression: \"EXPRESSION\" } }";
    let gateway =
        start_open(&upstream, &optional.replace("EXPRESSION", "has(consumer.name) || request.method == 'GET'"));
    assert_eq!(gateway.get("/a/x").status, 200);
    let refused = gateway.send("POST /a/x", &[], b"");
    refused.assert_problem(401, "api_key_missing");
    assert_eq!(refused.header("www-authenticate"), Some("Key realm=\"crossway\""));
    assert_eq!(as_caller(&gateway, "POST /a/x", ALICE).status, 200);
    as_caller(&gateway, "GET /a/x", ("wrong", "")).assert_problem(401, "api_key_invalid");
    let gateway = start_open(&upstream, &optional.replace("EXPRESSION", "request.method == 'GET'"));
    gateway.send("POST /a/x", &[], b"").assert_problem(403, "forbidden");
}

const TWO: &str = "[{ api_key: {} }, { api_key: { header: X-Other-Key } }]";

#[test]
fn one_of_several_credentials_is_enough() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, &format!("{{ any_of: {TWO} }}, {{ authorize: {{ consumers: [alice] }} }}"));
    let send = |fields: &[(&str, &str)]| gateway.send("GET /a/x", fields, b"");
    assert_eq!(send(&[("X-API-Key", ALICE.0)]).status, 200);
    assert_eq!(upstream.only().header("x-consumer-name"), Some("alice"));
    assert_eq!(send(&[("X-Other-Key", ALICE.0)]).status, 200);
    send(&[("X-Other-Key", BOB.0)]).assert_problem(403, "forbidden");
    send(&[("X-API-Key", BOB.0), ("X-Other-Key", ALICE.0)]).assert_problem(403, "forbidden");
    send(&[("X-API-Key", "wrong"), ("X-Other-Key", ALICE.0)]).assert_problem(401, "api_key_invalid");
    send(&[("X-Other-Key", "wrong")]).assert_problem(401, "api_key_invalid");
    let nothing = send(&[]);
    nothing.assert_problem(401, "credential_missing");
    assert_eq!(nothing.header("www-authenticate"), Some("Key realm=\"crossway\""));
    let optional = start_open(
        &upstream,
        &format!("{{ any_of: {TWO}, required: false }}, {{ authorize: {{ groups: {{ gold: {{}} }} }} }}"),
    );
    optional.get("/a/x").assert_problem(401, "credential_missing");
    assert_eq!(as_caller(&optional, "GET /a/x", ALICE).status, 200);
}

#[test]
fn all_credentials_must_be_of_one_caller() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, &format!("{{ all_of: {TWO} }}"));
    let send = |fields: &[(&str, &str)]| gateway.send("GET /a/x", fields, b"");
    assert_eq!(send(&[("X-API-Key", ALICE.0), ("X-Other-Key", ALICE_TOO.0)]).status, 200);
    let seen = upstream.only();
    assert_eq!((seen.header("x-consumer-name"), seen.header("x-other-key")), (Some("alice"), None));
    send(&[("X-API-Key", ALICE.0), ("X-Other-Key", BOB.0)]).assert_problem(403, "credentials_differ");
    send(&[("X-API-Key", ALICE.0)]).assert_problem(401, "api_key_missing");
    send(&[("X-Other-Key", ALICE.0)]).assert_problem(401, "api_key_missing");
    send(&[("X-API-Key", ALICE.0), ("X-Other-Key", "wrong")]).assert_problem(401, "api_key_invalid");
    send(&[]).assert_problem(401, "credential_missing");
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_part_of_the_credentials_does_not_pass_where_none_does() {
    let upstream = Upstream::echo();
    let gateway = start_open(
        &upstream,
        &format!(
            "{{ all_of: {TWO}, required: false }}, {{ authorize: {{ expression: \"!has(consumer.name) || consumer.name == 'alice'\" }} }}"
        ),
    );
    let send = |fields: &[(&str, &str)]| gateway.send("GET /a/x", fields, b"");
    assert_eq!(send(&[]).status, 200);
    send(&[("X-API-Key", BOB.0)]).assert_problem(401, "api_key_missing");
    assert_eq!(upstream.received().len(), 1);
}
