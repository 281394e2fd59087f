//! One run: everything that may happen to it once it was started or found again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use monitor::client::Connection;
use monitor::resolver::Sockets;
use monitor::wire::{AttachOptions, Request, State, Target};
use spec::Id;
use spec::runtime::ConsoleSize;
use tokio::sync::mpsc;

use crate::link::{Link, Notice};
use crate::process::Namespace;
use crate::start::{launcher, publish};
use crate::{Error, Launchers, Process, ProxyPort, Result, RuntimeChoice};

pub(crate) const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();

/// A run that this daemon started or found. Dropping it changes nothing for its processes.
#[derive(Debug)]
pub struct Run {
    id: Id,
    link: Arc<Link>,
}

/// What a daemon finds of a run that an earlier one started.
#[derive(Debug)]
pub struct Found {
    pub run: Arc<Run>,
    pub notices: mpsc::UnboundedReceiver<Notice>,
}

impl Run {
    pub(crate) fn new(id: Id, link: Arc<Link>) -> Run {
        Run { id, link }
    }

    /// Finds the supervisor of an earlier daemon's run; `None` when there is none.
    ///
    /// # Errors
    /// When it is there but cannot be heard.
    pub fn find(id: Id, bundle: &Path) -> Result<Option<Found>> {
        let Ok(connection) = Connection::open(bundle) else { return Ok(None) };
        let (link, notices) = Link::found(connection)?;
        Ok(Some(Found { run: Arc::new(Run::new(id, link)), notices }))
    }

    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Holds the first process of a run whose supervisor does not say which it is. The caller knows that
    /// the number is that process's.
    pub fn believe(&self, process: Process) {
        self.link.keep_main(process);
    }

    /// Its first process.
    #[must_use]
    pub fn process(&self) -> Option<Arc<Process>> {
        self.link.main()
    }

    /// The first process's network namespace.
    ///
    /// # Errors
    /// When it has ended.
    pub fn netns(&self) -> Result<OwnedFd> {
        self.namespace(Namespace::Network)
    }

    /// # Errors
    /// When it has ended.
    pub fn namespace(&self, kind: Namespace) -> Result<OwnedFd> {
        let process = self.process().ok_or(Error::NotRunning)?;
        process.namespace(kind).map_err(|source| Error::Process { source })
    }

    /// Sends a signal, past the supervisor.
    ///
    /// # Errors
    /// When the process has ended.
    pub async fn signal(&self, target: Target, signal: i32) -> Result<()> {
        self.link.signal(target, signal).await
    }

    /// What the supervisor knows.
    ///
    /// # Errors
    /// [`Error::Silent`] after two seconds.
    pub async fn state(&self) -> Result<State> {
        self.link.state().await
    }

    /// Hands a client's connection to the supervisor.
    ///
    /// # Errors
    /// When the process has ended.
    pub async fn attach(
        &self,
        target: Target,
        options: AttachOptions,
        socket: BorrowedFd<'_>,
    ) -> Result<()> {
        self.link.demand(&Request::Attach { target, options }, &[socket]).await
    }

    /// Sets a terminal's size.
    ///
    /// # Errors
    /// When there is no terminal.
    pub async fn resize(&self, target: Target, size: ConsoleSize) -> Result<()> {
        self.link.demand(&Request::Resize { target, size }, &[]).await
    }

    /// Forwards ports in user mode.
    ///
    /// # Errors
    /// When the supervisor cannot.
    pub async fn publish(&self, ports: &[(ProxyPort, OwnedFd)]) -> Result<()> {
        publish(&self.link, ports).await
    }

    /// Stops forwarding to these addresses of the run.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub async fn unpublish(&self, to: Vec<std::net::IpAddr>) -> Result<()> {
        self.link.demand(&Request::Unpublish { to }, &[]).await
    }

    /// Starts the resolver, if it does not run yet.
    ///
    /// # Errors
    /// When the process has ended, or the namespace does not take the sockets.
    pub async fn resolve(&self) -> Result<()> {
        let netns = self.netns()?;
        let made = tokio::task::spawn_blocking(move || {
            sys::netlink::netns::within(netns.as_fd(), Sockets::open_here)
        });
        let made = made.await.map_err(|_| Error::Ended)?;
        let sockets = made
            .map_err(|source| Error::Process { source })?
            .map_err(|source| Error::Refused(spec::chain(&source)))?;
        let fds = sockets.descriptors();
        self.link.demand(&Request::Resolve { sockets: fds.len() }, &fds).await
    }

    /// Whether the supervisor let a request pass its deadline and has said nothing since.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.link.is_silent()
    }

    /// Waits until a silent supervisor speaks again; false when its connection ends instead.
    pub async fn speaks(&self) -> bool {
        self.link.speaks().await
    }

    /// Kills a supervisor whose processes were killed past it, unless it ends within `patience`.
    pub fn end_supervisor(&self, patience: Duration) {
        self.link.end_supervisor(patience);
    }

    /// Tells the supervisor that the run's end is recorded, so that it lets clients go.
    pub fn hang_up(&self) {
        self.link.hang_up();
    }

    /// Removes what another runtime keeps of a run that ended.
    ///
    /// # Errors
    /// In that runtime's words.
    pub async fn delete(
        launchers: &Arc<Launchers>,
        container: Id,
        bundle: &Path,
        runtime: RuntimeChoice,
    ) -> Result<()> {
        if runtime == RuntimeChoice::Builtin {
            return Ok(());
        }
        let launcher = launcher(launchers).await?;
        let (link, _notices) = Link::start(launcher.connection, launcher.pidfd)?;
        let request = Request::Delete { bundle: bundle.to_owned(), container, runtime };
        let outcome = link.demand(&request, &[]).await;
        link.hang_up();
        outcome
    }
}
