//! Lets requests in or keeps them out by the client's address.
//!
//! The address is the one the gateway found: the peer's, or what a trusted proxy said. `deny` wins over `allow`; with
//! an `allow` list everybody else stays out, without one everybody else comes in.

use std::sync::Arc;

use async_trait::async_trait;
use crossway_plugin_api::{
    Ctx, Decision, Deps, Fault, InvalidConfig, Needs, Plugin, PluginConfig, Reply, config::Network,
};
use http::StatusCode;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

mod ranges;

use ranges::Ranges;

/// Settings of `ip_allow`; at least one list must name a network.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Networks that come in; everybody else is answered 403. Empty: everybody comes in who is not denied.
    pub allow: Vec<Network>,
    /// Networks that stay out, even where `allow` names them too.
    pub deny: Vec<Network>,
}

impl PluginConfig for Config {
    fn build(self, _deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        if self.allow.is_empty() && self.deny.is_empty() {
            return Err(InvalidConfig::new("", "names no network: give `allow`, `deny` or both"));
        }
        let allow = (!self.allow.is_empty()).then(|| Ranges::of(&self.allow));
        Ok(Arc::new(Gate { allow, deny: Ranges::of(&self.deny) }))
    }
}

struct Gate {
    allow: Option<Ranges>,
    deny: Ranges,
}

#[async_trait]
impl Plugin for Gate {
    fn needs(&self) -> Needs {
        Needs { request: true, ..Needs::default() }
    }

    async fn on_request(&self, _req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.contains(ctx.client));
        if allowed && !self.deny.contains(ctx.client) {
            return Ok(Decision::Continue);
        }
        ctx.refusal = Some(if allowed { "the address is denied" } else { "the address is not allowed" }.into());
        let detail = "Requests from this address are not served.";
        Ok(Decision::Respond(Reply::problem(StatusCode::FORBIDDEN, "ip_denied", detail)))
    }
}

#[cfg(test)]
mod tests;
