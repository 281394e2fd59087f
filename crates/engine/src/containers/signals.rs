//! Signals that users name, in Docker's words. Elsewhere: their table, in [`spec::signal`].

use crate::error::{Error, Result};

pub const TERM: i32 = 15;

/// Reads `9`, `KILL`, `SIGKILL`, `RTMIN+3`, in any case.
///
/// # Errors
/// `Invalid` for what is no signal.
pub fn parse(text: &str) -> Result<i32> {
    spec::signal::parse(text).ok_or_else(|| Error::invalid(format!("Invalid signal: {text}")))
}
