//! Answers to preflights, put together as far as possible when the configuration is loaded.

use bytes::Bytes;
use crossway_plugin_api::{InvalidConfig, Reply};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, VARY,
    },
};
use pingora_http::RequestHeader;

use super::{Config, TRUE, list};

pub(super) const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");

/// What the answer depends on.
const VARIES: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
const VARIES_BY_NETWORK: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, \
                                 Access-Control-Request-Private-Network";

/// Most bytes and names of `Access-Control-Request-Headers` that are echoed; what is more is not allowed.
const MAX_ECHO: usize = 2048;
const MAX_NAMES: usize = 64;

/// The part of an answer that does not depend on the origin.
pub(super) struct Preflight {
    methods: HeaderValue,
    max_age: HeaderValue,
    headers: AllowHeaders,
    private_network: bool,
}

enum AllowHeaders {
    /// Those that are asked for.
    Any,
    /// These; `None` for not a single one.
    Only(Option<HeaderValue>),
}

impl Preflight {
    /// Checks and compiles the settings that are about preflights.
    pub(super) fn compile(config: &Config) -> Result<Self, InvalidConfig> {
        for (at, name) in config.methods.iter().enumerate() {
            check_method(name).map_err(|reason| InvalidConfig::new(format!("methods/{at}"), reason))?;
        }
        if config.methods.is_empty() {
            return Err(InvalidConfig::new("methods", "names no method"));
        }
        if config.max_age.0.subsec_nanos() != 0 {
            return Err(InvalidConfig::new("max_age", "is not a number of whole seconds"));
        }
        let headers = match config.headers.iter().position(|name| name.0 == "*") {
            Some(_) if config.headers.len() == 1 => AllowHeaders::Any,
            Some(at) => {
                return Err(InvalidConfig::new(format!("headers/{at}"), "is a star, which must stand alone"));
            }
            None if config.headers.is_empty() => AllowHeaders::Only(None),
            None => AllowHeaders::Only(Some(list(&config.headers, "headers")?)),
        };
        let methods = HeaderValue::try_from(config.methods.join(", "))
            .map_err(|_| InvalidConfig::new("methods", "is too long for a header field"))?;
        let max_age = HeaderValue::from(config.max_age.0.as_secs());
        Ok(Self { methods, max_age, headers, private_network: config.private_network })
    }

    /// What the answer to a preflight depends on, a refusal included.
    pub(super) fn vary(&self) -> HeaderValue {
        HeaderValue::from_static(if self.private_network { VARIES_BY_NETWORK } else { VARIES })
    }

    /// Adds what pages of an allowed origin may do.
    pub(super) fn complete(&self, reply: &mut Reply, req: &RequestHeader) {
        let headers = &mut reply.headers;
        headers.push((ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone()));
        let allowed = match &self.headers {
            AllowHeaders::Any => requested(&req.headers),
            AllowHeaders::Only(names) => names.clone(),
        };
        headers.extend(allowed.map(|names| (ACCESS_CONTROL_ALLOW_HEADERS, names)));
        headers.push((ACCESS_CONTROL_MAX_AGE, self.max_age.clone()));
        if self.private_network && req.headers.get(REQUEST_PRIVATE_NETWORK).is_some_and(|v| v == "true") {
            headers.push((ALLOW_PRIVATE_NETWORK, TRUE));
        }
        headers.push((VARY, self.vary()));
    }
}

/// Methods are case-sensitive, and some no page may use (Fetch standard, "forbidden method").
fn check_method(name: &str) -> Result<(), &'static str> {
    let token = Method::from_bytes(name.as_bytes()).is_ok();
    if !token || !name.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return Err("is not a method: a method is one word in capitals, such as GET");
    }
    if matches!(name, "CONNECT" | "TRACE" | "TRACK") {
        return Err("is a method that browsers keep pages from using");
    }
    Ok(())
}

/// The valid names among those that the preflight asks for.
fn requested(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut echo: Vec<u8> = Vec::new();
    let fields = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let names = fields.flat_map(|field| field.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii);
    for name in names.filter(|name| is_token(name)).take(MAX_NAMES) {
        if echo.len() + name.len() + 2 > MAX_ECHO {
            break;
        }
        if !echo.is_empty() {
            echo.extend_from_slice(b", ");
        }
        echo.extend_from_slice(name);
    }
    if echo.is_empty() { None } else { HeaderValue::from_maybe_shared(Bytes::from(echo)).ok() }
}

/// Whether this is the name of a field (RFC 9110, section 5.6.2). The star is one too, but here it would mean every name.
fn is_token(name: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !name.is_empty() && name != b"*" && name.iter().all(allowed)
}
