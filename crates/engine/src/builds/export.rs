//! What a build hands to its client: the files of the result, or the image as an archive.
//!
//! The archive travels in the build's own answer, so that nothing has to be kept until it is fetched,
//! and nothing is left when the client is gone. The files are the layers' and nothing else: no mount
//! points and none of the files that a runtime puts over an image.

use std::io::{self, Write};
use std::os::fd::AsFd;

use build::export::Export;
use build::worker::{Failure, Origin};
use bytes::Bytes;
use spec::Reference;
use spec::image::ImageConfig;
use spec::units::fixed_size;

use super::Output;
use super::worker::{EngineWorker, cancelled, internal, keys};

const PIECE_BYTES: usize = 256 << 10;
/// How many bytes pass between two lines of progress.
const TOLD_EVERY: u64 = 8 << 20;

/// A writer into the answer's stream.
struct Pieces<'a> {
    worker: &'a EngineWorker,
    output: usize,
    buffer: Vec<u8>,
    sent: u64,
    told: u64,
    tell: &'a dyn Fn(u64),
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(PIECE_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..take]);
        if self.buffer.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.sent += self.buffer.len() as u64;
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let piece = Output::Piece { output: self.output, bytes };
        // A client that is gone ends the work; the cancel flag says why.
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.worker.sink.output.blocking_send(piece).map_err(gone)?;
        if self.sent - self.told >= TOLD_EVERY {
            self.told = self.sent;
            (self.tell)(self.sent);
        }
        Ok(())
    }
}

impl EngineWorker {
    pub(super) fn hand_over(
        &self,
        config: &ImageConfig,
        export: Export,
        output: usize,
        names: &[String],
        tell: &dyn Fn(String, bool),
    ) -> Result<(), Failure> {
        let line = |bytes: u64| format!("{}: {}", export.verb(), fixed_size(bytes));
        let advance = |bytes| tell(line(bytes), false);
        let (buffer, tell_bytes) = (Vec::with_capacity(PIECE_BYTES), &advance);
        let mut pieces =
            Pieces { worker: self, output, buffer, sent: 0, told: 0, tell: tell_bytes };
        let written = match export {
            // Kept by `commit`; there is nothing to send.
            Export::Image => Ok(()),
            Export::Files(_) => self.send_files(config, &mut pieces),
            Export::Archive(_) => self.send_image(config, names, &mut pieces),
        };
        let written = written.and_then(|()| pieces.flush().map_err(|error| internal(&error)));
        if written.is_err() && build::worker::Worker::is_cancelled(self) {
            return Err(cancelled());
        }
        written?;
        tell(line(pieces.sent), true);
        Ok(())
    }

    fn send_files(&self, config: &ImageConfig, out: &mut dyn Write) -> Result<(), Failure> {
        let root = self.root_of(&Origin::Layers(config.rootfs.diff_ids.clone()))?;
        store::archive::export(root.as_fd(), out).map_err(|error| internal(&error))
    }

    fn send_image(
        &self,
        config: &ImageConfig,
        names: &[String],
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let raw = serde_json::to_vec(config).map_err(|error| internal(&error))?;
        let names = names.iter().map(|name| Reference::parse(name));
        let names = names.collect::<Result<Vec<_>, _>>().map_err(|error| internal(&error))?;
        let layers = keys(&config.rootfs.diff_ids);
        let saved = self.store.image_save_made(&raw, &layers, &names);
        let mut saved = saved.map_err(|error| internal(&error))?;
        io::copy(&mut saved, out).map(drop).map_err(|error| internal(&error))
    }
}
