//! Sizes, CPU shares and comma-parted fields as users type them.
//!
//! Source of the forms and words: docker/go-units `size.go`, docker/cli `opts`.

/// Bytes from text such as `512m`, `1.5GiB`, `10kb`; units are powers of 1024.
pub fn ram_in_bytes(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let split =
        text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(invalid)?;
    let (number, suffix) = if text.as_bytes()[split] == b' ' {
        (&text[..split], &text[split + 1..])
    } else {
        (&text[..=split], &text[split + 1..])
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("strconv.ParseFloat: parsing {number:?}: invalid syntax"))?;
    if number < 0.0 {
        return Err(invalid());
    }
    let bad_suffix = || format!("invalid suffix: '{suffix}'");
    let lower = suffix.to_ascii_lowercase();
    let power = match lower.as_str() {
        "" | "b" => 0,
        _ => {
            let (unit, tail) = lower.split_at(lower.chars().next().map_or(0, char::len_utf8));
            if !matches!(tail, "" | "b" | "ib") {
                return Err(bad_suffix());
            }
            match unit {
                "k" => 1,
                "m" => 2,
                "g" => 3,
                "t" => 4,
                "p" => 5,
                _ => return Err(bad_suffix()),
            }
        }
    };
    Ok((number * 1024f64.powi(power)) as i64)
}

/// As [`ram_in_bytes`], with `-1` for no limit.
pub fn swap_in_bytes(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { ram_in_bytes(text) }
}

/// Billionths of a CPU from `1.5`, `.5` or `1/2`.
pub fn nano_cpus(text: &str) -> Result<i64, String> {
    let failed = || format!("failed to parse {text} as a rational number");
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    let denominator: i128 = denominator.parse().map_err(|_| failed())?;
    let (mantissa, exponent) = match numerator.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| failed())?),
        None => (numerator, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.trim_start_matches(['-', '+']).is_empty() || denominator == 0 {
        return Err(failed());
    }
    let digits: i128 = digits.parse().map_err(|_| failed())?;
    let scale = 9 + exponent - i32::try_from(fraction.len()).map_err(|_| failed())?;
    let precise = "value is too precise".to_owned();
    let power = 10i128.checked_pow(scale.unsigned_abs()).ok_or(precise.clone())?;
    let (numerator, denominator) = if scale >= 0 {
        (digits.checked_mul(power).ok_or_else(failed)?, denominator)
    } else {
        (digits, denominator.checked_mul(power).ok_or_else(failed)?)
    };
    if numerator % denominator != 0 {
        return Err(precise);
    }
    i64::try_from(numerator / denominator).map_err(|_| failed())
}

/// The fields of one line of comma-separated values, quotes allowed.
pub fn csv_fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut letters = line.chars().peekable();
    let mut column = 0;
    let mut quoted = false;
    let mut field_start = true;
    while let Some(letter) = letters.next() {
        column += 1;
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                column += 1;
                field.push('"');
            }
            '"' if quoted => {
                quoted = false;
                if letters.peek().is_some_and(|&next| next != ',') {
                    return Err(format!(
                        "parse error on line 1, column {column}: extraneous or missing \" in quoted-field"
                    ));
                }
            }
            '"' if field_start => quoted = true,
            '"' => {
                return Err(format!(
                    "parse error on line 1, column {column}: bare \" in non-quoted-field"
                ));
            }
            ',' if !quoted => {
                fields.push(std::mem::take(&mut field));
                field_start = true;
                continue;
            }
            other => field.push(other),
        }
        field_start = false;
    }
    if quoted {
        return Err(format!(
            "parse error on line 1, column {}: extraneous or missing \" in quoted-field",
            column + 1
        ));
    }
    fields.push(field);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_in_powers_of_1024() {
        for (text, want) in [
            ("0", Ok(0)),
            ("512", Ok(512)),
            ("4m", Ok(4 << 20)),
            ("1.5GiB", Ok(3 << 29)),
            ("10 kb", Ok(10240)),
            ("32b", Ok(32)),
            ("", Err("invalid size: ''")),
            ("foo", Err("invalid size: 'foo'")),
            ("5z", Err("invalid suffix: 'z'")),
            ("5mx", Err("invalid suffix: 'mx'")),
        ] {
            assert_eq!(ram_in_bytes(text), want.map_err(str::to_owned), "{text}");
        }
        assert_eq!(swap_in_bytes("-1"), Ok(-1));
    }

    #[test]
    fn cpus_are_exact_to_a_billionth() {
        for (text, want) in [
            ("1.5", Ok(1_500_000_000)),
            (".25", Ok(250_000_000)),
            ("1/2", Ok(500_000_000)),
            ("0.0000000001", Err("value is too precise")),
            ("abc", Err("failed to parse abc as a rational number")),
        ] {
            assert_eq!(nano_cpus(text), want.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn quotes_keep_commas_in_a_field() {
        assert_eq!(csv_fields("a,\"device=0,1\",b").unwrap(), ["a", "device=0,1", "b"]);
        assert!(csv_fields("a\"b").unwrap_err().contains("column 2: bare \""));
    }
}
