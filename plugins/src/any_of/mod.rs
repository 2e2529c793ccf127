//! Lets a caller in that one of several plugins knows.
//!
//! The plugins are asked in their order. The first that lets in decides who is calling. One that finds no credential of its
//! kind passes the question on; one that finds a credential which is not valid answers at once, so that nobody can try a
//! forged token and still come in by another way. Where no credential is found, the answer names all challenges.

use std::sync::Arc;

use async_trait::async_trait;
use crossway_plugin_api::{Ctx, Decision, Deps, Fault, InvalidConfig, Needs, Plugin, PluginConfig, Reply};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::entries::{Entries, Members, later_phases};

/// Settings of `any_of`: the plugins, of which one is enough. They authenticate, and have no keys beside their own.
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
        Ok(Arc::new(AnyOf { members: self.0.build(deps)? }))
    }
}

struct AnyOf {
    members: Members,
}

#[async_trait]
impl Plugin for AnyOf {
    fn needs(&self) -> Needs {
        self.members.needs()
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let mut absent: Option<Reply> = None;
        for (bit, member) in self.members.each() {
            match member.plugin.on_request(req, ctx).await? {
                Decision::Continue => {
                    self.members.let_in(ctx, bit);
                    // What an earlier one may have noted: its credential was not needed.
                    ctx.refusal = None;
                    return Ok(Decision::Continue);
                }
                Decision::Respond(reply) => return Ok(Decision::Respond(reply)),
                Decision::Absent(reply) => absent = Some(absent.map_or(reply.clone(), |first| first.or(&reply))),
            }
        }
        absent.map(Decision::Absent).ok_or_else(|| Fault::Internal("`any_of` without plugins".into()))
    }

    later_phases!(members);
}

#[cfg(test)]
mod tests;
