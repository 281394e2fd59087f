//! Images: import, load, save, tag, list, history, remove, and what they cost on disk.

use std::fs;
use std::process::Command;

use crate::harness::{BOTH, Cli, Outcome, Suite, run, shell};

super::cases! {
    images_are_listed_tagged_and_removed,
    save_and_load_keep_the_image,
    a_layout_of_another_tool_loads,
    export_and_import_keep_the_files,
    commit_keeps_changes_and_configuration,
    a_used_image_is_not_removed_without_force,
    removing_an_image_frees_the_disk,
    history_and_inspect_tell_how_an_image_was_made,
    prune_removes_what_nothing_uses,
    events_tell_what_happened,
}

fn images_are_listed_tagged_and_removed(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite.run(cli, ["tag", "busybox", "example.org:5000/group/box:v1"]).ok();
        let rows = suite.run(cli, ["image", "ls"]).ok();
        let header: Vec<&str> = rows.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(header, ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
        assert!(
            rows.lines()
                .any(|row| row.starts_with("example.org:5000/group/box") && row.contains(" v1 ")),
            "{rows}"
        );
        let ids = suite.run(cli, ["images", "-q", "--no-trunc"]).ok();
        assert!(ids.lines().all(|id| id.starts_with("sha256:") && id.len() == 71), "{ids}");
        let gone = suite.run(cli, ["rmi", "example.org:5000/group/box:v1"]).ok();
        assert_eq!(gone, "Untagged: example.org:5000/group/box:v1");
        let none = suite.run(cli, ["rmi", "nosuch"]).fails(1);
        assert!(none.contains("No such image: nosuch"), "{none}");
        let bad = suite.run(cli, ["tag", "busybox", "group/UPPER"]).fails(1);
        assert!(
            bad.contains("invalid reference format") || bad.contains("must be lowercase"),
            "{bad}"
        );
    }
    Outcome::Passed
}

fn save_and_load_keep_the_image(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let file = suite.scratch().join("saved.tar");
        suite.run(cli, ["tag", "busybox", "kept:1"]).ok();
        let id = suite.run(cli, ["inspect", "-f", "{{.Id}}", "kept:1"]).ok();
        suite.run(cli, ["save", "-o", file.to_str().unwrap(), "kept:1", "redis"]).ok();
        let names = shell(&format!("tar tf {}", file.display())).ok();
        for wanted in ["oci-layout", "index.json", "manifest.json", "blobs/sha256/"] {
            assert!(names.contains(wanted), "{names}");
        }
        suite.run(cli, ["rmi", "kept:1"]).ok();
        let loaded = suite.run(cli, ["load", "-i", file.to_str().unwrap()]).ok();
        assert!(
            loaded.contains("Loaded image: kept:1")
                && loaded.contains("Loaded image: redis:latest"),
            "{loaded}"
        );
        assert_eq!(suite.run(cli, ["inspect", "-f", "{{.Id}}", "kept:1"]).ok(), id);
        let again = suite.scratch().join("again.tar");
        suite.run(cli, ["save", "-o", again.to_str().unwrap(), "kept:1", "redis"]).ok();
        assert_eq!(fs::read(&file).unwrap(), fs::read(&again).unwrap(), "saving is reproducible");
        suite.run(cli, ["rmi", "kept:1"]).ok();
    }
    Outcome::Passed
}

fn a_layout_of_another_tool_loads(suite: &Suite) -> Outcome {
    if shell("command -v skopeo").code != 0 {
        return Outcome::Ignored("skopeo is not installed".to_owned());
    }
    let scratch = suite.scratch();
    let (saved, layout) = (scratch.join("saved.tar"), scratch.join("layout.tar"));
    suite.tug(["save", "-o", saved.to_str().unwrap(), "busybox"]).ok();
    let policy = "--insecure-policy --tmpdir";
    let tmp = scratch.display();
    shell(&format!(
        "skopeo {policy} {tmp} copy docker-archive:{} oci-archive:{}:fromskopeo:v2",
        saved.display(),
        layout.display()
    ))
    .ok();
    let loaded = suite.tug(["load", "-q", "-i", layout.to_str().unwrap()]).ok();
    assert!(loaded.contains("Loaded image"), "{loaded}");
    let id = loaded.rsplit(' ').next().unwrap().to_owned();
    assert_eq!(suite.tug(["run", "--rm", &id, "echo", "from a layout"]).ok(), "from a layout");
    Outcome::Passed
}

fn export_and_import_keep_the_files(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let file = suite.scratch().join("root.tar");
        suite
            .run(
                cli,
                [
                    "run",
                    "--name",
                    "source",
                    "busybox",
                    "sh",
                    "-c",
                    "echo kept > /kept; chown 7:8 /kept; ln -s kept /link",
                ],
            )
            .ok();
        suite.run(cli, ["export", "-o", file.to_str().unwrap(), "source"]).ok();
        suite
            .run(
                cli,
                [
                    "import",
                    "-c",
                    "CMD [\"cat\", \"/link\"]",
                    "-c",
                    "ENV A=b",
                    file.to_str().unwrap(),
                    "flat:1",
                ],
            )
            .ok();
        assert_eq!(suite.run(cli, ["run", "--rm", "flat:1"]).ok(), "kept");
        assert_eq!(
            suite.run(cli, ["run", "--rm", "flat:1", "stat", "-c", "%u:%g", "/kept"]).ok(),
            "7:8"
        );
        assert_eq!(
            suite
                .run(cli, ["inspect", "-f", "{{.Config.Env}} {{len .RootFS.Layers}}", "flat:1"])
                .ok(),
            "[A=b] 1"
        );
        suite.run(cli, ["rm", "source"]).ok();
        suite.run(cli, ["rmi", "flat:1"]).ok();
    }
    Outcome::Passed
}

fn commit_keeps_changes_and_configuration(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite
            .run(
                cli,
                [
                    "run",
                    "--name",
                    "work",
                    "-e",
                    "MODE=x",
                    "busybox",
                    "sh",
                    "-c",
                    "echo new > /new; rm /etc/group",
                ],
            )
            .ok();
        suite
            .run(
                cli,
                [
                    "commit",
                    "-m",
                    "made by hand",
                    "-a",
                    "me",
                    "-c",
                    "CMD [\"cat\",\"/new\"]",
                    "work",
                    "made:1",
                ],
            )
            .ok();
        assert_eq!(suite.run(cli, ["run", "--rm", "made:1"]).ok(), "new");
        assert_ne!(suite.run(cli, ["run", "--rm", "made:1", "ls", "/etc/group"]).code, 0);
        assert_eq!(
            suite
                .run(
                    cli,
                    ["inspect", "-f", "{{.Comment}} {{.Author}} {{len .RootFS.Layers}}", "made:1"]
                )
                .ok(),
            "made by hand me 2"
        );
        suite.run(cli, ["rm", "work"]).ok();
        suite.run(cli, ["rmi", "made:1"]).ok();
    }
    Outcome::Passed
}

fn a_used_image_is_not_removed_without_force(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let file = suite.image_tar("busybox");
        suite.run(cli, ["import", "-m", "own", file.to_str().unwrap(), "used:1"]).ok();
        suite.run(cli, ["create", "--name", "user", "used:1", "true"]).ok();
        let refused = suite.run(cli, ["rmi", "used:1"]).fails(1);
        assert!(
            refused.contains(
                "conflict: unable to remove repository reference \"used:1\" (must force)"
            ),
            "{refused}"
        );
        suite.run(cli, ["rmi", "-f", "used:1"]).ok();
        assert!(suite.run(cli, ["ps", "-a"]).ok().contains("user"));
        suite.run(cli, ["rm", "user"]).ok();
    }
    Outcome::Passed
}

fn removing_an_image_frees_the_disk(suite: &Suite) -> Outcome {
    let scratch = suite.scratch();
    shell(&format!("mkdir {0}/r && head -c 30000000 /dev/urandom > {0}/r/big && tar -C {0}/r -cf {0}/big.tar .", scratch.display())).ok();
    let used = || -> u64 {
        let text = run(Command::new("du").arg("-sk").arg(suite.data_root())).ok();
        text.split_whitespace().next().unwrap().parse().unwrap()
    };
    let before = used();
    suite.tug(["import", scratch.join("big.tar").to_str().unwrap(), "big:1"]).ok();
    assert!(used() > before + 29_000);
    let size = suite.tug(["images", "--format", "{{.Size}}", "big"]).ok();
    assert_eq!(size, "30MB");
    suite.tug(["rmi", "big:1"]).ok();
    crate::harness::wait_for("the space", std::time::Duration::from_secs(5), || {
        used() < before + 1000
    });
    Outcome::Passed
}

fn history_and_inspect_tell_how_an_image_was_made(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let rows = suite.run(cli, ["history", "busybox"]).ok();
        let header: Vec<&str> = rows.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(header, ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]);
        let platform = suite
            .run(cli, ["inspect", "-f", "{{.Os}}/{{.Architecture}} {{.RepoTags}}", "busybox"])
            .ok();
        assert!(
            platform.starts_with("linux/") && platform.ends_with("[busybox:latest]"),
            "{platform}"
        );
    }
    Outcome::Passed
}

fn prune_removes_what_nothing_uses(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite.run(cli, ["run", "--name", "old", "busybox", "true"]).ok();
        let gone = suite.run(cli, ["container", "prune", "-f"]).ok();
        assert!(
            gone.contains("Deleted Containers:") && gone.contains("Total reclaimed space:"),
            "{gone}"
        );
        let file = suite.image_tar("busybox");
        suite.run(cli, ["import", "-m", "dangling", file.to_str().unwrap()]).ok();
        assert!(suite.run(cli, ["images", "-f", "dangling=true", "-q"]).ok().len() >= 12);
        suite.run(cli, ["image", "prune", "-f"]).ok();
        assert_eq!(suite.run(cli, ["images", "-f", "dangling=true", "-q"]).ok(), "");
    }
    Outcome::Passed
}

fn events_tell_what_happened(suite: &Suite) -> Outcome {
    let since = shell("date +%s.%N").ok();
    suite
        .tug(["run", "--rm", "--name", "eventful", "-l", "mark=1", "busybox", "sh", "-c", "exit 3"])
        .fails(3);
    let until = shell("sleep 0.3; date +%s.%N").ok();
    for cli in BOTH {
        let args = [
            "events",
            "--since",
            &since,
            "--until",
            &until,
            "--filter",
            "container=eventful",
            "--format",
            "{{.Action}}",
        ];
        let actions = suite.run(cli, args).ok();
        let wanted = ["create", "attach", "start", "die", "destroy"];
        let seen: Vec<&str> = actions.lines().filter(|line| wanted.contains(line)).collect();
        assert_eq!(seen, wanted, "{actions}");
    }
    let die = suite.run(
        Cli::Tug,
        [
            "events",
            "--since",
            &since,
            "--until",
            &until,
            "--filter",
            "event=die",
            "--format",
            "{{.Actor.Attributes.exitCode}} {{.Actor.Attributes.mark}}",
        ],
    );
    assert_eq!(die.ok(), "3 1");
    Outcome::Passed
}
