//! Between Docker's JSON types and the engine's.

pub mod create;
mod legacy;
pub mod rows;
pub mod view;

use std::time::SystemTime;

use jiff::Timestamp;

use crate::http::Failure;

/// RFC 3339 in UTC with as many digits as there are, as Go prints times; the zero time for never.
pub fn time(at: Option<SystemTime>) -> String {
    match at.map(Timestamp::try_from) {
        Some(Ok(at)) => at.to_string(),
        Some(Err(_)) | None => api::ZERO_TIME.to_owned(),
    }
}

/// RFC 3339 with just nine digits, as log lines are stamped.
pub fn log_time(at: SystemTime) -> String {
    match Timestamp::try_from(at) {
        Ok(at) => format!("{at:.9}"),
        Err(_) => api::ZERO_TIME.to_owned(),
    }
}

pub fn unix_nanoseconds(at: SystemTime) -> i64 {
    let nanoseconds = Timestamp::try_from(at).map_or(0, Timestamp::as_nanosecond);
    i64::try_from(nanoseconds).unwrap_or(i64::MAX)
}

/// `since` and `until`: RFC 3339, Unix seconds, or seconds with a fraction. Empty is none.
///
/// Source: moby 28.2 `api/types/time/timestamp.go`.
pub fn moment(name: &str, text: &str) -> Result<Option<SystemTime>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || {
        Failure::invalid(format!(
            "invalid value for \"{name}\": failed to parse value as time or duration: {text:?}"
        ))
    };
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Some(at.into()));
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(fraction) {
        return Err(bad());
    }
    let seconds: i64 = seconds.parse().map_err(|_| bad())?;
    let nanoseconds: i32 = format!("{fraction:0<9.9}").parse().map_err(|_| bad())?;
    let at = Timestamp::new(seconds, nanoseconds).map_err(|_| bad())?;
    Ok(Some(at.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, want: Expect) {
        want.assert_eq(&match moment("since", text) {
            Ok(at) => time(at),
            Err(failure) => failure.message,
        });
    }

    #[test]
    fn a_moment_has_three_forms() {
        check("2024-01-02T03:04:05Z", expect!["2024-01-02T03:04:05Z"]);
        check("1704164645", expect!["2024-01-02T03:04:05Z"]);
        check("1704164645.5", expect!["2024-01-02T03:04:05.5Z"]);
        check("1704164645.000000001", expect!["2024-01-02T03:04:05.000000001Z"]);
        check("", expect!["0001-01-01T00:00:00Z"]);
        check(
            "soon",
            expect![[
                r#"invalid value for "since": failed to parse value as time or duration: "soon""#
            ]],
        );
    }

    #[test]
    fn log_lines_have_nine_digits() {
        assert_eq!(log_time(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000000000Z");
    }
}
