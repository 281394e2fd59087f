//! Limits in the words of an OCI document.

use spec::runtime::{BlockIo, Cpu, Memory, Pids, Resources, ThrottleDevice, WeightDevice};

use crate::workload::{
    Amount, BlockIoLimits, CpuLimits, Limits, MemoryLimits, OomKiller, Throttle, Weight,
};

/// Limits as a runtime takes them, at a start and for a run that is there.
#[must_use]
pub fn resources(limits: &Limits) -> Resources {
    let (memory, cpu) = (memory(&limits.memory), cpu(&limits.cpu));
    let block_io = block_io(&limits.block_io);
    Resources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids: limits.pids.map(|amount| Pids { limit: number(amount, 0) }),
        block_io: (block_io != BlockIo::default()).then_some(block_io),
        ..Resources::default()
    }
}

/// An amount, where `unlimited` says that there is no limit. The largest numbers are none either.
fn number(amount: Amount, unlimited: i64) -> i64 {
    match amount {
        Amount::Unlimited => unlimited,
        Amount::Max(number) => signed(number.get()),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn memory(limits: &MemoryLimits) -> Memory {
    Memory {
        limit: limits.max_bytes.map(|bytes| signed(bytes.get())),
        reservation: limits.reservation_bytes.map(|bytes| signed(bytes.get())),
        swap: limits.swap_bytes.map(|amount| number(amount, -1)),
        kernel_tcp: limits.kernel_tcp_bytes.map(|amount| number(amount, -1)),
        swappiness: limits.swappiness.map(Into::into),
        disable_oom_killer: (limits.oom_killer == OomKiller::Waits).then_some(true),
        ..Memory::default()
    }
}

fn cpu(limits: &CpuLimits) -> Cpu {
    let list = |list: &Option<crate::workload::NumberList>| {
        list.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    Cpu {
        shares: limits.shares.map(Into::into),
        quota: limits.quota_us.map(|amount| number(amount, -1)),
        period: limits.period_us.map(Into::into),
        realtime_runtime: limits.realtime_runtime_us.map(|amount| number(amount, -1)),
        realtime_period: limits.realtime_period_us.map(Into::into),
        cpus: list(&limits.cpus),
        mems: list(&limits.mems),
        ..Cpu::default()
    }
}

fn block_io(limits: &BlockIoLimits) -> BlockIo {
    let rates = |throttles: &[Throttle]| {
        let rate = |throttle: &Throttle| ThrottleDevice {
            major: throttle.device.major.into(),
            minor: throttle.device.minor.into(),
            rate: throttle.rate.get(),
        };
        throttles.iter().map(rate).collect()
    };
    let weight = |weight: &Weight| WeightDevice {
        major: weight.device.major.into(),
        minor: weight.device.minor.into(),
        weight: Some(weight.weight.get()),
        leaf_weight: None,
    };
    BlockIo {
        weight: limits.weight.map(Into::into),
        leaf_weight: None,
        weight_device: limits.weights.iter().map(weight).collect(),
        throttle_read_bps_device: rates(&limits.read_bps),
        throttle_write_bps_device: rates(&limits.write_bps),
        throttle_read_iops_device: rates(&limits.read_iops),
        throttle_write_iops_device: rates(&limits.write_iops),
    }
}
