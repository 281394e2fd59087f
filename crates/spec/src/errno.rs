//! The kernel's errors as Docker's users know them: in Go's words.
//!
//! Rust prints `No space left on device (os error 28)`, Go prints `no space left on device`, and
//! scripts and clients search for the latter. [`in_go_words`] is applied to finished texts at the
//! two doors to the user, the engine's error and the command line's failure, since such texts get
//! into messages at many places.

use std::borrow::Cow;
use std::io;

const MARK: &str = " (os error ";

/// `text` with each `Message (os error N)` as Go prints it: lower case, no number.
///
/// Source: Go's `syscall/zerrors_linux_amd64.go`, made from strerror(3) by `mkerrors.sh`.
#[must_use]
pub fn in_go_words(text: &str) -> Cow<'_, str> {
    if !text.contains(MARK) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let after = &rest[at + MARK.len()..];
        let number = after.split_once(')').and_then(|(digits, _)| digits.parse::<i32>().ok());
        let Some(number) = number else {
            out.push_str(&rest[..at + MARK.len()]);
            rest = after;
            continue;
        };
        let printed = io::Error::from_raw_os_error(number).to_string();
        let message = printed.split(MARK).next().unwrap_or_default();
        match rest[..at].strip_suffix(message) {
            Some(before) => {
                out.push_str(before);
                out.push_str(&lower(message));
            }
            None => out.push_str(&rest[..at]),
        }
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The first letter in lower case, unless it begins an abbreviation.
fn lower(message: &str) -> String {
    let mut letters = message.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            format!("{}{}", first.to_lowercase(), &message[first.len_utf8()..])
        }
        (Some(_) | None, _) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_kernel_are_in_gos_words() {
        for (text, want) in [
            (
                "write /a: No space left on device (os error 28)",
                "write /a: no space left on device",
            ),
            (
                "Permission denied (os error 13): No such file or directory (os error 2), or so",
                "permission denied: no such file or directory, or so",
            ),
            ("RFS specific error (os error 78)", "RFS specific error"),
            ("mine (os error 2)", "mine"),
            ("nothing (os error x)", "nothing (os error x)"),
            ("No such container: a", "No such container: a"),
        ] {
            assert_eq!(in_go_words(text), want);
        }
    }
}
