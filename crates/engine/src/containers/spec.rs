//! The user's wish for a container, typed and parsed once at the edge.
//!
//! The daemon converts a create request into a [`ContainerSpec`]; the engine merges the image's
//! configuration into it ([`super::merge`]), validates it ([`super::validate`]) and keeps it in the
//! record, where only `update` changes it. Everything that a container runs with is derived from
//! it ([`super::derive`]).
//!
//! Modes (`network`, `ipc`, …) are parsed here from Docker's words, and shown as the same words.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::security::SecurityOptions;
use crate::error::{Error, Result};

/// A request to create a container.
#[derive(Debug, Clone, Default)]
pub struct CreateRequest {
    /// Without it, a name is made up. A leading `/` is accepted.
    pub name: Option<String>,
    pub platform: Option<spec::Platform>,
    pub spec: ContainerSpec,
}

/// What to run and how. `Default` is Docker's default for every field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The image as the user typed it.
    pub image: String,
    /// What images configure too: command, environment, user, labels, volumes, … Before create it
    /// holds the user's values, in the record the merged ones. An entrypoint of `[""]` resets.
    pub config: spec::image::Config,
    /// Empty means the short id, or what the UTS and network modes imply.
    pub hostname: String,
    pub domainname: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub network_disabled: bool,
    pub mac_address: String,
    pub host: HostSpec,
    /// Wishes for each network, by its name or id, as in `NetworkingConfig.EndpointsConfig`.
    pub endpoints: BTreeMap<String, EndpointSpec>,
    /// Whether `endpoints` holds all networks; see [`Self::settle_networks`].
    pub networks_settled: bool,
}

/// The part of the wish that concerns this host (Docker's `HostConfig`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostSpec {
    pub resources: Resources,
    /// `-v` texts, verbatim; parsed by [`super::mounts`].
    pub binds: Vec<String>,
    pub mounts: Vec<MountSpec>,
    /// `--tmpfs` target → options.
    pub tmpfs: BTreeMap<String, String>,
    pub volumes_from: Vec<String>,
    pub volume_driver: String,
    pub container_id_file: String,
    pub log: LogSpec,
    pub network: NetworkMode,
    pub ports: Vec<PortBinding>,
    pub publish_all_ports: bool,
    pub restart: RestartPolicy,
    pub auto_remove: bool,
    /// Rows and columns of the client's terminal.
    pub console_size: Option<(u16, u16)>,
    pub annotations: BTreeMap<String, String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub cgroupns: CgroupnsMode,
    pub dns: Vec<IpAddr>,
    pub dns_options: Vec<String>,
    pub dns_search: Vec<String>,
    /// `name:address`, where the address may be `host-gateway`.
    pub extra_hosts: Vec<String>,
    pub group_add: Vec<String>,
    pub ipc: IpcMode,
    pub cgroup: String,
    pub links: Vec<String>,
    pub oom_score_adj: i32,
    pub pid: PidMode,
    pub privileged: bool,
    pub read_only_rootfs: bool,
    pub security_opt: SecurityOptions,
    pub storage_opt: BTreeMap<String, String>,
    pub uts: UtsMode,
    pub userns: UsernsMode,
    /// Bytes; `None` takes the daemon's default.
    pub shm_size: Option<u64>,
    pub sysctls: BTreeMap<String, String>,
    /// Empty takes the daemon's default runtime.
    pub runtime: String,
    pub init: Option<bool>,
    /// `None` means Docker's default lists; an empty list means none.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    /// Kept for inspect; Linux ignores it except for the value's validity.
    pub isolation: String,
}

/// Limits that `update` may change while the container runs. Numbers are Docker's: zero is unset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub cpu_shares: i64,
    /// Bytes.
    pub memory: i64,
    pub nano_cpus: i64,
    pub cgroup_parent: String,
    pub blkio_weight: u16,
    pub blkio_weight_device: Vec<WeightDevice>,
    pub blkio_device_read_bps: Vec<ThrottleDevice>,
    pub blkio_device_write_bps: Vec<ThrottleDevice>,
    pub blkio_device_read_iops: Vec<ThrottleDevice>,
    pub blkio_device_write_iops: Vec<ThrottleDevice>,
    /// Microseconds.
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpu_realtime_period: i64,
    pub cpu_realtime_runtime: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub devices: Vec<DeviceMapping>,
    pub device_cgroup_rules: Vec<String>,
    pub device_requests: Vec<DeviceRequest>,
    pub kernel_memory: i64,
    pub kernel_memory_tcp: i64,
    pub memory_reservation: i64,
    /// Bytes, memory included; -1 is unlimited.
    pub memory_swap: i64,
    pub memory_swappiness: Option<i64>,
    pub oom_kill_disable: Option<bool>,
    pub pids_limit: Option<i64>,
    pub ulimits: Vec<Ulimit>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightDevice {
    pub path: String,
    pub weight: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleDevice {
    pub path: String,
    pub rate: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    pub host: String,
    pub container: String,
    /// A subset of `rwm`; empty is `rwm`.
    pub permissions: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    pub driver: String,
    pub count: i64,
    pub device_ids: Vec<String>,
    pub capabilities: Vec<Vec<String>>,
    pub options: BTreeMap<String, String>,
}

/// A resource limit by its name without `RLIMIT_`, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// Log driver (empty: the daemon's) and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

/// One `-p`: a container port and where it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    pub container: Port,
    /// `None` publishes on all addresses of both families.
    pub host_ip: Option<IpAddr>,
    /// As typed: empty or `0` for any, a number, or a range `a-b` of which one is taken.
    pub host_port: String,
}

/// A port of the container with its protocol, shown as `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    pub number: u16,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// When the engine starts a container again by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    No,
    Always,
    UnlessStopped,
    /// Zero retries means no limit.
    OnFailure {
        retries: u32,
    },
}

/// `--network`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    #[default]
    Bridge,
    Host,
    None,
    Container(String),
    /// A network by name or id.
    Named(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpcMode {
    /// The daemon's default.
    #[default]
    Unset,
    /// No `/dev/shm` either.
    None,
    Private,
    Shareable,
    Host,
    Container(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PidMode {
    #[default]
    Private,
    Host,
    Container(String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UtsMode {
    #[default]
    Private,
    Host,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsernsMode {
    #[default]
    Unset,
    Host,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupnsMode {
    /// Private on cgroup v2, the host's on v1.
    #[default]
    Unset,
    Private,
    Host,
}

/// One `--mount`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountSpec {
    pub kind: MountKind,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub consistency: String,
    pub bind: Option<BindOptions>,
    pub volume: Option<VolumeOptions>,
    pub image: Option<ImageOptions>,
    pub tmpfs: Option<TmpfsOptions>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    Bind,
    #[default]
    Volume,
    Tmpfs,
    Image,
    Npipe,
    Cluster,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindOptions {
    /// Empty is `rprivate`.
    pub propagation: String,
    pub non_recursive: bool,
    pub create_mountpoint: bool,
    pub read_only_non_recursive: bool,
    pub read_only_force_recursive: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    pub no_copy: bool,
    pub labels: BTreeMap<String, String>,
    pub subpath: String,
    pub driver: String,
    pub driver_options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageOptions {
    pub subpath: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsOptions {
    pub size_bytes: i64,
    pub mode: Option<u32>,
    pub options: Vec<Vec<String>>,
}

/// The wish for one network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSpec {
    pub ipv4_address: String,
    pub ipv6_address: String,
    pub link_local_ips: Vec<String>,
    pub links: Vec<String>,
    pub mac_address: String,
    pub aliases: Vec<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub gw_priority: i64,
}

impl ContainerSpec {
    /// Puts the mode's network where the wish names none: from now on `endpoints` alone says which
    /// networks the container has, and it may come to have none.
    ///
    /// Source: moby 28.2 `daemon/container_operations.go`, `updateContainerNetworkSettings`.
    pub fn settle_networks(&mut self) {
        self.networks_settled = true;
        match &self.host.network {
            NetworkMode::Container(_) => self.endpoints.clear(),
            _ if self.network_disabled => self.endpoints.clear(),
            mode if self.endpoints.is_empty() => {
                self.endpoints.insert(mode.to_string(), EndpointSpec::default());
            }
            NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None | NetworkMode::Named(_) => {
            }
        }
    }

    /// As [`Self::settle_networks`], for records of versions that joined the mode's network besides.
    pub fn settle_old_networks(&mut self) {
        if self.networks_settled {
            return;
        }
        let mode = match &self.host.network {
            NetworkMode::Container(_) => None,
            _ if self.network_disabled => None,
            mode => Some(mode.to_string()),
        };
        if let Some(mode) = mode {
            self.endpoints.entry(mode).or_default();
        }
        self.settle_networks();
    }

    /// The command line: entrypoint, then arguments.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        let entrypoint = self.config.entrypoint.iter().flatten();
        entrypoint.chain(self.config.cmd.iter().flatten()).cloned().collect()
    }

    /// Ports that `EXPOSE` and `--expose` name, and the published ones.
    #[must_use]
    pub fn exposed_ports(&self) -> BTreeSet<Port> {
        exposed_ports(&self.config.exposed_ports, &self.host.ports)
    }
}

/// Ports that are named as exposed, and the published ones.
pub(crate) fn exposed_ports(
    named: &BTreeMap<String, spec::image::Empty>,
    published: &[PortBinding],
) -> BTreeSet<Port> {
    let named = named.keys().filter_map(|text| text.parse().ok());
    named.chain(published.iter().map(|binding| binding.container)).collect()
}

impl Protocol {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(Error::invalid(format!("invalid protocol: {text}"))),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.number, self.protocol)
    }
}

impl FromStr for Port {
    type Err = Error;

    /// `80`, `80/tcp`.
    fn from_str(text: &str) -> Result<Self> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let number = number
            .parse()
            .map_err(|_| Error::invalid(format!("invalid port specification: \"{text}\"")))?;
        Ok(Self { number, protocol: protocol.parse()? })
    }
}

impl RestartPolicy {
    /// Docker's name and count.
    ///
    /// # Errors
    /// `Invalid` for an unknown name, or a count with another policy than `on-failure`.
    pub fn parse(name: &str, retries: i64) -> Result<Self> {
        let refuse = |text: String| Err(Error::invalid(text));
        let policy = match name {
            "" | "no" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => {
                let Ok(retries) = u32::try_from(retries) else {
                    return refuse(
                        "invalid restart policy: maximum retry count cannot be negative".to_owned(),
                    );
                };
                return Ok(Self::OnFailure { retries });
            }
            other => {
                return refuse(format!(
                    "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', \
                     'on-failure', or 'unless-stopped'"
                ));
            }
        };
        if retries != 0 {
            let which = if retries < 0 {
                "cannot be negative"
            } else {
                "can only be used with 'on-failure'"
            };
            return refuse(format!("invalid restart policy: maximum retry count {which}"));
        }
        Ok(policy)
    }

    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
            Self::OnFailure { .. } => "on-failure",
        }
    }

    #[must_use]
    pub fn retries(&self) -> u32 {
        match self {
            Self::OnFailure { retries } => *retries,
            Self::No | Self::Always | Self::UnlessStopped => 0,
        }
    }
}

/// `container:X` → `X`.
fn joined(text: &str) -> Option<&str> {
    text.strip_prefix("container:")
}

impl FromStr for NetworkMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "" | "default" | "bridge" => Self::Bridge,
            "host" => Self::Host,
            "none" => Self::None,
            // Source: moby 28.2 `runconfig/hostconfig.go`.
            "container" | "container:" => {
                return Err(Error::invalid(
                    "invalid network mode: invalid container format container:<name|id>",
                ));
            }
            _ => match joined(text) {
                Some(other) => Self::Container(other.to_owned()),
                None => Self::Named(text.to_owned()),
            },
        })
    }
}

impl NetworkMode {
    /// As Docker's options and answers write it.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
            Self::Container(other) => return Cow::Owned(format!("container:{other}")),
            Self::Named(name) => name,
        })
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text())
    }
}

impl FromStr for IpcMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "" => Self::Unset,
            "none" => Self::None,
            "private" => Self::Private,
            "shareable" => Self::Shareable,
            "host" => Self::Host,
            _ => match joined(text) {
                Some(other) if !other.is_empty() => Self::Container(other.to_owned()),
                Some(_) | None => return Err(Error::invalid(format!("invalid IPC mode: {text}"))),
            },
        })
    }
}

impl fmt::Display for IpcMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => Ok(()),
            Self::None => out.write_str("none"),
            Self::Private => out.write_str("private"),
            Self::Shareable => out.write_str("shareable"),
            Self::Host => out.write_str("host"),
            Self::Container(other) => write!(out, "container:{other}"),
        }
    }
}

impl FromStr for PidMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match (text, joined(text)) {
            ("" | "private", _) => Ok(Self::Private),
            ("host", _) => Ok(Self::Host),
            (_, Some(other)) if !other.is_empty() => Ok(Self::Container(other.to_owned())),
            (_, Some(_) | None) => Err(Error::invalid(format!("invalid PID mode: {text}"))),
        }
    }
}

impl fmt::Display for PidMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => Ok(()),
            Self::Host => out.write_str("host"),
            Self::Container(other) => write!(out, "container:{other}"),
        }
    }
}

impl FromStr for UtsMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" | "private" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            other => Err(Error::invalid(format!("invalid UTS mode: {other}"))),
        }
    }
}

impl fmt::Display for UtsMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Private => "",
            Self::Host => "host",
        })
    }
}

impl FromStr for UsernsMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" => Ok(Self::Unset),
            "host" => Ok(Self::Host),
            other => Err(Error::invalid(format!("invalid user namespace mode: {other}"))),
        }
    }
}

impl fmt::Display for UsernsMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unset => "",
            Self::Host => "host",
        })
    }
}

impl FromStr for CgroupnsMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" => Ok(Self::Unset),
            "private" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            other => Err(Error::invalid(format!("invalid cgroup namespace mode: {other}"))),
        }
    }
}

impl fmt::Display for CgroupnsMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unset => "",
            Self::Private => "private",
            Self::Host => "host",
        })
    }
}

impl FromStr for MountKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "bind" => Ok(Self::Bind),
            "volume" | "" => Ok(Self::Volume),
            "tmpfs" => Ok(Self::Tmpfs),
            "image" => Ok(Self::Image),
            "npipe" => Ok(Self::Npipe),
            "cluster" => Ok(Self::Cluster),
            other => Err(Error::invalid(format!(
                "invalid mount config for type \"{other}\": mount type unknown"
            ))),
        }
    }
}

impl MountKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
            Self::Image => "image",
            Self::Npipe => "npipe",
            Self::Cluster => "cluster",
        }
    }
}

impl fmt::Display for MountKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}
