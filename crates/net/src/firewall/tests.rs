use std::process::Command;

use super::*;
use expect_test::expect;
use sys::netlink::netns;

fn bridge() -> Item {
    Item::Bridge(BridgeRules {
        interface: "tug0".into(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        masqueraded: vec!["172.17.0.0/16".parse().unwrap()],
        gateways: vec!["172.17.0.1".parse().unwrap()],
        exit: Exit::Open,
        between: Between::Allowed,
        direct: Direct::Dropped,
        trusted: vec![],
    })
}

fn guard(interface: &str, last: u8) -> Item {
    let addresses = vec![IpAddr::from([172, 17, 0, last])];
    Item::Guard(Guard { interface: interface.into(), mac: Mac([2, 0, 0, 0, 0, 9]), addresses })
}

fn forward(host: &str, host_port: u16) -> Item {
    let target = IpAddr::from([172, 17, 0, 2]);
    let host = host.parse().unwrap();
    Item::Forward(Forward { protocol: 6, host, host_port, target, target_port: 80, way: Way::Nat })
}

fn in_own_namespace(work: impl FnOnce() + Send) {
    if sys::testing::privileged("nftables need a network namespace of their own") {
        netns::create(work).unwrap();
    }
}

/// `nft list ruleset` without the constant chains: what is left is elements.
fn elements() -> Option<String> {
    let output = Command::new("nft").args(["-n", "list", "ruleset"]).output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    let mut set = "";
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim) {
        match line.split_once(' ') {
            Some(("set" | "map", rest)) => set = rest.trim_end_matches(" {"),
            Some(("elements", rest)) => lines.push(format!("{set} {rest}")),
            Some(_) | None => {}
        }
    }
    Some(lines.join("\n"))
}

#[test]
fn what_is_published_and_guarded_are_elements() {
    in_own_namespace(|| {
        let mut firewall = Firewall::open("tug").unwrap();
        assert_eq!(firewall.ports(), Ports::Guarded);
        let items = [
            bridge(),
            guard("veth1", 2),
            forward("0.0.0.0", 8080),
            forward("127.0.0.1", 81),
            forward("::", 8080),
        ];
        firewall.change(&[], &items).unwrap();
        firewall.change(&[], &[forward("192.0.2.9", 82)]).unwrap();
        let Some(text) = elements() else { return };
        expect![[r#"
            bridges = { "tug0" }
            reachable = { "tug0" . "tug0" }
            masquerade4 = { 172.17.0.0/16 }
            published4 = { 6 . 8080 : 172.17.0.2 . 80 }
            published4_at = { 192.0.2.9 . 6 . 82 : 172.17.0.2 . 80 }
            loopback4 = { 127.0.0.1 . 6 . 81 }
            guarded = { "veth1" }
            macs = { 02:00:00:00:00:01,
            own_mac = { "veth1" . 02:00:00:00:00:09 }
            addresses4 = { 172.17.0.1, 172.17.0.2 }
            own4 = { "veth1" . 172.17.0.2 }"#]]
        .assert_eq(&text);
        firewall.change(&items, &[]).unwrap();
        firewall.change(&[forward("192.0.2.9", 82)], &[]).unwrap();
        assert_eq!(elements().unwrap(), "");
        firewall.remove().unwrap();
    });
}

#[test]
fn a_mac_address_used_twice_is_forgotten_with_its_last_user() {
    in_own_namespace(|| {
        let mut firewall = Firewall::open("tug").unwrap();
        firewall.change(&[], &[guard("veth1", 2), guard("veth2", 3)]).unwrap();
        firewall.change(&[guard("veth1", 2)], &[]).unwrap();
        let Some(text) = elements() else { return };
        assert!(text.contains("macs = { 02:00:00:00:00:09 }"), "{text}");
    });
}

#[test]
fn a_vanished_table_is_made_again_with_all_its_elements() {
    in_own_namespace(|| {
        let mut firewall = Firewall::open("tug").unwrap();
        firewall.change(&[], &[bridge(), forward("0.0.0.0", 80)]).unwrap();
        let Some(before) = elements() else { return };
        let flush =
            || assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        assert!(!firewall.ensure().unwrap());
        flush();
        assert!(firewall.ensure().unwrap());
        assert_eq!(elements().unwrap(), before);
        flush();
        firewall.change(&[forward("0.0.0.0", 80)], &[forward("0.0.0.0", 81)]).unwrap();
        assert_eq!(elements().unwrap(), before.replace("6 . 80 :", "6 . 81 :"));
    });
}
