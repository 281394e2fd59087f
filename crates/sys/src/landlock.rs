//! Landlock: what a process may still do, whatever its capabilities.
//!
//! A [`Domain`] names directories (or files) by descriptor and what stays possible below each of
//! them; everything else of the file system is refused from then on, to this thread and to what it
//! makes, for good. TCP, signals and abstract sockets are refused too unless they are kept. What is
//! open already stays open.
//!
//! The kernel offers more with each version of its interface ("ABI"): what it does not know is not
//! restricted, and [`Enforced`] says how far it went. ABI 1 cannot allow links and renames between
//! directories, so where something may be written nothing is enforced there. Callers stand on other
//! legs as well: a root of their own, namespaces, seccomp.
//!
//! Source: Documentation/userspace-api/landlock.rst; `linux/landlock.h` of Linux 6.16.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::process::check;

/// What stays possible below a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading files and directories.
    Read,
    /// Reading, and making, changing and removing anything. Nothing can be executed.
    Write,
}

/// A place and what stays possible there.
#[derive(Debug, Clone, Copy)]
pub struct Rule<'a> {
    /// A file or a directory, also one opened with `O_PATH`.
    pub place: BorrowedFd<'a>,
    pub access: Access,
}

/// How far something may reach.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Processes of the domain (for TCP: nothing at all).
    #[default]
    Inside,
    Anywhere,
}

/// What a process keeps.
#[derive(Debug, Default, Clone, Copy)]
pub struct Domain<'a> {
    pub rules: &'a [Rule<'a>],
    /// Binding and connecting: ABI 4.
    pub tcp: Reach,
    /// ABI 6.
    pub signals: Reach,
    /// ABI 6.
    pub abstract_sockets: Reach,
}

/// How far the kernel went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforced {
    /// It has no Landlock, it is switched off, or its ABI is too old for the rules.
    No,
    /// As far as this ABI goes.
    Abi(u32),
}

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// All rights of ABI 1.
const FIRST: u64 = (1 << 13) - 1;

const TCP: u64 = 0b11;
const ABSTRACT_SOCKETS: u64 = 1;
const SIGNALS: u64 = 1 << 1;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
#[derive(Debug, Default, PartialEq, Eq)]
struct Handled {
    files: u64,
    network: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

/// The kernel's ABI; 0 without Landlock.
#[must_use]
pub fn abi() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: with LANDLOCK_CREATE_RULESET_VERSION the call takes a null pointer and size zero, and
    // reads no memory.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<Handled>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// Confines the calling thread, and all threads and processes that it makes from now on.
///
/// # Errors
/// `EPERM` when the thread has neither no_new_privs nor CAP_SYS_ADMIN in its user namespace; `EBADFD`
/// for a place that is no file of a file system. A kernel without Landlock is no error.
pub fn restrict(domain: &Domain<'_>) -> io::Result<Enforced> {
    let abi = abi();
    let writes = domain.rules.iter().any(|rule| rule.access == Access::Write);
    if abi == 0 || (abi == 1 && writes) {
        return Ok(Enforced::No);
    }
    let handled = handled(domain, abi);
    let ruleset = create(&handled)?;
    for rule in domain.rules {
        add(&ruleset, rule, handled.files)?;
    }
    // SAFETY: takes two integers; the ruleset is open for the whole call.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    Ok(Enforced::Abi(abi))
}

fn handled(domain: &Domain<'_>, abi: u32) -> Handled {
    let since = |first: u32, rights: u64| if abi >= first { rights } else { 0 };
    let inside = |reach: Reach, first: u32, rights: u64| match reach {
        Reach::Inside => since(first, rights),
        Reach::Anywhere => 0,
    };
    Handled {
        files: FIRST | since(2, REFER) | since(3, TRUNCATE) | since(5, IOCTL_DEV),
        network: inside(domain.tcp, 4, TCP),
        scoped: inside(domain.abstract_sockets, 6, ABSTRACT_SOCKETS)
            | inside(domain.signals, 6, SIGNALS),
    }
}

fn create(handled: &Handled) -> io::Result<OwnedFd> {
    // Kernels before the later fields take zeroes there as if they were absent.
    // SAFETY: the record is live and as large as is told; the flags are an integer.
    let ruleset = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(handled),
            size_of::<Handled>(),
            0,
        )
    })?;
    let ruleset = i32::try_from(ruleset).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel opened it for this call, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(ruleset) })
}

fn add(ruleset: &OwnedFd, rule: &Rule<'_>, handled: u64) -> io::Result<()> {
    const PATH_BENEATH: u32 = 1;
    /// What the kernel takes for a place that is no directory.
    const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
    let rights = match rule.access {
        Access::Read => READ_FILE | READ_DIR,
        Access::Write => handled & !EXECUTE & !IOCTL_DEV,
    };
    let mode = rustix::fs::fstat(rule.place)?.st_mode;
    let is_directory = rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Directory;
    let allowed = if is_directory { rights } else { rights & OF_FILES };
    let beneath = Beneath { allowed, parent: rule.place.as_fd().as_raw_fd() };
    // SAFETY: the record is live and has the layout of `landlock_path_beneath_attr`, which this kind of
    // rule reads; both descriptors are open for the whole call.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            PATH_BENEATH,
            &raw const beneath,
            0,
        )
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Runs `body` on a thread of its own, confined to `writable` and `readable` below a directory.
    fn confined<T: Send>(body: impl FnOnce(&std::path::Path) -> T + Send) -> Option<T> {
        let top = std::env::temp_dir().join(format!("tug-landlock-{}", std::process::id()));
        fs::create_dir_all(top.join("writable/a")).unwrap();
        fs::create_dir_all(top.join("writable/b")).unwrap();
        fs::create_dir_all(top.join("readable")).unwrap();
        fs::write(top.join("readable/f"), "text").unwrap();
        let scratch = Scratch(top);
        let at = |name: &str| fs::File::open(scratch.0.join(name)).unwrap();
        let (writable, readable) = (at("writable"), at("readable"));
        let confine = || {
            crate::process::set_no_new_privileges().unwrap();
            let rules = [
                Rule { place: writable.as_fd(), access: Access::Write },
                Rule { place: readable.as_fd(), access: Access::Read },
            ];
            match restrict(&Domain { rules: &rules, ..Domain::default() }).unwrap() {
                Enforced::No => None,
                Enforced::Abi(_) => Some(body(&scratch.0)),
            }
        };
        let outcome = std::thread::scope(|scope| scope.spawn(confine).join().unwrap());
        if outcome.is_none() {
            crate::testing::ignored("this kernel has no Landlock that can allow links");
        }
        outcome
    }

    #[test]
    fn a_domain_keeps_what_its_rules_name_and_nothing_else() {
        let denied = Some(libc::EACCES);
        confined(|top| {
            assert_eq!(fs::read_to_string(top.join("readable/f")).unwrap(), "text");
            let written = fs::write(top.join("readable/g"), "");
            assert_eq!(written.unwrap_err().raw_os_error(), denied);
            fs::write(top.join("writable/a/f"), "x").unwrap();
            fs::hard_link(top.join("writable/a/f"), top.join("writable/b/f")).unwrap();
            fs::rename(top.join("writable/b/f"), top.join("writable/g")).unwrap();
            fs::remove_file(top.join("writable/g")).unwrap();
            let elsewhere = fs::File::open("/etc/passwd");
            assert_eq!(elsewhere.unwrap_err().raw_os_error(), denied);
            assert_eq!(fs::write(top.join("h"), "").unwrap_err().raw_os_error(), denied);
            if abi() >= 4 {
                let bound = std::net::TcpListener::bind("127.0.0.1:0");
                assert_eq!(bound.unwrap_err().raw_os_error(), denied);
            }
        });
    }

    #[test]
    fn each_abi_is_asked_for_what_it_knows() {
        let nothing = Domain::default();
        assert_eq!(handled(&nothing, 1), Handled { files: FIRST, network: 0, scoped: 0 });
        let three = Handled { files: FIRST | REFER | TRUNCATE, network: 0, scoped: 0 };
        assert_eq!(handled(&nothing, 3), three);
        assert_eq!(handled(&nothing, 7), Handled { files: 0xffff, network: 3, scoped: 3 });
        let signals = Domain { signals: Reach::Anywhere, ..nothing };
        assert_eq!(handled(&signals, 7).scoped, ABSTRACT_SOCKETS);
    }
}
