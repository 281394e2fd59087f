//! Writing a fresh layer directly: COPY, ADD and WORKDIR of a build.
//!
//! A [`LayerWriter`] sees its parents' merged tree with what it wrote itself on top. Each thing it
//! makes goes to the layer's tree, to the recipe and through the digest at once, so a finished layer
//! costs no second pass. Nothing is mounted.
//!
//! Paths given to a writer are those of the image: links in them are followed inside the merged
//! tree. A directory of the parents in which something is made appears in the layer with the
//! attributes it has below, its time included: the same build gives the same digest.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use crate::draft::{Draft, Hashing, UnpackError};
use crate::layers::{Layer, LayerKey, Lease, strange};
use crate::limits::Gauge;
use crate::merged::{Found, Merged};
use crate::store::Store;
use crate::tar::{Entry, Kind, TarError, Time};
use crate::tree::{clean, is_whiteout, split, to_path};
use crate::unpack::wire::{Event, Failure, Job};
use crate::unpack::{Place, Said, Session};
use crate::walk::{Descend, Node, WalkError, walk, walk_entry};

/// path_resolution(7): the kernel's own limit.
const LINKS_MAX: usize = 40;

/// Attributes of something to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attrs {
    pub uid: u32,
    pub gid: u32,
    /// 0o7777.
    pub mode: u32,
    pub mtime: Time,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is at a path of the merged tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeStat {
    pub kind: NodeKind,
    /// 0o7777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    File,
    Dir,
    Symlink,
    Other,
}

/// What [`LayerWriter::extract`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extracted {
    /// Everything that the archive has is there now.
    All,
    /// It is no archive, and nothing was made of it.
    NoArchive,
}

/// What [`LayerWriter::copy_tree`] changes on the way.
pub struct CopyOptions<'a> {
    /// Owner of everything; none keeps the source's.
    pub owner: Option<(u32, u32)>,
    /// Permissions of everything but links, from the source's and whether it is a directory; none
    /// keeps the source's.
    pub mode: Option<&'a dyn Fn(u32, bool) -> u32>,
    /// Says by the path below the source whether to copy it, for a directory with all it has.
    pub filter: &'a dyn Fn(&Path) -> bool,
}

/// Why something could not be written to a layer.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("{0:?} is not a directory")]
    NotADirectory(PathBuf),
    #[error("{0:?} is a directory")]
    Directory(PathBuf),
    #[error("too many symbolic links in {0:?}")]
    LinkLoop(PathBuf),
    #[error("cannot look at {path:?}")]
    Look { path: PathBuf, source: io::Error },
    #[error("cannot read {path:?}")]
    Source { path: PathBuf, source: io::Error },
    #[error("the layer's parent {0} is not there")]
    NoParent(LayerKey),
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error(transparent)]
    Layer(#[from] UnpackError),
}

impl From<TarError> for WriteError {
    fn from(error: TarError) -> WriteError {
        WriteError::Layer(error.into())
    }
}

/// A layer in the making on top of others.
pub struct LayerWriter<'l> {
    store: Store,
    lease: &'l Lease,
    parents: Vec<LayerKey>,
    merged: Merged,
    draft: Draft,
}

/// Where the merged tree has something.
enum At {
    Own(Stat),
    Below(Found),
}

impl At {
    fn stat(&self) -> &Stat {
        match self {
            At::Own(stat) => stat,
            At::Below(found) => &found.stat,
        }
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat().st_mode)
    }
}

impl Store {
    /// Begins a layer on top of `parents`, bottom first.
    pub fn layer_writer<'l>(
        &self,
        lease: &'l Lease,
        parents: &[LayerKey],
    ) -> Result<LayerWriter<'l>, WriteError> {
        if let Some(missing) = parents.iter().find(|key| !self.has_layer(key)) {
            return Err(WriteError::NoParent(*missing));
        }
        let look = |source| WriteError::Look { path: "/".into(), source };
        Ok(LayerWriter {
            store: self.clone(),
            lease,
            parents: parents.to_vec(),
            merged: Merged::open(&self.lowers(parents)).map_err(look)?,
            draft: Draft::create(self.temporary(), Hashing::Here)?,
        })
    }
}

impl LayerWriter<'_> {
    /// The real path behind `path`, relative to the root; what is missing stays as written.
    pub fn resolve(&mut self, path: &Path) -> Result<PathBuf, WriteError> {
        Ok(to_path(&self.real(path.as_os_str().as_bytes(), Last::Follow)?))
    }

    /// What is at `path`, links followed.
    pub fn stat(&mut self, path: &Path) -> Result<Option<NodeStat>, WriteError> {
        let real = self.real(path.as_os_str().as_bytes(), Last::Follow)?;
        Ok(self.look(&real)?.map(|at| node_stat(at.stat())))
    }

    /// The content of the regular file at `path`, at most `limit` bytes; for `/etc/passwd`.
    pub fn read_file(&mut self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, WriteError> {
        let real = self.real(path.as_os_str().as_bytes(), Last::Follow)?;
        let failed = |source| WriteError::Look { path: to_path(&real), source };
        let file = match self.look(&real)? {
            Some(at) if at.kind() != FileType::RegularFile => return Ok(None),
            Some(At::Below(found)) => found.open().map_err(failed)?,
            Some(At::Own(_)) => {
                let flags = rustix::fs::OFlags::RDONLY;
                let root = self.draft.tree().root().as_fd();
                let mode = rustix::fs::Mode::empty();
                File::from(
                    sys::fs::open_beneath(root, to_path(&real), flags, mode).map_err(failed)?,
                )
            }
            None => return Ok(None),
        };
        let mut content = Vec::new();
        file.take(limit).read_to_end(&mut content).map_err(failed)?;
        Ok(Some(content))
    }

    /// Makes `path` and its missing parents; what is there stays as it is.
    pub fn mkdir_all(&mut self, path: &Path, attrs: &Attrs) -> Result<(), WriteError> {
        let real = self.real(path.as_os_str().as_bytes(), Last::Follow)?;
        self.make_missing(&real, attrs)
    }

    /// Makes a directory, or gives the one that is there these attributes. Parents must exist.
    pub fn dir(&mut self, path: &Path, attrs: &Attrs) -> Result<(), WriteError> {
        let real = self.real(path.as_os_str().as_bytes(), Last::Follow)?;
        self.add(&real, Kind::Dir, attrs, Vec::new(), None)
    }

    /// Makes a regular file of exactly `size` bytes, in place of any other non-directory.
    pub fn file(
        &mut self,
        path: &Path,
        attrs: &Attrs,
        content: &mut dyn Read,
        size: u64,
    ) -> Result<(), WriteError> {
        let real = self.real(path.as_os_str().as_bytes(), Last::Keep)?;
        self.add(&real, Kind::File, attrs, Vec::new(), Some((content, size)))
    }

    pub fn symlink(&mut self, path: &Path, target: &Path, attrs: &Attrs) -> Result<(), WriteError> {
        let real = self.real(path.as_os_str().as_bytes(), Last::Keep)?;
        let target = target.as_os_str().as_bytes().to_vec();
        self.add(&real, Kind::Symlink, &Attrs { mode: 0o777, ..attrs.clone() }, target, None)
    }

    /// Another name for a file that this writer made.
    pub fn hard_link(&mut self, path: &Path, existing: &Path) -> Result<(), WriteError> {
        let real = self.real(path.as_os_str().as_bytes(), Last::Keep)?;
        let existing = self.real(existing.as_os_str().as_bytes(), Last::Keep)?;
        self.add(&real, Kind::HardLink, &Attrs::default(), existing, None)
    }

    /// Removes what the parents have at `path`; what is not there is fine.
    pub fn remove(&mut self, path: &Path) -> Result<(), WriteError> {
        let real = self.real(path.as_os_str().as_bytes(), Last::Keep)?;
        if matches!(self.look(&real)?, Some(At::Below(_))) {
            self.copy_up_parents(&real)?;
            self.draft.add_whiteout(&real)?;
        }
        Ok(())
    }

    /// Copies from the tree below `root`: a directory's content into the directory `to`, anything
    /// else as `to` itself. Missing directories of `to` are made with mode 755.
    pub fn copy_tree(
        &mut self,
        root: BorrowedFd<'_>,
        from: &Path,
        to: &Path,
        options: &CopyOptions<'_>,
    ) -> Result<(), WriteError> {
        let failed = |source| WriteError::Source { path: from.to_owned(), source };
        let bytes = from.as_os_str().as_bytes();
        let from_clean = clean(bytes).map_err(UnpackError::from)?;
        let (parent, name) = split(&from_clean);
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let open = |path: &[u8]| {
            sys::fs::open_in_root(root, to_path(path), flags, rustix::fs::Mode::empty())
        };
        let dir = open(parent).map_err(failed)?;
        let is_dir = if name.is_empty() {
            true
        } else {
            let stat = rustix::fs::statat(&dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW);
            FileType::from_raw_mode(stat.map_err(|error| failed(error.into()))?.st_mode)
                == FileType::Directory
        };
        let owner = options.owner.unwrap_or((0, 0));
        let made = Attrs {
            uid: owner.0,
            gid: owner.1,
            mode: 0o755,
            mtime: Time::default(),
            xattrs: Vec::new(),
        };
        let mut copy = Copy { writer: self, options, to: HashMap::new(), links: HashMap::new() };
        if is_dir {
            let real = copy.writer.real(to.as_os_str().as_bytes(), Last::Follow)?;
            copy.writer.make_missing(&real, &made)?;
            copy.to.insert(Vec::new(), real);
            let source = open(&from_clean).map_err(failed)?;
            return walk(source.as_fd(), &mut |node| copy.node(node));
        }
        let real = copy.writer.real(to.as_os_str().as_bytes(), Last::Keep)?;
        let (to_parent, to_name) = split(&real);
        copy.writer.make_missing(to_parent, &made)?;
        copy.to.insert(Vec::new(), to_parent.to_vec());
        walk_entry(dir.as_fd(), OsStr::from_bytes(name), to_name, &mut |node| copy.node(node))
    }

    /// Unpacks what is an archive, compressed or not, into the directory `to`, which is made with `made` if
    /// it is missing. It is read by a process that can do nothing else; that says what is in it.
    pub fn extract(
        &mut self,
        archive: impl Read + Send,
        to: &Path,
        owner: Option<(u32, u32)>,
        made: &Attrs,
    ) -> Result<Extracted, WriteError> {
        let limits = self.store.unpack_limits();
        let (job, gauge) = (Job::Entries { limits }, Gauge::new(&limits));
        let store = self.store.clone();
        let hear = |session: &mut Session| {
            let unread = |error| UnpackError::from(TarError::Read(error));
            let Ok(mut next) = next_entry(session)? else { return Ok(Extracted::NoArchive) };
            self.mkdir_all(to, made)?;
            let base = self.real(to.as_os_str().as_bytes(), Last::Follow)?;
            let mut written = 0_u64;
            while let Some(entry) = next {
                // Holes are written here, unlike in an unpacked layer.
                written = written.saturating_add(entry.real_size);
                gauge.check(written).map_err(unread)?;
                self.extract_entry(entry, &base, owner, session)?;
                next = next_entry(session)?.map_err(UnpackError::from)?;
            }
            Ok::<_, WriteError>(Extracted::All)
        };
        let (done, _) = store.unpacker().run(&job, gauge.count(archive), Place::Nothing, hear)?;
        Ok(done)
    }

    fn extract_entry(
        &mut self,
        mut entry: Entry,
        base: &[u8],
        owner: Option<(u32, u32)>,
        session: &mut Session,
    ) -> Result<(), WriteError> {
        let mut content = Payload::new(session, &mut entry);
        let path = clean(&entry.path).map_err(UnpackError::from)?;
        if path.is_empty() && entry.kind == Kind::Dir {
            // The directory it goes into is there already, and stays as it is.
            return Ok(());
        }
        let last = if entry.kind == Kind::Dir { Last::Follow } else { Last::Keep };
        entry.path = self.real(&join(base, &path), last)?;
        if entry.kind == Kind::HardLink {
            let target = clean(&entry.link).map_err(UnpackError::from)?;
            entry.link = self.real(&join(base, &target), Last::Keep)?;
        }
        if let Some((uid, gid)) = owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if entry.path.is_empty() {
            return Ok(content.skip()?);
        }
        // What the archive uses without describing it belongs to nobody in particular.
        let (uid, gid) = owner.unwrap_or((0, 0));
        let attrs = Attrs { mode: 0o755, uid, gid, mtime: entry.mtime, xattrs: Vec::new() };
        self.make_missing(split(&entry.path).0, &attrs)?;
        self.copy_up_parents(&entry.path)?;
        if entry.kind == Kind::File {
            entry.size = entry.real_size;
            self.draft.add(&entry, Some(&mut (&mut content).take(entry.real_size)))?;
        } else {
            self.draft.add(&entry, None)?;
        }
        Ok(content.skip()?)
    }

    /// The finished layer, held by the lease; none when nothing was written.
    pub fn finish(self) -> Result<Option<Layer>, WriteError> {
        if self.draft.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.store.commit_draft(self.lease, self.draft, &self.parents)?))
    }

    fn add(
        &mut self,
        real: &[u8],
        kind: Kind,
        attrs: &Attrs,
        link: Vec<u8>,
        content: Option<(&mut dyn Read, u64)>,
    ) -> Result<(), WriteError> {
        if kind != Kind::Dir && self.look(real)?.is_some_and(|at| at.kind() == FileType::Directory)
        {
            return Err(WriteError::Directory(to_path(real)));
        }
        self.copy_up_parents(real)?;
        let size = content.as_ref().map_or(0, |(_, size)| *size);
        let entry = Entry {
            path: real.to_vec(),
            kind,
            link,
            mode: attrs.mode & 0o7777,
            uid: attrs.uid,
            gid: attrs.gid,
            mtime: attrs.mtime,
            rdev: (0, 0),
            xattrs: attrs.xattrs.clone(),
            size,
            real_size: size,
            parts: vec![(0, size)],
        };
        Ok(self.draft.add(&entry, content.map(|(content, _)| content))?)
    }

    /// Makes the directories of `real` that are missing.
    fn make_missing(&mut self, real: &[u8], attrs: &Attrs) -> Result<(), WriteError> {
        if real.is_empty() {
            return Ok(());
        }
        match self.look(real)? {
            Some(at) if at.kind() == FileType::Directory => Ok(()),
            Some(_) => Err(WriteError::NotADirectory(to_path(real))),
            None => {
                self.make_missing(split(real).0, attrs)?;
                self.add(real, Kind::Dir, attrs, Vec::new(), None)
            }
        }
    }

    /// Brings the directories above `real` into this layer as they are below.
    fn copy_up_parents(&mut self, real: &[u8]) -> Result<(), WriteError> {
        let (parent, _) = split(real);
        if parent.is_empty() {
            return Ok(());
        }
        match self.look(parent)? {
            Some(at) if at.kind() != FileType::Directory => {
                Err(WriteError::NotADirectory(to_path(parent)))
            }
            Some(At::Own(_)) => Ok(()),
            None => Err(WriteError::NotADirectory(to_path(parent))),
            Some(At::Below(found)) => {
                self.copy_up_parents(parent)?;
                let mut xattrs = found
                    .xattrs()
                    .map_err(|source| WriteError::Look { path: to_path(parent), source })?;
                xattrs.retain(|(name, _)| !crate::tree::is_overlay_xattr(name));
                let stat = &found.stat;
                let entry = Entry {
                    path: parent.to_vec(),
                    kind: Kind::Dir,
                    link: Vec::new(),
                    mode: stat.st_mode & 0o7777,
                    uid: stat.st_uid,
                    gid: stat.st_gid,
                    mtime: Time::of_modification(stat),
                    rdev: (0, 0),
                    xattrs,
                    size: 0,
                    real_size: 0,
                    parts: Vec::new(),
                };
                Ok(self.draft.add(&entry, None)?)
            }
        }
    }

    /// What the merged tree has at `real`, whose parents are no links.
    fn look(&mut self, real: &[u8]) -> Result<Option<At>, WriteError> {
        let failed = |source| WriteError::Look { path: to_path(real), source };
        let mut below = real;
        loop {
            match self.own(below).map_err(failed)? {
                Some(stat) if is_whiteout(&stat) => return Ok(None),
                Some(stat) if below.len() == real.len() => return Ok(Some(At::Own(stat))),
                Some(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
                    return Ok(None);
                }
                Some(_) => break,
                None if below.is_empty() => break,
                None => below = split(below).0,
            }
        }
        Ok(self.merged.find(real).map_err(failed)?.map(At::Below))
    }

    fn own(&mut self, real: &[u8]) -> io::Result<Option<Stat>> {
        let root = self.draft.tree().root();
        let path = if real.is_empty() { b"." } else { real };
        match rustix::fs::statat(root, OsStr::from_bytes(path), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn real(&mut self, path: &[u8], last: Last) -> Result<Vec<u8>, WriteError> {
        let mut todo: Vec<Vec<u8>> = components(path);
        todo.reverse();
        let mut real: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                real.truncate(split(&real).0.len());
                continue;
            }
            let next = join(&real, &part);
            let found = self.look(&next)?;
            let is_link = found.as_ref().is_some_and(|at| at.kind() == FileType::Symlink);
            if !is_link || (todo.is_empty() && last == Last::Keep) {
                real = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(WriteError::LinkLoop(to_path(path)));
            }
            let failed = |source| WriteError::Look { path: to_path(&next), source };
            let target = match found {
                Some(At::Below(found)) => found.link_target().map_err(failed)?,
                Some(At::Own(_)) | None => {
                    let root = self.draft.tree().root().as_fd();
                    let target =
                        sys::fs::read_link_at(root, OsStr::from_bytes(&next)).map_err(failed)?;
                    target.into_os_string().into_encoded_bytes()
                }
            };
            if target.starts_with(b"/") {
                real.clear();
            }
            todo.extend(components(&target).into_iter().rev());
        }
        Ok(real)
    }
}

/// Whether a link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Follow,
    Keep,
}

/// A tree being copied.
struct Copy<'c, 'l> {
    writer: &'c mut LayerWriter<'l>,
    options: &'c CopyOptions<'c>,
    /// Where each source directory's content goes.
    to: HashMap<Vec<u8>, Vec<u8>>,
    links: HashMap<Vec<u8>, Vec<u8>>,
}

impl Copy<'_, '_> {
    fn node(&mut self, node: &Node<'_>) -> Result<Descend, WriteError> {
        if !(self.options.filter)(&to_path(node.path)) {
            return Ok(Descend::No);
        }
        let (parent, name) = split(node.path);
        let Some(into) = self.to.get(parent) else { return Ok(Descend::No) };
        let to = join(into, name);
        let Some(mut entry) = node.tar_entry(to.clone())? else { return Ok(Descend::No) };
        if let Some((uid, gid)) = self.options.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if let (Some(mode), false) = (self.options.mode, entry.kind == Kind::Symlink) {
            entry.mode = mode(entry.mode, entry.kind == Kind::Dir);
        }
        if entry.kind == Kind::Dir {
            let real = self.writer.real(&to, Last::Follow)?;
            let exists = self.writer.look(&real)?;
            if exists.is_none() {
                self.writer.copy_up_parents(&real)?;
                entry.path.clone_from(&real);
                self.writer.draft.add(&entry, None)?;
            } else if exists.is_some_and(|at| at.kind() != FileType::Directory) {
                return Err(WriteError::NotADirectory(to_path(&real)));
            }
            self.to.insert(node.path.to_vec(), real);
            return Ok(Descend::Yes);
        }
        if self.writer.look(&to)?.is_some_and(|at| at.kind() == FileType::Directory) {
            return Err(WriteError::Directory(to_path(&to)));
        }
        self.writer.copy_up_parents(&to)?;
        if let Some(first) = node.link_of {
            match self.links.get(first) {
                Some(copied) => entry.link.clone_from(copied),
                // The first name was filtered out, so this one is the file.
                None => return self.add_file(node, entry),
            }
        }
        if node.stat.st_nlink > 1 {
            self.links.entry(node.path.to_vec()).or_insert_with(|| to.clone());
        }
        if entry.kind == Kind::File {
            return self.add_file(node, entry);
        }
        self.writer.draft.add(&entry, None)?;
        Ok(Descend::Yes)
    }

    fn add_file(&mut self, node: &Node<'_>, mut entry: Entry) -> Result<Descend, WriteError> {
        entry.kind = Kind::File;
        entry.link.clear();
        entry.size = u64::try_from(node.stat.st_size).unwrap_or(0);
        (entry.real_size, entry.parts) = (entry.size, vec![(0, entry.size)]);
        let mut file = node.file()?;
        self.writer.draft.add(&entry, Some(&mut file))?;
        Ok(Descend::Yes)
    }
}

/// What an entry is, or why there is none.
fn next_entry(session: &mut Session) -> Result<Result<Option<Entry>, TarError>, UnpackError> {
    match session.next().map_err(TarError::Unpacker)? {
        Said::Event(Event::Entry(entry)) => Ok(Ok(Some(entry))),
        Said::Event(Event::Done) => Ok(Ok(None)),
        Said::Event(Event::Failed(Failure::Tar(error))) => Ok(Err(error)),
        Said::Event(_) | Said::Data(_) => Err(strange().into()),
    }
}

/// An entry's content with its holes as zeros.
struct Payload<'s> {
    session: &'s mut Session,
    parts: std::iter::Peekable<std::vec::IntoIter<(u64, u64)>>,
    at: u64,
    /// Bytes of the archive that have not come yet, and those that have and are not read.
    missing: u64,
    chunk: Vec<u8>,
    used: usize,
}

impl<'s> Payload<'s> {
    fn new(session: &'s mut Session, entry: &mut Entry) -> Payload<'s> {
        let parts = std::mem::take(&mut entry.parts).into_iter().peekable();
        Payload { session, parts, at: 0, missing: entry.size, chunk: Vec::new(), used: 0 }
    }

    /// The next bytes of the archive; none at the end.
    fn fill(&mut self) -> Result<&[u8], TarError> {
        if self.used == self.chunk.len() && self.missing > 0 {
            match self.session.next()? {
                Said::Data(data) if data.len() as u64 <= self.missing => {
                    self.chunk.clear();
                    self.chunk.extend_from_slice(data);
                }
                Said::Event(Event::Failed(Failure::Tar(error))) => return Err(error),
                Said::Event(_) | Said::Data(_) => return Err(strange()),
            }
            self.missing -= self.chunk.len() as u64;
            self.used = 0;
        }
        Ok(&self.chunk[self.used..])
    }

    /// Passes over what was not read.
    fn skip(mut self) -> Result<(), UnpackError> {
        while self.missing > 0 {
            self.used = self.chunk.len();
            self.fill()?;
        }
        Ok(())
    }
}

impl Read for Payload<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Sums of what another process says do not overflow.
        let end = |part: &(u64, u64)| part.0.saturating_add(part.1);
        while self.parts.next_if(|part| end(part) <= self.at).is_some() {}
        let got = match self.parts.peek().copied() {
            Some((offset, length)) if self.at >= offset => {
                let limit = (offset.saturating_add(length) - self.at).min(buffer.len() as u64);
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let chunk = self.fill().map_err(io::Error::other)?;
                let got = chunk.len().min(limit);
                buffer[..got].copy_from_slice(&chunk[..got]);
                self.used += got;
                got
            }
            hole => {
                let end = hole.map_or(u64::MAX, |(offset, _)| offset);
                let got = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(buffer.len());
                buffer[..got].fill(0);
                got
            }
        };
        self.at += got as u64;
        Ok(got)
    }
}

fn node_stat(stat: &Stat) -> NodeStat {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Symlink => NodeKind::Symlink,
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => NodeKind::Other,
    };
    NodeStat {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or(0),
    }
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.map(<[u8]>::to_vec).collect()
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => dir.to_vec(),
        (false, false) => [dir, b"/", name].concat(),
    }
}
