//! What tokens must say, where they may stand, and what is made of them.

use super::*;
use crate::testing::{reply_values, response, values};

async fn code(plugin: &Arc<dyn Plugin>, change: Value) -> &'static str {
    bearer(plugin, &token(&change)).await.code()
}

#[tokio::test]
async fn issuer_and_audience_are_compared_whole() {
    let plugin = plain();
    for iss in [
        json!("https://idp.test/"),
        json!("https://IDP.test"),
        json!("https://idp.test.evil"),
        json!("https://idp.tes"),
        json!(["https://idp.test"]),
        json!(7),
        Value::Null,
    ] {
        assert_eq!(code(&plugin, json!({ "iss": iss })).await, "jwt_invalid", "{iss}");
    }
    for (aud, good) in [
        (json!("orders-api"), true),
        (json!("other-api"), true),
        (json!(["x", "orders-api"]), true),
        (json!("orders-api-2"), false),
        (json!("orders"), false),
        (json!("Orders-API"), false),
        (json!(["x"]), false),
        (json!([]), false),
        (json!(["orders-api", 7]), false),
        (json!({ "orders-api": 1 }), false),
        (json!(7), false),
        (Value::Null, false),
    ] {
        let expected = if good { "" } else { "jwt_invalid" };
        assert_eq!(code(&plugin, json!({ "aud": aud })).await, expected, "{aud}");
    }
    let any = build(&json!({ "issuers": [rsa_issuer(&json!({ "audiences": null, "any_audience": true }))] }));
    assert_eq!(code(&any, json!({ "aud": null })).await, "");
    assert_eq!(code(&any, json!({ "aud": "x" })).await, "");
}

#[tokio::test]
async fn times_count_with_leeway() {
    let plugin = build(&json!({ "issuers": [rsa_issuer(&json!({ "leeway": "60s" }))] }));
    for (change, good) in [
        (json!({ "exp": NOW - 59 }), true),
        (json!({ "exp": NOW - 60 }), false),
        (json!({ "exp": NOW - 61 }), false),
        (json!({ "nbf": NOW + 59 }), true),
        (json!({ "nbf": NOW + 60 }), true),
        (json!({ "nbf": NOW + 61 }), false),
        (json!({ "exp": null }), false),
        (json!({ "exp": "1900000000" }), false),
        (json!({ "exp": true }), false),
        (json!({ "exp": -1 }), false),
        (json!({ "exp": 1e300 }), false),
        (json!({ "exp": u64::MAX }), true),
        (json!({ "exp": 1_800_000_600.5 }), true),
        (json!({ "nbf": "now" }), false),
        (json!({ "iat": "now" }), false),
        (json!({ "sub": 7 }), false),
    ] {
        let expected = if good { "" } else { "jwt_invalid" };
        assert_eq!(code(&plugin, change.clone()).await, expected, "{change}");
    }
    let none = build(&json!({ "issuers": [rsa_issuer(&json!({ "leeway": "0s" }))] }));
    assert_eq!(code(&none, json!({ "exp": NOW })).await, "jwt_invalid");
    assert_eq!(code(&none, json!({ "exp": NOW + 1 })).await, "");
}

#[tokio::test]
async fn an_old_token_is_refused_where_age_counts() {
    let plugin = build(&json!({ "issuers": [rsa_issuer(&json!({ "max_age": "1m", "leeway": "10s" }))] }));
    for (iat, expected) in [(json!(NOW - 69), ""), (json!(NOW - 70), "jwt_invalid"), (json!(NOW + 11), "jwt_invalid")] {
        assert_eq!(code(&plugin, json!({ "iat": iat })).await, expected, "{iat}");
    }
    assert_eq!(code(&plugin, json!({ "iat": null })).await, "jwt_invalid");
}

#[tokio::test]
async fn a_token_in_the_cache_does_not_outlive_itself() {
    let deps = deps();
    let plugin = build_with(&json!({ "issuers": [rsa_issuer(&json!({ "leeway": "0s" }))] }), &deps).unwrap();
    let (long, short) = (token(&json!({})), token(&json!({ "exp": NOW + 5 })));
    for token in [&long, &short, &long, &short] {
        assert!(bearer(&plugin, token).await.is_let_in());
    }
    assert_eq!(deps.metrics.counter("jwt", "verified").get(), 2);
    assert_eq!(deps.metrics.counter("jwt", "cached").get(), 2);
    deps.clock.advance(Duration::from_secs(5));
    assert_eq!(bearer(&plugin, &short).await.code(), "jwt_invalid");
    assert!(bearer(&plugin, &long).await.is_let_in());
    let near = format!("{}x", &long[..long.len() - 1]);
    assert_eq!(bearer(&plugin, &near).await.code(), "jwt_invalid", "a token that only looks like one in the cache");
}

#[tokio::test]
async fn without_a_cache_each_token_is_verified() {
    let deps = deps();
    let plugin = build_with(&json!({ "cache": "0B", "issuers": [rsa_issuer(&json!({}))] }), &deps).unwrap();
    let token = token(&json!({}));
    for _ in 0..3 {
        assert!(bearer(&plugin, &token).await.is_let_in());
    }
    assert_eq!(deps.metrics.counter("jwt", "verified").get(), 3);
}

#[tokio::test]
async fn what_a_token_means_is_not_shared_between_plugins() {
    let deps = deps();
    let open = build_with(&json!({ "issuers": [rsa_issuer(&json!({}))] }), &deps).unwrap();
    let strict = json!({ "require": { "scopes": { "all": ["admin"] } }, "issuers": [rsa_issuer(&json!({}))] });
    let strict = build_with(&strict, &deps).unwrap();
    let token = token(&json!({ "scope": "read" }));
    for _ in 0..2 {
        assert!(bearer(&open, &token).await.is_let_in());
        assert_eq!(bearer(&strict, &token).await.code(), "jwt_insufficient");
    }
}

#[tokio::test]
async fn types_keep_tokens_of_other_uses_out() {
    let typed = |typ: &str, change: Value| {
        let header = if typ.is_empty() { json!({ "alg": "RS256" }) } else { json!({ "alg": "RS256", "typ": typ }) };
        signed("RS256", &header.to_string(), &claims(&change).to_string())
    };
    let access = json!({ "client_id": "app", "jti": "1" });
    let (any, strict) = (plain(), build(&json!({ "issuers": [rsa_issuer(&json!({ "typ": "at+jwt" }))] })));
    for (typ, in_any, in_strict) in [
        ("", true, false),
        ("JWT", true, false),
        ("jwt", true, false),
        ("at+jwt", true, true),
        ("AT+JWT", true, true),
        ("application/at+jwt", true, true),
        ("application/jwt", true, false),
        ("logout+jwt", false, false),
        ("dpop+jwt", false, false),
        ("at+jwt ", false, false),
    ] {
        let token = typed(typ, access.clone());
        assert_eq!(bearer(&any, &token).await.is_let_in(), in_any, "{typ}");
        assert_eq!(bearer(&strict, &token).await.is_let_in(), in_strict, "{typ}");
    }
    for missing in ["sub", "client_id", "jti", "iat"] {
        let mut change = access.clone();
        change[missing] = Value::Null;
        assert_eq!(bearer(&strict, &typed("at+jwt", change)).await.code(), "jwt_invalid", "{missing}");
    }
}

#[tokio::test]
async fn scopes_are_whole_words() {
    let any =
        build(&json!({ "require": { "scopes": { "any": ["read", "admin"] } }, "issuers": [rsa_issuer(&json!({}))] }));
    let all =
        build(&json!({ "require": { "scopes": { "all": ["read", "admin"] } }, "issuers": [rsa_issuer(&json!({}))] }));
    let many = (0..1000).map(|n| format!("s{n}")).collect::<Vec<_>>().join(" ");
    for (change, in_any, in_all) in [
        (json!({ "scope": "read" }), true, false),
        (json!({ "scope": "x read admin" }), true, true),
        (json!({ "scp": ["read", "admin"] }), true, true),
        (json!({ "scope": "readwrite admin:read" }), false, false),
        (json!({ "scope": "READ" }), false, false),
        (json!({ "scope": "read\tadmin" }), false, false),
        (json!({ "scope": "read,admin" }), false, false),
        (json!({ "scp": ["read admin"] }), false, false),
        (json!({ "scope": "" }), false, false),
        (json!({ "scope": many }), false, false),
        (json!({}), false, false),
    ] {
        for (plugin, good) in [(&any, in_any), (&all, in_all)] {
            let seen = bearer(plugin, &token(&change)).await;
            assert_eq!(seen.is_let_in(), good, "{change}");
            if !good {
                assert_eq!((seen.reply().status.as_u16(), seen.code()), (403, "jwt_insufficient"));
                let expected = "Bearer realm=\"crossway\", error=\"insufficient_scope\", scope=\"read admin\"";
                assert_eq!(reply_values(seen.reply(), "www-authenticate"), expected);
            }
        }
    }
}

#[tokio::test]
async fn claims_must_have_a_value_that_is_listed() {
    let require = json!({ "claims": { "tenant": ["acme", "eu-*"], "realm.roles": ["admin"] } });
    let plugin = build(&json!({ "require": require, "issuers": [rsa_issuer(&json!({}))] }));
    for (change, good) in [
        (json!({ "tenant": "acme", "realm": { "roles": ["user", "admin"] } }), true),
        (json!({ "tenant": ["eu-1"], "realm.roles": "admin" }), true),
        (json!({ "tenant": "acme2", "realm": { "roles": ["admin"] } }), false),
        (json!({ "tenant": "acme", "realm": { "roles": ["administrator"] } }), false),
        (json!({ "tenant": "acme" }), false),
    ] {
        let seen = bearer(&plugin, &token(&change)).await;
        assert_eq!(seen.is_let_in(), good, "{change}");
        if !good {
            let challenge = reply_values(seen.reply(), "www-authenticate");
            assert_eq!(challenge, "Bearer realm=\"crossway\", error=\"insufficient_scope\"");
        }
    }
}

#[tokio::test]
async fn a_consumer_is_found_by_issuer_and_claim() {
    let by = |claim: &str| rsa_issuer(&json!({ "consumer_claim": claim }));
    let optional = build(&json!({ "issuers": [by("ext.user")] }));
    let required = build(&json!({ "consumer": "required", "issuers": [by("ext.user")] }));
    let known = token(&json!({ "ext": { "user": "alice" }, "sub": "x" }));
    for plugin in [&optional, &required] {
        assert_eq!(bearer(plugin, &known).await.ctx.consumer.unwrap().name(), "acme");
    }
    for unknown in [json!({ "ext": { "user": "bob" } }), json!({ "ext": { "user": ["alice"] } }), json!({})] {
        let seen = bearer(&optional, &token(&unknown)).await;
        assert!(seen.is_let_in() && seen.ctx.consumer.is_none() && seen.ctx.claims.is_some());
        assert_eq!(bearer(&required, &token(&unknown)).await.code(), "jwt_insufficient", "{unknown}");
    }
    let other = rsa_issuer(&json!({ "issuer": "https://other.test" }));
    let plugin = build(&json!({ "issuers": [rsa_issuer(&json!({})), other] }));
    let seen = bearer(&plugin, &token(&json!({ "iss": "https://other.test" }))).await;
    assert!(seen.is_let_in() && seen.ctx.consumer.is_none(), "alice of another issuer is somebody else");
}

#[tokio::test]
async fn each_issuer_has_its_own_rules() {
    let one = rsa_issuer(&json!({}));
    let two = rsa_issuer(&json!({ "issuer": "two", "public_key": null, "secret": SECRET, "algorithms": ["HS256"] }));
    let plugin = build(&json!({ "issuers": [one, two] }));
    let by = |algorithm: &str, iss: &str| {
        signed(algorithm, &format!("{{\"alg\":\"{algorithm}\"}}"), &claims(&json!({ "iss": iss })).to_string())
    };
    assert!(bearer(&plugin, &by("RS256", ISSUER)).await.is_let_in());
    assert!(bearer(&plugin, &by("HS256", "two")).await.is_let_in());
    assert_eq!(bearer(&plugin, &by("RS256", "two")).await.code(), "jwt_invalid");
    assert_eq!(bearer(&plugin, &by("HS256", ISSUER)).await.code(), "jwt_invalid");
}

#[tokio::test]
async fn claims_go_upstream_in_fields_that_nobody_else_writes() {
    let forward = json!({ "claims": { "sub": "X-User-Id", "tenant": "X-Tenant" } });
    let plugin = build(&json!({ "forward": forward, "issuers": [rsa_issuer(&json!({}))] }));
    let token = token(&json!({ "sub": "ali\r\nce: ", "tenant": null }));
    for _ in 0..2 {
        let fields =
            [("Authorization", format!("Bearer {token}")), ("X-User-Id", "root".into()), ("X-Tenant", "t".into())];
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut seen = send(&plugin, request("GET", &fields)).await;
        assert!(seen.is_let_in());
        assert_eq!(seen.upstream(&plugin, "x-user-id"), "ali%0D%0Ace:%20");
        assert_eq!(seen.upstream(&plugin, "x-tenant"), "", "what the client says of itself goes");
        assert_eq!(seen.upstream(&plugin, "authorization"), "");
    }
    // An anonymous caller, where the chain lets it pass.
    let mut seen = send(&plugin, request("GET", &[("X-User-Id", "root")])).await;
    assert_eq!(seen.upstream(&plugin, "x-user-id"), "");
}

#[tokio::test]
async fn two_of_them_on_a_route_keep_apart() {
    let make = |field: &str| {
        build(
            &json!({ "forward": { "claims": { "sub": field }, "token": "keep" }, "issuers": [rsa_issuer(&json!({}))] }),
        )
    };
    let (one, two) = (make("X-One"), make("X-Two"));
    let mut req = request("GET", &[("Authorization", &format!("Bearer {}", token(&json!({}))))]);
    let mut ctx = ctx();
    for plugin in [&one, &two] {
        assert!(matches!(plugin.on_request(&mut req, &mut ctx).await, Ok(Decision::Continue)));
    }
    for plugin in [&one, &two] {
        plugin.on_upstream_request(&mut req, &mut ctx).unwrap();
    }
    assert_eq!((values(&req.headers, "x-one"), values(&req.headers, "x-two")), ("alice".into(), "alice".into()));
    assert!(values(&req.headers, "authorization").starts_with("Bearer "), "the token is kept");
}

#[tokio::test]
async fn no_token_is_not_a_bad_token() {
    let plugin = build(&json!({ "realm": "orders", "issuers": [rsa_issuer(&json!({}))] }));
    for fields in [vec![], vec![("Authorization", "Basic YTpi")], vec![("Authorization", "BearerX y")]] {
        let seen = send(&plugin, request("GET", &fields)).await;
        assert!(matches!(seen.result, Ok(Decision::Absent(_))), "{fields:?}");
        assert_eq!((seen.reply().status.as_u16(), seen.code()), (401, "jwt_missing"));
        assert_eq!(reply_values(seen.reply(), "www-authenticate"), "Bearer realm=\"orders\"");
    }
    for value in ["Bearer", "Bearer ", "bearer x", "BEARER x.y.z", "Bearer\tx.y.z", "Bearer x, Bearer y"] {
        let seen = send(&plugin, request("GET", &[("Authorization", value)])).await;
        assert!(matches!(seen.result, Ok(Decision::Respond(_))), "{value}");
        assert_eq!(seen.code(), "jwt_invalid", "{value}");
    }
    let token = token(&json!({}));
    for scheme in ["bearer", "BEARER", "Bearer  "] {
        let seen = send(&plugin, request("GET", &[("Authorization", &format!("{scheme} {token}"))])).await;
        assert!(seen.is_let_in(), "{scheme}");
    }
}

fn with_target(target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
    let mut req = request("GET", fields);
    req.set_uri(target.parse().unwrap());
    req
}

#[tokio::test]
async fn a_request_carries_one_token() {
    let plugin = build(&json!({
        "from": [{ "header": "Authorization", "scheme": "Bearer" }, { "cookie": "at" }, { "query": "access_token" }, { "header": "X-Token" }],
        "issuers": [rsa_issuer(&json!({}))],
    }));
    let good = token(&json!({}));
    let bearer = format!("Bearer {good}");
    let (cookie, query) = (format!("a=b; at={good}; c=d"), format!("/x?a=b&access_token={good}&c=d"));
    for (req, what) in [
        (with_target(&query, &[("Authorization", &bearer)]), "field and query"),
        (with_target("/x", &[("Authorization", &bearer), ("Cookie", &cookie)]), "field and cookie"),
        (with_target("/x", &[("Authorization", &bearer), ("X-Token", &good)]), "two fields"),
        (with_target("/x", &[("Authorization", &bearer), ("Authorization", &bearer)]), "a field twice"),
        (with_target("/x", &[("Authorization", &bearer), ("Authorization", "Basic YTpi")]), "a field twice"),
        (with_target("/x", &[("Authorization", "Basic YTpi"), ("Authorization", &bearer)]), "a field twice"),
        (with_target("/x", &[("Authorization", "Basic YTpi"), ("Authorization", "Digest x")]), "a field twice"),
        (with_target("/x", &[("Cookie", &cookie), ("Cookie", "at=x")]), "a cookie twice"),
        (with_target("/x?access_token=a&access%5Ftoken=b", &[]), "a parameter twice"),
        (with_target("/x", &[("X-Token", &good), ("X-Token", "")]), "a field twice"),
    ] {
        let seen = send(&plugin, req).await;
        assert_eq!((seen.reply().status.as_u16(), seen.code()), (400, "jwt_several"), "{what}");
        let challenge = reply_values(seen.reply(), "www-authenticate");
        assert_eq!(challenge, "Bearer realm=\"crossway\", error=\"invalid_request\"");
    }
    let seen = send(&plugin, with_target("/x", &[("Cookie", &cookie)])).await;
    assert!(seen.is_let_in());
    assert_eq!(values(&seen.req.headers, "cookie"), "a=b; c=d");
    let seen = send(&plugin, with_target("/x", &[("X-Token", &good), ("Authorization", "Basic YTpi")])).await;
    assert!(seen.is_let_in());
    assert_eq!(
        (values(&seen.req.headers, "x-token"), values(&seen.req.headers, "authorization")),
        (String::new(), "Basic YTpi".into())
    );
    let mut seen = send(&plugin, with_target(&query, &[])).await;
    assert!(seen.is_let_in());
    assert_eq!(seen.req.uri.to_string(), "/x?a=b&c=d");
    let mut res = response(200, &[]);
    plugin.on_response(&mut res, &mut seen.ctx).unwrap();
    assert_eq!(values(&res.headers, "cache-control"), "private");
    let seen = send(&plugin, with_target(&format!("/x?access_token={good}"), &[])).await;
    assert_eq!(seen.req.uri.to_string(), "/x");
}

#[tokio::test]
async fn a_parameter_is_no_place_unless_it_is_opened() {
    let plugin = plain();
    let good = token(&json!({}));
    let query = format!("/x?access_token={good}");
    assert_eq!(send(&plugin, with_target(&query, &[])).await.code(), "jwt_missing");
    let bearer = format!("Bearer {good}");
    let seen = send(&plugin, with_target(&query, &[("Authorization", &bearer)])).await;
    assert_eq!(seen.code(), "jwt_several", "the upstream could take the other one");
}

#[tokio::test]
async fn a_field_that_is_not_ascii_is_refused() {
    let mut req = request("GET", &[]);
    req.append_header("Authorization", HeaderValue::from_bytes(b"Bearer \xff").unwrap()).unwrap();
    let seen = send(&plain(), req).await;
    assert_eq!(seen.code(), "jwt_invalid");
}
