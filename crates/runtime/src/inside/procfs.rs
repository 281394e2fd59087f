//! A proc file system of our own, to write settings through.
//!
//! What stands at the container's /proc may be anything the image or a mount put there
//! (CVE-2019-16884, CVE-2025-52881). This one is made by us, attached nowhere, and paths in it are
//! resolved without following any link or crossing any mount.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sys::mount::{Attributes, Filesystem};

#[derive(Debug)]
pub(crate) struct Procfs {
    root: OwnedFd,
}

impl Procfs {
    /// A new instance for our own PID namespace.
    pub fn open() -> io::Result<Self> {
        Ok(Self { root: Filesystem::open("proc")?.mount(Attributes::NONE)? })
    }

    /// Writes one value; `self/…` is the calling process.
    pub fn write(&self, path: &Path, value: &[u8]) -> io::Result<()> {
        let path = match path.strip_prefix("self") {
            // `self` is a link, and no link is followed: its target is no secret.
            Ok(rest) => Path::new(&std::process::id().to_string()).join(rest),
            Err(_) => path.to_owned(),
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)?;
        rustix::io::write(&file, value)?;
        Ok(())
    }
}

/// The file of a setting. As in sysctl(8), whichever of `.` and `/` comes first separates, and the
/// other stands for itself.
pub(crate) fn sysctl_path(name: &str) -> PathBuf {
    let slashes_first = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
    let path = if slashes_first {
        name.to_owned()
    } else {
        name.chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect()
    };
    Path::new("sys").join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_decides() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), Path::new("sys/net/ipv4/ip_forward"));
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.1/forwarding"),
            Path::new("sys/net/ipv4/conf/eth0.1/forwarding")
        );
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/1.forwarding"),
            Path::new("sys/net/ipv4/conf/eth0.1/forwarding")
        );
    }
}
