//! The registry over our own images: what the distribution protocol asks for, without its HTTP.
//!
//! ```text
//! name in a path ─ Repository ─┬─ manifests: names of the content store, else the images' own,
//!                              │  whose manifests are made when somebody asks
//!                              ├─ referrers: manifests of the repository by their `subject`
//!                              └─ uploads ─▶ blobs, held for a while until a manifest names them
//! ```
//! Blobs belong to all repositories: whoever reaches this registry sees all of it, and what one
//! repository has need not be sent for another. A manifest belongs to the repositories that name it.
//!
//! Invariant: a manifest is named only when all that it needs is here and has the digests it says. A
//! tag whose manifest is an image for this host is a runnable image of the same name.
//!
//! Elsewhere: statuses, codes and headers, in `daemon::distribution`; the sweep of blobs, in `store`.
//!
//! Source: OCI distribution-spec 1.1.

mod blobs;
mod document;
mod manifests;
mod names;
mod referrers;
mod uploads;

use std::io;
use std::time::Duration;

use spec::Digest;
use store::ContentError;

use crate::blocking::blocking;
use crate::error::Error;
use crate::{Engine, Inner};

pub use blobs::Blob;
pub use manifests::{ManifestFile, NewManifest, Stored};
pub use names::{Repository, RepositoryError, Selector};
pub use referrers::{Referrers, ReferrersQuery};
pub use uploads::{SessionId, Upload};

pub(crate) use uploads::Uploads;

/// How long an uploaded blob waits for the manifest that names it.
const HOLD_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The same for a blob that a client was told is here.
const TOLD_TIME: Duration = Duration::from_secs(60 * 60);
/// How long the blobs of a deleted manifest stay, for who deletes them one by one or pushes again.
const REGRET_TIME: Duration = Duration::from_secs(5 * 60);
/// Between two sweeps of uploads and blobs that nobody came back for.
const SWEEP_EVERY: Duration = Duration::from_secs(10 * 60);

pub type Result<T> = std::result::Result<T, DistributionError>;

/// Why a request of the protocol was refused.
#[derive(Debug, thiserror::Error)]
pub enum DistributionError {
    #[error("repository name not known to registry")]
    Name,
    #[error("blob unknown to registry: {0}")]
    Blob(Digest),
    #[error("blob {0} is in use: delete the manifests that name it first")]
    BlobInUse(Digest),
    #[error("blob upload unknown to registry")]
    Upload,
    #[error("another request writes to this upload")]
    UploadBusy,
    #[error("too many uploads are open: finish or cancel some")]
    UploadsMany,
    #[error("provided digest did not match uploaded content: expected {want}, got {got}")]
    Digest { want: Digest, got: Digest },
    #[error("manifest invalid: {0}")]
    Invalid(String),
    #[error("manifest invalid")]
    Document(#[source] serde_json::Error),
    #[error("manifest references a manifest or blob unknown to registry: {0}")]
    Missing(Digest),
    #[error("manifest unknown to registry: {0}")]
    Manifest(String),
    #[error("manifest {0} is part of an index: delete that first")]
    InUse(Digest),
    #[error("{what}")]
    Io { what: &'static str, source: io::Error },
    #[error(transparent)]
    Engine(#[from] Error),
}

impl DistributionError {
    fn content(error: ContentError) -> DistributionError {
        DistributionError::Engine(Error::caused(crate::Kind::Internal, error))
    }

    fn internal(error: impl std::error::Error + Send + Sync + 'static) -> DistributionError {
        DistributionError::Engine(Error::caused(crate::Kind::Internal, error))
    }
}

/// Removes what clients left behind, as long as the engine lives.
pub(crate) fn keep_swept(engine: &std::sync::Arc<Inner>) {
    let engine = std::sync::Arc::downgrade(engine);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            let Some(engine) = engine.upgrade() else { return };
            blocking(move || {
                crate::images::sweep_downloads(&engine);
                engine.uploads.sweep();
                engine.store.sweep_content();
            })
            .await;
        }
    });
}

impl Engine {
    /// Names of all repositories, sorted, as clients that name `registry` in `ns` ask for them.
    pub async fn repositories(&self, registry: Option<&str>) -> Vec<String> {
        let (engine, registry) = (std::sync::Arc::clone(&self.inner), registry.map(str::to_owned));
        blocking(move || {
            let kept = engine.store.all_content_names().into_iter().map(|(name, _)| name);
            let images = engine.store.names().into_iter().map(|(name, _)| name);
            let names: std::collections::BTreeSet<String> = kept
                .chain(images.filter(|name| name.tag().is_some()))
                .filter_map(|name| Repository::of(&name).served_name(registry.as_deref()))
                .collect();
            names.into_iter().collect()
        })
        .await
    }
}
