//! A container's network namespace: made ahead of time, configured in one send.
//!
//! Making a namespace and a veth pair costs milliseconds, nearly all of it waiting for the kernel's
//! locks; giving an address costs microseconds. So a [`SandboxPool`] keeps a few namespaces ready,
//! with `lo` up, the settings of a private namespace, and one veth whose outer end is a port of the
//! default bridge. A start takes one, moves the port to another bridge if need be, and configures
//! the inner end through the netlink socket that was opened inside.
//!
//! Invariant: a namespace is held by descriptors only; when the last is closed, the kernel removes
//! it with its interfaces, and with them the outer ends.
//!
//! Elsewhere: which addresses (`engine::networks`), what the port may send (`firewall`).

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sys::netlink::announce::Announcer;
use sys::netlink::route::{
    self, Link, LinkChange, LinkKind, MacvlanMode, NewLink, State, address_add, link_create,
    link_delete, link_set, route_add,
};
use sys::netlink::{NetlinkError, Protocol, Socket, netns};

use crate::announcements::{self, Announce, Repeat};
use crate::mac::random_bytes;
use crate::sysctl::{self, SysctlError};
use crate::{Mac, Subnet};

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("cannot make a network namespace")]
    Namespace { source: io::Error },
    #[error("cannot prepare a network namespace")]
    Setting { source: SysctlError },
    #[error("cannot set up interface {name}")]
    Interface { name: String, source: NetlinkError },
    #[error("cannot talk to the kernel about a network namespace")]
    Netlink { source: NetlinkError },
}

/// A network namespace with sockets that were opened in it.
#[derive(Debug)]
pub struct Sandbox {
    netns: OwnedFd,
    socket: Socket,
    announcer: Announcer,
    /// What is told again later.
    repeats: Vec<Repeat>,
}

/// An interface of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name inside.
    pub name: String,
    pub index: u32,
    pub mac: Mac,
    /// The outer end's name and number; `None` for macvlan and ipvlan.
    pub host: Option<(String, u32)>,
}

/// What an interface is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Addresses with the prefix lengths of their subnets.
    pub addresses: Vec<Subnet>,
    /// Default routes, of either family.
    pub gateways: Vec<IpAddr>,
    /// Paths below `/proc/sys/net`, and values.
    pub sysctls: Vec<(String, String)>,
    /// Whether and how often the addresses are told to the neighbours.
    pub announce: Option<Announce>,
}

impl Sandbox {
    /// Makes a namespace with `lo` up and the settings of a private namespace.
    pub fn create() -> Result<Sandbox, SandboxError> {
        let (netns, inside) = netns::create(|| {
            let sockets = open_sockets();
            // Interfaces made from now on: no IPv6 until the network has some, and then no waiting.
            for (key, value) in [
                ("ipv6/conf/default/disable_ipv6", "1"),
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv4/ip_unprivileged_port_start", "0"),
                ("ipv4/ping_group_range", "0 2147483647"),
            ] {
                sysctl::set_if_known(key, value)
                    .map_err(|source| SandboxError::Setting { source })?;
            }
            sockets
        })
        .map_err(|source| SandboxError::Namespace { source })?;
        let (mut socket, announcer) = inside?;
        let up = LinkChange { state: Some(State::Up), ..LinkChange::default() };
        socket
            .send(&[link_set(Link::Name("lo"), &up)])
            .map_err(|source| SandboxError::Interface { name: "lo".to_owned(), source })?;
        Ok(Sandbox { netns, socket, announcer, repeats: Vec::new() })
    }

    /// Opens the namespace of a running container.
    pub fn open(netns: OwnedFd) -> Result<Sandbox, SandboxError> {
        let inside = netns::within(netns.as_fd(), open_sockets);
        let (socket, announcer) = inside.map_err(|source| SandboxError::Namespace { source })??;
        Ok(Sandbox { netns, socket, announcer, repeats: Vec::new() })
    }

    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Gives up the sockets and keeps the namespace. What is told again, is so in the background.
    pub fn into_netns(self) -> OwnedFd {
        announcements::later(self.announcer, self.repeats);
        self.netns
    }

    /// Makes a veth pair, whose outer end is a port of `bridge`.
    pub fn add_veth(
        &mut self,
        host: &mut Socket,
        wish: &PortWish<'_>,
        bridge: u32,
    ) -> Result<Port, SandboxError> {
        let outer = wish.outer;
        let peer = NewLink {
            name: wish.name,
            mac: Some(wish.mac.0),
            mtu: wish.mtu,
            netns: Some(self.netns.as_fd()),
            ..NewLink::default()
        };
        let end = NewLink {
            name: outer,
            mtu: wish.mtu,
            master: Some(bridge),
            state: State::Up,
            ..NewLink::default()
        };
        let failed = |source| SandboxError::Interface { name: outer.to_owned(), source };
        host.send(&[link_create(&end, &LinkKind::Veth(peer))]).map_err(failed)?;
        let outside = route::find_link(host, Link::Name(outer)).map_err(failed)?;
        let outside = outside.ok_or_else(|| failed(NetlinkError::Malformed))?;
        let port = self.bring_up(wish)?;
        Ok(Port { host: Some((outer.to_owned(), outside.index)), ..port })
    }

    /// Makes a macvlan interface on the host's interface number `parent`.
    pub fn add_macvlan(
        &mut self,
        host: &mut Socket,
        wish: &PortWish<'_>,
        parent: u32,
        mode: MacvlanMode,
    ) -> Result<Port, SandboxError> {
        let link = NewLink {
            name: wish.name,
            mac: Some(wish.mac.0),
            mtu: wish.mtu,
            netns: Some(self.netns.as_fd()),
            ..NewLink::default()
        };
        let failed = |source| SandboxError::Interface { name: wish.name.to_owned(), source };
        host.send(&[link_create(&link, &LinkKind::Macvlan { parent, mode })]).map_err(failed)?;
        self.bring_up(wish)
    }

    fn bring_up(&mut self, wish: &PortWish<'_>) -> Result<Port, SandboxError> {
        let failed = |source| SandboxError::Interface { name: wish.name.to_owned(), source };
        let up = LinkChange { state: Some(State::Up), ..LinkChange::default() };
        self.socket.send(&[link_set(Link::Name(wish.name), &up)]).map_err(failed)?;
        let info = route::find_link(&mut self.socket, Link::Name(wish.name)).map_err(failed)?;
        let info = info.ok_or_else(|| failed(NetlinkError::Malformed))?;
        Ok(Port { name: wish.name.to_owned(), index: info.index, mac: wish.mac, host: None })
    }

    /// Renames the interface or changes its MAC address. It goes down in between.
    pub fn change(&mut self, port: &mut Port, name: &str, mac: Mac) -> Result<(), SandboxError> {
        if port.name == name && port.mac == mac {
            return Ok(());
        }
        let link = Link::Index(port.index);
        let down = LinkChange { state: Some(State::Down), ..LinkChange::default() };
        let change = LinkChange { name: Some(name), mac: Some(mac.0), ..LinkChange::default() };
        let up = LinkChange { state: Some(State::Up), ..LinkChange::default() };
        self.socket
            .send(&[link_set(link, &down), link_set(link, &change), link_set(link, &up)])
            .map_err(|source| SandboxError::Interface { name: name.to_owned(), source })?;
        name.clone_into(&mut port.name);
        port.mac = mac;
        Ok(())
    }

    /// Gives the interface its addresses and default routes, and tells the neighbours.
    pub fn configure(&mut self, port: &Port, settings: &Settings) -> Result<(), SandboxError> {
        let failed = |source| SandboxError::Interface { name: port.name.clone(), source };
        if settings.addresses.iter().any(|address| !address.is_ipv4()) {
            let key = format!("ipv6/conf/{}/disable_ipv6", port.name);
            netns::within(self.netns.as_fd(), || sysctl::set_if_known(&key, "0"))
                .map_err(|source| SandboxError::Namespace { source })?
                .map_err(|source| SandboxError::Setting { source })?;
        }
        let addresses = settings.addresses.iter();
        let mut messages: Vec<_> = addresses
            .map(|address| address_add(port.index, address.address(), address.prefix()))
            .collect();
        messages.extend(
            settings.gateways.iter().map(|&gateway| route_add(None, Some(gateway), port.index)),
        );
        self.socket.send(&messages).map_err(failed)?;
        if !settings.sysctls.is_empty() {
            let set =
                || settings.sysctls.iter().try_for_each(|(key, value)| sysctl::set(key, value));
            netns::within(self.netns.as_fd(), set)
                .map_err(|source| SandboxError::Namespace { source })?
                .map_err(|source| SandboxError::Setting { source })?;
        }
        if let Some(mut announce) = settings.announce.filter(|announce| announce.times > 0) {
            let addresses = settings.addresses.iter().map(|address| address.address()).collect();
            announce.times -= 1;
            let repeat = Repeat { announce, interface: port.index, mac: port.mac, addresses };
            repeat.tell(&self.announcer);
            if repeat.announce.times > 0 {
                self.repeats.push(repeat);
            }
        }
        Ok(())
    }

    /// Makes default routes go by `gateways` through the interface, instead of where they went.
    pub fn reroute(&mut self, port: &Port, gateways: &[IpAddr]) -> Result<(), SandboxError> {
        let failed = |source| SandboxError::Interface { name: port.name.clone(), source };
        let routes: Vec<_> =
            gateways.iter().map(|&gateway| route_add(None, Some(gateway), port.index)).collect();
        self.socket.send(&routes).map_err(failed)
    }

    /// Finds an interface by name.
    pub fn find(&mut self, name: &str) -> Result<Option<u32>, SandboxError> {
        let info = route::find_link(&mut self.socket, Link::Name(name));
        Ok(info.map_err(|source| SandboxError::Netlink { source })?.map(|info| info.index))
    }

    /// Names of all interfaces, for choosing a free one.
    pub fn interface_names(&mut self) -> Result<Vec<String>, SandboxError> {
        let links = route::dump_links(&mut self.socket)
            .map_err(|source| SandboxError::Netlink { source })?;
        Ok(links.into_iter().map(|link| link.name).collect())
    }

    /// Removes an interface; one that is not there is no error.
    pub fn remove(&mut self, name: &str) -> Result<(), SandboxError> {
        match self.socket.send(&[link_delete(Link::Name(name))]) {
            Err(error) if !error.is_missing() => {
                Err(SandboxError::Interface { name: name.to_owned(), source: error })
            }
            Err(_) | Ok(()) => Ok(()),
        }
    }
}

/// An interface to be made in a sandbox.
#[derive(Clone, Copy, Debug)]
pub struct PortWish<'a> {
    pub name: &'a str,
    /// Name of a veth's outer end, from [`veth_name`].
    pub outer: &'a str,
    pub mac: Mac,
    pub mtu: Option<u32>,
}

fn open_sockets() -> Result<(Socket, Announcer), SandboxError> {
    let socket =
        Socket::open(Protocol::Route).map_err(|source| SandboxError::Netlink { source })?;
    let announcer = Announcer::open().map_err(|source| SandboxError::Namespace { source })?;
    Ok((socket, announcer))
}

/// A made-up name for a veth's outer end.
pub fn veth_name() -> String {
    let mut bytes = [0; 4];
    random_bytes(&mut bytes);
    format!("veth{:07x}", u32::from_ne_bytes(bytes) >> 4)
}

/// A namespace that waits for a container.
#[derive(Debug)]
pub struct Ready {
    pub sandbox: Sandbox,
    pub port: Port,
}

/// Where the pool's veths go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolBridge {
    pub index: u32,
    pub mtu: Option<u32>,
}

/// How long a pool that is more than half full lets a start go first.
const REFILL_PAUSE: Duration = Duration::from_millis(25);

/// Keeps namespaces ready, by a thread of its own that works only when some are missing.
#[derive(Debug)]
pub struct SandboxPool {
    shared: Arc<Shared>,
    bridge: PoolBridge,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<PoolState>,
    changed: Condvar,
}

#[derive(Debug)]
struct PoolState {
    ready: VecDeque<Ready>,
    wanted: usize,
    closing: bool,
}

impl SandboxPool {
    /// Starts filling in the background, in the calling thread's network namespace.
    pub fn start(wanted: usize, bridge: PoolBridge) -> io::Result<SandboxPool> {
        let state = PoolState { ready: VecDeque::new(), wanted, closing: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("sandbox-pool".to_owned())
            .spawn(move || theirs.fill(bridge))?;
        Ok(SandboxPool { shared, bridge })
    }

    /// Takes one that is ready, without waiting.
    pub fn take(&self) -> Option<Ready> {
        let taken = self.shared.lock().ready.pop_front();
        self.shared.changed.notify_all();
        taken
    }

    /// Takes one that is ready, or makes one in the calling thread, whose network namespace is the
    /// host's: a burst of starts does not wait for the pool's one thread.
    pub fn take_or_make(&self) -> Result<Ready, SandboxError> {
        if let Some(ready) = self.take() {
            return Ok(ready);
        }
        let mut host =
            Socket::open(Protocol::Route).map_err(|source| SandboxError::Netlink { source })?;
        prepare(&mut host, self.bridge)
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.shared.lock().ready.len()
    }
}

impl Drop for SandboxPool {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        state.ready.clear();
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        // The state is valid between any two statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, bridge: PoolBridge) {
        let Ok(mut host) = Socket::open(Protocol::Route) else { return };
        loop {
            {
                let waiting = self.lock();
                let full =
                    |state: &mut PoolState| state.ready.len() >= state.wanted && !state.closing;
                let state =
                    self.changed.wait_while(waiting, full).unwrap_or_else(PoisonError::into_inner);
                // Making one now would take locks and a processor from the start that took the last.
                let plenty =
                    |state: &mut PoolState| state.ready.len() * 2 > state.wanted && !state.closing;
                let (state, _) = self
                    .changed
                    .wait_timeout_while(state, REFILL_PAUSE, plenty)
                    .unwrap_or_else(PoisonError::into_inner);
                if state.closing {
                    return;
                }
            }
            match prepare(&mut host, bridge) {
                Ok(ready) => {
                    let mut state = self.lock();
                    if !state.closing {
                        state.ready.push_back(ready);
                    }
                }
                // A start without the pool meets the same obstacle and reports it; here we wait
                // for the next one to try again.
                Err(_) => {
                    let waiting = self.lock();
                    drop(self.changed.wait(waiting));
                }
            }
        }
    }
}

/// A fresh namespace with `eth0` on the bridge.
pub fn prepare(host: &mut Socket, bridge: PoolBridge) -> Result<Ready, SandboxError> {
    let mut sandbox = Sandbox::create()?;
    let outer = veth_name();
    let wish = PortWish { name: "eth0", outer: &outer, mac: Mac::random(), mtu: bridge.mtu };
    let port = sandbox.add_veth(host, &wish, bridge.index)?;
    Ok(Ready { sandbox, port })
}

/// Moves a veth's outer end to another bridge.
pub fn move_port(
    host: &mut Socket,
    port: &Port,
    bridge: u32,
    isolated: Isolated,
) -> Result<(), SandboxError> {
    let Some((name, index)) = &port.host else { return Ok(()) };
    let change = LinkChange { master: Some(Some(bridge)), ..LinkChange::default() };
    let mut messages = vec![link_set(Link::Index(*index), &change)];
    match isolated {
        Isolated::Yes => messages.push(link_set(
            Link::Index(*index),
            &LinkChange { isolated: Some(true), ..LinkChange::default() },
        )),
        Isolated::No => {}
    }
    host.send(&messages).map_err(|source| SandboxError::Interface { name: name.clone(), source })
}

/// Whether a bridge port may talk to other ports like it (it may not with `icc=false`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolated {
    Yes,
    No,
}

#[cfg(test)]
mod tests;
