//! The books against the world, once there is peace.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::client::SHARED_NAMES;
use super::field::{Field, Outcome};
use super::ledger::{ContainerFacts, Ledger, Presence, Running};
use super::report::Report;
use crate::census::Census;

/// What is torn down in the background may take this long.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

pub fn check(field: &Field, report: &Report, ledger: &Ledger, victims: &HashSet<String>) {
    for (name, facts) in &ledger.containers {
        check_container(field, report, name, facts, victims);
    }
    for (name, facts) in &ledger.volumes {
        let there = field.call(&["volume", "inspect", name]);
        check_presence(report, "volume", name, facts.presence, &there);
        let Some(token) = facts.token.as_ref().filter(|_| facts.presence == Presence::Present)
        else {
            continue;
        };
        let mount = format!("{name}:/v");
        let said = field.call(&["run", "--rm", "-v", &mount, "busybox", "cat", "/v/token"]);
        if said != Outcome::Done(token.clone()) {
            report.fault(format!("volume {name} should hold {token}: {said:?}"));
        }
    }
    for (name, facts) in &ledger.images {
        let there = field.call(&["image", "inspect", name]);
        check_presence(report, "image", name, facts.presence, &there);
        let Some(token) = facts.token.as_ref().filter(|_| facts.presence == Presence::Present)
        else {
            continue;
        };
        let said = field.call(&["run", "--rm", name]);
        if said != Outcome::Done(token.clone()) {
            report.fault(format!("image {name} should print {token}: {said:?}"));
        }
    }
    for (name, facts) in &ledger.networks {
        let there = field.call(&["network", "inspect", name]);
        check_presence(report, "network", name, facts.presence, &there);
    }
}

fn check_presence(report: &Report, kind: &str, name: &str, presence: Presence, there: &Outcome) {
    let found = matches!(there, Outcome::Done(_));
    match presence {
        Presence::Present if !found => {
            report.fault(format!("{kind} {name} was acknowledged and is gone: {there:?}"));
        }
        Presence::Absent if found => {
            report.fault(format!("{kind} {name} was acknowledged as removed and is there"));
        }
        Presence::Present | Presence::Absent | Presence::Open => {}
    }
}

fn check_container(
    field: &Field,
    report: &Report,
    name: &str,
    facts: &ContainerFacts,
    victims: &HashSet<String>,
) {
    let format = "{{.Id}} {{.State.Running}} {{.HostConfig.Memory}} \
                  {{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    let there = field.call(&["container", "inspect", "-f", format, name]);
    check_presence(report, "container", name, facts.presence, &there);
    let (Presence::Present, Outcome::Done(said)) = (facts.presence, there) else { return };
    let words: Vec<&str> = said.split_whitespace().collect();
    let [id, running, memory, networks @ ..] = words.as_slice() else {
        report.fault(format!("inspect of {name} printed {said:?}"));
        return;
    };
    if *id != facts.id {
        report.fault(format!("{name} is {id} and was {}", facts.id));
    }
    if let Some(bytes) = facts.memory_bytes
        && memory.parse() != Ok(bytes)
    {
        report.fault(format!("{name} was updated to {bytes} bytes of memory and has {memory}"));
    }
    for network in facts.connected.iter().filter(|one| !networks.contains(&one.as_str())) {
        report.fault(format!("{name} was connected to {network} and is not"));
    }
    for network in facts.disconnected.iter().filter(|one| networks.contains(&one.as_str())) {
        report.fault(format!("{name} was disconnected from {network} and is connected"));
    }
    if victims.contains(&facts.id) {
        return;
    }
    match facts.running {
        Running::Yes if *running != "true" => {
            report.fault(format!("{name} should run and does not"));
        }
        Running::No if *running != "false" => {
            report.fault(format!("{name} was stopped and runs"));
        }
        Running::Yes | Running::No | Running::Open => {}
    }
}

/// Removes all that clients left, tries the names that they fought for, and takes the census.
pub fn remove_everything(field: &Field, report: &Report, before: &Census) {
    if let Outcome::Done(ids) = field.call(&["ps", "-aq"]) {
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            let args: Vec<&str> = ["rm", "-f", "-v"].into_iter().chain(ids).collect();
            let removed = field.call(&args);
            if !matches!(removed, Outcome::Done(_)) {
                report.fault(format!("rm -f of everything: {removed:?}"));
            }
        }
    }
    for name in SHARED_NAMES {
        let made = field.call(&["create", "--name", name, "busybox", "true"]);
        if !matches!(made, Outcome::Done(_)) {
            report.fault(format!("nobody has the name {name}, yet: {made:?}"));
        }
        field.call(&["rm", name]);
    }
    for args in [["network", "prune", "-f"].as_slice(), &["volume", "prune", "-a", "-f"]] {
        let pruned = field.call(args);
        if !matches!(pruned, Outcome::Done(_)) {
            report.fault(format!("{args:?}: {pruned:?}"));
        }
    }
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    loop {
        let left = before.difference(&field.census());
        if left.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            report.fault(format!("left behind (- before, + after):\n{left}"));
            return;
        }
        sleep(Duration::from_millis(200));
    }
}
