//! Reading a container's log, also while it is written.
//!
//! A reader goes through the files from the oldest to the current one. Following, it then waits for
//! changes of the directory (inotify(7)) and goes on, over rotations too, until it is told that the
//! container has ended.
//!
//! Invariant: each entry is delivered once. After a rotation that took the file being read out of
//! sight (compressed, removed) the reader goes through what is there and leaves out all up to the
//! last entry delivered, told by its time and its number among those of the same time.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;

use super::Entry;
use super::segments::{self, Format, Segment, TailCount};
use crate::settings::{LogDriver, LogSettings};

/// Which entries, and whether to wait for more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Only this many of the last lines.
    pub tail: Option<u64>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub follow: bool,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the log driver `none` keeps nothing that could be read")]
    NotKept,
    #[error("cannot read the log {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot watch the log {path:?}")]
    Watch { path: PathBuf, source: io::Error },
}

/// Ends the following of a [`LogReader`], from any thread.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<OwnedFd>);

impl Stopper {
    /// Nothing will be written any more: the reader delivers what is there and ends.
    pub fn stop(&self) {
        sys::epoll::wake(&*self.0);
    }
}

/// An iterator over a log's entries, which waits in `next` when it follows.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    directory: PathBuf,
    format: Format,
    options: ReadOptions,
    segments: VecDeque<Segment>,
    stopper: Stopper,
    stopped: bool,
    done: bool,
    inotify: Option<OwnedFd>,
    mid_line: [bool; 2],
    /// Time of the last entry delivered or passed over, and how many there were of that time.
    last: Option<(Timestamp, u64)>,
    /// Entries up to here are known already.
    resume: Option<(Timestamp, u64)>,
}

impl LogReader {
    /// Opens the log that a monitor writes (or wrote) with the same settings. A log that does not
    /// exist yet is an empty one.
    ///
    /// # Errors
    /// For the driver `none`, and when files cannot be opened.
    pub fn open(settings: &LogSettings, options: ReadOptions) -> Result<LogReader, ReadError> {
        let format = match settings.driver {
            LogDriver::JsonFile => Format::Json,
            LogDriver::Local => Format::Local,
            LogDriver::None => return Err(ReadError::NotKept),
        };
        let path = settings.path.clone();
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        let watch = |source| ReadError::Watch { path: path.clone(), source };
        // The watch stands before the first look, so that no change falls in between.
        let inotify =
            if options.follow { Some(watch_directory(&directory).map_err(watch)?) } else { None };
        let stopper = Stopper(Arc::new(sys::epoll::waker().map_err(watch)?));
        let mut reader = LogReader {
            segments: VecDeque::new(),
            path: path.clone(),
            directory,
            format,
            options,
            stopper,
            stopped: false,
            done: false,
            inotify,
            mid_line: [false; 2],
            last: None,
            resume: None,
        };
        reader.seek().map_err(|source| ReadError::Read { path, source })?;
        Ok(reader)
    }

    /// What ends the following.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    fn seek(&mut self) -> io::Result<()> {
        let mut all = segments::open_all(&self.path, self.format)?;
        if let Some(lines) = self.options.tail {
            let mut count = TailCount::new(lines);
            let mut wanted = VecDeque::new();
            while let Some(mut segment) = all.pop_back() {
                segment.seek_tail(&mut count, &self.directory)?;
                wanted.push_front(segment);
                if !count.wants_more() {
                    break;
                }
            }
            all = wanted;
        } else if let Some(since) = self.options.since {
            for segment in &mut all {
                segment.seek_time(since, &self.directory)?;
            }
        }
        self.segments = all;
        Ok(())
    }

    /// The next entry there is, without waiting.
    fn advance(&mut self) -> io::Result<Option<Entry>> {
        while let Some(segment) = self.segments.front_mut() {
            if let Some(entry) = segment.next(&self.directory)? {
                return Ok(Some(entry));
            }
            if self.segments.len() == 1 {
                // The current file, as far as is known, stays: it may grow.
                return Ok(None);
            }
            self.segments.pop_front();
        }
        Ok(None)
    }

    /// Looks for files that came after the one being read; false when there are none.
    fn find_newer(&mut self) -> io::Result<bool> {
        let current = self.segments.front().map(Segment::inode);
        let mut all = segments::open_all(&self.path, self.format)?;
        let Some(inode) = current else {
            self.segments = all;
            return Ok(!self.segments.is_empty());
        };
        let Some(at) = all.iter().position(|segment| segment.inode() == inode) else {
            if all.is_empty() {
                return Ok(false);
            }
            self.resume = self.last;
            self.segments = all;
            return Ok(true);
        };
        let newer = all.split_off(at + 1);
        if newer.is_empty() {
            return Ok(false);
        }
        // The file being read may have grown between its end and its rotation: it stays in front.
        self.segments.truncate(1);
        self.segments.extend(newer);
        Ok(true)
    }

    /// Whether the entry is new, and keeps count of times.
    fn is_new(&mut self, entry: &Entry) -> bool {
        let number = match self.last {
            Some((time, number)) if time == entry.time && self.resume.is_none() => number + 1,
            Some(_) | None => 1,
        };
        if let Some((time, known)) = &mut self.resume {
            if entry.time < *time {
                return false;
            }
            if entry.time == *time && *known > 0 {
                *known -= 1;
                return false;
            }
            self.resume = None;
        }
        self.last = Some((entry.time, number));
        true
    }

    fn step(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            match self.advance() {
                Ok(Some(mut entry)) => {
                    if !self.is_new(&entry) {
                        continue;
                    }
                    if self.options.until.is_some_and(|until| entry.time > until) {
                        return Ok(None);
                    }
                    let ends = entry.bytes.last() == Some(&b'\n');
                    let mid_line = &mut self.mid_line[entry.stream.index()];
                    entry.starts_line = !std::mem::replace(mid_line, !ends);
                    if self.options.since.is_none_or(|since| entry.time >= since) {
                        return Ok(Some(entry));
                    }
                }
                Ok(None) if !self.options.follow => return Ok(None),
                Ok(None) => match self.find_newer() {
                    Ok(true) => {}
                    Ok(false) if self.stopped => return Ok(None),
                    Ok(false) => self.wait()?,
                    Err(error) => return Err(self.unreadable(error)),
                },
                Err(error) => return Err(self.unreadable(error)),
            }
        }
    }

    fn unreadable(&self, source: io::Error) -> ReadError {
        ReadError::Read { path: self.path.clone(), source }
    }

    /// Waits for a change, for the stop, or for the time after which nothing is wanted.
    fn wait(&mut self) -> Result<(), ReadError> {
        let Some(inotify) = &self.inotify else { return Ok(()) };
        let left = self.options.until.map(|until| until.duration_since(Timestamp::now()));
        if left.is_some_and(|left| left.is_negative()) {
            self.stopped = true;
            return Ok(());
        }
        let timeout = left
            .map(|left| Timespec { tv_sec: left.as_secs(), tv_nsec: left.subsec_nanos().into() });
        let mut fds =
            [PollFd::new(inotify, PollFlags::IN), PollFd::new(&*self.stopper.0, PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                let path = self.path.clone();
                return Err(ReadError::Watch { path, source: error.into() });
            }
        }
        let stopped = fds[1].revents().contains(PollFlags::IN);
        sys::epoll::drain(inotify);
        self.stopped |= stopped;
        Ok(())
    }
}

impl Iterator for LogReader {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        self.done = !matches!(step, Some(Ok(_)));
        step
    }
}

fn watch_directory(directory: &Path) -> io::Result<OwnedFd> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let flags = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::DELETE;
    inotify::add_watch(&fd, directory, flags)?;
    Ok(fd)
}

#[cfg(test)]
mod tests;
