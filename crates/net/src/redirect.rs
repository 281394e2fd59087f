//! Leads a container's questions to 127.0.0.11, port 53, to the monitor's resolver, which listens
//! on that address but on ports of its own, so that a name server in the container can have 53.
//!
//! Chain names and the form of the rules are a contract: kind edits them inside its nodes with
//! `iptables-save | sed | iptables-restore`. So the table is iptables' own `nat`, and the rules
//! hold iptables' own targets where the kernel has them (`CONFIG_NFT_COMPAT`).
//!
//! Source: moby `libnetwork/resolver_unix.go`; iptables 1.8.9 as seen with `nft --debug=netlink`.

use std::net::Ipv4Addr;

use sys::netlink::nft::expr::{Meta, NatFamily, PayloadBase, Relation, Rule};
use sys::netlink::nft::{Base, Batch, ChainKind, Family, Hook, Policy, Table, Verdict};
use sys::netlink::{NetlinkError, Protocol, Socket};

const TABLE: Table<'static> = Table { family: Family::Ip, name: "nat" };
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const OUTPUT: &str = "DOCKER_OUTPUT";
const POSTROUTING: &str = "DOCKER_POSTROUTING";
const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS_PORT: u16 = 53;

/// Makes the rules in the calling thread's network namespace, which must be the container's.
///
/// `udp_port` and `tcp_port` are where the resolver is bound on 127.0.0.11.
pub fn resolver(udp_port: u16, tcp_port: u16) -> Result<(), NetlinkError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    match rules(udp_port, tcp_port, Targets::Iptables).commit(&mut socket) {
        // Without nft_compat, iptables-save inside would not understand the rules, but they work.
        Err(error) if error.is_missing() => {
            rules(udp_port, tcp_port, Targets::Native).commit(&mut socket)
        }
        outcome => outcome,
    }
}

#[derive(Clone, Copy)]
enum Targets {
    Iptables,
    Native,
}

fn rules(udp_port: u16, tcp_port: u16, targets: Targets) -> Batch {
    let mut batch = Batch::new();
    batch.table_add(TABLE);
    let base =
        |hook, priority| Base { kind: ChainKind::Nat, hook, priority, policy: Policy::Accept };
    batch.chain_add(TABLE, "OUTPUT", Some(base(Hook::Output, -100)));
    batch.chain_add(TABLE, "POSTROUTING", Some(base(Hook::Postrouting, 100)));
    batch.chain_add(TABLE, OUTPUT, None);
    batch.chain_add(TABLE, POSTROUTING, None);
    for (from, to) in [("OUTPUT", OUTPUT), ("POSTROUTING", POSTROUTING)] {
        let jump = Rule::new()
            .to(RESOLVER.into(), Relation::Equal, 0)
            .counter()
            .verdict(&Verdict::Jump(to.to_owned()));
        batch.rule_add(TABLE, from, &jump);
    }
    for (protocol, port) in [(TCP, tcp_port), (UDP, udp_port)] {
        let inward = of_protocol(protocol)
            .to(RESOLVER.into(), Relation::Equal, 0)
            .destination_port(0)
            .compare(0, Relation::Equal, &DNS_PORT.to_be_bytes())
            .counter();
        batch.rule_add(TABLE, OUTPUT, &to_port(inward, port, targets));
        let outward = of_protocol(protocol)
            .source(NatFamily::Ipv4, 0)
            .compare(0, Relation::Equal, &RESOLVER.octets())
            .payload(PayloadBase::Transport, 0, 2, 0)
            .compare(0, Relation::Equal, &port.to_be_bytes())
            .counter();
        batch.rule_add(TABLE, POSTROUTING, &from_dns_port(outward, targets));
    }
    batch
}

fn of_protocol(protocol: u8) -> Rule {
    Rule::new().for_iptables(protocol).meta(Meta::TransportProtocol, 0).compare(
        0,
        Relation::Equal,
        &[protocol],
    )
}

// Flags of `struct nf_nat_range2`, include/uapi/linux/netfilter/nf_nat.h.
const MAP_ADDRESSES: u32 = 1;
const MAP_PORTS: u32 = 2;

/// `-j DNAT --to-destination 127.0.0.11:port`.
fn to_port(rule: Rule, port: u16, targets: Targets) -> Rule {
    match targets {
        Targets::Native => rule
            .immediate(0, &RESOLVER.octets())
            .immediate(1, &port.to_be_bytes())
            .destination_nat(NatFamily::Ipv4, 0, 1),
        Targets::Iptables => {
            // struct nf_nat_range2: flags, two addresses of 16 bytes, two ports, a base port.
            let mut info = [0; 48];
            info[0..4].copy_from_slice(&(MAP_ADDRESSES | MAP_PORTS).to_ne_bytes());
            info[4..8].copy_from_slice(&RESOLVER.octets());
            info[20..24].copy_from_slice(&RESOLVER.octets());
            info[36..38].copy_from_slice(&port.to_be_bytes());
            info[38..40].copy_from_slice(&port.to_be_bytes());
            rule.iptables_target("DNAT", 2, &info)
        }
    }
}

/// `-j SNAT --to-source :53`.
fn from_dns_port(rule: Rule, targets: Targets) -> Rule {
    match targets {
        Targets::Native => {
            rule.immediate(0, &DNS_PORT.to_be_bytes()).source_nat_port(NatFamily::Ipv4, 0)
        }
        Targets::Iptables => {
            // struct nf_nat_ipv4_multi_range_compat: count, flags, two addresses, two ports.
            let mut info = [0; 24];
            info[0..4].copy_from_slice(&1u32.to_ne_bytes());
            info[4..8].copy_from_slice(&MAP_PORTS.to_ne_bytes());
            info[16..18].copy_from_slice(&DNS_PORT.to_be_bytes());
            info[18..20].copy_from_slice(&DNS_PORT.to_be_bytes());
            rule.iptables_target("SNAT", 0, &info)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::net::UdpSocket;
    use std::process::Command;
    use sys::netlink::netns;
    use sys::netlink::route::{Link, LinkChange, State, link_set};

    #[test]
    fn questions_reach_the_resolver_and_kind_can_edit_the_rules() {
        if !sys::testing::privileged("the rules need a network namespace of their own") {
            return;
        }
        netns::create(|| {
            let up = LinkChange { state: Some(State::Up), ..LinkChange::default() };
            Socket::open(Protocol::Route)
                .unwrap()
                .send(&[link_set(Link::Name("lo"), &up)])
                .unwrap();
            let server = UdpSocket::bind((RESOLVER, 4002)).unwrap();
            for targets in [Targets::Iptables, Targets::Native] {
                let mut socket = Socket::open(Protocol::Netfilter).unwrap();
                rules(4002, 4001, targets).commit(&mut socket).unwrap();
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                client.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
                client.connect((RESOLVER, DNS_PORT)).unwrap();
                client.send(b"question").unwrap();
                let mut buffer = [0; 16];
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], b"question");
                server.send_to(b"answer", from).unwrap();
                let length = client.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], b"answer");
                if matches!(targets, Targets::Iptables) {
                    saved_form();
                }
                let mut batch = Batch::new();
                batch.table_delete(TABLE);
                batch.commit(&mut socket).unwrap();
            }
            resolver(4002, 4001).unwrap();
        })
        .unwrap();
    }

    fn saved_form() {
        let Ok(saved) = Command::new("iptables-nft-save").args(["-t", "nat"]).output() else {
            return;
        };
        let saved = String::from_utf8(saved.stdout).unwrap();
        let rules: Vec<&str> = saved.lines().filter(|line| line.starts_with("-A")).collect();
        expect![[r#"
            -A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
            -A POSTROUTING -d 127.0.0.11/32 -j DOCKER_POSTROUTING
            -A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:4001
            -A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:4002
            -A DOCKER_POSTROUTING -s 127.0.0.11/32 -p tcp -m tcp --sport 4001 -j SNAT --to-source :53
            -A DOCKER_POSTROUTING -s 127.0.0.11/32 -p udp -m udp --sport 4002 -j SNAT --to-source :53"#]]
        .assert_eq(&rules.join("\n"));
    }
}
