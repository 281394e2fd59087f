//! The default bridge: its record as the daemon's settings and the bridge's own addresses want it.
//!
//! A bridge that `--bridge` names is the user's: it must be there, its address is the gateway and
//! the subnet, and nothing of it is ever changed or removed but what we added. Without the option
//! the bridge is ours, made when it is needed.
//!
//! Source: moby 28.2 `daemon/daemon_unix.go` (`getDefaultBridgeIPAMConf`, `selectBIP`),
//! `libnetwork/drivers/bridge/setup_device_linux.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use net::Subnet;
use net::bridge;
use net::pool::{self, SubnetWish};
use sys::netlink::{Protocol, Socket};

use super::kernel::internal;
use super::record::{Driver, NetworkRecord};
use super::{GATEWAY_ASIDE, GATEWAY_ASIDE6, Shared, State, bare, create, words};
use crate::config::NetworkSettings;
use crate::error::{Error, Result};

/// Docker's own default bridge, which it makes even where `--bridge` names it.
const DOCKER_BRIDGE: &str = "docker0";

/// Whose a bridge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Us,
    User,
}

/// What the settings say about the addresses of one family.
#[derive(Debug, Clone, Copy, Default)]
struct Wish {
    /// `--bip`.
    address: Option<Subnet>,
    /// `--fixed-cidr`, with its host bits.
    range: Option<Subnet>,
}

/// Where a family's addresses come from. Without a subnet a free one is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Choice {
    subnet: Option<Subnet>,
    gateway: Option<IpAddr>,
    range: Option<Subnet>,
}

impl Shared {
    /// The default bridge's record, keeping id and automatic subnet.
    ///
    /// # Errors
    /// When the user's bridge is not there or is none, when the settings contradict its addresses,
    /// and when no subnet is free.
    pub(super) fn default_bridge(
        &self,
        state: &mut State,
        old: Option<&NetworkRecord>,
    ) -> Result<NetworkRecord> {
        let settings = &self.settings;
        check_settings(settings)?;
        let mut host = Socket::open(Protocol::Route).map_err(internal)?;
        let mut record = old.cloned().unwrap_or_else(|| bare("bridge", Driver::Bridge));
        record.interface = settings.bridge.clone().unwrap_or_else(|| self.instance.bridge.clone());
        let found = bridge::look(&mut host, &record.interface)
            .map_err(|error| words::no_default_bridge(&crate::error::chain(&error)))?;
        let before = old.filter(|old| old.interface == record.interface);
        record.adopted = self.whose(&record.interface, found.is_some(), before)?;
        if before.is_none() {
            record.added = Vec::new();
        }
        record.ipv6 = settings.ipv6;
        record.options = self.default_bridge_options(&record.interface);
        let owner = if settings.bridge.is_some() { Owner::User } else { Owner::Us };
        let pair =
            |pair: Option<(IpAddr, u8)>| pair.and_then(|(ip, prefix)| Subnet::new(ip, prefix));
        let addresses = found.unwrap_or_default();
        let mut subnets = Vec::new();
        for (ipv4, bip, range, gateway) in [
            (true, settings.bip, settings.fixed_cidr, settings.default_gateway),
            (false, settings.bip6, settings.fixed_cidr_v6, settings.default_gateway_v6),
        ] {
            if !ipv4 && !record.ipv6 {
                continue;
            }
            let wish = Wish { address: pair(bip), range: pair(range) };
            let choice = choose(ipv4, wish, &addresses, owner)?;
            let automatic =
                record.subnets.iter().find(|old| old.subnet.is_ipv4() == ipv4 && !old.chosen);
            let whole = match (choice.subnet, automatic) {
                (Some(whole), _) => whole,
                (None, Some(old)) => old.subnet,
                (None, None) => self.free_subnet(state, ipv4)?,
            };
            // What we gave our own bridge earlier is still a subnet that nobody chose.
            let kept = automatic.is_some_and(|old| old.subnet == whole);
            let chosen = choice.subnet.is_some()
                && (!kept || owner == Owner::User || bip.is_some() || range.is_some());
            let aside = if ipv4 { GATEWAY_ASIDE } else { GATEWAY_ASIDE6 };
            let wish = SubnetWish {
                subnet: None,
                range: choice.range.filter(|range| *range != whole),
                gateway: choice.gateway,
                // The bridge keeps its own address; containers go by this one.
                auxiliary: gateway.map(|ip| (aside.to_owned(), ip)).into_iter().collect(),
            };
            subnets.push(create::checked(whole, &wish, chosen)?);
        }
        record.subnets = subnets;
        if let Some(old) = old.filter(|old| old.interface != record.interface) {
            self.drop_own_bridge(&mut host, old)?;
        }
        Ok(record)
    }

    /// Whether the default bridge is the user's. Only ours may have to be made.
    fn whose(&self, name: &str, exists: bool, before: Option<&NetworkRecord>) -> Result<bool> {
        let own = name == self.instance.bridge;
        match exists {
            true if own => Ok(false),
            // Of another engine, unless we made it earlier.
            true if name == DOCKER_BRIDGE => Ok(before.is_none_or(|old| old.adopted)),
            true => Ok(true),
            false if own || name == DOCKER_BRIDGE => Ok(false),
            false => Err(words::no_default_bridge(&format!(
                "bridge device with non default name {name} must be created manually"
            ))),
        }
    }

    fn default_bridge_options(&self, interface: &str) -> BTreeMap<String, String> {
        let settings = &self.settings;
        let on = |yes: bool| yes.to_string();
        BTreeMap::from([
            ("com.docker.network.bridge.default_bridge".to_owned(), on(true)),
            ("com.docker.network.bridge.enable_icc".to_owned(), on(settings.icc)),
            (
                "com.docker.network.bridge.enable_ip_masquerade".to_owned(),
                on(settings.ip_masquerade),
            ),
            (
                "com.docker.network.bridge.host_binding_ipv4".to_owned(),
                settings.host_ip.map_or("0.0.0.0".to_owned(), |ip| ip.to_string()),
            ),
            ("com.docker.network.bridge.name".to_owned(), interface.to_owned()),
            ("com.docker.network.driver.mtu".to_owned(), settings.mtu.to_string()),
        ])
    }

    fn free_subnet(&self, state: &mut State, ipv4: bool) -> Result<Subnet> {
        let mut taken = state.subnets();
        taken.extend(self.host_subnets(state)?);
        pool::first_free(if ipv4 { &self.ranges4 } else { &self.ranges6 }, &taken)
            .ok_or_else(words::no_pool)
    }

    /// Removes the bridge that was the default one before, if it is ours and nobody is on it.
    pub(super) fn drop_own_bridge(&self, host: &mut Socket, old: &NetworkRecord) -> Result<()> {
        if old.interface != self.instance.bridge || old.adopted {
            return Ok(());
        }
        bridge::remove_unused(host, &old.interface).map_err(internal)
    }
}

/// Source: moby 28.2 `daemon/daemon_unix.go`, `verifyDaemonSettings`.
fn check_settings(settings: &NetworkSettings) -> Result<()> {
    let bridge = settings.bridge.is_some();
    for (both, flag) in [(settings.bip, "--bip"), (settings.bip6, "--bip6")] {
        if bridge && both.is_some() {
            return Err(Error::invalid(format!(
                "You specified -b & {flag}, mutually exclusive options. Please specify only one"
            )));
        }
    }
    Ok(())
}

/// Where a family's addresses come from.
fn choose(ipv4: bool, wish: Wish, addresses: &[Subnet], owner: Owner) -> Result<Choice> {
    let address = wish.address.or_else(|| select(ipv4, wish.range, addresses, owner));
    let mut range = wish.range.map(Subnet::network);
    let subnet = address.map(Subnet::network).or(range);
    if let (Some(fixed), Some(subnet), Owner::User) = (wish.range, address, owner) {
        let inside = subnet.contains(fixed.address()) && fixed.prefix() >= subnet.prefix();
        if !inside && !ipv4 {
            return Err(Error::invalid(format!(
                "fixed-cidr-v6={fixed} is outside any subnet implied by addresses on the user-managed default bridge"
            )));
        }
        if !inside {
            tracing::warn!(
                fixed_cidr = %fixed,
                subnet = %subnet.network(),
                "fixed-cidr is outside any subnet implied by addresses on the user-managed default bridge"
            );
            range = None;
        }
    }
    Ok(Choice { subnet, gateway: address.map(Subnet::address), range })
}

/// The bridge's address that is its gateway: one around the range, else one within it, else any.
fn select(ipv4: bool, range: Option<Subnet>, addresses: &[Subnet], owner: Owner) -> Option<Subnet> {
    let link_local =
        Subnet::new("fe80::".parse().expect("a literal address"), 64).expect("64 bits fit");
    let wanted = range.is_some_and(|range| link_local.contains(range.address()));
    let own = addresses.iter().copied().filter(|address| {
        address.is_ipv4() == ipv4 && (wanted || !link_local.contains(address.address()))
    });
    let own: Vec<Subnet> = own.collect();
    let mut chosen = *own.first()?;
    let Some(range) = range else { return Some(chosen) };
    for address in &own {
        if address.contains(range.address()) {
            chosen = *address;
            break;
        }
        if range.contains(address.address()) && !range.contains(chosen.address()) {
            chosen = *address;
        }
    }
    match owner {
        Owner::User => Some(chosen),
        // Our own bridge follows the settings.
        Owner::Us if !chosen.contains(range.address()) => None,
        Owner::Us if range.prefix() < chosen.prefix() => Some(range.with_address(chosen.address())),
        Owner::Us => Some(chosen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(owner: Owner, addresses: &[&str], bip: &str, range: &str, want: &str) {
        let read = |text: &str| (!text.is_empty()).then(|| text.parse::<Subnet>().unwrap());
        let addresses: Vec<Subnet> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let ipv4 = !want.contains("::") && !range.contains("::");
        let wish = Wish { address: read(bip), range: read(range) };
        let got = choose(ipv4, wish, &addresses, owner).map_or_else(
            |error| error.message,
            |choice| {
                let show = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
                format!(
                    "{} by {} from {}",
                    show(choice.subnet.map(|subnet| subnet.to_string())),
                    show(choice.gateway.map(|gateway| gateway.to_string())),
                    show(choice.range.map(|range| range.to_string())),
                )
            },
        );
        assert_eq!(got, want);
    }

    #[test]
    fn the_users_bridge_decides() {
        use Owner::User;
        check(User, &[], "", "", "- by - from -");
        check(User, &["10.77.0.1/24"], "", "", "10.77.0.0/24 by 10.77.0.1 from -");
        check(User, &["10.7.0.1/24", "10.8.0.1/24"], "", "", "10.7.0.0/24 by 10.7.0.1 from -");
        check(
            User,
            &["10.7.0.1/24", "10.8.0.1/24"],
            "",
            "10.8.0.64/28",
            "10.8.0.0/24 by 10.8.0.1 from 10.8.0.64/28",
        );
        check(
            User,
            &["10.7.0.1/24", "10.8.0.1/24"],
            "",
            "10.8.0.0/16",
            "10.8.0.0/24 by 10.8.0.1 from -",
        );
        check(User, &["10.7.0.1/24"], "", "10.9.0.0/24", "10.7.0.0/24 by 10.7.0.1 from -");
        check(User, &[], "", "10.9.0.0/24", "10.9.0.0/24 by - from 10.9.0.0/24");
        check(
            User,
            &["fe80::1/64", "fd00::1/64"],
            "",
            "fd00::/80",
            "fd00::/64 by fd00::1 from fd00::/80",
        );
        check(
            User,
            &["fd00::1/64"],
            "",
            "fd01::/80",
            "fixed-cidr-v6=fd01::/80 is outside any subnet implied by addresses on the user-managed default bridge",
        );
    }

    #[test]
    fn our_own_bridge_follows_the_settings() {
        use Owner::Us;
        check(Us, &["172.17.0.1/16"], "", "", "172.17.0.0/16 by 172.17.0.1 from -");
        check(Us, &["172.17.0.1/16"], "10.1.0.5/24", "", "10.1.0.0/24 by 10.1.0.5 from -");
        check(
            Us,
            &["10.1.2.3/16"],
            "",
            "10.1.22.0/24",
            "10.1.0.0/16 by 10.1.2.3 from 10.1.22.0/24",
        );
        check(Us, &["10.1.2.3/24"], "", "10.1.2.0/16", "10.1.0.0/16 by 10.1.2.3 from 10.1.0.0/16");
        check(Us, &["10.1.2.3/24"], "", "10.9.0.0/16", "10.9.0.0/16 by - from 10.9.0.0/16");
    }
}
