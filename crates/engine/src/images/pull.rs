//! Pulls: who asked for what, and which endpoint is asked for it.
//!
//! Two pulls of one name are one [`Job`] that both listen to; who comes later is told first how far
//! it is. When nobody listens any more the job ends, and what was downloaded stays for the next. What
//! is done with an endpoint is in [`super::fetch`].
//!
//! Source: moby `distribution/pull.go`, `pull_v2.go`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry::{Access, Client, Credentials, Endpoint, Role, Work};
use spec::{Digest, Platform, Reference};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tracing::info;

use super::download;
use super::fetch::{Fault, Fetch};
use super::registries::{Failed, may_fall_back, plain_error, pull_error};
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::{Engine, Inner};

/// What to pull, for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PullRequest {
    /// Without tag and digest: all tags.
    pub name: Reference,
    pub platform: Option<Platform>,
    pub extent: Extent,
    pub credentials: Credentials,
    /// Sent to the registry with each request.
    pub headers: Vec<(String, String)>,
}

/// How much of an index is pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Extent {
    #[default]
    OnePlatform,
    /// All that it names, so that it can be pushed or saved whole; one platform is unpacked.
    AllPlatforms,
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

impl Pull {
    async fn run(&self) -> Result<()> {
        let data_root = self.engine.config.data_root.clone();
        blocking(move || download::sweep(&data_root)).await;
        let name = &self.request.name;
        let mut last = Failed::default();
        let endpoints = self.engine.registries.endpoints(name.domain(), Work::Pull).await?;
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.capabilities.pull) {
            let (role, is_told) = (endpoint.role, endpoint.capabilities.resolve);
            let opened = self.open(endpoint).await;
            let client = match opened {
                Ok(client) => Arc::new(client),
                Err(error) if may_fall_back(&error, role) => {
                    last.note(error);
                    continue;
                }
                Err(error) => return Err(plain_error(error)),
            };
            let pulled = match is_told {
                true => self.from(&client).await,
                false => self.told_elsewhere(&client, &endpoints).await,
            };
            if let (Err(fault), Role::Mirror) = (&pulled, role) {
                let (mirror, error) = (endpoint.url(""), fault.to_string());
                info!(mirror, error, "a mirror is passed over");
            }
            match pulled {
                Ok(()) => return Ok(()),
                Err(Fault::Engine(error)) if role == Role::Registry => return Err(error),
                Err(Fault::Registry(error)) if role == Role::Registry => {
                    return Err(pull_error(error, name));
                }
                // The registry itself is asked next.
                Err(Fault::Engine(_)) => {}
                Err(Fault::Registry(error)) => last.note(error),
            }
        }
        Err(last.error(name.domain()))
    }

    fn fetch<'a>(&'a self, client: &'a Arc<Client>) -> Fetch<'a> {
        let (engine, reporter) = (&self.engine, &self.reporter);
        Fetch { engine, client, reporter, request: &self.request }
    }

    async fn from(&self, client: &Arc<Client>) -> std::result::Result<(), Fault> {
        let name = &self.request.name;
        if name.tag().is_some() || name.digest().is_some() {
            return self.fetch(client).one(name, name.digest()).await;
        }
        for tag in client.tags().await? {
            let Ok(name) = name.with_tag(&tag) else { continue };
            self.fetch(client).one(&name, None).await?;
        }
        Ok(())
    }

    async fn open(&self, endpoint: &Endpoint) -> std::result::Result<Client, registry::Error> {
        let (name, credentials) = (&self.request.name, &self.request.credentials);
        let endpoint = endpoint.clone().with_headers(&self.request.headers);
        self.engine.registries.client(endpoint, name, credentials, Access::Pull).await
    }

    /// From a host that has the content and does not say what a tag is: another one does.
    async fn told_elsewhere(
        &self,
        client: &Arc<Client>,
        endpoints: &[Endpoint],
    ) -> std::result::Result<(), Fault> {
        let name = &self.request.name;
        let (None, Some(tag)) = (name.digest(), name.tag()) else {
            return self.from(client).await;
        };
        let mut last = None;
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.capabilities.resolve) {
            let asked = async {
                let resolver = self.open(endpoint).await?;
                match resolver.find_manifest(tag).await? {
                    Some(known) => Ok(known.digest),
                    None => resolver.manifest(tag).await.map(|fetched| fetched.digest),
                }
            };
            match asked.await {
                Ok(digest) => return self.fetch(client).one(name, Some(digest)).await,
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(
            || Error::invalid(format!("no host says what {} is", name.familiar())).into(),
            Fault::Registry,
        ))
    }
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
}
