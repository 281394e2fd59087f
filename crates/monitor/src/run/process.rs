//! One process of the container: its pipes or terminal, and how it ended.
//!
//! Invariant: a descriptor of ours never blocks the loop; the container's ends of the pipes are
//! other file descriptions and stay as a program expects them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use spec::runtime::ConsoleSize;
use sys::epoll::{Interest, Poller};
use sys::process::{Exit, Pid};

use super::watch::{Kind, Watch};
use crate::complaints::complain;
use crate::logs::Stream;
use crate::wire::Target;

/// The exit code of a process whose end nobody saw, as of one that was killed.
const LAUNCHER_LOST: i32 = 137;

/// The container's ends of its standard streams.
#[derive(Debug)]
pub struct ChildEnds {
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// A process that runs, or whose streams are not finished.
#[derive(Debug)]
pub struct Process {
    pub id: u32,
    pub target: Target,
    pub pid: Pid,
    pub pidfd: Option<OwnedFd>,
    pub tty: bool,
    /// Whether the end of a client's stdin is the end of this process's.
    pub stdin_once: bool,
    /// stdout (or the terminal) and stderr.
    outputs: [Option<Watch>; 2],
    stdin: Option<Watch>,
    /// Brings the exit code of a process that is a launcher's child.
    status: Option<Watch>,
    /// What stdin did not take yet; while there is any, clients are not read.
    unwritten: Vec<u8>,
    /// Close stdin once nothing is unwritten.
    ending: bool,
    /// Outputs are not read while a client is slow.
    held: bool,
    pub exit: Option<Exit>,
    /// Until when an exec that ended may still say something.
    pub drain_until: Option<std::time::Instant>,
}

/// Our ends of a process's streams.
#[derive(Debug, Default)]
pub struct OurEnds {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// What one read of an output gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Bytes(usize),
    NothingYet,
    End,
}

/// Makes pipes for a process; without `stdin` it reads /dev/null.
///
/// # Errors
/// When descriptors run out.
pub fn pipes(stdin: bool) -> io::Result<(OurEnds, ChildEnds)> {
    let (our_stdin, child_stdin) = if stdin {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        nonblocking(&write)?;
        (Some(write), Some(read))
    } else {
        (None, None)
    };
    let (our_stdout, stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (our_stderr, stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    nonblocking(&our_stdout)?;
    nonblocking(&our_stderr)?;
    let ours = OurEnds { stdin: our_stdin, stdout: Some(our_stdout), stderr: Some(our_stderr) };
    Ok((ours, ChildEnds { stdin: child_stdin, stdout, stderr }))
}

/// Makes our end of a pipe or terminal never wait.
pub fn nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}

impl Process {
    /// Takes the streams over; a terminal's master is both `stdin` and `stdout`.
    pub fn new(
        id: u32,
        target: Target,
        pid: Pid,
        pidfd: Option<OwnedFd>,
        ends: OurEnds,
    ) -> Process {
        Process {
            id,
            target,
            pid,
            pidfd,
            tty: false,
            stdin_once: false,
            outputs: [
                ends.stdout.map(|fd| Watch::new(fd, Kind::Stdout, id)),
                ends.stderr.map(|fd| Watch::new(fd, Kind::Stderr, id)),
            ],
            stdin: ends.stdin.map(|fd| Watch::new(fd, Kind::Stdin, id)),
            status: None,
            unwritten: Vec::new(),
            ending: false,
            held: false,
            exit: None,
            drain_until: None,
        }
    }

    /// A process with a terminal. Its two directions are watched apart, by two descriptors.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn with_terminal(
        id: u32,
        target: Target,
        pid: Pid,
        pidfd: Option<OwnedFd>,
        master: OwnedFd,
    ) -> io::Result<Process> {
        nonblocking(&master)?;
        let stdin = Some(master.try_clone()?);
        let ends = OurEnds { stdin, stdout: Some(master), stderr: None };
        Ok(Process { tty: true, ..Process::new(id, target, pid, pidfd, ends) })
    }

    /// Learns of the end through `socket`: four bytes, or its end without any.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn watch_status(&mut self, socket: OwnedFd, poller: &Poller) -> io::Result<()> {
        nonblocking(&socket)?;
        let mut status = Watch::new(socket, Kind::Exit, self.id);
        status.set(poller, Some(Interest::Read))?;
        self.status = Some(status);
        Ok(())
    }

    /// The exit code, once it is there.
    pub fn read_status(&mut self, poller: &Poller) -> Option<i32> {
        let mut bytes = [0; 4];
        match rustix::io::read(self.status.as_ref()?, &mut bytes) {
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Ok(4) => {}
            // The launcher was killed; nobody can say how the process ended.
            Ok(_) | Err(_) => bytes = LAUNCHER_LOST.to_ne_bytes(),
        }
        self.status.take()?.close(poller);
        Some(i32::from_ne_bytes(bytes))
    }

    /// Whether input can be taken now.
    pub fn takes_stdin(&self) -> bool {
        self.stdin.is_some() && !self.ending && self.unwritten.is_empty()
    }

    /// Whether there is any stdin to attach to.
    pub fn has_stdin(&self) -> bool {
        self.stdin.is_some() && !self.ending
    }

    /// Whether any output may still come.
    pub fn has_output(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }

    /// Which outputs are open.
    pub fn open_outputs(&self) -> impl Iterator<Item = Stream> {
        let open = [self.outputs[0].is_some(), self.outputs[1].is_some()];
        [Stream::Stdout, Stream::Stderr].into_iter().filter(move |&stream| open[index(stream)])
    }

    /// Reads one piece of output.
    pub fn read(&mut self, stream: Stream, scratch: &mut [u8]) -> Output {
        let Some(output) = &self.outputs[index(stream)] else { return Output::NothingYet };
        loop {
            match rustix::io::read(output, &mut *scratch) {
                Ok(0) => return Output::End,
                Ok(count) => return Output::Bytes(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Output::NothingYet,
                // EIO of a terminal: nobody has its other end open.
                Err(_) => return Output::End,
            }
        }
    }

    /// Closes an output that has ended.
    pub fn close_output(&mut self, stream: Stream, poller: &Poller) {
        if let Some(output) = self.outputs[index(stream)].take() {
            output.close(poller);
        }
    }

    /// Writes input; what is not taken is kept.
    pub fn write(&mut self, bytes: &[u8], poller: &Poller) {
        let Some(stdin) = &self.stdin else { return };
        let mut taken = 0;
        while self.unwritten.is_empty() && taken < bytes.len() {
            match rustix::io::write(stdin, &bytes[taken..]) {
                Ok(count) => taken += count,
                Err(Errno::INTR) => {}
                // Full, or broken: `flush` meets it again and knows what to do.
                Err(_) => break,
            }
        }
        self.unwritten.extend_from_slice(&bytes[taken..]);
        if !self.unwritten.is_empty() {
            self.flush(poller);
        }
    }

    /// Writes what was kept, and closes stdin after it if it is to end.
    pub fn flush(&mut self, poller: &Poller) {
        let Some(stdin) = &mut self.stdin else { return };
        let mut broken = false;
        let mut written = 0;
        while written < self.unwritten.len() && !broken {
            match rustix::io::write(&*stdin, &self.unwritten[written..]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The process closed its stdin: whatever is typed is for nobody.
                Err(_) => broken = true,
            }
        }
        self.unwritten.drain(..written);
        if broken {
            self.unwritten.clear();
        }
        if broken || (self.ending && self.unwritten.is_empty()) {
            if let Some(stdin) = self.stdin.take() {
                stdin.close(poller);
            }
            return;
        }
        let interest = (!self.unwritten.is_empty()).then_some(Interest::Write);
        if let Err(error) = stdin.set(poller, interest) {
            complain!("cannot watch a process's stdin: {error}");
        }
    }

    /// Ends stdin, once what is unwritten has been written. A terminal has no end.
    pub fn end_stdin(&mut self, poller: &Poller) {
        if !self.tty {
            self.ending = true;
            self.flush(poller);
        }
    }

    /// Watches the outputs, unless a client is slow; a dead process's are read in any case, for
    /// there is only what its pipes hold.
    pub fn watch(&mut self, poller: &Poller, slow: bool) {
        self.held = slow && self.exit.is_none();
        let interest = (!self.held).then_some(Interest::Read);
        for output in self.outputs.iter_mut().flatten() {
            if let Err(error) = output.set(poller, interest) {
                complain!("cannot watch a process's output: {error}");
            }
        }
    }

    /// Whether the outputs must not be read now.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Sets the terminal's size.
    ///
    /// # Errors
    /// Without a terminal.
    pub fn resize(&self, size: ConsoleSize) -> io::Result<()> {
        let terminal = match &self.outputs[0] {
            Some(terminal) if self.tty => terminal,
            Some(_) | None => return Err(Errno::NOTTY.into()),
        };
        sys::tty::resize(terminal, sys::tty::Size { rows: size.height, columns: size.width })
    }

    /// Closes everything that is left.
    pub fn close(mut self, poller: &Poller) {
        for watch in self
            .outputs
            .iter_mut()
            .filter_map(Option::take)
            .chain(self.stdin.take())
            .chain(self.status.take())
        {
            watch.close(poller);
        }
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}
