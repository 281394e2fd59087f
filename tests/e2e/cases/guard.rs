//! The firewall while other programs undo it: it comes back, and nothing starts without it.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::cases;
use crate::harness::{Cli, Outcome, Suite, shell, wait_for};

cases![
    what_others_take_out_of_the_firewall_comes_back,
    our_way_through_another_firewall_comes_back,
    nothing_on_a_bridge_starts_whose_guard_cannot_be_set,
];

/// How long the daemon may take on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(20);

/// The engine's table without counters and handles.
fn ruleset(table: &str) -> String {
    let families = ["inet", "bridge"];
    families.map(|family| shell(&format!("nft -s list table {family} {table}")).stdout).concat()
}

fn has_nft() -> bool {
    shell("nft -v").code == 0
}

fn no_nft() -> Outcome {
    Outcome::Ignored("there is no nft to be the other program".to_owned())
}

/// The name of the engine's table.
fn table() -> String {
    let tables = shell("nft list tables").ok();
    let ours = tables.lines().find_map(|line| line.strip_prefix("table bridge tug"));
    format!("tug{}", ours.expect("the engine has a table for bridges"))
}

fn what_others_take_out_of_the_firewall_comes_back(suite: &Suite) -> Outcome {
    if !has_nft() {
        return no_nft();
    }
    let words = "run -d --name held -p 8091:80 busybox sleep 600";
    suite.run(Cli::Tug, words.split(' ')).ok();
    let table = table();
    let before = ruleset(&table);
    for attack in [
        "nft flush ruleset".to_owned(),
        format!("nft flush set bridge {table} own4"),
        format!("nft flush map inet {table} published4"),
        format!("nft delete element inet {table} published4 '{{ tcp . 8091 }}'"),
        format!("nft flush chain bridge {table} prerouting"),
        format!("nft delete chain inet {table} postrouting"),
        format!(
            "nft delete rule bridge {table} prerouting handle \
             $(nft -a list chain bridge {table} prerouting | sed -n 's/.*# handle //p' | tail -n 1)"
        ),
        format!("nft delete table bridge {table}"),
        format!("nft flush table inet {table}"),
        format!("nft insert rule inet {table} forward accept"),
    ] {
        shell(&attack).ok();
        wait_for(&attack, PATIENCE, || ruleset(&table) == before);
    }
    suite.tug(["rm", "-f", "held"]).ok();
    Outcome::Passed
}

fn our_way_through_another_firewall_comes_back(_: &Suite) -> Outcome {
    let other = "iptables-nft -P FORWARD DROP && iptables-nft -N DOCKER-USER && \
                 iptables-nft -A FORWARD -j DOCKER-USER";
    if !has_nft() || shell(other).code != 0 {
        return Outcome::Ignored("there is no iptables-nft to be the other firewall".to_owned());
    }
    let chain = table().to_ascii_uppercase();
    let jump = format!("-A FORWARD -j {chain}\n");
    let rule = format!("-A {chain} -i tug");
    let passes = || {
        let rules = shell("iptables-nft -S").stdout;
        rules.contains(&jump) && rules.contains(&rule)
    };
    wait_for("our chain in FORWARD", PATIENCE, passes);
    for attack in [
        "iptables-nft -F FORWARD && iptables-nft -A FORWARD -j DOCKER-USER".to_owned(),
        format!("iptables-nft -F {chain}"),
        format!("iptables-nft -D FORWARD -j {chain}"),
    ] {
        shell(&attack).ok();
        wait_for(&attack, PATIENCE, passes);
    }
    // Where nothing drops any more, our chain goes, as soon as that is so.
    shell("iptables-nft -F FORWARD; iptables-nft -X DOCKER-USER; iptables-nft -P FORWARD ACCEPT");
    wait_for("our chain to go", PATIENCE, || !shell("iptables-nft -S").stdout.contains(&chain));
    shell("nft delete table ip filter").ok();
    Outcome::Passed
}

/// A program that owns a table, so that the kernel lets nobody else change or delete it.
fn own(table: &str) -> Child {
    let mut nft = Command::new("nft");
    let mut child = nft.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let lines = format!("flush ruleset\nadd table {table} {{ flags owner; }}\n");
    child.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    child
}

fn nothing_on_a_bridge_starts_whose_guard_cannot_be_set(suite: &Suite) -> Outcome {
    if !has_nft() {
        return no_nft();
    }
    let table = table();
    let whole = ruleset(&table);
    // The daemon may be faster than the program's two lines: then it begins again.
    let mut owner = own(&format!("bridge {table}"));
    wait_for("the other program's table", PATIENCE, || {
        if shell("nft list tables bridge; nft list ruleset").stdout.contains("flags owner") {
            return true;
        }
        let lines = format!("flush ruleset\nadd table bridge {table} {{ flags owner; }}\n");
        owner.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
        false
    });
    let refused = suite.tug(["run", "--rm", "busybox", "true"]).fails(125);
    assert!(refused.contains("the firewall cannot be set"), "{refused}");
    suite.tug(["run", "--rm", "--network", "none", "busybox", "true"]).ok();
    drop(owner.stdin.take());
    owner.wait().unwrap();
    wait_for("our own table", PATIENCE, || ruleset(&table) == whole);
    suite.tug(["run", "--rm", "busybox", "true"]).ok();
    let log = std::fs::read_to_string(suite.directory.join("daemon.log")).unwrap();
    assert!(log.contains("our firewall table is not whole"), "the log says so");
    Outcome::Passed
}
