//! The document that `tug runtime spec` writes: a shell in all new namespaces.

use spec::runtime::{IdMapping, Namespace, NamespaceKind, Spec};

const TEXT: &str = r#"{
    "ociVersion": "1.2.0",
    "process": {
        "terminal": true,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": {
            "bounding": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
            "effective": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
            "permitted": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": true
    },
    "root": {"path": "rootfs", "readonly": true},
    "hostname": "tug",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
    ],
    "linux": {
        "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        "namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}
        ],
        "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    }
}"#;

pub(super) fn default_spec() -> Result<Spec, serde_json::Error> {
    serde_json::from_str(TEXT)
}

/// Turns the document into one that a user without privileges can run: their own user namespace and
/// the host's network, nothing that takes a control group.
///
/// Source: runc `libcontainer/specconv/example.go`, `ToRootless`.
pub(super) fn make_rootless(spec: &mut Spec) {
    let linux = spec.linux.get_or_insert_default();
    linux
        .namespaces
        .retain(|one| !matches!(one.kind, NamespaceKind::Network | NamespaceKind::User));
    linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: String::new() });
    let map = |host_id| vec![IdMapping { container_id: 0, host_id, size: 1 }];
    linux.uid_mappings = map(rustix::process::geteuid().as_raw());
    linux.gid_mappings = map(rustix::process::getegid().as_raw());
    linux.resources = None;
    for mount in &mut spec.mounts {
        // A group that is not mapped cannot own anything.
        mount.options.retain(|option| !option.starts_with("gid=") && !option.starts_with("uid="));
        // A new sysfs takes a network namespace of one's own.
        if mount.destination == "/sys" {
            mount.kind = "none".to_owned();
            mount.source = "/sys".to_owned();
            mount.options =
                ["rbind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_without_privileges_has_a_user_namespace_and_the_hosts_network() {
        let mut spec = super::default_spec().unwrap();
        super::make_rootless(&mut spec);
        let linux = spec.linux.unwrap();
        let kinds: Vec<_> = linux.namespaces.iter().map(|one| one.kind).collect();
        assert!(kinds.contains(&super::NamespaceKind::User));
        assert!(!kinds.contains(&super::NamespaceKind::Network));
        assert_eq!((linux.uid_mappings.len(), linux.resources), (1, None));
        let gid = spec.mounts.iter().flat_map(|mount| &mount.options);
        assert!(!gid.into_iter().any(|option| option.starts_with("gid=")));
    }

    #[test]
    fn the_default_document_is_one() {
        assert_eq!(super::default_spec().unwrap().mounts.len(), 7);
    }
}
