//! The pieces of a single-threaded event loop: an epoll set with tokens, signals as descriptors,
//! and being woken.
//!
//! Tokens are the caller's own numbers. Readiness is level-triggered, so that a caller may read
//! once and come back.
//!
//! Invariant: a [`Poller`] never owns what it watches; closing a watched descriptor that has no
//! duplicate removes it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::event::{EventfdFlags, Timespec};

/// What to be told about one descriptor. Hang-up and errors are always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Only hang-up and errors.
    Nothing,
    Read,
    Write,
    ReadWrite,
}

impl Interest {
    /// The interest that covers what is asked for.
    pub fn of(read: bool, write: bool) -> Interest {
        match (read, write) {
            (false, false) => Interest::Nothing,
            (true, false) => Interest::Read,
            (false, true) => Interest::Write,
            (true, true) => Interest::ReadWrite,
        }
    }

    fn flags(self) -> epoll::EventFlags {
        match self {
            Interest::Nothing => epoll::EventFlags::empty(),
            Interest::Read => epoll::EventFlags::IN,
            Interest::Write => epoll::EventFlags::OUT,
            Interest::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

/// One descriptor's news.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    /// Both directions are over, or the descriptor is in error: EPOLLHUP or EPOLLERR.
    pub hung_up: bool,
}

/// An epoll set.
#[derive(Debug)]
pub struct Poller {
    fd: OwnedFd,
}

impl Poller {
    /// # Errors
    /// As epoll_create1(2).
    pub fn new() -> io::Result<Poller> {
        Ok(Poller { fd: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Watches `source` under `token`.
    ///
    /// # Errors
    /// As epoll_ctl(2); `PermissionDenied` for a regular file, which is always ready.
    pub fn add(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.fd, source, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Changes what is watched of `source`.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn modify(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.fd, source, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Watches `source` no longer.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn remove(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, source)?)
    }

    /// Waits for news, at most `timeout`; `ready` is replaced by them. Interruptions by signals
    /// and timeouts both leave it empty.
    ///
    /// # Errors
    /// As epoll_wait(2).
    pub fn wait(&self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        let timeout = timeout.map(|wait| Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        let blank =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [blank; 64];
        let count = match epoll::wait(&self.fd, &mut events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        ready.extend(events[..count].iter().map(|event| {
            let flags = event.flags;
            let over = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            Ready {
                token: event.data.u64(),
                readable: flags.contains(epoll::EventFlags::IN),
                writable: flags.contains(epoll::EventFlags::OUT),
                hung_up: flags.intersects(over),
            }
        }));
        Ok(())
    }
}

/// Blocks `signals` for the calling thread (and what it starts: exec(2) keeps the mask, so
/// whoever starts a container resets it) and returns a descriptor on which they arrive instead.
/// Non-blocking, close-on-exec.
///
/// # Errors
/// As sigprocmask(2) and signalfd(2).
pub fn signals(signals: &[i32]) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) initialises the set that the pointer designates, which is ours.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for &signal in signals {
        // SAFETY: the set was initialised above; a bad number is refused with EINVAL.
        if unsafe { libc::sigaddset(set.as_mut_ptr(), signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: sigemptyset(3) above initialised it.
    let set = unsafe { set.assume_init() };
    // SAFETY: reads the set during the call; a null old set is allowed.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: reads the set during the call; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel opened `fd` for this call, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A counter that wakes whoever polls it: eventfd(2), non-blocking, close-on-exec.
///
/// # Errors
/// As eventfd(2).
pub fn waker() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Makes `waker` readable until [`drain`]ed.
pub fn wake(waker: impl AsFd) {
    // A full counter (EAGAIN) is readable already, which is all that is wanted.
    let _already_full = rustix::io::write(waker, &1_u64.to_ne_bytes());
}

/// Reads away what is pending on an eventfd, timerfd or signalfd; true when something was.
pub fn drain(fd: impl AsFd) -> bool {
    let mut bytes = [0; 1024];
    let mut any = false;
    while matches!(rustix::io::read(&fd, &mut bytes), Ok(1..)) {
        any = true;
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_is_ready_until_drained() {
        let poller = Poller::new().unwrap();
        let waker = waker().unwrap();
        poller.add(&waker, 7, Interest::Read).unwrap();
        wake(&waker);
        let mut ready = Vec::new();
        poller.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
        assert_eq!((ready.len(), ready[0].token, ready[0].readable), (1, 7, true));
        assert!(drain(&waker));
        poller.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert!(ready.is_empty());
    }
}
