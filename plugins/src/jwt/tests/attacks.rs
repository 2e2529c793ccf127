//! What attackers have sent to others (RFC 8725 and advisories).

use x509_parser::prelude::FromDer as _;

use super::*;

async fn refused(plugin: &Arc<dyn Plugin>, token: &str, what: &str) {
    for _ in 0..2 {
        let seen = bearer(plugin, token).await;
        assert_eq!(seen.code(), "jwt_invalid", "{what}: {token}");
        let reply = seen.reply();
        assert_eq!(reply.status, 401);
        let challenge = crate::testing::reply_values(reply, "www-authenticate");
        assert_eq!(challenge, "Bearer realm=\"crossway\", error=\"invalid_token\"", "no detail");
    }
}

fn good_claims() -> String {
    claims(&json!({})).to_string()
}

#[tokio::test]
async fn no_algorithm() {
    let plugin = plain();
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"NONE"}"#,
        r#"{"alg":"nOnE"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["RS256"]}"#,
        r#"{"alg":"rs256"}"#,
        r#"{"alg":"RS256 "}"#,
        r#"{"typ":"JWT"}"#,
    ] {
        let unsigned = format!("{}.{}", b64(header), b64(good_claims()));
        refused(&plugin, &unsigned, header).await;
        refused(&plugin, &format!("{unsigned}."), header).await;
        refused(&plugin, &signed("RS256", header, &good_claims()), header).await;
    }
    let unsigned = format!("{}.{}.", b64(r#"{"alg":"RS256"}"#), b64(good_claims()));
    refused(&plugin, &unsigned, "an empty signature").await;
}

#[tokio::test]
async fn the_public_key_as_a_secret() {
    let der = {
        let lines: String = RSA_PUBLIC.lines().filter(|line| !line.starts_with('-')).collect();
        base64::engine::general_purpose::STANDARD.decode(lines).unwrap()
    };
    let set = key_set(&["RS256"]);
    let jwk = set["keys"][0].to_string();
    let n = set["keys"][0]["n"].as_str().unwrap().to_owned();
    let secrets: [&[u8]; 6] =
        [RSA_PUBLIC.as_bytes(), RSA_PUBLIC.trim().as_bytes(), &der, jwk.as_bytes(), n.as_bytes(), b""];
    let by_key = plain();
    let by_set =
        build(&json!({ "issuers": [rsa_issuer(&json!({ "public_key": null, "jwks_file": set.to_string() }))] }));
    for secret in secrets {
        for (name, algorithm) in
            [("HS256", lib::Algorithm::HS256), ("HS384", lib::Algorithm::HS384), ("HS512", lib::Algorithm::HS512)]
        {
            let header = format!("{{\"alg\":\"{name}\",\"kid\":\"RS256\"}}");
            let message = format!("{}.{}", b64(header), b64(good_claims()));
            let key = EncodingKey::from_secret(secret);
            let signature = lib::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
            refused(&by_key, &format!("{message}.{signature}"), name).await;
            refused(&by_set, &format!("{message}.{signature}"), name).await;
        }
    }
}

#[tokio::test]
async fn algorithms_are_pinned() {
    let plugin = plain();
    for algorithm in ["RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "EdDSA", "HS256"] {
        let header = format!("{{\"alg\":\"{algorithm}\"}}");
        refused(&plugin, &signed(algorithm, &header, &good_claims()), algorithm).await;
        // The header says one, the signature is made by the other.
        refused(&plugin, &signed(algorithm, r#"{"alg":"RS256"}"#, &good_claims()), algorithm).await;
    }
}

#[tokio::test]
async fn keys_in_the_header_are_not_looked_at() {
    let plugin = plain();
    let own = key_set(&["ES256"])["keys"][0].clone();
    for header in [
        json!({ "alg": "ES256", "jwk": own }),
        json!({ "alg": "RS256", "jwk": own }),
        json!({ "alg": "RS256", "jku": "http://127.0.0.1:1/jwks" }),
        json!({ "alg": "RS256", "x5u": "http://127.0.0.1:1/cert" }),
        json!({ "alg": "RS256", "x5c": [b64(EC_PUBLIC)] }),
    ] {
        refused(&plugin, &signed("ES256", &header.to_string(), &good_claims()), "another key").await;
    }
    let harmless = json!({ "alg": "RS256", "jwk": own, "jku": "http://127.0.0.1:1/jwks" });
    assert!(bearer(&plugin, &signed("RS256", &harmless.to_string(), &good_claims())).await.is_let_in());
}

#[tokio::test]
async fn headers_that_change_the_reading() {
    let plugin = plain();
    for member in [
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""b64":false,"crit":["b64"]"#,
        r#""b64":true"#,
        r#""zip":"DEF""#,
        r#""enc":"A256GCM""#,
        r#""p2c":1000000000"#,
        r#""kid":7"#,
        r#""typ":["JWT"]"#,
        r#""alg":"RS256""#,
        r#""\u0061lg":"none""#,
    ] {
        let header = format!("{{\"alg\":\"RS256\",{member}}}");
        refused(&plugin, &signed("RS256", &header, &good_claims()), member).await;
    }
    refused(&plugin, &signed("RS256", "[]", &good_claims()), "no object").await;
    refused(&plugin, &signed("RS256", "\"RS256\"", &good_claims()), "no object").await;
}

#[tokio::test]
async fn claims_that_stand_twice() {
    let plugin = plain();
    let whole = good_claims();
    let open = whole.strip_suffix('}').unwrap();
    for more in [r#""sub":"admin""#, r#""\u0073ub":"admin""#, r#""exp":99999999999"#, r#""a":{"b":1,"b":2}"#] {
        let twice = format!("{open},{more}}}");
        refused(&plugin, &signed("RS256", r#"{"alg":"RS256"}"#, &twice), more).await;
    }
    for other in ["[]", "null", "\"alice\"", "", "{", &format!("{whole} x")] {
        refused(&plugin, &signed("RS256", r#"{"alg":"RS256"}"#, other), other).await;
    }
}

#[tokio::test]
async fn forms_that_are_not_the_compact_one() {
    let plugin = plain();
    let good = token(&json!({}));
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!() };
    let padded = b64(r#"{"alg":"RS256","a":"1"}"#);
    let message = format!("{padded}==.{claims}");
    let (key, algorithm) = pen("RS256");
    let over_padding = lib::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    let mut last = signature.to_owned();
    // 256 bytes leave four bits of the last character unused.
    let next = match last.pop().unwrap() {
        'A' => 'B',
        'Q' => 'R',
        'g' => 'h',
        'w' => 'x',
        other => panic!("{other} has bits that are not used"),
    };
    last.push(next);
    for (what, token) in [
        ("four parts", format!("{good}.{signature}")),
        ("five parts", format!("{header}.a.b.c.d")),
        ("two parts", format!("{header}.{claims}")),
        ("one part", header.to_owned()),
        ("dots", "..".to_owned()),
        ("JSON", format!("{{\"payload\":\"{claims}\",\"protected\":\"{header}\",\"signature\":\"{signature}\"}}")),
        ("padding that is signed", format!("{message}.{over_padding}")),
        ("padding of the signature", format!("{good}==")),
        ("bits that are not used", format!("{header}.{claims}.{last}")),
        ("another alphabet", format!("{header}.{claims}.{}", "+/".repeat(171))),
        ("space inside", format!("{header}. {claims}.{signature}")),
        ("a tab inside", format!("{header}.\t{claims}.{signature}")),
        ("another token", format!("{good}, Bearer {good}")),
        ("a list", format!("{good},{good}")),
        ("a short signature", format!("{header}.{claims}.{}", &signature[..signature.len() - 4])),
        ("a long signature", format!("{header}.{claims}.{signature}AAAA")),
    ] {
        refused(&plugin, &token, what).await;
    }
    assert!(bearer(&plugin, &good).await.is_let_in());
}

#[tokio::test]
async fn large_and_deep_tokens() {
    let plugin = plain();
    let long = token(&json!({ "pad": "x".repeat(8 << 10) }));
    refused(&plugin, &long, "too long").await;
    let many: serde_json::Map<String, Value> = (0..100_000).map(|n| (format!("c{n}"), json!(n))).collect();
    refused(&plugin, &token(&Value::Object(many)), "too many claims").await;
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
    refused(&plugin, &signed("RS256", r#"{"alg":"RS256"}"#, &deep), "too deep").await;
    refused(&plugin, &"a".repeat(1 << 20), "a megabyte").await;
    let wide = build(&json!({ "max_token": "16KiB", "issuers": [rsa_issuer(&json!({}))] }));
    assert!(bearer(&wide, &long).await.is_let_in());
}

#[tokio::test]
async fn signatures_of_no_substance() {
    let issuer = |set: &Value, algorithm: &str| {
        let settings = json!({ "public_key": null, "jwks_file": set.to_string(), "algorithms": [algorithm] });
        build(&json!({ "issuers": [rsa_issuer(&settings)] }))
    };
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let n: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&order[at..at + 2], 16).unwrap()).collect();
    let (zero, mut one) = (vec![0; 32], vec![0; 32]);
    one[31] = 1;
    let plugin = issuer(&key_set(&["ES256"]), "ES256");
    for r in [&zero, &one, &n] {
        for s in [&zero, &one, &n] {
            let message = format!("{}.{}", b64(r#"{"alg":"ES256"}"#), b64(good_claims()));
            refused(&plugin, &format!("{message}.{}", b64([&r[..], &s[..]].concat())), "r and s").await;
        }
    }
    let plugin = issuer(&key_set(&["EdDSA"]), "EdDSA");
    for r in [&zero, &one] {
        let message = format!("{}.{}", b64(r#"{"alg":"EdDSA"}"#), b64(good_claims()));
        refused(&plugin, &format!("{message}.{}", b64([&r[..], &zero[..]].concat())), "R and S").await;
    }
}

#[tokio::test]
async fn keys_that_never_verify() {
    let good = key_set(&["RS256"])["keys"][0].clone();
    let alone = |key: &Value| keys::KeySet::read(json!({ "keys": [key] }).to_string().as_bytes());
    assert!(alone(&good).is_ok());
    let weak = x509_parser::pem::parse_x509_pem(include_bytes!("rsa1024.pub.pem")).unwrap().1.contents;
    let (_, weak) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&weak).unwrap();
    let (weak_n, _) = keys::rsa_parts(&weak.subject_public_key.data).unwrap();
    for change in [
        json!({ "use": "enc" }),
        json!({ "use": "other" }),
        json!({ "key_ops": ["sign"] }),
        json!({ "alg": "RSA-OAEP" }),
        json!({ "alg": "none" }),
        json!({ "alg": 7 }),
        json!({ "kty": "oct", "k": b64(SECRET) }),
        json!({ "kty": "EC" }),
        json!({ "d": "AQAB" }),
        json!({ "n": b64(weak_n) }),
        json!({ "n": b64([1]) }),
        json!({ "n": "" }),
        json!({ "n": "!!" }),
        json!({ "e": b64([1]) }),
        json!({ "e": b64([0, 1]) }),
        json!({ "e": b64([2]) }),
        json!({ "e": "" }),
    ] {
        let mut key = good.clone();
        for (name, value) in change.as_object().unwrap() {
            key[name] = value.clone();
        }
        assert!(alone(&key).is_err(), "{change}");
    }
    let zeros = {
        let n = URL_SAFE_NO_PAD.decode(good["n"].as_str().unwrap()).unwrap();
        let mut key = good.clone();
        key["n"] = json!(b64([&[0, 0][..], &n[..]].concat()));
        key
    };
    assert!(alone(&zeros).unwrap().is_same(&alone(&good).unwrap()), "leading zeros are no other number");
    for edwards in [
        "00".repeat(32),
        format!("01{}", "00".repeat(31)),
        format!("ec{}7f", "ff".repeat(30)),
        format!("ed{}ff", "ff".repeat(30)),
    ] {
        let point: Vec<u8> =
            (0..64).step_by(2).map(|at| u8::from_str_radix(&edwards[at..at + 2], 16).unwrap()).collect();
        assert!(alone(&json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(point) })).is_err(), "{edwards}");
    }
    assert!(alone(&json!({ "kty": "OKP", "crv": "X25519", "x": b64([7; 32]) })).is_err());
    assert!(alone(&json!({ "kty": "EC", "crv": "P-256", "x": b64([7; 31]), "y": b64([7; 32]) })).is_err());
}

#[tokio::test]
async fn keys_of_one_name_and_two_kinds() {
    let mut set = key_set(&["RS256", "ES256", "EdDSA"]);
    set["keys"][0]["kid"] = json!("one");
    set["keys"][1]["kid"] = json!("one");
    let settings = json!({ "public_key": null, "jwks_file": set.to_string(), "algorithms": ["EdDSA"] });
    let mut issuer = rsa_issuer(&settings);
    assert!(build_with(&json!({ "issuers": [issuer] }), &deps()).is_ok());
    issuer["algorithms"] = json!(["EdDSA", "RS256"]);
    let wrong = build_with(&json!({ "issuers": [issuer] }), &deps()).err().unwrap();
    assert_eq!(wrong.field, "issuers/0/algorithms/1");
    // A key of the set that is for something else does not make the name ambiguous.
    set["keys"][1]["use"] = json!("enc");
    let plugin =
        build(&json!({ "issuers": [rsa_issuer(&json!({ "public_key": null, "jwks_file": set.to_string() }))] }));
    let token = signed("RS256", r#"{"alg":"RS256","kid":"one"}"#, &good_claims());
    assert!(bearer(&plugin, &token).await.is_let_in());
    refused(&plugin, &signed("RS256", r#"{"alg":"RS256","kid":"EdDSA"}"#, &good_claims()), "the name of another").await;
    refused(&plugin, &signed("RS256", r#"{"alg":"RS256","kid":"../one"}"#, &good_claims()), "no such name").await;
}

/// With a key of small order, whoever likes can sign: this is what leaving such keys out is for.
#[test]
fn a_key_of_small_order_verifies_what_nobody_has_signed() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let forged = [&identity[..], &[0; 32][..]].concat();
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, identity);
    assert!(key.verify(b"anything", &forged).is_ok());
}

/// Tokens that are refused early, for their key and for their signature, each another one.
#[tokio::test]
async fn a_flood_of_bad_tokens_leaves_nothing_behind() {
    let jwks = key_set(&["ES256"]).to_string();
    let one = rsa_issuer(&json!({ "public_key": null, "jwks_file": jwks, "algorithms": ["ES256"] }));
    let two = rsa_issuer(&json!({ "issuer": "two", "public_key": null, "secret": SECRET, "algorithms": ["HS256"] }));
    let config: Config = serde_json::from_value(json!({ "issuers": [one, two] })).unwrap();
    let deps = deps();
    let guard = config.guard(&deps).unwrap();
    let good = signed("HS256", r#"{"alg":"HS256"}"#, &claims(&json!({ "iss": "two" })).to_string());
    assert!(guard.judge(&good).await.is_ok());
    let body = |n: usize, iss: &str| b64(claims(&json!({ "iss": iss, "jti": n })).to_string());
    let (es, hs) = (b64(r#"{"alg":"ES256","kid":"none of them"}"#), b64(r#"{"alg":"HS256"}"#));
    let (long, short) = (b64([7; 64]), b64([7; 32]));
    for n in 0..flood() {
        let (token, why) = match n % 8 {
            0..4 => (format!("{n}.x.y"), "not base64url"),
            4 => (format!("{es}.{}.{long}", body(n, "three")), "an unknown issuer"),
            5 => (format!("{es}.{}.{long}", body(n, ISSUER)), "no such key"),
            _ => (format!("{hs}.{}.{short}", body(n, "two")), "the signature does not verify"),
        };
        match guard.judge(&token).await {
            Err(Wrong::Invalid(reason)) if reason == why || n % 8 < 4 => {}
            Err(Wrong::Invalid(reason)) => panic!("{reason}, not {why}: {token}"),
            Err(Wrong::NoKeys(_)) | Ok(_) => panic!("{token}"),
        }
    }
    assert_eq!(guard.cache.len(), 1, "the good one");
    assert!(guard.judge(&good).await.is_ok());
    let counted = |event| deps.metrics.counter("jwt", event).get();
    assert_eq!((counted("verified"), counted("cached")), (1, 1));
}
