use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crossway_plugin_api::{Claims, Consumer, ConsumerDirectory, PathParams};
use serde_json::{Value, json};

use super::*;
use crate::testing::{parse, reply_values, request};

mod expressions;

fn deps() -> Deps {
    let mut consumers = ConsumerDirectory::default();
    for (name, groups) in [("alice", vec!["gold", "staff"]), ("bob", vec!["silver"])] {
        let groups: Vec<String> = groups.into_iter().map(str::to_owned).collect();
        let notes = BTreeMap::from([("tier".to_owned(), "1".to_owned())]);
        consumers.add(&Arc::new(Consumer::new(name, &groups, notes).unwrap()));
    }
    let clock = Clock::fixed(Duration::from_secs(1_700_000_000));
    Deps { consumers: Arc::new(consumers), clock, ..Deps::default() }
}

fn build(settings: &str) -> Result<Arc<dyn Plugin>, InvalidConfig> {
    parse(&format!("authorize: {settings}")).unwrap().build(&deps())
}

/// The settings must be refused: where and why.
fn refused(settings: &str) -> (String, String) {
    match build(settings) {
        Ok(_) => panic!("accepted: {settings}"),
        Err(wrong) => (wrong.field, wrong.reason),
    }
}

/// A request by this consumer, with this token, for a path with the parameters `tenant` and `rest`.
fn ctx(consumer: Option<&str>, claims: Option<Value>, tenant: &str) -> Ctx {
    let path = format!("/{tenant}/orders/7");
    let mut ctx = Ctx::new("192.0.2.7".parse().unwrap(), "api.example.com".into(), path.as_str().into());
    let end = tenant.len() + 1;
    ctx.params =
        PathParams { names: ["tenant", "rest"].map(Arc::from).into(), values: vec![1..end, end + 1..path.len()] };
    ctx.consumer = consumer.map(|name| Arc::clone(deps().consumers.named(name).unwrap()));
    ctx.claims = claims.map(|value| match value {
        Value::Object(members) => Arc::new(Claims::new(members)),
        other => panic!("{other}"),
    });
    ctx
}

/// The answer to a request: none if it may go on.
async fn answer(settings: &str, method: &str, ctx: &mut Ctx) -> Option<Reply> {
    let plugin = build(settings).unwrap_or_else(|wrong| panic!("{settings}: {wrong}"));
    crate::testing::run(&plugin, &mut request(method, &[]), ctx).await
}

async fn passes(settings: &str, mut ctx: Ctx) -> bool {
    let reply = answer(settings, "GET", &mut ctx).await;
    assert_eq!(reply.is_some(), ctx.refusal.is_some(), "a refusal has its reason for the log");
    reply.is_none()
}

#[tokio::test]
async fn scopes_are_compared_as_a_whole() {
    for (settings, claims, expected) in [
        ("any: [read]", json!({"scope": "read"}), true),
        ("any: [read]", json!({"scope": "readwrite admin:read"}), false),
        ("any: [admin]", json!({"scope": "readwrite admin:read"}), false),
        ("any: [read]", json!({"scope": "READ"}), false),
        ("any: [read]", json!({"scope": "write\tread"}), false),
        ("any: [read]", json!({"scope": ""}), false),
        ("any: [read]", json!({}), false),
        ("any: [read]", json!({"scp": ["write", "read"]}), true),
        ("any: [read]", json!({"scp": ["write read"]}), false),
        ("any: [read, write]", json!({"scope": "write"}), true),
        ("all: [read, write]", json!({"scope": "write"}), false),
        ("all: [read, write]", json!({"scope": "write x read"}), true),
        ("all: [read, read]", json!({"scope": "read"}), true),
        ("any: [a, b], all: [c]", json!({"scope": "a b"}), false),
        ("any: [a, b], all: [c]", json!({"scope": "c"}), false),
        ("any: [a, b], all: [c]", json!({"scope": "c b"}), true),
    ] {
        let settings = format!("{{ scopes: {{ {settings} }} }}");
        assert_eq!(passes(&settings, ctx(None, Some(claims.clone()), "x")).await, expected, "{settings} {claims}");
    }
    let many: Vec<String> = (0..10_000).map(|n| format!("s{n}")).collect();
    let token = ctx(None, Some(json!({"scope": many.join(" ")})), "x");
    assert!(passes("{ scopes: { all: [s0, s9999] } }", token).await);
    let all: Vec<&str> = many.iter().take(64).map(String::as_str).collect();
    let settings = format!("{{ scopes: {{ all: [{}] }} }}", all.join(", "));
    assert!(passes(&settings, ctx(None, Some(json!({"scope": all.join(" ")})), "x")).await);
    assert!(!passes(&settings, ctx(None, Some(json!({"scope": all[..63].join(" ")})), "x")).await);
}

#[tokio::test]
async fn all_claims_must_hold() {
    let settings = "{ claims: { tenant: [acme, globex], realm_access.roles: 'order-*', active: true } }";
    let token = |tenant: &str, roles: Value, active: Value| {
        ctx(None, Some(json!({"tenant": tenant, "realm_access": {"roles": roles}, "active": active})), "x")
    };
    assert!(passes(settings, token("globex", json!(["x", "order-desk"]), json!(true))).await);
    assert!(!passes(settings, token("initech", json!(["x", "order-desk"]), json!(true))).await);
    assert!(!passes(settings, token("acme", json!(["x"]), json!(true))).await);
    assert!(!passes(settings, token("acme", json!(["order-desk"]), json!("true"))).await);
    assert!(!passes(settings, ctx(None, Some(json!({})), "x")).await);
    assert!(!passes(settings, ctx(Some("alice"), None, "x")).await, "a consumer without a token has no claims");
}

#[tokio::test]
async fn groups_may_do_what_is_listed() {
    let settings = "{ groups: { silver: { methods: [GET], paths: ['/x/*'] }, gold: {} } }";
    for (consumer, method, tenant, expected) in [
        ("alice", "DELETE", "y", true),
        ("bob", "GET", "x", true),
        ("bob", "HEAD", "x", true),
        ("bob", "POST", "x", false),
        ("bob", "get", "x", false),
        ("bob", "GET", "y", false),
        ("bob", "GET", "xx", false),
    ] {
        let mut ctx = ctx(Some(consumer), None, tenant);
        let reply = answer(settings, method, &mut ctx).await;
        assert_eq!(reply.is_none(), expected, "{consumer} {method} {tenant}");
    }
    let only = "{ groups: { silver: {} } }";
    assert!(!passes(only, ctx(Some("alice"), None, "x")).await, "alice is not of bob's group");
    let by_token = "{ groups: { silver: {}, auditor: {} }, groups_claim: realm.roles }";
    for (roles, expected) in [
        (json!(["x", "auditor"]), true),
        (json!("silver"), true),
        (json!("silver auditor"), false),
        (json!(["Silver"]), false),
        (json!([["silver"]]), false),
        (json!({"silver": true}), false),
    ] {
        let token = ctx(None, Some(json!({"realm": {"roles": roles}})), "x");
        assert_eq!(passes(by_token, token).await, expected, "{roles}");
    }
    assert!(passes(by_token, ctx(Some("bob"), Some(json!({})), "x")).await, "the consumer's own groups count too");
    assert!(!passes(only, ctx(None, Some(json!({"groups": ["silver"]})), "x")).await, "no claim was named");
}

#[tokio::test]
async fn consumers_and_networks_are_those_listed() {
    assert!(passes("{ consumers: [alice] }", ctx(Some("alice"), None, "x")).await);
    assert!(!passes("{ consumers: [alice] }", ctx(Some("bob"), None, "x")).await);
    assert!(!passes("{ consumers: [alice] }", ctx(None, Some(json!({"sub": "alice"})), "x")).await);
    assert!(passes("{ networks: [10.0.0.0/8, 192.0.2.0/24] }", ctx(None, None, "x")).await);
    assert!(!passes("{ networks: [10.0.0.0/8, 192.0.3.0/24] }", ctx(None, None, "x")).await);
    let both = "{ networks: [10.0.0.0/8], consumers: [alice] }";
    assert!(!passes(both, ctx(Some("alice"), None, "x")).await, "all that is given must hold");
}

#[tokio::test]
async fn a_path_parameter_is_the_callers() {
    let tenant = "{ params: { tenant: claim:tenant } }";
    for (claim, param, expected) in [
        (json!("acme"), "acme", true),
        (json!("acme"), "acme2", false),
        (json!("acme"), "ACME", false),
        (json!(["globex", "acme"]), "acme", true),
        (json!([]), "acme", false),
        (json!(42), "42", true),
        (json!(42), "042", false),
        (json!(42.0), "42.0", false),
        (json!(true), "true", false),
        (json!(null), "null", false),
        (json!("*"), "acme", false),
        (json!("a/b"), "a%2Fb", true),
        (json!("a%2Fb"), "a%2Fb", false),
        (json!("\u{fffd}"), "%FF", false),
        (json!(""), "", false),
    ] {
        let token = ctx(None, Some(json!({ "tenant": claim })), param);
        assert_eq!(passes(tenant, token).await, expected, "{claim} {param}");
    }
    assert!(!passes(tenant, ctx(None, Some(json!({})), "acme")).await);
    let name = "{ params: { tenant: consumer:name } }";
    assert!(passes(name, ctx(Some("alice"), None, "alice")).await);
    assert!(!passes(name, ctx(Some("alice"), None, "bob")).await);
    let tier = "{ params: { tenant: consumer:metadata.tier } }";
    assert!(passes(tier, ctx(Some("alice"), None, "1")).await);
    assert!(!passes(tier, ctx(Some("alice"), None, "2")).await);
    let mut nowhere = ctx(None, Some(json!({"tenant": "acme"})), "acme");
    nowhere.params = PathParams::default();
    assert!(!passes(tenant, nowhere).await, "a request that no route takes has no parameters");
}

#[tokio::test]
async fn a_refusal_tells_the_client_nothing_of_the_rule() {
    let token = || ctx(None, Some(json!({"sub": "a"})), "x");
    let mut seen = Vec::new();
    for settings in [
        "{ scopes: { any: [a] } }",
        "{ claims: { a: b } }",
        "{ groups: { gold: {} } }",
        "{ consumers: [bob] }",
        "{ networks: [10.0.0.0/8] }",
        "{ params: { tenant: claim:tenant } }",
        "{ expression: 'claims.sub == \"b\"' }",
        "{ expression: 'claims.nothing == 1' }",
        "{ expression: 'claims.sub' }",
    ] {
        let mut ctx = token();
        let reply = answer(settings, "GET", &mut ctx).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.code()), (403, Some("insufficient_scope")));
        assert_eq!(reply_values(&reply, "www-authenticate"), "Bearer realm=\"crossway\", error=\"insufficient_scope\"");
        seen.push(format!("{:?}", reply.content));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
    let mut by_key = ctx(Some("alice"), None, "x");
    let reply = answer("{ consumers: [bob] }", "GET", &mut by_key).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code()), (403, Some("forbidden")));
    assert_eq!(reply_values(&reply, "www-authenticate"), "");
}

#[tokio::test]
async fn an_anonymous_caller_is_asked_for_a_credential() {
    let challenge = || {
        Reply::problem(StatusCode::UNAUTHORIZED, "api_key_missing", ".")
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Key"))
    };
    for (settings, status) in [
        ("{ groups: { gold: {} } }", 401),
        ("{ expression: 'claims.sub == \"a\"' }", 401),
        ("{ expression: 'request.method == \"POST\"' }", 403),
        ("{ networks: [10.0.0.0/8] }", 403),
    ] {
        let mut anonymous = ctx(None, None, "x");
        anonymous.keep_challenge(challenge());
        let reply = answer(settings, "GET", &mut anonymous).await.unwrap();
        assert_eq!(reply.status.as_u16(), status, "{settings}");
        let mut without = ctx(None, None, "x");
        let reply = answer(settings, "GET", &mut without).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.code()), (403, Some("forbidden")), "401 needs a challenge");
        let mut known = ctx(Some("bob"), None, "x");
        known.keep_challenge(challenge());
        assert_eq!(
            answer(settings, "GET", &mut known).await.unwrap().status.as_u16(),
            403,
            "who is known is not asked"
        );
    }
}

#[test]
fn what_nobody_could_pass_is_refused() {
    for (settings, place) in [
        ("{}", ""),
        ("{ scopes: {} }", "scopes"),
        ("{ scopes: { any: [] } }", "scopes/any"),
        ("{ scopes: { all: [] } }", "scopes/all"),
        ("{ scopes: { any: ['a b'] } }", "scopes/any/0"),
        ("{ scopes: { any: [a, ''] } }", "scopes/any/1"),
        ("{ claims: {} }", "claims"),
        ("{ claims: { a: [] } }", "claims/a"),
        ("{ claims: { a..b: x } }", "claims/a..b"),
        ("{ claims: { 'a/.': x } }", "claims/a~1."),
        ("{ groups: {} }", "groups"),
        ("{ groups: { gold: { methods: [] } } }", "groups/gold/methods"),
        ("{ groups: { gold: { paths: [] } } }", "groups/gold/paths"),
        ("{ groups: { gold: { methods: [get] } } }", "groups/gold/methods/0"),
        ("{ groups: { gold: { methods: [GET, TRACE] } } }", "groups/gold/methods/1"),
        ("{ groups: { platinum: {} } }", "groups/platinum"),
        ("{ groups_claim: roles }", "groups_claim"),
        ("{ groups: { gold: {} }, groups_claim: '.' }", "groups_claim"),
        ("{ consumers: [] }", "consumers"),
        ("{ consumers: [alice, mallory] }", "consumers/1"),
        ("{ networks: [] }", "networks"),
        ("{ params: {} }", "params"),
        ("{ params: { tenant: 'claim:a..b' } }", "params/tenant"),
        ("{ expression: '' }", "expression"),
    ] {
        assert_eq!(refused(settings).0, place, "{settings}");
    }
    for text in ["claim:", "consumer:groups", "consumer:metadata.", "tenant", "header:X"] {
        assert!(parse(&format!("authorize: {{ params: {{ tenant: '{text}' }} }}")).is_err(), "{text}");
    }
    assert!(refused("{ consumers: [alise] }").1.contains("did you mean `alice`?"));
    assert!(refused("{ groups: { glod: {} } }").1.contains("did you mean `gold`?"));
}

#[test]
fn it_says_what_it_needs() {
    for (settings, caller) in [
        ("{ networks: [10.0.0.0/8] }", false),
        ("{ expression: 'request.method == \"GET\" && params.tenant == \"a\"' }", false),
        ("{ expression: 'has(claims.sub)' }", true),
        ("{ expression: '\"gold\" in consumer.groups' }", true),
        ("{ expression: 'consumer.metadata[\"tier\"] == \"1\"' }", true),
        ("{ scopes: { any: [a] } }", true),
        ("{ params: { tenant: consumer:name } }", true),
    ] {
        let needs = build(settings).unwrap().needs();
        assert_eq!((needs.caller, needs.authenticates), (caller, false), "{settings}");
    }
    let both = build("{ params: { tenant: claim:t }, expression: 'params.rest != \"\" && \"a\" in params' }").unwrap();
    let params: Vec<_> = both.needs().params.into_iter().map(|p| (p.name, p.field)).collect();
    let expected = [("tenant", "params/tenant"), ("a", "expression"), ("rest", "expression")];
    assert_eq!(params, expected.map(|(name, field)| (name.to_owned(), field.to_owned())));
}
