//! With an identity provider that nobody here wrote, and an upstream that asks it what a token is worth.

use std::sync::{Arc, Mutex};

use super::{config, cool_down, oauth2};
use crate::harness::{Answer, CLIENT_SECRET, Gateway, Idp, Received, Upstream, eventually};

fn presented(request: &Received) -> &str {
    request.header("authorization").unwrap().strip_prefix("Bearer ").unwrap()
}

#[test]
fn a_token_that_was_taken_back_is_replaced() {
    for how in ["basic", "post"] {
        let idp = Arc::new(Mutex::new(Idp::start()));
        let judge = Arc::clone(&idp);
        let upstream = Upstream::start(move |request| {
            let says = judge.lock().unwrap().introspect(presented(request));
            if says["active"] == true {
                Answer::ok(says["scope"].as_str().unwrap())
            } else {
                Answer::new(401, &[], b"")
            }
        });
        let url = idp.lock().unwrap().token_url();
        let more = format!("client_auth: {how}, scopes: [orders.read, orders.write], cool_down: 1s");
        let gateway =
            Gateway::start(&config(upstream.address(), "", &oauth2(&url, "opaque", CLIENT_SECRET, &more), ""));
        for _ in 0..3 {
            let answer = gateway.get("/");
            assert_eq!((answer.status, answer.text().as_str()), (200, "orders.read orders.write"));
        }
        let asked = || idp.lock().unwrap().asked("/token");
        assert_eq!(asked(), 1);
        let token = presented(&upstream.received()[0]).to_owned();
        idp.lock().unwrap().revoke("opaque", CLIENT_SECRET, &token);
        cool_down(&gateway);
        assert_eq!(gateway.get("/").status, 200);
        let seen = upstream.received();
        assert_eq!(presented(&seen[3]), token, "it was tried");
        assert_ne!(presented(&seen[4]), token, "then another one");
        assert_eq!((seen.len(), asked()), (5, 2));
    }
}

#[test]
fn a_provider_that_is_down_at_the_start_stops_nobody_else() {
    let mut idp = Idp::start();
    idp.stop();
    let upstream = Upstream::echo();
    let auth = oauth2(&idp.token_url(), "opaque", CLIENT_SECRET, "cool_down: 1s");
    let gateway = Gateway::start(&config(upstream.address(), "", &auth, ""));
    for _ in 0..3 {
        let answer = gateway.get("/");
        answer.assert_problem(503, "upstream_auth");
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        assert_eq!(gateway.get("/other").text(), "other");
    }
    assert!(upstream.received().is_empty());
    idp.start_again();
    eventually("the provider gives a token", || (gateway.get("/").status == 200).then_some(()));
    assert!(!presented(&upstream.only()).is_empty());
}

#[test]
fn a_wrong_secret_is_logged_with_its_cause_and_nothing_else() {
    let idp = Idp::start();
    let upstream = Upstream::echo();
    let auth = oauth2(&idp.token_url(), "opaque", "wrong-secret", "");
    let gateway = Gateway::start(&config(upstream.address(), "", &auth, ""));
    gateway.get("/").assert_problem(503, "upstream_auth");
    let log = gateway.stderr();
    assert!(log.contains("invalid_client") && !log.contains("wrong-secret"), "{log}");
    assert!(upstream.received().is_empty());
}
