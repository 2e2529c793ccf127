//! Sets of addresses.

use std::net::IpAddr;

use crossway_plugin_api::config::Network;
use ipnet::IpNet;

/// Addresses as sorted ranges that do not touch: a question costs a binary search, however long the list was.
pub(super) struct Ranges {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Ranges {
    /// The addresses of all these networks.
    pub(super) fn of(networks: &[Network]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network.0 {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => match (net.network().to_ipv4_mapped(), net.broadcast().to_ipv4_mapped()) {
                    // IPv4 in IPv6 clothes: a client's address is never written so.
                    (Some(first), Some(last)) => v4.push((first.to_bits(), last.to_bits())),
                    _ => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
                },
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }

    /// Whether one of the networks holds this address.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => holds(&self.v4, address.to_bits()),
            IpAddr::V6(address) => holds(&self.v6, address.to_bits()),
        }
    }
}

/// Sorts the ranges and makes one of those that overlap.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(open) if first <= open.1 => open.1 = open.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged.into()
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], point: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= point);
    after.checked_sub(1).is_some_and(|at| point <= ranges[at].1)
}
