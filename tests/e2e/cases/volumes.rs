//! Volumes and mounts.

use std::fs;

use crate::harness::{BOTH, Outcome, Suite};

super::cases! {
    a_named_volume_outlives_its_container,
    an_anonymous_volume_goes_with_its_container,
    an_empty_volume_takes_the_images_files,
    binds_are_the_hosts_files,
    mounts_by_their_long_form,
    a_used_volume_is_not_removed,
    a_volume_may_be_a_file_system,
    a_copy_reaches_the_volumes_of_a_container_that_does_not_run,
}

fn a_named_volume_outlives_its_container(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite
            .run(
                cli,
                ["run", "--rm", "-v", "keep:/data", "busybox", "sh", "-c", "echo kept > /data/f"],
            )
            .ok();
        assert_eq!(
            suite.run(cli, ["run", "--rm", "-v", "keep:/d:ro", "busybox", "cat", "/d/f"]).ok(),
            "kept"
        );
        let refused =
            suite.run(cli, ["run", "--rm", "-v", "keep:/d:ro", "busybox", "touch", "/d/g"]);
        assert_ne!(refused.code, 0);
        let rows = suite.run(cli, ["volume", "ls"]).ok();
        assert!(
            rows.starts_with("DRIVER    VOLUME NAME") && rows.contains("local     keep"),
            "{rows}"
        );
        assert_eq!(
            suite
                .run(cli, ["volume", "inspect", "-f", "{{.Name}} {{.Driver}} {{.Scope}}", "keep"])
                .ok(),
            "keep local local"
        );
        assert_eq!(suite.run(cli, ["volume", "rm", "keep"]).ok(), "keep");
        let gone = suite.run(cli, ["volume", "inspect", "keep"]).fails(1);
        assert!(gone.contains("no such volume"), "{gone}");
    }
    Outcome::Passed
}

fn an_anonymous_volume_goes_with_its_container(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite.run(cli, ["run", "--rm", "-v", "/data", "busybox", "touch", "/data/x"]).ok();
        assert_eq!(suite.run(cli, ["volume", "ls", "-q"]).ok(), "");
        suite.run(cli, ["create", "--name", "holder", "-v", "/data", "busybox"]).ok();
        assert_eq!(suite.run(cli, ["volume", "ls", "-q"]).ok().len(), 64);
        suite.run(cli, ["rm", "-v", "holder"]).ok();
        assert_eq!(suite.run(cli, ["volume", "ls", "-q"]).ok(), "");
    }
    Outcome::Passed
}

fn an_empty_volume_takes_the_images_files(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let seen = suite.run(
            cli,
            ["run", "--rm", "-v", "copied:/etc", "busybox", "sh", "-c", "grep -c root /etc/passwd"],
        );
        assert_eq!(seen.ok(), "1");
        suite.run(cli, ["volume", "rm", "copied"]).ok();
    }
    Outcome::Passed
}

fn binds_are_the_hosts_files(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let directory = suite.scratch();
        fs::write(directory.join("f"), "host\n").unwrap();
        let bind = format!("{}:/b", directory.display());
        assert_eq!(
            suite
                .run(
                    cli,
                    [
                        "run",
                        "--rm",
                        "-v",
                        &bind,
                        "busybox",
                        "sh",
                        "-c",
                        "cat /b/f; echo back > /b/g"
                    ]
                )
                .ok(),
            "host"
        );
        assert_eq!(fs::read_to_string(directory.join("g")).unwrap(), "back\n");
        let made = format!("{}/new/dir:/b", directory.display());
        suite.run(cli, ["run", "--rm", "-v", &made, "busybox", "true"]).ok();
        assert!(directory.join("new/dir").is_dir());
        let mount = format!("type=bind,src={}/nosuch,dst=/b", directory.display());
        let missing =
            suite.run(cli, ["run", "--rm", "--mount", &mount, "busybox", "true"]).fails(125);
        assert!(missing.contains("bind source path does not exist"), "{missing}");
    }
    Outcome::Passed
}

fn mounts_by_their_long_form(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let seen = suite.run(
            cli,
            [
                "run",
                "--rm",
                "--mount",
                "type=volume,src=long,dst=/v",
                "--mount",
                "type=tmpfs,dst=/t,tmpfs-size=1m",
                "busybox",
                "sh",
                "-c",
                "touch /v/x && df -k /t | tail -n1 | awk '{print $2}'",
            ],
        );
        assert_eq!(seen.ok(), "1024");
        let twice = suite
            .run(
                cli,
                ["run", "--rm", "-v", "/tmp:/x", "--mount", "type=tmpfs,dst=/x", "busybox", "true"],
            )
            .fails(125);
        assert!(twice.contains("Duplicate mount point: /x"), "{twice}");
        suite.run(cli, ["volume", "rm", "long"]).ok();
    }
    Outcome::Passed
}

fn a_used_volume_is_not_removed(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite.run(cli, ["create", "--name", "user", "-v", "used:/d", "busybox"]).ok();
        let refused = suite.run(cli, ["volume", "rm", "used"]).fails(1);
        assert!(refused.contains("volume is in use"), "{refused}");
        suite.run(cli, ["rm", "user"]).ok();
        suite.run(cli, ["volume", "rm", "used"]).ok();
    }
    Outcome::Passed
}

fn a_copy_reaches_the_volumes_of_a_container_that_does_not_run(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let file = directory.join("f");
    fs::write(&file, "copied").unwrap();
    let file = file.to_str().unwrap();
    for cli in BOTH {
        suite
            .run(
                cli,
                ["create", "--name", "waits", "-v", "filled:/v", "busybox", "cat", "/v/sub/f"],
            )
            .ok();
        let nowhere = suite.run(cli, ["cp", file, "waits:/v/sub/f"]).fails(1);
        assert!(nowhere.contains("Could not find the file /v/sub"), "{nowhere}");
        suite.run(cli, ["cp", file, "waits:/v/f"]).ok();
        let seen =
            suite.run(cli, ["run", "--rm", "-v", "filled:/w", "busybox", "cat", "/w/f"]).ok();
        assert_eq!(seen, "copied");
        let back = directory.join("back");
        suite.run(cli, ["cp", "waits:/v/f", back.to_str().unwrap()]).ok();
        assert_eq!(fs::read_to_string(&back).unwrap(), "copied");
        suite.run(cli, ["rm", "waits"]).ok();
        suite.run(cli, ["volume", "rm", "filled"]).ok();
    }
    Outcome::Passed
}

fn a_volume_may_be_a_file_system(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    fs::write(directory.join("f"), "host\n").unwrap();
    let device = format!("device={}", directory.display());
    for cli in BOTH {
        let tmpfs = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "quick"];
        suite.run(cli, [&["volume", "create"], &tmpfs[..]].concat()).ok();
        let kind = "df -k /q | awk 'NR>1 {print $1, $2}'; touch /q/x";
        let seen = suite.run(cli, ["run", "--rm", "-v", "quick:/q", "busybox", "sh", "-c", kind]);
        assert_eq!(seen.ok(), "tmpfs 1024");
        let bind = ["-o", "type=none", "-o", "o=bind", "-o", &device, "shown"];
        suite.run(cli, [&["volume", "create"], &bind[..]].concat()).ok();
        let script = "cat /s/f; touch /s/g";
        let seen = suite.run(cli, ["run", "--rm", "-v", "shown:/s", "busybox", "sh", "-c", script]);
        assert_eq!(seen.ok(), "host");
        assert!(directory.join("g").exists());
        let script = ["run", "--rm", "-v", "shown:/s:ro", "busybox", "touch", "/s/h"];
        assert_ne!(suite.run(cli, script).code, 0);
        suite.run(cli, ["volume", "rm", "quick", "shown"]).ok();
        assert!(directory.join("f").exists());
    }
    Outcome::Passed
}
