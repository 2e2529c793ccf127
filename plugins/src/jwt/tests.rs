//! Tokens are made here with the library's signing side, on keys that openssl has made.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use crossway_plugin_api::{Clock, Consumer, Credential, Deps, Reply};
use jsonwebtoken::{self as lib, EncodingKey, jwk::Jwk};
use serde_json::{Value, json};

use super::*;
use crate::testing::{ctx, flood, parse, request};

mod attacks;
mod fetching;
mod rules;
mod settings;
mod vectors;
mod web_signatures;

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://idp.test";
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const RSA: &str = include_str!("tests/rsa.pem");
const RSA_PUBLIC: &str = include_str!("tests/rsa.pub.pem");
const EC: &str = include_str!("tests/ec.pem");
const EC_PUBLIC: &str = include_str!("tests/ec.pub.pem");
const EC384: &str = include_str!("tests/ec384.pem");
const EC384_PUBLIC: &str = include_str!("tests/ec384.pub.pem");
const ED: &str = include_str!("tests/ed.pem");
const ED_PUBLIC: &str = include_str!("tests/ed.pub.pem");

/// The key that signs with this algorithm.
fn pen(algorithm: &str) -> (EncodingKey, lib::Algorithm) {
    provider::install();
    let algorithm: lib::Algorithm = algorithm.parse().unwrap();
    let key = match algorithm.family() {
        lib::AlgorithmFamily::Hmac => EncodingKey::from_secret(SECRET.as_bytes()),
        lib::AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap(),
        lib::AlgorithmFamily::Ec if algorithm == lib::Algorithm::ES384 => {
            EncodingKey::from_ec_pem(EC384.as_bytes()).unwrap()
        }
        lib::AlgorithmFamily::Ec => EncodingKey::from_ec_pem(EC.as_bytes()).unwrap(),
        lib::AlgorithmFamily::Ed => EncodingKey::from_ed_pem(ED.as_bytes()).unwrap(),
    };
    (key, algorithm)
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of these texts, signed with the key of an algorithm, whatever the header says.
fn signed(algorithm: &str, header: &str, claims: &str) -> String {
    let (key, algorithm) = pen(algorithm);
    let message = format!("{}.{}", b64(header), b64(claims));
    let signature = lib::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// Claims of a good token, with these members in place of their own; `null` takes one out.
fn claims(change: &Value) -> Value {
    let mut claims = json!({ "iss": ISSUER, "aud": "orders-api", "sub": "alice", "exp": NOW + 600, "iat": NOW - 10 });
    for (name, value) in change.as_object().into_iter().flatten() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// A token that differs from a good one, signed with RS256, in these claims.
fn token(change: &Value) -> String {
    signed("RS256", r#"{"alg":"RS256","typ":"JWT"}"#, &claims(change).to_string())
}

/// Another character of base64.
fn other(character: u8) -> u8 {
    if character == b'A' { b'B' } else { b'A' }
}

/// The entry of an issuer with the public RSA key and these further settings.
fn rsa_issuer(more: &Value) -> Value {
    let mut issuer = json!({
        "issuer": ISSUER, "public_key": RSA_PUBLIC, "algorithms": ["RS256"], "audiences": ["orders-api", "other-api"],
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        match value {
            Value::Null => drop(issuer.as_object_mut().unwrap().remove(name)),
            value => issuer[name] = value.clone(),
        }
    }
    issuer
}

/// Dependencies with a clock that stands, and a consumer `acme` that `alice` of the issuer stands for.
fn deps() -> Deps {
    let mut consumers = ConsumerDirectory::default();
    let acme = Arc::new(Consumer::new("acme", &["gold".into()], std::collections::BTreeMap::new()).unwrap());
    consumers.add(&acme);
    let credential = Credential::Token { issuer: ISSUER.into(), subject: "alice".into() };
    consumers.add_credential(credential, &acme).unwrap();
    let clock = Clock::fixed(Duration::from_secs(NOW));
    Deps { consumers: Arc::new(consumers), clock, ..Deps::default() }
}

fn build_with(settings: &Value, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
    parse(&json!({ "jwt": settings }).to_string()).unwrap().build(deps)
}

fn build(settings: &Value) -> Arc<dyn Plugin> {
    build_with(settings, &deps()).unwrap()
}

/// A plugin with the RSA issuer alone.
fn plain() -> Arc<dyn Plugin> {
    build(&json!({ "issuers": [rsa_issuer(&json!({}))] }))
}

/// What became of a request.
struct Seen {
    req: RequestHeader,
    ctx: Ctx,
    result: Result<Decision, Fault>,
}

impl Seen {
    fn is_let_in(&self) -> bool {
        matches!(self.result, Ok(Decision::Continue))
    }

    fn reply(&self) -> &Reply {
        match &self.result {
            Ok(Decision::Respond(reply) | Decision::Absent(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn code(&self) -> &'static str {
        match &self.result {
            Ok(Decision::Continue) => "",
            Ok(Decision::Respond(reply) | Decision::Absent(reply)) => reply.code().unwrap(),
            Err(fault) => fault.code(),
        }
    }

    /// What the upstream gets in a field.
    fn upstream(&mut self, plugin: &Arc<dyn Plugin>, name: &str) -> String {
        plugin.on_upstream_request(&mut self.req, &mut self.ctx).unwrap();
        crate::testing::values(&self.req.headers, name)
    }
}

async fn send(plugin: &Arc<dyn Plugin>, mut req: RequestHeader) -> Seen {
    let mut ctx = ctx();
    let result = plugin.on_request(&mut req, &mut ctx).await;
    if !matches!(result, Ok(Decision::Continue)) {
        assert!(ctx.refusal.is_some() || result.is_err(), "a refusal has its reason for the log");
        assert!(ctx.claims.is_none() && ctx.consumer.is_none());
    }
    Seen { req, ctx, result }
}

async fn bearer(plugin: &Arc<dyn Plugin>, token: &str) -> Seen {
    send(plugin, request("GET", &[("Authorization", &format!("Bearer {token}"))])).await
}

/// A key set of the public halves of these algorithms' keys, each with `kid` as its name.
fn key_set(algorithms: &[&str]) -> Value {
    let key = |algorithm: &&str| {
        let (key, algorithm) = pen(algorithm);
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(format!("{algorithm:?}"));
        jwk
    };
    json!({ "keys": algorithms.iter().map(key).collect::<Vec<_>>() })
}

#[tokio::test]
async fn a_good_token_is_let_in_and_known_again() {
    let plugin = plain();
    let token = token(&json!({ "scope": "orders.read" }));
    for _ in 0..2 {
        let seen = bearer(&plugin, &token).await;
        assert!(seen.is_let_in(), "{:?}", seen.ctx.refusal);
        assert_eq!(seen.ctx.consumer.as_ref().unwrap().name(), "acme");
        let claims = seen.ctx.claims.as_ref().unwrap();
        assert_eq!((claims.text("sub"), claims.scopes().collect()), (Some("alice"), vec!["orders.read"]));
        assert!(!seen.req.headers.contains_key("authorization"), "the token is stripped");
    }
}

#[tokio::test]
async fn every_algorithm_verifies_with_its_key() {
    for (algorithms, key) in [
        (&["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] as &[_], json!({ "public_key": RSA_PUBLIC })),
        (&["ES256"], json!({ "public_key": EC_PUBLIC })),
        (&["ES384"], json!({ "public_key": EC384_PUBLIC })),
        (&["EdDSA"], json!({ "public_key": ED_PUBLIC })),
        (&["HS256", "HS384", "HS512"], json!({ "public_key": null, "secret": SECRET })),
    ] {
        let mut issuer = rsa_issuer(&key);
        issuer["algorithms"] = json!(algorithms);
        let plugin = build(&json!({ "issuers": [issuer] }));
        for algorithm in algorithms {
            let token = signed(algorithm, &format!("{{\"alg\":\"{algorithm}\"}}"), &claims(&json!({})).to_string());
            let seen = bearer(&plugin, &token).await;
            assert!(seen.is_let_in(), "{algorithm}: {:?}", seen.ctx.refusal);
            // The same signature, with one bit of it or of the message changed.
            for at in [token.len() - 20, token.find('.').unwrap() + 5] {
                let mut broken = token.clone().into_bytes();
                broken[at] = other(broken[at]);
                let broken = String::from_utf8(broken).unwrap();
                assert_eq!(bearer(&plugin, &broken).await.code(), "jwt_invalid", "{algorithm} {at}");
            }
        }
        let set = key_set(algorithms).to_string();
        let mut issuer = rsa_issuer(&json!({ "public_key": null, "jwks_file": set }));
        issuer["algorithms"] = json!(algorithms);
        if algorithms[0] == "HS256" {
            assert!(build_with(&json!({ "issuers": [issuer] }), &deps()).is_err(), "a set gives no secrets");
            continue;
        }
        let plugin = build(&json!({ "issuers": [issuer] }));
        for algorithm in algorithms {
            let header = format!("{{\"alg\":\"{algorithm}\",\"kid\":\"{algorithm}\"}}");
            let seen = bearer(&plugin, &signed(algorithm, &header, &claims(&json!({})).to_string())).await;
            assert!(seen.is_let_in(), "{algorithm} from a set: {:?}", seen.ctx.refusal);
        }
    }
}

#[test]
fn the_provider_knows_the_library_s_other_questions() {
    provider::install();
    let thumb = |jwk: &Jwk| jwk.thumbprint(lib::jwk::ThumbprintHash::SHA256).unwrap();
    for (algorithm, public) in [
        ("RS256", lib::DecodingKey::from_rsa_pem(RSA_PUBLIC.as_bytes())),
        ("ES256", lib::DecodingKey::from_ec_pem(EC_PUBLIC.as_bytes())),
        ("ES384", lib::DecodingKey::from_ec_pem(EC384_PUBLIC.as_bytes())),
        ("EdDSA", lib::DecodingKey::from_ed_pem(ED_PUBLIC.as_bytes())),
    ] {
        let (private, algorithm) = pen(algorithm);
        let of_private = Jwk::from_encoding_key(&private, algorithm).unwrap();
        let of_public = Jwk::from_decoding_key(&public.unwrap(), Some(algorithm)).unwrap();
        assert_eq!(of_private, of_public, "{algorithm:?}");
        assert_eq!(thumb(&of_private), thumb(&of_public));
    }
    let (rsa, _) = pen("RS256");
    assert!(lib::crypto::sign(b"x", &rsa, lib::Algorithm::ES256).is_err(), "a key of another family signs nothing");
    let public = lib::DecodingKey::from_rsa_pem(RSA_PUBLIC.as_bytes()).unwrap();
    assert!(lib::crypto::verify("", b"x", &public, lib::Algorithm::HS256).is_err(), "a public key is no secret");
}
