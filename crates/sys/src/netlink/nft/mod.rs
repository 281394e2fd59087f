//! nftables: tables, chains, sets, maps, elements and rules, changed in one transaction.
//!
//! A [`Batch`] collects changes and [`Batch::commit`] sends them between the begin and end marks,
//! so that the kernel does all or none. Rules are built from [`expr::Rule`], which appends the
//! kernel's expressions one by one; registers are the 32-bit ones, numbered from 0, and a
//! concatenated key is simply the fields loaded into registers one after the other.
//!
//! A key's bytes are what the kernel loads: numbers in network order, each field padded to four
//! bytes, an interface name filled up with zeros to sixteen ([`Key`]).
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`, `nfnetlink.h`.

pub mod expr;
pub mod watch;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Acknowledge, Message, NetlinkError, Socket, attributes, find, text_of};
use expr::Rule;

// nfnetlink.h and nf_tables.h; libc names few of these, and some with odd types.
const SUBSYSTEM_NFTABLES: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const MSG_NEWTABLE: u16 = SUBSYSTEM_NFTABLES;
const MSG_GETTABLE: u16 = SUBSYSTEM_NFTABLES | 1;
const MSG_DELTABLE: u16 = SUBSYSTEM_NFTABLES | 2;
const MSG_NEWCHAIN: u16 = SUBSYSTEM_NFTABLES | 3;
const MSG_GETCHAIN: u16 = SUBSYSTEM_NFTABLES | 4;
const MSG_DELCHAIN: u16 = SUBSYSTEM_NFTABLES | 5;
const MSG_NEWRULE: u16 = SUBSYSTEM_NFTABLES | 6;
const MSG_GETRULE: u16 = SUBSYSTEM_NFTABLES | 7;
const MSG_DELRULE: u16 = SUBSYSTEM_NFTABLES | 8;
const MSG_NEWSET: u16 = SUBSYSTEM_NFTABLES | 9;
const MSG_NEWSETELEM: u16 = SUBSYSTEM_NFTABLES | 12;
const MSG_DELSETELEM: u16 = SUBSYSTEM_NFTABLES | 14;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_BYTES: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_BYTES: u16 = 7;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_COMPATIBILITY: u16 = 5;
const RULE_POSITION: u16 = 6;
const RULE_USERDATA: u16 = 7;
const COMPATIBILITY_PROTOCOL: u16 = 1;
const COMPATIBILITY_FLAGS: u16 = 2;
pub(super) const LIST_ELEMENT: u16 = 1;
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;

const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const SET_CONCAT: u32 = 0x80;
const ELEMENT_INTERVAL_END: u32 = 1;
/// The userland type number that marks a map to verdicts.
const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;
/// Elements of one message stay well below the 64 KiB that an attribute can hold.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    Ip = 2,
    Bridge = 7,
    Ip6 = 10,
}

/// Where a base chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    Nat,
}

/// The fate of packets that no rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Drop = 0,
    Accept = 1,
}

/// What makes a chain a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    pub kind: ChainKind,
    pub hook: Hook,
    /// Lower runs earlier: raw -300, destination NAT -100, filter 0, source NAT 100.
    pub priority: i32,
    pub policy: Policy,
}

/// The type of a field of a key or of a map's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    Ipv4,
    Ipv6,
    Ether,
    Protocol,
    Port,
    Interface,
}

impl FieldType {
    /// The number by which the nft program knows the type; it names and prints keys by it.
    fn number(self) -> u32 {
        match self {
            FieldType::Ipv4 => 7,
            FieldType::Ipv6 => 8,
            FieldType::Ether => 9,
            FieldType::Protocol => 12,
            FieldType::Port => 13,
            FieldType::Interface => 41,
        }
    }

    fn bytes(self) -> u32 {
        match self {
            FieldType::Protocol => 1,
            FieldType::Port => 2,
            FieldType::Ipv4 => 4,
            FieldType::Ether => 6,
            FieldType::Ipv6 | FieldType::Interface => 16,
        }
    }
}

/// The type number and length of a field, or of several put together.
fn layout(fields: &[FieldType]) -> (u32, u32) {
    match fields {
        [one] => (one.number(), one.bytes()),
        many => many.iter().fold((0, 0), |(number, bytes), field| {
            (number << 6 | field.number(), bytes + field.bytes().next_multiple_of(4))
        }),
    }
}

/// What the elements of a set carry.
#[derive(Clone, Copy, Debug)]
pub enum SetData<'a> {
    /// Nothing: a plain set.
    None,
    /// A value: a map.
    Value(&'a [FieldType]),
    /// A verdict map.
    Verdict,
}

/// Whether keys are single values or ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    Exact,
    Intervals,
}

/// A set or map to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewSet<'a> {
    pub name: &'a str,
    pub key: &'a [FieldType],
    pub keys: Keys,
    pub data: SetData<'a>,
}

/// Key or data bytes, built field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    pub fn new() -> Key {
        Key(Vec::with_capacity(24))
    }

    fn field(mut self, bytes: &[u8]) -> Key {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0.extend_from_slice(bytes);
        self
    }

    /// An interface name, at most fifteen bytes.
    pub fn interface(self, name: &str) -> Key {
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        self.field(&bytes)
    }

    pub fn ip(self, address: IpAddr) -> Key {
        match address {
            IpAddr::V4(v4) => self.ipv4(v4),
            IpAddr::V6(v6) => self.ipv6(v6),
        }
    }

    pub fn ipv4(self, address: Ipv4Addr) -> Key {
        self.field(&address.octets())
    }

    pub fn ipv6(self, address: Ipv6Addr) -> Key {
        self.field(&address.octets())
    }

    pub fn mac(self, mac: [u8; 6]) -> Key {
        self.field(&mac)
    }

    /// An IP protocol number.
    pub fn protocol(self, number: u8) -> Key {
        self.field(&[number])
    }

    pub fn port(self, port: u16) -> Key {
        self.field(&port.to_be_bytes())
    }

    /// The bytes; those of several fields are padded at the end too, as registers are.
    fn bytes(&self, fields: usize) -> Vec<u8> {
        let mut bytes = self.0.clone();
        if fields > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

impl Verdict {
    pub(super) fn encode(&self, message: &mut Message) {
        let (code, chain) = match self {
            Verdict::Accept => (1, None),
            Verdict::Drop => (0, None),
            Verdict::Return => (-5, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
        };
        message.nest(DATA_VERDICT, |verdict| {
            verdict.u32_be(VERDICT_CODE, i32::cast_unsigned(code));
            if let Some(chain) = chain {
                verdict.text(VERDICT_CHAIN, chain);
            }
        });
    }
}

/// An element's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    None,
    Value(Key),
    Verdict(Verdict),
}

/// One element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub key: Key,
    /// For sets of intervals: the first key that is no longer inside; `None` when the interval
    /// reaches the end of the key space, or for exact keys.
    pub end: Option<Key>,
    pub data: Data,
}

impl Element {
    /// An element of a plain set.
    pub fn of(key: Key) -> Element {
        Element { key, end: None, data: Data::None }
    }

    /// An element of a map.
    pub fn map(key: Key, value: Key) -> Element {
        Element { key, end: None, data: Data::Value(value) }
    }

    /// All addresses of a subnet, given its first and last.
    pub fn range(first: IpAddr, last: IpAddr) -> Element {
        let end = match last {
            IpAddr::V4(v4) => {
                v4.to_bits().checked_add(1).map(|next| Key::new().ipv4(Ipv4Addr::from_bits(next)))
            }
            IpAddr::V6(v6) => {
                v6.to_bits().checked_add(1).map(|next| Key::new().ipv6(Ipv6Addr::from_bits(next)))
            }
        };
        Element { key: Key::new().ip(first), end, data: Data::None }
    }
}

/// A table's name and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    pub family: Family,
    pub name: &'a str,
}

/// A set of a table, with what the elements' encoding depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetRef<'a> {
    pub name: &'a str,
    /// Number of fields of the key, and of the data.
    pub key_fields: usize,
    pub data_fields: usize,
}

/// Where in its chain a rule goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    First,
    Last,
    /// After the rule with this handle.
    After(u64),
}

/// Changes to be made together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    messages: Vec<Message>,
    sets: u32,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn push(
        &mut self,
        what: String,
        kind: u16,
        flags: i32,
        family: Family,
        fill: impl FnOnce(&mut Message),
    ) {
        let mut message = Message::new(what, kind, flags);
        header(&mut message, family as u8, 0);
        fill(&mut message);
        self.messages.push(message);
    }

    /// Makes the table; no error if it is there.
    pub fn table_add(&mut self, table: Table<'_>) {
        let what = format!("add table {}", table.name);
        self.push(what, MSG_NEWTABLE, libc::NLM_F_CREATE, table.family, |message| {
            message.text(TABLE_NAME, table.name);
        });
    }

    /// Deletes the table and all in it.
    pub fn table_delete(&mut self, table: Table<'_>) {
        let what = format!("delete table {}", table.name);
        self.push(what, MSG_DELTABLE, 0, table.family, |message| {
            message.text(TABLE_NAME, table.name);
        });
    }

    /// Makes a chain: a base chain when `base` is given.
    pub fn chain_add(&mut self, table: Table<'_>, name: &str, base: Option<Base>) {
        let what = format!("add chain {name}");
        self.push(what, MSG_NEWCHAIN, libc::NLM_F_CREATE, table.family, |message| {
            message.text(CHAIN_TABLE, table.name).text(CHAIN_NAME, name);
            if let Some(base) = base {
                message.nest(CHAIN_HOOK, |hook| {
                    hook.u32_be(HOOK_NUMBER, base.hook as u32);
                    hook.u32_be(HOOK_PRIORITY, base.priority.cast_unsigned());
                });
                message.u32_be(CHAIN_POLICY, base.policy as u32);
                message.text(
                    CHAIN_TYPE,
                    match base.kind {
                        ChainKind::Filter => "filter",
                        ChainKind::Nat => "nat",
                    },
                );
            }
        });
    }

    /// Deletes an empty, unused chain.
    pub fn chain_delete(&mut self, table: Table<'_>, name: &str) {
        self.push(format!("delete chain {name}"), MSG_DELCHAIN, 0, table.family, |message| {
            message.text(CHAIN_TABLE, table.name).text(CHAIN_NAME, name);
        });
    }

    /// Makes a set or map.
    pub fn set_add(&mut self, table: Table<'_>, set: &NewSet<'_>) {
        self.sets += 1;
        let id = self.sets;
        let what = format!("add set {}", set.name);
        self.push(what, MSG_NEWSET, libc::NLM_F_CREATE, table.family, |message| {
            let (key_type, key_bytes) = layout(set.key);
            let mut flags = 0;
            match set.keys {
                Keys::Exact => {}
                Keys::Intervals if set.key.len() > 1 => flags |= SET_INTERVAL | SET_CONCAT,
                Keys::Intervals => flags |= SET_INTERVAL,
            }
            match set.data {
                SetData::None => {}
                SetData::Value(_) | SetData::Verdict => flags |= SET_MAP,
            }
            message.text(SET_TABLE, table.name).text(SET_NAME, set.name);
            message.u32_be(SET_FLAGS, flags);
            message.u32_be(SET_KEY_TYPE, key_type).u32_be(SET_KEY_BYTES, key_bytes);
            match set.data {
                SetData::None => {}
                SetData::Value(fields) => {
                    let (data_type, data_bytes) = layout(fields);
                    message.u32_be(SET_DATA_TYPE, data_type).u32_be(SET_DATA_BYTES, data_bytes);
                }
                // The kernel takes the length of a verdict from the verdict type.
                SetData::Verdict => {
                    message.u32_be(SET_DATA_TYPE, DATA_TYPE_VERDICT).u32_be(SET_DATA_BYTES, 16);
                }
            }
            message.u32_be(SET_ID, id);
            // A note to the nft program, which else prints lone interface names as numbers: type 0
            // (byte order of the key), four bytes, 1 (the host's).
            if set.key == [FieldType::Interface] {
                message.attribute(SET_USERDATA, &[0, 4, 1, 0, 0, 0]);
            }
        });
    }

    /// Adds elements; one that is there with the same data is no error.
    pub fn elements_add(&mut self, table: Table<'_>, set: SetRef<'_>, elements: &[Element]) {
        self.elements("add", MSG_NEWSETELEM, libc::NLM_F_CREATE, table, set, elements);
    }

    /// Deletes elements; one that is not there fails the whole batch.
    pub fn elements_delete(&mut self, table: Table<'_>, set: SetRef<'_>, elements: &[Element]) {
        self.elements("delete", MSG_DELSETELEM, 0, table, set, elements);
    }

    fn elements(
        &mut self,
        verb: &str,
        kind: u16,
        flags: i32,
        table: Table<'_>,
        set: SetRef<'_>,
        elements: &[Element],
    ) {
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.push(
                format!("{verb} elements of {}", set.name),
                kind,
                flags,
                table.family,
                |message| {
                    message.text(ELEMENTS_TABLE, table.name).text(ELEMENTS_SET, set.name);
                    message.nest(ELEMENTS_LIST, |list| {
                        for element in part {
                            encode_element(list, set, element);
                        }
                    });
                },
            );
        }
    }

    /// Appends a rule to a chain.
    pub fn rule_add(&mut self, table: Table<'_>, chain: &str, rule: &Rule) {
        self.rule(table, chain, Place::Last, rule);
    }

    /// Puts a rule into a chain.
    pub fn rule(&mut self, table: Table<'_>, chain: &str, place: Place, rule: &Rule) {
        let what = format!("add a rule to chain {chain}");
        let (append, beside) = match place {
            Place::First => (0, None),
            Place::Last => (libc::NLM_F_APPEND, None),
            Place::After(handle) => (libc::NLM_F_APPEND, Some(handle)),
        };
        let flags = libc::NLM_F_CREATE | append;
        self.push(what, MSG_NEWRULE, flags, table.family, |message| {
            message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain);
            message.nest(RULE_EXPRESSIONS, |list| rule.encode(list));
            if let Some(protocol) = rule.iptables_protocol() {
                message.nest(RULE_COMPATIBILITY, |data| {
                    data.u32_be(COMPATIBILITY_PROTOCOL, protocol.into())
                        .u32_be(COMPATIBILITY_FLAGS, 0);
                });
            }
            if let Some(handle) = beside {
                message.attribute(RULE_POSITION, &handle.to_be_bytes());
            }
            if let Some(comment) = rule.comment() {
                message.attribute(RULE_USERDATA, &comment_record(comment));
            }
        });
    }

    /// Deletes a rule by its handle.
    pub fn rule_delete(&mut self, table: Table<'_>, chain: &str, handle: u64) {
        let what = format!("delete a rule of chain {chain}");
        self.push(what, MSG_DELRULE, 0, table.family, |message| {
            message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain);
            message.attribute(RULE_HANDLE, &handle.to_be_bytes());
        });
    }

    /// Deletes all rules of a chain.
    pub fn rules_delete(&mut self, table: Table<'_>, chain: &str) {
        self.push(format!("flush chain {chain}"), MSG_DELRULE, 0, table.family, |message| {
            message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain);
        });
    }

    /// Sends everything as one transaction: all or nothing.
    pub fn commit(&self, socket: &mut Socket) -> Result<(), NetlinkError> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let mark = |what, kind| {
            let mut message = Message::new(what, kind, 0);
            header(&mut message, 0, SUBSYSTEM_NFTABLES >> 8);
            message
        };
        let mut all = Vec::with_capacity(self.messages.len() + 2);
        // A failing commit is told with the begin mark's number.
        all.push(mark("commit the firewall change", BATCH_BEGIN));
        all.extend(self.messages.iter().cloned());
        let last = all.len() - 1;
        all.push(mark("end the firewall change", BATCH_END));
        socket.exchange(&all, Acknowledge::Only(last))
    }
}

fn encode_element(list: &mut Message, set: SetRef<'_>, element: &Element) {
    list.nest(LIST_ELEMENT, |item| {
        item.nest(ELEMENT_KEY, |key| {
            key.attribute(DATA_VALUE, &element.key.bytes(set.key_fields));
        });
        match &element.data {
            Data::None => {}
            Data::Value(value) => {
                item.nest(ELEMENT_DATA, |data| {
                    data.attribute(DATA_VALUE, &value.bytes(set.data_fields));
                });
            }
            Data::Verdict(verdict) => {
                item.nest(ELEMENT_DATA, |data| verdict.encode(data));
            }
        }
    });
    if let Some(end) = &element.end {
        list.nest(LIST_ELEMENT, |item| {
            item.nest(ELEMENT_KEY, |key| {
                key.attribute(DATA_VALUE, &end.bytes(set.key_fields));
            });
            item.u32_be(ELEMENT_FLAGS, ELEMENT_INTERVAL_END);
        });
    }
}

/// `struct nfgenmsg`.
fn header(message: &mut Message, family: u8, resource: u16) {
    let [high, low] = resource.to_be_bytes();
    message.raw(&[family, 0, high, low]);
}

/// Whether the table exists.
pub fn table_exists(socket: &mut Socket, table: Table<'_>) -> Result<bool, NetlinkError> {
    let mut message = Message::new(format!("look up table {}", table.name), MSG_GETTABLE, 0);
    header(&mut message, table.family as u8, 0);
    message.text(TABLE_NAME, table.name);
    match socket.dump(&message) {
        Ok(objects) => Ok(!objects.is_empty()),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}

/// A base chain of any table, as [`dump_base_chains`] finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    pub family: u8,
    pub table: String,
    pub name: String,
    /// Hook number, as in [`Hook`].
    pub hook: u32,
    /// Whether undecided packets are dropped.
    pub drops: bool,
}

/// All base chains of the namespace, of whatever program.
pub fn dump_base_chains(socket: &mut Socket) -> Result<Vec<ChainInfo>, NetlinkError> {
    let mut message = Message::new("list chains", MSG_GETCHAIN, libc::NLM_F_DUMP);
    header(&mut message, 0, 0);
    let number = |value: &[u8]| value.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let mut chains = Vec::new();
    for object in socket.dump(&message)? {
        let family = *object.first().ok_or(NetlinkError::Malformed)?;
        let body = object.get(4..).ok_or(NetlinkError::Malformed)?;
        let Some(hook) = find(body, CHAIN_HOOK).and_then(|hook| find(hook, HOOK_NUMBER)) else {
            continue;
        };
        let mut chain = ChainInfo {
            family,
            table: String::new(),
            name: String::new(),
            hook: number(hook),
            drops: false,
        };
        for (kind, value) in attributes(body) {
            match kind {
                CHAIN_TABLE => chain.table = text_of(value),
                CHAIN_NAME => chain.name = text_of(value),
                CHAIN_POLICY => chain.drops = number(value) == Policy::Drop as u32,
                _ => {}
            }
        }
        chains.push(chain);
    }
    Ok(chains)
}

/// A rule of any program's chain: what is needed to find it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    pub handle: u64,
    pub comment: Option<String>,
    /// The chain to which it jumps.
    pub jump: Option<String>,
}

/// The rules of a chain in their order; none when there is no such chain.
pub fn dump_rules(
    socket: &mut Socket,
    table: Table<'_>,
    chain: &str,
) -> Result<Vec<RuleInfo>, NetlinkError> {
    let what = format!("list the rules of chain {chain}");
    let mut message = Message::new(what, MSG_GETRULE, libc::NLM_F_DUMP);
    header(&mut message, table.family as u8, 0);
    message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain);
    let objects = match socket.dump(&message) {
        Err(error) if error.is_missing() => return Ok(Vec::new()),
        outcome => outcome?,
    };
    let mut rules = Vec::new();
    for object in objects {
        let body = object.get(4..).ok_or(NetlinkError::Malformed)?;
        // Kernels before 4.10 list the rules of all chains.
        let is_ours = |kind, name| find(body, kind).is_some_and(|value| text_of(value) == name);
        if !is_ours(RULE_TABLE, table.name) || !is_ours(RULE_CHAIN, chain) {
            continue;
        }
        let handle = find(body, RULE_HANDLE).and_then(<[u8]>::first_chunk);
        rules.push(RuleInfo {
            handle: u64::from_be_bytes(*handle.ok_or(NetlinkError::Malformed)?),
            comment: find(body, RULE_USERDATA).and_then(comment_of),
            jump: find(body, RULE_EXPRESSIONS).and_then(expr::jump_of),
        });
    }
    Ok(rules)
}

/// Userdata as nft and iptables write it: records of type, length and value; type 0 is a comment
/// with its terminating zero.
///
/// Source: libnftnl `include/libnftnl/udata.h`.
fn comment_record(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).expect("a comment is short");
    [&[0, length], comment.as_bytes(), &[0]].concat()
}

fn comment_of(mut records: &[u8]) -> Option<String> {
    loop {
        let [kind, length, rest @ ..] = records else { return None };
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(text_of(value));
        }
        records = &rest[value.len()..];
    }
}

#[cfg(test)]
mod tests;
