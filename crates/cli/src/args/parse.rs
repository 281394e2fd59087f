//! From words to [`Matches`], by pflag's rules.
//!
//! Elsewhere: what a value may be is in [`super::check`].

use std::collections::HashMap;

use super::{Arity, Flag, Kind, Order, check, go::quote};

/// What a command was given.
#[derive(Debug, Default)]
pub struct Matches {
    values: HashMap<&'static str, Vec<String>>,
    defaults: HashMap<&'static str, &'static str>,
    /// What is not an option.
    pub args: Vec<String>,
    /// The command as typed: `docker container run`.
    pub path: String,
}

/// Why parsing ended without [`Matches`].
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// `--help`.
    Help,
    /// In pflag's words.
    Wrong(String),
}

impl Matches {
    /// Whether the user gave the flag.
    pub fn given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A switch's state.
    pub fn on(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1" | "t" | "T" | "TRUE" | "True")
    }

    /// The last value given, else the default, else nothing.
    pub fn text(&self, name: &str) -> &str {
        match self.values.get(name).and_then(|values| values.last()) {
            Some(value) => value,
            None => self.defaults.get(name).copied().unwrap_or_default(),
        }
    }

    /// The last value, when one was given.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(|values| values.last()).map(String::as_str)
    }

    /// Every value given, in order.
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// A whole number; the check at parsing makes a bad one impossible.
    pub fn int(&self, name: &str) -> i64 {
        super::go::parse_int(self.text(name)).unwrap_or_default()
    }
}

/// Reads options and arguments. `flags` must hold every flag of the command.
///
/// # Errors
/// [`Stop::Help`] for `--help`, else pflag's words for what is wrong.
pub fn parse(flags: &[&'static Flag], order: Order, words: &[String]) -> Result<Matches, Stop> {
    let mut reader = Reader { flags, matches: Matches::default(), rest: words };
    for flag in flags {
        if !flag.default.is_empty() && !flag.default.starts_with("map[") && flag.default != "[]" {
            reader.matches.defaults.insert(flag.name, flag.default);
        }
    }
    if order == Order::Verbatim {
        if words.iter().any(|word| matches!(word.as_str(), "--help" | "-h")) {
            return Err(Stop::Help);
        }
        reader.matches.args = words.to_vec();
        return Ok(reader.matches);
    }
    while let Some((word, rest)) = reader.rest.split_first() {
        reader.rest = rest;
        if word == "--" {
            reader.matches.args.extend_from_slice(rest);
            break;
        } else if let Some(long) = word.strip_prefix("--") {
            reader.long(word, long)?;
        } else if word.len() > 1 && word.starts_with('-') {
            reader.cluster(&word[1..])?;
        } else {
            reader.matches.args.push(word.clone());
            if order == Order::OptionsFirst {
                reader.matches.args.extend_from_slice(rest);
                break;
            }
        }
    }
    Ok(reader.matches)
}

struct Reader<'a> {
    flags: &'a [&'static Flag],
    matches: Matches,
    rest: &'a [String],
}

impl Reader<'_> {
    fn long(&mut self, word: &str, long: &str) -> Result<(), Stop> {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        if name.is_empty() || name.starts_with('-') || name.starts_with('=') {
            return Err(Stop::Wrong(format!("bad flag syntax: {word}")));
        }
        let Some(flag) = self.flags.iter().find(|flag| flag.name == name).copied() else {
            if name == "help" {
                return Err(Stop::Help);
            }
            return Err(Stop::Wrong(format!("unknown flag: --{name}")));
        };
        let value = match value {
            Some(value) => value.to_owned(),
            None if flag.kind == Kind::Bool => "true".to_owned(),
            None => self
                .next()
                .ok_or_else(|| Stop::Wrong(format!("flag needs an argument: --{name}")))?,
        };
        self.set(flag, value)
    }

    fn cluster(&mut self, cluster: &str) -> Result<(), Stop> {
        for (at, letter) in cluster.char_indices() {
            let Some(flag) = self.flags.iter().find(|flag| flag.short == Some(letter)).copied()
            else {
                if letter == 'h' {
                    return Err(Stop::Help);
                }
                return Err(Stop::Wrong(format!(
                    "unknown shorthand flag: '{letter}' in -{}",
                    &cluster[at..]
                )));
            };
            let after = &cluster[at + letter.len_utf8()..];
            if let Some(value) = after.strip_prefix('=') {
                return self.set(flag, value.to_owned());
            }
            if flag.kind == Kind::Bool {
                self.set(flag, "true".to_owned())?;
                continue;
            }
            let value = if after.is_empty() {
                self.next().ok_or_else(|| {
                    Stop::Wrong(format!(
                        "flag needs an argument: '{letter}' in -{}",
                        &cluster[at..]
                    ))
                })?
            } else {
                after.to_owned()
            };
            return self.set(flag, value);
        }
        Ok(())
    }

    fn next(&mut self) -> Option<String> {
        let (word, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(word.clone())
    }

    fn set(&mut self, flag: &'static Flag, value: String) -> Result<(), Stop> {
        let name = flag.same_as.unwrap_or(flag.name);
        if let Err(why) = check::check(flag.kind, &value) {
            let shown = match flag.short {
                Some(short) => format!("-{short}, --{}", flag.name),
                None => format!("--{}", flag.name),
            };
            return Err(Stop::Wrong(format!(
                "invalid argument {} for {} flag: {why}",
                quote(&value),
                quote(&shown)
            )));
        }
        let values = self.matches.values.entry(name).or_default();
        if flag.kind == Kind::Strings {
            values.extend(value.split(',').map(str::to_owned));
        } else {
            values.push(value);
        }
        Ok(())
    }
}

/// Checks the number of arguments; the words are the middle of Docker's message.
pub fn check_arity(arity: Arity, count: usize) -> Result<(), String> {
    let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
    let (fits, words) = match arity {
        Arity::None => (count == 0, "accepts no arguments".to_owned()),
        Arity::Exactly(n) => (count == n, format!("requires {n} {}", plural(n))),
        Arity::Counted(n) => (count == n, format!("accepts {n} arg(s), received {count}")),
        Arity::OneUnless(_) => (count == 1, "requires 1 argument".to_owned()),
        Arity::AtLeast(n) => (count >= n, format!("requires at least {n} {}", plural(n))),
        Arity::AtMost(n) => (count <= n, format!("requires at most {n} {}", plural(n))),
        Arity::Between(least, most) => (
            (least..=most).contains(&count),
            format!("requires at least {least} and at most {most} {}", plural(most)),
        ),
    };
    if fits { Ok(()) } else { Err(words) }
}

#[cfg(test)]
mod tests {
    use super::{super::flag, *};

    const FLAGS: [Flag; 6] = [
        flag("interactive", Kind::Bool, "").s('i'),
        flag("tty", Kind::Bool, "").s('t'),
        flag("publish", Kind::List, "").s('p'),
        flag("network", Kind::Text, "").or("bridge"),
        flag("net", Kind::Text, "").same_as("network"),
        flag("last", Kind::Int, "").s('n').or("-1"),
    ];

    fn read(order: Order, line: &str) -> Result<Matches, Stop> {
        static ALL: [Flag; 6] = FLAGS;
        let flags: Vec<&'static Flag> = ALL.iter().collect();
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&flags, order, &words)
    }

    #[track_caller]
    fn wrong(line: &str, want: &str) {
        assert_eq!(read(Order::Mixed, line).unwrap_err(), Stop::Wrong(want.to_owned()));
    }

    #[test]
    fn a_cluster_may_end_in_a_value() {
        let found = read(Order::OptionsFirst, "-itp80:80 -p=81 --net=host image -x").unwrap();
        assert!(found.on("interactive") && found.on("tty"));
        assert_eq!(found.all("publish"), ["80:80", "81"]);
        assert_eq!(found.text("network"), "host");
        assert_eq!(found.args, ["image", "-x"]);
    }

    #[test]
    fn options_may_follow_arguments_where_docker_lets_them() {
        let found = read(Order::Mixed, "a -i=false b --last 3 -- -t").unwrap();
        assert_eq!(found.args, ["a", "b", "-t"]);
        assert!(!found.on("interactive") && found.given("interactive"));
        assert_eq!(found.int("last"), 3);
    }

    #[test]
    fn a_flag_not_given_has_its_default() {
        let found = read(Order::Mixed, "").unwrap();
        assert_eq!((found.text("network"), found.int("last")), ("bridge", -1));
        assert_eq!(found.find("network"), None);
    }

    #[test]
    fn what_is_wrong_is_said_in_pflags_words() {
        wrong("--x", "unknown flag: --x");
        wrong("-iZq", "unknown shorthand flag: 'Z' in -Zq");
        wrong("---a", "bad flag syntax: ---a");
        wrong("--network", "flag needs an argument: --network");
        wrong("-ip", "flag needs an argument: 'p' in -p");
        wrong(
            "-n x",
            "invalid argument \"x\" for \"-n, --last\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
        );
    }

    #[test]
    fn the_number_of_arguments_is_checked() {
        assert_eq!(check_arity(Arity::Exactly(2), 1), Err("requires 2 arguments".to_owned()));
        assert_eq!(
            check_arity(Arity::AtLeast(1), 0),
            Err("requires at least 1 argument".to_owned())
        );
        assert_eq!(check_arity(Arity::None, 1), Err("accepts no arguments".to_owned()));
        assert_eq!(check_arity(Arity::AtMost(1), 1), Ok(()));
    }
}
