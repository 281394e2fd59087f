//! Processes: clone3 without a shared address space, pidfds, and what a child sets on itself.
//!
//! A child made here is a fork: it has a copy of our memory and goes on running our code, so it
//! may allocate and read what the parent prepared. That is sound only while the parent has a
//! single thread, for another thread could hold a lock that nobody in the child ever releases;
//! [`spawn`] therefore refuses in a process with more threads.
//!
//! Elsewhere: namespaces in [`crate::namespace`], credentials in [`crate::capability`].

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

pub use rustix::process::Pid;

use crate::namespace::Namespaces;

/// What the new process starts with.
#[derive(Debug, Default)]
pub struct SpawnOptions<'a> {
    /// Namespaces that are created together with the process.
    pub namespaces: Namespaces,
    /// A cgroup v2 directory to be born in: CLONE_INTO_CGROUP, Linux 5.7.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whose child the process becomes.
    pub parent: Parent,
}

/// Whose child a new process becomes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// The caller's own.
    #[default]
    Caller,
    /// The caller's parent's: CLONE_PARENT.
    Sibling,
}

/// A child process and a handle on it that a reused pid cannot fool.
#[derive(Debug)]
pub struct Child {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal { signal: i32, core_dumped: bool },
}

impl Exit {
    /// The code that shells and Docker show: 128+n for a death by signal n.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal { signal, .. } => 128 + signal,
        }
    }
}

/// Whether this is a process that [`spawn`] made, with a copy of its parent's memory.
static CLONED: AtomicBool = AtomicBool::new(false);

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Whether this process has one thread, given the moment that a thread which was joined may still
/// take to leave the kernel's list.
fn becomes_single() -> bool {
    const PATIENCE: [u64; 6] = [0, 50, 200, 1_000, 5_000, 20_000];
    PATIENCE.iter().any(|&pause_us| {
        if pause_us > 0 {
            std::thread::sleep(std::time::Duration::from_micros(pause_us));
        }
        is_single()
    })
}

/// Whether this process has one thread. Needs no /proc.
fn is_single() -> bool {
    // SAFETY: takes an integer. unshare(2): with CLONE_THREAD the call does nothing in a process of one
    // thread and fails with EINVAL in any other.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// Makes a process that runs `body` in a copy of our memory and exits with the code it returns.
///
/// Signal handlers are reset; ignored signals and the signal mask are inherited
/// (see [`reset_signals`]).
///
/// # Errors
/// When this process has more than one thread, or clone3(2) fails.
pub fn spawn(options: &SpawnOptions<'_>, body: impl FnOnce() -> i32) -> io::Result<Child> {
    if !becomes_single() {
        return Err(io::Error::other("a process with several threads cannot be cloned"));
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: `clone_args` is a plain record of integers for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND | options.namespaces.bits();
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    match options.parent {
        Parent::Caller => args.exit_signal = libc::SIGCHLD as u64,
        // clone(2): clone3 refuses CLONE_PARENT together with an exit signal (EINVAL). The child
        // inherits ours.
        Parent::Sibling => args.flags |= libc::CLONE_PARENT as u64,
    }
    if let Some(cgroup) = options.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and with a null stack the child continues on a copy of this stack,
    // like after fork(2); we are the only thread, so no lock of the copy is held by a ghost.
    // `args` and `pidfd` outlive the call and have the size that is passed.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_mut(&mut args),
            size_of::<libc::clone_args>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            CLONED.store(true, Ordering::Relaxed);
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(70);
            exit_now(code)
        }
        pid => {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(Pid::from_raw)
                .ok_or(io::ErrorKind::InvalidData)?;
            // SAFETY: the kernel opened `pidfd` for this call (CLONE_PIDFD), so nothing else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid, pidfd })
        }
    }
}

/// Ends the process without running destructors or exit handlers, which belong to the parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes an integer and does not return; no memory of ours is touched.
    unsafe { libc::_exit(code) }
}

/// A handle on process `pid` that a reused pid cannot fool: pidfd_open(2), Linux 5.3.
///
/// # Errors
/// When there is no such process.
pub fn open_process(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Sends a signal by number (so real-time signals too) through a pidfd.
///
/// # Errors
/// `ESRCH` once the process has been reaped; `EINVAL` for no signal's number.
pub fn signal_process(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: takes integers and a null siginfo, which the call allows; touches none of our memory.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })?;
    Ok(())
}

/// Waiting for a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it ends.
    Block,
    /// Only look.
    Poll,
}

/// Reaps the child behind `pidfd`; `None` when it still runs and we only look.
///
/// # Errors
/// `ECHILD` when it is not our child or was reaped already.
pub fn wait_process(pidfd: impl AsFd, wait: Wait) -> io::Result<Option<Exit>> {
    // SAFETY: `siginfo_t` is a plain record for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let hang = match wait {
        Wait::Block => 0,
        Wait::Poll => libc::WNOHANG,
    };
    loop {
        // SAFETY: `info` is a writable siginfo_t that outlives the call; the rest are integers.
        let result = unsafe {
            libc::waitid(
                libc::P_PIDFD,
                pidfd.as_fd().as_raw_fd() as libc::id_t,
                &raw mut info,
                libc::WEXITED | hang | libc::__WALL,
            )
        };
        if result == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: waitid filled the child members, or left the zeroes from above.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(match info.si_code {
        libc::CLD_EXITED => Exit::Code(status),
        libc::CLD_DUMPED => Exit::Signal { signal: status, core_dumped: true },
        _ => Exit::Signal { signal: status, core_dumped: false },
    }))
}

/// Whether the child behind `pidfd` is stopped (SIGSTOP and its like); takes no status away.
///
/// # Errors
/// `ECHILD` when it is not our child or was reaped already.
pub fn is_stopped(pidfd: impl AsFd) -> io::Result<bool> {
    // SAFETY: `siginfo_t` is a plain record for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a writable siginfo_t that outlives the call; the rest are integers.
    check(unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            pidfd.as_fd().as_raw_fd(),
            &raw mut info,
            libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL,
            std::ptr::null::<libc::rusage>(),
        )
    })?;
    // SAFETY: waitid filled the child members, or left the zeroes from above.
    Ok(unsafe { info.si_pid() } != 0)
}

/// Whether every signal but SIGPIPE and SIGCHLD is known to have its default action, here and in what
/// is forked from here.
static DEFAULTS: AtomicBool = AtomicBool::new(false);

/// Gives every signal its default action, but ignores SIGPIPE. What is forked later need not do it again.
/// Nothing in this process may set an action afterwards, but [`set_reaping`].
pub fn default_signals() {
    reset_actions(1..=64);
    // SAFETY: the disposition runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    DEFAULTS.store(true, Ordering::Relaxed);
}

/// Gives every signal its default action and unblocks all: what a fresh program expects. Rust's
/// own start-up ignores SIGPIPE, which an exec would hand on.
pub fn reset_signals() {
    if DEFAULTS.load(Ordering::Relaxed) {
        reset_actions([libc::SIGPIPE, libc::SIGCHLD]);
    } else {
        reset_actions(1..=64);
    }
    // SAFETY: the set lives on our stack and is initialised by sigemptyset before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

fn reset_actions(signals: impl IntoIterator<Item = i32>) {
    // The kernel's own record: SIG_DFL, no flags, no restorer, an empty mask of 64 bits.
    let default = [0_u64; 4];
    for signal in signals {
        // Past glibc, which refuses 32 and 33, and whose posix_spawn leaves them ignored (its
        // `spawni.c`); the program would inherit that.
        // SAFETY: SIG_DFL runs no code of ours; `default` is larger than a kernel sigaction without
        // its mask and holds 8 bytes of mask, the size we tell; KILL and STOP only yield EINVAL.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<libc::c_void>(),
                8_usize,
            )
        };
    }
}

/// Who reaps the children of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaping {
    /// The kernel, as they end: nobody learns how.
    Kernel,
    /// This process itself.
    Own,
}

/// Sets who reaps the children of this process. What it spawns inherits that.
pub fn set_reaping(reaping: Reaping) {
    let action = match reaping {
        Reaping::Kernel => libc::SIG_IGN,
        Reaping::Own => libc::SIG_DFL,
    };
    // SAFETY: neither disposition runs code of ours.
    unsafe { libc::signal(libc::SIGCHLD, action) };
}

/// Where this process's command line is kept, and in what is forked from it.
#[derive(Debug, Clone, Copy)]
pub struct CommandLine {
    start: u64,
    room: usize,
}

impl CommandLine {
    /// # Errors
    /// When /proc cannot be read.
    pub fn find() -> io::Result<CommandLine> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // proc(5): the fields after the name in parentheses count from 3; arg_start and arg_end are 48
        // and 49.
        let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
        let place: Vec<u64> =
            fields.skip(45).take(2).filter_map(|field| field.parse().ok()).collect();
        let [start, end] = place[..] else { return Err(io::ErrorKind::InvalidData.into()) };
        Ok(CommandLine { start, room: usize::try_from(end.saturating_sub(start)).unwrap_or(0) })
    }

    /// Shows `words` as this process's command line, as far as they fit into what it was started with:
    /// for people who look at `ps`.
    ///
    /// # Errors
    /// When /proc cannot be written; the old words stay then.
    pub fn show(self, words: &[&std::ffi::OsStr]) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::FileExt;
        let mut line: Vec<u8> =
            words.iter().flat_map(|word| word.as_bytes().iter().copied().chain([0])).collect();
        line.resize(self.room, 0);
        if let Some(last) = line.last_mut() {
            *last = 0;
        }
        // By way of the kernel, which checks the range. The bytes stay strings that end with a zero,
        // should anybody ask for the arguments again.
        std::fs::File::options().write(true).open("/proc/self/mem")?.write_all_at(&line, self.start)
    }
}

/// Blocks every signal for this thread, so that [`wait_signal`] can take them one by one.
pub fn block_signals() {
    // SAFETY: the set lives on our stack and is initialised by sigfillset before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Takes the next pending signal of the blocked ones, waiting for it.
///
/// # Errors
/// When sigwaitinfo(2) fails other than by interruption.
pub fn wait_signal() -> io::Result<i32> {
    // SAFETY: the set lives on our stack and is initialised by sigfillset before it is used; a
    // null siginfo is allowed.
    let signal = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigwaitinfo(&raw const set, std::ptr::null_mut())
    };
    if signal < 0 { Err(io::Error::last_os_error()) } else { Ok(signal) }
}

/// Replaces the program. `argv` and `envp` become the new program's.
///
/// Returns only when it failed.
pub fn execve(path: &CStr, argv: &[&CStr], envp: &[&CStr]) -> io::Error {
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: all strings are NUL-terminated and both arrays end with a null pointer; they
    // outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the program by the one behind `file`: execveat(2) with AT_EMPTY_PATH.
///
/// Returns only when it failed.
pub fn execve_file(file: impl AsFd, argv: &[&CStr], envp: &[&CStr]) -> io::Error {
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: all strings are NUL-terminated and both arrays end with a null pointer; they
    // outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Spawns a program with all signals at their defaults and none blocked, whatever ours are.
///
/// # Errors
/// When the program cannot be executed.
pub fn spawn_program(command: &mut std::process::Command) -> io::Result<Pid> {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec `reset_signals` makes system calls only: it takes no lock and
    // allocates nothing.
    unsafe {
        command.pre_exec(|| {
            reset_signals();
            Ok(())
        });
    }
    let child = command.spawn()?;
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Makes `command` run in a mount namespace of its own, in which each of `mounts` (detached) is attached
/// at its path. All other mounts are the host's, and changes of either side stay there.
pub fn with_private_mounts(
    command: &mut std::process::Command,
    mounts: Vec<(OwnedFd, std::ffi::CString)>,
) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec the closure makes system calls on what it owns: it takes no lock
    // and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            reset_signals();
            crate::namespace::unshare(Namespaces::MOUNT)?;
            crate::mount::change_all(crate::mount::Propagation::Slave)?;
            // Only now: a descriptor opened before would be of the host's copy of the mount.
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
            for (mount, target) in &mounts {
                let target = rustix::fs::open(target.as_c_str(), flags, rustix::fs::Mode::empty())?;
                crate::mount::attach(mount, &target)?;
            }
            Ok(())
        });
    }
}

/// Makes `command` start with its standard streams and nothing else open, whatever our own starter left
/// open for all that we execute.
pub fn with_standard_streams_alone(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec the closure makes system calls only: it takes no lock and allocates
    // nothing.
    unsafe {
        command.pre_exec(|| {
            reset_signals();
            close_all_on_exec(Preserved::default())
        });
    }
}

fn pointers(strings: &[&CStr]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Whether other processes of the same user may look into this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dumpable {
    Yes,
    No,
}

/// Hides (or shows) /proc/self/{exe,fd,mem,…} and ptrace from processes without CAP_SYS_PTRACE.
/// execve(2) makes the process dumpable again.
///
/// # Errors
/// Never in practice: prctl(2) accepts both values.
pub fn set_dumpable(dumpable: Dumpable) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, u64::from(dumpable == Dumpable::Yes))
}

/// Forbids gaining privileges by exec from now on, for good.
///
/// # Errors
/// Never in practice, since Linux 3.5.
pub fn set_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Makes orphaned descendants become our children.
///
/// # Errors
/// Never in practice, since Linux 3.4.
pub fn set_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Asks for `signal` when the thread that made us ends.
///
/// # Errors
/// `EINVAL` when the number is no signal's.
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as u64)
}

/// Names the process for ps and top; the kernel keeps 15 bytes.
///
/// # Errors
/// Never in practice.
pub fn set_name(name: &CStr) -> io::Result<()> {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string, which outlives the call.
    check(i64::from(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) }))?;
    Ok(())
}

/// Sets the execution domain: personality(2).
///
/// # Errors
/// `EINVAL` when the kernel does not know it.
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: takes an integer.
    check(i64::from(unsafe { libc::personality(libc::c_ulong::from(domain)) }))?;
    Ok(())
}

fn prctl(option: i32, value: u64) -> io::Result<()> {
    // SAFETY: the options passed by this module take integers only.
    check(i64::from(unsafe { libc::prctl(option, value, 0, 0, 0) }))?;
    Ok(())
}

/// Descriptors that callers handed to us by number, to be handed on to the program: 3, 4, ….
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Preserved(pub u32);

impl Preserved {
    /// The first number that is not handed on.
    fn end(self) -> u32 {
        3_u32.saturating_add(self.0)
    }

    /// Those that are open. One of our own in that range, which is close-on-exec, is none of them.
    fn numbers(self) -> impl Iterator<Item = u32> {
        (3..self.end().min(DESCRIPTORS_MAX)).filter(|&number| {
            // SAFETY: fcntl with F_GETFD only reads a flag.
            let flags = unsafe { libc::fcntl(number.cast_signed(), libc::F_GETFD) };
            flags >= 0 && flags & libc::FD_CLOEXEC == 0
        })
    }

    /// # Errors
    /// `EBADF` when one of them was not handed to us.
    pub fn check(self) -> io::Result<()> {
        let open = u32::try_from(self.numbers().count()).unwrap_or(u32::MAX);
        if open == self.0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EBADF)) }
    }
}

/// Where close_range(2) is missing, descriptors are looked for below this number.
const DESCRIPTORS_MAX: u32 = 1 << 16;

/// What becomes of a range of descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Closed,
    ClosedByExec,
}

/// Closes every descriptor but the standard streams, `keep` and what is handed on.
///
/// Only in a process made by [`spawn`]: the owners of what is closed are copies of the parent's,
/// which are never dropped here. `body` must use none of them afterwards.
///
/// # Errors
/// In any other process.
pub fn close_all_but(keep: &[BorrowedFd<'_>], preserved: Preserved) -> io::Result<()> {
    if !CLONED.load(Ordering::Relaxed) {
        return Err(io::Error::other("descriptors may be closed in a cloned process only"));
    }
    let kept = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned());
    let mut kept: Vec<u32> = kept.chain(preserved.numbers()).filter(|&fd| fd > 2).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            treat_range(first, fd - 1, Fate::Closed)?;
        }
        first = first.max(fd + 1);
    }
    treat_range(first, u32::MAX, Fate::Closed)
}

/// Marks every descriptor but the standard streams and what is handed on to be closed by the next
/// exec.
///
/// # Errors
/// Never in practice.
pub fn close_all_on_exec(preserved: Preserved) -> io::Result<()> {
    treat_range(preserved.end(), u32::MAX, Fate::ClosedByExec)
}

fn treat_range(first: u32, last: u32, fate: Fate) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    let flags = if fate == Fate::ClosedByExec { CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: takes integers only. Who owns what is closed is said by the callers.
    let done = check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) });
    match done.map_err(|error| error.raw_os_error()) {
        Ok(_) => Ok(()),
        // Kernels before 5.11, and filters of an outer container that do not know the call.
        Err(Some(libc::ENOSYS | libc::EINVAL | libc::EPERM)) => {
            treat_one_by_one(first, last, fate);
            Ok(())
        }
        Err(code) => Err(code.map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error)),
    }
}

/// Not by /proc/self/fd: what stands at /proc may be the container's.
fn treat_one_by_one(first: u32, last: u32, fate: Fate) {
    for fd in first..=last.min(DESCRIPTORS_MAX) {
        let fd = fd.cast_signed();
        // SAFETY: both take integers; EBADF is all that can go wrong. Who owns what is closed is said
        // by the callers.
        unsafe {
            match fate {
                Fate::Closed => libc::close(fd),
                Fate::ClosedByExec => libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC),
            }
        };
    }
}

/// Whether this process, with its effective identity, may execute the file behind `file`:
/// faccessat2(2), Linux 5.8.
///
/// # Errors
/// `EACCES` when it may not; `ENOSYS` or `EPERM` where the call is not to be had.
pub fn may_execute(file: impl AsFd) -> io::Result<()> {
    // SAFETY: takes integers and an empty C string that outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::X_OK,
            libc::AT_EMPTY_PATH | libc::AT_EACCESS,
        )
    })?;
    Ok(())
}

/// How the kernel schedules this process: `struct sched_attr`, sched_setattr(2).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Scheduling {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, as the two below.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// # Errors
/// `EINVAL` for values that do not go together, `EPERM` without CAP_SYS_NICE.
pub fn set_scheduling(scheduling: &Scheduling) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attributes = Attributes {
        size: u32::try_from(size_of::<Attributes>()).unwrap_or(0),
        policy: scheduling.policy,
        flags: scheduling.flags,
        nice: scheduling.nice,
        priority: scheduling.priority,
        runtime: scheduling.runtime,
        deadline: scheduling.deadline,
        period: scheduling.period,
    };
    // SAFETY: the kernel reads as many bytes as `size` says of a live record; the rest are integers.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })?;
    Ok(())
}

/// Sets this process's class (1 to 3) and priority (0 to 7) of input and output: ioprio_set(2).
///
/// # Errors
/// `EPERM` without the capability that the class takes.
pub fn set_io_priority(class: u8, priority: u8) -> io::Result<()> {
    const WHO_PROCESS: i32 = 1;
    let value = i32::from(class) << 13 | i32::from(priority);
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) })?;
    Ok(())
}

/// Makes `fd` survive the next exec, or not.
///
/// # Errors
/// When fcntl(2) fails.
pub fn set_inheritable(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
}

/// Duplicates `fd` onto the standard stream `number` (0, 1 or 2), which then survives exec.
///
/// # Errors
/// When dup(2) fails.
pub fn set_standard_stream(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    assert!((0..=2).contains(&number), "only standard streams may be replaced");
    if fd.as_fd().as_raw_fd() == number {
        return set_inheritable(fd);
    }
    // SAFETY: `number` is a standard stream, which no OwnedFd of ours stands for.
    check(i64::from(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }))?;
    Ok(())
}

/// Duplicates `fd` to exactly `number`, which then survives exec.
///
/// # Safety
/// Nothing in this process may own descriptor `number`: whatever it was is closed.
///
/// # Errors
/// When dup(2) fails.
pub unsafe fn set_descriptor(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    if fd.as_fd().as_raw_fd() == number {
        return set_inheritable(fd);
    }
    // SAFETY: the caller vouches that nobody owns `number`.
    check(i64::from(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }))?;
    Ok(())
}

/// Takes over descriptors that this process inherited by number, such as those of socket
/// activation or `--preserve-fds`.
///
/// # Errors
/// `EBADF` when it is not open.
///
/// # Safety
/// Nothing else in this process may own `number`.
pub unsafe fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_GETFD only reads a flag.
    check(i64::from(unsafe { libc::fcntl(number, libc::F_GETFD) }))?;
    // SAFETY: it is open, and the caller vouches that nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A new session keyring named `name`, so that keys of the engine's session are out of reach.
///
/// # Errors
/// `ENOSYS` without keyrings in the kernel, `EDQUOT` when the user's quota is full.
pub fn join_session_keyring(name: &CStr) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: the string is NUL-terminated and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    Ok(())
}

pub(crate) fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_single() {
        // The harness's own thread is one, and this test another.
        assert!(!is_single());
    }

    #[test]
    fn a_process_that_is_not_our_child_cannot_be_reaped() {
        let own = open_process(rustix::process::getpid()).unwrap();
        assert_eq!(wait_process(&own, Wait::Poll).unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }

    #[test]
    fn a_process_that_shares_its_memory_closes_nothing_of_others() {
        assert!(close_all_but(&[], Preserved::default()).is_err());
    }

    #[test]
    fn descriptors_are_found_one_by_one_where_ranges_are_not_known() {
        let mut fds = Vec::new();
        for _ in 0..2 {
            let file = rustix::fs::open(
                "/dev/null",
                rustix::fs::OFlags::RDONLY,
                rustix::fs::Mode::empty(),
            );
            fds.push(rustix::io::fcntl_dupfd_cloexec(file.unwrap(), 900).unwrap());
        }
        fds.iter().for_each(|fd| set_inheritable(fd).unwrap());
        let first = fds[0].as_raw_fd().cast_unsigned();
        treat_one_by_one(first, first, Fate::ClosedByExec);
        let closes = |fd: &OwnedFd| {
            rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC)
        };
        assert_eq!((closes(&fds[0]), closes(&fds[1])), (true, false));
    }

    #[test]
    fn what_was_not_handed_to_us_cannot_be_handed_on() {
        assert!(Preserved(0).check().is_ok());
        assert!(Preserved(50_000).check().is_err());
    }

    #[test]
    fn a_death_by_signal_is_shown_as_128_plus_its_number() {
        assert_eq!(Exit::Signal { signal: 9, core_dumped: false }.code(), 137);
        assert_eq!(Exit::Code(3).code(), 3);
    }
}
