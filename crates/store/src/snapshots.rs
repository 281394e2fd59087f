//! Snapshots: the writable layer of a container or build step on top of image layers.
//!
//! ```text
//! rw/<id>/diff            overlayfs' upper directory
//! rw/<id>/work            its work directory
//! rw/<id>/snapshot.json   the layers below, which it holds
//! init/<chain>/diff       what every container needs in place, made once for each image
//! ```
//! An *init layer* has the mount points and files that a runtime mounts over (`/proc`, `/etc/hosts`,
//! …) where the image lacks them. It lies between image and upper directory, so making them costs a
//! container nothing and neither diff nor commit ever shows them.
//!
//! Source for the init layer's content: moby `daemon/initlayer/setup_unix.go`.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use spec::{ChainId, DiffId};
use sys::mount::Attributes;

use crate::draft::{Draft, Hashing, UnpackError, is_opaque};
use crate::layers::{Layer, LayerKey, Lease};
use crate::merged::Merged;
use crate::records::{self, Durability, RecordError};
use crate::store::{State, Store};
use crate::tar::{Kind, Time};
use crate::tree::{Meta, Tree, is_whiteout, split, to_path};
use crate::walk::{Descend, Node, WalkError, walk};

/// Where a container's tree comes from, for an overlay mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub id: String,
    /// Top first; the first is the init layer.
    pub lowers: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
}

/// What happened to a path since the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// One line of `docker diff`. The path is absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    pub path: PathBuf,
}

/// Why something with a snapshot failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("snapshot {0} is not there")]
    Missing(String),
    #[error("snapshot {0} is there already")]
    Exists(String),
    #[error("{0:?} cannot name a snapshot")]
    Name(String),
    #[error("layer {0} is not there")]
    NoLayer(LayerKey),
    #[error("cannot make snapshot at {path:?}")]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot make the init layer at {path:?}")]
    Init { path: PathBuf, source: io::Error },
    #[error("cannot mount snapshot {id}")]
    Mount { id: String, source: io::Error },
    #[error("cannot read snapshot {id}")]
    Read { id: String, source: io::Error },
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// `rw/<id>/snapshot.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SnapshotRecord {
    chain: Vec<LayerKey>,
}

#[derive(Default)]
pub(crate) struct Snapshots {
    chains: HashMap<String, Vec<LayerKey>>,
    /// Init layers that exist, with the chain that they stand on.
    inits: HashMap<String, Vec<LayerKey>>,
    mounts: HashMap<String, Weak<OwnedFd>>,
}

impl Store {
    /// Makes a writable layer on `chain` (bottom first), which it holds until it is removed.
    pub fn snapshot_create(&self, id: &str, chain: &[LayerKey]) -> Result<Snapshot, SnapshotError> {
        if id.is_empty() || id.starts_with('.') || id.contains('/') {
            return Err(SnapshotError::Name(id.to_owned()));
        }
        {
            let mut state = self.state();
            if state.snapshots.chains.contains_key(id) {
                return Err(SnapshotError::Exists(id.to_owned()));
            }
            state.layers.hold_all(chain).map_err(SnapshotError::NoLayer)?;
            state.snapshots.chains.insert(id.to_owned(), chain.to_vec());
        }
        let made = self.make_snapshot(id, chain);
        if made.is_err() {
            self.state().snapshots.chains.remove(id);
            self.release_layers(chain);
        }
        made
    }

    fn make_snapshot(&self, id: &str, chain: &[LayerKey]) -> Result<Snapshot, SnapshotError> {
        self.ensure_init(chain)?;
        let draft = self.temporary();
        let snapshot = self.describe(id, chain);
        let make = || -> io::Result<()> {
            std::fs::create_dir(&draft)?;
            let dir = sys::fs::open_dir(&draft)?;
            rustix::fs::mkdirat(&dir, "diff", Mode::from_raw_mode(0o755))?;
            rustix::fs::mkdirat(&dir, "work", Mode::RWXU)?;
            // The root of an overlay has the attributes of its upper directory: root's and 755, as
            // Docker has it, whatever the image's archives said of theirs.
            let upper = sys::fs::open_dir_at(dir.as_fd(), "diff")?;
            rustix::fs::fchmod(&upper, Mode::from_raw_mode(0o755))?;
            let record = serde_json::to_vec(&SnapshotRecord { chain: chain.to_vec() })?;
            std::fs::write(draft.join("snapshot.json"), record)?;
            std::fs::rename(&draft, self.snapshot_dir(id))
        };
        make().map_err(|source| {
            crate::draft::remove_dir(&draft);
            SnapshotError::Create { path: self.snapshot_dir(id), source }
        })?;
        Ok(snapshot)
    }

    /// The snapshot of `id`.
    pub fn snapshot(&self, id: &str) -> Result<Snapshot, SnapshotError> {
        let chain = self.snapshot_chain(id)?;
        Ok(self.describe(id, &chain))
    }

    /// The image layers below a snapshot, bottom first.
    pub fn snapshot_chain(&self, id: &str) -> Result<Vec<LayerKey>, SnapshotError> {
        let state = self.state();
        state.snapshots.chains.get(id).cloned().ok_or_else(|| SnapshotError::Missing(id.to_owned()))
    }

    /// All snapshots' ids, in no order.
    pub fn snapshots(&self) -> Vec<String> {
        self.state().snapshots.chains.keys().cloned().collect()
    }

    fn describe(&self, id: &str, chain: &[LayerKey]) -> Snapshot {
        let dir = self.snapshot_dir(id);
        let mut lowers = vec![self.init_dir(chain).join("diff")];
        lowers.extend(self.lowers(chain));
        Snapshot { id: id.to_owned(), lowers, upper: dir.join("diff"), work: dir.join("work") }
    }

    /// Removes a snapshot with its data; one that is not there is fine. The data is deleted in the
    /// background.
    pub fn snapshot_remove(&self, id: &str) -> Result<(), SnapshotError> {
        let chain = {
            let mut state = self.state();
            state.snapshots.mounts.remove(id);
            state.snapshots.chains.remove(id)
        };
        let Some(chain) = chain else { return Ok(()) };
        let trashed = self.to_trash(&self.snapshot_dir(id));
        self.discard(trashed.into_iter().collect());
        self.release_layers(&chain);
        Ok(())
    }

    /// The root directory of the snapshot's tree on a mount that no path leads to. All callers of one
    /// time share a mount, as overlayfs wants its upper directory for itself. Only for containers that
    /// do not run.
    pub fn snapshot_mount(&self, id: &str) -> Result<Arc<OwnedFd>, SnapshotError> {
        let snapshot = self.snapshot(id)?;
        let mut state = self.state();
        if let Some(mounted) = state.snapshots.mounts.get(id).and_then(Weak::upgrade) {
            return Ok(mounted);
        }
        let mounted = mount_overlay(&snapshot.lowers, Some((&snapshot.upper, &snapshot.work)))
            .map_err(|source| SnapshotError::Mount { id: id.to_owned(), source })?;
        let mounted = Arc::new(mounted);
        state.snapshots.mounts.insert(id.to_owned(), Arc::downgrade(&mounted));
        Ok(mounted)
    }

    /// The root directory of an image's tree, read-only, on a mount that no path leads to.
    pub fn mount_chain(&self, chain: &[LayerKey]) -> Result<OwnedFd, SnapshotError> {
        self.ensure_init(&[])?;
        let mut lowers = self.lowers(chain);
        // overlayfs wants two lower directories at least; empty ones at the bottom change nothing.
        let empty = self.root().join("init").join("empty");
        let failed = |source| SnapshotError::Mount { id: "of an image".to_owned(), source };
        std::fs::create_dir_all(&empty).map_err(failed)?;
        if lowers.is_empty() {
            let second = self.root().join("init").join("empty2");
            std::fs::create_dir_all(&second).map_err(failed)?;
            lowers.push(second);
        }
        if lowers.len() < 2 {
            lowers.push(empty);
        }
        mount_overlay(&lowers, None).map_err(failed)
    }

    /// What changed since the image, in the order of paths.
    pub fn snapshot_changes(&self, id: &str) -> Result<Vec<Change>, SnapshotError> {
        let snapshot = self.snapshot(id)?;
        let failed = |source| SnapshotError::Read { id: id.to_owned(), source };
        let upper = sys::fs::open_dir(&snapshot.upper).map_err(failed)?;
        let mut merged = Merged::open(&snapshot.lowers).map_err(failed)?;
        let mut found = std::collections::BTreeMap::new();
        walk(upper.as_fd(), &mut |node| {
            let kind =
                change_of(node, &mut merged).map_err(|error| WalkError::at(node.path, error))?;
            if let Some(kind) = kind {
                note_with_parents(&mut found, node.path, kind);
            }
            Ok::<_, SnapshotError>(Descend::Yes)
        })?;
        let absolute = |path: Vec<u8>| Path::new("/").join(to_path(&path));
        Ok(found.into_iter().map(|(path, kind)| Change { kind, path: absolute(path) }).collect())
    }

    /// Whether a snapshot has a directory at `path`, as far as that shows without following links or
    /// mounting anything: false may be wrong, true is not.
    pub fn snapshot_has_directory(&self, id: &str, path: &Path) -> bool {
        let look = || -> io::Result<bool> {
            let snapshot = self.snapshot(id).map_err(io::Error::other)?;
            let path = crate::tree::clean(path.as_os_str().as_encoded_bytes());
            let path = path.map_err(io::Error::other)?;
            let mut layers = vec![snapshot.upper];
            layers.extend(snapshot.lowers);
            let found = Merged::open(&layers)?.find(&path)?;
            Ok(found.is_some_and(|found| found.is_dir()))
        };
        look().unwrap_or(false)
    }

    /// Bytes of the files in the writable layer.
    pub fn snapshot_size(&self, id: &str) -> Result<u64, SnapshotError> {
        let snapshot = self.snapshot(id)?;
        let failed = |source| SnapshotError::Read { id: id.to_owned(), source };
        let upper = sys::fs::open_dir(&snapshot.upper).map_err(failed)?;
        Ok(crate::walk::size(upper.as_fd())?)
    }

    /// Makes a layer of a finished snapshot by moving its tree; no byte is copied. The snapshot is
    /// gone afterwards, also when nothing had changed (none) or on an error.
    pub fn commit_upper(&self, lease: &Lease, id: &str) -> Result<Option<Layer>, CommitError> {
        let snapshot = self.snapshot(id)?;
        let chain = self.snapshot_chain(id)?;
        let outcome = self.move_upper(lease, &snapshot, &chain);
        self.snapshot_remove(id)?;
        Ok(outcome?)
    }

    fn move_upper(
        &self,
        lease: &Lease,
        snapshot: &Snapshot,
        chain: &[LayerKey],
    ) -> Result<Option<Layer>, UnpackError> {
        let dir = self.temporary();
        let failed = |source| UnpackError::Draft { path: dir.clone(), source };
        std::fs::create_dir(&dir).map_err(failed)?;
        let moved = std::fs::rename(&snapshot.upper, dir.join("diff")).map_err(failed);
        let mut draft = Draft::adopt(dir)?;
        moved?;
        draft.describe()?;
        if draft.is_empty() {
            return Ok(None);
        }
        self.commit_draft(lease, draft, chain).map(Some)
    }

    /// Makes a layer of what changed in a snapshot, which stays as it is.
    pub fn commit_copy(&self, lease: &Lease, id: &str) -> Result<Option<Layer>, CommitError> {
        let snapshot = self.snapshot(id)?;
        let chain = self.snapshot_chain(id)?;
        let mut draft = Draft::create(self.temporary(), Hashing::Here)?;
        let failed = |source| SnapshotError::Read { id: id.to_owned(), source };
        let upper = sys::fs::open_dir(&snapshot.upper).map_err(failed)?;
        walk(upper.as_fd(), &mut |node| copy_node(&mut draft, node))?;
        if draft.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.commit_draft(lease, draft, &chain)?))
    }

    fn snapshot_dir(&self, id: &str) -> PathBuf {
        self.root().join("rw").join(id)
    }

    fn init_dir(&self, chain: &[LayerKey]) -> PathBuf {
        self.root().join("init").join(chain_name(chain))
    }

    /// Makes the init layer of `chain` unless it is there.
    fn ensure_init(&self, chain: &[LayerKey]) -> Result<(), SnapshotError> {
        let name = chain_name(chain);
        if self.state().snapshots.inits.contains_key(&name) {
            return Ok(());
        }
        let place = self.init_dir(chain);
        let draft = self.temporary();
        let make = || -> io::Result<()> {
            std::fs::create_dir(&draft)?;
            let tree = Tree::fresh(&draft)?;
            let merged = Merged::open(&self.lowers(chain))?;
            fill_init(tree, merged)?;
            let record = serde_json::to_vec(&SnapshotRecord { chain: chain.to_vec() })?;
            std::fs::write(draft.join("init.json"), record)?;
            match std::fs::rename(&draft, &place) {
                // Another caller was faster.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    crate::draft::remove_dir(&draft);
                    Ok(())
                }
                other => other,
            }
        };
        make().map_err(|source| {
            crate::draft::remove_dir(&draft);
            SnapshotError::Init { path: place, source }
        })?;
        self.state().snapshots.inits.insert(name, chain.to_vec());
        Ok(())
    }

    /// Forgets the init layers that stand on one of `gone`; gives their directories.
    pub(crate) fn inits_on(&self, state: &mut State, gone: &[LayerKey]) -> Vec<PathBuf> {
        if gone.is_empty() {
            return Vec::new();
        }
        let stale = |chain: &Vec<LayerKey>| chain.iter().any(|key| gone.contains(key));
        let names: Vec<String> = state
            .snapshots
            .inits
            .iter()
            .filter(|(_, chain)| stale(chain))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &names {
            state.snapshots.inits.remove(name);
        }
        names.into_iter().map(|name| self.root().join("init").join(name)).collect()
    }

    pub(crate) fn load_snapshots(&self, state: &mut State) -> Result<(), RecordError> {
        for (id, record) in
            records::load_dir::<SnapshotRecord>(&self.root().join("rw"), "snapshot.json")?
        {
            // A container whose image layers are gone cannot start, but it can still be removed.
            if let Err(missing) = state.layers.hold_all(&record.chain) {
                tracing::warn!(snapshot = id, layer = %missing, "a layer below is missing");
                for key in &record.chain {
                    state.layers.hold(key);
                }
            }
            state.snapshots.chains.insert(id, record.chain);
        }
        for (name, record) in
            records::load_dir::<SnapshotRecord>(&self.root().join("init"), "init.json")?
        {
            if record.chain.iter().all(|key| state.layers.get(key).is_some()) {
                state.snapshots.inits.insert(name, record.chain);
            } else {
                self.discard(
                    self.to_trash(&self.root().join("init").join(name)).into_iter().collect(),
                );
            }
        }
        Ok(())
    }

    /// Flushes the record of snapshot `id`, for a container that was promised to
    /// survive a power cut.
    pub fn snapshot_flush(&self, id: &str) -> Result<(), SnapshotError> {
        let chain = self.snapshot_chain(id)?;
        let path = self.snapshot_dir(id).join("snapshot.json");
        Ok(self.records().write_json(&path, &SnapshotRecord { chain }, Durability::Durable)?)
    }
}

/// Why a container's changes did not become a layer.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Layer(#[from] UnpackError),
}

/// Init layers depend on all layers below.
/// Layers must mean the same in every order of use: no redirects or metadata-only copies that only a
/// particular mount understands, and no index that ties an upper directory to one mount.
fn mount_overlay(lowers: &[PathBuf], upper: Option<(&Path, &Path)>) -> io::Result<OwnedFd> {
    let options = ["redirect_dir=off", "metacopy=off", "index=off"].map(String::from);
    let overlay = sys::overlay::Overlay { lowers, upper, options: &options };
    sys::overlay::mount(&overlay, Attributes::NO_DEV.with(Attributes::NO_SUID))
}

fn chain_name(chain: &[LayerKey]) -> String {
    let layers: Vec<DiffId> = chain.iter().map(LayerKey::diff_id).collect();
    ChainId::of(&layers).map_or_else(|| "scratch".to_owned(), |id| id.hex())
}

enum Stub {
    Dir,
    File,
    Link(&'static str),
}

const STUBS: [(&str, Stub); 10] = [
    (".dockerenv", Stub::File),
    ("dev/console", Stub::File),
    ("dev/pts", Stub::Dir),
    ("dev/shm", Stub::Dir),
    ("etc/hostname", Stub::File),
    ("etc/hosts", Stub::File),
    ("etc/mtab", Stub::Link("/proc/mounts")),
    ("etc/resolv.conf", Stub::File),
    ("proc", Stub::Dir),
    ("sys", Stub::Dir),
];

/// Puts in place what is missing. A symbolic link on the way is replaced: it would lead the mounts
/// that go there to a place of the image's choosing.
fn fill_init(mut tree: Tree, mut merged: Merged) -> io::Result<()> {
    let other = |error: crate::tree::TreeError| io::Error::other(error);
    let fresh = Meta { mode: 0o755, uid: 0, gid: 0, mtime: Time::default(), xattrs: &[] };
    for (path, stub) in &STUBS {
        let path = path.as_bytes();
        let there = merged.find(path)?;
        let fits = match (&there, stub) {
            (Some(found), Stub::Dir) => found.is_dir(),
            (Some(found), Stub::File) => !found.is_dir() && !found.is_symlink(),
            (Some(found), Stub::Link(_)) => !found.is_dir(),
            (None, Stub::Dir | Stub::File | Stub::Link(_)) => false,
        };
        if fits {
            continue;
        }
        let (parent, _) = split(path);
        if !parent.is_empty() {
            match merged.find(parent)?.filter(crate::merged::Found::is_dir) {
                Some(found) => {
                    let xattrs = own_xattrs(&found)?;
                    tree.make_dir(parent, &meta_like(&found.stat, &xattrs)).map_err(other)?;
                }
                None => tree.make_dir(parent, &fresh).map_err(other)?,
            }
        }
        match stub {
            Stub::Dir => tree.make_dir(path, &fresh).map_err(other)?,
            Stub::File => {
                let (file, _) = tree.create_file(path, fresh.mode).map_err(other)?;
                tree.finish_file(path, &file, &fresh).map_err(other)?;
            }
            Stub::Link(target) => {
                tree.make_symlink(path, target.as_bytes(), &fresh).map_err(other)?
            }
        }
    }
    tree.finish().map(drop)
}

fn own_xattrs(found: &crate::merged::Found) -> io::Result<sys::fs::Xattrs> {
    let mut xattrs = found.xattrs()?;
    xattrs.retain(|(name, _)| !crate::tree::is_overlay_xattr(name));
    Ok(xattrs)
}

fn meta_like<'a>(stat: &rustix::fs::Stat, xattrs: &'a sys::fs::Xattrs) -> Meta<'a> {
    Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time::of_modification(stat),
        xattrs,
    }
}

/// A directory that only exists above because something below it changed is no change itself.
fn change_of(node: &Node<'_>, merged: &mut Merged) -> io::Result<Option<ChangeKind>> {
    if is_whiteout(&node.stat) {
        return Ok(Some(ChangeKind::Deleted));
    }
    let Some(below) = merged.find(node.path)? else { return Ok(Some(ChangeKind::Added)) };
    if node.is_dir() && below.is_dir() {
        let same = Time::of_modification(&node.stat) == Time::of_modification(&below.stat)
            && node.stat.st_mode == below.stat.st_mode
            && (node.stat.st_uid, node.stat.st_gid) == (below.stat.st_uid, below.stat.st_gid);
        return Ok((!same).then_some(ChangeKind::Modified));
    }
    Ok(Some(ChangeKind::Modified))
}

fn note_with_parents(
    found: &mut std::collections::BTreeMap<Vec<u8>, ChangeKind>,
    path: &[u8],
    kind: ChangeKind,
) {
    found.insert(path.to_vec(), kind);
    let (mut parent, _) = split(path);
    while !parent.is_empty() && !found.contains_key(parent) {
        found.insert(parent.to_vec(), ChangeKind::Modified);
        (parent, _) = split(parent);
    }
}

fn copy_node(draft: &mut Draft, node: &Node<'_>) -> Result<Descend, UnpackError> {
    if is_whiteout(&node.stat) {
        draft.add_whiteout(node.path)?;
        return Ok(Descend::Yes);
    }
    let Some(entry) = node.tar_entry(node.path.to_vec())? else { return Ok(Descend::Yes) };
    if entry.kind == Kind::File {
        draft.add(&entry, Some(&mut node.file()?))?;
        return Ok(Descend::Yes);
    }
    draft.add(&entry, None)?;
    if let (true, Some(opened)) = (node.is_dir(), &node.opened)
        && is_opaque(opened.as_fd()).map_err(|error| WalkError::at(node.path, error))?
    {
        draft.add_opaque(node.path)?;
    }
    Ok(Descend::Yes)
}
