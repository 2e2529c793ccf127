use std::net::IpAddr;

use super::*;
use crate::testing::{build, ctx, refused, request, run};

async fn admits(yaml: &str, client: &str) -> bool {
    let plugin = build(yaml).unwrap();
    let mut ctx = ctx();
    ctx.client = client.parse().unwrap();
    // What the client says about itself plays no part.
    let mut req = request("GET", &[("X-Forwarded-For", "10.0.0.1"), ("X-Real-IP", "10.0.0.1")]);
    match run(&plugin, &mut req, &mut ctx).await {
        None => true,
        Some(reply) => {
            assert_eq!((reply.status.as_u16(), reply.code()), (403, Some("ip_denied")));
            false
        }
    }
}

#[tokio::test]
async fn only_the_allowed_come_in() {
    let yaml = "ip_allow: { allow: [10.0.0.0/8, 192.0.2.7, '2001:db8::/32'] }";
    for (client, expected) in [
        ("10.255.255.255", true),
        ("11.0.0.0", false),
        ("9.255.255.255", false),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("2001:db8:ffff::1", true),
        ("2001:db9::", false),
        ("::ffff:10.1.1.1", true),
        ("::1", false),
    ] {
        assert_eq!(admits(yaml, client).await, expected, "{client}");
    }
}

#[tokio::test]
async fn the_denied_stay_out_even_if_allowed() {
    let both = "ip_allow: { allow: [10.0.0.0/8], deny: [10.9.0.0/16, '::/0'] }";
    assert!(admits(both, "10.8.0.1").await);
    assert!(!admits(both, "10.9.0.1").await);
    let only = "ip_allow: { deny: [10.9.0.0/16, '::/0'] }";
    assert!(admits(only, "192.0.2.7").await);
    assert!(!admits(only, "10.9.255.255").await);
    assert!(!admits(only, "2001:db8::1").await);
}

#[tokio::test]
async fn a_network_of_mapped_addresses_is_an_ipv4_network() {
    let yaml = "ip_allow: { allow: ['::ffff:10.0.0.0/104'] }";
    assert!(admits(yaml, "10.1.2.3").await);
    assert!(!admits(yaml, "11.1.2.3").await);
}

#[test]
fn a_gate_without_networks_is_refused() {
    for yaml in ["ip_allow: {}", "ip_allow: { allow: [], deny: [] }"] {
        assert_eq!(refused(yaml).0, "");
    }
}

#[test]
fn ranges_agree_with_the_networks_they_come_from() {
    let networks: Vec<Network> = ["10.0.0.0/30", "10.0.0.4/31", "10.0.0.0/24", "10.0.1.0/32", "255.255.255.255"]
        .iter()
        .map(|n| Network::parse(n).unwrap())
        .collect();
    // Longer lists of shorter networks: every subset, so that merging is tried in many ways.
    for subset in 0..1_usize << networks.len() {
        let chosen: Vec<Network> =
            networks.iter().enumerate().filter(|(at, _)| subset >> at & 1 == 1).map(|(_, n)| *n).collect();
        let ranges = Ranges::of(&chosen);
        for bits in (0x0a00_0000_u32..0x0a00_0110).chain([0x09ff_ffff, u32::MAX - 1, u32::MAX, 0]) {
            let address = IpAddr::from(bits.to_be_bytes());
            assert_eq!(ranges.contains(address), chosen.iter().any(|n| n.contains(address)), "{address}");
        }
    }
}
