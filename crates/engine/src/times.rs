//! Times in filters and queries, in Docker's three forms.

use jiff::{Timestamp, ToSpan};
use spec::units::parse_duration;

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
    let nanos = parse_duration(text).map_err(|_| refuse())?;
    now.checked_sub(nanos.nanoseconds()).map_err(|source| Error::caused(Kind::Invalid, source))
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
        check("-10s", Some(1_000_010));
        check("x", None);
    }
}
