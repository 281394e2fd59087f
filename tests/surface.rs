//! Docker's surface is data, and a row of it is a test.
//!
//! `surface/create.tsv` has a row for every field of a create request, `surface/api.tsv` for every
//! query parameter, `surface/daemon.tsv` for every setting of the daemon:
//!
//! ```text
//! ROW  test   FUNCTION  TEXT    its effect, or its refusal, is asserted by this test, which has this text
//! ROW  later  ISSUE     what    a later issue builds it
//! ROW  never  why               not on this platform, or not in this engine
//! ```
//! What the code reads and has no row here fails, too: the fields of `api`'s structs, the parameters
//! that the handlers name, the settings of `daemon`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Rows and what is said of them.
fn rows(name: &str) -> Vec<(String, Vec<String>)> {
    let text = read(&format!("tests/surface/{name}.tsv"));
    let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|line| {
        let mut columns = line.split('\t').map(str::to_owned);
        (columns.next().unwrap_or_default(), columns.collect())
    })
    .collect()
}

fn sources(under: &[&str]) -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> = under.iter().map(|name| root().join(name)).collect();
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// All functions by name, with their text and what stands between them and the next one, such as
/// the table that a test reads. A function inside another one is part of it.
fn functions() -> BTreeMap<String, String> {
    let mut functions: BTreeMap<String, String> = BTreeMap::new();
    for path in sources(&["crates", "tests/e2e"]) {
        let text = fs::read_to_string(&path).expect("a source can be read");
        // The function that a line belongs to, its depth, and whether it is still open.
        let mut current: Option<(String, usize, bool)> = None;
        for line in text.lines() {
            let depth = line.len() - line.trim_start().len();
            let head = line.trim_start().trim_start_matches("async ");
            if let Some(rest) = head.strip_prefix("fn ")
                && let Some((name, _)) = rest.split_once('(')
                && current.as_ref().is_none_or(|(_, outer, open)| !open || depth <= *outer)
            {
                current = Some((name.to_owned(), depth, true));
            }
            if let Some((name, outer, open)) = &mut current {
                let body = functions.entry(name.clone()).or_default();
                body.push_str(line);
                body.push('\n');
                *open &= !(depth == *outer && line.trim() == "}");
            }
        }
    }
    functions
}

#[test]
fn every_row_names_a_test_that_speaks_of_it() {
    let functions = functions();
    let mut wrong = Vec::new();
    for name in ["create", "api", "daemon"] {
        let mut seen = BTreeSet::new();
        for (row, columns) in rows(name) {
            if !seen.insert(row.clone()) {
                wrong.push(format!("{name}: {row} is there twice"));
            }
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            match columns.as_slice() {
                ["test", function, text] if !text.is_empty() => match functions.get(*function) {
                    None => wrong.push(format!("{name}: {row}: there is no {function}")),
                    Some(body) if !body.contains(text) => {
                        wrong.push(format!("{name}: {row}: {function} does not speak of {text}"));
                    }
                    Some(_) => {}
                },
                ["later", issue, what] if issue.parse::<u32>().is_ok() && !what.is_empty() => {}
                ["never", why] if !why.is_empty() => {}
                other => wrong.push(format!("{name}: {row}: nothing is said: {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `PidsLimit` and `pids_limit` alike.
fn folded(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}

#[test]
fn every_field_of_a_create_request_has_its_row() {
    let known: BTreeSet<String> = rows("create").iter().map(|(row, _)| folded(row)).collect();
    let structs = [
        ("container", "Config", "ContainerConfig"),
        ("container", "HostConfig", "HostConfig"),
        ("container", "HealthConfig", "HealthConfig"),
        ("container", "RestartPolicy", "RestartPolicy"),
        ("container", "LogConfig", "LogConfig"),
        ("container", "PortBinding", "PortBinding"),
        ("container", "DeviceMapping", "DeviceMapping"),
        ("container", "DeviceRequest", "DeviceRequest"),
        ("container", "ThrottleDevice", "ThrottleDevice"),
        ("container", "WeightDevice", "WeightDevice"),
        ("container", "Ulimit", "Ulimit"),
        ("container", "Mount", "Mount"),
        ("container", "BindOptions", "Mount.BindOptions"),
        ("container", "VolumeOptions", "Mount.VolumeOptions"),
        ("container", "ImageOptions", "Mount.ImageOptions"),
        ("container", "TmpfsOptions", "Mount.TmpfsOptions"),
        ("network", "EndpointSettings", "EndpointSettings"),
        ("network", "EndpointIpamConfig", "EndpointIPAMConfig"),
    ];
    let mut missing = Vec::new();
    for (file, name, object) in structs {
        let text = read(&format!("crates/api/src/{file}.rs"));
        let start =
            text.find(&format!("pub struct {name} {{")).unwrap_or_else(|| panic!("no {name}"));
        let body = &text[start..start + text[start..].find("\n}").expect("it ends")];
        let mut renamed: Option<String> = None;
        let mut fields = 0;
        for line in body.lines().skip(1).map(str::trim) {
            if let Some((_, rest)) = line.split_once("rename = \"") {
                renamed = rest.split('"').next().map(str::to_owned);
            }
            if let Some(field) = line.strip_prefix("pub ").and_then(|rest| rest.split(':').next()) {
                let field = renamed.take().unwrap_or_else(|| field.to_owned());
                // What a volume's driver is given stands one level below.
                let inside = field == "driver_config" || field == "DriverConfig";
                fields += 1;
                if !inside && !known.contains(&folded(&format!("{object}.{field}"))) {
                    missing.push(format!("{object}.{field}"));
                }
            }
        }
        assert!(fields > 0, "{name} has fields");
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_parameter_that_is_read_has_its_row() {
    let known: BTreeSet<String> = rows("api")
        .iter()
        .filter_map(|(row, _)| row.rsplit_once('?').map(|(_, name)| name.to_owned()))
        .collect();
    let mut missing = BTreeSet::new();
    for path in sources(&["crates/daemon/src/handlers"]) {
        let text = fs::read_to_string(&path).expect("a source can be read");
        for call in ["text(\"", "flag(\"", "flag_or(\"", "all(\"", "integer(\"", "get(\"", "has(\""]
        {
            for (_, rest) in text
                .match_indices(&format!("query.{call}"))
                .map(|(at, found)| (at, &text[at + found.len()..]))
            {
                let name = rest.split('"').next().unwrap_or_default();
                if !known.contains(name) {
                    missing.insert(format!("{name} in {}", path.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_setting_of_the_daemon_has_its_row() {
    let known: BTreeSet<String> = rows("daemon").into_iter().map(|(row, _)| row).collect();
    let text = read("crates/daemon/src/config/keys.rs");
    let table = &text[text.find("pub static KEYS").expect("the table")..];
    let table = &table[..table.find("\n];").expect("its end")];
    let mut missing = Vec::new();
    let mut count = 0;
    for (at, _) in table.match_indices("key(") {
        let mut words = table[at..].split('"').skip(1).step_by(2);
        let (key, flag) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let name = if key.is_empty() { format!("--{flag}") } else { key.to_owned() };
        count += 1;
        if !known.contains(&name) {
            missing.push(name);
        }
    }
    assert!(count > 80, "the table was read: {count}");
    assert!(missing.is_empty(), "{missing:#?}");
}
