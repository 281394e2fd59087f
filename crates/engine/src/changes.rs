//! `--change`: Dockerfile instructions applied to a configuration (commit and import).
//!
//! They are read and carried out by the builder's own parser and state, so that quotes, variables and
//! every form of an instruction mean what they mean in a Dockerfile. Nothing is run.

use build::instruction::Instruction;
use build::parse::{ParseError, parse_changes};
use build::solve::Dialect;
use build::state::State;
use spec::image::Config;

use crate::error::{Error, Result};

/// What changes a configuration and nothing else.
///
/// Source: moby `builder/dockerfile/builder.go`, `validCommitCommands`; STOPSIGNAL is Tug's own.
const ALLOWED: [&str; 11] = [
    "cmd",
    "entrypoint",
    "env",
    "expose",
    "healthcheck",
    "label",
    "onbuild",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];

/// A Dockerfile's error without its line, since there is no file.
struct Refused(Error);

impl From<ParseError> for Refused {
    fn from(error: ParseError) -> Self {
        Self(Error::invalid(error.problem.to_string()))
    }
}

/// Applies instructions in order.
///
/// # Errors
/// `Invalid` for instructions that change no configuration, and for malformed ones.
///
/// Source: moby `builder/dockerfile/builder.go` `BuildFromConfig`.
pub fn apply(config: &mut Config, changes: &[String]) -> Result<()> {
    let text = changes.join("\n");
    if text.trim().is_empty() {
        return Ok(());
    }
    let allowed = |word: &str| match ALLOWED.contains(&word.to_ascii_lowercase().as_str()) {
        true => Ok(()),
        false => Err(Refused(Error::invalid(format!("{word} is not a valid change command")))),
    };
    let steps = parse_changes(&text, allowed).map_err(|Refused(error)| error)?;
    let mut state = State { escape: '\\', dialect: Dialect::Classic, ..State::default() };
    state.image.config = config.clone();
    for step in steps {
        let applied = match &step.instruction {
            Instruction::Workdir(word) => state.enter(word).map(drop),
            other => state.configure(other).map(drop),
        };
        applied.map_err(|error| Error::invalid(error.to_string()))?;
    }
    *config = state.image.config;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(config: Config, changes: &[&str]) -> Result<Config> {
        let mut config = config;
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        apply(&mut config, &changes).map(|()| config)
    }

    #[test]
    fn instructions_change_the_configuration() {
        let config = Config { env: vec!["A=1".to_owned()], ..Config::default() };
        let changes = [
            "CMD [\"a\",\"b\"]",
            "ENV A=2 B=\"x y\"",
            "expose 80 53/udp",
            "WORKDIR /x/../y",
            "LABEL k v w",
            "USER u:g",
            "VOLUME [\"/v w\"]",
            "ONBUILD RUN x",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --retries=2 CMD test -e /x",
        ];
        let config = changed(config, &changes).unwrap();
        assert_eq!(config.cmd.unwrap(), ["a", "b"]);
        assert_eq!(config.env, ["A=2", "B=x y"]);
        let ports: Vec<&String> = config.exposed_ports.keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp"]);
        assert_eq!(config.labels["k"], "v w");
        assert_eq!((config.user.as_str(), config.stop_signal.as_str()), ("u:g", "SIGINT"));
        assert!(config.volumes.contains_key("/v w"));
        assert_eq!(config.on_build, ["RUN x"]);
        let health = config.healthcheck.unwrap();
        assert_eq!(
            (health.test, health.retries),
            (vec!["CMD-SHELL".to_owned(), "test -e /x".to_owned()], 2)
        );
        let shell = changed(Config::default(), &["ENTRYPOINT run it"]).unwrap();
        assert_eq!(shell.entrypoint.unwrap(), ["/bin/sh", "-c", "run it"]);
    }

    #[test]
    fn variables_are_those_of_the_image() {
        let env = vec!["PATH=/bin".to_owned(), "U=me".to_owned()];
        let config = Config { env, ..Config::default() };
        let changes =
            ["ENV PATH=/usr/bin:$PATH", "LABEL l=${U}-$PATH", "WORKDIR /home/$U", "USER $U"];
        let config = changed(config, &changes).unwrap();
        assert_eq!(config.env[0], "PATH=/usr/bin:/bin");
        assert_eq!(config.labels["l"], "me-/usr/bin:/bin");
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/home/me", "me"));
        let literal = changed(Config::default(), &["ENV A='$B' C=\\$D"]).unwrap();
        assert_eq!(literal.env, ["A=$B", "C=$D"]);
    }

    #[test]
    fn one_change_may_have_several_lines() {
        let config = changed(Config::default(), &["ENV A=1\nENV B=2 \\\n  C=3\n# no\n"]).unwrap();
        assert_eq!(config.env, ["A=1", "B=2", "C=3"]);
        changed(Config::default(), &["", "  "]).unwrap();
    }

    #[test]
    fn what_changes_no_configuration_is_refused() {
        for (change, want) in [
            ("RUN x", "RUN is not a valid change command"),
            ("copy a b", "copy is not a valid change command"),
            ("FROM x", "FROM is not a valid change command"),
            ("NOPE", "NOPE is not a valid change command"),
            ("ENV A=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
            ("ENV A", "ENV must have two arguments"),
            ("LABEL =x", "LABEL names can not be blank"),
            ("VOLUME $none", "VOLUME specified can not be an empty string"),
            ("EXPOSE x", "invalid containerPort: x"),
            ("STOPSIGNAL NOPE", "invalid signal: NOPE"),
            ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
            ("USER", "USER requires exactly one argument"),
            (
                "CMD [\"a\", 1]",
                "when using JSON array syntax, arrays must be comprised of strings only",
            ),
        ] {
            assert_eq!(changed(Config::default(), &[change]).unwrap_err().message, want);
        }
    }
}
