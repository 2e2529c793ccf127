//! How endpoints are chosen, checked.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::Compiler;
use crate::{
    config::{
        balance::{SameSite, Sticky, StickyCookie, cookie_name},
        upstream::Upstream as Config,
    },
    upstream::names::Names,
};

/// Shortest and longest slow start.
const SLOW_START: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
/// Shortest and longest life of a cookie; browsers keep none for longer.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(400 * 24));
/// Fewest characters of a key.
const KEY: usize = 16;

impl Compiler<'_> {
    pub(super) fn balance(&mut self, pointer: &str, config: &Config) {
        if config.endpoints.iter().all(|endpoint| endpoint.weight == 0) {
            let message = "every endpoint is drained (`weight: 0`): nobody would be served";
            self.error(&format!("{pointer}/endpoints"), message);
        }
        if config.slow_start.is_some_and(|time| !(SLOW_START.0..=SLOW_START.1).contains(&time.0)) {
            self.error(&format!("{pointer}/slow_start"), "must be from 1s to 1h");
        }
        if let Some(sticky) = &config.sticky {
            self.sticky(&format!("{pointer}/sticky"), sticky);
        }
    }

    /// Who is asked for names; what is wrong with them is reported once.
    pub(super) fn names(&mut self) -> Names {
        let loaded = self.loaded;
        let mut servers = Vec::new();
        for (at, text) in loaded.config.runtime.dns.servers.iter().enumerate() {
            let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
            match parsed {
                Ok(server) if server.port() != 0 => servers.push(server),
                _ => self.error(&format!("/runtime/dns/servers/{at}"), "is not an address, with or without a port"),
            }
        }
        Names::new(servers)
    }

    fn sticky(&mut self, pointer: &str, sticky: &Sticky) {
        let Sticky { cookie, key } = sticky;
        if key.as_ref().is_some_and(|key| key.expose().len() < KEY) {
            self.error(&format!("{pointer}/key"), format!("is shorter than {KEY} characters"));
        }
        let pointer = format!("{pointer}/cookie");
        if let Err(wrong) = cookie_name(&cookie.name) {
            self.error(&format!("{pointer}/name"), wrong);
        }
        if cookie.ttl.is_some_and(|ttl| !(TTL.0..=TTL.1).contains(&ttl.0)) {
            self.error(&format!("{pointer}/ttl"), "must be from 1s to 400 days");
        }
        let is_path = cookie.path.starts_with('/') && cookie.path.bytes().all(|b| b.is_ascii_graphic() && b != b';');
        if !is_path {
            self.error(&format!("{pointer}/path"), "is not a path: `/`, and visible ASCII characters without `;`");
        }
        self.secure(&pointer, cookie);
    }

    /// Browsers drop what asks for more than it may (RFC 6265bis, sections 4.1.2.7 and 4.1.3).
    fn secure(&mut self, pointer: &str, cookie: &StickyCookie) {
        let is_secure = cookie.secure == Some(true);
        if cookie.same_site == SameSite::None && !is_secure {
            self.error(
                &format!("{pointer}/same_site"),
                "browsers drop a cookie with `none` that is not `secure: true`",
            );
        }
        let name = &cookie.name;
        if name.starts_with("__Secure-") && !is_secure {
            self.error(&format!("{pointer}/name"), "browsers drop a cookie of this name that is not `secure: true`");
        }
        if name.starts_with("__Host-") && !(is_secure && cookie.path == "/") {
            let message = "browsers drop a cookie of this name that is not `secure: true`, or whose path is not `/`";
            self.error(&format!("{pointer}/name"), message);
        }
    }
}
