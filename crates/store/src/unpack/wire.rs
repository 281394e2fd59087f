//! What the two sides of an unpacking say to each other, on a socket of packets (unix(7),
//! SOCK_SEQPACKET).
//!
//! ```text
//! packet = 0 and the end of an event (JSON) | 1 and a piece of an event, more follows | 2 and data
//! ```
//! An event may come with one descriptor, on its last packet. Bytes that need not be text (names,
//! attributes) are strings with a character for each byte.
//!
//! Invariant: whoever receives holds at most [`EVENT_BYTES_MAX`] of what the other side says.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use spec::Digest;

use crate::archive::{ArchiveError, ExtractOptions};
use crate::draft::UnpackError;
use crate::limits::UnpackLimits;
use crate::tar::{Entry, Kind, TarError};

/// A socket buffer takes three of them.
pub(super) const PACKET_BYTES_MAX: usize = 60 << 10;
/// An entry with all its attributes, as JSON, is the longest event; a longer one ends the talk.
const EVENT_BYTES_MAX: usize = 16 << 20;

const LAST: u8 = 0;
const PIECE: u8 = 1;
const DATA: u8 = 2;

/// What is to be done with an archive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Make a layer's tree and recipe in the directory.
    Layer { limits: UnpackLimits },
    /// Unpack into the directory, which belongs to somebody.
    Extract(ExtractOptions),
    /// Write the plain archive to the file, and tell what is in it.
    List { limits: UnpackLimits, keep: Vec<Bytes> },
    /// Take images apart: layers go into the directory.
    Load { limits: UnpackLimits },
    /// Tell all entries with their content.
    Entries { limits: UnpackLimits },
}

impl Job {
    /// Whether all that comes has to be read for the job to be done well.
    pub(super) fn reads_all(&self) -> bool {
        match self {
            Job::Layer { .. } | Job::List { .. } => true,
            Job::Extract(_) | Job::Load { .. } | Job::Entries { .. } => false,
        }
    }

    /// Whether what comes has a digest that counts.
    pub(super) fn wants_digest(&self) -> bool {
        match self {
            Job::Layer { .. } => true,
            Job::Extract(_) | Job::List { .. } | Job::Load { .. } | Job::Entries { .. } => false,
        }
    }

    /// Whether overlayfs' own mark on directories may be set.
    pub(super) fn makes_layers(&self) -> bool {
        match self {
            Job::Layer { .. } | Job::Load { .. } => true,
            Job::Extract(_) | Job::List { .. } | Job::Entries { .. } => false,
        }
    }
}

/// What the unpacking side says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The first word: the process is there, and is confined.
    Begun,
    /// Asks for a device `name` in the directory that comes along.
    Device {
        name: Bytes,
        kind: Kind,
        mode: u32,
        rdev: (u32, u32),
    },
    /// Asks for an attribute of what comes along, or of `entry` in it.
    Attribute {
        entry: Option<Bytes>,
        name: Bytes,
        value: Bytes,
    },
    /// A directory of the next layer that its archive does not describe.
    Implied(Bytes),
    /// A payload of the next layer that is not at its own path.
    Kept(u64, Bytes),
    Layer(LayerFacts),
    /// Places of a listing.
    Listed(Vec<ListedPlace>),
    /// The archive is not plain; nothing more is listed.
    NotPlain,
    /// A file whose content follows as data.
    File {
        path: Bytes,
        size: u64,
    },
    Link {
        path: Bytes,
        target: Bytes,
    },
    /// Asks whether the blob of this name is here.
    Known {
        path: Bytes,
        size: u64,
    },
    /// Asks what the layer of this name may cost; it goes into the directory of its number, counted from
    /// zero. If it is compressed, it follows as data.
    LayerBegins {
        path: Bytes,
        size: u64,
        form: Form,
    },
    /// As a file, of what is neither document nor layer.
    Blob {
        path: Bytes,
        size: u64,
    },
    LayerFailed(UnpackError),
    Entry(Entry),
    Done,
    Failed(Failure),
    /// The process could not be confined, and has done nothing.
    Unconfined(String),
    /// By the server, the last word: how the process ended.
    Exited(Ending),
}

/// How a layer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Form {
    Plain,
    Compressed,
}

/// Why a job failed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    Unpack(UnpackError),
    Archive(ArchiveError),
    Tar(TarError),
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    Code(i32),
    Signal(i32),
    /// It was never made.
    NotStarted(String),
}

/// What is known of a layer beside what was said of it before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerFacts {
    /// Of the uncompressed tar; none when that is what came.
    pub(crate) plain: Option<Digest>,
    pub(crate) tar_size: u64,
    /// Of the regular files.
    pub(crate) size: u64,
    pub(crate) entries: u64,
}

/// A place in a listing. A hard link's target is known to come before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ListedPlace {
    pub(crate) path: Bytes,
    pub(crate) kind: PlaceKind,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum PlaceKind {
    Directory { mode: u32 },
    File { mode: u32, size: u64, digest: Digest },
    Symlink(Bytes),
    HardLink(Bytes),
}

/// Bytes as a string of as many characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn of(bytes: &[u8]) -> Bytes {
        Bytes(bytes.to_vec())
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        bytes::deserialize(deserializer).map(Bytes)
    }
}

/// For `#[serde(with)]` on byte strings.
pub(crate) mod bytes {
    use serde::{Deserialize as _, Serialize as _};

    pub(crate) fn serialize<S: serde::Serializer>(
        bytes: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text: String = bytes.iter().copied().map(char::from).collect();
        text.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let byte = |letter| u8::try_from(u32::from(letter));
        text.chars().map(byte).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
    }
}

/// For `#[serde(with)]` on lists of attributes.
pub(crate) mod attributes {
    use serde::{Deserialize as _, Serialize as _};

    use super::Bytes;

    type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

    pub(crate) fn serialize<S: serde::Serializer>(
        pairs: &Attributes,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let pairs: Vec<(Bytes, Bytes)> =
            pairs.iter().map(|(name, value)| (Bytes::of(name), Bytes::of(value))).collect();
        pairs.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Attributes, D::Error> {
        let pairs = Vec::<(Bytes, Bytes)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|(name, value)| (name.0, value.0)).collect())
    }
}

/// For `#[serde(with)]` on paths, which need not be text.
pub(crate) mod path {
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::{Path, PathBuf};

    pub(crate) fn serialize<S: serde::Serializer>(
        path: &Path,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::bytes::serialize(path.as_os_str().as_bytes(), serializer)
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PathBuf, D::Error> {
        super::bytes::deserialize(deserializer).map(|bytes| crate::tree::to_path(&bytes))
    }
}

/// For `#[serde(with)]` on causes: the kernel's by their number, others by their words.
pub(crate) mod cause {
    use std::error::Error as _;
    use std::io;

    use serde::{Deserialize as _, Serialize as _};

    pub(crate) fn serialize<S: serde::Serializer>(
        error: &io::Error,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        let is_early_end = error.kind() == io::ErrorKind::UnexpectedEof;
        (error.raw_os_error(), is_early_end, text).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<io::Error, D::Error> {
        let told = <(Option<i32>, bool, String)>::deserialize(deserializer)?;
        Ok(match told {
            (Some(number), _, _) => io::Error::from_raw_os_error(number),
            (None, true, text) => io::Error::new(io::ErrorKind::UnexpectedEof, text),
            (None, false, text) => io::Error::other(text),
        })
    }
}

/// The unpacking side's end.
pub(crate) struct Channel {
    socket: OwnedFd,
    /// Events of several packets are not mixed with others.
    sending: Mutex<()>,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Channel {
        Channel { socket, sending: Mutex::new(()) }
    }

    /// # Errors
    /// When the other side is gone.
    pub(crate) fn send(&self, event: &Event) -> io::Result<()> {
        self.send_with(event, None)
    }

    fn send_with(&self, event: &Event, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        send_event(self.socket.as_fd(), event, fd)
    }

    /// # Errors
    /// As [`Channel::send`].
    pub(crate) fn send_data(&self, data: &[u8]) -> io::Result<()> {
        for piece in data.chunks(PACKET_BYTES_MAX) {
            let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
            send_packet(self.socket.as_fd(), DATA, piece, None)?;
        }
        Ok(())
    }

    /// Sends what is answered; one thread at a time.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub(crate) fn ask<A: DeserializeOwned>(
        &self,
        event: &Event,
        fd: Option<BorrowedFd<'_>>,
    ) -> io::Result<A> {
        self.send_with(event, fd)?;
        let mut receiver = Receiver::default();
        match receiver.receive(self.socket.as_fd())? {
            Packet::Event => receiver.event(),
            Packet::Data(_) | Packet::End => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Asks for what the kernel refuses this side.
    ///
    /// # Errors
    /// The kernel's, as the other side met it.
    pub(crate) fn ask_privileged(&self, event: &Event, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self.ask::<Option<i32>>(event, Some(fd))? {
            None => Ok(()),
            Some(number) => Err(io::Error::from_raw_os_error(number)),
        }
    }
}

pub(super) fn send_event(
    socket: BorrowedFd<'_>,
    event: &impl Serialize,
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let text = serde_json::to_vec(event).map_err(io::Error::other)?;
    let mut pieces = text.chunks(PACKET_BYTES_MAX).peekable();
    while let Some(piece) = pieces.next() {
        match pieces.peek() {
            Some(_) => send_packet(socket, PIECE, piece, None)?,
            None => send_packet(socket, LAST, piece, fd)?,
        }
    }
    Ok(())
}

fn send_packet(
    socket: BorrowedFd<'_>,
    kind: u8,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut packet = Vec::with_capacity(bytes.len() + 1);
    packet.push(kind);
    packet.extend_from_slice(bytes);
    loop {
        match sys::socket::send_with_fds(socket, &packet, fd.as_slice()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// What [`Receiver::receive`] found.
pub(super) enum Packet {
    /// A whole event, to be had by [`Receiver::event`].
    Event,
    /// So many bytes of [`Receiver::data`].
    Data(usize),
    End,
}

/// Puts packets together.
pub(super) struct Receiver {
    packet: Vec<u8>,
    event: Vec<u8>,
    /// That came along.
    pub(super) fds: Vec<OwnedFd>,
}

impl Default for Receiver {
    fn default() -> Receiver {
        Receiver { packet: vec![0; PACKET_BYTES_MAX + 1], event: Vec::new(), fds: Vec::new() }
    }
}

impl Receiver {
    /// Waits for the next event or data.
    ///
    /// # Errors
    /// When the other side speaks another language.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<Packet> {
        let garbled = || io::Error::from(io::ErrorKind::InvalidData);
        self.event.clear();
        self.fds.clear();
        loop {
            let got = match sys::socket::recv_with_fds(socket, &mut self.packet, &mut self.fds) {
                Ok(0) => return Ok(Packet::End),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Whoever was killed with packets unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(Packet::End);
                }
                Err(error) => return Err(error),
            };
            match self.packet[0] {
                DATA if self.event.is_empty() => return Ok(Packet::Data(got - 1)),
                LAST | PIECE => self.event.extend_from_slice(&self.packet[1..got]),
                _ => return Err(garbled()),
            }
            if self.packet[0] == LAST {
                return Ok(Packet::Event);
            }
            if self.event.len() > EVENT_BYTES_MAX {
                return Err(garbled());
            }
        }
    }

    pub(super) fn event<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.event).map_err(io::Error::other)
    }

    pub(super) fn data(&self, length: usize) -> &[u8] {
        &self.packet[1..=length]
    }
}

/// A connected pair of packet sockets, closed by exec.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::TreeError;

    fn through(event: &Event) -> Event {
        let (left, right) = pair().unwrap();
        let channel = Channel::new(left);
        std::thread::scope(|scope| {
            scope.spawn(|| channel.send(event).unwrap());
            let mut receiver = Receiver::default();
            assert!(matches!(receiver.receive(right.as_fd()).unwrap(), Packet::Event));
            receiver.event().unwrap()
        })
    }

    #[test]
    fn what_is_no_text_and_what_is_long_arrives_as_it_was() {
        let long: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let Event::Kept(7, Bytes(got)) = through(&Event::Kept(7, Bytes::of(&long))) else {
            panic!("another event")
        };
        assert!(got == long);
    }

    #[test]
    fn an_error_arrives_with_its_words_and_its_number() {
        let source = io::Error::from_raw_os_error(libc_enospc());
        let path = crate::tree::to_path(b"a\xff");
        let error = UnpackError::Tree(TreeError::Create { path, source });
        let text = |error: &UnpackError| {
            use std::error::Error as _;
            format!("{error}: {}", error.source().unwrap())
        };
        let want = text(&error);
        let Event::Failed(Failure::Unpack(got)) = through(&Event::Failed(Failure::Unpack(error)))
        else {
            panic!("another event")
        };
        assert_eq!(text(&got), want);
    }

    fn libc_enospc() -> i32 {
        rustix::io::Errno::NOSPC.raw_os_error()
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let (left, right) = pair().unwrap();
        send_packet(left.as_fd(), 9, b"x", None).unwrap();
        assert!(Receiver::default().receive(right.as_fd()).is_err());
    }
}
