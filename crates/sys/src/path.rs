//! Paths inside a tree that somebody else controls: resolved by the kernel, from a descriptor.
//!
//! A [`Root`] is the top of such a tree. Every look-up goes through openat2(2) with
//! RESOLVE_IN_ROOT (so `..` and absolute links stay inside) and RESOLVE_NO_MAGICLINKS (so links of
//! /proc lead nowhere). What a look-up yields is a descriptor, and that is what callers go on with:
//! no path of the tree is ever put together as a string and walked again.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Links followed while creating directories; the kernel's own limit is the same.
const LINKS_MAX: u32 = 40;

/// The top of a tree.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// The tree below an open directory.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The tree below the directory at `path`, which is trusted.
    ///
    /// # Errors
    /// When it is no directory.
    pub fn open_at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Opens `path` inside the tree; a leading slash means the tree's top.
    ///
    /// # Errors
    /// `ELOOP` for a magic link, besides open(2)'s own.
    pub fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.open_mode(path, flags, Mode::empty())
    }

    /// Opens `path` as a mere handle (`O_PATH`).
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn handle(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    fn open_mode(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        open_retrying(self.fd.as_fd(), path, flags, mode, resolve)
    }

    /// A handle on the directory `path`, made with its parents (each `mode`) where missing.
    ///
    /// # Errors
    /// `ENOTDIR` when something else stands there, `ELOOP` for too many links.
    pub fn create_dir_all(&self, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
        self.create_dirs(path, mode, LINKS_MAX)
    }

    fn create_dirs(&self, path: &Path, mode: Mode, links: u32) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        // A name such as `a/..` cannot be created, and openat2 has just said that it is not there.
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let parent_fd = self.create_dirs(parent, mode, links)?;
        match rustix::fs::mkdirat(&parent_fd, name, mode) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                // Made meanwhile, be it by ourselves: our descriptors are entries of /proc/self/fd.
                match self.open(path, flags) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    done => return done,
                }
                if let Some(target) = dangling_link(&parent_fd, name, parent)? {
                    let links = links.checked_sub(1).ok_or(rustix::io::Errno::LOOP)?;
                    return self.create_dirs(&target, mode, links);
                }
            }
            Err(error) => return Err(error.into()),
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        open_retrying(parent_fd.as_fd(), Path::new(name), flags, Mode::empty(), resolve)
    }

    /// A handle on the file `path`, made empty (with its parents) where nothing is there.
    ///
    /// # Errors
    /// As [`Root::create_dir_all`].
    pub fn create_file(&self, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
        match self.handle(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let parent_fd = self.create_dir_all(parent, Mode::from_raw_mode(0o755))?;
        let name = Path::new(name);
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        drop(open_retrying(parent_fd.as_fd(), name, create, mode, resolve)?);
        open_retrying(parent_fd.as_fd(), name, OFlags::PATH, Mode::empty(), resolve)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Where a link that leads nowhere points, seen from the tree's top; `None` for no link.
fn dangling_link(parent_fd: &OwnedFd, name: &OsStr, parent: &Path) -> io::Result<Option<PathBuf>> {
    use std::os::unix::ffi::OsStringExt;
    match rustix::fs::readlinkat(parent_fd, name, Vec::new()) {
        Ok(target) => {
            let target = std::ffi::OsString::from_vec(target.into_bytes());
            Ok(Some(parent.join(target)))
        }
        Err(rustix::io::Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// openat2(2) answers EAGAIN when a rename raced with a `..`; trying again is its manual's advice.
fn open_retrying(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    for _ in 0..128 {
        match rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
    Err(rustix::io::Errno::AGAIN.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> (Self, Root) {
            let path = std::env::temp_dir().join(format!("tug-path-{}-{name}", std::process::id()));
            std::fs::create_dir_all(path.join("root")).unwrap();
            let root = Root::open_at(&path.join("root")).unwrap();
            (Self(path), root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_out_of_the_tree_stay_in_it() {
        let (tree, root) = Tree::new("stay");
        std::os::unix::fs::symlink("/../../outside", tree.0.join("root/link")).unwrap();
        root.create_dir_all(Path::new("/link/made"), Mode::from_raw_mode(0o755)).unwrap();
        assert!(tree.0.join("root/outside/made").is_dir());
        assert!(!tree.0.join("outside").exists());
    }

    #[test]
    fn a_file_is_made_with_its_parents() {
        let (tree, root) = Tree::new("file");
        root.create_file(Path::new("a/b/c"), Mode::from_raw_mode(0o644)).unwrap();
        assert!(tree.0.join("root/a/b/c").is_file());
    }

    #[test]
    fn a_descriptor_that_comes_to_be_on_the_way_is_no_directory() {
        let root = Root::open_at(Path::new("/")).unwrap();
        // One of these numbers is the next free one, which the look-up itself takes.
        for number in 3..64 {
            let path = PathBuf::from(format!("/proc/self/fd/{number}"));
            assert!(root.create_dir_all(&path, Mode::from_raw_mode(0o755)).is_err(), "{path:?}");
        }
    }

    #[test]
    fn links_in_a_circle_are_given_up() {
        let (tree, root) = Tree::new("circle");
        std::os::unix::fs::symlink("b", tree.0.join("root/a")).unwrap();
        std::os::unix::fs::symlink("a", tree.0.join("root/b")).unwrap();
        let error = root.create_dir_all(Path::new("a/x"), Mode::from_raw_mode(0o755)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }
}
