//! What the tests of all plugins share.

use std::sync::Arc;

use async_trait::async_trait;
use crossway_plugin_api::{
    Ctx, Decision, Deps, Fault, InvalidConfig, Needs, Outcome, Plugin, PluginConfig as _, Reply,
};
use parking_lot::Mutex;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::AnyPlugin;

/// Reads one entry of a list of plugins.
pub(crate) fn parse(yaml: &str) -> Result<AnyPlugin, String> {
    let value: serde_json::Value = serde_yaml::from_str(yaml).map_err(|e| e.to_string())?;
    serde_json::from_value(value).map_err(|e| e.to_string())
}

/// Builds one entry without any consumers.
pub(crate) fn build(yaml: &str) -> Result<Arc<dyn Plugin>, InvalidConfig> {
    parse(yaml).unwrap().build(&Deps::default())
}

/// The entry must be refused: where and why.
pub(crate) fn refused(yaml: &str) -> (String, String) {
    match build(yaml) {
        Ok(_) => panic!("accepted: {yaml}"),
        Err(wrong) => (wrong.field, wrong.reason),
    }
}

/// A request for `/items/7` with these fields.
pub(crate) fn request(method: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
    let mut req = RequestHeader::build(method, b"/items/7", None).unwrap();
    for (name, value) in fields {
        req.append_header(*name, *value).unwrap();
    }
    req
}

/// A response with these fields.
pub(crate) fn response(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
    let mut res = ResponseHeader::build(status, None).unwrap();
    for (name, value) in fields {
        res.append_header(*name, *value).unwrap();
    }
    res
}

/// The context of a request from 192.0.2.7.
pub(crate) fn ctx() -> Ctx {
    Ctx::new("192.0.2.7".parse().unwrap(), "api.example.com".into(), "/items/7".into())
}

/// How many bad credentials a test tries: more by hand, with `CROSSWAY_TEST_FLOOD=1000000`.
pub(crate) fn flood() -> usize {
    const FEW: usize = 20_000;
    std::env::var_os("CROSSWAY_TEST_FLOOD").and_then(|n| n.to_str()?.parse().ok()).unwrap_or(FEW)
}

/// Runs the first phase: the reply, if the plugin gave one.
pub(crate) async fn run(plugin: &Arc<dyn Plugin>, req: &mut RequestHeader, ctx: &mut Ctx) -> Option<Reply> {
    match plugin.on_request(req, ctx).await.unwrap() {
        Decision::Continue => None,
        Decision::Respond(reply) | Decision::Absent(reply) => Some(reply),
    }
}

/// All values of a field, joined with ` | `; empty if the field is absent.
pub(crate) fn values(headers: &http::HeaderMap, name: &str) -> String {
    headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>().join(" | ")
}

/// The values of a field of a reply, joined in the same way.
pub(crate) fn reply_values(reply: &Reply, name: &str) -> String {
    let found: Vec<_> = reply.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.to_str().unwrap()).collect();
    found.join(" | ")
}

/// What a probe decides about a request.
pub(crate) type Decide = fn(&mut Ctx) -> Result<Decision, Fault>;

/// A plugin that takes part in all phases without a body, and writes down which of them it saw.
pub(crate) struct Probe {
    pub(crate) name: &'static str,
    pub(crate) decide: Decide,
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

impl Probe {
    fn saw(&self, phase: &str) {
        self.seen.lock().push(format!("{} {phase}", self.name));
    }
}

#[async_trait]
impl Plugin for Probe {
    fn needs(&self) -> Needs {
        Needs {
            request: true,
            upstream_request: true,
            response: true,
            done: true,
            authenticates: true,
            ..Needs::default()
        }
    }

    async fn on_request(&self, _: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        self.saw("request");
        (self.decide)(ctx)
    }

    fn on_upstream_request(&self, _: &mut RequestHeader, _: &mut Ctx) -> Result<(), Fault> {
        self.saw("upstream");
        Ok(())
    }

    fn on_response(&self, _: &mut ResponseHeader, _: &mut Ctx) -> Result<(), Fault> {
        self.saw("response");
        Ok(())
    }

    fn on_done(&self, _: &Outcome, _: &Ctx) {
        self.saw("done");
    }
}

/// Runs a plugin of probes through all phases: what they saw, in order.
pub(crate) async fn phases(plugin: &dyn Plugin, ctx: &mut Ctx, seen: &Mutex<Vec<String>>) -> Vec<String> {
    let mut req = request("GET", &[]);
    let _ = plugin.on_request(&mut req, ctx).await;
    plugin.on_upstream_request(&mut req, ctx).unwrap();
    plugin.on_response(&mut response(200, &[]), ctx).unwrap();
    plugin.on_done(&Outcome::default(), ctx);
    std::mem::take(&mut *seen.lock())
}
