//! Crash-safe records: small files that are either the old text or the new one, never a mixture.
//!
//! A record is written to a temporary file beside its place and renamed over it. A [`Lazy`] record
//! survives the death of this process; a [`Durable`] one also a power cut: its data, then its name,
//! are flushed before the call returns. Flushes are grouped: whoever arrives while one is under way
//! waits for the next, which then carries everybody who waited. So eight containers created at once
//! cost about two journal commits, not sixteen.
//!
//! A file that a power cut tore (or that someone edited) does not stop the daemon: it is renamed to
//! `NAME.torn`, logged once, and counts as absent.
//!
//! [`Lazy`]: Durability::Lazy
//! [`Durable`]: Durability::Durable

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

/// What must have happened when a write returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Safe from the death of this process.
    Lazy,
    /// Safe from a power cut too.
    Durable,
}

/// A record that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot write record {path:?}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read record {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot encode record {path:?}")]
    Encode { path: PathBuf, source: serde_json::Error },
}

/// The writer of records. One per data root, so that flushes can be shared.
#[derive(Default)]
pub struct Records {
    names: AtomicU64,
    group: Mutex<Group>,
    flushed: Condvar,
}

/// Who waits for a flush. Rounds are numbered: a write joins round `collecting` and is safe once
/// `done` has reached it.
#[derive(Default)]
struct Group {
    waiting: Vec<Pending>,
    collecting: u64,
    done: u64,
    leader: bool,
    /// Errors as numbers, as several may wait for one directory.
    failed: Vec<(u64, PathBuf, i32)>,
}

struct Pending {
    temporary: PathBuf,
    file: File,
    place: PathBuf,
}

impl Records {
    pub fn new() -> Records {
        Records::default()
    }

    /// Writes `value` as JSON to `path`. Missing parent directories are made.
    pub fn write_json<T: Serialize + ?Sized>(
        &self,
        path: &Path,
        value: &T,
        durability: Durability,
    ) -> Result<(), RecordError> {
        let bytes = serde_json::to_vec(value)
            .map_err(|source| RecordError::Encode { path: path.to_owned(), source })?;
        self.write(path, &bytes, durability)
    }

    /// Writes `bytes` to `path`. Missing parent directories are made.
    pub fn write(
        &self,
        path: &Path,
        bytes: &[u8],
        durability: Durability,
    ) -> Result<(), RecordError> {
        let failed = |source| RecordError::Write { path: path.to_owned(), source };
        let (temporary, file) = self.write_temporary(path, bytes).map_err(failed)?;
        let outcome = match durability {
            Durability::Lazy => std::fs::rename(&temporary, path),
            Durability::Durable => {
                self.flush(Pending { temporary: temporary.clone(), file, place: path.to_owned() })
            }
        };
        outcome.map_err(|source| {
            let _ = std::fs::remove_file(&temporary);
            failed(source)
        })
    }

    fn write_temporary(&self, path: &Path, bytes: &[u8]) -> io::Result<(PathBuf, File)> {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}-{number}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let create = || {
            let mut options = File::options();
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)
        };
        let mut file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
                create()?
            }
            other => other?,
        };
        if let Err(error) = file.write_all(bytes) {
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
        Ok((temporary, file))
    }

    /// Joins the round that is collecting; the first to find nobody flushing leads it.
    fn flush(&self, pending: Pending) -> io::Result<()> {
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        let place = pending.place.clone();
        let round = group.collecting;
        group.waiting.push(pending);
        while group.done <= round {
            if group.leader {
                group = self.flushed.wait(group).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            group.leader = true;
            let leading = group.collecting;
            group.collecting += 1;
            let batch = std::mem::take(&mut group.waiting);
            drop(group);
            let failures = flush_batch(batch);
            group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
            // The waiters of earlier rounds have long looked.
            group.failed.retain(|(round, _, _)| round + 16 > leading);
            let number =
                |error: io::Error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
            group
                .failed
                .extend(failures.into_iter().map(|(path, error)| (leading, path, number(error))));
            group.done = leading + 1;
            group.leader = false;
            self.flushed.notify_all();
        }
        let concerns = |path: &Path| path == place || Some(path) == place.parent();
        let mine = group.failed.iter().find(|(of, path, _)| *of == round && concerns(path));
        mine.map_or(Ok(()), |(_, _, number)| Err(io::Error::from_raw_os_error(*number)))
    }
}

/// Data of all, then names of all, then the directories: each step's first fsync commits the file
/// system's journal for the others.
fn flush_batch(batch: Vec<Pending>) -> Vec<(PathBuf, io::Error)> {
    let mut failures = Vec::new();
    let mut directories = BTreeSet::new();
    let mut written = Vec::new();
    for pending in batch {
        match pending.file.sync_data() {
            Ok(()) => written.push(pending),
            Err(error) => failures.push((pending.place, error)),
        }
    }
    for pending in written {
        match std::fs::rename(&pending.temporary, &pending.place) {
            Ok(()) => {
                directories.extend(pending.place.parent().map(Path::to_owned));
            }
            Err(error) => failures.push((pending.place, error)),
        }
    }
    for directory in directories {
        // A directory removed meanwhile took its record along, as its owner wished.
        let flushed = File::open(&directory).and_then(|opened| opened.sync_all());
        if let Err(error) = flushed.or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }) {
            failures.push((directory, error));
        }
    }
    failures
}

/// Reads the record at `path`; none when there is no file, or only a torn one.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RecordError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RecordError::Read { path: path.to_owned(), source }),
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            set_aside(path, &error.to_string());
            Ok(None)
        }
    }
}

/// Takes an unreadable record out of the way, keeping it for a human.
pub fn set_aside(path: &Path, why: &str) {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".torn");
    let _ = std::fs::rename(path, path.with_file_name(name));
    warn!(path = %path.display(), error = why, "unreadable record set aside");
}

/// Reads `dir/*/file`, giving each with its directory's name, in the order of names.
pub fn load_dir<T: DeserializeOwned>(
    dir: &Path,
    file: &str,
) -> Result<Vec<(String, T)>, RecordError> {
    let mut found = Vec::new();
    for name in names(dir)? {
        if let Some(record) = read_json(&dir.join(&name).join(file))? {
            found.push((name, record));
        }
    }
    Ok(found)
}

/// Reads `dir/*SUFFIX`, giving each with its name less the suffix, in the order of names.
pub fn load_files<T: DeserializeOwned>(
    dir: &Path,
    suffix: &str,
) -> Result<Vec<(String, T)>, RecordError> {
    let mut found = Vec::new();
    for name in names(dir)? {
        let Some(stem) = name.strip_suffix(suffix) else { continue };
        if let Some(record) = read_json(&dir.join(&name))? {
            found.push((stem.to_owned(), record));
        }
    }
    Ok(found)
}

/// The UTF-8 names in `dir`, sorted; none when there is no such directory.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, RecordError> {
    let failed = |source| RecordError::Read { path: dir.to_owned(), source };
    let listing = match std::fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in listing {
        found.extend(entry.map_err(failed)?.file_name().into_string());
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let scratch = Scratch::new();
        let records = Records::new();
        let path = scratch.path().join("a/b/record.json");
        for durability in [Durability::Lazy, Durability::Durable] {
            records.write_json(&path, &vec![1, 2, 3], durability).unwrap();
            assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), Some(vec![1, 2, 3]));
        }
        assert_eq!(names(path.parent().unwrap()).unwrap(), ["record.json"]);
        let loaded = load_dir::<Vec<u32>>(&scratch.path().join("a"), "record.json").unwrap();
        assert_eq!(loaded, [("b".to_owned(), vec![1, 2, 3])]);
    }

    #[test]
    fn a_torn_record_is_set_aside() {
        let scratch = Scratch::new();
        let path = scratch.path().join("record.json");
        std::fs::write(&path, "{\"half").unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), None);
        assert_eq!(names(scratch.path()).unwrap(), ["record.json.torn"]);
    }

    #[test]
    fn concurrent_durable_writers_all_get_through() {
        let scratch = Scratch::new();
        let records = Records::new();
        std::thread::scope(|scope| {
            for writer in 0..16 {
                let (records, path) = (&records, scratch.path().join(format!("{writer}.json")));
                scope.spawn(move || {
                    records.write_json(&path, &writer, Durability::Durable).unwrap()
                });
            }
        });
        assert_eq!(load_files::<u32>(scratch.path(), ".json").unwrap().len(), 16);
    }
}
