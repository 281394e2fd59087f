//! System call filters: from rules to a BPF program, and its installation.
//!
//! A [`Filter`] is compiled once into a [`Program`], which can be kept and installed any number of
//! times. The program first dispatches on the architecture of the call, then walks a balanced tree
//! over ranges of numbers that share one verdict, so that a filter with 400 names costs about eight
//! comparisons a call, and leaves that depend on arguments compare those.
//!
//! Always true: a call through an architecture that the filter does not list kills the process;
//! names that an architecture does not have are skipped, since profiles name calls of many kernels;
//! calls newer than every one that the filter names answer ENOSYS where the default is an error
//! number, so that libraries fall back instead of failing (as runc does).
//!
//! Source: seccomp(2), `linux/seccomp.h`, `linux/bpf_common.h`; libseccomp for the meaning of rules.

mod arm;
mod assemble;
mod generic;
mod x32;
mod x86;
mod x86_64;

use std::io;

/// What the kernel does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Allow,
    /// The call fails with this error number.
    Errno(u16),
    KillProcess,
    KillThread,
    Log,
    Notify,
    Trace(u16),
    Trap,
}

impl Action {
    fn code(self) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::Log => libc::SECCOMP_RET_LOG,
            Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
            Action::Trace(number) => libc::SECCOMP_RET_TRACE | u32::from(number),
            Action::Trap => libc::SECCOMP_RET_TRAP,
        }
    }
}

/// How an argument is compared with [`Condition::value`], both unsigned 64-bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// `argument & mask == value`.
    MaskedEqual(u64),
}

/// A test of one argument; `index` is 0 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    pub index: u8,
    pub compare: Compare,
    pub value: u64,
}

/// `action` for the named calls when all `conditions` hold. Rules of one call are alternatives in
/// their order; one without conditions decides alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub syscalls: Vec<String>,
    pub action: Action,
    pub conditions: Vec<Condition>,
}

/// An architecture through which a process may enter the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
}

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "riscv64"
)))]
compile_error!(
    "system call filters need a table of this architecture's system calls: sys::seccomp"
);

impl Architecture {
    /// The architecture of this process.
    pub fn native() -> Architecture {
        if cfg!(target_arch = "x86") {
            Architecture::X86
        } else if cfg!(target_arch = "aarch64") {
            Architecture::Aarch64
        } else if cfg!(target_arch = "arm") {
            Architecture::Arm
        } else if cfg!(target_arch = "riscv64") {
            Architecture::Riscv64
        } else {
            Architecture::X86_64
        }
    }

    /// `AUDIT_ARCH_*` of `linux/audit.h`.
    fn audit(self) -> u32 {
        match self {
            Architecture::X86_64 | Architecture::X32 => 0xc000_003e,
            Architecture::X86 => 0x4000_0003,
            Architecture::Aarch64 => 0xc000_00b7,
            Architecture::Arm => 0x4000_0028,
            Architecture::Riscv64 => 0xc000_00f3,
        }
    }

    /// From here on stand calls of the architecture alone: numbers up to here grow with the
    /// kernel's age, so that what lies above the newest known one is newer than all.
    fn private_from(self) -> u32 {
        match self {
            // arch/x86/entry/syscalls/syscall_64.tbl.
            Architecture::X86_64 | Architecture::X32 => 512,
            // `__ARM_NR_BASE`.
            Architecture::Arm => 0xf_0000,
            Architecture::X86 | Architecture::Aarch64 | Architecture::Riscv64 => u32::MAX,
        }
    }

    /// What it has for itself, then what it shares with others.
    fn tables(self) -> &'static [&'static [(&'static str, u32)]] {
        match self {
            Architecture::X86_64 => &[x86_64::NUMBERS],
            Architecture::X32 => &[x32::NUMBERS, x86_64::NUMBERS],
            Architecture::X86 => &[x86::NUMBERS],
            Architecture::Aarch64 => &[generic::AARCH64, generic::NUMBERS],
            Architecture::Arm => &[arm::NUMBERS],
            Architecture::Riscv64 => &[generic::RISCV64, generic::NUMBERS],
        }
    }

    /// The number of the call `name`, if this architecture has it.
    pub fn number(self, name: &str) -> Option<u32> {
        self.tables().iter().find_map(|table| {
            let at = table.binary_search_by_key(&name, |(known, _)| known).ok()?;
            Some(table[at].1)
        })
    }
}

/// Names of all system calls known here, of any architecture.
pub fn known_names() -> impl Iterator<Item = &'static str> {
    let all = [
        Architecture::X32,
        Architecture::X86,
        Architecture::Aarch64,
        Architecture::Arm,
        Architecture::Riscv64,
    ];
    let tables = all.iter().flat_map(|architecture| architecture.tables());
    let mut names: Vec<&str> =
        tables.flat_map(|table| table.iter().map(|(name, _)| *name)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

/// A filter before compilation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub default: Action,
    /// The native architecture is always filtered, listed or not.
    pub architectures: Vec<Architecture>,
    pub rules: Vec<Rule>,
    /// Log every verdict but allow: `SECCOMP_FILTER_FLAG_LOG`.
    pub log: bool,
    /// Do not mitigate speculative store bypass: `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
    pub speculation_allowed: bool,
}

/// Why a filter cannot be compiled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    #[error("seccomp rule compares argument {0}, but calls have six")]
    ArgumentIndex(u8),
    #[error("seccomp filter needs {0} instructions; the kernel takes at most 4096")]
    TooLong(usize),
}

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: u32,
}

/// `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    operand: u32,
}

impl Program {
    pub fn compile(filter: &Filter) -> Result<Program, CompileError> {
        let instructions = assemble::program(filter)?;
        let mut flags = 0;
        if filter.log {
            flags |= libc::SECCOMP_FILTER_FLAG_LOG as u32;
        }
        if filter.speculation_allowed {
            flags |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
        }
        Ok(Program { instructions, flags })
    }

    /// The program in a form for another process of this machine: flags, then the instructions as
    /// the kernel takes them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.flags.to_ne_bytes().to_vec();
        for instruction in &self.instructions {
            bytes.extend(instruction.code.to_ne_bytes());
            bytes.extend([instruction.jump_true, instruction.jump_false]);
            bytes.extend(instruction.operand.to_ne_bytes());
        }
        bytes
    }

    /// What [`Program::to_bytes`] made; `None` for anything of another length. The kernel checks the
    /// instructions when they are installed.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Program> {
        let (flags, rest) = bytes.split_first_chunk::<4>()?;
        let (chunks, rest) = rest.as_chunks::<8>();
        if !rest.is_empty() || chunks.is_empty() {
            return None;
        }
        let instruction = |chunk: &[u8; 8]| Instruction {
            code: u16::from_ne_bytes([chunk[0], chunk[1]]),
            jump_true: chunk[2],
            jump_false: chunk[3],
            operand: u32::from_ne_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
        };
        let instructions = chunks.iter().map(instruction).collect();
        Some(Program { instructions, flags: u32::from_ne_bytes(*flags) })
    }

    /// Number of BPF instructions.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }

    /// What the kernel does with a call, as the value that the program returns: `SECCOMP_RET_*` and
    /// its data. For tests of profiles, also of other architectures' calls.
    pub fn verdict(&self, architecture: Architecture, name: &str, args: [u64; 6]) -> Option<u32> {
        let bit = if architecture == Architecture::X32 { assemble::X32_BIT } else { 0 };
        Some(self.run(architecture.audit(), architecture.number(name)? | bit, args))
    }

    fn run(&self, audit: u32, number: u32, args: [u64; 6]) -> u32 {
        let load = |offset: u32| match offset {
            0 => number,
            4 => audit,
            offset => {
                let word = (offset - 16) / 4;
                let argument = args[(word / 2) as usize];
                if word % 2 == 0 { argument as u32 } else { (argument >> 32) as u32 }
            }
        };
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let Instruction { code, jump_true, jump_false, operand } = self.instructions[at];
            at += 1;
            let taken = match code {
                0x20 => {
                    accumulator = load(operand);
                    continue;
                }
                0x54 => {
                    accumulator &= operand;
                    continue;
                }
                0x05 => {
                    at += operand as usize;
                    continue;
                }
                0x06 => return operand,
                0x15 => accumulator == operand,
                0x25 => accumulator > operand,
                0x35 => accumulator >= operand,
                other => unreachable!("assemble makes no instruction {other:#x}"),
            };
            at += usize::from(if taken { jump_true } else { jump_false });
        }
    }

    /// Installs the filter for the calling thread and what it executes; there is no way back.
    ///
    /// # Errors
    /// EACCES when the thread has neither no_new_privs nor CAP_SYS_ADMIN in its user namespace.
    pub fn install(&self) -> io::Result<()> {
        #[repr(C)]
        struct SockFprog {
            len: u16,
            filter: *const Instruction,
        }
        let program =
            SockFprog { len: self.instructions.len() as u16, filter: self.instructions.as_ptr() };
        // SAFETY: seccomp(2) reads `len` instructions from `filter` during the call; both live until
        // it returns, `Instruction` has the layout of `struct sock_filter`, and `assemble` bounds the
        // length by 4096.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                self.flags,
                &raw const program,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Architecture; 6] = [
        Architecture::X86_64,
        Architecture::X86,
        Architecture::X32,
        Architecture::Aarch64,
        Architecture::Arm,
        Architecture::Riscv64,
    ];

    fn rule(name: &str, action: Action, conditions: &[Condition]) -> Rule {
        Rule { syscalls: vec![name.to_owned()], action, conditions: conditions.to_vec() }
    }

    fn filter(default: Action, rules: Vec<Rule>) -> Filter {
        Filter {
            default,
            architectures: vec![Architecture::X86_64, Architecture::X86, Architecture::X32],
            rules,
            log: false,
            speculation_allowed: false,
        }
    }

    #[track_caller]
    fn check(filter: &Filter, call: (Architecture, &str), args: [u64; 6], want: Action) {
        let program = Program::compile(filter).unwrap();
        assert_eq!(program.verdict(call.0, call.1, args), Some(want.code()));
    }

    #[test]
    fn the_tables_are_sorted_so_that_names_are_found() {
        for architecture in ALL {
            assert!(architecture.tables().iter().all(|table| table.is_sorted()));
        }
        assert_eq!(Architecture::X86_64.number("read"), Some(0));
        assert_eq!(Architecture::X86.number("read"), Some(3));
        assert_eq!(Architecture::Aarch64.number("read"), Some(63));
        assert_eq!(Architecture::Aarch64.number("fork"), None);
        assert_eq!(Architecture::Arm.number("read"), Some(3));
        assert_eq!(Architecture::Arm.number("clock_gettime64"), Some(403));
        assert_eq!(Architecture::Arm.number("set_tls"), Some(0xf_0005));
        assert_eq!(Architecture::Riscv64.number("read"), Some(63));
        assert_eq!(Architecture::Riscv64.number("riscv_flush_icache"), Some(259));
        assert_eq!(Architecture::X32.number("ptrace"), Some(521));
        assert_eq!(Architecture::X32.number("read"), Some(0));
    }

    #[test]
    fn a_denied_call_is_denied_through_every_architecture() {
        let mut denied = filter(Action::Allow, vec![rule("ptrace", Action::Errno(1), &[])]);
        denied.architectures = ALL.to_vec();
        for architecture in ALL {
            check(&denied, (architecture, "ptrace"), [0; 6], Action::Errno(1));
            check(&denied, (architecture, "read"), [0; 6], Action::Allow);
        }
    }

    #[test]
    fn calls_of_one_architecture_alone_are_not_newer_than_all_others() {
        let mut some = filter(
            Action::Errno(1),
            vec![rule("set_tls", Action::Allow, &[]), rule("openat2", Action::Allow, &[])],
        );
        some.rules.push(rule("ptrace", Action::Allow, &[]));
        some.architectures = ALL.to_vec();
        check(&some, (Architecture::Arm, "set_tls"), [0; 6], Action::Allow);
        let missing = Action::Errno(libc::ENOSYS as u16);
        check(&some, (Architecture::Arm, "mseal"), [0; 6], missing);
        check(&some, (Architecture::X32, "mseal"), [0; 6], missing);
        check(&some, (Architecture::X32, "ptrace"), [0; 6], Action::Allow);
        check(&some, (Architecture::X32, "execve"), [0; 6], Action::Errno(1));
    }

    #[test]
    fn each_architecture_finds_its_own_numbers() {
        let some = filter(
            Action::Errno(1),
            vec![rule("read", Action::Allow, &[]), rule("mseal", Action::Allow, &[])],
        );
        for architecture in [Architecture::X86_64, Architecture::X86, Architecture::X32] {
            check(&some, (architecture, "read"), [0; 6], Action::Allow);
            check(&some, (architecture, "write"), [0; 6], Action::Errno(1));
        }
        let program = Program::compile(&some).unwrap();
        let foreign = program.run(Architecture::Aarch64.audit(), 63, [0; 6]);
        assert_eq!(foreign, Action::KillProcess.code());
    }

    #[test]
    fn calls_newer_than_the_filter_do_not_exist() {
        let some = filter(Action::Errno(1), vec![rule("openat2", Action::Allow, &[])]);
        let program = Program::compile(&some).unwrap();
        let newer = program.run(Architecture::X86_64.audit(), 460, [0; 6]);
        assert_eq!(newer, Action::Errno(libc::ENOSYS as u16).code());
        check(&some, (Architecture::X86_64, "read"), [0; 6], Action::Errno(1));
    }

    #[test]
    fn arguments_are_compared_as_64_bit_numbers() {
        let big = 0x1_0000_0005;
        let cases: [(Compare, u64, u64, bool); 12] = [
            (Compare::Equal, big, big, true),
            (Compare::Equal, big, 5, false),
            (Compare::NotEqual, big, 5, true),
            (Compare::NotEqual, big, big, false),
            (Compare::Less, big, big - 1, true),
            (Compare::Less, big, big, false),
            (Compare::LessEqual, big, big, true),
            (Compare::Greater, big, 0x2_0000_0000, true),
            (Compare::Greater, big, 6, false),
            (Compare::GreaterEqual, big, big, true),
            (Compare::MaskedEqual(0xf), 5, big, true),
            (Compare::MaskedEqual(0x1_0000_0000), 0, big, false),
        ];
        for (compare, value, argument, holds) in cases {
            let condition = Condition { index: 2, compare, value };
            let some = filter(Action::Errno(1), vec![rule("socket", Action::Allow, &[condition])]);
            let want = if holds { Action::Allow } else { Action::Errno(1) };
            check(&some, (Architecture::X86_64, "socket"), [0, 0, argument, 0, 0, 0], want);
        }
    }

    #[test]
    fn rules_of_one_call_are_alternatives_and_conditions_of_one_rule_are_not() {
        let at = |index, value| Condition { index, compare: Compare::Equal, value };
        let some = filter(
            Action::Errno(1),
            vec![
                rule("personality", Action::Allow, &[at(0, 0)]),
                rule("personality", Action::Allow, &[at(0, 8), at(1, 1)]),
            ],
        );
        let call = (Architecture::X86_64, "personality");
        check(&some, call, [0, 0, 0, 0, 0, 0], Action::Allow);
        check(&some, call, [8, 1, 0, 0, 0, 0], Action::Allow);
        check(&some, call, [8, 0, 0, 0, 0, 0], Action::Errno(1));
    }

    #[test]
    fn many_alternatives_of_one_call_stay_short() {
        let alternatives = (0..100).map(|value| {
            let at = |index| Condition { index, compare: Compare::Equal, value };
            rule("ioctl", Action::Allow, &[at(0), at(1)])
        });
        let some = filter(Action::Errno(1), alternatives.collect());
        let call = (Architecture::X86_64, "ioctl");
        check(&some, call, [0, 0, 0, 0, 0, 0], Action::Allow);
        check(&some, call, [99, 99, 0, 0, 0, 0], Action::Allow);
        check(&some, call, [99, 98, 0, 0, 0, 0], Action::Errno(1));
        check(&some, call, [100, 100, 0, 0, 0, 0], Action::Errno(1));
    }

    #[test]
    fn the_kernel_takes_a_filter_of_every_known_call() {
        let names: Vec<String> = known_names().map(str::to_owned).collect();
        let alternate = |odd: usize| {
            let names = names.iter().skip(odd).step_by(2).cloned().collect();
            Rule { syscalls: names, action: Action::Allow, conditions: Vec::new() }
        };
        let all = filter(Action::Errno(1), vec![alternate(0), alternate(1)]);
        let program = Program::compile(&all).unwrap();
        assert!(program.len() < 4096, "{}", program.len());
        let thread = std::thread::spawn(move || {
            // SAFETY: prctl(2) with PR_SET_NO_NEW_PRIVS takes integers only.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            program.install()
        });
        thread.join().unwrap().unwrap();
    }
}
