//! Address pools of networks, and the leases of addresses on one network. Pure.
//!
//! A network created without a subnet takes the first pool that overlaps nothing in use, neither
//! another network nor a route of the host. On a network the lowest free address is leased, so a
//! stopped container's address is the next one's.
//!
//! Source: moby v28 `libnetwork/ipamutils`, `libnetwork/ipams/defaultipam`, `daemon/network.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use crate::Subnet;
use crate::mac::random_bytes;

/// A range that is cut into pools of `size` prefix bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolRange {
    pub base: Subnet,
    pub size: u8,
}

/// Docker's pools of IPv4: 172.17/16 … 172.31/16, then 192.168/16 in pieces of /20.
pub fn default_ranges() -> Vec<PoolRange> {
    let range =
        |base: &str, size| PoolRange { base: base.parse().expect("a literal subnet"), size };
    [
        "172.17.0.0/16",
        "172.18.0.0/16",
        "172.19.0.0/16",
        "172.20.0.0/14",
        "172.24.0.0/14",
        "172.28.0.0/14",
    ]
    .into_iter()
    .map(|base| range(base, 16))
    .chain([range("192.168.0.0/16", 20)])
    .collect()
}

/// The range that IPv6 pools of /64 come from: `fd` and forty bits made from the host's id, so
/// that networks keep their range over a restart and hosts differ (RFC 4193).
pub fn local_ipv6_range(host_id: Option<[u8; 5]>) -> PoolRange {
    let global = host_id.unwrap_or_else(|| {
        let mut bytes = [0; 5];
        random_bytes(&mut bytes);
        bytes
    });
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&global);
    let base = Subnet::new(Ipv6Addr::from(octets).into(), 48).expect("48 bits fit");
    PoolRange { base, size: 64 }
}

/// The first pool of the ranges that overlaps nothing of `taken`.
pub fn first_free(ranges: &[PoolRange], taken: &[Subnet]) -> Option<Subnet> {
    ranges.iter().find_map(|range| free_in(*range, taken))
}

fn free_in(range: PoolRange, taken: &[Subnet]) -> Option<Subnet> {
    let size = range.size.max(range.base.prefix());
    let mut candidate = Subnet::new(range.base.first(), size)?;
    loop {
        // Jumping behind the obstacle, not to the next pool, keeps a /48 full of taken pools cheap.
        let Some(obstacle) = taken.iter().find(|other| other.overlaps(candidate)) else {
            return Some(candidate);
        };
        let past = if obstacle.prefix() < size { obstacle.last() } else { candidate.last() };
        let offset = range.base.offset_of(past)?.checked_add(1)?;
        candidate = Subnet::new(range.base.nth(offset)?, size)?;
    }
}

/// One address family's settings on a network, as the user gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetWish {
    pub subnet: Option<Subnet>,
    pub range: Option<Subnet>,
    pub gateway: Option<IpAddr>,
    /// Addresses that are not leased, by the names that say whose they are.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// Why settings or a request for an address are refused. Texts are Docker's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PoolError {
    #[error("invalid subnet {subnet}: it should be {network}")]
    HostBits { subnet: Subnet, network: Subnet },
    #[error("invalid subnet {0}: no address is left for a container")]
    TooSmall(Subnet),
    #[error("invalid ip-range {range}: it should be {network}")]
    RangeHostBits { range: Subnet, network: Subnet },
    #[error("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range")]
    RangeOutside { range: Subnet, subnet: Subnet },
    #[error("invalid ip-range {0}: no subnet is given")]
    RangeAlone(Subnet),
    #[error("invalid gateway {gateway}: parent subnet {subnet} doesn't contain this address")]
    GatewayOutside { gateway: IpAddr, subnet: Subnet },
    #[error(
        "invalid auxiliary address {address}: parent subnet {subnet} doesn't contain this address"
    )]
    AuxiliaryOutside { address: IpAddr, subnet: Subnet },
    #[error("Address already in use")]
    InUse,
    #[error("no available IPv4 addresses on this network's address pools")]
    Exhausted,
    #[error("all predefined address pools have been fully subnetted")]
    NoPool,
    #[error("Pool overlaps with other one on this address space")]
    Overlaps,
    #[error("invalid address {address}: It does not belong to any of this network's subnets")]
    Foreign { address: IpAddr },
}

/// The addresses of one subnet and who has which. `O` names an owner.
#[derive(Clone, Debug)]
pub struct Leases<O> {
    subnet: Subnet,
    range: Subnet,
    gateway: Option<IpAddr>,
    reserved: BTreeSet<IpAddr>,
    leased: BTreeMap<IpAddr, O>,
}

impl<O: PartialEq> Leases<O> {
    /// Checks the wish against its own subnet. Without a wished gateway the first usable address of
    /// the range, else of the subnet, is the gateway's.
    pub fn new(subnet: Subnet, wish: &SubnetWish) -> Result<Leases<O>, PoolError> {
        if subnet != subnet.network() {
            return Err(PoolError::HostBits { subnet, network: subnet.network() });
        }
        if subnet.offset_max() < 3 {
            return Err(PoolError::TooSmall(subnet));
        }
        let range = match wish.range {
            None => subnet,
            Some(range) if range != range.network() => {
                return Err(PoolError::RangeHostBits { range, network: range.network() });
            }
            Some(range) if !subnet.covers(range) => {
                return Err(PoolError::RangeOutside { range, subnet });
            }
            Some(range) => range,
        };
        for &address in wish.auxiliary.values() {
            if !subnet.contains(address) {
                return Err(PoolError::AuxiliaryOutside { address, subnet });
            }
        }
        let mut reserved: BTreeSet<IpAddr> = wish.auxiliary.values().copied().collect();
        reserved.insert(subnet.first());
        if subnet.is_ipv4() {
            reserved.insert(subnet.last());
        }
        let mut leases = Leases { subnet, range, gateway: None, reserved, leased: BTreeMap::new() };
        let gateway = match wish.gateway {
            Some(gateway) if !subnet.contains(gateway) => {
                return Err(PoolError::GatewayOutside { gateway, subnet });
            }
            Some(gateway) => gateway,
            None => leases.lowest_free().ok_or(PoolError::Exhausted)?,
        };
        leases.gateway = Some(gateway);
        leases.reserved.insert(gateway);
        Ok(leases)
    }

    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Where addresses that nobody asks for by number come from.
    pub fn range(&self) -> Subnet {
        self.range
    }

    /// # Panics
    /// Never: `new` sets it.
    pub fn gateway(&self) -> IpAddr {
        self.gateway.expect("set by new")
    }

    /// Leases `wanted`, or the lowest free address.
    pub fn lease(&mut self, wanted: Option<IpAddr>, owner: O) -> Result<IpAddr, PoolError> {
        let address = match wanted {
            Some(address) if !self.subnet.contains(address) => {
                return Err(PoolError::Foreign { address });
            }
            Some(address) if !self.is_free(address) => return Err(PoolError::InUse),
            Some(address) => address,
            None => self.lowest_free().ok_or(PoolError::Exhausted)?,
        };
        self.leased.insert(address, owner);
        Ok(address)
    }

    /// Ends the owner's lease of an address; that of another owner stays.
    pub fn release(&mut self, address: IpAddr, owner: &O) {
        if self.leased.get(&address) == Some(owner) {
            self.leased.remove(&address);
        }
    }

    pub fn is_unused(&self) -> bool {
        self.leased.is_empty()
    }

    fn is_free(&self, address: IpAddr) -> bool {
        !self.reserved.contains(&address) && !self.leased.contains_key(&address)
    }

    /// Leases are dense from the bottom, so this looks at one candidate more than are leased.
    fn lowest_free(&self) -> Option<IpAddr> {
        (0..=self.range.offset_max())
            .map_while(|offset| self.range.nth(offset))
            .find(|&address| self.is_free(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn leases(text: &str) -> Leases<u32> {
        Leases::new(subnet(text), &SubnetWish::default()).unwrap()
    }

    #[test]
    fn pools_come_in_dockers_order() {
        let mut taken = Vec::new();
        while let Some(pool) = first_free(&default_ranges(), &taken) {
            taken.push(pool);
        }
        assert_eq!(taken.len(), 15 + 16);
        assert_eq!(taken[0], subnet("172.17.0.0/16"));
        assert_eq!(taken[14], subnet("172.31.0.0/16"));
        assert_eq!(taken[15], subnet("192.168.0.0/20"));
        assert_eq!(taken[30], subnet("192.168.240.0/20"));
    }

    #[test]
    fn routes_of_the_host_are_skipped() {
        let taken = [subnet("172.17.42.0/24"), subnet("172.18.0.0/15")];
        assert_eq!(first_free(&default_ranges(), &taken), Some(subnet("172.20.0.0/16")));
        assert_eq!(first_free(&default_ranges(), &[subnet("0.0.0.0/0")]), None);
    }

    #[test]
    fn ipv6_pools_are_sixty_fours_of_one_forty_eight() {
        let range = local_ipv6_range(Some([1, 2, 3, 4, 5]));
        let first = first_free(&[range], &[]).unwrap();
        assert_eq!(first, subnet("fd01:203:405::/64"));
        assert_eq!(first_free(&[range], &[first]), Some(subnet("fd01:203:405:1::/64")));
    }

    #[test]
    fn the_lowest_free_address_is_reused() {
        let mut leases = leases("172.17.0.0/16");
        assert_eq!(leases.gateway().to_string(), "172.17.0.1");
        let two = leases.lease(None, 1).unwrap();
        let three = leases.lease(None, 2).unwrap();
        assert_eq!(
            (two.to_string(), three.to_string()),
            ("172.17.0.2".into(), "172.17.0.3".into())
        );
        leases.release(two, &9);
        assert_eq!(leases.lease(Some(two), 3), Err(PoolError::InUse));
        leases.release(two, &1);
        assert_eq!(leases.lease(None, 3), Ok(two));
    }

    #[test]
    fn wishes_are_held_against_the_subnet() {
        let wish = |range: Option<&str>, gateway: Option<&str>| SubnetWish {
            range: range.map(subnet),
            gateway: gateway.map(|text| text.parse().unwrap()),
            ..SubnetWish::default()
        };
        check(&wish(Some("10.0.1.0/24"), None), Ok("10.0.1.0"));
        check(&wish(None, Some("10.0.9.9")), Ok("10.0.9.9"));
        check(
            &wish(Some("11.0.0.0/24"), None),
            Err("invalid ip-range 11.0.0.0/24: parent subnet 10.0.0.0/16 doesn't contain ip-range"),
        );
        check(
            &wish(None, Some("11.0.0.1")),
            Err("invalid gateway 11.0.0.1: parent subnet 10.0.0.0/16 doesn't contain this address"),
        );
    }

    #[track_caller]
    fn check(wish: &SubnetWish, want: Result<&str, &str>) {
        let got = Leases::<u32>::new(subnet("10.0.0.0/16"), wish)
            .map(|leases| leases.gateway().to_string())
            .map_err(|error| error.to_string());
        assert_eq!(got, want.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn a_full_network_says_so() {
        let mut leases = leases("10.0.0.0/29");
        for owner in 0..5 {
            leases.lease(None, owner).unwrap();
        }
        assert_eq!(leases.lease(None, 9), Err(PoolError::Exhausted));
    }

    proptest! {
        #[test]
        fn a_pool_never_overlaps_what_is_taken(taken in proptest::collection::vec((any::<u32>(), 8u8..=32), 0..8)) {
            let taken: Vec<Subnet> = taken.into_iter()
                .map(|(bits, prefix)| Subnet::new(IpAddr::V4((bits & 0x0fff_ffff | 0xa000_0000).into()), prefix).unwrap())
                .collect();
            if let Some(pool) = first_free(&default_ranges(), &taken) {
                prop_assert!(taken.iter().all(|other| !other.overlaps(pool)));
            }
        }

        #[test]
        fn leases_are_distinct_and_inside(operations in proptest::collection::vec((any::<bool>(), 0u32..20), 0..100)) {
            let mut leases = leases("10.0.0.0/27");
            let mut held: BTreeMap<u32, IpAddr> = BTreeMap::new();
            for (take, owner) in operations {
                if take && !held.contains_key(&owner) {
                    if let Ok(address) = leases.lease(None, owner) {
                        prop_assert!(leases.subnet().contains(address) && address != leases.gateway());
                        prop_assert!(held.values().all(|other| *other != address));
                        held.insert(owner, address);
                    }
                } else if let Some(address) = held.remove(&owner) {
                    leases.release(address, &owner);
                }
            }
        }
    }
}
