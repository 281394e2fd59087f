//! Network namespaces, held by descriptors alone: no name in the file system, so nothing to leak.
//!
//! A namespace lives while a descriptor, a process or a socket of it does. Work inside one is done
//! on a thread of its own, since setns(2) changes the calling thread only.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Makes a network namespace and runs `work` inside, on a thread that ends with it.
pub fn create<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<(OwnedFd, T)> {
    on_a_thread(move || {
        // SAFETY: unshare_unsafe is unsafe because unsharing the file table invalidates
        // descriptors of other threads; a new network namespace leaves all descriptors alone.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
        let netns = current()?;
        Ok((netns, work()))
    })
}

/// Runs `work` inside `netns`, on a thread that ends with it.
pub fn within<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(move || {
        rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
        Ok(work())
    })
}

/// The calling thread's network namespace.
pub fn current() -> io::Result<OwnedFd> {
    open("/proc/thread-self/ns/net")
}

/// The network namespace of a process. The caller makes sure that `pid` is still the one it means.
pub fn of_process(pid: u32) -> io::Result<OwnedFd> {
    open(&format!("/proc/{pid}/ns/net"))
}

/// Whether two descriptors mean the same namespace.
pub fn same(one: impl AsFd, other: impl AsFd) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

fn open(path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
