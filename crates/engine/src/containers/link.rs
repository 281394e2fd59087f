//! The engine's connection to one monitor.
//!
//! A [`Link`] asks and gets answers; what the monitor tells on its own comes out of a channel, in
//! order, with [`News::Lost`] or an exit as the last. Dropping a link changes nothing for the
//! container.
//!
//! Always true: every question has a deadline. A monitor that lets one pass is silent until it
//! says anything again; what is asked meanwhile fails soon, so that a monitor that hangs costs
//! nobody but its own container's callers.
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
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{info, warn};

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

/// How long a monitor may take to say how it is, or to pass a signal on, for which there is another way.
const STATE_MAX: Duration = Duration::from_secs(2);
/// How long for what else it does from memory.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long to make a process in a container: another runtime may be a slow program.
const EXEC_MAX: Duration = Duration::from_secs(15);
/// How long to make a container: there may be hooks.
const START_MAX: Duration = Duration::from_secs(120);
/// How long a silent monitor may take to speak again before a further question fails.
const SILENT_MAX: Duration = Duration::from_millis(300);

pub(crate) struct Link {
    connection: Mutex<Connection>,
    answers: Mutex<HashMap<u64, Asker>>,
    /// It let a question pass its deadline and has said nothing since.
    silent: watch::Sender<bool>,
    /// The connection is over.
    over: watch::Sender<bool>,
    /// Wakes the listener when a part of a request is left to be sent.
    behind: Notify,
    /// The monitor's pidfd, where it could be had.
    monitor: Option<OwnedFd>,
}

/// Who awaits an answer.
enum Asker {
    Waiting(oneshot::Sender<Event>),
    /// Was told that there is none.
    GaveUp,
}

impl Link {
    /// Starts to listen. `child` is the monitor's pidfd where this process must reap it.
    pub(crate) fn start(
        connection: Connection,
        child: Option<OwnedFd>,
    ) -> io::Result<(Arc<Self>, mpsc::UnboundedReceiver<News>)> {
        // The same socket by another descriptor, for the event loop.
        let socket = rustix::io::fcntl_dupfd_cloexec(connection.as_fd(), 0)?;
        let socket = std::os::unix::net::UnixStream::from(socket);
        let socket = UnixStream::from_std(socket)?;
        let monitor = match &child {
            Some(pidfd) => Some(pidfd.try_clone()?),
            None => handle_on(&connection),
        };
        let link = Arc::new(Self {
            connection: Mutex::new(connection),
            answers: Mutex::default(),
            silent: watch::Sender::new(false),
            over: watch::Sender::new(false),
            behind: Notify::new(),
            monitor,
        });
        let listener = Arc::clone(&link);
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            listen(&listener, &socket, &sender).await;
            listener.end();
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

    /// Sends a request and awaits its answer, but not for ever. Where this fails, descriptors may be
    /// on their way to the monitor all the same.
    pub(crate) async fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Event> {
        let mut silent = self.silent.subscribe();
        let speaks = silent.wait_for(|silent| !silent);
        if tokio::time::timeout(SILENT_MAX, speaks).await.is_err() {
            return Err(no_answer());
        }
        let (seq, answer) = self.send(request, fds)?;
        match tokio::time::timeout(patience(request), answer).await {
            Ok(Ok(event)) => Ok(event),
            Ok(Err(_)) => Err(Error::internal("the container's monitor ended meanwhile")),
            Err(_) => {
                self.give_up(seq);
                Err(no_answer())
            }
        }
    }

    fn give_up(&self, seq: u64) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        // An answer that came at this very moment is no silence.
        if let Some(asker) = answers.get_mut(&seq) {
            *asker = Asker::GaveUp;
            self.silent.send_replace(true);
            warn!("a monitor does not answer");
        }
    }

    /// Whether it let a question pass and has said nothing since.
    pub(crate) fn is_silent(&self) -> bool {
        *self.silent.borrow()
    }

    /// Waits until a silent monitor speaks again; false when its connection ends instead.
    pub(crate) async fn speaks(&self) -> bool {
        let (mut silent, mut over) = (self.silent.subscribe(), self.over.subscribe());
        tokio::select! {
            _ = over.wait_for(|over| *over) => false,
            _ = silent.wait_for(|silent| !silent) => true,
        }
    }

    /// Kills a monitor whose container was killed past it, unless it ends within `patience`. What it
    /// has not passed on is lost.
    pub(crate) fn end_monitor(self: &Arc<Self>, patience: Duration) {
        let link = Arc::clone(self);
        tokio::spawn(async move {
            let mut over = link.over.subscribe();
            if tokio::time::timeout(patience, over.wait_for(|over| *over)).await.is_ok() {
                return;
            }
            let Some(monitor) = &link.monitor else { return };
            warn!("a monitor that does not answer is killed");
            if let Err(error) = sys::process::signal_process(monitor, super::step::SIGKILL) {
                warn!(error = chain(&error), "monitor not killed");
            }
        });
    }

    /// Tells the monitor that its container's end is recorded, so that it lets clients go.
    pub(crate) fn hang_up(&self) {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).hang_up();
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
        let (seq, _) = self.send(request, &[])?;
        // Nobody waits for the answer.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&seq);
        Ok(())
    }

    pub(crate) async fn state(&self) -> Result<State> {
        match self.ask(&Request::State, &[]).await? {
            Event::State(state) => Ok(state),
            other => Err(Error::internal(format!(
                "the monitor answered {other:?} to a question for its state"
            ))),
        }
    }

    fn send(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(u64, oneshot::Receiver<Event>)> {
        let (sender, receiver) = oneshot::channel();
        // Held while sending, so that the answer finds its place.
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match connection.send(request, fds) {
            Ok(seq) => {
                answers.insert(seq, Asker::Waiting(sender));
                if connection.is_behind() {
                    self.behind.notify_one();
                }
                Ok((seq, receiver))
            }
            Err(ConnectionError::Full) => {
                self.silent.send_replace(true);
                Err(no_answer())
            }
            Err(source) => Err(Error::caused(Kind::Internal, source)),
        }
    }

    fn receive(&self) -> std::result::Result<Received, ConnectionError> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).receive()
    }

    /// Sends what is left of a request; `WouldBlock` while not all of it went.
    fn flush(&self) -> io::Result<()> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.flush().map_err(io::Error::other)?;
        if connection.is_behind() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }

    fn is_behind(&self) -> bool {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).is_behind()
    }

    /// Whoever awaits an answer learns that none will come.
    fn end(&self) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.over.send_replace(true);
    }

    fn note_speech(&self) {
        if self.silent.send_replace(false) {
            info!("a monitor answers again");
        }
    }

    /// Gives an answer to who asked; anything else is news.
    fn deliver(&self, re: Option<u64>, event: Event) -> Option<News> {
        if let Some(seq) = re {
            let asker = self.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&seq);
            match (asker, event) {
                // Who asked may have gone; the thing is done all the same.
                (Some(Asker::Waiting(asker)), event) => drop(asker.send(event)),
                // Whoever wanted it was told that it does not run.
                (Some(Asker::GaveUp), Event::ExecStarted { exec, .. }) => {
                    let target = Target::Exec(exec);
                    let kill = Request::Signal { target, signal: super::step::SIGKILL };
                    if let Err(error) = self.tell(&kill) {
                        warn!(%exec, error = chain(&error), "late exec not ended");
                    }
                }
                (Some(Asker::GaveUp) | None, _) => {}
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

fn patience(request: &Request) -> Duration {
    match request {
        Request::Start { .. } => START_MAX,
        Request::Exec(_) => EXEC_MAX,
        Request::Publish { .. }
        | Request::Unpublish { .. }
        | Request::Resolve
        | Request::Attach { .. }
        | Request::Resize { .. }
        | Request::CloseStdin { .. }
        | Request::Unknown => ANSWER_MAX,
        Request::Signal { .. } | Request::State => STATE_MAX,
    }
}

fn no_answer() -> Error {
    Error::new(Kind::Unavailable, "the container's monitor does not answer")
}

/// A handle on a monitor that an earlier daemon started. Its number can be no other's: it listened
/// on the socket that was just connected to and is still open.
fn handle_on(connection: &Connection) -> Option<OwnedFd> {
    sys::process::open_process(connection.monitor()?).ok()
}

/// Hears until the connection ends.
async fn listen(link: &Link, socket: &UnixStream, news: &mpsc::UnboundedSender<News>) {
    let mut exited = false;
    loop {
        // A rest of a request goes out as soon as the monitor takes it.
        let interest = if link.is_behind() {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        let ready = tokio::select! {
            ready = socket.ready(interest) => ready,
            () = link.behind.notified() => continue,
        };
        match ready {
            Ok(ready) if ready.is_writable() => {
                // A broken connection is met again by reading.
                let _ = socket.try_io(Interest::WRITABLE, || link.flush());
            }
            Ok(_) => {}
            Err(_) => break,
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
        if !events.is_empty() {
            link.note_speech();
        }
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use monitor::wire::{Asked, Decoder, encode_event};

    use super::*;

    /// The monitor's end of a connection.
    struct Monitor(std::os::unix::net::UnixStream, Decoder);

    impl Monitor {
        fn hears(&mut self) -> Asked {
            loop {
                if let Some(asked) = self.1.next_request().unwrap() {
                    return asked;
                }
                let mut bytes = [0; 4096];
                let count = self.0.read(&mut bytes).unwrap();
                assert!(count > 0, "the daemon hung up");
                self.1.feed(&bytes[..count], []);
            }
        }

        fn answers(&mut self, seq: u64, event: &Event) {
            self.0.write_all(&encode_event(Some(seq), event)).unwrap();
        }
    }

    fn pair() -> (Arc<Link>, mpsc::UnboundedReceiver<News>, Monitor) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (link, news) = Link::start(Connection::from(ours), None).unwrap();
        (link, news, Monitor(theirs, Decoder::default()))
    }

    #[tokio::test]
    async fn a_monitor_that_lets_a_question_pass_is_silent_until_it_speaks() {
        let (link, _news, mut monitor) = pair();
        assert!(link.state().await.is_err());
        assert!(link.is_silent());
        let first = monitor.hears();
        assert_eq!(first.request, Request::State);
        // Nothing more is put into its queue.
        assert_eq!(link.state().await.unwrap_err().kind, Kind::Unavailable);
        monitor.answers(first.seq, &Event::State(State::default()));
        assert!(link.speaks().await);
        let asked = tokio::spawn(async move { link.state().await });
        let (asked_again, mut monitor) = tokio::task::spawn_blocking(move || {
            let heard = monitor.hears();
            (heard, monitor)
        })
        .await
        .unwrap();
        assert_eq!(asked_again.request, Request::State);
        monitor.answers(asked_again.seq, &Event::State(State::default()));
        assert_eq!(asked.await.unwrap().unwrap(), State::default());
    }

    #[tokio::test]
    async fn an_exec_that_starts_after_its_caller_gave_up_is_ended() {
        let (link, _news, mut monitor) = pair();
        // Any request will do: what counts is the answer.
        let (seq, _answer) = link.send(&Request::State, &[]).unwrap();
        link.give_up(seq);
        assert_eq!(monitor.hears().seq, seq);
        let exec = Id::random();
        monitor.answers(seq, &Event::ExecStarted { exec, pid: 7 });
        let heard = tokio::task::spawn_blocking(move || monitor.hears()).await.unwrap();
        let target = Target::Exec(exec);
        assert_eq!(heard.request, Request::Signal { target, signal: super::super::step::SIGKILL });
    }

    #[tokio::test]
    async fn a_monitor_that_reads_nothing_holds_nobody_up() {
        let (link, _news, _monitor) = pair();
        let full = (0..100_000).find_map(|_| link.tell(&Request::State).err());
        assert_eq!(full.unwrap().kind, Kind::Unavailable);
        assert!(link.is_silent());
    }
}
