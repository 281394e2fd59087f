//! What a container's mounts show, found on the host at its start. Blocking.
//!
//! What could be exchanged for something else between the look and the mount is held by descriptor.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use runs::workload::BindSource;
use sys::mount::Depth;

use super::lowering::{FoundMount, Source};
use super::mounts::Mount;
use super::record::Record;
use super::spec::MountKind;
use super::volumes::{self, Place};
use super::{propagation, volume_mounts};
use crate::Inner;
use crate::error::{Error, Kind, Result};
use crate::events::EventType;
use crate::words;

/// Finds each mount's source.
///
/// # Errors
/// In Docker's words for what is not there.
pub(crate) fn find(engine: &Inner, record: &Record) -> Result<Vec<FoundMount>> {
    let found = |mount: &Mount| {
        Ok(FoundMount { source: source(engine, record, mount)?, mount: mount.clone() })
    };
    record.mounts.iter().map(found).collect()
}

fn source(engine: &Inner, record: &Record, mount: &Mount) -> Result<Source> {
    let bind = |directory| subpath(directory, mount).map(Source::Bind);
    match mount.kind {
        MountKind::Tmpfs | MountKind::Npipe | MountKind::Cluster => Ok(Source::Nothing),
        MountKind::Bind => {
            let path = bind_source(mount)?;
            propagation::check(&path, &mount.propagation)?;
            Ok(Source::Bind(BindSource::Path(path)))
        }
        MountKind::Volume => match volumes::place(engine, mount)? {
            Place::Directory(root) => bind(root),
            Place::FileSystem(made) if made.is_bind() => {
                let source = subpath(PathBuf::from(&made.source), mount)?;
                Ok(Source::Configured(source, made.options))
            }
            Place::FileSystem(made) => {
                let volume = volumes::ensure(engine, mount)?;
                volume_mounts::hold(engine, record.id, &volume, &made)?;
                bind(volume.mountpoint)
            }
        },
        MountKind::Image => {
            let tree = volumes::image_tree(engine, mount)?;
            if mount.subpath.is_empty() {
                return Ok(Source::Bind(BindSource::Descriptor(tree)));
            }
            let found = open_subpath(&fd_path(&tree), &mount.subpath)?;
            // A mount of its own: the tree's goes with its descriptor, and what was opened in it, too.
            let part = sys::mount::clone_tree(&found, Path::new(""), Depth::Recursive);
            let part =
                part.map_err(|source| words::not_accessible(Path::new(&mount.subpath), source))?;
            Ok(Source::Bind(BindSource::Descriptor(part)))
        }
    }
}

fn bind_source(mount: &Mount) -> Result<PathBuf> {
    let path = PathBuf::from(&mount.source);
    if !path.exists() {
        if !mount.create_source {
            return Err(words::bind_source_missing(&mount.source));
        }
        fs::create_dir_all(&path).map_err(|source| {
            let text = format!("error while creating mount source path '{}'", path.display());
            Error::because(Kind::Internal, text, source)
        })?;
    }
    Ok(path)
}

/// A path below a tree that we own, held open so that nobody swaps a part of it for a link.
fn subpath(root: PathBuf, mount: &Mount) -> Result<BindSource> {
    if mount.subpath.is_empty() {
        return Ok(BindSource::Path(root));
    }
    open_subpath(&root, &mount.subpath).map(BindSource::Descriptor)
}

/// What `subpath` of a volume is. Links are followed that stay below; an absolute one does not,
/// wherever it leads: Docker takes it for one of the host's.
pub(crate) fn open_subpath(root: &Path, subpath: &str) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let failed = |error: rustix::io::Errno| match error {
        rustix::io::Errno::XDEV => words::escapes_base(root, subpath),
        error => words::not_accessible(&root.join(subpath), io::Error::from(error)),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&top, subpath, flags, Mode::empty(), resolve).map_err(failed)
}

/// A path by which this process alone reaches what it holds open.
pub(crate) fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Publishes that volumes were mounted.
pub(crate) fn publish_mounted(engine: &Inner, record: &Record) {
    for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
        volume_mounted(engine, record, mount);
    }
}

fn volume_mounted(engine: &Inner, record: &Record, mount: &Mount) {
    let attributes = BTreeMap::from([
        ("container".to_owned(), record.id.to_string()),
        ("destination".to_owned(), mount.destination.clone()),
        ("driver".to_owned(), mount.driver.clone()),
        ("propagation".to_owned(), mount.propagation.clone()),
        ("read/write".to_owned(), (!mount.read_only).to_string()),
    ]);
    engine.events.publish(EventType::Volume, "mount", mount.name.clone(), attributes);
}
