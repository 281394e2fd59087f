//! Why something could not be done to a run.

use std::io;

use monitor::client::{ConnectionError, LauncherError};

pub type Result<T> = std::result::Result<T, Error>;

/// Why a request to a launcher or supervisor came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It let a deadline pass, and is left alone until it says something again.
    #[error("the container's monitor does not answer")]
    Silent,
    /// A launcher has not even begun.
    #[error("a launcher does not answer")]
    NotAccepted,
    #[error("the container's monitor ended meanwhile")]
    Ended,
    /// A monitor from before the launchers serves it.
    #[error("the container was started by an older version of Tug: restart it to execute in it")]
    Old,
    #[error("the container is not running")]
    NotRunning,
    /// In the supervisor's words.
    #[error("{0}")]
    Refused(String),
    #[error("the container's monitor sent {0} for a reply")]
    Unexpected(String),
    #[error("cannot talk to the container's monitor")]
    Connection { source: ConnectionError },
    #[error("cannot watch the container's monitor")]
    Watch { source: io::Error },
    #[error("cannot get a launcher")]
    Launcher { source: LauncherError },
    #[error("cannot make the process's streams")]
    Streams { source: io::Error },
    #[error("cannot hand over the seccomp filter")]
    Filter { source: io::Error },
    #[error("cannot reach the container's process")]
    Process { source: io::Error },
    /// For mounts and namespaces, more than one message carries.
    #[error("a start takes {0} descriptors, more than the {1} that it may take")]
    Descriptors(usize, usize),
    #[error("the start was broken off")]
    Abandoned,
}

/// A process that does not run, for a reason that the user can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 126, 127 or 128, as shells and Docker show it.
    pub exit_code: i32,
    pub message: String,
}
