//! Capabilities and identity of the calling thread.
//!
//! Invariant: nothing here is fatal for lack of a capability that the host itself does not hold:
//! sets are cut to what is held before they are asked for, so a host without (say)
//! CAP_SYS_RESOURCE still runs containers.

use std::io;

use crate::process::check;

/// A set of capabilities, one bit each, in the kernel's numbering.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Set(u64);

pub const SYS_ADMIN: u32 = 21;

/// Names by number: linux/capability.h, Linux 6.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The number of a capability, by its name with or without `CAP_`, in any case.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).and_then(|at| u32::try_from(at).ok())
}

/// All names that this program knows, with `CAP_`.
pub fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|name| format!("CAP_{name}"))
}

impl Set {
    pub const EMPTY: Self = Self(0);

    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn with(self, number: u32) -> Self {
        Self(self.0 | 1 << number)
    }

    #[must_use]
    pub const fn contains(self, number: u32) -> bool {
        self.0 & 1 << number != 0
    }

    #[must_use]
    pub const fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set of the names that are known; unknown ones are left out, as runc does.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().filter_map(number).fold(Self::EMPTY, Set::with)
    }
}

/// What a thread holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub effective: Set,
    pub permitted: Set,
    pub inheritable: Set,
    pub bounding: Set,
    pub ambient: Set,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two records of 32 bits.
const VERSION_3: u32 = 0x2008_0522;

/// What the calling thread holds (all but the ambient set).
///
/// # Errors
/// Never in practice.
pub fn held() -> io::Result<Held> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 makes the kernel write two records, which is what `data` has room for.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join =
        |pick: fn(&Data) -> u32| Set(u64::from(pick(&data[0])) | u64::from(pick(&data[1])) << 32);
    let mut bounding = Set::EMPTY;
    for number in 0..64 {
        // SAFETY: PR_CAPBSET_READ takes an integer.
        match unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) } {
            1 => bounding = bounding.with(number),
            0 => {}
            _ => break,
        }
    }
    Ok(Held {
        effective: join(|data| data.effective),
        permitted: join(|data| data.permitted),
        inheritable: join(|data| data.inheritable),
        bounding,
        ambient: Set::EMPTY,
    })
}

/// The permitted set of the calling thread.
///
/// # Errors
/// Never in practice.
pub fn permitted() -> io::Result<Set> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 makes the kernel write two records, which is what `data` has room for.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    Ok(Set(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32))
}

/// Drops from the bounding set everything that is not in `keep`.
///
/// # Errors
/// `EPERM` without CAP_SETPCAP.
pub fn limit_bounding(keep: Set) -> io::Result<()> {
    for number in (0_u32..64).filter(|number| !keep.contains(*number)) {
        // SAFETY: PR_CAPBSET_DROP takes an integer.
        let dropped = check(i64::from(unsafe {
            libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0)
        }));
        match dropped {
            Ok(_) => {}
            // Beyond the kernel's highest capability.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => {
                // SAFETY: PR_CAPBSET_READ takes an integer.
                let held = unsafe {
                    libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0)
                };
                // What is not there needs no right to be dropped.
                if held != 0 {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Sets the effective, permitted and inheritable sets.
///
/// # Errors
/// `EPERM` when asking for more than is permitted.
pub fn set(effective: Set, permitted: Set, inheritable: Set) -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (effective.0 >> shift) as u32,
        permitted: (permitted.0 >> shift) as u32,
        inheritable: (inheritable.0 >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 makes the kernel read two records, which is what `data` holds.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })?;
    Ok(())
}

/// Drops every capability but `keep`, for good: from what the thread holds, from what it could inherit
/// or get back, and from what any exec could give it. What it does not hold now it does not get.
///
/// # Errors
/// `EPERM` when the bounding set is to shrink without CAP_SETPCAP.
pub fn keep_only(keep: Set) -> io::Result<()> {
    let kept = keep.intersect(permitted()?);
    limit_bounding(kept)?;
    set_ambient(Set::EMPTY)?;
    set(kept, kept, Set::EMPTY)
}

/// Replaces the ambient set. Members must be permitted and inheritable.
///
/// # Errors
/// `EPERM` when one is not.
pub fn set_ambient(ambient: Set) -> io::Result<()> {
    let act = |action: i32, number: u32| {
        // SAFETY: PR_CAP_AMBIENT takes integers.
        check(i64::from(unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                action as libc::c_ulong,
                libc::c_ulong::from(number),
                0,
                0,
            )
        }))
    };
    act(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    for number in (0..64).filter(|number| ambient.contains(*number)) {
        act(libc::PR_CAP_AMBIENT_RAISE, number)?;
    }
    Ok(())
}

/// Whether a change of user keeps the permitted capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUserChange {
    Keep,
    Drop,
}

/// Sets what the next change from root to another user does with capabilities.
///
/// # Errors
/// Never in practice.
pub fn on_user_change(choice: OnUserChange) -> io::Result<()> {
    let keep = libc::c_ulong::from(choice == OnUserChange::Keep);
    // SAFETY: PR_SET_KEEPCAPS takes an integer.
    check(i64::from(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, keep, 0, 0, 0) }))?;
    Ok(())
}

/// Makes the thread the user `uid`, of group `gid` and the further `groups`, in all of real,
/// effective, saved and file system identity.
///
/// # Errors
/// `EPERM` without CAP_SETUID/CAP_SETGID, `EINVAL` for an id that the user namespace lacks.
pub fn set_identity(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    set_groups(groups)?;
    // SAFETY: takes integers. The raw call changes this thread alone, and callers have one thread.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    Ok(())
}

fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer is to `len` group ids that outlive the call.
    let result =
        check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) });
    match result {
        // user_namespaces(7): a namespace with setgroups denied refuses even the empty list.
        Err(error) if groups.is_empty() && error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_with_and_without_prefix_in_any_case() {
        assert_eq!(number("cap_sys_admin"), Some(SYS_ADMIN));
        assert_eq!(number("SYS_ADMIN"), Some(SYS_ADMIN));
        assert_eq!(number("CAP_CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(number("nonsense"), None);
    }

    #[test]
    fn what_is_not_kept_is_gone_from_every_set() {
        if !crate::testing::privileged("dropping from the bounding set needs CAP_SETPCAP") {
            return;
        }
        let keep = Set::parse(["CHOWN", "FOWNER"]);
        // Capabilities are a thread's own.
        let held = std::thread::spawn(move || {
            keep_only(keep).unwrap();
            held().unwrap()
        });
        let held = held.join().unwrap();
        assert_eq!(
            held,
            Held { effective: keep, permitted: keep, bounding: keep, ..Held::default() }
        );
    }

    #[test]
    fn dockers_fourteen_defaults_have_their_well_known_mask() {
        let names = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP \
                     NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE";
        assert_eq!(Set::parse(names.split_whitespace()).bits(), 0xa804_25fb);
    }
}
