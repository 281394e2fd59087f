//! A process of a run, held so that a reused number cannot stand for it.
//!
//! Invariant: whatever is opened by the process's number is given out only after its handle has said
//! that the number was still its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// The first process of a run, or one of its execs.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    /// Monitors from before the launchers hand none over.
    pidfd: Option<OwnedFd>,
}

/// Kinds of namespaces by their names in `/proc/PID/ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    Mount,
    Network,
    Ipc,
    Pid,
}

impl Process {
    pub(crate) fn new(pid: i32, pidfd: Option<OwnedFd>) -> Process {
        Process { pid, pidfd }
    }

    /// A process whose number was learnt without a handle. It may have ended since.
    ///
    /// # Errors
    /// When no process has this number.
    pub fn open(pid: i32) -> io::Result<Process> {
        let number = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Process { pid, pidfd: Some(sys::process::open_process(number)?) })
    }

    /// Its number in the host's eyes: to be shown, and to look at what no harm comes of.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// # Errors
    /// `ESRCH` once it has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let pidfd = self.pidfd.as_ref().ok_or(io::ErrorKind::NotFound)?;
        sys::process::signal_process(pidfd, signal)
    }

    /// What a file of its directory in /proc says.
    ///
    /// # Errors
    /// `ESRCH` once it has ended.
    pub fn read(&self, file: &str) -> io::Result<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.pid))?;
        self.signal(0)?;
        Ok(text)
    }

    /// # Errors
    /// `ESRCH` once it has ended.
    pub fn namespace(&self, kind: Namespace) -> io::Result<OwnedFd> {
        let name = match kind {
            Namespace::Mount => "mnt",
            Namespace::Network => "net",
            Namespace::Ipc => "ipc",
            Namespace::Pid => "pid",
        };
        let path = format!("/proc/{}/ns/{name}", self.pid);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty())?;
        // A process that can be signalled has not been reaped, so the number was its own just now.
        self.signal(0)?;
        Ok(opened)
    }
}
