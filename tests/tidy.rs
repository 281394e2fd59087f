//! What the compiler does not check: which crate may use which, how long files are, what text holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Who uses whom, as the table of ARCHITECTURE.md's section "Crates" says.
fn architecture() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("Crates"));
    let rows = section.expect("there is a section").lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let uses = cells[3].split(',').map(str::trim).filter(|name| !name.is_empty());
        (cells[1].trim_matches('`').to_owned(), uses.map(str::to_owned).collect())
    })
    .collect()
}

/// The crates of `known` among the `[dependencies]` of a manifest.
fn used_crates(manifest: &Path, known: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let text = fs::read_to_string(manifest).expect("every crate has a manifest");
    let mut section = String::new();
    let mut used = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        } else if section == "[dependencies]" {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if known.contains_key(name) {
                used.insert(name.to_owned());
            }
        }
    }
    used
}

#[test]
fn crates_use_what_the_architecture_says_and_nothing_else() {
    let table = architecture();
    let mut manifests: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(root().join("crates")).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        manifests.insert(name, entry.path().join("Cargo.toml"));
    }
    manifests.insert("tug".to_owned(), root().join("Cargo.toml"));
    let used: BTreeMap<String, BTreeSet<String>> = manifests
        .into_iter()
        .map(|(name, manifest)| (name, used_crates(&manifest, &table)))
        .collect();
    assert_eq!(used, table, "left: the manifests; right: ARCHITECTURE.md");
}

fn sources() -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> = ["src", "crates", "tests", "benches", "xtask"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    let mut found = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn files_stay_short_before_their_tests() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
            (lines > FILE_LINES_MAX).then(|| format!("{} has {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn modules_say_what_they_are() {
    let silent: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|path| !fs::read_to_string(path).unwrap().starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn unsafe_code_lives_in_sys_alone() {
    for path in sources() {
        let inside = path.starts_with(root().join("crates/sys")) || path.ends_with("tests/tidy.rs");
        let text = fs::read_to_string(&path).unwrap();
        assert!(inside || !text.contains("unsafe {"), "{} has unsafe code", path.display());
    }
}

#[test]
fn nothing_unfinished_is_committed() {
    for path in sources().into_iter().filter(|path| !path.ends_with("tests/tidy.rs")) {
        let text = fs::read_to_string(&path).unwrap();
        for mark in ["todo!(", "unimplemented!(", "FIXME", "dbg!("] {
            assert!(!text.contains(mark), "{} has {mark}", path.display());
        }
    }
}
