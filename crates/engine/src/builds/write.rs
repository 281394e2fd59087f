//! COPY, ADD and WORKDIR: layers of files, written without a container.
//!
//! Sources are opened by descriptor in their own tree; destinations are resolved by the store's
//! writer in the image's. A source that is itself a link is followed inside its tree; links further
//! down are copied as links.
//!
//! Without `--chown`, files of the context belong to root and files of another tree keep their owner.
//! Source: docs.docker.com "Dockerfile reference", COPY and ADD.

use std::fs::File;
use std::io::{Read, Seek as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use build::select::join;
use build::worker::{Blob, Failure, FailureKind, Item, NodeKind, Origin, Unpack, WriteStep};
use rustix::fs::{FileType, OFlags, Stat};
use spec::DiffId;
use spec::ignore::Ignore;
use store::compress::{HEADER_BYTES, may_be_archive};
use store::{Attrs, CopyOptions, Extracted, LayerWriter, Time, WriteError};
use sys::path::Root;

use super::files::unreadable;
use super::owner::{self, Owner};
use super::worker::{EngineWorker, internal, keys};

const ACCOUNTS_BYTES_MAX: u64 = 4 << 20;

/// One COPY or ADD at work.
struct Transfer<'a> {
    writer: LayerWriter<'a>,
    step: &'a WriteStep,
    root: Arc<Root>,
    ignore: Arc<Ignore>,
    /// Owner of everything copied; none keeps what the source has.
    owner: Option<Owner>,
    now: Time,
}

pub(super) fn write(
    worker: &EngineWorker,
    below: &[DiffId],
    step: &WriteStep,
) -> Result<Option<DiffId>, Failure> {
    let mut writer = begin(worker, below)?;
    let owner = match (&step.owner, &step.origin) {
        (Some(words), _) => Some(look_up(&mut writer, words)?),
        (None, Origin::Context | Origin::Named(_)) => Some(Owner { uid: 0, gid: 0 }),
        (None, Origin::Layers(_)) => None,
    };
    let ignore = match step.origin {
        Origin::Context => worker.context.ignore(None),
        Origin::Named(_) | Origin::Layers(_) => Arc::default(),
    };
    let root = worker.root_of(&step.origin)?;
    let mut transfer = Transfer { writer, step, root, ignore, owner, now: Time::now() };
    for item in &step.items {
        if build::worker::Worker::is_cancelled(worker) {
            return Err(Failure::new(FailureKind::Cancelled, "context canceled"));
        }
        transfer.item(item)?;
    }
    for blob in &step.blobs {
        transfer.blob(blob)?;
    }
    finish(transfer.writer)
}

pub(super) fn make_directory(
    worker: &EngineWorker,
    below: &[DiffId],
    path: &str,
    user: &str,
) -> Result<Option<DiffId>, Failure> {
    let mut writer = begin(worker, below)?;
    match writer.stat(Path::new(path)).map_err(failed)? {
        Some(stat) if stat.kind == store::NodeKind::Dir => return Ok(None),
        Some(_) => {
            let text = format!("Cannot mkdir: {path} is not a directory");
            return Err(Failure::new(FailureKind::Invalid, text));
        }
        None => {}
    }
    // An unknown user is an error of whatever runs as that user, not of WORKDIR.
    let owner = look_up(&mut writer, user).unwrap_or(Owner { uid: 0, gid: 0 });
    writer.mkdir_all(Path::new(path), &attrs(owner, 0o755, Time::now())).map_err(failed)?;
    finish(writer)
}

fn begin<'a>(worker: &'a EngineWorker, below: &[DiffId]) -> Result<LayerWriter<'a>, Failure> {
    worker.store.layer_writer(&worker.lease, &keys(below)).map_err(failed)
}

fn finish(writer: LayerWriter<'_>) -> Result<Option<DiffId>, Failure> {
    Ok(writer.finish().map_err(failed)?.map(|layer| layer.key.diff_id()))
}

fn look_up(writer: &mut LayerWriter<'_>, words: &str) -> Result<Owner, Failure> {
    if words.is_empty() {
        return Ok(Owner { uid: 0, gid: 0 });
    }
    owner::resolve(words, &mut |path| {
        let content = writer.read_file(Path::new(path), ACCOUNTS_BYTES_MAX).map_err(failed)?;
        Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
    })
}

fn failed(error: WriteError) -> Failure {
    let kind = match &error {
        WriteError::NotADirectory(_) | WriteError::Directory(_) | WriteError::LinkLoop(_) => {
            FailureKind::Invalid
        }
        WriteError::Look { .. }
        | WriteError::Source { .. }
        | WriteError::NoParent(_)
        | WriteError::Walk(_)
        | WriteError::Layer(_) => FailureKind::Internal,
    };
    Failure { kind, ..internal(&error) }
}

fn not_a_directory(path: &str) -> Failure {
    Failure::new(FailureKind::Invalid, format!("cannot copy to non-directory: {path}"))
}

fn attrs(owner: Owner, mode: u32, mtime: Time) -> Attrs {
    Attrs { uid: owner.uid, gid: owner.gid, mode, mtime, xattrs: Vec::new() }
}

impl Transfer<'_> {
    fn destination_is_directory(&mut self) -> Result<bool, Failure> {
        let destination = &self.step.destination;
        if destination.ends_with('/') {
            return Ok(true);
        }
        let stat = self.writer.stat(Path::new(destination)).map_err(failed)?;
        Ok(stat.is_some_and(|stat| stat.kind == store::NodeKind::Dir))
    }

    /// Where something called `name` goes.
    fn target(&mut self, name: &str, below: Option<&str>) -> Result<String, Failure> {
        let destination = self.step.destination.trim_end_matches('/').to_owned();
        if let Some(below) = below {
            let directory =
                if below.is_empty() { destination } else { format!("{destination}/{below}") };
            return Ok(format!("{directory}/{name}"));
        }
        match self.destination_is_directory()? {
            true => Ok(format!("{destination}/{name}")),
            false => Ok(destination),
        }
    }

    fn item(&mut self, item: &Item) -> Result<(), Failure> {
        let name = item.path.rsplit('/').next().unwrap_or_default();
        match item.kind {
            NodeKind::Directory => {
                let target = match &item.below {
                    Some(below) => self.target(name, Some(below))?,
                    None => self.step.destination.clone(),
                };
                self.directory(item, &target)
            }
            NodeKind::File | NodeKind::Other => {
                if item.kind == NodeKind::File && self.step.unpack == Unpack::Archives {
                    let file = self.open(&item.path, OFlags::empty())?;
                    if self.extract(File::from(file))? {
                        return Ok(());
                    }
                }
                let target = self.target(name, item.below.as_deref())?;
                self.file(item, &target)
            }
        }
    }

    fn open(&self, path: &str, more: OFlags) -> Result<OwnedFd, Failure> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
        self.root.open(Path::new(path), flags).map_err(|error| unreadable(path, &error))
    }

    fn directory(&mut self, item: &Item, target: &str) -> Result<(), Failure> {
        let existing = self.writer.stat(Path::new(target)).map_err(failed)?;
        if existing.is_some_and(|stat| stat.kind != store::NodeKind::Dir) {
            return Err(not_a_directory(target.trim_end_matches('/')));
        }
        // Opened here, so that a link at the top is followed inside its tree.
        let source = self.open(&item.path, OFlags::DIRECTORY)?;
        let (exclude, ignore, root) = (&self.step.exclude, &self.ignore, &self.root);
        let filter = |path: &Path| {
            let below = path.to_string_lossy();
            if below.is_empty() {
                return true;
            }
            let inside = join(&item.path, &below);
            !exclude.excludes(&below)
                && (!ignore.excludes(&inside) || leads_on(ignore, root, &inside))
        };
        let chmod = self.step.mode.as_ref();
        let mode = chmod.map(|chmod| |mode, is_directory| chmod.apply(mode, is_directory));
        let options = CopyOptions {
            owner: self.owner.map(|owner| (owner.uid, owner.gid)),
            mode: mode.as_ref().map(|mode| mode as _),
            filter: &filter,
        };
        self.writer
            .copy_tree(source.as_fd(), Path::new("."), Path::new(target), &options)
            .map_err(failed)
    }

    fn file(&mut self, item: &Item, target: &str) -> Result<(), Failure> {
        let path = Path::new(&item.path);
        let found = self.root.open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC);
        let found = found.and_then(|fd| Ok(rustix::fs::fstat(&fd)?));
        let stat = found.map_err(|error| unreadable(&item.path, &error))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return self.linked_file(item, target);
        }
        let chmod = self.step.mode.as_ref();
        let mode = chmod.map(|chmod| |mode, is_directory| chmod.apply(mode, is_directory));
        let options = CopyOptions {
            owner: self.owner.map(|owner| (owner.uid, owner.gid)),
            mode: mode.as_ref().map(|mode| mode as _),
            filter: &|_| true,
        };
        let root = Arc::clone(&self.root);
        self.writer.copy_tree(root.as_fd(), path, Path::new(target), &options).map_err(failed)
    }

    /// The file that a link at the top leads to.
    fn linked_file(&mut self, item: &Item, target: &str) -> Result<(), Failure> {
        let fd = self.open(&item.path, OFlags::empty())?;
        let stat = rustix::fs::fstat(&fd).map_err(|error| unreadable(&item.path, &error.into()))?;
        let owner = self.owner.unwrap_or(Owner { uid: stat.st_uid, gid: stat.st_gid });
        let mode = stat.st_mode & 0o7777;
        let mode = self.step.mode.as_ref().map_or(mode, |chmod| chmod.apply(mode, false));
        let attrs = attrs(owner, mode, modified(&stat));
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.parents(target, owner)?;
        self.writer.file(Path::new(target), &attrs, &mut File::from(fd), size).map_err(failed)
    }

    fn parents(&mut self, target: &str, owner: Owner) -> Result<(), Failure> {
        let Some(parent) = Path::new(target).parent() else { return Ok(()) };
        self.writer.mkdir_all(parent, &attrs(owner, 0o755, self.now)).map_err(failed)
    }

    /// Extracts an archive into the destination; false for a file that is none.
    fn extract(&mut self, mut file: File) -> Result<bool, Failure> {
        let mut start = Vec::new();
        let read = (&file).take(HEADER_BYTES as u64).read_to_end(&mut start);
        read.and_then(|_| file.rewind()).map_err(|error| internal(&error))?;
        if !may_be_archive(&start) {
            return Ok(false);
        }
        self.extract_from(file)
    }

    /// The same, of anything.
    fn extract_from(&mut self, archive: impl Read + Send) -> Result<bool, Failure> {
        let destination = Path::new(&self.step.destination);
        // Members keep the owners that the archive names, unless --chown says otherwise.
        let owner = self.step.owner.as_ref().and(self.owner);
        let made = owner.unwrap_or(Owner { uid: 0, gid: 0 });
        let made = attrs(made, 0o755, self.now);
        let owner = owner.map(|owner| (owner.uid, owner.gid));
        let found = self.writer.extract(archive, destination, owner, &made).map_err(failed)?;
        Ok(found == Extracted::All)
    }

    fn blob(&mut self, blob: &Blob) -> Result<(), Failure> {
        if self.step.unpack_blobs && self.extract_from(blob.content.reader())? {
            return Ok(());
        }
        if blob.name.is_empty() && self.destination_is_directory()? {
            let text = "cannot determine filename for source, which is a URL without a path";
            return Err(Failure::new(FailureKind::Invalid, text));
        }
        let target = self.target(&blob.name, None)?;
        let owner = self.owner.unwrap_or(Owner { uid: 0, gid: 0 });
        let mtime = blob.modified_secs.map_or(self.now, |secs| Time { secs, nanos: 0 });
        let attrs = attrs(owner, blob.mode, mtime);
        self.parents(&target, owner)?;
        let (mut content, size) = (blob.content.reader(), blob.content.size());
        self.writer.file(Path::new(&target), &attrs, &mut content, size).map_err(failed)
    }
}

/// Whether something left out is a directory with things below it that are let in again.
fn leads_on(ignore: &Ignore, root: &Root, path: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !ignore.may_let_in_below(path) {
        return false;
    }
    // What cannot be read is left to whoever copies it.
    let Ok(directory) = root.open(Path::new(path), flags) else { return false };
    let names = super::files::entries(directory.as_fd()).unwrap_or_default();
    names.iter().any(|name| {
        let inside = join(path, &name.to_string_lossy());
        !ignore.excludes(&inside) || leads_on(ignore, root, &inside)
    })
}

fn modified(stat: &Stat) -> Time {
    Time { secs: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}
