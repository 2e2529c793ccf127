//! What identifies the gateway at an upstream, and how it is written into a request.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crossway_plugin_api::{Fault, oauth2::form_encoded};
use http::{HeaderName, HeaderValue, Uri, header::AUTHORIZATION, uri::PathAndQuery};
use percent_encoding::percent_decode_str;
use pingora_http::RequestHeader;

/// Longest token that is taken, in bytes.
const MAX_TOKEN: usize = 8 << 10;

/// What identifies the gateway at an upstream. It is a secret: there is no `Debug`.
#[derive(PartialEq, Eq)]
pub enum Proof {
    /// A field of the header.
    Field(HeaderName, HeaderValue),
    /// A parameter of the query.
    Parameter {
        /// Its name.
        name: String,
        /// Name and value, encoded.
        pair: String,
    },
}

impl Proof {
    /// A bearer token (RFC 6750, section 2.1). `None`: it is longer than 8 KiB, or no `b64token`.
    pub fn bearer(token: &str) -> Option<Self> {
        let body = token.trim_end_matches('=');
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
        let is_token = token.len() <= MAX_TOKEN && !body.is_empty() && body.bytes().all(allowed);
        if is_token { Self::field(AUTHORIZATION, &format!("Bearer {token}")) } else { None }
    }

    /// A user name and a password (RFC 7617, section 2). `None`: a colon in the name, or control characters.
    pub fn basic(username: &str, password: &str) -> Option<Self> {
        if username.contains(':') || username.chars().chain(password.chars()).any(char::is_control) {
            return None;
        }
        Self::field(AUTHORIZATION, &format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
    }

    /// A field with this text. `None`: other characters than visible ASCII with spaces between.
    pub fn field(name: HeaderName, text: &str) -> Option<Self> {
        if text.is_empty() || text.trim() != text || !text.bytes().all(|b| matches!(b, b' '..=b'~')) {
            return None;
        }
        let mut value = HeaderValue::from_str(text).ok()?;
        value.set_sensitive(true);
        Some(Self::Field(name, value))
    }

    /// A parameter of the query.
    pub fn parameter(name: &str, value: &str) -> Self {
        Self::Parameter { name: name.to_owned(), pair: format!("{name}={}", form_encoded(value)) }
    }

    /// Writes it in place of all that stands there.
    pub fn write(&self, req: &mut RequestHeader) -> Result<(), Fault> {
        let broken = || Fault::Internal("a proof that cannot be written".into());
        match self {
            Self::Field(name, value) => req.insert_header(name, value.clone()).map_err(|_| broken()),
            Self::Parameter { name, pair } => {
                let target = with_parameter(&req.uri, name, pair).ok_or_else(broken)?;
                req.set_uri(target);
                Ok(())
            }
        }
    }
}

/// The target with this parameter last, and no other of its name.
fn with_parameter(uri: &Uri, name: &str, pair: &str) -> Option<Uri> {
    let query = uri.query().unwrap_or_default();
    let others = query.split('&').filter(|found| !found.is_empty() && !is_named(found, name));
    let query = others.chain([pair]).collect::<Vec<_>>().join("&");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{}?{query}", uri.path())).ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether a pair as it is written has this name, as forms write it.
fn is_named(pair: &str, name: &str) -> bool {
    let written = pair.split('=').next().unwrap_or_default().replace('+', " ");
    percent_decode_str(&written).eq(name.bytes())
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn request(target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut req = RequestHeader::build(Method::GET, target.as_bytes(), None).unwrap();
        for (name, value) in fields {
            req.append_header(*name, *value).unwrap();
        }
        req
    }

    #[test]
    fn a_field_replaces_all_of_its_name() {
        let mut req = request("/", &[("Authorization", "Bearer a"), ("authorization", "Basic b"), ("x-key", "c")]);
        Proof::bearer("d").unwrap().write(&mut req).unwrap();
        let values: Vec<_> = req.headers.get_all("authorization").iter().collect();
        assert_eq!(values, ["Bearer d"]);
        assert_eq!(req.headers.get("x-key").unwrap(), "c");
        assert!(req.headers.get("authorization").unwrap().is_sensitive());
    }

    #[test]
    fn a_parameter_replaces_all_of_its_name() {
        for (target, expected) in [
            ("/a", "/a?key=s%26%20t"),
            ("/a?", "/a?key=s%26%20t"),
            ("/a?b=c&key=mine&d", "/a?b=c&d&key=s%26%20t"),
            ("/a?k%65y=mine&key&KEY=x", "/a?KEY=x&key=s%26%20t"),
            ("/a?b=key=1&&c", "/a?b=key=1&c&key=s%26%20t"),
        ] {
            let mut req = request(target, &[]);
            Proof::parameter("key", "s& t").write(&mut req).unwrap();
            assert_eq!(req.uri, expected, "{target}");
        }
        let whole: Uri = "http://erp:80/a?key=x".parse().unwrap();
        assert_eq!(with_parameter(&whole, "key", "key=1").unwrap(), "http://erp:80/a?key=1");
    }

    #[test]
    fn what_no_field_can_carry_is_no_proof() {
        let too_long = "x".repeat(MAX_TOKEN + 1);
        for token in ["", "=", "a b", "a\r\nb", "a,b", "ä", "a=b", too_long.as_str()] {
            assert!(Proof::bearer(token).is_none(), "{token}");
        }
        for text in ["", " a", "a ", "a\nb", "a\tb", "ä"] {
            assert!(Proof::field(AUTHORIZATION, text).is_none(), "{text}");
        }
        assert!(Proof::field(AUTHORIZATION, "ApiKey a b").is_some());
        assert!(Proof::basic("a:b", "c").is_none() && Proof::basic("a", "b\n").is_none());
        let basic = Proof::basic("Aladdin", "open sesame").unwrap();
        assert!(basic == Proof::field(AUTHORIZATION, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").unwrap());
    }
}
