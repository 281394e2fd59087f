//! Reading a context that was not unpacked: its listing answers what builds ask of most files.
//!
//! Invariant: every answer is the one that [`super::files::Tree`] gives of the same files on disk,
//! digests too, so that a step's key does not depend on how its context was kept.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use build::worker::{Failure, Files, NodeKind};
use rustix::fs::{FileType, RawMode};
use spec::Digest;
use spec::ignore::Ignore;
use store::listing::{Directory, Listed};

use super::files::{Hasher, relative, unreadable};

/// As many links as the kernel follows. Source: path_resolution(7).
const LINKS_MAX: usize = 40;

/// A listed tree, less what is to be left out.
pub(super) struct ListedTree {
    pub(super) tree: Arc<Directory>,
    pub(super) ignore: Arc<Ignore>,
}

/// Where a path leads, links followed.
enum Found<'a> {
    Directory(&'a Directory),
    File { mode: u32, size: u64, digest: &'a [u8; 32] },
}

impl ListedTree {
    fn hides(&self, path: &str) -> bool {
        !path.is_empty() && self.ignore.excludes(path) && !self.ignore.may_let_in_below(path)
    }

    /// Links lead no further up than to the root, as on disk.
    fn resolve(&self, path: &str) -> Option<Found<'_>> {
        let split = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect()
        };
        let mut left: VecDeque<Vec<u8>> = split(path.as_bytes()).into();
        let mut way: Vec<&Directory> = vec![&self.tree];
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    way.truncate(way.len().saturating_sub(1).max(1));
                    continue;
                }
                _ => {}
            }
            match way.last()?.children.get(&part)? {
                Listed::Directory(child) => way.push(child),
                Listed::File { mode, size, digest } if left.is_empty() => {
                    return Some(Found::File { mode: *mode, size: *size, digest });
                }
                Listed::File { .. } => return None,
                Listed::Link(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    for part in split(target).into_iter().rev() {
                        left.push_front(part);
                    }
                }
            }
        }
        way.last().map(|directory| Found::Directory(directory))
    }

    /// Puts a directory's content into `hasher`; `path` from the root, `below` from its start.
    fn add(
        &self,
        hasher: &mut Hasher,
        directory: &Directory,
        path: &str,
        below: &str,
        keep: &dyn Fn(&str) -> bool,
    ) {
        hasher.mode(FileType::Directory.as_raw_mode() | directory.mode);
        for (name, child) in &directory.children {
            let text = String::from_utf8_lossy(name);
            let inside = build::select::join(path, &text);
            let relative = build::select::join(below, &text);
            if self.hides(&inside) || !keep(&relative) {
                continue;
            }
            let is_directory = matches!(child, Listed::Directory(_));
            if self.ignore.excludes(&inside) && !is_directory {
                continue;
            }
            hasher.part(name);
            match child {
                Listed::Directory(child) => self.add(hasher, child, &inside, &relative, keep),
                Listed::File { mode, size, digest } => {
                    hasher.mode(FileType::RegularFile.as_raw_mode() | mode);
                    hasher.content(digest, *size);
                }
                Listed::Link(target) => hasher.link(target),
            }
        }
        hasher.end();
    }
}

impl Files for ListedTree {
    fn kind(&self, path: &str) -> Result<Option<NodeKind>, Failure> {
        let path = relative(path);
        if self.hides(&path) {
            return Ok(None);
        }
        Ok(self.resolve(&path).map(|found| match found {
            Found::Directory(_) => NodeKind::Directory,
            Found::File { .. } => NodeKind::File,
        }))
    }

    fn names(&self, directory: &str) -> Result<Vec<String>, Failure> {
        let directory = relative(directory);
        let Some(Found::Directory(found)) = self.resolve(&directory) else {
            return Err(missing(&directory));
        };
        let names = found.children.keys().filter_map(|name| String::from_utf8(name.clone()).ok());
        Ok(names.filter(|name| !self.hides(&build::select::join(&directory, name))).collect())
    }

    fn digest(&self, path: &str, keep: &dyn Fn(&str) -> bool) -> Result<Digest, Failure> {
        let path = relative(path);
        let mut hasher = Hasher::default();
        match self.resolve(&path) {
            None => return Err(missing(&path)),
            Some(Found::Directory(directory)) => self.add(&mut hasher, directory, &path, "", keep),
            Some(Found::File { mode, size, digest }) => {
                hasher.mode(FileType::RegularFile.as_raw_mode() | mode as RawMode);
                hasher.content(digest, size);
            }
        }
        Ok(hasher.finish())
    }
}

fn missing(path: &str) -> Failure {
    let error = std::io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error());
    unreadable(&Path::new("/").join(path).to_string_lossy(), &error)
}
