//! The program of a run, and as whom it runs.

use runtime::UserRequest;
use spec::runtime::{ConsoleSize, Rlimit};
use sys::capability;

use super::PathInside;

/// What the first process executes.
#[derive(Debug, Clone)]
pub struct Program {
    pub argv: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    pub cwd: PathInside,
    /// Looked up in the run's own passwd and group files.
    pub user: UserRequest,
    pub streams: Streams,
    pub stdin: Stdin,
    /// What the processes may have and gain.
    pub capabilities: capability::Set,
    pub rlimits: Vec<Rlimit>,
    pub new_privileges: NewPrivileges,
    /// Name of a profile that the kernel knows; `None` is unconfined.
    pub apparmor: Option<String>,
    pub oom_score: OomScore,
}

/// Where the standard streams lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    Terminal { size: Option<ConsoleSize> },
    Pipes,
}

/// Where input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdin {
    /// Nowhere: it ends at once.
    None,
    /// From attached clients, whoever comes and goes.
    Open,
    /// From the first attached client, with whom it ends.
    Once,
}

/// Whether execve(2) may give a process rights: prctl(2), PR_SET_NO_NEW_PRIVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewPrivileges {
    Allowed,
    Forbidden,
}

/// How soon the kernel takes a process when memory runs out: -1000 (never) to 1000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OomScore(i32);

/// Why a number is no score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not between -1000 and 1000")]
pub struct OomScoreError(i32);

impl OomScore {
    #[must_use]
    pub fn get(self) -> i32 {
        self.0
    }
}

impl TryFrom<i32> for OomScore {
    type Error = OomScoreError;

    fn try_from(score: i32) -> Result<OomScore, OomScoreError> {
        if (-1000..=1000).contains(&score) {
            Ok(OomScore(score))
        } else {
            Err(OomScoreError(score))
        }
    }
}
