//! What tells callers apart, for plugins that count.

use std::{borrow::Cow, hash::Hasher, net::IpAddr, ops::RangeInclusive};

use crossway_plugin_api::{Ctx, InvalidConfig, config::FieldName};
use http::HeaderName;
use pingora_http::RequestHeader;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// Bits of an IPv6 address that count.
const PREFIX: RangeInclusive<u8> = 16..=128;
/// What one subscriber has.
pub(crate) const DEFAULT_PREFIX: u8 = 64;
const MAX_PARTS: usize = 8;

/// What becomes of a request that lacks a part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "described where it is used, so that its schema stays a list of words")]
pub enum OnMissingKey {
    #[default]
    Deny,
    Allow,
    Anonymous,
}

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
    pub(crate) fn needs_caller(&self) -> bool {
        matches!(self, Self::Consumer | Self::Group | Self::Claim(_))
    }

    /// Whether a request may lack it.
    pub(crate) fn may_lack(&self) -> bool {
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
    pub(crate) fn written(&self) -> Cow<'static, str> {
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
pub(crate) trait Feed {
    fn feed(&mut self, bytes: &[u8]);
}

impl<H: Hasher> Feed for H {
    fn feed(&mut self, bytes: &[u8]) {
        self.write(bytes);
    }
}

/// Adds a text, and where it ends.
pub(crate) fn text(text: &[u8], into: &mut impl Feed) {
    count(text.len(), into);
    into.feed(text);
}

/// Adds a number of things.
pub(crate) fn count(count: usize, into: &mut impl Feed) {
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
pub(crate) struct Parts {
    pub(crate) all: Vec<Part>,
    /// Bits of an IPv6 address that count.
    pub(crate) ipv6_prefix: u8,
    /// Whether callers that lack a part are told apart by the others.
    pub(crate) anonymous: bool,
}

impl Parts {
    /// Checks what users write. The fields of the error are `key`, `on_missing_key` and `ipv6_prefix`.
    pub(crate) fn new(
        key: &[Part],
        ipv6_prefix: Option<u8>,
        on_missing_key: Option<OnMissingKey>,
    ) -> Result<Self, InvalidConfig> {
        let wrong = |field: &str, reason: String| Err(InvalidConfig::new(field, reason));
        if key.is_empty() || key.len() > MAX_PARTS {
            return wrong("key", format!("must name 1 to {MAX_PARTS} parts"));
        }
        if let Some(at) = (1..key.len()).find(|at| key[..*at].contains(&key[*at])) {
            return wrong(&format!("key/{at}"), "stands here twice".into());
        }
        if on_missing_key.is_some() && !key.iter().any(Part::may_lack) {
            return wrong("on_missing_key", "has no effect: no part of the key can be missing".into());
        }
        let prefix = ipv6_prefix.unwrap_or(DEFAULT_PREFIX);
        if !PREFIX.contains(&prefix) {
            return wrong("ipv6_prefix", format!("must be {} to {}", PREFIX.start(), PREFIX.end()));
        }
        if ipv6_prefix.is_some() && !key.contains(&Part::Client) {
            return wrong("ipv6_prefix", "has no effect: the key has no `client`".into());
        }
        let anonymous = on_missing_key == Some(OnMissingKey::Anonymous);
        Ok(Self { all: key.to_vec(), ipv6_prefix: prefix, anonymous })
    }

    /// Whether some part says who calls, and not only what for.
    pub(crate) fn name_callers(&self) -> bool {
        self.all.iter().any(|part| !matches!(part, Part::Route | Part::Param(_)))
    }

    /// Adds what tells the caller apart to a hash; `None` if a part is missing that must be there.
    pub(crate) fn hash(&self, req: &RequestHeader, ctx: &Ctx, into: &mut impl Feed) -> Option<()> {
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
    pub(crate) fn need_caller(&self) -> bool {
        self.all.iter().any(Part::needs_caller)
    }

    /// The path parameters among the parts, each with its number.
    pub(crate) fn params(&self) -> impl Iterator<Item = (usize, &str)> {
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
