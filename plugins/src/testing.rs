//! What the tests of all plugins share.

use std::sync::Arc;

use crossway_plugin_api::{Ctx, Decision, Deps, InvalidConfig, Plugin, PluginConfig as _, Reply};
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
