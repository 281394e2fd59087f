//! Exit records: how a container's end outlives both its monitor and the daemon.
//!
//! ```text
//! {"version":1,"container":"…","pid":4711,"exit_code":137,"signal":9,"oom_killed":true,
//!  "started_at":"2026-01-02T03:04:05.6Z","finished_at":"…","error":null}
//! ```
//!
//! The monitor writes the record once (temporary file, fsync if it must be durable, rename) and
//! only then tells of the exit, so whoever hears of it can read the record.
//!
//! Invariant: a record is never rewritten by a monitor; a new run of the container removes the old
//! one first. Elsewhere: the restart policy, in `engine::containers`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spec::id::Id;

use crate::settings::Durability;

/// The schema written today.
pub const VERSION: u32 = 1;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub version: u32,
    pub container: Id,
    /// Pid that the first process had in the host's eyes.
    pub pid: i32,
    /// As Docker counts: 128 plus the signal for a process that one killed.
    pub exit_code: i32,
    #[serde(default)]
    pub signal: Option<i32>,
    #[serde(default)]
    pub oom_killed: bool,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// What went wrong beside the process itself, in words.
    #[serde(default)]
    pub error: Option<String>,
}

/// Why a record could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ExitRecordError {
    #[error("cannot write the exit record {path:?}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read the exit record {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the exit record {path:?} is malformed")]
    Parse { path: PathBuf, source: serde_json::Error },
}

impl ExitRecord {
    /// Writes the record so that at any instant `path` holds all of it or nothing.
    ///
    /// # Errors
    /// When the disk is full or its directory is gone.
    pub fn write(&self, path: &Path, durability: Durability) -> Result<(), ExitRecordError> {
        let temporary = path.with_extension("json.new");
        self.replace(path, &temporary, durability)
            .map_err(|source| ExitRecordError::Write { path: path.to_owned(), source })
    }

    fn replace(&self, path: &Path, temporary: &Path, durability: Durability) -> io::Result<()> {
        let mut file = File::create(temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        match durability {
            Durability::Fsync => file.sync_all()?,
            Durability::Lazy => {}
        }
        fs::rename(temporary, path)?;
        match (durability, path.parent()) {
            (Durability::Fsync, Some(directory)) => File::open(directory)?.sync_all(),
            (Durability::Fsync, None) | (Durability::Lazy, _) => Ok(()),
        }
    }

    /// Reads a record; `None` when there is none.
    ///
    /// # Errors
    /// When the file is there but cannot be read or understood.
    pub fn find(path: &Path) -> Result<Option<ExitRecord>, ExitRecordError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(ExitRecordError::Read { path: path.to_owned(), source });
            }
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| ExitRecordError::Parse { path: path.to_owned(), source })
    }
}
