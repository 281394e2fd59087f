//! What the server of unpackings gives up, and what each process that it makes gives up besides.
//!
//! Everything here holds or the work is not begun. Landlock alone is as the kernel has it: without it
//! the other walls stand.
//!
//! | wall | of the server | of a process |
//! |---|---|---|
//! | user namespace | all ids are themselves, no capability in the host's | the same |
//! | capabilities in it | what it takes to confine processes | CHOWN, DAC_OVERRIDE, FOWNER, FSETID |
//! | namespaces | mount, network, IPC, UTS, control groups | a PID namespace too |
//! | root | an empty read-only tmpfs | its directory, as a detached mount |
//! | limits | no core file, [`DESCRIPTORS_MAX`] | [`MEMORY_BYTES_MAX`], [`CPU_SECS_MAX`] |
//! | no_new_privs | yes | yes |
//! | Landlock | no | its directory, no TCP, no signals |
//! | seccomp | no | [`CALLS`] |

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use sys::capability::Set;
use sys::landlock::{Access, Domain, Rule};
use sys::mount::{Attributes, Filesystem};
use sys::namespace::Namespaces;
use sys::seccomp::{Action, Architecture, Compare, Condition, Filter, Program};

/// Address space: 512 MiB that decompressors and what is remembered may take, the program itself,
/// and stacks. What asks for more ends the process.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Processor time, in all threads: hundreds of gigabytes. A process that goes on is killed.
const CPU_SECS_MAX: u64 = 3600;
/// The tree's cache, what is removed on the way, and some. More fail the archive.
const DESCRIPTORS_MAX: u64 = 1024;

/// The capabilities that a process keeps, in its user namespace: any owner and mode may be given, and
/// files be changed whose owner and mode deny it.
const KEPT: [&str; 4] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"];
/// And these the server, to make processes and to confine them.
const KEPT_BY_SERVER: [&str; 3] = ["SYS_ADMIN", "SYS_CHROOT", "SETPCAP"];

/// System calls of a process, beside the conditional ones of [`filter`].
const CALLS: &[&str] = &[
    // The archive, the socket, files.
    "read",
    "readv",
    "pread64",
    "write",
    "writev",
    "pwrite64",
    "lseek",
    "close",
    "fcntl",
    "poll",
    "ppoll",
    "sendmsg",
    "recvmsg",
    "sendto",
    "recvfrom",
    "shutdown",
    // Making a tree.
    "open",
    "openat",
    "openat2",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "symlink",
    "symlinkat",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "rename",
    "renameat",
    "renameat2",
    "readlink",
    "readlinkat",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chmod",
    "fchown",
    "fchownat",
    "lchown",
    "utimensat",
    "ftruncate",
    "fallocate",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "setxattrat",
    "getxattr",
    "lgetxattr",
    "fgetxattr",
    "listxattr",
    "llistxattr",
    "flistxattr",
    "fchdir",
    "getcwd",
    "umask",
    "getdents64",
    "copy_file_range",
    "stat",
    "lstat",
    "fstat",
    "newfstatat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    // Memory, threads, time.
    "munmap",
    "mremap",
    "brk",
    "madvise",
    "futex",
    "set_robust_list",
    "rseq",
    "sched_getaffinity",
    "sched_yield",
    "gettid",
    "getpid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "exit",
    "exit_group",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "clock_gettime",
    "clock_nanosleep",
    "nanosleep",
    "getrandom",
    "restart_syscall",
    "membarrier",
];

/// Gives the process `pid`, which is in a user namespace of its own, all ids that we have, each as itself.
pub(super) fn map_all_ids(pid: u32) -> io::Result<()> {
    for kind in ["uid_map", "gid_map"] {
        let ours = fs::read_to_string(format!("/proc/self/{kind}"))?;
        let same = |line: &str| {
            let mut numbers = line.split_whitespace();
            let (inside, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some(format!("{inside} {inside} {count}\n"))
        };
        let map: String = ours.lines().filter_map(same).collect();
        fs::write(format!("/proc/{pid}/{kind}"), map)?;
    }
    Ok(())
}

/// First step of the server, before its ids are mapped.
pub(super) fn leave_namespaces() -> io::Result<()> {
    // The first to go when memory runs out. Raising it takes no privilege.
    fs::write("/proc/self/oom_score_adj", "1000")?;
    sys::namespace::unshare(
        Namespaces::USER
            | Namespaces::MOUNT
            | Namespaces::NET
            | Namespaces::IPC
            | Namespaces::UTS
            | Namespaces::CGROUP,
    )
}

/// The rest, once they are.
pub(super) fn confine_server() -> io::Result<()> {
    sys::mount::change_all(sys::mount::Propagation::Private)?;
    empty_root()?;
    sys::fs::go_without_proc();
    rustix::process::umask(Mode::empty());
    limit("CORE", 0)?;
    limit("NOFILE", DESCRIPTORS_MAX)?;
    sys::process::set_no_new_privileges()?;
    let keep = Set::parse(KEPT.into_iter().chain(KEPT_BY_SERVER));
    sys::capability::keep_only(keep)
}

/// Makes an empty directory that nobody can write to the only thing that there is.
fn empty_root() -> io::Result<()> {
    let tmpfs = Filesystem::open("tmpfs")?;
    for (key, value) in [("size", "4096"), ("nr_inodes", "1"), ("mode", "0")] {
        tmpfs.set(key, value.as_bytes())?;
    }
    let attributes = Attributes::READ_ONLY
        .with(Attributes::NO_SUID)
        .with(Attributes::NO_DEV)
        .with(Attributes::NO_EXEC);
    let root = tmpfs.mount(attributes)?;
    let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open("/", place, Mode::empty())?;
    sys::mount::attach(&root, &place)?;
    drop(place);
    match sys::mount::pivot(&root) {
        // pivot_root(2): not from the kernel's first root, on which a machine without a disk runs. Then
        // the old root stays below, where no descriptor leads and processes may not chroot to.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => enter(root.as_fd()),
        other => other,
    }
}

/// Makes the directory our root.
fn enter(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    Ok(rustix::process::chroot(".")?)
}

fn limit(name: &str, value: u64) -> io::Result<()> {
    let number = sys::rlimit::number(name).ok_or(io::ErrorKind::InvalidInput)?;
    sys::rlimit::set(number, value, value).map(drop)
}

/// Confines a process that the server made, for good; `directory` becomes its root.
pub(super) fn confine(directory: Option<BorrowedFd<'_>>, calls: &Program) -> io::Result<()> {
    sys::process::set_parent_death_signal(rustix::process::Signal::KILL.as_raw())?;
    sys::process::set_name(c"tug-unpack-one")?;
    sys::process::set_dumpable(sys::process::Dumpable::No)?;
    limit("AS", MEMORY_BYTES_MAX)?;
    limit("CPU", CPU_SECS_MAX)?;
    let rule = directory.map(|place| Rule { place, access: Access::Write });
    sys::landlock::restrict(&Domain { rules: rule.as_slice(), ..Domain::default() })?;
    if let Some(directory) = directory {
        enter(directory)?;
    }
    sys::capability::keep_only(Set::parse(KEPT))?;
    calls.install()
}

/// The filter for [`confine`]. What it does not name fails with EPERM.
pub(super) fn filter() -> io::Result<Program> {
    let allow = |names: &[&str], conditions: &[Condition]| sys::seccomp::Rule {
        syscalls: names.iter().map(|name| (*name).to_owned()).collect(),
        action: Action::Allow,
        conditions: conditions.to_vec(),
    };
    let bits = |index, mask, value| Condition { index, compare: Compare::MaskedEqual(mask), value };
    let is = |index, value| Condition { index, compare: Compare::Equal, value };
    let unknown = |name: &str| sys::seccomp::Rule {
        action: Action::Errno(u16::try_from(rustix::io::Errno::NOSYS.raw_os_error()).unwrap_or(1)),
        ..allow(&[name], &[])
    };
    const PROT_EXEC: u64 = 4;
    const CLONE_THREAD: u64 = 0x1_0000;
    const PR_SET_NAME: u64 = 15;
    const PR_GET_AUXV: u64 = 0x4155_5856;
    let denied = u16::try_from(rustix::io::Errno::PERM.raw_os_error()).unwrap_or(1);
    let filter = Filter {
        default: Action::Errno(denied),
        architectures: vec![Architecture::native()],
        rules: vec![
            allow(CALLS, &[]),
            // No memory becomes a program.
            allow(&["mmap", "mprotect"], &[bits(2, PROT_EXEC, 0)]),
            // Threads, and no processes. What clone3 is to make stands in memory, where no filter looks.
            allow(&["clone"], &[bits(0, CLONE_THREAD, CLONE_THREAD)]),
            unknown("clone3"),
            // Names of threads; where the clock is.
            allow(&["prctl"], &[is(0, PR_SET_NAME)]),
            allow(&["prctl"], &[is(0, PR_GET_AUXV)]),
            // An abort's signal to itself, the first of its PID namespace.
            allow(&["tgkill"], &[is(0, 1)]),
        ],
        log: false,
        speculation_allowed: false,
    };
    Program::compile(&filter).map_err(io::Error::other)
}
