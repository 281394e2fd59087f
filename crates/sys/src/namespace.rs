//! Namespaces: sets of them, creating, joining by descriptor, and mapping users.
//!
//! Invariant: everything that joins takes a descriptor, never a path, so that what was checked is
//! what is joined.

use std::io;
use std::ops::{BitOr, BitOrAssign};
use std::os::fd::{AsFd, AsRawFd};

use crate::process::check;

/// A set of namespace kinds, in the bits of clone(2).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    pub const NONE: Self = Self(0);
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    pub const NET: Self = Self(libc::CLONE_NEWNET as u64);
    /// Clone flag 0x80, Linux 5.6; children of the caller get it, not the caller.
    pub const TIME: Self = Self(0x80);

    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Namespaces {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Namespaces {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Joins the namespaces `which` of the process behind a pidfd (Linux 5.8), or the one namespace
/// behind a descriptor of /proc/PID/ns.
///
/// A PID namespace is joined by children made afterwards, not by the caller.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN in the namespace's owner; `EINVAL` when the kind does not fit or
/// a process with several threads joins a user or mount namespace.
pub fn join(descriptor: impl AsFd, which: Namespaces) -> io::Result<()> {
    let bits = i32::try_from(which.0).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: takes integers only; changes the namespaces of this thread, none of its memory.
    check(i64::from(unsafe { libc::setns(descriptor.as_fd().as_raw_fd(), bits) }))?;
    Ok(())
}

/// Leaves the present namespaces `which` for new ones.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN (but for user namespaces), `ENOSPC` at the host's limit.
pub fn unshare(which: Namespaces) -> io::Result<()> {
    let bits = i32::try_from(which.0).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no CLONE_FILES, CLONE_FS or CLONE_VM can be in the set, so descriptors and memory
    // stay as the rest of the program knows them.
    check(i64::from(unsafe { libc::unshare(bits) }))?;
    Ok(())
}

/// Gives this thread its own working directory and root, as joining a mount namespace demands.
///
/// # Errors
/// Only for want of memory.
pub fn unshare_directories() -> io::Result<()> {
    // SAFETY: CLONE_FS copies what paths start from; memory and descriptors stay shared.
    check(i64::from(unsafe { libc::unshare(libc::CLONE_FS) }))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_can_be_joined_and_taken_apart() {
        let both = Namespaces::PID | Namespaces::NET;
        assert!(both.contains(Namespaces::PID));
        assert_eq!(both.without(Namespaces::PID), Namespaces::NET);
    }
}
