//! `tug launcher`: the process that forks launchers, and what one does for an exec.
//!
//! The fork server has one thread and does nothing but fork, with its memory as it was when it was
//! started: no launcher sees what another one was given. It ends with its daemon. Each launcher has a
//! socket of its own to the daemon and waits for one request ([`crate::wire`]): it becomes the supervisor
//! of a container ([`crate::run`]), or stays until an exec ends ([`enter`]), or removes what another
//! runtime left.
//!
//! Always true: a launcher that has started something gives up its rights before it does anything else;
//! one that has not ends when its daemon does.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use sys::process::{CommandLine, Reaping, SpawnOptions};
use sys::seccomp::Program;

pub(crate) mod enter;

/// What every launcher inherits, made once.
#[derive(Debug, Clone)]
pub(crate) struct Heirloom {
    /// What supervisors may call.
    pub calls: Program,
    command_line: Option<CommandLine>,
}

impl Heirloom {
    /// Shows `words` as this process's command line: only for those who look at the processes.
    pub fn show(&self, words: &[&OsStr]) {
        // Where it cannot be changed, the old words stay.
        let _old_words = self.command_line.map(|line| line.show(words));
    }
}

/// The process; `args` are what follows the word `launcher`. Its stdin is the daemon's socket, on which
/// each record brings the socket of a launcher that is to be made.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match prepare(args).and_then(|(socket, heirloom)| serve(socket, &heirloom)) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn prepare(args: impl IntoIterator<Item = OsString>) -> Result<(OwnedFd, Heirloom), String> {
    let cgroup = parse(args)?;
    let _leader = rustix::process::setsid();
    // What the daemon's directory is on may be unmounted while supervisors live.
    rustix::process::chdir("/").map_err(|error| format!("cannot go to /: {error}"))?;
    if let Some(cgroup) = cgroup
        && let Err(error) = std::fs::write(cgroup.join("cgroup.procs"), "0")
    {
        eprintln!("cannot move to the monitors' control group {cgroup:?}: {error}");
    }
    let socket =
        take_stdin().map_err(|error| format!("cannot take the daemon's socket: {error}"))?;
    if rustix::net::sockopt::socket_domain(&socket).is_err() {
        return Err(
            "the daemon starts this by itself; to start containers, run: tug daemon".to_owned()
        );
    }
    sys::process::default_signals();
    sys::process::set_reaping(Reaping::Kernel);
    // What is looked up once here is known to all that are forked.
    sys::cgroup::Layout::host();
    let calls = crate::confine::calls().map_err(|error| error.to_string())?;
    let heirloom = Heirloom { calls, command_line: CommandLine::find().ok() };
    heirloom.show(&["tug", "launcher"].map(OsStr::new));
    Ok((socket, heirloom))
}

/// Forks until the daemon has gone.
fn serve(socket: OwnedFd, heirloom: &Heirloom) -> Result<ExitCode, String> {
    let mut socket = Some(socket);
    loop {
        let Some(daemon) = &socket else { return Ok(ExitCode::SUCCESS) };
        let (mut record, mut fds) = ([0; 8], Vec::new());
        match sys::socket::recv_with_fds(daemon, &mut record, &mut fds) {
            Ok(0) => return Ok(ExitCode::SUCCESS),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("cannot hear from the daemon: {error}")),
        }
        for control in fds {
            let mut control = Some(control);
            // A launcher that cannot be made closes its socket, which tells the daemon.
            let made = sys::process::spawn(&SpawnOptions::default(), || {
                drop(socket.take());
                control.take().map_or(1, |control| live(control, heirloom))
            });
            if let Err(error) = made {
                eprintln!("cannot make a launcher: {error}");
            }
        }
    }
}

/// A launcher's life.
fn live(control: OwnedFd, heirloom: &Heirloom) -> i32 {
    sys::process::set_reaping(Reaping::Own);
    // Whatever the daemon was started with is no business of a container's.
    let none = sys::process::Preserved::default();
    if let Err(error) = sys::process::close_all_but(&[control.as_fd()], none) {
        eprintln!("cannot close inherited descriptors: {error}");
        return 1;
    }
    let _leader = rustix::process::setsid();
    heirloom.show(&["tug", "launcher", "idle"].map(OsStr::new));
    match crate::run::serve(control, heirloom) {
        Ok(()) => 0,
        Err(message) => {
            eprintln!("{message}");
            1
        }
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<PathBuf>, String> {
    let usage = || "usage: tug launcher [--cgroup PATH]".to_owned();
    let mut args = args.into_iter().filter(|word| !is_room(word));
    let cgroup = match args.next() {
        None => None,
        Some(flag) if flag == "--cgroup" => Some(args.next().ok_or_else(usage)?.into()),
        Some(_) => return Err(usage()),
    };
    if args.next().is_some() { Err(usage()) } else { Ok(cgroup) }
}

/// Dashes alone are room for the words of the command line later.
fn is_room(word: &OsStr) -> bool {
    word.len() > 2 && word.as_encoded_bytes().iter().all(|byte| *byte == b'-')
}

/// Moves stdin elsewhere, with /dev/null in its place, so that nothing is ever read from it.
fn take_stdin() -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(control)
}
