//! Mounts by descriptor: new file systems, clones of trees, attributes and the pivot.
//!
//! A mount made here is *detached*: it exists while its descriptor is open and shows nowhere until
//! [`attach`] puts it on a target, which is a descriptor too. So no path is walked twice, and what
//! was resolved is what is mounted on.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount as raw;

use crate::process::check;

/// Attributes of one mount, in the bits of mount_setattr(2).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attributes(u64);

impl Attributes {
    pub const NONE: Self = Self(0);
    pub const READ_ONLY: Self = Self(0x1);
    pub const NO_SUID: Self = Self(0x2);
    pub const NO_DEV: Self = Self(0x4);
    pub const NO_EXEC: Self = Self(0x8);
    /// The field of access-time settings; zero in it is relatime.
    pub const ATIME_FIELD: Self = Self(0x70);
    pub const NO_ATIME: Self = Self(0x10);
    pub const STRICT_ATIME: Self = Self(0x20);
    pub const NO_DIR_ATIME: Self = Self(0x80);
    pub const NO_SYMLINK_FOLLOW: Self = Self(0x20_0000);

    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// How mounts and unmounts travel between copies of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Slave,
    Shared,
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Slave => libc::MS_SLAVE,
            Self::Shared => libc::MS_SHARED,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// Whether an operation covers the mounts below as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    Only,
    Recursive,
}

/// A file system being configured: fsopen(2).
#[derive(Debug)]
pub struct Filesystem {
    context: OwnedFd,
}

impl Filesystem {
    /// # Errors
    /// `ENODEV` when the kernel does not know the type.
    pub fn open(kind: &str) -> io::Result<Self> {
        Ok(Self { context: raw::fsopen(kind, raw::FsOpenFlags::FSOPEN_CLOEXEC)? })
    }

    /// Sets `key=value`.
    ///
    /// # Errors
    /// With the kernel's own words about it, where it has some.
    pub fn set(&self, key: &str, value: &[u8]) -> io::Result<()> {
        let value = CString::new(value).map_err(|_| io::ErrorKind::InvalidInput)?;
        raw::fsconfig_set_string(self.context.as_fd(), key, value)
            .map_err(|error| self.explain(error))
    }

    /// Sets the option `key` that has no value.
    ///
    /// # Errors
    /// With the kernel's own words about it, where it has some.
    pub fn set_flag(&self, key: &str) -> io::Result<()> {
        raw::fsconfig_set_flag(self.context.as_fd(), key).map_err(|error| self.explain(error))
    }

    /// Sets `key` to an open file or directory.
    ///
    /// # Errors
    /// With the kernel's own words about it, where it has some.
    pub fn set_fd(&self, key: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        raw::fsconfig_set_fd(self.context.as_fd(), key, fd).map_err(|error| self.explain(error))
    }

    /// Sets options as mount(8) writes them: `a,b=c`.
    ///
    /// # Errors
    /// With the kernel's own words about it, where it has some.
    pub fn set_options<'a>(&self, options: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
        for option in options {
            match option.split_once('=') {
                Some((key, value)) => self.set(key, value.as_bytes())?,
                None => self.set_flag(option)?,
            }
        }
        Ok(())
    }

    /// Creates the superblock and a detached mount of it.
    ///
    /// # Errors
    /// With the kernel's own words about it, where it has some.
    pub fn mount(self, attributes: Attributes) -> io::Result<OwnedFd> {
        raw::fsconfig_create(self.context.as_fd()).map_err(|error| self.explain(error))?;
        let attributes =
            raw::MountAttrFlags::from_bits_retain(u32::try_from(attributes.bits()).unwrap_or(0));
        raw::fsmount(self.context.as_fd(), raw::FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|error| self.explain(error))
    }

    /// The kernel leaves messages on the context, one a read: fsopen(2).
    fn explain(&self, error: rustix::io::Errno) -> io::Error {
        let mut words = Vec::new();
        let mut buffer = [0_u8; 512];
        while let Ok(count) = rustix::io::read(&self.context, &mut buffer) {
            if count == 0 || words.len() > 4 {
                break;
            }
            let line = String::from_utf8_lossy(&buffer[..count]);
            let line = line.trim_end().trim_start_matches(['e', 'w', 'i']).trim_start().to_owned();
            words.push(line);
        }
        let error = io::Error::from(error);
        if words.is_empty() {
            return error;
        }
        io::Error::new(error.kind(), format!("{error}: {}", words.join("; ")))
    }
}

/// A detached copy of the mount at `path` (below `dir`), or of the tree of mounts there.
///
/// # Errors
/// `ENOENT` and the like from the path; `EINVAL` for what cannot be bound.
pub fn clone_tree(dir: impl AsFd, path: &Path, depth: Depth) -> io::Result<OwnedFd> {
    let mut flags = raw::OpenTreeFlags::OPEN_TREE_CLONE | raw::OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.as_os_str().is_empty() {
        flags |= raw::OpenTreeFlags::AT_EMPTY_PATH;
    }
    if depth == Depth::Recursive {
        flags |= raw::OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(raw::open_tree(dir, path, flags)?)
}

/// Moves the mount behind `mount` onto what `target` is open on.
///
/// # Errors
/// `ENOTDIR` and `EISDIR`-like mismatches come as `ENOTDIR`; `EINVAL` when the target is not in
/// our mount namespace.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    Ok(raw::move_mount(
        mount,
        "",
        target,
        "",
        raw::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | raw::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )?)
}

/// Takes the mount whose root directory is `root` out of our namespace. Changes the working
/// directory to it.
///
/// # Errors
/// `EINVAL` when it is attached nowhere.
pub fn detach(root: impl AsFd) -> io::Result<()> {
    // umount2(2) takes a path; this one needs no /proc to lead to the descriptor.
    rustix::process::fchdir(root)?;
    Ok(raw::unmount(".", raw::UnmountFlags::DETACH)?)
}

/// Takes the topmost mount at `path`, which is trusted, out of our namespace. Who still uses it keeps it.
///
/// # Errors
/// `EINVAL` when nothing is mounted there.
pub fn unmount(path: &Path) -> io::Result<()> {
    let flags = raw::UnmountFlags::DETACH | raw::UnmountFlags::NOFOLLOW;
    Ok(raw::unmount(path, flags)?)
}

#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A change of mounts: mount_setattr(2), Linux 5.12.
#[derive(Debug, Default, Clone, Copy)]
pub struct Change<'a> {
    pub set: Attributes,
    pub clear: Attributes,
    pub propagation: Option<Propagation>,
    /// A user namespace through which owners are shown; only for a mount not yet attached.
    pub mapping: Option<BorrowedFd<'a>>,
}

impl Change<'_> {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
            && self.clear.is_empty()
            && self.propagation.is_none()
            && self.mapping.is_none()
    }
}

/// Changes the mount behind `mount`, or all below too.
///
/// # Errors
/// `EPERM` when an attribute is locked; `EINVAL` when `mount` is not the root of a mount.
pub fn change(mount: impl AsFd, depth: Depth, change: Change<'_>) -> io::Result<()> {
    const IDMAP: u64 = 0x10_0000;
    let mut attr = MountAttr {
        attr_set: change.set.bits(),
        attr_clr: change.clear.bits(),
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns_fd: 0,
    };
    // mount_setattr(2): the access-time field is changed as a whole, so it has to be cleared.
    if attr.attr_set & Attributes::ATIME_FIELD.bits() != 0 {
        attr.attr_clr |= Attributes::ATIME_FIELD.bits();
    }
    if let Some(mapping) = change.mapping {
        attr.attr_set |= IDMAP;
        attr.userns_fd = mapping.as_raw_fd() as u64;
    }
    let recursive = match depth {
        Depth::Only => 0,
        Depth::Recursive => libc::AT_RECURSIVE,
    };
    // SAFETY: the path is an empty C string, `attr` is a live record of the size that is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Sets how all mounts of our namespace propagate.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn change_all(propagation: Propagation) -> io::Result<()> {
    // SAFETY: all strings are C strings that outlive the call; the data pointer may be null.
    check(i64::from(unsafe {
        libc::mount(
            std::ptr::null(),
            c"/".as_ptr(),
            std::ptr::null(),
            propagation.bits() | libc::MS_REC,
            std::ptr::null(),
        )
    }))?;
    Ok(())
}

/// Makes `root`, a mount, our root and lets go of the old one with all its mounts.
///
/// # Errors
/// `EINVAL` when `root` is no mount point of our namespace.
pub fn pivot(root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(&root)?;
    // pivot_root(2): with "." for both, the old root ends up on top of the new one, where the
    // next line takes it off without needing a directory for it.
    rustix::process::pivot_root(".", ".")?;
    raw::unmount(".", raw::UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_words_are_in_the_error() {
        if !crate::testing::privileged("mounting needs CAP_SYS_ADMIN") {
            return;
        }
        let filesystem = Filesystem::open("tmpfs").unwrap();
        let error = filesystem.set("bogus", b"1").unwrap_err().to_string();
        assert!(error.contains("Unknown parameter 'bogus'"), "{error}");
    }
}
