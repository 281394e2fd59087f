//! The engine about itself: what info needs beyond what other parts tell.

use std::fs;
use std::sync::Arc;

use crate::apparmor::AppArmor;
use crate::blocking::blocking;
use crate::config::Live;
use crate::containers::step::Phase;
use crate::error::{Error, Result};
use crate::{Engine, Inner};

/// Facts for `info`. What the front door can read from [`crate::EngineConfig`] is not repeated.
#[derive(Debug, Clone, Default)]
pub struct Info {
    /// A lasting id of this data root.
    pub id: String,
    pub name: String,
    pub containers: usize,
    pub running: usize,
    pub paused: usize,
    pub stopped: usize,
    pub images: usize,
    pub storage_driver: String,
    /// Rows such as `Backing Filesystem`.
    pub storage_status: Vec<(String, String)>,
    pub kernel_version: String,
    /// `PRETTY_NAME` of os-release, and its `VERSION_ID`.
    pub operating_system: String,
    pub os_version: String,
    /// As uname says.
    pub architecture: String,
    pub cpus: usize,
    /// Bytes.
    pub memory: u64,
    pub cgroup_version: u8,
    pub security_options: Vec<String>,
    pub runtimes: Vec<String>,
    pub limits: LimitSupport,
    pub ipv4_forwarding: bool,
    pub events_listeners: usize,
    pub open_fds: usize,
    pub warnings: Vec<String>,
}

/// Which limits this kernel can set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitSupport {
    pub memory: bool,
    pub swap: bool,
    pub memory_reservation: bool,
    pub memory_swappiness: bool,
    pub oom_kill_disable: bool,
    pub cpu_cfs_period: bool,
    pub cpu_cfs_quota: bool,
    pub cpu_shares: bool,
    pub cpu_realtime: bool,
    pub cpu_set: bool,
    pub pids: bool,
    pub blkio_weight: bool,
    pub blkio_weight_device: bool,
    pub blkio_read_bps: bool,
    pub blkio_write_bps: bool,
    pub blkio_read_iops: bool,
    pub blkio_write_iops: bool,
}

impl Engine {
    /// The lasting id of this data root. Blocking.
    #[must_use]
    pub fn id(&self) -> String {
        instance_id(&self.inner)
    }

    /// Collects the facts.
    ///
    /// # Errors
    /// None today; the store may have some later.
    pub async fn info(&self) -> Result<Info> {
        let inner = Arc::clone(&self.inner);
        Ok(blocking(move || collect(&inner)).await)
    }
}

/// Blocking.
fn collect(engine: &Inner) -> Info {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let (operating_system, os_version) = os_release();
    let limits = limit_support();
    let mut info = Info {
        id: instance_id(engine),
        name: text(uname.nodename()),
        images: engine.store.images().len(),
        storage_driver: engine.store.driver().name().to_owned(),
        storage_status: storage_status(engine),
        kernel_version: text(uname.release()),
        operating_system,
        os_version,
        architecture: text(uname.machine()),
        cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory: memory(),
        cgroup_version: if engine.host.cgroup_v2 { 2 } else { 1 },
        security_options: security_options(engine),
        runtimes: engine
            .live()
            .runtimes
            .keys()
            .cloned()
            .chain(["runc".to_owned(), "tug".to_owned()])
            .collect(),
        limits,
        ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        events_listeners: engine.events.listeners(),
        open_fds: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        ..Info::default()
    };
    for container in engine.containers.all() {
        info.containers += 1;
        match &container.now().phase {
            Phase::Running { .. } | Phase::Stopping { .. } | Phase::Backoff { .. } => {
                info.running += 1
            }
            Phase::Paused { .. } => info.paused += 1,
            Phase::Created { .. }
            | Phase::Starting { .. }
            | Phase::Exited { .. }
            | Phase::Removing { .. }
            | Phase::Dead { .. }
            | Phase::Gone => info.stopped += 1,
        }
    }
    info.warnings = warnings(&info);
    if engine.host.apparmor == AppArmor::Unloaded {
        info.warnings
            .push("WARNING: AppArmor is enabled, but its profile is not loaded".to_owned());
    }
    info
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Bytes of memory: proc(5), /proc/meminfo counts in KiB.
fn memory() -> u64 {
    let text = read("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn os_release() -> (String, String) {
    let text =
        fs::read_to_string("/etc/os-release").unwrap_or_else(|_| read("/usr/lib/os-release"));
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or("").trim_matches('"').to_owned()
    };
    let name = value("PRETTY_NAME");
    (if name.is_empty() { "Linux".to_owned() } else { name }, value("VERSION_ID"))
}

/// Refuses a default runtime that nobody knows.
///
/// Source: moby 20.10 `daemon/reload_unix.go`.
pub(crate) fn check_runtimes(live: &Live) -> Result<()> {
    let name = &live.default_runtime;
    let is_own = matches!(name.as_str(), "tug" | "runc" | "io.containerd.runc.v2");
    if is_own || live.runtimes.contains_key(name) {
        return Ok(());
    }
    Err(Error::invalid(format!("specified default runtime '{name}' does not exist")))
}

/// Made once and kept: clients tell engines apart by it.
fn instance_id(engine: &Inner) -> String {
    let path = engine.config.data_root.join("engine-id");
    if let Ok(id) = fs::read_to_string(&path) {
        return id.trim().to_owned();
    }
    let digits = spec::Id::random().to_string();
    let groups =
        [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)].map(|(from, to)| &digits[from..to]);
    let id = groups.join("-");
    // An id that could not be kept is another one next time; nothing depends on it.
    let _ = fs::write(&path, &id);
    id
}

fn storage_status(engine: &Inner) -> Vec<(String, String)> {
    let backing =
        rustix::fs::statfs(&engine.config.data_root).map_or("unknown".to_owned(), |stat| {
            // statfs(2)
            match stat.f_type {
                0xef53 => "extfs".to_owned(),
                0x5846_5342 => "xfs".to_owned(),
                0x9123_683e => "btrfs".to_owned(),
                0x0102_1994 => "tmpfs".to_owned(),
                0x794c_7630 => "overlayfs".to_owned(),
                0x2fc1_2fc1 => "zfs".to_owned(),
                other => format!("{other:#x}"),
            }
        });
    vec![
        ("Backing Filesystem".to_owned(), backing),
        ("Supports d_type".to_owned(), "true".to_owned()),
        ("Using metacopy".to_owned(), "false".to_owned()),
        ("Native Overlay Diff".to_owned(), "true".to_owned()),
        ("userxattr".to_owned(), "false".to_owned()),
    ]
}

fn security_options(engine: &Inner) -> Vec<String> {
    let mut options = Vec::new();
    // Its meaning is that every container has the profile docker-default.
    if engine.host.apparmor == AppArmor::Loaded {
        options.push("name=apparmor".to_owned());
    }
    let profile = match &engine.config.seccomp_profile {
        crate::config::SeccompDefault::Builtin => "builtin",
        crate::config::SeccompDefault::Unconfined => "unconfined",
        crate::config::SeccompDefault::Profile(_) => "custom",
    };
    options.push(format!("name=seccomp,profile={profile}"));
    if engine.host.cgroup_v2 {
        options.push("name=cgroupns".to_owned());
    }
    if engine.config.no_new_privileges {
        options.push("name=no-new-privileges".to_owned());
    }
    options
}

/// What the kernel can set does not change while it runs, so it is asked once.
///
/// Source: moby `pkg/sysinfo`: the controllers, and in v1 the files that kernels are built without.
pub(crate) fn limit_support() -> LimitSupport {
    static KNOWN: std::sync::OnceLock<LimitSupport> = std::sync::OnceLock::new();
    *KNOWN.get_or_init(|| {
        let layout = sys::cgroup::Layout::host();
        let controllers = layout.controllers();
        let has = |name: &str| controllers.iter().any(|controller| controller == name);
        let v2 = layout.is_v2();
        let old = |controller: &str, file: &str| match layout {
            sys::cgroup::Layout::V1 { controllers, .. } => {
                controllers.get(controller).is_some_and(|point| {
                    fs::exists(point.join(format!("{controller}.{file}"))).unwrap_or(false)
                })
            }
            sys::cgroup::Layout::V2 { .. } | sys::cgroup::Layout::None => false,
        };
        let io = v2 && has("io");
        LimitSupport {
            memory: has("memory"),
            swap: has("memory") && (v2 || old("memory", "memsw.limit_in_bytes")),
            memory_reservation: has("memory") && (v2 || old("memory", "soft_limit_in_bytes")),
            memory_swappiness: old("memory", "swappiness"),
            oom_kill_disable: old("memory", "oom_control"),
            cpu_cfs_period: has("cpu") && (v2 || old("cpu", "cfs_quota_us")),
            cpu_cfs_quota: has("cpu") && (v2 || old("cpu", "cfs_quota_us")),
            cpu_shares: has("cpu") && (v2 || old("cpu", "shares")),
            cpu_realtime: old("cpu", "rt_period_us"),
            cpu_set: has("cpuset"),
            pids: has("pids"),
            blkio_weight: io || old("blkio", "weight"),
            blkio_weight_device: io || old("blkio", "weight_device"),
            blkio_read_bps: io || old("blkio", "throttle.read_bps_device"),
            blkio_write_bps: io || old("blkio", "throttle.write_bps_device"),
            blkio_read_iops: io || old("blkio", "throttle.read_iops_device"),
            blkio_write_iops: io || old("blkio", "throttle.write_iops_device"),
        }
    })
}

/// Source: moby `daemon/info_unix.go`.
fn warnings(info: &Info) -> Vec<String> {
    [
        (info.limits.memory, "WARNING: No memory limit support"),
        (info.limits.swap, "WARNING: No swap limit support"),
        (info.limits.cpu_cfs_quota, "WARNING: No cpu cfs quota support"),
        (info.limits.cpu_cfs_period, "WARNING: No cpu cfs period support"),
        (info.limits.cpu_shares, "WARNING: No cpu shares support"),
        (info.limits.cpu_set, "WARNING: No cpuset support"),
        (info.limits.pids, "WARNING: No pids limit support"),
        (info.ipv4_forwarding, "WARNING: IPv4 forwarding is disabled"),
    ]
    .into_iter()
    .filter(|(supported, _)| !supported)
    .map(|(_, text)| text.to_owned())
    .collect()
}
