//! Sizes, ages and shortened identifiers as Docker prints them.
//!
//! Source: docker/go-units; behaviours.md section 6.

use super::width;
use std::time::{SystemTime, UNIX_EPOCH};

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// Four significant digits in powers of 1000: `1.234GB`.
pub fn human_size(bytes: f64) -> String {
    size(bytes, 1000.0, &DECIMAL, 4)
}

/// Three significant digits in powers of 1000, as in tables: `1.23GB`.
pub fn table_size(bytes: f64) -> String {
    size(bytes, 1000.0, &DECIMAL, 3)
}

/// Four significant digits in powers of 1024: `1.234GiB`.
pub fn binary_size(bytes: f64) -> String {
    size(bytes, 1024.0, &BINARY, 4)
}

fn size(mut value: f64, base: f64, units: &[&str; 9], digits: usize) -> String {
    let mut unit = 0;
    while value >= base && unit < units.len() - 1 {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// C's `%.Ng` for values that need no exponent below 10^N.
pub fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let rounded = format!("{:.*e}", digits - 1, value);
    let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let wanted = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= wanted {
        let mantissa = if mantissa.contains('.') {
            mantissa.trim_end_matches('0').trim_end_matches('.')
        } else {
            mantissa
        };
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let decimals = usize::try_from(wanted - 1 - exponent).unwrap_or_default();
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A span of seconds in words.
pub fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    // Go's client rounds hours to the nearest whole one and all above it down.
    let hours = (seconds + 1800) / 3600;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago a Unix time was: `2 minutes ago`; `N/A` for no time.
pub fn ago(unix_seconds: i64) -> String {
    format!("{} ago", human_duration(now() - unix_seconds))
}

/// The same for a moment with its fraction: a second counts once it is whole.
pub fn ago_at(moment: jiff::Timestamp) -> String {
    format!("{} ago", human_duration(jiff::Timestamp::now().duration_since(moment).as_secs()))
}

pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
        .unwrap_or_default()
}

/// Twelve digits of an identifier, without `sha256:`.
pub fn short_id(id: &str) -> &str {
    let bare = id.split_once(':').map_or(id, |(_, digits)| digits);
    bare.get(..12).unwrap_or(bare)
}

/// At most `width` columns, the last an ellipsis when shortened.
pub fn ellipsis(text: &str, width: usize) -> String {
    if width <= 1 {
        return text.chars().take(width).collect();
    }
    let total = match text.is_ascii() {
        true => text.len(),
        false => text.chars().map(width::of_letter).sum(),
    };
    if total <= width {
        return text.to_owned();
    }
    let mut taken = 0;
    let fits = |letter: &char| {
        taken += width::of_letter(*letter);
        taken < width
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_few_digits() {
        for (bytes, human, table) in [
            (0.0, "0B", "0B"),
            (999.0, "999B", "999B"),
            (1000.0, "1kB", "1kB"),
            (1_234_567.0, "1.235MB", "1.23MB"),
            (72_900_000.0, "72.9MB", "72.9MB"),
            (123_456_789_012.0, "123.5GB", "123GB"),
            (999_950.0, "1000kB", "1e+03kB"),
        ] {
            assert_eq!((human_size(bytes).as_str(), table_size(bytes).as_str()), (human, table));
        }
        assert_eq!(binary_size(1536.0), "1.5KiB");
    }

    #[test]
    fn spans_are_told_in_words() {
        for (seconds, want) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (3600 * 5 + 1800, "6 hours"),
            (3600 * 50, "2 days"),
            (86400 * 20, "2 weeks"),
            (86400 * 70, "2 months"),
            (86400 * 365 * 3, "3 years"),
        ] {
            assert_eq!(human_duration(seconds), want);
        }
    }

    #[test]
    fn long_texts_are_shortened() {
        assert_eq!(ellipsis("/bin/sh -c 'sleep 1000'", 18), "/bin/sh -c 'sleep…");
        assert_eq!(ellipsis("echo '日本語 ü and more'", 20), "echo '日本語 ü and …");
        assert_eq!(ellipsis("日本語", 4), "日…");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
