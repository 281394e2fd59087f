//! The Dockerfile parser: logical lines to typed instructions.
//!
//! One pass, no recursion but one level for ONBUILD. Everything a line can be wrong about without
//! knowing variables, the context or an image is found here, so that a build with a bad last line
//! fails before its first step.
//!
//! Elsewhere: lines, continuations and heredoc bodies in [`crate::lines`]; `--flags` in
//! [`crate::flags`]; variables in [`crate::lex`].
//! Source of the words: moby buildkit `frontend/dockerfile/{parser,instructions}`, as users see them.

use crate::flags::{self, Flags};
use crate::instruction::{
    Argument, Command, Dockerfile, GlobalLine, Health, Instruction, Pair, Run, RunNetwork,
    Security, Span, Stage, Step, Transfer,
};
use crate::lines::{self, Line};

/// A Dockerfile that cannot be read, with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", match problem.phase() {
    Phase::Instructions => format!("dockerfile parse error on line {}: ", span.start),
    Phase::Lines | Phase::Stages => String::new(),
})]
pub struct ParseError {
    pub span: Span,
    pub problem: Problem,
}

/// Which reader of Docker's finds a problem; they word it differently, and only one names the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Lines, directives, and the words of ENV, LABEL and JSON forms.
    Lines,
    Instructions,
    Stages,
}

impl Problem {
    pub fn phase(&self) -> Phase {
        match self {
            Self::SourceLength
            | Self::Empty
            | Self::DirectiveTwice(_)
            | Self::Escape(_)
            | Self::HeredocEnd
            | Self::TwoArguments(_)
            | Self::NoEquals(_)
            | Self::NotStrings => Phase::Lines,
            Self::NoStage => Phase::Stages,
            Self::Unknown { .. }
            | Self::ExactlyOne(_)
            | Self::AtLeastOne(_)
            | Self::NoDestination(_)
            | Self::BlankName(_)
            | Self::FromArguments
            | Self::StageName(_)
            | Self::NotJson(_)
            | Self::EmptyVolume
            | Self::OnbuildChain
            | Self::OnbuildTrigger(_)
            | Self::HealthArguments
            | Self::HealthNone
            | Self::HealthType(_)
            | Self::HealthCommand
            | Self::Flag(_) => Phase::Instructions,
        }
    }
}

impl ParseError {
    pub fn at(span: Span, problem: Problem) -> Self {
        Self { span, problem }
    }
}

/// What is wrong with a line. The words are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the file is longer than {} bytes", lines::SOURCE_BYTES_MAX)]
    SourceLength,
    #[error("file with no instructions")]
    Empty,
    #[error("only one {0} parser directive can be used")]
    DirectiveTwice(String),
    #[error("invalid escape token '{0}' does not match ` or \\")]
    Escape(String),
    #[error("unterminated heredoc")]
    HeredocEnd,
    #[error("unknown instruction: {word}{}", hint.map(|hint| format!(" (did you mean {hint}?)")).unwrap_or_default())]
    Unknown { word: String, hint: Option<&'static str> },
    #[error("no build stage in current context")]
    NoStage,
    #[error("{0} requires exactly one argument")]
    ExactlyOne(&'static str),
    #[error("{0} requires at least one argument")]
    AtLeastOne(&'static str),
    #[error(
        "{0} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination(&'static str),
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    #[error("Syntax error - can't find = in {0:?}. Must be of the form: name=value")]
    NoEquals(String),
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    #[error(
        "invalid name for build stage: {0:?}, name can't start with a number or contain symbols"
    )]
    StageName(String),
    #[error("{0} requires the arguments to be in JSON form")]
    NotJson(&'static str),
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStrings,
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnbuildChain,
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnbuildTrigger(String),
    #[error("HEALTHCHECK requires at least one argument")]
    HealthArguments,
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthNone,
    #[error("Unknown type {0:?} in HEALTHCHECK (try CMD)")]
    HealthType(String),
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthCommand,
    #[error("{0}")]
    Flag(#[from] flags::FlagError),
}

/// Names of all instructions; the order is that of the suggestions.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Reads a whole Dockerfile.
///
/// # Errors
/// The first line that is wrong.
pub fn parse(source: &[u8]) -> Result<Dockerfile, ParseError> {
    let (directives, lines) = lines::split(source)?;
    if lines.is_empty() {
        let last = source.iter().filter(|&&byte| byte == b'\n').count().max(1);
        return Err(ParseError::at(Span::line(last), Problem::Empty));
    }
    let mut file = Dockerfile {
        directives,
        globals: Vec::new(),
        stages: Vec::new(),
        empty_continuations: Vec::new(),
    };
    for line in lines {
        let span = line.span;
        if line.empty_continuation {
            file.empty_continuations.push(source_text(&line));
        }
        add(&mut file, line).map_err(|problem| ParseError::at(span, problem))?;
    }
    match file.stages.is_empty() {
        true => Err(ParseError::at(Span::line(1), Problem::NoStage)),
        false => Ok(file),
    }
}

/// Reads one instruction, as an image's ONBUILD triggers are kept.
///
/// # Errors
/// As [`parse`], and a FROM.
pub fn parse_trigger(text: &str) -> Result<Step, ParseError> {
    let (_, lines) = lines::split(text.as_bytes())?;
    let span = Span::line(1);
    let Some(line) = lines.into_iter().next() else {
        return Err(ParseError::at(span, Problem::Empty));
    };
    let text = line.text.clone();
    let word = Words::of(&line, '\\').map_err(|problem| ParseError::at(span, problem))?;
    let instruction = instruction(word).map_err(|problem| ParseError::at(span, problem))?;
    Ok(Step { span, text, instruction })
}

/// Reads instructions that stand alone, as `--change` of commit and import has them.
///
/// # Errors
/// The first line that is wrong; `allowed` refuses a keyword (as written) before any line is read
/// further, as Docker does.
pub fn parse_changes<E: From<ParseError>>(
    text: &str,
    allowed: impl Fn(&str) -> Result<(), E>,
) -> Result<Vec<Step>, E> {
    let (directives, lines) = lines::split(text.as_bytes())?;
    for line in &lines {
        allowed(line.text.split_whitespace().next().unwrap_or_default())?;
    }
    let step = |line: &Line| {
        let at = |problem| ParseError::at(line.span, problem);
        let words = Words::of(line, directives.escape).map_err(at)?;
        let instruction = instruction(words).map_err(at)?;
        Ok(Step { span: line.span, text: source_text(line), instruction })
    };
    lines.iter().map(step).collect()
}

fn add(file: &mut Dockerfile, line: Line) -> Result<(), Problem> {
    let words = Words::of(&line, file.directives.escape)?;
    if words.keyword == "FROM" {
        let stage = from(words, &line)?;
        file.stages.push(stage);
        return Ok(());
    }
    let is_argument = words.keyword == "ARG";
    let parsed = instruction(words)?;
    match (file.stages.last_mut(), parsed) {
        (Some(stage), instruction) => {
            stage.steps.push(Step { span: line.span, text: source_text(&line), instruction });
        }
        (None, Instruction::Arg(arguments)) if is_argument => {
            file.globals.push(GlobalLine { text: source_text(&line), arguments });
        }
        (None, _) => return Err(Problem::NoStage),
    }
    Ok(())
}

fn source_text(line: &Line) -> String {
    line.text.trim().to_owned()
}

/// A line taken apart: keyword, flags, the rest.
struct Words<'a> {
    keyword: &'static str,
    flags: Flags,
    rest: String,
    escape: char,
    line: &'a Line,
}

impl<'a> Words<'a> {
    fn of(line: &'a Line, escape: char) -> Result<Self, Problem> {
        let text = line.text.trim();
        let (word, rest) = match text.split_once(char::is_whitespace) {
            Some((word, rest)) => (word, rest.trim()),
            None => (text, ""),
        };
        let upper = word.to_uppercase();
        let Some(keyword) = KEYWORDS.into_iter().find(|keyword| *keyword == upper) else {
            return Err(Problem::Unknown { hint: suggestion(&upper), word: upper });
        };
        let (flags, rest) = Flags::take(rest, escape);
        Ok(Self { keyword, flags, rest, escape, line })
    }

    fn fields(&self) -> Vec<String> {
        self.rest.split_whitespace().map(str::to_owned).collect()
    }

    fn one(&self) -> Result<String, Problem> {
        match self.rest.is_empty() {
            true => Err(Problem::ExactlyOne(self.keyword)),
            false => Ok(self.rest.clone()),
        }
    }

    fn command(&self) -> Result<Command, Problem> {
        Ok(match json(&self.rest)? {
            Some(words) => Command::Exec(words),
            None => Command::Shell(self.rest.clone()),
        })
    }

    fn list(&self) -> Result<Vec<String>, Problem> {
        Ok(json(&self.rest)?.unwrap_or_else(|| self.fields()))
    }
}

/// The keyword that `word` was probably meant to be: one edit away, two in longer words.
fn suggestion(word: &str) -> Option<&'static str> {
    KEYWORDS
        .into_iter()
        .map(|keyword| (edits(word, keyword), keyword))
        .filter(|(distance, keyword)| *distance <= if keyword.len() > 4 { 2 } else { 1 })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, keyword)| keyword)
}

fn edits(from: &str, to: &str) -> usize {
    if from.len() > 2 * to.len() + 2 {
        return usize::MAX;
    }
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

fn json(text: &str) -> Result<Option<Vec<String>>, Problem> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) => Ok(text),
            _ => Err(Problem::NotStrings),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

fn from(mut words: Words, line: &Line) -> Result<Stage, Problem> {
    let platform = words.flags.text("platform")?;
    words.flags.none_left()?;
    let fields = words.fields();
    let (base, name) = match fields.as_slice() {
        [base] => (base, None),
        [base, separator, name] if separator.eq_ignore_ascii_case("AS") => {
            (base, Some(stage_name(name)?))
        }
        _ => return Err(Problem::FromArguments),
    };
    Ok(Stage {
        span: line.span,
        text: source_text(line),
        base: base.clone(),
        platform,
        name,
        steps: Vec::new(),
    })
}

fn stage_name(name: &str) -> Result<String, Problem> {
    let lower = name.to_ascii_lowercase();
    let fits = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    match fits {
        true => Ok(lower),
        false => Err(Problem::StageName(name.to_owned())),
    }
}

fn instruction(mut words: Words) -> Result<Instruction, Problem> {
    let keyword = words.keyword;
    let parsed = match keyword {
        "ADD" => Instruction::Add(transfer(&mut words)?),
        "COPY" => Instruction::Copy(transfer(&mut words)?),
        "ARG" => Instruction::Arg(arguments(&words)?),
        "CMD" => Instruction::Cmd(words.command()?),
        "ENTRYPOINT" if words.rest.is_empty() => Instruction::Entrypoint(Command::Exec(Vec::new())),
        "ENTRYPOINT" => Instruction::Entrypoint(words.command()?),
        "ENV" => Instruction::Env(pairs(&words)?),
        "LABEL" => Instruction::Label(pairs(&words)?),
        "EXPOSE" => match words.rest.is_empty() {
            true => return Err(Problem::AtLeastOne(keyword)),
            false => Instruction::Expose(words.fields()),
        },
        "HEALTHCHECK" => Instruction::Healthcheck(health(&mut words)?),
        "MAINTAINER" => Instruction::Maintainer(words.one()?),
        "ONBUILD" => Instruction::Onbuild(onbuild(&words)?),
        "RUN" => Instruction::Run(run(&mut words)?),
        "SHELL" => match json(&words.rest)? {
            None => return Err(Problem::NotJson(keyword)),
            Some(shell) if shell.is_empty() => return Err(Problem::AtLeastOne(keyword)),
            Some(shell) => Instruction::Shell(shell),
        },
        "STOPSIGNAL" => Instruction::StopSignal(words.one()?),
        "USER" => Instruction::User(words.one()?),
        "VOLUME" => volume(&words)?,
        "WORKDIR" => Instruction::Workdir(words.one()?),
        _ => return Err(Problem::OnbuildTrigger(keyword.to_owned())),
    };
    words.flags.none_left()?;
    Ok(parsed)
}

fn volume(words: &Words) -> Result<Instruction, Problem> {
    let list = words.list()?;
    if list.is_empty() {
        return Err(Problem::AtLeastOne(words.keyword));
    }
    match list.iter().any(|volume| volume.trim().is_empty()) {
        true => Err(Problem::EmptyVolume),
        false => Ok(Instruction::Volume(list)),
    }
}

fn arguments(words: &Words) -> Result<Vec<Argument>, Problem> {
    let list = lines::raw_words(&words.rest, words.escape);
    if list.is_empty() {
        return Err(Problem::AtLeastOne(words.keyword));
    }
    list.iter()
        .map(|word| {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (word.as_str(), None),
            };
            match name.is_empty() {
                true => Err(Problem::BlankName(words.keyword)),
                false => Ok(Argument { name: name.to_owned(), default }),
            }
        })
        .collect()
}

fn pairs(words: &Words) -> Result<Vec<Pair>, Problem> {
    let list = lines::raw_words(&words.rest, words.escape);
    let Some(first) = list.first() else { return Err(Problem::AtLeastOne(words.keyword)) };
    if first.starts_with('=') {
        return Err(Problem::BlankName(words.keyword));
    }
    if !first.contains('=') {
        // The old form: everything behind the first blank is the value.
        return match words.rest.split_once(char::is_whitespace) {
            Some((key, value)) => {
                Ok(vec![Pair { key: key.to_owned(), value: value.trim_start().to_owned() }])
            }
            None => Err(Problem::TwoArguments(words.keyword)),
        };
    }
    list.into_iter()
        .map(|word| match word.split_once('=') {
            None => Err(Problem::NoEquals(word)),
            Some(("", _)) => Err(Problem::BlankName(words.keyword)),
            Some((key, value)) => Ok(Pair { key: key.to_owned(), value: value.to_owned() }),
        })
        .collect()
}

fn transfer(words: &mut Words) -> Result<Transfer, Problem> {
    let flags = &mut words.flags;
    let mut transfer = Transfer {
        chown: flags.text("chown")?,
        chmod: flags.text("chmod")?,
        link: flags.truth("link")?.unwrap_or(false),
        exclude: flags.texts("exclude")?,
        ..Transfer::default()
    };
    if words.keyword == "COPY" {
        transfer.from = flags.text("from")?;
        transfer.parents = flags.truth("parents")?.unwrap_or(false);
    } else {
        transfer.checksum = flags.text("checksum")?;
        transfer.keep_git_dir = flags.truth("keep-git-dir")?.unwrap_or(false);
        transfer.unpack = flags.truth("unpack")?;
    }
    let mut list = words.list()?;
    if list.len() < 2 {
        return Err(Problem::NoDestination(words.keyword));
    }
    transfer.destination = list.pop().unwrap_or_default();
    for word in list {
        let heredoc = lines::heredoc_word(&word).and_then(|found| {
            words.line.heredocs.iter().find(|heredoc| heredoc.name == found.name)
        });
        match heredoc {
            Some(heredoc) => transfer.inline.push(heredoc.clone()),
            None => transfer.sources.push(word),
        }
    }
    Ok(transfer)
}

fn run(words: &mut Words) -> Result<Run, Problem> {
    let mounts = words.flags.mounts()?;
    let network = match words.flags.text("network")?.as_deref() {
        None | Some("default") => RunNetwork::Default,
        Some("none") => RunNetwork::None,
        Some("host") => RunNetwork::Host,
        Some(other) => {
            return Err(
                flags::FlagError::Value { flag: "network".into(), value: other.into() }.into()
            );
        }
    };
    let security = match words.flags.text("security")?.as_deref() {
        None | Some("sandbox") => Security::Sandbox,
        Some("insecure") => Security::Insecure,
        Some(other) => {
            return Err(
                flags::FlagError::Value { flag: "security".into(), value: other.into() }.into()
            );
        }
    };
    if words.rest.is_empty() {
        return Err(Problem::AtLeastOne(words.keyword));
    }
    Ok(Run {
        command: words.command()?,
        heredocs: words.line.heredocs.clone(),
        mounts,
        network,
        security,
    })
}

fn onbuild(words: &Words) -> Result<String, Problem> {
    if words.rest.is_empty() {
        return Err(Problem::AtLeastOne(words.keyword));
    }
    let trigger = words.rest.split_whitespace().next().unwrap_or_default().to_uppercase();
    match trigger.as_str() {
        "ONBUILD" => return Err(Problem::OnbuildChain),
        "MAINTAINER" | "FROM" => return Err(Problem::OnbuildTrigger(trigger)),
        _ => {}
    }
    // Checked now, though it runs only in a later build.
    let inner = Line { text: words.rest.clone(), ..words.line.clone() };
    instruction(Words::of(&inner, words.escape)?)?;
    let mut text = words.rest.clone();
    for heredoc in &words.line.heredocs {
        text.push_str(&format!("\n{}{}", heredoc.body, heredoc.name));
    }
    Ok(text)
}

fn health(words: &mut Words) -> Result<Health, Problem> {
    let flags = &mut words.flags;
    let interval = flags.duration("interval")?;
    let timeout = flags.duration("timeout")?;
    let start_period = flags.duration("start-period")?;
    let start_interval = flags.duration("start-interval")?;
    let retries = flags.count("retries")?;
    let (kind, rest) = match words.rest.split_once(char::is_whitespace) {
        Some((kind, rest)) => (kind, rest.trim()),
        None => (words.rest.as_str(), ""),
    };
    match kind.to_ascii_uppercase().as_str() {
        "" => Err(Problem::HealthArguments),
        "NONE" if rest.is_empty() => Ok(Health::None),
        "NONE" => Err(Problem::HealthNone),
        "CMD" if rest.is_empty() => Err(Problem::HealthCommand),
        "CMD" => {
            let command = match json(rest)? {
                Some(list) if list.is_empty() => return Err(Problem::HealthCommand),
                Some(list) => Command::Exec(list),
                None => Command::Shell(rest.to_owned()),
            };
            Ok(Health::Probe { command, interval, timeout, start_period, start_interval, retries })
        }
        other => Err(Problem::HealthType(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    /// Shows the stages and steps, or the error.
    #[track_caller]
    fn check(source: &str, want: Expect) {
        let text = match parse(source.as_bytes()) {
            Err(error) => error.to_string(),
            Ok(file) => {
                let mut lines: Vec<String> =
                    file.global_arguments().map(|global| format!("global {global:?}")).collect();
                for stage in file.stages {
                    lines.push(format!(
                        "FROM {} as {:?} on {:?}",
                        stage.base, stage.name, stage.platform
                    ));
                    lines.extend(
                        stage
                            .steps
                            .iter()
                            .map(|step| format!("{}: {:?}", step.span.start, step.instruction)),
                    );
                }
                lines.join("\n")
            }
        };
        want.assert_eq(&text);
    }

    #[track_caller]
    fn errors(cases: &[(&str, &str)]) {
        for (line, want) in cases {
            let source = format!("FROM a\n{line}\n");
            let error = parse(source.as_bytes()).unwrap_err();
            assert_eq!((error.span.start, error.problem.to_string()), (2, (*want).to_owned()));
        }
    }

    #[test]
    fn stages_and_their_names_are_read() {
        check(
            "ARG V=1\nFROM --platform=$P a:$V AS Base\nfrom base\nCMD echo hi\nENTRYPOINT [\"x\", \"y\"]",
            expect![[r#"
                global Argument { name: "V", default: Some("1") }
                FROM a:$V as Some("base") on Some("$P")
                FROM base as None on None
                4: Cmd(Shell("echo hi"))
                5: Entrypoint(Exec(["x", "y"]))"#]],
        );
    }

    #[test]
    fn pairs_have_an_old_and_a_new_form() {
        check(
            "FROM a\nENV NAME World and more\nLABEL a=1 \"b c\"=\"d e\" f=g\\ h\nARG x y=\"1 2\"",
            expect![[r#"
                FROM a as None on None
                2: Env([Pair { key: "NAME", value: "World and more" }])
                3: Label([Pair { key: "a", value: "1" }, Pair { key: "\"b c\"", value: "\"d e\"" }, Pair { key: "f", value: "g\\ h" }])
                4: Arg([Argument { name: "x", default: None }, Argument { name: "y", default: Some("\"1 2\"") }])"#]],
        );
    }

    #[test]
    fn what_is_no_json_is_a_shell_line() {
        check(
            "FROM a\nRUN ['x']\nRUN [ -f x ]\nCMD []\nVOLUME [\"/a b\"]\nVOLUME /a /b",
            expect![[r#"
                FROM a as None on None
                2: Run(Run { command: Shell("['x']"), heredocs: [], mounts: [], network: Default, security: Sandbox })
                3: Run(Run { command: Shell("[ -f x ]"), heredocs: [], mounts: [], network: Default, security: Sandbox })
                4: Cmd(Exec([]))
                5: Volume(["/a b"])
                6: Volume(["/a", "/b"])"#]],
        );
    }

    #[test]
    fn an_onbuild_trigger_is_checked_at_once() {
        check(
            "FROM a\nONBUILD RUN make\nONBUILD COPY . /src",
            expect![[r#"
                FROM a as None on None
                2: Onbuild("RUN make")
                3: Onbuild("COPY . /src")"#]],
        );
        errors(&[
            ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            (
                "ONBUILD COPY x",
                "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
            ),
        ]);
    }

    #[test]
    fn a_wrong_line_is_named_in_dockers_words() {
        errors(&[
            ("FOO bar", "unknown instruction: FOO"),
            ("RUNN x", "unknown instruction: RUNN (did you mean RUN?)"),
            ("RUN", "RUN requires at least one argument"),
            (
                "COPY a",
                "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
            ),
            ("ENV a", "ENV must have two arguments"),
            ("ENV a=1 b", "Syntax error - can't find = in \"b\". Must be of the form: name=value"),
            ("ENV =1", "ENV names can not be blank"),
            ("LABEL", "LABEL requires at least one argument"),
            ("FROM a b", "FROM requires either one or three arguments"),
            (
                "FROM a AS 1x",
                "invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
            ),
            ("SHELL bash", "SHELL requires the arguments to be in JSON form"),
            (
                "CMD [\"a\", 1]",
                "when using JSON array syntax, arrays must be comprised of strings only",
            ),
            ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
            ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
            ("HEALTHCHECK RUN x", "Unknown type \"RUN\" in HEALTHCHECK (try CMD)"),
            ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
            ("WORKDIR", "WORKDIR requires exactly one argument"),
            ("COPY --form=x a b", "unknown flag: --form (did you mean from?)"),
            ("COPY --from a b", "missing a value on flag: --from"),
        ]);
    }

    #[test]
    fn something_must_be_built_from_something() {
        check("RUN x\n", expect!["no build stage in current context"]);
        check("ARG a\n", expect!["no build stage in current context"]);
        check("\n# x\n", expect!["file with no instructions"]);
        check("FOO x\n", expect!["dockerfile parse error on line 1: unknown instruction: FOO"]);
    }

    #[test]
    fn copies_know_their_flags_and_heredocs() {
        let file = parse(b"FROM a\nCOPY --from=x --chown=1:2 --chmod=755 --exclude=*.md --exclude=t <<A \"b\" /d/\nhi\nA\n").unwrap();
        let Instruction::Copy(copy) = &file.stages[0].steps[0].instruction else { panic!() };
        assert_eq!(copy.from.as_deref(), Some("x"));
        assert_eq!(copy.exclude, ["*.md", "t"]);
        assert_eq!(copy.inline[0].body, "hi\n");
        assert_eq!(copy.sources, ["\"b\""]);
        assert_eq!(copy.destination, "/d/");
    }

    proptest! {
        #[test]
        fn no_file_panics(source in "(FROM a\n)?((RUN|COPY|ENV|HEALTHCHECK|ONBUILD|LABEL|ARG|FROM|VOLUME) [-a-z=,<\\[\\]\"'\\\\ $\n]{0,30}\n){0,4}") {
            let _ = parse(source.as_bytes());
        }

        #[test]
        fn no_bytes_panic(source in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&source);
        }
    }
}
