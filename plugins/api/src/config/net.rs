//! Networks.

use std::net::IpAddr;

use ipnet::IpNet;

/// An address or a network in CIDR notation (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(pub IpNet);

impl Network {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-network";

    /// Reads `10.0.0.0/8`, `2001:db8::/32` or a single address. Bits beyond the prefix must be zero: a network that
    /// says more than it covers is usually a slip.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WRONG: &str = "is not an address or a network such as 10.0.0.0/8";
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(IpNet::from(address.to_canonical())));
        }
        let net: IpNet = text.parse().map_err(|_| WRONG.to_owned())?;
        if net.trunc() != net {
            return Err(format!("has bits beyond its prefix: {} is the network", net.trunc()));
        }
        Ok(Self(net))
    }

    /// Whether the network holds this address; an IPv4-mapped IPv6 address counts as the IPv4 address it carries.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

super::text_default!(Network);
super::text_scalar!(Network, "An address, or a network in CIDR notation.", "10.0.0.0/8");
