use proptest::prelude::*;

use super::*;

fn expression(text: &str) -> String {
    format!("{{ expression: {} }}", json!(text))
}

/// The caller that expressions are tried with.
fn caller() -> Ctx {
    let claims = json!({
        "sub": "alice", "level": 3, "big": 18_446_744_073_709_551_615_u64, "rate": 0.5, "active": true, "none": null,
        "roles": ["admin", "ops"], "empty": [], "address": {"country": "NZ", "lines": ["a", "b"]},
        "odd name": "x", "exp": 1_700_000_100,
    });
    ctx(Some("alice"), Some(claims), "acme")
}

fn asked() -> RequestHeader {
    let fields = [("X-Tenant", "acme"), ("X-Twice", "a"), ("X-Twice", "b")];
    let mut req = request("GET", &fields);
    req.set_uri("/acme/orders/7?page=2&q=a+b%21&twice=1&twice=2&empty".parse().unwrap());
    req
}

async fn is_true(text: &str) -> bool {
    let plugin = build(&expression(text)).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
    crate::testing::run(&plugin, &mut asked(), &mut caller()).await.is_none()
}

#[tokio::test]
async fn names_stand_for_the_request_and_its_caller() {
    for text in [
        "request.method == 'GET' && request.path == '/acme/orders/7' && request.host == 'api.example.com'",
        "request.headers['x-tenant'] == 'acme' && request.headers['X-Tenant'] == 'acme'",
        "'x-tenant' in request.headers && !('x-other' in request.headers)",
        "request.headers['x-twice'] == 'a, b'",
        "has(request.headers.host) == false",
        "request.query.page == '2' && request.query.q == 'a b!' && request.query.empty == ''",
        "int(request.query.page) > 1",
        "client.address == '192.0.2.7'",
        "consumer.name == 'alice' && 'gold' in consumer.groups && consumer.metadata.tier == '1'",
        "has(consumer.name) && has(consumer.metadata.tier) && !has(consumer.metadata.other)",
        "consumer.groups.size() == 2 && consumer.groups[0] == 'gold'",
        "claims.sub == 'alice' && claims.level >= 2 && claims.active && claims.rate < 1.0",
        "claims.big == 18446744073709551615u",
        "claims['odd name'] == 'x' && 'sub' in claims && claims.none == null",
        "'admin' in claims.roles && claims.roles.exists(r, r.startsWith('op')) && claims.empty.all(r, false)",
        "claims.roles.existsOne(r, r == 'ops')",
        "claims.address.country == 'NZ' && claims.address.lines[1] == 'b' && claims.address['country'].size() == 2",
        "has(claims.address.country) && !has(claims.address.city) && !has(claims.nothing)",
        "params.tenant == 'acme' && params['rest'] == 'orders/7'",
        "now == timestamp(1700000000) && now < timestamp(claims.exp) && now.getFullYear() == 2023",
        "now.getHours('Europe/Berlin') == 23 && now - duration('1h') < now",
        "claims.sub.matches('^al[a-z]+$') && !claims.sub.matches('^bob$')",
        "claims.missing == 1 || claims.level == 3",
        "has(claims.missing) ? claims.missing == 1 : true",
        "[1, 2].exists(n, n == claims.level - 1)",
    ] {
        assert!(is_true(text).await, "{text}");
    }
}

#[tokio::test]
async fn what_fails_or_is_no_boolean_denies() {
    for text in [
        "false",
        "claims.missing == 1",
        "!(claims.missing == 1)",
        "claims.missing != 'x'",
        "claims.sub",
        "claims.level",
        "claims.none",
        "claims.roles",
        "claims.sub > 1",
        "claims.sub + 1 == 'alice1'",
        "claims.level / 0 == 1",
        "9223372036854775807 + claims.level > 0",
        "claims.sub.country == 'x'",
        "claims.roles[7] == 'x'",
        "claims.roles['x'] == 'x'",
        "request.query.twice == '1'",
        "has(request.query.twice)",
        "request.headers['x-other'] != 'evil'",
        "int(claims.sub) == 1",
        "timestamp('never') < now",
        "claims.level == '3'",
        "claims.active == 'true'",
        "claims.roles.all(r, r.size() > r)",
        "!claims.sub",
    ] {
        assert!(!is_true(text).await, "{text}");
    }
}

#[tokio::test]
async fn an_anonymous_caller_has_no_names() {
    for (text, expected) in [
        ("has(consumer.name) || has(claims.sub) || has(consumer.metadata.x)", false),
        ("!has(consumer.name) && !has(claims.sub) && !('sub' in claims)", true),
        ("consumer.name != 'mallory'", false),
        ("!('blocked' in consumer.groups)", false),
    ] {
        assert_eq!(passes(&expression(text), ctx(None, None, "x")).await, expected, "{text}");
    }
}

#[tokio::test]
async fn a_claim_of_too_many_values_denies() {
    let of = |n: usize| ctx(None, Some(json!({"roles": vec!["a"; n], "deep": [[vec![1; n]]]})), "x");
    assert!(passes(&expression("'a' in claims.roles"), of(1023)).await);
    assert!(!passes(&expression("'a' in claims.roles"), of(1024)).await);
    assert!(!passes(&expression("claims['roles'].size() > 1"), of(1024)).await);
    assert!(!passes(&expression("claims.deep.size() == 1"), of(1022)).await);
    // A loop that reads a claim again and again.
    let again = expression("claims.roles.all(r, r in claims.roles)");
    assert!(passes(&again, of(100)).await);
    assert!(!passes(&again, of(200)).await);
}

/// What an expression may not be made of, and a part of the reason.
const WRONG: [(&str, &str); 48] = [
    ("   ", "is empty"),
    ("claims.", "is not an expression"),
    ("claims.sub == 'a", "is not an expression"),
    ("a b", "is not an expression"),
    ("1 +", "is not an expression"),
    ("'a'", "is no boolean"),
    ("1", "is no boolean"),
    ("[true]", "is no boolean"),
    ("claim.sub == 'a'", "names `claim`, which there is not: did you mean `claims`?"),
    ("true && tenant == 'a'", "there are request, client, consumer, claims, params, now (at character 9)"),
    ("'\u{e9}\u{1f600}' == tenant", "(at character 9)"),
    (".claims.sub == 'a'", "names `.claims`"),
    ("request.metod == 'GET'", "did you mean `request.method`?"),
    ("request.body == ''", "there are method, path, host, headers, query"),
    ("client.ip == ''", "there are address"),
    ("consumer.groop == 'a'", "did you mean `consumer.groups`?"),
    ("claims == claims", "takes `claims` for a value"),
    ("size(claims) > 0", "takes `claims` for a value"),
    ("request == request", "takes `request` for a value"),
    ("request['method'] == 'GET'", "takes `request` for a value"),
    ("request.headers.size() > 0", "takes `request.headers` for a value"),
    ("request.headers.exists(h, h == 'x')", "takes `request.headers` for a value"),
    ("'name' in consumer", "takes `consumer` for a value"),
    ("has(request.path)", "which is always there"),
    ("request.path.length > 1", "asks for `length` of something that has no members"),
    ("params[claims.sub] == 'a'", "asks for a path parameter without its name"),
    ("system('x')", "calls `system`, which there is not"),
    ("sise(claims.sub) > 1", "did you mean `size`?"),
    ("claims.sub.startWith('a')", "did you mean `startsWith`?"),
    ("claims.sub.replace('a', 'b') == ''", "calls `replace`"),
    ("type(claims.sub) == string", "calls `type`"),
    ("dyn(claims.sub) == 1", "calls `dyn`"),
    ("optional.of(1) == 1", "calls `of`"),
    ("claims.?sub == 'a'", "is not an expression"),
    ("claims.sub.matches(claims.level)", "with something else than a pattern in quotes"),
    ("claims.sub.matches('(')", "with a pattern that is not valid"),
    ("claims.sub.matches('a{1000}{20}')", "with a pattern that is not valid, or too large"),
    ("claims.sub.matches()", "without one pattern"),
    ("matches(claims.sub, 'a')", "calls `matches`"),
    ("claims.roles.map(r, r) == []", "makes a list"),
    ("claims.roles.filter(r, true) == []", "makes a list"),
    ("claims.roles.exists(r, claims.roles.exists(s, r == s))", "has a loop within a loop"),
    ("claims.roles.exists(claims, claims == 'a')", "calls a variable `claims`"),
    ("claims.roles.exists(r, s == 'a')", "names `s`"),
    ("claims.roles.exists(r, true) && r == 'a'", "names `r`"),
    ("{'a': claims.sub} == {}", "no use for here"),
    ("google.protobuf.Any{} == 1", "no use for here"),
    ("claims.roles.exists(r, r.exists(q, true))", "has a loop within a loop"),
];

#[test]
fn what_is_not_known_is_refused_when_it_is_loaded() {
    for (text, expected) in WRONG {
        let (place, reason) = refused(&expression(text));
        assert_eq!(place, "expression");
        assert!(reason.contains(expected), "{text}: {reason}");
        assert!(reason.len() < 300 && !reason.contains('\n'), "{text}: {reason}");
    }
}

#[test]
fn what_an_expression_costs_is_bounded() {
    let or = |text: &str, times: usize| vec![text; times].join(" || ");
    for (text, expected) in [
        (format!("claims.sub == '{}'", "x".repeat(1024)), "is longer than 1024 bytes"),
        (format!("{}true{}", "(".repeat(400), ")".repeat(400)), "is not an expression"),
        (format!("{}true{}", "[".repeat(400), "]".repeat(400)), "is not an expression"),
        (format!("claims{} == 1", ".a".repeat(500)), "is too complex"),
        (format!("1{} > 1", "+1".repeat(500)), "is too complex"),
        (format!("claims{} == 1", "[0]".repeat(300)), "is too complex"),
        ("true?".repeat(100) + "true" + &":true".repeat(100), "is"),
        (or("1>0", 140), "is too complex"),
        (or("claims.a.all(x,x)", 5), "has more than 4 loops"),
        (format!("claims.sub{} == 1", ".size()".repeat(140)), "is too complex"),
    ] {
        let reason = refused(&expression(&text)).1;
        assert!(reason.contains(expected), "{}: {reason}", &text[..40]);
    }
    assert!(build(&expression(&or("claims.a.all(x,x)", 4))).is_ok());
    assert!(build(&expression(&format!("{}true{}", "(".repeat(10), ")".repeat(10)))).is_ok());
}

/// Words and signs that expressions are made of, some of them wrong.
const TOKENS: [&str; 64] = [
    "claims",
    "params",
    "request",
    "consumer",
    "client",
    "now",
    "x",
    ".",
    ".",
    ".",
    "sub",
    "tenant",
    "roles",
    "level",
    "headers",
    "query",
    "method",
    "path",
    "name",
    "groups",
    "metadata",
    "address",
    "(",
    ")",
    "(",
    ")",
    "[",
    "]",
    "[0]",
    "['a']",
    "'a'",
    "'acme'",
    "\"\\u00e9\"",
    "b'x'",
    "1",
    "-1",
    "0",
    "9223372036854775807",
    "18446744073709551615u",
    "1.5",
    "1e308",
    "true",
    "false",
    "null",
    "==",
    "!=",
    "<",
    ">=",
    "in",
    "&&",
    "||",
    "!",
    "?",
    ":",
    "+",
    "-",
    "*",
    "/",
    "%",
    ".size()",
    ".exists(x, x == 'a')",
    ".all(x, x > 1)",
    ".matches('a+')",
    "timestamp(",
];

fn texts() -> impl Strategy<Value = String> {
    let operand = prop::sample::select(vec![
        "claims.sub",
        "claims.level",
        "claims.roles",
        "claims.none",
        "claims['x']",
        "params.tenant",
        "request.path",
        "request.query.page",
        "request.headers['x-tenant']",
        "consumer.name",
        "consumer.groups",
        "client.address",
        "now",
        "1",
        "-9223372036854775808",
        "1.5",
        "0",
        "7u",
        "'a'",
        "''",
        "true",
        "null",
        "[1, 'a', null]",
        "duration('9h')",
        "int(claims.sub)",
        "double(claims.sub)",
        "timestamp(claims.level)",
        "timestamp(claims.sub)",
        "claims.sub.size()",
        "claims.roles[claims.level]",
        "string(claims.rate)",
        "claims.sub.startsWith('a')",
        "now.getHours(claims.sub)",
        "duration(claims.sub)",
        "has(claims.sub)",
        "claims.a.exists(e, e == claims.sub)",
    ]);
    let operator = prop::sample::select(vec!["==", "!=", "<", ">=", "in", "&&", "||", "+", "-", "*", "/", "%"]);
    let formed = prop::collection::vec((operand, operator), 1..6).prop_map(|parts| {
        let words: Vec<&str> = parts.into_iter().flat_map(|(operand, operator)| [operand, operator]).collect();
        words.join(" ") + " true"
    });
    let random = prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 1..24).prop_map(|words| words.concat());
    prop_oneof![3 => formed, 2 => random, 1 => "\\PC{0,40}"]
}

fn claim() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|n| json!(n)),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("2023-11-14T22:13:20Z")),
        Just(json!("-9223372036s")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// No text stops the check, and what it lets through stops no request.
    #[test]
    fn an_expression_that_is_accepted_never_panics(
        text in texts(),
        claims in prop::collection::btree_map("sub|level|roles|none|x|a|rate", claim(), 0..6),
        query in "[a-z=&%+0-9]{0,20}",
        tenant in "[a-z%0-9]{0,6}",
        value in prop::collection::vec(0x80_u8..=0xff, 0..4),
        identified in any::<bool>(),
    ) {
        // A panic of the parser is caught when an expression is loaded; here it has to be seen.
        if let Ok(compiled) = expression::parse(&text) {
            let mut req = request("GET", &[]);
            req.set_uri(format!("/x?{query}").parse().unwrap());
            req.insert_header("x-tenant", value.as_slice()).unwrap();
            let ctx = ctx(identified.then_some("alice"), identified.then_some(json!(claims)), &tenant);
            let _ = compiled.holds(&req, &ctx, &Clock::fixed(Duration::from_secs(1_700_000_000)));
        }
    }
}
