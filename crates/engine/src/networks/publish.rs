//! Published ports of a container: wishes read, sockets reserved, firewall items.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use net::firewall::{Between, Forward, Guard, Item, Link, Sources, Way};
use net::ports::{
    BoundPort, PortAllocator, PortError, PortWish, PublishedPort as NetPort, Transport,
};
use spec::Id;
use sys::netlink::conntrack::Flow;

use super::attach::gateway_endpoint;
use super::kernel::{Kernel, gateway_mode, isolates_ports};
use super::view::{Attachment, Endpoint, Listener, PublishedPort};
use super::{Attached, Member, MemberSpec, Network, words};
use crate::containers::spec::{Port, Protocol};
use crate::error::{Error, Result};

pub(super) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";

/// Ports and where they lead.
#[derive(Default)]
pub(super) struct Published {
    pub ports: Vec<PublishedPort>,
    pub listeners: Vec<Listener>,
}

/// Which addresses of the container its published ports lead to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Targets {
    pub ipv4: Option<IpAddr>,
    pub ipv6: Option<IpAddr>,
}

impl Targets {
    pub fn addresses(self) -> Vec<IpAddr> {
        self.ipv4.into_iter().chain(self.ipv6).collect()
    }

    fn for_host(self, host: IpAddr) -> Option<IpAddr> {
        if host.is_ipv4() { self.ipv4.or(self.ipv6) } else { self.ipv6.or(self.ipv4) }
    }
}

fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    }
}

/// The container's side of a wish.
pub(super) fn container_port(wish: &PortWish) -> Port {
    Port { number: wish.container_port, protocol: protocol(wish.transport) }
}

fn protocol(transport: Transport) -> Protocol {
    match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
        Transport::Sctp => Protocol::Sctp,
    }
}

pub(super) fn net_port(port: &PublishedPort) -> NetPort {
    NetPort {
        transport: transport(port.container.protocol),
        host_ip: port.host.ip(),
        host_port: port.host.port(),
        container_port: port.container.number,
    }
}

/// The wishes of a container, those with fixed ports first, so that none of them is lost to an
/// automatic one.
pub(super) fn wishes(spec: MemberSpec<'_>, default_ip: Option<IpAddr>) -> Result<Vec<PortWish>> {
    let mut found = Vec::new();
    for binding in spec.ports {
        let text = binding.host_port.as_str();
        let number = |text: &str| {
            text.parse::<u16>()
                .map_err(|_| Error::invalid(format!("invalid port specification: \"{text}\"")))
        };
        let host_ports = match text.split_once('-') {
            None if text.is_empty() || text == "0" => None,
            None => Some(number(text)?..=number(text)?),
            Some((first, last)) => Some(number(first)?..=number(last)?),
        };
        found.push(PortWish {
            transport: transport(binding.container.protocol),
            container_port: binding.container.number,
            host_ip: binding.host_ip.or(default_ip),
            host_ports,
        });
    }
    if spec.publish_all_ports {
        let named: Vec<Port> = spec.ports.iter().map(|binding| binding.container).collect();
        for port in spec.exposed_ports().into_iter().filter(|port| !named.contains(port)) {
            found.push(PortWish {
                transport: transport(port.protocol),
                container_port: port.number,
                host_ip: default_ip,
                host_ports: None,
            });
        }
    }
    found.sort_by_key(|wish| wish.host_ports.is_none());
    Ok(found)
}

/// Where the network that the default routes go by has ports published that name no address.
fn default_ip(attachment: &Attachment, networks: &BTreeMap<Id, Network>) -> Option<IpAddr> {
    let (_, endpoint) = gateway_endpoint(attachment, networks, true)?;
    let record = &networks.get(&endpoint.network_id)?.record;
    let address: IpAddr = record.option(HOST_BINDING)?.parse().ok()?;
    (!address.is_unspecified()).then_some(address)
}

/// Reserves a container's ports at the network that its default routes go by. Without one it has
/// none.
pub(super) fn publish(
    kernel: &mut Kernel,
    container: &Member<'_>,
    attachment: &Attachment,
    networks: &BTreeMap<Id, Network>,
    attached: &BTreeMap<Id, Attached>,
    host_ip: Option<IpAddr>,
) -> Result<Published> {
    let gateway = gateway_endpoint(attachment, networks, true)
        .or(gateway_endpoint(attachment, networks, false));
    let Some((_, endpoint)) = gateway else { return Ok(Published::default()) };
    let wishes = wishes(container.spec, default_ip(attachment, networks).or(host_ip))?;
    let who = (container.name, &endpoint.endpoint_id);
    reserve(&mut kernel.ports, &wishes, targets(attachment, networks), attached, who)
}

/// Reserves all the ports, or none.
fn reserve(
    allocator: &mut PortAllocator,
    wishes: &[PortWish],
    targets: Targets,
    attached: &BTreeMap<Id, Attached>,
    container: (&str, &Id),
) -> Result<Published> {
    let mut bound: Vec<BoundPort> = Vec::new();
    for wish in wishes {
        let Some(target) =
            wish.host_ip.map_or(targets.ipv4.or(targets.ipv6), |ip| targets.for_host(ip))
        else {
            continue;
        };
        match allocator.bind(wish, target, |transport, host| owner(attached, transport, host)) {
            Ok(ports) => bound.extend(ports),
            Err(error) => {
                for port in &bound {
                    allocator.release(&port.port);
                }
                return Err(refusal(&error, container));
            }
        }
    }
    let mut published = Published { ports: Vec::new(), listeners: Vec::new() };
    for BoundPort { port, socket } in bound {
        let container = Port { number: port.container_port, protocol: protocol(port.transport) };
        let shown =
            PublishedPort { container, host: SocketAddr::new(port.host_ip, port.host_port) };
        published.ports.push(shown);
        if let (Some(socket), Some(target)) = (socket, targets.for_host(port.host_ip)) {
            let target = SocketAddr::new(target, port.container_port);
            published.listeners.push(Listener { port: shown, socket, target });
        }
    }
    Ok(published)
}

fn refusal(error: &PortError, (name, endpoint): (&str, &Id)) -> Error {
    words::cannot_publish(name, &endpoint.to_string(), &crate::error::chain(error))
}

/// The name of the container that has the port.
fn owner(
    attached: &BTreeMap<Id, Attached>,
    transport: Transport,
    host: SocketAddr,
) -> Option<String> {
    let has = |port: &PublishedPort| {
        let port = net_port(port);
        port.transport == transport
            && port.host_port == host.port()
            && (port.host_ip == host.ip()
                || port.host_ip.is_unspecified()
                || host.ip().is_unspecified())
    };
    let owner = attached.values().find(|other| other.attachment.ports.iter().any(has))?;
    Some(owner.attachment.container_name.clone())
}

/// What the firewall must hold for a container. `attached` are the others, for its links.
pub(super) fn items(
    attachment: &Attachment,
    networks: &BTreeMap<Id, Network>,
    attached: &BTreeMap<Id, Attached>,
) -> Vec<Item> {
    let mut items = Vec::new();
    for endpoint in attachment.endpoints.values() {
        let network = networks.get(&endpoint.network_id);
        let apart = network.is_some_and(|network| isolates_ports(&network.record));
        if let (Some(mac), false) = (endpoint.mac, endpoint.host_interface.is_empty()) {
            let link_local = endpoint.link_local.iter().map(|subnet| subnet.address());
            items.push(Item::Guard(Guard {
                interface: endpoint.host_interface.clone(),
                mac,
                addresses: endpoint.addresses().chain(link_local).collect(),
                sources: if attachment.privileged { Sources::Unclaimed } else { Sources::Own },
                between: if apart { Between::Denied } else { Between::Allowed },
            }));
        }
        if apart {
            items.extend(links(attachment, endpoint, attached));
        }
    }
    // In gateway mode `routed` ports are opened at the container's own address.
    for endpoint in attachment.endpoints.values() {
        let Some(network) = networks.get(&endpoint.network_id) else { continue };
        for target in endpoint
            .addresses()
            .filter(|ip| gateway_mode(&network.record, ip.is_ipv4()) == "routed")
        {
            items.extend(attachment.open_ports.iter().map(|port| {
                Item::Forward(Forward {
                    protocol: transport(port.protocol).number(),
                    host: target,
                    host_port: port.number,
                    target,
                    target_port: port.number,
                    way: Way::Routed,
                })
            }));
        }
    }
    let targets = targets(attachment, networks);
    for port in &attachment.ports {
        let net = net_port(port);
        let Some(target) = targets.for_host(net.host_ip) else { continue };
        items.push(Item::Forward(Forward {
            protocol: net.transport.number(),
            host: net.host_ip,
            host_port: net.host_port,
            target,
            target_port: net.container_port,
            way: Way::Nat,
        }));
    }
    items
}

/// The services that a container on the default bridge was linked to, where its ports are kept
/// apart. IPv4 alone, as in Docker.
///
/// Source: moby 28.2 `libnetwork/drivers/bridge/bridge_linux.go`, `link`.
fn links<'a>(
    attachment: &'a Attachment,
    endpoint: &'a Endpoint,
    attached: &'a BTreeMap<Id, Attached>,
) -> impl Iterator<Item = Item> + 'a {
    let from = endpoint.address.map(net::Subnet::address);
    let targets =
        attachment.bridge_links.iter().filter_map(move |id| attached.get(&id.parse().ok()?));
    targets.flat_map(move |target| {
        let there = target.attachment.endpoints.values();
        let mut there = there.filter(|there| there.network_id == endpoint.network_id);
        let to = there.next().and_then(|there| there.address).map(net::Subnet::address);
        target.attachment.exposed_ports.iter().filter_map(move |port| {
            let (IpAddr::V4(from), IpAddr::V4(to)) = (from?, to?) else { return None };
            let protocol = transport(port.protocol).number();
            Some(Item::Link(Link { from, to, protocol, port: port.number }))
        })
    })
}

/// A UDP port whose way to a container came or went. TCP notices by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    Gone(Forward),
    New(Forward),
}

/// The UDP ports among changed items.
pub(super) fn moved(gone: &[Item], new: &[Item]) -> Vec<Moved> {
    let udp = |item: &Item| match item {
        Item::Forward(forward) if forward.protocol == Transport::Udp.number() => Some(*forward),
        Item::Forward(_) | Item::Bridge(_) | Item::Guard(_) | Item::Link(_) => None,
    };
    let gone = gone.iter().filter_map(udp).map(Moved::Gone);
    gone.chain(new.iter().filter_map(udp).map(Moved::New)).collect()
}

impl Moved {
    /// Whether the flow still goes as it went before. `local` are the host's addresses.
    pub fn outdates(&self, flow: &Flow, local: &BTreeSet<IpAddr>) -> bool {
        if flow.protocol != Transport::Udp.number() {
            return false;
        }
        let target = |forward: &Forward| SocketAddr::new(forward.target, forward.target_port);
        match self {
            Moved::Gone(forward) => {
                flow.answerer == target(forward) && flow.destination != flow.answerer
            }
            Moved::New(forward) => {
                let (host, port) = (flow.destination.ip(), flow.destination.port());
                let asked = if forward.host.is_unspecified() {
                    host.is_ipv4() == forward.host.is_ipv4() && local.contains(&host)
                } else {
                    host == forward.host
                };
                asked && port == forward.host_port && flow.answerer != target(forward)
            }
        }
    }
}

/// The container's addresses on the networks that its default routes go by.
pub(super) fn targets(attachment: &Attachment, networks: &BTreeMap<Id, Network>) -> Targets {
    let find = |ipv4: bool| {
        let (_, endpoint) = gateway_endpoint(attachment, networks, ipv4)?;
        let record = &networks.get(&endpoint.network_id)?.record;
        if record.internal || !gateway_mode(record, ipv4).starts_with("nat") {
            return None;
        }
        endpoint.addresses().find(|address| address.is_ipv4() == ipv4)
    };
    Targets { ipv4: find(true), ipv6: find(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(host: &str) -> Forward {
        let target = [172, 17, 0, 2].into();
        let host = host.parse().unwrap();
        Forward { protocol: 17, host, host_port: 53, target, target_port: 5353, way: Way::Nat }
    }

    #[track_caller]
    fn check(moved: Moved, destination: &str, answerer: &str, outdated: bool) {
        let flow = Flow {
            protocol: 17,
            source: "192.0.2.1:4000".parse().unwrap(),
            destination: destination.parse().unwrap(),
            answerer: answerer.parse().unwrap(),
        };
        let local = BTreeSet::from([IpAddr::from([192, 0, 2, 9])]);
        assert_eq!(moved.outdates(&flow, &local), outdated);
    }

    #[test]
    fn flows_through_a_port_that_is_gone_begin_anew() {
        let gone = Moved::Gone(forward("0.0.0.0"));
        check(gone, "192.0.2.9:53", "172.17.0.2:5353", true);
        check(gone, "192.0.2.9:53", "172.17.0.3:5353", false);
        check(gone, "172.17.0.2:5353", "172.17.0.2:5353", false);
    }

    #[test]
    fn flows_past_a_new_port_begin_anew() {
        let new = Moved::New(forward("0.0.0.0"));
        check(new, "192.0.2.9:53", "192.0.2.9:53", true);
        check(new, "192.0.2.9:53", "172.17.0.7:5353", true);
        check(new, "192.0.2.9:53", "172.17.0.2:5353", false);
        check(new, "192.0.2.9:54", "192.0.2.9:54", false);
        // A query to a name server elsewhere.
        check(new, "198.51.100.1:53", "198.51.100.1:53", false);
        check(Moved::New(forward("192.0.2.9")), "192.0.2.9:53", "192.0.2.9:53", true);
    }
}
