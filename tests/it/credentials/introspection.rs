//! `oauth2_introspection` with tokens of an identity provider that nobody here wrote.

use crate::harness::{CLIENT_SECRET, Gateway, Idp, Response, Upstream, eventually};

/// A gateway whose routes ask the provider in different ways: each time, once an hour, once a second, with a secret that
/// is not the gateway's, and not at all.
fn start(idp: &Idp, upstream: &Upstream) -> Gateway {
    let route = |name: &str, secret: &str, cache: &str| {
        format!(
            "  - name: {name}
    match: {{ path: /{name} }}
    upstream: back
    plugins:
      - oauth2_introspection:
          {{ url: \"{url}\", client_id: gateway, client_secret: \"{secret}\", issuer: \"{issuer}\", audiences: [orders-api],
            timeout: 30s, consumer_claim: client_id, require: {{ scopes: {{ all: [orders.read] }} }}, cache: {{ {cache} }} }}\n",
            url = idp.introspection_url(),
            issuer = idp.url(),
        )
    };
    Gateway::start(&format!(
        "consumers: [{{ name: acme, groups: [gold], credentials: [{{ token: {{ issuer: \"{}\", subject: opaque }} }}] }}]
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes:
  - {{ name: open, match: {{ path: /open }}, auth: none, upstream: back }}
{}{}{}{}",
        idp.url(),
        upstream.address(),
        route("always", CLIENT_SECRET, "ttl: 0s, negative_ttl: 0s"),
        route("hourly", CLIENT_SECRET, "ttl: 1h, negative_ttl: 1h"),
        route("often", CLIENT_SECRET, "ttl: 1s, negative_ttl: 1s"),
        route("stranger", "another-secret-0123456789", "ttl: 1h, negative_ttl: 1h"),
    ))
}

fn ask(gateway: &Gateway, route: &str, token: &str) -> Response {
    gateway.send(&format!("GET /{route}"), &[("Authorization", &format!("Bearer {token}"))], b"")
}

fn token(idp: &Idp) -> String {
    idp.client_credentials("opaque", CLIENT_SECRET, "orders.read orders.write")
}

#[test]
fn what_the_provider_says_of_a_token_counts() {
    let (idp, upstream) = (Idp::start(), Upstream::echo());
    let gateway = start(&idp, &upstream);
    let good = token(&idp);
    for route in ["always", "hourly", "often", "always", "hourly"] {
        assert_eq!(ask(&gateway, route, &good).status, 200, "{route}");
        let seen = upstream.received().pop().unwrap();
        assert_eq!((seen.header("x-consumer-name"), seen.header("x-consumer-groups")), (Some("acme"), Some("gold")));
        assert_eq!(seen.header("authorization"), None);
    }
    assert_eq!(idp.asked("/token/introspection"), 4, "the route `hourly` has asked once");
    let signed = idp.client_credentials("orders", CLIENT_SECRET, "orders.read");
    let poor = idp.client_credentials("opaque", CLIENT_SECRET, "orders.write");
    ask(&gateway, "always", &poor).assert_problem(403, "introspection_scope_missing");
    for bad in ["nobody-has-issued-this", &good[1..], &good.to_ascii_uppercase()] {
        let refused = ask(&gateway, "always", bad);
        refused.assert_problem(401, "introspection_token_invalid");
        let challenge = "Bearer realm=\"crossway\", error=\"invalid_token\"";
        assert_eq!(refused.header("www-authenticate"), Some(challenge));
    }
    // The provider answers 400 to a token of another form than it keeps: that is no word about the token.
    ask(&gateway, "always", &signed).assert_problem(503, "dependency_failed");
    let before = upstream.received().len();
    idp.revoke("opaque", CLIENT_SECRET, &good);
    ask(&gateway, "always", &good).assert_problem(401, "introspection_token_invalid");
    assert_eq!(upstream.received().len(), before);
    assert_eq!(ask(&gateway, "hourly", &good).status, 200, "it is remembered, as the settings say");
    eventually("what is remembered for a second is over", || {
        (ask(&gateway, "often", &good).status == 401).then_some(())
    });
    assert!(!gateway.stderr().contains(&good), "no token in the log");
}

/// A gateway that the provider does not know says nothing about tokens: neither that they are good, nor that they are not.
#[test]
fn a_gateway_that_the_provider_does_not_know_lets_nobody_in() {
    let (idp, upstream) = (Idp::start(), Upstream::echo());
    let gateway = start(&idp, &upstream);
    let good = token(&idp);
    for token in [good.as_str(), "nobody-has-issued-this"] {
        ask(&gateway, "stranger", token).assert_problem(503, "dependency_failed");
    }
    assert!(upstream.received().is_empty());
    assert_eq!(ask(&gateway, "always", &good).status, 200, "another route's own client is known");
}

#[test]
fn a_provider_that_is_down_closes_its_routes_and_what_is_remembered_serves_to_its_end() {
    let (mut idp, upstream) = (Idp::start(), Upstream::echo());
    let gateway = start(&idp, &upstream);
    let (good, other) = (token(&idp), token(&idp));
    for route in ["always", "hourly", "often"] {
        assert_eq!(ask(&gateway, route, &good).status, 200, "{route}");
    }
    ask(&gateway, "hourly", "bad").assert_problem(401, "introspection_token_invalid");
    idp.stop();
    ask(&gateway, "always", &good).assert_problem(503, "dependency_failed");
    ask(&gateway, "hourly", &other).assert_problem(503, "dependency_failed");
    assert_eq!(ask(&gateway, "hourly", &good).status, 200);
    ask(&gateway, "hourly", "bad").assert_problem(401, "introspection_token_invalid");
    eventually("what is remembered for a second is over", || {
        (ask(&gateway, "often", &good).status == 503).then_some(())
    });
    assert_eq!(gateway.get("/always").status, 401, "no token needs no provider");
    assert_eq!(gateway.get("/open").status, 200);
    // Its tokens are forgotten, so that it is asked anew.
    idp.start_again();
    let fresh = token(&idp);
    eventually("the provider is asked again", || (ask(&gateway, "always", &fresh).status == 200).then_some(()));
    ask(&gateway, "always", &good).assert_problem(401, "introspection_token_invalid");
    assert_eq!(ask(&gateway, "hourly", &fresh).status, 200);
    assert_eq!(ask(&gateway, "hourly", &good).status, 200, "as before");
}
