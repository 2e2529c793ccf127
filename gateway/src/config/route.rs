//! What is served, and how.

use std::collections::BTreeMap;

use crossway_plugin_api::config::{FieldName, Glob, HumanDuration, Network};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{entry::PluginEntry, fallback::Fallback, limits::RouteLimits, split::Split};

/// Which requests to take, what to do with them, and where to send them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Unique name, used in logs and metrics.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,128}$"))]
    pub name: String,
    /// Which requests this route takes.
    pub r#match: Match,
    /// `none` serves everybody; without it the chain must hold an authentication plugin.
    pub auth: Option<Auth>,
    /// A chain to run before the route's own plugins.
    pub chain: Option<String>,
    /// The route's own plugins, run last, in this order.
    #[serde(default)]
    pub plugins: Vec<PluginEntry>,
    /// Inherited entries to leave out, by their `id`.
    #[serde(default)]
    pub without: Vec<String>,
    /// Where requests go. Not needed with `redirect`, or where a plugin always answers.
    pub upstream: Option<String>,
    /// Several upstreams in place of one, by shares or by conditions.
    pub split: Option<Split>,
    /// What comes in place of the upstream's failures. Default: the client gets them.
    pub fallback: Option<Fallback>,
    /// Changes to the request on its way to the upstream.
    pub rewrite: Option<Rewrite>,
    /// Answer with a redirect in place of an upstream.
    pub redirect: Option<Redirect>,
    /// Time until the response header, retries included; narrows the upstream's `timeouts.total`.
    pub timeout: Option<HumanDuration>,
    /// Lets WebSockets through; without it a WebSocket handshake is answered 403.
    pub websocket: Option<WebSocket>,
    /// Takes gRPC-web and speaks gRPC to the upstream, which must have `http2: true`. Other requests pass as they are.
    #[serde(default)]
    pub grpc_web: bool,
    /// `false` leaves this route's responses uncompressed, where the section `compression` compresses the others.
    pub compression: Option<bool>,
    /// Limits of this route.
    #[serde(default)]
    pub limits: RouteLimits,
    /// What an encoded slash (`%2F`) in the path means.
    #[serde(default)]
    pub encoded_slashes: EncodedSlashes,
}

/// WebSockets (RFC 6455) of a route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocket {
    /// How long neither side may say anything before the connection ends. Pings count.
    pub idle: HumanDuration,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self { idle: HumanDuration::from_secs(300) }
    }
}

/// Which requests a route takes: all that is given must hold; a list holds when one of its items does.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Host names, exact or with `*.` for any name below; default every host.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Path: exact, with `{name}` for one segment, or ending in `{rest...}` for everything below. A trailing slash counts.
    pub path: String,
    /// Methods; default every method. `GET` takes `HEAD` too, unless another route names `HEAD`.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Header fields and the values they must have.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": FieldName::FORMAT }))]
    pub headers: BTreeMap<String, Glob>,
    /// Query parameters and the values they must have.
    #[serde(default)]
    pub query: BTreeMap<String, Glob>,
    /// Listeners by name; default every listener.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// A source by name: takes the messages it brings in, and no request of a listener.
    pub source: Option<String>,
}

/// Whether callers must say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Everybody is served.
    None,
}

/// Changes to the request on its way to the upstream.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// New path; `{name}` stands for the route's path parameters.
    pub path: Option<String>,
    /// `preserve` keeps the client's host; any other text is sent as the host. Default: the endpoint's own name.
    pub host: Option<String>,
}

/// A redirect (RFC 9110, section 15.4).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Where to: a path or an absolute URL; `{name}` stands for the route's path parameters. The query is kept.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "permanent")]
    pub status: RedirectStatus,
}

fn permanent() -> RedirectStatus {
    RedirectStatus(308)
}

/// Status of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct RedirectStatus(pub u16);

impl JsonSchema for RedirectStatus {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RedirectStatus".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "enum": [301, 302, 303, 307, 308], "description": "Status of a redirect." })
    }
}

/// What an encoded slash in the path means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodedSlashes {
    /// The request is answered 400.
    #[default]
    Reject,
    /// It is part of its segment, and goes upstream as it came.
    Keep,
}

/// A condition on a plugin entry, or on a target of a `split`: all that is given must hold; a list holds when one of its items does.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// Methods.
    pub methods: Vec<String>,
    /// Paths, in canonical form.
    pub paths: Vec<Glob>,
    /// Header fields and the values they must have.
    #[schemars(extend("propertyNames" = { "format": FieldName::FORMAT }))]
    pub headers: BTreeMap<String, Glob>,
    /// Query parameters and the values they must have.
    pub query: BTreeMap<String, Glob>,
    /// Networks the client's address is in.
    pub client: Vec<Network>,
    /// Groups of the consumer. Known behind a plugin that authenticates only.
    pub groups: Vec<String>,
    /// Claims of the caller's token, by name or path, and the values they must have; of a claim that is a list, one of its
    /// items. Known behind a plugin that authenticates only.
    pub claims: BTreeMap<String, Glob>,
}
