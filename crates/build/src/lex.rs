//! Shell-like words of a Dockerfile: quotes, escapes and `$variables`.
//!
//! A word is read once, left to right. Single quotes keep everything, double quotes keep all but
//! `$` and an escaped `"`, `$` or escape character; outside quotes the escape character takes the
//! next one literally. `${name…}` knows the modifiers `- + ?` (with or without `:`), `# ## % %%`
//! and `/ //`.
//!
//! Invariants: no input panics; nesting of `${…}` is bounded by [`DEPTH_MAX`] and the length of a
//! result by [`EXPANDED_BYTES_MAX`], because each level may double what the level below made.
//!
//! Source: docs.docker.com "Dockerfile reference", environment replacement.

use spec::glob::Glob;

/// Deepest nesting of `${a:-${b:-…}}` that is followed.
pub const DEPTH_MAX: usize = 64;
/// Longest text one expansion may make.
pub const EXPANDED_BYTES_MAX: usize = 4 << 20;

/// Why a word could not be expanded; the words are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("unexpected end of statement while looking for matching single-quote")]
    SingleQuote,
    #[error("unexpected end of statement while looking for matching double-quote")]
    DoubleQuote,
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    #[error("{name}: {message}")]
    Demanded { name: String, message: String },
    #[error("expansion is nested too deeply")]
    Depth,
    #[error("expansion is too long")]
    Length,
}

/// An expansion that failed, with the word as written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {problem}")]
pub struct ExpandError {
    pub word: String,
    pub problem: Problem,
}

/// Where variables come from.
pub trait Variables {
    fn get(&self, name: &str) -> Option<&str>;
}

impl<F: for<'a> Fn(&'a str) -> Option<&'static str>> Variables for F {
    fn get(&self, name: &str) -> Option<&str> {
        self(name)
    }
}

/// Variables from `NAME=value` lines; the last one of a name wins.
pub struct Lines<'a>(pub &'a [String]);

impl Variables for Lines<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        variable(self.0, name)
    }
}

/// The value of the last `name=value` among `lines`.
pub fn variable<'a>(lines: &'a [String], name: &str) -> Option<&'a str> {
    lines.iter().rev().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key == name).then_some(value)
    })
}

/// Whether quotes are taken off (as for every instruction) or kept (bodies of heredocs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotes {
    Remove,
    Keep,
}

/// Expands `word` to one word.
///
/// # Errors
/// Unbalanced quotes or braces, unknown modifiers, and `${x:?}` of a variable that is not set.
pub fn expand(word: &str, escape: char, variables: &dyn Variables) -> Result<String, ExpandError> {
    expand_with(word, escape, Quotes::Remove, variables)
}

/// Expands the body of a heredoc, whose quotes are content.
///
/// # Errors
/// As [`expand`].
pub fn expand_body(
    body: &str,
    escape: char,
    variables: &dyn Variables,
) -> Result<String, ExpandError> {
    expand_with(body, escape, Quotes::Keep, variables)
}

fn expand_with(
    word: &str,
    escape: char,
    quotes: Quotes,
    variables: &dyn Variables,
) -> Result<String, ExpandError> {
    run(word, escape, quotes, variables).map(|words| words.text)
}

/// Expands `line` and splits it at white space outside quotes; blanks that a variable brought in
/// split too, as in a shell.
///
/// # Errors
/// As [`expand`].
pub fn expand_words(
    line: &str,
    escape: char,
    variables: &dyn Variables,
) -> Result<Vec<String>, ExpandError> {
    run(line, escape, Quotes::Remove, variables).map(|words| words.list)
}

struct Out {
    text: String,
    list: Vec<String>,
}

fn run(
    word: &str,
    escape: char,
    quotes: Quotes,
    variables: &dyn Variables,
) -> Result<Out, ExpandError> {
    let chars: Vec<char> = word.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0, escape, quotes, variables, depth: 0 };
    let mut words = Words::default();
    let text = lexer
        .until(None, Raw::No, &mut words)
        .map_err(|problem| ExpandError { word: word.to_owned(), problem })?;
    Ok(Out { text, list: words.finish() })
}

/// Whether escapes stay in the text because a pattern is read that gives them a meaning itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Raw {
    Yes,
    No,
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
    escape: char,
    quotes: Quotes,
    variables: &'a dyn Variables,
    depth: usize,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn until(
        &mut self,
        stop: Option<char>,
        raw: Raw,
        words: &mut Words,
    ) -> Result<String, Problem> {
        let mut text = String::new();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.at += 1;
                return Ok(text);
            }
            match c {
                '\'' if self.quotes == Quotes::Remove => {
                    let quoted = self.single()?;
                    words.quoted(&quoted);
                    text.push_str(&quoted);
                }
                '"' if self.quotes == Quotes::Remove => {
                    let quoted = self.double()?;
                    words.quoted(&quoted);
                    text.push_str(&quoted);
                }
                '$' => {
                    let value = self.dollar()?;
                    words.split(&value);
                    text.push_str(&value);
                }
                _ => {
                    self.at += 1;
                    self.plain(c, raw, &mut text, words);
                }
            }
            if text.len() > EXPANDED_BYTES_MAX {
                return Err(Problem::Length);
            }
        }
        match stop {
            Some('/') => Err(Problem::MissingSlash),
            Some(_) => Err(Problem::MissingBrace),
            None => Ok(text),
        }
    }

    fn plain(&mut self, c: char, raw: Raw, text: &mut String, words: &mut Words) {
        if c != self.escape {
            words.plain(c);
            text.push(c);
            return;
        }
        let Some(next) = self.next() else {
            // A lone escape at the very end stays as it is in a body, and vanishes in a word.
            if self.quotes == Quotes::Keep {
                text.push(c);
            }
            return;
        };
        let keep =
            raw == Raw::Yes || (self.quotes == Quotes::Keep && next != '$' && next != self.escape);
        if keep {
            text.push(c);
            words.literal(c);
        }
        words.literal(next);
        text.push(next);
    }

    fn single(&mut self) -> Result<String, Problem> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(Problem::SingleQuote),
                Some('\'') => return Ok(text),
                Some(c) => text.push(c),
            }
        }
    }

    fn double(&mut self) -> Result<String, Problem> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(c) = self.peek() else { return Err(Problem::DoubleQuote) };
            if c == '$' {
                text.push_str(&self.dollar()?);
                continue;
            }
            self.at += 1;
            if c == '"' {
                return Ok(text);
            }
            if c != self.escape {
                text.push(c);
                continue;
            }
            match self.peek() {
                None => return Err(Problem::DoubleQuote),
                Some(next) if next == '"' || next == '$' || next == self.escape => {
                    self.at += 1;
                    text.push(next);
                }
                Some(_) => text.push(c),
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.peek().filter(char::is_ascii_digit) {
                    name.push(c);
                    self.at += 1;
                }
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                    self.at += 1;
                }
            }
            // The shell's special parameters: read as names, never set here.
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                name.push(c);
                self.at += 1;
            }
            Some(_) | None => {}
        }
        name
    }

    fn dollar(&mut self) -> Result<String, Problem> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(self.variables.get(&name).unwrap_or_default().to_owned());
        }
        self.at += 1;
        match self.peek() {
            None => return Err(Problem::MissingBrace),
            Some('{' | '}' | ':') => return Err(Problem::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        if name.is_empty() {
            return Err(Problem::BadSubstitution);
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Problem::Depth);
        }
        let value = self.braced(&name);
        self.depth -= 1;
        value
    }

    fn braced(&mut self, name: &str) -> Result<String, Problem> {
        let variables = self.variables;
        let value = variables.get(name);
        let Some(first) = self.next() else { return Err(Problem::MissingBrace) };
        match first {
            '}' => Ok(value.unwrap_or_default().to_owned()),
            ':' => {
                let Some(modifier) = self.next() else { return Err(Problem::MissingBrace) };
                match modifier {
                    '-' | '+' | '?' => self.modified(name, modifier, value, Null::IsUnset),
                    other => Err(Problem::Modifier(format!(":{other}"))),
                }
            }
            '-' | '+' | '?' => self.modified(name, first, value, Null::IsSet),
            '#' | '%' => self.trimmed(first, value),
            '/' => self.replaced(value),
            other => Err(Problem::Modifier(other.to_string())),
        }
    }

    fn word(&mut self, stop: char, raw: Raw) -> Result<String, Problem> {
        self.until(Some(stop), raw, &mut Words::default())
    }

    fn modified(
        &mut self,
        name: &str,
        modifier: char,
        value: Option<&str>,
        null: Null,
    ) -> Result<String, Problem> {
        let word = self.word('}', Raw::No)?;
        let usable = value.filter(|value| null == Null::IsSet || !value.is_empty());
        match (modifier, usable) {
            ('-', None) => Ok(word),
            ('-' | '?', Some(value)) => Ok(value.to_owned()),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, _) => {
                let message = match (word.is_empty(), value) {
                    (false, _) => word,
                    (true, None) => "is not allowed to be unset".to_owned(),
                    (true, Some(_)) => "is not allowed to be empty".to_owned(),
                };
                Err(Problem::Demanded { name: name.to_owned(), message })
            }
        }
    }

    fn trimmed(&mut self, end: char, value: Option<&str>) -> Result<String, Problem> {
        let mut pattern = self.word('}', Raw::Yes)?;
        let longest = pattern.starts_with(end);
        if longest {
            pattern.remove(0);
        }
        let value = value.unwrap_or_default();
        let glob = Glob::shell(&pattern);
        let mut cuts: Vec<usize> =
            value.char_indices().map(|(at, _)| at).chain(std::iter::once(value.len())).collect();
        // Candidates are tried from the shortest piece (or the longest) on.
        if (end == '#') == longest {
            cuts.reverse();
        }
        for cut in cuts {
            let (head, tail) = value.split_at(cut);
            let (piece, rest) = if end == '#' { (head, tail) } else { (tail, head) };
            if glob.matches(piece) {
                return Ok(rest.to_owned());
            }
        }
        Ok(value.to_owned())
    }

    fn replaced(&mut self, value: Option<&str>) -> Result<String, Problem> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let pattern = self.word('/', Raw::Yes)?;
        let with = self.word('}', Raw::No)?;
        let value = value.unwrap_or_default();
        let glob = Glob::shell(&pattern);
        let mut out = String::new();
        let mut rest = value;
        while !rest.is_empty() {
            match glob.longest_prefix(rest) {
                Some(length) if length > 0 => {
                    out.push_str(&with);
                    rest = &rest[length..];
                    if !all {
                        break;
                    }
                }
                Some(_) | None => {
                    let width = rest.chars().next().map_or(0, char::len_utf8);
                    out.push_str(&rest[..width]);
                    rest = &rest[width..];
                }
            }
            if out.len() > EXPANDED_BYTES_MAX {
                return Err(Problem::Length);
            }
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// Whether a variable that is set but empty counts as unset (`:` before the modifier).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Null {
    IsUnset,
    IsSet,
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
    open: bool,
}

impl Words {
    fn plain(&mut self, c: char) {
        if c.is_whitespace() {
            self.end();
        } else {
            self.literal(c);
        }
    }

    fn literal(&mut self, c: char) {
        self.word.push(c);
        self.open = true;
    }

    fn quoted(&mut self, text: &str) {
        self.word.push_str(text);
        self.open = true;
    }

    fn split(&mut self, text: &str) {
        for c in text.chars() {
            self.plain(c);
        }
    }

    fn end(&mut self) {
        if self.open {
            self.done.push(std::mem::take(&mut self.word));
            self.open = false;
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.end();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variables(name: &str) -> Option<&'static str> {
        match name {
            "who" => Some("world"),
            "empty" => Some(""),
            "path" => Some("/usr/local/lib/libx.tar.gz"),
            "list" => Some("one two"),
            _ => None,
        }
    }

    #[track_caller]
    fn check(cases: &[(&str, &str)]) {
        for (word, want) in cases {
            let got = match expand(word, '\\', &variables) {
                Ok(text) => text,
                Err(error) => format!("error: {error}"),
            };
            assert_eq!(&got, want, "{word}");
        }
    }

    #[test]
    fn variables_are_replaced_where_quotes_allow() {
        check(&[
            ("hello $who", "hello world"),
            ("${who}s", "worlds"),
            ("'$who'", "$who"),
            ("\"$who\"", "world"),
            ("\\$who", "$who"),
            ("\"\\$who\"", "$who"),
            ("\"a\\tb\"", "a\\tb"),
            ("a\\tb", "atb"),
            ("$", "$"),
            ("$ x", "$ x"),
            ("$none.", "."),
            (
                "he'llo",
                "error: failed to process \"he'llo\": unexpected end of statement while looking for matching single-quote",
            ),
            (
                "\"x",
                "error: failed to process \"\\\"x\": unexpected end of statement while looking for matching double-quote",
            ),
        ]);
    }

    #[test]
    fn modifiers_are_the_shells() {
        check(&[
            ("${none:-a b}", "a b"),
            ("${none-x}", "x"),
            ("${empty:-x}", "x"),
            ("${empty-x}", ""),
            ("${who:+x}", "x"),
            ("${empty:+x}", ""),
            ("${empty+x}", "x"),
            ("${none:-${who}}", "world"),
            ("${none:?gone}", "error: failed to process \"${none:?gone}\": none: gone"),
            (
                "${empty:?}",
                "error: failed to process \"${empty:?}\": empty: is not allowed to be empty",
            ),
            ("${none?}", "error: failed to process \"${none?}\": none: is not allowed to be unset"),
            ("${who?x}", "world"),
            ("${path##*/}", "libx.tar.gz"),
            ("${path#*/}", "usr/local/lib/libx.tar.gz"),
            ("${path%.*}", "/usr/local/lib/libx.tar"),
            ("${path%%.*}", "/usr/local/lib/libx"),
            ("${path/lib/LIB}", "/usr/local/LIB/libx.tar.gz"),
            ("${path//lib/L}", "/usr/local/L/Lx.tar.gz"),
            (
                "${who:#x}",
                "error: failed to process \"${who:#x}\": unsupported modifier (:#) in substitution",
            ),
            ("${who", "error: failed to process \"${who\": syntax error: missing '}'"),
            ("${}", "error: failed to process \"${}\": syntax error: bad substitution"),
            (
                "${who,x}",
                "error: failed to process \"${who,x}\": unsupported modifier (,) in substitution",
            ),
        ]);
    }

    #[test]
    fn words_split_where_no_quote_holds_them() {
        let words = |line: &str| expand_words(line, '\\', &variables).unwrap();
        assert_eq!(words("$list x"), ["one", "two", "x"]);
        assert_eq!(words("\"$list\" x"), ["one two", "x"]);
        assert_eq!(words("a\\ b  c"), ["a b", "c"]);
        assert_eq!(words("$none"), Vec::<String>::new());
        assert_eq!(words("''"), [""]);
    }

    #[test]
    fn a_body_keeps_its_quotes() {
        let body = |text: &str| expand_body(text, '\\', &variables).unwrap();
        assert_eq!(body("it's \"$who\" \\$who \\n"), "it's \"world\" $who \\n");
    }

    proptest! {
        #[test]
        fn no_word_panics(word in "[a-z$\\{\\}:\\-+?#%/'\"\\\\ *\\[\\]]{0,60}") {
            let _ = expand(&word, '\\', &variables);
            let _ = expand_words(&word, '`', &variables);
        }

        #[test]
        fn a_word_without_special_characters_is_itself(word in "[a-zA-Z0-9 _./-]{0,40}") {
            prop_assert_eq!(expand(&word, '\\', &variables).unwrap(), word);
        }
    }
}
