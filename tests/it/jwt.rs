//! `jwt` from outside, with tokens of an identity provider that nobody here wrote.

use std::time::Instant;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::{CLIENT_SECRET, Gateway, Idp, Response, Upstream, eventually};

#[test]
fn the_identity_provider_gives_tokens_and_says_what_they_are_worth() {
    let mut idp = Idp::start();
    let token = idp.client_credentials("orders", CLIENT_SECRET, "orders.read");
    assert_eq!(token.split('.').count(), 3);
    let opaque = idp.client_credentials("opaque", CLIENT_SECRET, "orders.read");
    assert_eq!(opaque.split('.').count(), 1);
    assert_eq!(idp.introspect(&opaque)["active"], true);
    idp.revoke("opaque", CLIENT_SECRET, &opaque);
    assert_eq!(idp.introspect(&opaque)["active"], false);
    assert_eq!((idp.asked("/token"), idp.token_url()), (2, format!("{}/token", idp.url())));
    idp.rotate();
    let next = idp.client_credentials("orders", CLIENT_SECRET, "orders.read");
    assert_ne!(next.split('.').next(), token.split('.').next(), "another key has another name");
    assert_eq!(idp.asked("/token"), 1, "another process");
}

/// A gateway with the route `/orders`, which trusts the provider, and `/open`, which asks nobody. `settings` are further ones
/// of the plugin, `issuer` of the issuer.
fn config(idp: &Idp, upstream: &Upstream, issuer: &str, settings: &str) -> String {
    format!(
        "consumers: [{{ name: acme, groups: [gold], credentials: [{{ token: {{ issuer: \"{url}\", subject: orders }} }}] }}]
telemetry: {{ access_log: {{ to: stdout }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{address}\" }}] }} }}
routes:
  - {{ name: open, match: {{ path: /open }}, auth: none, upstream: back }}
  - name: orders
    match: {{ path: /orders }}
    upstream: back
    plugins:
      - jwt:
          issuers:
            - {{ issuer: \"{url}\", audiences: [orders-api], typ: at+jwt, algorithms: [RS256, PS256, ES256, EdDSA], {issuer} }}
          {settings}\n",
        url = idp.url(),
        address = upstream.address(),
    )
}

const EAGER: &str = "discovery: true, jwks: { cool_down: 1s, refresh: 1h }";

fn orders(gateway: &Gateway, token: &str) -> Response {
    gateway.send("GET /orders", &[("Authorization", &format!("Bearer {token}"))], b"")
}

fn token(idp: &Idp) -> String {
    idp.client_credentials("orders", CLIENT_SECRET, "orders.read")
}

/// A token whose header calls its key by another name; its signature does not hold any more.
fn renamed(token: &str, kid: &str) -> String {
    let (header, rest) = token.split_once('.').unwrap();
    let mut header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    header["kid"] = json!(kid);
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

#[test]
fn tokens_of_every_algorithm_are_let_in_and_say_who_calls() {
    let (idp, upstream) = (Idp::start(), Upstream::echo());
    let settings = "require: { scopes: { any: [orders.read], all: [orders.write] } }
          forward: { claims: { client_id: X-Client, scope: X-Scope } }";
    let gateway = Gateway::start(&config(&idp, &upstream, "discovery: true", settings));
    for client in ["orders", "orders-ps", "orders-es", "orders-ed"] {
        let token = idp.client_credentials(client, CLIENT_SECRET, "orders.read orders.write");
        for _ in 0..3 {
            let forged =
                [("Authorization", format!("Bearer {token}")), ("X-Client", "root".into()), ("x-scope", "all".into())];
            let fields: Vec<(&str, &str)> = forged.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let answer = gateway.send("GET /orders", &fields, b"");
            assert_eq!(answer.status, 200, "{client}: {}", answer.text());
            let seen = upstream.received().pop().unwrap();
            assert_eq!(seen.header("x-client"), Some(client));
            assert_eq!(seen.header("x-scope"), Some("orders.read orders.write"));
            assert_eq!(seen.header("authorization"), None);
            let consumer = (client == "orders").then_some("acme");
            assert_eq!(seen.header("x-consumer-name"), consumer, "{client}");
        }
    }
    let poor = orders(&gateway, &token(&idp));
    poor.assert_problem(403, "jwt_insufficient");
    let scope = "Bearer realm=\"crossway\", error=\"insufficient_scope\", scope=\"orders.write orders.read\"";
    assert_eq!(poor.header("www-authenticate"), Some(scope));
    let counted =
        |event: &str| gateway.metric(&format!("crossway_plugin_events_total{{event=\"{event}\",plugin=\"jwt\"}}"));
    assert_eq!((counted("verified"), counted("cached"), counted("fetched")), (5.0, 8.0, 1.0));
    assert_eq!((idp.asked("/jwks"), idp.asked("/.well-known/openid-configuration")), (1, 2), "one is the harness's");
}

#[test]
fn what_is_not_good_is_refused_whatever_the_method() {
    let (idp, upstream) = (Idp::start(), Upstream::echo());
    let gateway = Gateway::start(&config(&idp, &upstream, "discovery: true", ""));
    let good = token(&idp);
    assert_eq!(orders(&gateway, &good).status, 200);
    let opaque = idp.client_credentials("opaque", CLIENT_SECRET, "orders.read");
    let (head, signature) = good.rsplit_once('.').unwrap();
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#), head.split_once('.').unwrap().1);
    let bad = [
        opaque,
        unsigned,
        renamed(&good, "x"),
        format!("{head}.{}", &signature[4..]),
        "x".repeat(20_000),
        String::new(),
    ];
    for method in ["GET", "HEAD", "POST", "OPTIONS", "DELETE"] {
        let request = format!("{method} /orders");
        let missing = gateway.send(&request, &[], b"");
        assert_eq!((missing.status, missing.header("www-authenticate")), (401, Some("Bearer realm=\"crossway\"")));
        for token in &bad {
            let refused = gateway.send(&request, &[("Authorization", &format!("Bearer {token}"))], b"");
            assert_eq!(refused.status, 401, "{method} {token}");
            let challenge = "Bearer realm=\"crossway\", error=\"invalid_token\"";
            assert_eq!(refused.header("www-authenticate"), Some(challenge));
            assert!(!refused.text().contains(token.as_str()) || token.is_empty(), "no echo");
        }
    }
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(gateway.send("GET /orders", &upgrade, b"").status, 401, "nor is a handshake passed by");
    let twice = format!("Bearer {good}");
    let refused = gateway.send("GET /orders", &[("Authorization", &twice), ("Authorization", &twice)], b"");
    refused.assert_problem(400, "jwt_several");
    let refused = gateway.send(&format!("GET /orders?access_token={good}"), &[("Authorization", &twice)], b"");
    refused.assert_problem(400, "jwt_several");
    assert_eq!(upstream.received().len(), 1, "nothing of this has reached the upstream");
    let log = eventually("the log has the reasons", || {
        Some(gateway.stdout()).filter(|log| log.contains("not three parts") && log.contains("more than one token"))
    });
    assert!(!log.contains(signature), "no token in the log");
}

#[test]
fn a_provider_that_is_down_at_start_costs_its_own_routes_only() {
    let (mut idp, upstream) = (Idp::start(), Upstream::echo());
    let good = token(&idp);
    idp.stop();
    let gateway = Gateway::start(&config(&idp, &upstream, EAGER, ""));
    orders(&gateway, &good).assert_problem(503, "dependency_failed");
    assert_eq!(gateway.get("/orders").status, 401);
    assert_eq!(orders(&gateway, "x.y.z").status, 401);
    assert_eq!(gateway.get("/open").status, 200);
    eventually("the log says so", || gateway.stderr().contains("the issuer's keys cannot be fetched").then_some(()));
    idp.start_again();
    eventually("the keys are there", || (orders(&gateway, &good).status == 200).then_some(()));
    eventually("the log says so", || gateway.stderr().contains("keys are there again").then_some(()));
}

#[test]
fn the_last_keys_serve_while_the_provider_is_down() {
    let (mut idp, upstream) = (Idp::start(), Upstream::echo());
    let often = "discovery: true, jwks: { cool_down: 1s, refresh: 1s }";
    let mut gateway = Gateway::start(&config(&idp, &upstream, often, ""));
    let (seen, unseen) = (token(&idp), token(&idp));
    assert_eq!(orders(&gateway, &seen).status, 200);
    idp.stop();
    eventually("a fetch fails", || {
        let failed = gateway.metric("crossway_plugin_events_total{event=\"unreachable\",plugin=\"jwt\"}");
        (failed >= 1.0).then_some(())
    });
    assert_eq!(orders(&gateway, &seen).status, 200);
    assert_eq!(orders(&gateway, &unseen).status, 200);
    // A reload has other settings for the route, and the keys that were fetched before it.
    let strict = config(&idp, &upstream, often, "require: { scopes: { all: [orders.admin] } }");
    assert_eq!(gateway.reload(&strict).status, 200);
    orders(&gateway, &seen).assert_problem(403, "jwt_insufficient");
    assert_eq!(gateway.reload(&config(&idp, &upstream, often, "")).status, 200);
    assert_eq!(orders(&gateway, &seen).status, 200);
}

#[test]
fn new_keys_are_taken_and_old_ones_go() {
    let (mut idp, upstream) = (Idp::start(), Upstream::echo());
    let gateway = Gateway::start(&config(&idp, &upstream, EAGER, ""));
    let old = token(&idp);
    assert_eq!(orders(&gateway, &old).status, 200);
    idp.rotate();
    let new = token(&idp);
    assert_eq!(orders(&gateway, &old).status, 200, "nothing has asked for other keys yet");
    // The keys may have been fetched less than the cool-down ago.
    eventually("a token with another key is let in", || (orders(&gateway, &new).status == 200).then_some(()));
    orders(&gateway, &old).assert_problem(401, "jwt_invalid");
}

#[test]
fn a_flood_of_unknown_keys_costs_few_fetches() {
    let (idp, upstream) = (Idp::start(), Upstream::echo());
    let gateway = Gateway::start(&config(&idp, &upstream, EAGER, ""));
    let good = token(&idp);
    assert_eq!(orders(&gateway, &good).status, 200);
    let began = Instant::now();
    let address = gateway.address();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (good, address) = (&good, &address);
            scope.spawn(move || {
                for n in 0..250 {
                    let bearer = format!("Bearer {}", renamed(good, &format!("kid-{thread}-{n}")));
                    let refused = crate::harness::exchange(address, "GET /orders", &[("Authorization", &bearer)], b"");
                    refused.assert_problem(401, "jwt_invalid");
                }
            });
        }
    });
    let most = began.elapsed().as_secs() + 2;
    let asked = idp.asked("/jwks");
    assert!((1..=1 + most).contains(&asked), "{asked} fetches in {:?}", began.elapsed());
    assert_eq!(orders(&gateway, &good).status, 200);
}

#[test]
fn other_places_are_opened_by_name_and_closed_behind() {
    let (idp, upstream) = (Idp::start(), Upstream::echo());
    let settings = "from: [{ cookie: session }, { query: access_token }]";
    let gateway = Gateway::start(&config(&idp, &upstream, "discovery: true", settings));
    let good = token(&idp);
    assert_eq!(orders(&gateway, &good).status, 401, "the usual place is closed now");
    let answer = gateway.get(&format!("/orders?a=1&access_token={good}&b=%2F"));
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("private")), "{}", answer.text());
    let seen = upstream.received().pop().unwrap();
    assert_eq!(seen.target, "/orders?a=1&b=%2F");
    let answer = gateway.send("GET /orders", &[("Cookie", &format!("a=1; session={good}; b=2"))], b"");
    assert_eq!((answer.status, answer.header("cache-control")), (200, None));
    assert_eq!(upstream.received().pop().unwrap().header("cookie"), Some("a=1; b=2"));
    let both = format!("/orders?access_token={good}");
    gateway
        .send(&format!("GET {both}"), &[("Cookie", &format!("session={good}"))], b"")
        .assert_problem(400, "jwt_several");
    let log = eventually("the log has it", || Some(gateway.stdout()).filter(|log| log.contains("jwt_several")));
    assert!(!log.contains(&good[good.len() - 40..]), "no token in the log");
}

#[test]
fn keys_from_a_file_that_the_configuration_names() {
    let (idp, upstream) = (Idp::start(), Upstream::echo());
    let keys = crate::harness::exchange(idp.url().strip_prefix("http://").unwrap(), "GET /jwks", &[], b"").text();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, &keys).unwrap();
    let source = format!("jwks_file: \"{}\"", file.display());
    let mut gateway = Gateway::start(&config(&idp, &upstream, &source, ""));
    assert_eq!(orders(&gateway, &token(&idp)).status, 200);
    std::fs::write(&file, "{}").unwrap();
    let refused = gateway.reload(&config(&idp, &upstream, &source, ""));
    assert!(refused.status >= 400 && refused.text().contains("jwks_file"), "{}", refused.text());
    assert_eq!(orders(&gateway, &token(&idp)).status, 200, "the configuration in force stays");
}
