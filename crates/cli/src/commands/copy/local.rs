//! The local half of `cp`: a tree to a tar, and a tar to a tree.

use std::{
    fs, io,
    io::{Read, Write},
    path::{Component, Path, PathBuf},
    sync::mpsc::Receiver,
};

use api::client::BodySender;
use bytes::Bytes;

use crate::{create::files::reason, failure::Failure};

/// A body's pieces as a reader for a thread.
pub struct Pieces {
    receiver: Receiver<Bytes>,
    piece: Bytes,
}

impl Pieces {
    pub fn new(receiver: Receiver<Bytes>) -> Pieces {
        Pieces { receiver, piece: Bytes::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.recv() {
                Ok(piece) => self.piece = piece,
                Err(_) => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// A writer that hands what it gets to a request's body.
pub struct Sink {
    sender: BodySender,
    buffer: Vec<u8>,
    bytes: u64,
}

/// Small writes, such as tar headers, are gathered to this size.
const PIECE_BYTES: usize = 64 << 10;

impl Sink {
    pub fn new(sender: BodySender) -> Sink {
        Sink { sender, buffer: Vec::with_capacity(PIECE_BYTES), bytes: 0 }
    }

    /// Sends the rest; the count of all bytes.
    pub fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        Ok(self.bytes)
    }

    /// Breaks the request off.
    pub fn fail(self, error: io::Error) {
        // When the connection is gone already, there is nothing left to break.
        let _ = self.sender.blocking_fail(error);
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE_BYTES));
        if self.sender.blocking_send(piece) {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        }
    }
}

/// Sends `source` as a tar in which it is called `name`. The count of bytes sent.
///
/// # Errors
/// When something of it cannot be read. A connection that breaks is no error here: the
/// request has its own.
pub fn pack(
    source: &Path,
    name: &str,
    follow: bool,
    owners: bool,
    sender: BodySender,
) -> Result<u64, Failure> {
    let mut builder = tar::Builder::new(Sink::new(sender));
    builder.follow_symlinks(false);
    let result = add(&mut builder, source, Path::new(name), follow, owners);
    let result = result.and_then(|()| builder.finish());
    let sink = builder.into_inner();
    match (result, sink) {
        (Ok(()), Ok(sink)) => Ok(sink.finish().unwrap_or_default()),
        (Err(error), Ok(sink)) if error.kind() != io::ErrorKind::BrokenPipe => {
            let words = format!("{}: {}", source.display(), reason(&error));
            sink.fail(error);
            Err(Failure::new(words))
        }
        (Ok(()) | Err(_), _) => Ok(0),
    }
}

/// The mode without the kind of file, which a tar says elsewhere.
pub fn permissions(metadata: &fs::Metadata) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    metadata.mode() & 0o7777
}

fn add(
    builder: &mut tar::Builder<Sink>,
    path: &Path,
    name: &Path,
    follow: bool,
    owners: bool,
) -> io::Result<()> {
    let metadata = if follow { fs::metadata(path)? } else { fs::symlink_metadata(path)? };
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    header.set_mode(permissions(&metadata));
    if !owners {
        // Docker's client gives no owners either; the daemon makes them the container's root.
        header.set_uid(0);
        header.set_gid(0);
    }
    if metadata.is_dir() {
        builder.append_data(&mut header, name, io::empty())?;
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            add(builder, &entry.path(), &name.join(entry.file_name()), false, owners)?;
        }
        Ok(())
    } else if metadata.is_symlink() {
        header.set_size(0);
        builder.append_link(&mut header, name, fs::read_link(path)?)
    } else if metadata.is_file() {
        let file = fs::File::open(path)?;
        builder.append_data(&mut header, name, file.take(metadata.len()))
    } else {
        header.set_size(0);
        builder.append_data(&mut header, name, io::empty())
    }
}

/// Unpacks into `into`; `renamed` is what the archive's root is called there, `.` being `into`
/// itself. The root is what the first entry names: a directory's content comes as `./`, all else
/// under its own name.
///
/// # Errors
/// When an entry is no path below `into`, or cannot be written.
pub fn unpack(
    reader: impl Read,
    into: &Path,
    renamed: Option<&str>,
    owners: bool,
) -> Result<(), Failure> {
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(owners);
    archive.set_overwrite(true);
    let wrong = |error: io::Error| Failure::new(format!("{}: {}", into.display(), reason(&error)));
    let mut root = None;
    for entry in archive.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        let path = entry.path().map_err(wrong)?.into_owned();
        let root = *root.get_or_insert_with(|| root_of(&path));
        let Some(target) = inside(&path, root, renamed) else {
            return Err(Failure::new(format!("archive entry {path:?} is outside its root")));
        };
        if target.as_os_str().is_empty() {
            continue;
        }
        let full = into.join(&target);
        if entry.header().entry_type().is_hard_link()
            && let Some(link) = entry.link_name().map_err(wrong)?
        {
            let Some(link) = inside(&link, root, renamed) else {
                return Err(Failure::new(format!("archive link {link:?} is outside its root")));
            };
            check_parents(into, &link)?;
            check_parents(into, &target)?;
            // An older copy gives way.
            let _ = fs::remove_file(&full);
            fs::hard_link(into.join(&link), &full).map_err(wrong)?;
            continue;
        }
        check_parents(into, &target)?;
        if full.is_dir() != entry.header().entry_type().is_dir()
            && full.symlink_metadata().is_ok()
            && full.is_dir()
        {
            return Err(Failure::new(format!(
                "cannot overwrite directory {full:?} with non-directory"
            )));
        }
        entry.unpack(&full).map_err(wrong)?;
    }
    Ok(())
}

/// How an archive names its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    /// `./`.
    Unnamed,
    /// The first component of every path.
    Named,
}

fn root_of(first: &Path) -> Root {
    let named = first.components().any(|part| matches!(part, Component::Normal(_)));
    if named { Root::Named } else { Root::Unnamed }
}

/// The path below the destination; `None` when it would leave it.
fn inside(path: &Path, root: Root, renamed: Option<&str>) -> Option<PathBuf> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_owned()),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    if let Some(name) = renamed {
        match root {
            Root::Named if parts.is_empty() => {}
            Root::Named => parts[0] = name.into(),
            Root::Unnamed => parts.insert(0, name.into()),
        }
    }
    let path: PathBuf = parts.iter().collect();
    Some(path.strip_prefix(".").map(Path::to_path_buf).unwrap_or(path))
}

/// Refuses to go through a link that the archive (or anybody) put below the destination.
fn check_parents(into: &Path, target: &Path) -> Result<(), Failure> {
    let mut path = into.to_owned();
    let Some(parent) = target.parent() else { return Ok(()) };
    for part in parent.components() {
        path.push(part);
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(Failure::new(format!("{path:?} is a link; not unpacking through it")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_below_the_destination() {
        let check = |path: &str, renamed: Option<&str>| {
            inside(Path::new(path), Root::Named, renamed)
                .map(|path| path.to_string_lossy().into_owned())
        };
        assert_eq!(check("a/b", None), Some("a/b".to_owned()));
        assert_eq!(check("a/b", Some("c")), Some("c/b".to_owned()));
        assert_eq!(check("a/b", Some(".")), Some("b".to_owned()));
        assert_eq!(check("/a", None), Some("a".to_owned()));
        assert_eq!(check("../a", None), None);
        assert_eq!(check("a/../../b", None), None);
        let content = inside(Path::new("./a/b"), root_of(Path::new("./")), Some("c"));
        assert_eq!(content, Some(PathBuf::from("c/a/b")));
    }
}
