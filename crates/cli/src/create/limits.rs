//! `--ulimit`, `--blkio-weight-device` and the `--device-*-bps`/`-iops` family.

use spec::runtime::Rlimit;

use super::sizes;
use crate::args::go;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UlimitValue {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// `name=soft[:hard]`. Source of the words: docker/go-units `ulimit.go`.
pub fn ulimit(value: &str) -> Result<UlimitValue, String> {
    let (name, limits) =
        value.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {value}"))?;
    if Rlimit::kind_of(name).is_none() {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|_| format!("strconv.ParseInt: parsing {}: invalid syntax", go::quote(text)))
    };
    let parts: Vec<&str> = limits.split(':').collect();
    let (soft, hard) = match parts[..] {
        [both] => {
            let both = number(both)?;
            (both, both)
        }
        [soft, hard] => {
            let hard = number(hard)?;
            (number(soft)?, hard)
        }
        _ => {
            return Err(format!(
                "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
            ));
        }
    };
    if hard != -1 && soft == -1 {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
        ));
    }
    if hard != -1 && soft > hard {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(UlimitValue { name: name.to_owned(), soft, hard })
}

/// `/dev/NAME:WEIGHT`.
pub fn weight_device(value: &str) -> Result<(String, u16), String> {
    let (path, weight) = device_and_number(value)?;
    match weight.parse::<u16>() {
        Ok(weight) if weight == 0 || (10..=1000).contains(&weight) => Ok((path, weight)),
        Ok(_) | Err(_) => Err(format!("invalid weight for device: {value}")),
    }
}

/// `/dev/NAME:RATE[UNIT]`.
pub fn throttle_bps(value: &str) -> Result<(String, u64), String> {
    let (path, rate) = device_and_number(value)?;
    match sizes::ram_in_bytes(&rate) {
        Ok(rate) if rate >= 0 => Ok((path, rate.unsigned_abs())),
        Ok(_) | Err(_) => Err(format!(
            "invalid rate for device: {value}. The correct format is <device-path>:<number>[<unit>]. \
             Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )),
    }
}

/// `/dev/NAME:RATE`.
pub fn throttle_iops(value: &str) -> Result<(String, u64), String> {
    let (path, rate) = device_and_number(value)?;
    match rate.parse::<u64>() {
        Ok(rate) => Ok((path, rate)),
        Err(_) => Err(format!(
            "invalid rate for device: {value}. The correct format is <device-path>:<number>. \
             Number must be a positive integer"
        )),
    }
}

fn device_and_number(value: &str) -> Result<(String, String), String> {
    let (path, number) = match value.split_once(':') {
        Some((path, number)) if !path.is_empty() => (path, number),
        Some(_) | None => return Err(format!("bad format: {value}")),
    };
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {value}"));
    }
    Ok((path.to_owned(), number.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ulimit_has_a_soft_and_a_hard_part() {
        let ok = |soft, hard| Ok(UlimitValue { name: "nofile".to_owned(), soft, hard });
        for (value, want) in [
            ("nofile=10", ok(10, 10)),
            ("nofile=10:20", ok(10, 20)),
            ("nofile=10:-1", ok(10, -1)),
            ("x", Err("invalid ulimit argument: x")),
            ("x=1", Err("invalid ulimit type: x")),
            ("nofile=a", Err("strconv.ParseInt: parsing \"a\": invalid syntax")),
            (
                "nofile=5:3",
                Err("ulimit soft limit must be less than or equal to hard limit: 5 > 3"),
            ),
        ] {
            assert_eq!(ulimit(value), want.map_err(str::to_owned), "{value}");
        }
    }

    #[test]
    fn a_device_limit_names_a_device_and_a_number() {
        assert_eq!(throttle_bps("/dev/sda:1mb"), Ok(("/dev/sda".to_owned(), 1 << 20)));
        assert_eq!(throttle_iops("/dev/sda:5"), Ok(("/dev/sda".to_owned(), 5)));
        assert_eq!(weight_device("/dev/sda:50"), Ok(("/dev/sda".to_owned(), 50)));
        assert_eq!(weight_device("x"), Err("bad format: x".to_owned()));
        assert_eq!(
            weight_device("/dev/x:5"),
            Err("invalid weight for device: /dev/x:5".to_owned())
        );
    }
}
