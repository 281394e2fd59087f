//! How the kernel schedules a process and its input and output.
//!
//! Source: OCI runtime-spec `config.md`, "scheduler" and "ioPriority"; sched_setattr(2),
//! ioprio_set(2).

use spec::runtime::{IoPriority, Process, Scheduler};
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
    Ok(())
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
    }
}
