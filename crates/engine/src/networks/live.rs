//! Changes to containers that exist: connect, disconnect, ports that follow.
//!
//! What a running container gets is guarded by the firewall before it is there. Its published ports
//! lead to the network that its default routes go by; when that changes, the monitor gives the old
//! ones up before new ones are reserved ([`Networks::republish`]).

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use net::Mac;
use net::firewall::Item;
use net::sandbox::{self, Port as SandboxPort, Sandbox, Settings};
use spec::Id;
use sys::netlink::netns;

use super::attach::{check_together, gateway_endpoint};
use super::endpoint::{Linking, free_name, interface_settings, lease, plug};
use super::kernel::internal;
use super::publish::Targets;
use super::record::{Driver, NetworkRecord};
use super::wish::{self, IFNAME};
use super::{
    Attached, Attachment, Connected, Endpoint, Listener, Member, MemberSpec, Networks, Shared,
    State, names, publish, words,
};
use crate::containers::spec::{ContainerSpec, EndpointSpec, NetworkMode};
use crate::error::{Error, Result};

impl Networks {
    /// Connects a container to one more network: a running one (`live` is its process) at once, a
    /// stopped one at its next start, for which the caller keeps the wish. `None` when a stopped one
    /// is on the network already.
    ///
    /// # Errors
    /// In Docker's words: wishes and networks that do not go together.
    pub fn connect(
        &self,
        asked: &str,
        container: &Member<'_>,
        wish: &EndpointSpec,
        live: Option<BorrowedFd<'_>>,
    ) -> Result<Option<Connected>> {
        let mut state = self.lock();
        let id = state.resolve(asked)?;
        let record = state.networks[&id].record.clone();
        let mode = container.spec.network;
        match mode {
            NetworkMode::Container(_) => return Err(words::shares_namespace()),
            NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None | NetworkMode::Named(_) => {
            }
        }
        wish::check(&record.name, Some(&record), wish)?;
        let names = container.spec.endpoints.keys();
        let mut others: Vec<&NetworkRecord> = names
            .filter_map(|name| state.resolve(name).ok())
            .map(|id| &state.networks[&id].record)
            .collect();
        let there = others.iter().any(|other| other.id == id);
        if !there {
            others.push(&record);
            check_together(mode, &others)?;
        }
        match live {
            Some(netns) => {
                // The new wish's links count already.
                let mut endpoints = container.spec.endpoints.clone();
                endpoints.entry(record.name).or_insert_with(|| wish.clone());
                let spec = MemberSpec { endpoints: &endpoints, ..container.spec };
                let container = Member { spec, ..*container };
                self.shared.connect(&mut state, &container, &id, wish, netns).map(Some)
            }
            None if there => Ok(None),
            None => Ok(Some(Connected::default())),
        }
    }

    /// Takes a running container off a network and gives its new attachment.
    ///
    /// # Errors
    /// When it is not on that network, or the kernel refuses.
    pub fn disconnect(&self, asked: &str, id: &Id, netns: BorrowedFd<'_>) -> Result<Attachment> {
        let mut state = self.lock();
        let network = state.resolve(asked)?;
        if state.networks[&network].record.driver == Driver::Host {
            return Err(words::disconnect_from_host());
        }
        let name = state.networks[&network].record.name.clone();
        let left = || words::not_connected(id, &name);
        let found = state.attached.get(id).map(|attached| attached.attachment.clone());
        let mut attachment = found.ok_or_else(left)?;
        let endpoint = attachment.endpoints.remove(&name).ok_or_else(left)?;
        net::announcements::stop(endpoint.endpoint_id);
        self.shared.unplug(&mut state, &attachment, &endpoint, netns)?;
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

    /// Where published ports of a container lead while it has these endpoints; nothing when it has
    /// none to publish.
    pub(super) fn targets(&self, spec: &ContainerSpec, attachment: &Attachment) -> Result<Targets> {
        if publish::wishes(MemberSpec::of(spec), None)?.is_empty() {
            return Ok(Targets::default());
        }
        Ok(publish::targets(attachment, &self.lock().networks))
    }

    /// Publishes a running container's ports where its default routes go by now. Its monitor has
    /// given up those of before.
    ///
    /// # Errors
    /// When a port is taken; then the container has no published ports.
    pub(super) fn republish(&self, container: &Member<'_>) -> Result<(Attachment, Vec<Listener>)> {
        let mut state = self.lock();
        let gone = || Error::internal("the container's networks are gone");
        let mut attachment = state.attached.get(&container.id).ok_or_else(gone)?.attachment.clone();
        let old = std::mem::take(&mut attachment.ports);
        self.shared.replace(&mut state, &container.id, attachment.clone())?;
        let listeners = {
            let State { networks, attached, kernel } = &mut *state;
            let kernel = kernel.as_mut().ok_or_else(gone)?;
            for port in &old {
                kernel.ports.release(&publish::net_port(port));
            }
            let published = publish::publish(
                kernel,
                container,
                &attachment,
                networks,
                attached,
                self.shared.settings.host_ip,
            )?;
            attachment.ports = published.ports;
            published.listeners
        };
        self.shared.replace(&mut state, &container.id, attachment.clone())?;
        Ok((attachment, listeners))
    }
}

impl Shared {
    fn connect(
        &self,
        state: &mut State,
        container: &Member<'_>,
        id: &Id,
        wish: &EndpointSpec,
        netns: BorrowedFd<'_>,
    ) -> Result<Connected> {
        self.kernel(state)?;
        let record = state.networks[id].record.clone();
        let old = state.attached.get(&container.id).map(|attached| attached.attachment.clone());
        let mut attachment = old.unwrap_or_else(|| self.bare_attachment(container));
        let resolved = !attachment.upstreams.is_empty();
        if attachment.endpoints.contains_key(&record.name) {
            return Err(words::already_connected(container.name, &record.name));
        }
        let netns = netns.try_clone_to_owned().map_err(internal)?;
        let here = netns::current().map_err(internal)?;
        if netns::same(here.as_fd(), netns.as_fd()).map_err(internal)? {
            return Err(words::shares_namespace());
        }
        let mut sandbox = Sandbox::open(netns).map_err(internal)?;
        let there = sandbox.interface_names().map_err(internal)?;
        let fixed = wish.driver_opts.get(IFNAME);
        if let Some(name) = fixed.filter(|name| there.contains(name)) {
            return Err(words::interface_exists(name));
        }
        let interface = fixed.cloned().unwrap_or_else(|| free_name(&record, &there));
        let (name, mut endpoint) = lease(state, container, id, Some(wish))?;
        endpoint.interface = interface;
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
        sandbox.configure(&port, settings).map_err(internal)?;
        drop(sandbox.into_netns());
        Ok(())
    }

    /// Removes the interface from a running container and lets the default route go elsewhere.
    fn unplug(
        &self,
        state: &mut State,
        left: &Attachment,
        gone: &Endpoint,
        netns: BorrowedFd<'_>,
    ) -> Result<()> {
        let netns = netns.try_clone_to_owned().map_err(internal)?;
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
