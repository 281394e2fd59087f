//! `.dockerignore`: which files of a build context are left out.
//!
//! Lines are read in order and the last one that matches a path, or one of its parent
//! directories, decides; `!` lets it in again. The Dockerfile and `.dockerignore` themselves are
//! always sent (the builder needs them) and are left out of `COPY` all the same when a line says so.
//!
//! Source: docs.docker.com "Build context", .dockerignore files; moby/patternmatcher.

use crate::glob::{BadPattern, Glob};

/// A `.dockerignore` that cannot be used, by line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    #[error("illegal exclusion pattern: \"!\"")]
    LoneNegation,
    #[error("failed parsing ignore pattern {pattern:?}: syntax error in pattern")]
    Pattern { pattern: String },
}

/// Patterns in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    glob: Glob,
    text: String,
    lets_in: bool,
}

impl Ignore {
    /// Reads the file's text.
    ///
    /// # Errors
    /// A pattern that is malformed, or a `!` with nothing behind it.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // A comment has its `#` in the first column, before blanks are taken off.
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim);
        Self::from_patterns(lines.filter(|line| !line.is_empty()))
    }

    /// From patterns that are already apart, as `--exclude` gives them.
    ///
    /// # Errors
    /// As [`Ignore::parse`].
    pub fn from_patterns<'a>(
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, IgnoreError> {
        let mut rules = Vec::new();
        for line in patterns {
            let (lets_in, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if pattern.is_empty() && lets_in {
                return Err(IgnoreError::LoneNegation);
            }
            let cleaned = clean(pattern);
            let text = cleaned.trim_start_matches('/').to_owned();
            if text.is_empty() || text == "." {
                // "." and "/" name the context's root, which is never left out itself.
                continue;
            }
            let glob = Glob::tree(&text)
                .map_err(|BadPattern| IgnoreError::Pattern { pattern: pattern.to_owned() })?;
            rules.push(Rule { glob, text, lets_in });
        }
        Ok(Self { rules })
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether `path` (relative, `/` between parts, no leading `/`) is left out.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for rule in &self.rules {
            // Only a rule that would change the answer needs a look.
            if rule.lets_in == excluded && rule.covers(path) {
                excluded = !rule.lets_in;
            }
        }
        excluded
    }

    /// Whether a directory that is left out may still hold something that is let in again, so that
    /// it has to be walked.
    pub fn may_let_in_below(&self, directory: &str) -> bool {
        self.rules.iter().filter(|rule| rule.lets_in).any(|rule| {
            let fixed_end = rule.text.find(['*', '?', '[', '\\']).unwrap_or(rule.text.len());
            let fixed = &rule.text[..fixed_end];
            let inside = format!("{directory}/");
            fixed.starts_with(&inside) || inside.starts_with(fixed)
        })
    }
}

impl Rule {
    fn covers(&self, path: &str) -> bool {
        self.glob.matches(path) || parents(path).any(|parent| self.glob.matches(parent))
    }
}

/// The parent directories of a relative path, nearest first.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('/').map(|(at, _)| &path[..at])
}

/// A path with `.`, `..` and doubled separators resolved by text alone, as Go's `path.Clean`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                Some(_) | None if !rooted => parts.push(".."),
                Some(_) | None => {}
            },
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(ignore: &str, excluded: &[&str], kept: &[&str]) {
        let ignore = Ignore::parse(ignore).unwrap();
        for path in excluded {
            assert!(ignore.excludes(path), "{path} should be left out");
        }
        for path in kept {
            assert!(!ignore.excludes(path), "{path} should be kept");
        }
    }

    #[test]
    fn a_directory_takes_its_contents_along() {
        check(
            "node_modules\n",
            &["node_modules", "node_modules/a/b"],
            &["src/node_modules", "node_modules2"],
        );
    }

    #[test]
    fn the_last_line_that_matches_decides() {
        check("*.md\n!README.md\n", &["a.md"], &["README.md", "d/a.md"]);
        check("!README.md\n*.md\n", &["README.md"], &[]);
        check("docs\n!docs/keep.txt\n", &["docs/a.txt"], &["docs/keep.txt"]);
        check(
            "*\n!src\n!src/**\nsrc/secret\n",
            &["a", "src/secret", "src/secret/x"],
            &["src", "src/a", "src/a/b"],
        );
    }

    #[test]
    fn comments_blanks_slashes_and_dots_are_cleaned_off() {
        check("# no\n\n  /a/ \n./b/../c\n.\n", &["a", "a/x", "c"], &["no", "b", "d"]);
        check("\u{feff}x\r\ny\r\n", &["x", "y"], &[]);
    }

    #[test]
    fn two_stars_reach_every_level() {
        check("**/*.pyc\n**/tmp\n", &["a.pyc", "a/b.pyc", "x/tmp/y"], &["a.py"]);
        check("a/**/z\n", &["a/z", "a/b/z", "a/b/c/z/x"], &["z"]);
    }

    #[test]
    fn an_exception_may_stand_below_a_wildcard() {
        let text = "*\n!*/*.txt\n";
        check(text, &["a.txt", "d", "d/a.md", "d/e/a.txt"], &["d/a.txt"]);
        let ignore = Ignore::parse(text).unwrap();
        assert!(ignore.may_let_in_below("d"));
        check("**\n!**/keep/**\n", &["a", "d/a"], &["keep/a", "d/keep/e/a"]);
        check("d/*\n!d/[ab]*/\nd/*/x\n", &["d/c", "d/a/x"], &["d/a", "d/b/y", "d"]);
    }

    /// One row for each kind of moby/patternmatcher's own table.
    #[test]
    fn the_kinds_of_dockers_own_table_agree() {
        for (pattern, path, is_out) in [
            ("/a", "a", true),
            ("/a/", "a/b", true),
            ("./a", "a", true),
            ("a/./b", "a/b", true),
            ("a/../b", "b", true),
            ("..", "a", false),
            ("../a", "a", false),
            ("a b", "a b", true),
            ("# a", "# a", false),
            (" #a", "#a", true),
            ("\\#a", "#a", true),
            ("\\!a", "!a", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("[a-c]", "b", true),
            ("[^a-c]", "b", false),
            ("a?c", "a/c", false),
            ("日*", "日本", true),
            ("A", "a", false),
            (".*", ".git/x", true),
            (".*", "a", false),
            ("a*", "b/a", false),
            ("*/a", "b/a/c", true),
        ] {
            let ignore = Ignore::parse(pattern).unwrap();
            assert_eq!(ignore.excludes(path), is_out, "{pattern} on {path}");
        }
        check("a\r\n\r\n!b\r\n# c\r\n", &["a"], &["b", "c"]);
        check("d\n! d/e \n", &["d/f"], &["d/e"]);
    }

    #[test]
    fn a_malformed_line_is_named() {
        let text = |ignore: &str| Ignore::parse(ignore).unwrap_err().to_string();
        assert_eq!(
            text("a\n[b\n"),
            "failed parsing ignore pattern \"[b\": syntax error in pattern"
        );
        assert_eq!(text("!\n"), "illegal exclusion pattern: \"!\"");
    }

    #[test]
    fn a_left_out_directory_is_walked_only_for_what_is_let_in_below_it() {
        let ignore = Ignore::parse("*\n!a/b/c\n!x*\n").unwrap();
        assert!(ignore.may_let_in_below("a"));
        assert!(ignore.may_let_in_below("a/b"));
        assert!(!ignore.may_let_in_below("q"));
        assert!(ignore.may_let_in_below("xx"));
    }

    #[test]
    fn paths_are_cleaned_by_text() {
        for (path, want) in [
            ("a/./b//c/..", "a/b"),
            ("/..", "/"),
            ("", "."),
            ("../a", "../a"),
            ("/a/../../b/", "/b"),
            ("a/..", "."),
        ] {
            assert_eq!(clean(path), want, "{path}");
        }
    }

    proptest! {
        #[test]
        fn cleaning_twice_is_cleaning_once(path in "[ab./]{0,20}") {
            prop_assert_eq!(clean(&clean(&path)), clean(&path));
        }

        #[test]
        fn no_file_panics(text in "[ab*!#/\\[\\]\n .]{0,40}", path in "[ab/]{1,12}") {
            let _ = Ignore::parse(&text).map(|ignore| ignore.excludes(&path));
        }
    }
}
