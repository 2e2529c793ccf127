//! The text of a token, read strictly and before any cryptography.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{algorithm::Algorithm, json};

/// Why a token is not good: for the log. The client learns that it is not, and no more.
pub(super) type Reason = &'static str;

/// A token in the compact form (RFC 7515, section 7.1), with nothing of it verified.
pub(super) struct Unverified<'t> {
    pub(super) algorithm: Algorithm,
    /// The name of the key.
    pub(super) kid: Option<String>,
    /// The media type of the token, in lower case and without `application/`.
    pub(super) typ: Option<String>,
    pub(super) claims: Map<String, Value>,
    /// What is signed: header and claims as they came.
    pub(super) message: &'t str,
    /// The signature, as it came.
    pub(super) signature: &'t str,
}

/// Members of a header that change how the token is read. We understand none of them, so that a token with one is refused
/// (RFC 7515, section 4.1.11; RFC 7797; RFC 7516).
const UNREADABLE: [&str; 6] = ["crit", "b64", "zip", "enc", "epk", "p2c"];

/// Reads a token.
pub(super) fn read(token: &str) -> Result<Unverified<'_>, Reason> {
    let Signed { algorithm, kid, header, content, message, signature } = signed(token)?;
    let typ = text(&header, "typ")?.map(media_type);
    let claims = json::object(&content).ok_or("the claims are no JSON object with each name once")?;
    Ok(Unverified { algorithm, kid, typ, claims, message, signature })
}

/// A signed text, whatever it says (RFC 7515).
pub(super) struct Signed<'t> {
    pub(super) algorithm: Algorithm,
    /// The name of the key.
    pub(super) kid: Option<String>,
    header: Map<String, Value>,
    content: Vec<u8>,
    /// What is signed.
    pub(super) message: &'t str,
    /// The signature, as it came.
    pub(super) signature: &'t str,
}

/// Reads the compact form. What the header says of keys (`jku`, `jwk`, `x5u`, `x5c`) is never looked at.
pub(super) fn signed(token: &str) -> Result<Signed<'_>, Reason> {
    let mut parts = token.split('.');
    let (Some(header), Some(content), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("not three parts");
    };
    let message = &token[..header.len() + 1 + content.len()];
    let header = json::object(&decode(header)?).ok_or("the header is no JSON object with each name once")?;
    if UNREADABLE.iter().any(|name| header.contains_key(*name)) {
        return Err("the header has a member that changes how the token is read");
    }
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
    let algorithm = algorithm.ok_or("no algorithm, or an unknown one")?;
    let kid = text(&header, "kid")?.map(str::to_owned);
    let content = decode(content)?;
    if signature.is_empty() {
        return Err("no signature");
    }
    Ok(Signed { algorithm, kid, header, content, message, signature })
}

/// The short form of a media type, in which types are compared (RFC 7515, section 4.1.9).
pub(super) fn media_type(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    lower.strip_prefix("application/").map(str::to_owned).unwrap_or(lower)
}

/// base64url without padding, with no other character and no bit that is not used (RFC 7515, section 2; RFC 4648,
/// section 3.5).
fn decode(part: &str) -> Result<Vec<u8>, Reason> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| "not base64url")
}

fn text<'m>(members: &'m Map<String, Value>, name: &str) -> Result<Option<&'m str>, Reason> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("a member of the header that must be a text is none"),
    }
}
