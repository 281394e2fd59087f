//! One stage: FROM, the base's triggers, then instruction by instruction.
//!
//! Elsewhere: what an instruction does to the configuration in [`crate::state`], the keys' format
//! in [`crate::key`], the steps that touch files in [`crate::step`].

use spec::image::History;
use spec::{DiffId, Digest, Platform, Reference};

use crate::graph::{self, StageIndex};
use crate::instruction::{Instruction, Stage, Step};
use crate::key::Key;
use crate::lex;
use crate::parse;
use crate::progress::{Event, HIDDEN, Vertex, rfc3339};
use crate::solve::{Broken, Build, Cache, Dialect, Globals, NamedContext, StepError};
use crate::state::State;
use crate::worker::{Base, Failure, NodeKind, Origin, Record, Stream, Worker};

/// How a stage ended.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub state: State,
    /// Whether anything came after FROM.
    pub changed: bool,
    pub created: String,
    /// Arguments that the stage declared.
    pub consumed: Vec<String>,
    /// The last step's end, kept back until the image has its id.
    pub last: Option<Event>,
    key: Digest,
}

/// A stage at work.
pub(crate) struct StageRun<'a, 'b, W> {
    pub build: &'a Build<'b, W>,
    pub index: StageIndex,
    pub state: State,
    /// Names the image so far, configuration included.
    key: Digest,
    consumed: Vec<String>,
    number: usize,
    /// Position among the steps that BuildKit shows, and their count.
    position: usize,
    shown: usize,
    changed: bool,
    created: String,
    pending: Option<Event>,
    triggers: Vec<String>,
    /// Triggers have no result of their own.
    in_triggers: bool,
}

/// A step's identity while it runs.
pub(crate) struct Current {
    pub vertex: Vertex,
    pub container: String,
}

impl<'a, 'b, W: Worker> StageRun<'a, 'b, W> {
    /// Does the FROM.
    pub fn new(build: &'a Build<'b, W>, index: StageIndex) -> Result<Self, Broken> {
        let stage = &build.file.stages[index];
        let at = |error: StepError| Broken { span: Some(stage.span), error };
        if build.is_over() {
            return Err(build.halted().into());
        }
        let earlier = &build.file.stages[..index];
        let is_taken =
            |name: &String| earlier.iter().any(|other| other.name.as_ref() == Some(name));
        if let (Dialect::Classic, Some(name)) = (build.options.dialect, &stage.name)
            && is_taken(name)
        {
            return Err(at(StepError::StageTwice(name.clone())));
        }
        let is_image = build.bases[index]
            .as_ref()
            .is_ok_and(|base| base != "scratch" && graph::base(build.file, index, base).is_none());
        let shown = usize::from(is_image)
            + stage.steps.iter().filter(|step| is_shown(&step.instruction)).count();
        let (escape, dialect) = (build.file.directives.escape, build.options.dialect);
        let state = State { escape, dialect, ..State::default() };
        let mut run = Self {
            build,
            index,
            state,
            key: Key::new("scratch").digest(),
            consumed: Vec::new(),
            number: build.numbers.get(&index).copied().unwrap_or(1),
            position: usize::from(is_image),
            shown,
            changed: false,
            created: rfc3339(build.worker.now()),
            pending: None,
            triggers: Vec::new(),
            in_triggers: false,
        };
        run.from(stage).map_err(at)?;
        Ok(run)
    }

    /// Does the rest.
    pub fn run(mut self) -> Result<Outcome, Broken> {
        let stage = &self.build.file.stages[self.index];
        self.run_triggers().map_err(|error| Broken { span: Some(stage.span), error })?;
        let added = match self.index == self.build.target {
            true => self.build.label_steps.as_slice(),
            false => &[],
        };
        let count = stage.steps.len() + added.len();
        for (index, step) in stage.steps.iter().chain(added).enumerate() {
            self.number += 1;
            let is_last = index + 1 == count;
            let number = Some(self.number);
            self.step(step, number, is_last)
                .map_err(|error| Broken { span: Some(step.span), error })?;
        }
        Ok(Outcome {
            state: self.state,
            changed: self.changed,
            created: self.created,
            consumed: self.consumed,
            last: self.pending,
            key: self.key,
        })
    }

    /// Does what the base's ONBUILD says; the classic text shows one result for all of it.
    fn run_triggers(&mut self) -> Result<(), StepError> {
        let triggers = std::mem::take(&mut self.triggers);
        if triggers.is_empty() {
            return Ok(());
        }
        let is_only = self.ends_with_from();
        self.build.worker.report(Event::Triggers { count: triggers.len() });
        for text in triggers {
            let step = parse::parse_trigger(&text)?;
            self.in_triggers = true;
            let done = self.step(&step, None, false);
            self.in_triggers = false;
            done?;
        }
        if self.is_classic() {
            self.finished(HIDDEN, false, None, self.key.short(), is_only);
        }
        Ok(())
    }

    fn is_classic(&self) -> bool {
        self.build.options.dialect == Dialect::Classic
    }

    /// Whether nothing comes after FROM.
    fn ends_with_from(&self) -> bool {
        let is_target = self.index == self.build.target;
        self.build.file.stages[self.index].steps.is_empty()
            && (!is_target || self.build.label_steps.is_empty())
    }

    fn from(&mut self, stage: &Stage) -> Result<(), StepError> {
        let base = match self.build.bases[self.index].clone() {
            Ok(base) => base,
            Err(error) => {
                let vertex = self.started(&stage.text, None, Some(self.number));
                self.broke(vertex, None, &error.in_buildkits_words());
                return Err(error);
            }
        };
        match self.build.options.contexts.get(&base) {
            Some(NamedContext::Image(image)) => return self.begin_on_image(stage, image),
            Some(NamedContext::Files) => return Err(StepError::FilesForBase(base)),
            None => {}
        }
        if base == "scratch" {
            let platform = self.platform(stage)?.unwrap_or_else(Platform::host);
            self.state.image.architecture = platform.architecture;
            self.state.image.os = platform.os;
            self.state.image.variant = platform.variant;
            self.state.begin();
            if !self.is_classic() {
                self.state.image.config.working_dir = "/".to_owned();
            }
            let vertex = self.started(&stage.text, None, Some(self.number));
            self.finished(vertex, false, None, String::new(), self.ends_with_from());
            return Ok(());
        }
        if let Some(earlier) = graph::base(self.build.file, self.index, &base) {
            let outcome = self.build.outcome(earlier)?;
            let result = outcome.key.short();
            let vertex = self.started(&stage.text, None, Some(self.number));
            self.state = outcome.state;
            self.state.has_own_cmd = false;
            self.state.begin();
            self.key = outcome.key;
            self.changed = outcome.changed;
            self.created = outcome.created;
            self.triggers = std::mem::take(&mut self.state.image.config.on_build);
            self.base_done(vertex, result);
        } else {
            self.begin_on_image(stage, &base)?;
        }
        Ok(())
    }

    /// The classic text has nothing of a base whose triggers are still to run.
    fn base_done(&mut self, vertex: Vertex, result: String) {
        if !self.is_classic() || self.triggers.is_empty() {
            self.finished(vertex, false, None, result, self.ends_with_from());
        }
    }

    fn begin_on_image(&mut self, stage: &Stage, base: &str) -> Result<(), StepError> {
        let platform = self.platform(stage)?;
        let shown = Reference::parse(base)
            .map_or_else(|_| base.to_owned(), |reference| reference.to_string());
        let slot = self.build.image_slot(base, platform.as_ref());
        let mut is_first = false;
        let found = slot.get_or_init(|| {
            is_first = true;
            self.look_up(base, &shown, platform.as_ref())
        });
        let found = found.clone();
        // A base of several stages has one line.
        let name = (is_first && found.is_ok()).then(|| self.shown_name(&format!("FROM {shown}")));
        let vertex = self.started(&stage.text, name, Some(self.number));
        let image = found.inspect_err(|failure| self.broke(vertex, None, &failure.to_string()))?;
        self.key = Key::new("from").with(&image.id.to_string()).digest();
        self.created = image.config.created.clone().unwrap_or_default();
        self.state.image = image.config;
        self.state.begin();
        self.state.base = Some(image.id);
        self.triggers = std::mem::take(&mut self.state.image.config.on_build);
        self.base_done(vertex, image.id.short());
        Ok(())
    }

    fn look_up(
        &self,
        base: &str,
        shown: &str,
        platform: Option<&Platform>,
    ) -> Result<Base, Failure> {
        let worker = self.build.worker;
        let vertex = self.build.vertex();
        let name = format!("[internal] load metadata for {shown}");
        worker.report(Event::TaskStarted { vertex, name, at: worker.now() });
        let found = worker.image(base, platform);
        let error = found.as_ref().err().map(Failure::to_string);
        worker.report(Event::TaskDone { vertex, error, at: worker.now() });
        found
    }

    fn platform(&self, stage: &Stage) -> Result<Option<Platform>, StepError> {
        let Some(word) = &stage.platform else { return Ok(self.build.options.platform.clone()) };
        let text = lex::expand(word, self.state.escape, &Globals(&self.build.globals))?;
        text.parse().map(Some).map_err(|problem: spec::platform::PlatformError| {
            StepError::Platform { text: text.clone(), problem: problem.to_string() }
        })
    }

    fn step(&mut self, step: &Step, number: Option<usize>, is_last: bool) -> Result<(), StepError> {
        if self.build.is_over() {
            return Err(self.build.halted());
        }
        self.wait_for_sources(&step.instruction)?;
        let name = is_shown(&step.instruction).then(|| {
            self.position += usize::from(number.is_some());
            let text = match self.heredoc_summary(&step.instruction) {
                Some(summary) => format!("{} ({summary})", step.text),
                None => step.text.clone(),
            };
            self.shown_name(&text)
        });
        let vertex = self.started(&step.text, name, number);
        let mut container = None;
        let result = self.dispatch(step, vertex, is_last, &mut container);
        if let Err(error) = &result {
            self.broke(vertex, container, &error.in_buildkits_words());
        }
        result
    }

    /// Waits for the stages that an instruction reads from: a step begins when it can run, and its
    /// clock with it.
    fn wait_for_sources(&self, instruction: &Instruction) -> Result<(), StepError> {
        let mut words = Vec::new();
        graph::collect(instruction, &mut words);
        for word in words {
            // What cannot be expanded is told by the step itself.
            let Ok(from) = self.state.expand(&word) else { continue };
            let is_context = self.build.options.contexts.contains_key(&from);
            let earlier = graph::find(&self.build.file.stages[..self.index], &from);
            if let (Some(index), false) = (earlier, is_context) {
                self.build.outcome(index)?;
            }
        }
        Ok(())
    }

    fn dispatch(
        &mut self,
        step: &Step,
        vertex: Vertex,
        is_last: bool,
        container: &mut Option<String>,
    ) -> Result<(), StepError> {
        match &step.instruction {
            Instruction::Run(run) => {
                let mut prepared = self.prepare_run(run)?;
                let current = self.current(vertex, &prepared.key);
                prepared.step.container.clone_from(&current.container);
                let (record, is_cached) =
                    self.recall_or(&prepared.key, &prepared.created_by, |stage| {
                        stage.running(&current);
                        *container = Some(current.container.clone());
                        stage.execute(&prepared, vertex)
                    })?;
                self.layered(
                    vertex,
                    record,
                    is_cached,
                    container.take(),
                    prepared.created_by,
                    is_last,
                );
            }
            Instruction::Copy(transfer) | Instruction::Add(transfer) => {
                let prepared = self.prepare_transfer(step.instruction.keyword(), transfer)?;
                let (record, is_cached) =
                    self.recall_or(&prepared.key, &prepared.created_by, |stage| {
                        let layer =
                            stage.build.worker.write(stage.state.chain(), &prepared.step)?;
                        Ok((layer, prepared.created_by.clone()))
                    })?;
                self.layered(vertex, record, is_cached, None, prepared.created_by, is_last);
            }
            Instruction::Workdir(word) => self.enter(word, vertex, is_last, container)?,
            Instruction::Arg(arguments) => {
                let build = self.build;
                let global = |name: &str| build.globals.get(name).cloned();
                self.consumed.extend(arguments.iter().map(|argument| argument.name.clone()));
                let line = self.state.declare(arguments, &build.options.arguments, &global)?;
                self.configured(vertex, line, is_last)?;
            }
            Instruction::Cmd(_)
            | Instruction::Entrypoint(_)
            | Instruction::Env(_)
            | Instruction::Expose(_)
            | Instruction::Healthcheck(_)
            | Instruction::Label(_)
            | Instruction::Maintainer(_)
            | Instruction::Onbuild(_)
            | Instruction::Shell(_)
            | Instruction::StopSignal(_)
            | Instruction::User(_)
            | Instruction::Volume(_) => {
                self.note_replaced_healthcheck(&step.instruction);
                let line = self.state.configure(&step.instruction)?.unwrap_or_default();
                if let (Instruction::Volume(words), true) = (&step.instruction, self.is_classic()) {
                    self.check_volumes(words)?;
                }
                self.configured(vertex, line, is_last)?;
            }
        }
        Ok(())
    }

    /// The classic builder makes a container with the volumes at once, which fails on a file.
    fn check_volumes(&self, words: &[String]) -> Result<(), StepError> {
        let files = self.build.worker.files(&Origin::Layers(self.state.chain().to_vec()))?;
        for word in words {
            let path = self.state.absolute(&self.state.expand(word)?);
            match files.kind(path.trim_start_matches('/'))? {
                Some(NodeKind::File | NodeKind::Other) => {
                    return Err(StepError::VolumeOnFile(path));
                }
                Some(NodeKind::Directory) | None => {}
            }
        }
        Ok(())
    }

    fn enter(
        &mut self,
        word: &str,
        vertex: Vertex,
        is_last: bool,
        container: &mut Option<String>,
    ) -> Result<(), StepError> {
        let path = self.state.enter(word)?;
        // The classic builder's directories are root's.
        let user = match self.is_classic() {
            true => String::new(),
            false => self.state.image.config.user.clone(),
        };
        let shown = &self.state.image.config.working_dir;
        let created_by = self.state.file_line(&format!("WORKDIR {shown}"));
        let key =
            Key::new("workdir").with_tree(self.state.chain()).with(&path).with(&user).digest();
        let current = self.current(vertex, &key);
        let (record, is_cached) = self.recall_or(&key, &created_by, |stage| {
            stage.running(&current);
            *container = Some(current.container.clone());
            let layer = stage.build.worker.make_directory(stage.state.chain(), &path, &user)?;
            Ok((layer, created_by.clone()))
        })?;
        self.layered(vertex, record, is_cached, container.take(), created_by, is_last);
        Ok(())
    }

    fn note_replaced_healthcheck(&self, instruction: &Instruction) {
        if let (Instruction::Healthcheck(_), Some(old)) =
            (instruction, &self.state.image.config.healthcheck)
            && old.test.first().is_some_and(|word| word != "NONE")
        {
            let text = format!("Note: overriding previous HEALTHCHECK: [{}]\n", old.test.join(" "));
            self.build.worker.report(Event::Note { stream: Stream::Out, text });
        }
    }

    /// A step that changed nothing but the configuration.
    fn configured(&mut self, vertex: Vertex, line: String, is_last: bool) -> Result<(), StepError> {
        let key = Key::new("configure")
            .with_digest(&self.key)
            .with_tree(self.state.chain())
            .with(&line)
            .digest();
        let current = self.current(vertex, &key);
        let mut container = None;
        let (record, is_cached) = self.recall_or(&key, &line, |stage| {
            stage.running(&current);
            container = Some(current.container.clone());
            Ok((None, line.clone()))
        })?;
        self.layered(vertex, record, is_cached, container, line, is_last);
        Ok(())
    }

    /// A step that an image of `--cache-from` tells of: its history goes on from ours with
    /// `created_by`, and its layers are ours so far.
    fn told_by_a_source(&self, created_by: &str) -> Option<Record> {
        let (history, chain) = (&self.state.image.history, self.state.chain());
        let same = |one: &History, other: &History| {
            one.created_by == other.created_by && one.empty_layer == other.empty_layer
        };
        self.build.options.cache_from.iter().flatten().find_map(|source| {
            let step = source.history.get(history.len())?;
            let goes_on = source.history.iter().zip(history).all(|(one, other)| same(one, other))
                && source.rootfs.diff_ids.starts_with(chain)
                && step.created_by.as_deref() == Some(created_by);
            let layer = match step.empty_layer {
                true => None,
                false => Some(*source.rootfs.diff_ids.get(chain.len())?),
            };
            let created = step.created.clone().unwrap_or_default();
            goes_on.then(|| Record { created, layer, description: created_by.to_owned() })
        })
    }

    fn uses_cache(&self) -> bool {
        let stage = &self.build.file.stages[self.index];
        let number = self.index.to_string();
        let is_fresh = self.build.options.fresh_stages.iter().any(|fresh| {
            *fresh == number
                || stage.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(fresh))
        });
        self.build.options.cache == Cache::Use && !is_fresh
    }

    /// What was done before, or what `act` does now.
    fn recall_or(
        &self,
        key: &Digest,
        created_by: &str,
        act: impl FnOnce(&Self) -> Result<(Option<DiffId>, String), StepError>,
    ) -> Result<(Record, bool), StepError> {
        // Sources that the user names are the only ones, also when none of them is there.
        // Source: moby `builder/dockerfile/imageprobe.go`; `daemon/images/cache.go`.
        let is_bound = self.is_classic() && self.build.options.cache_from.is_some();
        if self.uses_cache()
            && !is_bound
            && let Some(record) = self.build.worker.recall(key)
        {
            return Ok((record, true));
        }
        if self.uses_cache()
            && self.is_classic()
            && let Some(record) = self.told_by_a_source(created_by)
        {
            self.build.worker.remember(key, &record);
            return Ok((record, true));
        }
        let (layer, description) = act(self)?;
        let created = self.epoch().unwrap_or_else(|| rfc3339(self.build.worker.now()));
        let record = Record { created, layer, description };
        self.build.worker.remember(key, &record);
        Ok((record, false))
    }

    /// The time that every new thing gets when the user fixed it.
    ///
    /// Source: reproducible-builds.org, SOURCE_DATE_EPOCH.
    fn epoch(&self) -> Option<String> {
        let text = self.build.options.arguments.get("SOURCE_DATE_EPOCH")?.as_ref()?;
        let seconds = text.parse().ok()?;
        let at = std::time::SystemTime::UNIX_EPOCH
            .checked_add(std::time::Duration::from_secs(seconds))?;
        Some(rfc3339(at))
    }

    fn layered(
        &mut self,
        vertex: Vertex,
        record: Record,
        is_cached: bool,
        container: Option<String>,
        created_by: String,
        is_last: bool,
    ) {
        let created = self.epoch().unwrap_or_else(|| record.created.clone());
        self.state.add(&created_by, record.layer, &created);
        self.created = created;
        self.changed = true;
        self.key = Key::new("image")
            .with_digest(&self.key)
            .with(&created_by)
            .with_tree(self.state.chain())
            .digest();
        let result = self.key.short();
        self.finished(vertex, is_cached, container, result, is_last);
    }

    fn started(&self, text: &str, name: Option<String>, number: Option<usize>) -> Vertex {
        let vertex = if name.is_some() { self.build.vertex() } else { HIDDEN };
        let (text, total, at) = (text.to_owned(), self.build.total, self.build.worker.now());
        self.build.worker.report(Event::StepStarted { vertex, number, total, text, name, at });
        vertex
    }

    fn running(&self, current: &Current) {
        let (vertex, container) = (current.vertex, current.container.clone());
        let image = self.state.base.map(|id| id.to_string()).unwrap_or_default();
        self.build.worker.report(Event::Running { vertex, container, image });
    }

    fn finished(
        &mut self,
        vertex: Vertex,
        is_cached: bool,
        container: Option<String>,
        result: String,
        is_last: bool,
    ) {
        let at = self.build.worker.now();
        let result = (!self.in_triggers).then_some(result);
        let event = Event::StepDone { vertex, is_cached, container, result, at };
        match is_last && self.index == self.build.target {
            true => self.pending = Some(event),
            false => self.build.worker.report(event),
        }
    }

    fn broke(&self, vertex: Vertex, container: Option<String>, message: &str) {
        let at = self.build.worker.now();
        self.build.worker.report(Event::StepFailed {
            vertex,
            container,
            message: message.to_owned(),
            at,
        });
    }

    fn current(&self, vertex: Vertex, key: &Digest) -> Current {
        let container =
            Key::new("container").with_digest(key).with(&rfc3339(self.build.worker.now())).digest();
        Current { vertex, container: container.hex() }
    }

    /// `[2/4] RUN …`, with the stage's name when there are several.
    fn shown_name(&self, text: &str) -> String {
        let stage = &self.build.file.stages[self.index];
        let word = text.split_whitespace().next().unwrap_or_default();
        let text = format!("{}{}", word.to_uppercase(), &text[word.len()..]);
        let (position, shown) = (self.position, self.shown);
        if self.build.file.stages.len() == 1 {
            return format!("[{position}/{shown}] {text}");
        }
        let name = stage.name.clone().unwrap_or_else(|| format!("stage-{}", self.index));
        format!("[{name} {position}/{shown}] {text}")
    }

    /// What `--from` names: an earlier stage, or an image.
    pub fn origin(&self, from: &str) -> Result<Origin, StepError> {
        let named = self.build.options.contexts.get(from);
        if named == Some(&NamedContext::Files) {
            return Ok(Origin::Named(from.to_owned()));
        }
        if let Some(NamedContext::Image(image)) = named {
            let image = self.build.worker.image(image, self.build.options.platform.as_ref())?;
            return Ok(Origin::Layers(image.config.rootfs.diff_ids));
        }
        if let Some(index) = graph::find(&self.build.file.stages[..self.index], from) {
            return Ok(Origin::Layers(self.build.outcome(index)?.state.chain().to_vec()));
        }
        match from.parse::<i64>() {
            Ok(number) if usize::try_from(number) == Ok(self.index) => {
                return Err(StepError::OwnStage(from.to_owned()));
            }
            Ok(_) => return Err(StepError::NoStage(from.to_owned())),
            Err(_) => {}
        }
        let platform = self.build.options.platform.as_ref();
        let image = self.build.worker.image(from, platform);
        let image = image.map_err(|problem| StepError::From { from: from.to_owned(), problem })?;
        Ok(Origin::Layers(image.config.rootfs.diff_ids))
    }
}

/// Whether BuildKit shows the instruction as a line of its own.
fn is_shown(instruction: &Instruction) -> bool {
    match instruction {
        Instruction::Add(_)
        | Instruction::Copy(_)
        | Instruction::Run(_)
        | Instruction::Workdir(_) => true,
        Instruction::Arg(_)
        | Instruction::Cmd(_)
        | Instruction::Entrypoint(_)
        | Instruction::Env(_)
        | Instruction::Expose(_)
        | Instruction::Healthcheck(_)
        | Instruction::Label(_)
        | Instruction::Maintainer(_)
        | Instruction::Onbuild(_)
        | Instruction::Shell(_)
        | Instruction::StopSignal(_)
        | Instruction::User(_)
        | Instruction::Volume(_) => false,
    }
}
