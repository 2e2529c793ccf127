use std::sync::LazyLock;

use futures_util::future::join_all;

use super::*;
use crate::testing::{ctx, parse, refused, reply_values, request, run};

/// Hashes of `secret` and `pass:word`, as cheap as they may be.
static SECRET: LazyLock<String> = LazyLock::new(|| cheap(b"secret"));
static COLON: LazyLock<String> = LazyLock::new(|| cheap(b"pass:word"));
static TAB: LazyLock<String> = LazyLock::new(|| cheap(b"pass\tword"));

fn cheap(password: &[u8]) -> String {
    password::hashed(password, b"0123456789abcdef", argon2::Params::new(8 << 10, 1, 1, None).unwrap()).unwrap()
}

struct Setup {
    plugin: Arc<dyn Plugin>,
    deps: Deps,
}

/// The plugin with the users `alice` (`secret`), `böb` (`pass:word`), and `tab` with a password that nobody may send.
fn setup(yaml: &str) -> Setup {
    let mut consumers = ConsumerDirectory::default();
    for (name, user, hash) in [("alice", "alice", &*SECRET), ("bob", "böb", &*COLON), ("tab", "tab", &*TAB)] {
        let consumer = Arc::new(Consumer::new(name, &[], BTreeMap::new()).unwrap());
        consumers.add_password(user, hash, &consumer).unwrap();
    }
    let clock = Clock::fixed(Duration::from_hours(500_000));
    let deps = Deps { consumers: Arc::new(consumers), clock, ..Deps::default() };
    Setup { plugin: parse(yaml).unwrap().build(&deps).unwrap(), deps }
}

impl Setup {
    /// The consumer, or status and code of the refusal.
    async fn ask(&self, value: &[u8]) -> Result<String, (u16, &'static str)> {
        let (mut req, mut ctx) = (request("GET", &[]), ctx());
        req.append_header("Authorization", HeaderValue::from_bytes(value).unwrap()).unwrap();
        match run(&self.plugin, &mut req, &mut ctx).await {
            None => Ok(ctx.consumer.unwrap().name().to_owned()),
            Some(reply) => {
                assert!(ctx.consumer.is_none() && ctx.refusal.is_some());
                Err((reply.status.as_u16(), reply.code().unwrap()))
            }
        }
    }

    async fn pair(&self, pair: &str) -> Result<String, (u16, &'static str)> {
        self.ask(format!("Basic {}", STANDARD.encode(pair)).as_bytes()).await
    }

    fn checked(&self) -> u64 {
        self.deps.metrics.counter("basic", "checked").get()
    }
}

const INVALID: Result<String, (u16, &str)> = Err((401, "basic_invalid"));

#[tokio::test]
async fn the_right_password_establishes_the_consumer() {
    let setup = setup("basic: {}");
    assert_eq!(setup.pair("alice:secret").await, Ok("alice".into()));
    assert_eq!(setup.pair("böb:pass:word").await, Ok("bob".into()));
    let value = format!("bAsIc   {}", STANDARD.encode("alice:secret"));
    assert_eq!(setup.ask(value.as_bytes()).await, Ok("alice".into()));
}

#[tokio::test]
async fn everything_else_is_one_and_the_same_401() {
    let setup = setup("basic: {}");
    let long = "x".repeat(2000);
    for pair in ["alice:wrong", "alice:", "alice", ":secret", ":", "", "Alice:secret", "alice :secret", "nobody:secret"]
    {
        assert_eq!(setup.pair(pair).await, INVALID, "{pair}");
    }
    for pair in [
        "alice:secret\n",
        "alice:sec\0ret",
        "tab:pass\tword",
        "böb:secret",
        "alice:pass:word",
        &format!("alice:{long}"),
    ] {
        assert_eq!(setup.pair(pair).await, INVALID, "{pair}");
    }
    let unpadded = STANDARD.encode("alice:secret").trim_end_matches('=').to_owned() + "===";
    for value in ["Basic", "Basic !!!!", "Basic YWxpY2U6c2VjcmV0 x", &format!("Basic {unpadded}"), "Basic ZW=="] {
        assert_eq!(setup.ask(value.as_bytes()).await, INVALID, "{value}");
    }
    // `böb:pass:word` in Latin-1.
    assert_eq!(setup.ask(format!("Basic {}", STANDARD.encode(b"b\xf6b:pass:word")).as_bytes()).await, INVALID);
}

#[tokio::test]
async fn no_credentials_are_absent_and_another_scheme_too() {
    let setup = setup("basic: { realm: the shop }");
    for fields in [&[][..], &[("Authorization", "Bearer YWxpY2U6c2VjcmV0")]] {
        let mut req = request("GET", fields);
        let Decision::Absent(reply) = setup.plugin.on_request(&mut req, &mut ctx()).await.unwrap() else { panic!() };
        assert_eq!((reply.status.as_u16(), reply.code()), (401, Some("basic_missing")));
        assert_eq!(reply_values(&reply, "www-authenticate"), "Basic realm=\"the shop\", charset=\"UTF-8\"");
    }
    let value = format!("Basic {}", STANDARD.encode("alice:secret"));
    let mut req = request("GET", &[("Authorization", &value), ("Authorization", &value)]);
    let decision = setup.plugin.on_request(&mut req, &mut ctx()).await.unwrap();
    assert!(matches!(decision, Decision::Respond(_)), "two of them are not absent");
}

#[tokio::test]
async fn the_field_is_hidden_unless_it_is_wanted() {
    for (yaml, hidden) in [("basic: {}", true), ("basic: { hide: false }", false)] {
        let value = format!("Basic {}", STANDARD.encode("alice:secret"));
        let mut req = request("GET", &[("Authorization", &value)]);
        assert!(run(&setup(yaml).plugin, &mut req, &mut ctx()).await.is_none());
        assert_eq!(!req.headers.contains_key("authorization"), hidden);
    }
}

#[tokio::test]
async fn a_right_password_is_remembered_for_a_while_and_a_wrong_one_never() {
    let setup = setup("basic: { cache: { ttl: 30s } }");
    for _ in 0..3 {
        setup.pair("alice:secret").await.unwrap();
    }
    assert_eq!(setup.checked(), 1);
    setup.deps.clock.advance(Duration::from_secs(29));
    setup.pair("alice:secret").await.unwrap();
    assert_eq!(setup.checked(), 1);
    setup.deps.clock.advance(Duration::from_secs(1));
    setup.pair("alice:secret").await.unwrap();
    assert_eq!(setup.checked(), 2);
    for _ in 0..2 {
        assert_eq!(setup.pair("alice:wrong").await, INVALID);
    }
    assert_eq!(setup.checked(), 4);
}

#[tokio::test]
async fn nothing_is_remembered_where_that_is_not_wanted() {
    let setup = setup("basic: { cache: { ttl: 0s } }");
    for _ in 0..2 {
        setup.pair("alice:secret").await.unwrap();
    }
    assert_eq!(setup.checked(), 2);
}

/// Counted, not timed: what takes time is the check of a hash.
#[tokio::test]
async fn a_user_that_nobody_knows_costs_as_many_checks_as_a_known_one() {
    let setup = setup("basic: {}");
    let long = "x".repeat(513);
    for (password, checks) in [("wrong", 1), ("", 1), ("a:b", 1), ("pässword", 1), ("\t", 0), (&long, 0)] {
        for user in ["alice", "böb", "nobody", "somebody else", ""] {
            let before = setup.checked();
            assert_eq!(setup.pair(&format!("{user}:{password}")).await, INVALID);
            assert_eq!(setup.checked() - before, checks, "{user}:{password}");
        }
    }
}

#[tokio::test]
async fn a_decoy_is_as_costly_as_the_hash_of_some_user_and_stays_the_same() {
    let with_cost = |passes: u32| {
        let params = argon2::Params::new(8 << 10, passes, 1, None).unwrap();
        password::hashed(b"secret", b"0123456789abcdef", params).unwrap()
    };
    let mut consumers = ConsumerDirectory::default();
    for (user, passes) in [("alice", 1), ("bob", 3), ("carol", 1)] {
        let consumer = Arc::new(Consumer::new(user, &[], BTreeMap::new()).unwrap());
        consumers.add_password(user, &with_cost(passes), &consumer).unwrap();
    }
    let deps = Deps { consumers: Arc::new(consumers), ..Deps::default() };
    let (one, other) = (Config::default().doorkeeper(&deps).unwrap(), Config::default().doorkeeper(&deps).unwrap());
    let cost = |plugin: &Doorkeeper, n: usize| plugin.decoy(&format!("user-{n}")).unwrap().cost();
    let costs: Vec<u64> = (0..200).map(|n| cost(&one, n)).collect();
    let known: Vec<u64> = [1, 3].map(|passes| password::read(&with_cost(passes)).unwrap().cost()).into();
    assert!(
        costs.iter().all(|cost| known.contains(cost)) && known.iter().all(|cost| costs.contains(cost)),
        "{costs:?}"
    );
    assert_eq!((0..200).map(|n| cost(&other, n)).collect::<Vec<_>>(), costs, "after a reload too");
    assert!(!one.decoy("nobody").unwrap().fits(b"secret"));
}

#[tokio::test]
async fn who_comes_with_the_same_at_the_same_time_waits_for_one_check() {
    let setup = setup("basic: {}");
    let asks = (0..64).map(|_| setup.pair("alice:secret"));
    for outcome in join_all(asks).await {
        assert_eq!(outcome, Ok("alice".into()));
    }
    assert_eq!(setup.checked(), 1);
}

#[tokio::test]
async fn a_crowd_of_guesses_is_told_to_come_back() {
    let setup = setup("basic: {}");
    let pairs: Vec<_> = (0..40).map(|n| format!("alice:guess-{n}")).collect();
    let outcomes = join_all(pairs.iter().map(|pair| setup.pair(pair))).await;
    let busy = outcomes.iter().filter(|outcome| **outcome == Err((503, "basic_busy"))).count();
    assert_eq!(busy, 40 - 16, "{outcomes:?}");
    assert!(outcomes.iter().all(Result::is_err));
    assert_eq!(setup.pair("alice:secret").await, Ok("alice".into()));
}

#[tokio::test]
async fn without_users_nobody_comes_in() {
    let plugin = crate::testing::build("basic: {}").unwrap();
    let value = format!("Basic {}", STANDARD.encode("alice:secret"));
    let reply = run(&plugin, &mut request("GET", &[("Authorization", &value)]), &mut ctx()).await.unwrap();
    assert_eq!(reply.code(), Some("basic_invalid"));
}

#[test]
fn realms_that_break_the_challenge_are_refused() {
    for realm in ["'a\"b'", "'a\\b'", "\"a\\nb\"", "ä"] {
        assert_eq!(refused(&format!("basic: {{ realm: {realm} }}")).0, "realm", "{realm}");
    }
}
