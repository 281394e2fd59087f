//! `KEY=value` lists from the command line and from files.
//!
//! Source of the forms and words: docker/cli `opts/file.go`, `opts/env.go`, `pkg/kvfile`.

use std::{collections::BTreeMap, fs, io};

/// Environment from files, then from flags. A name alone takes its value from our own
/// environment; when that has none, a file's is left out, while a flag's goes as it is, which
/// takes the image's variable away.
pub fn environment(files: &[String], flags: &[String]) -> Result<Vec<String>, String> {
    let own = |name: &str| std::env::var(name).ok();
    let mut all = Vec::new();
    for file in files {
        all.extend(read(file, &own)?);
    }
    for flag in flags {
        match own(flag) {
            Some(value) if !flag.contains('=') => all.push(format!("{flag}={value}")),
            Some(_) | None => all.push(flag.clone()),
        }
    }
    Ok(all)
}

/// Labels from files, then from flags; a later one wins.
pub fn labels(files: &[String], flags: &[String]) -> Result<BTreeMap<String, String>, String> {
    let mut all = Vec::new();
    for file in files {
        // Unlike among the options, a key alone is no label here: docker `opts/parse.go`.
        all.extend(read(file, &|_| None)?);
    }
    all.extend(flags.iter().cloned());
    Ok(pairs(&all))
}

/// `key=value` texts as a map; a key alone has the empty value.
pub fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    texts
        .iter()
        .map(|text| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

fn read(path: &str, missing: &dyn Fn(&str) -> Option<String>) -> Result<Vec<String>, String> {
    let bytes = fs::read(path).map_err(|error| format!("open {path}: {}", reason(&error)))?;
    parse(path, &bytes, missing)
}

fn parse(
    path: &str,
    bytes: &[u8],
    missing: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let wrong = |why: String| format!("invalid env file ({path}): {why}");
        let Ok(line) = std::str::from_utf8(line) else {
            return Err(wrong(format!("invalid utf8 bytes at line {}: {:?}", number + 1, line)));
        };
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line, None),
        };
        if name.is_empty() {
            return Err(wrong(format!("no variable name on line '{line}'")));
        }
        if name.trim_end().contains(char::is_whitespace)
            || (value.is_some() && name != name.trim_end())
        {
            return Err(wrong(format!("variable '{name}' contains whitespaces")));
        }
        let name = name.trim_end();
        match value {
            Some(value) => found.push(format!("{name}={value}")),
            None => {
                if let Some(value) = missing(name) {
                    found.push(format!("{name}={value}"));
                }
            }
        }
    }
    Ok(found)
}

/// An I/O error in the words that Go, and so every Docker user, knows.
pub fn reason(error: &io::Error) -> String {
    spec::errno::in_go_words(&error.to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_variable_a_line() {
        let text = b"# comment\n\nA=1\n  B=two words\r\nGIVEN\nNOT\n";
        let own = |name: &str| (name == "GIVEN").then(|| "x".to_owned());
        assert_eq!(parse("f", text, &own).unwrap(), ["A=1", "B=two words", "GIVEN=x"]);
        assert_eq!(
            parse("f", b"=x", &own).unwrap_err(),
            "invalid env file (f): no variable name on line '=x'"
        );
        assert_eq!(
            parse("f", b"a b=x", &own).unwrap_err(),
            "invalid env file (f): variable 'a b' contains whitespaces"
        );
    }

    #[test]
    fn a_missing_file_is_named_as_go_names_it() {
        assert_eq!(
            environment(&["/no/such".to_owned()], &[]).unwrap_err(),
            "open /no/such: no such file or directory"
        );
    }
}
