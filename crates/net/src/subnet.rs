//! An address with its prefix length: a network (`172.17.0.0/16`) or a host on one (`172.17.0.2/16`).
//!
//! Arithmetic is done on `u128`, with IPv4 in the low 32 bits, so that one code serves both
//! families. Two subnets of different families never contain or overlap one another.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Address and prefix length. The address may have host bits; [`Subnet::network`] clears them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no CIDR address. The wording is Go's `net.ParseCIDR`, which Docker passes on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid CIDR address: {0}")]
pub struct SubnetError(String);

impl Subnet {
    /// `None` when the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Subnet> {
        (prefix <= bits(address)).then_some(Subnet { address, prefix })
    }

    pub fn address(self) -> IpAddr {
        self.address
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    /// The same subnet without host bits.
    pub fn network(self) -> Subnet {
        Subnet {
            address: from_number(number(self.address) & !self.host_mask(), self.is_ipv4()),
            prefix: self.prefix,
        }
    }

    /// The same prefix around another address.
    ///
    /// # Panics
    /// When `address` is of the other family.
    pub fn with_address(self, address: IpAddr) -> Subnet {
        assert_eq!(address.is_ipv4(), self.is_ipv4(), "one family");
        Subnet { address, prefix: self.prefix }
    }

    /// First address, that of the network itself.
    pub fn first(self) -> IpAddr {
        self.network().address
    }

    /// Last address; the broadcast address of IPv4.
    pub fn last(self) -> IpAddr {
        from_number(number(self.address) | self.host_mask(), self.is_ipv4())
    }

    /// The address `offset` places after the first, if still inside.
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        (offset <= self.host_mask())
            .then(|| from_number(number(self.first()) + offset, self.is_ipv4()))
    }

    /// Place of `address` inside, counted from the first.
    pub fn offset_of(self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| number(address) - number(self.first()))
    }

    /// Number of addresses less one (so that ::/0 has a value).
    pub fn offset_max(self) -> u128 {
        self.host_mask()
    }

    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4()
            && number(address) & !self.host_mask() == number(self.first())
    }

    pub fn overlaps(self, other: Subnet) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }

    /// Whether all of `other` lies inside.
    pub fn covers(self, other: Subnet) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }

    fn host_mask(self) -> u128 {
        let host_bits = u32::from(bits(self.address) - self.prefix);
        if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 }
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address as a number.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_number(number: u128, ipv4: bool) -> IpAddr {
    if ipv4 {
        #[expect(clippy::cast_possible_truncation, reason = "callers stay inside an IPv4 subnet")]
        IpAddr::V4(Ipv4Addr::from_bits(number as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(number))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Subnet, SubnetError> {
        let wrong = || SubnetError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let address = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse().map_err(|_| wrong())?;
        Subnet::new(address, prefix).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Subnet, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn bounds_and_membership() {
        let net = subnet("172.17.5.9/16");
        assert_eq!(net.network(), subnet("172.17.0.0/16"));
        assert_eq!(net.first().to_string(), "172.17.0.0");
        assert_eq!(net.last().to_string(), "172.17.255.255");
        assert_eq!(net.nth(1).unwrap().to_string(), "172.17.0.1");
        assert_eq!(net.nth(65536), None);
        assert!(subnet("0.0.0.0/0").covers(net));
        assert!(!subnet("::/0").contains("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn what_is_no_subnet_is_refused_in_gos_words() {
        for wrong in ["", "1.2.3.4", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/+8", "x/8", "::/129"] {
            assert_eq!(
                wrong.parse::<Subnet>().unwrap_err().to_string(),
                format!("invalid CIDR address: {wrong}")
            );
        }
    }

    proptest! {
        #[test]
        fn overlap_is_symmetric_and_means_containment(a: u32, b: u32, p in 0u8..=32, q in 0u8..=32) {
            let x = Subnet::new(IpAddr::V4(a.into()), p).unwrap();
            let y = Subnet::new(IpAddr::V4(b.into()), q).unwrap();
            prop_assert_eq!(x.overlaps(y), y.overlaps(x));
            prop_assert_eq!(x.overlaps(y), x.network().covers(y.network()) || y.network().covers(x.network()));
        }
    }
}
