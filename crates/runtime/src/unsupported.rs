//! What a document may ask for and this runtime does not do: refused by its name, never left out in
//! silence.

use spec::runtime::{Linux, Process, Spec};

use crate::error::{Kind, LaunchError};

pub(crate) fn check(spec: &Spec, process: &Process, linux: &Linux) -> Result<(), LaunchError> {
    let flags = linux.personality.as_ref().is_some_and(|wanted| !wanted.flags.is_empty());
    refuse(&[
        // Source of the words: runc `libcontainer/configs/validate`.
        (
            linux.intel_rdt.is_some(),
            "intelRdt is specified in config, but Intel RDT is not enabled",
        ),
        (!linux.net_devices.is_empty(), "linux.netDevices is not supported"),
        (flags, "linux.personality.flags are not supported"),
        (!linux.mount_label.is_empty(), "SELinux labels are not supported: linux.mountLabel"),
        (spec.vm.is_some(), "virtual machines are not supported: vm"),
    ])?;
    if let Some(policy) = &linux.memory_policy {
        crate::scheduling::memory_policy(policy)?;
    }
    check_process(process)
}

pub(crate) fn check_process(process: &Process) -> Result<(), LaunchError> {
    refuse(&[(
        !process.selinux_label.is_empty(),
        "SELinux labels are not supported: selinuxLabel",
    )])?;
    crate::scheduling::check(process)
}

fn refuse(wishes: &[(bool, &str)]) -> Result<(), LaunchError> {
    match wishes.iter().find(|(asked, _)| *asked) {
        Some((_, words)) => Err(LaunchError::new(Kind::Other, *words)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (document, word) in [
            (r#"{"linux":{"intelRdt":{"closID":"x"}}}"#, "intelRdt"),
            (r#"{"linux":{"netDevices":{"eth9":{}}}}"#, "netDevices"),
            (r#"{"linux":{"personality":{"domain":"LINUX","flags":["X"]}}}"#, "personality.flags"),
            (r#"{"linux":{"mountLabel":"l"}}"#, "mountLabel"),
            (r#"{"vm":{}}"#, "vm"),
            (r#"{"process":{"selinuxLabel":"l"}}"#, "selinuxLabel"),
        ] {
            let spec: Spec = serde_json::from_str(document).unwrap();
            let (process, linux) = (spec.process.clone(), spec.linux.clone());
            let error =
                check(&spec, &process.unwrap_or_default(), &linux.unwrap_or_default()).unwrap_err();
            assert!(error.message.contains(word), "{document}: {}", error.message);
        }
    }
}
