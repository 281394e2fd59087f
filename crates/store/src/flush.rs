//! Flushes: how what was acknowledged comes to the disk, and with how few of them.
//!
//! Nothing is flushed while layers, blobs and names are written; each says what it left behind. Whoever
//! acknowledges something calls [`Store::flush`] once, before the word that acknowledges, when the
//! names are written already: then one syncfs(2) carries files, records and names alike. Where nothing
//! but a record changed (`docker tag`), that record and its directory are flushed instead, as the rest
//! of the file system may belong to busy containers. Callers at the same time share a flush: whoever
//! arrives while one is under way waits for the next.
//!
//! A power cut before that loses what nobody was told of. What is half there is known by its mark (a
//! layer's record names the boot that wrote it, a blob is private) and read again before it is believed.
//! A file of names must not be torn with all its old names: each flush leaves `NAME.flushed` behind, a
//! link to what is known to be on the disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use spec::Digest;
use tracing::warn;

use crate::layers::LayerKey;
use crate::records::{self, Durability, RecordError};
use crate::store::Store;

/// How long things may wait for somebody to call [`Store::flush`] before it is done without.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(5);

/// What was written since the last flush.
#[derive(Default)]
pub(crate) struct Unflushed {
    layers: Vec<LayerKey>,
    blobs: Vec<Digest>,
    /// More than the paths below.
    tree: bool,
    /// Files of names.
    names: BTreeSet<PathBuf>,
    /// Other files, and directories.
    paths: BTreeSet<PathBuf>,
    since: Option<Instant>,
}

/// Rounds are numbered: who asks joins `collecting`, and is safe once `done` is beyond that.
#[derive(Default)]
pub(crate) struct Flushes {
    group: Mutex<Group>,
    changed: Condvar,
}

#[derive(Default)]
struct Group {
    unflushed: Unflushed,
    collecting: u64,
    done: u64,
    leader: bool,
    /// The latest round that failed, and the error's number.
    failed: Option<(u64, i32)>,
}

impl Flushes {
    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: impl FnOnce(&mut Unflushed)) {
        let mut group = self.group();
        group.unflushed.since.get_or_insert_with(Instant::now);
        note(&mut group.unflushed);
    }

    pub(crate) fn layer(&self, key: LayerKey) {
        self.note(|unflushed| {
            unflushed.tree = true;
            unflushed.layers.push(key);
        });
    }

    pub(crate) fn blob(&self, digest: Digest) {
        self.note(|unflushed| {
            unflushed.tree = true;
            unflushed.blobs.push(digest);
        });
    }

    /// Something of several files.
    pub(crate) fn tree(&self) {
        self.note(|unflushed| unflushed.tree = true);
    }

    pub(crate) fn names(&self, path: PathBuf) {
        self.note(|unflushed| unflushed.names.extend([path]));
    }

    pub(crate) fn path(&self, path: PathBuf) {
        self.note(|unflushed| unflushed.paths.extend([path]));
    }

    /// Whether something has been waiting for long.
    pub(crate) fn is_overdue(&self) -> bool {
        self.group().unflushed.since.is_some_and(|since| since.elapsed() > WAIT_MAX)
    }

    /// Flushes what was noted; gives what this call itself flushed, to be marked.
    fn flush(&self, root: &Path) -> io::Result<Option<Unflushed>> {
        let mut group = self.group();
        let mut flushed = None;
        let round = match (group.unflushed.since, group.leader) {
            (Some(_), _) => group.collecting,
            // Ours may be what is on its way.
            (None, true) => group.collecting - 1,
            (None, false) => return Ok(None),
        };
        while group.done <= round {
            if group.leader {
                group = self.changed.wait(group).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            group.leader = true;
            let leading = group.collecting;
            group.collecting += 1;
            let batch = std::mem::take(&mut group.unflushed);
            drop(group);
            let outcome = batch.write_back(root);
            group = self.group();
            match outcome {
                Ok(()) => flushed = Some(batch),
                Err(error) => {
                    let number =
                        error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error());
                    group.failed = Some((leading, number));
                    group.unflushed.take_back(batch);
                }
            }
            group.done = leading + 1;
            group.leader = false;
            self.changed.notify_all();
        }
        match group.failed.filter(|(failed, _)| *failed == round) {
            Some((_, number)) => Err(io::Error::from_raw_os_error(number)),
            None => Ok(flushed),
        }
    }
}

impl Unflushed {
    fn write_back(&self, root: &Path) -> io::Result<()> {
        let mut linked = Vec::new();
        for path in &self.names {
            let next = with_suffix(path, ".next");
            let _ = std::fs::remove_file(&next);
            match std::fs::hard_link(path, &next) {
                Ok(()) => linked.push((next, with_suffix(path, ".flushed"))),
                // A file system without links has no second copy.
                Err(error) => warn!(path = %path.display(), %error, "names have no second copy"),
            }
        }
        if self.tree {
            rustix::fs::syncfs(sys::fs::open_dir(root)?)?;
        } else {
            let parents: BTreeSet<&Path> =
                self.names.iter().chain(&self.paths).filter_map(|path| path.parent()).collect();
            let paths = self.names.iter().chain(&self.paths).map(PathBuf::as_path);
            for path in paths.chain(parents) {
                match File::open(path).and_then(|file| file.sync_all()) {
                    // Removed meanwhile, as its owner wished.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
        for (next, flushed) in linked {
            std::fs::rename(next, flushed)?;
        }
        Ok(())
    }

    fn take_back(&mut self, failed: Unflushed) {
        self.layers.extend(failed.layers);
        self.blobs.extend(failed.blobs);
        self.names.extend(failed.names);
        self.paths.extend(failed.paths);
        self.tree |= failed.tree;
        // Not at once: the disk may be full.
        self.since = Some(Instant::now());
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Reads a file of names: as it was last written, else as it was last flushed.
pub(crate) fn read_names<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RecordError> {
    match records::read_json(path)? {
        Some(names) => Ok(Some(names)),
        None => records::read_json(&with_suffix(path, ".flushed")),
    }
}

impl Store {
    /// Waits until all that was written before is on the disk. Whoever asks meanwhile shares the flush;
    /// when nothing was written there is none.
    ///
    /// # Errors
    /// Where the disk could not take it; the next flush tries again.
    pub fn flush(&self) -> io::Result<()> {
        if let Some(flushed) = self.flushes().flush(self.root())? {
            self.mark_soon(flushed);
        }
        Ok(())
    }

    /// [`Store::flush`] on the background thread, which marks by itself.
    pub(crate) fn flush_and_mark(&self) {
        match self.flushes().flush(self.root()) {
            Ok(flushed) => flushed.into_iter().for_each(|flushed| self.mark_flushed(&flushed)),
            Err(error) => warn!(%error, "the data root could not be flushed"),
        }
    }

    /// Writes down what is known to be on the disk.
    pub(crate) fn mark_flushed(&self, flushed: &Unflushed) {
        for key in &flushed.layers {
            let mut state = self.state();
            // Removed and made again meanwhile.
            if self.flushes().group().unflushed.layers.contains(key) {
                continue;
            }
            let Some(record) = state.layers.record_mut(key) else { continue };
            record.unflushed = None;
            // Under the lock, or the layer could be removed and made again in between.
            let path = self.layer_dir(key).join("layer.json");
            if let Err(error) = self.records().write_json(&path, record, Durability::Lazy) {
                warn!(%error, "layer not marked as flushed");
            }
        }
        for digest in &flushed.blobs {
            let state = self.state();
            if !self.flushes().group().unflushed.blobs.contains(digest) {
                self.blob_flushed(&state, digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn a_flush_of_nothing_is_none() {
        let flushes = Flushes::default();
        let nowhere = Path::new("/nonexistent");
        assert!(flushes.flush(nowhere).unwrap().is_none());
        flushes.tree();
        assert!(flushes.flush(nowhere).is_err());
        assert!(!flushes.is_overdue());
        let scratch = Scratch::new();
        assert!(flushes.flush(scratch.path()).unwrap().is_some_and(|flushed| flushed.tree));
        assert!(flushes.flush(nowhere).unwrap().is_none());
    }

    #[test]
    fn torn_names_are_those_of_the_last_flush() {
        let scratch = Scratch::new();
        let path = scratch.path().join("names.json");
        let flushes = Flushes::default();
        for round in [1u32, 2] {
            std::fs::write(&path, format!("[{round}]")).unwrap();
            flushes.names(path.clone());
            flushes.flush(scratch.path()).unwrap();
        }
        assert_eq!(read_names::<Vec<u32>>(&path).unwrap(), Some(vec![2]));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(read_names::<Vec<u32>>(&path).unwrap(), Some(vec![2]));
    }

    #[test]
    fn all_who_ask_at_once_are_served() {
        let scratch = Scratch::new();
        let flushes = Flushes::default();
        std::thread::scope(|scope| {
            for number in 0..16 {
                let (flushes, root) = (&flushes, scratch.path());
                scope.spawn(move || {
                    let path = root.join(number.to_string());
                    std::fs::write(&path, "x").unwrap();
                    flushes.path(path.clone());
                    flushes.flush(root).unwrap();
                    assert!(!flushes.group().unflushed.paths.contains(&path));
                });
            }
        });
    }
}
