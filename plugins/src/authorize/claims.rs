//! What claims must say.

use std::fmt;

use crossway_plugin_api::{Claims, InvalidConfig, config::Glob};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use serde_json::{Number, Value};

use crate::fields::below;

/// Most values that one claim may be compared with.
const MAX_VALUES: usize = 256;

/// Values that a claim may have. Types count: the number 7 is not the text "7".
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted(Vec<Scalar>);

#[derive(Debug, Clone, PartialEq)]
enum Scalar {
    Text(Glob),
    Number(Number),
    Bool(bool),
}

impl Scalar {
    fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text(glob), Value::String(text)) => glob.matches(text),
            (Self::Number(wanted), Value::Number(number)) => wanted == number,
            (Self::Bool(wanted), Value::Bool(value)) => wanted == value,
            _ => false,
        }
    }
}

impl Wanted {
    /// Whether the claim is one of the values, or a list that has one of them.
    pub(super) fn accepts(&self, claim: &Value) -> bool {
        let one = |value: &Value| self.0.iter().any(|wanted| wanted.is(value));
        match claim {
            Value::Array(items) => items.iter().any(one),
            value => one(value),
        }
    }
}

/// A claim and what it must say.
pub(super) struct ClaimRule {
    path: String,
    wanted: Wanted,
}

impl ClaimRule {
    pub(super) fn new(path: String, wanted: Wanted) -> Result<Self, InvalidConfig> {
        let place = below("claims", &path);
        check_path(&path, &place)?;
        if wanted.0.is_empty() {
            return Err(InvalidConfig::new(place, "is empty, so that nobody could pass"));
        }
        Ok(Self { path, wanted })
    }

    pub(super) fn holds(&self, claims: &Claims) -> bool {
        claims.get(&self.path).is_some_and(|claim| self.wanted.accepts(claim))
    }
}

/// The name of a claim, or a path of names with dots between them.
pub(super) fn check_path(path: &str, place: &str) -> Result<(), InvalidConfig> {
    if path.split('.').any(str::is_empty) || path.len() > 256 {
        return Err(InvalidConfig::new(place, "is not the name of a claim, or a path such as realm_access.roles"));
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMany)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(One)
    }
}

struct One;

impl Visitor<'_> for One {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or a boolean")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        Glob::parse(text).map(Scalar::Text).map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
        Number::from_f64(number).map(Scalar::Number).ok_or_else(|| E::custom("is not a number that JSON has"))
    }
}

struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = Wanted;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a boolean, or a list of these")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Wanted, E> {
        One.visit_str(text).map(|one| Wanted(vec![one]))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Wanted, E> {
        One.visit_bool(value).map(|one| Wanted(vec![one]))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Wanted, E> {
        One.visit_u64(number).map(|one| Wanted(vec![one]))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Wanted, E> {
        One.visit_i64(number).map(|one| Wanted(vec![one]))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Wanted, E> {
        One.visit_f64(number).map(|one| Wanted(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Wanted, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element()? {
            if values.len() == MAX_VALUES {
                return Err(A::Error::custom(format!("has more than {MAX_VALUES} values")));
            }
            values.push(value);
        }
        Ok(Wanted(values))
    }
}

impl JsonSchema for Wanted {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ClaimValues".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number", "boolean", "array"],
            "description": "A value, or a list of values of which one is enough.",
            "format": Glob::FORMAT,
            "minItems": 1,
            "maxItems": MAX_VALUES,
            "items": { "type": ["string", "number", "boolean"], "format": Glob::FORMAT },
            "examples": ["*@acme.example"],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_compared_by_value_and_type() {
        for (wanted, claim, expected) in [
            (json!("acme"), json!("acme"), true),
            (json!("acme"), json!("acmes"), false),
            (json!("acme"), json!("ACME"), false),
            (json!(["acme", "globex"]), json!("globex"), true),
            (json!(["acme", "globex"]), json!("initech"), false),
            (json!("*@acme.example"), json!("a@acme.example"), true),
            (json!("*@acme.example"), json!("a@acme.example.evil"), false),
            (json!("acme"), json!(["x", "acme"]), true),
            (json!("acme"), json!(["x", ["acme"]]), false),
            (json!("acme"), json!({"acme": true}), false),
            (json!(true), json!(true), true),
            (json!(true), json!("true"), false),
            (json!(true), json!(1), false),
            (json!("true"), json!(true), false),
            (json!(7), json!(7), true),
            (json!(7), json!("7"), false),
            (json!("7"), json!(7), false),
            (json!(7), json!(7.0), false),
            (json!(0.5), json!(0.5), true),
            (json!(-1), json!(-1), true),
            (json!([1, "two", false]), json!([false]), true),
            (json!("*"), json!(null), false),
            (json!("*"), json!([]), false),
            (json!(""), json!(""), true),
        ] {
            let wanted_values: Wanted = serde_json::from_value(wanted.clone()).unwrap();
            assert_eq!(wanted_values.accepts(&claim), expected, "{wanted} {claim}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        for wrong in [json!(null), json!({}), json!([[1]]), json!([null]), json!("*********")] {
            assert!(serde_json::from_value::<Wanted>(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(serde_json::from_value::<Wanted>(json!(vec![1; MAX_VALUES + 1])).is_err());
    }
}
