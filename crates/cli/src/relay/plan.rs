//! What has to be at the other side for a name to be an image there.

use std::collections::BTreeMap;

use registry::{Client, Fetched};
use spec::image::{Descriptor, Index, Manifest};
use spec::{Digest, Platform, chain};

use crate::failure::Failure;

/// What to send, in this order: blobs, children, top.
pub struct Plan {
    /// With their sizes, each once.
    pub blobs: BTreeMap<Digest, u64>,
    pub children: Vec<Fetched>,
    /// What the tag is to be.
    pub top: Fetched,
    /// What the user should know about it.
    pub note: Option<String>,
}

/// A manifest that is here with all of its blobs.
struct Child {
    listed: Descriptor,
    fetched: Fetched,
    blobs: Vec<(Digest, u64)>,
}

/// Of an index all is sent where all is here, else the platform that is here; `platform` wants just
/// that one.
///
/// # Errors
/// When not even one image is here as a whole.
pub async fn make(
    here: &Client,
    top: Fetched,
    platform: Option<&Platform>,
) -> Result<Plan, Failure> {
    if !registry::client::is_index(&top.media_type) {
        let (blobs, missing) = blobs(here, &top).await?;
        if let Some(missing) = missing {
            return Err(Failure::new(format!(
                "blob {missing} of the image is not here any more: pull the image again"
            )));
        }
        let blobs = blobs.into_iter().collect();
        return Ok(Plan { blobs, children: Vec::new(), top, note: None });
    }
    let index: Index = serde_json::from_slice(&top.bytes)
        .map_err(|error| Failure::new(format!("manifest {}: {error}", top.digest)))?;
    let all = index.manifests.len();
    let mut whole = Vec::new();
    for listed in index.manifests {
        whole.extend(child(here, listed).await?);
    }
    if whole.len() == all && platform.is_none() {
        let blobs = whole.iter().flat_map(|child| child.blobs.iter().copied()).collect();
        let children = whole.into_iter().map(|child| child.fetched).collect();
        return Ok(Plan { blobs, children, top, note: None });
    }
    one(whole, all, platform)
}

/// One image instead of the index.
fn one(mut whole: Vec<Child>, all: usize, platform: Option<&Platform>) -> Result<Plan, Failure> {
    let host = Platform::host();
    let wanted = platform.unwrap_or(&host);
    let listed = Index {
        schema_version: 2,
        media_type: None,
        manifests: whole.iter().map(|child| child.listed.clone()).collect(),
        annotations: BTreeMap::default(),
    };
    let chosen = registry::select::select(&listed, wanted).map(|chosen| chosen.digest);
    let place = whole.iter().position(|child| Some(child.listed.digest) == chosen);
    let Some(place) = place else {
        return Err(Failure::new(format!("the image for {wanted} is not here: pull it first")));
    };
    let child = whole.swap_remove(place);
    let note = format!(
        "of {all} manifests of the index only the image for {} is sent, under its own digest",
        child.listed.platform.as_ref().unwrap_or(wanted)
    );
    Ok(Plan {
        blobs: child.blobs.into_iter().collect(),
        children: Vec::new(),
        top: child.fetched,
        note: Some(note),
    })
}

/// A manifest of an index, if all of it is here.
async fn child(here: &Client, listed: Descriptor) -> Result<Option<Child>, Failure> {
    let said = |error: registry::Error| Failure::new(chain(&error));
    let reference = listed.digest.to_string();
    if here.find_manifest(&reference).await.map_err(said)?.is_none() {
        return Ok(None);
    }
    let fetched = here.manifest(&reference).await.map_err(said)?;
    let (blobs, missing) = blobs(here, &fetched).await?;
    Ok(missing.is_none().then_some(Child { listed, fetched, blobs }))
}

/// The blobs of a manifest with their true sizes, up to the first that is not here.
async fn blobs(
    here: &Client,
    fetched: &Fetched,
) -> Result<(Vec<(Digest, u64)>, Option<Digest>), Failure> {
    let manifest: Manifest = serde_json::from_slice(&fetched.bytes)
        .map_err(|error| Failure::new(format!("manifest {}: {error}", fetched.digest)))?;
    let mut found = Vec::new();
    let layers = manifest.layers.into_iter().filter(|layer| layer.urls.is_empty());
    for blob in layers.chain([manifest.config]) {
        let size = here.find_blob(&blob.digest).await;
        match size.map_err(|error| Failure::new(chain(&error)))? {
            Some(size) => found.push((blob.digest, size)),
            None => return Ok((found, Some(blob.digest))),
        }
    }
    Ok((found, None))
}
