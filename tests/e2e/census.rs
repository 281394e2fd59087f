//! What is on the host that a container engine could leave behind.
//!
//! Taken inside the suite's own namespaces, so whatever is counted is the engine's doing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Objects by kind, each with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census(BTreeMap<&'static str, Vec<String>>);

impl Census {
    /// Counts. `cgroup_parent` is the suite's cgroup, such as `/tug-e2e-7`; `roots` are directories
    /// whose entries count as records.
    pub fn take(cgroup_parent: &str, roots: &[&Path]) -> Census {
        let mut kinds = BTreeMap::new();
        kinds.insert("mount", mounts());
        kinds.insert("link", links());
        kinds.insert("cgroup", cgroups(cgroup_parent));
        kinds.insert("process", processes());
        kinds.insert("nftables", nftables());
        kinds.insert("record", roots.iter().flat_map(|root| names_in(root)).collect());
        for names in kinds.values_mut() {
            names.sort();
        }
        Census(kinds)
    }

    /// One line for each object that one of the two has more often.
    pub fn difference(&self, after: &Census) -> String {
        let mut text = String::new();
        for (kind, before) in &self.0 {
            for (sign, some, other) in
                [('-', before, &after.0[kind]), ('+', &after.0[kind], before)]
            {
                for name in surplus(some, other) {
                    let _ = writeln!(text, "  {sign} {kind} {name}");
                }
            }
        }
        text
    }
}

/// The names that stand in `some` more often than in `other`; both are sorted.
fn surplus<'a>(some: &'a [String], other: &[String]) -> Vec<&'a str> {
    let count = |names: &[String], name: &String| names.iter().filter(|one| *one == name).count();
    let mut names: Vec<&String> = some.iter().collect();
    names.dedup();
    names
        .into_iter()
        .filter(|name| count(some, name) > count(other, name))
        .map(String::as_str)
        .collect()
}

fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
}

/// From `ip`, since a sysfs shows the network namespace that mounted it.
fn links() -> Vec<String> {
    let Ok(output) = Command::new("ip").args(["-o", "link"]).output() else {
        return vec!["ip(8) is missing".to_owned()];
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.split(": ").nth(1)).map(link_kind).collect()
}

/// The host ends of prepared sandboxes come and go; what counts is how many there are.
fn link_kind(name: &str) -> String {
    if name.starts_with("veth") { "veth".to_owned() } else { name.to_owned() }
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path().display().to_string()).collect()
}

fn cgroups(parent: &str) -> Vec<String> {
    let mut found = Vec::new();
    for hierarchy in names_in(Path::new("/sys/fs/cgroup")) {
        let top = Path::new(&hierarchy).join(parent.trim_start_matches('/'));
        let mut open = vec![top];
        while let Some(directory) = open.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
                found.push(entry.path().display().to_string());
                open.push(entry.path());
            }
        }
    }
    found
}

/// Command lines of the processes in this PID namespace; zombies are told by their state. Launchers that
/// wait ahead are left out, for how many wait is nobody's promise.
fn processes() -> Vec<String> {
    let mut found = Vec::new();
    for name in names_in(Path::new("/proc")) {
        let directory = Path::new(&name);
        let number = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !number.bytes().all(|digit| digit.is_ascii_digit()) {
            continue;
        }
        let line = fs::read(directory.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let status = fs::read_to_string(directory.join("status")).unwrap_or_default();
        let zombie = if status.contains("State:\tZ") { " (zombie)" } else { "" };
        let waits = line.trim() == "tug launcher idle";
        if !status.is_empty() && !status.contains("Kthread:\t1") && !waits {
            found.push(format!("{}{zombie}", line.trim()));
        }
    }
    found
}

/// Tables, chains, rules and elements, without handles and counters. A link that is made anew, such as
/// a bridge after an orderly restart, has another hardware address; that there is one counts.
fn nftables() -> Vec<String> {
    let Ok(output) = Command::new("nft").args(["-s", "list", "ruleset"]).output() else {
        return vec!["nft(8) is missing".to_owned()];
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = |word: &str| {
        let bare = word.trim_end_matches(',');
        let address = bare.len() == 17 && bare.split(':').all(|byte| byte.len() == 2);
        if address { word.replace(bare, "ADDRESS") } else { word.to_owned() }
    };
    text.lines()
        .map(|line| line.split_whitespace().map(word).collect::<Vec<_>>().join(" "))
        .collect()
}
