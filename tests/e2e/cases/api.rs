//! What clients other than the command lines see: bodies, words and statuses.

use super::cases;
use crate::harness::{BOTH, Cli, Outcome, Suite, wait_for};
use std::time::Duration;

cases![
    bad_bodies_are_told_in_dockers_words,
    links_follow_their_target_and_can_be_removed,
    a_running_container_is_refused_what_cannot_be,
    health_outlives_the_daemon,
    a_user_who_asks_three_times_gets_away,
];

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
    // What a load refuses is told in the body.
    let (status, answer) = suite.api("POST", "/images/load", Some("no archive"));
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains(r#""errorDetail":"#), "{answer}");
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

fn a_running_container_is_refused_what_cannot_be(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let run = |args: &[&str]| suite.run(cli, args);
        run(&["run", "-d", "--name", "box", "busybox", "sleep", "100"]).ok();
        let lost = run(&["exec", "-w", "/not/there", "box", "true"]);
        let words =
            "chdir to cwd (\"/not/there\") set in config.json failed: no such file or directory";
        assert_eq!(lost.code, 127, "{lost:?}");
        assert!(format!("{}{}", lost.stdout, lost.stderr).contains(words), "{lost:?}");
        assert_eq!(run(&["diff", "box"]).ok(), "", "and nothing is made");
        assert_eq!(run(&["exec", "-u", "nobody-here", "box", "true"]).code, 126);
        let gone = run(&["kill", "gone"]).fails(1);
        assert!(gone.contains("cannot kill container: gone: No such container: gone"), "{gone}");

        // A limit whose hierarchy the container did not need when it was made.
        run(&["update", "--cpuset-cpus", "0", "box"]).ok();
        let status = run(&["exec", "box", "grep", "Cpus_allowed_list", "/proc/1/status"]).ok();
        assert_eq!(status.split_whitespace().last(), Some("0"));
        run(&["rm", "-f", "box"]).ok();

        let volume = format!("{}:/data:rshared", suite.scratch().display());
        let refused = run(&["run", "--rm", "-v", &volume, "busybox", "true"]).fails(125);
        assert!(refused.contains("but it is not a shared mount"), "{refused}");
    }
    Outcome::Passed
}

fn health_outlives_the_daemon(suite: &Suite) -> Outcome {
    let health = "{{json .State.Health}}";
    let status = || suite.tug(["inspect", "-f", "{{.State.Health.Status}}", "sick"]).ok();
    // After the first probe the interval is so long that no other comes between.
    let check =
        ["--health-cmd", "true", "--health-interval", "1h", "--health-start-interval", "200ms"];
    let run =
        ["run", "-d", "--name", "sick", "--health-start-period", "1h"].into_iter().chain(check);
    suite.run(Cli::Tug, run.chain(["busybox", "sleep", "100"])).ok();
    wait_for("the first probe", Duration::from_secs(20), || status() == "healthy");
    let before = suite.tug(["inspect", "-f", health, "sick"]).ok();
    suite.end_daemon("KILL");
    suite.start_daemon(&[]);
    assert_eq!(suite.tug(["inspect", "-f", health, "sick"]).ok(), before);
    suite.tug(["restart", "-t", "0", "sick"]).ok();
    assert_ne!(suite.tug(["inspect", "-f", health, "sick"]).ok(), before, "a run begins anew");
    Outcome::Passed
}

fn a_user_who_asks_three_times_gets_away(suite: &Suite) -> Outcome {
    for cli in BOTH {
        // The first process of a container gets no signal that it has no handler for.
        let mut client = suite
            .command(cli)
            .args(["run", "--name", "deaf", "busybox", "sleep", "100"])
            .stdin(std::process::Stdio::null())
            .spawn()
            .expect("the client can be started");
        let running = || suite.tug(["inspect", "-f", "{{.State.Running}}", "deaf"]).stdout;
        wait_for("the container", Duration::from_secs(20), || running().trim() == "true");
        let pid = client.id().to_string();
        wait_for("the client's end", Duration::from_secs(20), || {
            crate::harness::shell(&format!("kill -INT {pid}"));
            client.try_wait().expect("the client is our child").is_some()
        });
        assert_eq!(client.wait().expect("it has ended").code(), Some(1));
        assert_eq!(running().trim(), "true", "the container goes on");
        suite.run(cli, ["rm", "-f", "deaf"]).ok();
    }
    Outcome::Passed
}
