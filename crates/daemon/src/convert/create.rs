//! A create request, from Docker's body to the engine's wish.
//!
//! Source: moby 28.2 `postContainersCreate` for what depends on the version.

use std::collections::BTreeMap;

use api::container::{Config, CreateRequest, HealthConfig, HostConfig, Mount};
use api::network::EndpointSettings;
use api::version::{ApiVersion, v};
use engine::containers::security::SecurityOptions;
use engine::containers::spec as wish;

use super::legacy;
use crate::http::Failure;

pub(super) type Result<T> = std::result::Result<T, Failure>;
pub(super) type Endpoints = BTreeMap<String, wish::EndpointSpec>;

/// The engine's request for a body of version `version`, and what the client is to be warned of.
pub fn create(
    version: ApiVersion,
    name: &str,
    platform: &str,
    body: CreateRequest,
) -> Result<(wish::CreateRequest, Vec<String>)> {
    let CreateRequest { config, host_config, networking_config } = body;
    let mut host = host_config.unwrap_or_default();
    let mut endpoints =
        networking_config.and_then(|networking| networking.endpoints_config).unwrap_or_default();
    adjust(version, &mut host, endpoints.keys())?;
    for settings in endpoints.values_mut().flatten() {
        if version < v(44) {
            settings.mac_address.clear();
        }
        if version < v(48) {
            settings.gw_priority = 0;
        }
    }
    let mut warnings = Vec::new();
    warnings.extend(volume_driver_warning(version, &host));
    warnings.extend(mac_address_warning(version, &config, &host, &endpoints)?);
    if host.pids_limit.is_some_and(|limit| limit <= 0) {
        // Both 0 and -1 say "unlimited", which a new container is anyway.
        host.pids_limit = None;
    }
    let platform = match platform {
        "" => None,
        _ if version < v(41) => None,
        text => Some(text.parse()?),
    };
    // Docker's own client calls the default network so; an endpoint that is named rightly wins.
    let named = |network: String| match network.as_str() {
        "default" => "bridge".to_owned(),
        _ => network,
    };
    let (default, rest): (Vec<_>, Vec<_>) =
        endpoints.into_iter().partition(|(network, _)| network == "default");
    let mut endpoints: Endpoints = default
        .into_iter()
        .chain(rest)
        .map(|(network, settings)| (named(network), endpoint(settings.unwrap_or_default())))
        .collect();
    warnings.extend(legacy::interface_sysctls(version, &mut host, &mut endpoints)?);
    let request = wish::CreateRequest {
        name: (!name.is_empty()).then(|| name.to_owned()),
        platform,
        spec: container(version, config, host_spec(host)?, endpoints),
    };
    Ok((request, warnings))
}

/// Source: moby 28.2 `container_routes.go` `handleVolumeDriverBC`.
fn volume_driver_warning(version: ApiVersion, host: &HostConfig) -> Option<String> {
    if host.volume_driver.is_empty() || version < v(48) {
        return None;
    }
    let mut volumes = host.mounts.iter().flatten().filter(|mount| mount.kind == "volume");
    let named = |mount: &Mount| {
        let options = mount.volume_options.as_ref();
        let driver = options.and_then(|options| options.driver_config.as_ref());
        driver.is_some_and(|driver| !driver.name.is_empty())
    };
    volumes.any(|mount| !named(mount)).then(|| "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead".to_owned())
}

/// The container-wide address belongs to the main network's endpoint, and may not contradict it.
///
/// Source: moby 28.2 `container_routes.go` `handleMACAddressBC`.
fn mac_address_warning(
    version: ApiVersion,
    config: &Config,
    host: &HostConfig,
    endpoints: &BTreeMap<String, Option<EndpointSettings>>,
) -> Result<Option<String>> {
    if config.mac_address.is_empty() {
        return Ok(None);
    }
    let mode = host.network_mode.as_str();
    let network = if ["", "default"].contains(&mode) { "bridge" } else { mode };
    if version < v(44) {
        if ["host", "none"].contains(&network) || network.starts_with("container:") {
            let text = "conflicting options: mac-address and the network mode";
            return Err(Failure::invalid(text));
        }
        return Ok(None);
    }
    let own = endpoints.get(network).and_then(Option::as_ref).map(|own| own.mac_address.as_str());
    if own.is_some_and(|own| !own.is_empty() && !own.eq_ignore_ascii_case(&config.mac_address)) {
        return Err(Failure::invalid(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
        ));
    }
    Ok(Some("The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.".to_owned()))
}

/// What older clients meant by what they left out.
fn adjust<'a>(
    version: ApiVersion,
    host: &mut HostConfig,
    networks: impl Iterator<Item = &'a String>,
) -> Result<()> {
    if version < v(40) && host.ipc_mode.is_empty() {
        // Then "" meant what is called shareable today.
        "shareable".clone_into(&mut host.ipc_mode);
    }
    if version < v(41) && host.cgroupns_mode.is_empty() {
        "host".clone_into(&mut host.cgroupns_mode);
    }
    if version < v(42) {
        host.console_size = [0, 0];
    } else {
        host.kernel_memory = 0;
    }
    if version < v(43) {
        host.annotations = None;
    }
    for mount in host.mounts.iter_mut().flatten() {
        adjust_mount(version, mount)?;
    }
    if version < v(44) {
        let networks: Vec<_> = networks.map(String::as_str).collect();
        if networks.len() > 1 {
            return Err(Failure::invalid(format!(
                "Container cannot be created with multiple network endpoints: {}",
                networks.join(", ")
            )));
        }
    }
    Ok(())
}

fn adjust_mount(version: ApiVersion, mount: &mut Mount) -> Result<()> {
    let refuse = |text: &str| Err(Failure::invalid(text));
    if let Some(options) = &mut mount.bind_options {
        options.non_recursive &= version >= v(40);
        options.create_mountpoint &= version >= v(42);
    }
    for (name, kind, given) in [
        ("VolumeOptions", "volume", mount.volume_options.is_some()),
        ("BindOptions", "bind", mount.bind_options.is_some()),
        ("TmpfsOptions", "tmpfs", mount.tmpfs_options.is_some()),
    ] {
        if given && mount.kind != kind && version >= v(42) {
            let kind = &mount.kind;
            return refuse(&format!("{name} must not be specified on mount type \"{kind}\""));
        }
    }
    if version < v(42) && mount.kind != "volume" {
        mount.volume_options = None;
    }
    if version < v(42) && mount.kind != "tmpfs" {
        mount.tmpfs_options = None;
    }
    if version < v(44) && mount.kind == "bind" {
        if mount.bind_options.as_ref().is_some_and(|options| options.read_only_force_recursive) {
            return refuse("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer");
        }
        // Before, all read-only mounts were so for themselves alone.
        if mount.read_only {
            mount.bind_options.get_or_insert_default().read_only_non_recursive = true;
        }
    }
    let subpath = mount.volume_options.as_ref().is_some_and(|options| !options.subpath.is_empty());
    if version < v(45) && subpath {
        return refuse("VolumeOptions.Subpath needs API v1.45 or newer");
    }
    if version < v(48) && mount.kind == "image" {
        return refuse("Mount type \"Image\" needs API v1.48 or newer");
    }
    if mount.cluster_options.is_some() {
        return refuse("ClusterOptions needs a swarm manager, and this node is none");
    }
    Ok(())
}

fn container(
    version: ApiVersion,
    config: Config,
    host: wish::HostSpec,
    endpoints: BTreeMap<String, wish::EndpointSpec>,
) -> wish::ContainerSpec {
    wish::ContainerSpec {
        image: config.image.clone(),
        hostname: config.hostname.clone(),
        domainname: config.domainname.clone(),
        attach_stdin: config.attach_stdin,
        attach_stdout: config.attach_stdout,
        attach_stderr: config.attach_stderr,
        tty: config.tty,
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        network_disabled: config.network_disabled,
        mac_address: config.mac_address.clone(),
        config: image_config(version, config),
        host,
        endpoints,
        networks_settled: false,
    }
}

/// The part of a container's config that images have too.
pub fn image_config(version: ApiVersion, config: Config) -> spec::image::Config {
    let set = |keys: Option<BTreeMap<String, _>>| {
        let keys = keys.unwrap_or_default().into_keys();
        keys.map(|key| (key, spec::image::Empty {})).collect()
    };
    spec::image::Config {
        user: config.user,
        exposed_ports: set(config.exposed_ports),
        env: config.env.unwrap_or_default(),
        entrypoint: config.entrypoint.0,
        cmd: config.cmd.0,
        healthcheck: config.healthcheck.map(|health| healthcheck(version, health)),
        args_escaped: config.args_escaped,
        volumes: set(config.volumes),
        working_dir: config.working_dir,
        on_build: config.on_build.unwrap_or_default(),
        labels: config.labels.unwrap_or_default(),
        stop_signal: config.stop_signal,
        stop_timeout: config.stop_timeout,
        shell: config.shell.0.unwrap_or_default(),
    }
}

fn healthcheck(version: ApiVersion, health: HealthConfig) -> spec::image::Healthcheck {
    spec::image::Healthcheck {
        test: health.test.unwrap_or_default(),
        interval: health.interval,
        timeout: health.timeout,
        start_period: health.start_period,
        start_interval: if version < v(44) { 0 } else { health.start_interval },
        retries: health.retries,
    }
}

/// One wish for a network, of create or connect.
pub fn endpoint(settings: EndpointSettings) -> wish::EndpointSpec {
    let ipam = settings.ipam_config.unwrap_or_default();
    wish::EndpointSpec {
        ipv4_address: ipam.ipv4_address,
        ipv6_address: ipam.ipv6_address,
        link_local_ips: ipam.link_local_ips.unwrap_or_default(),
        links: settings.links.unwrap_or_default(),
        mac_address: settings.mac_address,
        aliases: settings.aliases.unwrap_or_default(),
        driver_opts: settings.driver_opts.unwrap_or_default(),
        gw_priority: settings.gw_priority,
    }
}

fn host_spec(host: HostConfig) -> Result<wish::HostSpec> {
    let resources = resources(&host)?;
    // Source: moby 28.2 `runconfig/hostconfig_unix.go`.
    for (wish, what) in [(host.io_maximum_bandwidth, "bandwidth"), (host.io_maximum_iops, "IOPs")] {
        if wish != 0 {
            let text = format!(
                "Invalid QoS settings: linux does not support configuration of maximum {what}"
            );
            return Err(Failure::invalid(text));
        }
    }
    Ok(wish::HostSpec {
        resources,
        ports: ports(host.port_bindings.unwrap_or_default())?,
        dns: addresses(host.dns.unwrap_or_default())?,
        network: host.network_mode.parse()?,
        restart: wish::RestartPolicy::parse(
            &host.restart_policy.name,
            host.restart_policy.maximum_retry_count,
        )?,
        cgroupns: host.cgroupns_mode.parse()?,
        ipc: host.ipc_mode.parse()?,
        pid: host.pid_mode.parse()?,
        uts: host.uts_mode.parse()?,
        userns: host.userns_mode.parse()?,
        shm_size: shm_size(host.shm_size)?,
        console_size: console_size(host.console_size),
        mounts: host.mounts.unwrap_or_default().into_iter().map(mount).collect::<Result<_>>()?,
        oom_score_adj: i32::try_from(host.oom_score_adj)
            .map_err(|_| out_of_range("OomScoreAdj"))?,
        binds: host.binds.unwrap_or_default(),
        tmpfs: host.tmpfs.unwrap_or_default(),
        volumes_from: host.volumes_from.unwrap_or_default(),
        volume_driver: host.volume_driver,
        container_id_file: host.container_id_file,
        log: wish::LogSpec {
            driver: host.log_config.kind,
            options: host.log_config.config.unwrap_or_default(),
        },
        publish_all_ports: host.publish_all_ports,
        auto_remove: host.auto_remove,
        annotations: host.annotations.unwrap_or_default(),
        cap_add: host.cap_add.0.unwrap_or_default(),
        cap_drop: host.cap_drop.0.unwrap_or_default(),
        dns_options: host.dns_options.unwrap_or_default(),
        dns_search: host.dns_search.unwrap_or_default(),
        extra_hosts: host.extra_hosts.unwrap_or_default(),
        group_add: host.group_add.unwrap_or_default(),
        cgroup: host.cgroup,
        links: host.links.unwrap_or_default(),
        privileged: host.privileged,
        read_only_rootfs: host.readonly_rootfs,
        security_opt: SecurityOptions::parse(host.security_opt.unwrap_or_default())?,
        storage_opt: host.storage_opt.unwrap_or_default(),
        sysctls: host.sysctls.unwrap_or_default(),
        runtime: host.runtime,
        init: host.init,
        masked_paths: host.masked_paths,
        readonly_paths: host.readonly_paths,
        isolation: host.isolation,
    })
}

fn out_of_range(field: &str) -> Failure {
    Failure::invalid(format!("invalid JSON: {field} is out of range"))
}

fn shm_size(bytes: i64) -> Result<Option<u64>> {
    match u64::try_from(bytes) {
        Ok(0) => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        // Source: moby 28.2 `runconfig/hostconfig_unix.go`.
        Err(_) => Err(Failure::invalid("SHM size can not be less than 0")),
    }
}

/// Rows and columns, when both are there.
pub fn console_size([rows, columns]: [u64; 2]) -> Option<(u16, u16)> {
    let side = |cells: u64| u16::try_from(cells).ok().filter(|cells| *cells > 0);
    Some((side(rows)?, side(columns)?))
}

fn addresses(texts: Vec<String>) -> Result<Vec<std::net::IpAddr>> {
    texts
        .iter()
        .map(|text| {
            text.parse().map_err(|_| {
                Failure::invalid(format!("bad DNS address: {text} is not an IP address"))
            })
        })
        .collect()
}

fn ports(bindings: api::container::PortMap) -> Result<Vec<wish::PortBinding>> {
    let mut ports = Vec::new();
    for (port, places) in bindings {
        let container: wish::Port = port.parse()?;
        if container.number == 0 {
            return Err(Failure::invalid(format!("invalid port specification: {port:?}")));
        }
        // A port without a place is published on any free one.
        let places = places.filter(|places| !places.is_empty());
        for place in places.unwrap_or_else(|| vec![api::container::PortBinding::default()]) {
            let host_ip = match place.host_ip.as_str() {
                "" => None,
                text => Some(text.parse().map_err(|_| {
                    Failure::invalid(format!(
                        "invalid port specification: invalid IP address: {text}"
                    ))
                })?),
            };
            let valid = |text: &str| text.is_empty() || text.parse::<u16>().is_ok();
            // Source: moby 28.2 `daemon/container.go`, `validatePortBindings`.
            if !place.host_port.split('-').all(valid) || place.host_port.matches('-').count() > 1 {
                return Err(Failure::invalid(format!(
                    "invalid port specification: {:?}",
                    place.host_port
                )));
            }
            ports.push(wish::PortBinding { container, host_ip, host_port: place.host_port });
        }
    }
    Ok(ports)
}

fn mount(mount: Mount) -> Result<wish::MountSpec> {
    Ok(wish::MountSpec {
        kind: mount.kind.parse()?,
        source: mount.source,
        target: mount.target,
        read_only: mount.read_only,
        consistency: mount.consistency,
        bind: mount.bind_options.map(|bind| wish::BindOptions {
            propagation: bind.propagation,
            non_recursive: bind.non_recursive,
            create_mountpoint: bind.create_mountpoint,
            read_only_non_recursive: bind.read_only_non_recursive,
            read_only_force_recursive: bind.read_only_force_recursive,
        }),
        volume: mount.volume_options.map(|volume| {
            let driver = volume.driver_config.unwrap_or_default();
            wish::VolumeOptions {
                no_copy: volume.no_copy,
                labels: volume.labels.unwrap_or_default(),
                subpath: volume.subpath,
                driver: driver.name,
                driver_options: driver.options.unwrap_or_default(),
            }
        }),
        image: mount.image_options.map(|image| wish::ImageOptions { subpath: image.subpath }),
        tmpfs: mount.tmpfs_options.map(|tmpfs| wish::TmpfsOptions {
            size_bytes: tmpfs.size_bytes,
            mode: (tmpfs.mode != 0).then_some(tmpfs.mode),
            options: tmpfs.options.unwrap_or_default(),
        }),
    })
}

fn throttles(devices: Option<&Vec<api::container::ThrottleDevice>>) -> Vec<wish::ThrottleDevice> {
    let devices = devices.into_iter().flatten();
    devices
        .map(|device| wish::ThrottleDevice { path: device.path.clone(), rate: device.rate })
        .collect()
}

/// The limits that an update changes. Lists of devices can be set at create alone.
///
/// Source: moby 28.2 `container_routes.go` `postContainerUpdate`.
pub fn update(version: ApiVersion, body: &HostConfig) -> Result<wish::Resources> {
    let mut limits = resources(body)?;
    limits.pids_limit = match limits.pids_limit {
        _ if version < v(40) => None,
        // Both lift the limit that there is.
        Some(..=0) => Some(0),
        limit => limit,
    };
    if version >= v(42) {
        limits.kernel_memory = 0;
    }
    limits.blkio_weight_device.clear();
    limits.blkio_device_read_bps.clear();
    limits.blkio_device_write_bps.clear();
    limits.blkio_device_read_iops.clear();
    limits.blkio_device_write_iops.clear();
    Ok(limits)
}

/// The limits of create and update.
pub fn resources(host: &HostConfig) -> Result<wish::Resources> {
    let mut ulimits = Vec::new();
    for ulimit in host.ulimits.iter().flatten() {
        if ulimit.name.is_empty() {
            return Err(Failure::invalid("invalid ulimit: it has no name"));
        }
        ulimits.push(wish::Ulimit {
            name: ulimit.name.clone(),
            soft: ulimit.soft,
            hard: ulimit.hard,
        });
    }
    Ok(wish::Resources {
        cpu_shares: host.cpu_shares,
        memory: host.memory,
        nano_cpus: host.nano_cpus,
        cgroup_parent: host.cgroup_parent.clone(),
        blkio_weight: host.blkio_weight,
        blkio_weight_device: host
            .blkio_weight_device
            .iter()
            .flatten()
            .map(|device| wish::WeightDevice { path: device.path.clone(), weight: device.weight })
            .collect(),
        blkio_device_read_bps: throttles(host.blkio_device_read_bps.as_ref()),
        blkio_device_write_bps: throttles(host.blkio_device_write_bps.as_ref()),
        blkio_device_read_iops: throttles(host.blkio_device_read_iops.as_ref()),
        blkio_device_write_iops: throttles(host.blkio_device_write_iops.as_ref()),
        cpu_period: host.cpu_period,
        cpu_quota: host.cpu_quota,
        cpu_realtime_period: host.cpu_realtime_period,
        cpu_realtime_runtime: host.cpu_realtime_runtime,
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        devices: host
            .devices
            .iter()
            .flatten()
            .map(|device| wish::DeviceMapping {
                host: device.path_on_host.clone(),
                container: device.path_in_container.clone(),
                permissions: device.cgroup_permissions.clone(),
            })
            .collect(),
        device_cgroup_rules: host.device_cgroup_rules.clone().unwrap_or_default(),
        device_requests: host
            .device_requests
            .iter()
            .flatten()
            .map(|request| wish::DeviceRequest {
                driver: request.driver.clone(),
                count: request.count,
                device_ids: request.device_ids.clone().unwrap_or_default(),
                capabilities: request.capabilities.clone().unwrap_or_default(),
                options: request.options.clone().unwrap_or_default(),
            })
            .collect(),
        kernel_memory: host.kernel_memory,
        kernel_memory_tcp: host.kernel_memory_tcp,
        memory_reservation: host.memory_reservation,
        memory_swap: host.memory_swap,
        // -1 is how old clients said "not set".
        memory_swappiness: host.memory_swappiness.filter(|value| *value != -1),
        oom_kill_disable: host.oom_kill_disable,
        pids_limit: host.pids_limit,
        ulimits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn parse(minor: u32, json: &str) -> Result<wish::CreateRequest> {
        parse_with_warnings(minor, json).map(|(request, _)| request)
    }

    fn parse_with_warnings(minor: u32, json: &str) -> Result<(wish::CreateRequest, Vec<String>)> {
        let named = json.replacen('{', r#"{"Image":"i","#, 1).replacen(",}", "}", 1);
        let body = CreateRequest::from_slice(named.as_bytes()).unwrap().unwrap();
        create(v(minor), "n", "", body)
    }

    #[track_caller]
    fn check(minor: u32, json: &str, want: Expect) {
        want.assert_eq(&match parse_with_warnings(minor, json) {
            Ok((request, warnings)) if warnings.is_empty() => {
                let ports = request.spec.host.ports.iter();
                let ports = ports.map(|port| {
                    let ip = port.host_ip.map_or_else(|| "any".to_owned(), |ip| ip.to_string());
                    format!("{} at {ip} {:?}", port.container, port.host_port)
                });
                ports.collect::<Vec<_>>().join("; ")
            }
            Ok((_, warnings)) => warnings.join("; "),
            Err(failure) => format!("{}: {}", failure.status.as_u16(), failure.message),
        });
    }

    #[test]
    fn ports_are_published_where_they_are_bound() {
        check(
            50,
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"8080"}],"53/udp":null}}}"#,
            expect![[r#"53/udp at any ""; 80/tcp at any "8080""#]],
        );
        let empty = r#"{"HostConfig":{"PortBindings":{"80/tcp":[]}}}"#;
        check(50, empty, expect![[r#"80/tcp at any """#]]);
    }

    #[test]
    fn what_a_version_did_not_have_is_refused_or_left_out() {
        let mount = |json: &str| format!(r#"{{"HostConfig":{{"Mounts":[{json}]}}}}"#);
        let told = |minor, json: &str, want: Expect| check(minor, &mount(json), want);
        let volume_options = r#"{"Type":"bind","Source":"/a","Target":"/b","VolumeOptions":{}}"#;
        told(
            50,
            volume_options,
            expect![[r#"400: VolumeOptions must not be specified on mount type "bind""#]],
        );
        told(41, volume_options, expect![""]);
        let force = r#"{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"ReadOnlyForceRecursive":true}}"#;
        told(
            43,
            force,
            expect!["400: BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"],
        );
        let subpath =
            r#"{"Type":"volume","Source":"a","Target":"/b","VolumeOptions":{"Subpath":"x"}}"#;
        told(44, subpath, expect!["400: VolumeOptions.Subpath needs API v1.45 or newer"]);
        let image = r#"{"Type":"image","Source":"a","Target":"/b"}"#;
        told(47, image, expect![[r#"400: Mount type "Image" needs API v1.48 or newer"#]]);
        let noted = r#"{"HostConfig":{"Annotations":{"a":"b"},"PidsLimit":-1}}"#;
        let host = |minor| parse(minor, noted).unwrap().spec.host;
        assert_eq!(host(42).annotations.len(), 0);
        assert_eq!((host(43).annotations.len(), host(43).resources.pids_limit), (1, None));
        let cluster = r#"{"Type":"volume","Source":"a","Target":"/b","ClusterOptions":{}}"#;
        told(
            50,
            cluster,
            expect!["400: ClusterOptions needs a swarm manager, and this node is none"],
        );
    }

    #[test]
    fn what_stands_in_an_old_place_is_warned_of() {
        let mac = r#"{"MacAddress":"02:00:00:00:00:01"}"#;
        check(43, mac, expect![""]);
        check(
            50,
            mac,
            expect![
                "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
            ],
        );
        check(
            50,
            r#"{"MacAddress":"02:00:00:00:00:01","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"02:00:00:00:00:02"}}}}"#,
            expect![
                "400: the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty"
            ],
        );
        check(
            43,
            r#"{"MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"host"}}"#,
            expect!["400: conflicting options: mac-address and the network mode"],
        );
        let driver = r#"{"HostConfig":{"VolumeDriver":"local","Mounts":[{"Type":"volume","Source":"a","Target":"/b"}]}}"#;
        check(47, driver, expect![""]);
        check(
            50,
            driver,
            expect![
                "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead"
            ],
        );
    }

    #[test]
    fn an_update_lifts_a_limit_of_processes_and_leaves_lists_of_devices() {
        let json = r#"{"PidsLimit":-1,"KernelMemory":9,"BlkioWeightDevice":[{"Path":"/a","Weight":9}],"BlkioDeviceReadBps":[{"Path":"/a","Rate":9}]}"#;
        let body: HostConfig = api::golang::from_slice(json.as_bytes()).unwrap();
        let lifted = wish::Resources { pids_limit: Some(0), ..wish::Resources::default() };
        assert_eq!(update(v(50), &body).unwrap(), lifted);
        assert_eq!(update(v(39), &body).unwrap().kernel_memory, 9);
    }

    #[test]
    fn bad_ports_are_refused() {
        check(
            50,
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"x"}]}}}"#,
            expect![[r#"400: invalid port specification: "x""#]],
        );
        check(
            50,
            r#"{"HostConfig":{"PortBindings":{"x/tcp":[{"HostPort":"1"}]}}}"#,
            expect![[r#"400: invalid port specification: "x/tcp""#]],
        );
    }

    #[test]
    fn the_default_network_is_called_bridge() {
        let body = r#"{"NetworkingConfig":{"EndpointsConfig":{"default":{"MacAddress":"02:00:00:00:00:01"}}}}"#;
        let spec = parse(50, body).unwrap().spec;
        let [(name, wish)] = &Vec::from_iter(spec.endpoints)[..] else { panic!("one endpoint") };
        assert_eq!((name.as_str(), wish.mac_address.as_str()), ("bridge", "02:00:00:00:00:01"));
    }

    #[test]
    fn settings_of_eth0_are_its_networks() {
        let check = |minor: u32, name: &str, want: Expect| {
            let json = format!(
                r#"{{"Image":"i","HostConfig":{{"Sysctls":{{"net.ipv6.conf.{name}.accept_ra":"2"}}}}}}"#
            );
            let body = CreateRequest::from_slice(json.as_bytes()).unwrap().unwrap();
            want.assert_eq(&match create(v(minor), "n", "", body) {
                Ok((request, warnings)) => {
                    let options = request.spec.endpoints.get("bridge").map(|one| &one.driver_opts);
                    format!("{options:?} {warnings:?}")
                }
                Err(failure) => format!("{}: {}", failure.status.as_u16(), failure.message),
            });
        };
        check(
            47,
            "eth0",
            expect![[
                r#"Some({"com.docker.network.endpoint.sysctls": "net.ipv6.conf.IFNAME.accept_ra=2"}) ["Migrated sysctl \"net.ipv6.conf.eth0.accept_ra\" to DriverOpts{\"com.docker.network.endpoint.sysctls\":\"net.ipv6.conf.IFNAME.accept_ra=2\"}."]"#
            ]],
        );
        check(
            47,
            "eth1",
            expect![
                "400: unable to determine network endpoint for sysctl net.ipv6.conf.eth1.accept_ra, use driver option 'com.docker.network.endpoint.sysctls' to set per-interface sysctls"
            ],
        );
        check(
            48,
            "eth0",
            expect![[
                r#"400: interface specific sysctl setting "net.ipv6.conf.eth0.accept_ra" must be supplied using driver option 'com.docker.network.endpoint.sysctls'"#
            ]],
        );
        check(48, "all", expect!["None []"]);
    }

    #[test]
    fn old_versions_allow_one_network_only() {
        let two = r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}"#;
        check(
            43,
            two,
            expect!["400: Container cannot be created with multiple network endpoints: a, b"],
        );
        check(44, two, expect![""]);
    }

    #[test]
    fn old_clients_shared_ipc_and_the_cgroup_namespace() {
        let host = parse(39, "{}").unwrap().spec.host;
        assert_eq!((host.ipc, host.cgroupns), (wish::IpcMode::Shareable, wish::CgroupnsMode::Host));
        let host = parse(41, "{}").unwrap().spec.host;
        assert_eq!((host.ipc, host.cgroupns), (wish::IpcMode::Unset, wish::CgroupnsMode::Unset));
    }

    #[test]
    fn a_console_has_two_sides() {
        assert_eq!(console_size([24, 80]), Some((24, 80)));
        assert_eq!(console_size([0, 80]), None);
    }
}
