//! What is to run, parsed and checked: a [`Workload`] holds nothing that has yet to be understood.
//!
//! Whoever wants a run lowers what its users said to this type (a container, a step of a build), and
//! [`crate::start`] makes a run of it. What the host has to offer (a sandbox, another run's namespace, a
//! tree that is mounted nowhere) is held by descriptor, so that nothing is looked up by a name or a
//! number once more.
//!
//! Always true: an absent limit is `None`, and neither zero nor an empty text stands for one.
//! Elsewhere: the OCI document that is made of it, in [`crate::document`].

mod devices;
mod limits;
mod mounts;
mod namespaces;
mod program;

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use spec::Id;
use spec::sysctl::Sysctl;

pub use devices::{
    DeviceAccess, DeviceKind, DeviceNode, DeviceNumber, DeviceRule, DeviceRuleError, Devices,
    Verdict,
};
pub use limits::{
    Amount, BlockIoLimits, CpuLimits, Limits, MemoryLimits, NumberList, NumberListError, OomKiller,
    Throttle, Weight,
};
pub use mounts::{
    Access, Bind, BindAccess, BindSource, Configured, Mount, MountKind, Permission, Shm, Tmpfs,
};
pub use namespaces::{CgroupNamespace, Namespace, Namespaces, NetworkNamespace, UtsNamespace};
pub use program::{NewPrivileges, OomScore, OomScoreError, Program, Stdin, Streams};

use crate::{Durability, Filter, LogSettings, ProxyPort, Rootfs, RuntimeChoice};

/// All that one run is.
#[derive(Debug)]
pub struct Workload {
    pub id: Id,
    pub root: Root,
    pub program: Program,
    pub namespaces: Namespaces,
    /// In the order in which they are made: what lies in another mount comes after it.
    pub mounts: Vec<Mount>,
    pub devices: Devices,
    pub limits: Limits,
    pub security: Security,
    /// The control group's path from the top of each hierarchy.
    pub cgroup: PathBuf,
    /// For another runtime, which may know what they mean.
    pub annotations: BTreeMap<String, String>,
    /// Published ports with the sockets that listen (UDP: are bound) for them.
    pub ports: Vec<(ProxyPort, OwnedFd)>,
    pub supervision: Supervision,
    pub runtime: RuntimeChoice,
    pub init: Init,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    pub file_system: Rootfs,
    pub access: Access,
}

/// What runs as the first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// The program itself.
    Program,
    /// Tug's own init, which starts the program and reaps.
    Engine,
}

/// What the run's processes may not do or see.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// `None` lets every system call pass.
    pub filter: Option<CallFilter>,
    pub masked_paths: Vec<PathInside>,
    pub readonly_paths: Vec<PathInside>,
    pub sysctls: BTreeMap<Sysctl, String>,
}

/// A seccomp filter in the form that the runtime takes.
#[derive(Debug, Clone)]
pub enum CallFilter {
    /// For our own runtime.
    Compiled(Filter),
    /// For another one, which compiles it itself.
    Section(spec::runtime::Seccomp),
}

/// How the run is looked after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervision {
    /// The run directory: control socket, and what the supervisor has to say.
    pub directory: PathBuf,
    pub log: LogSettings,
    /// Where the exit record goes.
    pub exit_record: PathBuf,
    pub durability: Durability,
    /// Where the run may come to resolve names by the 127.0.0.11 resolver.
    pub resolver: Option<Resolver>,
}

/// The files of a run's resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    /// Its settings, which may come to be only later.
    pub settings: PathBuf,
    /// Directory of the zones that it may read.
    pub zones: PathBuf,
}

/// A path as the run's processes see it, which means nothing on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathInside(String);

impl PathInside {
    /// As it is written.
    #[must_use]
    pub fn new(path: impl Into<String>) -> PathInside {
        PathInside(path.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many names it has; the root has none.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.split('/').filter(|part| !part.is_empty()).count()
    }

    /// Whether this is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &PathInside) -> bool {
        let rest = self.0.strip_prefix(other.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for PathInside {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
