//! How many connections there may be, all together and from one client.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
};

use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};

/// Open files kept back for everything that is no client and no upstream: logs, listeners, the admin listener, files that
/// a reload reads.
const RESERVE: u64 = 64;
/// Most connections there are without being told otherwise.
const DEFAULT_MOST: u64 = 50_000;
const SHARDS: usize = 16;

/// Most idle connections to upstreams that a worker keeps.
const IDLE_MOST: u64 = 512;

/// Counts the connections of each client, and knows how many the process can bear.
pub struct Admission {
    /// What the limit of open files allows, one connection to an upstream for each client's.
    ceiling: u64,
    /// Files left for idle connections to upstreams.
    idle: u64,
    hasher: RandomState,
    clients: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

/// The place of one connection among its client's; given up when dropped.
pub struct Place<'a> {
    admission: &'a Admission,
    client: IpAddr,
}

impl Default for Admission {
    /// With the limit of open files that the process has now.
    fn default() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let shares = files.saturating_sub(RESERVE) / 5;
        Self {
            ceiling: (2 * shares).max(1),
            idle: shares,
            hasher: RandomState::new(),
            clients: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Admission {
    /// Most connections, when the configuration says this; 0 stands for as many as can be.
    pub fn most(&self, configured: u32) -> usize {
        let wanted = if configured == 0 { DEFAULT_MOST } else { u64::from(configured) };
        usize::try_from(wanted.min(self.ceiling)).unwrap_or(usize::MAX)
    }

    /// Most idle connections that each of so many pools may keep.
    pub fn idle(&self, pools: usize) -> usize {
        let each = self.idle / u64::try_from(pools).unwrap_or(u64::MAX).max(1);
        usize::try_from(each.clamp(1, IDLE_MOST)).unwrap_or(1)
    }

    /// Whether so many requests in flight are as many as there may be connections to upstreams. Only streams of HTTP/2 can
    /// outnumber the connections of clients.
    pub fn is_full(&self, in_flight: i64) -> bool {
        u64::try_from(in_flight).is_ok_and(|in_flight| in_flight >= self.ceiling)
    }

    /// A place for one more connection of this client, if it has fewer than `bound`; 0 for no bound.
    pub fn enter(&self, client: IpAddr, bound: u32) -> Option<Place<'_>> {
        let client = network(client);
        let mut clients = self.shard(client).lock();
        let count = clients.entry(client).or_default();
        if bound > 0 && *count >= bound {
            return None;
        }
        *count += 1;
        Some(Place { admission: self, client })
    }

    fn shard(&self, client: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        let hash = self.hasher.hash_one(client);
        &self.clients[usize::try_from(hash % SHARDS as u64).unwrap_or_default()]
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut clients = self.admission.shard(self.client).lock();
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// What counts as one client: a subscriber has 64 bits of IPv6 addresses to choose from.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        IpAddr::V4(address) => IpAddr::V4(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_client_has_its_own_bound_and_leaves_nothing_behind() {
        let admission = Admission::default();
        let one = admission.enter(ip("10.0.0.1"), 2);
        let two = admission.enter(ip("::ffff:10.0.0.1"), 2);
        assert!(one.is_some() && two.is_some());
        assert!(admission.enter(ip("10.0.0.1"), 2).is_none());
        assert!(admission.enter(ip("10.0.0.1"), 0).is_some(), "0 is no bound");
        assert!(admission.enter(ip("10.0.0.2"), 2).is_some());
        drop(one);
        assert!(admission.enter(ip("10.0.0.1"), 2).is_some());
        drop(two);
        assert!(admission.clients.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn a_network_of_64_bits_is_one_client() {
        let admission = Admission::default();
        let _one = admission.enter(ip("2001:db8::1"), 1);
        assert!(admission.enter(ip("2001:db8::ffff:1"), 1).is_none());
        assert!(admission.enter(ip("2001:db8:0:1::1"), 1).is_some());
    }

    #[test]
    fn no_more_connections_than_files() {
        let admission = Admission { ceiling: 100, ..Admission::default() };
        assert_eq!((admission.most(0), admission.most(50), admission.most(1000)), (100, 50, 100));
        assert_eq!((admission.is_full(99), admission.is_full(100)), (false, true));
    }

    #[test]
    fn idle_connections_share_what_is_left_for_them() {
        let admission = Admission { idle: 40, ..Admission::default() };
        assert_eq!((admission.idle(4), admission.idle(100), admission.idle(0)), (10, 1, 40));
        assert_eq!(Admission { idle: 1 << 40, ..admission }.idle(4), 512);
    }
}
