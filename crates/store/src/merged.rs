//! Looking things up in stacked layers without mounting them.
//!
//! The rules are overlayfs': the topmost layer that has a name decides; directories of that name
//! merge downwards until one is opaque, or a whiteout or a non-directory lies in between.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use crate::tree::{OPAQUE, is_whiteout, split};

/// Directories that are known at a time, each with a descriptor in every layer that has it.
const DIRS_CACHED_MAX: usize = 512;

/// A stack of layers, read-only.
pub(crate) struct Merged {
    root: Arc<Parts>,
    dirs: HashMap<Vec<u8>, Option<Arc<Parts>>>,
}

/// The directories of one name, top first.
struct Parts(Vec<OwnedFd>);

/// Something in the merged tree.
pub(crate) struct Found {
    pub(crate) stat: Stat,
    parent: Arc<Parts>,
    layer: usize,
    name: Vec<u8>,
}

impl Merged {
    /// `lowers` are directories, top first.
    pub(crate) fn open(lowers: &[PathBuf]) -> io::Result<Merged> {
        let roots =
            lowers.iter().map(|lower| sys::fs::open_dir(lower)).collect::<io::Result<Vec<_>>>()?;
        Ok(Merged { root: Arc::new(Parts(roots)), dirs: HashMap::new() })
    }

    /// What is at `path`, which has no symbolic links before its last component.
    pub(crate) fn find(&mut self, path: &[u8]) -> io::Result<Option<Found>> {
        if path.is_empty() {
            let Some(root) = self.dir(b"")? else { return Ok(None) };
            let Some(first) = root.0.first() else { return Ok(None) };
            let stat = rustix::fs::fstat(first)?;
            return Ok(Some(Found { stat, parent: root, layer: 0, name: b".".to_vec() }));
        }
        let (parent, name) = split(path);
        let Some(parent) = self.dir(parent)? else { return Ok(None) };
        for layer in 0..parent.0.len() {
            if let Some(stat) = stat_at(&parent.0[layer], name)? {
                let gone = is_whiteout(&stat);
                return Ok((!gone).then(|| Found { stat, parent, layer, name: name.to_vec() }));
            }
        }
        Ok(None)
    }

    fn dir(&mut self, path: &[u8]) -> io::Result<Option<Arc<Parts>>> {
        if path.is_empty() {
            return Ok(Some(Arc::clone(&self.root)));
        }
        if let Some(known) = self.dirs.get(path) {
            return Ok(known.clone());
        }
        let (parent, name) = split(path);
        let found = match self.dir(parent)? {
            Some(parent) => open_parts(&parent, name)?.map(Arc::new),
            None => None,
        };
        if self.dirs.len() >= DIRS_CACHED_MAX {
            self.dirs.clear();
        }
        self.dirs.insert(path.to_vec(), found.clone());
        Ok(found)
    }
}

fn open_parts(parent: &Parts, name: &[u8]) -> io::Result<Option<Parts>> {
    let mut parts = Vec::new();
    for dir in &parent.0 {
        let Some(stat) = stat_at(dir, name)? else { continue };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            break;
        }
        let opened = sys::fs::open_dir_at(dir.as_fd(), OsStr::from_bytes(name))?;
        let opaque = sys::fs::xattr(opened.as_fd(), OPAQUE)?.is_some_and(|value| value == b"y");
        parts.push(opened);
        if opaque {
            break;
        }
    }
    Ok((!parts.is_empty()).then_some(Parts(parts)))
}

fn stat_at(dir: &OwnedFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Found {
    pub(crate) fn is_dir(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    pub(crate) fn is_symlink(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Symlink
    }

    pub(crate) fn link_target(&self) -> io::Result<Vec<u8>> {
        let dir = self.parent.0[self.layer].as_fd();
        let target = sys::fs::read_link_at(dir, OsStr::from_bytes(&self.name))?;
        Ok(target.into_os_string().into_encoded_bytes())
    }

    /// Opens a regular file.
    pub(crate) fn open(&self) -> io::Result<std::fs::File> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let dir = &self.parent.0[self.layer];
        Ok(rustix::fs::openat(dir, OsStr::from_bytes(&self.name), flags, Mode::empty())?.into())
    }

    pub(crate) fn xattrs(&self) -> io::Result<sys::fs::Xattrs> {
        sys::fs::xattrs_at(self.parent.0[self.layer].as_fd(), OsStr::from_bytes(&self.name))
    }
}
