//! Images as users see them: lists, inspection, history, names.
//!
//! What is deleted when, and the conflicts, are in [`remove`]; archives in and out in [`transfer`]; from
//! registries in [`pull`] and [`fetch`], to them in [`push`]; what names mean as content in [`content`].
//!
//! Source: moby `daemon/images/images.go`, `image_inspect.go`, `image_history.go`, `image_tag.go`.

mod ahead;
mod ask;
mod beside;
mod blobs;
pub(crate) mod content;
mod download;
mod download_archive;
mod fetch;
mod pattern;
mod pull;
mod push;
pub(crate) mod registries;
mod remove;
mod remove_platform;
mod search;
mod transfer;
mod upload;
mod variants;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use spec::image::Descriptor;
use spec::{ChainId, Id, ImageId, Platform, Reference};
use store::{Image, LayerKey};

use crate::blocking::blocking;
use crate::containers::find_image;
use crate::error::{Error, Kind, Result};
use crate::events::EventType;
use crate::filters::Filters;
use crate::{Engine, Inner, words};

pub use ask::Distribution;
pub use download_archive::Download;
pub use pull::{Extent, PullRequest, TransferOutput};
pub use push::PushRequest;
pub use registry::Credentials;
pub use remove::{Force, Parents, PruneReport, Removal, Removed};
pub use store::blocks::Format as LayerFormat;
pub use transfer::{ImportRequest, LoadOutput};
pub use variants::{Variant, VariantKind};

pub(crate) use content::{adopt, resolve};
pub(crate) use remove::remove as remove_named;

/// What a list of images shows.
#[derive(Debug, Clone, Default)]
pub struct ImagesQuery {
    pub intermediate: Intermediate,
    pub shared_size: SharedSize,
    pub variants: Variants,
    pub filters: Filters,
}

/// Whether images between the steps of a classic build are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Intermediate {
    #[default]
    Hide,
    Show,
}

/// Whether the bytes shared with other images are counted, which looks at all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SharedSize {
    #[default]
    Leave,
    Count,
}

/// Whether the manifests of each image are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Variants {
    #[default]
    Leave,
    List,
}

/// One line of the list. Sizes in bytes.
#[derive(Debug, Clone)]
pub struct ImageSummary {
    pub image: Arc<Image>,
    /// Familiar, with tag.
    pub tags: Vec<String>,
    /// Familiar, with digest.
    pub digests: Vec<String>,
    pub created: Timestamp,
    pub shared_size: Option<u64>,
    pub containers: usize,
    /// None where they were not asked for.
    pub variants: Option<Vec<Variant>>,
}

/// All that `inspect` says beyond the configuration.
#[derive(Debug, Clone)]
pub struct ImageDetails {
    pub image: Arc<Image>,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    pub tagged_at: Option<Timestamp>,
    /// The layers' directories, top first.
    pub lowers: Vec<PathBuf>,
    /// The manifest or index that it came as.
    pub descriptor: Option<Descriptor>,
    /// None where they were not asked for.
    pub variants: Option<Vec<Variant>>,
}

/// What of an image is inspected.
#[derive(Debug, Clone, Default)]
pub struct InspectQuery {
    /// Of an index this one.
    pub platform: Option<Platform>,
    pub variants: Variants,
}

/// One step of an image's making.
#[derive(Debug, Clone)]
pub struct HistoryStep {
    /// None where the step's image is not here, Docker's `<missing>`.
    pub id: Option<ImageId>,
    pub created: Timestamp,
    pub created_by: String,
    pub comment: String,
    /// Bytes of the layer that the step made.
    pub size: u64,
    pub tags: Vec<String>,
}

/// A container that uses an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: Id,
    pub(crate) running: bool,
}

impl Engine {
    /// Lists images, newest first.
    ///
    /// # Errors
    /// `Invalid` for an unknown filter; `NotFound` where `before` or `since` name no image.
    pub async fn list_images(&self, query: ImagesQuery) -> Result<Vec<ImageSummary>> {
        let engine = Arc::clone(&self.inner);
        blocking(move || list(&engine, &query)).await
    }

    /// # Errors
    /// `NotFound`.
    pub async fn inspect_image(&self, asked: &str, query: InspectQuery) -> Result<ImageDetails> {
        let (engine, asked) = (Arc::clone(&self.inner), asked.to_owned());
        blocking(move || inspect(&engine, &asked, &query)).await
    }

    /// The steps of an image's making, newest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn image_history(
        &self,
        asked: &str,
        platform: Option<Platform>,
    ) -> Result<Vec<HistoryStep>> {
        let (engine, asked) = (Arc::clone(&self.inner), asked.to_owned());
        blocking(move || {
            let image = content::at_platform(&engine, &asked, platform.as_ref())?;
            Ok(history(&engine, &image))
        })
        .await
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a name with a digest.
    pub async fn tag_image(&self, asked: &str, name: &Reference) -> Result<()> {
        if name.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        // Source: moby `reference/store.go`: `sha256:…` is how ids are written.
        if name.domain() == "docker.io" && name.path() == "library/sha256" {
            return Err(Error::invalid(
                "refusing to create an ambiguous tag using digest algorithm as name",
            ));
        }
        let image = find_image(&self.inner, asked)?;
        let engine = Arc::clone(&self.inner);
        let name = name.clone();
        blocking(move || {
            tag(&engine, &name, &image.id)?;
            engine.flush()
        })
        .await
    }

    /// Bytes that all layers take, unpacked and as they came.
    #[must_use]
    pub fn layers_size(&self) -> u64 {
        layers_size(&self.inner)
    }
}

/// Removes downloads that nobody came back for. Blocking.
pub(crate) fn sweep_downloads(engine: &Inner) {
    download::sweep(&engine.config.data_root);
}

pub(crate) fn layers_size(engine: &Inner) -> u64 {
    let unpacked: u64 = engine.store.layers().iter().map(|layer| layer.size).sum();
    unpacked + engine.store.blobs_size()
}

/// Names an image and tells about it; gives the image that had the name before.
pub(crate) fn tag(engine: &Inner, name: &Reference, id: &ImageId) -> Result<Option<ImageId>> {
    if name.familiar_name() == "sha256" {
        return Err(words::ambiguous_tag());
    }
    let before =
        engine.store.tag(name, id).map_err(|source| Error::caused(Kind::Internal, source))?;
    tell(engine, "tag", id, &name.familiar());
    engine.registries.ahead.named(&engine.store, name, id);
    Ok(before)
}

/// Publishes what happened to an image.
pub(crate) fn tell(engine: &Inner, action: &str, id: &ImageId, name: &str) {
    let mut attributes: BTreeMap<String, String> =
        engine.store.image(id).map(|image| image.config.config.labels.clone()).unwrap_or_default();
    attributes.insert("name".to_owned(), name.to_owned());
    engine.events.publish(EventType::Image, action, id.to_string(), attributes);
}

/// Publishes what happened between an image and a registry, where the image is its name.
pub(crate) fn tell_of(engine: &Inner, action: &str, id: &ImageId, name: &Reference) {
    let mut attributes: BTreeMap<String, String> =
        engine.store.image(id).map(|image| image.config.config.labels.clone()).unwrap_or_default();
    attributes.insert("name".to_owned(), name.familiar_name());
    engine.events.publish(EventType::Image, action, name.familiar(), attributes);
}

/// The containers of each image.
pub(crate) fn users(engine: &Inner, id: &ImageId) -> Vec<User> {
    let containers = engine.containers.all();
    let using = containers.iter().filter_map(|container| {
        let now = container.now();
        let running = now.phase.run().is_some();
        (now.record.image == *id).then_some(User { id: container.id, running })
    });
    using.collect()
}

/// When an image was made; 1970 where it does not say.
pub(crate) fn created(image: &Image) -> Timestamp {
    image.config.created.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Familiar names with tags, and those with digests.
fn names_of(references: &[Reference]) -> (Vec<String>, Vec<String>) {
    let (digests, tags): (Vec<&Reference>, Vec<&Reference>) =
        references.iter().partition(|name| name.digest().is_some());
    let familiar = |names: Vec<&Reference>| names.into_iter().map(Reference::familiar).collect();
    (familiar(tags), familiar(digests))
}

fn inspect(engine: &Inner, asked: &str, query: &InspectQuery) -> Result<ImageDetails> {
    let image = content::at_platform(engine, asked, query.platform.as_ref())?;
    let references = engine.store.references(&image.id);
    let own = Reference::parse(asked).ok().filter(|name| engine.store.content(name).is_some());
    let known: Vec<Reference> = own.into_iter().chain(references.iter().cloned()).collect();
    let target = known.iter().find_map(|name| engine.store.content(name));
    let (tags, digests) = names_of(&references);
    let lowers = engine.store.lowers(&image.layers);
    let tagged_at =
        image.tagged_at.and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok());
    Ok(ImageDetails {
        tags,
        digests,
        tagged_at,
        lowers,
        descriptor: target
            .map(|target| Descriptor::new(&target.media_type, target.digest, target.size)),
        variants: match query.variants {
            Variants::Leave => None,
            Variants::List => Some(variants::list(engine, &known)),
        },
        image,
    })
}

const LIST_FILTERS: [&str; 7] =
    ["before", "dangling", "label", "label!", "reference", "since", "until"];

fn list(engine: &Inner, query: &ImagesQuery) -> Result<Vec<ImageSummary>> {
    let filters = &query.filters;
    filters.only(&LIST_FILTERS)?;
    let dangling = filters.boolean("dangling")?;
    if let Some(wrong) = filters.values("reference").find(|one| pattern::is_malformed(one)) {
        return Err(Error::invalid(format!(
            "invalid reference filter {wrong:?}: syntax error in pattern"
        )));
    }
    // Of several images all bounds hold: the oldest for what is before, the newest for what is since.
    let bounds = |key| -> Result<Vec<Timestamp>> {
        filters.values(key).map(|asked| Ok(created(&*find_image(engine, asked)?))).collect()
    };
    let (before, since) = (bounds("before")?.into_iter().min(), bounds("since")?.into_iter().max());
    let until = until(filters)?;
    let mut rows = Vec::new();
    for image in engine.store.images() {
        let at = created(&image);
        if before.is_some_and(|bound| at >= bound)
            || since.is_some_and(|bound| at <= bound)
            || until.is_some_and(|bound| at > bound)
            || !filters.labels(&image.config.config.labels)
        {
            continue;
        }
        let references = engine.store.references(&image.id);
        let matching: Vec<Reference> = references
            .into_iter()
            .filter(|name| filters.any("reference", |wanted| pattern::matches(wanted, name)))
            .collect();
        let (tags, digests) = names_of(&matching);
        let show = if matching.is_empty() {
            let leaf = || engine.store.image_children(&image.id).is_empty();
            (query.intermediate == Intermediate::Show || leaf())
                && dangling != Some(false)
                && !filters.contains("reference")
        } else {
            dangling != Some(true) || tags.is_empty()
        };
        if show {
            let shared_size = match query.shared_size {
                SharedSize::Leave => None,
                SharedSize::Count => Some(engine.store.image_shared_size(&image.id)),
            };
            let containers = users(engine, &image.id).len();
            let variants = match query.variants {
                Variants::Leave => None,
                Variants::List => Some(variants::list(engine, &matching)),
            };
            rows.push(ImageSummary {
                image,
                tags,
                digests,
                created: at,
                shared_size,
                containers,
                variants,
            });
        }
    }
    rows.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.image.id.cmp(&b.image.id)));
    Ok(rows)
}

/// The earliest of the `until` times.
pub(crate) fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    let now = Timestamp::now();
    let times: Result<Vec<Timestamp>> =
        filters.values("until").map(|text| crate::times::parse(text, now)).collect();
    Ok(times?.into_iter().min())
}

fn history(engine: &Inner, image: &Image) -> Vec<HistoryStep> {
    let mut layers = image.layers.iter();
    let size_of = |key: &LayerKey| engine.store.layer(key).map_or(0, |layer| layer.size);
    let mut steps: Vec<HistoryStep> = image
        .config
        .history
        .iter()
        .map(|step| HistoryStep {
            id: None,
            created: step.created.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default(),
            created_by: step.created_by.clone().unwrap_or_default(),
            comment: step.comment.clone().unwrap_or_default(),
            size: if step.empty_layer { 0 } else { layers.next().map_or(0, size_of) },
            tags: Vec::new(),
        })
        .collect();
    steps.reverse();
    let mut next = Some(image.id);
    for step in &mut steps {
        let Some(id) = next else { break };
        step.id = Some(id);
        step.tags = names_of(&engine.store.references(&id)).0;
        next = engine.store.image(&id).and_then(|image| image.parent);
    }
    steps
}

/// What Docker calls a removed layer: the chain up to it.
fn chain_of(image: &Image, key: &LayerKey) -> Option<ChainId> {
    let place = image.layers.iter().position(|layer| layer == key)?;
    ChainId::of(&image.config.rootfs.diff_ids[..=place])
}

/// Whether `asked` names the image by its id rather than by a reference.
///
/// Source: moby `daemon/images/image_delete.go`, `isImageIDPrefix`.
fn by_id(id: &ImageId, asked: &str) -> bool {
    let full = id.to_string();
    full.starts_with(asked) || id.hex().starts_with(asked)
}

fn not_found(asked: &str) -> Error {
    words::no_such_image(asked)
}
