//! Ping, version, info and login.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use api::body::Body;
use api::compat::{self, Answer as Shape};
use api::system as docker;
use api::version;
use engine::Live;

use crate::http::reply::{self, Result};
use crate::http::{Call, Failure};

/// What clients compare with Docker's releases; behind the plus stands our own.
pub const SERVER_VERSION: &str = concat!("28.2.2+tug", env!("CARGO_PKG_VERSION"));

/// In the places where Docker names the commit it was built from.
const COMMIT: &str = concat!("tug", env!("CARGO_PKG_VERSION"));

/// What it was compiled with, where Docker names its Go.
const COMPILER: &str = concat!("rust", env!("CARGO_PKG_RUST_VERSION"));

/// Docker Hub's key in `config.json` and info.
const INDEX_SERVER: &str = "https://index.docker.io/v1/";

pub fn ping() -> Result {
    let mut reply = reply::stream("text/plain; charset=utf-8", Body::full("OK"));
    reply::set(&mut reply, "cache-control", "no-cache, no-store, must-revalidate");
    reply::set(&mut reply, "pragma", "no-cache");
    // 1 is the classic builder: it is the one that is here.
    reply::set(&mut reply, "builder-version", "1");
    reply::set(&mut reply, "swarm", "inactive");
    Ok(reply.into())
}

/// Go's name of the architecture, which clients expect.
fn architecture() -> String {
    spec::Platform::host().architecture
}

fn kernel_version() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

pub fn version(call: &Call) -> Result {
    let details = BTreeMap::from(
        [
            ("ApiVersion", version::MAX.to_string()),
            ("Arch", architecture()),
            ("BuildTime", String::new()),
            ("Experimental", call.state.experimental.to_string()),
            ("GitCommit", COMMIT.to_owned()),
            ("GoVersion", COMPILER.to_owned()),
            ("KernelVersion", kernel_version()),
            ("MinAPIVersion", version::MIN.to_string()),
            ("Os", "linux".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    reply::ok(&docker::Version {
        platform: docker::Platform { name: concat!("Tug ", env!("CARGO_PKG_VERSION")).to_owned() },
        components: vec![docker::ComponentVersion {
            name: "Engine".to_owned(),
            version: SERVER_VERSION.to_owned(),
            details: Some(details),
        }],
        version: SERVER_VERSION.to_owned(),
        api_version: version::MAX.to_string(),
        min_api_version: version::MIN.to_string(),
        git_commit: COMMIT.to_owned(),
        go_version: COMPILER.to_owned(),
        os: "linux".to_owned(),
        arch: architecture(),
        kernel_version: kernel_version(),
        experimental: call.state.experimental,
        build_time: String::new(),
    })
}

pub async fn info(call: &Call) -> Result {
    let facts = call.engine.info().await?;
    let mut value = serde_json::to_value(info_of(call, facts))
        .map_err(|error| Failure::internal(error.to_string()))?;
    compat::downgrade(Shape::Info, call.version, &mut value);
    reply::ok(&value)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn info_of(call: &Call, facts: engine::system::Info) -> docker::Info {
    let (config, live) = (call.engine.config(), call.engine.live());
    let mut warnings = facts.warnings;
    warnings.extend(call.state.warnings.iter().cloned());
    docker::Info {
        id: facts.id,
        containers: count(facts.containers),
        containers_running: count(facts.running),
        containers_paused: count(facts.paused),
        containers_stopped: count(facts.stopped),
        images: count(facts.images),
        driver: facts.storage_driver,
        driver_status: facts.storage_status.into_iter().map(|(key, value)| [key, value]).collect(),
        plugins: plugins(),
        ipv4_forwarding: facts.ipv4_forwarding,
        debug: live.debug,
        n_fd: count(facts.open_fds),
        system_time: crate::convert::time(Some(std::time::SystemTime::now())),
        logging_driver: config.log.driver.clone(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: facts.cgroup_version.to_string(),
        n_events_listener: count(facts.events_listeners),
        kernel_version: facts.kernel_version,
        operating_system: facts.operating_system,
        os_version: facts.os_version,
        os_type: "linux".to_owned(),
        architecture: facts.architecture,
        index_server_address: INDEX_SERVER.to_owned(),
        registry_config: registry_config(&live),
        n_cpu: count(facts.cpus),
        mem_total: i64::try_from(facts.memory).unwrap_or(i64::MAX),
        docker_root_dir: config.data_root.to_string_lossy().into_owned(),
        http_proxy: config.proxies.http.clone(),
        https_proxy: config.proxies.https.clone(),
        no_proxy: config.proxies.no.clone(),
        name: facts.name,
        labels: live.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        experimental_build: call.state.experimental,
        server_version: SERVER_VERSION.to_owned(),
        runtimes: facts
            .runtimes
            .into_iter()
            .map(|name| (name, docker::Runtime::default()))
            .collect(),
        default_runtime: live.default_runtime.clone(),
        swarm: docker::SwarmInfo::default(),
        live_restore_enabled: call.state.live_restore.load(Ordering::Relaxed),
        init_binary: "docker-init".to_owned(),
        security_options: facts.security_options,
        default_address_pools: config
            .network
            .address_pools
            .iter()
            .map(|(base, length, size)| docker::AddressPool {
                base: format!("{base}/{length}"),
                size: i64::from(*size),
            })
            .collect(),
        firewall_backend: Some(docker::FirewallInfo { driver: "nftables".to_owned(), info: None }),
        cdi_spec_dirs: call.state.cdi_spec_dirs.clone(),
        n_goroutines: count(tokio::runtime::Handle::current().metrics().num_alive_tasks()),
        // All in one program.
        containerd_commit: own_commit(),
        runc_commit: own_commit(),
        init_commit: own_commit(),
        warnings: (!warnings.is_empty()).then_some(warnings),
        ..supported(facts.limits)
    }
}

fn own_commit() -> docker::Commit {
    docker::Commit { id: COMMIT.to_owned() }
}

/// Which limits can be set; the rest is empty.
fn supported(limits: engine::system::LimitSupport) -> docker::Info {
    docker::Info {
        memory_limit: limits.memory,
        swap_limit: limits.swap,
        cpu_cfs_period: limits.cpu_cfs_period,
        cpu_cfs_quota: limits.cpu_cfs_quota,
        cpu_shares: limits.cpu_shares,
        cpu_set: limits.cpu_set,
        pids_limit: limits.pids,
        oom_kill_disable: limits.oom_kill_disable,
        ..docker::Info::default()
    }
}

fn plugins() -> docker::Plugins {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    docker::Plugins {
        volume: names(&["local"]),
        network: names(&["bridge", "host", "null"]),
        authorization: None,
        log: names(&["json-file", "local", "none"]),
    }
}

fn registry_config(live: &Live) -> docker::RegistryConfig {
    let insecure = &live.insecure_registries;
    let is_range = |text: &str| text.contains('/');
    let hosts = insecure.iter().filter(|text| !is_range(text));
    let index = |name: &str, secure, official, mirrors| {
        let info = docker::IndexInfo { name: name.to_owned(), mirrors, secure, official };
        (name.to_owned(), info)
    };
    let mirrors = live.registry_mirrors.clone();
    let hub = index("docker.io", true, true, mirrors.clone());
    let local = ["::1/128", "127.0.0.0/8"].map(str::to_owned);
    docker::RegistryConfig {
        allow_nondistributable_artifacts_cidrs: None,
        allow_nondistributable_artifacts_hostnames: None,
        insecure_registry_cidrs: local
            .into_iter()
            .chain(insecure.iter().filter(|text| is_range(text)).cloned())
            .collect(),
        index_configs: hosts
            .map(|host| index(host, false, false, Vec::new()))
            .chain([hub])
            .collect(),
        mirrors: (!mirrors.is_empty()).then_some(mirrors),
    }
}

/// Whether a registry takes credentials.
pub async fn auth(mut call: Call) -> Result {
    let config: docker::AuthConfig = call.json().await?.unwrap_or_default();
    let registry = match config.server_address.as_str() {
        "" => INDEX_SERVER,
        address => address,
    };
    let registry = registry.to_owned();
    let token = call.engine.login(&registry, super::registry::credentials(config)).await?;
    reply::ok(&docker::AuthResponse {
        identity_token: token.unwrap_or_default(),
        status: "Login Succeeded".to_owned(),
    })
}
