//! Lets a caller in by what is known of it and of its request.
//!
//! Another plugin has established who is calling; this one says what that caller may do. All conditions that are given must
//! hold. What a client learns is the same for all of them: which one did not hold is for the log.
//!
//! A caller without a credential, whom `required: false` has let come as far as here, is answered with the challenges of the
//! plugins that let it pass: 401 (RFC 9110, section 15.5.2). Where there is no challenge to name it is 403.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use crossway_plugin_api::{
    Clock, Ctx, Decision, Deps, Fault, InvalidConfig, NeededParam, Needs, Plugin, PluginConfig, Reply, config::Network,
};
use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

mod binding;
mod claims;
mod expression;
mod grammar;
mod names;
mod roles;
mod rules;
mod scopes;

use binding::Known;
use claims::Wanted;
use roles::Permission;
use rules::Rules;
use scopes::Scopes;

/// Settings of `authorize`; at least one condition must be given. An empty list would let nobody in, and is refused.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Scopes that the caller's token must have (RFC 6749, section 3.3). Each is compared as a whole; case counts.
    #[schemars(with = "Scopes")]
    pub scopes: Option<Scopes>,
    /// What the caller's token must say, by the name of the claim, or by a path: `realm_access.roles`. A claim that is a list
    /// must have one of the values. In texts `*` stands for any characters; numbers and booleans are compared exactly.
    #[schemars(with = "BTreeMap<String, Wanted>", extend("minProperties" = 1))]
    pub claims: Option<BTreeMap<String, Wanted>>,
    /// Groups, and what each may do. The caller must be of one that allows this method and path.
    #[schemars(with = "BTreeMap<String, Permission>", extend("minProperties" = 1))]
    pub groups: Option<BTreeMap<String, Permission>>,
    /// A claim whose values count as groups too, such as `realm_access.roles`. Without: the groups of the consumer only.
    pub groups_claim: Option<String>,
    /// Consumers that may come in, by name.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub consumers: Option<Vec<String>>,
    /// Networks that the client's address must be in one of.
    #[schemars(with = "Vec<Network>", length(min = 1))]
    pub networks: Option<Vec<Network>>,
    /// Path parameters of the route, each with what it must be: `claim:NAME`, `consumer:name` or `consumer:metadata.NAME`. A
    /// claim that is a list must have it.
    #[schemars(with = "BTreeMap<String, Known>", extend("minProperties" = 1))]
    pub params: Option<BTreeMap<String, Known>>,
    /// A condition in the Common Expression Language, at most 1024 bytes. What fails, such as a claim that is not there, and
    /// what is no boolean lets nobody in.
    pub expression: Option<String>,
}

impl PluginConfig for Config {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        let rules = Rules::compile(self, &deps.consumers)?;
        Ok(Arc::new(Judge { rules, clock: deps.clock.clone() }))
    }
}

/// The caller's token is good, but not good enough (RFC 6750, section 3.1).
const INSUFFICIENT: HeaderValue = HeaderValue::from_static("Bearer realm=\"crossway\", error=\"insufficient_scope\"");
const DETAIL: &str = "The caller may not do this.";

struct Judge {
    rules: Rules,
    clock: Clock,
}

#[async_trait]
impl Plugin for Judge {
    fn needs(&self) -> Needs {
        let params = self.rules.params();
        let params = params.map(|(name, field)| NeededParam { name: name.to_owned(), field }).collect();
        Needs { request: true, caller: self.rules.need_caller, params, ..Needs::default() }
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let Err(why) = self.rules.hold(req, ctx, &self.clock) else { return Ok(Decision::Continue) };
        ctx.refusal = Some(Cow::Borrowed(why));
        let is_anonymous = ctx.consumer.is_none() && ctx.claims.is_none();
        let challenge = ctx.challenge.take().filter(|_| is_anonymous && self.rules.need_caller);
        Ok(Decision::Respond(match (challenge, &ctx.claims) {
            (Some(challenge), _) => *challenge,
            (None, Some(_)) => Reply::problem(StatusCode::FORBIDDEN, "insufficient_scope", DETAIL)
                .header(WWW_AUTHENTICATE, INSUFFICIENT),
            (None, None) => Reply::problem(StatusCode::FORBIDDEN, "forbidden", DETAIL),
        }))
    }
}

#[cfg(test)]
mod tests;
