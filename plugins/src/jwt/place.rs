//! Where a token stands in a request, and taking it out.

use std::borrow::Cow;

use crossway_plugin_api::cookies;
use http::{HeaderName, HeaderValue, Uri, header};
use percent_encoding::percent_decode_str;
use pingora_http::RequestHeader;

use crate::bearer;
use crate::credentials::Presented;

/// One place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The whole value of a field, or what follows the scheme in it.
    Header(HeaderName, Option<String>),
    /// A cookie (RFC 6265).
    Cookie(String),
    /// A parameter of the query.
    Query(String),
}

impl Place {
    /// The parameter of the query that it is, if it is one.
    pub(super) fn parameter(&self) -> Option<String> {
        if let Self::Query(name) = self { Some(name.clone()) } else { None }
    }

    /// The header field that it is, if it is one.
    pub(super) fn field(&self) -> Option<HeaderName> {
        if let Self::Header(name, _) = self { Some(name.clone()) } else { None }
    }
}

/// What a request has in all places together.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'r> {
    /// No token.
    Nothing,
    /// One, and the number of its place. It may be any text.
    One(usize, &'r str),
    /// Something that cannot be a token.
    Garbage,
    /// More than one (RFC 6750, section 2).
    Several,
}

/// Looks at every place, so that a second token does not go unseen.
pub(super) fn find<'r>(places: &[Place], req: &'r RequestHeader) -> Found<'r> {
    let mut found = Found::Nothing;
    for (at, place) in places.iter().enumerate() {
        match (&found, place.find(at, req)) {
            (_, Found::Nothing) => {}
            (Found::Nothing, here) => found = here,
            _ => return Found::Several,
        }
    }
    found
}

impl Place {
    fn find<'r>(&self, at: usize, req: &'r RequestHeader) -> Found<'r> {
        match self {
            Self::Header(name, Some(scheme)) => match bearer::in_field(req, name, scheme) {
                Presented::Nothing => Found::Nothing,
                Presented::Text(token) => Found::One(at, token),
                Presented::Garbage => Found::Garbage,
                Presented::Several => Found::Several,
            },
            Self::Header(name, None) => whole(at, req, name),
            Self::Cookie(name) => {
                only(at, cookies(&req.headers).filter(|(other, _)| other == name).map(|(_, value)| value))
            }
            Self::Query(name) => {
                only(at, parameters(req.uri.query()).filter(|(other, _)| other == name).map(|(_, value)| value))
            }
        }
    }

    /// Takes the token out of the request, with what carried it.
    pub(super) fn strip(&self, req: &mut RequestHeader) {
        match self {
            Self::Header(name, _) => drop(req.remove_header(name)),
            Self::Cookie(name) => strip_cookie(name, req),
            Self::Query(name) => strip_parameter(name, req),
        }
    }
}

fn only<'r>(at: usize, mut values: impl Iterator<Item = &'r str>) -> Found<'r> {
    match (values.next(), values.next()) {
        (None, _) => Found::Nothing,
        (Some(value), None) => Found::One(at, value),
        _ => Found::Several,
    }
}

/// The whole value of a field.
fn whole<'r>(at: usize, req: &'r RequestHeader, name: &HeaderName) -> Found<'r> {
    let mut fields = req.headers.get_all(name).iter();
    match (fields.next().map(HeaderValue::to_str), fields.next()) {
        (None, _) => Found::Nothing,
        (Some(Ok(text)), None) => Found::One(at, text),
        (Some(Err(_)), None) => Found::Garbage,
        (Some(_), Some(_)) => Found::Several,
    }
}

/// Decoded names and plain values of the query's parameters: nothing in a token needs an escape.
fn parameters(query: Option<&str>) -> impl Iterator<Item = (Cow<'_, str>, &str)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), value)
    })
}

fn decoded(name: &str) -> Cow<'_, str> {
    percent_decode_str(name).decode_utf8_lossy()
}

fn strip_cookie(name: &str, req: &mut RequestHeader) {
    let is_it = |pair: &str| pair.trim_matches([' ', '\t']).split_once('=').is_some_and(|(other, _)| other == name);
    let kept: Vec<HeaderValue> = req
        .headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| {
            let Ok(text) = value.to_str() else { return Some(value.clone()) };
            if !text.split(';').any(is_it) {
                return Some(value.clone());
            }
            let rest: Vec<&str> = text.split(';').filter(|pair| !is_it(pair)).map(str::trim).collect();
            HeaderValue::from_str(&rest.join("; ")).ok().filter(|rest| !rest.is_empty())
        })
        .collect();
    req.remove_header(&header::COOKIE);
    for value in kept {
        // It was a field of this request, so that there is room for it.
        let _ = req.append_header(header::COOKIE, value);
    }
}

fn strip_parameter(name: &str, req: &mut RequestHeader) {
    let Some(query) = req.uri.query() else { return };
    let is_it = |pair: &&str| decoded(pair.split_once('=').map_or(*pair, |(name, _)| name)) == name;
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_it(pair)).collect();
    let path = req.uri.path();
    let target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
    let mut parts = req.uri.clone().into_parts();
    parts.path_and_query = target.parse().ok();
    // Less of what was a URI is one still.
    if let Ok(uri) = Uri::from_parts(parts) {
        req.set_uri(uri);
    }
}
