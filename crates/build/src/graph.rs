//! Which stages a build needs, and which of them each one waits for.
//!
//! A stage needs the stage that its FROM names and those that its `COPY --from` and
//! `RUN --mount=from=` name; only earlier stages have names, so there are no cycles.

use std::collections::BTreeSet;

use crate::instruction::{Dockerfile, Instruction, Stage};
use crate::parse;

/// Index into [`Dockerfile::stages`].
pub type StageIndex = usize;

/// Docker's words for a target that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to reach build target {0} in Dockerfile")]
pub struct NoTarget(pub String);

/// The stage that `--target` names, by name or index; the last one without it.
///
/// # Errors
/// No such stage.
pub fn target(file: &Dockerfile, wanted: Option<&str>) -> Result<StageIndex, NoTarget> {
    match wanted.filter(|wanted| !wanted.is_empty()) {
        None => Ok(file.stages.len() - 1),
        Some(wanted) => find(&file.stages, wanted).ok_or_else(|| NoTarget(wanted.to_owned())),
    }
}

/// The stage among `stages` that `word` names. Names win over numbers, later stages over earlier.
pub fn find(stages: &[Stage], word: &str) -> Option<StageIndex> {
    let lower = word.to_ascii_lowercase();
    stages
        .iter()
        .rposition(|stage| stage.name.as_deref() == Some(&lower))
        .or_else(|| word.parse().ok().filter(|&index| index < stages.len()))
}

/// The stage that the FROM of stage `index` names, by name only: `FROM 0` is an image called `0`.
pub fn base(file: &Dockerfile, index: StageIndex, base: &str) -> Option<StageIndex> {
    let lower = base.to_ascii_lowercase();
    file.stages[..index].iter().rposition(|stage| stage.name.as_deref() == Some(&lower))
}

/// The stages that `--from` words of stage `index` name. Words with variables are taken for every
/// stage, since only the solver knows their value.
fn sources(file: &Dockerfile, index: StageIndex) -> BTreeSet<StageIndex> {
    let mut words: Vec<String> = Vec::new();
    for step in &file.stages[index].steps {
        collect(&step.instruction, &mut words);
    }
    let mut found = BTreeSet::new();
    for word in words {
        match word.contains('$') {
            true => found.extend(0..index),
            false => found.extend(find(&file.stages[..index], &word)),
        }
    }
    found
}

/// The words, still to be expanded, by which an instruction names what it reads from.
pub fn collect(instruction: &Instruction, words: &mut Vec<String>) {
    match instruction {
        Instruction::Copy(transfer) | Instruction::Add(transfer) => {
            words.extend(transfer.from.clone())
        }
        Instruction::Run(run) => {
            words.extend(run.mounts.iter().filter_map(|mount| mount.from.clone()))
        }
        Instruction::Onbuild(text) => {
            // A stage on this one runs the trigger; its sources must be there then.
            if let Ok(step) = parse::parse_trigger(text) {
                collect(&step.instruction, words);
            }
        }
        Instruction::Arg(_)
        | Instruction::Cmd(_)
        | Instruction::Entrypoint(_)
        | Instruction::Env(_)
        | Instruction::Expose(_)
        | Instruction::Healthcheck(_)
        | Instruction::Label(_)
        | Instruction::Maintainer(_)
        | Instruction::Shell(_)
        | Instruction::StopSignal(_)
        | Instruction::User(_)
        | Instruction::Volume(_)
        | Instruction::Workdir(_) => {}
    }
}

/// The stages that `target` needs, itself included, in the file's order. `bases` are the expanded
/// words of every FROM.
pub fn needed<E>(
    file: &Dockerfile,
    bases: &[Result<String, E>],
    target: StageIndex,
) -> Vec<StageIndex> {
    let mut wanted = BTreeSet::new();
    let mut left = vec![target];
    while let Some(index) = left.pop() {
        if wanted.insert(index) {
            left.extend(bases[index].as_ref().ok().and_then(|name| base(file, index, name)));
            left.extend(sources(file, index));
        }
    }
    wanted.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, wanted: Option<&str>, want: &[usize]) {
        let file = parse::parse(source.as_bytes()).unwrap();
        let bases: Vec<Result<String, ()>> =
            file.stages.iter().map(|stage| Ok(stage.base.clone())).collect();
        let target = target(&file, wanted).unwrap();
        assert_eq!(needed(&file, &bases, target), want);
    }

    #[test]
    fn stages_that_nobody_asks_for_are_left_out() {
        let source = "FROM a AS one\nFROM b AS two\nFROM one AS three\nRUN x\nFROM c\nCOPY --from=three /a /b\n";
        check(source, None, &[0, 2, 3]);
        check(source, Some("TWO"), &[1]);
        check(source, Some("0"), &[0]);
        check("FROM a\nFROM b\nCOPY --from=0 a b\n", None, &[0, 1]);
        check("FROM a AS x\nFROM b\nRUN --mount=from=x,target=/y z\n", None, &[0, 1]);
        check("FROM a AS x\nFROM x AS x\nFROM x\n", None, &[0, 1, 2]);
    }

    #[test]
    fn a_target_that_is_not_there_is_named() {
        let file = parse::parse(b"FROM a\n").unwrap();
        assert_eq!(
            target(&file, Some("x")).unwrap_err().to_string(),
            "failed to reach build target x in Dockerfile"
        );
    }
}
