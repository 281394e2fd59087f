//! How the kernel schedules a process and its input and output, on which CPUs, and where its memory
//! comes from.
//!
//! Source: OCI runtime-spec `config.md`, "scheduler", "ioPriority" and "execCPUAffinity";
//! `config-linux.md`, "memory policy"; sched_setattr(2), ioprio_set(2), set_mempolicy(2).

use spec::runtime::{ExecCpuAffinity, IoPriority, MemoryPolicy, Process, Scheduler};
use sys::placement::{self, Numbers};
use sys::process::Scheduling;

use crate::error::{Kind, LaunchError, at};

/// linux/sched.h, by the document's names.
const POLICIES: [(&str, u32); 6] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// linux/ioprio.h.
const CLASSES: [(&str, u8); 3] =
    [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// linux/mempolicy.h.
const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

const MEMORY_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_STATIC_NODES", 1 << 15),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
];

/// The names that a document may use.
pub(crate) fn memory_modes() -> impl Iterator<Item = &'static str> {
    MEMORY_MODES.iter().map(|(name, _)| *name)
}

pub(crate) fn memory_flags() -> impl Iterator<Item = &'static str> {
    MEMORY_FLAGS.iter().map(|(name, _)| *name)
}

fn invalid(message: String) -> LaunchError {
    LaunchError::new(Kind::Other, message)
}

/// Refuses what names nothing.
pub(crate) fn check(process: &Process) -> Result<(), LaunchError> {
    if let Some(wanted) = &process.scheduler {
        scheduling(wanted).map_err(invalid)?;
    }
    if let Some(wanted) = &process.io_priority {
        io_priority(wanted).map_err(invalid)?;
    }
    affinity(process.exec_cpu_affinity.as_ref()).map(drop)
}

/// Where a process to be executed runs, before and after it is in the container's cgroup.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    pub first: Option<Numbers>,
    pub last: Option<Numbers>,
}

pub(crate) fn affinity(wanted: Option<&ExecCpuAffinity>) -> Result<Affinity, LaunchError> {
    let Some(wanted) = wanted else { return Ok(Affinity::default()) };
    let numbers = |name: &str, list: &str| match list {
        "" => Ok(None),
        list => {
            let refused = || invalid(format!("invalid execCPUAffinity.{name}: {list:?}"));
            Numbers::parse(list).map(Some).ok_or_else(refused)
        }
    };
    Ok(Affinity {
        first: numbers("initial", &wanted.initial)?,
        last: numbers("final", &wanted.last)?,
    })
}

/// Refuses a policy that names nothing.
pub(crate) fn memory_policy(wanted: &MemoryPolicy) -> Result<(u32, Numbers), LaunchError> {
    let mode = MEMORY_MODES.iter().find(|(name, _)| *name == wanted.mode);
    let (_, mode) =
        mode.ok_or_else(|| invalid(format!("invalid memory policy mode: {:?}", wanted.mode)))?;
    let mut bits = *mode;
    for name in &wanted.flags {
        let flag = MEMORY_FLAGS.iter().find(|(known, _)| known == name);
        bits |= flag.ok_or_else(|| invalid(format!("invalid memory policy flag: {name:?}")))?.1;
    }
    let nodes = match wanted.nodes.as_str() {
        "" => Numbers::default(),
        list => Numbers::parse(list)
            .ok_or_else(|| invalid(format!("invalid memory policy nodes: {list:?}")))?,
    };
    Ok((bits, nodes))
}

pub(crate) fn apply_memory_policy(wanted: &MemoryPolicy) -> Result<(), LaunchError> {
    let (mode, nodes) = memory_policy(wanted)?;
    placement::set_memory_policy(mode, &nodes).map_err(at("error setting memory policy"))
}

/// Schedules the calling process as the document says.
pub(crate) fn apply(process: &Process) -> Result<(), LaunchError> {
    if let Some(wanted) = &process.scheduler {
        let scheduling = scheduling(wanted).map_err(invalid)?;
        sys::process::set_scheduling(&scheduling).map_err(at("error setting scheduler"))?;
    }
    if let Some(wanted) = &process.io_priority {
        let (class, priority) = io_priority(wanted).map_err(invalid)?;
        sys::process::set_io_priority(class, priority).map_err(at("failed to set io priority"))?;
    }
    Ok(())
}

fn scheduling(wanted: &Scheduler) -> Result<Scheduling, String> {
    let policy = POLICIES.iter().find(|(name, _)| *name == wanted.policy);
    let (policy, number) =
        policy.ok_or_else(|| format!("invalid scheduler policy: {:?}", wanted.policy))?;
    if !(-20..=19).contains(&wanted.nice) {
        return Err(format!("invalid scheduler.nice: {}", wanted.nice));
    }
    let timed = matches!(*policy, "SCHED_FIFO" | "SCHED_RR");
    if wanted.priority != 0 && !timed {
        return Err(
            "scheduler.priority can only be specified for SchedFIFO or SchedRR policy".to_owned()
        );
    }
    let deadlines = [wanted.runtime, wanted.deadline, wanted.period];
    if deadlines.iter().any(|&time| time != 0) && *policy != "SCHED_DEADLINE" {
        return Err(
            "scheduler runtime/deadline/period can only be specified for SchedDeadline policy"
                .to_owned(),
        );
    }
    let mut flags = 0;
    for name in &wanted.flags {
        let flag = FLAGS.iter().find(|(known, _)| known == name);
        flags |= flag.ok_or_else(|| format!("invalid scheduler flag: {name:?}"))?.1;
    }
    let priority = u32::try_from(wanted.priority)
        .map_err(|_| format!("invalid scheduler.priority: {}", wanted.priority))?;
    Ok(Scheduling {
        policy: *number,
        flags,
        nice: wanted.nice,
        priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    })
}

fn io_priority(wanted: &IoPriority) -> Result<(u8, u8), String> {
    let class = CLASSES.iter().find(|(name, _)| *name == wanted.class);
    let (_, class) =
        class.ok_or_else(|| format!("invalid ioPriority.class: {:?}", wanted.class))?;
    let priority = u8::try_from(wanted.priority).ok().filter(|priority| *priority <= 7);
    let priority =
        priority.ok_or_else(|| format!("invalid ioPriority.priority: {}", wanted.priority))?;
    Ok((*class, priority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(document: &str, want: &str) {
        let process: Process = serde_json::from_str(document).unwrap();
        let got = super::check(&process).err().map_or(String::new(), |error| error.message);
        assert_eq!(got, want);
    }

    #[test]
    fn what_names_nothing_is_refused() {
        check(r#"{"scheduler":{"policy":"SCHED_BATCH","nice":5}}"#, "");
        check(r#"{"scheduler":{"nice":5}}"#, "invalid scheduler policy: \"\"");
        check(
            r#"{"scheduler":{"policy":"SCHED_OTHER","flags":["FAST"]}}"#,
            "invalid scheduler flag: \"FAST\"",
        );
        check(
            r#"{"scheduler":{"policy":"SCHED_OTHER","priority":5}}"#,
            "scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
        );
        check(r#"{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":4}}"#, "");
        check(r#"{"ioPriority":{"priority":4}}"#, "invalid ioPriority.class: \"\"");
        check(
            r#"{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}}"#,
            "invalid ioPriority.priority: 8",
        );
        check(r#"{"execCPUAffinity":{"initial":"0-1","final":"1"}}"#, "");
        check(r#"{"execCPUAffinity":{"final":"one"}}"#, "invalid execCPUAffinity.final: \"one\"");
    }

    #[test]
    fn memory_policies_have_the_kernels_numbers() {
        let policy = |document: &str| {
            let policy = serde_json::from_str(document).unwrap();
            memory_policy(&policy).map_err(|error| error.message)
        };
        let bound = r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES"]}"#;
        assert_eq!(policy(bound), Ok((0x8002, Numbers::parse("0").unwrap())));
        for (document, word) in [
            (r#"{"mode":"BIND"}"#, "mode"),
            (r#"{"mode":"MPOL_BIND","nodes":"x"}"#, "nodes"),
            (r#"{"mode":"MPOL_BIND","flags":["FAST"]}"#, "flag"),
        ] {
            assert!(policy(document).unwrap_err().contains(word), "{document}");
        }
    }
}
