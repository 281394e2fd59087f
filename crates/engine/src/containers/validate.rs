//! What of a wish cannot be, in Docker's words. Pure.
//!
//! Source: moby `daemon/container.go`, `daemon/daemon_unix.go`, `runconfig/hostconfig_unix.go`.

use super::limits::{self, Purpose};
use super::spec::{
    CgroupnsMode, ContainerSpec, HostSpec, IpcMode, NetworkMode, Resources, RestartPolicy, UtsMode,
};
use crate::error::{Error, Result};
use crate::system::LimitSupport;
use crate::words;

/// Nanoseconds.
const HEALTH_DURATION_MIN: i64 = 1_000_000;
/// `HOST_NAME_MAX` of linux/limits.h.
const HOSTNAME_BYTES_MAX: usize = 64;

/// Checks a request as it came, before its image is looked for; drops what this kernel does not
/// have and returns Docker's warnings. What only the image decides, such as whether there is a
/// command, is not looked at.
///
/// # Errors
/// `Invalid` with the first thing that cannot be.
pub fn validate(spec: &mut ContainerSpec, kernel: &LimitSupport) -> Result<Vec<String>> {
    modes(spec)?;
    realtime(&spec.host.resources, kernel)?;
    config(spec)?;
    host(&spec.host)?;
    if spec.hostname.len() > HOSTNAME_BYTES_MAX {
        return Err(Error::invalid(format!(
            "hostname {:?} is too long (maximum {HOSTNAME_BYTES_MAX} bytes)",
            spec.hostname
        )));
    }
    let mut warnings = limits::verify(&mut spec.host.resources, kernel, Purpose::Create)?;
    if !(-1000..=1000).contains(&spec.host.oom_score_adj) {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            spec.host.oom_score_adj
        )));
    }
    if spec.host.network == NetworkMode::Host && !spec.host.ports.is_empty() {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    Ok(warnings)
}

/// Source: moby 28.2 `daemon/container.go` `validateContainerConfig`.
fn config(spec: &mut ContainerSpec) -> Result<()> {
    let path = &mut spec.config.working_dir;
    if !path.is_empty() {
        if !path.starts_with('/') {
            return Err(words::relative_workdir(path));
        }
        *path = super::mounts::clean(path);
    }
    if !spec.config.stop_signal.is_empty() {
        super::signals::parse(&spec.config.stop_signal)?;
    }
    for entry in &spec.config.env {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(Error::invalid(format!("invalid environment variable: {entry}")));
        }
    }
    for port in spec.config.exposed_ports.keys() {
        exposed(port)?;
    }
    health(spec)
}

/// `80`, `80/udp`. Ranges are their clients' to spell out.
///
/// Source: docker `go-connections/nat` `ParsePort`, `validateProto`.
fn exposed(text: &str) -> Result<()> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if protocol.parse::<super::spec::Protocol>().is_err() {
        return Err(Error::invalid(format!("invalid proto: {protocol}")));
    }
    if number.parse::<u16>().is_err() {
        return Err(Error::invalid(format!("invalid port specification: \"{text}\"")));
    }
    Ok(())
}

/// Source: moby 28.2 `runconfig/hostconfig_unix.go` `validateResources`.
pub(crate) fn realtime(limits: &Resources, kernel: &LimitSupport) -> Result<()> {
    let (period, runtime) = (limits.cpu_realtime_period, limits.cpu_realtime_runtime);
    if (period != 0 || runtime != 0) && !kernel.cpu_realtime {
        return Err(Error::invalid("Your kernel does not support CPU real-time scheduler"));
    }
    if period != 0 && runtime > period {
        return Err(Error::invalid(
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ));
    }
    if limits.cpu_shares < 0 && kernel.cpu_shares {
        return Err(Error::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            limits.cpu_shares
        )));
    }
    Ok(())
}

/// # Errors
/// `Invalid` for a privileged container that wants a namespace in which it could not do as it may.
pub fn cgroup_namespace(host: &HostSpec, cgroup_v2: bool) -> Result<()> {
    if host.privileged && host.cgroupns == CgroupnsMode::Private && !cgroup_v2 {
        return Err(words::privileged_cgroup_namespace());
    }
    Ok(())
}

fn health(spec: &ContainerSpec) -> Result<()> {
    let Some(probe) = &spec.config.healthcheck else { return Ok(()) };
    for (name, value) in [
        ("Interval", probe.interval),
        ("Timeout", probe.timeout),
        ("StartPeriod", probe.start_period),
        ("StartInterval", probe.start_interval),
    ] {
        if value != 0 && value < HEALTH_DURATION_MIN {
            return Err(Error::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if probe.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

/// Source: moby `api/types/container/hostconfig.go`, docker `runconfig/errors.go`.
fn modes(spec: &ContainerSpec) -> Result<()> {
    let host = &spec.host;
    let conflict = |text: &str| Err(Error::invalid(format!("conflicting options: {text}")));
    if let NetworkMode::Container(_) = host.network {
        if !spec.hostname.is_empty() {
            return conflict("hostname and the network mode");
        }
        if !host.links.is_empty() {
            return conflict(
                "container type network can't be used with links. This would result in undefined behavior",
            );
        }
        if !host.dns.is_empty() {
            return conflict("dns and the network mode");
        }
        if !host.extra_hosts.is_empty() {
            return conflict("custom host-to-IP mapping and the network mode");
        }
        if !spec.mac_address.is_empty() {
            return conflict("mac-address and the network mode");
        }
        if !host.ports.is_empty() || host.publish_all_ports {
            return conflict("port publishing and the container type network mode");
        }
        if !spec.config.exposed_ports.is_empty() {
            return conflict("port exposing and the container type network mode");
        }
    }
    if host.network == NetworkMode::Host && !host.links.is_empty() {
        return Err(words::link_to_host_network());
    }
    if host.network == NetworkMode::Host && !spec.mac_address.is_empty() {
        return conflict("mac-address and the network mode");
    }
    if host.uts == UtsMode::Host && !spec.hostname.is_empty() {
        return conflict("hostname and the UTS mode");
    }
    Ok(())
}

fn host(host: &HostSpec) -> Result<()> {
    if !host.storage_opt.is_empty() {
        // Source: moby 28.2 `daemon/graphdriver/overlay2/overlay.go`.
        return Err(Error::internal(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    if host.auto_remove && host.restart != RestartPolicy::No {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    if !["", "default", "process", "hyperv"].contains(&host.isolation.as_str())
        || ["process", "hyperv"].contains(&host.isolation.as_str())
    {
        return Err(Error::invalid(format!("invalid isolation '{}' on linux", host.isolation)));
    }
    extra_hosts(&host.extra_hosts)?;
    sysctls(host)?;
    if host.annotations.contains_key("") {
        return Err(Error::invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    for name in &host.cap_add {
        super::capabilities::parse(name).map_err(|error| error.within("invalid CapAdd"))?;
    }
    for name in &host.cap_drop {
        super::capabilities::parse(name).map_err(|error| error.within("invalid CapDrop"))?;
    }
    Ok(())
}

/// `name:address`.
///
/// # Errors
/// `Invalid` for the first one that is none.
pub(crate) fn extra_hosts(lines: &[String]) -> Result<()> {
    for text in lines {
        let named = text.split_once(':').filter(|(name, _)| !name.is_empty());
        let Some((_, address)) = named else {
            return Err(Error::invalid(format!("bad format for add-host: \"{text}\"")));
        };
        let bare = address.trim().trim_start_matches('[').trim_end_matches(']');
        if address != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!("invalid IP address in add-host: \"{address}\"")));
        }
    }
    Ok(())
}

/// The runtime checks the same again, for documents that did not come this way.
fn sysctls(host: &HostSpec) -> Result<()> {
    use spec::sysctl::{Owner, Sysctl};
    for key in host.sysctls.keys() {
        let refuse = |text: &str| Err(Error::invalid(format!("sysctl '{key}' {text}")));
        let Ok(sysctl) = Sysctl::parse(key) else { return refuse("is not allowed") };
        match sysctl.owner() {
            Owner::Network if host.network == NetworkMode::Host => {
                return refuse("not allowed in host network namespace");
            }
            Owner::Ipc if host.ipc == IpcMode::Host => {
                return refuse("not allowed in host ipc namespace");
            }
            Owner::Uts if host.uts == UtsMode::Host => return refuse("is not allowed"),
            Owner::Network | Owner::Ipc | Owner::Uts => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(change: impl FnOnce(&mut ContainerSpec), want: Expect) {
        let mut spec = ContainerSpec::default();
        change(&mut spec);
        let kernel = LimitSupport { cpu_shares: true, memory: true, ..LimitSupport::default() };
        let text = match validate(&mut spec, &kernel) {
            Ok(warnings) => format!("{warnings:?}"),
            Err(error) => error.message,
        };
        want.assert_eq(&text);
    }

    #[test]
    fn a_plain_wish_is_valid() {
        check(|_| {}, expect!["[]"]);
    }

    #[test]
    fn what_cannot_be_is_refused_in_dockers_words() {
        check(
            |spec| spec.config.working_dir = "app".to_owned(),
            expect!["the working directory 'app' is invalid, it needs to be an absolute path"],
        );
        check(
            |spec| spec.host.resources.memory = 4 << 20,
            expect!["Minimum memory limit allowed is 6MB"],
        );
        check(
            |spec| {
                spec.host.auto_remove = true;
                spec.host.restart = RestartPolicy::Always;
            },
            expect!["can't create 'AutoRemove' container with restart policy"],
        );
        check(
            |spec| {
                spec.host.network = NetworkMode::Container("x".to_owned());
                spec.hostname = "h".to_owned();
            },
            expect!["conflicting options: hostname and the network mode"],
        );
        check(
            |spec| spec.host.cap_add = vec!["nope".to_owned()],
            expect![[r#"invalid CapAdd: unknown capability: "CAP_NOPE""#]],
        );
        check(
            |spec| spec.config.stop_signal = "SIGFOO".to_owned(),
            expect!["Invalid signal: SIGFOO"],
        );
    }

    #[test]
    fn only_settings_of_a_namespace_of_its_own_are_taken() {
        let with = |key: &'static str, change: fn(&mut HostSpec), want| {
            check(
                |spec| {
                    spec.host.sysctls.insert(key.to_owned(), "1".to_owned());
                    change(&mut spec.host);
                },
                want,
            );
        };
        with("net.ipv4.ip_forward", |_| {}, expect!["[]"]);
        with("kernel.shmmax", |_| {}, expect!["[]"]);
        with(
            "net.//.kernel.core_pattern",
            |_| {},
            expect!["sysctl 'net.//.kernel.core_pattern' is not allowed"],
        );
        with("kernel.shm_next_id", |_| {}, expect!["sysctl 'kernel.shm_next_id' is not allowed"]);
        with(
            "net/ipv4/ip_forward",
            |host| host.network = NetworkMode::Host,
            expect!["sysctl 'net/ipv4/ip_forward' not allowed in host network namespace"],
        );
        with(
            "kernel/sem",
            |host| host.ipc = IpcMode::Host,
            expect!["sysctl 'kernel/sem' not allowed in host ipc namespace"],
        );
        with(
            "kernel.domainname",
            |host| host.uts = UtsMode::Host,
            expect!["sysctl 'kernel.domainname' is not allowed"],
        );
    }

    #[test]
    fn what_is_said_twice_or_too_long_is_refused() {
        check(
            |spec| spec.host.resources.cpu_shares = -1,
            expect!["invalid CPU shares (-1): value must be a positive integer"],
        );
        check(
            |spec| spec.host.resources.cpu_realtime_runtime = 1,
            expect!["Your kernel does not support CPU real-time scheduler"],
        );
        check(
            |spec| drop(spec.host.annotations.insert(String::new(), "x".to_owned())),
            expect!["invalid Annotations: the empty string is not permitted as an annotation key"],
        );
        check(
            |spec| spec.host.oom_score_adj = -1001,
            expect!["Invalid value -1001, range for oom score adj is [-1000, 1000]"],
        );
        check(
            |spec| spec.host.extra_hosts = vec![":1.2.3.4".to_owned()],
            expect![[r#"bad format for add-host: ":1.2.3.4""#]],
        );
        check(
            |spec| spec.host.extra_hosts = vec!["a:1.2.3".to_owned()],
            expect![[r#"invalid IP address in add-host: "1.2.3""#]],
        );
        let mut spec = ContainerSpec { hostname: "h".repeat(65), ..ContainerSpec::default() };
        let long = validate(&mut spec, &LimitSupport::default()).unwrap_err().message;
        assert!(long.ends_with("is too long (maximum 64 bytes)"), "{long}");
    }

    #[test]
    fn exposed_ports_are_ports() {
        let told = |port: &str| exposed(port).map_or_else(|error| error.message, |()| "ok".into());
        for good in ["80", "80/tcp", "53/UDP", "9/sctp"] {
            assert_eq!(told(good), "ok", "{good}");
        }
        for bad in ["", "x", "80-90", "70000/tcp", "-1/tcp", "80:80"] {
            assert_eq!(told(bad), format!("invalid port specification: {bad:?}"));
        }
        assert_eq!(told("80/icmp"), "invalid proto: icmp");
        assert_eq!(told("80/"), "invalid proto: ");
    }

    #[test]
    fn a_working_directory_is_kept_clean() {
        for (typed, kept) in [("", ""), ("/", "/"), ("/tmp/", "/tmp"), ("/a/../b/./c//", "/b/c")] {
            let mut spec = ContainerSpec::default();
            typed.clone_into(&mut spec.config.working_dir);
            validate(&mut spec, &LimitSupport::default()).unwrap();
            assert_eq!(spec.config.working_dir, kept);
        }
    }

    #[test]
    fn ports_of_the_hosts_network_are_warned_of() {
        check(
            |spec| {
                spec.host.network = NetworkMode::Host;
                spec.host.ports = vec![super::super::spec::PortBinding {
                    container: "80/tcp".parse().unwrap(),
                    host_ip: None,
                    host_port: "80".to_owned(),
                }];
            },
            expect![[r#"["Published ports are discarded when using host network mode"]"#]],
        );
        check(
            |spec| {
                spec.host.network = NetworkMode::Container("x".to_owned());
                let exposed = std::iter::once(("80/tcp".to_owned(), spec::image::Empty {}));
                spec.config.exposed_ports = exposed.collect();
            },
            expect!["conflicting options: port exposing and the container type network mode"],
        );
    }
}
