//! Bearer tokens (RFC 6750).

use crossway_plugin_api::Reply;
use http::{HeaderMap, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};

use crate::credentials::{self, Presented};

/// Longest token that is read, in bytes.
const MAX_TOKEN: usize = 8 << 10;

/// The token in `Authorization` (RFC 6750, section 2.1). Garbage too: one of more than 8 KiB, or that is no `b64token`.
pub(crate) fn presented(headers: &HeaderMap) -> Presented<'_> {
    match credentials::of_scheme(headers, "bearer") {
        Presented::Text(token) if token.len() > MAX_TOKEN || !is_token(token) => Presented::Garbage,
        other => other,
    }
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
    use http::header::AUTHORIZATION;

    use super::*;

    #[test]
    fn tokens_have_the_form_of_rfc_6750() {
        let (longest, too_long) = ("x".repeat(MAX_TOKEN), "x".repeat(MAX_TOKEN + 1));
        for (token, good) in [
            ("abc", true),
            ("a-._~+/b==", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("=", false),
            ("a=b", false),
            ("a,b", false),
            ("a\"b", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
            let expected = if good { Presented::Text(token) } else { Presented::Garbage };
            assert_eq!(presented(&headers), expected, "{token}");
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
