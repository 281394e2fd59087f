//! The socket between the process that makes a container and the one that becomes it.
//!
//! Records (SOCK_SEQPACKET), one byte of kind and a text. From the child:
//!
//! ```text
//! M              its ids have to be mapped; waits for G
//! H              namespaces exist, hooks of the runtime may run; waits for G
//! T              the terminal's master, as a descriptor
//! W text         something was not possible and is not fatal
//! R              ready: only execve is left; waits for G        (create alone)
//! X              execve comes next
//! E kind text    it failed, and ends
//! ```
//!
//! The child's end closes on exec, so end-of-file after X is success, and before it a violent death.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::{Kind, LaunchError};

/// A record never has to be larger: paths are bounded by 4 KiB each.
const RECORD_BYTES_MAX: usize = 32 << 10;

/// How often a silent child is looked at.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What a child tells.
#[derive(Debug)]
pub(crate) enum Told {
    Mapping,
    Hooks,
    Terminal(OwnedFd),
    Warning(String),
    Ready,
    Executing,
    Failed(LaunchError),
    /// The child's end is closed.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
}

impl Channel {
    pub fn pair() -> io::Result<(Self, Self)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self { socket: ours }, Self { socket: theirs }))
    }

    pub fn over(socket: OwnedFd) -> Self {
        Self { socket }
    }

    pub fn tell(&self, kind: u8, text: &str) -> io::Result<()> {
        self.tell_with(kind, text, &[])
    }

    pub fn tell_with(&self, kind: u8, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut record = vec![kind];
        record.extend_from_slice(&text.as_bytes()[..text.len().min(RECORD_BYTES_MAX - 1)]);
        sys::socket::send_with_fds(&self.socket, &record, fds)?;
        Ok(())
    }

    pub fn fail(&self, error: &LaunchError) -> io::Result<()> {
        let kind = char::from(error.kind.to_byte());
        self.tell(b'E', &format!("{kind}{}", error.message))
    }

    /// Lets the other side go on.
    pub fn go(&self) -> io::Result<()> {
        self.tell(b'G', "")
    }

    /// Waits to be let on; `false` when the other side has gone away.
    pub fn wait(&self) -> io::Result<bool> {
        let mut byte = [0_u8; 8];
        loop {
            match rustix::io::read(&self.socket, &mut byte) {
                Ok(count) => return Ok(count > 0 && byte[0] == b'G'),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// As [`Self::hear`], of a child that others may hold up: whoever shares its PID namespace can stop
    /// it before execve, and in a control group whose memory is used up it may wait for ever. Whoever
    /// waits here can do nothing else meanwhile, so a container could not be ended any more.
    pub fn hear_of(&self, child: &OwnedFd, patience: Duration) -> io::Result<Told> {
        let began = Instant::now();
        loop {
            let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
            match rustix::event::poll(&mut polled, Some(&LOOK)) {
                Ok(0) if sys::process::is_stopped(child).unwrap_or(false) => {
                    return Err(io::Error::other(
                        "the process was stopped before its program was executed",
                    ));
                }
                Ok(0) if began.elapsed() > patience => return Err(io::ErrorKind::TimedOut.into()),
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.hear(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub fn hear(&self) -> io::Result<Told> {
        let mut record = vec![0_u8; RECORD_BYTES_MAX];
        let mut fds = Vec::new();
        let count = loop {
            match sys::socket::recv_with_fds(&self.socket, &mut record, &mut fds) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The child died with something of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break 0,
                done => break done?,
            }
        };
        let Some((kind, text)) = record[..count].split_first() else { return Ok(Told::Closed) };
        let decode = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(match kind {
            b'M' => Told::Mapping,
            b'H' => Told::Hooks,
            b'T' => Told::Terminal(fds.pop().ok_or(io::ErrorKind::InvalidData)?),
            b'R' => Told::Ready,
            b'X' => Told::Executing,
            b'W' => Told::Warning(decode(text)),
            b'E' => {
                let (kind, message) = text.split_first().ok_or(io::ErrorKind::InvalidData)?;
                Told::Failed(LaunchError::new(Kind::from_byte(*kind), decode(message)))
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
