//! `docker load`: images out of a tar, an OCI layout or what any Docker since 1.10 saved.
//!
//! The archive is read once, as a stream, although what a file is for stands in a manifest that
//! usually comes last. So files are told by their content: JSON is held in memory, anything that is
//! a tar (compressed or not) is unpacked at once as a layer in waiting, and what is compressed is
//! written beside it as it came. When the manifest is known the layers are put together; those that
//! nobody asked for are dropped. A file whose name says that it is a layer or blob which is here
//! already is skipped.
//!
//! Of an OCI layout everything is kept as it came, whatever it is for, so what is loaded can be pushed
//! with the digests that it had. Only where a `docker save` made the manifest up, which is one of
//! uncompressed layers beside a manifest.json, it is not kept: no registry has seen it.
//!
//! Source: moby `image/tarexport/load.go`; OCI image-spec `image-layout.md`.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use spec::image::{Descriptor, ImageConfig, Index, Manifest};
use spec::{DiffId, Digest, ImageId, Platform, Reference};

use crate::compress::Compression;
use crate::content::{ContentError, ContentLease, DOCUMENT_BYTES_MAX, Target};
use crate::documents::{CHILDREN_MAX, Document, DocumentError, is_image_config};
use crate::draft::{Draft, UnpackError, remove_dir};
use crate::images::ImageError;
use crate::layers::{BlobInfo, LayerKey, Lease, Told, Unpacked, strange};
use crate::limits::UnpackLimits;
use crate::save::{FULL_NAME, ManifestItem, REF_NAME, SOURCE};
use crate::store::Store;
use crate::tar::TarError;
use crate::tar::read::Reader;
use crate::tree::clean;
use crate::unpack::wire::{Bytes, Event, Failure, Form, Job, LayerFacts};
use crate::unpack::{self, Said, Session};

const JSON_BYTES_MAX: u64 = 8 << 20;
const JSON_TOTAL_BYTES_MAX: u64 = 24 << 20;
const LINKS_MAX: usize = 8;
/// What is remembered of an archive's names: some hundred thousand.
const HELD_BYTES_MAX: usize = 32 << 20;
/// What remembering a file takes beside its name.
const FILE_BYTES: usize = 128;
/// What each layer may swell to although others took all that is free for their archive.
const LAYER_FREE_BYTES: u64 = 64 << 20;

/// An image that was loaded, with the names that the archive gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    pub id: ImageId,
    pub names: Vec<Reference>,
    /// What the names mean as content, where that came along.
    pub target: Option<Target>,
}

/// A layer being loaded: bytes read and in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadProgress {
    /// The file's short digest or name.
    pub layer: String,
    pub current: u64,
    pub total: u64,
}

/// Why an archive gave no images.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    #[error("invalid archive: it has neither manifest.json nor index.json")]
    NoManifest,
    #[error("invalid archive: {path} is no valid document")]
    Document { path: String, source: serde_json::Error },
    #[error("invalid archive: {path} is no manifest")]
    Manifest { path: String, source: DocumentError },
    #[error("invalid archive: {0} is missing")]
    Missing(String),
    #[error("invalid archive: {path} has digest {got}")]
    Digest { path: String, got: Digest },
    #[error("invalid archive: documents of more than {0} bytes")]
    TooMuch(u64),
    #[error("cannot load layer {path}")]
    Layer { path: String, source: UnpackError },
    #[error("invalid manifest, layers length mismatch: expected {want}, got {got}")]
    LayerCount { want: usize, got: usize },
    #[error("invalid diffID for layer {place}: expected {want}, got {got}")]
    DiffId { place: usize, want: DiffId, got: DiffId },
    #[error("no image in the archive fits {0}")]
    Platform(Platform),
    #[error("invalid archive: {path} has {size} bytes, which is too long for a document")]
    DocumentTooLong { path: String, size: u64 },
    #[error("{path} is no image but an artifact of type {kind:?}")]
    Artifact { path: String, kind: String },
    #[error("invalid archive: it has more names than can be remembered")]
    TooManyNames,
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// What was found in the archive, by name.
#[derive(Default)]
struct Contents {
    documents: HashMap<String, Vec<u8>>,
    document_bytes: u64,
    /// Of all names, and what stands beside them.
    held_bytes: usize,
    /// Plain bytes of the layers so far.
    layer_bytes: u64,
    layers: HashMap<String, Slot>,
    links: HashMap<String, String>,
}

impl Contents {
    fn link(&mut self, name: String, target: &[u8]) -> Result<(), LoadError> {
        let Ok(target) = clean(target) else { return Ok(()) };
        self.hold(name.len() + target.len())?;
        self.links.insert(name, String::from_utf8_lossy(&target).into_owned());
        Ok(())
    }

    fn hold(&mut self, bytes: usize) -> Result<(), LoadError> {
        self.held_bytes += bytes + FILE_BYTES;
        if self.held_bytes > HELD_BYTES_MAX { Err(LoadError::TooManyNames) } else { Ok(()) }
    }

    /// What the next layer may ask for: an archive of many bombs is one bomb.
    fn limits(&self, store: &Store) -> UnpackLimits {
        let limits = store.unpack_limits();
        let left = limits.free_bytes.saturating_sub(self.layer_bytes);
        UnpackLimits { free_bytes: left.max(LAYER_FREE_BYTES.min(limits.free_bytes)), ..limits }
    }
}

/// A layer that was made and not looked at yet.
struct Made {
    number: u64,
    facts: LayerFacts,
    told: Told,
    plain: Digest,
    blob: BlobInfo,
}

enum Slot {
    Made(Box<Made>),
    Waiting(Box<Unpacked>),
    Here(LayerKey),
    /// Among the blobs, and not unpacked.
    Kept(Digest),
    Failed(UnpackError),
}

impl Slot {
    /// Looks at what was made below `place`; whoever made it has ended.
    fn settle(&mut self, store: &Store, place: &Path) {
        if !matches!(self, Slot::Made(_)) {
            return;
        }
        let gone = Slot::Failed(strange().into());
        let Slot::Made(made) = std::mem::replace(self, gone) else { return };
        let Made { number, facts, told, plain, blob } = *made;
        let draft = Draft::of_others(place.join(number.to_string()));
        *self = match draft.check() {
            Ok(()) => {
                Slot::Waiting(Box::new(store.unpacked(draft, &facts, told, plain, Some(blob))))
            }
            Err(error) => Slot::Failed(error),
        };
    }
}

/// What keeps the parts of an archive from being removed until they have names.
struct Leases {
    layers: Lease,
    content: ContentLease,
}

impl Store {
    /// Loads all images of an archive, compressed or not: of an index the one for `platform`, or for
    /// this host. `name` is called with each, while it is still held; it gives the names.
    pub fn image_load(
        &self,
        archive: impl Read + Send,
        platform: Option<&Platform>,
        progress: &mut dyn FnMut(LoadProgress),
        name: &mut dyn FnMut(LoadedImage),
    ) -> Result<(), LoadError> {
        let leases = Leases { layers: self.lease(), content: self.lease_content() };
        let loaded = self.load_with(&leases, archive, platform, progress);
        let loaded = loaded.map(|loaded| loaded.into_iter().for_each(name));
        drop(leases);
        // Blobs that nothing names: of an archive that is none, or of none of its images.
        self.sweep_soon();
        loaded
    }

    fn load_with(
        &self,
        leases: &Leases,
        archive: impl Read + Send,
        platform: Option<&Platform>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Vec<LoadedImage>, LoadError> {
        let place = Place::make(self.temporary())?;
        let directory = sys::fs::open_dir(&place.0).map_err(LoadError::Read)?;
        let mut intake =
            Intake { store: self, leases, contents: Contents::default(), layers: 0, progress };
        let job = Job::Load { limits: self.unpack_limits() };
        let hear = |session: &mut Session| intake.hear(session);
        self.unpacker().run(&job, archive, unpack::Place::Directory(directory.as_fd()), hear)?;
        let mut contents = intake.contents;
        for slot in contents.layers.values_mut() {
            slot.settle(self, &place.0);
        }
        let mut loading = Loading { store: self, leases, contents, platform };
        let mut loaded = Vec::new();
        let has_list = loading.find_document("manifest.json").is_some();
        let has_layout = loading.find_document("index.json").is_some();
        if has_layout {
            loading.oci_layout(has_list, &mut loaded)?;
        }
        if has_list {
            loading.docker_archive(&mut loaded)?;
        }
        if !has_list && !has_layout {
            return Err(LoadError::NoManifest);
        }
        Ok(loaded)
    }

    /// A blob that is here: a layer by its diff id, or one that is kept.
    fn known(&self, leases: &Leases, blob: Option<Digest>) -> Option<Slot> {
        let digest = blob?;
        let key = LayerKey(DiffId(digest));
        if leases.layers.hold(&key) {
            return Some(Slot::Here(key));
        }
        leases.content.hold(&digest).then_some(Slot::Kept(digest))
    }
}

/// Where the layers of an archive are made, each in a directory of its number.
struct Place(PathBuf);

impl Place {
    fn make(path: PathBuf) -> Result<Place, LoadError> {
        std::fs::create_dir(&path).map_err(LoadError::Read)?;
        Ok(Place(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove_dir(&self.0);
    }
}

/// Hearing what an archive holds.
struct Intake<'a> {
    store: &'a Store,
    leases: &'a Leases,
    contents: Contents,
    layers: u64,
    progress: &'a mut dyn FnMut(LoadProgress),
}

impl Intake<'_> {
    fn hear(&mut self, session: &mut Session) -> Result<(), LoadError> {
        loop {
            let event = match session.next().map_err(TarError::Unpacker)? {
                Said::Event(event) => event,
                Said::Data(_) => return Err(strange().into()),
            };
            match event {
                Event::Link { path, target } => self.contents.link(name_of(&path), &target.0)?,
                Event::File { path, size } => self.document(name_of(&path), size, session)?,
                Event::Known { path, size } => {
                    let name = name_of(&path);
                    let slot = self.store.known(self.leases, blob_of(&name));
                    session.answer(&slot.is_some()).map_err(TarError::Unpacker)?;
                    if let Some(slot) = slot {
                        self.put(name, size, slot)?;
                    }
                }
                Event::LayerBegins { path, size, form } => {
                    self.layer(name_of(&path), size, form, session)?;
                }
                Event::Blob { path, size } => self.blob(name_of(&path), size, session)?,
                Event::Done => return Ok(()),
                Event::Failed(Failure::Tar(error)) => return Err(error.into()),
                Event::Begun
                | Event::Device { .. }
                | Event::Attribute { .. }
                | Event::Implied(_)
                | Event::Kept(..)
                | Event::Layer(_)
                | Event::Listed(_)
                | Event::NotPlain
                | Event::LayerFailed(_)
                | Event::Entry(_)
                | Event::Failed(_)
                | Event::Unconfined(_)
                | Event::Exited(_) => return Err(strange().into()),
            }
        }
    }

    fn put(&mut self, name: String, size: u64, slot: Slot) -> Result<(), LoadError> {
        self.contents.hold(name.len())?;
        (self.progress)(LoadProgress { layer: short_name(&name), current: size, total: size });
        self.contents.layers.insert(name, slot);
        Ok(())
    }

    fn document(
        &mut self,
        name: String,
        size: u64,
        session: &mut Session,
    ) -> Result<(), LoadError> {
        self.contents.hold(name.len())?;
        if size > JSON_BYTES_MAX {
            return Err(strange().into());
        }
        self.contents.document_bytes += size;
        if self.contents.document_bytes > JSON_TOTAL_BYTES_MAX {
            return Err(LoadError::TooMuch(JSON_TOTAL_BYTES_MAX));
        }
        let content = session.content(size).map_err(TarError::Unpacker)?;
        self.contents.documents.insert(name, content);
        Ok(())
    }

    /// Keeps what is neither document nor layer, by the digest that it has.
    fn blob(&mut self, name: String, size: u64, session: &mut Session) -> Result<(), LoadError> {
        let Some(digest) = blob_of(&name) else { return Err(strange().into()) };
        let (mut ingest, mut left) = (self.store.ingest()?, size);
        while left > 0 {
            match session.next().map_err(TarError::Unpacker)? {
                Said::Data(data) if data.len() as u64 <= left => {
                    ingest.write_all(data).map_err(LoadError::Read)?;
                    left -= data.len() as u64;
                }
                Said::Event(Event::Failed(Failure::Tar(error))) => return Err(error.into()),
                Said::Event(_) | Said::Data(_) => return Err(strange().into()),
            }
        }
        ingest.finish(Some(&digest), &self.leases.content)?;
        self.put(name, size, Slot::Kept(digest))
    }

    /// Hears how a layer is unpacked, and keeps it as it came if it is compressed.
    fn layer(
        &mut self,
        name: String,
        size: u64,
        form: Form,
        session: &mut Session,
    ) -> Result<(), LoadError> {
        (self.progress)(LoadProgress { layer: short_name(&name), current: 0, total: size });
        let number = self.layers;
        self.layers += 1;
        session.answer(&self.contents.limits(self.store)).map_err(TarError::Unpacker)?;
        let mut ingest = match form {
            Form::Plain => None,
            Form::Compressed => Some(self.store.ingest()?),
        };
        let mut told = Told::default();
        let outcome = loop {
            let event = match session.next().map_err(TarError::Unpacker)? {
                Said::Event(event) => told.note(event),
                Said::Data(data) => {
                    let Some(ingest) = &mut ingest else { return Err(strange().into()) };
                    ingest.write_all(data).map_err(LoadError::Read)?;
                    continue;
                }
            };
            match event {
                Ok(None) => {}
                Ok(Some(Event::Layer(facts))) => break Ok(facts),
                Ok(Some(Event::LayerFailed(error))) => break Err(error),
                Ok(Some(_)) => return Err(strange().into()),
                Err(source) => return Err(LoadError::Layer { path: name, source }),
            }
        };
        let facts = match outcome {
            Ok(facts) => facts,
            Err(error) => return self.put(name, size, Slot::Failed(error)),
        };
        let Some(plain) = facts.plain else { return Err(strange().into()) };
        let blob = match ingest {
            None => BlobInfo { digest: plain, size: facts.tar_size },
            Some(ingest) => {
                let size = ingest.size();
                BlobInfo { digest: ingest.finish(None, &self.leases.content)?, size }
            }
        };
        self.contents.layer_bytes = self.contents.layer_bytes.saturating_add(facts.tar_size);
        let made = Made { number, facts, told, plain, blob };
        self.put(name, size, Slot::Made(Box::new(made)))
    }
}

fn name_of(path: &Bytes) -> String {
    String::from_utf8_lossy(&path.0).into_owned()
}

/// Putting images together.
struct Loading<'s> {
    store: &'s Store,
    leases: &'s Leases,
    contents: Contents,
    platform: Option<&'s Platform>,
}

impl Loading<'_> {
    /// Loads what Docker's list has, unless the layout had it.
    fn docker_archive(&mut self, loaded: &mut Vec<LoadedImage>) -> Result<(), LoadError> {
        let items: Vec<ManifestItem> = self.document("manifest.json")?;
        for item in items {
            let config = self.bytes(&item.config)?.to_vec();
            let id = ImageId(Digest::of(&config));
            let tags = item.repo_tags.unwrap_or_default();
            let mut names: Vec<Reference> =
                tags.iter().filter_map(|tag| Reference::parse(tag).ok()).collect();
            let is_there = loaded.iter().any(|image| image.id == id);
            names.retain(|name| !loaded.iter().any(|image| image.names.contains(name)));
            if is_there && names.is_empty() {
                continue;
            }
            self.image(&config, &item.layers)?;
            let target = loaded.iter().find(|image| image.id == id);
            let target = target.and_then(|image| image.target.clone());
            loaded.push(LoadedImage { id, names, target });
        }
        Ok(())
    }

    /// Loads an image of each target that the layout names.
    fn oci_layout(
        &mut self,
        has_list: bool,
        loaded: &mut Vec<LoadedImage>,
    ) -> Result<(), LoadError> {
        let index: Index = self.document("index.json")?;
        let mut artifact = None;
        for descriptor in &index.manifests {
            let names = names_of(&descriptor.annotations);
            self.keep_documents(descriptor)?;
            let media_type = self.kind(descriptor)?;
            let target = Target { digest: descriptor.digest, media_type, size: descriptor.size };
            let Some(manifest) = self.choose(&target, descriptor.platform.as_ref())? else {
                artifact = artifact.or_else(|| self.artifact(&target));
                continue;
            };
            let config = self.blob(manifest.config.digest)?.to_vec();
            let layers: Vec<String> =
                manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect();
            let id = self.image(&config, &layers)?;
            let is_source = |(key, _): (&String, _)| key.starts_with(SOURCE);
            let is_known = !has_list
                || descriptor.annotations.iter().any(is_source)
                || manifest.layers.iter().any(|layer| self.store.has_blob(&layer.digest));
            let target = is_known.then_some(target);
            let same = |image: &&mut LoadedImage| image.id == id && image.target == target;
            match loaded.iter_mut().find(same) {
                Some(image) => image.names.extend(names),
                None => loaded.push(LoadedImage { id, names, target }),
            }
        }
        if loaded.is_empty() && !index.manifests.is_empty() {
            let platform = || self.platform.cloned().unwrap_or_else(Platform::host);
            return Err(artifact.unwrap_or_else(|| LoadError::Platform(platform())));
        }
        Ok(())
    }

    fn kind(&self, descriptor: &Descriptor) -> Result<String, LoadError> {
        let bytes = self.blob(descriptor.digest)?;
        Document::kind(&descriptor.media_type, bytes).map_err(|error| LoadError::Manifest {
            path: blob_name(&descriptor.digest),
            source: error,
        })
    }

    /// Keeps all documents behind a descriptor that came along, and the small blobs that they name.
    fn keep_documents(&self, root: &Descriptor) -> Result<(), LoadError> {
        let (mut next, mut seen) = (vec![root.clone()], HashSet::new());
        while let Some(descriptor) = next.pop() {
            let path = blob_name(&descriptor.digest);
            if self.find_document(&path).is_none()
                || !seen.insert(descriptor.digest)
                || seen.len() > CHILDREN_MAX
            {
                continue;
            }
            let bytes = self.blob(descriptor.digest)?;
            self.store.keep_blob(bytes, &self.leases.content)?;
            match Document::read(&descriptor.media_type, bytes) {
                Ok(Document::Index(index)) => next.extend(index.manifests),
                Ok(Document::Manifest(manifest)) => {
                    next.extend(manifest.layers);
                    next.push(manifest.config);
                }
                // A configuration, or what an attestation says.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The manifest to make an image of: the wanted platform's, else this host's, else the first.
    fn choose(
        &self,
        target: &Target,
        told: Option<&Platform>,
    ) -> Result<Option<Manifest>, LoadError> {
        let host = Platform::host();
        let mut images = Vec::new();
        for child in self.store.children(target) {
            let Some(manifest) = &child.manifest else { continue };
            if !is_image_config(&manifest.config) {
                continue;
            }
            let Some(config) = self.config(manifest)? else { continue };
            let platform = told.cloned().or_else(|| child.platform(self.store));
            if platform.as_ref().is_none_or(|platform| platform.os != "unknown") {
                check_count(&config, manifest.layers.len())?;
                images.push((platform.unwrap_or_else(Platform::host), manifest.clone()));
            }
        }
        let wanted = self.platform.unwrap_or(&host);
        let fits = |(offered, _): &&(Platform, Manifest)| wanted.runs(offered);
        // The newest variant that runs is the one that runs the others.
        let best = images.iter().filter(fits).reduce(|best, other| {
            match other.0.runs(&best.0) && !best.0.runs(&other.0) {
                true => other,
                false => best,
            }
        });
        let any = || images.first().filter(|_| self.platform.is_none());
        match best.or_else(any) {
            Some((_, manifest)) => Ok(Some(manifest.clone())),
            None if images.is_empty() => Ok(None),
            None => Err(LoadError::Platform(wanted.clone())),
        }
    }

    /// An image's own document; none that came along or is here.
    fn config(&self, manifest: &Manifest) -> Result<Option<ImageConfig>, LoadError> {
        let path = blob_name(&manifest.config.digest);
        let here = self.store.blob(&manifest.config.digest);
        if let Some((_, size)) = here.filter(|(_, size)| *size > DOCUMENT_BYTES_MAX) {
            return Err(LoadError::DocumentTooLong { path, size });
        }
        let Some(bytes) = self.store.read_manifest(&manifest.config.digest) else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|source| LoadError::Document { path, source })
    }

    /// What a target is that gave no image.
    fn artifact(&self, target: &Target) -> Option<LoadError> {
        let children = self.store.children(target);
        let manifest = children.iter().find_map(|child| child.manifest.as_ref())?;
        let told = manifest.artifact_type.clone().filter(|kind| !kind.is_empty());
        let kind = told.unwrap_or_else(|| manifest.config.media_type.clone());
        let is_artifact = !is_image_config(&manifest.config);
        is_artifact.then(|| LoadError::Artifact { path: blob_name(&target.digest), kind })
    }

    fn image(&mut self, config: &[u8], paths: &[String]) -> Result<ImageId, LoadError> {
        let parsed: ImageConfig = serde_json::from_slice(config)
            .map_err(|error| LoadError::Image(ImageError::Config(error)))?;
        check_count(&parsed, paths.len())?;
        let wanted = &parsed.rootfs.diff_ids;
        let mut parents = Vec::new();
        for (place, (path, want)) in paths.iter().zip(wanted).enumerate() {
            let key = LayerKey(*want);
            if !self.leases.layers.hold(&key) {
                let got = self.layer(path, &parents)?;
                if got != key {
                    return Err(LoadError::DiffId { place, want: *want, got: got.diff_id() });
                }
            }
            parents.push(key);
        }
        Ok(self.store.image_create(config, None, &self.leases.layers)?)
    }

    fn layer(&mut self, path: &str, parents: &[LayerKey]) -> Result<LayerKey, LoadError> {
        let name = self.follow(path);
        let slot = self
            .contents
            .layers
            .remove(&name)
            .ok_or_else(|| LoadError::Missing(path.to_owned()))?;
        let failed = |source| LoadError::Layer { path: path.to_owned(), source };
        let key = match slot {
            Slot::Here(key) => key,
            Slot::Failed(error) => return Err(failed(error)),
            Slot::Made(_) => return Err(failed(strange().into())),
            Slot::Waiting(unpacked) => {
                unpacked.commit(&self.leases.layers, parents).map_err(failed)?.key
            }
            Slot::Kept(digest) => {
                let kept = self.store.blob(&digest);
                let (file, _) = kept.ok_or_else(|| LoadError::Missing(path.to_owned()))?;
                let limits = self.contents.limits(self.store);
                let lease = &self.leases.layers;
                let layer = self.store.unpack(lease, file, &limits, Some(&digest), parents);
                layer.map_err(failed)?.key
            }
        };
        self.contents.layers.insert(name, Slot::Here(key));
        Ok(key)
    }

    fn document<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, LoadError> {
        let bytes = self.bytes(path)?;
        serde_json::from_slice(bytes)
            .map_err(|source| LoadError::Document { path: path.to_owned(), source })
    }

    fn bytes(&self, path: &str) -> Result<&[u8], LoadError> {
        self.find_document(path).ok_or_else(|| {
            let path = path.to_owned();
            match self.contents.layers.get(&self.follow(&path)) {
                Some(Slot::Kept(digest)) => {
                    let size = self.store.blob(digest).map_or(0, |(_, size)| size);
                    LoadError::DocumentTooLong { path, size }
                }
                Some(Slot::Made(_) | Slot::Waiting(_) | Slot::Here(_) | Slot::Failed(_)) | None => {
                    LoadError::Missing(path)
                }
            }
        })
    }

    /// A document whose name is its digest.
    fn blob(&self, digest: Digest) -> Result<&[u8], LoadError> {
        let path = blob_name(&digest);
        let bytes = self.bytes(&path)?;
        let got = Digest::of(bytes);
        if got == digest { Ok(bytes) } else { Err(LoadError::Digest { path, got }) }
    }

    fn find_document(&self, path: &str) -> Option<&[u8]> {
        self.contents.documents.get(&self.follow(path)).map(Vec::as_slice)
    }

    /// Older Docker saved a layer once and linked to it.
    fn follow(&self, path: &str) -> String {
        let mut name = clean(path.as_bytes())
            .map_or_else(|_| path.to_owned(), |path| String::from_utf8_lossy(&path).into_owned());
        for _ in 0..LINKS_MAX {
            match self.contents.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => break,
            }
        }
        name
    }
}

/// Source: moby 28.2 `image/tarexport/load.go`.
fn check_count(config: &ImageConfig, layers: usize) -> Result<(), LoadError> {
    match config.rootfs.diff_ids.len() {
        count if count == layers => Ok(()),
        count => Err(LoadError::LayerCount { want: layers, got: count }),
    }
}

fn names_of(annotations: &std::collections::BTreeMap<String, String>) -> Vec<Reference> {
    if let Some(name) = annotations.get(FULL_NAME).and_then(|name| Reference::parse(name).ok()) {
        return vec![name];
    }
    // Some write the whole name here, others the tag alone, which names nothing.
    let name = annotations.get(REF_NAME).filter(|name| name.contains([':', '/']));
    name.and_then(|name| Reference::parse(name).ok()).into_iter().collect()
}

/// The digest that a blob of a layout is named by.
pub(crate) fn blob_of(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_prefix("blobs/sha256/")?).ok()
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// What stands for a layer in progress lines: twelve digits where there is a digest.
fn short_name(name: &str) -> String {
    let digest = name
        .split('/')
        .find(|part| Digest::from_hex(&part.chars().take(64).collect::<String>()).is_ok());
    digest.unwrap_or(name).chars().take(12).collect()
}

pub(crate) fn may_be_layer(start: &[u8]) -> bool {
    if start.is_empty() {
        return false;
    }
    Compression::sniff(start) != Compression::None
        || Reader::new(start).next(&mut Vec::new()).is_ok()
}

/// Whether a file that begins like this is held in memory, as JSON.
pub(crate) fn may_be_document(start: &[u8], size: u64) -> bool {
    matches!(start.trim_ascii_start().first(), Some(b'{' | b'[')) && size <= JSON_BYTES_MAX
}
