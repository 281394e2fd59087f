//! What all workloads of this engine have in common, whether they are lowered from a container or from a
//! step of a build: Docker's default mounts, devices and hidden paths, seccomp filters, limits in the
//! kernel's terms, runtimes, and the files that the engine keeps for a run.
//!
//! Most of it is pure; what must be looked up on the host is in [`devices`], [`filters`] (compiled once)
//! and [`runtimes`].
//!
//! Elsewhere: the lowerings, in [`crate::containers::lowering`] and in the builder; the type that they
//! lower to, in [`runs::workload`].

pub(crate) mod cgroups;
pub(crate) mod devices;
pub(crate) mod environment;
pub(crate) mod files;
pub(crate) mod filters;
pub(crate) mod limits;
pub(crate) mod mounts;
pub(crate) mod runtimes;
pub(crate) mod security;

use crate::apparmor::AppArmor;

/// Facts about this host that runs depend on.
#[derive(Debug, Clone)]
pub struct Host {
    pub cgroup_v2: bool,
    pub kernel: (u32, u32),
    /// In Go's names.
    pub architecture: String,
    /// Number of the kernel's highest capability.
    pub last_capability: usize,
    /// `thermal_throttle` directories, which are masked too.
    pub thermal_paths: Vec<String>,
    pub selinux: bool,
    pub apparmor: AppArmor,
}

/// How far a run is held apart from its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    Default,
    /// `--privileged`.
    All,
}
