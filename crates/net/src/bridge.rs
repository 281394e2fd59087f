//! Bridges of the host: made to match a network's record, removed with the network.
//!
//! `ensure` may be called on a bridge that exists (a daemon's restart); it then only adds what is
//! missing. All of it happens in the calling thread's network namespace, to which `socket` belongs.

use std::net::IpAddr;

use sys::netlink::route::{
    self, AddressInfo, Link, LinkChange, LinkInfo, LinkKind, NewLink, State, address_add,
    address_delete, link_create, link_delete, link_set,
};
use sys::netlink::{NetlinkError, Socket};

use crate::sysctl::{self, SysctlError};
use crate::{Mac, Subnet};

/// What a bridge should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeWish {
    pub name: String,
    /// Of a bridge that is made; without it, made up.
    pub mac: Option<Mac>,
    /// Bytes; `None` is the kernel's 1500.
    pub mtu: Option<u32>,
    /// Gateway addresses with the prefix lengths of their subnets.
    pub addresses: Vec<Subnet>,
    pub others: Others,
}

/// What becomes of addresses that the bridge has besides the wished ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// The bridge is the user's: it must be there, and its own settings stay as they are.
    Users,
    /// The bridge has a name that the user chose.
    Kept,
    /// The bridge is ours: a changed `--bip` must not leave the old subnet's route behind.
    Removed,
}

/// A bridge as made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridge {
    pub index: u32,
    pub mac: Mac,
}

#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    #[error("cannot set up bridge {name}")]
    Link { name: String, source: NetlinkError },
    #[error("cannot set up bridge {name}")]
    Setting { name: String, source: SysctlError },
    #[error("bridge {0} is not there")]
    Missing(String),
    #[error("existing interface {0} is not a bridge")]
    Other(String),
    #[error("invalid bridge name {0:?}: 1 to 15 characters, without '/' and white space")]
    Name(String),
}

/// Makes the bridge, or brings an existing one of that name to the wish. Gives the addresses, too,
/// that it had not before.
pub fn ensure(
    socket: &mut Socket,
    wish: &BridgeWish,
) -> Result<(Bridge, Vec<Subnet>), BridgeError> {
    if !is_interface_name(&wish.name) {
        return Err(BridgeError::Name(wish.name.clone()));
    }
    let link = |source| BridgeError::Link { name: wish.name.clone(), source };
    let setting = |source| BridgeError::Setting { name: wish.name.clone(), source };
    let info = match route::find_link(socket, Link::Name(&wish.name)).map_err(link)? {
        Some(info) if info.kind == "bridge" => info,
        Some(info) => return Err(BridgeError::Other(info.name)),
        None if wish.others == Others::Users => {
            return Err(BridgeError::Missing(wish.name.clone()));
        }
        None => create(socket, wish).map_err(link)?,
    };
    let ours = wish.others != Others::Users;
    let ipv6 = wish.addresses.iter().any(|address| !address.is_ipv4());
    let conf = |key: &str| format!("ipv6/conf/{}/{key}", wish.name);
    // The host may have its own addresses on the user's bridge from a router.
    if ours {
        sysctl::set_if_known(&conf("accept_ra"), "0").map_err(setting)?;
    }
    if ours || ipv6 {
        let value = if ipv6 { "0" } else { "1" };
        sysctl::set_if_known(&conf("disable_ipv6"), value).map_err(setting)?;
    }
    let mut messages = Vec::new();
    let mut added = Vec::new();
    let there: Vec<AddressInfo> = route::dump_addresses(socket).map_err(link)?;
    let there: Vec<AddressInfo> =
        there.into_iter().filter(|address| address.interface == info.index).collect();
    for address in &wish.addresses {
        if !there
            .iter()
            .any(|old| old.address == address.address() && old.prefix == address.prefix())
        {
            messages.push(address_add(info.index, address.address(), address.prefix()));
            added.push(*address);
        }
    }
    for old in
        there.iter().filter(|old| wish.others == Others::Removed && !is_link_local(old.address))
    {
        if !wish
            .addresses
            .iter()
            .any(|new| new.address() == old.address && new.prefix() == old.prefix)
        {
            messages.push(address_delete(info.index, old.address, old.prefix));
        }
    }
    let change = LinkChange {
        state: Some(State::Up),
        mtu: wish.mtu.filter(|&mtu| ours && mtu != info.mtu),
        ..LinkChange::default()
    };
    messages.push(link_set(Link::Index(info.index), &change));
    socket.send(&messages).map_err(link)?;
    Ok((Bridge { index: info.index, mac: Mac(info.mac.unwrap_or_default()) }, added))
}

/// The addresses of a bridge, if it is there.
///
/// # Errors
/// When an interface of this name is no bridge.
pub fn look(socket: &mut Socket, name: &str) -> Result<Option<Vec<Subnet>>, BridgeError> {
    let link = |source| BridgeError::Link { name: name.to_owned(), source };
    let info = match route::find_link(socket, Link::Name(name)).map_err(link)? {
        Some(info) if info.kind == "bridge" => info,
        Some(info) => return Err(BridgeError::Other(info.name)),
        None => return Ok(None),
    };
    let all = route::dump_addresses(socket).map_err(link)?;
    let own = all.into_iter().filter(|address| address.interface == info.index);
    Ok(Some(own.filter_map(|address| Subnet::new(address.address, address.prefix)).collect()))
}

/// Removes addresses from a bridge; what is not there is no error.
pub fn take_back(socket: &mut Socket, name: &str, addresses: &[Subnet]) -> Result<(), BridgeError> {
    let failed = |source| BridgeError::Link { name: name.to_owned(), source };
    let Some(info) = route::find_link(socket, Link::Name(name)).map_err(failed)? else {
        return Ok(());
    };
    for address in addresses {
        match socket.send(&[address_delete(info.index, address.address(), address.prefix())]) {
            Err(error) if !error.is_missing() => return Err(failed(error)),
            Err(_) | Ok(()) => {}
        }
    }
    Ok(())
}

/// Removes a bridge that has no ports; one that is not there is no error.
pub fn remove_unused(socket: &mut Socket, name: &str) -> Result<(), BridgeError> {
    let failed = |source| BridgeError::Link { name: name.to_owned(), source };
    let links = route::dump_links(socket).map_err(failed)?;
    let own = links.iter().find(|link| link.name == name && link.kind == "bridge");
    match own {
        Some(own) if !links.iter().any(|link| link.master == Some(own.index)) => {
            remove(socket, name)
        }
        Some(_) | None => Ok(()),
    }
}

fn create(socket: &mut Socket, wish: &BridgeWish) -> Result<LinkInfo, NetlinkError> {
    // With an address of its own a bridge does not take over that of its lowest port, which would
    // change under the containers' neighbour caches.
    let link = NewLink {
        name: &wish.name,
        mac: Some(wish.mac.unwrap_or_else(Mac::random).0),
        mtu: wish.mtu,
        ..NewLink::default()
    };
    match socket.send(&[link_create(&link, &LinkKind::Bridge)]) {
        Err(error) if !error.is_existing() => return Err(error),
        Err(_) | Ok(()) => {}
    }
    route::find_link(socket, Link::Name(&wish.name))?.ok_or(NetlinkError::Malformed)
}

/// Makes an interface that leads nowhere, or sees that it is there: the parent of a macvlan network
/// without one.
pub fn ensure_dummy(socket: &mut Socket, name: &str) -> Result<(), BridgeError> {
    let failed = |source| BridgeError::Link { name: name.to_owned(), source };
    let link = NewLink { name, state: State::Up, ..NewLink::default() };
    let mut make = |kind: &LinkKind<'_>| match socket.send(&[link_create(&link, kind)]) {
        Err(error) if error.is_existing() => Ok(()),
        outcome => outcome,
    };
    // Not every kernel has the dummy driver; a bridge without ports leads nowhere either.
    make(&LinkKind::Dummy).or_else(|_| make(&LinkKind::Bridge)).map_err(failed)
}

/// Removes a bridge; one that is not there is no error.
pub fn remove(socket: &mut Socket, name: &str) -> Result<(), BridgeError> {
    match socket.send(&[link_delete(Link::Name(name))]) {
        Err(error) if !error.is_missing() => {
            Err(BridgeError::Link { name: name.to_owned(), source: error })
        }
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Whether the host has an interface of this name.
pub fn exists(socket: &mut Socket, name: &str) -> Result<bool, NetlinkError> {
    Ok(route::find_link(socket, Link::Name(name))?.is_some())
}

/// All bridges of the host, by name.
pub fn names(socket: &mut Socket) -> Result<Vec<String>, NetlinkError> {
    let bridges = route::dump_links(socket)?.into_iter().filter(|link| link.kind == "bridge");
    let mut names: Vec<String> = bridges.map(|link| link.name).collect();
    names.sort();
    Ok(names)
}

/// Subnets that a new network must not overlap: the host's addresses and routes, but not default
/// routes, link-local ranges, and what the bridge `own` has from an earlier daemon.
pub fn taken_subnets(socket: &mut Socket, own: &str) -> Result<Vec<Subnet>, NetlinkError> {
    let own = route::find_link(socket, Link::Name(own))?.map(|link| link.index);
    let mut taken = Vec::new();
    for info in route::dump_addresses(socket)? {
        if Some(info.interface) != own {
            taken.extend(Subnet::new(info.address, info.prefix));
        }
    }
    for info in route::dump_routes(socket)? {
        if own.is_some() && info.interface == own {
            continue;
        }
        taken.extend(info.destination.and_then(|(address, prefix)| Subnet::new(address, prefix)));
    }
    taken.retain(|subnet| subnet.prefix() > 0 && !is_link_local(subnet.address()));
    taken.sort_unstable();
    taken.dedup();
    Ok(taken)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The kernel's rule (`dev_valid_name`), and no `.` or `..`.
pub fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
}
