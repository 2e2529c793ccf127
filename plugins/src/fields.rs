//! Header fields that configuration may not touch, and what the plugins that write fields share.

use std::collections::BTreeMap;

use crossway_plugin_api::{InvalidConfig, config::FieldName};
use http::HeaderName;

/// Fields that frame the message, steer the connection or choose the server (RFC 9110, sections 7.2, 7.6.1 and 8.6;
/// RFC 9112, section 6): the gateway alone writes them.
const FRAMING: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// Whether the gateway alone writes this field. An underscore counts as a hyphen: some servers take the two for one.
pub fn is_framing(name: &HeaderName) -> bool {
    FRAMING.contains(&hyphenated(name).as_str())
}

/// Whether this request field says who is calling and from where, which only the gateway may tell an upstream.
pub(crate) fn is_identity(name: &HeaderName) -> bool {
    let name = hyphenated(name);
    name.starts_with("x-consumer-") || name.starts_with("x-forwarded-") || matches!(name.as_str(), "forwarded" | "via")
}

fn hyphenated(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// Refuses a field of the gateway's own; `place` is where the name stands.
pub(crate) fn check_framing(name: &HeaderName, place: &str) -> Result<(), InvalidConfig> {
    if is_framing(name) {
        return Err(reserved(name, place, "that only the gateway writes"));
    }
    Ok(())
}

/// An error about a field; `which` says what is special about it. The key that stands at `place` may be its name itself.
pub(crate) fn reserved(name: &HeaderName, place: &str, which: &str) -> InvalidConfig {
    let key = place.rsplit('/').next().unwrap_or_default();
    let is_key = name.as_str().eq_ignore_ascii_case(key);
    let reason = if is_key { format!("is a field {which}") } else { format!("names `{name}`, a field {which}") };
    InvalidConfig::new(place, reason)
}

/// Reads a name that is a key of a mapping; `place` is where the key stands.
pub(crate) fn parse_key(key: &str, place: &str) -> Result<HeaderName, InvalidConfig> {
    FieldName::parse(key).map(|name| name.0).map_err(|reason| InvalidConfig::new(place, reason))
}

/// Reads all keys of a mapping as names, each with its place and value. Two keys that differ in case only are refused.
pub(crate) fn parse_keys<V>(
    fields: BTreeMap<String, V>,
    path: &str,
) -> Result<Vec<(HeaderName, String, V)>, InvalidConfig> {
    let mut parsed: Vec<(HeaderName, String, V)> = Vec::with_capacity(fields.len());
    for (key, value) in fields {
        let place = below(path, &key);
        let name = parse_key(&key, &place)?;
        if parsed.iter().any(|(known, ..)| *known == name) {
            return Err(InvalidConfig::new(place, "stands here twice: case does not count in field names"));
        }
        parsed.push((name, place, value));
    }
    Ok(parsed)
}

/// The path of a mapping's key, escaped like a JSON Pointer (RFC 6901, section 3).
pub(crate) fn below(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscores_do_not_hide_a_name() {
        let name = |text: &str| FieldName::parse(text).unwrap().0;
        assert!(is_framing(&name("Content_Length")) && is_framing(&name("TE")) && !is_framing(&name("X-Host")));
        assert!(is_identity(&name("x_consumer_name")) && is_identity(&name("X-Forwarded-For")));
        assert!(is_identity(&name("Via")) && !is_identity(&name("X-Via")) && !is_identity(&name("X-Consumer")));
    }

    #[test]
    fn keys_are_names_that_differ_in_more_than_case() {
        let read = |keys: &[&str]| {
            let fields = keys.iter().map(|k| ((*k).to_owned(), ())).collect();
            parse_keys(fields, "set").map(|found| found.len()).map_err(|wrong| wrong.field)
        };
        assert_eq!(read(&["X-A", "X-B"]), Ok(2));
        assert_eq!(read(&["X-A", "x-a"]), Err("set/x-a".into()));
        assert_eq!(read(&["a/b"]), Err("set/a~1b".into()));
    }
}
