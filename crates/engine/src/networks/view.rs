//! What is told about networks and about a container's place on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use net::{Mac, Subnet};
use serde::{Deserialize, Serialize};
use spec::Id;

use crate::containers::spec::{
    ContainerSpec, EndpointSpec, NetworkMode, Port, PortBinding, exposed_ports,
};
use crate::containers::views::{EndpointView, HostPort, NetworkView, Place};

/// A run that is to be put on networks, or that networks are changed of.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    pub id: Id,
    /// Empty for one that nobody asks for by name.
    pub name: &'a str,
    pub spec: MemberSpec<'a>,
    pub hostname: &'a str,
}

/// What is asked of its networks.
#[derive(Debug, Clone, Copy)]
pub struct MemberSpec<'a> {
    pub network: &'a NetworkMode,
    pub network_disabled: bool,
    /// For each network, by its name or id.
    pub endpoints: &'a BTreeMap<String, EndpointSpec>,
    /// On the network of the mode.
    pub mac_address: &'a str,
    pub domainname: &'a str,
    pub links: &'a [String],
    /// `name:address`.
    pub extra_hosts: &'a [String],
    pub dns: &'a [IpAddr],
    pub dns_search: &'a [String],
    pub dns_options: &'a [String],
    pub sysctls: &'a BTreeMap<String, String>,
    pub ports: &'a [PortBinding],
    pub publish_all_ports: bool,
    /// Those that an image names, as `80/tcp`.
    pub exposed: &'a BTreeMap<String, spec::image::Empty>,
    /// It may route for others.
    pub privileged: bool,
}

impl<'a> MemberSpec<'a> {
    /// A container's, merged with its image's configuration.
    #[must_use]
    pub fn of(spec: &'a ContainerSpec) -> Self {
        let host = &spec.host;
        Self {
            network: &host.network,
            network_disabled: spec.network_disabled,
            endpoints: &spec.endpoints,
            mac_address: &spec.mac_address,
            domainname: &spec.domainname,
            links: &host.links,
            extra_hosts: &host.extra_hosts,
            dns: &host.dns,
            dns_search: &host.dns_search,
            dns_options: &host.dns_options,
            sysctls: &host.sysctls,
            ports: &host.ports,
            publish_all_ports: host.publish_all_ports,
            exposed: &spec.config.exposed_ports,
            privileged: host.privileged,
        }
    }

    /// Ports that are exposed, and the published ones.
    #[must_use]
    pub fn exposed_ports(&self) -> BTreeSet<Port> {
        exposed_ports(self.exposed, self.ports)
    }
}

/// All that a container's start needs of its networks.
#[derive(Debug)]
pub struct Prepared {
    /// `None` with the host's namespace or another container's.
    pub netns: Option<OwnedFd>,
    pub listeners: Vec<Listener>,
    pub attachment: Attachment,
    /// Contents of `/etc/hosts` and `/etc/resolv.conf`; empty in `container:` mode.
    pub hosts: String,
    pub resolv_conf: String,
}

/// A reserved port, for the monitor's proxy.
#[derive(Debug)]
pub struct Listener {
    pub port: PublishedPort,
    /// Listening, or bound if it is UDP.
    pub socket: OwnedFd,
    /// The container's address as the host reaches it.
    pub target: SocketAddr,
}

/// A container port at one address of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub container: Port,
    pub host: SocketAddr,
}

/// A running container's networks. Kept in the container's run record, so that the next daemon
/// knows who has which address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    pub container_name: String,
    pub hostname: String,
    pub sandbox_id: String,
    /// By network name.
    pub endpoints: BTreeMap<String, Endpoint>,
    pub ports: Vec<PublishedPort>,
    /// Ports that are open at its own address, on networks in gateway mode `routed`.
    pub open_ports: Vec<Port>,
    /// Names that only this container resolves: `--link` on user-defined networks.
    pub links: BTreeMap<String, Vec<IpAddr>>,
    /// What `links` is made of, again whenever somebody comes or goes.
    #[serde(default)]
    pub link_wishes: Vec<LinkWish>,
    /// What it exposes, for those that link to it.
    #[serde(default)]
    pub exposed_ports: Vec<Port>,
    /// Containers that it has links to on the default bridge, by id.
    #[serde(default)]
    pub bridge_links: Vec<String>,
    /// It may route for others, so that its frames are held less tightly.
    #[serde(default)]
    pub privileged: bool,
    /// Servers that its resolver forwards to; empty when it has no resolver.
    pub upstreams: Vec<net::zone::Upstream>,
}

/// A name that one container gives to another on a user-defined network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkWish {
    pub network_id: Id,
    /// Name or id of a container, which need not run yet.
    pub target: String,
    pub alias: String,
}

/// A running container's place on one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    pub network_id: Id,
    pub endpoint_id: Id,
    pub mac: Option<Mac>,
    pub address: Option<Subnet>,
    pub gateway: Option<IpAddr>,
    pub address6: Option<Subnet>,
    pub gateway6: Option<IpAddr>,
    /// Container name, aliases, short id, host name; empty on the default bridge.
    pub dns_names: Vec<String>,
    /// Name inside the container; empty on `none` and `host`.
    pub interface: String,
    /// The outer end; empty unless it is a bridge port.
    pub host_interface: String,
    /// Beside the leased addresses, on request.
    #[serde(default)]
    pub link_local: Vec<Subnet>,
    /// Settings of the interface: paths below `net/` with a mark for its name, and values.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
    pub gw_priority: i64,
}

impl Endpoint {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [self.address, self.address6].into_iter().flatten().map(Subnet::address)
    }
}

impl Attachment {
    /// The networks of inspect and list while the container runs.
    #[must_use]
    pub fn view(&self, spec: &ContainerSpec) -> NetworkView {
        let endpoints = self.endpoints.iter().map(|(name, endpoint)| {
            let view = EndpointView {
                wish: wish_for(MemberSpec::of(spec), name, &endpoint.network_id),
                network_id: endpoint.network_id.to_string(),
                endpoint_id: endpoint.endpoint_id.to_string(),
                mac_address: endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                gateway: endpoint.gateway,
                address: endpoint.address.map(Subnet::address),
                prefix_len: endpoint.address.map(Subnet::prefix).unwrap_or_default(),
                gateway6: endpoint.gateway6,
                address6: endpoint.address6.map(Subnet::address),
                prefix_len6: endpoint.address6.map(Subnet::prefix).unwrap_or_default(),
                dns_names: endpoint.dns_names.clone(),
            };
            (name.clone(), view)
        });
        NetworkView {
            sandbox_id: self.sandbox_id.clone(),
            // Docker names a mount; our namespaces have no name, only this label.
            sandbox_key: self
                .sandbox_id
                .get(..12)
                .map(|short| format!("netns:{short}"))
                .unwrap_or_default(),
            ports: self.shown_ports(spec),
            endpoints: endpoints.collect(),
        }
    }

    /// Exposed ports; published ones with their addresses, the others `None`.
    #[must_use]
    pub fn shown_ports(&self, spec: &ContainerSpec) -> BTreeMap<Port, Option<Vec<HostPort>>> {
        let mut ports: BTreeMap<Port, Option<Vec<HostPort>>> =
            spec.exposed_ports().into_iter().map(|port| (port, None)).collect();
        if self.endpoints.is_empty() {
            ports.clear();
        }
        for published in &self.ports {
            let host = HostPort { ip: published.host.ip(), port: published.host.port() };
            ports.entry(published.container).or_default().get_or_insert_default().push(host);
        }
        ports
    }

    /// The same networks for lists, which copy nothing.
    pub(crate) fn places<'a>(&'a self, spec: &'a ContainerSpec) -> Vec<Place<'a>> {
        let places = self.endpoints.iter().map(|(network, endpoint)| Place {
            network,
            network_id: Some(endpoint.network_id),
            wish: find_wish(&spec.endpoints, network, &endpoint.network_id),
            endpoint: Some(endpoint),
        });
        places.collect()
    }
}

/// The same of a container that does not run.
#[must_use]
pub fn stopped_places(spec: &ContainerSpec, id_of: impl Fn(&str) -> Option<Id>) -> Vec<Place<'_>> {
    let places = spec.endpoints.iter().map(|(network, wish)| Place {
        network,
        // Compose recreates a container whose networks have other ids than it expects.
        network_id: id_of(network),
        wish: Some(wish),
        endpoint: None,
    });
    places.collect()
}

/// What the user asked for on a network, which may be named by its id.
fn find_wish<'a>(
    endpoints: &'a BTreeMap<String, EndpointSpec>,
    name: &str,
    id: &Id,
) -> Option<&'a EndpointSpec> {
    let is_it =
        |asked: &str| asked == name || (asked.len() >= 4 && id.to_string().starts_with(asked));
    endpoints.iter().find(|(asked, _)| is_it(asked)).map(|(_, wish)| wish)
}

/// The wish for a network, which the user may have named by its id.
pub(super) fn wish_for(spec: MemberSpec<'_>, name: &str, id: &Id) -> EndpointSpec {
    let mut wish = find_wish(spec.endpoints, name, id).cloned().unwrap_or_default();
    let mode = spec.network.to_string();
    if wish.mac_address.is_empty() && (mode == name || id.to_string().starts_with(&mode)) {
        spec.mac_address.clone_into(&mut wish.mac_address);
    }
    wish
}

/// The networks of inspect for a container that does not run.
#[must_use]
pub fn stopped_view(spec: &ContainerSpec) -> NetworkView {
    let endpoints: BTreeMap<String, EndpointView> = spec
        .endpoints
        .iter()
        .map(|(name, wish)| {
            let mac_address = wish.mac_address.clone();
            let view = EndpointView { wish: wish.clone(), mac_address, ..EndpointView::default() };
            (name.clone(), view)
        })
        .collect();
    NetworkView { endpoints, ..NetworkView::default() }
}

/// A network as it is shown.
#[derive(Debug, Clone)]
pub struct NetworkInfo {
    pub id: Id,
    pub name: String,
    pub created_at: SystemTime,
    pub driver: &'static str,
    pub ipv4: bool,
    pub ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub config_only: bool,
    pub config_from: String,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub ipam_driver: String,
    pub ipam_options: BTreeMap<String, String>,
    pub subnets: Vec<SubnetInfo>,
    /// Running containers on it, by id.
    pub members: BTreeMap<Id, MemberInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetInfo {
    pub subnet: Subnet,
    pub range: Option<Subnet>,
    pub gateway: Option<IpAddr>,
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// A running container on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    pub name: String,
    pub endpoint_id: Id,
    pub mac: Option<Mac>,
    pub address: Option<Subnet>,
    pub address6: Option<Subnet>,
}

/// A wish for a network. Texts are as the user typed them.
#[derive(Debug, Clone, Default)]
pub struct NetworkRequest {
    pub name: String,
    /// Empty is `bridge`.
    pub driver: String,
    pub scope: String,
    pub ipv4: Option<bool>,
    pub ipv6: Option<bool>,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_only: bool,
    pub config_from: String,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub ipam_driver: String,
    pub ipam_options: BTreeMap<String, String>,
    pub ipam: Vec<SubnetRequest>,
}

/// One `--subnet` with its range, gateway and auxiliary addresses.
#[derive(Debug, Clone, Default)]
pub struct SubnetRequest {
    pub subnet: String,
    pub range: String,
    pub gateway: String,
    pub auxiliary: BTreeMap<String, String>,
}

/// A network that was made.
#[derive(Debug, Clone)]
pub struct CreatedNetwork {
    pub id: Id,
    pub warning: String,
}

/// What a connect changed.
#[derive(Debug, Default)]
pub struct Connected {
    /// The new attachment of a running container; of a stopped one, an empty one.
    pub attachment: Attachment,
    /// Lines to be added to a running container's `/etc/hosts`.
    pub hosts_lines: String,
    /// New contents of its `resolv.conf`, when it has a resolver only now.
    pub resolv_conf: Option<String>,
}
