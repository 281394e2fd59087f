//! Which devices a control group may use: lines of version 1, a BPF program on version 2.
//!
//! Rules are in order and the last one that fits decides. Version 1 knows only a default and
//! exceptions to it, so rules before the last one for all devices are dropped there. Version 2 runs
//! a program at each access: rules are tested from the last to the first.
//!
//! Source: kernel Documentation/admin-guide/cgroup-v1/devices.rst and cgroup-v2.rst.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::process::check;

/// Devices of one kind and number, or of all (`None`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: DeviceKind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    All,
    Character,
    Block,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl Access {
    pub const ALL: Self = Self { read: true, write: true, mknod: true };

    /// Letters out of `rwm`, at least one.
    #[must_use]
    pub fn parse(letters: &str) -> Option<Self> {
        let known = letters.bytes().all(|letter| b"rwm".contains(&letter));
        (known && !letters.is_empty()).then(|| Self {
            read: letters.contains('r'),
            write: letters.contains('w'),
            mknod: letters.contains('m'),
        })
    }

    fn letters(self) -> String {
        let letter = |on: bool, letter: char| on.then_some(letter);
        [letter(self.read, 'r'), letter(self.write, 'w'), letter(self.mknod, 'm')]
            .into_iter()
            .flatten()
            .collect()
    }

    /// BPF_DEVCG_ACC_MKNOD, _READ and _WRITE of linux/bpf.h.
    fn bits(self) -> i32 {
        i32::from(self.mknod) | i32::from(self.read) << 1 | i32::from(self.write) << 2
    }
}

impl DeviceRule {
    /// Whether no device and no access is left out.
    #[must_use]
    pub fn is_for_everything(&self) -> bool {
        let all_numbers = self.major.is_none() && self.minor.is_none();
        self.kind == DeviceKind::All && all_numbers && self.access == Access::ALL
    }
}

/// The writes, in order, as (file, line).
pub(super) fn v1_lines(rules: &[DeviceRule]) -> Vec<(&'static str, String)> {
    let from = rules.iter().rposition(DeviceRule::is_for_everything).unwrap_or(0);
    let mut lines = Vec::new();
    for (at, rule) in rules.iter().enumerate().skip(from) {
        // What is said again later has no effect before.
        if rules[at + 1..].contains(rule) {
            continue;
        }
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        if rule.is_for_everything() {
            lines.push((file, "a".to_owned()));
            continue;
        }
        let number =
            |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let (major, minor) = (number(rule.major), number(rule.minor));
        // Version 1 reads no further than the `a` of a rule for both kinds.
        let kinds: &[char] = match rule.kind {
            DeviceKind::All => &['b', 'c'],
            DeviceKind::Block => &['b'],
            DeviceKind::Character => &['c'],
        };
        for kind in kinds {
            lines.push((file, format!("{kind} {major}:{minor} {}", rule.access.letters())));
        }
    }
    lines
}

/// An instruction of BPF: linux/bpf.h, `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE_IMMEDIATE: u8 = 0xb7;
const AND_IMMEDIATE: u8 = 0x54;
const RIGHT_SHIFT_IMMEDIATE: u8 = 0x74;
const JUMP_NOT_EQUAL: u8 = 0x56;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5e;
const EXIT: u8 = 0x95;

fn instruction(code: u8, target: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | target, offset, immediate }
}

/// Registers: r1 the context, r2 type, r3 access, r4 major, r5 minor, r6 scratch.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    // linux/bpf.h, `struct bpf_cgroup_dev_ctx`: access_type holds access << 16 | type.
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND_IMMEDIATE, 2, 0, 0, 0xffff),
        instruction(RIGHT_SHIFT_IMMEDIATE, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    let mut decided = false;
    for rule in rules.iter().rev() {
        let test = rule_test(rule);
        // Each block ends with two instructions (the verdict), which a failed test jumps over.
        let length = test.len() + 2;
        for (at, mut instruction) in test.into_iter().enumerate() {
            if matches!(instruction.code, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER) {
                instruction.offset = i16::try_from(length - at - 1).unwrap_or(i16::MAX);
            }
            code.push(instruction);
        }
        code.push(instruction(MOVE_IMMEDIATE, 0, 0, 0, i32::from(rule.allow)));
        code.push(instruction(EXIT, 0, 0, 0, 0));
        // The verifier refuses code that cannot be reached.
        if length == 2 {
            decided = true;
            break;
        }
    }
    if !decided {
        code.push(instruction(MOVE_IMMEDIATE, 0, 0, 0, 0));
        code.push(instruction(EXIT, 0, 0, 0, 0));
    }
    code
}

fn rule_test(rule: &DeviceRule) -> Vec<Instruction> {
    let mut test = Vec::new();
    // BPF_DEVCG_DEV_BLOCK is 1, BPF_DEVCG_DEV_CHAR is 2.
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => test.push(instruction(JUMP_NOT_EQUAL, 2, 0, 0, 1)),
        DeviceKind::Character => test.push(instruction(JUMP_NOT_EQUAL, 2, 0, 0, 2)),
    }
    if rule.access != Access::ALL {
        // The rule fits when the wanted access is a subset of its own.
        test.push(instruction(MOVE_REGISTER, 6, 3, 0, 0));
        test.push(instruction(AND_IMMEDIATE, 6, 0, 0, rule.access.bits()));
        test.push(instruction(JUMP_NOT_EQUAL_REGISTER, 6, 3, 0, 0));
    }
    if let Some(major) = rule.major {
        test.push(instruction(JUMP_NOT_EQUAL, 4, 0, 0, major.cast_signed()));
    }
    if let Some(minor) = rule.minor {
        test.push(instruction(JUMP_NOT_EQUAL, 5, 0, 0, minor.cast_signed()));
    }
    test
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_DETACH: u32 = 9;
const BPF_PROG_GET_FD_BY_ID: u32 = 13;
const BPF_PROG_QUERY: u32 = 16;
const PROGRAM_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// Loads a program for `rules` and attaches it to the group, then takes off older ones of ours, so
/// that at no time the group is without.
pub(super) fn attach_v2(directory: BorrowedFd<'_>, rules: &[DeviceRule]) -> io::Result<()> {
    let old = attached(directory).unwrap_or_default();
    let code = program(rules);
    let attr = LoadAttr {
        program_type: PROGRAM_CGROUP_DEVICE,
        instruction_count: u32::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadAttr::default()
    };
    // SAFETY: `attr` names `code` by address and length and a C string; all outlive the call.
    let loaded = unsafe { bpf(BPF_PROG_LOAD, &attr) }?;
    // SAFETY: the kernel opened this descriptor for the call, so nothing else owns it.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let attach = |program: i32, flags: u32| AttachAttr {
        target: directory.as_raw_fd().cast_unsigned(),
        program: program.cast_unsigned(),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags,
    };
    // SAFETY: the record holds integers only.
    unsafe { bpf(BPF_PROG_ATTACH, &attach(loaded.as_raw_fd(), ALLOW_MULTI)) }?;
    for id in old {
        // SAFETY: the record holds integers only.
        let Ok(old) = (unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &[id, 0, 0]) }) else { continue };
        // SAFETY: the kernel opened this descriptor for the call, so nothing else owns it.
        let old = unsafe { OwnedFd::from_raw_fd(old) };
        // SAFETY: the record holds integers only.
        unsafe { bpf(BPF_PROG_DETACH, &attach(old.as_raw_fd(), 0)) }?;
    }
    Ok(())
}

fn attached(directory: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; 64];
    let mut attr = QueryAttr {
        target: directory.as_raw_fd().cast_unsigned(),
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: 64,
    };
    // SAFETY: the record names `ids` by address and length; the kernel writes into both, which
    // outlive the call.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attr, size_of::<QueryAttr>())
    })?;
    ids.truncate(attr.count as usize);
    Ok(ids)
}

/// # Safety
/// Addresses in `attr` must be valid for what `command` does with them.
unsafe fn bpf<T>(command: u32, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is a live record of the size that is passed; the caller vouches for the rest.
    let result = check(unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>())
    })?;
    i32::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Vec<DeviceRule> {
        let allow = |major, minor, access: &str| DeviceRule {
            allow: true,
            kind: DeviceKind::Character,
            major,
            minor,
            access: Access::parse(access).unwrap(),
        };
        let nothing = DeviceRule {
            allow: false,
            kind: DeviceKind::All,
            major: None,
            minor: None,
            access: Access::ALL,
        };
        vec![
            nothing,
            allow(None, None, "m"),
            allow(Some(1), Some(3), "rwm"),
            allow(Some(136), None, "rwm"),
        ]
    }

    #[test]
    fn version_1_gets_the_default_first_and_then_its_exceptions() {
        let lines: Vec<_> =
            v1_lines(&rules()).into_iter().map(|(file, line)| format!("{file} {line}")).collect();
        assert_eq!(
            lines,
            [
                "devices.deny a",
                "devices.allow c *:* m",
                "devices.allow c 1:3 rwm",
                "devices.allow c 136:* rwm"
            ]
        );
    }

    #[test]
    fn the_kernel_accepts_the_program() {
        if !crate::testing::privileged("loading BPF needs CAP_BPF") {
            return;
        }
        let root = match super::super::Layout::host() {
            super::super::Layout::V2 { root } => root.clone(),
            super::super::Layout::V1 { unified: Some(root), .. } => root.clone(),
            _ => return crate::testing::ignored("no version 2 hierarchy is mounted"),
        };
        let group = root.join(format!("tug-devices-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        let directory = std::fs::File::open(&group).unwrap();
        use std::os::fd::AsFd;
        let first = attach_v2(directory.as_fd(), &rules());
        let second = attach_v2(directory.as_fd(), &rules());
        let count = attached(directory.as_fd()).map(|ids| ids.len());
        std::fs::remove_dir(&group).unwrap();
        first.unwrap();
        second.unwrap();
        assert_eq!(count.unwrap(), 1);
    }
}
