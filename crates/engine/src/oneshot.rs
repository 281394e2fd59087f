//! A command run once in a snapshot, for the builder's RUN steps.
//!
//! It runs under a monitor like any container, but is no container: no name, no record, no log, no
//! events. When it has ended, was cancelled or its handle was dropped, nothing of it is left but
//! the snapshot, which is its maker's.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::containers::spec::Resources;
use crate::containers::views::LogSource;
use crate::error::{Error, Result};
use crate::{Engine, Kind};

/// What to run.
#[derive(Debug, Default)]
pub struct OneShot {
    /// A snapshot of the store, by its id; it takes the changes.
    pub snapshot: String,
    pub argv: Vec<String>,
    pub env: Vec<String>,
    /// `user[:group]`, names from the snapshot's own files; empty is root.
    pub user: String,
    pub working_dir: String,
    pub network: OneShotNetwork,
    pub resources: Resources,
    pub shm_size: Option<u64>,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    pub security_opt: Vec<String>,
    pub privileged: bool,
    pub mounts: Vec<OneShotMount>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OneShotNetwork {
    /// The default bridge.
    #[default]
    Bridge,
    Host,
    None,
    /// A network by name or id.
    Named(String),
}

/// A mount of a RUN step (`--mount=type=…`).
#[derive(Debug)]
pub enum OneShotMount {
    /// A file or directory that the engine owns, by its host path.
    Bind { source: PathBuf, target: String, read_only: bool },
    /// A tree by descriptor, such as another stage's.
    Tree { root: OwnedFd, target: String, read_only: bool },
    Tmpfs { target: String, size_bytes: Option<u64> },
}

/// A command that runs. Dropping it kills the command.
#[derive(Debug)]
pub struct RunningStep {
    /// Output as it comes; ends with the command.
    pub output: mpsc::Receiver<(LogSource, Bytes)>,
}

impl Engine {
    /// Starts a command.
    ///
    /// # Errors
    /// `Invalid` with Docker's words when the command cannot be run.
    pub async fn run_once(&self, request: OneShot) -> Result<RunningStep> {
        drop(request);
        Err(Error::new(Kind::Internal, "run_once"))
    }
}

impl RunningStep {
    /// Waits for the end; the exit code is 128+n after signal n.
    ///
    /// # Errors
    /// When the monitor was lost.
    pub async fn wait(&mut self) -> Result<i32> {
        Err(Error::new(Kind::Internal, "wait"))
    }

    /// Kills the command; `wait` then reports its end.
    pub fn cancel(&self) {}
}
