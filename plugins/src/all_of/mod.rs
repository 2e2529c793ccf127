//! Lets a caller in that each of several plugins knows: a key and a certificate, say.
//!
//! The plugins are asked in their order, and the first refusal is the answer. A caller that shows some of the credentials but
//! not all is refused, whatever `required` says; only one that shows none of them counts as anonymous. The last plugin that
//! knows a consumer says who is calling, and no two may know different ones: credentials of two callers together would let
//! each act as the other.

use std::sync::Arc;

use async_trait::async_trait;
use crossway_plugin_api::{Consumer, Ctx, Decision, Deps, Fault, InvalidConfig, Needs, Plugin, PluginConfig, Reply};
use http::StatusCode;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::entries::{Entries, Members, later_phases};

/// Settings of `all_of`: the plugins, of which each must let in. They authenticate, and have no keys beside their own.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Config(Entries);

impl Config {
    pub(crate) fn entries(&self) -> &Entries {
        &self.0
    }
}

impl PluginConfig for Config {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        Ok(Arc::new(AllOf { members: self.0.build(deps)? }))
    }
}

struct AllOf {
    members: Members,
}

impl AllOf {
    /// Asks all. The context holds what the plugins have established, but for the consumer, which is in `found`.
    async fn ask(
        &self,
        req: &mut RequestHeader,
        ctx: &mut Ctx,
        found: &mut Option<Arc<Consumer>>,
    ) -> Result<Decision, Fault> {
        let mut let_in = 0;
        let mut absent: Option<Reply> = None;
        for (bit, member) in self.members.each() {
            match member.plugin.on_request(req, ctx).await? {
                Decision::Continue => {
                    let_in |= bit;
                    if let Some(consumer) = ctx.consumer.take()
                        && let Some(earlier) = found.replace(consumer)
                        && found.as_ref().is_some_and(|now| now.name() != earlier.name())
                    {
                        ctx.refusal = Some("the credentials belong to different consumers".into());
                        let detail = "The credentials of this request belong to different callers.";
                        let reply = Reply::problem(StatusCode::FORBIDDEN, "credentials_differ", detail);
                        return Ok(Decision::Respond(reply));
                    }
                }
                Decision::Respond(reply) => return Ok(Decision::Respond(reply)),
                Decision::Absent(reply) => absent = Some(absent.map_or(reply.clone(), |first| first.or(&reply))),
            }
            if let_in != 0
                && let Some(reply) = absent.take()
            {
                return Ok(Decision::Respond(reply));
            }
        }
        Ok(match absent {
            Some(reply) => Decision::Absent(reply),
            None => {
                self.members.let_in(ctx, let_in);
                Decision::Continue
            }
        })
    }
}

#[async_trait]
impl Plugin for AllOf {
    fn needs(&self) -> Needs {
        self.members.needs()
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let before = (ctx.consumer.take(), ctx.claims.take());
        let mut found = None;
        let decision = self.ask(req, ctx, &mut found).await;
        if let Ok(Decision::Continue) = decision {
            ctx.consumer = found.or(before.0);
            ctx.claims = ctx.claims.take().or(before.1);
        } else {
            // Who has shown part of the credentials is nobody.
            (ctx.consumer, ctx.claims) = before;
        }
        decision
    }

    later_phases!(members);
}

#[cfg(test)]
mod tests;
