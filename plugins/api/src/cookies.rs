//! The cookies of a request.

use http::{HeaderMap, header};

/// Names and values of all cookies (RFC 6265, section 4.2). A value in quotes loses them.
pub fn cookies(fields: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let texts = fields.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs =
        texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim_matches([' ', '\t']).split_once('='));
    pairs.map(|(name, value)| (name, value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value)))
}
