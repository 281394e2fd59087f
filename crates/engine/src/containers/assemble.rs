//! A container's tree as `docker cp` and `docker export` see it, whether it runs or not: its own file
//! system, without `/proc` and its like, and for a copy the volumes, binds and managed files in their
//! places.
//!
//! The file system of a container that runs is the one it runs on: a clone of its root mount, taken in
//! its mount namespace. overlayfs wants an upper directory for one mount alone, and says so in the
//! kernel's log. Of one that does not run it is a mount that no path leads to.
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

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use sys::mount::{Attributes, Change, Depth, Propagation};
use sys::namespace::Namespaces;
use sys::path::Root;

use super::mounts::Mount;
use super::record::Record;
use super::spec::{MountKind, NetworkMode};
use super::task::View;
use super::{mount_sources, volume_mounts, volumes};
use crate::Inner;
use crate::error::{Error, Kind, Result};
use crate::workloads::files::files_in;

/// An assembled tree.
pub(super) struct Assembled {
    root: OwnedFd,
    /// Keeps the mounts below `root` in their places.
    namespace: OwnedFd,
}

impl Assembled {
    /// A directory of the tree as a mount of its own, with all that is mounted below, to be unpacked into.
    pub(super) fn detached(&self, directory: &OwnedFd) -> Result<OwnedFd> {
        let clone = || -> io::Result<OwnedFd> {
            sys::namespace::unshare_directories()?;
            sys::namespace::join(&self.namespace, Namespaces::MOUNT)?;
            store::archive::detached(directory.as_fd())
        };
        on_a_thread(clone).map_err(failed)
    }
}

impl AsFd for Assembled {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// A mount to be made.
struct Piece {
    source: Source,
    destination: PathBuf,
    access: Access,
    /// Holds what `source` leads to.
    _held: Vec<OwnedFd>,
}

enum Source {
    /// A path of the host, and whether what is mounted below it comes along.
    Path(PathBuf, Depth),
    /// A mount that is attached nowhere.
    Tree(OwnedFd),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Write,
    Read,
}

/// A container's own file system, by a mount that no path leads to.
pub(super) enum Own {
    /// What runs, and its tmpfs mounts.
    Running {
        root: Arc<OwnedFd>,
        tmpfs: Vec<(PathBuf, OwnedFd)>,
    },
    Stopped(Arc<OwnedFd>),
}

impl Own {
    /// Blocking.
    ///
    /// # Errors
    /// When the kernel refuses the mount.
    pub(super) fn find(engine: &Inner, view: &View) -> Result<Own> {
        if let Some(run) = view.supervised.as_ref().filter(|_| view.phase.run().is_some()) {
            let namespace = run.namespace(runs::process::Namespace::Mount);
            let namespace = namespace.map_err(|error| match error {
                runs::Error::Process { source } => source,
                _ => Errno::SRCH.into(),
            });
            match namespace.and_then(|namespace| running(namespace, &view.record)) {
                Ok(own) => return Ok(own),
                // It ended this instant.
                Err(error)
                    if matches!(
                        Errno::from_io_error(&error),
                        Some(Errno::NOENT | Errno::SRCH | Errno::INVAL)
                    ) => {}
                Err(source) => return Err(failed(source)),
            }
        }
        let snapshot = engine.store.snapshot_mount(&view.record.id.to_string());
        snapshot.map(Own::Stopped).map_err(|source| Error::caused(Kind::Internal, source))
    }

    pub(super) fn root(&self) -> &Arc<OwnedFd> {
        let (Own::Running { root, .. } | Own::Stopped(root)) = self;
        root
    }
}

/// Takes a run's root and its tmpfs mounts out of its mount namespace. No path of the container's
/// is resolved on the way but with its root as `/`, and none through the links of its /proc.
fn running(namespace: OwnedFd, record: &Record) -> io::Result<Own> {
    let tmpfs = record.mounts.iter().filter(|mount| mount.kind == MountKind::Tmpfs);
    let tmpfs: Vec<PathBuf> = tmpfs.map(|mount| PathBuf::from(&mount.destination)).collect();
    let take = move || -> io::Result<Own> {
        // setns(2): only a thread that shares its directories with no other may change them.
        sys::namespace::unshare_directories()?;
        sys::namespace::join(&namespace, Namespaces::MOUNT)?;
        // What is mounted into the clones must not show in the container.
        let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
        let inside = Root::open_at(Path::new("/"))?;
        let clone = |place: &Path| -> io::Result<OwnedFd> {
            let tree = sys::mount::clone_tree(inside.handle(place)?, Path::new(""), Depth::Only)?;
            sys::mount::change(&tree, Depth::Only, private)?;
            Ok(tree)
        };
        let root = clone(Path::new("/"))?;
        let tmpfs = tmpfs.into_iter().filter_map(|place| {
            let tree = clone(&place).ok()?;
            Some((place, tree))
        });
        let tmpfs = tmpfs.collect();
        Ok(Own::Running { root: Arc::new(root), tmpfs })
    };
    on_a_thread(take)
}

/// Runs what changes its thread's namespace.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Puts the mounts of `record` into its tree. Blocking.
///
/// # Errors
/// When a volume cannot be had, or the kernel refuses a mount.
pub(super) fn assemble(engine: &Inner, record: &Record, own: Own) -> Result<Assembled> {
    let (root, tmpfs) = match own {
        Own::Running { root, tmpfs } => (root, tmpfs),
        Own::Stopped(root) => (root, Vec::new()),
    };
    let pieces = pieces(engine, record, tmpfs)?;
    // Only where it was made may it be cloned. Before Linux 6.15 it cannot be, and goes itself.
    let cloned = sys::mount::clone_tree(&root, Path::new(""), Depth::Only);
    let tree = cloned.or_else(|_| root.try_clone()).map_err(failed)?;
    on_a_thread(move || mount_all(&tree, pieces)).map_err(failed)
}

fn failed(source: io::Error) -> Error {
    Error::because(Kind::Internal, "cannot mount the container's file system", source)
}

fn pieces(engine: &Inner, record: &Record, tmpfs: Vec<(PathBuf, OwnedFd)>) -> Result<Vec<Piece>> {
    let mut all = Vec::new();
    for mount in &record.mounts {
        let mut held = Vec::new();
        let source = match mount.kind {
            MountKind::Volume => volume(engine, mount, &mut held)?,
            MountKind::Bind => Source::Path(PathBuf::from(&mount.source), Depth::Recursive),
            // The image's is read-only, and no concern of a copy.
            MountKind::Tmpfs | MountKind::Image | MountKind::Npipe | MountKind::Cluster => continue,
        };
        // A bind whose source is gone would fail the start; a copy does without.
        if matches!(&source, Source::Path(path, _) if !path.exists()) {
            continue;
        }
        let access = if mount.read_only { Access::Read } else { Access::Write };
        let destination = PathBuf::from(&mount.destination);
        all.push(Piece { source, destination, access, _held: held });
    }
    let plain = |(destination, source): (PathBuf, Source)| Piece {
        source,
        destination,
        access: Access::Write,
        _held: Vec::new(),
    };
    all.extend(tmpfs.into_iter().map(|(place, tree)| plain((place, Source::Tree(tree)))));
    all.extend(managed(engine, record).map(plain));
    // What lies in another mount comes after it.
    all.sort_by_key(|piece| piece.destination.components().count());
    Ok(all)
}

fn volume(engine: &Inner, mount: &Mount, held: &mut Vec<OwnedFd>) -> Result<Source> {
    let volume = volumes::ensure(engine, mount)?;
    let directory = match volume.mount() {
        Some(wish) if !wish.is_bind() && !volume_mounts::is_mounted(&volume.mountpoint) => {
            let options = wish.options.iter().map(String::as_str);
            let made = runtime::file_system(&wish.fs_type, &wish.source, options);
            return made.map(Source::Tree).map_err(failed);
        }
        Some(_) | None => volume.directory().unwrap_or_else(|| volume.mountpoint.clone()),
    };
    if mount.subpath.is_empty() {
        return Ok(Source::Path(directory, Depth::Only));
    }
    let part = mount_sources::open_subpath(&directory, &mount.subpath)?;
    let path = mount_sources::fd_path(&part);
    held.push(part);
    Ok(Source::Path(path, Depth::Only))
}

/// The files that the daemon keeps for a container, from its first start on.
fn managed(engine: &Inner, record: &Record) -> impl Iterator<Item = (PathBuf, Source)> {
    let dir = match &record.spec.host.network {
        NetworkMode::Container(other) => {
            let other = engine.containers.resolve(other);
            other.map_or(record.id, |container| container.id)
        }
        NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None | NetworkMode::Named(_) => {
            record.id
        }
    };
    let files = files_in(&engine.config.container_dir(&dir));
    let all = [
        ("/etc/hosts", files.hosts),
        ("/etc/hostname", files.hostname),
        ("/etc/resolv.conf", files.resolv_conf),
    ];
    let wished = |place: &str| record.mounts.iter().any(|mount| mount.destination == place);
    let all = all.into_iter().filter(move |(place, path)| !wished(place) && path.exists());
    let source = |(place, path)| (PathBuf::from(place), Source::Path(path, Depth::Only));
    all.map(source).collect::<Vec<_>>().into_iter()
}

/// Runs on a thread of its own, whose namespace this changes.
fn mount_all(tree: &OwnedFd, pieces: Vec<Piece>) -> io::Result<Assembled> {
    sys::namespace::unshare(Namespaces::MOUNT)?;
    sys::mount::change_all(Propagation::Private)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open("/", flags, Mode::empty())?;
    sys::mount::attach(tree, &place)?;
    let root = Root::new(tree.try_clone()?);
    for piece in pieces {
        let (source, depth) = match piece.source {
            Source::Path(path, depth) => (sys::mount::clone_tree(CWD, &path, depth)?, depth),
            Source::Tree(tree) => (tree, Depth::Only),
        };
        if piece.access == Access::Read {
            let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
            sys::mount::change(&source, depth, change)?;
        }
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode);
        let target = if kind == FileType::Directory {
            root.create_dir_all(&piece.destination, Mode::from_raw_mode(0o755))?
        } else {
            root.create_file(&piece.destination, Mode::from_raw_mode(0o644))?
        };
        sys::mount::attach(&source, &target)?;
    }
    let namespace = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open("/proc/thread-self/ns/mnt", namespace, Mode::empty())?;
    Ok(Assembled { root: tree.try_clone()?, namespace })
}
