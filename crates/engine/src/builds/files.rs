//! Reading a tree that a user or an image supplies: by descriptor, links never leading out.
//!
//! One digest covers a whole selection: a stream of names, kinds, modes, owners, extended
//! attributes, link targets and contents, each with its length, in the order of names.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use build::worker::{Failure, FailureKind, Files, NodeKind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat};
use sha2::{Digest as _, Sha256};
use spec::Digest;
use spec::ignore::{Ignore, clean};
use sys::path::Root;

/// Directories inside each other that are followed; each holds a descriptor.
const DEPTH_MAX: usize = 256;
const XATTR_BYTES_MAX: usize = 64 << 10;

/// Whether a file's owner is part of what it is: in images, but not in a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    Count,
    Ignored,
}

/// A tree open for reading.
pub(super) struct Tree {
    root: Arc<Root>,
    ignore: Arc<Ignore>,
    owners: Owners,
}

impl Tree {
    pub(super) fn new(root: Arc<Root>, ignore: Arc<Ignore>, owners: Owners) -> Self {
        Self { root, ignore, owners }
    }

    /// Left out, and nothing below it let in again.
    fn hides(&self, path: &str) -> bool {
        !path.is_empty() && self.ignore.excludes(path) && !self.ignore.may_let_in_below(path)
    }
}

/// A failure of reading, for the user.
pub(super) fn unreadable(path: &str, error: &io::Error) -> Failure {
    Failure::new(FailureKind::Internal, format!("cannot read {path:?}: {error}"))
}

pub(super) fn relative(path: &str) -> String {
    clean(&format!("/{path}")).trim_start_matches('/').to_owned()
}

impl Files for Tree {
    fn kind(&self, path: &str) -> Result<Option<NodeKind>, Failure> {
        let path = relative(path);
        if self.hides(&path) {
            return Ok(None);
        }
        let found = self.root.handle(Path::new(&path)).and_then(|fd| Ok(rustix::fs::fstat(&fd)?));
        match found {
            Ok(stat) => Ok(Some(node_kind(&stat))),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                Ok(None)
            }
            Err(error) => Err(unreadable(&path, &error)),
        }
    }

    fn names(&self, directory: &str) -> Result<Vec<String>, Failure> {
        let directory = relative(directory);
        let failed = |error: io::Error| unreadable(&directory, &error);
        let fd = self
            .root
            .open(Path::new(&directory), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC);
        let names = entries(fd.map_err(failed)?.as_fd()).map_err(failed)?;
        let names = names.into_iter().filter_map(|name| name.into_string().ok());
        Ok(names.filter(|name| !self.hides(&build::select::join(&directory, name))).collect())
    }

    fn digest(&self, path: &str, keep: &dyn Fn(&str) -> bool) -> Result<Digest, Failure> {
        let path = relative(path);
        let failed = |error: io::Error| unreadable(&path, &error);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let hasher = Hasher::default();
        let mut walk = Walk { tree: self, hasher, keep, buffer: vec![0; 128 << 10] };
        let handle = self.root.handle(Path::new(&path)).map_err(failed)?;
        let stat = rustix::fs::fstat(&handle).map_err(|error| failed(error.into()))?;
        match node_kind(&stat) {
            NodeKind::Directory => {
                let fd =
                    self.root.open(Path::new(&path), flags | OFlags::DIRECTORY).map_err(failed)?;
                walk.directory(fd, &path, "", 0).map_err(failed)?;
            }
            NodeKind::File => {
                let fd = self.root.open(Path::new(&path), flags).map_err(failed)?;
                walk.meta(&stat, fd.as_fd()).map_err(failed)?;
                walk.content(fd).map_err(failed)?;
            }
            NodeKind::Other => walk.plain_meta(&stat),
        }
        Ok(walk.hasher.finish())
    }
}

fn node_kind(stat: &Stat) -> NodeKind {
    match FileType::from_raw_mode(stat.st_mode as RawMode) {
        FileType::Directory => NodeKind::Directory,
        FileType::RegularFile => NodeKind::File,
        _ => NodeKind::Other,
    }
}

/// The names in an open directory, sorted.
pub(super) fn entries(fd: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The stream that a digest is of.
#[derive(Default)]
pub(super) struct Hasher(Sha256);

impl Hasher {
    pub(super) fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Kind and permissions.
    pub(super) fn mode(&mut self, mode: RawMode) {
        self.part(&mode.to_le_bytes());
    }

    pub(super) fn content(&mut self, digest: &[u8; 32], size: u64) {
        self.0.update(digest);
        self.0.update(size.to_le_bytes());
    }

    pub(super) fn link(&mut self, target: &[u8]) {
        self.part(b"link");
        self.part(target);
    }

    /// Ends a directory, so that its last child cannot be taken for its next sibling.
    pub(super) fn end(&mut self) {
        self.part(b"");
    }

    pub(super) fn finish(self) -> Digest {
        let raw: [u8; 32] = self.0.finalize().into();
        Digest::from_raw(raw)
    }
}

struct Walk<'a> {
    tree: &'a Tree,
    hasher: Hasher,
    keep: &'a dyn Fn(&str) -> bool,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    fn part(&mut self, bytes: &[u8]) {
        self.hasher.part(bytes);
    }

    fn plain_meta(&mut self, stat: &Stat) {
        self.hasher.mode(stat.st_mode);
        if self.tree.owners == Owners::Count {
            self.part(&stat.st_uid.to_le_bytes());
            self.part(&stat.st_gid.to_le_bytes());
        }
        let file_type = FileType::from_raw_mode(stat.st_mode as RawMode);
        if matches!(file_type, FileType::CharacterDevice | FileType::BlockDevice) {
            self.part(&stat.st_rdev.to_le_bytes());
        }
    }

    fn meta(&mut self, stat: &Stat, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.plain_meta(stat);
        let mut list = vec![0_u8; 256];
        let length = match rustix::fs::flistxattr(fd, &mut list[..]) {
            Ok(length) => length,
            Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
            Err(rustix::io::Errno::RANGE) => {
                list.resize(XATTR_BYTES_MAX, 0);
                rustix::fs::flistxattr(fd, &mut list[..])?
            }
            Err(error) => return Err(error.into()),
        };
        let mut names: Vec<&[u8]> =
            list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        for name in names {
            let mut value = vec![0_u8; XATTR_BYTES_MAX];
            let length = rustix::fs::fgetxattr(fd, OsStr::from_bytes(name), &mut value[..])?;
            self.part(name);
            self.part(&value[..length]);
        }
        Ok(())
    }

    fn content(&mut self, fd: OwnedFd) -> io::Result<()> {
        let mut file = File::from(fd);
        let (mut hash, mut total) = (Sha256::new(), 0_u64);
        loop {
            let got = file.read(&mut self.buffer)?;
            if got == 0 {
                break;
            }
            total += got as u64;
            hash.update(&self.buffer[..got]);
        }
        self.hasher.content(&hash.finalize().into(), total);
        Ok(())
    }

    fn directory(&mut self, fd: OwnedFd, path: &str, below: &str, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other("directories are nested too deeply"));
        }
        self.meta(&rustix::fs::fstat(&fd)?, fd.as_fd())?;
        for name in entries(fd.as_fd())? {
            let text = name.to_string_lossy();
            let inside = build::select::join(path, &text);
            let relative = build::select::join(below, &text);
            if self.tree.hides(&inside) || !(self.keep)(&relative) {
                continue;
            }
            let stat = rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let file_type = FileType::from_raw_mode(stat.st_mode as RawMode);
            let is_excluded = self.tree.ignore.excludes(&inside);
            if is_excluded && file_type != FileType::Directory {
                continue;
            }
            self.part(name.as_bytes());
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match file_type {
                FileType::Directory => {
                    let child =
                        rustix::fs::openat(&fd, &name, flags | OFlags::DIRECTORY, Mode::empty())?;
                    self.directory(child, &inside, &relative, depth + 1)?;
                }
                FileType::RegularFile => {
                    let child = rustix::fs::openat(&fd, &name, flags, Mode::empty())?;
                    self.meta(&stat, child.as_fd())?;
                    self.content(child)?;
                }
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&fd, &name, Vec::new())?;
                    self.hasher.link(target.as_bytes());
                }
                _ => self.plain_meta(&stat),
            }
        }
        self.hasher.end();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("tug-build-files-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("d/e")).unwrap();
            fs::write(path.join("a"), "a").unwrap();
            fs::write(path.join("d/b"), "b").unwrap();
            fs::write(path.join("d/e/c"), "c").unwrap();
            symlink("../../etc", path.join("out")).unwrap();
            Self(path)
        }

        fn tree(&self, ignore: &str) -> Tree {
            let root = Root::open_at(&self.0).unwrap();
            Tree::new(Arc::new(root), Arc::new(Ignore::parse(ignore).unwrap()), Owners::Ignored)
        }

        fn digest(&self, ignore: &str) -> Digest {
            self.tree(ignore).digest("", &|_| true).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_digest_is_of_content_and_modes_but_not_of_times() {
        let scratch = Scratch::new("content");
        let first = scratch.digest("");
        fs::write(scratch.0.join("d/b"), "b").unwrap();
        assert_eq!(scratch.digest(""), first);
        fs::set_permissions(scratch.0.join("d/b"), fs::Permissions::from_mode(0o755)).unwrap();
        let changed = scratch.digest("");
        assert_ne!(changed, first);
        fs::write(scratch.0.join("d/b"), "B").unwrap();
        assert_ne!(scratch.digest(""), changed);
    }

    #[test]
    fn what_is_left_out_is_not_there() {
        let scratch = Scratch::new("ignore");
        let tree = scratch.tree("d\n!d/e\n");
        assert_eq!(tree.kind("d/b").unwrap(), None);
        assert_eq!(tree.kind("d").unwrap(), Some(NodeKind::Directory));
        assert_eq!(tree.names("d").unwrap(), ["e"]);
        assert_eq!(tree.names("").unwrap(), ["a", "d", "out"]);
        let digest = scratch.digest("d\n");
        fs::write(scratch.0.join("d/new"), "x").unwrap();
        assert_eq!(scratch.digest("d\n"), digest);
    }

    #[test]
    fn a_link_never_leads_out() {
        let scratch = Scratch::new("links");
        let tree = scratch.tree("");
        assert_eq!(tree.kind("out").unwrap(), None, "there is no etc in the context");
        assert_eq!(tree.kind("../../../etc/passwd").unwrap(), None);
        assert_eq!(tree.kind("a/b").unwrap(), None);
    }
}
