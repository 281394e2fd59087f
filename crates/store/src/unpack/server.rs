//! The role `unpack`: makes a confined process for each archive.
//!
//! ```text
//! start:  leaves namespaces ─▶ Unmapped ─▶ (the daemon maps ids) Mapped ─▶ confines itself ─▶ Ready
//! then:   a job with descriptors (archive, reply, place) ─▶ clone3
//!         a process has ended       ─▶ Exited on its reply, which is closed
//!         the daemon hangs up on it ─▶ kill
//!         the daemon is gone        ─▶ exit, which kills all
//! ```
//! It has one thread, reads nothing of strangers', and what it is sent comes from the daemon alone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};
use sys::namespace::Namespaces;
use sys::process::{Child, Exit, SpawnOptions, Wait};
use sys::seccomp::Program;

use super::confine;
use super::job::{self, Ground, Rights};
use super::wire::{self, Channel, Ending, Event, Job, Packet, Receiver};

/// What is said before the first job.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Greeting {
    /// By the server: it is in a user namespace without ids.
    Unmapped,
    /// By the daemon.
    Mapped,
    Ready,
    /// It could not be confined, and ends.
    Failed(String),
}

/// A process at work.
struct Worker {
    child: Child,
    reply: OwnedFd,
}

/// Serves the daemon at the other end of standard input.
pub fn main() -> ExitCode {
    // Whoever types this word has no socket there.
    let Ok(control) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    match serve(&control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tug unpack serves the daemon and nobody else: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(control: &OwnedFd) -> io::Result<()> {
    let calls = match confine(control) {
        Ok(calls) => calls,
        Err(error) => {
            return wire::send_event(control.as_fd(), &Greeting::Failed(error.to_string()), None);
        }
    };
    wire::send_event(control.as_fd(), &Greeting::Ready, None)?;
    let mut workers: Vec<Worker> = Vec::new();
    loop {
        let (has_job, ready) = wait(control, &workers)?;
        for place in ready.into_iter().rev() {
            if let Some(ending) = ending(&workers[place])? {
                let worker = workers.swap_remove(place);
                // Nobody may be there to hear it.
                let _ = wire::send_event(worker.reply.as_fd(), &Event::Exited(ending), None);
            }
        }
        if has_job {
            match receive(control)? {
                Some(request) => workers.extend(begin(request, &calls)),
                None => return Ok(()),
            }
        }
    }
}

/// Gives up all that it takes; gives the filter for processes.
fn confine(control: &OwnedFd) -> io::Result<Program> {
    sys::process::set_name(c"tug-unpack")?;
    let calls = confine::filter()?;
    confine::leave_namespaces()?;
    wire::send_event(control.as_fd(), &Greeting::Unmapped, None)?;
    let mut receiver = Receiver::default();
    match receiver.receive(control.as_fd())? {
        Packet::Event => match receiver.event()? {
            Greeting::Mapped => {}
            Greeting::Unmapped | Greeting::Ready | Greeting::Failed(_) => {
                return Err(io::ErrorKind::InvalidData.into());
            }
        },
        Packet::Data(_) | Packet::End => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    confine::confine_server()?;
    // The daemon's end is in `control`.
    let null = io::stdout().as_fd().try_clone_to_owned()?;
    sys::process::set_standard_stream(&null, 0)?;
    Ok(calls)
}

/// Waits for something to do: whether there is a job, and the workers that ended or are given up.
fn wait(control: &OwnedFd, workers: &[Worker]) -> io::Result<(bool, Vec<usize>)> {
    let mut fds = vec![PollFd::new(control, PollFlags::IN)];
    for worker in workers {
        fds.push(PollFd::new(&worker.child.pidfd, PollFlags::IN));
        fds.push(PollFd::new(&worker.reply, PollFlags::RDHUP));
    }
    loop {
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let happened = |fd: &PollFd<'_>| !fd.revents().is_empty();
    let ready = fds[1..].chunks(2).enumerate();
    let ready = ready.filter(|(_, pair)| pair.iter().any(happened)).map(|(place, _)| place);
    Ok((happened(&fds[0]), ready.collect()))
}

/// How a worker ended. One that has not is given up by the daemon, and killed.
fn ending(worker: &Worker) -> io::Result<Option<Ending>> {
    let exit = match sys::process::wait_process(&worker.child.pidfd, Wait::Poll)? {
        Some(exit) => exit,
        None => {
            sys::process::signal_process(
                &worker.child.pidfd,
                rustix::process::Signal::KILL.as_raw(),
            )?;
            match sys::process::wait_process(&worker.child.pidfd, Wait::Block)? {
                Some(exit) => exit,
                None => return Ok(None),
            }
        }
    };
    Ok(Some(match exit {
        Exit::Code(code) => Ending::Code(code),
        Exit::Signal { signal, .. } => Ending::Signal(signal),
    }))
}

/// A job and what it works with.
struct Request {
    job: Job,
    archive: OwnedFd,
    reply: OwnedFd,
    place: Option<OwnedFd>,
}

/// The next request; none when the daemon is gone.
fn receive(control: &OwnedFd) -> io::Result<Option<Request>> {
    let (mut text, mut fds) = (vec![0; wire::PACKET_BYTES_MAX], Vec::new());
    let length = sys::socket::recv_with_fds(control, &mut text, &mut fds)?;
    if length == 0 {
        return Ok(None);
    }
    let job = serde_json::from_slice(&text[..length]).map_err(io::Error::other)?;
    let mut fds = fds.into_iter();
    match (fds.next(), fds.next(), fds.next()) {
        (Some(archive), Some(reply), place) => Ok(Some(Request { job, archive, reply, place })),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn begin(request: Request, calls: &Program) -> Option<Worker> {
    let options = SpawnOptions { namespaces: Namespaces::PID, ..SpawnOptions::default() };
    let Request { job, archive, reply, place } = request;
    let reply_of_child = reply.try_clone();
    let spawned = reply_of_child.and_then(|theirs| {
        sys::process::spawn(&options, move || work(&job, archive, theirs, place, calls))
    });
    match spawned {
        Ok(child) => Some(Worker { child, reply }),
        Err(error) => {
            let ending = Ending::NotStarted(error.to_string());
            let _ = wire::send_event(reply.as_fd(), &Event::Exited(ending), None);
            None
        }
    }
}

/// The process for one archive.
fn work(
    job: &Job,
    archive: OwnedFd,
    reply: OwnedFd,
    place: Option<OwnedFd>,
    calls: &Program,
) -> i32 {
    let mut keep = vec![archive.as_fd(), reply.as_fd()];
    keep.extend(place.as_ref().map(|place| place.as_fd()));
    let closed = sys::process::close_all_but(&keep, sys::process::Preserved::default());
    let channel = Channel::new(reply);
    let is_file = matches!(job, Job::List { .. });
    let directory = place.as_ref().filter(|_| !is_file).map(|place| place.as_fd());
    if let Err(error) = closed.and_then(|()| confine::confine(directory, calls)) {
        // Without the word there is the status.
        let _ = channel.send(&Event::Unconfined(error.to_string()));
        return 71;
    }
    let ground = match place {
        None => Ground::Nothing,
        Some(file) if is_file => Ground::File(File::from(file)),
        // It is the root now.
        Some(_directory) => Ground::Directory("/".into()),
    };
    job::run(job, File::from(archive), channel, ground, Rights::Confined);
    0
}
