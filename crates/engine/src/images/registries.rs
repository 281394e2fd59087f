//! Which registries are asked and how: the settings, the files of `certs.d`, and the connections.
//!
//! A host's directory is `/etc/tug/certs.d/HOST[:PORT]/`, or else Docker's of the same name. It is
//! read for each piece of work, so a new certificate needs no restart: `*.crt` are authorities,
//! `NAME.cert` with `NAME.key` is what we show of ourselves.
//!
//! Source: moby `registry/registry.go`, `ReadCertsDirectory`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use registry::client::Trusting;
use registry::{Access, Client, Credentials, Endpoint, HostFiles, Policy, Role, Transport};
use spec::Reference;
use tokio::sync::Semaphore;
use tracing::warn;

use super::blobs::Blobs;
use super::pull::Pulls;
use crate::config::EngineConfig;
use crate::error::{Error, Kind, Result, chain};

/// Source: moby `daemon/config`, `DefaultMaxConcurrentDownloads`.
const DOWNLOADS_MAX: usize = 3;

const CERTS_DIRS: [&str; 2] = ["/etc/tug/certs.d", "/etc/docker/certs.d"];

/// What pulls and pushes share.
pub(crate) struct Registries {
    transport: Transport,
    policy: Arc<Policy>,
    pub(super) downloads: Arc<Semaphore>,
    pub(super) pulls: Mutex<Pulls>,
    pub(super) blobs: Blobs,
}

impl Registries {
    /// # Errors
    /// `Invalid` for settings that mean nothing.
    pub(crate) fn open(config: &EngineConfig) -> Result<Registries> {
        let policy = Policy::parse(&config.insecure_registries, &config.registry_mirrors)
            .map_err(|source| Error::caused(Kind::Invalid, source))?;
        let proxies = registry::Proxies {
            http: config.proxies.http.clone(),
            https: config.proxies.https.clone(),
            no: config.proxies.no.clone(),
        };
        Ok(Registries {
            transport: Transport::new(proxies),
            policy: Arc::new(policy),
            downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            pulls: Mutex::default(),
            blobs: Blobs::new(&config.data_root),
        })
    }

    /// Where to pull images of a domain from, in the order of trying.
    pub(super) fn pull_endpoints(&self, domain: &str) -> Vec<Endpoint> {
        self.policy.pull_endpoints(domain, &files)
    }

    /// The registry itself, in the order of trying.
    pub(super) fn registry_endpoints(&self, domain: &str) -> Vec<Endpoint> {
        self.policy.registry_endpoints(domain, &files)
    }

    /// Where to search: `host`, or Docker Hub's index.
    pub(super) fn search_endpoints(&self, host: Option<&str>) -> Vec<Endpoint> {
        match host {
            Some(host) => self.registry_endpoints(host),
            None => vec![registry::search::hub(self.trusting()(registry::search::HUB_INDEX))],
        }
    }

    pub(super) fn transport(&self) -> Transport {
        self.transport.clone()
    }

    pub(super) fn trusting(&self) -> Trusting {
        let policy = Arc::clone(&self.policy);
        Arc::new(move |authority| policy.trust(authority, files(authority)))
    }

    /// A client for `name`'s repository at one endpoint. Credentials are the registry's: mirrors get none.
    pub(super) async fn client(
        &self,
        endpoint: Endpoint,
        name: &Reference,
        credentials: &Credentials,
        access: Access,
    ) -> std::result::Result<Client, registry::Error> {
        let credentials = match endpoint.role {
            Role::Registry => credentials.clone(),
            Role::Mirror => Credentials::default(),
        };
        Client::open(self.transport(), endpoint, name.path(), credentials, access, self.trusting())
            .await
    }
}

fn files(authority: &str) -> HostFiles {
    let is_name = !authority.contains('/') && !authority.starts_with('.');
    let dirs = CERTS_DIRS.iter().map(|dir| Path::new(dir).join(authority));
    dirs.filter(|dir| is_name && dir.is_dir()).map(|dir| read_dir(&dir)).next().unwrap_or_default()
}

fn read_dir(dir: &Path) -> HostFiles {
    let mut found = HostFiles::default();
    let read = |path: &Path| match fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            warn!(path = %path.display(), error = chain(&error), "a registry's certificate cannot be read");
            None
        }
    };
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => found.authorities.extend(read(&path)),
            Some("cert") => {
                found.client = read(&path).zip(read(&path.with_extension("key"))).or(found.client);
            }
            _ => {}
        }
    }
    found
}

/// A registry's failure at the engine's door, in Docker's words for a pull of `name`.
///
/// Source: moby `distribution/errors.go`, `translatePullError`; `api/server/httpstatus`.
pub(super) fn pull_error(error: registry::Error, name: &Reference) -> Error {
    if let Some(refusal) = error.refusal() {
        let within = |what: String| Error::new(Kind::NotFound, format!("{what}: {refusal}"));
        let repository = name.familiar_name();
        if refusal.is("DENIED") {
            return within(format!(
                "pull access denied for {repository}, repository does not exist or may require 'docker login'"
            ));
        }
        if refusal.is("MANIFEST_UNKNOWN") {
            return within(format!("manifest for {} not found", name.familiar()));
        }
        if refusal.is("NAME_UNKNOWN") {
            return within(format!("repository {repository} not found"));
        }
    }
    plain_error(error, name.domain())
}

/// The same without a name in it.
pub(super) fn plain_error(error: registry::Error, domain: &str) -> Error {
    use registry::TransportError;
    let kind = match &error {
        registry::Error::Refused(refusal) => match refusal.status.as_u16() {
            401 => Kind::Unauthorized,
            403 => Kind::Forbidden,
            404 => Kind::NotFound,
            _ => Kind::Internal,
        },
        _ => Kind::Internal,
    };
    let unknown = match &error {
        registry::Error::Request(request) => match &request.source {
            TransportError::Certificate(why) => why.contains("unknown authority"),
            _ => false,
        },
        _ => false,
    };
    let mut error = Error::caused(kind, error);
    if unknown {
        error.message.push_str(&format!(
            " (to trust this registry, put its CA certificate into /etc/docker/certs.d/{domain}/ca.crt, \
             or list {domain} in \"insecure-registries\" of daemon.json)"
        ));
    }
    error
}

/// Whether the next endpoint may do better: nobody answered here, or a mirror has not got it.
pub(super) fn may_fall_back(error: &registry::Error, role: Role) -> bool {
    match (role, error) {
        (Role::Mirror, _) => true,
        (Role::Registry, registry::Error::Request(_)) => error.refusal().is_none(),
        (Role::Registry, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_directory_has_authorities_and_a_pair() {
        let dir = std::env::temp_dir().join(format!("tug-certs-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in [("ca.crt", "A"), ("me.cert", "C"), ("me.key", "K"), ("README", "R")] {
            fs::write(dir.join(name), text).unwrap();
        }
        let found = read_dir(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found.authorities, [b"A".to_vec()]);
        assert_eq!(found.client, Some((b"C".to_vec(), b"K".to_vec())));
        assert_eq!(files("../etc"), HostFiles::default());
    }
}
