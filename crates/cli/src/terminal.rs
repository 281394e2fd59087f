//! Standard streams: writing whole texts, raw mode with a restore on every way out, size.
//!
//! Everything that any command prints goes through [`write`]. What stdout did not take is kept
//! ([`check`]), so that [`crate::main`] can end with it whatever the command itself looked at.
//! A reader that has gone away (`| head -1`) is no failure: the process ends without a word.

use std::{io::IsTerminal, sync::Mutex};

use rustix::{
    fd::BorrowedFd,
    stdio,
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};

use crate::{create::files::reason, failure::Failure};

/// Writes to stdout. A failure is told when the command ends; who goes on for long asks [`check`].
pub fn out(text: &str) {
    // Kept for the command's end.
    let _ = write(Output::Stdout, text.as_bytes());
}

/// Writes to stderr. When that fails there is no place left to say so.
pub fn error_text(text: &str) {
    error_bytes(text.as_bytes());
}

/// Why stdout did not take something; the first reason counts.
static UNWRITTEN: Mutex<Option<rustix::io::Errno>> = Mutex::new(None);

/// Whether stdout took everything so far.
///
/// # Errors
/// The first failed write, in the words of Go's `os.File`, which Docker's client shows.
pub fn check() -> Result<(), Failure> {
    match *UNWRITTEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        None => Ok(()),
        Some(errno) => {
            let why = std::io::Error::from(errno);
            Err(Failure::new(format!("write /dev/stdout: {}", reason(&why))))
        }
    }
}

/// One of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

/// Writes bytes as they are.
///
/// # Errors
/// As [`check`]. After a failure nothing more is tried: a cut output must not go on behind a gap.
pub fn write(output: Output, bytes: &[u8]) -> Result<(), Failure> {
    match output {
        Output::Stderr => error_bytes(bytes),
        Output::Stdout => {
            check()?;
            if let Err(errno) = write_all(stdio::stdout(), bytes) {
                let mut unwritten =
                    UNWRITTEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                unwritten.get_or_insert(errno);
            }
        }
    }
    check()
}

fn error_bytes(bytes: &[u8]) {
    // There is no place left to say so.
    let _ = write_all(stdio::stderr(), bytes);
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), rustix::io::Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(rustix::io::Errno::IO),
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_writable(fd),
            Err(rustix::io::Errno::PIPE) => {
                restore();
                std::process::exit(0);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Somebody sharing our terminal may have made it non-blocking.
fn wait_writable(fd: BorrowedFd<'_>) {
    use rustix::event::{PollFd, PollFlags, poll};
    // An error shows again at the next write.
    let _ = poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
}

pub fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

pub fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether an output is a terminal that does more with text than write it down: moves its cursor,
/// clears lines. `TERM=dumb` says that it does not.
pub fn moves_cursor(output: Output) -> bool {
    let is_terminal = match output {
        Output::Stdout => stdout_is_terminal(),
        Output::Stderr => stderr_is_terminal(),
    };
    is_terminal && !is_dumb()
}

/// Whether an output is a terminal whose user wants colours. An empty `NO_COLOR` asks for nothing.
///
/// Source: no-color.org.
pub fn takes_colours(output: Output) -> bool {
    moves_cursor(output) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|name| name == "dumb")
}

/// Rows and columns of the terminal on stdout.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdio::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: usize,
    pub columns: usize,
}

/// The size of the terminal on an output; wide and high where it does not tell, as on a serial line.
pub fn size_of(output: Output) -> Size {
    let size = match output {
        Output::Stdout => tcgetwinsize(stdio::stdout()),
        Output::Stderr => tcgetwinsize(stdio::stderr()),
    };
    match size {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            Size { rows: usize::from(size.ws_row), columns: usize::from(size.ws_col) }
        }
        Ok(_) | Err(_) => Size { rows: usize::MAX, columns: 200 },
    }
}

/// Columns of the terminal on stderr or stdout, else 80.
pub fn columns() -> usize {
    [tcgetwinsize(stdio::stderr()), tcgetwinsize(stdio::stdout())]
        .into_iter()
        .flatten()
        .map(|size| usize::from(size.ws_col))
        .find(|&columns| columns > 0)
        .unwrap_or(80)
}

/// The terminal's settings from before raw mode, while it is on.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Keys go through as they are while this lives; dropping it, also in a panic, restores.
pub struct RawMode(());

impl RawMode {
    /// Turns raw mode on when stdin is a terminal.
    pub fn enter() -> Option<RawMode> {
        let before = tcgetattr(stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        *BEFORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(before);
        Some(RawMode(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back as it was; does nothing when it was not changed.
pub fn restore() {
    let before = BEFORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    if let Some(before) = before {
        // The terminal may be gone; then there is nothing to restore.
        let _ = tcsetattr(stdio::stdin(), OptionalActions::Now, &before);
    }
}

/// Asks on stderr and reads a yes from stdin.
pub fn confirm(question: &str) -> bool {
    out(&format!("{question} [y/N] "));
    let mut answer = String::new();
    if std::io::stdin().read_line(&mut answer).is_err() {
        return false;
    }
    matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES")
}

/// Asks on stdout and reads one line from stdin, trimmed. Ctrl-C ends the program, with the terminal
/// as it was.
///
/// # Errors
/// When stdin cannot be read.
pub async fn ask(question: &str) -> Result<String, Failure> {
    out(question);
    let reading = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    tokio::select! {
        line = reading => {
            let line = line.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            let line = line.map_err(|error| Failure::new(format!("read STDIN: {error}")))?;
            Ok(line.trim().to_owned())
        }
        _ = tokio::signal::ctrl_c() => {
            restore();
            out("\n");
            std::process::exit(130);
        }
    }
}

/// The same without showing what is typed.
///
/// # Errors
/// As [`ask`].
pub async fn ask_secret(question: &str) -> Result<String, Failure> {
    let hidden = NoEcho::enter();
    let answer = ask(question).await;
    drop(hidden);
    out("\n");
    answer
}

/// Keys are not shown while this lives.
pub struct NoEcho(());

impl NoEcho {
    /// Hides what is typed when stdin is a terminal.
    pub fn enter() -> Option<NoEcho> {
        let before = tcgetattr(stdio::stdin()).ok()?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(rustix::termios::LocalModes::ECHO);
        tcsetattr(stdio::stdin(), OptionalActions::Now, &hidden).ok()?;
        *BEFORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(before);
        Some(NoEcho(()))
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        restore();
    }
}
