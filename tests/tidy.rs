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

/// What THREAT_MODEL.md calls tests: words in backquotes in the last column of its tables, and those
/// in parentheses in its text.
fn cited_tests(text: &str) -> Vec<String> {
    let is_name = |word: &str| {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        word.starts_with("vm: ") || (!word.is_empty() && word.bytes().all(letter))
    };
    let mut cited = Vec::new();
    for line in text.lines() {
        let part = match line.starts_with('|') {
            true => line.trim_end_matches('|').rsplit('|').next().unwrap_or_default(),
            false => line,
        };
        let words = part.split('`').skip(1).step_by(2);
        // Elsewhere a single word in backquotes may be anything.
        let in_table = line.starts_with('|');
        cited.extend(
            words
                .filter(|word| is_name(word) && (in_table || word.contains('_')))
                .map(str::to_owned),
        );
    }
    cited
}

#[test]
fn every_test_that_the_threat_model_cites_exists() {
    let model = fs::read_to_string(root().join("THREAT_MODEL.md")).unwrap();
    let cited = cited_tests(&model);
    assert!(cited.len() > 80, "{} tests are cited", cited.len());
    let vm = fs::read_to_string(root().join("tests/vm/inside")).unwrap();
    let all: String = sources().into_iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let exists = |name: &str| match name.strip_prefix("vm: ") {
        Some(title) => vm.contains(&format!("check \"{title}\"")),
        None => all.contains(&format!("fn {name}(")),
    };
    let missing: Vec<&String> = cited.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

/// Licences under which a static binary may be given away, with their texts kept.
const LICENCES: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// Crates that come in several versions, and why.
const SEVERAL_VERSIONS: [(&str, &str); 3] = [
    ("base64", "0.22 is what most of the tree uses, 0.23 what one dependency has moved to"),
    ("getrandom", "ring still has 0.2"),
    ("syn", "macros that run at build time alone; half of them have moved to 3"),
];

/// Whether an SPDX expression leaves a choice that is allowed: `OR` binds weaker than `AND`.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let (mut depth, mut parts, mut part) = (0, Vec::new(), String::new());
    for word in expression.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
        match word {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if word == "OR" && depth == 0 {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push_str(word);
            part.push(' ');
        }
    }
    parts.push(part);
    parts.iter().any(|part| all_allowed(part.trim()))
}

fn all_allowed(part: &str) -> bool {
    if let Some(inner) = part.strip_prefix("( ").and_then(|rest| rest.strip_suffix(" )"))
        && !inner.contains('(')
    {
        return is_allowed(inner);
    }
    match part.rsplit_once(" AND ") {
        Some((one, other)) => all_allowed(one.trim()) && all_allowed(other.trim()),
        None => LICENCES.contains(&part),
    }
}

/// What `cargo metadata` says of the packages in the binary and of what builds it.
fn packages() -> Vec<serde_json::Value> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let mut metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array_mut().map(std::mem::take).unwrap()
}

#[test]
fn dependencies_have_licences_that_may_be_shipped() {
    for (expression, want) in [
        ("MIT/Apache-2.0", true),
        ("GPL-2.0", false),
        ("GPL-2.0 OR MIT", true),
        ("MIT AND GPL-2.0", false),
        ("(MIT OR GPL-2.0) AND Unicode-3.0", true),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), want, "{expression}");
    }
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(is_allowed(licence), "{} is under {licence:?}", package["name"]);
    }
}

#[test]
fn dependencies_come_once_and_from_the_registry() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap().to_owned();
        if let Some(source) = package["source"].as_str() {
            assert!(source.starts_with("registry+"), "{name} comes from {source}");
        }
        versions.entry(name).or_default().insert(package["version"].as_str().unwrap().to_owned());
    }
    let several: BTreeSet<&str> = versions
        .iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, _)| name.as_str())
        .collect();
    let known = SEVERAL_VERSIONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(several, known, "left: what there is; right: what has a reason");
}
