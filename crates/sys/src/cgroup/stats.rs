//! Counters of a control group, in one shape for both versions.
//!
//! A file that the host lacks leaves its counters at zero: statistics are for looking at, and a
//! missing controller is no reason to show none.

use std::collections::BTreeMap;
use std::io;

use super::Cgroup;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Stats {
    pub cpu: Cpu,
    pub memory: Memory,
    pub pids: Pids,
    pub block_io: BlockIo,
}

/// Nanoseconds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cpu {
    pub total_ns: u64,
    pub user_ns: u64,
    pub system_ns: u64,
    /// Empty on version 2, which does not count each CPU.
    pub per_cpu_ns: Vec<u64>,
    pub throttling: Throttling,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Throttling {
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
}

/// Bytes. `detail` is the kernel's own memory.stat.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Memory {
    pub usage: u64,
    pub usage_max: u64,
    /// `None` is unlimited.
    pub limit: Option<u64>,
    pub failures: u64,
    pub oom_kills: u64,
    pub detail: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pids {
    pub current: u64,
    /// `None` is unlimited.
    pub limit: Option<u64>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct BlockIo {
    pub bytes: Vec<BlockIoEntry>,
    pub operations: Vec<BlockIoEntry>,
}

/// `operation` is `read`, `write`, … in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIoEntry {
    pub major: u64,
    pub minor: u64,
    pub operation: String,
    pub value: u64,
}

/// Version 1 says "unlimited" by the largest multiple of a page that fits; anything near is that.
const V1_UNLIMITED: u64 = i64::MAX as u64 - (1 << 20);

pub(super) fn read(group: &Cgroup) -> io::Result<Stats> {
    if group.directories().is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(if group.layout().is_v2() { read_v2(group) } else { read_v1(group) })
}

fn read_v1(group: &Cgroup) -> Stats {
    let text = |controller: &str, file: &str| group.read(controller, file).unwrap_or_default();
    let number = |controller: &str, file: &str| text(controller, file).trim().parse().unwrap_or(0);
    let throttling = table(&text("cpu", "cpu.stat"));
    let split = table(&text("cpuacct", "cpuacct.stat"));
    // proc(5): cpuacct.stat counts in USER_HZ, which is 100 on every architecture we run on.
    let ticks = |name: &str| get(&split, name) * 10_000_000;
    let per_cpu = text("cpuacct", "cpuacct.usage_percpu");
    let limit: u64 = number("memory", "memory.limit_in_bytes");
    Stats {
        cpu: Cpu {
            total_ns: number("cpuacct", "cpuacct.usage"),
            user_ns: ticks("user"),
            system_ns: ticks("system"),
            per_cpu_ns: per_cpu.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
            throttling: Throttling {
                periods: get(&throttling, "nr_periods"),
                throttled_periods: get(&throttling, "nr_throttled"),
                throttled_ns: get(&throttling, "throttled_time"),
            },
        },
        memory: Memory {
            usage: number("memory", "memory.usage_in_bytes"),
            usage_max: number("memory", "memory.max_usage_in_bytes"),
            limit: (limit > 0 && limit < V1_UNLIMITED).then_some(limit),
            failures: number("memory", "memory.failcnt"),
            oom_kills: get(&table(&text("memory", "memory.oom_control")), "oom_kill"),
            detail: table(&text("memory", "memory.stat")),
        },
        pids: pids(&text("pids", "pids.current"), &text("pids", "pids.max")),
        block_io: BlockIo {
            bytes: v1_block_io(&text("blkio", "blkio.throttle.io_service_bytes_recursive")),
            operations: v1_block_io(&text("blkio", "blkio.throttle.io_serviced_recursive")),
        },
    }
}

fn read_v2(group: &Cgroup) -> Stats {
    let text = |file: &str| group.read("", file).unwrap_or_default();
    let number = |file: &str| text(file).trim().parse::<u64>().ok();
    let cpu = table(&text("cpu.stat"));
    let micro = |name: &str| get(&cpu, name) * 1000;
    let events = table(&text("memory.events"));
    let io = text("io.stat");
    Stats {
        cpu: Cpu {
            total_ns: micro("usage_usec"),
            user_ns: micro("user_usec"),
            system_ns: micro("system_usec"),
            per_cpu_ns: Vec::new(),
            throttling: Throttling {
                periods: get(&cpu, "nr_periods"),
                throttled_periods: get(&cpu, "nr_throttled"),
                throttled_ns: micro("throttled_usec"),
            },
        },
        memory: Memory {
            usage: number("memory.current").unwrap_or(0),
            usage_max: number("memory.peak").unwrap_or(0),
            limit: number("memory.max"),
            failures: get(&events, "max"),
            oom_kills: get(&events, "oom_kill"),
            detail: table(&text("memory.stat")),
        },
        pids: pids(&text("pids.current"), &text("pids.max")),
        block_io: BlockIo {
            bytes: v2_block_io(
                &io,
                &[("rbytes", "read"), ("wbytes", "write"), ("dbytes", "discard")],
            ),
            operations: v2_block_io(
                &io,
                &[("rios", "read"), ("wios", "write"), ("dios", "discard")],
            ),
        },
    }
}

fn pids(current: &str, limit: &str) -> Pids {
    Pids { current: current.trim().parse().unwrap_or(0), limit: limit.trim().parse().ok() }
}

pub(super) fn table(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

pub(super) fn get(table: &BTreeMap<String, u64>, name: &str) -> u64 {
    table.get(name).copied().unwrap_or(0)
}

/// Lines `8:0 Read 4096`, and totals, which are left out.
fn v1_block_io(text: &str) -> Vec<BlockIoEntry> {
    let entry = |line: &str| {
        let mut words = line.split(' ');
        let (major, minor) = words.next()?.split_once(':')?;
        let operation = words.next()?.to_lowercase();
        let value = words.next()?.trim().parse().ok()?;
        Some(BlockIoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            operation,
            value,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// Lines `8:0 rbytes=1 wbytes=2 …`.
fn v2_block_io(text: &str, wanted: &[(&str, &str)]) -> Vec<BlockIoEntry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(|word| word.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Some((_, operation)) = wanted.iter().find(|(name, _)| *name == key) else {
                continue;
            };
            let Ok(value) = value.parse() else { continue };
            entries.push(BlockIoEntry { major, minor, operation: (*operation).to_owned(), value });
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_give_the_same_entries() {
        let v1 = v1_block_io("8:0 Read 5\n8:0 Write 6\n8:0 Total 11\nTotal 11\n");
        let v2 = v2_block_io(
            "8:0 rbytes=5 wbytes=6 rios=1\n",
            &[("rbytes", "read"), ("wbytes", "write")],
        );
        assert_eq!(v1[..2], v2[..]);
    }
}
