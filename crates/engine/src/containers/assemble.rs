//! The tree of a container that does not run, with its volumes and binds in their places: what
//! `docker cp` reads and writes before the start and after the end.
//!
//! The mounts are made in a mount namespace that belongs to nobody: a thread makes it, assembles the
//! tree there and ends. The namespace lives as long as the descriptor of it, so nothing is mounted
//! on the host and nothing has to be unmounted, also when the daemon is killed.
//!
//! Source: moby 28.2 `daemon/containerfs_linux.go` does the same for its archive routes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use sys::mount::{Depth, Propagation};
use sys::namespace::Namespaces;
use sys::path::Root;

use super::record::Record;
use super::spec::MountKind;
use super::{volumes, world};
use crate::Inner;
use crate::error::{Error, Kind, Result};

/// An assembled tree.
pub(super) struct Assembled {
    root: OwnedFd,
    /// Keeps the mounts below `root` in their places.
    _namespace: OwnedFd,
}

impl AsFd for Assembled {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// A mount to be made: what, where, and whether what is mounted below it comes along.
struct Piece {
    source: PathBuf,
    destination: PathBuf,
    depth: Depth,
    /// Holds what `source` leads to.
    _held: Vec<OwnedFd>,
}

/// Puts the volumes and binds of `record` into `tree`. Blocking. `None` when there are none, or
/// when they are no concern of a copy (tmpfs, images).
///
/// # Errors
/// When a volume cannot be had, or the kernel refuses a mount.
pub(super) fn assemble(
    engine: &Inner,
    record: &Record,
    tree: &Arc<OwnedFd>,
) -> Result<Option<Assembled>> {
    let pieces = pieces(engine, record)?;
    if pieces.is_empty() {
        return Ok(None);
    }
    // Only where it was made may it be cloned. Before Linux 6.15 it cannot be, and goes itself.
    let cloned = sys::mount::clone_tree(tree, Path::new(""), Depth::Only);
    let tree = cloned.or_else(|_| tree.try_clone()).map_err(failed)?;
    let mount = move || mount_all(&tree, &pieces);
    match std::thread::spawn(mount).join() {
        Ok(outcome) => outcome.map(Some).map_err(failed),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn failed(source: io::Error) -> Error {
    Error::because(Kind::Internal, "cannot mount the container's volumes", source)
}

fn pieces(engine: &Inner, record: &Record) -> Result<Vec<Piece>> {
    let mut all = Vec::new();
    for mount in &record.mounts {
        let mut held = Vec::new();
        let (source, depth) = match mount.kind {
            MountKind::Volume => {
                let volume = volumes::ensure(engine, mount)?;
                // A file system of its own is mounted by a run alone.
                let Some(root) = volume.directory() else { continue };
                (world::subpath(root, mount, &mut held)?, Depth::Only)
            }
            MountKind::Bind => (PathBuf::from(&mount.source), Depth::Recursive),
            MountKind::Tmpfs | MountKind::Image | MountKind::Npipe | MountKind::Cluster => continue,
        };
        // A bind whose source is gone would fail the start; a copy does without.
        if source.exists() {
            let destination = PathBuf::from(&mount.destination);
            all.push(Piece { source, destination, depth, _held: held });
        }
    }
    Ok(all)
}

/// Runs on a thread of its own, whose namespace this changes.
fn mount_all(tree: &OwnedFd, pieces: &[Piece]) -> io::Result<Assembled> {
    sys::namespace::unshare(Namespaces::MOUNT)?;
    sys::mount::change_all(Propagation::Private)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open("/", flags, Mode::empty())?;
    sys::mount::attach(tree, &place)?;
    let root = Root::new(tree.try_clone()?);
    for piece in pieces {
        let source = sys::mount::clone_tree(CWD, &piece.source, piece.depth)?;
        let target = if piece.source.is_dir() {
            root.create_dir_all(&piece.destination, Mode::from_raw_mode(0o755))?
        } else {
            root.create_file(&piece.destination, Mode::from_raw_mode(0o644))?
        };
        sys::mount::attach(&source, &target)?;
    }
    let namespace = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open("/proc/thread-self/ns/mnt", namespace, Mode::empty())?;
    Ok(Assembled { root: tree.try_clone()?, _namespace: namespace })
}
