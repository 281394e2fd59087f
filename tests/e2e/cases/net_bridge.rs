//! What of the host is not ours: bridges that the user made, and frames with others' addresses.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use sys::netlink::announce::Announcer;
use sys::netlink::netns;

use crate::harness::{Outcome, Suite, run, shell, tug};

super::cases! {
    the_users_bridge_is_used_and_left_as_it_is,
    a_bridge_that_is_not_there_is_not_made,
    a_network_on_the_users_bridge_leaves_it_behind,
    raw_frames_have_no_others_addresses,
}

/// A bridge with a port, as the host's network card would be one.
struct Bridge;

impl Bridge {
    fn open() -> Bridge {
        shell(
            "ip link add extbr type bridge && ip link add nic type veth peer name nicpeer && ip link set nic master extbr && \
             ip addr add 10.77.0.1/24 dev extbr && ip addr add 10.78.0.1/24 dev extbr && \
             ip link set nic up && ip link set extbr up",
        )
        .ok();
        Bridge
    }

    fn now() -> String {
        let sysctls = "cat /proc/sys/net/ipv6/conf/extbr/accept_ra /proc/sys/net/ipv6/conf/extbr/disable_ipv6";
        let line = format!(
            "ip -o addr show dev extbr scope global; cat /sys/class/net/nic/master/ifindex; {sysctls}"
        );
        shell(&line).ok()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        shell("ip link del extbr; ip link del nic");
    }
}

fn the_users_bridge_is_used_and_left_as_it_is(suite: &Suite) -> Outcome {
    let _bridge = Bridge::open();
    let before = Bridge::now();
    suite.end_daemon("TERM");
    for (range, want) in [("", "10.77.0.2"), ("--fixed-cidr=10.78.0.64/28", "10.78.0.64")] {
        let mut flags = vec!["--bridge", "extbr"];
        flags.extend(Some(range).filter(|range| !range.is_empty()));
        suite.start_daemon(&flags);
        suite.tug(["run", "-d", "--name", "cc", "busybox", "sleep", "60"]).ok();
        let address = suite.tug(["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "cc"]).ok();
        assert_eq!(address, want);
        let (subnet, _) = want.rsplit_once('.').unwrap();
        let ipam = "{{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}}";
        let ipam = suite.tug(["network", "inspect", "-f", ipam, "bridge"]).ok();
        assert_eq!(ipam, format!("{subnet}.0/24 {subnet}.1"));
        suite.tug(["exec", "cc", "ping", "-c", "1", "-W", "2", &format!("{subnet}.1")]).ok();
        suite.tug(["rm", "-f", "cc"]).ok();
        suite.end_daemon("TERM");
        assert_eq!(Bridge::now(), before);
    }
    suite.start_daemon(&[]);
    suite.tug(["run", "--rm", "busybox", "true"]).ok();
    Outcome::Passed
}

fn a_bridge_that_is_not_there_is_not_made(suite: &Suite) -> Outcome {
    let scratch = suite.scratch();
    let daemon = |more: &[&str]| {
        let mut command = Command::new(tug());
        command.arg("daemon").arg("--data-root").arg(scratch.join("data"));
        command.arg("--exec-root").arg(scratch.join("exec"));
        command.arg("--pidfile").arg(scratch.join("pid"));
        command.arg("-H").arg(format!("unix://{}", scratch.join("sock").display()));
        run(command.args(more).stdin(Stdio::null()))
    };
    let missing = daemon(&["--bridge", "nosuch"]);
    let said = format!("{}{}", missing.stdout, missing.stderr);
    let want = "bridge device with non default name nosuch must be created manually";
    assert!(missing.code != 0 && said.contains(want), "{said}");
    assert_ne!(shell("ip link show nosuch").code, 0);
    let both = daemon(&["--bridge", "nosuch", "--bip", "10.9.0.1/24"]);
    let said = format!("{}{}", both.stdout, both.stderr);
    let want = "You specified -b & --bip, mutually exclusive options. Please specify only one";
    assert!(both.code != 0 && said.contains(want), "{said}");
    shell("ip link add nobridge type veth peer name nopeer").ok();
    let other = daemon(&["--bridge", "nobridge"]);
    let said = format!("{}{}", other.stdout, other.stderr);
    shell("ip link del nobridge").ok();
    assert!(
        other.code != 0 && said.contains("existing interface nobridge is not a bridge"),
        "{said}"
    );
    Outcome::Passed
}

fn a_network_on_the_users_bridge_leaves_it_behind(suite: &Suite) -> Outcome {
    let _bridge = Bridge::open();
    let before = Bridge::now();
    let option = "com.docker.network.bridge.name=extbr";
    for subnet in ["10.77.0.0/24", "10.79.0.0/24"] {
        suite.tug(["network", "create", "-o", option, "--subnet", subnet, "adopted"]).ok();
        suite.tug(["run", "--rm", "--network", "adopted", "busybox", "true"]).ok();
        suite.end_daemon("KILL");
        suite.start_daemon(&[]);
        suite.tug(["network", "rm", "adopted"]).ok();
        assert_eq!(Bridge::now(), before, "{subnet}");
    }
    // What is no bridge is no network's, and stays.
    let none = ["network", "create", "-o", "com.docker.network.bridge.name=nic", "wrong"];
    let refused = suite.tug(none).fails(1);
    assert!(refused.contains("existing interface nic is not a bridge"), "{refused}");
    assert_eq!(Bridge::now(), before);
    Outcome::Passed
}

/// An IPv4 datagram to port 7, in a frame with these protocols before it: tags, and IPv4's own.
fn datagram(
    macs: [[u8; 6]; 2],
    protocols: &[u16],
    from: Ipv4Addr,
    to: Ipv4Addr,
    word: u8,
) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 29, 0, 1, 0, 0, 64, 17, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let words = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([0, 9, 0, 7, 0, 9, 0, 0, word]);
    let mut frame = macs.concat();
    for (place, protocol) in protocols.iter().enumerate() {
        frame.extend(if place > 0 { &[0x20, 0][..] } else { &[] });
        frame.extend(protocol.to_be_bytes());
    }
    frame.extend(packet);
    frame
}

/// From inside a container that has what containers have by default: NET_RAW.
fn raw_frames_have_no_others_addresses(suite: &Suite) -> Outcome {
    suite.tug(["network", "create", "frames"]).ok();
    for network in ["bridge", "frames"] {
        for privileged in ["--privileged=false", "--privileged"] {
            let start = |name: &str, more: &str| {
                let run = ["run", "-d", "--name", name, more, "--network", network];
                suite
                    .run(crate::harness::Cli::Tug, run.iter().chain(&["busybox", "sleep", "60"]))
                    .ok();
                let field = |name: &str, field: &str| {
                    let path = format!("{{{{.NetworkSettings.Networks.{network}.{field}}}}}");
                    suite.tug(["inspect", "-f", &path, name]).ok()
                };
                let mac = field(name, "MacAddress");
                let mac: Vec<u8> =
                    mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
                let address: Ipv4Addr = field(name, "IPAddress").parse().unwrap();
                let pid = suite.tug(["inspect", "-f", "{{.State.Pid}}", name]).ok();
                let namespace = netns::of_process(pid.parse().unwrap()).unwrap();
                (<[u8; 6]>::try_from(mac).unwrap(), address, namespace)
            };
            let (victim_mac, victim, victims) = start("victim", "--privileged=false");
            let (own_mac, own, attackers) = start("attacker", privileged);
            let heard =
                netns::within(victims.as_fd(), || UdpSocket::bind("0.0.0.0:7")).unwrap().unwrap();
            heard.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let (announcer, index) = netns::within(attackers.as_fd(), || {
                let mut socket = sys::netlink::Socket::open(sys::netlink::Protocol::Route).unwrap();
                let link = sys::netlink::route::Link::Name("eth0");
                let found = sys::netlink::route::find_link(&mut socket, link).unwrap().unwrap();
                (Announcer::open().unwrap(), found.index)
            })
            .unwrap();
            let octets = own.octets();
            let gateway = Ipv4Addr::new(octets[0], octets[1], octets[2], 1);
            let unassigned = Ipv4Addr::new(octets[0], octets[1], octets[2], 200);
            let mine = [victim_mac, own_mac];
            let theirs = [victim_mac, victim_mac];
            let outside = Ipv4Addr::new(203, 0, 113, 9);
            let (ip, tag, provider) = (0x0800, 0x8100, 0x88a8);
            let held = privileged != "--privileged";
            let frames: [(&str, bool, Vec<u8>); 8] = [
                ("the gateway's", false, datagram(mine, &[ip], gateway, victim, 0)),
                ("the gateway's, tagged", false, datagram(mine, &[tag, ip], gateway, victim, 1)),
                ("both tags", false, datagram(mine, &[provider, tag, ip], gateway, victim, 2)),
                ("two tags", false, datagram(mine, &[tag, tag, ip], gateway, victim, 3)),
                ("the victim's MAC", false, datagram(theirs, &[ip], own, victim, 4)),
                ("unassigned", !held, datagram(mine, &[ip], unassigned, victim, 5)),
                ("outside", !held, datagram(mine, &[ip], outside, victim, 6)),
                ("own", true, datagram(mine, &[ip], own, victim, 7)),
            ];
            for (_, _, frame) in &frames {
                announcer.send(index, frame).unwrap();
            }
            let mut words = Vec::new();
            while !words.contains(&7) {
                let mut buffer = [0; 4];
                heard.recv_from(&mut buffer).expect("the last datagram is the sender's own");
                words.push(buffer[0]);
            }
            for (number, (name, passes, _)) in frames.iter().enumerate() {
                let seen = words.contains(&u8::try_from(number).unwrap());
                assert_eq!(seen, *passes, "{network} {privileged}: {name}");
            }
            suite.tug(["rm", "-f", "victim", "attacker"]).ok();
        }
    }
    suite.tug(["network", "rm", "frames"]).ok();
    Outcome::Passed
}
