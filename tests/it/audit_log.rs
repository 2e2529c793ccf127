//! The audit log: who was refused, what operators did, and how the process lived.

mod files;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use base64::Engine as _;
use rustls::ALL_VERSIONS;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Connection, Folder, Gateway, Killed, Secure, Trust, closed_address, eventually, frames, raw, websocket,
};

const ALICE: (&str, &str) = ("key-of-alice", "d16a80956c32f3f5fb979bea408abac8c3eef6c54ecb234279e337146cf87b47");

/// A folder with the log in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("audit.log")
    }

    /// A configuration with these routes and sections beside the log.
    fn config(&self, routes: &str, more: &str) -> String {
        format!(
            "listeners: [{{ name: public, address: \"127.0.0.1:0\", http2: true }}]
consumers: [{{ name: alice, groups: [silver], credentials: [{{ api_key: {{ sha256: {} }} }}] }}, {{ name: bob, groups: [gold] }}]
upstreams: {{ nowhere: {{ endpoints: [{{ address: \"127.0.0.1:9\" }}] }} }}
telemetry: {{ audit_log: {{ to: \"file:{}\" }} }}
routes:
{ROUTES}{routes}
{more}\n",
            ALICE.1,
            self.log().display()
        )
    }

    fn start(&self, routes: &str, more: &str) -> Gateway {
        Gateway::start(&self.config(routes, more))
    }

    fn records(&self) -> Vec<Value> {
        records(&self.log())
    }

    /// Waits for so many records of an event, and gives all of it.
    #[track_caller]
    fn wait_for(&self, event: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} records of {event}"), || {
            Some(of(&self.records(), event)).filter(|r| r.len() >= count)
        })
    }

    /// All records of an event, once everything that came before has been written.
    fn all_of(&self, gateway: &Gateway, event: &str) -> Vec<Value> {
        gateway.admin("GET /mark");
        eventually("the mark is written", || {
            let all = self.records();
            all.iter().any(|record| record["target"] == "/mark").then(|| of(&all, event))
        })
    }
}

const ROUTES: &str = "  - { name: open, match: { path: /open }, auth: none, plugins: [{ respond: { status: 200 } }] }
  - { name: keyed, match: { path: \"/keyed/{rest...}\" }, plugins: [{ api_key: { query: k, cookie: c } }, { respond: { status: 200 } }] }
  - { name: socket, match: { path: /socket }, websocket: {}, upstream: nowhere, plugins: [{ api_key: {} }] }
  - { name: hook, match: { path: /hook }, upstream: nowhere, plugins: [{ hmac_signature: { style: github, secrets: [hook-s3cret] } }] }
  - { name: gold, match: { path: /gold }, plugins: [{ api_key: {} }, { id: who, authorize: { groups: { gold: {} } } }, { respond: { status: 200 } }] }
  - { name: near, match: { path: /near }, auth: none, plugins: [{ ip_allow: { deny: [127.0.0.0/8] } }, { respond: { status: 200 } }] }
";

fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map(|(whole, _)| whole).unwrap_or_default();
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn of(records: &[Value], event: &str) -> Vec<Value> {
    records.iter().filter(|record| record["event"] == event).cloned().collect()
}

/// Checks these fields of a record.
#[track_caller]
fn has(record: &Value, fields: &Value) {
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(&record[name], value, "{name}: {record}");
    }
    let time = record["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");
}

/// The stream's answer.
fn asked(gateway: &Gateway, path: &str, extra: &[(&str, &str)]) {
    let mut http2 = frames::Http2::open(&gateway.address());
    let mut fields = frames::request(if extra.is_empty() { "GET" } else { "POST" }, path);
    fields.extend(extra);
    assert!(http2.ask(1, &fields));
    assert!(matches!(http2.end_of(1), frames::End::Answer(_)));
}

#[test]
fn refusals_are_recorded_over_every_protocol_and_nothing_else() {
    let place = Place::new();
    let gateway = place.start("", "");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = gateway.send("GET /keyed/a/../b?k=wr0ng", &[("Traceparent", trace)], b"");
    answer.assert_problem(401, "api_key_invalid");
    let id = answer.json()["request_id"].clone();
    gateway.send("GET /gold", &[("X-API-Key", ALICE.0)], b"").assert_problem(403, "forbidden");
    gateway.get("/near").assert_problem(403, "ip_denied");
    raw(&gateway.address(), b"GET /keyed/old HTTP/1.0\r\nHost: t\r\n\r\n", std::time::Duration::from_secs(20));
    asked(&gateway, "/keyed/two", &[]);
    asked(&gateway, "/keyed/call", &[("content-type", "application/grpc"), ("te", "trailers")]);
    assert_eq!(websocket::ask(&gateway.address(), "/socket", "").status, 401);
    let signature = format!("sha256={}", "0".repeat(64));
    let hook = gateway.send("POST /hook", &[("X-Hub-Signature-256", &signature)], b"{}");
    hook.assert_problem(401, "signature_invalid");
    // Not refused by a plugin, or not refused.
    for target in ["/open", "/nowhere"] {
        gateway.get(target);
        asked(&gateway, target, &[]);
    }
    assert_eq!(gateway.send("GET /keyed/x", &[("X-API-Key", ALICE.0)], b"").status, 200);
    let all = place.all_of(&gateway, "request.refused");
    assert_eq!(all.len(), 8, "{all:#?}");
    let by =
        |path: &str| all.iter().find(|record| record["path"] == path).unwrap_or_else(|| panic!("{path}: {all:#?}"));
    let wrong = by("/keyed/b");
    has(
        wrong,
        &json!({
            "outcome": "denied", "actor": "anonymous", "source": "127.0.0.1", "target": "keyed", "listener": "public",
            "protocol": "HTTP/1.1", "method": "GET", "host": "gateway.test", "plugin": "api_key", "plugin_id": null,
            "code": "api_key_invalid", "status": 401, "trace_id": "0af7651916cd43dd8448eb211c80319c",
        }),
    );
    assert!(!wrong["reason"].as_str().unwrap().is_empty());
    assert!(id.is_string() && wrong["request_id"] == id, "{wrong}");
    has(
        by("/near"),
        &json!({ "target": "near", "plugin": "ip_allow", "status": 403, "reason": "the address is denied" }),
    );
    has(by("/keyed/old"), &json!({ "protocol": "HTTP/1.0", "code": "api_key_missing", "reason": "no API key" }));
    has(by("/keyed/two"), &json!({ "protocol": "HTTP/2", "method": "GET", "status": 401, "host": "gateway.test" }));
    has(by("/keyed/call"), &json!({ "protocol": "HTTP/2", "method": "POST", "status": 401, "plugin": "api_key" }));
    has(by("/hook"), &json!({ "plugin": "hmac_signature", "code": "signature_invalid", "method": "POST" }));
    has(by("/socket"), &json!({ "protocol": "HTTP/1.1", "status": 401, "target": "socket" }));
}

#[test]
fn a_service_that_cannot_judge_is_recorded_and_one_that_sends_elsewhere_refuses() {
    let place = Place::new();
    let away = crate::harness::Upstream::start(|_| {
        crate::harness::Answer::raw(
            "HTTP/1.1 302 Found\r\nLocation: /sign-in?secret=s3cret\r\nContent-Length: 0\r\n\r\n",
        )
    });
    let routes = format!(
        "  - {{ name: down, match: {{ path: /down }}, plugins: [{{ forward_auth: {{ url: \"http://{}/check\" }} }}, {{ respond: {{ status: 200 }} }}] }}
  - {{ name: away, match: {{ path: /away }}, plugins: [{{ forward_auth: {{ url: \"http://{}/check\", client_headers: [Location] }} }}, {{ respond: {{ status: 200 }} }}] }}",
        closed_address(),
        away.address()
    );
    let gateway = place.start(&routes, "");
    assert_eq!(gateway.get("/down").status, 503);
    assert_eq!(gateway.get("/away").status, 302);
    let unchecked = place.wait_for("request.unchecked", 1);
    has(&unchecked[0], &json!({ "outcome": "failure", "target": "down", "plugin": "forward_auth", "status": 503 }));
    let refused = place.wait_for("request.refused", 1);
    has(&refused[0], &json!({ "outcome": "denied", "target": "away", "plugin": "forward_auth", "status": 302 }));
    assert!(!std::fs::read_to_string(place.log()).unwrap().contains("s3cret"));
}

#[test]
fn a_request_for_another_host_than_its_certificate_is_recorded() {
    let (place, folder) = (Place::new(), Folder::new());
    folder.make("one", &["open.test", "closed.test"], 2040);
    let gateway = Gateway::start(&format!(
        "listeners:
  - name: public
    address: 127.0.0.1:0
    http2: true
    tls: {{ certificates: [{}], hosts: [{{ names: [closed.test], client_auth: {{ ca: \"{}\", mode: required }} }}] }}
telemetry: {{ audit_log: {{ to: \"file:{}\" }} }}
routes: [{{ name: all, match: {{ path: / }}, auth: none, plugins: [{{ respond: {{ status: 200 }} }}] }}]\n",
        folder.pair("one"),
        folder.file("ca", "pem").display(),
        place.log().display(),
    ));
    let trust = Trust::of(&folder, None, ALL_VERSIONS);
    let mut client = Secure::connect(&gateway.address(), "open.test", &trust).unwrap();
    assert_eq!(client.get("CLOSED.test:443", "/a/../b?c=s3cret").unwrap().status, 421);
    let mut client = Secure::connect(&gateway.address(), "open.test", &trust.offering(&["h2"])).unwrap();
    let fields = [(":method", "PUT"), (":scheme", "https"), (":authority", "closed.test"), (":path", "/b?c=s3cret")];
    let (settings, header) = (frames::frame(frames::SETTINGS, 0, 0, &[]), frames::block(&fields));
    let asked = frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 1, &header);
    client.0.write_all(&[frames::PREFACE, &settings, &asked].concat()).unwrap();
    client.0.flush().unwrap();
    let refused = place.wait_for("request.refused", 2);
    for (record, (protocol, method)) in refused.iter().zip([("HTTP/1.1", "GET"), ("HTTP/2", "PUT")]) {
        has(
            record,
            &json!({
                "outcome": "denied", "actor": "anonymous", "source": "127.0.0.1", "target": "-", "listener": "public",
                "status": 421, "code": "misdirected_request", "protocol": protocol, "method": method,
                "host": "closed.test", "path": "/b",
            }),
        );
        assert!(!record.to_string().contains("s3cret"), "{record}");
    }
}

#[test]
fn calls_of_the_admin_listener_are_recorded_but_for_the_pulse() {
    let place = Place::new();
    let gateway = place.start("", "");
    for page in ["GET /healthz", "GET /readyz", "GET /metrics"] {
        assert_eq!(gateway.admin(page).status, 200);
    }
    gateway.admin_with("GET /metrics", &[("Authorization", "Bearer wr0ng")]).assert_problem(401, "token_required");
    gateway.admin_with("GET /api/status?x=s3cret", &[]).assert_problem(401, "token_required");
    gateway.admin_with("GET /api/status", &[("Host", "evil.example")]).assert_problem(421, "bad_host");
    gateway.admin("DELETE /api/status").assert_problem(405, "method_not_allowed");
    let before = place.all_of(&gateway, "admin.called").len();
    gateway.admin("GET /api/status");
    let all = place.wait_for("admin.called", before + 1);
    let own = rustix::process::geteuid().as_raw();
    let peer = json!({ "source": "unix", "source_uid": own, "source_pid": std::process::id() });
    let find = |target: &str, status: u16| {
        let found = all.iter().filter(|r| r["target"] == target && r["status"] == status);
        let found: Vec<_> = found.collect();
        assert!(!found.is_empty(), "{target} {status}: {all:#?}");
        has(found[0], &peer);
        found[found.len() - 1].clone()
    };
    has(
        &find("/metrics", 401),
        &json!({ "outcome": "denied", "actor": "anonymous", "method": "GET", "reason": "token_required" }),
    );
    has(&find("/api/status", 401), &json!({ "outcome": "denied", "actor": "anonymous", "reason": "token_required" }));
    has(&find("/api/status", 421), &json!({ "outcome": "denied", "actor": "anonymous", "reason": "bad_host" }));
    has(
        &find("/api/status", 405),
        &json!({ "outcome": "failure", "method": "DELETE", "reason": "method_not_allowed" }),
    );
    has(&find("/mark", 404), &json!({ "outcome": "failure", "reason": "not_found" }));
    has(&find("/api/status", 200), &json!({ "outcome": "success", "actor": "admin", "method": "GET", "reason": null }));
    let pulse = |r: &&Value| ["/healthz", "/readyz", "/metrics"].iter().any(|page| r["target"] == *page);
    assert_eq!(all.iter().filter(pulse).count(), 1, "only the refused one: {all:#?}");
    let text = std::fs::read_to_string(place.log()).unwrap();
    assert!(!text.contains("wr0ng") && !text.contains("s3cret"), "{text}");
}

#[test]
fn a_call_over_the_network_has_its_address() {
    let place = Place::new();
    let address = closed_address();
    let config = place.config("", &format!("admin: {{ address: \"{address}\", token: 0123456789abcdef }}"));
    let path = place.0.path().join("gateway.yaml");
    std::fs::write(&path, config).unwrap();
    let child = std::process::Command::new(crate::harness::BINARY)
        .args(["run", "-c"])
        .arg(&path)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _killed = Killed(child);
    eventually("the admin listener answers", || std::net::TcpStream::connect(&address).is_ok().then_some(()));
    place.wait_for("process.started", 1);
    let host = ("Host", "localhost");
    let token = ("Authorization", "Bearer 0123456789abcdef");
    assert_eq!(crate::harness::exchange(&address, "GET /api/status", &[host, token], b"").status, 200);
    let called = place.wait_for("admin.called", 1);
    has(&called[0], &json!({ "actor": "admin", "source": "127.0.0.1", "source_uid": null, "source_pid": null }));
}

#[test]
fn changes_of_keys_are_recorded_with_the_id_and_never_the_key() {
    let place = Place::new();
    let gateway = place.start("", "stores: { local: { path: store.redb } }");
    let made = gateway.admin_send("POST /api/keys", r#"{"consumer": "alice"}"#).json();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    let (id, key) = (text(&made, "id"), text(&made, "key"));
    let next = gateway.admin_send(&format!("POST /api/keys/{id}/rotate"), "").json();
    let (next_id, next_key) = (text(&next, "id"), text(&next, "key"));
    assert_eq!(gateway.admin(&format!("DELETE /api/keys/{next_id}")).status, 200);
    // Refused: nobody of that name, no such key, a key in place of its id, no token.
    gateway.admin_send("POST /api/keys", r#"{"consumer": "nobody"}"#).assert_problem(422, "consumer_unknown");
    gateway.admin("DELETE /api/keys/unknown").assert_problem(404, "key_unknown");
    gateway.admin(&format!("DELETE /api/keys/{key}")).assert_problem(404, "key_unknown");
    gateway.admin_with("POST /api/keys", &[]).assert_problem(401, "token_required");
    let issued = place.wait_for("key.issued", 2);
    let peer = json!({ "actor": "admin", "source": "unix", "source_pid": std::process::id() });
    for record in &issued {
        has(record, &peer);
    }
    has(&issued[0], &json!({ "outcome": "success", "target": id, "consumer": "alice", "status": 201 }));
    has(
        &issued[1],
        &json!({ "outcome": "failure", "target": "-", "consumer": "nobody", "reason": "consumer_unknown" }),
    );
    let rotated = place.wait_for("key.rotated", 1);
    has(&rotated[0], &json!({ "outcome": "success", "target": id, "replaced_by": next_id, "consumer": "alice" }));
    let revoked = place.wait_for("key.revoked", 3);
    has(&revoked[0], &json!({ "outcome": "success", "target": next_id, "consumer": "alice", "status": 200 }));
    has(&revoked[1], &json!({ "outcome": "failure", "target": "unknown", "reason": "key_unknown", "status": 404 }));
    has(&revoked[2], &json!({ "outcome": "failure", "target": "***", "reason": "key_unknown" }));
    let calls = place.all_of(&gateway, "admin.called");
    assert!(calls.iter().any(|r| r["target"] == "/api/keys" && r["status"] == 401 && r["outcome"] == "denied"));
    let all = std::fs::read_to_string(place.log()).unwrap();
    for key in [key, next_key] {
        let secret = key.rsplit('_').next().unwrap();
        assert!(!all.contains(secret), "{all}");
    }
}

#[test]
fn who_goes_away_in_the_middle_of_a_call_is_recorded_too() {
    let place = Place::new();
    let gateway = place.start("", "stores: { local: { path: store.redb } }");
    let mut stream = std::os::unix::net::UnixStream::connect(gateway.folder().join("admin.sock")).unwrap();
    let head = "POST /api/keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer token-of-the-tests-0123\r\n";
    stream.write_all(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).unwrap();
    drop(stream);
    let called = eventually("the call is recorded", || {
        Some(of(&place.records(), "admin.called")).filter(|all| all.iter().any(|r| r["method"] == "POST"))
    });
    let call = json!({ "outcome": "failure", "actor": "admin", "target": "/api/keys", "method": "POST" });
    has(called.iter().find(|record| record["method"] == "POST").unwrap(), &call);
}

#[test]
fn no_credential_is_in_the_log() {
    let place = Place::new();
    let routes = "  - { name: basic, match: { path: /basic }, plugins: [{ basic: {} }, { respond: { status: 200 } }] }
  - { name: token, match: { path: /token }, plugins: [{ jwt: { issuers: [{ issuer: \"https://i.test\", secret: \"0123456789abcdef0123456789abcdef\", algorithms: [HS256], audiences: [a] }], from: [{ header: Authorization, scheme: Bearer }, { query: t }, { cookie: c }] } }, { respond: { status: 200 } }] }
  - { name: both, match: { path: /both }, plugins: [{ any_of: [{ api_key: {} }, { basic: {} }] }, { respond: { status: 200 } }] }";
    let gateway = place.start(routes, "");
    let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let mut secrets = vec![ALICE.0.to_owned(), "0123456789abcdef0123456789abcdef".into(), "hook-s3cret".into()];
    let mut count = 0;
    let mut connection = Connection::open(&gateway.address());
    for at in 0..25 {
        let secret = format!("s3cret-{at}-{}", "x".repeat(at % 7));
        let pair = encoded(&format!("alice:{secret}"));
        let token = format!("{}.{}.{secret}", encoded(r#"{"alg":"HS256"}"#), encoded(r#"{"iss":"https://i.test"}"#));
        for (target, field) in [
            ("/keyed/x".to_owned(), format!("X-API-Key: {secret}")),
            (format!("/keyed/x?k={secret}"), "A: b".into()),
            ("/keyed/x".into(), format!("Cookie: c={secret}")),
            ("/basic".into(), format!("Authorization: Basic {pair}")),
            ("/token".into(), format!("Authorization: Bearer {token}")),
            (format!("/token?t={token}"), "A: b".into()),
            ("/token".into(), format!("Cookie: c={token}")),
            ("/hook".into(), format!("X-Hub-Signature-256: sha256={secret}")),
            ("/both".into(), format!("X-API-Key: {secret}")),
            ("/both".into(), format!("Authorization: Basic {pair}")),
        ] {
            connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{field}\r\n\r\n").as_bytes());
            let answer = connection.read("GET").unwrap();
            assert_eq!(answer.status, 401, "{target} {field}: {}", answer.text());
            count += 1;
        }
        secrets.extend([secret, pair, token]);
    }
    let all = place.wait_for("request.refused", count);
    assert_eq!(all.len(), count);
    assert!(all.iter().all(|record| record["reason"].is_string()), "each says why");
    let text = std::fs::read_to_string(place.log()).unwrap();
    for secret in secrets {
        assert!(!text.contains(&secret), "{secret}");
    }
}
