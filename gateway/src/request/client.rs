//! The client's address behind trusted proxies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crossway_plugin_api::config::Network;

use super::octets::trim;

/// Most proxies followed.
const MAX_HOPS: usize = 32;

/// The address of the client: the peer's, or, where the peer is trusted, the rightmost untrusted one that the
/// `X-Forwarded-For` fields name, all of them taken in order as one list.
///
/// Each proxy appends the address it was called from, so only what trusted proxies have appended is believed. Something
/// that is no address ends the walk at the last good one, and so do 32 hops. Never an IPv4-mapped IPv6 address.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &[Network],
) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    for element in forwarded_for.rev().flat_map(|field| field.rsplit(|&b| b == b',')).take(MAX_HOPS) {
        let Some(address) = address(trim(element)) else { break };
        client = address.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// An address, with or without a port; IPv6 with or without brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    match text.parse::<SocketAddr>().ok()? {
        // A zone means nothing beyond the machine that wrote it.
        SocketAddr::V6(v6) if v6.scope_id() != 0 => None,
        socket => Some(socket.ip()),
    }
}
