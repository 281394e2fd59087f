//! Limits of an OCI document as writes to control files, for both versions.
//!
//! [`writes`] is pure: a list in the order in which the kernel accepts it. Version 2 has other units
//! for some (cpu.weight for shares, swap without the memory).
//!
//! Source: OCI runtime-spec `config-linux.md`; kernel cgroup-v1/ and cgroup-v2.rst.

use std::io;

use spec::runtime::{BlockIo, Cpu, HugepageLimit, Memory, Resources, ThrottleDevice};
use sys::cgroup::{Access, Cgroup, DeviceKind, DeviceRule};

use crate::error::{LaunchError, words};

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub controller: &'static str,
    pub file: String,
    pub value: String,
    pub missing: Missing,
}

/// What it means that the kernel has no such file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The limit cannot be kept, which is an error.
    Fail,
    /// Another file does the same, or the value is what the kernel does anyway.
    Ignore,
}

/// Controllers beyond the usual ones that the limits need: joining these costs, so it is done on
/// demand.
#[must_use]
pub fn further_controllers(resources: Option<&Resources>) -> Vec<&'static str> {
    let Some(resources) = resources else { return Vec::new() };
    let mut names = Vec::new();
    if resources.cpu.as_ref().is_some_and(|cpu| !cpu.cpus.is_empty() || !cpu.mems.is_empty()) {
        names.push("cpuset");
    }
    if !resources.hugepage_limits.is_empty() {
        names.push("hugetlb");
    }
    names
}

/// Sets all limits, devices included.
///
/// # Errors
/// With the file that refused.
pub fn apply(cgroup: &Cgroup, resources: &Resources) -> Result<(), LaunchError> {
    if !resources.devices.is_empty() {
        cgroup.set_devices(&device_rules(resources)).map_err(|error| {
            LaunchError::step("error setting cgroup config for procHooks process: devices", &error)
        })?;
    }
    update(cgroup, resources)
}

/// Sets the limits of a running container; devices stay as they are.
///
/// # Errors
/// With the file that refused.
pub fn update(cgroup: &Cgroup, resources: &Resources) -> Result<(), LaunchError> {
    let v2 = cgroup.layout().is_v2();
    let mut pending: Vec<Write> = writes(resources, v2);
    // Memory and memory+swap bound each other: which goes first depends on the values in force, so
    // the refused one is tried again after the rest.
    let mut again = Vec::new();
    for write in pending.drain(..) {
        match put(cgroup, &write) {
            Err(error) if write.controller == "memory" && error.raw_os_error() == Some(22) => {
                again.push(write)
            }
            done => done.map_err(|error| refused(&write, &error))?,
        }
    }
    for write in again {
        put(cgroup, &write).map_err(|error| refused(&write, &error))?;
    }
    Ok(())
}

fn put(cgroup: &Cgroup, write: &Write) -> io::Result<()> {
    let written = match cgroup.write(write.controller, &write.file, &write.value) {
        // A hierarchy that the container did not need when it was made.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !cgroup.layout().is_v2() => cgroup
            .extend(write.controller)
            .and_then(|()| cgroup.write(write.controller, &write.file, &write.value)),
        done => done,
    };
    match written {
        Err(error) if write.missing == Missing::Ignore && lacks(&error) => Ok(()),
        done => done,
    }
}

fn lacks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(95)
}

fn refused(write: &Write, error: &io::Error) -> LaunchError {
    let text = format!("failed to write {:?} to {:?}: {}", write.value, write.file, words(error));
    LaunchError::new(
        crate::Kind::Other,
        format!("error setting cgroup config for procHooks process: {text}"),
    )
}

/// All writes for `resources` but those for devices, in order.
#[must_use]
pub fn writes(resources: &Resources, v2: bool) -> Vec<Write> {
    let mut list = List(Vec::new());
    if let Some(cpu) = &resources.cpu {
        if v2 { list.cpu_v2(cpu) } else { list.cpu_v1(cpu) }
    }
    if let Some(memory) = &resources.memory {
        if v2 { list.memory_v2(memory) } else { list.memory_v1(memory) }
    }
    if let Some(pids) = &resources.pids {
        let value = if pids.limit > 0 { pids.limit.to_string() } else { "max".to_owned() };
        list.add("pids", "pids.max", value);
    }
    if let Some(block_io) = &resources.block_io {
        if v2 { list.block_io_v2(block_io) } else { list.block_io_v1(block_io) }
    }
    for HugepageLimit { page_size, limit } in &resources.hugepage_limits {
        let suffix = if v2 { "max" } else { "limit_in_bytes" };
        list.add("hugetlb", &format!("hugetlb.{page_size}.{suffix}"), limit);
    }
    if v2 {
        for (file, value) in &resources.unified {
            list.add("unified", file, value);
        }
    }
    list.0
}

struct List(Vec<Write>);

impl List {
    fn add(&mut self, controller: &'static str, file: &str, value: impl ToString) {
        self.push(controller, file, value, Missing::Fail);
    }

    fn add_if_there(&mut self, controller: &'static str, file: &str, value: impl ToString) {
        self.push(controller, file, value, Missing::Ignore);
    }

    fn push(
        &mut self,
        controller: &'static str,
        file: &str,
        value: impl ToString,
        missing: Missing,
    ) {
        self.0.push(Write { controller, file: file.to_owned(), value: value.to_string(), missing });
    }

    fn add_some(&mut self, controller: &'static str, file: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(controller, file, value);
        }
    }

    fn cpu_v1(&mut self, cpu: &Cpu) {
        self.add_some("cpu", "cpu.shares", cpu.shares.filter(|shares| *shares > 0));
        // The period first: the quota is checked against it.
        self.add_some("cpu", "cpu.cfs_period_us", cpu.period.filter(|period| *period > 0));
        self.add_some("cpu", "cpu.cfs_quota_us", cpu.quota.filter(|quota| *quota != 0));
        self.add_some("cpu", "cpu.cfs_burst_us", cpu.burst);
        self.add_some("cpu", "cpu.rt_period_us", cpu.realtime_period.filter(|period| *period > 0));
        self.add_some(
            "cpu",
            "cpu.rt_runtime_us",
            cpu.realtime_runtime.filter(|runtime| *runtime != 0),
        );
        self.add_some("cpu", "cpu.idle", cpu.idle);
        self.cpuset(cpu);
    }

    fn cpuset(&mut self, cpu: &Cpu) {
        self.add_some("cpuset", "cpuset.cpus", Some(&cpu.cpus).filter(|cpus| !cpus.is_empty()));
        self.add_some("cpuset", "cpuset.mems", Some(&cpu.mems).filter(|mems| !mems.is_empty()));
    }

    fn cpu_v2(&mut self, cpu: &Cpu) {
        self.add_some(
            "cpu",
            "cpu.weight",
            cpu.shares.filter(|shares| *shares > 0).map(weight_of_shares),
        );
        let quota = cpu.quota.filter(|quota| *quota != 0);
        if quota.is_some() || cpu.period.is_some() {
            let quota = quota
                .filter(|quota| *quota > 0)
                .map_or("max".to_owned(), |quota| quota.to_string());
            let period = cpu.period.filter(|period| *period > 0).unwrap_or(100_000);
            self.add("cpu", "cpu.max", format!("{quota} {period}"));
        }
        self.add_some("cpu", "cpu.max.burst", cpu.burst);
        self.add_some("cpu", "cpu.idle", cpu.idle);
        self.cpuset(cpu);
    }

    fn memory_v1(&mut self, memory: &Memory) {
        self.add_some("memory", "memory.limit_in_bytes", memory.limit.filter(|limit| *limit != 0));
        if let Some(swap) = memory.swap.filter(|swap| *swap != 0) {
            // Without swap accounting in the kernel there is nothing that -1 would lift.
            self.add_if_there("memory", "memory.memsw.limit_in_bytes", swap);
        }
        let reservation = memory.reservation.filter(|reservation| *reservation != 0);
        self.add_some("memory", "memory.soft_limit_in_bytes", reservation);
        self.add_some(
            "memory",
            "memory.kmem.tcp.limit_in_bytes",
            memory.kernel_tcp.filter(|limit| *limit != 0),
        );
        if let Some(swappiness) = memory.swappiness.filter(|swappiness| *swappiness <= 100) {
            self.add("memory", "memory.swappiness", swappiness);
        }
        if memory.disable_oom_killer == Some(true) {
            self.add("memory", "memory.oom_control", 1);
        }
    }

    fn memory_v2(&mut self, memory: &Memory) {
        let value = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
        if let Some(swap) = memory.swap.filter(|swap| *swap != 0) {
            // Version 2 counts swap alone, the document memory and swap together.
            let limit = memory.limit.filter(|limit| *limit > 0).unwrap_or(0);
            let alone = if swap < 0 { swap } else { (swap - limit).max(0) };
            self.add_if_there("memory", "memory.swap.max", value(alone));
        }
        self.add_some("memory", "memory.max", memory.limit.filter(|limit| *limit != 0).map(value));
        let reservation = memory.reservation.filter(|reservation| *reservation != 0);
        self.add_some("memory", "memory.low", reservation.map(value));
    }

    fn block_io_v1(&mut self, io: &BlockIo) {
        if let Some(weight) = io.weight.filter(|weight| *weight > 0) {
            // Only the BFQ scheduler has weights; a kernel without it has nothing to weigh.
            self.add_if_there("blkio", "blkio.bfq.weight", weight);
        }
        for device in &io.weight_device {
            if let Some(weight) = device.weight {
                let line = format!("{}:{} {weight}", device.major, device.minor);
                self.add_if_there("blkio", "blkio.bfq.weight_device", line);
            }
        }
        let mut throttle = |file: &str, devices: &[ThrottleDevice]| {
            for ThrottleDevice { major, minor, rate } in devices {
                self.add("blkio", file, format!("{major}:{minor} {rate}"));
            }
        };
        throttle("blkio.throttle.read_bps_device", &io.throttle_read_bps_device);
        throttle("blkio.throttle.write_bps_device", &io.throttle_write_bps_device);
        throttle("blkio.throttle.read_iops_device", &io.throttle_read_iops_device);
        throttle("blkio.throttle.write_iops_device", &io.throttle_write_iops_device);
    }

    fn block_io_v2(&mut self, io: &BlockIo) {
        if let Some(weight) = io.weight.filter(|weight| *weight > 0) {
            self.add_if_there("io", "io.bfq.weight", weight);
        }
        for device in &io.weight_device {
            if let Some(weight) = device.weight {
                let line = format!("{}:{} {weight}", device.major, device.minor);
                self.add_if_there("io", "io.bfq.weight", line);
            }
        }
        let mut throttle = |name: &str, devices: &[ThrottleDevice]| {
            for ThrottleDevice { major, minor, rate } in devices {
                self.add("io", "io.max", format!("{major}:{minor} {name}={rate}"));
            }
        };
        throttle("rbps", &io.throttle_read_bps_device);
        throttle("wbps", &io.throttle_write_bps_device);
        throttle("riops", &io.throttle_read_iops_device);
        throttle("wiops", &io.throttle_write_iops_device);
    }
}

/// Shares 2…262144 on the scale of weights 1…10000. Source: OCI runtime-spec `config-linux.md`.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// The document's rules, and after them the devices that every container may use.
fn device_rules(resources: &Resources) -> Vec<DeviceRule> {
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let mut rules: Vec<DeviceRule> = resources
        .devices
        .iter()
        .map(|rule| DeviceRule {
            allow: rule.allow,
            kind: match rule.kind.as_str() {
                "c" | "u" => DeviceKind::Character,
                "b" => DeviceKind::Block,
                _ => DeviceKind::All,
            },
            major: number(rule.major),
            minor: number(rule.minor),
            access: Access::parse(&rule.access),
        })
        .collect();
    let everything = rules.last().is_some_and(|rule| rule.allow && rule.kind == DeviceKind::All);
    if everything {
        return rules;
    }
    let allow = |kind, major, minor, access: &str| DeviceRule {
        allow: true,
        kind,
        major,
        minor,
        access: Access::parse(access),
    };
    // Making a node is harmless where using it is not allowed. Source: OCI runtime-spec,
    // "Default Devices".
    rules.push(allow(DeviceKind::Character, None, None, "m"));
    rules.push(allow(DeviceKind::Block, None, None, "m"));
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
        rules.push(allow(DeviceKind::Character, Some(major), Some(minor), "rwm"));
    }
    rules.push(allow(DeviceKind::Character, Some(136), None, "rwm"));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(document: &str, v2: bool, want: &Expect) {
        let resources: Resources = serde_json::from_str(document).unwrap();
        let lines: Vec<_> = writes(&resources, v2)
            .into_iter()
            .map(|write| format!("{} = {}", write.file, write.value))
            .collect();
        want.assert_eq(&lines.join("\n"));
    }

    const LIMITS: &str = r#"{"memory":{"limit":67108864,"swap":134217728},"cpu":{"shares":512,"quota":50000,"period":100000},"pids":{"limit":0}}"#;

    #[test]
    fn version_1_counts_memory_and_swap_together() {
        check(
            LIMITS,
            false,
            &expect![[r#"
                cpu.shares = 512
                cpu.cfs_period_us = 100000
                cpu.cfs_quota_us = 50000
                memory.limit_in_bytes = 67108864
                memory.memsw.limit_in_bytes = 134217728
                pids.max = max"#]],
        );
    }

    #[test]
    fn version_2_has_weights_and_counts_swap_alone() {
        check(
            LIMITS,
            true,
            &expect![[r#"
                cpu.weight = 20
                cpu.max = 50000 100000
                memory.swap.max = 67108864
                memory.max = 67108864
                pids.max = max"#]],
        );
    }

    #[test]
    fn throttles_name_their_device() {
        check(
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}]}}"#,
            true,
            &expect!["io.max = 8:0 rbps=1024"],
        );
    }
}
