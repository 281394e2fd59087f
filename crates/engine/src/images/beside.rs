//! Compresses an imported archive while it is unpacked, so that its push only sends.
//!
//! ```text
//! archive ─┬─▶ unpacking ─▶ layer
//!          └─▶ pieces, bounded ─▶ compression on all processors ─▶ blob, kept as the layer's
//! ```
//! An import reads every byte anyway, and in the order of the layer's tar: a plain archive is that tar.
//! One that comes compressed goes the usual way (see [`super::ahead`]), as does all that fails here.

use std::io::{self, Cursor, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use store::blocks::{self, Format};
use store::compress::{Compression, SNIFF_BYTES};
use store::{ContentLease, Ingest, Layer, Store};
use tracing::debug;

use super::content::made;
use crate::error::chain;

/// Unpacking waits when so many are not compressed yet.
const PIECES_MAX: usize = 16;

/// What was compressed, and from how many bytes.
struct Compressed {
    ingest: Ingest,
    plain_bytes: u64,
}

/// Unpacks `archive` and compresses it meanwhile. The blob is held by `lease`.
pub(super) fn unpack<E>(
    store: &Store,
    lease: &ContentLease,
    mut archive: impl Read + Send,
    unpack: impl FnOnce(&mut (dyn Read + Send)) -> Result<Layer, E>,
) -> Result<Layer, E> {
    let mut start = Vec::new();
    let sniffed = (&mut archive).take(SNIFF_BYTES as u64).read_to_end(&mut start);
    let compression = Compression::sniff(&start);
    let mut archive = Cursor::new(start).chain(archive);
    // Whoever unpacks comes upon the error again.
    if sniffed.is_err() || compression != Compression::None {
        return unpack(&mut archive);
    }
    std::thread::scope(|scope| {
        let (sender, pieces) = sync_channel(PIECES_MAX);
        let compressing = scope.spawn(move || compress(store, pieces));
        let mut tee = Tee { inner: archive, pieces: Some(sender) };
        let layer = unpack(&mut tee);
        drop(tee);
        let compressed = compressing.join().expect("compressing does not panic");
        let layer = layer?;
        let kept = compressed.and_then(|compressed| keep(store, lease, &layer, compressed));
        if let Err(error) = kept {
            debug!(layer = %layer.key, error = chain(error.as_ref()), "a layer is not compressed on its way in");
        }
        Ok(layer)
    })
}

type Kept<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn compress(store: &Store, pieces: Receiver<Vec<u8>>) -> Kept<Compressed> {
    let mut ingest = store.ingest()?;
    let mut input = Pieces { pieces, piece: Cursor::default(), read: 0 };
    blocks::compress(Format::Gzip, &mut input, &mut ingest)?;
    Ok(Compressed { ingest, plain_bytes: input.read })
}

fn keep(store: &Store, lease: &ContentLease, layer: &Layer, compressed: Compressed) -> Kept<()> {
    let Compressed { ingest, plain_bytes } = compressed;
    if plain_bytes != layer.tar_size {
        return Err(format!("{plain_bytes} bytes are not its {}", layer.tar_size).into());
    }
    let size = ingest.size();
    let digest = ingest.finish(None, lease)?;
    Ok(made(store, &layer.key, digest, size)?)
}

/// Gives a copy of what is read to the compression, as long as that listens.
struct Tee<R> {
    inner: R,
    pieces: Option<SyncSender<Vec<u8>>>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(out)?;
        if let Some(pieces) = &self.pieces
            && got > 0
            && pieces.send(out[..got].to_vec()).is_err()
        {
            self.pieces = None;
        }
        Ok(got)
    }
}

struct Pieces {
    pieces: Receiver<Vec<u8>>,
    piece: Cursor<Vec<u8>>,
    read: u64,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let got = self.piece.read(out)?;
            self.read += got as u64;
            if got > 0 || out.is_empty() {
                return Ok(got);
            }
            match self.pieces.recv() {
                Ok(piece) => self.piece = Cursor::new(piece),
                Err(_) => return Ok(0),
            }
        }
    }
}
