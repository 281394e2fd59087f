//! A RUN step, lowered to a [`Workload`]: no name, no record, no log, default rights, and a root file
//! system that keeps its changes.

use std::path::{Path, PathBuf};

use runs::workload::{
    Access, BindAccess, CallFilter, CgroupNamespace, Devices, Init, Mount, Namespace, Namespaces,
    NetworkNamespace, OomScore, PathInside, Program, Resolver, Root, Security, Shm, Stdin, Streams,
    Supervision, UtsNamespace,
};
use runs::{Durability, LogSettings, ProxyPort, Rootfs, RuntimeChoice, Workload};
use spec::Id;

use crate::apparmor;
use crate::config::EngineConfig;
use crate::containers::limits::{self as checks, Purpose};
use crate::containers::security::SecurityOptions;
use crate::containers::spec::{CgroupnsMode, NetworkMode, Resources};
use crate::containers::{capabilities, validate};
use crate::error::{Error, Result};
use crate::workloads::devices::{self, HostDevices};
use crate::workloads::files::ManagedFiles;
use crate::workloads::mounts::{Defaults, with_defaults};
use crate::workloads::{Host, Privileges, cgroups, environment, limits, security};

/// What BuildKit calls its sandbox; commands see it as their host's name.
const HOSTNAME: &str = "buildkitsandbox";

/// What all RUN steps of a build are given.
#[derive(Debug, Clone, Default)]
pub(super) struct RunOptions {
    pub network: NetworkMode,
    pub resources: Resources,
    pub shm_size: Option<u64>,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    pub security: SecurityOptions,
}

impl RunOptions {
    /// Whether steps may run so.
    ///
    /// # Errors
    /// `Invalid`, in the words that a container with these options would get.
    pub(super) fn check(&self) -> Result<()> {
        if matches!(self.network, NetworkMode::Container(_)) && !self.extra_hosts.is_empty() {
            return Err(Error::invalid(
                "conflicting options: custom host-to-IP mapping and the network mode",
            ));
        }
        let kernel = crate::system::limit_support();
        validate::realtime(&self.resources, &kernel)?;
        validate::extra_hosts(&self.extra_hosts)?;
        checks::verify(&mut self.resources.clone(), &kernel, Purpose::Create).map(drop)
    }
}

/// A command to be run in a snapshot.
#[derive(Debug)]
pub(super) struct Step {
    /// Its name for the supervisor, the control group and events.
    pub id: Id,
    /// A snapshot of the store, by its id; it takes the changes.
    pub snapshot: String,
    pub argv: Vec<String>,
    pub env: Vec<String>,
    /// `user[:group]`, names from the snapshot's own files; empty is root.
    pub user: String,
    pub working_dir: String,
    pub network: NetworkMode,
    pub privileges: Privileges,
    /// Empty for the usual one.
    pub hostname: String,
    pub mounts: Vec<Mount>,
    pub options: RunOptions,
}

impl Step {
    pub(super) fn hostname(&self) -> &str {
        if self.hostname.is_empty() { HOSTNAME } else { &self.hostname }
    }

    /// Names of the capabilities of its processes.
    pub(super) fn capabilities(&self, facts: &Facts<'_>) -> Result<Vec<String>> {
        capabilities::resolve(self.privileges, &[], &[], facts.host.last_capability)
    }

    /// Where its control group is.
    pub(super) fn cgroup(&self, facts: &Facts<'_>) -> PathBuf {
        cgroups::path(&self.id, &self.options.resources, facts.config)
    }
}

/// What steps depend on that is the same for all of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub config: &'a EngineConfig,
    pub host: &'a Host,
    /// Bytes.
    pub default_shm_size: u64,
}

/// What was found and made on the host for a step.
pub(super) struct Found {
    pub root: Rootfs,
    pub network: NetworkNamespace,
    pub ports: Vec<(ProxyPort, std::os::fd::OwnedFd)>,
    pub files: ManagedFiles,
    pub devices: HostDevices,
    pub filter: Option<CallFilter>,
    pub runtime: RuntimeChoice,
}

/// Lowers a step. Pure: the same inputs give the same workload.
///
/// # Errors
/// `Invalid` for options that cannot be.
pub(super) fn lower(facts: &Facts<'_>, step: Step, found: Found) -> Result<Workload> {
    let Facts { config, host, default_shm_size } = *facts;
    let privileges = step.privileges;
    let directory = config.run_dir(&step.id);
    security::check_labels(&step.options.security, host)?;
    let program = program(facts, &step)?;
    let hostname = step.hostname().to_owned();
    let cgroup = step.cgroup(facts);
    let resources = &step.options.resources;
    let size_bytes = step.options.shm_size.unwrap_or(default_shm_size);
    let security = self::security(facts, &step, found.filter)?;
    let nodes = found.devices.all.iter().map(|device| device.node(device.path.clone()));
    let writable_cgroup = privileges == Privileges::All || step.options.security.writable_cgroups;
    let defaults = Defaults {
        privileges,
        cgroup: if writable_cgroup { Access::ReadWrite } else { Access::ReadOnly },
        shm: Some(Shm::New { size_bytes }),
        files: &found.files,
        files_access: BindAccess::ReadWrite,
    };
    Ok(Workload {
        id: step.id,
        root: Root { file_system: found.root, access: Access::ReadWrite },
        program,
        namespaces: Namespaces {
            network: found.network,
            pid: Namespace::New,
            ipc: Namespace::New,
            uts: UtsNamespace::New { hostname, domainname: String::new() },
            cgroup: cgroup_namespace(facts, privileges),
        },
        limits: limits::lower(resources, &found.devices)?,
        devices: Devices { nodes: nodes.collect(), rules: devices::default_rules(privileges) },
        security,
        cgroup,
        annotations: Default::default(),
        ports: found.ports,
        supervision: supervision(facts, &step.network, directory),
        runtime: found.runtime,
        init: Init::Program,
        mounts: with_defaults(defaults, step.mounts),
    })
}

fn program(facts: &Facts<'_>, step: &Step) -> Result<Program> {
    let mut env = environment::defaults(step.hostname());
    environment::replace(&mut env, &step.env);
    let options = &step.options;
    Ok(Program {
        argv: step.argv.clone(),
        env,
        cwd: PathInside::new(crate::containers::mounts::clean(&step.working_dir)),
        user: runtime::UserRequest { user: step.user.clone(), groups: Vec::new() },
        streams: Streams::Pipes,
        stdin: Stdin::None,
        capabilities: capabilities::set(&step.capabilities(facts)?),
        rlimits: limits::rlimits(&facts.config.default_ulimits, &options.resources.ulimits),
        new_privileges: security::new_privileges(&options.security, facts.config),
        apparmor: apparmor::profile_of(
            options.security.apparmor.as_ref(),
            step.privileges,
            facts.host.apparmor,
        ),
        oom_score: OomScore::default(),
    })
}

fn cgroup_namespace(facts: &Facts<'_>, privileges: Privileges) -> CgroupNamespace {
    cgroups::namespace(CgroupnsMode::Unset, privileges, facts.config, facts.host)
}

fn security(facts: &Facts<'_>, step: &Step, filter: Option<CallFilter>) -> Result<Security> {
    let options = &step.options.security;
    let paths = security::system_paths(step.privileges, options, facts.host, (None, None));
    let sysctls = match step.network {
        NetworkMode::Host | NetworkMode::Container(_) => Default::default(),
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => {
            security::network_sysctls()
        }
    };
    Ok(Security {
        filter,
        masked_paths: security::inside(paths.masked),
        readonly_paths: security::inside(paths.readonly),
        sysctls: security::sysctls(&sysctls)?,
    })
}

fn supervision(facts: &Facts<'_>, network: &NetworkMode, directory: PathBuf) -> Supervision {
    let resolver = matches!(network, NetworkMode::Named(_)).then(|| Resolver {
        settings: directory.join(net::zone::RESOLVER_FILE),
        zones: facts.config.exec_root.join("networks"),
    });
    Supervision {
        log: LogSettings::default(),
        exit_record: exit_record(&directory),
        durability: Durability::Lazy,
        resolver,
        directory,
    }
}

fn exit_record(directory: &Path) -> PathBuf {
    directory.join("exit.json")
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
