//! What a workload says in an OCI document, place by place.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use expect_test::{Expect, expect};
use spec::runtime::ConsoleSize;
use sys::mount::Depth;

use super::*;
use crate::workload::{
    Amount, Bind, BindAccess, Configured, DeviceAccess, DeviceKind, DeviceNumber, Devices, Limits,
    Mount, OomScore, PathInside, Permission, Root, Security, Supervision, Tmpfs,
};
use crate::workload::{Namespaces, Resolver};
use crate::{Durability, LogSettings, Rootfs, RuntimeChoice};

fn descriptor() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

/// The least that can run.
fn plain() -> Workload {
    Workload {
        id: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".parse().unwrap(),
        root: Root {
            file_system: Rootfs::Bind { path: PathBuf::from("/root") },
            access: Access::ReadWrite,
        },
        program: Program {
            argv: vec!["sh".to_owned()],
            env: Vec::new(),
            cwd: PathInside::new("/"),
            user: runtime::UserRequest::default(),
            streams: Streams::Pipes,
            stdin: Stdin::None,
            capabilities: capability::Set::EMPTY,
            rlimits: Vec::new(),
            new_privileges: NewPrivileges::Forbidden,
            apparmor: None,
            oom_score: OomScore::default(),
        },
        namespaces: Namespaces {
            network: NetworkNamespace::New,
            pid: Namespace::New,
            ipc: Namespace::New,
            uts: UtsNamespace::Host,
            cgroup: CgroupNamespace::Host,
        },
        mounts: Vec::new(),
        devices: Devices::default(),
        limits: Limits::default(),
        security: Security::default(),
        cgroup: PathBuf::from("/group"),
        annotations: Default::default(),
        ports: Vec::new(),
        supervision: Supervision {
            directory: PathBuf::from("/run/x"),
            log: LogSettings::default(),
            exit_record: PathBuf::from("/data/exit.json"),
            durability: Durability::Lazy,
            resolver: None,
        },
        runtime: RuntimeChoice::Builtin,
        init: Init::Program,
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Workload), want: Expect) {
    let mut workload = plain();
    change(&mut workload);
    let document = document(&workload);
    let mounts = document.mounts.iter().map(json);
    let parts = [json(&document.process), json(&document.root)];
    let lines: Vec<String> =
        parts.into_iter().chain(mounts).chain([json(&document.linux)]).collect();
    let places: Vec<Place> = descriptors(&workload).into_iter().map(|(place, _)| place).collect();
    want.assert_eq(&format!("{}\n{places:?}\n", lines.join("\n")));
}

fn json(part: &impl serde::Serialize) -> String {
    serde_json::to_string(part).unwrap()
}

fn at(destination: &str, kind: MountKind) -> Mount {
    Mount { destination: PathInside::new(destination), kind }
}

#[test]
fn what_is_absent_is_not_written() {
    check(
        |_| {},
        expect![[r#"
        {"user":{"uid":0,"gid":0},"args":["sh"],"cwd":"/","capabilities":{},"noNewPrivileges":true,"oomScoreAdj":0}
        {"path":"rootfs"}
        {"resources":{},"cgroupsPath":"/group","namespaces":[{"type":"mount"},{"type":"network"},{"type":"pid"},{"type":"ipc"}]}
        []
    "#]],
    );
}

#[test]
fn descriptors_leave_their_places_empty() {
    check(
        |workload| {
            workload.namespaces.network = NetworkNamespace::Joined(descriptor());
            workload.namespaces.pid = Namespace::Host;
            workload.namespaces.ipc = Namespace::Joined(descriptor());
            let private = (Propagation::Private, Depth::Recursive);
            let bind = |source, depth, access, propagation| {
                MountKind::Bind(Bind { source, depth, access, propagation })
            };
            workload.mounts = vec![
                at("/proc", MountKind::Proc),
                at("/dev/shm", MountKind::Shm(Shm::Joined(descriptor()))),
                at(
                    "/tree",
                    bind(
                        BindSource::Descriptor(descriptor()),
                        Depth::Recursive,
                        BindAccess::ReadOnly(Depth::Recursive),
                        private,
                    ),
                ),
                at(
                    "/path",
                    bind(
                        BindSource::Path(PathBuf::from("/source")),
                        Depth::Only,
                        BindAccess::ReadOnly(Depth::Only),
                        (Propagation::Slave, Depth::Only),
                    ),
                ),
                at(
                    "/volume",
                    MountKind::Configured(Configured {
                        source: BindSource::Descriptor(descriptor()),
                        options: vec!["bind".to_owned(), "rw".to_owned()],
                        access: Access::ReadOnly,
                    }),
                ),
            ];
        },
        expect![[r#"
            {"user":{"uid":0,"gid":0},"args":["sh"],"cwd":"/","capabilities":{},"noNewPrivileges":true,"oomScoreAdj":0}
            {"path":"rootfs"}
            {"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]}
            {"destination":"/dev/shm","type":"bind","options":["bind","nosuid","noexec","nodev"]}
            {"destination":"/tree","type":"bind","options":["rbind","rprivate","rro"]}
            {"destination":"/path","type":"bind","source":"/source","options":["bind","slave","ro"]}
            {"destination":"/volume","type":"bind","options":["bind","rprivate","ro"]}
            {"resources":{},"cgroupsPath":"/group","namespaces":[{"type":"mount"},{"type":"network"},{"type":"ipc"}],"rootfsPropagation":"rslave"}
            [Namespace(Network), Namespace(Ipc), Mount(1), Mount(2), Mount(4)]
        "#]],
    );
}

#[test]
fn limits_devices_and_a_terminal_are_in_the_documents_words() {
    check(
        |workload| {
            let max = |number| Amount::Max(NonZeroU64::new(number).unwrap());
            workload.program.streams =
                Streams::Terminal { size: Some(ConsoleSize { height: 24, width: 80 }) };
            workload.program.capabilities = capability::Set::parse(["CAP_CHOWN", "CAP_KILL"]);
            workload.limits.memory.max_bytes = NonZeroU64::new(64 << 20);
            workload.limits.memory.swap_bytes = Some(Amount::Unlimited);
            workload.limits.cpu.quota_us = Some(max(150_000));
            workload.limits.cpu.cpus = Some("1,0,3".parse().unwrap());
            workload.limits.pids = Some(Amount::Unlimited);
            workload.devices.nodes = vec![DeviceNode {
                path: PathInside::new("/dev/mine"),
                kind: DeviceKind::Block,
                number: DeviceNumber { major: 8, minor: 1 },
                mode: 0o660,
                uid: 0,
                gid: 6,
            }];
            workload.devices.rules = vec![DeviceRule {
                verdict: Verdict::Deny,
                kind: None,
                major: None,
                minor: Some(3),
                access: DeviceAccess::ALL,
            }];
            workload.mounts = vec![at(
                "/tmp",
                MountKind::Tmpfs(Tmpfs {
                    size_bytes: NonZeroU64::new(4096),
                    mode: Some(0o1777),
                    exec: Permission::Allowed,
                    suid: Permission::Denied,
                    dev: Permission::Denied,
                    access: Access::ReadOnly,
                    options: vec!["uid=5".to_owned()],
                }),
            )];
        },
        expect![[r#"
            {"terminal":true,"consoleSize":{"height":24,"width":80},"user":{"uid":0,"gid":0},"args":["sh"],"cwd":"/","capabilities":{"bounding":["CAP_CHOWN","CAP_KILL"],"effective":["CAP_CHOWN","CAP_KILL"],"permitted":["CAP_CHOWN","CAP_KILL"]},"noNewPrivileges":true,"oomScoreAdj":0}
            {"path":"rootfs"}
            {"destination":"/tmp","type":"tmpfs","source":"tmpfs","options":["exec","nosuid","nodev","uid=5","size=4096","mode=1777","ro"]}
            {"resources":{"devices":[{"allow":false,"type":"a","minor":3,"access":"rwm"}],"memory":{"limit":67108864,"swap":-1},"cpu":{"quota":150000,"cpus":"0-1,3"},"pids":{"limit":0}},"cgroupsPath":"/group","namespaces":[{"type":"mount"},{"type":"network"},{"type":"pid"},{"type":"ipc"}],"devices":[{"path":"/dev/mine","type":"b","major":8,"minor":1,"fileMode":432,"uid":0,"gid":6}]}
            []
        "#]],
    );
}

#[test]
fn the_supervisor_learns_what_concerns_it() {
    let mut workload = plain();
    workload.program.stdin = Stdin::Once;
    workload.program.streams = Streams::Terminal { size: None };
    workload.init = Init::Engine;
    let files = |name: &str| PathBuf::from("/run/x").join(name);
    workload.supervision.resolver =
        Some(Resolver { settings: files("resolver.json"), zones: files("zones") });
    let settings = settings(&workload);
    assert!(settings.tty && settings.open_stdin && settings.stdin_once && settings.init);
    assert_eq!(settings.resolver, Some(files("resolver.json")));
    assert_eq!(settings.cgroup, Some(PathBuf::from("/group")));
}
