//! Containers as Docker's inspect shows them. Lists are in [`super::rows`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::container as docker;
use api::network::{EndpointIpamConfig, EndpointSettings};
use engine::containers::spec as wish;
use engine::containers::views as view;

use super::time;

/// `null` for an empty list, where Docker's clients leave the list out.
fn null<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

fn null_map<K, V>(items: BTreeMap<K, V>) -> Option<BTreeMap<K, V>> {
    (!items.is_empty()).then_some(items)
}

pub fn inspect(container: view::ContainerView) -> docker::Inspect {
    let view::ContainerView {
        id,
        name,
        created_at,
        image,
        spec,
        log,
        shm_size,
        runtime,
        init: _,
        masked_paths,
        readonly_paths,
        apparmor_profile,
        state,
        restart_count,
        path,
        args,
        resolv_conf_path,
        hostname_path,
        hosts_path,
        log_path,
        exec_ids,
        mounts,
        network,
        storage,
        size,
        platform,
    } = container;
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    // The address asked for on the main network stands in its old place, too.
    let mut spec = spec;
    if let Some(main) = network.endpoints.get(&spec.host.network.to_string())
        && spec.mac_address.is_empty()
    {
        spec.mac_address.clone_from(&main.wish.mac_address);
    }
    let mut host = host_config(spec.host.clone());
    host.log_config = docker::LogConfig { kind: log.driver, config: Some(log.options) };
    host.shm_size = i64::try_from(shm_size).unwrap_or(i64::MAX);
    host.runtime = runtime;
    host.masked_paths = Some(masked_paths);
    host.readonly_paths = Some(readonly_paths);
    docker::Inspect {
        id: id.to_string(),
        created: time(Some(created_at)),
        path,
        args,
        state: self::state(state),
        image: image.to_string(),
        resolv_conf_path: text(resolv_conf_path),
        hostname_path: text(hostname_path),
        hosts_path: text(hosts_path),
        log_path: text(log_path),
        name: format!("/{name}"),
        restart_count: restart_count.into(),
        driver: storage.driver.clone(),
        platform,
        mount_label: String::new(),
        process_label: String::new(),
        app_armor_profile: apparmor_profile,
        exec_ids: null(exec_ids.iter().map(ToString::to_string).collect()),
        host_config: host,
        graph_driver: docker::GraphDriver { data: Some(storage.data), name: storage.driver },
        size_rw: size.map(|size| bytes(size.writable)),
        size_root_fs: size.map(|size| bytes(size.total)),
        mounts: mounts.into_iter().map(mount_point).collect(),
        config: config(spec),
        network_settings: network_settings(network),
    }
}

pub(super) fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn state(state: view::StateView) -> docker::State {
    docker::State {
        status: state.status.name().to_owned(),
        running: state.running,
        paused: state.paused,
        restarting: state.restarting,
        oom_killed: state.oom_killed,
        dead: state.dead,
        pid: state.pid.into(),
        exit_code: state.exit_code.into(),
        error: state.error,
        started_at: time(state.started_at),
        finished_at: time(state.finished_at),
        health: state.health.map(|health| docker::Health {
            status: health.status.name().to_owned(),
            failing_streak: health.failing_streak.into(),
            log: Some(health.log.into_iter().map(health_result).collect()),
        }),
    }
}

fn health_result(result: view::HealthResult) -> docker::HealthResult {
    docker::HealthResult {
        start: time(Some(result.start)),
        end: time(Some(result.end)),
        exit_code: result.exit_code.into(),
        output: result.output,
    }
}

/// The container's config: what images have too, and what only containers have.
fn config(spec: wish::ContainerSpec) -> docker::Config {
    let exposed: BTreeMap<_, _> =
        spec.exposed_ports().into_iter().map(|port| (port.to_string(), docker::Unit {})).collect();
    let image = spec.config;
    docker::Config {
        hostname: spec.hostname,
        domainname: spec.domainname,
        user: image.user,
        attach_stdin: spec.attach_stdin,
        attach_stdout: spec.attach_stdout,
        attach_stderr: spec.attach_stderr,
        exposed_ports: null_map(exposed),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        env: Some(image.env),
        cmd: docker::StrSlice(image.cmd),
        healthcheck: image.healthcheck.map(health_config),
        args_escaped: image.args_escaped,
        image: spec.image,
        volumes: null_map(image.volumes.into_keys().map(|path| (path, docker::Unit {})).collect()),
        working_dir: image.working_dir,
        entrypoint: docker::StrSlice(image.entrypoint),
        network_disabled: spec.network_disabled,
        // For clients that know of no other place.
        // Source: moby 28.2 `daemon/inspect.go`.
        mac_address: if spec.mac_address.is_empty() {
            spec.endpoints
                .get(&spec.host.network.to_string())
                .map(|endpoint| endpoint.mac_address.clone())
                .unwrap_or_default()
        } else {
            spec.mac_address
        },
        on_build: null(image.on_build),
        labels: Some(image.labels),
        stop_signal: image.stop_signal,
        stop_timeout: image.stop_timeout,
        shell: docker::StrSlice(null(image.shell)),
    }
}

pub fn health_config(health: spec::image::Healthcheck) -> docker::HealthConfig {
    docker::HealthConfig {
        test: null(health.test),
        interval: health.interval,
        timeout: health.timeout,
        start_period: health.start_period,
        start_interval: health.start_interval,
        retries: health.retries,
    }
}

/// Lists that the docker CLI always sends are `[]` when empty, the others `null`, as in an
/// inspect of Docker's after `docker run`.
fn host_config(host: wish::HostSpec) -> docker::HostConfig {
    let (rows, columns) = host.console_size.unwrap_or_default();
    docker::HostConfig {
        binds: null(host.binds),
        container_id_file: host.container_id_file,
        log_config: docker::LogConfig::default(),
        network_mode: host.network.to_string(),
        port_bindings: Some(port_bindings(&host.ports)),
        restart_policy: docker::RestartPolicy {
            name: host.restart.name().to_owned(),
            maximum_retry_count: host.restart.retries().into(),
        },
        auto_remove: host.auto_remove,
        volume_driver: host.volume_driver,
        volumes_from: null(host.volumes_from),
        console_size: [rows.into(), columns.into()],
        annotations: null_map(host.annotations),
        cap_add: docker::StrSlice(null(host.cap_add)),
        cap_drop: docker::StrSlice(null(host.cap_drop)),
        cgroupns_mode: host.cgroupns.to_string(),
        dns: Some(host.dns.iter().map(ToString::to_string).collect()),
        dns_options: Some(host.dns_options),
        dns_search: Some(host.dns_search),
        extra_hosts: null(host.extra_hosts),
        group_add: null(host.group_add),
        ipc_mode: host.ipc.to_string(),
        cgroup: host.cgroup,
        links: null(host.links),
        oom_score_adj: host.oom_score_adj.into(),
        pid_mode: host.pid.to_string(),
        privileged: host.privileged,
        publish_all_ports: host.publish_all_ports,
        readonly_rootfs: host.read_only_rootfs,
        security_opt: null(host.security_opt.into()),
        storage_opt: null_map(host.storage_opt),
        tmpfs: null_map(host.tmpfs),
        uts_mode: host.uts.to_string(),
        userns_mode: host.userns.to_string(),
        shm_size: 0,
        sysctls: null_map(host.sysctls),
        runtime: host.runtime,
        isolation: host.isolation,
        mounts: null(host.mounts.into_iter().map(mount).collect()),
        masked_paths: host.masked_paths,
        readonly_paths: host.readonly_paths,
        init: host.init,
        ..limits(host.resources)
    }
}

/// The fields that update can change; the rest is empty.
fn limits(limits: wish::Resources) -> docker::HostConfig {
    docker::HostConfig {
        cpu_shares: limits.cpu_shares,
        memory: limits.memory,
        nano_cpus: limits.nano_cpus,
        cgroup_parent: limits.cgroup_parent,
        blkio_weight: limits.blkio_weight,
        blkio_weight_device: Some(
            limits
                .blkio_weight_device
                .into_iter()
                .map(|device| docker::WeightDevice { path: device.path, weight: device.weight })
                .collect(),
        ),
        blkio_device_read_bps: Some(throttles(limits.blkio_device_read_bps)),
        blkio_device_write_bps: Some(throttles(limits.blkio_device_write_bps)),
        blkio_device_read_iops: Some(throttles(limits.blkio_device_read_iops)),
        blkio_device_write_iops: Some(throttles(limits.blkio_device_write_iops)),
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpu_realtime_period: limits.cpu_realtime_period,
        cpu_realtime_runtime: limits.cpu_realtime_runtime,
        cpuset_cpus: limits.cpuset_cpus,
        cpuset_mems: limits.cpuset_mems,
        devices: Some(limits.devices.into_iter().map(device).collect()),
        device_cgroup_rules: null(limits.device_cgroup_rules),
        device_requests: null(limits.device_requests.into_iter().map(device_request).collect()),
        kernel_memory: limits.kernel_memory,
        kernel_memory_tcp: limits.kernel_memory_tcp,
        memory_reservation: limits.memory_reservation,
        memory_swap: limits.memory_swap,
        memory_swappiness: limits.memory_swappiness,
        oom_kill_disable: Some(limits.oom_kill_disable.unwrap_or(false)),
        pids_limit: limits.pids_limit,
        ulimits: Some(
            limits
                .ulimits
                .into_iter()
                .map(|ulimit| docker::Ulimit {
                    name: ulimit.name,
                    hard: ulimit.hard,
                    soft: ulimit.soft,
                })
                .collect(),
        ),
        ..docker::HostConfig::default()
    }
}

fn throttles(devices: Vec<wish::ThrottleDevice>) -> Vec<docker::ThrottleDevice> {
    devices
        .into_iter()
        .map(|device| docker::ThrottleDevice { path: device.path, rate: device.rate })
        .collect()
}

fn device(device: wish::DeviceMapping) -> docker::DeviceMapping {
    docker::DeviceMapping {
        path_on_host: device.host,
        path_in_container: device.container,
        cgroup_permissions: device.permissions,
    }
}

fn device_request(request: wish::DeviceRequest) -> docker::DeviceRequest {
    docker::DeviceRequest {
        driver: request.driver,
        count: request.count,
        device_ids: null(request.device_ids),
        capabilities: null(request.capabilities),
        options: Some(request.options),
    }
}

fn port_bindings(ports: &[wish::PortBinding]) -> docker::PortMap {
    let mut bindings = docker::PortMap::new();
    for port in ports {
        let places = bindings.entry(port.container.to_string()).or_default();
        places.get_or_insert_default().push(docker::PortBinding {
            host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_port: port.host_port.clone(),
        });
    }
    bindings
}

fn mount(mount: wish::MountSpec) -> docker::Mount {
    docker::Mount {
        kind: mount.kind.to_string(),
        source: mount.source,
        target: mount.target,
        read_only: mount.read_only,
        consistency: mount.consistency,
        bind_options: mount.bind.map(|bind| docker::BindOptions {
            propagation: bind.propagation,
            non_recursive: bind.non_recursive,
            create_mountpoint: bind.create_mountpoint,
            read_only_non_recursive: bind.read_only_non_recursive,
            read_only_force_recursive: bind.read_only_force_recursive,
        }),
        volume_options: mount.volume.map(|volume| docker::VolumeOptions {
            no_copy: volume.no_copy,
            labels: null_map(volume.labels),
            subpath: volume.subpath,
            driver_config: (!volume.driver.is_empty() || !volume.driver_options.is_empty())
                .then_some(docker::Driver {
                    name: volume.driver,
                    options: null_map(volume.driver_options),
                }),
        }),
        image_options: mount.image.map(|image| docker::ImageOptions { subpath: image.subpath }),
        tmpfs_options: mount.tmpfs.map(|tmpfs| docker::TmpfsOptions {
            size_bytes: tmpfs.size_bytes,
            mode: tmpfs.mode.unwrap_or_default(),
            options: null(tmpfs.options),
        }),
        cluster_options: None,
    }
}

fn mount_point(mount: view::MountPoint) -> docker::MountPoint {
    docker::MountPoint {
        kind: mount.kind.to_string(),
        name: mount.name,
        source: mount.source,
        destination: mount.destination,
        driver: mount.driver,
        mode: mount.mode,
        rw: mount.writable,
        propagation: mount.propagation,
    }
}

fn address(address: Option<IpAddr>) -> String {
    address.map(|address| address.to_string()).unwrap_or_default()
}

fn endpoint(endpoint: view::EndpointView) -> EndpointSettings {
    let wish = endpoint.wish;
    let ipam = EndpointIpamConfig {
        ipv4_address: wish.ipv4_address,
        ipv6_address: wish.ipv6_address,
        link_local_ips: null(wish.link_local_ips),
    };
    EndpointSettings {
        ipam_config: (ipam != EndpointIpamConfig::default()).then_some(ipam),
        links: null(wish.links),
        aliases: null(wish.aliases),
        mac_address: endpoint.mac_address,
        driver_opts: null_map(wish.driver_opts),
        gw_priority: wish.gw_priority,
        network_id: endpoint.network_id,
        endpoint_id: endpoint.endpoint_id,
        gateway: address(endpoint.gateway),
        ip_address: address(endpoint.address),
        ip_prefix_len: endpoint.prefix_len.into(),
        ipv6_gateway: address(endpoint.gateway6),
        global_ipv6_address: address(endpoint.address6),
        global_ipv6_prefix_len: endpoint.prefix_len6.into(),
        dns_names: null(endpoint.dns_names),
    }
}

fn endpoints(
    endpoints: BTreeMap<String, view::EndpointView>,
) -> BTreeMap<String, EndpointSettings> {
    let endpoints = endpoints.into_iter();
    endpoints.map(|(name, view)| (name, endpoint(view))).collect()
}

fn network_settings(network: view::NetworkView) -> docker::NetworkSettings {
    let networks = endpoints(network.endpoints);
    // What stood at the top before there were several networks: the default bridge's values.
    let bridge = networks.get("bridge").cloned().unwrap_or_default();
    let ports = network.ports.into_iter().map(|(port, places)| {
        let places = places.map(|places| {
            let places = places.into_iter();
            places
                .map(|place| docker::PortBinding {
                    host_ip: place.ip.to_string(),
                    host_port: place.port.to_string(),
                })
                .collect()
        });
        (port.to_string(), places)
    });
    docker::NetworkSettings {
        bridge: String::new(),
        sandbox_id: network.sandbox_id,
        sandbox_key: network.sandbox_key,
        ports: Some(ports.collect()),
        hairpin_mode: false,
        link_local_ipv6_address: String::new(),
        link_local_ipv6_prefix_len: 0,
        secondary_ip_addresses: None,
        secondary_ipv6_addresses: None,
        endpoint_id: bridge.endpoint_id,
        gateway: bridge.gateway,
        global_ipv6_address: bridge.global_ipv6_address,
        global_ipv6_prefix_len: bridge.global_ipv6_prefix_len,
        ip_address: bridge.ip_address,
        ip_prefix_len: bridge.ip_prefix_len,
        ipv6_gateway: bridge.ipv6_gateway,
        mac_address: bridge.mac_address,
        networks: Some(networks),
    }
}
