//! Containers come and go: start and exit. Elsewhere: changes to running ones, in [`super::live`].
//!
//! A start is a plan (networks, addresses, names), then the sandbox, then the ports, then one
//! firewall transaction. Whatever fails, all that was done before is undone, the last first.

use std::collections::BTreeMap;

use net::sandbox::{Ready, Sandbox, Settings};
use spec::Id;

use super::endpoint::{
    Linking, adapt, check_interface, empty_endpoint, interface_names, interface_settings, lease,
    plug,
};
use super::kernel::{Kernel, internal, isolates_ports};
use super::record::{Driver, NetworkRecord};
use super::{
    Attached, Attachment, Endpoint, Member, MemberSpec, Network, Networks, Prepared, Shared, State,
    has_sandbox, names, publish, words,
};
use crate::containers::spec::NetworkMode;
use crate::error::{Error, Result};

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
    pub fn prepare(&self, container: &Member<'_>) -> Result<Prepared> {
        let mode = container.spec.network;
        if !has_sandbox(mode) && !container.spec.network_disabled {
            let (hosts, resolv_conf) = self.shared.files_outside(container)?;
            let mut attachment = self.shared.bare_attachment(container);
            if container.spec.endpoints.contains_key("host") {
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
}

/// The networks of a container in the order in which they get interfaces: that of `--network`
/// first.
fn networks_of(state: &State, spec: MemberSpec<'_>) -> Result<Vec<Id>> {
    if spec.network_disabled {
        return Ok(vec![state.resolve("none")?]);
    }
    let mode = spec.network.to_string();
    let (first, rest): (Vec<&String>, Vec<&String>) =
        spec.endpoints.keys().partition(|name| **name == mode);
    let mut ids = Vec::new();
    for name in first.into_iter().chain(rest) {
        let id = match name.as_str() {
            "bridge" | "default" => default_network(state)?,
            name => state.resolve(name)?,
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let records: Vec<&NetworkRecord> = ids.iter().map(|id| &state.networks[id].record).collect();
    check_together(spec.network, &records)?;
    Ok(ids)
}

/// Refuses networks that one container cannot be on.
///
/// Source: moby 28.2 `daemon/container_operations.go`, `updateNetworkSettings`.
pub(super) fn check_together(mode: &NetworkMode, records: &[&NetworkRecord]) -> Result<()> {
    let any = |driver: Driver| records.iter().any(|record| record.driver == driver);
    if any(Driver::Host) && *mode != NetworkMode::Host {
        return Err(words::connect_to_host());
    }
    match records {
        [] | [_] => Ok(()),
        _ if any(Driver::Host) => Err(words::shares_namespace()),
        _ if any(Driver::Null) => Err(words::none_mode_alone()),
        _ => Ok(()),
    }
}

/// With `--bridge none` a container that asks for nothing else has no network.
fn default_network(state: &State) -> Result<Id> {
    state.resolve("bridge").or_else(|_| state.resolve("none"))
}

impl Shared {
    pub(super) fn bare_attachment(&self, container: &Member<'_>) -> Attachment {
        Attachment {
            container_name: container.name.to_owned(),
            hostname: container.hostname.to_owned(),
            sandbox_id: Id::random().to_string(),
            exposed_ports: container.spec.exposed_ports().into_iter().collect(),
            bridge_links: container
                .spec
                .links
                .iter()
                .map(|link| names::link_parts(link).0.to_owned())
                .collect(),
            privileged: container.spec.privileged,
            ..Attachment::default()
        }
    }

    /// Shows the container on `host`, which gives it nothing.
    fn note_membership(
        &self,
        attachment: &mut Attachment,
        container: &Member<'_>,
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
    fn spare(&self, container: &Member<'_>) -> Result<Spare> {
        let mut names = container.spec.endpoints.keys();
        let alone = container.spec.network_disabled || names.all(|name| name == "none");
        let pool = self.kernel(&mut self.lock())?.pool.clone();
        match pool.filter(|_| !alone) {
            Some(pool) => pool.take_or_make().map(Spare::Plugged).map_err(internal),
            None => Sandbox::create().map(Spare::Bare).map_err(internal),
        }
    }

    fn prepare(&self, state: &mut State, container: &Member<'_>, spare: Spare) -> Result<Prepared> {
        self.kernel(state)?;
        let mut attachment = self.bare_attachment(container);
        let ids = networks_of(state, container.spec)?;
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
        container: &Member<'_>,
        ids: &[Id],
        attachment: &mut Attachment,
        spare: Spare,
    ) -> Result<(Sandbox, Vec<super::Listener>)> {
        let names = interface_names(container, state, ids);
        for (id, interface) in ids.iter().zip(names) {
            let record = &state.networks[id].record;
            let linked = record.is_default_bridge() && !container.spec.links.is_empty();
            let guarded = state.kernel.as_ref().is_some_and(Kernel::guards_ports);
            if linked && isolates_ports(record) && !guarded {
                return Err(words::links_without_icc());
            }
            let (name, mut endpoint) = lease(state, container, id, None)?;
            endpoint.interface = interface;
            check_interface(attachment, &endpoint)?;
            attachment.endpoints.insert(name, endpoint);
        }
        let sandbox = self.plug_all(state, ids, attachment, spare)?;
        let wishes = publish::wishes(container.spec, None)?;
        attachment.open_ports = wishes.iter().map(publish::container_port).collect();
        let State { networks, attached, kernel } = state;
        let Some(kernel) = kernel else {
            return Err(Error::internal("container networks are not available"));
        };
        let host_ip = self.settings.host_ip;
        let published =
            publish::publish(kernel, container, attachment, networks, attached, host_ip)?;
        attachment.ports = published.ports;
        names::links(attachment, container, networks, attached);
        self.choose_upstreams(attachment, container, networks);
        let items = publish::items(attachment, networks, attached);
        kernel.change(&[], &items).map_err(internal)?;
        attached.insert(container.id, Attached { attachment: attachment.clone(), items });
        Ok((sandbox, published.listeners))
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
    pub(super) fn give_back(&self, state: &mut State, id: &Id, attachment: &Attachment) {
        let State { networks, kernel, .. } = state;
        for endpoint in attachment.endpoints.values() {
            net::announcements::stop(endpoint.endpoint_id);
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
}
