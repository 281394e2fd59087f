//! The local half of `cp`: a tree to a tar, and a tar to a tree.

use std::{
    collections::{HashMap, hash_map::Entry as Slot},
    fs, io,
    io::{Read, Write},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Component, Path, PathBuf},
    sync::mpsc::Receiver,
};

use api::client::BodySender;
use bytes::Bytes;
use rustix::io::Errno;

use crate::{create::files::reason, failure::Failure, guarded::Guarded};

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

/// The one attribute that Docker's archives carry.
const CAPABILITY: &str = "security.capability";
/// What stands before an attribute's name in a PAX header: star(5).
const XATTR_PREFIX: &str = "SCHILY.xattr.";

/// Sends `source` as a tar in which it is called `name`. The count of bytes sent.
///
/// # Errors
/// When something of it cannot be read. A connection that breaks is no error here: the
/// request has its own.
pub fn pack(source: &Path, name: &str, links: Links, sender: BodySender) -> Result<u64, Failure> {
    let mut packing =
        Packing { builder: tar::Builder::new(Sink::new(sender)), known: HashMap::new() };
    packing.builder.follow_symlinks(false);
    let result = packing.add(source, Path::new(name), links);
    let result = result.and_then(|()| packing.builder.finish());
    let sink = packing.builder.into_inner();
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

/// A path from the root on; a slash or `/.` at its end stays.
///
/// Source: moby `pkg/archive/copy.go`, `PreserveTrailingDotOrSeparator`.
pub fn absolute(path: &str) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let clean = crate::create::mounts::clean(&whole).to_string_lossy().into_owned();
    if path == "." || path.ends_with("/.") {
        format!("{}/.", clean.trim_end_matches('/'))
    } else if path.ends_with('/') && !clean.ends_with('/') {
        format!("{clean}/")
    } else {
        clean
    }
}

/// Looks at what is to be copied as Docker's client does, for the words that it has for what is not
/// there.
///
/// # Errors
/// Those words.
///
/// Source: moby `pkg/archive/copy.go`, `ResolveHostSourcePath`; Go `path/filepath/symlink.go`.
pub fn check_source(path: &str, links: Links) -> Result<(), String> {
    let path = absolute(path);
    let resolved = match links {
        Links::Follow => follow(&path)?,
        Links::Keep => {
            let at = path.rfind('/').map_or(0, |at| at + 1);
            format!("{}/{}", follow(&path[..at])?, &path[at..])
        }
    };
    match fs::symlink_metadata(&resolved) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("lstat {resolved}: {}", reason(&error))),
    }
}

/// As many links as Go follows.
const LINKS_MAX: usize = 255;

/// What an absolute path leads to.
fn follow(path: &str) -> Result<String, String> {
    let (mut rest, mut at, mut links) = (path.to_owned(), PathBuf::from("/"), 0);
    loop {
        let trimmed = rest.trim_start_matches('/');
        if trimmed.is_empty() {
            return Ok(at.to_string_lossy().into_owned());
        }
        let end = trimmed.find('/').unwrap_or(trimmed.len());
        let (name, after) = (trimmed[..end].to_owned(), trimmed[end..].to_owned());
        match name.as_str() {
            "." => {}
            ".." => drop(at.pop()),
            name => {
                at.push(name);
                let found = fs::symlink_metadata(&at)
                    .map_err(|error| format!("lstat {}: {}", at.display(), reason(&error)))?;
                if found.is_symlink() {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err("EvalSymlinks: too many links".to_owned());
                    }
                    let target = fs::read_link(&at).map_err(|error| {
                        format!("readlink {}: {}", at.display(), reason(&error))
                    })?;
                    at.pop();
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    rest = format!("{}{after}", target.to_string_lossy());
                    continue;
                }
                if !found.is_dir() && !after.is_empty() {
                    return Err("not a directory".to_owned());
                }
            }
        }
        rest = after;
    }
}

/// What a symbolic link at the top of a copy means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    Follow,
    Keep,
}

/// The mode without the kind of file, which a tar says elsewhere.
pub fn permissions(metadata: &fs::Metadata) -> u32 {
    metadata.mode() & 0o7777
}

struct Packing {
    builder: tar::Builder<Sink>,
    /// What files with several names are called in the archive, by device and inode.
    known: HashMap<(u64, u64), PathBuf>,
}

impl Packing {
    fn add(&mut self, path: &Path, name: &Path, links: Links) -> io::Result<()> {
        let metadata = match links {
            Links::Follow => fs::metadata(path)?,
            Links::Keep => fs::symlink_metadata(path)?,
        };
        // Sockets have no place in an archive.
        if metadata.file_type().is_socket() {
            return Ok(());
        }
        // Owners as they are: the daemon decides what becomes of them.
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&metadata);
        header.set_mode(permissions(&metadata));
        if !metadata.is_dir() && metadata.nlink() > 1 {
            match self.known.entry((metadata.dev(), metadata.ino())) {
                Slot::Vacant(first) => drop(first.insert(name.to_owned())),
                Slot::Occupied(first) => {
                    header.set_entry_type(tar::EntryType::Link);
                    header.set_size(0);
                    return self.builder.append_link(&mut header, name, first.get());
                }
            }
        }
        if metadata.is_dir() {
            self.builder.append_data(&mut header, name, io::empty())?;
            let mut entries: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                match self.add(&entry.path(), &name.join(entry.file_name()), Links::Keep) {
                    // Gone since it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
            Ok(())
        } else if metadata.is_symlink() {
            header.set_size(0);
            self.builder.append_link(&mut header, name, fs::read_link(path)?)
        } else if metadata.is_file() {
            let file = fs::File::open(path)?;
            let mut value = [0_u8; 64];
            if let Ok(length) = rustix::fs::fgetxattr(&file, CAPABILITY, &mut value[..]) {
                let key = format!("{XATTR_PREFIX}{CAPABILITY}");
                self.builder.append_pax_extensions([(key.as_str(), &value[..length])])?;
            }
            // Of a file that shrinks meanwhile the rest is zeros, as its length is told already.
            let content = file.chain(io::repeat(0)).take(metadata.len());
            self.builder.append_data(&mut header, name, content)
        } else {
            header.set_size(0);
            self.builder.append_data(&mut header, name, io::empty())
        }
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
    let mut archive = tar::Archive::new(Guarded::new(reader));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(owners);
    archive.set_overwrite(true);
    let wrong = |error: io::Error| Failure::new(format!("{}: {}", into.display(), cause(&error)));
    let (mut root, mut known) = (None, PathBuf::new());
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
            check_parents(into, &link, &mut known)?;
            check_parents(into, &target, &mut known)?;
            if crate::files::is_device(&full) {
                return Err(Failure::new(format!("cannot overwrite device {full:?}")));
            }
            // An older copy gives way.
            let _ = fs::remove_file(&full);
            fs::hard_link(into.join(&link), &full).map_err(wrong)?;
            continue;
        }
        check_parents(into, &target, &mut known)?;
        if full.is_dir() != entry.header().entry_type().is_dir()
            && full.symlink_metadata().is_ok()
            && full.is_dir()
        {
            return Err(Failure::new(format!(
                "cannot overwrite directory {full:?} with non-directory"
            )));
        }
        if crate::files::is_device(&full) {
            return Err(Failure::new(format!("cannot overwrite device {full:?}")));
        }
        let capability = capability(&mut entry).map_err(wrong)?;
        entry.unpack(&full).map_err(|error| {
            Failure::new(format!("write {}: {}", full.display(), cause(&error)))
        })?;
        if let Some(value) = capability {
            set_capability(&full, &value).map_err(wrong)?;
        }
    }
    Ok(())
}

fn capability<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Option<Vec<u8>>> {
    let Some(records) = entry.pax_extensions()? else { return Ok(None) };
    for record in records {
        let record = record?;
        if record.key().ok().and_then(|key| key.strip_prefix(XATTR_PREFIX)) == Some(CAPABILITY) {
            return Ok(Some(record.value_bytes().to_vec()));
        }
    }
    Ok(None)
}

/// Who may not give files capabilities, and a file system without them, still get the files.
fn set_capability(path: &Path, value: &[u8]) -> io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    match rustix::fs::lsetxattr(path, CAPABILITY, value, flags) {
        Ok(()) | Err(Errno::PERM | Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The first cause of an error, which the archive's reader wraps in words of its own.
fn cause(error: &io::Error) -> String {
    let mut first: &(dyn std::error::Error + 'static) = error;
    while let Some(next) = first.source() {
        first = next;
    }
    match first.downcast_ref::<io::Error>() {
        Some(first) => reason(first),
        None => first.to_string(),
    }
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

/// Refuses to go through a link that the archive (or anybody) put below the destination. `known` is
/// where the last call found directories: an archive cannot put a link in the place of one.
fn check_parents(into: &Path, target: &Path, known: &mut PathBuf) -> Result<(), Failure> {
    let parent = target.parent().unwrap_or(Path::new(""));
    if known.starts_with(parent) {
        return Ok(());
    }
    let same = known.components().zip(parent.components()).take_while(|(a, b)| a == b).count();
    let mut below: PathBuf = parent.components().take(same).collect();
    known.clone_from(&below);
    for part in parent.components().skip(same) {
        below.push(part);
        let path = into.join(&below);
        match path.symlink_metadata() {
            Ok(found) if found.is_symlink() => {
                let text = format!("{path:?} is a link; not unpacking through it");
                return Err(Failure::new(text));
            }
            Ok(_) => known.clone_from(&below),
            // Nothing can be below what is not there.
            Err(_) => break,
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
