//! What clients other than the command lines see: bodies, words and statuses.

use super::cases;
use crate::harness::{BOTH, Outcome, Suite, wait_for};
use std::time::Duration;

cases![bad_bodies_are_told_in_dockers_words, links_follow_their_target_and_can_be_removed];

fn bad_bodies_are_told_in_dockers_words(suite: &Suite) -> Outcome {
    let bodies = [
        ("{}", "config cannot be empty in order to create a container"),
        (r#"{"HostConfig":{"Memory":1}}"#, "config cannot be empty in order to create a container"),
        (r#"{"Image":""}"#, "no command specified"),
        (r#"{"Image":"busybox"} x"#, "unexpected content after JSON"),
        (r#"{"Image":"busybox","HostConfig":{"VolumesFrom":["gone"]}}"#, "No such container: gone"),
        (
            r#"{"Image":"busybox","HostConfig":{"Links":["gone"]}}"#,
            "could not get container for gone: No such container: gone",
        ),
        (
            r#"{"Image":"busybox","HostConfig":{"CapDrop":["x"]}}"#,
            r#"invalid CapDrop: unknown capability: \"CAP_X\""#,
        ),
        (
            r#"{"Image":"busybox","HostConfig":{"CpusetCpus":"8000"}}"#,
            "Requested CPUs are not available - requested 8000, available: 0",
        ),
        (
            r#"{"Image":"busybox","HostConfig":{"Tmpfs":{"x":""}}}"#,
            "invalid mount path: 'x' mount path must be absolute",
        ),
    ];
    for (body, words) in bodies {
        let (status, answer) = suite.api("POST", "/containers/create", Some(body));
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer.contains(words), "{body}: {answer}");
    }
    Outcome::Passed
}

fn links_follow_their_target_and_can_be_removed(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let run = |args: &[&str]| suite.run(cli, args);
        run(&["run", "-d", "--name", "db", "--expose", "80", "busybox", "sleep", "100"]).ok();
        run(&["run", "-d", "--name", "web", "--link", "db:store", "busybox", "sleep", "100"]).ok();
        // Taken by somebody else while the target is down, its address changes.
        let address = || run(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db"]).ok();
        let before = address();
        run(&["stop", "-t", "0", "db"]).ok();
        run(&["run", "-d", "--name", "other", "busybox", "sleep", "100"]).ok();
        run(&["start", "db"]).ok();
        assert_ne!(address(), before);
        let line = format!("{}\tstore ", address());
        wait_for("the new address in /etc/hosts", Duration::from_secs(10), || {
            run(&["exec", "web", "cat", "/etc/hosts"]).ok().contains(&line)
        });
        assert!(run(&["exec", "web", "env"]).ok().contains("STORE_PORT_80_TCP_PORT=80"));
        assert!(run(&["ps", "--no-trunc", "--format", "{{.Names}}"]).ok().contains("db,web/store"));
        assert_eq!(run(&["inspect", "-f", "{{.Name}}", "web/store"]).ok(), "/db");
        run(&["rename", "db", "base"]).ok();
        let links = || run(&["inspect", "-f", "{{json .HostConfig.Links}}", "web"]).ok();
        assert_eq!(links(), r#"["/base:/web/store"]"#);

        run(&["stop", "-t", "0", "base"]).ok();
        let refused = run(&["restart", "-t", "0", "web"]).fails(1);
        let words = "Cannot link to a non running container: /base AS /web/store";
        assert!(refused.contains(words), "{refused}");
        run(&["rm", "--link", "web/store"]).ok();
        assert_eq!(links(), "null");
        run(&["start", "web"]).ok();
        let own = run(&["rm", "--link", "web"]).fails(1);
        assert!(own.contains("cannot remove the default link name"), "{own}");
        run(&["rm", "-f", "web", "base", "other"]).ok();
    }
    Outcome::Passed
}
