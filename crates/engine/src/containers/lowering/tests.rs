//! What a container becomes for the runtime, case by case.

use std::collections::BTreeMap;
use std::path::PathBuf;

use expect_test::{Expect, expect};
use runs::document;
use runs::workload::{BindSource, DeviceKind, DeviceNumber};
use runs::{Durability, LogSettings, Place};

use super::super::mounts::Mount;
use super::super::security::SecurityOptions;
use super::super::spec::{DeviceMapping, IpcMode, MountKind, PidMode, RestartPolicy, UtsMode};
use super::*;
use crate::apparmor::AppArmor;
use crate::workloads::devices::HostDevice;

fn host() -> Host {
    Host {
        cgroup_v2: false,
        kernel: (6, 12),
        architecture: "amd64".to_owned(),
        last_capability: 40,
        thermal_paths: Vec::new(),
        selinux: false,
        apparmor: AppArmor::Absent,
    }
}

/// The workload of a container; `mounts` are (kind, source, destination, read-only). The network of a
/// container that is called `other` can be joined.
fn workload(spec: &ContainerSpec, mounts: &[(MountKind, &str, &str, bool)]) -> Result<Workload> {
    let found = mounts.iter().map(|(kind, source, destination, read_only)| FoundMount {
        mount: Mount {
            kind: *kind,
            destination: (*destination).to_owned(),
            read_only: *read_only,
            ..Mount::default()
        },
        source: match kind {
            MountKind::Tmpfs => Source::Nothing,
            _ => Source::Bind(BindSource::Path(source.into())),
        },
    });
    let kvm = HostDevice {
        path: "/dev/kvm".to_owned(),
        kind: DeviceKind::Character,
        number: DeviceNumber { major: 10, minor: 232 },
        mode: 0o660,
        uid: 0,
        gid: 104,
    };
    let joins = spec.host.network == NetworkMode::Container("other".to_owned());
    let network = || std::fs::File::open("/proc/self/ns/net").unwrap().into();
    lower(Inputs {
        id: &"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".parse().unwrap(),
        spec,
        config: &EngineConfig::default(),
        default_shm_size: crate::config::SHM_BYTES_DEFAULT,
        host: &host(),
        hostname: "0123456789ab",
        mounts: found.collect(),
        files: &ManagedFiles {
            hosts: "/data/hosts".into(),
            hostname: "/data/hostname".into(),
            resolv_conf: "/data/resolv.conf".into(),
        },
        sandbox: None,
        joined: Joined { network: joins.then(network), ..Joined::default() },
        devices: HostDevices {
            named: BTreeMap::from([("/dev/kvm".to_owned(), vec![kvm])]),
            all: Vec::new(),
        },
        link_env: &[],
        filter: None,
        root: Rootfs::Bind { path: PathBuf::from("/root") },
        supervision: Supervision {
            directory: PathBuf::from("/run"),
            log: LogSettings::default(),
            exit_record: PathBuf::from("/data/exit.json"),
            durability: Durability::Lazy,
            resolver: None,
        },
        ports: Vec::new(),
        runtime: RuntimeChoice::Builtin,
    })
}

fn shell() -> ContainerSpec {
    let mut spec = ContainerSpec::default();
    spec.config.cmd = Some(vec!["sh".to_owned()]);
    let options = vec!["seccomp=unconfined".to_owned()];
    spec.host.security_opt = SecurityOptions::parse(options).unwrap();
    spec
}

/// One line for each mount, namespace and so on, so that a difference is seen at once.
fn render(workload: &Workload) -> String {
    let spec = document::document(workload);
    let places: Vec<Place> =
        document::descriptors(workload).into_iter().map(|(place, _)| place).collect();
    let process = spec.process.as_ref().unwrap();
    let linux = spec.linux.as_ref().unwrap();
    let mut lines = vec![
        format!("args {:?} cwd {} tty {}", process.args, process.cwd, process.terminal),
        format!("env {:?}", process.env),
        format!("caps {}", process.capabilities.as_ref().unwrap().bounding.len()),
        format!("hostname {:?} readonly {}", spec.hostname, spec.root.as_ref().unwrap().readonly),
        format!("cgroup {}", linux.cgroups_path),
    ];
    let namespaces = linux.namespaces.iter().map(|namespace| {
        let joined = places.contains(&Place::Namespace(namespace.kind));
        format!("{:?}{}", namespace.kind, if joined { "(joined)" } else { "" })
    });
    lines.push(format!("namespaces {}", namespaces.collect::<Vec<_>>().join(" ")));
    lines.push(format!(
        "masked {} readonly {} seccomp {}",
        linux.masked_paths.len(),
        linux.readonly_paths.len(),
        linux.seccomp.is_some()
    ));
    lines.push(format!("sysctl {:?}", linux.sysctl));
    for mount in &spec.mounts {
        lines.push(format!(
            "{} {} {} {}",
            mount.destination,
            mount.kind,
            mount.source,
            mount.options.join(",")
        ));
    }
    lines.extend(
        linux
            .devices
            .iter()
            .map(|device| format!("device {} {}:{}", device.path, device.major, device.minor)),
    );
    let resources = linux.resources.as_ref().unwrap();
    lines.push(format!("rules {}", resources.devices.len()));
    lines.push(format!(
        "memory {:?}",
        resources.memory.as_ref().map(|memory| (memory.limit, memory.swap))
    ));
    lines.push(format!(
        "cpu {:?}",
        resources.cpu.as_ref().map(|cpu| (cpu.quota, cpu.period, cpu.shares))
    ));
    lines.join("\n") + "\n"
}

#[track_caller]
fn check(spec: &ContainerSpec, mounts: &[(MountKind, &str, &str, bool)], want: Expect) {
    want.assert_eq(&render(&workload(spec, mounts).unwrap()));
}

#[test]
fn a_plain_container_gets_dockers_defaults() {
    check(
        &shell(),
        &[],
        expect![[r#"
        args ["sh"] cwd / tty false
        env ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=0123456789ab"]
        caps 14
        hostname "0123456789ab" readonly false
        cgroup /docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        namespaces Mount Network Uts Pid Ipc
        masked 12 readonly 5 seccomp false
        sysctl {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
        /proc proc proc nosuid,noexec,nodev
        /dev tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k
        /sys sysfs sysfs nosuid,noexec,nodev,ro
        /dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5
        /dev/mqueue mqueue mqueue nosuid,noexec,nodev
        /dev/shm tmpfs shm nosuid,noexec,nodev,mode=1777,size=67108864
        /etc/resolv.conf bind /data/resolv.conf rbind,rprivate,rw
        /etc/hostname bind /data/hostname rbind,rprivate,rw
        /etc/hosts bind /data/hosts rbind,rprivate,rw
        /sys/fs/cgroup cgroup cgroup ro,nosuid,noexec,nodev,relatime
        rules 13
        memory None
        cpu None
    "#]],
    );
}

#[test]
fn a_privileged_container_sees_the_host() {
    let mut spec = shell();
    spec.host.privileged = true;
    spec.host.network = NetworkMode::Host;
    spec.host.pid = PidMode::Host;
    spec.host.ipc = IpcMode::Host;
    spec.host.uts = UtsMode::Host;
    check(
        &spec,
        &[],
        expect![[r#"
        args ["sh"] cwd / tty false
        env ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=0123456789ab"]
        caps 41
        hostname "" readonly false
        cgroup /docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        namespaces Mount
        masked 0 readonly 0 seccomp false
        sysctl {}
        /proc proc proc nosuid,noexec,nodev
        /dev tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k
        /sys sysfs sysfs nosuid,noexec,nodev,rw
        /dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5
        /dev/mqueue mqueue mqueue nosuid,noexec,nodev
        /dev/shm bind /dev/shm rbind,nosuid,noexec,nodev
        /etc/resolv.conf bind /data/resolv.conf rbind,rprivate,rw
        /etc/hostname bind /data/hostname rbind,rprivate,rw
        /etc/hosts bind /data/hosts rbind,rprivate,rw
        /sys/fs/cgroup cgroup cgroup rw,nosuid,noexec,nodev,relatime
        rules 1
        memory None
        cpu None
    "#]],
    );
}

#[test]
fn what_was_asked_for_shows_in_the_document() {
    let mut spec = shell();
    spec.tty = true;
    spec.config.env = vec!["A=1".to_owned(), "HOSTNAME".to_owned(), "PATH=/bin".to_owned()];
    spec.config.working_dir = "/a/../b".to_owned();
    spec.host.read_only_rootfs = true;
    spec.host.restart = RestartPolicy::Always;
    spec.host.resources.memory = 64 << 20;
    spec.host.resources.nano_cpus = 1_500_000_000;
    spec.host.resources.cgroup_parent = "/mine/".to_owned();
    spec.host.resources.devices = vec![DeviceMapping {
        host: "/dev/kvm".to_owned(),
        container: "/dev/mine".to_owned(),
        permissions: "r".to_owned(),
    }];
    spec.host.network = NetworkMode::Container("other".to_owned());
    let mounts = [
        (MountKind::Volume, "/vol", "/data/deep", false),
        (MountKind::Bind, "/src", "/data", true),
        (MountKind::Bind, "/own/hosts", "/etc/hosts", false),
        (MountKind::Tmpfs, "", "/dev/shm", false),
    ];
    check(
        &spec,
        &mounts,
        expect![[r#"
        args ["sh"] cwd /b tty true
        env ["PATH=/bin", "TERM=xterm", "A=1"]
        caps 14
        hostname "0123456789ab" readonly true
        cgroup /mine/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        namespaces Mount Network(joined) Uts Pid Ipc
        masked 12 readonly 5 seccomp false
        sysctl {}
        /proc proc proc nosuid,noexec,nodev
        /dev tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k
        /sys sysfs sysfs nosuid,noexec,nodev,ro
        /data bind /src rbind,rprivate,rro
        /dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5
        /dev/mqueue mqueue mqueue nosuid,noexec,nodev
        /etc/resolv.conf bind /data/resolv.conf rbind,rprivate,ro
        /etc/hostname bind /data/hostname rbind,rprivate,ro
        /data/deep bind /vol rbind,rprivate,rw
        /etc/hosts bind /own/hosts rbind,rprivate,rw
        /dev/shm tmpfs tmpfs noexec,nosuid,nodev
        /sys/fs/cgroup cgroup cgroup ro,nosuid,noexec,nodev,relatime
        device /dev/mine 10:232
        rules 14
        memory Some((Some(67108864), Some(134217728)))
        cpu Some((Some(150000), Some(100000), None))
    "#]],
    );
}

#[test]
fn a_namespace_of_a_stopped_container_cannot_be_joined() {
    let mut spec = shell();
    spec.host.pid = PidMode::Container("gone".to_owned());
    let error = workload(&spec, &[]).unwrap_err();
    assert_eq!(error.message, "container gone is not running");
}
