//! What the engine tells about containers: plain data for front doors to render.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use spec::{Id, ImageId};

use super::mounts::Mount;
use super::record::Record;
use super::spec::{ContainerSpec, EndpointSpec, LogSpec, MountKind, Port};
use crate::error::Result;
use crate::networks::Endpoint;

/// `State.Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// `State` of inspect.
#[derive(Debug, Clone, PartialEq)]
pub struct StateView {
    pub status: Status,
    /// True while paused and while restarting too, as in Docker.
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    pub oom_killed: bool,
    pub dead: bool,
    pub pid: u32,
    pub exit_code: i32,
    pub error: String,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    pub health: Option<HealthView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    pub status: HealthStatus,
    pub failing_streak: u32,
    pub log: Vec<HealthResult>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthStatus {
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthResult {
    pub start: SystemTime,
    pub end: SystemTime,
    pub exit_code: i32,
    pub output: String,
}

/// Everything about one container.
#[derive(Debug, Clone)]
pub struct ContainerView {
    pub id: Id,
    /// Without the leading `/`.
    pub name: String,
    pub created_at: SystemTime,
    pub image: ImageId,
    /// The merged wish; `hostname` is filled in.
    pub spec: ContainerSpec,
    /// Resolved values of what the wish leaves to the daemon.
    pub log: LogSpec,
    pub shm_size: u64,
    pub runtime: String,
    pub init: bool,
    pub masked_paths: Vec<String>,
    /// Empty for none.
    pub apparmor_profile: String,
    pub readonly_paths: Vec<String>,
    pub state: StateView,
    pub restart_count: u32,
    /// First word of the command line, and the rest.
    pub path: String,
    pub args: Vec<String>,
    pub resolv_conf_path: PathBuf,
    pub hostname_path: PathBuf,
    pub hosts_path: PathBuf,
    pub log_path: PathBuf,
    pub exec_ids: Vec<Id>,
    pub mounts: Vec<MountPoint>,
    pub network: NetworkView,
    pub storage: StorageView,
    /// Bytes, when asked for.
    pub size: Option<Size>,
    pub platform: String,
}

#[derive(Debug, Clone, Default)]
pub struct StorageView {
    pub driver: String,
    /// `LowerDir`, `UpperDir`, `WorkDir`, `MergedDir`.
    pub data: BTreeMap<String, String>,
}

/// Bytes of the writable layer, and of the whole tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    pub writable: u64,
    pub total: u64,
}

/// A mount as inspect shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    pub kind: MountKind,
    /// The volume's name, or empty.
    pub name: String,
    pub source: String,
    pub destination: String,
    pub driver: String,
    pub mode: String,
    pub writable: bool,
    pub propagation: String,
}

/// A container's networks.
#[derive(Debug, Clone, Default)]
pub struct NetworkView {
    pub sandbox_id: String,
    pub sandbox_key: String,
    /// Exposed ports; published ones with their addresses, the others `None`. Empty when stopped.
    pub ports: BTreeMap<Port, Option<Vec<HostPort>>>,
    /// By network name.
    pub endpoints: BTreeMap<String, EndpointView>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub ip: IpAddr,
    pub port: u16,
}

/// One network of a container; addresses are `None` while it is stopped.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EndpointView {
    pub wish: EndpointSpec,
    pub network_id: String,
    pub endpoint_id: String,
    pub mac_address: String,
    pub gateway: Option<IpAddr>,
    pub address: Option<IpAddr>,
    pub prefix_len: u8,
    pub gateway6: Option<IpAddr>,
    pub address6: Option<IpAddr>,
    pub prefix_len6: u8,
    pub dns_names: Vec<String>,
}

/// One row of a list. It borrows from the list, which may have thousands.
#[derive(Debug, Clone)]
pub struct ContainerSummary<'a> {
    /// Id, name, labels and whatever else does not change by itself.
    pub record: &'a Record,
    /// Names that links of others give it: `web/alias`.
    pub links: &'a [String],
    /// The image as typed, or what to show where that now means another one.
    pub image: &'a str,
    /// Path and arguments.
    pub command: CommandLine<'a>,
    pub status: Status,
    /// `Up 3 minutes`, `Exited (0) 4 seconds ago`, …
    pub status_text: Cow<'static, str>,
    pub ports: BTreeMap<Port, Option<Vec<HostPort>>>,
    pub size: Option<Size>,
    /// In the order of the networks' names.
    pub endpoints: Vec<Place<'a>>,
    pub mounts: Vec<MountRow<'a>>,
}

/// A container's place on one network.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub network: &'a str,
    /// `None` while there is no such network.
    pub network_id: Option<Id>,
    pub wish: Option<&'a EndpointSpec>,
    /// What came of it, while the container runs.
    pub endpoint: Option<&'a Endpoint>,
}

/// A mount of a listed container.
#[derive(Debug, Clone)]
pub struct MountRow<'a> {
    pub mount: &'a Mount,
    pub source: Cow<'a, str>,
    pub propagation: &'a str,
}

/// Shown joined by spaces, arguments with spaces in quotes.
#[derive(Debug, Clone, Copy)]
pub struct CommandLine<'a>(pub &'a Record);

/// Source: moby 28.2 `daemon/container/view.go`: arguments with spaces are quoted, and not more.
impl fmt::Display for CommandLine<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.0.spec.config;
        let argv = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten());
        for (place, word) in argv.enumerate() {
            match place {
                0 => out.write_str(word)?,
                _ if word.contains(' ') => write!(out, " '{word}'")?,
                _ => write!(out, " {word}")?,
            }
        }
        Ok(())
    }
}

/// What a list should hold.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Stopped ones too.
    pub all: bool,
    pub limit: Option<usize>,
    pub size: bool,
    pub filters: crate::Filters,
}

/// A new container.
#[derive(Debug, Clone)]
pub struct Created {
    pub id: Id,
    pub warnings: Vec<String>,
}

/// Whether a request changed anything (204) or found it done (304).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Unchanged,
}

/// What a waiter waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    #[default]
    NotRunning,
    NextExit,
    Removed,
}

/// A container's end as `wait` reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitResult {
    pub exit_code: i32,
    /// Why it could not start, or be removed.
    pub error: Option<String>,
}

/// How long `stop` waits between the signal and the kill.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Grace {
    /// The container's own `StopTimeout`, else ten seconds.
    #[default]
    Default,
    Seconds(u32),
    Forever,
}

#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// Name or number; `None` takes the container's own.
    pub signal: Option<String>,
    pub grace: Grace,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    pub force: bool,
    /// Anonymous volumes too.
    pub volumes: bool,
    /// Remove a link instead of a container.
    pub link: bool,
}

/// Which streams, and how.
#[derive(Debug, Clone, Default)]
pub struct AttachRequest {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Follow what comes; without it only `logs` are sent.
    pub stream: bool,
    /// Replay what the log holds first.
    pub logs: bool,
    /// As typed; `None` is ctrl-p ctrl-q.
    pub detach_keys: Option<String>,
}

/// An attach whose request was accepted: send the HTTP answer, then [`super::Attaching::connect`].
pub struct ClientSocket {
    /// The connection itself, or the engine's end of a pair that the front door pumps.
    pub socket: OwnedFd,
    /// What the client sent before the socket was taken over.
    pub prelude: Vec<u8>,
}

/// Which log lines.
#[derive(Debug, Clone, Default)]
pub struct LogsQuery {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    /// `None` is all.
    pub tail: Option<u64>,
    pub since: Option<SystemTime>,
    pub until: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSource {
    Stdout,
    Stderr,
}

/// One log record; long lines come as several, and only the last ends in a newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub source: LogSource,
    pub at: SystemTime,
    pub bytes: Vec<u8>,
    /// Extra attributes, for `details`.
    pub attributes: BTreeMap<String, String>,
    /// Whether this record begins a line (a timestamp prefix belongs here only).
    pub begins_line: bool,
}

/// Log lines as they are read.
pub struct Logs {
    pub tty: bool,
    pub lines: tokio::sync::mpsc::Receiver<Result<LogLine>>,
}

/// The answer of `top`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    pub path: String,
}

/// What `docker cp` learns about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    pub name: String,
    pub size: u64,
    /// Permission bits and type as in `st_mode`.
    pub mode: u32,
    pub modified: SystemTime,
    pub link_target: String,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct ExtractOptions {
    pub no_overwrite_dir_non_dir: bool,
    pub copy_uid_gid: bool,
}

/// A wish for a further process in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecSpec {
    pub argv: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub tty: bool,
    pub privileged: bool,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub detach_keys: Option<String>,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
}

/// How an exec is started.
#[derive(Debug, Clone, Default)]
pub struct ExecStart {
    pub detach: bool,
    pub tty: bool,
    pub console_size: Option<(u16, u16)>,
}

#[derive(Debug, Clone)]
pub struct ExecView {
    pub id: Id,
    pub container: Id,
    pub spec: ExecSpec,
    pub running: bool,
    pub exit_code: Option<i32>,
    pub pid: u32,
    /// User, tty and the rest are in `spec`.
    pub can_remove: bool,
}

/// Changes that `update` makes; absent values stay.
#[derive(Debug, Clone, Default)]
pub struct UpdateRequest {
    /// Fields at their zero value stay as they are.
    pub resources: super::spec::Resources,
    pub restart: Option<super::spec::RestartPolicy>,
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    pub ids: Vec<String>,
    /// Bytes.
    pub reclaimed: u64,
}

/// What `commit` makes.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    pub reference: Option<spec::Reference>,
    pub comment: String,
    pub author: String,
    pub pause: bool,
    /// Replaces the container's configuration, before the changes.
    pub config: Option<spec::image::Config>,
    /// Dockerfile instructions (`--change`).
    pub changes: Vec<String>,
}

/// One sample of a container's use of resources; zeros for a stopped one.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub id: String,
    pub name: String,
    pub read_at: Option<SystemTime>,
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub pids: PidsStats,
    pub block_io: Vec<BlockIoStat>,
    /// By interface name.
    pub networks: BTreeMap<String, InterfaceStats>,
    /// Which hierarchy the memory details are named by.
    pub cgroup_version: u8,
}

/// Nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct CpuStats {
    pub total: u64,
    pub user: u64,
    pub kernel: u64,
    pub system: u64,
    pub online: u32,
    pub per_cpu: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: u64,
}

/// Bytes.
#[derive(Debug, Clone, Default)]
pub struct MemoryStats {
    pub usage: u64,
    pub usage_max: u64,
    pub limit: u64,
    pub fail_count: u64,
    /// The kernel's `memory.stat`.
    pub details: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default)]
pub struct PidsStats {
    pub current: u64,
    /// Zero is unlimited.
    pub limit: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIoStat {
    pub major: u64,
    pub minor: u64,
    /// `read`, `write`, ….
    pub operation: String,
    pub bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}
