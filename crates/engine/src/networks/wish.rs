//! What a container asks of one network, checked and read.
//!
//! Nothing is accepted and then ignored: what cannot be done is refused here.

use std::net::IpAddr;

use net::{Mac, Subnet};

use super::MemberSpec;
use super::record::{NetworkRecord, SubnetRecord};
use super::{publish, words};
use crate::containers::spec::{ContainerSpec, EndpointSpec};
use crate::error::{Error, Result};

pub(super) const IFNAME: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// Stands for the interface's name in the names of settings.
pub(super) const IFNAME_MARK: &str = "IFNAME";
/// Prefix lengths of the link-local ranges: moby `libnetwork/endpoint.go`.
const LINK_LOCAL_PREFIX4: u8 = 16;
const LINK_LOCAL_PREFIX6: u8 = 64;

/// Settings that turn IPv6 off for all interfaces of a container.
const IPV6_OFF: [&str; 2] =
    ["net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.default.disable_ipv6"];

/// What can be said at create. Networks need not exist yet; `find` gives those that do.
///
/// Source: moby 28.2 `daemon/create.go`, `validateNetworkingConfig`.
pub(super) fn validate<'a>(
    spec: &ContainerSpec,
    find: impl Fn(&str) -> Option<&'a NetworkRecord>,
) -> Result<()> {
    let mut mistakes = Vec::new();
    for (name, wish) in &spec.endpoints {
        if let Err(error) = check(name, find(name), wish) {
            mistakes.push(format!("invalid config for network {name}: {}", error.message));
        }
    }
    if !spec.mac_address.is_empty() && parse_mac(&spec.mac_address).is_none() {
        mistakes.push(format!("invalid MAC address {}", spec.mac_address));
    }
    if !mistakes.is_empty() {
        return Err(Error::invalid(words::listed(&mistakes)));
    }
    publish::wishes(MemberSpec::of(spec), None).map(drop)
}

/// Holds what a container asks of a network against the network, as far as it is known.
///
/// Source: moby 28.2 `daemon/container_operations.go` (`validateEndpointSettings`),
/// `api/types/network/endpoint.go`.
pub(super) fn check(name: &str, record: Option<&NetworkRecord>, wish: &EndpointSpec) -> Result<()> {
    let mut mistakes: Vec<String> = Vec::new();
    if is_predefined(name) {
        if !(wish.ipv4_address.is_empty() && wish.ipv6_address.is_empty()) {
            mistakes.push(words::ADDRESS_NEEDS_USER_NETWORK.to_owned());
        }
        if !wish.aliases.is_empty() {
            mistakes.push(words::ALIAS_NEEDS_USER_NETWORK.to_owned());
        }
    }
    let addresses = [(&wish.ipv4_address, true), (&wish.ipv6_address, false)];
    let wanted = || addresses.into_iter().filter(|(text, _)| !text.is_empty());
    for (text, ipv4) in wanted() {
        if parse_address(text, ipv4).is_none() {
            let family = if ipv4 { "IPv4" } else { "IPv6" };
            mistakes.push(format!("invalid {family} address: {text}"));
        }
    }
    mistakes.extend(link_local(wish).err().map(|error| error.message));
    for (text, ipv4) in wanted() {
        let Some(record) = record else { break };
        let subnet = record.subnet(ipv4).filter(|subnet| subnet.chosen);
        let inside = |subnet: &SubnetRecord| {
            parse_address(text, ipv4).is_some_and(|address| subnet.subnet.contains(address))
        };
        match subnet {
            None => mistakes.push(words::ADDRESS_NEEDS_CHOSEN_SUBNET.to_owned()),
            Some(subnet) if inside(subnet) => {}
            Some(_) => mistakes
                .push(format!("no configured subnet or ip-range contain the IP address {text}")),
        }
    }
    if !wish.mac_address.is_empty() && parse_mac(&wish.mac_address).is_none() {
        return Err(Error::invalid(format!("invalid MAC address {}", wish.mac_address)));
    }
    mistakes.extend(sysctls(wish).err().map(|error| error.message));
    mistakes.extend(options(wish));
    if mistakes.is_empty() {
        return Ok(());
    }
    let text = format!("invalid endpoint settings:\n{}", words::listed(&mistakes));
    Err(Error::invalid(text))
}

/// Docker's networks that are there by themselves, and what is none.
pub(super) fn is_predefined(name: &str) -> bool {
    matches!(name, "default" | "bridge" | "host" | "none") || name.starts_with("container:")
}

/// Options of the endpoint's driver that are wrong, or that we would have to ignore.
fn options(wish: &EndpointSpec) -> Vec<String> {
    let mut mistakes = Vec::new();
    if let Some(name) = wish.driver_opts.get(IFNAME)
        && !net::bridge::is_interface_name(name)
    {
        mistakes.push(format!("invalid interface name: {name}"));
    }
    for option in wish.driver_opts.keys() {
        // Labels of this form are the user's; those of Docker's own space mean something.
        let known = [IFNAME, SYSCTLS].contains(&option.as_str());
        if option.starts_with("com.docker.network.endpoint.") && !known {
            mistakes.push(format!("driver option {option} is not supported"));
        }
    }
    mistakes
}

/// Whether the container's settings, or those of this interface, turn IPv6 off.
pub(super) fn turns_ipv6_off(spec: MemberSpec<'_>, wish: &EndpointSpec) -> bool {
    let on = |value: &String| value.trim() != "0";
    let all = IPV6_OFF.iter().any(|key| spec.sysctls.get(*key).is_some_and(on));
    let own = format!("ipv6/conf/{IFNAME_MARK}/disable_ipv6");
    all || sysctls(wish)
        .is_ok_and(|settings| settings.iter().any(|(key, value)| *key == own && on(value)))
}

/// Whether a container's loopback has IPv6: unless its settings or the host's kernel have not.
pub(super) fn loopback_has_ipv6(spec: MemberSpec<'_>) -> bool {
    let off = |key: &str| {
        let name = format!("net.ipv6.conf.{key}.disable_ipv6");
        spec.sysctls.get(&name).is_some_and(|value| value.trim() != "0")
    };
    !off("all") && !off("lo") && std::path::Path::new("/proc/sys/net/ipv6").exists()
}

pub(super) fn parse_mac(text: &str) -> Option<Mac> {
    text.parse().ok()
}

/// An address of this family that an interface can have. As in Go, an IPv4 address in IPv6's
/// clothes is one of IPv4.
pub(super) fn parse_address(text: &str, ipv4: bool) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok()?.to_canonical();
    (address.is_ipv4() == ipv4 && !address.is_unspecified()).then_some(address)
}

/// Settings of the interface, as paths below `net/` with [`IFNAME_MARK`] in them, and their values:
/// `net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2`.
///
/// Source: moby 28.2 `daemon/container_operations.go`, `validateEndpointSettings`.
pub(super) fn sysctls(wish: &EndpointSpec) -> Result<Vec<(String, String)>> {
    let text = wish.driver_opts.get(SYSCTLS).map(String::as_str).unwrap_or_default();
    let wrong = |setting: &str| {
        Error::invalid(format!(
            "unrecognised network interface sysctl '{setting}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', \
             'X' must be 'ipv4', 'ipv6' or 'mpls'"
        ))
    };
    let mut found = Vec::new();
    for setting in text.split(',').filter(|setting| !setting.is_empty()) {
        let (name, value) = setting.split_once('=').ok_or_else(|| wrong(setting))?;
        let parts: Vec<&str> = name.split('.').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        match parts.as_slice() {
            // Docker's client sends all of the option in lower case.
            ["net", family @ ("ipv4" | "ipv6" | "mpls"), kind @ ("conf" | "neigh"), mark, key]
                if mark.eq_ignore_ascii_case(IFNAME_MARK) && plain(key) =>
            {
                found.push((format!("{family}/{kind}/{IFNAME_MARK}/{key}"), value.to_owned()));
            }
            _ => return Err(wrong(setting)),
        }
    }
    Ok(found)
}

/// Link-local addresses for the interface.
pub(super) fn link_local(wish: &EndpointSpec) -> Result<Vec<Subnet>> {
    let read = |text: &String| {
        let address: Option<IpAddr> = text.parse().ok();
        let subnet = address.filter(|address| !address.is_unspecified()).and_then(|address| {
            let prefix = if address.is_ipv4() { LINK_LOCAL_PREFIX4 } else { LINK_LOCAL_PREFIX6 };
            Some(Subnet::new(address, prefix)?.with_address(address))
        });
        subnet.ok_or_else(|| Error::invalid(format!("invalid link-local IP address: {text}")))
    };
    wish.link_local_ips.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: std::result::Result<&[(&str, &str)], &str>) {
        let driver_opts = [(SYSCTLS.to_owned(), text.to_owned())].into();
        let got = sysctls(&EndpointSpec { driver_opts, ..EndpointSpec::default() });
        let want = want.map(|list| {
            list.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect::<Vec<_>>()
        });
        assert_eq!(got.map_err(|error| error.message), want.map_err(str::to_owned));
    }

    #[test]
    fn settings_are_those_of_the_interface_alone() {
        check(
            "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.neigh.ifname.ucast_solicit=2",
            Ok(&[("ipv4/conf/IFNAME/log_martians", "1"), ("ipv6/neigh/IFNAME/ucast_solicit", "2")]),
        );
        for wrong in [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.forwarding=1",
            "net.ipv4.conf.IFNAME./../x=1",
            "kernel.hostname=x",
            "net.ipv4.conf.IFNAME.x",
        ] {
            let text = format!(
                "unrecognised network interface sysctl '{wrong}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', \
                 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            );
            check(wrong, Err(&text));
        }
    }

    #[test]
    fn link_local_addresses_have_their_ranges_prefix() {
        let wish = |text: &str| EndpointSpec {
            link_local_ips: vec![text.to_owned()],
            ..EndpointSpec::default()
        };
        let text = |text: &str| link_local(&wish(text)).map(|found| found[0].to_string());
        assert_eq!(text("169.254.8.9").unwrap(), "169.254.8.9/16");
        assert_eq!(text("fe80::7").unwrap(), "fe80::7/64");
        assert_eq!(text("x").unwrap_err().message, "invalid link-local IP address: x");
    }

    #[track_caller]
    fn refused(name: &str, change: impl FnOnce(&mut EndpointSpec), want: &str) {
        let mut wish = EndpointSpec::default();
        change(&mut wish);
        let text = super::check(name, None, &wish).unwrap_err().message;
        assert_eq!(text, want);
    }

    #[test]
    fn what_a_network_cannot_give_is_refused_in_dockers_words() {
        for name in ["bridge", "host", "none", "default"] {
            refused(
                name,
                |wish| wish.ipv4_address = "10.0.0.9".to_owned(),
                "invalid endpoint settings:\nuser specified IP address is supported on user defined networks only",
            );
            refused(
                name,
                |wish| wish.aliases = vec!["db".to_owned()],
                "invalid endpoint settings:\nnetwork-scoped alias is supported only for containers in user defined networks",
            );
        }
        for (text, family) in
            [("::ffff:172.28.99.99", "IPv6"), ("172.28.99.99", "IPv6"), ("::", "IPv6")]
        {
            let want = format!("invalid endpoint settings:\ninvalid {family} address: {text}");
            refused("n", |wish| wish.ipv6_address = text.to_owned(), &want);
        }
        refused(
            "n",
            |wish| {
                wish.ipv4_address = "0.0.0.0".to_owned();
                wish.ipv6_address = "x".to_owned();
            },
            "invalid endpoint settings:\n* invalid IPv4 address: 0.0.0.0\n* invalid IPv6 address: x",
        );
        refused("n", |wish| wish.mac_address = "x".to_owned(), "invalid MAC address x");
    }

    #[test]
    fn ipv6_is_off_where_any_setting_says_so() {
        let mut spec = ContainerSpec::default();
        let mut wish = EndpointSpec::default();
        assert!(!turns_ipv6_off(MemberSpec::of(&spec), &wish));
        let option = "net.ipv6.conf.IFNAME.disable_ipv6=1".to_owned();
        wish.driver_opts.insert(SYSCTLS.to_owned(), option);
        assert!(turns_ipv6_off(MemberSpec::of(&spec), &wish));
        for key in IPV6_OFF {
            spec.host.sysctls = [(key.to_owned(), "1".to_owned())].into();
            assert!(turns_ipv6_off(MemberSpec::of(&spec), &EndpointSpec::default()), "{key}");
            spec.host.sysctls = [(key.to_owned(), "0".to_owned())].into();
            assert!(!turns_ipv6_off(MemberSpec::of(&spec), &EndpointSpec::default()), "{key}");
        }
    }
}
