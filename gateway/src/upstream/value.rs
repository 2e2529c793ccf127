//! The value of a request that decides where it goes, as a number.

use std::net::IpAddr;

use crossway_plugin_api::{Ctx, cookies};
use pingora_http::RequestHeader;
use serde_json::{Number, Value};

use super::rendezvous::hash;
use crate::config::balance::On;

/// The hash of the value; `None` if the request does not have it.
pub fn hash_of(on: &On, req: &RequestHeader, ctx: &Ctx) -> Option<u64> {
    let text = |text: &str| hash(&[text.as_bytes()]);
    match on {
        On::Client => Some(match ctx.client.to_canonical() {
            IpAddr::V4(address) => hash(&[&address.octets()]),
            // Hosts change the rest of their address as they like.
            IpAddr::V6(address) => hash(&[&address.octets()[..8]]),
        }),
        On::Consumer => ctx.consumer.as_ref().map(|consumer| text(consumer.name())),
        On::Host => Some(text(&ctx.host)),
        On::Path => Some(text(&ctx.path)),
        On::Header(name) => {
            let mut values = req.headers.get_all(name).iter();
            let first = hash(&[values.next()?.as_bytes()]);
            Some(values.fold(first, |all, value| hash(&[&all.to_le_bytes(), value.as_bytes()])))
        }
        On::Cookie(name) => cookies(&req.headers).find(|(other, _)| other == name).map(|(_, value)| text(value)),
        On::Claim(path) => match ctx.claims.as_ref()?.get(path)? {
            Value::String(claim) => Some(text(claim)),
            Value::Number(number) => Some(number_hash(number)),
            Value::Bool(is_so) => Some(text(if *is_so { "true" } else { "false" })),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        },
        On::Param(name) => ctx.param(name).map(text),
        On::Query(name) => {
            let mut pairs = req.uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs.find(|(other, _)| other == name).map(|(_, value)| text(value))
        }
    }
}

/// Without writing it out.
fn number_hash(number: &Number) -> u64 {
    let whole = number.as_i64().map(i64::to_le_bytes).or_else(|| number.as_u64().map(u64::to_le_bytes));
    hash(&[&whole.unwrap_or_else(|| number.as_f64().unwrap_or_default().to_le_bytes())])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn each_value_counts_where_it_is_there() {
        let mut req = RequestHeader::build("GET", b"/a?q=1&r&s=2", None).unwrap();
        req.append_header("x-tenant", "acme").unwrap();
        req.append_header("cookie", "a=b; sid=acme").unwrap();
        let client = "2001:db8:0:1::7".parse().unwrap();
        let ctx = Ctx::new(client, "acme".into(), Arc::from("/a"));
        let of = |text: &str| hash_of(&On::parse(text).unwrap(), &req, &ctx);
        let acme = Some(hash(&[b"acme"]));
        assert_eq!((of("header:x-tenant"), of("cookie:sid"), of("host")), (acme, acme, acme));
        assert_eq!(
            (of("query:q"), of("query:r"), of("path")),
            (Some(hash(&[b"1"])), Some(hash(&[b""])), Some(hash(&[b"/a"])))
        );
        for missing in ["header:x-other", "cookie:x", "claim:tenant", "consumer", "param:id", "query:x"] {
            assert_eq!(of(missing), None, "{missing}");
        }
        let other = Ctx::new("2001:db8:0:1::8".parse().unwrap(), String::new(), Arc::from("/"));
        assert_eq!(of("client"), hash_of(&On::Client, &req, &other));
        req.append_header("x-tenant", "acme").unwrap();
        assert_ne!(hash_of(&On::parse("header:x-tenant").unwrap(), &req, &ctx), acme);
    }
}
