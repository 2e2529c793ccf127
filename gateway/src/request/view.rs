//! The canonical view of a request: what routes, limits, logs and upstreams are shown.

use std::sync::Arc;

use http::Method;

use super::{BAD_METHOD, Head, Refusal, split_target};

/// One host, one path: the form that everybody after the front sees.
#[derive(Debug, Clone)]
pub struct View {
    /// Lower case, without port; empty if the client named none (HTTP/1.0).
    pub host: String,
    /// The port that the client named beside the host.
    pub port: Option<u16>,
    /// Canonical path.
    pub path: Arc<str>,
    /// The path holds an encoded slash.
    pub encoded_slash: bool,
    /// The whole target in canonical form, if the client wrote another.
    pub rewritten: Option<String>,
}

impl View {
    /// Makes the view of a request that came with this scheme.
    pub fn of(head: &Head<'_>, scheme: &str) -> Result<Self, Refusal> {
        let method = Method::from_bytes(head.method).map_err(|_| BAD_METHOD)?;
        Self::make(&method, head.target, head.host, scheme)
    }

    /// Makes the view of a request from its parts.
    pub fn make(method: &Method, raw_target: &str, host_field: Option<&str>, scheme: &str) -> Result<Self, Refusal> {
        let (host, target) = split_target(method, raw_target, host_field, scheme)?;
        let length = target.path.len() + target.query.map_or(0, |query| query.len() + 1);
        let is_canonical = length == raw_target.len() && raw_target.starts_with(target.path.as_ref());
        let rewritten = (!is_canonical).then(|| match target.query {
            Some(query) => format!("{}?{query}", target.path),
            None => target.path.to_string(),
        });
        Ok(Self {
            port: host.port,
            host: host.name.into_owned(),
            encoded_slash: target.encoded_slash,
            path: target.path.into(),
            rewritten,
        })
    }
}
