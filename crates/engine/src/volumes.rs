//! Volumes as users see them. What they are on disk is in [`store::Volume`]; which containers use
//! one is known here.
//!
//! Source: moby `volume/service/service.go`, `volume/service/errors.go`, `daemon/prune.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use store::{Creation, Volume, VolumeError, VolumeSpec};

use crate::blocking::blocking;
use crate::containers::volume_users;
use crate::error::{Error, Kind, Result};
use crate::events::EventType;
use crate::filters::Filters;
use crate::{Engine, Inner, words};

/// A volume to make. An empty name asks for an anonymous one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeRequest {
    pub name: String,
    pub driver: String,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// A volume with what its use costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUsage {
    pub volume: Volume,
    pub containers: usize,
    /// Bytes of its files.
    pub size: u64,
}

/// What a prune of volumes did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumePruneReport {
    pub removed: Vec<String>,
    /// Bytes.
    pub reclaimed: u64,
}

/// Whether removing a volume that is not there is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    Fail,
    Accept,
}

/// Which volumes a prune takes when no filter says so: API versions before 1.42 took named ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PruneNamed {
    Keep,
    Remove,
}

/// Marks volumes that were not given a name.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

impl Engine {
    /// Makes a volume or gives the one of that name.
    ///
    /// # Errors
    /// `Invalid` for a bad name or option; `NotFound` for an unknown driver.
    pub async fn create_volume(&self, request: VolumeRequest) -> Result<Volume> {
        let engine = Arc::clone(&self.inner);
        blocking(move || create(&engine, request)).await
    }

    /// Lists volumes in the order of names.
    ///
    /// # Errors
    /// `Invalid` for an unknown filter.
    pub async fn list_volumes(&self, filters: &Filters) -> Result<Vec<Volume>> {
        filters.only(&["dangling", "driver", "label", "label!", "name"])?;
        let dangling = filters.boolean("dangling")?;
        let engine = &self.inner;
        let fits = |volume: &Volume| {
            filters.pattern("name", &volume.name)
                && filters.exact("driver", &volume.driver)
                && filters.labels(&volume.labels)
                && dangling.is_none_or(|dangling| {
                    volume_users(engine, &volume.name).is_empty() == dangling
                })
        };
        Ok(engine.store.volumes().into_iter().filter(fits).collect())
    }

    /// # Errors
    /// `NotFound`.
    pub async fn inspect_volume(&self, name: &str) -> Result<Volume> {
        self.inner.store.volume(name).ok_or_else(|| no_such_volume(name))
    }

    /// Removes a volume with its data.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while a container, running or not, uses it.
    pub async fn remove_volume(&self, name: &str, absent: Absent) -> Result<()> {
        let (engine, name) = (Arc::clone(&self.inner), name.to_owned());
        blocking(move || match (remove(&engine, &name), absent) {
            (Err(error), Absent::Accept) if error.kind == Kind::NotFound => Ok(()),
            (outcome, Absent::Accept | Absent::Fail) => outcome,
        })
        .await
    }

    /// Removes volumes that no container uses: anonymous ones, with the filter `all` named ones too.
    ///
    /// # Errors
    /// `Invalid` for an unknown filter; `Conflict` while another prune runs.
    pub async fn prune_volumes(
        &self,
        filters: Filters,
        named: PruneNamed,
    ) -> Result<VolumePruneReport> {
        let _alone = self.inner.pruning_volumes.try_lock().map_err(|_| words::prune_running())?;
        let engine = Arc::clone(&self.inner);
        blocking(move || prune(&engine, &filters, named)).await
    }

    /// All volumes with their sizes and users, for disk usage.
    pub async fn volumes_usage(&self) -> Vec<VolumeUsage> {
        let engine = Arc::clone(&self.inner);
        blocking(move || {
            let usage = |volume: Volume| VolumeUsage {
                containers: volume_users(&engine, &volume.name).len(),
                size: engine.store.volume_size(&volume.name).unwrap_or(0),
                volume,
            };
            engine.store.volumes().into_iter().map(usage).collect()
        })
        .await
    }
}

fn create(engine: &Inner, request: VolumeRequest) -> Result<Volume> {
    let VolumeRequest { mut name, driver, options, mut labels } = request;
    let anonymous = name.is_empty();
    if anonymous {
        name = spec::Id::random().to_string();
        labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
    }
    let spec = VolumeSpec { driver, options, labels, anonymous };
    let (volume, creation) =
        engine.store.volume_create(&name, &spec).map_err(|error| create_error(&name, error))?;
    if creation == Creation::Created {
        engine.flush()?;
        tell(engine, "create", &volume);
    }
    Ok(volume)
}

fn create_error(name: &str, error: VolumeError) -> Error {
    match &error {
        VolumeError::Driver(driver) => Error::not_found(format!(
            "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
        )),
        VolumeError::NameTooShort
        | VolumeError::Name(_)
        | VolumeError::Option(_)
        | VolumeError::Quota
        | VolumeError::OptionMissing(_) => {
            Error::because(Kind::Invalid, format!("create {name}"), error)
        }
        VolumeError::Missing(_)
        | VolumeError::Create { .. }
        | VolumeError::CopyUp { .. }
        | VolumeError::Tree { .. }
        | VolumeError::Walk(_)
        | VolumeError::Record(_) => Error::because(Kind::Internal, format!("create {name}"), error),
    }
}

fn remove(engine: &Inner, name: &str) -> Result<()> {
    let volume = engine.store.volume(name).ok_or_else(|| no_such_volume(name))?;
    let users = volume_users(engine, name);
    if !users.is_empty() {
        let ids: Vec<String> = users.iter().map(ToString::to_string).collect();
        return Err(Error::conflict(format!(
            "remove {name}: volume is in use - [{}]",
            ids.join(", ")
        )));
    }
    crate::containers::volume_mounts::unmount(&volume);
    match engine.store.volume_remove(name) {
        Ok(()) => {
            tell(engine, "destroy", &volume);
            Ok(())
        }
        Err(VolumeError::Missing(_)) => Err(no_such_volume(name)),
        Err(error) => Err(Error::because(Kind::Internal, format!("remove {name}"), error)),
    }
}

fn prune(engine: &Inner, filters: &Filters, named: PruneNamed) -> Result<VolumePruneReport> {
    filters.only(&["all", "label", "label!"])?;
    let all = filters.boolean("all")?.unwrap_or(named == PruneNamed::Remove);
    let mut report = VolumePruneReport::default();
    for volume in engine.store.volumes() {
        let anonymous = volume.anonymous || volume.labels.contains_key(ANONYMOUS_LABEL);
        if !(all || anonymous)
            || !volume.options.is_empty()
            || !filters.labels(&volume.labels)
            || !volume_users(engine, &volume.name).is_empty()
        {
            continue;
        }
        let size = engine.store.volume_size(&volume.name).unwrap_or(0);
        match remove(engine, &volume.name) {
            Ok(()) => {
                report.reclaimed += size;
                report.removed.push(volume.name);
            }
            // A container took it, or somebody removed it, meanwhile.
            Err(error) if matches!(error.kind, Kind::Conflict | Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    let attributes = BTreeMap::from([("reclaimed".to_owned(), report.reclaimed.to_string())]);
    engine.events.publish(EventType::Volume, "prune", "", attributes);
    Ok(report)
}

fn tell(engine: &Inner, action: &str, volume: &Volume) {
    let attributes = BTreeMap::from([("driver".to_owned(), volume.driver.clone())]);
    engine.events.publish(EventType::Volume, action, volume.name.clone(), attributes);
}

/// Source: moby `volume/service/store.go` and `errors.go`.
fn no_such_volume(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}
