//! Volumes that are file systems of their own: mounted once, however many containers use one.
//!
//! With the options `type`, `device` and `o` a volume is a file system, and two containers that use it
//! at a time must see the same files, which of a tmpfs two mounts would not show. So it is mounted at
//! the volume's `_data` when the first container starts, and each container gets a bind of that, as
//! with any other volume. The kernel keeps both when the daemon dies.
//!
//! Always true: who starts holds the volume before its mount is made and until its run is cleaned up,
//! so the mount goes with the last holder. A starting daemon knows its holders by their runs, and takes
//! away what nobody holds any more ([`sweep`]).
//!
//! Source: moby `volume/local/local.go` and `local_unix.go`, which count in the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use spec::Id;
use store::{Volume, VolumeMount};
use tracing::warn;

use super::record::Record;
use super::spec::MountKind;
use crate::Inner;
use crate::error::{Error, Kind, Result, chain};

/// Who holds which volume.
#[derive(Default)]
pub(crate) struct Holders(Mutex<BTreeMap<String, BTreeSet<Id>>>);

/// Mounts a volume for a container that starts. Blocking.
///
/// # Errors
/// In Docker's words for what mount(2) refuses.
pub(super) fn hold(engine: &Inner, id: Id, volume: &Volume, wish: &VolumeMount) -> Result<()> {
    let mut holders = engine.volume_holders.0.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_mounted(&volume.mountpoint) {
        mount(volume, wish).map_err(|source| refused(volume, wish, source))?;
    }
    holders.entry(volume.name.clone()).or_default().insert(id);
    Ok(())
}

/// Lets go of all volumes of a container whose run is over. Blocking.
pub(super) fn release(engine: &Inner, record: &Record) {
    for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
        let Some(volume) = engine.store.volume(&mount.name) else { continue };
        if volume.mount().is_none_or(|wish| wish.is_bind()) {
            continue;
        }
        let mut holders = engine.volume_holders.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = holders.get_mut(&volume.name).is_some_and(|ids| {
            ids.remove(&record.id);
            !ids.is_empty()
        });
        if left || runs(engine, &volume.name, Some(&record.id)) {
            continue;
        }
        holders.remove(&volume.name);
        unmount(&volume);
    }
}

/// Takes away the mounts that a daemon which was killed left to nobody. Blocking.
pub(crate) fn sweep(engine: &Inner) {
    for volume in engine.store.volumes() {
        if volume.mount().is_some_and(|wish| !wish.is_bind()) && !runs(engine, &volume.name, None) {
            unmount(&volume);
        }
    }
}

/// Before a volume is removed, which no container has.
pub(crate) fn unmount(volume: &Volume) {
    if !is_mounted(&volume.mountpoint) {
        return;
    }
    if let Err(error) = sys::mount::unmount(&volume.mountpoint) {
        warn!(volume = volume.name, error = chain(&error), "volume stays mounted");
    }
}

/// Whether a container besides `except` runs with a volume.
fn runs(engine: &Inner, name: &str, except: Option<&Id>) -> bool {
    engine.containers.all().iter().filter(|container| Some(&container.id) != except).any(
        |container| {
            let view = container.now();
            let uses = view
                .record
                .mounts
                .iter()
                .any(|mount| mount.kind == MountKind::Volume && mount.name == name);
            uses && view.phase.run().is_some()
        },
    )
}

/// Whether something is mounted at `path`.
pub(super) fn is_mounted(path: &Path) -> bool {
    let found = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn mount(volume: &Volume, wish: &VolumeMount) -> io::Result<()> {
    let options = wish.options.iter().map(String::as_str);
    let made = runtime::file_system(&wish.fs_type, &wish.source, options)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::open(&volume.mountpoint, flags, Mode::empty())?;
    sys::mount::attach(&made, &place)
}

/// Source: moby 28.2 `volume/local/local_unix.go`, and `github.com/moby/sys/mount`, whose error names
/// the call.
fn refused(volume: &Volume, wish: &VolumeMount, source: io::Error) -> Error {
    let place = volume.mountpoint.display();
    let data = wish.options.join(",");
    let data = if data.is_empty() { String::new() } else { format!(", data: {data}") };
    let text = format!(
        "error while mounting volume '{place}': failed to mount local volume: mount {}:{place}{data}",
        wish.source
    );
    Error::because(Kind::Internal, text, source)
}
