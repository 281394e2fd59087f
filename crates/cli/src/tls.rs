//! TLS to the daemon, as the command line, the environment and contexts ask for it.
//!
//! Source: docker CLI 28.2 `cli/flags/options.go`, `cli/context/docker/load.go`.

use std::path::{Path, PathBuf};

use api::client::{Tls, TlsFiles};

use crate::{args::Matches, context::env, failure::Failure};

/// Names of the files in `DOCKER_CERT_PATH`, in the user's directory, and in a context.
const AUTHORITY: &str = "ca.pem";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// Whether TLS is wanted: `--tlsverify` asks for it in either value, as does its variable.
pub fn wanted(global: &Matches) -> bool {
    global.on("tls") || env("DOCKER_TLS").is_some() || global.given("tlsverify") || verifies(global)
}

fn verifies(global: &Matches) -> bool {
    match global.given("tlsverify") {
        true => global.on("tlsverify"),
        false => env("DOCKER_TLS_VERIFY").is_some(),
    }
}

/// What the options say, with Docker's default places.
///
/// # Errors
/// When a file cannot be used.
pub fn from_options(global: &Matches, directory: &Path) -> Result<Tls, Failure> {
    let place = env("DOCKER_CERT_PATH").map_or_else(|| directory.to_owned(), PathBuf::from);
    let file = |flag: &str, name: &str| match global.find(flag) {
        Some(path) => (PathBuf::from(path), true),
        None => (place.join(name), false),
    };
    let (authority, _) = file("tlscacert", AUTHORITY);
    let (certificate, certificate_named) = file("tlscert", CERTIFICATE);
    let (key, key_named) = file("tlskey", KEY);
    // Default files that are not there are not asked for; a named one must be.
    let identity = certificate_named || key_named || (certificate.exists() && key.exists());
    load(&TlsFiles {
        authority: verifies(global).then_some(authority),
        identity: identity.then_some((certificate, key)),
    })
}

/// The files that `docker context create --docker ca=…,cert=…,key=…` keeps.
///
/// # Errors
/// When a file cannot be used.
pub fn from_context(directory: &Path, skip_verify: bool) -> Result<Option<Tls>, Failure> {
    let [authority, certificate, key] =
        [AUTHORITY, CERTIFICATE, KEY].map(|name| directory.join(name));
    if !authority.exists() && !certificate.exists() && !skip_verify {
        return Ok(None);
    }
    let files = TlsFiles {
        authority: (!skip_verify).then_some(authority),
        identity: (certificate.exists() && key.exists()).then_some((certificate, key)),
    };
    load(&files).map(Some)
}

fn load(files: &TlsFiles) -> Result<Tls, Failure> {
    Tls::load(files).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        Failure::new(format!("{error}{}", cause.unwrap_or_default()))
    })
}
