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

use rustix::fs::{AtFlags, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, StatxFlags};
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

/// `OVERLAYFS_SUPER_MAGIC`, linux/magic.h.
const OVERLAY_MAGIC: i64 = 0x794c_7630;

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

/// Whether this process was executed from a binary that was sealed here. Any other place that is
/// read-only for now, such as an immutable host's /usr, is written to by whoever remounts it.
#[must_use]
pub fn is_sealed() -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self/exe", flags, Mode::empty()).is_ok_and(|own| is_sealed_file(&own))
}

/// A copy in memory that nobody can write, or a file of a read-only overlay that is attached nowhere
/// in our namespace: nothing names such a mount, so nothing remounts it.
fn is_sealed_file(file: &OwnedFd) -> bool {
    let needed = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    if rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(needed)) {
        return true;
    }
    let overlay = rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type == OVERLAY_MAGIC);
    let read_only = rustix::fs::fstatvfs(file)
        .is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    overlay && read_only && is_detached(file)
}

/// False also where the kernel does not say.
fn is_detached(file: &OwnedFd) -> bool {
    let Ok(stat) = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) else {
        return false;
    };
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return false;
    }
    let own = stat.stx_mnt_id.to_string();
    let Ok(mounts) = std::fs::read_to_string("/proc/thread-self/mountinfo") else { return false };
    mounts.lines().all(|line| line.split(' ').next() != Some(&own))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: impl AsFd, path: &Path) -> OwnedFd {
        rustix::fs::openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn what_is_sealed_here_is_known_again() {
        assert!(is_sealed_file(&Sealed::copy().unwrap().file));
        if sys::testing::privileged("an overlay is mounted") {
            assert!(is_sealed_file(&open_overlay().unwrap().file));
        }
    }

    #[test]
    fn a_read_only_mount_is_no_seal() {
        let memory = rustix::fs::memfd_create("loose", MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(!is_sealed_file(&memory), "anybody can write it");
        if !sys::testing::privileged("a file is mounted read-only") {
            return;
        }
        let own = std::env::current_exe().unwrap();
        let clone = mount::clone_tree(rustix::fs::CWD, &own, Depth::Only).unwrap();
        let set = Attributes::READ_ONLY;
        mount::change(&clone, Depth::Only, mount::Change { set, ..Default::default() }).unwrap();
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&clone));
        assert!(!is_sealed_file(&open(rustix::fs::CWD, Path::new(&link))), "no overlay of ours");
    }

    #[test]
    fn an_overlay_that_is_attached_can_be_remounted() {
        if !sys::testing::privileged("an overlay is attached in a mount namespace") {
            return;
        }
        std::thread::spawn(|| {
            sys::namespace::unshare(sys::namespace::Namespaces::MOUNT).unwrap();
            mount::change_all(mount::Propagation::Private).unwrap();
            let sealed = open_overlay().unwrap();
            let name = std::env::current_exe().unwrap().file_name().unwrap().to_owned();
            let overlay = sealed._overlay.as_ref().unwrap();
            let target = open(rustix::fs::CWD, Path::new("/tmp"));
            mount::attach(overlay, &target).unwrap();
            assert!(!is_sealed_file(&open(overlay, Path::new(&name))));
            assert!(!is_sealed_file(&sealed.file));
        })
        .join()
        .unwrap();
    }
}
