//! How one of several endpoints is chosen.

use std::borrow::Cow;

use crossway_plugin_api::config::{FieldName, HumanDuration, Secret};
use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// How the next endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// Two are drawn by weight, and the one with fewer requests in flight for its weight gets the request.
    LeastInFlight,
    /// Requests that have the same value go to the same endpoint, as long as it is available.
    Hash(HashBalance),
}

/// Requests that have the same value go to the same endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashBalance {
    /// The value. A request without it is sent to the endpoint whose turn it is.
    pub on: On,
}

/// A value of a request that decides where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum On {
    /// The client's address; of IPv6 the first 64 bits.
    Client,
    /// The consumer's name.
    Consumer,
    /// The canonical host.
    Host,
    /// The canonical path.
    Path,
    /// A field of the request's header.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A claim of the caller's token, by name or path.
    Claim(String),
    /// A path parameter of the route.
    Param(String),
    /// A parameter of the query, as it is written.
    Query(String),
}

impl On {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-hash-on";

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WRONG: &str =
            "is not client, consumer, host, path, header:NAME, cookie:NAME, claim:NAME, param:NAME or query:NAME";
        match text.split_once(':') {
            None => match text {
                "client" => Ok(Self::Client),
                "consumer" => Ok(Self::Consumer),
                "host" => Ok(Self::Host),
                "path" => Ok(Self::Path),
                _ => Err(WRONG.into()),
            },
            Some((_, "")) => Err(WRONG.into()),
            Some(("header", name)) => FieldName::parse(name).map(|name| Self::Header(name.0)),
            Some(("cookie", name)) => cookie_name(name).map(|()| Self::Cookie(name.to_owned())),
            Some(("claim", name)) => Ok(Self::Claim(name.to_owned())),
            Some(("param", name)) => Ok(Self::Param(name.to_owned())),
            Some(("query", name)) => Ok(Self::Query(name.to_owned())),
            _ => Err(WRONG.into()),
        }
    }

    /// Whether it is known only behind a plugin that authenticates.
    pub fn needs_caller(&self) -> bool {
        matches!(self, Self::Consumer | Self::Claim(_))
    }
}

/// Checks the name of a cookie: a token (RFC 6265, section 4.1.1).
pub fn cookie_name(name: &str) -> Result<(), String> {
    // The characters of a token are those of a field's name.
    HeaderName::from_bytes(name.as_bytes()).map(drop).map_err(|_| "is not the name of a cookie".into())
}

impl std::fmt::Display for On {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Consumer => f.write_str("consumer"),
            Self::Host => f.write_str("host"),
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Claim(name) => write!(f, "claim:{name}"),
            Self::Param(name) => write!(f, "param:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

impl Serialize for On {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for On {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for On {
    fn schema_name() -> Cow<'static, str> {
        "On".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "format": Self::FORMAT,
            "description": "client, consumer, host, path, header:NAME, cookie:NAME, claim:NAME, param:NAME or query:NAME.",
            "examples": ["header:X-Tenant"],
        })
    }
}

/// Clients come back to the endpoint that has served them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// The cookie that names the endpoint.
    pub cookie: StickyCookie,
    /// What the cookies' values are keyed with: the same on every gateway that serves the same clients, at least 16
    /// characters. Default: made at random when the process starts, so that a cookie means nothing to another gateway, nor
    /// to this one after a restart.
    pub key: Option<Secret>,
}

/// The cookie that names the endpoint: a keyed digest, which says nothing about its address (RFC 6265).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyCookie {
    /// Its name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// How long the client keeps it, from 1 s to 400 days. Default: until the browser is closed.
    pub ttl: Option<HumanDuration>,
    /// The paths that it is sent for.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Whether it is sent over TLS only. Default: where the request that it answers came over TLS.
    pub secure: Option<bool>,
    /// `true` hides it from scripts.
    #[serde(default = "yes")]
    pub http_only: bool,
    /// Whether it is sent with requests that other sites cause.
    #[serde(default)]
    pub same_site: SameSite,
}

fn root() -> String {
    "/".into()
}

fn yes() -> bool {
    true
}

/// Whether a cookie is sent with requests that other sites cause (RFC 6265bis, section 4.1.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Never.
    Strict,
    /// When the user follows a link.
    #[default]
    Lax,
    /// Always; `secure: true` must stand beside it.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hashed_reads_as_it_is_written() {
        for text in [
            "client",
            "consumer",
            "host",
            "path",
            "header:x-tenant",
            "cookie:sid",
            "claim:realm.tenant",
            "param:id",
            "query:q",
        ] {
            assert_eq!(On::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["", "ip", "header", "header:", "header:a b", "cookie:a;b", "client:x", "route"] {
            assert!(On::parse(wrong).is_err(), "{wrong}");
        }
    }
}
