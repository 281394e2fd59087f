//! Starting a run: a launcher gets the workload as an OCI document with the descriptors that it leaves
//! places for, and becomes the run's supervisor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use monitor::client::Launcher;
use monitor::wire::{Event, Launch, Request};
use rustix::fs::{MemfdFlags, SealFlags};
use tokio::sync::{Notify, mpsc};

use crate::document;
use crate::exec::Client;
use crate::link::{Link, Notice};
use crate::workload::{CallFilter, NetworkNamespace};
use crate::{Error, Launchers, Process, ProxyPort, Refusal, Result, Run, Workload};

/// Most descriptors that one message may carry, with room to spare: unix(7), SCM_MAX_FD is 253.
pub(crate) const FDS_MAX: usize = 200;
/// Clients that come with the start; further ones are handed over as soon as it has succeeded.
const CLIENTS_MAX: usize = 128;
/// Launchers that are tried one after the other, if they hang before they begin.
const LAUNCHERS_TRIED: usize = 3;

/// A run that just began.
#[derive(Debug)]
pub struct Started {
    pub run: Arc<Run>,
    pub notices: mpsc::UnboundedReceiver<Notice>,
    pub pid: i32,
    pub at: Timestamp,
    /// Clients that did not come with the start.
    pub left: Vec<Client>,
}

/// A compiled seccomp filter, in a sealed file that every start shares.
#[derive(Debug, Clone)]
pub struct Filter {
    file: Arc<OwnedFd>,
}

impl Filter {
    /// # Errors
    /// When memory is short.
    pub fn new(program: &sys::seccomp::Program) -> Result<Filter> {
        let failed = |error: rustix::io::Errno| Error::Filter { source: error.into() };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("seccomp", flags).map_err(failed)?;
        let mut bytes = &program.to_bytes()[..];
        while !bytes.is_empty() {
            let count = rustix::io::write(&file, bytes).map_err(failed)?;
            bytes = &bytes[count..];
        }
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(failed)?;
        Ok(Filter { file: Arc::new(file) })
    }

    pub(crate) fn file(&self) -> Result<OwnedFd> {
        self.file.try_clone().map_err(|source| Error::Filter { source })
    }
}

/// A launcher, without keeping the caller's thread.
pub(crate) async fn launcher(launchers: &Arc<Launchers>) -> Result<Launcher> {
    if let Some(launcher) = launchers.try_take() {
        return Ok(launcher);
    }
    let launchers = Arc::clone(launchers);
    let taken = tokio::task::spawn_blocking(move || launchers.take()).await;
    taken.map_err(|_| Error::Ended)?.map_err(|source| Error::Launcher { source })
}

/// Makes the next launchers while nobody waits for one.
pub(crate) fn refill(launchers: &Arc<Launchers>) {
    if let Err(error) = launchers.fill() {
        tracing::warn!(error = spec::chain(&error), "no launchers made ahead");
    }
}

/// Starts a run, unless `abandoned`. What the workload holds by descriptor is let go of once the run has
/// it.
///
/// # Errors
/// The outer ones are of the machinery, the inner ones the user's. Then nothing runs.
pub async fn start(
    launchers: &Arc<Launchers>,
    workload: Workload,
    clients: Vec<Client>,
    abandoned: &Notify,
) -> Result<std::result::Result<Started, Refusal>> {
    let mut clients = clients;
    for _ in 0..LAUNCHERS_TRIED {
        let launcher = launcher(launchers).await?;
        let pidfd = launcher.pidfd.try_clone().map_err(|source| Error::Watch { source })?;
        let (link, notices) = Link::start(launcher.connection, launcher.pidfd)?;
        let outcome = tokio::select! {
            outcome = launch(&link, &workload, &mut clients) => outcome,
            () = abandoned.notified() => Err(Error::Abandoned),
        };
        let outcome = match outcome {
            Ok(Ok((run, pid, at))) => {
                refill(launchers);
                return Ok(Ok(Started { run, notices, pid, at, left: clients }));
            }
            Ok(Err(refusal)) => Ok(Err(refusal)),
            Err(error) => Err(error),
        };
        // A launcher that has not started anything has nothing to lose.
        let _gone = sys::process::signal_process(&pidfd, crate::run::SIGKILL);
        match outcome {
            Err(Error::NotAccepted) => start_over(launchers, &workload),
            outcome => {
                refill(launchers);
                return outcome;
            }
        }
    }
    Err(Error::NotAccepted)
}

/// Those that wait beside one that hangs are given up with it. Should it have begun in the very moment
/// when it was killed, nothing of that may stay.
fn start_over(launchers: &Launchers, workload: &Workload) {
    tracing::warn!("a launcher that does not answer is replaced");
    launchers.give_up();
    let group = sys::cgroup::Cgroup::find(&workload.cgroup);
    if group.directories().iter().any(|directory| directory.is_dir())
        && let Err(error) = group.kill().and_then(|()| group.remove())
    {
        tracing::warn!(error = spec::chain(&error), "control group left behind");
    }
}

type Begun = (Arc<Run>, i32, Timestamp);

/// Clients that did not come with the start are left in `clients`.
async fn launch(
    link: &Arc<Link>,
    workload: &Workload,
    clients: &mut Vec<Client>,
) -> Result<std::result::Result<Begun, Refusal>> {
    publish(link, &workload.ports).await?;
    let netns = match &workload.namespaces.network {
        NetworkNamespace::Sandbox(netns) => Some(netns),
        NetworkNamespace::Host | NetworkNamespace::New | NetworkNamespace::Joined(_) => None,
    };
    let filter = match &workload.security.filter {
        Some(CallFilter::Compiled(filter)) => Some(filter.file()?),
        Some(CallFilter::Section(_)) | None => None,
    };
    let (places, descriptors): (Vec<_>, Vec<_>) =
        document::descriptors(workload).into_iter().unzip();
    let mut fds: Vec<BorrowedFd<'_>> = netns.map(AsFd::as_fd).into_iter().collect();
    fds.extend(filter.iter().map(AsFd::as_fd));
    fds.extend(descriptors);
    let coming = clients.len().min(room(fds.len())?);
    fds.extend(clients[..coming].iter().map(|client| client.socket.as_fd()));
    let request = Request::Launch(Box::new(Launch {
        bundle: workload.supervision.directory.clone(),
        settings: document::settings(workload),
        document: document::document(workload),
        netns: netns.is_some(),
        seccomp: filter.is_some(),
        places,
        attach: clients[..coming].iter().map(|client| client.options.clone()).collect(),
    }));
    let (event, mut handed) = link.request(&request, &fds).await?;
    drop(fds);
    clients.drain(..coming);
    match event {
        Event::Started { pid, started_at } => {
            let pidfd = handed.pop().ok_or(Error::NotRunning)?;
            link.keep_main(Process::new(pid, Some(pidfd)));
            Ok(Ok((Arc::new(Run::new(workload.id, Arc::clone(link))), pid, started_at)))
        }
        Event::StartFailed { exit_code, message } => Ok(Err(Refusal { exit_code, message })),
        other => Err(Error::Unexpected(format!("{other:?}"))),
    }
}

/// How many clients may come with a start that needs so many descriptors itself.
fn room(descriptors: usize) -> Result<usize> {
    let left = FDS_MAX.checked_sub(descriptors);
    left.map(|left| left.min(CLIENTS_MAX)).ok_or(Error::Descriptors(descriptors, FDS_MAX))
}

/// Gives a supervisor the sockets of published ports.
pub(crate) async fn publish(link: &Link, ports: &[(ProxyPort, OwnedFd)]) -> Result<()> {
    for some in ports.chunks(FDS_MAX) {
        let fds: Vec<BorrowedFd<'_>> = some.iter().map(|(_, socket)| socket.as_fd()).collect();
        let ports = some.iter().map(|(port, _)| *port).collect();
        link.demand(&Request::Publish { ports }, &fds).await?;
    }
    Ok(())
}

/// Locks what no holder of the lock leaves half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_needs_goes_before_its_clients() {
        assert_eq!(room(2).unwrap(), CLIENTS_MAX);
        assert_eq!(room(FDS_MAX - 3).unwrap(), 3);
        let refused = room(FDS_MAX + 1).unwrap_err().to_string();
        assert_eq!(refused, "a start takes 201 descriptors, more than the 200 that it may take");
    }
}
