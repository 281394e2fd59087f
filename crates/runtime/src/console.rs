//! Terminals between a container and the command line that started it in the foreground.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::termios::{OptionalActions, Termios};
use sys::process::{Exit, Wait};

/// Sends a terminal's master to whoever listens on the socket at `path`: OCI runtimes' de facto
/// protocol, one message that carries the descriptor.
pub(crate) fn send_master(path: &Path, master: BorrowedFd<'_>) -> io::Result<()> {
    let socket = sys::socket::connect(path)?;
    sys::socket::send_with_fds(&socket, b"/dev/ptmx", &[master])?;
    Ok(())
}

/// Our own terminal in raw mode, put back when dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Self {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = rustix::termios::tcgetattr(stdin) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        let entered = rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw).is_ok();
        Self(entered.then_some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // The terminal may have gone away, and then nobody minds.
            let _ =
                rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Copies between our standard streams and the terminal until the process ends.
pub(crate) fn relay(master: &OwnedFd, pidfd: &OwnedFd) -> io::Result<Exit> {
    let _raw = Raw::enter();
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
        rustix::termios::tcsetwinsize(master, size)?;
    }
    let mut stdin_open = true;
    loop {
        let stdin = rustix::stdio::stdin();
        let wanted = if stdin_open { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::new(master, PollFlags::IN),
            PollFd::from_borrowed_fd(stdin.as_fd(), wanted),
        ];
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            done => done?,
        };
        let ready = fds.each_ref().map(|fd| !fd.revents().is_empty());
        if ready[1] {
            copy(master.as_fd(), rustix::stdio::stdout())?;
        }
        if ready[2] && stdin_open {
            stdin_open = copy(stdin, master.as_fd())? > 0;
        }
        if ready[0] {
            // What was written last is still in the terminal's buffer.
            while copy(master.as_fd(), rustix::stdio::stdout())? > 0 {}
            let exit = sys::process::wait_process(pidfd, Wait::Block)?;
            return exit.ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
    }
}

/// One piece; 0 at the end, which on a master is an error (EIO: the last slave is closed).
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<usize> {
    let mut buffer = [0_u8; 16 << 10];
    let count = match rustix::io::read(from, &mut buffer) {
        Ok(count) => count,
        Err(rustix::io::Errno::IO) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        let written = rustix::io::write(to, rest)?;
        rest = &rest[written..];
    }
    Ok(count)
}
