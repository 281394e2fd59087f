//! Layers: unpacking, giving the tar back, hostile archives, snapshots and commits.

mod common;

use std::io::Read;
use std::path::Path;

use common::{Scratch, privileged, sh};
use store::{ChangeKind, Layer, Options, Store, UnpackLimits};

fn open(scratch: &Scratch) -> Store {
    Store::open(&scratch.path().join("root"), Options::default()).unwrap()
}

fn diff_of(store: &Store, layer: &Layer) -> std::path::PathBuf {
    store.root().join("layers").join(layer.key.diff_id().hex()).join("diff")
}

/// Whom the unpacked tree is compared with.
#[derive(PartialEq)]
enum Oracle {
    GnuTar,
    /// GNU tar does not replace a directory by a file.
    None,
}

/// Unpacks `archive`, compares the tree with GNU tar's and the tar given back with the original.
#[track_caller]
fn check_round_trip(scratch: &Scratch, archive: &Path, oracle: Oracle) {
    let store = open(scratch);
    let lease = store.lease();
    let file = std::fs::File::open(archive).unwrap();
    let layer = store.unpack(&lease, file, &UnpackLimits::default(), None, &[]).unwrap();
    let theirs = scratch.path().join("theirs");
    std::fs::create_dir_all(&theirs).unwrap();
    if oracle == Oracle::GnuTar {
        let archive = archive.display();
        sh(&theirs, &format!("tar --xattrs --xattrs-include='*' --numeric-owner -xpf {archive}"));
        similar(&listing(&diff_of(&store, &layer)), &listing(&theirs));
    }
    let mut again = Vec::new();
    store.layer_tar(&layer.key).unwrap().read_to_end(&mut again).unwrap();
    assert_eq!(spec::Digest::of(&again), layer.key.diff_id().0);
    assert_eq!(again.len() as u64, layer.tar_size);
    drop(lease);
    store.settle();
    assert_eq!(std::fs::read_dir(store.root().join("layers")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(store.root().join("trash")).unwrap().count(), 0);
}

#[track_caller]
fn similar(ours: &str, theirs: &str) {
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
}

const SAMPLE: &str = "mkdir -p src/usr/bin src/etc src/var/empty src/tmp; chmod 1777 src/tmp;
    echo hello > src/etc/motd; ln src/etc/motd src/etc/motd.hard; ln -s ../etc/motd src/usr/link;
    head -c 300000 /dev/urandom > src/usr/bin/tool; chmod 4755 src/usr/bin/tool; chown 12:34 src/etc/motd;
    mkfifo src/var/fifo; mknod src/var/null c 1 3; touch -d '2001-02-03 04:05:06.789' src/usr/bin/tool;
    : > src/etc/empty; touch -h -d '1999-01-01' src/usr/link; touch -d '1960-01-01' src/var/empty;
    n=$(printf 'long%.0s' $(seq 40)); mkdir -p src/$n/$n; echo deep > src/$n/$n/file;
    mknod src/var/disk b 7 300; chmod 2770 src/var/empty; chown 2000000000:3000000000 src/usr/bin;
    ln src/usr/link src/usr/link.hard; ln src/etc/motd.hard src/var/motd; ln src/var/fifo src/etc/fifo;
    truncate -s 10M src/sparse; printf x | dd of=src/sparse bs=1 seek=5000000 conv=notrunc status=none;
    python3 -c 'import os;os.setxattr(\"src/etc/motd\",\"user.test\",b\"value\")'; touch -d '2010-10-10' src/var src/usr src/etc;";

#[test]
fn every_format_comes_out_as_gnu_tar_has_it_and_goes_back_bit_for_bit() {
    if !privileged("unpacking") {
        return;
    }
    for format in
        ["--format=gnu", "--format=posix --xattrs", "--format=gnu -S", "--format=posix -S"]
    {
        let scratch = Scratch::new("round");
        sh(scratch.path(), SAMPLE);
        sh(scratch.path(), &format!("tar {format} -C src -cf a.tar ."));
        check_round_trip(&scratch, &scratch.path().join("a.tar"), Oracle::GnuTar);
    }
}

#[test]
fn compressed_archives_are_told_by_their_content() {
    if !privileged("unpacking") {
        return;
    }
    for tool in ["gzip", "zstd -q", "bzip2", "xz"] {
        let name = tool.split(' ').next().unwrap();
        if std::process::Command::new(name).arg("--version").output().is_err() {
            println!("ignored: {name} is not installed");
            continue;
        }
        let scratch = Scratch::new("compressed");
        sh(scratch.path(), SAMPLE);
        sh(scratch.path(), &format!("tar -C src -c . | {tool} -c > a.tar"));
        check_round_trip(&scratch, &scratch.path().join("a.tar"), Oracle::GnuTar);
    }
}

#[test]
fn a_file_that_comes_twice_is_given_back_twice() {
    if !privileged("unpacking") {
        return;
    }
    let scratch = Scratch::new("twice");
    sh(
        scratch.path(),
        "mkdir -p d/sub; echo one > d/sub/f; echo 1 > x; tar -cf a.tar d x;
        echo two > d/sub/f; tar -rf a.tar d/sub/f; rm -r d; echo now a file > d; tar -rf a.tar d;
        ln -s elsewhere y; tar -rf a.tar y; rm y x; mkdir x; echo in > x/in; tar -rf a.tar x",
    );
    check_round_trip(&scratch, &scratch.path().join("a.tar"), Oracle::None);
}

/// A hostile archive is refused in these words and leaves nothing behind.
#[track_caller]
fn check_refused(make: &str, words: &str) {
    let scratch = Scratch::new("hostile");
    sh(scratch.path(), make);
    let store = open(&scratch);
    let lease = store.lease();
    let file = std::fs::File::open(scratch.path().join("a.tar")).unwrap();
    let error = store.unpack(&lease, file, &UnpackLimits::default(), None, &[]).unwrap_err();
    assert!(error.to_string().contains(words), "{error}");
    for dir in ["layers", "tmp"] {
        assert_eq!(std::fs::read_dir(store.root().join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[test]
fn an_archive_that_leads_out_is_refused() {
    check_refused(
        "echo x > f; tar -P --transform 's,f,../../evil,' -cf a.tar f",
        "leads outside of the root",
    );
}

#[test]
fn a_hard_link_that_leads_out_is_refused() {
    check_refused(
        "echo x > f; ln f g; tar -P --transform 's,^f,../../../etc/passwd,h' -cf a.tar g f",
        "leads outside of the root",
    );
}

#[test]
fn a_hard_link_to_nothing_is_refused() {
    check_refused("echo x > f; ln f g; tar --transform 's,^g,h,rH;s,^f,none,S' -cf b.tar f g;
        printf 'import tarfile\nt=tarfile.open(\"a.tar\",\"w\")\ni=tarfile.TarInfo(\"l\")\ni.type=tarfile.LNKTYPE\ni.linkname=\"/etc/hostname\"\nt.addfile(i)\nt.close()\n' > m.py; python3 m.py", "invalid hardlink");
}

#[test]
fn a_truncated_archive_is_refused() {
    check_refused(
        "head -c 100000 /dev/urandom > f; tar -cf b.tar f; head -c 50000 b.tar > a.tar",
        "unexpected EOF",
    );
}

#[test]
fn what_is_no_archive_is_refused() {
    check_refused("head -c 5000 /dev/urandom > a.tar", "invalid tar header");
}

#[test]
fn a_link_planted_by_the_archive_leads_nowhere() {
    if !privileged("unpacking") {
        return;
    }
    let scratch = Scratch::new("planted");
    sh(
        scratch.path(),
        "mkdir out; ln -s ../../../../../../../../../../../..$PWD/out evil; tar -cf a.tar evil; rm evil;
         mkdir evil; echo x > evil/f; tar -rf a.tar evil/f",
    );
    let store = open(&scratch);
    let lease = store.lease();
    let file = std::fs::File::open(scratch.path().join("a.tar")).unwrap();
    let layer = store.unpack(&lease, file, &UnpackLimits::default(), None, &[]).unwrap();
    let out = scratch.path().join("out");
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
    // The directory that the link means is one of the layer's own.
    let inside = diff_of(&store, &layer).join(out.strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(inside.join("f")).unwrap(), "x\n");
}

#[test]
fn the_end_may_be_missing_as_a_whole_but_not_in_part() {
    if !privileged("unpacking") {
        return;
    }
    let make = |end: usize| format!("echo x > f; tar -b1 -cf b.tar f; head -c {end} b.tar > a.tar");
    for whole in [1024, 1536, 2048] {
        let scratch = Scratch::new("end");
        sh(scratch.path(), &make(whole));
        check_round_trip(&scratch, &scratch.path().join("a.tar"), Oracle::None);
    }
    for cut in [1024 + 1, 1536 + 511] {
        check_refused(&make(cut), "unexpected EOF");
    }
    check_refused(
        "echo x > f; tar -cf b.tar f; (head -c 1536 b.tar; cat b.tar) > a.tar",
        "invalid tar header",
    );
}

#[test]
fn what_an_archive_says_of_its_own_directory_changes_no_root() {
    if !privileged("unpacking") {
        return;
    }
    for name in ["", "/", ".", "./", "./.", "a/.."] {
        let scratch = Scratch::new("root");
        let python = format!(
            "import tarfile; t=tarfile.open('a.tar','w',format=tarfile.PAX_FORMAT)
i=tarfile.TarInfo('x'); i.name='{name}'; i.type=tarfile.DIRTYPE; i.mode=0o2700; i.uid=7; i.gid=8; i.mtime=1
i.pax_headers={{'SCHILY.xattr.user.x':'y'}}
t.addfile(i); i=tarfile.TarInfo('f'); t.addfile(i); t.close()"
        );
        sh(scratch.path(), &format!("cat > m.py <<'END'\n{python}\nEND\npython3 m.py"));
        let store = open(&scratch);
        let lease = store.lease();
        let file = std::fs::File::open(scratch.path().join("a.tar")).unwrap();
        let layer = store.unpack(&lease, file, &UnpackLimits::default(), None, &[]).unwrap();
        let diff = diff_of(&store, &layer);
        check_plain_root(&diff);
        store.snapshot_create("c", &[layer.key]).unwrap();
        let tree = store.snapshot_mount("c").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&*tree);
        check_plain_root(Path::new(&format!("/proc/{}/fd/{fd}", std::process::id())));
        let mut again = Vec::new();
        store.layer_tar(&layer.key).unwrap().read_to_end(&mut again).unwrap();
        assert_eq!(spec::Digest::of(&again), layer.key.diff_id().0);
    }
}

/// A root as Docker makes it, with one file in it.
#[track_caller]
fn check_plain_root(root: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(root).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o755, 0, 0));
    assert!(found.mtime() > 1, "{}", found.mtime());
    assert!(root.join("f").exists());
    let mut names = Vec::with_capacity(1 << 10);
    rustix::fs::listxattr(root, rustix::buffer::spare_capacity(&mut names)).unwrap();
    assert!(!String::from_utf8_lossy(&names).contains("user."), "{names:?}");
}

/// Unpacks the tar made of the directory `name` as a layer.
fn layer_of(
    store: &Store,
    lease: &store::Lease,
    scratch: &Scratch,
    name: &str,
    parents: &[Layer],
) -> Layer {
    sh(scratch.path(), &format!("tar -C {name} -cf {name}.tar ."));
    let file = std::fs::File::open(scratch.path().join(format!("{name}.tar"))).unwrap();
    let parents: Vec<_> = parents.iter().map(|layer| layer.key).collect();
    store.unpack(lease, file, &UnpackLimits::default(), None, &parents).unwrap()
}

#[test]
fn a_container_is_changed_diffed_and_committed() {
    if !privileged("overlay mounts") {
        return;
    }
    let scratch = Scratch::new("commit");
    let store = open(&scratch);
    let lease = store.lease();
    sh(
        scratch.path(),
        "mkdir -p base/etc base/data/old; echo a > base/etc/a; echo b > base/etc/b; echo o > base/data/old/o",
    );
    let base = layer_of(&store, &lease, &scratch, "base", &[]);
    store.snapshot_create("c1", &[base.key]).unwrap();
    let mounted = store.snapshot_mount("c1").unwrap();
    let path =
        format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&*mounted));
    assert!(Path::new(&path).join("etc/hosts").exists(), "the init layer is in place");
    sh(
        Path::new(&path),
        "rm etc/a; echo B > etc/b; echo n > etc/new; rm -r data; mkdir -p data/fresh; ln etc/new etc/hard",
    );
    drop(mounted);
    let changes: Vec<String> = store
        .snapshot_changes("c1")
        .unwrap()
        .iter()
        .map(|change| {
            let letter = match change.kind {
                ChangeKind::Modified => 'C',
                ChangeKind::Added => 'A',
                ChangeKind::Deleted => 'D',
            };
            format!("{letter} {}", change.path.display())
        })
        .collect();
    let want =
        ["C /data", "A /data/fresh", "C /etc", "D /etc/a", "C /etc/b", "A /etc/hard", "A /etc/new"];
    assert_eq!(changes, want);
    assert_eq!(store.snapshot_size("c1").unwrap(), 4);
    let copied = store.commit_copy(&lease, "c1").unwrap().unwrap();
    let moved = store.commit_upper(&lease, "c1").unwrap().unwrap();
    assert_eq!(copied.key, moved.key, "both ways make the same layer");
    // The layer's tar, unpacked elsewhere, gives the same tree.
    let other = Store::open(&scratch.path().join("other"), Options::default()).unwrap();
    let other_lease = other.lease();
    let tar = store.layer_tar(&moved.key).unwrap();
    let again = other.unpack(&other_lease, tar, &UnpackLimits::default(), None, &[]).unwrap();
    assert_eq!(again.key, moved.key);
    let tree = store.mount_chain(&[base.key, moved.key]).unwrap();
    let path =
        format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&tree));
    sh(
        Path::new(&path),
        "test ! -e etc/a; grep -q B etc/b; test ! -e data/old; test -d data/fresh; cmp etc/new etc/hard",
    );
}

#[test]
fn a_directory_that_a_layer_only_uses_keeps_its_attributes() {
    if !privileged("unpacking") {
        return;
    }
    let scratch = Scratch::new("implied");
    let store = open(&scratch);
    let lease = store.lease();
    sh(scratch.path(), "mkdir -p base/tmp; chmod 1777 base/tmp; chown 5:6 base/tmp");
    let base = layer_of(&store, &lease, &scratch, "base", &[]);
    sh(scratch.path(), "mkdir tmp; echo x > tmp/x; tar -cf a.tar tmp/x");
    let file = std::fs::File::open(scratch.path().join("a.tar")).unwrap();
    let top = store.unpack(&lease, file, &UnpackLimits::default(), None, &[base.key]).unwrap();
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(diff_of(&store, &top).join("tmp")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o1777, 5, 6));
}

#[test]
fn a_second_daemon_is_kept_out() {
    let scratch = Scratch::new("lock");
    let _first = open(&scratch);
    let second = Store::open(&scratch.path().join("root"), Options::default());
    assert!(second.is_err_and(|error| error.to_string().contains("in use by another daemon")));
}

#[test]
fn what_a_crash_left_is_removed_and_what_is_used_is_kept() {
    if !privileged("unpacking") {
        return;
    }
    let scratch = Scratch::new("crash");
    let store = open(&scratch);
    let lease = store.lease();
    sh(scratch.path(), "mkdir -p used unused; echo 1 > used/f; echo 2 > unused/f");
    let used = layer_of(&store, &lease, &scratch, "used", &[]);
    let unused = layer_of(&store, &lease, &scratch, "unused", &[]);
    store.snapshot_create("c", &[used.key]).unwrap();
    std::fs::write(store.root().join("tmp/half"), "x").unwrap();
    // As after kill -9: nothing gets to say good-bye.
    std::mem::forget(lease);
    let root = store.root().to_owned();
    rustix::fs::rename(&root, scratch.path().join("root2")).unwrap();
    let again = Store::open(&scratch.path().join("root2"), Options::default());
    assert!(again.is_err(), "the lock is the file's, not the path's");
    std::fs::remove_file(scratch.path().join("root2/lock")).unwrap();
    let again = Store::open(&scratch.path().join("root2"), Options::default()).unwrap();
    assert!(again.has_layer(&used.key) && !again.has_layer(&unused.key));
    assert_eq!(std::fs::read_dir(again.root().join("tmp")).unwrap().count(), 0);
    again.snapshot_remove("c").unwrap();
    assert!(!again.has_layer(&used.key));
}

/// A description of a whole tree: names, kinds, modes, owners, times, links and contents' digests.
fn listing(dir: &Path) -> String {
    let script = "find . -mindepth 1 -printf '%y %m %U:%G %T@ %n %s %p -> %l\\n' | grep -v '^d' | LC_ALL=C sort;
        find . -mindepth 1 -type d -printf '%y %m %U:%G %T@ %p\\n' | LC_ALL=C sort;
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum;
        python3 -c 'import os
for d, ds, fs in sorted(os.walk(\".\")):
  for n in sorted(ds + fs):
    p = os.path.join(d, n)
    for x in os.listxattr(p, follow_symlinks=False):
      if not x.startswith(\"trusted.overlay\"): print(p, x, os.getxattr(p, x, follow_symlinks=False))'";
    let output =
        std::process::Command::new("sh").arg("-c").arg(script).current_dir(dir).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
