//! Sizes and spans of time as people write and read them.
//!
//! Both are read and printed as Docker's own libraries do it, so that every edge (flags of the
//! CLI, `daemon.json`, Dockerfiles, `hosts.toml`, the OCI verbs) agrees on what `1.5g` and
//! `1m30s` are. Sizes come in two scales: memory and caches are counted in 1024s
//! ([`ram_in_bytes`]), log files in 1000s ([`from_human_size`]); a unit may be written `m`, `mb`
//! or `mib` in both and means the scale's.
//!
//! Elsewhere: moments (`jiff`), and CPU shares, in `cli::create::sizes`.

use std::time::Duration;

/// Why a text is no size. The words are go-units', on which clients match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    #[error("invalid size: '{0}'")]
    Size(String),
    #[error("strconv.ParseFloat: parsing {0:?}: invalid syntax")]
    Number(String),
    #[error("invalid suffix: '{0}'")]
    Suffix(String),
}

/// Why a text is no span of time. The words are Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("time: invalid duration {}", quoted(.0))]
    Invalid(String),
    #[error("time: missing unit in duration {}", quoted(.0))]
    NoUnit(String),
    #[error("time: unknown unit {} in duration {}", quoted(.unit), quoted(.text))]
    Unit { unit: String, text: String },
}

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// Bytes from `512m`, `1.5GiB`, `10 kb`, `32b`; units are powers of 1024. At most `i64::MAX`.
///
/// Source: docker/go-units `RAMInBytes`.
///
/// # Errors
/// When the number or the unit is none, or the number is negative.
pub fn ram_in_bytes(text: &str) -> Result<u64, SizeError> {
    read_size(text, 1024.0)
}

/// As [`ram_in_bytes`], but units are powers of 1000.
///
/// Source: docker/go-units `FromHumanSize`.
///
/// # Errors
/// As [`ram_in_bytes`].
pub fn from_human_size(text: &str) -> Result<u64, SizeError> {
    read_size(text, 1000.0)
}

fn read_size(text: &str, base: f64) -> Result<u64, SizeError> {
    let invalid = || SizeError::Size(text.to_owned());
    let last = text
        .rfind(|letter: char| letter.is_ascii_digit() || matches!(letter, '.' | ' '))
        .ok_or_else(invalid)?;
    let (number, suffix) = (&text[..=last], &text[last + 1..]);
    // One space may stand between the number and its unit.
    let number = number.strip_suffix(' ').unwrap_or(number);
    let value: f64 = number.parse().map_err(|_| SizeError::Number(number.to_owned()))?;
    if !value.is_finite() || value < 0.0 {
        return Err(invalid());
    }
    let power = power(suffix)?;
    #[expect(clippy::cast_possible_truncation, reason = "fractions go; more than i64 saturates")]
    let bytes = (value * base.powi(power)) as i64;
    Ok(bytes.unsigned_abs())
}

/// Which power of the scale a unit is.
fn power(suffix: &str) -> Result<i32, SizeError> {
    let lower = suffix.to_ascii_lowercase();
    Ok(match lower.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(SizeError::Suffix(suffix.to_owned())),
    })
}

/// Four significant digits in powers of 1000: `1.234GB`. Source: docker/go-units `HumanSize`.
#[must_use]
pub fn human_size(bytes: f64) -> String {
    show_size(bytes, 1000.0, &DECIMAL, 4)
}

/// Three significant digits in powers of 1000, as in tables: `1.23GB`.
///
/// Source: docker/go-units `HumanSizeWithPrecision`.
#[must_use]
pub fn table_size(bytes: f64) -> String {
    show_size(bytes, 1000.0, &DECIMAL, 3)
}

/// Four significant digits in powers of 1024: `1.234GiB`. Source: docker/go-units `BytesSize`.
#[must_use]
pub fn binary_size(bytes: f64) -> String {
    show_size(bytes, 1024.0, &BINARY, 4)
}

/// Two decimals in powers of 1000, as BuildKit shows what it copies: `2B`, `1.21kB`.
#[must_use]
pub fn fixed_size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    // BuildKit knows no more than petabytes.
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let (value, unit) = scaled(bytes as f64, 1000.0, &DECIMAL[..6]);
    format!("{value:.2}{unit}")
}

fn show_size(bytes: f64, base: f64, units: &[&'static str], digits: usize) -> String {
    let (value, unit) = scaled(bytes, base, units);
    format!("{}{unit}", significant(value, digits))
}

fn scaled(mut value: f64, base: f64, units: &[&'static str]) -> (f64, &'static str) {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    (value, units[unit])
}

/// C's `%.Ng` for values that need no exponent below 10^N.
#[must_use]
pub fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let rounded = format!("{:.*e}", digits - 1, value);
    let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let wanted = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= wanted {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", without_zeros(mantissa), exponent.abs());
    }
    let decimals = usize::try_from(wanted - 1 - exponent).unwrap_or_default();
    without_zeros(&format!("{value:.decimals$}")).to_owned()
}

/// A decimal number without the zeros that end its fraction.
fn without_zeros(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

/// Nanoseconds from `1h30m`, `1.5s`, `-250ms`, `0`.
///
/// Source: Go `time.ParseDuration`.
///
/// # Errors
/// When it is no duration, or one of more than 292 years.
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let number: i64 = match whole {
            "" => 0,
            whole => whole.parse().map_err(|_| invalid())?,
        };
        let end = after.find(|letter: char| letter.is_ascii_digit() || letter == '.');
        let (unit, after) = after.split_at(end.unwrap_or(after.len()));
        let scale: i64 = match unit {
            "" => return Err(DurationError::NoUnit(text.to_owned())),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            unit => {
                return Err(DurationError::Unit { unit: unit.to_owned(), text: text.to_owned() });
            }
        };
        total += i128::from(number) * i128::from(scale) + part(fraction, scale);
        if total > i128::from(i64::MAX) + 1 {
            return Err(invalid());
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// A span to wait, which cannot be negative; `None` when the text is no such duration.
#[must_use]
pub fn parse_timeout(text: &str) -> Option<Duration> {
    let nanos = parse_duration(text).ok()?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// The digits at the beginning of a text, and what follows them.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()))
}

/// The decimals of a unit of `scale` nanoseconds; digits after the eighteenth weigh nothing.
fn part(fraction: &str, scale: i64) -> i128 {
    let (mut numerator, mut denominator) = (0i128, 1i128);
    for digit in fraction.bytes().take(18) {
        numerator = numerator * 10 + i128::from(digit - b'0');
        denominator *= 10;
    }
    numerator * i128::from(scale) / denominator
}

/// Nanoseconds as `1m30s`, `1.5s`, `50ms`. Source: Go `time.Duration.String`.
#[must_use]
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let all = nanos.unsigned_abs();
    let fraction = |whole: u64, rest: u64, digits: usize| {
        let rest = format!("{rest:0digits$}");
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() { whole.to_string() } else { format!("{whole}.{rest}") }
    };
    match all {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{all}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(all / 1_000, all % 1_000, 3)),
        1_000_000..1_000_000_000 => {
            format!("{sign}{}ms", fraction(all / 1_000_000, all % 1_000_000, 6))
        }
        1_000_000_000.. => {
            let seconds = all / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = fraction(seconds % 60, all % 1_000_000_000, 9);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{rest}s"),
                (0, minutes) => format!("{sign}{minutes}m{rest}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{rest}s"),
            }
        }
    }
}

/// A span of seconds in words: `About a minute`, `3 weeks`.
///
/// Source: docker/go-units `HumanDuration`.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    // go-units rounds hours to the nearest whole one, but for years it rounds them down.
    let hours = seconds.saturating_add(1800) / 3600;
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

/// As Go's package `time` quotes what it could not read: all but ASCII in hexadecimal.
fn quoted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 2);
    shown.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => shown.extend(['\\', char::from(byte)]),
            b' '..0x80 => shown.push(char::from(byte)),
            _ => shown.push_str(&format!("\\x{byte:02x}")),
        }
    }
    shown.push('"');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_counts_in_powers_of_1024() {
        for (text, want) in [
            ("0", Ok(0)),
            ("512", Ok(512)),
            ("4m", Ok(4 << 20)),
            ("1.5g", Ok(3 << 29)),
            ("1.5GiB", Ok(3 << 29)),
            ("10MB", Ok(10 << 20)),
            ("10mib", Ok(10 << 20)),
            ("10 kb", Ok(10240)),
            ("10 ", Ok(10)),
            ("32b", Ok(32)),
            ("32B", Ok(32)),
            ("2p", Ok(2 << 50)),
            ("9000000p", Ok(i64::MAX.unsigned_abs())),
            ("", Err("invalid size: ''")),
            ("foo", Err("invalid size: 'foo'")),
            ("-1", Err("invalid size: '-1'")),
            ("inf ", Err("invalid size: 'inf '")),
            (" 1", Err("strconv.ParseFloat: parsing \" 1\": invalid syntax")),
            ("1  k", Err("strconv.ParseFloat: parsing \"1 \": invalid syntax")),
            ("5z", Err("invalid suffix: 'z'")),
            ("5mx", Err("invalid suffix: 'mx'")),
            ("5bb", Err("invalid suffix: 'bb'")),
            ("5ib", Err("invalid suffix: 'ib'")),
        ] {
            let got = ram_in_bytes(text).map_err(|error| error.to_string());
            assert_eq!(got, want.map_err(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn files_count_in_powers_of_1000() {
        for (text, want) in [
            ("1.5g", 1_500_000_000),
            ("10MB", 10_000_000),
            ("10mib", 10_000_000),
            ("1.21kB", 1210),
            ("4096", 4096),
        ] {
            assert_eq!(from_human_size(text), Ok(want), "{text}");
        }
    }

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
    fn sizes_of_steps_are_buildkits() {
        for (bytes, want) in [(2, "2B"), (999, "999B"), (1210, "1.21kB"), (32_350_000, "32.35MB")] {
            assert_eq!(fixed_size(bytes), want);
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, want) in [
            ("0", Ok(0)),
            ("5s", Ok(5_000_000_000)),
            ("+5s", Ok(5_000_000_000)),
            ("1h30m", Ok(5_400_000_000_000)),
            ("1.5h", Ok(5_400_000_000_000)),
            ("1.5s", Ok(1_500_000_000)),
            (".5s", Ok(500_000_000)),
            ("5.s", Ok(5_000_000_000)),
            ("1m30s", Ok(90_000_000_000)),
            ("300ms", Ok(300_000_000)),
            ("7us", Ok(7_000)),
            ("7µs", Ok(7_000)),
            ("-2ms", Ok(-2_000_000)),
            ("-9223372036854775807ns", Ok(-i64::MAX)),
            ("5", Err("time: missing unit in duration \"5\"")),
            ("1.2.3s", Err("time: missing unit in duration \"1.2.3s\"")),
            ("", Err("time: invalid duration \"\"")),
            ("-", Err("time: invalid duration \"-\"")),
            ("s", Err("time: invalid duration \"s\"")),
            (".s", Err("time: invalid duration \".s\"")),
            ("é", Err("time: invalid duration \"\\xc3\\xa9\"")),
            ("3000000h", Err("time: invalid duration \"3000000h\"")),
            // Too large even before its unit is missed.
            ("9223372036854775808", Err("time: invalid duration \"9223372036854775808\"")),
            ("5x", Err("time: unknown unit \"x\" in duration \"5x\"")),
        ] {
            let got = parse_duration(text).map_err(|error| error.to_string());
            assert_eq!(got, want.map_err(str::to_owned), "{text:?}");
        }
        assert_eq!(parse_timeout("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_timeout("-1s"), None);
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (nanos, want) in [
            (0, "0s"),
            (7, "7ns"),
            (-7, "-7ns"),
            (1_500, "1.5µs"),
            (1_500_000, "1.5ms"),
            (50_000_000, "50ms"),
            (1_500_000_000, "1.5s"),
            (30_000_000_000, "30s"),
            (60_050_000_000, "1m0.05s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(format_duration(nanos), want);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_is_read_again(nanos: i64) {
            proptest::prop_assert_eq!(parse_duration(&format_duration(nanos)).ok(), Some(nanos));
        }
    }

    #[test]
    fn spans_are_put_in_words() {
        for (seconds, want) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (150, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (3600 * 5 + 1800, "6 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (61 * 86400, "2 months"),
            (800 * 86400, "2 years"),
            (365 * 3 * 86400 - 1, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), want, "{seconds}");
        }
    }
}
