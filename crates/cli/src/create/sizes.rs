//! Sizes, CPU shares and comma-parted fields as users type them.
//!
//! Source of the forms and words: docker/go-units `size.go`, docker/cli `opts`.

/// Bytes from text such as `512m`, `1.5GiB`, `10kb`, as the API's JSON has them.
pub fn ram_in_bytes(text: &str) -> Result<i64, String> {
    let bytes = spec::units::ram_in_bytes(text).map_err(|error| error.to_string())?;
    Ok(i64::try_from(bytes).unwrap_or(i64::MAX))
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
    fn only_swap_may_be_without_limit() {
        assert_eq!(ram_in_bytes("1.5g"), Ok(3 << 29));
        assert_eq!(ram_in_bytes("-1"), Err("invalid size: '-1'".to_owned()));
        assert_eq!((swap_in_bytes("-1"), swap_in_bytes("1.5g")), (Ok(-1), Ok(3 << 29)));
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
