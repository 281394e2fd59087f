//! What a launcher or supervisor says on stderr, which is a file beside the container's socket.
//!
//! Anybody who can reach a published port can make a supervisor complain, so what it may say is bounded:
//! the run directory is usually in memory. Invariant: after [`BYTES_MAX`] bytes there is one last line.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one process may say, bytes; beyond it nothing is said.
const BYTES_MAX: usize = 64 << 10;

static SAID: AtomicUsize = AtomicUsize::new(0);

/// As `eprintln!`, within the bound.
macro_rules! complain {
    ($($words:tt)*) => { $crate::complaints::say(format_args!($($words)*)) };
}
pub(crate) use complain;

pub(crate) fn say(words: fmt::Arguments<'_>) {
    if let Some(line) = within(&SAID, &words.to_string()) {
        eprintln!("{line}");
    }
}

/// The line that is written for `words`, if any.
fn within<'a>(said: &AtomicUsize, words: &'a str) -> Option<&'a str> {
    let before = said.fetch_add(words.len() + 1, Ordering::Relaxed);
    if before + words.len() < BYTES_MAX {
        Some(words)
    } else if before < BYTES_MAX {
        // Whatever its length, this one counts as the end.
        said.fetch_max(BYTES_MAX, Ordering::Relaxed);
        Some("further complaints are left out")
    } else {
        said.store(BYTES_MAX, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_end_with_one_last_line() {
        let said = AtomicUsize::new(0);
        let words = "x".repeat(1000);
        let lines: Vec<_> = (0..100).filter_map(|_| within(&said, &words)).collect();
        let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
        assert!(bytes <= BYTES_MAX + 40 && lines.len() > 50, "{bytes} in {}", lines.len());
        assert_eq!(lines.iter().filter(|line| **line != words).count(), 1);
        assert_eq!(lines.last(), Some(&"further complaints are left out"));
    }
}
