//! The constant rules of the two tables.

use std::net::{IpAddr, Ipv6Addr};

use sys::netlink::nft::expr::{Conntrack, Meta, NatFamily, PayloadBase, Relation, Rule};
use sys::netlink::nft::{Batch, ChainKind, Hook, Table, Verdict};

use super::{Set, base};

const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`, include/uapi/linux/netfilter/nf_conntrack_common.h.
const DESTINATION_NAT: u32 = 1 << 5;
const ROUTE_LOCAL: u32 = 2;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Kinds of ICMPv6: RFC 2710, RFC 4861, RFC 3810.
const LISTENER_REPORT: u8 = 131;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const LISTENER_REPORT2: u8 = 143;
/// Ports 68 and 67 side by side, as in the header.
const DHCP_PORTS: [u8; 4] = [0, 68, 0, 67];
/// Ethernet, IPv4, and how long addresses of these are: RFC 826.
const ARP_FORM: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// 802.1Q and 802.1ad.
const ETHERTYPES_VLAN: [[u8; 2]; 2] = [[0x81, 0], [0x88, 0xa8]];

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
    // Where br_netfilter is on, frames between ports of one bridge come by here, too.
    let linked = Rule::new().only_family(Ipv4, 0).source(Ipv4, 0).destination(Ipv4, 1);
    let linked = linked.meta(Meta::TransportProtocol, 2).destination_port(3);
    batch.rule_add(table, "inward", &accept(linked.lookup(Set::Linked.name(), 0, Equal)));
    batch.rule_add(table, "inward", &Rule::new().counter().verdict(&Verdict::Drop));
}

pub(super) fn bridge(batch: &mut Batch, table: Table<'_>) {
    for chain in ["arp", "ipv4", "ipv6", "icmpv6", "unclaimed", "apart"] {
        batch.chain_add(table, chain, None);
    }
    batch.chain_add(table, "prerouting", base(ChainKind::Filter, Hook::Prerouting, -300));
    let others = Rule::new()
        .meta(Meta::InputName, 0)
        .lookup(Set::Guarded.name(), 0, NotEqual)
        .verdict(&Verdict::Accept);
    batch.rule_add(table, "prerouting", &others);
    let weaker = Rule::new().meta(Meta::InputName, 0).lookup(Set::Unclaimed.name(), 0, Equal);
    batch.rule_add(table, "prerouting", &weaker.verdict(&Verdict::Goto("unclaimed".to_owned())));
    let foreign_mac = own(&source_mac, Set::OwnMac, NotEqual, Rule::new());
    batch.rule_add(table, "prerouting", &foreign_mac.verdict(&Verdict::Drop));
    for (protocol, chain) in
        [(ETHERTYPE_ARP, "arp"), (ETHERTYPE_IPV4, "ipv4"), (ETHERTYPE_IPV6, "ipv6")]
    {
        let rule = parsed_as(protocol).verdict(&Verdict::Goto(chain.to_owned()));
        batch.rule_add(table, "prerouting", &rule);
    }
    drop_rest(batch, table, "prerouting");
    arp(batch, table);
    ipv4(batch, table);
    ipv6(batch, table);
    unclaimed(batch, table);
    apart(batch, table);
}

/// Goes on for what the kernel took this frame for, behind the VLAN tag that it removed: bytes at a
/// fixed place say what the sender likes, since `payload` shows the tag again.
fn parsed_as(protocol: [u8; 2]) -> Rule {
    Rule::new().meta(Meta::Protocol, 0).compare(0, Equal, &protocol)
}

fn drop_rest(batch: &mut Batch, table: Table<'_>, chain: &str) {
    batch.rule_add(table, chain, &Rule::new().counter().verdict(&Verdict::Drop));
}

// Where in its header a frame names its sender. A load beyond the frame's end ends its rule, so that
// nothing accepts what is too short.

fn source_mac(rule: Rule, register: u32) -> Rule {
    rule.payload(PayloadBase::Link, 6, 6, register)
}

fn arp_sender_mac(rule: Rule, register: u32) -> Rule {
    rule.payload(PayloadBase::Network, 8, 6, register)
}

fn arp_sender(rule: Rule, register: u32) -> Rule {
    rule.payload(PayloadBase::Network, 14, 4, register)
}

fn source4(rule: Rule, register: u32) -> Rule {
    rule.source(Ipv4, register)
}

fn source6(rule: Rule, register: u32) -> Rule {
    rule.source(Ipv6, register)
}

/// The address that a neighbour solicitation or advertisement is about.
fn neighbour_target(rule: Rule, register: u32) -> Rule {
    rule.payload(PayloadBase::Transport, 8, 16, register)
}

type Load = dyn Fn(Rule, u32) -> Rule;

/// Goes on if the port was given the value, or was not.
fn own(load: &Load, own: Set, relation: Relation, rule: Rule) -> Rule {
    load(rule.meta(Meta::InputName, 0), 4).lookup(own.name(), 0, relation)
}

/// Goes on if the value was given out, but not to this port.
fn anothers(load: &Load, all: Set, own_set: Set, rule: Rule) -> Rule {
    own(load, own_set, NotEqual, load(rule, 0).lookup(all.name(), 0, Equal))
}

fn arp(batch: &mut Batch, table: Table<'_>) {
    // Ethernet and IPv4, with addresses of six and four bytes: else the fields are elsewhere.
    let plain =
        |rule: Rule| rule.payload(PayloadBase::Network, 0, 6, 0).compare(0, Equal, &ARP_FORM);
    let odd = Rule::new().payload(PayloadBase::Network, 0, 6, 0).compare(0, NotEqual, &ARP_FORM);
    batch.rule_add(table, "arp", &odd.verdict(&Verdict::Drop));
    let foreign = own(&arp_sender_mac, Set::OwnMac, NotEqual, Rule::new());
    batch.rule_add(table, "arp", &foreign.verdict(&Verdict::Drop));
    let known = own(&arp_sender, Set::Own4, Equal, plain(Rule::new()));
    batch.rule_add(table, "arp", &known.verdict(&Verdict::Accept));
    // A probe: who has this address, asked by somebody without one (RFC 5227).
    let probe = plain(Rule::new()).payload(PayloadBase::Network, 6, 2, 0);
    let probe = arp_sender(probe.compare(0, Equal, &ARP_REQUEST), 0).compare(0, Equal, &[0; 4]);
    batch.rule_add(table, "arp", &probe.verdict(&Verdict::Accept));
    drop_rest(batch, table, "arp");
}

fn ipv4(batch: &mut Batch, table: Table<'_>) {
    let known = own(&source4, Set::Own4, Equal, Rule::new());
    batch.rule_add(table, "ipv4", &known.verdict(&Verdict::Accept));
    // Somebody without an address may ask for one.
    let dhcp = source4(Rule::new(), 0).compare(0, Equal, &[0; 4]);
    let dhcp = dhcp.destination(Ipv4, 0).compare(0, Equal, &[0xff; 4]);
    let dhcp = dhcp.meta(Meta::TransportProtocol, 0).compare(0, Equal, &[UDP]);
    let dhcp = dhcp.payload(PayloadBase::Transport, 0, 4, 0).compare(0, Equal, &DHCP_PORTS);
    batch.rule_add(table, "ipv4", &dhcp.verdict(&Verdict::Accept));
    drop_rest(batch, table, "ipv4");
}

fn ipv6(batch: &mut Batch, table: Table<'_>) {
    // A header chain that the kernel cannot follow has no transport protocol: both rules end there.
    let control = Rule::new().meta(Meta::TransportProtocol, 0).compare(0, Equal, &[ICMPV6]);
    batch.rule_add(table, "ipv6", &control.verdict(&Verdict::Goto("icmpv6".to_owned())));
    let known = own(&source6, Set::Own6, Equal, Rule::new().meta(Meta::TransportProtocol, 0));
    batch.rule_add(table, "ipv6", &known.verdict(&Verdict::Accept));
    drop_rest(batch, table, "ipv6");

    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        batch.rule_add(table, "icmpv6", &icmpv6(kind).verdict(&Verdict::Drop));
    }
    let foreign = own(&neighbour_target, Set::Own6, NotEqual, icmpv6(NEIGHBOUR_ADVERTISEMENT));
    batch.rule_add(table, "icmpv6", &foreign.verdict(&Verdict::Drop));
    let known = own(&source6, Set::Own6, Equal, Rule::new());
    batch.rule_add(table, "icmpv6", &known.verdict(&Verdict::Accept));
    // Who has no address yet asks whether its own is taken, joins groups and looks for routers.
    let nobody = |rule: Rule| source6(rule, 0).compare(0, Equal, &[0; 16]);
    let doubt = own(&neighbour_target, Set::Own6, Equal, nobody(icmpv6(NEIGHBOUR_SOLICITATION)));
    batch.rule_add(table, "icmpv6", &doubt.verdict(&Verdict::Accept));
    for kind in [LISTENER_REPORT, LISTENER_REPORT2, ROUTER_SOLICITATION] {
        batch.rule_add(table, "icmpv6", &nobody(icmpv6(kind)).verdict(&Verdict::Accept));
    }
    drop_rest(batch, table, "icmpv6");
}

fn icmpv6(kind: u8) -> Rule {
    Rule::new()
        .meta(Meta::TransportProtocol, 0)
        .compare(0, Equal, &[ICMPV6])
        .payload(PayloadBase::Transport, 0, 1, 0)
        .compare(0, Equal, &[kind])
}

/// For ports that may send with what nobody was given.
fn unclaimed(batch: &mut Batch, table: Table<'_>) {
    let mut refuse = |rule: Rule| batch.rule_add(table, "unclaimed", &rule.verdict(&Verdict::Drop));
    refuse(anothers(&source_mac, Set::Macs, Set::OwnMac, Rule::new()));
    // A tag within the one that the kernel removed hides the rest.
    for tag in ETHERTYPES_VLAN {
        refuse(parsed_as(tag));
    }
    refuse(anothers(&arp_sender_mac, Set::Macs, Set::OwnMac, parsed_as(ETHERTYPE_ARP)));
    refuse(anothers(&arp_sender, Set::Addresses4, Set::Own4, parsed_as(ETHERTYPE_ARP)));
    refuse(anothers(&source4, Set::Addresses4, Set::Own4, parsed_as(ETHERTYPE_IPV4)));
    refuse(anothers(&source6, Set::Addresses6, Set::Own6, parsed_as(ETHERTYPE_IPV6)));
    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        refuse(icmpv6(kind));
    }
    let advertisement = icmpv6(NEIGHBOUR_ADVERTISEMENT);
    refuse(anothers(&neighbour_target, Set::Addresses6, Set::Own6, advertisement));
}

/// Between ports that may not talk. Those without links are isolated by the bridge itself, too. Runs
/// before br_netfilter, which at priority 0 takes the frame and goes on behind itself.
fn apart(batch: &mut Batch, table: Table<'_>) {
    batch.chain_add(table, "forward", base(ChainKind::Filter, Hook::Forward, -200));
    let both = Rule::new().meta(Meta::InputName, 0).lookup(Set::Apart.name(), 0, Equal);
    let both = both.meta(Meta::OutputName, 0).lookup(Set::Apart.name(), 0, Equal);
    batch.rule_add(table, "forward", &both.verdict(&Verdict::Goto("apart".to_owned())));
    let mut allow = |rule: Rule| batch.rule_add(table, "apart", &rule.verdict(&Verdict::Accept));
    let pair = arp_sender(parsed_as(ETHERTYPE_ARP), 0).payload(PayloadBase::Network, 24, 4, 1);
    allow(pair.lookup(Set::LinkedPairs.name(), 0, Equal));
    for (set, port_offset) in [(Set::LinkedTo, 2), (Set::LinkedBack, 0)] {
        let service = parsed_as(ETHERTYPE_IPV4).source(Ipv4, 0).destination(Ipv4, 1);
        let service = service.meta(Meta::TransportProtocol, 2);
        let service = service.payload(PayloadBase::Transport, port_offset, 2, 3);
        allow(service.lookup(set.name(), 0, Equal));
    }
    drop_rest(batch, table, "apart");
}
