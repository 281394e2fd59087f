//! One name from one endpoint: its documents, its missing layers, and in the end the image.
//!
//! ```text
//! manifest (by HEAD when it is known already) ─▶ one of an index ─▶ configuration
//!   ─▶ missing layers, several at a time (download) ─▶ committed bottom first ─▶ kept ─▶ image, names
//! ```
//! What is kept from earlier is not fetched again: documents, compressed layers of other platforms,
//! unpacked layers.
//!
//! Invariant: names are written last, so an image has a name only when all of it was verified.
//!
//! Source: moby `distribution/pull_v2.go`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use registry::select::{no_match, select};
use registry::{Client, Fetched};
use spec::image::{Descriptor, ImageConfig, Index, Manifest, media_type};
use spec::{DiffId, Digest, ImageId, Platform, Reference};
use store::{CHILDREN_MAX, ContentLease, Document, LayerKey, Lease, Target, Unpacked};
use tokio::task::JoinSet;

use super::blobs::KnownBlob;
use super::content::{made, unreadable};
use super::download::{self, Goal};
use super::pull::{
    Extent, PullRequest, Reporter, TransferOutput, layer_line, layer_progress, line,
};
use crate::Inner;
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result, chain};

/// Bytes. A configuration is some kilobytes.
const CONFIG_BYTES_MAX: usize = 8 << 20;
/// Source: moby `layer/layer.go`, `maxLayerDepth`.
const LAYERS_MAX: usize = 125;

/// A failure that may still turn out well at another endpoint, and one that is final.
pub(super) enum Fault {
    Registry(registry::Error),
    Engine(Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Registry(error) => out.write_str(&chain(error)),
            Fault::Engine(error) => error.fmt(out),
        }
    }
}

impl From<registry::Error> for Fault {
    fn from(error: registry::Error) -> Fault {
        Fault::Registry(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Engine(error)
    }
}

type Attempt<T> = std::result::Result<T, Fault>;

pub(super) struct Fetch<'a> {
    pub(super) engine: &'a Arc<Inner>,
    pub(super) client: &'a Arc<Client>,
    pub(super) reporter: &'a Reporter,
    pub(super) request: &'a PullRequest,
}

/// An image's manifest and configuration.
struct Chosen {
    manifest: Manifest,
    config: ImageConfig,
    raw: Bytes,
}

/// A layer that is ready to be committed.
enum Arrived {
    /// From a blob that was kept.
    Here(Box<Unpacked>),
    Fetched(Arc<download::Fetched>),
}

/// A blob that came, to be kept once all of the image is here.
struct Came {
    digest: Digest,
    fetched: Arc<download::Fetched>,
}

impl Fetch<'_> {
    fn say(&self, output: TransferOutput) {
        self.reporter.say(output);
    }

    /// One tag or digest; `digest` is what it is, where that is known.
    pub(super) async fn one(&self, name: &Reference, digest: Option<Digest>) -> Attempt<()> {
        let tag = name.tag().unwrap_or("latest").to_owned();
        let shown = name.digest().map_or(tag.clone(), |digest| digest.to_string());
        let wanted = digest.map_or(tag, |digest| digest.to_string());
        let begin = || self.say(line(&shown, format!("Pulling from {}", name.path())));
        let known = match digest {
            Some(digest) => Some(digest),
            None => self.client.find_manifest(&wanted).await?.map(|known| known.digest),
        };
        if let Some((target, id)) = known.and_then(|digest| self.present(name, digest)) {
            begin();
            return Ok(self.finish(name, target, &id).await?);
        }
        let lease = Arc::new(self.engine.store.lease_content());
        let root = self.document(known, &wanted, &lease).await?;
        begin();
        let kind = kind_of(&root)?;
        let target =
            Target { digest: root.digest, media_type: kind, size: root.bytes.len() as u64 };
        let (index, chosen) = self.chosen(root, name, &lease).await?;
        let others = match (&index, self.request.extent) {
            (Some(index), Extent::AllPlatforms) => self.others(index, &lease).await?,
            (Some(_), Extent::OnePlatform) | (None, _) => Vec::new(),
        };
        let (id, came) = self.image(&chosen, &lease).await?;
        let mut wanted = others;
        // A layer that is here by another way may have come as another blob, or as none.
        wanted.extend(chosen.manifest.layers.iter().cloned());
        let rest = self.rest(wanted, &came, &lease).await?;
        self.keep(came.into_iter().chain(rest).collect(), &chosen, Arc::clone(&lease)).await?;
        self.remember(name, &chosen).await;
        Ok(self.finish(name, target, &id).await?)
    }

    /// The image that was pulled under this digest, if it fits.
    fn present(&self, name: &Reference, digest: Digest) -> Option<(Option<Target>, ImageId)> {
        let store = &self.engine.store;
        let named = name.with_digest(digest);
        let (id, target) = (store.resolve_tag(&named)?, store.content(&named));
        let image = store.image(&id)?;
        let platform = self.request.platform.clone().unwrap_or_else(Platform::host);
        let is_enough = match self.request.extent {
            Extent::OnePlatform => true,
            Extent::AllPlatforms => target.as_ref().is_some_and(|target| store.is_whole(target)),
        };
        (is_enough && platform.runs(&image.config.platform())).then_some((target, id))
    }

    /// A manifest or an index: the one that is here, or the registry's, which is kept.
    async fn document(
        &self,
        known: Option<Digest>,
        wanted: &str,
        lease: &Arc<ContentLease>,
    ) -> Attempt<Fetched> {
        if let Some(digest) = known.filter(|digest| lease.hold(digest)) {
            let store = self.engine.store.clone();
            let bytes = blocking(move || store.read_manifest(&digest)).await;
            if let Some(bytes) = bytes.map(Bytes::from) {
                return Ok(Fetched { media_type: String::new(), digest, bytes });
            }
        }
        let fetched = self.client.manifest(wanted).await?;
        self.keep_small(fetched.bytes.clone(), lease).await?;
        Ok(fetched)
    }

    async fn keep_small(&self, bytes: Bytes, lease: &Arc<ContentLease>) -> Result<Digest> {
        let (store, lease) = (self.engine.store.clone(), Arc::clone(lease));
        let kept = blocking(move || store.keep_blob(&bytes, &lease)).await;
        kept.map_err(|source| Error::caused(Kind::Internal, source))
    }

    /// The manifest of the wanted platform with its configuration, and the index it is in.
    async fn chosen(
        &self,
        root: Fetched,
        name: &Reference,
        lease: &Arc<ContentLease>,
    ) -> Attempt<(Option<Index>, Chosen)> {
        let (index, manifest) = match read(&root)? {
            Document::Manifest(manifest) => (None, manifest),
            Document::Index(index) => {
                let platform = self.request.platform.clone().unwrap_or_else(Platform::host);
                let Some(chosen) = select(&index, &platform) else {
                    return Err(Error::not_found(no_match(&platform)).into());
                };
                let digest = chosen.digest;
                let fetched = self.document(Some(digest), &digest.to_string(), lease).await?;
                match read(&fetched)? {
                    Document::Manifest(manifest) => (Some(index), manifest),
                    Document::Index(_) => {
                        let kind = kind_of(&fetched)?;
                        return Err(registry::Error::MediaType(kind).into());
                    }
                }
            }
        };
        is_image(&manifest)?;
        let raw = self.config(&manifest.config, lease).await?;
        let config = checked(&manifest, &raw)?;
        let wanted = self.request.platform.as_ref().filter(|_| index.is_none());
        if let Some(platform) = wanted.filter(|wanted| !wanted.runs(&config.platform())) {
            let offered = config.platform();
            self.say(line("", format!(
                "WARNING: image with reference {} was found but its platform ({offered}) does not match the specified platform ({platform})",
                name.familiar()
            )));
        }
        Ok((index, Chosen { manifest: *manifest, config, raw }))
    }

    async fn config(&self, config: &Descriptor, lease: &Arc<ContentLease>) -> Attempt<Bytes> {
        if lease.hold(&config.digest) {
            let (store, digest) = (self.engine.store.clone(), config.digest);
            if let Some(bytes) = blocking(move || store.read_manifest(&digest)).await {
                return Ok(bytes.into());
            }
        }
        let raw = self.client.small_blob(&config.digest, CONFIG_BYTES_MAX).await?;
        self.keep_small(raw.clone(), lease).await?;
        Ok(raw)
    }

    /// Fetches all documents that an index reaches; gives the layers.
    async fn others(&self, index: &Index, lease: &Arc<ContentLease>) -> Attempt<Vec<Descriptor>> {
        let mut next: Vec<Descriptor> = index.manifests.clone();
        let (mut seen, mut layers) = (HashSet::new(), Vec::new());
        while let Some(child) = next.pop() {
            if !seen.insert(child.digest) {
                continue;
            }
            if seen.len() > CHILDREN_MAX {
                return Err(Error::invalid(format!(
                    "the index has more than {CHILDREN_MAX} manifests"
                ))
                .into());
            }
            let fetched =
                self.document(Some(child.digest), &child.digest.to_string(), lease).await?;
            match read(&fetched)? {
                Document::Index(index) => next.extend(index.manifests),
                Document::Manifest(manifest) => {
                    self.config(&manifest.config, lease).await?;
                    layers.extend(manifest.layers);
                }
            }
        }
        Ok(layers)
    }

    /// Fetches blobs that are only to be kept.
    async fn rest(
        &self,
        blobs: Vec<Descriptor>,
        came: &[Came],
        lease: &Arc<ContentLease>,
    ) -> Result<Vec<Came>> {
        let mut seen: HashSet<Digest> = came.iter().map(|came| came.digest).collect();
        let mut tasks = JoinSet::new();
        for blob in blobs {
            let is_new = seen.insert(blob.digest);
            if !is_new || lease.hold(&blob.digest) {
                continue;
            }
            // An unpacked layer that came uncompressed has no file and needs none.
            if self.engine.store.has_layer(&LayerKey(DiffId(blob.digest))) {
                continue;
            }
            self.say(layer_line(&blob.digest.short(), "Pulling fs layer"));
            let digest = blob.digest;
            let download = self.download(blob, Goal::Keep);
            tasks.spawn(async move { download.await.map(|fetched| Came { digest, fetched }) });
        }
        let mut rest = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let came = finished(done)?;
            self.say(layer_line(&came.digest.short(), "Pull complete"));
            rest.push(came);
        }
        Ok(rest)
    }

    /// Gets the missing layers and makes the image.
    async fn image(
        &self,
        chosen: &Chosen,
        content: &Arc<ContentLease>,
    ) -> Result<(ImageId, Vec<Came>)> {
        let store = self.engine.store.clone();
        let lease = Arc::new(store.lease());
        let blobs = &chosen.manifest.layers;
        let diff_ids = &chosen.config.rootfs.diff_ids;
        let keys: Vec<LayerKey> = diff_ids.iter().copied().map(LayerKey::from).collect();
        let mut wanted = HashSet::new();
        let mut tasks = JoinSet::new();
        for (place, (key, blob)) in keys.iter().zip(blobs).enumerate() {
            // Held first, so that a blob that is kept stays until it is unpacked.
            let (is_here, is_kept) = (lease.hold(key), content.hold(&blob.digest));
            if is_here && (is_kept || blob.digest == key.diff_id().0) {
                self.say(layer_line(&blob.digest.short(), "Already exists"));
            } else if !is_here {
                self.say(layer_line(&blob.digest.short(), "Pulling fs layer"));
            }
            if is_here || !wanted.insert(*key) {
                continue;
            }
            if is_kept {
                let kept = self.unpack_kept(blob.clone());
                tasks.spawn(async move { Ok((place, Arrived::Here(Box::new(kept.await?)))) });
            } else {
                let download = self.download(blob.clone(), Goal::Unpack);
                tasks.spawn(async move { Ok((place, Arrived::Fetched(download.await?))) });
            }
        }
        let (mut ready, mut came) = (HashMap::new(), Vec::new());
        for (place, key) in keys.iter().enumerate() {
            while wanted.contains(key) && !ready.contains_key(&place) {
                let Some(done) = tasks.join_next().await else { break };
                let (place, arrived): (usize, Arrived) = finished(done)?;
                ready.insert(place, arrived);
            }
            // The same layer twice in one image needs to come but once.
            let Some(arrived) = ready.remove(&place) else { continue };
            wanted.remove(key);
            let digest = blobs[place].digest;
            if let Arrived::Fetched(fetched) = &arrived {
                came.push(Came { digest, fetched: Arc::clone(fetched) });
            }
            self.commit(&lease, arrived, &blobs[place], &keys[..=place]).await?;
            self.say(layer_line(&digest.short(), "Pull complete"));
        }
        let raw = chosen.raw.clone();
        let created = blocking(move || store.image_create(&raw, None, &lease)).await;
        Ok((created.map_err(|source| Error::caused(Kind::Internal, source))?, came))
    }

    /// Puts a layer among the others: the last of `chain`, above all before it.
    async fn commit(
        &self,
        lease: &Arc<Lease>,
        arrived: Arrived,
        blob: &Descriptor,
        chain: &[LayerKey],
    ) -> Result<()> {
        let place = chain.len() - 1;
        let key = chain[place];
        let unpacked = match arrived {
            Arrived::Here(unpacked) => *unpacked,
            Arrived::Fetched(fetched) => match fetched.take() {
                Some(unpacked) => unpacked,
                // Another pull that waited for the same download has committed it.
                None if lease.hold(&key) => return Ok(()),
                None => {
                    let (store, digest) = (self.engine.store.clone(), blob.digest);
                    let unpacked = blocking(move || {
                        let file = fetched.open(&store, &digest).map_err(failed_to_register)?;
                        store
                            .unpack_apart(file, &store.unpack_limits(), Some(&digest))
                            .map_err(failed_to_register)
                    });
                    unpacked.await?
                }
            },
        };
        if unpacked.key() != key {
            return Err(Error::internal(format!(
                "layers from manifest don't match image configuration: layer {place} is {}, not {key}",
                unpacked.key()
            )));
        }
        let (lease, parents) = (Arc::clone(lease), chain[..place].to_vec());
        blocking(move || unpacked.commit(&lease, &parents)).await.map_err(failed_to_register)?;
        Ok(())
    }

    fn unpack_kept(&self, blob: Descriptor) -> impl Future<Output = Result<Unpacked>> + use<> {
        let (store, reporter) = (self.engine.store.clone(), self.reporter.clone());
        let permits = Arc::clone(&self.engine.registries.current().downloads);
        async move {
            let _permit = permits.acquire_owned().await;
            let id = blob.digest.short();
            reporter.say(layer_line(&id, "Download complete"));
            let (read, size) = (Arc::new(AtomicU64::new(0)), blob.size);
            let counter = Arc::clone(&read);
            let unpacking = tokio::task::spawn_blocking(move || {
                let missing = || Error::internal(format!("blob {} is gone", blob.digest));
                let (file, _) = store.blob(&blob.digest).ok_or_else(missing)?;
                let file = download::Counted { inner: file, read: counter };
                store
                    .unpack_apart(file, &store.unpack_limits(), Some(&blob.digest))
                    .map_err(failed_to_register)
            });
            let extracting =
                |read: u64| reporter.say(layer_progress(&id, "Extracting", read.min(size), size));
            let unpacked = download::watch(unpacking, &read, extracting).await;
            if unpacked.is_ok() {
                extracting(size);
            }
            unpacked
        }
    }

    fn download(
        &self,
        blob: Descriptor,
        goal: Goal,
    ) -> impl Future<Output = Result<Arc<download::Fetched>>> + Send + use<> {
        let current = self.engine.registries.current();
        let source = download::Source {
            client: Arc::clone(self.client),
            store: self.engine.store.clone(),
            data_root: self.engine.config.data_root.clone(),
            permits: Arc::clone(&current.downloads),
            attempts_max: current.attempts_max(),
        };
        let transfers = Arc::clone(&self.engine.registries.transfers);
        let reporter = self.reporter.clone();
        async move { transfers.fetch(&source, &blob, goal, &reporter).await }
    }

    /// Puts what came among the kept blobs, now that all of it is here.
    async fn keep(&self, came: Vec<Came>, chosen: &Chosen, lease: Arc<ContentLease>) -> Result<()> {
        let store = self.engine.store.clone();
        let diff_ids = chosen.config.rootfs.diff_ids.iter().copied();
        let layers: Vec<(DiffId, Descriptor)> =
            diff_ids.zip(chosen.manifest.layers.iter().cloned()).collect();
        blocking(move || {
            for Came { digest, fetched } in came {
                // An uncompressed layer gives its bytes itself.
                match layers.iter().any(|(diff_id, _)| diff_id.0 == digest) {
                    true => fetched.discard(),
                    false => {
                        let kept = fetched.keep(&store, &digest, &lease);
                        kept.map_err(|source| Error::caused(Kind::Internal, source))?;
                    }
                }
            }
            for (diff_id, blob) in layers {
                if store.has_blob(&blob.digest) {
                    made(&store, &LayerKey::from(diff_id), blob.digest, blob.size)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// For a later push.
    async fn remember(&self, name: &Reference, chosen: &Chosen) {
        let layers = chosen.config.rootfs.diff_ids.iter().zip(&chosen.manifest.layers);
        let learnt = layers.map(|(diff_id, layer)| {
            let (digest, size, media_type) = (layer.digest, layer.size, layer.media_type.clone());
            (*diff_id, KnownBlob { digest, size, media_type, repositories: Vec::new() })
        });
        let (engine, name) = (Arc::clone(self.engine), name.clone());
        let learnt = learnt.collect();
        blocking(move || engine.registries.blobs.learn(&engine.store, &name, learnt)).await;
    }

    /// Names the image and says how it ended.
    async fn finish(
        &self,
        name: &Reference,
        target: impl Into<Option<Target>>,
        id: &ImageId,
    ) -> Result<()> {
        let target = target.into();
        let digest = match (&target, name.digest()) {
            (Some(target), _) => target.digest,
            (None, Some(digest)) => digest,
            (None, None) => return Err(Error::internal("an image without a digest")),
        };
        let (engine, named, id) = (Arc::clone(self.engine), name.clone(), *id);
        let is_new = blocking(move || {
            let before = engine.store.resolve_tag(&named);
            let tag = |name: &Reference| {
                let tagged = engine.store.tag_as(name, &id, target.clone());
                tagged.map_err(|source| Error::caused(Kind::Internal, source))
            };
            tag(&named.with_digest(digest))?;
            if named.digest().is_none() {
                tag(&named)?;
            }
            engine.flush()?;
            Ok::<_, Error>(before != Some(id))
        })
        .await?;
        self.say(line("", format!("Digest: {digest}")));
        let shown = name.familiar();
        self.say(line(
            "",
            match is_new {
                true => format!("Status: Downloaded newer image for {shown}"),
                false => format!("Status: Image is up to date for {shown}"),
            },
        ));
        super::tell_of(self.engine, "pull", &id, name);
        Ok(())
    }
}

fn read(fetched: &Fetched) -> std::result::Result<Document, registry::Error> {
    Document::read(&fetched.media_type, &fetched.bytes).map_err(unreadable)
}

fn kind_of(fetched: &Fetched) -> std::result::Result<String, registry::Error> {
    Document::kind(&fetched.media_type, &fetched.bytes).map_err(unreadable)
}

fn failed_to_register(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::because(Kind::Internal, "failed to register layer", source)
}

fn finished<T>(done: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match done {
        Ok(done) => done,
        Err(failure) => std::panic::resume_unwind(failure.into_panic()),
    }
}

/// Refuses what is no image, before anything of it is fetched.
///
/// Source: moby `distribution/pull_v2.go`, `unsupportedMediaTypeError`.
fn is_image(manifest: &Manifest) -> Result<()> {
    match manifest.config.media_type.as_str() {
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "application/octet-stream" | "" => {
            Ok(())
        }
        kind => Err(Error::invalid(format!("unsupported media type {kind}"))),
    }
}

/// The configuration, if it and the manifest fit each other and this engine.
pub(super) fn checked(manifest: &Manifest, raw: &[u8]) -> Result<ImageConfig> {
    is_image(manifest)?;
    let config: ImageConfig = serde_json::from_slice(raw)
        .map_err(|source| Error::because(Kind::Invalid, "invalid image configuration", source))?;
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(Error::invalid("layers from manifest don't match image configuration"));
    }
    if layers > LAYERS_MAX {
        return Err(Error::invalid("max depth exceeded"));
    }
    if !config.os.is_empty() && config.os != "linux" {
        return Err(Error::invalid(format!(
            "image operating system {:?} cannot be used on this platform: operating system is not supported",
            config.os
        )));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(config_kind: &str, layers: usize, config: &str, want: &str) {
        let digest = Digest::of(b"");
        let manifest = Manifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: Descriptor::new(config_kind, digest, 0),
            layers: vec![Descriptor::new(media_type::OCI_LAYER, digest, 0); layers],
            subject: None,
            annotations: Default::default(),
        };
        let got = checked(&manifest, config.as_bytes()).map(drop).map_err(|error| error.message);
        assert_eq!(got.err().unwrap_or_default(), want);
    }

    #[test]
    fn a_manifest_that_does_not_fit_its_configuration_is_refused() {
        let oci = media_type::OCI_CONFIG;
        check(oci, 0, r#"{"os":"linux"}"#, "");
        check(oci, 1, "{}", "layers from manifest don't match image configuration");
        check(
            "application/vnd.cncf.helm.config.v1+json",
            0,
            "{}",
            "unsupported media type application/vnd.cncf.helm.config.v1+json",
        );
        check(
            oci,
            0,
            r#"{"os":"windows"}"#,
            "image operating system \"windows\" cannot be used on this platform: operating system is not supported",
        );
        let digests = vec![format!("\"{}\"", Digest::of(b"")); 126].join(",");
        check(
            oci,
            126,
            &format!("{{\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{digests}]}}}}"),
            "max depth exceeded",
        );
    }
}
