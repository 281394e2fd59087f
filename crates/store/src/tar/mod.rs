//! The tar format: what stands in a header, for readers and writers.
//!
//! ```text
//! offset  0 name 100 | 100 mode 8 | 108 uid 8 | 116 gid 8 | 124 size 12 | 136 mtime 12 | 148 sum 8
//!       156 type 1   | 157 link 100 | 257 magic 6+2 | 265 uname 32 | 297 gname 32
//!       329 major 8  | 337 minor 8  | 345 prefix 155 (GNU: 386 sparse, 482 more, 483 real size)
//! ```
//! Names and numbers that do not fit come before the entry, in a PAX extended header (type `x`) or
//! a GNU long name (types `L`, `K`).
//!
//! Source: POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual,
//! "Storing Sparse Files"; star(5) for `SCHILY.xattr`.

pub(crate) mod read;
pub(crate) mod write;

use std::borrow::Cow;
use std::io;

use serde::{Deserialize, Serialize};

pub(crate) const BLOCK: usize = 512;

/// What a tar entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Dir,
    Fifo,
}

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

impl Time {
    pub fn now() -> Time {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Time { secs: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) }
    }

    pub(crate) fn of_modification(stat: &rustix::fs::Stat) -> Time {
        Time { secs: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
    }

    pub(crate) fn timestamps(self) -> rustix::fs::Timestamps {
        let at = rustix::fs::Timespec { tv_sec: self.secs, tv_nsec: i64::from(self.nanos) };
        rustix::fs::Timestamps { last_access: at, last_modification: at }
    }
}

/// One entry, all extension headers applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// As written, not yet cleaned.
    #[serde(with = "crate::unpack::wire::bytes")]
    pub path: Vec<u8>,
    pub kind: Kind,
    #[serde(with = "crate::unpack::wire::bytes")]
    pub link: Vec<u8>,
    /// Permission bits and set-id bits: 0o7777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub rdev: (u32, u32),
    #[serde(with = "crate::unpack::wire::attributes")]
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of payload in the archive.
    pub size: u64,
    /// Length of the file; more than `size` for a sparse one.
    pub real_size: u64,
    /// Where the payload's parts lie in the file: offset and length. One part unless sparse.
    pub parts: Vec<(u64, u64)>,
}

/// Why a stream is no tar archive that can be unpacked.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum TarError {
    #[error("archive/tar: invalid tar header")]
    Header,
    #[error("archive/tar: header field {0} is invalid")]
    Field(Cow<'static, str>),
    #[error("archive/tar: sparse map of {0:?} is invalid")]
    Sparse(String),
    #[error("archive/tar: extension header of {0} bytes is too long")]
    ExtensionTooLong(u64),
    #[error("archive/tar: unhandled entry type {0:?}")]
    Type(char),
    #[error("archive has more than {0} entries")]
    TooManyEntries(u64),
    #[error("archive takes more work than its size justifies")]
    TooMuchWork,
    #[error("unexpected EOF")]
    Truncated,
    #[error("cannot read the archive")]
    Read(
        #[source]
        #[serde(with = "crate::unpack::wire::cause")]
        io::Error,
    ),
    #[error(transparent)]
    #[serde(skip)]
    Unpacker(#[from] crate::unpack::UnpackerError),
}

impl TarError {
    pub(crate) fn field(name: &'static str) -> TarError {
        TarError::Field(Cow::Borrowed(name))
    }
}

pub(crate) fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}
