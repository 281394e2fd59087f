//! Walking a tree by descriptor, in the order of names' bytes, parents before children.
//!
//! The tree may be changed under our feet by a container, so each entry is opened first and looked
//! at afterwards, nothing is followed, and what vanishes meanwhile is skipped.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::tar::{Entry, Kind, Time};
use crate::tree::is_overlay_xattr;

/// Something in the tree that could not be looked at. The path is below the walk's root.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path:?}")]
pub struct WalkError {
    pub path: PathBuf,
    pub source: io::Error,
}

impl WalkError {
    pub(crate) fn at(path: &[u8], source: impl Into<io::Error>) -> WalkError {
        WalkError { path: crate::tree::to_path(path), source: source.into() }
    }
}

/// One entry met on a walk.
pub(crate) struct Node<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    /// Below the walk's root.
    pub(crate) path: &'a [u8],
    pub(crate) stat: Stat,
    /// The entry itself, for directories and regular files.
    pub(crate) opened: Option<OwnedFd>,
    /// Where the same file was met before.
    pub(crate) link_of: Option<&'a [u8]>,
}

/// Whether to enter a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Descend {
    Yes,
    No,
}

/// Sockets have no place in an archive.
pub(crate) fn kind_of(stat: &Stat) -> Option<Kind> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Dir),
        FileType::Symlink => Some(Kind::Symlink),
        FileType::Fifo => Some(Kind::Fifo),
        FileType::CharacterDevice => Some(Kind::CharDevice),
        FileType::BlockDevice => Some(Kind::BlockDevice),
        FileType::Socket | FileType::Unknown => None,
    }
}

/// Visits everything below `root`, not `root` itself.
pub(crate) fn walk<E: From<WalkError>>(
    root: BorrowedFd<'_>,
    visit: &mut dyn FnMut(&Node<'_>) -> Result<Descend, E>,
) -> Result<(), E> {
    let mut walker = Walker { links: HashMap::new(), visit };
    walker.directory(root, &mut Vec::new())
}

/// Visits the one entry `name` of `dir` and everything below it; paths begin with `path`.
pub(crate) fn walk_entry<E: From<WalkError>>(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    path: &[u8],
    visit: &mut dyn FnMut(&Node<'_>) -> Result<Descend, E>,
) -> Result<(), E> {
    let mut walker = Walker { links: HashMap::new(), visit };
    walker.entry(dir, name, FileType::Unknown, &mut path.to_vec())
}

/// Bytes of the regular files below `root`, each once.
pub(crate) fn size(root: BorrowedFd<'_>) -> Result<u64, WalkError> {
    let mut size = 0;
    walk(root, &mut |node| {
        if node.opened.is_some() && !node.is_dir() && node.link_of.is_none() {
            size += u64::try_from(node.stat.st_size).unwrap_or(0);
        }
        Ok::<_, WalkError>(Descend::Yes)
    })?;
    Ok(size)
}

struct Walker<'v, E> {
    links: HashMap<(u64, u64), Vec<u8>>,
    visit: &'v mut dyn FnMut(&Node<'_>) -> Result<Descend, E>,
}

impl<E: From<WalkError>> Walker<'_, E> {
    fn directory(&mut self, dir: BorrowedFd<'_>, path: &mut Vec<u8>) -> Result<(), E> {
        let found = sys::fs::entries_sorted(dir).map_err(|error| WalkError::at(path, error))?;
        for entry in found {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name.as_bytes());
            self.entry(dir, &entry.name, entry.kind, path)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        hint: FileType,
        path: &mut Vec<u8>,
    ) -> Result<(), E> {
        let looked = look(dir, name, hint).map_err(|error| WalkError::at(path, error))?;
        let Some((stat, opened)) = looked else { return Ok(()) };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let mut link_of = None;
        if !is_dir && stat.st_nlink > 1 {
            match self.links.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => link_of = Some(first.clone()),
                None => {
                    self.links.insert((stat.st_dev, stat.st_ino), path.clone());
                }
            }
        }
        let node = Node { dir, name, path, stat, opened, link_of: link_of.as_deref() };
        let descend = (self.visit)(&node)?;
        match (node.opened, descend) {
            (Some(opened), Descend::Yes) if is_dir => self.directory(opened.as_fd(), path),
            (Some(_) | None, Descend::Yes | Descend::No) => Ok(()),
        }
    }
}

/// Opens directories and regular files, and stats what was opened. None: it is gone.
fn look(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    hint: FileType,
) -> io::Result<Option<(Stat, Option<OwnedFd>)>> {
    let mut stat = None;
    let mut kind = hint;
    if !matches!(hint, FileType::Directory | FileType::RegularFile) {
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => {
                kind = FileType::from_raw_mode(found.st_mode);
                stat = Some(found);
            }
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    if !matches!(kind, FileType::Directory | FileType::RegularFile) {
        return Ok(stat.map(|stat| (stat, None)));
    }
    // A fifo that took the file's place must not hang us, nor a device do what opening does to it.
    let mut flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if kind == FileType::Directory {
        flags |= OFlags::DIRECTORY;
    }
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(opened) => {
            let stat = rustix::fs::fstat(&opened)?;
            Ok(Some((stat, Some(opened))))
        }
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Node<'_> {
    pub(crate) fn is_dir(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    /// The tar entry for this node under the name `path`; none for a socket.
    pub(crate) fn tar_entry(&self, path: Vec<u8>) -> Result<Option<Entry>, WalkError> {
        self.entry(path).map_err(|error| WalkError::at(self.path, error))
    }

    fn entry(&self, path: Vec<u8>) -> io::Result<Option<Entry>> {
        let Some(mut kind) = kind_of(&self.stat) else { return Ok(None) };
        let mut link = Vec::new();
        if let Some(first) = self.link_of {
            kind = Kind::HardLink;
            link = first.to_vec();
        } else if kind == Kind::Symlink {
            link =
                sys::fs::read_link_at(self.dir, self.name)?.into_os_string().into_encoded_bytes();
        }
        let mut xattrs = match &self.opened {
            _ if kind == Kind::HardLink => Vec::new(),
            Some(opened) => sys::fs::xattrs(opened.as_fd())?,
            None => sys::fs::xattrs_at(self.dir, self.name)?,
        };
        xattrs.retain(|(name, _)| carries(name));
        let size =
            if kind == Kind::File { u64::try_from(self.stat.st_size).unwrap_or(0) } else { 0 };
        let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        let rdev = if device {
            (rustix::fs::major(self.stat.st_rdev), rustix::fs::minor(self.stat.st_rdev))
        } else {
            (0, 0)
        };
        Ok(Some(Entry {
            path,
            kind,
            link,
            mode: self.stat.st_mode & 0o7777,
            uid: self.stat.st_uid,
            gid: self.stat.st_gid,
            mtime: Time::of_modification(&self.stat),
            rdev,
            xattrs,
            size,
            real_size: size,
            parts: vec![(0, size)],
        }))
    }

    /// The content of a regular file.
    pub(crate) fn file(&self) -> Result<File, WalkError> {
        let opened =
            self.opened.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput));
        let opened =
            opened.and_then(OwnedFd::try_clone).map_err(|error| WalkError::at(self.path, error))?;
        Ok(opened.into())
    }
}

/// Which attributes an archive carries: not overlayfs' marks, and not the labels that this host's
/// security modules put on everything.
fn carries(name: &[u8]) -> bool {
    !is_overlay_xattr(name)
        && name != b"security.selinux"
        && !name.starts_with(b"system.posix_acl_")
}
