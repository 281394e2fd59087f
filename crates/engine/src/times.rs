//! Times in filters and queries, in Docker's three forms.

use jiff::{Timestamp, ToSpan};

use crate::error::{Error, Kind, Result};
use crate::filters::Filters;

/// Reads Unix seconds with optional fraction, RFC 3339, or a Go duration before `now`.
///
/// Source: moby `api/types/time/timestamp.go`.
///
/// # Errors
/// `Invalid` for anything else.
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp> {
    let refuse =
        || Error::invalid(format!("failed to parse value as time or duration: \"{text}\""));
    if let Some((whole, fraction)) = text.split_once('.').or(Some((text, "")))
        && let Ok(seconds) = whole.parse::<i64>()
        && fraction.len() <= 9
        && fraction.bytes().all(|digit| digit.is_ascii_digit())
    {
        let nanos = format!("{fraction:0<9}").parse::<i32>().map_err(|_| refuse())?;
        return Timestamp::new(seconds, nanos)
            .map_err(|source| Error::caused(Kind::Invalid, source));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>()
        && let Ok(zoned) = local.to_zoned(jiff::tz::TimeZone::UTC)
    {
        return Ok(zoned.timestamp());
    }
    let nanos = duration(text).ok_or_else(refuse)?;
    now.checked_sub(nanos.nanoseconds()).map_err(|source| Error::caused(Kind::Invalid, source))
}

/// Go's `1h30m`, in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text.strip_prefix('-').unwrap_or(text);
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 6e10,
            "h" => 3.6e12,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[letters..];
    }
    #[expect(clippy::cast_possible_truncation, reason = "three centuries of nanoseconds fit")]
    Some(total as i64)
}

/// The one value of the `until` filter.
///
/// # Errors
/// `Invalid` when there are two, or it is no time.
pub fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    let mut values = filters.values("until");
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(text), None) => parse(text, Timestamp::now()).map(Some),
        (Some(_), Some(_)) => Err(Error::invalid("more than one until filter specified")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_forms_are_read() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let check = |text: &str, want: Option<i64>| {
            assert_eq!(parse(text, now).ok().map(Timestamp::as_second), want, "{text}");
        };
        check("5", Some(5));
        check("5.25", Some(5));
        check("1970-01-01T00:01:00Z", Some(60));
        check("1h30m", Some(1_000_000 - 5400));
        check("10s", Some(999_990));
        check("x", None);
    }
}
