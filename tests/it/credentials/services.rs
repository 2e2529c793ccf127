//! Services that are asked who calls: another one that decides, and the issuer of a token. The issuer here is a server
//! that answers as the test says.

use std::sync::{
    Arc, Barrier,
    atomic::{AtomicBool, Ordering},
};

use super::{config, start};
use crate::harness::{Answer, Connection, Received, Upstream, closed_address};

#[test]
fn forward_auth() {
    let upstream = Upstream::echo();
    let service = Upstream::start(|asked: &Received| match asked.header("authorization") {
        Some("good") => Answer::new(200, &[("X-User", "7"), ("X-Caller", "acme"), ("Set-Cookie", "no=1")], b"ignored"),
        Some("unknown") => Answer::new(200, &[("X-Caller", "nobody")], b""),
        Some("broken") => Answer::new(500, &[], b"secret detail"),
        Some("large") => Answer::new(403, &[], &[b'x'; 2000]),
        Some(_) => Answer::new(403, &[("Content-Type", "text/plain"), ("X-Internal", "no")], b"keep out"),
        None => Answer::new(302, &[("Location", "https://login.test/"), ("Set-Cookie", "state=1")], b""),
    });
    let plugin = |url: &str| {
        format!(
            "{{ forward_auth: {{ url: \"{url}\", timeout: 2s, upstream_headers: [X-User], consumer_header: X-Caller, max_body: 1KiB }} }}"
        )
    };
    let url = format!("http://{}/check", service.address());
    let gateway = start(&upstream, "{ name: acme }", &plugin(&url));
    let ask = |who: &str| gateway.send("PUT /a/b?c=d", &[("Authorization", who), ("X-User", "root")], b"body");
    assert_eq!(ask("good").status, 200);
    assert_eq!(ask("good").header("set-cookie"), None);
    let asked = service.received().swap_remove(0);
    assert_eq!((asked.method.as_str(), asked.target.as_str(), asked.body.len()), ("GET", "/check", 0));
    for (name, value) in [
        ("x-forwarded-method", "PUT"),
        ("x-forwarded-uri", "/a/b?c=d"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "gateway.test"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
    for seen in upstream.received() {
        assert_eq!((seen.header("x-user"), seen.header("x-consumer-name")), (Some("7"), Some("acme")));
        assert_eq!(seen.body, b"body");
    }
    let let_in = upstream.received().len();
    let refused = ask("bad");
    assert_eq!((refused.status, refused.text().as_str()), (403, "keep out"));
    assert_eq!((refused.header("x-internal"), refused.header("cache-control")), (None, Some("no-store")));
    let login = gateway.get("/");
    assert_eq!((login.status, login.header("location")), (302, Some("https://login.test/")));
    assert_eq!(login.header("set-cookie"), Some("state=1"));
    ask("unknown").assert_problem(403, "forward_auth_consumer_unknown");
    let broken = ask("broken");
    broken.assert_problem(503, "dependency_failed");
    assert!(!broken.text().contains("secret detail"));
    ask("large").assert_problem(503, "dependency_failed");
    assert_eq!(upstream.received().len(), let_in, "none of these went on");
}

#[test]
fn nobody_passes_while_the_service_that_decides_is_down_or_slow() {
    let upstream = Upstream::echo();
    let silent = Upstream::start(|_| Answer::silence());
    for (address, more) in [(closed_address(), ""), (silent.address().to_owned(), "timeout: 200ms,")] {
        let plugin = format!("{{ forward_auth: {{ {more} url: \"http://{address}/\" }} }}");
        let gateway = start(&upstream, "", &plugin);
        gateway.get("/").assert_problem(503, "dependency_failed");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn decisions_are_remembered_for_their_question_where_that_is_wanted() {
    let (upstream, service) = (Upstream::echo(), Upstream::start(|_| Answer::new(200, &[("X-User", "7")], b"")));
    let url = format!("http://{}/", service.address());
    let plugin = format!("{{ forward_auth: {{ url: \"{url}\", upstream_headers: [X-User], cache: {{ ttl: 1h }} }} }}");
    let gateway = start(&upstream, "", &plugin);
    for (target, who, questions) in [("/a", "x", 1), ("/a", "x", 1), ("/a", "y", 2), ("/b", "x", 3), ("/a", "x", 3)] {
        assert_eq!(gateway.send(&format!("GET {target}"), &[("Authorization", who)], b"").status, 200);
        assert_eq!(service.received().len(), questions, "{target} {who}");
        assert_eq!(upstream.received().last().unwrap().header("x-user"), Some("7"));
    }
}

/// The claims that the scripted issuer has for a token, by what stands in the form.
fn introspect(asked: &Received) -> Answer {
    let form = String::from_utf8_lossy(&asked.body).into_owned();
    let token = form.strip_prefix("token=").and_then(|rest| rest.split('&').next()).unwrap_or_default();
    match token {
        "good" => Answer::json(r#"{"active":true,"iss":"https://idp.test","sub":"user-7","scope":"read write"}"#),
        "other" => Answer::json(r#"{"active":true,"iss":"https://other.test","sub":"user-7","scope":"read"}"#),
        "weak" => Answer::json(r#"{"active":true,"iss":"https://idp.test","sub":"user-7","scope":"readwrite"}"#),
        "text" => Answer::ok("active"),
        "word" => Answer::json(r#"{"active":"true"}"#),
        "lost" => Answer::new(302, &[("Location", "/elsewhere")], b""),
        "slow" => Answer::silence(),
        _ => Answer::json(r#"{"active":false}"#),
    }
}

fn introspection(address: &str) -> String {
    format!(
        "{{ oauth2_introspection: {{ url: \"http://{address}/introspect\", client_id: gw, client_secret: s3cret, timeout: 500ms, issuer: \"https://idp.test\", require: {{ scopes: {{ all: [read] }} }}, require_consumer: true }} }}"
    )
}

const USER: &str = "{ name: user, credentials: [{ token: { issuer: \"https://idp.test\", subject: user-7 } }] }";

#[test]
fn oauth2_introspection() {
    let (upstream, issuer) = (Upstream::echo(), Upstream::start(introspect));
    let gateway = start(&upstream, USER, &introspection(issuer.address()));
    let ask = |value: &str| gateway.send("GET /", &[("Authorization", value)], b"");
    let missing = gateway.get("/?access_token=good");
    missing.assert_problem(401, "introspection_token_missing");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"crossway\""));
    for value in ["Bearer bad", "Bearer other", "Bearer", "Bearer good, Bearer good", "Bearer good good"] {
        let refused = ask(value);
        refused.assert_problem(401, "introspection_token_invalid");
        let challenge = "Bearer realm=\"crossway\", error=\"invalid_token\"";
        assert_eq!(refused.header("www-authenticate"), Some(challenge), "{value}");
    }
    let twice = [("Authorization", "Bearer good"), ("Authorization", "Bearer good")];
    let beside = gateway.send("GET /?access_token=good", &[("Authorization", "Bearer good")], b"");
    for several in [beside, gateway.send("GET /", &twice, b"")] {
        several.assert_problem(400, "introspection_token_several");
        let challenge = "Bearer realm=\"crossway\", error=\"invalid_request\"";
        assert_eq!(several.header("www-authenticate"), Some(challenge));
    }
    let weak = ask("Bearer weak");
    weak.assert_problem(403, "introspection_scope_missing");
    let challenge = "Bearer realm=\"crossway\", error=\"insufficient_scope\", scope=\"read\"";
    assert_eq!(weak.header("www-authenticate"), Some(challenge));
    for token in ["text", "word", "lost", "slow"] {
        ask(&format!("Bearer {token}")).assert_problem(503, "dependency_failed");
    }
    assert!(upstream.received().is_empty());
    let before = issuer.received().len();
    for _ in 0..3 {
        assert_eq!(ask("bearer good").status, 200);
        ask("Bearer bad").assert_problem(401, "introspection_token_invalid");
    }
    assert_eq!(issuer.received().len(), before + 1, "both answers are remembered");
    for seen in upstream.received() {
        assert_eq!((seen.header("x-consumer-name"), seen.header("authorization")), (Some("user"), None));
    }
    for asked in issuer.received() {
        assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/introspect"));
        assert_eq!(asked.header("authorization"), Some("Basic Z3c6czNjcmV0"));
    }
}

/// A reload forgets what was remembered; while the issuer is down, what is remembered serves, and nothing else.
#[test]
fn what_the_issuer_said_serves_while_it_is_down_up_to_a_reload() {
    let up = Arc::new(AtomicBool::new(true));
    let answers = Arc::clone(&up);
    let issuer =
        Upstream::start(move |asked| if answers.load(Ordering::SeqCst) { introspect(asked) } else { Answer::raw("") });
    let upstream = Upstream::echo();
    let mut gateway = start(&upstream, USER, &introspection(issuer.address()));
    let token = [("Authorization", "Bearer good")];
    assert_eq!(gateway.send("GET /", &token, b"").status, 200);
    up.store(false, Ordering::SeqCst);
    assert_eq!(gateway.send("GET /", &token, b"").status, 200);
    gateway.send("GET /", &[("Authorization", "Bearer new")], b"").assert_problem(503, "dependency_failed");
    assert_eq!(gateway.reload(&config(&upstream, USER, &introspection(issuer.address()))).status, 200);
    gateway.send("GET /", &token, b"").assert_problem(503, "dependency_failed");
    up.store(true, Ordering::SeqCst);
    assert_eq!(gateway.send("GET /", &token, b"").status, 200);
}

#[test]
fn a_crowd_with_one_token_is_one_question() {
    const CROWD: usize = 24;
    let (upstream, issuer) = (Upstream::echo(), Upstream::start(introspect));
    let gateway = start(&upstream, USER, &introspection(issuer.address()));
    let address = gateway.address();
    let together = Barrier::new(CROWD);
    std::thread::scope(|scope| {
        for _ in 0..CROWD {
            scope.spawn(|| {
                let mut connection = Connection::open(&address);
                together.wait();
                connection.send(b"GET / HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer good\r\n\r\n");
                assert_eq!(connection.read("GET").unwrap().status, 200);
            });
        }
    });
    assert_eq!(issuer.received().len(), 1);
}
