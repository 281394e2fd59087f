//! Registries, asked by the command line itself.
//!
//! Whom to trust is read where the daemon reads it. Loopback may be plain HTTP, any other registry
//! only with `--insecure`.

use std::sync::Arc;

use bytes::Bytes;
use registry::client::{Mount, Trusting};
use registry::{Access, Client, Credentials, HostFiles, Policy, Transport, Work};
use serde::Deserialize;
use spec::image::{Descriptor, Index, Manifest, media_type};
use spec::{Digest, Platform, Reference, chain};
use tokio::sync::mpsc;

use super::entry::{Document, Entry};
use crate::context::Config;
use crate::failure::Failure;

const CONFIG_BYTES_MAX: usize = 8 << 20;

/// What a name is at its registry.
#[derive(Debug)]
pub enum Found {
    Image(Box<Entry>),
    List(Vec<Entry>),
}

/// Whether registries other than those on loopback may lack a certificate that we trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insecure {
    No,
    Allowed,
}

pub struct Remote<'a> {
    config: &'a Config,
    insecure: Insecure,
    transport: Transport,
}

impl<'a> Remote<'a> {
    pub fn new(config: &'a Config, insecure: Insecure) -> Remote<'a> {
        Remote { config, insecure, transport: Transport::new(proxies()) }
    }

    /// A client for a name's repository, at the first endpoint that answers.
    async fn client(&self, name: &Reference, access: Access) -> Result<Client, Failure> {
        let listed = match self.insecure {
            Insecure::Allowed => vec![name.domain().to_owned()],
            Insecure::No => Vec::new(),
        };
        let policy =
            Policy::parse(&listed, &[]).map_err(|error| Failure::new(error.to_string()))?;
        let policy = Arc::new(policy);
        let work = match access {
            Access::Pull => Work::Pull,
            Access::Push => Work::Push,
        };
        let endpoints = policy
            .endpoints(name.domain(), work, &[], &registry::files::read)
            .map_err(|error| Failure::new(chain(&error)))?;
        let mut first = None;
        for endpoint in endpoints {
            let client = Client::open(
                self.transport.clone(),
                endpoint,
                name.path(),
                self.credentials(name),
                access,
                trusting(Arc::clone(&policy)),
            );
            match client.await {
                Ok(client) => return Ok(client),
                Err(error) => first = first.or(Some(error)),
            }
        }
        let why = first.map(|error| chain(&error)).unwrap_or_default();
        Err(Failure::new(format!(
            "failed to configure transport: error pinging v2 registry: {why}{}",
            hint(&why, name.domain())
        )))
    }

    fn credentials(&self, name: &Reference) -> Credentials {
        let auth = self.config.registry_auth(name.domain());
        Credentials {
            user: auth.username,
            password: auth.password,
            identity_token: auth.identity_token,
            registry_token: auth.registry_token,
        }
    }

    /// What a name is, with all manifests where it is a list.
    ///
    /// # Errors
    /// In Docker's words.
    pub async fn find(&self, name: &Reference) -> Result<Found, Failure> {
        let client = self.client(name, Access::Pull).await?;
        let wanted = wanted(name);
        let fetched = client.manifest(&wanted).await.map_err(|error| refused(&error, name))?;
        if !registry::client::is_index(&fetched.media_type) {
            let entry = image(&client, name, fetched.media_type, fetched.bytes).await?;
            return Ok(Found::Image(Box::new(entry)));
        }
        let index: Index = serde_json::from_slice(&fetched.bytes)
            .map_err(|error| Failure::new(format!("manifest of {name}: {error}")))?;
        let mut entries = Vec::new();
        for listed in index.manifests {
            let child = with_digest(name, listed.digest);
            let fetched = client.manifest(&listed.digest.to_string()).await;
            let fetched = fetched.map_err(|error| refused(&error, &child))?;
            let mut entry = image(&client, &child, fetched.media_type, fetched.bytes).await?;
            entry.descriptor.platform = listed.platform;
            entries.push(entry);
        }
        Ok(Found::List(entries))
    }

    /// Puts the manifests that are of other repositories, with their blobs, and then the list.
    /// `pushed` hears of each of these manifests.
    ///
    /// # Errors
    /// In the registry's words, or when a blob is nowhere.
    pub async fn push(
        &self,
        name: &Reference,
        entries: &[Entry],
        list: &Document,
        mut pushed: impl FnMut(&Reference, &Digest),
    ) -> Result<Digest, Failure> {
        let client = self.client(name, Access::Push).await?;
        let others = || entries.iter().filter(|entry| entry.reference.path() != name.path());
        for entry in others() {
            let mut source = None;
            for blob in entry.blobs()? {
                self.bring(&client, &mut source, &entry.reference, &blob).await?;
            }
        }
        for entry in others() {
            let digest = entry.descriptor.digest;
            let (text, kind) = (digest.to_string(), &entry.descriptor.media_type);
            let put = client.put_manifest(&text, kind, entry.raw.clone().into());
            put.await.map_err(|error| Failure::new(chain(&error)))?;
            pushed(&without_tag(name).with_digest(digest), &digest);
        }
        let bytes = Bytes::from(list.bytes.clone());
        let digest = Digest::of(&bytes);
        client
            .put_manifest(&wanted(name), list.media_type, bytes)
            .await
            .map_err(|error| Failure::new(chain(&error)))?;
        Ok(digest)
    }

    /// Makes sure that the target has a blob of the image `from`: it may be there, be mounted, or else
    /// its bytes are sent. `source` is a client for them, made when it is needed first.
    async fn bring(
        &self,
        target: &Client,
        source: &mut Option<Client>,
        from: &Reference,
        blob: &Descriptor,
    ) -> Result<(), Failure> {
        let said = |error: registry::Error| Failure::new(chain(&error));
        if target.find_blob(&blob.digest).await.is_ok_and(|size| size.is_some()) {
            return Ok(());
        }
        let upload = match target.mount(&blob.digest, from.path()).await.map_err(said)? {
            Mount::Mounted => return Ok(()),
            Mount::Wanted(upload) => upload,
        };
        let source = match source {
            Some(source) => source,
            None => source.insert(self.client(from, Access::Pull).await?),
        };
        let mut bytes = source.blob(&blob.digest, 0).await.map_err(said)?;
        let (sender, receiver) = mpsc::channel(4);
        let read = async move {
            loop {
                let piece = match bytes.chunk().await.transpose() {
                    Some(piece) => piece,
                    None => return,
                };
                let failed = piece.is_err();
                if sender.send(piece).await.is_err() || failed {
                    return;
                }
            }
        };
        let ((), sent) = tokio::join!(read, target.send_upload(upload, receiver));
        let upload = sent.map_err(said)?;
        target.finish_upload(upload, &blob.digest, Bytes::new()).await.map_err(said)
    }
}

/// The tag or digest that a name asks for.
fn wanted(name: &Reference) -> String {
    match (name.digest(), name.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

/// A list's own tag stays in its manifests' names.
fn with_digest(name: &Reference, digest: Digest) -> Reference {
    let tag = name.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
    Reference::parse(&format!("{}{tag}@{digest}", name.name()))
        .unwrap_or_else(|_| name.with_digest(digest))
}

fn without_tag(name: &Reference) -> Reference {
    Reference::parse_untagged(&name.name()).unwrap_or_else(|_| name.clone())
}

/// An image's manifest, with the platform that its configuration tells.
async fn image(
    client: &Client,
    name: &Reference,
    kind: String,
    bytes: Bytes,
) -> Result<Entry, Failure> {
    if kind != media_type::OCI_MANIFEST && kind != media_type::DOCKER_MANIFEST {
        return Err(Failure::new(format!("unsupported manifest media type {kind:?} of {name}")));
    }
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(format!("manifest of {name}: {error}")))?;
    let raw = client.small_blob(&manifest.config.digest, CONFIG_BYTES_MAX).await;
    let raw = raw.map_err(|error| Failure::new(chain(&error)))?;
    let mut descriptor = Descriptor::new(&kind, Digest::of(&bytes), bytes.len() as u64);
    descriptor.platform = Some(platform_of(&raw));
    Ok(Entry { reference: name.clone(), descriptor, raw: bytes.to_vec() })
}

/// The platform of a configuration; artifacts have none, and so have empty names.
fn platform_of(config: &[u8]) -> Platform {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Named {
        architecture: String,
        os: String,
        #[serde(rename = "os.version")]
        os_version: Option<String>,
        #[serde(rename = "os.features")]
        os_features: Option<Vec<String>>,
        variant: Option<String>,
    }
    let named: Named = serde_json::from_slice(config).unwrap_or_default();
    Platform {
        architecture: named.architecture,
        os: named.os,
        os_version: named.os_version,
        os_features: named.os_features.unwrap_or_default(),
        variant: named.variant,
    }
}

/// Hosts that the registry leads to are trusted as their own files say.
pub fn trusting(policy: Arc<Policy>) -> Trusting {
    Arc::new(move |authority| {
        // What is wrong with these files is told when the host is asked for by name.
        let files = registry::files::read(authority).unwrap_or_else(|_| HostFiles::default());
        Arc::new(policy.trust(authority, &[], files))
    })
}

pub fn proxies() -> registry::Proxies {
    let named = |name: &str| {
        let lower = name.to_ascii_lowercase();
        [name, &lower].into_iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default()
    };
    registry::Proxies {
        http: named("HTTP_PROXY"),
        https: named("HTTPS_PROXY"),
        no: named("NO_PROXY"),
    }
}

fn refused(error: &registry::Error, name: &Reference) -> Failure {
    let missing = error.refusal().is_some_and(|refusal| {
        refusal.status.as_u16() == 404
            || refusal.is("MANIFEST_UNKNOWN")
            || refusal.is("NAME_UNKNOWN")
    });
    if missing {
        return Failure::new(format!("no such manifest: {name}"));
    }
    Failure::new(chain(error))
}

/// The ways out, where a certificate is in the way.
fn hint(why: &str, domain: &str) -> String {
    if !why.contains("unknown authority") {
        return String::new();
    }
    format!(
        " (to trust this registry, put its CA certificate into /etc/docker/certs.d/{domain}/ca.crt, or use --insecure)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_read_from_a_configuration() {
        let text = br#"{"architecture":"arm","os":"linux","variant":"v7","os.features":["a"],"config":{}}"#;
        let platform = platform_of(text);
        assert_eq!(platform.to_string(), "linux/arm/v7");
        assert_eq!(platform.os_features, ["a"]);
        assert_eq!(platform_of(b"{}"), Platform::new("", "", None));
    }
}
