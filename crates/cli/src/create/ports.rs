//! `--publish` and `--expose`.
//!
//! A published port is `[[IP]:[HOST[-HOST]]:]CONTAINER[-CONTAINER][/PROTO]`, an IPv6 address in
//! brackets, or `published=…,target=…,protocol=…`.
//!
//! Source of the forms and words: docker/go-connections `nat`, docker/cli `opts/port.go`.

use std::net::IpAddr;

use super::sizes::csv_fields;
use crate::args::go;

/// One container port and where it shall be reachable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// `80/tcp`.
    pub port: String,
    pub host_ip: String,
    /// Empty for any; a range for any of it.
    pub host_port: String,
}

/// Every mapping that one value stands for.
pub fn parse(value: &str) -> Result<Vec<Published>, String> {
    if value.contains('=') {
        return parse_short(&long_to_short(value)?);
    }
    parse_short(value)
}

fn parse_short(value: &str) -> Result<Vec<Published>, String> {
    let (ip, host, container) = split(value);
    let (container, protocol) = split_protocol(container);
    let ip = match ip.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').ok_or_else(|| {
            format!("invalid IP address {ip}: address {ip}:: missing ']' in address")
        })?,
        None => &ip,
    };
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    if container.is_empty() {
        return Err(format!("no port specified: {value}<empty>"));
    }
    let (first, last) =
        range(container).map_err(|_| format!("invalid containerPort: {container}"))?;
    let host_range = if host.is_empty() {
        None
    } else {
        Some(range(host).map_err(|_| format!("invalid hostPort: {host}"))?)
    };
    if let Some((host_first, host_last)) = host_range
        && last - first != host_last - host_first
        && first != last
    {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ));
    }
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let mapping = |offset: u16| Published {
        port: format!("{}/{protocol}", first + offset),
        host_ip: ip.to_owned(),
        host_port: match host_range {
            None => String::new(),
            Some((from, to)) if first == last && from != to => format!("{from}-{to}"),
            Some((from, _)) => (from + offset).to_string(),
        },
    };
    Ok((0..=last - first).map(mapping).collect())
}

fn split(value: &str) -> (String, &str, &str) {
    let parts: Vec<&str> = value.split(':').collect();
    match parts[..] {
        [container] => (String::new(), "", container),
        [host, container] => (String::new(), host, container),
        [ref ip @ .., host, container] => (ip.join(":"), host, container),
        [] => (String::new(), "", ""),
    }
}

fn split_protocol(container: &str) -> (&str, &str) {
    match container.split_once('/') {
        Some((port, "")) => (port, "tcp"),
        Some((port, protocol)) => (port, protocol),
        None => (container, "tcp"),
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| {
        go::parse_decimal_uint(text, u64::from(u16::MAX))
            .map(|port| u16::try_from(port).unwrap_or(u16::MAX))
    };
    let Some((first, last)) = text.split_once('-') else {
        let only = port(text)?;
        return Ok((only, only));
    };
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(format!("invalid range specified for port: {text}"));
    }
    Ok((first, last))
}

fn long_to_short(value: &str) -> Result<String, String> {
    let (mut target, mut published, mut protocol) = (0, 0, "tcp".to_owned());
    for field in csv_fields(value)? {
        let Some((key, text)) = field.split_once('=') else {
            return Err(format!("invalid field: {field}"));
        };
        let number = |what: &str| {
            go::parse_decimal_uint(text, u64::from(u16::MAX))
                .map_err(|why| format!("invalid {what} port ({text}): {}", tail(&why)))
        };
        match key {
            "protocol" if matches!(text, "tcp" | "udp" | "sctp") => protocol = text.to_owned(),
            "protocol" => return Err(format!("invalid protocol value '{text}'")),
            "mode" if matches!(text, "host" | "ingress") => {}
            "mode" => {
                return Err(format!(
                    "invalid publish mode value ({text}): must be either 'ingress' or 'host'"
                ));
            }
            "target" => target = number("target")?,
            "published" => published = number("published")?,
            _ => return Err(format!("invalid field key: {key}")),
        }
    }
    if target == 0 {
        return Err(format!("missing mandatory field '{}'", "target"));
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn tail(why: &str) -> &str {
    why.rsplit(": ").next().unwrap_or(why)
}

/// The ports that one `--expose` value stands for, as `80/tcp`.
pub fn parse_exposed(value: &str) -> Result<Vec<String>, String> {
    if value.contains(':') {
        return Err(format!("invalid port format for --expose: {value}"));
    }
    let (ports, protocol) = split_protocol(value);
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let (first, last) = range(ports)
        .map_err(|why| format!("invalid range format for --expose: {value}, error: {why}"))?;
    let protocol = protocol.to_ascii_lowercase();
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, want: &[(&str, &str, &str)]) {
        let found = parse(value).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.host_ip.as_str(), one.host_port.as_str(), one.port.as_str()))
            .collect();
        assert_eq!(found, want, "{value}");
    }

    #[test]
    fn a_port_is_published_by_its_short_form() {
        check("80", &[("", "", "80/tcp")]);
        check("8080:80", &[("", "8080", "80/tcp")]);
        check("8080:80/UDP", &[("", "8080", "80/udp")]);
        check("127.0.0.1:8080:80", &[("127.0.0.1", "8080", "80/tcp")]);
        check("127.0.0.1::80", &[("127.0.0.1", "", "80/tcp")]);
        check("[::1]:8080:80", &[("::1", "8080", "80/tcp")]);
        check("::1:8080:80", &[("::1", "8080", "80/tcp")]);
    }

    #[test]
    fn ranges_map_one_to_one_or_to_a_single_port() {
        check("80-81:90-91", &[("", "80", "90/tcp"), ("", "81", "91/tcp")]);
        check("8000-8009:80", &[("", "8000-8009", "80/tcp")]);
        check("80-81", &[("", "", "80/tcp"), ("", "", "81/tcp")]);
    }

    #[test]
    fn the_long_form_is_the_same_port() {
        check("published=8080,target=80", &[("", "8080", "80/tcp")]);
        check("target=53,protocol=udp,published=53,mode=host", &[("", "53", "53/udp")]);
    }

    #[test]
    fn a_bad_port_is_refused_in_dockers_words() {
        for (value, want) in [
            ("abc", "invalid containerPort: abc"),
            ("1:2:3:4", "invalid IP address: 1:2"),
            ("80:80/foo", "invalid proto: foo"),
            ("70000:80", "invalid hostPort: 70000"),
            ("1-3:80-81", "invalid ranges specified for container and host Ports: 80-81 and 1-3"),
            ("[::1:80:80", "invalid IP address [::1: address [::1:: missing ']' in address"),
            ("80-70", "invalid containerPort: 80-70"),
            ("80:", "no port specified: 80:<empty>"),
        ] {
            assert_eq!(parse(value).unwrap_err(), want);
        }
    }

    #[test]
    fn exposed_ports_may_be_a_range() {
        assert_eq!(parse_exposed("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
        assert_eq!(
            parse_exposed("x").unwrap_err(),
            "invalid range format for --expose: x, error: strconv.ParseUint: parsing \"x\": invalid syntax"
        );
    }
}
