//! Images: names, saving and loading, what goes when the last user goes. Volumes.

mod common;

use std::io::Read;
use std::os::fd::AsFd as _;
use std::path::Path;

use common::{Scratch, privileged, sh};
use spec::image::Descriptor;
use spec::image::media_type;
use spec::{Digest, ImageId, Platform, Reference};
use store::{LoadError, LoadedImage, Options, SaveItem, Store, Target, UnpackLimits, VolumeSpec};

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

fn item(image: ImageId, names: &[&str]) -> SaveItem {
    let names = names.iter().map(|name| reference(name)).collect();
    SaveItem { image, names, platform: None }
}

fn load(store: &Store, archive: &Path) -> Result<Vec<LoadedImage>, LoadError> {
    let (file, mut loaded) = (std::fs::File::open(archive).unwrap(), Vec::new());
    store.image_load(file, None, &mut |_| (), &mut |image| loaded.push(image))?;
    Ok(loaded)
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
    let items = [item(one, &["app:1", "app:2"]), item(two, &[])];
    let mut saved = Vec::new();
    store.image_save(&items).unwrap().read_to_end(&mut saved).unwrap();
    std::fs::write(scratch.path().join("saved.tar"), &saved).unwrap();
    let shared = "test $(tar -tf saved.tar | grep -c blobs/sha256/.) = 7; tar -xOf saved.tar oci-layout | grep -q 1.0.0";
    sh(scratch.path(), shared);
    let names = vec![reference("app:1"), reference("app:2")];
    let want = [
        LoadedImage { id: one, names, target: None },
        LoadedImage { id: two, names: Vec::new(), target: None },
    ];
    for (name, remake) in [
        ("whole", "cp saved.tar again"),
        ("gzip", "gzip -c saved.tar > again"),
        ("layout", "mkdir d; tar -C d -xf saved.tar; rm d/manifest.json; tar -C d -cf again ."),
    ] {
        sh(scratch.path(), remake);
        let other = open(&scratch, name);
        let loads = || {
            let mut loaded = load(&other, &scratch.path().join("again")).unwrap();
            for image in &mut loaded {
                // Only where no Docker has written its list beside it the manifest is somebody's.
                assert_eq!(image.target.take().is_some(), name == "layout", "{name}");
            }
            loaded
        };
        assert_eq!(loads(), want, "{name}");
        let mut again = Vec::new();
        other.image_save(&items).unwrap().read_to_end(&mut again).unwrap();
        assert!(again == saved, "{name}: saved again, it is the same archive");
        // A second time nothing is unpacked.
        assert_eq!(loads(), want);
    }
}

/// An image as a pull leaves it: an index of which one platform is here, with its compressed layer.
fn pulled(store: &Store, scratch: &Scratch, name: &str) -> (ImageId, Target) {
    sh(scratch.path(), "mkdir p; echo p > p/p; tar --mtime=@0 -C p -czf p.tgz p; rm -r p");
    let blob = std::fs::read(scratch.path().join("p.tgz")).unwrap();
    let (lease, content) = (store.lease(), store.lease_content());
    let layer = store.unpack(&lease, &blob[..], &UnpackLimits::default(), None, &[]).unwrap();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        layer.key.diff_id()
    );
    let keep = |kind: &str, bytes: &[u8]| {
        let digest = store.keep_blob(bytes, &content).unwrap();
        Descriptor::new(kind, digest, bytes.len() as u64)
    };
    let (blob, config_blob) =
        (keep(media_type::OCI_LAYER_GZIP, &blob), keep(media_type::OCI_CONFIG, config.as_bytes()));
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config_blob, "layers": [blob],
    });
    let mut here = keep(media_type::OCI_MANIFEST, manifest.to_string().as_bytes());
    here.platform = Some(Platform::new("linux", "amd64", None));
    let mut absent = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(b"absent"), 6);
    absent.platform = Some(Platform::new("linux", "s390x", None));
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [absent, here],
    });
    let index = keep(media_type::OCI_INDEX, index.to_string().as_bytes());
    let id = store.image_create(config.as_bytes(), None, &lease).unwrap();
    let Descriptor { media_type, digest, size, .. } = index;
    let target = Target { media_type, digest, size };
    store.tag_as(&reference(name), &id, Some(target.clone())).unwrap();
    (id, target)
}

#[test]
fn what_was_pulled_is_saved_and_loaded_bit_for_bit() {
    if !privileged("unpacking") {
        return;
    }
    let scratch = Scratch::new("bits");
    let store = open(&scratch, "a");
    let (id, target) = pulled(&store, &scratch, "app:1");
    let archive = scratch.path().join("saved.tar");
    let mut saved = store.image_save(&[item(id, &["app:1"])]).unwrap();
    std::io::copy(&mut saved, &mut std::fs::File::create(&archive).unwrap()).unwrap();
    let want = [LoadedImage { id, names: vec![reference("app:1")], target: Some(target.clone()) }];
    for remake in
        ["true", "mkdir d; tar -C d -xf saved.tar; rm d/manifest.json; tar -C d -cf saved.tar ."]
    {
        sh(scratch.path(), remake);
        let other = open(&scratch, &format!("{}", remake.len()));
        let mut loaded = Vec::new();
        let file = std::fs::File::open(&archive).unwrap();
        let mut name = |image: LoadedImage| {
            other.tag_as(&image.names[0], &image.id, image.target.clone()).unwrap();
            loaded.push(image);
        };
        other.image_load(file, None, &mut |_| (), &mut name).unwrap();
        assert_eq!(loaded, want);
        other.sweep_content();
        let [absent, here] = &other.children(&target)[..] else { panic!("two platforms") };
        assert!(!absent.is_whole(&other) && here.is_whole(&other));
    }
    drop(saved);
    // Without its name nothing of it stays.
    store.image_remove(&id).unwrap();
    store.settle();
    store.settle();
    assert_eq!(store.blobs_size(), 0);
}

#[test]
fn an_archive_of_something_else_leaves_nothing() {
    let scratch = Scratch::new("nonsense");
    let store = open(&scratch, "a");
    sh(
        scratch.path(),
        "mkdir d; echo x > d/x; tar -C d -cf inner.tar x; tar -cf a.tar inner.tar d",
    );
    let error = load(&store, &scratch.path().join("a.tar")).unwrap_err();
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
        let data = sys::fs::open_dir(&volume.mountpoint).unwrap();
        let (data, root) = (data.as_fd(), root.as_fd());
        store.volume_copy_up("vol", data, root, Path::new("/data")).unwrap();
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
