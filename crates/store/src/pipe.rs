//! Pipelines of threads: hashing and decompressing beside the work on the tree.
//!
//! Bytes travel in shared chunks through bounded channels, so a slow disk slows the network down
//! instead of filling memory. A thread whose peer went away ends quietly; the peer holds the error.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};
use spec::Digest;

use crate::limits::{Gauge, UnpackLimits};
use crate::tar::TarError;

pub(crate) const CHUNK_BYTES: usize = 256 * 1024;
const CHUNKS_IN_FLIGHT: usize = 8;

pub(crate) type Chunk = Arc<Vec<u8>>;

/// Chunks that are filled again once nobody reads them any more.
#[derive(Default)]
struct Pool {
    chunks: Vec<Chunk>,
}

impl Pool {
    /// A chunk of the next bytes of `source`, shorter than [`CHUNK_BYTES`] only at its end.
    fn fill(&mut self, source: &mut impl Read) -> io::Result<Chunk> {
        let mut chunk = match self.chunks.iter().position(|chunk| Arc::strong_count(chunk) == 1) {
            Some(free) => self.chunks.swap_remove(free),
            None => Chunk::default(),
        };
        // The pool's was the only reference, or this is a new one.
        let bytes = Arc::make_mut(&mut chunk);
        bytes.resize(CHUNK_BYTES, 0);
        let mut length = 0;
        while length < bytes.len() {
            match source.read(&mut bytes[length..]) {
                Ok(0) => break,
                Ok(got) => length += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(length);
        self.chunks.push(Arc::clone(&chunk));
        Ok(chunk)
    }
}

/// A SHA-256 that is computed on a thread of its own.
pub(crate) struct HashThread {
    chunks: SyncSender<Chunk>,
    pending: Vec<u8>,
    thread: JoinHandle<Digest>,
}

impl HashThread {
    pub(crate) fn start() -> HashThread {
        let (chunks, inbox) = sync_channel::<Chunk>(CHUNKS_IN_FLIGHT);
        let thread = std::thread::spawn(move || {
            let mut hasher = Sha256::new();
            for chunk in inbox {
                hasher.update(chunk.as_slice());
            }
            Digest::from_raw(hasher.finalize().into())
        });
        HashThread { chunks, pending: Vec::new(), thread }
    }

    /// Hashes `bytes`; small pieces are gathered.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            let chunk = Arc::new(std::mem::take(&mut self.pending));
            self.send(chunk);
        }
    }

    fn send(&self, chunk: Chunk) {
        self.chunks.send(chunk).expect("the hashing thread ends only after its sender");
    }

    pub(crate) fn finish(mut self) -> Digest {
        self.flush();
        drop(self.chunks);
        self.thread.join().expect("hashing does not panic")
    }
}

/// Reads the chunks that another thread sends.
pub(crate) struct ChunkReader {
    inbox: Receiver<io::Result<Chunk>>,
    chunk: Chunk,
    at: usize,
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.chunk.len() {
            match self.inbox.recv() {
                Ok(next) => (self.chunk, self.at) = (next?, 0),
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// What went through a [`Plain`] stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Of the plain bytes, if they were hashed.
    pub(crate) plain: Option<Digest>,
    pub(crate) plain_size: u64,
}

/// When the plain bytes are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HashPlain {
    Always,
    /// Plain ones are hashed by whoever sends them.
    IfCompressed,
}

/// Decompresses `source` on one thread and hashes the result on another, while `consume` reads it
/// here. Gives what is known when `consume` succeeded and read to the end.
pub(crate) fn plain<T, E: From<TarError>>(
    source: impl Read + Send,
    limits: &UnpackLimits,
    hashing: HashPlain,
    consume: impl FnOnce(ChunkReader) -> Result<T, E>,
) -> Result<(T, Passed), E> {
    let (outbox, inbox) = sync_channel(CHUNKS_IN_FLIGHT);
    std::thread::scope(|scope| {
        let producer = scope.spawn(move || produce(source, limits, hashing, &outbox));
        let reader = ChunkReader { inbox, chunk: Chunk::default(), at: 0 };
        // The reader dies with `consume`, so a producer that is still sending notices and ends.
        let consumed = consume(reader)?;
        let passed =
            producer.join().expect("decompression does not panic").map_err(TarError::Read)?;
        Ok((consumed, passed))
    })
}

fn produce(
    source: impl Read + Send,
    limits: &UnpackLimits,
    hashing: HashPlain,
    outbox: &SyncSender<io::Result<Chunk>>,
) -> io::Result<Passed> {
    send_chunks(source, limits, hashing, outbox).map_err(|error| {
        let copy = io::Error::new(error.kind(), error.to_string());
        let _ = outbox.send(Err(error));
        copy
    })
}

fn send_chunks(
    source: impl Read + Send,
    limits: &UnpackLimits,
    hashing: HashPlain,
    outbox: &SyncSender<io::Result<Chunk>>,
) -> io::Result<Passed> {
    use crate::compress::{Compression, SNIFF_BYTES};
    let gauge = Gauge::new(limits);
    let mut source = gauge.count(source);
    let mut start = Vec::new();
    Read::take(&mut source, SNIFF_BYTES as u64).read_to_end(&mut start)?;
    let compression = Compression::sniff(&start);
    let hashed = hashing == HashPlain::Always || compression != Compression::None;
    let hash = hashed.then(HashThread::start);
    let mut size = 0u64;
    {
        let input = io::BufReader::with_capacity(
            CHUNK_BYTES,
            Read::chain(io::Cursor::new(start), &mut source),
        );
        let (mut plain, mut pool) = (compression.reader(input)?, Pool::default());
        loop {
            let chunk = pool.fill(&mut plain)?;
            if chunk.is_empty() {
                break;
            }
            size += chunk.len() as u64;
            if let Some(hash) = &hash {
                hash.send(Arc::clone(&chunk));
            }
            if outbox.send(Ok(chunk)).is_err() {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the reader stopped"));
            }
            gauge.check(size)?;
        }
    }
    // Bytes after the last member belong to the blob and so to its digest.
    io::copy(&mut source, &mut io::sink())?;
    Ok(Passed { plain: hash.map(HashThread::finish), plain_size: size })
}
