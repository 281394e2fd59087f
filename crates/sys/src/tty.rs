//! Pseudo-terminals of one particular devpts instance.
//!
//! The slave is opened through the master (TIOCGPTPEER, Linux 4.13), never by a path such as
//! /dev/pts/0 that a container could have replaced.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::process::check;

/// A terminal's two ends.
#[derive(Debug)]
pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Size in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// Opens a new terminal of the devpts instance whose root directory is `devpts`.
///
/// # Errors
/// `ENOENT` when there is no ptmx, `ENOSPC` when no terminal is left.
pub fn open_pty(devpts: impl AsFd) -> io::Result<Pty> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat(devpts, "ptmx", flags | OFlags::NOFOLLOW, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor.
    let slave = check(i64::from(unsafe {
        libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCGPTPEER,
            libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
        )
    }))?;
    // SAFETY: the kernel opened `slave` for this call, so nothing else owns it.
    let slave = unsafe { OwnedFd::from_raw_fd(slave as i32) };
    Ok(Pty { master, slave })
}

/// Sets the size, which signals SIGWINCH to the terminal's foreground processes.
///
/// # Errors
/// `ENOTTY` for no terminal.
pub fn resize(terminal: impl AsFd, size: Size) -> io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Makes `slave` the controlling terminal of this process, which must lead a session.
///
/// # Errors
/// `EPERM` when it does not, or another session has the terminal.
pub fn set_controlling(slave: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(i64::from(unsafe { libc::ioctl(slave.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }))?;
    Ok(())
}
