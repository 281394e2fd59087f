//! The processes that read strangers' archives: what they hold, what becomes of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::harness::{Cli, Outcome, Suite, shell, wait_for};

super::cases! {
    an_archive_is_read_by_a_process_that_can_do_nothing_else,
    an_unpacking_that_is_killed_leaves_nothing,
    a_daemon_that_is_killed_takes_its_unpackings_along,
    devices_whiteouts_and_capabilities_are_made_for_the_confined,
    an_archive_that_leads_out_is_refused_in_the_same_words,
}

/// An archive of one large file, in two halves.
fn archive(suite: &Suite) -> (Vec<u8>, Vec<u8>) {
    let directory = suite.scratch();
    let make = "head -c 3000000 /dev/zero > f && tar cf t f";
    shell(&format!("cd {directory:?} && {make}")).ok();
    let mut first = fs::read(directory.join("t")).unwrap();
    let second = first.split_off(first.len() / 2);
    (first, second)
}

/// An import of which the half has come.
fn half_an_import(suite: &Suite, half: &[u8]) -> Child {
    let mut command = suite.command(Cli::Tug);
    command.args(["import", "-", "half:1"]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut import = command.spawn().unwrap();
    import.stdin.as_mut().unwrap().write_all(half).unwrap();
    import
}

/// Numbers of the processes with this name.
fn named(name: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is = |number: &u32| {
        fs::read_to_string(format!("/proc/{number}/comm")).is_ok_and(|comm| comm.trim() == name)
    };
    numbers.filter(is).collect()
}

/// The process that has the half archive, once it has begun to write.
fn at_work(suite: &Suite) -> u32 {
    wait_for("a file to be unpacked", Duration::from_secs(20), || {
        shell(&format!("find {:?}/tmp -name f", suite.data_root())).ok() != ""
    });
    let found = named("tug-unpack-one");
    assert_eq!(found.len(), 1, "processes that unpack");
    found[0]
}

fn daemon(suite: &Suite) -> u32 {
    fs::read_to_string(suite.directory.join("tug.pid")).unwrap().trim().parse().unwrap()
}

/// Some lines of a process's status.
fn status(process: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let pair = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

fn namespace(process: u32, kind: &str) -> String {
    fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap().display().to_string()
}

/// What a process has open, the kinds of pipes and sockets without their numbers.
fn open_files(process: u32) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .map(|target| target.split(":[").next().unwrap().to_owned())
        .collect();
    found.sort();
    found
}

fn names_in(directory: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn check_status(process: u32, wanted: &[(&str, &str)]) {
    let found = status(process);
    for (name, want) in wanted {
        assert_eq!(found[*name], *want, "{name} of {process}");
    }
}

fn an_archive_is_read_by_a_process_that_can_do_nothing_else(suite: &Suite) -> Outcome {
    let (first, second) = archive(suite);
    let mut import = half_an_import(suite, &first);
    let (process, daemon) = (at_work(suite), daemon(suite));
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID; in a user namespace, so none in the host's.
    let capabilities = "000000000000001b";
    check_status(
        process,
        &[
            ("CapInh", "0000000000000000"),
            ("CapPrm", capabilities),
            ("CapEff", capabilities),
            ("CapBnd", capabilities),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ],
    );
    let server: u32 = status(process)["PPid"].parse().unwrap();
    check_status(server, &[("Name", "tug-unpack"), ("NoNewPrivs", "1")]);
    assert_eq!(status(server)["PPid"], daemon.to_string());
    for kind in ["user", "mnt", "net", "ipc", "uts", "cgroup", "pid"] {
        assert_ne!(namespace(process, kind), namespace(daemon, kind), "{kind}");
    }
    // No interface but a loopback that is down.
    let links = fs::read_to_string(format!("/proc/{process}/net/dev")).unwrap();
    assert_eq!(links.lines().count(), 3, "{links}");
    assert_eq!(names_in(&format!("/proc/{process}/root")), ["diff", "recipe"]);
    assert_eq!(names_in(&format!("/proc/{server}/root")), [""; 0]);
    for file in open_files(process) {
        let below = ["/dev/null", "pipe", "socket", "/", "/diff", "/diff/f", "/recipe"];
        assert!(below.contains(&file.as_str()), "{file} is open");
    }
    let null = "/dev/null";
    assert_eq!(open_files(server), [null, null, null, "socket", "socket", "anon_inode"].sorted());
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    for (limit, bound) in
        [("Max address space", "1073741824"), ("Max cpu time", "3600"), ("Max core file size", "0")]
    {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        assert!(line.contains(bound), "{line}");
    }
    let score = fs::read_to_string(format!("/proc/{process}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "1000");
    import.stdin.take().unwrap().write_all(&second).unwrap();
    assert!(import.wait().unwrap().success());
    assert_eq!(named("tug-unpack-one"), [0_u32; 0]);
    suite.tug(["rmi", "half:1"]).ok();
    Outcome::Passed
}

trait Sorted {
    fn sorted(self) -> Self;
}

impl<const N: usize> Sorted for [&str; N] {
    fn sorted(mut self) -> Self {
        self.sort_unstable();
        self
    }
}

/// Whether nothing of an unpacking lies in the data root.
fn nothing_left(suite: &Suite) -> bool {
    shell(&format!("find {:?}/tmp -type f", suite.data_root())).ok().is_empty()
}

fn an_unpacking_that_is_killed_leaves_nothing(suite: &Suite) -> Outcome {
    let (first, second) = archive(suite);
    let mut import = half_an_import(suite, &first);
    let process = at_work(suite);
    let server = status(process)["PPid"].clone();
    shell(&format!("kill -KILL {process}")).ok();
    // What is sent is not read any more, and the client may be told so before it has sent all.
    let _ = import.stdin.take().unwrap().write_all(&second);
    let ended = import.wait_with_output().unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("was killed by signal 9"), "{said}");
    wait_for("its files to go", Duration::from_secs(10), || nothing_left(suite));
    // The server that makes the processes comes again.
    shell(&format!("kill -KILL {server}")).ok();
    let whole = [first, second].concat();
    suite.run_with_input(Cli::Tug, ["import", "-", "whole:1"], &whole).ok();
    suite.tug(["rmi", "whole:1"]).ok();
    // Killed with its processes.
    let mut import = half_an_import(suite, &whole[..whole.len() / 2]);
    let server = status(at_work(suite))["PPid"].clone();
    shell(&format!("kill -KILL {server}")).ok();
    drop(import.stdin.take());
    assert!(!import.wait().unwrap().success());
    wait_for("its files to go", Duration::from_secs(10), || nothing_left(suite));
    suite.run_with_input(Cli::Tug, ["import", "-", "whole:1"], &whole).ok();
    suite.tug(["rmi", "whole:1"]).ok();
    Outcome::Passed
}

fn a_daemon_that_is_killed_takes_its_unpackings_along(suite: &Suite) -> Outcome {
    let (first, _) = archive(suite);
    let mut import = half_an_import(suite, &first);
    at_work(suite);
    suite.end_daemon("KILL");
    wait_for("the processes to end", Duration::from_secs(10), || {
        named("tug-unpack-one").is_empty() && named("tug-unpack").is_empty()
    });
    drop(import.stdin.take());
    import.wait().unwrap();
    suite.start_daemon(&[]);
    assert!(nothing_left(suite));
    Outcome::Passed
}

fn devices_whiteouts_and_capabilities_are_made_for_the_confined(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let script = "import tarfile, io
t = tarfile.open('t', 'w', format=tarfile.PAX_FORMAT)
def add(name, kind, mode=0o644, body=b'', attributes={}, **more):
    i = tarfile.TarInfo(name); i.type = kind; i.mode = mode; i.size = len(body)
    i.pax_headers = {'SCHILY.xattr.' + k: v for k, v in attributes.items()}
    for k, v in more.items(): setattr(i, k, v)
    t.addfile(i, io.BytesIO(body))
add('d', tarfile.DIRTYPE, 0o2775, uid=7, gid=8, attributes={'trusted.note': 'yes'})
add('d/.wh..wh..opq', tarfile.REGTYPE)
add('d/.wh.gone', tarfile.REGTYPE)
add('d/null', tarfile.CHRTYPE, 0o666, devmajor=1, devminor=3)
add('d/disk', tarfile.BLKTYPE, 0o660, uid=5, devmajor=7, devminor=0)
add('d/fifo', tarfile.FIFOTYPE, 0o622)
add('d/set', tarfile.REGTYPE, 0o4755, b'x', uid=9)
add('d/able', tarfile.REGTYPE, 0o755, b'y', attributes={'security.capability':
    b'\\x01\\0\\0\\x02\\0\\x20\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0'.decode('latin-1'), 'user.a': 'b'})
t.close()";
    fs::write(directory.join("make.py"), script).unwrap();
    shell(&format!("cd {directory:?} && python3 make.py")).ok();
    let tar = directory.join("t");
    suite.tug(["import", tar.to_str().unwrap(), "odd:1"]).ok();
    let format = "{{index .RootFS.Layers 0}}";
    let layer = suite.tug(["image", "inspect", "-f", format, "odd:1"]).ok();
    let hex = layer.trim().strip_prefix("sha256:").unwrap();
    assert_eq!(shell(&format!("sha256sum < {tar:?}")).ok().split(' ').next(), Some(hex));
    let tree = suite.data_root().join("layers").join(hex).join("diff");
    let listed = shell(&format!("cd {tree:?} && stat -c '%n %F %a %u:%g %t,%T' d d/*")).ok();
    let want = [
        "d directory 2775 7:8 0,0",
        "d/able regular file 755 0:0 0,0",
        "d/disk block special file 660 5:0 7,0",
        "d/fifo fifo 622 0:0 0,0",
        // Whose a mark is does not matter.
        "d/gone character special file 0 0:8 0,0",
        "d/null character special file 666 0:0 1,3",
        "d/set regular file 4755 9:0 0,0",
    ];
    assert_eq!(listed.trim().lines().collect::<Vec<_>>(), want);
    let attributes = |name: &str| {
        let names = "sorted((n, os.getxattr(p, n).hex()) for n in os.listxattr(p))";
        let look = format!("import os; p = {:?}; print({names})", tree.join(name));
        fs::write(directory.join("look.py"), look).unwrap();
        shell(&format!("python3 {:?}", directory.join("look.py"))).ok()
    };
    let able =
        "[('security.capability', '0100000200200000000000000000000000000000'), ('user.a', '62')]";
    assert_eq!(attributes("d/able"), able);
    let marked = "[('trusted.note', '796573'), ('trusted.overlay.opaque', '79')]";
    assert_eq!(attributes("d"), marked);
    // Out and in again, and by a copy into a container, which is another job.
    let saved = directory.join("saved");
    suite.tug(["save", "-o", saved.to_str().unwrap(), "odd:1"]).ok();
    suite.tug(["rmi", "odd:1"]).ok();
    suite.tug(["load", "-i", saved.to_str().unwrap()]).ok();
    assert_eq!((attributes("d/able"), attributes("d")), (able.to_owned(), marked.to_owned()));
    suite.tug(["create", "--name", "odd", "odd:1", "/x"]).ok();
    suite.run_with_input(Cli::Tug, ["cp", "-a", "-", "odd:/"], &fs::read(&tar).unwrap()).ok();
    let out = directory.join("out");
    suite.tug(["export", "-o", out.to_str().unwrap(), "odd"]).ok();
    let listed = shell(&format!("tar tvf {out:?} d/null d/disk d/set")).ok();
    assert!(listed.contains("crw-rw-rw-") && listed.contains("brw-rw----"), "{listed}");
    assert!(listed.contains("-rwsr-xr-x"), "{listed}");
    suite.tug(["rm", "odd"]).ok();
    suite.tug(["rmi", "odd:1"]).ok();
    Outcome::Passed
}

fn an_archive_that_leads_out_is_refused_in_the_same_words(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let script = "import tarfile, io
def make(name, *entries):
    t = tarfile.open(name, 'w')
    for path, kind, link in entries:
        i = tarfile.TarInfo(path); i.type = kind; i.linkname = link
        t.addfile(i)
    t.close()
make('up', ('../x', tarfile.REGTYPE, ''))
make('hard', ('x', tarfile.LNKTYPE, '../../../etc/passwd'))
make('link', ('x', tarfile.SYMTYPE, '/../../../..'), ('x/made-by-an-archive', tarfile.REGTYPE, ''))
i = tarfile.TarInfo('x'); i.type = b'L'; i.size = 2 << 20
open('long', 'wb').write(i.tobuf(tarfile.USTAR_FORMAT) + bytes(2 << 20))";
    fs::write(directory.join("make.py"), script).unwrap();
    shell(&format!("cd {directory:?} && python3 make.py")).ok();
    suite.tug(["create", "--name", "target", "busybox"]).ok();
    for (name, words) in [
        ("up", "invalid path \"../x\": it leads outside of the root"),
        ("hard", "invalid path \"../../../etc/passwd\": it leads outside of the root"),
        ("long", "archive/tar: extension header of 2097152 bytes is too long"),
    ] {
        let bytes = fs::read(directory.join(name)).unwrap();
        for outcome in [
            suite.run_with_input(Cli::Tug, ["import", "-", "x:1"], &bytes),
            suite.run_with_input(Cli::Tug, ["cp", "-", "target:/tmp"], &bytes),
        ] {
            let said = outcome.fails(1);
            assert!(said.contains(words), "{name}: {said}");
        }
    }
    let bytes = fs::read(directory.join("link")).unwrap();
    suite.run_with_input(Cli::Tug, ["cp", "-", "target:/tmp"], &bytes).ok();
    assert!(!Path::new("/made-by-an-archive").exists());
    assert!(suite.tug(["export", "target"]).ok().contains("made-by-an-archive"));
    suite.tug(["rm", "target"]).ok();
    Outcome::Passed
}
