//! rtnetlink: links, addresses and routes.
//!
//! The functions build [`Message`]s, so that a caller can send several at once; the `dump_*`
//! functions ask and parse.
//!
//! Source: rtnetlink(7), `include/uapi/linux/if_link.h`, `rtnetlink.h`, `if_addr.h`, `veth.h`.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Message, NetlinkError, Socket, attributes, find, text_of};

// The uapi values that libc does not name.
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;

/// Names a link in a request.
#[derive(Clone, Copy, Debug)]
pub enum Link<'a> {
    Index(u32),
    Name(&'a str),
}

/// A link to be made. `Default` leaves everything to the kernel.
#[derive(Clone, Debug, Default)]
pub struct NewLink<'a> {
    pub name: &'a str,
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    /// Interface number of the bridge that it becomes a port of.
    pub master: Option<u32>,
    /// Where it is made; the socket's own namespace without.
    pub netns: Option<BorrowedFd<'a>>,
    pub state: State,
}

/// Whether a link is administratively up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Down,
    Up,
}

/// What to make.
#[derive(Clone, Debug)]
pub enum LinkKind<'a> {
    Bridge,
    Dummy,
    /// A pair; the other end may be made in another namespace at once. That end cannot be made
    /// up: the kernel configures it before it is joined to the first (ENOTCONN).
    Veth(NewLink<'a>),
    Macvlan {
        parent: u32,
        mode: MacvlanMode,
    },
    Ipvlan {
        parent: u32,
        mode: IpvlanMode,
        flag: IpvlanFlag,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacvlanMode {
    Private = 1,
    Vepa = 2,
    Bridge = 4,
    Passthru = 8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpvlanMode {
    L2 = 0,
    L3 = 1,
    L3s = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpvlanFlag {
    Bridge = 0,
    Private = 1,
    Vepa = 2,
}

impl LinkKind<'_> {
    fn name(&self) -> &'static str {
        match self {
            LinkKind::Bridge => "bridge",
            LinkKind::Dummy => "dummy",
            LinkKind::Veth(_) => "veth",
            LinkKind::Macvlan { .. } => "macvlan",
            LinkKind::Ipvlan { .. } => "ipvlan",
        }
    }
}

/// Changes to a link; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct LinkChange<'a> {
    pub state: Option<State>,
    pub name: Option<&'a str>,
    /// `Some(None)` takes it off its bridge.
    pub master: Option<Option<u32>>,
    pub mtu: Option<u32>,
    pub mac: Option<[u8; 6]>,
    pub netns: Option<BorrowedFd<'a>>,
    /// A bridge port that cannot talk to other isolated ports.
    pub isolated: Option<bool>,
}

/// Makes a link.
pub fn link_create(link: &NewLink<'_>, kind: &LinkKind<'_>) -> Message {
    let what = format!("create {} {}", kind.name(), link.name);
    let mut message = Message::new(what, libc::RTM_NEWLINK, CREATE);
    new_link(&mut message, link);
    match kind {
        LinkKind::Macvlan { parent, .. } | LinkKind::Ipvlan { parent, .. } => {
            message.u32(libc::IFLA_LINK, *parent);
        }
        LinkKind::Bridge | LinkKind::Dummy | LinkKind::Veth(_) => {}
    }
    message.nest(libc::IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, kind.name());
        match kind {
            LinkKind::Bridge | LinkKind::Dummy => {}
            LinkKind::Veth(peer) => {
                info.nest(IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |end| new_link(end, peer));
                });
            }
            LinkKind::Macvlan { mode, .. } => {
                info.nest(IFLA_INFO_DATA, |data| {
                    data.u32(IFLA_MACVLAN_MODE, *mode as u32);
                });
            }
            LinkKind::Ipvlan { mode, flag, .. } => {
                info.nest(IFLA_INFO_DATA, |data| {
                    data.u16(IFLA_IPVLAN_MODE, *mode as u16).u16(IFLA_IPVLAN_FLAGS, *flag as u16);
                });
            }
        }
    });
    message
}

fn new_link(message: &mut Message, link: &NewLink<'_>) {
    link_header(message, 0, Some(link.state));
    message.text(libc::IFLA_IFNAME, link.name);
    if let Some(mac) = link.mac {
        message.attribute(libc::IFLA_ADDRESS, &mac);
    }
    if let Some(mtu) = link.mtu {
        message.u32(libc::IFLA_MTU, mtu);
    }
    if let Some(master) = link.master {
        message.u32(libc::IFLA_MASTER, master);
    }
    if let Some(netns) = link.netns {
        message.u32(libc::IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
    }
}

/// Changes a link.
pub fn link_set(link: Link<'_>, change: &LinkChange<'_>) -> Message {
    let mut message = Message::new(format!("change link {}", display(link)), libc::RTM_NEWLINK, 0);
    name_link(&mut message, link, change.state);
    match (link, change.name) {
        (Link::Index(_), Some(name)) => {
            message.text(libc::IFLA_IFNAME, name);
        }
        (Link::Name(_), Some(_)) => unreachable!("a link is renamed by its number"),
        (_, None) => {}
    }
    if let Some(master) = change.master {
        message.u32(libc::IFLA_MASTER, master.unwrap_or(0));
    }
    if let Some(mtu) = change.mtu {
        message.u32(libc::IFLA_MTU, mtu);
    }
    if let Some(mac) = change.mac {
        message.attribute(libc::IFLA_ADDRESS, &mac);
    }
    if let Some(netns) = change.netns {
        message.u32(libc::IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
    }
    if let Some(isolated) = change.isolated {
        message.nest(libc::IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_SLAVE_KIND, "bridge");
            info.nest(IFLA_INFO_SLAVE_DATA, |data| {
                data.u8(IFLA_BRPORT_ISOLATED, u8::from(isolated));
            });
        });
    }
    message
}

/// Deletes a link; of a veth pair both ends go.
pub fn link_delete(link: Link<'_>) -> Message {
    let mut message = Message::new(format!("delete link {}", display(link)), libc::RTM_DELLINK, 0);
    name_link(&mut message, link, None);
    message
}

fn name_link(message: &mut Message, link: Link<'_>, state: Option<State>) {
    match link {
        Link::Index(index) => link_header(message, index, state),
        Link::Name(name) => {
            link_header(message, 0, state);
            message.text(libc::IFLA_IFNAME, name);
        }
    }
}

fn display(link: Link<'_>) -> String {
    match link {
        Link::Index(index) => format!("#{index}"),
        Link::Name(name) => name.to_owned(),
    }
}

/// `struct ifinfomsg`.
fn link_header(message: &mut Message, index: u32, state: Option<State>) {
    let up = libc::IFF_UP as u32;
    let (flags, change) = match state {
        None => (0, 0),
        Some(State::Up) => (up, up),
        Some(State::Down) => (0, up),
    };
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    message.raw(&header);
}

/// A link as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    pub index: u32,
    pub name: String,
    pub state: State,
    /// `bridge`, `veth`, …; empty for hardware and loopback.
    pub kind: String,
    pub master: Option<u32>,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
}

/// All links of the socket's namespace.
pub fn dump_links(socket: &mut Socket) -> Result<Vec<LinkInfo>, NetlinkError> {
    let mut message = Message::new("list links", libc::RTM_GETLINK, libc::NLM_F_DUMP);
    link_header(&mut message, 0, None);
    socket.dump(&message)?.iter().map(|object| link_info(object)).collect()
}

/// One link, if it exists.
pub fn find_link(socket: &mut Socket, link: Link<'_>) -> Result<Option<LinkInfo>, NetlinkError> {
    let mut message = Message::new(format!("look up link {}", display(link)), libc::RTM_GETLINK, 0);
    name_link(&mut message, link, None);
    match socket.dump(&message) {
        Ok(objects) => objects.first().map(|object| link_info(object)).transpose(),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

fn link_info(object: &[u8]) -> Result<LinkInfo, NetlinkError> {
    let header = object.first_chunk::<16>().ok_or(NetlinkError::Malformed)?;
    let flags = word(&header[8..12]);
    let mut info = LinkInfo {
        index: word(&header[4..8]),
        name: String::new(),
        state: if flags & libc::IFF_UP as u32 == 0 { State::Down } else { State::Up },
        kind: String::new(),
        master: None,
        mac: None,
        mtu: 0,
    };
    for (kind, value) in attributes(&object[16..]) {
        match kind {
            libc::IFLA_IFNAME => info.name = text_of(value),
            libc::IFLA_MASTER => info.master = Some(word(value)),
            libc::IFLA_MTU => info.mtu = word(value),
            libc::IFLA_ADDRESS => info.mac = value.try_into().ok(),
            libc::IFLA_LINKINFO => {
                info.kind = find(value, IFLA_INFO_KIND).map(text_of).unwrap_or_default()
            }
            _ => {}
        }
    }
    Ok(info)
}

/// Gives an interface an address. IPv6 addresses skip duplicate detection: the engine hands each
/// out once, and the container must be able to use it at once.
pub fn address_add(interface: u32, address: IpAddr, prefix: u8) -> Message {
    let what = format!("add address {address}/{prefix}");
    let mut message =
        Message::new(what, libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE);
    address_body(&mut message, interface, address, prefix);
    if let (IpAddr::V4(v4), 0..=30) = (address, prefix) {
        let broadcast = v4.to_bits() | (u32::MAX >> prefix);
        message.attribute(libc::IFA_BROADCAST, &broadcast.to_be_bytes());
    }
    message
}

/// Takes an address away.
pub fn address_delete(interface: u32, address: IpAddr, prefix: u8) -> Message {
    let mut message =
        Message::new(format!("delete address {address}/{prefix}"), libc::RTM_DELADDR, 0);
    address_body(&mut message, interface, address, prefix);
    message
}

fn address_body(message: &mut Message, interface: u32, address: IpAddr, prefix: u8) {
    let flags = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    let mut header = [family(address), prefix, flags, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&interface.to_ne_bytes());
    message.raw(&header);
    with_octets(address, |octets| {
        message.attribute(libc::IFA_LOCAL, octets).attribute(libc::IFA_ADDRESS, octets);
    });
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressInfo {
    pub interface: u32,
    pub address: IpAddr,
    pub prefix: u8,
}

/// All addresses of the socket's namespace, of both families.
pub fn dump_addresses(socket: &mut Socket) -> Result<Vec<AddressInfo>, NetlinkError> {
    let mut message = Message::new("list addresses", libc::RTM_GETADDR, libc::NLM_F_DUMP);
    message.raw(&[0; 8]);
    let mut addresses = Vec::new();
    for object in socket.dump(&message)? {
        let header = object.first_chunk::<8>().ok_or(NetlinkError::Malformed)?;
        let attributes = &object[8..];
        // With a peer, IFA_ADDRESS is the peer's and IFA_LOCAL ours.
        let octets =
            find(attributes, libc::IFA_LOCAL).or_else(|| find(attributes, libc::IFA_ADDRESS));
        if let Some(address) = octets.and_then(address_of) {
            addresses.push(AddressInfo {
                interface: word(&header[4..8]),
                address,
                prefix: header[1],
            });
        }
    }
    Ok(addresses)
}

/// Adds a route to `destination` (address and prefix length; `None` is the default route).
pub fn route_add(
    destination: Option<(IpAddr, u8)>,
    gateway: Option<IpAddr>,
    interface: u32,
) -> Message {
    let what = match (destination, gateway) {
        (Some((address, prefix)), _) => format!("add route to {address}/{prefix}"),
        (None, Some(gateway)) => format!("add default route by {gateway}"),
        (None, None) => "add default route".to_owned(),
    };
    let mut message =
        Message::new(what, libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE);
    route_body(&mut message, destination, gateway, interface);
    message
}

/// Deletes a route made by [`route_add`].
pub fn route_delete(
    destination: Option<(IpAddr, u8)>,
    gateway: Option<IpAddr>,
    interface: u32,
) -> Message {
    let mut message = Message::new("delete route", libc::RTM_DELROUTE, 0);
    route_body(&mut message, destination, gateway, interface);
    message
}

fn route_body(
    message: &mut Message,
    destination: Option<(IpAddr, u8)>,
    gateway: Option<IpAddr>,
    interface: u32,
) {
    let example = gateway.or(destination.map(|(address, _)| address));
    let family = example.map_or(libc::AF_INET as u8, family);
    let scope = if gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let prefix = destination.map_or(0, |(_, prefix)| prefix);
    message.raw(&[
        family,
        prefix,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_BOOT,
        scope,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ]);
    if let Some((address, _)) = destination {
        with_octets(address, |octets| {
            message.attribute(libc::RTA_DST, octets);
        });
    }
    if let Some(gateway) = gateway {
        with_octets(gateway, |octets| {
            message.attribute(libc::RTA_GATEWAY, octets);
        });
    }
    message.u32(libc::RTA_OIF, interface);
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// `None` is the default route.
    pub destination: Option<(IpAddr, u8)>,
    pub gateway: Option<IpAddr>,
    pub interface: Option<u32>,
}

/// Unicast routes of the main table, of both families.
pub fn dump_routes(socket: &mut Socket) -> Result<Vec<RouteInfo>, NetlinkError> {
    let mut message = Message::new("list routes", libc::RTM_GETROUTE, libc::NLM_F_DUMP);
    message.raw(&[0; 12]);
    let mut routes = Vec::new();
    for object in socket.dump(&message)? {
        let header = object.first_chunk::<12>().ok_or(NetlinkError::Malformed)?;
        let attributes = &object[12..];
        let table = find(attributes, libc::RTA_TABLE).map_or(u32::from(header[4]), word);
        if table != u32::from(libc::RT_TABLE_MAIN) || header[7] != libc::RTN_UNICAST {
            continue;
        }
        let address = |kind| find(attributes, kind).and_then(address_of);
        routes.push(RouteInfo {
            destination: address(libc::RTA_DST).map(|address| (address, header[1])),
            gateway: address(libc::RTA_GATEWAY),
            interface: find(attributes, libc::RTA_OIF).map(word),
        });
    }
    Ok(routes)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

fn with_octets(address: IpAddr, use_them: impl FnOnce(&[u8])) {
    match address {
        IpAddr::V4(v4) => use_them(&v4.octets()),
        IpAddr::V6(v6) => use_them(&v6.octets()),
    }
}

fn address_of(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        16 => value.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

/// A native number; zero when the kernel sent fewer bytes than it promises.
fn word(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::super::{Protocol, netns};
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_veth_pair_spans_two_namespaces_and_carries_addresses() {
        if !crate::testing::privileged("links need a network namespace of their own") {
            return;
        }
        let (inside, ()) = netns::create(|| ()).unwrap();
        let ((), ()) = netns::create(|| {
            let mut host = Socket::open(Protocol::Route).unwrap();
            host.send(&[link_create(
                &NewLink { name: "br9", state: State::Up, ..NewLink::default() },
                &LinkKind::Bridge,
            )])
            .unwrap();
            let bridge = find_link(&mut host, Link::Name("br9")).unwrap().unwrap();
            assert_eq!(bridge.kind, "bridge");
            let peer = NewLink {
                name: "eth0",
                mac: Some([2, 0, 0, 0, 0, 9]),
                netns: Some(inside.as_fd()),
                ..NewLink::default()
            };
            let end = NewLink {
                name: "v9",
                master: Some(bridge.index),
                state: State::Up,
                ..NewLink::default()
            };
            host.send(&[link_create(&end, &LinkKind::Veth(peer))]).unwrap();
            assert_eq!(
                find_link(&mut host, Link::Name("v9")).unwrap().unwrap().master,
                Some(bridge.index)
            );

            let mut there = Socket::open_in(Protocol::Route, inside.as_fd()).unwrap();
            let eth0 = find_link(&mut there, Link::Name("eth0")).unwrap().unwrap();
            assert_eq!((eth0.mac, eth0.state), (Some([2, 0, 0, 0, 0, 9]), State::Down));
            let up = LinkChange { state: Some(State::Up), ..LinkChange::default() };
            there.send(&[link_set(Link::Index(eth0.index), &up)]).unwrap();
            let gateway = "172.17.0.1".parse().unwrap();
            there
                .send(&[
                    address_add(eth0.index, "172.17.0.2".parse().unwrap(), 16),
                    address_add(eth0.index, "fd00:1::2".parse().unwrap(), 64),
                    route_add(None, Some(gateway), eth0.index),
                ])
                .unwrap();
            let addresses = dump_addresses(&mut there).unwrap();
            assert!(
                addresses
                    .iter()
                    .any(|info| info.address == IpAddr::from([172, 17, 0, 2]) && info.prefix == 16)
            );
            assert!(
                dump_routes(&mut there).unwrap().iter().any(|route| route.gateway == Some(gateway))
            );

            host.send(&[link_set(
                Link::Name("v9"),
                &LinkChange { isolated: Some(true), ..LinkChange::default() },
            )])
            .unwrap();
            host.send(&[link_delete(Link::Name("v9"))]).unwrap();
            assert_eq!(find_link(&mut host, Link::Name("v9")).unwrap(), None);
            assert_eq!(find_link(&mut there, Link::Name("eth0")).unwrap(), None);
        })
        .map(|(_, outcome)| ((), outcome))
        .unwrap();
    }

    #[test]
    fn a_refusal_says_what_and_why() {
        if !crate::testing::privileged("links need a network namespace of their own") {
            return;
        }
        netns::create(|| {
            let mut socket = Socket::open(Protocol::Route).unwrap();
            let error = socket.send(&[link_delete(Link::Name("absent"))]).unwrap_err();
            assert!(error.is_missing(), "{error:?}");
            let many = [
                route_add(None, Some("10.0.0.1".parse().unwrap()), 1),
                link_delete(Link::Name("absent")),
            ];
            let error = socket.send(&many).unwrap_err();
            assert!(
                error.to_string().starts_with("cannot add default route by 10.0.0.1 ("),
                "{error}"
            );
        })
        .unwrap();
    }
}
