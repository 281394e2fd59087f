//! Bytes between blocking code (archives, logs) and async callers.
//!
//! [`channel`] gives a [`Write`] end for a blocking thread and a [`ByteStream`] for the caller;
//! [`reader`] is the other way round. Both are bounded, so neither side runs ahead of the other.

use std::io::{self, Read, Write};

use bytes::Bytes;
use tokio::sync::mpsc;

const CHUNKS_MAX: usize = 8;
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Chunks in order; an error is the last item.
pub type ByteStream = mpsc::Receiver<io::Result<Bytes>>;

/// The blocking end of a [`ByteStream`]. Dropping it without [`StreamWriter::fail`] ends the stream
/// well.
#[derive(Debug)]
pub struct StreamWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

/// A pair for bytes from a blocking thread to an async reader.
#[must_use]
pub fn channel() -> (StreamWriter, ByteStream) {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    (StreamWriter { sender, buffer: Vec::new() }, receiver)
}

impl StreamWriter {
    /// Ends the stream with an error.
    pub fn fail(mut self, error: io::Error) {
        let _ = self.flush();
        let _ = self.sender.blocking_send(Err(error));
    }
}

impl Write for StreamWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(CHUNK_BYTES_MAX - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..take]);
        if self.buffer.len() == CHUNK_BYTES_MAX {
            self.flush()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.blocking_send(Ok(chunk)).map_err(gone)
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        // Whoever wants to know of a failure flushes first.
        let _ = self.flush();
    }
}

/// Reads a [`ByteStream`] from a blocking thread.
#[derive(Debug)]
pub struct StreamReader {
    stream: ByteStream,
    chunk: Bytes,
}

/// A [`Read`] over chunks that an async task sends.
#[must_use]
pub fn reader(stream: ByteStream) -> StreamReader {
    StreamReader { stream, chunk: Bytes::new() }
}

/// A sender of chunks and the blocking reader of them.
#[must_use]
pub fn upload() -> (mpsc::Sender<io::Result<Bytes>>, StreamReader) {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    (sender, reader(receiver))
}

impl Read for StreamReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.stream.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let take = out.len().min(self.chunk.len());
        out[..take].copy_from_slice(&self.chunk.split_to(take));
        Ok(take)
    }
}
