//! Walking a tree by descriptor, in the order of names' bytes, parents before children.
//!
//! The tree may be changed under our feet by a container, so each entry is opened first and looked
//! at afterwards, nothing is followed, and what vanishes meanwhile is skipped.
//!
//! A container may also make its tree as deep and its directories as long as it likes, so a walk
//! holds little of either: of [`OPEN_MAX`] directories the descriptor and the next [`NAMES_MAX`] names,
//! of those further up only where it was. Such a one is opened again from the root by its path, and
//! left alone if that leads to another directory now.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::tar::{Entry, Kind, Time};
use crate::tree::is_overlay_xattr;

/// Something in the tree that could not be looked at. The path is below the walk's root.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[error("cannot read {path:?}")]
pub struct WalkError {
    #[serde(with = "crate::unpack::wire::path")]
    pub path: PathBuf,
    #[serde(with = "crate::unpack::wire::cause")]
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
    let mut walker = Walker { links: HashMap::new(), link_bytes: 0, visit };
    let root = root.try_clone_to_owned().map_err(|error| WalkError::at(b"", error))?;
    walker.directory(root, &mut Vec::new())
}

/// Visits the one entry `name` of `dir` and everything below it; paths begin with `path`.
pub(crate) fn walk_entry<E: From<WalkError>>(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    path: &[u8],
    visit: &mut dyn FnMut(&Node<'_>) -> Result<Descend, E>,
) -> Result<(), E> {
    let mut walker = Walker { links: HashMap::new(), link_bytes: 0, visit };
    match walker.entry(dir, name, FileType::Unknown, path)? {
        Some(below) => walker.directory(below, &mut path.to_vec()),
        None => Ok(()),
    }
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

/// Directories that are open at a time, the root besides.
const OPEN_MAX: usize = 32;
/// Names of one directory that are read at a time.
const NAMES_MAX: usize = 16 * 1024;
/// The kernel's PATH_MAX: what lies deeper has no name that could be used.
const PATH_BYTES_MAX: usize = 4096;
/// Names of files that have several. When there are more, such files are taken for different ones.
const LINKS_BYTES_MAX: usize = 64 << 20;

struct Walker<'v, E> {
    links: HashMap<(u64, u64), Vec<u8>>,
    link_bytes: usize,
    visit: &'v mut dyn FnMut(&Node<'_>) -> Result<Descend, E>,
}

/// A directory that the walk is in.
struct Frame {
    /// None while many are open below.
    dir: Option<OwnedFd>,
    /// Device and inode.
    identity: (u64, u64),
    /// What comes next, in reverse.
    names: Vec<sys::fs::Entry>,
    /// Whether more comes after that.
    more: bool,
    last: Option<OsString>,
    path_bytes: usize,
}

impl Frame {
    fn enter(dir: OwnedFd, path: &[u8]) -> Result<Frame, WalkError> {
        let stat = rustix::fs::fstat(&dir).map_err(|error| WalkError::at(path, error))?;
        Ok(Frame {
            dir: Some(dir),
            identity: (stat.st_dev, stat.st_ino),
            names: Vec::new(),
            more: true,
            last: None,
            path_bytes: path.len(),
        })
    }

    /// The next name; none at the end, or when the directory was removed.
    fn next(&mut self) -> io::Result<Option<sys::fs::Entry>> {
        if let (true, true, Some(dir)) = (self.names.is_empty(), self.more, &self.dir) {
            let read = sys::fs::entries_after(dir.as_fd(), self.last.as_deref(), NAMES_MAX);
            (self.names, self.more) = match read {
                Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), false),
                other => other?,
            };
            self.names.reverse();
        }
        let next = self.names.pop();
        if let Some(next) = &next {
            self.last = Some(next.name.clone());
        }
        Ok(next)
    }

    fn close(&mut self) {
        self.dir = None;
        self.names = Vec::new();
        self.more = true;
    }
}

impl<E: From<WalkError>> Walker<'_, E> {
    fn directory(&mut self, dir: OwnedFd, path: &mut Vec<u8>) -> Result<(), E> {
        let mut frames = vec![Frame::enter(dir, path)?];
        while let Some(top) = frames.last_mut() {
            path.truncate(top.path_bytes);
            let Some(entry) = top.next().map_err(|error| WalkError::at(path, error))? else {
                frames.pop();
                reopen(&mut frames, path);
                continue;
            };
            let Some(dir) = &top.dir else { continue };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name.as_bytes());
            if path.len() > PATH_BYTES_MAX {
                return Err(WalkError::at(path, Errno::NAMETOOLONG).into());
            }
            if let Some(below) = self.entry(dir.as_fd(), &entry.name, entry.kind, path)? {
                // The root stays open: the others are found from it.
                if let Some(far) = frames.len().checked_sub(OPEN_MAX).filter(|far| *far > 0) {
                    frames[far].close();
                }
                frames.push(Frame::enter(below, path)?);
            }
        }
        Ok(())
    }

    /// Visits one entry; gives the directory to enter.
    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        hint: FileType,
        path: &[u8],
    ) -> Result<Option<OwnedFd>, E> {
        let looked = look(dir, name, hint).map_err(|error| WalkError::at(path, error))?;
        let Some((stat, opened)) = looked else { return Ok(None) };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let mut link_of = None;
        if !is_dir && stat.st_nlink > 1 {
            match self.links.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => link_of = Some(first.clone()),
                None if self.link_bytes > LINKS_BYTES_MAX => {}
                None => {
                    self.link_bytes += path.len() + size_of::<((u64, u64), Vec<u8>)>();
                    self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
                }
            }
        }
        let node = Node { dir, name, path, stat, opened, link_of: link_of.as_deref() };
        let descend = (self.visit)(&node)?;
        Ok(node.opened.filter(|_| is_dir && descend == Descend::Yes))
    }
}

/// Opens the last of `frames` again where it was closed; leaves out those that are not there now.
fn reopen(frames: &mut Vec<Frame>, path: &[u8]) {
    while let [root, .., last] = frames.as_slice() {
        if last.dir.is_some() {
            return;
        }
        let below = &path[root.path_bytes..last.path_bytes];
        let below = below.strip_prefix(b"/").unwrap_or(below);
        let opened = root.dir.as_ref().and_then(|root| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let below = OsStr::from_bytes(below);
            sys::fs::open_beneath(root.as_fd(), below, flags, Mode::empty()).ok()
        });
        let same = opened.filter(|dir| {
            let is_it = |stat: Stat| (stat.st_dev, stat.st_ino) == last.identity;
            rustix::fs::fstat(dir).is_ok_and(is_it)
        });
        match (same, frames.last_mut()) {
            (Some(dir), Some(last)) => return last.dir = Some(dir),
            (None, _) | (_, None) => drop(frames.pop()),
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

    /// The tar entry for this node under the name `path`; none for a socket, and for what is gone or
    /// became another kind of thing meanwhile.
    pub(crate) fn tar_entry(&self, path: Vec<u8>) -> Result<Option<Entry>, WalkError> {
        match self.entry(path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) =>
            {
                Ok(None)
            }
            other => other.map_err(|error| WalkError::at(self.path, error)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    fn paths(scratch: &Scratch) -> Result<Vec<String>, WalkError> {
        let root = sys::fs::open_dir(scratch.path()).unwrap();
        let mut found = Vec::new();
        walk(root.as_fd(), &mut |node| {
            found.push(String::from_utf8_lossy(node.path).into_owned());
            Ok::<_, WalkError>(Descend::Yes)
        })?;
        Ok(found)
    }

    #[test]
    fn a_tree_deeper_than_descriptors_is_walked_in_order() {
        let scratch = Scratch::new();
        let mut want = Vec::new();
        let mut at = String::new();
        for depth in 0..3 * OPEN_MAX {
            for name in ["a", "z"] {
                std::fs::write(scratch.path().join(format!("{at}{name}")), "").unwrap();
                want.push(format!("{at}{name}"));
            }
            want.push(format!("{at}d"));
            std::fs::create_dir(scratch.path().join(format!("{at}d"))).unwrap();
            at = "d/".repeat(depth + 1);
        }
        let found = paths(&scratch).unwrap();
        want.sort_by(|a, b| a.split('/').cmp(b.split('/')));
        assert_eq!(found, want);
    }

    #[test]
    fn a_long_directory_is_read_in_parts() {
        let scratch = Scratch::new();
        let want: Vec<String> = (0..2 * NAMES_MAX + 77).map(|at| format!("{at:08}")).collect();
        for name in &want {
            std::os::unix::fs::symlink("x", scratch.path().join(name)).unwrap();
        }
        assert_eq!(paths(&scratch).unwrap(), want);
    }

    #[test]
    fn what_has_no_name_ends_a_walk_in_words() {
        let scratch = Scratch::new();
        let mut at = sys::fs::open_dir(scratch.path()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = sys::fs::open_dir_at(at.as_fd(), "d").unwrap();
        }
        let error = paths(&scratch).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
        let top = sys::fs::open_dir(scratch.path()).unwrap();
        sys::fs::remove_tree(top.as_fd(), "d").unwrap();
    }

    #[test]
    fn what_is_moved_meanwhile_is_left_alone() {
        let scratch = Scratch::new();
        let deep = scratch.path().join("a/".to_owned() + &"d/".repeat(2 * OPEN_MAX));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(scratch.path().join("a/z"), "").unwrap();
        std::fs::write(scratch.path().join("z"), "").unwrap();
        let root = sys::fs::open_dir(scratch.path()).unwrap();
        let mut found = Vec::new();
        walk(root.as_fd(), &mut |node| {
            if node.path.len() == 1 + 2 * 2 * OPEN_MAX {
                std::fs::rename(scratch.path().join("a"), scratch.path().join("b")).unwrap();
                std::fs::create_dir(scratch.path().join("a")).unwrap();
                std::fs::write(scratch.path().join("a/zz"), "").unwrap();
            }
            found.push(String::from_utf8_lossy(node.path).into_owned());
            Ok::<_, WalkError>(Descend::Yes)
        })
        .unwrap();
        assert!(!found.iter().any(|path| path == "a/z" || path == "a/zz"), "{found:?}");
        assert_eq!(found.last().map(String::as_str), Some("z"));
    }
}
