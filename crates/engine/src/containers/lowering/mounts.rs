//! A container's mounts.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;

use runs::workload::{
    Access, Bind, BindAccess, BindSource, Configured, Mount, MountKind, PathInside, Permission,
    Shm, Tmpfs,
};
use sys::mount::{Depth, Propagation};

use super::super::mounts as recorded;
use super::super::spec::{ContainerSpec, IpcMode, TmpfsOptions};
use crate::error::{Error, Result};
use crate::workloads::Privileges;
use crate::workloads::files::ManagedFiles;
use crate::workloads::mounts::{Defaults, with_defaults};

/// A mount of the record, with what it shows.
#[derive(Debug)]
pub(crate) struct FoundMount {
    pub mount: recorded::Mount,
    pub source: Source,
}

/// What was found on the host.
#[derive(Debug)]
pub(crate) enum Source {
    /// Nothing that is there already: a tmpfs.
    Nothing,
    Bind(BindSource),
    /// A volume that shows a directory with options of its own.
    Configured(BindSource, Vec<String>),
}

/// What the default mounts depend on.
pub(super) struct Settings<'a> {
    pub spec: &'a ContainerSpec,
    pub default_shm_size: u64,
    pub files: &'a ManagedFiles,
    /// Of the container whose IPC namespace is joined.
    pub shm: Option<OwnedFd>,
}

pub(super) fn lower(settings: Settings<'_>, found: Vec<FoundMount>) -> Result<Vec<Mount>> {
    let Settings { spec, default_shm_size, files, shm } = settings;
    let privileges = super::privileges(&spec.host);
    let own = |joined: Option<OwnedFd>| {
        let size_bytes = spec.host.shm_size.unwrap_or(default_shm_size);
        joined.map_or(Shm::New { size_bytes }, Shm::Joined)
    };
    let shm = match spec.host.ipc {
        IpcMode::Host => Some(Shm::Host),
        IpcMode::None => None,
        IpcMode::Unset | IpcMode::Private | IpcMode::Shareable | IpcMode::Container(_) => {
            Some(own(shm))
        }
    };
    let writable_cgroup = privileges == Privileges::All || spec.host.security_opt.writable_cgroups;
    let defaults = Defaults {
        privileges,
        cgroup: if writable_cgroup { Access::ReadWrite } else { Access::ReadOnly },
        shm,
        files,
        files_access: match spec.host.read_only_rootfs {
            true => BindAccess::ReadOnly(Depth::Only),
            false => BindAccess::ReadWrite,
        },
    };
    let users = found.into_iter().map(lower_one).collect::<Result<_>>()?;
    Ok(with_defaults(defaults, users))
}

fn lower_one(found: FoundMount) -> Result<Mount> {
    let FoundMount { mount, source } = found;
    let access = if mount.read_only { Access::ReadOnly } else { Access::ReadWrite };
    let kind = match source {
        Source::Nothing => {
            let default = TmpfsOptions::default();
            MountKind::Tmpfs(tmpfs(mount.tmpfs.as_ref().unwrap_or(&default), access))
        }
        Source::Configured(source, options) => {
            MountKind::Configured(Configured { source, options, access })
        }
        Source::Bind(source) => {
            let below = match mount.non_recursive || mount.read_only_non_recursive {
                true => Depth::Only,
                false => Depth::Recursive,
            };
            MountKind::Bind(Bind {
                source,
                depth: if mount.non_recursive { Depth::Only } else { Depth::Recursive },
                access: match access {
                    Access::ReadWrite => BindAccess::ReadWrite,
                    Access::ReadOnly => BindAccess::ReadOnly(below),
                },
                propagation: propagation(&mount.propagation)?,
            })
        }
    };
    Ok(Mount { destination: PathInside::new(mount.destination), kind })
}

fn propagation(name: &str) -> Result<(Propagation, Depth)> {
    let (name, depth) = match name {
        "" => ("private", Depth::Recursive),
        name => match name.strip_prefix('r') {
            Some(name) => (name, Depth::Recursive),
            None => (name, Depth::Only),
        },
    };
    let propagation = match name {
        "private" => Propagation::Private,
        "shared" => Propagation::Shared,
        "slave" => Propagation::Slave,
        other => return Err(Error::invalid(format!("invalid propagation mode: {other}"))),
    };
    Ok((propagation, depth))
}

/// Later options win over earlier ones that say the opposite.
fn tmpfs(options: &TmpfsOptions, access: Access) -> Tmpfs {
    let mut tmpfs = Tmpfs {
        size_bytes: u64::try_from(options.size_bytes).ok().and_then(NonZeroU64::new),
        mode: options.mode,
        exec: Permission::Denied,
        suid: Permission::Denied,
        dev: Permission::Denied,
        access,
        options: Vec::new(),
    };
    for words in &options.options {
        let option = words.join("=");
        match option.as_str() {
            "exec" => tmpfs.exec = Permission::Allowed,
            "noexec" => tmpfs.exec = Permission::Denied,
            "suid" => tmpfs.suid = Permission::Allowed,
            "nosuid" => tmpfs.suid = Permission::Denied,
            "dev" => tmpfs.dev = Permission::Allowed,
            "nodev" => tmpfs.dev = Permission::Denied,
            _ => {
                let opposite = match option.strip_prefix("no") {
                    Some(rest) => rest.to_owned(),
                    None => format!("no{option}"),
                };
                tmpfs.options.retain(|known| *known != opposite && *known != option);
                tmpfs.options.push(option);
            }
        }
    }
    tmpfs
}
