//! The one form of a host name (RFC 3986, section 3.2.2).

use std::{borrow::Cow, net::Ipv6Addr};

use super::{
    Refusal,
    octets::{HOST, is},
};

/// Longest host name, in characters.
const MAX_NAME: usize = 253;
/// Longest label of a host name, in characters.
const MAX_LABEL: usize = 63;

const BAD_HOST: Refusal = Refusal::bad("bad_host", "The host is not a valid host name or address.");
const BAD_PORT: Refusal = Refusal::bad("bad_host", "The host's port is not a number from 1 to 65535.");

/// A host in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host<'a> {
    /// The name in lower case without a trailing dot, an IPv4 address, or an IPv6 address in brackets. Borrowed if it
    /// came like that. Empty only if an HTTP/1.0 client named no host.
    pub name: Cow<'a, str>,
    /// The port, if one was given.
    pub port: Option<u16>,
}

/// Brings `host [":" port]` into canonical form. Errors: 400 `bad_host`.
pub fn canonical_host(raw: &str) -> Result<Host<'_>, Refusal> {
    if raw.starts_with('[') {
        let end = raw.find(']').ok_or(BAD_HOST)?;
        let (literal, rest) = raw.split_at(end + 1);
        return Ok(Host { name: canonical_literal(literal)?, port: port(rest)? });
    }
    let (name, rest) = raw.split_at(raw.find(':').unwrap_or(raw.len()));
    Ok(Host { name: canonical_name(name)?, port: port(rest)? })
}

/// An IPv6 address with its brackets, in the form of RFC 5952.
fn canonical_literal(literal: &str) -> Result<Cow<'_, str>, Refusal> {
    let inner = literal.strip_prefix('[').and_then(|l| l.strip_suffix(']')).ok_or(BAD_HOST)?;
    let address: Ipv6Addr = inner.parse().map_err(|_| BAD_HOST)?;
    let canonical = format!("[{address}]");
    Ok(if canonical == literal { Cow::Borrowed(literal) } else { Cow::Owned(canonical) })
}

fn canonical_name(raw: &str) -> Result<Cow<'_, str>, Refusal> {
    let name = raw.strip_suffix('.').unwrap_or(raw);
    if name.len() > MAX_NAME {
        return Err(BAD_HOST);
    }
    let mut label = 0;
    let mut has_upper = false;
    for byte in name.bytes() {
        match byte {
            b'.' if label > 0 => label = 0,
            b'.' => return Err(BAD_HOST),
            _ if is(byte, HOST) && label < MAX_LABEL => label += 1,
            _ => return Err(BAD_HOST),
        }
        has_upper |= byte.is_ascii_uppercase();
    }
    // An empty name ends in an empty label too.
    if label == 0 {
        return Err(BAD_HOST);
    }
    Ok(if has_upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

/// What follows the name: nothing, or a colon and a port.
fn port(rest: &str) -> Result<Option<u16>, Refusal> {
    if rest.is_empty() {
        return Ok(None);
    }
    let digits = rest.strip_prefix(':').ok_or(BAD_HOST)?;
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BAD_PORT);
    }
    match digits.parse() {
        Ok(0) | Err(_) => Err(BAD_PORT),
        Ok(port) => Ok(Some(port)),
    }
}
