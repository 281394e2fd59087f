//! Standard streams: writing whole texts, raw mode with a restore on every way out, size.

use std::{io::IsTerminal, sync::Mutex};

use rustix::{
    fd::BorrowedFd,
    stdio,
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};

use crate::failure::Failure;

/// Writes to stdout. When nobody reads any more the process is done: it ends without a word.
pub fn out(text: &str) {
    write_all(stdio::stdout(), text.as_bytes());
}

/// Writes to stderr.
pub fn error_text(text: &str) {
    write_all(stdio::stderr(), text.as_bytes());
}

/// One of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

/// Writes bytes as they are.
pub fn write(output: Output, bytes: &[u8]) {
    match output {
        Output::Stdout => write_all(stdio::stdout(), bytes),
        Output::Stderr => write_all(stdio::stderr(), bytes),
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return,
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_writable(fd),
            Err(rustix::io::Errno::PIPE) => {
                restore();
                std::process::exit(0);
            }
            Err(_) => return,
        }
    }
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
