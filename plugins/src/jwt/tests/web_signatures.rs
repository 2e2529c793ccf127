//! Whole signatures in the compact form (RFC 7515), in the file format of Project Wycheproof: those of RFC 7515, 7520 and 8037,
//! or of the file that `CROSSWAY_TEST_WEB_SIGNATURES` names.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    keys::{Key, KeySet},
    provider, token,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Suite {
    test_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    comment: String,
    public: Option<Value>,
    private: Option<Value>,
    tests: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    tc_id: u32,
    comment: String,
    jws: Value,
    result: String,
}

impl Group {
    /// The key, if it is one that we would take. A public one takes the way of a key set, a secret that of the settings.
    fn keys(&self) -> Option<KeySet> {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        if let Some(public) = &self.public {
            return KeySet::read(json!({ "keys": [public] }).to_string().as_bytes()).ok();
        }
        let secret = self.private.as_ref()?["k"].as_str()?;
        Some(KeySet::single(Key::secret(&URL_SAFE_NO_PAD.decode(secret).ok()?)))
    }
}

fn is_verified(keys: &KeySet, jws: &str) -> bool {
    let Ok(token) = token::signed(jws) else { return false };
    let mut keys = keys.candidates(token.algorithm, token.kid.as_deref());
    keys.any(|key| key.verifies(token.algorithm, token.message.as_bytes(), token.signature))
}

/// What a case comes to, with a word if it is not what the suite says.
fn judged(keys: Option<&KeySet>, case: &Case) -> Result<(), &'static str> {
    let verified = keys.is_some_and(|keys| case.jws.as_str().is_some_and(|jws| is_verified(keys, jws)));
    match (case.result.as_str(), verified) {
        ("valid", false) if keys.is_none() => Err("its key is of no use to us"),
        ("valid", false) => Err("valid, and refused"),
        ("invalid", true) => Err("not valid, and accepted"),
        _ => Ok(()),
    }
}

/// Prints a line for each case: whoever runs a suite of others reads them.
#[test]
fn each_signature_is_judged_rightly() {
    provider::install();
    let given = std::env::var_os("CROSSWAY_TEST_WEB_SIGNATURES");
    let text = given.as_ref().map(|path| std::fs::read_to_string(path).unwrap());
    let text = text.as_deref().unwrap_or(include_str!("web_signatures.json"));
    let suite: Suite = serde_json::from_str(text).unwrap();
    let mut wrong = 0;
    for group in &suite.test_groups {
        let keys = group.keys();
        for case in &group.tests {
            let outcome = judged(keys.as_ref(), case);
            wrong += usize::from(outcome.is_err());
            let line = json!({ "case": case.tc_id, "name": format!("{}: {}", group.comment, case.comment), "wrong": outcome.err() });
            println!("{line}");
        }
    }
    // A suite of others may be wrong itself: its judge knows where.
    assert!(given.is_some() || wrong == 0, "{wrong} cases");
}
