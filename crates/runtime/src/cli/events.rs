//! `events`: what a container uses, and when it runs out of memory, as lines of JSON.
//!
//! One line at each interval and one for each time that the kernel killed for memory, until the
//! container's first process ends; with `--stats` a single line at once.
//!
//! Source: runc `events.go`, `types/events.go`, for the names.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spec::units::parse_timeout;
use sys::cgroup::{BlockIoEntry, Cgroup, Stats};
use sys::epoll::{Interest, Poller};

use super::args::{Flag, parse, switch, value};
use super::verbs::{Verdict, at, find};
use super::{Failure, Globals};
use crate::state::Status;

const FLAGS: &[Flag] = &[value(&["interval"]), switch(&["stats"])];
const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

const ENDED: u64 = 0;
const MEMORY: u64 = 1;

pub(super) fn events(globals: &Globals, args: &[String]) -> Verdict {
    let flags = parse(args, FLAGS)?;
    let interval = match flags.get("interval") {
        Some(text) => parse_timeout(text).ok_or_else(|| format!("invalid duration: {text:?}"))?,
        None => INTERVAL_DEFAULT,
    };
    if interval.is_zero() {
        return Err("duration interval must be greater than 0".to_owned());
    }
    let id = flags.word(0, "a container ID")?;
    let (directory, state) = find(globals, id)?;
    let stopped = || format!("container with id {id} is not running");
    if state.status(&directory) == Status::Stopped {
        return Err(stopped());
    }
    let cgroup = state.cgroup().ok_or("the container has no cgroup")?;
    if flags.has("stats") {
        print(id, "stats", Some(used(&cgroup)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (_, process) = state.process().ok_or_else(stopped)?;
    let poller = Poller::new().map_err(at("epoll_create"))?;
    poller.add(&process, ENDED, Interest::Read).map_err(at("watch the container"))?;
    let mut memory = cgroup.watch_oom().map_err(at("watch the container's memory"))?;
    poller.add(&memory, MEMORY, Interest::Read).map_err(at("watch the container's memory"))?;
    let mut ready = Vec::new();
    let mut next = Instant::now() + interval;
    loop {
        let patience = next.saturating_duration_since(Instant::now());
        poller.wait(&mut ready, Some(patience)).map_err(at("epoll_wait"))?;
        // The group may be gone before the process is seen to have ended.
        for _ in 0..memory.take().unwrap_or(0) {
            print(id, "oom", None)?;
        }
        if ready.iter().any(|one| one.token == ENDED) {
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= next {
            print(id, "stats", Some(used(&cgroup)?))?;
            next += interval;
        }
    }
}

fn print(id: &str, kind: &str, data: Option<Value>) -> Result<(), Failure> {
    let mut line = json!({"type": kind, "id": id});
    if let Some(data) = data {
        line["data"] = data;
    }
    writeln!(std::io::stdout(), "{line}").map_err(at("write /dev/stdout"))
}

fn used(cgroup: &Cgroup) -> Result<Value, Failure> {
    Ok(shape(&cgroup.stats().map_err(at("read the container's cgroup"))?))
}

fn shape(stats: &Stats) -> Value {
    let Stats { cpu, memory, pids, block_io } = stats;
    let number = |name: &str| memory.detail.get(name).copied();
    json!({
        "cpu": {
            "usage": {
                "total": cpu.total_ns,
                "percpu": cpu.per_cpu_ns,
                "kernel": cpu.system_ns,
                "user": cpu.user_ns,
            },
            "throttling": {
                "periods": cpu.throttling.periods,
                "throttledPeriods": cpu.throttling.throttled_periods,
                "throttledTime": cpu.throttling.throttled_ns,
            },
        },
        "memory": {
            "cache": number("cache").or(number("file")).unwrap_or(0),
            "usage": {
                "limit": memory.limit.unwrap_or(u64::MAX),
                "usage": memory.usage,
                "max": memory.usage_max,
                "failcnt": memory.failures,
            },
            "raw": memory.detail,
        },
        // No limit is 0, as in runc.
        "pids": {"current": pids.current, "limit": pids.limit.unwrap_or(0)},
        "blkio": {
            "ioServiceBytesRecursive": entries(&block_io.bytes),
            "ioServicedRecursive": entries(&block_io.operations),
        },
        "hugetlb": {},
        "network_interfaces": null,
    })
}

fn entries(entries: &[BlockIoEntry]) -> Vec<Value> {
    let shape = |entry: &BlockIoEntry| json!({"major": entry.major, "minor": entry.minor, "op": entry.operation, "value": entry.value});
    entries.iter().map(shape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_has_runcs_names() {
        let mut stats = Stats::default();
        stats.cpu.total_ns = 5;
        stats.pids.current = 2;
        stats.memory.detail.insert("file".to_owned(), 4096);
        let bytes = BlockIoEntry { major: 8, minor: 0, operation: "read".to_owned(), value: 9 };
        stats.block_io.bytes.push(bytes);
        let shown = shape(&stats);
        assert_eq!(shown["cpu"]["usage"]["total"], 5);
        assert_eq!(shown["memory"]["cache"], 4096);
        assert_eq!(shown["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(shown["pids"], json!({"current": 2, "limit": 0}));
        assert_eq!(
            shown["blkio"]["ioServiceBytesRecursive"],
            json!([{"major": 8, "minor": 0, "op": "read", "value": 9}])
        );
    }
}
