//! What a bridge port may send, frame by frame: built by hand, sent from inside one namespace, and
//! looked for in another.

use super::*;
use rustix::net::{AddressFamily, Protocol as FrameProtocol, RecvFlags, SocketFlags, SocketType};
use std::num::NonZeroU32;

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const PROVIDER_VLAN: u16 = 0x88a8;

const OWN: [u8; 4] = [172, 17, 0, 3];
const OTHER: [u8; 4] = [172, 17, 0, 2];
const NOBODY: [u8; 4] = [0; 4];

/// The frames' sender: its MAC and link-local address, and those of the other container.
struct Cast {
    own: Mac,
    other: Mac,
}

fn frame(source: Mac, protocols: &[u16], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(source.0);
    for (place, protocol) in protocols.iter().enumerate() {
        // Priority 1, no VLAN.
        frame.extend(if place > 0 { &[0x20, 0][..] } else { &[] });
        frame.extend(protocol.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

fn arp(operation: u8, mac: Mac, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(mac.0);
    packet.extend(sender);
    packet.extend([0; 6]);
    packet.extend(target);
    packet
}

fn ipv4(source: [u8; 4], target: [u8; 4], ports: [u16; 2]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28 + MARK_BYTES as u8, 0, 1, 0, 0, 64, 17, 0, 0];
    packet.extend(source);
    packet.extend(target);
    // With a wrong checksum br_netfilter would drop it before we do.
    let words = packet.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    packet.extend([0, 8 + MARK_BYTES as u8, 0, 0]);
    packet
}

fn ipv6(source: Ipv6Addr, next: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16 + MARK_BYTES as u16).to_be_bytes());
    packet.extend([next, 255]);
    packet.extend(source.octets());
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(body);
    packet
}

/// A neighbour solicitation (135), advertisement (136), …: the target stands where theirs does.
fn icmpv6(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    body.extend(target.octets());
    body
}

const MARK_BYTES: usize = 8;

fn mark(number: usize) -> [u8; MARK_BYTES] {
    let mut mark = *b"tug-0000";
    mark[4..].copy_from_slice(&(number as u32).to_be_bytes());
    mark
}

fn allowed(cast: &Cast) -> Vec<(&'static str, Vec<u8>)> {
    let (own, link_local) = (cast.own, cast.own.link_local());
    let broadcast = [255; 4];
    vec![
        ("own address", frame(own, &[IPV4], &ipv4(OWN, OTHER, [9, 7]))),
        ("own address, tagged", frame(own, &[VLAN, IPV4], &ipv4(OWN, OTHER, [9, 7]))),
        ("DHCP", frame(own, &[IPV4], &ipv4(NOBODY, broadcast, [68, 67]))),
        ("ARP request", frame(own, &[ARP], &arp(1, own, OWN, OTHER))),
        ("ARP answer", frame(own, &[ARP], &arp(2, own, OWN, OTHER))),
        ("ARP probe", frame(own, &[ARP], &arp(1, own, NOBODY, OTHER))),
        ("link-local", frame(own, &[IPV6], &ipv6(link_local, 17, &[0; 8]))),
        ("advertisement", frame(own, &[IPV6], &ipv6(link_local, 58, &icmpv6(136, link_local)))),
        (
            "solicitation",
            frame(own, &[IPV6], &ipv6(link_local, 58, &icmpv6(135, cast.other.link_local()))),
        ),
        (
            "duplicate detection",
            frame(own, &[IPV6], &ipv6(Ipv6Addr::UNSPECIFIED, 58, &icmpv6(135, link_local))),
        ),
    ]
}

fn forbidden4(cast: &Cast) -> Vec<(&'static str, Vec<u8>)> {
    let own = cast.own;
    let spoofed = ipv4(OTHER, OWN, [9, 7]);
    let mut llc = vec![0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
    llc.extend(&spoofed);
    vec![
        ("another's address", frame(own, &[IPV4], &spoofed)),
        ("the gateway's", frame(own, &[IPV4], &ipv4([172, 17, 0, 1], OTHER, [53, 7]))),
        ("given to nobody", frame(own, &[IPV4], &ipv4([172, 17, 0, 77], OTHER, [9, 7]))),
        ("of the world", frame(own, &[IPV4], &ipv4([8, 8, 8, 8], OTHER, [53, 7]))),
        ("no address", frame(own, &[IPV4], &ipv4(NOBODY, OTHER, [68, 67]))),
        ("no address, not DHCP", frame(own, &[IPV4], &ipv4(NOBODY, [255; 4], [9, 7]))),
        ("tagged", frame(own, &[VLAN, IPV4], &spoofed)),
        ("provider's tag", frame(own, &[PROVIDER_VLAN, IPV4], &spoofed)),
        ("tags within tags", frame(own, &[VLAN, VLAN, IPV4], &spoofed)),
        ("both tags", frame(own, &[PROVIDER_VLAN, VLAN, IPV4], &spoofed)),
        ("own address, two tags", frame(own, &[VLAN, VLAN, IPV4], &ipv4(OWN, OTHER, [9, 7]))),
        ("LLC with SNAP", frame(own, &[llc.len() as u16 + 8], &llc)),
        ("another protocol", frame(own, &[0x88b5], &[1; 40])),
        ("another's MAC", frame(cast.other, &[IPV4], &ipv4(OWN, OTHER, [9, 7]))),
        ("nobody's MAC", frame(Mac([2, 7, 7, 7, 7, 7]), &[IPV4], &ipv4(OWN, OTHER, [9, 7]))),
        ("ARP for another", frame(own, &[ARP], &arp(2, own, OTHER, OTHER))),
        ("ARP for another, tagged", frame(own, &[VLAN, ARP], &arp(2, own, OTHER, OTHER))),
        ("ARP for nobody", frame(own, &[ARP], &arp(1, own, [172, 17, 0, 77], OTHER))),
        ("ARP answer of nobody", frame(own, &[ARP], &arp(2, own, NOBODY, OTHER))),
        ("ARP with another's MAC", frame(own, &[ARP], &arp(2, cast.other, OWN, OTHER))),
        ("ARP of an odd form", {
            let mut odd = arp(2, own, OTHER, OTHER);
            odd[5] = 8;
            frame(own, &[ARP], &odd)
        }),
    ]
}

fn forbidden6(cast: &Cast) -> Vec<(&'static str, Vec<u8>)> {
    let own = cast.own;
    let (mine, theirs) = (own.link_local(), cast.other.link_local());
    let router = icmpv6(134, Ipv6Addr::UNSPECIFIED);
    // Hop-by-hop options before the message.
    let mut behind = vec![58, 0, 1, 4, 0, 0, 0, 0];
    behind.extend(&router);
    let nobodys: Ipv6Addr = "fe80::7".parse().unwrap();
    vec![
        ("another's link-local", frame(own, &[IPV6], &ipv6(theirs, 17, &[0; 8]))),
        ("nobody's link-local", frame(own, &[IPV6], &ipv6(nobodys, 17, &[0; 8]))),
        ("IPv6, tagged", frame(own, &[VLAN, IPV6], &ipv6(theirs, 17, &[0; 8]))),
        ("no IPv6 address", frame(own, &[IPV6], &ipv6(Ipv6Addr::UNSPECIFIED, 17, &[0; 8]))),
        ("router", frame(own, &[IPV6], &ipv6(mine, 58, &router))),
        ("router, tagged", frame(own, &[VLAN, IPV6], &ipv6(mine, 58, &router))),
        ("router behind options", frame(own, &[IPV6], &ipv6(mine, 0, &behind))),
        ("redirect", frame(own, &[IPV6], &ipv6(mine, 58, &icmpv6(137, theirs)))),
        ("advertisement for another", frame(own, &[IPV6], &ipv6(mine, 58, &icmpv6(136, theirs)))),
        (
            "doubt about another's",
            frame(own, &[IPV6], &ipv6(Ipv6Addr::UNSPECIFIED, 58, &icmpv6(135, theirs))),
        ),
        ("a header chain cut off", frame(own, &[IPV6], &ipv6(mine, 0, &[]))),
    ]
}

/// Everything that arrives in the namespace, until the mark of the last frame is seen.
fn arrivals(netns: BorrowedFd<'_>) -> OwnedFd {
    // ETH_P_ALL in network order.
    let every = u32::from(3u16.to_be());
    let protocol = FrameProtocol::from_raw(NonZeroU32::new(every).unwrap());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    netns::within(netns, || {
        rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(protocol))
    })
    .unwrap()
    .unwrap()
}

fn drain(socket: &OwnedFd, seen: &mut Vec<usize>, marks: usize) {
    let mut buffer = [0; 256];
    while let Ok((length, _)) = rustix::net::recv(socket, &mut buffer, RecvFlags::empty()) {
        let bytes = &buffer[..length.min(buffer.len())];
        seen.extend((0..marks).filter(|&number| bytes.ends_with(&mark(number))));
    }
}

#[test]
fn a_port_sends_what_it_was_given_and_nothing_else() {
    on_a_host(|host| {
        let (other, own) = (container(host, 2), container(host, 3));
        let cast = Cast { own: own.port.mac, other: other.port.mac };
        let frames: Vec<_> = forbidden4(&cast)
            .into_iter()
            .chain(forbidden6(&cast))
            .map(|frame| (frame, false))
            .chain(allowed(&cast).into_iter().map(|frame| (frame, true)))
            .collect();
        let socket = arrivals(other.sandbox.netns());
        let mut seen = Vec::new();
        let send = |bytes: &[u8], number: usize| {
            let bytes = [bytes, &mark(number)].concat();
            own.sandbox.announcer.send(own.port.index, &bytes).unwrap();
        };
        for (number, ((_, bytes), _)) in frames.iter().enumerate() {
            send(bytes, number);
        }
        // What was sent before the last frame has arrived with it, or never will.
        let last = frames.len() - 1;
        for _ in 0..500 {
            drain(&socket, &mut seen, frames.len());
            if seen.contains(&last) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let wrong = frames
            .iter()
            .enumerate()
            .filter(|(number, (_, passes))| seen.contains(number) != *passes);
        let wrong: Vec<_> = wrong.map(|(_, ((name, _), _))| name).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    });
}

/// Counts the gratuitous ARP messages of 172.17.0.9 until `wanted` have come and nothing more is due.
fn told(host: &mut Host, times: u32) -> usize {
    let other = container(host, 2);
    let socket = arrivals(other.sandbox.netns());
    let pool_bridge = PoolBridge { index: host.bridge.index, mtu: None };
    let mut ready = prepare(&mut host.socket, pool_bridge).unwrap();
    // A new port of a bridge is let in by a worker of the kernel's, some time later.
    let mut seen = Vec::new();
    while seen.is_empty() {
        let probe = frame(ready.port.mac, &[0x88b5], &mark(0));
        ready.sandbox.announcer.send(ready.port.index, &probe).unwrap();
        std::thread::sleep(Duration::from_millis(10));
        drain(&socket, &mut seen, 1);
    }
    let owner = spec::Id::random();
    let every = Duration::from_millis(100);
    let settings = Settings {
        addresses: vec!["172.17.0.9/16".parse().unwrap()],
        announce: Some(Announce { owner, times, every }),
        ..Settings::default()
    };
    ready.sandbox.configure(&ready.port, &settings).unwrap();
    let _netns = ready.sandbox.into_netns();
    let mut count = 0;
    // Long enough for one message more than is right.
    for _ in 0..(times as usize + 1) * 10 + 10 {
        std::thread::sleep(Duration::from_millis(10));
        let mut buffer = [0; 256];
        while let Ok((length, _)) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty()) {
            let arp = length >= 42 && buffer[12..14] == [8, 6];
            count += usize::from(arp && buffer[28..32] == [172, 17, 0, 9]);
        }
    }
    announcements::stop(owner);
    count
}

#[test]
fn addresses_are_told_as_often_as_is_asked() {
    for times in [0, 1, 3] {
        on_a_host(|host| assert_eq!(told(host, times), times as usize));
    }
}
