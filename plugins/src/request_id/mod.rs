//! Names each request, so that it can be found in the logs of every system it passes.
//!
//! The gateway has given the request a fresh name before any plugin runs. This plugin says it to the upstream and to
//! the client, and can take the name that the client brought instead.

use std::sync::Arc;

use async_trait::async_trait;
use crossway_plugin_api::{
    Ctx, Decision, Deps, Fault, InvalidConfig, Needs, Plugin, PluginConfig, RequestId, config::FieldName,
};
use http::{HeaderName, HeaderValue, header};
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;
use uuid::{NoContext, Timestamp, Uuid};

use crate::fields;

/// Settings of `request_id`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The field that carries the name. Default `X-Request-Id`.
    pub header: FieldName,
    /// Take the client's name for the request: one field of 1 to 64 characters `A-Z a-z 0-9 . _ -`. Anything else, and
    /// by default everything, is replaced.
    pub trust_incoming: bool,
    /// Say the name to the client too. Default true.
    pub response: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { header: FieldName(HeaderName::from_static("x-request-id")), trust_incoming: false, response: true }
    }
}

impl PluginConfig for Config {
    fn build(self, _deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        let header = self.header.0;
        fields::check_framing(&header, "header")?;
        let says_something =
            [header::AUTHORIZATION, header::COOKIE, header::SET_COOKIE, header::DATE].contains(&header);
        if says_something || fields::is_identity(&header) {
            return Err(InvalidConfig::new("header", format!("names `{header}`, a field that says something else")));
        }
        Ok(Arc::new(Naming { header, trust_incoming: self.trust_incoming, response: self.response }))
    }
}

/// A name that no other request has: a version 7 UUID (RFC 9562, section 5.7), 36 characters. Takes no lock and
/// allocates nothing.
pub fn fresh() -> RequestId {
    let mut text = Uuid::encode_buffer();
    let id = Uuid::new_v7(Timestamp::now(NoContext));
    RequestId::parse(id.hyphenated().encode_lower(&mut text)).expect("a UUID is 36 characters that names may have")
}

struct Naming {
    header: HeaderName,
    trust_incoming: bool,
    response: bool,
}

impl Naming {
    /// The name that the client brought, if it is one and the only one.
    fn incoming(&self, req: &RequestHeader) -> Option<RequestId> {
        let mut copies = req.headers.get_all(&self.header).iter();
        match (copies.next(), copies.next()) {
            (Some(only), None) => RequestId::parse(only.to_str().ok()?),
            _ => None,
        }
    }
}

#[async_trait]
impl Plugin for Naming {
    fn needs(&self) -> Needs {
        Needs { request: true, upstream_request: true, response: self.response, ..Needs::default() }
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        match self.incoming(req) {
            Some(id) if self.trust_incoming => ctx.request_id = id,
            // Plugins after this one must not take the client's word for the request's name.
            _ => drop(req.remove_header(&self.header)),
        }
        Ok(Decision::Continue)
    }

    fn on_upstream_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        req.insert_header(self.header.clone(), value(ctx)?).map_err(broken)
    }

    fn on_response(&self, res: &mut ResponseHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        res.insert_header(self.header.clone(), value(ctx)?).map_err(broken)
    }
}

fn value(ctx: &Ctx) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(ctx.request_id.as_str()).map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::Internal(format!("the request's name cannot be written: {error}"))
}

#[cfg(test)]
mod tests;
