//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): who really is at the other end of a connection
//! that a load balancer passes on.

use std::net::{IpAddr, SocketAddr};

use crossway_plugin_api::config::Network;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use ppp::{PartialResult as _, v1, v2};
use tokio::io::AsyncReadExt as _;

/// Longest header taken. What comes with an address (TLVs) is rarely more than a few hundred bytes.
const MAX_HEADER: usize = 4096;

/// Longest header of version 1, line break included.
const MAX_LINE: usize = 107;

/// The client and the address it meant, or nothing where the header names none: the load balancer speaks for itself.
type Told = Option<(SocketAddr, SocketAddr)>;

/// Reads the header that must come first, and leaves what follows it to be read. `None` if `peer` may not speak for
/// others, or what comes is no such header.
pub(super) async fn read(io: &mut L4Stream, peer: SocketAddr, trusted: &[Network]) -> Option<Told> {
    let peer = peer.ip().to_canonical();
    if !trusted.iter().any(|network| network.contains(peer)) {
        return None;
    }
    let mut bytes = Vec::with_capacity(256);
    loop {
        let mut piece = [0; 256];
        let read = io.read(&mut piece).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        match parse(&bytes)? {
            Parsed::Whole { length, told } => {
                io.rewind(&bytes[length..]);
                return Some(told);
            }
            Parsed::More if bytes.len() < MAX_HEADER => {}
            Parsed::More => return None,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Whole { length: usize, told: Told },
    More,
}

fn parse(bytes: &[u8]) -> Option<Parsed> {
    let begins = |prefix: &[u8]| bytes.starts_with(&prefix[..prefix.len().min(bytes.len())]);
    if begins(v2::PROTOCOL_PREFIX) {
        return match v2::Header::try_from(bytes) {
            Ok(header) => Some(Parsed::Whole { length: header.len(), told: addresses(&header)? }),
            Err(error) => error.is_incomplete().then_some(Parsed::More),
        };
    }
    if !begins(v1::PROTOCOL_PREFIX.as_bytes()) {
        return None;
    }
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return (bytes.len() < MAX_LINE).then_some(Parsed::More);
    };
    let line = &bytes[..=end];
    let told = match v1::Header::try_from(line).ok()?.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(a) => {
            Some((canonical(a.source_address, a.source_port), canonical(a.destination_address, a.destination_port)))
        }
        v1::Addresses::Tcp6(a) => {
            Some((canonical(a.source_address, a.source_port), canonical(a.destination_address, a.destination_port)))
        }
    };
    // The parser takes a port with a plus sign for a number.
    if told.is_some() && line.contains(&b'+') {
        return None;
    }
    Some(Parsed::Whole { length: line.len(), told })
}

/// The addresses of a version 2 header; `None` for a header that is not about a TCP connection, or whose TLVs do not add
/// up.
fn addresses(header: &v2::Header<'_>) -> Option<Told> {
    if header.tlvs().any(|tlv| tlv.is_err()) {
        return None;
    }
    if header.command == v2::Command::Local {
        return Some(None);
    }
    match (header.protocol, &header.addresses) {
        (v2::Protocol::Stream, v2::Addresses::IPv4(a)) => Some(Some((
            canonical(a.source_address, a.source_port),
            canonical(a.destination_address, a.destination_port),
        ))),
        (v2::Protocol::Stream, v2::Addresses::IPv6(a)) => Some(Some((
            canonical(a.source_address, a.source_port),
            canonical(a.destination_address, a.destination_port),
        ))),
        (v2::Protocol::Unspecified, v2::Addresses::Unspecified) => Some(None),
        _ => None,
    }
}

fn canonical(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into().to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn v2(rest: &[u8]) -> Vec<u8> {
        [V2, rest].concat()
    }

    fn told(bytes: &[u8]) -> Told {
        match parse(bytes) {
            Some(Parsed::Whole { told, .. }) => told,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_versions_tell_the_client() {
        let client: SocketAddr = "192.0.2.1:1234".parse().expect("an address");
        assert_eq!(told(b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 443\r\nGET").map(|t| t.0), Some(client));
        assert_eq!(told(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1234 443\r\n").map(|t| t.0), Some(client));
        assert_eq!(told(b"PROXY UNKNOWN\r\n"), None);
        let v4 = [&[0x21, 0x11, 0, 12][..], &[192, 0, 2, 1, 10, 0, 0, 1, 4, 0xD2, 1, 0xBB]].concat();
        assert_eq!(told(&v2(&v4)).map(|t| t.0), Some(client));
        assert_eq!(told(&v2(&[0x20, 0x00, 0, 0])), None, "LOCAL: a health check of the load balancer");
        let with_tlv = [&[0x21, 0x11, 0, 16][..], &v4[4..], &[4, 0, 1, 0]].concat();
        assert_eq!(told(&v2(&with_tlv)).map(|t| t.0), Some(client));
    }

    #[test]
    fn what_is_cut_off_is_waited_for() {
        for whole in [&b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 443\r\n"[..], &v2(&[0x20, 0x00, 0, 0])] {
            for end in 1..whole.len() {
                assert_eq!(parse(&whole[..end]), Some(Parsed::More), "{:?}", &whole[..end]);
            }
        }
    }

    #[test]
    fn everything_else_is_no_header() {
        let bad_tlv = [&[0x21, 0x11, 0, 14][..], &[192, 0, 2, 1, 10, 0, 0, 1, 4, 0xD2, 1, 0xBB], &[4, 0xFF]].concat();
        let udp = [&[0x21, 0x12, 0, 12][..], &[192, 0, 2, 1, 10, 0, 0, 1, 4, 0xD2, 1, 0xBB]].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1234\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 99999\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 +1234 443\r\n",
            b"PROXY TCP4 a 10.0.0.1 1234 443\r\n",
            b"PROXY TCP4  192.0.2.1 10.0.0.1 1234 443\r\n",
            b"proxy TCP4 192.0.2.1 10.0.0.1 1234 443\r\n",
            &[b"PROXY UNKNOWN ".as_slice(), &[b'a'; 200]].concat(),
            &v2(&[0x31, 0x11, 0, 12]),
            &v2(&[0x21, 0x11, 0, 4, 1, 2, 3, 4]),
            &v2(&bad_tlv),
            &v2(&udp),
        ] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
    }
}
