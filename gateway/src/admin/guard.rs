//! Who may use the admin listener.

use axum::{
    extract::{Request, State as From},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use subtle::ConstantTimeEq as _;

use super::{State, api::problem, audit::Caller};

/// Lets through who presents the token, addresses this listener by a loopback name (a page in a browser that resolves
/// its own name to loopback does not), and is no page of another site.
pub(super) async fn check(From(state): From<State>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !headers.get(header::HOST).and_then(|h| h.to_str().ok()).is_some_and(is_loopback_name) {
        return problem(
            StatusCode::MISDIRECTED_REQUEST,
            "bad_host",
            "The admin listener answers to loopback names only.",
        );
    }
    if headers.contains_key(header::ORIGIN) {
        return problem(StatusCode::FORBIDDEN, "cross_origin", "The admin listener is not for pages of other sites.");
    }
    let presented = headers.get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes);
    let token = presented.and_then(bearer).unwrap_or_default();
    if !bool::from(token.ct_eq(&state.token)) {
        let mut refusal = problem(StatusCode::UNAUTHORIZED, "token_required", "Present the admin token.");
        refusal.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        return refusal;
    }
    if let Some(caller) = request.extensions().get::<Caller>() {
        caller.is_known();
    }
    next.run(request).await.into_response()
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_answered_to() {
        for (host, ours) in [
            ("localhost", true),
            ("localhost:9900", true),
            ("127.0.0.1:9900", true),
            ("[::1]:9900", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_loopback_name(host), ours, "{host}");
        }
    }

    #[test]
    fn the_scheme_may_be_written_any_way() {
        assert_eq!(bearer(b"bEARER abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bear"), None);
    }
}
