//! From a [`Workload`] to the OCI document that a runtime takes, our own or another one, and to what the
//! supervisor must know beside it. Pure: the same workload gives the same document.
//!
//! A place of the document that means a descriptor (a joined namespace, a tree) is left empty. The
//! descriptors go along with the document, each with the [`Place`] it belongs in, and the launcher fills
//! in by what path it reaches them.
//!
//! Source: OCI runtime-spec 1.2, `config.md` and `config-linux.md`.

mod limits;
mod mounts;

use std::os::fd::{AsFd, BorrowedFd};

use monitor::wire::Place;
use spec::runtime::{
    Capabilities, Device, DeviceRule as OciRule, Linux, Namespace as OciNamespace, NamespaceKind,
    Process, Resources, Root, Spec,
};
use sys::capability;
use sys::mount::Propagation;

use crate::MonitorSettings;
use crate::workload::{
    Access, BindSource, CallFilter, CgroupNamespace, DeviceNode, DeviceRule, Init, MountKind,
    Namespace, NetworkNamespace, NewPrivileges, Program, Shm, Stdin, Streams, UtsNamespace,
    Verdict, Workload,
};

pub use limits::resources;

/// The OCI document of a workload.
#[must_use]
pub fn document(workload: &Workload) -> Spec {
    let (hostname, domainname) = match &workload.namespaces.uts {
        UtsNamespace::Host => (String::new(), String::new()),
        UtsNamespace::New { hostname, domainname } => (hostname.clone(), domainname.clone()),
    };
    let mounts = workload.mounts.iter().map(mounts::mount).collect();
    Spec {
        oci_version: spec::runtime::VERSION.to_owned(),
        process: Some(process(&workload.program)),
        root: Some(Root {
            path: "rootfs".to_owned(),
            readonly: workload.root.access == Access::ReadOnly,
        }),
        hostname,
        domainname,
        mounts,
        hooks: None,
        annotations: workload.annotations.clone(),
        linux: Some(linux(workload)),
        vm: None,
    }
}

/// Descriptors that the document leaves places for.
#[must_use]
pub fn descriptors(workload: &Workload) -> Vec<(Place, BorrowedFd<'_>)> {
    let namespaces = &workload.namespaces;
    let network = match &namespaces.network {
        NetworkNamespace::Joined(descriptor) => Some(descriptor),
        NetworkNamespace::Host | NetworkNamespace::New | NetworkNamespace::Sandbox(_) => None,
    };
    let joined = [
        (NamespaceKind::Network, network),
        (NamespaceKind::Pid, joined(&namespaces.pid)),
        (NamespaceKind::Ipc, joined(&namespaces.ipc)),
    ];
    let joined = joined.into_iter().filter_map(|(kind, descriptor)| {
        descriptor.map(|descriptor| (Place::Namespace(kind), descriptor.as_fd()))
    });
    let mounts = workload.mounts.iter().enumerate().filter_map(|(index, mount)| {
        let source = match &mount.kind {
            MountKind::Shm(Shm::Joined(tree)) => Some(tree),
            MountKind::Bind(bind) => opened(&bind.source),
            MountKind::Configured(bind) => opened(&bind.source),
            MountKind::Proc
            | MountKind::Sysfs(_)
            | MountKind::Dev
            | MountKind::Devpts
            | MountKind::Mqueue
            | MountKind::Shm(Shm::New { .. } | Shm::Host)
            | MountKind::Cgroup(_)
            | MountKind::Tmpfs(_) => None,
        };
        source.map(|source| (Place::Mount(index), source.as_fd()))
    });
    joined.chain(mounts).collect()
}

/// What the supervisor must know.
#[must_use]
pub fn settings(workload: &Workload) -> MonitorSettings {
    let (program, supervision) = (&workload.program, &workload.supervision);
    let (tty, console_size) = match program.streams {
        Streams::Terminal { size } => (true, size),
        Streams::Pipes => (false, None),
    };
    let (open_stdin, stdin_once) = match program.stdin {
        Stdin::None => (false, false),
        Stdin::Open => (true, false),
        Stdin::Once => (true, true),
    };
    let resolver = supervision.resolver.as_ref();
    MonitorSettings {
        container: workload.id,
        rootfs: workload.root.file_system.clone(),
        user: Some(program.user.user.clone()),
        groups: program.user.groups.clone(),
        tty,
        console_size,
        open_stdin,
        stdin_once,
        log: supervision.log.clone(),
        exit_record: supervision.exit_record.clone(),
        durability: supervision.durability,
        runtime: workload.runtime.clone(),
        cgroup: Some(workload.cgroup.clone()),
        init: workload.init == Init::Engine,
        resolver: resolver.map(|resolver| resolver.settings.clone()),
        zones: resolver.map(|resolver| resolver.zones.clone()),
    }
}

fn joined(namespace: &Namespace) -> Option<&std::os::fd::OwnedFd> {
    match namespace {
        Namespace::Joined(descriptor) => Some(descriptor),
        Namespace::Host | Namespace::New => None,
    }
}

fn opened(source: &BindSource) -> Option<&std::os::fd::OwnedFd> {
    match source {
        BindSource::Descriptor(descriptor) => Some(descriptor),
        BindSource::Path(_) => None,
    }
}

fn process(program: &Program) -> Process {
    let (terminal, console_size) = match program.streams {
        Streams::Terminal { size } => (true, size),
        Streams::Pipes => (false, None),
    };
    let names: Vec<String> = (0..)
        .zip(capability::names())
        .filter(|(number, _)| program.capabilities.contains(*number))
        .map(|(_, name)| name)
        .collect();
    Process {
        terminal,
        console_size,
        args: program.argv.clone(),
        env: program.env.clone(),
        cwd: program.cwd.to_string(),
        capabilities: Some(Capabilities {
            bounding: names.clone(),
            effective: names.clone(),
            permitted: names,
            ..Capabilities::default()
        }),
        rlimits: program.rlimits.clone(),
        no_new_privileges: program.new_privileges == NewPrivileges::Forbidden,
        apparmor_profile: program.apparmor.clone().unwrap_or_default(),
        oom_score_adj: Some(program.oom_score.get()),
        // Whom the supervisor's settings name counts.
        ..Process::default()
    }
}

fn linux(workload: &Workload) -> Linux {
    let security = &workload.security;
    let seccomp = match &security.filter {
        Some(CallFilter::Section(section)) => Some(section.clone()),
        Some(CallFilter::Compiled(_)) | None => None,
    };
    let paths = |paths: &[crate::workload::PathInside]| {
        paths.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let sysctl = security.sysctls.iter().map(|(name, value)| (name.to_string(), value.clone()));
    Linux {
        sysctl: sysctl.collect(),
        resources: Some(Resources {
            devices: workload.devices.rules.iter().map(rule).collect(),
            ..resources(&workload.limits)
        }),
        cgroups_path: workload.cgroup.to_string_lossy().into_owned(),
        namespaces: namespaces(workload),
        devices: workload.devices.nodes.iter().map(device).collect(),
        seccomp,
        rootfs_propagation: root_propagation(workload).to_owned(),
        masked_paths: paths(&security.masked_paths),
        readonly_paths: paths(&security.readonly_paths),
        ..Linux::default()
    }
}

/// A joined one has its path filled in by the launcher.
fn namespaces(workload: &Workload) -> Vec<OciNamespace> {
    let namespaces = &workload.namespaces;
    let own = |kind, namespace: &Namespace| match namespace {
        Namespace::Host => None,
        Namespace::New | Namespace::Joined(_) => Some(kind),
    };
    let network = match namespaces.network {
        NetworkNamespace::Host => None,
        NetworkNamespace::New | NetworkNamespace::Sandbox(_) | NetworkNamespace::Joined(_) => {
            Some(NamespaceKind::Network)
        }
    };
    let uts = match namespaces.uts {
        UtsNamespace::Host => None,
        UtsNamespace::New { .. } => Some(NamespaceKind::Uts),
    };
    let cgroup = match namespaces.cgroup {
        CgroupNamespace::Host => None,
        CgroupNamespace::New => Some(NamespaceKind::Cgroup),
    };
    let all = [
        Some(NamespaceKind::Mount),
        network,
        uts,
        own(NamespaceKind::Pid, &namespaces.pid),
        own(NamespaceKind::Ipc, &namespaces.ipc),
        cgroup,
    ];
    let unnamed = |kind| OciNamespace { kind, path: String::new() };
    all.into_iter().flatten().map(unnamed).collect()
}

/// What is mounted on the host later can reach a bind only through a root that lets it pass.
fn root_propagation(workload: &Workload) -> &'static str {
    let has = |wanted| {
        workload.mounts.iter().any(
            |mount| matches!(&mount.kind, MountKind::Bind(bind) if bind.propagation.0 == wanted),
        )
    };
    if has(Propagation::Shared) {
        "shared"
    } else if has(Propagation::Slave) {
        "rslave"
    } else {
        ""
    }
}

fn device(node: &DeviceNode) -> Device {
    Device {
        path: node.path.to_string(),
        kind: node.kind.to_string(),
        major: node.number.major.into(),
        minor: node.number.minor.into(),
        file_mode: Some(node.mode),
        uid: Some(node.uid),
        gid: Some(node.gid),
    }
}

fn rule(rule: &DeviceRule) -> OciRule {
    OciRule {
        allow: rule.verdict == Verdict::Allow,
        kind: rule.kind.map_or_else(|| "a".to_owned(), |kind| kind.to_string()),
        major: rule.major.map(Into::into),
        minor: rule.minor.map(Into::into),
        access: rule.access.to_string(),
    }
}

#[cfg(test)]
mod tests;
