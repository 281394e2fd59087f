//! The daemon's own nftables tables, `inet NAME` and `bridge NAME`.
//!
//! The rules are constant; everything that comes and goes with networks and containers is an
//! element of a set or map, so a packet costs the same with one container as with a thousand:
//!
//! ```text
//! inet   prerouting -300  what is published on loopback only is dropped when it comes from outside
//!        prerouting -100  published ports: destination NAT by map (not from our own bridges: those
//!        output     -100  reach the monitor's proxy instead, as connections to 127/8 and ::1 do)
//!        forward       0  replies; published; same bridge if icc; all else towards a bridge dropped,
//!                         all from an internal bridge dropped
//!        postrouting 100  masquerade what leaves a bridge's subnet for anywhere but a bridge
//! bridge prerouting -300  a port sends with the MAC and the addresses that it was given and no others,
//!                         answers ARP and neighbour discovery for these alone, and sends no router
//!                         advertisements and redirects. What the kernel did not parse as ARP, IPv4 or
//!                         IPv6 (tags within tags, LLC, other protocols) is dropped
//! bridge forward -200     between ports that may not talk (icc=false): linked services alone
//! ```
//! Privileged containers may route for others (pods of a nested cluster), so theirs is the weaker
//! rule [`Sources::Unclaimed`]: nothing that we gave to somebody else.
//!
//! Invariant: when [`Firewall::change`] returns without an error, the kernel holds exactly what the
//! rules and items say. Whatever another program did to our tables before that moment has been
//! noticed (`sys::netlink::nft::watch`), and both tables were made anew in one transaction. What
//! cannot be made so is an error, at this change and at every later one until it can.
//!
//! An accept in our table does not overrule a drop in another one: see [`neighbours`].

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use sys::netlink::nft::watch::{Changes, Watch};
use sys::netlink::nft::{
    Base, Batch, ChainKind, Element, Family, FieldType, Hook, Key, Keys, NewSet, Policy, SetData,
    SetRef, Table,
};
use sys::netlink::{NetlinkError, Protocol, Socket};

use crate::{Mac, Subnet};

pub mod neighbours;
mod rules;

use neighbours::{Bridges, Obstacle, Teach};

/// A bridge of ours and what may pass it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BridgeRules {
    pub interface: String,
    pub mac: Mac,
    /// Subnets whose packets are masqueraded when they leave; empty for none.
    pub masqueraded: Vec<Subnet>,
    /// The bridge's own addresses, which no container may use.
    pub gateways: Vec<IpAddr>,
    pub exit: Exit,
    pub between: Between,
    pub direct: Direct,
    /// Interfaces from which containers may be reached directly.
    pub trusted: Vec<String>,
}

/// Whether containers on a bridge reach other networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Open,
    /// `--internal`.
    Internal,
}

/// Whether containers on a bridge reach one another (`enable_icc`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Between {
    Allowed,
    Denied,
}

/// Whether packets routed to a container's address from outside are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direct {
    /// Only to published ports (gateway mode `nat`).
    Dropped,
    /// All (gateway mode `nat-unprotected`).
    Accepted,
}

/// A bridge port and the addresses that are its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guard {
    /// Host end of the veth.
    pub interface: String,
    pub mac: Mac,
    /// The link-local address that the kernel makes from the MAC is its own without saying.
    pub addresses: Vec<IpAddr>,
    pub sources: Sources,
    /// Whether it may talk to other ports of its bridge.
    pub between: Between,
}

/// Which MAC and IP addresses a port may send with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sources {
    /// Those that it was given.
    Own,
    /// Also those that nobody was given.
    Unclaimed,
}

/// A service of one port that another may ask although their bridge keeps ports apart (`--link`
/// with `icc=false`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    /// IP protocol number.
    pub protocol: u8,
    pub port: u16,
}

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// IP protocol number.
    pub protocol: u8,
    /// Unspecified means all addresses of its family.
    pub host: IpAddr,
    pub host_port: u16,
    pub target: IpAddr,
    pub target_port: u16,
    pub way: Way,
}

/// How a published port is reached from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// At the host's addresses.
    Nat,
    /// At the container's own address only (gateway mode `routed`).
    Routed,
}

/// One thing that the firewall knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    Bridge(BridgeRules),
    Guard(Guard),
    Forward(Forward),
    Link(Link),
}

/// The sets and maps, each in one of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Set {
    Bridges,
    Internal,
    Unprotected,
    Reachable,
    Masquerade4,
    Masquerade6,
    Published4,
    Published4At,
    Published6,
    Published6At,
    Loopback4,
    Loopback6,
    Routed4,
    Routed6,
    Linked,
    Guarded,
    Unclaimed,
    Macs,
    OwnMac,
    Addresses4,
    Own4,
    Addresses6,
    Own6,
    Apart,
    LinkedPairs,
    LinkedTo,
    LinkedBack,
}

use FieldType::{Ether, Interface, Ipv4, Ipv6, Port, Protocol as Proto};

impl Set {
    const ALL: [Set; 27] = [
        Set::Bridges,
        Set::Internal,
        Set::Unprotected,
        Set::Reachable,
        Set::Masquerade4,
        Set::Masquerade6,
        Set::Published4,
        Set::Published4At,
        Set::Published6,
        Set::Published6At,
        Set::Loopback4,
        Set::Loopback6,
        Set::Routed4,
        Set::Routed6,
        Set::Linked,
        Set::Guarded,
        Set::Unclaimed,
        Set::Macs,
        Set::OwnMac,
        Set::Addresses4,
        Set::Own4,
        Set::Addresses6,
        Set::Own6,
        Set::Apart,
        Set::LinkedPairs,
        Set::LinkedTo,
        Set::LinkedBack,
    ];

    fn name(self) -> &'static str {
        match self {
            Set::Bridges => "bridges",
            Set::Internal => "internal",
            Set::Unprotected => "unprotected",
            Set::Reachable => "reachable",
            Set::Masquerade4 => "masquerade4",
            Set::Masquerade6 => "masquerade6",
            Set::Published4 => "published4",
            Set::Published4At => "published4_at",
            Set::Published6 => "published6",
            Set::Published6At => "published6_at",
            Set::Loopback4 => "loopback4",
            Set::Loopback6 => "loopback6",
            Set::Routed4 => "routed4",
            Set::Routed6 => "routed6",
            Set::Linked => "linked",
            Set::Guarded => "guarded",
            Set::Unclaimed => "unclaimed",
            Set::Macs => "macs",
            Set::OwnMac => "own_mac",
            Set::Addresses4 => "addresses4",
            Set::Own4 => "own4",
            Set::Addresses6 => "addresses6",
            Set::Own6 => "own6",
            Set::Apart => "apart",
            Set::LinkedPairs => "linked_pairs",
            Set::LinkedTo => "linked_to",
            Set::LinkedBack => "linked_back",
        }
    }

    fn key(self) -> &'static [FieldType] {
        match self {
            Set::Bridges
            | Set::Internal
            | Set::Unprotected
            | Set::Guarded
            | Set::Unclaimed
            | Set::Apart => &[Interface],
            Set::Reachable => &[Interface, Interface],
            Set::Masquerade4 | Set::Addresses4 => &[Ipv4],
            Set::Masquerade6 | Set::Addresses6 => &[Ipv6],
            Set::Published4 | Set::Published6 => &[Proto, Port],
            Set::Published4At | Set::Loopback4 | Set::Routed4 => &[Ipv4, Proto, Port],
            Set::Published6At | Set::Loopback6 | Set::Routed6 => &[Ipv6, Proto, Port],
            Set::Macs => &[Ether],
            Set::OwnMac => &[Interface, Ether],
            Set::Own4 => &[Interface, Ipv4],
            Set::Own6 => &[Interface, Ipv6],
            Set::LinkedPairs => &[Ipv4, Ipv4],
            Set::Linked | Set::LinkedTo | Set::LinkedBack => &[Ipv4, Ipv4, Proto, Port],
        }
    }

    fn data(self) -> &'static [FieldType] {
        match self {
            Set::Published4 | Set::Published4At => &[Ipv4, Port],
            Set::Published6 | Set::Published6At => &[Ipv6, Port],
            Set::Bridges
            | Set::Internal
            | Set::Unprotected
            | Set::Reachable
            | Set::Masquerade4
            | Set::Masquerade6
            | Set::Loopback4
            | Set::Loopback6
            | Set::Routed4
            | Set::Routed6
            | Set::Linked
            | Set::Guarded
            | Set::Unclaimed
            | Set::Macs
            | Set::OwnMac
            | Set::Addresses4
            | Set::Own4
            | Set::Addresses6
            | Set::Own6
            | Set::Apart
            | Set::LinkedPairs
            | Set::LinkedTo
            | Set::LinkedBack => &[],
        }
    }

    fn keys(self) -> Keys {
        match self {
            Set::Masquerade4 | Set::Masquerade6 => Keys::Intervals,
            _ => Keys::Exact,
        }
    }

    fn family(self) -> Family {
        if self >= Set::Guarded { Family::Bridge } else { Family::Inet }
    }

    fn new_set(self) -> NewSet<'static> {
        let data = if self.data().is_empty() { SetData::None } else { SetData::Value(self.data()) };
        NewSet { name: self.name(), key: self.key(), keys: self.keys(), data }
    }

    fn reference(self) -> SetRef<'static> {
        SetRef { name: self.name(), key_fields: self.key().len(), data_fields: self.data().len() }
    }
}

impl Item {
    fn bridge(&self) -> Option<String> {
        match self {
            Item::Bridge(bridge) => Some(bridge.interface.clone()),
            Item::Guard(_) | Item::Forward(_) | Item::Link(_) => None,
        }
    }

    fn elements(&self) -> Vec<(Set, Element)> {
        match self {
            Item::Bridge(bridge) => bridge.elements(),
            Item::Guard(guard) => guard.elements(),
            Item::Forward(forward) => forward.element().into_iter().collect(),
            Item::Link(link) => link.elements(),
        }
    }
}

impl BridgeRules {
    fn elements(&self) -> Vec<(Set, Element)> {
        let name = || Key::new().interface(&self.interface);
        let mut elements = vec![
            (Set::Bridges, Element::of(name())),
            (Set::Macs, Element::of(Key::new().mac(self.mac.0))),
            (Set::Addresses6, Element::of(Key::new().ipv6(self.mac.link_local()))),
        ];
        for subnet in &self.masqueraded {
            let set = if subnet.is_ipv4() { Set::Masquerade4 } else { Set::Masquerade6 };
            elements.push((set, Element::range(subnet.first(), subnet.last())));
        }
        for &gateway in &self.gateways {
            let set = if gateway.is_ipv4() { Set::Addresses4 } else { Set::Addresses6 };
            elements.push((set, Element::of(Key::new().ip(gateway))));
        }
        match self.exit {
            Exit::Open => {}
            Exit::Internal => elements.push((Set::Internal, Element::of(name()))),
        }
        match self.between {
            Between::Allowed => {
                elements.push((Set::Reachable, Element::of(name().interface(&self.interface))))
            }
            Between::Denied => {}
        }
        match self.direct {
            Direct::Dropped => {}
            Direct::Accepted => elements.push((Set::Unprotected, Element::of(name()))),
        }
        for trusted in self.trusted.iter().filter(|name| name.len() < 16) {
            let pair = Key::new().interface(trusted).interface(&self.interface);
            elements.push((Set::Reachable, Element::of(pair)));
        }
        elements
    }
}

impl Guard {
    fn elements(&self) -> Vec<(Set, Element)> {
        let name = || Key::new().interface(&self.interface);
        let mut elements = vec![
            (Set::Guarded, Element::of(name())),
            (Set::Macs, Element::of(Key::new().mac(self.mac.0))),
            (Set::OwnMac, Element::of(name().mac(self.mac.0))),
        ];
        match self.sources {
            Sources::Own => {}
            Sources::Unclaimed => elements.push((Set::Unclaimed, Element::of(name()))),
        }
        match self.between {
            Between::Allowed => {}
            Between::Denied => elements.push((Set::Apart, Element::of(name()))),
        }
        for address in self.addresses.iter().copied().chain([self.mac.link_local().into()]) {
            let (all, own) = if address.is_ipv4() {
                (Set::Addresses4, Set::Own4)
            } else {
                (Set::Addresses6, Set::Own6)
            };
            elements.push((all, Element::of(Key::new().ip(address))));
            elements.push((own, Element::of(name().ip(address))));
        }
        elements
    }
}

impl Link {
    fn elements(&self) -> Vec<(Set, Element)> {
        let pair = |one: Ipv4Addr, other: Ipv4Addr| Key::new().ipv4(one).ipv4(other);
        let service = |pair: Key| Element::of(pair.protocol(self.protocol).port(self.port));
        let (there, back) = (pair(self.from, self.to), pair(self.to, self.from));
        vec![
            (Set::Linked, service(there.clone())),
            (Set::LinkedTo, service(there.clone())),
            (Set::LinkedBack, service(back.clone())),
            (Set::LinkedPairs, Element::of(there)),
            (Set::LinkedPairs, Element::of(back)),
        ]
    }
}

impl Forward {
    /// None for what only the proxy can do: IPv6 of the host to an IPv4 container.
    fn element(&self) -> Option<(Set, Element)> {
        let service = |key: Key| key.protocol(self.protocol).port(self.host_port);
        let v4 = self.host.is_ipv4();
        match self.way {
            Way::Routed => {
                let set = if self.target.is_ipv4() { Set::Routed4 } else { Set::Routed6 };
                let key = Key::new().ip(self.target).protocol(self.protocol).port(self.target_port);
                return Some((set, Element::of(key)));
            }
            Way::Nat => {}
        }
        if self.host.is_loopback() {
            let set = if v4 { Set::Loopback4 } else { Set::Loopback6 };
            return Some((set, Element::of(service(Key::new().ip(self.host)))));
        }
        if v4 != self.target.is_ipv4() {
            return None;
        }
        let (set, key) = match (v4, self.host.is_unspecified()) {
            (true, true) => (Set::Published4, service(Key::new())),
            (true, false) => (Set::Published4At, service(Key::new().ip(self.host))),
            (false, true) => (Set::Published6, service(Key::new())),
            (false, false) => (Set::Published6At, service(Key::new().ip(self.host))),
        };
        Some((set, Element::map(key, Key::new().ip(self.target).port(self.target_port))))
    }
}

/// How often in a row our tables are made anew when others change them all the same.
const RESTORATIONS_MAX: usize = 3;

/// Why the firewall is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    #[error("the firewall cannot be set")]
    Kernel { source: NetlinkError },
    #[error("what other programs do to the firewall cannot be watched")]
    Watch { source: NetlinkError },
    #[error(
        "this kernel has no nftables for bridges (nf_tables_bridge), without which nothing holds a \
         container to its own addresses"
    )]
    NoGuards,
    #[error("another program changes the firewall table {table} again and again")]
    Contended { table: String },
}

/// The tables as they should be, and the socket to make them so.
#[derive(Debug)]
pub struct Firewall {
    name: String,
    socket: Socket,
    watch: Watch,
    items: BTreeSet<Item>,
    /// How many items want an element: MAC addresses may be used on several networks.
    uses: HashMap<(Set, Key), u32>,
    ports: Ports,
    standing: Standing,
    /// Whether somebody's own tables changed since [`Firewall::pass_neighbours`].
    neighbours_moved: bool,
    teach: Teach,
}

/// Whether the kernel has the bridge family, without which ports cannot be guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    Guarded,
    /// No guard is accepted.
    Unguarded,
}

/// Whether our tables are what they should be, as far as we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Whole,
    /// Others changed them, or making them failed.
    Broken,
}

/// What [`Firewall::look`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Untouched,
    Restored,
}

impl Firewall {
    /// Makes the tables of this name anew, empty, in the calling thread's network namespace.
    pub fn open(name: &str) -> Result<Firewall, FirewallError> {
        Firewall::open_with(name, BTreeSet::new())
    }

    /// Replaces the tables of this name, if any, by ones with these items, in one transaction: the
    /// ports of running containers stay published while the daemon restarts. What the kernel refuses
    /// leaves the firewall broken: each later look and change tries again.
    pub fn open_with(name: &str, items: BTreeSet<Item>) -> Result<Firewall, FirewallError> {
        let kernel = |source| FirewallError::Kernel { source };
        let mut socket = Socket::open(Protocol::Netfilter).map_err(kernel)?;
        let ports = probe_ports(&mut socket, name).map_err(kernel)?;
        let watch = Watch::open(&socket).map_err(|source| FirewallError::Watch { source })?;
        let mut firewall = Firewall {
            name: name.to_owned(),
            socket,
            watch,
            items,
            uses: HashMap::new(),
            ports,
            standing: Standing::Broken,
            neighbours_moved: false,
            teach: Teach::default(),
        };
        for (set, element) in firewall.items.iter().flat_map(Item::elements).collect::<Vec<_>>() {
            firewall.note(set, &element);
        }
        match firewall.look() {
            Ok(_) | Err(FirewallError::Kernel { .. }) => Ok(firewall),
            Err(error) => Err(error),
        }
    }

    /// Whether a container's port is held to its own addresses.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Removes and adds items in one transaction. Items that are there (or gone) already are no
    /// error.
    ///
    /// # Errors
    /// When the kernel does not hold what it should afterwards. Then nothing was added; what was
    /// only to go is gone with the next change or look that succeeds.
    pub fn change(&mut self, remove: &[Item], add: &[Item]) -> Result<(), FirewallError> {
        if remove.is_empty() && add.is_empty() {
            // Whoever needs nothing is not kept back by what is broken.
            return Ok(());
        }
        let guards = add.iter().any(|item| matches!(item, Item::Guard(_)));
        if guards && self.ports == Ports::Unguarded {
            return Err(FirewallError::NoGuards);
        }
        let mut dropped: Vec<(Set, Element)> = Vec::new();
        let mut wanted: Vec<(Set, Element)> = Vec::new();
        let before =
            remove.iter().filter(|item| self.items.remove(item)).cloned().collect::<Vec<_>>();
        for (set, element) in before.iter().flat_map(Item::elements) {
            if self.forget(set, &element) {
                dropped.push((set, element));
            }
        }
        let after = add
            .iter()
            .filter(|item| self.items.insert((*item).clone()))
            .cloned()
            .collect::<Vec<_>>();
        for (set, element) in after.iter().flat_map(Item::elements) {
            if self.note(set, &element) {
                wanted.push((set, element));
            }
        }
        // An item that is replaced by a similar one shares elements with it: these stay.
        let kept: Vec<_> =
            dropped.iter().filter(|element| wanted.contains(element)).cloned().collect();
        dropped.retain(|element| !kept.contains(element));
        wanted.retain(|element| !kept.contains(element));
        let outcome = self.apply(dropped, wanted);
        if outcome.is_err() && !add.is_empty() {
            for (set, element) in after.iter().flat_map(Item::elements) {
                self.forget(set, &element);
            }
            for (set, element) in before.iter().flat_map(Item::elements) {
                self.note(set, &element);
            }
            self.items.retain(|item| !after.contains(item));
            self.items.extend(before);
            // What the kernel refuses may be the new items alone.
            let _ = self.look();
        }
        outcome
    }

    /// Changes elements of whole tables; others are made anew with everything.
    fn apply(
        &mut self,
        dropped: Vec<(Set, Element)>,
        wanted: Vec<(Set, Element)>,
    ) -> Result<(), FirewallError> {
        if self.standing == Standing::Whole {
            let mut batch = Batch::new();
            self.elements(&mut batch, dropped, Batch::elements_delete);
            self.elements(&mut batch, wanted, Batch::elements_add);
            // Refused is also what somebody made impossible by flushing our table or parts of it.
            if batch.commit(&mut self.socket).is_err() {
                self.standing = Standing::Broken;
            }
        }
        self.look().map(drop)
    }

    /// Looks what others have done to our tables, and makes these anew if it was anything.
    ///
    /// # Errors
    /// When they are not what they should be; the next look or change tries again.
    pub fn look(&mut self) -> Result<Found, FirewallError> {
        let mut found = Found::Untouched;
        for _ in 0..=RESTORATIONS_MAX {
            self.drain()?;
            if self.standing == Standing::Whole {
                return Ok(found);
            }
            self.whole()
                .commit(&mut self.socket)
                .map_err(|source| FirewallError::Kernel { source })?;
            self.standing = Standing::Whole;
            found = Found::Restored;
        }
        self.standing = Standing::Broken;
        Err(FirewallError::Contended { table: self.name.clone() })
    }

    fn drain(&mut self) -> Result<(), FirewallError> {
        let changes = self.watch.drain().map_err(|source| {
            self.standing = Standing::Broken;
            FirewallError::Watch { source }
        })?;
        let (ours, neighbours) = match changes {
            Changes::Unknown => (true, true),
            Changes::Tables(tables) => {
                let is_ours = |family: &u8, table: &String| {
                    *table == self.name
                        && [Family::Inet as u8, Family::Bridge as u8].contains(family)
                };
                (
                    tables.iter().any(|(family, table)| is_ours(family, table)),
                    tables.iter().any(|(family, table)| !is_ours(family, table)),
                )
            }
        };
        if ours {
            self.standing = Standing::Broken;
        }
        self.neighbours_moved |= neighbours;
        Ok(())
    }

    /// A descriptor that is readable when there may be something to [`Firewall::look`] at.
    pub fn waiter(&self) -> Result<OwnedFd, FirewallError> {
        self.watch.waiter().map_err(|source| FirewallError::Watch { source })
    }

    /// Whether other programs' tables have changed since [`Firewall::pass_neighbours`].
    pub fn neighbours_moved(&self) -> bool {
        self.neighbours_moved
    }

    /// Lets our bridges pass the rules of other programs, as far as these can be taught; gives what
    /// may still be in the way. `bridges` are all of the host.
    pub fn pass_neighbours(&mut self, bridges: &[String]) -> Result<Vec<Obstacle>, NetlinkError> {
        let ours: Vec<String> = self.items.iter().filter_map(Item::bridge).collect();
        let others: Vec<String> =
            bridges.iter().filter(|bridge| !ours.contains(bridge)).cloned().collect();
        let bridges = Bridges { ours: &ours, others: &others };
        self.neighbours_moved = false;
        neighbours::pass(&mut self.socket, &self.name, bridges, self.teach)
    }

    /// Limits which of iptables' tables [`Firewall::pass_neighbours`] changes.
    pub fn teach(&mut self, teach: Teach) {
        self.teach = teach;
    }

    /// Deletes our tables; the object is of no use afterwards.
    pub fn remove(mut self) -> Result<(), NetlinkError> {
        neighbours::withdraw(&mut self.socket, &self.name)?;
        let families = match self.ports {
            Ports::Guarded => &[Family::Inet, Family::Bridge][..],
            Ports::Unguarded => &[Family::Inet],
        };
        let mut batch = Batch::new();
        for &family in families {
            batch.table_add(Table { family, name: &self.name });
            batch.table_delete(Table { family, name: &self.name });
        }
        batch.commit(&mut self.socket)
    }

    /// Everything, as one transaction that also deletes what was there.
    fn whole(&self) -> Batch {
        let mut batch = Batch::new();
        let families = match self.ports {
            Ports::Guarded => &[Family::Inet, Family::Bridge][..],
            Ports::Unguarded => &[Family::Inet],
        };
        for &family in families {
            let table = Table { family, name: &self.name };
            // Deleting what is not there would fail.
            batch.table_add(table);
            batch.table_delete(table);
            batch.table_add(table);
            for set in Set::ALL.into_iter().filter(|set| set.family() == family) {
                batch.set_add(table, &set.new_set());
            }
            match family {
                Family::Bridge => rules::bridge(&mut batch, table),
                Family::Inet | Family::Ip | Family::Ip6 => rules::inet(&mut batch, table),
            }
        }
        let mut seen = BTreeSet::new();
        let elements = self.items.iter().flat_map(Item::elements);
        let elements =
            elements.filter(|(set, element)| seen.insert((*set, element.key.clone()))).collect();
        self.elements(&mut batch, elements, Batch::elements_add);
        batch
    }

    fn elements(
        &self,
        batch: &mut Batch,
        mut elements: Vec<(Set, Element)>,
        put: impl Fn(&mut Batch, Table<'_>, SetRef<'_>, &[Element]),
    ) {
        elements.sort_by_key(|(set, _)| *set);
        for same in elements.chunk_by(|(one, _), (other, _)| one == other) {
            let set = same[0].0;
            if set.family() == Family::Bridge && self.ports == Ports::Unguarded {
                continue;
            }
            let list: Vec<Element> = same.iter().map(|(_, element)| element.clone()).collect();
            put(batch, Table { family: set.family(), name: &self.name }, set.reference(), &list);
        }
    }

    fn note(&mut self, set: Set, element: &Element) -> bool {
        let uses = self.uses.entry((set, element.key.clone())).or_default();
        *uses += 1;
        *uses == 1
    }

    fn forget(&mut self, set: Set, element: &Element) -> bool {
        let key = (set, element.key.clone());
        match self.uses.get_mut(&key) {
            Some(1) => {
                self.uses.remove(&key);
                true
            }
            Some(uses) => {
                *uses -= 1;
                false
            }
            None => false,
        }
    }
}

/// Finds out whether the kernel has nftables for bridges, by making a chain and deleting it again.
fn probe_ports(socket: &mut Socket, name: &str) -> Result<Ports, NetlinkError> {
    let probe = format!("{name}-probe");
    let table = Table { family: Family::Bridge, name: &probe };
    let mut batch = Batch::new();
    batch.table_add(table);
    batch.chain_add(table, "probe", base(ChainKind::Filter, Hook::Prerouting, -300));
    batch.table_delete(table);
    match batch.commit(socket) {
        Ok(()) => Ok(Ports::Guarded),
        // Which of them says so depends on the kernel's version and on its modules.
        Err(error) if error.is_unsupported() => Ok(Ports::Unguarded),
        Err(error) => Err(error),
    }
}

fn base(kind: ChainKind, hook: Hook, priority: i32) -> Option<Base> {
    Some(Base { kind, hook, priority, policy: Policy::Accept })
}

#[cfg(test)]
mod tests;
