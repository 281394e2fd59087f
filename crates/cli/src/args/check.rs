//! Whether a flag's one value has its kind's form, in Docker's words when not.

use std::net::IpAddr;

use spec::units::parse_duration;

use super::{Kind, go};
use crate::create::{devices, gpus, limits, mounts, networks, sizes};

/// # Errors
/// What the user reads after `invalid argument … for … flag:`.
pub fn check(kind: Kind, value: &str) -> Result<(), String> {
    match kind {
        Kind::Bool => go::parse_bool(value).map(drop),
        Kind::Int => go::parse_int(value).map(drop),
        Kind::Uint => go::parse_uint(value, u64::MAX).map(drop),
        Kind::Uint16 => go::parse_uint(value, u64::from(u16::MAX)).map(drop),
        Kind::Decimal => sizes::nano_cpus(value).map(drop),
        Kind::Duration => parse_duration(value).map(drop).map_err(|error| error.to_string()),
        Kind::Bytes => sizes::ram_in_bytes(value).map(drop),
        Kind::SwapBytes => sizes::swap_in_bytes(value).map(drop),
        Kind::Text | Kind::List | Kind::Strings | Kind::Map | Kind::LinkLocal => Ok(()),
        Kind::Pairs => check_pairs(value),
        Kind::Filter => check_filter(value),
        Kind::Attach => check_attach(value),
        Kind::Env => check_env(value),
        Kind::Label => check_label(value),
        Kind::ExtraHost => extra_host(value).map(drop),
        Kind::Dns => check_ip(value),
        Kind::DnsSearch => check_domain(value),
        Kind::Link => check_link(value),
        Kind::DeviceCgroupRule => devices::check_cgroup_rule(value),
        Kind::WeightDevice => limits::weight_device(value).map(drop),
        Kind::ThrottleBps => limits::throttle_bps(value).map(drop),
        Kind::ThrottleIops => limits::throttle_iops(value).map(drop),
        Kind::Sysctl => check_sysctl(value),
        Kind::Ulimit => limits::ulimit(value).map(drop),
        Kind::Mount => mounts::parse(value).map(drop),
        Kind::Network => networks::parse(value).map(drop),
        Kind::Gpus => gpus::parse(value).map(drop),
        Kind::Reference => {
            spec::reference::Reference::parse(value).map(drop).map_err(|error| error.to_string())
        }
    }
}

fn check_pairs(value: &str) -> Result<(), String> {
    match value.split(',').find(|pair| !pair.contains('=')) {
        Some(pair) => Err(format!("{pair} must be formatted as key=value")),
        None => Ok(()),
    }
}

fn check_filter(value: &str) -> Result<(), String> {
    if value.is_empty() || value.contains('=') {
        return Ok(());
    }
    Err("bad format of filter (expected name=value)".to_owned())
}

fn check_attach(value: &str) -> Result<(), String> {
    match value.to_ascii_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

fn check_env(value: &str) -> Result<(), String> {
    if value.is_empty() || value.starts_with('=') {
        return Err(format!("invalid environment variable: {value}"));
    }
    Ok(())
}

/// A label's key must be there and hold no blank.
pub fn check_label(value: &str) -> Result<(), String> {
    let trimmed = value.trim_start();
    let key = trimmed.split('=').next().unwrap_or_default();
    if key.is_empty() {
        return Err(format!("invalid label '{value}': empty name"));
    }
    if key.contains(char::is_whitespace) {
        return Err(format!("label '{key}' contains whitespaces"));
    }
    Ok(())
}

/// `name:ip` or `name=ip`, the address perhaps in brackets; as `name:ip`, which every version of
/// the API takes.
pub fn extra_host(value: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: {}", go::quote(value));
    let (name, address) =
        value.split_once('=').or_else(|| value.split_once(':')).ok_or_else(bad)?;
    if name.is_empty() || address.is_empty() {
        return Err(bad());
    }
    if address == "host-gateway" {
        return Ok(format!("{name}:{address}"));
    }
    let bare =
        address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    if bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {}", go::quote(address)));
    }
    Ok(format!("{name}:{bare}"))
}

fn check_ip(value: &str) -> Result<(), String> {
    let trimmed = value.trim();
    // A zone such as `%eth0` is allowed on link-local servers.
    let bare = trimmed.split('%').next().unwrap_or_default();
    match bare.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("IP address is not correctly formatted: {trimmed}")),
    }
}

fn check_domain(value: &str) -> Result<(), String> {
    let trimmed = value.trim();
    let labels_fit = trimmed.trim_end_matches('.').split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    if trimmed == "." || (labels_fit && trimmed.len() <= 255) {
        return Ok(());
    }
    Err(format!("{value} is not a valid domain"))
}

fn check_link(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("empty string specified for links".to_owned());
    }
    if value.split(':').count() > 2 {
        return Err(format!("bad format for links: {value}"));
    }
    Ok(())
}

/// The sysctls that belong to a namespace of the container's.
fn check_sysctl(value: &str) -> Result<(), String> {
    const NAMES: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    if let Some((name, _)) = value.split_once('=')
        && (NAMES.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue."))
    {
        return Ok(());
    }
    Err(format!("sysctl '{value}' is not allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extra_host_is_a_name_and_an_address() {
        for (value, want) in [
            ("a:10.0.0.1", Ok("a:10.0.0.1")),
            ("a=10.0.0.1", Ok("a:10.0.0.1")),
            ("a:[::1]", Ok("a:::1")),
            ("a:::1", Ok("a:::1")),
            ("h:host-gateway", Ok("h:host-gateway")),
            ("x", Err("bad format for add-host: \"x\"")),
            ("x:zz", Err("invalid IP address in add-host: \"zz\"")),
        ] {
            assert_eq!(extra_host(value), want.map(str::to_owned).map_err(str::to_owned));
        }
    }

    #[test]
    fn values_are_refused_in_dockers_words() {
        for (kind, value, want) in [
            (Kind::Env, "=x", "invalid environment variable: =x"),
            (Kind::Label, "=x", "invalid label '=x': empty name"),
            (Kind::Attach, "foo", "valid streams are STDIN, STDOUT and STDERR"),
            (Kind::Dns, "x", "IP address is not correctly formatted: x"),
            (Kind::Sysctl, "foo", "sysctl 'foo' is not allowed"),
            (Kind::Link, "a:b:c", "bad format for links: a:b:c"),
            (Kind::Bytes, "5z", "invalid suffix: 'z'"),
            (Kind::Bytes, "-1", "invalid size: '-1'"),
            (Kind::DeviceCgroupRule, "x", "invalid device cgroup format 'x'"),
            (Kind::Uint16, "70000", "strconv.ParseUint: parsing \"70000\": value out of range"),
        ] {
            assert_eq!(check(kind, value), Err(want.to_owned()), "{kind:?} {value}");
        }
    }
}
