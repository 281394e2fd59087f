//! Containers come and go: start, exit, connect, disconnect.
//!
//! A start is a plan (networks, addresses, names), then the sandbox, then the ports, then one
//! firewall transaction. Whatever fails, all that was done before is undone, the last first.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;

use net::firewall::Item;
use net::sandbox::{self, Isolated, Port as SandboxPort, PortWish, Ready, Sandbox, Settings};
use net::{Mac, Subnet};
use spec::Id;
use sys::netlink::netns;
use sys::netlink::route::{Link, MacvlanMode, find_link};

use super::kernel::{Kernel, gateway_mode, internal, isolates_ports, mtu};
use super::record::{Driver, NetworkRecord};
use super::view::wish_for;
use super::wish::{self, IFNAME, parse_address, parse_mac, validate_subnets, validate_wish};
use super::{
    Attached, Attachment, Connected, Container, Endpoint, Network, Networks, Prepared, Shared,
    State, has_sandbox, names, publish, words,
};
use crate::containers::spec::{ContainerSpec, EndpointSpec, NetworkMode};
use crate::error::{Error, Kind, Result};

/// A sandbox that is being filled.
enum Spare {
    /// As the pool makes them, on the default bridge.
    Plugged(Ready),
    Bare(Sandbox),
}

impl Spare {
    /// The sandbox without the pool's interface.
    fn bare(self) -> Result<Sandbox> {
        match self {
            Spare::Bare(sandbox) => Ok(sandbox),
            Spare::Plugged(Ready { mut sandbox, port }) => {
                sandbox.remove(&port.name).map_err(internal)?;
                Ok(sandbox)
            }
        }
    }
}

/// The endpoint that default routes of a family go by: the highest priority, then networks with a
/// way out, then those with gateways of both families, then the first by name.
pub(super) fn gateway_endpoint<'a>(
    attachment: &'a Attachment,
    networks: &BTreeMap<Id, Network>,
    ipv4: bool,
) -> Option<(&'a String, &'a Endpoint)> {
    let gateway = |endpoint: &Endpoint| if ipv4 { endpoint.gateway } else { endpoint.gateway6 };
    attachment.endpoints.iter().filter(|(_, endpoint)| gateway(endpoint).is_some()).min_by_key(
        |(name, endpoint)| {
            let internal =
                networks.get(&endpoint.network_id).is_none_or(|network| network.record.internal);
            let single = endpoint.gateway.is_none() || endpoint.gateway6.is_none();
            (-endpoint.gw_priority, internal, single, (*name).clone())
        },
    )
}

impl Networks {
    /// Gives a container its networks, for a start.
    ///
    /// # Errors
    /// In Docker's words: a network that is not there, an address or a port that is taken. Then
    /// nothing is left behind.
    pub fn prepare(&self, container: &Container<'_>) -> Result<Prepared> {
        let mode = &container.spec.host.network;
        if !has_sandbox(mode) && !container.spec.network_disabled {
            let (hosts, resolv_conf) = self.shared.files_outside(container)?;
            let mut attachment = self.shared.bare_attachment(container);
            if *mode == NetworkMode::Host {
                self.shared.note_membership(&mut attachment, container, "host")?;
            }
            return Ok(Prepared {
                netns: None,
                listeners: Vec::new(),
                attachment,
                hosts,
                resolv_conf,
            });
        }
        // What an earlier run may have left, when its exit was not seen.
        self.release(&container.id);
        let prepare = || {
            let spare = self.shared.spare(container)?;
            self.shared.prepare(&mut self.lock(), container, spare)
        };
        prepare().map_err(|error: Error| words::setting_up(&error))
    }

    /// Takes a container's networks back. Does nothing when it has none.
    pub fn release(&self, id: &Id) {
        let left = self.take_back(id);
        self.tell_left(id, &left);
    }

    /// The same, without a word: which networks it was on, for [`Networks::tell_left`].
    pub fn take_back(&self, id: &Id) -> Vec<NetworkRecord> {
        let mut state = self.lock();
        self.shared.release(&mut state, id)
    }

    /// Publishes that a container left networks.
    pub fn tell_left(&self, id: &Id, networks: &[NetworkRecord]) {
        for network in networks {
            self.shared.event("disconnect", network, Some(id));
        }
    }

    /// Makes a container's names follow its new name.
    pub fn rename(&self, id: &Id, name: &str) {
        let mut state = self.lock();
        let Some(attached) = state.attached.get_mut(id) else { return };
        let old = std::mem::replace(&mut attached.attachment.container_name, name.to_owned());
        let mut touched = Vec::new();
        for endpoint in attached.attachment.endpoints.values_mut() {
            for known in &mut endpoint.dns_names {
                if *known == old {
                    name.clone_into(known);
                }
            }
            touched.push(endpoint.network_id);
        }
        for network in touched {
            self.shared.write_zone(&state, &network);
        }
    }

    /// Connects a container to one more network: a running one (`live` is its process) at once, a
    /// stopped one at its next start, for which the caller keeps the wish.
    pub fn connect(
        &self,
        asked: &str,
        container: &Container<'_>,
        wish: &EndpointSpec,
        live: Option<u32>,
        _now: Option<&Attachment>,
    ) -> Result<Connected> {
        let mut state = self.lock();
        let id = state.resolve(asked)?;
        let record = state.networks[&id].record.clone();
        match (&container.spec.host.network, record.driver) {
            (NetworkMode::Container(_), _) => return Err(words::shares_namespace()),
            (NetworkMode::Host, _) | (_, Driver::Host) => return Err(words::host_mode_fixed()),
            (NetworkMode::None, _) | (_, Driver::Null) if live.is_some() => {
                return Err(words::none_mode_alone());
            }
            (NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_), _) => {}
        }
        validate_wish(record.is_default_bridge(), wish)?;
        validate_subnets(&record, wish)?;
        let Some(pid) = live else {
            return Ok(Connected {
                attachment: Attachment::default(),
                hosts_lines: String::new(),
                resolv_conf: None,
            });
        };
        self.shared.connect(&mut state, container, &id, wish, pid)
    }

    /// Takes a container off a network and gives its new attachment. With `force` a container that
    /// is not there is no error.
    pub fn disconnect(&self, asked: &str, id: &Id, live: Option<u32>) -> Result<Attachment> {
        let mut state = self.lock();
        let network = state.resolve(asked)?;
        if state.networks[&network].record.driver == Driver::Host {
            return Err(words::host_mode_fixed());
        }
        let found = state.attached.get(id).map(|attached| attached.attachment.clone());
        let Some(mut attachment) = found.filter(|_| live.is_some()) else {
            return Ok(Attachment::default());
        };
        let name = state.networks[&network].record.name.clone();
        let Some(endpoint) = attachment.endpoints.remove(&name) else {
            return Err(words::not_connected(&attachment.container_name, &name));
        };
        if let Some(pid) = live {
            self.shared.unplug(&mut state, &attachment, &endpoint, pid)?;
        }
        if let Some(network) = state.networks.get_mut(&network) {
            for address in endpoint.addresses() {
                network.release(address, id);
            }
        }
        self.shared.replace(&mut state, id, attachment.clone())?;
        self.shared.write_zone(&state, &network);
        self.shared.refresh_links(&mut state, &network);
        self.shared.write_resolver(&state, id);
        if let Some(network) = state.networks.get(&network) {
            self.shared.event("disconnect", &network.record, Some(id));
        }
        Ok(attachment)
    }
}

/// The networks of a container in the order in which they get interfaces: that of `--network`
/// first.
fn networks_of(state: &State, spec: &ContainerSpec) -> Result<Vec<Id>> {
    let first = match &spec.host.network {
        NetworkMode::Bridge => default_network(state)?,
        NetworkMode::None => state.resolve("none")?,
        NetworkMode::Named(name) => state.resolve(name)?,
        NetworkMode::Host | NetworkMode::Container(_) => return Ok(Vec::new()),
    };
    let mut ids = vec![first];
    for name in spec.endpoints.keys() {
        let id = match name.as_str() {
            "bridge" | "default" => default_network(state)?,
            name => state.resolve(name)?,
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// With `--bridge none` a container that asks for nothing else has no network.
fn default_network(state: &State) -> Result<Id> {
    state.resolve("bridge").or_else(|_| state.resolve("none"))
}

impl Shared {
    fn bare_attachment(&self, container: &Container<'_>) -> Attachment {
        Attachment {
            container_name: container.name.to_owned(),
            hostname: container.hostname.to_owned(),
            sandbox_id: Id::random().to_string(),
            exposed_ports: container.spec.exposed_ports().into_iter().collect(),
            bridge_links: container
                .spec
                .host
                .links
                .iter()
                .map(|link| names::link_parts(link).0.to_owned())
                .collect(),
            privileged: container.spec.host.privileged,
            ..Attachment::default()
        }
    }

    /// Shows the container on `host`, which gives it nothing.
    fn note_membership(
        &self,
        attachment: &mut Attachment,
        container: &Container<'_>,
        name: &str,
    ) -> Result<()> {
        let mut state = self.lock();
        let id = state.resolve(name)?;
        attachment.endpoints.insert(name.to_owned(), empty_endpoint(id));
        state
            .attached
            .insert(container.id, Attached { attachment: attachment.clone(), items: Vec::new() });
        self.event("connect", &state.networks[&id].record, Some(&container.id));
        Ok(())
    }

    /// A sandbox to begin with. Making one takes milliseconds, so it is made without the lock.
    fn spare(&self, container: &Container<'_>) -> Result<Spare> {
        let alone =
            container.spec.host.network == NetworkMode::None || container.spec.network_disabled;
        let pool = self.kernel(&mut self.lock())?.pool.clone();
        match pool.filter(|_| !alone) {
            Some(pool) => pool.take_or_make().map(Spare::Plugged).map_err(internal),
            None => Sandbox::create().map(Spare::Bare).map_err(internal),
        }
    }

    fn prepare(
        &self,
        state: &mut State,
        container: &Container<'_>,
        spare: Spare,
    ) -> Result<Prepared> {
        self.kernel(state)?;
        let mut attachment = self.bare_attachment(container);
        let ids = if container.spec.network_disabled {
            vec![state.resolve("none")?]
        } else {
            networks_of(state, container.spec)?
        };
        let outcome = self.build(state, container, &ids, &mut attachment, spare);
        match outcome {
            Ok((sandbox, listeners)) => {
                for id in &ids {
                    self.write_zone(state, id);
                    self.refresh_links(state, id);
                    self.event("connect", &state.networks[id].record, Some(&container.id));
                }
                self.write_resolver(state, &container.id);
                let (hosts, resolv_conf) = self.files(state, container, &attachment);
                Ok(Prepared {
                    netns: Some(sandbox.into_netns()),
                    listeners,
                    attachment,
                    hosts,
                    resolv_conf,
                })
            }
            Err(error) => {
                self.give_back(state, &container.id, &attachment);
                Err(error)
            }
        }
    }

    /// Leases, sandbox, ports and firewall. What `attachment` names when this fails must be given
    /// back.
    fn build(
        &self,
        state: &mut State,
        container: &Container<'_>,
        ids: &[Id],
        attachment: &mut Attachment,
        spare: Spare,
    ) -> Result<(Sandbox, Vec<super::Listener>)> {
        for (place, id) in ids.iter().enumerate() {
            let record = &state.networks[id].record;
            let linked = record.is_default_bridge() && !container.spec.host.links.is_empty();
            let guarded = state.kernel.as_ref().is_some_and(Kernel::guards_ports);
            if linked && isolates_ports(record) && !guarded {
                return Err(words::links_without_icc());
            }
            let (name, mut endpoint) = lease(state, container, id, None)?;
            endpoint.interface = interface_name(container, &state.networks[id].record, place);
            attachment.endpoints.insert(name, endpoint);
        }
        let sandbox = self.plug_all(state, ids, attachment, spare)?;
        let targets = publish::targets(attachment, &state.networks);
        let default_ip = publish::default_ip(attachment, &state.networks).or(self.settings.host_ip);
        let wishes = publish::wishes(container.spec, default_ip)?;
        attachment.open_ports = wishes.iter().map(publish::container_port).collect();
        let State { networks, attached, kernel } = state;
        let Some(kernel) = kernel else {
            return Err(Error::internal("container networks are not available"));
        };
        let gateway = gateway_endpoint(attachment, networks, true)
            .or(gateway_endpoint(attachment, networks, false));
        let mut listeners = Vec::new();
        if let Some((_, endpoint)) = gateway {
            let who = (container.name, &endpoint.endpoint_id);
            let published = publish::reserve(&mut kernel.ports, &wishes, targets, attached, who)?;
            attachment.ports = published.ports;
            listeners = published.listeners;
        }
        names::links(attachment, container, networks, attached);
        self.choose_upstreams(attachment, container, networks);
        let items = publish::items(attachment, networks, attached);
        kernel.change(&[], &items).map_err(internal)?;
        attached.insert(container.id, Attached { attachment: attachment.clone(), items });
        Ok((sandbox, listeners))
    }

    /// A sandbox with all the endpoints' interfaces.
    fn plug_all(
        &self,
        state: &mut State,
        ids: &[Id],
        attachment: &mut Attachment,
        spare: Spare,
    ) -> Result<Sandbox> {
        let settings: Vec<Settings> = ids
            .iter()
            .map(|id| {
                interface_settings(attachment, &state.networks, &state.networks[id].record.name)
            })
            .collect();
        let State { networks, kernel, .. } = state;
        let Some(kernel) = kernel else {
            return Err(Error::internal("container networks are not available"));
        };
        let linking = Linking::of(attachment);
        let mut spare = spare;
        for (id, settings) in ids.iter().zip(&settings) {
            let network = &networks[id];
            let Some(endpoint) = attachment.endpoints.get_mut(&network.record.name) else {
                continue;
            };
            if network.record.driver == Driver::Null {
                continue;
            }
            let (mut inside, port) = match (spare, network.bridge) {
                (Spare::Plugged(ready), Some(_)) => {
                    adapt(kernel, networks, network, endpoint, linking, ready)?
                }
                (other, _) => plug(kernel, network, endpoint, linking, other.bare()?)?,
            };
            inside.configure(&port, settings).map_err(internal)?;
            endpoint.mac = Some(port.mac);
            spare = Spare::Bare(inside);
        }
        spare.bare()
    }

    fn release(&self, state: &mut State, id: &Id) -> Vec<NetworkRecord> {
        let Some(attached) = state.attached.remove(id) else { return Vec::new() };
        if let Some(kernel) = &mut state.kernel
            && let Err(error) = kernel.change(&attached.items, &[])
        {
            tracing::warn!(container = %id, error = crate::error::chain(&error), "firewall entries are left");
        }
        self.give_back(state, id, &attached.attachment);
        let mut left = Vec::new();
        for endpoint in attached.attachment.endpoints.values() {
            self.write_zone(state, &endpoint.network_id);
            self.refresh_links(state, &endpoint.network_id);
            if let Some(network) = state.networks.get(&endpoint.network_id) {
                left.push(network.record.clone());
            }
        }
        left
    }

    /// Ends leases and reservations and has the interfaces removed.
    fn give_back(&self, state: &mut State, id: &Id, attachment: &Attachment) {
        let State { networks, kernel, .. } = state;
        for endpoint in attachment.endpoints.values() {
            if let Some(network) = networks.get_mut(&endpoint.network_id) {
                for address in endpoint.addresses() {
                    network.release(address, id);
                }
            }
        }
        let Some(kernel) = kernel else { return };
        for port in &attachment.ports {
            kernel.ports.release(&publish::net_port(port));
        }
        let interfaces =
            attachment.endpoints.values().map(|endpoint| endpoint.host_interface.clone());
        kernel.sweep(interfaces.filter(|name| !name.is_empty()).collect());
    }

    fn connect(
        &self,
        state: &mut State,
        container: &Container<'_>,
        id: &Id,
        wish: &EndpointSpec,
        pid: u32,
    ) -> Result<Connected> {
        self.kernel(state)?;
        let record = state.networks[id].record.clone();
        let old = state.attached.get(&container.id).map(|attached| attached.attachment.clone());
        let mut attachment = old.unwrap_or_else(|| self.bare_attachment(container));
        let resolved = !attachment.upstreams.is_empty();
        if attachment.endpoints.contains_key(&record.name) {
            return Err(words::already_connected(container.name, &record.name));
        }
        let netns = netns::of_process(pid).map_err(internal)?;
        let here = netns::current().map_err(internal)?;
        if netns::same(here.as_fd(), netns.as_fd()).map_err(internal)? {
            return Err(words::host_mode_fixed());
        }
        let mut sandbox = Sandbox::open(netns).map_err(internal)?;
        let there = sandbox.interface_names().map_err(internal)?;
        let (name, mut endpoint) = lease(state, container, id, Some(wish))?;
        let fixed = wish.driver_opts.get(IFNAME).cloned();
        endpoint.interface = fixed.unwrap_or_else(|| {
            let prefix = prefix(&record);
            let free = |name: &String| !there.contains(name);
            (0..).map(|number| format!("{prefix}{number}")).find(free).expect("some number is free")
        });
        if record.driver == Driver::Bridge {
            endpoint.mac.get_or_insert_with(Mac::random);
            endpoint.host_interface = sandbox::veth_name();
        }
        attachment.endpoints.insert(name.clone(), endpoint);
        let settings = interface_settings(&attachment, &state.networks, &name);
        names::links(&mut attachment, container, &state.networks, &state.attached);
        self.choose_upstreams(&mut attachment, container, &state.networks);
        // The port is guarded before it is there: the container runs.
        let outcome = self.replace(state, &container.id, attachment.clone());
        let outcome = outcome
            .and_then(|()| self.plug_live(state, id, &mut attachment, sandbox, &settings))
            .and_then(|()| self.replace(state, &container.id, attachment.clone()));
        if let Err(error) = outcome {
            let mut before = attachment.clone();
            before.endpoints.remove(&name);
            self.replace(state, &container.id, before)?;
            attachment.endpoints.retain(|other, _| *other == name);
            attachment.ports.clear();
            self.give_back(state, &container.id, &attachment);
            return Err(error);
        }
        self.write_zone(state, id);
        self.refresh_links(state, id);
        self.write_resolver(state, &container.id);
        self.event("connect", &record, Some(&container.id));
        let (_, resolv_conf) = self.files(state, container, &attachment);
        let resolv_conf = (!resolved && !attachment.upstreams.is_empty()).then_some(resolv_conf);
        let hosts_lines = attachment.endpoints.get(&record.name).map(|endpoint| {
            let addresses: Vec<IpAddr> = endpoint.addresses().collect();
            names::own_lines(&addresses, container)
        });
        Ok(Connected { attachment, hosts_lines: hosts_lines.unwrap_or_default(), resolv_conf })
    }

    fn plug_live(
        &self,
        state: &mut State,
        id: &Id,
        attachment: &mut Attachment,
        sandbox: Sandbox,
        settings: &Settings,
    ) -> Result<()> {
        let State { networks, kernel, .. } = state;
        let Some(kernel) = kernel else {
            return Err(Error::internal("container networks are not available"));
        };
        let network = &networks[id];
        let linking = Linking::of(attachment);
        let Some(endpoint) = attachment.endpoints.get_mut(&network.record.name) else {
            return Ok(());
        };
        let (mut sandbox, port) = plug(kernel, network, endpoint, linking, sandbox)?;
        sandbox.configure(&port, settings).map_err(internal)
    }

    /// Removes the interface from a running container and lets the default route go elsewhere.
    fn unplug(
        &self,
        state: &mut State,
        left: &Attachment,
        gone: &Endpoint,
        pid: u32,
    ) -> Result<()> {
        let netns = netns::of_process(pid).map_err(internal)?;
        let mut sandbox = Sandbox::open(netns).map_err(internal)?;
        sandbox.remove(&gone.interface).map_err(internal)?;
        for ipv4 in [true, false] {
            let Some((_, endpoint)) = gateway_endpoint(left, &state.networks, ipv4) else {
                continue;
            };
            let gateway = if ipv4 { endpoint.gateway } else { endpoint.gateway6 };
            let internal_only = state
                .networks
                .get(&endpoint.network_id)
                .is_none_or(|network| network.record.internal);
            let index = sandbox.find(&endpoint.interface).map_err(internal)?;
            if let (Some(gateway), Some(index), Some(mac), false) =
                (gateway, index, endpoint.mac, internal_only)
            {
                let port = SandboxPort { name: endpoint.interface.clone(), index, mac, host: None };
                sandbox.reroute(&port, &[gateway]).map_err(internal)?;
            }
        }
        Ok(())
    }

    /// Puts a changed attachment in the place of the old one, in the firewall too.
    pub(super) fn replace(&self, state: &mut State, id: &Id, attachment: Attachment) -> Result<()> {
        let State { networks, attached, kernel } = state;
        let items = publish::items(&attachment, networks, attached);
        let old: Vec<Item> =
            attached.get(id).map(|attached| attached.items.clone()).unwrap_or_default();
        if let Some(kernel) = kernel {
            let gone: Vec<Item> =
                old.iter().filter(|item| !items.contains(item)).cloned().collect();
            let new: Vec<Item> = items.iter().filter(|item| !old.contains(item)).cloned().collect();
            kernel.change(&gone, &new).map_err(internal)?;
        }
        attached.insert(*id, Attached { attachment, items });
        Ok(())
    }
}

fn empty_endpoint(network_id: Id) -> Endpoint {
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
fn lease(
    state: &mut State,
    container: &Container<'_>,
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
    validate_wish(network.record.is_default_bridge(), wish)?;
    validate_subnets(&network.record, wish)?;
    let mut endpoint = empty_endpoint(*id);
    endpoint.gw_priority = wish.gw_priority;
    endpoint.link_local = wish::link_local(wish)?;
    endpoint.sysctls = wish::sysctls(wish)?;
    if !wish.mac_address.is_empty() {
        endpoint.mac = Some(parse_mac(&wish.mac_address)?);
    }
    for (ipv4, text, family) in
        [(true, &wish.ipv4_address, "IPv4"), (false, &wish.ipv6_address, "IPv6")]
    {
        let Some(subnet) = network.record.subnet(ipv4).cloned() else { continue };
        let wanted = parse_address(text, family)?;
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

fn interface_name(container: &Container<'_>, record: &NetworkRecord, place: usize) -> String {
    match record.driver {
        Driver::Null | Driver::Host => return String::new(),
        Driver::Bridge | Driver::Macvlan => {}
    }
    let wish = wish_for(container.spec, &record.name, &record.id);
    wish.driver_opts.get(IFNAME).cloned().unwrap_or_else(|| format!("{}{place}", prefix(record)))
}

/// Addresses of an endpoint's interface, and the default routes if they go by it.
fn interface_settings(
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
    Settings { addresses, gateways, sysctls: sysctls.collect() }
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
enum Linking {
    Yes,
    No,
}

impl Linking {
    fn of(attachment: &Attachment) -> Linking {
        if attachment.bridge_links.is_empty() { Linking::No } else { Linking::Yes }
    }
}

/// Makes a prepared sandbox fit: another bridge, name, MAC address, MTU.
fn adapt(
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
fn plug(
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
