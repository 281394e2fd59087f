//! Images and their names.
//!
//! ```text
//! images/<id>/config.json    the configuration, its bytes as they came: their digest is the id
//! images/<id>/meta.json      what is ours: the parent of the classic builder, times
//! images/repositories.json   names: reference -> id, both tags and repository digests
//! ```
//! An image holds its layers. Which image may be deleted is decided by the engine, which knows the
//! containers; here a removal is carried out.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use spec::image::ImageConfig;
use spec::{ChainId, DiffId, Digest, ImageId, Reference};
use tracing::warn;

use crate::content::{ContentError, Target};
use crate::layers::{LayerKey, Lease};
use crate::records::{self, Durability, RecordError};
use crate::store::{State, Store};

/// One image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    pub id: ImageId,
    pub config: ImageConfig,
    /// The configuration's bytes.
    pub raw: Vec<u8>,
    pub parent: Option<ImageId>,
    /// Bottom first.
    pub layers: Vec<LayerKey>,
    /// Bytes of all layers' files.
    pub size: u64,
    /// Nanoseconds since 1970 of the last tagging; none for images that never had a name.
    pub tagged_at: Option<i64>,
}

impl Image {
    pub fn chain(&self) -> Option<ChainId> {
        ChainId::of(&self.config.rootfs.diff_ids)
    }
}

/// Why an image was not made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("invalid image configuration")]
    Config(#[source] serde_json::Error),
    #[error("layer {0} of the image is not there")]
    NoLayer(DiffId),
    #[error("image {0} is not there")]
    Missing(ImageId),
    #[error("a name needs a tag or a digest")]
    BareName,
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// `images/<id>/meta.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct ImageMeta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<ImageId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tagged_at: Option<i64>,
}

#[derive(Default)]
pub(crate) struct Images {
    by_id: HashMap<ImageId, Arc<Image>>,
    names: BTreeMap<Reference, ImageId>,
}

impl Store {
    /// Keeps an image whose layers are all there. One that exists already stays as it is.
    pub fn image_create(
        &self,
        config: &[u8],
        parent: Option<&ImageId>,
        _lease: &Lease,
    ) -> Result<ImageId, ImageError> {
        let parsed: ImageConfig = serde_json::from_slice(config).map_err(ImageError::Config)?;
        let id = ImageId(Digest::of(config));
        if self.image(&id).is_some() {
            return Ok(id);
        }
        let layers: Vec<LayerKey> = parsed.rootfs.diff_ids.iter().copied().map(LayerKey).collect();
        self.state().layers.hold_all(&layers).map_err(|key| ImageError::NoLayer(key.0))?;
        let meta = ImageMeta { parent: parent.copied(), tagged_at: None };
        let dir = self.image_dir(&id);
        let written =
            self.records().write_json(&dir.join("meta.json"), &meta, Durability::Lazy).and_then(
                |()| self.records().write(&dir.join("config.json"), config, Durability::Lazy),
            );
        if let Err(error) = written {
            crate::draft::remove_dir(&dir);
            self.release_layers(&layers);
            return Err(error.into());
        }
        self.flushes().tree();
        let mut state = self.state();
        let image = build(&state, id, config.to_vec(), parsed, meta, layers);
        if let Some(twin) = state.images.by_id.insert(id, Arc::new(image)) {
            // Two made the same image at once; one hold is enough.
            drop(state);
            self.release_layers(&twin.layers);
        }
        Ok(id)
    }

    /// All images, in no order.
    pub fn images(&self) -> Vec<Arc<Image>> {
        self.state().images.by_id.values().cloned().collect()
    }

    pub fn image(&self, id: &ImageId) -> Option<Arc<Image>> {
        self.state().images.by_id.get(id).cloned()
    }

    /// Images whose id begins with these hexadecimal digits.
    pub fn images_by_prefix(&self, prefix: &str) -> Vec<ImageId> {
        let mut found: Vec<ImageId> = self
            .state()
            .images
            .by_id
            .keys()
            .filter(|id| id.hex().starts_with(prefix))
            .copied()
            .collect();
        found.sort_unstable();
        found
    }

    /// Images made from `id` by the classic builder.
    pub fn image_children(&self, id: &ImageId) -> Vec<ImageId> {
        let state = self.state();
        let children =
            state.images.by_id.values().filter(|image| image.parent.as_ref() == Some(id));
        children.map(|image| image.id).collect()
    }

    /// Bytes in layers that another image uses as well.
    pub fn image_shared_size(&self, id: &ImageId) -> u64 {
        let state = self.state();
        let Some(image) = state.images.by_id.get(id) else { return 0 };
        let shared = |key: &&LayerKey| {
            let others = state.images.by_id.values().filter(|other| other.id != *id);
            others.into_iter().any(|other| other.layers.contains(key))
        };
        let sizes = image.layers.iter().filter(shared).filter_map(|key| state.layers.get(key));
        sizes.map(|held| held.record.size).sum()
    }

    /// Names `id`; gives the image that had the name before, if it was another.
    ///
    /// The name then means as content what another name of the image means, if any does.
    pub fn tag(&self, name: &Reference, id: &ImageId) -> Result<Option<ImageId>, ImageError> {
        let target = match self.resolve_tag(name) == Some(*id) {
            true => self.content(name),
            false => None,
        };
        let inherited = || self.references(id).iter().find_map(|known| self.content(known));
        self.tag_as(name, id, target.or_else(inherited))
    }

    /// The same, with what the name means as content: a manifest of the image, or an index of one.
    pub fn tag_as(
        &self,
        name: &Reference,
        id: &ImageId,
        target: Option<Target>,
    ) -> Result<Option<ImageId>, ImageError> {
        let before = self.tag_image(name, id)?;
        match target {
            Some(target) => self.name_content(name, target)?,
            None => drop(self.unname_content(name)?),
        }
        Ok(before)
    }

    fn tag_image(&self, name: &Reference, id: &ImageId) -> Result<Option<ImageId>, ImageError> {
        if name.tag().is_none() && name.digest().is_none() {
            return Err(ImageError::BareName);
        }
        let name = stored(name);
        let mut state = self.state();
        let image = state.images.by_id.get(id).cloned().ok_or(ImageError::Missing(*id))?;
        let before = state.images.names.insert(name.clone(), *id);
        if before != Some(*id)
            && let Err(error) = self.write_names(&state)
        {
            match before {
                Some(before) => state.images.names.insert(name, before),
                None => state.images.names.remove(&name),
            };
            return Err(error.into());
        }
        let tagged = Image { tagged_at: Some(now_nanos()), ..(*image).clone() };
        let meta = ImageMeta { parent: tagged.parent, tagged_at: tagged.tagged_at };
        self.records().write_json(
            &self.image_dir(id).join("meta.json"),
            &meta,
            Durability::Lazy,
        )?;
        state.images.by_id.insert(*id, Arc::new(tagged));
        Ok(before.filter(|before| before != id))
    }

    /// Takes a name away; gives the image that had it.
    pub fn untag(&self, name: &Reference) -> Result<Option<ImageId>, ImageError> {
        let name = stored(name);
        let mut state = self.state();
        let Some(id) = state.images.names.remove(&name) else { return Ok(None) };
        if let Err(error) = self.write_names(&state) {
            state.images.names.insert(name, id);
            return Err(error.into());
        }
        drop(state);
        self.unname_content(&name)?;
        Ok(Some(id))
    }

    /// The image that has this name. A digest wins over a tag.
    pub fn resolve_tag(&self, name: &Reference) -> Option<ImageId> {
        self.state().images.names.get(&stored(name)).copied()
    }

    /// All names with their images, in order.
    pub fn names(&self) -> Vec<(Reference, ImageId)> {
        self.state().images.names.iter().map(|(name, id)| (name.clone(), *id)).collect()
    }

    /// The names of one image, in order.
    pub fn references(&self, id: &ImageId) -> Vec<Reference> {
        let state = self.state();
        let named = state.images.names.iter().filter(|(_, of)| *of == id);
        named.map(|(name, _)| name.clone()).collect()
    }

    /// Removes an image and all its names; gives the layers that went with it, top first.
    pub fn image_remove(&self, id: &ImageId) -> Result<Vec<LayerKey>, ImageError> {
        let mut state = self.state();
        let image = state.images.by_id.remove(id).ok_or(ImageError::Missing(*id))?;
        let named = state.images.names.iter().filter(|(_, of)| *of == id);
        let names: Vec<Reference> = named.map(|(name, _)| name.clone()).collect();
        state.images.names.retain(|_, of| of != id);
        if !names.is_empty() {
            self.write_names(&state)?;
        }
        let trashed = self.to_trash(&self.image_dir(id));
        drop(state);
        for name in &names {
            self.unname_content(name)?;
        }
        self.discard(trashed.into_iter().collect());
        let top_first: Vec<LayerKey> = image.layers.iter().rev().copied().collect();
        Ok(self.release_layers(&top_first))
    }

    fn write_names(&self, state: &State) -> Result<(), RecordError> {
        let path = self.root().join("images").join("repositories.json");
        self.records().write_json(&path, &state.images.names, Durability::Lazy)?;
        self.flushes().names(path);
        Ok(())
    }

    fn image_dir(&self, id: &ImageId) -> PathBuf {
        self.root().join("images").join(id.hex())
    }

    pub(crate) fn load_images(&self, state: &mut State) -> Result<(), RecordError> {
        let dir = self.root().join("images");
        for name in records::names(&dir)? {
            let Ok(digest) = Digest::from_hex(&name) else { continue };
            let id = ImageId(digest);
            match self.load_image(state, id) {
                Some(image) => {
                    state.images.by_id.insert(id, Arc::new(image));
                }
                None => {
                    warn!(image = name, "damaged or without its layers: removed");
                    self.discard(self.to_trash(&dir.join(&name)).into_iter().collect());
                }
            }
        }
        let names: Option<BTreeMap<Reference, ImageId>> =
            crate::flush::read_names(&dir.join("repositories.json"))?;
        let known = &state.images.by_id;
        state.images.names = names
            .unwrap_or_default()
            .into_iter()
            .filter(|(_, id)| known.contains_key(id))
            .collect();
        Ok(())
    }

    fn load_image(&self, state: &mut State, id: ImageId) -> Option<Image> {
        let dir = self.image_dir(&id);
        let raw = std::fs::read(dir.join("config.json")).ok()?;
        if Digest::of(&raw) != id.0 {
            return None;
        }
        let config: ImageConfig = serde_json::from_slice(&raw).ok()?;
        let meta =
            records::read_json::<ImageMeta>(&dir.join("meta.json")).ok()?.unwrap_or_default();
        let layers: Vec<LayerKey> = config.rootfs.diff_ids.iter().copied().map(LayerKey).collect();
        state.layers.hold_all(&layers).ok()?;
        Some(build(state, id, raw, config, meta, layers))
    }
}

fn build(
    state: &State,
    id: ImageId,
    raw: Vec<u8>,
    config: ImageConfig,
    meta: ImageMeta,
    layers: Vec<LayerKey>,
) -> Image {
    let size =
        layers.iter().filter_map(|key| state.layers.get(key)).map(|held| held.record.size).sum();
    Image { id, config, raw, parent: meta.parent, layers, size, tagged_at: meta.tagged_at }
}

/// A name with a digest is kept without its tag: the digest alone decides.
pub(crate) fn stored(name: &Reference) -> Reference {
    match name.digest() {
        Some(digest) => name.with_digest(digest),
        None => name.clone(),
    }
}

fn now_nanos() -> i64 {
    let now = crate::tar::Time::now();
    now.secs.saturating_mul(1_000_000_000).saturating_add(i64::from(now.nanos))
}
