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
}

impl Sealed {
    /// Seals the binary that this process runs.
    ///
    /// # Errors
    /// When it can neither be shown through an overlay nor be copied.
    pub fn open() -> io::Result<Self> {
        let file = open_overlay().or_else(|_| open_copy())?;
        Ok(Self { file })
    }

    /// A mount of the binary, to be attached on a file: for [`crate::Init::Engine`].
    ///
    /// # Errors
    /// When the kernel is older than 6.15 (a detached mount cannot be cloned there) or the seal is a
    /// copy; callers then bind the file itself, read-only.
    pub(crate) fn mount(&self) -> io::Result<OwnedFd> {
        let clone = mount::clone_tree(&self.file, Path::new(""), Depth::Only).or_else(|_| {
            let path = std::fs::read_link("/proc/self/exe")?;
            mount::clone_tree(rustix::fs::CWD, &path, Depth::Only)
        })?;
        let set = Attributes::READ_ONLY.with(Attributes::NO_SUID).with(Attributes::NO_DEV);
        mount::change(&clone, Depth::Only, mount::Change { set, ..mount::Change::default() })?;
        Ok(clone)
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

fn open_overlay() -> io::Result<OwnedFd> {
    let path = std::fs::read_link("/proc/self/exe")?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let overlay = overlay_beside_tmpfs(directory)?;
    Ok(rustix::fs::openat(&overlay, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
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
