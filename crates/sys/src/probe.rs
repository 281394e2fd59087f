//! What this kernel offers and what this user may do: asked once, by trying, never by version.
//!
//! Code below asks for the ability that it needs (may I mount an overlay?), not for a mode such as
//! "rootless".

use std::io;
use std::sync::OnceLock;

use crate::cgroup::Layout;
use crate::mount::{Attributes, Filesystem};

/// Abilities of this host, for this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub machine: String,
    pub cgroup_v2: bool,
    pub controllers: Vec<String>,
    /// Overlays can be mounted.
    pub overlay: bool,
    /// Filters can be installed: Linux was built with CONFIG_SECCOMP_FILTER.
    pub seccomp: bool,
    pub apparmor: bool,
    /// User namespaces exist and are not switched off.
    pub user_namespaces: bool,
    pub cpus: usize,
    /// Bytes.
    pub memory_total: u64,
}

impl Host {
    /// This host's, asked once.
    pub fn get() -> &'static Host {
        static HOST: OnceLock<Host> = OnceLock::new();
        HOST.get_or_init(Self::ask)
    }

    fn ask() -> Self {
        let name = rustix::system::uname();
        let layout = Layout::host();
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            kernel: name.release().to_string_lossy().into_owned(),
            machine: name.machine().to_string_lossy().into_owned(),
            cgroup_v2: layout.is_v2(),
            controllers: layout.controllers(),
            overlay: may_mount("overlay"),
            seccomp: read("/proc/self/status").lines().any(|line| line.starts_with("Seccomp:")),
            apparmor: read("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
            user_namespaces: read("/proc/sys/user/max_user_namespaces")
                .trim()
                .parse::<u64>()
                .is_ok_and(|max| max > 0),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_total: memory_total(&read("/proc/meminfo")),
        }
    }
}

fn may_mount(kind: &str) -> bool {
    let tried = || -> io::Result<()> {
        let below = Filesystem::open("tmpfs")?.mount(Attributes::NONE)?;
        let overlay = Filesystem::open(kind)?;
        for name in ["a", "b"] {
            rustix::fs::mkdirat(&below, name, rustix::fs::Mode::from_raw_mode(0o755))?;
            let flags = rustix::fs::OFlags::PATH
                | rustix::fs::OFlags::DIRECTORY
                | rustix::fs::OFlags::CLOEXEC;
            let layer = rustix::fs::openat(&below, name, flags, rustix::fs::Mode::empty())?;
            use std::os::fd::AsFd;
            overlay.set_fd("lowerdir+", layer.as_fd())?;
        }
        overlay.mount(Attributes::READ_ONLY).map(drop)
    };
    match tried() {
        Ok(()) => true,
        // Descriptors for layers are of Linux 6.13; a kernel without them still knows the type.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Filesystem::open(kind).is_ok(),
        Err(_) => false,
    }
}

fn memory_total(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|word| word.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_in_bytes() {
        assert_eq!(memory_total("MemTotal:       1024 kB\nMemFree: 1 kB\n"), 1 << 20);
    }

    #[test]
    fn root_may_mount_overlays() {
        if crate::testing::privileged("mounting needs CAP_SYS_ADMIN") {
            assert!(Host::get().overlay);
        }
    }
}
