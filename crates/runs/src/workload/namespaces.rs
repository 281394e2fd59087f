//! Which namespaces a run has of its own, and which it shares.

use std::os::fd::OwnedFd;

/// All kinds; the mount namespace is always a new one.
#[derive(Debug)]
pub struct Namespaces {
    pub network: NetworkNamespace,
    pub pid: Namespace,
    pub ipc: Namespace,
    pub uts: UtsNamespace,
    pub cgroup: CgroupNamespace,
}

#[derive(Debug)]
pub enum NetworkNamespace {
    Host,
    /// A new one, with nothing but an interface `lo`.
    New,
    /// One that was made for this run.
    Sandbox(OwnedFd),
    /// Another run's.
    Joined(OwnedFd),
}

/// A namespace that another run may have, too.
#[derive(Debug)]
pub enum Namespace {
    Host,
    New,
    Joined(OwnedFd),
}

/// The namespace of host names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UtsNamespace {
    Host,
    /// An empty domain leaves the kernel's `(none)`.
    New {
        hostname: String,
        domainname: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupNamespace {
    Host,
    New,
}
