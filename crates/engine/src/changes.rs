//! `--change`: Dockerfile instructions applied to a configuration (commit and import).

use spec::image::{Config, Empty};

use crate::error::{Error, Result};

/// Applies instructions in order.
///
/// # Errors
/// `Invalid` for instructions that change no configuration, and for malformed ones.
///
/// Source: moby `builder/dockerfile/builder.go` `BuildFromConfig`.
pub fn apply(config: &mut Config, changes: &[String]) -> Result<()> {
    for line in changes
        .iter()
        .flat_map(|change| change.lines())
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        one(config, line)?;
    }
    Ok(())
}

fn one(config: &mut Config, line: &str) -> Result<()> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let missing = || Error::invalid(format!("{word} requires at least one argument"));
    let need = || if rest.is_empty() { Err(missing()) } else { Ok(rest) };
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(need()?, config)),
        "ENTRYPOINT" => config.entrypoint = Some(command(need()?, config)),
        "ENV" => {
            for (key, value) in pairs("ENV", need()?)? {
                super::containers::derive::replace_env(
                    &mut config.env,
                    &[format!("{key}={value}")],
                );
            }
        }
        "LABEL" => config.labels.extend(pairs("LABEL", need()?)?),
        "EXPOSE" => {
            for port in need()?.split_whitespace() {
                let port: super::containers::spec::Port = port.parse()?;
                config.exposed_ports.insert(port.to_string(), Empty {});
            }
        }
        "VOLUME" => {
            for path in json_words(need()?).unwrap_or_else(|| words(rest)) {
                config.volumes.insert(path, Empty {});
            }
        }
        "WORKDIR" => {
            let path = need()?;
            let base = if path.starts_with('/') { "" } else { config.working_dir.as_str() };
            config.working_dir = super::containers::mounts::clean(&format!("{base}/{path}"));
        }
        "USER" => need()?.clone_into(&mut config.user),
        "STOPSIGNAL" => {
            super::containers::signals::parse(need()?)?;
            rest.clone_into(&mut config.stop_signal);
        }
        "ONBUILD" => config.on_build.push(need()?.to_owned()),
        other => {
            return Err(Error::invalid(format!(
                "{} is not a valid change command",
                other.to_ascii_lowercase()
            )));
        }
    }
    Ok(())
}

fn json_words(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// The exec form as it is, the shell form through the shell.
fn command(text: &str, config: &Config) -> Vec<String> {
    json_words(text).unwrap_or_else(|| {
        let default = ["/bin/sh".to_owned(), "-c".to_owned()];
        let shell = if config.shell.is_empty() { &default[..] } else { &config.shell };
        shell.iter().cloned().chain([text.to_owned()]).collect()
    })
}

/// `a=b c="d e"`, or the old form `a b c`.
///
/// Source: moby `frontend/dockerfile/parser/line_parsers.go`, `parseNameVal`.
fn pairs(word: &str, text: &str) -> Result<Vec<(String, String)>> {
    let first = text.split_whitespace().next().unwrap_or("");
    if !first.contains('=') {
        let (key, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::invalid(format!("{word} must have two arguments")))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let split = |pair: &String| match pair.split_once('=') {
        Some(("", _)) => Err(Error::invalid(format!("{word} names can not be blank"))),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(Error::invalid(format!(
            "Syntax error - can't find = in {pair:?}. Must be of the form: name=value"
        ))),
    };
    words(text).iter().map(split).collect()
}

/// Words with quotes and backslashes as in a shell, without expansion.
fn words(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (None, letter) if letter.is_whitespace() => all.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    all.extend(word);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_configuration() {
        let mut config = Config { env: vec!["A=1".to_owned()], ..Config::default() };
        let changes = [
            "CMD [\"a\",\"b\"]",
            "ENV A=2 B=\"x y\"",
            "expose 80",
            "WORKDIR /x/../y",
            "LABEL k v w",
            "ENTRYPOINT run it",
        ];
        apply(&mut config, &changes.map(str::to_owned)).unwrap();
        assert_eq!(config.cmd.unwrap(), ["a", "b"]);
        assert_eq!(config.env, ["A=2", "B=x y"]);
        assert!(config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(config.working_dir, "/y");
        assert_eq!(config.labels["k"], "v w");
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run it"]);
    }

    #[test]
    fn what_changes_no_configuration_is_refused() {
        let error = apply(&mut Config::default(), &["RUN x".to_owned()]).unwrap_err();
        assert_eq!(error.message, "run is not a valid change command");
        for (change, want) in [
            ("ENV A=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
            ("ENV A", "ENV must have two arguments"),
            ("LABEL =x", "LABEL names can not be blank"),
        ] {
            let error = apply(&mut Config::default(), &[change.to_owned()]).unwrap_err();
            assert_eq!(error.message, want);
        }
    }
}
