//! What of a wish cannot be, in Docker's words. Pure.
//!
//! Source: moby `daemon/container.go`, `daemon/daemon_unix.go`, `runconfig/hostconfig_unix.go`.

use spec::runtime::Rlimit;

use super::spec::{
    ContainerSpec, HostSpec, IpcMode, NetworkMode, Resources, RestartPolicy, UtsMode,
};
use crate::error::{Error, Result};
use crate::words;

/// Docker's least memory limit in bytes.
const MEMORY_MIN: i64 = 6 << 20;
/// Nanoseconds.
const HEALTH_DURATION_MIN: i64 = 1_000_000;

/// Checks a merged wish; returns warnings.
///
/// # Errors
/// `Invalid` with the first thing that cannot be.
pub fn validate(spec: &ContainerSpec) -> Result<Vec<String>> {
    if spec.argv().is_empty() {
        return Err(words::no_command());
    }
    let path = &spec.config.working_dir;
    if !path.is_empty() && !path.starts_with('/') {
        return Err(words::relative_workdir(path));
    }
    for entry in &spec.config.env {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(Error::invalid(format!("invalid environment variable: {entry}")));
        }
    }
    if !spec.config.stop_signal.is_empty() {
        super::signals::parse(&spec.config.stop_signal)?;
    }
    health(spec)?;
    modes(spec)?;
    host(&spec.host)?;
    resources(&spec.host.resources)
}

/// Drops the limits that this kernel's control groups do not have; returns Docker's warnings.
///
/// # Errors
/// `Invalid` for real-time limits, which are not dropped silently.
pub fn discard(limits: &mut Resources, cgroup_v2: bool) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if !cgroup_v2 {
        return Ok(warnings);
    }
    if limits.cpu_realtime_period != 0 || limits.cpu_realtime_runtime != 0 {
        return Err(Error::invalid("Your kernel does not support CPU real-time scheduler"));
    }
    if limits.memory_swappiness.take().is_some() {
        warnings.push("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.".to_owned());
    }
    if limits.oom_kill_disable.take() == Some(true) {
        warnings.push(
            "Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned(),
        );
    }
    Ok(warnings)
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
                "host type networking can't be used with links. This would result in undefined behavior",
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
        if !spec.config.exposed_ports.is_empty() && host.publish_all_ports {
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
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if !["", "default", "process", "hyperv"].contains(&host.isolation.as_str())
        || ["process", "hyperv"].contains(&host.isolation.as_str())
    {
        return Err(Error::invalid(format!("invalid isolation '{}' on linux", host.isolation)));
    }
    for text in &host.extra_hosts {
        let Some((name, address)) = text.split_once(':') else {
            return Err(Error::invalid(format!("bad format for add-host: \"{text}\"")));
        };
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty()
            || (address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err())
        {
            return Err(Error::invalid(format!("invalid IP address in add-host: \"{address}\"")));
        }
    }
    let host_network = host.network == NetworkMode::Host;
    let joined_ipc = matches!(host.ipc, IpcMode::Host);
    for key in host.sysctls.keys() {
        if host_network && key.starts_with("net.") {
            return Err(Error::invalid(format!(
                "sysctl '{key}' not allowed in host network namespace"
            )));
        }
        let of_ipc = key.starts_with("fs.mqueue.")
            || key.starts_with("kernel.msg")
            || key.starts_with("kernel.sem")
            || key.starts_with("kernel.shm");
        if joined_ipc && of_ipc {
            return Err(Error::invalid(format!(
                "sysctl '{key}' not allowed in host ipc namespace"
            )));
        }
        if !of_ipc && !key.starts_with("net.") && key != "kernel.domainname" {
            return Err(Error::invalid(format!("sysctl '{key}' is not allowed")));
        }
    }
    for name in &host.cap_add {
        super::capabilities::parse(name).map_err(|error| error.within("invalid CapAdd"))?;
    }
    for name in &host.cap_drop {
        super::capabilities::parse(name).map_err(|error| error.within("invalid CapDrop"))?;
    }
    security(host)
}

fn security(host: &HostSpec) -> Result<()> {
    super::security::SecurityOptions::parse(&host.security_opt).map(|_| ())
}

fn resources(limits: &Resources) -> Result<Vec<String>> {
    memory(limits)?;
    cpu(limits)?;
    lists(limits)?;
    let mut warnings = Vec::new();
    if limits.oom_kill_disable == Some(true) && limits.memory == 0 {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned());
    }
    Ok(warnings)
}

fn memory(limits: &Resources) -> Result<()> {
    let refuse = |text: String| Err(Error::invalid(text));
    if limits.memory != 0 && limits.memory < MEMORY_MIN {
        return refuse("Minimum memory limit allowed is 6MB".to_owned());
    }
    if limits.memory > 0 && limits.memory_swap > 0 && limits.memory_swap < limits.memory {
        return refuse(
            "Minimum memoryswap limit should be larger than memory limit, see usage".to_owned(),
        );
    }
    if limits.memory == 0 && limits.memory_swap > 0 {
        return refuse(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
                .to_owned(),
        );
    }
    if let Some(swappiness) = limits.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        return refuse(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        ));
    }
    if limits.memory_reservation != 0 && limits.memory_reservation < MEMORY_MIN {
        return refuse("Minimum memory reservation allowed is 6MB".to_owned());
    }
    if limits.memory > 0 && limits.memory_reservation > limits.memory {
        return refuse(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
                .to_owned(),
        );
    }
    Ok(())
}

fn cpu(limits: &Resources) -> Result<()> {
    let refuse = |text: String| Err(Error::invalid(text));
    if limits.nano_cpus > 0 && limits.cpu_period > 0 {
        return refuse(
            "Conflicting options: Nano CPUs and CPU Period cannot both be set".to_owned(),
        );
    }
    if limits.nano_cpus > 0 && limits.cpu_quota > 0 {
        return refuse(
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set".to_owned(),
        );
    }
    let cpus =
        i64::try_from(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
            .unwrap_or(1);
    if limits.nano_cpus < 0 || limits.nano_cpus > cpus * 1_000_000_000 {
        return refuse(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        ));
    }
    if limits.cpu_period != 0 && !(1_000..=1_000_000).contains(&limits.cpu_period) {
        return refuse(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
                .to_owned(),
        );
    }
    if limits.cpu_quota > 0 && limits.cpu_quota < 1_000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)".to_owned());
    }
    if limits.blkio_weight > 0 && !(10..=1000).contains(&limits.blkio_weight) {
        return refuse("Range of blkio weight is from 10 to 1000".to_owned());
    }
    Ok(())
}

fn lists(limits: &Resources) -> Result<()> {
    let refuse = |text: String| Err(Error::invalid(text));
    for rule in &limits.device_cgroup_rules {
        if super::derive::parse_device_rule(rule).is_none() {
            return refuse(format!("invalid device cgroup rule format: '{rule}'"));
        }
    }
    for ulimit in &limits.ulimits {
        if Rlimit::kind_of(&ulimit.name).is_none() {
            return refuse(format!("invalid ulimit type: {}", ulimit.name));
        }
        if ulimit.hard >= 0 && ulimit.soft > ulimit.hard {
            return refuse(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                ulimit.soft, ulimit.hard
            ));
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
        spec.config.cmd = Some(vec!["sh".to_owned()]);
        change(&mut spec);
        let text = match validate(&spec) {
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
        check(|spec| spec.config.cmd = None, expect!["no command specified"]);
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
                spec.host.resources.nano_cpus = 1;
                spec.host.resources.cpu_quota = 5000;
            },
            expect!["Conflicting options: Nano CPUs and CPU Quota cannot both be set"],
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
            |spec| spec.host.security_opt = vec!["x".to_owned()],
            expect![[r#"invalid --security-opt 1: "x""#]],
        );
        check(
            |spec| spec.config.stop_signal = "SIGFOO".to_owned(),
            expect!["Invalid signal: SIGFOO"],
        );
    }

    #[test]
    fn what_the_kernel_lacks_is_dropped_with_a_warning() {
        let check = |limits: &mut Resources, want: Expect| match discard(limits, true) {
            Ok(warnings) => want.assert_eq(&warnings.join("\n")),
            Err(error) => want.assert_eq(&error.message),
        };
        let mut limits = Resources { memory_swappiness: Some(7), ..Resources::default() };
        limits.oom_kill_disable = Some(true);
        check(
            &mut limits,
            expect![[r#"
                Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.
                Your kernel does not support OomKillDisable. OomKillDisable discarded."#]],
        );
        assert_eq!((limits.memory_swappiness, limits.oom_kill_disable), (None, None));
        check(&mut limits, expect![""]);
        limits.cpu_realtime_runtime = 1;
        check(&mut limits, expect!["Your kernel does not support CPU real-time scheduler"]);
    }
}
