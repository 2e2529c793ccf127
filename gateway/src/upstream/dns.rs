//! Names to addresses, in the background: a request never waits for a resolver, and the last good answer stays in use.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};

use super::Pool;

/// How often a name that resolves is looked up again.
const REFRESH: Duration = Duration::from_secs(30);
/// First and longest wait after a lookup that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A resolver that has not answered by then counts as failed.
const LOOKUP: Duration = Duration::from_secs(10);
/// Addresses of one name that are used; more would be a resolver gone wrong.
const MAX_ADDRESSES: usize = 256;

/// One configured endpoint: a host, a port and a share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    host: String,
    port: u16,
    /// Share of each of its addresses.
    pub weight: u16,
    /// Host and port as `Host` shows them.
    pub authority: Arc<str>,
}

impl Member {
    /// Reads `host:port`; `default_port` is the one that `Host` need not show.
    pub fn parse(address: &str, weight: u16, default_port: u16) -> Result<Self, String> {
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
        let shown = if port == default_port { host.to_owned() } else { format!("{host}:{port}") };
        Ok(Self { host: bare.to_owned(), port, weight, authority: shown.into() })
    }

    /// Whether this is the same host and port.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }

    /// The address, if the host is one; nothing if it is a name.
    pub(super) fn literal(&self) -> Vec<SocketAddr> {
        self.host.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, self.port)).into_iter().collect()
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        let answer = tokio::time::timeout(LOOKUP, lookup).await.map_err(|_| "no answer in time".to_owned())?;
        let mut addresses: Vec<SocketAddr> = answer.map_err(|e| e.to_string())?.take(MAX_ADDRESSES).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() { Err("no address".into()) } else { Ok(addresses) }
    }
}

fn is_name(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

impl Pool {
    /// Starts resolving in the background, if there are names and it has not started. Ends with the pool.
    pub fn start(self: &Arc<Self>) {
        let has_names = self.members.iter().any(|m| m.literal().is_empty());
        if has_names && !self.started.swap(true, Ordering::AcqRel) {
            tokio::spawn(keep_resolved(Arc::downgrade(self)));
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

async fn keep_resolved(pool: Weak<Pool>) {
    let mut backoff = BACKOFF.0;
    loop {
        let Some(pool) = pool.upgrade() else { return };
        let complete = resolve_once(&pool).await;
        drop(pool);
        backoff = if complete { BACKOFF.0 } else { (backoff * 2).min(BACKOFF.1) };
        tokio::time::sleep(if complete { REFRESH } else { backoff }).await;
    }
}

/// One round over all members, at once: a name whose resolver hangs keeps no other waiting. Whether every name resolved.
async fn resolve_once(pool: &Pool) -> bool {
    let lookup = |(at, member): (usize, &Member)| {
        let member = member.clone();
        async move { (at, member.resolve().await, member) }
    };
    let mut lookups: FuturesUnordered<_> = pool.members.iter().enumerate().map(lookup).collect();
    let mut complete = true;
    while let Some((at, resolved, member)) = lookups.next().await {
        match resolved {
            Ok(addresses) => pool.learn(at, addresses),
            Err(error) => {
                complete = false;
                tracing::warn!(host = member.host, %error, "an endpoint's name does not resolve; its last addresses stay in use");
            }
        }
    }
    complete
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_hosts_with_ports() {
        let authority = |a: &str| Member::parse(a, 1, 443).map(|m| m.authority.to_string());
        assert_eq!(authority("erp-1.internal:8443").unwrap(), "erp-1.internal:8443");
        assert_eq!(authority("erp:443").unwrap(), "erp");
        assert_eq!(authority("[::1]:80").unwrap(), "[::1]:80");
        for wrong in ["erp", "erp:", "erp:0", "erp:65536", ":80", "::1:80", "a b:80", "http://erp:80", "[erp]:80"] {
            assert!(authority(wrong).is_err(), "{wrong}");
        }
    }
}
