//! Pushes: an image's layers, its configuration, and last the manifest that names them.
//!
//! For each layer the registry is asked whether it has a blob that we know the layer as; then
//! whether it takes one over from another of its repositories; only then is the layer compressed
//! and sent, while it is read. Five layers at a time.
//!
//! An image that was pulled is pushed with the manifest it came with, byte for byte, when the
//! registry has all of its blobs.
//!
//! Source: moby `distribution/push.go`, `push_v2.go`.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use registry::client::Mount;
use registry::{Access, Client, Credentials, Work};
use sha2::{Digest as _, Sha256};
use spec::image::{Descriptor, Manifest, media_type};
use spec::{DiffId, Digest, ImageId, Reference};
use store::{Image, LayerKey, Store};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::blobs::KnownBlob;
use super::pull::{TransferOutput, layer_line, layer_progress, line};
use super::registries::{may_fall_back, plain_error};
use crate::containers::world::blocking;
use crate::error::{Error, Kind, Result};
use crate::events::EventType;
use crate::stream;
use crate::{Engine, Inner};

const ATTEMPTS_MAX: u32 = 5;
/// Source: moby `distribution/push_v2.go`, `maxMountAttempts`.
const MOUNTS_MAX: usize = 4;
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What to push, as whom.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// Without a tag: all tags.
    pub name: Reference,
    pub credentials: Credentials,
}

impl Engine {
    /// Pushes an image. Dropping the future ends it.
    ///
    /// # Errors
    /// In Docker's words. What was sent stays at the registry.
    pub async fn push_image(
        &self,
        request: PushRequest,
        output: mpsc::Sender<TransferOutput>,
    ) -> Result<()> {
        let PushRequest { name, credentials } = request;
        if name.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        // The same queue from threads and from tasks.
        let _ =
            output.send(line("", format!("The push refers to repository [{}]", name.name()))).await;
        let images = images(&self.inner, &name)?;
        let mut last = None;
        for endpoint in self.inner.registries.endpoints(name.domain(), Work::Push).await? {
            let role = endpoint.role;
            let opened =
                self.inner.registries.client(endpoint, &name, &credentials, Access::Push).await;
            let client = match opened {
                Ok(client) => Arc::new(client),
                Err(error) if may_fall_back(&error, role) => {
                    last = Some(last.unwrap_or(error));
                    continue;
                }
                Err(error) => return Err(plain_error(error, name.domain())),
            };
            let push = Push { engine: Arc::clone(&self.inner), client, output };
            for (name, id) in &images {
                push.one(name, id).await?;
            }
            return Ok(());
        }
        Err(match last {
            Some(error) => plain_error(error, name.domain()),
            None => Error::not_found(format!("no endpoints found for {}", name.domain())),
        })
    }
}

/// The tags to push.
fn images(engine: &Inner, name: &Reference) -> Result<Vec<(Reference, ImageId)>> {
    let same =
        |(known, _): &(Reference, ImageId)| known.name() == name.name() && known.tag().is_some();
    let all: Vec<(Reference, ImageId)> = engine.store.names().into_iter().filter(same).collect();
    if all.is_empty() {
        let text =
            format!("An image does not exist locally with the tag: {}", name.familiar_name());
        return Err(Error::not_found(text));
    }
    if name.tag().is_none() {
        return Ok(all);
    }
    let chosen: Vec<(Reference, ImageId)> =
        all.into_iter().filter(|(known, _)| known.tag() == name.tag()).collect();
    if chosen.is_empty() {
        return Err(Error::not_found(format!("tag does not exist: {}", name.familiar())));
    }
    Ok(chosen)
}

struct Push {
    engine: Arc<Inner>,
    client: Arc<Client>,
    output: mpsc::Sender<TransferOutput>,
}

impl Push {
    async fn say(&self, output: TransferOutput) {
        // Whoever asked may have gone; then this future is dropped soon.
        let _ = self.output.send(output).await;
    }

    async fn one(&self, name: &Reference, id: &ImageId) -> Result<()> {
        let image = self
            .engine
            .store
            .image(id)
            .ok_or_else(|| crate::words::no_such_image(&name.familiar()))?;
        let blobs = self.layers(name, &image).await?;
        let failed = |error| plain_error(error, name.domain());
        let config = Descriptor::new(media_type::DOCKER_CONFIG, id.0, image.raw.len() as u64);
        if self.client.find_blob(&config.digest).await.map_err(failed)?.is_none() {
            let upload = self.client.begin_upload().await.map_err(failed)?;
            let raw = Bytes::from(image.raw.clone());
            self.client.finish_upload(upload, &config.digest, raw).await.map_err(failed)?;
        }
        let (engine, id) = (Arc::clone(&self.engine), *id);
        let kept = blocking(move || engine.registries.blobs.manifest(&id)).await;
        let (kind, bytes) = match kept.and_then(|bytes| same_blobs(bytes, id, &blobs)) {
            Some(kept) => kept,
            None => manifest(config, &blobs)?,
        };
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let tag = name.tag().unwrap_or("latest").to_owned();
        self.client.put_manifest(&tag, &kind, Bytes::from(bytes)).await.map_err(failed)?;
        let (engine, named, learnt) =
            (Arc::clone(&self.engine), name.clone(), (image.layers.clone(), blobs));
        blocking(move || {
            let (layers, blobs) = learnt;
            let learnt = layers.iter().map(LayerKey::diff_id).zip(blobs).collect();
            engine.registries.blobs.learn(&engine.store, &named, learnt);
            // Gone meanwhile, or already named so.
            let _ = engine.store.tag(&named.with_digest(digest), &id);
        })
        .await;
        self.say(line("", format!("{tag}: digest: {digest} size: {size}"))).await;
        self.say(TransferOutput::Pushed { tag, digest, size }).await;
        let attributes = [("name".to_owned(), name.familiar_name())].into();
        self.engine.events.publish(EventType::Image, "push", name.familiar(), attributes);
        Ok(())
    }

    /// Brings all layers to the registry; gives their blobs, bottom first.
    async fn layers(&self, name: &Reference, image: &Image) -> Result<Vec<KnownBlob>> {
        let mut places: Vec<(DiffId, usize)> = Vec::new();
        for (place, key) in image.layers.iter().enumerate().rev() {
            if !places.iter().any(|(known, _)| *known == key.diff_id()) {
                places.push((key.diff_id(), place));
            }
        }
        for (layer, _) in &places {
            self.say(layer_line(&layer.0.short(), "Preparing")).await;
        }
        let uploads = Arc::clone(&self.engine.registries.current().uploads);
        let mut tasks = JoinSet::new();
        for (layer, _) in &places {
            let work = Layer {
                engine: Arc::clone(&self.engine),
                client: Arc::clone(&self.client),
                output: self.output.clone(),
                name: name.clone(),
                layer: *layer,
            };
            let uploads = Arc::clone(&uploads);
            tasks.spawn(async move {
                if uploads.available_permits() == 0 {
                    work.say("Waiting").await;
                }
                let _permit = uploads.acquire().await;
                work.push().await.map(|blob| (work.layer, blob))
            });
        }
        let mut done: Vec<(DiffId, KnownBlob)> = Vec::new();
        while let Some(finished) = tasks.join_next().await {
            match finished {
                Ok(finished) => done.push(finished?),
                Err(failure) => std::panic::resume_unwind(failure.into_panic()),
            }
        }
        let blob = |key: &LayerKey| {
            done.iter().find(|(layer, _)| *layer == key.diff_id()).map(|(_, blob)| blob.clone())
        };
        Ok(image.layers.iter().filter_map(blob).collect())
    }
}

struct Layer {
    engine: Arc<Inner>,
    client: Arc<Client>,
    output: mpsc::Sender<TransferOutput>,
    name: Reference,
    layer: DiffId,
}

impl Layer {
    async fn say(&self, text: &str) {
        let _ = self.output.send(layer_line(&self.layer.0.short(), text)).await;
    }

    async fn push(&self) -> Result<KnownBlob> {
        let failed = |error| plain_error(error, self.name.domain());
        let (engine, layer, name) = (Arc::clone(&self.engine), self.layer, self.name.clone());
        let known = blocking(move || engine.registries.blobs.of(&layer, &name)).await;
        for blob in &known {
            if self.client.find_blob(&blob.digest).await.map_err(failed)?.is_some() {
                self.say("Layer already exists").await;
                return Ok(blob.clone());
            }
        }
        for (blob, from) in sources(known, &self.name) {
            // Refused is as good as not there.
            if let Ok(Mount::Mounted) = self.client.mount(&blob.digest, &from).await {
                self.say(&format!("Mounted from {from}")).await;
                return Ok(blob);
            }
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.upload().await {
                Ok(blob) => {
                    self.say("Pushed").await;
                    return Ok(blob);
                }
                Err(Broken::Registry(error)) if error.is_transient() && attempts < ATTEMPTS_MAX => {
                    self.say(&format!("Retrying in {attempts} seconds")).await;
                    tokio::time::sleep(Duration::from_secs(attempts.into())).await;
                }
                Err(Broken::Registry(error)) => return Err(failed(error)),
                Err(Broken::Layer(error)) => return Err(error),
            }
        }
    }

    /// Compresses and sends at once.
    async fn upload(&self) -> std::result::Result<KnownBlob, Broken> {
        let upload = self.client.begin_upload().await?;
        let (writer, receiver) = stream::channel();
        let (store, key) = (self.engine.store.clone(), LayerKey::from(self.layer));
        let (output, id) = (self.output.clone(), self.layer.0.short());
        let compressing =
            tokio::task::spawn_blocking(move || compress(&store, &key, writer, &output, &id));
        let sent = self.client.send_upload(upload, receiver).await;
        let compressed = match compressing.await {
            Ok(compressed) => compressed,
            Err(failure) => std::panic::resume_unwind(failure.into_panic()),
        };
        let (upload, (digest, size)) = match (sent, compressed) {
            (Ok(upload), Ok(compressed)) => (upload, compressed),
            // The thread's own error says more than the body that broke off.
            (_, Err(error)) if error.kind != Kind::Unavailable => return Err(Broken::Layer(error)),
            (Err(error), _) => return Err(error.into()),
            (Ok(_), Err(error)) => return Err(Broken::Layer(error)),
        };
        self.client.finish_upload(upload, &digest, Bytes::new()).await?;
        let media_type = media_type::DOCKER_LAYER_GZIP.to_owned();
        Ok(KnownBlob { digest, size, media_type, repositories: Vec::new() })
    }
}

/// Other repositories of the same registry that have the layer.
fn sources(known: Vec<KnownBlob>, name: &Reference) -> Vec<(KnownBlob, String)> {
    let prefix = format!("{}/", name.domain());
    let mut found = Vec::new();
    for blob in known {
        for repository in blob.repositories.iter().rev() {
            let path = repository.strip_prefix(&prefix).filter(|path| *path != name.path());
            found.extend(path.map(|path| (blob.clone(), path.to_owned())));
        }
    }
    found.truncate(MOUNTS_MAX);
    found
}

enum Broken {
    Registry(registry::Error),
    Layer(Error),
}

impl From<registry::Error> for Broken {
    fn from(error: registry::Error) -> Broken {
        Broken::Registry(error)
    }
}

/// Counts and hashes what passes.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.inner.write(bytes)?;
        self.hash.update(&bytes[..taken]);
        self.size += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Tells how much of a layer was read.
struct Reporting<'a, R> {
    inner: R,
    read: u64,
    size: u64,
    told: Instant,
    output: &'a mpsc::Sender<TransferOutput>,
    id: &'a str,
}

impl<R: Read> Read for Reporting<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(out)?;
        self.read += got as u64;
        if self.told.elapsed() > REPORT_EVERY || got == 0 {
            self.told = Instant::now();
            let _ =
                self.output.blocking_send(layer_progress(self.id, "Pushing", self.read, self.size));
        }
        Ok(got)
    }
}

/// Blocking. `Unavailable` where the other side has stopped listening.
fn compress(
    store: &Store,
    key: &LayerKey,
    writer: stream::StreamWriter,
    output: &mpsc::Sender<TransferOutput>,
    id: &str,
) -> Result<(Digest, u64)> {
    let tar = store.layer_tar(key).map_err(|source| Error::caused(Kind::Internal, source));
    let mut hashing = Hashing { inner: writer, hash: Sha256::new(), size: 0 };
    let done = tar.and_then(|tar| {
        let size = store.layer(key).map_or(0, |layer| layer.tar_size);
        let input = Reporting { inner: tar, read: 0, size, told: Instant::now(), output, id };
        store::gzip::gzip(input, &mut hashing).map_err(|source| {
            let is_gone = source.kind() == io::ErrorKind::BrokenPipe;
            Error::caused(if is_gone { Kind::Unavailable } else { Kind::Internal }, source)
        })
    });
    match done {
        Ok(()) => Ok((Digest::from_raw(hashing.hash.finalize().into()), hashing.size)),
        Err(error) => {
            // Half a layer must not be taken for a whole one.
            hashing.inner.fail(io::Error::other("the layer cannot be read"));
            Err(error)
        }
    }
}

/// The manifest that the image came with, if the registry has its very blobs.
fn same_blobs(bytes: Vec<u8>, image: ImageId, blobs: &[KnownBlob]) -> Option<(String, Vec<u8>)> {
    let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
    let digests = manifest.layers.iter().map(|layer| layer.digest);
    let is_same =
        manifest.config.digest == image.0 && digests.eq(blobs.iter().map(|blob| blob.digest));
    let kind = manifest.media_type.unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
    is_same.then_some((kind, bytes))
}

/// A new manifest: Docker's, or OCI's where a layer has a form that Docker's does not know.
fn manifest(mut config: Descriptor, blobs: &[KnownBlob]) -> Result<(String, Vec<u8>)> {
    let is_gzip = |blob: &KnownBlob| blob.media_type.ends_with("gzip");
    let (kind, config_kind, gzip) = match blobs.iter().all(is_gzip) {
        true => {
            (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG, media_type::DOCKER_LAYER_GZIP)
        }
        false => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG, media_type::OCI_LAYER_GZIP),
    };
    config.media_type = config_kind.to_owned();
    let layer = |blob: &KnownBlob| {
        let kind = match blob.media_type.as_str() {
            other if other.ends_with("gzip") => gzip,
            other if other.ends_with("zstd") => media_type::OCI_LAYER_ZSTD,
            _ => media_type::OCI_LAYER,
        };
        Descriptor::new(kind, blob.digest, blob.size)
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(kind.to_owned()),
        artifact_type: None,
        config,
        layers: blobs.iter().map(layer).collect(),
        subject: None,
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec_pretty(&manifest)
        .map_err(|source| Error::caused(Kind::Internal, source))?;
    Ok((kind.to_owned(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(media_type: &str) -> KnownBlob {
        KnownBlob {
            digest: Digest::of(b"x"),
            size: 1,
            media_type: media_type.to_owned(),
            repositories: Vec::new(),
        }
    }

    #[track_caller]
    fn check(layers: &[&str], want: &str) {
        let blobs: Vec<KnownBlob> = layers.iter().map(|kind| blob(kind)).collect();
        let config = Descriptor::new("", Digest::of(b"{}"), 2);
        let (kind, bytes) = manifest(config, &blobs).unwrap();
        let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
        let kinds: Vec<&str> =
            manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
        assert_eq!(format!("{kind} {}", kinds.join(" ")), want);
    }

    #[test]
    fn a_manifest_is_dockers_unless_a_layer_is_not() {
        let (docker, oci) = (media_type::DOCKER_LAYER_GZIP, media_type::OCI_LAYER_GZIP);
        check(&[docker, oci], &format!("{} {docker} {docker}", media_type::DOCKER_MANIFEST));
        let zstd = media_type::OCI_LAYER_ZSTD;
        check(&[docker, zstd], &format!("{} {oci} {zstd}", media_type::OCI_MANIFEST));
    }

    #[test]
    fn the_manifest_that_an_image_came_with_is_kept_only_with_its_blobs() {
        let config = Descriptor::new("", Digest::of(b"{}"), 2);
        let (kind, bytes) = manifest(config, &[blob("gzip")]).unwrap();
        let image = ImageId(Digest::of(b"{}"));
        assert_eq!(same_blobs(bytes.clone(), image, &[blob("gzip")]), Some((kind, bytes.clone())));
        let other = KnownBlob { digest: Digest::of(b"y"), ..blob("gzip") };
        assert_eq!(same_blobs(bytes.clone(), image, &[other]), None);
        assert_eq!(same_blobs(bytes, ImageId(Digest::of(b"")), &[blob("gzip")]), None);
    }
}
