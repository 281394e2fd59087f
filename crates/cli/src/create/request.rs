//! From the options of `run` and `create` to the request that the daemon gets.
//!
//! Each option has its field; what a single value cannot show (files that must exist, options
//! that exclude each other) is checked here, in the order in which Docker's own client does.
//!
//! Source of the words: docker/cli `container/opts.go`. Elsewhere: one value's form, in the
//! sibling modules and `args::check`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use api::{
    container::{
        self, Config, CreateRequest, DeviceMapping, DeviceRequest, HealthConfig, HostConfig,
        LogConfig, NetworkingConfig, PortBinding, RestartPolicy, StrSlice, ThrottleDevice, Ulimit,
        Unit, WeightDevice,
    },
    network::{EndpointIpamConfig, EndpointSettings},
};
use spec::units::parse_duration;

use super::{devices, files, gpus, limits, mounts, networks, ports, sizes};
use crate::args::{Matches, check::extra_host, go};

type Wrong = String;

/// Builds the request of `matches`, whose arguments are the image, then the command.
///
/// # Errors
/// Docker's words for the first thing that is wrong.
pub fn build(matches: &Matches) -> Result<CreateRequest, Wrong> {
    check_mac(matches.text("mac-address"))?;
    let mut host = HostConfig::default();
    let mut config = Config::default();
    streams(matches, &mut config);
    memory(matches, &mut host)?;
    storage(matches, &mut config, &mut host)?;
    command(matches, &mut config);
    published(matches, &mut config, &mut host)?;
    device_access(matches, &mut host)?;
    config.env = some(files::environment(matches.all("env-file"), matches.all("env"))?);
    config.labels = Some(files::labels(matches.all("label-file"), matches.all("label"))?);
    namespaces(matches, &mut host)?;
    host.restart_policy = restart_policy(matches.text("restart"))?;
    host.log_config = logging(matches)?;
    security(matches, &mut host)?;
    host.storage_opt = storage_options(matches.all("storage-opt"))?;
    config.healthcheck = healthcheck(matches)?;
    processor(matches, &mut host);
    block_devices(matches, &mut host)?;
    identity(matches, &mut config, &mut host)?;
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
    }
    let networking = networking(matches, &mut host)?;
    Ok(CreateRequest { config, host_config: Some(host), networking_config: Some(networking) })
}

fn check_mac(mac: &str) -> Result<(), Wrong> {
    let parts: Vec<&str> = mac.split([':', '-']).collect();
    let pair = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if mac.is_empty() || (matches!(parts.len(), 6 | 8) && parts.iter().all(pair)) {
        return Ok(());
    }
    Err(format!("{mac} is not a valid mac address"))
}

fn streams(matches: &Matches, config: &mut Config) {
    let asked =
        |stream: &str| matches.all("attach").iter().any(|value| value.eq_ignore_ascii_case(stream));
    config.tty = matches.on("tty");
    config.open_stdin = matches.on("interactive");
    if matches.all("attach").is_empty() {
        config.attach_stdin = config.open_stdin;
        config.attach_stdout = true;
        config.attach_stderr = true;
    } else {
        config.attach_stdin = asked("stdin");
        config.attach_stdout = asked("stdout");
        config.attach_stderr = asked("stderr");
    }
    config.stdin_once = config.open_stdin && config.attach_stdin;
}

fn memory(matches: &Matches, host: &mut HostConfig) -> Result<(), Wrong> {
    let swappiness = matches.int("memory-swappiness");
    if swappiness != -1 && !(0..=100).contains(&swappiness) {
        return Err(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100"));
    }
    host.memory_swappiness = Some(swappiness);
    host.memory = bytes(matches, "memory");
    host.memory_reservation = bytes(matches, "memory-reservation");
    host.memory_swap = match matches.find("memory-swap") {
        Some(text) => sizes::swap_in_bytes(text)?,
        None => 0,
    };
    host.kernel_memory = bytes(matches, "kernel-memory");
    host.shm_size = bytes(matches, "shm-size");
    host.oom_kill_disable = Some(matches.on("oom-kill-disable"));
    host.oom_score_adj = matches.int("oom-score-adj");
    Ok(())
}

fn bytes(matches: &Matches, name: &str) -> i64 {
    matches.find(name).and_then(|text| sizes::ram_in_bytes(text).ok()).unwrap_or_default()
}

fn storage(matches: &Matches, config: &mut Config, host: &mut HostConfig) -> Result<(), Wrong> {
    let mut binds = Vec::new();
    let mut anonymous = BTreeMap::new();
    for value in matches.all("volume") {
        match mounts::parse_volume(value)? {
            mounts::VolumeFlag::Bind(bind) => binds.push(bind),
            mounts::VolumeFlag::Anonymous(path) => {
                anonymous.insert(path, Unit {});
            }
        }
    }
    host.binds = some(binds);
    config.volumes = Some(anonymous);
    let tmpfs: BTreeMap<String, String> = matches
        .all("tmpfs")
        .iter()
        .map(|value| {
            let (path, options) = value.split_once(':').unwrap_or((value, ""));
            (path.to_owned(), options.to_owned())
        })
        .collect();
    host.tmpfs = (!tmpfs.is_empty()).then_some(tmpfs);
    let mounts: Result<Vec<_>, _> = matches.all("mount").iter().map(|value| mount(value)).collect();
    host.mounts = some(mounts?);
    host.volume_driver = matches.text("volume-driver").to_owned();
    host.volumes_from = some(matches.all("volumes-from").to_vec());
    host.readonly_rootfs = matches.on("read-only");
    Ok(())
}

fn mount(value: &str) -> Result<container::Mount, Wrong> {
    let parsed = mounts::parse(value)?;
    Ok(container::Mount {
        kind: parsed.kind,
        source: parsed.source,
        target: parsed.target,
        read_only: parsed.read_only,
        consistency: parsed.consistency,
        bind_options: parsed.bind.map(|bind| container::BindOptions {
            propagation: bind.propagation,
            non_recursive: bind.recursion == mounts::Recursion::Disabled,
            create_mountpoint: false,
            read_only_non_recursive: bind.recursion == mounts::Recursion::Writable,
            read_only_force_recursive: bind.recursion == mounts::Recursion::ReadOnly,
        }),
        volume_options: parsed.volume.map(|volume| container::VolumeOptions {
            no_copy: volume.no_copy,
            labels: (!volume.labels.is_empty()).then_some(volume.labels),
            subpath: volume.subpath,
            driver_config: (!volume.driver.is_empty() || !volume.driver_options.is_empty())
                .then_some(container::Driver {
                    name: volume.driver,
                    options: (!volume.driver_options.is_empty()).then_some(volume.driver_options),
                }),
        }),
        image_options: parsed.image_subpath.map(|subpath| container::ImageOptions { subpath }),
        tmpfs_options: parsed.tmpfs.map(|tmpfs| container::TmpfsOptions {
            size_bytes: tmpfs.size_bytes,
            mode: tmpfs.mode,
            options: None,
        }),
        cluster_options: None,
    })
}

fn command(matches: &Matches, config: &mut Config) {
    if let Some((image, command)) = matches.args.split_first() {
        config.image = image.clone();
        if !command.is_empty() {
            config.cmd = StrSlice::from(command.to_vec());
        }
    }
    // An empty entrypoint must reach the daemon, since it takes the image's away.
    if let Some(entrypoint) = matches.find("entrypoint") {
        config.entrypoint = StrSlice::from(vec![entrypoint.to_owned()]);
    }
}

fn published(matches: &Matches, config: &mut Config, host: &mut HostConfig) -> Result<(), Wrong> {
    let mut exposed = BTreeMap::new();
    let mut bindings: container::PortMap = BTreeMap::new();
    for value in matches.all("publish") {
        for one in ports::parse(value)? {
            exposed.insert(one.port.clone(), Unit {});
            bindings
                .entry(one.port)
                .or_default()
                .get_or_insert_default()
                .push(PortBinding { host_ip: one.host_ip, host_port: one.host_port });
        }
    }
    for value in matches.all("expose") {
        for port in ports::parse_exposed(value)? {
            exposed.insert(port, Unit {});
        }
    }
    config.exposed_ports = (!exposed.is_empty()).then_some(exposed);
    host.port_bindings = Some(bindings);
    host.publish_all_ports = matches.on("publish-all");
    Ok(())
}

fn device_access(matches: &Matches, host: &mut HostConfig) -> Result<(), Wrong> {
    let mut mappings = Vec::new();
    let mut requests = Vec::new();
    let mut cdi = Vec::new();
    for value in matches.all("device") {
        devices::check(value)?;
        if devices::is_cdi(value) {
            cdi.push(value.clone());
            continue;
        }
        let device = devices::parse(value)?;
        mappings.push(DeviceMapping {
            path_on_host: device.host,
            path_in_container: device.container,
            cgroup_permissions: device.permissions,
        });
    }
    for value in matches.all("gpus") {
        let gpu = gpus::parse(value)?;
        requests.push(DeviceRequest {
            driver: gpu.driver,
            count: gpu.count,
            device_ids: some(gpu.devices),
            capabilities: Some(vec![gpu.capabilities]),
            options: Some(gpu.options),
        });
    }
    if !cdi.is_empty() {
        requests.push(DeviceRequest {
            driver: "cdi".to_owned(),
            device_ids: Some(cdi),
            ..DeviceRequest::default()
        });
    }
    host.devices = Some(mappings);
    host.device_requests = some(requests);
    host.device_cgroup_rules = some(matches.all("device-cgroup-rule").to_vec());
    Ok(())
}

fn namespaces(matches: &Matches, host: &mut HostConfig) -> Result<(), Wrong> {
    let mode = |flag: &str, name: &str, valid: &dyn Fn(&str) -> bool| {
        let value = matches.text(flag);
        if valid(value) {
            return Ok(value.to_owned());
        }
        Err(format!("--{flag}: invalid {name} mode"))
    };
    let or_host = |value: &str| matches!(value, "" | "host");
    host.pid_mode = mode("pid", "PID", &|value| {
        or_host(value) || value.strip_prefix("container:").is_some_and(|id| !id.is_empty())
    })?;
    host.uts_mode = mode("uts", "UTS", &or_host)?;
    host.userns_mode = mode("userns", "USER", &or_host)?;
    host.cgroupns_mode =
        mode("cgroupns", "CGROUP", &|value| matches!(value, "" | "host" | "private"))?;
    host.ipc_mode = matches.text("ipc").to_owned();
    Ok(())
}

/// `NAME[:COUNT]`.
pub fn restart_policy(text: &str) -> Result<RestartPolicy, Wrong> {
    let (name, count) = match text.split_once(':') {
        Some(("", _)) => {
            return Err("invalid restart policy format: no policy provided before colon".to_owned());
        }
        Some((name, count)) => (name, count),
        None => (text, ""),
    };
    let maximum_retry_count = match count {
        "" => 0,
        _ => count.parse().map_err(|_| {
            "invalid restart policy format: maximum retry count must be an integer".to_owned()
        })?,
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

fn logging(matches: &Matches) -> Result<LogConfig, Wrong> {
    let kind = matches.text("log-driver").to_owned();
    let options = files::pairs(matches.all("log-opt"));
    if kind == "none" && !options.is_empty() {
        return Err(format!("invalid logging opts for driver {kind}"));
    }
    Ok(LogConfig { kind, config: Some(options) })
}

fn security(matches: &Matches, host: &mut HostConfig) -> Result<(), Wrong> {
    let mut options = Vec::new();
    for option in matches.all("security-opt") {
        let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some((key, value)) => (key, value),
            None => (option.as_str(), ""),
        };
        if value.is_empty() && key != "no-new-privileges" {
            return Err(format!("Invalid --security-opt: {}", go::quote(option)));
        }
        match (key, value) {
            ("systempaths", "unconfined") => {
                host.masked_paths = Some(Vec::new());
                host.readonly_paths = Some(Vec::new());
            }
            ("seccomp", "unconfined" | "builtin") => options.push(option.clone()),
            ("seccomp", path) => options.push(format!("seccomp={}", seccomp_profile(path)?)),
            _ => options.push(option.clone()),
        }
    }
    host.security_opt = some(options);
    host.privileged = matches.on("privileged");
    let (added, dropped) = capabilities(matches.all("cap-add"), matches.all("cap-drop"));
    host.cap_add = slice(&added);
    host.cap_drop = slice(&dropped);
    Ok(())
}

/// Capabilities under their full names, sorted. `ALL` stands for every other; what is both added
/// and dropped is added.
///
/// Source: docker/cli `opts/capabilities.go`.
fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let full = |names: &[String]| -> BTreeSet<String> {
        let names: BTreeSet<String> = names
            .iter()
            .map(|name| {
                let name = name.trim().to_uppercase();
                if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
            })
            .collect();
        if names.contains("ALL") { BTreeSet::from(["ALL".to_owned()]) } else { names }
    };
    let (add, drop) = (full(add), full(drop));
    let drop = drop.difference(&add).cloned().collect();
    (add.into_iter().collect(), drop)
}

/// The daemon may run elsewhere, so the profile travels by content, without blanks.
fn seccomp_profile(path: &str) -> Result<String, Wrong> {
    let text = fs::read(path).map_err(|error| {
        let reason = files::reason(&error);
        format!("opening seccomp profile ({path}) failed: open {path}: {reason}")
    })?;
    let profile: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| format!("compacting json for seccomp profile ({path}) failed: {error}"))?;
    Ok(profile.to_string())
}

fn storage_options(values: &[String]) -> Result<Option<BTreeMap<String, String>>, Wrong> {
    if values.iter().any(|value| !value.contains('=')) {
        return Err("invalid storage option".to_owned());
    }
    let options = files::pairs(values);
    Ok((!options.is_empty()).then_some(options))
}

fn healthcheck(matches: &Matches) -> Result<Option<HealthConfig>, Wrong> {
    let duration = |name: &str| {
        matches.find(name).and_then(|text| parse_duration(text).ok()).unwrap_or_default()
    };
    let command = matches.text("health-cmd");
    let health = HealthConfig {
        test: (!command.is_empty()).then(|| vec!["CMD-SHELL".to_owned(), command.to_owned()]),
        interval: duration("health-interval"),
        timeout: duration("health-timeout"),
        start_period: duration("health-start-period"),
        start_interval: duration("health-start-interval"),
        retries: matches.int("health-retries"),
    };
    let asked = health != HealthConfig::default();
    if matches.on("no-healthcheck") {
        if asked {
            return Err("--no-healthcheck conflicts with --health-* options".to_owned());
        }
        return Ok(Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }));
    }
    for (name, value) in [
        ("interval", health.interval),
        ("timeout", health.timeout),
        ("retries", health.retries),
        ("start-period", health.start_period),
        ("start-interval", health.start_interval),
    ] {
        if value < 0 {
            return Err(format!("--health-{name} cannot be negative"));
        }
    }
    Ok(asked.then_some(health))
}

fn processor(matches: &Matches, host: &mut HostConfig) {
    host.nano_cpus =
        matches.find("cpus").and_then(|text| sizes::nano_cpus(text).ok()).unwrap_or_default();
    host.cpu_shares = matches.int("cpu-shares");
    host.cpu_period = matches.int("cpu-period");
    host.cpu_quota = matches.int("cpu-quota");
    host.cpu_realtime_period = matches.int("cpu-rt-period");
    host.cpu_realtime_runtime = matches.int("cpu-rt-runtime");
    host.cpuset_cpus = matches.text("cpuset-cpus").to_owned();
    host.cpuset_mems = matches.text("cpuset-mems").to_owned();
    host.cpu_count = matches.int("cpu-count");
    host.cpu_percent = matches.int("cpu-percent");
    host.cgroup_parent = matches.text("cgroup-parent").to_owned();
    host.pids_limit = Some(matches.int("pids-limit"));
}

fn block_devices(matches: &Matches, host: &mut HostConfig) -> Result<(), Wrong> {
    type Parse = fn(&str) -> Result<(String, u64), String>;
    let throttled = |name: &str, parse: Parse| -> Result<_, Wrong> {
        let devices: Result<Vec<_>, _> = matches
            .all(name)
            .iter()
            .map(|value| parse(value).map(|(path, rate)| ThrottleDevice { path, rate }))
            .collect();
        Ok(Some(devices?))
    };
    host.blkio_weight = go::parse_uint(matches.text("blkio-weight"), u64::from(u16::MAX))
        .ok()
        .and_then(|weight| u16::try_from(weight).ok())
        .unwrap_or_default();
    let weighted: Result<Vec<_>, _> = matches
        .all("blkio-weight-device")
        .iter()
        .map(|value| {
            limits::weight_device(value).map(|(path, weight)| WeightDevice { path, weight })
        })
        .collect();
    host.blkio_weight_device = Some(weighted?);
    host.blkio_device_read_bps = throttled("device-read-bps", limits::throttle_bps)?;
    host.blkio_device_write_bps = throttled("device-write-bps", limits::throttle_bps)?;
    host.blkio_device_read_iops = throttled("device-read-iops", limits::throttle_iops)?;
    host.blkio_device_write_iops = throttled("device-write-iops", limits::throttle_iops)?;
    host.io_maximum_bandwidth = bytes(matches, "io-maxbandwidth").unsigned_abs();
    host.io_maximum_iops = matches.int("io-maxiops").unsigned_abs();
    Ok(())
}

fn identity(matches: &Matches, config: &mut Config, host: &mut HostConfig) -> Result<(), Wrong> {
    config.hostname = matches.text("hostname").to_owned();
    config.domainname = matches.text("domainname").to_owned();
    config.user = matches.text("user").to_owned();
    config.working_dir = matches.text("workdir").to_owned();
    config.stop_signal = matches.text("stop-signal").to_owned();
    config.stop_timeout = matches.given("stop-timeout").then(|| matches.int("stop-timeout"));
    host.container_id_file = matches.text("cidfile").to_owned();
    host.auto_remove = matches.on("rm");
    host.init = matches.given("init").then(|| matches.on("init"));
    host.runtime = matches.text("runtime").to_owned();
    host.isolation = matches.text("isolation").to_owned();
    host.group_add = some(matches.all("group-add").to_vec());
    let annotations = files::pairs(matches.all("annotation"));
    host.annotations = (!annotations.is_empty()).then_some(annotations);
    let sysctls = files::pairs(matches.all("sysctl"));
    host.sysctls = (!sysctls.is_empty()).then_some(sysctls);
    let ulimits: Result<Vec<_>, _> = matches
        .all("ulimit")
        .iter()
        .map(|value| {
            limits::ulimit(value).map(|one| Ulimit {
                name: one.name,
                soft: one.soft,
                hard: one.hard,
            })
        })
        .collect();
    // One limit of each name, the last given.
    let by_name: BTreeMap<String, Ulimit> =
        ulimits?.into_iter().map(|one| (one.name.clone(), one)).collect();
    host.ulimits = Some(by_name.into_values().collect());
    host.dns = Some(matches.all("dns").to_vec());
    host.dns_options = Some(matches.all("dns-option").to_vec());
    host.dns_search = Some(matches.all("dns-search").to_vec());
    let extra: Result<Vec<_>, _> =
        matches.all("add-host").iter().map(|value| extra_host(value)).collect();
    host.extra_hosts = some(extra?);
    host.links = some(matches.all("link").to_vec());
    Ok(())
}

fn networking(matches: &Matches, host: &mut HostConfig) -> Result<NetworkingConfig, Wrong> {
    let mut attachments = Vec::new();
    for value in matches.all("network") {
        attachments.push(networks::parse(value)?);
    }
    if attachments.is_empty() {
        attachments.push(networks::Attachment {
            network: "default".to_owned(),
            ..networks::Attachment::default()
        });
    }
    let count = attachments.len();
    let mut endpoints = BTreeMap::new();
    let mut user_defined = 0;
    for (index, mut attachment) in attachments.into_iter().enumerate() {
        user_defined += usize::from(networks::is_user_defined(&attachment.network));
        if index == 0 {
            host.network_mode = attachment.network.clone();
            apply_container_wide(matches, &mut attachment)?;
        }
        let name = attachment.network.clone();
        if !networks::is_user_defined(&attachment.network) && !attachment.aliases.is_empty() {
            return Err(
                "network-scoped aliases are only supported for user-defined networks".to_owned()
            );
        }
        let endpoint = endpoint(attachment)?;
        // Older daemons make the endpoint of the one network by themselves.
        if count == 1 && matches.given("network") && endpoint == EndpointSettings::default() {
            continue;
        }
        if endpoints.contains_key(&name) {
            return Err(format!("network {} is specified multiple times", go::quote(&name)));
        }
        endpoints.insert(name, Some(endpoint));
    }
    if user_defined > 0 && user_defined < count {
        return Err("conflicting options: cannot attach both user-defined and non-user-defined network-modes".to_owned());
    }
    Ok(NetworkingConfig { endpoints_config: Some(endpoints) })
}

/// The options without a network's name speak of the first network.
fn apply_container_wide(
    matches: &Matches,
    attachment: &mut networks::Attachment,
) -> Result<(), Wrong> {
    let conflict = |flag: &str, what: &str| {
        Err(format!("conflicting options: cannot specify both --{flag} and per-network {what}"))
    };
    let many = |name: &str| matches.all(name).to_vec();
    for (flag, what, target) in [
        ("network-alias", "alias", &mut attachment.aliases),
        ("link-local-ip", "link-local IP addresses", &mut attachment.link_local),
    ] {
        if !many(flag).is_empty() {
            if !target.is_empty() {
                return conflict(flag, what);
            }
            *target = many(flag);
        }
    }
    for (flag, what, target) in [
        ("ip", "IPv4 address", &mut attachment.ipv4),
        ("ip6", "IPv6 address", &mut attachment.ipv6),
        ("mac-address", "MAC address", &mut attachment.mac),
    ] {
        if let Some(value) = matches.find(flag).filter(|value| !value.is_empty()) {
            if !target.is_empty() {
                return conflict(flag, what);
            }
            *target = value.to_owned();
        }
    }
    if networks::is_user_defined(&attachment.network) {
        attachment.links = many("link");
    }
    Ok(())
}

/// The settings of one attachment.
///
/// # Errors
/// When it names no network, or its MAC address is none.
pub fn endpoint(attachment: networks::Attachment) -> Result<EndpointSettings, Wrong> {
    if attachment.network.trim().is_empty() {
        return Err("no name set for network".to_owned());
    }
    check_mac(&attachment.mac)?;
    let ipam = EndpointIpamConfig {
        ipv4_address: attachment.ipv4,
        ipv6_address: attachment.ipv6,
        link_local_ips: some(attachment.link_local),
    };
    Ok(EndpointSettings {
        ipam_config: (ipam != EndpointIpamConfig::default()).then_some(ipam),
        links: some(attachment.links),
        aliases: some(attachment.aliases),
        mac_address: attachment.mac,
        driver_opts: (!attachment.driver_options.is_empty()).then_some(attachment.driver_options),
        gw_priority: attachment.gateway_priority,
        ..EndpointSettings::default()
    })
}

fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

fn slice(values: &[String]) -> StrSlice {
    StrSlice(some(values.to_vec()))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::{
        args::{Flag, Order, parse},
        create::flags,
    };

    fn request(line: &str) -> Result<CreateRequest, String> {
        let all: Vec<&'static Flag> = flags::CONTAINER.iter().chain(flags::IMAGE).collect();
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match parse::parse(&all, Order::OptionsFirst, &words) {
            Ok(matches) => build(&matches),
            Err(stop) => panic!("{stop:?}"),
        }
    }

    /// Shows only what differs from the request of no options at all.
    #[track_caller]
    fn check(line: &str, want: Expect) {
        fn differences(
            path: &str,
            plain: &serde_json::Value,
            full: &serde_json::Value,
            out: &mut String,
        ) {
            if let (Some(_), Some(entries)) = (plain.as_object(), full.as_object()) {
                for (key, value) in entries {
                    differences(&format!("{path}.{key}"), &plain[key], value, out);
                }
            } else if plain != full {
                out.push_str(&format!("{path} {full}\n"));
            }
        }
        let plain = serde_json::to_value(request("image").unwrap()).unwrap();
        let full = serde_json::to_value(request(&format!("{line} image")).unwrap()).unwrap();
        let mut out = String::new();
        differences("", &plain, &full, &mut out);
        want.assert_eq(&out);
    }

    #[test]
    fn every_limit_has_its_field() {
        check(
            "-m 100m --memory-swap -1 --memory-reservation 50m --memory-swappiness 5 --cpus 1.5 -c 5 --cpu-period 1000 --cpu-quota 5000 --cpuset-cpus 0-1 --cpuset-mems 0 --pids-limit 10 --oom-kill-disable --oom-score-adj 5 --shm-size 1g --cpu-rt-period 7 --cpu-rt-runtime 8 --kernel-memory 4m",
            expect![[r#"
                .HostConfig.OomScoreAdj 5
                .HostConfig.ShmSize 1073741824
                .HostConfig.CpuShares 5
                .HostConfig.Memory 104857600
                .HostConfig.NanoCpus 1500000000
                .HostConfig.CpuPeriod 1000
                .HostConfig.CpuQuota 5000
                .HostConfig.CpuRealtimePeriod 7
                .HostConfig.CpuRealtimeRuntime 8
                .HostConfig.CpusetCpus "0-1"
                .HostConfig.CpusetMems "0"
                .HostConfig.KernelMemory 4194304
                .HostConfig.MemoryReservation 52428800
                .HostConfig.MemorySwap -1
                .HostConfig.MemorySwappiness 5
                .HostConfig.OomKillDisable true
                .HostConfig.PidsLimit 10
            "#]],
        );
        check(
            "--blkio-weight 100 --blkio-weight-device /dev/sda:50 --device-read-bps /dev/sda:1mb --device-write-bps /dev/sda:2mb --device-read-iops /dev/sda:5 --device-write-iops /dev/sda:6 --ulimit nofile=5:10",
            expect![[r#"
                .HostConfig.BlkioWeight 100
                .HostConfig.BlkioWeightDevice [{"Path":"/dev/sda","Weight":50}]
                .HostConfig.BlkioDeviceReadBps [{"Path":"/dev/sda","Rate":1048576}]
                .HostConfig.BlkioDeviceWriteBps [{"Path":"/dev/sda","Rate":2097152}]
                .HostConfig.BlkioDeviceReadIOps [{"Path":"/dev/sda","Rate":5}]
                .HostConfig.BlkioDeviceWriteIOps [{"Path":"/dev/sda","Rate":6}]
                .HostConfig.Ulimits [{"Name":"nofile","Hard":10,"Soft":5}]
            "#]],
        );
    }

    #[test]
    fn storage_ports_and_devices_have_their_fields() {
        check(
            "-v /a:/b:ro -v vol:/c -v /anon --tmpfs /t:size=1m --volumes-from foo:ro --volume-driver d --mount type=bind,src=/a,dst=/b,readonly --read-only --storage-opt size=5G",
            expect![[r#"
                .Volumes./anon {}
                .HostConfig.Binds ["/a:/b:ro","vol:/c"]
                .HostConfig.VolumeDriver "d"
                .HostConfig.VolumesFrom ["foo:ro"]
                .HostConfig.ReadonlyRootfs true
                .HostConfig.StorageOpt {"size":"5G"}
                .HostConfig.Tmpfs {"/t":"size=1m"}
                .HostConfig.Mounts [{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}]
            "#]],
        );
        check(
            "-p 8080:80 -p 127.0.0.1::53/udp --expose 90 -P",
            expect![[r#"
            .ExposedPorts {"53/udp":{},"80/tcp":{},"90/tcp":{}}
            .HostConfig.PortBindings.53/udp [{"HostIp":"127.0.0.1","HostPort":""}]
            .HostConfig.PortBindings.80/tcp [{"HostIp":"","HostPort":"8080"}]
            .HostConfig.PublishAllPorts true
        "#]],
        );
        check(
            "--device /dev/fuse --device vendor.com/gpu=0 --gpus all",
            expect![[r#"
            .HostConfig.Devices [{"PathOnHost":"/dev/fuse","PathInContainer":"/dev/fuse","CgroupPermissions":"rwm"}]
            .HostConfig.DeviceRequests [{"Driver":"","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}},{"Driver":"cdi","Count":0,"DeviceIDs":["vendor.com/gpu=0"],"Capabilities":null,"Options":null}]
        "#]],
        );
    }

    #[test]
    fn identity_and_behaviour_have_their_fields() {
        check(
            "-it --name x -h host --domainname d -u 1:2 -w /x --entrypoint= -e A=1 -l a=b --annotation c=d --stop-signal TERM --stop-timeout 5 --rm --init --runtime runc --isolation default --group-add 5 --cidfile /id",
            expect![[r#"
                .Hostname "host"
                .Domainname "d"
                .User "1:2"
                .AttachStdin true
                .Tty true
                .OpenStdin true
                .StdinOnce true
                .Env ["A=1"]
                .WorkingDir "/x"
                .Entrypoint [""]
                .Labels.a "b"
                .StopSignal "TERM"
                .StopTimeout 5
                .HostConfig.ContainerIDFile "/id"
                .HostConfig.AutoRemove true
                .HostConfig.Annotations {"c":"d"}
                .HostConfig.GroupAdd ["5"]
                .HostConfig.Runtime "runc"
                .HostConfig.Isolation "default"
                .HostConfig.Init true
            "#]],
        );
        check(
            "--restart on-failure:3 --log-driver json-file --log-opt max-size=1m --health-cmd true --health-interval 5s --health-retries 3 --health-start-period 1m --health-timeout 2s --health-start-interval 1s",
            expect![[r#"
                .Healthcheck {"Test":["CMD-SHELL","true"],"Interval":5000000000,"Timeout":2000000000,"StartPeriod":60000000000,"StartInterval":1000000000,"Retries":3}
                .HostConfig.LogConfig.Type "json-file"
                .HostConfig.LogConfig.Config.max-size "1m"
                .HostConfig.RestartPolicy.Name "on-failure"
                .HostConfig.RestartPolicy.MaximumRetryCount 3
            "#]],
        );
        check(
            "--privileged --cap-add net_admin --cap-drop all --security-opt no-new-privileges --security-opt systempaths=unconfined --pid host --uts host --userns host --ipc host --cgroupns host --cgroup-parent p --sysctl net.a=1",
            expect![[r#"
                .HostConfig.CapAdd ["CAP_NET_ADMIN"]
                .HostConfig.CapDrop ["ALL"]
                .HostConfig.CgroupnsMode "host"
                .HostConfig.IpcMode "host"
                .HostConfig.PidMode "host"
                .HostConfig.Privileged true
                .HostConfig.SecurityOpt ["no-new-privileges"]
                .HostConfig.UTSMode "host"
                .HostConfig.UsernsMode "host"
                .HostConfig.Sysctls {"net.a":"1"}
                .HostConfig.CgroupParent "p"
                .HostConfig.MaskedPaths []
                .HostConfig.ReadonlyPaths []
            "#]],
        );
        check(
            "--no-healthcheck -a stdout",
            expect![[r#"
            .AttachStderr false
            .Healthcheck {"Test":["NONE"]}
        "#]],
        );
    }

    #[test]
    fn networks_and_names_have_their_fields() {
        check(
            "--network n --network-alias a --ip 10.0.0.3 --ip6 fd00::3 --link-local-ip 169.254.1.1 --mac-address 02:42:ac:11:00:05 --link c:d --dns 1.1.1.1 --dns-option o --dns-search s --add-host h:1.2.3.4",
            expect![[r#"
                .HostConfig.NetworkMode "n"
                .HostConfig.Dns ["1.1.1.1"]
                .HostConfig.DnsOptions ["o"]
                .HostConfig.DnsSearch ["s"]
                .HostConfig.ExtraHosts ["h:1.2.3.4"]
                .HostConfig.Links ["c:d"]
                .NetworkingConfig.EndpointsConfig.n {"IPAMConfig":{"IPv4Address":"10.0.0.3","IPv6Address":"fd00::3","LinkLocalIPs":["169.254.1.1"]},"Links":["c:d"],"Aliases":["a"],"MacAddress":"02:42:ac:11:00:05","DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}
            "#]],
        );
        check(
            "--net name=n,alias=q,driver-opt=a=b,gw-priority=4 --net m",
            expect![[r#"
            .HostConfig.NetworkMode "n"
            .NetworkingConfig.EndpointsConfig.m {"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}
            .NetworkingConfig.EndpointsConfig.n {"IPAMConfig":null,"Links":null,"Aliases":["q"],"MacAddress":"","DriverOpts":{"a":"b"},"GwPriority":4,"NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}
        "#]],
        );
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        for (line, want) in [
            (
                "--rm --restart always",
                "conflicting options: cannot specify both --restart and --rm",
            ),
            (
                "--no-healthcheck --health-cmd x",
                "--no-healthcheck conflicts with --health-* options",
            ),
            ("--health-retries -1", "--health-retries cannot be negative"),
            ("--network a --network a", "network \"a\" is specified multiple times"),
            (
                "--network-alias a",
                "network-scoped aliases are only supported for user-defined networks",
            ),
            ("--pid foo", "--pid: invalid PID mode"),
            ("--security-opt foo", "Invalid --security-opt: \"foo\""),
            ("--log-driver none --log-opt a=b", "invalid logging opts for driver none"),
            ("--mac-address x", "x is not a valid mac address"),
            (
                "--memory-swappiness 200",
                "invalid value: 200. Valid memory swappiness range is 0-100",
            ),
            ("--storage-opt x", "invalid storage option"),
        ] {
            assert_eq!(request(&format!("{line} image")).unwrap_err(), want, "{line}");
        }
    }
}
