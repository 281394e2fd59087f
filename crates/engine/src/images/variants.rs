//! The manifests of an image: one for each platform where it came as an index, and what is said of them.
//!
//! An image made here has none until it goes to somebody else.
//!
//! Source: moby 28.2 `daemon/containerd/image_list.go`, `image_manifest.go`.

use registry::client::is_index;
use spec::image::{Descriptor, Index, Manifest};
use spec::{Digest, Id, ImageId, Platform, Reference};

use super::users;
use crate::Inner;

/// Source: BuildKit `docs/attestations/attestation-storage.md`.
const REFERENCE_KIND: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// One manifest. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    pub descriptor: Descriptor,
    /// Whether its content is here.
    pub available: bool,
    /// Of the blobs that are here.
    pub content_size: u64,
    pub kind: VariantKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariantKind {
    Image {
        platform: Platform,
        unpacked_size: u64,
        containers: Vec<Id>,
    },
    /// What was recorded of another manifest's making.
    Attestation {
        of: Option<Digest>,
    },
    Unknown,
}

/// The manifests behind an image's names, in their index's order.
pub(super) fn list(engine: &Inner, names: &[Reference]) -> Vec<Variant> {
    let Some(target) = names.iter().find_map(|name| engine.store.content(name)) else {
        return Vec::new();
    };
    let own = Descriptor::new(&target.media_type, target.digest, target.size);
    if !is_index(&target.media_type) {
        return vec![variant(engine, own)];
    }
    let index = engine.store.read_manifest(&target.digest);
    let index = index.and_then(|bytes| serde_json::from_slice::<Index>(&bytes).ok());
    let listed = index.into_iter().flat_map(|index| index.manifests);
    listed.map(|descriptor| variant(engine, descriptor)).collect()
}

fn variant(engine: &Inner, descriptor: Descriptor) -> Variant {
    let store = &engine.store;
    let manifest = store.read_manifest(&descriptor.digest);
    let manifest = manifest.and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok());
    let blobs = manifest.iter().flat_map(|manifest| {
        std::iter::once(&manifest.config).chain(&manifest.layers).map(|blob| blob.digest)
    });
    let here: u64 = blobs.filter_map(|digest| store.content_size(&digest)).sum();
    let own = if manifest.is_some() { descriptor.size } else { 0 };
    let content_size = here.saturating_add(own);
    let annotation = |name: &str| descriptor.annotations.get(name).map(String::as_str);
    if annotation(REFERENCE_KIND) == Some("attestation-manifest") {
        let of = annotation(REFERENCE_DIGEST).and_then(|text| text.parse().ok());
        let kind = VariantKind::Attestation { of };
        return Variant { available: manifest.is_some(), content_size, kind, descriptor };
    }
    let image = manifest.as_ref().and_then(|it| store.image(&ImageId(it.config.digest)));
    let told = image.as_ref().map(|image| image.config.platform());
    let kind = match descriptor.platform.clone().or(told) {
        Some(platform) => VariantKind::Image {
            platform,
            unpacked_size: image.as_ref().map_or(0, |image| image.size),
            containers: image
                .iter()
                .flat_map(|image| users(engine, &image.id))
                .map(|user| user.id)
                .collect(),
        },
        None => VariantKind::Unknown,
    };
    let kept =
        manifest.is_some_and(|it| it.layers.iter().all(|layer| store.has_blob(&layer.digest)));
    Variant { available: image.is_some() || kept, content_size, kind, descriptor }
}
