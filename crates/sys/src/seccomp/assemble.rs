//! From rules to BPF instructions.
//!
//! Code is built back to front in blocks that always end in a return, so a jump over a block is its
//! length. Conditional jumps reach 255 instructions; longer ones go through an unconditional jump.

use std::collections::BTreeMap;

use super::{Action, Architecture, Compare, CompileError, Condition, Filter, Instruction};

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

pub(super) const X32_BIT: u32 = 0x4000_0000;
const INSTRUCTIONS_MAX: usize = 4096;

/// The verdict on one number: alternatives with conditions, then what holds otherwise.
#[derive(Clone, PartialEq, Eq)]
struct Verdict {
    conditional: Vec<(Vec<Condition>, Action)>,
    otherwise: Action,
}

impl Verdict {
    fn plain(action: Action) -> Verdict {
        Verdict { conditional: Vec::new(), otherwise: action }
    }
}

pub(super) fn program(filter: &Filter) -> Result<Vec<Instruction>, CompileError> {
    for condition in filter.rules.iter().flat_map(|rule| &rule.conditions) {
        if condition.index > 5 {
            return Err(CompileError::ArgumentIndex(condition.index));
        }
    }
    let mut architectures = filter.architectures.clone();
    if !architectures.contains(&Architecture::native()) {
        architectures.push(Architecture::native());
    }
    let mut audits: Vec<u32> = architectures.iter().map(|known| known.audit()).collect();
    audits.sort_unstable();
    audits.dedup();

    let mut code = vec![give(Action::KillProcess)];
    for audit in audits {
        let block = architecture_block(filter, &architectures, audit);
        code = branch(JUMP_EQUAL, audit, block, code);
    }
    let mut whole = vec![plain(LOAD, OFFSET_ARCHITECTURE)];
    whole.append(&mut code);
    if whole.len() > INSTRUCTIONS_MAX {
        return Err(CompileError::TooLong(whole.len()));
    }
    Ok(whole)
}

/// All calls that arrive with `audit`; x86-64 and x32 share one.
fn architecture_block(filter: &Filter, listed: &[Architecture], audit: u32) -> Vec<Instruction> {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    for architecture in listed.iter().copied().filter(|known| known.audit() == audit) {
        let base = if architecture == Architecture::X32 { X32_BIT } else { 0 };
        ranges.extend(verdicts(filter, architecture, base));
    }
    if audit == Architecture::X32.audit() && !listed.contains(&Architecture::X32) {
        ranges.push((X32_BIT, Verdict::plain(Action::KillProcess)));
    }
    ranges.sort_by_key(|(start, _)| *start);
    ranges.dedup_by(|later, earlier| later.1 == earlier.1);
    let mut code = vec![plain(LOAD, OFFSET_NUMBER)];
    code.append(&mut tree(&ranges));
    code
}

/// The starts of ranges of numbers from `base` on, each with its verdict.
fn verdicts(filter: &Filter, architecture: Architecture, base: u32) -> Vec<(u32, Verdict)> {
    let mut by_number: BTreeMap<u32, Verdict> = BTreeMap::new();
    for rule in &filter.rules {
        for number in rule.syscalls.iter().filter_map(|name| architecture.number(name)) {
            let entry = by_number.entry(number).or_insert_with(|| Verdict::plain(filter.default));
            if rule.conditions.is_empty() {
                entry.otherwise = rule.action;
            } else {
                entry.conditional.push((rule.conditions.clone(), rule.action));
            }
        }
    }
    let common = by_number.keys().take_while(|number| **number < architecture.private_from());
    let newest = common.last().copied();
    let mut ranges = vec![(base, Verdict::plain(filter.default))];
    for (number, verdict) in by_number {
        ranges.retain(|(start, _)| *start != base + number);
        ranges.push((base + number, verdict));
        ranges.push((base + number + 1, Verdict::plain(filter.default)));
    }
    if let (Some(newest), Action::Errno(_)) = (newest, filter.default) {
        ranges.retain(|(start, _)| *start != base + newest + 1);
        let missing = Action::Errno(libc::ENOSYS as u16);
        ranges.push((base + newest + 1, Verdict::plain(missing)));
        let private = base.saturating_add(architecture.private_from());
        if private < u32::MAX && ranges.iter().all(|(start, _)| *start != private) {
            ranges.push((private, Verdict::plain(filter.default)));
        }
    }
    ranges
}

/// A balanced search for the range that holds the accumulator.
fn tree(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    match ranges {
        [] => vec![give(Action::KillProcess)],
        [(_, verdict)] => leaf(verdict),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            branch(JUMP_GREATER_EQUAL, high[0].0, tree(high), tree(low))
        }
    }
}

fn leaf(verdict: &Verdict) -> Vec<Instruction> {
    let mut code = vec![give(verdict.otherwise)];
    for (conditions, action) in verdict.conditional.iter().rev() {
        code = alternative(conditions, *action, code);
    }
    code
}

/// `action` when all `conditions` hold, else what `otherwise` does.
fn alternative(
    conditions: &[Condition],
    action: Action,
    otherwise: Vec<Instruction>,
) -> Vec<Instruction> {
    let mut code = vec![give(action)];
    for condition in conditions.iter().rev() {
        let mut check = holds(condition, code.len());
        check.append(&mut code);
        code = check;
    }
    code.extend(otherwise);
    code
}

/// Goes on behind itself when the condition holds, else `miss` instructions further. An argument is
/// compared by its two halves, the high one first.
fn holds(condition: &Condition, miss: usize) -> Vec<Instruction> {
    let low_at = OFFSET_ARGUMENTS + 8 * u32::from(condition.index);
    let (low_at, high_at) =
        if cfg!(target_endian = "big") { (low_at + 4, low_at) } else { (low_at, low_at + 4) };
    let (low, high) = (condition.value as u32, (condition.value >> 32) as u32);
    match condition.compare {
        Compare::Equal => {
            let on_low = join(load(low_at, None), unless(JUMP_EQUAL, low, miss));
            let differs = unless(JUMP_EQUAL, high, on_low.len() + miss);
            join(join(load(high_at, None), differs), on_low)
        }
        Compare::NotEqual => {
            let on_low = join(load(low_at, None), when(JUMP_EQUAL, low, miss));
            let differs = unless(JUMP_EQUAL, high, on_low.len());
            join(join(load(high_at, None), differs), on_low)
        }
        Compare::MaskedEqual(mask) => {
            let half = |at: u32, mask: u32, value: u32, miss: usize| match (mask, value) {
                (0, 0) => Vec::new(),
                _ => join(load(at, Some(mask)), unless(JUMP_EQUAL, value, miss)),
            };
            let on_low = half(low_at, mask as u32, low, miss);
            join(half(high_at, (mask >> 32) as u32, high, on_low.len() + miss), on_low)
        }
        Compare::Greater => above(JUMP_GREATER, (low_at, low), (high_at, high), miss),
        Compare::GreaterEqual => above(JUMP_GREATER_EQUAL, (low_at, low), (high_at, high), miss),
        Compare::LessEqual => not_above(JUMP_GREATER, (low_at, low), (high_at, high), miss),
        Compare::Less => not_above(JUMP_GREATER_EQUAL, (low_at, low), (high_at, high), miss),
    }
}

/// [`holds`] for arguments that are greater (or equal, as `on_low` says).
fn above(
    on_low: u16,
    (low_at, low): (u32, u32),
    (high_at, high): (u32, u32),
    miss: usize,
) -> Vec<Instruction> {
    let tie = join(load(low_at, None), unless(on_low, low, miss));
    let rest = join(unless(JUMP_EQUAL, high, tie.len() + miss), tie);
    join(join(load(high_at, None), when(JUMP_GREATER, high, rest.len())), rest)
}

/// [`holds`] for arguments that are not.
fn not_above(
    on_low: u16,
    (low_at, low): (u32, u32),
    (high_at, high): (u32, u32),
    miss: usize,
) -> Vec<Instruction> {
    let tie = join(load(low_at, None), when(on_low, low, miss));
    let rest = join(unless(JUMP_EQUAL, high, tie.len()), tie);
    join(join(load(high_at, None), when(JUMP_GREATER, high, rest.len() + miss)), rest)
}

fn join(mut one: Vec<Instruction>, other: Vec<Instruction>) -> Vec<Instruction> {
    one.extend(other);
    one
}

/// Skips `distance` instructions when the comparison holds.
fn when(code: u16, operand: u32, distance: usize) -> Vec<Instruction> {
    match u8::try_from(distance) {
        Ok(short) => vec![Instruction { code, jump_true: short, jump_false: 0, operand }],
        Err(_) => vec![
            Instruction { code, jump_true: 0, jump_false: 1, operand },
            plain(JUMP, distance as u32),
        ],
    }
}

/// Skips `distance` instructions when the comparison does not hold.
fn unless(code: u16, operand: u32, distance: usize) -> Vec<Instruction> {
    match u8::try_from(distance) {
        Ok(short) => vec![Instruction { code, jump_true: 0, jump_false: short, operand }],
        Err(_) => vec![
            Instruction { code, jump_true: 1, jump_false: 0, operand },
            plain(JUMP, distance as u32),
        ],
    }
}

fn load(offset: u32, mask: Option<u32>) -> Vec<Instruction> {
    let mut code = vec![plain(LOAD, offset)];
    code.extend(mask.map(|mask| plain(AND, mask)));
    code
}

/// `no` stands first, since every block ends in a return and a jump only goes forward.
fn branch(
    code: u16,
    operand: u32,
    yes: Vec<Instruction>,
    no: Vec<Instruction>,
) -> Vec<Instruction> {
    join(join(when(code, operand, no.len()), no), yes)
}

fn give(action: Action) -> Instruction {
    plain(RETURN, action.code())
}

fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, operand }
}
