//! Starting processes, by the `runtime` crate or another OCI runtime, behind one interface.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use runtime::external::{External, Force};
use runtime::{Cgroup, CgroupPlan, Init, LaunchRequest, OomWatch, RootfsMount, Stdio, UserRequest};
use spec::runtime::{ConsoleSize, Spec};
use sys::process::Pid;

use super::process::ChildEnds;
use crate::settings::{MonitorSettings, Rootfs, RuntimeChoice};
use crate::wire::ExecRequest;

/// How containers of this monitor are made.
#[derive(Debug)]
pub struct Container {
    maker: Maker,
    cgroup: Option<Cgroup>,
    /// Compiled once, for the container and every exec in it.
    seccomp: Option<sys::seccomp::Program>,
    /// `--group-add`, which counts for every exec too: moby `daemon/exec_linux.go`.
    groups: Vec<String>,
}

#[derive(Debug)]
enum Maker {
    Builtin,
    External { runtime: External, id: String },
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
    settings: &MonitorSettings,
    bundle: &Path,
    netns: Option<BorrowedFd<'_>>,
    ends: Option<&ChildEnds>,
) -> Result<(Container, Started), Failure> {
    let spec = read_spec(&settings.config)?;
    let seccomp = compile_seccomp(&spec)?;
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
        seccomp: seccomp.as_ref(),
        ..LaunchRequest::new(&id, &spec, &rootfs, stdio, cgroup)
    };
    let (maker, launched) = match &settings.runtime {
        RuntimeChoice::Builtin => (Maker::Builtin, runtime::launch(&request)),
        RuntimeChoice::External { program, args, root } => {
            let runtime = External {
                program: program.clone(),
                arguments: args.clone(),
                root: root.clone(),
                scratch: bundle.join("external"),
            };
            let launched = runtime.launch(&request);
            (Maker::External { runtime, id: id.clone() }, launched)
        }
    };
    let launched =
        launched.map_err(|error| failure(error.kind.exit_code(), error.docker_text()))?;
    for warning in &launched.warnings {
        eprintln!("{warning}");
    }
    let groups = settings.groups.clone();
    let container = Container { maker, cgroup: launched.cgroup, seccomp, groups };
    let started = Started { pid: launched.pid, pidfd: launched.pidfd, terminal: launched.terminal };
    Ok((container, started))
}

impl Container {
    /// Starts a further process beside the first one, which is `main`. Without `ends` it gets a
    /// terminal.
    pub fn exec(
        &self,
        main: (Pid, BorrowedFd<'_>),
        exec: &ExecRequest,
        ends: Option<&ChildEnds>,
    ) -> Result<Started, Failure> {
        let user = user_request(exec.user.as_ref(), &self.groups);
        let request = runtime::ExecRequest {
            pid: main.0,
            pidfd: main.1,
            process: &exec.process,
            stdio: stdio(ends, exec.process.console_size),
            cgroup: self.cgroup.as_ref(),
            user: user.as_ref(),
            seccomp: self.seccomp.as_ref(),
            preserved_fds: 0,
        };
        let launched = match &self.maker {
            Maker::Builtin => runtime::exec(&request),
            Maker::External { runtime, id } => runtime.exec(id, &request),
        };
        let launched = launched
            .map_err(|error| failure(error.kind.exec_exit_code(), error.docker_exec_text()))?;
        Ok(Started { pid: launched.pid, pidfd: launched.pidfd, terminal: launched.terminal })
    }

    /// A watch for the out-of-memory killer, where the host has one.
    pub fn watch_oom(&self) -> Option<OomWatch> {
        self.cgroup.as_ref()?.watch_oom().ok()
    }

    /// Kills what is left and removes what the container had on the host.
    pub fn remove(self) -> Result<(), String> {
        let mut failures = Vec::new();
        if let Some(cgroup) = &self.cgroup {
            // Without a pid namespace there may be processes that outlived the first one.
            if !cgroup.processes().unwrap_or_default().is_empty()
                && let Err(error) = cgroup.kill()
            {
                failures.push(format!("cannot kill what is left: {error}"));
            }
        }
        match &self.maker {
            Maker::Builtin => {}
            Maker::External { runtime, id } => {
                if let Err(error) = runtime.delete(id, Force::Yes) {
                    failures.push(error.message);
                }
            }
        }
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.remove()
        {
            failures.push(format!("cannot remove the control group: {error}"));
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
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

fn read_spec(path: &Path) -> Result<Spec, Failure> {
    let other = |message| Failure { exit_code: 128, message };
    let bytes = fs::read(path).map_err(|error| {
        other(format!("cannot read the container's configuration {path:?}: {error}"))
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        other(format!("the container's configuration {path:?} is malformed: {error}"))
    })
}

fn compile_seccomp(spec: &Spec) -> Result<Option<sys::seccomp::Program>, Failure> {
    let Some(seccomp) = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()) else {
        return Ok(None);
    };
    match runtime::seccomp::compile(seccomp) {
        Ok(program) => Ok(Some(program)),
        Err(error) => Err(Failure { exit_code: 128, message: error.to_string() }),
    }
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
