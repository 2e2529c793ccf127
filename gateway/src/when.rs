//! Conditions on plugin entries.

use crossway_plugin_api::{
    Ctx,
    config::{Glob, Network},
};
use http::{HeaderName, Method};
use pingora_http::RequestHeader;

use crate::router;

/// A condition, compiled: all that is given must hold; a list holds when one of its items does.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// Methods; empty for any.
    pub methods: Vec<Method>,
    /// Canonical paths; empty for any.
    pub paths: Vec<Glob>,
    /// Header fields: one of the values must fit.
    pub headers: Vec<(HeaderName, Glob)>,
    /// Query parameters: one of the values must fit, so that repeating a parameter hides nothing.
    pub query: Vec<(String, Glob)>,
    /// Networks of the client's address; empty for any.
    pub client: Vec<Network>,
}

impl Condition {
    /// GET stands for HEAD too, as in routes: what protects the one must not miss the other.
    fn method_holds(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (*method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    /// Whether the condition holds for this request.
    pub fn holds(&self, req: &RequestHeader, ctx: &Ctx) -> bool {
        self.method_holds(&req.method)
            && (self.paths.is_empty() || self.paths.iter().any(|glob| glob.matches(&ctx.path)))
            && (self.client.is_empty() || self.client.iter().any(|net| net.contains(ctx.client)))
            && router::headers_hold(&self.headers, &req.headers)
            && router::some_query_holds(&self.query, req.uri.query())
    }
}
