//! How runs and their daemon end: what is known when, and what hangs nobody.

use std::io::Read as _;
use std::process::Command;
use std::time::Duration;

use super::streams::{hijack, state, websocket};
use crate::harness::{BOTH, Cli, Outcome, Suite, run, wait_for};

super::cases! {
    a_stream_ends_after_the_end_is_known,
    waiting_ends_when_the_end_is_known,
    an_exec_does_not_outlive_the_run_it_was_made_for,
    monitors_that_hang_hang_nobody_else,
    a_daemon_that_was_killed_is_replaced_at_once,
    without_live_restore_a_new_daemon_stops_what_the_old_one_left,
    what_a_run_gives_up_is_told_before_its_stop,
    probes_follow_their_times_and_say_what_they_said,
    stopping_follows_dockers_rules,
    want_of_memory_is_told_where_nobody_may_be_killed,
}

fn a_stream_ends_after_the_end_is_known(suite: &Suite) -> Outcome {
    for round in 0..12 {
        let network = format!("brief{round}");
        suite.tug(["network", "create", &network]).ok();
        let args = ["create", "-i", "--name", "brief", "--network", &network, "busybox"];
        suite.run(Cli::Tug, args.into_iter().chain(["sh", "-c", "echo out; exit 3"])).ok();
        let query = ["stdout=1", "stdout=1&stdin=1", "stdout=1&logs=1"][round % 3];
        let mut stream = if round % 4 == 3 {
            websocket(suite, &format!("/v1.47/containers/brief/attach/ws?stream=1&{query}"))
        } else {
            let path = format!("/v1.47/containers/brief/attach?stream=1&{query}");
            hijack(suite, &path, "", "").0
        };
        suite.tug(["start", "brief"]).ok();
        let mut output = Vec::new();
        stream.read_to_end(&mut output).unwrap();
        assert_eq!(state(suite, "brief"), "exited 3", "{query}");
        // What it held is free by then, too.
        suite.tug(["rm", "brief"]).ok();
        suite.tug(["network", "rm", &network]).ok();
    }
    suite.tug(["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
    for _ in 0..10 {
        let wish = r#"{"AttachStdout":true,"Cmd":["sh","-c","echo out; exit 4"]}"#;
        let (_, made) = suite.api("POST", "/v1.47/containers/box/exec", Some(wish));
        let id = made.split('"').nth(3).unwrap().to_owned();
        let (mut stream, _) = hijack(suite, &format!("/v1.47/exec/{id}/start"), "", "{}");
        stream.read_to_end(&mut Vec::new()).unwrap();
        let (_, ended) = suite.api("GET", &format!("/v1.47/exec/{id}/json"), None);
        assert!(ended.contains("\"Running\":false,\"ExitCode\":4"), "{ended}");
    }
    for cli in BOTH {
        suite.run(cli, ["create", "--name", "seen", "busybox", "sh", "-c", "exit 5"]).ok();
        suite.run(cli, ["start", "-a", "seen"]).fails(5);
        assert_eq!(state(suite, "seen"), "exited 5", "{cli:?}");
        suite.tug(["rm", "seen"]).ok();
    }
    Outcome::Passed
}

fn waiting_ends_when_the_end_is_known(suite: &Suite) -> Outcome {
    let brief = "sleep 0.3; echo said; exit 6";
    for condition in ["next-exit", "not-running", "removed"] {
        suite.tug(["network", "create", "brief"]).ok();
        let args = ["create", "--name", "brief", "--network", "brief", "busybox", "sh", "-c"];
        suite.run(Cli::Tug, args.into_iter().chain([brief])).ok();
        let path = format!("/v1.47/containers/brief/wait?condition={condition}");
        // What never ran does not run.
        let early = std::thread::scope(|scope| {
            if condition == "not-running" {
                suite.tug(["start", "brief"]).ok();
            }
            let waiting = scope.spawn(|| suite.api("POST", &path, None));
            std::thread::sleep(Duration::from_millis(100));
            if condition != "not-running" {
                suite.tug(["start", "brief"]).ok();
            }
            if condition == "removed" {
                suite.tug(["wait", "brief"]).ok();
                assert!(!waiting.is_finished(), "it is still there");
                suite.tug(["rm", "brief"]).ok();
            }
            waiting.join().unwrap()
        });
        assert_eq!(early.0, 200);
        assert!(early.1.contains("\"StatusCode\":6"), "{condition}: {}", early.1);
        if condition != "removed" {
            assert_eq!(state(suite, "brief"), "exited 6", "{condition}");
            suite.tug(["rm", "brief"]).ok();
        }
        suite.tug(["network", "rm", "brief"]).ok();
    }
    for cli in BOTH {
        suite.run(cli, ["run", "-d", "--name", "brief", "busybox", "sh", "-c", brief]).ok();
        assert_eq!(suite.run(cli, ["logs", "-f", "brief"]).ok(), "said");
        assert_eq!(state(suite, "brief"), "exited 6", "{cli:?}");
        assert_eq!(suite.run(cli, ["wait", "brief"]).ok(), "6");
        suite.tug(["rm", "brief"]).ok();
    }
    Outcome::Passed
}

fn an_exec_does_not_outlive_the_run_it_was_made_for(suite: &Suite) -> Outcome {
    suite.tug(["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
    let made = || {
        let wish = r#"{"AttachStdout":true,"Cmd":["true"]}"#;
        let (status, made) = suite.api("POST", "/v1.47/containers/box/exec", Some(wish));
        assert_eq!(status, 201, "{made}");
        made.split('"').nth(3).unwrap().to_owned()
    };
    let start = |id: &str| suite.api("POST", &format!("/v1.47/exec/{id}/start"), Some("{}"));
    let (idle, ended) = (made(), made());
    assert_eq!(start(&ended).0, 200);
    suite.tug(["stop", "-t", "0", "box"]).ok();
    for _ in 0..2 {
        let (status, body) = start(&idle);
        assert_eq!(status, 404, "{body}");
        assert!(body.contains(&format!("No such exec instance: {idle}")), "{body}");
        assert_eq!(suite.api("GET", &format!("/v1.47/exec/{idle}/json"), None).0, 404);
        // One that ended can be asked for its code for some minutes.
        let (_, body) = suite.api("GET", &format!("/v1.47/exec/{ended}/json"), None);
        assert!(body.contains("\"ExitCode\":0"), "{body}");
        suite.tug(["start", "box"]).ok();
    }
    Outcome::Passed
}

/// The monitor of a container, found by its command line.
fn monitor_of(suite: &Suite, name: &str) -> String {
    let id = suite.tug(["inspect", "-f", "{{.Id}}", name]).ok();
    run(Command::new("pgrep").args(["-f", &format!("monitor .*/{id}")])).ok()
}

fn signal(signal: &str, pid: &str) {
    run(Command::new("kill").args([&format!("-{signal}"), pid])).ok();
}

fn monitors_that_hang_hang_nobody_else(suite: &Suite) -> Outcome {
    let names = ["stuck", "quiet", "asleep", "well"];
    for name in names {
        suite.tug(["run", "-d", "--name", name, "busybox", "sleep", "600"]).ok();
    }
    let monitors: Vec<String> = names.iter().map(|name| monitor_of(suite, name)).collect();
    for monitor in &monitors[..3] {
        signal("STOP", monitor);
    }
    suite.end_daemon("KILL");
    suite.start_daemon(&[]);
    for name in names {
        assert_eq!(state(suite, name), "running 0", "{name}");
    }
    for cli in BOTH {
        assert_eq!(suite.run(cli, ["exec", "well", "echo", "works"]).ok(), "works");
        let refused = suite.run(cli, ["exec", "quiet", "echo", "works"]);
        assert_ne!(refused.code, 0, "{cli:?} {}", refused.stdout);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains("the container's monitor does not answer"), "{cli:?} {said}");
    }
    assert_eq!(suite.tug(["run", "--rm", "busybox", "echo", "new"]).ok(), "new");
    suite.tug(["update", "--memory", "64m", "--memory-swap", "64m", "quiet"]).ok();
    // By force, past its monitor.
    suite.tug(["rm", "-f", "stuck"]).ok();
    assert!(!std::path::Path::new(&format!("/proc/{}", monitors[0])).exists());
    // A signal reaches the process all the same, and the end is told once the monitor lives again.
    suite.tug(["kill", "-s", "USR1", "asleep"]).ok();
    // An orderly end is not held up either.
    suite.end_daemon("TERM");
    suite.start_daemon(&[]);
    for monitor in &monitors[1..3] {
        signal("CONT", monitor);
    }
    wait_for("the monitor to be heard again", Duration::from_secs(20), || {
        suite.tug(["exec", "quiet", "echo", "again"]).stdout == "again\n"
    });
    assert_eq!(suite.tug(["ps", "-q", "--filter", "status=running"]).ok().lines().count(), 3);
    suite.run(Cli::Docker, ["rm", "-f", "quiet", "asleep", "well"]).ok();
    Outcome::Passed
}

fn a_daemon_that_was_killed_is_replaced_at_once(suite: &Suite) -> Outcome {
    suite.tug(["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
    for _ in 0..5 {
        suite.replace_daemon();
        assert_eq!(suite.tug(["exec", "box", "echo", "here"]).ok(), "here");
    }
    // One that lives is left alone, by its pidfile and by its socket.
    let at = suite.scratch();
    let second = |pidfile: &std::path::Path| {
        run(Command::new(crate::harness::tug())
            .args(["daemon", "--data-root"])
            .arg(at.join("data"))
            .arg("--exec-root")
            .arg(at.join("exec"))
            .arg("--pidfile")
            .arg(pidfile)
            .args(["--bridge", "none", "-H", &format!("unix://{}", suite.socket().display())]))
        .fails(1)
    };
    let refused = second(&suite.directory.join("tug.pid"));
    assert!(refused.contains("is still running"), "{refused}");
    let refused = second(&at.join("pid"));
    assert!(refused.contains("another daemon answers there"), "{refused}");
    assert_eq!(suite.tug(["exec", "box", "echo", "here"]).ok(), "here");
    Outcome::Passed
}

fn without_live_restore_a_new_daemon_stops_what_the_old_one_left(suite: &Suite) -> Outcome {
    const FLAG: &[&str] = &["--live-restore=false"];
    suite.end_daemon("KILL");
    suite.start_daemon(FLAG);
    suite.tug(["network", "create", "their"]).ok();
    let ended = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    for (name, policy) in [("once", "no"), ("ever", "always")] {
        let args = ["run", "-d", "--name", name, "--restart", policy, "--network", "their"];
        suite.run(Cli::Tug, args.into_iter().chain(["busybox", "sh", "-c", ended])).ok();
    }
    let pid = |name: &str| suite.tug(["inspect", "-f", "{{.State.Pid}}", name]).ok();
    for signal in ["KILL", "TERM"] {
        let before = pid("ever");
        suite.end_daemon(signal);
        suite.start_daemon(FLAG);
        assert_eq!(state(suite, "once"), "exited 0", "{signal}");
        wait_for("the restart policy", Duration::from_secs(10), || {
            state(suite, "ever") == "running 0"
        });
        assert_ne!(pid("ever"), before, "{signal}: it is another run");
        suite.tug(["start", "once"]).ok();
    }
    suite.tug(["rm", "-f", "once", "ever"]).ok();
    suite.tug(["network", "rm", "their"]).ok();
    suite.end_daemon("KILL");
    suite.start_daemon(&[]);
    Outcome::Passed
}

/// What happened to a container and what it has, from the daemon's first word on until now.
fn told(suite: &Suite, since: &str) -> Vec<String> {
    let now = run(Command::new("date").arg("+%s.%N")).ok();
    let format = "{{.Type}} {{.Action}}";
    let args = ["events", "--since", since, "--until", &now, "--format", format];
    suite.run(Cli::Docker, args).ok().lines().map(str::to_owned).collect()
}

fn what_a_run_gives_up_is_told_before_its_stop(suite: &Suite) -> Outcome {
    for network in ["one", "two"] {
        suite.tug(["network", "create", network]).ok();
    }
    for cli in BOTH {
        let since = run(Command::new("date").arg("+%s.%N")).ok();
        let args = ["run", "-d", "--name", "box", "--network", "one", "-v", "kept:/kept"];
        suite.run(cli, args.into_iter().chain(["busybox", "sleep", "600"])).ok();
        suite.run(cli, ["network", "connect", "two", "box"]).ok();
        suite.run(cli, ["stop", "-t", "0", "box"]).ok();
        let all = told(suite, &since);
        let from = all.iter().position(|line| line == "network connect").unwrap();
        let want = [
            "network connect",
            "volume mount",
            "container start",
            "network connect",
            "container kill",
            "container kill",
            "container die",
            "network disconnect",
            "network disconnect",
            "volume unmount",
            "container stop",
        ];
        let got: Vec<&str> = all[from..].iter().map(String::as_str).collect();
        assert_eq!(got, want, "{cli:?} {all:?}");
        suite.run(cli, ["rm", "-f", "box"]).ok();
        suite.run(cli, ["volume", "rm", "kept"]).ok();
    }
    Outcome::Passed
}

fn probes_follow_their_times_and_say_what_they_said(suite: &Suite) -> Outcome {
    for policy in ["no", "always"] {
        let times =
            ["--health-interval", "10m", "--health-start-period", "10m", "--health-start-interval"];
        let args = ["run", "-d", "--name", "probed", "--restart", policy, "--health-cmd", "true"];
        suite
            .run(
                Cli::Docker,
                args.into_iter().chain(times).chain(["100ms", "busybox", "sleep", "600"]),
            )
            .ok();
        let health = || suite.tug(["inspect", "-f", "{{.State.Health.Status}}", "probed"]).ok();
        wait_for("the first probe", Duration::from_secs(20), || health() == "healthy");
        suite.tug(["stop", "-t", "0", "probed"]).ok();
        assert_eq!(health(), "unhealthy", "nobody probes any more");
        suite.tug(["rm", "-f", "probed"]).ok();
    }
    let args = ["run", "-d", "--name", "slow", "--health-cmd", "echo so far; sleep 60"];
    let times =
        ["--health-interval", "100ms", "--health-timeout", "250ms", "--health-retries", "1"];
    suite.run(Cli::Docker, args.into_iter().chain(times).chain(["busybox", "sleep", "600"])).ok();
    let log = || {
        let format = "{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}";
        suite.tug(["inspect", "-f", format, "slow"]).ok()
    };
    wait_for("a probe", Duration::from_secs(20), || !log().is_empty());
    assert!(log().starts_with("-1 Health check exceeded timeout (250ms): so far"), "{}", log());
    Outcome::Passed
}

fn stopping_follows_dockers_rules(suite: &Suite) -> Outcome {
    let deaf = "trap '' TERM; trap 'exit 9' USR1; while :; do sleep 0.1; done";
    for cli in BOTH {
        let run_deaf = || {
            suite.run(cli, ["run", "-d", "--name", "deaf", "busybox", "sh", "-c", deaf]).ok();
        };
        let gone = |want: &str| {
            assert_eq!(state(suite, "deaf"), want, "{cli:?}");
            suite.tug(["rm", "-f", "deaf"]).ok();
        };
        run_deaf();
        suite.run(cli, ["pause", "deaf"]).ok();
        suite.run(cli, ["stop", "-t", "1", "deaf"]).ok();
        gone("exited 137");
        run_deaf();
        suite.run(cli, ["stop", "--signal", "USR1", "deaf"]).ok();
        gone("exited 9");
        run_deaf();
        let mut patient = suite
            .command(cli)
            .args(["stop", "-t", "-1", "deaf"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(patient.try_wait().unwrap().is_none(), "it waits for ever");
        assert_eq!(state(suite, "deaf"), "running 0");
        // A daemon that takes over in the midst of it does not lose patience either.
        if cli == Cli::Tug {
            suite.end_daemon("KILL");
            suite.start_daemon(&[]);
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(state(suite, "deaf"), "running 0");
        }
        suite.run(cli, ["kill", "-s", "USR1", "deaf"]).ok();
        wait_for("the end", Duration::from_secs(10), || state(suite, "deaf") == "exited 9");
        patient.wait().unwrap();
        gone("exited 9");
    }
    Outcome::Passed
}

fn want_of_memory_is_told_where_nobody_may_be_killed(suite: &Suite) -> Outcome {
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Outcome::Ignored(
            "control groups of version 2 know no --oom-kill-disable".to_owned(),
        );
    }
    let since = run(Command::new("date").arg("+%s.%N")).ok();
    let script = "x=a; while :; do x=$x$x; done";
    let args = ["run", "-d", "--name", "greedy", "--oom-kill-disable", "-m", "16m"];
    suite
        .run(
            Cli::Docker,
            args.into_iter().chain(["--memory-swap", "16m", "busybox", "sh", "-c", script]),
        )
        .ok();
    wait_for("the event", Duration::from_secs(20), || {
        told(suite, &since).iter().any(|line| line == "container oom")
    });
    assert_eq!(state(suite, "greedy"), "running 0");
    suite.run(Cli::Docker, ["rm", "-f", "greedy"]).ok();
    Outcome::Passed
}
