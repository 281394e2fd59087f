//! The daemon's half: launchers, requests, events.
//!
//! ```text
//! daemon ──socket──▶ tug launcher ──fork──▶ launcher ──Launch──▶ supervisor of one container
//!    └──────────── one socket each ────────────┘   └──Enter───▶ waits for one exec
//! ```
//!
//! The process `tug launcher` does nothing but fork, so a launcher costs no exec of a program. A few
//! wait ahead; each has said [`Event::Ready`] before it is used, so that a launcher that hangs is met
//! before anything depends on it.
//!
//! Nothing in [`Connection`] waits unless told to: it is a plain socket with a decoder. Put its
//! descriptor into any event loop, call [`Connection::receive`] when it is readable.
//!
//! Always true: dropping a connection to a supervisor, or dying, changes nothing for the container;
//! launchers end with their daemon.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use crate::wire::{self, Decoder, Event, ReceivedEvent, Request, WireError};

/// Name of the control socket inside the bundle directory.
pub const SOCKET_NAME: &str = "monitor.sock";

/// Name of the file in the bundle directory that takes what a monitor says on stderr.
pub const STDERR_NAME: &str = "monitor.log";

/// Launchers that wait ahead. More are made as they are wanted.
const IDLE: usize = 4;
/// How long a launcher may take to say that it is there; then all are given up and made anew.
const READY_MAX: Duration = Duration::from_secs(2);
/// Room for the words that a supervisor shows as its command line, bytes.
const COMMAND_LINE_BYTES: usize = 256;

/// The launchers of one daemon.
#[derive(Debug)]
pub struct Launchers {
    /// The engine's own program, as `/proc/self/exe`.
    program: PathBuf,
    /// A cgroup directory that is not the daemon's, so that killing the daemon's cgroup spares
    /// containers; on cgroup v2 only, since moving a process on v1 costs milliseconds.
    cgroup: Option<PathBuf>,
    parent: Mutex<Option<ForkServer>>,
    idle: Mutex<Vec<Connection>>,
}

/// The process that forks launchers.
#[derive(Debug)]
struct ForkServer {
    socket: OwnedFd,
    child: Child,
    pidfd: OwnedFd,
}

/// A launcher that is ready.
#[derive(Debug)]
pub struct Launcher {
    pub connection: Connection,
    pub pidfd: OwnedFd,
}

/// Why there is no launcher.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    #[error("cannot make a launcher's socket")]
    Socket { source: io::Error },
    #[error("cannot start the launcher {program:?}")]
    Exec { program: PathBuf, source: io::Error },
    #[error("no launcher gets ready")]
    Late,
}

impl Launchers {
    /// No process is started yet.
    #[must_use]
    pub fn new(program: PathBuf, cgroup: Option<PathBuf>) -> Launchers {
        Launchers { program, cgroup, parent: Mutex::default(), idle: Mutex::default() }
    }

    /// Makes launchers ahead, so that as many as usual wait. Does not wait for them.
    ///
    /// # Errors
    /// When the system lacks processes, memory or descriptors, or the program is gone.
    pub fn fill(&self) -> Result<(), LauncherError> {
        while lock(&self.idle).len() < IDLE {
            let launcher = self.fork()?;
            lock(&self.idle).push(launcher);
        }
        Ok(())
    }

    /// A launcher that is ready now, if there is one. Never waits.
    pub fn try_take(&self) -> Option<Launcher> {
        let mut idle = lock(&self.idle);
        if idle.is_empty() {
            return None;
        }
        let mut connection = idle.remove(0);
        match connection.receive() {
            Ok(Received::Events(events)) => match is_ready(events) {
                Some(pidfd) => Some(Launcher { connection, pidfd }),
                None => {
                    idle.insert(0, connection);
                    None
                }
            },
            // Whoever waits for one finds out why.
            Ok(Received::Closed(_)) | Err(_) => None,
        }
    }

    /// A launcher that is ready; waits for one that was not made ahead. Blocking.
    ///
    /// # Errors
    /// As [`Launchers::fill`]; [`LauncherError::Late`] when none gets ready in time.
    pub fn take(&self) -> Result<Launcher, LauncherError> {
        loop {
            let oldest = {
                let mut idle = lock(&self.idle);
                if idle.is_empty() { None } else { Some(idle.remove(0)) }
            };
            let Some(connection) = oldest else { break };
            match ready(connection) {
                Some(launcher) => return Ok(launcher),
                // All of them have the same parent and the same fate.
                None => self.give_up(),
            }
        }
        if let Some(launcher) = ready(self.fork()?) {
            return Ok(launcher);
        }
        self.give_up();
        ready(self.fork()?).ok_or(LauncherError::Late)
    }

    /// Ends all launchers that wait, and their parent: one of them hangs.
    pub fn give_up(&self) {
        lock(&self.idle).clear();
        if let Some(parent) = lock(&self.parent).take() {
            parent.end();
        }
    }

    /// Orders a launcher.
    fn fork(&self) -> Result<Connection, LauncherError> {
        let socket = |source| LauncherError::Socket { source };
        let (ours, theirs) = UnixStream::pair().map_err(socket)?;
        ours.set_nonblocking(true).map_err(socket)?;
        let mut parent = lock(&self.parent);
        for _ in 0..2 {
            let server = match parent.take() {
                Some(server) => server,
                None => ForkServer::start(&self.program, self.cgroup.as_deref())?,
            };
            match sys::socket::send_with_fds(&server.socket, b"F", &[theirs.as_fd()]) {
                Ok(_) => {
                    *parent = Some(server);
                    return Ok(Connection::from(ours));
                }
                // It died, or takes nothing any more: another one does.
                Err(_) => server.end(),
            }
        }
        Err(LauncherError::Late)
    }
}

impl Drop for Launchers {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl ForkServer {
    fn start(program: &Path, cgroup: Option<&Path>) -> Result<ForkServer, LauncherError> {
        let failed = |source| LauncherError::Exec { program: program.to_owned(), source };
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| LauncherError::Socket { source: error.into() })?;
        rustix::io::ioctl_fionbio(&ours, true)
            .map_err(|error| LauncherError::Socket { source: error.into() })?;
        let mut command = Command::new(program);
        command.arg("launcher");
        if let Some(cgroup) = cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        // The socket is stdin: no other descriptor can be handed on without code between fork and
        // exec, which would cost std its posix_spawn (vfork) path.
        command
            .arg("-".repeat(COMMAND_LINE_BYTES))
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        // The child is ours and not reaped, so its pid cannot have been reused.
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(|error| failed(error.into()))?;
        Ok(ForkServer { socket: ours, child, pidfd })
    }

    fn end(mut self) {
        // One that has ended needs no signal.
        let _gone = sys::process::signal_process(&self.pidfd, SIGKILL);
        let _reaped = self.child.wait();
    }
}

const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();

/// Waits until the launcher at the other end is there; `None` when it ended or takes too long.
fn ready(mut connection: Connection) -> Option<Launcher> {
    let until = std::time::Instant::now() + READY_MAX;
    loop {
        let Ok(Received::Events(events)) = connection.receive() else { return None };
        if let Some(pidfd) = is_ready(events) {
            return Some(Launcher { connection, pidfd });
        }
        let left = until.checked_duration_since(std::time::Instant::now())?;
        wait(&connection.stream, PollFlags::IN, Some(left)).ok()?;
    }
}

/// A launcher says this once, before anything else.
fn is_ready(events: Vec<ReceivedEvent>) -> Option<OwnedFd> {
    events.into_iter().find(|received| received.event == Event::Ready)?.fds.pop()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A control connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    seq: u64,
    /// The rest of a frame of which the socket took a part.
    unsent: Vec<u8>,
}

/// Why a connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("cannot reach the monitor at {path:?}")]
    Connect { path: PathBuf, source: io::Error },
    #[error("cannot send to the monitor")]
    Send { source: io::Error },
    /// It left some 200 KB of requests unread.
    #[error("the monitor does not take requests")]
    Full,
    #[error("cannot receive from the monitor")]
    Receive { source: io::Error },
    #[error("cannot understand the monitor")]
    Wire { source: WireError },
}

/// What [`Connection::receive`] found.
#[derive(Debug)]
pub enum Received {
    /// Possibly none yet.
    Events(Vec<ReceivedEvent>),
    /// The monitor closed the connection after these.
    Closed(Vec<ReceivedEvent>),
}

impl From<UnixStream> for Connection {
    fn from(stream: UnixStream) -> Connection {
        Connection { stream, decoder: Decoder::default(), seq: 0, unsent: Vec::new() }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl Connection {
    /// Connects to the monitor of the container in `bundle`. Never waits, here or afterwards.
    ///
    /// # Errors
    /// When no monitor listens there (any more); `WouldBlock` when one leaves others waiting too.
    pub fn open(bundle: &Path) -> Result<Connection, ConnectionError> {
        let path = bundle.join(SOCKET_NAME);
        match sys::socket::connect_now(&path) {
            Ok(stream) => Ok(Connection::from(stream)),
            Err(source) => Err(ConnectionError::Connect { path, source }),
        }
    }

    /// Sends a request and returns its `seq`, which its answer bears as `re`. On a non-blocking
    /// socket this never waits: what the monitor does not take now is kept for
    /// [`Connection::flush`].
    ///
    /// # Errors
    /// When the monitor is gone, or takes nothing.
    pub fn send(
        &mut self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<u64, ConnectionError> {
        self.flush()?;
        if self.is_behind() {
            return Err(ConnectionError::Full);
        }
        self.seq += 1;
        let frame = wire::encode_request(self.seq, request);
        // The descriptors go with the first byte, once.
        let sent = loop {
            match sys::socket::send_with_fds(&self.stream, &frame, fds) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(ConnectionError::Full);
                }
                Err(source) => return Err(ConnectionError::Send { source }),
            }
        };
        self.unsent.extend_from_slice(&frame[sent..]);
        self.flush()?;
        Ok(self.seq)
    }

    /// Sends what was kept, as far as the monitor takes it.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        while !self.unsent.is_empty() {
            match sys::socket::send_with_fds(&self.stream, &self.unsent, &[]) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(source) => return Err(ConnectionError::Send { source }),
            }
        }
        Ok(())
    }

    /// Whether a part of a request is still to be sent.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The monitor's number, of one that was found by its socket: it listened there first.
    #[must_use]
    pub fn monitor(&self) -> Option<Pid> {
        sys::socket::peer_process(&self.stream).ok().flatten()
    }

    /// Says that nothing more will be asked or heard: a monitor that has told its end waits for
    /// that.
    pub fn hang_up(&self) {
        // A monitor that has gone needs no word.
        let _gone = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Takes what has arrived. On a non-blocking socket this never waits.
    ///
    /// # Errors
    /// When the connection broke or the peer speaks another language.
    pub fn receive(&mut self) -> Result<Received, ConnectionError> {
        let mut bytes = [0; 16 << 10];
        let mut closed = false;
        loop {
            let mut fds = Vec::new();
            match sys::socket::recv_with_fds(&self.stream, &mut bytes, &mut fds) {
                Ok(0) => {
                    closed = true;
                    break;
                }
                // A read ends before descriptors that came later, so a short one does not mean that the
                // socket is empty.
                Ok(count) => self.decoder.feed(&bytes[..count], fds),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A monitor that ends with requests unread resets the connection.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    closed = true;
                    break;
                }
                Err(source) => return Err(ConnectionError::Receive { source }),
            }
        }
        let mut events = Vec::new();
        while let Some(event) =
            self.decoder.next_event().map_err(|source| ConnectionError::Wire { source })?
        {
            events.push(event);
        }
        Ok(if closed { Received::Closed(events) } else { Received::Events(events) })
    }

    /// Waits for the next events: for tests and programs without an event loop.
    ///
    /// # Errors
    /// As [`Connection::receive`].
    pub fn receive_blocking(&mut self) -> Result<Received, ConnectionError> {
        loop {
            match self.receive()? {
                Received::Events(events) if events.is_empty() => {
                    wait(&self.stream, PollFlags::IN, None)
                        .map_err(|source| ConnectionError::Receive { source })?;
                }
                received @ (Received::Events(_) | Received::Closed(_)) => return Ok(received),
            }
        }
    }
}

fn wait(stream: &UnixStream, flags: PollFlags, limit: Option<Duration>) -> io::Result<()> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match rustix::event::poll(&mut [PollFd::new(stream, flags)], limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
