//! Connection tracking: flows found and forgotten.
//!
//! A flow keeps the translation that it began with. TCP notices when its end is gone; a UDP flow goes
//! on as long as its sender does, to an address that may be somebody else's by now, or past a port
//! that was published since. Such flows are deleted, and begin anew with their next packet.
//!
//! Source: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Message, NetlinkError, Socket, find};

const SUBSYSTEM_CONNTRACK: u16 = 1 << 8;
const MSG_GET: u16 = SUBSYSTEM_CONNTRACK | 1;
const MSG_DELETE: u16 = SUBSYSTEM_CONNTRACK | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const IDENTIFIER: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IPV4_SOURCE: u16 = 1;
const IPV4_DESTINATION: u16 = 2;
const IPV6_SOURCE: u16 = 3;
const IPV6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const PORT_SOURCE: u16 = 2;
const PORT_DESTINATION: u16 = 3;
/// Set on attributes that hold attributes.
const NESTED: u16 = 1 << 15;

/// One tracked flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    pub source: SocketAddr,
    /// Where the first packet was sent.
    pub destination: SocketAddr,
    /// Who answers: another address than `destination` if that was translated.
    pub answerer: SocketAddr,
}

/// Deletes the flows that `doomed` chooses, in the namespace of the socket (of netfilter's
/// protocol), and gives their number. A kernel without connection tracking has none.
pub fn delete_flows(
    socket: &mut Socket,
    doomed: impl Fn(&Flow) -> bool,
) -> Result<usize, NetlinkError> {
    let mut count = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = family as u8;
        let mut request = Message::new("list tracked flows", MSG_GET, libc::NLM_F_DUMP);
        request.raw(&[family, 0, 0, 0]);
        let objects = match socket.dump(&request) {
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => return Ok(0),
            outcome => outcome?,
        };
        let bodies = objects.iter().filter_map(|object| object.get(4..));
        for body in bodies.filter(|body| parse(body).is_some_and(|flow| doomed(&flow))) {
            match socket.send(&[delete(family, body)]) {
                // It ended by itself.
                Err(error) if error.is_missing() => {}
                outcome => {
                    outcome?;
                    count += 1;
                }
            }
        }
    }
    Ok(count)
}

/// A request that means exactly this flow: the same attributes, and its identifier, which a later
/// flow between the same ends does not have.
fn delete(family: u8, body: &[u8]) -> Message {
    let mut message = Message::new("delete a tracked flow", MSG_DELETE, 0);
    message.raw(&[family, 0, 0, 0]);
    for (kind, nested) in [(TUPLE_ORIGINAL, NESTED), (IDENTIFIER, 0), (ZONE, 0)] {
        if let Some(value) = find(body, kind) {
            message.attribute(kind | nested, value);
        }
    }
    message
}

fn parse(body: &[u8]) -> Option<Flow> {
    let (protocol, source, destination) = tuple(find(body, TUPLE_ORIGINAL)?)?;
    let (_, answerer, _) = tuple(find(body, TUPLE_REPLY)?)?;
    Some(Flow { protocol, source, destination, answerer })
}

fn tuple(tuple: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (ip, transport) = (find(tuple, TUPLE_IP)?, find(tuple, TUPLE_PROTOCOL)?);
    let protocol = *find(transport, PROTOCOL_NUMBER)?.first()?;
    let end = |v4, v6, port| {
        let address = match find(ip, v4) {
            Some(bytes) => IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
            None => IpAddr::V6(Ipv6Addr::from(*find(ip, v6)?.first_chunk::<16>()?)),
        };
        // ICMP has no ports.
        let port = find(transport, port).and_then(<[u8]>::first_chunk).copied();
        Some(SocketAddr::new(address, u16::from_be_bytes(port.unwrap_or_default())))
    };
    let source = end(IPV4_SOURCE, IPV6_SOURCE, PORT_SOURCE)?;
    let destination = end(IPV4_DESTINATION, IPV6_DESTINATION, PORT_DESTINATION)?;
    Some((protocol, source, destination))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::nft::expr::{Conntrack, Rule};
    use super::super::nft::{Base, Batch, ChainKind, Family, Hook, Policy, Table};
    use super::super::route::{Link, LinkChange, State, link_set};
    use super::super::{Protocol, netns};
    use super::*;

    #[test]
    fn only_the_chosen_flow_is_forgotten() {
        if !crate::testing::privileged("flows are tracked in a network namespace of their own") {
            return;
        }
        netns::create(|| {
            let up = LinkChange { state: Some(State::Up), ..LinkChange::default() };
            let mut route = Socket::open(Protocol::Route).unwrap();
            route.send(&[link_set(Link::Name("lo"), &up)]).unwrap();
            let mut socket = Socket::open(Protocol::Netfilter).unwrap();
            track(&mut socket);
            let server = UdpSocket::bind("127.0.0.1:0").unwrap();
            let clients = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
            for client in &clients {
                client.send_to(b"x", server.local_addr().unwrap()).unwrap();
            }
            let mine = |flow: &Flow| flow.source == clients[0].local_addr().unwrap();
            let ours = |flow: &Flow| {
                flow.protocol == 17 && flow.destination == server.local_addr().unwrap()
            };
            assert_eq!(delete_flows(&mut socket, mine).unwrap(), 1);
            assert_eq!(delete_flows(&mut socket, mine).unwrap(), 0);
            assert_eq!(delete_flows(&mut socket, ours).unwrap(), 1);
        })
        .unwrap();
    }

    /// A rule that asks for a flow's state makes the namespace track flows.
    fn track(socket: &mut Socket) {
        let table = Table { family: Family::Inet, name: "t" };
        let base = Base {
            kind: ChainKind::Filter,
            hook: Hook::Output,
            priority: 0,
            policy: Policy::Accept,
        };
        let mut batch = Batch::new();
        batch.table_add(table);
        batch.chain_add(table, "out", Some(base));
        batch.rule_add(table, "out", &Rule::new().conntrack(Conntrack::State, 0));
        batch.commit(socket).unwrap();
    }
}
