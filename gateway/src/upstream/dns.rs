//! Names to addresses, in the background: a request never waits for a resolver, and the last good answer stays in use.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use futures_util::StreamExt as _;

use super::{
    Pool,
    names::{Answer, Names, Service},
};

/// First and longest wait after a lookup that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Addresses of one name that are used; more would be a resolver gone wrong.
const MAX_ADDRESSES: usize = 256;
/// Hosts of a service that are looked up at once.
const AT_ONCE: usize = 8;

/// A place that a name has resolved to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Where it is.
    pub address: SocketAddr,
    /// Its share among the places of its name.
    pub weight: u16,
    /// Lower is used first.
    pub priority: u16,
    /// What `Host` shows, where that is not what the configuration says.
    pub authority: Option<Arc<str>>,
}

impl Place {
    fn plain(address: SocketAddr) -> Self {
        Self { address, weight: 1, priority: 0, authority: None }
    }
}

/// One configured endpoint: a host, a port and a share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    host: String,
    /// Of a service the one that `Host` need not show.
    port: u16,
    is_service: bool,
    /// Share of each of its addresses; 0 drains them.
    pub weight: u16,
    /// Lower is used first.
    pub priority: u8,
    /// Host and port as `Host` shows them.
    pub authority: Arc<str>,
}

impl Member {
    /// Reads `host:port`; `default_port` is the one that `Host` need not show.
    pub fn parse(address: &str, default_port: u16) -> Result<Self, String> {
        const WRONG: &str = "is not a host and port such as erp-1.internal:8443";
        let (host, port) = address.rsplit_once(':').ok_or(WRONG)?;
        let port: u16 = port.parse().ok().filter(|p| *p != 0).ok_or(WRONG)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let bracketed = bare.len() != host.len();
        let good = match bare.parse::<IpAddr>() {
            Ok(address) => address.is_ipv6() == bracketed,
            Err(_) => !bracketed && is_name(host),
        };
        if !good {
            return Err(WRONG.into());
        }
        let authority = shown(host, port, default_port).into();
        Ok(Self { host: bare.to_owned(), port, is_service: false, weight: 1, priority: 0, authority })
    }

    /// Reads the name of a service, such as `_http._tcp.erp.internal` (RFC 2782).
    pub fn service(name: &str, default_port: u16) -> Result<Self, String> {
        let mut labels = name.split('.');
        let is_label = |label: Option<&str>| label.is_some_and(|label| label.len() > 1 && label.starts_with('_'));
        if !(is_label(labels.next()) && is_label(labels.next()) && labels.next().is_some() && is_name(name)) {
            return Err("is not the name of a service such as _http._tcp.erp.internal".into());
        }
        let host = name.to_owned();
        Ok(Self { host, port: default_port, is_service: true, weight: 1, priority: 0, authority: name.into() })
    }

    /// The same with this share and priority.
    #[must_use]
    pub fn with(self, weight: u16, priority: u8) -> Self {
        Self { weight, priority, ..self }
    }

    pub(super) fn weight_of(&self, place: &Place) -> u32 {
        u32::from(self.weight) * u32::from(place.weight)
    }

    pub(super) fn priority_of(&self, place: &Place) -> (u8, u16) {
        (self.priority, place.priority)
    }

    pub(super) fn authority_of<'a>(&'a self, place: &'a Place) -> &'a str {
        place.authority.as_ref().unwrap_or(&self.authority)
    }

    /// Whether this is the same host and port.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        (&self.host, self.port, self.is_service) == (&other.host, other.port, other.is_service)
    }

    /// The address, if the host is one; nothing if it is a name.
    pub(super) fn literal(&self) -> Vec<Place> {
        self.host.parse::<IpAddr>().map(|ip| Place::plain(SocketAddr::new(ip, self.port))).into_iter().collect()
    }

    /// The places of this name now, and how long they may be used. `known` are the last ones.
    async fn resolve(&self, names: &Names, known: &[Place]) -> Answer<Place> {
        let (mut places, used) = if self.is_service {
            self.resolve_service(names, known).await?
        } else {
            let (addresses, used) = names.addresses(&self.host).await?;
            (addresses.into_iter().map(|ip| Place::plain(SocketAddr::new(ip, self.port))).collect(), used)
        };
        places.sort_unstable();
        places.dedup_by_key(|place| place.address);
        places.truncate(MAX_ADDRESSES);
        Ok((places, used))
    }

    /// The addresses of every host that serves. Those of a host that does not resolve stay in use.
    async fn resolve_service(&self, names: &Names, known: &[Place]) -> Answer<Place> {
        let (mut services, used) = names.services(&self.host).await?;
        services.truncate(MAX_ADDRESSES);
        let lookup = |service: Service| async move { (names.addresses(&service.host).await, service) };
        let mut lookups = futures_util::stream::iter(services.into_iter().map(lookup)).buffer_unordered(AT_ONCE);
        let (mut places, mut soonest, mut last) = (Vec::new(), used, None);
        while let Some((answer, service)) = lookups.next().await {
            let authority: Arc<str> = shown(&service.host, service.port, self.port).into();
            match answer {
                Ok((addresses, used)) => {
                    soonest = soonest.min(used);
                    places.extend(addresses.into_iter().map(|ip| Place {
                        address: SocketAddr::new(ip, service.port),
                        weight: service.weight.max(1),
                        priority: service.priority,
                        authority: Some(Arc::clone(&authority)),
                    }));
                }
                Err(error) => {
                    let stays = known.iter().filter(|place| place.authority.as_ref() == Some(&authority));
                    places.extend(stays.cloned());
                    (soonest, last) = (soonest.min(BACKOFF.1), Some(error));
                }
            }
        }
        match last.filter(|_| places.is_empty()) {
            Some(error) => Err(error),
            None => Ok((places, soonest)),
        }
    }
}

/// Host and port as `Host` shows them.
fn shown(host: &str, port: u16, default_port: u16) -> String {
    if port == default_port { host.to_owned() } else { format!("{host}:{port}") }
}

fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

impl Pool {
    /// Starts resolving in the background, if there are names and it has not started. Ends with the pool.
    pub fn start(self: &Arc<Self>) {
        let is_name = |member: &Member| member.literal().is_empty();
        if self.members.iter().any(is_name) && !self.started.swap(true, Ordering::AcqRel) {
            // Each on its own: a name whose resolver hangs keeps no other waiting.
            for at in (0..self.members.len()).filter(|at| is_name(&self.members[*at])) {
                tokio::spawn(keep_resolved(Arc::downgrade(self), at));
            }
        }
    }

    /// Waits until there is an endpoint, at most `patience`.
    pub async fn wait_resolved(&self, patience: Duration) {
        let wait = async {
            loop {
                let notified = self.resolved.notified();
                if self.is_resolved() {
                    return;
                }
                notified.await;
            }
        };
        let _ = tokio::time::timeout(patience, wait).await;
    }
}

async fn keep_resolved(pool: Weak<Pool>, at: usize) {
    let mut backoff = BACKOFF.0;
    let mut has_failed = false;
    loop {
        let Some(pool) = pool.upgrade() else { return };
        let Some(member) = pool.members.get(at) else { return };
        let rest = match member.resolve(pool.names(), &pool.known(at)).await {
            Ok((places, used)) => {
                if has_failed {
                    tracing::info!(host = member.host, "an endpoint's name resolves again");
                }
                (has_failed, backoff) = (false, BACKOFF.0);
                pool.learn(at, places);
                used
            }
            Err(error) => {
                tracing::warn!(host = member.host, %error, "an endpoint's name does not resolve; its last addresses stay in use");
                has_failed = true;
                backoff = (backoff * 2).min(BACKOFF.1);
                backoff
            }
        };
        drop(pool);
        tokio::time::sleep(rest).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_hosts_with_ports() {
        let authority = |a: &str| Member::parse(a, 443).map(|m| m.authority.to_string());
        assert_eq!(authority("erp-1.internal:8443").unwrap(), "erp-1.internal:8443");
        assert_eq!(authority("erp:443").unwrap(), "erp");
        assert_eq!(authority("erp_1.internal.:443").unwrap(), "erp_1.internal.");
        assert!(authority(&format!("{}:80", "a".repeat(64))).is_err());
        assert_eq!(authority("[::1]:80").unwrap(), "[::1]:80");
        for wrong in [
            "erp",
            "erp:",
            "erp:0",
            "erp:65536",
            ":80",
            "::1:80",
            "a b:80",
            "http://erp:80",
            "[erp]:80",
            "a..b:80",
            ".:80",
        ] {
            assert!(authority(wrong).is_err(), "{wrong}");
        }
    }
    #[test]
    fn services_have_names_of_their_own() {
        for good in ["_http._tcp.erp.internal", "_erp-api._tcp.x"] {
            assert!(Member::service(good, 80).unwrap().literal().is_empty());
        }
        for wrong in
            ["", "erp.internal", "_http.erp.internal", "_http._tcp", "_._tcp.x", "_http._tcp.a b", "_a._b.x:80"]
        {
            assert!(Member::service(wrong, 80).is_err(), "{wrong}");
        }
    }
}
