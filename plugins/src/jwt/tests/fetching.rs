//! Keys that are fetched, with an issuer that does as it is told and a clock of tokio's that stands.

use std::{
    collections::HashMap,
    sync::{Mutex, atomic::AtomicUsize},
};

use crossway_plugin_api::{Ask, Fetch, NoAnswer, Told};
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, sleep};

use super::*;

const JWKS: &str = "https://idp.test/keys";
const DISCOVERY: &str = "https://idp.test/.well-known/openid-configuration";

/// Answers by URL; what has none is an error, after a moment.
#[derive(Debug, Default)]
struct FakeIdp {
    answers: Mutex<HashMap<String, (u16, String, String)>>,
    asked: AtomicUsize,
}

#[async_trait]
impl Fetch for FakeIdp {
    async fn fetch(&self, ask: Ask) -> Result<Told, NoAnswer> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        assert!(ask.max_body <= 1 << 20 && ask.timeout <= Duration::from_mins(1));
        sleep(Duration::from_millis(100)).await;
        let answers = self.answers.lock().unwrap();
        let (status, control, body) = answers.get(&ask.url).cloned().ok_or(NoAnswer::Timeout)?;
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, control.parse().unwrap());
        Ok(Told { status: StatusCode::from_u16(status).unwrap(), headers, body: body.into() })
    }
}

impl FakeIdp {
    fn answer(&self, url: &str, status: u16, control: &str, body: &str) {
        self.answers.lock().unwrap().insert(url.into(), (status, control.into(), body.into()));
    }

    fn keys(&self, algorithms: &[&str]) {
        self.answer(JWKS, 200, "", &key_set(algorithms).to_string());
    }

    fn down(&self) {
        self.answers.lock().unwrap().clear();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn deps_of(idp: &Arc<FakeIdp>) -> Deps {
    let fetch: Arc<dyn Fetch> = Arc::clone(idp) as _;
    let deps = Deps { fetch, ..deps() };
    deps.tasks.start(&tokio::runtime::Handle::current());
    deps
}

fn settings(more: &Value) -> Value {
    let mut issuer = rsa_issuer(&json!({ "public_key": null, "jwks_url": JWKS, "algorithms": ["RS256", "ES256"] }));
    for (name, value) in more.as_object().into_iter().flatten() {
        issuer[name] = value.clone();
    }
    json!({ "issuers": [issuer] })
}

fn by(algorithm: &str) -> String {
    named(algorithm, algorithm)
}

fn named(algorithm: &str, kid: &str) -> String {
    signed(algorithm, &json!({ "alg": algorithm, "kid": kid }).to_string(), &claims(&json!({})).to_string())
}

#[tokio::test(start_paused = true)]
async fn the_first_request_waits_for_the_first_keys() {
    let idp = Arc::<FakeIdp>::default();
    idp.keys(&["RS256"]);
    let plugin = build_with(&settings(&json!({})), &deps_of(&idp)).unwrap();
    assert!(bearer(&plugin, &by("RS256")).await.is_let_in());
    assert_eq!(idp.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_keys_tokens_that_could_be_good_are_503_and_others_401() {
    let idp = Arc::<FakeIdp>::default();
    let deps = deps_of(&idp);
    let mut both = settings(&json!({}));
    both["issuers"].as_array_mut().unwrap().push(rsa_issuer(&json!({ "issuer": "two" })));
    let plugin = build_with(&both, &deps).unwrap();
    assert_eq!(bearer(&plugin, &by("RS256")).await.code(), "dependency_failed");
    let began = Instant::now();
    assert_eq!(bearer(&plugin, &by("RS256")).await.code(), "dependency_failed");
    assert_eq!(began.elapsed(), Duration::ZERO, "only the first attempt is waited for");
    for (bad, what) in [
        (token(&json!({ "exp": 1 })), "expired"),
        (token(&json!({ "iss": "https://evil.test" })), "another issuer"),
        ("x".to_owned(), "no token"),
    ] {
        assert_eq!(bearer(&plugin, &bad).await.code(), "jwt_invalid", "{what}");
    }
    assert!(bearer(&plugin, &token(&json!({ "iss": "two" }))).await.is_let_in(), "the other issuer's keys are there");
    assert_eq!(send(&plugin, request("GET", &[])).await.code(), "jwt_missing");
    // It is tried again and again, ever more slowly, and once it answers all is well.
    sleep(Duration::from_mins(5)).await;
    assert!((8..=14).contains(&idp.asked()), "{}", idp.asked());
    idp.keys(&["RS256"]);
    sleep(Duration::from_secs(61)).await;
    assert!(bearer(&plugin, &by("RS256")).await.is_let_in());
    assert_eq!(deps.metrics.counter("jwt", "fetched").get(), 1);
    assert!(deps.metrics.counter("jwt", "unreachable").get() >= 8);
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_no_keys_are_failures() {
    let many = json!({ "keys": vec![key_set(&["RS256"])["keys"][0].clone(); 101] }).to_string();
    for (status, body) in [
        (200, ""),
        (200, "<html>"),
        (200, "{}"),
        (200, "{\"keys\":[]}"),
        (200, many.as_str()),
        (404, &key_set(&["RS256"]).to_string()),
        (302, &key_set(&["RS256"]).to_string()),
    ] {
        let idp = Arc::<FakeIdp>::default();
        idp.answer(JWKS, status, "", body);
        let plugin = build_with(&settings(&json!({})), &deps_of(&idp)).unwrap();
        assert_eq!(bearer(&plugin, &by("RS256")).await.code(), "dependency_failed", "{status} {body}");
        // Nor do they take the place of keys that are there.
        idp.keys(&["RS256"]);
        sleep(Duration::from_secs(2)).await;
        assert!(bearer(&plugin, &by("RS256")).await.is_let_in());
        idp.answer(JWKS, status, "", body);
        sleep(Duration::from_hours(1)).await;
        assert!(bearer(&plugin, &by("RS256")).await.is_let_in());
    }
}

#[tokio::test(start_paused = true)]
async fn discovery_wants_the_very_issuer() {
    let metadata = |issuer: &str, jwks: &str| json!({ "issuer": issuer, "jwks_uri": jwks }).to_string();
    for (body, good) in [
        (metadata(ISSUER, JWKS), true),
        (metadata("https://idp.test/", JWKS), false),
        (metadata("https://evil.test", JWKS), false),
        (metadata(ISSUER, "http://idp.test/keys"), false),
        (metadata(ISSUER, "file:///etc/passwd"), false),
        (json!({ "issuer": ISSUER }).to_string(), false),
        ("[]".to_owned(), false),
    ] {
        let idp = Arc::<FakeIdp>::default();
        idp.keys(&["RS256"]);
        idp.answer("http://idp.test/keys", 200, "", &key_set(&["RS256"]).to_string());
        idp.answer(DISCOVERY, 200, "", &body);
        let mut settings = settings(&json!({ "discovery": true }));
        settings["issuers"][0].as_object_mut().unwrap().remove("jwks_url");
        let plugin = build_with(&settings, &deps_of(&idp)).unwrap();
        let expected = if good { "" } else { "dependency_failed" };
        assert_eq!(bearer(&plugin, &by("RS256")).await.code(), expected, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_verifies_the_one_algorithm_that_its_issuer_names() {
    let idp = Arc::<FakeIdp>::default();
    let mut set = key_set(&["RS256"]);
    set["keys"][0]["alg"] = json!("RS512");
    idp.answer(JWKS, 200, "", &set.to_string());
    let plugin = build_with(&settings(&json!({ "algorithms": ["RS256", "RS512"] })), &deps_of(&idp)).unwrap();
    assert!(bearer(&plugin, &named("RS512", "RS256")).await.is_let_in());
    assert_eq!(bearer(&plugin, &named("RS256", "RS256")).await.code(), "jwt_invalid");
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_found_and_an_old_one_goes() {
    let idp = Arc::<FakeIdp>::default();
    idp.keys(&["RS256"]);
    let plugin = build_with(&settings(&json!({})), &deps_of(&idp)).unwrap();
    let (old, new) = (by("RS256"), by("ES256"));
    assert!(bearer(&plugin, &old).await.is_let_in());
    idp.keys(&["ES256"]);
    assert_eq!(bearer(&plugin, &new).await.code(), "jwt_invalid", "the last fetch was a moment ago");
    assert!(bearer(&plugin, &old).await.is_let_in());
    sleep(Duration::from_secs(10)).await;
    assert!(bearer(&plugin, &new).await.is_let_in(), "an unknown name has the keys fetched");
    assert_eq!(idp.asked(), 2);
    assert_eq!(bearer(&plugin, &old).await.code(), "jwt_invalid", "what was verified with the old keys is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_taken_back_is_refused_after_a_refresh() {
    for (control, last) in
        [("", 300), ("max-age=60", 60), ("public, max-age=\"60\"", 60), ("no-store", 10), ("max-age=99999", 300)]
    {
        let idp = Arc::<FakeIdp>::default();
        idp.answer(JWKS, 200, control, &key_set(&["RS256", "ES256"]).to_string());
        let plugin = build_with(&settings(&json!({})), &deps_of(&idp)).unwrap();
        let token = by("RS256");
        assert!(bearer(&plugin, &token).await.is_let_in());
        idp.answer(JWKS, 200, control, &key_set(&["ES256"]).to_string());
        sleep(Duration::from_secs(last - 1)).await;
        assert!(bearer(&plugin, &token).await.is_let_in(), "{control}");
        sleep(Duration::from_secs(2)).await;
        assert_eq!(bearer(&plugin, &token).await.code(), "jwt_invalid", "{control}");
        assert!(bearer(&plugin, &by("ES256")).await.is_let_in());
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_names_cost_one_fetch_each_cool_down() {
    let idp = Arc::<FakeIdp>::default();
    idp.keys(&["RS256"]);
    let plugin = build_with(&settings(&json!({})), &deps_of(&idp)).unwrap();
    assert!(bearer(&plugin, &by("RS256")).await.is_let_in());
    for round in 1..=3 {
        sleep(Duration::from_secs(11)).await;
        let tokens: Vec<String> = (0..50).map(|n| named("RS256", &format!("kid-{round}-{n}"))).collect();
        let mut flood = Vec::new();
        for token in tokens {
            let plugin = Arc::clone(&plugin);
            flood.push(tokio::spawn(async move { bearer(&plugin, &token).await.code() }));
        }
        for seen in flood {
            assert_eq!(seen.await.unwrap(), "jwt_invalid");
        }
        for n in 0..50 {
            assert_eq!(bearer(&plugin, &named("RS256", &format!("late-{n}"))).await.code(), "jwt_invalid");
        }
        assert_eq!(idp.asked(), 1 + round, "all of them share one fetch");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_keys_serve_while_the_issuer_is_down_but_not_for_ever() {
    let idp = Arc::<FakeIdp>::default();
    idp.keys(&["RS256"]);
    let plugin = build_with(&settings(&json!({ "jwks": { "max_stale": "1h" } })), &deps_of(&idp)).unwrap();
    let token = by("RS256");
    assert!(bearer(&plugin, &token).await.is_let_in());
    idp.down();
    sleep(Duration::from_secs(3590)).await;
    assert!(bearer(&plugin, &token).await.is_let_in());
    assert!(bearer(&plugin, &named("RS256", "RS256")).await.is_let_in());
    sleep(Duration::from_secs(20)).await;
    assert_eq!(bearer(&plugin, &token).await.code(), "dependency_failed", "a token in the cache neither");
    idp.keys(&["RS256"]);
    sleep(Duration::from_secs(61)).await;
    assert!(bearer(&plugin, &token).await.is_let_in());
}

#[tokio::test(start_paused = true)]
async fn keys_outlive_a_reload_and_nothing_outlives_the_last_plugin() {
    let idp = Arc::<FakeIdp>::default();
    idp.keys(&["RS256"]);
    let deps = deps_of(&idp);
    let first = build_with(&settings(&json!({})), &deps).unwrap();
    assert!(bearer(&first, &by("RS256")).await.is_let_in());
    idp.down();
    let mut changed = settings(&json!({ "audiences": ["orders-api"] }));
    changed["realm"] = json!("new");
    let second = build_with(&changed, &deps).unwrap();
    drop(first);
    assert!(bearer(&second, &by("RS256")).await.is_let_in(), "the keys are those that were fetched before");
    let elsewhere = build_with(&settings(&json!({ "jwks_url": "https://idp.test/other" })), &deps).unwrap();
    assert_eq!(bearer(&elsewhere, &by("RS256")).await.code(), "dependency_failed", "another URL, other keys");
    drop((second, elsewhere));
    sleep(Duration::from_secs(1)).await;
    let asked = idp.asked();
    sleep(Duration::from_hours(1)).await;
    assert_eq!(idp.asked(), asked);
}
