//! Lets a request in by the API key it carries.
//!
//! Keys stand under `consumers`, by their digests, or are issued at run time. A key is looked up by its SHA-256, so that the
//! time of an answer says nothing about the keys there are. The upstream learns who is calling from `X-Consumer-Name`
//! and `X-Consumer-Groups`; the client's own copies of these are removed on every route.

mod presented;

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use crossway_plugin_api::{
    Consumer, ConsumerDirectory, Ctx, Decision, Deps, Digest256, Fault, InvalidConfig, IssuedKeys, Needs, NoHolder,
    Plugin, PluginConfig, Reply, config::FieldName,
};
use http::{HeaderName, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use pingora_http::RequestHeader;
use ring::digest::{SHA256, digest};
use schemars::JsonSchema;
use serde::Deserialize;

use self::presented::{Places, Presented};
use crate::fields;

/// No scheme is registered for API keys; this is the one that gateways have agreed on (RFC 9110, section 11.6.1).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Key realm=\"crossway\"");

/// Settings of `api_key`. A key may stand in one place of a request only, and once.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The field that carries the key; its whole value is the key. Default `X-API-Key`.
    pub header: FieldName,
    /// The query parameter that may carry the key instead. Default none: URLs end up in histories and in logs of others.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._~-]{1,64}$"))]
    pub query: Option<String>,
    /// The cookie that may carry the key instead. Default none. Browsers send cookies with requests that pages of other
    /// sites make: set it with `SameSite`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"))]
    pub cookie: Option<String>,
    /// Keep the key from later plugins and the upstream. Default true.
    pub hide: bool,
}

impl Default for Config {
    fn default() -> Self {
        let header = FieldName(HeaderName::from_static("x-api-key"));
        Self { header, query: None, cookie: None, hide: true }
    }
}

impl PluginConfig for Config {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        let header = self.header.0;
        fields::check_framing(&header, "header")?;
        if fields::is_identity(&header) {
            return Err(fields::reserved(&header, "header", "that only the gateway writes"));
        }
        if header == http::header::COOKIE {
            return Err(InvalidConfig::new("header", "names `cookie`: write the cookie's name as `cookie`"));
        }
        let places = Places { header, query: self.query, cookie: self.cookie };
        let (consumers, issued) = (Arc::clone(&deps.consumers), Arc::clone(&deps.issued));
        Ok(Arc::new(Doorkeeper { places, hide: self.hide, consumers, issued }))
    }
}

struct Doorkeeper {
    places: Places,
    hide: bool,
    consumers: Arc<ConsumerDirectory>,
    issued: Arc<dyn IssuedKeys>,
}

impl Doorkeeper {
    /// The consumer that holds the key: one of the configuration, or one that was issued.
    fn holder(&self, key: &[u8]) -> Result<&Arc<Consumer>, NoHolder> {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, key).as_ref());
        let digest = Digest256(bytes);
        match self.consumers.by_api_key(&digest) {
            Some(consumer) => Ok(consumer),
            None => self.issued.holder(key, &digest, &self.consumers),
        }
    }
}

#[async_trait]
impl Plugin for Doorkeeper {
    fn needs(&self) -> Needs {
        Needs {
            request: true,
            authenticates: true,
            secret_query: self.places.query.iter().cloned().collect(),
            secret_headers: vec![self.places.header.clone()],
            ..Needs::default()
        }
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let found = match self.places.look(req) {
            Presented::Nothing => {
                ctx.refusal = Some("no API key".into());
                let detail = "This request needs an API key.";
                return Ok(Decision::Absent(unauthorized("api_key_missing", detail)));
            }
            Presented::Key(key) => self.holder(&key),
            Presented::Garbage(why) => Err(NoHolder::Refused(why)),
        };
        if self.hide {
            self.places.strip(req);
        }
        match found {
            Ok(consumer) => {
                ctx.consumer = Some(Arc::clone(consumer));
                Ok(Decision::Continue)
            }
            Err(NoHolder::Refused(why)) => {
                ctx.refusal = Some(Cow::Borrowed(why));
                Ok(Decision::Respond(unauthorized("api_key_invalid", "This API key is not valid.")))
            }
            Err(NoHolder::Unknown) => {
                Err(Fault::Dependency("no API key could be read from the store since the start".into()))
            }
        }
    }
}

/// 401 with the challenge it must have (RFC 9110, section 15.5.2).
fn unauthorized(code: &'static str, detail: &str) -> Reply {
    Reply::problem(StatusCode::UNAUTHORIZED, code, detail).header(WWW_AUTHENTICATE, CHALLENGE)
}

#[cfg(test)]
mod tests;
