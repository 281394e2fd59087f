//! Git repositories as sources: `https://host/x.git#ref:dir`, `git@host:x.git`, `git://…`.
//!
//! Source: docs.docker.com "Build context", Git repositories; moby `pkg/urlutil`,
//! `builder/remotecontext/urlutil`.

/// A repository, what of it, and at which state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// As git is told.
    pub url: String,
    /// Branch, tag, reference or commit; empty is the repository's own choice.
    pub reference: String,
    /// Relative to its top; empty is all of it.
    pub directory: String,
}

/// Whether the repository's own records stay among the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitDirectory {
    Kept,
    Removed,
}

impl Repository {
    /// Reads a URL; `None` for one that names no repository.
    pub fn parse(text: &str) -> Option<Self> {
        let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (place, query) = match place.split_once('?') {
            Some((place, query)) => (place, query),
            None => (place, ""),
        };
        let is_web = place.starts_with("http://") || place.starts_with("https://");
        let is_git = ["git://", "ssh://", "git@", "github.com/"]
            .iter()
            .any(|prefix| place.starts_with(prefix));
        let is_repository = is_web && place.trim_end_matches('/').ends_with(".git");
        if !is_git && !is_repository {
            return None;
        }
        let url = match place.starts_with("github.com/") {
            true => format!("https://{place}"),
            false => place.to_owned(),
        };
        let (mut reference, mut directory) = match fragment.split_once(':') {
            Some((reference, directory)) => (reference, directory),
            None => (fragment, ""),
        };
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "ref" | "branch" | "tag" | "commit" | "checksum" => reference = value,
                "subdir" => directory = value,
                _ => {}
            }
        }
        // Neither may be taken for an option by the program that gets them.
        let is_plain = |text: &str| {
            !text.starts_with('-') && !text.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        (is_plain(&url) && is_plain(reference)).then(|| Self {
            url,
            reference: reference.to_owned(),
            directory: directory.trim_start_matches('/').to_owned(),
        })
    }

    /// Whether the state is a full commit's name, which servers need not give directly.
    pub fn is_commit(&self) -> bool {
        matches!(self.reference.len(), 40 | 64)
            && self.reference.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_state_and_a_directory() {
        for (text, want) in [
            ("https://h/x.git", Some(("https://h/x.git", "", ""))),
            ("https://h/x.git#v1:docs", Some(("https://h/x.git", "v1", "docs"))),
            ("https://h/x.git#:docs/a", Some(("https://h/x.git", "", "docs/a"))),
            ("https://h/x.git?ref=v1&subdir=/d", Some(("https://h/x.git", "v1", "d"))),
            ("git@h:x/y.git#main", Some(("git@h:x/y.git", "main", ""))),
            ("git://h/x", Some(("git://h/x", "", ""))),
            ("github.com/x/y", Some(("https://github.com/x/y", "", ""))),
            ("https://h/x.tar.gz", None),
            ("http://h/x.git#--upload-pack=evil", None),
            ("x.git", None),
            ("ext::sh -c evil.git", None),
        ] {
            let got = Repository::parse(text);
            let got = got.as_ref().map(|repository| {
                let Repository { url, reference, directory } = repository;
                (url.as_str(), reference.as_str(), directory.as_str())
            });
            assert_eq!(got, want, "{text}");
        }
    }
}
