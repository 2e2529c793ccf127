//! API keys that are issued at run time.

use std::{
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{BINARY, Connection, Folder, Gateway, Redis, Response, Upstream, eventually};

mod many;
mod shared;

/// Routes that want a key and answer with the consumer's name, for `acme` and `lone`.
fn config(upstream: &Upstream, stores: &str) -> String {
    with_consumers(upstream, stores, "[{ name: acme, groups: [gold] }, { name: lone }]")
}

fn with_consumers(upstream: &Upstream, stores: &str, consumers: &str) -> String {
    format!(
        "stores: {stores}
consumers: {consumers}
telemetry: {{ access_log: {{ to: \"file:access.log\" }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes:
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, upstream: back, plugins: [{{ api_key: {{ query: k, cookie: c }} }}] }}
  - {{ name: open, match: {{ path: /open }}, auth: none, plugins: [{{ respond: {{ status: 200 }} }}] }}\n",
        upstream.address()
    )
}

const LOCAL: &str = "{ local: { path: store.redb } }";

/// A new key: its id and its text.
fn create(gateway: &Gateway, body: &str) -> (String, String) {
    let answer = gateway.admin_send("POST /api/keys", body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    text_of(&answer)
}

fn text_of(answer: &Response) -> (String, String) {
    let body = answer.json();
    (body["id"].as_str().unwrap().to_owned(), body["key"].as_str().unwrap().to_owned())
}

fn with_key(gateway: &Gateway, key: &str) -> Response {
    gateway.send("GET /items", &[("X-API-Key", key)], b"")
}

fn listed(gateway: &Gateway) -> Vec<Value> {
    let answer = gateway.admin("GET /api/keys");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().contains("cw_"), "no key is shown twice");
    answer.json()["keys"].as_array().unwrap().clone()
}

fn found(gateway: &Gateway, id: &str) -> Value {
    listed(gateway).into_iter().find(|key| key["id"] == id).unwrap_or_else(|| panic!("{id} is not listed"))
}

#[test]
fn a_key_is_made_used_listed_replaced_and_taken_back() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&config(&upstream, LOCAL));
    let (id, key) = create(&gateway, r#"{"consumer": "acme", "label": "billing", "expires_in": "90d"}"#);
    let mut connection = Connection::open(&gateway.address());
    let mut asks = |key: &str| {
        connection.send(format!("GET / HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\n\r\n").as_bytes());
        connection.read("GET").unwrap()
    };
    assert_eq!(asks(&key).status, 200);
    let seen = upstream.only();
    assert_eq!((seen.header("x-consumer-name"), seen.header("x-consumer-groups")), (Some("acme"), Some("gold")));
    assert_eq!(seen.header("x-api-key"), None);
    let shown = found(&gateway, &id);
    assert_eq!(
        (&shown["consumer"], &shown["label"], &shown["state"]),
        (&"acme".into(), &"billing".into(), &"active".into())
    );
    assert!(shown["last_used"].is_string() && shown["expires"].is_string(), "{shown}");
    // A mistyped one.
    let mut wrong = key.clone().into_bytes();
    wrong[20] = if wrong[20] == b'a' { b'b' } else { b'a' };
    asks(std::str::from_utf8(&wrong).unwrap()).assert_problem(401, "api_key_invalid");
    // Replaced, both are good for a while; then only the new one.
    let rotated = gateway.admin_send(&format!("POST /api/keys/{id}/rotate"), r#"{"overlap": "1s"}"#);
    let began = Instant::now();
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    let (next_id, next) = text_of(&rotated);
    let early = asks(&key).status;
    assert!(early == 200 || began.elapsed() > Duration::from_millis(900), "{early}");
    assert_eq!(asks(&next).status, 200);
    assert_eq!(found(&gateway, &id)["replaced_by"], next_id.as_str());
    eventually("the overlap is over", || (asks(&key).status == 401).then_some(()));
    assert_eq!(found(&gateway, &id)["state"], "expired");
    assert_eq!(asks(&next).status, 200);
    // Taken back, on the same connection.
    let revoked = gateway.admin(&format!("DELETE /api/keys/{next_id}"));
    assert_eq!((revoked.status, &revoked.json()["state"]), (200, &"revoked".into()));
    let refused = asks(&next);
    refused.assert_problem(401, "api_key_invalid");
    assert_eq!(refused.header("www-authenticate"), Some("Key realm=\"crossway\""));
    assert_eq!(gateway.metric("crossway_issued_keys"), 2.0);
}

#[test]
fn keys_expire() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&config(&upstream, LOCAL));
    let (id, key) = create(&gateway, r#"{"consumer": "acme", "expires_in": "2s"}"#);
    assert_eq!(with_key(&gateway, &key).status, 200);
    eventually("the key expires", || (with_key(&gateway, &key).status == 401).then_some(()));
    assert_eq!(found(&gateway, &id)["state"], "expired");
    let refused = gateway.admin_send(&format!("POST /api/keys/{id}/rotate"), "");
    refused.assert_problem(409, "key_ended");
}

#[test]
fn keys_survive_a_restart_and_a_crash() {
    let upstream = Upstream::echo();
    let mut gateway = Gateway::start(&config(&upstream, LOCAL));
    let (id, key) = create(&gateway, r#"{"consumer": "acme"}"#);
    let (revoked, gone) = create(&gateway, r#"{"consumer": "lone"}"#);
    assert_eq!(gateway.admin(&format!("DELETE /api/keys/{revoked}")).status, 200);
    gateway.crash_and_start();
    with_key(&gateway, &gone).assert_problem(401, "api_key_invalid");
    assert_eq!(found(&gateway, &id)["last_used"], Value::Null);
    assert_eq!(with_key(&gateway, &key).status, 200);
    // What a calm end keeps beside: the last use.
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    gateway.start_again();
    assert!(found(&gateway, &id)["last_used"].is_string());
    assert_eq!(found(&gateway, &revoked)["state"], "revoked");
    assert_eq!(with_key(&gateway, &key).status, 200);
    // And so does a crash, once a few seconds have passed.
    let (late, late_key) = create(&gateway, r#"{"consumer": "lone"}"#);
    assert_eq!(with_key(&gateway, &late_key).status, 200);
    crate::harness::pass(Duration::from_secs(7));
    gateway.crash_and_start();
    assert!(found(&gateway, &late)["last_used"].is_string(), "last uses are written in batches");
}

#[test]
fn a_key_of_a_consumer_that_is_gone_is_refused_and_shown_as_such() {
    let upstream = Upstream::echo();
    let mut gateway = Gateway::start(&config(&upstream, LOCAL));
    let (id, key) = create(&gateway, r#"{"consumer": "lone"}"#);
    assert_eq!(with_key(&gateway, &key).status, 200);
    assert_eq!(gateway.reload(&with_consumers(&upstream, LOCAL, "[{ name: acme }]")).status, 200);
    with_key(&gateway, &key).assert_problem(401, "api_key_invalid");
    assert_eq!(found(&gateway, &id)["state"], "no_consumer");
    assert_eq!(gateway.reload(&config(&upstream, LOCAL)).status, 200);
    assert_eq!(with_key(&gateway, &key).status, 200);
    // Where keys are kept is fixed.
    let refused = gateway.reload(&config(&upstream, "{ local: { path: other.redb } }"));
    assert!(refused.status == 422 && refused.text().contains("fixed at start"), "{}", refused.text());
}

#[test]
fn a_key_may_stand_in_one_place_only_and_is_seen_nowhere_else() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&config(&upstream, LOCAL));
    let (_, key) = create(&gateway, r#"{"consumer": "acme"}"#);
    let in_query = format!("GET /items?a=1&k={key}&b=%20");
    assert_eq!(gateway.send(&in_query, &[], b"").status, 200);
    assert_eq!(upstream.only().target, "/items?a=1&b=%20");
    let cookies = format!("a=1; c={key}; b=2");
    assert_eq!(gateway.send("GET /items", &[("Cookie", &cookies)], b"").status, 200);
    assert_eq!(upstream.received()[1].header("cookie"), Some("a=1; b=2"));
    for fields in [&[("X-API-Key", key.as_str())][..], &[("Cookie", &cookies)]] {
        gateway.send(&in_query, fields, b"").assert_problem(401, "api_key_invalid");
    }
    let twice = [("X-API-Key", key.as_str()), ("Cookie", &cookies)];
    gateway.send("GET /items", &twice, b"").assert_problem(401, "api_key_invalid");
    // Where nobody looks for a key, it is not logged either.
    assert_eq!(gateway.send(&format!("GET /open?k={key}"), &[], b"").status, 200);
    assert_eq!(upstream.received().len(), 2);
    let log = eventually("the requests are logged", || {
        let log = std::fs::read_to_string(gateway.folder().join("access.log")).unwrap_or_default();
        (log.lines().count() >= 6).then_some(log)
    });
    let text = key.split('_').nth(2).unwrap();
    assert!(!log.contains(text), "{log}");
    assert!(log.contains("\"detail\":\"there is more than one key\""), "why it was refused: {log}");
    assert!(!gateway.stderr().contains(text));
    assert!(!String::from_utf8_lossy(&std::fs::read(gateway.folder().join("store.redb")).unwrap()).contains(text));
}

#[test]
fn what_is_wrong_with_a_request_for_keys_is_said() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&config(&upstream, LOCAL));
    let (id, _) = create(&gateway, r#"{"consumer": "acme"}"#);
    let long = format!(r#"{{"consumer": "acme", "label": "{}"}}"#, "x".repeat(129));
    let large = format!(r#"{{"consumer": "acme", "label": "{}"}}"#, "x".repeat(17_000));
    let rotate = format!("POST /api/keys/{id}/rotate");
    for (request, body, status, code) in [
        ("POST /api/keys", "", 400, "bad_request"),
        ("POST /api/keys", "{", 400, "bad_request"),
        ("POST /api/keys", r#"{"consumer": "acme"} {}"#, 400, "bad_request"),
        ("POST /api/keys", "{}", 400, "bad_request"),
        ("POST /api/keys", r#"{"consumer": "acme", "sha256": "x"}"#, 400, "bad_request"),
        ("POST /api/keys", r#"{"consumer": "acme", "expires_in": "soon"}"#, 400, "bad_request"),
        ("POST /api/keys", r#"{"consumer": "acme", "expires_in": "0s"}"#, 400, "bad_request"),
        ("POST /api/keys", r#"{"consumer": "acme", "expires_in": "11y"}"#, 400, "bad_request"),
        ("POST /api/keys", r#"{"consumer": "acme", "label": ""}"#, 400, "bad_request"),
        ("POST /api/keys", r#"{"consumer": "acme", "label": "a\u0007"}"#, 400, "bad_request"),
        ("POST /api/keys", &long, 400, "bad_request"),
        ("POST /api/keys", &large, 413, "body_too_large"),
        ("POST /api/keys", r#"{"consumer": "nobody"}"#, 422, "consumer_unknown"),
        ("GET /api/keys?limit=0", "", 400, "bad_request"),
        ("GET /api/keys?limit=x", "", 400, "bad_request"),
        ("GET /api/keys?page=2", "", 400, "bad_request"),
        ("PUT /api/keys", "", 405, "method_not_allowed"),
        ("POST /api/keys/abcdefghijkl/rotate", "", 404, "key_unknown"),
        ("DELETE /api/keys/%00..%2F", "", 404, "key_unknown"),
        (&rotate, r#"{"overlap": "-1s"}"#, 400, "bad_request"),
        (&rotate, r#"{"overlap": null, "x": 1}"#, 400, "bad_request"),
    ] {
        gateway.admin_send(request, body).assert_problem(status, code);
    }
    for request in ["GET /api/keys", "POST /api/keys", &rotate, &format!("DELETE /api/keys/{id}")] {
        gateway.admin_with(request, &[]).assert_problem(401, "token_required");
    }
    assert_eq!(gateway.admin_send(&rotate, "").status, 201);
    gateway.admin_send(&rotate, "").assert_problem(409, "key_replaced");
    assert_eq!(listed(&gateway).len(), 2);
    let without = Gateway::start(&config(&upstream, "{}"));
    without.admin("GET /api/keys").assert_problem(404, "keys_off");
    without.admin_send("POST /api/keys", r#"{"consumer": "acme"}"#).assert_problem(404, "keys_off");
}

#[test]
fn lists_have_pages() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&config(&upstream, LOCAL));
    let mut made: Vec<String> = (0..5).map(|_| create(&gateway, r#"{"consumer": "acme"}"#).0).collect();
    create(&gateway, r#"{"consumer": "lone"}"#);
    made.sort();
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = gateway.admin(&format!("GET /api/keys?consumer=acme&limit=2&after={after}")).json();
        seen.extend(page["keys"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    assert_eq!(seen, made);
}

#[test]
fn a_store_that_is_full_or_has_enough_keys_says_so() {
    let upstream = Upstream::echo();
    let text = config(&upstream, "{ local: { path: store.redb, max_size: 8MiB } }");
    let gateway = Gateway::start(&format!("{text}keys: {{ max: 3 }}\n"));
    let keys: Vec<_> = (0..3).map(|_| create(&gateway, r#"{"consumer": "acme"}"#)).collect();
    gateway.admin_send("POST /api/keys", r#"{"consumer": "acme"}"#).assert_problem(507, "keys_full");
    assert_eq!(gateway.admin(&format!("DELETE /api/keys/{}", keys[0].0)).status, 200, "what is there can be changed");
    assert_eq!(with_key(&gateway, &keys[1].1).status, 200);
}

fn crossway(gateway: &Gateway, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("keys").args(arguments).env("CROSSWAY_CONFIG", gateway.config());
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_command_line_does_all_of_it() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&config(&upstream, LOCAL));
    let good = |arguments: &[&str]| {
        let output = crossway(&gateway, arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {said}");
        (String::from_utf8(output.stdout).unwrap(), said)
    };
    let (key, said) = good(&["create", "acme", "--label", "billing", "--expires-in", "90d"]);
    let key = key.trim_end();
    assert!(said.contains("acme") && said.contains("good until") && !said.contains(key), "{said}");
    assert_eq!(with_key(&gateway, key).status, 200);
    let id = key.split('_').nth(1).unwrap();
    let (next, _) = good(&["rotate", id, "--overlap", "1h"]);
    assert_eq!(with_key(&gateway, next.trim_end()).status, 200);
    let (list, _) = good(&["list", "--consumer", "acme"]);
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.starts_with("id ") && list.contains(id) && list.contains("active"), "{list}");
    let (list, _) = good(&["list", "--json"]);
    let first: Value = serde_json::from_str(list.lines().next().unwrap()).unwrap();
    assert_eq!(first["label"], "billing");
    good(&["revoke", id]);
    with_key(&gateway, key).assert_problem(401, "api_key_invalid");
    for (arguments, said) in [
        (&["create", "nobody"][..], "no consumer of this name"),
        (&["create", "acme", "--expires-in", "soon"], "expires_in"),
        (&["revoke", "abcdefghijkl"], "no key of this id"),
        (&["rotate", id], "revoked"),
    ] {
        let output = crossway(&gateway, arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && text.contains(said), "{arguments:?}: {text}");
    }
    assert_eq!(crossway(&gateway, &[]).status.code(), Some(2));
}

#[test]
fn a_file_that_cannot_be_had_ends_the_start_with_its_place() {
    let upstream = Upstream::echo();
    let first = Gateway::start(&config(&upstream, LOCAL));
    let folder = tempfile::tempdir().unwrap();
    let start = |path: &str| {
        let text = config(&upstream, &format!("{{ local: {{ path: \"{path}\" }} }}"));
        let file = folder.path().join("c.yaml");
        std::fs::write(&file, format!("listeners: [{{ name: public, address: \"127.0.0.1:0\" }}]\n{text}")).unwrap();
        let output = Command::new(BINARY).args(["run", "-c"]).arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    std::fs::write(folder.path().join("text"), "no database").unwrap();
    let taken = first.folder().join("store.redb").display().to_string();
    for (path, why) in [("nowhere/store", "No such file"), ("text", "cannot be opened"), (&taken, "another process")] {
        let (code, said) = start(path);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("c.yaml:2:") && said.contains(why), "{said}");
    }
    // A check opens nothing.
    let file = folder.path().join("c.yaml");
    let checked = Command::new(BINARY).arg("check").arg(&file).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
