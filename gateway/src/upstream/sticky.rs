//! Cookies that bring clients back to their endpoint (RFC 6265).

use std::{net::SocketAddr, sync::LazyLock};

use crossway_plugin_api::cookies;
use http::{HeaderMap, HeaderValue};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};

use crate::config::balance::{SameSite, StickyCookie};

/// The key where none is configured: good for as long as the process lives.
static DRAWN: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).expect("the system has random numbers");
    key
});

/// What makes the tags of an upstream's endpoints.
#[derive(Clone)]
pub struct Tags(hmac::Key);

impl Tags {
    /// Keyed with this secret, or with one of this process.
    pub fn new(secret: Option<&str>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.map_or(&*DRAWN, str::as_bytes)))
    }

    /// Stands for the key.
    pub(super) fn identity(&self) -> u64 {
        self.digest(&[b"identity"])
    }

    /// The name of an endpoint towards clients.
    pub(super) fn tag(&self, upstream: &str, address: SocketAddr) -> u64 {
        self.digest(&[b"endpoint", upstream.as_bytes(), address.to_string().as_bytes()])
    }

    fn digest(&self, parts: &[&[u8]]) -> u64 {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
            context.update(b"\0");
        }
        let digest = context.sign();
        digest.as_ref().iter().take(8).fold(0, |all, byte| (all << 8) | u64::from(*byte))
    }
}

/// The cookie of one upstream.
pub struct Sticky {
    name: String,
    attributes: String,
    secure: Option<bool>,
}

impl Sticky {
    /// From settings that were checked.
    pub fn new(cookie: &StickyCookie) -> Self {
        let mut attributes = format!("; Path={}", cookie.path);
        if let Some(ttl) = cookie.ttl {
            attributes.push_str("; Max-Age=");
            attributes.push_str(&ttl.0.as_secs().to_string());
        }
        if cookie.http_only {
            attributes.push_str("; HttpOnly");
        }
        attributes.push_str(match cookie.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        Self { name: cookie.name.clone(), attributes, secure: cookie.secure }
    }

    /// The tag that a request brings: of cookies with the same name the first that can be one.
    pub fn brought(&self, fields: &HeaderMap) -> Option<u64> {
        let named = cookies(fields).filter(|(name, _)| *name == self.name);
        named.filter(|(_, value)| is_tag(value)).find_map(|(_, value)| u64::from_str_radix(value, 16).ok())
    }

    /// The field that sends a client to the endpoint with this tag from now on. `None` only where the settings were not
    /// checked.
    pub fn field(&self, tag: u64, is_https: bool) -> Option<HeaderValue> {
        let secure = if self.secure.unwrap_or(is_https) { "; Secure" } else { "" };
        HeaderValue::from_str(&format!("{}={tag:016x}{}{secure}", self.name, self.attributes)).ok()
    }
}

fn is_tag(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky(text: &str) -> Sticky {
        Sticky::new(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn the_field_has_what_is_configured() {
        let plain = sticky(r#"{"name": "at"}"#);
        assert_eq!(plain.field(7, false).unwrap(), "at=0000000000000007; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(plain.field(7, true).unwrap(), "at=0000000000000007; Path=/; HttpOnly; SameSite=Lax; Secure");
        let all =
            r#"{"name": "at", "ttl": "1h", "path": "/a", "secure": true, "http_only": false, "same_site": "none"}"#;
        let value = "at=ffffffffffffffff; Path=/a; Max-Age=3600; SameSite=None; Secure";
        assert_eq!(sticky(all).field(u64::MAX, false).unwrap(), value);
        assert!(
            !sticky(r#"{"name": "at", "secure": false}"#).field(7, true).unwrap().to_str().unwrap().contains("Secure")
        );
    }

    #[test]
    fn a_tag_is_read_from_the_cookie_and_nothing_else() {
        let sticky = sticky(r#"{"name": "at"}"#);
        let brought =
            |text: &str| sticky.brought(&[(http::header::COOKIE, text.parse().unwrap())].into_iter().collect());
        assert_eq!(brought("a=b; at=00000000000000ff; c=d"), Some(255));
        assert_eq!(brought("at=junk; at=\"00000000000000ff\""), Some(255));
        for nothing in
            ["", "a=b", "at", "at=", "at=ff", "at=+0000000000000ff", "xat=00000000000000ff", "at=00000000000000ff0"]
        {
            assert_eq!(brought(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn tags_differ_by_key_upstream_and_address() {
        let (one, other) = (Tags::new(Some("a")), Tags::new(Some("b")));
        let [a, b]: [SocketAddr; 2] = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
        assert_eq!(one.tag("erp", a), Tags::new(Some("a")).tag("erp", a));
        for other in [one.tag("erp", b), one.tag("crm", a), other.tag("erp", a), Tags::new(None).tag("erp", a)] {
            assert_ne!(one.tag("erp", a), other);
        }
        assert_eq!(Tags::new(None).tag("erp", a), Tags::new(None).tag("erp", a), "one key for the whole process");
    }
}
