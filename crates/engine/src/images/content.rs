//! What names mean as content: manifests and indexes as they came, and those of images made here.
//!
//! The store keeps the bytes; here they are read. An image that was pulled or loaded has a target: the
//! manifest it came with, or the index that this is in. For one that was made here the manifest is
//! made when somebody asks: its layers are compressed, always to the same bytes, and kept.

use std::io::Read;
use std::sync::Arc;

use registry::select::select;
use spec::image::{Descriptor, Manifest, media_type};
use spec::{DiffId, Digest, ImageId, Platform, Reference};
use store::blocks::Format;
use store::compress::{Compression, SNIFF_BYTES};
use store::{
    BlobInfo, Child, ContentLease, Document, DocumentError, Image, LayerKey, Store, Target,
    is_image_config,
};

use super::fetch::checked;
use crate::blocking::blocking;
use crate::containers::find_image;
use crate::error::{Error, Kind, Result};
use crate::{Engine, Inner};

/// A document's failure as one of the registry that it came from.
pub(super) fn unreadable(error: DocumentError) -> registry::Error {
    match error {
        DocumentError::Kind(kind) => registry::Error::MediaType(kind),
        DocumentError::Json(source) => registry::Error::Document { what: "a manifest", source },
    }
}

impl Engine {
    /// What a name means as content: a manifest or an index, whose blobs the store has.
    ///
    /// # Errors
    /// Where the manifest of an image made here cannot be made.
    pub async fn resolve_content(&self, name: &Reference) -> Result<Option<Target>> {
        let (engine, name) = (Arc::clone(&self.inner), name.clone());
        blocking(move || resolve(&engine, &name)).await
    }

    /// Makes an image of content that is here, and names it.
    ///
    /// # Errors
    /// `Invalid` where the blobs are no image.
    pub async fn adopt_content(&self, name: &Reference, target: Target) -> Result<Option<ImageId>> {
        let (engine, name) = (Arc::clone(&self.inner), name.clone());
        blocking(move || adopt(&engine, &name, &target)).await
    }
}

/// The image of another platform under a name, unpacked now if it is kept. Blocking.
///
/// # Errors
/// `Invalid` where the blobs are no image.
pub(crate) fn for_platform(
    engine: &Inner,
    asked: &str,
    platform: &Platform,
) -> Result<Option<Arc<Image>>> {
    let Ok(name) = Reference::parse(asked) else { return Ok(None) };
    let Some(target) = engine.store.content(&name) else { return Ok(None) };
    let id = unpack(&engine.store, &target, platform)?;
    Ok(id.and_then(|id| engine.store.image(&id)))
}

/// The image that was asked for, or the one of another platform under its name, which may be kept
/// only. Blocking.
///
/// # Errors
/// `NotFound`, also where the name has no such platform.
pub(super) fn at_platform(
    engine: &Inner,
    asked: &str,
    platform: Option<&Platform>,
) -> Result<Arc<Image>> {
    let image = find_image(engine, asked)?;
    let Some(wanted) = platform.filter(|wanted| !wanted.runs(&image.config.platform())) else {
        return Ok(image);
    };
    let store = &engine.store;
    let target = Reference::parse(asked).ok().and_then(|name| store.content(&name));
    let children = target.map(|target| store.children(&target)).unwrap_or_default();
    let kept = children.iter().find_map(|child| {
        let config = child.config(store).filter(|config| wanted.runs(&config.platform()))?;
        let manifest = child.manifest.as_ref()?;
        let id = ImageId(manifest.config.digest);
        let size = manifest.layers.iter().map(|layer| layer.size).sum();
        let raw = store.read_manifest(&id.0)?;
        let (parent, layers, tagged_at) = (None, Vec::new(), None);
        let kept = Image { id, config, raw, parent, layers, size, tagged_at };
        Some(store.image(&id).unwrap_or_else(|| Arc::new(kept)))
    });
    kept.ok_or_else(|| lacks_platform(asked, &image, children.len(), wanted))
}

/// An image is not there for the platform that was asked for; of several it would not tell which.
///
/// Source: moby `daemon/images/image.go`, `daemon/containerd/image.go`.
pub(super) fn lacks_platform(
    asked: &str,
    image: &Image,
    offered: usize,
    wanted: &Platform,
) -> Error {
    let familiar = || Reference::parse(asked).map_or(asked.to_owned(), |name| name.familiar());
    let (name, what) = match offered {
        0 | 1 => (
            asked.to_owned(),
            format!(
                "its platform ({}) does not match the specified platform ({wanted})",
                image.config.platform()
            ),
        ),
        _ => (familiar(), format!("does not provide the specified platform ({wanted})")),
    };
    Error::not_found(format!("image with reference {name} was found but {what}"))
}

/// What `name` means; of an image made here the manifest is made now. Blocking.
///
/// # Errors
/// Where the layers cannot be read or written.
pub(crate) fn resolve(engine: &Inner, name: &Reference) -> Result<Option<Target>> {
    if let Some(target) = engine.store.content(name) {
        return Ok(Some(target));
    }
    let Some(id) = engine.store.resolve_tag(name) else { return Ok(None) };
    let lease = engine.store.lease_content();
    let target = make(&engine.store, &id, &lease)?;
    let named = engine.store.tag_as(name, &id, Some(target.clone()));
    named.map_err(|source| Error::caused(Kind::Internal, source))?;
    Ok(Some(target))
}

/// Makes the manifest of an image, with all of its blobs. Blocking.
fn make(store: &Store, id: &ImageId, lease: &ContentLease) -> Result<Target> {
    let internal = |source: store::ContentError| Error::caused(Kind::Internal, source);
    let image = store.image(id).ok_or_else(|| crate::words::no_such_image(&id.to_string()))?;
    let mut layers = Vec::new();
    for key in &image.layers {
        layers.push(layer_blob(store, key, lease)?);
    }
    store.keep_blob(&image.raw, lease).map_err(internal)?;
    let config = Descriptor::new("", id.0, image.raw.len() as u64);
    let (media_type, bytes) = manifest(config, &layers)?;
    let digest = store.keep_blob(&bytes, lease).map_err(internal)?;
    Ok(Target { digest, media_type, size: bytes.len() as u64 })
}

/// The blob that a layer goes to others as: the one it came as, or else one that is made. Blocking.
fn layer_blob(store: &Store, key: &LayerKey, lease: &ContentLease) -> Result<Descriptor> {
    if let Some(known) = kept_blob(store, key, lease) {
        return Ok(known);
    }
    let internal = |source: store::ContentError| Error::caused(Kind::Internal, source);
    let tar = store.layer_tar(key).map_err(|source| Error::caused(Kind::Internal, source))?;
    let mut ingest = store.ingest().map_err(internal)?;
    store::blocks::compress(Format::Gzip, tar, &mut ingest)
        .map_err(|source| Error::caused(Kind::Internal, source))?;
    let size = ingest.size();
    let digest = ingest.finish(None, lease).map_err(internal)?;
    made(store, key, digest, size)?;
    Ok(Descriptor::new(media_type::DOCKER_LAYER_GZIP, digest, size))
}

/// Remembers as which blob a layer goes to others. Blocking.
pub(super) fn made(store: &Store, key: &LayerKey, digest: Digest, size: u64) -> Result<()> {
    let remembered = store.layer_is_blob(key, BlobInfo { digest, size });
    remembered.map_err(|source| Error::caused(Kind::Internal, source))
}

/// The blob of a layer that is kept, held by `lease`. Blocking.
pub(super) fn kept_blob(store: &Store, key: &LayerKey, lease: &ContentLease) -> Option<Descriptor> {
    let blob = store.layer(key)?.blob?;
    if !lease.hold(&blob.digest) {
        return None;
    }
    let (mut file, size) = store.blob(&blob.digest)?;
    let mut start = Vec::new();
    (&mut file).take(SNIFF_BYTES as u64).read_to_end(&mut start).ok()?;
    let kind = match Compression::sniff(&start) {
        Compression::Gzip => media_type::DOCKER_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        Compression::None | Compression::Bzip2 | Compression::Xz => return None,
    };
    Some(Descriptor::new(kind, blob.digest, size))
}

/// A new manifest: Docker's, or OCI's where a layer has a form that Docker's does not know.
pub(super) fn manifest(mut config: Descriptor, blobs: &[Descriptor]) -> Result<(String, Vec<u8>)> {
    let is_gzip = |blob: &Descriptor| blob.media_type.ends_with("gzip");
    let (kind, config_kind, gzip) = match blobs.iter().all(is_gzip) {
        true => {
            (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG, media_type::DOCKER_LAYER_GZIP)
        }
        false => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG, media_type::OCI_LAYER_GZIP),
    };
    config.media_type = config_kind.to_owned();
    let layer = |blob: &Descriptor| {
        let kind = match blob.media_type.as_str() {
            other if other.ends_with("gzip") => gzip,
            other if other.ends_with("zstd") => media_type::OCI_LAYER_ZSTD,
            _ => media_type::OCI_LAYER,
        };
        Descriptor::new(kind, blob.digest, blob.size)
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(kind.to_owned()),
        artifact_type: None,
        config,
        layers: blobs.iter().map(layer).collect(),
        subject: None,
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec_pretty(&manifest)
        .map_err(|source| Error::caused(Kind::Internal, source))?;
    Ok((kind.to_owned(), bytes))
}

/// Makes an image of a manifest whose blobs are here, or of the one in an index that runs here, and
/// names it. None where there is no image for this host, or not all of it is here. Blocking.
///
/// # Errors
/// `Invalid` where the blobs are no image.
pub(crate) fn adopt(engine: &Inner, name: &Reference, target: &Target) -> Result<Option<ImageId>> {
    let Some(id) = unpack(&engine.store, target, &Platform::host())? else { return Ok(None) };
    let by_digest = name.with_digest(target.digest);
    for name in [&by_digest, name] {
        let named = engine.store.tag_as(name, &id, Some(target.clone()));
        named.map_err(|source| Error::caused(Kind::Internal, source))?;
    }
    super::tell(engine, "tag", &id, &name.familiar());
    Ok(Some(id))
}

/// Unpacks the image of a platform out of kept blobs; None where it is not here. Blocking.
///
/// # Errors
/// `Invalid` where the blobs are no image.
pub(super) fn unpack(
    store: &Store,
    target: &Target,
    platform: &Platform,
) -> Result<Option<ImageId>> {
    let root = Descriptor::new(&target.media_type, target.digest, target.size);
    let manifest = match store.document(&root) {
        None => return Ok(None),
        Some(Document::Manifest(manifest)) => manifest,
        Some(Document::Index(index)) => {
            let Some(chosen) = select(&index, platform) else { return Ok(None) };
            match store.document(chosen) {
                Some(Document::Manifest(manifest)) => manifest,
                Some(Document::Index(_)) | None => return Ok(None),
            }
        }
    };
    let is_config = is_image_config(&manifest.config);
    let child = Child { descriptor: root, manifest: Some((*manifest).clone()) };
    let raw = store.read_manifest(&manifest.config.digest);
    let Some(raw) = raw.filter(|_| is_config && child.is_whole(store)) else { return Ok(None) };
    let config = checked(&manifest, &raw)?;
    if !platform.runs(&config.platform()) {
        return Ok(None);
    }
    let (lease, mut below) = (store.lease(), Vec::new());
    for (place, (want, blob)) in config.rootfs.diff_ids.iter().zip(&manifest.layers).enumerate() {
        let key = LayerKey::from(*want);
        if !lease.hold(&key) {
            let got = unpack_layer(store, &lease, blob, &below)?;
            if got != *want {
                return Err(Error::invalid(format!(
                    "layers from manifest don't match image configuration: layer {place} is {got}, not {key}"
                )));
            }
        }
        below.push(key);
    }
    let id = store.image_create(&raw, None, &lease);
    Ok(Some(id.map_err(|source| Error::caused(Kind::Internal, source))?))
}

fn unpack_layer(
    store: &Store,
    lease: &store::Lease,
    blob: &Descriptor,
    below: &[LayerKey],
) -> Result<DiffId> {
    let reader = store
        .content_reader(&blob.digest)
        .map_err(|source| Error::caused(Kind::Internal, source))?
        .ok_or_else(|| Error::internal(format!("blob {} is gone", blob.digest)))?;
    let layer = store
        .unpack(lease, reader, &store.unpack_limits(), Some(&blob.digest), below)
        .map_err(|source| Error::because(Kind::Invalid, "failed to register layer", source))?;
    Ok(layer.key.diff_id())
}
