//! Which files a COPY or ADD means: sources and patterns against a tree.
//!
//! Patterns are matched part by part, so a directory is listed only where a pattern needs it.
//! Source: docs.docker.com "Dockerfile reference", COPY and ADD.

use spec::glob::{Glob, has_wildcards};
use spec::ignore::clean;

use crate::worker::{Failure, Files, Item, NodeKind, Origin};

/// Most files that one pattern may select.
pub const MATCHES_MAX: usize = 1 << 20;

/// A source that selects nothing, in Docker's words.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SelectError {
    #[error(
        "file not found in build context or excluded by .dockerignore: stat {0}: file does not exist"
    )]
    Missing(String),
    #[error("stat {0}: file does not exist")]
    MissingElsewhere(String),
    #[error("forbidden path outside the build context: {0} ()")]
    Outside(String),
    #[error("no source files were specified")]
    Nothing,
    #[error("{0:?}: syntax error in pattern")]
    Pattern(String),
    #[error("{0:?} selects too many files")]
    TooMany(String),
    #[error("{0}")]
    Worker(#[from] Failure),
}

/// Whether directories above a source are kept (`--parents`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parents {
    Kept,
    Dropped,
}

/// The items that `sources` (expanded) name in `files`.
///
/// # Errors
/// A source that is not there, and patterns that match nothing at all.
pub fn select(
    files: &dyn Files,
    origin: &Origin,
    sources: &[String],
    parents: Parents,
) -> Result<Vec<Item>, SelectError> {
    let mut items = Vec::new();
    for source in sources {
        let cleaned = relative(origin, source)?;
        let found = match has_wildcards(&cleaned) {
            true => matching(files, &cleaned, source)?,
            false => vec![cleaned.clone()],
        };
        let pivot = (parents == Parents::Kept).then(|| pivot(source));
        for path in found {
            let Some(kind) = files.kind(&path)? else {
                return Err(match origin {
                    Origin::Context | Origin::Named(_) => SelectError::Missing(path),
                    Origin::Layers(_) => SelectError::MissingElsewhere(path),
                });
            };
            let below = pivot.as_deref().map(|pivot| below(&path, pivot));
            items.push(Item { path, kind, below });
        }
    }
    match items.is_empty() && !sources.is_empty() {
        true => Err(SelectError::Nothing),
        false => Ok(items),
    }
}

/// The source from the tree's root: no leading `/`, no way out.
fn relative(origin: &Origin, source: &str) -> Result<String, SelectError> {
    let by_text = clean(source);
    if !matches!(origin, Origin::Layers(_)) && (by_text == ".." || by_text.starts_with("../")) {
        return Err(SelectError::Outside(source.to_owned()));
    }
    let rooted = clean(&format!("/{source}"));
    Ok(rooted.trim_start_matches('/').to_owned())
}

/// The part of a source in front of `/./`, which `--parents` leaves out.
fn pivot(source: &str) -> String {
    let head = source.split_once("/./").map(|(head, _)| head).unwrap_or_default();
    clean(&format!("/{head}")).trim_start_matches('/').to_owned()
}

/// The directory of `path` from `pivot` on.
fn below(path: &str, pivot: &str) -> String {
    let rest = path.strip_prefix(pivot).unwrap_or(path).trim_start_matches('/');
    rest.rsplit_once('/').map(|(directory, _)| directory).unwrap_or_default().to_owned()
}

fn matching(files: &dyn Files, pattern: &str, source: &str) -> Result<Vec<String>, SelectError> {
    let mut found = vec![String::new()];
    let parts: Vec<&str> = pattern.split('/').collect();
    for (index, part) in parts.iter().enumerate() {
        let is_last = index + 1 == parts.len();
        let mut next = Vec::new();
        for directory in found {
            if *part == "**" {
                next.push(directory.clone());
                descend(files, &directory, &mut next, source)?;
            } else {
                children(files, &directory, part, is_last, &mut next, source)?;
            }
            if next.len() > MATCHES_MAX {
                return Err(SelectError::TooMany(source.to_owned()));
            }
        }
        next.sort();
        next.dedup();
        found = next;
    }
    Ok(found)
}

/// The children of `directory` that `part` matches; only the last part may match a file.
fn children(
    files: &dyn Files,
    directory: &str,
    part: &str,
    is_last: bool,
    out: &mut Vec<String>,
    source: &str,
) -> Result<(), SelectError> {
    let glob = Glob::path(part).map_err(|_| SelectError::Pattern(source.to_owned()))?;
    for name in files.names(directory)? {
        if !glob.matches(&name) {
            continue;
        }
        let path = join(directory, &name);
        if is_last || files.kind(&path)? == Some(NodeKind::Directory) {
            out.push(path);
        }
    }
    Ok(())
}

fn descend(
    files: &dyn Files,
    directory: &str,
    out: &mut Vec<String>,
    source: &str,
) -> Result<(), SelectError> {
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for name in files.names(&directory)? {
            let path = join(&directory, &name);
            if files.kind(&path)? == Some(NodeKind::Directory) {
                out.push(path.clone());
                left.push(path);
            }
            if out.len() > MATCHES_MAX {
                return Err(SelectError::TooMany(source.to_owned()));
            }
        }
    }
    Ok(())
}

pub fn join(directory: &str, name: &str) -> String {
    match directory {
        "" | "." => name.to_owned(),
        _ => format!("{directory}/{name}"),
    }
}
