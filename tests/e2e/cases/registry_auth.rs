//! Who we are to a registry: passwords, tokens, helpers, and what is said when they are wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

use crate::fixtures::http::{Server, reply};
use crate::fixtures::registry::{Auth, Registry, without};
use crate::fixtures::token;
use crate::harness::{BOTH, Cli, Outcome, Output, Suite, run};

super::cases! {
    a_password_lets_in_until_the_logout,
    tokens_are_fetched_for_what_is_done,
    a_helper_keeps_passwords_and_gives_them,
    credentials_come_with_a_request_in_every_form,
    a_blob_elsewhere_is_fetched_without_credentials,
    a_busy_registry_is_asked_again,
}

const ADDRESS: &str = "127.0.0.1:5100";
const TOKENS: &str = "127.0.0.1:5101";
const REALM: &str = "http://127.0.0.1:5101/token";

fn login(suite: &Suite, cli: Cli, password: &str) -> Output {
    suite.run_with_input(
        cli,
        ["login", "-u", "me", "--password-stdin", ADDRESS],
        password.as_bytes(),
    )
}

fn config(suite: &Suite) -> String {
    fs::read_to_string(suite.directory.join("config/config.json")).unwrap_or_default()
}

fn a_password_lets_in_until_the_logout(suite: &Suite) -> Outcome {
    let Some(_registry) = Registry::start(suite, ADDRESS, Auth::Password, None) else {
        return without();
    };
    let name = format!("{ADDRESS}/box");
    suite.tug(["tag", "busybox", &name]).ok();
    for cli in BOTH {
        let wrong = login(suite, cli, "wrong").fails(1);
        assert!(wrong.contains("401 Unauthorized"), "{wrong}");
        let nobody = suite.run(cli, ["push", &name]).fails(1);
        assert!(nobody.contains("no basic auth credentials"), "{nobody}");
        assert!(login(suite, cli, "secret").ok().contains("Login Succeeded"));
        assert!(config(suite).contains(ADDRESS), "{}", config(suite));
        suite.run(cli, ["push", &name]).ok();
        suite.run(cli, ["pull", &name]).ok();
        let out = suite.run(cli, ["logout", ADDRESS]).ok();
        assert_eq!(out, format!("Removing login credentials for {ADDRESS}"));
        let nobody = suite.run(cli, ["pull", &name]).fails(1);
        assert!(nobody.contains("no basic auth credentials"), "{nobody}");
    }
    Outcome::Passed
}

fn tokens_are_fetched_for_what_is_done(suite: &Suite) -> Outcome {
    let server = token::start(suite, TOKENS, 300);
    let Some(_registry) = Registry::start(suite, ADDRESS, Auth::Token(REALM), None) else {
        return without();
    };
    for cli in BOTH {
        let (public, copy) =
            (format!("{ADDRESS}/public/{cli:?}:v1"), format!("{ADDRESS}/mine/{cli:?}:v1"));
        let (public, copy) = (public.to_lowercase(), copy.to_lowercase());
        suite.run(cli, ["tag", "busybox", &public]).ok();
        suite.run(cli, ["tag", "busybox", &copy]).ok();
        let denied = suite.run(cli, ["push", &public]).fails(1);
        assert!(denied.contains("denied: requested access to the resource is denied"), "{denied}");
        let wrong = login(suite, cli, "wrong").fails(1);
        assert!(wrong.contains("unauthorized: incorrect username or password"), "{wrong}");
        assert!(login(suite, cli, "secret").ok().contains("Login Succeeded"));
        // Docker's client keeps the token that the login brought, as ours does.
        assert!(config(suite).contains("identitytoken"), "{}", config(suite));
        suite.run(cli, ["push", &public]).ok();
        suite.run(cli, ["push", &copy]).ok();
        suite.run(cli, ["logout", ADDRESS]).ok();
        suite.run(cli, ["rmi", &public]).ok();
        suite.run(cli, ["pull", &public]).ok();
        let denied = suite.run(cli, ["pull", &copy]).fails(1);
        let want = "repository does not exist or may require 'docker login': denied: requested access to the resource is denied";
        assert!(denied.contains("pull access denied for") && denied.contains(want), "{denied}");
    }
    let seen = server.seen();
    let refreshed = seen.iter().filter(|request| request.method == "POST");
    assert!(refreshed.clone().count() >= 2, "no identity token was used");
    let mounted = seen.iter().any(|request| {
        let scopes = [request.query("scope"), request.form("scope")].concat().join(" ");
        scopes.contains("/tug:pull,push repository:") && scopes.ends_with(":pull")
    });
    assert!(mounted, "no token was for two repositories: {seen:#?}");
    assert!(seen.iter().all(|request| [request.query("service"), request.form("service")].concat() == ["test"]));
    Outcome::Passed
}

fn a_helper_keeps_passwords_and_gives_them(suite: &Suite) -> Outcome {
    let Some(_registry) = Registry::start(suite, ADDRESS, Auth::Password, None) else {
        return without();
    };
    let dir = suite.scratch();
    let program = dir.join("docker-credential-e2e");
    let kept = dir.join("kept");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {0};;\nget) test -s {0} && cat {0} || {{ echo 'credentials not found in native keychain'; exit 1; }};;\nerase) rm -f {0};;\nlist) echo '{{}}';;\nesac\n",
        kept.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let name = format!("{ADDRESS}/box");
    suite.tug(["tag", "busybox", &name]).ok();
    for (cli, setting) in BOTH.into_iter().zip([
        r#"{"credsStore":"e2e"}"#.to_owned(),
        format!(r#"{{"credHelpers":{{"{ADDRESS}":"e2e"}}}}"#),
    ]) {
        let config = suite.scratch();
        fs::write(config.join("config.json"), setting).unwrap();
        let typed = |args: &[&str]| {
            let mut command = suite.command(cli);
            run(command.args(args).env("PATH", &path).env("DOCKER_CONFIG", &config))
        };
        typed(&["login", "-u", "me", "-p", "secret", ADDRESS]).ok();
        let text = fs::read_to_string(&kept).unwrap();
        assert!(text.contains("\"secret\"") && text.contains(ADDRESS), "{text}");
        let written = fs::read_to_string(config.join("config.json")).unwrap();
        assert!(!written.contains("bWU6c2VjcmV0"), "{written}");
        typed(&["push", &name]).ok();
        typed(&["logout", ADDRESS]).ok();
        assert!(!kept.exists());
        typed(&["push", &name]).fails(1);
    }
    Outcome::Passed
}

/// Asks the daemon to pull with a header of its own.
fn pull_with(suite: &Suite, name: &str, header: &str) -> String {
    let url = format!("http://d/images/create?fromImage={name}&tag=latest");
    let mut command = std::process::Command::new("curl");
    command.args(["-s", "--max-time", "30", "-X", "POST", "-H"]).arg(header);
    run(command.arg("--unix-socket").arg(suite.socket()).arg(url)).ok()
}

fn credentials_come_with_a_request_in_every_form(suite: &Suite) -> Outcome {
    let server = token::start(suite, TOKENS, 300);
    let Some(_registry) = Registry::start(suite, ADDRESS, Auth::Token(REALM), None) else {
        return without();
    };
    let name = format!("{ADDRESS}/mine/box");
    login(suite, Cli::Tug, "secret").ok();
    suite.tug(["tag", "busybox", &name]).ok();
    suite.tug(["push", &name]).ok();
    suite.tug(["logout", ADDRESS]).ok();
    let header = |text: String| format!("X-Registry-Auth: {}", URL_SAFE.encode(text));
    let password = header(r#"{"username":"me","password":"secret"}"#.to_owned());
    assert!(pull_with(suite, &name, &password).contains("Image is up to date"));
    let identity = header(format!(r#"{{"identitytoken":"{}"}}"#, token::REFRESH));
    assert!(pull_with(suite, &name, &identity).contains("Image is up to date"));
    // A token is sent as it is, also one that the registry does not take.
    let asked = server.seen().len();
    let own = header(r#"{"registrytoken":"x.y.z"}"#.to_owned());
    assert!(pull_with(suite, &name, &own).contains("unauthorized"));
    assert_eq!(server.seen().len(), asked);
    for broken in ["X-Registry-Auth: !", "X-Registry-Auth: e30=", "X-Other: x"] {
        let answer = pull_with(suite, &name, broken);
        assert!(answer.contains("pull access denied for"), "{answer}");
    }
    Outcome::Passed
}

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn a_blob_elsewhere_is_fetched_without_credentials(suite: &Suite) -> Outcome {
    let image = crate::fixtures::image::Image::small();
    let blobs = image.clone();
    let elsewhere = Server::start(move |request, stream| {
        let digest = request.path.rsplit('/').next().unwrap();
        reply(stream, "200 OK", &[], blobs.blob(digest).unwrap());
    });
    let there = elsewhere.address.clone();
    let shown = image.clone();
    let server = Server::start(move |request, stream| {
        let path = request.path.clone();
        if request.header("authorization") != "Basic bWU6c2VjcmV0" {
            let asks = ["WWW-Authenticate: Basic realm=\"x\""];
            return reply(stream, "401 Unauthorized", &asks, b"");
        }
        match path.rsplit('/').nth(1) {
            Some("manifests") => {
                let kind = format!("Content-Type: {MANIFEST}");
                reply(stream, "200 OK", &[&kind], &shown.manifest);
            }
            Some("blobs") => {
                let to = format!("Location: http://{there}{path}");
                reply(stream, "307 Temporary Redirect", &[&to], b"");
            }
            _ => reply(stream, "200 OK", &[], b"{}"),
        }
    });
    let auth =
        format!("X-Registry-Auth: {}", URL_SAFE.encode(r#"{"username":"me","password":"secret"}"#));
    let answer = pull_with(suite, &format!("{}/box", server.address), &auth);
    assert!(answer.contains("Status: Downloaded newer image"), "{answer}");
    let seen = elsewhere.seen();
    assert!(seen.len() >= 2, "{seen:?}");
    assert!(seen.iter().all(|request| request.header("authorization").is_empty()), "{seen:?}");
    Outcome::Passed
}

fn a_busy_registry_is_asked_again(suite: &Suite) -> Outcome {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let image = crate::fixtures::image::Image::small();
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request, stream| {
        if !request.path.contains("/box/") {
            return reply(stream, "200 OK", &[], b"{}");
        }
        // Every other time it is busy, in one way or another.
        match asked.fetch_add(1, Ordering::Relaxed) {
            0 => reply(stream, "429 Too Many Requests", &["Retry-After: 1"], b""),
            2 => reply(stream, "503 Service Unavailable", &["Retry-After: 1"], b""),
            4 => reply(stream, "500 Internal Server Error", &[], b"<html>"),
            _ => image.answer(request, stream),
        }
    });
    let name = format!("{}/box", server.address);
    let text = suite.tug(["pull", &name]).ok();
    assert!(text.contains("Status: Downloaded newer image"), "{text}");
    let limited = Server::start(|request, stream| match request.path.contains("/box/") {
        false => reply(stream, "200 OK", &[], b"{}"),
        true => {
            let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit."}]}"#;
            reply(stream, "429 Too Many Requests", &[], body);
        }
    });
    let text = suite.tug(["pull", &format!("{}/box", limited.address)]).fails(1);
    assert!(text.contains("toomanyrequests: You have reached your limit."), "{text}");
    Outcome::Passed
}
