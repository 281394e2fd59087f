//! Lists of processors and memory nodes, such as `0-2,5`: their form, and whether the host has them.
//!
//! Source: moby 28.2 `pkg/sysinfo/sysinfo.go`, `daemon/daemon_unix.go` (`verifyPlatformContainerResources`).

use runs::workload::NumberList;

use super::spec::Resources;
use crate::error::{Error, Result};

/// Refuses lists that cannot be read, and what the host does not have.
///
/// # Errors
/// `Invalid`, in Docker's words.
pub fn check(limits: &Resources) -> Result<()> {
    let online = |what: &str| {
        let text = std::fs::read_to_string(format!("/sys/devices/system/{what}/online"));
        // A kernel without nodes has one.
        text.map_or_else(|_| "0".to_owned(), |text| text.trim().to_owned())
    };
    if !limits.cpuset_cpus.is_empty() {
        among("cpus", "CPUs", &limits.cpuset_cpus, &online("cpu"))?;
    }
    if !limits.cpuset_mems.is_empty() {
        among("mems", "memory nodes", &limits.cpuset_mems, &online("node"))?;
    }
    Ok(())
}

fn among(kind: &str, name: &str, wanted: &str, available: &str) -> Result<()> {
    let Ok(numbers) = wanted.parse::<NumberList>() else {
        let text = format!("Invalid value {wanted} for cpuset {kind}: invalid format: {wanted}");
        return Err(Error::invalid(text));
    };
    if available.parse().is_ok_and(|there| numbers.is_subset(&there)) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Requested {name} are not available - requested {wanted}, available: {available}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(wanted: &str, want: Expect) {
        let outcome = among("cpus", "CPUs", wanted, "0-3,6");
        want.assert_eq(&outcome.map_or_else(|error| error.message, |()| "ok".to_owned()));
    }

    #[test]
    fn a_list_names_what_the_host_has() {
        check("0", expect!["ok"]);
        check("0-2, 6", expect!["ok"]);
        check("4", expect!["Requested CPUs are not available - requested 4, available: 0-3,6"]);
        for bad in ["a", "1-", "2-1", "0-99999999", ","] {
            let words = among("cpus", "CPUs", bad, "0-3").unwrap_err().message;
            assert!(words.starts_with(&format!("Invalid value {bad} for cpuset cpus")), "{words}");
        }
    }
}
