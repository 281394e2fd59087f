//! Networks: their records, who is on them with which address, and what that means in the kernel.
//!
//! ```text
//! <data root>/networks/<id>.json                records, written here only
//! <exec root>/networks/<id>/zone.json           names for the monitors' resolvers
//! <exec root>/containers/<id>/resolver.json     which zones one container sees
//! ```
//! All calls block, none for long: a start with a prepared sandbox is a few system calls.
//!
//! Invariants: one lock guards everything, and it is never held while waiting for anything but
//! the kernel. What a running container has is in its [`Attachment`], kept by the container's
//! record; [`Networks::restore`] rebuilds leases, zones and firewall from those. A container that
//! does not run has nothing.
//!
//! Elsewhere: how bridges, sandboxes, ports and rules are made, in the crate `net`.

mod attach;
mod create;
mod default;
mod endpoint;
mod front;
mod guard;
mod kernel;
mod live;
mod names;
mod publish;
mod record;
#[cfg(test)]
mod tests;
mod view;
mod wish;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use net::Subnet;
use net::bridge::Bridge;
use net::pool::{self, Leases, PoolRange, SubnetWish};
use spec::Id;
use sys::netlink::{Protocol, Socket};

pub use front::Force;
pub(crate) use names::link_parts;
pub use record::{Driver, NetworkRecord};
pub use view::{
    Attachment, Connected, CreatedNetwork, Endpoint, Listener, Member, MemberInfo, MemberSpec,
    NetworkInfo, NetworkRequest, Prepared, PublishedPort, SubnetInfo, SubnetRequest,
    stopped_places, stopped_view,
};

use crate::config::{EngineConfig, NetworkSettings};
use crate::containers::spec::{ContainerSpec, NetworkMode};
use crate::error::{Error, Kind, Result};
use crate::events::{EventType, Events};
use crate::filters::Filters;
use kernel::Kernel;
use record::{IdleSubnet, PREDEFINED, SubnetRecord};

/// The handle on all networks. Clones share one state.
#[derive(Clone)]
pub struct Networks {
    shared: Arc<Shared>,
}

struct Shared {
    settings: NetworkSettings,
    instance: Instance,
    records_dir: PathBuf,
    exec_root: PathBuf,
    ranges4: Vec<PoolRange>,
    ranges6: Vec<PoolRange>,
    events: Events,
    /// For the threads that work for us, which must not keep us alive.
    weak: Weak<Shared>,
    state: Mutex<State>,
}

/// What tells this daemon's kernel objects from another's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Instance {
    /// Name of the nftables tables.
    table: String,
    /// Name of the default bridge.
    bridge: String,
    /// Makes this instance's range of IPv6 addresses.
    host_id: [u8; 5],
}

struct State {
    networks: BTreeMap<Id, Network>,
    attached: BTreeMap<Id, Attached>,
    /// `None` until the first use.
    kernel: Option<Kernel>,
}

/// A network and its leases.
struct Network {
    record: NetworkRecord,
    leases: Vec<Leases<Id>>,
    /// Set for bridge networks once the kernel has the bridge.
    bridge: Option<Bridge>,
}

/// A running container.
struct Attached {
    attachment: Attachment,
    /// What the firewall holds for it.
    items: Vec<net::firewall::Item>,
}

impl Instance {
    /// The default bridge's: locally administered, and the same at every start.
    fn mac(&self) -> net::Mac {
        let [a, b, c, d, e] = self.host_id;
        net::Mac([0x02, a, b, c, d, e])
    }

    fn of(config: &EngineConfig) -> Instance {
        use sha2::{Digest as _, Sha256};
        let digest = Sha256::digest(config.data_root.as_os_str().as_encoded_bytes());
        let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
        let own = Sha256::new().chain_update(machine).chain_update(digest).finalize();
        let host_id = own[..5].try_into().expect("five bytes of thirty-two");
        if config.data_root == EngineConfig::default().data_root {
            return Instance { table: "tug".to_owned(), bridge: "tug0".to_owned(), host_id };
        }
        let suffix: String = digest[..3].iter().map(|byte| format!("{byte:02x}")).collect();
        Instance { table: format!("tug-{suffix}"), bridge: format!("tug{suffix}"), host_id }
    }
}

impl Networks {
    /// Reads the records and makes the predefined networks' where they are missing. The kernel is
    /// touched by [`Networks::restore`], or else by the first use.
    ///
    /// # Errors
    /// When the data root cannot be written, or no subnet is free for the default bridge.
    pub fn open(config: &EngineConfig, events: Events) -> Result<Self> {
        let records_dir = config.data_root.join("networks");
        let settings = config.network.clone();
        let (mut ranges4, mut ranges6): (Vec<PoolRange>, Vec<PoolRange>) = Default::default();
        for (base, prefix, size) in &settings.address_pools {
            let base = Subnet::new(*base, *prefix)
                .ok_or_else(|| Error::invalid("invalid default address pool"))?;
            let ranges = if base.is_ipv4() { &mut ranges4 } else { &mut ranges6 };
            ranges.push(PoolRange { base, size: *size });
        }
        let instance = Instance::of(config);
        if ranges4.is_empty() {
            ranges4 = pool::default_ranges();
        }
        if ranges6.is_empty() {
            ranges6.push(pool::local_ipv6_range(Some(instance.host_id)));
        }
        let mut networks = BTreeMap::new();
        for record in NetworkRecord::load_all(&records_dir) {
            networks.insert(record.id, Network::new(record)?);
        }
        let state = State { networks, attached: BTreeMap::new(), kernel: None };
        let shared = Arc::new_cyclic(|weak| Shared {
            settings,
            instance,
            records_dir,
            exec_root: config.exec_root.clone(),
            ranges4,
            ranges6,
            events,
            weak: Weak::clone(weak),
            state: Mutex::new(state),
        });
        let networks = Self { shared };
        networks.make_predefined()?;
        Ok(networks)
    }

    /// Takes over the networks of containers that outlived the previous daemon. To be called once,
    /// before any container starts.
    pub fn restore(&self, running: Vec<(Id, Attachment)>) {
        let mut state = self.lock();
        for (id, attachment) in running {
            state.adopt(id, attachment);
        }
        if let Err(error) = self.shared.kernel(&mut state) {
            tracing::warn!(error = %error.message, "container networks are not available");
        }
        for id in state.networks.keys().copied().collect::<Vec<_>>() {
            self.shared.write_zone(&state, &id);
        }
    }

    /// Refuses wishes that no start could fulfil. Networks need not exist before the start.
    pub fn validate(&self, spec: &ContainerSpec) -> Result<()> {
        let state = self.lock();
        wish::validate(spec, |name| {
            let id = state.resolve(name).ok()?;
            Some(&state.networks.get(&id)?.record)
        })
    }

    /// Calls the networks of a new container by their names, where the wish has ids.
    pub fn name_endpoints(&self, spec: &mut ContainerSpec) {
        let state = self.lock();
        let mut named = BTreeMap::new();
        for (asked, wish) in std::mem::take(&mut spec.endpoints) {
            let id = state.resolve(&asked).ok();
            let record = id.and_then(|id| state.networks.get(&id)).map(|found| &found.record);
            let name = record.map_or(asked, |record| record.name.clone());
            named.entry(name).or_insert(wish);
        }
        spec.endpoints = named;
    }

    /// The id of the network that a text means: full id, name, or unique prefix of the id.
    pub fn resolve(&self, asked: &str) -> Result<Id> {
        self.lock().resolve(asked)
    }

    /// All networks by name.
    pub fn ids(&self) -> HashMap<String, Id> {
        let state = self.lock();
        let networks = state.networks.iter();
        networks.map(|(id, network)| (network.record.name.clone(), *id)).collect()
    }

    /// Makes a network.
    pub fn create(&self, request: &NetworkRequest) -> Result<CreatedNetwork> {
        create::check_name(&request.name)?;
        let mut state = self.lock();
        if state.networks.values().any(|network| network.record.name == request.name) {
            return Err(words::name_taken(&request.name));
        }
        let request = state.with_config_from(request)?;
        let host = self.shared.host_subnets(&mut state)?;
        let ours = state.subnets();
        let pools = create::Pools {
            ranges4: &self.shared.ranges4,
            ranges6: &self.shared.ranges6,
            host: &host,
            ours: &ours,
        };
        let mut request = request;
        for (key, value) in self.shared.default_options(&request.driver) {
            request.options.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let record = create::record(&request, &pools)?;
        let id = record.id;
        if record.driver == Driver::Bridge
            && state.networks.values().any(|other| other.record.interface == record.interface)
            && !record.config_only
        {
            let text =
                format!("bridge name {} is already used by another network", record.interface);
            return Err(Error::forbidden(text));
        }
        let mut network = Network::new(record)?;
        network.record.adopted = self.shared.is_adopted(&mut state, &network.record)?;
        network.record.save(&self.shared.records_dir)?;
        if let Err(error) = self.shared.realize(&mut state, &mut network) {
            network.record.delete(&self.shared.records_dir)?;
            return Err(error);
        }
        self.shared.event("create", &network.record, None);
        state.networks.insert(id, network);
        Ok(CreatedNetwork { id, warning: String::new() })
    }

    /// Removes a network that no running container is on.
    pub fn remove(&self, asked: &str) -> Result<NetworkInfo> {
        let mut state = self.lock();
        let id = state.resolve(asked)?;
        let info = state.info(&id)?;
        if state.networks[&id].record.is_predefined() {
            return Err(words::predefined_remove(&info.name));
        }
        self.shared.remove(&mut state, &id)?;
        Ok(info)
    }

    /// What is known about a network.
    pub fn inspect(&self, asked: &str) -> Result<NetworkInfo> {
        let state = self.lock();
        let id = state.resolve(asked)?;
        state.info(&id)
    }

    /// Networks that the filters select, by name.
    ///
    /// Source: moby v28 `daemon/network/filter.go`.
    pub fn list(&self, filters: &Filters) -> Result<Vec<NetworkInfo>> {
        filters.only(&[
            "dangling", "driver", "id", "label", "label!", "name", "scope", "type", "idOrName",
        ])?;
        let dangling = filters.boolean("dangling")?;
        for value in filters.values("type") {
            if !matches!(value, "custom" | "builtin") {
                return Err(Error::invalid(format!("invalid filter: 'type'='{value}'")));
            }
        }
        let state = self.lock();
        let mut found = Vec::new();
        for id in state.networks.keys() {
            let info = state.info(id)?;
            let predefined = PREDEFINED.iter().any(|(name, _)| *name == info.name);
            let text = id.to_string();
            let selected = filters.exact("driver", info.driver)
                && filters.pattern("id", &text)
                && filters.pattern("name", &info.name)
                && filters.exact("scope", "local")
                && filters.any("type", |value| (value == "builtin") == predefined)
                && filters.any("idOrName", |value| value == info.name || text.starts_with(value))
                && filters.labels(&info.labels)
                && dangling.is_none_or(|wanted| wanted == (!predefined && info.members.is_empty()));
            if selected {
                found.push(info);
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Removes networks that nobody uses. `in_use` are those that stopped containers name.
    /// Gives the names.
    pub fn prune(&self, filters: &Filters) -> Result<Vec<String>> {
        filters.only(&["label", "label!", "until"])?;
        let until = crate::times::until(filters)?.map(std::time::SystemTime::from);
        let mut state = self.lock();
        let mut names = Vec::new();
        for id in state.networks.keys().copied().collect::<Vec<_>>() {
            let info = state.info(&id)?;
            let record = &state.networks[&id].record;
            let spared = record.is_predefined() || record.config_only || !info.members.is_empty();
            if spared
                || !filters.labels(&info.labels)
                || until.is_some_and(|until| info.created_at >= until)
            {
                continue;
            }
            match self.shared.remove(&mut state, &id) {
                Ok(()) => names.push(info.name),
                Err(error) => {
                    tracing::warn!(network = %id, error = %error.message, "network is left")
                }
            }
        }
        let attributes = BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]);
        self.shared.events.publish(EventType::Network, "prune", "", attributes);
        Ok(names)
    }

    /// Removes what all networks have in the kernel; records stay. For uninstalling and for tests.
    pub fn tear_down(&self) -> Result<()> {
        let mut state = self.lock();
        let State { networks, kernel, .. } = &mut *state;
        match kernel.take() {
            Some(kernel) => kernel.tear_down(networks.values().map(|network| &network.record)),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    fn make_predefined(&self) -> Result<()> {
        let mut state = self.lock();
        for (name, driver) in PREDEFINED {
            let found = state.networks.values().find(|network| network.record.name == name);
            let old = found.map(|network| network.record.clone());
            if name == "bridge" && self.shared.settings.bridge.as_deref() == Some("none") {
                // Containers that ask for nothing else get no network; see `networks_of`.
                if let Some(old) = old {
                    let mut host = Socket::open(Protocol::Route).map_err(kernel::internal)?;
                    self.shared.drop_own_bridge(&mut host, &old)?;
                    old.delete(&self.shared.records_dir)?;
                    state.networks.remove(&old.id);
                }
                continue;
            }
            let record = match driver {
                Driver::Bridge => self.shared.default_bridge(&mut state, old.as_ref())?,
                Driver::Host | Driver::Null | Driver::Macvlan => match old.clone() {
                    Some(old) => old,
                    None => bare(name, driver),
                },
            };
            if old.as_ref() != Some(&record) {
                record.save(&self.shared.records_dir)?;
            }
            state.networks.insert(record.id, Network::new(record)?);
        }
        Ok(())
    }
}

/// Auxiliary addresses that are the containers' default gateways instead of the bridge's own.
///
/// Source: moby 28.2 `libnetwork/drivers/bridge/bridge_linux.go`.
pub(super) const GATEWAY_ASIDE: &str = "DefaultGatewayIPv4";
pub(super) const GATEWAY_ASIDE6: &str = "DefaultGatewayIPv6";

/// A record without addresses.
fn bare(name: &str, driver: Driver) -> NetworkRecord {
    NetworkRecord {
        version: 1,
        id: Id::random(),
        name: name.to_owned(),
        created_at: std::time::SystemTime::now(),
        driver,
        ipv4: true,
        ipv6: false,
        internal: false,
        attachable: false,
        config_only: false,
        config_from: String::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        ipam_driver: "default".to_owned(),
        ipam_options: BTreeMap::new(),
        subnets: Vec::new(),
        interface: String::new(),
        adopted: false,
        added: Vec::new(),
        idle: Vec::new(),
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below restores what it half did before it returns, and a panic in between
        // costs one container its network; that must not cost the others theirs.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn default_options(&self, driver: &str) -> impl Iterator<Item = (&String, &String)> {
        let driver = if driver.is_empty() { "bridge" } else { driver };
        self.settings.default_options.get(driver).into_iter().flatten()
    }

    fn remove(&self, state: &mut State, id: &Id) -> Result<()> {
        let info = state.info(id)?;
        if !info.members.is_empty() {
            let members: Vec<(String, String)> = info
                .members
                .values()
                .map(|member| (member.name.clone(), member.endpoint_id.to_string()))
                .collect();
            return Err(words::active_endpoints(&info.name, &members));
        }
        if let Some(user) =
            state.networks.values().find(|other| other.record.config_from == info.name)
        {
            let text = format!(
                "configuration network {:?} is in use by network {:?}",
                info.name, user.record.name
            );
            return Err(Error::forbidden(text));
        }
        let Some(network) = state.networks.get(id) else { return Ok(()) };
        let record = network.record.clone();
        let bridge = network.bridge;
        // The bridge goes first: nothing would tell the next daemon whose it is. With the record still
        // there, a daemon that dies in between leaves a whole network.
        if let (Some(kernel), Some(bridge)) = (&mut state.kernel, bridge) {
            kernel.remove_bridge(&record, &bridge)?;
        }
        if let (Some(kernel), None) = (&mut state.kernel, bridge) {
            kernel::remove_own(&mut kernel.host, &record)?;
        }
        if let Some(network) = state.networks.get_mut(id) {
            network.bridge = None;
        }
        record.delete(&self.records_dir)?;
        state.networks.remove(id);
        let zone = self.zone_dir(id);
        if let Err(error) = std::fs::remove_dir_all(&zone)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %zone.display(), %error, "zone directory is left");
        }
        self.event("destroy", &record, None);
        Ok(())
    }

    /// Publishes a network event; `container` for connect and disconnect.
    fn event(&self, action: &str, record: &NetworkRecord, container: Option<&Id>) {
        let mut attributes = BTreeMap::from([
            ("name".to_owned(), record.name.clone()),
            ("type".to_owned(), record.driver.name().to_owned()),
        ]);
        if let Some(container) = container {
            attributes.insert("container".to_owned(), container.to_string());
        }
        self.events.publish(EventType::Network, action, record.id.to_string(), attributes);
    }
}

impl State {
    fn resolve(&self, asked: &str) -> Result<Id> {
        if let Ok(id) = asked.parse::<Id>()
            && self.networks.contains_key(&id)
        {
            return Ok(id);
        }
        if let Some((id, _)) =
            self.networks.iter().find(|(_, network)| network.record.name == asked)
        {
            return Ok(*id);
        }
        if asked == "default" {
            return self.resolve("bridge");
        }
        let found: Vec<&Id> = self
            .networks
            .keys()
            .filter(|id| !asked.is_empty() && id.to_string().starts_with(asked))
            .collect();
        match found.as_slice() {
            [] => Err(words::not_found(asked)),
            [one] => Ok(**one),
            several => Err(words::ambiguous(asked, several.len())),
        }
    }

    fn subnets(&self) -> Vec<Subnet> {
        let records = self.networks.values().flat_map(|network| &network.record.subnets);
        records.map(|subnet| subnet.subnet).collect()
    }

    fn info(&self, id: &Id) -> Result<NetworkInfo> {
        let Some(network) = self.networks.get(id) else {
            return Err(words::not_found(&id.to_string()));
        };
        let record = &network.record;
        let members = self.attached.iter().filter_map(|(container, attached)| {
            let endpoint = attached
                .attachment
                .endpoints
                .values()
                .find(|endpoint| endpoint.network_id == *id)?;
            let member = MemberInfo {
                name: attached.attachment.container_name.clone(),
                endpoint_id: endpoint.endpoint_id,
                mac: endpoint.mac,
                address: endpoint.address,
                address6: endpoint.address6,
            };
            Some((*container, member))
        });
        Ok(NetworkInfo {
            id: *id,
            name: record.name.clone(),
            created_at: record.created_at,
            driver: record.driver.name(),
            ipv4: record.ipv4,
            ipv6: record.ipv6,
            internal: record.internal,
            attachable: record.attachable,
            config_only: record.config_only,
            config_from: record.config_from.clone(),
            options: record.options.clone(),
            labels: record.labels.clone(),
            ipam_driver: record.ipam_driver.clone(),
            ipam_options: record.ipam_options.clone(),
            subnets: record
                .subnets
                .iter()
                .map(subnet_info)
                .chain(record.idle.iter().map(idle_info))
                .collect(),
            members: members.collect(),
        })
    }

    /// `--config-from`: the settings of a configuration network, with the request's own name.
    fn with_config_from(&self, request: &NetworkRequest) -> Result<NetworkRequest> {
        if request.config_from.is_empty() {
            return Ok(request.clone());
        }
        let id = self.resolve(&request.config_from)?;
        let source = &self.networks[&id].record;
        if !source.config_only {
            return Err(Error::forbidden(format!(
                "{} is not a configuration-only network",
                source.name
            )));
        }
        let mut merged = request.clone();
        merged.config_from.clone_from(&source.name);
        merged.options.clone_from(&source.options);
        merged.labels.extend(source.labels.clone());
        merged.internal |= source.internal;
        merged.ipv6 = merged.ipv6.or(Some(source.ipv6));
        Ok(merged)
    }

    /// Takes over what a running container has.
    fn adopt(&mut self, id: Id, attachment: Attachment) {
        for endpoint in attachment.endpoints.values() {
            let Some(network) = self.networks.get_mut(&endpoint.network_id) else { continue };
            for address in endpoint.addresses() {
                if let Err(error) = network.lease(Some(address), id) {
                    tracing::warn!(container = %id, %address, error = %error.message, "address is taken twice");
                }
            }
        }
        self.attached.insert(id, Attached { attachment, items: Vec::new() });
    }
}

fn idle_info(record: &IdleSubnet) -> SubnetInfo {
    SubnetInfo {
        subnet: record.subnet,
        range: record.range,
        gateway: record.gateway,
        auxiliary: record.auxiliary.clone(),
    }
}

fn subnet_info(record: &SubnetRecord) -> SubnetInfo {
    SubnetInfo {
        subnet: record.subnet,
        range: record.range,
        gateway: Some(record.gateway),
        auxiliary: record.auxiliary.clone(),
    }
}

impl Network {
    fn new(record: NetworkRecord) -> Result<Network> {
        let mut leases = Vec::new();
        for subnet in &record.subnets {
            let wish = SubnetWish {
                subnet: None,
                range: subnet.range,
                gateway: Some(subnet.gateway),
                auxiliary: subnet.auxiliary.clone(),
            };
            let made = Leases::new(subnet.subnet, &wish);
            leases.push(
                made.map_err(|error| Error::because(Kind::Internal, "network record", error))?,
            );
        }
        Ok(Network { record, leases, bridge: None })
    }

    /// Leases a wanted address in its own family.
    fn lease(&mut self, wanted: Option<std::net::IpAddr>, owner: Id) -> Result<std::net::IpAddr> {
        let ipv4 = wanted.is_none_or(|address| address.is_ipv4());
        self.lease_family(ipv4, wanted, owner)
    }

    fn lease_family(
        &mut self,
        ipv4: bool,
        wanted: Option<std::net::IpAddr>,
        owner: Id,
    ) -> Result<std::net::IpAddr> {
        let leases = self.leases.iter_mut().find(|leases| leases.subnet().is_ipv4() == ipv4);
        let Some(leases) = leases else {
            return Err(Error::invalid("no configured subnet contains the requested IP address"));
        };
        leases.lease(wanted, owner).map_err(|error| match error {
            pool::PoolError::Foreign { address } => {
                Error::invalid(format!("no configured subnet contains IP address {address}"))
            }
            pool::PoolError::InUse => Error::forbidden(error.to_string()),
            other => Error::internal(other.to_string()),
        })
    }

    fn release(&mut self, address: std::net::IpAddr, owner: &Id) {
        for leases in &mut self.leases {
            leases.release(address, owner);
        }
    }
}

/// Whether the mode gives the container a namespace of ours.
fn has_sandbox(mode: &NetworkMode) -> bool {
    match mode {
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => true,
        NetworkMode::Host | NetworkMode::Container(_) => false,
    }
}
