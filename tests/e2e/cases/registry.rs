//! Registries: pull, push, login, against Debian's docker-registry on loopback.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{BOTH, Cli, Outcome, Suite, wait_for};

super::cases! {
    what_was_pushed_is_pulled_again_and_runs,
    a_missing_image_is_told_in_dockers_words,
    two_pulls_at_once_get_one_image,
    layers_are_sent_as_zstd_when_that_is_asked_for,
}

pub(super) const ADDRESS: &str = "127.0.0.1:5000";

/// A registry that ends with the case; none where the program is not installed.
pub(super) struct Registry(Child);

impl Registry {
    pub(super) fn start(suite: &Suite) -> Option<Registry> {
        Registry::start_with(suite, ADDRESS, "")
    }

    /// One at `address`, with further lines of its configuration.
    pub(super) fn start_with(suite: &Suite, address: &str, more: &str) -> Option<Registry> {
        let dir = suite.scratch().join("registry");
        fs::create_dir_all(&dir).unwrap();
        let settings = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {address}}}\nlog: {{level: error}}\n{more}",
            dir.join("data").display()
        );
        fs::write(&settings, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&settings).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Registry(command.spawn().ok()?);
        wait_for("the registry", Duration::from_secs(10), || TcpStream::connect(address).is_ok());
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Ended by itself, or killed here: in both cases it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn without() -> Outcome {
    Outcome::Ignored("docker-registry is not installed".to_owned())
}

fn what_was_pushed_is_pulled_again_and_runs(suite: &Suite) -> Outcome {
    let Some(_registry) = Registry::start(suite) else { return without() };
    for cli in BOTH {
        let name = format!("{ADDRESS}/group/box:v1");
        let copy = format!("{ADDRESS}/other/box:v1");
        suite.run(cli, ["tag", "busybox", &name]).ok();
        let pushed = suite.run(cli, ["push", &name]).ok();
        let digest =
            pushed.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap().to_owned();
        let again = suite.run(cli, ["push", &name]).ok();
        assert!(again.contains("Layer already exists") && again.contains(&digest), "{again}");
        suite.run(cli, ["tag", &name, &copy]).ok();
        let mounted = suite.run(cli, ["push", &copy]).ok();
        assert!(
            mounted.contains("Mounted from group/box") || mounted.contains("already exists"),
            "{mounted}"
        );
        assert!(mounted.contains(&digest), "{mounted}");
        suite.run(cli, ["rmi", &name, &copy]).ok();
        assert_eq!(suite.run(cli, ["run", "--rm", &name, "echo", "hi"]).ok(), "hi");
        let present = suite.run(cli, ["pull", &name]).ok();
        assert!(present.contains("Status: Image is up to date for"), "{present}");
        let by_digest = format!("{ADDRESS}/group/box@{digest}");
        suite.run(cli, ["pull", "-q", &by_digest]).ok();
        // The digest goes with the last tag.
        suite.run(cli, ["rmi", &name]).ok();
    }
    Outcome::Passed
}

fn a_missing_image_is_told_in_dockers_words(suite: &Suite) -> Outcome {
    let Some(_registry) = Registry::start(suite) else { return without() };
    for cli in BOTH {
        let missing = suite.run(cli, ["pull", &format!("{ADDRESS}/nope:x")]).fails(1);
        let want =
            format!("manifest for {ADDRESS}/nope:x not found: manifest unknown: manifest unknown");
        assert!(missing.contains(&want), "{missing}");
        let nobody = suite.run(cli, ["run", "127.0.0.1:5999/x"]).fails(125);
        assert!(
            nobody.contains("Unable to find image '127.0.0.1:5999/x:latest' locally"),
            "{nobody}"
        );
        assert!(
            nobody.contains("dial tcp 127.0.0.1:5999: connect: connection refused"),
            "{nobody}"
        );
        let unnamed = suite.run(cli, ["push", &format!("{ADDRESS}/nope")]).fails(1);
        assert!(unnamed.contains("An image does not exist locally with the tag"), "{unnamed}");
    }
    Outcome::Passed
}

fn two_pulls_at_once_get_one_image(suite: &Suite) -> Outcome {
    let Some(_registry) = Registry::start(suite) else { return without() };
    let [cli, _] = BOTH;
    let name = format!("{ADDRESS}/redis");
    suite.run(cli, ["tag", "redis", &name]).ok();
    suite.run(cli, ["push", "-q", &name]).ok();
    suite.run(cli, ["rmi", &name]).ok();
    let pulls: Vec<Child> = (0..2)
        .map(|_| {
            let mut command = suite.command(cli);
            command
                .args(["pull", &name])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for pull in pulls {
        let output = pull.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("Digest: sha256:"), "{text}");
    }
    suite.run(cli, ["rmi", &name]).ok();
    Outcome::Passed
}

fn layers_are_sent_as_zstd_when_that_is_asked_for(suite: &Suite) -> Outcome {
    let Some(_registry) = Registry::start(suite) else { return without() };
    let name = format!("{ADDRESS}/small/box:v1");
    suite.tug(["tag", "busybox", &name]).ok();
    let form_of = |arguments: &[&str]| {
        suite.run(Cli::Tug, ["push"].iter().chain(arguments).chain([&name.as_str()])).ok();
        let manifest = suite.tug(["manifest", "inspect", &name]).ok();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        manifest["layers"][0]["mediaType"].as_str().unwrap().to_owned()
    };
    let (docker_gzip, oci) = (
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar",
    );
    assert_eq!(form_of(&[]), docker_gzip);
    assert_eq!(form_of(&["--compression", "zstd"]), format!("{oci}+zstd"));
    assert_eq!(form_of(&[]), format!("{oci}+zstd"), "the name is that manifest now");
    suite.tug(["rmi", &name]).ok();
    assert_eq!(suite.tug(["run", "--rm", &name, "echo", "hi"]).ok(), "hi");
    assert_eq!(form_of(&["--compression", "gzip"]), docker_gzip);
    let wrong = suite.tug(["push", "--compression", "lzma", &name]).fails(1);
    assert!(wrong.contains("invalid compression \"lzma\": it is gzip or zstd"), "{wrong}");
    suite.tug(["rmi", &name]).ok();
    suite.tug(["tag", "busybox", &name]).ok();
    assert_eq!(form_of(&[]), docker_gzip, "busybox itself is what it was");
    suite.tug(["rmi", &name]).ok();
    Outcome::Passed
}
