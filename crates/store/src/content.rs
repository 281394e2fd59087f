//! Blobs as they came: what was pulled is pushed, saved and served again bit for bit.
//!
//! ```text
//! content/blobs/<hex>   compressed layers, manifests, indexes, configurations, whatever has a digest
//! content/names.json    names: reference (with a tag, or with a digest) -> Target
//! content/boot          the boot in which this was last open
//! ```
//! A blob is kept while a name's target reaches it, while the layer that it is is unpacked here, or
//! while a [`ContentLease`] holds it; the rest is swept (`content_sweep.rs`). Children that are
//! missing are nothing odd: of an index one platform is pulled. A layer that came uncompressed has no
//! blob; [`Store::content_reader`] makes its tar from the recipe.
//!
//! Invariant: a blob has the digest that it is named by, and never changes. It is written under
//! another name, hashed on the way, and renamed.
//!
//! Durability: writing flushes nothing. A blob is private (0600) until a flush has reached the disk,
//! read-only (0400) afterwards; blobs that are private although the machine was restarted since are
//! read again before they are believed. [`Store::flush`] waits for that flush.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use spec::{DiffId, Digest, Reference};
use tracing::warn;

use crate::images::stored;
use crate::layers::{LayerError, LayerKey};
use crate::recipe::LayerTar;
use crate::records::{self, Durability, RecordError};
use crate::store::{State, Store, boot_id};

/// Longer documents are none. Source: OCI distribution-spec 4.4; docker-registry's own bound.
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// How long blobs that nothing reaches outlive the daemon that they came to: whoever was sending an
/// image goes on where it was.
const ORPHAN_TIME: Duration = Duration::from_secs(24 * 60 * 60);

const UNFLUSHED: u32 = 0o600;
const FLUSHED: u32 = 0o400;

/// What a name means: a manifest or an index. The size is in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub digest: Digest,
    pub media_type: String,
    pub size: u64,
}

/// Why a blob or a name was not kept.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    #[error("cannot write blob {path:?}")]
    Write { path: PathBuf, source: io::Error },
    #[error("blob has digest {got}, not {want}")]
    Digest { want: Digest, got: Digest },
    #[error("blob {0} is not there")]
    Missing(Digest),
    #[error("a name needs a tag or a digest")]
    BareName,
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// All blobs and names.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) names: BTreeMap<Reference, Target>,
    /// Sizes in bytes.
    pub(crate) blobs: HashMap<Digest, u64>,
    pub(crate) leased: HashMap<Digest, usize>,
    /// Held until then.
    pub(crate) timed: HashMap<Digest, Instant>,
    /// Found at open and not old yet; the first sweep holds those that nothing reaches.
    pub(crate) young: HashMap<Digest, Instant>,
    /// Counts what may make a blob needed that was not: new names, new layers.
    pub(crate) generation: u64,
    /// Whether a sweep has met blobs that only leases hold.
    pub(crate) sweep_after_leases: bool,
}

impl Contents {
    pub(crate) fn is_held(&self, digest: &Digest, now: Instant) -> bool {
        self.leased.contains_key(digest) || self.timed.get(digest).is_some_and(|until| *until > now)
    }
}

/// Keeps digests from the sweep, whether their blobs are here yet or not.
pub struct ContentLease {
    store: Store,
    held: Mutex<Vec<Digest>>,
}

impl ContentLease {
    /// Holds `digest` until the lease ends; tells whether its blob is here.
    pub fn hold(&self, digest: &Digest) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(*digest);
        let mut state = self.store.state();
        *state.content.leased.entry(*digest).or_default() += 1;
        state.content.blobs.contains_key(digest)
    }
}

impl Drop for ContentLease {
    fn drop(&mut self) {
        let held = std::mem::take(self.held.get_mut().unwrap_or_else(PoisonError::into_inner));
        let mut state = self.store.state();
        for digest in held {
            if let Some(count) = state.content.leased.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    state.content.leased.remove(&digest);
                }
            }
        }
        let is_last = state.content.leased.is_empty();
        if is_last && std::mem::take(&mut state.content.sweep_after_leases) {
            drop(state);
            self.store.sweep_soon();
        }
    }
}

/// A blob being written. Dropped unfinished, it leaves nothing.
pub struct Ingest {
    store: Store,
    file: File,
    path: PathBuf,
    hash: Sha256,
    size: u64,
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.file.write(bytes)?;
        self.hash.update(&bytes[..taken]);
        self.size += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // A finished one was renamed.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Ingest {
    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What was written so far, for a reader of its own place in it.
    pub fn reader(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Puts the blob among the others, held by `lease`.
    ///
    /// # Errors
    /// Where it is not the `expected` one; then nothing is kept.
    pub fn finish(
        self,
        expected: Option<&Digest>,
        lease: &ContentLease,
    ) -> Result<Digest, ContentError> {
        let got = Digest::from_raw(self.hash.clone().finalize().into());
        if let Some(want) = expected.filter(|want| **want != got) {
            return Err(ContentError::Digest { want: *want, got });
        }
        self.store.keep_file(&self.path, &got, lease)?;
        Ok(got)
    }
}

/// A blob's bytes: of its file, or made from the layer's recipe.
pub struct ContentReader {
    source: Source,
    size: u64,
}

enum Source {
    File(File),
    Tar(Box<LayerTar>),
}

impl ContentReader {
    /// All bytes, wherever the reader stands.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Goes forward by `count` bytes.
    pub fn skip(&mut self, count: u64) -> io::Result<()> {
        match &mut self.source {
            Source::File(file) => {
                let by = i64::try_from(count).map_err(io::Error::other)?;
                file.seek(SeekFrom::Current(by)).map(drop)
            }
            Source::Tar(tar) => io::copy(&mut tar.take(count), &mut io::sink()).map(drop),
        }
    }
}

impl Read for ContentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::File(file) => file.read(buffer),
            Source::Tar(tar) => tar.read(buffer),
        }
    }
}

impl Store {
    /// A blob's file and its size in bytes.
    pub fn blob(&self, digest: &Digest) -> Option<(File, u64)> {
        let size = *self.state().content.blobs.get(digest)?;
        File::open(self.blob_path(digest)).ok().map(|file| (file, size))
    }

    /// Whether there is a file of this blob.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.state().content.blobs.contains_key(digest)
    }

    /// The size of a blob that [`Store::content_reader`] gives.
    pub fn content_size(&self, digest: &Digest) -> Option<u64> {
        let state = self.state();
        let tar = || Some(state.layers.get(&LayerKey(DiffId(*digest)))?.record.tar_size);
        state.content.blobs.get(digest).copied().or_else(tar)
    }

    /// A blob's bytes, also of an uncompressed layer that has no file.
    ///
    /// # Errors
    /// Where an unpacked layer cannot be read.
    pub fn content_reader(&self, digest: &Digest) -> Result<Option<ContentReader>, LayerError> {
        if let Some((file, size)) = self.blob(digest) {
            return Ok(Some(ContentReader { source: Source::File(file), size }));
        }
        let key = LayerKey(DiffId(*digest));
        let Some(layer) = self.layer(&key) else { return Ok(None) };
        let tar = self.layer_tar(&key)?;
        Ok(Some(ContentReader { source: Source::Tar(Box::new(tar)), size: layer.tar_size }))
    }

    /// Bytes of a small blob: a manifest, an index, a configuration.
    pub fn read_manifest(&self, digest: &Digest) -> Option<Vec<u8>> {
        let (file, size) = self.blob(digest).filter(|(_, size)| *size <= DOCUMENT_BYTES_MAX)?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        match file.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes) {
            Ok(_) => Some(bytes),
            Err(error) => {
                warn!(%digest, %error, "a kept document cannot be read");
                None
            }
        }
    }

    /// Begins to write a blob.
    pub fn ingest(&self) -> Result<Ingest, ContentError> {
        let path = self.temporary();
        let file = File::options().write(true).create_new(true).mode(UNFLUSHED).open(&path);
        let file = file.map_err(|source| ContentError::Write { path: path.clone(), source })?;
        Ok(Ingest { store: self.clone(), file, path, hash: Sha256::new(), size: 0 })
    }

    /// Keeps `bytes` as a blob.
    pub fn keep_blob(&self, bytes: &[u8], lease: &ContentLease) -> Result<Digest, ContentError> {
        let digest = Digest::of(bytes);
        if lease.hold(&digest) {
            return Ok(digest);
        }
        let mut ingest = self.ingest()?;
        let written = ingest.write_all(bytes);
        written.map_err(|source| ContentError::Write { path: ingest.path.clone(), source })?;
        ingest.finish(Some(&digest), lease)
    }

    /// Makes the file at `path` (of this file system) the blob `digest`, which the caller has verified.
    pub fn keep_file(
        &self,
        path: &Path,
        digest: &Digest,
        lease: &ContentLease,
    ) -> Result<(), ContentError> {
        let failed = |source| ContentError::Write { path: path.to_owned(), source };
        lease.hold(digest);
        std::fs::set_permissions(path, Permissions::from_mode(UNFLUSHED)).map_err(failed)?;
        let size = std::fs::metadata(path).map_err(failed)?.len();
        let mut state = self.state();
        if state.content.blobs.contains_key(digest) {
            drop(state);
            return std::fs::remove_file(path).map_err(failed);
        }
        std::fs::rename(path, self.blob_path(digest)).map_err(failed)?;
        state.content.blobs.insert(*digest, size);
        drop(state);
        self.flushes().blob(*digest);
        Ok(())
    }

    pub fn lease_content(&self) -> ContentLease {
        ContentLease { store: self.clone(), held: Mutex::default() }
    }

    /// Holds `digest` for some time, for a client that will name it in a later request.
    pub fn hold_content_for(&self, digest: &Digest, time: Duration) {
        let (mut state, now) = (self.state(), Instant::now());
        state.content.timed.retain(|_, until| *until > now);
        let until = state.content.timed.entry(*digest).or_insert(now);
        *until = (*until).max(now + time);
    }

    /// Ends a timed hold after `time` at the latest, as what it was for has come.
    pub fn shorten_content_hold(&self, digest: &Digest, time: Duration) {
        let mut state = self.state();
        let end = Instant::now() + time;
        if let Some(until) = state.content.timed.get_mut(digest) {
            *until = (*until).min(end);
        }
    }

    /// Deletes one blob although it may be reached.
    pub fn remove_blob(&self, digest: &Digest) -> bool {
        let mut state = self.state();
        let was_here = state.content.blobs.remove(digest).is_some();
        let trashed = self.to_trash(&self.blob_path(digest));
        drop(state);
        self.discard(trashed.into_iter().collect());
        was_here
    }

    /// Says what `name` means, in place of what it meant. The target must be here.
    pub fn name_content(&self, name: &Reference, target: Target) -> Result<(), ContentError> {
        if name.tag().is_none() && name.digest().is_none() {
            return Err(ContentError::BareName);
        }
        let name = stored(name);
        let mut state = self.state();
        if !state.content.blobs.contains_key(&target.digest) {
            return Err(ContentError::Missing(target.digest));
        }
        let before = state.content.names.insert(name.clone(), target.clone());
        if before.as_ref() == Some(&target) {
            return Ok(());
        }
        state.content.generation += 1;
        if let Err(error) = self.write_content_names(&state) {
            match before {
                Some(before) => state.content.names.insert(name, before),
                None => state.content.names.remove(&name),
            };
            return Err(error.into());
        }
        drop(state);
        if before.is_some() {
            self.sweep_soon();
        }
        Ok(())
    }

    /// Takes a name away; what it alone reached is swept in the background.
    pub fn unname_content(&self, name: &Reference) -> Result<Option<Target>, ContentError> {
        let name = stored(name);
        let mut state = self.state();
        let Some(target) = state.content.names.remove(&name) else { return Ok(None) };
        if let Err(error) = self.write_content_names(&state) {
            state.content.names.insert(name, target);
            return Err(error.into());
        }
        drop(state);
        self.sweep_soon();
        Ok(Some(target))
    }

    /// What `name` means.
    pub fn content(&self, name: &Reference) -> Option<Target> {
        self.state().content.names.get(&stored(name)).cloned()
    }

    /// The names within `repository` (`docker.io/library/alpine`), in order: tags, then digests.
    pub fn content_names(&self, repository: &str) -> Vec<(Reference, Target)> {
        let mut found = self.all_content_names();
        found.retain(|(name, _)| name.name() == repository);
        found.sort_by_key(|(name, _)| name.digest().is_some());
        found
    }

    /// All names, in order.
    pub fn all_content_names(&self) -> Vec<(Reference, Target)> {
        let state = self.state();
        state.content.names.iter().map(|(name, target)| (name.clone(), target.clone())).collect()
    }

    /// Bytes of all blobs.
    pub fn blobs_size(&self) -> u64 {
        self.state().content.blobs.values().sum()
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("content").join("blobs").join(digest.hex())
    }

    fn write_content_names(&self, state: &State) -> Result<(), RecordError> {
        let path = self.root().join("content").join("names.json");
        self.records().write_json(&path, &state.content.names, Durability::Lazy)?;
        self.flushes().names(path);
        Ok(())
    }

    /// Marks a blob as being on the disk. The state is locked, so it is still the one that was flushed.
    pub(crate) fn blob_flushed(&self, state: &State, digest: &Digest) {
        if !state.content.blobs.contains_key(digest) {
            return;
        }
        let path = self.blob_path(digest);
        if let Err(error) = std::fs::set_permissions(&path, Permissions::from_mode(FLUSHED)) {
            warn!(path = %path.display(), %error, "blob not marked as flushed");
        }
    }

    pub(crate) fn load_content(&self, state: &mut State) -> Result<(), RecordError> {
        let root = self.root().join("content");
        let (boot, marker) = (boot_id(), root.join("boot"));
        let same_boot =
            !boot.is_empty() && std::fs::read_to_string(&marker).is_ok_and(|last| last == boot);
        for name in records::names(&root.join("blobs"))? {
            let path = root.join("blobs").join(&name);
            let found = Digest::from_hex(&name).ok().zip(std::fs::symlink_metadata(&path).ok());
            let Some((digest, metadata)) = found.filter(|(_, metadata)| metadata.is_file()) else {
                self.discard(self.to_trash(&path).into_iter().collect());
                continue;
            };
            if metadata.mode() & 0o777 == UNFLUSHED {
                if !same_boot && !has_digest(&path, &digest) {
                    warn!(blob = name, "damaged by a power cut: removed");
                    self.discard(self.to_trash(&path).into_iter().collect());
                    continue;
                }
                self.flushes().blob(digest);
            }
            let age = metadata.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
            if let Some(left) = ORPHAN_TIME.checked_sub(age) {
                state.content.young.insert(digest, Instant::now() + left);
            }
            state.content.blobs.insert(digest, metadata.len());
        }
        let names: Option<BTreeMap<Reference, Target>> =
            crate::flush::read_names(&root.join("names.json"))?;
        let known = &state.content.blobs;
        let mut names = names.unwrap_or_default();
        names.retain(|_, target| known.contains_key(&target.digest));
        state.content.names = names;
        self.records().write(&marker, boot.as_bytes(), Durability::Lazy)
    }
}

fn has_digest(path: &Path, want: &Digest) -> bool {
    let read = || -> io::Result<Digest> {
        let (mut file, mut hash) = (File::open(path)?, Sha256::new());
        let mut buffer = vec![0u8; 256 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Digest::from_raw(hash.finalize().into())),
                got => hash.update(&buffer[..got]),
            }
        }
    };
    read().is_ok_and(|got| got == *want)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;
    use crate::testing::Scratch;

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";

    fn open(scratch: &Scratch) -> Store {
        let store = Store::open(scratch.path(), Options::default()).unwrap();
        // The sweep at open must not meet what a test does.
        store.settle();
        store
    }

    fn name(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    fn target(store: &Store, digest: Digest) -> Target {
        let size = store.content_size(&digest).unwrap_or(0);
        Target { digest, media_type: INDEX.to_owned(), size }
    }

    /// An index of one manifest with a configuration and a layer; the second of each is missing.
    fn keep_image(store: &Store, lease: &ContentLease, mark: &str) -> Vec<Digest> {
        let keep = |text: &str| store.keep_blob(text.as_bytes(), lease).unwrap();
        let link = |digest: &Digest| format!("{{\"digest\":\"{digest}\"}}");
        let missing = link(&Digest::of(b"elsewhere"));
        let (config, layer) = (keep(&format!("config {mark}")), keep(&format!("layer {mark}")));
        let subject = keep(&format!("subject {mark}"));
        let manifest = keep(&format!(
            "{{\"config\":{},\"layers\":[{},{missing}],\"subject\":{}}}",
            link(&config),
            link(&layer),
            link(&subject)
        ));
        let index = keep(&format!("{{\"manifests\":[{},{missing}]}}", link(&manifest)));
        vec![index, manifest, config, layer, subject]
    }

    #[track_caller]
    fn check_here(store: &Store, digests: &[Digest], want: &[bool]) {
        let here: Vec<bool> = digests.iter().map(|digest| store.has_blob(digest)).collect();
        assert_eq!(here, want);
        for (digest, here) in digests.iter().zip(here) {
            assert_eq!(store.blob_path(digest).exists(), here);
        }
    }

    #[test]
    fn what_a_name_reaches_stays_and_the_rest_goes() {
        let scratch = Scratch::new();
        let store = open(&scratch);
        let lease = store.lease_content();
        let (kept, lost) = (keep_image(&store, &lease, "kept"), keep_image(&store, &lease, "lost"));
        store.name_content(&name("a:1"), target(&store, kept[0])).unwrap();
        assert_eq!(store.sweep_content(), 0, "all are leased");
        // The sweep that was asked for meanwhile is made up for.
        drop(lease);
        store.settle();
        check_here(&store, &kept, &[true, true, true, true, false]);
        check_here(&store, &lost, &[false; 5]);
        store.name_content(&name("b:1"), target(&store, kept[0])).unwrap();
        store.unname_content(&name("a:1")).unwrap().unwrap();
        store.settle();
        check_here(&store, &kept[..4], &[true; 4]);
        store.unname_content(&name("b:1")).unwrap().unwrap();
        store.settle();
        check_here(&store, &kept, &[false; 5]);
        assert_eq!(store.blobs_size(), 0);
    }

    #[test]
    fn names_and_blobs_are_there_after_a_restart() {
        let scratch = Scratch::new();
        let store = open(&scratch);
        store.settle();
        let lease = store.lease_content();
        let digests = keep_image(&store, &lease, "x");
        store.hold_content_for(&digests[4], ORPHAN_TIME);
        let by_digest = name("a").with_digest(digests[0]);
        for name in [&name("a:1"), &by_digest] {
            store.name_content(name, target(&store, digests[0])).unwrap();
        }
        drop(lease);
        store.flush().unwrap();
        // The marks follow in the background.
        store.settle();
        let mode = std::fs::metadata(store.blob_path(&digests[0])).unwrap().mode();
        assert_eq!(mode & 0o777, FLUSHED);
        drop(store);
        let store = open(&scratch);
        let names: Vec<Reference> = store
            .content_names("docker.io/library/a")
            .into_iter()
            .map(|(name, target)| {
                assert_eq!(target.digest, digests[0]);
                name
            })
            .collect();
        assert_eq!(names, [name("a:1"), by_digest.clone()]);
        store.settle();
        check_here(&store, &digests, &[true; 5]);
        // What was reached is not held besides; what was not is, for a while.
        store.unname_content(&name("a:1")).unwrap();
        store.unname_content(&by_digest).unwrap();
        store.settle();
        check_here(&store, &digests, &[false, false, false, false, true]);
    }

    #[test]
    fn an_old_blob_that_nothing_reaches_goes_at_open() {
        let scratch = Scratch::new();
        let store = open(&scratch);
        store.settle();
        let digest = store.keep_blob(b"x", &store.lease_content()).unwrap();
        let path = store.blob_path(&digest);
        drop(store);
        let long_ago = std::time::SystemTime::now() - ORPHAN_TIME;
        File::open(&path).unwrap().set_modified(long_ago).unwrap();
        let store = open(&scratch);
        store.settle();
        check_here(&store, &[digest], &[false]);
    }

    #[test]
    fn a_blob_is_needed_while_something_reaches_it() {
        let scratch = Scratch::new();
        let store = open(&scratch);
        let digests = keep_image(&store, &store.lease_content(), "x");
        store.name_content(&name("a:1"), target(&store, digests[0])).unwrap();
        let needed: Vec<bool> =
            digests.iter().map(|digest| store.is_content_needed(digest)).collect();
        assert_eq!(needed, [true, true, true, true, false]);
    }

    #[test]
    fn a_blob_torn_by_a_power_cut_is_not_believed() {
        let scratch = Scratch::new();
        let store = open(&scratch);
        let lease = store.lease_content();
        let [torn, whole] =
            ["torn", "whole"].map(|text| store.keep_blob(text.as_bytes(), &lease).unwrap());
        for (tag, digest) in [("a:torn", torn), ("a:whole", whole)] {
            store.name_content(&name(tag), target(&store, digest)).unwrap();
        }
        store.settle();
        drop(lease);
        let path = store.blob_path(&torn);
        drop(store);
        for digest in [torn, whole] {
            let path = path.with_file_name(digest.hex());
            std::fs::set_permissions(&path, Permissions::from_mode(UNFLUSHED)).unwrap();
        }
        std::fs::write(&path, "to").unwrap();
        std::fs::write(scratch.path().join("content/boot"), "another").unwrap();
        let store = open(&scratch);
        check_here(&store, &[torn, whole], &[false, true]);
        assert_eq!(store.content(&name("a:torn")), None);
    }

    #[test]
    fn a_blob_with_another_digest_leaves_nothing() {
        let scratch = Scratch::new();
        let store = open(&scratch);
        let lease = store.lease_content();
        let mut ingest = store.ingest().unwrap();
        ingest.write_all(b"other").unwrap();
        let refused = ingest.finish(Some(&Digest::of(b"asked")), &lease);
        assert!(matches!(refused, Err(ContentError::Digest { .. })));
        assert_eq!(std::fs::read_dir(scratch.path().join("tmp")).unwrap().count(), 0);
        check_here(&store, &[Digest::of(b"other"), Digest::of(b"asked")], &[false, false]);
        let nobody = target(&store, Digest::of(b"asked"));
        assert!(matches!(store.name_content(&name("a:1"), nobody), Err(ContentError::Missing(_))));
    }

    #[test]
    fn a_timed_hold_ends() {
        let scratch = Scratch::new();
        let store = open(&scratch);
        let digest = store.keep_blob(b"x", &store.lease_content()).unwrap();
        store.hold_content_for(&digest, Duration::from_secs(3600));
        store.sweep_content();
        check_here(&store, &[digest], &[true]);
        store.hold_content_for(&digest, Duration::ZERO);
        store.sweep_content();
        check_here(&store, &[digest], &[true]);
        let brief = store.keep_blob(b"y", &store.lease_content()).unwrap();
        store.hold_content_for(&brief, Duration::ZERO);
        store.sweep_content();
        check_here(&store, &[digest, brief], &[true, false]);
        store.shorten_content_hold(&digest, Duration::ZERO);
        store.sweep_content();
        check_here(&store, &[digest], &[false]);
    }
}
