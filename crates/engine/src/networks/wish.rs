//! What a container asks of one network, checked and read.
//!
//! Nothing is accepted and then ignored: what cannot be done is refused here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use net::{Mac, Subnet};

use super::record::NetworkRecord;
use super::{publish, words};
use crate::containers::spec::{ContainerSpec, EndpointSpec, NetworkMode};
use crate::error::{Error, Result};

pub(super) const IFNAME: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// Stands for the interface's name in the names of settings.
pub(super) const IFNAME_MARK: &str = "IFNAME";
/// Prefix lengths of the link-local ranges: moby `libnetwork/endpoint.go`.
const LINK_LOCAL_PREFIX4: u8 = 16;
const LINK_LOCAL_PREFIX6: u8 = 64;

/// The rules that need no network to exist.
pub(super) fn validate(spec: &ContainerSpec) -> Result<()> {
    let mode = &spec.host.network;
    match mode {
        NetworkMode::Container(_) | NetworkMode::Host if spec.endpoints.len() > 1 => {
            return Err(words::shares_namespace());
        }
        NetworkMode::None if spec.endpoints.len() > 1 => return Err(words::none_mode_alone()),
        NetworkMode::Bridge
        | NetworkMode::Host
        | NetworkMode::None
        | NetworkMode::Container(_)
        | NetworkMode::Named(_) => {}
    }
    for (name, wish) in &spec.endpoints {
        validate_wish(matches!(name.as_str(), "bridge" | "default"), wish)?;
    }
    if !spec.mac_address.is_empty() {
        parse_mac(&spec.mac_address)?;
    }
    publish::wishes(spec, None).map(drop)
}

pub(super) fn validate_wish(default_bridge: bool, wish: &EndpointSpec) -> Result<()> {
    if default_bridge && !(wish.ipv4_address.is_empty() && wish.ipv6_address.is_empty()) {
        return Err(words::address_needs_user_network());
    }
    if default_bridge && !wish.aliases.is_empty() {
        return Err(words::alias_needs_user_network());
    }
    for (text, family) in [(&wish.ipv4_address, "IPv4"), (&wish.ipv6_address, "IPv6")] {
        parse_address(text, family)?;
    }
    if !wish.mac_address.is_empty() {
        parse_mac(&wish.mac_address)?;
    }
    if let Some(name) = wish.driver_opts.get(IFNAME)
        && !net::bridge::is_interface_name(name)
    {
        return Err(Error::invalid(format!("invalid interface name: {name}")));
    }
    for option in wish.driver_opts.keys() {
        // Labels of this form are the user's; those of Docker's own space mean something.
        let known = [IFNAME, SYSCTLS].contains(&option.as_str());
        if option.starts_with("com.docker.network.endpoint.") && !known {
            return Err(Error::invalid(format!("driver option {option} is not supported")));
        }
    }
    sysctls(wish)?;
    link_local(wish).map(drop)
}

pub(super) fn parse_mac(text: &str) -> Result<Mac> {
    text.parse().map_err(|error: net::mac::MacError| Error::invalid(error.to_string()))
}

pub(super) fn parse_address(text: &str, family: &str) -> Result<Option<IpAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || Error::invalid(format!("invalid {family} address: {text}"));
    let address = match family {
        "IPv4" => text.parse::<Ipv4Addr>().map_err(|_| wrong())?.into(),
        _ => text.parse::<Ipv6Addr>().map_err(|_| wrong())?.into(),
    };
    Ok(Some(address))
}

/// Addresses are given on request only in subnets that the user chose.
pub(super) fn validate_subnets(record: &NetworkRecord, wish: &EndpointSpec) -> Result<()> {
    for (text, ipv4) in [(&wish.ipv4_address, true), (&wish.ipv6_address, false)] {
        if !text.is_empty() && record.subnet(ipv4).is_none_or(|subnet| !subnet.chosen) {
            return Err(words::address_needs_chosen_subnet());
        }
    }
    Ok(())
}

/// Settings of the interface, as paths below `net/` with [`IFNAME_MARK`] in them, and their values:
/// `net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2`.
///
/// Source: Docker's manual, "docker network connect", "Sysctl settings for a container's interface".
pub(super) fn sysctls(wish: &EndpointSpec) -> Result<Vec<(String, String)>> {
    let text = wish.driver_opts.get(SYSCTLS).map(String::as_str).unwrap_or_default();
    let wrong = |setting: &str| Error::invalid(format!("invalid sysctl setting '{setting}'"));
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
            check(wrong, Err(&format!("invalid sysctl setting '{wrong}'")));
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
}
