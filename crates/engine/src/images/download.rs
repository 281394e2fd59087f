//! One layer from a registry: received, kept in part, verified and unpacked all at once.
//!
//! ```text
//! registry ──chunks──▶ queue ──▶ Tee ──▶ decompress, hash, unpack (a blocking thread)
//!                                 └────▶ downloads/<digest>, until the layer is unpacked
//! ```
//! A connection that breaks is taken up again where it broke, also by a later pull: the partial file
//! is fed to the unpacking first, then the rest is asked for. What is on disk is not believed more
//! than the registry: the digest is over all of it. One pull at a time has a partial file; another
//! that wants the same blob does without.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use registry::Client;
use spec::Digest;
use spec::image::Descriptor;
use store::{Store, UnpackError, UnpackLimits, Unpacked};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::pull::{Reporter, layer_line, layer_progress};
use crate::containers::world::blocking;
use crate::error::{Error, Kind, Result};

/// Pieces between the network and the unpacking.
const QUEUE_LENGTH: usize = 16;
/// Smaller blobs are fetched anew rather than kept in part.
const PARTIAL_BYTES_MIN: u64 = 1 << 20;
/// Partial files that nobody came back for.
const PARTIAL_LIFE: Duration = Duration::from_secs(24 * 3600);
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// The directory of partial files.
fn partial_dir(data_root: &Path) -> PathBuf {
    data_root.join("downloads")
}

/// Removes partial files that are too old. Blocking.
pub(super) fn sweep(data_root: &Path) {
    let now = SystemTime::now();
    for entry in fs::read_dir(partial_dir(data_root)).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age > PARTIAL_LIFE);
        if modified.is_ok_and(is_old) {
            // Another sweep may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A file with the beginning of a blob, locked.
struct Partial {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Partial {
    fn open(data_root: &Path, blob: &Descriptor) -> Option<Partial> {
        if blob.size < PARTIAL_BYTES_MIN {
            return None;
        }
        let dir = partial_dir(data_root);
        fs::create_dir_all(&dir).ok()?;
        let path = dir.join(blob.digest.hex());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .ok()?;
        file.try_lock().ok()?;
        let length = file.metadata().ok()?.len();
        if length > blob.size {
            file.set_len(0).ok()?;
            return Some(Partial { file, path, length: 0 });
        }
        Some(Partial { file, path, length })
    }
}

/// What the unpacking reads: the partial file, then what comes, which is written to that file too.
struct Tee {
    partial: Option<File>,
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

impl Tee {
    fn next(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.kept > 0
            && let Some(file) = &mut self.partial
        {
            let most = usize::try_from(self.kept).unwrap_or(usize::MAX).min(out.len());
            let got = file.read(&mut out[..most])?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.kept -= got as u64;
            return Ok(got);
        }
        while self.chunk.is_empty() {
            match self.queue.blocking_recv() {
                Some(chunk) => {
                    self.missing = self.missing.saturating_sub(chunk.len() as u64);
                    // A full disk is the unpacking's to report.
                    if self.partial.as_mut().is_some_and(|file| file.write_all(&chunk).is_err()) {
                        self.partial = None;
                    }
                    self.chunk = chunk;
                }
                None if self.missing == 0 => return Ok(0),
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF")),
            }
        }
        let take = out.len().min(self.chunk.len());
        out[..take].copy_from_slice(&self.chunk.split_to(take));
        Ok(take)
    }
}

/// What a download needs besides its blob.
pub(super) struct Source {
    pub(super) client: Arc<Client>,
    pub(super) store: Store,
    pub(super) data_root: PathBuf,
    pub(super) reporter: Reporter,
    /// Tries in a row that bring nothing.
    pub(super) attempts_max: u32,
}

/// Fetches, verifies and unpacks a layer.
///
/// # Errors
/// In Docker's words. What is on disk stays for the next pull, unless it was found to be wrong.
pub(super) async fn layer(source: &Source, blob: &Descriptor) -> Result<Unpacked> {
    let mut attempt = fetch(source, blob).await;
    if matches!(&attempt, Err(Fault::Stale)) {
        attempt = fetch(source, blob).await;
    }
    attempt.map_err(|fault| match fault {
        Fault::Stale => verification_failed(&blob.digest),
        Fault::Error(error) => error,
    })
}

enum Fault {
    /// The partial file was wrong; it is gone now.
    Stale,
    Error(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Error(error)
    }
}

async fn fetch(source: &Source, blob: &Descriptor) -> std::result::Result<Unpacked, Fault> {
    let id = blob.digest.short();
    let (data_root, wanted) = (source.data_root.clone(), blob.clone());
    let partial = blocking(move || Partial::open(&data_root, &wanted)).await;
    let (path, kept, file) = match partial {
        Some(partial) => (Some(partial.path), partial.length, Some(partial.file)),
        None => (None, 0, None),
    };
    let (sender, queue) = mpsc::channel(QUEUE_LENGTH);
    let read = Arc::new(AtomicU64::new(0));
    let tee = Tee {
        partial: file,
        kept,
        queue,
        chunk: Bytes::new(),
        missing: blob.size - kept,
        read: Arc::clone(&read),
    };
    let (store, digest) = (source.store.clone(), blob.digest);
    let unpacking = tokio::task::spawn_blocking(move || {
        store.unpack_apart(tee, &UnpackLimits::default(), Some(&digest))
    });
    let received = receive(source, blob, kept, &sender).await;
    drop(sender);
    if received.is_ok() {
        source.reporter.say(layer_line(&id, "Verifying Checksum"));
        source.reporter.say(layer_line(&id, "Download complete"));
    }
    let unpacked = extracted(source, &id, blob.size, &read, unpacking).await;
    let remove = |path: Option<PathBuf>| path.map(fs::remove_file);
    match (received, unpacked) {
        (_, Ok(unpacked)) => {
            remove(path);
            Ok(unpacked)
        }
        (Err(error), Err(_)) => Err(error.into()),
        (Ok(()), Err(error)) => {
            remove(path);
            match error {
                UnpackError::Digest { .. } if kept > 0 => Err(Fault::Stale),
                _ if kept > 0 => Err(Fault::Stale),
                UnpackError::Digest { .. } => Err(verification_failed(&blob.digest).into()),
                error => {
                    Err(Error::because(Kind::Internal, "failed to register layer", error).into())
                }
            }
        }
    }
}

/// Source: moby `distribution/pull_v2.go`.
fn verification_failed(digest: &Digest) -> Error {
    Error::internal(format!("filesystem layer verification failed for digest {digest}"))
}

/// Waits for the unpacking and shows how far it is.
async fn extracted(
    source: &Source,
    id: &str,
    size: u64,
    read: &AtomicU64,
    mut unpacking: tokio::task::JoinHandle<std::result::Result<Unpacked, UnpackError>>,
) -> std::result::Result<Unpacked, UnpackError> {
    loop {
        tokio::select! {
            done = &mut unpacking => {
                let done = match done {
                    Ok(done) => done,
                    Err(failure) => std::panic::resume_unwind(failure.into_panic()),
                };
                if done.is_ok() {
                    source.reporter.say(layer_progress(id, "Extracting", size, size));
                }
                return done;
            }
            () = sleep(REPORT_EVERY) => {
                let read = read.load(Ordering::Relaxed);
                source.reporter.say(layer_progress(id, "Extracting", read.min(size), size));
            }
        }
    }
}

/// Receives the blob from byte `at` on, over as many connections as it takes. Ends well when the
/// unpacking has stopped listening: then that has the error.
async fn receive(
    source: &Source,
    blob: &Descriptor,
    mut at: u64,
    queue: &mpsc::Sender<Bytes>,
) -> Result<()> {
    let id = blob.digest.short();
    let mut attempts = 0;
    let mut reported = Instant::now();
    source.reporter.say(layer_progress(&id, "Downloading", at, blob.size));
    while at < blob.size {
        let before = at;
        let broken = match source.client.blob(&blob.digest, at).await {
            Err(error) => error,
            Ok(mut stream) => loop {
                match stream.chunk().await {
                    Ok(Some(chunk)) => {
                        at += chunk.len() as u64;
                        if at > blob.size {
                            return Err(Error::internal(format!(
                                "blob {} is longer than its manifest says",
                                blob.digest
                            )));
                        }
                        if queue.send(chunk).await.is_err() {
                            return Ok(());
                        }
                        if reported.elapsed() > REPORT_EVERY {
                            reported = Instant::now();
                            source.reporter.say(layer_progress(&id, "Downloading", at, blob.size));
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
        attempts = if at > before { 1 } else { attempts + 1 };
        if !broken.is_transient() || attempts >= source.attempts_max || queue.is_closed() {
            return Err(Error::caused(Kind::Internal, broken));
        }
        for left in (1..=attempts).rev() {
            let unit = if left == 1 { "second" } else { "seconds" };
            source.reporter.say(layer_line(&id, &format!("Retrying in {left} {unit}")));
            sleep(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}
