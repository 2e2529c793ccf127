//! Settings that are refused, each with its place.

use super::*;

#[track_caller]
fn refused(settings: &Value, field: &str, reason: &str) {
    match build_with(settings, &deps()) {
        Ok(_) => panic!("accepted: {settings}"),
        Err(wrong) => assert!(wrong.field == field && wrong.reason.contains(reason), "{wrong} ({})", wrong.field),
    }
}

#[test]
fn issuers() {
    let refuse = |more: Value, field: &str, reason: &str| {
        refused(&json!({ "issuers": [rsa_issuer(&more)] }), field, reason);
    };
    refused(&json!({ "issuers": [] }), "issuers", "no issuer");
    refused(&json!({ "issuers": [rsa_issuer(&json!({})), rsa_issuer(&json!({}))] }), "issuers/1/issuer", "entry 0");
    refuse(json!({ "secret": SECRET }), "issuers/0", "exactly one");
    refuse(json!({ "public_key": null }), "issuers/0", "exactly one");
    refuse(json!({ "discovery": true }), "issuers/0", "exactly one");
    refuse(json!({ "algorithms": [] }), "issuers/0/algorithms", "no algorithm");
    refuse(json!({ "algorithms": ["RS256", "HS256"] }), "issuers/0/algorithms/1", "`secret`");
    refuse(json!({ "algorithms": ["RS256", "ES256"] }), "issuers/0/algorithms/1", "fits no key");
    refuse(json!({ "audiences": [] }), "issuers/0/audiences", "no audience");
    refuse(json!({ "any_audience": true }), "issuers/0/any_audience", "one of the two");
    refuse(json!({ "leeway": "61s" }), "issuers/0/leeway", "60");
    refuse(json!({ "leeway": "1500ms" }), "issuers/0/leeway", "whole seconds");
    refuse(json!({ "jwks": {} }), "issuers/0/jwks", "not fetched");
    refuse(json!({ "plain_http": true }), "issuers/0/plain_http", "not fetched");
}

#[test]
fn secrets_and_keys() {
    let refuse = |more: Value, field: &str, reason: &str| {
        refused(&json!({ "issuers": [rsa_issuer(&more)] }), field, reason);
    };
    let secret = |text: &str, algorithm: &str| json!({ "public_key": null, "secret": text, "algorithms": [algorithm] });
    refuse(secret(&SECRET[..31], "HS256"), "issuers/0/secret", "32 bytes");
    refuse(secret(&SECRET[..47], "HS384"), "issuers/0/secret", "48 bytes");
    refuse(secret(&SECRET[..63], "HS512"), "issuers/0/secret", "64 bytes");
    refuse(secret(SECRET, "RS256"), "issuers/0/algorithms/0", "public keys");
    let key = |pem: &str| json!({ "public_key": pem });
    refuse(key("x"), "issuers/0/public_key", "no public key");
    refuse(key(RSA), "issuers/0/public_key", "private key");
    refuse(key(include_str!("rsa1024.pub.pem")), "issuers/0/public_key", "2048");
    refuse(key(include_str!("ec521.pub.pem")), "issuers/0/public_key", "P-256");
    refuse(key(EC_PUBLIC), "issuers/0/algorithms/0", "fits no key");
    let set = |text: &str| json!({ "public_key": null, "jwks_file": text });
    refuse(set("x"), "issuers/0/jwks_file", "not JSON");
    refuse(set("{}"), "issuers/0/jwks_file", "no list `keys`");
    refuse(set("{\"keys\":[]}"), "issuers/0/jwks_file", "no key");
    refuse(set("{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}"), "issuers/0/jwks_file", "no public key");
    let many = json!({ "keys": vec![json!({}); 101] }).to_string();
    refuse(set(&many), "issuers/0/jwks_file", "more than 100");
}

#[test]
fn fetching() {
    let refuse = |url: &str, jwks: Value, field: &str, reason: &str| {
        let more = json!({ "public_key": null, "jwks_url": url, "jwks": jwks });
        refused(&json!({ "issuers": [rsa_issuer(&more)] }), &format!("issuers/0/{field}"), reason);
    };
    for (url, reason) in [
        ("http://idp.test/jwks", "without TLS"),
        ("http://127.0.0.1.evil.test/jwks", "without TLS"),
        ("ftp://idp.test/jwks", "not a URL of https"),
        ("/jwks", "not a URL"),
        ("https://user:password@idp.test/", "without user"),
        ("https:// idp.test/", "not a URL"),
        ("", "not a URL"),
    ] {
        refuse(url, json!({}), "jwks_url", reason);
    }
    let url = "https://idp.test/jwks";
    refuse(url, json!({ "cool_down": "0s" }), "jwks/cool_down", "1 s");
    refuse(url, json!({ "refresh": "5s" }), "jwks/refresh", "cool_down");
    refuse(url, json!({ "max_stale": "1m" }), "jwks/max_stale", "refresh");
    refuse(url, json!({ "timeout": "61s" }), "jwks/timeout", "60 s");
    refuse(url, json!({ "timeout": "0s" }), "jwks/timeout", "1 ms");
    let discovery = json!({ "public_key": null, "discovery": true, "issuer": "http://idp.test" });
    refused(&json!({ "issuers": [rsa_issuer(&discovery)] }), "issuers/0/issuer", "without TLS");
    for good in ["http://localhost:1/", "http://127.0.0.1:1/", "http://[::1]:1/", "https://idp.test"] {
        let more = json!({ "public_key": null, "jwks_url": good });
        assert!(build_with(&json!({ "issuers": [rsa_issuer(&more)] }), &deps()).is_ok(), "{good}");
    }
    let plain = json!({ "public_key": null, "jwks_url": "http://idp.test/", "plain_http": true });
    assert!(build_with(&json!({ "issuers": [rsa_issuer(&plain)] }), &deps()).is_ok());
}

#[test]
fn the_rest() {
    let refuse = |more: Value, field: &str, reason: &str| {
        let mut settings = json!({ "issuers": [rsa_issuer(&json!({}))] });
        for (name, value) in more.as_object().unwrap() {
            settings[name] = value.clone();
        }
        refused(&settings, field, reason);
    };
    refuse(json!({ "from": [] }), "from", "no place");
    refuse(json!({ "from": [{}] }), "from/0", "exactly one");
    refuse(json!({ "from": [{ "cookie": "a", "query": "b" }] }), "from/0", "exactly one");
    refuse(json!({ "from": [{ "cookie": "a", "scheme": "b" }] }), "from/0/scheme", "header");
    refuse(json!({ "from": [{ "cookie": "a" }, { "cookie": "a" }] }), "from/1", "already");
    refuse(json!({ "from": [{ "header": "X-A" }, { "header": "x-a", "scheme": "b" }] }), "from/1", "already");
    for name in ["Host", "Connection", "X-Consumer-Name", "Via", "Cookie"] {
        refuse(json!({ "from": [{ "header": name }] }), "from/0/header", "field");
    }
    for name in ["Host", "Content-Length", "X-Consumer-Name", "X_Consumer_Name", "Forwarded", "Authorization", "Cookie"]
    {
        refuse(json!({ "forward": { "claims": { "a/b": name } } }), "forward/claims/a~1b", "field");
    }
    refuse(json!({ "forward": { "claims": { "a": "X-A", "b": "x-a" } } }), "forward/claims/b", "another claim");
    for scope in ["", "a b", "a\"b", "a\\b", "\u{e9}"] {
        refuse(json!({ "require": { "scopes": { "any": [scope] } } }), "require/scopes/any/0", "no scope");
        refuse(json!({ "require": { "scopes": { "all": ["a", scope] } } }), "require/scopes/all/1", "no scope");
    }
    refuse(json!({ "require": { "claims": { "a": [] } } }), "require/claims/a", "no value");
    refuse(json!({ "realm": "a\"b" }), "realm", "quote");
    refuse(json!({ "max_token": "0B" }), "max_token", "64 KiB");
    refuse(json!({ "max_token": "65KiB" }), "max_token", "64 KiB");
}
