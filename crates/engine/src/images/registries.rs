//! Which registries are asked and how: the settings, the files of `certs.d`, and the connections.
//!
//! A host's directory is read for each piece of work, so a new certificate needs no restart. What is
//! wrong with its files fails the work: a mirror or a certificate that silently does not count is
//! found out too late.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use registry::client::Trusting;
use registry::files::HOSTS_FILE;
use registry::policy::{HUB_DOMAIN, registry_of};
use registry::{
    Access, Client, Credentials, Endpoint, HostFiles, Policy, RequestError, Role, Transport,
    TransportError, Work,
};

use spec::Reference;
use tokio::sync::Semaphore;
use tracing::warn;

use super::ahead::Ahead;
use super::blobs::Blobs;
use super::download::Transfers;
use super::pull::Pulls;
use crate::config::{EngineConfig, Live};
use crate::error::{Error, Kind, Result};

/// What pulls and pushes share.
pub(crate) struct Registries {
    transport: Transport,
    current: RwLock<Arc<Current>>,
    pub(super) pulls: Mutex<Pulls>,
    pub(super) transfers: Arc<Transfers>,
    pub(super) blobs: Blobs,
    pub(super) ahead: Arc<Ahead>,
}

/// What a reload replaces. Work that has begun goes on with what it began with.
pub(super) struct Current {
    live: Live,
    policy: Policy,
    pub(super) downloads: Arc<Semaphore>,
    pub(super) uploads: Arc<Semaphore>,
}

impl Current {
    fn of(live: &Live) -> Result<Current> {
        let policy = Policy::parse(&live.insecure_registries, &live.registry_mirrors)
            .map_err(|source| Error::caused(Kind::Invalid, source))?;
        let places = |max: NonZeroU32| {
            let max = usize::try_from(max.get()).unwrap_or(Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(max))
        };
        Ok(Current {
            policy,
            downloads: places(live.downloads_max),
            uploads: places(live.uploads_max),
            live: live.clone(),
        })
    }

    pub(super) fn attempts_max(&self) -> u32 {
        self.live.download_attempts_max.get()
    }
}

impl Registries {
    /// # Errors
    /// `Invalid` for settings that mean nothing.
    pub(crate) fn open(config: &EngineConfig) -> Result<Registries> {
        let proxies = registry::Proxies {
            http: config.proxies.http.clone(),
            https: config.proxies.https.clone(),
            no: config.proxies.no.clone(),
        };
        Ok(Registries {
            transport: Transport::new(proxies),
            current: RwLock::new(Arc::new(Current::of(&config.live)?)),
            pulls: Mutex::default(),
            transfers: Arc::default(),
            blobs: Blobs::new(&config.data_root),
            ahead: Arc::default(),
        })
    }

    /// # Errors
    /// `Invalid` for settings that mean nothing; then the old ones stay.
    pub(crate) fn reload(&self, live: &Live) -> Result<()> {
        let mut new = Current::of(live)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if new.live.downloads_max == current.live.downloads_max {
            new.downloads = Arc::clone(&current.downloads);
        }
        if new.live.uploads_max == current.live.uploads_max {
            new.uploads = Arc::clone(&current.uploads);
        }
        *current = Arc::new(new);
        Ok(())
    }

    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where to go for images of a domain, in the order of trying.
    ///
    /// # Errors
    /// `Invalid` for what is wrong with the files of `certs.d`.
    pub(super) async fn endpoints(&self, domain: &str, work: Work) -> Result<Vec<Endpoint>> {
        let current = self.current();
        let addresses = self.addresses(&current.policy, domain).await;
        let endpoints = current.policy.endpoints(domain, work, &addresses, &files)?;
        if endpoints.is_empty() {
            let what = match work {
                Work::Pull => "pull",
                Work::Push => "push",
            };
            return Err(Error::invalid(format!("{HOSTS_FILE} of {domain} has no host to {what}")));
        }
        Ok(endpoints)
    }

    /// Where to ask who we are: the registry alone.
    ///
    /// # Errors
    /// As [`Registries::endpoints`].
    pub(super) async fn login_endpoints(&self, domain: &str) -> Result<Vec<Endpoint>> {
        let mut endpoints = self.endpoints(domain, Work::Pull).await?;
        endpoints.retain(|endpoint| endpoint.role == Role::Registry);
        Ok(endpoints)
    }

    /// Where to search: `host`, or Docker Hub's index.
    ///
    /// # Errors
    /// As [`Registries::endpoints`].
    pub(super) async fn search_endpoints(&self, host: Option<&str>) -> Result<Vec<Endpoint>> {
        match host {
            Some(host) => self.login_endpoints(host).await,
            None => Ok(vec![registry::search::hub(self.trusting()(registry::search::HUB_INDEX))]),
        }
    }

    /// The addresses of a domain whose insecurity depends on them.
    async fn addresses(&self, policy: &Policy, domain: &str) -> Vec<IpAddr> {
        if domain == HUB_DOMAIN || policy.is_insecure(domain, &[]) {
            return Vec::new();
        }
        self.transport.addresses(registry_of(domain)).await
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport.clone()
    }

    /// How hosts are trusted that a registry leads to.
    pub(crate) fn trusting(&self) -> Trusting {
        let current = self.current();
        Arc::new(move |authority| {
            let files = files(authority).unwrap_or_else(|error| {
                warn!(authority, error = error.message, "a host's certificates do not count");
                HostFiles::default()
            });
            Arc::new(current.policy.trust(authority, &[], files))
        })
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

fn files(authority: &str) -> Result<HostFiles> {
    registry::files::read(authority).map_err(|source| Error::caused(Kind::Invalid, source))
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
    plain_error(error)
}

/// The same without a name in it.
pub(super) fn plain_error(error: registry::Error) -> Error {
    let unknown = match &error {
        registry::Error::Request(request) => match &request.source {
            TransportError::Certificate(why) if why.contains("unknown authority") => {
                request.url.split('/').nth(2).map(str::to_owned)
            }
            _ => None,
        },
        _ => None,
    };
    let mut error = Error::caused(Kind::Upstream, error);
    if let Some(host) = unknown {
        error.message.push_str(&format!(
            " (to trust this registry, put its CA certificate into /etc/docker/certs.d/{host}/ca.crt, \
             or list {host} in \"insecure-registries\" of daemon.json)"
        ));
    }
    error
}

/// The same for a push, where Docker does not say which request needed what was not given.
///
/// Source: moby `distribution/errors.go`, `retryOnError`.
pub(super) fn push_error(error: registry::Error) -> Error {
    match error {
        registry::Error::Request(RequestError {
            source: source @ (TransportError::Auth(_) | TransportError::Refused(_)),
            ..
        }) => Error::caused(Kind::Upstream, source),
        other => plain_error(other),
    }
}

/// Of the failures of several endpoints the one to tell.
#[derive(Default)]
pub(super) struct Failed(Option<registry::Error>);

impl Failed {
    /// The last one counts, but an unknown certificate says more than the plain connection that was
    /// refused after it.
    pub(super) fn note(&mut self, error: registry::Error) {
        let is_certificate = |known: &registry::Error| match known {
            registry::Error::Request(request) => {
                matches!(request.source, TransportError::Certificate(_))
            }
            _ => false,
        };
        if !self.0.as_ref().is_some_and(is_certificate) {
            self.0 = Some(error);
        }
    }

    pub(super) fn error(self, domain: &str) -> Error {
        match self.0 {
            Some(error) => plain_error(error),
            None => Error::not_found(format!("no endpoints found for {domain}")),
        }
    }
}

/// Whether the next endpoint may do better: nobody answered here, or a mirror has not got it. A
/// registry that speaks TLS and then does not like us will not like us better without it.
pub(super) fn may_fall_back(error: &registry::Error, role: Role) -> bool {
    match (role, error) {
        (Role::Mirror, _) => true,
        (Role::Registry, registry::Error::Request(request)) => {
            error.refusal().is_none()
                && !matches!(request.source, TransportError::Tls(_) | TransportError::Lost(_))
        }
        (Role::Registry, _) => false,
    }
}
