//! A descriptor in the loop: what is watched of it, and under which token.
//!
//! ```text
//! token = kind (u32) << 32 | id (u32)
//! ```
//!
//! Ids are never used again, so news of something that was closed earlier in the same round find
//! nobody. Invariant: what is closed is removed from the set first, for the daemon may hold a
//! duplicate that would keep it there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::epoll::{Interest, Poller};

/// What a token's id counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Listener,
    Signals,
    Oom,
    /// A process's stdout, or its terminal.
    Stdout,
    Stderr,
    Stdin,
    Client,
    Control,
    Resolver,
    Proxy,
    /// Brings the exit code of a process that a launcher started.
    Exit,
}

const KINDS: [Kind; 11] = [
    Kind::Listener,
    Kind::Signals,
    Kind::Oom,
    Kind::Stdout,
    Kind::Stderr,
    Kind::Stdin,
    Kind::Client,
    Kind::Control,
    Kind::Resolver,
    Kind::Proxy,
    Kind::Exit,
];

/// The token of one descriptor.
pub fn token(kind: Kind, id: u32) -> u64 {
    (kind as u64) << 32 | u64::from(id)
}

/// What a token stands for.
pub fn source(token: u64) -> Option<(Kind, u32)> {
    let kind = KINDS.get(usize::try_from(token >> 32).ok()?)?;
    Some((*kind, token as u32))
}

/// A descriptor that may be in the set.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
    token: u64,
    interest: Option<Interest>,
}

impl Watch {
    /// Not in the set yet.
    pub fn new(fd: OwnedFd, kind: Kind, id: u32) -> Watch {
        Watch { fd, token: token(kind, id), interest: None }
    }

    /// Changes what is watched. `None` is out of the set: not even hang-ups are told.
    pub fn set(&mut self, poller: &Poller, interest: Option<Interest>) -> io::Result<()> {
        if self.interest == interest {
            return Ok(());
        }
        match (self.interest, interest) {
            (None, Some(new)) => poller.add(&self.fd, self.token, new)?,
            (Some(_), Some(new)) => poller.modify(&self.fd, self.token, new)?,
            (_, None) => poller.remove(&self.fd)?,
        }
        self.interest = interest;
        Ok(())
    }

    /// Takes it out of the set and closes it.
    pub fn close(self, poller: &Poller) {
        drop(self.take(poller));
    }

    /// Takes it out of the set.
    pub fn take(mut self, poller: &Poller) -> OwnedFd {
        // What is not in the set any more needs no removal.
        let _already_out = self.set(poller, None);
        self.fd
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_apart() {
        for kind in KINDS {
            assert_eq!(source(token(kind, 7)), Some((kind, 7)));
        }
        assert_eq!(source(u64::MAX), None);
    }
}
