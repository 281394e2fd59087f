//! From a Dockerfile's bytes to its logical lines.
//!
//! Directives (`# escape=`, `# syntax=`, `# check=`) are read from the first lines, before anything
//! else. Then physical lines are joined at the escape character, comments and empty lines between
//! them dropped, and the bodies of heredocs taken off the lines that announce them.
//!
//! Bounds: [`SOURCE_BYTES_MAX`], and nothing here recurses.
//! Source: docs.docker.com "Dockerfile reference", format and parser directives.

use crate::instruction::{Heredoc, Span};
use crate::parse::{ParseError, Problem};

/// Longest Dockerfile that is read.
pub const SOURCE_BYTES_MAX: usize = 16 << 20;

/// What the first lines of a Dockerfile ask of its reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `\` or `` ` ``.
    pub escape: char,
    /// The frontend image asked for; the built-in one reads every Dockerfile.
    pub syntax: Option<String>,
    pub check: Option<String>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { escape: '\\', syntax: None, check: None }
    }
}

/// One logical line: continuations joined, comments gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub span: Span,
    pub text: String,
    pub heredocs: Vec<Heredoc>,
    /// Line of an empty line within a continuation, which Docker warns about.
    pub empty_continuation: bool,
}

/// Splits a Dockerfile.
///
/// # Errors
/// A file that is too long or not UTF-8, an unknown escape character, a directive given twice, or
/// a heredoc without its end.
pub fn split(source: &[u8]) -> Result<(Directives, Vec<Line>), ParseError> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(ParseError::at(Span::line(1), Problem::SourceLength));
    }
    let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
    let source = String::from_utf8_lossy(source);
    let physical: Vec<&str> = source.lines().collect();
    let (directives, _) = directives(&physical)?;
    let mut reader = Reader { physical: &physical, at: 0, escape: directives.escape };
    let mut lines = Vec::new();
    while let Some(line) = reader.next()? {
        lines.push(line);
    }
    Ok((directives, lines))
}

fn directives(physical: &[&str]) -> Result<(Directives, usize), ParseError> {
    let mut found = Directives::default();
    let mut seen: Vec<String> = Vec::new();
    for (index, line) in physical.iter().enumerate() {
        // A Dockerfile may be a program: `#!/usr/bin/env -S docker build -f`.
        if index == 0 && line.starts_with("#!") {
            continue;
        }
        let Some((key, value)) = directive(line) else { return Ok((found, index)) };
        let span = Span::line(index + 1);
        if !matches!(key.as_str(), "escape" | "syntax" | "check") {
            return Ok((found, index));
        }
        if seen.contains(&key) {
            return Err(ParseError::at(span, Problem::DirectiveTwice(key)));
        }
        match key.as_str() {
            "escape" => {
                found.escape = match value.as_str() {
                    "\\" => '\\',
                    "`" => '`',
                    _ => return Err(ParseError::at(span, Problem::Escape(value))),
                };
            }
            "syntax" => found.syntax = Some(value),
            _ => found.check = Some(value),
        }
        seen.push(key);
    }
    Ok((found, physical.len()))
}

fn directive(line: &str) -> Option<(String, String)> {
    let rest = line.trim_start().strip_prefix('#')?;
    let (key, value) = rest.split_once('=')?;
    let key = key.trim().to_ascii_lowercase();
    let value = value.trim();
    let is_word = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric());
    (is_word && !value.is_empty()).then(|| (key, value.to_owned()))
}

struct Reader<'a> {
    physical: &'a [&'a str],
    at: usize,
    escape: char,
}

impl<'a> Reader<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let line = *self.physical.get(self.at)?;
        self.at += 1;
        Some(line)
    }

    fn next(&mut self) -> Result<Option<Line>, ParseError> {
        let mut text = String::new();
        let mut empty_continuation = false;
        let start = loop {
            let Some(line) = self.take() else { return Ok(None) };
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (part, goes_on) = self.part(line);
            text.push_str(part);
            let start = self.at;
            if goes_on {
                self.continued(&mut text, &mut empty_continuation);
            }
            if !text.trim().is_empty() {
                break start;
            }
            text.clear();
        };
        let heredocs = self.heredocs(&text, start)?;
        Ok(Some(Line { span: Span { start, end: self.at }, text, heredocs, empty_continuation }))
    }

    fn continued(&mut self, text: &mut String, empty: &mut bool) {
        while let Some(line) = self.take() {
            let bare = line.trim_start();
            if bare.starts_with('#') {
                continue;
            }
            if bare.is_empty() {
                *empty = true;
                continue;
            }
            let (part, goes_on) = self.part(line);
            text.push_str(part);
            if !goes_on {
                return;
            }
        }
    }

    /// The line without its continuation mark, and whether it had one: the escape character at the
    /// end, blanks behind it allowed, not itself escaped.
    fn part<'b>(&self, line: &'b str) -> (&'b str, bool) {
        let bare = line.trim_end_matches([' ', '\t']);
        match bare.strip_suffix(self.escape) {
            Some(head) if !head.ends_with(self.escape) => (head, true),
            Some(_) | None => (line, false),
        }
    }

    fn heredocs(&mut self, text: &str, start: usize) -> Result<Vec<Heredoc>, ParseError> {
        let mut found = announced(text, self.escape);
        for heredoc in &mut found {
            let mut body = String::new();
            loop {
                let Some(line) = self.take() else {
                    let span = Span { start, end: self.at };
                    return Err(ParseError::at(span, Problem::HeredocEnd));
                };
                let bare = if heredoc.strip_tabs { line.trim_start_matches('\t') } else { line };
                if bare == heredoc.name {
                    break;
                }
                body.push_str(bare);
                body.push('\n');
            }
            heredoc.body = body;
        }
        Ok(found)
    }
}

/// The heredocs that a logical line of RUN, COPY or ADD announces, bodies still empty.
fn announced(text: &str, escape: char) -> Vec<Heredoc> {
    if !text.contains("<<") {
        return Vec::new();
    }
    let text = text.trim_start();
    let keyword = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    let rest = match keyword.as_str() {
        "RUN" | "COPY" | "ADD" => &text[keyword.len()..],
        // An ONBUILD carries its instruction's heredocs.
        "ONBUILD" => {
            let rest = text[keyword.len()..].trim_start();
            let inner = rest.split_whitespace().next().unwrap_or_default();
            if !matches!(inner.to_ascii_uppercase().as_str(), "RUN" | "COPY" | "ADD") {
                return Vec::new();
            }
            &rest[inner.len()..]
        }
        _ => return Vec::new(),
    };
    // Exec form holds no heredoc.
    if rest.trim_start().starts_with('[') {
        return Vec::new();
    }
    raw_words(rest, escape).iter().filter_map(|word| heredoc_word(word)).collect()
}

/// White-space separated words with their quotes kept.
pub fn raw_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && (c == '\'' || c == '"') {
            quote = Some(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `[fd]<<[-]NAME`, the name bare or quoted.
pub fn heredoc_word(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let quoted =
        ['"', '\''].into_iter().find_map(|quote| rest.strip_prefix(quote)?.strip_suffix(quote));
    let name = quoted.unwrap_or(rest);
    let fits = |c: char| !matches!(c, '<' | '\'' | '"') && !c.is_whitespace();
    if name.is_empty() || !name.chars().all(fits) {
        return None;
    }
    Some(Heredoc {
        name: name.to_owned(),
        body: String::new(),
        strip_tabs,
        expand: quoted.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    #[track_caller]
    fn check(source: &str, want: Expect) {
        let text = match split(source.as_bytes()) {
            Err(error) => format!("error: {error}\n"),
            Ok((directives, lines)) => {
                let mut text = match (directives.escape, &directives.syntax) {
                    ('\\', None) => String::new(),
                    (escape, syntax) => format!("escape {escape} syntax {syntax:?}\n"),
                };
                for line in lines {
                    text.push_str(&format!(
                        "{}-{} {:?}",
                        line.span.start, line.span.end, line.text
                    ));
                    for heredoc in line.heredocs {
                        text.push_str(&format!(" <<{} {:?}", heredoc.name, heredoc.body));
                    }
                    text.push('\n');
                }
                text
            }
        };
        want.assert_eq(&text);
    }

    #[test]
    fn a_continued_line_is_one_instruction() {
        check(
            "FROM a\n\nRUN a \\\n  # a comment\n\n    b\\\n c\nCMD x",
            expect![[r#"
                1-1 "FROM a"
                3-7 "RUN a     b c"
                8-8 "CMD x"
            "#]],
        );
    }

    #[test]
    fn a_mark_and_carriage_returns_are_taken_off() {
        check(
            "\u{feff}FROM a\r\nRUN x \\\r\n y\r\n",
            expect![[r#"
                1-1 "FROM a"
                2-3 "RUN x  y"
            "#]],
        );
    }

    #[test]
    fn directives_stand_before_everything_else() {
        check(
            "# Syntax = docker/dockerfile:1\n#escape=`\nRUN a `\n b\\\nRUN c\n",
            expect![[r#"
                escape ` syntax Some("docker/dockerfile:1")
                3-4 "RUN a  b\\"
                5-5 "RUN c"
            "#]],
        );
        check(
            "# note\n# escape=`\nRUN a`\n",
            expect![[r#"
            3-3 "RUN a`"
        "#]],
        );
        check(
            "#!/usr/bin/env -S docker build -f\n# escape=`\nRUN a `\n b\n",
            expect![[r#"
                escape ` syntax None
                3-4 "RUN a  b"
            "#]],
        );
        check(
            "# escape=x\n",
            expect![[r#"
            error: invalid escape token 'x' does not match ` or \
        "#]],
        );
        check(
            "# escape=`\n# escape=`\n",
            expect![[r#"
            error: only one escape parser directive can be used
        "#]],
        );
    }

    #[test]
    fn heredocs_are_taken_off_in_order() {
        check(
            "RUN <<A cat <<-'B'\none\nA\n\ttwo\n\tB\nCOPY <<x /y\n$z\nx\nENV a=<<b\n",
            expect![[r#"
                1-5 "RUN <<A cat <<-'B'" <<A "one\n" <<B "two\n"
                6-8 "COPY <<x /y" <<x "$z\n"
                9-9 "ENV a=<<b"
            "#]],
        );
        check(
            "RUN <<A\none\n",
            expect![[r#"
            error: unterminated heredoc
        "#]],
        );
    }

    proptest! {
        #[test]
        fn no_file_panics(source in "[A-Z#\\\\<\"' a=\n\r`-]{0,80}") {
            let _ = split(source.as_bytes());
        }
    }
}
