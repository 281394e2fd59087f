//! The one error at the engine's door: a kind, words for the user, a cause for the log.
//!
//! The daemon maps [`Kind`] to an HTTP status in one exhaustive match and puts `message` in the
//! body; the cause never reaches a client. Docker's fixed wordings are in [`crate::words`].

use std::error::Error as StdError;
use std::fmt;

use spec::errno::in_go_words;

/// What sort of refusal this is; decides the HTTP status and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    Invalid,
    Conflict,
    Unauthorized,
    Forbidden,
    /// Already so: a success to clients (304).
    NotModified,
    NotImplemented,
    Unavailable,
    /// A registry's or another server's failure, or what it sent; nothing is wrong here.
    Upstream,
    Internal,
}

/// An operation's failure as its caller sees it.
#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The engine's results.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: shown(&message.into()), source: None }
    }

    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, message)
    }

    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Wraps a lower layer's failure; the user sees the whole chain, since below the door nothing
    /// else would tell them what went wrong.
    #[must_use]
    pub fn caused(kind: Kind, source: impl StdError + Send + Sync + 'static) -> Self {
        Self { kind, message: shown(&chain(&source)), source: Some(Box::new(source)) }
    }

    /// The same, with the engine's own words in front of the chain.
    #[must_use]
    pub fn because(
        kind: Kind,
        message: impl fmt::Display,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        let message = shown(&format!("{message}: {}", chain(&source)));
        Self { kind, message, source: Some(Box::new(source)) }
    }

    /// The same with words in front.
    #[must_use]
    pub fn within(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl From<runs::Error> for Error {
    fn from(error: runs::Error) -> Self {
        let kind = match &error {
            runs::Error::Silent | runs::Error::NotAccepted | runs::Error::Launcher { .. } => {
                Kind::Unavailable
            }
            runs::Error::NotRunning | runs::Error::Old => Kind::Conflict,
            runs::Error::Descriptors(..) => Kind::Invalid,
            runs::Error::Ended
            | runs::Error::Refused(_)
            | runs::Error::Unexpected(_)
            | runs::Error::Connection { .. }
            | runs::Error::Watch { .. }
            | runs::Error::Streams { .. }
            | runs::Error::Filter { .. }
            | runs::Error::Process { .. }
            | runs::Error::Abandoned => Kind::Internal,
        };
        Error::caused(kind, error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Text for a terminal: the kernel's errors in Go's words, and what others said (registries, images,
/// archives) without the characters by which a terminal is steered.
fn shown(text: &str) -> String {
    let text = in_go_words(text);
    let is_bad = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    if !text.contains(is_bad) {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match is_bad(letter) {
            true => out.extend(letter.escape_default()),
            false => out.push(letter),
        }
    }
    out
}

/// An error and its causes in one line, outermost first, the kernel's in Go's words.
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    in_go_words(&spec::chain(error)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_said_does_not_steer_a_terminal() {
        let error = Error::invalid("no \u{1b}[2Jtag \u{9b}1m\r\nnext\tline");
        assert_eq!(error.message, "no \\u{1b}[2Jtag \\u{9b}1m\\r\nnext\tline");
    }

    #[test]
    fn the_systems_errors_are_worded_as_go_does() {
        let source = std::io::Error::from_raw_os_error(28);
        let error = Error::because(Kind::Internal, "cannot write \"x\"", source);
        assert_eq!(error.message, "cannot write \"x\": no space left on device");
    }
}
