//! Bad input and faults: Docker's own error, and nothing left behind.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::images_travel;
use crate::fixtures::memory::Fixture;
use crate::harness::{BOTH, Cli, Outcome, Suite, run, shell};

super::cases! {
    an_unknown_image_is_no_image,
    commands_that_cannot_run_end_with_126_and_127,
    a_name_is_taken_once,
    wrong_arguments_say_how_it_is_used,
    requests_that_make_no_sense_get_400,
    versions_are_negotiated_by_path,
    hostile_archives_stay_in_their_place,
    a_truncated_archive_leaves_no_image,
    a_full_disk_is_an_error_and_no_more,
    a_client_that_hangs_up_leaves_nothing,
    a_running_container_is_not_removed_without_force,
    a_mount_cannot_leave_the_root,
    what_is_not_a_swarm_says_so,
}

fn an_unknown_image_is_no_image(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let created = suite.run(cli, ["create", "--pull", "never", "nosuch:1"]);
        assert_ne!(created.code, 0);
        assert!(created.stderr.contains("No such image: nosuch:1"), "{}", created.stderr);
        assert_eq!(suite.run(cli, ["run", "--rm", "nosuch.invalid/x:1"]).code, 125);
        let reference = suite.run(cli, ["run", "--rm", "UPPER"]).fails(125);
        assert!(reference.contains("invalid reference format"), "{reference}");
    }
    let (status, body) =
        suite.api("POST", "/v1.47/containers/create", Some("{\"Image\":\"nosuch:1\"}"));
    assert_eq!((status, body.contains("No such image: nosuch:1")), (404, true), "{body}");
    Outcome::Passed
}

fn commands_that_cannot_run_end_with_126_and_127(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let missing = suite.run(cli, ["run", "--rm", "busybox", "nowhere"]);
        assert!(missing.fails(127).contains("executable file not found in $PATH"));
        let absolute = suite.run(cli, ["run", "--rm", "busybox", "/no/where"]);
        assert!(absolute.fails(127).contains("no such file or directory"));
        let plain = suite.run(cli, ["run", "--rm", "busybox", "/etc/passwd"]);
        assert!(plain.fails(126).contains("permission denied"));
        let directory = suite.run(cli, ["run", "--rm", "busybox", "/etc"]);
        assert_eq!(directory.code, 126, "{}", directory.stderr);
        let relative =
            suite.run(cli, ["run", "--rm", "-w", "not/absolute", "busybox", "true"]).fails(125);
        assert!(
            relative.contains(
                "working directory 'not/absolute' is invalid, it needs to be an absolute path"
            ),
            "{relative}"
        );
    }
    Outcome::Passed
}

fn a_name_is_taken_once(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let id = suite.run(cli, ["create", "--name", "taken", "busybox"]).ok();
        let again = suite.run(cli, ["create", "--name", "taken", "busybox"]);
        assert_ne!(again.code, 0);
        let words =
            format!("The container name \"/taken\" is already in use by container \"{id}\"");
        assert!(again.stderr.contains(&words), "{}", again.stderr);
        let bad = suite.run(cli, ["create", "--name", "-bad", "busybox"]);
        assert!(bad.stderr.contains("Invalid container name (-bad)"), "{}", bad.stderr);
        suite.run(cli, ["rm", "taken"]).ok();
    }
    Outcome::Passed
}

fn wrong_arguments_say_how_it_is_used(suite: &Suite) -> Outcome {
    for args in [
        &["run"][..],
        &["rm"],
        &["exec", "x"],
        &["tag", "x"],
        &["cp", "a"],
        &["inspect"],
        &["run", "--nosuch", "busybox"],
        &["run", "-Q", "busybox"],
        &["nosuchcommand"],
        &["network", "create"],
        &["ps", "extra"],
        &["logs"],
        &["run", "--memory", "lots", "busybox"],
        &["run", "-p", "x:y:z:w", "busybox"],
        &["run", "-e"],
    ] {
        let [ours, theirs] = BOTH.map(|cli| suite.run(cli, args));
        assert_eq!(ours.code, theirs.code, "{args:?}: {} / {}", ours.stderr, theirs.stderr);
        let first = |output: &crate::harness::Output| {
            output.stderr.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(first(&ours), first(&theirs), "{args:?}");
    }
    Outcome::Passed
}

fn requests_that_make_no_sense_get_400(suite: &Suite) -> Outcome {
    let create = "/v1.47/containers/create";
    assert_eq!(suite.api("POST", create, Some("{")).0, 400);
    assert_eq!(suite.api("POST", create, Some("{\"Image\":7}")).0, 400);
    assert_eq!(suite.api("POST", create, Some("{}")).0, 400);
    assert_eq!(suite.api("GET", "/v1.47/containers/json?filters=%7B", None).0, 400);
    assert_eq!(
        suite
            .api("GET", "/v1.47/containers/json?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D", None)
            .0,
        400
    );
    assert_eq!(suite.api("GET", "/v1.47/containers/nosuch/json", None).0, 404);
    let (status, body) = suite.api("GET", "/v1.47/nosuch", None);
    assert_eq!((status, body.trim()), (404, "{\"message\":\"page not found\"}"));
    let line = format!(
        "curl -s -o /dev/null -w '%{{http_code}}' --unix-socket {} -X POST -H 'Content-Type: text/plain' -d '{{}}' http://d{create}",
        suite.socket().display()
    );
    assert_eq!(shell(&line).ok(), "400");
    for garbage in [
        "GET\r\n\r\n",
        "\0\0\0\0",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /build HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ] {
        let mut stream = UnixStream::connect(suite.socket()).unwrap();
        stream.write_all(garbage.as_bytes()).unwrap();
    }
    assert_eq!(suite.api("GET", "/_ping", None), (200, "OK".to_owned()));
    Outcome::Passed
}

fn versions_are_negotiated_by_path(suite: &Suite) -> Outcome {
    for version in ["1.24", "1.30", "1.41", "1.44", "1.50"] {
        let (status, body) = suite.api("GET", &format!("/v{version}/containers/json?all=1"), None);
        assert_eq!((status, body.trim()), (200, "[]"), "{version}");
        assert_eq!(suite.api("GET", &format!("/v{version}/images/json"), None).0, 200);
        assert_eq!(suite.api("GET", &format!("/v{version}/info"), None).0, 200);
    }
    let (status, body) = suite.api("GET", "/v1.99/info", None);
    assert_eq!(status, 400);
    assert!(
        body.contains("client version 1.99 is too new. Maximum supported API version is 1.50"),
        "{body}"
    );
    let (status, body) = suite.api("GET", "/v1.12/info", None);
    assert_eq!(status, 400);
    assert!(body.contains("client version 1.12 is too old"), "{body}");
    Outcome::Passed
}

/// Archives made by Python's tarfile, each with one trick.
const HOSTILE: [(&str, &str); 7] = [
    ("parent", "add('../../escaped')"),
    ("absolute", "add('/escaped-absolute')"),
    ("symlink", "link('dir', '/tmp'); add('dir/escaped-by-link')"),
    ("hardlink", "hard('passwd', '/etc/passwd')"),
    ("hardlink-parent", "hard('passwd', '../../../../etc/passwd')"),
    ("device", "device('disk')"),
    ("long", "add('x' * 5000)"),
];

fn hostile_archives_stay_in_their_place(suite: &Suite) -> Outcome {
    if shell("command -v python3").code != 0 {
        return Outcome::Ignored("python3 is not installed".to_owned());
    }
    let scratch = suite.scratch();
    for (name, trick) in HOSTILE {
        let file = scratch.join(format!("{name}.tar"));
        let script = format!(
            "import tarfile,io\nt=tarfile.open({file:?},'w')\n\
             def add(n):\n i=tarfile.TarInfo(n); i.size=4; t.addfile(i, io.BytesIO(b'evil'))\n\
             def link(n,d):\n i=tarfile.TarInfo(n); i.type=tarfile.SYMTYPE; i.linkname=d; t.addfile(i)\n\
             def hard(n,d):\n i=tarfile.TarInfo(n); i.type=tarfile.LNKTYPE; i.linkname=d; t.addfile(i)\n\
             def device(n):\n i=tarfile.TarInfo(n); i.type=tarfile.BLKTYPE; i.devmajor=254; t.addfile(i)\n\
             {trick}\nt.close()\n",
            file = file.display().to_string(),
        );
        let path = scratch.join("make.py");
        fs::write(&path, script).unwrap();
        shell(&format!("python3 {}", path.display())).ok();
        let imported = suite.tug(["import", file.to_str().unwrap(), &format!("hostile-{name}:1")]);
        for outside in ["/escaped", "/escaped-absolute", "/tmp/escaped-by-link", "/tmp/escaped"] {
            assert!(!std::path::Path::new(outside).exists(), "{name} wrote {outside}");
        }
        let found = shell(&format!(
            "find {} -name 'escaped*' -not -path '*/diff/*'",
            suite.data_root().display()
        ))
        .ok();
        assert_eq!(found, "", "{name}");
        if imported.code != 0 {
            assert!(!imported.stderr.trim().is_empty(), "{name} fails with words");
        }
        suite.tug(["run", "-d", "--name", "target", "busybox", "sleep", "60"]).ok();
        let copied = run(suite
            .command(Cli::Docker)
            .args(["cp", "-", "target:/tmp"])
            .stdin(fs::File::open(&file).unwrap()));
        assert!(!std::path::Path::new("/tmp/escaped-by-link").exists(), "{}", copied.stderr);
        suite.tug(["rm", "-f", "target"]).ok();
    }
    Outcome::Passed
}

fn a_truncated_archive_leaves_no_image(suite: &Suite) -> Outcome {
    let scratch = suite.scratch();
    let whole = fs::read(suite.image_tar("busybox")).unwrap();
    let before = suite.tug(["images", "-aq"]).ok();
    let file = scratch.join("cut.tar");
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let imported = suite.tug(["import", file.to_str().unwrap(), "cut:1"]);
    assert_ne!(imported.code, 0, "{}", imported.stdout);
    shell(&format!(
        "gzip -c {0}/../busybox.tar > {0}/x.gz 2>/dev/null; head -c 3000 /dev/urandom > {0}/noise",
        scratch.display()
    ));
    let noise = suite.tug(["load", "-i", scratch.join("noise").to_str().unwrap()]);
    assert_ne!(noise.code, 0);
    assert_eq!(suite.tug(["images", "-aq"]).ok(), before);
    Outcome::Passed
}

fn a_full_disk_is_an_error_and_no_more(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let at = directory.display();
    shell(&format!("mkdir {at}/data && mount -t tmpfs -o size=8m tug-small {at}/data")).ok();
    let host = format!("unix://{at}/d.sock");
    let mut daemon = std::process::Command::new(crate::harness::tug())
        .args([
            "daemon",
            "--data-root",
            &format!("{at}/data"),
            "--exec-root",
            &format!("{at}/exec"),
            "-H",
            &host,
        ])
        .args(["--pidfile", &format!("{at}/pid"), "--bridge", "none"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let tug = |args: &[&str]| {
        run(std::process::Command::new(crate::harness::tug()).env("DOCKER_HOST", &host).args(args))
    };
    crate::harness::wait_for("the second daemon", Duration::from_secs(10), || {
        tug(&["version"]).code == 0
    });
    let busybox = suite.image_tar("busybox");
    tug(&["import", busybox.to_str().unwrap(), "busybox"]).ok();
    let redis = suite.image_tar("redis");
    let full = tug(&["import", redis.to_str().unwrap(), "redis"]);
    let words = format!("{}{}", full.stdout, full.stderr);
    let registry = Fixture::start();
    let layer = images_travel::noise(suite, 5 << 20);
    registry.image("big", "v", &images_travel::image(vec![layer]));
    let pulled = tug(&["pull", &format!("{}/big:v", registry.address)]);
    let images = tug(&["images", "-q"]).ok();
    let works = tug(&["run", "--rm", "--network", "none", "busybox", "echo", "still works"]);
    run(std::process::Command::new("kill").arg(daemon.id().to_string())).ok();
    daemon.wait().unwrap();
    shell(&format!(
        "umount {at}/data; for h in /sys/fs/cgroup/*/; do find $h/tug -depth -type d -exec rmdir {{}} + 2>/dev/null; done"
    ));
    assert_ne!(full.code, 0);
    assert!(words.contains("no space left on device"), "{words}");
    assert!(pulled.fails(1).contains("no space left on device"));
    assert_eq!(images.lines().count(), 1);
    assert_eq!(works.ok(), "still works");
    Outcome::Passed
}

fn a_client_that_hangs_up_leaves_nothing(suite: &Suite) -> Outcome {
    for cli in BOTH {
        let mut client = suite
            .command(cli)
            .args(["run", "--rm", "-i", "--name", "left", "busybox", "cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        crate::harness::wait_for("the container", Duration::from_secs(10), || {
            suite.tug(["ps"]).stdout.contains("left")
        });
        client.kill().unwrap();
        client.wait().unwrap();
        suite.tug(["rm", "-f", "left"]);
        let directory = suite.scratch();
        fs::write(directory.join("Dockerfile"), "FROM busybox\nRUN sleep 50\n").unwrap();
        let mut build = suite
            .command(cli)
            .args(["build", directory.to_str().unwrap()])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(700));
        build.kill().unwrap();
        build.wait().unwrap();
    }
    Outcome::Passed
}

fn a_running_container_is_not_removed_without_force(suite: &Suite) -> Outcome {
    for cli in BOTH {
        suite.run(cli, ["run", "-d", "--name", "busy", "busybox", "sleep", "60"]).ok();
        let refused = suite.run(cli, ["rm", "busy"]).fails(1);
        assert!(
            refused.contains(
                "container is running: stop the container before removing or force remove"
            ),
            "{refused}"
        );
        suite.run(cli, ["rm", "-f", "busy"]).ok();
        let gone = suite.run(cli, ["rm", "busy"]).fails(1);
        assert!(gone.contains("No such container: busy"), "{gone}");
    }
    Outcome::Passed
}

fn a_mount_cannot_leave_the_root(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    fs::write(
        directory.join("Dockerfile"),
        "FROM busybox\nRUN rm -rf /tmp && ln -s /../../../../../../../../ /tmp && ln -s /etc /outside\n",
    )
    .unwrap();
    suite.tug(["build", "-q", "-t", "tricky:1", directory.to_str().unwrap()]).ok();
    suite.tug(["run", "--rm", "-v", "probe:/outside/tug-probe", "tricky:1", "true"]).ok();
    assert!(!std::path::Path::new("/etc/tug-probe").exists());
    suite.tug(["run", "--rm", "--tmpfs", "/tmp/tug-probe-tmp", "tricky:1", "true"]).ok();
    assert!(!std::path::Path::new("/tug-probe-tmp").exists());
    suite.tug(["volume", "rm", "probe"]).ok();
    Outcome::Passed
}

fn what_is_not_a_swarm_says_so(suite: &Suite) -> Outcome {
    let (status, body) = suite.api("GET", "/v1.47/services", None);
    assert_eq!(status, 503);
    assert!(body.contains("This node is not a swarm manager"), "{body}");
    Outcome::Passed
}
