//! Drafts: layers in the making.
//!
//! A draft is a directory below `tmp/` that becomes `layers/<diff id>` by one rename, so a layer is
//! there whole or not at all; a draft that is dropped leaves nothing behind. Its tree and its recipe
//! are written side by side:
//! ```text
//! tmp/<n>/diff      the tree, an overlayfs lower directory
//! tmp/<n>/recipe    how the tree gives the layer's tar
//! tmp/<n>/kept/     files that a later entry of the same tar replaced
//! tmp/<n>/layer.json
//! ```
//! Three ways fill one: a foreign tar ([`Draft::unpack`]), single entries ([`Draft::add`], for COPY,
//! ADD and commits) and a finished tree that was moved in ([`Draft::describe`], for RUN).

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType};
use serde::{Deserialize, Serialize};
use spec::Digest;

use crate::limits::{Meter, UnpackLimits};
use crate::pipe::HashThread;
use crate::recipe::{Kept, RecipeWriter};
use crate::tar::read::Reader;
use crate::tar::write::{END, Precision, header};
use crate::tar::{Entry, Kind, TarError, Time, padding};
use crate::tree::{Meta, OPAQUE, Overwrite, Tree, TreeError, clean, is_whiteout, split};
use crate::unpack::UnpackerError;
use crate::unpack::wire::Channel;
use crate::walk::{Descend, Node, WalkError, walk};

/// Why an archive did not become a layer.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum UnpackError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error("cannot read the content of {path:?}")]
    Content {
        #[serde(with = "crate::unpack::wire::path")]
        path: PathBuf,
        #[serde(with = "crate::unpack::wire::cause")]
        source: io::Error,
    },
    #[error("cannot look at the layers below")]
    Below(
        #[source]
        #[serde(with = "crate::unpack::wire::cause")]
        io::Error,
    ),
    #[error("cannot write {path:?}")]
    Write {
        #[serde(with = "crate::unpack::wire::path")]
        path: PathBuf,
        #[serde(with = "crate::unpack::wire::cause")]
        source: io::Error,
    },
    #[error("invalid whiteout {0:?}")]
    Whiteout(#[serde(with = "crate::unpack::wire::path")] PathBuf),
    #[error("layer has digest {got}, not {want}")]
    Digest { want: Digest, got: Digest },
    #[error("the layer's parent {0} is not there")]
    NoParent(spec::DiffId),
    #[error("cannot make a place for the layer at {path:?}")]
    Draft {
        #[serde(with = "crate::unpack::wire::path")]
        path: PathBuf,
        #[serde(with = "crate::unpack::wire::cause")]
        source: io::Error,
    },
}

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
const WHITEOUT_META: &[u8] = b".wh..wh.";

pub(crate) struct Draft {
    pub(crate) dir: PathBuf,
    tree: Option<Tree>,
    recipe: Option<RecipeWriter>,
    hash: Option<HashThread>,
    /// Bytes of the regular files.
    size: u64,
    tar_size: u64,
    entries: u64,
    leftovers: Leftovers,
}

/// What becomes of the directory of a draft that is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftovers {
    Removed,
    /// Whoever made it removes it.
    Stay,
}

/// A draft whose tree and recipe are complete.
pub(crate) struct Complete {
    pub(crate) size: u64,
    pub(crate) tar_size: u64,
    pub(crate) entries: u64,
    pub(crate) digest: Option<Digest>,
    pub(crate) implied: Vec<Vec<u8>>,
    pub(crate) kept: Kept,
}

/// Whether the draft hashes its tar itself, or whoever reads the tar does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hashing {
    Here,
    Elsewhere,
}

impl Draft {
    /// A draft with an empty tree in the directory `dir`, which is made.
    pub(crate) fn create(dir: PathBuf, hashing: Hashing) -> Result<Draft, UnpackError> {
        let failed = |source| UnpackError::Draft { path: dir.clone(), source };
        std::fs::create_dir(&dir).map_err(failed)?;
        let tree = Tree::fresh(&dir).map_err(failed)?;
        Draft::around(dir, Some(tree), hashing)
    }

    /// A draft in the directory `dir`, which is there and empty; `helper` does what this process may not.
    pub(crate) fn inside(dir: PathBuf, helper: Option<Arc<Channel>>) -> Result<Draft, UnpackError> {
        let failed = |source| UnpackError::Draft { path: dir.clone(), source };
        let tree = Tree::fresh(&dir).map_err(failed)?.with_helper(helper);
        let mut draft = Draft::around(dir, Some(tree), Hashing::Elsewhere)?;
        draft.leftovers = Leftovers::Stay;
        Ok(draft)
    }

    /// A draft in the directory `dir`, which is there, and which others fill by [`Draft::inside`].
    pub(crate) fn of_others(dir: PathBuf) -> Draft {
        let leftovers = Leftovers::Removed;
        let (size, tar_size, entries) = (0, 0, 0);
        Draft { dir, tree: None, recipe: None, hash: None, size, tar_size, entries, leftovers }
    }

    /// Looks whether others made what makes a draft and nothing else. They must have ended.
    pub(crate) fn check(&self) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Draft { path: self.dir.clone(), source };
        let dir = sys::fs::open_dir(&self.dir).map_err(failed)?;
        let mut missing = vec!["diff", "recipe"];
        for entry in sys::fs::entries(dir.as_fd()).map_err(failed)? {
            let stat = rustix::fs::statat(&dir, &entry.name, AtFlags::SYMLINK_NOFOLLOW);
            let kind = FileType::from_raw_mode(stat.map_err(|error| failed(error.into()))?.st_mode);
            match (entry.name.to_str(), kind) {
                (Some("diff" | "kept"), FileType::Directory)
                | (Some("recipe"), FileType::RegularFile) => {}
                _ => {
                    let strange = UnpackerError::Strange(self.dir.join(&entry.name));
                    return Err(TarError::Unpacker(strange).into());
                }
            }
            missing.retain(|name| entry.name != *name);
        }
        match missing.first() {
            None => Ok(()),
            Some(name) => Err(UnpackError::Draft {
                path: self.dir.join(name),
                source: io::ErrorKind::NotFound.into(),
            }),
        }
    }

    /// A draft in the directory `dir` whose tree `diff` was moved in.
    pub(crate) fn adopt(dir: PathBuf) -> Result<Draft, UnpackError> {
        Draft::around(dir, None, Hashing::Here)
    }

    fn around(dir: PathBuf, tree: Option<Tree>, hashing: Hashing) -> Result<Draft, UnpackError> {
        let recipe = RecipeWriter::create(&dir.join("recipe"))
            .map_err(|source| UnpackError::Draft { path: dir.clone(), source })?;
        let hash = match hashing {
            Hashing::Here => Some(HashThread::start()),
            Hashing::Elsewhere => None,
        };
        let (recipe, leftovers) = (Some(recipe), Leftovers::Removed);
        Ok(Draft { dir, tree, recipe, hash, size: 0, tar_size: 0, entries: 0, leftovers })
    }

    /// Unpacks a plain tar stream, read to its very end.
    pub(crate) fn unpack(
        &mut self,
        input: impl BufRead,
        limits: &UnpackLimits,
    ) -> Result<(), UnpackError> {
        let (mut reader, mut meter) = (Reader::new(input), Meter::start(limits));
        let mut raw = Vec::new();
        loop {
            let entry = reader.next(&mut raw)?;
            self.raw(&raw)?;
            raw.clear();
            let Some(entry) = entry else { break };
            self.entries += 1;
            meter.entry(&entry)?;
            self.apply(&entry, &mut reader)?;
        }
        reader.drain(|chunk| self.raw(chunk))
    }

    fn apply<R: BufRead>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), UnpackError> {
        let path = clean(&entry.path)?;
        if self.mark(&path)? {
            return self.payload_as_raw(reader);
        }
        if entry.kind != Kind::File {
            self.place(&path, entry)?;
            return self.payload_as_raw(reader);
        }
        let (mut file, real) = self.tree().create_file(&path, entry.mode)?;
        let failed = |source| UnpackError::Write { path: crate::tree::to_path(&path), source };
        let mut end = 0;
        for (offset, length) in &entry.parts {
            if *offset != end {
                file.seek(io::SeekFrom::Start(*offset)).map_err(failed)?;
            }
            let mut left = *length;
            while left > 0 {
                let chunk = reader.payload(left)?;
                let got = chunk.len();
                file.write_all(chunk).map_err(failed)?;
                reader.consume(got);
                left -= got as u64;
            }
            if *length > 0 {
                let ordinal = self.recipe().payload(&real, *offset, *length).map_err(failed)?;
                self.tree().note_payload(&path, &file, ordinal)?;
                end = offset + length;
            }
        }
        // Maps end with an empty part where the file ends with a hole.
        if end != entry.real_size {
            file.set_len(entry.real_size).map_err(failed)?;
        }
        self.size += entry.real_size;
        self.tree().finish_file(&path, &file, &meta_of(entry))?;
        Ok(())
    }

    /// Handles whiteouts; whether this was one.
    fn mark(&mut self, path: &[u8]) -> Result<bool, UnpackError> {
        let (parent, name) = split(path);
        if name == WHITEOUT_OPAQUE {
            self.tree().make_dirs(parent)?;
            self.tree().make_opaque(parent)?;
            return Ok(true);
        }
        // AUFS' own bookkeeping, in layers of its time.
        if name.starts_with(WHITEOUT_META) {
            return Ok(true);
        }
        let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok(false) };
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::Whiteout(crate::tree::to_path(path)));
        }
        let hidden =
            if parent.is_empty() { hidden.to_vec() } else { [parent, b"/", hidden].concat() };
        self.tree().make_whiteout(&hidden)?;
        Ok(true)
    }

    /// Makes any entry but a regular file.
    fn place(&mut self, path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let meta = meta_of(entry);
        match entry.kind {
            Kind::Dir => self.tree().make_dir(path, &meta)?,
            Kind::HardLink => self.tree().make_link(path, &entry.link)?,
            Kind::Symlink => self.tree().make_symlink(path, &entry.link, &meta)?,
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                self.tree().make_node(path, entry.kind, entry.rdev, &meta)?;
            }
            Kind::File => unreachable!("regular files have content and are made by their callers"),
        }
        Ok(())
    }

    /// Payload of an entry that makes no file of its own goes into the recipe as it is.
    fn payload_as_raw<R: BufRead>(&mut self, reader: &mut Reader<R>) -> Result<(), UnpackError> {
        loop {
            let chunk = reader.payload(u64::MAX)?.to_vec();
            if chunk.is_empty() {
                return Ok(());
            }
            reader.consume(chunk.len());
            self.raw(&chunk)?;
        }
    }

    /// Adds one entry: to the tree, the recipe and the digest. `content` has [`Entry::size`] bytes.
    pub(crate) fn add(
        &mut self,
        entry: &Entry,
        content: Option<&mut dyn Read>,
    ) -> Result<(), UnpackError> {
        self.entries += 1;
        let path = clean(&entry.path)?;
        self.raw(&header(&with_slash(entry), Precision::Seconds))?;
        let (Kind::File, Some(content)) = (entry.kind, content) else {
            return self.place(&path, entry);
        };
        let (mut file, real) = self.tree().create_file(&path, entry.mode)?;
        let failed = |source| UnpackError::Write { path: crate::tree::to_path(&path), source };
        let unread = |source| UnpackError::Content { path: crate::tree::to_path(&path), source };
        let mut left = entry.size;
        let mut buffer = vec![0u8; usize::try_from(left.clamp(1, 128 * 1024)).unwrap_or(1)];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let got = content.read(&mut buffer[..want]).map_err(unread)?;
            if got == 0 {
                return Err(TarError::Truncated.into());
            }
            file.write_all(&buffer[..got]).map_err(failed)?;
            self.hashed(&buffer[..got]);
            left -= got as u64;
        }
        if entry.size > 0 {
            let ordinal = self.recipe().payload(&real, 0, entry.size).map_err(failed)?;
            self.tree().note_payload(&path, &file, ordinal)?;
        }
        self.size += entry.size;
        self.tree().finish_file(&path, &file, &meta_of(entry))?;
        self.pad(entry.size)
    }

    /// Hides `path` of the layers below.
    pub(crate) fn add_whiteout(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        self.entries += 1;
        self.raw(&header(&whiteout_entry(path, false), Precision::Seconds))?;
        self.tree().make_whiteout(path)?;
        Ok(())
    }

    /// Hides what directory `path` has in the layers below.
    pub(crate) fn add_opaque(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        self.entries += 1;
        self.raw(&header(&whiteout_entry(path, true), Precision::Seconds))?;
        self.tree().make_opaque(path)?;
        Ok(())
    }

    /// Writes the recipe of the tree that was moved in.
    pub(crate) fn describe(&mut self) -> Result<(), UnpackError> {
        let root = sys::fs::open_dir(&self.dir.join("diff"))
            .map_err(|source| UnpackError::Draft { path: self.dir.clone(), source })?;
        walk(root.as_fd(), &mut |node| {
            self.describe_node(node)?;
            Ok(Descend::Yes)
        })
    }

    fn describe_node(&mut self, node: &Node<'_>) -> Result<(), UnpackError> {
        self.entries += 1;
        if is_whiteout(&node.stat) {
            return self.raw(&header(&whiteout_entry(node.path, false), Precision::Seconds));
        }
        let Some(entry) = node.tar_entry(node.path.to_vec())? else {
            // A socket cannot be in a layer's tar, so it must not be in its tree either.
            let _ = rustix::fs::unlinkat(node.dir, node.name, rustix::fs::AtFlags::empty());
            return Ok(());
        };
        self.raw(&header(&with_slash(&entry), Precision::Seconds))?;
        if entry.kind == Kind::File && entry.size > 0 {
            let failed =
                |source| UnpackError::Write { path: crate::tree::to_path(node.path), source };
            self.recipe().payload(node.path, 0, entry.size).map_err(failed)?;
            self.hash_file(node, entry.size)?;
            self.pad(entry.size)?;
            self.size += entry.size;
        }
        if let (true, Some(opened)) = (node.is_dir(), &node.opened)
            && is_opaque(opened.as_fd()).map_err(|error| WalkError::at(node.path, error))?
        {
            self.raw(&header(&whiteout_entry(node.path, true), Precision::Seconds))?;
        }
        Ok(())
    }

    fn hash_file(&mut self, node: &Node<'_>, size: u64) -> Result<(), UnpackError> {
        let mut file: File = node.file()?;
        let mut left = size;
        let mut buffer = vec![0u8; usize::try_from(left.min(256 * 1024)).unwrap_or(1)];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let got =
                file.read(&mut buffer[..want]).map_err(|error| WalkError::at(node.path, error))?;
            if got == 0 {
                return Err(TarError::Truncated.into());
            }
            self.hashed(&buffer[..got]);
            left -= got as u64;
        }
        Ok(())
    }

    /// Ends the tar of a draft that makes its own.
    pub(crate) fn end(&mut self) -> Result<(), UnpackError> {
        self.raw(&END)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Closes tree and recipe.
    pub(crate) fn complete(&mut self) -> Result<Complete, UnpackError> {
        let failed = |source| UnpackError::Draft { path: self.dir.clone(), source };
        if let Some(recipe) = self.recipe.take() {
            recipe.finish().map_err(failed)?;
        }
        let (mut implied, mut kept) = (Vec::new(), Kept::new());
        if let Some(tree) = self.tree.take() {
            let finished = tree.finish().map_err(failed)?;
            (implied, kept) = (finished.implied, finished.kept);
        }
        let digest = self.hash.take().map(HashThread::finish);
        Ok(Complete {
            size: self.size,
            tar_size: self.tar_size,
            entries: self.entries,
            digest,
            implied,
            kept,
        })
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), UnpackError> {
        self.hashed(bytes);
        let path = self.dir.join("recipe");
        self.recipe().raw(bytes).map_err(|source| UnpackError::Write { path, source })
    }

    fn hashed(&mut self, bytes: &[u8]) {
        self.tar_size += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
    }

    fn pad(&mut self, size: u64) -> Result<(), UnpackError> {
        let zeros = [0u8; crate::tar::BLOCK];
        self.raw(&zeros[..usize::try_from(padding(size)).unwrap_or(0)])
    }

    pub(crate) fn tree(&mut self) -> &mut Tree {
        self.tree.as_mut().expect("a draft that was moved in is only described")
    }

    fn recipe(&mut self) -> &mut RecipeWriter {
        self.recipe.as_mut().expect("a completed draft is not written to")
    }
}

impl Drop for Draft {
    /// After a commit there is nothing left here.
    fn drop(&mut self) {
        self.tree = None;
        if self.leftovers == Leftovers::Removed {
            remove_dir(&self.dir);
        }
    }
}

/// Removes a directory of ours with everything below.
pub(crate) fn remove_dir(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let removed =
        sys::fs::open_dir(parent).and_then(|parent| sys::fs::remove_tree(parent.as_fd(), name));
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "leftover could not be removed");
    }
}

/// A tree to write into that already belongs to somebody.
pub(crate) fn existing_tree(root: BorrowedFd<'_>, overwrite: Overwrite) -> io::Result<Tree> {
    Tree::existing(root.try_clone_to_owned()?, overwrite)
}

pub(crate) fn is_opaque(dir: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sys::fs::xattr(dir, OPAQUE)?.is_some_and(|value| value == b"y"))
}

pub(crate) fn meta_of(entry: &Entry) -> Meta<'_> {
    Meta {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: &entry.xattrs,
    }
}

/// Directories end in a slash, by custom and for readers older than POSIX.
pub(crate) fn with_slash(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    if entry.kind == Kind::Dir && !entry.path.ends_with(b"/") {
        entry.path.push(b'/');
    }
    entry
}

/// The empty file that stands for "removed": of `path`, or of all that directory `path` had.
fn whiteout_entry(path: &[u8], opaque: bool) -> Entry {
    let (parent, name) = if opaque { (path, b"".as_slice()) } else { split(path) };
    let name = if opaque { WHITEOUT_OPAQUE.to_vec() } else { [WHITEOUT, name].concat() };
    let path = if parent.is_empty() { name } else { [parent, b"/", &name].concat() };
    Entry {
        path,
        kind: Kind::File,
        link: Vec::new(),
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        rdev: (0, 0),
        xattrs: Vec::new(),
        size: 0,
        real_size: 0,
        parts: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    /// What others may leave in a draft's directory, and whether it is one then.
    #[track_caller]
    fn check(make: impl FnOnce(&Path), is_draft: bool) {
        let scratch = Scratch::new();
        let dir = scratch.path().join("draft");
        std::fs::create_dir_all(dir.join("diff")).unwrap();
        std::fs::write(dir.join("recipe"), "").unwrap();
        make(&dir);
        assert_eq!(Draft::of_others(dir.clone()).check().is_ok(), is_draft);
        assert!(!dir.exists(), "a draft that is dropped leaves nothing");
    }

    #[test]
    fn what_others_made_is_a_draft_only_if_it_has_its_parts_and_nothing_else() {
        let link = |path: &str| {
            let path = path.to_owned();
            move |dir: &Path| {
                let place = dir.join(path);
                let _ = std::fs::remove_dir(&place).or_else(|_| std::fs::remove_file(&place));
                std::os::unix::fs::symlink("/etc", place).unwrap();
            }
        };
        check(|_| {}, true);
        check(|dir| std::fs::create_dir(dir.join("kept")).unwrap(), true);
        check(link("diff"), false);
        check(link("recipe"), false);
        check(link("kept"), false);
        // This would be written through.
        check(link("layer.json"), false);
        check(|dir| std::fs::write(dir.join("layer.json"), "{}").unwrap(), false);
        check(|dir| std::fs::remove_file(dir.join("recipe")).unwrap(), false);
        check(|dir| std::fs::remove_dir(dir.join("diff")).unwrap(), false);
    }
}
