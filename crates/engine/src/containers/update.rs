//! `docker update`: which limits a request changes, and which it may not.
//!
//! Only what is set changes, and nothing changes besides: a limit that would need another one to
//! move too is refused.

use super::spec::Resources;
use crate::error::{Error, Result};

/// Puts the fields that are set over the present ones.
///
/// # Errors
/// `Conflict` when a field cannot stand beside what is set already.
///
/// Source: moby 28.2 `container/container_unix.go` `UpdateContainer`.
pub(crate) fn overlay(now: &mut Resources, wish: &Resources) -> Result<()> {
    conflicts(now, wish)?;
    for (now, wish) in [
        (&mut now.cpu_shares, wish.cpu_shares),
        (&mut now.nano_cpus, wish.nano_cpus),
        (&mut now.cpu_period, wish.cpu_period),
        (&mut now.cpu_quota, wish.cpu_quota),
        (&mut now.cpu_realtime_period, wish.cpu_realtime_period),
        (&mut now.cpu_realtime_runtime, wish.cpu_realtime_runtime),
        (&mut now.memory, wish.memory),
        (&mut now.memory_swap, wish.memory_swap),
        (&mut now.memory_reservation, wish.memory_reservation),
        (&mut now.kernel_memory, wish.kernel_memory),
        (&mut now.kernel_memory_tcp, wish.kernel_memory_tcp),
    ] {
        if wish != 0 {
            *now = wish;
        }
    }
    for (now, wish) in
        [(&mut now.cpuset_cpus, &wish.cpuset_cpus), (&mut now.cpuset_mems, &wish.cpuset_mems)]
    {
        if !wish.is_empty() {
            now.clone_from(wish);
        }
    }
    if wish.blkio_weight != 0 {
        now.blkio_weight = wish.blkio_weight;
    }
    if wish.pids_limit.is_some() {
        now.pids_limit = wish.pids_limit;
    }
    Ok(())
}

fn conflicts(now: &Resources, wish: &Resources) -> Result<()> {
    let refuse = |text: &str| Err(Error::conflict(text));
    if wish.nano_cpus > 0 && now.cpu_period > 0 {
        return refuse(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        );
    }
    if wish.nano_cpus > 0 && now.cpu_quota > 0 {
        return refuse(
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        );
    }
    if wish.cpu_period > 0 && now.nano_cpus > 0 {
        return refuse(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        );
    }
    if wish.cpu_quota > 0 && now.nano_cpus > 0 {
        return refuse(
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        );
    }
    if wish.memory != 0 && wish.memory_swap == 0 && wish.memory > now.memory_swap {
        return refuse(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(now: Resources, wish: Resources, want: Expect) {
        let mut after = now.clone();
        let text = match overlay(&mut after, &wish) {
            Ok(()) => format!(
                "memory {} swap {} cpus {} period {} quota {} pids {:?}",
                after.memory,
                after.memory_swap,
                after.nano_cpus,
                after.cpu_period,
                after.cpu_quota,
                after.pids_limit
            ),
            Err(error) => {
                assert_eq!(after, now, "a refused update changes nothing");
                error.message
            }
        };
        want.assert_eq(&text);
    }

    #[test]
    fn only_what_is_asked_for_changes() {
        let now =
            || Resources { memory: 300, memory_swap: 600, cpu_quota: 5000, ..Resources::default() };
        let wish = Resources { memory: 500, pids_limit: Some(0), ..Resources::default() };
        check(now(), wish, expect!["memory 500 swap 600 cpus 0 period 0 quota 5000 pids Some(0)"]);
        let wish = Resources { memory: 800, memory_swap: -1, ..Resources::default() };
        check(now(), wish, expect!["memory 800 swap -1 cpus 0 period 0 quota 5000 pids None"]);
    }

    #[test]
    fn what_another_limit_forbids_is_refused() {
        let memory = Resources { memory: 800, ..Resources::default() };
        let swap = "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time";
        for now in [
            Resources { memory: 300, memory_swap: 600, ..Resources::default() },
            Resources { memory: 300, memory_swap: -1, ..Resources::default() },
            Resources::default(),
        ] {
            assert_eq!(overlay(&mut now.clone(), &memory).unwrap_err().message, swap);
        }
        let cpus = || Resources { nano_cpus: 5, ..Resources::default() };
        let quota = || Resources { cpu_quota: 5, ..Resources::default() };
        let period = || Resources { cpu_period: 5, ..Resources::default() };
        check(
            cpus(),
            quota(),
            expect![
                "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"
            ],
        );
        check(
            cpus(),
            period(),
            expect![
                "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set"
            ],
        );
        check(
            quota(),
            cpus(),
            expect![
                "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set"
            ],
        );
        check(
            period(),
            cpus(),
            expect![
                "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"
            ],
        );
    }
}
