//! What the daemon's flags and `daemon.json` decide for the engine, parsed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use crate::builds::{CacheBudget, CachePrune};
use crate::containers::spec::{CgroupnsMode, IpcMode, LogSpec, Ulimit};

/// Settings of one engine. `Default` is Docker's default with Tug's paths.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    pub data_root: PathBuf,
    pub exec_root: PathBuf,
    /// The program that monitors and inits are started from: this binary.
    pub exe: PathBuf,
    pub storage_driver: Option<String>,
    /// What any one archive may unpack to, in bytes; none leaves it to how much of it came.
    pub unpacked_max: Option<u64>,
    pub unpacking: Unpacking,
    pub live: Live,
    pub log: LogSpec,
    pub default_ulimits: Vec<Ulimit>,
    pub default_ipc: IpcMode,
    pub default_cgroupns: CgroupnsMode,
    /// Empty means `/docker`.
    pub cgroup_parent: String,
    pub init: bool,
    pub no_new_privileges: bool,
    pub seccomp_profile: SeccompDefault,
    pub network: NetworkSettings,
    pub proxies: Proxies,
    pub cache: CacheKeeping,
    /// What RUN steps may be allowed: `security.insecure`, `network.host`.
    pub entitlements: Entitlements,
}

/// Where strangers' archives are unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpacking {
    /// In processes of [`EngineConfig::exe`] that can do nothing else.
    Confined,
    /// In this process: for tests, whose program is another.
    Here,
}

/// How the build cache is kept small (`builder.gc`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheKeeping {
    pub enabled: bool,
    /// For all that no rule is about; nothing asked for is Docker's default.
    pub budget: CacheBudget,
    pub rules: Vec<CachePrune>,
}

impl Default for CacheKeeping {
    fn default() -> Self {
        Self { enabled: true, budget: CacheBudget::default(), rules: Vec::new() }
    }
}

/// What a build may ask for with `--allow` (`builder.entitlements`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entitlements {
    pub network_host: Allowed,
    pub security_insecure: Allowed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    Yes,
    No,
}

/// Source: moby 28.2 `daemon/config/builder.go`.
impl Default for Entitlements {
    fn default() -> Self {
        Self { network_host: Allowed::Yes, security_insecure: Allowed::No }
    }
}

/// The settings that can change while the engine runs. A change counts for what begins after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    pub labels: BTreeMap<String, String>,
    pub debug: bool,
    /// Bytes.
    pub default_shm_size: u64,
    pub default_runtime: String,
    /// Other OCI runtimes by name; `runc` is known by default.
    pub runtimes: BTreeMap<String, OtherRuntime>,
    pub registry_mirrors: Vec<String>,
    pub insecure_registries: Vec<String>,
    pub downloads_max: NonZeroU32,
    pub uploads_max: NonZeroU32,
    pub download_attempts_max: NonZeroU32,
}

/// Source: moby `daemon/config/config.go`.
impl Default for Live {
    fn default() -> Self {
        Self {
            labels: BTreeMap::new(),
            debug: false,
            default_shm_size: SHM_BYTES_DEFAULT,
            default_runtime: "tug".to_owned(),
            runtimes: BTreeMap::new(),
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            downloads_max: const { NonZeroU32::new(3).unwrap() },
            uploads_max: const { NonZeroU32::new(5).unwrap() },
            download_attempts_max: const { NonZeroU32::new(5).unwrap() },
        }
    }
}

/// An OCI runtime called by its command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OtherRuntime {
    pub path: PathBuf,
    pub args: Vec<String>,
}

/// `--seccomp-profile`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SeccompDefault {
    #[default]
    Builtin,
    Unconfined,
    /// A profile's JSON.
    Profile(String),
}

/// Proxy settings that are shown by info and given to builds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    pub http: String,
    pub https: String,
    pub no: String,
}

/// Settings of the default bridge and of networks in general.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// `None` takes the instance's own name; `"none"` means no default bridge.
    pub bridge: Option<String>,
    /// Address of the default bridge with its prefix length.
    pub bip: Option<(IpAddr, u8)>,
    pub bip6: Option<(IpAddr, u8)>,
    pub fixed_cidr: Option<(IpAddr, u8)>,
    pub fixed_cidr_v6: Option<(IpAddr, u8)>,
    pub default_gateway: Option<IpAddr>,
    pub default_gateway_v6: Option<IpAddr>,
    /// Base, its prefix length, and the prefix length of each pool; empty takes Docker's.
    pub address_pools: Vec<(IpAddr, u8, u8)>,
    /// Default options for new networks, by driver.
    pub default_options: BTreeMap<String, BTreeMap<String, String>>,
    pub mtu: u32,
    pub icc: bool,
    pub ipv6: bool,
    pub ip_forward: bool,
    pub ip_masquerade: bool,
    /// Whether iptables' own tables may be taught to let our bridges pass; what we filter by is a
    /// table of our own either way.
    pub iptables: bool,
    pub ip6tables: bool,
    pub userland_proxy: bool,
    /// Default address for published ports; `None` is all addresses of both families.
    pub host_ip: Option<IpAddr>,
    pub host_gateway_ips: Vec<IpAddr>,
    pub dns: Vec<IpAddr>,
    pub dns_options: Vec<String>,
    pub dns_search: Vec<String>,
    /// Read instead of /etc/resolv.conf.
    pub resolv_conf: Option<PathBuf>,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            bridge: None,
            bip: None,
            bip6: None,
            fixed_cidr: None,
            fixed_cidr_v6: None,
            default_gateway: None,
            default_gateway_v6: None,
            address_pools: Vec::new(),
            default_options: BTreeMap::new(),
            mtu: 1500,
            icc: true,
            ipv6: false,
            ip_forward: true,
            ip_masquerade: true,
            iptables: true,
            ip6tables: true,
            userland_proxy: true,
            host_ip: None,
            host_gateway_ips: Vec::new(),
            dns: Vec::new(),
            dns_options: Vec::new(),
            dns_search: Vec::new(),
            resolv_conf: None,
        }
    }
}

/// Docker's default size of `/dev/shm`.
pub const SHM_BYTES_DEFAULT: u64 = 64 << 20;

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            data_root: PathBuf::from("/var/lib/tug"),
            exec_root: PathBuf::from("/run/tug"),
            exe: PathBuf::from("/proc/self/exe"),
            storage_driver: None,
            unpacked_max: None,
            unpacking: Unpacking::Confined,
            live: Live::default(),
            log: LogSpec { driver: "json-file".to_owned(), options: BTreeMap::new() },
            default_ulimits: Vec::new(),
            default_ipc: IpcMode::Private,
            default_cgroupns: CgroupnsMode::Unset,
            cgroup_parent: String::new(),
            init: false,
            no_new_privileges: false,
            seccomp_profile: SeccompDefault::Builtin,
            network: NetworkSettings::default(),
            proxies: Proxies::default(),
            cache: CacheKeeping::default(),
            entitlements: Entitlements::default(),
        }
    }
}

impl EngineConfig {
    /// Where a container's lasting files are.
    #[must_use]
    pub fn container_dir(&self, id: &spec::Id) -> PathBuf {
        self.data_root.join("containers").join(id.to_string())
    }

    /// Where a running container's bundle and sockets are.
    #[must_use]
    pub fn run_dir(&self, id: &spec::Id) -> PathBuf {
        self.exec_root.join("containers").join(id.to_string())
    }
}
