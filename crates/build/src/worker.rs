//! The one trait that has the world behind it, and what passes through it.
//!
//! A tree is named by its layers, bottom first; since layers are named by content, so is every
//! tree, and cache keys follow. Two implementations: the engine's, and [`crate::dry::Dry`].

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use spec::image::ImageConfig;
use spec::{DiffId, Digest, ImageId, Platform};

use crate::chmod::Chmod;
use crate::export::Export;
use crate::git::{GitDirectory, Repository};
use crate::instruction::{RunNetwork, Sharing};
use crate::progress::Event;

/// What sort of failure a worker reports; the engine's kinds, as far as builds need them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    NotFound,
    Invalid,
    Forbidden,
    Unsupported,
    Cancelled,
    Internal,
}

/// A worker could not do what it was asked; the message is for the user.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// A base image: its document names its layers.
#[derive(Debug, Clone)]
pub struct Base {
    pub id: ImageId,
    pub config: ImageConfig,
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The build context, less what `.dockerignore` leaves out.
    Context,
    /// A context of `--build-context`, or one that the worker made.
    Named(String),
    /// A stage's or an image's tree.
    Layers(Vec<DiffId>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    Directory,
    File,
    Other,
}

/// Reads a tree. Paths are relative, `/` between parts, `""` or `.` the root; links are followed
/// inside the tree and never lead out of it.
pub trait Files {
    /// What is at `path`, links followed; `None` when nothing is, or it is left out.
    ///
    /// # Errors
    /// When the tree cannot be read.
    fn kind(&self, path: &str) -> Result<Option<NodeKind>, Failure>;

    /// The names in a directory, sorted, without those left out.
    ///
    /// # Errors
    /// When the tree cannot be read.
    fn names(&self, directory: &str) -> Result<Vec<String>, Failure>;

    /// The digest of everything at and below `path` but what `keep` refuses (paths relative to
    /// `path`): names, kinds, modes, extended attributes, link targets and content; no times; owners only for
    /// trees of layers.
    ///
    /// # Errors
    /// When the tree cannot be read.
    fn digest(&self, path: &str, keep: &dyn Fn(&str) -> bool) -> Result<Digest, Failure>;
}

/// One selected source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Relative to the origin's root.
    pub path: String,
    pub kind: NodeKind,
    /// Below the destination, for `--parents`; the directories of it are made.
    pub below: Option<String>,
}

/// The bytes of a [`Blob`]: few in memory, many in a file that has no name.
#[derive(Debug, Clone)]
pub enum Content {
    Memory(Arc<[u8]>),
    File { file: Arc<File>, size: u64, digest: Digest },
}

impl Content {
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Content::Memory(bytes) => Digest::of(bytes),
            Content::File { digest, .. } => *digest,
        }
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::File { size, .. } => *size,
        }
    }

    /// Reads from the beginning, whatever others read.
    #[must_use]
    pub fn reader(&self) -> ContentReader<'_> {
        ContentReader { content: self, at: 0 }
    }
}

/// A place in a [`Content`].
pub struct ContentReader<'a> {
    content: &'a Content,
    at: u64,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = match self.content {
            Content::Memory(bytes) => {
                let rest = usize::try_from(self.at).ok().and_then(|at| bytes.get(at..));
                rest.unwrap_or_default().read(out)?
            }
            Content::File { file, .. } => file.read_at(out, self.at)?,
        };
        self.at += got as u64;
        Ok(got)
    }
}

/// A file made of nothing but bytes: a heredoc, or what a URL gave.
#[derive(Debug, Clone)]
pub struct Blob {
    pub name: String,
    pub content: Content,
    pub mode: u32,
    /// Seconds since 1970.
    pub modified_secs: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpack {
    /// ADD: archives of the context are extracted.
    Archives,
    Never,
}

/// A COPY or ADD whose sources are selected.
#[derive(Debug, Clone)]
pub struct WriteStep {
    pub origin: Origin,
    pub items: Vec<Item>,
    pub blobs: Vec<Blob>,
    /// Absolute; a `/` at the end says that it is a directory.
    pub destination: String,
    /// `user[:group]` by name or number, from the target's own files.
    pub owner: Option<String>,
    pub mode: Option<Chmod>,
    /// Patterns relative to each item, that are left out.
    pub exclude: spec::ignore::Ignore,
    pub unpack: Unpack,
    pub unpack_blobs: bool,
}

/// A RUN, ready to be run.
#[derive(Debug, Clone)]
pub struct RunStep {
    pub argv: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub network: RunNetwork,
    pub privileged: bool,
    pub mounts: Vec<RunMount>,
    /// Directories whose changes are dropped, as the classic builder does with volumes.
    pub volumes: Vec<String>,
    /// Variables that are secrets: name and secret.
    pub secret_env: Vec<(String, String)>,
    /// A script that the command is: absolute path and text.
    pub script: Option<(String, String)>,
    /// The id by which progress and events know the step: 64 hexadecimal digits.
    pub container: String,
    /// What the command sees as its host's name; empty for the usual one.
    pub hostname: String,
}

#[derive(Debug, Clone)]
pub enum RunMount {
    Bind {
        origin: Origin,
        source: String,
        target: String,
        read_only: bool,
    },
    Cache(CacheMount),
    /// A secret of the user's as a file.
    Secret {
        id: String,
        target: String,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// The socket of an agent of the user's.
    Agent {
        id: String,
        target: String,
    },
    Tmpfs {
        target: String,
        size_bytes: Option<u64>,
    },
}

#[derive(Debug, Clone)]
pub struct CacheMount {
    pub id: String,
    pub target: String,
    pub read_only: bool,
    pub sharing: Sharing,
    /// What a new cache starts with.
    pub seed: Option<Origin>,
    pub source: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// How a command ended. `layer` is `None` when it changed nothing, or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    pub code: i32,
    pub layer: Option<DiffId>,
}

/// A step that was done before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// RFC 3339.
    pub created: String,
    /// `None` for a step that changed no file.
    pub layer: Option<DiffId>,
    /// What the step was, for people.
    pub description: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// Does what the solver decides. Called from several threads at once.
pub trait Worker: Sync {
    /// Finds an image. `platform` is what the Dockerfile or the user asked for.
    ///
    /// # Errors
    /// An image that is not there, in Docker's words.
    fn image(&self, reference: &str, platform: Option<&Platform>) -> Result<Base, Failure>;

    /// Opens a tree for reading.
    ///
    /// # Errors
    /// When a layer is gone.
    fn files<'a>(&'a self, origin: &Origin) -> Result<Box<dyn Files + 'a>, Failure>;

    /// Gets what a URL names, for ADD.
    ///
    /// # Errors
    /// Unreachable, not found, too long.
    fn fetch(&self, url: &str) -> Result<Blob, Failure>;

    /// Gets a git repository, for ADD: its files, and the commit they are of.
    ///
    /// # Errors
    /// What git says.
    fn repository(
        &self,
        repository: &Repository,
        keep: GitDirectory,
    ) -> Result<(Origin, String), Failure>;

    /// Runs a command on the tree `below`; `log` takes its output as it comes.
    ///
    /// # Errors
    /// A command that cannot be started, in Docker's words.
    fn run(
        &self,
        below: &[DiffId],
        step: &RunStep,
        log: &dyn Fn(Stream, &[u8]),
    ) -> Result<Ran, Failure>;

    /// Writes a layer of files on the tree `below`.
    ///
    /// # Errors
    /// An unknown owner, a destination that is no directory, a full disk.
    fn write(&self, below: &[DiffId], step: &WriteStep) -> Result<Option<DiffId>, Failure>;

    /// Makes a directory where none is, with the owner `user`.
    ///
    /// # Errors
    /// A file in its place, a full disk.
    fn make_directory(
        &self,
        below: &[DiffId],
        path: &str,
        user: &str,
    ) -> Result<Option<DiffId>, Failure>;

    /// A step done before, all of its layers still there.
    fn recall(&self, key: &Digest) -> Option<Record>;

    fn remember(&self, key: &Digest, record: &Record);

    /// Keeps a finished image.
    ///
    /// # Errors
    /// A full disk.
    fn commit(&self, config: &ImageConfig, base: Option<ImageId>) -> Result<ImageId, Failure>;

    /// Sends the finished image, or its files, to the client as its output of that number; nothing
    /// is kept. `tell` takes a line on how far it is, and whether that was the last one.
    ///
    /// # Errors
    /// When a layer cannot be read, or the client is gone.
    fn export(
        &self,
        config: &ImageConfig,
        export: Export,
        output: usize,
        names: &[String],
        tell: &dyn Fn(String, bool),
    ) -> Result<(), Failure>;

    fn now(&self) -> SystemTime;

    /// Whether nobody waits for the build any more.
    fn is_cancelled(&self) -> bool;

    fn report(&self, event: Event);
}
