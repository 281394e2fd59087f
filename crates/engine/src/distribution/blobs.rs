//! Blobs for clients: whether they are here, their bytes, their removal.

use std::io::{self, Read as _};
use std::sync::Arc;

use bytes::Bytes;
use spec::Digest;
use store::ContentReader;

use super::{DistributionError, Result};
use crate::Engine;
use crate::blocking::blocking;

/// A blob being read, piece by piece, so that a client that stalls holds no thread.
pub struct Blob {
    size: u64,
    left: u64,
    /// None only while a thread has it.
    reader: Option<ContentReader>,
}

impl Blob {
    /// All bytes, whatever part is read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Restricts reading to the bytes from `start` up to `end`.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn cut(&mut self, start: u64, end: u64) -> io::Result<()> {
        let mut reader = self.reader.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (reader, skipped) = blocking(move || {
            let skipped = reader.skip(start);
            (reader, skipped)
        })
        .await;
        skipped?;
        self.reader = Some(reader);
        self.left = end.min(self.size).saturating_sub(start);
        Ok(())
    }

    /// The next piece of at most `max` bytes; empty at the end.
    ///
    /// # Errors
    /// When the disk fails, or has less than it should.
    pub async fn piece(&mut self, max: usize) -> io::Result<Bytes> {
        let count = self.left.min(max as u64);
        if count == 0 {
            return Ok(Bytes::new());
        }
        let mut reader = self.reader.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (reader, piece) = blocking(move || {
            let mut piece = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
            let read = (&mut reader).take(count).read_to_end(&mut piece).map(|_| piece);
            (reader, read)
        })
        .await;
        self.reader = Some(reader);
        let piece = piece?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= piece.len() as u64;
        Ok(piece.into())
    }
}

impl Engine {
    /// The size of a blob that is here, in bytes.
    #[must_use]
    pub fn find_blob(&self, digest: &Digest) -> Option<u64> {
        self.inner.store.content_size(digest)
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// `Blob` when it is not here.
    pub async fn open_blob(&self, digest: Digest) -> Result<Blob> {
        let engine = Arc::clone(&self.inner);
        let reader = blocking(move || engine.store.content_reader(&digest)).await;
        let reader = reader.map_err(DistributionError::internal)?;
        let reader = reader.ok_or(DistributionError::Blob(digest))?;
        let size = reader.size();
        Ok(Blob { size, left: size, reader: Some(reader) })
    }

    /// Holds a blob that a client was told is here, until its manifest comes.
    pub fn hold_blob(&self, digest: &Digest) {
        self.inner.store.hold_content_for(digest, super::TOLD_TIME);
    }

    /// Deletes a blob that nothing needs.
    ///
    /// # Errors
    /// `Blob` when it is not here, `BlobInUse` when something needs it.
    pub async fn delete_blob(&self, digest: Digest) -> Result<()> {
        let engine = Arc::clone(&self.inner);
        blocking(move || {
            if engine.store.content_size(&digest).is_none() {
                return Err(DistributionError::Blob(digest));
            }
            if !engine.store.has_blob(&digest) || engine.store.is_content_needed(&digest) {
                return Err(DistributionError::BlobInUse(digest));
            }
            engine.store.remove_blob(&digest);
            Ok(())
        })
        .await
    }
}
