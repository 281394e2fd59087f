//! Giving up what a process of ours needs no longer once its container runs.
//!
//! ```text
//! root        a tmpfs with nothing in it but the places that are named, at their usual paths
//! rights      no capability in any set, no_new_privs, not dumpable
//! calls       an allow-list: no exec, no new process, no mount, no socket but TCP and UDP
//! memory      the out-of-memory killer takes it last, where we may say so
//! ```
//!
//! Invariant: there is no way back, and whatever fails leaves the process unusable: the caller must end
//! it. Elsewhere: which descriptors are kept (the caller closes the others before).

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use sys::mount::{self, Attributes, Change, Depth, Filesystem, Propagation};
use sys::namespace::{self, Namespaces};
use sys::seccomp::{Action, Compare, Condition, Filter, Program, Rule};

/// Killed after everything else that may be killed.
const OOM_SCORE: &str = "-999";

/// What may still be reached by path.
#[derive(Debug, Default)]
pub struct Places<'a> {
    pub writable: Vec<&'a Path>,
    pub readable: Vec<&'a Path>,
}

/// Why a process could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error("cannot make a root of its own")]
    Root { source: io::Error },
    #[error("cannot keep {path:?} in the root")]
    Place { path: PathBuf, source: io::Error },
    #[error("cannot give up capabilities")]
    Capabilities { source: io::Error },
    #[error("cannot limit system calls")]
    Calls { source: io::Error },
}

/// Confines this process, which must have a single thread.
///
/// # Errors
/// With the step that failed. What was given up before it stays so.
pub fn confine(places: &Places<'_>, calls: &Program) -> Result<(), ConfineError> {
    // Lowering it takes CAP_SYS_RESOURCE, which a daemon in a container may lack.
    let _not_allowed = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    enter_root(places)?;
    let dropped = sys::process::set_dumpable(sys::process::Dumpable::No)
        .and_then(|()| sys::capability::keep_only(sys::capability::Set::EMPTY))
        .and_then(|()| sys::process::set_no_new_privileges());
    dropped.map_err(|source| ConfineError::Capabilities { source })?;
    calls.install().map_err(|source| ConfineError::Calls { source })
}

fn enter_root(places: &Places<'_>) -> Result<(), ConfineError> {
    let failed = |source| ConfineError::Root { source };
    namespace::unshare(Namespaces::MOUNT).map_err(failed)?;
    // Nothing that happens to these copies may show on the host.
    mount::change_all(Propagation::Private).map_err(failed)?;
    let root = new_root().map_err(failed)?;
    let readable = Attributes::READ_ONLY;
    let writable = places.writable.iter().map(|path| (*path, Attributes::NONE));
    for (path, access) in writable.chain(places.readable.iter().map(|path| (*path, readable))) {
        keep(&root, path, access)
            .map_err(|source| ConfineError::Place { path: path.to_owned(), source })?;
    }
    let read_only = Change { set: Attributes::READ_ONLY, ..Change::default() };
    mount::change(&root, Depth::Only, read_only).map_err(failed)?;
    mount::pivot(&root).map_err(failed)
}

/// Attached over the old root, since only an attached mount takes others on Linux before 6.15.
fn new_root() -> io::Result<OwnedFd> {
    let filesystem = Filesystem::open("tmpfs")?;
    filesystem.set("size", b"64k")?;
    filesystem.set("mode", b"0711")?;
    let tmpfs = filesystem.mount(no_surprises())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open("/", flags, Mode::empty())?;
    mount::attach(&tmpfs, &place)?;
    Ok(tmpfs)
}

/// Shows the place at its usual path. The root is new and nobody else's, so that no link is in the way.
fn keep(root: &OwnedFd, path: &Path, access: Attributes) -> io::Result<()> {
    let tree = mount::clone_tree(CWD, path, Depth::Only)?;
    let set = no_surprises().with(access);
    mount::change(&tree, Depth::Only, Change { set, ..Change::default() })?;
    let path = path.strip_prefix("/").map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut at = PathBuf::new();
    for part in path.components() {
        at.push(part);
        match rustix::fs::mkdirat(root, &at, Mode::from_raw_mode(0o711)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(root, &at, flags, Mode::empty())?;
    mount::attach(&tree, &target)
}

fn no_surprises() -> Attributes {
    Attributes::NO_SUID.with(Attributes::NO_DEV).with(Attributes::NO_EXEC)
}

/// What a supervisor calls, and what the Rust and C libraries call beneath it.
const CALLS: &[&str] = &[
    // Descriptors.
    "read",
    "readv",
    "pread64",
    "preadv",
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "close",
    "dup",
    "dup3",
    "lseek",
    "ioctl",
    "fcntl",
    "ftruncate",
    "fsync",
    "fdatasync",
    // Files below the places that are left.
    "open",
    "openat",
    "openat2",
    "stat",
    "fstat",
    "lstat",
    "newfstatat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
    "getcwd",
    "readlink",
    "readlinkat",
    // The loop.
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "poll",
    "ppoll",
    "eventfd2",
    "pipe2",
    "splice",
    "tee",
    // Clients, daemons, the resolver, ports.
    "accept",
    "accept4",
    "connect",
    "recvfrom",
    "recvmsg",
    "recvmmsg",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "shutdown",
    "getsockname",
    "getpeername",
    "setsockopt",
    "getsockopt",
    // Its children's ends.
    "wait4",
    "waitid",
    // Time, chance, memory, signals, its own end.
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "nanosleep",
    "gettimeofday",
    "getrandom",
    "brk",
    "munmap",
    "mremap",
    "madvise",
    "futex",
    "sched_yield",
    "getpid",
    "gettid",
    "getppid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "restart_syscall",
    "rseq",
    "set_robust_list",
    "exit",
    "exit_group",
];

/// The filter of supervisors; everything else fails with EPERM. Nothing can be made executable, nobody can
/// be signalled (abort(3) ends by a trap then), and sockets are TCP or UDP.
///
/// # Errors
/// Never on an architecture that we have a table for.
pub fn calls() -> Result<Program, sys::seccomp::CompileError> {
    const EPERM: u16 = 1;
    const PROT_EXEC: u64 = 4;
    const AF_INET: u64 = 2;
    const AF_INET6: u64 = 10;
    let allow = |names: &[&str], conditions: Vec<Condition>| Rule {
        syscalls: names.iter().map(|name| (*name).to_owned()).collect(),
        action: Action::Allow,
        conditions,
    };
    let not_executable = Condition { index: 2, compare: Compare::MaskedEqual(PROT_EXEC), value: 0 };
    let family = |value| vec![Condition { index: 0, compare: Compare::Equal, value }];
    let filter = Filter {
        default: Action::Errno(EPERM),
        architectures: vec![sys::seccomp::Architecture::native()],
        rules: vec![
            allow(CALLS, Vec::new()),
            allow(&["mmap", "mprotect"], vec![not_executable]),
            allow(&["socket"], family(AF_INET)),
            allow(&["socket"], family(AF_INET6)),
        ],
        log: false,
        speculation_allowed: true,
    };
    Program::compile(&filter)
}
