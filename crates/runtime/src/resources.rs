//! Limits of an OCI document as writes to control files, for both versions.
//!
//! [`writes`] is pure: a list in the order in which the kernel accepts it. Version 2 has other units
//! for some (cpu.weight for shares, swap without the memory). What of the document becomes a part of a
//! file's name (page sizes, keys of `unified`) has passed [`check`], which knows it by a grammar.
//!
//! Devices: nothing is allowed that no rule names, and a rule that does not say what it allows is an
//! error. Making any node and using those that every container has is always allowed.
//!
//! Source: OCI runtime-spec `config-linux.md`; kernel cgroup-v1/ and cgroup-v2.rst.

use std::io;

use spec::runtime::{BlockIo, Cpu, HugepageLimit, Memory, NetworkClass, Resources, ThrottleDevice};
use sys::cgroup::{Access, Cgroup, DeviceKind, DeviceRule, Layout};

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

/// Refuses what names no limit.
///
/// # Errors
/// With the name, in runc's words where it has some.
pub fn check(resources: &Resources) -> Result<(), LaunchError> {
    let v2 = Layout::host().is_v2();
    let refuse = |message: String| Err(LaunchError::new(crate::Kind::Other, message));
    // Source: runc `libcontainer/cgroups`.
    if !v2 && !resources.unified.is_empty() {
        return refuse("invalid configuration: cannot use unified on cgroup v1".to_owned());
    }
    for key in resources.unified.keys() {
        if key.contains('/') {
            return refuse(format!("unified resource {key:?} must be a file name (no slashes)"));
        }
        if !is_control_file(key) {
            return refuse(format!(
                "unified resource {key:?} must be in the form CONTROLLER.PARAMETER"
            ));
        }
    }
    for HugepageLimit { page_size, .. } in &resources.hugepage_limits {
        if !is_page_size(page_size) {
            return refuse(format!("invalid hugepage size: {page_size:?}"));
        }
    }
    for device in resources.rdma.keys() {
        let letter = |letter: u8| letter.is_ascii_alphanumeric() || b"_-.".contains(&letter);
        if device.is_empty() || !device.bytes().all(letter) {
            return refuse(format!("invalid rdma device: {device:?}"));
        }
    }
    check_block_io(resources.block_io.as_ref()).or_else(refuse)?;
    check_network(resources.network.as_ref(), v2).or_else(refuse)?;
    device_rules(resources).map(drop)
}

/// A file of a group by its controller, such as `memory.high`.
fn is_control_file(name: &str) -> bool {
    let word = |word: &str| {
        let letter = |letter: u8| letter.is_ascii_alphanumeric() || b"_-".contains(&letter);
        !word.is_empty() && word.bytes().all(letter)
    };
    name.contains('.') && name.split('.').all(word)
}

/// As the kernel writes sizes of huge pages: `2MB`, `1GB`.
fn is_page_size(text: &str) -> bool {
    let digits = text.trim_end_matches("KB").trim_end_matches("MB").trim_end_matches("GB");
    let number = !digits.is_empty() && digits.bytes().all(|letter| letter.is_ascii_digit());
    number && text.len() == digits.len() + 2
}

fn check_block_io(io: Option<&BlockIo>) -> Result<(), String> {
    let Some(io) = io else { return Ok(()) };
    let weights = io.weight_device.iter().map(|device| (device.major, device.minor));
    let throttles = [
        &io.throttle_read_bps_device,
        &io.throttle_write_bps_device,
        &io.throttle_read_iops_device,
        &io.throttle_write_iops_device,
    ];
    let throttles = throttles.into_iter().flatten().map(|device| (device.major, device.minor));
    match weights.chain(throttles).find(|(major, minor)| *major < 0 || *minor < 0) {
        Some((major, minor)) => Err(format!("invalid block device: {major}:{minor}")),
        None => Ok(()),
    }
}

fn check_network(network: Option<&NetworkClass>, v2: bool) -> Result<(), String> {
    let Some(network) = network else { return Ok(()) };
    let asked = network.class_id.is_some() || !network.priorities.is_empty();
    if asked && v2 {
        return Err("linux.resources.network: cgroup v2 has no network classes".to_owned());
    }
    let named = |name: &str| {
        let letter = |letter: u8| letter.is_ascii_graphic() && letter != b'/';
        !name.is_empty() && name.bytes().all(letter)
    };
    match network.priorities.iter().find(|interface| !named(&interface.name)) {
        Some(interface) => Err(format!("invalid interface: {:?}", interface.name)),
        None => Ok(()),
    }
}

/// Sets all limits, devices included.
///
/// # Errors
/// With the file that refused.
pub fn apply(cgroup: &Cgroup, resources: &Resources) -> Result<(), LaunchError> {
    cgroup.set_devices(&device_rules(resources)?).map_err(|error| {
        LaunchError::step("error setting cgroup config for procHooks process: devices", &error)
    })?;
    update(cgroup, resources)
}

/// Sets the limits of a running container; devices stay as they are.
///
/// # Errors
/// With the file that refused.
pub fn update(cgroup: &Cgroup, resources: &Resources) -> Result<(), LaunchError> {
    check(resources)?;
    check_before_update(cgroup, resources.memory.as_ref())?;
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

/// Source: runc, whose words these are: the kernel would end processes to get below the limit.
fn check_before_update(cgroup: &Cgroup, memory: Option<&Memory>) -> Result<(), LaunchError> {
    let Some(memory) = memory.filter(|memory| memory.check_before_update == Some(true)) else {
        return Ok(());
    };
    let limit = memory.limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
    let usage = cgroup.stats().map(|stats| stats.memory.usage);
    match (limit, usage) {
        (Some(limit), Ok(usage)) if usage > limit => Err(LaunchError::new(
            crate::Kind::Other,
            format!("rejecting memory limit {limit}, usage {usage}"),
        )),
        (Some(_), Err(error)) => Err(LaunchError::step("read the memory in use", &error)),
        (_, _) => Ok(()),
    }
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
    for (device, limit) in &resources.rdma {
        let of = |name: &str, limit: Option<u32>| limit.map(|limit| format!(" {name}={limit}"));
        let limits = [of("hca_handle", limit.hca_handles), of("hca_object", limit.hca_objects)];
        let limits: String = limits.into_iter().flatten().collect();
        list.add("rdma", "rdma.max", format!("{device}{limits}"));
    }
    if let Some(network) = &resources.network {
        list.add_some("net_cls", "net_cls.classid", network.class_id);
        for interface in &network.priorities {
            let line = format!("{} {}", interface.name, interface.priority);
            list.add("net_prio", "net_prio.ifpriomap", line);
        }
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
        // The CFQ scheduler, which had these, has gone from the kernel.
        if let Some(weight) = io.leaf_weight.filter(|weight| *weight > 0) {
            self.add_if_there("blkio", "blkio.leaf_weight", weight);
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

/// Nothing, then the document's rules, and after them the devices that every container may use.
fn device_rules(resources: &Resources) -> Result<Vec<DeviceRule>, LaunchError> {
    let rule = |allow, kind, major, minor, access| DeviceRule { allow, kind, major, minor, access };
    let mut rules = vec![rule(false, DeviceKind::All, None, None, Access::ALL)];
    for wanted in &resources.devices {
        rules.push(device_rule(wanted).map_err(|why| {
            let text = format!("invalid device rule {wanted:?}: {why}");
            LaunchError::new(crate::Kind::Other, text)
        })?);
    }
    let everything = rules.last().is_some_and(|rule| rule.allow && rule.is_for_everything());
    if everything {
        return Ok(rules);
    }
    // Making a node is harmless where using it is not allowed. Source: OCI runtime-spec,
    // "Default Devices".
    let make = Access { read: false, write: false, mknod: true };
    rules.push(rule(true, DeviceKind::Character, None, None, make));
    rules.push(rule(true, DeviceKind::Block, None, None, make));
    let mut use_of = |major, minor| {
        rules.push(rule(true, DeviceKind::Character, Some(major), minor, Access::ALL))
    };
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
        use_of(major, Some(minor));
    }
    use_of(136, None);
    Ok(rules)
}

/// What a rule leaves open is all for one that takes away, and nothing for one that gives.
fn device_rule(wanted: &spec::runtime::DeviceRule) -> Result<DeviceRule, &'static str> {
    let kind = match (wanted.kind.as_str(), wanted.allow) {
        ("c" | "u", _) => DeviceKind::Character,
        ("b", _) => DeviceKind::Block,
        ("a", _) | ("", false) => DeviceKind::All,
        ("", true) => return Err("it allows devices of no type"),
        (_, _) => return Err("its type is unknown"),
    };
    let access = match (wanted.access.as_str(), wanted.allow) {
        ("", true) => return Err("it allows no access"),
        ("", false) => Access::ALL,
        (letters, _) => Access::parse(letters).ok_or("its access is none of rwm")?,
    };
    // As with runc, -1 is every number too.
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| "its number is out of range"),
    };
    let (major, minor) = (number(wanted.major)?, number(wanted.minor)?);
    Ok(DeviceRule { allow: wanted.allow, kind, major, minor, access })
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

    #[track_caller]
    fn refused(document: &str) -> String {
        let resources: Resources = serde_json::from_str(document).unwrap();
        super::check(&resources).unwrap_err().message
    }

    #[test]
    fn names_of_files_are_checked() {
        for size in ["", "../../x", "2MB/..", "2mb", "MB", "2MBMB", "2M", "2MBKB", "-2MB"] {
            let text = refused(&format!(r#"{{"hugepageLimits":[{{"pageSize":"{size}"}}]}}"#));
            assert_eq!(text, format!("invalid hugepage size: {size:?}"));
        }
        assert!(is_page_size("2MB") && is_page_size("64KB") && is_page_size("1GB"));
        for file in ["memory.high", "hugetlb.2MB.max", "cgroup.max.depth", "io.bfq.weight"] {
            assert!(is_control_file(file), "{file}");
        }
        for file in ["../x.y", "memory", "memory.", "..", ".", "", "a..b", "memory.high\n", "a/b.c"]
        {
            assert!(!is_control_file(file), "{file}");
        }
        refused(r#"{"unified":{"../../../x/cgroup.procs":"1"}}"#);
        refused(r#"{"rdma":{"mlx 5\n":{}}}"#);
        refused(r#"{"network":{"priorities":[{"name":"lo 1\neth0","priority":1}]}}"#);
        refused(r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-8,"minor":0,"rate":1}]}}"#);
    }

    #[track_caller]
    fn devices(document: &str) -> Vec<String> {
        let resources: Resources = serde_json::from_str(document).unwrap();
        let line = |rule: &DeviceRule| {
            let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
            let (major, minor) = (number(rule.major), number(rule.minor));
            format!("{} {:?} {major}:{minor}", rule.allow, rule.kind)
        };
        device_rules(&resources).unwrap().iter().map(line).collect()
    }

    #[test]
    fn no_rules_and_rules_that_say_little_allow_nothing() {
        for document in ["{}", r#"{"devices":[]}"#, r#"{"devices":[{"allow":false}]}"#] {
            let lines = devices(document);
            assert_eq!(lines[0], "false All *:*", "{document}");
            assert!(!lines.contains(&"true All *:*".to_owned()), "{document}");
            assert!(lines.contains(&"true Character 1:3".to_owned()), "{document}");
        }
        for rule in [
            r#"{"allow":true}"#,
            r#"{"allow":true,"access":"rwm"}"#,
            r#"{"allow":true,"type":"","access":"rwm"}"#,
            r#"{"allow":true,"type":"c"}"#,
            r#"{"allow":true,"type":"x","access":"r"}"#,
            r#"{"allow":true,"type":"c","access":"q"}"#,
            r#"{"allow":true,"type":"c","major":-2,"access":"r"}"#,
            r#"{"allow":true,"type":"c","major":4294967296,"access":"r"}"#,
        ] {
            refused(&format!(r#"{{"devices":[{rule}]}}"#));
        }
        let everything = r#"{"devices":[{"allow":true,"type":"a","access":"rwm"}]}"#;
        assert_eq!(devices(everything), ["false All *:*", "true All *:*"]);
        let one = r#"{"devices":[{"allow":true,"type":"c","major":10,"minor":-1,"access":"r"}]}"#;
        assert_eq!(devices(one)[1], "true Character 10:*");
    }

    #[test]
    fn marks_of_packets_and_rdma_are_written() {
        check(
            r#"{"network":{"classID":7,"priorities":[{"name":"eth0","priority":2}]},"rdma":{"mlx5_1":{"hcaHandles":3}}}"#,
            false,
            &expect![[r#"
                rdma.max = mlx5_1 hca_handle=3
                net_cls.classid = 7
                net_prio.ifpriomap = eth0 2"#]],
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
