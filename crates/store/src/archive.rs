//! Archives of parts of a tree: `docker cp`, `docker export`, volume copy-up.
//!
//! The tree's root comes as a descriptor (`/proc/PID/root` of a running container, or the mount of a
//! stopped one), every path is resolved with it as `/`, and nothing the container does meanwhile can
//! lead out of it (CVE-2018-15664).

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::compress::bounded;
use crate::draft::{existing_tree, meta_of, with_slash};
use crate::limits::{Meter, UnpackLimits};
use crate::store::Store;
use crate::tar::read::Reader;
use crate::tar::write::{END, Precision, header};
use crate::tar::{Kind, TarError, Time, padding};
use crate::tree::{Meta, Overwrite, Tree, TreeError, clean, to_path};
use crate::unpack::wire::{Channel, Event, Failure, Job};
use crate::unpack::{self, Said, Session};
use crate::walk::{Descend, Node, WalkError, walk, walk_entry};

pub use crate::compress::{Compression, sniffed};

/// What `docker cp` wants to know of a path first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// The last component as asked for; `/` for the root.
    pub name: OsString,
    pub size: u64,
    /// `st_mode`; [`go_file_mode`] converts it.
    pub mode: u32,
    pub mtime: Time,
    /// Where a symbolic link leads in the end, absolute in the container; else empty.
    pub link_target: PathBuf,
}

/// Why an archive was not made or not unpacked.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum ArchiveError {
    #[error("Could not find the file {0}")]
    Missing(#[serde(with = "crate::unpack::wire::path")] PathBuf),
    #[error("extraction point is not a directory")]
    NotADirectory(#[serde(with = "crate::unpack::wire::path")] PathBuf),
    #[error("not a directory")]
    SlashOnFile(#[serde(with = "crate::unpack::wire::path")] PathBuf),
    #[error("cannot look at {path:?}")]
    Look {
        #[serde(with = "crate::unpack::wire::path")]
        path: PathBuf,
        #[serde(with = "crate::unpack::wire::cause")]
        source: io::Error,
    },
    #[error("cannot write the archive")]
    Write(
        #[source]
        #[serde(with = "crate::unpack::wire::cause")]
        io::Error,
    ),
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error("cannot set the directories' times")]
    Times(
        #[source]
        #[serde(with = "crate::unpack::wire::cause")]
        io::Error,
    ),
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("cannot write {path:?}")]
    WriteFile {
        #[serde(with = "crate::unpack::wire::path")]
        path: PathBuf,
        #[serde(with = "crate::unpack::wire::cause")]
        source: io::Error,
    },
}

/// A path below a root, parents resolved, the last component as it is.
struct Place {
    dir: OwnedFd,
    /// Empty when the path is the directory itself.
    name: OsString,
    stat: Stat,
}

/// Looks at `path` as Docker does: parents are followed, a link at the end is not, unless a slash or
/// `/.` follows it.
///
/// Source: moby `container/archive.go`, `ResolvePath` and `StatPath`.
pub fn stat_path(root: BorrowedFd<'_>, path: &Path) -> Result<PathStat, ArchiveError> {
    let place = place(root, path)?;
    let is_link = FileType::from_raw_mode(place.stat.st_mode) == FileType::Symlink;
    let link_target = if is_link { link_end(root, path) } else { PathBuf::new() };
    Ok(PathStat {
        name: base_name(path),
        size: u64::try_from(place.stat.st_size).unwrap_or(0),
        mode: place.stat.st_mode,
        mtime: Time::of_modification(&place.stat),
        link_target,
    })
}

/// Writes what is at `path` as a tar whose names begin with the path's last component.
pub fn tar_path(
    root: BorrowedFd<'_>,
    path: &Path,
    out: &mut dyn Write,
) -> Result<(), ArchiveError> {
    let place = place(root, path)?;
    let base = base_name(path);
    // A path that ends in "." names what is in the directory, and so do the archive's names.
    let is_inside = path.as_os_str().as_encoded_bytes().ends_with(b"/.");
    // Those of the root itself begin with a slash, as Docker has them.
    let is_root = path.as_os_str() == "/";
    let base = match base {
        _ if is_root => Vec::new(),
        base if base == "/" || is_inside => b".".to_vec(),
        base => base.into_encoded_bytes(),
    };
    let prefix: &[u8] = if is_root { b"/" } else { b"" };
    let mut visit = |node: &Node<'_>| {
        write_node(node, prefix, out)?;
        Ok::<_, ArchiveError>(Descend::Yes)
    };
    if place.name.is_empty() {
        // "." of the open directory is the directory.
        walk_entry(place.dir.as_fd(), OsStr::new("."), &base, &mut visit)?;
    } else {
        walk_entry(place.dir.as_fd(), &place.name, &base, &mut visit)?;
    }
    out.write_all(&END).map_err(ArchiveError::Write)
}

/// Writes the whole tree as a tar, names relative to the root.
pub fn export(root: BorrowedFd<'_>, out: &mut dyn Write) -> Result<(), ArchiveError> {
    // The descriptor's own position may be shared with others who read the same directory.
    let root = sys::fs::open_dir_at(root, ".").map_err(|error| WalkError::at(b"", error))?;
    walk(root.as_fd(), &mut |node| {
        write_node(node, b"", out)?;
        Ok::<_, ArchiveError>(Descend::Yes)
    })?;
    out.write_all(&END).map_err(ArchiveError::Write)
}

/// `prefix` stands before the names.
fn write_node(node: &Node<'_>, prefix: &[u8], out: &mut dyn Write) -> Result<(), ArchiveError> {
    let name = [prefix, node.path].concat();
    let Some(mut entry) = node.tar_entry(name)? else { return Ok(()) };
    if entry.kind == Kind::HardLink {
        entry.link.splice(..0, prefix.iter().copied());
    }
    out.write_all(&header(&with_slash(&entry), Precision::Seconds)).map_err(ArchiveError::Write)?;
    if entry.kind != Kind::File || entry.size == 0 {
        return Ok(());
    }
    let copied = io::copy(&mut node.file()?.take(entry.size), out).map_err(ArchiveError::Write)?;
    // The file may shrink while it is read; its header is already out.
    let missing = (entry.size - copied) + padding(entry.size);
    io::copy(&mut io::repeat(0).take(missing), out).map_err(ArchiveError::Write)?;
    Ok(())
}

/// How an archive is unpacked into a tree that belongs to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractOptions {
    pub overwrite: Overwrite,
    /// Owner of everything in place of the archive's.
    pub owner: Option<(u32, u32)>,
    pub limits: UnpackLimits,
}

/// Where an archive is unpacked to by [`Store::extract`].
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// A directory in this process's mount namespace.
    Directory(BorrowedFd<'a>),
    /// What [`detached`] gave, called where the directory is mounted.
    Detached(BorrowedFd<'a>),
}

/// A mount of a directory with what is mounted below, attached nowhere, as [`Destination::Detached`] takes
/// it. The thread must be in the mount namespace of the directory.
///
/// # Errors
/// `EINVAL` in another namespace, `EPERM` without CAP_SYS_ADMIN.
pub fn detached(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    crate::unpack::detached(directory)
}

impl Store {
    /// Unpacks an archive, compressed or not, into a directory, by a process that can reach nothing else.
    ///
    /// # Errors
    /// As [`extract`].
    pub fn extract(
        &self,
        destination: Destination<'_>,
        archive: impl Read + Send,
        options: &ExtractOptions,
    ) -> Result<(), ArchiveError> {
        let place = match destination {
            Destination::Directory(directory) => unpack::Place::Directory(directory),
            Destination::Detached(mount) => unpack::Place::Detached(mount),
        };
        let hear = |session: &mut Session| match session.next().map_err(TarError::Unpacker)? {
            Said::Event(Event::Done) => Ok(()),
            Said::Event(Event::Failed(Failure::Archive(error))) => Err(error),
            Said::Event(Event::Failed(Failure::Tar(error))) => Err(error.into()),
            Said::Event(_) | Said::Data(_) => Err(crate::layers::strange().into()),
        };
        let (done, _) = self.unpacker().run(&Job::Extract(*options), archive, place, hear)?;
        Ok(done)
    }
}

/// Opens the directory `path` to unpack into.
///
/// # Errors
/// When it is not there, or no directory.
pub fn open_directory(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, ArchiveError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let look = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ArchiveError::Missing(path.to_owned()),
        io::ErrorKind::NotADirectory => ArchiveError::NotADirectory(path.to_owned()),
        _ => ArchiveError::Look { path: path.to_owned(), source: error },
    };
    sys::fs::open_in_root(root, path, flags, Mode::empty()).map_err(look)
}

/// Unpacks an archive, compressed or not, into the directory `path`, in this process.
pub fn extract(
    root: BorrowedFd<'_>,
    path: &Path,
    archive: impl Read + Send,
    options: &ExtractOptions,
) -> Result<(), ArchiveError> {
    extract_into(open_directory(root, path)?, archive, options, None)
}

/// Unpacks into an open directory; `helper` does what this process may not.
pub(crate) fn extract_into(
    directory: OwnedFd,
    archive: impl Read + Send,
    options: &ExtractOptions,
    helper: Option<Arc<Channel>>,
) -> Result<(), ArchiveError> {
    let look = |source| ArchiveError::Look { path: "/".into(), source };
    let tree = Tree::existing(directory, options.overwrite).map_err(look)?;
    let mut tree = tree.with_helper(helper);
    let (plain, _) = bounded(archive, &options.limits).map_err(TarError::Read)?;
    let (mut reader, mut meter) = (Reader::new(plain), Meter::start(&options.limits));
    let mut raw = Vec::new();
    while let Some(mut entry) = reader.next(&mut raw)? {
        raw.clear();
        meter.entry(&entry)?;
        if let Some((uid, gid)) = options.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        extract_entry(&mut tree, &entry, &mut reader)?;
    }
    tree.finish().map(drop).map_err(ArchiveError::Times)
}

fn extract_entry<R: io::BufRead>(
    tree: &mut Tree,
    entry: &crate::tar::Entry,
    reader: &mut Reader<R>,
) -> Result<(), ArchiveError> {
    let path = clean(&entry.path)?;
    let meta = meta_of(entry);
    match entry.kind {
        Kind::Dir => tree.make_dir(&path, &meta)?,
        Kind::HardLink => tree.make_link(&path, &entry.link)?,
        Kind::Symlink => tree.make_symlink(&path, &entry.link, &meta)?,
        Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
            tree.make_node(&path, entry.kind, entry.rdev, &meta)?;
        }
        Kind::File => {
            let (mut file, _) = tree.create_file(&path, entry.mode)?;
            let failed = |source| ArchiveError::WriteFile { path: to_path(&path), source };
            for (offset, length) in &entry.parts {
                file.seek(io::SeekFrom::Start(*offset)).map_err(failed)?;
                let mut left = *length;
                while left > 0 {
                    let chunk = reader.payload(left)?;
                    let got = chunk.len();
                    file.write_all(chunk).map_err(failed)?;
                    reader.consume(got);
                    left -= got as u64;
                }
            }
            if entry.real_size != entry.size {
                file.set_len(entry.real_size).map_err(failed)?;
            }
            tree.finish_file(&path, &file, &meta)?;
        }
    }
    Ok(())
}

/// Copies a directory: everything below `from` to below `to`, with all attributes, and those of
/// the directory itself but its time.
///
/// # Errors
/// What cannot be read or written.
pub fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), ArchiveError> {
    copy_tree(from, to, Overwrite::Anything)?;
    let adopt = || -> io::Result<()> {
        let stat = rustix::fs::fstat(from)?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(to, Some(uid), Some(gid))?;
        Ok(rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
    };
    adopt().map_err(ArchiveError::Times)
}

/// Copies everything below `from` to below `to`, with all attributes.
pub(crate) fn copy_tree(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    overwrite: Overwrite,
) -> Result<(), ArchiveError> {
    let mut tree = existing_tree(to, overwrite).map_err(ArchiveError::Times)?;
    walk(from, &mut |node: &Node<'_>| copy_node(&mut tree, node))?;
    tree.finish().map(drop).map_err(ArchiveError::Times)
}

fn copy_node(tree: &mut Tree, node: &Node<'_>) -> Result<Descend, ArchiveError> {
    let Some(entry) = node.tar_entry(node.path.to_vec())? else { return Ok(Descend::No) };
    let meta: Meta<'_> = meta_of(&entry);
    match entry.kind {
        Kind::Dir => tree.make_dir(node.path, &meta)?,
        Kind::HardLink => tree.make_link(node.path, &entry.link)?,
        Kind::Symlink => tree.make_symlink(node.path, &entry.link, &meta)?,
        Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
            tree.make_node(node.path, entry.kind, entry.rdev, &meta)?;
        }
        Kind::File => {
            let (file, _) = tree.create_file(node.path, entry.mode)?;
            sys::fs::copy_file(node.file()?.as_fd(), file.as_fd(), entry.size)
                .map_err(|source| ArchiveError::WriteFile { path: to_path(node.path), source })?;
            tree.finish_file(node.path, &file, &meta)?;
        }
    }
    Ok(Descend::Yes)
}

fn place(root: BorrowedFd<'_>, path: &Path) -> Result<Place, ArchiveError> {
    let bytes = path.as_os_str().as_bytes();
    let follows = bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b".";
    let name = if follows { None } else { path.file_name() };
    let parent = match name {
        Some(_) => path.parent().unwrap_or(Path::new("/")),
        None => path,
    };
    let look = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ArchiveError::Missing(path.to_owned()),
        io::ErrorKind::NotADirectory if follows => ArchiveError::SlashOnFile(path.to_owned()),
        io::ErrorKind::NotADirectory => ArchiveError::Missing(path.to_owned()),
        _ => ArchiveError::Look { path: path.to_owned(), source: error },
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = sys::fs::open_in_root(root, parent, flags, Mode::empty()).map_err(look)?;
    let stat = match name {
        None => rustix::fs::fstat(&dir),
        Some(name) => rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW),
    };
    let stat = stat.map_err(|error: Errno| look(error.into()))?;
    Ok(Place { dir, name: name.map(OsStr::to_owned).unwrap_or_default(), stat })
}

/// The end of a chain of links, if it leads to anything; else the text of the link itself.
fn link_end(root: BorrowedFd<'_>, path: &Path) -> PathBuf {
    let resolved = sys::fs::open_in_root(root, path, OFlags::PATH, Mode::empty()).and_then(|end| {
        let (root, end) = (sys::fs::real_path(root)?, sys::fs::real_path(end.as_fd())?);
        let below =
            end.strip_prefix(&root).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Path::new("/").join(below))
    });
    resolved.unwrap_or_else(|_| {
        let place = place(root, path);
        let target =
            place.ok().and_then(|place| sys::fs::read_link_at(place.dir.as_fd(), &place.name).ok());
        let target = target.unwrap_or_default();
        let parent = path.parent().unwrap_or(Path::new("/"));
        Path::new("/").join(parent).join(target)
    })
}

fn base_name(path: &Path) -> OsString {
    path.file_name().map_or_else(|| OsString::from("/"), OsStr::to_owned)
}

/// `st_mode` as Go's `os.FileMode`, which Docker's API speaks.
///
/// Source: Go `io/fs/fs.go`.
pub fn go_file_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::RegularFile | FileType::Unknown => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, go)| go).sum::<u32>();
    kind | special | mode & 0o777
}
