//! One container's place on one network: addresses, interface, settings.

use std::collections::BTreeMap;

use net::announcements::Announce;
use net::sandbox::{self, Isolated, Port as SandboxPort, PortWish, Ready, Sandbox, Settings};
use net::{Mac, Subnet};
use spec::Id;
use sys::netlink::route::{Link, MacvlanMode, find_link};

use super::attach::gateway_endpoint;
use super::create::announcements;
use super::kernel::{Kernel, gateway_mode, internal, isolates_ports, mtu};
use super::record::{Driver, NetworkRecord};
use super::view::wish_for;
use super::wish::{self, IFNAME, parse_address, parse_mac};
use super::{Attachment, Endpoint, Member, Network, State, names, words};
use crate::containers::spec::EndpointSpec;
use crate::error::{Error, Kind, Result};

/// An endpoint that has nothing yet.
pub(super) fn empty_endpoint(network_id: Id) -> Endpoint {
    Endpoint {
        network_id,
        endpoint_id: Id::random(),
        mac: None,
        address: None,
        gateway: None,
        address6: None,
        gateway6: None,
        dns_names: Vec::new(),
        interface: String::new(),
        host_interface: String::new(),
        link_local: Vec::new(),
        sysctls: Vec::new(),
        gw_priority: 0,
    }
}

/// Leases a container's addresses on a network. Takes none if it cannot have all.
pub(super) fn lease(
    state: &mut State,
    container: &Member<'_>,
    id: &Id,
    wish: Option<&EndpointSpec>,
) -> Result<(String, Endpoint)> {
    let Some(network) = state.networks.get_mut(id) else {
        return Err(words::not_found(&id.to_string()));
    };
    let name = network.record.name.clone();
    if network.record.config_only {
        return Err(Error::forbidden(format!(
            "cannot connect to configuration-only network {name}"
        )));
    }
    let own = wish_for(container.spec, &name, id);
    let wish = wish.unwrap_or(&own);
    wish::check(&name, Some(&network.record), wish)?;
    let mut endpoint = empty_endpoint(*id);
    endpoint.gw_priority = wish.gw_priority;
    endpoint.link_local = wish::link_local(wish)?;
    endpoint.sysctls = wish::sysctls(wish)?;
    if !wish.mac_address.is_empty() {
        endpoint.mac = parse_mac(&wish.mac_address);
    }
    for (ipv4, text) in [(true, &wish.ipv4_address), (false, &wish.ipv6_address)] {
        let Some(subnet) = network.record.subnet(ipv4).cloned() else { continue };
        if !ipv4 && wish::turns_ipv6_off(container.spec, wish) {
            continue;
        }
        let wanted = parse_address(text, ipv4);
        let address = match network.lease_family(ipv4, wanted, container.id) {
            Ok(address) => subnet.subnet.with_address(address),
            Err(error) => {
                for taken in endpoint.addresses().collect::<Vec<_>>() {
                    network.release(taken, &container.id);
                }
                return Err(error);
            }
        };
        let gateway = (gateway_mode(&network.record, ipv4) != "isolated"
            && !network.record.internal)
            .then(|| {
                let aside = if ipv4 { super::GATEWAY_ASIDE } else { super::GATEWAY_ASIDE6 };
                subnet.auxiliary.get(aside).copied().unwrap_or(subnet.gateway)
            });
        if ipv4 {
            (endpoint.address, endpoint.gateway) = (Some(address), gateway);
        } else {
            (endpoint.address6, endpoint.gateway6) = (Some(address), gateway);
        }
    }
    if !network.record.is_default_bridge() && network.record.driver != Driver::Null {
        endpoint.dns_names = names::dns_names(container, wish);
    }
    Ok((name, endpoint))
}

fn prefix(record: &NetworkRecord) -> &str {
    let prefix = record.option("com.docker.network.container_iface_prefix");
    prefix.filter(|prefix| !prefix.is_empty() && prefix.len() < 12).unwrap_or("eth")
}

/// Names of the interfaces on several networks: those that the wish names, and for the others the
/// lowest free numbers.
pub(super) fn interface_names(container: &Member<'_>, state: &State, ids: &[Id]) -> Vec<String> {
    let wished = |id: &Id| {
        let wish = wish_for(container.spec, &state.networks[id].record.name, id);
        wish.driver_opts.get(IFNAME).cloned()
    };
    let mut taken: Vec<String> = ids.iter().filter_map(wished).collect();
    let mut names = Vec::new();
    for id in ids {
        let record = &state.networks[id].record;
        names.push(match record.driver {
            Driver::Null | Driver::Host => String::new(),
            Driver::Bridge | Driver::Macvlan => wished(id).unwrap_or_else(|| {
                let free = free_name(record, &taken);
                taken.push(free.clone());
                free
            }),
        });
    }
    names
}

/// The first name of the network's prefix that nothing has.
pub(super) fn free_name(record: &NetworkRecord, taken: &[String]) -> String {
    let prefix = prefix(record);
    let names = (0..).map(|number| format!("{prefix}{number}"));
    names.into_iter().find(|name| !taken.contains(name)).expect("some number is free")
}

/// Refuses an interface whose name another one of the container has.
pub(super) fn check_interface(attachment: &Attachment, endpoint: &Endpoint) -> Result<()> {
    let name = &endpoint.interface;
    let same = |other: &Endpoint| !name.is_empty() && other.interface == *name;
    if attachment.endpoints.values().any(same) {
        Err(words::interface_exists(name))
    } else {
        Ok(())
    }
}

/// Addresses of an endpoint's interface, and the default routes if they go by it.
pub(super) fn interface_settings(
    attachment: &Attachment,
    networks: &BTreeMap<Id, Network>,
    name: &str,
) -> Settings {
    let Some(endpoint) = attachment.endpoints.get(name) else { return Settings::default() };
    let mut gateways = Vec::new();
    for ipv4 in [true, false] {
        let by = gateway_endpoint(attachment, networks, ipv4);
        if by.is_some_and(|(best, _)| best == name) {
            gateways.extend(if ipv4 { endpoint.gateway } else { endpoint.gateway6 });
        }
    }
    let leased = [endpoint.address, endpoint.address6].into_iter().flatten();
    let addresses: Vec<Subnet> = leased.chain(endpoint.link_local.iter().copied()).collect();
    let settings = endpoint.sysctls.iter();
    let sysctls = settings
        .map(|(key, value)| (key.replace(wish::IFNAME_MARK, &endpoint.interface), value.clone()));
    let announce = networks.get(&endpoint.network_id).map(|network| {
        let (times, every) = announcements(&network.record);
        Announce { owner: endpoint.endpoint_id, times, every }
    });
    Settings { addresses, gateways, sysctls: sysctls.collect(), announce }
}

/// Ports that are kept apart are so by the bridge itself, but for those with links: what these may
/// reach is decided by the firewall alone.
fn isolated(network: &Network, linking: Linking) -> Isolated {
    match linking {
        Linking::No if isolates_ports(&network.record) => Isolated::Yes,
        Linking::No | Linking::Yes => Isolated::No,
    }
}

/// Whether a container has links on the default bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linking {
    Yes,
    No,
}

impl Linking {
    pub fn of(attachment: &Attachment) -> Linking {
        if attachment.bridge_links.is_empty() { Linking::No } else { Linking::Yes }
    }
}

/// Makes a prepared sandbox fit: another bridge, name, MAC address, MTU.
pub(super) fn adapt(
    kernel: &mut Kernel,
    networks: &BTreeMap<Id, Network>,
    network: &Network,
    endpoint: &mut Endpoint,
    linking: Linking,
    ready: Ready,
) -> Result<(Sandbox, SandboxPort)> {
    let Ready { mut sandbox, mut port } = ready;
    let default = networks.values().find(|network| network.record.is_default_bridge());
    let pool_mtu = default.and_then(|network| mtu(&network.record));
    if mtu(&network.record) != pool_mtu {
        // Rare enough: the other size is simplest made from scratch.
        sandbox.remove(&port.name).map_err(internal)?;
        return plug(kernel, network, endpoint, linking, sandbox);
    }
    if let Some((name, _)) = &port.host {
        endpoint.host_interface.clone_from(name);
    }
    let isolated = isolated(network, linking);
    if let Some(bridge) = network.bridge
        && (!network.record.is_default_bridge() || isolated == Isolated::Yes)
    {
        sandbox::move_port(&mut kernel.host, &port, bridge.index, isolated).map_err(internal)?;
    }
    let mac = endpoint.mac.unwrap_or(port.mac);
    sandbox.change(&mut port, &endpoint.interface, mac).map_err(internal)?;
    endpoint.mac = Some(mac);
    Ok((sandbox, port))
}

/// Makes an endpoint's interface in a sandbox.
pub(super) fn plug(
    kernel: &mut Kernel,
    network: &Network,
    endpoint: &mut Endpoint,
    linking: Linking,
    mut sandbox: Sandbox,
) -> Result<(Sandbox, SandboxPort)> {
    let mac = *endpoint.mac.get_or_insert_with(Mac::random);
    let interface = endpoint.interface.clone();
    if network.record.driver == Driver::Bridge && endpoint.host_interface.is_empty() {
        endpoint.host_interface = sandbox::veth_name();
    }
    let outer = endpoint.host_interface.clone();
    let wish = PortWish { name: &interface, outer: &outer, mac, mtu: mtu(&network.record) };
    let port = match (network.record.driver, network.bridge) {
        (Driver::Bridge, Some(bridge)) => {
            let port = sandbox.add_veth(&mut kernel.host, &wish, bridge.index).map_err(internal)?;
            if isolated(network, linking) == Isolated::Yes {
                sandbox::move_port(&mut kernel.host, &port, bridge.index, Isolated::Yes)
                    .map_err(internal)?;
            }
            port
        }
        (Driver::Macvlan, _) => {
            let parent = find_link(&mut kernel.host, Link::Name(&network.record.interface))
                .map_err(internal)?;
            let Some(parent) = parent else {
                let text = format!("parent interface {} is gone", network.record.interface);
                return Err(Error::internal(text));
            };
            let mode = match network.record.option("macvlan_mode") {
                Some("private") => MacvlanMode::Private,
                Some("vepa") => MacvlanMode::Vepa,
                Some("passthru") => MacvlanMode::Passthru,
                Some(_) | None => MacvlanMode::Bridge,
            };
            sandbox.add_macvlan(&mut kernel.host, &wish, parent.index, mode).map_err(internal)?
        }
        (Driver::Bridge | Driver::Host | Driver::Null, _) => {
            return Err(Error::new(
                Kind::Internal,
                format!("network {} is out of order", network.record.name),
            ));
        }
    };
    Ok((sandbox, port))
}
