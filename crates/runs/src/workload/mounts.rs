//! The mounts of a run.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use sys::mount::{Depth, Propagation};

use super::PathInside;

/// One mount.
#[derive(Debug)]
pub struct Mount {
    pub destination: PathInside,
    pub kind: MountKind,
}

/// What is mounted. All but the last three are the run's own views of its namespaces.
#[derive(Debug)]
pub enum MountKind {
    Proc,
    Sysfs(Access),
    /// The tmpfs that device nodes are made in.
    Dev,
    Devpts,
    Mqueue,
    Shm(Shm),
    /// The run's control group.
    Cgroup(Access),
    Tmpfs(Tmpfs),
    Bind(Bind),
    Configured(Configured),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadWrite,
    ReadOnly,
}

/// Shared memory, as shm_overview(7) has it.
#[derive(Debug)]
pub enum Shm {
    New {
        size_bytes: u64,
    },
    /// The host's.
    Host,
    /// Another run's.
    Joined(OwnedFd),
}

/// A file system in memory, empty at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    pub size_bytes: Option<NonZeroU64>,
    /// Permissions of its root.
    pub mode: Option<u32>,
    pub exec: Permission,
    pub suid: Permission,
    pub dev: Permission,
    pub access: Access,
    /// Further options, in the words of tmpfs(5) and mount(8).
    pub options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    Allowed,
    Denied,
}

/// A file or directory of the host's.
#[derive(Debug)]
pub struct Bind {
    pub source: BindSource,
    /// Whether what is mounted below comes along.
    pub depth: Depth,
    pub access: BindAccess,
    /// How mounts made later travel, and whether that holds for what is mounted below, too.
    pub propagation: (Propagation, Depth),
}

#[derive(Debug)]
pub enum BindSource {
    Path(PathBuf),
    /// What is open, or a mount that is attached nowhere.
    Descriptor(OwnedFd),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindAccess {
    ReadWrite,
    /// With what is mounted below, or without.
    ReadOnly(Depth),
}

/// A bind with options of mount(8) as the owner of a volume wrote them.
#[derive(Debug)]
pub struct Configured {
    pub source: BindSource,
    pub options: Vec<String>,
    pub access: Access,
}
