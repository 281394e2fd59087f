//! A container's namespaces.

use std::os::fd::OwnedFd;

use runs::workload::{Namespace, Namespaces, NetworkNamespace, UtsNamespace};

use super::super::spec::{ContainerSpec, IpcMode, NetworkMode, PidMode, UtsMode};
use crate::config::EngineConfig;
use crate::error::Result;
use crate::words;
use crate::workloads::{Host, cgroups};

/// Namespaces that are there already.
pub(super) struct Joinable {
    pub sandbox: Option<OwnedFd>,
    pub network: Option<OwnedFd>,
    pub pid: Option<OwnedFd>,
    pub ipc: Option<OwnedFd>,
}

pub(super) fn lower(
    spec: &ContainerSpec,
    config: &EngineConfig,
    host: &Host,
    (hostname, there): (&str, Joinable),
) -> Result<Namespaces> {
    let options = &spec.host;
    let joined =
        |found: Option<OwnedFd>, other: &str| found.ok_or_else(|| words::not_running(other));
    Ok(Namespaces {
        network: match &options.network {
            NetworkMode::Host => NetworkNamespace::Host,
            NetworkMode::Container(other) => {
                NetworkNamespace::Joined(joined(there.network, other)?)
            }
            NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => {
                there.sandbox.map_or(NetworkNamespace::New, NetworkNamespace::Sandbox)
            }
        },
        pid: match &options.pid {
            PidMode::Private => Namespace::New,
            PidMode::Host => Namespace::Host,
            PidMode::Container(other) => Namespace::Joined(joined(there.pid, other)?),
        },
        ipc: match &options.ipc {
            IpcMode::Host => Namespace::Host,
            IpcMode::Container(other) => Namespace::Joined(joined(there.ipc, other)?),
            IpcMode::Unset | IpcMode::None | IpcMode::Private | IpcMode::Shareable => {
                Namespace::New
            }
        },
        uts: match options.uts {
            UtsMode::Host => UtsNamespace::Host,
            UtsMode::Private => UtsNamespace::New {
                hostname: hostname.to_owned(),
                domainname: spec.domainname.clone(),
            },
        },
        cgroup: cgroups::namespace(options.cgroupns, super::privileges(&spec.host), config, host),
    })
}
