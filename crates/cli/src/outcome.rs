//! Exit statuses of `run`, `create`, `start` and `exec`.
//!
//! Source: docker/cli `container/run.go`; behaviours.md section 1.

use crate::failure::{Failure, daemon_words};

/// The status for a daemon's error text: 127 when the command is missing, 126 when it cannot be
/// run, else 125.
pub fn status_of_error(text: &str) -> u8 {
    let has = |words: &str| text.contains(words);
    if has("executable file not found")
        || has("no such file or directory")
        || has("system cannot find the file specified")
    {
        127
    } else if has("permission denied") || has("is a directory") || has("not a directory") {
        126
    } else {
        125
    }
}

/// A failure to make or start a container, with the status that Docker gives it.
pub fn start_failure(program: &str, path: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Said { text, .. } => said(program, path, &text),
        Failure::Daemon(error) => said(program, path, &daemon_words(&error)),
    }
}

fn said(program: &str, path: &str, text: &str) -> Failure {
    // A socket that is closed to us says "permission denied" too, and is no container's fault.
    let status =
        if text.starts_with("Error response from daemon") { status_of_error(text) } else { 125 };
    Failure::Said {
        text: match status {
            125 => text.to_owned(),
            _ => format!("{program}: {text}\n\nRun '{path} --help' for more information"),
        },
        status,
    }
}

/// A container's own status as this process's.
pub fn exit_status(code: i64) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_words_decide() {
        for (text, want) in [
            ("exec: \"nope\": executable file not found in $PATH: unknown", 127),
            ("exec: \"/nope\": stat /nope: no such file or directory", 127),
            ("exec: \"/etc\": permission denied: unknown", 126),
            ("exec: \"/etc\": is a directory", 126),
            ("Conflict. The container name \"/a\" is already in use", 125),
        ] {
            assert_eq!(status_of_error(text), want, "{text}");
        }
        assert_eq!(exit_status(-1), 255);
    }
}
