//! From the OCI document's seccomp section to a compiled filter.

use spec::runtime::{Seccomp, SyscallArg};
use sys::seccomp::{Action, Architecture, Compare, CompileError, Condition, Filter, Program, Rule};

/// Why a seccomp section cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("seccomp action {0:?} is unknown")]
    Action(String),
    // Source of the words: runc `libcontainer/seccomp/config.go`.
    #[error("string {0} is not a valid arch for seccomp")]
    Architecture(String),
    #[error("seccomp argument {0} does not exist")]
    Argument(u32),
    #[error("seccomp error number {0} is out of range")]
    Number(u32),
    #[error("seccomp operator {0:?} is unknown")]
    Operator(String),
    #[error("seccomp flag {0:?} is not supported")]
    Flag(String),
    #[error("seccomp action SCMP_ACT_NOTIFY needs a listener, which is not supported")]
    Notify,
    #[error("cannot compile the seccomp filter")]
    Compile { source: CompileError },
}

/// Compiles `seccomp` for this machine.
pub fn compile(seccomp: &Seccomp) -> Result<Program, SeccompError> {
    let mut architectures = Vec::with_capacity(seccomp.architectures.len());
    for name in &seccomp.architectures {
        architectures.extend(architecture(name)?);
    }
    let mut filter = Filter {
        default: action(&seccomp.default_action, seccomp.default_errno_ret)?,
        architectures,
        rules: Vec::with_capacity(seccomp.syscalls.len()),
        log: false,
        speculation_allowed: false,
    };
    for flag in &seccomp.flags {
        match flag.as_str() {
            "SECCOMP_FILTER_FLAG_LOG" => filter.log = true,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => filter.speculation_allowed = true,
            // A container's first process has one thread when its filter is installed.
            "SECCOMP_FILTER_FLAG_TSYNC" => {}
            other => return Err(SeccompError::Flag(other.to_owned())),
        }
    }
    for rule in &seccomp.syscalls {
        let action = action(&rule.action, rule.errno_ret)?;
        if action != filter.default {
            let conditions = rule.args.iter().map(condition).collect::<Result<_, _>>()?;
            filter.rules.push(Rule { syscalls: rule.names.clone(), action, conditions });
        }
    }
    Program::compile(&filter).map_err(|source| SeccompError::Compile { source })
}

/// EPERM is the number where a profile names none.
fn action(name: &str, number: Option<u32>) -> Result<Action, SeccompError> {
    const EPERM: u32 = 1;
    let number = number.unwrap_or(EPERM);
    let number = u16::try_from(number).map_err(|_| SeccompError::Number(number))?;
    match name {
        "SCMP_ACT_ALLOW" => Ok(Action::Allow),
        "SCMP_ACT_ERRNO" => Ok(Action::Errno(number)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(Action::KillThread),
        "SCMP_ACT_KILL_PROCESS" => Ok(Action::KillProcess),
        "SCMP_ACT_TRAP" => Ok(Action::Trap),
        "SCMP_ACT_TRACE" => Ok(Action::Trace(number)),
        "SCMP_ACT_LOG" => Ok(Action::Log),
        "SCMP_ACT_NOTIFY" => Err(SeccompError::Notify),
        other => Err(SeccompError::Action(other.to_owned())),
    }
}

/// Architectures of other machines are left out: none of their calls can arrive here.
fn architecture(name: &str) -> Result<Option<Architecture>, SeccompError> {
    Ok(Some(match name {
        "SCMP_ARCH_X86_64" => Architecture::X86_64,
        "SCMP_ARCH_X86" => Architecture::X86,
        "SCMP_ARCH_X32" => Architecture::X32,
        "SCMP_ARCH_AARCH64" => Architecture::Aarch64,
        "SCMP_ARCH_ARM" => Architecture::Arm,
        "SCMP_ARCH_RISCV64" => Architecture::Riscv64,
        "SCMP_ARCH_LOONGARCH64"
        | "SCMP_ARCH_MIPS"
        | "SCMP_ARCH_MIPS64"
        | "SCMP_ARCH_MIPS64N32"
        | "SCMP_ARCH_MIPSEL"
        | "SCMP_ARCH_MIPSEL64"
        | "SCMP_ARCH_MIPSEL64N32"
        | "SCMP_ARCH_PARISC"
        | "SCMP_ARCH_PARISC64"
        | "SCMP_ARCH_PPC"
        | "SCMP_ARCH_PPC64"
        | "SCMP_ARCH_PPC64LE"
        | "SCMP_ARCH_S390"
        | "SCMP_ARCH_S390X" => {
            return Ok(None);
        }
        other => return Err(SeccompError::Architecture(other.to_owned())),
    }))
}

fn condition(arg: &SyscallArg) -> Result<Condition, SeccompError> {
    let (compare, value) = match arg.op.as_str() {
        "SCMP_CMP_EQ" => (Compare::Equal, arg.value),
        "SCMP_CMP_NE" => (Compare::NotEqual, arg.value),
        "SCMP_CMP_LT" => (Compare::Less, arg.value),
        "SCMP_CMP_LE" => (Compare::LessEqual, arg.value),
        "SCMP_CMP_GT" => (Compare::Greater, arg.value),
        "SCMP_CMP_GE" => (Compare::GreaterEqual, arg.value),
        // `value` is the mask and `valueTwo` the datum.
        "SCMP_CMP_MASKED_EQ" => (Compare::MaskedEqual(arg.value), arg.value_two),
        other => return Err(SeccompError::Operator(other.to_owned())),
    };
    let index = u8::try_from(arg.index).map_err(|_| SeccompError::Argument(arg.index))?;
    Ok(Condition { index, compare, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::runtime::SyscallRule;
    use spec::seccomp::{Host, default_profile};

    #[test]
    fn dockers_default_profile_compiles_to_a_short_program() {
        let capabilities = ["CAP_SYS_CHROOT".to_owned()];
        let host = Host { architecture: "amd64", kernel: (6, 18), capabilities: &capabilities };
        let program = compile(&default_profile(&host)).unwrap();
        assert!(program.len() < 1500, "{} instructions", program.len());
    }

    #[test]
    fn sockets_of_the_kernels_cryptography_and_of_the_hypervisor_are_refused() {
        const REFUSED: u32 = 0x0005_0001;
        const ALLOWED: u32 = 0x7fff_0000;
        for (architecture, native) in [
            ("amd64", Architecture::X86_64),
            ("amd64", Architecture::X86),
            ("amd64", Architecture::X32),
            ("arm64", Architecture::Aarch64),
            ("arm64", Architecture::Arm),
            ("riscv64", Architecture::Riscv64),
        ] {
            let host = Host { architecture, kernel: (6, 18), capabilities: &[] };
            let program = compile(&default_profile(&host)).unwrap();
            for family in 0..46 {
                let want = if [38, 40].contains(&family) { REFUSED } else { ALLOWED };
                // The kernel takes the family for an int, whatever stands above its 32 bits.
                for high in [0, 1 << 32, u64::MAX << 32] {
                    let args = [family | high, 5, 0, 0, 0, 0];
                    let got = program.verdict(native, "socket", args);
                    assert_eq!(got, Some(want), "{native:?} {family} {high:#x}");
                }
            }
        }
    }

    #[test]
    fn unknown_words_are_refused() {
        let with = |action: &str, op: &str| Seccomp {
            default_action: "SCMP_ACT_ERRNO".into(),
            syscalls: vec![SyscallRule {
                names: vec!["read".into()],
                action: action.into(),
                args: vec![SyscallArg { op: op.into(), ..SyscallArg::default() }],
                ..SyscallRule::default()
            }],
            ..Seccomp::default()
        };
        assert!(matches!(compile(&with("ALLOW", "SCMP_CMP_EQ")), Err(SeccompError::Action(_))));
        assert!(matches!(compile(&with("SCMP_ACT_ALLOW", "=")), Err(SeccompError::Operator(_))));
        assert!(compile(&with("SCMP_ACT_ALLOW", "SCMP_CMP_EQ")).is_ok());
        assert!(matches!(compile(&Seccomp::default()), Err(SeccompError::Action(_))));
        let mut elsewhere = with("SCMP_ACT_ALLOW", "SCMP_CMP_EQ");
        elsewhere.architectures = vec!["SCMP_ARCH_S390X".to_owned()];
        assert!(compile(&elsewhere).is_ok());
        elsewhere.architectures = vec!["SCMP_ARCH_X86_46".to_owned()];
        assert!(matches!(compile(&elsewhere), Err(SeccompError::Architecture(_))));
        let mut wrapped = with("SCMP_ACT_ALLOW", "SCMP_CMP_EQ");
        wrapped.syscalls[0].args[0].index = 256;
        assert!(matches!(compile(&wrapped), Err(SeccompError::Argument(256))));
        wrapped.syscalls[0].args.clear();
        wrapped.default_errno_ret = Some(65_536 + 1);
        assert!(matches!(compile(&wrapped), Err(SeccompError::Number(_))));
    }
}
