//! Pulls: from a name to an image that is here.
//!
//! ```text
//! endpoints ─▶ manifest (by HEAD when it is known already) ─▶ one of an index ─▶ configuration
//!           ─▶ missing layers, three at a time (download) ─▶ committed bottom first ─▶ image, names
//! ```
//! Two pulls of one image are one [`Job`] that both listen to; who comes later is told first how far
//! it is. When nobody listens any more the job ends, and what was downloaded stays for the next.
//!
//! Invariant: names are written last, so an image has a name only when all of it was verified.
//!
//! Source: moby `distribution/pull.go`, `pull_v2.go`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use registry::client::is_index;
use registry::select::{no_match, select};
use registry::{Access, Client, Credentials, Fetched, Role, Work};
use serde::de::DeserializeOwned;
use spec::image::{Descriptor, ImageConfig, Index, Manifest, media_type};
use spec::{Digest, ImageId, Platform, Reference};
use store::{LayerKey, Unpacked};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::blobs::KnownBlob;
use super::download;
use super::registries::{may_fall_back, plain_error, pull_error};
use crate::containers::world::blocking;
use crate::error::{Error, Kind, Result};
use crate::events::EventType;
use crate::{Engine, Inner};

/// Bytes. A configuration is some kilobytes.
const CONFIG_BYTES_MAX: usize = 8 << 20;
/// Source: moby `layer/layer.go`, `maxLayerDepth`.
const LAYERS_MAX: usize = 125;

/// What to pull, for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PullRequest {
    /// Without tag and digest: all tags.
    pub name: Reference,
    pub platform: Option<Platform>,
    pub credentials: Credentials,
}

/// What a pull or push has to tell, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferOutput {
    Line {
        /// Empty where the line is about the whole.
        id: String,
        text: String,
    },
    /// How a layer is doing; bytes done and all bytes where that can be told.
    Layer { id: String, text: String, progress: Option<(u64, u64)> },
    /// What a push made.
    Pushed { tag: String, digest: Digest, size: u64 },
}

pub(super) fn line(id: &str, text: impl Into<String>) -> TransferOutput {
    TransferOutput::Line { id: id.to_owned(), text: text.into() }
}

pub(super) fn layer_line(id: &str, text: &str) -> TransferOutput {
    TransferOutput::Layer { id: id.to_owned(), text: text.to_owned(), progress: None }
}

pub(super) fn layer_progress(id: &str, text: &str, done: u64, all: u64) -> TransferOutput {
    TransferOutput::Layer { id: id.to_owned(), text: text.to_owned(), progress: Some((done, all)) }
}

/// The pulls that are going on.
pub(super) type Pulls = HashMap<PullRequest, Arc<Job>>;

/// One pull and those who listen to it.
pub(super) struct Job {
    state: Mutex<JobState>,
    outcome: watch::Sender<Option<Outcome>>,
}

type Outcome = std::result::Result<(), (Kind, String)>;

#[derive(Default)]
struct JobState {
    /// All lines, and each layer's last, for those who come later.
    told: Vec<TransferOutput>,
    listeners: HashMap<u64, mpsc::UnboundedSender<TransferOutput>>,
    next: u64,
    task: Option<AbortHandle>,
}

impl Job {
    fn state(&self) -> MutexGuard<'_, JobState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the parts of a pull tell how they are doing.
#[derive(Clone)]
pub(super) struct Reporter(Arc<Job>);

impl Reporter {
    pub(super) fn say(&self, output: TransferOutput) {
        let mut state = self.0.state();
        let same = match &output {
            TransferOutput::Layer { id, .. } => state.told.iter().position(|told| match told {
                TransferOutput::Layer { id: known, .. } => known == id,
                TransferOutput::Line { .. } | TransferOutput::Pushed { .. } => false,
            }),
            TransferOutput::Line { .. } | TransferOutput::Pushed { .. } => None,
        };
        match same {
            Some(place) => state.told[place] = output.clone(),
            None => state.told.push(output.clone()),
        }
        // Who does not listen any more leaves by itself.
        state.listeners.values().for_each(|listener| drop(listener.send(output.clone())));
    }
}

/// Somebody's interest in a job; the last one to go ends it.
struct Listening {
    engine: Arc<Inner>,
    request: PullRequest,
    job: Arc<Job>,
    number: u64,
    events: mpsc::UnboundedReceiver<TransferOutput>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut pulls = self.engine.registries.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.job.state();
        state.listeners.remove(&self.number);
        if state.listeners.is_empty()
            && let Some(task) = state.task.take()
        {
            task.abort();
            pulls.remove(&self.request);
        }
    }
}

impl Engine {
    /// Pulls an image, or joins the pull of it that is going on. Dropping the future gives up the
    /// interest in it.
    ///
    /// # Errors
    /// In Docker's words.
    pub async fn pull_image(
        &self,
        request: PullRequest,
        output: mpsc::Sender<TransferOutput>,
    ) -> Result<()> {
        let mut listening = join(&self.inner, request);
        while let Some(event) = listening.events.recv().await {
            if output.send(event).await.is_err() {
                // Whoever asked has gone.
                return Ok(());
            }
        }
        let outcome = listening.job.outcome.borrow().clone();
        match outcome {
            Some(Ok(())) => Ok(()),
            Some(Err((kind, message))) => Err(Error::new(kind, message)),
            None => Err(Error::internal("the pull was broken off")),
        }
    }
}

fn join(engine: &Arc<Inner>, request: PullRequest) -> Listening {
    let (sender, events) = mpsc::unbounded_channel();
    let mut pulls = engine.registries.pulls.lock().unwrap_or_else(PoisonError::into_inner);
    let known = pulls.get(&request).cloned();
    let is_new = known.is_none();
    let job = known.unwrap_or_else(|| {
        Arc::new(Job { state: Mutex::default(), outcome: watch::Sender::new(None) })
    });
    let mut state = job.state();
    for told in &state.told {
        // The receiver is at hand.
        let _ = sender.send(told.clone());
    }
    let number = state.next;
    state.next += 1;
    state.listeners.insert(number, sender);
    if is_new {
        pulls.insert(request.clone(), Arc::clone(&job));
        let task = tokio::spawn(work(Arc::clone(engine), request.clone(), Arc::clone(&job)));
        state.task = Some(task.abort_handle());
    }
    drop(state);
    drop(pulls);
    Listening { engine: Arc::clone(engine), request, job, number, events }
}

async fn work(engine: Arc<Inner>, request: PullRequest, job: Arc<Job>) {
    let pull = Pull { engine: Arc::clone(&engine), reporter: Reporter(Arc::clone(&job)), request };
    let outcome = pull.run().await.map_err(|error| (error.kind, error.message));
    let mut pulls = engine.registries.pulls.lock().unwrap_or_else(PoisonError::into_inner);
    pulls.remove(&pull.request);
    job.outcome.send_replace(Some(outcome));
    let mut state = job.state();
    state.task = None;
    // Their channels end, and they look at the outcome.
    state.listeners.clear();
}

struct Pull {
    engine: Arc<Inner>,
    reporter: Reporter,
    request: PullRequest,
}

/// A failure that may still turn out well at another endpoint, and one that is final.
enum Fault {
    Registry(registry::Error),
    Engine(Error),
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

impl Pull {
    fn say(&self, output: TransferOutput) {
        self.reporter.say(output);
    }

    async fn run(&self) -> Result<()> {
        let data_root = self.engine.config.data_root.clone();
        blocking(move || download::sweep(&data_root)).await;
        let name = &self.request.name;
        let mut last = None;
        for endpoint in self.engine.registries.endpoints(name.domain(), Work::Pull).await? {
            let role = endpoint.role;
            let opened = self
                .engine
                .registries
                .client(endpoint, name, &self.request.credentials, Access::Pull)
                .await;
            let client = match opened {
                Ok(client) => Arc::new(client),
                Err(error) if may_fall_back(&error, role) => {
                    // An unknown certificate says more than the refused plain connection after it.
                    if !last.as_ref().is_some_and(is_certificate) {
                        last = Some(error);
                    }
                    continue;
                }
                Err(error) => return Err(plain_error(error, name.domain())),
            };
            match self.from(&client).await {
                Ok(()) => return Ok(()),
                Err(Fault::Engine(error)) if role == Role::Registry => return Err(error),
                Err(Fault::Registry(error)) if role == Role::Registry => {
                    return Err(pull_error(error, name));
                }
                // The registry itself is asked next.
                Err(Fault::Engine(_)) => {}
                Err(Fault::Registry(error)) => last = Some(error),
            }
        }
        Err(match last {
            Some(error) => plain_error(error, name.domain()),
            None => Error::not_found(format!("no endpoints found for {}", name.domain())),
        })
    }

    async fn from(&self, client: &Arc<Client>) -> std::result::Result<(), Fault> {
        let name = &self.request.name;
        if name.tag().is_some() || name.digest().is_some() {
            return self.one(client, name).await;
        }
        for tag in client.tags().await? {
            let Ok(name) = name.with_tag(&tag) else { continue };
            self.one(client, &name).await?;
        }
        Ok(())
    }

    /// One tag or digest.
    async fn one(&self, client: &Arc<Client>, name: &Reference) -> std::result::Result<(), Fault> {
        let wanted = match (name.digest(), name.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let begin = || self.say(line(&wanted, format!("Pulling from {}", name.path())));
        let known = match name.digest() {
            Some(digest) => Some(digest),
            None => client.find_manifest(&wanted).await?.map(|known| known.digest),
        };
        if let Some((digest, id)) =
            known.and_then(|digest| Some((digest, self.present(name, digest)?)))
        {
            begin();
            return Ok(self.finish(name, digest, &id).await?);
        }
        let fetched = client.manifest(&wanted).await?;
        begin();
        let digest = fetched.digest;
        let (manifest, bytes, platform) = self.manifest(client, fetched).await?;
        let raw = client.small_blob(&manifest.config.digest, CONFIG_BYTES_MAX).await?;
        let config = checked(&manifest, &raw)?;
        if let Some(platform) = platform.filter(|wanted| !wanted.runs(&config.platform())) {
            let offered = config.platform();
            self.say(line("", format!(
                "WARNING: image with reference {} was found but its platform ({offered}) does not match the specified platform ({platform})",
                name.familiar()
            )));
        }
        let id = self.layers(client, &manifest, &config, raw.to_vec()).await?;
        self.remember(name, &id, &manifest, &config, bytes).await;
        Ok(self.finish(name, digest, &id).await?)
    }

    /// The image that was pulled under this digest, if it fits.
    fn present(&self, name: &Reference, digest: Digest) -> Option<ImageId> {
        let store = &self.engine.store;
        let id = store.resolve_tag(&name.with_digest(digest))?;
        let image = store.image(&id)?;
        let wanted = self.request.platform.clone().unwrap_or_else(Platform::host);
        wanted.runs(&image.config.platform()).then_some(id)
    }

    /// The image's manifest, chosen from an index where it is one; and the platform that is still
    /// to be compared.
    async fn manifest(
        &self,
        client: &Client,
        fetched: Fetched,
    ) -> std::result::Result<(Manifest, Bytes, Option<Platform>), Fault> {
        let kind = kind_of(&fetched)?;
        if !is_index(&kind) {
            return Ok((document(&fetched.bytes)?, fetched.bytes, self.request.platform.clone()));
        }
        let index: Index = document(&fetched.bytes)?;
        let platform = self.request.platform.clone().unwrap_or_else(Platform::host);
        let Some(chosen) = select(&index, &platform) else {
            return Err(Error::not_found(no_match(&platform)).into());
        };
        let fetched = client.manifest(&chosen.digest.to_string()).await?;
        let kind = kind_of(&fetched)?;
        if is_index(&kind) {
            return Err(registry::Error::MediaType(kind).into());
        }
        Ok((document(&fetched.bytes)?, fetched.bytes, None))
    }

    /// Gets the missing layers and keeps the image.
    async fn layers(
        &self,
        client: &Arc<Client>,
        manifest: &Manifest,
        config: &ImageConfig,
        raw: Vec<u8>,
    ) -> Result<ImageId> {
        let store = self.engine.store.clone();
        let lease = Arc::new(store.lease());
        let keys: Vec<LayerKey> =
            config.rootfs.diff_ids.iter().copied().map(LayerKey::from).collect();
        let mut wanted = HashSet::new();
        let mut tasks = JoinSet::new();
        for (place, (key, blob)) in keys.iter().zip(&manifest.layers).enumerate() {
            let is_here = lease.hold(key);
            let text = if is_here { "Already exists" } else { "Pulling fs layer" };
            self.say(layer_line(&blob.digest.short(), text));
            if !is_here && wanted.insert(*key) {
                tasks.spawn(self.download(client, blob.clone(), place));
            }
        }
        let mut ready: HashMap<usize, Unpacked> = HashMap::new();
        for (place, key) in keys.iter().enumerate() {
            while wanted.contains(key) && !ready.contains_key(&place) {
                let Some(done) = tasks.join_next().await else { break };
                let (place, unpacked) = match done {
                    Ok(done) => done?,
                    Err(failure) => std::panic::resume_unwind(failure.into_panic()),
                };
                ready.insert(place, unpacked);
            }
            // The same layer twice in one image, or one that came by another way meanwhile.
            let Some(unpacked) = ready.remove(&place) else { continue };
            wanted.remove(key);
            if unpacked.key() != *key {
                let text = format!(
                    "layers from manifest don't match image configuration: layer {place} is {}, not {key}",
                    unpacked.key()
                );
                return Err(Error::internal(text));
            }
            let (lease, parents) = (Arc::clone(&lease), keys[..place].to_vec());
            let committed = blocking(move || unpacked.commit(&lease, &parents)).await;
            committed.map_err(|source| {
                Error::because(Kind::Internal, "failed to register layer", source)
            })?;
            self.say(layer_line(&manifest.layers[place].digest.short(), "Pull complete"));
        }
        let created = blocking(move || store.image_create(&raw, None, &lease)).await;
        created.map_err(|source| Error::caused(Kind::Internal, source))
    }

    /// For a later push.
    async fn remember(
        &self,
        name: &Reference,
        id: &ImageId,
        manifest: &Manifest,
        config: &ImageConfig,
        bytes: Bytes,
    ) {
        let layers = config.rootfs.diff_ids.iter().zip(&manifest.layers);
        let learnt = layers.map(|(diff_id, layer)| {
            let (digest, size, media_type) = (layer.digest, layer.size, layer.media_type.clone());
            (*diff_id, KnownBlob { digest, size, media_type, repositories: Vec::new() })
        });
        let (engine, name, id) = (Arc::clone(&self.engine), name.clone(), *id);
        let learnt = learnt.collect();
        blocking(move || {
            engine.registries.blobs.keep_manifest(&id, &bytes);
            engine.registries.blobs.learn(&engine.store, &name, learnt);
        })
        .await;
    }

    fn download(
        &self,
        client: &Arc<Client>,
        blob: Descriptor,
        place: usize,
    ) -> impl Future<Output = Result<(usize, Unpacked)>> + Send + use<> {
        let source = download::Source {
            client: Arc::clone(client),
            store: self.engine.store.clone(),
            data_root: self.engine.config.data_root.clone(),
            reporter: self.reporter.clone(),
            attempts_max: self.engine.registries.current().attempts_max(),
        };
        let downloads = Arc::clone(&self.engine.registries.current().downloads);
        async move {
            if downloads.available_permits() == 0 {
                source.reporter.say(layer_line(&blob.digest.short(), "Waiting"));
            }
            let _permit = downloads.acquire().await;
            Ok((place, download::layer(&source, &blob).await?))
        }
    }

    /// Names the image and says how it ended.
    async fn finish(&self, name: &Reference, digest: Digest, id: &ImageId) -> Result<()> {
        let (engine, named, id) = (Arc::clone(&self.engine), name.clone(), *id);
        let is_new = blocking(move || -> std::result::Result<bool, store::ImageError> {
            let before = engine.store.resolve_tag(&named);
            engine.store.tag(&named.with_digest(digest), &id)?;
            if named.digest().is_none() {
                engine.store.tag(&named, &id)?;
            }
            Ok(before != Some(id))
        })
        .await
        .map_err(|source| Error::caused(Kind::Internal, source))?;
        self.say(line("", format!("Digest: {digest}")));
        let shown = name.familiar();
        self.say(line(
            "",
            match is_new {
                true => format!("Status: Downloaded newer image for {shown}"),
                false => format!("Status: Image is up to date for {shown}"),
            },
        ));
        let attributes = [("name".to_owned(), name.familiar_name())].into();
        self.engine.events.publish(EventType::Image, "pull", shown, attributes);
        Ok(())
    }
}

fn is_certificate(error: &registry::Error) -> bool {
    match error {
        registry::Error::Request(request) => {
            matches!(request.source, registry::TransportError::Certificate(_))
        }
        _ => false,
    }
}

/// What a manifest is; its own word for it where the registry gave none.
fn kind_of(fetched: &Fetched) -> std::result::Result<String, registry::Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        #[serde(default)]
        media_type: Option<String>,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
    }
    let known = [
        media_type::OCI_INDEX,
        media_type::DOCKER_LIST,
        media_type::OCI_MANIFEST,
        media_type::DOCKER_MANIFEST,
    ];
    if known.contains(&fetched.media_type.as_str()) {
        return Ok(fetched.media_type.clone());
    }
    let kind: Kind = document(&fetched.bytes)?;
    match (kind.media_type, kind.manifests) {
        (Some(text), _) if known.contains(&text.as_str()) => Ok(text),
        (None, Some(_)) => Ok(media_type::OCI_INDEX.to_owned()),
        (Some(text), _) => Err(registry::Error::MediaType(text)),
        (None, None) => Err(registry::Error::MediaType(fetched.media_type.clone())),
    }
}

fn document<T: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<T, registry::Error> {
    serde_json::from_slice(bytes)
        .map_err(|source| registry::Error::Document { what: "a manifest", source })
}

/// The configuration, if it and the manifest fit each other and this engine.
fn checked(manifest: &Manifest, raw: &[u8]) -> Result<ImageConfig> {
    let kind = manifest.config.media_type.as_str();
    if !matches!(
        kind,
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "application/octet-stream" | ""
    ) {
        // Source: moby `distribution/pull_v2.go`, `unsupportedMediaTypeError`.
        return Err(Error::invalid(format!("unsupported media type {kind}")));
    }
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

    #[test]
    fn who_comes_later_hears_each_layers_last() {
        let job = Arc::new(Job { state: Mutex::default(), outcome: watch::Sender::new(None) });
        let reporter = Reporter(Arc::clone(&job));
        reporter.say(line("latest", "Pulling from a"));
        reporter.say(layer_line("1", "Pulling fs layer"));
        reporter.say(layer_progress("1", "Downloading", 1, 2));
        let want = [line("latest", "Pulling from a"), layer_progress("1", "Downloading", 1, 2)];
        assert_eq!(job.state().told, want);
    }

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
