//! A further process in a running container.
//!
//! Our children are put into the container's PID namespace for the time of one clone; the child then
//! joins all others in a single setns(2) on the container's pidfd. So the process is our child (its
//! code can be waited for) and never exists half inside: what the container sees of it before execve
//! is not dumpable (see [`crate::seal`]).

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use spec::runtime::Process;
use sys::cgroup::{Cgroup, Entry};
use sys::namespace::{self, Namespaces};
use sys::placement::{self, Numbers};
use sys::process::{self, Child, Dumpable, Parent, Pid, Preserved, SpawnOptions, Wait};

use crate::channel::{Channel, Told};
use crate::error::{Kind, LaunchError, at, at_raw};
use crate::inside::procfs::Procfs;
use crate::inside::{self, identity, program};
use crate::launch::children_into;
use crate::request::{ExecLaunched, ExecRequest, Stdio};

/// How long the process may take for each step towards its program.
const PATIENCE: Duration = Duration::from_secs(10);

/// Namespaces by their names in /proc/PID/ns.
const NAMESPACES: [(&str, Namespaces); 8] = [
    ("user", Namespaces::USER),
    ("mnt", Namespaces::MOUNT),
    ("uts", Namespaces::UTS),
    ("ipc", Namespaces::IPC),
    ("net", Namespaces::NET),
    ("pid", Namespaces::PID),
    ("cgroup", Namespaces::CGROUP),
    ("time", Namespaces::TIME),
];

/// Executes a process in the container whose first process the request names.
///
/// # Errors
/// With what failed; then no process is left.
pub fn exec(request: &ExecRequest<'_>) -> Result<ExecLaunched, LaunchError> {
    let process = request.process;
    check(process)?;
    Preserved(request.preserved_fds).check().map_err(at("preserve descriptors"))?;
    let differing = differing(request.pid)?;
    // The pid was good to look things up with; only the pidfd says that it still is that process.
    process::signal_process(request.pidfd, 0)
        .map_err(|_| LaunchError::new(Kind::Other, "container is not running"))?;
    let entry = match request.cgroup {
        Some(cgroup) => cgroup.entry().map_err(at("open the container's cgroup"))?,
        None => Entry::Nothing,
    };
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(at_raw("open /dev/null"))?;
    let (ours, theirs) = Channel::pair().map_err(at("make a socket pair"))?;
    // The child is born among the container's processes, and hidden from them from the first instant.
    process::set_dumpable(Dumpable::No).map_err(at("prctl PR_SET_DUMPABLE"))?;
    let _restore = match differing.contains(Namespaces::PID) {
        true => Some(children_into(request.pidfd)?),
        false => None,
    };
    let options = SpawnOptions {
        namespaces: Namespaces::NONE,
        cgroup: entry.birthplace(),
        parent: Parent::Caller,
    };
    let affinity = crate::scheduling::affinity(process.exec_cpu_affinity.as_ref())?;
    let _restore_cpus = match &affinity.first {
        Some(cpus) => Some(run_on(cpus)?),
        None => None,
    };
    let last = affinity.last.as_ref();
    let body = || run(request, &entry, differing, &null, &theirs, last);
    let mut born = process::spawn(&options, body);
    // cgroups(7), "no internal processes": a container that made groups of its own below (an init
    // system does) has emptied its top one, and its first process is in one of them.
    if born.as_ref().is_err_and(|error| error.raw_os_error() == Some(16)) {
        let below = group_of(request.pid)?;
        let options = SpawnOptions { cgroup: Some(below.as_fd()), ..options };
        born = process::spawn(&options, body);
    }
    let child = born.map_err(at("clone the process"))?;
    drop(theirs);
    attend(child, &ours)
}

/// Puts our own CPUs back when dropped.
struct RestoreCpus(Numbers);

impl Drop for RestoreCpus {
    fn drop(&mut self) {
        // They were allowed a moment ago; CPUs that have gone since are left out by the kernel.
        let _ = placement::set_affinity(&self.0);
    }
}

/// A process is born on the CPUs of its parent.
fn run_on(cpus: &Numbers) -> Result<RestoreCpus, LaunchError> {
    let step = "error setting the initial CPU affinity";
    let own = placement::affinity().map_err(at(step))?;
    placement::set_affinity(cpus).map_err(at(step))?;
    Ok(RestoreCpus(own))
}

/// The version 2 group that a process is in.
fn group_of(pid: Pid) -> Result<OwnedFd, LaunchError> {
    let path = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
    let text = std::fs::read_to_string(&path).map_err(at(format!("read {path}")))?;
    let group = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    match Cgroup::find(Path::new(group)).entry() {
        Ok(Entry::Directory(directory)) => Ok(directory),
        Ok(Entry::Tasks { .. } | Entry::Nothing) => {
            Err(LaunchError::new(Kind::Other, "no version 2 cgroup"))
        }
        Err(error) => Err(LaunchError::step("open the container's cgroup", &error)),
    }
}

fn check(process: &Process) -> Result<(), LaunchError> {
    if process.args.is_empty() {
        return Err(LaunchError::new(Kind::Other, "process.args must not be empty"));
    }
    if !process.cwd.starts_with('/') {
        return Err(LaunchError::new(
            Kind::Other,
            format!("Cwd must be an absolute path: {:?}", process.cwd),
        ));
    }
    crate::unsupported::check_process(process)
}

/// Which namespaces of the container are not ours: joining one's own user namespace is refused.
fn differing(pid: Pid) -> Result<Namespaces, LaunchError> {
    let mut differing = Namespaces::NONE;
    for (name, kind) in NAMESPACES {
        let inode = |path: String| std::fs::metadata(path).map(|data| data.ino());
        // A kernel without this kind has neither file.
        let Ok(own) = inode(format!("/proc/self/ns/{name}")) else { continue };
        let path = format!("/proc/{}/ns/{name}", pid.as_raw_nonzero());
        let theirs = inode(path.clone()).map_err(at(format!("look at {path}")))?;
        if own != theirs {
            differing |= kind;
        }
    }
    Ok(differing)
}

fn run(
    request: &ExecRequest<'_>,
    entry: &Entry,
    differing: Namespaces,
    null: &OwnedFd,
    channel: &Channel,
    cpus: Option<&Numbers>,
) -> i32 {
    match become_inside(request, entry, differing, null, channel, cpus) {
        Ok(code) => code,
        Err(error) => inside::fail(channel, &error),
    }
}

fn become_inside(
    request: &ExecRequest<'_>,
    entry: &Entry,
    differing: Namespaces,
    null: &OwnedFd,
    channel: &Channel,
    cpus: Option<&Numbers>,
) -> Result<i32, LaunchError> {
    let process = request.process;
    process::set_dumpable(Dumpable::No).map_err(at("prctl PR_SET_DUMPABLE"))?;
    process::reset_signals();
    rustix::process::setsid().map_err(at_raw("setsid"))?;
    inside::connect_streams(&request.stdio, null)?;
    entry.enter().map_err(at("error adding process to cgroup"))?;
    if let Some(cpus) = cpus {
        placement::set_affinity(cpus).map_err(at("error setting the final CPU affinity"))?;
    }
    inside::close_all_but(&[channel.as_fd(), request.pidfd], request.preserved_fds)?;
    let joined = differing.without(Namespaces::PID);
    if !joined.is_empty() {
        namespace::join(request.pidfd, joined).map_err(at("setns"))?;
    }
    inside::close_all_but(&[channel.as_fd()], request.preserved_fds)?;
    if differing.contains(Namespaces::USER) {
        sys::capability::set_identity(0, 0, &[])
            .map_err(at("become root of the user namespace"))?;
    }
    let proc = Procfs::open().map_err(at("error preparing a proc file system"))?;
    inside::set_process_settings(process, &proc, channel)?;
    drop(proc);
    if let Stdio::Terminal { size } = &request.stdio {
        let devpts = program::devpts().map_err(at("open /dev/pts"))?;
        inside::connect_terminal(*size, process, Some(&devpts), channel)?;
    }
    let identity = identity::resolve(&inside::container_root()?, process, request.user)?;
    program::enter_directory(&process.cwd, program::Missing::Refuse)?;
    inside::give_up(process, &identity, request.seccomp)?;
    let program = program::find(&process.args, process, &identity)?;
    inside::become_program(process, request.seccomp, request.preserved_fds, &program, channel)
}

fn attend(child: Child, channel: &Channel) -> Result<ExecLaunched, LaunchError> {
    let Child { pid, pidfd } = child;
    let mut launched = ExecLaunched { pid, pidfd, terminal: None, warnings: Vec::new() };
    let mut executing = false;
    let error = loop {
        match channel.hear_of(&launched.pidfd, PATIENCE).map_err(at("hear from the process")) {
            Ok(Told::Executing) => executing = true,
            Ok(Told::Closed) if executing => return Ok(launched),
            Ok(Told::Terminal(master)) => launched.terminal = Some(master),
            Ok(Told::Warning(text)) => launched.warnings.push(text),
            Ok(Told::Failed(error)) | Err(error) => break error,
            Ok(Told::Closed) => {
                break LaunchError::new(
                    Kind::Other,
                    "the process died before its program was executed",
                );
            }
            Ok(Told::Mapping | Told::Hooks | Told::Ready) => {}
        }
    };
    let _ = process::signal_process(&launched.pidfd, 9);
    let _ = process::wait_process(&launched.pidfd, Wait::Block);
    Err(error)
}
