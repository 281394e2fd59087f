//! The command line of `dockerd`, parsed as pflag does, with its words.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::keys::{self, Key, Kind};

/// Values by [`Key::name`].
pub type Values = BTreeMap<&'static str, Value>;

/// Source: spf13/pflag `flag.go`, docker `cli/required.go`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    #[error("unknown flag: --{0}")]
    Unknown(String),
    #[error("unknown shorthand flag: {0:?} in -{1}")]
    UnknownShort(char, String),
    #[error("flag needs an argument: {0}")]
    NoValue(String),
    #[error("invalid argument {value:?} for {flag:?} flag: {why}")]
    BadValue { value: String, flag: String, why: String },
    #[error("\"dockerd\" accepts no arguments.")]
    Argument,
}

/// Parses all arguments.
///
/// # Errors
/// Names the first argument that is wrong.
pub fn parse(args: &[String]) -> Result<Values, FlagError> {
    let mut values = Values::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if let Some(long) = arg.strip_prefix("--") {
            if long.is_empty() {
                return if rest.next().is_some() { Err(FlagError::Argument) } else { Ok(values) };
            }
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let key = keys::by_flag(name).ok_or_else(|| FlagError::Unknown(name.to_owned()))?;
            let shown = format!("--{name}");
            let value = match (value, key.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true".to_owned(),
                (None, _) => {
                    rest.next().cloned().ok_or_else(|| FlagError::NoValue(shown.clone()))?
                }
            };
            store(&mut values, key, &value, shown_long(key))?;
        } else if let Some(cluster) = arg.strip_prefix('-').filter(|cluster| !cluster.is_empty()) {
            parse_cluster(&mut values, cluster, &mut rest)?;
        } else {
            return Err(FlagError::Argument);
        }
    }
    Ok(values)
}

fn shown_long(key: &Key) -> String {
    match key.short {
        Some(short) => format!("-{short}, --{}", key.flag),
        None => format!("--{}", key.flag),
    }
}

/// `-D`, `-Dl debug`, `-ldebug`, `-l=debug`.
fn parse_cluster<'a>(
    values: &mut Values,
    cluster: &str,
    rest: &mut impl Iterator<Item = &'a String>,
) -> Result<(), FlagError> {
    let mut letters = cluster.chars();
    while let Some(letter) = letters.next() {
        let key = keys::by_short(letter)
            .ok_or_else(|| FlagError::UnknownShort(letter, cluster.to_owned()))?;
        let tail = letters.as_str();
        let value = match (key.kind, tail.strip_prefix('=')) {
            (_, Some(value)) => value.to_owned(),
            (Kind::Bool, None) => {
                store(values, key, "true", shown_long(key))?;
                continue;
            }
            (_, None) if tail.is_empty() => rest
                .next()
                .cloned()
                .ok_or_else(|| FlagError::NoValue(format!("'{letter}' in -{cluster}")))?,
            (_, None) => tail.to_owned(),
        };
        return store(values, key, &value, shown_long(key));
    }
    Ok(())
}

fn store(
    values: &mut Values,
    key: &'static Key,
    text: &str,
    flag: String,
) -> Result<(), FlagError> {
    let bad = |why: String| FlagError::BadValue { value: text.to_owned(), flag: flag.clone(), why };
    let name = key.name();
    match key.kind {
        Kind::Bool => {
            let value = parse_bool(text).ok_or_else(|| {
                bad(format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))
            })?;
            values.insert(name, json!(value));
        }
        Kind::Int => {
            let value: i64 = text
                .parse()
                .map_err(|_| bad(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
            values.insert(name, json!(value));
        }
        Kind::Text => drop(values.insert(name, json!(text))),
        Kind::List => {
            let list = values.entry(name).or_insert_with(|| json!([]));
            if let Value::Array(items) = list {
                items.push(json!(text));
            }
        }
        Kind::Map | Kind::Json => {
            let (entry, value) = match text.split_once('=') {
                Some(pair) => pair,
                // A feature's bare name turns it on.
                None if name == "features" && !text.is_empty() => (text, "true"),
                None => return Err(bad("want KEY=VALUE".to_owned())),
            };
            // Each value has the shape that it has in the file.
            let map = values.entry(name).or_insert_with(|| json!({}));
            match (name, parse_bool(value)) {
                ("features", Some(on)) => map[entry] = json!(on),
                ("features", None) => return Err(bad("want a boolean".to_owned())),
                ("default-network-opts", _) => {
                    let (option, value) = value
                        .split_once('=')
                        .ok_or_else(|| bad("want DRIVER=KEY=VALUE".to_owned()))?;
                    map[entry][option] = json!(value);
                }
                (_, _) => map[entry] = json!(value),
            }
        }
    }
    Ok(())
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(args: &str, want: Expect) {
        let args: Vec<_> = args.split_whitespace().map(str::to_owned).collect();
        want.assert_eq(&match parse(&args) {
            Ok(values) => serde_json::to_string(&values).unwrap(),
            Err(error) => error.to_string(),
        });
    }

    #[test]
    fn flags_have_two_spellings_and_cluster() {
        check(
            "-Dl debug --data-root=/x --exec-root /y",
            expect![[r#"{"data-root":"/x","debug":true,"exec-root":"/y","log-level":"debug"}"#]],
        );
        check(
            "-lwarn -H unix:///a -H=tcp://b",
            expect![[r#"{"hosts":["unix:///a","tcp://b"],"log-level":"warn"}"#]],
        );
        check(
            "--default-network-opt bridge=a=1 --default-network-opt bridge=b=2",
            expect![[r#"{"default-network-opts":{"bridge":{"a":"1","b":"2"}}}"#]],
        );
        check(
            "--icc=false --log-opt max-size=1m",
            expect![[r#"{"icc":false,"log-opts":{"max-size":"1m"}}"#]],
        );
    }

    #[test]
    fn wrong_flags_are_named() {
        check("--nope", expect!["unknown flag: --nope"]);
        check("-Dx", expect!["unknown shorthand flag: 'x' in -Dx"]);
        check("--data-root", expect!["flag needs an argument: --data-root"]);
        check("-l", expect!["flag needs an argument: 'l' in -l"]);
        check(
            "--debug=maybe",
            expect![[
                r#"invalid argument "maybe" for "-D, --debug" flag: strconv.ParseBool: parsing "maybe": invalid syntax"#
            ]],
        );
        check(
            "--mtu=x",
            expect![[
                r#"invalid argument "x" for "--mtu" flag: strconv.ParseInt: parsing "x": invalid syntax"#
            ]],
        );
        check("start", expect![[r#""dockerd" accepts no arguments."#]]);
    }
}
