use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use crossway_plugin_api::{Claims, Consumer, PathParams};
use serde_json::json;

use super::*;
use crate::testing::{ctx, request};

/// The same key for the same, so that keys can be compared.
struct Keys {
    hashes: RandomState,
    parts: Parts,
}

impl Keys {
    fn of(parts: &[&str]) -> Self {
        let all = parts.iter().map(|part| Part::parse(part).unwrap()).collect();
        Self { hashes: RandomState::new(), parts: Parts { all, ipv6_prefix: 64, anonymous: false } }
    }

    fn anonymous(mut self) -> Self {
        self.parts.anonymous = true;
        self
    }

    fn key(&self, req: &RequestHeader, ctx: &Ctx) -> Option<u64> {
        let mut hasher = self.hashes.build_hasher();
        self.parts.hash(req, ctx, &mut hasher)?;
        Some(hasher.finish())
    }
}

fn from(address: &str) -> Ctx {
    Ctx::new(address.parse().unwrap(), String::new(), "/".into())
}

fn consumer(name: &str, groups: &[&str]) -> Ctx {
    let groups: Vec<String> = groups.iter().map(|&group| group.into()).collect();
    Ctx { consumer: Some(Arc::new(Consumer::new(name, &groups, BTreeMap::new()).unwrap())), ..ctx() }
}

fn with_claims(claims: serde_json::Value) -> Ctx {
    let serde_json::Value::Object(members) = claims else { panic!("{claims}") };
    Ctx { claims: Some(Arc::new(Claims::new(members))), ..ctx() }
}

#[test]
fn unknown_sources_are_refused() {
    for wrong in ["", "ip", "Client", "header", "header:", "header:a b", "claim:", "param:", "cookie:a", "client:x"] {
        assert!(Part::parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(Part::parse("header:X-Tenant"), Ok(Part::Header("x-tenant".parse().unwrap())));
    assert_eq!(Part::parse("claim:a:b"), Ok(Part::Claim("a:b".into())));
}

#[test]
fn an_address_counts_whole_or_by_its_network() {
    let mut keys = Keys::of(&["client"]);
    let req = request("GET", &[]);
    let key = |keys: &Keys, address| keys.key(&req, &from(address)).unwrap();
    assert_ne!(key(&keys, "192.0.2.1"), key(&keys, "192.0.2.2"));
    assert_eq!(key(&keys, "192.0.2.1"), key(&keys, "::ffff:192.0.2.1"));
    assert_eq!(key(&keys, "2001:db8::1"), key(&keys, "2001:db8:0:0:ffff::2"));
    assert_ne!(key(&keys, "2001:db8::1"), key(&keys, "2001:db8:0:1::1"));
    keys.parts.ipv6_prefix = 48;
    assert_eq!(key(&keys, "2001:db8::1"), key(&keys, "2001:db8:0:1::1"));
    keys.parts.ipv6_prefix = 128;
    assert_ne!(key(&keys, "2001:db8::1"), key(&keys, "2001:db8::2"));
}

#[test]
fn callers_are_told_apart_by_all_parts() {
    let keys = Keys::of(&["consumer", "group"]);
    let req = request("GET", &[]);
    let key = |name, groups: &[&str]| keys.key(&req, &consumer(name, groups));
    assert_eq!(key("a", &["x", "y"]), key("a", &["x", "z"]), "the first group counts");
    assert_ne!(key("a", &["x"]), key("b", &["x"]));
    assert_ne!(key("a", &["bx"]), key("ab", &["x"]), "parts have ends");
    assert_eq!(key("a", &[]), None);
    assert_eq!(keys.key(&req, &ctx()), None);
}

#[test]
fn fields_claims_and_parameters() {
    let tenant = Keys::of(&["header:X-Tenant"]);
    let field = |values: &[&str]| {
        let fields: Vec<_> = values.iter().map(|value| ("x-tenant", *value)).collect();
        tenant.key(&request("GET", &fields), &ctx())
    };
    assert!(field(&["a"]).is_some() && field(&["a"]) == field(&["a"]) && field(&[]).is_none());
    assert_ne!(field(&["a", "b"]), field(&["ab"]));
    assert_ne!(field(&["a"]), field(&["a", "a"]));

    let claim = Keys::of(&["claim:a.b"]);
    let of = |value| claim.key(&request("GET", &[]), &with_claims(json!({"a": {"b": value}})));
    assert!(of(json!("x")).is_some() && of(json!("x")) == of(json!("x")));
    assert_ne!(of(json!(7)), of(json!(8)));
    assert!(of(json!(true)).is_some());
    for nobody in [json!(null), json!(["x"]), json!({"x": 1})] {
        assert_eq!(of(nobody), None);
    }

    let param = Keys::of(&["param:id", "route"]);
    let at = |end: usize, route: Option<&str>| {
        let params = PathParams { names: [Arc::from("id")].into(), values: std::iter::once(7..end).collect() };
        param.key(&request("GET", &[]), &Ctx { params, route: route.map(Into::into), ..ctx() })
    };
    assert_ne!(at(7, Some("r")), at(8, Some("r")));
    assert_ne!(at(8, Some("r")), at(8, Some("s")));
    assert!(at(8, None).is_some());
}

#[test]
fn who_lacks_a_part_is_told_apart_by_the_others() {
    let keys = Keys::of(&["consumer", "client"]).anonymous();
    let req = request("GET", &[]);
    let one = keys.key(&req, &from("192.0.2.1"));
    assert!(one.is_some() && one == keys.key(&req, &from("192.0.2.1")));
    assert_ne!(one, keys.key(&req, &from("192.0.2.2")));
    let header = Keys::of(&["header:X-A"]).anonymous();
    let with = |fields| header.key(&request("GET", fields), &ctx());
    assert_ne!(with(&[]), with(&[("x-a", "")]), "an empty value is a value");
}
