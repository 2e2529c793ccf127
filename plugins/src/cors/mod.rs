//! Lets pages of other origins read answers in a browser (Fetch standard, section 3.3, "CORS protocol").
//!
//! A preflight (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) is answered here and never reaches the
//! upstream: 204 for an origin that is listed, else 403. Every other request goes on; its answer says that the origin
//! may read it only if it is listed. CORS keeps pages from reading, not callers from calling: it is no authentication.
//!
//! `Access-Control-*` fields of the upstream are removed, so that one place decides, and `Vary: Origin` stands on every
//! answer, so that no cache gives one origin the answer to another. Preflights carry no credentials: this plugin must
//! stand before those that ask for one. Where it stands twice on a route, the first decides about origins.

use std::sync::Arc;

use async_trait::async_trait;
use crossway_plugin_api::{
    Ctx, Decision, Deps, Fault, InvalidConfig, Needs, Plugin, PluginConfig, Reply,
    config::{FieldName, Glob, HumanDuration},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        self, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ORIGIN,
        VARY,
    },
};
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

mod origin;
mod preflight;

use origin::Origins;
use preflight::Preflight;

const TRUE: HeaderValue = HeaderValue::from_static("true");
const ANY: HeaderValue = HeaderValue::from_static("*");

/// What an upstream may say about CORS, and here does not.
const DECIDED_HERE: [HeaderName; 7] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    preflight::ALLOW_PRIVATE_NETWORK,
];

/// Settings of `cors`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Origins that may read answers: `scheme://host` or `scheme://host:port`, exactly as browsers send them (RFC 6454,
    /// section 6.2). A star in the host stands for any names before a dot (`https://*.example.com`), a star for the port
    /// for any port, a star alone for every origin. The opaque origin `null` must be listed to be let in.
    #[schemars(length(min = 1))]
    pub origins: Vec<Glob>,
    /// Methods that pages may use. Default `GET HEAD POST PUT PATCH DELETE`.
    #[serde(default = "methods")]
    #[schemars(length(min = 1))]
    pub methods: Vec<String>,
    /// Request fields that pages may set; `*` allows each that a preflight asks for. Default `*`.
    #[serde(default = "any_field")]
    pub headers: Vec<FieldName>,
    /// Response fields that pages may read, beside those that are always readable. Default none.
    #[serde(default)]
    pub expose: Vec<FieldName>,
    /// Let pages send cookies and other credentials, and read the answer. Not with the origins `*` and `null`.
    /// Default false.
    #[serde(default)]
    pub credentials: bool,
    /// How long browsers may keep the answer to a preflight, in whole seconds; `0s` for not at all. Default `10m`.
    #[serde(default = "ten_minutes")]
    pub max_age: HumanDuration,
    /// Let pages of public sites call this API in a private network (Private Network Access). Default false.
    #[serde(default)]
    pub private_network: bool,
}

fn methods() -> Vec<String> {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].map(Into::into).into()
}

fn any_field() -> Vec<FieldName> {
    vec![FieldName(HeaderName::from_static("*"))]
}

fn ten_minutes() -> HumanDuration {
    HumanDuration::from_secs(600)
}

impl PluginConfig for Config {
    fn build(self, _deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        let origins = Origins::compile(&self.origins, self.credentials)?;
        let preflight = Preflight::compile(&self)?;
        if self.credentials
            && let Some(at) = self.expose.iter().position(|name| name.0 == "*")
        {
            let reason =
                "is a star, which browsers do not take for every field where `credentials` is on: list the fields";
            return Err(InvalidConfig::new(format!("expose/{at}"), reason));
        }
        let expose = if self.expose.is_empty() { None } else { Some(list(&self.expose, "expose")?) };
        Ok(Arc::new(Cors { origins, preflight, expose, credentials: self.credentials }))
    }
}

/// Field names as one field value.
fn list(names: &[FieldName], place: &str) -> Result<HeaderValue, InvalidConfig> {
    let text = names.iter().map(|name| name.0.as_str()).collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(text).map_err(|_| InvalidConfig::new(place, "is too long for a header field"))
}

struct Cors {
    origins: Origins,
    preflight: Preflight,
    expose: Option<HeaderValue>,
    credentials: bool,
}

/// What the request phase found out, for the response phase. Requests without `Origin` have none.
#[derive(Clone)]
enum Verdict {
    /// Read by this origin, or by all.
    Allowed(HeaderValue),
    /// Not for this origin.
    Denied,
    /// A preflight: its answer says all there is to say.
    Answered,
}

impl Cors {
    /// What to say in `Access-Control-Allow-Origin`; `None` if the origin is not allowed.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut copies = headers.get_all(ORIGIN).iter();
        let (Some(origin), None) = (copies.next(), copies.next()) else { return None };
        match self.origins.admit(origin.to_str().ok()?) {
            origin::Admitted::ByName => Some(origin.clone()),
            origin::Admitted::WithAll => Some(ANY),
            origin::Admitted::No => None,
        }
    }

    /// The answer to a preflight.
    fn answer(&self, req: &RequestHeader, allowed: Option<HeaderValue>) -> Reply {
        let Some(origin) = allowed else {
            let detail = "Pages of this origin may not call this API.";
            let reply = Reply::problem(StatusCode::FORBIDDEN, "cors_origin_denied", detail);
            return reply.header(VARY, self.preflight.vary());
        };
        let mut reply = Reply::empty(StatusCode::NO_CONTENT).header(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            reply = reply.header(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        self.preflight.complete(&mut reply, req);
        reply
    }
}

#[async_trait]
impl Plugin for Cors {
    fn needs(&self) -> Needs {
        Needs { request: true, response: true, ..Needs::default() }
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        if !req.headers.contains_key(ORIGIN) || ctx.extensions.get::<Verdict>().is_some() {
            return Ok(Decision::Continue);
        }
        let allowed = self.allowed(&req.headers);
        if req.method == Method::OPTIONS && req.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            ctx.extensions.insert(Verdict::Answered);
            return Ok(Decision::Respond(self.answer(req, allowed)));
        }
        ctx.extensions.insert(allowed.map_or(Verdict::Denied, Verdict::Allowed));
        Ok(Decision::Continue)
    }

    fn on_response(&self, res: &mut ResponseHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        let verdict = ctx.extensions.get::<Verdict>();
        if matches!(verdict, Some(Verdict::Answered)) {
            return Ok(());
        }
        for name in &DECIDED_HERE {
            res.remove_header(name);
        }
        if let Some(Verdict::Allowed(origin)) = verdict {
            res.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()).map_err(broken)?;
            if self.credentials {
                res.insert_header(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE).map_err(broken)?;
            }
            if let Some(names) = &self.expose {
                res.insert_header(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone()).map_err(broken)?;
            }
        }
        if !varies_by_origin(&res.headers) {
            res.append_header(VARY, HeaderValue::from_static("Origin")).map_err(broken)?;
        }
        Ok(())
    }
}

/// Whether `Vary` says so already (RFC 9110, section 12.5.5).
fn varies_by_origin(headers: &HeaderMap) -> bool {
    let mut members = headers.get_all(VARY).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    members.any(|member| {
        let member = member.trim_ascii();
        member == b"*" || member.eq_ignore_ascii_case(b"origin")
    })
}

fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::Internal(format!("a CORS field cannot be written: {error}"))
}

#[cfg(test)]
mod tests;
