//! The files of one log, and reading entries out of one of them.
//!
//! Invariant: a [`Segment`] holds its file open, so that rotation cannot take it away.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, OFlags};

use super::local::Framed;
use super::{Entry, json, local};

/// Read at once, forwards and backwards.
const BLOCK_BYTES: usize = 64 << 10;

/// A log's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Local,
}

/// The name of the `number`th file before the current one.
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// As [`numbered`], compressed.
pub fn gzipped(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}.gz"));
    name.into()
}

/// One file of a log, and where in it reading goes on.
#[derive(Debug)]
pub struct Segment {
    file: File,
    inode: u64,
    compressed: bool,
    format: Format,
    /// Of the first byte that is not in `bytes` yet.
    offset: u64,
    bytes: Vec<u8>,
    /// How much of `bytes` was consumed.
    taken: usize,
}

impl Segment {
    fn open(path: &Path, compressed: bool, format: Format) -> io::Result<Option<Segment>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        let bytes = Vec::new();
        Ok(Some(Segment { file, inode, compressed, format, offset: 0, bytes, taken: 0 }))
    }

    /// What tells this file from the others of its log.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Makes a compressed file readable at any offset: unpacked into a nameless file beside it.
    fn unpack(&mut self, directory: &Path) -> io::Result<()> {
        if !self.compressed {
            return Ok(());
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mut plain = File::from(rustix::fs::open(directory, flags, Mode::from_raw_mode(0o600))?);
        let mut decoder = MultiGzDecoder::new(&self.file);
        io::copy(&mut decoder, &mut plain)?;
        self.file = plain;
        self.compressed = false;
        Ok(())
    }

    /// The next entry that is whole; `None` at the end, for now at least.
    pub fn next(&mut self, directory: &Path) -> io::Result<Option<Entry>> {
        self.unpack(directory)?;
        loop {
            match take_entry(self.format, &self.bytes, &mut self.taken) {
                Taken::Entry(entry) => return Ok(Some(*entry)),
                Taken::Damaged => {
                    // Nothing after it can be made out: as if the file ended here.
                    self.bytes.clear();
                    self.taken = 0;
                    return Ok(None);
                }
                Taken::Incomplete => {}
            }
            self.bytes.drain(..self.taken);
            self.taken = 0;
            let filled = self.bytes.len();
            self.bytes.resize(filled + BLOCK_BYTES, 0);
            let count = self.file.read_at(&mut self.bytes[filled..], self.offset);
            self.bytes.truncate(filled + *count.as_ref().unwrap_or(&0));
            match count {
                Ok(0) => return Ok(None),
                Ok(count) => self.offset += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Goes to the last `lines` lines of the file. Returns how many it found, if fewer.
    pub fn seek_tail(&mut self, lines: &mut TailCount, directory: &Path) -> io::Result<()> {
        self.unpack(directory)?;
        let mut end = self.file.metadata()?.len();
        // Bytes from `end` on that do not make a whole entry yet.
        let mut rest = Vec::new();
        while end > 0 {
            let start = end.saturating_sub(BLOCK_BYTES as u64);
            let mut block = vec![0; (end - start) as usize];
            self.file.read_exact_at(&mut block, start)?;
            block.append(&mut rest);
            let mut cut = block.len();
            for (at, entry) in entries_backwards(self.format, &block, start == 0) {
                if !lines.count(&entry) {
                    self.offset = start + cut as u64;
                    return Ok(());
                }
                cut = at;
            }
            block.truncate(cut);
            rest = block;
            end = start;
        }
        self.offset = 0;
        Ok(())
    }

    /// Goes to where the entries of `since` or later begin, in a file whose times ascend.
    /// May stop early; the caller still compares each entry.
    pub fn seek_time(&mut self, since: jiff::Timestamp, directory: &Path) -> io::Result<()> {
        if self.format == Format::Local {
            return Ok(());
        }
        self.unpack(directory)?;
        let (mut low, mut high) = (0, self.file.metadata()?.len());
        while high - low > 2 * BLOCK_BYTES as u64 {
            let middle = low + (high - low) / 2;
            let mut block = vec![0; BLOCK_BYTES];
            let count = self.file.read_at(&mut block, middle)?;
            block.truncate(count);
            let Some(newline) = block.iter().position(|&byte| byte == b'\n') else { break };
            let mut taken = newline + 1;
            let Taken::Entry(entry) = take_entry(self.format, &block, &mut taken) else { break };
            if entry.time < since {
                low = middle + newline as u64 + 1;
            } else {
                high = middle;
            }
        }
        self.offset = low;
        Ok(())
    }
}

enum Taken {
    Entry(Box<Entry>),
    Incomplete,
    Damaged,
}

/// Takes the first entry at or after `taken`. Lines that are no entries are passed over.
fn take_entry(format: Format, bytes: &[u8], taken: &mut usize) -> Taken {
    match format {
        Format::Json => {
            while let Some(length) = bytes[*taken..].iter().position(|&byte| byte == b'\n') {
                let line = &bytes[*taken..*taken + length];
                *taken += length + 1;
                if let Some(entry) = json::decode(line) {
                    return Taken::Entry(Box::new(entry));
                }
            }
            Taken::Incomplete
        }
        Format::Local => loop {
            match local::frame(&bytes[*taken..]) {
                Framed::Incomplete => return Taken::Incomplete,
                Framed::Damaged => return Taken::Damaged,
                Framed::Record(length) => {
                    let record = &bytes[*taken..*taken + length];
                    *taken += length;
                    if let Some(entry) = local::decode(record) {
                        return Taken::Entry(Box::new(entry));
                    }
                }
            }
        },
    }
}

/// The whole entries at the end of `block` with their offsets, last first. What precedes the first
/// of them is whole only if the block begins where an entry does (`from_start`).
fn entries_backwards(format: Format, block: &[u8], from_start: bool) -> Vec<(usize, Entry)> {
    let mut found = VecDeque::new();
    match format {
        Format::Json => {
            let mut at = if from_start {
                0
            } else {
                match block.iter().position(|&byte| byte == b'\n') {
                    Some(newline) => newline + 1,
                    None => block.len(),
                }
            };
            while let Some(length) = block[at..].iter().position(|&byte| byte == b'\n') {
                if let Some(entry) = json::decode(&block[at..at + length]) {
                    found.push_front((at, entry));
                }
                at += length + 1;
            }
            found.into()
        }
        Format::Local => {
            let mut end = block.len();
            while let Some(size) = end.checked_sub(4).and_then(|at| block[at..].first_chunk()) {
                let length = u32::from_be_bytes(*size) as usize + 8;
                let Some(at) = end.checked_sub(length) else { break };
                if let Some(entry) = local::decode(&block[at..end]) {
                    found.push_back((at, entry));
                }
                end = at;
            }
            found.into()
        }
    }
}

/// Counts lines from the last one backwards. The parts of a long line are one line.
#[derive(Debug)]
pub struct TailCount {
    left: u64,
    seen: [bool; 2],
}

impl TailCount {
    pub fn new(lines: u64) -> TailCount {
        TailCount { left: lines, seen: [false; 2] }
    }

    /// Counts the entry before those counted so far; false when it is one too many.
    fn count(&mut self, entry: &Entry) -> bool {
        let ends_line = entry.bytes.last() == Some(&b'\n') || !self.seen[entry.stream.index()];
        self.seen[entry.stream.index()] = true;
        if ends_line {
            if self.left == 0 {
                return false;
            }
            self.left -= 1;
        }
        true
    }

    /// Whether more lines are wanted.
    pub fn wants_more(&self) -> bool {
        self.left > 0
    }
}

/// How often the files are listed again because they rotated meanwhile. A log that rotates faster
/// than it can be listed is given as it was found last.
const LISTINGS_MAX: u32 = 100;

/// The files of the log at `path`, oldest first, each once.
pub fn open_all(path: &Path, format: Format) -> io::Result<VecDeque<Segment>> {
    let current = || std::fs::metadata(path).map(|data| data.ino()).ok();
    let mut before = current();
    for _ in 1..LISTINGS_MAX {
        let found = list(path, format)?;
        // Rotation moves a file to the next number, and there it may be compressed: the same entries
        // in another file. Whoever saw no rotation saw no file twice.
        let after = current();
        if after == before {
            return Ok(found);
        }
        before = after;
    }
    list(path, format)
}

fn list(path: &Path, format: Format) -> io::Result<VecDeque<Segment>> {
    // Newest first: what rotates meanwhile moves towards older numbers and is met again, where
    // its inode tells that it is known; the other way round it would be missed.
    let mut found: VecDeque<Segment> = VecDeque::new();
    found.extend(Segment::open(path, false, format)?);
    for number in 1.. {
        let segment = match Segment::open(&numbered(path, number), false, format)? {
            Some(segment) => segment,
            None => match Segment::open(&gzipped(path, number), true, format)? {
                Some(segment) => segment,
                None => break,
            },
        };
        if found.iter().all(|known| known.inode != segment.inode) {
            found.push_front(segment);
        }
    }
    Ok(found)
}
