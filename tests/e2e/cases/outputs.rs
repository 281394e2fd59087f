//! Where a command writes: paths where something else than a regular file is, and terminals that
//! want no colours.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use crate::harness::{BOTH, Cli, Outcome, Output, Suite, run, shell};

super::cases! {
    outputs_replace_regular_files_only,
    reports_of_a_build_replace_regular_files_only,
    what_is_unpacked_takes_no_devices_place,
    terminals_are_sent_no_more_than_they_want,
}

/// Everything that a path can lead to, made anew. The devices are those that swallow and refuse
/// writes, and a disk that does not exist.
fn special_files(at: &Path) {
    fs::create_dir_all(at.join("dir")).unwrap();
    fs::write(at.join("file"), "old").unwrap();
    shell(&format!(
        "cd {} && mknod null c 1 3 && mknod full c 1 7 && mknod disk b 7 99 && mkfifo fifo && \
         ln -s file link && ln -s null device-link && ln -s absent dangling && ln -s dir dir-link && \
         chmod 644 file",
        at.display()
    ))
    .ok();
    drop(std::os::unix::net::UnixListener::bind(at.join("socket")).unwrap());
}

/// Name, kind, device number and length of all that is there.
fn listing(at: &Path) -> Vec<String> {
    let mut lines: Vec<String> = fs::read_dir(at)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let found = entry.path().symlink_metadata().unwrap();
            let kind = found.file_type();
            let length = if kind.is_dir() { 0 } else { found.len() };
            format!("{:?} {kind:?} {} {length}", entry.file_name(), found.rdev())
        })
        .collect();
    lines.sort();
    lines
}

/// Ended after a while: whoever opens a fifo waits for its reader.
fn in_directory(suite: &Suite, cli: Cli, at: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg("10").arg(suite.program(cli)).args(args).current_dir(at);
    for (name, value) in suite.command(cli).get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    run(command.stdin(std::process::Stdio::null()))
}

const PATHS: [&str; 13] = [
    "null",
    "full",
    "disk",
    "fifo",
    "socket",
    "file",
    "link",
    "device-link",
    "dangling",
    "dir/",
    "dir-link",
    "file/x",
    "absent/x",
];

/// Docker's client is the one to compare with, but for `cp` onto a fifo or a socket, which it
/// replaces.
fn outputs_replace_regular_files_only(suite: &Suite) -> Outcome {
    suite.tug(["create", "--name", "source", "busybox", "true"]).ok();
    for args in [
        ["save", "busybox", "-o"].as_slice(),
        &["export", "source", "-o"],
        &["cp", "-q", "source:/etc/passwd"],
        &["cp", "-q", "source:/etc"],
        &["context", "export", "default"],
    ] {
        for path in PATHS {
            let [own, dockers] = BOTH.map(|cli| {
                let at = suite.scratch();
                special_files(&at);
                let before = listing(&at);
                let output = in_directory(suite, cli, &at, &[args, &[path]].concat());
                let after = listing(&at);
                let name = at.file_name().unwrap().to_str().unwrap();
                let said = output.stderr.replace(name, "scratch");
                let mode = fs::metadata(at.join("file")).unwrap().permissions().mode();
                fs::remove_dir_all(&at).unwrap();
                (before, (output.code, said, after, mode))
            });
            if args[0] == "cp" && ["fifo", "socket"].contains(&path) {
                let (before, (code, said, after, _)) = own;
                assert_eq!((code, after), (1, before), "{path}");
                let must = "must be a directory or a regular file: got an irregular file";
                assert!(said.contains(must), "{said}");
            } else {
                assert_eq!(own.1, dockers.1, "{args:?} {path}");
            }
        }
    }
    suite.tug(["rm", "source"]).ok();
    Outcome::Passed
}

fn reports_of_a_build_replace_regular_files_only(suite: &Suite) -> Outcome {
    let at = suite.scratch();
    special_files(&at);
    fs::write(at.join("dir/Dockerfile"), "FROM busybox\n").unwrap();
    let before = listing(&at);
    let build = |option: &[&str]| {
        let args = [&["build", "-q"], option, &["dir"]].concat();
        in_directory(suite, Cli::Tug, &at, &args)
    };
    for (path, words) in [
        ("null", "a character device file"),
        ("disk", "a block device file"),
        ("fifo", "a named pipe (FIFO)"),
        ("socket", "a socket"),
        ("link", "a symbolic link directly"),
        ("dir", "a directory"),
    ] {
        let said = build(&["--metadata-file", path]).fails(1);
        assert!(said.contains(&format!("cannot write to {words}")), "{said}");
    }
    // These are written into.
    build(&["--iidfile", "null"]).ok();
    build(&["-o", "type=tar,dest=null"]).ok();
    build(&["-o", "type=docker,dest=null"]).ok();
    let said = build(&["--iidfile", "full"]).fails(1);
    assert!(said.contains("no space left on device"), "{said}");
    let said = build(&["-o", "type=tar,dest=full"]).fails(1);
    assert!(said.contains("write full: no space left on device"), "{said}");
    for option in [["--iidfile", "dir"], ["-o", "type=tar,dest=dir"], ["-o", "null"]] {
        build(&option).fails(1);
    }
    for path in ["null", "full", "disk", "fifo", "socket", "dir", "file", "device-link"] {
        let args = ["create", "--cidfile", path, "busybox"];
        let [own, dockers] = BOTH.map(|cli| in_directory(suite, cli, &at, &args).fails(1));
        assert_eq!(own, dockers, "{path}");
        assert!(own.contains("container ID file found"), "{own}");
    }
    assert_eq!(listing(&at), before);
    // A link is no place to write through, and what an earlier build wrote does not outlive a failure.
    let id = build(&["--iidfile", "link"]).ok();
    assert_eq!(fs::read_to_string(at.join("link")).unwrap(), id);
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "old");
    fs::write(at.join("dir/Dockerfile"), "FROM busybox\nRUN false\n").unwrap();
    build(&["--iidfile", "link"]).fails(1);
    assert!(!at.join("link").exists());
    // The client's own configuration.
    let config = at.join("config");
    fs::create_dir_all(&config).unwrap();
    std::os::unix::fs::symlink("../null", config.join("config.json")).unwrap();
    let mut command = suite.command(Cli::Tug);
    command.env("DOCKER_CONFIG", &config).args(["context", "use", "default"]);
    run(&mut command);
    assert!(fs::metadata(at.join("null")).unwrap().file_type().is_char_device());
    Outcome::Passed
}

fn what_is_unpacked_takes_no_devices_place(suite: &Suite) -> Outcome {
    let at = suite.scratch();
    special_files(&at);
    fs::create_dir_all(at.join("into")).unwrap();
    shell(&format!("mknod {}/into/passwd c 1 3", at.display())).ok();
    suite.tug(["create", "--name", "source", "busybox", "true"]).ok();
    for args in [["cp", "source:/etc/.", "into"], ["cp", "source:/etc/passwd", "into"]] {
        let said = in_directory(suite, Cli::Tug, &at, &args).fails(1);
        assert!(said.contains("cannot overwrite device"), "{said}");
    }
    fs::write(at.join("dir/Dockerfile"), "FROM scratch\nCOPY Dockerfile /passwd\n").unwrap();
    let args = ["build", "-q", "-o", "into", "dir"];
    let said = in_directory(suite, Cli::Tug, &at, &args).fails(1);
    assert!(said.contains("cannot overwrite device"), "{said}");
    let found = fs::metadata(at.join("into/passwd")).unwrap();
    assert!(found.file_type().is_char_device() && found.rdev() == (1 << 8 | 3));
    suite.tug(["rm", "source"]).ok();
    Outcome::Passed
}

/// Commands on a terminal whose environment asks for less than all.
fn terminals_are_sent_no_more_than_they_want(suite: &Suite) -> Outcome {
    if shell("command -v script").code != 0 {
        return Outcome::Ignored("script is not installed".to_owned());
    }
    let at = suite.scratch();
    fs::write(at.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    let (directory, archive) = (at.to_str().unwrap(), at.join("image.tar"));
    suite.tug(["build", "-q", "-t", "outputs:1", directory]).ok();
    suite.tug(["save", "-o", archive.to_str().unwrap(), "outputs:1"]).ok();
    let seen = |environment: &[(&str, &str)], line: &str| {
        let line = format!("{} {line}", suite.own_docker().display());
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]);
        for (name, value) in suite.command(Cli::Tug).get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("TERM", "xterm").env_remove("NO_COLOR").envs(environment.iter().copied());
        run(command.stdin(std::process::Stdio::null())).ok()
    };
    let moves = |text: &str| text.contains('\x1b');
    for (environment, expected) in
        [(("NO_COLOR", ""), true), (("NO_COLOR", "1"), true), (("TERM", "dumb"), false)]
    {
        suite.tug(["rmi", "outputs:1"]).ok();
        let text = seen(&[environment], &format!("load -i {}", archive.display()));
        assert!(text.contains("Loaded image: outputs:1"), "{text}");
        assert_eq!(moves(&text), expected, "{environment:?}: {text:?}");
    }
    assert!(seen(&[], "images --tree").contains("\x1b[34m"));
    assert!(seen(&[("NO_COLOR", "")], "images --tree").contains("\x1b[34m"));
    assert!(!moves(&seen(&[("NO_COLOR", "1")], "images --tree")));
    assert!(!moves(&seen(&[("TERM", "dumb")], "images --tree")));
    Outcome::Passed
}
