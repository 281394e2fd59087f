//! Images on their way: what is pulled is kept, pushed, saved and loaded bit for bit, and what breaks
//! off goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use spec::Digest;
use spec::image::{Descriptor, media_type};

use crate::fixtures::memory::{Fixture, Form, Image, Layer};
use crate::harness::{BOTH, Cli, Outcome, Suite, run, shell, wait_for};

super::cases! {
    every_form_of_image_travels_with_its_digest,
    pulls_that_share_a_layer_fetch_it_once,
    a_pull_goes_on_by_range_after_a_kill,
    an_upload_goes_on_where_the_connection_broke,
    an_index_is_kept_whole,
    all_tags_are_pulled_and_freed_again,
    images_go_through_other_tools_and_back,
}

const PATIENCE: Duration = Duration::from_secs(40);

/// A root file system that is no layer of the suite's own images.
fn busybox(suite: &Suite, form: Form) -> Layer {
    let dir = suite.scratch();
    let tar = dir.join("busybox.tar");
    fs::copy(suite.image_tar("busybox"), &tar).unwrap();
    fs::write(dir.join("mark"), "").unwrap();
    let dir = dir.display();
    shell(&format!("tar --mtime=@0 -C '{dir}' -rf '{dir}/busybox.tar' mark")).ok();
    Layer::of(&tar, form)
}

/// A layer of a file that does not get smaller.
pub fn noise(suite: &Suite, bytes: usize) -> Layer {
    let dir = suite.scratch();
    let file = dir.display();
    shell(&format!(
        "head -c {bytes} /dev/urandom > '{file}/noise'; tar -C '{file}' -cf '{file}/n.tar' noise"
    ))
    .ok();
    Layer::of(&dir.join("n.tar"), Form::Gzip)
}

pub fn image(layers: Vec<Layer>) -> Image {
    Image { architecture: host(), docker: false, mark: "", layers }
}

pub fn host() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn other() -> &'static str {
    if host() == "arm64" { "amd64" } else { "arm64" }
}

fn digests(suite: &Suite, name: &str) -> String {
    suite.tug(["image", "inspect", "-f", "{{join .RepoDigests \" \"}}", name]).ok()
}

/// The files of kept blobs.
fn blobs(suite: &Suite) -> Vec<String> {
    let listing = fs::read_dir(suite.data_root().join("content/blobs")).unwrap();
    let mut names: Vec<String> =
        listing.flatten().map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Whether nothing is kept that was not `before`; what an earlier case left may be on its way out.
fn has_no_more(suite: &Suite, before: &[String]) -> bool {
    blobs(suite).iter().all(|blob| before.contains(blob))
}

pub fn is_kept(suite: &Suite, digest: &Digest) -> bool {
    suite.data_root().join("content/blobs").join(digest.hex()).exists()
}

fn spawn(suite: &Suite, cli: Cli, args: &[&str]) -> Child {
    let mut command = suite.command(cli);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[track_caller]
fn succeeded(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn every_form_of_image_travels_with_its_digest(suite: &Suite) -> Outcome {
    let registry = Fixture::start();
    let before = blobs(suite);
    let file = suite.scratch().join("saved.tar");
    let file = file.to_str().unwrap();
    for (place, (form, docker, index)) in [
        (Form::Gzip, true, None),
        (Form::Gzip, true, Some(media_type::DOCKER_LIST)),
        (Form::Zstd, false, None),
        (Form::Zstd, false, Some(media_type::OCI_INDEX)),
        (Form::Plain, false, None),
    ]
    .into_iter()
    .enumerate()
    {
        let cli = BOTH[place % 2];
        let mut layer = busybox(suite, form);
        if docker {
            layer.media_type = media_type::DOCKER_LAYER_GZIP;
        }
        let made = Image { docker, ..image(vec![layer]) };
        let mut root = registry.image("form", "v", &made);
        if let Some(kind) = index {
            root = registry.index("form", "v", kind, &[root]);
        }
        let name = format!("{}/form:v", registry.address);
        let by_digest = format!("{}/form@{}", registry.address, root.digest);
        let pulled = suite.run(cli, ["pull", &name]).ok();
        assert!(pulled.contains(&format!("Digest: {}", root.digest)), "{pulled}");
        assert_eq!(suite.run(cli, ["run", "--rm", &name, "echo", "hi"]).ok(), "hi");
        assert!(digests(suite, &name).contains(&by_digest));
        // To a registry that has nothing of it.
        let there = Fixture::start();
        let copy = format!("{}/copy:v", there.address);
        suite.run(cli, ["tag", &name, &copy]).ok();
        let pushed = suite.run(cli, ["push", &copy]).ok();
        assert!(pushed.contains(&root.digest.to_string()), "{pushed}");
        assert_eq!(there.digest_of("copy", "v"), Some(root.digest));
        // Into an archive and back.
        suite.run(cli, ["save", "-o", file, &name]).ok();
        suite.run(cli, ["rmi", "-f", &name, &copy]).ok();
        let loaded = suite.run(cli, ["load", "-i", file]).ok();
        assert!(loaded.contains(&format!("Loaded image: {name}")), "{loaded}");
        assert!(digests(suite, &name).contains(&by_digest), "{form:?} {index:?}");
        assert_eq!(suite.run(cli, ["run", "--rm", &name, "echo", "hi"]).ok(), "hi");
        suite.run(cli, ["rmi", &name]).ok();
        wait_for("the blobs to go", PATIENCE, || has_no_more(suite, &before));
    }
    Outcome::Passed
}

fn pulls_that_share_a_layer_fetch_it_once(suite: &Suite) -> Outcome {
    let registry = Fixture::start();
    let shared = noise(suite, 3 << 20);
    let digest = Digest::of(&shared.bytes);
    for mark in ["one", "two"] {
        let base = busybox(suite, Form::Gzip);
        let made = Image { mark, ..image(vec![base, shared.clone()]) };
        registry.image(mark, "v", &made);
    }
    registry.state().hold_at = Some(1 << 20);
    let names = ["one", "two"].map(|name| format!("{}/{name}:v", registry.address));
    let first = spawn(suite, Cli::Tug, &["pull", &names[0]]);
    wait_for("the first pull's download", PATIENCE, || registry.gets_of(&digest) == 1);
    // What a pull says of a layer it says after it has joined the download, or begun one.
    let log = suite.scratch().join("second");
    let mut command = suite.command(Cli::Tug);
    command.args(["pull", &names[1]]).stdin(Stdio::null()).stderr(Stdio::piped());
    let second = command.stdout(fs::File::create(&log).unwrap()).spawn().unwrap();
    let layer = format!("{}: Pulling fs layer", digest.short());
    wait_for("the second pull", PATIENCE, || fs::read_to_string(&log).unwrap().contains(&layer));
    registry.release();
    succeeded(first);
    succeeded(second);
    assert_eq!(registry.gets_of(&digest), 1);
    for name in &names {
        assert_eq!(suite.tug(["run", "--rm", name, "ls", "noise"]).ok(), "noise");
    }
    Outcome::Passed
}

/// The part of a blob that has come.
fn part(suite: &Suite, digest: &Digest) -> Option<PathBuf> {
    let listing = fs::read_dir(suite.data_root().join("downloads"));
    let mut paths = listing.into_iter().flatten().flatten().map(|entry| entry.path());
    paths.find(|path| path.to_string_lossy().contains(&digest.hex()))
}

fn a_pull_goes_on_by_range_after_a_kill(suite: &Suite) -> Outcome {
    const HELD: usize = 3 << 20;
    let registry = Fixture::start();
    let layer = noise(suite, 6 << 20);
    let (digest, size) = (Digest::of(&layer.bytes), layer.bytes.len() as u64);
    registry.image("big", "v", &image(vec![layer]));
    registry.state().hold_at = Some(HELD);
    let name = format!("{}/big:v", registry.address);
    let pull = spawn(suite, Cli::Tug, &["pull", &name]);
    let half = || {
        let length = part(suite, &digest).and_then(|path| fs::metadata(path).ok());
        length.map(|file| file.len()).filter(|length| *length > HELD as u64 / 2)
    };
    wait_for("half of the layer", PATIENCE, || half().is_some());
    suite.end_daemon("KILL");
    pull.wait_with_output().unwrap();
    registry.release();
    suite.start_daemon(&[]);
    assert_eq!(suite.tug(["image", "inspect", &name]).code, 1, "nothing of it is visible");
    let kept = half().expect("the part is kept");
    suite.tug(["pull", "-q", &name]).ok();
    let gets: Vec<u64> =
        registry.state().gets.iter().filter(|(of, _)| *of == digest).map(|(_, at)| *at).collect();
    assert_eq!(gets, [0, kept], "of {size}");
    assert!(is_kept(suite, &digest) && part(suite, &digest).is_none());
    // A cancelled one keeps its part too.
    suite.tug(["rmi", &name]).ok();
    wait_for("the blob to go", PATIENCE, || !is_kept(suite, &digest));
    registry.state().hold_at = Some(HELD);
    let mut pull = spawn(suite, Cli::Tug, &["pull", &name]);
    wait_for("half of the layer", PATIENCE, || half().is_some());
    run(std::process::Command::new("kill").args(["-INT", &pull.id().to_string()])).ok();
    pull.wait().unwrap();
    registry.release();
    assert!(part(suite, &digest).is_some());
    suite.tug(["pull", "-q", &name]).ok();
    let last = registry.state().gets.last().map(|(_, at)| *at);
    assert!(last.is_some_and(|at| at >= HELD as u64 / 2), "{last:?}");
    Outcome::Passed
}

fn an_upload_goes_on_where_the_connection_broke(suite: &Suite) -> Outcome {
    let registry = Fixture::start();
    let layer = noise(suite, 4 << 20);
    let size = layer.bytes.len() as u64;
    let made = registry.image("up", "v", &image(vec![busybox(suite, Form::Gzip), layer]));
    let name = format!("{}/up:v", registry.address);
    suite.tug(["pull", "-q", &name]).ok();
    // Kept bytes.
    let there = Fixture::start();
    let copy = format!("{}/up:v", there.address);
    suite.tug(["tag", &name, &copy]).ok();
    there.state().cut_upload_at = Some(3 << 20);
    suite.tug(["push", "-q", &copy]).ok();
    assert_eq!(there.digest_of("up", "v"), Some(made.digest));
    let state = there.state();
    assert_eq!(state.asked_offsets, [3 << 20]);
    assert!(state.taken < 2 * size, "{} of {size} were sent", state.taken);
    drop(state);
    // A layer that is compressed on the way.
    suite
        .run_with_input(
            Cli::Tug,
            ["build", "-q", "-t", "made", "-"],
            format!("FROM {name}\nRUN head -c 3000000 /dev/urandom > /more\n").as_bytes(),
        )
        .ok();
    let copy = format!("{}/made:v", there.address);
    suite.tug(["tag", "made", &copy]).ok();
    there.state().cut_upload_at = Some(2 << 20);
    let pushed = suite.tug(["push", &copy]).ok();
    let digest = there.digest_of("made", "v").expect("it was pushed");
    assert!(pushed.contains(&digest.to_string()), "{pushed}");
    assert_eq!(there.state().asked_offsets.len(), 2);
    // Compressed once, so it has the same digest wherever it goes.
    let elsewhere = Fixture::start();
    let copy = format!("{}/made:v", elsewhere.address);
    suite.tug(["tag", "made", &copy]).ok();
    suite.tug(["push", "-q", &copy]).ok();
    assert_eq!(elsewhere.digest_of("made", "v"), Some(digest));
    Outcome::Passed
}

/// An index of an image for this host and one for another.
pub fn two_platforms(suite: &Suite, registry: &Fixture) -> (Descriptor, Digest) {
    let foreign = noise(suite, 100_000);
    let digest = Digest::of(&foreign.bytes);
    let here = registry.image("multi", "", &image(vec![busybox(suite, Form::Gzip)]));
    let made = Image { architecture: other(), ..image(vec![busybox(suite, Form::Zstd), foreign]) };
    let there = registry.image("multi", "", &made);
    (registry.index("multi", "v", media_type::OCI_INDEX, &[there, here]), digest)
}

fn an_index_is_kept_whole(suite: &Suite) -> Outcome {
    let registry = Fixture::start();
    let (index, foreign) = two_platforms(suite, &registry);
    let name = format!("{}/multi:v", registry.address);
    let architecture =
        |name: &str| suite.tug(["image", "inspect", "-f", "{{.Architecture}}", name]).ok();
    // One platform, pushed as that.
    suite.tug(["pull", "-q", &name]).ok();
    assert_eq!((architecture(&name).as_str(), registry.gets_of(&foreign)), (host(), 0));
    let there = Fixture::start();
    let copy = format!("{}/multi:v", there.address);
    suite.tug(["tag", &name, &copy]).ok();
    suite.tug(["push", "-q", &copy]).ok();
    assert_ne!(there.digest_of("multi", "v"), Some(index.digest));
    // All of them, and pushed again the index is the same.
    suite.tug(["pull", "-q", "--all-platforms", &name]).ok();
    assert!(is_kept(suite, &foreign));
    assert_eq!(architecture(&name), host());
    suite.tug(["tag", &name, &copy]).ok();
    suite.tug(["push", "-q", &copy]).ok();
    assert_eq!(there.digest_of("multi", "v"), Some(index.digest));
    // What is kept of the other one is told.
    let asked = format!("/v1.49/images/{name}/json");
    let told = suite.api("GET", &format!("{asked}?manifests=1"), None).1;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["Descriptor"]["digest"], index.digest.to_string());
    let here: Vec<_> = told["Manifests"].as_array().unwrap().iter().collect();
    assert!(here.len() == 2 && here.iter().all(|one| one["Available"] == true), "{told}");
    let wanted = |architecture: &str| {
        let platform =
            format!("%7B%22os%22:%22linux%22,%22architecture%22:%22{architecture}%22%7D");
        suite.api("GET", &format!("{asked}?platform={platform}"), None)
    };
    let (status, told) = wanted(other());
    assert!(status == 200 && told.contains(&format!("\"Architecture\":\"{}\"", other())), "{told}");
    assert_eq!(wanted("s390x").0, 404);
    // The other one is unpacked from what is kept.
    let platform = format!("linux/{}", other());
    suite.tug(["pull", "-q", "--platform", &platform, &name]).ok();
    assert_eq!((architecture(&name).as_str(), registry.gets_of(&foreign)), (other(), 1));
    // Through an archive, all of it or one.
    let dir = suite.scratch();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    suite.tug(["save", "-o", &path("all.tar"), &name]).ok();
    suite.tug(["save", "-o", &path("one.tar"), "--platform", &platform, &name]).ok();
    suite.tug(["rmi", "-f", &name, &copy]).ok();
    suite.tug(["image", "prune", "-f"]).ok();
    suite.tug(["load", "-i", &path("all.tar")]).ok();
    assert_eq!(architecture(&name), host());
    suite.tug(["tag", &name, &copy]).ok();
    let again = Fixture::start();
    let copy = format!("{}/multi:v", again.address);
    suite.tug(["tag", &name, &copy]).ok();
    suite.tug(["push", "-q", &copy]).ok();
    assert_eq!(again.digest_of("multi", "v"), Some(index.digest));
    suite.tug(["load", "-i", &path("one.tar")]).ok();
    assert_eq!(architecture(&name), other());
    let missing = suite.tug(["save", "-o", &path("no.tar"), "--platform", "linux/s390x", &name]);
    assert!(missing.fails(1).contains("does not provide the specified platform"));
    Outcome::Passed
}

fn all_tags_are_pulled_and_freed_again(suite: &Suite) -> Outcome {
    let registry = Fixture::start();
    let before = blobs(suite);
    let layer = noise(suite, 1 << 20);
    for tag in ["a", "b"] {
        let made = Image { mark: tag, ..image(vec![busybox(suite, Form::Gzip), layer.clone()]) };
        registry.image("tags", tag, &made);
    }
    let name = format!("{}/tags", registry.address);
    suite.tug(["pull", "-q", "-a", &name]).ok();
    assert_eq!(registry.gets_of(&Digest::of(&layer.bytes)), 1);
    suite.tug(["rmi", &format!("{name}:a")]).ok();
    assert!(is_kept(suite, &Digest::of(&layer.bytes)));
    let size = suite.api("GET", "/system/df?type=image", None).1;
    let size: serde_json::Value = serde_json::from_str(&size).unwrap();
    suite.tug(["rmi", &format!("{name}:b")]).ok();
    wait_for("the blobs to go", PATIENCE, || has_no_more(suite, &before));
    let less = suite.api("GET", "/system/df?type=image", None).1;
    let less: serde_json::Value = serde_json::from_str(&less).unwrap();
    let freed = size["LayersSize"].as_u64().unwrap() - less["LayersSize"].as_u64().unwrap();
    // Unpacked and compressed.
    assert!(freed > 2 << 20, "{freed}");
    Outcome::Passed
}

fn skopeo(suite: &Suite, args: &[&str]) {
    let mut command = std::process::Command::new("skopeo");
    command.args([
        "--insecure-policy",
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ]);
    command.env("TMPDIR", suite.scratch());
    run(command.args(args)).ok();
}

fn images_go_through_other_tools_and_back(suite: &Suite) -> Outcome {
    if !Path::new("/usr/bin/skopeo").exists() {
        return Outcome::Ignored("skopeo is not installed".to_owned());
    }
    let registry = Fixture::start();
    let made = registry.image("tool", "v", &image(vec![busybox(suite, Form::Gzip)]));
    let name = format!("{}/tool:v", registry.address);
    let id = || suite.tug(["image", "inspect", "-f", "{{.Id}}", &name]).ok();
    let by_digest = format!("{}/tool@{}", registry.address, made.digest);
    let archive = suite.scratch().join("image.tar");
    let archive = archive.to_str().unwrap();
    suite.tug(["pull", "-q", &name]).ok();
    let first = id();
    // A layout of skopeo's.
    skopeo(suite, &[&format!("docker://{name}"), &format!("oci-archive:{archive}:{name}")]);
    suite.tug(["rmi", &name]).ok();
    suite.tug(["load", "-i", archive]).ok();
    assert!(digests(suite, &name).contains(&by_digest));
    // Ours, read by skopeo.
    suite.tug(["save", "-o", archive, &name]).ok();
    let there = Fixture::start();
    skopeo(
        suite,
        &[&format!("oci-archive:{archive}"), &format!("docker://{}/tool:oci", there.address)],
    );
    assert_eq!(there.digest_of("tool", "oci"), Some(made.digest));
    skopeo(
        suite,
        &[&format!("docker-archive:{archive}"), &format!("docker://{}/tool:list", there.address)],
    );
    assert!(there.digest_of("tool", "list").is_some());
    // Through our socket, out and in.
    let socket = format!("unix://{}", suite.socket().display());
    skopeo(
        suite,
        &[
            "--src-daemon-host",
            &socket,
            &format!("docker-daemon:{name}"),
            &format!("docker://{}/tool:daemon", there.address),
        ],
    );
    let back = format!("{}/tool:daemon", there.address);
    suite.tug(["pull", "-q", &back]).ok();
    assert_eq!(suite.tug(["image", "inspect", "-f", "{{.Id}}", &back]).ok(), first);
    suite.tug(["rmi", "-f", &name, &back]).ok();
    skopeo(
        suite,
        &[
            "--dest-daemon-host",
            &socket,
            &format!("docker://{name}"),
            &format!("docker-daemon:{name}"),
        ],
    );
    assert_eq!(id(), first);
    Outcome::Passed
}
