//! Manifests and tags: finding, keeping, deleting.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use spec::image::Index;
use spec::{Digest, Platform, Reference};
use store::{ContentLease, Target};
use tracing::{info, warn};

use super::document::{Document, Kind};
use super::{DistributionError, REGRET_TIME, Repository, Result, Selector};
use crate::blocking::blocking;
use crate::error::chain;
use crate::images::{self, Force, Parents, Removal};
use crate::{Engine, Inner};

/// An index within an index within an index: nobody has more.
const DEPTH_MAX: usize = 4;

/// A manifest or an index with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// A manifest that a client wants to be kept.
#[derive(Debug, Clone)]
pub struct NewManifest {
    pub selector: Selector,
    /// Further tags, where it comes by digest.
    pub tags: Vec<String>,
    /// What the request says; may be empty.
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub digest: Digest,
    pub subject: Option<Digest>,
    /// Why it is kept, but cannot be run, though it is an image for this host.
    pub warning: Option<String>,
}

impl Engine {
    /// Finds a manifest; one of an image that was made here is made now.
    ///
    /// # Errors
    /// `Manifest` when the repository has none of this name.
    pub async fn find_manifest(
        &self,
        repository: &Repository,
        selector: &Selector,
    ) -> Result<ManifestFile> {
        let (engine, repository) = (Arc::clone(&self.inner), repository.clone());
        let selector = selector.clone();
        blocking(move || find(&engine, &repository, &selector)).await
    }

    /// The manifest of an index that is for this host, for clients that know no indexes.
    ///
    /// # Errors
    /// `Manifest` when there is none.
    pub async fn host_manifest(&self, index: &ManifestFile) -> Result<ManifestFile> {
        let document: Index =
            serde_json::from_slice(&index.bytes).map_err(DistributionError::Document)?;
        let chosen = registry::select::select(&document, &Platform::host());
        let unknown = || DistributionError::Manifest(format!("{} for this host", index.digest));
        let chosen = chosen.ok_or_else(unknown)?;
        let (engine, digest) = (Arc::clone(&self.inner), chosen.digest);
        let media_type = chosen.media_type.clone();
        let bytes = blocking(move || engine.store.read_manifest(&digest)).await;
        Ok(ManifestFile { digest, media_type, bytes: bytes.ok_or_else(unknown)? })
    }

    /// Keeps a manifest under its digest and its tags. What was told to be kept is on the disk.
    ///
    /// # Errors
    /// When it is none, or something that it names is not here; then nothing has changed.
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        manifest: NewManifest,
    ) -> Result<Stored> {
        let (engine, repository) = (Arc::clone(&self.inner), repository.clone());
        blocking(move || put(&engine, &repository, manifest)).await
    }

    /// Deletes a tag, or a manifest with all of its tags.
    ///
    /// # Errors
    /// `Manifest` when there is none, `InUse` when an index needs it.
    pub async fn delete_manifest(
        &self,
        repository: &Repository,
        selector: &Selector,
    ) -> Result<()> {
        let (engine, repository) = (Arc::clone(&self.inner), repository.clone());
        let selector = selector.clone();
        blocking(move || delete(&engine, &repository, &selector)).await
    }

    /// The tags of a repository, sorted.
    ///
    /// # Errors
    /// `Name` for a repository that is not there.
    pub async fn repository_tags(&self, repository: &Repository) -> Result<Vec<String>> {
        let (engine, repository) = (Arc::clone(&self.inner), repository.clone());
        blocking(move || {
            let kept = engine.store.content_names(&repository.full_name());
            let images = image_tags(&engine, &repository);
            if kept.is_empty() && images.is_empty() {
                return Err(DistributionError::Name);
            }
            let names = kept.iter().map(|(name, _)| name).chain(&images);
            let tags: BTreeSet<String> =
                names.filter_map(|name| name.tag().map(str::to_owned)).collect();
            Ok(tags.into_iter().collect())
        })
        .await
    }
}

/// The images' own names within a repository that are tags.
fn image_tags(engine: &Inner, repository: &Repository) -> Vec<Reference> {
    let ours = |name: &Reference| name.tag().is_some() && Repository::of(name) == *repository;
    engine.store.names().into_iter().map(|(name, _)| name).filter(ours).collect()
}

fn unknown(selector: &Selector) -> DistributionError {
    DistributionError::Manifest(match selector {
        Selector::Tag(tag) => format!("tag {tag}"),
        Selector::Digest(digest) => digest.to_string(),
    })
}

fn find(engine: &Inner, repository: &Repository, selector: &Selector) -> Result<ManifestFile> {
    let target = match selector {
        Selector::Tag(tag) => {
            let name = repository.tagged(tag).map_err(DistributionError::internal)?;
            images::resolve(engine, &name)?
        }
        Selector::Digest(digest) => by_digest(engine, repository, digest),
    };
    let target = target.ok_or_else(|| unknown(selector))?;
    let bytes = engine.store.read_manifest(&target.digest).ok_or_else(|| unknown(selector))?;
    Ok(ManifestFile { digest: target.digest, media_type: target.media_type, bytes })
}

/// A manifest that the repository names, or that is part of an index that it names.
fn by_digest(engine: &Inner, repository: &Repository, digest: &Digest) -> Option<Target> {
    if let Some(target) = engine.store.content(&repository.by_digest(*digest)) {
        return Some(target);
    }
    let named = engine.store.content_names(&repository.full_name());
    if let Some((_, target)) = named.iter().find(|(_, target)| target.digest == *digest) {
        return Some(target.clone());
    }
    child(engine, named.into_iter().map(|(_, target)| target).collect(), digest)
}

fn child(engine: &Inner, mut level: Vec<Target>, digest: &Digest) -> Option<Target> {
    let mut seen = HashSet::new();
    for _ in 0..DEPTH_MAX {
        let mut next = Vec::new();
        for index in
            level.into_iter().filter(|target| registry::client::is_index(&target.media_type))
        {
            if !seen.insert(index.digest) {
                continue;
            }
            let Some(bytes) = engine.store.read_manifest(&index.digest) else { continue };
            let Ok(document) = Document::read(&bytes) else { continue };
            for link in document.manifests.into_iter().flatten() {
                let Some(size) = engine.store.content_size(&link.digest) else { continue };
                let target = Target { digest: link.digest, media_type: link.media_type, size };
                if link.digest == *digest {
                    return Some(target);
                }
                next.push(target);
            }
        }
        level = next;
    }
    None
}

fn put(engine: &Inner, repository: &Repository, manifest: NewManifest) -> Result<Stored> {
    let NewManifest { selector, mut tags, media_type, bytes } = manifest;
    let digest = Digest::of(&bytes);
    match selector {
        Selector::Digest(want) if want != digest => {
            return Err(DistributionError::Digest { want, got: digest });
        }
        Selector::Digest(_) => {}
        Selector::Tag(tag) => tags.push(tag),
    }
    let document = Document::read(&bytes)?;
    let (media_type, kind) = document.check(&media_type)?;
    let names = tags.iter().map(|tag| repository.tagged(tag));
    let names: Vec<Reference> = names
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| DistributionError::Invalid(error.to_string()))?;
    let lease = engine.store.lease_content();
    for needed in document.needs() {
        // Held first, then looked for: nothing may sweep it in between.
        let is_file = lease.hold(needed);
        let is_here = match kind {
            // A sparse index: of an image only some platforms are wanted here.
            // Source: OCI image-spec 1.1, `image-index.md`.
            Kind::Index => true,
            Kind::Image | Kind::Other => is_file || engine.store.content_size(needed).is_some(),
        };
        if !is_here {
            return Err(DistributionError::Missing(*needed));
        }
    }
    engine.store.keep_blob(&bytes, &lease).map_err(DistributionError::content)?;
    let target = Target { digest, media_type, size: bytes.len() as u64 };
    let warning = name(engine, repository, &names, kind, &target, &lease)?;
    for needed in document.needs() {
        engine.store.shorten_content_hold(needed, REGRET_TIME);
    }
    engine
        .store
        .flush()
        .map_err(|source| DistributionError::Io { what: "cannot keep a manifest", source })?;
    Ok(Stored { digest, subject: document.subject.map(|subject| subject.digest), warning })
}

/// Names what is all here, and makes it an image where it is one; gives why that could not be.
fn name(
    engine: &Inner,
    repository: &Repository,
    names: &[Reference],
    kind: Kind,
    target: &Target,
    _held: &ContentLease,
) -> Result<Option<String>> {
    let by_digest = repository.by_digest(target.digest);
    engine.store.name_content(&by_digest, target.clone()).map_err(DistributionError::content)?;
    let mut warning = None;
    if names.is_empty() && kind == Kind::Index {
        warning = adopt(engine, &by_digest, target)?.err();
    }
    for name in names {
        let adopted = adopt(engine, name, target)?;
        if adopted != Ok(true) {
            // The tag means something else now than the image that had it.
            take_name(engine, name)?;
        }
        warning = warning.or(adopted.err());
        engine.store.name_content(name, target.clone()).map_err(DistributionError::content)?;
    }
    Ok(warning)
}

/// Whether it is an image here now; the inner error says why what claims to be one is none.
fn adopt(
    engine: &Inner,
    name: &Reference,
    target: &Target,
) -> Result<std::result::Result<bool, String>> {
    match images::adopt(engine, name, target) {
        Ok(image) => Ok(Ok(image.is_some())),
        Err(error) if error.kind == crate::Kind::Invalid => {
            let error = chain(&error);
            warn!(%name, error, "a pushed image cannot be run");
            Ok(Err(error))
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes a name from its image; an image without other names stays, as after a pull of another one.
fn take_name(engine: &Inner, name: &Reference) -> Result<()> {
    if let Some(id) = engine.store.untag(name).map_err(DistributionError::internal)? {
        images::tell(engine, "untag", &id, &name.familiar());
    }
    Ok(())
}

fn delete(engine: &Inner, repository: &Repository, selector: &Selector) -> Result<()> {
    match selector {
        Selector::Tag(tag) => {
            let name = repository.tagged(tag).map_err(DistributionError::internal)?;
            let target = engine.store.content(&name);
            if target.is_none() && engine.store.resolve_tag(&name).is_none() {
                return Err(unknown(selector));
            }
            // The manifest itself stays where it is named by its digest as well.
            let kept = target
                .and_then(|target| engine.store.content(&repository.by_digest(target.digest)));
            drop_name(engine, &name)?;
            if let Some(target) = kept {
                let by_digest = repository.by_digest(target.digest);
                engine
                    .store
                    .name_content(&by_digest, target)
                    .map_err(DistributionError::content)?;
            }
        }
        Selector::Digest(digest) => {
            let named = engine.store.content_names(&repository.full_name());
            let (gone, left): (Vec<_>, Vec<_>) =
                named.into_iter().partition(|(_, target)| target.digest == *digest);
            let left = left.into_iter().map(|(_, target)| target).collect();
            if child(engine, left, digest).is_some() {
                return Err(DistributionError::InUse(*digest));
            }
            if gone.is_empty() {
                return Err(unknown(selector));
            }
            for (name, _) in gone {
                drop_name(engine, &name)?;
            }
        }
    }
    info!(repository = repository.full_name(), "a manifest was deleted");
    Ok(())
}

/// Takes a name away, from the image as well, which goes with its last name unless somebody uses it.
fn drop_name(engine: &Inner, name: &Reference) -> Result<()> {
    if let Some(target) = engine.store.content(name) {
        hold(engine, &target.digest);
    }
    if let Some(id) = engine.store.resolve_tag(name) {
        if images::users(engine, &id).is_empty() {
            let removal = Removal::new(Force::No, Parents::Remove);
            images::remove_named(engine, &name.familiar(), removal)?;
        } else {
            take_name(engine, name)?;
        }
    }
    engine.store.unname_content(name).map_err(DistributionError::content)?;
    Ok(())
}

/// Keeps for a while what a deleted manifest reaches.
fn hold(engine: &Inner, digest: &Digest) {
    let mut seen = HashSet::new();
    let mut next = vec![*digest];
    while let Some(digest) = next.pop() {
        engine.store.hold_content_for(&digest, REGRET_TIME);
        if !seen.insert(digest) {
            continue;
        }
        let Some(bytes) = engine.store.read_manifest(&digest) else { continue };
        let Ok(document) = Document::read(&bytes) else { continue };
        for needed in document.needs().filter(|needed| engine.store.has_blob(needed)) {
            engine.store.hold_content_for(needed, REGRET_TIME);
        }
        next.extend(document.manifests.into_iter().flatten().map(|link| link.digest));
    }
}
