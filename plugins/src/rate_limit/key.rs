//! Whose units are used: what a policy tells callers apart by.

use std::{borrow::Cow, hash::Hasher, net::IpAddr};

use crossway_plugin_api::{Ctx, config::FieldName};
use http::HeaderName;
use pingora_http::RequestHeader;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// One thing that tells callers apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// The client's address.
    Client,
    /// The consumer's name.
    Consumer,
    /// The first group of the consumer.
    Group,
    /// The route's name.
    Route,
    /// A claim of the caller's token, by name or path.
    Claim(String),
    /// A field of the request's header.
    Header(HeaderName),
    /// A path parameter of the route.
    Param(String),
}

impl Part {
    const PATTERN: &'static str = "^(client|consumer|group|route|(claim|header|param):.+)$";

    fn parse(text: &str) -> Result<Self, String> {
        const WRONG: &str = "is not client, consumer, group, route, claim:NAME, header:NAME or param:NAME";
        match text.split_once(':') {
            None => match text {
                "client" => Ok(Self::Client),
                "consumer" => Ok(Self::Consumer),
                "group" => Ok(Self::Group),
                "route" => Ok(Self::Route),
                _ => Err(WRONG.into()),
            },
            Some((_, "")) => Err(WRONG.into()),
            Some(("claim", path)) => Ok(Self::Claim(path.to_owned())),
            Some(("header", name)) => FieldName::parse(name).map(|name| Self::Header(name.0)),
            Some(("param", name)) => Ok(Self::Param(name.to_owned())),
            _ => Err(WRONG.into()),
        }
    }

    /// Whether it is known only behind a plugin that authenticates.
    pub(super) fn needs_caller(&self) -> bool {
        matches!(self, Self::Consumer | Self::Group | Self::Claim(_))
    }

    /// Whether a request may lack it.
    pub(super) fn may_lack(&self) -> bool {
        self.needs_caller() || matches!(self, Self::Header(_))
    }

    /// Adds its value to a hash; `false` if the request has none, and nothing was added.
    fn hash_of(&self, req: &RequestHeader, ctx: &Ctx, prefix: u8, into: &mut impl Feed) -> bool {
        let known = match self {
            Self::Client => {
                address(ctx.client, prefix, into);
                return true;
            }
            Self::Header(name) => {
                let mut values = 0;
                for value in req.headers.get_all(name) {
                    text(value.as_bytes(), into);
                    values += 1;
                }
                count(values, into);
                return values > 0;
            }
            Self::Claim(path) => {
                let claim = ctx.claims.as_ref().and_then(|claims| claims.get(path));
                return claim.is_some_and(|claim| hash_claim(claim, into));
            }
            Self::Consumer => ctx.consumer.as_ref().map(|consumer| consumer.name()),
            Self::Group => ctx.consumer.as_ref().and_then(|consumer| consumer.groups().first()).map(String::as_str),
            // Where no route has taken the request, all share one name that no route has.
            Self::Route => Some(ctx.route.as_deref().unwrap_or_default()),
            Self::Param(name) => Some(ctx.param(name).unwrap_or_default()),
        };
        known.inspect(|known| text(known.as_bytes(), into)).is_some()
    }

    /// As it is written.
    pub(super) fn written(&self) -> Cow<'static, str> {
        match self {
            Self::Client => "client".into(),
            Self::Consumer => "consumer".into(),
            Self::Group => "group".into(),
            Self::Route => "route".into(),
            Self::Claim(path) => format!("claim:{path}").into(),
            Self::Header(name) => format!("header:{name}").into(),
            Self::Param(name) => format!("param:{name}").into(),
        }
    }
}

/// A hash that is fed with bytes. `Hash` of the standard library would feed other ones on another machine or in another
/// release, and gateways that share a store must agree.
pub(super) trait Feed {
    fn feed(&mut self, bytes: &[u8]);
}

impl<H: Hasher> Feed for H {
    fn feed(&mut self, bytes: &[u8]) {
        self.write(bytes);
    }
}

/// Adds a text, and where it ends.
pub(super) fn text(text: &[u8], into: &mut impl Feed) {
    count(text.len(), into);
    into.feed(text);
}

/// Adds a number of things.
pub(super) fn count(count: usize, into: &mut impl Feed) {
    into.feed(&(count as u64).to_le_bytes());
}

/// A text, a number or a boolean; nothing else names a caller.
fn hash_claim(claim: &Value, into: &mut impl Feed) -> bool {
    match claim {
        Value::String(claim) => {
            into.feed(b"s");
            text(claim.as_bytes(), into);
        }
        Value::Number(number) => {
            into.feed(b"n");
            text(number.to_string().as_bytes(), into);
        }
        Value::Bool(is_so) => into.feed(&[b'b', u8::from(*is_so)]),
        Value::Null | Value::Array(_) | Value::Object(_) => return false,
    }
    true
}

/// Adds the address that counts.
fn address(whole: IpAddr, prefix: u8, into: &mut impl Feed) {
    match client(whole, prefix) {
        IpAddr::V4(address) => into.feed(&address.octets()),
        IpAddr::V6(address) => into.feed(&address.octets()),
    }
}

/// The address that counts: all of IPv4, and the first bits of IPv6.
fn client(address: IpAddr, prefix: u8) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or_default();
            IpAddr::V6((u128::from(address) & kept).into())
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Parts, all of which tell callers apart.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) all: Vec<Part>,
    /// Bits of an IPv6 address that count.
    pub(super) ipv6_prefix: u8,
    /// Whether callers that lack a part are told apart by the others.
    pub(super) anonymous: bool,
}

impl Parts {
    /// Adds what tells the caller apart to a hash; `None` if a part is missing that must be there.
    pub(super) fn hash(&self, req: &RequestHeader, ctx: &Ctx, into: &mut impl Feed) -> Option<()> {
        for part in &self.all {
            let is_there = part.hash_of(req, ctx, self.ipv6_prefix, into);
            if !is_there && !self.anonymous {
                return None;
            }
            // Without this, a value could look like the lack of one.
            into.feed(&[is_there.into()]);
        }
        Some(())
    }
}

impl Parts {
    /// Whether some part is known only behind a plugin that authenticates.
    pub(super) fn need_caller(&self) -> bool {
        self.all.iter().any(Part::needs_caller)
    }

    /// The path parameters among the parts, each with its number.
    pub(super) fn params(&self) -> impl Iterator<Item = (usize, &str)> {
        self.all.iter().enumerate().filter_map(|(at, part)| match part {
            Part::Param(name) => Some((at, name.as_str())),
            _ => None,
        })
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

impl JsonSchema for Part {
    fn schema_name() -> Cow<'static, str> {
        "Part".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": Self::PATTERN,
            "description": "What tells callers apart: client, consumer, group, route, claim:NAME, header:NAME or param:NAME.",
            "examples": ["consumer"],
        })
    }
}

#[cfg(test)]
mod tests;
