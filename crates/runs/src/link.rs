//! The connection to one launcher or supervisor.
//!
//! A [`Link`] sends requests and gets replies; what a supervisor says on its own comes out of a channel,
//! in order, with [`Notice::Lost`] or an exit as the last. Dropping a link changes nothing for the run.
//!
//! Always true: every request has a deadline. A supervisor that lets one pass is silent until it says
//! anything again; requests meanwhile fail soon, so that one that hangs costs nobody but its own run's
//! callers.
//!
//! Lock order: `replies`, then `connection`; `processes` alone. None is held across an `.await`.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use monitor::client::{Connection, ConnectionError, Received};
use monitor::exit::ExitRecord;
use monitor::wire::{DetachCause, Event, ReceivedEvent, Request, State, Target};
use spec::Id;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::start::lock;
use crate::{Error, Process, Result};

/// What a supervisor says on its own.
#[derive(Debug)]
pub enum Notice {
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

/// How long a supervisor may take to say how it is, or to pass a signal on, for which there is another way.
const STATE_MAX: Duration = Duration::from_secs(2);
/// How long for what else it does from memory.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long to make a process in a container: another runtime may be a slow program.
const EXEC_MAX: Duration = Duration::from_secs(15);
/// How long to make a container: there may be hooks.
const START_MAX: Duration = Duration::from_secs(120);
/// How long a silent supervisor may take to speak again before a further request fails.
const SILENT_MAX: Duration = Duration::from_millis(300);

/// A reply with the descriptors that came along.
type Reply = (Event, Vec<OwnedFd>);

#[derive(Debug)]
pub(crate) struct Link {
    connection: Mutex<Connection>,
    replies: Mutex<HashMap<u64, Caller>>,
    processes: Mutex<Processes>,
    /// It let a request pass its deadline and has said nothing since.
    silent: watch::Sender<bool>,
    /// A launcher has begun what was requested.
    accepted: watch::Sender<bool>,
    /// The connection is over.
    over: watch::Sender<bool>,
    /// Wakes the listener when a part of a request is left to be sent.
    behind: Notify,
    /// The peer's pidfd, where it could be had.
    peer: Option<OwnedFd>,
}

/// Handles on what runs.
#[derive(Debug, Default)]
struct Processes {
    main: Option<Arc<Process>>,
    execs: HashMap<Id, Arc<Process>>,
    /// A monitor from before the launchers: it alone may signal.
    old: bool,
}

/// Who awaits a reply.
#[derive(Debug)]
enum Caller {
    Waiting(oneshot::Sender<Reply>),
    /// Has been answered that there is none.
    GaveUp,
}

impl Link {
    /// Starts to listen to a process whose handle this is.
    pub(crate) fn start(
        connection: Connection,
        peer: OwnedFd,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<Notice>)> {
        Self::listen(connection, Some(peer))
    }

    /// Starts to listen to a supervisor that an earlier daemon left. Its number can be no other's: it
    /// listened on the socket that was just connected to and is still open.
    pub(crate) fn found(
        connection: Connection,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<Notice>)> {
        let peer = connection.monitor().and_then(|pid| sys::process::open_process(pid).ok());
        Self::listen(connection, peer)
    }

    fn listen(
        connection: Connection,
        peer: Option<OwnedFd>,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<Notice>)> {
        let failed = |source| Error::Watch { source };
        // The same socket by another descriptor, for the event loop.
        let socket = rustix::io::fcntl_dupfd_cloexec(connection.as_fd(), 0)
            .map_err(|error| failed(error.into()))?;
        let socket = std::os::unix::net::UnixStream::from(socket);
        let socket = UnixStream::from_std(socket).map_err(failed)?;
        let link = Arc::new(Self {
            connection: Mutex::new(connection),
            replies: Mutex::default(),
            processes: Mutex::default(),
            silent: watch::Sender::new(false),
            accepted: watch::Sender::new(false),
            over: watch::Sender::new(false),
            behind: Notify::new(),
            peer,
        });
        let listener = Arc::clone(&link);
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            listen(&listener, &socket, &sender).await;
            listener.end();
        });
        Ok((link, receiver))
    }

    pub(crate) fn main(&self) -> Option<Arc<Process>> {
        lock(&self.processes).main.clone()
    }

    pub(crate) fn keep_main(&self, process: Process) {
        lock(&self.processes).main = Some(Arc::new(process));
    }

    pub(crate) fn keep_exec(&self, exec: Id, process: Process) {
        lock(&self.processes).execs.insert(exec, Arc::new(process));
    }

    /// Sends a request and awaits its reply, but not for ever. Where this fails, descriptors may be on
    /// their way all the same.
    pub(crate) async fn request(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        if *self.silent.borrow() {
            let mut silent = self.silent.subscribe();
            let speaks = silent.wait_for(|silent| !silent);
            if tokio::time::timeout(SILENT_MAX, speaks).await.is_err() {
                return Err(Error::Silent);
            }
        }
        let (seq, reply) = self.send(request, fds)?;
        if matches!(request, Request::Launch(_) | Request::Enter(_)) {
            self.await_acceptance().await?;
        }
        match tokio::time::timeout(patience(request), reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(Error::Ended),
            Err(_) => {
                self.give_up(seq);
                Err(Error::Silent)
            }
        }
    }

    /// Waits until the launcher has begun; what comes then may take long.
    async fn await_acceptance(&self) -> Result<()> {
        let (mut accepted, mut over) = (self.accepted.subscribe(), self.over.subscribe());
        let begun = async {
            tokio::select! {
                _ = accepted.wait_for(|accepted| *accepted) => true,
                // One that ended has said all that it will say, acceptance included.
                _ = over.wait_for(|over| *over) => *self.accepted.borrow(),
            }
        };
        match tokio::time::timeout(STATE_MAX, begun).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Error::NotAccepted),
        }
    }

    /// Sends a signal to a process by its handle; a monitor from before the launchers does it itself.
    pub(crate) async fn signal(&self, target: Target, signal: i32) -> Result<()> {
        let process = {
            let processes = lock(&self.processes);
            match target {
                _ if processes.old => None,
                Target::Main => processes.main.clone(),
                Target::Exec(exec) => processes.execs.get(&exec).cloned(),
            }
        };
        match process {
            Some(process) => process.signal(signal).map_err(|source| Error::Process { source }),
            None => self.demand(&Request::Signal { target, signal }, &[]).await,
        }
    }

    fn give_up(&self, seq: u64) {
        let mut replies = lock(&self.replies);
        // One that came at this very moment is no silence.
        if let Some(caller) = replies.get_mut(&seq) {
            *caller = Caller::GaveUp;
            self.silent.send_replace(true);
            warn!("a monitor does not answer");
        }
    }

    /// Whether this is a monitor from before the launchers.
    pub(crate) fn is_old(&self) -> bool {
        lock(&self.processes).old
    }

    /// Whether it let a request pass and has said nothing since.
    pub(crate) fn is_silent(&self) -> bool {
        *self.silent.borrow()
    }

    /// Waits until a silent supervisor speaks again; false when its connection ends instead.
    pub(crate) async fn speaks(&self) -> bool {
        let (mut silent, mut over) = (self.silent.subscribe(), self.over.subscribe());
        tokio::select! {
            _ = over.wait_for(|over| *over) => false,
            _ = silent.wait_for(|silent| !silent) => true,
        }
    }

    /// Kills a supervisor whose processes were killed past it, unless it ends within `patience`. What it
    /// has not passed on is lost.
    pub(crate) fn end_supervisor(self: &Arc<Self>, patience: Duration) {
        let link = Arc::clone(self);
        tokio::spawn(async move {
            let mut over = link.over.subscribe();
            if tokio::time::timeout(patience, over.wait_for(|over| *over)).await.is_ok() {
                return;
            }
            let Some(peer) = &link.peer else { return };
            warn!("a monitor that does not answer is killed");
            if let Err(error) = sys::process::signal_process(peer, crate::run::SIGKILL) {
                warn!(error = spec::chain(&error), "monitor not killed");
            }
        });
    }

    /// Tells the supervisor that its run's end is recorded, so that it lets clients go.
    pub(crate) fn hang_up(&self) {
        lock(&self.connection).hang_up();
    }

    /// The same, where only success matters.
    pub(crate) async fn demand(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        match self.request(request, fds).await?.0 {
            Event::Failed { message } => Err(Error::Refused(message)),
            Event::Done => Ok(()),
            other @ (Event::Ready
            | Event::Accepted
            | Event::Started { .. }
            | Event::StartFailed { .. }
            | Event::Exited(_)
            | Event::ExecStarted { .. }
            | Event::ExecFailed { .. }
            | Event::ExecExited { .. }
            | Event::Oom
            | Event::Detached { .. }
            | Event::State(_)) => Err(Error::Unexpected(format!("{other:?}"))),
        }
    }

    /// What the supervisor knows; afterwards there are handles on all that it says runs.
    pub(crate) async fn state(&self) -> Result<State> {
        match self.request(&Request::State, &[]).await? {
            (Event::State(state), handles) => {
                self.keep_all(&state, handles);
                Ok(state)
            }
            (other, _) => Err(Error::Unexpected(format!("{other:?}"))),
        }
    }

    fn keep_all(&self, state: &State, handles: Vec<OwnedFd>) {
        let mut processes = lock(&self.processes);
        processes.old = !state.supervisor;
        let mut handles = handles.into_iter();
        if let Some(main) = state.main
            && processes.main.is_none()
        {
            let process = match handles.next() {
                Some(pidfd) => Ok(Process::new(main.pid, Some(pidfd))),
                None => Process::open(main.pid),
            };
            processes.main = process.ok().map(Arc::new);
        } else if state.main.is_some() {
            drop(handles.next());
        }
        let running = state.execs.iter().filter(|exec| exec.exit_code.is_none());
        for (exec, pidfd) in running.zip(handles) {
            let process = Arc::new(Process::new(exec.pid, Some(pidfd)));
            processes.execs.entry(exec.exec).or_insert(process);
        }
    }

    fn send(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(u64, oneshot::Receiver<Reply>)> {
        let (sender, receiver) = oneshot::channel();
        // Held while sending, so that the reply finds its place.
        let mut replies = lock(&self.replies);
        let mut connection = lock(&self.connection);
        match connection.send(request, fds) {
            Ok(seq) => {
                replies.insert(seq, Caller::Waiting(sender));
                if connection.is_behind() {
                    self.behind.notify_one();
                }
                Ok((seq, receiver))
            }
            Err(ConnectionError::Full) => {
                self.silent.send_replace(true);
                Err(Error::Silent)
            }
            Err(source) => Err(Error::Connection { source }),
        }
    }

    fn receive(&self) -> std::result::Result<Received, ConnectionError> {
        lock(&self.connection).receive()
    }

    /// Sends what is left of a request; `WouldBlock` while not all of it went.
    fn flush(&self) -> io::Result<()> {
        let mut connection = lock(&self.connection);
        connection.flush().map_err(io::Error::other)?;
        if connection.is_behind() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }

    fn is_behind(&self) -> bool {
        lock(&self.connection).is_behind()
    }

    /// Whoever awaits a reply learns that none will come.
    fn end(&self) {
        lock(&self.replies).clear();
        self.over.send_replace(true);
    }

    fn note_speech(&self) {
        if self.silent.send_replace(false) {
            info!("a monitor answers again");
        }
    }

    /// Gives a reply to its caller; anything else is a notice.
    fn deliver(&self, received: ReceivedEvent) -> Option<Notice> {
        let ReceivedEvent { re, event, fds } = received;
        if let Some(seq) = re {
            let caller = lock(&self.replies).remove(&seq);
            match (caller, &event) {
                // The caller may have gone; the thing is done all the same.
                (Some(Caller::Waiting(caller)), _) => drop(caller.send((event, fds))),
                // Whoever wanted it was answered that it does not run.
                (Some(Caller::GaveUp), Event::ExecStarted { exec, .. }) => {
                    let ended = fds.first().map_or(Ok(()), |pidfd| {
                        sys::process::signal_process(pidfd, crate::run::SIGKILL)
                    });
                    if let Err(error) = ended {
                        warn!(%exec, error = spec::chain(&error), "late exec not ended");
                    }
                }
                // A launcher that has started nothing waits for the daemon to go.
                (Some(Caller::GaveUp), Event::ExecFailed { .. }) => self.hang_up(),
                (Some(Caller::GaveUp) | None, _) => {}
            }
            return None;
        }
        match event {
            Event::Accepted => {
                self.accepted.send_replace(true);
                None
            }
            Event::Exited(record) => Some(Notice::Exited(record)),
            Event::Oom => Some(Notice::Oom),
            Event::ExecExited { exec, exit_code } => {
                lock(&self.processes).execs.remove(&exec);
                Some(Notice::ExecExited { exec, code: exit_code })
            }
            Event::Detached { target, cause } => Some(Notice::Detached { target, cause }),
            Event::Ready
            | Event::Started { .. }
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
        Request::Launch(_) | Request::Start { .. } => START_MAX,
        Request::Enter(_) | Request::Delete { .. } | Request::Exec(_) => EXEC_MAX,
        Request::Adopt { .. }
        | Request::Publish { .. }
        | Request::Unpublish { .. }
        | Request::Resolve { .. }
        | Request::Attach { .. }
        | Request::Resize { .. }
        | Request::CloseStdin { .. }
        | Request::Unknown => ANSWER_MAX,
        Request::Signal { .. } | Request::State => STATE_MAX,
    }
}

/// Receives until the connection ends.
async fn listen(link: &Link, socket: &UnixStream, notices: &mpsc::UnboundedSender<Notice>) {
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
                warn!(error = spec::chain(&error), "monitor's connection broke");
                Ok((Vec::new(), true))
            }
        });
        let Ok((events, closed)) = received else { continue };
        if !events.is_empty() {
            link.note_speech();
        }
        for event in events {
            if let Some(notice) = link.deliver(event) {
                exited |= matches!(notice, Notice::Exited(_));
                // A task that ended wants to hear nothing.
                let _ = notices.send(notice);
            }
        }
        if closed {
            break;
        }
    }
    if !exited {
        let _ = notices.send(Notice::Lost);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::process::ExitStatusExt as _;

    use monitor::wire::{Decoder, ReceivedRequest, encode_event};

    use super::*;

    /// The supervisor's end of a connection.
    struct Supervisor(std::os::unix::net::UnixStream, Decoder);

    impl Supervisor {
        fn receive(&mut self) -> ReceivedRequest {
            loop {
                if let Some(request) = self.1.next_request().unwrap() {
                    return request;
                }
                let mut bytes = [0; 4096];
                let count = self.0.read(&mut bytes).unwrap();
                assert!(count > 0, "the daemon hung up");
                self.1.feed(&bytes[..count], []);
            }
        }

        fn reply(&mut self, seq: u64, event: &Event) {
            self.0.write_all(&encode_event(Some(seq), event, 0)).unwrap();
        }

        fn reply_with(&mut self, seq: u64, event: &Event, fd: &OwnedFd) {
            let frame = encode_event(Some(seq), event, 1);
            sys::socket::send_with_fds(&self.0, &frame, &[fd.as_fd()]).unwrap();
        }
    }

    fn pair() -> (Arc<Link>, mpsc::UnboundedReceiver<Notice>, Supervisor) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let own = sys::process::open_process(rustix::process::getpid()).unwrap();
        let (link, notices) = Link::start(Connection::from(ours), own).unwrap();
        (link, notices, Supervisor(theirs, Decoder::default()))
    }

    #[tokio::test]
    async fn a_supervisor_that_lets_a_request_pass_is_silent_until_it_speaks() {
        let (link, _notices, mut supervisor) = pair();
        assert!(matches!(link.state().await, Err(Error::Silent)));
        assert!(link.is_silent());
        let first = supervisor.receive();
        assert_eq!(first.request, Request::State);
        // Nothing more is put into its queue.
        assert!(matches!(link.state().await, Err(Error::Silent)));
        supervisor.reply(first.seq, &Event::State(State::default()));
        assert!(link.speaks().await);
        let state = tokio::spawn(async move { link.state().await });
        let (again, mut supervisor) = tokio::task::spawn_blocking(move || {
            let request = supervisor.receive();
            (request, supervisor)
        })
        .await
        .unwrap();
        assert_eq!(again.request, Request::State);
        supervisor.reply(again.seq, &Event::State(State::default()));
        assert_eq!(state.await.unwrap().unwrap(), State::default());
    }

    #[tokio::test]
    async fn an_exec_that_starts_after_its_caller_gave_up_is_ended() {
        let (link, _notices, mut supervisor) = pair();
        // Any request will do: what counts is the reply.
        let (seq, _reply) = link.send(&Request::State, &[]).unwrap();
        link.give_up(seq);
        assert_eq!(supervisor.receive().seq, seq);
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = sys::process::open_process(pid).unwrap();
        supervisor.reply_with(seq, &Event::ExecStarted { exec: Id::random(), pid: 7 }, &pidfd);
        let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        assert_eq!(status.signal(), Some(crate::run::SIGKILL));
    }

    #[tokio::test]
    async fn a_launcher_that_fails_late_is_let_go() {
        let (link, _notices, mut launcher) = pair();
        let (seq, _reply) = link.send(&Request::State, &[]).unwrap();
        link.give_up(seq);
        assert_eq!(launcher.receive().seq, seq);
        let failed =
            Event::ExecFailed { exec: Id::random(), exit_code: 127, message: String::new() };
        launcher.reply(seq, &failed);
        let read = tokio::task::spawn_blocking(move || launcher.0.read(&mut [0; 16]));
        assert_eq!(read.await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn a_supervisor_that_reads_nothing_holds_nobody_up() {
        let (link, _notices, _supervisor) = pair();
        let full = (0..100_000).find_map(|_| link.send(&Request::State, &[]).err());
        assert!(matches!(full, Some(Error::Silent)));
        assert!(link.is_silent());
    }

    #[tokio::test]
    async fn signals_go_past_the_supervisor_to_the_process_itself() {
        let (link, _notices, _supervisor) = pair();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = sys::process::open_process(pid).unwrap();
        link.keep_main(Process::new(pid.as_raw_nonzero().get(), Some(pidfd)));
        link.signal(Target::Main, 15).await.unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        // Its number is free now, and may be anybody's.
        assert!(link.signal(Target::Main, 15).await.is_err());
    }
}
