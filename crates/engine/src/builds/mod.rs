//! Builds: the classic build service behind `POST /build`, and the engine's [`build::worker::Worker`].
//!
//! ```text
//! body (tar) --context--> directory below tmp --+
//! Dockerfile, .dockerignore ------read----------+--> build::solve on a blocking thread --> image, tags
//!                                                         |          |
//!                                             worker: store, steps, fetch      events -> Output
//! ```
//!
//! Everything a build makes hangs on one guard: the context's directory, snapshots of RUN steps, and
//! the lease that keeps new layers. Whatever way the build ends, by success, failure, a hung-up
//! client or a panic, dropping the guard leaves only the image and the cache. What a killed daemon
//! leaves is found by its name and removed at start ([`sweep`]).
//!
//! A RUN step is lowered to a [`runs::Workload`] of its own ([`step`]) and runs under a supervisor
//! ([`step_run`]).
//!
//! Elsewhere: what a build decides, in crate `build`.

mod cache;
mod context;
mod export;
mod fetch;
mod files;
mod git;
mod listed;
mod mounts;
mod owner;
mod service;
mod step;
mod step_run;
mod steps;
#[cfg(test)]
mod tests;
mod worker;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use build::progress::Trace;
use bytes::Bytes;
use spec::ImageId;

use crate::containers::security::SecurityOptions;
use crate::containers::spec::Resources;
use crate::error::Error;
use crate::images::Credentials;
use crate::stream::ByteStream;

pub use build::export::{Archive, Carrier, Export};
pub use cache::{CacheBudget, CacheEntry, CacheKind, CachePrune, CachePruneReport, Reach};
pub(crate) use mounts::CacheLocks;
pub(crate) use service::{NamedBuilds, sweep};
pub(crate) use step_run::clean_up;

/// What `POST /build` asks for.
#[derive(Debug)]
pub struct BuildRequest {
    pub source: BuildSource,
    /// Path in the context; empty is `Dockerfile`.
    pub dockerfile: String,
    pub tags: Vec<String>,
    pub target: Option<String>,
    pub arguments: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub cache: CacheUse,
    pub pull: Pull,
    /// For the registries of base images, by the names under which clients keep them.
    pub credentials: BTreeMap<String, Credentials>,
    pub containers: Containers,
    pub verbosity: Verbosity,
    /// `--network`; empty is the default.
    pub network: String,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    /// Bytes.
    pub shm_size: Option<u64>,
    /// Limits of RUN steps.
    pub resources: Resources,
    pub platform: Option<String>,
    pub squash: Squash,
    /// Images whose layers may serve as cache; all local results do anyway.
    pub cache_from: Vec<String>,
    /// `--allow`: what RUN steps may ask for, by BuildKit's names.
    pub allow: Vec<String>,
    pub security_opt: SecurityOptions,
    pub extras: BuildExtras,
    pub style: Style,
    /// What is made of the result; the classic style knows [`Export::Image`] alone.
    pub exports: Vec<Export>,
    /// By which [`crate::Engine::cancel_build`] knows the build; empty for none.
    pub build_id: String,
}

/// What only Tug's own client can give.
#[derive(Default)]
pub struct BuildExtras {
    /// `--secret`: the content by the name.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// `--ssh`: sockets on this host by the name.
    pub agents: BTreeMap<String, PathBuf>,
    /// `--build-context`: what stands behind each name.
    pub contexts: BTreeMap<String, ExtraContext>,
    /// The directory at the archive's top that holds named contexts.
    pub contexts_directory: String,
    /// `--no-cache-filter`.
    pub fresh_stages: Vec<String>,
}

impl fmt::Debug for BuildExtras {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildExtras")
            .field("agents", &self.agents)
            .field("contexts", &self.contexts)
            .finish_non_exhaustive()
    }
}

/// A named context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtraContext {
    /// In the archive, as the directory of this number.
    Archive(usize),
    /// An image's files, or the image itself for FROM.
    Image(String),
}

/// Where the context comes from.
#[derive(Debug)]
pub enum BuildSource {
    /// The request's body: a tar, compressed or not.
    Context(ByteStream),
    /// `remote=`: a URL of a tar or of a Dockerfile.
    Remote(String),
}

/// `nocache`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheUse {
    #[default]
    Use,
    Ignore,
}

/// `pull`: whether a newer base image is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pull {
    #[default]
    Missing,
    Always,
}

/// `rm` and `forcerm`. Steps run without containers, so none can be kept; who asks for it is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Containers {
    Keep,
    #[default]
    RemoveAfterSuccess,
    RemoveAlways,
}

/// `q`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verbosity {
    #[default]
    Full,
    /// Only the image's id.
    Quiet,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Squash {
    #[default]
    No,
    Yes,
}

/// Which rendering of the progress is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// The classic builder's text.
    #[default]
    Classic,
    /// [`Trace`] lines, for `version=tug1`.
    Trace,
}

/// One object of the answer's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// `{"stream":"…"}`.
    Text(String),
    /// `{"aux":{"ID":"sha256:…"}}`.
    Image(ImageId),
    /// `{"id":"moby.tug.trace","aux":{…}}`.
    Trace(Trace),
    /// The next bytes of an export, by its number: `{"id":"moby.tug.export","aux":{…}}`.
    Piece { output: usize, bytes: Bytes },
}

/// A build that failed.
#[derive(Debug)]
pub struct BuildFailure {
    pub error: Error,
    /// The exit code of a RUN, for `errorDetail.code`.
    pub code: Option<i32>,
}

impl From<Error> for BuildFailure {
    fn from(error: Error) -> Self {
        Self { error, code: None }
    }
}
