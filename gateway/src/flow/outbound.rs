//! The request as it goes to an endpoint: the same on both ways.

use std::{borrow::Cow, sync::Arc};

use crossway_plugin_api::Fault;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request::Parts};
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
    let (Target::Upstream { path, host, .. }, Some(upstream)) = (&route.target, admitted.upstream.clone()) else {
        return Err(Fault::Internal("an upstream that the route does not have".into()));
    };
    let mut parts = plain(req);
    if let Some(template) = path {
        rewrite_path(&mut parts, &template.render(&admitted.ctx))?;
    }
    let fields = &mut parts.headers;
    request::strip_client_claims(fields);
    let asked = Host { name: Cow::Borrowed(&admitted.ctx.host), port: admitted.port };
    let hop = Hop {
        client: admitted.ctx.client,
        peer: admitted.peer(),
        scheme: admitted.conn.link.scheme(),
        host: &asked,
        version: admitted.version,
    };
    request::say_forwarded(fields, &hop, &admitted.conn.link.told(&hop)).map_err(|_| Fault::Loop)?;
    say_consumer(admitted, fields);
    parts.version = if upstream.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let host: Cow<'_, HeaderValue> = match host {
        HostRewrite::Fixed(value) => Cow::Borrowed(value),
        HostRewrite::Preserve if !asked.name.is_empty() => Cow::Owned(value(&authority(&asked))?),
        HostRewrite::Preserve | HostRewrite::Endpoint => Cow::Borrowed(endpoint_name),
    };
    fields.insert(header::HOST, host.into_owned());
    // The gateway asks for the body itself; an upstream's opinion on it comes with its answer.
    fields.remove(header::EXPECT);
    if admitted.chain.response_body.is_some() {
        fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    frame(admitted, fields);
    *req = RequestHeader::from(parts);
    if let Some(call) = &admitted.grpc
        && upstream.http2
    {
        call.outbound(req)?;
    }
    let chain = Arc::clone(&admitted.chain);
    chain.on_upstream_request(req, &mut admitted.ctx, &mut admitted.entered)
}

/// Who is calling, as the chain has established it; what the client said of it is gone.
fn say_consumer(admitted: &Admitted, fields: &mut HeaderMap) {
    const NAME: HeaderName = HeaderName::from_static("x-consumer-name");
    const GROUPS: HeaderName = HeaderName::from_static("x-consumer-groups");
    let Some(consumer) = &admitted.ctx.consumer else { return };
    fields.insert(NAME, consumer.name_value().clone());
    if let Some(groups) = consumer.groups_value() {
        fields.insert(GROUPS, groups.clone());
    }
}

/// The framing of the body: as it came, or as the plugins left it.
fn frame(admitted: &Admitted, fields: &mut HeaderMap) {
    let Some(body) = &admitted.body else { return };
    fields.remove(header::TRANSFER_ENCODING);
    fields.remove(header::CONTENT_LENGTH);
    if !body.is_empty() || admitted.framing.body != BodyFraming::None {
        fields.insert(header::CONTENT_LENGTH, body.len().into());
    }
}

/// The header as plain parts, with room for what is added here. Pingora keeps a second map with the case of the names,
/// which costs more than all else that is done to a request; it is left out (RFC 9110, section 5.1:
/// their case means nothing).
fn plain(req: &mut RequestHeader) -> Parts {
    const ADDED: usize = 12;
    let empty = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts: Parts = std::mem::replace(req, empty).into();
    parts.headers.reserve(ADDED);
    parts
}

/// The client's header, for one attempt after the other.
pub(super) fn copy(req: &RequestHeader) -> Parts {
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method.clone_from(&req.method);
    parts.uri.clone_from(&req.uri);
    parts.version = req.version;
    parts.headers.clone_from(&req.headers);
    parts
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
fn rewrite_path(parts: &mut Parts, path: &str) -> Result<(), Fault> {
    let path = match request::canonical_target(path) {
        Ok(target) if target.query.is_none() => target.path.into_owned(),
        _ => return Err(Fault::Internal("a rewritten path that is not canonical".into())),
    };
    let target = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    parts.uri = target.parse().map_err(|_| Fault::Internal("a rewritten path that is no URI".into()))?;
    Ok(())
}
