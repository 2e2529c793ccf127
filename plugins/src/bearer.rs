//! Bearer tokens (RFC 6750): the one reading of them, for every plugin that takes one.

use crossway_plugin_api::Reply;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use percent_encoding::percent_decode_str;
use pingora_http::RequestHeader;

use crate::credentials::{self, Presented};

/// The parameter of a query that is a token too (RFC 6750, section 2.3).
pub(crate) const PARAMETER: &str = "access_token";

/// The token in `Authorization` (RFC 6750, section 2.1). Garbage is what is no `b64token` too; several are a token here and
/// one in the query, which an upstream could take.
pub(crate) fn presented(req: &RequestHeader) -> Presented<'_> {
    in_field(req, &AUTHORIZATION, "bearer")
}

/// The same for another field or scheme.
pub(crate) fn in_field<'r>(req: &'r RequestHeader, field: &HeaderName, scheme: &str) -> Presented<'r> {
    match credentials::of_scheme(&req.headers, field, scheme) {
        Presented::Nothing => Presented::Nothing,
        // Beside a field of its own, what the query says may be meant for the upstream.
        _ if *field == AUTHORIZATION && is_in_query(req.uri.query()) => Presented::Several,
        Presented::Text(token) if !is_token(token) => Presented::Garbage,
        other => other,
    }
}

fn is_in_query(query: Option<&str>) -> bool {
    let pairs = query.unwrap_or_default().split('&');
    let mut names = pairs.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    names.any(|name| percent_decode_str(name).eq(PARAMETER.bytes()))
}

/// `b64token` (RFC 6750, section 2.1).
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    !body.is_empty() && body.bytes().all(allowed)
}

/// 401 to who brought no token: the challenge has no error (RFC 6750, section 3.1).
pub(crate) fn missing(code: &'static str, detail: &str) -> Reply {
    const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"crossway\"");
    Reply::problem(StatusCode::UNAUTHORIZED, code, detail).header(WWW_AUTHENTICATE, CHALLENGE)
}

/// 401 to who brought a token that is not good, whatever is wrong with it.
pub(crate) fn invalid(code: &'static str, detail: &str) -> Reply {
    const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"crossway\", error=\"invalid_token\"");
    Reply::problem(StatusCode::UNAUTHORIZED, code, detail).header(WWW_AUTHENTICATE, CHALLENGE)
}

/// 400 to who brought more than one token (RFC 6750, sections 2 and 3.1).
pub(crate) fn several(code: &'static str, detail: &str) -> Reply {
    const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"crossway\", error=\"invalid_request\"");
    Reply::problem(StatusCode::BAD_REQUEST, code, detail).header(WWW_AUTHENTICATE, CHALLENGE)
}

/// The challenge to who brought a token without the scopes that are needed; `None` if one of them is no scope (RFC 6749,
/// section 3.3).
pub(crate) fn scope_challenge<'s>(scopes: impl IntoIterator<Item = &'s String>) -> Option<HeaderValue> {
    let scopes: Vec<&str> = scopes.into_iter().map(String::as_str).collect();
    let is_scope = |scope: &&str| {
        !scope.is_empty() && scope.bytes().all(|b| matches!(b, 0x21..=0x7e) && !matches!(b, b'"' | b'\\'))
    };
    if !scopes.iter().all(is_scope) {
        return None;
    }
    let scopes = scopes.join(" ");
    let text = format!("Bearer realm=\"crossway\", error=\"insufficient_scope\", scope=\"{scopes}\"");
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::request;

    #[test]
    fn tokens_have_the_form_of_rfc_6750() {
        for (token, good) in
            [("abc", true), ("a-._~+/b==", true), ("=", false), ("a=b", false), ("a,b", false), ("a\"b", false)]
        {
            let req = request("GET", &[("Authorization", &format!("Bearer {token}"))]);
            let expected = if good { Presented::Text(token) } else { Presented::Garbage };
            assert_eq!(presented(&req), expected, "{token}");
        }
    }

    #[test]
    fn a_token_in_the_query_is_a_second_one() {
        for (query, several) in [
            ("access_token=x", true),
            ("access_token", true),
            ("a=b&access%5Ftoken=x", true),
            ("%61ccess_token=", true),
            ("a=access_token", false),
            ("access_tokens=x", false),
            ("a=b", false),
        ] {
            for (field, scheme, value) in [("authorization", "Bearer", "x"), ("authorization", "Bearer", "?")] {
                let mut req = request("GET", &[(field, &format!("{scheme} {value}"))]);
                req.set_uri(format!("/?{query}").parse().unwrap());
                assert_eq!(presented(&req) == Presented::Several, several, "{query} {value}");
            }
            let mut req = request("GET", &[("X-Token", "Bearer x")]);
            req.set_uri(format!("/?{query}").parse().unwrap());
            assert_eq!(presented(&req), Presented::Nothing, "a token of the query alone is not taken");
            let own = HeaderName::from_static("x-token");
            assert_eq!(in_field(&req, &own, "bearer"), Presented::Text("x"), "{query}");
        }
    }

    #[test]
    fn scopes_that_break_the_challenge_are_none() {
        let challenge = |scopes: &[&str]| {
            let scopes: Vec<String> = scopes.iter().map(|s| (*s).to_owned()).collect();
            scope_challenge(&scopes).map(|value| value.to_str().unwrap().to_owned())
        };
        let expected = "Bearer realm=\"crossway\", error=\"insufficient_scope\", scope=\"a b:c\"";
        assert_eq!(challenge(&["a", "b:c"]).as_deref(), Some(expected));
        for wrong in ["", "a b", "a\"", "a\\", "ä", "a\n"] {
            assert_eq!(challenge(&["a", wrong]), None, "{wrong}");
        }
    }
}
