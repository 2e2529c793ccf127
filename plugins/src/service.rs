//! Addresses of services that plugins ask.

use crossway_plugin_api::InvalidConfig;
use http::Uri;

/// Checks the URL of a service; `place` is where it stands. Secrets do not belong into it: it is logged.
pub(crate) fn check_url(url: &str, place: &str) -> Result<(), InvalidConfig> {
    let wrong = |reason: &str| Err(InvalidConfig::new(place, reason));
    let Ok(parsed) = url.parse::<Uri>() else { return wrong("is not a URL") };
    if !matches!(parsed.scheme_str(), Some("http" | "https")) || parsed.host().is_none_or(str::is_empty) {
        return wrong("is not an absolute URL of `https` or `http`");
    }
    if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return wrong("holds a user name or a password");
    }
    if url.contains('#') {
        return wrong("has a fragment, which no server sees");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_an_absolute_url() {
        for good in ["https://idp.test/introspect", "http://127.0.0.1:9000", "http://[::1]/a?b=c"] {
            assert_eq!(check_url(good, "url"), Ok(()), "{good}");
        }
        for wrong in [
            "",
            "/path",
            "idp.test/x",
            "ftp://idp.test/",
            "https://",
            "https://u:p@idp.test/",
            "http://a/#b",
            "http://a b/",
        ] {
            assert!(check_url(wrong, "url").is_err(), "{wrong}");
        }
    }
}
