//! Rules and elements as the programs nft and iptables list them.

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
    Item::Guard(Guard {
        interface: interface.into(),
        mac: Mac([2, 0, 0, 0, 0, 9]),
        addresses,
        sources: Sources::Own,
        between: Between::Allowed,
    })
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
            own4 = { "veth1" . 172.17.0.2 }
            addresses6 = { fe80::ff:fe00:1,
            own6 = { "veth1" . fe80::ff:fe00:9 }"#]]
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

/// All tables as nft prints them, without handles and counters.
fn ruleset() -> String {
    shell("nft list ruleset")
}

/// What another program can do to our tables.
const ATTACKS: [&str; 11] = [
    "flush ruleset",
    "delete table bridge tug",
    "delete table inet tug",
    "flush set bridge tug own4",
    "delete element bridge tug guarded '{ veth1 }'",
    "flush chain bridge tug prerouting",
    "delete chain inet tug postrouting",
    "delete rule inet tug forward handle \
     $(nft -a list chain inet tug forward | sed -n '/counter\\|ct /s/.*handle //p' | head -n 1)",
    "flush table inet tug",
    "insert rule inet tug forward accept",
    "add element inet tug unprotected '{ tug0 }'",
];

fn has_nft() -> bool {
    let found = Command::new("nft").arg("-v").output().is_ok();
    if !found {
        sys::testing::ignored("there is no nft to be the other program");
    }
    found
}

#[test]
fn whatever_others_do_to_our_tables_is_undone() {
    in_own_namespace(|| {
        if !has_nft() {
            return;
        }
        let mut firewall = Firewall::open("tug").unwrap();
        firewall.change(&[], &[bridge(), guard("veth1", 2), forward("0.0.0.0", 80)]).unwrap();
        let before = ruleset();
        assert_eq!(firewall.look().unwrap(), Found::Untouched);
        for attack in ATTACKS {
            shell(&format!("nft {attack}"));
            assert_ne!(ruleset(), before, "{attack} does something");
            assert_eq!(firewall.look().unwrap(), Found::Restored, "{attack}");
            assert_eq!(ruleset(), before, "{attack}");
            assert_eq!(firewall.look().unwrap(), Found::Untouched, "{attack}");
        }
    });
}

#[test]
fn a_change_leaves_everything_whole_whatever_was_done_before() {
    in_own_namespace(|| {
        if !has_nft() {
            return;
        }
        let mut firewall = Firewall::open("tug").unwrap();
        firewall.change(&[], &[bridge(), guard("veth1", 2), forward("0.0.0.0", 80)]).unwrap();
        let with_80 = ruleset();
        firewall.change(&[forward("0.0.0.0", 80)], &[forward("0.0.0.0", 81)]).unwrap();
        let with_81 = ruleset();
        for attack in ATTACKS {
            shell(&format!("nft {attack}"));
            firewall.change(&[forward("0.0.0.0", 81)], &[forward("0.0.0.0", 80)]).unwrap();
            assert_eq!(ruleset(), with_80, "{attack}");
            firewall.change(&[forward("0.0.0.0", 80)], &[forward("0.0.0.0", 81)]).unwrap();
            assert_eq!(ruleset(), with_81, "{attack}");
        }
    });
}

#[test]
fn other_programs_tables_are_not_ours_to_restore() {
    in_own_namespace(|| {
        if !has_nft() {
            return;
        }
        let mut firewall = Firewall::open("tug").unwrap();
        firewall.pass_neighbours(&[]).unwrap();
        shell("nft add table ip tug; nft add chain ip tug theirs; nft add table inet mine");
        assert_eq!(firewall.look().unwrap(), Found::Untouched);
        assert!(firewall.neighbours_moved());
        shell("nft list chain ip tug theirs");
    });
}

/// A program that owns our bridge table, so that nobody else can change or delete it.
struct Owner(std::process::Child);

impl Owner {
    fn of(table: &str) -> Owner {
        let mut nft = Command::new("nft");
        let mut child =
            nft.arg("-i").stdin(std::process::Stdio::piped()).spawn().expect("nft was there");
        let line = format!("flush ruleset\nadd table {table} {{ flags owner; }}\n");
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), line.as_bytes()).unwrap();
        while !ruleset().contains("flags owner") {
            assert_eq!(child.try_wait().unwrap(), None, "nft goes on");
            std::thread::yield_now();
        }
        Owner(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn a_guard_that_cannot_be_set_is_an_error_until_it_can() {
    in_own_namespace(|| {
        if !has_nft() {
            return;
        }
        let mut firewall = Firewall::open("tug").unwrap();
        firewall.change(&[], &[bridge(), guard("veth1", 2)]).unwrap();
        let whole = ruleset();
        let owner = Owner::of("bridge tug");
        assert!(matches!(firewall.look(), Err(FirewallError::Kernel { .. })));
        assert_eq!(firewall.standing(), Standing::Broken);
        let outcome = firewall.change(&[], &[guard("veth2", 3)]);
        assert!(matches!(outcome, Err(FirewallError::Kernel { .. })), "{outcome:?}");
        // What only goes is not held against anybody, and does not come back.
        assert!(firewall.change(&[guard("veth1", 2)], &[]).is_err());
        owner.end();
        firewall.change(&[], &[guard("veth1", 2)]).unwrap();
        assert_eq!(ruleset(), whole);
        assert_eq!(firewall.standing(), Standing::Whole);
        let owner = Owner::of("bridge tug");
        drop(firewall);
        let mut next = Firewall::open_with("tug", [bridge(), guard("veth1", 2)].into()).unwrap();
        assert_eq!((next.ports(), next.standing()), (Ports::Guarded, Standing::Broken));
        owner.end();
        assert_eq!(next.look().unwrap(), Found::Restored);
        assert_eq!(ruleset(), whole);
    });
}

/// Runs a shell line that must succeed, and gives its output.
#[track_caller]
fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-euc", line]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn beside_iptables(before: &'static str, check: impl FnOnce(&mut Firewall) + Send) {
    in_own_namespace(|| {
        if Command::new("iptables-nft").arg("-V").output().is_err() {
            sys::testing::ignored("there is no iptables-nft to be the other firewall");
            return;
        }
        shell(before);
        let mut firewall = Firewall::open("tug-0a1b2c").unwrap();
        firewall.change(&[], &[bridge()]).unwrap();
        check(&mut firewall);
        firewall.remove().unwrap();
        assert!(!shell("iptables-nft -S").contains("TUG"));
    });
}

const BRIDGES: [&str; 2] = ["docker0", "tug0"];

fn pass(firewall: &mut Firewall) -> Vec<Obstacle> {
    firewall.pass_neighbours(&BRIDGES.map(str::to_owned)).unwrap()
}

#[test]
fn beside_docker_the_users_own_drops_come_first() {
    let docker = "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; \
                  iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A FORWARD -o docker0 -j ACCEPT";
    beside_iptables(docker, |firewall| {
        for _ in 0..2 {
            assert_eq!(pass(firewall), []);
            expect![[r#"
                -P INPUT ACCEPT
                -P FORWARD DROP
                -P OUTPUT ACCEPT
                -N DOCKER-USER
                -N TUG-0A1B2C
                -A FORWARD -j DOCKER-USER
                -A FORWARD -j TUG-0A1B2C
                -A FORWARD -o docker0 -j ACCEPT
                -A TUG-0A1B2C -o tug0 -m comment --comment "tug: to tug0" -j ACCEPT
                -A TUG-0A1B2C -i tug0 -o docker0 -m comment --comment "tug: tug0 to docker0 is not ours to allow" -j RETURN
                -A TUG-0A1B2C -i tug0 -m comment --comment "tug: from tug0" -j ACCEPT
            "#]]
            .assert_eq(&shell("iptables-nft -S"));
        }
        shell("iptables-nft-save > /dev/null");
        // dockerd puts its chain first again when it starts.
        shell("iptables-nft -D FORWARD -j DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER");
        pass(firewall);
        let forward = shell("iptables-nft -S FORWARD");
        assert!(forward.contains("-j DOCKER-USER\n-A FORWARD -j TUG-0A1B2C\n"), "{forward}");
        assert_eq!(forward.matches("TUG").count(), 1, "{forward}");
    });
}

#[test]
fn a_policy_that_drops_is_passed_at_the_top_while_it_lasts() {
    beside_iptables("iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP", |firewall| {
        let first = |program: &str| {
            let forward = shell(&format!("{program} -S FORWARD"));
            forward.lines().nth(1).map(str::to_owned)
        };
        shell("iptables-nft -A FORWARD -j REJECT");
        pass(firewall);
        assert_eq!(first("iptables-nft").as_deref(), Some("-A FORWARD -j TUG-0A1B2C"));
        assert_eq!(first("ip6tables-nft").as_deref(), Some("-A FORWARD -j TUG-0A1B2C"));
        shell("iptables-nft -F; iptables-nft -X");
        pass(firewall);
        assert_eq!(first("iptables-nft").as_deref(), Some("-A FORWARD -j TUG-0A1B2C"));
        shell("iptables-nft -P FORWARD ACCEPT");
        pass(firewall);
        assert!(!shell("iptables-nft -S").contains("TUG"));
        assert!(shell("ip6tables-nft -S").contains("TUG"));
    });
}

#[test]
fn what_we_do_not_change_is_told() {
    in_own_namespace(|| {
        let mut firewall = Firewall::open("tug").unwrap();
        let own = "nft add table inet mine; \
                   nft add chain inet mine passing '{ type filter hook forward priority 0; policy drop; }'";
        if Command::new("nft").arg("-v").output().is_err() {
            return;
        }
        shell(own);
        let chain = Obstacle::Chain { table: "mine".into(), chain: "passing".into() };
        assert_eq!(pass(&mut firewall), [chain]);
    });
}
