//! Where a container begins: programs, users, namespaces, privileges, descriptors.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::harness::{BOTH, Cli, Outcome, Suite, shell, wait_for};

super::cases! {
    a_search_path_is_no_way_out,
    programs_that_cannot_run_have_dockers_codes,
    an_exec_is_in_the_containers_groups_and_has_its_own_terminal,
    a_host_network_leaves_the_name_to_the_container,
    privileges_do_not_drop_what_was_asked_for,
    namespaces_of_others_are_joined_only_when_they_may_be,
    either_runtime_gets_what_is_held_by_descriptor,
    settings_and_profiles_of_the_host_stay_its_own,
    no_process_inherits_what_is_anothers,
    another_runtime_has_a_terminal_below_a_long_path,
}

fn run(suite: &Suite, cli: Cli, args: &[&str]) -> crate::harness::Output {
    suite.run(cli, args)
}

/// A program that only the host has, reached from any descriptor that leads to it.
fn a_search_path_is_no_way_out(suite: &Suite) -> Outcome {
    let scratch = suite.scratch();
    let program = scratch.join("hostprogram");
    fs::write(&program, "#!/bin/sh\necho of the host\n").unwrap();
    shell(&format!("chmod 755 {program:?}")).ok();
    let up = "../".repeat(12);
    let place = |number| format!("/proc/self/fd/{number}/{up}{}", scratch.display());
    let path: Vec<String> = (3..40).map(place).collect();
    let path = format!("PATH={}", path.join(":"));
    let words = "\"hostprogram\": executable file not found in $PATH";
    for cli in BOTH {
        let said = run(suite, cli, &["run", "--rm", "-e", &path, "busybox", "hostprogram"]);
        assert!(said.fails(127).contains(words));
        let at = format!("/proc/self/fd/5/{up}{}/hostprogram", scratch.display());
        assert_ne!(run(suite, cli, &["run", "--rm", "busybox", &at]).code, 0);
    }
    suite.tug(["run", "-d", "--name", "way", "busybox", "sleep", "300"]).ok();
    for cli in BOTH {
        let said = run(suite, cli, &["exec", "-e", &path, "way", "hostprogram"]);
        assert_eq!(said.code, 127, "{said:?}");
        assert!(!said.stdout.contains("of the host"), "{said:?}");
    }
    Outcome::Passed
}

fn programs_that_cannot_run_have_dockers_codes(suite: &Suite) -> Outcome {
    let scratch = suite.scratch();
    let dockerfile = "FROM busybox\nRUN ln -s nowhere /dangling && ln -s loop /loop \
        && echo x > /noexec && echo 'no program' > /text && chmod 755 /text \
        && printf '#!/nowhere/sh\\n' > /lost && chmod 755 /lost && mkdir /bin/folder\n";
    fs::write(scratch.join("Dockerfile"), dockerfile).unwrap();
    suite.tug(["build", "-q", "-t", "kinds", scratch.to_str().unwrap()]).ok();
    suite.tug(["run", "-d", "--name", "kinds", "kinds", "sleep", "300"]).ok();
    for cli in BOTH {
        for (program, code, words) in [
            ("/etc", 126, "permission denied"),
            ("/noexec", 126, "permission denied"),
            ("/dangling", 127, "no such file or directory"),
            ("/nope", 127, "no such file or directory"),
            ("nope", 127, "executable file not found in $PATH"),
            ("folder", 127, "executable file not found in $PATH"),
            ("/loop", 125, "too many levels of symbolic links"),
            ("/text", 255, "exec format error"),
            ("/lost", 255, "no such file or directory"),
        ] {
            let said = run(suite, cli, &["run", "--rm", "kinds", program]).fails(code);
            assert!(said.contains(words), "{program}: {said}");
            let entry = ["run", "--rm", "--entrypoint", program, "kinds"];
            assert!(run(suite, cli, &entry).fails(code).contains(words), "{program}");
            if code < 128 {
                let said = run(suite, cli, &["exec", "kinds", program]);
                assert_eq!(said.code, if code == 125 { 128 } else { code }, "{program} {said:?}");
            }
        }
    }
    Outcome::Passed
}

fn an_exec_is_in_the_containers_groups_and_has_its_own_terminal(suite: &Suite) -> Outcome {
    let start = ["run", "-d", "-t", "--name", "many", "-u", "99:98", "--group-add", "1234"];
    let start = start.into_iter().chain(["--group-add", "wheel", "busybox", "sleep", "300"]);
    suite.run(Cli::Tug, start).ok();
    for cli in BOTH {
        let ask = |more: &[&str]| {
            let args: Vec<&str> = ["exec"].iter().chain(more).copied().collect();
            run(suite, cli, &args).ok().trim_end().to_owned()
        };
        assert_eq!(ask(&["many", "id", "-G"]), "98 10 1234");
        assert_eq!(ask(&["-u", "77:76", "many", "id", "-G"]), "76 10 1234");
        assert_eq!(ask(&["many", "sh", "-c", "echo ${TERM-none}"]), "none");
        assert_eq!(ask(&["-t", "many", "sh", "-c", "echo ${TERM-none}"]), "xterm");
        assert_eq!(ask(&["-e", "TERM=mine", "many", "sh", "-c", "echo $TERM"]), "mine");
    }
    Outcome::Passed
}

fn a_host_network_leaves_the_name_to_the_container(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let name = ["run", "--rm", "--net=host", "--hostname", "foobar", "--domainname", "far"];
        let script =
            ["busybox", "sh", "-c", "hostname; echo $HOSTNAME; cat /proc/sys/kernel/domainname"];
        let args: Vec<&str> = name.iter().chain(&script).copied().collect();
        assert_eq!(run(suite, cli, &args).ok(), "foobar\nfoobar\nfar");
        let own = ["run", "--rm", "--net=host", "busybox", "hostname"];
        assert_eq!(run(suite, cli, &own).ok(), shell("uname -n").ok());
        let both = ["run", "--rm", "--uts=host", "--hostname", "x", "busybox", "true"];
        let said = run(suite, cli, &both).fails(125);
        assert!(said.contains("conflicting options: hostname and the UTS mode"), "{said}");
    }
    Outcome::Passed
}

fn privileges_do_not_drop_what_was_asked_for(suite: &Suite) -> Outcome {
    let profile = suite.scratch().join("profile.json");
    // Without close_range, prctl, capset, setgroups and whatever else an engine does itself.
    let names = ["close_range", "capset", "setgroups", "openat2", "faccessat2", "fchdir", "umask"];
    let text = format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":{names:?},"action":"SCMP_ACT_ERRNO"}}]}}"#
    );
    fs::write(&profile, text).unwrap();
    let option = format!("seccomp={}", profile.display());
    let v1 = !Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    for cli in BOTH {
        let filter = ["busybox", "grep", "Seccomp:", "/proc/self/status"];
        let with = |more: &[&str]| {
            let head = ["run", "--rm", "--security-opt", option.as_str()];
            let args: Vec<&str> = head.iter().chain(more).chain(&filter).copied().collect();
            run(suite, cli, &args).ok()
        };
        assert_eq!(with(&["--privileged"]), "Seccomp:\t2");
        assert_eq!(with(&[]), "Seccomp:\t2");
        assert_eq!(with(&["-u", "1000", "--security-opt", "no-new-privileges"]), "Seccomp:\t2");
        let none =
            ["run", "--rm", "--privileged", "busybox", "grep", "Seccomp:", "/proc/self/status"];
        assert_eq!(run(suite, cli, &none).ok(), "Seccomp:\t0");
        let mode = |more: &[&str]| {
            let head = ["create", "--name", "mode", "--privileged"];
            let args: Vec<&str> = head.iter().chain(more).chain(&["busybox"]).copied().collect();
            let made = run(suite, cli, &args);
            let shown = suite.tug(["inspect", "-f", "{{.HostConfig.CgroupnsMode}}", "mode"]);
            suite.tug(["rm", "-f", "mode"]);
            (made, shown.stdout.trim().to_owned())
        };
        if v1 {
            assert_eq!(mode(&[]).1, "host");
            let refused = mode(&["--cgroupns", "private"]).0.stderr;
            assert!(refused.contains("incompatible with private cgroup namespaces"), "{refused}");
        } else {
            assert_eq!(mode(&[]).1, "private");
        }
    }
    suite
        .run(
            Cli::Tug,
            ["run", "-d", "--name", "held", "--security-opt", &option, "busybox", "sleep", "300"],
        )
        .ok();
    let shown = ["exec", "-u", "1000", "held", "grep", "Seccomp:", "/proc/self/status"];
    assert_eq!(run(suite, Cli::Tug, &shown).ok(), "Seccomp:\t2");
    Outcome::Passed
}

fn namespaces_of_others_are_joined_only_when_they_may_be(suite: &Suite) -> Outcome {
    suite.tug(["run", "-d", "--name", "donor", "busybox", "sleep", "300"]).ok();
    suite
        .tug(["run", "-d", "--name", "open", "--ipc", "shareable", "busybox", "sleep", "300"])
        .ok();
    suite.tug(["create", "--name", "stopped", "busybox"]).ok();
    let id = suite.tug(["inspect", "-f", "{{.Id}}", "stopped"]).ok();
    for cli in BOTH {
        let join = |flag: &str| run(suite, cli, &["run", "--rm", flag, "busybox", "true"]);
        join("--ipc=container:open").ok();
        join("--pid=container:donor").ok();
        let said = join("--ipc=container:donor").fails(125);
        assert!(
            said.contains("failed to join IPC namespace") && said.contains("non-shareable IPC"),
            "{said}"
        );
        for (flag, kind) in [("--pid=container:stopped", "PID"), ("--ipc=container:stopped", "IPC")]
        {
            let said = join(flag).fails(125);
            let words = format!("failed to join {kind} namespace: container {id} is not running");
            assert!(said.contains(&words), "{said}");
        }
        let said = join("--net=container:stopped").fails(125);
        let words = "cannot join network namespace of a non running container: container stopped is created";
        assert!(said.contains(words), "{said}");
    }
    let body = r#"{"Image":"busybox","HostConfig":{"PidMode":"container:stopped"}}"#;
    let (_, made) = suite.api("POST", "/containers/create?name=joiner", Some(body));
    assert!(made.contains("\"Id\""), "{made}");
    assert_eq!(suite.api("POST", "/containers/joiner/start", None).0, 500);
    Outcome::Passed
}

fn either_runtime_gets_what_is_held_by_descriptor(suite: &Suite) -> Outcome {
    let started = "mkdir -p /parts/one && echo kept > /parts/one/file && echo shared > /dev/shm/x && sleep 300";
    let donor = ["run", "-d", "--name", "donor", "--ipc", "shareable", "-v", "parts:/parts"];
    let program = ["busybox", "sh", "-c", started];
    run(suite, Cli::Tug, &[&donor[..], &program].concat()).ok();
    let look = "for kind in net ipc pid; do readlink /proc/self/ns/$kind; done";
    let theirs = suite.tug(["exec", "donor", "sh", "-c", look]).ok();
    let part = ["--mount", "type=volume,src=parts,dst=/part,volume-subpath=one"];
    let runtimes = match shell("command -v runc").code {
        0 => &["tug", "runc"][..],
        _ => &["tug"],
    };
    for runtime in runtimes {
        let joined = ["--net=container:donor", "--ipc=container:donor", "--pid=container:donor"];
        let look = format!("{look}; cat /part/file /dev/shm/x");
        let (start, program) =
            (["run", "--rm", "--runtime", runtime], ["busybox", "sh", "-c", look.as_str()]);
        let mine = run(suite, Cli::Tug, &[&start[..], &joined, &part, &program].concat());
        assert_eq!(mine.ok(), format!("{theirs}\nkept\nshared"), "{runtime}");
    }
    suite.tug(["rm", "-f", "donor"]).ok();
    suite.tug(["volume", "rm", "parts"]).ok();
    Outcome::Passed
}

fn settings_and_profiles_of_the_host_stay_its_own(suite: &Suite) -> Outcome {
    let pattern = || fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let before = pattern();
    let name = "net.//.kernel.core_pattern";
    for cli in BOTH {
        let sysctl = format!("{name}=tug-was-here");
        let said = run(suite, cli, &["run", "--rm", "--sysctl", &sysctl, "busybox", "true"]);
        assert!(said.fails(125).contains("is not allowed"));
        let good = ["run", "--rm", "--sysctl", "net.ipv4.ip_default_ttl=7", "busybox", "cat"];
        let args: Vec<&str> =
            good.iter().copied().chain(["/proc/sys/net/ipv4/ip_default_ttl"]).collect();
        assert_eq!(run(suite, cli, &args).ok(), "7");
        let profile = ["run", "--rm", "--security-opt", "apparmor=nosuch", "busybox", "true"];
        assert!(run(suite, cli, &profile).fails(125).contains("apparmor"));
        let none = ["run", "--rm", "--security-opt", "apparmor=unconfined", "busybox", "true"];
        run(suite, cli, &none).ok();
    }
    let body = format!(r#"{{"Image":"busybox","HostConfig":{{"Sysctls":{{"{name}":"x"}}}}}}"#);
    let (status, said) = suite.api("POST", "/containers/create", Some(&body));
    assert_eq!(status, 400, "{said}");
    assert_eq!(pattern(), before);
    let info = suite.tug(["info", "-f", "{{.SecurityOptions}}"]).ok();
    assert!(!info.contains("apparmor") && !info.contains("selinux"), "{info}");
    Outcome::Passed
}

/// What the descriptors of a process lead to.
fn descriptors(pid: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

fn monitors() -> Vec<String> {
    let is_monitor = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"monitor")
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.parse::<u32>().is_ok()).filter(is_monitor).collect()
}

/// A daemon that found thirty monitors again holds a connection to each; what it starts then must
/// hold none of them.
fn no_process_inherits_what_is_anothers(suite: &Suite) -> Outcome {
    let start = |name: &str, more: &[&str]| {
        let head = ["run", "-d", "--network", "none", "--init", "--name", name];
        let args = head.iter().chain(more).chain(&["busybox", "sleep", "300"]).copied();
        suite.run(Cli::Tug, args).ok();
    };
    start("lone", &[]);
    let lone = monitors();
    let few = lone.iter().map(|pid| descriptors(pid).len()).max().unwrap();
    (0..30).for_each(|number| start(&format!("many{number}"), &[]));
    suite.end_daemon("KILL");
    suite.start_daemon(&[]);
    let probe = "ls -l /proc/self/fd > /tmp/fds; touch /tmp/probed";
    start("late", &["--health-cmd", probe, "--health-interval", "200ms"]);
    for pid in monitors() {
        let found = descriptors(&pid);
        // Two for the daemon's new connection and its listener's backlog.
        assert!(found.len() <= few + 4, "{} descriptors, alone {few}: {found:?}", found.len());
    }
    let first = suite.tug(["inspect", "-f", "{{.State.Pid}}", "late"]).ok();
    // The init has a socket of its own for as long as it starts the program.
    wait_for("three descriptors", Duration::from_secs(10), || descriptors(&first).len() == 3);
    let seen = suite.tug(["exec", "late", "ls", "/proc/self/fd"]).ok();
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let below = suite.tug(["exec", "late", "sh", "-c", "ls /proc/[0-9]*/fd"]).ok();
    assert!(!below.lines().any(|line| line.len() > 1 && line.parse::<u32>().is_ok()), "{below}");
    let wait = "until [ -e /tmp/probed ]; do sleep 0.1; done; grep -c ' -> ' /tmp/fds";
    assert_eq!(suite.tug(["exec", "late", "sh", "-c", wait]).ok(), "3");
    Outcome::Passed
}

fn another_runtime_has_a_terminal_below_a_long_path(suite: &Suite) -> Outcome {
    if shell("command -v runc").code != 0 {
        return Outcome::Ignored("runc is not installed".to_owned());
    }
    let socket =
        suite.exec_root().join("containers").join("0".repeat(64)).join("external/console.sock");
    assert!(socket.as_os_str().len() > 107, "{socket:?}");
    let said = suite.tug(["run", "--rm", "-t", "--runtime", "runc", "busybox", "tty"]).ok();
    assert_eq!(said.trim_end(), "/dev/pts/0");
    suite.tug(["run", "-d", "--name", "far", "--runtime", "runc", "busybox", "sleep", "300"]).ok();
    assert_eq!(suite.tug(["exec", "-t", "far", "tty"]).ok().trim_end(), "/dev/pts/0");
    Outcome::Passed
}
