//! Control groups of runs: where they are, and their end.

use std::path::PathBuf;

use runs::RuntimeChoice;
use runs::workload::CgroupNamespace;
use spec::Id;
use sys::cgroup::Cgroup;
use tracing::warn;

use super::{Host, Privileges};
use crate::Inner;
use crate::config::EngineConfig;
use crate::containers::spec::{CgroupnsMode, Resources};
use crate::error::chain;

/// A run's control group, from the top of each hierarchy.
#[must_use]
pub fn path(id: &Id, limits: &Resources, config: &EngineConfig) -> PathBuf {
    let parent = [&limits.cgroup_parent, &config.cgroup_parent]
        .into_iter()
        .find(|parent| !parent.is_empty());
    // Docker's own parent, by which programs know that they are in a container. Ids differ, so several
    // engines share it, and nobody removes it.
    let parent = parent.map_or("/docker", String::as_str);
    PathBuf::from(format!("/{}/{id}", parent.trim_matches('/')))
}

/// The cgroup namespace that a run gets.
pub(crate) fn namespace(
    wanted: CgroupnsMode,
    privileges: Privileges,
    config: &EngineConfig,
    host: &Host,
) -> CgroupNamespace {
    match settled(wanted, privileges, config, host) {
        CgroupnsMode::Private => CgroupNamespace::New,
        CgroupnsMode::Host | CgroupnsMode::Unset => CgroupNamespace::Host,
    }
}

/// What is wanted, with the defaults filled in: `Private` or `Host`.
///
/// Source: moby 28.2 `daemon/daemon_unix.go`, `adaptContainerSettings`.
pub(crate) fn settled(
    wanted: CgroupnsMode,
    privileges: Privileges,
    config: &EngineConfig,
    host: &Host,
) -> CgroupnsMode {
    match (wanted, config.default_cgroupns) {
        (CgroupnsMode::Private | CgroupnsMode::Host, _) => wanted,
        // On version 1 a namespace of its own would take away what a privileged container may do.
        (CgroupnsMode::Unset, _) if privileges == Privileges::All && !host.cgroup_v2 => {
            CgroupnsMode::Host
        }
        (CgroupnsMode::Unset, CgroupnsMode::Unset) if host.cgroup_v2 => CgroupnsMode::Private,
        (CgroupnsMode::Unset, CgroupnsMode::Unset) => CgroupnsMode::Host,
        (CgroupnsMode::Unset, default @ (CgroupnsMode::Private | CgroupnsMode::Host)) => default,
    }
}

/// Kills what outlived a run's first process and removes the control group. Blocking.
pub(crate) fn end_run(engine: &Inner, id: &Id, group: &Cgroup, runtime: RuntimeChoice) {
    // Without a pid namespace there may be processes that outlived the first one.
    if !group.processes().unwrap_or_default().is_empty()
        && let Err(error) = group.kill()
    {
        warn!(run = %id, error = chain(&error), "processes left behind");
    }
    if runtime != RuntimeChoice::Builtin {
        let bundle = engine.config.run_dir(id);
        let delete = runs::Run::delete(&engine.launchers, *id, &bundle, runtime);
        if let Err(error) = tokio::runtime::Handle::current().block_on(delete) {
            warn!(run = %id, error = chain(&error), "the runtime's own state left behind");
        }
    }
    if let Err(error) = group.remove() {
        warn!(run = %id, error = chain(&error), "control group left behind");
    }
}
