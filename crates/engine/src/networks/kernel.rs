//! The kernel's side of all networks: bridges, firewall, port reservations, prepared sandboxes.
//!
//! Made at the daemon's start (or first use) from the records and the running containers, in one
//! firewall transaction. A thread of its own removes interfaces of stopped containers; another
//! waits for what other programs do to the firewall ([`super::guard`]).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use net::Subnet;
use net::bridge::{self, Bridge, BridgeWish, Others};
use net::firewall::neighbours::{Obstacle, Teach};
use net::firewall::{
    Between, BridgeRules, Direct, Exit, Firewall, FirewallError, Found, Item, Ports, Standing,
};
use net::ports::PortAllocator;
use net::sandbox::{PoolBridge, SandboxPool};
use net::sysctl;
use sys::netlink::route::{self, Link, link_delete};
use sys::netlink::{NetlinkError, Protocol, Socket, conntrack};

use super::guard::{self, Watcher};
use super::publish::{self, Moved};
use super::record::{Driver, NetworkRecord};
use super::{Network, Shared, State};
use crate::error::{Error, Kind, Result};

/// Prepared sandboxes: enough for a burst of starts, few enough to cost nothing worth counting.
const SANDBOXES_READY: usize = 8;
/// How often bridges of other programs are looked for, which nothing of nftables tells us of.
const BRIDGES_CHECK: Duration = Duration::from_secs(10);

/// How long interfaces of ended containers may take to vanish with their namespaces before they are
/// removed one by one: the kernel removes many at once at the price of one.
const INTERFACE_GRACE: Duration = Duration::from_secs(2);

/// What the sweeper does off the callers' path.
enum Chore {
    /// Interfaces to remove, should they not go by themselves.
    Interfaces(Vec<String>),
    /// Published ports that came or went, whose old flows must not go on.
    Flows(Vec<Moved>),
}

pub(super) struct Kernel {
    /// In the host's namespace.
    pub host: Socket,
    pub firewall: Firewall,
    pub ports: PortAllocator,
    /// Shared with starts that take from it without the networks' lock.
    pub pool: Option<Arc<SandboxPool>>,
    sweeper: Sender<Chore>,
    /// Waits for what others do to the firewall.
    watcher: Watcher,
    /// Whether the log says that the firewall is not whole.
    reported: bool,
    /// What may drop our containers' packets, as it was last seen.
    obstacles: Vec<Obstacle>,
}

pub(super) fn internal(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::caused(Kind::Internal, source)
}

impl Shared {
    /// The kernel's side, made when it is first asked for.
    pub(super) fn kernel<'a>(&self, state: &'a mut State) -> Result<&'a mut Kernel> {
        if state.kernel.is_none() {
            let kernel = self.open_kernel(state)?;
            state.kernel = Some(kernel);
        }
        state.kernel.as_mut().ok_or_else(|| Error::internal("container networks are not available"))
    }

    fn open_kernel(&self, state: &mut State) -> Result<Kernel> {
        if self.settings.ip_forward {
            sysctl::forward_ipv4().map_err(internal)?;
        }
        if !self.settings.userland_proxy {
            tracing::warn!(
                "userland-proxy is off, but connections from loopback have no other way: each container's monitor \
                 serves them, and no program of its own"
            );
        }
        let mut host = Socket::open(Protocol::Route).map_err(internal)?;
        let mut items = BTreeSet::new();
        let mut pool_bridge = None;
        for network in state.networks.values_mut() {
            match self.ensure_bridge(&mut host, network) {
                Ok(Some(bridge)) => {
                    items.insert(Item::Bridge(rules(&network.record, &bridge)));
                    if network.record.is_default_bridge() {
                        pool_bridge =
                            Some(PoolBridge { index: bridge.index, mtu: mtu(&network.record) });
                    }
                }
                Ok(None) => {}
                // One broken network must not take the others' with it.
                Err(error) => {
                    tracing::error!(network = %network.record.name, error = %error.message, "network is out of order");
                }
            }
        }
        let mut ports = PortAllocator::default();
        let State { networks, attached, .. } = state;
        let all: Vec<_> = attached
            .iter()
            .map(|(id, one)| (*id, publish::items(&one.attachment, networks, attached)))
            .collect();
        for (id, own) in all {
            items.extend(own.iter().cloned());
            let Some(container) = attached.get_mut(&id) else { continue };
            container.items = own;
            for port in &container.attachment.ports {
                ports.restore(&publish::net_port(port));
            }
        }
        let mut firewall = Firewall::open_with(&self.instance.table, items).map_err(internal)?;
        let shared = Weak::clone(&self.weak);
        let watcher = guard::watch(&firewall, move || {
            let shared = shared.upgrade()?;
            let mut state = shared.lock();
            Some(state.kernel.as_mut()?.look_after_firewall())
        })?;
        firewall.teach(Teach { ipv4: self.settings.iptables, ipv6: self.settings.ip6tables });
        if firewall.ports() == Ports::Unguarded {
            tracing::error!(
                error = %FirewallError::NoGuards,
                "containers on bridges are refused"
            );
        }
        let pool = match pool_bridge {
            Some(bridge) => {
                Some(Arc::new(SandboxPool::start(SANDBOXES_READY, bridge).map_err(internal)?))
            }
            None => None,
        };
        let sweeper = sweep(Weak::clone(&self.weak))?;
        let obstacles = Vec::new();
        let mut kernel =
            Kernel { host, firewall, ports, pool, sweeper, watcher, reported: false, obstacles };
        kernel.look_after_firewall();
        kernel.watcher.look();
        kernel.pass_neighbours();
        Ok(kernel)
    }

    /// Makes a bridge network's bridge, or brings it up to date.
    fn ensure_bridge(&self, host: &mut Socket, network: &mut Network) -> Result<Option<Bridge>> {
        let record = &network.record;
        if let Some(dummy) = record.dummy_parent().filter(|_| !record.config_only) {
            bridge::ensure_dummy(host, dummy).map_err(internal)?;
        }
        match record.driver {
            Driver::Bridge if !record.config_only => {}
            Driver::Bridge | Driver::Macvlan | Driver::Host | Driver::Null => return Ok(None),
        }
        if record.ipv6 && self.settings.ip_forward {
            sysctl::forward_ipv6().map_err(internal)?;
        }
        let addressed = record.subnets.iter().filter(|subnet| {
            let mode = gateway_mode(record, subnet.subnet.is_ipv4());
            mode != "isolated"
                && !(subnet.subnet.is_ipv4()
                    && record.flag("com.docker.network.bridge.inhibit_ipv4", false))
        });
        let wish = BridgeWish {
            name: record.interface.clone(),
            // Neighbours that know the host by the default bridge know it after a restart.
            mac: (record.interface == self.instance.bridge).then(|| self.instance.mac()),
            mtu: mtu(record),
            addresses: addressed.map(|subnet| subnet.subnet.with_address(subnet.gateway)).collect(),
            others: match record.adopted {
                true => Others::Users,
                false if record.interface == self.instance.bridge => Others::Removed,
                false => Others::Kept,
            },
        };
        let (bridge, added) = bridge::ensure(host, &wish).map_err(internal)?;
        network.bridge = Some(bridge);
        if network.record.adopted && !added.is_empty() {
            let record = &mut network.record;
            record.added.extend(added);
            record.save(&self.records_dir)?;
        }
        Ok(Some(bridge))
    }

    /// Makes what a new network needs.
    pub(super) fn realize(&self, state: &mut State, network: &mut Network) -> Result<()> {
        match network.record.driver {
            Driver::Host | Driver::Null => return Ok(()),
            Driver::Macvlan => {
                let kernel = self.kernel(state)?;
                let parent = &network.record.interface;
                if let Some(dummy) = network.record.dummy_parent() {
                    return bridge::ensure_dummy(&mut kernel.host, dummy).map_err(internal);
                }
                if !bridge::exists(&mut kernel.host, parent).map_err(internal)? {
                    return Err(Error::invalid(format!(
                        "-o parent interface {parent} does not exist on this host"
                    )));
                }
                return Ok(());
            }
            Driver::Bridge => {}
        }
        let kernel = self.kernel(state)?;
        let made = self.ensure_bridge(&mut kernel.host, network);
        if made.is_err() {
            // What is half made would hold its name and its subnet for good.
            remove_own(&mut kernel.host, &network.record)?;
        }
        if let Some(bridge) = made? {
            let rules = Item::Bridge(rules(&network.record, &bridge));
            if let Err(error) = kernel.change(&[], &[rules]) {
                remove_own(&mut kernel.host, &network.record)?;
                return Err(internal(error));
            }
            kernel.pass_neighbours();
        }
        Ok(())
    }

    /// Whether the network's bridge is one that the user made.
    pub(super) fn is_adopted(&self, state: &mut State, record: &NetworkRecord) -> Result<bool> {
        match record.driver {
            Driver::Bridge if !record.config_only => {
                bridge::exists(&mut self.kernel(state)?.host, &record.interface).map_err(internal)
            }
            Driver::Bridge | Driver::Macvlan | Driver::Host | Driver::Null => Ok(false),
        }
    }

    /// Subnets that the host has without us.
    pub(super) fn host_subnets(&self, state: &mut State) -> Result<Vec<Subnet>> {
        let mut own;
        let socket = match &mut state.kernel {
            Some(kernel) => &mut kernel.host,
            None => {
                own = Socket::open(Protocol::Route).map_err(internal)?;
                &mut own
            }
        };
        bridge::taken_subnets(socket, &self.instance.bridge).map_err(internal)
    }
}

impl Kernel {
    /// Sees to it that the interfaces go, should their namespaces outlive the containers.
    pub fn sweep(&self, interfaces: Vec<String>) {
        if !interfaces.is_empty() {
            // A thread that is gone means that the daemon is going, too.
            let _ = self.sweeper.send(Chore::Interfaces(interfaces));
        }
    }

    /// Changes the firewall, and has UDP flows of ports that came or went begin anew.
    ///
    /// # Errors
    /// When the firewall is not what it should be afterwards: then nothing may start.
    pub fn change(
        &mut self,
        gone: &[Item],
        new: &[Item],
    ) -> std::result::Result<(), FirewallError> {
        if let Err(error) = self.firewall.change(gone, new) {
            self.watcher.look();
            return Err(error);
        }
        let moved = publish::moved(gone, new);
        if !moved.is_empty() {
            let _ = self.sweeper.send(Chore::Flows(moved));
        }
        Ok(())
    }

    /// Keeps other firewalls from dropping what our own lets pass. They are the user's: whatever
    /// goes wrong there is told, and keeps nothing of ours from working.
    fn pass_neighbours(&mut self) {
        let outcome = bridge::names(&mut self.host)
            .and_then(|bridges| self.firewall.pass_neighbours(&bridges));
        let obstacles = match outcome {
            Ok(obstacles) => obstacles,
            Err(error) => {
                tracing::warn!(
                    error = crate::error::chain(&error),
                    "cannot teach another firewall our bridges"
                );
                return;
            }
        };
        for obstacle in obstacles.iter().filter(|obstacle| !self.obstacles.contains(obstacle)) {
            tracing::warn!(
                %obstacle,
                remedy = "let that firewall accept forwarded packets from and to our bridges",
                "another firewall may drop forwarded packets: then containers reach nothing outside, and are \
                 reached by the user-mode proxy only"
            );
        }
        self.obstacles = obstacles;
    }

    /// Puts back what other programs took out of the firewall, and says how it stands.
    fn look_after_firewall(&mut self) -> Standing {
        match self.firewall.look() {
            Ok(Found::Restored) => {
                tracing::warn!("another program changed our firewall table, which was made again");
                self.reported = false;
            }
            Ok(Found::Untouched) => {}
            Err(error) if !self.reported => {
                tracing::error!(
                    error = crate::error::chain(&error),
                    "our firewall table is not whole: nothing on a bridge starts until it is"
                );
                self.reported = true;
            }
            // It is tried again and again; once is enough to say so.
            Err(_) => {}
        }
        if self.firewall.neighbours_moved() {
            self.pass_neighbours();
        }
        self.firewall.standing()
    }

    /// Whether what containers send to each other can be looked at.
    pub fn guards_ports(&self) -> bool {
        self.firewall.ports() == Ports::Guarded
    }

    pub fn remove_bridge(&mut self, record: &NetworkRecord, bridge: &Bridge) -> Result<()> {
        self.change(&[Item::Bridge(rules(record, bridge))], &[]).map_err(internal)?;
        remove_own(&mut self.host, record)?;
        self.pass_neighbours();
        Ok(())
    }

    pub fn tear_down<'a>(self, records: impl Iterator<Item = &'a NetworkRecord>) -> Result<()> {
        let Kernel { mut host, firewall, pool, .. } = self;
        drop(pool);
        for record in records {
            remove_own(&mut host, record)?;
        }
        firewall.remove().map_err(internal)
    }
}

/// Removes what a network has of ours: its bridge, or of a bridge that is the user's the addresses
/// that we added; the dummy parent of a macvlan network.
pub(super) fn remove_own(host: &mut Socket, record: &NetworkRecord) -> Result<()> {
    let removed = match record.adopted {
        _ if record.driver != Driver::Bridge => match record.dummy_parent() {
            Some(dummy) => bridge::remove(host, dummy),
            None => Ok(()),
        },
        true => bridge::take_back(host, &record.interface, &record.added),
        false => bridge::remove(host, &record.interface),
    };
    removed.map_err(internal)
}

/// What the firewall lets pass on a network's bridge.
fn rules(record: &NetworkRecord, bridge: &Bridge) -> BridgeRules {
    let masquerade =
        record.flag("com.docker.network.bridge.enable_ip_masquerade", true) && !record.internal;
    let translated = record.subnets.iter().filter(|subnet| {
        masquerade && gateway_mode(record, subnet.subnet.is_ipv4()).starts_with("nat")
    });
    let unprotected =
        [true, false].iter().any(|&ipv4| gateway_mode(record, ipv4) == "nat-unprotected");
    let trusted =
        record.option("com.docker.network.bridge.trusted_host_interfaces").unwrap_or_default();
    BridgeRules {
        interface: record.interface.clone(),
        mac: bridge.mac,
        masqueraded: translated.map(|subnet| subnet.subnet).collect(),
        gateways: record.subnets.iter().map(|subnet| subnet.gateway).collect(),
        exit: if record.internal { Exit::Internal } else { Exit::Open },
        between: if isolates_ports(record) { Between::Denied } else { Between::Allowed },
        direct: if unprotected { Direct::Accepted } else { Direct::Dropped },
        trusted: trusted.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
    }
}

/// `icc=false`: containers on the bridge do not reach one another.
pub(super) fn isolates_ports(record: &NetworkRecord) -> bool {
    !record.flag("com.docker.network.bridge.enable_icc", true)
}

/// `nat`, `nat-unprotected`, `routed` or `isolated`.
pub(super) fn gateway_mode(record: &NetworkRecord, ipv4: bool) -> &str {
    let key = if ipv4 { "gateway_mode_ipv4" } else { "gateway_mode_ipv6" };
    let mode = record.option(&format!("com.docker.network.bridge.{key}"));
    match mode {
        Some("nat-unprotected" | "routed" | "isolated") => mode.unwrap_or_default(),
        Some(_) | None => "nat",
    }
}

/// The network's MTU, if it is not the kernel's own.
pub(super) fn mtu(record: &NetworkRecord) -> Option<u32> {
    let wanted: u32 = record.option("com.docker.network.driver.mtu")?.parse().ok()?;
    (wanted != 0 && wanted != 1500).then_some(wanted)
}

/// Starts the thread that removes interfaces and looks for other programs' bridges.
fn sweep(shared: Weak<Shared>) -> Result<Sender<Chore>> {
    let (sender, chores) = mpsc::channel::<Chore>();
    let mut socket = Socket::open(Protocol::Route).map_err(internal)?;
    let work = move || {
        let mut doomed: Vec<String> = Vec::new();
        let mut checked = Instant::now();
        loop {
            let patience = if doomed.is_empty() { BRIDGES_CHECK } else { INTERFACE_GRACE };
            match chores.recv_timeout(patience) {
                Ok(Chore::Interfaces(interfaces)) => {
                    doomed.extend(interfaces);
                    continue;
                }
                Ok(Chore::Flows(moved)) => {
                    delete_flows(&mut socket, &moved);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            remove_interfaces(&mut socket, &std::mem::take(&mut doomed));
            if checked.elapsed() >= BRIDGES_CHECK {
                let Some(shared) = shared.upgrade() else { return };
                if let Some(kernel) = &mut shared.lock().kernel {
                    kernel.pass_neighbours();
                }
                checked = Instant::now();
            }
        }
    };
    std::thread::Builder::new().name("network-sweeper".to_owned()).spawn(work).map_err(internal)?;
    Ok(sender)
}

fn remove_interfaces(socket: &mut Socket, interfaces: &[String]) {
    for interface in interfaces {
        let outcome: std::result::Result<(), NetlinkError> =
            socket.send(&[link_delete(Link::Name(interface))]);
        match outcome {
            Err(error) if !error.is_missing() => {
                tracing::warn!(
                    interface,
                    error = crate::error::chain(&error),
                    "interface is left behind"
                );
            }
            Ok(()) | Err(_) => {}
        }
    }
}

fn delete_flows(socket: &mut Socket, moved: &[Moved]) {
    let outcome = route::dump_addresses(socket).and_then(|addresses| {
        let local: BTreeSet<IpAddr> = addresses.iter().map(|info| info.address).collect();
        let mut netfilter = Socket::open(Protocol::Netfilter)?;
        conntrack::delete_flows(&mut netfilter, |flow| {
            moved.iter().any(|port| port.outdates(flow, &local))
        })
    });
    if let Err(error) = outcome {
        tracing::warn!(
            error = crate::error::chain(&error),
            "UDP flows that began earlier may go to where a port led before"
        );
    }
}
