//! Lets a request in by the certificate that its client has shown in the TLS handshake.
//!
//! The listener has verified it: chain, validity, purpose. This plugin says whose it is, by the names that consumers are
//! known by: the digest, then alternative names (URI, DNS, mail), then the subject. No header field of a request can stand
//! for a certificate.

use std::sync::Arc;

use async_trait::async_trait;
use crossway_plugin_api::{
    ClientCertificate, ConsumerDirectory, Credential, Ctx, Decision, Deps, Fault, InvalidConfig, Needs, Plugin,
    PluginConfig, Reply,
    config::{FieldName, Glob},
};
use http::{HeaderName, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fields;

/// A 401 must have a challenge (RFC 9110, section 15.5.2), and none is registered for certificates of TLS.
const CHALLENGE: HeaderValue = HeaderValue::from_static("ClientCertificate realm=\"crossway\"");

/// Settings of `client_certificate`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Refuse a certificate that belongs to no consumer. Default true; with `false` every certificate that the listener
    /// accepts will do.
    pub require_consumer: bool,
    /// Subjects (RFC 4514) of certificates that are let in. With any of `subjects`, `dns` and `uris` one name of the
    /// certificate must fit one pattern of them.
    pub subjects: Vec<Glob>,
    /// DNS names, in lower case, of certificates that are let in.
    pub dns: Vec<Glob>,
    /// URIs, such as SPIFFE ids, of certificates that are let in.
    pub uris: Vec<Glob>,
    /// What the upstream is told of the certificate. Default: nothing.
    pub forward: Forward,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            require_consumer: true,
            subjects: Vec::new(),
            dns: Vec::new(),
            uris: Vec::new(),
            forward: Forward::default(),
        }
    }
}

/// The fields in which the upstream reads of the certificate; the client's own copies of them are removed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Forward {
    /// Field for the subject (RFC 4514).
    pub subject: Option<FieldName>,
    /// Field for the first DNS name.
    pub dns: Option<FieldName>,
    /// Field for the first URI.
    pub uri: Option<FieldName>,
    /// Field for the SHA-256 of the certificate, as 64 hexadecimal digits in lower case.
    pub sha256: Option<FieldName>,
}

impl PluginConfig for Config {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        let Self { require_consumer, subjects, dns, uris, forward } = self;
        let Forward { subject: subject_field, dns: dns_field, uri: uri_field, sha256: sha256_field } = forward;
        let told = [
            ("forward/subject", Part::Subject, subject_field),
            ("forward/dns", Part::Dns, dns_field),
            ("forward/uri", Part::Uri, uri_field),
            ("forward/sha256", Part::Sha256, sha256_field),
        ];
        let mut forward: Vec<(HeaderName, Part)> = Vec::new();
        for (place, part, FieldName(field)) in told.into_iter().filter_map(|(p, part, f)| Some((p, part, f?))) {
            fields::check_framing(&field, place)?;
            if fields::is_identity(&field) {
                return Err(fields::reserved(&field, place, "that only the gateway writes"));
            }
            if forward.iter().any(|(known, _)| *known == field) {
                return Err(InvalidConfig::new(place, format!("names `{field}`, which is used for something else")));
            }
            forward.push((field, part));
        }
        let consumers = Arc::clone(&deps.consumers);
        Ok(Arc::new(Inspector { require_consumer, subjects, dns, uris, forward: forward.into(), consumers }))
    }
}

struct Inspector {
    require_consumer: bool,
    subjects: Vec<Glob>,
    dns: Vec<Glob>,
    uris: Vec<Glob>,
    forward: Box<[(HeaderName, Part)]>,
    consumers: Arc<ConsumerDirectory>,
}

/// A part of a certificate that the upstream can be told.
#[derive(Clone, Copy)]
enum Part {
    Subject,
    Dns,
    Uri,
    Sha256,
}

impl Inspector {
    fn allows(&self, certificate: &ClientCertificate) -> bool {
        let fits = |patterns: &[Glob], name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        let all = self.subjects.is_empty() && self.dns.is_empty() && self.uris.is_empty();
        all || fits(&self.subjects, &certificate.subject)
            || certificate.dns.iter().any(|name| fits(&self.dns, name))
            || certificate.uris.iter().any(|name| fits(&self.uris, name))
    }
}

impl Part {
    /// What the upstream is told; `None` where the certificate has no such part.
    fn of(self, certificate: &ClientCertificate) -> Option<HeaderValue> {
        match self {
            Self::Subject => HeaderValue::from_bytes(certificate.subject.as_bytes()).ok().filter(|v| !v.is_empty()),
            Self::Dns => HeaderValue::from_str(certificate.dns.first()?).ok(),
            Self::Uri => HeaderValue::from_str(certificate.uris.first()?).ok(),
            Self::Sha256 => HeaderValue::from_str(&crate::hex::lower(&certificate.sha256.0)).ok(),
        }
    }
}

#[async_trait]
impl Plugin for Inspector {
    fn needs(&self) -> Needs {
        let upstream_request = !self.forward.is_empty();
        Needs { request: true, upstream_request, authenticates: true, client_certificate: true, ..Needs::default() }
    }

    async fn on_request(&self, _req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let Some(certificate) = &ctx.client_certificate else {
            ctx.refusal = Some("the client has shown no certificate".into());
            let detail = "This request needs a connection with a client certificate.";
            return Ok(Decision::Absent(unauthorized("client_certificate_missing", detail)));
        };
        let consumer = certificate.names().find_map(|name| self.consumers.holder(&Credential::Certificate(name)));
        let why = if !self.allows(certificate) {
            "no name of the certificate is allowed"
        } else if consumer.is_none() && self.require_consumer {
            "the certificate belongs to no consumer"
        } else {
            if let Some(consumer) = consumer {
                ctx.consumer = Some(Arc::clone(consumer));
            }
            return Ok(Decision::Continue);
        };
        ctx.refusal = Some(why.into());
        let detail = "This client certificate is not valid here.";
        Ok(Decision::Respond(unauthorized("client_certificate_invalid", detail)))
    }

    fn on_upstream_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        for (field, part) in &self.forward {
            req.remove_header(field);
            if let Some(value) = ctx.client_certificate.as_ref().and_then(|certificate| part.of(certificate)) {
                req.insert_header(field.clone(), value).map_err(|error| Fault::Internal(error.to_string()))?;
            }
        }
        Ok(())
    }
}

fn unauthorized(code: &'static str, detail: &str) -> Reply {
    Reply::problem(StatusCode::UNAUTHORIZED, code, detail).header(WWW_AUTHENTICATE, CHALLENGE)
}

#[cfg(test)]
mod tests;
