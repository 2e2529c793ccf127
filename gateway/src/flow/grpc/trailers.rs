//! Response trailers that may pass.

use http::{HeaderMap, HeaderName, header};

use super::STATUS;

/// Most fields of one trailer section.
const MAX_FIELDS: usize = 128;
/// Most bytes, names and values together.
const MAX_BYTES: usize = 64 << 10;

/// What means nothing in trailers, or something else than in a header: framing, routing, requests, authentication, and
/// what the content is (RFC 9110, section 6.5.1); besides the fields of one connection.
const FORBIDDEN: [HeaderName; 35] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::HOST,
    header::EXPECT,
    header::MAX_FORWARDS,
    header::RANGE,
    header::CACHE_CONTROL,
    header::PRAGMA,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::AUTHORIZATION,
    header::WWW_AUTHENTICATE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::AGE,
    header::EXPIRES,
    header::DATE,
    header::LOCATION,
    header::RETRY_AFTER,
    header::VARY,
    header::WARNING,
    header::SERVER,
    header::VIA,
];

/// The rest of them, which the header crate has no constants for.
const FORBIDDEN_TOO: [&str; 4] = ["keep-alive", "proxy-connection", "proxy-authentication-info", "authentication-info"];

/// Takes out what may not pass, and what is too much. The status of a call is the last to go.
pub fn clean(trailers: &mut HeaderMap) {
    for name in &FORBIDDEN {
        trailers.remove(name);
    }
    for name in FORBIDDEN_TOO {
        trailers.remove(name);
    }
    let size = |map: &HeaderMap| map.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    if trailers.len() <= MAX_FIELDS && size(trailers) <= MAX_BYTES {
        return;
    }
    let all = std::mem::take(trailers);
    let status = all.iter().find(|(name, _)| **name == STATUS);
    let mut left = MAX_BYTES;
    for (name, value) in status.into_iter().chain(all.iter().filter(|(name, _)| **name != STATUS)) {
        let length = name.as_str().len() + value.len();
        if length <= left && trailers.len() < MAX_FIELDS {
            left -= length;
            trailers.append(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn cleaned(fields: &[(&'static str, &str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        clean(&mut map);
        map.keys().map(|name| name.as_str().to_owned()).collect()
    }

    #[test]
    fn what_only_a_header_may_say_does_not_pass() {
        let fields = [
            ("grpc-status", "0"),
            ("grpc-message", ""),
            ("grpc-status-details-bin", "CAUS"),
            ("x-custom", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("host", "x"),
            ("connection", "x-custom"),
            ("keep-alive", "1"),
            ("authorization", "Basic x"),
            ("set-cookie", "a=b"),
            ("content-type", "text/html"),
        ];
        assert_eq!(cleaned(&fields), ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-custom"]);
    }

    #[test]
    fn the_status_stays_when_there_is_too_much() {
        let long = "x".repeat(MAX_BYTES);
        assert_eq!(cleaned(&[("x-long", &long), ("grpc-status", "3"), ("x-short", "1")]), ["grpc-status", "x-short"]);
        let mut many = HeaderMap::new();
        for at in 0..500 {
            many.append(HeaderName::from_bytes(format!("x-{at}").as_bytes()).unwrap(), HeaderValue::from_static("1"));
        }
        many.append(STATUS, HeaderValue::from_static("3"));
        clean(&mut many);
        assert_eq!((many.len(), many.get(STATUS).is_some()), (MAX_FIELDS, true));
    }
}
