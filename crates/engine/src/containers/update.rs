//! `docker update`: which limits a request changes.

use super::spec::Resources;

/// Puts the fields that are set over the present ones.
///
/// Source: moby `container/container_unix.go` `UpdateContainer`.
pub(crate) fn overlay(now: &mut Resources, wish: &Resources) {
    let number = |now: &mut i64, wish: i64| {
        if wish != 0 {
            *now = wish;
        }
    };
    if wish.nano_cpus != 0 {
        // The two ways to say it exclude each other.
        now.cpu_period = 0;
        now.cpu_quota = 0;
    }
    if wish.cpu_period != 0 || wish.cpu_quota != 0 {
        now.nano_cpus = 0;
    }
    number(&mut now.cpu_shares, wish.cpu_shares);
    number(&mut now.nano_cpus, wish.nano_cpus);
    number(&mut now.cpu_period, wish.cpu_period);
    number(&mut now.cpu_quota, wish.cpu_quota);
    number(&mut now.cpu_realtime_period, wish.cpu_realtime_period);
    number(&mut now.cpu_realtime_runtime, wish.cpu_realtime_runtime);
    if wish.memory != 0 {
        // A limit above the present swap needs that to move too.
        if wish.memory_swap == 0 && now.memory_swap > 0 && wish.memory > now.memory_swap {
            now.memory_swap = wish.memory * 2;
        }
        now.memory = wish.memory;
    }
    number(&mut now.memory_swap, wish.memory_swap);
    number(&mut now.memory_reservation, wish.memory_reservation);
    number(&mut now.kernel_memory, wish.kernel_memory);
    number(&mut now.kernel_memory_tcp, wish.kernel_memory_tcp);
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
}
