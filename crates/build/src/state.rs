//! How an image's configuration grows, instruction by instruction.
//!
//! [`State`] is the image as it would be if the build ended here, with the variables of the place.
//! Instructions that touch no file are applied here whole; the others leave their layer and their
//! line of history through [`State::add`].
//!
//! The lines of history are worded as Docker's builders word them, because tools read them.
//! Source: docs.docker.com "Dockerfile reference"; moby `builder/dockerfile/dispatchers.go` (when
//! ENTRYPOINT resets CMD), buildkit `frontend/dockerfile/dockerfile2llb` (history).

use std::collections::BTreeMap;

use spec::image::{Empty, Healthcheck, History, ImageConfig};
use spec::units::format_duration;
use spec::{DiffId, ImageId};

use crate::instruction::{Argument, Command, Health, Instruction, Pair};
use crate::lex::{self, ExpandError, Variables};
use crate::solve::Dialect;

/// Build arguments that work without an ARG, and leave no trace in history and cache keys.
pub const PROXY_ARGUMENTS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What a shell finds programs in when the image does not say.
pub const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const COMMENT: &str = "buildkit.dockerfile.v0";

/// An instruction whose words make no sense once expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("{0}")]
    Expand(#[from] ExpandError),
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    #[error("invalid proto: {0}")]
    Protocol(String),
    #[error("invalid containerPort: {0}")]
    Port(String),
    #[error("invalid signal: {0}")]
    Signal(String),
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error("cannot normalize nothing")]
    EmptyWorkdir,
}

/// The image so far.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub image: ImageConfig,
    pub base: Option<ImageId>,
    /// Declared arguments in order; `None` has no value.
    pub arguments: Vec<(String, Option<String>)>,
    /// A CMD of this stage survives its ENTRYPOINT.
    pub has_own_cmd: bool,
    pub dialect: Dialect,
    pub escape: char,
}

/// Variables at a place: the image's environment first, then declared arguments.
pub struct Scope<'a> {
    state: &'a State,
}

impl Variables for Scope<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        lex::variable(&self.state.image.config.env, name).or_else(|| self.state.argument(name))
    }
}

impl State {
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.arguments.iter().rev().find(|(own, _)| own == name)?.1.as_deref()
    }

    pub fn expand(&self, word: &str) -> Result<String, ExpandError> {
        lex::expand(word, self.escape, &Scope { state: self })
    }

    pub fn expand_body(&self, body: &str) -> Result<String, ExpandError> {
        lex::expand_body(body, self.escape, &Scope { state: self })
    }

    pub fn chain(&self) -> &[DiffId] {
        &self.image.rootfs.diff_ids
    }

    /// The words that run a shell line.
    pub fn shell(&self) -> Vec<String> {
        match self.image.config.shell.is_empty() {
            true => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            false => self.image.config.shell.clone(),
        }
    }

    pub fn argv(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => {
                let mut words = self.shell();
                if !line.is_empty() {
                    words.push(line.clone());
                }
                words
            }
        }
    }

    /// `path` from the working directory, by text.
    pub fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            return spec::ignore::clean(path);
        }
        spec::ignore::clean(&format!("/{}/{path}", self.image.config.working_dir))
    }

    /// Enters a directory: the one that the image says, and where it is. The classic builder keeps an
    /// absolute path as it is written.
    ///
    /// Source: moby `builder/dockerfile/dispatchers_unix.go`, `normalizeWorkdir`.
    ///
    /// # Errors
    /// A word that cannot be expanded.
    pub fn enter(&mut self, word: &str) -> Result<String, StateError> {
        let word = self.expand(word)?;
        if word.is_empty() && self.dialect == Dialect::Classic {
            return Err(StateError::EmptyWorkdir);
        }
        let path = self.absolute(&word);
        let is_kept = self.dialect == Dialect::Classic && word.starts_with('/');
        self.image.config.working_dir = if is_kept { word } else { path.clone() };
        Ok(path)
    }

    /// Declared arguments that have a value and that the environment does not hide: `NAME=value`.
    pub fn argument_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for (index, (name, value)) in self.arguments.iter().enumerate() {
            let is_last = !self.arguments[index + 1..].iter().any(|(later, _)| later == name);
            let is_hidden = lex::variable(&self.image.config.env, name).is_some();
            if let (Some(value), true, false) = (value, is_last, is_hidden) {
                lines.push(format!("{name}={value}"));
            }
        }
        lines
    }

    /// Adds a line of history, with the layer that it made.
    pub fn add(&mut self, created_by: &str, layer: Option<DiffId>, created: &str) {
        self.image.history.push(History {
            created: Some(created.to_owned()),
            created_by: Some(created_by.to_owned()),
            author: None,
            comment: (self.dialect == Dialect::BuildKit).then(|| COMMENT.to_owned()),
            empty_layer: layer.is_none(),
        });
        self.image.rootfs.diff_ids.extend(layer);
        self.image.created = Some(created.to_owned());
    }

    /// Declares arguments. `given` are the user's; `global` those before the first FROM.
    ///
    /// # Errors
    /// A default that cannot be expanded.
    pub fn declare(
        &mut self,
        arguments: &[Argument],
        given: &BTreeMap<String, Option<String>>,
        global: &dyn Fn(&str) -> Option<String>,
    ) -> Result<String, StateError> {
        let mut words = Vec::new();
        for argument in arguments {
            let name = self.expand(&argument.name)?;
            let default = argument.default.as_deref().map(|word| self.expand(word)).transpose()?;
            let value = match given.get(&name) {
                Some(Some(value)) => Some(value.clone()),
                Some(None) | None => default.clone().or_else(|| global(&name)),
            };
            // The classic builder does not tell what the user gave.
            let told = match self.dialect {
                Dialect::Classic => &default,
                Dialect::BuildKit => &value,
            };
            words.push(match told {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            self.arguments.push((name, value));
        }
        Ok(self.line(&format!("ARG {}", words.join(" "))))
    }

    /// A line of history of a step that runs nothing.
    pub fn line(&self, text: &str) -> String {
        match self.dialect {
            Dialect::BuildKit => text.to_owned(),
            Dialect::Classic => format!("{} #(nop)  {text}", self.shell().join(" ")),
        }
    }

    /// A line of history of a step that writes files.
    pub fn file_line(&self, text: &str) -> String {
        match self.dialect {
            Dialect::BuildKit => text.to_owned(),
            Dialect::Classic => format!("{} #(nop) {text}", self.shell().join(" ")),
        }
    }

    /// What every base gets, and what none hands on.
    pub fn begin(&mut self) {
        let env = &mut self.image.config.env;
        if lex::variable(env, "PATH").is_none() {
            env.push(format!("PATH={PATH_DEFAULT}"));
        }
        self.image.comment = None;
        if self.dialect == Dialect::Classic {
            self.image.author = None;
        }
    }

    /// Applies an instruction that touches no file; its line of history. `None` for those that do.
    ///
    /// # Errors
    /// Words that cannot be expanded or make no sense.
    pub fn configure(&mut self, instruction: &Instruction) -> Result<Option<String>, StateError> {
        let line = match instruction {
            Instruction::Env(pairs) => self.environment(pairs)?,
            Instruction::Label(pairs) => self.label(pairs)?,
            Instruction::Cmd(command) => self.command(command),
            Instruction::Entrypoint(command) => self.entrypoint(command),
            Instruction::Expose(words) => self.expose(words)?,
            Instruction::Healthcheck(health) => self.healthcheck(health),
            Instruction::Maintainer(name) => {
                self.image.author = Some(name.clone());
                format!("MAINTAINER {name}")
            }
            Instruction::Onbuild(text) => {
                self.image.config.on_build.push(text.clone());
                format!("ONBUILD {text}")
            }
            Instruction::Shell(words) => {
                self.image.config.shell = words.clone();
                format!("SHELL [{}]", words.join(" "))
            }
            Instruction::StopSignal(word) => self.stop_signal(word)?,
            Instruction::User(word) => {
                self.image.config.user = self.expand(word)?;
                format!("USER {}", self.image.config.user)
            }
            Instruction::Volume(words) => self.volume(words)?,
            Instruction::Add(_)
            | Instruction::Arg(_)
            | Instruction::Copy(_)
            | Instruction::Run(_)
            | Instruction::Workdir(_) => return Ok(None),
        };
        Ok(Some(self.line(&line)))
    }

    fn environment(&mut self, pairs: &[Pair]) -> Result<String, StateError> {
        // All values are those before the instruction, so nothing is stored until all are known.
        let mut expanded = Vec::new();
        for pair in pairs {
            let key = self.expand(&pair.key)?;
            if key.is_empty() {
                return Err(StateError::BlankName("ENV"));
            }
            expanded.push((key, self.expand(&pair.value)?));
        }
        let mut line = "ENV".to_owned();
        for (key, value) in expanded {
            line.push_str(&format!(" {key}={value}"));
            set_variable(&mut self.image.config.env, &key, &value);
        }
        Ok(line)
    }

    fn label(&mut self, pairs: &[Pair]) -> Result<String, StateError> {
        let mut line = "LABEL".to_owned();
        for pair in pairs {
            let (key, value) = (self.expand(&pair.key)?, self.expand(&pair.value)?);
            if key.is_empty() {
                return Err(StateError::BlankName("LABEL"));
            }
            line.push_str(&format!(" {key}={value}"));
            self.image.config.labels.insert(key, value);
        }
        Ok(line)
    }

    fn command(&mut self, command: &Command) -> String {
        let argv = self.argv(command);
        let line = format!("CMD {}", quoted(&argv));
        self.image.config.cmd = self.words(argv);
        self.has_own_cmd = true;
        line
    }

    /// `CMD []` is an empty list in the classic builder's images; BuildKit's leave it out.
    ///
    /// Source: moby `dispatchCmd`; buildkit's image document, whose lists are `omitempty`.
    fn words(&self, argv: Vec<String>) -> Option<Vec<String>> {
        (self.dialect == Dialect::Classic || !argv.is_empty()).then_some(argv)
    }

    fn entrypoint(&mut self, command: &Command) -> String {
        let argv = self.argv(command);
        let line = format!("ENTRYPOINT {}", quoted(&argv));
        self.image.config.entrypoint = self.words(argv);
        if !self.has_own_cmd {
            self.image.config.cmd = None;
        }
        line
    }

    fn expose(&mut self, words: &[String]) -> Result<String, StateError> {
        let mut ports = BTreeMap::new();
        let mut expanded = Vec::new();
        for word in words {
            for word in lex::expand_words(word, self.escape, &Scope { state: self })? {
                ports.extend(self::ports(&word)?.into_iter().map(|port| (port, Empty {})));
                expanded.push(word);
            }
        }
        let shown: Vec<String> = ports.keys().map(|port| format!("{port}:{{}}")).collect();
        self.image.config.exposed_ports.extend(ports);
        expanded.sort();
        Ok(match self.dialect {
            Dialect::Classic => format!("EXPOSE {}", expanded.join(" ")),
            Dialect::BuildKit => format!("EXPOSE map[{}]", shown.join(" ")),
        })
    }

    fn healthcheck(&mut self, health: &Health) -> String {
        let check = match health {
            Health::None => Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() },
            Health::Probe { command, interval, timeout, start_period, start_interval, retries } => {
                let test = match command {
                    Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
                    Command::Exec(words) => {
                        let mut test = vec!["CMD".to_owned()];
                        test.extend(words.iter().cloned());
                        test
                    }
                };
                Healthcheck {
                    test,
                    interval: *interval,
                    timeout: *timeout,
                    start_period: *start_period,
                    start_interval: *start_interval,
                    retries: *retries,
                }
            }
        };
        // As Go prints the struct with %q; the last field is a number, hence a rune.
        let durations = [check.interval, check.timeout, check.start_period, check.start_interval];
        let durations: Vec<String> =
            durations.iter().map(|nanos| format!("{:?}", format_duration(*nanos))).collect();
        let retries = u8::try_from(check.retries).unwrap_or(u8::MAX);
        let line = format!(
            "HEALTHCHECK &{{{} {} '\\x{retries:02x}'}}",
            quoted(&check.test),
            durations.join(" ")
        );
        self.image.config.healthcheck = Some(check);
        line
    }

    fn stop_signal(&mut self, word: &str) -> Result<String, StateError> {
        let signal = self.expand(word)?;
        // Any number but zero: what a container makes of it is its own matter.
        let is_number = signal.parse::<i32>().is_ok_and(|number| number != 0);
        if !is_number && spec::signal::parse(&signal).is_none() {
            return Err(StateError::Signal(signal));
        }
        self.image.config.stop_signal = signal.clone();
        Ok(format!("STOPSIGNAL {signal}"))
    }

    fn volume(&mut self, words: &[String]) -> Result<String, StateError> {
        let mut shown = Vec::new();
        for word in words {
            match self.expand(word)? {
                path if path.is_empty() => return Err(StateError::EmptyVolume),
                path => shown.push(path),
            }
        }
        let volumes = shown.iter().map(|path| (path.clone(), Empty {}));
        self.image.config.volumes.extend(volumes);
        Ok(format!("VOLUME [{}]", shown.join(" ")))
    }
}

/// Sets `NAME=value` where the name is, or at the end.
pub fn set_variable(env: &mut Vec<String>, name: &str, value: &str) {
    let line = format!("{name}={value}");
    match env.iter_mut().find(|own| own.split('=').next() == Some(name)) {
        Some(own) => *own = line,
        None => env.push(line),
    }
}

/// `80`, `80/udp`, `8000-8003/tcp`, and `8080:80`, whose first half says nothing in an image.
fn ports(word: &str) -> Result<Vec<String>, StateError> {
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(StateError::Protocol(protocol));
    }
    let range = range.rsplit(':').next().unwrap_or(range);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().ok();
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => {
            Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
        }
        _ => Err(StateError::Port(range.to_owned())),
    }
}

/// A list as Go's `%q` prints it.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use expect_test::{Expect, expect};

    /// The history, and the configuration as JSON.
    #[track_caller]
    fn check(body: &str, want: Expect) {
        let file = parse(format!("FROM scratch\n{body}\n").as_bytes()).unwrap();
        let mut state = State { escape: '\\', ..State::default() };
        state.image.config.cmd = Some(vec!["inherited".into()]);
        let mut text = String::new();
        for step in &file.stages[0].steps {
            let line = match &step.instruction {
                Instruction::Arg(arguments) => {
                    state.declare(arguments, &BTreeMap::new(), &|_| None).map(Some)
                }
                other => state.configure(other),
            };
            match line {
                Ok(line) => text.push_str(&format!("{}\n", line.unwrap_or_default())),
                Err(error) => text.push_str(&format!("error: {error}\n")),
            }
        }
        text.push_str(&serde_json::to_string(&state.image.config).unwrap());
        want.assert_eq(&text);
    }

    #[test]
    fn an_entrypoint_drops_only_an_inherited_command() {
        check(
            "ENTRYPOINT [\"a\"]",
            expect![[r#"
            ENTRYPOINT ["a"]
            {"Env":[],"Entrypoint":["a"]}"#]],
        );
        check(
            "CMD x\nENTRYPOINT [\"a\"]",
            expect![[r#"
            CMD ["/bin/sh" "-c" "x"]
            ENTRYPOINT ["a"]
            {"Env":[],"Entrypoint":["a"],"Cmd":["/bin/sh","-c","x"]}"#]],
        );
        check(
            "SHELL [\"/bin/bash\", \"-ec\"]\nCMD x",
            expect![[r#"
            SHELL [/bin/bash -ec]
            CMD ["/bin/bash" "-ec" "x"]
            {"Env":[],"Cmd":["/bin/bash","-ec","x"],"Shell":["/bin/bash","-ec"]}"#]],
        );
    }

    #[test]
    fn values_are_those_before_the_instruction() {
        check(
            "ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc",
            expect![[r#"
            ENV abc=hello
            ENV abc=bye def=hello
            ENV ghi=bye
            {"Env":["abc=bye","def=hello","ghi=bye"],"Cmd":["inherited"]}"#]],
        );
    }

    #[test]
    fn the_environment_hides_arguments() {
        check(
            "ARG a=1\nENV b=$a a=2\nLABEL c=$a",
            expect![[r#"
            ARG a=1
            ENV b=1 a=2
            LABEL c=2
            {"Env":["b=1","a=2"],"Cmd":["inherited"],"Labels":{"c":"2"}}"#]],
        );
    }

    #[test]
    fn ports_volumes_and_probes_are_kept() {
        check(
            "EXPOSE 80 53/UDP 8000-8001\nVOLUME /a /b\nHEALTHCHECK --interval=1m30s --retries=3 CMD curl x\nSTOPSIGNAL SIGTERM\nUSER a:b",
            expect![[r#"
                EXPOSE map[53/udp:{} 80/tcp:{} 8000/tcp:{} 8001/tcp:{}]
                VOLUME [/a /b]
                HEALTHCHECK &{["CMD-SHELL" "curl x"] "1m30s" "0s" "0s" "0s" '\x03'}
                STOPSIGNAL SIGTERM
                USER a:b
                {"User":"a:b","ExposedPorts":{"53/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{}},"Env":[],"Cmd":["inherited"],"Healthcheck":{"Test":["CMD-SHELL","curl x"],"Interval":90000000000,"Retries":3},"Volumes":{"/a":{},"/b":{}},"StopSignal":"SIGTERM"}"#]],
        );
    }

    #[test]
    fn an_empty_command_and_a_directory_are_kept_as_each_builder_does() {
        let made = |dialect, line: &str| {
            let file = parse(format!("FROM scratch\n{line}\n").as_bytes()).unwrap();
            let mut state = State { escape: '\\', dialect, ..State::default() };
            for step in &file.stages[0].steps {
                match &step.instruction {
                    Instruction::Workdir(word) => drop(state.enter(word).unwrap()),
                    other => drop(state.configure(other).unwrap()),
                }
            }
            (state.image.config.cmd, state.image.config.entrypoint, state.image.config.working_dir)
        };
        let text = "CMD []\nENTRYPOINT []\nCMD []\nWORKDIR /tmp/\n";
        assert_eq!(
            made(Dialect::Classic, text),
            (Some(Vec::new()), Some(Vec::new()), "/tmp/".to_owned())
        );
        assert_eq!(made(Dialect::BuildKit, text), (None, None, "/tmp".to_owned()));
        assert_eq!(made(Dialect::Classic, "WORKDIR /a/\nWORKDIR b/").2, "/a/b");
    }

    #[test]
    fn nonsense_is_named() {
        check(
            "EXPOSE x\nEXPOSE 80/icmp\nSTOPSIGNAL FOO\nENV ${a:?no}=1\nVOLUME /x $none",
            expect![[r#"
            error: invalid containerPort: x
            error: invalid proto: icmp
            error: invalid signal: FOO
            error: failed to process "${a:?no}": a: no
            error: VOLUME specified can not be an empty string
            {"Env":[],"Cmd":["inherited"]}"#]],
        );
    }
}
