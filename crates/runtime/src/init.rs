//! `docker-init`: the smallest first process, for `--init`.
//!
//! Starts the program in its own process group (with the terminal, if there is one), hands every
//! signal on to it, reaps every orphan, and ends with the program's own code. It runs inside the
//! container from a read-only mount of our binary and opens nothing.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions};

/// Where Docker puts its init.
pub const PATH: &str = "/sbin/docker-init";

/// Runs `program args…`; a leading `--` is skipped, as callers pass one to Docker's init.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter().skip_while(|arg| arg == "--");
    let Some(program) = args.next() else {
        eprintln!("usage: docker-init [--] PROGRAM [ARG...]");
        return ExitCode::from(1);
    };
    // Before the program exists, so that no signal and no end of a child can be missed.
    sys::process::block_signals();
    let mut command = Command::new(&program);
    command.args(args).process_group(0);
    let child = match sys::process::spawn_program(&mut command) {
        Ok(child) => child,
        Err(error) => {
            eprintln!("exec {}: {}", program.display(), crate::error::words(&error));
            return ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound {
                127
            } else {
                126
            });
        }
    };
    give_terminal(child);
    loop {
        let Ok(signal) = sys::process::wait_signal() else { continue };
        if signal == Signal::CHILD.as_raw() {
            if let Some(code) = reap(child) {
                return ExitCode::from(code);
            }
        } else if let Some(signal) = Signal::from_named_raw(signal) {
            // The program alone, as Docker's init does without -g.
            let _ = rustix::process::kill_process(child, signal);
        }
    }
}

/// Makes the program's group the terminal's foreground group, so that Ctrl-C reaches it.
fn give_terminal(child: Pid) {
    // Fails where stdin is no terminal, and then there is nothing to give.
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), child);
}

/// Reaps all that have ended; the code of the program once it has.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid != child {
            continue;
        }
        code = match (status.exit_status(), status.terminating_signal()) {
            (Some(exit), _) => u8::try_from(exit).ok(),
            (None, Some(signal)) => u8::try_from(128 + signal).ok(),
            (None, None) => None,
        };
    }
    code
}
