//! Manifest lists: what one command line makes, the other reads, byte for byte.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::registry::{ADDRESS, Registry, without};
use crate::harness::{BOTH, Cli, Outcome, Output, Suite, run};

super::cases! {
    manifest_lists_of_both_command_lines_are_the_same,
    manifest_commands_refuse_in_dockers_words,
}

/// Types a command with a configuration directory of its own.
fn typed<S: AsRef<OsStr>>(suite: &Suite, cli: Cli, config: &Path, args: &[S]) -> Output {
    let mut command = suite.command(cli);
    run(command.env("DOCKER_CONFIG", config).arg("manifest").args(args))
}

/// Two images of two architectures, in two repositories.
fn push_images(suite: &Suite) -> [String; 2] {
    let tar = suite.image_tar("busybox");
    let (one, two) = (format!("{ADDRESS}/one:amd"), format!("{ADDRESS}/two:arm"));
    for (name, platform) in [(&one, "linux/amd64"), (&two, "linux/arm64")] {
        suite
            .run(Cli::Tug, ["import", "--platform", platform, tar.to_str().unwrap(), name.as_str()])
            .ok();
        suite.run(Cli::Tug, ["push", "-q", name]).ok();
        suite.run(Cli::Tug, ["rmi", name]).ok();
    }
    [one, two]
}

/// The files of a list, by name.
fn kept(config: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for list in fs::read_dir(config.join("manifests")).unwrap().flatten() {
        for file in fs::read_dir(list.path()).unwrap().flatten() {
            let name = file.path().strip_prefix(config).unwrap().display().to_string();
            found.push((name, fs::read_to_string(file.path()).unwrap()));
        }
    }
    found.sort();
    found
}

fn manifest_lists_of_both_command_lines_are_the_same(suite: &Suite) -> Outcome {
    let Some(_registry) = Registry::start(suite) else { return without() };
    let [one, two] = push_images(suite);
    let list = format!("{ADDRESS}/one:v1");
    let configs = BOTH.map(|cli| suite.scratch().join(format!("config-{cli:?}")));
    let both = |args: &[&str]| {
        let [tug, docker] = [0, 1].map(|at| typed(suite, BOTH[at], &configs[at], args));
        assert_eq!(tug.code, docker.code, "{args:?}: {} {}", tug.stderr, docker.stderr);
        assert_eq!((&tug.stdout, &tug.stderr), (&docker.stdout, &docker.stderr), "{args:?}");
        tug.ok()
    };
    both(&["inspect", "--insecure", &two]);
    assert!(both(&["inspect", "-v", "--insecure", &two]).contains("\"SchemaV2Manifest\": {"));
    let made = both(&["create", "--insecure", &list, &one]);
    assert_eq!(made, format!("Created manifest list {list}"));
    both(&["create", "--insecure", "--amend", &list, &two]);
    both(&[
        "annotate",
        "--arch",
        "arm64",
        "--variant",
        "v8",
        "--os",
        "linux",
        "--os-version",
        "10",
        "--os-features",
        "a,b",
        &list,
        &two,
    ]);
    assert_eq!(kept(&configs[0]), kept(&configs[1]));
    both(&["inspect", &list]);
    both(&["inspect", "-v", &list]);
    both(&["inspect", &list, &two]);
    // The image of the other repository comes along by a mount of its blobs.
    let pushed = both(&["push", "--insecure", "--purge", &list]);
    assert!(pushed.lines().last().unwrap().starts_with("sha256:"), "{pushed}");
    assert!(both(&["inspect", "--insecure", &list]).contains("\"variant\": \"v8\""));
    both(&["inspect", "-v", "--insecure", &list]);
    // The engine takes its own platform's image out of the list.
    suite.run(Cli::Tug, ["pull", "-q", &list]).ok();
    suite.run(Cli::Tug, ["rmi", &list]).ok();
    Outcome::Passed
}

fn manifest_commands_refuse_in_dockers_words(suite: &Suite) -> Outcome {
    let Some(_registry) = Registry::start(suite) else { return without() };
    let missing = format!("{ADDRESS}/nope:x");
    for cli in BOTH {
        let config = suite.scratch().join(format!("refusing-{cli:?}"));
        for (args, want) in [
            (&["inspect", "--insecure", &missing][..], format!("no such manifest: {missing}")),
            (&["push", &missing], format!("No such manifest: {missing}")),
            (&["rm", &missing], format!("No such manifest: {missing}")),
            (
                &["annotate", &missing, &missing],
                format!("manifest for image {missing} does not exist in {missing}"),
            ),
            (
                &["create", "A", "b"],
                "error parsing name for manifest list A: invalid reference format".to_owned(),
            ),
            (
                &["inspect", "--insecure", "127.0.0.1:5999/x"],
                "failed to configure transport: error pinging v2 registry: Get \"https://127.0.0.1:5999/v2/\": dial tcp 127.0.0.1:5999: connect: connection refused".to_owned(),
            ),
        ] {
            let said = typed(suite, cli, &config, args).fails(1);
            assert!(said.contains(&want), "{said}");
        }
    }
    Outcome::Passed
}
