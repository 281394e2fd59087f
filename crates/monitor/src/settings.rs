//! Everything that a launcher and the supervisor it becomes must know about their container, beside
//! its OCI document.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spec::id::Id;
use spec::runtime::ConsoleSize;

/// What one monitor is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MonitorSettings {
    pub container: Id,
    pub rootfs: Rootfs,
    /// Who the process is to be, in Docker's words (`name`, `uid:gid`, `name:group`): looked up in
    /// the container's own passwd and group. `None` takes `process.user` of the configuration.
    #[serde(default)]
    pub user: Option<String>,
    /// Additional groups by name or number (`--group-add`).
    #[serde(default)]
    pub groups: Vec<String>,
    #[serde(default)]
    pub tty: bool,
    #[serde(default)]
    pub console_size: Option<ConsoleSize>,
    /// Whether the process gets a stdin that stays open; otherwise it reads /dev/null.
    #[serde(default)]
    pub open_stdin: bool,
    /// Whether the end of the first attached stdin is the end of the container's.
    #[serde(default)]
    pub stdin_once: bool,
    #[serde(default)]
    pub log: LogSettings,
    /// Where the exit record goes.
    pub exit_record: PathBuf,
    #[serde(default)]
    pub durability: Durability,
    #[serde(default)]
    pub runtime: RuntimeChoice,
    /// The control group's path from the top of each hierarchy, such as `/tug/<id>`; `None` leaves
    /// the container in the monitor's.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// Whether Tug's own init runs as the first process and starts the program (`--init`).
    #[serde(default)]
    pub init: bool,
    /// Settings of the 127.0.0.11 resolver ([`net::zone::Resolver`]). It runs once the file is
    /// there: from the start, or from a later `Request::Resolve` on.
    #[serde(default)]
    pub resolver: Option<PathBuf>,
    /// Where the zones are that the resolver may read.
    #[serde(default)]
    pub zones: Option<PathBuf>,
}

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// Mounted detached in the container's own mount namespace; topmost of `lowers` first.
    Overlay { lowers: Vec<PathBuf>, upper: PathBuf, work: PathBuf },
    /// A directory as it is.
    Bind { path: PathBuf },
}

/// Whether the exit record must survive a power cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    #[default]
    Fsync,
    /// For `--rm` containers, which nobody asks about afterwards.
    Lazy,
}

/// Who makes the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeChoice {
    /// The `runtime` crate, inside the monitor's own process.
    #[default]
    Builtin,
    /// Another OCI runtime, by its command line.
    External {
        program: PathBuf,
        args: Vec<String>,
        /// Its `--root`.
        root: PathBuf,
    },
}

/// Where output goes besides to attached clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    pub driver: LogDriver,
    /// The current file; rotated ones get `.1`, `.2`, … appended.
    pub path: PathBuf,
    /// `None` never rotates.
    #[serde(default)]
    pub file_bytes_max: Option<u64>,
    /// Files kept, the current one included; at least 1.
    #[serde(default = "one")]
    pub files_max: u32,
    /// Whether rotated files are gzipped.
    #[serde(default)]
    pub compress: bool,
    /// How many bytes of entries may wait for the disk while the container goes on; further ones
    /// are lost. `None` makes the container wait.
    #[serde(default)]
    pub buffer_bytes_max: Option<u64>,
    /// Put on each entry: the labels and environment that the user chose.
    #[serde(default)]
    pub attrs: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            driver: LogDriver::None,
            path: PathBuf::new(),
            file_bytes_max: None,
            files_max: 1,
            compress: false,
            buffer_bytes_max: None,
            attrs: BTreeMap::new(),
        }
    }
}

/// Docker's log drivers that keep logs on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    JsonFile,
    Local,
    None,
}

/// One port that a monitor forwards in user mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyPort {
    pub protocol: Protocol,
    /// The container's address and port, reachable from the host's network namespace.
    pub to: SocketAddr,
}

/// The transport of a [`ProxyPort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Tcp,
    Udp,
}
