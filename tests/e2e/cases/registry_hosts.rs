//! Which hosts are asked: mirrors, hosts.toml, insecure ranges, proxies; and the reload of all that.

use std::net::TcpStream;
use std::process::Command;

use serde_json::Value;

use crate::fixtures::http::{Server, reply};
use crate::fixtures::image::Image;
use crate::fixtures::registry::{Etc, Names};
use crate::harness::{BOTH, Cli, Outcome, Suite, run};

super::cases! {
    a_reload_changes_registries_and_tells_it,
    a_bad_file_changes_nothing,
    mirrors_are_asked_before_the_registry,
    hosts_toml_is_followed,
    what_is_wrong_in_hosts_toml_fails_the_pull_by_its_line,
    a_name_in_an_insecure_range_is_insecure,
    proxies_are_asked_for_what_is_not_near,
}

/// A registry that has one image under every name.
fn honest() -> Server {
    with(Image::small())
}

fn with(image: Image) -> Server {
    Server::start(move |request, stream| image.answer(request, stream))
}

fn absent(_: &crate::fixtures::http::Request, stream: &mut TcpStream) {
    let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    reply(stream, "404 Not Found", &[], body);
}

/// Whether any request was for something of a repository.
fn was_asked(server: &Server) -> bool {
    server.seen().iter().any(|request| request.path.contains("/manifests/"))
}

fn pulled(suite: &Suite, name: &str) -> String {
    let text = suite.tug(["pull", name]).ok();
    suite.tug(["rmi", name]).ok();
    text
}

fn a_reload_changes_registries_and_tells_it(suite: &Suite) -> Outcome {
    let etc = Etc;
    let settings = r#"{"insecure-registries":["10.7.0.0/16","reg.example:5000"],"registry-mirrors":["http://127.0.0.1:5999"],
        "labels":["zone=a"],"max-concurrent-downloads":7,"max-concurrent-uploads":2,"max-download-attempts":4}"#;
    etc.write("daemon.json", settings);
    let since = suite.tug(["info", "-f", "{{.SystemTime}}"]).ok();
    let said = suite.reload();
    assert!(said.contains("configuration reloaded"), "{said}");
    for cli in BOTH {
        let info = suite.run(cli, ["info"]).ok();
        for want in
            ["10.7.0.0/16", "reg.example:5000", "127.0.0.0/8", "http://127.0.0.1:5999/", "zone=a"]
        {
            assert!(info.contains(want), "{want} in {info}");
        }
        let until = suite.run(cli, ["info", "-f", "{{.SystemTime}}"]).ok();
        let filters =
            ["--filter", "type=daemon", "--filter", "event=reload", "--format", "{{json .}}"];
        let events = suite
            .run(cli, ["events", "--since", &since, "--until", &until].into_iter().chain(filters))
            .ok();
        let event: Value =
            serde_json::from_str(events.lines().next_back().unwrap_or_default()).unwrap();
        let actor = &event["Actor"];
        assert_eq!(actor["ID"].as_str().unwrap(), suite.run(cli, ["info", "-f", "{{.ID}}"]).ok());
        let attribute =
            |name: &str| actor["Attributes"][name].as_str().unwrap_or_default().to_owned();
        assert_eq!(attribute("insecure-registries"), r#"["10.7.0.0/16","reg.example:5000"]"#);
        assert_eq!(attribute("labels"), r#"["zone=a"]"#);
        assert_eq!(attribute("max-concurrent-downloads"), "7");
        assert_eq!(attribute("max-concurrent-uploads"), "2");
        assert_eq!(attribute("max-download-attempts"), "4");
        assert_eq!(attribute("default-runtime"), "tug");
        assert_eq!(attribute("name"), suite.run(cli, ["info", "-f", "{{.Name}}"]).ok());
    }
    etc.remove("daemon.json");
    suite.reload();
    let info = suite.tug(["info"]).ok();
    assert!(!info.contains("reg.example:5000") && !info.contains("zone=a"), "{info}");
    Outcome::Passed
}

fn a_bad_file_changes_nothing(suite: &Suite) -> Outcome {
    let etc = Etc;
    etc.write("daemon.json", r#"{"labels":["zone=b"]}"#);
    suite.reload();
    for (bad, why) in [
        (r#"{"labels":["#, "EOF while parsing"),
        (
            r#"{"labels":["zone=c"],"insecure-registries":["a b/c"]}"#,
            "insecure registry a b/c is not valid",
        ),
        (r#"{"labels":["zone=c"],"registry-mirrors":["ftp://x"]}"#, "invalid mirror"),
        (
            r#"{"labels":["zone=c"],"default-runtime":"nobody"}"#,
            "specified default runtime 'nobody' does not exist",
        ),
        (
            r#"{"labels":["zone=c"],"max-concurrent-downloads":-1}"#,
            "invalid max concurrent downloads: -1",
        ),
        (r#"{"labels":["zone=c"],"colour":"red"}"#, "colour"),
    ] {
        etc.write("daemon.json", bad);
        let said = suite.reload();
        assert!(said.contains("configuration not reloaded") && said.contains(why), "{said}");
        assert_eq!(suite.tug(["info", "-f", "{{.Labels}}"]).ok(), "[zone=b]");
    }
    etc.remove("daemon.json");
    suite.reload();
    Outcome::Passed
}

fn mirrors_are_asked_before_the_registry(suite: &Suite) -> Outcome {
    let (etc, mirror, empty) = (Etc, honest(), Server::start(absent));
    etc.write(
        "daemon.json",
        format!(
            r#"{{"registry-mirrors":["http://{}","http://{}/"]}}"#,
            empty.address, mirror.address
        ),
    );
    suite.reload();
    for cli in BOTH {
        let before = mirror.seen().len();
        let text = suite.run(cli, ["pull", "box:1"]).ok();
        assert!(text.contains("Status: Downloaded newer image for box:1"), "{text}");
        suite.run(cli, ["rmi", "box:1"]).ok();
        assert!(was_asked(&empty) && mirror.seen().len() > before);
    }
    assert!(mirror.seen().iter().any(|request| request.path == "/v2/library/box/manifests/1"));
    etc.remove("daemon.json");
    suite.reload();
    Outcome::Passed
}

fn hosts_toml_is_followed(suite: &Suite) -> Outcome {
    let (etc, first, second) = (Etc, Server::start(absent), honest());
    // The name itself leads nowhere: 127.0.0.9 has no such port.
    let name = "127.0.0.9:5998";
    let file = format!(
        "server = \"http://127.0.0.9:5998\"\n[host.\"http://{}\"]\n[host.\"http://{}/sub/path\"]\ncapabilities = [\"pull\", \"resolve\"]\n[host.\"http://{1}/sub/path\".header]\nx-team = \"net\"\n",
        first.address, second.address
    );
    etc.write(&format!("certs.d/{name}/hosts.toml"), &file);
    let text = pulled(suite, &format!("{name}/a/b:1"));
    assert!(text.contains("Status: Downloaded newer image"), "{text}");
    assert!(was_asked(&first) && was_asked(&second));
    let seen = second.seen();
    let content: Vec<_> = seen.iter().filter(|request| request.path.contains("/a/b/")).collect();
    assert!(content.iter().all(|request| request.header("x-team") == "net"), "{content:#?}");
    let manifest = content.iter().find(|request| request.path.contains("/manifests/1")).unwrap();
    assert_eq!(manifest.path, "/sub/path/v2/a/b/manifests/1?ns=127%2E0%2E0%2E9%3A5998");
    // Whoever only resolves says what a tag is; the bytes come from whoever only gives bytes.
    let image = Image::small();
    let (resolver, giver) = (with(image.clone()), with(image));
    let file = format!(
        "server = \"http://127.0.0.9:5998\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n[host.\"http://{}\"]\ncapabilities = [\"resolve\"]\n",
        giver.address, resolver.address
    );
    etc.write(&format!("certs.d/{name}/hosts.toml"), &file);
    pulled(suite, &format!("{name}/a/b:1"));
    let asked = |server: &Server, part: &str| {
        server.seen().iter().any(|request| request.path.contains(part))
    };
    assert!(asked(&resolver, "/manifests/1") && !asked(&resolver, "/blobs/"));
    assert!(asked(&giver, "/blobs/") && !asked(&giver, "/manifests/1"));
    assert!(asked(&giver, "/manifests/sha256:"));
    // Another's directory, and the one for all.
    etc.remove("certs.d");
    let other = honest();
    etc.write(
        "certs.d/_default/hosts.toml",
        format!("[host.\"http://{}/v2\"]\noverride_path = true\n", other.address),
    );
    pulled(suite, "nowhere.invalid/a/b:1");
    assert!(asked(&other, "/v2/a/b/manifests/1?ns=nowhere%2Einvalid"), "{:#?}", other.seen());
    Outcome::Passed
}

fn what_is_wrong_in_hosts_toml_fails_the_pull_by_its_line(suite: &Suite) -> Outcome {
    let etc = Etc;
    let path = "certs.d/127.0.0.9:5998/hosts.toml";
    for (text, why) in [
        (
            "[host.\"http://127.0.0.1:1\"]\n\ncapabilities = [\"fly\"]\n",
            ":3: unknown capability \"fly\"",
        ),
        (
            "[host.\"http://127.0.0.1:1\"]\nca = \"gone.crt\"\n",
            ":2: gone.crt: no such file or directory",
        ),
        ("server = \n", ":1: "),
    ] {
        etc.write(path, text);
        for cli in BOTH {
            let said = suite.run(cli, ["pull", "127.0.0.9:5998/x"]).fails(1);
            assert!(said.contains(&format!("/etc/docker/{path}{why}")), "{said}");
        }
    }
    Outcome::Passed
}

fn a_name_in_an_insecure_range_is_insecure(suite: &Suite) -> Outcome {
    let (etc, server) = (Etc, honest());
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    // An address of this namespace that is not loopback's, so that nothing is insecure by itself.
    run(Command::new("ip").args(["addr", "add", "10.77.0.1/32", "dev", "lo"])).ok();
    let image = Image::small();
    let far = Server::start_at("10.77.0.1:0", move |request, stream| image.answer(request, stream));
    let far_port = far.address.rsplit(':').next().unwrap().to_owned();
    let names = Names::add(suite, "127.0.0.1 near.example\n10.77.0.1 far.example");
    // What resolves to loopback is insecure by itself, as with Docker.
    pulled(suite, &format!("near.example:{port}/x"));
    let name = format!("far.example:{far_port}/x");
    let said = suite.tug(["pull", &name]).fails(1);
    assert!(said.contains("http: server gave HTTP response to HTTPS client"), "{said}");
    etc.write("daemon.json", r#"{"insecure-registries":["10.77.0.0/16"]}"#);
    suite.reload();
    pulled(suite, &name);
    etc.write("daemon.json", format!(r#"{{"insecure-registries":["far.example:{far_port}"]}}"#));
    suite.reload();
    pulled(suite, &name);
    etc.remove("daemon.json");
    suite.reload();
    suite.tug(["pull", &name]).fails(1);
    drop(names);
    run(Command::new("ip").args(["addr", "del", "10.77.0.1/32", "dev", "lo"])).ok();
    Outcome::Passed
}

fn proxies_are_asked_for_what_is_not_near(suite: &Suite) -> Outcome {
    let image = Image::small();
    let proxy = Server::start(move |request, stream| match request.method.as_str() {
        "CONNECT" => reply(stream, "403 Forbidden", &[], b""),
        _ => image.answer(request, stream),
    });
    let etc = Etc;
    etc.write(
        "daemon.json",
        format!(
            r#"{{"proxies":{{"http-proxy":"http://me:word@{0}","https-proxy":"http://{0}","no-proxy":"near.invalid"}},"insecure-registries":["far.invalid:5000"]}}"#,
            proxy.address
        ),
    );
    suite.end_daemon("KILL");
    suite.start_daemon(&[]);
    pulled(suite, "far.invalid:5000/x");
    let seen = proxy.seen();
    let connect = seen.iter().find(|request| request.method == "CONNECT").unwrap();
    assert_eq!(connect.path, "far.invalid:5000");
    let plain = seen.iter().find(|request| request.path.contains("/manifests/latest")).unwrap();
    assert_eq!(plain.path, "http://far.invalid:5000/v2/x/manifests/latest");
    assert_eq!(plain.header("proxy-authorization"), "Basic bWU6d29yZA==");
    let said = suite.run(Cli::Tug, ["pull", "near.invalid:5000/x"]).fails(1);
    assert!(said.contains("lookup near.invalid"), "{said}");
    etc.remove("daemon.json");
    suite.end_daemon("KILL");
    suite.start_daemon(&[]);
    Outcome::Passed
}
