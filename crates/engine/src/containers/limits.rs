//! The limits of create and update: what the kernel lacks is dropped with a warning, what cannot be
//! is refused. Pure.
//!
//! A limit is dropped before its range is looked at, as in Docker.
//!
//! Source: moby 28.2 `daemon/daemon_unix.go` `verifyPlatformContainerResources`; the bounds of shares
//! are the kernel's, in the words of runc `libcontainer/cgroups/fs/cpu.go`.

use spec::runtime::Rlimit;

use super::spec::Resources;
use crate::error::{Error, Result};
use crate::system::LimitSupport;

/// Docker's least memory limit in bytes.
const MEMORY_MIN: i64 = 6 << 20;
/// What `cpu.shares` takes: kernel `MIN_SHARES`, `MAX_SHARES`.
const SHARES: std::ops::RangeInclusive<i64> = 2..=262_144;
/// What `blkio.weight` and `io.weight` take.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// Which request the limits are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Create,
    /// Only what is set changes, so a limit may lack what it needs beside it.
    Update,
}

/// Checks limits and drops what this kernel does not have; returns Docker's warnings.
///
/// # Errors
/// `Invalid` with the first thing that cannot be.
pub fn verify(
    limits: &mut Resources,
    kernel: &LimitSupport,
    purpose: Purpose,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    memory(limits, kernel, purpose, &mut warnings)?;
    bounds(limits, kernel, &mut warnings);
    cpu(limits, kernel, &mut warnings)?;
    let pinned = !limits.cpuset_cpus.is_empty() || !limits.cpuset_mems.is_empty();
    if pinned && !kernel.cpu_set {
        warnings.push(
            "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded."
                .to_owned(),
        );
        limits.cpuset_cpus.clear();
        limits.cpuset_mems.clear();
    }
    super::cpuset::check(limits)?;
    block_io(limits, kernel, &mut warnings)?;
    lists(limits)?;
    Ok(warnings)
}

fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::invalid(text.into()))
}

fn memory(
    limits: &mut Resources,
    kernel: &LimitSupport,
    purpose: Purpose,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let mut warn = |text: &str| warnings.push(text.to_owned());
    if limits.memory != 0 && limits.memory < MEMORY_MIN {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if limits.memory > 0 && !kernel.memory {
        warn(
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        limits.memory = 0;
        limits.memory_swap = -1;
    }
    if limits.memory > 0 && limits.memory_swap != -1 && !kernel.swap {
        warn(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
        );
        limits.memory_swap = -1;
    }
    if limits.memory > 0 && limits.memory_swap > 0 && limits.memory_swap < limits.memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if limits.memory == 0 && limits.memory_swap > 0 && purpose == Purpose::Create {
        return refuse(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if limits.memory_swappiness.is_some() && !kernel.memory_swappiness {
        warn(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
        );
        limits.memory_swappiness = None;
    }
    if let Some(swappiness) = limits.memory_swappiness.filter(|value| !(0..=100).contains(value)) {
        return refuse(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        ));
    }
    if limits.memory_reservation > 0 && !kernel.memory_reservation {
        warn(
            "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        limits.memory_reservation = 0;
    }
    if limits.memory_reservation > 0 && limits.memory_reservation < MEMORY_MIN {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if limits.memory > 0 && limits.memory_reservation > limits.memory {
        return refuse(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    // Clients before API 1.42; kernels since 5.4 take it and do nothing.
    if limits.kernel_memory > 0 && limits.kernel_memory < MEMORY_MIN {
        return refuse("Minimum kernel memory limit allowed is 6MB");
    }
    Ok(())
}

/// What becomes of a container that takes too much, and how many processes it may have.
fn bounds(limits: &mut Resources, kernel: &LimitSupport, warnings: &mut Vec<String>) {
    let mut warn = |text: &str| warnings.push(text.to_owned());
    match limits.oom_kill_disable {
        Some(disable) if !kernel.oom_kill_disable => {
            if disable {
                warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
            }
            limits.oom_kill_disable = None;
        }
        Some(true) if limits.memory == 0 => warn(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.",
        ),
        Some(_) | None => {}
    }
    if limits.pids_limit.is_some() && !kernel.pids {
        if limits.pids_limit.is_some_and(|limit| limit > 0) {
            warn(
                "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
            );
        }
        limits.pids_limit = None;
    }
}

fn cpu(limits: &mut Resources, kernel: &LimitSupport, warnings: &mut Vec<String>) -> Result<()> {
    let mut warn = |text: &str| warnings.push(text.to_owned());
    if limits.nano_cpus > 0 && limits.cpu_period > 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if limits.nano_cpus > 0 && limits.cpu_quota > 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if limits.nano_cpus > 0 && !kernel.cpu_cfs_quota {
        return refuse(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        );
    }
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpus = i64::try_from(cpus).unwrap_or(1);
    if limits.nano_cpus < 0 || limits.nano_cpus > cpus * 1_000_000_000 {
        return refuse(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        ));
    }
    if limits.cpu_shares > 0 && !kernel.cpu_shares {
        warn(
            "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
        );
        limits.cpu_shares = 0;
    }
    if (limits.cpu_period != 0 || limits.cpu_quota != 0) && !kernel.cpu_cfs_quota {
        warn("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.");
        limits.cpu_period = 0;
        limits.cpu_quota = 0;
    }
    if limits.cpu_period != 0 && !(1_000..=1_000_000).contains(&limits.cpu_period) {
        return refuse(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if (1..1_000).contains(&limits.cpu_quota) {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    Ok(())
}

fn block_io(
    limits: &mut Resources,
    kernel: &LimitSupport,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let mut warn = |text: String| warnings.push(text);
    if limits.blkio_weight > 0 && !kernel.blkio_weight {
        warn("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".to_owned());
        limits.blkio_weight = 0;
    }
    if limits.blkio_weight > 0 && !WEIGHTS.contains(&limits.blkio_weight) {
        return refuse("Range of blkio weight is from 10 to 1000");
    }
    if !limits.blkio_weight_device.is_empty() && !kernel.blkio_weight_device {
        warn("Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.".to_owned());
        limits.blkio_weight_device.clear();
    }
    for (wishes, there, unit, what) in [
        (&mut limits.blkio_device_read_bps, kernel.blkio_read_bps, "BPS Block I/O", "BPS read"),
        (&mut limits.blkio_device_write_bps, kernel.blkio_write_bps, "BPS Block I/O", "BPS write"),
        (&mut limits.blkio_device_read_iops, kernel.blkio_read_iops, "IOPS Block", "IOPS read"),
        (&mut limits.blkio_device_write_iops, kernel.blkio_write_iops, "IOPS Block", "IOPS write"),
    ] {
        if !wishes.is_empty() && !there {
            let direction = what.split(' ').next_back().unwrap_or_default();
            warn(format!(
                "Your kernel does not support {unit} {direction} limit or the cgroup is not mounted. Block I/O {what} limit discarded."
            ));
            wishes.clear();
        }
    }
    Ok(())
}

fn lists(limits: &Resources) -> Result<()> {
    for rule in &limits.device_cgroup_rules {
        if rule.parse::<runs::workload::DeviceRule>().is_err() {
            return refuse(format!("invalid device cgroup rule format: '{rule}'"));
        }
    }
    for ulimit in &limits.ulimits {
        if Rlimit::kind_of(&ulimit.name).is_none() {
            return refuse(format!("invalid ulimit type: {}", ulimit.name));
        }
        if ulimit.hard == -1 {
            continue;
        }
        if ulimit.soft == -1 {
            return refuse(format!(
                "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {}",
                ulimit.hard
            ));
        }
        if ulimit.soft > ulimit.hard {
            return refuse(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                ulimit.soft, ulimit.hard
            ));
        }
    }
    Ok(())
}

/// What only a start or a running container's update refuses: the kernel would take other shares
/// than those asked for. Version 2 has weights, into which any number is turned.
///
/// # Errors
/// `Invalid`.
pub fn check_shares(limits: &Resources, cgroup_v2: bool) -> Result<()> {
    if limits.cpu_shares == 0 || cgroup_v2 || SHARES.contains(&limits.cpu_shares) {
        return Ok(());
    }
    if limits.cpu_shares < *SHARES.start() {
        return refuse(format!("the minimum allowed cpu-shares is {}", SHARES.start()));
    }
    refuse(format!("the maximum allowed cpu-shares is {}", SHARES.end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const ALL: LimitSupport = LimitSupport {
        memory: true,
        swap: true,
        memory_reservation: true,
        memory_swappiness: true,
        oom_kill_disable: true,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_realtime: true,
        cpu_set: true,
        pids: true,
        blkio_weight: true,
        blkio_weight_device: true,
        blkio_read_bps: true,
        blkio_write_bps: true,
        blkio_read_iops: true,
        blkio_write_iops: true,
    };

    fn told(limits: &mut Resources, kernel: &LimitSupport, purpose: Purpose) -> String {
        match verify(limits, kernel, purpose) {
            Ok(warnings) => warnings.join("\n"),
            Err(error) => format!("refused: {}", error.message),
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Resources), want: Expect) {
        let mut limits = Resources::default();
        change(&mut limits);
        want.assert_eq(&told(&mut limits, &ALL, Purpose::Create));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        check(|_| {}, expect![""]);
        check(|l| l.memory = 4 << 20, expect!["refused: Minimum memory limit allowed is 6MB"]);
        check(|l| l.memory = -1, expect!["refused: Minimum memory limit allowed is 6MB"]);
        check(
            |l| (l.memory, l.memory_swap) = (64 << 20, 32 << 20),
            expect![
                "refused: Minimum memoryswap limit should be larger than memory limit, see usage"
            ],
        );
        check(
            |l| l.memory_swap = 64 << 20,
            expect![
                "refused: You should always set the Memory limit when using Memoryswap limit, see usage"
            ],
        );
        check(
            |l| l.memory_swappiness = Some(101),
            expect!["refused: Invalid value: 101, valid memory swappiness range is 0-100"],
        );
        check(
            |l| l.memory_reservation = 1,
            expect!["refused: Minimum memory reservation allowed is 6MB"],
        );
        check(
            |l| (l.memory, l.memory_reservation) = (8 << 20, 9 << 20),
            expect![
                "refused: Minimum memory limit can not be less than memory reservation limit, see usage"
            ],
        );
        check(
            |l| (l.nano_cpus, l.cpu_quota) = (1, 5000),
            expect!["refused: Conflicting options: Nano CPUs and CPU Quota cannot both be set"],
        );
        check(
            |l| (l.nano_cpus, l.cpu_period) = (1, 5000),
            expect!["refused: Conflicting options: Nano CPUs and CPU Period cannot both be set"],
        );
        check(
            |l| l.cpu_period = 999,
            expect![
                "refused: CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
            ],
        );
        check(
            |l| l.cpu_quota = 999,
            expect!["refused: CPU cfs quota can not be less than 1ms (i.e. 1000)"],
        );
        check(|l| l.blkio_weight = 5, expect!["refused: Range of blkio weight is from 10 to 1000"]);
        check(
            |l| l.kernel_memory = 1,
            expect!["refused: Minimum kernel memory limit allowed is 6MB"],
        );
        let ulimit =
            |soft, hard| super::super::spec::Ulimit { name: "nofile".to_owned(), soft, hard };
        check(|l| l.ulimits = vec![ulimit(5, -1)], expect![""]);
        check(
            |l| l.ulimits = vec![ulimit(5, 4)],
            expect!["refused: ulimit soft limit must be less than or equal to hard limit: 5 > 4"],
        );
        check(
            |l| l.ulimits = vec![ulimit(-1, 4)],
            expect![
                "refused: ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: 4"
            ],
        );
    }

    #[test]
    fn what_the_kernel_lacks_is_dropped_before_its_range_is_looked_at() {
        let throttle = || vec![super::super::spec::ThrottleDevice::default()];
        let mut limits = Resources {
            memory: 8 << 20,
            memory_swappiness: Some(700),
            memory_reservation: 1,
            oom_kill_disable: Some(true),
            pids_limit: Some(5),
            cpu_shares: 5,
            cpu_quota: 5,
            cpuset_cpus: "nonsense".to_owned(),
            blkio_weight: 5,
            blkio_weight_device: vec![super::super::spec::WeightDevice::default()],
            blkio_device_read_bps: throttle(),
            blkio_device_write_bps: throttle(),
            blkio_device_read_iops: throttle(),
            blkio_device_write_iops: throttle(),
            ..Resources::default()
        };
        let none = LimitSupport::default();
        expect![[r#"
            Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.
            Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.
            Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.
            Your kernel does not support OomKillDisable. OomKillDisable discarded.
            Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.
            Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.
            Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.
            Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.
            Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.
            Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.
            Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.
            Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.
            Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.
            Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded."#]]
        .assert_eq(&told(&mut limits, &none, Purpose::Create));
        // Unlimited swap is what is left of a limit of memory that cannot be.
        assert_eq!(limits, Resources { memory_swap: -1, ..Resources::default() });
        let mut limits = Resources { memory: 8 << 20, ..Resources::default() };
        let no_swap = LimitSupport { swap: false, ..ALL };
        expect!["Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."]
            .assert_eq(&told(&mut limits, &no_swap, Purpose::Create));
    }

    #[test]
    fn an_update_may_change_the_swap_alone() {
        let mut limits = Resources { memory_swap: 64 << 20, ..Resources::default() };
        assert_eq!(told(&mut limits, &ALL, Purpose::Update), "");
    }

    #[test]
    fn shares_that_the_kernel_would_change_are_refused_at_start() {
        let told = |cpu_shares, v2| {
            let limits = Resources { cpu_shares, ..Resources::default() };
            check_shares(&limits, v2).map_or_else(|error| error.message, |()| "ok".to_owned())
        };
        assert_eq!(told(1, false), "the minimum allowed cpu-shares is 2");
        assert_eq!(told(99_999_999, false), "the maximum allowed cpu-shares is 262144");
        assert_eq!((told(2, false).as_str(), told(1, true).as_str()), ("ok", "ok"));
    }
}
