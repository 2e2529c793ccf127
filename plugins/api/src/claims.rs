//! What a verified token says.

use serde_json::{Map, Value};

/// The claims of a token that was verified (RFC 7519, section 4), or what its issuer said of it (RFC 7662, section 2.2).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// Takes the claims as they are.
    pub fn new(members: Map<String, Value>) -> Self {
        Self(members)
    }

    /// All of them.
    pub fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    /// A claim by its name; where there is none of this name, the name is a path through objects: `realm_access.roles`.
    pub fn get(&self, path: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(path) {
            return Some(value);
        }
        let (first, rest) = path.split_once('.')?;
        rest.split('.').try_fold(self.0.get(first)?, |value, name| value.as_object()?.get(name))
    }

    /// A claim that is a text.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.get(path)?.as_str()
    }

    /// The scopes: a text with spaces between them (`scope`, RFC 8693, section 4.2), or a list (`scp`, or `scope` as some
    /// issuers write it). Nothing else separates scopes.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        ["scope", "scp"].into_iter().filter_map(|name| self.0.get(name)).flat_map(words)
    }
}

fn words(value: &Value) -> impl Iterator<Item = &str> {
    let text = value.as_str().into_iter().flat_map(|text| text.split(' ').filter(|word| !word.is_empty()));
    let list = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    text.chain(list)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        match value {
            Value::Object(members) => Claims::new(members),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn scopes_are_words_or_items_and_nothing_else() {
        for (value, expected) in [
            (json!({"scope": "read  write"}), vec!["read", "write"]),
            (json!({"scp": ["read", "a b", 7]}), vec!["read", "a b"]),
            (json!({"scope": "a\tb", "scp": "c"}), vec!["a\tb", "c"]),
            (json!({"scope": 7, "scopes": "x"}), vec![]),
        ] {
            assert_eq!(claims(value).scopes().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_name_comes_before_a_path() {
        let claims = claims(json!({"a.b": 1, "a": {"b": 2, "c": {"d": 3}}, "t": "x"}));
        assert_eq!(claims.get("a.b"), Some(&json!(1)));
        assert_eq!(claims.get("a.c.d"), Some(&json!(3)));
        assert_eq!((claims.get("a.x"), claims.get("t.x"), claims.text("t")), (None, None, Some("x")));
    }
}
