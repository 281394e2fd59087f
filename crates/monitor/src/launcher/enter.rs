//! An exec: started with privileges, then waited for without any.
//!
//! The launcher is the process's parent, so it alone learns how it ended. It writes the exit code, four
//! bytes in the machine's order, to a socket whose other end the supervisor has, and ends. Output and
//! input do not pass through it.

use std::os::fd::{AsFd, OwnedFd};

use sys::process::{Exit, Pid};

use super::Heirloom;
use crate::confine::{self, Places};
use crate::run::container::{self, Failure, Started};
use crate::run::process::{self, ChildEnds};
use crate::wire::{Enter, Event};

/// A process that was started, and who is to learn of its end.
#[derive(Debug)]
pub(crate) struct Entered {
    pid: Pid,
    ends: OwnedFd,
}

/// Starts the process. The descriptors are the request's.
pub(crate) fn enter(
    request: &Enter,
    fds: Vec<OwnedFd>,
) -> Result<(Event, Vec<OwnedFd>, Entered), Failure> {
    let other = |message: &str| Failure { exit_code: 128, message: message.to_owned() };
    let missing = || other("a descriptor is missing");
    let mut fds = fds.into_iter();
    let container = fds.next().ok_or_else(missing)?;
    let seccomp = if request.seccomp { Some(fds.next().ok_or_else(missing)?) } else { None };
    let ends = fds.next().ok_or_else(missing)?;
    let streams = if request.process.terminal {
        None
    } else {
        let stdin = if request.stdin { Some(fds.next().ok_or_else(missing)?) } else { None };
        let (stdout, stderr) = (fds.next().ok_or_else(missing)?, fds.next().ok_or_else(missing)?);
        Some(ChildEnds { stdin, stdout, stderr })
    };
    let seccomp = seccomp.map(|file| container::read_program(&file)).transpose()?;
    sys::process::set_subreaper().map_err(|_| other("cannot become a reaper"))?;
    let started = container::exec(request, container.as_fd(), seccomp.as_ref(), streams.as_ref())?;
    let Started { pid, pidfd, terminal } = started;
    if let Some(terminal) = &terminal {
        process::nonblocking(terminal).map_err(|_| other("cannot keep the terminal"))?;
    }
    let event = Event::ExecStarted { exec: request.exec, pid: pid.as_raw_nonzero().get() };
    let fds = [Some(pidfd), terminal].into_iter().flatten().collect();
    Ok((event, fds, Entered { pid, ends }))
}

impl Entered {
    /// Gives up all rights and waits for the end of the process.
    pub(crate) fn wait(self, heirloom: &Heirloom) -> Result<(), String> {
        heirloom.show(&["tug", "exec"].map(std::ffi::OsStr::new));
        confine::confine(&Places::default(), &heirloom.calls)
            .map_err(|error| spec::chain(&error))?;
        loop {
            match rustix::process::wait(rustix::process::WaitOptions::empty()) {
                Ok(Some((pid, status))) if pid == self.pid => {
                    let exit = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => Exit::Code(code),
                        (None, Some(signal)) => Exit::Signal { signal, core_dumped: false },
                        (None, None) => continue,
                    };
                    // Without a supervisor nobody wants to know.
                    let _gone = rustix::net::send(
                        &self.ends,
                        &exit.code().to_ne_bytes(),
                        rustix::net::SendFlags::NOSIGNAL,
                    );
                    return Ok(());
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("cannot wait for a process: {error}")),
            }
        }
    }
}
