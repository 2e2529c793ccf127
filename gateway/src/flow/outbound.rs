//! The request as it goes to an endpoint: the same on both ways.

use std::{borrow::Cow, sync::Arc};

use crossway_plugin_api::Fault;
use http::{HeaderValue, Version, header};
use pingora_http::RequestHeader;

use super::Admitted;
use crate::{
    request::{self, BodyFraming, Hop, Host},
    snapshot::{HostRewrite, Target},
};

/// Makes `req`, a copy of the client's header, what the endpoint of this name gets.
pub(super) fn prepare(
    admitted: &mut Admitted,
    req: &mut RequestHeader,
    endpoint_name: &HeaderValue,
) -> Result<(), Fault> {
    let route = admitted.route.clone().ok_or_else(|| Fault::Internal("an upstream without a route".into()))?;
    let Target::Upstream { upstream, path, host } = &route.target else {
        return Err(Fault::Internal("an upstream that the route does not have".into()));
    };
    if let Some(template) = path {
        rewrite_path(req, &template.render(&admitted.ctx))?;
    }
    let broken = |_| Fault::Internal("a header that cannot be written".into());
    request::strip_client_claims(req);
    let asked = Host { name: Cow::Borrowed(&admitted.ctx.host), port: admitted.port };
    let hop = Hop {
        client: admitted.ctx.client,
        peer: admitted.peer(),
        scheme: "http",
        host: &asked,
        version: admitted.version,
    };
    request::say_forwarded(req, &hop, &admitted.conn.told(&hop)).map_err(|_| Fault::Loop)?;
    if req.version != Version::HTTP_2 {
        req.set_version(Version::HTTP_11);
    }
    let host: Cow<'_, HeaderValue> = match host {
        HostRewrite::Fixed(value) => Cow::Borrowed(value),
        HostRewrite::Preserve if !asked.name.is_empty() => Cow::Owned(value(&authority(&asked))?),
        HostRewrite::Preserve | HostRewrite::Endpoint => Cow::Borrowed(endpoint_name),
    };
    req.insert_header(header::HOST, host.into_owned()).map_err(broken)?;
    // The gateway asks for the body itself; an upstream's opinion on it comes with its answer.
    req.remove_header(&header::EXPECT);
    if admitted.chain.response_body.is_some() {
        req.insert_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")).map_err(broken)?;
    }
    frame(admitted, req).map_err(broken)?;
    if let Some(call) = &admitted.grpc
        && upstream.http2
    {
        call.outbound(req)?;
    }
    let chain = Arc::clone(&admitted.chain);
    chain.on_upstream_request(req, &mut admitted.ctx, &mut admitted.entered)
}

/// The framing of the body: as it came, or as the plugins left it.
fn frame(admitted: &Admitted, req: &mut RequestHeader) -> pingora_core::Result<()> {
    let Some(body) = &admitted.body else { return Ok(()) };
    req.remove_header(&header::TRANSFER_ENCODING);
    req.remove_header(&header::CONTENT_LENGTH);
    if !body.is_empty() || admitted.framing.body != BodyFraming::None {
        req.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    Ok(())
}

fn authority(host: &Host<'_>) -> String {
    match host.port {
        Some(port) => format!("{}:{port}", host.name),
        None => host.name.to_string(),
    }
}

fn value(text: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(text).map_err(|_| Fault::Internal("a host that is no header value".into()))
}

/// A rewritten path is checked again: parameters may have brought dot segments together.
fn rewrite_path(req: &mut RequestHeader, path: &str) -> Result<(), Fault> {
    let path = match request::canonical_target(path) {
        Ok(target) if target.query.is_none() => target.path.into_owned(),
        _ => return Err(Fault::Internal("a rewritten path that is not canonical".into())),
    };
    let target = match req.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let uri = target.parse().map_err(|_| Fault::Internal("a rewritten path that is no URI".into()))?;
    req.set_uri(uri);
    Ok(())
}
