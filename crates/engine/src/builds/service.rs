//! One build from request to answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use build::git::{GitDirectory, Repository};
use build::instruction::Dockerfile;
use build::parse::{ParseError, Phase};
use build::progress::{self, Classic, Event, Trace, Vertex};
use build::solve::{Broken, Cache, Dialect, Entitlement, NamedContext, Options, StepError};
use build::worker::{FailureKind, Worker};
use spec::image::ImageConfig;
use spec::units::fixed_size;
use spec::{ImageId, Platform, Reference};
use store::{Image, Lease, Store};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::context::{Context, Extras};
use super::step::RunOptions;
use super::steps::Steps;
use super::worker::{Bases, EngineWorker, SNAPSHOT_PREFIX, Sink};
use super::{
    BuildExtras, BuildFailure, BuildRequest, BuildSource, CacheUse, Containers, ExtraContext,
    Output, Squash, Style, Verbosity, fetch, git,
};
use crate::Engine;
use crate::config::Allowed;
use crate::containers::spec::NetworkMode;
use crate::error::{Error, Kind, Result, chain};
use crate::{stream, words};

const DEFINITION: Vertex = 1;
const IGNORE: Vertex = 2;
const CONTEXT: Vertex = 3;

impl Engine {
    /// Builds an image. Progress goes to `output`; when nobody receives any more, the build stops.
    ///
    /// # Errors
    /// In Docker's words. What failed before the first [`Output`] can still become a status.
    pub async fn build(
        &self,
        request: BuildRequest,
        output: mpsc::Sender<Output>,
    ) -> std::result::Result<Option<ImageId>, BuildFailure> {
        let (cancel, _) = watch::channel(false);
        let _named = Named::new(&self.inner.named_builds, &request.build_id, &cancel);
        let watched = output.clone();
        let flag = cancel.clone();
        let watcher = tokio::spawn(async move {
            watched.closed().await;
            flag.send_replace(true);
        });
        let engine = self.clone();
        let runtime = Handle::current();
        let worked = tokio::task::spawn_blocking(move || {
            Service { engine, runtime, cancel, started: SystemTime::now() }.build(request, output)
        });
        let result = worked.await;
        watcher.abort();
        match result {
            Ok(result) => result,
            Err(error) => Err(Error::caused(Kind::Internal, error).into()),
        }
    }

    /// Stops the builds that were begun with this `buildid`; there may be none.
    pub fn cancel_build(&self, id: &str) {
        let named = self.inner.named_builds.lock().unwrap_or_else(PoisonError::into_inner);
        named.iter().filter(|(own, _)| own == id).for_each(|(_, cancel)| {
            cancel.send_replace(true);
        });
    }

    /// The image that a Dockerfile's FROM names, if it is here.
    pub(super) fn base_image(&self, name: &str) -> Result<Option<Arc<Image>>> {
        let store = &self.inner.store;
        let reference = Reference::parse(name).map_err(|error| {
            Error::invalid(format!("failed to parse stage name {name:?}: {}", chain(&error)))
        })?;
        let by_name = store.resolve_tag(&reference);
        let by_id = || {
            let hex = name.strip_prefix("sha256:").unwrap_or(name);
            let is_id = hex.len() >= 4
                && hex.len() <= 64
                && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            match store.images_by_prefix(hex).as_slice() {
                [only] if is_id => Some(*only),
                _ => None,
            }
        };
        Ok(by_name.or_else(by_id).and_then(|id| store.image(&id)))
    }
}

/// Builds that may be cancelled by a name that their client made up.
pub(crate) type NamedBuilds = Arc<Mutex<Vec<(String, watch::Sender<bool>)>>>;

/// Keeps a build's name known as long as it runs.
struct Named {
    all: NamedBuilds,
    own: watch::Sender<bool>,
}

impl Named {
    fn new(all: &NamedBuilds, id: &str, cancel: &watch::Sender<bool>) -> Option<Self> {
        if id.is_empty() {
            return None;
        }
        let named = (id.to_owned(), cancel.clone());
        all.lock().unwrap_or_else(PoisonError::into_inner).push(named);
        Some(Self { all: Arc::clone(all), own: cancel.clone() })
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, cancel)| !cancel.same_channel(&self.own));
    }
}

/// Removes the snapshots that builds of a killed daemon left; the store has emptied its `tmp` itself.
pub(crate) fn sweep(store: &Store) {
    for id in store.snapshots().into_iter().filter(|id| id.starts_with(SNAPSHOT_PREFIX)) {
        if let Err(error) = store.snapshot_remove(&id) {
            warn!(snapshot = id, error = chain(&error), "build snapshot left behind");
        }
    }
}

/// One build's surroundings, on a blocking thread.
struct Service {
    engine: Engine,
    runtime: Handle,
    cancel: watch::Sender<bool>,
    started: SystemTime,
}

/// What is known once the Dockerfile was read.
struct Prepared {
    file: Dockerfile,
    name: String,
    source: Vec<u8>,
}

impl Service {
    fn build(
        self,
        request: BuildRequest,
        output: mpsc::Sender<Output>,
    ) -> std::result::Result<Option<ImageId>, BuildFailure> {
        let references = references(&request.tags)?;
        let platform = platform(request.platform.as_deref())?;
        if request.squash == Squash::Yes {
            let text = "squash is not supported: images are built from shared layers";
            return Err(Error::new(Kind::NotImplemented, text).into());
        }
        let run = run_options(&request)?;
        let keeps_containers = request.containers == Containers::Keep;
        let lease = self.engine.inner.store.lease();
        let bases = Bases { pull: request.pull, credentials: request.credentials };
        let options = Options {
            arguments: request.arguments,
            labels: request.labels,
            target: request.target,
            cache: match request.cache {
                CacheUse::Use => Cache::Use,
                CacheUse::Ignore => Cache::Ignore,
            },
            allowed: self.allowed(&request.allow)?,
            secrets: request.extras.secrets.keys().cloned().collect(),
            agents: request.extras.agents.keys().cloned().collect(),
            contexts: contexts(&request.extras),
            fresh_stages: request.extras.fresh_stages.clone(),
            dialect: match request.style {
                Style::Classic => Dialect::Classic,
                Style::Trace => Dialect::BuildKit,
            },
            cache_from: (!request.cache_from.is_empty())
                .then(|| self.cache_sources(&request.cache_from, &lease)),
            exports: request.exports.clone(),
            platform,
            names: references.iter().map(Reference::to_string).collect(),
        };
        let sink = Sink {
            output,
            style: request.style,
            verbosity: request.verbosity,
            classic: classic(request.containers),
        };
        let extras = named_contexts(&request.extras)?;
        let (mut context, sizes) = self.context(request.source, &request.dockerfile, &extras)?;
        let prepared = prepare(&mut context, &request.dockerfile, sizes, &sink, self.started)?;
        let worker = EngineWorker {
            store: self.engine.inner.store.clone(),
            lease,
            engine: self.engine.clone(),
            runtime: self.runtime,
            context,
            extras: request.extras,
            locks: Arc::clone(&self.engine.inner.cache_locks),
            run,
            bases,
            sink,
            cancel: self.cancel,
            steps: Steps::default(),
            roots: Mutex::new(HashMap::new()),
        };
        if keeps_containers && request.style == Style::Classic {
            let text = "--rm=false keeps nothing: steps run without containers here".to_owned();
            worker.report(Event::Warning { text });
        }
        let built = build::solve::build(&worker, &prepared.file, &options);
        let id = built.map_err(|broken| fail(&worker, &prepared, &broken))?;
        if let Some(id) = id {
            finish(&worker, id, &references)?;
        }
        collect_soon(&worker.engine);
        Ok(id)
    }

    /// What RUN steps may ask for: the user's wish, where the daemon lets users wish it.
    fn allowed(&self, wishes: &[String]) -> Result<Vec<Entitlement>> {
        let own = &self.engine.inner.config.entitlements;
        let mut allowed = Vec::new();
        for wish in wishes {
            let (entitlement, may) = match wish.as_str() {
                "network.host" => (Entitlement::NetworkHost, own.network_host),
                "security.insecure" => (Entitlement::SecurityInsecure, own.security_insecure),
                _ => return Err(Error::invalid(format!("invalid entitlement: {wish}"))),
            };
            if may == Allowed::No {
                return Err(Error::new(Kind::Forbidden, format!("{wish} is not allowed")));
            }
            allowed.push(entitlement);
        }
        Ok(allowed)
    }

    /// The images of `--cache-from` that are here and whole; Docker passes over the others as well.
    fn cache_sources(&self, names: &[String], lease: &Lease) -> Vec<ImageConfig> {
        let here = |name: &String| self.engine.base_image(name).ok().flatten();
        let whole = |image: &Arc<Image>| image.layers.iter().all(|layer| lease.hold(layer));
        names.iter().filter_map(here).filter(whole).map(|image| image.config.clone()).collect()
    }

    /// The context, and the bytes that came over.
    fn context(
        &self,
        source: BuildSource,
        dockerfile: &str,
        extras: &Extras,
    ) -> Result<(Context, u64)> {
        let store = &self.engine.inner.store;
        match source {
            BuildSource::Context(body) => {
                let dockerfile = if dockerfile.is_empty() { "Dockerfile" } else { dockerfile };
                Context::receive(store, stream::reader(body), dockerfile, extras)
            }
            BuildSource::Remote(url) => self.remote(&url, dockerfile),
        }
    }

    fn remote(&self, url: &str, dockerfile: &str) -> Result<(Context, u64)> {
        let store = &self.engine.inner.store;
        if let Some(repository) = Repository::parse(url) {
            let keep = GitDirectory::Removed;
            let cloned = git::clone(&self.cancel, store, &repository, keep);
            let cloned = cloned.map_err(|failure| Error::invalid(failure.message))?;
            return Ok((Context::of_directory(cloned.directory, &cloned.below)?, 0));
        }
        if !url.starts_with("http://") && !url.starts_with("https://") {
            let text = format!("unable to prepare context: path {url:?} not found");
            return Err(Error::invalid(text));
        }
        let fetched = self.runtime.block_on(fetch::fetch(&self.engine.inner, url));
        let blob = fetched.map_err(|failure| {
            Error::invalid(format!("error downloading remote context {url}: {failure}"))
        })?;
        let content = blob.content.reader();
        let is_archive = store.is_archive(blob.content.reader()).map_err(|source| {
            Error::because(Kind::Internal, format!("cannot look at remote context {url}"), source)
        })?;
        match is_archive {
            true => Context::receive(store, content, dockerfile, &Extras::default()),
            false => Ok((Context::of_dockerfile(store, content)?, blob.content.size())),
        }
    }
}

/// Reads the Dockerfile and `.dockerignore`, and tells so in BuildKit's three lines.
fn prepare(
    context: &mut Context,
    dockerfile: &str,
    context_bytes: u64,
    sink: &Sink,
    started: SystemTime,
) -> std::result::Result<Prepared, BuildFailure> {
    let name = if dockerfile.is_empty() { "Dockerfile".to_owned() } else { dockerfile.to_owned() };
    let source = context.dockerfile(&name)?;
    let ignore_bytes = context.load_ignore(&name)?;
    let file =
        build::parse::parse(&source).map_err(|error| unparsed(sink, &name, &source, &error))?;
    let lines = [
        (
            DEFINITION,
            format!("[internal] load build definition from {name}"),
            format!("transferring dockerfile: {}", fixed_size(source.len() as u64)),
        ),
        (
            IGNORE,
            "[internal] load .dockerignore".to_owned(),
            format!("transferring context: {}", fixed_size(ignore_bytes.max(2) as u64)),
        ),
        (
            CONTEXT,
            "[internal] load build context".to_owned(),
            format!("transferring context: {}", fixed_size(context_bytes)),
        ),
    ];
    if (sink.style, sink.verbosity) == (Style::Trace, Verbosity::Full) {
        for (vertex, name, text) in lines {
            let at = SystemTime::now();
            let begun = if vertex == CONTEXT { started } else { at };
            let events = [
                Event::TaskStarted { vertex, name, at: begun },
                Event::TaskStatus { vertex, text, is_done: true, at },
                Event::TaskDone { vertex, error: None, at },
            ];
            for line in events.iter().filter_map(progress::trace) {
                sink.send(Output::Trace(line));
            }
        }
    }
    Ok(Prepared { file, name, source })
}

fn unparsed(sink: &Sink, name: &str, source: &[u8], error: &ParseError) -> BuildFailure {
    if sink.style == Style::Trace {
        let excerpt = progress::excerpt(name, &String::from_utf8_lossy(source), error.span);
        sink.send(Output::Trace(Trace::Failed {
            message: error.to_string(),
            excerpt: Some(excerpt),
        }));
    }
    let text = match (sink.style, error.problem.phase()) {
        (Style::Classic, Phase::Lines) => format!("failed to parse Dockerfile: {error}"),
        (Style::Classic, _) => error.to_string(),
        (Style::Trace, _) => format!("failed to solve: {error}"),
    };
    Error::invalid(text).into()
}

/// Keeps the cache small after a build, off its path, and not after each of many.
fn collect_soon(engine: &Engine) {
    const PAUSE: Duration = Duration::from_secs(60);
    let mut last = engine.inner.cache_collected.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|last| last.elapsed() < PAUSE) {
        return;
    }
    *last = Some(Instant::now());
    let engine = engine.clone();
    let spawned = std::thread::Builder::new()
        .name("tug-cache".to_owned())
        .spawn(move || engine.collect_cache());
    if let Err(error) = spawned {
        warn!(%error, "no thread to collect the build cache");
    }
}

/// Tags, and says what was made.
fn finish(worker: &EngineWorker, id: ImageId, references: &[Reference]) -> Result<()> {
    for reference in references {
        crate::images::tag(&worker.engine.inner, reference, &id)?;
    }
    worker.engine.inner.flush()?;
    if worker.sink.verbosity == Verbosity::Quiet {
        worker.sink.send(Output::Text(format!("{id}\n")));
    }
    for reference in references {
        worker.report(Event::Tagged { name: reference.familiar() });
    }
    info!(image = %id, "image built");
    Ok(())
}

/// Where in the archive named contexts are. Their numbers must have no gaps.
fn named_contexts(extras: &BuildExtras) -> Result<Extras> {
    let mut numbered = BTreeMap::new();
    for (name, context) in &extras.contexts {
        if let ExtraContext::Archive(number) = context {
            numbered.insert(*number, name.clone());
        }
    }
    let is_dense = numbered.keys().copied().eq(0..numbered.len());
    let directory = &extras.contexts_directory;
    let is_name = !directory.contains('/') && !matches!(directory.as_str(), "." | "..");
    if !is_dense || !is_name || (directory.is_empty() && !numbered.is_empty()) {
        return Err(Error::invalid("the named contexts make no sense"));
    }
    Ok(Extras { directory: directory.clone(), names: numbered.into_values().collect() })
}

fn contexts(extras: &BuildExtras) -> BTreeMap<String, NamedContext> {
    let context = |context: &ExtraContext| match context {
        ExtraContext::Archive(_) => NamedContext::Files,
        ExtraContext::Image(image) => NamedContext::Image(image.clone()),
    };
    extras.contexts.iter().map(|(name, own)| (name.clone(), context(own))).collect()
}

/// A failed solve as the client sees it.
fn fail(worker: &EngineWorker, prepared: &Prepared, broken: &Broken) -> BuildFailure {
    let kind = match &broken.error {
        StepError::Worker(failure)
        | StepError::Fetch(failure)
        | StepError::From { problem: failure, .. } => kind_of(failure.kind),
        StepError::Cancelled | StepError::Elsewhere => Kind::Unavailable,
        StepError::Command { .. } => Kind::Internal,
        StepError::NotAllowed(_) => Kind::Forbidden,
        StepError::Parse(_)
        | StepError::Target(_)
        | StepError::Expand(_)
        | StepError::State(_)
        | StepError::Select { .. }
        | StepError::ManyToOne(_)
        | StepError::BlankBase(_)
        | StepError::NoImage
        | StepError::NoStage(_)
        | StepError::OwnStage(_)
        | StepError::VolumeOnFile(_)
        | StepError::NoArguments
        | StepError::NoCommand
        | StepError::Epoch(_)
        | StepError::StageTwice(_)
        | StepError::Sum(_)
        | StepError::Mount(_)
        | StepError::FilesForBase(_)
        | StepError::Git(_)
        | StepError::Commit { .. }
        | StepError::Platform { .. }
        | StepError::Mode(_)
        | StepError::Checksum { .. }
        | StepError::Secret(_)
        | StepError::Ssh(_) => Kind::Invalid,
    };
    let code = match &broken.error {
        StepError::Command { code, .. } => Some(*code),
        _ => None,
    };
    let message = match worker.sink.style {
        Style::Classic => broken.error.to_string(),
        Style::Trace => {
            let message = broken.error.in_buildkits_words();
            let text = String::from_utf8_lossy(&prepared.source);
            let excerpt = broken.span.map(|span| progress::excerpt(&prepared.name, &text, span));
            worker.sink.send(Output::Trace(Trace::Failed { message: message.clone(), excerpt }));
            format!("failed to solve: {message}")
        }
    };
    BuildFailure { error: Error::new(kind, message), code }
}

fn kind_of(kind: FailureKind) -> Kind {
    match kind {
        FailureKind::NotFound => Kind::NotFound,
        FailureKind::Invalid => Kind::Invalid,
        FailureKind::Forbidden => Kind::Forbidden,
        FailureKind::Unsupported => Kind::NotImplemented,
        FailureKind::Cancelled => Kind::Unavailable,
        FailureKind::Internal => Kind::Internal,
    }
}

fn references(tags: &[String]) -> Result<Vec<Reference>> {
    let mut found: Vec<Reference> = Vec::new();
    for tag in tags.iter().filter(|tag| !tag.is_empty()) {
        let reference = Reference::parse(tag).map_err(|error| Error::invalid(chain(&error)))?;
        if reference.digest().is_some() {
            return Err(Error::invalid("build tag cannot contain a digest"));
        }
        if !found.contains(&reference) {
            found.push(reference);
        }
    }
    Ok(found)
}

fn platform(text: Option<&str>) -> Result<Option<Platform>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|error: spec::platform::PlatformError| {
        Error::invalid(format!("{}: invalid argument", chain(&error)))
    })
}

fn classic(containers: Containers) -> Classic {
    use progress::Containers::{Kept, Removed};
    match containers {
        Containers::Keep => Classic { after_success: Kept, after_failure: Kept },
        Containers::RemoveAfterSuccess => Classic { after_success: Removed, after_failure: Kept },
        Containers::RemoveAlways => Classic { after_success: Removed, after_failure: Removed },
    }
}

/// What steps are given, checked before anything is read.
fn run_options(request: &BuildRequest) -> Result<RunOptions> {
    let network: NetworkMode = request.network.parse()?;
    if let Some(wrong) = request.extra_hosts.iter().find(|line| !line.contains([':', '='])) {
        return Err(words::bad_extra_host(wrong));
    }
    let options = RunOptions {
        network,
        resources: request.resources.clone(),
        shm_size: request.shm_size,
        extra_hosts: request.extra_hosts.clone(),
        security: request.security_opt.clone(),
    };
    options.check()?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_name_without_a_digest() {
        let names = |tags: &[&str]| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            references(&tags).map(|found| found.iter().map(Reference::familiar).collect::<Vec<_>>())
        };
        assert_eq!(names(&["x", "", "x:latest", "h/y:1"]).unwrap(), ["x:latest", "h/y:1"]);
        assert!(names(&["X"]).is_err());
    }
}
