//! What can go wrong when a process is started in a container, in the words that clients know.
//!
//! Docker's command line decides between the exit codes 125, 126 and 127 by searching the error's
//! text, and the daemon does so once more, so wording is a contract here: see [`words`].

use std::fmt;
use std::io;

/// Which of Docker's exit codes a failed start stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The program is not there: 127.
    NotFound,
    /// The program is there but cannot be executed: 126.
    NotExecutable,
    /// The user or group asked for is unknown to the image.
    UnknownUser,
    /// Everything else: 128.
    Other,
}

impl Kind {
    /// The code that Docker records for the container.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable => 126,
            // moby daemon/start.go: the OCI document cannot be made, before any runtime is asked.
            Self::UnknownUser | Self::Other => 128,
        }
    }

    /// The code that Docker records for an exec.
    #[must_use]
    pub fn exec_exit_code(self) -> i32 {
        match self {
            // moby daemon/exec.go: found before the runtime is asked.
            Self::UnknownUser => 126,
            Self::NotFound | Self::NotExecutable | Self::Other => self.exit_code(),
        }
    }

    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::NotFound => b'n',
            Self::NotExecutable => b'x',
            Self::UnknownUser => b'u',
            Self::Other => b'o',
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            b'n' => Self::NotFound,
            b'x' => Self::NotExecutable,
            b'u' => Self::UnknownUser,
            _ => Self::Other,
        }
    }

    /// The kind of a failed system call, by the text that it will be shown with.
    /// Source: moby `daemon/errors.go`, `translateContainerdStartErr`.
    fn of(source: &io::Error) -> Self {
        match rustix::io::Errno::from_io_error(source) {
            Some(rustix::io::Errno::ACCESS | rustix::io::Errno::ISDIR) => Self::NotExecutable,
            Some(rustix::io::Errno::NOTDIR) => Self::NotFound,
            _ => Self::Other,
        }
    }
}

/// A process that could not be started in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchError {
    pub kind: Kind,
    /// What failed, in runc's words where clients know them; no prefix of any layer above.
    pub message: String,
}

impl LaunchError {
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A failed step: `step: reason`.
    #[must_use]
    pub fn step(step: impl fmt::Display, source: &io::Error) -> Self {
        Self::new(Kind::of(source), format!("{step}: {}", words(source)))
    }

    /// The text with which Docker's daemon reports a container that could not be created.
    /// Source: observed from moby 28 with containerd 1.7 and runc 1.2.
    #[must_use]
    pub fn docker_text(&self) -> String {
        if self.kind == Kind::UnknownUser {
            return self.message.clone();
        }
        format!(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: {self}: unknown"
        )
    }

    /// The text with which Docker's daemon reports a command that could not be executed.
    #[must_use]
    pub fn docker_exec_text(&self) -> String {
        if self.kind == Kind::UnknownUser {
            return self.message.clone();
        }
        format!(
            "OCI runtime exec failed: exec failed: unable to start container process: {}: unknown",
            self.message
        )
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == Kind::UnknownUser {
            return f.write_str(&self.message);
        }
        write!(
            f,
            "runc create failed: unable to start container process: error during container init: {}",
            self.message
        )
    }
}

impl std::error::Error for LaunchError {}

/// An error in the words of strerror(3) as Go spells them: lower case, no number.
#[must_use]
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// For `map_err`: names the step that failed.
pub(crate) fn at<'a>(step: impl fmt::Display + 'a) -> impl FnOnce(io::Error) -> LaunchError + 'a {
    move |source| LaunchError::step(step, &source)
}

/// For `map_err` on rustix calls.
pub(crate) fn at_raw<'a>(
    step: impl fmt::Display + 'a,
) -> impl FnOnce(rustix::io::Errno) -> LaunchError + 'a {
    move |source| LaunchError::step(step, &source.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_and_without_number() {
        assert_eq!(words(&io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(words(&io::Error::from_raw_os_error(13)), "permission denied");
    }

    #[test]
    fn dockers_text_carries_the_words_that_its_command_line_looks_for() {
        let error =
            LaunchError::new(Kind::NotFound, "exec: \"foo\": executable file not found in $PATH");
        assert_eq!(
            error.docker_text(),
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create \
             failed: unable to start container process: error during container init: exec: \"foo\": executable file \
             not found in $PATH: unknown"
        );
    }
}
