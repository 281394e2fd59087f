//! Real traffic between namespaces: a container, the host, and a neighbour on the LAN.

use super::*;
use crate::bridge::{self, BridgeWish, Others};
use crate::firewall;
use crate::firewall::{
    Between, BridgeRules, Direct, Exit, Firewall, Forward, Guard, Item, Sources, Way,
};
use crate::ports::{PortAllocator, PortWish as PublishWish, Transport};
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

mod frames;

/// The host: a bridge 172.17.0.1/16 and an uplink 192.0.2.1/24 to a neighbour 192.0.2.9.
struct Host {
    socket: Socket,
    bridge: bridge::Bridge,
    firewall: Firewall,
    neighbour: Sandbox,
}

fn on_a_host(work: impl FnOnce(&mut Host) + Send) {
    if !sys::testing::privileged("traffic needs network namespaces of its own") {
        return;
    }
    netns::create(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let up = LinkChange { state: Some(State::Up), ..LinkChange::default() };
        socket.send(&[link_set(Link::Name("lo"), &up)]).unwrap();
        sysctl::forward_ipv4().unwrap();
        let mut neighbour = Sandbox::create().unwrap();
        let uplink = NewLink { name: "uplink", state: State::Up, ..NewLink::default() };
        let peer = NewLink { name: "eth0", netns: Some(neighbour.netns()), ..NewLink::default() };
        socket.send(&[link_create(&uplink, &LinkKind::Veth(peer))]).unwrap();
        let index = route::find_link(&mut socket, Link::Name("uplink")).unwrap().unwrap().index;
        socket.send(&[address_add(index, [192, 0, 2, 1].into(), 24)]).unwrap();
        neighbour.socket.send(&[link_set(Link::Name("eth0"), &up)]).unwrap();
        let there = neighbour.find("eth0").unwrap().unwrap();
        neighbour
            .socket
            .send(&[
                address_add(there, [192, 0, 2, 9].into(), 24),
                // It knows the way to the containers, as somebody on the LAN may.
                route_add(Some(([172, 17, 0, 0].into(), 16)), Some([192, 0, 2, 1].into()), there),
            ])
            .unwrap();
        let wish = BridgeWish {
            name: "tug0".into(),
            mac: None,
            mtu: None,
            addresses: vec!["172.17.0.1/16".parse().unwrap()],
            others: Others::Removed,
        };
        let (bridge, added) = bridge::ensure(&mut socket, &wish).unwrap();
        assert_eq!(added, wish.addresses);
        assert_eq!(bridge::ensure(&mut socket, &wish).unwrap(), (bridge, vec![]));
        let mut firewall = Firewall::open("tug").unwrap();
        let rules = BridgeRules {
            interface: "tug0".into(),
            mac: bridge.mac,
            masqueraded: vec!["172.17.0.0/16".parse().unwrap()],
            gateways: vec![[172, 17, 0, 1].into()],
            exit: Exit::Open,
            between: Between::Allowed,
            direct: Direct::Dropped,
            trusted: vec![],
        };
        firewall.change(&[], &[Item::Bridge(rules)]).unwrap();
        work(&mut Host { socket, bridge, firewall, neighbour });
    })
    .unwrap();
}

fn container(host: &mut Host, last: u8) -> Ready {
    let pool_bridge = PoolBridge { index: host.bridge.index, mtu: None };
    let mut ready = prepare(&mut host.socket, pool_bridge).unwrap();
    let settings = Settings {
        addresses: vec![format!("172.17.0.{last}/16").parse().unwrap()],
        gateways: vec![[172, 17, 0, 1].into()],
        sysctls: Vec::new(),
        announce: None,
    };
    ready.sandbox.configure(&ready.port, &settings).unwrap();
    // A new port of a bridge is let in by a worker of the kernel's, some time later.
    for _ in 0..100 {
        let gateway = SocketAddr::from(([172, 17, 0, 1], 9));
        let patience = Duration::from_millis(100);
        let asked = || TcpStream::connect_timeout(&gateway, patience).map(drop);
        let outcome = netns::within(ready.sandbox.netns(), asked).unwrap();
        if outcome.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            break;
        }
    }
    let interface = ready.port.host.clone().unwrap().0;
    let addresses = vec![[172, 17, 0, last].into()];
    let (sources, between) = (Sources::Own, Between::Allowed);
    let guard = Guard { interface, mac: ready.port.mac, addresses, sources, between };
    host.firewall.change(&[], &[Item::Guard(guard)]).unwrap();
    ready
}

/// Connects from a namespace and reads what the server greets with.
fn greeting(from: BorrowedFd<'_>, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    netns::within(from, || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(400)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })
    .unwrap()
}

/// Serves `count` connections on port 80 of a namespace, greeting each with the peer's address.
fn serve(netns: BorrowedFd<'_>, count: usize) -> std::thread::JoinHandle<()> {
    let listener = netns::within(netns, || TcpListener::bind("0.0.0.0:80").unwrap()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(count) {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_string();
            stream.write_all(peer.as_bytes()).unwrap();
        }
    })
}

#[test]
fn containers_reach_out_masqueraded_and_nobody_reaches_in_unasked() {
    on_a_host(|host| {
        let one = container(host, 2);
        let two = container(host, 3);
        let outside = serve(host.neighbour.netns(), 1);
        assert_eq!(greeting(one.sandbox.netns(), "192.0.2.9:80").as_deref(), Some("192.0.2.1"));
        outside.join().unwrap();
        let inside = serve(one.sandbox.netns(), 2);
        let here = netns::current().unwrap();
        assert_eq!(greeting(two.sandbox.netns(), "172.17.0.2:80").as_deref(), Some("172.17.0.3"));
        assert_eq!(greeting(host.neighbour.netns(), "172.17.0.2:80"), None);
        assert_eq!(greeting(here.as_fd(), "172.17.0.2:80").as_deref(), Some("172.17.0.1"));
        inside.join().unwrap();
    });
}

#[test]
fn a_published_port_is_reached_from_the_lan_and_a_loopback_one_is_not() {
    on_a_host(|host| {
        let one = container(host, 2);
        let mut ports = PortAllocator::default();
        let mut publish = |host_ip: &str, port: u16| {
            let wish = PublishWish {
                transport: Transport::Tcp,
                container_port: 80,
                host_ip: Some(host_ip.parse().unwrap()),
                host_ports: Some(port..=port),
            };
            let bound = ports.bind(&wish, [172, 17, 0, 2].into(), |_, _| None).unwrap();
            let forward = Item::Forward(Forward {
                protocol: 6,
                host: host_ip.parse().unwrap(),
                host_port: port,
                target: [172, 17, 0, 2].into(),
                target_port: 80,
                way: Way::Nat,
            });
            host.firewall.change(&[], &[forward]).unwrap();
            bound
        };
        let _open = publish("0.0.0.0", 8080);
        let _one_address = publish("192.0.2.1", 8081);
        let _loopback = publish("127.0.0.1", 8082);
        // The hole that a careless administrator leaves open.
        sysctl::set("ipv4/conf/all/route_localnet", "1").unwrap();
        let here = netns::current().unwrap();
        let inside = serve(one.sandbox.netns(), 3);
        assert_eq!(
            greeting(host.neighbour.netns(), "192.0.2.1:8080").as_deref(),
            Some("192.0.2.9")
        );
        assert_eq!(
            greeting(host.neighbour.netns(), "192.0.2.1:8081").as_deref(),
            Some("192.0.2.9")
        );
        assert_eq!(greeting(here.as_fd(), "192.0.2.1:8080").as_deref(), Some("192.0.2.1"));
        inside.join().unwrap();
        assert_eq!(greeting(host.neighbour.netns(), "192.0.2.1:8082"), None);
        netns::within(host.neighbour.netns(), || {
            sysctl::set("ipv4/conf/all/route_localnet", "1").unwrap()
        })
        .unwrap();
        let index = host.neighbour.find("eth0").unwrap().unwrap();
        host.neighbour
            .socket
            .send(&[route_add(
                Some(([127, 0, 0, 0].into(), 8)),
                Some([192, 0, 2, 1].into()),
                index,
            )])
            .unwrap();
        assert_eq!(greeting(host.neighbour.netns(), "127.0.0.1:8082"), None);
    });
}

#[test]
fn a_container_cannot_use_the_address_of_another() {
    on_a_host(|host| {
        let one = container(host, 2);
        let mut two = container(host, 3);
        let inside = serve(one.sandbox.netns(), 1);
        assert_eq!(greeting(two.sandbox.netns(), "172.17.0.2:80").as_deref(), Some("172.17.0.3"));
        inside.join().unwrap();
        let heard =
            netns::within(one.sandbox.netns(), || UdpSocket::bind("0.0.0.0:7").unwrap()).unwrap();
        heard.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut buffer = [0; 8];
        let mut say = |from: &str| {
            let from: SocketAddr = format!("{from}:9").parse().unwrap();
            let sender =
                netns::within(two.sandbox.netns(), || UdpSocket::bind(from).unwrap()).unwrap();
            sender.send_to(b"hello", "172.17.0.2:7").unwrap();
            heard.recv_from(&mut buffer).is_ok()
        };
        assert!(say("172.17.0.3"));
        let index = two.port.index;
        for claimed in ["172.17.0.1", "172.17.0.77"] {
            two.sandbox.socket.send(&[address_add(index, claimed.parse().unwrap(), 32)]).unwrap();
        }
        let mut say = |from: &str| {
            let from: SocketAddr = format!("{from}:9").parse().unwrap();
            let sender =
                netns::within(two.sandbox.netns(), || UdpSocket::bind(from).unwrap()).unwrap();
            sender.send_to(b"hello", "172.17.0.2:7").unwrap();
            heard.recv_from(&mut buffer).is_ok()
        };
        assert!(!say("172.17.0.1"), "the gateway's address");
        assert!(!say("172.17.0.77"), "an address that was given to nobody");
        let (sources, between) = (Sources::Unclaimed, Between::Allowed);
        let interface = two.port.host.clone().unwrap().0;
        let addresses = vec![[172, 17, 0, 3].into()];
        let guard = Guard { interface, mac: two.port.mac, addresses, sources, between };
        let own = Item::Guard(Guard { sources: Sources::Own, ..guard.clone() });
        host.firewall.change(&[own], &[Item::Guard(guard)]).unwrap();
        assert!(say("172.17.0.77"), "a privileged container's port");
        assert!(!say("172.17.0.1"), "the gateway's address");
    });
}

#[test]
fn ports_that_are_apart_reach_linked_services_alone() {
    on_a_host(|host| {
        let (one, two) = (container(host, 2), container(host, 3));
        let addresses = |last: u8| vec![IpAddr::from([172, 17, 0, last])];
        for (last, ready) in [(2, &one), (3, &two)] {
            let guard = Guard {
                interface: ready.port.host.clone().unwrap().0,
                mac: ready.port.mac,
                addresses: addresses(last),
                sources: Sources::Own,
                between: Between::Allowed,
            };
            let apart = Item::Guard(Guard { between: Between::Denied, ..guard.clone() });
            host.firewall.change(&[Item::Guard(guard)], &[apart]).unwrap();
        }
        let link = Item::Link(firewall::Link {
            from: [172, 17, 0, 3].into(),
            to: [172, 17, 0, 2].into(),
            protocol: 6,
            port: 80,
        });
        host.firewall.change(&[], std::slice::from_ref(&link)).unwrap();
        let listen = |netns, address: &str| {
            netns::within(netns, || TcpListener::bind(address).unwrap()).unwrap()
        };
        let _others =
            [listen(one.sandbox.netns(), "0.0.0.0:81"), listen(two.sandbox.netns(), "0.0.0.0:80")];
        let inside = serve(one.sandbox.netns(), 1);
        assert_eq!(greeting(two.sandbox.netns(), "172.17.0.2:80").as_deref(), Some("172.17.0.3"));
        inside.join().unwrap();
        let connects = |from: BorrowedFd<'_>, to: &str| {
            let to: SocketAddr = to.parse().unwrap();
            let patience = Duration::from_millis(300);
            netns::within(from, || TcpStream::connect_timeout(&to, patience).is_ok()).unwrap()
        };
        assert!(!connects(two.sandbox.netns(), "172.17.0.2:81"), "another port");
        assert!(!connects(one.sandbox.netns(), "172.17.0.3:80"), "the other way");
        let _service = listen(one.sandbox.netns(), "0.0.0.0:80");
        assert!(connects(two.sandbox.netns(), "172.17.0.2:80"));
        host.firewall.change(&[link], &[]).unwrap();
        assert!(!connects(two.sandbox.netns(), "172.17.0.2:80"), "the link is gone");
    });
}

#[test]
fn the_pool_refills_itself_and_leaves_nothing_behind() {
    on_a_host(|host| {
        let bridge = PoolBridge { index: host.bridge.index, mtu: Some(1400) };
        let pool = SandboxPool::start(2, bridge).unwrap();
        let wait_for = |wanted: usize| {
            for _ in 0..500 {
                if pool.ready() == wanted {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            panic!("the pool has {} of {wanted}", pool.ready());
        };
        wait_for(2);
        let taken = pool.take().unwrap();
        let outer = taken.port.host.clone().unwrap().0;
        wait_for(2);
        let value =
            netns::within(taken.sandbox.netns(), || sysctl::get("ipv4/ip_unprivileged_port_start"))
                .unwrap();
        assert_eq!(value.as_deref(), Some("0"));
        let link = route::find_link(&mut host.socket, Link::Name(&outer)).unwrap().unwrap();
        assert_eq!((link.master, link.mtu), (Some(host.bridge.index), 1400));
        drop((taken, pool));
        for _ in 0..500 {
            let left = route::dump_links(&mut host.socket).unwrap();
            if !left.iter().any(|link| link.name.starts_with("veth")) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("veths are left");
    });
}
