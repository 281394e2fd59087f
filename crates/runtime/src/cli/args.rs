//! Arguments of `tug runtime`: flags come before the first word, as runc's callers write them.

use std::collections::BTreeMap;

/// A flag that is known: its names (the first is how it is asked for) and whether a value follows.
pub(crate) struct Flag {
    pub names: &'static [&'static str],
    pub takes: Takes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    Value,
}

pub(crate) const fn switch(names: &'static [&'static str]) -> Flag {
    Flag { names, takes: Takes::Nothing }
}

pub(crate) const fn value(names: &'static [&'static str]) -> Flag {
    Flag { names, takes: Takes::Value }
}

#[derive(Debug, Default)]
pub(crate) struct Parsed {
    flags: BTreeMap<&'static str, Vec<String>>,
    pub words: Vec<String>,
}

impl Parsed {
    pub fn has(&self, name: &str) -> bool {
        self.flags.get(name).and_then(|values| values.last()).is_some_and(|value| value != "false")
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.flags.get(name).and_then(|values| values.last()).map(String::as_str)
    }

    pub fn all(&self, name: &str) -> &[String] {
        self.flags.get(name).map_or(&[], Vec::as_slice)
    }

    /// The word at `at`, which is called `what`.
    pub fn word(&self, at: usize, what: &str) -> Result<&str, String> {
        self.words.get(at).map(String::as_str).ok_or_else(|| format!("{what} is required"))
    }
}

pub(crate) fn parse(args: &[String], known: &'static [Flag]) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            break;
        }
        let Some(name) = arg.strip_prefix('-').filter(|name| !name.is_empty()) else {
            parsed.words.push(arg.clone());
            break;
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let Some(flag) = known.iter().find(|flag| flag.names.contains(&name)) else {
            return Err(format!("flag provided but not defined: -{name}"));
        };
        let value = match (flag.takes, inline) {
            (_, Some(value)) => value,
            (Takes::Nothing, None) => "true".to_owned(),
            (Takes::Value, None) => {
                rest.next().ok_or_else(|| format!("flag needs an argument: -{name}"))?.clone()
            }
        };
        parsed.flags.entry(flag.names[0]).or_default().push(value);
    }
    parsed.words.extend(rest.cloned());
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Flag] = &[value(&["bundle", "b"]), switch(&["force", "f"])];

    fn check(args: &[&str]) -> Parsed {
        let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
        parse(&args, KNOWN).unwrap()
    }

    #[test]
    fn flags_may_have_one_dash_or_two_and_an_equals_sign() {
        for args in [["--bundle", "x", "id"].as_slice(), &["-bundle=x", "id"], &["-b", "x", "id"]] {
            let parsed = check(args);
            assert_eq!((parsed.get("bundle"), parsed.words[0].as_str()), (Some("x"), "id"));
        }
    }

    #[test]
    fn after_the_first_word_nothing_is_a_flag() {
        let parsed = check(&["-f", "id", "--force", "--bundle"]);
        assert!(parsed.has("force"));
        assert_eq!(parsed.words, ["id", "--force", "--bundle"]);
    }
}
