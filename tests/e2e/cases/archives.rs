//! Archives of strangers, and copies between containers and the host.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{BOTH, Cli, Outcome, Suite, shell};

super::cases! {
    a_small_archive_takes_little_memory,
    a_bomb_is_stopped_in_every_reader,
    a_deep_tree_of_a_containers_ends_nothing,
    the_root_is_roots_whatever_the_archive_says,
    an_archives_own_directory_changes_none_that_exists,
    a_running_container_is_copied_without_its_system_directories,
    an_export_mounts_nothing_twice,
    an_archive_copy_keeps_owners,
    a_copy_does_not_swap_files_and_directories,
    errors_of_copies_are_dockers,
    a_created_container_has_its_working_directory,
    managed_files_of_a_stopped_container_are_the_real_ones,
    read_only_volumes_stay_as_they_are,
    file_capabilities_travel,
    volumes_from_take_nothing_of_the_image,
    a_part_of_a_volume_is_filled_and_stays_inside,
    a_volume_of_its_own_file_system_is_one_for_all,
    an_archive_that_is_cut_is_no_add,
    what_is_no_image_is_told_so,
}

/// Runs Python, whose `tarfile` makes archives that no archiver would.
#[track_caller]
fn python(directory: &Path, script: &str) {
    let file = directory.join("make.py");
    fs::write(&file, format!("import io, tarfile, os\nos.chdir({directory:?})\n{script}\n"))
        .unwrap();
    shell(&format!("python3 {}", file.display())).ok();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// 421 KB of archive took 838 MB of daemon: a flood of extension headers, each below its bound.
fn a_small_archive_takes_little_memory(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    python(
        &directory,
        "import gzip
def block(kind, size):
    i = tarfile.TarInfo('x'); i.type = kind; i.size = size
    return i.tobuf(tarfile.USTAR_FORMAT)
zeros = bytes(1 << 20)
with gzip.open('flood', 'wb') as out:
    for _ in range(150): out.write(block(b'L', len(zeros)) + zeros)
with gzip.open('sparse', 'wb') as out:
    body = b'22 GNU.sparse.major=1\\n22 GNU.sparse.minor=0\\n29 GNU.sparse.realsize=99999\\n'
    out.write(block(b'x', len(body)) + body.ljust(512, b'\\0'))
    lines = b'250000\\n' + b'1\\n0\\n' * (24 << 20)
    out.write(block(b'0', len(lines)) + lines)",
    );
    for name in ["flood", "sparse"] {
        let archive = directory.join(name);
        assert!(fs::metadata(&archive).unwrap().len() < 1 << 20);
        suite.tug(["create", "--name", "target", "busybox"]).ok();
        suite.reset_daemon_peak();
        let before = suite.daemon_peak_kilobytes();
        let bytes = fs::read(&archive).unwrap();
        suite.run_with_input(Cli::Tug, ["import", "-", "bomb"], &bytes).fails(1);
        suite.run_with_input(Cli::Tug, ["load"], &bytes).fails(1);
        suite.run_with_input(Cli::Tug, ["cp", "-", "target:/tmp"], &bytes).fails(1);
        suite.run_with_input(Cli::Docker, ["build", "-"], &bytes).fails(1);
        fs::write(directory.join("Dockerfile"), format!("FROM busybox\nADD {name} /x/")).unwrap();
        // What is no archive is added as a file, in Docker too.
        suite.run(Cli::Docker, ["build", text(&directory)]);
        let grown = suite.daemon_peak_kilobytes().saturating_sub(before);
        assert!(grown < 96 << 10, "{name}: {grown} kB");
        suite.tug(["rm", "target"]).ok();
    }
    Outcome::Passed
}

fn a_bomb_is_stopped_in_every_reader(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    suite.end_daemon("KILL");
    suite.start_daemon(&["--max-unpacked-size", "16m"]);
    suite.tug(["create", "--name", "target", "busybox"]).ok();
    let make = "head -c 80M /dev/zero > zeros && tar -cf zeros.tar zeros && rm zeros";
    shell(&format!("cd {} && {make}", directory.display())).ok();
    for tool in ["gzip", "zstd -q", "bzip2", "xz -0"] {
        let make = format!("{tool} -c zeros.tar > bomb");
        shell(&format!("cd {} && {make}", directory.display())).ok();
        let bomb = fs::read(directory.join("bomb")).unwrap();
        let words = "swells beyond reason";
        let refused = |output: crate::harness::Output| {
            let said = format!("{}{}", output.stdout, output.stderr);
            assert!(output.code != 0 && said.contains(words), "{tool}: {output:?}");
        };
        refused(suite.run_with_input(Cli::Tug, ["import", "-", "bomb"], &bomb));
        refused(suite.run_with_input(Cli::Tug, ["load"], &bomb));
        refused(suite.run_with_input(Cli::Tug, ["cp", "-", "target:/tmp"], &bomb));
        refused(suite.run_with_input(Cli::Docker, ["build", "-"], &bomb));
        let context = directory.join("context");
        fs::create_dir_all(&context).unwrap();
        fs::copy(directory.join("bomb"), context.join("bomb")).unwrap();
        fs::write(context.join("Dockerfile"), "FROM busybox\nADD bomb /x/").unwrap();
        refused(suite.run(Cli::Docker, ["build", text(&context)]));
    }
    suite.tug(["rm", "target"]).ok();
    suite.end_daemon("KILL");
    suite.start_daemon(&[]);
    Outcome::Passed
}

/// Each level of a walk costs a descriptor and some stack.
fn a_deep_tree_of_a_containers_ends_nothing(suite: &Suite) -> Outcome {
    let script = "cd /tmp; p=$(printf 'd/%.0s' $(seq 100)); for i in $(seq 30); do mkdir -p $p; cd $p; done; echo made";
    assert_eq!(suite.tug(["run", "--name", "deep", "busybox", "sh", "-c", script]).ok(), "made");
    let out = suite.scratch().join("out");
    suite.tug(["export", "-o", text(&out), "deep"]);
    suite.tug(["diff", "deep"]);
    suite.tug(["commit", "deep", "deep"]);
    suite.tug(["ps", "-a", "-s"]);
    suite.tug(["cp", "deep:/tmp", text(&suite.scratch())]);
    assert_eq!(suite.tug(["inspect", "-f", "{{.State.Status}}", "deep"]).ok(), "exited");
    suite.tug(["rm", "-f", "deep"]).ok();
    suite.tug(["rmi", "-f", "deep"]);
    Outcome::Passed
}

/// A busybox whose own directory is private to somebody.
fn private_root(suite: &Suite, entry: &str) -> PathBuf {
    let directory = suite.scratch();
    let source = suite.image_tar("busybox");
    python(
        &directory,
        &format!(
            "out = tarfile.open('private.tar', 'w')
root = tarfile.TarInfo('x'); root.name = {entry:?}; root.type = tarfile.DIRTYPE
root.mode = 0o700; root.uid = 1234; root.gid = 1234; root.mtime = 1
out.addfile(root)
for member in (source := tarfile.open({source:?})):
    if member.name.strip('./'): out.addfile(member, source.extractfile(member) if member.isreg() else None)
out.addfile(root); out.close()"
        ),
    );
    directory.join("private.tar")
}

fn the_root_is_roots_whatever_the_archive_says(suite: &Suite) -> Outcome {
    let stat = ["stat", "-c", "%a %u:%g", "/"];
    let nobody = |image: &str| {
        let script = "stat -c '%a %u:%g' /; ls / > /dev/stderr";
        let output = suite.tug(["run", "--rm", "-u", "nobody", image, "sh", "-c", script]);
        assert_eq!(output.ok(), "755 0:0", "{image}");
    };
    for entry in ["./", "/", ".", "./."] {
        let tar = private_root(suite, entry);
        suite.tug(["import", "-c", "CMD [\"sh\"]", text(&tar), "private"]).ok();
        nobody("private");
        let context = tar.parent().unwrap();
        fs::write(
            context.join("Dockerfile"),
            "FROM scratch\nADD private.tar /\nRUN true\nCMD [\"sh\"]",
        )
        .unwrap();
        for cli in BOTH {
            suite.run(cli, ["build", "-t", "built", text(context)]).ok();
            nobody("built");
        }
        let saved = context.join("saved");
        suite.tug(["save", "-o", text(&saved), "private", "built"]).ok();
        suite.tug(["rmi", "private", "built"]).ok();
        suite.tug(["load", "-i", text(&saved)]).ok();
        nobody("private");
        nobody("built");
        suite.run(Cli::Tug, [&["run", "--rm", "private"], &stat[..]].concat()).ok();
        suite.tug(["rmi", "private", "built"]).ok();
    }
    Outcome::Passed
}

fn an_archives_own_directory_changes_none_that_exists(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let make = "mkdir d && chmod 700 d && chown 33:33 d && echo x > d/f && tar -C d -cf d.tar .";
    shell(&format!("cd {} && {make}", directory.display())).ok();
    let tar = fs::read(directory.join("d.tar")).unwrap();
    for cli in BOTH {
        suite.tug(["run", "-d", "--name", "box", "busybox", "sleep", "60"]).ok();
        suite.run_with_input(cli, ["cp", "-", "box:/tmp"], &tar).ok();
        suite.run(cli, ["cp", &format!("{}/d/.", directory.display()), "box:/bin"]).ok();
        let stat = ["exec", "box", "stat", "-c", "%a %u %n", "/tmp", "/bin", "/tmp/f", "/bin/f"];
        assert_eq!(
            suite.run(cli, stat).ok(),
            "1777 0 /tmp\n755 0 /bin\n644 0 /tmp/f\n644 0 /bin/f"
        );
        // One that is named gets what the archive says of it.
        suite.run(cli, ["exec", "box", "mkdir", "/tmp/d"]).ok();
        suite.run(cli, ["cp", text(&directory.join("d")), "box:/tmp"]).ok();
        assert_eq!(suite.run(cli, ["exec", "box", "stat", "-c", "%a", "/tmp/d"]).ok(), "700");
        suite.tug(["rm", "-f", "box"]).ok();
        fs::write(
            directory.join("Dockerfile"),
            "FROM busybox\nADD d.tar /tmp\nADD d.tar /bin\nADD d.tar /new\nCOPY d /usr/bin\n",
        )
        .unwrap();
        suite.run(cli, ["build", "-t", "added", text(&directory)]).ok();
        let stat =
            ["run", "--rm", "added", "stat", "-c", "%a %u", "/tmp", "/bin", "/new", "/usr/bin"];
        assert_eq!(suite.run(cli, stat).ok(), "1777 0\n755 0\n755 0\n755 0");
        suite.tug(["rmi", "added"]).ok();
    }
    Outcome::Passed
}

fn a_running_container_is_copied_without_its_system_directories(suite: &Suite) -> Outcome {
    let script = "mkfifo /tmp/fifo; ln -s nowhere /tmp/link; echo mine > /tmp/f; ln /tmp/f /tmp/g
        (while true; do head -c 100000 /dev/urandom > /tmp/grows; rm -f /tmp/grows; mkdir /tmp/grows && rmdir /tmp/grows; done) &
        (nc -lU /tmp/socket || nc -l -s local:/tmp/socket) 2> /dev/null & echo ready; sleep 60";
    for cli in BOTH {
        let id = suite
            .run(
                cli,
                [
                    "run",
                    "-d",
                    "-v",
                    "kept:/vol",
                    "--tmpfs",
                    "/quick",
                    "busybox",
                    "sh",
                    "-c",
                    script,
                ],
            )
            .ok();
        suite
            .tug(["exec", &id, "sh", "-c", "echo v > /vol/f; while ! [ -e /tmp/g ]; do :; done"])
            .ok();
        for place in ["/", "/."] {
            let to = suite.scratch();
            suite.run(cli, ["cp", &format!("{id}:{place}"), text(&to)]).ok();
            let names = |path: &str| {
                let mut names: Vec<_> = fs::read_dir(to.join(path))
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect();
                names.sort();
                names
            };
            assert!(names("proc").is_empty() && names("sys").is_empty(), "{place}");
            assert_eq!(fs::read_to_string(to.join("vol/f")).unwrap(), "v\n");
            assert_eq!(fs::read_to_string(to.join("tmp/g")).unwrap(), "mine\n");
            assert!(fs::read_to_string(to.join("etc/hosts")).unwrap().contains("localhost"));
            for path in ["root", "usr/bin", "tmp/fifo", "bin/busybox"] {
                assert!(to.join(path).symlink_metadata().is_ok(), "{place}: {path}");
            }
        }
        let listed = suite.scratch().join("tar");
        let program = suite.program(cli);
        shell(&format!(
            "DOCKER_HOST=unix://{} {} cp {id}:/ - > {}",
            suite.socket().display(),
            program.display(),
            listed.display()
        ))
        .ok();
        let names = shell(&format!("tar -tPf {}", listed.display())).ok();
        assert!(names.lines().all(|name| name.starts_with('/')), "{names}");
        assert!(
            names.lines().any(|name| name == "/tmp/f") && !names.contains("/proc/1"),
            "{names}"
        );
        suite.tug(["rm", "-f", &id]).ok();
        suite.tug(["volume", "rm", "kept"]).ok();
    }
    Outcome::Passed
}

fn an_export_mounts_nothing_twice(suite: &Suite) -> Outcome {
    let id = suite
        .tug(["run", "-d", "-v", "/vol", "busybox", "sh", "-c", "touch /vol/f /made; sleep 60"])
        .ok();
    suite.tug(["exec", &id, "sh", "-c", "while ! [ -e /made ]; do :; done"]).ok();
    let mark = format!("export {id}");
    let before = shell("dmesg | grep -c 'upperdir is in-use'").stdout;
    let out = suite.scratch().join("out");
    suite.tug(["export", "-o", text(&out), &id]).ok();
    let names = shell(&format!("tar -tf {}", out.display())).ok();
    assert!(names.lines().any(|name| name == "made"), "{mark}: {names}");
    assert!(
        !names.lines().any(|name| name.starts_with("vol/f") || name.starts_with("proc/1")),
        "{names}"
    );
    suite.tug(["cp", &format!("{id}:/made"), text(&suite.scratch())]).ok();
    assert_eq!(shell("dmesg | grep -c 'upperdir is in-use'").stdout, before);
    suite.tug(["rm", "-fv", &id]).ok();
    Outcome::Passed
}

fn an_archive_copy_keeps_owners(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let make = "mkdir d && echo x > d/f && chmod 700 d && chmod 400 d/f && chown 2:2 d && chown 65534:65534 d/f";
    shell(&format!("cd {} && {make}", directory.display())).ok();
    let from = directory.join("d");
    let stat = ["stat", "-c", "%u:%g %a", "/tmp/d", "/tmp/d/f"];
    for cli in BOTH {
        for (user, want) in [
            ("", "2:2 700\n65534:65534 400"),
            ("nobody", "65534:65534 700\n65534:65534 400"),
            ("33", "33:0 700\n33:0 400"),
            ("33:34", "33:34 700\n33:34 400"),
        ] {
            suite.tug(["run", "-d", "--name", "box", "-u", user, "busybox", "sleep", "60"]).ok();
            suite.run(cli, ["cp", "-a", text(&from), "box:/tmp"]).ok();
            let seen = suite.run(cli, [&["exec", "-u", "0", "box"], &stat[..]].concat()).ok();
            assert_eq!(seen, want, "{cli:?} {user}");
            suite.run(cli, ["exec", "-u", "0", "box", "rm", "-r", "/tmp/d"]).ok();
            suite.run(cli, ["cp", text(&from), "box:/tmp"]).ok();
            let seen = suite.run(cli, [&["exec", "-u", "0", "box"], &stat[..]].concat()).ok();
            assert_eq!(seen, "2:2 700\n65534:65534 400", "{cli:?} {user}");
            suite.tug(["rm", "-f", "box"]).ok();
        }
    }
    Outcome::Passed
}

fn a_copy_does_not_swap_files_and_directories(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    shell(&format!("cd {} && mkdir -p d/x && echo f > f && echo f > d/y", directory.display()))
        .ok();
    for cli in BOTH {
        suite
            .tug([
                "run",
                "-d",
                "--name",
                "box",
                "busybox",
                "sh",
                "-c",
                "mkdir -p /tmp/f /tmp/e/d/y; echo > /tmp/d; echo; sleep 60",
            ])
            .ok();
        suite.tug(["exec", "box", "sh", "-c", "while ! [ -s /tmp/d ]; do :; done"]).ok();
        let file = text(&directory.join("f")).to_owned();
        let said = suite.run(cli, ["cp", &file, "box:/tmp"]).fails(1);
        assert!(
            said.contains("cannot overwrite directory \"/tmp/f\" with non-directory \"/tmp\""),
            "{said}"
        );
        let said = suite.run(cli, ["cp", text(&directory.join("d")), "box:/tmp"]).fails(1);
        assert!(
            said.contains("cannot overwrite non-directory \"/tmp/d\" with directory \"/tmp\""),
            "{said}"
        );
        suite.tug(["rm", "-f", "box"]).ok();
    }
    Outcome::Passed
}

/// Both command lines say the same.
fn errors_of_copies_are_dockers(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    shell(&format!(
        "cd {} && mkdir d && echo f > f && ln -s f l && ln -s nowhere b",
        directory.display()
    ))
    .ok();
    let path = |name: &str| directory.join(name).display().to_string();
    suite.tug(["create", "--name", "box", "busybox"]).ok();
    let nosuch = path("nosuch/x");
    for [from, to] in [
        ["/nosuch", "box:/"],
        [&path("nosuch"), "box:/"],
        [&path("f/"), "box:/"],
        [&path("f/x"), "box:/"],
        [&path("f"), "box:/nosuch/x"],
        [&path("f"), "box:/nosuch/"],
        [&path("d"), "box:/bin/busybox"],
        [&path("f"), "box:/bin/busybox/"],
        [&path("f"), "gone:/"],
        [&path("f"), "box:"],
        ["box:/nosuch", &path("")],
        ["box:/bin/busybox/", &path("")],
        ["box:/bin", &path("f")],
        ["box:/bin/busybox", &nosuch],
        ["box:/bin/busybox", &path("f/")],
        ["box:/bin/busybox", &path("nosuch/")],
        ["box:/bin/busybox", &path("f/x")],
        ["gone:/x", &path("")],
        ["box:/a", "box:/b"],
        ["/a", "/b"],
        ["-", "box:/bin/busybox"],
        ["-", "box:/nosuch"],
    ] {
        let [ours, theirs] = BOTH.map(|cli| suite.run(cli, ["cp", from, to]));
        // Docker's client also logs that its archive was not wanted.
        let last = |output: &crate::harness::Output| {
            output.stderr.lines().last().unwrap_or_default().to_owned()
        };
        assert_eq!((ours.code, last(&ours)), (theirs.code, last(&theirs)), "cp {from} {to}");
        assert_ne!(ours.code, 0, "cp {from} {to}");
    }
    for args in [["-L", "l"], ["-q", "l"], ["-L", "f"]] {
        for cli in BOTH {
            let back = suite.scratch();
            suite.run(cli, ["cp", args[0], &path(args[1]), "box:/tmp"]).ok();
            suite.run(cli, ["cp", args[0], &format!("box:/tmp/{}", args[1]), text(&back)]).ok();
            let kind = fs::symlink_metadata(back.join(args[1])).unwrap().file_type();
            assert_eq!(kind.is_symlink(), args[0] == "-q", "{args:?}");
        }
    }
    let small = suite.scratch();
    shell(&format!("mount -t tmpfs -o size=100k small {}", small.display())).ok();
    for cli in BOTH {
        let said = suite.run(cli, ["cp", "box:/bin/busybox", text(&small)]).fails(1);
        assert!(said.contains("no space left on device"), "{said}");
    }
    shell(&format!("umount {}", small.display())).ok();
    suite.tug(["rm", "box"]).ok();
    Outcome::Passed
}

fn a_created_container_has_its_working_directory(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    fs::write(directory.join("f"), "in").unwrap();
    for cli in BOTH {
        suite
            .run(cli, ["create", "--name", "box", "-w", "/home/foo/bar", "busybox", "cat", "f"])
            .ok();
        suite.run(cli, ["cp", text(&directory.join("f")), "box:/home/foo/bar"]).ok();
        let back = suite.scratch();
        suite.run(cli, ["cp", "box:/home/foo/bar", text(&back)]).ok();
        assert_eq!(fs::read_to_string(back.join("bar/f")).unwrap(), "in");
        assert_eq!(suite.run(cli, ["start", "-a", "box"]).ok(), "in");
        suite.run(cli, ["rm", "box"]).ok();
        let said =
            suite.run(cli, ["create", "--name", "box", "-w", "/bin/busybox", "busybox"]).fails(1);
        assert!(said.contains("Cannot mkdir: /bin/busybox is not a directory"), "{said}");
    }
    Outcome::Passed
}

fn managed_files_of_a_stopped_container_are_the_real_ones(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite.run(cli, ["run", "--name", "box", "-h", "named", "busybox", "touch", "/made"]).ok();
        let to = suite.scratch();
        for (name, word) in
            [("hosts", "named"), ("hostname", "named"), ("resolv.conf", "nameserver")]
        {
            suite.run(cli, ["cp", &format!("box:/etc/{name}"), text(&to)]).ok();
            let seen = fs::read_to_string(to.join(name)).unwrap();
            assert!(
                seen.contains(word) || name == "resolv.conf" && !seen.is_empty(),
                "{name}: {seen}"
            );
        }
        assert_eq!(suite.run(cli, ["diff", "box"]).ok(), "A /made");
        suite.run(cli, ["rm", "box"]).ok();
    }
    Outcome::Passed
}

fn read_only_volumes_stay_as_they_are(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    shell(&format!(
        "cd {} && mkdir -p v host && echo x > v/f && tar -cf v.tar v && echo h > host/h",
        directory.display()
    ))
    .ok();
    let tar = fs::read(directory.join("v.tar")).unwrap();
    let bind = format!("{}:/host:ro", directory.join("host").display());
    for cli in BOTH {
        for start in [false, true] {
            suite
                .run(
                    cli,
                    [
                        "create",
                        "--name",
                        "box",
                        "-v",
                        "vol:/v:ro",
                        "-v",
                        &bind,
                        "busybox",
                        "sleep",
                        "60",
                    ],
                )
                .ok();
            if start {
                suite.run(cli, ["start", "box"]).ok();
            }
            for place in ["box:/v", "box:/host"] {
                let said = suite.run(cli, ["cp", text(&directory.join("v/f")), place]).fails(1);
                assert!(said.contains("mounted volume is marked read-only"), "{said}");
            }
            let said = suite.run_with_input(cli, ["cp", "-", "box:/"], &tar).fails(1);
            assert!(said.contains("read-only"), "{said}");
            let back = suite.scratch();
            suite.run(cli, ["cp", "box:/host/h", text(&back)]).ok();
            assert_eq!(fs::read_to_string(back.join("h")).unwrap(), "h\n");
            assert!(!directory.join("host/f").exists());
            suite.run(cli, ["rm", "-f", "box"]).ok();
            suite.run(cli, ["volume", "rm", "vol"]).ok();
        }
        suite.run(cli, ["create", "--name", "box", "--read-only", "-v", "vol:/v", "busybox"]).ok();
        let said = suite.run(cli, ["cp", text(&directory.join("v/f")), "box:/tmp"]).fails(1);
        assert!(said.contains("container rootfs is marked read-only"), "{said}");
        suite.run(cli, ["cp", text(&directory.join("v/f")), "box:/v"]).ok();
        suite.run(cli, ["rm", "box"]).ok();
        suite.run(cli, ["volume", "rm", "vol"]).ok();
    }
    Outcome::Passed
}

/// `cap_chown+ep`, of revision 2 and of revision 3 for user 1000.
fn build_with_capabilities(suite: &Suite) -> PathBuf {
    let directory = suite.scratch();
    let busybox = suite.image_tar("busybox");
    python(
        &directory,
        &format!(
            "import struct
source = tarfile.open({busybox:?})
program = next(m for m in source if m.name.endswith('bin/busybox'))
content = source.extractfile(program).read()
two = struct.pack('<IIIII', 0x02000001, 1, 0, 0, 0)
three = struct.pack('<IIIIII', 0x03000001, 1, 0, 0, 0, 1000)
out = tarfile.open('caps.tar', 'w', format=tarfile.PAX_FORMAT)
for name, value in [('two/busybox', two), ('three/busybox', three)]:
    i = tarfile.TarInfo(name); i.size = len(content); i.mode = 0o755
    i.pax_headers = {{'SCHILY.xattr.security.capability': value.decode('utf-8', 'surrogateescape'), 'SCHILY.xattr.user.note': 'kept'}}
    out.addfile(i, io.BytesIO(content))
out.close()"
        ),
    );
    fs::write(
        directory.join("Dockerfile"),
        "FROM busybox\nADD caps.tar /c/\nRUN cp /bin/busybox /plain",
    )
    .unwrap();
    suite.tug(["build", "-t", "caps", text(&directory)]).ok();
    directory
}

fn file_capabilities_travel(suite: &Suite) -> Outcome {
    let directory = build_with_capabilities(suite);
    let tools = suite.scratch();
    let attributes = |path: &Path| {
        let script = format!(
            "import os; print(*[os.getxattr({path:?}, n).hex() for n in ('security.capability',)])"
        );
        fs::write(tools.join("look.py"), script).unwrap();
        shell(&format!("python3 {}", tools.join("look.py").display())).ok()
    };
    let works = |image: &str| {
        let chown = "touch /tmp/f; /c/two/busybox chown 5:5 /tmp/f && stat -c %u /tmp/f";
        let seen = suite.tug(["run", "--rm", "-u", "nobody", image, "sh", "-c", chown]);
        assert_eq!(seen.ok(), "5", "{image}");
        suite.tug(["create", "--name", "look", image]).ok();
        let out = suite.scratch().join("tar");
        suite.tug(["export", "-o", text(&out), "look"]).ok();
        let to = suite.scratch();
        let clis = if image == "caps" { &BOTH[..] } else { &[Cli::Tug] };
        for &cli in clis {
            suite.run(cli, ["cp", "look:/c", text(&to)]).ok();
            let (two, three) = (to.join("c/two/busybox"), to.join("c/three/busybox"));
            assert_eq!(attributes(&two), "0100000201000000000000000000000000000000", "{image}");
            assert_eq!(
                attributes(&three),
                "0100000301000000000000000000000000000000e8030000",
                "{image}"
            );
            suite.run(cli, ["cp", text(&two), "look:/tmp/back"]).ok();
            let again = suite.scratch();
            suite.run(cli, ["cp", "look:/tmp/back", text(&again)]).ok();
            assert_eq!(attributes(&again.join("back")), attributes(&two));
        }
        suite.tug(["rm", "look"]).ok();
        out
    };
    let exported = works("caps");
    suite.tug(["import", "-c", "CMD [\"sh\"]", text(&exported), "imported"]).ok();
    works("imported");
    suite.tug(["run", "--name", "changed", "caps", "cp", "-a", "/c", "/d"]).ok();
    suite.tug(["commit", "changed", "committed"]).ok();
    works("committed");
    suite.tug(["rm", "changed"]).ok();
    let saved = directory.join("saved");
    suite.tug(["save", "-o", text(&saved), "committed"]).ok();
    suite.tug(["rmi", "committed", "caps", "imported"]).ok();
    suite.tug(["load", "-i", text(&saved)]).ok();
    works("committed");
    suite.tug(["rmi", "committed"]).ok();
    Outcome::Passed
}

fn volumes_from_take_nothing_of_the_image(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    fs::write(
        directory.join("Dockerfile"),
        "FROM busybox\nRUN mkdir -p /foo && echo image > /foo/bar",
    )
    .unwrap();
    suite.tug(["build", "-t", "with", text(&directory)]).ok();
    for cli in BOTH {
        suite.run(cli, ["create", "--name", "one", "-v", "first:/foo", "busybox"]).ok();
        suite.run(cli, ["create", "--name", "two", "-v", "second:/foo", "busybox"]).ok();
        suite.run(cli, ["run", "--rm", "-v", "second:/v", "busybox", "touch", "/v/second"]).ok();
        let run = ["run", "--rm", "--volumes-from", "one", "with", "ls", "/foo"];
        assert_eq!(suite.run(cli, run).ok(), "");
        let run =
            ["run", "--rm", "--volumes-from", "one", "--volumes-from", "two", "with", "ls", "/foo"];
        assert_eq!(suite.run(cli, run).ok(), "second");
        let run = ["run", "--rm", "-v", "copied:/foo:nocopy", "with", "ls", "/foo"];
        assert_eq!(suite.run(cli, run).ok(), "");
        suite.run(cli, ["rm", "one", "two"]).ok();
        suite.run(cli, ["volume", "rm", "first", "second", "copied"]).ok();
    }
    suite.tug(["rmi", "with"]).ok();
    Outcome::Passed
}

fn a_part_of_a_volume_is_filled_and_stays_inside(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let script = "mkdir -p /v/bin /v/sub /v/hack; echo world > /v/sub/hello; ln -s / /v/hack/root; ln -s ../sub /v/hack/good; ln -s root /v/hack/bad; echo foo > /v/file";
        suite.run(cli, ["run", "--rm", "-v", "parts:/v", "busybox", "sh", "-c", script]).ok();
        let run = |subpath: &str, target: &str, command: &[&str]| {
            let mount = format!("type=volume,src=parts,dst={target},volume-subpath={subpath}");
            suite.run(cli, [&["run", "--rm", "--mount", &mount, "busybox"], command].concat())
        };
        assert_eq!(run("bin", "/bin", &["ls", "/bin/busybox"]).ok(), "/bin/busybox");
        assert_eq!(run("hack/good", "/x", &["ls", "/x"]).ok(), "hello");
        assert_eq!(run("file", "/x", &["cat", "/x"]).ok(), "foo");
        for subpath in ["hack/root", "hack/bad"] {
            let said = run(subpath, "/x", &["ls", "/x"]);
            assert!(
                said.code != 0
                    && said.stderr.contains("path concatenation escapes the base directory"),
                "{said:?}"
            );
        }
        let said = run("none", "/x", &["ls", "/x"]);
        assert!(said.code != 0 && said.stderr.contains("cannot access path"), "{said:?}");
        suite.run(cli, ["volume", "rm", "parts"]).ok();
    }
    Outcome::Passed
}

fn a_volume_of_its_own_file_system_is_one_for_all(suite: &Suite) -> Outcome {
    let mounted =
        || shell("grep -c ' tmpfs .*size=2048k' /proc/self/mountinfo").stdout.trim().to_owned();
    for cli in BOTH {
        let options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m,mode=1777"];
        suite.run(cli, [&["volume", "create"], &options[..], &["shared"]].concat()).ok();
        let first = suite.run(cli, ["run", "-d", "-v", "shared:/s", "busybox", "sleep", "60"]).ok();
        suite.run(cli, ["exec", &first, "sh", "-c", "mkdir /s/sub; echo one > /s/sub/f"]).ok();
        let read = || {
            suite.run(cli, ["run", "--rm", "-v", "shared:/t", "busybox", "cat", "/t/sub/f"]).ok()
        };
        assert_eq!(read(), "one");
        assert_eq!(mounted(), "1");
        let part = "type=volume,src=shared,dst=/p,volume-subpath=sub";
        assert_eq!(
            suite.run(cli, ["run", "--rm", "--mount", part, "busybox", "cat", "/p/f"]).ok(),
            "one"
        );
        suite.run(cli, ["create", "--name", "waits", "-v", "shared:/w", "busybox"]).ok();
        let back = suite.scratch();
        suite.run(cli, ["cp", "waits:/w/sub/f", text(&back)]).ok();
        assert_eq!(fs::read_to_string(back.join("f")).unwrap(), "one\n");
        for signal in ["TERM", "KILL"] {
            suite.end_daemon(signal);
            suite.start_daemon(&[]);
            assert_eq!(read(), "one", "{signal}");
            assert_eq!(suite.run(cli, ["exec", &first, "cat", "/s/sub/f"]).ok(), "one", "{signal}");
        }
        suite.run(cli, ["rm", "-f", &first, "waits"]).ok();
        assert_eq!(mounted(), "0");
        let seen = suite.run(cli, ["run", "--rm", "-v", "shared:/t", "busybox", "ls", "/t"]).ok();
        assert_eq!(seen, "", "a tmpfs ends with its last user");
        // What a daemon that was killed left mounted is taken away by the next.
        let last = suite.run(cli, ["run", "-d", "-v", "shared:/s", "busybox", "sleep", "60"]).ok();
        let pid = suite.run(cli, ["inspect", "-f", "{{.State.Pid}}", &last]).ok();
        suite.end_daemon("KILL");
        shell(&format!("kill -9 {pid}")).ok();
        suite.start_daemon(&[]);
        crate::harness::wait_for("the unmount", std::time::Duration::from_secs(5), || {
            mounted() == "0"
        });
        suite.run(cli, ["rm", "-f", &last]).ok();
        suite.run(cli, ["volume", "rm", "shared"]).ok();
    }
    Outcome::Passed
}

fn an_archive_that_is_cut_is_no_add(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let make = "mkdir -p d && echo x > d/f && tar -b1 -cf whole.tar d && size=$(stat -c %s whole.tar) && head -c $((size - 1)) whole.tar > a.tar && head -c 1025 whole.tar > b.tar";
    shell(&format!("cd {} && {make}", directory.display())).ok();
    for cli in BOTH {
        for name in ["a.tar", "b.tar"] {
            fs::write(directory.join("Dockerfile"), format!("FROM busybox\nADD {name} /x/"))
                .unwrap();
            let said = suite.run(cli, ["build", text(&directory)]);
            assert!(said.code != 0, "{name}");
            assert!(
                format!("{}{}", said.stdout, said.stderr).contains("unexpected EOF"),
                "{said:?}"
            );
        }
    }
    Outcome::Passed
}

fn what_is_no_image_is_told_so(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    python(
        &directory,
        "import json, hashlib
def layout(name, config, config_type, layers, artifact=None):
    out = tarfile.open(name, 'w')
    def add(path, data):
        i = tarfile.TarInfo(path); i.size = len(data); out.addfile(i, io.BytesIO(data))
    def blob(data):
        digest = hashlib.sha256(data).hexdigest(); add('blobs/sha256/' + digest, data)
        return {'digest': 'sha256:' + digest, 'size': len(data)}
    layer = io.BytesIO(); t = tarfile.open(fileobj=layer, mode='w'); t.addfile(tarfile.TarInfo('f')); t.close()
    made = [dict(blob(layer.getvalue()), mediaType='application/vnd.oci.image.layer.v1.tar') for _ in range(layers)]
    manifest = {'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.manifest.v1+json',
                'config': dict(blob(config), mediaType=config_type), 'layers': made}
    if artifact: manifest['artifactType'] = artifact
    m = dict(blob(json.dumps(manifest).encode()), mediaType=manifest['mediaType'])
    add('oci-layout', b'{\"imageLayoutVersion\":\"1.0.0\"}')
    add('index.json', json.dumps({'schemaVersion': 2, 'manifests': [m]}).encode()); out.close()
image = 'application/vnd.oci.image.config.v1+json'
body = {'architecture': 'amd64', 'os': 'linux', 'rootfs': {'type': 'layers', 'diff_ids': []}, 'config': {}}
layout('few.tar', json.dumps(body).encode(), image, 1)
layout('long.tar', json.dumps(dict(body, author='x' * (5 << 20))).encode(), image, 0)
layout('longer.tar', json.dumps(dict(body, author='x' * (9 << 20))).encode(), image, 0)
layout('artifact.tar', b'{}', 'application/vnd.oci.empty.v1+json', 1, 'application/vnd.example.thing')",
    );
    for (name, words) in [
        ("few.tar", "invalid manifest, layers length mismatch: expected 1, got 0"),
        ("long.tar", "is too long for a document"),
        ("longer.tar", "is too long for a document"),
        ("artifact.tar", "is no image but an artifact of type \"application/vnd.example.thing\""),
    ] {
        for cli in BOTH {
            let said = suite.run(cli, ["load", "-i", text(&directory.join(name))]).fails(1);
            assert!(said.contains(words), "{name}: {said}");
        }
    }
    Outcome::Passed
}
