//! Bounds the size of request bodies.
//!
//! The bound stands in place of the listener's and the route's, wider or narrower, so that the last `body_limit` of a
//! chain decides. The gateway enforces it by `Content-Length` before anything is read, and while a body streams; the
//! answer is 413 with the code `body_too_large`.

use std::sync::Arc;

use async_trait::async_trait;
use crossway_plugin_api::{
    BodyNeed, Ctx, Decision, Deps, Fault, InvalidConfig, Needs, Plugin, PluginConfig, config::ByteSize,
};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of `body_limit`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Largest request body; `0B` allows none. A larger one is answered 413 (RFC 9110, section 15.5.14).
    pub max: ByteSize,
    /// Read the whole body before an upstream is chosen, so that a slow client holds no connection to one. Costs up to
    /// `max` of memory a request. Default false.
    #[serde(default)]
    pub buffer: bool,
}

impl PluginConfig for Config {
    fn build(self, _deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        Ok(Arc::new(Limit { max: self.max.0, buffer: self.buffer }))
    }
}

struct Limit {
    max: u64,
    buffer: bool,
}

#[async_trait]
impl Plugin for Limit {
    fn needs(&self) -> Needs {
        let whole = BodyNeed::any(self.max);
        Needs { request: true, request_body: self.buffer.then_some(whole), ..Needs::default() }
    }

    async fn on_request(&self, _req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        ctx.max_request_body = self.max;
        Ok(Decision::Continue)
    }
}

#[cfg(test)]
mod tests {
    use crossway_plugin_api::Overflow;

    use crate::testing::{build, ctx, parse, request, run};

    #[tokio::test]
    async fn the_bound_is_set_in_place_of_any_other() {
        for (yaml, max) in [("body_limit: { max: 64KiB }", 65_536), ("body_limit: { max: 0B }", 0)] {
            let plugin = build(yaml).unwrap();
            for before in [10, u64::MAX] {
                let mut ctx = ctx();
                ctx.max_request_body = before;
                assert!(run(&plugin, &mut request("POST", &[]), &mut ctx).await.is_none());
                assert_eq!(ctx.max_request_body, max);
            }
            assert!(plugin.needs().request_body.is_none());
        }
    }

    #[test]
    fn a_buffered_body_is_wanted_whole_whatever_its_type() {
        let need = build("body_limit: { max: 1KiB, buffer: true }").unwrap().needs().request_body.unwrap();
        assert_eq!((need.max, need.overflow), (1024, Overflow::Refuse));
        assert!(need.types.accept(&http::HeaderMap::new()));
    }

    #[test]
    fn a_bound_is_required() {
        assert!(parse("body_limit: {}").unwrap_err().contains("max"));
    }
}
