//! Logging in and out: Docker's words, the config file, credential helpers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::registry::{Registry, without};
use crate::harness::{BOTH, Cli, Outcome, Output, Suite, run};

super::cases! {
    logins_of_both_command_lines_are_the_same,
    a_login_keeps_what_else_is_in_the_config_file,
    a_credential_helper_keeps_the_password,
}

const ADDRESS: &str = "127.0.0.1:5001";
/// `me` with the password `secret`, in bcrypt.
const PASSWORDS: &str = "me:$2y$04$MsIbOBOy0jBEcbzoARz1WO3v8BIOJ37YiyWwSOvB7SdU4sfwzviES\n";

fn guarded_registry(suite: &Suite) -> Option<Registry> {
    let passwords = suite.scratch().join("htpasswd");
    fs::write(&passwords, PASSWORDS).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: Realm, path: {}}}}}\n", passwords.display());
    Registry::start_with(suite, ADDRESS, &auth)
}

fn typed(suite: &Suite, cli: Cli, config: &Path, args: &[&str], input: &str) -> Output {
    let file = suite.scratch().join("input");
    fs::write(&file, input).unwrap();
    let mut command = suite.command(cli);
    command.env("DOCKER_CONFIG", config).args(args).stdin(fs::File::open(&file).unwrap());
    let mut output = run(&mut command);
    for text in [&mut output.stdout, &mut output.stderr] {
        *text = text.replace(config.to_str().unwrap(), "CONFIG");
    }
    output
}

fn logins_of_both_command_lines_are_the_same(suite: &Suite) -> Outcome {
    let Some(_registry) = guarded_registry(suite) else { return without() };
    let configs = BOTH.map(|cli| suite.scratch().join(format!("login-{cli:?}")));
    let both = |args: &[&str], input: &str| {
        let [tug, docker] = [0, 1].map(|at| typed(suite, BOTH[at], &configs[at], args, input));
        assert_eq!((&tug.stdout, &tug.stderr), (&docker.stdout, &docker.stderr), "{args:?}");
        assert_eq!(tug.code, docker.code, "{args:?}");
        let [ours, theirs] =
            [0, 1].map(|at| fs::read_to_string(configs[at].join("config.json")).ok());
        // Nothing to forget leaves no file here.
        assert!(ours == theirs || ours.is_none(), "{args:?}: {ours:?} {theirs:?}");
        tug
    };
    both(&["login", ADDRESS], "").fails(1);
    both(&["login", "-u", "me", "--password-stdin", ADDRESS], "wrong\n").fails(1);
    let first = both(&["login", "-u", "me", "--password-stdin", ADDRESS], "secret\n");
    assert!(first.stderr.contains("WARNING! Your credentials are stored unencrypted"));
    assert_eq!(first.ok(), "Login Succeeded");
    let file = configs[0].join("config.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = both(&["login", ADDRESS], "");
    assert!(again.stderr.starts_with("Authenticating with existing credentials... [Username: me]"));
    assert_eq!(again.ok(), "Login Succeeded");
    both(&["login", "-u", "me", "-p", "secret", &format!("https://{ADDRESS}/v2/")], "").ok();
    for args in [
        &["login", "--password-stdin", ADDRESS][..],
        &["login", "-u", "me", "-p", "x", "--password-stdin", ADDRESS],
        &["login", "-u", "me", "-p", "", ADDRESS],
        &["login", "-u", "", "-p", "x", ADDRESS],
    ] {
        both(args, "").fails(1);
    }
    // The stored password serves a push and a pull.
    let name = format!("{ADDRESS}/mine");
    suite.run(Cli::Tug, ["tag", "busybox", &name]).ok();
    both(&["push", "-q", &name], "").ok();
    suite.run(Cli::Tug, ["rmi", &name]).ok();
    both(&["pull", "-q", &name], "").ok();
    suite.run(Cli::Tug, ["rmi", &name]).ok();
    both(&["logout", ADDRESS], "").ok();
    both(&["logout", ADDRESS], "").ok();
    both(&["logout"], "").ok();
    both(&["pull", "-q", &name], "").fails(1);
    Outcome::Passed
}

fn a_login_keeps_what_else_is_in_the_config_file(suite: &Suite) -> Outcome {
    let Some(_registry) = guarded_registry(suite) else { return without() };
    let config = suite.scratch();
    let file = config.join("config.json");
    fs::write(&file, r#"{"psFormat":"{{.ID}}","ours":{"z":1,"a":[1.5]}}"#).unwrap();
    typed(suite, Cli::Tug, &config, &["login", "-u", "me", "-p", "secret", ADDRESS], "").ok();
    let text = fs::read_to_string(&file).unwrap();
    let bare: String = text.split_whitespace().collect();
    assert_eq!(
        bare,
        r#"{"psFormat":"{{.ID}}","ours":{"z":1,"a":[1.5]},"auths":{"127.0.0.1:5001":{"auth":"bWU6c2VjcmV0"}}}"#
    );
    assert_eq!(fs::read_dir(&config).unwrap().count(), 1, "a temporary file was left");
    Outcome::Passed
}

fn a_credential_helper_keeps_the_password(suite: &Suite) -> Outcome {
    let Some(_registry) = guarded_registry(suite) else { return without() };
    for cli in BOTH {
        let dir = suite.scratch();
        let helper = dir.join("docker-credential-test");
        let kept = dir.join("kept");
        let script = format!(
            "#!/bin/sh\ncase $1 in\nstore) cat > {0};;\nget) [ -e {0} ] && cat {0} || {{ echo 'credentials not found in native keychain'; exit 1; }};;\nerase) rm -f {0};;\nesac\n",
            kept.display()
        );
        fs::write(&helper, script).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        let config = dir.join("config");
        fs::create_dir_all(&config).unwrap();
        let file = config.join("config.json");
        fs::write(&file, format!(r#"{{"credHelpers":{{"{ADDRESS}":"test"}}}}"#)).unwrap();
        let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
        let typed = |args: &[&str]| {
            let mut command = suite.command(cli);
            run(command.env("DOCKER_CONFIG", &config).env("PATH", &path).args(args))
        };
        let login = typed(&["login", "-u", "me", "-p", "secret", ADDRESS]);
        assert!(!login.stderr.contains("unencrypted"), "{}", login.stderr);
        assert_eq!(login.ok(), "Login Succeeded");
        assert!(fs::read_to_string(&kept).unwrap().contains(r#""Secret":"secret""#));
        assert!(!fs::read_to_string(&file).unwrap().contains("\"auth\""));
        assert_eq!(typed(&["login", ADDRESS]).ok(), "Login Succeeded");
        typed(&["logout", ADDRESS]).ok();
        assert!(!kept.exists());
        assert!(!fs::read_to_string(&file).unwrap().contains("\"auths\":{\""));
    }
    Outcome::Passed
}
