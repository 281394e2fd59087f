//! The files of `certs.d`: a host's certificates, and who answers for it.
//!
//! A host's directory is `/etc/tug/certs.d/HOST[:PORT]/`, or else Docker's of the same name: `*.crt`
//! are authorities, `NAME.cert` with `NAME.key` is what we show of ourselves, and `hosts.toml` says who
//! is asked. The names that containerd has for the directory, `HOST_PORT_` and `_default` for all hosts
//! that have none, are taken too.
//!
//! Source: moby `registry/registry.go`, `ReadCertsDirectory`; containerd `docs/hosts.md`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::hosts::{self, HostsFile};
use crate::policy::HostFiles;

const CERTS_DIRS: [&str; 2] = ["/etc/tug/certs.d", "/etc/docker/certs.d"];
pub const HOSTS_FILE: &str = "hosts.toml";

/// What is wrong with a host's files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("open {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "missing key {} for client certificate {}. CA certificates must use the extension .crt",
        .key.display(), .certificate.display()
    )]
    NoKey { key: PathBuf, certificate: PathBuf },
    #[error("missing client certificate {} for key {}", .certificate.display(), .key.display())]
    NoCertificate { certificate: PathBuf, key: PathBuf },
    #[error("{}", .path.display())]
    NoText { path: PathBuf, source: std::string::FromUtf8Error },
    #[error("{}:{line}: {why}", .path.display())]
    Hosts { path: PathBuf, line: usize, why: String },
}

/// What the files say of `host[:port]`; nothing where it has no directory.
///
/// # Errors
/// A file cannot be read, has no counterpart, or means nothing.
pub fn read(authority: &str) -> Result<HostFiles, FilesError> {
    if authority.contains('/') || authority.starts_with('.') {
        return Ok(HostFiles::default());
    }
    let mut names = vec![authority.to_owned()];
    if let Some((host, port)) = authority.rsplit_once(':') {
        names.push(format!("{host}_{port}_"));
    }
    names.push("_default".to_owned());
    let dirs = names.iter().flat_map(|name| CERTS_DIRS.map(|dir| Path::new(dir).join(name)));
    match dirs.into_iter().find(|dir| dir.is_dir()) {
        Some(dir) => read_dir(&dir),
        None => Ok(HostFiles::default()),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, FilesError> {
    fs::read(path).map_err(|source| FilesError::Read { path: path.to_owned(), source })
}

fn read_dir(dir: &Path) -> Result<HostFiles, FilesError> {
    let mut found = HostFiles::default();
    let names: BTreeSet<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    for path in &names {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => found.authorities.push(read_file(path)?),
            Some("cert") => {
                let key = path.with_extension("key");
                if !names.contains(&key) {
                    return Err(FilesError::NoKey { key, certificate: path.clone() });
                }
                found.clients.push((read_file(path)?, read_file(&key)?));
            }
            Some("key") => {
                let certificate = path.with_extension("cert");
                if !names.contains(&certificate) {
                    return Err(FilesError::NoCertificate { certificate, key: path.clone() });
                }
            }
            _ => {}
        }
    }
    let path = dir.join(HOSTS_FILE);
    if names.contains(&path) {
        found.hosts = Some(read_hosts(&path)?);
    }
    Ok(found)
}

fn read_hosts(path: &Path) -> Result<HostsFile, FilesError> {
    let text = String::from_utf8(read_file(path)?)
        .map_err(|source| FilesError::NoText { path: path.to_owned(), source })?;
    let dir = path.parent().unwrap_or(path);
    let read = |name: &Path| -> io::Result<Vec<u8>> { fs::read(dir.join(name)) };
    hosts::parse(&text, &read).map_err(|error| FilesError::Hosts {
        path: path.to_owned(),
        line: error.line,
        why: error.why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    /// Lists what is read of a directory with these files.
    #[track_caller]
    fn check(files: &[(&str, &str)], want: expect_test::Expect) {
        let dir = std::env::temp_dir().join(format!("tug-certs-{}", spec::Id::random()));
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        let got = match read_dir(&dir) {
            Ok(found) => {
                let text = |pem: &Vec<u8>| String::from_utf8_lossy(pem).into_owned();
                let ca: Vec<_> = found.authorities.iter().map(text).collect();
                let clients: Vec<_> =
                    found.clients.iter().map(|(one, two)| (text(one), text(two))).collect();
                let hosts = found.hosts.map_or(0, |file| file.hosts.len());
                format!("ca={ca:?} clients={clients:?} hosts={hosts}")
            }
            Err(error) => {
                let text = error.to_string().replace(dir.to_str().unwrap(), "DIR");
                spec::errno::in_go_words(&text).into_owned()
            }
        };
        fs::remove_dir_all(&dir).unwrap();
        want.assert_eq(&got);
    }

    #[test]
    fn a_hosts_directory_has_authorities_and_pairs_and_hosts() {
        check(
            &[("ca.crt", "A"), ("me.cert", "C"), ("me.key", "K"), ("README", "R")],
            expect![[r#"ca=["A"] clients=[("C", "K")] hosts=0"#]],
        );
        check(
            &[("hosts.toml", "[host.\"https://m\"]\nca = \"x.crt\"\n"), ("x.crt", "X")],
            expect![[r#"ca=["X"] clients=[] hosts=1"#]],
        );
        assert_eq!(read("../etc").unwrap(), HostFiles::default());
    }

    #[test]
    fn what_is_wrong_in_a_hosts_directory_is_told_by_its_file() {
        check(
            &[("me.cert", "C")],
            expect![
                "missing key DIR/me.key for client certificate DIR/me.cert. CA certificates must use the extension .crt"
            ],
        );
        check(
            &[("me.key", "K")],
            expect!["missing client certificate DIR/me.cert for key DIR/me.key"],
        );
        check(
            &[("hosts.toml", "\n[host.\"https://m\"]\nca = \"gone.crt\"\n")],
            expect!["DIR/hosts.toml:3: gone.crt: no such file or directory"],
        );
    }
}
