//! The engine's connection to one monitor.
//!
//! A [`Link`] asks and gets answers; what the monitor tells on its own comes out of a channel, in
//! order, with [`News::Lost`] or an exit as the last. Dropping a link changes nothing for the
//! container.
//!
//! Lock order: `answers`, then `connection`; neither is held across an `.await`.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use monitor::client::{Connection, ConnectionError, Received};
use monitor::exit::ExitRecord;
use monitor::wire::{DetachCause, Event, Request, State, Target};
use spec::Id;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::error::{Error, Kind, Result, chain};

/// What a monitor tells without being asked.
#[derive(Debug)]
pub(crate) enum News {
    Exited(ExitRecord),
    Oom,
    ExecExited {
        exec: Id,
        code: i32,
    },
    Detached {
        target: Target,
        cause: DetachCause,
    },
    /// The connection ended without an exit.
    Lost,
}

pub(crate) struct Link {
    connection: Mutex<Connection>,
    answers: Mutex<HashMap<u64, oneshot::Sender<Event>>>,
}

impl Link {
    /// Starts to listen. `child` is the monitor's pidfd where this process must reap it.
    pub(crate) fn start(
        connection: Connection,
        child: Option<OwnedFd>,
    ) -> io::Result<(Arc<Self>, mpsc::UnboundedReceiver<News>)> {
        // The same socket by another descriptor, for the event loop.
        let socket = std::os::unix::net::UnixStream::from(rustix::io::dup(connection.as_fd())?);
        let socket = UnixStream::from_std(socket)?;
        let link = Arc::new(Self { connection: Mutex::new(connection), answers: Mutex::default() });
        let listener = Arc::clone(&link);
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            listen(&listener, &socket, &sender).await;
            listener.hang_up();
            drop(sender);
            if let Some(pidfd) = child {
                reap(pidfd).await;
            }
        });
        Ok((link, receiver))
    }

    /// Finds the monitor of an earlier daemon's container.
    pub(crate) fn find(run_dir: &Path) -> std::result::Result<Connection, ConnectionError> {
        Connection::open(run_dir)
    }

    /// Sends a request and awaits its answer.
    pub(crate) async fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Event> {
        let answer = self.send(request, fds)?;
        answer.await.map_err(|_| Error::internal("the container's monitor ended meanwhile"))
    }

    /// The same, where only success matters.
    pub(crate) async fn demand(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        match self.ask(request, fds).await? {
            Event::Failed { message } => Err(Error::internal(message)),
            Event::Done
            | Event::Started { .. }
            | Event::StartFailed { .. }
            | Event::Exited(_)
            | Event::ExecStarted { .. }
            | Event::ExecFailed { .. }
            | Event::ExecExited { .. }
            | Event::Oom
            | Event::Detached { .. }
            | Event::State(_) => Ok(()),
        }
    }

    /// Sends a request whose answer nobody needs.
    pub(crate) fn tell(&self, request: &Request) -> Result<()> {
        self.send(request, &[]).map(drop)
    }

    pub(crate) async fn state(&self) -> Result<State> {
        match self.ask(&Request::State, &[]).await? {
            Event::State(state) => Ok(state),
            other => Err(Error::internal(format!(
                "the monitor answered {other:?} to a question for its state"
            ))),
        }
    }

    fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<oneshot::Receiver<Event>> {
        let (sender, receiver) = oneshot::channel();
        // Held while sending, so that the answer finds its place.
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match connection.send(request, fds) {
            Ok(seq) => {
                answers.insert(seq, sender);
                Ok(receiver)
            }
            Err(source) => Err(Error::caused(Kind::Internal, source)),
        }
    }

    fn receive(&self) -> std::result::Result<Received, ConnectionError> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).receive()
    }

    /// Whoever awaits an answer learns that none will come.
    fn hang_up(&self) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Gives an answer to who asked; anything else is news.
    fn deliver(&self, re: Option<u64>, event: Event) -> Option<News> {
        if let Some(seq) = re {
            let asker = self.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&seq);
            if let Some(asker) = asker {
                // Who asked may have gone; the thing is done all the same.
                let _ = asker.send(event);
            }
            return None;
        }
        match event {
            Event::Exited(record) => Some(News::Exited(record)),
            Event::Oom => Some(News::Oom),
            Event::ExecExited { exec, exit_code } => {
                Some(News::ExecExited { exec, code: exit_code })
            }
            Event::Detached { target, cause } => Some(News::Detached { target, cause }),
            Event::Started { .. }
            | Event::StartFailed { .. }
            | Event::ExecStarted { .. }
            | Event::ExecFailed { .. }
            | Event::State(_)
            | Event::Done
            | Event::Failed { .. } => None,
        }
    }
}

/// Hears until the connection ends.
async fn listen(link: &Link, socket: &UnixStream, news: &mpsc::UnboundedSender<News>) {
    let mut exited = false;
    loop {
        if socket.readable().await.is_err() {
            break;
        }
        // "Nothing there" must come out as `WouldBlock`, or the loop would not wait.
        let received = socket.try_io(Interest::READABLE, || match link.receive() {
            Ok(Received::Events(events)) if events.is_empty() => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Ok(Received::Events(events)) => Ok((events, false)),
            Ok(Received::Closed(events)) => Ok((events, true)),
            Err(error) => {
                warn!(error = chain(&error), "monitor's connection broke");
                Ok((Vec::new(), true))
            }
        });
        let Ok((events, closed)) = received else { continue };
        for told in events {
            if let Some(piece) = link.deliver(told.re, told.event) {
                exited |= matches!(piece, News::Exited(_));
                let _ = news.send(piece);
            }
        }
        if closed {
            break;
        }
    }
    if !exited {
        let _ = news.send(News::Lost);
    }
}

/// Takes the exit status of a monitor that is our child, so that no zombie stays. It has closed its
/// connection, so it ends within moments.
async fn reap(pidfd: OwnedFd) {
    let mut pause = Duration::from_millis(1);
    while let Ok(None) = sys::process::wait_process(&pidfd, sys::process::Wait::Poll) {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
