//! A container's spec, lowered to a [`Workload`]. Pure: the same inputs give the same workload, and all
//! that must be looked up on the host comes in as [`Inputs`].
//!
//! Docker's defaults for containers live here and in [`crate::workloads`]. Who the process runs as is
//! looked up in the container's own files by the launcher.
//!
//! Source: moby `oci/defaults.go`, `daemon/oci_linux.go`.

mod devices;
mod mounts;
mod namespaces;
pub(crate) mod process;

use std::os::fd::OwnedFd;

use runs::workload::{Access, CallFilter, Init, Root, Security, Supervision};
use runs::{ProxyPort, Rootfs, RuntimeChoice, Workload};
use spec::Id;

use super::joined::Joined;
use super::spec::{ContainerSpec, HostSpec, NetworkMode};
use crate::config::EngineConfig;
use crate::error::Result;
use crate::workloads::devices::HostDevices;
use crate::workloads::files::ManagedFiles;
use crate::workloads::security::{self, SystemPaths};
use crate::workloads::{Host, Privileges, cgroups, limits};

pub(crate) use mounts::{FoundMount, Source};

/// Everything that the workload depends on.
pub(crate) struct Inputs<'a> {
    pub id: &'a Id,
    pub spec: &'a ContainerSpec,
    pub config: &'a EngineConfig,
    /// Bytes.
    pub default_shm_size: u64,
    pub host: &'a Host,
    /// Filled in.
    pub hostname: &'a str,
    pub mounts: Vec<FoundMount>,
    pub files: &'a ManagedFiles,
    /// A network namespace that was made for the container.
    pub sandbox: Option<OwnedFd>,
    pub joined: Joined,
    pub devices: HostDevices,
    /// Environment of `--link`.
    pub link_env: &'a [String],
    pub filter: Option<CallFilter>,
    pub root: Rootfs,
    pub supervision: Supervision,
    pub ports: Vec<(ProxyPort, OwnedFd)>,
    pub runtime: RuntimeChoice,
}

/// Lowers a container.
///
/// # Errors
/// `Invalid` when the spec names something that does not exist or cannot be.
pub(crate) fn lower(inputs: Inputs<'_>) -> Result<Workload> {
    let Inputs { id, spec, config, host, .. } = inputs;
    security::check_labels(&spec.host.security_opt, host)?;
    let settings = mounts::Settings {
        spec,
        default_shm_size: inputs.default_shm_size,
        files: inputs.files,
        shm: inputs.joined.shm,
    };
    let joined = namespaces::Joinable {
        sandbox: inputs.sandbox,
        network: inputs.joined.network,
        pid: inputs.joined.pid,
        ipc: inputs.joined.ipc,
    };
    let resources = &spec.host.resources;
    Ok(Workload {
        id: *id,
        root: Root {
            file_system: inputs.root,
            access: match spec.host.read_only_rootfs {
                true => Access::ReadOnly,
                false => Access::ReadWrite,
            },
        },
        program: process::program(spec, config, host, (inputs.hostname, inputs.link_env))?,
        namespaces: namespaces::lower(spec, config, host, (inputs.hostname, joined))?,
        mounts: mounts::lower(settings, inputs.mounts)?,
        limits: limits::lower(resources, &inputs.devices)?,
        devices: devices::lower(spec, &inputs.devices)?,
        security: security(spec, host, inputs.filter)?,
        cgroup: cgroups::path(id, resources, config),
        annotations: spec.host.annotations.clone(),
        ports: inputs.ports,
        supervision: inputs.supervision,
        runtime: inputs.runtime,
        init: match spec.host.init.unwrap_or(config.init) {
            true => Init::Engine,
            false => Init::Program,
        },
    })
}

/// How far a container is held apart from its host.
pub(crate) fn privileges(host: &HostSpec) -> Privileges {
    match host.privileged {
        true => Privileges::All,
        false => Privileges::Default,
    }
}

/// The paths that are hidden or read-only, as inspect shows them too.
pub(crate) fn system_paths(spec: &ContainerSpec, host: &Host) -> SystemPaths {
    let own = (spec.host.masked_paths.as_ref(), spec.host.readonly_paths.as_ref());
    security::system_paths(privileges(&spec.host), &spec.host.security_opt, host, own)
}

fn security(spec: &ContainerSpec, host: &Host, filter: Option<CallFilter>) -> Result<Security> {
    let paths = system_paths(spec, host);
    let mut sysctls = match spec.host.network {
        NetworkMode::Host | NetworkMode::Container(_) => Default::default(),
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => {
            security::network_sysctls()
        }
    };
    sysctls.extend(spec.host.sysctls.clone());
    Ok(Security {
        filter,
        masked_paths: security::inside(paths.masked),
        readonly_paths: security::inside(paths.readonly),
        sysctls: security::sysctls(&sysctls)?,
    })
}

#[cfg(test)]
mod tests;
