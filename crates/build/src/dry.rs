//! A worker that only pretends: layers are names, commands are not run, files are in memory.
//!
//! It answers what a build would do (which steps, in which order, with which configuration)
//! without touching anything, and shows that [`Worker`] asks for nothing that only an engine has.
//!
//! Invariant: the same Dockerfile, context and images give the same events and the same image.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use spec::image::ImageConfig;
use spec::{DiffId, Digest, ImageId, Platform};

use crate::export::Export;
use crate::git::{GitDirectory, Repository};
use crate::key::Key;
use crate::progress::Event;
use crate::worker::{
    Base, Blob, Content, Failure, FailureKind, Files, NodeKind, Origin, Ran, Record, RunStep,
    Stream, Worker, WriteStep,
};

/// What a dry run starts from.
#[derive(Debug, Default)]
pub struct Dry {
    /// Files of the context by their path.
    pub context: BTreeMap<String, Vec<u8>>,
    /// Images by the reference that a Dockerfile names.
    pub images: BTreeMap<String, ImageConfig>,
    /// Exit codes of commands, by their words joined; all others succeed.
    pub codes: BTreeMap<String, i32>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    events: Vec<Event>,
    records: BTreeMap<Digest, Record>,
    commands: Vec<String>,
    configs: BTreeMap<ImageId, ImageConfig>,
    ticks: u64,
}

impl Dry {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events since the last call.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.kept().events)
    }

    /// The commands that would have run since the last call.
    pub fn take_commands(&self) -> Vec<String> {
        std::mem::take(&mut self.kept().commands)
    }

    /// A committed image.
    pub fn config(&self, id: &ImageId) -> Option<ImageConfig> {
        self.kept().configs.get(id).cloned()
    }
}

/// The context's files, or the nothing that is known of a layer's.
struct DryFiles<'a> {
    files: Option<&'a BTreeMap<String, Vec<u8>>>,
    tree: Digest,
}

impl DryFiles<'_> {
    fn below<'a>(&'a self, directory: &str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        self.files.into_iter().flatten().filter_map(move |(path, bytes)| {
            path.strip_prefix(&prefix).map(|rest| (rest, bytes.as_slice()))
        })
    }
}

impl Files for DryFiles<'_> {
    fn kind(&self, path: &str) -> Result<Option<NodeKind>, Failure> {
        let Some(files) = self.files else {
            // Of layers nothing is known; by its name a place may be one for volumes.
            let is_place = path.starts_with("volumes");
            return Ok(Some(if is_place { NodeKind::Directory } else { NodeKind::File }));
        };
        Ok(match (files.contains_key(path), path.is_empty() || self.below(path).next().is_some()) {
            (true, _) => Some(NodeKind::File),
            (false, true) => Some(NodeKind::Directory),
            (false, false) => None,
        })
    }

    fn names(&self, directory: &str) -> Result<Vec<String>, Failure> {
        let names: BTreeSet<&str> =
            self.below(directory).filter_map(|(rest, _)| rest.split('/').next()).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn digest(&self, path: &str, keep: &dyn Fn(&str) -> bool) -> Result<Digest, Failure> {
        let mut key = Key::new("dry").with_digest(&self.tree).with(path);
        if let Some(bytes) = self.files.and_then(|files| files.get(path)) {
            key = Key::new("dry").with_digest(&Digest::of(bytes));
        }
        for (rest, bytes) in self.below(path).filter(|(rest, _)| keep(rest)) {
            key = key.with(rest).with_digest(&Digest::of(bytes));
        }
        Ok(key.digest())
    }
}

impl Worker for Dry {
    fn image(&self, reference: &str, _platform: Option<&Platform>) -> Result<Base, Failure> {
        let missing = || Failure::new(FailureKind::NotFound, format!("No such image: {reference}"));
        let config = self.images.get(reference).ok_or_else(missing)?.clone();
        Ok(Base { id: ImageId(Digest::of(reference.as_bytes())), config })
    }

    fn files<'a>(&'a self, origin: &Origin) -> Result<Box<dyn Files + 'a>, Failure> {
        let files = match origin {
            Origin::Context | Origin::Named(_) => {
                DryFiles { files: Some(&self.context), tree: Digest::of(b"") }
            }
            Origin::Layers(chain) => {
                DryFiles { files: None, tree: Key::new("tree").with_tree(chain).digest() }
            }
        };
        Ok(Box::new(files))
    }

    fn fetch(&self, url: &str) -> Result<Blob, Failure> {
        let name = url.rsplit('/').next().unwrap_or_default().to_owned();
        let content = Content::Memory(url.as_bytes().into());
        Ok(Blob { name, content, mode: 0o600, modified_secs: None })
    }

    fn repository(
        &self,
        repository: &Repository,
        _keep: GitDirectory,
    ) -> Result<(Origin, String), Failure> {
        let commit = Digest::of(format!("{repository:?}").as_bytes()).hex()[..40].to_owned();
        Ok((Origin::Named(repository.url.clone()), commit))
    }

    fn run(
        &self,
        below: &[DiffId],
        step: &RunStep,
        log: &dyn Fn(Stream, &[u8]),
    ) -> Result<Ran, Failure> {
        let command = step.argv.join(" ");
        log(Stream::Out, format!("{command}\n").as_bytes());
        let layer = Key::new("run").with_tree(below).with(&command).digest();
        let code = self.codes.get(&command).copied().unwrap_or(0);
        self.kept().commands.push(command);
        Ok(Ran { code, layer: Some(DiffId(layer)) })
    }

    fn write(&self, below: &[DiffId], step: &WriteStep) -> Result<Option<DiffId>, Failure> {
        let mut key = Key::new("write").with_tree(below).with(&step.destination);
        let files = self.files(&step.origin)?;
        for item in &step.items {
            key = key.with_digest(&files.digest(&item.path, &|_| true)?);
        }
        for blob in &step.blobs {
            key = key.with_digest(&blob.content.digest());
        }
        Ok(Some(DiffId(key.digest())))
    }

    fn make_directory(
        &self,
        below: &[DiffId],
        path: &str,
        _user: &str,
    ) -> Result<Option<DiffId>, Failure> {
        let layer = Key::new("directory").with_tree(below).with(path).digest();
        Ok((path != "/").then_some(DiffId(layer)))
    }

    fn recall(&self, key: &Digest) -> Option<Record> {
        self.kept().records.get(key).cloned()
    }

    fn remember(&self, key: &Digest, record: &Record) {
        self.kept().records.insert(*key, record.clone());
    }

    fn commit(&self, config: &ImageConfig, _base: Option<ImageId>) -> Result<ImageId, Failure> {
        let bytes = serde_json::to_vec(config)
            .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
        let id = ImageId(Digest::of(&bytes));
        self.kept().configs.insert(id, config.clone());
        Ok(id)
    }

    fn export(
        &self,
        _config: &ImageConfig,
        export: Export,
        output: usize,
        names: &[String],
        tell: &dyn Fn(String, bool),
    ) -> Result<(), Failure> {
        tell(format!("{} as output {output} {}", export.verb(), names.join(" ")), true);
        Ok(())
    }

    /// One second later with every question, so that repeated builds would show a changed time.
    fn now(&self) -> SystemTime {
        let mut kept = self.kept();
        kept.ticks += 1;
        SystemTime::UNIX_EPOCH + Duration::from_secs(kept.ticks)
    }

    fn is_cancelled(&self) -> bool {
        false
    }

    fn report(&self, event: Event) {
        self.kept().events.push(event);
    }
}
