//! The handle: one data root, one process.
//!
//! Everything that is decided (who holds which layer, which tag names what) is decided in memory
//! under one lock and written to records; the disk's slow work (unpacking, deleting, flushing) is
//! done outside of it. The lock is never held across a read or write of file data.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;
use spec::{DiffId, Digest};
use tracing::{info, warn};

use crate::cache::CacheRecord;
use crate::content::Contents;
use crate::draft::remove_dir;
use crate::flush::{Flushes, Unflushed, WAIT_MAX};
use crate::images::Images;
use crate::layers::{LayerKey, LayerRecord, Layers, verify};
use crate::limits::UnpackLimits;
use crate::records::{self, Durability, RecordError, Records};
use crate::snapshots::Snapshots;
use crate::unpack::{Unpacker, Unpacking};
use crate::volumes::Volumes;

/// How a data root is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    pub driver: Driver,
    /// What any one archive may unpack to, in bytes; none leaves it to how much came.
    pub unpacked_max: Option<u64>,
    pub unpacking: Unpacking,
}

/// How layers are stacked. Docker's `overlay` and `overlay2` both mean the kernel's overlayfs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Driver {
    #[default]
    Overlay,
}

/// A name that is no storage driver here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("driver not supported: {0}")]
pub struct UnknownDriver(pub String);

impl Driver {
    pub fn parse(name: &str) -> Result<Driver, UnknownDriver> {
        match name {
            "" | "overlay2" | "overlay" | "overlayfs" => Ok(Driver::Overlay),
            other => Err(UnknownDriver(other.to_owned())),
        }
    }

    /// As `docker info` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Overlay => "overlay2",
        }
    }
}

/// Why a data root could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot make directory {path:?}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("data root {0:?} is in use by another daemon")]
    Locked(PathBuf),
    #[error("cannot lock {path:?}")]
    Lock { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A data root. Clones share one state; all methods block.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    root: PathBuf,
    driver: Driver,
    unpack_limits: UnpackLimits,
    unpacker: Unpacker,
    /// Held by flock(2) while this lives.
    _lock: File,
    records: Records,
    state: Mutex<State>,
    names: AtomicU64,
    background: SyncSender<Job>,
    /// Whether a sweep is in the queue.
    sweeping: AtomicBool,
    flushes: Flushes,
}

/// All that is known.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) layers: Layers,
    pub(crate) content: Contents,
    pub(crate) images: Images,
    pub(crate) snapshots: Snapshots,
    pub(crate) cache: BTreeMap<String, CacheRecord>,
    pub(crate) volumes: Volumes,
}

/// Work off the callers' path. The queue is bounded: whoever removes faster than the disk can, waits.
enum Job {
    Remove(PathBuf),
    /// Writes down what was flushed.
    Mark(Unflushed),
    /// Removes blobs that nothing needs any more.
    Sweep,
    /// Answers when everything before it is done.
    Barrier(SyncSender<()>),
}

const JOBS_MAX: usize = 512;

const DIRECTORIES: [&str; 9] =
    ["layers", "content/blobs", "images", "init", "rw", "volumes", "buildcache", "tmp", "trash"];

impl Store {
    /// Opens the data root `root`, which is made if missing, and cleans up after a crash.
    pub fn open(root: &Path, options: Options) -> Result<Store, OpenError> {
        let directory = |path: &Path| {
            let failed = |source| OpenError::Directory { path: path.to_owned(), source };
            std::fs::create_dir_all(path).map_err(failed)
        };
        directory(root)?;
        let root = root
            .canonicalize()
            .map_err(|source| OpenError::Directory { path: root.to_owned(), source })?;
        let lock = lock(&root)?;
        for name in DIRECTORIES {
            directory(&root.join(name))?;
        }
        spread(&root.join("tmp"));
        use std::os::unix::fs::PermissionsExt;
        let private = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(&root, private)
            .map_err(|source| OpenError::Directory { path: root.clone(), source })?;
        let (background, jobs) = sync_channel(JOBS_MAX);
        let inner = Inner {
            root,
            driver: options.driver,
            unpack_limits: options
                .unpacked_max
                .map_or_else(UnpackLimits::default, UnpackLimits::of_size),
            unpacker: Unpacker::new(options.unpacking),
            _lock: lock,
            records: Records::new(),
            state: Mutex::default(),
            names: AtomicU64::new(0),
            background,
            sweeping: AtomicBool::new(false),
            flushes: Flushes::default(),
        };
        let store = Store { inner: Arc::new(inner) };
        let worker = store.clone_for_worker();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || worker.run(&jobs))
            .map_err(|source| OpenError::Directory { path: store.root().to_owned(), source })?;
        store.inner.unpacker.prepare();
        store.load()?;
        Ok(store)
    }

    /// The data root, absolute and without links.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    pub fn driver(&self) -> Driver {
        self.inner.driver
    }

    /// What this store lets an archive ask for.
    pub fn unpack_limits(&self) -> UnpackLimits {
        self.inner.unpack_limits
    }

    pub(crate) fn unpacker(&self) -> &Unpacker {
        &self.inner.unpacker
    }

    pub fn records(&self) -> &Records {
        &self.inner.records
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A path below `tmp/` that nothing has.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.fresh("tmp")
    }

    fn fresh(&self, kind: &str) -> PathBuf {
        let number = self.inner.names.fetch_add(1, Ordering::Relaxed);
        self.root().join(kind).join(format!("{}-{number}", std::process::id()))
    }

    /// Renames `path` away; gives its place in the trash, to be [discarded](Store::discard).
    pub(crate) fn to_trash(&self, path: &Path) -> Option<PathBuf> {
        let place = self.fresh("trash");
        match std::fs::rename(path, &place) {
            Ok(()) => Some(place),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot be moved to the trash");
                None
            }
        }
    }

    /// Deletes what was moved to the trash, in the background.
    pub(crate) fn discard(&self, trashed: Vec<PathBuf>) {
        for path in trashed {
            if self.inner.background.send(Job::Remove(path)).is_err() {
                warn!("the background thread is gone; the trash is emptied at the next start");
            }
        }
    }

    pub(crate) fn flushes(&self) -> &Flushes {
        &self.inner.flushes
    }

    /// Has written down what was flushed.
    pub(crate) fn mark_soon(&self, flushed: Unflushed) {
        // Under pressure it stays marked as unsafe, which costs a check after a power cut.
        let _ = self.inner.background.try_send(Job::Mark(flushed));
    }

    /// Has blobs that nothing needs removed in the background; asked for often, it is done once.
    pub(crate) fn sweep_soon(&self) {
        if !self.inner.sweeping.swap(true, Ordering::AcqRel)
            && self.inner.background.try_send(Job::Sweep).is_err()
        {
            self.inner.sweeping.store(false, Ordering::Release);
        }
    }

    /// Waits until all background work asked for so far is done.
    pub fn settle(&self) {
        let (done, waiter) = sync_channel(1);
        if self.inner.background.send(Job::Barrier(done)).is_ok() {
            let _ = waiter.recv();
        }
    }

    fn clone_for_worker(&self) -> Worker {
        Worker { inner: Arc::downgrade(&self.inner) }
    }

    fn load(&self) -> Result<(), OpenError> {
        self.empty("tmp")?;
        for name in records::names(&self.root().join("trash"))? {
            self.discard(vec![self.root().join("trash").join(name)]);
        }
        let mut state = self.state();
        self.load_layers(&mut state)?;
        self.load_images(&mut state)?;
        self.load_snapshots(&mut state)?;
        self.load_cache(&mut state)?;
        self.load_volumes(&mut state)?;
        self.load_content(&mut state)?;
        let unheld = state.layers.unheld();
        drop(state);
        let gone = self.release_layers(&unheld);
        if !gone.is_empty() {
            info!(count = gone.len(), "layers of unfinished work removed");
        }
        self.sweep_soon();
        Ok(())
    }

    fn empty(&self, name: &str) -> Result<(), RecordError> {
        let dir = self.root().join(name);
        for leftover in records::names(&dir)? {
            remove_dir(&dir.join(leftover));
        }
        Ok(())
    }

    fn load_layers(&self, state: &mut State) -> Result<(), RecordError> {
        let dir = self.root().join("layers");
        let boot = boot_id();
        for name in records::names(&dir)? {
            let path = dir.join(&name);
            let record = records::read_json::<LayerRecord>(&path.join("layer.json"))?;
            let (Ok(digest), Some(mut record)) = (Digest::from_hex(&name), record) else {
                warn!(layer = name, "no layer, or half of one: removed");
                self.discard(self.to_trash(&path).into_iter().collect());
                continue;
            };
            let key = LayerKey(DiffId(digest));
            if record.unflushed.as_ref().is_some_and(|written| *written != boot) {
                if !verify(&path, key, &record).unwrap_or(false) {
                    warn!(layer = name, "damaged by a power cut: removed");
                    self.discard(self.to_trash(&path).into_iter().collect());
                    continue;
                }
                record.unflushed = None;
                self.records().write_json(&path.join("layer.json"), &record, Durability::Lazy)?;
            } else if record.unflushed.is_some() {
                self.flushes().layer(key);
            }
            state.layers.insert(key, record);
        }
        Ok(())
    }
}

/// Tells ext4 that the subdirectories of `dir` have nothing to do with each other, so that each
/// draft gets a block group of its own (chattr(1), `T`). Else all share one, whose inodes were freed
/// and taken again by the thousand; ext4 without a journal looks at each of those before it takes
/// one, which makes a new file cost 0.2 ms instead of 0.02 (Linux, `fs/ext4/ialloc.c`,
/// `recently_deleted`).
fn spread(dir: &Path) {
    let set = || -> io::Result<()> {
        let dir = sys::fs::open_dir(dir)?;
        let flags = rustix::fs::ioctl_getflags(&dir)?;
        Ok(rustix::fs::ioctl_setflags(&dir, flags | rustix::fs::IFlags::TOPDIR)?)
    };
    // Only a hint, which other file systems do not know.
    let _ = set();
}

fn lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join("lock");
    let failed = |source| OpenError::Lock { path: path.clone(), source };
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    // A killed daemon whose threads are yet to end, or a child of it that has not reached its execve,
    // holds the lock for moments; on a busy machine they are long ones.
    let mut patience = 50;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if patience > 0 => {
                patience -= 1;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::Locked(root.to_owned())),
            Err(error) => return Err(failed(error.into())),
        }
    }
}

/// Tells this start of the machine from every other.
pub(crate) fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The background thread's end: it must not keep the store, and so the lock, alive.
struct Worker {
    inner: std::sync::Weak<Inner>,
}

impl Worker {
    fn run(&self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(WAIT_MAX) {
                Ok(Job::Remove(path)) => remove_dir(&path),
                Ok(Job::Mark(flushed)) => self.with(|store| store.mark_flushed(&flushed)),
                Ok(Job::Sweep) => self.with(sweep),
                Ok(Job::Barrier(done)) => {
                    self.with(Store::flush_and_mark);
                    // Whoever waited may have gone.
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.with(|store| {
                if store.flushes().is_overdue() {
                    store.flush_and_mark();
                }
            });
        }
    }

    fn with(&self, work: impl FnOnce(&Store)) {
        if let Some(inner) = self.inner.upgrade() {
            work(&Store { inner });
        }
    }
}

fn sweep(store: &Store) {
    store.inner.sweeping.store(false, Ordering::Release);
    // Here and now, as this is the thread that empties the queue.
    for path in store.sweep_to_trash().1 {
        remove_dir(&path);
    }
}
