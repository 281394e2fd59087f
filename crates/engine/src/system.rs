//! The engine about itself: what info, version and disk usage need beyond what other parts tell.

use crate::Engine;
use crate::error::Result;

/// Facts for `info`. What the front door can read from [`crate::EngineConfig`] is not repeated.
#[derive(Debug, Clone, Default)]
pub struct Info {
    /// A lasting id of this data root.
    pub id: String,
    pub name: String,
    pub containers: usize,
    pub running: usize,
    pub paused: usize,
    pub stopped: usize,
    pub images: usize,
    pub storage_driver: String,
    /// Rows such as `Backing Filesystem`.
    pub storage_status: Vec<(String, String)>,
    pub kernel_version: String,
    /// `PRETTY_NAME` of os-release, and its `VERSION_ID`.
    pub operating_system: String,
    pub os_version: String,
    /// As uname says.
    pub architecture: String,
    pub cpus: usize,
    /// Bytes.
    pub memory: u64,
    pub cgroup_version: u8,
    pub security_options: Vec<String>,
    pub runtimes: Vec<String>,
    pub limits: LimitSupport,
    pub ipv4_forwarding: bool,
    pub events_listeners: usize,
    pub open_fds: usize,
    pub warnings: Vec<String>,
}

/// Which limits this kernel can set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitSupport {
    pub memory: bool,
    pub swap: bool,
    pub oom_kill_disable: bool,
    pub cpu_cfs_period: bool,
    pub cpu_cfs_quota: bool,
    pub cpu_shares: bool,
    pub cpu_set: bool,
    pub pids: bool,
}

impl Engine {
    /// Collects the facts.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn info(&self) -> Result<Info> {
        Ok(Info::default())
    }
}
