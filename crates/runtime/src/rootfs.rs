//! Root file systems: mounted detached, so that nothing of them ever shows on the host.
//!
//! The mount made here exists by its descriptor alone. A container attaches it in its own mount
//! namespace; `docker cp`, `diff` and `export` read through the descriptor. When the last of both is
//! gone, so is the mount: no kill can leak one.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use sys::mount::{self, Attributes, Change, Depth, Filesystem};

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
    use std::os::unix::ffi::OsStrExt;
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
    let overlay = Filesystem::open("overlay")?;
    // The source shows in mountinfo and df.
    overlay.set("source", b"overlay")?;
    match append_lowers(&overlay, lowers) {
        Ok(()) => {}
        // `lowerdir+` is of Linux 6.5; before, all layers go into one string.
        Err(error)
            if error.raw_os_error() == Some(22) || error.kind() == io::ErrorKind::InvalidInput =>
        {
            overlay.set("lowerdir", &joined(lowers))?;
        }
        Err(error) => return Err(error),
    }
    if let Some(Writable { upper, work }) = writable {
        overlay.set("upperdir", upper.as_os_str().as_bytes())?;
        overlay.set("workdir", work.as_os_str().as_bytes())?;
    }
    overlay.set_options(options.iter().map(String::as_str))?;
    overlay.mount(if writable.is_some() { Attributes::NONE } else { Attributes::READ_ONLY })
}

fn append_lowers(overlay: &Filesystem, lowers: &[PathBuf]) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    for lower in lowers {
        overlay.set("lowerdir+", lower.as_os_str().as_bytes())?;
    }
    Ok(())
}

/// Paths joined by colons, which are escaped inside of them: kernel overlayfs.rst.
fn joined(lowers: &[PathBuf]) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut text = Vec::new();
    for lower in lowers {
        if !text.is_empty() {
            text.push(b':');
        }
        for byte in lower.as_os_str().as_bytes() {
            if matches!(byte, b':' | b'\\') {
                text.push(b'\\');
            }
            text.push(*byte);
        }
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_in_layer_paths_are_escaped() {
        assert_eq!(joined(&["/a:b".into(), "/c".into()]), b"/a\\:b:/c");
    }
}
