//! The law of survival: the daemon may die at any instant.

use std::time::Duration;

use crate::harness::{BOTH, Outcome, Suite, run, shell, wait_for};

super::cases! {
    a_killed_daemon_finds_its_containers_again,
    an_exit_while_the_daemon_is_dead_is_known_later,
    ports_and_names_work_while_the_daemon_is_dead,
    killed_again_and_again_it_loses_nothing,
    records_survive_an_orderly_restart,
    two_daemons_run_side_by_side,
}

fn a_killed_daemon_finds_its_containers_again(suite: &Suite) -> Outcome {
    suite
        .tug([
            "run",
            "-d",
            "--name",
            "alive",
            "busybox",
            "sh",
            "-c",
            "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done",
        ])
        .ok();
    let pid = suite.tug(["inspect", "-f", "{{.State.Pid}}", "alive"]).ok();
    suite.end_daemon("KILL");
    std::thread::sleep(Duration::from_millis(500));
    suite.start_daemon(&[]);
    assert_eq!(
        suite.tug(["inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "alive"]).ok(),
        format!("running {pid}")
    );
    for cli in BOTH {
        assert_eq!(suite.run(cli, ["exec", "alive", "echo", "still here"]).ok(), "still here");
    }
    std::thread::sleep(Duration::from_millis(300));
    let logs = suite.tug(["logs", "alive"]).ok();
    let numbers: Vec<usize> = logs.lines().map(|line| line.parse().unwrap()).collect();
    assert!(
        numbers.len() > 8 && numbers.iter().enumerate().all(|(at, number)| at == *number),
        "{logs}"
    );
    suite.tug(["stop", "-t", "0", "alive"]).ok();
    assert_eq!(suite.tug(["wait", "alive"]).ok(), "137");
    Outcome::Passed
}

fn an_exit_while_the_daemon_is_dead_is_known_later(suite: &Suite) -> Outcome {
    suite
        .tug([
            "run",
            "-d",
            "--name",
            "brief",
            "busybox",
            "sh",
            "-c",
            "sleep 0.3; echo last words; exit 9",
        ])
        .ok();
    suite.tug(["run", "-d", "--rm", "--name", "gone", "busybox", "sleep", "0.3"]).ok();
    suite.end_daemon("KILL");
    std::thread::sleep(Duration::from_millis(900));
    suite.start_daemon(&[]);
    wait_for("the exit", Duration::from_secs(5), || {
        suite.tug(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "brief"]).stdout.trim()
            == "exited 9"
    });
    assert_eq!(suite.tug(["logs", "brief"]).ok(), "last words");
    wait_for("the removal", Duration::from_secs(5), || {
        !suite.tug(["ps", "-a"]).stdout.contains("gone")
    });
    Outcome::Passed
}

fn ports_and_names_work_while_the_daemon_is_dead(suite: &Suite) -> Outcome {
    suite.tug(["network", "create", "steady"]).ok();
    let server = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www";
    suite
        .tug([
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "steady",
            "-p",
            "8090:80",
            "busybox",
            "sh",
            "-c",
            server,
        ])
        .ok();
    suite
        .tug([
            "run",
            "-d",
            "--name",
            "asker",
            "--network",
            "steady",
            "busybox",
            "sh",
            "-c",
            "while :; do fetch http://web/ || echo lost; sleep 0.1; done",
        ])
        .ok();
    let fetch = |url: &str| shell(&format!("curl -sg --max-time 3 {url}")).stdout;
    wait_for("the service", Duration::from_secs(10), || {
        fetch("http://127.0.0.1:8090/") == "served\n"
    });
    wait_for("the name", Duration::from_secs(10), || {
        suite.tug(["logs", "--tail", "1", "asker"]).stdout == "served\n"
    });
    let lines = suite.tug(["logs", "asker"]).ok().lines().count();
    suite.end_daemon("KILL");
    for _ in 0..10 {
        assert_eq!(fetch("http://127.0.0.1:8090/"), "served\n");
        assert_eq!(fetch("http://[::1]:8090/"), "served\n");
        std::thread::sleep(Duration::from_millis(50));
    }
    suite.start_daemon(&[]);
    assert_eq!(fetch("http://127.0.0.1:8090/"), "served\n");
    let logs = suite.tug(["logs", "asker"]).ok();
    let later: Vec<&str> = logs.lines().skip(lines).collect();
    assert!(later.len() > 3 && later.iter().all(|line| *line == "served"), "{later:?}");
    Outcome::Passed
}

fn killed_again_and_again_it_loses_nothing(suite: &Suite) -> Outcome {
    for round in 0..5 {
        let name = format!("round{round}");
        let mut client = suite
            .command(BOTH[round % 2])
            .args(["run", "-d", "--name", &name, "busybox", "sleep", "100"])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(3 + 7 * round as u64));
        suite.end_daemon("KILL");
        client.wait().unwrap();
        suite.start_daemon(&[]);
        let listed = suite.tug(["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok();
        for line in listed.lines() {
            assert!(
                line.ends_with(" running")
                    || line.ends_with(" created")
                    || line.ends_with(" exited"),
                "{listed}"
            );
        }
        suite.tug(["rm", "-f", &name]);
    }
    Outcome::Passed
}

fn records_survive_an_orderly_restart(suite: &Suite) -> Outcome {
    suite.tug(["network", "create", "persistent"]).ok();
    suite.tug(["volume", "create", "kept"]).ok();
    suite
        .tug([
            "create",
            "--name",
            "idle",
            "-v",
            "kept:/d",
            "--network",
            "persistent",
            "busybox",
            "true",
        ])
        .ok();
    suite
        .tug(["run", "-d", "--name", "policy", "--restart", "always", "busybox", "sleep", "100"])
        .ok();
    let before = suite.tug(["inspect", "-f", "{{json .Config}}", "idle"]).ok();
    suite.end_daemon("TERM");
    suite.start_daemon(&[]);
    assert_eq!(suite.tug(["inspect", "-f", "{{json .Config}}", "idle"]).ok(), before);
    assert!(suite.tug(["network", "ls"]).ok().contains("persistent"));
    assert!(suite.tug(["volume", "ls"]).ok().contains("kept"));
    wait_for("the restart policy", Duration::from_secs(10), || {
        suite.tug(["inspect", "-f", "{{.State.Status}}", "policy"]).stdout.trim() == "running"
    });
    suite.tug(["start", "-a", "idle"]).ok();
    Outcome::Passed
}

fn two_daemons_run_side_by_side(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let at = directory.display();
    let host = format!("unix://{at}/d.sock");
    let mut second = std::process::Command::new(crate::harness::tug())
        .args([
            "daemon",
            "--data-root",
            &format!("{at}/data"),
            "--exec-root",
            &format!("{at}/exec"),
            "-H",
            &host,
        ])
        .args(["--pidfile", &format!("{at}/pid")])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let tug = |args: &[&str]| {
        run(std::process::Command::new(crate::harness::tug()).env("DOCKER_HOST", &host).args(args))
    };
    wait_for("the second daemon", Duration::from_secs(10), || tug(&["version"]).code == 0);
    let busybox = suite.image_tar("busybox");
    tug(&["import", busybox.to_str().unwrap(), "busybox"]).ok();
    tug(&["run", "-d", "--name", "same", "-p", "8095:80", "busybox", "sleep", "60"]).ok();
    suite.tug(["run", "-d", "--name", "same", "busybox", "sleep", "60"]).ok();
    let theirs = tug(&["inspect", "-f", "{{.NetworkSettings.Gateway}}", "same"]).ok();
    let ours = suite.tug(["inspect", "-f", "{{.NetworkSettings.Gateway}}", "same"]).ok();
    let same_root = run(std::process::Command::new(crate::harness::tug())
        .args([
            "daemon",
            "--data-root",
            &format!("{at}/data"),
            "--exec-root",
            &format!("{at}/exec2"),
        ])
        .args(["--pidfile", &format!("{at}/pid2"), "-H", &format!("unix://{at}/d2.sock")]));
    tug(&["rm", "-f", "same"]).ok();
    run(std::process::Command::new("kill").arg(second.id().to_string())).ok();
    second.wait().unwrap();
    shell(
        "for h in /sys/fs/cgroup/*/; do find $h/tug -depth -type d -exec rmdir {} + 2>/dev/null; done",
    );
    shell(
        "ip -o link | sed -n 's/^[0-9]*: \\(tug[0-9a-f]\\{6\\}\\):.*/\\1/p' | while read l; do ip addr show $l | grep -q 'state DOWN\\|NO-CARRIER' && ip link del $l; done",
    );
    assert_ne!(theirs, ours);
    assert_ne!(same_root.code, 0, "one root has one daemon");
    Outcome::Passed
}
