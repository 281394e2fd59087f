//! The solver: decides which steps run, in which order, and which were done before.
//!
//! Stages that the target does not need are never looked at. Each stage walks its instructions
//! with a [`State`]; a step that touches files has a key made of the tree below it (which is named
//! by content), the step itself and the content that goes in. What precedes it without changing
//! its input, such as a LABEL, is not in the key. A step that only changes the configuration has a
//! record too, so that a repeated build gives the same image with the same times.
//!
//! Docker has two builders with habits of their own. As [`Dialect::BuildKit`] only the stages that
//! the target needs are built, each on a thread that waits for the stages it names; as
//! [`Dialect::Classic`] all stages up to the target run in the file's order. What else differs is
//! said where it is decided. Both share the cache.
//!
//! Invariants: a failed or cancelled build commits nothing; the first failure is the one reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use spec::image::ImageConfig;
use spec::{Digest, ImageId, Platform};

use crate::export::Export;
use crate::flags::FlagError;
use crate::graph::{self, NoTarget, StageIndex};
use crate::instruction::{Dockerfile, Instruction, Pair, Span, Step};
use crate::lex::{self, ExpandError};
use crate::parse::ParseError;
use crate::progress::{Event, HIDDEN, Vertex};
use crate::select::SelectError;
use crate::stage::{Outcome, StageRun};
use crate::state::{State, StateError};
use crate::worker::{Base, Failure, Stream, Worker};

/// First vertex that the solver uses; those below are for whoever calls it.
pub const FIRST_VERTEX: Vertex = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    Use,
    Ignore,
}

/// Whose habits are followed where Docker's two builders differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    Classic,
    #[default]
    BuildKit,
}

/// What a RUN may have only when the user said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entitlement {
    NetworkHost,
    SecurityInsecure,
}

impl Entitlement {
    /// BuildKit's name for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::NetworkHost => "network.host",
            Self::SecurityInsecure => "security.insecure",
        }
    }
}

/// What stands behind a name of `--build-context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// Files that the worker has under the name.
    Files,
    /// An image.
    Image(String),
}

/// What the user asks of a build.
#[derive(Debug, Clone)]
pub struct Options {
    pub arguments: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: Option<String>,
    pub cache: Cache,
    pub dialect: Dialect,
    /// Images whose layers stand in for steps that their history tells of; given, they are the only
    /// source of cache. Classic only: BuildKit's lines of history do not say what was copied.
    pub cache_from: Option<Vec<ImageConfig>>,
    pub allowed: Vec<Entitlement>,
    /// The names of secrets and of agents that the worker can give.
    pub secrets: BTreeSet<String>,
    pub agents: BTreeSet<String>,
    /// What `--build-context` puts in place of stages and images.
    pub contexts: BTreeMap<String, NamedContext>,
    /// Stages whose steps are always done anew (`--no-cache-filter`), by name or number.
    pub fresh_stages: Vec<String>,
    pub platform: Option<Platform>,
    /// The image's names.
    pub names: Vec<String>,
    /// What is made of the result; nothing is only the cache.
    pub exports: Vec<Export>,
}

/// Why a step failed. The words are those of Docker's classic builder.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StepError {
    #[error("{0}")]
    Parse(#[from] ParseError),
    #[error("{0}")]
    Target(#[from] NoTarget),
    #[error("{0}")]
    Expand(#[from] ExpandError),
    #[error("{0}")]
    State(#[from] StateError),
    #[error("{keyword} failed: {problem}")]
    Select { keyword: &'static str, problem: SelectError },
    #[error(
        "When using {0} with more than one source file, the destination must be a directory and end with a /"
    )]
    ManyToOne(&'static str),
    #[error("The command '{}' returned a non-zero code: {code}", argv.join(" "))]
    Command { argv: Vec<String>, code: i32 },
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    #[error("No image was generated. Is your Dockerfile empty?")]
    NoImage,
    #[error("invalid from flag value {0}: index out of bounds")]
    NoStage(String),
    #[error("invalid from flag value {0}: refers to current build stage")]
    OwnStage(String),
    #[error("mkdir {0}: file exists")]
    VolumeOnFile(String),
    #[error("arguments are required")]
    NoArguments,
    #[error("no command specified")]
    NoCommand,
    #[error("invalid SOURCE_DATE_EPOCH: {0}")]
    Epoch(String),
    #[error("{0} stage name already used")]
    StageTwice(String),
    #[error("{0}")]
    Sum(&'static str),
    #[error("{0}")]
    Mount(#[from] FlagError),
    #[error("failed to parse platform {text:?}: {problem}")]
    Platform { text: String, problem: String },
    #[error("invalid chmod: {0:?}")]
    Mode(String),
    #[error("invalid from flag value {from}: {problem}")]
    From { from: String, problem: Failure },
    #[error("digest mismatch for {url}: {got}, expected: {want}")]
    Checksum { url: String, got: Digest, want: String },
    #[error("ADD failed: {0}")]
    Fetch(Failure),
    #[error("build context {0:?} holds files: FROM takes an image")]
    FilesForBase(String),
    #[error("{} is not allowed", .0.word())]
    NotAllowed(Entitlement),
    #[error("secret {0}: not found")]
    Secret(String),
    #[error("unset ssh forward key {0}")]
    Ssh(String),
    #[error("ADD of a git repository takes no other sources beside it: {0}")]
    Git(String),
    #[error("expected checksum to match {want}, got {got}")]
    Commit { got: String, want: String },
    #[error("failed to create: one of the needed stages failed")]
    Elsewhere,
    #[error("context canceled")]
    Cancelled,
    #[error("{0}")]
    Worker(#[from] Failure),
}

impl StepError {
    /// The same in BuildKit's words, for the trace.
    pub fn in_buildkits_words(&self) -> String {
        match self {
            Self::Command { argv, code } => {
                format!(
                    "process {:?} did not complete successfully: exit code: {code}",
                    argv.join(" ")
                )
            }
            Self::Select { problem: SelectError::Missing(path), .. } => {
                format!("failed to calculate checksum of ref: {:?}: not found", format!("/{path}"))
            }
            Self::Target(NoTarget(name)) => format!("target stage {name:?} could not be found"),
            Self::Parse(_)
            | Self::Expand(_)
            | Self::State(_)
            | Self::Select { .. }
            | Self::ManyToOne(_)
            | Self::BlankBase(_)
            | Self::NoImage
            | Self::NoStage(_)
            | Self::OwnStage(_)
            | Self::VolumeOnFile(_)
            | Self::NoArguments
            | Self::NoCommand
            | Self::Epoch(_)
            | Self::StageTwice(_)
            | Self::Sum(_)
            | Self::Mount(_)
            | Self::Platform { .. }
            | Self::Mode(_)
            | Self::From { .. }
            | Self::Checksum { .. }
            | Self::Fetch(_)
            | Self::NotAllowed(_)
            | Self::FilesForBase(_)
            | Self::Secret(_)
            | Self::Ssh(_)
            | Self::Git(_)
            | Self::Commit { .. }
            | Self::Elsewhere
            | Self::Cancelled
            | Self::Worker(_) => self.to_string(),
        }
    }
}

/// A failed build: the reason, and the line it failed in.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct Broken {
    pub span: Option<Span>,
    pub error: StepError,
}

impl<E: Into<StepError>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self { span: None, error: error.into() }
    }
}

/// What all stages of a build share.
pub(crate) struct Build<'a, W> {
    pub worker: &'a W,
    pub file: &'a Dockerfile,
    pub options: &'a Options,
    /// What each FROM says; a problem is the stage's own, since others may never get to it.
    pub bases: Vec<Result<String, StepError>>,
    pub globals: BTreeMap<String, String>,
    pub target: StageIndex,
    /// LABEL instructions that `--label` adds to the target, classic only.
    pub label_steps: Vec<Step>,
    /// Number of the first step of each needed stage, counting all in the file's order.
    pub numbers: BTreeMap<StageIndex, usize>,
    pub total: usize,
    vertices: AtomicU32,
    done: Mutex<BTreeMap<StageIndex, Result<Outcome, Broken>>>,
    changed: Condvar,
    failed: AtomicBool,
    /// Base images, each looked up once however many stages stand on it.
    images: Mutex<BTreeMap<(String, Option<String>), ImageSlot>>,
}

/// Where the image of a FROM goes; who comes first looks it up, and the others wait.
pub(crate) type ImageSlot = Arc<OnceLock<Result<Base, Failure>>>;

/// Builds the target and makes of it what the options ask for; the image's id where that is one.
///
/// # Errors
/// The first step that failed.
pub fn build<W: Worker>(
    worker: &W,
    file: &Dockerfile,
    options: &Options,
) -> Result<Option<ImageId>, Broken> {
    let target = graph::target(file, options.target.as_deref())?;
    check_epoch(options)?;
    let (globals, bases) = from_words(file, options)?;
    let is_classic = options.dialect == Dialect::Classic;
    let needed = match is_classic {
        true => (0..=target).collect(),
        false => graph::needed(file, &bases, target),
    };
    let label_steps = if is_classic { label_steps(&options.labels) } else { Vec::new() };
    let mut numbers = BTreeMap::new();
    // The classic builder counts the ARGs in front of the first FROM.
    let mut total = if is_classic { file.globals.len() } else { 0 };
    for &index in &needed {
        numbers.insert(index, total + 1);
        total += 1 + file.stages[index].steps.len();
    }
    total += label_steps.len();
    if is_classic {
        report_empty_continuations(worker, file);
        report_globals(worker, file, total);
    }
    let build = Build {
        worker,
        file,
        options,
        bases,
        globals,
        target,
        label_steps,
        numbers,
        total,
        vertices: AtomicU32::new(FIRST_VERTEX),
        done: Mutex::default(),
        changed: Condvar::new(),
        failed: AtomicBool::new(false),
        images: Mutex::default(),
    };
    build.run_stages(&needed)?;
    let outcome = build.verdict()?;
    build.export(outcome)
}

/// A fixed time that is none would be left out without a word.
fn check_epoch(options: &Options) -> Result<(), StepError> {
    let given = options.arguments.get("SOURCE_DATE_EPOCH").and_then(Option::as_deref);
    match given.filter(|text| !text.is_empty()) {
        Some(text) if text.parse::<u64>().is_err() => Err(StepError::Epoch(text.to_owned())),
        Some(_) | None => Ok(()),
    }
}

/// A wrong base is told when its stage begins.
type Bases = Vec<Result<String, StepError>>;

/// The global arguments' values, and the expanded base of every stage.
fn from_words(
    file: &Dockerfile,
    options: &Options,
) -> Result<(BTreeMap<String, String>, Bases), Broken> {
    let mut globals = platform_arguments(options);
    let escape = file.directives.escape;
    for argument in file.global_arguments() {
        let value = match (options.arguments.get(&argument.name), &argument.default) {
            (Some(Some(given)), _) => Some(given.clone()),
            (_, Some(default)) => Some(lex::expand(default, escape, &Globals(&globals))?),
            (_, None) => None,
        };
        if let Some(value) = value {
            globals.insert(argument.name.clone(), value);
        }
    }
    let base = |word: &str| match lex::expand(word, escape, &Globals(&globals)) {
        Ok(base) if base.is_empty() => Err(StepError::BlankBase(word.to_owned())),
        Ok(base) => Ok(base),
        Err(error) => Err(error.into()),
    };
    let bases = file.stages.iter().map(|stage| base(&stage.base)).collect();
    Ok((globals, bases))
}

fn report_empty_continuations<W: Worker>(worker: &W, file: &Dockerfile) {
    if file.empty_continuations.is_empty() {
        return;
    }
    let warn = |text: &str| {
        let text = format!("[WARNING]: {text}\n");
        worker.report(Event::Note { stream: Stream::Err, text });
    };
    for line in &file.empty_continuations {
        warn(&format!("Empty continuation line found in: {line}"));
    }
    warn("Empty continuation lines will become errors in a future release.");
}

fn report_globals<W: Worker>(worker: &W, file: &Dockerfile, total: usize) {
    for (index, line) in file.globals.iter().enumerate() {
        worker.report(Event::StepStarted {
            vertex: HIDDEN,
            number: Some(index + 1),
            total,
            text: line.text.clone(),
            name: None,
            at: worker.now(),
        });
    }
}

/// What `--label` says, as instructions.
fn label_steps(labels: &BTreeMap<String, String>) -> Vec<Step> {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\"'\"'"));
    let step = |(key, value): (&String, &String)| Step {
        span: Span::line(0),
        text: format!("LABEL {key}={value}"),
        instruction: Instruction::Label(vec![Pair { key: quoted(key), value: quoted(value) }]),
    };
    labels.iter().map(step).collect()
}

/// Global arguments as variables.
pub(crate) struct Globals<'a>(pub &'a BTreeMap<String, String>);

impl lex::Variables for Globals<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

fn platform_arguments(options: &Options) -> BTreeMap<String, String> {
    let host = Platform::host();
    let target = options.platform.clone().unwrap_or_else(|| host.clone());
    let mut arguments = BTreeMap::new();
    for (prefix, platform) in [("BUILD", &host), ("TARGET", &target)] {
        arguments.insert(format!("{prefix}PLATFORM"), platform.to_string());
        arguments.insert(format!("{prefix}OS"), platform.os.clone());
        arguments.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        arguments.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    let stage = options.target.clone().unwrap_or_else(|| "default".to_owned());
    arguments.insert("TARGETSTAGE".to_owned(), stage);
    arguments
}

impl<W: Worker> Build<'_, W> {
    pub fn vertex(&self) -> Vertex {
        self.vertices.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether no further step should start.
    pub fn is_over(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.worker.is_cancelled()
    }

    pub fn halted(&self) -> StepError {
        match self.worker.is_cancelled() {
            true => StepError::Cancelled,
            false => StepError::Elsewhere,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<StageIndex, Result<Outcome, Broken>>> {
        // A stage that panicked left the map as it was before; the scope passes the panic on.
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_stages(&self, needed: &[StageIndex]) -> Result<(), Broken> {
        if self.options.dialect == Dialect::BuildKit && needed.len() > 1 {
            std::thread::scope(|scope| {
                for &index in needed {
                    scope.spawn(move || self.settle(index));
                }
            });
            return Ok(());
        }
        for &index in needed {
            self.settle(index);
            if self.is_over() {
                break;
            }
            if self.options.dialect == Dialect::Classic && index != self.target {
                self.keep_stage(index)?;
            }
        }
        Ok(())
    }

    /// The classic builder keeps the image of every stage and tells its id.
    fn keep_stage(&self, index: StageIndex) -> Result<(), Broken> {
        let mut outcome = self.outcome(index)?;
        if outcome.state.base.is_none() && !outcome.changed {
            return Ok(());
        }
        let image = self.commit(&mut outcome.state, outcome.changed, &outcome.created)?;
        self.worker.report(Event::StageBuilt { image });
        Ok(())
    }

    /// Where the image of a FROM is, or will be.
    pub fn image_slot(&self, base: &str, platform: Option<&Platform>) -> ImageSlot {
        let key = (base.to_owned(), platform.map(Platform::to_string));
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(images.entry(key).or_default())
    }

    /// Runs a stage and keeps how it ended.
    fn settle(&self, index: StageIndex) {
        let alarm = Alarm(self);
        let result = StageRun::new(self, index).and_then(StageRun::run);
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        self.lock().insert(index, result);
        drop(alarm);
    }

    /// Waits for a stage that another one needs.
    pub fn outcome(&self, index: StageIndex) -> Result<Outcome, StepError> {
        let mut done = self.lock();
        loop {
            match done.get(&index) {
                Some(Ok(outcome)) => return Ok(outcome.clone()),
                Some(Err(_)) => return Err(StepError::Elsewhere),
                None if self.is_over() => return Err(self.halted()),
                None => done = self.changed.wait(done).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// The target's outcome, or the failure that came first: the one that is not about another.
    fn verdict(&self) -> Result<Outcome, Broken> {
        let done = self.lock();
        let failures = || done.values().filter_map(|result| result.as_ref().err());
        let is_echo =
            |broken: &&Broken| matches!(broken.error, StepError::Elsewhere | StepError::Cancelled);
        if let Some(broken) =
            failures().find(|broken| !is_echo(broken)).or_else(|| failures().next())
        {
            return Err(broken.clone());
        }
        match done.get(&self.target) {
            Some(Ok(outcome)) => Ok(outcome.clone()),
            Some(Err(_)) | None => Err(self.halted().into()),
        }
    }

    fn export(&self, outcome: Outcome) -> Result<Option<ImageId>, Broken> {
        let mut state = outcome.state;
        let unused = self.unused_arguments(&outcome.consumed);
        if self.options.dialect == Dialect::Classic && state.base.is_none() && !outcome.changed {
            return Err(StepError::NoImage.into());
        }
        for (name, value) in &self.options.labels {
            state.image.config.labels.insert(name.clone(), value.clone());
        }
        if self.is_over() {
            return Err(self.halted().into());
        }
        let exports = &self.options.exports;
        let changed = outcome.changed || !self.options.labels.is_empty();
        let image = match exports.contains(&Export::Image) {
            true => Some(self.commit(&mut state, changed, &outcome.created)?),
            false => None,
        };
        if let Some(Event::StepDone { vertex, is_cached, container, at, .. }) = outcome.last {
            let result = image.map(|id| id.short());
            self.worker.report(Event::StepDone { vertex, is_cached, container, result, at });
        }
        for (output, export) in exports.iter().enumerate() {
            self.hand_over(&state, *export, output, image)?;
        }
        if !unused.is_empty() {
            let text = format!("One or more build-args [{}] were not consumed", unused.join(" "));
            self.worker.report(Event::Warning { text });
        }
        if let Some(image) = image {
            self.worker.report(Event::Built { image });
        }
        Ok(image)
    }

    /// Keeps an image. Nothing but FROM is the base itself.
    fn commit(&self, state: &mut State, changed: bool, created: &str) -> Result<ImageId, Broken> {
        match (state.base, changed) {
            (Some(base), false) => Ok(base),
            (base, _) => {
                state.image.created.get_or_insert_with(|| created.to_owned());
                Ok(self.worker.commit(&state.image, base)?)
            }
        }
    }

    /// Makes one of the outputs, as a line of the display of its own.
    fn hand_over(
        &self,
        state: &State,
        export: Export,
        output: usize,
        image: Option<ImageId>,
    ) -> Result<(), Broken> {
        let vertex = self.vertex();
        let (name, at) = (export.title().to_owned(), self.worker.now());
        self.worker.report(Event::TaskStarted { vertex, name, at });
        let tell = |text: String, is_done: bool| {
            let at = self.worker.now();
            self.worker.report(Event::TaskStatus { vertex, text, is_done, at });
        };
        let made = match (export, image) {
            (Export::Image, Some(id)) => {
                tell("exporting layers".to_owned(), true);
                tell(format!("writing image {id}"), true);
                self.options.names.iter().for_each(|name| tell(format!("naming to {name}"), true));
                Ok(())
            }
            (_, _) => {
                let names = &self.options.names;
                self.worker.export(&state.image, export, output, names, &tell)
            }
        };
        let error = made.as_ref().err().map(Failure::to_string);
        self.worker.report(Event::TaskDone { vertex, error, at: self.worker.now() });
        Ok(made?)
    }

    fn unused_arguments(&self, consumed: &[String]) -> Vec<String> {
        let globals = self.file.global_arguments().map(|argument| &argument.name);
        let known: Vec<&String> = consumed.iter().chain(globals).collect();
        let is_known = |name: &String| {
            known.contains(&name)
                || crate::state::PROXY_ARGUMENTS.contains(&name.as_str())
                || name == "SOURCE_DATE_EPOCH"
                || name.starts_with("BUILDKIT_")
        };
        self.options.arguments.keys().filter(|name| !is_known(name)).cloned().collect()
    }
}

/// Wakes the waiting stages even when the stage panics, so that no thread waits for ever.
struct Alarm<'a, 'b, W>(&'a Build<'b, W>);

impl<W> Drop for Alarm<'_, '_, W> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Relaxed);
        }
        let _guard = self.0.done.lock();
        self.0.changed.notify_all();
    }
}
