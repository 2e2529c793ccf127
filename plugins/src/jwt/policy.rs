//! What a verified token is good for: who it stands for, whether it is enough, and what the upstream learns of it.

use std::sync::Arc;

use crossway_plugin_api::{Claims, Consumer, ConsumerDirectory, Credential, config::Glob};
use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use super::{claims::Period, token::Reason};

/// Everything that one token means on this route, worked out when it is first seen.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) claims: Arc<Claims>,
    pub(super) consumer: Option<Arc<Consumer>>,
    /// Why it is not enough, if it is not.
    pub(super) lacking: Option<Lacking>,
    /// Fields for the upstream.
    pub(super) fields: Box<[(HeaderName, HeaderValue)]>,
    pub(super) period: Period,
    /// The issuer, by its place in the configuration.
    pub(super) issuer: usize,
    /// The number of the key set that it was verified with.
    pub(super) keys: u64,
}

/// Why a good token is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacking {
    Scope,
    Claim,
    Consumer,
}

impl Lacking {
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Scope => "the token lacks a scope",
            Self::Claim => "a claim does not have a value that is asked for",
            Self::Consumer => "the token stands for no consumer",
        }
    }
}

/// What the configuration asks of good tokens, and does with them.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) any_scope: Vec<String>,
    pub(super) all_scopes: Vec<String>,
    pub(super) claims: Vec<(String, Vec<Glob>)>,
    pub(super) needs_consumer: bool,
    pub(super) forward: Vec<(String, HeaderName)>,
}

impl Policy {
    /// The consumer that the claim of this issuer's token stands for.
    pub(super) fn consumer(
        claims: &Claims,
        issuer: &str,
        claim: &str,
        directory: &ConsumerDirectory,
    ) -> Option<Arc<Consumer>> {
        let credential = Credential::Token { issuer: issuer.to_owned(), subject: claims.text(claim)?.to_owned() };
        directory.holder(&credential).map(Arc::clone)
    }

    /// What the token lacks.
    pub(super) fn lacking(&self, claims: &Claims, consumer: Option<&Arc<Consumer>>) -> Option<Lacking> {
        let has = |wanted: &String| claims.scopes().any(|scope| scope == wanted);
        if !(self.any_scope.is_empty() || self.any_scope.iter().any(has)) || !self.all_scopes.iter().all(has) {
            return Some(Lacking::Scope);
        }
        if !self.claims.iter().all(|(name, wanted)| claims.get(name).is_some_and(|value| fits(value, wanted))) {
            return Some(Lacking::Claim);
        }
        (self.needs_consumer && consumer.is_none()).then_some(Lacking::Consumer)
    }

    /// The fields that the upstream gets.
    pub(super) fn fields(&self, claims: &Claims) -> Box<[(HeaderName, HeaderValue)]> {
        let field = |(claim, name): &(String, HeaderName)| Some((name.clone(), field_value(claims.get(claim)?)?));
        self.forward.iter().filter_map(field).collect()
    }
}

/// Whether a claim, or an item of one that is a list, has one of the values.
fn fits(value: &Value, wanted: &[Glob]) -> bool {
    let matches = |text: &str| wanted.iter().any(|glob| glob.matches(text));
    match value {
        Value::String(text) => matches(text),
        Value::Number(number) => matches(&number.to_string()),
        Value::Bool(truth) => matches(if *truth { "true" } else { "false" }),
        Value::Array(items) => items.iter().any(|item| !item.is_array() && fits(item, wanted)),
        Value::Null | Value::Object(_) => false,
    }
}

/// What stays as it is in a field: visible ASCII and spaces, less the escape itself.
const IN_FIELD: &AsciiSet = &CONTROLS.add(b'%');
/// The same for an item of a list.
const IN_LIST: &AsciiSet = &IN_FIELD.add(b',');

/// A claim as a field's value: texts as they are, with everything but visible ASCII and inner spaces percent-encoded, `%`
/// too; items of a list with commas between them; objects as JSON. `None` for null.
fn field_value(value: &Value) -> Option<HeaderValue> {
    let text = match value {
        Value::Null => return None,
        Value::Array(items) => items.iter().map(|item| encoded(&plain(item), IN_LIST)).collect::<Vec<_>>().join(","),
        other => encoded(&plain(other), IN_FIELD),
    };
    HeaderValue::from_str(&text).ok()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Spaces at the ends are encoded too: a reader of the field drops them, and would take the text for another one.
fn encoded(text: &str, set: &'static AsciiSet) -> String {
    let inner = text.trim_matches(' ');
    let (before, after) = match text.find(inner) {
        Some(at) if !inner.is_empty() => (at, text.len() - at - inner.len()),
        _ => (text.len(), 0),
    };
    let mut out = "%20".repeat(before);
    out.extend(utf8_percent_encode(inner, set));
    out.push_str(&"%20".repeat(after));
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_becomes_one_field_and_nothing_more() {
        for (value, expected) in [
            (json!("alice"), Some("alice")),
            (json!("Alice B. (ops) <a@b>"), Some("Alice B. (ops) <a@b>")),
            (json!("a\r\nX-Admin: 1\0\t\u{7f}"), Some("a%0D%0AX-Admin: 1%00%09%7F")),
            (json!(" alice  "), Some("%20alice%20%20")),
            (json!("   "), Some("%20%20%20")),
            (json!("100%"), Some("100%25")),
            (json!("Jürgen"), Some("J%C3%BCrgen")),
            (json!(["a,b", "c", 1]), Some("a%2Cb,c,1")),
            (json!({"a": "b"}), Some("{\"a\":\"b\"}")),
            (json!(-7), Some("-7")),
            (json!(true), Some("true")),
            (json!(""), Some("")),
            (json!(null), None),
        ] {
            let field = field_value(&value);
            assert_eq!(field.as_ref().map(|f| f.to_str().unwrap()), expected, "{value}");
        }
    }

    #[test]
    fn claims_are_compared_whole() {
        let wanted = [Glob::parse("acme").unwrap(), Glob::parse("eu-*").unwrap(), Glob::parse("7").unwrap()];
        for good in [json!("acme"), json!("eu-1"), json!(7), json!(["x", "acme"])] {
            assert!(fits(&good, &wanted), "{good}");
        }
        for bad in [
            json!("Acme"),
            json!("acme "),
            json!("xeu-1"),
            json!(null),
            json!({"acme": "acme"}),
            json!([["acme"]]),
            json!([]),
        ] {
            assert!(!fits(&bad, &wanted), "{bad}");
        }
    }
}
