//! Making entries in a tree that is not trusted.
//!
//! A [`Tree`] turns names from an archive into files below one directory. Parents are resolved by
//! openat2 with that directory as `/`, so links planted by earlier entries lead nowhere else; the
//! last component is never followed. Open parents are cached, since neighbours in an archive are
//! neighbours on disk; a regular file then costs open, write, utimensat, close.
//!
//! Missing parents are made with mode 755 and remembered as *implied*; a link that leads nowhere gets
//! the directory that it leads to, inside the root. Directories get their times last, in
//! [`Tree::finish`], as making entries in them changes these. The root itself keeps its attributes:
//! what an archive says of `./` is about the directory that it was made of.
//!
//! Invariant: nothing outside the root is opened, made, changed or removed. What is remembered of
//! an archive stays below [`HELD_BYTES_MAX`].
//!
//! Source for the root: moby `pkg/archive/archive.go`, `Unpack`, which goes on where a directory
//! exists and the entry's name is ".".

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub(crate) use crate::marks::{OPAQUE, is_overlay_xattr, is_privileged_xattr, is_whiteout};
use crate::recipe::Kept;
use crate::tar::{Kind, Time};
use crate::unpack::wire::{Bytes, Channel, Event};
use crate::walk::{Descend, WalkError, walk_entry};

/// The kernel's PATH_MAX.
const PATH_BYTES_MAX: usize = 4096;
/// Directories inside each other that an archive's name may have.
const DEPTH_MAX: usize = 1024;
const DIRS_CACHED_MAX: usize = 512;
/// How many links one missing directory may lead through: path_resolution(7).
const LINKS_MAX: u32 = 40;
/// What a tree remembers of one archive: half a million directories, or two million files.
pub(crate) const HELD_BYTES_MAX: usize = 96 << 20;
/// What remembering costs beside a name's bytes.
pub(crate) const HELD_ENTRY_BYTES: usize = 48;

/// Why an entry could not be made.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum TreeError {
    #[error("invalid path {0:?}: it leads outside of the root")]
    Escape(#[serde(with = "crate::unpack::wire::path")] PathBuf),
    #[error("path of {0} bytes: file name too long")]
    PathTooLong(usize),
    #[error("path of {0} directories inside each other is too deep")]
    TooDeep(usize),
    #[error("archive has more names than can be remembered")]
    TooManyNames,
    #[error("cannot create {path:?}")]
    Create {
        #[serde(with = "crate::unpack::wire::path")]
        path: PathBuf,
        #[serde(with = "crate::unpack::wire::cause")]
        source: io::Error,
    },
    #[error("invalid hardlink {path:?} -> {target:?}")]
    HardLink {
        #[serde(with = "crate::unpack::wire::path")]
        path: PathBuf,
        #[serde(with = "crate::unpack::wire::path")]
        target: PathBuf,
        #[serde(with = "crate::unpack::wire::cause")]
        source: io::Error,
    },
    #[error("cannot set attributes of {path:?}")]
    Attributes {
        #[serde(with = "crate::unpack::wire::path")]
        path: PathBuf,
        #[serde(with = "crate::unpack::wire::cause")]
        source: io::Error,
    },
    #[error("cannot replace {path:?}")]
    Replace {
        #[serde(with = "crate::unpack::wire::path")]
        path: PathBuf,
        #[serde(with = "crate::unpack::wire::cause")]
        source: io::Error,
    },
    #[error("cannot overwrite directory {0:?} with non-directory")]
    DirectoryByOther(#[serde(with = "crate::unpack::wire::path")] PathBuf),
    #[error("cannot overwrite non-directory {0:?} with directory")]
    OtherByDirectory(#[serde(with = "crate::unpack::wire::path")] PathBuf),
}

/// Attributes of an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta<'a> {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// What may stand in an entry's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overwrite {
    /// Directories merge, anything else is replaced, as unpacking a layer does.
    Anything,
    /// A directory and a non-directory do not replace each other (`docker cp`).
    SameKind,
}

/// An open directory of the tree.
pub(crate) struct Dir {
    fd: OwnedFd,
    /// Below the root, without symbolic links; empty for the root. Only known to trees that keep
    /// replaced payloads; else as asked for.
    real: Vec<u8>,
}

impl Dir {
    fn child(&self, name: &[u8]) -> Vec<u8> {
        if self.real.is_empty() {
            name.to_vec()
        } else {
            [&self.real, b"/".as_slice(), name].concat()
        }
    }
}

pub(crate) struct Tree {
    root: OwnedFd,
    root_real: Option<PathBuf>,
    dirs: HashMap<Vec<u8>, Arc<Dir>>,
    times: BTreeMap<Vec<u8>, Time>,
    implied: Vec<Vec<u8>>,
    aside: Option<Aside>,
    held: usize,
    overwrite: Overwrite,
    umask: u32,
    /// Whom new files belong to without a word; none where a directory may give them its group.
    owner: Option<(u32, u32)>,
    /// Does what this process may not: `unpack/host.rs`.
    helper: Option<Arc<Channel>>,
}

/// Where replaced files go that a recipe refers to.
struct Aside {
    dir: OwnedFd,
    /// By inode number: the first ordinal of a file's parts, and how many there are.
    payloads: HashMap<u64, (u64, u64)>,
    kept: Kept,
    count: u64,
}

/// What a finished tree has to tell.
pub(crate) struct Finished {
    pub(crate) implied: Vec<Vec<u8>>,
    pub(crate) kept: Kept,
}

impl Tree {
    /// A tree below `root` that belongs to somebody: what is in the way is replaced by the rules of
    /// `overwrite`.
    pub(crate) fn existing(root: OwnedFd, overwrite: Overwrite) -> io::Result<Tree> {
        Ok(Tree {
            root,
            root_real: None,
            dirs: HashMap::new(),
            times: BTreeMap::new(),
            implied: Vec::new(),
            aside: None,
            held: 0,
            overwrite,
            umask: sys::fs::umask()?,
            owner: None,
            helper: None,
        })
    }

    /// A fresh tree `layer/diff`; files that [`Tree::note_payload`] named are kept in `layer/kept`
    /// when replaced.
    pub(crate) fn fresh(layer: &Path) -> io::Result<Tree> {
        let root_path = layer.join("diff");
        std::fs::create_dir(&root_path)?;
        let root = sys::fs::open_dir(&root_path)?;
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
        let mut tree = Tree::existing(root, Overwrite::Anything)?;
        let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        tree.owner = Some(ours);
        tree.root_real = Some(sys::fs::real_path(tree.root.as_fd())?);
        tree.aside = Some(Aside {
            dir: sys::fs::open_dir(layer)?,
            payloads: HashMap::new(),
            kept: Kept::new(),
            count: 0,
        });
        Ok(tree)
    }

    /// The same tree, where devices and privileged attributes have to be asked for.
    pub(crate) fn with_helper(self, helper: Option<Arc<Channel>>) -> Tree {
        Tree { helper, ..self }
    }

    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Remembers that payload `ordinal` of the recipe is `file`. A file's parts follow each other.
    pub(crate) fn note_payload(
        &mut self,
        path: &[u8],
        file: &File,
        ordinal: u64,
    ) -> Result<(), TreeError> {
        let Some(aside) = &mut self.aside else { return Ok(()) };
        let stat = rustix::fs::fstat(file).map_err(|error| create_error(path, error))?;
        match aside.payloads.entry(stat.st_ino) {
            Slot::Occupied(mut parts) => parts.get_mut().1 += 1,
            Slot::Vacant(first) => {
                first.insert((ordinal, 1));
                self.hold(0)?;
            }
        }
        Ok(())
    }

    /// Accounts for something that is remembered until the end.
    fn hold(&mut self, name_bytes: usize) -> Result<(), TreeError> {
        self.held += name_bytes + HELD_ENTRY_BYTES;
        if self.held > HELD_BYTES_MAX { Err(TreeError::TooManyNames) } else { Ok(()) }
    }

    /// Opens a new file for writing; gives its path below the root, links resolved.
    pub(crate) fn create_file(
        &mut self,
        path: &[u8],
        mode: u32,
    ) -> Result<(File, Vec<u8>), TreeError> {
        let (dir, name) = self.parent(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o777);
        let open = || rustix::fs::openat(&dir.fd, OsStr::from_bytes(name), flags, mode);
        let opened = match open() {
            Err(Errno::EXIST) => {
                self.make_way(&dir, name, Kind::File)?;
                open()
            }
            other => other,
        };
        let file = opened.map_err(|error| create_error(path, error))?;
        Ok((file.into(), dir.child(name)))
    }

    /// Sets a new file's attributes. The owner first: chown(2) clears set-id bits and capabilities.
    pub(crate) fn finish_file(
        &self,
        path: &[u8],
        file: &File,
        meta: &Meta<'_>,
    ) -> Result<(), TreeError> {
        let set = || -> io::Result<()> {
            if Some((meta.uid, meta.gid)) != self.owner {
                rustix::fs::fchown(
                    file,
                    Some(Uid::from_raw(meta.uid)),
                    Some(Gid::from_raw(meta.gid)),
                )?;
            }
            if meta.mode & (self.umask | 0o7000) != 0 {
                rustix::fs::fchmod(file, Mode::from_raw_mode(meta.mode))?;
            }
            self.set_xattrs(meta, file.as_fd(), None)?;
            rustix::fs::futimens(file, &meta.mtime.timestamps())?;
            Ok(())
        };
        set().map_err(|source| TreeError::Attributes { path: to_path(path), source })
    }

    /// Makes a directory, or gives the one that is there the attributes; the root has its own.
    pub(crate) fn make_dir(&mut self, path: &[u8], meta: &Meta<'_>) -> Result<(), TreeError> {
        if path.is_empty() {
            return Ok(());
        }
        let (dir, name) = self.parent(path)?;
        let mode = Mode::from_raw_mode(meta.mode & 0o777);
        let make = || rustix::fs::mkdirat(&dir.fd, OsStr::from_bytes(name), mode);
        let mut fresh = true;
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => match self.make_way(&dir, name, Kind::Dir)? {
                Way::Directory => fresh = false,
                Way::Clear { whiteout } => {
                    make().map_err(|error| create_error(path, error))?;
                    if whiteout {
                        self.make_opaque(path)?;
                    }
                }
            },
            Err(error) => return Err(create_error(path, error)),
        }
        if meta.mode & 0o2000 != 0 {
            self.owner = None;
        }
        let real = dir.child(name);
        let bytes = real.len();
        if self.times.insert(real, meta.mtime).is_none() {
            self.hold(bytes)?;
        }
        let plain = Some((meta.uid, meta.gid)) == self.owner
            && meta.mode & (self.umask | 0o7000) == 0
            && meta.xattrs.is_empty();
        if fresh && plain {
            return Ok(());
        }
        let set =
            || self.set_dir(&sys::fs::open_dir_at(dir.fd.as_fd(), OsStr::from_bytes(name))?, meta);
        set().map_err(|source| TreeError::Attributes { path: to_path(path), source })
    }

    pub(crate) fn make_symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        meta: &Meta<'_>,
    ) -> Result<(), TreeError> {
        let (dir, name) = self.parent(path)?;
        let target = OsStr::from_bytes(target);
        let make = || rustix::fs::symlinkat(target, &dir.fd, OsStr::from_bytes(name));
        self.make(&dir, name, path, Kind::Symlink, make)?;
        self.set_entry(&dir, name, path, meta, Kind::Symlink)
    }

    pub(crate) fn make_node(
        &mut self,
        path: &[u8],
        kind: Kind,
        rdev: (u32, u32),
        meta: &Meta<'_>,
    ) -> Result<(), TreeError> {
        let (dir, name) = self.parent(path)?;
        let file_type = match kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            Kind::File | Kind::HardLink | Kind::Symlink | Kind::Dir => FileType::RegularFile,
        };
        let mode = Mode::from_raw_mode(meta.mode & 0o777);
        let device = rustix::fs::makedev(rdev.0, rdev.1);
        let make =
            || rustix::fs::mknodat(&dir.fd, OsStr::from_bytes(name), file_type, mode, device);
        let helper = self.helper.clone().filter(|_| is_device(kind));
        let ask = Event::Device { name: Bytes::of(name), kind, mode: mode.as_raw_mode(), rdev };
        let make = || match &helper {
            Some(helper) => {
                let made = helper.ask_privileged(&ask, dir.fd.as_fd());
                made.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            }
            None => make(),
        };
        self.make(&dir, name, path, kind, make)?;
        self.set_entry(&dir, name, path, meta, kind)
    }

    pub(crate) fn make_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), TreeError> {
        let failed = |error: Errno| TreeError::HardLink {
            path: to_path(path),
            target: to_path(target),
            source: error.into(),
        };
        let clean_target = clean(target)?;
        let (from, from_name) = self.parent(&clean_target)?;
        let (dir, name) = self.parent(path)?;
        if path == clean_target {
            return Ok(());
        }
        let link = || {
            let (from_name, name) = (OsStr::from_bytes(from_name), OsStr::from_bytes(name));
            rustix::fs::linkat(&from.fd, from_name, &dir.fd, name, AtFlags::empty())
        };
        match link() {
            Err(Errno::EXIST) => {
                // The link may be there already, and removing it could remove the target's last name.
                let find = |dir: &Dir, name| {
                    rustix::fs::statat(&dir.fd, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
                };
                let (old, new) =
                    (find(&from, from_name).map_err(failed)?, find(&dir, name).map_err(failed)?);
                if (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino) {
                    return Ok(());
                }
                self.make_way(&dir, name, Kind::HardLink)?;
                link().map_err(failed)
            }
            other => other.map_err(failed),
        }
    }

    /// Hides `path` of the layers below, unless this layer has something there itself.
    pub(crate) fn make_whiteout(&mut self, path: &[u8]) -> Result<(), TreeError> {
        let (dir, name) = self.parent(path)?;
        let os_name = OsStr::from_bytes(name);
        let made =
            rustix::fs::mknodat(&dir.fd, os_name, FileType::CharacterDevice, Mode::empty(), 0);
        match made {
            Ok(()) => Ok(()),
            // A whiteout is about the layers below, whatever its place in the archive.
            Err(Errno::EXIST) => {
                match rustix::fs::statat(&dir.fd, os_name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                        self.make_opaque(path)
                    }
                    Ok(_) => Ok(()),
                    Err(error) => Err(create_error(path, error)),
                }
            }
            Err(error) => Err(create_error(path, error)),
        }
    }

    /// Hides what the layers below have in directory `path`.
    pub(crate) fn make_opaque(&mut self, path: &[u8]) -> Result<(), TreeError> {
        let set = |tree: &mut Tree| -> io::Result<()> {
            let opened = if path.is_empty() {
                sys::fs::open_dir_at(tree.root.as_fd(), ".")?
            } else {
                let (dir, name) = tree.parent(path).map_err(|_| io::ErrorKind::NotFound)?;
                sys::fs::open_dir_at(dir.fd.as_fd(), OsStr::from_bytes(name))?
            };
            tree.set_xattr(opened.as_fd(), None, OPAQUE.as_bytes(), b"y")
        };
        set(self).map_err(|source| TreeError::Attributes { path: to_path(path), source })
    }

    /// Makes `path` and its missing parents, each with `meta`.
    pub(crate) fn make_dirs(&mut self, path: &[u8]) -> Result<(), TreeError> {
        self.dir(path).map(drop)
    }

    /// Sets the directories' times, deepest last made first.
    pub(crate) fn finish(self) -> io::Result<Finished> {
        for (path, time) in self.times.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let path = Path::new(OsStr::from_bytes(path));
            match sys::fs::open_in_root(self.root.as_fd(), path, flags, Mode::empty()) {
                Ok(dir) => rustix::fs::futimens(&dir, &time.timestamps())?,
                // Replaced by a later entry.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        let kept = self.aside.map(|aside| aside.kept).unwrap_or_default();
        Ok(Finished { implied: self.implied, kept })
    }

    fn make(
        &mut self,
        dir: &Arc<Dir>,
        name: &[u8],
        path: &[u8],
        kind: Kind,
        make: impl Fn() -> Result<(), Errno>,
    ) -> Result<(), TreeError> {
        match make() {
            Err(Errno::EXIST) => {
                self.make_way(dir, name, kind)?;
                make().map_err(|error| create_error(path, error))
            }
            other => other.map_err(|error| create_error(path, error)),
        }
    }

    fn set_entry(
        &self,
        dir: &Dir,
        name: &[u8],
        path: &[u8],
        meta: &Meta<'_>,
        kind: Kind,
    ) -> Result<(), TreeError> {
        let name = OsStr::from_bytes(name);
        let set = || -> io::Result<()> {
            if Some((meta.uid, meta.gid)) != self.owner {
                let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
                rustix::fs::chownat(
                    &dir.fd,
                    name,
                    Some(uid),
                    Some(gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            // What a helper makes, it makes with a mask of its own.
            let by_helper = self.helper.is_some() && is_device(kind);
            if kind != Kind::Symlink && (by_helper || meta.mode & (self.umask | 0o7000) != 0) {
                sys::fs::chmod_at(dir.fd.as_fd(), name, meta.mode)?;
            }
            self.set_xattrs(meta, dir.fd.as_fd(), Some(name))?;
            rustix::fs::utimensat(
                &dir.fd,
                name,
                &meta.mtime.timestamps(),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
            Ok(())
        };
        set().map_err(|source| TreeError::Attributes { path: to_path(path), source })
    }

    fn set_dir(&self, dir: &OwnedFd, meta: &Meta<'_>) -> io::Result<()> {
        rustix::fs::fchown(dir, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
        rustix::fs::fchmod(dir, Mode::from_raw_mode(meta.mode))?;
        self.set_xattrs(meta, dir.as_fd(), None)
    }

    /// Sets what this file system can hold. One that has no attributes still holds the files.
    fn set_xattrs(
        &self,
        meta: &Meta<'_>,
        on: BorrowedFd<'_>,
        entry: Option<&OsStr>,
    ) -> io::Result<()> {
        for (name, value) in meta.xattrs {
            if is_overlay_xattr(name) {
                continue;
            }
            match self.set_xattr(on, entry, name, value) {
                Err(error)
                    if !matches!(
                        Errno::from_io_error(&error),
                        Some(Errno::NOTSUP | Errno::PERM)
                    ) =>
                {
                    return Err(error);
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Sets an attribute of what is open, or of `entry` in it.
    fn set_xattr(
        &self,
        on: BorrowedFd<'_>,
        entry: Option<&OsStr>,
        name: &[u8],
        value: &[u8],
    ) -> io::Result<()> {
        if let Some(helper) = self.helper.as_ref().filter(|_| is_privileged_xattr(name)) {
            let entry = entry.map(|entry| Bytes::of(entry.as_bytes()));
            let (name, value) = (Bytes::of(name), Bytes::of(value));
            return helper.ask_privileged(&Event::Attribute { entry, name, value }, on);
        }
        match entry {
            Some(entry) => sys::fs::set_xattr_at(on, entry, name, value),
            None => sys::fs::set_xattr(on, name, value),
        }
    }

    /// The open parent of `path` (which is clean) and the last component.
    fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(Arc<Dir>, &'p [u8]), TreeError> {
        let (parent, name) = split(path);
        if name.is_empty() {
            return Err(TreeError::Escape(to_path(path)));
        }
        Ok((self.dir(parent)?, name))
    }

    fn dir(&mut self, path: &[u8]) -> Result<Arc<Dir>, TreeError> {
        if let Some(dir) = self.dirs.get(path) {
            return Ok(Arc::clone(dir));
        }
        let opened = match self.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_empty() => {
                self.imply(path, LINKS_MAX)?;
                self.open(path)
            }
            other => other,
        };
        let create = |source| TreeError::Create { path: to_path(path), source };
        let fd = opened.map_err(create)?;
        let real = self.real(&fd, path).map_err(create)?;
        if self.dirs.len() >= DIRS_CACHED_MAX {
            self.dirs.clear();
        }
        let dir = Arc::new(Dir { fd, real });
        self.dirs.insert(path.to_vec(), Arc::clone(&dir));
        Ok(dir)
    }

    fn open(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        sys::fs::open_in_root(self.root.as_fd(), OsStr::from_bytes(path), flags, Mode::empty())
    }

    fn real(&self, fd: &OwnedFd, asked: &[u8]) -> io::Result<Vec<u8>> {
        let Some(root) = &self.root_real else { return Ok(asked.to_vec()) };
        let real = sys::fs::real_path(fd.as_fd())?;
        let below =
            real.strip_prefix(root).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(below.as_os_str().as_bytes().to_vec())
    }

    /// Makes the directories of `path` that the archive uses but does not describe.
    fn imply(&mut self, path: &[u8], links: u32) -> Result<(), TreeError> {
        let mut missing = Vec::new();
        let mut at = path;
        while !at.is_empty() {
            match self.open(at) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(at),
                Err(source) => return Err(TreeError::Create { path: to_path(at), source }),
            }
            at = split(at).0;
        }
        while let Some(path) = missing.pop() {
            self.imply_one(path, links)?;
        }
        Ok(())
    }

    /// Makes the directory `path`, whose parent exists.
    fn imply_one(&mut self, path: &[u8], links: u32) -> Result<(), TreeError> {
        let (parent, name) = split(path);
        let failed = |source| TreeError::Create { path: to_path(path), source };
        let fd = self.open(parent).map_err(failed)?;
        let dir = Dir { real: self.real(&fd, parent).map_err(failed)?, fd };
        let mode = Mode::from_raw_mode(0o755);
        match rustix::fs::mkdirat(&dir.fd, OsStr::from_bytes(name), mode) {
            Ok(()) if self.umask & 0o755 != 0 => {
                let set = || -> io::Result<()> {
                    let made = sys::fs::open_dir_at(dir.fd.as_fd(), OsStr::from_bytes(name))?;
                    Ok(rustix::fs::fchmod(made, mode)?)
                };
                set().map_err(failed)?;
            }
            Ok(()) => {}
            // It is not there, and yet it is: a link to what is not there.
            Err(Errno::EXIST) if links > 0 => {
                let target = sys::fs::read_link_at(dir.fd.as_fd(), OsStr::from_bytes(name));
                let target = target.map_err(failed)?.into_os_string().into_encoded_bytes();
                let target = match target.strip_prefix(b"/") {
                    Some(absolute) => absolute.to_vec(),
                    None if parent.is_empty() => target,
                    None => [parent, b"/", &target].concat(),
                };
                return self.imply(&target, links - 1);
            }
            Err(error) => return Err(create_error(path, error)),
        }
        let real = dir.child(name);
        self.hold(real.len())?;
        self.implied.push(real);
        Ok(())
    }

    /// Removes what stands where `kind` is to be made, unless both are directories.
    fn make_way(&mut self, dir: &Dir, name: &[u8], kind: Kind) -> Result<Way, TreeError> {
        let os_name = OsStr::from_bytes(name);
        let real = dir.child(name);
        let failed = |source: io::Error| TreeError::Replace { path: to_path(&real), source };
        let stat = match rustix::fs::statat(&dir.fd, os_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Way::Clear { whiteout: false }),
            Err(error) => return Err(failed(error.into())),
        };
        let there = FileType::from_raw_mode(stat.st_mode);
        match (kind == Kind::Dir, there == FileType::Directory) {
            (true, true) => return Ok(Way::Directory),
            (false, true) if self.overwrite == Overwrite::SameKind => {
                return Err(TreeError::DirectoryByOther(to_path(&real)));
            }
            (true, false) if self.overwrite == Overwrite::SameKind => {
                return Err(TreeError::OtherByDirectory(to_path(&real)));
            }
            (true | false, true | false) => {}
        }
        // What is cached may lie below, or have been reached through, what goes away.
        if matches!(there, FileType::Directory | FileType::Symlink) {
            self.dirs.clear();
        }
        if !self.keep_aside(dir, os_name).map_err(failed)? {
            sys::fs::remove_tree(dir.fd.as_fd(), os_name).map_err(failed)?;
        }
        Ok(Way::Clear { whiteout: is_whiteout(&stat) })
    }

    /// Moves what a recipe refers to out of the tree; whether it did.
    fn keep_aside(&mut self, dir: &Dir, name: &OsStr) -> io::Result<bool> {
        let Some(aside) = &mut self.aside else { return Ok(false) };
        if aside.payloads.is_empty() {
            return Ok(false);
        }
        let mut moved = Vec::new();
        walk_entry(dir.fd.as_fd(), name, b"", &mut |node| {
            if aside.payloads.contains_key(&node.stat.st_ino) {
                moved.push((node.stat.st_ino, node.path.to_vec()));
            }
            Ok::<_, WalkError>(Descend::Yes)
        })
        .map_err(io::Error::other)?;
        if moved.is_empty() {
            return Ok(false);
        }
        if aside.count == 0 {
            rustix::fs::mkdirat(&aside.dir, "kept", Mode::RWXU)?;
        }
        let place = format!("kept/{}", aside.count);
        aside.count += 1;
        rustix::fs::renameat(&dir.fd, name, &aside.dir, &place)?;
        for (inode, below) in moved {
            let now = if below.is_empty() {
                place.clone().into_bytes()
            } else {
                [place.as_bytes(), b"/", &below].concat()
            };
            // A second name of the same file finds nothing here: the first one keeps it.
            let (first, count) = aside.payloads.remove(&inode).unwrap_or_default();
            for ordinal in first..first + count {
                self.held += now.len() + HELD_ENTRY_BYTES;
                aside.kept.insert(ordinal, now.clone());
            }
        }
        Ok(true)
    }
}

/// What [`Tree::make_way`] left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Directory,
    Clear { whiteout: bool },
}

fn is_device(kind: Kind) -> bool {
    matches!(kind, Kind::CharDevice | Kind::BlockDevice)
}

/// The path's components without `.`, `..` and doubled slashes, relative to the root.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<u8>, TreeError> {
    if path.len() > PATH_BYTES_MAX {
        return Err(TreeError::PathTooLong(path.len()));
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or_else(|| TreeError::Escape(to_path(path)))?;
            }
            part => parts.push(part),
        }
    }
    if parts.len() > DEPTH_MAX {
        return Err(TreeError::TooDeep(parts.len()));
    }
    Ok(parts.join(&b'/'))
}

/// The parent, empty for the root, and the last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

pub(crate) fn to_path(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

fn create_error(path: &[u8], error: Errno) -> TreeError {
    TreeError::Create { path: to_path(path), source: error.into() }
}
