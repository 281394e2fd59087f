//! Numbers, truth and durations as Go's `strconv` and `time` read them, with their error words:
//! users meet these words whenever a flag's value is wrong.

/// Source: Go `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(syntax("ParseBool", text)),
    }
}

/// A whole number with Go's prefixes (`0x`, `0o`, `0b`, leading `0`).
///
/// Source: Go `strconv.ParseInt` with base 0.
pub fn parse_int(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = magnitude("ParseInt", text, digits)?;
    let signed = i128::from(magnitude) * if negative { -1 } else { 1 };
    i64::try_from(signed).map_err(|_| range("ParseInt", text))
}

/// Source: Go `strconv.ParseUint` with base 0; `max` is the width's largest value.
pub fn parse_uint(text: &str, max: u64) -> Result<u64, String> {
    let value = magnitude("ParseUint", text, text)?;
    if value > max { Err(range("ParseUint", text)) } else { Ok(value) }
}

/// Source: Go `strconv.ParseUint` with base 10.
pub fn parse_decimal_uint(text: &str, max: u64) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(syntax("ParseUint", text));
    }
    match text.parse::<u64>() {
        Ok(value) if value <= max => Ok(value),
        Ok(_) | Err(_) => Err(range("ParseUint", text)),
    }
}

fn magnitude(function: &str, text: &str, digits: &str) -> Result<u64, String> {
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = if let Some(hex) = lower.strip_prefix("0x") {
        (16, hex)
    } else if let Some(octal) = lower.strip_prefix("0o") {
        (8, octal)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        (2, binary)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    let body = body.replace('_', "");
    if body.is_empty() || !body.chars().all(|digit| digit.is_digit(radix)) {
        return Err(syntax(function, text));
    }
    u64::from_str_radix(&body, radix).map_err(|_| range(function, text))
}

fn syntax(function: &str, text: &str) -> String {
    format!("strconv.{function}: parsing {}: invalid syntax", quote(text))
}

fn range(function: &str, text: &str) -> String {
    format!("strconv.{function}: parsing {}: value out of range", quote(text))
}

/// A text in Go's `%q` form.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other if other.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(other))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_take_gos_prefixes() {
        for (text, want) in [("10", 10), ("0x10", 16), ("010", 8), ("-3", -3), ("1_000", 1000)] {
            assert_eq!(parse_int(text), Ok(want), "{text}");
        }
        assert_eq!(
            parse_int("x"),
            Err("strconv.ParseInt: parsing \"x\": invalid syntax".to_owned())
        );
    }
}
