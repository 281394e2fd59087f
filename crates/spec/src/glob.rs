//! Patterns: Go's `filepath.Match`, `**` on top of it for .dockerignore, and the shell's for
//! `${name#pattern}`.
//!
//! A pattern is parsed into tokens once and matched by backtracking over one star at a time
//! (`**` and `*` remember only the last place to retry from), so the cost is bounded by
//! pattern × text and no pattern can explode.
//!
//! Invariant: matching never fails; a malformed pattern is refused when it is made.
//! Source: Go `path/filepath.Match`; docs.docker.com "Dockerfile reference", .dockerignore.

use std::collections::HashSet;

/// A pattern that Go's `filepath.Match` would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`: one character, no separator.
    One,
    /// `*`: any characters, no separator.
    Star,
    /// `**` in front of something: any number of whole directories, also none.
    Dirs,
    /// `**` at the end (and the shell's `*`): anything at all.
    All,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// One parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

impl Glob {
    /// A pattern of Go's `filepath.Match`, as `COPY a*.txt` uses it: `*` stops at `/`.
    ///
    /// # Errors
    /// An open `[`, an empty class, or a `\` at the end.
    pub fn path(pattern: &str) -> Result<Self, BadPattern> {
        Ok(Self { tokens: tokens(pattern, false)? })
    }

    /// A line of .dockerignore: as [`Glob::path`], and `**` crosses directories. A pattern that has
    /// nothing special but `**` at its start, such as `**file`, matches whatever ends so.
    ///
    /// # Errors
    /// As [`Glob::path`].
    ///
    /// Source: moby/patternmatcher, `compile` and its suffix matches.
    pub fn tree(pattern: &str) -> Result<Self, BadPattern> {
        if let Some(suffix) = pattern.strip_prefix("**")
            && !suffix.is_empty()
            && !suffix.starts_with('/')
            && !suffix.contains(['*', '?', '[', ']', '\\'])
        {
            let suffix = suffix.chars().map(Token::Char);
            return Ok(Self { tokens: std::iter::once(Token::All).chain(suffix).collect() });
        }
        Ok(Self { tokens: tokens(pattern, true)? })
    }

    /// A pattern of `${name#pattern}`: `*` and `?` match everything, `[` is itself.
    pub fn shell(pattern: &str) -> Self {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::All,
                '?' => Token::Class { negated: true, ranges: Vec::new() },
                '\\' => Token::Char(chars.next().unwrap_or('\\')),
                other => Token::Char(other),
            });
        }
        Self { tokens }
    }

    /// Whether the pattern matches the whole of `text`.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.ends(&text).contains(&text.len())
    }

    /// The bytes of the longest start of `text` that matches.
    pub fn longest_prefix(&self, text: &str) -> Option<usize> {
        let chars: Vec<char> = text.chars().collect();
        let end = self.ends(&chars).into_iter().max()?;
        Some(chars[..end].iter().map(|c| c.len_utf8()).sum())
    }

    /// Every place where a match from the start may end: the set of states of the automaton after
    /// all tokens.
    fn ends(&self, text: &[char]) -> HashSet<usize> {
        let mut places = HashSet::from([0_usize]);
        for token in &self.tokens {
            let mut next = HashSet::with_capacity(places.len());
            match token {
                Token::Star => {
                    for &place in &places {
                        let mut at = place;
                        while next.insert(at) && at < text.len() && text[at] != '/' {
                            at += 1;
                        }
                    }
                }
                Token::All => {
                    if let Some(&first) = places.iter().min() {
                        next.extend(first..=text.len());
                    }
                }
                Token::Dirs => {
                    if let Some(&first) = places.iter().min() {
                        next.extend(
                            (first..text.len()).filter(|&at| text[at] == '/').map(|at| at + 1),
                        );
                    }
                    next.extend(&places);
                }
                Token::Char(_) | Token::One | Token::Class { .. } => {
                    next.extend(
                        places
                            .iter()
                            .filter(|&&at| at < text.len() && token.takes(text[at]))
                            .map(|at| at + 1),
                    );
                }
            }
            if next.is_empty() {
                return next;
            }
            places = next;
        }
        places
    }
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::One => c != '/',
            Self::Class { negated, ranges } => {
                ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated
            }
            Self::Star | Self::Dirs | Self::All => false,
        }
    }
}

/// Whether `text` has a character that [`Glob::path`] gives a meaning.
pub fn has_wildcards(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

fn tokens(pattern: &str, tree: bool) -> Result<Vec<Token>, BadPattern> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = Vec::with_capacity(chars.len());
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        at += 1;
        match c {
            '*' if tree && chars.get(at) == Some(&'*') => {
                at += 1;
                at += usize::from(chars.get(at) == Some(&'/'));
                out.push(if at == chars.len() { Token::All } else { Token::Dirs });
            }
            '*' => out.push(Token::Star),
            '?' => out.push(Token::One),
            '\\' => {
                out.push(Token::Char(*chars.get(at).ok_or(BadPattern)?));
                at += 1;
            }
            '[' => {
                let (class, end) = class(&chars, at)?;
                out.push(class);
                at = end;
            }
            other => out.push(Token::Char(other)),
        }
    }
    Ok(out)
}

fn class(chars: &[char], mut at: usize) -> Result<(Token, usize), BadPattern> {
    let negated = chars.get(at) == Some(&'^');
    if negated {
        at += 1;
    }
    let mut ranges = Vec::new();
    loop {
        if chars.get(at) == Some(&']') && !ranges.is_empty() {
            return Ok((Token::Class { negated, ranges }, at + 1));
        }
        let (low, next) = class_char(chars, at)?;
        at = next;
        let mut high = low;
        if chars.get(at) == Some(&'-') {
            (high, at) = class_char(chars, at + 1)?;
        }
        ranges.push((low, high));
    }
}

fn class_char(chars: &[char], at: usize) -> Result<(char, usize), BadPattern> {
    match chars.get(at) {
        None | Some('-' | ']') => Err(BadPattern),
        Some('\\') => chars.get(at + 1).map(|&c| (c, at + 2)).ok_or(BadPattern),
        Some(&c) => Ok((c, at + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(make: fn(&str) -> Result<Glob, BadPattern>, cases: &[(&str, &str, Option<bool>)]) {
        for (pattern, text, want) in cases {
            let got = make(pattern).ok().map(|glob| glob.matches(text));
            assert_eq!(&got, want, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_star_stops_at_a_separator() {
        check(
            Glob::path,
            &[
                ("*.txt", "a.txt", Some(true)),
                ("*.txt", "d/a.txt", Some(false)),
                ("a?c", "abc", Some(true)),
                ("a?c", "a/c", Some(false)),
                ("[a-c]x", "bx", Some(true)),
                ("[^a-c]x", "bx", Some(false)),
                ("a\\*b", "a*b", Some(true)),
                ("a\\*b", "axb", Some(false)),
                ("[", "x", None),
                ("[]a]", "a", None),
                ("a\\", "a", None),
                ("a*b*c", "a1b2c", Some(true)),
                ("", "", Some(true)),
            ],
        );
    }

    #[test]
    fn two_stars_cross_directories() {
        check(
            Glob::tree,
            &[
                ("**", "a/b/c", Some(true)),
                ("**/c", "c", Some(true)),
                ("**/c", "a/b/c", Some(true)),
                ("**/c", "a/bc", Some(false)),
                ("a/**", "a/b/c", Some(true)),
                ("a/**/d", "a/d", Some(true)),
                ("a/**/d", "a/b/c/d", Some(true)),
                ("**.go", "a/b.go", Some(true)),
                ("**/", "a/b", Some(true)),
                ("**/**", "a/b", Some(true)),
                ("**file", "d/afile", Some(true)),
                ("**/**/*.txt", "d/e/f.txt", Some(true)),
                ("**/**/*.txt", "f.txt", Some(true)),
                ("a**/*.txt", "a/f.txt", Some(true)),
                ("a**/*.txt", "a/d/e/f.txt", Some(true)),
                ("a**/*.txt", "ab/f.txt", Some(true)),
                ("a**b", "ab", Some(true)),
                ("a**b", "axb", Some(false)),
                ("a**b", "ax/yb", Some(false)),
                ("a**b", "ax/b", Some(true)),
                ("a/*.txt**", "a/f.txt", Some(true)),
                ("a/*.txt", "a/d/f.txt", Some(false)),
                ("**/d/*", "x/d/f", Some(true)),
                ("**/f[12].txt", "x/f2.txt", Some(true)),
                ("a.b", "aXb", Some(false)),
                ("*", "a/b", Some(false)),
            ],
        );
    }

    #[test]
    fn a_long_hostile_pattern_ends_soon() {
        let glob = Glob::tree(&"*a".repeat(200)).unwrap();
        assert!(!glob.matches(&"a".repeat(150)));
        let glob = Glob::tree(&("**/".repeat(200) + "x")).unwrap();
        assert!(!glob.matches(&"a/b".repeat(100)));
    }

    proptest! {
        #[test]
        fn a_text_matches_itself_when_it_has_no_special_characters(text in "[a-z/._-]{0,30}") {
            prop_assert!(Glob::path(&text).unwrap().matches(&text));
        }

        #[test]
        fn no_pattern_panics(pattern in "[a-c*?\\[\\]^\\\\/-]{0,20}", text in "[a-c/]{0,20}") {
            let _ = Glob::tree(&pattern).map(|glob| glob.matches(&text));
            let _ = Glob::shell(&pattern).longest_prefix(&text);
        }
    }
}
