//! The OCI document of a container, derived from its wish. Pure: the same inputs give the same
//! document, and all that must be looked up on the host comes in as [`Inputs`].
//!
//! Docker's defaults live here: namespaces, mounts, masked paths, devices, capabilities, seccomp,
//! environment. Who the process runs as is looked up in the container's own files by the monitor.
//!
//! Source: moby `oci/defaults.go`, `daemon/oci_linux.go`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use spec::Id;
use spec::runtime::{
    BlockIo, Capabilities, ConsoleSize, Cpu, Device, DeviceRule, Linux, Memory, Mount as OciMount,
    Namespace, NamespaceKind, Pids, Process, Resources as OciResources, Rlimit, Root, Seccomp,
    Spec, ThrottleDevice, WeightDevice,
};

use super::capabilities;
use super::mounts::Mount;
use super::security::SecurityOptions;
use super::spec::{
    CgroupnsMode, ContainerSpec, HostSpec, IpcMode, MountKind, NetworkMode, PidMode, Resources,
    TmpfsOptions, Ulimit, UtsMode,
};
use crate::apparmor::AppArmor;
use crate::config::EngineConfig;
use crate::error::{Error, Result};

const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Microseconds; the period that `--cpus` is counted in.
const CPU_PERIOD: i64 = 100_000;

/// Masked by default. Source: moby `oci/defaults.go` (28.2).
pub const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
pub const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Facts about this host that containers depend on.
#[derive(Debug, Clone)]
pub struct Host {
    pub cgroup_v2: bool,
    pub kernel: (u32, u32),
    /// In Go's names.
    pub architecture: String,
    /// Number of the kernel's highest capability.
    pub last_capability: usize,
    /// `thermal_throttle` directories, which are masked too.
    pub thermal_paths: Vec<String>,
    pub selinux: bool,
    pub apparmor: AppArmor,
}

/// A device on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    pub path: String,
    /// `c` or `b`.
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// The files that the engine keeps for a container, mounted unless the user mounts there.
#[derive(Debug, Clone, Default)]
pub struct ManagedFiles {
    pub hosts: PathBuf,
    pub hostname: PathBuf,
    pub resolv_conf: PathBuf,
}

/// A mount with its source on the host.
#[derive(Debug, Clone)]
pub struct HostMount {
    pub mount: Mount,
    /// Unused by a tmpfs.
    pub source: PathBuf,
    /// What a volume with driver options is; a bind's options if it shows a directory.
    pub file_system: Option<store::VolumeMount>,
}

/// Everything that the document depends on.
pub struct Inputs<'a> {
    pub id: &'a Id,
    /// For another runtime, which compiles it; our own gets the filter.
    pub seccomp: Option<Seccomp>,
    pub spec: &'a ContainerSpec,
    pub config: &'a EngineConfig,
    /// Bytes.
    pub default_shm_size: u64,
    pub host: &'a Host,
    /// Filled in.
    pub hostname: &'a str,
    pub mounts: &'a [HostMount],
    pub files: &'a ManagedFiles,
    /// Pids of the first processes of containers whose namespaces are joined, by what was asked.
    pub joined: &'a BTreeMap<String, i32>,
    /// Nodes of each `--device`, and all of the host's under the empty key when privileged.
    pub devices: &'a BTreeMap<String, Vec<DeviceNode>>,
    /// The `/dev/shm` of the container whose IPC namespace is joined.
    pub shm: Option<&'a Path>,
    /// Environment of `--link`.
    pub link_env: &'a [String],
}

/// Derives the document.
///
/// # Errors
/// `Invalid` when the wish names something that does not exist or cannot be.
pub fn derive(inputs: &Inputs<'_>) -> Result<Spec> {
    let spec = inputs.spec;
    let security = SecurityOptions::parse(&spec.host.security_opt)?;
    check_labels(&security, inputs.host)?;
    let capabilities = capabilities::resolve(
        spec.host.privileged,
        &spec.host.cap_add,
        &spec.host.cap_drop,
        inputs.host.last_capability,
    )?;
    let uts_private = spec.host.uts == UtsMode::Private;
    Ok(Spec {
        oci_version: spec::runtime::VERSION.to_owned(),
        process: Some(process(inputs, &security, capabilities)),
        root: Some(Root { path: "rootfs".to_owned(), readonly: spec.host.read_only_rootfs }),
        hostname: if uts_private { inputs.hostname.to_owned() } else { String::new() },
        domainname: if uts_private { spec.domainname.clone() } else { String::new() },
        mounts: mounts(inputs, &security),
        hooks: None,
        annotations: spec.host.annotations.clone(),
        linux: Some(linux(inputs, &security)?),
        vm: None,
    })
}

fn process(inputs: &Inputs<'_>, security: &SecurityOptions, names: Vec<String>) -> Process {
    let spec = inputs.spec;
    let cwd = if spec.config.working_dir.is_empty() { "/" } else { &spec.config.working_dir };
    Process {
        terminal: spec.tty,
        console_size: spec
            .host
            .console_size
            .filter(|size| *size != (0, 0))
            .map(|(height, width)| ConsoleSize { height, width }),
        args: spec.argv(),
        env: environment(spec, inputs.hostname, inputs.link_env),
        cwd: super::mounts::clean(cwd),
        capabilities: Some(Capabilities {
            bounding: names.clone(),
            effective: names.clone(),
            permitted: names,
            ..Capabilities::default()
        }),
        rlimits: rlimits(&inputs.config.default_ulimits, &spec.host.resources.ulimits),
        no_new_privileges: security.no_new_privileges.unwrap_or(inputs.config.no_new_privileges),
        apparmor_profile: apparmor(security, spec, inputs.host),
        oom_score_adj: Some(spec.host.oom_score_adj),
        ..Process::default()
    }
}

/// The AppArmor profile of the container's processes, which the start applies or fails.
pub(crate) fn apparmor(security: &SecurityOptions, spec: &ContainerSpec, host: &Host) -> String {
    crate::apparmor::profile_of(&security.apparmor, spec.host.privileged, host.apparmor).to_owned()
}

/// Labels are Docker's business on hosts with SELinux only, and there they would not be applied.
fn check_labels(security: &SecurityOptions, host: &Host) -> Result<()> {
    match security.labels.iter().find(|label| *label != "disable") {
        Some(label) if host.selinux => {
            Err(Error::invalid(format!("SELinux labels are not supported: label={label}")))
        }
        Some(_) | None => Ok(()),
    }
}

/// The environment: defaults, then what the wish says, replaced by key; a key without value takes one away.
pub fn environment(spec: &ContainerSpec, hostname: &str, links: &[String]) -> Vec<String> {
    let mut env = vec![PATH_DEFAULT.to_owned(), format!("HOSTNAME={hostname}")];
    if spec.tty {
        env.push("TERM=xterm".to_owned());
    }
    env.extend_from_slice(links);
    replace_env(&mut env, &spec.config.env);
    env
}

/// Overlays `wishes` on `env` by key.
pub fn replace_env(env: &mut Vec<String>, wishes: &[String]) {
    let key = |entry: &str| entry.split('=').next().unwrap_or("").to_owned();
    for wish in wishes {
        let place = env.iter().position(|entry| key(entry) == key(wish));
        match (place, wish.contains('=')) {
            (Some(place), true) => env[place].clone_from(wish),
            (Some(place), false) => {
                env.remove(place);
            }
            (None, true) => env.push(wish.clone()),
            (None, false) => {}
        }
    }
}

pub(crate) fn rlimits(defaults: &[Ulimit], wishes: &[Ulimit]) -> Vec<Rlimit> {
    let mut all: BTreeMap<String, Rlimit> = BTreeMap::new();
    for ulimit in defaults.iter().chain(wishes) {
        if let Some(kind) = Rlimit::kind_of(&ulimit.name) {
            // -1 is unlimited, which is the largest number to the kernel.
            let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
            let limit =
                Rlimit { kind: kind.clone(), hard: number(ulimit.hard), soft: number(ulimit.soft) };
            all.insert(kind, limit);
        }
    }
    all.into_values().collect()
}

/// The paths that are hidden, as inspect shows them too.
#[must_use]
pub fn masked_paths(spec: &ContainerSpec, host: &Host, security: &SecurityOptions) -> Vec<String> {
    if spec.host.privileged || security.system_paths_unconfined {
        return Vec::new();
    }
    spec.host.masked_paths.clone().unwrap_or_else(|| {
        let fixed = MASKED_PATHS.iter().map(|&path| path.to_owned());
        fixed.chain(host.thermal_paths.iter().cloned()).collect()
    })
}

/// The paths that are read-only, as inspect shows them too.
#[must_use]
pub fn readonly_paths(spec: &ContainerSpec, security: &SecurityOptions) -> Vec<String> {
    if spec.host.privileged || security.system_paths_unconfined {
        return Vec::new();
    }
    let default = || READONLY_PATHS.iter().map(|&path| path.to_owned()).collect();
    spec.host.readonly_paths.clone().unwrap_or_else(default)
}

fn linux(inputs: &Inputs<'_>, security: &SecurityOptions) -> Result<Linux> {
    let spec = inputs.spec;
    let devices = devices(inputs);
    let shared = inputs.mounts.iter().any(|host| host.mount.propagation.ends_with("shared"));
    let slave = inputs.mounts.iter().any(|host| host.mount.propagation.ends_with("slave"));
    Ok(Linux {
        sysctl: sysctls(spec),
        resources: Some(OciResources {
            devices: device_rules(inputs),
            ..resources(&spec.host.resources, inputs.devices)
        }),
        cgroups_path: cgroup_path(inputs.id, spec, inputs.config),
        namespaces: namespaces(inputs)?,
        devices,
        seccomp: inputs.seccomp.clone(),
        rootfs_propagation: match (shared, slave) {
            (true, _) => "shared".to_owned(),
            (false, true) => "rslave".to_owned(),
            (false, false) => String::new(),
        },
        masked_paths: masked_paths(spec, inputs.host, security),
        readonly_paths: readonly_paths(spec, security),
        ..Linux::default()
    })
}

/// The container's control group, from the top of each hierarchy.
#[must_use]
pub fn cgroup_path(id: &Id, spec: &ContainerSpec, config: &EngineConfig) -> String {
    let parent = [&spec.host.resources.cgroup_parent, &config.cgroup_parent]
        .into_iter()
        .find(|parent| !parent.is_empty());
    // Docker's own parent, by which programs know that they are in a container. Ids differ, so several
    // engines share it, and nobody removes it.
    let parent = parent.map_or("/docker", String::as_str);
    format!("/{}/{id}", parent.trim_matches('/'))
}

fn sysctls(spec: &ContainerSpec) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if !matches!(spec.host.network, NetworkMode::Host | NetworkMode::Container(_)) {
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    all.extend(spec.host.sysctls.clone());
    all
}

fn namespaces(inputs: &Inputs<'_>) -> Result<Vec<Namespace>> {
    let host = &inputs.spec.host;
    let new = |kind| Some(Namespace { kind, path: String::new() });
    let of = |kind, file: &str, asked: &str| match inputs.joined.get(asked) {
        Some(pid) => Ok(Some(Namespace { kind, path: format!("/proc/{pid}/ns/{file}") })),
        None => Err(crate::words::not_running(asked)),
    };
    let network = match &host.network {
        NetworkMode::Host => None,
        NetworkMode::Container(other) => of(NamespaceKind::Network, "net", other)?,
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => {
            new(NamespaceKind::Network)
        }
    };
    let pid = match &host.pid {
        PidMode::Private => new(NamespaceKind::Pid),
        PidMode::Host => None,
        PidMode::Container(other) => of(NamespaceKind::Pid, "pid", other)?,
    };
    let ipc = match &host.ipc {
        IpcMode::Host => None,
        IpcMode::Container(other) => of(NamespaceKind::Ipc, "ipc", other)?,
        IpcMode::Unset | IpcMode::None | IpcMode::Private | IpcMode::Shareable => {
            new(NamespaceKind::Ipc)
        }
    };
    let uts = match host.uts {
        UtsMode::Host => None,
        UtsMode::Private => new(NamespaceKind::Uts),
    };
    let cgroup = if cgroupns_private(inputs) { new(NamespaceKind::Cgroup) } else { None };
    Ok([new(NamespaceKind::Mount), network, uts, pid, ipc, cgroup].into_iter().flatten().collect())
}

fn cgroupns_private(inputs: &Inputs<'_>) -> bool {
    let mode = settled_cgroupns(&inputs.spec.host, inputs.config, inputs.host);
    mode == CgroupnsMode::Private
}

/// The cgroup namespace that a wish gets, `Private` or `Host`.
///
/// Source: moby 28.2 `daemon/daemon_unix.go`, `adaptContainerSettings`.
pub(crate) fn settled_cgroupns(
    wish: &HostSpec,
    config: &EngineConfig,
    host: &Host,
) -> CgroupnsMode {
    let default = match config.default_cgroupns {
        // On version 1 a namespace of its own would take away what a privileged container may do.
        _ if wish.privileged && !host.cgroup_v2 => CgroupnsMode::Host,
        CgroupnsMode::Unset if host.cgroup_v2 => CgroupnsMode::Private,
        CgroupnsMode::Unset => CgroupnsMode::Host,
        CgroupnsMode::Private | CgroupnsMode::Host => config.default_cgroupns,
    };
    match wish.cgroupns {
        CgroupnsMode::Unset => default,
        CgroupnsMode::Private | CgroupnsMode::Host => wish.cgroupns,
    }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> OciMount {
    OciMount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: source.to_owned(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..OciMount::default()
    }
}

fn mounts(inputs: &Inputs<'_>, security: &SecurityOptions) -> Vec<OciMount> {
    let spec = inputs.spec;
    let privileged = spec.host.privileged;
    let access = if privileged { "rw" } else { "ro" };
    let cgroup_access = if privileged || security.writable_cgroups { "rw" } else { "ro" };
    let mut all = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &[cgroup_access, "nosuid", "noexec", "nodev", "relatime"],
        ),
    ];
    all.extend(ipc_mounts(inputs));
    // A user's mount takes the place of a default one and of what lies in it.
    let taken = |path: &str| {
        inputs.mounts.iter().any(|host| {
            let place = &host.mount.destination;
            path == place
                || path.strip_prefix(place.as_str()).is_some_and(|rest| rest.starts_with('/'))
        })
    };
    all.retain(|default| !taken(&default.destination) || default.destination == "/dev");
    let file_access = if spec.host.read_only_rootfs { "ro" } else { "rw" };
    for (place, source) in [
        ("/etc/resolv.conf", &inputs.files.resolv_conf),
        ("/etc/hostname", &inputs.files.hostname),
        ("/etc/hosts", &inputs.files.hosts),
    ] {
        let exact = inputs.mounts.iter().any(|host| host.mount.destination == place);
        if !exact && !source.as_os_str().is_empty() {
            all.push(mount(
                place,
                "bind",
                &source.to_string_lossy(),
                &["rbind", "rprivate", file_access],
            ));
        }
    }
    all.extend(inputs.mounts.iter().map(user_mount));
    // Parents first; the sort is stable, so the order above holds at one depth.
    all.sort_by_key(|mount| mount.destination.split('/').filter(|part| !part.is_empty()).count());
    all
}

/// What an IPC namespace shows in `/dev`.
fn ipc_mounts(inputs: &Inputs<'_>) -> Vec<OciMount> {
    let spec = inputs.spec;
    let shm_size = spec.host.shm_size.unwrap_or(inputs.default_shm_size);
    let mut all = Vec::new();
    match spec.host.ipc {
        IpcMode::Host => {
            // In the host's namespace this shows the host's queues.
            all.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
            all.push(mount(
                "/dev/shm",
                "bind",
                "/dev/shm",
                &["rbind", "nosuid", "noexec", "nodev"],
            ));
        }
        IpcMode::None => {
            all.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]))
        }
        IpcMode::Unset | IpcMode::Private | IpcMode::Shareable | IpcMode::Container(_) => {
            all.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
            let size = format!("size={shm_size}");
            all.push(match inputs.shm {
                Some(theirs) => mount(
                    "/dev/shm",
                    "bind",
                    &theirs.to_string_lossy(),
                    &["bind", "nosuid", "noexec", "nodev"],
                ),
                None => mount(
                    "/dev/shm",
                    "tmpfs",
                    "shm",
                    &["nosuid", "noexec", "nodev", "mode=1777", &size],
                ),
            });
        }
    }
    all
}

fn user_mount(host: &HostMount) -> OciMount {
    let wish = &host.mount;
    if let Some(file_system) = &host.file_system {
        let kind = if file_system.is_bind() { "bind" } else { &file_system.fs_type };
        let mut options: Vec<&str> = file_system.options.iter().map(String::as_str).collect();
        options.push("rprivate");
        if wish.read_only {
            options.retain(|option| *option != "rw");
            options.push("ro");
        }
        return mount(&wish.destination, kind, &host.source.to_string_lossy(), &options);
    }
    match wish.kind {
        MountKind::Tmpfs => {
            let default = TmpfsOptions::default();
            let options = tmpfs_options(wish.tmpfs.as_ref().unwrap_or(&default), wish.read_only);
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            mount(&wish.destination, "tmpfs", "tmpfs", &options)
        }
        MountKind::Bind
        | MountKind::Volume
        | MountKind::Image
        | MountKind::Npipe
        | MountKind::Cluster => {
            let bind = if wish.non_recursive { "bind" } else { "rbind" };
            let propagation =
                if wish.propagation.is_empty() { "rprivate" } else { &wish.propagation };
            let access = match (wish.read_only, wish.non_recursive || wish.read_only_non_recursive)
            {
                (false, _) => "rw",
                (true, true) => "ro",
                (true, false) => "rro",
            };
            mount(
                &wish.destination,
                "bind",
                &host.source.to_string_lossy(),
                &[bind, propagation, access],
            )
        }
    }
}

fn tmpfs_options(wish: &TmpfsOptions, read_only: bool) -> Vec<String> {
    let mut options: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
    for words in &wish.options {
        let option = words.join("=");
        let opposite = match option.strip_prefix("no") {
            Some(rest) => rest.to_owned(),
            None => format!("no{option}"),
        };
        options.retain(|known| *known != opposite && *known != option);
        options.push(option);
    }
    if wish.size_bytes > 0 {
        options.push(format!("size={}", wish.size_bytes));
    }
    if let Some(mode) = wish.mode {
        options.push(format!("mode={mode:o}"));
    }
    if read_only {
        options.push("ro".to_owned());
    }
    options
}

fn devices(inputs: &Inputs<'_>) -> Vec<Device> {
    let node = |node: &DeviceNode, path: String| Device {
        path,
        kind: node.kind.to_string(),
        major: node.major.into(),
        minor: node.minor.into(),
        file_mode: Some(node.mode & 0o7777),
        uid: Some(node.uid),
        gid: Some(node.gid),
    };
    let mut all = Vec::new();
    if inputs.spec.host.privileged {
        let host = inputs.devices.get("").into_iter().flatten();
        all.extend(host.map(|device| node(device, device.path.clone())));
    }
    for wish in &inputs.spec.host.resources.devices {
        let place = if wish.container.is_empty() { &wish.host } else { &wish.container };
        for device in inputs.devices.get(&wish.host).into_iter().flatten() {
            // A directory's nodes keep their place below it.
            let below = device.path.strip_prefix(&wish.host).unwrap_or("");
            all.push(node(device, format!("{place}{below}")));
        }
    }
    all
}

fn device_rules(inputs: &Inputs<'_>) -> Vec<DeviceRule> {
    let rule = |allow, kind: &str, major, minor, access: &str| DeviceRule {
        allow,
        kind: kind.to_owned(),
        major,
        minor,
        access: access.to_owned(),
    };
    if inputs.spec.host.privileged {
        return vec![rule(true, "a", None, None, "rwm")];
    }
    let mut rules = vec![rule(false, "a", None, None, "rwm")];
    // fuse(4) is named as Docker names it, and first: runc cannot take one device out of a wider rule.
    rules.push(rule(false, "c", Some(10), Some(229), "rwm"));
    rules.push(rule(true, "c", None, None, "m"));
    rules.push(rule(true, "b", None, None, "m"));
    // null, zero, full, random, urandom, tty, console, ptmx: mem(4), random(4), tty(4), pts(4).
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule(true, "c", Some(major), Some(minor), "rwm"));
    }
    rules.push(rule(true, "c", Some(136), None, "rwm"));
    for wish in &inputs.spec.host.resources.devices {
        let access = if wish.permissions.is_empty() { "rwm" } else { &wish.permissions };
        for device in inputs.devices.get(&wish.host).into_iter().flatten() {
            rules.push(rule(
                true,
                &device.kind.to_string(),
                Some(device.major.into()),
                Some(device.minor.into()),
                access,
            ));
        }
    }
    rules.extend(
        inputs
            .spec
            .host
            .resources
            .device_cgroup_rules
            .iter()
            .filter_map(|text| parse_device_rule(text)),
    );
    rules
}

/// `c 1:3 mr`, where numbers may be `*`.
#[must_use]
pub fn parse_device_rule(text: &str) -> Option<DeviceRule> {
    let mut words = text.split(' ');
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| match text {
        "*" => Some(None),
        digits => digits.parse().ok().map(Some),
    };
    let known = ["a", "b", "c"].contains(&kind)
        && !access.is_empty()
        && access.bytes().all(|letter| b"rwm".contains(&letter));
    (known && words.next().is_none()).then_some(())?;
    Some(DeviceRule {
        allow: true,
        kind: kind.to_owned(),
        major: number(major)?,
        minor: number(minor)?,
        access: access.to_owned(),
    })
}

/// Limits as the kernel gets them; devices are added by the caller. `nodes` gives the numbers of
/// block devices named by path.
#[must_use]
pub fn resources(limits: &Resources, nodes: &BTreeMap<String, Vec<DeviceNode>>) -> OciResources {
    let set = |value: i64| (value != 0).then_some(value);
    let (quota, period) = if limits.nano_cpus > 0 {
        (Some(limits.nano_cpus * CPU_PERIOD / 1_000_000_000), Some(CPU_PERIOD))
    } else {
        (set(limits.cpu_quota), set(limits.cpu_period))
    };
    let unsigned = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    let swap = match limits.memory_swap {
        0 => set(limits.memory).map(|memory| memory.saturating_mul(2)),
        swap => Some(swap),
    };
    let memory = Memory {
        limit: set(limits.memory),
        reservation: set(limits.memory_reservation),
        swap,
        kernel_tcp: set(limits.kernel_memory_tcp),
        swappiness: unsigned(limits.memory_swappiness),
        disable_oom_killer: limits.oom_kill_disable.filter(|&disable| disable),
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: unsigned(set(limits.cpu_shares)),
        quota,
        period: unsigned(period),
        realtime_runtime: set(limits.cpu_realtime_runtime),
        realtime_period: unsigned(set(limits.cpu_realtime_period)),
        cpus: limits.cpuset_cpus.clone(),
        mems: limits.cpuset_mems.clone(),
        ..Cpu::default()
    };
    let block_io = block_io(limits, nodes);
    OciResources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        // 0 and less lift the limit, which an update of a running container has to write.
        pids: limits.pids_limit.map(|limit| Pids { limit: limit.max(0) }),
        block_io: (block_io != BlockIo::default()).then_some(block_io),
        ..OciResources::default()
    }
}

fn block_io(limits: &Resources, nodes: &BTreeMap<String, Vec<DeviceNode>>) -> BlockIo {
    let number = |path: &str| {
        nodes
            .get(path)
            .and_then(|found| found.first())
            .map(|node| (i64::from(node.major), i64::from(node.minor)))
    };
    let throttles = |wishes: &[super::spec::ThrottleDevice]| {
        let found = wishes.iter().filter_map(|wish| {
            number(&wish.path).map(|(major, minor)| ThrottleDevice {
                major,
                minor,
                rate: wish.rate,
            })
        });
        found.collect()
    };
    let weights = limits.blkio_weight_device.iter().filter_map(|wish| {
        number(&wish.path).map(|(major, minor)| WeightDevice {
            major,
            minor,
            weight: Some(wish.weight),
            leaf_weight: None,
        })
    });
    BlockIo {
        weight: (limits.blkio_weight != 0).then_some(limits.blkio_weight),
        leaf_weight: None,
        weight_device: weights.collect(),
        throttle_read_bps_device: throttles(&limits.blkio_device_read_bps),
        throttle_write_bps_device: throttles(&limits.blkio_device_write_bps),
        throttle_read_iops_device: throttles(&limits.blkio_device_read_iops),
        throttle_write_iops_device: throttles(&limits.blkio_device_write_iops),
    }
}

#[cfg(test)]
#[path = "derive_tests.rs"]
mod tests;
