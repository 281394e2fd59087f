//! Noticing that the out-of-memory killer took a process of the group.
//!
//! Version 1 rings an eventfd registered at memory.oom_control; version 2 modifies memory.events,
//! which inotify reports. Either way the bell only says "look": the truth is the counter of kills.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use rustix::fs::{Mode, OFlags};

use super::stats::{get, table};
use super::{Cgroup, write_file};

/// A watch to put into an event loop: readable means that [`OomWatch::take`] is worth calling.
#[derive(Debug)]
pub struct OomWatch {
    bell: OwnedFd,
    /// Open, so that it can be read by a process that sees no path any more.
    counter: File,
    seen: u64,
}

impl OomWatch {
    pub(super) fn open(group: &Cgroup) -> io::Result<Self> {
        let directory = group.directory("memory").ok_or(io::ErrorKind::Unsupported)?;
        if group.layout().is_v2() {
            let counter = directory.join("memory.events");
            let bell =
                inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
            inotify::add_watch(&bell, &counter, inotify::WatchFlags::MODIFY)?;
            return Ok(Self { bell, counter: File::open(counter)?, seen: 0 });
        }
        let counter = directory.join("memory.oom_control");
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let control = rustix::fs::open(&counter, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let line = format!("{} {}", bell.as_raw_fd(), control.as_raw_fd());
        write_file(&directory.join("cgroup.event_control"), &line)?;
        Ok(Self { bell, counter: File::from(control), seen: 0 })
    }

    /// Silences the bell and tells how often memory ran out since the last call: processes that were
    /// killed for it, and on version 1 a group that hangs because none may be (`oom_kill_disable`).
    ///
    /// # Errors
    /// When the group is gone.
    pub fn take(&mut self) -> io::Result<u64> {
        let mut buffer = [0_u8; 4096];
        let mut rang = false;
        while rustix::io::read(&self.bell, &mut buffer).is_ok_and(|count| count > 0) {
            rang = true;
        }
        let mut text = String::new();
        self.counter.rewind()?;
        self.counter.read_to_string(&mut text)?;
        let now = table(&text);
        let kills = get(&now, "oom_kill");
        let new = kills.saturating_sub(self.seen);
        self.seen = kills;
        let hangs = rang && get(&now, "oom_kill_disable") > 0 && get(&now, "under_oom") > 0;
        Ok(new + u64::from(hangs))
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
