//! One blob from a registry: received, kept and verified, and unpacked if it is a layer for here, all
//! at once.
//!
//! ```text
//! registry ──chunks──▶ queue ──▶ Tee ──▶ decompress, hash, unpack (a blocking thread)
//!                                 └────▶ downloads/<hex>-<size>, in the end content/blobs/<hex>
//! ```
//! Whoever wants a blob that is being fetched joins that [`Transfer`], from whatever image or
//! repository; when nobody wants it any more it ends. A connection that breaks is taken up again where
//! it broke, also by a later pull or after a crash: the file is fed to the unpacking first, then the
//! rest is asked for. What is on disk is not believed more than the registry: the digest is over all
//! of it.
//!
//! The size that a manifest claims is part of the file's name, so that one that lies does not touch
//! the file of one that does not. Files are not shortened but removed, as they become blobs by a rename.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use registry::Client;
use sha2::{Digest as _, Sha256};
use spec::Digest;
use spec::image::Descriptor;
use store::{ContentError, ContentLease, Store, TreeError, UnpackError, Unpacked};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::pull::{Reporter, TransferOutput, layer_line, layer_progress};
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};

/// Pieces between the network and the unpacking.
const QUEUE_LENGTH: usize = 8;
/// Partial files that nobody came back for.
const PARTIAL_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Less is no progress.
const PROGRESS_BYTES_MIN: u64 = 64 << 10;
const WRITE_BYTES: usize = 256 << 10;
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// The directory of what is not a blob yet.
fn downloads_dir(data_root: &Path) -> PathBuf {
    data_root.join("downloads")
}

/// Removes files that are too old. Blocking.
pub(super) fn sweep(data_root: &Path) {
    let now = SystemTime::now();
    for entry in fs::read_dir(downloads_dir(data_root)).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age > PARTIAL_LIFE);
        // Whoever holds the lock has just come back for it.
        let is_left = || File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if modified.is_ok_and(is_old) && is_left() {
            // Another sweep may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What is to be done with a blob besides keeping it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Unpack,
    Keep,
}

/// A blob that is here, verified.
pub(super) struct Fetched {
    path: PathBuf,
    unpacked: Mutex<Option<Unpacked>>,
}

impl Fetched {
    /// The unpacked layer, for the first who comes.
    pub(super) fn take(&self) -> Option<Unpacked> {
        self.unpacked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reads the blob.
    pub(super) fn open(&self, store: &Store, digest: &Digest) -> io::Result<File> {
        // Another pull may have put it among the blobs.
        match store.blob(digest) {
            Some((file, _)) => Ok(file),
            None => File::open(&self.path),
        }
    }

    /// Puts the file among the blobs, held by `lease`. Blocking.
    pub(super) fn keep(
        &self,
        store: &Store,
        digest: &Digest,
        lease: &ContentLease,
    ) -> std::result::Result<(), ContentError> {
        if lease.hold(digest) {
            self.discard();
            return Ok(());
        }
        match store.keep_file(&self.path, digest, lease) {
            // Another pull was faster.
            Err(ContentError::Write { .. }) if store.has_blob(digest) => Ok(()),
            other => other,
        }
    }

    /// Removes the file, as the layer gives its bytes or the blob is kept.
    pub(super) fn discard(&self) {
        // Another pull may have been faster.
        let _ = fs::remove_file(&self.path);
    }
}

type Outcome = std::result::Result<Arc<Fetched>, (Kind, String)>;
type Key = (Digest, u64);

/// The transfers that are going on.
#[derive(Default)]
pub(crate) struct Transfers {
    going: Mutex<HashMap<Key, Arc<Transfer>>>,
}

/// One blob on its way, and the pulls that want it.
struct Transfer {
    state: Mutex<TransferState>,
    outcome: watch::Sender<Option<Outcome>>,
}

#[derive(Default)]
struct TransferState {
    listeners: HashMap<u64, Reporter>,
    next: u64,
    /// For those who come later.
    last: Option<TransferOutput>,
    task: Option<AbortHandle>,
}

impl Transfer {
    fn state(&self) -> MutexGuard<'_, TransferState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, output: TransferOutput) {
        let mut state = self.state();
        for listener in state.listeners.values() {
            listener.say(output.clone());
        }
        state.last = Some(output);
    }
}

/// A pull's wish for a blob; the last one to go ends the transfer.
struct Interest {
    transfers: Arc<Transfers>,
    transfer: Arc<Transfer>,
    key: Key,
    number: u64,
    is_first: bool,
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut going = self.transfers.going();
        let mut state = self.transfer.state();
        state.listeners.remove(&self.number);
        if state.listeners.is_empty()
            && let Some(task) = state.task.take()
        {
            task.abort();
            going.remove(&self.key);
        }
    }
}

/// Ends the transfer for those who wait, however its task ends.
struct Ending {
    transfers: Arc<Transfers>,
    transfer: Arc<Transfer>,
    key: Key,
}

impl Ending {
    fn with(&self, outcome: Outcome) {
        let mut going = self.transfers.going();
        let mut state = self.transfer.state();
        // Without its task it was given up, and another may have its place in the map.
        if state.task.take().is_some() {
            going.remove(&self.key);
        }
        self.transfer.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.transfer.outcome.borrow().is_none() {
            self.with(Err((Kind::Internal, "the download was broken off".to_owned())));
        }
    }
}

/// Where a blob comes from and goes to.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) client: Arc<Client>,
    pub(super) store: Store,
    pub(super) data_root: PathBuf,
    pub(super) permits: Arc<Semaphore>,
    /// Tries in a row that bring nothing.
    pub(super) attempts_max: u32,
}

impl Transfers {
    fn going(&self) -> MutexGuard<'_, HashMap<Key, Arc<Transfer>>> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches and verifies a blob, or waits for the transfer of it that is going on.
    ///
    /// # Errors
    /// In Docker's words. What is on disk stays for the next pull, unless it was found to be wrong.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        source: &Source,
        blob: &Descriptor,
        goal: Goal,
        reporter: &Reporter,
    ) -> Result<Arc<Fetched>> {
        loop {
            let interest = self.join(source, blob, goal, reporter);
            let mut outcome = interest.transfer.outcome.subscribe();
            // The sender lives as long as the interest.
            let ended = outcome.wait_for(Option::is_some).await.map(|ended| ended.clone());
            match ended.ok().flatten() {
                Some(Ok(fetched)) => return Ok(fetched),
                // Another's registry or credentials may have been the reason.
                Some(Err(_)) if !interest.is_first => {}
                Some(Err((kind, message))) => return Err(Error::new(kind, message)),
                None => return Err(Error::internal("the download was broken off")),
            }
        }
    }

    fn join(
        self: &Arc<Self>,
        source: &Source,
        blob: &Descriptor,
        goal: Goal,
        reporter: &Reporter,
    ) -> Interest {
        let key = (blob.digest, blob.size);
        let mut going = self.going();
        let known = going.get(&key).cloned();
        let is_first = known.is_none();
        let transfer = known.unwrap_or_else(|| {
            Arc::new(Transfer { state: Mutex::default(), outcome: watch::Sender::new(None) })
        });
        let mut state = transfer.state();
        if let Some(last) = &state.last {
            reporter.say(last.clone());
        }
        let number = state.next;
        state.next += 1;
        state.listeners.insert(number, reporter.clone());
        if is_first {
            going.insert(key, Arc::clone(&transfer));
            let (transfers, transfer) = (Arc::clone(self), Arc::clone(&transfer));
            let ending = Ending { transfers, transfer: Arc::clone(&transfer), key };
            let work = Work { source: source.clone(), blob: blob.clone(), goal, transfer };
            let task = tokio::spawn(async move {
                let outcome = work.run().await;
                ending.with(outcome.map_err(|error| (error.kind, error.message)));
            });
            state.task = Some(task.abort_handle());
        }
        drop(state);
        drop(going);
        Interest { transfers: Arc::clone(self), transfer, key, number, is_first }
    }
}

/// A file with the beginning of a blob, locked.
struct Partial {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Partial {
    fn open(data_root: &Path, blob: &Descriptor) -> io::Result<Partial> {
        let dir = downloads_dir(data_root);
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{}-{}", blob.digest.hex(), blob.size));
        loop {
            let mut options = OpenOptions::new();
            let file = options.read(true).append(true).create(true).open(&path)?;
            // The thread of a transfer that was given up ends at its next read.
            file.lock()?;
            let length = file.metadata()?.len();
            if !is_at(&file, &path)? {
                continue;
            }
            if length > blob.size {
                fs::remove_file(&path)?;
                continue;
            }
            return Ok(Partial { file, path, length });
        }
    }
}

/// Whether a file still has its name; it may have become a blob while the lock was waited for.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let mine = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((mine.dev(), mine.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the unpacking reads: the file, then what comes, which is written to the file too.
struct Tee {
    file: File,
    /// What came and is not in the file yet: few large writes cost less than many small ones.
    pending: Vec<u8>,
    /// Bytes of the file not yet read.
    kept: u64,
    queue: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    /// Bytes that have to come yet.
    missing: u64,
    read: Arc<AtomicU64>,
}

impl Read for Tee {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.next(out)?;
        self.read.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        // Of a download that was broken off; what is lost here is fetched again.
        let _ = self.write();
    }
}

impl Tee {
    fn write(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.pending);
        self.pending.clear();
        written
    }

    fn next(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.kept > 0 {
            let most = usize::try_from(self.kept).unwrap_or(usize::MAX).min(out.len());
            let got = self.file.read(&mut out[..most])?;
            if got == 0 && most > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.kept -= got as u64;
            return Ok(got);
        }
        while self.chunk.is_empty() {
            match self.queue.blocking_recv() {
                Some(chunk) => {
                    self.missing = self.missing.saturating_sub(chunk.len() as u64);
                    self.pending.extend_from_slice(&chunk);
                    if self.pending.len() >= WRITE_BYTES {
                        self.write()?;
                    }
                    self.chunk = chunk;
                }
                None if self.missing == 0 => {
                    self.write()?;
                    return Ok(0);
                }
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF")),
            }
        }
        let take = out.len().min(self.chunk.len());
        out[..take].copy_from_slice(&self.chunk.split_to(take));
        Ok(take)
    }
}

/// Reads all of a blob that is only kept.
fn verify(mut input: impl Read, want: Digest) -> std::result::Result<(), UnpackError> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0u8; 256 * 1024]);
    let failed = |source| UnpackError::Content { path: want.to_string().into(), source };
    loop {
        match input.read(&mut buffer).map_err(failed)? {
            0 => break,
            got => hash.update(&buffer[..got]),
        }
    }
    let got = Digest::from_raw(hash.finalize().into());
    if got == want { Ok(()) } else { Err(UnpackError::Digest { want, got }) }
}

/// A transfer's task.
struct Work {
    source: Source,
    blob: Descriptor,
    goal: Goal,
    transfer: Arc<Transfer>,
}

enum Fault {
    /// The file was wrong; it is gone now.
    Stale,
    Error(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Error(error)
    }
}

/// Waits for a task that reads, and tells now and then how many bytes it has read.
pub(super) async fn watch<T>(
    mut task: tokio::task::JoinHandle<T>,
    read: &AtomicU64,
    tell: impl Fn(u64),
) -> T {
    loop {
        tokio::select! {
            done = &mut task => return match done {
                Ok(done) => done,
                Err(failure) => std::panic::resume_unwind(failure.into_panic()),
            },
            () = sleep(REPORT_EVERY) => tell(read.load(Ordering::Relaxed)),
        }
    }
}

/// Counts what is read.
pub(super) struct Counted<R> {
    pub(super) inner: R,
    pub(super) read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(out)?;
        self.read.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

impl Work {
    fn line(&self, text: &str) {
        self.transfer.say(layer_line(&self.blob.digest.short(), text));
    }

    fn progress(&self, text: &str, done: u64) {
        let id = self.blob.digest.short();
        self.transfer.say(layer_progress(&id, text, done, self.blob.size));
    }

    async fn run(&self) -> Result<Arc<Fetched>> {
        let permits = &self.source.permits;
        if permits.available_permits() == 0 {
            self.line("Waiting");
        }
        let _permit = permits.acquire().await;
        let mut attempt = self.fetch().await;
        if matches!(&attempt, Err(Fault::Stale)) {
            attempt = self.fetch().await;
        }
        attempt.map(Arc::new).map_err(|fault| match fault {
            Fault::Stale => verification_failed(&self.blob.digest),
            Fault::Error(error) => error,
        })
    }

    async fn fetch(&self) -> std::result::Result<Fetched, Fault> {
        let (data_root, blob) = (self.source.data_root.clone(), self.blob.clone());
        let Partial { file, path, length: kept } =
            blocking(move || Partial::open(&data_root, &blob)).await.map_err(|source| {
                Error::because(Kind::Internal, "cannot write the download", source)
            })?;
        let (sender, queue) = mpsc::channel(QUEUE_LENGTH);
        let read = Arc::new(AtomicU64::new(0));
        let missing = self.blob.size - kept;
        let chunk = Bytes::new();
        let pending = Vec::with_capacity(WRITE_BYTES);
        let tee = Tee { file, pending, kept, queue, chunk, missing, read: Arc::clone(&read) };
        let (store, digest, goal) = (self.source.store.clone(), self.blob.digest, self.goal);
        let unpacking = tokio::task::spawn_blocking(move || match goal {
            Goal::Unpack => {
                store.unpack_apart(tee, &store.unpack_limits(), Some(&digest)).map(Some)
            }
            Goal::Keep => verify(tee, digest).map(|()| None),
        });
        let received = self.receive(kept, &sender).await;
        drop(sender);
        if received.is_ok() {
            self.line("Verifying Checksum");
            self.line("Download complete");
        }
        let extracting = |read: u64| self.progress("Extracting", read.min(self.blob.size));
        let unpacked = watch(unpacking, &read, extracting).await;
        if matches!(unpacked, Ok(Some(_))) {
            extracting(self.blob.size);
        }
        match (received, unpacked) {
            (_, Ok(unpacked)) => Ok(Fetched { path, unpacked: Mutex::new(unpacked) }),
            (Err(error), Err(_)) => Err(error.into()),
            (Ok(()), Err(error)) => {
                // What it has is not what was asked for, or cannot be unpacked anyway.
                let _ = fs::remove_file(path);
                match error {
                    _ if kept > 0 => Err(Fault::Stale),
                    UnpackError::Digest { .. } => Err(verification_failed(&digest).into()),
                    error => {
                        let kind = unpack_kind(&error);
                        let failed = Error::because(kind, "failed to register layer", error);
                        Err(failed.into())
                    }
                }
            }
        }
    }

    /// Receives the blob from byte `at` on, over as many connections as it takes. Ends well when the
    /// unpacking has stopped listening: then that has the error.
    async fn receive(&self, mut at: u64, queue: &mpsc::Sender<Bytes>) -> Result<()> {
        let blob = &self.blob;
        let mut attempts = 0;
        let mut reported = Instant::now();
        self.progress("Downloading", at);
        while at < blob.size {
            let before = at;
            let broken = match self.source.client.blob(&blob.digest, at).await {
                Err(error) => error,
                Ok(mut stream) => loop {
                    match stream.chunk().await {
                        Ok(Some(chunk)) => {
                            at += chunk.len() as u64;
                            if at > blob.size {
                                return Err(Error::new(
                                    Kind::Upstream,
                                    format!(
                                        "blob {} is longer than its manifest says",
                                        blob.digest
                                    ),
                                ));
                            }
                            if queue.send(chunk).await.is_err() {
                                return Ok(());
                            }
                            if reported.elapsed() > REPORT_EVERY {
                                reported = Instant::now();
                                self.progress("Downloading", at);
                            }
                        }
                        Ok(None) if at == blob.size => return Ok(()),
                        Ok(None) => {
                            break registry::Error::Body(io::Error::new(
                                io::ErrorKind::UnexpectedEof,
                                "unexpected EOF",
                            ));
                        }
                        Err(error) => break registry::Error::Body(error),
                    }
                },
            };
            // A registry that gives some bytes each time gets somewhere.
            attempts = if at - before >= PROGRESS_BYTES_MIN { 1 } else { attempts + 1 };
            if !broken.is_transient() || attempts >= self.source.attempts_max || queue.is_closed() {
                return Err(Error::caused(Kind::Upstream, broken));
            }
            let asked = broken.refusal().and_then(registry::error::Refusal::pause);
            let pause = asked.map_or(0, |asked| asked.as_secs()).max(attempts.into());
            for left in (1..=pause).rev() {
                let unit = if left == 1 { "second" } else { "seconds" };
                self.line(&format!("Retrying in {left} {unit}"));
                sleep(Duration::from_secs(1)).await;
            }
        }
        Ok(())
    }
}

/// Whether it is what came that was wrong, or what was done with it here.
fn unpack_kind(error: &UnpackError) -> Kind {
    match error {
        UnpackError::Tar(_)
        | UnpackError::Content { .. }
        | UnpackError::Whiteout(_)
        | UnpackError::Digest { .. }
        | UnpackError::Tree(
            TreeError::Escape(_)
            | TreeError::PathTooLong(_)
            | TreeError::TooDeep(_)
            | TreeError::TooManyNames
            | TreeError::HardLink { .. }
            | TreeError::DirectoryByOther(_)
            | TreeError::OtherByDirectory(_),
        ) => Kind::Upstream,
        UnpackError::Tree(
            TreeError::Create { .. } | TreeError::Attributes { .. } | TreeError::Replace { .. },
        )
        | UnpackError::Walk(_)
        | UnpackError::Below(_)
        | UnpackError::Write { .. }
        | UnpackError::NoParent(_)
        | UnpackError::Draft { .. } => Kind::Internal,
    }
}

/// Source: moby `distribution/pull_v2.go`.
fn verification_failed(digest: &Digest) -> Error {
    let text = format!("filesystem layer verification failed for digest {digest}");
    Error::new(Kind::Upstream, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_parts_that_nobody_uses_are_removed() {
        let root = std::env::temp_dir().join(format!("tug-downloads-{}", std::process::id()));
        let blobs: Vec<Descriptor> = ["new", "old", "used"]
            .map(|text| Descriptor::new("", Digest::of(text.as_bytes()), 10))
            .to_vec();
        let parts: Vec<Partial> =
            blobs.iter().map(|blob| Partial::open(&root, blob).unwrap()).collect();
        let long_ago = SystemTime::now() - 2 * PARTIAL_LIFE;
        for part in &parts[1..] {
            part.file.set_modified(long_ago).unwrap();
        }
        let [new, old, used] = &parts[..] else { panic!("three parts") };
        new.file.unlock().unwrap();
        old.file.unlock().unwrap();
        sweep(&root);
        let left = [new, old, used].map(|part| part.path.exists());
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(left, [true, false, true]);
    }
}
