//! What an archive holds, without unpacking it: for build contexts, most of which need no file but
//! the digests of all.
//!
//! [`Store::list`] reads an archive once, keeps its plain bytes in one unnamed file (so that they can be
//! unpacked later) and makes a tree of names, modes and digests. That tree must be what unpacking
//! would make, so only what is *plain* is listed: directories, whole files, symbolic links and links
//! to files that came before, each path once, nothing below what is no directory, no attributes.
//! Anything else gives no tree, and the archive has to be unpacked to be looked at.
//!
//! Of the archive's own directory, `./`, nothing is listed: unpacking leaves it as it is.
//!
//! Bounds: [`HELD_BYTES_MAX`] for the tree and [`DEPTH_MAX`] directories inside each other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write};
use std::os::fd::AsFd as _;

use sha2::{Digest as _, Sha256};
use spec::Digest;

use crate::compress::bounded;
use crate::layers::strange;
use crate::limits::{Meter, UnpackLimits};
use crate::store::Store;
use crate::tar::read::Reader;
use crate::tar::{Entry, Kind, TarError};
use crate::tree::clean;
use crate::unpack::wire::{Bytes, Event, Failure, Job, ListedPlace, PlaceKind};
use crate::unpack::{Place, Said, Session};

/// What a tree takes of memory; an archive of more is unpacked instead. Some 400,000 files.
pub const HELD_BYTES_MAX: usize = 128 << 20;
/// What a place in the tree takes beside its names: measured with files of one directory, in
/// which the nodes of a map are half full.
const PLACE_BYTES: usize = 256;
/// Directories inside each other.
pub const DEPTH_MAX: usize = 250;
/// A file of the archive's that is kept in memory because its reader asked for it.
const KEPT_BYTES_MAX: u64 = 17 << 20;

const BUFFER_BYTES: usize = 256 * 1024;
const DIRECTORY_MODE: u32 = 0o755;

/// A place in a listed tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    Directory(Directory),
    /// Permission bits, length and SHA-256 of a file.
    File {
        mode: u32,
        size: u64,
        digest: [u8; 32],
    },
    Link(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Permission bits.
    pub mode: u32,
    pub children: BTreeMap<Vec<u8>, Listed>,
}

impl Default for Directory {
    fn default() -> Self {
        Self { mode: DIRECTORY_MODE, children: BTreeMap::new() }
    }
}

/// An archive that was read.
#[derive(Debug)]
pub struct Listing {
    /// The tree, of a plain archive.
    pub tree: Option<Directory>,
    /// Files that were asked for, by their path.
    pub kept: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The archive, decompressed; at its start.
    pub archive: File,
    /// Bytes that were read, compressed as they came.
    pub bytes: u64,
}

/// Reads what is read into a file too.
struct Tee<R> {
    input: R,
    copy: BufWriter<File>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(out)?;
        self.copy.write_all(&out[..got])?;
        Ok(got)
    }
}

/// Reads an archive, compressed or not, to its end, in this process. `spool` takes the plain archive;
/// files whose path is in `keep` are kept in memory as well.
///
/// # Errors
/// What is no archive or is cut short, and a full disk.
pub fn list(
    archive: impl Read + Send,
    spool: File,
    limits: &UnpackLimits,
    keep: &[&[u8]],
) -> Result<Listing, TarError> {
    let mut lister = Lister::default();
    let keeps = |path: &[u8]| keep.contains(&path);
    let (mut archive, bytes) = take_apart(archive, spool, limits, &keeps, &mut |piece| {
        match piece {
            Piece::Place(place) => lister.place(place),
            Piece::Content(path, content) => drop(lister.kept.insert(path, content)),
            Piece::NotPlain => lister.tree = None,
        }
        Ok(())
    })?;
    archive.rewind().map_err(TarError::Read)?;
    Ok(Listing { tree: lister.tree, kept: lister.kept, archive, bytes })
}

impl Store {
    /// Reads an archive, compressed or not, to its end, by a process that can do nothing else. `spool`
    /// takes the plain archive; files whose path is in `keep` are kept in memory as well.
    ///
    /// # Errors
    /// As [`list`].
    pub fn list(
        &self,
        archive: impl Read + Send,
        mut spool: File,
        keep: &[String],
    ) -> Result<Listing, TarError> {
        let names = keep.iter().map(|name| Bytes::of(name.as_bytes())).collect();
        let job = Job::List { limits: self.unpack_limits(), keep: names };
        let mut lister = Lister::default();
        let place = Place::File(spool.as_fd());
        let hear = |session: &mut Session| lister.hear(session, keep);
        let (_, came) = self.unpacker().run(&job, archive, place, hear)?;
        spool.rewind().map_err(TarError::Read)?;
        let Lister { tree, kept, .. } = lister;
        Ok(Listing { tree, kept, archive: spool, bytes: came.bytes })
    }
}

/// What is found in an archive, in its order.
pub(crate) enum Piece {
    Place(ListedPlace),
    Content(Vec<u8>, Vec<u8>),
    NotPlain,
}

/// Reads an archive to its end; gives the file with the plain archive, and how many bytes came.
pub(crate) fn take_apart(
    archive: impl Read + Send,
    spool: File,
    limits: &UnpackLimits,
    keep: &dyn Fn(&[u8]) -> bool,
    found: &mut dyn FnMut(Piece) -> Result<(), TarError>,
) -> Result<(File, u64), TarError> {
    let (plain, gauge) = bounded(archive, limits).map_err(TarError::Read)?;
    let copy = BufWriter::with_capacity(BUFFER_BYTES, spool);
    let mut tee = Tee { input: plain, copy };
    let mut reader = Reader::new(BufReader::with_capacity(BUFFER_BYTES, &mut tee));
    let (mut raw, mut meter, mut is_listed) = (Vec::new(), Meter::start(limits), true);
    while let Some(entry) = reader.next(&mut raw)? {
        raw.clear();
        meter.entry(&entry)?;
        if is_listed {
            is_listed = take_entry(&entry, &mut reader, keep, found)?;
        }
    }
    // What follows the archive's end is read too, or the client could not finish sending.
    reader.drain(|_| Ok::<(), TarError>(()))?;
    let Tee { input, copy } = tee;
    drop(input);
    let archive = copy.into_inner().map_err(|error| TarError::Read(error.into_error()))?;
    Ok((archive, gauge.compressed()))
}

/// Says what an entry makes; false when it is not plain.
fn take_entry<R: io::BufRead>(
    entry: &Entry,
    reader: &mut Reader<R>,
    keep: &dyn Fn(&[u8]) -> bool,
    found: &mut dyn FnMut(Piece) -> Result<(), TarError>,
) -> Result<bool, TarError> {
    // Unpacking refuses such a path in its own words.
    let Some(path) = clean(&entry.path).ok().filter(|_| is_plain(entry)) else {
        found(Piece::NotPlain)?;
        return Ok(false);
    };
    let kind = match entry.kind {
        Kind::Dir => PlaceKind::Directory { mode: entry.mode },
        Kind::Symlink => PlaceKind::Symlink(Bytes::of(&entry.link)),
        Kind::HardLink if clean(&entry.link).is_ok() => {
            PlaceKind::HardLink(Bytes(clean(&entry.link).unwrap_or_default()))
        }
        Kind::File => {
            let wanted = keep(&path) && entry.size <= KEPT_BYTES_MAX;
            let (digest, content) = read(entry.size, wanted, reader)?;
            if wanted {
                found(Piece::Content(path.clone(), content))?;
            }
            PlaceKind::File { mode: entry.mode, size: entry.size, digest: Digest::from_raw(digest) }
        }
        Kind::HardLink | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
            found(Piece::NotPlain)?;
            return Ok(false);
        }
    };
    found(Piece::Place(ListedPlace { path: Bytes(path), kind }))?;
    Ok(true)
}

/// Makes a tree of what is found.
struct Lister {
    /// None once something was not plain.
    tree: Option<Directory>,
    held: usize,
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Default for Lister {
    fn default() -> Lister {
        Lister { tree: Some(Directory::default()), held: 0, kept: BTreeMap::new() }
    }
}

impl Lister {
    fn place(&mut self, place: ListedPlace) {
        let Some(tree) = &mut self.tree else { return };
        let path = place.path.0;
        let listed = match place.kind {
            PlaceKind::Directory { mode } => {
                Some(Listed::Directory(Directory { mode, ..Directory::default() }))
            }
            PlaceKind::Symlink(target) => {
                self.held += target.0.len();
                Some(Listed::Link(target.0))
            }
            PlaceKind::HardLink(target) => {
                self.held += target.0.len();
                match find(tree, &target.0) {
                    Some(file @ Listed::File { .. }) => Some(file.clone()),
                    Some(Listed::Directory(_) | Listed::Link(_)) | None => None,
                }
            }
            PlaceKind::File { mode, size, digest } => {
                Some(Listed::File { mode, size, digest: *digest.raw() })
            }
        };
        match listed.and_then(|listed| insert(tree, &path, listed)) {
            Some(bytes) => self.held += bytes,
            None => self.tree = None,
        }
        if self.held > HELD_BYTES_MAX {
            self.tree = None;
        }
    }

    /// Hears all that is found in an archive.
    fn hear(&mut self, session: &mut Session, keep: &[String]) -> Result<(), TarError> {
        loop {
            let Said::Event(event) = session.next()? else { return Err(strange()) };
            match event {
                Event::Listed(places) => places.into_iter().for_each(|place| self.place(place)),
                Event::NotPlain => self.tree = None,
                Event::File { path, size } => {
                    let is_kept = keep.iter().any(|name| name.as_bytes() == path.0);
                    if !is_kept || size > KEPT_BYTES_MAX {
                        return Err(strange());
                    }
                    let content = session.content(size)?;
                    self.kept.insert(path.0, content);
                }
                Event::Done => return Ok(()),
                Event::Failed(Failure::Tar(error)) => return Err(error),
                Event::Begun
                | Event::Device { .. }
                | Event::Attribute { .. }
                | Event::Implied(_)
                | Event::Kept(..)
                | Event::Layer(_)
                | Event::Link { .. }
                | Event::Blob { .. }
                | Event::Known { .. }
                | Event::LayerBegins { .. }
                | Event::LayerFailed(_)
                | Event::Entry(_)
                | Event::Failed(_)
                | Event::Unconfined(_)
                | Event::Exited(_) => return Err(strange()),
            }
        }
    }
}

fn is_plain(entry: &Entry) -> bool {
    let is_whole = entry.parts == [(0, entry.size)] && entry.real_size == entry.size;
    let is_file = entry.kind == Kind::File;
    // `..` in a name is legal for unpacking, but then the way to a path is not the path.
    let has_dots = entry.path.split(|byte| *byte == b'/').any(|part| part == b"..");
    (is_whole || !is_file) && !has_dots && entry.xattrs.is_empty() && !entry.path.starts_with(b"/")
}

/// The digest of a file's content, and the content when it is `wanted`.
fn read<R: io::BufRead>(
    size: u64,
    wanted: bool,
    reader: &mut Reader<R>,
) -> Result<([u8; 32], Vec<u8>), TarError> {
    let (mut hash, mut content) = (Sha256::new(), Vec::new());
    let mut left = size;
    while left > 0 {
        let chunk = reader.payload(left)?;
        hash.update(chunk);
        if wanted {
            content.extend_from_slice(chunk);
        }
        let got = chunk.len();
        reader.consume(got);
        left -= got as u64;
    }
    Ok((hash.finalize().into(), content))
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
}

fn find<'a>(tree: &'a Directory, path: &[u8]) -> Option<&'a Listed> {
    let mut directory = tree;
    let mut parts = parts(path).peekable();
    loop {
        let child = directory.children.get(parts.next()?)?;
        match (child, parts.peek()) {
            (child, None) => return Some(child),
            (Listed::Directory(child), Some(_)) => directory = child,
            (Listed::File { .. } | Listed::Link(_), Some(_)) => return None,
        }
    }
}

/// Puts something at `path`; gives the bytes that it takes, or `None` when that is not plain.
fn insert(tree: &mut Directory, path: &[u8], listed: Listed) -> Option<usize> {
    let names: Vec<&[u8]> = parts(path).collect();
    let Some((name, parents)) = names.split_last() else {
        // The root itself.
        return matches!(listed, Listed::Directory(_)).then_some(0);
    };
    let mut bytes = name.len() + PLACE_BYTES;
    if parents.len() > DEPTH_MAX {
        return None;
    }
    let mut directory = tree;
    for parent in parents {
        let child = directory.children.entry((*parent).to_owned()).or_insert_with(|| {
            bytes += parent.len() + PLACE_BYTES;
            Listed::Directory(Directory::default())
        });
        let Listed::Directory(child) = child else { return None };
        directory = child;
    }
    match (directory.children.get_mut(*name), listed) {
        (None, listed) => drop(directory.children.insert((*name).to_owned(), listed)),
        // Its files may come first.
        (Some(Listed::Directory(known)), Listed::Directory(told)) => known.mode = told.mode,
        (Some(_), _) => return None,
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar of `(path, type, content or link target)`.
    fn tar(entries: &[(&str, u8, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (path, kind, text) in entries {
            let mut header = [0_u8; 512];
            header[..path.len()].copy_from_slice(path.as_bytes());
            header[100..107].copy_from_slice(b"0000644");
            let size = if *kind == b'0' { text.len() } else { 0 };
            header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
            header[136..147].copy_from_slice(b"00000000000");
            header[148..156].fill(b' ');
            header[156] = *kind;
            if *kind != b'0' {
                header[157..157 + text.len()].copy_from_slice(text.as_bytes());
            }
            header[257..265].copy_from_slice(b"ustar\x0000");
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            out.extend(header);
            if *kind == b'0' {
                out.extend(text.as_bytes());
                out.resize(out.len().next_multiple_of(512), 0);
            }
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    fn listing(entries: &[(&str, u8, &str)]) -> Listing {
        let directory = crate::testing::Scratch::new();
        let spool = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(directory.path().join("spool"))
            .unwrap();
        let limits = UnpackLimits::default();
        list(&*tar(entries), spool, &limits, &[b"Dockerfile"]).unwrap()
    }

    #[test]
    fn a_plain_archive_is_a_tree() {
        let entries = [
            ("Dockerfile", b'0', "FROM a"),
            ("d/f", b'0', "1"),
            ("d/", b'5', ""),
            ("d/same", b'1', "d/f"),
            ("./l", b'2', "d/f"),
        ];
        let mut found = listing(&entries);
        let tree = found.tree.unwrap();
        assert_eq!(found.kept[b"Dockerfile".as_slice()], b"FROM a");
        assert_eq!(find(&tree, b"l"), Some(&Listed::Link(b"d/f".to_vec())));
        assert_eq!(find(&tree, b"d/same"), find(&tree, b"d/f"));
        assert_eq!(tree.children.len(), 3);
        let mut again = Vec::new();
        found.archive.read_to_end(&mut again).unwrap();
        assert_eq!(again, tar(&entries), "the archive is kept as it came");
        assert_eq!(found.bytes, again.len() as u64);
    }

    #[test]
    fn what_is_not_plain_has_no_tree() {
        for entries in [
            [("a", b'0', "1"), ("a", b'0', "2")],
            [("l", b'2', "d"), ("l/f", b'0', "2")],
            [("f", b'0', "1"), ("f/g", b'0', "2")],
            [("x", b'1', "missing"), ("y", b'0', "")],
            [("d/../../x", b'0', ""), ("y", b'0', "")],
            [("/abs", b'0', ""), ("y", b'0', "")],
            [("fifo", b'6', ""), ("y", b'0', "")],
            [("d", b'5', ""), ("d", b'2', "/etc")],
        ] {
            assert_eq!(listing(&entries).tree, None, "{entries:?}");
        }
    }
}
