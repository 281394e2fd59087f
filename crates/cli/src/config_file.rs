//! Reading `config.json`: a file that is wrong is told of once, in the words of Go's `encoding/json`
//! as Docker's client shows them, and counts as empty. What stands behind the first value is not read.

use std::{fs, io::ErrorKind, path::Path};

use base64::Engine as _;
use serde_json::Value;

use crate::{create::files::reason, terminal};

/// What a field's value must be. Source: docker CLI 28.2 `cli/config/configfile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Texts,
    /// Texts by name.
    Named,
    /// Objects by name; Go's name of one.
    Objects(&'static str),
}

const FIELDS: &[(&str, Form)] = &[
    ("auths", Form::Objects("types.AuthConfig")),
    ("HttpHeaders", Form::Named),
    ("psFormat", Form::Text),
    ("imagesFormat", Form::Text),
    ("networksFormat", Form::Text),
    ("pluginsFormat", Form::Text),
    ("volumesFormat", Form::Text),
    ("statsFormat", Form::Text),
    ("detachKeys", Form::Text),
    ("credsStore", Form::Text),
    ("credHelpers", Form::Named),
    ("pruneFilters", Form::Texts),
    ("proxies", Form::Objects("configfile.ProxyConfig")),
    ("currentContext", Form::Text),
    ("cliPluginsExtraDirs", Form::Texts),
    ("plugins", Form::Objects("map[string]string")),
    ("aliases", Form::Named),
    ("features", Form::Named),
];

/// The file's content; nothing where there is no file, or no right one.
pub fn read(path: &Path) -> Value {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Value::Null,
        Err(error) => {
            let why = format!("open {}: {}", path.display(), reason(&error));
            terminal::error_text(&format!("WARNING: Error loading config file: {why}\n"));
            return Value::Null;
        }
    };
    parse(&text).unwrap_or_else(|why| {
        terminal::error_text(&format!(
            "WARNING: Error parsing config file ({}): {why}\n",
            path.display()
        ));
        Value::Null
    })
}

fn parse(text: &[u8]) -> Result<Value, String> {
    let root = match serde_json::Deserializer::from_slice(text).into_iter::<Value>().next() {
        None => return Ok(Value::Null),
        Some(Err(error)) => return Err(syntax(text, &error)),
        Some(Ok(root)) => root,
    };
    let Some(fields) = root.as_object() else {
        return match root {
            Value::Null => Ok(Value::Null),
            other => Err(mismatch(&other, "value", "configfile.ConfigFile")),
        };
    };
    for (name, form) in FIELDS {
        if let Some(value) = fields.get(*name) {
            check(name, *form, value)?;
        }
    }
    for (_, entry) in fields.get("auths").and_then(Value::as_object).into_iter().flatten() {
        check_auth(entry["auth"].as_str().unwrap_or_default())?;
    }
    Ok(root)
}

fn check(name: &str, form: Form, value: &Value) -> Result<(), String> {
    let place = format!("struct field ConfigFile.{name}");
    let wrong = |value: &Value, kind: &str| Err(mismatch(value, &place, kind));
    let is_text = |value: &&Value| !value.is_string() && !value.is_null();
    match (form, value) {
        (_, Value::Null) | (Form::Text, Value::String(_)) => Ok(()),
        (Form::Text, other) => wrong(other, "string"),
        (Form::Texts, Value::Array(items)) => {
            items.iter().find(is_text).map_or(Ok(()), |item| wrong(item, "string"))
        }
        (Form::Texts, other) => wrong(other, "[]string"),
        (Form::Named, Value::Object(entries)) => {
            entries.values().find(is_text).map_or(Ok(()), |entry| wrong(entry, "string"))
        }
        (Form::Named, other) => wrong(other, "map[string]string"),
        (Form::Objects(kind), Value::Object(entries)) => entries
            .values()
            .find(|entry| !entry.is_object() && !entry.is_null())
            .map_or(Ok(()), |entry| wrong(entry, kind)),
        (Form::Objects(kind), other) => wrong(other, &format!("map[string]{kind}")),
    }
}

/// Stored credentials are `user:password` in Base64.
fn check_auth(auth: &str) -> Result<(), String> {
    if auth.is_empty() {
        return Ok(());
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(auth).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _)
            | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                auth.len()
            }
        };
        format!("illegal base64 data at input byte {at}")
    })?;
    if decoded.contains(&b':') { Ok(()) } else { Err("Invalid auth configuration file".to_owned()) }
}

fn mismatch(value: &Value, place: &str, kind: &str) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {found} into Go {place} of type {kind}")
}

/// Our parser's words as Go's, which name the letter and what was being read.
fn syntax(text: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    let letter = line.and_then(|line| line.get(error.column().saturating_sub(1))).copied();
    let letter = letter.map_or(' ', char::from);
    let said = error.to_string();
    let doing = [
        ("key must be a string", "looking for beginning of object key string"),
        ("trailing comma", "looking for beginning of object key string"),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("invalid escape", "in string escape code"),
        ("control character", "in string literal"),
        ("invalid number", "after object key:value pair"),
        ("expected ident", "in literal"),
    ]
    .iter()
    .find(|(ours, _)| said.starts_with(ours))
    .map_or("looking for beginning of value", |(_, go)| go);
    let shown = match letter {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        other => format!("{other:?}"),
    };
    format!("invalid character {shown} {doing}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_told_of_in_gos_words() {
        for (text, want) in [
            ("{", "unexpected EOF"),
            ("{\"a\":}", "invalid character '}' looking for beginning of value"),
            ("xyz", "invalid character 'x' looking for beginning of value"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\":2}", "invalid character '\"' after object key:value pair"),
            ("{\n\"a\":[1 2]}", "invalid character '2' after array element"),
            ("[1]", "json: cannot unmarshal array into Go value of type configfile.ConfigFile"),
            (
                "{\"auths\":[]}",
                "json: cannot unmarshal array into Go struct field ConfigFile.auths of type map[string]types.AuthConfig",
            ),
            (
                "{\"detachKeys\":true}",
                "json: cannot unmarshal bool into Go struct field ConfigFile.detachKeys of type string",
            ),
            ("{\"auths\":{\"x\":{\"auth\":\"!!!\"}}}", "illegal base64 data at input byte 0"),
            ("{\"auths\":{\"x\":{\"auth\":\"YWJj\"}}}", "Invalid auth configuration file"),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(want.to_owned()), "{text}");
        }
        for text in ["", "null", "{}", "{\"a\":1} x", "{\"psFormat\":null}"] {
            assert!(parse(text.as_bytes()).is_ok(), "{text}");
        }
    }
}
