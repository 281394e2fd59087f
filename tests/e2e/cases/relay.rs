//! Images on their way from engine to engine: `image push --to`, and ssh as a way to an engine.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::serve::{ADDRESS, Running};
use crate::harness::{Cli, Outcome, Output, Suite, run, tug, wait_for};

super::cases! {
    images_go_to_another_engine_by_ssh,
    images_go_to_another_engine_by_its_front,
    a_broken_off_upload_goes_on_where_it_was,
    of_an_index_the_platform_that_is_here_is_sent,
    an_engine_is_reached_by_ssh,
}

/// Another engine beside the suite's, and what leads to it.
struct Other {
    _daemon: Running,
    dir: PathBuf,
    socket: PathBuf,
}

impl Other {
    fn start(suite: &Suite) -> Other {
        let dir = suite.scratch();
        let socket = dir.join("other.sock");
        let mut command = Command::new(tug());
        command.arg("daemon").arg("-H").arg(format!("unix://{}", socket.display()));
        for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")]
        {
            command.arg(flag).arg(dir.join(name));
        }
        // Below what the suite removes at its end.
        let cgroup_parent = format!("/{}", suite.directory.file_name().unwrap().to_str().unwrap());
        command.args(["--bip", "10.99.0.1/24", "--cgroup-parent", &cgroup_parent]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let daemon = Running(child);
        let answers = || UnixStream::connect(&socket).is_ok();
        wait_for("the other daemon", Duration::from_secs(30), answers);
        let other = Other { _daemon: daemon, dir, socket };
        fs::create_dir(other.dir.join("programs")).unwrap();
        other.write_ssh(&format!(
            "echo \"$*\" >> {}\nwhile [ \"$1\" != -- ]; do shift; done\nshift 3\nexec env DOCKER_HOST={} {} \"$@\"",
            other.dir.join("asked").display(),
            other.host(),
            tug()
        ));
        other
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// In place of ssh: what it is asked for is noted, and run here, as the other host would.
    fn write_ssh(&self, script: &str) {
        let ssh = self.dir.join("programs/ssh");
        fs::write(&ssh, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What ssh was asked for.
    fn asked(&self) -> String {
        fs::read_to_string(self.dir.join("asked")).unwrap_or_default()
    }

    /// A command line at the other engine itself.
    fn tug(&self, suite: &Suite, args: &[&str]) -> Output {
        let mut command = suite.command(Cli::Tug);
        run(command.env("DOCKER_HOST", self.host()).args(args).stdin(Stdio::null()))
    }

    /// `image push` of the suite's engine, with our ssh.
    fn push(&self, suite: &Suite, args: &[&str]) -> Output {
        let mut command = self.with_ssh(suite);
        run(command.args(["image", "push"]).args(args).stdin(Stdio::null()))
    }

    fn with_ssh(&self, suite: &Suite) -> Command {
        let programs = self.dir.join("programs");
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut command = suite.command(Cli::Tug);
        command.env("PATH", path);
        command
    }
}

/// The lines that tell what an image's push came to.
fn summaries(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.contains(": digest: sha256:")).collect()
}

fn digest_in(line: &str) -> &str {
    let digest = line.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
    digest.trim_end_matches(':')
}

fn images_go_to_another_engine_by_ssh(suite: &Suite) -> Outcome {
    let other = Other::start(suite);
    let named = "127.0.0.1:7777/over/there:v1";
    suite.tug(["tag", "busybox", named]).ok();
    let sent = other.push(suite, &["--to", "ssh://me@there:2222", "busybox", named]).ok();
    let lines = summaries(&sent);
    assert!(
        lines[0].starts_with("busybox:latest: ") && lines[0].contains("sent 2 blobs"),
        "{sent}"
    );
    assert!(lines[1].contains("sent 0 blobs (0B), skipped 2 blobs"), "{sent}");
    let asked = other.asked();
    let want = "-p 2222 -- me@there tug system dial-stdio";
    assert!(asked.lines().all(|line| line.ends_with(want)), "{asked}");
    for name in ["busybox:latest", named] {
        let digests = ["image", "inspect", "-f", "{{.RepoDigests}} {{.Id}}", name];
        let (there, here) = (other.tug(suite, &digests).ok(), suite.tug(digests).ok());
        assert!(there.contains(digest_in(lines[0])), "{there}");
        let id = |text: &str| text.rsplit(' ').next().unwrap().to_owned();
        assert_eq!(id(&there), id(&here));
    }
    // The other side ends before it answers.
    other.write_ssh("exit 255");
    let refused = other.push(suite, &["--to", "ssh://there", "busybox"]).fails(1);
    let told = refused.contains("ssh://there: ") && refused.contains("is tug installed there");
    assert!(told, "{refused}");
    Outcome::Passed
}

fn images_go_to_another_engine_by_its_front(suite: &Suite) -> Outcome {
    let other = Other::start(suite);
    let mut front = Command::new(suite.own_docker());
    front.args(["-H", &other.host(), "registry", "serve", "--addr", ADDRESS]);
    let _front = Running(front.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_for("the front", Duration::from_secs(30), || TcpStream::connect(ADDRESS).is_ok());
    let http = format!("http://{ADDRESS}");
    let sent = other.push(suite, &["--to", &http, "redis"]).ok();
    assert!(summaries(&sent)[0].starts_with("redis:latest: digest: sha256:"), "{sent}");
    let again = other.push(suite, &["--to", &http, "redis"]).ok();
    assert!(again.contains("sent 0 blobs (0B)"), "{again}");
    assert_eq!(other.push(suite, &["-q", "--to", &http, "redis"]).ok(), "redis:latest");
    let all = other.tug(suite, &["images", "--format", "{{.Repository}}"]).ok();
    assert!(all.lines().any(|name| name == "redis"), "{all}");
    let missing = other.push(suite, &["--to", &http, "nobody"]).fails(1);
    let want = "An image does not exist locally with the tag: nobody:latest";
    assert!(missing.contains(want), "{missing}");
    for wrong in ["there", "ftp://there", "http://", "http://me@there", "ssh://-oProxyCommand=x"] {
        let refused = other.push(suite, &["--to", wrong, "busybox"]).fails(1);
        assert!(refused.contains("invalid value"), "{refused}");
    }
    let two = other.push(suite, &["busybox", "redis"]).fails(1);
    assert!(two.contains("requires 1 argument"), "{two}");
    Outcome::Passed
}

/// Leads connections to [`ADDRESS`], and breaks the first one off that brought `limit` bytes. Gives its
/// address, and counts what it let through.
fn breaking_proxy(limit: u64, passed: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let is_broken = Arc::new(AtomicBool::new(false));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(ADDRESS) else { return };
            let (mut answers, mut back) =
                (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut answers, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
            let (passed, is_broken) = (Arc::clone(&passed), Arc::clone(&is_broken));
            std::thread::spawn(move || lead(client, server, limit, &passed, &is_broken));
        }
    });
    address
}

fn lead(
    mut client: TcpStream,
    mut server: TcpStream,
    limit: u64,
    passed: &AtomicU64,
    is_broken: &AtomicBool,
) {
    let (mut piece, mut own) = (vec![0; 64 << 10], 0);
    while let Ok(count) = client.read(&mut piece)
        && count > 0
        && server.write_all(&piece[..count]).is_ok()
    {
        own += count as u64;
        passed.fetch_add(count as u64, Ordering::SeqCst);
        if own >= limit && !is_broken.swap(true, Ordering::SeqCst) {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}

fn a_broken_off_upload_goes_on_where_it_was(suite: &Suite) -> Outcome {
    let other = Other::start(suite);
    let mut front = Command::new(suite.own_docker());
    front.args(["-H", &other.host(), "registry", "serve", "--addr", ADDRESS]);
    let _front = Running(front.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_for("the front", Duration::from_secs(30), || TcpStream::connect(ADDRESS).is_ok());
    let passed = Arc::new(AtomicU64::new(0));
    // redis is one layer of more than eight megabytes.
    let proxy = breaking_proxy(6_000_000, Arc::clone(&passed));
    let sent = other.push(suite, &["--to", &format!("http://{proxy}"), "redis"]).ok();
    assert!(sent.contains("Retrying") && sent.contains("sent 2 blobs"), "{sent}");
    let passed = passed.load(Ordering::SeqCst);
    assert!(passed < 13_000_000, "{passed} bytes: it began anew");
    assert_eq!(other.tug(suite, &["run", "--rm", "redis", "echo", "whole"]).ok(), "whole");
    Outcome::Passed
}

/// An index that names our image and one that is not here.
fn of_an_index_the_platform_that_is_here_is_sent(suite: &Suite) -> Outcome {
    let other = Other::start(suite);
    let api = |path: &str| suite.api("GET", path, None).1;
    let manifest = api("/v2/busybox/manifests/latest");
    let sum = |text: &str| {
        let file = other.dir.join("sum");
        fs::write(&file, text).unwrap();
        let text = run(Command::new("sha256sum").arg(&file)).ok();
        format!("sha256:{}", &text[..64])
    };
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let child = |digest: &str, size: usize, architecture: &str| {
        format!(
            "{{\"mediaType\":\"{kind}\",\"size\":{size},\"digest\":\"{digest}\",\"platform\":{{\"os\":\"linux\",\"architecture\":\"{architecture}\"}}}}"
        )
    };
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let index = |children: &[String]| {
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[{}]}}",
            children.join(",")
        )
    };
    // Whole: ours and a twin for another platform.
    let ours = child(&sum(&manifest), manifest.len(), own);
    let whole = index(&[ours.clone(), child(&sum(&manifest), manifest.len(), "s390x")]);
    let file = other.dir.join("index");
    fs::write(&file, &whole).unwrap();
    let put = run(Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-T"])
        .arg(&file)
        .args(["-H", "Content-Type: application/vnd.oci.image.index.v1+json", "--unix-socket"])
        .arg(suite.socket())
        .arg("http://d/v2/many/platforms/manifests/v1"));
    assert_eq!(put.ok(), "201");
    let sent = other.push(suite, &["--to", "ssh://there", "many/platforms:v1"]).ok();
    assert_eq!(digest_in(summaries(&sent)[0]), sum(&whole), "{sent}");
    let one = other
        .push(
            suite,
            &["--to", "ssh://there", "--platform", &format!("linux/{own}"), "many/platforms:v1"],
        )
        .ok();
    assert!(one.contains("of 2 manifests of the index only the image for linux/"), "{one}");
    assert_eq!(digest_in(summaries(&one)[0]), sum(&manifest), "{one}");
    let none = ["--to", "ssh://there", "--platform", "linux/riscv64", "many/platforms:v1"];
    let refused = other.push(suite, &none).fails(1);
    assert!(refused.contains("the image for linux/riscv64 is not here"), "{refused}");
    Outcome::Passed
}

fn an_engine_is_reached_by_ssh(suite: &Suite) -> Outcome {
    let other = Other::start(suite);
    let mut command = other.with_ssh(suite);
    command.env("DOCKER_HOST", "ssh://me@there");
    let tar = suite.image_tar("busybox");
    let import = ["import", "-c", "CMD [\"sh\"]", tar.to_str().unwrap(), "by:ssh"];
    run(command.args(import).stdin(Stdio::null())).ok();
    let ids = other.tug(suite, &["images", "-q", "by:ssh"]).ok();
    assert_eq!(ids.lines().count(), 1, "{ids}");
    let asked = other.asked();
    assert!(
        asked.lines().all(|line| line.ends_with("-- me@there docker system dial-stdio")),
        "{asked}"
    );
    Outcome::Passed
}
