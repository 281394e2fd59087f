//! Mounts in the words of an OCI document.

use std::path::Path;

use spec::runtime::Mount as OciMount;
use sys::mount::{Depth, Propagation};

use crate::workload::{
    Access, Bind, BindAccess, BindSource, Configured, Mount, MountKind, Permission, Shm, Tmpfs,
};

pub(super) fn mount(mount: &Mount) -> OciMount {
    let fixed = |kind: &str, options: &[&str]| entry(mount, kind, kind, words(options));
    match &mount.kind {
        MountKind::Proc => fixed("proc", &["nosuid", "noexec", "nodev"]),
        MountKind::Sysfs(access) => fixed("sysfs", &["nosuid", "noexec", "nodev", word(*access)]),
        MountKind::Dev => fixed("tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        MountKind::Devpts => fixed(
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        MountKind::Mqueue => fixed("mqueue", &["nosuid", "noexec", "nodev"]),
        MountKind::Cgroup(access) => {
            fixed("cgroup", &[word(*access), "nosuid", "noexec", "nodev", "relatime"])
        }
        MountKind::Shm(shm) => shared_memory(mount, shm),
        MountKind::Tmpfs(tmpfs) => entry(mount, "tmpfs", "tmpfs", tmpfs_options(tmpfs)),
        MountKind::Bind(bind) => entry(mount, "bind", &path(&bind.source), bind_options(bind)),
        MountKind::Configured(bind) => {
            entry(mount, "bind", &path(&bind.source), configured_options(bind))
        }
    }
}

fn entry(mount: &Mount, kind: &str, source: &str, options: Vec<String>) -> OciMount {
    OciMount {
        destination: mount.destination.to_string(),
        kind: kind.to_owned(),
        source: source.to_owned(),
        options,
        ..OciMount::default()
    }
}

fn words(options: &[&str]) -> Vec<String> {
    options.iter().map(|&option| option.to_owned()).collect()
}

fn word(access: Access) -> &'static str {
    match access {
        Access::ReadWrite => "rw",
        Access::ReadOnly => "ro",
    }
}

/// Empty for what comes along as a descriptor.
fn path(source: &BindSource) -> String {
    match source {
        BindSource::Path(path) => path.to_string_lossy().into_owned(),
        BindSource::Descriptor(_) => String::new(),
    }
}

fn shared_memory(mount: &Mount, shm: &Shm) -> OciMount {
    let no_more = ["nosuid", "noexec", "nodev"];
    let bind = |depth: &str, source: &Path| {
        let options = words(&[&[depth][..], &no_more].concat());
        entry(mount, "bind", &source.to_string_lossy(), options)
    };
    match shm {
        Shm::Host => bind("rbind", Path::new("/dev/shm")),
        Shm::Joined(_) => bind("bind", Path::new("")),
        Shm::New { size_bytes } => {
            let size = format!("size={size_bytes}");
            let options = words(&[&no_more[..], &["mode=1777", &size]].concat());
            entry(mount, "tmpfs", "shm", options)
        }
    }
}

fn tmpfs_options(tmpfs: &Tmpfs) -> Vec<String> {
    let permission = |permission, allowed: &str, denied: &str| match permission {
        Permission::Allowed => allowed.to_owned(),
        Permission::Denied => denied.to_owned(),
    };
    let mut options = vec![
        permission(tmpfs.exec, "exec", "noexec"),
        permission(tmpfs.suid, "suid", "nosuid"),
        permission(tmpfs.dev, "dev", "nodev"),
    ];
    options.extend(tmpfs.options.iter().cloned());
    options.extend(tmpfs.size_bytes.map(|bytes| format!("size={bytes}")));
    options.extend(tmpfs.mode.map(|mode| format!("mode={mode:o}")));
    if tmpfs.access == Access::ReadOnly {
        options.push("ro".to_owned());
    }
    options
}

fn bind_options(bind: &Bind) -> Vec<String> {
    let depth = match bind.depth {
        Depth::Only => "bind",
        Depth::Recursive => "rbind",
    };
    let access = match bind.access {
        BindAccess::ReadWrite => "rw",
        BindAccess::ReadOnly(Depth::Only) => "ro",
        BindAccess::ReadOnly(Depth::Recursive) => "rro",
    };
    words(&[depth, propagation(bind.propagation), access])
}

fn propagation((propagation, depth): (Propagation, Depth)) -> &'static str {
    match (propagation, depth) {
        (Propagation::Private, Depth::Only) => "private",
        (Propagation::Private, Depth::Recursive) => "rprivate",
        (Propagation::Slave, Depth::Only) => "slave",
        (Propagation::Slave, Depth::Recursive) => "rslave",
        (Propagation::Shared, Depth::Only) => "shared",
        (Propagation::Shared, Depth::Recursive) => "rshared",
        (Propagation::Unbindable, Depth::Only) => "unbindable",
        (Propagation::Unbindable, Depth::Recursive) => "runbindable",
    }
}

fn configured_options(bind: &Configured) -> Vec<String> {
    let mut options = bind.options.clone();
    options.push("rprivate".to_owned());
    if bind.access == Access::ReadOnly {
        options.retain(|option| option != "rw");
        options.push("ro".to_owned());
    }
    options
}
