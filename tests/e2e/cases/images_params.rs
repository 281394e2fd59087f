//! What the images' routes are asked for, parameter by parameter, and what is told on the way.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use spec::image::media_type;

use super::images_travel::{host, image, is_kept, noise, other, two_platforms};
use crate::fixtures::http::{Server, reply};
use crate::fixtures::image::{Image, Layer, entry, tar};
use crate::fixtures::memory::Fixture;
use crate::harness::{BOTH, Outcome, Suite, run, shell, wait_for};

super::cases! {
    one_platform_of_an_image_is_removed,
    parameters_of_the_images_routes_count_or_are_refused,
    platforms_and_names_that_mean_nothing_are_refused,
    a_pull_shows_how_far_unpacking_is,
    images_tell_of_themselves_with_their_labels,
    redirects_of_every_form_are_followed,
    images_are_chosen_by_all_of_their_filters,
    what_is_pushed_is_gzip_for_everybody,
    what_a_registry_may_get_is_compressed_ahead,
}

const PATIENCE: Duration = Duration::from_secs(40);

/// A platform's document, as it stands in a query.
fn document(architecture: &str) -> String {
    format!("%7B%22os%22:%22linux%22,%22architecture%22:%22{architecture}%22%7D")
}

fn message(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    body["message"].as_str().unwrap_or_default().to_owned()
}

fn one_platform_of_an_image_is_removed(suite: &Suite) -> Outcome {
    let registry = Fixture::start();
    let (_, foreign) = two_platforms(suite, &registry);
    let name = format!("{}/multi:v", registry.address);
    let architecture =
        |name: &str| suite.tug(["image", "inspect", "-f", "{{.Architecture}}", name]).ok();
    let delete = |version: &str, query: &str| {
        let (status, body) =
            suite.api("DELETE", &format!("/{version}/images/{name}?{query}"), None);
        (status, body)
    };
    for cli in BOTH {
        suite.tug(["pull", "-q", "--all-platforms", &name]).ok();
        assert!(is_kept(suite, &foreign));
        // The one that is only kept goes, and the image runs as before.
        let platform = format!("linux/{}", other());
        let said = suite.run(cli, ["rmi", "--platform", &platform, &name]).ok();
        assert!(said.starts_with("Deleted: sha256:") && !said.contains("Untagged"), "{said}");
        assert_eq!(architecture(&name), host());
        assert!(!is_kept(suite, &foreign));
        // It is not there twice.
        let again = suite.run(cli, ["rmi", "--platform", &platform, &name]).fails(1);
        assert!(again.contains("was found but"), "{again}");
        // What a pull brings back.
        suite.tug(["pull", "-q", "--all-platforms", &name]).ok();
        assert!(is_kept(suite, &foreign));
        // The one that the name runs as goes: it runs as the other one.
        let platform = format!("linux/{}", host());
        suite.run(cli, ["rmi", "--platform", &platform, &name]).ok();
        assert_eq!(architecture(&name), other());
        // The last one takes the image along.
        let platform = format!("linux/{}", other());
        let said = suite.run(cli, ["rmi", "--platform", &platform, &name]).ok();
        assert!(said.contains(&format!("Untagged: {name}")), "{said}");
        suite.tug(["image", "inspect", &name]).fails(1);
    }
    suite.tug(["pull", "-q", &name]).ok();
    let (status, body) = delete("v1.50", &format!("platforms={}", document("s390x")));
    assert_eq!(status, 404, "{body}");
    let (status, body) = delete("v1.50", "platforms=%7B%22os%22:%22linux%22%7D");
    assert_eq!((status, &*message(&body)), (400, "both OS and Architecture must be provided"));
    let (status, body) = delete("v1.50", "platforms=%7B%22variant%22:%22v7%22%7D");
    let want = "optional platform fields provided, but OS and Architecture are missing";
    assert_eq!((status, &*message(&body)), (400, want));
    assert_eq!(delete("v1.50", "platforms=linux").0, 400);
    // A container needs what it runs of.
    let made = suite.tug(["create", &name, "true"]).ok();
    let (status, body) = delete("v1.50", &format!("platforms={}", document(host())));
    assert_eq!(status, 409, "{body}");
    suite.tug(["rm", &made]).ok();
    // Older versions know no platforms here: the name goes.
    assert_eq!(delete("v1.49", &format!("platforms={}", document("s390x"))).0, 200);
    suite.tug(["image", "inspect", &name]).fails(1);
    suite.tug(["image", "prune", "-f"]).ok();
    Outcome::Passed
}

fn parameters_of_the_images_routes_count_or_are_refused(suite: &Suite) -> Outcome {
    let two = format!("platform={}&platform={}", document("amd64"), document("arm64"));
    let several = "multiple platform parameters not supported";
    for (method, path) in [
        ("GET", "/images/busybox/get"),
        ("GET", "/images/get?names=busybox"),
        ("POST", "/images/load"),
    ] {
        let mark = if path.contains('?') { '&' } else { '?' };
        let (status, body) = suite.api(method, &format!("/v1.50{path}{mark}{two}"), None);
        assert_eq!((status, &*message(&body)), (400, several), "{path}");
    }
    // What a client has to tell a registry goes with each request to it.
    let image = Image::small();
    let server = Server::start(move |request, stream| image.answer(request, stream));
    let tell = |method: &str, path: &str| {
        let mut command = Command::new("curl");
        command.args([
            "-s",
            "--max-time",
            "30",
            "-X",
            method,
            "-H",
            "X-Meta-Word: said",
            "-H",
            "X-Other: kept",
        ]);
        run(command.arg("--unix-socket").arg(suite.socket()).arg(format!("http://d{path}"))).ok()
    };
    let name = format!("{}/meta", server.address);
    let said = tell("POST", &format!("/images/create?fromImage={name}&tag=latest"));
    assert!(said.contains("Status: Downloaded"), "{said}");
    tell("POST", &format!("/images/{name}/push?tag=latest"));
    tell("GET", &format!("/images/search?term={}/x", server.address));
    let seen = server.seen();
    for part in ["/manifests/", "/blobs/", "/v1/search"] {
        let of: Vec<_> = seen.iter().filter(|one| one.path.contains(part)).collect();
        assert!(!of.is_empty(), "nothing was asked of {part}");
        for one in of {
            assert_eq!((one.header("x-meta-word"), one.header("x-other")), ("said", ""), "{one:?}");
        }
    }
    suite.tug(["rmi", &name]).ok();
    Outcome::Passed
}

fn platforms_and_names_that_mean_nothing_are_refused(suite: &Suite) -> Outcome {
    let archive = suite.scratch().join("small.tar");
    fs::write(&archive, tar(&[entry(b'0', "x", "", b"content")])).unwrap();
    let archive = archive.to_str().unwrap();
    for cli in BOTH {
        for (platform, want) in [
            ("foo", "\"foo\": unknown operating system or architecture: invalid argument"),
            ("/", "\"\" is an invalid OS component of \"/\""),
            ("linux/*", "\"linux/*\": wildcards not yet supported: invalid argument"),
        ] {
            for args in [
                &["pull", "--platform", platform, "busybox"][..],
                &["import", "--platform", platform, archive],
            ] {
                let said = suite.run(cli, args).fails(1);
                assert!(said.contains(want), "{args:?}: {said}");
            }
        }
        let said = suite.run(cli, ["import", "--platform", "macos/arm64", archive]).fails(1);
        assert!(said.contains("operating system is not supported"), "{said}");
        let said = suite.run(cli, ["tag", "busybox", "sha256:some"]).fails(1);
        let want = "refusing to create an ambiguous tag using digest algorithm as name";
        assert!(said.contains(want), "{said}");
        let said =
            suite.run(cli, ["image", "inspect", "--platform", "windows/amd64", "busybox"]).fails(1);
        let want = "image with reference busybox was found but its platform (linux/";
        assert!(
            said.to_lowercase().contains(want)
                && said.contains("does not match the specified platform (windows/amd64)"),
            "{said}"
        );
    }
    Outcome::Passed
}

fn a_pull_shows_how_far_unpacking_is(suite: &Suite) -> Outcome {
    let registry = Fixture::start();
    registry.image("shown", "v", &image(vec![noise(suite, 2 << 20)]));
    let told = || {
        let path = format!("/images/create?fromImage={}/shown&tag=v", registry.address);
        let (_, body) = suite.api("POST", &path, None);
        let lines: Vec<Value> =
            body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let place = |text: &str| lines.iter().rposition(|line| line["status"] == text);
        let (extracting, complete) = (place("Extracting"), place("Pull complete"));
        assert!(extracting.is_some() && extracting < complete, "{body}");
        let detail = &lines[extracting.unwrap()]["progressDetail"];
        assert!(
            detail["total"].as_u64() > Some(0) && detail["current"] == detail["total"],
            "{body}"
        );
        assert!(
            lines[extracting.unwrap()]["progress"].as_str().is_some_and(|bar| bar.contains("[===")),
            "{body}"
        );
    };
    told();
    // A blob that is here still is unpacked in the same sight.
    let name = format!("{}/shown:v", registry.address);
    let kept = suite.tug(["image", "inspect", "-f", "{{.Id}}", &name]).ok();
    suite.tug(["rmi", &name]).ok();
    assert!(kept.starts_with("sha256:"));
    told();
    suite.tug(["rmi", &name]).ok();
    Outcome::Passed
}

fn now() -> String {
    shell("date +%s.%N").ok()
}

fn images_tell_of_themselves_with_their_labels(suite: &Suite) -> Outcome {
    let registry = Fixture::start();
    let name = format!("{}/told:v", registry.address);
    let archive = suite.scratch().join("told.tar");
    let archive = archive.to_str().unwrap();
    let since = now();
    let input = fs::read(suite.image_tar("busybox")).unwrap();
    suite
        .run_with_input(
            crate::harness::Cli::Tug,
            ["import", "-c", "LABEL mark=here", "-", &name],
            &input,
        )
        .ok();
    suite.tug(["push", "-q", &name]).ok();
    suite.tug(["save", "-o", archive, &name]).ok();
    suite.tug(["rmi", &name]).ok();
    suite.tug(["pull", "-q", &name]).ok();
    suite.tug(["rmi", &name]).ok();
    let before_load = now();
    suite.tug(["load", "-i", archive]).ok();
    let until = now();
    for cli in BOTH {
        let events = |since: &str, filter: &str| {
            let format = "{{.Action}}";
            let args = [
                "events",
                "--since",
                since,
                "--until",
                &until,
                "--filter",
                "type=image",
                "--filter",
                filter,
                "--format",
                format,
            ];
            suite.run(cli, args).ok().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let labelled = events(&since, "label=mark=here");
        for action in ["import", "tag", "push", "save", "untag", "pull", "load"] {
            assert!(
                labelled.iter().any(|known| known == action),
                "{action} is not in {labelled:?}"
            );
        }
        // A load is one event, whatever names it gives.
        assert_eq!(events(&before_load, "label=mark=here"), ["load"]);
    }
    suite.tug(["rmi", &name]).ok();
    Outcome::Passed
}

/// A server with an archive at `/b/other` alone, to which everything else leads.
fn leading() -> Server {
    let archive = tar(&[entry(b'0', "file", "", b"reached")]);
    Server::start(move |request, stream| {
        let to = match request.path.as_str() {
            "/b/other" | "/a/other" | "/other" | "/a/x?there=1" => {
                return reply(stream, "200 OK", &[], &archive);
            }
            "/a/dot" => "./other".to_owned(),
            "/a/up" => "../b/other".to_owned(),
            "/a/x" => "?there=1".to_owned(),
            "/a/name" => "other#part".to_owned(),
            "/a/root" => "/b/./c/../other".to_owned(),
            "/a/host" => format!("//{}/b/other", request.header("host")),
            "/a/whole" => format!("HTTP://{}/b/other", request.header("host")),
            "/a/again" => "up".to_owned(),
            "/a/loop" => "./loop".to_owned(),
            "/a/ftp" => "ftp://127.0.0.1/x".to_owned(),
            _ => return reply(stream, "302 Found", &[], b""),
        };
        reply(stream, "302 Found", &[&format!("Location: {to}")], b"");
    })
}

fn redirects_of_every_form_are_followed(suite: &Suite) -> Outcome {
    let server = leading();
    let places = ["dot", "up", "x", "name", "root", "host", "whole", "again"];
    let adds: Vec<String> = places
        .iter()
        .map(|place| format!("ADD http://{}/a/{place} /{place}.tar\n", server.address))
        .collect();
    for cli in BOTH {
        let directory = suite.scratch();
        fs::write(directory.join("Dockerfile"), format!("FROM scratch\n{}", adds.concat()))
            .unwrap();
        let at = directory.to_str().unwrap();
        suite.run(cli, ["build", "--no-cache", "-q", "-t", "led:1", at]).ok();
        suite.run(cli, ["rmi", "led:1"]).ok();
        for place in places {
            let id =
                suite.run(cli, ["import", &format!("http://{}/a/{place}", server.address)]).ok();
            let id = id.lines().last().unwrap_or_default().trim().to_owned();
            suite.run(cli, ["rmi", &id]).ok();
        }
        for (place, want) in [
            ("loop", "stopped after 10 redirects"),
            ("ftp", "unsupported protocol scheme \"ftp\""),
            ("nowhere", "302 Found"),
        ] {
            let url = format!("http://{}/a/{place}", server.address);
            let said = suite.run(cli, ["import", &url]).fails(1);
            assert!(said.contains(want), "{place}: {said}");
            fs::write(directory.join("Dockerfile"), format!("FROM scratch\nADD {url} /x\n"))
                .unwrap();
            let said = suite.run(cli, ["build", "--no-cache", "-q", at]).fails(1);
            assert!(said.contains(want), "{place}: {said}");
        }
    }
    // The blobs of a registry lie elsewhere, as its redirects say.
    let image = Image::of(&[Layer::gzip(&tar(&[entry(b'0', "x", "", b"led")]))]);
    let registry = Server::start(move |request, stream| {
        let name = request.path.rsplit('/').next().unwrap_or_default().to_owned();
        match request.path.split('/').nth(3) {
            Some("blobs") => {
                let to = format!("Location: ../stored/./{name}#x");
                reply(stream, "307 Temporary Redirect", &[&to], b"");
            }
            Some("stored") => reply(stream, "200 OK", &[], image.blob(&name).unwrap_or_default()),
            _ => image.answer(request, stream),
        }
    });
    let name = format!("{}/led", registry.address);
    suite.tug(["pull", "-q", &name]).ok();
    suite.tug(["rmi", &name]).ok();
    Outcome::Passed
}

fn images_are_chosen_by_all_of_their_filters(suite: &Suite) -> Outcome {
    let input = fs::read(suite.image_tar("busybox")).unwrap();
    for place in 1..=3 {
        let (label, name) = (format!("LABEL place={place}"), format!("chosen:{place}"));
        suite
            .run_with_input(crate::harness::Cli::Tug, ["import", "-c", &label, "-", &name], &input)
            .ok();
    }
    suite.tug(["tag", "chosen:1", "chosen/other:1"]).ok();
    for cli in BOTH {
        let listed = |filters: &[&str]| {
            let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
            let args = [
                "images",
                "--format",
                "{{.Repository}}:{{.Tag}}",
                "--filter",
                "reference=chosen:*",
            ];
            suite
                .run(cli, args.into_iter().chain(filters))
                .ok()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(listed(&[]), ["chosen:3", "chosen:2", "chosen:1"]);
        assert_eq!(listed(&["before=chosen:3"]), ["chosen:2", "chosen:1"]);
        // Of several all hold.
        assert_eq!(listed(&["before=chosen:2", "before=chosen:3"]), ["chosen:1"]);
        assert_eq!(listed(&["before=chosen:3", "before=chosen:2"]), ["chosen:1"]);
        assert_eq!(listed(&["since=chosen:1", "since=chosen:2"]), ["chosen:3"]);
        assert_eq!(listed(&["since=chosen:2", "since=chosen:1"]), ["chosen:3"]);
        assert_eq!(listed(&["label=place=2"]), ["chosen:2"]);
        assert_eq!(listed(&["label=place=2", "label=place=3"]), Vec::<String>::new());
        let said = suite.run(cli, ["images", "--filter", "reference=chosen["]).fails(1);
        assert!(said.contains("syntax error in pattern"), "{said}");
        // One row for each image, whatever its names.
        let usage = suite.run(cli, ["system", "df", "-v"]).ok();
        let images = usage.split("Containers space usage").next().unwrap();
        let rows = images.lines().filter(|line| line.starts_with("chosen")).count();
        assert_eq!(rows, 3, "{images}");
    }
    suite.tug(["rmi", "chosen:1", "chosen/other:1", "chosen:2", "chosen:3"]).ok();
    Outcome::Passed
}

/// Other engines, other readers of gzip.
fn what_is_pushed_is_gzip_for_everybody(suite: &Suite) -> Outcome {
    let registry = Fixture::start();
    let directory = suite.scratch();
    let at = directory.display();
    // Longer than a block, with what gets smaller, what does not, and runs.
    shell(&format!(
        "cd {at} && mkdir in && head -c 3000000 /dev/urandom > in/noise && seq 400000 > in/numbers && head -c 3000000 /dev/zero > in/zero && tar -C in -cf in.tar noise numbers zero"
    ))
    .ok();
    let plain = fs::read(directory.join("in.tar")).unwrap();
    let name = format!("{}/plain:v", registry.address);
    suite.run_with_input(crate::harness::Cli::Tug, ["import", "-", &name], &plain).ok();
    suite.tug(["push", "-q", &name]).ok();
    let manifest = shell(&format!("curl -s http://{}/v2/plain/manifests/v", registry.address)).ok();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], media_type::DOCKER_LAYER_GZIP);
    let blob =
        format!("http://{}/v2/plain/blobs/{}", registry.address, layer["digest"].as_str().unwrap());
    shell(&format!(
        "cd {at} && curl -s -o blob.gz {blob} && gzip -t blob.gz && gzip -dc blob.gz | cmp - in.tar"
    ))
    .ok();
    let python = "import gzip; assert gzip.open('blob.gz').read() == open('in.tar', 'rb').read()";
    shell(&format!("cd {at} && python3 -c \"{python}\"")).ok();
    // The second push of the layer sends and compresses nothing.
    let sent = registry.state().taken;
    let again = format!("{}/plain:again", registry.address);
    suite.tug(["tag", &name, &again]).ok();
    let said = suite.tug(["push", &again]).ok();
    assert!(said.contains("Layer already exists"), "{said}");
    assert_eq!(registry.state().taken, sent);
    suite.tug(["rmi", &name, &again]).ok();
    Outcome::Passed
}

/// Kept blobs that are gzip.
fn layers_kept(suite: &Suite) -> usize {
    let directory = fs::read_dir(suite.data_root().join("content/blobs")).unwrap();
    let blobs = directory.flatten().filter_map(|blob| fs::read(blob.path()).ok());
    blobs.filter(|bytes| bytes.starts_with(&[0x1f, 0x8b])).count()
}

fn what_a_registry_may_get_is_compressed_ahead(suite: &Suite) -> Outcome {
    let registry = Fixture::start();
    let before = layers_kept(suite);
    let import = |mark: &str, name: &str| {
        let plain = tar(&[entry(b'0', "x", "", mark.as_bytes())]);
        suite.run_with_input(crate::harness::Cli::Tug, ["import", "-", name], &plain).ok();
    };
    // Nobody can push the first; the second is behind it in the queue.
    import("stays", "ahead-stays:1");
    let name = format!("{}/ahead:1", registry.address);
    import("goes", &name);
    // On its way in.
    assert_eq!(layers_kept(suite), before + 1);
    let digest = suite.tug(["push", &name]).ok();
    assert!(
        registry.digest_of("ahead", "1").is_some_and(|known| digest.contains(&known.to_string())),
        "{digest}"
    );
    assert_eq!(layers_kept(suite), before + 1);
    // What comes to such a name later is compressed when there is time.
    let later = format!("{}/ahead:2", registry.address);
    suite.tug(["tag", "ahead-stays:1", &later]).ok();
    wait_for("a blob of the layer", PATIENCE, || layers_kept(suite) == before + 2);
    let said = suite.tug(["push", &later]).ok();
    assert!(said.contains("Pushed"), "{said}");
    assert_eq!(layers_kept(suite), before + 2);
    suite.tug(["rmi", &name, &later, "ahead-stays:1"]).ok();
    wait_for("the blob's end", PATIENCE, || layers_kept(suite) == before);
    Outcome::Passed
}
