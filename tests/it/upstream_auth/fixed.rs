//! What is the same each time; and that nothing a client sends stands beside it, on any way.

use std::process::Command;

use http::header::AUTHORIZATION;

use super::{Provider, SECRET, WAYS, config, counted};
use crate::harness::{
    BINARY, Gateway, H2Upstream, Response, Upstream, eventually, frame,
    websocket::{Echo, ask},
};

/// Each kind, the field that it writes, and its value.
const KINDS: [(&str, &str, &str); 4] = [
    ("bearer: { token: abc.DEF-123 }", "authorization", "Bearer abc.DEF-123"),
    ("basic: { username: Aladdin, password: open sesame }", "authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
    ("api_key: { header: X-Back-Key, key: the key }", "x-back-key", "the key"),
    ("api_key: { header: Authorization, key: ApiKey 7 }", "authorization", "ApiKey 7"),
];

/// What a client sends that would like to be somebody else.
const FORGED: [(&str, &str); 4] = [
    ("Authorization", "Bearer mine"),
    ("authorization", "Basic bWluZQ=="),
    ("X-Back-Key", "mine"),
    ("x-BACK-key", "mine"),
];

#[test]
fn each_kind_replaces_what_the_client_sends() {
    for (auth, name, value) in KINDS {
        for (way, plugin) in WAYS {
            let upstream = Upstream::echo();
            let gateway = Gateway::start(&config(upstream.address(), "", auth, plugin));
            for (method, body) in [("GET", &b""[..]), ("POST", b"order")] {
                assert_eq!(gateway.send(&format!("{method} /a?b=c"), &FORGED, body).status, 200, "{way} {auth}");
                let seen = upstream.received().pop().unwrap();
                // Panics where the field stands twice.
                assert_eq!(seen.header(name), Some(value), "{way} {auth}");
                assert_eq!((seen.target.as_str(), &seen.body[..]), ("/a?b=c", body));
            }
        }
    }
}

#[test]
fn a_key_in_the_query_replaces_what_the_client_sends() {
    for (way, plugin) in WAYS {
        let upstream = Upstream::echo();
        let auth = "api_key: { query: key, key: \"a&b c\" }";
        let gateway = Gateway::start(&config(upstream.address(), "", auth, plugin));
        for (target, expected) in [
            ("/a", "/a?key=a%26b%20c"),
            ("/a?key=mine&b=c&k%65y=mine", "/a?b=c&key=a%26b%20c"),
            ("/?", "/?key=a%26b%20c"),
        ] {
            assert_eq!(gateway.get(target).status, 200, "{way}");
            assert_eq!(upstream.received().pop().unwrap().target, expected, "{way}");
        }
        let log = eventually("the log has all three", || Some(gateway.stdout()).filter(|log| log.lines().count() == 3));
        assert!(!log.contains("a%26b") && !log.contains("a&b"), "{log}");
    }
}

/// Neither a route's own plugin has the last word, nor a token that a plugin has let through.
#[test]
fn a_route_does_not_overrule_its_upstream() {
    let upstream = Upstream::echo();
    let plugin = "{ headers: { request: { set: { Authorization: Bearer routes } } } }";
    let gateway = Gateway::start(&config(upstream.address(), "", KINDS[0].0, plugin));
    assert_eq!(gateway.send("GET /", &FORGED, b"").status, 200);
    assert_eq!(upstream.only().header("authorization"), Some("Bearer abc.DEF-123"));
}

#[test]
fn over_http_2_and_for_grpc_too() {
    for (way, plugin) in WAYS {
        let upstream = H2Upstream::plain();
        let gateway = Gateway::start(
            &config(upstream.address(), "http2: true,", KINDS[0].0, plugin).replace("websocket: {}", "grpc_web: true"),
        );
        assert_eq!(gateway.send("POST /a", &FORGED, b"order").status, 200, "{way}");
        if plugin.is_empty() {
            assert_eq!(unary(&gateway, "Unary", &FORGED).status, 200);
            assert_eq!(upstream.seen().len(), 2);
        }
        for seen in upstream.seen() {
            let all: Vec<_> = seen.headers.get_all(AUTHORIZATION).iter().collect();
            assert_eq!(all, ["Bearer abc.DEF-123"], "{way} {}", seen.path);
        }
    }
    let upstream = H2Upstream::plain();
    let auth = "api_key: { query: key, key: k }";
    let gateway = Gateway::start(
        &config(upstream.address(), "http2: true,", auth, "").replace("websocket: {}", "grpc_web: true"),
    );
    assert_eq!(gateway.get("/a?key=mine").status, 200);
    assert_eq!(upstream.only().path, "/a?key=k");
    assert_eq!(unary(&gateway, "Unary", &[]).status, 200);
    assert_eq!(upstream.seen().pop().unwrap().path, "/echo.Echo/Unary?key=k");
}

/// A call by gRPC-web with one message.
pub(super) fn unary(gateway: &Gateway, method: &str, headers: &[(&str, &str)]) -> Response {
    let all = [&[("Content-Type", "application/grpc-web+proto")], headers].concat();
    gateway.send(&format!("POST /echo.Echo/{method}"), &all, &frame(b"hello"))
}

#[test]
fn websockets_too() {
    let (upstream, provider) = (Echo::start(), Provider::start(""));
    for (auth, value) in [(KINDS[0].0.to_owned(), "bearer abc.def-123"), (provider.auth(""), "bearer token-1")] {
        let gateway = Gateway::start(&config(upstream.address(), "", &auth, ""));
        let forged: String = FORGED.iter().flat_map(|(name, value)| [*name, ": ", *value, "\r\n"]).collect();
        assert_eq!(ask(&gateway.address(), "/chat", &forged).status, 101);
        let header = upstream.header().to_lowercase();
        let fields: Vec<_> = header.lines().filter_map(|line| line.strip_prefix("authorization: ")).collect();
        assert_eq!(fields, [value], "{header}");
        // What follows on the connection is nobody's business here.
        upstream.next();
    }
}

/// A secret is in no log, page or message, whatever its kind and wherever it came from.
#[test]
fn secrets_are_not_shown() {
    let provider = Provider::start("");
    let upstream = Upstream::echo();
    let hidden = ["abc.DEF-123", "open sesame", "the key", SECRET, "token-1", "QWxhZGRpbjpvcGVuIHNlc2FtZQ", "ApiKey 7"];
    let all = KINDS
        .iter()
        .map(|(auth, ..)| (*auth).to_owned())
        .chain([provider.auth(""), provider.auth("client_auth: post")]);
    for auth in all {
        let log =
            "telemetry: { log: { level: debug }, access_log: { to: stdout, headers: [authorization, x-back-key] } }\n";
        let text = config(upstream.address(), "", &auth, "");
        let text = format!("{log}{}", text.split_once('\n').unwrap().1);
        let gateway = Gateway::start(&text);
        assert_eq!(gateway.get("/a").status, 200);
        if auth.contains("oauth2") {
            assert_eq!(counted(&gateway, "fetched"), 1.0);
        }
        // An error right beside the secret.
        let broken = text.replace("auth: { ", "auth: { bogus: 1, ");
        gateway.write(&broken);
        let refused = gateway.admin("POST /api/reload");
        assert_eq!(refused.status, 422, "{}", refused.text());
        let log = eventually("the request is logged", || Some(gateway.stdout()).filter(|log| !log.is_empty()));
        let status = gateway.status();
        let kind = auth.split(':').next().unwrap();
        assert_eq!(status["upstreams"][0]["auth"]["kind"], kind);
        let metrics = gateway.admin("GET /metrics").text();
        for shown in [log, gateway.stderr(), status.to_string(), metrics, refused.text()] {
            for secret in hidden {
                assert!(!shown.contains(secret), "{secret}: {shown}");
            }
        }
    }
}

#[test]
fn check_warns_where_a_secret_goes_without_tls() {
    let folder = tempfile::tempdir().unwrap();
    for (endpoint, settings, warned) in [
        ("erp-1.internal:80", "", true),
        ("10.0.0.1:80", "", true),
        ("erp-1.internal:443", "tls: { server_name: erp.internal },", false),
        ("localhost:80", "", false),
        ("[::1]:80", "", false),
    ] {
        let text = format!(
            "listeners: [{{ name: a, address: \"127.0.0.1:80\" }}]\n{}",
            config(endpoint, settings, KINDS[0].0, "")
        );
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        let output = Command::new(BINARY).current_dir(folder.path()).args(["check", "a.yaml"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert_eq!(said.contains("is sent without TLS"), warned, "{endpoint}: {said}");
        assert!(!said.contains("abc.DEF-123"), "{said}");
    }
}
