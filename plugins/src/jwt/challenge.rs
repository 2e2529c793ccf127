//! Refusals, with the challenges that RFC 6750, section 3, demands.

use crossway_plugin_api::Reply;
use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};

use super::policy::Lacking;

/// The challenges of one plugin.
#[derive(Debug)]
pub(super) struct Challenges {
    missing: HeaderValue,
    several: HeaderValue,
    invalid: HeaderValue,
    insufficient: HeaderValue,
    insufficient_scope: HeaderValue,
}

impl Challenges {
    /// With this realm and these scopes; `None` where the realm cannot stand between quotes.
    pub(super) fn new(realm: &str, scopes: &[&str]) -> Option<Self> {
        if realm.contains(['"', '\\']) {
            return None;
        }
        let made = |rest: &str| HeaderValue::from_str(&format!("Bearer realm=\"{realm}\"{rest}")).ok();
        let scope = if scopes.is_empty() { String::new() } else { format!(", scope=\"{}\"", scopes.join(" ")) };
        Some(Self {
            missing: made("")?,
            several: made(", error=\"invalid_request\"")?,
            invalid: made(", error=\"invalid_token\"")?,
            insufficient: made(", error=\"insufficient_scope\"")?,
            insufficient_scope: made(&format!(", error=\"insufficient_scope\"{scope}"))?,
        })
    }

    /// No token: no error code either (RFC 6750, section 3.1).
    pub(super) fn missing(&self) -> Reply {
        Reply::problem(StatusCode::UNAUTHORIZED, "jwt_missing", "This request needs a bearer token.")
            .header(WWW_AUTHENTICATE, self.missing.clone())
    }

    /// More than one token.
    pub(super) fn several(&self) -> Reply {
        Reply::problem(StatusCode::BAD_REQUEST, "jwt_several", "This request carries more than one token.")
            .header(WWW_AUTHENTICATE, self.several.clone())
    }

    /// A token with any defect: which one is not said.
    pub(super) fn invalid(&self) -> Reply {
        Reply::problem(StatusCode::UNAUTHORIZED, "jwt_invalid", "This token is not valid.")
            .header(WWW_AUTHENTICATE, self.invalid.clone())
    }

    /// A good token that is not enough.
    pub(super) fn insufficient(&self, lacking: Lacking) -> Reply {
        let challenge = match lacking {
            Lacking::Scope => &self.insufficient_scope,
            Lacking::Claim | Lacking::Consumer => &self.insufficient,
        };
        Reply::problem(StatusCode::FORBIDDEN, "jwt_insufficient", "This token does not permit this request.")
            .header(WWW_AUTHENTICATE, challenge.clone())
    }
}
