//! Recipes: how a layer gives its tar back bit for bit, without a second copy of its data.
//!
//! A recipe is the layer's tar with the files' contents taken out: a zstd stream of operations.
//! ```text
//! 0 LENGTH bytes…            these bytes, as they are (headers, padding, the end)
//! 1 LENGTH path… OFFSET SIZE the part [OFFSET, OFFSET+SIZE) of this file of the layer's tree
//! 2                          the end
//! ```
//! Numbers are LEB128. A payload's path is the one it had when it was written. An entry that a later
//! one of the same tar replaced is kept aside and named in [`Kept`], by its ordinal.
//!
//! Invariant: the operations' bytes, in order, are the tar whose digest names the layer.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Payloads that are not at their own path: ordinal in the recipe, path below the layer's directory.
pub(crate) type Kept = HashMap<u64, Vec<u8>>;

const RAW: u8 = 0;
const PAYLOAD: u8 = 1;
const END: u8 = 2;

/// Writes a recipe.
pub(crate) struct RecipeWriter {
    output: zstd::stream::write::Encoder<'static, BufWriter<File>>,
    raw: Vec<u8>,
    payloads: u64,
}

impl RecipeWriter {
    pub(crate) fn create(path: &Path) -> io::Result<RecipeWriter> {
        // Not left to the umask, which a confined process does not have.
        let file =
            File::options().write(true).create(true).truncate(true).mode(0o644).open(path)?;
        let output = zstd::stream::write::Encoder::new(BufWriter::new(file), 1)?;
        Ok(RecipeWriter { output, raw: Vec::with_capacity(64 * 1024), payloads: 0 })
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.raw.extend_from_slice(bytes);
        if self.raw.len() >= 32 * 1024 { self.flush_raw() } else { Ok(()) }
    }

    /// Refers to a part of the file at `path`; gives the reference's ordinal.
    pub(crate) fn payload(&mut self, path: &[u8], offset: u64, size: u64) -> io::Result<u64> {
        self.flush_raw()?;
        self.output.write_all(&[PAYLOAD])?;
        self.number(path.len() as u64)?;
        self.output.write_all(path)?;
        self.number(offset)?;
        self.number(size)?;
        self.payloads += 1;
        Ok(self.payloads - 1)
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush_raw()?;
        self.output.write_all(&[END])?;
        self.output.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(())
    }

    fn flush_raw(&mut self) -> io::Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        self.output.write_all(&[RAW])?;
        self.number(self.raw.len() as u64)?;
        self.output.write_all(&self.raw)?;
        self.raw.clear();
        Ok(())
    }

    fn number(&mut self, mut value: u64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(10);
        loop {
            let low = u8::try_from(value & 0x7f).unwrap_or(0);
            value >>= 7;
            bytes.push(if value == 0 { low } else { low | 0x80 });
            if value == 0 {
                return self.output.write_all(&bytes);
            }
        }
    }
}

/// A layer's tar, made from its recipe and tree while it is read.
pub struct LayerTar {
    recipe: zstd::stream::read::Decoder<'static, BufReader<File>>,
    layer: OwnedFd,
    kept: Kept,
    payloads: u64,
    now: Piece,
}

enum Piece {
    Raw(u64),
    File(File, u64),
    Done,
}

impl LayerTar {
    /// Opens the tar of the layer in directory `layer` (holding `diff`, `recipe`, and what was kept).
    pub(crate) fn open(layer: &Path, kept: Kept) -> io::Result<LayerTar> {
        let recipe = zstd::stream::read::Decoder::new(File::open(layer.join("recipe"))?)?;
        Ok(LayerTar {
            recipe,
            layer: sys::fs::open_dir(layer)?,
            kept,
            payloads: 0,
            now: Piece::Raw(0),
        })
    }

    fn next_piece(&mut self) -> io::Result<Piece> {
        let mut operation = [0u8];
        self.recipe.read_exact(&mut operation)?;
        match operation[0] {
            RAW => Ok(Piece::Raw(self.number()?)),
            PAYLOAD => {
                let length = usize::try_from(self.number()?).map_err(|_| corrupt())?;
                let mut path = vec![0u8; length.min(1 << 20)];
                self.recipe.read_exact(&mut path)?;
                let (offset, size) = (self.number()?, self.number()?);
                let ordinal = self.payloads;
                self.payloads += 1;
                let file = self.open_payload(ordinal, &path)?;
                if offset > 0 {
                    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(offset))?;
                }
                Ok(Piece::File(file, size))
            }
            END => Ok(Piece::Done),
            _ => Err(corrupt()),
        }
    }

    fn open_payload(&self, ordinal: u64, path: &[u8]) -> io::Result<File> {
        let path = match self.kept.get(&ordinal) {
            Some(kept) => kept.clone(),
            None => [b"diff/", path].concat(),
        };
        let path = Path::new(std::ffi::OsStr::from_bytes(&path));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
        Ok(sys::fs::open_beneath(self.layer.as_fd(), path, flags, Mode::empty())?.into())
    }

    fn number(&mut self) -> io::Result<u64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let mut byte = [0u8];
            self.recipe.read_exact(&mut byte)?;
            value |= u64::from(byte[0] & 0x7f).checked_shl(shift).ok_or_else(corrupt)?;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }
}

impl Read for LayerTar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let limit = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match &mut self.now {
                Piece::Done => return Ok(0),
                Piece::Raw(0) | Piece::File(_, 0) => {}
                Piece::Raw(left) => {
                    let limit = limit(*left);
                    let got = self.recipe.read(&mut buffer[..limit])?;
                    *left -= got as u64;
                    return if got > 0 { Ok(got) } else { Err(corrupt()) };
                }
                Piece::File(file, left) => {
                    let limit = limit(*left);
                    let got = file.read(&mut buffer[..limit])?;
                    *left -= got as u64;
                    return if got > 0 { Ok(got) } else { Err(corrupt()) };
                }
            }
            self.now = self.next_piece()?;
        }
    }
}

fn corrupt() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the layer's recipe does not fit its tree")
}
