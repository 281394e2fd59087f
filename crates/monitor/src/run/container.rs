//! Starting processes, by the `runtime` crate or another OCI runtime, behind one interface.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use runtime::external::{External, Force};
use runtime::{Cgroup, CgroupPlan, Init, LaunchRequest, OomWatch, RootfsMount, Stdio, UserRequest};
use spec::id::Id;
use spec::runtime::ConsoleSize;
use sys::process::Pid;
use sys::seccomp::Program;

use super::process::ChildEnds;
use crate::complaints::complain;
use crate::settings::{Rootfs, RuntimeChoice};
use crate::wire::{Enter, Launch};

/// What is watched of a container's control group.
#[derive(Debug)]
pub struct ControlGroup {
    cgroup: Option<Cgroup>,
}

/// A process that runs.
#[derive(Debug)]
pub struct Started {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub terminal: Option<OwnedFd>,
}

/// A process that does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit_code: i32,
    /// In Docker's words.
    pub message: String,
}

/// Makes and starts the container. Without `ends` it gets a terminal.
pub fn start(
    launch: &Launch,
    netns: Option<BorrowedFd<'_>>,
    seccomp: Option<&Program>,
    ends: Option<&ChildEnds>,
) -> Result<(ControlGroup, Started), Failure> {
    let Launch { bundle, settings, document: spec, .. } = launch;
    let rootfs = match &settings.rootfs {
        Rootfs::Overlay { lowers, upper, work } => RootfsMount::Overlay {
            lowers: lowers.clone(),
            writable: Some(runtime::rootfs::Writable { upper: upper.clone(), work: work.clone() }),
            // What the store reads as a layer must be all in the upper directory.
            options: ["redirect_dir=off", "metacopy=off", "index=off"].map(String::from).to_vec(),
        },
        Rootfs::Bind { path } => RootfsMount::Bind { path: path.clone() },
    };
    let user = user_request(settings.user.as_ref(), &settings.groups);
    let sealed = if settings.init { Some(seal()?) } else { None };
    let cgroup = match &settings.cgroup {
        Some(path) => CgroupPlan::Path(path.clone()),
        None => CgroupPlan::Inherit,
    };
    let id = settings.container.to_string();
    let stdio = stdio(ends, settings.console_size);
    let request = LaunchRequest {
        bundle,
        netns,
        user: user.as_ref(),
        init: sealed.as_ref().map_or(Init::Program, Init::Engine),
        seccomp,
        ..LaunchRequest::new(&id, spec, &rootfs, stdio, cgroup)
    };
    let launched = match external(&settings.runtime, bundle, "external") {
        None => runtime::launch(&request),
        Some(runtime) => runtime.launch(&request),
    };
    let launched =
        launched.map_err(|error| failure(error.kind.exit_code(), error.docker_text()))?;
    for warning in &launched.warnings {
        complain!("{warning}");
    }
    let container = ControlGroup { cgroup: launched.cgroup };
    let started = Started { pid: launched.pid, pidfd: launched.pidfd, terminal: launched.terminal };
    Ok((container, started))
}

/// Starts a further process in a container, whose first process is behind `pidfd`. Without `ends` it
/// gets a terminal.
pub fn exec(
    enter: &Enter,
    pidfd: BorrowedFd<'_>,
    seccomp: Option<&Program>,
    ends: Option<&ChildEnds>,
) -> Result<Started, Failure> {
    let other = |message: &str| Failure { exit_code: 128, message: message.to_owned() };
    let user = user_request(enter.user.as_ref(), &enter.groups);
    let cgroup = enter.cgroup.as_deref().map(Cgroup::find);
    let request = runtime::ExecRequest {
        pid: Pid::from_raw(enter.pid).ok_or_else(|| other("the container is not running"))?,
        pidfd,
        process: &enter.process,
        stdio: stdio(ends, enter.process.console_size),
        cgroup: cgroup.as_ref(),
        user: user.as_ref(),
        seccomp,
        preserved_fds: 0,
    };
    let launched = match external(&enter.runtime, &enter.bundle, &format!("exec-{}", enter.exec)) {
        None => runtime::exec(&request),
        Some(runtime) => runtime.exec(&enter.container.to_string(), &request),
    };
    let launched =
        launched.map_err(|error| failure(error.kind.exec_exit_code(), error.docker_exec_text()))?;
    Ok(Started { pid: launched.pid, pidfd: launched.pidfd, terminal: launched.terminal })
}

/// Removes what another runtime keeps of a container that ended.
///
/// # Errors
/// In that runtime's words.
pub fn delete(bundle: &Path, container: &Id, runtime: &RuntimeChoice) -> Result<(), String> {
    match external(runtime, bundle, "external") {
        None => Ok(()),
        Some(runtime) => {
            runtime.delete(&container.to_string(), Force::Yes).map_err(|error| error.message)
        }
    }
}

/// `scratch` is a place of the caller's own in the bundle.
fn external(runtime: &RuntimeChoice, bundle: &Path, scratch: &str) -> Option<External> {
    match runtime {
        RuntimeChoice::Builtin => None,
        RuntimeChoice::External { program, args, root } => Some(External {
            program: program.clone(),
            arguments: args.clone(),
            root: root.clone(),
            scratch: bundle.join(scratch),
        }),
    }
}

impl ControlGroup {
    /// A watch for the out-of-memory killer, where the host has one.
    pub fn watch_oom(&self) -> Option<OomWatch> {
        self.cgroup.as_ref()?.watch_oom().ok()
    }
}

fn stdio(ends: Option<&ChildEnds>, size: Option<ConsoleSize>) -> Stdio<'_> {
    match ends {
        Some(ends) => Stdio::Streams {
            stdin: ends.stdin.as_ref().map(AsFd::as_fd),
            stdout: ends.stdout.as_fd(),
            stderr: ends.stderr.as_fd(),
        },
        None => Stdio::Terminal {
            size: size.map(|size| sys::tty::Size { rows: size.height, columns: size.width }),
        },
    }
}

fn user_request(user: Option<&String>, groups: &[String]) -> Option<UserRequest> {
    if user.is_none() && groups.is_empty() {
        return None;
    }
    Some(UserRequest { user: user.cloned().unwrap_or_default(), groups: groups.to_vec() })
}

/// The compiled filter that another process wrote into a file.
pub fn read_program(file: &OwnedFd) -> Result<Program, Failure> {
    let other = |message: String| Failure { exit_code: 128, message };
    let read = || -> rustix::io::Result<Vec<u8>> {
        let size = usize::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
        let mut bytes = vec![0; size];
        let count = rustix::io::pread(file, &mut bytes[..], 0)?;
        bytes.truncate(count);
        Ok(bytes)
    };
    let bytes =
        read().map_err(|error| other(format!("cannot read the seccomp filter: {error}")))?;
    Program::from_bytes(&bytes).ok_or_else(|| other("the seccomp filter is malformed".to_owned()))
}

fn seal() -> Result<runtime::seal::Sealed, Failure> {
    runtime::seal::Sealed::open().map_err(|error| Failure {
        exit_code: 128,
        message: format!("cannot seal our own program: {error}"),
    })
}

fn failure(exit_code: i32, message: String) -> Failure {
    Failure { exit_code, message }
}
