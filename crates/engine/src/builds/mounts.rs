//! What `RUN --mount` brings into a step: trees by descriptor, caches, memory.
//!
//! A cache is a directory below `buildcache/mounts`, named by the digest of its id, so that no id
//! can name another place. `sharing=locked` holds a lock while the step runs; `sharing=private` takes
//! the cache when nobody has it, and a fresh directory otherwise.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use build::instruction::Sharing;
use build::worker::{CacheMount, Failure, FailureKind, Origin, RunMount};
use spec::{Digest, Id};
use std::os::unix::fs::{PermissionsExt, chown};

use super::files::unreadable;
use super::worker::EngineWorker;
use crate::oneshot::OneShotMount;

/// How often a step that waits for a cache looks whether its build was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(200);

/// Caches in use by steps that want them alone, in the whole daemon.
#[derive(Debug, Default)]
pub(crate) struct CacheLocks {
    held: Mutex<HashMap<String, ()>>,
    freed: Condvar,
}

impl CacheLocks {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, ()>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frees a cache when dropped.
struct Held {
    locks: Arc<CacheLocks>,
    name: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.locks.lock().remove(&self.name);
        self.locks.freed.notify_all();
    }
}

/// Removes a private cache's directory when dropped.
struct Private(PathBuf);

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = ?self.0, %error, "build cache directory left behind");
        }
    }
}

/// The mounts of one step, and what must live as long as it runs.
#[derive(Default)]
pub(super) struct StepMounts {
    pub(super) list: Vec<OneShotMount>,
    held: Vec<Held>,
    private: Vec<Private>,
}

impl EngineWorker {
    pub(super) fn step_mounts(&self, wanted: &[RunMount]) -> Result<StepMounts, Failure> {
        let mut mounts = StepMounts::default();
        for mount in wanted {
            match mount {
                RunMount::Tmpfs { target, size_bytes } => {
                    mounts.list.push(OneShotMount::Tmpfs {
                        target: target.clone(),
                        size_bytes: *size_bytes,
                    });
                }
                RunMount::Bind { origin, source, target, read_only } => {
                    let root = self.subtree(origin, source, *read_only)?;
                    mounts.list.push(OneShotMount::Tree {
                        root,
                        target: target.clone(),
                        read_only: *read_only,
                    });
                }
                RunMount::Cache(cache) => self.cache_mount(cache, &mut mounts)?,
            }
        }
        Ok(mounts)
    }

    fn subtree(&self, origin: &Origin, source: &str, read_only: bool) -> Result<OwnedFd, Failure> {
        if !read_only {
            let text = "RUN --mount=type=bind,rw is not supported yet: a read-only bind mount or a cache mount is";
            return Err(Failure::new(FailureKind::Unsupported, text));
        }
        let root = self.root_of(origin)?;
        root.handle(Path::new(source)).map_err(|error| unreadable(source, &error))
    }

    fn cache_mount(&self, cache: &CacheMount, mounts: &mut StepMounts) -> Result<(), Failure> {
        if cache.seed.is_some() {
            let text = "RUN --mount=type=cache,from= is not supported yet";
            return Err(Failure::new(FailureKind::Unsupported, text));
        }
        let name = Digest::of(cache.id.as_bytes()).hex();
        let base = self.store.root().join("buildcache").join("mounts");
        let path = match cache.sharing {
            Sharing::Shared => base.join(&name),
            Sharing::Locked => {
                mounts.held.push(self.wait_for(&name)?);
                base.join(&name)
            }
            Sharing::Private => match self.try_hold(&name) {
                Some(held) => {
                    mounts.held.push(held);
                    base.join(&name)
                }
                None => {
                    let path = base.join(format!("private-{}", Id::random().short()));
                    mounts.private.push(Private(path.clone()));
                    path
                }
            },
        };
        prepare(&path, cache).map_err(|error| unreadable(&path.to_string_lossy(), &error))?;
        let (target, read_only) = (cache.target.clone(), cache.read_only);
        mounts.list.push(OneShotMount::Bind { source: path, target, read_only });
        Ok(())
    }

    fn try_hold(&self, name: &str) -> Option<Held> {
        let mut held = self.locks.lock();
        if held.contains_key(name) {
            return None;
        }
        held.insert(name.to_owned(), ());
        Some(Held { locks: Arc::clone(&self.locks), name: name.to_owned() })
    }

    fn wait_for(&self, name: &str) -> Result<Held, Failure> {
        let mut held = self.locks.lock();
        while held.contains_key(name) {
            if build::worker::Worker::is_cancelled(self) {
                return Err(Failure::new(FailureKind::Cancelled, "context canceled"));
            }
            let waited = self.locks.freed.wait_timeout(held, CANCEL_POLL);
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        held.insert(name.to_owned(), ());
        Ok(Held { locks: Arc::clone(&self.locks), name: name.to_owned() })
    }
}

/// Makes the directory on first use; later steps find it as earlier ones left it.
fn prepare(path: &Path, cache: &CacheMount) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(cache.mode))?;
    chown(path, Some(cache.uid), Some(cache.gid))
}
