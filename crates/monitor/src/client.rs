//! The daemon's half: spawning monitors, asking them, hearing from them.
//!
//! Nothing here waits unless told to. [`Connection`] is a plain socket with a decoder: put its
//! descriptor into any event loop, call [`Connection::receive`] when it is readable.
//!
//! Always true: dropping a connection, or dying, changes nothing for the container.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags};

use crate::wire::{self, Decoder, Request, Told, WireError};

/// Name of the control socket inside the bundle directory.
pub const SOCKET_NAME: &str = "monitor.sock";

/// Name of the file in the bundle directory that takes what a monitor says on stderr.
pub const STDERR_NAME: &str = "monitor.log";

/// How to start a monitor.
#[derive(Debug)]
pub struct SpawnOptions<'a> {
    /// The engine's own program, as `/proc/self/exe`.
    pub program: &'a Path,
    /// Holds `monitor.json`.
    pub bundle: &'a Path,
    /// A cgroup directory that is not the daemon's, so that killing the daemon's cgroup spares
    /// containers; on cgroup v2 only, since moving a process on v1 costs milliseconds.
    pub cgroup: Option<&'a Path>,
}

/// A monitor that was just started; it is the caller's child.
#[derive(Debug)]
pub struct Spawned {
    pub pid: Pid,
    /// Readable when the monitor has ended; reap it with waitid(P_PIDFD).
    pub pidfd: OwnedFd,
    pub connection: Connection,
}

/// Why a monitor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("cannot make the monitor's control socket")]
    Socket { source: io::Error },
    #[error("cannot open the monitor's error log {path:?}")]
    Stderr { path: PathBuf, source: io::Error },
    #[error("cannot start the monitor {program:?}")]
    Exec { program: PathBuf, source: io::Error },
    #[error("cannot get a handle on the monitor")]
    Pidfd { source: io::Error },
}

/// Starts `tug monitor BUNDLE`. Does not wait for it.
///
/// # Errors
/// When the system lacks processes, memory or descriptors, or the program is gone.
pub fn spawn(options: &SpawnOptions<'_>) -> Result<Spawned, SpawnError> {
    let (ours, theirs) = UnixStream::pair().map_err(|source| SpawnError::Socket { source })?;
    ours.set_nonblocking(true).map_err(|source| SpawnError::Socket { source })?;
    let path = options.bundle.join(STDERR_NAME);
    let stderr = match OpenOptions::new().create(true).append(true).open(&path) {
        Ok(file) => file,
        Err(source) => return Err(SpawnError::Stderr { path, source }),
    };
    let mut command = Command::new(options.program);
    command.arg("monitor").arg(options.bundle);
    if let Some(cgroup) = options.cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    // The control socket is stdin: no other descriptor can be handed on without code between
    // fork and exec, which would cost std its posix_spawn (vfork) path; a static libc loses it by a
    // working directory too. The monitor makes its own session and goes to / itself.
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(stderr);
    let child = command
        .spawn()
        .map_err(|source| SpawnError::Exec { program: options.program.to_owned(), source })?;
    let pid = Pid::from_child(&child);
    // The child is ours and not reaped, so its pid cannot have been reused.
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(|error| SpawnError::Pidfd { source: error.into() })?;
    Ok(Spawned { pid, pidfd, connection: Connection::from(ours) })
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
#[derive(Debug, PartialEq)]
pub enum Received {
    /// Possibly none yet.
    Events(Vec<Told>),
    /// The monitor closed the connection after these.
    Closed(Vec<Told>),
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
            match rustix::io::read(&self.stream, &mut bytes) {
                Ok(0) => {
                    closed = true;
                    break;
                }
                Ok(count) => {
                    self.decoder.feed(&bytes[..count], []);
                    // A short read emptied the socket; level-triggered loops come back anyway.
                    if count < bytes.len() {
                        break;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                // A monitor that ends with requests unread resets the connection.
                Err(rustix::io::Errno::CONNRESET) => {
                    closed = true;
                    break;
                }
                Err(error) => {
                    return Err(ConnectionError::Receive { source: error.into() });
                }
            }
        }
        let mut events = Vec::new();
        while let Some(told) =
            self.decoder.next_event().map_err(|source| ConnectionError::Wire { source })?
        {
            events.push(told);
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
                    wait(&self.stream, rustix::event::PollFlags::IN)
                        .map_err(|source| ConnectionError::Receive { source })?;
                }
                received @ (Received::Events(_) | Received::Closed(_)) => return Ok(received),
            }
        }
    }
}

fn wait(stream: &UnixStream, flags: rustix::event::PollFlags) -> io::Result<()> {
    let mut fds = [rustix::event::PollFd::new(stream, flags)];
    match rustix::event::poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
