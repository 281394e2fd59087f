//! The daemon's own settings: TLS on the network, and what flags and `daemon.json` change.

use std::path::Path;
use std::process::Command;

use super::cases;
use crate::harness::{BOTH, Cli, Outcome, Output, Suite, run, shell};

cases![tls_serves_only_who_shows_a_certificate];

/// An authority, a server's and a client's certificate, and somebody else's (`other`).
fn certificates(suite: &Suite) -> std::path::PathBuf {
    let directory = suite.scratch();
    let script = r#"
        key="-nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
        openssl req -new -x509 -days 30 $key -keyout ca-key.pem -out ca.pem -subj /CN=authority
        sign() {
            mkdir -p "$1" && cp ca.pem "$1"
            openssl req -new $key -keyout "$1/key.pem" -out "$1.csr" -subj "/CN=$1"
            echo "$2" > "$1.ext"
            openssl x509 -req -days 30 -in "$1.csr" -CA ca.pem -CAkey ca-key.pem -CAcreateserial \
                -out "$1/cert.pem" -extfile "$1.ext"
        }
        sign server subjectAltName=DNS:localhost,IP:127.0.0.1
        sign client extendedKeyUsage=clientAuth
        mkdir other && cp ca.pem other
        openssl req -new -x509 -days 30 $key -keyout other/key.pem -out other/cert.pem -subj /CN=x
    "#;
    shell(&format!("set -e; cd {}; {script}", directory.display())).ok();
    directory
}

fn tls_serves_only_who_shows_a_certificate(suite: &Suite) -> Outcome {
    let files = certificates(suite);
    let path = |name: &str| files.join(name).to_str().unwrap().to_owned();
    suite.end_daemon("KILL");
    let [ca, cert, key] = [path("ca.pem"), path("server/cert.pem"), path("server/key.pem")];
    suite.start_daemon(&[
        "-H",
        "tcp://127.0.0.1:2399",
        "--tlsverify",
        "--tlscacert",
        &ca,
        "--tlscert",
        &cert,
        "--tlskey",
        &key,
    ]);
    let as_who = |cli: Cli, who: &Path, verify: &str, args: &[&str]| -> Output {
        let mut command = Command::new(suite.program(cli));
        command.env("DOCKER_CERT_PATH", who).env("DOCKER_TLS_VERIFY", verify);
        command.env("DOCKER_CONFIG", suite.scratch()).env_remove("DOCKER_CONTEXT");
        run(command.env("DOCKER_HOST", "tcp://localhost:2399").args(args))
    };
    let client = files.join("client");
    for cli in BOTH {
        // Attached streams go both ways, by halves.
        let echo = as_who(cli, &client, "1", &["run", "--rm", "busybox", "echo", "by TLS"]);
        assert_eq!(echo.ok(), "by TLS");
        let line = format!(
            "head -c 3000000 /dev/zero | DOCKER_CERT_PATH={} DOCKER_TLS_VERIFY=1 DOCKER_HOST=tcp://localhost:2399 {} run --rm -i busybox wc -c",
            client.display(),
            suite.program(cli).display()
        );
        assert_eq!(shell(&line).ok(), "3000000");
        let stranger = as_who(cli, &files.join("other"), "1", &["ps"]);
        assert_ne!(stranger.code, 0, "somebody else's certificate is refused");
        let plain = as_who(cli, &client, "", &["ps"]).fails(1);
        assert!(plain.contains("HTTP request to an HTTPS server"), "{plain}");
        let nobody = as_who(cli, &suite.scratch(), "1", &["ps"]).fails(1);
        assert!(nobody.contains("no such file or directory"), "{nobody}");
    }
    suite.end_daemon("KILL");
    suite.start_daemon(&[]);
    Outcome::Passed
}
