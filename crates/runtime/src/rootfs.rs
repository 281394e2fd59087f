//! Root file systems: mounted detached, so that nothing of them ever shows on the host.
//!
//! The mount made here exists by its descriptor alone. A container attaches it in its own mount
//! namespace; `docker cp`, `diff` and `export` read through the descriptor. When the last of both is
//! gone, so is the mount: no kill can leak one.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use sys::mount::{self, Attributes, Change, Depth};
use sys::overlay::{self, Overlay};

/// Where a root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootfsMount {
    /// Layers joined by overlayfs. Without `writable` the result is read-only.
    Overlay {
        /// Topmost first.
        lowers: Vec<PathBuf>,
        writable: Option<Writable>,
        /// Further mount options, such as `metacopy=on`.
        options: Vec<String>,
    },
    /// A directory as it is.
    Bind { path: PathBuf },
}

/// The writable layer of an overlay: both directories on one file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writable {
    pub upper: PathBuf,
    pub work: PathBuf,
}

/// Mounts `rootfs` and gives its root directory, attached nowhere.
///
/// # Errors
/// With the kernel's explanation where there is one.
pub fn open(rootfs: &RootfsMount) -> io::Result<OwnedFd> {
    match rootfs {
        RootfsMount::Bind { path } => mount::clone_tree(rustix::fs::CWD, path, Depth::Recursive),
        RootfsMount::Overlay { lowers, writable, options } => {
            open_overlay(lowers, writable.as_ref(), options)
        }
    }
}

fn open_overlay(
    lowers: &[PathBuf],
    writable: Option<&Writable>,
    options: &[String],
) -> io::Result<OwnedFd> {
    // overlayfs.rst: without an upper directory there have to be two lower ones. A single layer has
    // nothing to hide or to merge, so it is its own result.
    if let ([only], None) = (lowers, writable) {
        let tree = mount::clone_tree(rustix::fs::CWD, only, Depth::Only)?;
        mount::change(
            &tree,
            Depth::Only,
            Change { set: Attributes::READ_ONLY, ..Change::default() },
        )?;
        return Ok(tree);
    }
    let upper = writable.map(|writable| (writable.upper.as_path(), writable.work.as_path()));
    overlay::mount(&Overlay { lowers, upper, options }, Attributes::NONE)
}

/// Opens the directory behind a detached mount for reading.
///
/// # Errors
/// When it cannot be opened.
pub fn open_directory(mount: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        mount,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}
