//! What a hostile image or container tries against the host: one case for each class of
//! escape that has been published against container engines.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{Cli, Outcome, Suite, shell};

super::cases! {
    system_directories_may_be_links_to_anywhere,
    mount_points_may_be_links_to_anywhere,
    no_descriptor_reaches_a_program,
    a_working_directory_is_no_way_out,
    the_engines_program_cannot_be_overwritten,
    hostile_user_files_hold_nothing_up,
    a_container_cannot_hold_up_its_own_end,
    copies_do_not_follow_links_that_are_swapped,
    limits_hold_for_execs_too,
    builds_stay_in_their_tree,
    a_long_list_of_ignored_files_is_refused,
    what_ended_before_a_crash_holds_no_address,
}

/// An image of busybox after `change`, a shell line run in its root.
fn image(suite: &Suite, name: &str, change: &str) {
    let scratch = suite.scratch();
    let (root, tar) = (scratch.join("root"), scratch.join("image.tar"));
    let busybox = suite.image_tar("busybox");
    let line = format!(
        "mkdir {root:?} && tar xf {busybox:?} -C {root:?} && (cd {root:?} && {change}) && tar cf {tar:?} -C {root:?} ."
    );
    shell(&line).ok();
    suite.tug(["import", "-c", "CMD [\"sh\"]", tar.to_str().unwrap(), name]).ok();
}

/// A directory of the host that must stay as it is, and a word to check that by.
fn bait(suite: &Suite) -> String {
    let directory = suite.scratch().join("bait");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("secret"), "of the host").unwrap();
    directory.to_str().unwrap().to_owned()
}

#[track_caller]
fn untouched(bait: &str) {
    let names: Vec<_> =
        fs::read_dir(bait).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["secret"], "the host's directory was written to");
    assert_eq!(fs::read_to_string(Path::new(bait).join("secret")).unwrap(), "of the host");
}

/// CVE-2021-30465, CVE-2019-19921, CVE-2026-41579: mounts of the engine go where the image's links
/// point to.
fn system_directories_may_be_links_to_anywhere(suite: &Suite) -> Outcome {
    let bait = bait(suite);
    for directory in ["dev", "proc", "sys", "etc"] {
        for target in
            [bait.clone(), format!("../../../../../../../..{bait}"), "/proc/self/root".to_owned()]
        {
            image(suite, "links", &format!("rm -rf {directory} && ln -s '{target}' {directory}"));
            let script = "test -c /dev/null && test -d /proc/1 && test -d /sys/fs && echo hacked >> /etc/hosts && echo ran";
            let output = suite.tug(["run", "--rm", "links", "sh", "-c", script]);
            // To refuse such an image is as good as to run it.
            assert!(
                output.code == 125 || output.stdout.trim() == "ran",
                "{directory} -> {target}: {output:?}"
            );
            untouched(&bait);
        }
    }
    let links = format!(
        "ln -sf {bait}/secret etc/hosts && ln -sf ../../../../../..{bait}/secret etc/resolv.conf"
    );
    image(suite, "links", &links);
    let words = suite.tug(["run", "--rm", "links", "cat", "/etc/hosts", "/etc/resolv.conf"]).ok();
    assert!(!words.contains("of the host"), "{words}");
    untouched(&bait);
    Outcome::Passed
}

fn mount_points_may_be_links_to_anywhere(suite: &Suite) -> Outcome {
    let bait = bait(suite);
    let change = format!(
        "ln -s {bait} absolute && ln -s ../../../../../..{bait} parents && ln -s /proc/self/root magic && ln -s loop loop"
    );
    image(suite, "links", &change);
    for place in
        ["/absolute", "/parents", "/magic", "/loop", "/absolute/x", "/parents/x", "/magic/x"]
    {
        for mount in [format!("type=volume,dst={place}"), format!("type=tmpfs,dst={place}")] {
            let script =
                format!("echo hacked > {place}/file && cat /absolute/secret /parents/secret");
            let output =
                suite.tug(["run", "--rm", "--mount", &mount, "links", "sh", "-c", &script]);
            assert!(!output.stdout.contains("of the host"), "{mount}: {output:?}");
            untouched(&bait);
        }
    }
    Outcome::Passed
}

/// CVE-2024-21626: a descriptor of the engine's that leads out of the container.
fn no_descriptor_reaches_a_program(suite: &Suite) -> Outcome {
    // Beside the three streams there is the directory that `ls` itself reads.
    let list = ["ls", "/proc/self/fd"];
    let id = suite.tug(["run", "-d", "busybox", "sleep", "60"]).ok();
    for start in [
        &["run", "--rm", "busybox"][..],
        &["run", "--rm", "-i", "busybox"],
        &["run", "--rm", "--init", "busybox"],
        &["run", "--rm", "-u", "1000", "busybox"],
        &["exec", &id],
        &["exec", "-i", &id],
    ] {
        let words = suite.run(Cli::Tug, start.iter().chain(&list)).ok();
        assert_eq!(words.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{start:?}");
    }
    // While it starts the program, the init holds a pipe that tells it whether that went well.
    let later = "sleep 0.2; ls /proc/1/fd";
    let first = suite.tug(["run", "--rm", "--init", "busybox", "sh", "-c", later]).ok();
    assert_eq!(first.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
    suite.tug(["rm", "-f", &id]).ok();
    Outcome::Passed
}

fn a_working_directory_is_no_way_out(suite: &Suite) -> Outcome {
    image(suite, "links", "ln -s /proc/self/fd/5 five && ln -s /proc/1/cwd cwd");
    let id = suite.tug(["run", "-d", "links", "sleep", "60"]).ok();
    let mut places: Vec<String> = (3..16).map(|number| format!("/proc/self/fd/{number}")).collect();
    places.extend(["/proc/1/cwd", "/proc/1/root", "/five", "/cwd"].map(str::to_owned));
    for place in &places {
        let script = "pwd; ls -di . /";
        for start in [&["run", "--rm", "-w", place, "links"][..], &["exec", "-w", place, &id]] {
            let output = suite.run(Cli::Tug, start.iter().chain(&["sh", "-c", script]));
            assert!(!output.stdout.contains("unreachable"), "{start:?}: {output:?}");
            if output.code == 0 {
                let inodes: Vec<&str> = output
                    .stdout
                    .lines()
                    .skip(1)
                    .filter_map(|line| line.split_whitespace().next())
                    .collect();
                assert!(inodes.first() == inodes.get(1), "{start:?}: {output:?}");
            }
        }
    }
    suite.tug(["rm", "-f", &id]).ok();
    Outcome::Passed
}

/// CVE-2019-5736: a program that is a link to the engine's own, and the init's file.
fn the_engines_program_cannot_be_overwritten(suite: &Suite) -> Outcome {
    let before = fs::metadata(crate::harness::tug()).unwrap();
    let script = "for exe in /proc/[0-9]*/exe /sbin/docker-init; do (echo hacked > $exe) 2>/dev/null && echo wrote $exe; done; true";
    let wrote = suite.tug(["run", "--rm", "--init", "busybox", "sh", "-c", script]).ok();
    assert!(!wrote.contains("docker-init") && !wrote.contains("/1/exe"), "{wrote}");
    image(suite, "itself", "ln -s /proc/self/exe engine");
    let itself = suite.tug(["run", "--rm", "itself", "/engine", "version"]);
    assert_ne!(itself.code, 0, "{itself:?}");
    let after = fs::metadata(crate::harness::tug()).unwrap();
    assert_eq!(
        (before.len(), before.modified().unwrap()),
        (after.len(), after.modified().unwrap())
    );
    Outcome::Passed
}

fn hostile_user_files_hold_nothing_up(suite: &Suite) -> Outcome {
    for trick in [
        "mkfifo etc/passwd",
        "mkdir etc/passwd",
        "ln -s /dev/zero etc/passwd",
        "ln -s /proc/self/mem etc/passwd",
        "truncate -s 64M etc/passwd",
        "head -c 100000 /dev/urandom > etc/passwd",
    ] {
        image(suite, "users", &format!("rm -f etc/passwd && {trick}"));
        let began = Instant::now();
        let unknown = suite.tug(["run", "--rm", "-u", "nosuch", "users", "true"]).fails(125);
        assert!(unknown.contains("unable to find user nosuch"), "{trick}: {unknown}");
        suite.tug(["run", "--rm", "users", "true"]).ok();
        assert!(began.elapsed() < Duration::from_secs(10), "{trick}");
        suite.tug(["rmi", "users"]).ok();
    }
    Outcome::Passed
}

/// Whoever may signal what enters the container can stop it half-way; the engine must go on.
fn a_container_cannot_hold_up_its_own_end(suite: &Suite) -> Outcome {
    let stopper = "while :; do for pid in /proc/[0-9]*; do pid=${pid#/proc/}; \
                   [ $pid = 1 ] || kill -STOP $pid 2>/dev/null; done; done";
    let id = suite.tug(["run", "-d", "busybox", "sh", "-c", stopper]).ok();
    let mut execs: Vec<_> = (0..4)
        .map(|_| {
            let mut command = suite.command(Cli::Tug);
            command
                .args(["exec", &id, "true"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.spawn().expect("the command line was built with this test")
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    suite.tug(["stop", "-t", "1", &id]).ok();
    suite.tug(["rm", &id]).ok();
    assert!(began.elapsed() < Duration::from_secs(8), "it took {:?}", began.elapsed());
    for exec in &mut execs {
        exec.wait().expect("it is our child");
    }
    Outcome::Passed
}

/// CVE-2018-15664: `cp` while the container swaps a directory for a link.
fn copies_do_not_follow_links_that_are_swapped(suite: &Suite) -> Outcome {
    let bait = bait(suite);
    let file = suite.scratch().join("evil");
    fs::write(&file, "evil").unwrap();
    let swap = format!(
        "mkdir -p /w && cd /w && while :; do mkdir d 2>/dev/null; echo inside > d/secret; rm -rf d; ln -s {bait} d; rm d; \
         ln -s ../../../../../../..{bait} d; rm d; done"
    );
    let id = suite.tug(["run", "-d", "busybox", "sh", "-c", &swap]).ok();
    let (source, target) = (file.to_str().unwrap(), format!("{id}:/w/d/evil"));
    let began = Instant::now();
    let mut inside = 0;
    // At least two seconds, and until a copy met the directory: on one core that takes its time.
    let enough =
        |inside: usize| began.elapsed() > Duration::from_secs(if inside > 0 { 2 } else { 60 });
    while !enough(inside) {
        suite.tug(["cp", source, &target]);
        let read = suite.tug(["cp", &format!("{id}:/w/d/secret"), "-"]);
        assert!(!read.stdout.contains("of the host"));
        inside += usize::from(read.stdout.contains("inside"));
    }
    assert!(inside > 0, "no copy met the directory");
    untouched(&bait);
    suite.tug(["rm", "-f", &id]).ok();
    Outcome::Passed
}

/// What is executed later is held as the first process is.
fn limits_hold_for_execs_too(suite: &Suite) -> Outcome {
    let run = ["run", "-d", "--ulimit", "nofile=100:200", "busybox", "sleep", "60"];
    let id = suite.tug(run).ok();
    let show = "grep -E '^(Cap|NoNewPrivs|Seccomp|Sig[BIC])' /proc/PID/status; grep -E 'open files|processes' /proc/PID/limits";
    let [first, later] = ["1", "self"]
        .map(|pid| suite.tug(["exec", &id, "sh", "-c", &show.replace("PID", pid)]).ok());
    assert_eq!(first, later);
    assert!(later.contains("Max open files            100                  200"), "{later}");
    suite.tug(["rm", "-f", &id]).ok();
    Outcome::Passed
}

/// CVE-2024-23651, CVE-2024-23652, CVE-2024-1753: destinations, sources and mount targets that are links.
fn builds_stay_in_their_tree(suite: &Suite) -> Outcome {
    let bait = bait(suite);
    let context = suite.scratch();
    fs::write(context.join("a"), "evil").unwrap();
    std::os::unix::fs::symlink(format!("{bait}/secret"), context.join("link")).unwrap();
    let links = format!(
        "FROM busybox AS links\nRUN ln -s {bait} /out && ln -s ../../../../../..{bait} /out2 && ln -s {bait}/secret /secret\n"
    );
    for (what, rest) in [
        ("destinations", "COPY a /out/a\nADD a /out2/a\nWORKDIR /out/made\nRUN touch /out/ran\n"),
        ("cache", "RUN --mount=type=cache,target=/out/cache touch /out/cache/x\n"),
        ("tmpfs", "RUN --mount=type=tmpfs,target=/out2/tmpfs touch /out2/tmpfs/x\n"),
        ("bind", "RUN --mount=type=bind,target=/out/bind cat /out/bind/a\n"),
        ("id", "RUN --mount=type=cache,id=../../../../..BAIT,target=/m touch /m/x\n"),
        ("from", "FROM busybox\nCOPY --from=links /secret /stolen\nRUN cat /stolen\n"),
        (
            "from-directory",
            "FROM busybox\nCOPY --from=links /out/secret /stolen\nRUN cat /stolen\n",
        ),
        ("source", "RUN --mount=type=bind,from=links,source=/out,target=/m cat /m/secret\n"),
        ("context", "COPY link /stolen\nRUN cat /stolen\n"),
    ] {
        let text = format!("{links}{}", rest.replace("BAIT", &bait));
        fs::write(context.join("Dockerfile"), text).unwrap();
        let output = suite.tug(["build", "-t", "attacked", context.to_str().unwrap()]);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(!said.contains("of the host"), "{what}: {said}");
        if ["destinations", "cache", "tmpfs", "bind", "id"].contains(&what) {
            assert_eq!(output.code, 0, "{what}: {said}");
        }
        untouched(&bait);
    }
    suite.tug(["builder", "prune", "-af"]).ok();
    Outcome::Passed
}

fn a_long_list_of_ignored_files_is_refused(suite: &Suite) -> Outcome {
    let context = suite.scratch();
    fs::write(context.join("Dockerfile"), "FROM busybox\nCOPY . /c\n").unwrap();
    fs::write(context.join(".dockerignore"), "**/a*b*c*d\n".repeat(200_000)).unwrap();
    let tar = suite.scratch().join("context.tar");
    shell(&format!("tar cf {tar:?} -C {context:?} .")).ok();
    let line = format!(
        "curl -s --max-time 20 -X POST -H 'Content-Type: application/x-tar' --data-binary @{} --unix-socket {} http://d/v1.47/build",
        tar.display(),
        suite.socket().display()
    );
    let said = shell(&line).ok();
    assert!(said.contains(".dockerignore is longer than"), "{said}");
    Outcome::Passed
}

/// An end is recorded before it is cleaned up after; a daemon that starts must not take it for a
/// running container's network.
fn what_ended_before_a_crash_holds_no_address(suite: &Suite) -> Outcome {
    suite.tug(["network", "create", "crash"]).ok();
    let id = suite.tug(["run", "-d", "--network", "crash", "busybox", "sleep", "60"]).ok();
    suite.tug(["kill", &id]).ok();
    suite.tug(["wait", &id]).ok();
    suite.end_daemon("KILL");
    suite.start_daemon(&[]);
    let members =
        suite.tug(["network", "inspect", "--format", "{{len .Containers}}", "crash"]).ok();
    assert_eq!(members, "0");
    suite.tug(["rm", &id]).ok();
    suite.tug(["network", "rm", "crash"]).ok();
    Outcome::Passed
}
