//! Limits as a user gave them, in the kernel's terms.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU64};

use runs::workload::{
    Amount, BlockIoLimits, CpuLimits, Limits, MemoryLimits, NumberList, OomKiller, Throttle, Weight,
};
use spec::runtime::Rlimit;

use super::devices::HostDevices;
use crate::containers::spec::{self as wanted, Resources, Ulimit};
use crate::error::{Error, Kind, Result};

/// Microseconds; the period that `--cpus` is counted in.
const CPU_PERIOD: NonZeroU64 = NonZeroU64::new(100_000).unwrap();
const NANO: i64 = 1_000_000_000;

/// `devices` has the numbers of block devices named by path.
///
/// # Errors
/// `Invalid` for lists of processors that were never checked.
pub fn lower(limits: &Resources, devices: &HostDevices) -> Result<Limits> {
    Ok(Limits {
        memory: memory(limits),
        cpu: cpu(limits)?,
        // 0 and less lift the limit, which an update of a running container has to write.
        pids: limits.pids_limit.map(|limit| amount(limit).unwrap_or(Amount::Unlimited)),
        block_io: block_io(limits, devices),
    })
}

fn positive(number: i64) -> Option<NonZeroU64> {
    u64::try_from(number).ok().and_then(NonZeroU64::new)
}

/// Docker's numbers: zero says nothing, less than zero that there is no limit.
fn amount(number: i64) -> Option<Amount> {
    match number {
        0 => None,
        number => Some(positive(number).map_or(Amount::Unlimited, Amount::Max)),
    }
}

fn memory(limits: &Resources) -> MemoryLimits {
    let swap_bytes = match limits.memory_swap {
        0 => amount(limits.memory.saturating_mul(2)),
        swap => amount(swap),
    };
    MemoryLimits {
        max_bytes: positive(limits.memory),
        reservation_bytes: positive(limits.memory_reservation),
        swap_bytes,
        kernel_tcp_bytes: amount(limits.kernel_memory_tcp),
        swappiness: limits.memory_swappiness.and_then(|percent| u8::try_from(percent).ok()),
        oom_killer: match limits.oom_kill_disable {
            Some(true) => OomKiller::Waits,
            Some(false) | None => OomKiller::Kills,
        },
    }
}

fn cpu(limits: &Resources) -> Result<CpuLimits> {
    let (quota_us, period_us) = match limits.nano_cpus {
        ..=0 => (amount(limits.cpu_quota), positive(limits.cpu_period)),
        nano => {
            let quota = i128::from(nano) * i128::from(CPU_PERIOD.get()) / i128::from(NANO);
            // Less than a microsecond is refused by the kernel and not without a limit.
            let quota = u64::try_from(quota).ok().and_then(NonZeroU64::new);
            (Some(Amount::Max(quota.unwrap_or(NonZeroU64::MIN))), Some(CPU_PERIOD))
        }
    };
    Ok(CpuLimits {
        shares: positive(limits.cpu_shares),
        quota_us,
        period_us,
        realtime_runtime_us: amount(limits.cpu_realtime_runtime),
        realtime_period_us: positive(limits.cpu_realtime_period),
        cpus: list(&limits.cpuset_cpus)?,
        mems: list(&limits.cpuset_mems)?,
    })
}

fn list(text: &str) -> Result<Option<NumberList>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|source| Error::caused(Kind::Invalid, source))
}

fn block_io(limits: &Resources, devices: &HostDevices) -> BlockIoLimits {
    let throttles = |list: &[wanted::ThrottleDevice]| {
        let throttle = |wanted: &wanted::ThrottleDevice| {
            let device = devices.number(&wanted.path)?;
            NonZeroU64::new(wanted.rate).map(|rate| Throttle { device, rate })
        };
        list.iter().filter_map(throttle).collect()
    };
    let weight = |wanted: &wanted::WeightDevice| {
        let device = devices.number(&wanted.path)?;
        NonZeroU16::new(wanted.weight).map(|weight| Weight { device, weight })
    };
    BlockIoLimits {
        weight: NonZeroU16::new(limits.blkio_weight),
        weights: limits.blkio_weight_device.iter().filter_map(weight).collect(),
        read_bps: throttles(&limits.blkio_device_read_bps),
        write_bps: throttles(&limits.blkio_device_write_bps),
        read_iops: throttles(&limits.blkio_device_read_iops),
        write_iops: throttles(&limits.blkio_device_write_iops),
    }
}

/// Limits by their kind; the container's own replace the daemon's.
pub(crate) fn rlimits(defaults: &[Ulimit], own: &[Ulimit]) -> Vec<Rlimit> {
    let mut all: BTreeMap<String, Rlimit> = BTreeMap::new();
    for ulimit in defaults.iter().chain(own) {
        if let Some(kind) = Rlimit::kind_of(&ulimit.name) {
            // -1 is unlimited, which is the largest number to the kernel.
            let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
            let limit =
                Rlimit { kind: kind.clone(), hard: number(ulimit.hard), soft: number(ulimit.soft) };
            all.insert(kind, limit);
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_numbers_lose_their_zeros() {
        let limits = Resources {
            memory: 64 << 20,
            nano_cpus: 1_500_000_000,
            cpu_quota: -1,
            pids_limit: Some(0),
            memory_swappiness: Some(0),
            ..Resources::default()
        };
        let lowered = lower(&limits, &HostDevices::default()).unwrap();
        let max = |number| Amount::Max(NonZeroU64::new(number).unwrap());
        assert_eq!(lowered.memory.swap_bytes, Some(max(128 << 20)));
        assert_eq!(lowered.memory.swappiness, Some(0));
        assert_eq!(lowered.cpu.quota_us, Some(max(150_000)));
        assert_eq!(lowered.pids, Some(Amount::Unlimited));
        let nothing = lower(&Resources::default(), &HostDevices::default()).unwrap();
        assert_eq!(nothing, Limits::default());
        let tiny = Resources { nano_cpus: 1, ..Resources::default() };
        let tiny = lower(&tiny, &HostDevices::default()).unwrap();
        assert_eq!(tiny.cpu.quota_us, Some(max(1)), "not without a limit");
    }
}
