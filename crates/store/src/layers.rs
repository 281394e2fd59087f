//! Layers: what is known of each, and how drafts become layers.
//!
//! A layer lives in `layers/<diff id>/` and never changes. It is kept while somebody holds it: an
//! image, a container's snapshot, a build cache record, or a [`Lease`] of work in progress. The last
//! one to let go sends it to the trash. Leases are not written down: after a crash there is no work
//! in progress, and what nobody holds at [`Store::open`] is removed there.
//!
//! Durability: unpacking flushes nothing. A layer's record says in which boot it was written until a
//! flush (`flush.rs`) has reached the disk; if the machine went down before, the next open verifies
//! the layer against its digest and drops it if it does not fit.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use spec::{DiffId, Digest};

use crate::draft::{Draft, UnpackError};
use crate::limits::UnpackLimits;
use crate::merged::Merged;
use crate::recipe::{Kept, LayerTar};
use crate::records::{Durability, RecordError};
use crate::store::{State, Store, boot_id};
use crate::tar::TarError;
use crate::tree::{HELD_BYTES_MAX, HELD_ENTRY_BYTES, TreeError};
use crate::unpack::wire::{Event, Failure, Job, LayerFacts};
use crate::unpack::{Place, Said, Session, UnpackerError};

/// Names a layer in this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerKey(pub DiffId);

impl LayerKey {
    pub fn diff_id(&self) -> DiffId {
        self.0
    }
}

impl From<DiffId> for LayerKey {
    fn from(diff_id: DiffId) -> LayerKey {
        LayerKey(diff_id)
    }
}

impl std::fmt::Display for LayerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The blob that a layer came as, for telling a registry that it has it already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobInfo {
    pub digest: Digest,
    pub size: u64,
}

/// One layer. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub key: LayerKey,
    /// Of the regular files.
    pub size: u64,
    /// Of the uncompressed tar.
    pub tar_size: u64,
    /// None for layers made here that nobody has asked for as a blob yet.
    pub blob: Option<BlobInfo>,
}

/// `layers/<key>/layer.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) size: u64,
    pub(crate) tar_size: u64,
    pub(crate) entries: u64,
    pub(crate) blob: Option<BlobInfo>,
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub(crate) kept: HashMap<u64, String>,
    /// The boot in which this was written, until it is known to be on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unflushed: Option<String>,
}

impl LayerRecord {
    pub(crate) fn layer(&self, key: LayerKey) -> Layer {
        Layer { key, size: self.size, tar_size: self.tar_size, blob: self.blob.clone() }
    }
}

/// A layer that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("layer {0} is not there")]
    Missing(LayerKey),
    #[error("cannot read layer {key}")]
    Read { key: LayerKey, source: io::Error },
    #[error("cannot mount layers")]
    Mount(#[source] io::Error),
}

/// Keeps layers from being removed while work with them is in progress.
pub struct Lease {
    store: Store,
    held: Mutex<Vec<LayerKey>>,
}

impl Lease {
    pub(crate) fn new(store: Store) -> Lease {
        Lease { store, held: Mutex::new(Vec::new()) }
    }

    /// Holds `key` until the lease ends; false when it is not there.
    #[must_use]
    pub fn hold(&self, key: &LayerKey) -> bool {
        let held = self.store.state().layers.hold(key);
        if held {
            self.note(*key);
        }
        held
    }

    fn note(&self, key: LayerKey) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(key);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = std::mem::take(self.held.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.store.release_layers(&held);
    }
}

/// All layers and how often each is held.
#[derive(Default)]
pub(crate) struct Layers {
    known: HashMap<LayerKey, Held>,
}

pub(crate) struct Held {
    pub(crate) record: LayerRecord,
    pub(crate) holds: usize,
}

impl Layers {
    pub(crate) fn get(&self, key: &LayerKey) -> Option<&Held> {
        self.known.get(key)
    }

    pub(crate) fn insert(&mut self, key: LayerKey, record: LayerRecord) {
        self.known.insert(key, Held { record, holds: 0 });
    }

    pub(crate) fn hold(&mut self, key: &LayerKey) -> bool {
        let found = self.known.get_mut(key);
        found.map(|held| held.holds += 1).is_some()
    }

    /// Holds all or none; gives the first that is missing.
    pub(crate) fn hold_all(&mut self, keys: &[LayerKey]) -> Result<(), LayerKey> {
        if let Some(missing) = keys.iter().find(|key| !self.known.contains_key(key)) {
            return Err(*missing);
        }
        for key in keys {
            self.hold(key);
        }
        Ok(())
    }

    /// Lets go once; gives the record when nobody holds the layer any more.
    pub(crate) fn release(&mut self, key: &LayerKey) -> Option<LayerRecord> {
        let held = self.known.get_mut(key)?;
        held.holds = held.holds.saturating_sub(1);
        if held.holds > 0 {
            return None;
        }
        self.known.remove(key).map(|held| held.record)
    }

    /// The layers that nobody holds.
    pub(crate) fn unheld(&self) -> Vec<LayerKey> {
        self.known.iter().filter(|(_, held)| held.holds == 0).map(|(key, _)| *key).collect()
    }

    pub(crate) fn record_mut(&mut self, key: &LayerKey) -> Option<&mut LayerRecord> {
        self.known.get_mut(key).map(|held| &mut held.record)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &LayerKey> {
        self.known.keys()
    }
}

impl Store {
    pub fn lease(&self) -> Lease {
        Lease::new(self.clone())
    }

    pub fn layer(&self, key: &LayerKey) -> Option<Layer> {
        self.state().layers.get(key).map(|held| held.record.layer(*key))
    }

    /// Says as which blob the layer goes to others, unless the blob that it came as is here.
    pub fn layer_is_blob(&self, key: &LayerKey, blob: BlobInfo) -> Result<(), RecordError> {
        let mut state = self.state();
        let State { layers, content, .. } = &mut *state;
        let Some(record) = layers.record_mut(key) else { return Ok(()) };
        if record.blob.as_ref().is_some_and(|known| content.blobs.contains_key(&known.digest)) {
            return Ok(());
        }
        record.blob = Some(blob);
        content.generation += 1;
        let path = self.layer_dir(key).join("layer.json");
        self.records().write_json(&path, record, Durability::Lazy)
    }

    pub fn has_layer(&self, key: &LayerKey) -> bool {
        self.state().layers.get(key).is_some()
    }

    /// All layers, in no order.
    pub fn layers(&self) -> Vec<Layer> {
        let state = self.state();
        let all =
            state.layers.keys().filter_map(|key| Some(state.layers.get(key)?.record.layer(*key)));
        all.collect()
    }

    /// Unpacks a layer's tar, compressed or not, and holds the layer with `lease`.
    ///
    /// `parents` (bottom first) lend their attributes to directories that the archive uses without
    /// describing. With `expect`, the blob must have that digest.
    pub fn unpack(
        &self,
        lease: &Lease,
        blob: impl Read + Send,
        limits: &UnpackLimits,
        expect: Option<&Digest>,
        parents: &[LayerKey],
    ) -> Result<Layer, UnpackError> {
        let unpacked = self.unpack_apart(blob, limits, expect)?;
        unpacked.commit(lease, parents)
    }

    /// Unpacks a layer without knowing its parents yet, so that a pull can unpack several at a time.
    pub fn unpack_apart(
        &self,
        blob: impl Read + Send,
        limits: &UnpackLimits,
        expect: Option<&Digest>,
    ) -> Result<Unpacked, UnpackError> {
        let dir = self.temporary();
        let failed = |source| UnpackError::Draft { path: dir.clone(), source };
        std::fs::create_dir(&dir).map_err(failed)?;
        let draft = Draft::of_others(dir.clone());
        let place = sys::fs::open_dir(&dir).map_err(failed)?;
        let job = Job::Layer { limits: *limits };
        let mut told = Told::default();
        let hear = |session: &mut Session| told.hear(session);
        let (facts, came) =
            self.unpacker().run(&job, blob, Place::Directory(place.as_fd()), hear)?;
        let got = came.digest.ok_or_else(strange)?;
        if let Some(want) = expect.filter(|want| **want != got) {
            return Err(UnpackError::Digest { want: *want, got });
        }
        draft.check()?;
        let blob = Some(BlobInfo { digest: got, size: came.bytes });
        Ok(self.unpacked(draft, &facts, told, facts.plain.unwrap_or(got), blob))
    }

    /// Puts together what is known of a layer that others unpacked.
    pub(crate) fn unpacked(
        &self,
        draft: Draft,
        facts: &LayerFacts,
        told: Told,
        plain: Digest,
        blob: Option<BlobInfo>,
    ) -> Unpacked {
        let record = LayerRecord {
            size: facts.size,
            tar_size: facts.tar_size,
            entries: facts.entries,
            blob,
            kept: kept_names(told.kept),
            unflushed: Some(boot_id()),
        };
        let key = LayerKey(DiffId(plain));
        Unpacked { store: self.clone(), draft, key, record, implied: told.implied }
    }

    /// The layer's uncompressed tar, byte for byte.
    pub fn layer_tar(&self, key: &LayerKey) -> Result<LayerTar, LayerError> {
        let kept = {
            let state = self.state();
            let held = state.layers.get(key).ok_or(LayerError::Missing(*key))?;
            kept_paths(&held.record.kept)
        };
        LayerTar::open(&self.layer_dir(key), kept)
            .map_err(|source| LayerError::Read { key: *key, source })
    }

    /// Directories of `chain` (bottom first) as overlayfs wants them: top first.
    ///
    /// A chain may have a layer twice (two equal COPYs, empty layers), which overlayfs refuses with
    /// ELOOP. The upper one is kept: whatever the lower one shows or hides, it shows or hides too.
    pub fn lowers(&self, chain: &[LayerKey]) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        let distinct = chain.iter().rev().filter(|key| seen.insert(**key));
        distinct.map(|key| self.layer_dir(key).join("diff")).collect()
    }

    pub(crate) fn layer_dir(&self, key: &LayerKey) -> PathBuf {
        self.root().join("layers").join(key.0.hex())
    }

    /// Finishes a draft that hashed its own tar.
    pub(crate) fn commit_draft(
        &self,
        lease: &Lease,
        mut draft: Draft,
        parents: &[LayerKey],
    ) -> Result<Layer, UnpackError> {
        draft.end()?;
        let complete = draft.complete()?;
        let digest = complete.digest.expect("drafts made here hash their tar");
        let record = LayerRecord {
            size: complete.size,
            tar_size: complete.tar_size,
            entries: complete.entries,
            blob: None,
            kept: kept_names(complete.kept),
            unflushed: Some(boot_id()),
        };
        let key = LayerKey(DiffId(digest));
        Unpacked { store: self.clone(), draft, key, record, implied: complete.implied }
            .commit(lease, parents)
    }

    /// Lets go of each key once; what nobody holds any more goes to the trash.
    pub(crate) fn release_layers(&self, keys: &[LayerKey]) -> Vec<LayerKey> {
        let mut state = self.state();
        let gone: Vec<LayerKey> =
            keys.iter().filter(|key| state.layers.release(key).is_some()).copied().collect();
        let mut doomed: Vec<PathBuf> = gone.iter().map(|key| self.layer_dir(key)).collect();
        doomed.extend(self.inits_on(&mut state, &gone));
        // Renamed under the lock: a layer of the same digest may be committed right after.
        let trashed: Vec<PathBuf> = doomed.iter().filter_map(|path| self.to_trash(path)).collect();
        drop(state);
        self.discard(trashed);
        if !gone.is_empty() {
            self.sweep_soon();
        }
        gone
    }
}

/// What is told of a layer before its facts.
#[derive(Default)]
pub(crate) struct Told {
    implied: Vec<Vec<u8>>,
    kept: Kept,
    held: usize,
}

impl Told {
    /// Takes note of an event; gives back what is about something else.
    ///
    /// # Errors
    /// When this is more than any tree remembers.
    pub(crate) fn note(&mut self, event: Event) -> Result<Option<Event>, UnpackError> {
        match event {
            Event::Implied(path) => {
                self.hold(path.0.len())?;
                self.implied.push(path.0);
            }
            Event::Kept(ordinal, path) => {
                self.hold(path.0.len())?;
                self.kept.insert(ordinal, path.0);
            }
            event => return Ok(Some(event)),
        }
        Ok(None)
    }

    fn hold(&mut self, bytes: usize) -> Result<(), UnpackError> {
        self.held += bytes + HELD_ENTRY_BYTES;
        if self.held > HELD_BYTES_MAX { Err(TreeError::TooManyNames.into()) } else { Ok(()) }
    }

    /// Hears all that is said of one layer.
    fn hear(&mut self, session: &mut Session) -> Result<LayerFacts, UnpackError> {
        let mut facts = None;
        loop {
            let event = match session.next().map_err(TarError::Unpacker)? {
                Said::Event(event) => self.note(event)?,
                Said::Data(_) => return Err(strange().into()),
            };
            match (event, facts.take()) {
                (None, known) => facts = known,
                (Some(Event::Layer(told)), None) => facts = Some(told),
                (Some(Event::Done), Some(facts)) => return Ok(facts),
                (Some(Event::Failed(failure)), _) => return Err(failed_unpack(failure)),
                (Some(_), _) => return Err(strange().into()),
            }
        }
    }
}

/// What comes of a job that makes layers.
fn failed_unpack(failure: Failure) -> UnpackError {
    match failure {
        Failure::Unpack(error) => error,
        Failure::Tar(error) => error.into(),
        Failure::Archive(_) => strange().into(),
    }
}

/// What makes no sense where it is said.
pub(crate) fn strange() -> TarError {
    TarError::Unpacker(UnpackerError::Talk(io::ErrorKind::InvalidData.into()))
}

/// A layer that is unpacked but not yet among the others.
pub struct Unpacked {
    store: Store,
    draft: Draft,
    key: LayerKey,
    record: LayerRecord,
    implied: Vec<Vec<u8>>,
}

impl Unpacked {
    pub fn key(&self) -> LayerKey {
        self.key
    }

    /// Bytes of the regular files.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// Puts the layer among the others, held by `lease`; an equal one that is there already wins.
    pub fn commit(self, lease: &Lease, parents: &[LayerKey]) -> Result<Layer, UnpackError> {
        let failed = |source| UnpackError::Draft { path: self.draft.dir.clone(), source };
        let layer = self.record.layer(self.key);
        if lease.hold(&self.key) {
            return Ok(self.store.layer(&self.key).unwrap_or(layer));
        }
        self.adopt_implied(parents)?;
        let bytes = serde_json::to_vec(&self.record).map_err(|error| failed(error.into()))?;
        let record = std::fs::File::create_new(self.draft.dir.join("layer.json"));
        record.and_then(|mut record| record.write_all(&bytes)).map_err(failed)?;
        let place = self.store.layer_dir(&self.key);
        let mut state = self.store.state();
        if state.layers.get(&self.key).is_none() {
            std::fs::rename(&self.draft.dir, &place).map_err(failed)?;
            state.layers.insert(self.key, self.record.clone());
            state.content.generation += 1;
            self.store.flushes().layer(self.key);
        }
        state.layers.hold(&self.key);
        drop(state);
        lease.note(self.key);
        Ok(layer)
    }

    /// Gives implied directories the attributes that they have in the layers below.
    fn adopt_implied(&self, parents: &[LayerKey]) -> Result<(), UnpackError> {
        if parents.is_empty() || self.implied.is_empty() {
            return Ok(());
        }
        if let Some(missing) = parents.iter().find(|key| !self.store.has_layer(key)) {
            return Err(UnpackError::NoParent(missing.0));
        }
        let diff = self.draft.dir.join("diff");
        let mut merged = Merged::open(&self.store.lowers(parents)).map_err(UnpackError::Below)?;
        for path in &self.implied {
            adopt(&mut merged, &diff, path).map_err(|source| UnpackError::Write {
                path: crate::tree::to_path(path),
                source,
            })?;
        }
        Ok(())
    }
}

fn adopt(merged: &mut Merged, diff: &Path, path: &[u8]) -> io::Result<()> {
    use std::os::fd::AsFd;
    let Some(found) = merged.find(path)?.filter(crate::merged::Found::is_dir) else {
        return Ok(());
    };
    let root = sys::fs::open_dir(diff)?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let path = crate::tree::to_path(path);
    let dir = match sys::fs::open_beneath(root.as_fd(), path, flags, rustix::fs::Mode::empty()) {
        Ok(dir) => dir,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let (uid, gid) = (found.stat.st_uid, found.stat.st_gid);
    let owner = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::fchown(&dir, Some(owner.0), Some(owner.1))?;
    rustix::fs::fchmod(&dir, rustix::fs::Mode::from_raw_mode(found.stat.st_mode & 0o7777))?;
    for (name, value) in found.xattrs()? {
        if !crate::tree::is_overlay_xattr(&name) {
            sys::fs::set_xattr(dir.as_fd(), &name, &value)?;
        }
    }
    let time = crate::tar::Time::of_modification(&found.stat);
    Ok(rustix::fs::futimens(&dir, &time.timestamps())?)
}

/// Paths in a recipe are bytes; JSON wants text.
fn kept_names(kept: Kept) -> HashMap<u64, String> {
    kept.into_iter()
        .map(|(ordinal, path)| (ordinal, path.iter().copied().map(char::from).collect()))
        .collect()
}

fn kept_paths(names: &HashMap<u64, String>) -> Kept {
    let bytes =
        |name: &String| name.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
    names.iter().map(|(ordinal, name)| (*ordinal, bytes(name))).collect()
}

/// Reads a whole layer to check it against its name.
pub(crate) fn verify(dir: &Path, key: LayerKey, record: &LayerRecord) -> io::Result<bool> {
    let mut tar = LayerTar::open(dir, kept_paths(&record.kept))?;
    let mut hash = crate::pipe::HashThread::start();
    let mut buffer = vec![0u8; 256 * 1024];
    loop {
        match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => hash.update(&buffer[..got]),
            Err(_) => return Ok(false),
        }
    }
    Ok(hash.finish() == key.0.0)
}
