//! Listeners and the admin address, checked.

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc};

use super::{Compiler, ListenerState};
use crate::telemetry;

/// Fewest characters of an admin token: 16 random ones are out of reach of guessing.
const MIN_TOKEN: usize = 16;

impl Compiler<'_> {
    pub(super) fn listeners(&mut self) -> HashMap<String, Arc<ListenerState>> {
        let config = &self.loaded.config;
        let mut known: HashMap<String, Arc<ListenerState>> = HashMap::new();
        let mut addresses: HashMap<&str, &str> = HashMap::new();
        if config.listeners.is_empty() {
            let diagnostic = self.loaded.sources.error_of_all("there is no listener: nothing would be served");
            self.add("", diagnostic);
        }
        for (entry, listener) in (0_u32..).zip(&config.listeners) {
            let pointer = format!("/listeners/{entry}/address");
            if listener.address.parse::<SocketAddr>().is_err() {
                self.error(&pointer, "is not an IP address and a port, such as 0.0.0.0:8080 or [::]:8080");
            }
            if let Some(other) = addresses.insert(&listener.address, &listener.name) {
                self.error(&pointer, format!("the listener `{other}` has this address already"));
            }
            if listener.proxy_protocol && listener.trusted_proxies.is_empty() {
                self.error_with_help(
                    &format!("/listeners/{entry}/proxy_protocol"),
                    "needs `trusted_proxies`: whoever can connect could claim any address",
                    "name the addresses of the load balancers that send the PROXY header",
                );
            }
            let limits = config.limits.with(&listener.limits);
            self.limits(&format!("/listeners/{entry}"), &limits);
            let tls = match &listener.tls {
                None => None,
                // A listener whose TLS is wrong is not there at all, rather than without TLS.
                Some(tls) => match self.listener_tls(entry, listener, tls) {
                    Some(table) => Some(table),
                    None => continue,
                },
            };
            let state = ListenerState {
                name: listener.name.clone(),
                entry,
                limits,
                tls,
                http2: listener.speaks_http2(),
                trusted_proxies: listener.trusted_proxies.clone(),
                proxy_protocol: listener.proxy_protocol,
                metrics: self.around.metrics.listener(&listener.name),
            };
            known.insert(listener.address.clone(), Arc::new(state));
        }
        for (place, wrong) in telemetry::check(&config.telemetry, &self.loaded.sources) {
            self.error(place, wrong);
        }
        known
    }

    fn limits(&mut self, listener: &str, limits: &crate::config::limits::Limits) {
        let place = |key: &str| {
            let own = format!("{listener}/limits/{key}");
            if self.loaded.sources.has(&own) { own } else { format!("/limits/{key}") }
        };
        let zero = [
            ("request/header_bytes", limits.request.header_bytes.0),
            ("request/uri", limits.request.uri.0),
            ("client/header_deadline", u64::from(!limits.client.header_deadline.0.is_zero())),
            ("client/idle", u64::from(!limits.client.idle.0.is_zero())),
            ("http2/idle", u64::from(!limits.http2.idle.0.is_zero())),
            ("http2/stall", u64::from(!limits.http2.stall.0.is_zero())),
        ];
        let zero: Vec<String> = zero.iter().filter(|(_, value)| *value == 0).map(|(key, _)| place(key)).collect();
        // Pingora cannot read a larger header; a bound that it would undercut would not be applied.
        let over = (limits.request.header_bytes.0 > 1_000_000).then(|| place("request/header_bytes"));
        for pointer in zero {
            self.error(&pointer, "must be more than zero");
        }
        if let Some(pointer) = over {
            self.error(&pointer, "is more than 1000000 bytes, the largest header there can be");
        }
    }

    pub(super) fn runtime(&mut self) {
        if let Some(upgrade) = &self.loaded.config.runtime.upgrade
            && !Path::new(&upgrade.socket).is_absolute()
        {
            self.error("/runtime/upgrade/socket", "is not an absolute path");
        }
    }

    pub(super) fn admin(&mut self) {
        let Some(admin) = &self.loaded.config.admin else { return };
        match admin.address.strip_prefix("unix:") {
            Some(path) if Path::new(path).is_absolute() => {}
            Some(_) => self.error("/admin/address", "needs an absolute path after `unix:`"),
            None => match admin.address.parse::<SocketAddr>() {
                Ok(address) if address.ip().to_canonical().is_loopback() => {}
                Ok(_) => self.error_with_help(
                    "/admin/address",
                    "is not a loopback address",
                    "the admin listener speaks plain HTTP: bind it to 127.0.0.1 or to a socket with `unix:`, and use `probes` for the network",
                ),
                Err(_) => self.error("/admin/address", "is neither an IP address and a port, such as 127.0.0.1:9900, nor `unix:` and a path"),
            },
        }
        if admin.token.expose().len() < MIN_TOKEN {
            self.error("/admin/token", format!("is shorter than {MIN_TOKEN} characters"));
        }
        if !admin.token.expose().bytes().all(|b| b.is_ascii_graphic()) {
            self.error(
                "/admin/token",
                "holds characters that a header cannot carry: visible ASCII without spaces only",
            );
        }
        if let Some(probes) = &admin.probes
            && probes.address.parse::<SocketAddr>().is_err()
        {
            self.error("/admin/probes/address", "is not an IP address and a port, such as 0.0.0.0:9901");
        }
    }
}
