//! COPY and ADD: layers written directly.

mod common;

use std::os::fd::AsFd;
use std::path::Path;

use common::{Scratch, privileged, sh};
use store::{Attrs, CopyOptions, LayerKey, Options, Store, UnpackLimits};

fn open(scratch: &Scratch) -> Store {
    Store::open(&scratch.path().join("root"), Options::default()).unwrap()
}

/// A layer of the directory `name`.
fn layer_of(store: &Store, lease: &store::Lease, scratch: &Scratch, name: &str) -> LayerKey {
    sh(scratch.path(), &format!("tar -C {name} -cf {name}.tar ."));
    let file = std::fs::File::open(scratch.path().join(format!("{name}.tar"))).unwrap();
    store.unpack(lease, file, &UnpackLimits::default(), None, &[]).unwrap().key
}

/// Runs `script` in the tree of `chain`.
#[track_caller]
fn in_tree(store: &Store, chain: &[LayerKey], script: &str) {
    let tree = store.mount_chain(chain).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&tree);
    sh(Path::new(&format!("/proc/{}/fd/{fd}", std::process::id())), script);
}

fn everything(_: &Path) -> bool {
    true
}

const PLAIN: CopyOptions<'static> =
    CopyOptions { owner: Some((0, 0)), mode: None, filter: &everything };

#[test]
fn a_tree_is_copied_through_the_images_links() {
    if !privileged("overlay mounts") {
        return;
    }
    let scratch = Scratch::new("copy");
    let store = open(&scratch);
    let lease = store.lease();
    sh(
        scratch.path(),
        "mkdir -p base/usr/lib base/srv; ln -s usr/lib base/lib; chmod 711 base/usr; chown 7:8 base/usr/lib;
         ln -s /srv base/usr/lib/data; echo old > base/srv/keep
         mkdir -p ctx/data/sub ctx/empty; echo one > ctx/one; ln ctx/one ctx/two; ln -s one ctx/link
         echo deep > ctx/data/sub/deep; echo no > ctx/data/skip; chown 33:44 ctx/one; chmod 4711 ctx/one",
    );
    let base = layer_of(&store, &lease, &scratch, "base");
    let context = sys::fs::open_dir(&scratch.path().join("ctx")).unwrap();
    let copy = || {
        let mut writer = store.layer_writer(&lease, &[base]).unwrap();
        assert_eq!(writer.resolve(Path::new("/lib/data/new/x")).unwrap(), Path::new("srv/new/x"));
        let filter = |path: &Path| path != Path::new("data/skip");
        let options = CopyOptions { filter: &filter, ..PLAIN };
        writer.copy_tree(context.as_fd(), Path::new("."), Path::new("/lib"), &options).unwrap();
        writer
            .copy_tree(context.as_fd(), Path::new("one"), Path::new("/new/dir/file"), &PLAIN)
            .unwrap();
        writer
            .mkdir_all(Path::new("/work/dir"), &Attrs { mode: 0o755, ..Attrs::default() })
            .unwrap();
        writer.remove(Path::new("/srv/keep")).unwrap();
        assert_eq!(writer.read_file(Path::new("/new/dir/file"), 100).unwrap().unwrap(), b"one\n");
        writer.finish().unwrap().unwrap()
    };
    let layer = copy();
    in_tree(
        &store,
        &[base, layer.key],
        "test -L lib; test $(stat -c %a.%u usr) = 711.0; test $(stat -c %u:%g usr/lib) = 7:8
         test $(stat -c %a.%u:%g usr/lib/one) = 4711.0:0; test usr/lib/one -ef usr/lib/two
         test -L usr/lib/data; grep -q deep srv/sub/deep; test ! -e srv/skip; test ! -e srv/keep
         test -d usr/lib/empty; test -d work/dir; cmp new/dir/file usr/lib/one",
    );
    assert_eq!(copy().key, layer.key, "the same copy makes the same layer");
    // What the recipe gives back is what was hashed, and means the same elsewhere.
    let other = Store::open(&scratch.path().join("other"), Options::default()).unwrap();
    let lease = other.lease();
    let tar = store.layer_tar(&layer.key).unwrap();
    let again = other.unpack(&lease, tar, &UnpackLimits::default(), None, &[]).unwrap();
    assert_eq!(again.key, layer.key);
}

#[test]
fn nothing_written_is_no_layer() {
    let scratch = Scratch::new("nothing");
    let store = open(&scratch);
    let lease = store.lease();
    let mut writer = store.layer_writer(&lease, &[]).unwrap();
    writer.mkdir_all(Path::new("/"), &Attrs::default()).unwrap();
    assert_eq!(writer.finish().unwrap(), None);
}

#[test]
fn an_added_archive_is_unpacked_in_place() {
    if !privileged("overlay mounts") {
        return;
    }
    let scratch = Scratch::new("add");
    let store = open(&scratch);
    let lease = store.lease();
    sh(
        scratch.path(),
        "mkdir -p base/opt/real; ln -s real base/opt/link; mkdir -p in/sub; echo x > in/sub/x;
        ln in/sub/x in/y; tar -C in -czf a.tgz sub y",
    );
    let base = layer_of(&store, &lease, &scratch, "base");
    let mut writer = store.layer_writer(&lease, &[base]).unwrap();
    let file = std::fs::File::open(scratch.path().join("a.tgz")).unwrap();
    writer.extract(file, Path::new("/opt/link"), None, &store::Attrs::default()).unwrap();
    let layer = writer.finish().unwrap().unwrap();
    in_tree(&store, &[base, layer.key], "test -L opt/link; test opt/real/sub/x -ef opt/real/y");
}

/// Not a check but a measurement: `cargo test -p store --release -- --ignored --nocapture speed`.
#[test]
#[ignore = "a measurement"]
fn speed_of_unpacking_and_copying() {
    let scratch = Scratch::new("speed");
    let store = open(&scratch);
    let lease = store.lease();
    sh(
        scratch.path(),
        "mkdir many big; cd many; for d in $(seq 100); do mkdir $d; for f in $(seq 100); do
           head -c 2000 /dev/urandom > $d/$f; done; done; cd ..
         tar -C / -cf big.tar --ignore-failed-read usr/lib/x86_64-linux-gnu usr/share 2>/dev/null || true
         head -c 200M big.tar > cut; ls -l big.tar; gzip -1 -k big.tar",
    );
    for name in ["big.tar", "big.tar.gz"] {
        let file = std::fs::File::open(scratch.path().join(name)).unwrap();
        let start = std::time::Instant::now();
        let layer =
            store.unpack(&store.lease(), file, &UnpackLimits::default(), None, &[]).unwrap();
        let took = start.elapsed();
        let rate = layer.tar_size as f64 / took.as_secs_f64() / 1e6;
        println!("{name}: {} MB plain in {took:?}: {rate:.0} MB/s", layer.tar_size / 1_000_000);
    }
    let context = sys::fs::open_dir(&scratch.path().join("many")).unwrap();
    let start = std::time::Instant::now();
    let mut writer = store.layer_writer(&lease, &[]).unwrap();
    writer.copy_tree(context.as_fd(), Path::new("."), Path::new("/app"), &PLAIN).unwrap();
    let layer = writer.finish().unwrap().unwrap();
    println!("10,000 files copied in {:?}", start.elapsed());
    let start = std::time::Instant::now();
    let copied =
        std::io::copy(&mut store.layer_tar(&layer.key).unwrap(), &mut std::io::sink()).unwrap();
    println!("their tar of {} MB given back in {:?}", copied / 1_000_000, start.elapsed());
}
