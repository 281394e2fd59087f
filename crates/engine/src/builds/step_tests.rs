//! What a RUN step becomes for the runtime.

use expect_test::{Expect, expect};
use runs::document;
use runs::workload::BindSource;

use super::*;
use crate::apparmor::AppArmor;
use crate::builds::mounts::bind;

fn step() -> Step {
    Step {
        id: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".parse().unwrap(),
        snapshot: "build-x".to_owned(),
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), "make".to_owned()],
        env: vec!["PATH=/bin".to_owned()],
        user: String::new(),
        working_dir: "/src/../work".to_owned(),
        network: NetworkMode::Bridge,
        privileges: Privileges::Default,
        hostname: String::new(),
        mounts: Vec::new(),
        options: RunOptions::default(),
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Step), want: Expect) {
    let host = Host {
        cgroup_v2: true,
        kernel: (6, 12),
        architecture: "amd64".to_owned(),
        last_capability: 40,
        thermal_paths: Vec::new(),
        selinux: false,
        apparmor: AppArmor::Absent,
    };
    let facts = Facts { config: &EngineConfig::default(), host: &host, default_shm_size: 4096 };
    let mut step = step();
    change(&mut step);
    let found = Found {
        root: Rootfs::Bind { path: PathBuf::from("/root") },
        network: match step.network {
            NetworkMode::Host => NetworkNamespace::Host,
            _ => NetworkNamespace::New,
        },
        ports: Vec::new(),
        files: crate::workloads::files::files_in(Path::new("/files")),
        devices: HostDevices::default(),
        filter: None,
        runtime: RuntimeChoice::Builtin,
    };
    let workload = lower(&facts, step, found).unwrap();
    let document = document::document(&workload);
    let (process, linux) = (document.process.unwrap(), document.linux.unwrap());
    let namespaces: Vec<String> =
        linux.namespaces.iter().map(|namespace| format!("{:?}", namespace.kind)).collect();
    let mounts = document.mounts.iter().map(|mount| {
        format!("{} {} {}\n", mount.destination, mount.source, mount.options.join(","))
    });
    want.assert_eq(&format!(
        "{:?} in {} as {:?}\n{:?}\ncapabilities {} host {} sysctls {} masked {} rules {}\n{} in {}\n{}resolver {}\n",
        process.args,
        process.cwd,
        document::settings(&workload).user.unwrap(),
        process.env,
        process.capabilities.unwrap().bounding.len(),
        document.hostname,
        linux.sysctl.len(),
        linux.masked_paths.len(),
        linux.resources.unwrap().devices.len(),
        namespaces.join(" "),
        linux.cgroups_path,
        mounts.collect::<String>(),
        workload.supervision.resolver.is_some(),
    ));
}

#[test]
fn a_plain_step_is_held_apart_as_a_container_is() {
    check(
        |_| {},
        expect![[r#"
        ["/bin/sh", "-c", "make"] in /work as ""
        ["PATH=/bin", "HOSTNAME=buildkitsandbox"]
        capabilities 14 host buildkitsandbox sysctls 2 masked 12 rules 13
        Mount Network Uts Pid Ipc Cgroup in /docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        /proc proc nosuid,noexec,nodev
        /dev tmpfs nosuid,strictatime,mode=755,size=65536k
        /sys sysfs nosuid,noexec,nodev,ro
        /dev/pts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5
        /dev/mqueue mqueue nosuid,noexec,nodev
        /dev/shm shm nosuid,noexec,nodev,mode=1777,size=4096
        /etc/resolv.conf /files/resolv.conf rbind,rprivate,rw
        /etc/hostname /files/hostname rbind,rprivate,rw
        /etc/hosts /files/hosts rbind,rprivate,rw
        /sys/fs/cgroup cgroup ro,nosuid,noexec,nodev,relatime
        resolver false
    "#]],
    );
}

#[test]
fn what_a_step_asks_for_shows() {
    check(
        |step| {
            step.user = "1000:1000".to_owned();
            step.network = NetworkMode::Host;
            step.privileges = Privileges::All;
            step.hostname = "mine".to_owned();
            step.options.shm_size = Some(8192);
            step.options.resources.cgroup_parent = "/builds".to_owned();
            let source = BindSource::Path(PathBuf::from("/cache"));
            step.mounts = vec![bind(source, "/root/../var/cache", Access::ReadOnly)];
        },
        expect![[r#"
            ["/bin/sh", "-c", "make"] in /work as "1000:1000"
            ["PATH=/bin", "HOSTNAME=mine"]
            capabilities 41 host mine sysctls 0 masked 0 rules 1
            Mount Uts Pid Ipc Cgroup in /builds/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
            /proc proc nosuid,noexec,nodev
            /dev tmpfs nosuid,strictatime,mode=755,size=65536k
            /sys sysfs nosuid,noexec,nodev,rw
            /dev/pts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5
            /dev/mqueue mqueue nosuid,noexec,nodev
            /dev/shm shm nosuid,noexec,nodev,mode=1777,size=8192
            /etc/resolv.conf /files/resolv.conf rbind,rprivate,rw
            /etc/hostname /files/hostname rbind,rprivate,rw
            /etc/hosts /files/hosts rbind,rprivate,rw
            /var/cache /cache rbind,rprivate,rro
            /sys/fs/cgroup cgroup rw,nosuid,noexec,nodev,relatime
            resolver false
        "#]],
    );
}

#[test]
fn options_that_a_container_could_not_have_are_refused() {
    let refused = |options: RunOptions| options.check().unwrap_err().message;
    let host = vec!["a:1.2.3.4".to_owned()];
    assert_eq!(
        refused(RunOptions {
            network: NetworkMode::Container("x".to_owned()),
            extra_hosts: host,
            ..RunOptions::default()
        }),
        "conflicting options: custom host-to-IP mapping and the network mode"
    );
    let extra_hosts = vec!["a:1.2.3".to_owned()];
    assert_eq!(
        refused(RunOptions { extra_hosts, ..RunOptions::default() }),
        "invalid IP address in add-host: \"1.2.3\""
    );
}
