//! Where a container is in its life, as it is kept. Elsewhere: how it moves, in [`super::step`].
//!
//! Records outlive programs, so fields are only added, with defaults.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Never ran; `failure` tells of a start that did not succeed.
    Created {
        failure: Option<StartFailure>,
    },
    /// Written before anything is spawned. `last` is the end of the run before; `after` is what to
    /// do once it runs, where somebody asked for that meanwhile.
    Starting {
        last: Option<Exit>,
        tally: Tally,
        after: Option<Then>,
    },
    Running {
        run: Run,
    },
    Paused {
        run: Run,
    },
    /// Told to end. `killed` counts the KILLs sent; before the first, `until` is when it is due,
    /// `None` for never.
    Stopping {
        run: Run,
        then: Then,
        killed: u8,
        #[serde(default = "overdue")]
        until: Option<Timestamp>,
    },
    Exited {
        exit: Exit,
    },
    /// Ended, and waiting to be started by the restart policy.
    Backoff {
        exit: Exit,
        tally: Tally,
    },
    Removing {
        volumes: bool,
    },
    /// A removal that failed; can be removed again.
    Dead {
        reason: String,
        volumes: bool,
    },
    Gone,
}

/// A live first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// In the host's eyes.
    pub pid: i32,
    pub started_at: Timestamp,
    pub tally: Tally,
    /// The user asked for its end, so the policy stays out.
    pub by_user: bool,
    pub oom: bool,
    /// A signal that was recorded and is perhaps not sent yet.
    #[serde(default)]
    pub signal: Option<i32>,
}

/// Records of before there was a time.
#[expect(clippy::unnecessary_wraps, reason = "the field's own type")]
fn overdue() -> Option<Timestamp> {
    Some(Timestamp::UNIX_EPOCH)
}

/// What the restart policy counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Automatic restarts since the user's start.
    pub restarts: u32,
    /// The delay used last, in milliseconds; zero before the first.
    pub delay_ms: u32,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: i32,
    pub oom: bool,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// The engine's words where something else than the process ended it, or a later start failed.
    pub error: String,
    pub by_user: bool,
    pub restarts: u32,
}

/// Why there is no process after a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    pub code: i32,
    pub message: String,
    /// The command or the configuration is at fault, not the host.
    pub users_fault: bool,
}

/// What follows a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    Stay,
    Start,
    Remove { volumes: bool },
}

impl Phase {
    /// The live process, in the phases that have one.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        match self {
            Self::Running { run } | Self::Paused { run } | Self::Stopping { run, .. } => Some(run),
            Self::Created { .. }
            | Self::Starting { .. }
            | Self::Exited { .. }
            | Self::Backoff { .. }
            | Self::Removing { .. }
            | Self::Dead { .. }
            | Self::Gone => None,
        }
    }

    /// The end of the latest finished run.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Exited { exit } | Self::Backoff { exit, .. } => Some(exit),
            Self::Starting { last, .. } => last.as_ref(),
            Self::Created { .. }
            | Self::Running { .. }
            | Self::Paused { .. }
            | Self::Stopping { .. }
            | Self::Removing { .. }
            | Self::Dead { .. }
            | Self::Gone => None,
        }
    }
}
