//! One blob to a registry: asked for, taken over from another repository, or sent.
//!
//! What is kept is sent as it is. A layer that nobody has asked for as a blob yet is compressed, sent
//! and kept all at once; the next push finds it kept. An upload whose connection broke is taken up
//! where the registry says it is, and begun anew only if the registry forgot it.
//!
//! Source: moby `distribution/push_v2.go`; OCI distribution-spec 1.1, "Pushing a blob in chunks".

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use registry::Client;
use registry::client::{Mount, Upload};
use spec::image::{Descriptor, media_type};
use spec::{DiffId, Digest, Reference};
use store::blocks::{self, Format};
use store::{ContentLease, Ingest, LayerKey, Store};
use tokio::sync::mpsc;

use super::blobs::KnownBlob;
use super::content::{kept_blob, made};
use super::pull::{TransferOutput, layer_line, layer_progress};
use super::registries::push_error;
use crate::Inner;
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::stream::{self, StreamWriter};

const ATTEMPTS_MAX: u32 = 5;
/// Source: moby `distribution/push_v2.go`, `maxMountAttempts`.
const MOUNTS_MAX: usize = 4;
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What a push sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A blob as it came. Where it is a layer, the one.
    Blob(Descriptor, Option<DiffId>),
    /// A layer, in whatever form the registry has it or we make it.
    Layer(DiffId),
    /// A configuration, of which nothing is told.
    Config(Descriptor),
}

impl Item {
    /// As it is shown.
    fn id(&self) -> String {
        match self {
            Item::Blob(_, Some(layer)) | Item::Layer(layer) => layer.0.short(),
            Item::Blob(blob, None) | Item::Config(blob) => blob.digest.short(),
        }
    }

    fn layer(&self) -> Option<DiffId> {
        match self {
            Item::Blob(_, layer) => *layer,
            Item::Layer(layer) => Some(*layer),
            Item::Config(_) => None,
        }
    }
}

/// The media type of a layer of this form.
fn layer_type(format: Format) -> &'static str {
    match format {
        Format::Gzip => media_type::DOCKER_LAYER_GZIP,
        Format::Zstd => media_type::OCI_LAYER_ZSTD,
    }
}

/// Whether a layer's media type is of this form.
pub(super) fn is_of(format: Format, media_type: &str) -> bool {
    media_type.ends_with(match format {
        Format::Gzip => "gzip",
        Format::Zstd => "zstd",
    })
}

/// Why a blob did not reach the registry.
pub(super) enum Unsent {
    /// Neither here nor there: the manifest that names it cannot be pushed.
    Missing(Digest),
    Error(Error),
}

impl From<Error> for Unsent {
    fn from(error: Error) -> Unsent {
        Unsent::Error(error)
    }
}

/// One item on its way.
pub(super) struct Sending {
    pub(super) engine: Arc<Inner>,
    pub(super) client: Arc<Client>,
    pub(super) output: mpsc::Sender<TransferOutput>,
    pub(super) name: Reference,
    pub(super) lease: Arc<ContentLease>,
    /// The one form that layers may have.
    pub(super) format: Option<Format>,
    pub(super) item: Item,
}

impl Sending {
    pub(super) async fn say(&self, text: &str) {
        if let Item::Config(_) = self.item {
            return;
        }
        // Whoever asked may have gone; then this future is dropped soon.
        let _ = self.output.send(layer_line(&self.item.id(), text)).await;
    }

    fn failed(&self, error: registry::Error) -> Error {
        push_error(error)
    }

    /// Brings the item to the registry; gives what it is there.
    pub(super) async fn push(&self) -> std::result::Result<Descriptor, Unsent> {
        let known = self.known().await;
        for (blob, _) in &known {
            let found = self.client.find_blob(&blob.digest).await;
            if found.map_err(|error| self.failed(error))?.is_some() {
                self.say("Layer already exists").await;
                return Ok(blob.clone());
            }
        }
        for (blob, from) in sources(&known, &self.name) {
            // Refused is as good as not there.
            if let Ok(Mount::Mounted) = self.client.mount(&blob.digest, &from).await {
                self.say(&format!("Mounted from {from}")).await;
                return Ok(blob);
            }
        }
        let sent = self.send().await?;
        self.say("Pushed").await;
        Ok(sent)
    }

    /// The forms in which the registry may have the item, with the repositories that had them.
    async fn known(&self) -> Vec<(Descriptor, Vec<String>)> {
        let (engine, name, item) = (Arc::clone(&self.engine), self.name.clone(), self.item.clone());
        let (lease, format) = (Arc::clone(&self.lease), self.format);
        blocking(move || {
            let of = |layer: &DiffId| engine.registries.blobs.of(layer, &name);
            match item {
                Item::Blob(blob, layer) => {
                    let same = |known: &KnownBlob| known.digest == blob.digest;
                    let known = layer.and_then(|layer| of(&layer).into_iter().find(same));
                    vec![(blob, known.map(|known| known.repositories).unwrap_or_default())]
                }
                Item::Config(blob) => vec![(blob, Vec::new())],
                Item::Layer(layer) => {
                    let mut all: Vec<(Descriptor, Vec<String>)> = of(&layer)
                        .into_iter()
                        .map(|known| {
                            let blob = Descriptor::new(&known.media_type, known.digest, known.size);
                            (blob, known.repositories)
                        })
                        .collect();
                    let kept = kept_blob(&engine.store, &LayerKey::from(layer), &lease);
                    let own = kept.as_ref().map(|blob| blob.digest);
                    let is_known = |blob: &Descriptor| {
                        all.iter().any(|(known, _)| known.digest == blob.digest)
                    };
                    let kept = kept.filter(|blob| !is_known(blob));
                    all.extend(kept.map(|blob| (blob, Vec::new())));
                    // Who did not ask for zstd gets it only of a layer that came so.
                    all.retain(|(blob, _)| match format {
                        Some(format) => is_of(format, &blob.media_type),
                        None => own == Some(blob.digest) || !is_of(Format::Zstd, &blob.media_type),
                    });
                    all
                }
            }
        })
        .await
    }

    async fn send(&self) -> std::result::Result<Descriptor, Unsent> {
        let blob = match &self.item {
            Item::Blob(blob, _) | Item::Config(blob) => blob.clone(),
            Item::Layer(layer) => {
                let (store, lease) = (self.engine.store.clone(), Arc::clone(&self.lease));
                let key = LayerKey::from(*layer);
                let kept = blocking(move || kept_blob(&store, &key, &lease)).await;
                let fits = |blob: &Descriptor| {
                    self.format.is_none_or(|format| is_of(format, &blob.media_type))
                };
                match kept.filter(fits) {
                    Some(kept) => kept,
                    None => return Ok(self.compress(key).await?),
                }
            }
        };
        if self.engine.store.content_size(&blob.digest).is_none() {
            return Err(Unsent::Missing(blob.digest));
        }
        self.upload(&blob, None).await?;
        Ok(blob)
    }

    /// Compresses, keeps and sends at once.
    async fn compress(&self, key: LayerKey) -> Result<Descriptor> {
        self.engine.registries.ahead.give_up(&key);
        let upload = self.client.begin_upload().await.map_err(|error| self.failed(error))?;
        let (writer, receiver) = stream::channel();
        let compressing = Compressing {
            store: self.engine.store.clone(),
            key,
            lease: Arc::clone(&self.lease),
            output: self.output.clone(),
            format: self.format.unwrap_or(Format::Gzip),
            id: self.item.id(),
        };
        let compressing = tokio::task::spawn_blocking(move || compressing.run(writer));
        let sent = self.client.send_upload(upload.clone(), receiver).await;
        let blob = match compressing.await {
            Ok(compressed) => compressed?,
            Err(failure) => std::panic::resume_unwind(failure.into_panic()),
        };
        let sent = match sent {
            Ok(upload) => self.client.finish_upload(upload, &blob.digest, Bytes::new()).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => {}
            Err(error) if error.is_transient() => self.upload(&blob, Some(upload)).await?,
            Err(error) => return Err(self.failed(error)),
        }
        Ok(blob)
    }

    /// Sends a blob that is kept, from where the registry has it in `begun`.
    async fn upload(&self, blob: &Descriptor, begun: Option<Upload>) -> Result<()> {
        let (mut begun, mut reached, mut attempts) = (begun, 0, 0);
        loop {
            let mut at = 0;
            let error = match self.attempt(blob, &mut begun, &mut at).await {
                Ok(()) => return Ok(()),
                Err(Broken::Registry(error)) => error,
                Err(Broken::Here(error)) => return Err(error),
            };
            // A registry that takes more each time gets somewhere.
            attempts = if at > reached { 1 } else { attempts + 1 };
            reached = reached.max(at);
            if !error.is_transient() || attempts >= ATTEMPTS_MAX {
                return Err(self.failed(error));
            }
            let unit = if attempts == 1 { "second" } else { "seconds" };
            self.say(&format!("Retrying in {attempts} {unit}")).await;
            tokio::time::sleep(Duration::from_secs(attempts.into())).await;
        }
    }

    /// One connection's try. `at` is told where it began.
    async fn attempt(
        &self,
        blob: &Descriptor,
        begun: &mut Option<Upload>,
        at: &mut u64,
    ) -> std::result::Result<(), Broken> {
        let status = match begun.take() {
            Some(upload) => self.client.upload_status(&upload).await.ok(),
            None => None,
        };
        let upload = match status.filter(|(_, received)| *received <= blob.size) {
            Some((upload, received)) => {
                *at = received;
                upload
            }
            None => self.client.begin_upload().await?,
        };
        *begun = Some(upload.clone());
        let upload = match blob.size - *at {
            // An empty PATCH is refused by some.
            0 => upload,
            _ => {
                let (writer, receiver) = stream::channel();
                let (store, digest, from) = (self.engine.store.clone(), blob.digest, *at);
                let is_told = !matches!(self.item, Item::Config(_));
                let (output, id) = (is_told.then(|| self.output.clone()), self.item.id());
                let reading = tokio::task::spawn_blocking(move || {
                    read_from(&store, &digest, from, writer, output.as_ref(), &id)
                });
                let sent = self.client.send_upload(upload, receiver).await;
                match reading.await {
                    Ok(read) => read.map_err(Broken::Here)?,
                    Err(failure) => std::panic::resume_unwind(failure.into_panic()),
                }
                sent?
            }
        };
        Ok(self.client.finish_upload(upload, &blob.digest, Bytes::new()).await?)
    }
}

enum Broken {
    Registry(registry::Error),
    Here(Error),
}

impl From<registry::Error> for Broken {
    fn from(error: registry::Error) -> Broken {
        Broken::Registry(error)
    }
}

/// Other repositories of the same registry that have the blob.
fn sources(known: &[(Descriptor, Vec<String>)], name: &Reference) -> Vec<(Descriptor, String)> {
    let prefix = format!("{}/", name.domain());
    let mut found = Vec::new();
    for (blob, repositories) in known {
        for repository in repositories.iter().rev() {
            let path = repository.strip_prefix(&prefix).filter(|path| *path != name.path());
            found.extend(path.map(|path| (blob.clone(), path.to_owned())));
        }
    }
    found.truncate(MOUNTS_MAX);
    found
}

/// Reads a kept blob into a stream. Blocking; ends well when nobody listens any more.
fn read_from(
    store: &Store,
    digest: &Digest,
    at: u64,
    mut writer: StreamWriter,
    output: Option<&mpsc::Sender<TransferOutput>>,
    id: &str,
) -> Result<()> {
    let open = || -> Result<store::ContentReader> {
        let reader = store.content_reader(digest);
        let reader = reader.map_err(|source| Error::caused(Kind::Internal, source))?;
        let mut reader = reader.ok_or_else(|| Error::internal(format!("blob {digest} is gone")))?;
        reader.skip(at).map_err(|source| Error::caused(Kind::Internal, source))?;
        Ok(reader)
    };
    let reader = match open() {
        Ok(reader) => reader,
        Err(error) => {
            writer.fail(io::Error::other("the blob cannot be read"));
            return Err(error);
        }
    };
    let size = reader.size();
    let mut input = Reporting { inner: reader, read: at, size, told: Instant::now(), output, id };
    let copied = io::copy(&mut input, &mut writer).and_then(|_| writer.flush());
    match copied {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            // Half a blob must not be taken for a whole one.
            writer.fail(io::Error::other("the blob cannot be read"));
            Err(Error::caused(Kind::Internal, error))
        }
    }
}

/// Tells how much was read.
struct Reporting<'a, R> {
    inner: R,
    read: u64,
    size: u64,
    told: Instant,
    output: Option<&'a mpsc::Sender<TransferOutput>>,
    id: &'a str,
}

impl<R: Read> Read for Reporting<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(out)?;
        self.read += got as u64;
        if self.told.elapsed() > REPORT_EVERY || got == 0 {
            self.told = Instant::now();
            let progress = layer_progress(self.id, "Pushing", self.read, self.size);
            let _ = self.output.map(|output| output.blocking_send(progress));
        }
        Ok(got)
    }
}

/// Keeps all bytes and sends them as long as somebody listens.
struct Split {
    ingest: Ingest,
    network: Option<StreamWriter>,
}

impl Write for Split {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.ingest.write_all(bytes)?;
        // What was lost is sent again from what is kept.
        if let Some(network) = &mut self.network
            && network.write_all(bytes).is_err()
        {
            self.network = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(network) = &mut self.network
            && network.flush().is_err()
        {
            self.network = None;
        }
        Ok(())
    }
}

/// A layer being compressed.
struct Compressing {
    store: Store,
    key: LayerKey,
    lease: Arc<ContentLease>,
    output: mpsc::Sender<TransferOutput>,
    format: Format,
    id: String,
}

impl Compressing {
    /// Blocking.
    fn run(self, network: StreamWriter) -> Result<Descriptor> {
        let ingest = match self.store.ingest() {
            Ok(ingest) => ingest,
            Err(error) => {
                network.fail(io::Error::other("the layer cannot be kept"));
                return Err(Error::caused(Kind::Internal, error));
            }
        };
        let mut split = Split { ingest, network: Some(network) };
        match self.compress(&mut split) {
            Ok(()) => {}
            Err(error) => {
                if let Some(network) = split.network {
                    // Half a layer must not be taken for a whole one.
                    network.fail(io::Error::other("the layer cannot be read"));
                }
                return Err(error);
            }
        }
        let size = split.ingest.size();
        let kept = split.ingest.finish(None, &self.lease);
        let digest = kept.map_err(|source| Error::caused(Kind::Internal, source))?;
        match self.format {
            Format::Gzip => made(&self.store, &self.key, digest, size)?,
            // The form of this one push: the manifest keeps it.
            Format::Zstd => {}
        }
        Ok(Descriptor::new(layer_type(self.format), digest, size))
    }

    fn compress(&self, output: &mut Split) -> Result<()> {
        let tar = self.store.layer_tar(&self.key);
        let inner = tar.map_err(|source| Error::caused(Kind::Internal, source))?;
        let size = self.store.layer(&self.key).map_or(0, |layer| layer.tar_size);
        let (told, id) = (Instant::now(), self.id.as_str());
        let input = Reporting { inner, read: 0, size, told, output: Some(&self.output), id };
        let compressed = blocks::compress(self.format, input, output);
        compressed.map_err(|source| Error::caused(Kind::Internal, source))
    }
}

impl Sending {
    /// What the engine remembers of a push.
    pub(super) fn learnt(&self, blob: &Descriptor) -> Option<(DiffId, KnownBlob)> {
        let known = KnownBlob {
            digest: blob.digest,
            size: blob.size,
            media_type: blob.media_type.clone(),
            repositories: Vec::new(),
        };
        Some((self.item.layer()?, known))
    }
}
