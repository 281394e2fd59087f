//! Containers: the operations, as methods of [`Engine`].
//!
//! `asked` is always what the user typed: a full id, a name, or an id's prefix.

pub mod capabilities;
pub mod derive;
pub mod merge;
pub mod mounts;
pub mod security;
pub mod signals;
pub mod spec;
pub mod step;
pub mod validate;
pub mod views;

use std::io::Read;

use ::spec::Id;

use self::spec::CreateRequest;
use self::views::*;
use crate::error::{Error, Kind, Result};
use crate::stream::ByteStream;
use crate::{Engine, words};

#[derive(Default)]
pub(crate) struct Registry {}

fn unfinished<T>() -> Result<T> {
    Err(Error::new(Kind::Internal, "not there yet"))
}

/// Answers when the awaited thing has happened.
pub struct Waiter {}

impl Waiter {
    pub async fn finished(self) -> WaitResult {
        WaitResult { exit_code: 0, error: None }
    }
}

/// An accepted attach: answer the HTTP request, then connect the client.
pub struct Attaching {
    /// Raw bytes instead of frames.
    pub tty: bool,
}

impl Attaching {
    /// Hands the connection to the container. Returns at once; the monitor serves it from here on.
    pub async fn connect(self, client: ClientSocket) -> Result<()> {
        drop(client);
        unfinished()
    }
}

/// An accepted exec start.
pub struct ExecStarting {
    pub tty: bool,
}

impl ExecStarting {
    /// Starts the process with the client's connection. Failures are told to the client in the
    /// stream, in the exec's exit code, and here.
    pub async fn connect(self, client: ClientSocket) -> Result<()> {
        drop(client);
        unfinished()
    }

    /// Starts the process without a client.
    pub async fn detached(self) -> Result<()> {
        unfinished()
    }
}

impl Engine {
    pub async fn create_container(&self, request: CreateRequest) -> Result<Created> {
        drop(request);
        unfinished()
    }

    /// The id that a text means.
    pub fn resolve_container(&self, asked: &str) -> Result<Id> {
        Err(words::no_such_container(asked))
    }

    pub async fn start_container(&self, asked: &str) -> Result<Outcome> {
        Err(words::no_such_container(asked))
    }

    pub async fn stop_container(&self, asked: &str, options: StopOptions) -> Result<Outcome> {
        drop(options);
        Err(words::no_such_container(asked))
    }

    pub async fn restart_container(&self, asked: &str, options: StopOptions) -> Result<()> {
        drop(options);
        Err(words::no_such_container(asked))
    }

    /// `signal`: name or number; `None` is KILL.
    pub async fn kill_container(&self, asked: &str, signal: Option<&str>) -> Result<()> {
        let _ = signal;
        Err(words::no_such_container(asked))
    }

    pub async fn pause_container(&self, asked: &str) -> Result<()> {
        Err(words::no_such_container(asked))
    }

    pub async fn unpause_container(&self, asked: &str) -> Result<()> {
        Err(words::no_such_container(asked))
    }

    pub async fn rename_container(&self, asked: &str, name: &str) -> Result<()> {
        let _ = name;
        Err(words::no_such_container(asked))
    }

    /// Returns warnings.
    pub async fn update_container(&self, asked: &str, request: UpdateRequest) -> Result<Vec<String>> {
        drop(request);
        Err(words::no_such_container(asked))
    }

    pub async fn remove_container(&self, asked: &str, options: RemoveOptions) -> Result<()> {
        let _ = options;
        Err(words::no_such_container(asked))
    }

    pub async fn prune_containers(&self, filters: crate::Filters) -> Result<Pruned> {
        drop(filters);
        unfinished()
    }

    /// Starts waiting now; send the answer's headers, then await the [`Waiter`].
    pub fn wait_container(&self, asked: &str, condition: WaitCondition) -> Result<Waiter> {
        let _ = condition;
        Err(words::no_such_container(asked))
    }

    pub async fn inspect_container(&self, asked: &str, size: bool) -> Result<ContainerView> {
        let _ = size;
        Err(words::no_such_container(asked))
    }

    pub async fn list_containers(&self, query: ListQuery) -> Result<Vec<ContainerSummary>> {
        drop(query);
        unfinished()
    }

    pub async fn attach_container(&self, asked: &str, request: AttachRequest) -> Result<Attaching> {
        drop(request);
        Err(words::no_such_container(asked))
    }

    /// Rows (height) and columns (width) of the terminal.
    pub async fn resize_container(&self, asked: &str, height: u16, width: u16) -> Result<()> {
        let _ = (height, width);
        Err(words::no_such_container(asked))
    }

    pub async fn container_logs(&self, asked: &str, query: LogsQuery) -> Result<Logs> {
        drop(query);
        Err(words::no_such_container(asked))
    }

    pub async fn container_top(&self, asked: &str, ps_args: &str) -> Result<Top> {
        let _ = ps_args;
        Err(words::no_such_container(asked))
    }

    pub async fn container_changes(&self, asked: &str) -> Result<Vec<Change>> {
        Err(words::no_such_container(asked))
    }

    pub async fn export_container(&self, asked: &str) -> Result<ByteStream> {
        Err(words::no_such_container(asked))
    }

    pub async fn container_stats(&self, asked: &str) -> Result<Stats> {
        Err(words::no_such_container(asked))
    }

    pub async fn stat_path(&self, asked: &str, path: &str) -> Result<PathStat> {
        let _ = path;
        Err(words::no_such_container(asked))
    }

    /// A tar of the path.
    pub async fn read_archive(&self, asked: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let _ = path;
        Err(words::no_such_container(asked))
    }

    /// Unpacks a tar (any compression) into the directory `path`.
    pub async fn write_archive(
        &self,
        asked: &str,
        path: &str,
        options: ExtractOptions,
        tar: impl Read + Send + 'static,
    ) -> Result<()> {
        let _ = (path, options);
        drop(tar);
        Err(words::no_such_container(asked))
    }

    pub async fn commit_container(&self, asked: &str, request: CommitRequest) -> Result<::spec::ImageId> {
        drop(request);
        Err(words::no_such_container(asked))
    }

    pub async fn create_exec(&self, asked: &str, spec: ExecSpec) -> Result<Id> {
        drop(spec);
        Err(words::no_such_container(asked))
    }

    /// Checks that the exec may start now.
    pub async fn start_exec(&self, exec: &str, options: ExecStart) -> Result<ExecStarting> {
        drop(options);
        Err(words::no_such_exec(exec))
    }

    pub async fn resize_exec(&self, exec: &str, height: u16, width: u16) -> Result<()> {
        let _ = (height, width);
        Err(words::no_such_exec(exec))
    }

    pub async fn inspect_exec(&self, exec: &str) -> Result<ExecView> {
        Err(words::no_such_exec(exec))
    }
}
