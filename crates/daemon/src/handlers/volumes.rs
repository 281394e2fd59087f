//! Volumes.

use api::version::v;
use api::volume as docker;
use engine::volumes::{Absent, PruneNamed, VolumeRequest, VolumeUsage};
use hyper::StatusCode;

use crate::http::reply::{self, Result};
use crate::http::{Call, Failure};

/// The engine's volume, whose type has no name here.
macro_rules! shown {
    ($volume:expr) => {{
        let volume = $volume;
        docker::Volume {
            created_at: volume.created_at,
            driver: volume.driver,
            labels: (!volume.labels.is_empty()).then_some(volume.labels),
            mountpoint: volume.mountpoint.to_string_lossy().into_owned(),
            name: volume.name,
            options: (!volume.options.is_empty()).then_some(volume.options),
            scope: "local".to_owned(),
            status: None,
            usage_data: None,
        }
    }};
}

/// For disk usage.
pub fn usage(usage: VolumeUsage) -> docker::Volume {
    let data = docker::UsageData {
        ref_count: i64::try_from(usage.containers).unwrap_or(i64::MAX),
        size: i64::try_from(usage.size).unwrap_or(i64::MAX),
    };
    docker::Volume { usage_data: Some(data), ..shown!(usage.volume) }
}

pub async fn list(call: &Call) -> Result {
    let volumes = call.engine.list_volumes(&call.filters()?).await?;
    reply::ok(&docker::ListResponse {
        volumes: volumes.into_iter().map(|volume| shown!(volume)).collect(),
        warnings: None,
    })
}

pub async fn create(mut call: Call) -> Result {
    let body: docker::CreateRequest = call.json().await?.unwrap_or_default();
    if body.cluster_volume_spec.is_some_and(|spec| !spec.is_null()) {
        return super::swarm::no_manager();
    }
    let request = VolumeRequest {
        name: body.name,
        driver: body.driver,
        options: body.driver_opts.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
    };
    let volume = call.engine.create_volume(request).await?;
    reply::json(StatusCode::CREATED, &shown!(volume))
}

pub async fn inspect(call: &Call, name: &str) -> Result {
    let volume = call.engine.inspect_volume(name).await?;
    reply::ok(&shown!(volume))
}

pub async fn delete(call: &Call, name: &str) -> Result {
    let absent = if call.query.flag("force") { Absent::Accept } else { Absent::Fail };
    call.engine.remove_volume(name, absent).await?;
    reply::no_content()
}

pub async fn prune(call: &Call) -> Result {
    let named = if call.version < v(42) { PruneNamed::Remove } else { PruneNamed::Keep };
    let report = call.engine.prune_volumes(call.filters()?, named).await?;
    reply::ok(&docker::PruneReport {
        // Docker has a list here even where there is none, other than in its other reports.
        volumes_deleted: Some(report.removed),
        space_reclaimed: report.reclaimed,
    })
}

/// Only a swarm's volumes can be updated.
pub fn update() -> std::result::Result<crate::http::Answer, Failure> {
    super::swarm::no_manager()
}
