//! Builds: what becomes of the result, and what the own client shows and refuses.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Cli, Outcome, Suite, context, run, shell, wait_for};

super::cases! {
    an_output_is_what_the_image_holds_and_leaves_no_image,
    layers_hold_no_mount_points,
    options_of_build_are_done_or_refused_by_name,
    what_was_made_is_written_down,
    progress_has_every_form,
    a_stopped_build_says_so,
    a_pruned_cache_is_listed,
}

fn text(suite: &Suite, args: &[&str]) -> (i32, String) {
    let output = suite.run(Cli::Tug, args);
    (output.code, format!("{}{}", output.stdout, output.stderr))
}

const ROOT_IN_SCRATCH: &str = "FROM scratch\nCOPY --from=busybox /bin/busybox /bin/busybox\nRUN [\"/bin/busybox\", \"touch\", \"/made\"]\nWORKDIR /\nRUN [\"/bin/busybox\", \"true\"]\n";

fn an_output_is_what_the_image_holds_and_leaves_no_image(suite: &Suite) -> Outcome {
    let dockerfile = "FROM scratch\nCOPY --chmod=u=rw,go= a.txt /bin/app\n";
    let directory = context(suite, &[("Dockerfile", dockerfile), ("a.txt", "content")]);
    let path = directory.to_str().unwrap();
    let images = || suite.tug(["images", "-aq"]).ok();
    let before = images();
    let found = |at: &str| shell(&format!("cd {at} && find . -mindepth 1 | sort")).ok();
    let out = format!("{path}/out");
    let (code, said) = text(suite, &["build", "--progress=plain", "-o", &out, path]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("exporting to client directory") && said.contains("copying files: "));
    assert!(!said.contains("writing image") && !said.contains("exporting layers"), "{said}");
    assert_eq!(found(&out), "./bin\n./bin/app");
    assert_eq!(shell(&format!("cat {out}/bin/app; stat -c %a {out}/bin/app")).ok(), "content600");
    for dest in ["-", "type=tar,dest=-", &format!("type=tar,dest={path}/t.tar")] {
        let tar = directory.join("seen.tar");
        let line = format!(
            "\"$0\" build -q -o {dest} {path} > {0} && cat {path}/t.tar >> {0} 2>/dev/null; tar -tf {0}",
            tar.display()
        );
        let seen = run(suite.command(Cli::Tug).args(["version"]).stdout(Stdio::null()));
        assert_eq!(seen.code, 0);
        let mut shell = std::process::Command::new("sh");
        shell.env("DOCKER_HOST", format!("unix://{}", suite.socket().display()));
        let listed = run(shell.args(["-c", &line]).arg(suite.program(Cli::Tug)));
        assert_eq!(listed.ok(), "bin/\nbin/app", "{dest}");
    }
    assert_eq!(images(), before, "nothing is kept");
    // What has the same content under a name of its own stays.
    suite.tug(["build", "-q", "-t", "kept:1", path]).ok();
    let named = images();
    suite.tug(["build", "-q", "-o", &out, path]).ok();
    suite.tug(["build", "-q", "-o", "type=cacheonly", path]).ok();
    assert_eq!(images(), named);
    let archive = format!("type=docker,dest={path}/image.tar");
    suite.tug(["build", "-q", "-t", "sent:1", "--output", &archive, path]).ok();
    assert_eq!(images(), named, "a name in an archive is none here");
    let loaded = suite.tug(["load", "-i", &format!("{path}/image.tar")]).ok();
    assert_eq!(loaded, "Loaded image: sent:1");
    let both = format!("{path}/both");
    suite.tug(["build", "-q", "--load", "-t", "loaded:1", "-o", &both, path]).ok();
    assert_eq!(found(&both), "./bin\n./bin/app");
    let full = suite.run(Cli::Tug, ["build", "-o", "type=tar,dest=/dev/full", path]).fails(1);
    assert!(full.contains("write /dev/full: no space left on device"), "{full}");
    suite.tug(["rmi", "kept:1", "sent:1", "loaded:1"]).ok();
    Outcome::Passed
}

fn layers_hold_no_mount_points(suite: &Suite) -> Outcome {
    let directory = context(suite, &[("Dockerfile", ROOT_IN_SCRATCH)]);
    let path = directory.to_str().unwrap();
    let out = format!("{path}/out");
    suite.tug(["build", "-q", "-o", &out, path]).ok();
    let found = |at: &str| shell(&format!("cd {at} && find . -mindepth 1 | sort")).ok();
    assert_eq!(found(&out), "./bin\n./bin/busybox\n./made");
    for cli in crate::harness::BOTH {
        suite.run(cli, ["build", "-q", "-t", "stubs:1", path]).ok();
        let name = "stubs";
        suite.run(cli, ["run", "--name", name, "stubs:1", "/bin/busybox", "touch", "/more"]).ok();
        assert_eq!(suite.run(cli, ["diff", name]).ok(), "A /more");
        suite.run(cli, ["commit", name, "stubs:2"]).ok();
        let next = context(suite, &[("Dockerfile", "FROM stubs:2\n")]);
        let out = next.join("out");
        let args = ["build", "-q", "-o", out.to_str().unwrap(), next.to_str().unwrap()];
        suite.tug(args).ok();
        assert_eq!(found(out.to_str().unwrap()), "./bin\n./bin/busybox\n./made\n./more");
        suite.run(cli, ["rm", name]).ok();
        suite.run(cli, ["rmi", "stubs:2", "stubs:1"]).ok();
    }
    Outcome::Passed
}

fn options_of_build_are_done_or_refused_by_name(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox\nRUN true\n";
    let directory = context(suite, &[("Dockerfile", dockerfile)]);
    let path = directory.to_str().unwrap();
    for options in [
        &["--provenance=false", "--sbom=false", "--attest", "type=sbom,disabled=true"][..],
        &["--call=build", "--builder=default", "--cache-from", "busybox", "--pull=false"],
        &["--cache-from", "type=registry,ref=busybox", "--resource", "memory=64m,cpu-shares=512"],
        &["--platform", "linux/amd64", "--debug"],
    ] {
        let (code, said) =
            text(suite, &[&["build", "-q", "-o", "type=cacheonly"], options, &[path]].concat());
        assert_eq!(code, 0, "{options:?}: {said}");
    }
    for (options, words) in [
        (&["--push"][..], "tag is needed when pushing to registry"),
        (&["-o", "type=registry"], "tag is needed when pushing to registry"),
        (&["--cache-from", "type=local,src=x"], "--cache-from type=local,src=x is not supported"),
        (&["--cache-to", "type=inline"], "--cache-to type=inline is not supported"),
        (&["--provenance=true"], "--provenance=true is not supported"),
        (&["--sbom=true"], "Use --sbom=false"),
        (&["--attest", "type=provenance,mode=max"], "Use --provenance=false"),
        (&["--annotation", "a=b"], "--annotation a=b is not supported"),
        (&["--check"], "--call check is not supported"),
        (&["--call", "outline"], "--call outline is not supported"),
        (&["--policy", "x"], "--policy x is not supported"),
        (&["--builder", "other"], "no builder \"other\" found"),
        (&["--platform", "linux/amd64,linux/arm64"], "multiple platforms are not supported"),
        (&["--resource", "disk=1"], "invalid resource \"disk=1\""),
        (&["-m", "1"], "Minimum memory limit allowed is 6MB"),
        (&["-o", "type=local"], "dest is required for local exporter"),
        (&["--network", "container:"], "invalid container format"),
    ] {
        let (code, said) = text(suite, &[&["build"], options, &[path]].concat());
        assert!(code == 1 && said.contains(words), "{options:?}: {said}");
    }
    let lost = context(suite, &[("a", "")]);
    let (code, said) = text(suite, &["build", lost.to_str().unwrap()]);
    let words = "ERROR: failed to build: failed to solve: failed to read dockerfile: open Dockerfile: no such file or directory\n";
    assert!(code == 1 && said.contains(words), "{said}");
    let (_, said) = text(suite, &["build", "-f", "No", path]);
    assert!(said.contains("failed to read dockerfile: open No: no such file"), "{said}");
    let classic = suite.run(Cli::Docker, ["build", lost.to_str().unwrap()]).fails(1);
    assert!(classic.contains("unable to evaluate symlinks in Dockerfile path"), "{classic}");
    Outcome::Passed
}

fn what_was_made_is_written_down(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox\nRUN test $(df /dev/shm | tail -n1 | awk '{print $2}') = 2048\n";
    let directory = context(suite, &[("Dockerfile", dockerfile)]);
    let path = directory.to_str().unwrap();
    let (file, iid) = (directory.join("meta.json"), directory.join("iid"));
    let args = ["build", "-q", "--metadata-file", file.to_str().unwrap(), "--iidfile"];
    let more = [
        iid.to_str().unwrap(),
        "--shm-size=2m",
        "-t",
        "written:1",
        "-o",
        "type=image,name=written:2",
        path,
    ];
    let (code, said) = text(suite, &[&args[..], &more].concat());
    assert_eq!(code, 0, "{said}");
    let id = suite.tug(["inspect", "-f", "{{.Id}}", "written:1"]).ok();
    let found: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(found["containerimage.config.digest"], id.as_str());
    assert_eq!(found["containerimage.digest"], id.as_str());
    let names = "docker.io/library/written:1,docker.io/library/written:2";
    assert_eq!(found["image.name"], names);
    assert_eq!(fs::read_to_string(&iid).unwrap(), id);
    let args =
        ["build", "-q", "-o", "type=cacheonly", "--metadata-file", file.to_str().unwrap(), path];
    suite.tug(args).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
    suite.tug(["rmi", "written:1", "written:2"]).ok();
    Outcome::Passed
}

fn progress_has_every_form(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox AS a\nRUN <<EOF\necho heredoc\necho $((40 + 2))\nEOF\nFROM busybox\nCOPY --from=a /bin/busybox /x\n";
    let directory = context(suite, &[("Dockerfile", dockerfile)]);
    let path = directory.to_str().unwrap();
    let build = |progress: &str| {
        let args = ["build", "--no-cache", "--progress", progress, "-o", "type=cacheonly", path];
        let output = suite.tug(args);
        assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
        output
    };
    let plain = build("plain").stderr;
    assert!(plain.contains("RUN <<EOF (echo heredoc...)\n"), "{plain}");
    assert!(plain.contains(" 42\n") && plain.matches("load metadata").count() == 1, "{plain}");
    let raw = build("rawjson");
    let mut kinds = std::collections::BTreeSet::new();
    for line in raw.stderr.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        let (kind, list) = object.as_object().unwrap().iter().next().unwrap();
        let first = &list[0];
        let name = if kind == "vertexes" { &first["digest"] } else { &first["vertex"] };
        assert!(name.as_str().unwrap().starts_with("sha256:"), "{line}");
        kinds.insert(kind.clone());
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["logs", "statuses", "vertexes"]);
    let quiet = build("quiet");
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    let coloured = |name: &str, value: &str| {
        let args = ["build", "--progress=tty", "-o", "type=cacheonly", path];
        let output = run(suite.command(Cli::Tug).args(args).env(name, value));
        assert_eq!(output.code, 0, "{}", output.stderr);
        output.stderr
    };
    assert!(coloured("NO_NOTHING", "1").contains("\x1b[34m"));
    let bare = coloured("NO_COLOR", "1");
    assert!(!bare.contains("\x1b[34m") && bare.contains("FINISHED"), "{bare}");
    assert!(coloured("BUILDKIT_COLORS", "run=1,2,3").contains("\x1b[38;2;1;2;3m"));
    let (code, said) = text(suite, &["build", "--progress=loud", path]);
    assert!(code == 1 && said.contains("invalid progress mode loud"), "{said}");
    fs::write(directory.join("Dockerfile"), "FROM busybox\nRUN exit 3\n").unwrap();
    let (code, said) = text(suite, &["build", "--progress=tty", path]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(" FINISHED")
            && said.contains("ERROR: failed to build: failed to solve: process"),
        "{said}"
    );
    Outcome::Passed
}

fn a_stopped_build_says_so(suite: &Suite) -> Outcome {
    let directory = context(suite, &[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 1000\n")]);
    let path = directory.to_str().unwrap();
    let log = directory.join("log");
    let mut child = suite
        .command(Cli::Tug)
        .args(["build", "--progress=plain", "--no-cache", path])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(&log).unwrap_or_default();
    wait_for("the step", Duration::from_secs(20), || said().contains(" begun\n"));
    run(std::process::Command::new("kill").args(["-INT", &child.id().to_string()])).ok();
    let status = child.wait().unwrap();
    let said = said();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains(" CANCELED\n"), "{said}");
    assert!(
        said.ends_with("ERROR: failed to build: failed to solve: Canceled: context canceled\n"),
        "{said}"
    );
    wait_for("the command's end", Duration::from_secs(10), || {
        shell("pgrep -f '[s]leep 1000'").stdout.is_empty()
    });
    Outcome::Passed
}

fn a_pruned_cache_is_listed(suite: &Suite) -> Outcome {
    let dockerfile = "FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1k count=300 2>/dev/null\n";
    let directory = context(suite, &[("Dockerfile", dockerfile)]);
    suite.tug(["builder", "prune", "-af"]).ok();
    suite
        .tug(["build", "-q", "--no-cache", "-o", "type=cacheonly", directory.to_str().unwrap()])
        .ok();
    let usage = suite.tug(["system", "df", "-v"]).ok();
    let head = usage.lines().find(|line| line.starts_with("CACHE ID")).unwrap();
    let columns: Vec<&str> =
        head.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    let want = ["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"];
    assert_eq!(columns, want);
    assert!(
        usage.contains("Less than a second ago")
            || usage.contains("seconds ago")
            || usage.contains("second ago"),
        "{usage}"
    );
    let enough = suite.tug(["builder", "prune", "-f", "--keep-storage", "1gb"]).ok();
    assert_eq!(enough, "Total:\t0B");
    let none = suite.tug(["builder", "prune", "-f", "--filter", "until=24h"]).ok();
    assert_eq!(none, "Total:\t0B");
    let pruned = suite.tug(["builder", "prune", "-f"]).ok();
    let lines: Vec<&str> = pruned.lines().collect();
    let cells = |line: &str| -> Vec<String> {
        line.split('\t').filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    assert_eq!(cells(lines[0]), ["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"]);
    assert_eq!(cells(lines[1])[1..3], ["true", "307.2kB"]);
    assert_eq!(lines[2], "Total:\t307.2kB");
    Outcome::Passed
}
