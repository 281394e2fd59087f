//! Container logs: [`LogWriter`] in the monitor, [`LogReader`] in the daemon, two formats.
//!
//! ```text
//! json-file   {"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.123456789Z"}\n
//! local       size (u32 big-endian) protobuf size
//! ```
//!
//! Both are Docker's own formats, so what reads its files reads ours. `NAME` is the current file,
//! `NAME.1` the one before it, and so on; rotated ones may be gzipped to `NAME.1.gz`. An output
//! line longer than [`LINE_BYTES_MAX`] becomes several entries, all but the last without newline.
//!
//! Always true: an entry is written whole or not at all; rotation replaces files and never
//! truncates them, so that a reader can finish the file that it holds. A torn entry (power cut) is
//! skipped by readers and closed off by the next writer.
//!
//! Source: moby `daemon/logger/jsonfilelog`, `daemon/logger/local`, `daemon/logger/copier.go`.

use std::collections::BTreeMap;

use jiff::Timestamp;

mod json;
mod local;
mod reader;
mod segments;
mod writer;

pub use reader::{LogReader, ReadError, ReadOptions, Stopper};
pub use writer::{LogWriter, OpenError};

/// Longest piece of an output line in one entry.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// Where a byte of output came from. A terminal's output counts as stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// The name in Docker's formats.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    /// The stream of that name.
    pub fn find(name: &str) -> Option<Stream> {
        match name {
            "stdout" => Some(Stream::Stdout),
            "stderr" => Some(Stream::Stderr),
            _ => None,
        }
    }

    fn index(self) -> usize {
        match self {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        }
    }
}

/// One piece of output: a line, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub stream: Stream,
    pub time: Timestamp,
    /// Ends with a newline if the line does; a part of a longer line has none.
    pub bytes: Vec<u8>,
    /// Whether this is the first part of its line: the place for a timestamp.
    pub starts_line: bool,
    pub attrs: BTreeMap<String, String>,
}
