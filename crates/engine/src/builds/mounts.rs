//! What `RUN --mount` brings into a step: trees by descriptor, caches, memory.
//!
//! A cache is a directory below `buildcache/mounts`, named by the digest of its id, so that no id
//! can name another place. `sharing=locked` holds a lock while the step runs; `sharing=private` takes
//! the cache when nobody has it, and a fresh directory otherwise.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use build::instruction::Sharing;
use build::worker::{CacheMount, Failure, FailureKind, Origin, RunMount};
use runs::workload::{
    Access, Bind, BindAccess, BindSource, Mount, MountKind, PathInside, Permission, Tmpfs,
};
use rustix::fs::{AtFlags, OFlags};
use spec::{Digest, Id};
use sys::mount::{Depth, Propagation};

use super::files::unreadable;
use super::worker::{EngineWorker, internal};

/// How often a step that waits for a cache looks whether its build was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(200);

/// How a cache is used at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// By a step that wants it alone, or by its removal.
    Alone,
    /// By so many steps side by side.
    Shared(usize),
}

/// Caches in use, in the whole daemon.
#[derive(Debug, Default)]
pub(crate) struct CacheLocks {
    held: Mutex<HashMap<String, Use>>,
    freed: Condvar,
}

impl CacheLocks {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Use>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_used(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Takes a cache that nobody uses.
    pub(super) fn try_hold(self: &Arc<Self>, name: &str) -> Option<Held> {
        let mut held = self.lock();
        if held.contains_key(name) {
            return None;
        }
        held.insert(name.to_owned(), Use::Alone);
        Some(Held { locks: Arc::clone(self), name: name.to_owned() })
    }

    /// Takes a cache as soon as `wanted` is possible beside those who have it.
    fn wait_for(
        self: &Arc<Self>,
        name: &str,
        wanted: Sharing,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Held, Failure> {
        let mut held = self.lock();
        loop {
            let now = match (held.get(name), wanted) {
                (None, Sharing::Shared) => Some(Use::Shared(1)),
                (Some(Use::Shared(count)), Sharing::Shared) => Some(Use::Shared(count + 1)),
                (None, Sharing::Locked | Sharing::Private) => Some(Use::Alone),
                (Some(_), _) => None,
            };
            if let Some(now) = now {
                held.insert(name.to_owned(), now);
                return Ok(Held { locks: Arc::clone(self), name: name.to_owned() });
            }
            if is_cancelled() {
                return Err(Failure::new(FailureKind::Cancelled, "context canceled"));
            }
            let waited = self.freed.wait_timeout(held, CANCEL_POLL);
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Frees a cache when dropped.
pub(super) struct Held {
    locks: Arc<CacheLocks>,
    name: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.locks.lock();
        match held.get_mut(&self.name) {
            Some(Use::Shared(count)) if *count > 1 => *count -= 1,
            Some(Use::Shared(_) | Use::Alone) | None => drop(held.remove(&self.name)),
        }
        self.locks.freed.notify_all();
    }
}

/// Removes a private cache's directory when dropped.
struct Private(PathBuf);

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = ?self.0, %error, "build cache directory left behind");
        }
    }
}

/// The mounts of one step, and what must live as long as it runs.
#[derive(Default)]
pub(super) struct StepMounts {
    pub(super) list: Vec<Mount>,
    held: Vec<Held>,
    private: Vec<Private>,
}

impl EngineWorker {
    pub(super) fn step_mounts(&self, wanted: &[RunMount]) -> Result<StepMounts, Failure> {
        let mut mounts = StepMounts::default();
        for mount in wanted {
            match mount {
                RunMount::Tmpfs { target, size_bytes } => {
                    mounts.list.push(tmpfs(target, *size_bytes));
                }
                RunMount::Bind { origin, source, target, read_only: true } => {
                    let root = BindSource::Descriptor(self.subtree(origin, source)?);
                    mounts.list.push(bind(root, target, Access::ReadOnly));
                }
                RunMount::Bind { origin, source, target, read_only: false } => {
                    let source = BindSource::Path(self.changeable(origin, source, &mut mounts)?);
                    mounts.list.push(bind(source, target, Access::ReadWrite));
                }
                RunMount::Cache(cache) => self.cache_mount(cache, &mut mounts)?,
                RunMount::Secret { id, target, mode, uid, gid } => {
                    let source = self.secret_file(id, *mode, (*uid, *gid), &mut mounts)?;
                    mounts.list.push(bind(BindSource::Path(source), target, Access::ReadOnly));
                }
                RunMount::Agent { id, target } => {
                    let source = BindSource::Path(self.agent_socket(id)?);
                    mounts.list.push(bind(source, target, Access::ReadOnly));
                }
            }
        }
        Ok(mounts)
    }

    /// A secret as a file on the execution root, which is memory, for as long as its step runs.
    fn secret_file(
        &self,
        id: &str,
        mode: u32,
        (uid, gid): (u32, u32),
        mounts: &mut StepMounts,
    ) -> Result<PathBuf, Failure> {
        let content = self.extras.secrets.get(id).map(Vec::as_slice).unwrap_or_default();
        let name = format!("build-secret-{}", Id::random().short());
        let directory = self.engine.inner.config.exec_root.join(name);
        mounts.private.push(Private(directory.clone()));
        let path = directory.join("secret");
        let written = std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .and_then(|()| std::fs::write(&path, content))
            .and_then(|()| chown(&path, Some(uid), Some(gid)))
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)));
        written.map_err(|error| unreadable(&path.to_string_lossy(), &error))?;
        Ok(path)
    }

    fn agent_socket(&self, id: &str) -> Result<PathBuf, Failure> {
        let path = self.extras.agents.get(id).cloned().unwrap_or_default();
        let is_socket = std::fs::metadata(&path).is_ok_and(|found| found.file_type().is_socket());
        match is_socket {
            true => Ok(path),
            false => {
                let text = format!("no agent listens on {path:?} where the daemon runs");
                Err(Failure::new(FailureKind::Invalid, text))
            }
        }
    }

    /// A tree to be read, by descriptor.
    fn subtree(&self, origin: &Origin, source: &str) -> Result<OwnedFd, Failure> {
        let root = self.root_of(origin)?;
        root.handle(Path::new(source)).map_err(|error| unreadable(source, &error))
    }

    /// A place for a directory of the step's own below `tmp`, removed with `mounts`.
    fn own_directory(&self, mounts: &mut StepMounts) -> PathBuf {
        let name = format!("{}mount-{}", super::context::PREFIX, Id::random().short());
        let path = self.store.root().join("tmp").join(name);
        mounts.private.push(Private(path.clone()));
        path
    }

    /// A copy of a tree that the step may change; the changes are dropped with it.
    fn changeable(
        &self,
        origin: &Origin,
        source: &str,
        mounts: &mut StepMounts,
    ) -> Result<PathBuf, Failure> {
        let from = self.subtree(origin, source)?;
        let directory = self.own_directory(mounts);
        make(&directory)?;
        let is_directory = rustix::fs::fstat(&from).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
        });
        if is_directory {
            copy_directory(from, &directory)?;
            return Ok(directory);
        }
        // Only what was resolved inside the tree is copied: the descriptor, not the path.
        let file = directory.join("file");
        let from = format!("/proc/self/fd/{}", from.as_raw_fd());
        std::fs::copy(from, &file).map_err(|error| unreadable(source, &error))?;
        Ok(file)
    }

    /// Volumes as the classic builder has them: what the image has is there, and what the command
    /// changes is not kept.
    pub(super) fn volume_mounts(
        &self,
        below: &[spec::DiffId],
        volumes: &[String],
        mounts: &mut StepMounts,
    ) -> Result<(), Failure> {
        if volumes.is_empty() {
            return Ok(());
        }
        let origin = Origin::Layers(below.to_vec());
        let root = self.root_of(&origin)?;
        for target in volumes {
            let directory = self.own_directory(mounts);
            make(&directory)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            if let Ok(from) = root.open(Path::new(target.trim_start_matches('/')), flags) {
                copy_directory(from, &directory)?;
            }
            mounts.list.push(bind(BindSource::Path(directory), target, Access::ReadWrite));
        }
        Ok(())
    }

    /// What will be made only to be mounted over: paths that the tree below has not, deepest first.
    pub(super) fn stubs(
        &self,
        below: &[spec::DiffId],
        mounts: &StepMounts,
    ) -> Result<Vec<PathBuf>, Failure> {
        let mut stubs = Vec::new();
        if mounts.list.is_empty() {
            return Ok(stubs);
        }
        let root = self.root_of(&Origin::Layers(below.to_vec()))?;
        for mount in &mounts.list {
            let path = Path::new(mount.destination.as_str().trim_start_matches('/'));
            let missing = path
                .ancestors()
                .take_while(|path| !path.as_os_str().is_empty() && root.handle(path).is_err());
            stubs.extend(missing.map(Path::to_owned));
        }
        stubs.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        Ok(stubs)
    }

    /// Takes mount points out of what a step changed, as BuildKit does; what has come to hold
    /// something stays.
    pub(super) fn remove_stubs(&self, snapshot: &str, stubs: &[PathBuf]) -> Result<(), Failure> {
        if stubs.is_empty() {
            return Ok(());
        }
        let upper = self.store.snapshot(snapshot).map_err(|error| internal(&error))?.upper;
        let root = sys::path::Root::open_at(&upper)
            .map_err(|error| unreadable(&upper.to_string_lossy(), &error))?;
        for stub in stubs {
            let (Some(parent), Some(name)) = (stub.parent(), stub.file_name()) else { continue };
            let Ok(parent) = root.handle(parent) else { continue };
            let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let flags = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
                rustix::fs::FileType::Directory => AtFlags::REMOVEDIR,
                rustix::fs::FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
                _ => continue,
            };
            match rustix::fs::unlinkat(&parent, name, flags) {
                Ok(()) | Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(unreadable(&stub.to_string_lossy(), &error.into())),
            }
        }
        Ok(())
    }

    fn cache_mount(&self, cache: &CacheMount, mounts: &mut StepMounts) -> Result<(), Failure> {
        let name = Digest::of(cache.id.as_bytes()).hex();
        let path = match cache.sharing {
            Sharing::Shared | Sharing::Locked => {
                let is_cancelled = || build::worker::Worker::is_cancelled(self);
                mounts.held.push(self.locks.wait_for(&name, cache.sharing, &is_cancelled)?);
                self.store.cache_mount(&name, &cache.id)
            }
            Sharing::Private => match self.locks.try_hold(&name) {
                Some(held) => {
                    mounts.held.push(held);
                    self.store.cache_mount(&name, &cache.id)
                }
                None => self.own_directory(mounts),
            },
        };
        let failed = |error: std::io::Error| unreadable(&path.to_string_lossy(), &error);
        let is_new = prepare(&path, cache).map_err(failed)?;
        if let (true, Some(origin)) = (is_new, &cache.seed) {
            let seeded =
                self.subtree(origin, &cache.source).and_then(|from| copy_directory(from, &path));
            // Half a seed must not be taken for a used cache.
            if let Err(failure) = seeded {
                std::fs::remove_dir_all(&path).map_err(failed)?;
                return Err(failure);
            }
        }
        let access = if cache.read_only { Access::ReadOnly } else { Access::ReadWrite };
        mounts.list.push(bind(BindSource::Path(path), &cache.target, access));
        Ok(())
    }
}

/// A bind with all that is mounted below.
pub(super) fn bind(source: BindSource, target: &str, access: Access) -> Mount {
    let kind = MountKind::Bind(Bind {
        source,
        depth: Depth::Recursive,
        access: match access {
            Access::ReadWrite => BindAccess::ReadWrite,
            Access::ReadOnly => BindAccess::ReadOnly(Depth::Recursive),
        },
        propagation: (Propagation::Private, Depth::Recursive),
    });
    Mount { destination: inside(target), kind }
}

fn tmpfs(target: &str, size_bytes: Option<u64>) -> Mount {
    let kind = MountKind::Tmpfs(Tmpfs {
        size_bytes: size_bytes.and_then(NonZeroU64::new),
        mode: None,
        exec: Permission::Denied,
        suid: Permission::Denied,
        dev: Permission::Denied,
        access: Access::ReadWrite,
        options: Vec::new(),
    });
    Mount { destination: inside(target), kind }
}

fn inside(target: &str) -> PathInside {
    PathInside::new(crate::containers::mounts::clean(target))
}

fn make(directory: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(directory)
        .map_err(|error| unreadable(&directory.to_string_lossy(), &error))
}

fn copy_directory(from: OwnedFd, to: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| unreadable(&to.to_string_lossy(), &error);
    let from = reopened(&from).map_err(failed)?;
    let to = std::fs::File::open(to).map_err(failed)?;
    store::archive::copy_directory(from.as_fd(), to.as_fd()).map_err(|error| internal(&error))
}

/// A descriptor that can be read, of one that may be only a handle.
fn reopened(handle: &OwnedFd) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(handle, ".", flags, rustix::fs::Mode::empty())?)
}

/// Makes the directory on first use, and says so; later steps find it as earlier ones left it.
fn prepare(path: &Path, cache: &CacheMount) -> std::io::Result<bool> {
    if path.is_dir() {
        return Ok(false);
    }
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(cache.mode))?;
    chown(path, Some(cache.uid), Some(cache.gid))?;
    Ok(true)
}
