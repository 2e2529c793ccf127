//! Host names and wildcards: which value belongs to a name.

use std::{borrow::Cow, collections::HashMap, net::IpAddr};

use rustls::pki_types::DnsName;

/// The form in which names are compared: lower case, without a trailing dot.
pub fn canonical(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// Whether a client could ask for it: a host name, or `*.` and a host name (RFC 6125, section 6.4.3: the whole first
/// label or nothing).
pub fn is_name(pattern: &str) -> bool {
    let name = pattern.strip_prefix("*.").unwrap_or(pattern);
    DnsName::try_from(name).is_ok()
}

/// Whether a host, as a request names it, is an IP address; an IPv6 address stands in brackets.
pub(super) fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
}

/// Values by name. An exact name goes before a wildcard, and a wildcard stands for one label.
#[derive(Debug)]
pub struct ByName<T> {
    exact: HashMap<Box<str>, T>,
    /// By what follows the `*.`.
    wild: HashMap<Box<str>, T>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wild: HashMap::new() }
    }
}

impl<T: Copy> ByName<T> {
    /// Adds a name or a wildcard; the value that it has already stays and is given back.
    pub fn add(&mut self, pattern: &str, value: T) -> Option<T> {
        let pattern = canonical(pattern);
        let (map, name) = match pattern.strip_prefix("*.") {
            Some(rest) => (&mut self.wild, rest),
            None => (&mut self.exact, &*pattern),
        };
        if let Some(there) = map.get(name) {
            return Some(*there);
        }
        map.insert(name.into(), value);
        None
    }

    /// The value of a canonical name.
    pub fn get(&self, name: &str) -> Option<T> {
        let wild = || self.wild.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wild).copied()
    }

    /// Whether some client that asks for this name, or for one that the wildcard stands for, finds a value.
    pub fn covers(&self, pattern: &str) -> bool {
        let pattern = canonical(pattern);
        match pattern.strip_prefix("*.") {
            None => self.get(&pattern).is_some(),
            Some(rest) => {
                let below = |name: &str| name.split_once('.').is_some_and(|(_, tail)| tail == rest);
                self.wild.contains_key(rest) || self.exact.keys().any(|name| below(name))
            }
        }
    }
}
