//! What registries are asked besides pull and push: logins, and what a name is.
//!
//! Source: moby `registry/auth.go`, `registry/service.go`; `api/server/router/distribution`.

use registry::{Access, Credentials, Work};
use spec::image::{ImageConfig, Index, Manifest};
use spec::{Digest, Platform, Reference};

use super::registries::{Failed, may_fall_back, plain_error, pull_error};
use crate::Engine;
use crate::error::{Error, Kind, Result};

const CONFIG_BYTES_MAX: usize = 8 << 20;

/// A manifest or an index at its registry. The size is in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    pub platforms: Vec<Platform>,
}

impl Engine {
    /// Whether a registry takes credentials; gives an identity token where it hands them out.
    ///
    /// # Errors
    /// `Unauthorized`, or no answer, in Docker's words.
    pub async fn login(&self, server: &str, credentials: Credentials) -> Result<Option<String>> {
        let server = server.trim_start_matches("https://").trim_start_matches("http://");
        let domain = server.split('/').next().unwrap_or_default();
        let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
        let registries = &self.inner.registries;
        let mut last = Failed::default();
        for endpoint in registries.login_endpoints(domain).await? {
            let (role, url) = (endpoint.role, endpoint.url(""));
            let asked = registry::client::login(
                registries.transport(),
                endpoint,
                credentials.clone(),
                registries.trusting(),
            );
            match asked.await {
                Ok(token) => return Ok(token),
                Err(error) if may_fall_back(&error, role) => last.note(error),
                Err(registry::Error::Refused(refusal)) if refusal.status.as_u16() == 401 => {
                    let text =
                        format!("login attempt to {url} failed with status: 401 Unauthorized");
                    return Err(Error::new(Kind::Unauthorized, text));
                }
                Err(error) => {
                    let is_refused =
                        error.refusal().is_some_and(|refusal| refusal.status.as_u16() == 401);
                    let mut error = plain_error(error);
                    if is_refused {
                        error.kind = Kind::Unauthorized;
                    }
                    return Err(error);
                }
            }
        }
        Err(last.error(domain))
    }

    /// What a name is at its registry.
    ///
    /// # Errors
    /// In Docker's words.
    pub async fn inspect_distribution(
        &self,
        name: &Reference,
        credentials: Credentials,
    ) -> Result<Distribution> {
        let wanted = match (name.digest(), name.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let registries = &self.inner.registries;
        let mut last = Failed::default();
        for endpoint in registries.endpoints(name.domain(), Work::Pull).await? {
            let role = endpoint.role;
            let found = async {
                let client = registries.client(endpoint, name, &credentials, Access::Pull).await?;
                describe(&client, &wanted).await
            };
            match found.await {
                Ok(found) => return Ok(found),
                Err(error) if may_fall_back(&error, role) => last.note(error),
                Err(error) => {
                    let status = error.refusal().map(|refusal| refusal.status.as_u16());
                    let mut error = pull_error(error, name);
                    // Source: moby `api/server/httpstatus`, `statusCodeFromDistributionError`.
                    error.kind = match status {
                        Some(401) => Kind::Unauthorized,
                        Some(403) => Kind::Forbidden,
                        Some(404) => Kind::NotFound,
                        _ => error.kind,
                    };
                    return Err(error);
                }
            }
        }
        Err(last.error(name.domain()))
    }
}

async fn describe(
    client: &registry::Client,
    wanted: &str,
) -> std::result::Result<Distribution, registry::Error> {
    let fetched = client.manifest(wanted).await?;
    let document = |source| registry::Error::Document { what: "a manifest", source };
    let platforms = if registry::client::is_index(&fetched.media_type) {
        let index: Index = serde_json::from_slice(&fetched.bytes).map_err(document)?;
        index.manifests.into_iter().filter_map(|manifest| manifest.platform).collect()
    } else {
        let manifest: Manifest = serde_json::from_slice(&fetched.bytes).map_err(document)?;
        let raw = client.small_blob(&manifest.config.digest, CONFIG_BYTES_MAX).await?;
        let config: ImageConfig = serde_json::from_slice(&raw).map_err(document)?;
        vec![config.platform()]
    };
    Ok(Distribution {
        media_type: fetched.media_type,
        digest: fetched.digest,
        size: fetched.bytes.len() as u64,
        platforms,
    })
}
