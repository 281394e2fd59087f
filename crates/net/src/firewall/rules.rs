//! The constant rules of the two tables.

use std::net::{IpAddr, Ipv6Addr};

use sys::netlink::nft::expr::{Conntrack, Meta, NatFamily, PayloadBase, Relation, Rule};
use sys::netlink::nft::{Batch, ChainKind, Hook, Table, Verdict};

use super::{Set, base};

const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`, include/uapi/linux/netfilter/nf_conntrack_common.h.
const DESTINATION_NAT: u32 = 1 << 5;
const ROUTE_LOCAL: u32 = 2;
const ICMPV6: u8 = 58;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

use NatFamily::{Ipv4, Ipv6};
use Relation::{Equal, NotEqual};

pub(super) fn inet(batch: &mut Batch, table: Table<'_>) {
    batch.chain_add(table, "published", None);
    batch.chain_add(table, "inward", None);
    loopback(batch, table);
    published(batch, table);
    forward(batch, table);

    batch.chain_add(table, "postrouting", base(ChainKind::Nat, Hook::Postrouting, 100));
    for (family, set) in [(Ipv4, Set::Masquerade4), (Ipv6, Set::Masquerade6)] {
        let rule = Rule::new()
            .only_family(family, 0)
            .source(family, 0)
            .lookup(set.name(), 0, Equal)
            .meta(Meta::OutputName, 0)
            .lookup(Set::Bridges.name(), 0, NotEqual)
            .masquerade();
        batch.rule_add(table, "postrouting", &rule);
    }
}

/// The kernel drops 127/8 from outside by itself, unless somebody sets `route_localnet`.
fn loopback(batch: &mut Batch, table: Table<'_>) {
    batch.chain_add(table, "loopback", base(ChainKind::Filter, Hook::Prerouting, -300));
    for (family, set, port) in [(Ipv4, Set::Loopback4, 2), (Ipv6, Set::Loopback6, 5)] {
        let rule = not_from_loopback(Rule::new().only_family(family, 0));
        let rule = rule
            .destination(family, 0)
            .meta(Meta::TransportProtocol, port - 1)
            .destination_port(port)
            .lookup(set.name(), 0, Equal)
            .verdict(&Verdict::Drop);
        batch.rule_add(table, "loopback", &rule);
    }
}

fn not_from_loopback(rule: Rule) -> Rule {
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"lo");
    rule.meta(Meta::InputName, 0).compare(0, NotEqual, &name)
}

fn published(batch: &mut Batch, table: Table<'_>) {
    batch.chain_add(table, "prerouting", base(ChainKind::Nat, Hook::Prerouting, -100));
    let own = Rule::new()
        .meta(Meta::InputName, 0)
        .lookup(Set::Bridges.name(), 0, Equal)
        .verdict(&Verdict::Accept);
    batch.rule_add(table, "prerouting", &own);
    batch.chain_add(table, "output", base(ChainKind::Nat, Hook::Output, -100));
    for chain in ["prerouting", "output"] {
        let local = Rule::new()
            .destination_kind(0)
            .compare(0, Equal, &ROUTE_LOCAL.to_ne_bytes())
            .verdict(&Verdict::Jump("published".to_owned()));
        batch.rule_add(table, chain, &local);
    }
    for (family, at, everywhere, address_words) in [
        (Ipv4, Set::Published4At, Set::Published4, 1),
        (Ipv6, Set::Published6At, Set::Published6, 4),
    ] {
        let at_address = outside_loopback(family)
            .destination(family, 0)
            .meta(Meta::TransportProtocol, address_words)
            .destination_port(address_words + 1)
            .map(at.name(), 0, 0)
            .destination_nat(family, 0, address_words);
        batch.rule_add(table, "published", &at_address);
        let anywhere = outside_loopback(family)
            .meta(Meta::TransportProtocol, 0)
            .destination_port(1)
            .map(everywhere.name(), 0, 0)
            .destination_nat(family, 0, address_words);
        batch.rule_add(table, "published", &anywhere);
    }
}

/// Connections to 127/8 and ::1 are the proxy's: their replies would need `route_localnet`.
fn outside_loopback(family: NatFamily) -> Rule {
    let rule = Rule::new().only_family(family, 0);
    match family {
        Ipv4 => rule.payload(PayloadBase::Network, 16, 1, 0).compare(0, NotEqual, &[127]),
        Ipv6 => rule.to(IpAddr::V6(Ipv6Addr::LOCALHOST), NotEqual, 0),
    }
}

fn forward(batch: &mut Batch, table: Table<'_>) {
    batch.chain_add(table, "forward", base(ChainKind::Filter, Hook::Forward, 0));
    let accept = |rule: Rule| rule.verdict(&Verdict::Accept);
    let replies = Rule::new().conntrack(Conntrack::State, 0).any_bit(0, ESTABLISHED_OR_RELATED);
    batch.rule_add(table, "forward", &accept(replies));
    let inward = Rule::new()
        .meta(Meta::OutputName, 0)
        .lookup(Set::Bridges.name(), 0, Equal)
        .verdict(&Verdict::Jump("inward".to_owned()));
    batch.rule_add(table, "forward", &inward);
    let internal = Rule::new()
        .meta(Meta::InputName, 0)
        .lookup(Set::Internal.name(), 0, Equal)
        .verdict(&Verdict::Drop);
    batch.rule_add(table, "forward", &internal);

    let translated = Rule::new().conntrack(Conntrack::Status, 0).any_bit(0, DESTINATION_NAT);
    batch.rule_add(table, "inward", &accept(translated));
    let reachable = Rule::new().meta(Meta::InputName, 0).meta(Meta::OutputName, 4).lookup(
        Set::Reachable.name(),
        0,
        Equal,
    );
    batch.rule_add(table, "inward", &accept(reachable));
    let unprotected =
        Rule::new().meta(Meta::OutputName, 0).lookup(Set::Unprotected.name(), 0, Equal);
    batch.rule_add(table, "inward", &accept(unprotected));
    for (family, set, port) in [(Ipv4, Set::Routed4, 2), (Ipv6, Set::Routed6, 5)] {
        let routed = Rule::new()
            .only_family(family, 0)
            .destination(family, 0)
            .meta(Meta::TransportProtocol, port - 1)
            .destination_port(port)
            .lookup(set.name(), 0, Equal);
        batch.rule_add(table, "inward", &accept(routed));
    }
    batch.rule_add(table, "inward", &Rule::new().counter().verdict(&Verdict::Drop));
}

pub(super) fn bridge(batch: &mut Batch, table: Table<'_>) {
    for chain in ["arp", "ipv4", "ipv6"] {
        batch.chain_add(table, chain, None);
    }
    batch.chain_add(table, "prerouting", base(ChainKind::Filter, Hook::Prerouting, -300));
    let others = Rule::new()
        .meta(Meta::InputName, 0)
        .lookup(Set::Guarded.name(), 0, NotEqual)
        .verdict(&Verdict::Accept);
    batch.rule_add(table, "prerouting", &others);
    let source_mac = |rule: Rule, register| rule.payload(PayloadBase::Link, 6, 6, register);
    batch.rule_add(
        table,
        "prerouting",
        &only_own(&source_mac, Set::Macs, Set::OwnMac, Rule::new()),
    );
    for (ethertype, chain) in
        [(ETHERTYPE_ARP, "arp"), (ETHERTYPE_IPV4, "ipv4"), (ETHERTYPE_IPV6, "ipv6")]
    {
        let rule = Rule::new()
            .payload(PayloadBase::Link, 12, 2, 0)
            .compare(0, Equal, &ethertype)
            .verdict(&Verdict::Jump(chain.to_owned()));
        batch.rule_add(table, "prerouting", &rule);
    }

    let sender_mac = |rule: Rule, register| rule.payload(PayloadBase::Network, 8, 6, register);
    batch.rule_add(table, "arp", &only_own(&sender_mac, Set::Macs, Set::OwnMac, Rule::new()));
    let sender = |rule: Rule, register| rule.payload(PayloadBase::Network, 14, 4, register);
    batch.rule_add(table, "arp", &only_own(&sender, Set::Addresses4, Set::Own4, Rule::new()));

    let source4 = |rule: Rule, register| rule.source(Ipv4, register);
    batch.rule_add(table, "ipv4", &only_own(&source4, Set::Addresses4, Set::Own4, Rule::new()));

    let source6 = |rule: Rule, register| rule.source(Ipv6, register);
    batch.rule_add(table, "ipv6", &only_own(&source6, Set::Addresses6, Set::Own6, Rule::new()));
    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        batch.rule_add(table, "ipv6", &icmpv6(kind).verdict(&Verdict::Drop));
    }
    let target = |rule: Rule, register| rule.payload(PayloadBase::Transport, 8, 16, register);
    let advertisement = icmpv6(NEIGHBOUR_ADVERTISEMENT);
    batch.rule_add(table, "ipv6", &only_own(&target, Set::Addresses6, Set::Own6, advertisement));
}

fn icmpv6(kind: u8) -> Rule {
    Rule::new()
        .meta(Meta::TransportProtocol, 0)
        .compare(0, Equal, &[ICMPV6])
        .payload(PayloadBase::Transport, 0, 1, 0)
        .compare(0, Equal, &[kind])
}

/// Drops what uses a value that we gave out (it is in `all`), but not to this port (`own`).
fn only_own(load: &dyn Fn(Rule, u32) -> Rule, all: Set, own: Set, rule: Rule) -> Rule {
    let rule = load(rule, 0).lookup(all.name(), 0, Equal).meta(Meta::InputName, 0);
    load(rule, 4).lookup(own.name(), 0, NotEqual).verdict(&Verdict::Drop)
}
