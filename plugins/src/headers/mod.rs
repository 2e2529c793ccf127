//! Sets, adds, removes and renames header fields.
//!
//! The order is fixed: `remove`, `rename`, `set`, `add`. The request is changed last of all, on its way to the upstream,
//! so that a client cannot have a field dropped by naming it in `Connection`; the response is changed on every answer,
//! the gateway's own included.
//!
//! A value may hold placeholders: `{request_id}`, `{client}` (the address), `{consumer}` (the name), `{route}` (the
//! name) and `{path.NAME}` (a path parameter, as it stands in the path). What does not exist for a request is empty.
//! `{{` is a literal brace. What a placeholder brings that may not stand in a field value, or is not ASCII, is
//! percent-encoded byte by byte, so that no value can end its line.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use crossway_plugin_api::{Ctx, Deps, Fault, InvalidConfig, Needs, Plugin, PluginConfig, config::FieldName};
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

mod changes;
mod value;

use changes::{Program, Side};
pub use value::ValueText;

/// Settings of `headers`; at least one change is needed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Changes to the request, on its way to the upstream. The fields with which the gateway says who is calling
    /// (`X-Consumer-*`, `X-Forwarded-*`, `Forwarded`, `Via`) cannot be changed.
    pub request: Changes,
    /// Changes to the response, on its way to the client.
    pub response: Changes,
}

/// Changes to a header, done in this order: `remove`, `rename`, `set`, `add`. The fields that frame the message or steer
/// the connection (`Host`, `Content-Length`, `Transfer-Encoding`, `Connection`, ...) cannot be changed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Changes {
    /// Fields to give this one value, in place of any that are there. Values may hold placeholders: `{request_id}`,
    /// `{client}`, `{consumer}`, `{route}`, `{path.NAME}`; `{{` is a literal brace.
    pub set: BTreeMap<String, ValueText>,
    /// Fields to add, beside those that are there. Values may hold the same placeholders.
    pub add: BTreeMap<String, ValueText>,
    /// Fields to remove.
    pub remove: Vec<FieldName>,
    /// Fields to rename: old name to new. Where the old field is present, its values replace those of the new one.
    pub rename: BTreeMap<String, FieldName>,
}

impl PluginConfig for Config {
    fn build(self, _deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        let request = Program::compile(self.request, Side::Request)?;
        let response = Program::compile(self.response, Side::Response)?;
        if request.is_empty() && response.is_empty() {
            return Err(InvalidConfig::new("", "changes nothing: give `request`, `response` or both"));
        }
        Ok(Arc::new(Rewriter { request, response }))
    }
}

struct Rewriter {
    request: Program,
    response: Program,
}

#[async_trait]
impl Plugin for Rewriter {
    fn needs(&self) -> Needs {
        Needs { upstream_request: !self.request.is_empty(), response: !self.response.is_empty(), ..Needs::default() }
    }

    fn on_upstream_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        self.request.apply(req, ctx)
    }

    fn on_response(&self, res: &mut ResponseHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        self.response.apply(res, ctx)
    }
}

#[cfg(test)]
mod tests;
