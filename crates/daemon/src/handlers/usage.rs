//! `GET /system/df`.

use api::compat::{self, Answer as Shape};
use api::system::DiskUsage;
use engine::containers::views::ListQuery;
use engine::images::{ImagesQuery, SharedSize};

use crate::convert::rows::Rows;
use crate::http::reply::{self, Result};
use crate::http::{Call, Failure};

/// The parts, as `type=` names them.
const TYPES: [&str; 4] = ["container", "image", "volume", "build-cache"];

pub async fn disk_usage(call: &Call) -> Result {
    let asked: Vec<_> = call.query.all("type").collect();
    if let Some(other) = asked.iter().find(|kind| !TYPES.contains(kind)) {
        // Source: moby 28.2 `system_routes.go`.
        return Err(Failure::invalid(format!("unknown object type: {other}")));
    }
    let wants = |kind: &str| asked.is_empty() || asked.contains(&kind);
    let mut usage = DiskUsage::default();
    let mut containers = serde_json::Value::Null;
    if wants("image") {
        let query = ImagesQuery { shared_size: SharedSize::Count, ..ImagesQuery::default() };
        let images = call.engine.list_images(query).await?;
        usage.images = Some(images.into_iter().map(super::images::summary).collect());
        usage.layers_size = i64::try_from(call.engine.layers_size()).unwrap_or(i64::MAX);
    }
    if wants("container") {
        let query = ListQuery { all: true, size: true, ..ListQuery::default() };
        let list = call.engine.list_containers(query).await?;
        let json = serde_json::to_value(Rows { version: call.version, list: &list });
        containers = json.map_err(|error| Failure::internal(error.to_string()))?;
    }
    if wants("volume") {
        let volumes = call.engine.volumes_usage().await;
        usage.volumes = Some(volumes.into_iter().map(super::volumes::usage).collect());
    }
    if wants("build-cache") {
        let cache = call.engine.build_cache().await;
        usage.build_cache = Some(cache.into_iter().map(super::build::usage).collect());
    }
    let mut value =
        serde_json::to_value(usage).map_err(|error| Failure::internal(error.to_string()))?;
    value["Containers"] = containers;
    compat::downgrade(Shape::DiskUsage, call.version, &mut value);
    reply::ok(&value)
}
