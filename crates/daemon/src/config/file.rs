//! `daemon.json`, and what happens where it and the flags say the same.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::flags::Values;
use super::keys;

/// Tug's own file, else Docker's.
const FILES: [&str; 2] = ["/etc/tug/daemon.json", "/etc/docker/daemon.json"];

/// Source: moby 28.2 `daemon/config/config.go`.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("unable to configure the Docker daemon with file {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("unable to configure the Docker daemon with file {path:?}")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("unable to configure the Docker daemon with file {path:?}: {problem}")]
    Content { path: PathBuf, problem: Problem },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the file holds no JSON object")]
    NoObject,
    #[error("the following directives don't match any configuration option: {}", .0.join(", "))]
    Unknown(Vec<String>),
    #[error("the following directives are specified both as a flag and in the configuration file: {}", .0.join(", "))]
    Conflicts(Vec<String>),
    #[error("{key}: want a {want}, have {have}")]
    Shape { key: String, want: &'static str, have: String },
}

/// Reads the file that counts. A file named by a flag must exist; the usual ones need not.
///
/// # Errors
/// When it cannot be read, is no JSON, or has unknown or conflicting keys.
pub fn load(flags: &Values) -> Result<Values, FileError> {
    let named = flags.get("config-file").and_then(Value::as_str);
    let candidates: Vec<PathBuf> = match named {
        Some(path) => vec![PathBuf::from(path)],
        None => FILES.map(PathBuf::from).to_vec(),
    };
    for path in candidates {
        match std::fs::read(&path) {
            Ok(text) => return parse(&text, flags, &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {}
            Err(source) => return Err(FileError::Read { path, source }),
        }
    }
    Ok(Values::new())
}

fn parse(text: &[u8], flags: &Values, path: &Path) -> Result<Values, FileError> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Values::new());
    }
    // A byte order mark is what some editors leave.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let value = serde_json::from_slice(text)
        .map_err(|source| FileError::Json { path: path.to_owned(), source })?;
    check(value, flags).map_err(|problem| FileError::Content { path: path.to_owned(), problem })
}

fn check(file: Value, flags: &Values) -> Result<Values, Problem> {
    let Value::Object(mut file) = file else {
        return Err(Problem::NoObject);
    };
    // The proxies stand together in the file and alone on the command line.
    if let Some(Value::Object(proxies)) = file.shift_remove("proxies") {
        file.extend(proxies);
    }
    // Docker's own older spelling.
    if let Some(value) = file.shift_remove("host-gateway-ip") {
        let list = if value.is_array() { value } else { Value::Array(vec![value]) };
        file.insert("host-gateway-ips".to_owned(), list);
    }
    let mut values = Values::new();
    let mut unknown = Vec::new();
    let mut conflicts = Vec::new();
    for (name, value) in file {
        let Some(key) = keys::by_key(&name) else {
            unknown.push(name);
            continue;
        };
        if !key.kind.accepts(&value) {
            return Err(Problem::Shape {
                key: name,
                want: key.kind.name(),
                have: value.to_string(),
            });
        }
        if let Some(flag) = flags.get(key.name()) {
            conflicts.push(format!(
                "{name}: (from flag: {}, from file: {})",
                shown(flag),
                shown(&value)
            ));
        }
        values.insert(key.name(), value);
    }
    unknown.sort();
    conflicts.sort();
    if !unknown.is_empty() {
        return Err(Problem::Unknown(unknown));
    }
    if !conflicts.is_empty() {
        return Err(Problem::Conflicts(conflicts));
    }
    Ok(values)
}

/// As Go's `%v` prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(shown).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    #[track_caller]
    fn check_file(file: &str, flags: &[&str], want: Expect) {
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let flags = super::super::flags::parse(&flags).unwrap();
        let outcome = parse(file.as_bytes(), &flags, Path::new("f"));
        want.assert_eq(&match outcome {
            Ok(values) => serde_json::to_string(&values).unwrap(),
            Err(error) => engine::error::chain(&error),
        });
    }

    #[test]
    fn keys_are_dockers() {
        check_file(
            r#"{"debug":true,"proxies":{"http-proxy":"http://p"},"dns":["1.1.1.1"]}"#,
            &[],
            expect![[r#"{"debug":true,"dns":["1.1.1.1"],"http-proxy":"http://p"}"#]],
        );
        check_file("", &[], expect!["{}"]);
    }

    #[test]
    fn unknown_keys_are_named() {
        check_file(
            r#"{"zzz":1,"debug":true,"aaa":2}"#,
            &[],
            expect![[
                r#"unable to configure the Docker daemon with file "f": the following directives don't match any configuration option: aaa, zzz"#
            ]],
        );
    }

    #[test]
    fn what_the_flags_say_too_is_a_conflict() {
        check_file(
            r#"{"debug":false,"hosts":["unix:///a"]}"#,
            &["--debug", "-H", "unix:///b"],
            expect![[
                r#"unable to configure the Docker daemon with file "f": the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: false), hosts: (from flag: [unix:///b], from file: [unix:///a])"#
            ]],
        );
    }

    #[test]
    fn a_value_of_another_shape_is_refused() {
        check_file(
            r#"{"debug":"yes"}"#,
            &[],
            expect![[
                r#"unable to configure the Docker daemon with file "f": debug: want a bool, have "yes""#
            ]],
        );
        check_file(
            "[]",
            &[],
            expect![[
                r#"unable to configure the Docker daemon with file "f": the file holds no JSON object"#
            ]],
        );
        check_file(
            "{",
            &[],
            expect![[
                r#"unable to configure the Docker daemon with file "f": EOF while parsing an object at line 1 column 1"#
            ]],
        );
    }

    #[test]
    fn values_are_shown_as_go_shows_them() {
        assert_eq!(shown(&json!({"a":["b", 1]})), "map[a:[b 1]]");
    }
}
