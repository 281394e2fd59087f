//! What runs may not see, and the settings of their namespaces.

use std::collections::BTreeMap;

use runs::workload::{NewPrivileges, PathInside};
use spec::sysctl::Sysctl;

use super::{Host, Privileges};
use crate::config::EngineConfig;
use crate::containers::security::SecurityOptions;
use crate::error::{Error, Result};

/// Masked by default. Source: moby `oci/defaults.go` (28.2).
const MASKED_PATHS: &[&str] = &[
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
const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Paths of the kernel's that a run does not see, and those that it cannot change.
pub(crate) struct SystemPaths {
    pub masked: Vec<String>,
    pub readonly: Vec<String>,
}

/// `masked` and `readonly` replace the defaults; none of either counts for a run that may see all.
pub(crate) fn system_paths(
    privileges: Privileges,
    options: &SecurityOptions,
    host: &Host,
    (masked, readonly): (Option<&Vec<String>>, Option<&Vec<String>>),
) -> SystemPaths {
    if privileges == Privileges::All || options.system_paths_unconfined {
        return SystemPaths { masked: Vec::new(), readonly: Vec::new() };
    }
    let owned = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>();
    SystemPaths {
        masked: masked
            .cloned()
            .unwrap_or_else(|| [owned(MASKED_PATHS), host.thermal_paths.clone()].concat()),
        readonly: readonly.cloned().unwrap_or_else(|| owned(READONLY_PATHS)),
    }
}

pub(crate) fn inside(paths: Vec<String>) -> Vec<PathInside> {
    paths.into_iter().map(PathInside::new).collect()
}

/// Settings by their names.
///
/// # Errors
/// `Invalid` for what is no setting of a namespace.
pub(crate) fn sysctls(all: &BTreeMap<String, String>) -> Result<BTreeMap<Sysctl, String>> {
    let parse = |(name, value): (&String, &String)| {
        let refused = |_| Error::invalid(format!("sysctl '{name}' is not allowed"));
        Ok((Sysctl::parse(name).map_err(refused)?, value.clone()))
    };
    all.iter().map(parse).collect()
}

/// What every network namespace of a run's own is given: everybody may ping and take any port.
///
/// Source: moby `daemon/oci_linux.go`.
pub(crate) fn network_sysctls() -> BTreeMap<String, String> {
    let settings = [
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("net.ipv4.ping_group_range", "0 2147483647"),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Labels are Docker's business on hosts with SELinux only, and there they would not be applied.
///
/// # Errors
/// `Invalid` for a label where it would mean something.
pub(crate) fn check_labels(security: &SecurityOptions, host: &Host) -> Result<()> {
    match security.labels.iter().find(|label| *label != "disable") {
        Some(label) if host.selinux => {
            Err(Error::invalid(format!("SELinux labels are not supported: label={label}")))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether processes may gain rights, where the daemon has a default.
pub(crate) fn new_privileges(options: &SecurityOptions, config: &EngineConfig) -> NewPrivileges {
    match options.no_new_privileges {
        Some(true) => NewPrivileges::Forbidden,
        None if config.no_new_privileges => NewPrivileges::Forbidden,
        Some(false) | None => NewPrivileges::Allowed,
    }
}
