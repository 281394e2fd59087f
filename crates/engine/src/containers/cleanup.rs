//! What is left to do once a run has ended, and once a container is removed. Safe to do twice.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::Arc;

use tracing::warn;

use super::cgroups::cgroup;
use super::record::Record;
use super::spec::MountKind;
use super::volume_mounts;
use crate::Inner;
use crate::blocking::blocking;
use crate::disk;
use crate::error::{Error, Kind, Result, chain};
use crate::events::EventType;
use crate::networks::NetworkRecord;
use crate::workloads::{self, runtimes};

/// Says that a run gave up what it held: the networks it was on, and its volumes.
pub(crate) fn publish_given_up(engine: &Inner, record: &Record, networks: &[NetworkRecord]) {
    engine.networks.tell_left(&record.id, networks);
    for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
        let attributes = BTreeMap::from([
            ("container".to_owned(), record.id.to_string()),
            ("driver".to_owned(), mount.driver.clone()),
        ]);
        engine.events.publish(EventType::Volume, "unmount", mount.name.clone(), attributes);
    }
}

/// Takes a run's networks back, and lets go of its volumes.
pub(crate) async fn take_back(engine: &Arc<Inner>, record: &Arc<Record>) -> Vec<NetworkRecord> {
    let (engine, record) = (Arc::clone(engine), Arc::clone(record));
    blocking(move || {
        volume_mounts::release(&engine, &record);
        engine.networks.take_back(&record.id)
    })
    .await
}

/// Removes what a run has on the host beside its network: processes that outlived the first one, what
/// another runtime keeps, the control group, the run directory. Blocking.
pub(crate) fn remove_run(engine: &Inner, record: &Record) {
    let run = engine.config.run_dir(&record.id);
    let group = cgroup(engine, record);
    let runtime = runtimes::choose(&engine.live(), &record.spec.host.runtime, &run);
    workloads::cgroups::end_run(engine, &record.id, &group, runtime.unwrap_or_default());
    if let Err(error) = fs::remove_dir_all(&run)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(container = %record.id, path = %run.display(), error = chain(&error), "run directory left behind");
    }
}

/// Removes all that a container has on disk.
pub(crate) async fn remove(engine: &Arc<Inner>, record: Arc<Record>, volumes: bool) -> Result<()> {
    let engine = Arc::clone(engine);
    blocking(move || remove_blocking(&engine, &record, volumes)).await
}

fn remove_blocking(engine: &Inner, record: &Record, volumes: bool) -> Result<()> {
    let id = record.id.to_string();
    if let Err(error) = engine.store.snapshot_remove(&id) {
        return Err(Error::because(
            Kind::Internal,
            format!("container {id}: driver \"overlay2\" failed to remove root filesystem"),
            error,
        ));
    }
    if volumes {
        super::volumes::remove_anonymous(engine, record);
    }
    let dir = engine.config.container_dir(&record.id);
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(disk::failed("remove", &dir, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
