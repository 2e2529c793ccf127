use std::{collections::BTreeMap, sync::Mutex};

use bytes::Bytes;
use crossway_plugin_api::{Ask, Consumer, Credential, NoAnswer, Told};
use futures_util::future::join_all;
use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::testing::{ctx, flood, parse, refused, reply_values, request, values};

const NOW: u64 = 1_800_000_000;

/// An issuer that gives one answer, and remembers the questions.
#[derive(Debug)]
struct Issuer {
    answer: Mutex<Result<(u16, String), NoAnswer>>,
    asked: Mutex<Vec<Ask>>,
}

#[async_trait]
impl Fetch for Issuer {
    async fn fetch(&self, ask: Ask) -> Result<Told, NoAnswer> {
        self.asked.lock().unwrap().push(ask);
        tokio::task::yield_now().await;
        let (status, body) = self.answer.lock().unwrap().clone()?;
        Ok(Told { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body: Bytes::from(body) })
    }
}

struct Setup {
    plugin: Arc<dyn Plugin>,
    issuer: Arc<Issuer>,
    clock: Clock,
}

fn setup(settings: &str, answer: &serde_json::Value) -> Setup {
    raw(settings, Ok((200, answer.to_string())))
}

fn raw(settings: &str, answer: Result<(u16, String), NoAnswer>) -> Setup {
    let mut consumers = ConsumerDirectory::default();
    let consumer = Arc::new(Consumer::new("acme", &[], BTreeMap::new()).unwrap());
    let credential = Credential::Token { issuer: "https://idp.test".into(), subject: "user-7".into() };
    consumers.add_credential(credential, &consumer).unwrap();
    let issuer = Arc::new(Issuer { answer: Mutex::new(answer), asked: Mutex::default() });
    let clock = Clock::fixed(Duration::from_secs(NOW));
    let fetch = Arc::clone(&issuer) as Arc<dyn Fetch>;
    let deps = Deps { consumers: Arc::new(consumers), fetch, clock: clock.clone(), ..Deps::default() };
    let yaml = format!(
        "oauth2_introspection: {{ url: \"http://idp.test/introspect\", client_id: gw, client_secret: \"s:&\", {settings} }}"
    );
    Setup { plugin: parse(&yaml).unwrap().build(&deps).unwrap(), issuer, clock }
}

type Outcome = Result<Option<String>, (u16, &'static str)>;

impl Setup {
    async fn ask(&self, token: &str) -> Outcome {
        let mut ctx = ctx();
        let mut req = request("GET", &[("Authorization", &format!("Bearer {token}"))]);
        match self.plugin.on_request(&mut req, &mut ctx).await {
            Ok(Decision::Continue) => {
                assert!(ctx.claims.is_some());
                Ok(ctx.consumer.map(|consumer| consumer.name().to_owned()))
            }
            Ok(Decision::Respond(reply)) => {
                assert!(ctx.claims.is_none() && ctx.consumer.is_none() && ctx.refusal.is_some());
                Err((reply.status.as_u16(), reply.code().unwrap()))
            }
            Ok(Decision::Absent(reply)) => panic!("{reply:?}"),
            Err(Fault::Dependency(_)) => Err((503, "dependency_failed")),
            Err(fault) => panic!("{fault}"),
        }
    }

    fn asked(&self) -> usize {
        self.issuer.asked.lock().unwrap().len()
    }

    fn answer(&self, answer: &serde_json::Value) {
        *self.issuer.answer.lock().unwrap() = Ok((200, answer.to_string()));
    }
}

const INVALID: Outcome = Err((401, "introspection_token_invalid"));
const DOWN: Outcome = Err((503, "dependency_failed"));
const GOOD: Outcome = Ok(None);

#[tokio::test]
async fn the_issuer_is_asked_as_rfc_7662_says() {
    for (settings, form, authorization) in [
        ("", "token=a%2Bb%2F%3D&token_type_hint=access_token", "Basic Z3c6cyUzQSUyNg=="),
        ("client_auth: post", "token=a%2Bb%2F%3D&token_type_hint=access_token&client_id=gw&client_secret=s%3A%26", ""),
    ] {
        let setup = setup(settings, &json!({"active": true}));
        assert_eq!(setup.ask("a+b/=").await, GOOD);
        let asked = setup.issuer.asked.lock().unwrap();
        let ask = &asked[0];
        assert_eq!((ask.method.as_str(), ask.url.as_str()), ("POST", "http://idp.test/introspect"));
        assert_eq!(String::from_utf8_lossy(&ask.body), form);
        assert_eq!(values(&ask.headers, "authorization"), authorization);
        assert_eq!(values(&ask.headers, "content-type"), "application/x-www-form-urlencoded");
        assert_eq!(values(&ask.headers, "accept"), "application/json");
    }
}

#[tokio::test]
async fn only_what_is_surely_active_passes() {
    for (answer, expected) in [
        (json!({"active": true}), GOOD),
        (json!({"active": false}), INVALID),
        (json!({"active": false, "sub": "user-7", "exp": NOW + 60}), INVALID),
        (json!({"active": "true"}), DOWN),
        (json!({"active": 1}), DOWN),
        (json!({"active": null}), DOWN),
        (json!({"sub": "user-7"}), DOWN),
        (json!([true]), DOWN),
        (json!({"active": true, "exp": NOW}), INVALID),
        (json!({"active": true, "exp": NOW - 1}), INVALID),
        (json!({"active": true, "exp": NOW + 1}), GOOD),
        (json!({"active": true, "exp": 1_800_000_000.5}), GOOD),
        (json!({"active": true, "exp": "2100-01-01"}), INVALID),
        (json!({"active": true, "exp": -1}), INVALID),
        (json!({"active": true, "nbf": NOW + 1}), INVALID),
        (json!({"active": true, "nbf": NOW}), GOOD),
        (json!({"active": true, "token_type": "Bearer"}), GOOD),
        (json!({"active": true, "token_type": "DPoP"}), INVALID),
        (json!({"active": true, "token_type": 7}), INVALID),
        (json!({"active": true, "cnf": {"jkt": "x"}}), INVALID),
    ] {
        assert_eq!(setup("", &answer).ask("t").await, expected, "{answer}");
    }
    for broken in [
        Ok((500, r#"{"active":true}"#.to_owned())),
        Ok((302, r#"{"active":true}"#.to_owned())),
        Ok((401, r#"{"active":true}"#.to_owned())),
        Ok((200, "active".to_owned())),
        Ok((200, String::new())),
        Err(NoAnswer::Timeout),
        Err(NoAnswer::TooLarge(1)),
        Err(NoAnswer::Failed("no connection".into())),
    ] {
        let setup = raw("", broken.clone());
        for _ in 0..2 {
            assert_eq!(setup.ask("t").await, DOWN, "{broken:?}");
        }
        assert_eq!(setup.asked(), 2, "a failure is not remembered");
    }
}

#[tokio::test]
async fn issuer_and_audience_are_compared_whole() {
    let strict = "issuer: \"https://idp.test\", audiences: [orders, invoices]";
    for (claims, expected) in [
        (json!({"iss": "https://idp.test", "aud": "orders"}), GOOD),
        (json!({"iss": "https://idp.test", "aud": ["x", "invoices"]}), GOOD),
        (json!({"aud": "orders"}), GOOD),
        (json!({"iss": "https://idp.test/", "aud": "orders"}), INVALID),
        (json!({"iss": "https://idp.test.evil", "aud": "orders"}), INVALID),
        (json!({"iss": ["https://idp.test"], "aud": "orders"}), INVALID),
        (json!({"iss": null, "aud": "orders"}), INVALID),
        (json!({"iss": "https://idp.test"}), INVALID),
        (json!({"iss": "https://idp.test", "aud": "orders-2"}), INVALID),
        (json!({"iss": "https://idp.test", "aud": ["order", 7]}), INVALID),
        (json!({"iss": "https://idp.test", "aud": {"orders": 1}}), INVALID),
    ] {
        let mut answer = claims.clone();
        answer["active"] = json!(true);
        assert_eq!(setup(strict, &answer).ask("t").await, expected, "{claims}");
    }
}

#[tokio::test]
async fn the_consumer_is_who_the_token_is_about() {
    let good = json!({"active": true, "iss": "https://idp.test", "sub": "user-7", "account": {"id": "user-7"}});
    assert_eq!(setup("require_consumer: true", &good).ask("t").await, Ok(Some("acme".into())));
    assert_eq!(setup("consumer_claim: account.id", &good).ask("t").await, Ok(Some("acme".into())));
    assert_eq!(setup("consumer_claim: username", &good).ask("t").await, GOOD);
    let bare = json!({"active": true, "sub": "user-7"});
    assert_eq!(setup("issuer: \"https://idp.test\"", &bare).ask("t").await, Ok(Some("acme".into())));
    assert_eq!(setup("", &bare).ask("t").await, GOOD, "nobody knows whose user-7 it is");
    assert_eq!(setup("require_consumer: true", &bare).ask("t").await, INVALID);
    let other = json!({"active": true, "iss": "https://other.test", "sub": "user-7"});
    assert_eq!(setup("require_consumer: true", &other).ask("t").await, INVALID);
}

#[tokio::test]
async fn scopes_are_whole_words() {
    let settings = "require: { scopes: { all: [read], any: [admin, \"orders:write\"] } }";
    for (scope, good) in [
        (json!("read admin"), true),
        (json!("orders:write  read"), true),
        (json!(["read", "admin"]), true),
        (json!("read"), false),
        (json!("admin"), false),
        (json!("readadmin"), false),
        (json!("read\tadmin"), false),
        (json!("Read admin"), false),
        (json!(""), false),
        (json!(7), false),
    ] {
        let setup = setup(settings, &json!({"active": true, "scope": scope}));
        let expected = if good { GOOD } else { Err((403, "introspection_scope_missing")) };
        assert_eq!(setup.ask("t").await, expected, "{scope}");
    }
    let setup = setup(settings, &json!({"active": true}));
    let mut req = request("GET", &[("Authorization", "Bearer t")]);
    let Ok(Decision::Respond(reply)) = setup.plugin.on_request(&mut req, &mut ctx()).await else { panic!() };
    assert_eq!(
        reply_values(&reply, "www-authenticate"),
        "Bearer realm=\"crossway\", error=\"insufficient_scope\", scope=\"read admin orders:write\""
    );
}

#[tokio::test]
async fn challenges_are_those_of_rfc_6750() {
    let setup = setup("", &json!({"active": false}));
    let too_long = format!("Bearer {}", "x".repeat(MAX_TOKEN + 1));
    for (fields, absent, challenge) in [
        (&[][..], true, "Bearer realm=\"crossway\""),
        (&[("Authorization", "Basic YTpi")][..], true, "Bearer realm=\"crossway\""),
        (&[("Authorization", "Bearer t")][..], false, "Bearer realm=\"crossway\", error=\"invalid_token\""),
        (&[("Authorization", "Bearer")][..], false, "Bearer realm=\"crossway\", error=\"invalid_token\""),
        (&[("Authorization", "Bearer a, Bearer b")][..], false, "Bearer realm=\"crossway\", error=\"invalid_token\""),
        (&[("Authorization", "Bearer\ta")][..], false, "Bearer realm=\"crossway\", error=\"invalid_token\""),
        (&[("Authorization", too_long.as_str())][..], false, "Bearer realm=\"crossway\", error=\"invalid_token\""),
    ] {
        let decision = setup.plugin.on_request(&mut request("GET", fields), &mut ctx()).await.unwrap();
        let (is_absent, reply) = match decision {
            Decision::Absent(reply) => (true, reply),
            Decision::Respond(reply) => (false, reply),
            Decision::Continue => panic!("{fields:?}"),
        };
        assert_eq!((is_absent, reply.status.as_u16()), (absent, 401), "{fields:?}");
        assert_eq!(reply_values(&reply, "www-authenticate"), challenge, "{fields:?}");
    }
    assert_eq!(setup.asked(), 1, "what is no token is not asked about");
}

#[tokio::test]
async fn a_request_carries_one_token() {
    let setup = setup("", &json!({"active": true}));
    let fields = |values: &[&str]| {
        let mut req = request("GET", &[]);
        for value in values {
            req.append_header("Authorization", *value).unwrap();
        }
        req
    };
    let mut beside = fields(&["Bearer a"]);
    beside.set_uri("/items/7?access_token=b".parse().unwrap());
    for mut req in [
        beside,
        fields(&["Bearer a", "Bearer a"]),
        fields(&["Bearer a", "Basic YTpi"]),
        fields(&["Basic YTpi", "Bearer a"]),
        fields(&["Basic YTpi", "Basic YTpi"]),
    ] {
        let mut ctx = ctx();
        let Ok(Decision::Respond(reply)) = setup.plugin.on_request(&mut req, &mut ctx).await else { panic!("{req:?}") };
        assert_eq!((reply.status.as_u16(), reply.code()), (400, Some("introspection_token_several")));
        let challenge = reply_values(&reply, "www-authenticate");
        assert_eq!(challenge, "Bearer realm=\"crossway\", error=\"invalid_request\"");
        assert!(ctx.refusal.is_some());
    }
    assert_eq!(setup.asked(), 0);
    let mut req = request("GET", &[]);
    req.set_uri("/items/7?access_token=b".parse().unwrap());
    let absent = setup.plugin.on_request(&mut req, &mut ctx()).await;
    assert!(matches!(absent, Ok(Decision::Absent(_))), "a token of the query alone is not looked at");
}

#[tokio::test]
async fn the_token_is_hidden_unless_it_is_wanted() {
    for (settings, hidden) in [("", true), ("hide: false", false)] {
        let setup = setup(settings, &json!({"active": true}));
        let mut req = request("GET", &[("Authorization", "Bearer t")]);
        assert!(matches!(setup.plugin.on_request(&mut req, &mut ctx()).await, Ok(Decision::Continue)));
        assert_eq!(!req.headers.contains_key("authorization"), hidden);
    }
}

#[tokio::test]
async fn answers_are_remembered_and_never_past_the_end_of_the_token() {
    let good = json!({"active": true, "exp": NOW + 45});
    let setup = setup("cache: { ttl: 30s, negative_ttl: 10s }", &good);
    let at = |seconds: u64| {
        setup.clock.advance(Duration::from_secs(seconds + NOW).checked_sub(setup.clock.since_epoch()).unwrap());
    };
    for (seconds, asked, outcome) in [(0, 1, GOOD), (29, 1, GOOD), (30, 2, GOOD), (44, 2, GOOD)] {
        at(seconds);
        assert_eq!((setup.ask("t").await, setup.asked()), (outcome, asked), "{seconds}");
    }
    at(45);
    assert_eq!((setup.ask("t").await, setup.asked()), (INVALID, 3), "the issuer is mistaken, the token is over");
    at(54);
    assert_eq!((setup.ask("t").await, setup.asked()), (INVALID, 3));
    setup.answer(&json!({"active": true}));
    at(55);
    assert_eq!((setup.ask("t").await, setup.asked()), (GOOD, 4));
    assert_eq!((setup.ask("T").await, setup.asked()), (GOOD, 5), "another token");
}

#[tokio::test]
async fn those_with_the_same_token_wait_for_one_answer() {
    let setup = setup("", &json!({"active": true}));
    for outcome in join_all((0..100).map(|_| setup.ask("t"))).await {
        assert_eq!(outcome, GOOD);
    }
    assert_eq!(setup.asked(), 1);
}

#[tokio::test]
async fn many_tokens_leave_little_behind() {
    let setup = setup("cache: { ttl: 1h, negative_ttl: 1h }", &json!({"active": true, "about": "x".repeat(8000)}));
    for n in 0..3000 {
        assert_eq!(setup.ask(&format!("token-{n}")).await, GOOD);
    }
    assert_eq!(setup.asked(), 3000);
    for n in 0..3000 {
        setup.ask(&format!("token-{n}")).await.unwrap();
    }
    assert!(setup.asked() > 4000, "most of 90 MiB was not kept: {}", setup.asked());
}

#[test]
fn settings_that_cannot_hold_are_refused() {
    let with = |settings: &str| {
        refused(&format!("oauth2_introspection: {{ url: \"http://i/\", client_id: a, client_secret: b, {settings} }}"))
            .0
    };
    assert_eq!(refused("oauth2_introspection: { url: x, client_id: a, client_secret: b }").0, "url");
    assert_eq!(with("timeout: 0s"), "timeout");
    assert_eq!(with("consumer_claim: \"\""), "consumer_claim");
    assert_eq!(with("require: { scopes: { any: [\"a b\"] } }"), "require/scopes/any");
    assert_eq!(with("require: { scopes: { all: [\"\"] } }"), "require/scopes/all");
}

/// Counts, and remembers nothing.
#[derive(Debug, Default)]
struct Refusing(std::sync::atomic::AtomicUsize);

#[async_trait]
impl Fetch for Refusing {
    async fn fetch(&self, _: Ask) -> Result<Told, NoAnswer> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let body = Bytes::from_static(br#"{"active":false}"#);
        Ok(Told { status: StatusCode::OK, headers: HeaderMap::new(), body })
    }
}

#[tokio::test]
async fn a_flood_of_bad_tokens_is_remembered_within_its_bound() {
    let flood = flood();
    // A quarter of them, if the bound that serves is not less.
    let room = (u64::try_from(flood).unwrap() * u64::from(answer::BARE) / 4).min(REMEMBERED);
    let config: Config = serde_yaml::from_str(
        "{ url: \"http://idp.test/\", client_id: gw, client_secret: s, cache: { negative_ttl: 1h } }",
    )
    .unwrap();
    let issuer = Arc::new(Refusing::default());
    let deps = Deps { fetch: Arc::clone(&issuer) as Arc<dyn Fetch>, ..Deps::default() };
    let plugin = config.introspector(&deps, room).unwrap();
    for n in 0..flood {
        let verdict = plugin.verdict(&format!("token-{n}")).await.unwrap();
        assert!(verdict.caller.is_err());
    }
    assert_eq!(issuer.0.load(std::sync::atomic::Ordering::Relaxed), flood, "each was another one");
    plugin.known.run_pending_tasks().await;
    let (entries, bytes) = (plugin.known.entry_count(), plugin.known.weighted_size());
    assert!(bytes <= room && entries * u64::from(answer::BARE) <= room, "{entries} entries, {bytes} bytes");
    assert!(entries > 0, "some are remembered");
}
