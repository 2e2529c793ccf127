//! The token that the gateway gets for itself, from a provider that does as the test says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Provider, SECRET, WAYS, choosy, config, cool_down, counted, fixed::unary, number, rest};
use crate::harness::{
    Answer, Connection, Finish, Gateway, H2Upstream, Response, Upstream, eventually, frame, frames, pass,
};

#[test]
fn a_crowd_waits_for_one_token() {
    const CROWD: usize = 100;
    let go = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&go);
    let provider = Upstream::start(move |_| {
        eventually("the crowd is there", || open.load(Ordering::SeqCst).then_some(()));
        Answer::json(r#"{"access_token":"token-1","token_type":"bearer","expires_in":"600"}"#)
    });
    let upstream = Upstream::echo();
    let url = format!("http://{}/token", provider.address());
    let auth = super::oauth2(&url, "gw", SECRET, "timeout: 20s");
    let gateway = Gateway::start(&config(upstream.address(), "", &auth, ""));
    std::thread::scope(|scope| {
        let _finish = Finish(&go);
        for _ in 0..CROWD {
            scope.spawn(|| assert_eq!(gateway.get("/").status, 200));
        }
        eventually("all have come", || (gateway.metric("crossway_requests_in_flight") == 100.0).then_some(()));
        assert!(upstream.received().is_empty());
    });
    assert_eq!((provider.received().len(), upstream.received().len()), (1, CROWD));
    assert!(upstream.received().iter().all(|seen| number(seen) == Some(1)));
    let asked = provider.only();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/token"));
    assert_eq!(asked.body, b"grant_type=client_credentials");
    let left = gateway.status()["upstreams"][0]["auth"]["token_seconds"].as_u64();
    assert!(left.is_some_and(|left| (500..600).contains(&left)), "{left:?}");
}

#[test]
fn a_token_is_replaced_before_its_end() {
    let provider = Provider::start(",\"expires_in\":4");
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&config(upstream.address(), "", &provider.auth(""), ""));
    // Requests go on all the time; none has to wait for a token, nor is one sent with a token that is over.
    eventually("the third token is used", || {
        assert_eq!(gateway.get("/").status, 200);
        (number(&upstream.received().pop().unwrap()) >= Some(3)).then_some(())
    });
    assert_eq!((counted(&gateway, "missing"), counted(&gateway, "failed")), (0.0, 0.0));
}

#[test]
fn a_token_lives_no_longer_than_is_allowed() {
    for more in [
        ",\"expires_in\":99999",
        ",\"expires_in\":1e300",
        ",\"expires_in\":99999999999999999999",
        "",
        ",\"expires_in\":null",
    ] {
        let provider = Provider::start(more);
        let upstream = Upstream::echo();
        let auth = provider.auth("max_lifetime: 2s");
        let gateway = Gateway::start(&config(upstream.address(), "", &auth, ""));
        eventually("there is another token", || (provider.issued() >= 2).then_some(()));
        assert_eq!(gateway.get("/").status, 200);
    }
}

#[test]
fn what_is_no_good_token_is_not_used() {
    for answer in [
        Answer::json(r#"{"access_token":"a b","token_type":"Bearer"}"#),
        Answer::json(r#"{"access_token":"abc\r\nX-Evil: 1","token_type":"Bearer"}"#),
        Answer::json(r#"{"access_token":"abc","token_type":"mac"}"#),
        Answer::json(r#"{"access_token":"abc","token_type":"Bearer","expires_in":0}"#),
        Answer::json(r#"{"access_token":"abc","token_type":"Bearer","expires_in":-5}"#),
        Answer::json(&format!(
            "{{\"access_token\":\"abc\",\"token_type\":\"Bearer\",\"x\":\"{}\"}}",
            "x".repeat(70_000)
        )),
        Answer::new(302, &[("Location", "/elsewhere")], b""),
        Answer::silence(),
    ] {
        let once = std::sync::Mutex::new(Some(answer));
        let provider =
            Upstream::start(move |_| once.lock().unwrap().take().unwrap_or_else(|| Answer::new(500, &[], b"")));
        let upstream = Upstream::echo();
        let url = format!("http://{}/token", provider.address());
        let auth = super::oauth2(&url, "gw", SECRET, "timeout: 1s, cool_down: 1h");
        let gateway = Gateway::start(&config(upstream.address(), "", &auth, ""));
        for _ in 0..5 {
            gateway.get("/").assert_problem(503, "upstream_auth");
        }
        assert_eq!(provider.received().len(), 1, "it is not asked again and again");
        assert!(upstream.received().is_empty());
    }
}

#[test]
fn while_the_provider_is_down_the_token_in_hand_serves_to_its_end() {
    let provider = Provider::start(",\"expires_in\":8");
    let upstream = Upstream::echo();
    let auth = provider.auth("cool_down: 1s");
    let gateway = Gateway::start(&config(upstream.address(), "", &auth, ""));
    let began = Instant::now();
    assert_eq!(gateway.get("/").status, 200);
    provider.set_up(false);
    eventually("a new token was wanted", || (counted(&gateway, "failed") >= 1.0).then_some(()));
    let answer = gateway.get("/");
    assert!(answer.status == 200 || began.elapsed() > Duration::from_secs(7), "{answer:?}");
    let refused = eventually("the token is over", || Some(gateway.get("/")).filter(|answer| answer.status != 200));
    refused.assert_problem(503, "upstream_auth");
    let before = upstream.received().len();
    for _ in 0..50 {
        gateway.get("/").assert_problem(503, "upstream_auth");
        assert_eq!(gateway.get("/other").status, 200);
    }
    assert_eq!(upstream.received().len(), before, "none of these went on");
    let most = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    assert!(provider.asked() <= most, "{} questions, {most} seconds", provider.asked());
    provider.set_up(true);
    eventually("there is a token again", || (gateway.get("/").status == 200).then_some(()));
    assert!(upstream.received().iter().all(|seen| number(seen).is_some()));
}

#[test]
fn a_refused_token_is_replaced_and_the_request_sent_again_if_its_body_can_be() {
    for (way, plugin) in WAYS {
        let (provider, (upstream, least)) = (Provider::start(""), choosy());
        // The rules for retries allow none: this is no failure of the upstream.
        let auth = provider.auth("cool_down: 1s");
        let settings = "retry: { attempts: 0 },";
        let gateway = Gateway::start(&config(upstream.address(), settings, &auth, plugin));
        let small = vec![b'x'; 10_000];
        for (at, (method, body)) in (2..).zip([("GET", &b""[..]), ("POST", &small)]) {
            cool_down(&gateway);
            least.store(at, Ordering::SeqCst);
            let before = upstream.received().len();
            let answer = gateway.send(&format!("{method} /"), &[], body);
            assert_eq!((answer.status, answer.text().as_str()), (200, "taken"), "{way} {method}");
            let seen = &upstream.received()[before..];
            let tokens: Vec<_> = seen.iter().map(number).collect();
            assert_eq!(tokens, [Some(at - 1), Some(at)], "{way} {method}");
            assert!(seen.iter().all(|seen| seen.body == body), "{way} {method}");
        }
        cool_down(&gateway);
        least.store(4, Ordering::SeqCst);
        let large = vec![b'x'; 300_000];
        let answer = gateway.send("POST /", &[], &large);
        assert_eq!((answer.status, answer.text().as_str()), (401, "refused"), "{way}");
        assert!(answer.header("www-authenticate").is_some());
        assert_eq!(gateway.send("POST /", &[], &large).status, 200, "{way}: the next has another token");
        assert_eq!((provider.issued(), counted(&gateway, "rejected")), (4, 3.0), "{way}");
    }
}

#[test]
fn over_http_2_too() {
    for (way, plugin) in WAYS {
        let (provider, upstream) = (Provider::start(""), H2Upstream::plain());
        let auth = provider.auth("cool_down: 1s");
        let gateway =
            Gateway::start(&config(upstream.address(), "http2: true,", &auth, plugin).replace("websocket: {}, ", ""));
        cool_down(&gateway);
        assert_eq!(gateway.send("POST /unknown/1", &[], b"order").status, 200, "{way}");
        let seen = upstream.seen();
        let shown: Vec<_> = seen.iter().map(|seen| (seen.header("authorization").unwrap(), &seen.body[..])).collect();
        assert_eq!(shown, [("Bearer token-1", &b"order"[..]), ("Bearer token-2", b"order")], "{way}");
        cool_down(&gateway);
        assert_eq!(gateway.get("/unknown/9").status, 401, "{way}");
        assert_eq!(upstream.begun(), 4, "{way}: once more, and no more");
    }
}

#[test]
fn a_body_that_a_plugin_holds_is_sent_again_however_large() {
    let (provider, (upstream, least)) = (Provider::start(""), choosy());
    let plugin = "{ hmac_signature: { style: github, secrets: [s3cret-of-the-hook-0123456789] } }";
    let auth = provider.auth("cool_down: 1s");
    let text = config(upstream.address(), "", &auth, plugin).replace("auth: none, upstream", "upstream");
    let gateway = Gateway::start(&text);
    cool_down(&gateway);
    least.store(2, Ordering::SeqCst);
    let body = vec![b'x'; 300_000];
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"s3cret-of-the-hook-0123456789");
    let signature = ring::hmac::sign(&key, &body);
    let hex: Vec<String> = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = gateway.send("POST /", &[("X-Hub-Signature-256", &format!("sha256={}", hex.concat()))], &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        upstream.received().iter().map(|seen| (number(seen), seen.body.len())).collect::<Vec<_>>(),
        [(Some(1), 300_000), (Some(2), 300_000)]
    );
}

/// A page that answers 401 to everybody: no token is taken from the others for it, and the provider is not asked all the
/// time.
#[test]
fn a_storm_of_refusals_is_no_storm_of_questions() {
    let provider = Provider::start("");
    let upstream =
        Upstream::start(
            |request| {
                if request.target == "/closed" { Answer::new(401, &[], b"") } else { Answer::ok("open") }
            },
        );
    let gateway = Gateway::start(&config(upstream.address(), "", &provider.auth("cool_down: 1s"), ""));
    let (began, address, done) = (Instant::now(), gateway.address(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _finish = Finish(&done);
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connection = Connection::open(&address);
                while !done.load(Ordering::SeqCst) {
                    connection.send(b"GET /closed HTTP/1.1\r\nHost: t\r\n\r\n");
                    assert_eq!(connection.read("GET").unwrap().status, 401);
                }
            });
        }
        eventually("there were many", || (counted(&gateway, "rejected") > 300.0).then_some(()));
        pass(Duration::from_millis(2500));
        assert_eq!(gateway.get("/open").status, 200);
        provider.set_up(false);
        pass(Duration::from_millis(1500));
        assert_eq!(gateway.get("/open").status, 200, "a token that one page does not take serves the others");
    });
    let most = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    assert!((3..=most).contains(&provider.asked()), "{} questions, {most} seconds", provider.asked());
}

#[test]
fn a_provider_that_gives_the_same_token_again_makes_no_second_attempt() {
    let provider = Upstream::start(|_| Answer::json(r#"{"access_token":"token-1","token_type":"Bearer"}"#));
    let (upstream, least) = choosy();
    let url = format!("http://{}/token", provider.address());
    let auth = super::oauth2(&url, "gw", SECRET, "cool_down: 1s");
    let gateway = Gateway::start(&config(upstream.address(), "", &auth, ""));
    assert_eq!(gateway.get("/").status, 200);
    cool_down(&gateway);
    least.store(2, Ordering::SeqCst);
    assert_eq!(gateway.get("/").status, 401);
    assert_eq!((provider.received().len(), upstream.received().len()), (2, 2));
}

/// However often there is another token by the time of the next answer.
#[test]
fn a_request_is_sent_once_more_and_not_again() {
    for (way, plugin) in WAYS {
        let provider = Provider::start("");
        let upstream = Upstream::start(|_| {
            rest();
            Answer::new(401, &[], b"")
        });
        let auth = provider.auth("cool_down: 1s");
        let gateway = Gateway::start(&config(upstream.address(), "", &auth, plugin));
        assert_eq!(gateway.get("/").status, 401, "{way}");
        assert_eq!((upstream.received().len(), provider.issued()), (2, 3), "{way}");
    }
}

/// A gateway that takes calls by gRPC-web.
fn calls(upstream: &H2Upstream, provider: &Provider) -> String {
    let auth = provider.auth("cool_down: 1s");
    config(upstream.address(), "http2: true,", &auth, "").replace("websocket: {}", "grpc_web: true")
}

/// The status of a call in the frame of its trailers.
fn ended_with(answer: &Response) -> String {
    let (_, trailers) = frames(&answer.body).into_iter().find(|(kind, _)| *kind == 0x80).expect("trailers");
    let trailers = String::from_utf8(trailers).unwrap();
    trailers.lines().find_map(|line| line.strip_prefix("grpc-status:")).expect("a status").trim().to_owned()
}

#[test]
fn a_call_that_is_not_authenticated_is_made_again() {
    let (provider, upstream) = (Provider::start(""), H2Upstream::plain());
    let gateway = Gateway::start(&calls(&upstream, &provider));
    cool_down(&gateway);
    let answer = unary(&gateway, "Only", &[("X-Status", "16")]);
    assert_eq!(answer.header("grpc-status"), Some("16"), "{answer:?}");
    assert_eq!((upstream.begun(), provider.issued()), (2, 2));
    let tokens: Vec<_> = upstream.seen().iter().map(|seen| seen.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(tokens, ["Bearer token-1", "Bearer token-2"]);
    assert_eq!(unary(&gateway, "Only", &[("X-Status", "7")]).header("grpc-status"), Some("7"));
    assert_eq!((upstream.begun(), provider.issued()), (3, 2), "another status is not about the token");
}

/// A server may send the status of a call without messages in trailers of their own.
#[test]
fn a_call_that_is_not_authenticated_in_its_trailers_is_made_again() {
    let (provider, upstream) = (Provider::start(""), H2Upstream::plain());
    let gateway = Gateway::start(&calls(&upstream, &provider));
    cool_down(&gateway);
    let answer = unary(&gateway, "Status", &[("X-Refused", "Bearer token-1"), ("X-Status", "0")]);
    assert_eq!(ended_with(&answer), "0", "{answer:?}");
    assert_eq!((upstream.begun(), provider.issued(), counted(&gateway, "rejected")), (2, 2, 1.0));
    assert!(upstream.seen().iter().all(|seen| seen.body == frame(b"hello")));
    assert_eq!(ended_with(&unary(&gateway, "Status", &[("X-Status", "7")])), "7");
    assert_eq!((upstream.begun(), counted(&gateway, "rejected")), (3, 1.0), "another status is not about the token");
    cool_down(&gateway);
    assert_eq!(ended_with(&unary(&gateway, "Status", &[("X-Status", "16")])), "16");
    assert_eq!((upstream.begun(), counted(&gateway, "rejected")), (5, 3.0), "once more, and no more");
}

/// Messages are on their way to the client: the call ends as it does, and the next one has another token.
#[test]
fn a_call_that_is_not_authenticated_behind_its_messages_makes_a_new_token() {
    let (provider, upstream) = (Provider::start(""), H2Upstream::plain());
    let gateway = Gateway::start(&calls(&upstream, &provider));
    let call = || unary(&gateway, "Unary", &[("X-Refused", "Bearer token-1")]);
    cool_down(&gateway);
    let answer = call();
    assert_eq!((ended_with(&answer).as_str(), frames(&answer.body)[0].1.as_slice()), ("16", &b"hello"[..]));
    assert_eq!((upstream.begun(), provider.issued(), counted(&gateway, "rejected")), (1, 2, 1.0));
    assert_eq!(ended_with(&call()), "0");
    assert_eq!((upstream.begun(), provider.issued(), counted(&gateway, "rejected")), (2, 2, 1.0));
}

/// A header that comes long before anything else is not held for what may follow.
#[test]
fn the_header_of_a_call_that_goes_on_reaches_the_client() {
    let (provider, upstream) = (Provider::start(""), H2Upstream::plain());
    let gateway = Gateway::start(&calls(&upstream, &provider));
    let mut connection = Connection::open(&gateway.address());
    connection.send(
        b"POST /echo.Echo/Bidi HTTP/1.1\r\nHost: t\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: 10\r\n\r\n",
    );
    let (head, _) = connection.read_some(0).expect("a header");
    assert_eq!(head.status, 200);
    connection.send(&frame(b"hello"));
    eventually("the call is over", || upstream.seen().pop().filter(|seen| seen.body == frame(b"hello")));
}

#[test]
fn a_reload_keeps_a_token_whose_settings_stay() {
    let (provider, upstream) = (Provider::start(""), Upstream::echo());
    let with = |settings: &str, more: &str| config(upstream.address(), settings, &provider.auth(more), "");
    let mut gateway = Gateway::start(&with("", ""));
    let used = |gateway: &Gateway| {
        assert_eq!(gateway.get("/").status, 200);
        number(&upstream.received().pop().unwrap())
    };
    assert_eq!(used(&gateway), Some(1));
    assert_eq!(gateway.reload(&with("timeouts: { total: 9s },", "")).status, 200);
    assert_eq!((used(&gateway), provider.asked()), (Some(1), 1), "the upstream changed, not the token");
    assert_eq!(gateway.reload(&with("", "scopes: [a]")).status, 200);
    assert_eq!((used(&gateway), provider.asked()), (Some(2), 2));
    let other = with("", "scopes: [a]").replace(SECRET, "another-secret");
    assert_eq!(gateway.reload(&other).status, 200);
    assert_eq!((used(&gateway), provider.asked()), (Some(3), 3), "a secret is a setting");
    assert_eq!(gateway.reload(&config(upstream.address(), "", "bearer: { token: fixed }", "")).status, 200);
    assert_eq!(used(&gateway), None);
    assert_eq!(upstream.received().pop().unwrap().header("authorization"), Some("Bearer fixed"));
    assert_eq!(gateway.status()["upstreams"][0]["auth"]["token_seconds"], serde_json::Value::Null);
}
