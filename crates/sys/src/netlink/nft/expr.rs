//! Rules: chains of the kernel's small expressions.
//!
//! Registers are numbered 0 to 15, four bytes each. A load fills as many as its value needs, an
//! address of IPv6 four; the caller chooses numbers so that the fields of a concatenated key lie
//! side by side.

use std::net::IpAddr;

use super::super::{attributes, find, text_of};
use super::{DATA_VALUE, DATA_VERDICT, LIST_ELEMENT, Message, VERDICT_CHAIN, Verdict};

const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// `NFT_REG32_00`.
const REGISTER_FIRST: u32 = 8;
const REGISTER_VERDICT: u32 = 0;

/// What `meta` can load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// Ethernet protocol, as in the frame.
    Protocol = 1,
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`, one byte.
    NetworkFamily = 15,
    TransportProtocol = 16,
}

/// From where `payload` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// What `ct` can load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conntrack {
    /// Bits: established 2, related 4, new 8.
    State = 0,
    /// Bits of `enum ip_conntrack_status`; destination NAT is 1 << 5.
    Status = 2,
}

/// Which way a comparison decides to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Equal = 0,
    NotEqual = 1,
}

/// Address family of a NAT expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatFamily {
    Ipv4 = 2,
    Ipv6 = 10,
}

/// A rule under construction. The methods append, in the order in which the kernel evaluates.
#[derive(Clone, Debug)]
pub struct Rule {
    list: Message,
    iptables_protocol: Option<u8>,
    comment: Option<String>,
}

impl Default for Rule {
    fn default() -> Rule {
        Rule::new()
    }
}

impl Rule {
    pub fn new() -> Rule {
        Rule { list: Message::new("", 0, 0), iptables_protocol: None, comment: None }
    }

    /// Tells iptables extensions which protocol the rule is for, which some of them demand.
    #[must_use]
    pub fn for_iptables(self, protocol: u8) -> Rule {
        Rule { iptables_protocol: Some(protocol), ..self }
    }

    /// What nft and iptables show beside the rule; at most 254 bytes.
    #[must_use]
    pub fn commented(self, comment: &str) -> Rule {
        Rule { comment: Some(comment.to_owned()), ..self }
    }

    pub(super) fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    pub(super) fn iptables_protocol(&self) -> Option<u8> {
        self.iptables_protocol
    }

    pub(super) fn encode(&self, into: &mut Message) {
        into.raw(&self.list.bytes[super::super::HEADER_BYTES..]);
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Message)) -> Rule {
        self.list.nest(LIST_ELEMENT, |expression| {
            expression.text(EXPRESSION_NAME, name);
            expression.nest(EXPRESSION_DATA, fill);
        });
        self
    }

    /// Loads a fact about the packet.
    pub fn meta(self, key: Meta, register: u32) -> Rule {
        self.expression("meta", |data| {
            data.u32_be(1, REGISTER_FIRST + register).u32_be(2, key as u32);
        })
    }

    /// Marks the packet with the register's value.
    pub fn set_mark(self, register: u32) -> Rule {
        self.expression("meta", |data| {
            data.u32_be(2, Meta::Mark as u32).u32_be(3, REGISTER_FIRST + register);
        })
    }

    /// Loads bytes of the packet.
    pub fn payload(self, base: PayloadBase, offset: u32, length: u32, register: u32) -> Rule {
        self.expression("payload", |data| {
            data.u32_be(1, REGISTER_FIRST + register).u32_be(2, base as u32);
            data.u32_be(3, offset).u32_be(4, length);
        })
    }

    /// Loads a fact about the connection.
    pub fn conntrack(self, key: Conntrack, register: u32) -> Rule {
        self.expression("ct", |data| {
            data.u32_be(1, REGISTER_FIRST + register).u32_be(2, key as u32);
        })
    }

    /// Loads the kind of the destination address (`RTN_LOCAL` is 2, native order).
    pub fn destination_kind(self, register: u32) -> Rule {
        const RESULT_ADDRESS_TYPE: u32 = 3;
        const FLAG_DESTINATION: u32 = 2;
        self.expression("fib", |data| {
            data.u32_be(1, REGISTER_FIRST + register)
                .u32_be(2, RESULT_ADDRESS_TYPE)
                .u32_be(3, FLAG_DESTINATION);
        })
    }

    /// Goes on if the register's bytes relate to `value` so.
    pub fn compare(self, register: u32, relation: Relation, value: &[u8]) -> Rule {
        self.expression("cmp", |data| {
            data.u32_be(1, REGISTER_FIRST + register).u32_be(2, relation as u32);
            data.nest(3, |inner| {
                inner.attribute(DATA_VALUE, value);
            });
        })
    }

    /// Keeps only the register's bits under `mask`.
    pub fn mask(self, register: u32, mask: &[u8]) -> Rule {
        let zeros = vec![0; mask.len()];
        self.expression("bitwise", |data| {
            data.u32_be(1, REGISTER_FIRST + register).u32_be(2, REGISTER_FIRST + register);
            data.u32_be(3, u32::try_from(mask.len()).expect("a mask is short"));
            data.nest(4, |inner| {
                inner.attribute(DATA_VALUE, mask);
            });
            data.nest(5, |inner| {
                inner.attribute(DATA_VALUE, &zeros);
            });
        })
    }

    /// Goes on if any bit of the native word is set.
    pub fn any_bit(self, register: u32, bits: u32) -> Rule {
        self.mask(register, &bits.to_ne_bytes()).compare(register, Relation::NotEqual, &[0; 4])
    }

    /// Goes on if the set has the key (`Equal`) or has it not.
    pub fn lookup(self, set: &str, register: u32, relation: Relation) -> Rule {
        self.expression("lookup", |data| {
            data.text(1, set).u32_be(2, REGISTER_FIRST + register);
            if relation == Relation::NotEqual {
                data.u32_be(5, 1);
            }
        })
    }

    /// Loads the map's value for the key, or stops.
    pub fn map(self, map: &str, register: u32, value_register: u32) -> Rule {
        self.expression("lookup", |data| {
            data.text(1, map)
                .u32_be(2, REGISTER_FIRST + register)
                .u32_be(3, REGISTER_FIRST + value_register);
        })
    }

    /// Obeys the map's verdict for the key, or stops.
    pub fn verdict_map(self, map: &str, register: u32) -> Rule {
        self.expression("lookup", |data| {
            data.text(1, map).u32_be(2, REGISTER_FIRST + register).u32_be(3, REGISTER_VERDICT);
        })
    }

    pub fn verdict(self, verdict: &Verdict) -> Rule {
        self.expression("immediate", |data| {
            data.u32_be(1, REGISTER_VERDICT);
            data.nest(2, |inner| verdict.encode(inner));
        })
    }

    /// Loads a constant.
    pub fn immediate(self, register: u32, value: &[u8]) -> Rule {
        self.expression("immediate", |data| {
            data.u32_be(1, REGISTER_FIRST + register);
            data.nest(2, |inner| {
                inner.attribute(DATA_VALUE, value);
            });
        })
    }

    /// Sends the packet to the address and port in the registers.
    pub fn destination_nat(self, family: NatFamily, address: u32, port: u32) -> Rule {
        self.nat(1, family, Some(address), port)
    }

    /// Gives the packet the source port in the register.
    pub fn source_nat_port(self, family: NatFamily, port: u32) -> Rule {
        self.nat(0, family, None, port)
    }

    fn nat(self, kind: u32, family: NatFamily, address: Option<u32>, port: u32) -> Rule {
        self.expression("nat", |data| {
            data.u32_be(1, kind).u32_be(2, family as u32);
            if let Some(address) = address {
                data.u32_be(3, REGISTER_FIRST + address);
            }
            data.u32_be(5, REGISTER_FIRST + port);
        })
    }

    /// Replaces the source by the address of the interface that the packet leaves by.
    pub fn masquerade(self) -> Rule {
        self.expression("masq", |_| {})
    }

    /// Sends the packet to this host, to the port in the register.
    pub fn redirect(self, port: u32) -> Rule {
        self.expression("redir", |data| {
            data.u32_be(1, REGISTER_FIRST + port);
        })
    }

    pub fn counter(self) -> Rule {
        self.expression("counter", |_| {})
    }

    /// Goes on for at most `rate` packets a second.
    pub fn limit(self, rate: u64) -> Rule {
        self.expression("limit", |data| {
            data.attribute(1, &rate.to_be_bytes()).attribute(2, &1u64.to_be_bytes());
        })
    }

    /// An extension of iptables as a match; `info` is its C structure.
    pub fn iptables_match(self, name: &str, revision: u32, info: &[u8]) -> Rule {
        self.extension("match", name, revision, info)
    }

    /// An extension of iptables as a target.
    pub fn iptables_target(self, name: &str, revision: u32, info: &[u8]) -> Rule {
        self.extension("target", name, revision, info)
    }

    fn extension(self, kind: &str, name: &str, revision: u32, info: &[u8]) -> Rule {
        self.expression(kind, |data| {
            data.text(1, name).u32_be(2, revision).attribute(3, info);
        })
    }

    // What rules are mostly made of.

    /// Goes on for packets that come (`InputName`) or leave (`OutputName`) by this interface. The
    /// name is compared with its terminating zero, which is the form that iptables lists.
    pub fn by_interface(self, key: Meta, name: &str) -> Rule {
        let bytes = [name.as_bytes(), &[0]].concat();
        self.meta(key, 0).compare(0, Relation::Equal, &bytes)
    }

    /// Goes on for IPv4 or IPv6 packets only, as `like` is.
    pub fn only_family(self, like: NatFamily, register: u32) -> Rule {
        self.meta(Meta::NetworkFamily, register).compare(register, Relation::Equal, &[like as u8])
    }

    /// Loads the source address of the given family's header.
    pub fn source(self, family: NatFamily, register: u32) -> Rule {
        match family {
            NatFamily::Ipv4 => self.payload(PayloadBase::Network, 12, 4, register),
            NatFamily::Ipv6 => self.payload(PayloadBase::Network, 8, 16, register),
        }
    }

    /// Loads the destination address of the given family's header.
    pub fn destination(self, family: NatFamily, register: u32) -> Rule {
        match family {
            NatFamily::Ipv4 => self.payload(PayloadBase::Network, 16, 4, register),
            NatFamily::Ipv6 => self.payload(PayloadBase::Network, 24, 16, register),
        }
    }

    /// Loads the transport's destination port, the same place in TCP, UDP and SCTP.
    pub fn destination_port(self, register: u32) -> Rule {
        self.payload(PayloadBase::Transport, 2, 2, register)
    }

    /// Goes on if the destination is (or is not) `address`.
    pub fn to(self, address: IpAddr, relation: Relation, register: u32) -> Rule {
        match address {
            IpAddr::V4(v4) => self.destination(NatFamily::Ipv4, register).compare(
                register,
                relation,
                &v4.octets(),
            ),
            IpAddr::V6(v6) => self.destination(NatFamily::Ipv6, register).compare(
                register,
                relation,
                &v6.octets(),
            ),
        }
    }
}

/// The chain to which a rule with these expressions jumps or goes.
pub(super) fn jump_of(expressions: &[u8]) -> Option<String> {
    const IMMEDIATE_DATA: u16 = 2;
    attributes(expressions).find_map(|(_, expression)| {
        if text_of(find(expression, EXPRESSION_NAME)?) != "immediate" {
            return None;
        }
        let data = find(find(expression, EXPRESSION_DATA)?, IMMEDIATE_DATA)?;
        find(find(data, DATA_VERDICT)?, VERDICT_CHAIN).map(text_of)
    })
}
