//! Images in and out as archives: import, load, save.
//!
//! Source: moby `daemon/images/image_import.go`, `image/tarexport`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use spec::image::{Config, History, ImageConfig, RootFs};
use spec::{ImageId, Platform, Reference};
use store::{LoadError, LoadProgress, LoadedImage, SaveError, SaveItem};
use tokio::sync::mpsc;

use super::ahead::is_pushable;
use super::{beside, by_id, not_found, tag, tell};
use crate::blocking::blocking;
use crate::containers::find_image;
use crate::error::{Error, Kind, Result};
use crate::stream::{self, ByteStream};
use crate::{Engine, Inner, words};

/// Read of an archive that is refused by its request alone.
const REFUSED_BYTES_MAX: u64 = 1 << 20;

/// `docker import`: one layer and a configuration out of nothing.
#[derive(Debug, Clone, Default)]
pub struct ImportRequest {
    pub name: Option<Reference>,
    /// Empty for Docker's default.
    pub message: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    pub platform: Option<Platform>,
}

/// What a load has to tell, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadOutput {
    Progress(LoadProgress),
    /// A line, with its newline.
    Text(String),
}

impl Engine {
    /// Makes an image of a tree in an archive, compressed or not.
    ///
    /// # Errors
    /// `Invalid` for a bad change or archive.
    pub async fn import_image(
        &self,
        archive: ByteStream,
        request: ImportRequest,
    ) -> Result<ImageId> {
        let engine = Arc::clone(&self.inner);
        blocking(move || import(&engine, archive, &request)).await
    }

    /// Loads all images of an archive and gives them their names; of an index the one for `platform`, or
    /// for this host.
    ///
    /// # Errors
    /// `Invalid` for a bad archive. Images loaded before the failure stay.
    pub async fn load_images(
        &self,
        archive: ByteStream,
        platform: Option<Platform>,
        output: mpsc::Sender<LoadOutput>,
    ) -> Result<()> {
        let engine = Arc::clone(&self.inner);
        blocking(move || load(&engine, archive, platform.as_ref(), &output)).await
    }

    /// Streams images as one archive. A name without a tag means all tags of its repository.
    ///
    /// # Errors
    /// `NotFound`, before anything is sent.
    pub async fn save_images(
        &self,
        asked: &[String],
        platform: Option<Platform>,
    ) -> Result<ByteStream> {
        let (engine, asked) = (Arc::clone(&self.inner), asked.to_vec());
        let (mut writer, receiver) = stream::channel();
        let mut saved = blocking(move || {
            let mut items = items(&engine, &asked)?;
            items.iter_mut().for_each(|item| item.platform.clone_from(&platform));
            for item in &items {
                tell(&engine, "save", &item.image, &item.image.to_string());
            }
            engine.store.image_save(&items).map_err(|source| {
                let kind = match &source {
                    SaveError::Missing(_) | SaveError::Platform { .. } => Kind::NotFound,
                    SaveError::Layer(_) | SaveError::Encode(_) => Kind::Internal,
                };
                Error::caused(kind, source)
            })
        })
        .await?;
        tokio::task::spawn_blocking(move || {
            let copied = std::io::copy(&mut saved, &mut writer);
            if let Err(error) = copied
                && error.kind() != std::io::ErrorKind::BrokenPipe
            {
                writer.fail(error);
            }
        });
        Ok(receiver)
    }
}

fn import(engine: &Inner, archive: ByteStream, request: &ImportRequest) -> Result<ImageId> {
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    if platform.os != "linux" {
        // Whoever sends hears the answer only if it is not cut off in a word.
        let start = std::io::Read::take(stream::reader(archive), REFUSED_BYTES_MAX);
        let _ = std::io::copy(&mut { start }, &mut std::io::sink());
        return Err(words::os_not_supported());
    }
    let mut config = Config::default();
    crate::changes::apply(&mut config, &request.changes)?;
    let lease = engine.store.lease();
    // Holds the layer's blob until the image has it.
    let content = engine.store.lease_content();
    let limits = engine.store.unpack_limits();
    let unpack = |archive: &mut (dyn std::io::Read + Send)| {
        engine.store.unpack(&lease, archive, &limits, None, &[])
    };
    let mut archive = stream::reader(archive);
    let unpacked = match request.name.as_ref().is_some_and(is_pushable) {
        true => beside::unpack(&engine.store, &content, archive, unpack),
        false => unpack(&mut archive),
    };
    let layer = unpacked.map_err(|source| Error::caused(Kind::Invalid, source))?;
    let now = Timestamp::now().to_string();
    let message = if request.message.is_empty() { "Imported from -" } else { &request.message };
    let image = ImageConfig {
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        created: Some(now.clone()),
        comment: Some(message.to_owned()),
        config,
        history: vec![History {
            created: Some(now),
            comment: Some(message.to_owned()),
            ..History::default()
        }],
        rootfs: RootFs { diff_ids: vec![layer.key.diff_id()], ..RootFs::default() },
        ..ImageConfig::default()
    };
    let bytes =
        serde_json::to_vec(&image).map_err(|source| Error::caused(Kind::Internal, source))?;
    let id = engine
        .store
        .image_create(&bytes, None, &lease)
        .map_err(|source| Error::caused(Kind::Internal, source))?;
    if let Some(name) = &request.name {
        tag(engine, name, &id)?;
    }
    engine.flush()?;
    tell(engine, "import", &id, &id.to_string());
    Ok(id)
}

fn load(
    engine: &Inner,
    archive: ByteStream,
    platform: Option<&Platform>,
    output: &mpsc::Sender<LoadOutput>,
) -> Result<()> {
    let mut progress = |progress| {
        // Whoever asked may have gone; the load goes on, like any transition.
        let _ = output.blocking_send(LoadOutput::Progress(progress));
    };
    let mut lines = Vec::new();
    let mut loaded = |image| lines.push(name_loaded(engine, &image));
    let archive = stream::reader(archive);
    engine.store.image_load(archive, platform, &mut progress, &mut loaded).map_err(load_error)?;
    engine.flush()?;
    for text in lines.into_iter().collect::<Result<Vec<_>>>()?.concat() {
        say(output, text);
    }
    Ok(())
}

/// Gives a loaded image its names; gives the lines that say so. Only the load is told as an event, as
/// in Docker.
fn name_loaded(engine: &Inner, image: &LoadedImage) -> Result<Vec<String>> {
    let LoadedImage { id, names, target } = image;
    let tag = |name: &Reference| {
        let tagged = engine.store.tag_as(name, id, target.clone());
        tagged.map_err(|source| Error::caused(Kind::Internal, source))
    };
    let mut lines = Vec::new();
    for name in names {
        if let Some(target) = target {
            tag(&name.with_digest(target.digest))?;
        }
        // Nothing is told of the name: a load is one event. Source: moby `image/tarexport/load.go`.
        let before = tag(name)?;
        if let Some(before) = before {
            lines.push(format!(
                "The image {} already exists, renaming the old one with ID {before} to empty string\n",
                name.familiar()
            ));
        }
        lines.push(format!("Loaded image: {}\n", name.familiar()));
    }
    if names.is_empty() {
        lines.push(format!("Loaded image ID: {id}\n"));
    }
    tell(engine, "load", id, &id.to_string());
    Ok(lines)
}

fn say(output: &mpsc::Sender<LoadOutput>, text: String) {
    let _ = output.blocking_send(LoadOutput::Text(text));
}

fn load_error(error: LoadError) -> Error {
    let kind = match &error {
        LoadError::Tar(_)
        | LoadError::NoManifest
        | LoadError::Document { .. }
        | LoadError::Manifest { .. }
        | LoadError::Missing(_)
        | LoadError::Digest { .. }
        | LoadError::TooMuch(_)
        | LoadError::DocumentTooLong { .. }
        | LoadError::Artifact { .. }
        | LoadError::TooManyNames
        | LoadError::Layer { .. }
        | LoadError::LayerCount { .. }
        | LoadError::DiffId { .. }
        | LoadError::Platform(_) => Kind::Invalid,
        LoadError::Read(_) | LoadError::Image(_) | LoadError::Content(_) => Kind::Internal,
    };
    Error::caused(kind, error)
}

/// What to save for what was asked, each image once.
fn items(engine: &Inner, asked: &[String]) -> Result<Vec<SaveItem>> {
    let mut order: Vec<ImageId> = Vec::new();
    let mut names: BTreeMap<ImageId, Vec<Reference>> = BTreeMap::new();
    let mut add = |id: ImageId, name: Option<Reference>| {
        let known = names.entry(id).or_insert_with(|| {
            order.push(id);
            Vec::new()
        });
        known.extend(name.filter(|name| !known.contains(name)));
    };
    for text in asked {
        let bare = Reference::parse_untagged(text)
            .ok()
            .filter(|name| name.tag().is_none() && name.digest().is_none());
        let repository: Vec<(Reference, ImageId)> = match &bare {
            Some(bare) => {
                let same = |(name, _): &(Reference, ImageId)| {
                    name.name() == bare.name() && name.tag().is_some()
                };
                engine.store.names().into_iter().filter(same).collect()
            }
            None => Vec::new(),
        };
        if !repository.is_empty() {
            for (name, id) in repository {
                add(id, Some(name));
            }
            continue;
        }
        let image = find_image(engine, text).map_err(|error| match error.kind {
            Kind::NotFound => not_found(text),
            _ => error,
        })?;
        let name =
            Reference::parse(text).ok().filter(|name| engine.store.resolve_tag(name).is_some());
        add(image.id, name.filter(|_| !by_id(&image.id, text)));
    }
    Ok(order
        .into_iter()
        .map(|image| {
            let names = names.remove(&image).unwrap_or_default();
            SaveItem { image, names, platform: None }
        })
        .collect())
}
