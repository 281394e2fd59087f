//! `--device` and `--device-cgroup-rule`.

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceValue {
    pub host: String,
    pub container: String,
    pub permissions: String,
}

/// Whether the value is a CDI name, `vendor/class=name`, which a driver resolves.
pub fn is_cdi(value: &str) -> bool {
    let Some((kind, name)) = value.split_once('=') else { return false };
    !value.starts_with('/')
        && !name.is_empty()
        && kind
            .split_once('/')
            .is_some_and(|(vendor, class)| !vendor.is_empty() && !class.is_empty())
}

/// `HOST[:CONTAINER][:rwm]`. Source of the words: docker/cli `container/opts.go`.
pub fn parse(value: &str) -> Result<DeviceValue, String> {
    let parts: Vec<&str> = value.split(':').collect();
    let (host, container, permissions) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, second] if is_mode(second) => (host, host, second),
        [host, container] => (host, container, "rwm"),
        [host, container, permissions] => (host, container, permissions),
        _ => return Err(format!("invalid device specification: {value}")),
    };
    let container = if container.is_empty() { host } else { container };
    Ok(DeviceValue {
        host: host.to_owned(),
        container: container.to_owned(),
        permissions: permissions.to_owned(),
    })
}

/// What Docker's own client checks before it asks: an absolute path inside, a mode of r, w, m.
pub fn check(value: &str) -> Result<(), String> {
    if is_cdi(value) {
        return Ok(());
    }
    if value.is_empty() || value.matches(':').count() > 2 {
        return Err(format!("bad format for path: {value}"));
    }
    let parts: Vec<&str> = value.split(':').collect();
    let (container, mode) = match parts[..] {
        [only] => (only, None),
        [host, mode] if is_mode(mode) => (host, Some(mode)),
        [_, container] => (container, None),
        [_, container, mode] => (container, Some(mode)),
        _ => return Err(format!("bad format for path: {value}")),
    };
    if let Some(mode) = mode
        && !is_mode(mode)
    {
        return Err(format!("bad mode specified: {mode}"));
    }
    if !container.starts_with('/') {
        return Err(format!("{container} is not an absolute path"));
    }
    Ok(())
}

fn is_mode(text: &str) -> bool {
    let mut seen = Vec::new();
    for letter in text.chars() {
        if !matches!(letter, 'r' | 'w' | 'm') || seen.contains(&letter) {
            return false;
        }
        seen.push(letter);
    }
    !seen.is_empty()
}

/// `TYPE MAJOR:MINOR MODE`, as in `c 10:* rwm`.
pub fn check_cgroup_rule(value: &str) -> Result<(), String> {
    let number = |text: &str| {
        text == "*" || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let parts: Vec<&str> = value.split(' ').collect();
    if let [kind, numbers, mode] = parts[..]
        && matches!(kind, "a" | "b" | "c")
        && numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
        && (1..=3).contains(&mode.len())
        && mode.chars().all(|letter| matches!(letter, 'r' | 'w' | 'm'))
    {
        return Ok(());
    }
    Err(format!("invalid device cgroup format '{value}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_may_be_renamed_and_limited() {
        for (value, want) in [
            ("/dev/a", ("/dev/a", "/dev/a", "rwm")),
            ("/dev/a:r", ("/dev/a", "/dev/a", "r")),
            ("/dev/a:/dev/b", ("/dev/a", "/dev/b", "rwm")),
            ("/dev/a:/dev/b:rw", ("/dev/a", "/dev/b", "rw")),
        ] {
            let device = parse(value).unwrap();
            let found =
                (device.host.as_str(), device.container.as_str(), device.permissions.as_str());
            assert_eq!(found, want);
            assert_eq!(check(value), Ok(()));
        }
    }

    #[test]
    fn a_bad_device_is_refused() {
        for (value, want) in [
            ("/dev/a:/dev/b:c:d", "bad format for path: /dev/a:/dev/b:c:d"),
            ("/dev/a:/dev/b:xyz", "bad mode specified: xyz"),
            ("/dev/null:zz", "zz is not an absolute path"),
        ] {
            assert_eq!(check(value), Err(want.to_owned()));
        }
        assert!(is_cdi("vendor.com/gpu=0") && !is_cdi("/dev/a=b"));
    }
}
