//! Published ports of a container: wishes read, sockets reserved, firewall items.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use net::firewall::{Forward, Guard, Item, Way};
use net::ports::{
    BoundPort, PortAllocator, PortError, PortWish, PublishedPort as NetPort, Transport,
};
use spec::Id;

use super::kernel::gateway_mode;
use super::view::{Attachment, Listener, PublishedPort};
use super::{Attached, Network, words};
use crate::containers::spec::{ContainerSpec, Port, Protocol};
use crate::error::{Error, Result};

/// Ports and where they lead.
pub(super) struct Published {
    pub ports: Vec<PublishedPort>,
    pub listeners: Vec<Listener>,
}

/// Which addresses of the container its published ports lead to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Targets {
    pub ipv4: Option<IpAddr>,
    pub ipv6: Option<IpAddr>,
}

impl Targets {
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
pub(super) fn wishes(spec: &ContainerSpec, default_ip: Option<IpAddr>) -> Result<Vec<PortWish>> {
    let mut found = Vec::new();
    for binding in &spec.host.ports {
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
    if spec.host.publish_all_ports {
        let named: Vec<Port> = spec.host.ports.iter().map(|binding| binding.container).collect();
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

/// Reserves all the ports, or none.
pub(super) fn reserve(
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

/// What the firewall must hold for a container.
pub(super) fn items(attachment: &Attachment, networks: &BTreeMap<Id, Network>) -> Vec<Item> {
    let mut items = Vec::new();
    for endpoint in attachment.endpoints.values() {
        if let (Some(mac), false) = (endpoint.mac, endpoint.host_interface.is_empty()) {
            let interface = endpoint.host_interface.clone();
            items.push(Item::Guard(Guard {
                interface,
                mac,
                addresses: endpoint.addresses().collect(),
            }));
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

/// The container's addresses on the networks that its default routes go by.
pub(super) fn targets(attachment: &Attachment, networks: &BTreeMap<Id, Network>) -> Targets {
    let find = |ipv4: bool| {
        let (_, endpoint) = super::attach::gateway_endpoint(attachment, networks, ipv4)?;
        let record = &networks.get(&endpoint.network_id)?.record;
        if record.internal || !gateway_mode(record, ipv4).starts_with("nat") {
            return None;
        }
        endpoint.addresses().find(|address| address.is_ipv4() == ipv4)
    };
    Targets { ipv4: find(true), ipv6: find(false) }
}
