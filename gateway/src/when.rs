//! Conditions on plugin entries and on targets of a split.

use crossway_plugin_api::{
    Ctx,
    config::{Glob, Network},
};
use http::{HeaderName, Method};
use pingora_http::RequestHeader;
use serde_json::Value;

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
    /// Groups of the consumer; empty for any, and for none.
    pub groups: Vec<String>,
    /// Claims of the caller's token.
    pub claims: Vec<(String, Glob)>,
}

impl Condition {
    /// GET stands for HEAD too, as in routes: what protects the one must not miss the other.
    fn method_holds(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (*method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    /// Whether it looks at what is known of the caller only behind a plugin that authenticates.
    pub fn needs_caller(&self) -> bool {
        !self.groups.is_empty() || !self.claims.is_empty()
    }

    fn caller_holds(&self, ctx: &Ctx) -> bool {
        let groups = ctx.consumer.as_ref().map_or(&[][..], |consumer| consumer.groups());
        let claim = |(name, glob): &(String, Glob)| {
            ctx.claims.as_ref().and_then(|claims| claims.get(name)).is_some_and(|claim| claim_holds(claim, glob))
        };
        (self.groups.is_empty() || self.groups.iter().any(|group| groups.contains(group)))
            && self.claims.iter().all(claim)
    }

    /// Whether the condition holds for this request.
    pub fn holds(&self, req: &RequestHeader, ctx: &Ctx) -> bool {
        self.method_holds(&req.method)
            && (self.paths.is_empty() || self.paths.iter().any(|glob| glob.matches(&ctx.path)))
            && (self.client.is_empty() || self.client.iter().any(|net| net.contains(ctx.client)))
            && router::headers_hold(&self.headers, &req.headers)
            && router::some_query_holds(&self.query, req.uri.query())
            && self.caller_holds(ctx)
    }
}

fn claim_holds(claim: &Value, glob: &Glob) -> bool {
    match claim {
        Value::String(text) => glob.matches(text),
        Value::Bool(_) | Value::Number(_) => glob.matches(&claim.to_string()),
        Value::Array(items) => items.iter().any(|item| !item.is_array() && claim_holds(item, glob)),
        Value::Null | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossway_plugin_api::{Claims, Consumer};
    use serde_json::json;

    use super::*;

    #[test]
    fn callers_are_known_by_groups_and_claims() {
        let req = RequestHeader::build("GET", b"/", None).unwrap();
        let mut ctx = Ctx::new("127.0.0.1".parse().unwrap(), String::new(), Arc::from("/"));
        let groups = Condition { groups: vec!["beta".into(), "gold".into()], ..Condition::default() };
        let claim = |name: &str, glob: &str| {
            let claims = vec![(name.to_owned(), Glob::parse(glob).unwrap())];
            Condition { claims, ..Condition::default() }
        };
        let tenant = claim("tenant", "acme*");
        assert!(
            !groups.holds(&req, &ctx) && !tenant.holds(&req, &ctx) && groups.needs_caller() && tenant.needs_caller()
        );
        ctx.consumer = Some(Arc::new(Consumer::new("a", &["gold".to_owned()], [].into()).unwrap()));
        let claims = json!({"tenant": "acme-1", "roles": ["a", "tester"], "n": 7, "deep": {"x": true}});
        ctx.claims = Some(Arc::new(Claims::new(claims.as_object().unwrap().clone())));
        for (condition, holds) in [
            (groups, true),
            (tenant, true),
            (claim("roles", "tester"), true),
            (claim("roles", "test"), false),
            (claim("n", "7"), true),
            (claim("deep.x", "true"), true),
            (claim("deep", "*"), false),
            (claim("none", "*"), false),
        ] {
            assert_eq!(condition.holds(&req, &ctx), holds, "{condition:?}");
        }
        assert!(!Condition::default().needs_caller() && Condition::default().holds(&req, &ctx));
    }
}
