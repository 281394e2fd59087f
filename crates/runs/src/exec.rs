//! A further process in a run: a launcher starts it, the supervisor serves its streams.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use monitor::wire::{AttachOptions, Enter, Event, Request, Streams};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use spec::Id;
use spec::runtime;

use crate::link::Link;
use crate::start::{Filter, launcher, refill};
use crate::{Error, Launchers, Process, Refusal, Result, Run, RuntimeChoice};

/// A client's own connection, and what it wants.
#[derive(Debug)]
pub struct Client {
    pub options: AttachOptions,
    pub socket: OwnedFd,
}

/// A process to be started in a run.
#[derive(Debug)]
pub struct ExecPlan {
    pub exec: Id,
    /// The run directory.
    pub bundle: PathBuf,
    pub process: runtime::Process,
    /// Looked up in the run's own passwd and group files.
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub cgroup: Option<PathBuf>,
    pub runtime: RuntimeChoice,
    pub filter: Option<Filter>,
    /// Whether it gets a stdin; otherwise it reads /dev/null.
    pub stdin: bool,
}

/// A process that runs in a run.
#[derive(Debug)]
pub struct ExecStarted {
    pub exec: Id,
    pub pid: i32,
    pidfd: OwnedFd,
    status: OwnedFd,
    streams: Streams,
    ours: Vec<OwnedFd>,
}

/// Both ends of a process's streams.
#[derive(Default)]
struct Pipes {
    ours: Vec<OwnedFd>,
    theirs: Vec<OwnedFd>,
}

impl Run {
    /// Starts a process beside the first one. Nobody serves its streams before [`Run::adopt`].
    ///
    /// # Errors
    /// The outer ones are of the machinery, the inner ones the user's.
    pub async fn exec(
        &self,
        launchers: &Arc<Launchers>,
        plan: ExecPlan,
        attached: bool,
    ) -> Result<std::result::Result<ExecStarted, Refusal>> {
        if self.is_silent() {
            // Nobody would serve what is started.
            return Err(Error::Silent);
        }
        if self.link().is_old() {
            return Err(Error::Old);
        }
        let main = self.process().ok_or(Error::NotRunning)?;
        let container = main.pidfd().ok_or(Error::NotRunning)?;
        let filter = plan.filter.as_ref().map(Filter::file).transpose()?;
        let (status, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| Error::Streams { source: error.into() })?;
        let pipes = match (plan.process.terminal, attached || plan.stdin) {
            (true, _) => Pipes::default(),
            (false, true) => Pipes::open(plan.stdin)?,
            (false, false) => Pipes::nothing()?,
        };
        let mut fds: Vec<BorrowedFd<'_>> = vec![container];
        fds.extend(filter.as_ref().map(AsFd::as_fd));
        fds.push(theirs.as_fd());
        fds.extend(pipes.theirs.iter().map(AsFd::as_fd));
        let request = Request::Enter(Box::new(Enter {
            container: self.id(),
            bundle: plan.bundle,
            exec: plan.exec,
            pid: main.pid(),
            process: plan.process.clone(),
            user: plan.user,
            groups: plan.groups,
            cgroup: plan.cgroup,
            runtime: plan.runtime,
            seccomp: filter.is_some(),
            stdin: plan.stdin && !plan.process.terminal && !pipes.ours.is_empty(),
        }));
        let (event, mut handed) = enter(launchers, &request, &fds).await?;
        match event {
            Event::ExecStarted { exec, pid } => {
                let terminal = if plan.process.terminal { handed.pop() } else { None };
                let pidfd = handed.pop().ok_or(Error::NotRunning)?;
                let streams = match (&terminal, pipes.ours.len()) {
                    (Some(_), _) => Streams::Terminal,
                    (None, 0) => Streams::Nothing,
                    (None, count) => Streams::Pipes { stdin: count == 3 },
                };
                let ours = terminal.into_iter().chain(pipes.ours).collect();
                Ok(Ok(ExecStarted { exec, pid, pidfd, status, streams, ours }))
            }
            Event::ExecFailed { exit_code, message, .. } => Ok(Err(Refusal { exit_code, message })),
            Event::Failed { message } => Err(Error::Refused(message)),
            other => Err(Error::Unexpected(format!("{other:?}"))),
        }
    }

    /// Lets the supervisor serve a process that was started, and a client of it.
    ///
    /// # Errors
    /// When the supervisor does not take it; the process is killed then.
    pub async fn adopt(
        &self,
        started: ExecStarted,
        client: Option<(AttachOptions, BorrowedFd<'_>)>,
    ) -> Result<()> {
        let ExecStarted { exec, pid, pidfd, status, streams, ours } = started;
        let attach = client.as_ref().map(|(options, _)| options.clone());
        let request = Request::Adopt { exec, pid, streams, attach };
        let outcome = {
            let mut fds = vec![pidfd.as_fd(), status.as_fd()];
            fds.extend(ours.iter().map(AsFd::as_fd));
            fds.extend(client.as_ref().map(|(_, socket)| *socket));
            self.link().demand(&request, &fds).await
        };
        match outcome {
            Ok(()) => {
                self.link().keep_exec(exec, Process::new(pid, Some(pidfd)));
                Ok(())
            }
            Err(error) => {
                // Nobody would read its output or learn of its end.
                let _gone = sys::process::signal_process(&pidfd, crate::run::SIGKILL);
                Err(error)
            }
        }
    }
}

/// Has a launcher start a process. One that hangs before it begins is replaced, once.
async fn enter(
    launchers: &Arc<Launchers>,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> Result<(Event, Vec<OwnedFd>)> {
    let mut again = true;
    loop {
        let launcher = launcher(launchers).await?;
        let pidfd = launcher.pidfd.try_clone().map_err(|source| Error::Watch { source })?;
        let (link, _notices) = Link::start(launcher.connection, launcher.pidfd)?;
        let reply = link.request(request, fds).await;
        // One that has started nothing waits for that; one that has, has closed its end. What a late one
        // starts is ended by the link, which listens on.
        if !matches!(reply, Err(Error::Silent)) {
            link.hang_up();
        }
        match reply {
            Err(Error::NotAccepted) if std::mem::take(&mut again) => {
                tracing::warn!("a launcher that does not answer is replaced");
                // One that has ended needs no signal.
                let _gone = sys::process::signal_process(&pidfd, crate::run::SIGKILL);
                launchers.give_up();
            }
            reply => {
                refill(launchers);
                return reply;
            }
        }
    }
}

impl Pipes {
    /// In the order stdin, stdout, stderr.
    fn open(stdin: bool) -> Result<Pipes> {
        let mut pipes = Pipes::default();
        let pipe = || {
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
                .map_err(|error| Error::Streams { source: error.into() })
        };
        if stdin {
            let (read, write) = pipe()?;
            pipes.add(write, read)?;
        }
        for _ in 0..2 {
            let (read, write) = pipe()?;
            pipes.add(read, write)?;
        }
        Ok(pipes)
    }

    /// Our end never waits; the process's is another file description and stays as programs expect it.
    fn add(&mut self, ours: OwnedFd, theirs: OwnedFd) -> Result<()> {
        rustix::io::ioctl_fionbio(&ours, true)
            .map_err(|error| Error::Streams { source: error.into() })?;
        self.ours.push(ours);
        self.theirs.push(theirs);
        Ok(())
    }

    /// For a process that nobody listens to.
    fn nothing() -> Result<Pipes> {
        let open = || {
            rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| Error::Streams { source: error.into() })
        };
        Ok(Pipes { ours: Vec::new(), theirs: vec![open()?, open()?] })
    }
}
