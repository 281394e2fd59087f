//! `docker commit`: a container's tree and configuration as a new image.

use std::sync::Arc;

use jiff::Timestamp;
use spec::ImageId;
use spec::image::{History, ImageConfig};

use super::events;
use super::step::Phase;
use super::views::CommitRequest;
use crate::Engine;
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};

impl Engine {
    /// Makes an image of a container, which is paused meanwhile if asked for.
    ///
    /// # Errors
    /// `Conflict` for a container that is being removed; `Invalid` for a bad `--change`.
    pub async fn commit_container(&self, asked: &str, request: CommitRequest) -> Result<ImageId> {
        let container = self.container(asked)?;
        let view = container.now();
        if matches!(view.phase, Phase::Removing { .. } | Phase::Dead { .. } | Phase::Gone) {
            let text = format!("You cannot commit container {} which is Dead", container.id);
            return Err(Error::conflict(text));
        }
        let mut config = request.config.clone().unwrap_or_default();
        super::merge::merge(&mut config, &view.record.spec.config);
        crate::changes::apply(&mut config, &request.changes)?;
        let mut pause = request.pause && matches!(view.phase, Phase::Running { .. });
        if pause && let Err(error) = self.pause_container(asked).await {
            // It ended this instant, or another paused it.
            if error.kind != Kind::Conflict {
                return Err(error);
            }
            pause = false;
        }
        let (engine, record) = (Arc::clone(&self.inner), Arc::clone(&view.record));
        let reference = request.reference.clone();
        let made = blocking(move || make(&engine, &record, config, &request)).await;
        if pause && let Err(error) = self.unpause_container(asked).await {
            tracing::warn!(container = %container.id, error = crate::error::chain(&error), "container stays paused after commit");
        }
        let image = made?;
        if let Some(reference) = &reference {
            crate::images::tag(&self.inner, reference, &image)?;
        }
        let engine = Arc::clone(&self.inner);
        blocking(move || engine.flush()).await?;
        let more = [
            ("comment", String::new()),
            ("imageID", image.to_string()),
            ("imageRef", reference.map_or_else(String::new, |reference| reference.familiar())),
        ];
        events::publish(&self.inner, &view.record, "commit", &more);
        Ok(image)
    }
}

/// Blocking.
fn make(
    engine: &crate::Inner,
    record: &super::record::Record,
    config: spec::image::Config,
    request: &CommitRequest,
) -> Result<ImageId> {
    // Without it the new image would be of the changes alone.
    let parent = engine.store.image(&record.image).ok_or_else(|| {
        Error::internal(format!("failed to get digest {}: no such file or directory", record.image))
    })?;
    let failed = |source: store::CommitError| Error::caused(Kind::Internal, source);
    let lease = engine.store.lease();
    let layer = engine.store.commit_copy(&lease, &record.id.to_string()).map_err(failed)?;
    let base = parent.config.clone();
    let now = Timestamp::now().to_string();
    let mut rootfs = base.rootfs.clone();
    rootfs.diff_ids.extend(layer.iter().map(|layer| layer.key.diff_id()));
    let mut history = base.history.clone();
    history.push(History {
        created: Some(now.clone()),
        created_by: Some(record.spec.argv().join(" ")),
        author: Some(request.author.clone()).filter(|author| !author.is_empty()),
        comment: Some(request.comment.clone()).filter(|comment| !comment.is_empty()),
        empty_layer: layer.is_none(),
    });
    let author =
        if request.author.is_empty() { base.author.clone() } else { Some(request.author.clone()) };
    let platform = spec::Platform::host();
    let image = ImageConfig {
        architecture: if base.architecture.is_empty() {
            platform.architecture
        } else {
            base.architecture
        },
        os: if base.os.is_empty() { platform.os } else { base.os },
        variant: base.variant,
        os_version: base.os_version,
        author,
        created: Some(now),
        comment: Some(request.comment.clone()).filter(|comment| !comment.is_empty()),
        config,
        history,
        rootfs,
    };
    let bytes =
        serde_json::to_vec(&image).map_err(|source| Error::caused(Kind::Internal, source))?;
    engine
        .store
        .image_create(&bytes, Some(&parent.id), &lease)
        .map_err(|source| Error::caused(Kind::Internal, source))
}
