//! Images: names, saving and loading, what goes when the last user goes. Volumes.

mod common;

use std::io::Read;
use std::path::Path;

use common::{Scratch, privileged, sh};
use spec::{ImageId, Reference};
use store::{LoadedImage, Options, SaveItem, Store, UnpackLimits, VolumeSpec};

fn open(scratch: &Scratch, name: &str) -> Store {
    Store::open(&scratch.path().join(name), Options::default()).unwrap()
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// An image of one layer for each of `files`, each layer holding that file.
fn image_of(store: &Store, scratch: &Scratch, files: &[&str]) -> ImageId {
    let lease = store.lease();
    let mut diff_ids = Vec::new();
    for file in files {
        sh(
            scratch.path(),
            &format!(
                "mkdir -p l; echo {file} > l/{file}; tar --mtime=@0 -C l -cf l.tar {file}; rm -r l"
            ),
        );
        let tar = std::fs::File::open(scratch.path().join("l.tar")).unwrap();
        let layer = store.unpack(&lease, tar, &UnpackLimits::default(), None, &[]).unwrap();
        diff_ids.push(layer.key.diff_id().to_string());
    }
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["true"]}},"rootfs":{{"type":"layers","diff_ids":{diff_ids:?}}}}}"#
    );
    store.image_create(config.as_bytes(), None, &lease).unwrap()
}

#[test]
fn saved_images_are_loaded_as_they_were() {
    if !privileged("unpacking") {
        return;
    }
    let scratch = Scratch::new("save");
    let store = open(&scratch, "a");
    let (one, two) =
        (image_of(&store, &scratch, &["x", "y"]), image_of(&store, &scratch, &["x", "z"]));
    let items = [
        SaveItem { image: one, names: vec![reference("app:1"), reference("app:2")] },
        SaveItem { image: two, names: Vec::new() },
    ];
    let mut saved = Vec::new();
    store.image_save(&items).unwrap().read_to_end(&mut saved).unwrap();
    std::fs::write(scratch.path().join("saved.tar"), &saved).unwrap();
    let shared = "test $(tar -tf saved.tar | grep -c blobs/sha256/.) = 7; tar -xOf saved.tar oci-layout | grep -q 1.0.0";
    sh(scratch.path(), shared);
    let want = [
        LoadedImage { id: one, names: vec![reference("app:1"), reference("app:2")] },
        LoadedImage { id: two, names: Vec::new() },
    ];
    for (name, remake) in [
        ("whole", "cp saved.tar again"),
        ("gzip", "gzip -c saved.tar > again"),
        ("layout", "mkdir d; tar -C d -xf saved.tar; rm d/manifest.json; tar -C d -cf again ."),
    ] {
        sh(scratch.path(), remake);
        let other = open(&scratch, name);
        let file = std::fs::File::open(scratch.path().join("again")).unwrap();
        let loaded = other.image_load(file, &mut |_| ()).unwrap();
        assert_eq!(loaded, want, "{name}");
        let mut again = Vec::new();
        other.image_save(&items).unwrap().read_to_end(&mut again).unwrap();
        assert!(again == saved, "{name}: saved again, it is the same archive");
        // A second time nothing is unpacked.
        let file = std::fs::File::open(scratch.path().join("again")).unwrap();
        assert_eq!(other.image_load(file, &mut |_| ()).unwrap(), want);
    }
}

#[test]
fn an_archive_of_something_else_leaves_nothing() {
    let scratch = Scratch::new("nonsense");
    let store = open(&scratch, "a");
    sh(
        scratch.path(),
        "mkdir d; echo x > d/x; tar -C d -cf inner.tar x; tar -cf a.tar inner.tar d",
    );
    let file = std::fs::File::open(scratch.path().join("a.tar")).unwrap();
    let error = store.image_load(file, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("neither manifest.json nor index.json"), "{error}");
    for dir in ["tmp", "layers", "images"] {
        assert_eq!(std::fs::read_dir(store.root().join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[test]
fn a_layer_goes_with_its_last_user() {
    if !privileged("unpacking") {
        return;
    }
    let scratch = Scratch::new("gc");
    let store = open(&scratch, "a");
    let (one, two) =
        (image_of(&store, &scratch, &["x", "y"]), image_of(&store, &scratch, &["x", "z"]));
    assert_eq!(store.image_shared_size(&one), 2);
    let chain = store.image(&two).unwrap().layers.clone();
    store.snapshot_create("c", &chain).unwrap();
    assert_eq!(store.image_remove(&one).unwrap().len(), 1, "y goes, x is shared");
    assert_eq!(store.image_remove(&two).unwrap().len(), 0, "a container needs both");
    store.snapshot_remove("c").unwrap();
    store.settle();
    for dir in ["layers", "images", "init", "rw", "trash"] {
        let left: Vec<_> = std::fs::read_dir(store.root().join(dir)).unwrap().collect();
        assert!(left.is_empty(), "{dir}: {left:?}");
    }
}

#[test]
fn names_outlive_the_daemon() {
    if !privileged("unpacking") {
        return;
    }
    let scratch = Scratch::new("names");
    let store = open(&scratch, "a");
    let (one, two) = (image_of(&store, &scratch, &["x"]), image_of(&store, &scratch, &["y"]));
    assert_eq!(store.tag(&reference("app"), &one).unwrap(), None);
    assert_eq!(store.tag(&reference("app"), &two).unwrap(), Some(one));
    assert_eq!(store.tag(&reference("app"), &two).unwrap(), None);
    // The background thread uses the store until its work is done.
    store.settle();
    drop(store);
    let store = open(&scratch, "a");
    assert_eq!(store.resolve_tag(&reference("app:latest")), Some(two));
    assert_eq!(store.references(&one), []);
    assert_eq!(store.image(&one).unwrap().layers.len(), 1);
    assert_eq!(store.untag(&reference("app")).unwrap(), Some(two));
    assert_eq!(store.names(), []);
}

#[test]
fn an_empty_volume_takes_what_the_image_has() {
    if !privileged("changing owners") {
        return;
    }
    let scratch = Scratch::new("volume");
    let store = open(&scratch, "a");
    sh(
        scratch.path(),
        "mkdir -p root/data/sub; echo x > root/data/sub/x; chown -R 5:6 root/data; chmod 750 root/data",
    );
    let (volume, _) = store.volume_create("vol", &VolumeSpec::default()).unwrap();
    let root = sys::fs::open_dir(&scratch.path().join("root")).unwrap();
    for _ in 0..2 {
        store.volume_copy_up("vol", std::os::fd::AsFd::as_fd(&root), Path::new("/data")).unwrap();
    }
    sh(&volume.mountpoint, "test $(stat -c %a.%u:%g .) = 750.5:6; test $(stat -c %u sub/x) = 5");
    store.volume_remove("vol").unwrap();
    assert_eq!(store.volumes(), []);
}

#[test]
fn a_volumes_name_and_options_are_checked() {
    let scratch = Scratch::new("volumes");
    let store = open(&scratch, "a");
    let error = |name: &str, options: &[(&str, &str)]| {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let spec = VolumeSpec { options, ..VolumeSpec::default() };
        store.volume_create(name, &spec).unwrap_err().to_string()
    };
    assert!(error("a/b", &[]).contains("includes invalid characters for a local volume name"));
    assert!(error("a", &[]).contains("too short"));
    assert_eq!(error("ab", &[("x", "y")]), "invalid option: \"x\"");
    assert_eq!(error("ab", &[("type", "tmpfs")]), "missing required option: \"device\"");
    assert_eq!(error("ab", &[("size", "1m")]), "quota size requested but no quota support");
}
