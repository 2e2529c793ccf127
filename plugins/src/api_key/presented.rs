//! Where a request carries its key, and the request without it.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, Uri, header::COOKIE, uri::PathAndQuery};
use percent_encoding::percent_decode_str;
use pingora_http::RequestHeader;

/// Longest key accepted, in bytes.
const MAX_KEY: usize = 512;

/// Where keys are looked for.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) header: HeaderName,
    pub(super) query: Option<String>,
    pub(super) cookie: Option<String>,
}

/// What a request carries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Presented<'r> {
    Nothing,
    /// One text that may be a key.
    Key(Cow<'r, [u8]>),
    /// More than one, or one that cannot be a key.
    Garbage(&'static str),
}

impl Places {
    /// What the request carries, in all places together.
    pub(super) fn look<'r>(&self, req: &'r RequestHeader) -> Presented<'r> {
        let mut found: Option<Cow<'r, [u8]>> = None;
        let mut more = false;
        let mut see = |key: Cow<'r, [u8]>| match &found {
            None => found = Some(key),
            Some(_) => more = true,
        };
        req.headers.get_all(&self.header).iter().for_each(|value| see(Cow::Borrowed(value.as_bytes())));
        if let (Some(name), Some(query)) = (&self.query, req.uri.query()) {
            pairs(query).filter(|(found, _)| is_parameter(found, name)).for_each(|(_, value)| see(form_decoded(value)));
        }
        if let Some(name) = &self.cookie {
            for field in req.headers.get_all(COOKIE) {
                cookies(field.as_bytes()).filter_map(|cookie| value_of(cookie, name)).for_each(|v| see(v.into()));
            }
        }
        match found {
            None => Presented::Nothing,
            Some(_) if more => Presented::Garbage("there is more than one key"),
            Some(key) if (1..=MAX_KEY).contains(&key.len()) => Presented::Key(key),
            Some(_) => Presented::Garbage("the key is empty, or longer than any"),
        }
    }

    /// Takes the keys out of the request: whoever comes later sees none, nor does a log.
    pub(super) fn strip(&self, req: &mut RequestHeader) {
        req.remove_header(&self.header);
        if let Some(name) = &self.query {
            strip_query(req, name);
        }
        if let Some(name) = &self.cookie {
            strip_cookie(req, name);
        }
    }
}

/// Names and values of a query, as they are written.
fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// As forms write it: escapes, and a plus for a space (URL standard, `application/x-www-form-urlencoded`).
fn form_decoded(text: &str) -> Cow<'_, [u8]> {
    if text.contains('+') {
        return percent_decode_str(&text.replace('+', " ")).collect::<Vec<u8>>().into();
    }
    percent_decode_str(text).into()
}

fn is_parameter(written: &str, name: &str) -> bool {
    written == name || (written.contains(['%', '+']) && *form_decoded(written) == *name.as_bytes())
}

fn strip_query(req: &mut RequestHeader, name: &str) {
    let Some(query) = req.uri.query().filter(|query| pairs(query).any(|(found, _)| is_parameter(found, name))) else {
        return;
    };
    let mut target = req.uri.path().to_owned();
    let kept = query.split('&').filter(|pair| !is_parameter(pair.split('=').next().unwrap_or_default(), name));
    for (pair, sign) in kept.zip(std::iter::once('?').chain(std::iter::repeat('&'))) {
        target.push(sign);
        target.push_str(pair);
    }
    let mut parts = req.uri.clone().into_parts();
    // A part of what was a target is one.
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    req.set_uri(Uri::from_parts(parts).unwrap_or_default());
}

/// The cookies of a field, as they are written (RFC 6265, section 4.2.1).
fn cookies(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// The value of a cookie, if it has this name; without the quotes that may stand around it.
fn value_of<'c>(cookie: &'c [u8], name: &str) -> Option<&'c [u8]> {
    let value = cookie.strip_prefix(name.as_bytes())?.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

fn strip_cookie(req: &mut RequestHeader, name: &str) {
    let is_key = |cookie: &&[u8]| value_of(cookie, name).is_some();
    if !req.headers.get_all(COOKIE).iter().any(|field| cookies(field.as_bytes()).any(|cookie| is_key(&cookie))) {
        return;
    }
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for field in req.headers.get_all(COOKIE) {
        let rest: Vec<&[u8]> = cookies(field.as_bytes()).filter(|cookie| !is_key(cookie)).collect();
        if rest.iter().any(|cookie| !cookie.is_empty()) {
            kept.push(rest.join(&b"; "[..]));
        }
    }
    req.remove_header(&COOKIE);
    for field in kept {
        // What was a value is one without a part of it.
        let Ok(value) = HeaderValue::from_bytes(&field) else { continue };
        let _ = req.append_header(COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;

    fn places() -> Places {
        Places {
            header: HeaderName::from_static("x-api-key"),
            query: Some("api_key".into()),
            cookie: Some("key".into()),
        }
    }

    fn request(target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut req = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        for (name, value) in fields {
            req.append_header(*name, *value).unwrap();
        }
        req
    }

    #[test]
    fn a_key_is_found_wherever_it_may_stand() {
        let key = |text: &'static str| Presented::Key(text.as_bytes().into());
        for (target, fields, expected) in [
            ("/", &[][..], Presented::Nothing),
            ("/?a=1&b", &[("Cookie", "a=1; monkey=2; Key=3; key2=4"), ("X-Key", "5")], Presented::Nothing),
            ("/?a=1&api_key=k1", &[], key("k1")),
            ("/?api%5Fkey=k%2B1+2", &[], key("k+1 2")),
            ("/", &[("Cookie", "a=1; key=k1")], key("k1")),
            ("/", &[("Cookie", "a=1"), ("Cookie", "key=\"k1\"")], key("k1")),
            ("/", &[("X-API-Key", "k1")], key("k1")),
        ] {
            let req = request(target, fields);
            assert_eq!(places().look(&req), expected, "{target} {fields:?}");
        }
    }

    #[test]
    fn two_keys_are_none_even_if_they_are_the_same() {
        for (target, fields) in [
            ("/?api_key=k&api_key=k", &[][..]),
            ("/?api_key=k", &[("X-API-Key", "k")]),
            ("/?api_key=k", &[("Cookie", "key=k")]),
            ("/", &[("Cookie", "key=k; key=k")]),
            ("/", &[("X-API-Key", "k"), ("Cookie", "key=k")]),
            ("/?api_key", &[]),
            ("/?api_key=", &[]),
            ("/", &[("Cookie", "key=")]),
        ] {
            let req = request(target, fields);
            assert!(matches!(places().look(&req), Presented::Garbage(_)), "{target} {fields:?}");
        }
    }

    #[test]
    fn the_rest_of_the_request_stays_as_it_was() {
        for (target, fields, rest, cookie) in [
            (
                "/a%20b?x=1&api_key=k&y=%2F",
                &[("Cookie", "a=1; key=k; b=\"2\"")][..],
                "/a%20b?x=1&y=%2F",
                "a=1; b=\"2\"",
            ),
            ("/?api_key=k", &[("Cookie", "key=k")], "/", ""),
            ("/?api%5fkey=k&&x", &[("Cookie", "a=1"), ("Cookie", "key=k;")], "/?&x", "a=1"),
            ("/?", &[("Cookie", "odd;;  spaces =1 ;")], "/?", "odd;;  spaces =1 ;"),
        ] {
            let mut req = request(target, fields);
            places().strip(&mut req);
            assert_eq!(req.uri.path_and_query().unwrap().as_str(), rest, "{target}");
            assert_eq!(values(&req.headers, "cookie"), cookie, "{target}");
        }
    }
}
