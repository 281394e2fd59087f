//! The run core: changes take turns, whoever serves a container has no rights, a task survives a panic.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::{Outcome, Suite, shell, wait_for};

super::cases! {
    renames_at_once_leave_no_name_behind,
    a_container_is_changed_by_one_at_a_time,
    a_change_goes_on_without_its_client,
    nobody_beside_a_container_has_rights,
    launchers_that_are_killed_or_stopped_are_replaced,
}

fn renames_at_once_leave_no_name_behind(suite: &Suite) -> Outcome {
    let id = suite.tug(["create", "--name", "first", "busybox"]).ok();
    std::thread::scope(|scope| {
        for name in (0..8).map(|number| format!("name{number}")) {
            let path = format!("/v1.47/containers/{id}/rename?name={name}");
            scope.spawn(move || assert_eq!(suite.api("POST", &path, None).0, 204));
        }
    });
    let has = suite.tug(["inspect", "-f", "{{.Name}}", &id]).ok();
    // All names but one are free again.
    for name in (0..8).map(|number| format!("name{number}")).chain(["first".to_owned()]) {
        let made = suite.tug(["create", "--name", &name, "busybox"]);
        assert_eq!(made.code == 0, format!("/{name}") != has, "{name} beside {has}");
    }
    Outcome::Passed
}

fn a_container_is_changed_by_one_at_a_time(suite: &Suite) -> Outcome {
    let id = suite.tug(["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
    let networks = ["one", "two", "three"];
    for name in networks {
        suite.tug(["network", "create", name]).ok();
    }
    let update = |body: &str| {
        let path = format!("/v1.47/containers/{id}/update");
        assert_eq!(suite.api("POST", &path, Some(body)).0, 200, "{body}");
    };
    std::thread::scope(|scope| {
        for name in networks {
            let id = id.clone();
            scope.spawn(move || {
                let body = format!(r#"{{"Container":"{id}"}}"#);
                let path = format!("/v1.47/networks/{name}/connect");
                assert_eq!(suite.api("POST", &path, Some(&body)).0, 200, "{name}");
            });
        }
        scope.spawn(|| update(r#"{"PidsLimit":77}"#));
        scope.spawn(|| update(r#"{"CpuShares":555}"#));
        scope.spawn(|| update(r#"{"RestartPolicy":{"Name":"unless-stopped"}}"#));
    });
    // None of the changes has undone another one.
    let format = "{{.HostConfig.PidsLimit}} {{.HostConfig.CpuShares}} \
                  {{.HostConfig.RestartPolicy.Name}} {{len .NetworkSettings.Networks}}";
    let seen = suite.tug(["inspect", "-f", format, "box"]).ok();
    assert_eq!(seen, "77 555 unless-stopped 4");
    let links = suite.tug(["exec", "box", "sh", "-c", "ls /sys/class/net | grep -c eth"]).ok();
    assert_eq!(links, "4");
    suite.tug(["rm", "-f", "box"]).ok();
    for name in networks {
        suite.tug(["network", "rm", name]).ok();
    }
    Outcome::Passed
}

fn a_change_goes_on_without_its_client(suite: &Suite) -> Outcome {
    suite.tug(["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
    for number in 0..10 {
        let network = format!("net{number}");
        suite.tug(["network", "create", &network]).ok();
        let mut client = UnixStream::connect(suite.socket()).unwrap();
        let body = r#"{"Container":"box"}"#;
        let length = body.len();
        write!(
            client,
            "POST /v1.47/networks/{network}/connect HTTP/1.1\r\nHost: tug\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        std::thread::sleep(Duration::from_micros(300 * number));
        drop(client);
    }
    // Whatever was begun is both in the container and in its record.
    let links = || suite.tug(["exec", "box", "sh", "-c", "ls /sys/class/net | grep -c eth"]).ok();
    let known = || suite.tug(["inspect", "-f", "{{len .NetworkSettings.Networks}}", "box"]).ok();
    wait_for("the record to be true", Duration::from_secs(10), || links() == known());
    suite.tug(["rm", "-f", "box"]).ok();
    for number in 0..10 {
        suite.tug(["network", "rm", &format!("net{number}")]).ok();
    }
    Outcome::Passed
}

/// Lines of /proc/PID/status by their names.
fn status(pid: &str) -> impl Fn(&str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    move |name| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_default().trim().to_owned()
    }
}

/// Processes whose command line begins with these words.
fn processes(words: &str) -> Vec<String> {
    let found = shell(&format!("pgrep -f '^{words}'"));
    found.stdout.lines().map(str::to_owned).collect()
}

fn nobody_beside_a_container_has_rights(suite: &Suite) -> Outcome {
    suite.tug(["network", "create", "front"]).ok();
    let ports = ["-p", "127.0.0.1::80", "--network", "front"];
    let run = ["run", "-d", "--name", "box"].into_iter().chain(ports);
    let run = run.chain(["busybox", "sleep", "600"]);
    suite.run(crate::harness::Cli::Tug, run).ok();
    suite.tug(["exec", "-d", "box", "sleep", "600"]).ok();
    let id = suite.tug(["inspect", "-f", "{{.Id}}", "box"]).ok();
    let monitors =
        processes(&format!("tug.monitor.{}/containers/{id}", suite.exec_root().display()));
    assert_eq!(monitors.len(), 1, "{monitors:?}");
    // It has answered before it gives up its rights.
    let confined = |pid: &String| status(pid)("Seccomp") == "2";
    let mut execs = Vec::new();
    wait_for("the exec's process", Duration::from_secs(10), || {
        execs = processes("tug.exec");
        !execs.is_empty() && execs.iter().all(confined)
    });
    for pid in monitors.iter().chain(&execs) {
        let line = status(pid);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(line(set), "0000000000000000", "{pid} {set}");
        }
        assert_eq!((line("NoNewPrivs"), line("Seccomp")), ("1".to_owned(), "2".to_owned()));
        for path in ["etc/passwd", "proc/self", "sys/kernel", "bin/sh"] {
            let inside = format!("/proc/{pid}/root/{path}");
            assert!(!std::path::Path::new(&inside).exists(), "{inside}");
        }
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let text = target.display().to_string();
            let of_host = target.is_dir() || text.starts_with("net:[") || text.starts_with("mnt:[");
            assert!(!of_host, "{pid} has {text}");
        }
    }
    // Names and ports are served all the same.
    let seen = suite.tug(["exec", "box", "nslookup", "box"]).ok();
    assert!(seen.contains("127.0.0.11"), "{seen}");
    suite.tug(["rm", "-f", "box"]).ok();
    suite.tug(["network", "rm", "front"]).ok();
    Outcome::Passed
}

fn launchers_that_are_killed_or_stopped_are_replaced(suite: &Suite) -> Outcome {
    let daemon = fs::read_to_string(suite.directory.join("tug.pid")).unwrap();
    let children = |parent: &str| {
        let found = shell(&format!("pgrep -P {}", parent.trim())).stdout;
        found.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    suite.tug(["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
    for signal in ["KILL", "STOP"] {
        let servers: Vec<String> = children(&daemon)
            .into_iter()
            .filter(|pid| {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.starts_with(b"tug\0launcher"))
            })
            .collect();
        assert_eq!(servers.len(), 1, "{servers:?}");
        let monitors = processes("tug.monitor");
        let idle = children(&servers[0]).into_iter().filter(|pid| !monitors.contains(pid));
        let hit: Vec<String> = idle.chain(servers.iter().cloned()).collect();
        for pid in &hit {
            shell(&format!("kill -{signal} {pid}")).ok();
        }
        assert_eq!(suite.tug(["exec", "box", "echo", "here"]).ok(), "here", "{signal}");
        assert_eq!(suite.tug(["run", "--rm", "busybox", "echo", "new"]).ok(), "new", "{signal}");
        for pid in &hit {
            // Those that were stopped have been ended by the daemon or end now.
            shell(&format!("kill -CONT {pid} 2>/dev/null; true")).ok();
        }
    }
    assert_eq!(suite.tug(["ps", "-q"]).ok().lines().count(), 1);
    suite.tug(["rm", "-f", "box"]).ok();
    Outcome::Passed
}
