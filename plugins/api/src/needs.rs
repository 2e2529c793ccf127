//! What a plugin asks of the core.

use http::{HeaderMap, HeaderName, StatusCode, header::CONTENT_TYPE};

use crate::config::StatusSet;

/// Phases and bodies a plugin takes part in. The default takes part in nothing.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// `on_request`.
    pub request: bool,
    /// `on_request_body`, and for which bodies.
    pub request_body: Option<BodyNeed>,
    /// `on_upstream_request`.
    pub upstream_request: bool,
    /// `on_response`.
    pub response: bool,
    /// `on_response_body`, and for which bodies.
    pub response_body: Option<BodyNeed>,
    /// `on_done`.
    pub done: bool,
    /// This plugin establishes who is calling: with one of these a route needs no `auth: none`.
    pub authenticates: bool,
    /// It does so when the body is there: in the request phase nobody knows yet.
    pub authenticates_late: bool,
    /// This plugin judges a caller: one that authenticates must stand before it.
    pub caller: bool,
    /// Path parameters it reads: every route it stands on must have them.
    pub params: Vec<NeededParam>,
    /// This plugin looks at the client's certificate: where no listener asks for one, nobody can have one.
    pub client_certificate: bool,
    /// This plugin answers every request it sees: a route with one of these needs no upstream.
    pub answers: bool,
    /// Query parameters that carry secrets: their values are never logged.
    pub secret_query: Vec<String>,
    /// Request header fields that carry secrets: their values are never logged.
    pub secret_headers: Vec<HeaderName>,
}

/// A path parameter that a plugin reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededParam {
    /// Its name in the route's path.
    pub name: String,
    /// The setting that names it, as a path below the plugin's own settings.
    pub field: String,
}

/// Which bodies a plugin wants whole.
#[derive(Debug, Clone)]
pub struct BodyNeed {
    /// Content types to buffer; every other body streams past this plugin.
    pub types: MediaTypes,
    /// Largest body to buffer, in bytes.
    pub max: u64,
    /// What happens to a body of a wanted type that is larger.
    pub overflow: Overflow,
    /// For responses: only with one of these statuses; empty for every status.
    pub statuses: Vec<StatusSet>,
}

impl BodyNeed {
    /// Every body up to `max` bytes; a larger one is refused.
    pub fn any(max: u64) -> Self {
        Self { types: MediaTypes::Any, max, overflow: Overflow::Refuse, statuses: Vec::new() }
    }

    /// Whether this wants the body of a response with this status.
    pub fn wants_status(&self, status: StatusCode) -> bool {
        self.statuses.is_empty() || self.statuses.iter().any(|set| set.contains(status))
    }
}

/// What happens to a body that is too large to buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Refuse: 413 for a request, 502 for a response. For plugins that protect.
    Refuse,
    /// Let it stream past the plugin. For plugins that only improve. A body that does not say its length streams too.
    Stream,
}

/// A set of media types.
#[derive(Debug, Clone)]
pub enum MediaTypes {
    /// Every body, typed or not.
    Any,
    /// These `type/subtype` pairs, in lower case, and any structured suffix given as `+suffix`.
    Only(Vec<String>),
}

impl MediaTypes {
    /// JSON and its structured suffix (RFC 8259, RFC 6839).
    pub fn json() -> Self {
        Self::Only(vec!["application/json".into(), "+json".into()])
    }

    /// Whether a message with these headers carries such a body. Parameters are ignored, case too; two
    /// `Content-Type` fields match nothing.
    pub fn accept(&self, headers: &HeaderMap) -> bool {
        let Self::Only(wanted) = self else { return true };
        let mut fields = headers.get_all(CONTENT_TYPE).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return false };
        let Ok(text) = field.to_str() else { return false };
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        wanted.iter().any(|w| if w.starts_with('+') { essence.ends_with(w.as_str()) } else { *w == essence })
    }
}
