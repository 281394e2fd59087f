//! Making networks: the request checked, subnets chosen, the record built. Touches no kernel.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use net::Subnet;
use net::pool::{self, Leases, PoolRange, SubnetWish};
use spec::Id;

use super::publish::HOST_BINDING;
use super::record::{Driver, IdleSubnet, NetworkRecord, SubnetRecord, dummy_name};
use super::view::{NetworkRequest, SubnetRequest};
use super::wish::is_predefined;
use super::words;
use crate::error::{Error, Result};

/// Where automatic subnets come from and what they must avoid.
pub(super) struct Pools<'a> {
    pub ranges4: &'a [PoolRange],
    pub ranges6: &'a [PoolRange],
    /// Subnets of the host that automatic ones must not overlap.
    pub host: &'a [Subnet],
    /// Subnets of our networks, which none may overlap.
    pub ours: &'a [Subnet],
}

pub(super) fn check_name(name: &str) -> Result<()> {
    if is_predefined(name) {
        return Err(words::predefined_create(name));
    }
    // All else is a name, spaces included: nothing on the host is called by it.
    // Source: moby 28.2 `libnetwork/config/config.go`, `ValidateName`; docker-py's own tests.
    if name.trim().is_empty() {
        return Err(Error::invalid("invalid name: name is empty"));
    }
    if name.parse::<Id>().is_ok() {
        return Err(Error::invalid(format!("network name \"{name}\" looks like a network id")));
    }
    Ok(())
}

/// Builds the record of a new network.
pub(super) fn record(request: &NetworkRequest, pools: &Pools<'_>) -> Result<NetworkRecord> {
    let driver = driver(request)?;
    match request.ipam_driver.as_str() {
        "" | "default" => {}
        other => return Err(words::no_such_driver(other)),
    }
    let id = Id::random();
    let yes =
        |key: &str| request.options.get(key).is_some_and(|value| value == "true" || value == "1");
    let mut record = NetworkRecord {
        version: 1,
        id,
        name: request.name.clone(),
        created_at: SystemTime::now(),
        driver,
        ipv4: request.ipv4.unwrap_or(true),
        ipv6: request.ipv6.unwrap_or_else(|| yes("com.docker.network.enable_ipv6")),
        internal: request.internal,
        attachable: request.attachable,
        config_only: request.config_only,
        config_from: request.config_from.clone(),
        options: request.options.clone(),
        labels: request.labels.clone(),
        ipam_driver: "default".to_owned(),
        ipam_options: request.ipam_options.clone(),
        subnets: Vec::new(),
        interface: interface(driver, request, &id)?,
        adopted: false,
        added: Vec::new(),
        idle: Vec::new(),
    };
    if !record.ipv4 && !record.ipv6 {
        return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
    }
    if record.config_only {
        return Ok(record);
    }
    check_options(&record)?;
    record.subnets = subnets(&request.ipam, &record, pools)?;
    record.idle = request.ipam.iter().filter_map(|wish| idle(wish, &record)).collect();
    Ok(record)
}

fn driver(request: &NetworkRequest) -> Result<Driver> {
    match request.scope.as_str() {
        "" | "local" => {}
        _ => return Err(words::not_a_swarm_manager()),
    }
    if request.ingress {
        return Err(words::not_a_swarm_manager());
    }
    match request.driver.as_str() {
        "" | "default" | "bridge" => Ok(Driver::Bridge),
        "macvlan" => Ok(Driver::Macvlan),
        "ipvlan" => Err(words::no_ipvlan()),
        "host" | "null" => Err(Error::forbidden(format!(
            "only one instance of \"{}\" network is allowed",
            request.driver
        ))),
        other => Err(words::no_such_driver(other)),
    }
}

fn interface(driver: Driver, request: &NetworkRequest, id: &Id) -> Result<String> {
    let option = |key: &str| request.options.get(key).filter(|value| !value.is_empty()).cloned();
    match driver {
        Driver::Bridge => {
            let name = option("com.docker.network.bridge.name")
                .unwrap_or_else(|| format!("br-{}", id.short()));
            if net::bridge::is_interface_name(&name) {
                Ok(name)
            } else {
                Err(Error::invalid(format!("invalid bridge name: {name}")))
            }
        }
        Driver::Macvlan => Ok(option("parent").unwrap_or_else(|| dummy_name(id))),
        Driver::Host | Driver::Null => Ok(String::new()),
    }
}

const ANNOUNCE_TIMES: &str = "com.docker.network.advertise_addr_nmsgs";
const ANNOUNCE_EVERY: &str = "com.docker.network.advertise_addr_ms";

/// How often, and how far apart, the addresses of a network's containers are told.
pub(super) fn announcements(record: &NetworkRecord) -> (u32, Duration) {
    let number = |key: &str| record.option(key).and_then(|text| text.parse::<u32>().ok());
    let every = number(ANNOUNCE_EVERY).unwrap_or(1000);
    (number(ANNOUNCE_TIMES).unwrap_or(3), Duration::from_millis(every.into()))
}

/// Source: moby 28.2 `libnetwork/network_unix.go`; untyped there, so an internal error.
fn check_announcements(record: &NetworkRecord) -> Result<()> {
    for (key, range, what) in [
        (ANNOUNCE_TIMES, 0..=3, "an integer"),
        (ANNOUNCE_EVERY, 100..=2000, "integer milliseconds"),
    ] {
        let Some(text) = record.option(key) else { continue };
        let Ok(number) = text.parse::<i64>() else {
            return Err(Error::internal(format!("value for option {key} {text:?} must be {what}")));
        };
        if !range.contains(&number) {
            return Err(Error::internal(format!(
                "{key} must be in the range {} to {}",
                range.start(),
                range.end()
            )));
        }
    }
    Ok(())
}

fn check_options(record: &NetworkRecord) -> Result<()> {
    check_announcements(record)?;
    if let Some(mtu) = record.option("com.docker.network.driver.mtu")
        && mtu.parse::<u16>().is_err()
    {
        return Err(Error::invalid(format!(
            "failed to parse com.docker.network.driver.mtu value: {mtu:?}"
        )));
    }
    for key in ["gateway_mode_ipv4", "gateway_mode_ipv6"] {
        let key = format!("com.docker.network.bridge.{key}");
        match record.option(&key) {
            None | Some("" | "nat" | "nat-unprotected" | "routed") => {}
            Some("isolated") if record.internal => {}
            Some("isolated") => {
                return Err(Error::invalid(
                    "gateway mode 'isolated' can only be used for an internal network",
                ));
            }
            Some(other) => return Err(Error::invalid(format!("unknown gateway mode {other}"))),
        }
    }
    match record.option("macvlan_mode") {
        None | Some("" | "bridge" | "private" | "vepa" | "passthru") => {}
        Some(other) => return Err(Error::invalid(format!("unknown macvlan mode: {other}"))),
    }
    if let Some(address) = record.option(HOST_BINDING)
        && address.parse::<Ipv4Addr>().is_err()
    {
        return Err(Error::invalid(format!("failed to parse {HOST_BINDING} value: {address:?}")));
    }
    for key in ["com.docker.network.host_ipv4", "com.docker.network.host_ipv6"] {
        if record.option(key).is_some() {
            let text =
                format!("option {key} is not supported: the host's routes choose the address");
            return Err(Error::invalid(text));
        }
    }
    for key in ["enable_ip_masquerade", "enable_icc"] {
        let key = format!("com.docker.network.bridge.{key}");
        if let Some(value) = record.option(&key)
            && record.flag(&key, true) != record.flag(&key, false)
        {
            return Err(Error::invalid(format!("failed to parse {key} value: {value:?}")));
        }
    }
    Ok(())
}

fn enabled(subnet: Subnet, record: &NetworkRecord) -> bool {
    if subnet.is_ipv4() { record.ipv4 } else { record.ipv6 }
}

/// A subnet of a family that the network has not: shown as it was typed, and not used.
fn idle(wish: &SubnetRequest, record: &NetworkRecord) -> Option<IdleSubnet> {
    let subnet = wish.subnet.parse().ok().filter(|subnet| !enabled(*subnet, record))?;
    let auxiliary = wish.auxiliary.iter();
    Some(IdleSubnet {
        subnet,
        range: wish.range.parse().ok(),
        gateway: wish.gateway.parse().ok(),
        auxiliary: auxiliary
            .filter_map(|(name, text)| Some((name.clone(), text.parse().ok()?)))
            .collect(),
    })
}

/// The subnets, one of each enabled family.
fn subnets(
    wishes: &[SubnetRequest],
    record: &NetworkRecord,
    pools: &Pools<'_>,
) -> Result<Vec<SubnetRecord>> {
    let mut found: Vec<SubnetRecord> = Vec::new();
    for wish in wishes.iter().filter(|wish| !wish.subnet.is_empty()) {
        let subnet: Subnet = wish
            .subnet
            .parse()
            .map_err(|error| Error::invalid(format!("invalid subnet: {error}")))?;
        if !enabled(subnet, record) {
            continue;
        }
        if found.iter().any(|other| other.subnet.is_ipv4() == subnet.is_ipv4()) {
            return Err(Error::invalid(format!(
                "{} driver doesn't support multiple subnets",
                record.driver.name()
            )));
        }
        found.push(chosen(subnet, wish, pools)?);
    }
    for ipv4 in [true, false] {
        let enabled = if ipv4 { record.ipv4 } else { record.ipv6 };
        if !enabled || found.iter().any(|subnet| subnet.subnet.is_ipv4() == ipv4) {
            continue;
        }
        // Settings without a subnet belong to the automatic one.
        let wish =
            wishes.iter().find(|wish| wish.subnet.is_empty() && family_of(wish) == Some(ipv4));
        found.push(automatic(ipv4, wish, pools)?);
    }
    Ok(found)
}

fn family_of(wish: &SubnetRequest) -> Option<bool> {
    let text = if wish.gateway.is_empty() { &wish.range } else { &wish.gateway };
    text.split('/').next()?.parse::<IpAddr>().ok().map(|address| address.is_ipv4())
}

fn chosen(subnet: Subnet, wish: &SubnetRequest, pools: &Pools<'_>) -> Result<SubnetRecord> {
    if pools.ours.iter().any(|other| other.overlaps(subnet)) {
        return Err(words::pool_overlaps());
    }
    checked(subnet, &parse(wish)?, true)
}

fn automatic(ipv4: bool, wish: Option<&SubnetRequest>, pools: &Pools<'_>) -> Result<SubnetRecord> {
    let taken: Vec<Subnet> = pools.host.iter().chain(pools.ours).copied().collect();
    let ranges = if ipv4 { pools.ranges4 } else { pools.ranges6 };
    let subnet = pool::first_free(ranges, &taken).ok_or_else(words::no_pool)?;
    let wish = wish.map(parse).transpose()?.unwrap_or_default();
    if let Some(range) = wish.range {
        return Err(Error::invalid(pool::PoolError::RangeAlone(range).to_string()));
    }
    checked(subnet, &wish, false)
}

/// Holds the settings against the subnet and fills in the gateway.
pub(super) fn checked(subnet: Subnet, wish: &SubnetWish, chosen: bool) -> Result<SubnetRecord> {
    let leases =
        Leases::<Id>::new(subnet, wish).map_err(|error| Error::invalid(error.to_string()))?;
    Ok(SubnetRecord {
        subnet,
        range: wish.range,
        gateway: leases.gateway(),
        auxiliary: wish.auxiliary.clone(),
        chosen,
    })
}

fn parse(wish: &SubnetRequest) -> Result<SubnetWish> {
    let address = |what: &str, text: &str| -> Result<IpAddr> {
        text.parse().map_err(|_| Error::invalid(format!("invalid {what} address: {text}")))
    };
    let range = match wish.range.as_str() {
        "" => None,
        text => Some(
            text.parse().map_err(|error| Error::invalid(format!("invalid ip-range: {error}")))?,
        ),
    };
    let gateway = match wish.gateway.as_str() {
        "" => None,
        text => Some(address("gateway", text)?),
    };
    let mut auxiliary = BTreeMap::new();
    for (name, text) in &wish.auxiliary {
        auxiliary.insert(name.clone(), address("auxiliary", text)?);
    }
    Ok(SubnetWish { subnet: None, range, gateway, auxiliary })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(request: &NetworkRequest) -> Result<NetworkRecord> {
        check_name(&request.name)?;
        let ranges4 = pool::default_ranges();
        let pools = Pools {
            ranges4: &ranges4,
            ranges6: &[pool::local_ipv6_range(Some([1; 5]))],
            host: &["172.18.0.0/24".parse().unwrap()],
            ours: &["172.17.0.0/16".parse().unwrap()],
        };
        record(request, &pools)
    }

    fn request(subnets: &[(&str, &str, &str)]) -> NetworkRequest {
        let ipam = subnets.iter().map(|(subnet, range, gateway)| SubnetRequest {
            subnet: (*subnet).to_owned(),
            range: (*range).to_owned(),
            gateway: (*gateway).to_owned(),
            auxiliary: BTreeMap::new(),
        });
        NetworkRequest {
            name: "backend".to_owned(),
            ipam: ipam.collect(),
            ..NetworkRequest::default()
        }
    }

    #[track_caller]
    fn check(request: &NetworkRequest, want: std::result::Result<&str, &str>) {
        let got = make(request).map_err(|error| error.message).map(|record| {
            let subnets = record
                .subnets
                .iter()
                .map(|subnet| format!("{} by {}", subnet.subnet, subnet.gateway));
            subnets.collect::<Vec<_>>().join(", ")
        });
        assert_eq!(got, want.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn a_subnet_is_chosen_that_nothing_uses() {
        check(&request(&[]), Ok("172.19.0.0/16 by 172.19.0.1"));
        let six = NetworkRequest { ipv6: Some(true), ..request(&[]) };
        check(&six, Ok("172.19.0.0/16 by 172.19.0.1, fd01:101:101::/64 by fd01:101:101::1"));
    }

    #[test]
    fn chosen_subnets_are_checked() {
        check(&request(&[("10.5.0.0/16", "10.5.1.0/24", "")]), Ok("10.5.0.0/16 by 10.5.1.0"));
        check(&request(&[("10.5.0.0/16", "", "10.5.9.9")]), Ok("10.5.0.0/16 by 10.5.9.9"));
        check(
            &request(&[("172.17.8.0/24", "", "")]),
            Err("invalid pool request: Pool overlaps with other one on this address space"),
        );
        check(
            &request(&[("10.5.0.1/16", "", "")]),
            Err("invalid subnet 10.5.0.1/16: it should be 10.5.0.0/16"),
        );
        check(
            &request(&[("nonsense", "", "")]),
            Err("invalid subnet: invalid CIDR address: nonsense"),
        );
        // Docker keeps what is of a family that the network has not.
        let six = request(&[("10.6.0.0/16", "", ""), ("2001:db8:77::/64", "", "2001:db8:77::9")]);
        check(&six, Ok("10.6.0.0/16 by 10.6.0.1"));
        let record = make(&six).unwrap();
        let [idle] = &record.idle[..] else { panic!("{:?}", record.idle) };
        assert_eq!(idle.subnet.to_string(), "2001:db8:77::/64");
        assert_eq!(idle.gateway.unwrap().to_string(), "2001:db8:77::9");
    }

    #[test]
    fn announcements_are_within_bounds() {
        for (key, value, want) in [
            (
                ANNOUNCE_TIMES,
                "4",
                "com.docker.network.advertise_addr_nmsgs must be in the range 0 to 3",
            ),
            (
                ANNOUNCE_TIMES,
                "-1",
                "com.docker.network.advertise_addr_nmsgs must be in the range 0 to 3",
            ),
            (
                ANNOUNCE_TIMES,
                "x",
                "value for option com.docker.network.advertise_addr_nmsgs \"x\" must be an integer",
            ),
            (
                ANNOUNCE_EVERY,
                "99",
                "com.docker.network.advertise_addr_ms must be in the range 100 to 2000",
            ),
            (
                ANNOUNCE_EVERY,
                "1s",
                "value for option com.docker.network.advertise_addr_ms \"1s\" must be integer milliseconds",
            ),
        ] {
            let options = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            check(&NetworkRequest { options, ..request(&[]) }, Err(want));
        }
        let options = [(ANNOUNCE_TIMES, "0"), (ANNOUNCE_EVERY, "2000")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let record = make(&NetworkRequest { options, ..request(&[]) }).unwrap();
        assert_eq!(announcements(&record), (0, Duration::from_secs(2)));
        assert_eq!(announcements(&make(&request(&[])).unwrap()), (3, Duration::from_secs(1)));
    }

    #[test]
    fn names_and_drivers_are_checked() {
        for name in ["host", "", "  "] {
            assert!(
                make(&NetworkRequest { name: name.to_owned(), ..request(&[]) }).is_err(),
                "{name}"
            );
        }
        let overlay = NetworkRequest { driver: "weave".to_owned(), ..request(&[]) };
        check(&overlay, Err("plugin \"weave\" not found"));
        for (driver, key, value, want) in [
            ("ipvlan", "parent", "eth0", "network driver ipvlan is not supported: macvlan is"),
            ("macvlan", "macvlan_mode", "odd", "unknown macvlan mode: odd"),
            (
                "bridge",
                "com.docker.network.bridge.host_binding_ipv4",
                "here",
                "failed to parse com.docker.network.bridge.host_binding_ipv4 value: \"here\"",
            ),
            (
                "bridge",
                "com.docker.network.host_ipv4",
                "192.0.2.1",
                "option com.docker.network.host_ipv4 is not supported: the host's routes choose the address",
            ),
        ] {
            let mut options = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            options.insert("parent".to_owned(), "eth0".to_owned());
            let request = NetworkRequest { driver: driver.to_owned(), options, ..request(&[]) };
            check(&request, Err(want));
        }
    }
}
