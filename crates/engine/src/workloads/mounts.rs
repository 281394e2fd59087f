//! The mounts that every run has, and how a user's own ones go with them.
//!
//! Source: moby `oci/defaults.go`, `daemon/oci_linux.go`.

use std::path::Path;

use runs::workload::{Access, Bind, BindAccess, BindSource, Mount, MountKind, PathInside, Shm};
use sys::mount::{Depth, Propagation};

use super::Privileges;
use super::files::ManagedFiles;

/// What the default mounts depend on.
pub(crate) struct Defaults<'a> {
    pub privileges: Privileges,
    /// The run's own control group.
    pub cgroup: Access,
    /// `None` leaves `/dev/shm` out.
    pub shm: Option<Shm>,
    pub files: &'a ManagedFiles,
    pub files_access: BindAccess,
}

/// The default mounts and the user's, parents first.
pub(crate) fn with_defaults(defaults: Defaults<'_>, users: Vec<Mount>) -> Vec<Mount> {
    let mut all = own_views(defaults.privileges, defaults.cgroup, defaults.shm);
    // A user's mount takes the place of a default one and of what lies in it.
    let taken = |place: &PathInside| users.iter().any(|user| place.is_within(&user.destination));
    all.retain(|default| !taken(&default.destination) || matches!(default.kind, MountKind::Dev));
    for (place, source) in [
        ("/etc/resolv.conf", &defaults.files.resolv_conf),
        ("/etc/hostname", &defaults.files.hostname),
        ("/etc/hosts", &defaults.files.hosts),
    ] {
        let exact = users.iter().any(|user| user.destination.as_str() == place);
        if !exact && !source.as_os_str().is_empty() {
            all.push(file(place, source, defaults.files_access));
        }
    }
    all.extend(users);
    // Parents first; the sort is stable, so the order above holds at one depth.
    all.sort_by_key(|mount| mount.destination.depth());
    all
}

fn own_views(privileges: Privileges, cgroup: Access, shm: Option<Shm>) -> Vec<Mount> {
    let sysfs = match privileges {
        Privileges::All => Access::ReadWrite,
        Privileges::Default => Access::ReadOnly,
    };
    let mount = |place: &str, kind| Mount { destination: PathInside::new(place), kind };
    let mut all = vec![
        mount("/proc", MountKind::Proc),
        mount("/dev", MountKind::Dev),
        mount("/dev/pts", MountKind::Devpts),
        mount("/sys", MountKind::Sysfs(sysfs)),
        mount("/sys/fs/cgroup", MountKind::Cgroup(cgroup)),
        // In the host's namespace this shows the host's queues.
        mount("/dev/mqueue", MountKind::Mqueue),
    ];
    all.extend(shm.map(|shm| mount("/dev/shm", MountKind::Shm(shm))));
    all
}

fn file(place: &str, source: &Path, access: BindAccess) -> Mount {
    let kind = MountKind::Bind(Bind {
        source: BindSource::Path(source.to_owned()),
        depth: Depth::Recursive,
        access,
        propagation: (Propagation::Private, Depth::Recursive),
    });
    Mount { destination: PathInside::new(place), kind }
}
