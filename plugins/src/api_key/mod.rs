//! Lets a request in by the API key it carries.
//!
//! Consumers and the digests of their keys stand under `consumers`. The key is looked up by its SHA-256, so that the
//! time of an answer says nothing about the keys there are. The upstream learns who is calling from `X-Consumer-Name`
//! and `X-Consumer-Groups`; the client's own copies of these are removed on every route.

use std::sync::Arc;

use async_trait::async_trait;
use crossway_plugin_api::{
    ConsumerDirectory, Ctx, Decision, Deps, Digest256, Fault, InvalidConfig, Needs, Plugin, PluginConfig, Reply,
    config::FieldName,
};
use http::{HeaderName, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use pingora_http::RequestHeader;
use ring::digest::{SHA256, digest};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fields;

/// No scheme is registered for API keys; this is the one that gateways have agreed on (RFC 9110, section 11.6.1).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Key realm=\"crossway\"");
/// Longest key accepted, in bytes.
const MAX_KEY: usize = 512;

/// Settings of `api_key`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The field that carries the key; its whole value is the key. Default `X-API-Key`.
    pub header: FieldName,
    /// Keep the key from later plugins and the upstream. Default true.
    pub hide: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { header: FieldName(HeaderName::from_static("x-api-key")), hide: true }
    }
}

impl PluginConfig for Config {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        let header = self.header.0;
        fields::check_framing(&header, "header")?;
        if fields::is_identity(&header) {
            return Err(fields::reserved(&header, "header", "that only the gateway writes"));
        }
        Ok(Arc::new(Doorkeeper { header, hide: self.hide, consumers: Arc::clone(&deps.consumers) }))
    }
}

struct Doorkeeper {
    header: HeaderName,
    hide: bool,
    consumers: Arc<ConsumerDirectory>,
}

impl Doorkeeper {
    /// The digest of the key. A value that cannot be a key is told from a wrong one by nothing but this plugin.
    fn presented(&self, req: &RequestHeader) -> Presented {
        let mut copies = req.headers.get_all(&self.header).iter();
        match (copies.next(), copies.next()) {
            (None, _) => Presented::Nothing,
            (Some(key), None) if (1..=MAX_KEY).contains(&key.len()) => {
                let mut bytes = [0; 32];
                bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
                Presented::Key(Digest256(bytes))
            }
            _ => Presented::Garbage,
        }
    }
}

enum Presented {
    Nothing,
    Key(Digest256),
    Garbage,
}

#[async_trait]
impl Plugin for Doorkeeper {
    fn needs(&self) -> Needs {
        Needs { request: true, authenticates: true, ..Needs::default() }
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let found = match self.presented(req) {
            Presented::Nothing => {
                let detail = "This request needs an API key.";
                return Ok(Decision::Absent(unauthorized("api_key_missing", detail)));
            }
            Presented::Key(digest) => self.consumers.by_api_key(&digest),
            Presented::Garbage => None,
        };
        let Some(consumer) = found else {
            return Ok(Decision::Respond(unauthorized("api_key_invalid", "This API key is not valid.")));
        };
        ctx.consumer = Some(Arc::clone(consumer));
        if self.hide {
            req.remove_header(&self.header);
        }
        Ok(Decision::Continue)
    }
}

/// 401 with the challenge it must have (RFC 9110, section 15.5.2).
fn unauthorized(code: &'static str, detail: &str) -> Reply {
    Reply::problem(StatusCode::UNAUTHORIZED, code, detail).header(WWW_AUTHENTICATE, CHALLENGE)
}

#[cfg(test)]
mod tests;
