//! What the command line keeps of a container between its calls.
//!
//! ```text
//! ROOT/ID/state.json   this module's State, written once (temporary file, rename) at create
//! ROOT/ID/start.sock   the gate: whoever connects lets the program go; unlinked by `start`
//! ```
//!
//! The status is never stored but looked at: the process (pid and start time, so that a reused pid
//! cannot fool us), the gate, the freezer. Only `tug runtime` uses this; a monitor has its own records.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::runtime::Spec;
use sys::cgroup::Cgroup;
use sys::process::Pid;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub id: String,
    pub pid: i32,
    /// In clock ticks since boot: proc_pid_stat(5), field 22.
    pub start_ticks: u64,
    pub bundle: PathBuf,
    pub cgroup: Option<PathBuf>,
    /// RFC 3339, UTC.
    pub created: String,
    pub spec: Spec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// Why there is no such state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("container ID format is invalid: {0:?}")]
    Id(String),
    #[error("container does not exist")]
    Missing,
    #[error("container with given ID already exists")]
    Exists,
    #[error("cannot read {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path:?} is no container's state")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("cannot write {path:?}")]
    Write { path: PathBuf, source: io::Error },
}

/// A container's directory under the command line's root.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub fn find(root: &Path, id: &str) -> Result<Self, StateError> {
        let letter = |letter: char| letter.is_ascii_alphanumeric() || "_+-.".contains(letter);
        if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.chars().all(letter) {
            return Err(StateError::Id(id.to_owned()));
        }
        Ok(Self { path: root.join(id) })
    }

    pub fn create(&self) -> Result<(), StateError> {
        use std::os::unix::fs::DirBuilderExt;
        let write = |source| StateError::Write { path: self.path.clone(), source };
        if let Some(root) = self.path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o711).create(root).map_err(write)?;
        }
        match std::fs::DirBuilder::new().mode(0o711).create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(StateError::Exists),
            done => done.map_err(write),
        }
    }

    pub fn remove(&self) -> Result<(), StateError> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Write { path: self.path.clone(), source: error })
            }
            _ => Ok(()),
        }
    }

    pub fn gate(&self) -> PathBuf {
        self.path.join("start.sock")
    }

    pub fn save(&self, state: &State) -> Result<(), StateError> {
        let (path, temporary) = (self.path.join("state.json"), self.path.join("state.json.new"));
        let write = |source| StateError::Write { path: path.clone(), source };
        let text = serde_json::to_vec(state).map_err(|error| write(error.into()))?;
        std::fs::write(&temporary, text).map_err(write)?;
        std::fs::rename(&temporary, &path).map_err(write)
    }

    pub fn load(&self) -> Result<State, StateError> {
        let path = self.path.join("state.json");
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StateError::Missing);
            }
            done => done.map_err(|source| StateError::Read { path: path.clone(), source })?,
        };
        serde_json::from_slice(&text).map_err(|source| StateError::Parse { path, source })
    }
}

impl State {
    /// The container's first process, if it still runs.
    pub fn process(&self) -> Option<(Pid, OwnedFd)> {
        let pid = Pid::from_raw(self.pid)?;
        let pidfd = sys::process::open_process(pid).ok()?;
        // Looked at after the descriptor was opened: if it is the right one now, it was then.
        (start_ticks(pid)? == self.start_ticks).then_some((pid, pidfd))
    }

    pub fn cgroup(&self) -> Option<Cgroup> {
        self.cgroup.as_deref().map(Cgroup::find)
    }

    pub fn status(&self, directory: &Directory) -> Status {
        if self.process().is_none() {
            return Status::Stopped;
        }
        if directory.gate().exists() {
            return Status::Created;
        }
        let frozen = self.cgroup().is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false));
        if frozen { Status::Paused } else { Status::Running }
    }
}

/// When the process began; `None` when it is gone or a zombie.
pub(crate) fn start_ticks(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name may hold spaces and parentheses, so count from its last one.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The present moment as RFC 3339, UTC, with nanoseconds.
pub(crate) fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_all_their_nanoseconds() {
        let now = now();
        assert_eq!(
            (now.len(), now.get(19..20), now.ends_with('Z')),
            (30, Some("."), true),
            "{now}"
        );
    }

    #[test]
    fn an_id_cannot_be_a_path() {
        for id in ["", "..", "a/b", "a b"] {
            assert!(Directory::find(Path::new("/x"), id).is_err(), "{id}");
        }
        assert!(Directory::find(Path::new("/x"), "a_b-c.d+e").is_ok());
    }
}
