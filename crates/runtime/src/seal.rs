//! Our own binary, in a form that nothing inside a container can overwrite (CVE-2019-5736).
//!
//! Between joining a container and execve(2), a process of ours can be looked at from inside, and
//! its /proc/PID/exe leads to the binary on the host. Three things stand in the way, in this order:
//! the process is not dumpable from its first instruction on, so only CAP_SYS_PTRACE sees it; what
//! runs it is a monitor that was itself executed through a [`Sealed`] descriptor, so the link leads
//! to a read-only overlay in no namespace, which neither writes nor remounts; and execve replaces
//! the image in the same instant as it makes the process dumpable again.
//!
//! The overlay has two lower directories and no upper one, so it is read-only for good: remounting
//! it writable fails in the kernel, with any capability. Where overlays cannot be mounted the binary
//! is copied into a memfd and sealed.
//!
//! Invariant: nothing is copied in the usual case; a daemon makes one `Sealed` and hands it to all.

use std::io::{self, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use sys::mount::{self, Attributes, Depth, Filesystem};

/// A handle on our own binary that cannot be written through.
#[derive(Debug)]
pub struct Sealed {
    file: OwnedFd,
    /// Keeps the mount alive that `file` is on, so that it can be cloned: see [`Sealed::mount`].
    _overlay: Option<OwnedFd>,
}

/// The binary in a form that can be mounted in a container.
#[derive(Debug)]
pub(crate) enum InitMount {
    /// A detached mount of the file itself.
    File(OwnedFd),
    /// A detached file system with the file in it under [`STAGED_NAME`].
    Staged(OwnedFd),
}

pub(crate) const STAGED_NAME: &str = "tug";

impl Sealed {
    /// Seals the binary that this process runs; a process that runs from a sealed one shares it.
    ///
    /// # Errors
    /// When it can neither be shown through an overlay nor be copied.
    pub fn open() -> io::Result<Self> {
        if is_sealed() {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::open("/proc/self/exe", flags, Mode::empty())?;
            return Ok(Self { file, _overlay: None });
        }
        open_overlay().or_else(|_| Self::copy())
    }

    /// A sealed copy in memory, for hosts where no overlay can be mounted.
    ///
    /// # Errors
    /// When memory is short.
    pub fn copy() -> io::Result<Self> {
        Ok(Self { file: open_copy()?, _overlay: None })
    }

    /// A mount of the binary, for [`crate::Init::Engine`].
    ///
    /// The overlay serves as long as whoever made it lives and the kernel (6.15) clones mounts that
    /// are attached nowhere. Else a private copy does, which costs the copying.
    pub(crate) fn mount(&self) -> io::Result<InitMount> {
        let set = Attributes::READ_ONLY.with(Attributes::NO_SUID).with(Attributes::NO_DEV);
        let change = mount::Change { set, ..mount::Change::default() };
        if let Ok(clone) = mount::clone_tree(&self.file, Path::new(""), Depth::Only) {
            mount::change(&clone, Depth::Only, change)?;
            return Ok(InitMount::File(clone));
        }
        let staged = Filesystem::open("tmpfs")?.mount(Attributes::NONE)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(&staged, STAGED_NAME, flags, Mode::from_raw_mode(0o555))?;
        let mut own = std::fs::File::from(self.file.try_clone()?);
        own.rewind()?;
        io::copy(&mut own, &mut std::fs::File::from(copy))?;
        mount::change(&staged, Depth::Only, change)?;
        Ok(InitMount::Staged(staged))
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether this process was executed from a sealed binary.
#[must_use]
pub fn is_sealed() -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let Ok(own) = rustix::fs::open("/proc/self/exe", flags, Mode::empty()) else { return false };
    if rustix::fs::fstatvfs(&own).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY))
    {
        return true;
    }
    let Ok(own) =
        rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    else {
        return false;
    };
    rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

fn open_overlay() -> io::Result<Sealed> {
    let path = std::fs::read_link("/proc/self/exe")?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let overlay = overlay_beside_tmpfs(directory)?;
    let file = rustix::fs::openat(&overlay, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(Sealed { file, _overlay: Some(overlay) })
}

/// The kernel wants two lower directories where no upper one is: an empty tmpfs is the other.
fn overlay_beside_tmpfs(directory: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let empty = Filesystem::open("tmpfs")?.mount(Attributes::NONE)?;
    let overlay = Filesystem::open("overlay")?;
    overlay.set("source", b"tug-sealed")?;
    overlay.set("lowerdir+", directory.as_os_str().as_bytes())?;
    overlay.set_fd("lowerdir+", empty.as_fd())?;
    overlay.mount(Attributes::READ_ONLY)
}

fn open_copy() -> io::Result<OwnedFd> {
    let memfd =
        rustix::fs::memfd_create("tug-sealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = std::fs::File::from(memfd);
    io::copy(&mut std::fs::File::open("/proc/self/exe")?, &mut copy)?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o555))?;
    copy.rewind()?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}
