//! A container's control group: found, frozen, killed, removed. Safe to do twice.

use std::io;
use std::path::Path;
use std::sync::Arc;

use sys::cgroup::{Cgroup, Freeze};
use tracing::warn;

use super::record::Record;
use crate::Inner;
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result, chain};
use crate::words;
use crate::workloads::cgroups;

pub(crate) fn cgroup(engine: &Inner, record: &Record) -> Cgroup {
    let group =
        Cgroup::find(&cgroups::path(&record.id, &record.spec.host.resources, &engine.config));
    // Runs of earlier versions are where those put them.
    let former = Cgroup::find(&Path::new("/tug").join(record.id.to_string()));
    let there = |group: &Cgroup| group.directories().iter().any(|path| path.is_dir());
    if !there(&group) && there(&former) { former } else { group }
}

/// The first process of a run, by the number that was recorded: its handle is taken first, and then its
/// control group tells that the number is still its own.
pub(crate) fn process_of(engine: &Inner, record: &Record, pid: i32) -> Option<runs::Process> {
    let process = runs::Process::open(pid).ok()?;
    let all = cgroup(engine, record).processes().ok()?;
    all.iter().any(|one| one.as_raw_nonzero().get() == pid).then_some(process)
}

/// Kills everything in the container's control group, past its monitor.
pub(crate) async fn kill_group(engine: &Arc<Inner>, record: &Arc<Record>) {
    let (engine, record) = (Arc::clone(engine), Arc::clone(record));
    blocking(move || {
        let group = cgroup(&engine, &record);
        if let Err(error) = group.kill()
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(container = %record.id, error = chain(&error), "control group not killed");
        }
    })
    .await;
}

/// Removes the control group of processes that were killed, where no monitor does.
pub(crate) async fn remove_group(engine: &Arc<Inner>, record: &Arc<Record>) {
    let (engine, record) = (Arc::clone(engine), Arc::clone(record));
    blocking(move || {
        if let Err(error) = cgroup(&engine, &record).remove() {
            warn!(container = %record.id, error = chain(&error), "control group left behind");
        }
    })
    .await;
}

pub(crate) async fn freeze(
    engine: &Arc<Inner>,
    record: &Arc<Record>,
    freeze: Freeze,
) -> Result<()> {
    let (engine, record) = (Arc::clone(engine), Arc::clone(record));
    let id = record.id;
    let outcome = blocking(move || cgroup(&engine, &record).freeze(freeze)).await;
    outcome.map_err(|source| match source.kind() {
        // The run has ended, and the notice of it is on the way.
        io::ErrorKind::NotFound => words::not_running(id),
        // The same, between opening the group's file and writing it: kernfs says ENODEV.
        _ if source.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
            words::not_running(id)
        }
        _ => Error::because(Kind::Internal, "Cannot pause or unpause the container", source),
    })
}
