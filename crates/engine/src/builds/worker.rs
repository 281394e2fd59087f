//! The engine's [`Worker`]: layers from the store, commands under a monitor, bytes from the net.
//!
//! Called from the solver's threads, which are blocking threads: async work is waited for on the
//! runtime's handle. New layers live as long as the lease, then through the cache records and the
//! image that name them.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use build::export::Export;
use build::git::{GitDirectory, Repository};
use build::instruction::RunNetwork;
use build::progress::{Classic, Event, Piece, trace};
use build::worker::{
    Base, Blob, Failure, FailureKind, Files, Origin, Ran, Record, RunStep, Stream, Worker,
    WriteStep,
};
use runs::workload::{Access, BindSource};
use spec::image::ImageConfig;
use spec::{DiffId, Digest, Id, ImageId, Platform, Reference};
use store::{Image, LayerKey, Lease, Store};
use sys::path::Root;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::context::Context;
use super::files::{Owners, Tree};
use super::mounts::{CacheLocks, bind};
use super::step::{RunOptions, Step};
use super::step_run;
use super::steps::Steps;
use super::{BuildExtras, Output, Pull, Style, Verbosity, fetch, git};
use crate::Engine;
use crate::containers::spec::NetworkMode;
use crate::containers::views::LogSource;
use crate::error::{Error, Kind, chain};
use crate::images::{Credentials, Extent, PullRequest};
use crate::workloads::Privileges;

/// Names of the snapshots of RUN steps.
pub(super) const SNAPSHOT_PREFIX: &str = "build-";

/// How base images are got.
#[derive(Debug, Clone, Default)]
pub(super) struct Bases {
    pub(super) pull: Pull,
    pub(super) credentials: BTreeMap<String, Credentials>,
}

/// Where a build's progress goes.
pub(super) struct Sink {
    pub(super) output: mpsc::Sender<Output>,
    pub(super) style: Style,
    pub(super) verbosity: Verbosity,
    pub(super) classic: Classic,
}

impl Sink {
    /// Sends from a blocking thread. A client that is gone is noticed by the cancel flag.
    pub(super) fn send(&self, output: Output) {
        let _ = self.output.blocking_send(output);
    }
}

/// What one build works with.
pub(super) struct EngineWorker {
    pub(super) engine: Engine,
    pub(super) store: Store,
    pub(super) runtime: Handle,
    pub(super) lease: Lease,
    pub(super) context: Context,
    pub(super) extras: BuildExtras,
    pub(super) locks: Arc<CacheLocks>,
    pub(super) run: RunOptions,
    pub(super) bases: Bases,
    pub(super) sink: Sink,
    pub(super) cancel: watch::Sender<bool>,
    pub(super) steps: Steps,
    /// Merged trees that were opened, by their layers.
    pub(super) roots: Mutex<HashMap<Vec<DiffId>, Arc<Root>>>,
}

/// What a running command gave next.
enum Next {
    Output(Option<(LogSource, bytes::Bytes)>),
    Cancel,
}

/// Removes a snapshot when dropped, unless a commit took it.
struct StepSnapshot<'a> {
    store: &'a Store,
    id: String,
}

impl Drop for StepSnapshot<'_> {
    fn drop(&mut self) {
        if self.store.snapshot(&self.id).is_err() {
            return;
        }
        if let Err(error) = self.store.snapshot_remove(&self.id) {
            warn!(snapshot = self.id, error = chain(&error), "build snapshot left behind");
        }
    }
}

pub(super) fn keys(chain: &[DiffId]) -> Vec<LayerKey> {
    chain.iter().copied().map(LayerKey).collect()
}

/// A lower layer's failure, with its whole chain for the user.
pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(FailureKind::Internal, chain(error))
}

pub(super) fn failure_of(error: &Error) -> Failure {
    let kind = match error.kind {
        Kind::NotFound => FailureKind::NotFound,
        Kind::Invalid | Kind::Conflict | Kind::NotModified => FailureKind::Invalid,
        Kind::Unauthorized | Kind::Forbidden => FailureKind::Forbidden,
        Kind::NotImplemented => FailureKind::Unsupported,
        Kind::Unavailable | Kind::Upstream | Kind::Internal => FailureKind::Internal,
    };
    Failure::new(kind, error.message.clone())
}

pub(super) fn cancelled() -> Failure {
    Failure::new(FailureKind::Cancelled, "context canceled")
}

impl EngineWorker {
    /// The root of a tree, merged when it has several layers.
    pub(super) fn root_of(&self, origin: &Origin) -> Result<Arc<Root>, Failure> {
        let chain = match origin {
            Origin::Context => return self.context.root(None),
            Origin::Named(name) => return self.context.root(Some(name)),
            Origin::Layers(chain) => chain,
        };
        let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = roots.get(chain) {
            return Ok(Arc::clone(root));
        }
        let fd = self.store.mount_chain(&keys(chain)).map_err(|error| internal(&error))?;
        let root = Arc::new(Root::new(fd));
        roots.insert(chain.clone(), Arc::clone(&root));
        Ok(root)
    }

    /// Runs a command to its end. Only the waits are async: `log` blocks when its reader is slow.
    fn run_in(&self, step: Step, log: &dyn Fn(Stream, &[u8])) -> Result<i32, Failure> {
        let mut cancel = self.cancel.subscribe();
        let id = step.id.to_string();
        let publish = |action, more: &[(&str, String)]| {
            self.steps.tell(&self.engine.inner, &id, action, more);
        };
        publish("attach", &[]);
        let started = self.runtime.block_on(step_run::start(&self.engine.inner, step));
        let mut step = started.map_err(|error| failure_of(&error))?;
        publish("start", &[]);
        let mut is_cancelled = false;
        loop {
            let next = self.runtime.block_on(async {
                tokio::select! {
                    chunk = step.output.recv() => Next::Output(chunk),
                    _ = cancel.wait_for(|wanted| *wanted), if !is_cancelled => Next::Cancel,
                }
            });
            match next {
                Next::Output(Some((LogSource::Stdout, bytes))) => log(Stream::Out, &bytes),
                Next::Output(Some((LogSource::Stderr, bytes))) => log(Stream::Err, &bytes),
                Next::Output(None) => break,
                Next::Cancel => {
                    is_cancelled = true;
                    step.cancel();
                }
            }
        }
        let code = self.runtime.block_on(step.wait()).map_err(|error| failure_of(&error))?;
        publish("die", &[("exitCode", code.to_string())]);
        match is_cancelled {
            true => Err(cancelled()),
            false => Ok(code),
        }
    }

    /// The environment, with those variables that leave no trace.
    fn with_secrets(&self, step: &RunStep) -> Vec<String> {
        let secret = |(name, id): &(String, String)| {
            let content = self.extras.secrets.get(id)?;
            Some(format!("{name}={}", String::from_utf8_lossy(content)))
        };
        step.env.iter().cloned().chain(step.secret_env.iter().filter_map(secret)).collect()
    }

    fn network(&self, network: RunNetwork) -> NetworkMode {
        match network {
            RunNetwork::Default => self.run.network.clone(),
            RunNetwork::None => NetworkMode::None,
            RunNetwork::Host => NetworkMode::Host,
        }
    }
}

impl EngineWorker {
    /// The image that FROM names, pulled where it is missing or where that is wanted always.
    fn base(&self, text: &str, platform: Option<&Platform>) -> Result<Arc<Image>, Failure> {
        let here = self.engine.base_image(text).map_err(|error| failure_of(&error))?;
        let name =
            Reference::parse(text).map_err(|error| failure_of(&Error::invalid(chain(&error))))?;
        match (here, self.bases.pull) {
            (Some(image), Pull::Missing) => return Ok(image),
            // By its id, which no registry knows.
            (Some(image), Pull::Always) if self.store.resolve_tag(&name).is_none() => {
                return Ok(image);
            }
            (Some(_), Pull::Always) | (None, Pull::Missing | Pull::Always) => {}
        }
        let credentials = credentials_for(&self.bases.credentials, name.domain());
        let request = PullRequest {
            name,
            platform: platform.cloned(),
            extent: Extent::OnePlatform,
            credentials,
            headers: Vec::new(),
        };
        let (sender, mut progress) = mpsc::channel(16);
        let mut cancel = self.cancel.subscribe();
        let pulled = self.runtime.block_on(async {
            let drain = async { while progress.recv().await.is_some() {} };
            tokio::select! {
                (pulled, ()) = async { tokio::join!(self.engine.pull_image(request, sender), drain) } => {
                    pulled.map_err(|error| failure_of(&error))
                }
                _ = cancel.wait_for(|is_cancelled| *is_cancelled) => Err(cancelled()),
            }
        });
        pulled?;
        let here = self.engine.base_image(text).map_err(|error| failure_of(&error))?;
        here.ok_or_else(|| failure_of(&crate::words::no_such_image(text)))
    }
}

/// Clients keep Docker Hub's credentials under its old address.
fn credentials_for(all: &BTreeMap<String, Credentials>, domain: &str) -> Credentials {
    let key = if domain == "docker.io" { "https://index.docker.io/v1/" } else { domain };
    all.get(key).cloned().unwrap_or_default()
}

impl Worker for EngineWorker {
    fn image(&self, reference: &str, platform: Option<&Platform>) -> Result<Base, Failure> {
        let image = self.base(reference, platform)?;
        if let Some(platform) = platform
            && !platform.runs(&image.config.platform())
        {
            let text = format!(
                "image with reference {reference} was found but does not provide the specified platform ({platform})"
            );
            return Err(Failure::new(FailureKind::NotFound, text));
        }
        if let Some(gone) = image.layers.iter().find(|layer| !self.lease.hold(layer)) {
            let text = format!("layer {} of {reference} is gone", gone.diff_id());
            return Err(Failure::new(FailureKind::NotFound, text));
        }
        Ok(Base { id: image.id, config: image.config.clone() })
    }

    fn files<'a>(&'a self, origin: &Origin) -> Result<Box<dyn Files + 'a>, Failure> {
        match origin {
            Origin::Context => self.context.files(None),
            Origin::Named(name) => self.context.files(Some(name)),
            Origin::Layers(_) => {
                let root = self.root_of(origin)?;
                Ok(Box::new(Tree::new(root, Arc::default(), Owners::Count)))
            }
        }
    }

    fn fetch(&self, url: &str) -> Result<Blob, Failure> {
        let mut cancel = self.cancel.subscribe();
        self.runtime.block_on(async {
            tokio::select! {
                fetched = fetch::fetch(&self.engine.inner, url) => fetched,
                _ = cancel.wait_for(|is_cancelled| *is_cancelled) => Err(cancelled()),
            }
        })
    }

    fn repository(
        &self,
        repository: &Repository,
        keep: GitDirectory,
    ) -> Result<(Origin, String), Failure> {
        let cloned = git::clone(&self.cancel, &self.store, repository, keep)?;
        let added = self.context.add(cloned.directory, &cloned.below);
        Ok((added.map_err(|error| failure_of(&error))?, cloned.commit))
    }

    fn run(
        &self,
        below: &[DiffId],
        step: &RunStep,
        log: &dyn Fn(Stream, &[u8]),
    ) -> Result<Ran, Failure> {
        let id = format!("{SNAPSHOT_PREFIX}{}", Id::random());
        self.store.snapshot_create(&id, &keys(below)).map_err(|error| internal(&error))?;
        let snapshot = StepSnapshot { store: &self.store, id };
        let mut mounts = self.step_mounts(&step.mounts)?;
        let stubs = self.stubs(below, &mounts)?;
        self.volume_mounts(below, &step.volumes, &mut mounts)?;
        // Kept open (and thereby in place) until the command has ended.
        let mut script = None;
        if let Some((target, text)) = &step.script {
            let file = Script::write(&self.store, text)?;
            let source = BindSource::Path(file.0.clone());
            mounts.list.push(bind(source, target, Access::ReadOnly));
            script = Some(file);
        }
        let command = Step {
            id: step.container.parse().unwrap_or_else(|_| Id::random()),
            snapshot: snapshot.id.clone(),
            argv: step.argv.clone(),
            env: self.with_secrets(step),
            user: step.user.clone(),
            working_dir: step.working_dir.clone(),
            network: self.network(step.network),
            privileges: match step.privileged {
                true => Privileges::All,
                false => Privileges::Default,
            },
            hostname: step.hostname.clone(),
            mounts: std::mem::take(&mut mounts.list),
            options: self.run.clone(),
        };
        let code = self.run_in(command, log)?;
        drop((mounts, script));
        if code != 0 {
            return Ok(Ran { code, layer: None });
        }
        self.remove_stubs(&snapshot.id, &stubs)?;
        let layer =
            self.store.commit_upper(&self.lease, &snapshot.id).map_err(|error| internal(&error))?;
        Ok(Ran { code, layer: layer.map(|layer| layer.key.diff_id()) })
    }

    fn write(&self, below: &[DiffId], step: &WriteStep) -> Result<Option<DiffId>, Failure> {
        super::write::write(self, below, step)
    }

    fn make_directory(
        &self,
        below: &[DiffId],
        path: &str,
        user: &str,
    ) -> Result<Option<DiffId>, Failure> {
        super::write::make_directory(self, below, path, user)
    }

    fn recall(&self, key: &Digest) -> Option<Record> {
        let kept = self.store.cache_get(&key.hex())?;
        let record: Record = match serde_json::from_value(kept.value.clone()) {
            Ok(record) => record,
            Err(error) => {
                debug!(key = %key, %error, "build cache record is not readable");
                return None;
            }
        };
        let is_there = record.layer.is_none_or(|layer| self.lease.hold(&LayerKey(layer)));
        is_there.then_some(record)
    }

    fn remember(&self, key: &Digest, record: &Record) {
        let layers: Vec<LayerKey> = record.layer.into_iter().map(LayerKey).collect();
        let kept = serde_json::to_value(record).map_err(|error| chain(&error)).and_then(|value| {
            self.store.cache_put(&key.hex(), value, &layers).map_err(|error| chain(&error))
        });
        // The build goes on; only the next one is slower.
        if let Err(error) = kept {
            warn!(key = %key, error, "build step not cached");
        }
    }

    fn commit(&self, config: &ImageConfig, _base: Option<ImageId>) -> Result<ImageId, Failure> {
        let bytes = serde_json::to_vec(config).map_err(|error| internal(&error))?;
        let id = self.store.image_create(&bytes, None, &self.lease);
        let id = id.map_err(|error| internal(&error))?;
        crate::images::tell(&self.engine.inner, "create", &id, &id.to_string());
        Ok(id)
    }

    fn export(
        &self,
        config: &ImageConfig,
        export: Export,
        output: usize,
        names: &[String],
        tell: &dyn Fn(String, bool),
    ) -> Result<(), Failure> {
        self.hand_over(config, export, output, names, tell)
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn is_cancelled(&self) -> bool {
        *self.cancel.borrow()
    }

    fn report(&self, event: Event) {
        // A failed step ends its neighbours at once instead of letting them finish for nothing.
        if matches!(event, Event::StepFailed { .. }) {
            self.abort_neighbours();
        }
        if self.sink.style == Style::Classic {
            self.tell_of_step(&event);
        }
        match (self.sink.style, self.sink.verbosity) {
            (_, Verbosity::Quiet) => {}
            (Style::Trace, Verbosity::Full) => {
                if let Some(line) = trace(&event) {
                    self.sink.send(Output::Trace(line));
                }
            }
            (Style::Classic, Verbosity::Full) => {
                for piece in self.sink.classic.render(&event) {
                    self.sink.send(match piece {
                        Piece::Text(text) => Output::Text(text),
                        Piece::Image(id) => Output::Image(id),
                    });
                }
            }
        }
    }
}

impl EngineWorker {
    fn tell_of_step(&self, event: &Event) {
        match event {
            Event::Running { container, image, .. } => {
                self.steps.begin(&self.engine.inner, container, image);
            }
            Event::StepDone { container: Some(container), .. }
            | Event::StepFailed { container: Some(container), .. } => {
                self.steps.end(&self.engine.inner, container);
            }
            _ => {}
        }
    }

    fn abort_neighbours(&self) {
        if self.sink.style == Style::Trace {
            self.cancel.send_replace(true);
        }
    }
}

/// A heredoc's script, as a file of its own while its step runs.
struct Script(std::path::PathBuf);

impl Script {
    fn write(store: &Store, text: &str) -> Result<Self, Failure> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = store.root().join("tmp").join(format!(
            "{}script-{}",
            super::context::PREFIX,
            Id::random().short()
        ));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o755);
        let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        let script = Self(path);
        written.map_err(|error| internal(&error))?;
        Ok(script)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            warn!(path = ?self.0, %error, "build script left behind");
        }
    }
}
