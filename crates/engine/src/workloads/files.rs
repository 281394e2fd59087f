//! The files that the engine keeps for a run: `/etc/hosts` and its like.

use std::path::{Path, PathBuf};

/// Where they are on the host; mounted unless the user mounts there.
#[derive(Debug, Clone, Default)]
pub struct ManagedFiles {
    pub hosts: PathBuf,
    pub hostname: PathBuf,
    pub resolv_conf: PathBuf,
}

/// Where a run's managed files are in its directory.
pub(crate) fn files_in(dir: &Path) -> ManagedFiles {
    ManagedFiles {
        hosts: dir.join("hosts"),
        hostname: dir.join("hostname"),
        resolv_conf: dir.join("resolv.conf"),
    }
}
